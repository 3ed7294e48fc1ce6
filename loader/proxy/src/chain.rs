//! One way in: an agent, a port that it asked for, with or without TLS; and what is decided there.

use crate::names::{Region, Regions};
use policy::{
    Action, Destination, Explanation, Mode, Policy, PortRange, Proto, Question, Reason, Rule,
};
use std::collections::BTreeSet;

use crate::agent::Agent;

/// TCP's number (IANA protocol numbers).
const TCP: u8 = 6;

/// With or without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// `https` and `wss`.
    Tls,
    /// `http` and `ws`.
    Raw,
}

impl Layer {
    /// The layer of a rule's protocol, where it is about requests.
    pub(crate) fn of(proto: Proto) -> Option<Self> {
        match proto {
            Proto::Https | Proto::Wss => Some(Self::Tls),
            Proto::Http | Proto::Ws => Some(Self::Raw),
            _ => None,
        }
    }

    /// The port that an authority without one means.
    pub(crate) fn default_port(self) -> u16 {
        match self {
            Self::Tls => 443,
            Self::Raw => 80,
        }
    }

    /// The value of `l7_proto`.
    pub(crate) fn l7(self) -> &'static str {
        match self {
            Self::Tls => "https",
            Self::Raw => "http",
        }
    }
}

/// What is decided about the hosts of one part of the name space.
#[derive(Clone, Debug)]
pub(crate) struct Decision<'p> {
    /// What happens.
    pub(crate) action: Action,
    /// The reason as records have it.
    pub(crate) reason: &'static str,
    /// What decided: a rule's title, or the reason.
    pub(crate) by: &'p str,
    /// The rule, if one did.
    pub(crate) rule: Option<&'p Rule>,
}

/// One way in.
pub(crate) struct Way<'p, 'a> {
    policy: &'p Policy,
    /// Whose.
    pub(crate) agent: &'a Agent,
    /// The port that the agent asked for.
    pub(crate) port: u16,
    /// With or without TLS.
    pub(crate) layer: Layer,
    /// Rules about TCP on this port.
    pub(crate) rules: Vec<&'p Rule>,
    /// The parts of the name space that they tell apart.
    pub(crate) regions: Regions,
    /// Whether denials are carried out: mode `enforce`.
    pub(crate) enforced: bool,
}

/// Whether a rule is about TCP on a port.
fn on_port(rule: &Rule, port: u16) -> bool {
    let tcp = !matches!(rule.proto, Proto::Udp | Proto::Icmp);
    let inside = |ports: &PortRange| (ports.lo..=ports.hi).contains(&port);
    tcp && rule.ports.iter().any(inside)
}

impl<'p, 'a> Way<'p, 'a> {
    /// `before` tells parts of the name space apart as well, and decides nothing.
    pub(crate) fn new(
        policy: &'p Policy,
        before: &'p Policy,
        agent: &'a Agent,
        port: u16,
        layer: Layer,
    ) -> Self {
        let select =
            |policy: &'p Policy| policy.select(agent.agent.as_deref(), agent.project.as_deref());
        let on_port = |rules: &[&'p Rule]| -> Vec<&'p Rule> {
            let rules = rules.iter().copied();
            rules.filter(|rule| on_port(rule, port)).collect()
        };
        let selected = select(policy);
        let rules = on_port(selected.rules());
        let both = [&rules[..], &on_port(select(before).rules())].concat();
        Self {
            policy,
            agent,
            port,
            layer,
            regions: Regions::of(both),
            enforced: selected.mode == Mode::Enforce,
            rules,
        }
    }

    /// What the policy says of a part of the name space.
    pub(crate) fn decide(&self, region: &Region) -> Decision<'p> {
        let host = self.regions.stand_in(region);
        let hosts: Vec<&str> = host.as_deref().into_iter().collect();
        let address = match region {
            Region::Address(address) => Some(*address),
            _ => None,
        };
        let question = Question {
            hosts: &hosts,
            addr: address,
            proto: TCP,
            port: self.port,
            resolver: false,
        };
        let (agent, project) = (self.agent.agent.as_deref(), self.agent.project.as_deref());
        let told = self.policy.explain(agent, project, &question, None);
        self.in_layer(&told)
    }

    /// A rule for the one layer says nothing of the other: what is allowed over TLS is not by that
    /// allowed in the clear.
    fn in_layer(&self, told: &Explanation<'p>) -> Decision<'p> {
        let rule = told.decider();
        let other = rule.is_some_and(|rule| {
            let layer = Layer::of(rule.proto);
            rule.action == Action::Allow && layer.is_some_and(|layer| layer != self.layer)
        });
        Decision {
            action: if other {
                Action::Deny
            } else {
                told.verdict.action
            },
            reason: if other {
                "protocol"
            } else {
                reason(told.verdict.reason)
            },
            by: told.decided_by(),
            rule,
        }
    }

    /// What becomes of what the rules say, under the agent's mode. The built-in deny set holds in each.
    pub(crate) fn passes(&self, action: Action, reason: &str) -> bool {
        action == Action::Allow || (!self.enforced && reason != "builtin")
    }

    /// Whether a name needs a rule: where everything is allowed that no rule names, private addresses are.
    pub(crate) fn distrusts(&self) -> bool {
        self.policy
            .select(self.agent.agent.as_deref(), self.agent.project.as_deref())
            .default
            == Action::Deny
    }

    /// Networks that rules of an action are about on this port, with the rule.
    pub(crate) fn networks(
        &self,
        action: Action,
    ) -> impl Iterator<Item = (ipnet::IpNet, &'p Rule)> + '_ {
        let of = move |rule: &&'p Rule| match &rule.dst {
            Destination::Network(net) if rule.action == action => Some((*net, *rule)),
            _ => None,
        };
        self.rules.iter().filter_map(of)
    }
}

/// The word that records have for a reason.
fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Builtin(_) => "builtin",
        Reason::Resolver => "resolver",
        Reason::Rule(_) => "rule",
        Reason::Default => "default",
    }
}

/// Ports that a proxy is wanted on, each with its layer: those of allowed rules about requests.
pub(crate) fn wanted<'r>(
    rules: impl IntoIterator<Item = &'r Rule>,
) -> BTreeSet<(PortRange, Layer)> {
    let mut found = BTreeSet::new();
    for rule in rules {
        let Some(layer) = Layer::of(rule.proto) else {
            continue;
        };
        if rule.action == Action::Allow {
            found.extend(rule.ports.iter().map(|ports| (*ports, layer)));
        }
    }
    found
}
