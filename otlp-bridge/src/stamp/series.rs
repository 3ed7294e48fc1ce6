//! How many series a container may make. The collector adds the counts of all agents up in one table, and
//! what does not fit into that is thrown away, whoever filled it: so nobody may fill it.

use super::{
    claims::{only, text},
    metrics::{StampedMetrics, each_point},
};
use lease::{Forgotten, Leases};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    metrics::v1::ResourceMetrics,
};
use prost::Message as _;
use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState},
};
use wire::{
    fields::{CONTAINER_ID, SERVICE_NAME},
    stream,
};

/// Label sets that one container may have, over all metrics.
pub const SETS_MOST: usize = 500;
/// Labels of a series that the sender chose. Everything else that he says at a point, `session_id` too, is
/// gone before the collector adds up, so it counts for nothing here.
const CHOSEN: [&str; 10] = [
    "model",
    "kind",
    "query_source",
    "speed",
    "effort",
    "tool_name",
    "decision",
    "source",
    "language",
    "start_type",
];
/// What they all read at a point that has no label set of its own.
const OTHER: &str = "other";

/// Label sets that each container has used. At most [`SETS_MOST`] hashes for each that the leases know.
#[derive(Debug, Default)]
pub struct Series {
    /// With a key of its own, so that nobody can choose two sets that look alike.
    hasher: RandomState,
    /// By container id: one that starts again does not begin anew.
    containers: HashMap<String, HashSet<u64>>,
    /// Of points that no lease was found for, all together.
    nobodys: HashSet<u64>,
    forgotten: Forgotten,
}

impl Series {
    /// Gives points of agents that go beyond what their container may have the one label set of their metric in
    /// which everything that the sender chose reads `other`. Their values stay, and they are counted
    /// (`folded`). Containers that the leases have forgotten are forgotten here.
    pub fn bound(&mut self, stamped: &mut StampedMetrics, book: &Leases) {
        if self.forgotten != book.forgotten() {
            self.forgotten = book.forgotten();
            self.forget(book);
        }
        let mut folded = 0;
        for group in &mut stamped.request.resource_metrics {
            if is_of_agents(group) {
                folded += self.group(group, book);
            }
        }
        if folded > 0 {
            stamped.tally.folded += folded;
            stamped.bytes = stamped.request.encode_to_vec();
        }
    }

    fn group(&mut self, group: &mut ResourceMetrics, book: &Leases) -> u64 {
        let mut folded = 0;
        let scopes = group.scope_metrics.iter_mut();
        for metric in scopes.flat_map(|scope| &mut scope.metrics) {
            let Some(data) = &mut metric.data else {
                continue;
            };
            let name = &metric.name;
            each_point(data, |attributes| {
                if !self.admits(name, attributes, book) {
                    attributes.retain(|pair| !CHOSEN.contains(&pair.key.as_str()));
                    // All of them: which ones a point has is its sender's choice as well.
                    attributes.extend(CHOSEN.map(other));
                    folded += 1;
                }
            });
        }
        folded
    }

    /// Whether a point has a label set of its own: one that was there before, or for which there is room.
    fn admits(&mut self, metric: &str, attributes: &[KeyValue], book: &Leases) -> bool {
        let set = self.set(metric, attributes);
        let sets = match text(only(attributes, CONTAINER_ID.name)) {
            None => &mut self.nobodys,
            Some(id) => {
                if !self.containers.contains_key(id) {
                    // What the leases know bounds how many there are.
                    self.forget(book);
                }
                self.containers.entry(id.to_owned()).or_default()
            }
        };
        sets.contains(&set) || (sets.len() < SETS_MOST && sets.insert(set))
    }

    /// A label set of a metric.
    fn set(&self, metric: &str, attributes: &[KeyValue]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        metric.hash(&mut hasher);
        for label in CHOSEN {
            for pair in attributes.iter().filter(|pair| pair.key == label) {
                pair.encode_to_vec().hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    fn forget(&mut self, book: &Leases) {
        let known: HashSet<_> = book.iter().map(|l| l.container_id.as_str()).collect();
        self.containers.retain(|id, _| known.contains(id.as_str()));
    }
}

/// A label that reads `other`.
fn other(label: &str) -> KeyValue {
    KeyValue {
        key: label.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(OTHER.to_owned())),
        }),
        ..KeyValue::default()
    }
}

/// Whether the collector will add its counts up.
fn is_of_agents(group: &ResourceMetrics) -> bool {
    let resource = group.resource.as_ref();
    let name = resource.and_then(|r| text(only(&r.attributes, SERVICE_NAME.name)));
    name == Some(stream::CLAUDE)
}

#[cfg(test)]
mod tests {
    use super::{super::claims::IDENTITY, CHOSEN};

    #[test]
    fn labels_are_those_that_the_collector_keeps() {
        let config = include_str!("../../../collector-config/metrics.yaml");
        let line = config
            .lines()
            .find(|l| l.contains("aggregate_on_attributes"));
        let list = line.and_then(|l| Some(l.split_once('[')?.1.split_once(']')?.0));
        let kept: Vec<_> = list
            .unwrap()
            .split(", ")
            .map(|l| l.trim_matches('"'))
            .filter(|l| !IDENTITY.contains(l))
            .collect();
        assert_eq!(kept, CHOSEN);
    }
}
