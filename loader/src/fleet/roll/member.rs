//! A container in one of its lives.

use super::Stage;
use crate::docker::Container;
use ipnet::IpNet;
use std::net::IpAddr;

/// A container in one of its lives.
#[derive(Clone, Debug)]
pub struct Member {
    /// As the engine described it last.
    pub container: Container,
    /// How far it has come.
    pub stage: Stage,
    /// Row of the books, from 1.
    pub index: Option<u32>,
    /// Slot.
    pub slot: Option<u32>,
    /// The engine is still starting it: what weakens it is not known, nor are perhaps its addresses.
    pub newborn: bool,
    /// When it had its addresses already, before it ran; boot clock.
    pub held_since: Option<u64>,
}

/// Addresses, and the networks that they are in; both sorted, as in [`Container`].
pub(super) fn ends(all: &[IpNet]) -> (Vec<IpAddr>, Vec<IpNet>) {
    let mut addresses: Vec<IpAddr> = all.iter().map(IpNet::addr).collect();
    let mut networks: Vec<IpNet> = all.iter().map(IpNet::trunc).collect();
    addresses.sort_unstable();
    networks.sort_unstable();
    networks.dedup();
    (addresses, networks)
}

impl Member {
    /// Whether the engine says that it runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match self.stage {
            Stage::Bystander | Stage::Wanted | Stage::Enrolled => true,
            Stage::Ended { .. } | Stage::Closed | Stage::Barred => false,
        }
    }

    /// Whom its flows belong to.
    #[must_use]
    pub fn owner(&self) -> crate::record::Owner {
        let c = &self.container;
        crate::record::Owner {
            agent: c.agent.clone(),
            project: c.project.clone(),
            container_id: Some(c.id.clone()),
            container_name: Some(c.name.clone()).filter(|name| !name.is_empty()),
        }
    }
}
