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

impl Member {
    /// It has these addresses, if any, although it does not run yet; from `now` on (boot clock) unless it had others.
    pub(super) fn hold(&mut self, ends: &[IpNet], now: u64) {
        if ends.is_empty() {
            return;
        }
        let (mut addresses, mut networks): (Vec<IpAddr>, Vec<IpNet>) =
            ends.iter().map(|end| (end.addr(), end.trunc())).unzip();
        // As in what the engine describes.
        addresses.sort_unstable();
        networks.sort_unstable();
        networks.dedup();
        (self.container.addresses, self.container.networks) = (addresses, networks);
        self.held_since.get_or_insert(now);
    }

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
