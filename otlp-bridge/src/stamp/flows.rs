//! Records of the loader: their stream, what they are worth, and the flows they stand for.

use super::claims::{only, text};
use crate::incoming::{Flows, Weight};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use wire::{
    FlowId,
    fields::{COUNT, FLOW_ID, RECORD_ID, SERVICE_NAME, VERDICT},
    stream::{CONTROL_PLANE, EGRESS, OVERSEER},
};

/// Longest id, bytes. A store refuses a whole request for one of more than 512.
const ID_MOST: usize = 256;

/// The stream that a resource of the loader names.
pub(super) fn stream(resource: &[KeyValue]) -> Option<&'static str> {
    let name = text(only(resource, SERVICE_NAME.name))?;
    [EGRESS, CONTROL_PLANE, OVERSEER]
        .into_iter()
        .find(|known| *known == name)
}

/// The id that a record of the loader has.
pub(super) fn id(attributes: &[KeyValue]) -> Option<String> {
    [FLOW_ID.name, RECORD_ID.name].into_iter().find_map(|name| {
        let id = text(only(attributes, name))?;
        (1..=ID_MOST).contains(&id.len()).then(|| id.to_owned())
    })
}

/// What a record of the loader is worth.
pub(super) fn weight(stream: &str, attributes: &[KeyValue]) -> Weight {
    match (stream, text(only(attributes, VERDICT.name))) {
        (EGRESS, Some("ALLOWED")) => Weight::Allowed,
        (EGRESS, Some("DENIED" | "BYPASSED")) | (OVERSEER, _) => Weight::Kept,
        _ => Weight::Other,
    }
}

/// The flows that a record of [`EGRESS`] stands for; nothing if it does not say.
pub(super) fn flows(attributes: &[KeyValue]) -> Option<Flows> {
    let verdict = text(only(attributes, VERDICT.name))?;
    let id = FlowId::parse(text(only(attributes, FLOW_ID.name))?)?;
    let count = match only(attributes, COUNT.name) {
        // Only folded records have one.
        None if !id.folded => 1,
        Some(count) if id.folded => match count.value {
            Some(Value::IntValue(n)) => u64::try_from(n).ok().filter(|n| *n > 0)?,
            _ => return None,
        },
        _ => return None,
    };
    ["ALLOWED", "DENIED", "BYPASSED"]
        .contains(&verdict)
        .then(|| Flows {
            boot: id.boot.to_owned(),
            slot: id.slot,
            verdict: verdict.to_owned(),
            count,
        })
}
