//! Findings about the kernel, the file systems and what this process may do.

use super::Finding;
use crate::{
    kernel::{VMLINUX, probe::Feature},
    machine::{FLOOR, new_enough},
};
use std::path::PathBuf;

/// What was seen of the machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Release of the kernel.
    pub release: String,
    /// Whether this process is root.
    pub root: bool,
    /// Capabilities that `run` needs and this process lacks.
    pub lacking: Vec<String>,
    /// Features that were asked for, with what came of it; none without root.
    pub features: Vec<(Feature, Result<bool, String>)>,
    /// What came of loading every program; not tried without root.
    pub trial: Option<Result<(), String>>,
    /// Whether programs are compiled to machine code, where that can be read.
    pub compiled: Option<bool>,
    /// Whether the kernel's type information can be used, else why not.
    pub types: Result<(), String>,
    /// Where cgroup version 2 is, else why there is none.
    pub cgroups: Result<Cgroups, String>,
    /// Where pins go.
    pub pins: PinPlace,
}

/// A mount of cgroup version 2.
#[derive(Clone, Debug)]
pub struct Cgroups {
    /// Where.
    pub path: PathBuf,
    /// Version 1 is mounted as well.
    pub hybrid: bool,
    /// Nothing can be made in it.
    pub read_only: bool,
    /// Cgroup namespaces are borders (`nsdelegate`).
    pub borders: bool,
}

/// The file system for pins.
#[derive(Clone, Debug)]
pub struct PinPlace {
    /// The nearest directory above the pins that exists.
    pub path: PathBuf,
    /// It is a BPF file system.
    pub bpffs: bool,
    /// Nothing can be made in it.
    pub read_only: bool,
    /// `run` would mount one there.
    pub mountable: bool,
}

/// Everything there is to say of a machine.
#[must_use]
pub fn findings(m: &Machine) -> Vec<Finding> {
    let mut all = vec![kernel(m)];
    all.extend(features(m));
    all.extend(trial(m));
    all.extend(compiled(m));
    all.push(types(m));
    all.push(capabilities(m));
    all.push(cgroups(m));
    all.push(pins(&m.pins));
    if !m.root {
        all.push(Finding::note(
            "root",
            "not checked without root: kernel features, programs, instances",
            "what is wrong there is not told",
            "sudo ebpf-manager doctor",
        ));
    }
    all
}

fn kernel(m: &Machine) -> Finding {
    let (major, minor) = FLOOR;
    if new_enough(&m.release) {
        return Finding::ok(
            "kernel",
            format!("kernel {} (floor {major}.{minor})", m.release),
        );
    }
    Finding::problem(
        "kernel",
        format!("kernel {} is older than {major}.{minor}", m.release),
        "nothing can be run under the firewall",
        format!("boot Linux {major}.{minor} or newer"),
    )
}

/// Name of a feature, what lacking it costs, and the mend. TCX is the only one that can be done without.
fn meaning(f: Feature) -> (&'static str, &'static str, &'static str) {
    const CONFIG: &str =
        "use a kernel with CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT, CONFIG_CGROUP_BPF and CONFIG_INET";
    match f {
        Feature::Loop => (
            "bpf_loop",
            "DNS messages and rule chains cannot be walked: the programs are refused",
            "boot Linux 5.17 or newer",
        ),
        Feature::SlotMap => (
            "cgroup storage by id",
            "programs cannot tell whose packet they see: the programs are refused",
            CONFIG,
        ),
        Feature::SocketStorage => (
            "socket storage",
            "flows have no state: the programs are refused",
            CONFIG,
        ),
        Feature::Iterator => (
            "socket storage iterator",
            "idle flows do not end, live flows cannot be listed: the programs are refused",
            CONFIG,
        ),
        Feature::RingBuffer => (
            "ring buffer",
            "records cannot leave the kernel: the programs are refused",
            CONFIG,
        ),
        Feature::Hooks => (
            "cgroup hooks",
            "some calls or packets would not be judged: the programs cannot be attached",
            CONFIG,
        ),
        Feature::GracePeriod => (
            "membarrier",
            "a policy cannot be replaced safely and folded flows cannot be read: `policy apply` fails, and `run` does when flows were folded",
            "boot without nohz_full",
        ),
        Feature::Tcx => (
            "TCX",
            "frames of AF_PACKET and sockets made in another cgroup cannot be judged at an interface",
            "boot Linux 6.6 or newer where that matters",
        ),
    }
}

fn features(m: &Machine) -> Vec<Finding> {
    let mut there = Vec::new();
    let mut rest = Vec::new();
    for (feature, seen) in &m.features {
        let (name, cost, mend) = meaning(*feature);
        match seen {
            Ok(true) => there.push(name),
            Ok(false) if *feature == Feature::Tcx => {
                rest.push(Finding::note(
                    "feature",
                    format!("the kernel lacks {name}"),
                    cost,
                    mend,
                ));
            }
            Ok(false) => {
                rest.push(Finding::problem(
                    "feature",
                    format!("the kernel lacks {name}"),
                    cost,
                    mend,
                ));
            }
            Err(why) => rest.push(Finding::note(
                "feature",
                format!("{name} could not be checked: {why}"),
                format!("if it is missing: {cost}"),
                "",
            )),
        }
    }
    if !there.is_empty() {
        rest.insert(
            0,
            Finding::ok("feature", format!("kernel features: {}", there.join(", "))),
        );
    }
    rest
}

fn trial(m: &Machine) -> Option<Finding> {
    Some(match m.trial.as_ref()? {
        Ok(()) => Finding::ok("programs", "the kernel accepts every program"),
        Err(why) => Finding::problem(
            "programs",
            format!("the programs cannot be loaded: {}", first_line(why)),
            "nothing can be run under the firewall",
            "mend what is named here and in the other findings; `ebpf-manager run -- true` tells the whole reason",
        ),
    })
}

/// The verifier's log is pages long.
fn first_line(text: &str) -> &str {
    text.lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches(':')
}

fn compiled(m: &Machine) -> Option<Finding> {
    match m.compiled? {
        true => None,
        false => Some(Finding::problem(
            "compiler",
            "BPF programs are interpreted (net.core.bpf_jit_enable is 0)",
            "the kernel refuses interpreted programs with loops like ours",
            "sysctl net.core.bpf_jit_enable=1",
        )),
    }
}

fn types(m: &Machine) -> Finding {
    match &m.types {
        Ok(()) => Finding::ok("btf", "BTF, with the members that are read"),
        Err(why) => Finding::problem(
            "btf",
            format!("no usable BTF: {why}"),
            "the programs cannot be loaded: they read TCP counters where BTF says they are",
            format!("use a kernel with CONFIG_DEBUG_INFO_BTF=y, whose {VMLINUX} is its own"),
        ),
    }
}

fn capabilities(m: &Machine) -> Finding {
    if m.lacking.is_empty() {
        return Finding::ok("capabilities", "capabilities");
    }
    let what = format!("this process lacks {}", m.lacking.join(", "));
    let cost = "`run` cannot load programs, make namespaces or become another user";
    if m.root {
        let mend = "run as root of the machine, not of a container or user namespace";
        Finding::problem("capabilities", what, cost, mend)
    } else {
        Finding::note("capabilities", what, cost, "use sudo")
    }
}

fn cgroups(m: &Machine) -> Finding {
    const NONE: &str = "nothing can be run under the firewall, and hooks cannot be checked";
    let c = match &m.cgroups {
        Ok(c) => c,
        Err(why) => {
            let mend = "boot with systemd.unified_cgroup_hierarchy=1, or `mount -t cgroup2 none /sys/fs/cgroup/unified`";
            return Finding::problem("cgroup", why.clone(), NONE, mend);
        }
    };
    let kind = if c.hybrid { " (hybrid)" } else { "" };
    let path = c.path.display();
    if c.read_only {
        return Finding::problem(
            "cgroup",
            format!("cgroup v2 at {path}{kind} is read-only"),
            "no cgroup can be made: nothing can be run under the firewall",
            format!("mount -o remount,rw {path}"),
        );
    }
    if !c.borders {
        return Finding::note(
            "cgroup",
            format!("cgroup v2 at {path}{kind} is mounted without nsdelegate"),
            "a command run as root could leave its cgroup through other processes' view of it",
            "nothing: the next run turns it on",
        );
    }
    Finding::ok("cgroup", format!("cgroup v2 at {path}{kind}"))
}

fn pins(p: &PinPlace) -> Finding {
    let path = p.path.display();
    match (p.bpffs, p.read_only) {
        (true, false) => Finding::ok("bpffs", format!("bpffs at {path}")),
        (true, true) => Finding::problem(
            "bpffs",
            format!("bpffs at {path} is read-only"),
            "nothing can be pinned or unpinned: `run` fails, `detach` cannot clean up, and a run that ends leaves its programs",
            format!("mount -o remount,rw {path}"),
        ),
        (false, _) if p.mountable => Finding::note(
            "bpffs",
            format!("no bpffs at {path} yet"),
            "no instance can be seen from here; one that was started under another mount is not told of",
            format!("`run` mounts one; by hand: mount -t bpf bpf {path}"),
        ),
        (false, _) => Finding::problem(
            "bpffs",
            format!("{path} is not on a BPF file system"),
            "nothing can be pinned: `run` fails",
            "choose a --pin-root below /sys/fs/bpf, and mount one there: mount -t bpf bpf /sys/fs/bpf",
        ),
    }
}

#[cfg(test)]
mod tests;
