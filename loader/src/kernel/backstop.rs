//! The backstop at a container's interfaces (`docs/architecture.md`, "Backstop"): what leaves a network
//! namespace without having been judged in a cgroup.

use super::{
    Engine, KernelError, Pins,
    guard::names_in,
    io_error,
    maps::{entries, removed},
    object::{load_program, program_fd},
    pod::P,
    query::{self, Target},
    sys,
};
use crate::enrol::ip;
use abi::{Device, Ip, MAX_HELD, SlotConfig, maps, programs};
use std::{
    net::IpAddr,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

/// A backstop that is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backstop {
    /// Index of the interface that it was attached to.
    pub interface: u32,
    /// It is attached: the interface still exists and nobody has detached it.
    pub attached: bool,
}

impl Engine {
    /// Puts a backstop at the ingress of an interface, the host's end of a container's veth (see
    /// [`super::host_sides`]). What it refuses is counted and recorded for the slot of `config`. The link
    /// is pinned beside the links of the attachment `name` and outlives us; where it is attached already,
    /// the interface is given to this slot. Interfaces are those of our own network namespace. Nothing passes from an address
    /// that is not one of `addresses`, the container's own, where one of its IP version is among them.
    ///
    /// [`KernelError::NoTcx`] where the kernel has no such hook.
    pub fn backstop(
        &mut self,
        name: &str,
        config: &SlotConfig,
        interface: u32,
        addresses: &[IpAddr],
    ) -> Result<(), KernelError> {
        let pins = self.pins();
        let device = device(config, addresses);
        pins.devices()?
            .insert(P(interface), P(device), 0)
            .map_err(|e| KernelError::map("write", maps::DEVICES, io_error(e)))?;
        let path = pins.backstop_path(name, interface);
        if is_attached(&path, interface) {
            return Ok(());
        }
        self.hook(&path, interface)
            .inspect_err(|_| drop(pins.lift(name, interface)))
    }

    fn hook(&mut self, path: &Path, interface: u32) -> Result<(), KernelError> {
        load_program(&mut self.ebpf, programs::BACKSTOP)?;
        unpin(path)?;
        let program = program_fd(&self.ebpf, programs::BACKSTOP)?;
        let link =
            sys::tcx_link(program, interface).map_err(|source| match source.raw_os_error() {
                Some(libc::EINVAL) => KernelError::NoTcx,
                _ => KernelError::Call {
                    what: "cannot attach the backstop to an interface",
                    source,
                },
            })?;
        sys::pin(link.as_fd(), path).map_err(|e| KernelError::pin("pin link", path, e))
    }
}

impl Pins {
    pub(super) fn backstop_path(&self, name: &str, interface: u32) -> PathBuf {
        let file = format!("{}-{interface}", programs::BACKSTOP);
        self.dir().join("links").join(name).join(file)
    }

    fn devices(
        &self,
    ) -> Result<aya::maps::HashMap<aya::maps::MapData, P<u32>, P<Device>>, KernelError> {
        self.hash(maps::DEVICES)
    }

    /// The backstops of an attachment.
    pub fn backstops(&self, name: &str) -> Result<Vec<Backstop>, KernelError> {
        let dir = self.dir().join("links").join(name);
        let all = names_in(&dir)?.into_iter().filter_map(|file| {
            let rest = file.strip_prefix(programs::BACKSTOP)?.strip_prefix('-')?;
            let interface = rest.parse().ok()?;
            Some(Backstop {
                interface,
                attached: is_attached(&dir.join(&file), interface),
            })
        });
        Ok(all.collect())
    }

    /// Every backstop of the instance, with the name of its attachment.
    pub fn every_backstop(&self) -> Result<Vec<(String, Backstop)>, KernelError> {
        let mut all = Vec::new();
        for name in names_in(&self.dir().join("links"))? {
            let of = self.backstops(&name)?;
            all.extend(of.into_iter().map(|b| (name.clone(), b)));
        }
        Ok(all)
    }

    /// Takes a backstop away, or what is left of one whose interface is gone. One that is not there is
    /// no error.
    pub fn lift(&self, name: &str, interface: u32) -> Result<(), KernelError> {
        self.unhook(name, interface)?;
        removed(self.devices()?.remove(&P(interface)), maps::DEVICES)
    }

    /// Takes the link of a backstop away, and touches no map.
    pub(crate) fn unhook(&self, name: &str, interface: u32) -> Result<(), KernelError> {
        unpin(&self.backstop_path(name, interface))
    }

    /// The cgroups whose sockets the backstops let pass.
    pub fn exempted(&self) -> Result<Vec<u64>, KernelError> {
        let map = self.hash::<u64, u32>(maps::EXEMPT)?;
        let all = entries(&map, maps::EXEMPT)?;
        Ok(all.into_iter().map(|(id, _)| id).collect())
    }

    /// Lets every backstop pass what sockets made in exactly these cgroups send, and in no others: those of the
    /// engine, whose resolver asks from within containers.
    pub fn exempt(&self, cgroups: &[u64]) -> Result<(), KernelError> {
        let mut map = self.hash::<u64, u32>(maps::EXEMPT)?;
        for id in self.exempted()? {
            if !cgroups.contains(&id) {
                removed(map.remove(&P(id)), maps::EXEMPT)?;
            }
        }
        for id in cgroups {
            map.insert(P(*id), P(1), 0)
                .map_err(|e| KernelError::map("write", maps::EXEMPT, io_error(e)))?;
        }
        Ok(())
    }
}

/// Whose an interface is. More addresses than there is room for are as good as none.
fn device(config: &SlotConfig, addresses: &[IpAddr]) -> Device {
    let known = if addresses.len() > MAX_HELD {
        &[]
    } else {
        addresses
    };
    let mut device = Device {
        slot: config.slot,
        index: config.index,
        held: known.len() as u32,
        versions: 0,
        addresses: [Ip::default(); MAX_HELD],
    };
    for (held, address) in device.addresses.iter_mut().zip(known) {
        *held = ip(*address);
        device.versions |= 1 << if address.is_ipv4() { 4 } else { 6 };
    }
    device
}

/// Whether a pinned link is attached to this interface.
fn is_attached(path: &Path, interface: u32) -> bool {
    let target = query::link(path).map(|l| l.target);
    matches!(target, Ok(Target::Interface { index }) if index == interface)
}

fn unpin(path: &Path) -> Result<(), KernelError> {
    sys::unpin(path).map_err(|e| KernelError::pin("detach", path, e))
}
