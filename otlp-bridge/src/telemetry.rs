//! What the bridge tells about itself: its warnings go into its own spool, its numbers to the receiver of
//! metrics.

use crate::{
    incoming::{Keeper as _, Weight},
    intake::{Counts, Intake},
    own::{own, source},
    spool::{Spool, State},
};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::{task::spawn_blocking, time};
use wire::{
    Client, Endpoint, Outlet, Snapshot,
    log_layer::Unsent,
    metrics::{
        DELIVERED, KEPT, LEASES_AGE, LOG_SUPPRESSED, RECORDS_REFUSED, REQUESTS, SET_ASIDE, SHED,
        SPOOL_AGE, SPOOL_LIMIT, SPOOL_RECORDS, SPOOL_SIZE, STAMPS,
    },
    muted, stream,
};

/// How often numbers are sent.
const PERIOD: Duration = Duration::from_secs(10);

/// Keeps own warnings for ever. What cannot be kept is counted.
pub async fn log(mut outlet: Outlet, spool: Arc<Spool>) {
    loop {
        let said = outlet.gather().await;
        if said.is_empty() {
            return;
        }
        let n = said.len() as u64;
        let spool = Arc::clone(&spool);
        let own = |r| own(stream::CONTROL_PLANE, Weight::Other, r);
        let records = said.into_iter().map(own).collect::<Vec<_>>();
        // A warning about the spool must not become one more record for it.
        let kept = spawn_blocking(move || muted(|| spool.keep(None, &records).is_ok())).await;
        if !kept.unwrap_or(false) {
            outlet.lost(n);
        }
    }
}

/// Sends the numbers for ever. One that gets lost is in the next, for they are sums.
pub async fn metrics(spool: Arc<Spool>, intake: Arc<Intake>, unsent: Unsent, to: Endpoint) {
    let (client, start) = (Client::new(&to), Timestamp::now());
    let source = source(stream::CONTROL_PLANE);
    let mut ticks = time::interval(PERIOD);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = Arc::clone(&spool);
        let Ok(Ok(state)) = spawn_blocking(move || asked.state()).await else {
            continue;
        };
        let mut told = Snapshot::new(&source, start, Timestamp::now());
        of_spool(&mut told, &state, Timestamp::now());
        of_intake(&mut told, &intake.counters().counts());
        told.set(LEASES_AGE, [], intake.leases_age().as_secs());
        told.set(LOG_SUPPRESSED, [], unsent.count());
        let _ = client.send(&told.payload()).await;
    }
}

fn of_spool(told: &mut Snapshot, state: &State, now: Timestamp) {
    for s in &state.streams {
        let of = [s.stream.as_str()];
        told.set(KEPT, of, s.kept);
        told.set(DELIVERED, of, s.delivered);
        told.set(SHED, of, s.shed);
        told.set(SET_ASIDE, of, s.set_aside_ever);
    }
    let pending = state.streams.iter().map(|s| s.pending).sum();
    let oldest = state.streams.iter().filter_map(|s| s.oldest_ms).min();
    let now = u64::try_from(now.as_millisecond()).unwrap_or(0);
    told.set(SPOOL_RECORDS, [], pending);
    told.set(SPOOL_SIZE, [], state.bytes);
    told.set(SPOOL_LIMIT, [], state.max_bytes);
    let age = oldest.map_or(0, |oldest| now.saturating_sub(oldest) / 1000);
    told.set(SPOOL_AGE, [], age);
}

fn of_intake(told: &mut Snapshot, counts: &Counts) {
    let outcomes = [
        ("accepted", counts.accepted),
        ("refused", counts.refused),
        ("put_off", counts.put_off),
    ];
    for (outcome, n) in outcomes {
        told.set(REQUESTS, [outcome], n);
    }
    let answers = ["held", "nobody", "ambiguous", "beyond", "no_address"];
    for (answer, n) in counts.tally.counts() {
        if answers.contains(&answer) {
            told.set(STAMPS, [answer], n);
        }
    }
    for (cause, n) in counts.tally.refusals() {
        told.set(RECORDS_REFUSED, [cause], n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Tally;
    use opentelemetry_proto::tonic::metrics::v1::{
        Metric, NumberDataPoint, metric::Data, number_data_point::Value,
    };

    fn find(told: Snapshot, name: &str) -> Metric {
        let mut request = told.request();
        let metrics = request.resource_metrics.remove(0).scope_metrics.remove(0);
        let mut metrics = metrics.metrics.into_iter();
        metrics.find(|m| m.name == name).unwrap()
    }

    #[test]
    fn records_that_were_refused_one_at_a_time_are_told_by_cause() {
        let counts = Counts {
            tally: Tally {
                malformed: 1,
                too_large: 2,
                too_many: 3,
                no_stream: 4,
                truncated: 5,
                ..Tally::default()
            },
            ..Counts::default()
        };
        let now = Timestamp::now();
        let mut told = Snapshot::new(&source(stream::CONTROL_PLANE), now, now);
        of_intake(&mut told, &counts);
        let metric = find(told, "clawker.bridge.records.refused");
        let Some(Data::Sum(sum)) = metric.data else {
            panic!("{metric:?}");
        };
        assert!(sum.is_monotonic);
        let point = |p: NumberDataPoint| match p.value {
            Some(Value::AsInt(n)) => (format!("{:?}", p.attributes), n),
            other => panic!("{other:?}"),
        };
        let points: Vec<_> = sum.data_points.into_iter().map(point).collect();
        let causes = ["malformed", "too_large", "too_many", "no_stream"];
        assert_eq!(points.len(), causes.len());
        for ((said, n), (cause, count)) in points.iter().zip(causes.iter().zip(1..)) {
            assert!(said.contains("\"cause\"") && said.contains(cause), "{said}");
            assert_eq!(*n, count);
        }
    }
}
