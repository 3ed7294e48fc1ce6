//! Delivery: to a real collector that comes and goes, and to one that refuses.

use crate::{
    receiver::{Collector, Stub},
    support::{all, event, eventually, find, flow, open, other},
};
use axum::http::StatusCode;
use otlp_bridge::{
    deliver::{self, Deliveries},
    incoming::{Incoming, Keeper as _, Weight},
    spool::Spool,
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::runtime::Runtime;
use wire::{
    Endpoint, Options,
    stream::{EGRESS, SET_ASIDE},
};

const ROOM: u64 = 256 << 20;

/// A spool that is being delivered, until it is dropped.
struct Delivered {
    spool: Arc<Spool>,
    deliveries: Deliveries,
    runtime: Option<Runtime>,
    _dir: tempfile::TempDir,
}

impl Delivered {
    fn to(url: &str, runtime: Runtime) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = Arc::new(open(dir.path(), ROOM));
        let deliveries = Deliveries::default();
        let endpoint = Endpoint::new(url, &Options::default()).unwrap();
        runtime.spawn(deliver::start(
            Arc::clone(&spool),
            endpoint,
            deliveries.clone(),
        ));
        Self {
            spool,
            deliveries,
            runtime: Some(runtime),
            _dir: dir,
        }
    }

    /// Waits until nothing of these data streams waits any more.
    #[track_caller]
    fn wait(&self, streams: &[&str]) {
        let empty = |s: &&&str| find(&self.spool, s).pending == 0;
        eventually("delivery", || {
            streams.iter().all(|s| empty(&s)).then_some(())
        });
    }
}

impl Drop for Delivered {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn flows(from: u64, n: u64) -> Vec<Incoming> {
    (from..from + n).map(|n| flow(1, "ALLOWED", n)).collect()
}

fn envoy(n: u64) -> Vec<Incoming> {
    (0..n)
        .map(|n| other("envoy", &format!("envoy-acme-{n}"), Weight::Other))
        .collect()
}

#[test]
fn a_collector_that_comes_and_goes_gets_everything() {
    let mut collector = Collector::new();
    let d = Delivered::to(&collector.url(), runtime());
    let mut wanted = BTreeSet::new();
    let mut keep = |records: Vec<Incoming>| {
        d.spool.keep(None, &records).unwrap();
        wanted.extend(records.into_iter().map(|r| r.id));
    };
    keep(flows(0, 1000));
    keep(envoy(300));
    let away = || {
        d.deliveries
            .trouble(EGRESS)
            .filter(|t| t.contains("cannot connect"))
    };
    eventually("the outage to be noticed", away);
    for kill in 0..3 {
        collector.start();
        keep(flows(1000 * (kill + 1), 1000));
        eventually("some to arrive", || {
            (collector.ids().len() > 100).then_some(())
        });
        collector.kill();
    }
    collector.start();
    d.wait(&[EGRESS, "envoy"]);
    let arrived = || collector.ids().into_iter().collect::<BTreeSet<_>>();
    eventually("the file to be written", || {
        (arrived().len() >= wanted.len()).then_some(())
    });
    // A kill may have taken what the collector had not written yet: that is its own loss, not ours. What
    // it lost it had said yes to, so only the last start can be held against us.
    let missing: Vec<_> = wanted.difference(&arrived()).cloned().collect();
    assert_eq!(missing, Vec::<String>::new());
    eventually("the trouble to be over", || {
        d.deliveries.trouble(EGRESS).is_none().then_some(())
    });
    let state = find(&d.spool, EGRESS);
    assert_eq!((state.delivered, state.set_aside, state.shed), (4000, 0, 0));
}

#[test]
fn a_poison_record_is_set_aside_and_nothing_else_is_held_up() {
    let runtime = runtime();
    let poison = flow(1, "ALLOWED", 333).id;
    let id = poison.clone();
    let stub = runtime.block_on(Stub::start(move |r| match r.ids.contains(&id) {
        true => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "mapper_parsing_exception".to_owned(),
        ),
        false => (StatusCode::OK, String::new()),
    }));
    let d = Delivered::to(&stub.url, runtime);
    d.spool.keep(None, &flows(0, 1000)).unwrap();
    d.spool.keep(None, &envoy(500)).unwrap();
    // A stream goes on, which is what tells the poison from an outage.
    let mut n = 1000;
    eventually("the poison to be set aside", || {
        d.spool.keep(None, &flows(n, 3)).unwrap();
        n += 3;
        (find(&d.spool, EGRESS).set_aside == 1).then_some(())
    });
    d.wait(&[EGRESS, "envoy", wire::stream::OVERSEER]);
    let (egress, envoy) = (find(&d.spool, EGRESS), find(&d.spool, "envoy"));
    assert_eq!((egress.delivered, egress.set_aside), (n - 1, 1));
    assert_eq!(envoy.delivered, 500);
    let seen = stub.seen();
    let taken: BTreeSet<_> = seen.iter().flat_map(|r| &r.ids).collect();
    assert_eq!(
        taken.len() as u64,
        n + 500 + 1,
        "all, the poison and the notice, whose id is elsewhere"
    );
    for r in &seen {
        assert_eq!(r.streams.len(), 1, "a request is of one stream");
        assert!(r.ids.len() <= 200);
    }
    // Once it is set aside, it is not sent again.
    let last = seen.iter().rposition(|r| r.ids.contains(&poison)).unwrap();
    assert_eq!(seen[last].ids, [poison]);
}

#[test]
fn what_was_set_aside_is_delivered_when_the_receiver_has_been_mended() {
    let runtime = runtime();
    let mended = Arc::new(AtomicBool::new(false));
    let (now, bad) = (Arc::clone(&mended), flow(1, "ALLOWED", 333).id);
    let id = bad.clone();
    let stub = runtime.block_on(Stub::start(move |r| {
        match r.ids.contains(&id) && !now.load(Ordering::Relaxed) {
            true => (StatusCode::INTERNAL_SERVER_ERROR, "no room".to_owned()),
            false => (StatusCode::OK, String::new()),
        }
    }));
    let d = Delivered::to(&stub.url, runtime);
    let mut n = 1000;
    d.spool.keep(None, &flows(0, n)).unwrap();
    let mut until_aside = |ever: u64| {
        eventually("it to be set aside", || {
            d.spool.keep(None, &flows(n, 3)).unwrap();
            n += 3;
            let state = find(&d.spool, EGRESS);
            (state.set_aside == 1 && state.set_aside_ever == ever).then_some(())
        });
        n
    };
    until_aside(1);
    // Not yet: it is blamed again, and nothing is lost or counted twice by that.
    d.spool.try_again().unwrap();
    let n = until_aside(2);
    mended.store(true, Ordering::Relaxed);
    d.spool.try_again().unwrap();
    d.wait(&[EGRESS, wire::stream::OVERSEER]);
    let state = find(&d.spool, EGRESS);
    assert_eq!((state.kept, state.delivered), (n, n));
    assert_eq!((state.set_aside, state.shed), (0, 0));
    let taken = stub.seen().into_iter().filter(|r| r.ids == [bad.clone()]);
    assert!(taken.count() > 2, "and it was announced");
    // A record that came and went leaves its id free.
    d.spool.keep(None, &[flow(1, "ALLOWED", 333)]).unwrap();
    d.wait(&[EGRESS]);
    assert_eq!(find(&d.spool, EGRESS).delivered, n + 1);
}

#[test]
fn a_stream_that_is_refused_does_not_hold_up_the_others() {
    let runtime = runtime();
    let stub = runtime.block_on(Stub::start(|r| match r.streams[0] == "envoy" {
        true => (StatusCode::SERVICE_UNAVAILABLE, "busy".to_owned()),
        false => (StatusCode::OK, String::new()),
    }));
    let d = Delivered::to(&stub.url, runtime);
    d.spool.keep(None, &envoy(2000)).unwrap();
    eventually("trouble", || d.deliveries.trouble("envoy"));
    d.spool.keep(None, &flows(0, 2000)).unwrap();
    d.wait(&[EGRESS]);
    assert_eq!(find(&d.spool, "envoy").delivered, 0);
    assert_eq!(find(&d.spool, "envoy").set_aside, 0);
    assert_eq!(d.deliveries.trouble(EGRESS), None);
    let text = d.deliveries.trouble("envoy").unwrap();
    assert_eq!(text, "the receiver answered 503");
}

#[test]
fn what_the_store_knows_already_counts_as_delivered_and_the_notice_of_poison_arrives() {
    let runtime = runtime();
    let stub = runtime.block_on(Stub::start(|r| {
        let known: Vec<_> = r.ids.iter().filter(|id| id.ends_with('7')).collect();
        let line = |id: &&String| {
            format!("[version_conflict_engine_exception] [{id}]: version conflict, document already exists (current version [1])")
        };
        match known.is_empty() {
            true => (StatusCode::OK, String::new()),
            false => (StatusCode::INTERNAL_SERVER_ERROR, known.iter().map(line).collect()),
        }
    }));
    let d = Delivered::to(&stub.url, runtime);
    d.spool.keep(None, &flows(0, 1000)).unwrap();
    d.wait(&[EGRESS]);
    let state = find(&d.spool, EGRESS);
    assert_eq!((state.delivered, state.set_aside), (1000, 0));
    assert!(
        stub.seen().len() <= 10,
        "named ones are not looked for by halves"
    );
}

#[test]
fn the_notice_names_the_record_and_what_was_said() {
    let runtime = runtime();
    let stub = runtime.block_on(Stub::start(|r| match &r.streams[0] {
        s if s == wire::stream::OVERSEER => (StatusCode::SERVICE_UNAVAILABLE, String::new()),
        _ if r.ids.iter().any(|id| id == "envoy-acme-0") => {
            let quoted = "bad value. Preview of field's value: 'a secret'";
            (StatusCode::BAD_REQUEST, quoted.to_owned())
        }
        _ => (StatusCode::OK, String::new()),
    }));
    let d = Delivered::to(&stub.url, runtime);
    let mut rest = envoy(5000).into_iter();
    eventually("the poison to be set aside", || {
        let some: Vec<_> = rest.by_ref().take(2).collect();
        d.spool.keep(None, &some).unwrap();
        (find(&d.spool, "envoy").set_aside == 1).then_some(())
    });
    eventually("the notice to be handed out", || {
        d.deliveries.trouble(wire::stream::OVERSEER)
    });
    let (spool, dir) = (Arc::clone(&d.spool), d._dir.path().to_owned());
    // Give delivery's records free: a restart.
    spool.close().unwrap();
    let spool = open(&dir, ROOM);
    let notices = all(&spool, wire::stream::OVERSEER);
    let (name, a) = event(&notices[0]);
    assert_eq!((name.as_str(), notices.len()), (SET_ASIDE, 1));
    assert_eq!(a["first_id"], "envoy-acme-0");
    assert_eq!(a["failure"], "the receiver answered 400");
}
