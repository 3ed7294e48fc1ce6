//! Whose requests a proxy will see, by source address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use thiserror::Error;

/// An agent, as the proxies tell it from others: by its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Label `dev.clawker.agent`.
    pub agent: Option<String>,
    /// Label `dev.clawker.project`.
    pub project: Option<String>,
    /// The container, in the engine's long form.
    pub container_id: Option<String>,
    /// Addresses of the container.
    pub addresses: Vec<IpAddr>,
}

/// Why a text is no agent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AgentError {
    /// No `@`.
    #[error("{0:?} has no address (write it like acme/reviewer@10.237.64.11)")]
    NoAddress(String),
    /// No agent before the `@` or no project before the slash.
    #[error("{0:?} names nobody (write it like acme/reviewer@10.237.64.11)")]
    Nobody(String),
    /// What stands behind the `@` is no address.
    #[error("{address:?} of {agent} is not an address")]
    Address {
        /// As typed.
        address: String,
        /// Whose.
        agent: String,
    },
}

impl Agent {
    /// Reads `[PROJECT/]AGENT@ADDRESS[,ADDRESS…][#CONTAINER]`.
    pub fn parse(text: &str) -> Result<Self, AgentError> {
        let (name, rest) = text
            .split_once('@')
            .ok_or_else(|| AgentError::NoAddress(text.to_owned()))?;
        let (addresses, container) = match rest.split_once('#') {
            Some((addresses, container)) => (addresses, Some(container.to_owned())),
            None => (rest, None),
        };
        let (project, agent) = match name.split_once('/') {
            Some((project, agent)) => (Some(project), agent),
            None => (None, name),
        };
        if agent.is_empty() || project.is_some_and(str::is_empty) {
            return Err(AgentError::Nobody(text.to_owned()));
        }
        let address = |one: &str| {
            one.parse().map_err(|_| AgentError::Address {
                address: one.to_owned(),
                agent: name.to_owned(),
            })
        };
        Ok(Self {
            agent: Some(agent.to_owned()),
            project: project.map(ToOwned::to_owned),
            container_id: container,
            addresses: addresses
                .split(',')
                .map(address)
                .collect::<Result<_, _>>()?,
        })
    }

    /// `project/agent`, for messages.
    #[must_use]
    pub fn title(&self) -> String {
        let agent = self.agent.as_deref().unwrap_or("-");
        match &self.project {
            Some(project) => format!("{project}/{agent}"),
            None => agent.to_owned(),
        }
    }
}

/// Agents of whom no two share an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet(Vec<Agent>);

/// Why agents are no fleet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FleetError {
    /// By its address nobody could tell which of two it is.
    #[error("{address} is the address of {one} and of {other}")]
    Shared {
        /// The address.
        address: IpAddr,
        /// The first.
        one: String,
        /// The second.
        other: String,
    },
    /// Nobody could ever be told to be it.
    #[error("{0} has no address")]
    NoAddress(String),
}

impl Fleet {
    /// Puts agents in the order of their first addresses, so that the same agents render the same.
    pub fn new(mut agents: Vec<Agent>) -> Result<Self, FleetError> {
        let mut owner: BTreeMap<IpAddr, String> = BTreeMap::new();
        for agent in &mut agents {
            for address in &mut agent.addresses {
                *address = address.to_canonical();
            }
            agent.addresses.sort_unstable();
            agent.addresses.dedup();
            if agent.addresses.is_empty() {
                return Err(FleetError::NoAddress(agent.title()));
            }
            for address in &agent.addresses {
                if let Some(one) = owner.insert(*address, agent.title()) {
                    return Err(FleetError::Shared {
                        address: *address,
                        one,
                        other: agent.title(),
                    });
                }
            }
        }
        agents.sort_by_key(|agent| agent.addresses.first().copied());
        Ok(Self(agents))
    }

    /// The agents, by address.
    #[must_use]
    pub fn agents(&self) -> &[Agent] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(text: &str) -> Agent {
        Agent::parse(text).unwrap()
    }

    #[test]
    fn an_agent_is_read_with_and_without_its_project() {
        let read = agent("acme/reviewer@10.0.0.2,fd00::2#abc");
        assert_eq!(read.agent.as_deref(), Some("reviewer"));
        assert_eq!(read.project.as_deref(), Some("acme"));
        assert_eq!(read.container_id.as_deref(), Some("abc"));
        assert_eq!(read.addresses.len(), 2);
        assert_eq!(agent("solo@10.0.0.3").project, None);
    }

    #[test]
    fn what_is_no_agent_says_why() {
        for (text, what) in [
            ("reviewer", "has no address"),
            ("@10.0.0.2", "names nobody"),
            ("/x@10.0.0.2", "names nobody"),
            ("x@10.0.0", "is not an address"),
            ("x@", "is not an address"),
        ] {
            let said = Agent::parse(text).unwrap_err().to_string();
            assert!(said.contains(what), "{text}: {said}");
        }
    }

    #[test]
    fn an_address_belongs_to_one_agent() {
        let two = vec![agent("a@10.0.0.2"), agent("b@::ffff:10.0.0.2")];
        let said = Fleet::new(two).unwrap_err().to_string();
        assert_eq!(said, "10.0.0.2 is the address of a and of b");
        let same = |order: [&str; 2]| Fleet::new(order.map(agent).to_vec()).unwrap();
        assert_eq!(
            same(["a@10.0.0.3", "b@10.0.0.2"]),
            same(["b@10.0.0.2", "a@10.0.0.3"])
        );
    }
}
