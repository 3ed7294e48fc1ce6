//! Which part of a policy holds for one agent.

use crate::policy::{Mode, Policy, Resolver, Section};
use crate::rule::{Action, Rule};
use ipnet::IpNet;
use std::time::Duration;

/// The policy of one agent. Rules are numbered in the order of [`Selected::rules`].
#[derive(Clone, Debug)]
pub struct Selected<'p> {
    /// What is done with the verdicts.
    pub mode: Mode,
    /// What happens to what no rule names.
    pub default: Action,
    /// What happens to connections that the agent accepts.
    pub inbound: Action,
    /// Whether https and wss go through the proxy where there is one.
    pub intercept: bool,
    /// Idle time of a datagram flow.
    pub udp_idle: Duration,
    /// Trusted resolvers.
    pub resolvers: &'p [Resolver],
    /// Opened parts of the built-in deny set.
    pub allow_builtin: &'p [IpNet],
    /// Networks of the monitor itself, which belong to the built-in deny set.
    pub own: &'p [IpNet],
    rules: Vec<&'p Rule>,
}

impl Policy {
    /// The common rules, then the project's, then the agent's: those under `project/agent` before
    /// those under `agent`. Labels with a slash match no key, so that no label can pass for the two
    /// labels of another.
    #[must_use]
    pub fn select(&self, agent: Option<&str>, project: Option<&str>) -> Selected<'_> {
        let sections = self.chosen(agent, project);
        let sections = || sections.iter().copied().flatten();
        Selected {
            mode: sections()
                .find_map(|section| section.mode)
                .unwrap_or(self.mode),
            default: self.default,
            inbound: self.inbound,
            intercept: self.intercept,
            udp_idle: self.udp_idle,
            resolvers: &self.resolvers,
            allow_builtin: &self.allow_builtin,
            own: &self.own,
            rules: sections().flat_map(|section| &section.rules).collect(),
        }
    }

    /// The sections that hold for an agent, in the order of their rules.
    pub(crate) fn chosen(
        &self,
        agent: Option<&str>,
        project: Option<&str>,
    ) -> [Option<&Section>; 4] {
        let plain = |label: &&str| !label.contains('/');
        let (agent, project) = (agent.filter(plain), project.filter(plain));
        let own_key = agent
            .zip(project)
            .map(|(agent, project)| format!("{project}/{agent}"));
        [
            Some(&self.common),
            project.and_then(|key| self.projects.get(key)),
            own_key.and_then(|key| self.agents.get(&key)),
            agent.and_then(|key| self.agents.get(key)),
        ]
    }
}

impl<'p> Selected<'p> {
    /// The rules, by number.
    #[must_use]
    pub fn rules(&self) -> &[&'p Rule] {
        &self.rules
    }

    /// The rules that only a proxy can carry out.
    pub fn rules_with_paths(&self) -> impl Iterator<Item = &'p Rule> {
        self.rules
            .iter()
            .copied()
            .filter(|rule| !rule.path_rules.is_empty())
    }
}
