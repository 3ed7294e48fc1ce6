//! Whether a process is under the firewall, whichever instance's: asked of the kernel, which knows what
//! runs for its cgroup, those above it included.

use crate::{
    cgroup,
    kernel::query::{self, ProgramInfo},
};
use abi::{maps, programs};
use std::{collections::BTreeSet, fs::File, io};

/// Whether a firewall guards this cgroup, given as a path below the root of cgroups. A container has one
/// from before it is enrolled until it is gone, loaders come and go.
///
/// Errors: who cannot be placed could be anywhere.
pub fn is_guarded(below: &str) -> io::Result<bool> {
    if is_ours(below) {
        return Ok(true);
    }
    // Who is not root guards nobody, and may not ask the kernel.
    if !nix::unistd::geteuid().is_root() {
        return Ok(false);
    }
    let root = cgroup::root().map_err(io::Error::other)?;
    let place = File::open(root.join(below.trim_start_matches('/')))?;
    let at = query::programs_at(&place, programs::EGRESS, true).map_err(io::Error::other)?;
    let ids: BTreeSet<u32> = at.into_iter().collect();
    let all = query::describe(&ids).map_err(io::Error::other)?;
    Ok(all.values().any(is_a_guard))
}

/// Whether a path below the root of cgroups is one that we made.
fn is_ours(path: &str) -> bool {
    path.split('/').next() == Some(cgroup::OURS)
}

/// Whether a program of packets that leave is one of ours: of a slot, or of a guarded parent.
fn is_a_guard(program: &ProgramInfo) -> bool {
    let named = [programs::EGRESS, programs::GUARD].contains(&program.name.as_str());
    // A map that is gone by now was somebody else's: ours live as long as the program.
    let keeps_books = |id: &u32| query::map_name(*id).is_ok_and(|name| name == maps::METRICS);
    named && program.maps.iter().any(keeps_books)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_ours_by_its_first_part() {
        for (path, ours) in [
            ("clawker/run-1", true),
            ("clawker/run-1/below", true),
            ("clawker", true),
            ("clawker-test-1", false),
            ("user.slice/clawker", false),
            ("", false),
            ("../clawker/run-1", false),
        ] {
            assert_eq!(is_ours(path), ours, "{path:?}");
        }
    }
}
