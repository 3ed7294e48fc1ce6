//! Records of the loader: their stream, what they are worth, and the flows they stand for.

use super::claims::{only, text};
use crate::incoming::{Flows, Weight};
use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
};
use wire::{
    FlowId,
    fields::{BOOT, COUNT, FLOW_ID, FLOWS, RECORD_ID, SERVICE_NAME, SLOT, VERDICT},
    flow_id::is_boot,
    stream::{CONTROL_PLANE, EGRESS, GAP, OVERSEER},
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

/// The flows that a record of the loader accounts for, if it is one that should: a flow's own tells of
/// them, one of a gap declares them lost. The inner one is nothing if it does not say.
pub(super) fn accounted(stream: &str, record: &LogRecord) -> Option<Option<Flows>> {
    let attributes = &record.attributes;
    match stream {
        EGRESS => Some(flows(attributes)),
        // Without a verdict they are flows whose end was not seen, which no verdict's count has.
        OVERSEER if record.event_name == GAP && only(attributes, VERDICT.name).is_some() => {
            Some(declared(attributes))
        }
        _ => None,
    }
}

fn declared(attributes: &[KeyValue]) -> Option<Flows> {
    let number = |name| match only(attributes, name)?.value {
        Some(Value::IntValue(n)) => u64::try_from(n).ok(),
        _ => None,
    };
    let boot = text(only(attributes, BOOT.name)).filter(|boot| is_boot(boot))?;
    Some(Flows {
        boot: boot.to_owned(),
        slot: u32::try_from(number(SLOT.name)?).ok()?,
        verdict: verdict(attributes)?.to_owned(),
        count: number(FLOWS.name)?,
    })
}

fn verdict(attributes: &[KeyValue]) -> Option<&str> {
    let verdict = text(only(attributes, VERDICT.name))?;
    ["ALLOWED", "DENIED", "BYPASSED"]
        .contains(&verdict)
        .then_some(verdict)
}

/// The flows that a record of [`EGRESS`] stands for; nothing if it does not say.
fn flows(attributes: &[KeyValue]) -> Option<Flows> {
    let verdict = verdict(attributes)?;
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
    Some(Flows {
        boot: id.boot.to_owned(),
        slot: id.slot,
        verdict: verdict.to_owned(),
        count,
    })
}
