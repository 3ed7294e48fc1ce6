//! What a program says about itself, on its way to a receiver.

use crate::{
    client, options,
    receiver::{Answer, Receiver},
};
use opentelemetry_proto::tonic::{common::v1::any_value::Value, logs::v1::LogRecord};
use std::{future::ready, time::Duration};
use tonic::Status;
use tracing::{subscriber, warn};
use tracing_subscriber::{layer::SubscriberExt as _, registry};
use wire::{Outlet, Source, Volume, log_layer, stream};

/// Says something, and what comes out of it later.
fn said(n: usize) -> Outlet {
    let volume = Volume {
        burst: 1000,
        ..Volume::default()
    };
    let (layer, outlet) = log_layer::layer(&["client"], volume);
    subscriber::with_default(registry().with(layer), || {
        for i in 0..n {
            warn!("{i}");
        }
    });
    outlet
}

fn source() -> Source {
    Source::new(stream::CONTROL_PLANE, "test", "1", "1")
}

fn texts(receiver: &Receiver) -> Vec<String> {
    let text = |r: &LogRecord| match r.body.clone().and_then(|b| b.value) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    };
    let seen = receiver.seen.lock().unwrap();
    let scopes = seen.requests.iter().flat_map(|r| &r.resource_logs);
    let records = scopes.flat_map(|r| &r.scope_logs[0].log_records);
    records.map(text).collect()
}

#[tokio::test]
async fn what_was_said_arrives_in_order_and_delivery_ends_when_it_is_over() {
    let receiver = Receiver::default();
    let outlet = said(250);
    let client = client(&receiver.tcp().await, &options());
    outlet.deliver(client, source(), None, ready(())).await;
    let wanted: Vec<_> = (0..250).map(|i| i.to_string()).collect();
    assert_eq!(texts(&receiver), wanted);
    let seen = receiver.seen.lock().unwrap();
    let resource = seen.requests[0].resource_logs[0].resource.clone().unwrap();
    assert_eq!(
        resource.attributes[0].value.clone().unwrap().value,
        Some(Value::StringValue("clawker-cp".to_owned()))
    );
}

#[tokio::test]
async fn a_request_is_repeated_until_it_is_taken_and_counted_when_it_is_refused() {
    let wait = Err(Status::unavailable("later"));
    let refuse = Err(Status::invalid_argument("never"));
    let receiver = Receiver::new([wait, refuse].map(Answer::Say));
    let outlet = said(150);
    let unsent = outlet.unsent();
    let client = client(&receiver.tcp().await, &options());
    let delivery = outlet.deliver(client, source(), None, ready(()));
    tokio::time::timeout(Duration::from_secs(20), delivery)
        .await
        .unwrap();
    // The first hundred went out twice and were refused in the end.
    assert_eq!(unsent.count(), 100);
    assert_eq!(texts(&receiver).len(), 100 + 100 + 50);
}
