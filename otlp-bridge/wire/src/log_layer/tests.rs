use super::*;
use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value::Value},
    logs::v1::SeverityNumber,
};
use std::collections::BTreeMap;
use tracing::{error, info, subscriber, warn};
use tracing_subscriber::{layer::SubscriberExt as _, registry};

/// Says something to a layer of this crate; what comes out, and how many were suppressed in all.
fn heard(volume: Volume, say: impl FnOnce()) -> (Vec<LogRecord>, u64) {
    let (layer, mut outlet) = layer(&["wire"], volume);
    subscriber::with_default(registry().with(layer), say);
    outlet.close();
    let unsent = outlet.unsent();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let all = runtime.unwrap().block_on(async {
        let mut all = Vec::new();
        loop {
            let some = outlet.gather().await;
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    });
    (all, unsent.count())
}

fn attributes(r: &LogRecord) -> BTreeMap<&str, Value> {
    let value = |a: &KeyValue| a.value.clone().and_then(|v| v.value).unwrap();
    let all: BTreeMap<_, _> = r
        .attributes
        .iter()
        .map(|a| (a.key.as_str(), value(a)))
        .collect();
    assert_eq!(all.len(), r.attributes.len());
    all
}

fn body(r: &LogRecord) -> String {
    match r.body.clone().and_then(|b| b.value) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn text(s: &str) -> Value {
    Value::StringValue(s.to_owned())
}

#[test]
fn warnings_of_ours_and_security_of_any_level_are_taken_and_nothing_else() {
    let (all, suppressed) = heard(Volume::default(), || {
        info!("business as usual");
        warn!(target: "h2::client", "a transport speaks of sending");
        warn!(target: "wireless", "somebody else");
        muted(|| error!("said while sending"));
        warn!(code = 7, what = ?"x", "odd\nthing\u{202e}");
        tracing::debug!(target: SECURITY, agent = "a/b", project = %"p q", "looked at");
        error!(target: "wire::inner", "broken");
    });
    assert_eq!(suppressed, 0);
    let said: Vec<_> = all.iter().map(body).collect();
    assert_eq!(
        said,
        ["odd thing  (code=7, what=\"x\")", "looked at", "broken"]
    );
    assert_eq!(
        all.iter().map(|r| r.severity_number).collect::<Vec<_>>(),
        [
            SeverityNumber::Warn,
            SeverityNumber::Info,
            SeverityNumber::Error
        ]
        .map(i32::from)
    );
    let wanted = [
        ("agent", text("a/b")),
        ("level", text("debug")),
        ("project", text("p q")),
        ("target", text(SECURITY)),
    ];
    assert_eq!(attributes(&all[1]), wanted.into());
    assert_eq!(attributes(&all[2])["target"], text("wire::inner"));
    assert_eq!(all[0].event_name, EVENT);
}

#[test]
fn what_is_said_too_often_is_counted_in_the_next_record() {
    let volume = Volume {
        burst: 3,
        per_second: 0.0,
        queue: 100,
    };
    let (all, suppressed) = heard(volume, || {
        for i in 0..10 {
            warn!("{i}");
        }
        // Other noise has not used up what security may say.
        warn!(target: SECURITY, "seen");
        warn!(target: SECURITY, "seen again");
    });
    let said: Vec<_> = all.iter().map(body).collect();
    assert_eq!(said, ["0", "1", "2", "seen", "seen again"]);
    assert_eq!(suppressed, 7);
    assert_eq!(attributes(&all[3])["suppressed"], Value::IntValue(7));
    assert!(!attributes(&all[4]).contains_key("suppressed"));
}

#[test]
fn a_full_queue_holds_nobody_up_and_its_last_quarter_is_for_security() {
    let volume = Volume {
        burst: 1000,
        per_second: 0.0,
        queue: 8,
    };
    let (all, suppressed) = heard(volume, || {
        for _ in 0..100 {
            warn!("noise");
        }
        for _ in 0..100 {
            warn!(target: SECURITY, "signal");
        }
    });
    let count = |what| all.iter().filter(|r| body(r) == what).count();
    assert_eq!((count("noise"), count("signal")), (6, 2));
    assert_eq!(suppressed, 192);
}

#[test]
fn muting_ends_where_it_began_even_by_a_panic() {
    let (all, _) = heard(Volume::default(), || {
        muted(|| {
            muted(|| warn!("inner"));
            warn!("outer");
        });
        let _ = std::panic::catch_unwind(|| muted(|| panic!("expected by this test")));
        warn!("after");
    });
    assert_eq!(all.iter().map(body).collect::<Vec<_>>(), ["after"]);
}
