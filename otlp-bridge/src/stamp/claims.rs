//! What a sender says about who it is, and what the collector says about where the record came in. The
//! first is taken away, the second is believed only if it is said once.

use super::Lane;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use std::net::IpAddr;
use wire::fields::{
    AGENT, CONTAINER_ID, CONTAINER_NAME, FLOW_ID, IDENTITY_AS_OF, LANE, PEER, PROJECT, RECORD_ID,
    SERVICE_NAME, SRC_IP, TRUNCATED,
};

/// Names of who it was.
pub(super) const IDENTITY: [&str; 4] = [
    AGENT.name,
    PROJECT.name,
    CONTAINER_ID.name,
    CONTAINER_NAME.name,
];
/// What only the loader and the bridge may say, besides the namespace `clawker`.
const OURS: [&str; 5] = [
    FLOW_ID.name,
    RECORD_ID.name,
    TRUNCATED.name,
    IDENTITY_AS_OF.name,
    "clawker",
];

/// The text of an attribute.
pub(super) fn text(value: Option<&AnyValue>) -> Option<&str> {
    match value?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// The attribute of a name, if it is there once.
pub(super) fn only<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a AnyValue> {
    let mut found = attributes.iter().filter(|pair| pair.key == name);
    match (found.next(), found.next()) {
        (Some(pair), None) => pair.value.as_ref(),
        _ => None,
    }
}

/// The first part of a dotted name, as a store would file it: `agent.name` lies under `agent`. Spellings
/// that people would take for it count as well.
fn first_part(key: &str) -> String {
    let odd = |c: char| c == '.' || c.is_whitespace() || c.is_control();
    let key = key.trim_start_matches(odd).to_ascii_lowercase();
    // As semantic conventions spell them.
    let key = key.replacen("container.id", CONTAINER_ID.name, 1);
    let key = key.replacen("container.name", CONTAINER_NAME.name, 1);
    let key = key.replacen("dev.clawker", "clawker", 1);
    let part = key.split('.').next().unwrap_or_default();
    part.trim_matches(odd).to_owned()
}

/// Whether a name is one that a sender may not use: of an identity, of the bridge's own words, or the
/// stream's.
#[must_use]
pub fn is_claim(key: &str) -> bool {
    let part = first_part(key);
    IDENTITY.contains(&&*part) || OURS.contains(&&*part) || key == SERVICE_NAME.name
}

/// Takes the claims away.
pub(super) fn strip(attributes: &mut Vec<KeyValue>) {
    attributes.retain(|pair| !is_claim(&pair.key));
}

/// Takes away what says where a record came from, on the lane where the connection says it.
pub(super) fn strip_source(attributes: &mut Vec<KeyValue>) {
    attributes.retain(|pair| first_part(&pair.key) != SRC_IP.name);
}

/// Keeps the first attribute of each name: no store takes an object with two.
pub(super) fn settle(attributes: &mut Vec<KeyValue>) -> bool {
    let before = attributes.len();
    let mut at = 0;
    while at < attributes.len() {
        let (seen, rest) = attributes.split_at(at);
        if seen.iter().any(|pair| pair.key == rest[0].key) {
            attributes.remove(at);
        } else {
            at += 1;
        }
    }
    attributes.len() < before
}

/// Something that may be said several times, as long as it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said<T> {
    Nothing,
    This(T),
    /// Different things, or nothing that can be understood: a sender may have added its own.
    Nonsense,
}

impl<T: Copy + PartialEq> Said<T> {
    fn hear(&mut self, what: Option<T>) {
        *self = match (*self, what) {
            (Self::Nothing, Some(what)) => Self::This(what),
            (Self::This(before), Some(what)) if before == what => return,
            _ => Self::Nonsense,
        };
    }

    fn once(self) -> Option<T> {
        match self {
            Self::This(what) => Some(what),
            Self::Nothing | Self::Nonsense => None,
        }
    }
}

/// What the collector said about the way of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    lane: Said<Lane>,
    peer: Said<IpAddr>,
}

impl Way {
    pub(super) fn unknown() -> Self {
        Self {
            lane: Said::Nothing,
            peer: Said::Nothing,
        }
    }

    /// With what these attributes say.
    pub(super) fn with(mut self, attributes: &[KeyValue]) -> Self {
        for pair in attributes {
            let text = text(pair.value.as_ref());
            if pair.key == LANE.name {
                self.lane.hear(text.and_then(Lane::parse));
            } else if pair.key == PEER.name {
                self.peer.hear(text.and_then(address));
            }
        }
        self
    }

    pub(super) fn lane(self) -> Option<Lane> {
        self.lane.once()
    }

    pub(super) fn peer(self) -> Option<IpAddr> {
        self.peer.once()
    }
}

/// An address as sources write it: CoreDNS puts IPv6 into brackets.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let ip: IpAddr = inner.unwrap_or(text).parse().ok()?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_known_in_every_spelling() {
        for key in [
            "agent",
            "project",
            "container_id",
            "container_name",
            "agent.name",
            "agent.source",
            "project.id.x",
            "container.id",
            "container.name",
            "container_id.x",
            ".agent",
            "..agent.x",
            "Agent",
            "AGENT.Name",
            " agent",
            "agent ",
            "agent\u{0}",
            "dev.clawker.agent",
            "clawker",
            "clawker.lane",
            "clawker.peer",
            "flow_id",
            "record_id",
            "truncated",
            "identity_as_of.x",
            "service.name",
        ] {
            assert!(is_claim(key), "{key:?}");
        }
        for key in [
            "agent_type",
            "subagent_name",
            "projects",
            "container.image.name",
            "container",
            "src_ip",
            "tool_name",
            "service.version",
            "user.agent",
            "",
            ".",
        ] {
            assert!(!is_claim(key), "{key:?}");
        }
    }

    #[test]
    fn an_address_may_stand_in_brackets() {
        for (text, ip) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("[fd00::1]", Some("fd00::1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("10.0.0.1:53", None),
            ("fe80::1%eth0", None),
            ("[10.0.0.1", None),
            ("-", None),
        ] {
            assert_eq!(address(text), ip.map(|ip| ip.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_is_said_differently_is_not_believed() {
        let agents = LANE.with("agents");
        let envoy = LANE.with("envoy");
        let way = Way::unknown().with(std::slice::from_ref(&agents));
        assert_eq!(way.lane(), Some(Lane::Agents));
        assert_eq!(
            way.with(std::slice::from_ref(&agents)).lane(),
            Some(Lane::Agents)
        );
        assert_eq!(way.with(std::slice::from_ref(&envoy)).lane(), None);
        assert_eq!(way.with(&[envoy, agents]).lane(), None);
        assert_eq!(way.with(&[LANE.with("other")]).lane(), None);
    }
}
