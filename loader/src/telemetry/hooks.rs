//! Whether the hooks of a slot are in force, as briefly as that can be asked: `doctor` says what is wrong.

use crate::kernel::query::{self, Target};
use abi::programs;
use std::{fs::File, path::Path};

/// Says that a hook is not in force at a cgroup, to whoever must see that.
pub fn complain(hook: &str, cgroup: &Path) {
    tracing::error!(
        target: wire::log_layer::SECURITY,
        "hook {hook} is not in force on {}: `ebpf-manager doctor` says what that costs",
        cgroup.display()
    );
}

/// The first hook that is not in force at a cgroup, or cannot be checked: its pinned link must lead to
/// this very cgroup, and its program must be among those that run there. `links`: the directory of the
/// links of one attachment.
#[must_use]
pub fn missing(links: &Path, cgroup: &Path, id: u64) -> Option<&'static str> {
    let Ok(place) = File::open(cgroup) else {
        return programs::CGROUP.first().copied();
    };
    let in_force = |name: &&'static str| {
        let Ok(link) = query::link(&links.join(name)) else {
            return false;
        };
        let here = matches!(
            link.target,
            Target::Cgroup { id: at, hook } if at == id && hook == Some(*name)
        );
        let runs = query::programs_at(&place, name, true);
        here && runs.is_ok_and(|all| all.contains(&link.program))
    };
    programs::CGROUP.into_iter().find(|name| !in_force(name))
}
