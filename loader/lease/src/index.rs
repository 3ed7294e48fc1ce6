//! Where to look: positions of leases by everything that is asked for.

use crate::lease::Lease;
use std::{collections::HashMap, hash::Hash, net::IpAddr};

/// Positions in the list of leases, ascending.
type Positions<K> = HashMap<K, Vec<usize>>;

/// Says which leases may answer; whether they do depends on the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) slots: HashMap<u32, usize>,
    pub(crate) containers: Positions<String>,
    pub(crate) cgroups: Positions<u64>,
    pub(crate) ips: Positions<IpAddr>,
    pub(crate) netns: Positions<u64>,
}

impl Index {
    pub(crate) fn of(leases: &[Lease]) -> Self {
        let mut index = Self::default();
        for (at, lease) in leases.iter().enumerate() {
            index.add(at, lease);
        }
        index
    }

    pub(crate) fn add(&mut self, at: usize, lease: &Lease) {
        if let Some(slot) = lease.slot {
            self.slots.insert(slot, at);
        }
        insert(&mut self.containers, lease.container_id.clone(), at);
        if let Some(id) = lease.cgroup_id {
            insert(&mut self.cgroups, id, at);
        }
        if let Some(netns) = lease.netns {
            insert(&mut self.netns, netns, at);
        }
        for hold in &lease.ips {
            insert(&mut self.ips, hold.ip, at);
        }
    }

    /// Takes out what [`Self::add`] put in, before the lease changes.
    pub(crate) fn remove(&mut self, at: usize, lease: &Lease) {
        if let Some(slot) = lease.slot {
            self.slots.remove(&slot);
        }
        remove(&mut self.containers, &lease.container_id, at);
        if let Some(id) = lease.cgroup_id {
            remove(&mut self.cgroups, &id, at);
        }
        if let Some(netns) = lease.netns {
            remove(&mut self.netns, &netns, at);
        }
        for hold in &lease.ips {
            remove(&mut self.ips, &hold.ip, at);
        }
    }
}

/// The positions under a key.
pub(crate) fn under<'i, K: Eq + Hash + std::borrow::Borrow<Q>, Q: Eq + Hash + ?Sized>(
    positions: &'i Positions<K>,
    key: &Q,
) -> &'i [usize] {
    positions.get(key).map_or(&[], Vec::as_slice)
}

fn insert<K: Eq + Hash>(positions: &mut Positions<K>, key: K, at: usize) {
    let list = positions.entry(key).or_default();
    if let Err(place) = list.binary_search(&at) {
        list.insert(place, at);
    }
}

fn remove<K: Eq + Hash>(positions: &mut Positions<K>, key: &K, at: usize) {
    if let Some(list) = positions.get_mut(key) {
        list.retain(|position| *position != at);
        if list.is_empty() {
            positions.remove(key);
        }
    }
}
