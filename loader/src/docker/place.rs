//! Where a container's cgroup is, as paths below the mount of cgroup v2.

use std::path::{Component, Path, PathBuf};

/// Where the engine puts containers without a parent of their own: cgroupfs driver, systemd driver.
const DEFAULT_PARENTS: [&str; 2] = ["docker", "system.slice"];
/// Characters of a container's full id.
const ID_LENGTH: usize = 64;

/// The container id in the name of a cgroup's directory: `ID` (cgroupfs driver) or `docker-ID.scope`
/// (systemd driver).
#[must_use]
pub(super) fn id_in(name: &str) -> Option<&str> {
    let id = match name.strip_suffix(".scope") {
        Some(scope) => scope.rsplit_once('-')?.1,
        None => name,
    };
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (id.len() == ID_LENGTH && id.bytes().all(hex)).then_some(id)
}

/// The directory of container `id` in the line of cgroup v2 (`0::PATH`) of its process's
/// `/proc/PID/cgroup`: as far as the outermost component with the id, for the process may have moved
/// into a cgroup below. Nothing if it is elsewhere, as in a hybrid layout without one of its own.
#[must_use]
pub(super) fn own(proc_cgroup: &str, id: &str) -> Option<PathBuf> {
    let path = proc_cgroup.lines().find_map(|l| l.strip_prefix("0::/"))?;
    // The kernel appends this to the path of a removed cgroup.
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let mut found = PathBuf::new();
    for name in path.split('/') {
        if name == ".." {
            return None;
        }
        found.push(name);
        if id_in(name) == Some(id) {
            return Some(found);
        }
    }
    None
}

/// The directories that may be the parent of containers with this `--cgroup-parent` (empty: the engine's
/// default), under either cgroup driver, below the mount.
#[must_use]
pub fn parents(parent: &str) -> Vec<PathBuf> {
    if parent.is_empty() {
        return DEFAULT_PARENTS.map(PathBuf::from).to_vec();
    }
    let mut found = vec![rooted(parent)];
    if let Some(slice) = slice(parent)
        && slice != found[0]
    {
        found.push(slice);
    }
    found
}

/// Where the cgroup of container `id` with this `--cgroup-parent` may be, under either driver, relative
/// to the mount of cgroup v2. It is there before any process of the container is.
#[must_use]
pub fn candidates(parent: &str, id: &str) -> Vec<PathBuf> {
    let scope = format!("docker-{id}.scope");
    let mut found = Vec::new();
    for dir in parents(parent) {
        let last = dir.file_name().and_then(|n| n.to_str());
        // systemd's parents are slices, or the root as `-.slice`.
        if last.is_none_or(|name| name.ends_with(".slice")) {
            found.push(dir.join(&scope));
        }
        if dir != Path::new(DEFAULT_PARENTS[1]) || !parent.is_empty() {
            found.push(dir.join(id));
        }
    }
    found
}

/// A path that cannot leave the root.
fn rooted(path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => _ = clean.pop(),
            _ => {}
        }
    }
    clean
}

/// The directory of a systemd slice, which has those of the slices in its name above it: `a-b.slice` is
/// `a.slice/a-b.slice` (systemd.slice(5)).
fn slice(name: &str) -> Option<PathBuf> {
    let stem = name.strip_suffix(".slice")?;
    if stem == "-" {
        return Some(PathBuf::new());
    }
    let parts: Vec<&str> = stem.split('-').collect();
    if stem.contains('/') || parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    let upto = |n: usize| format!("{}.slice", parts[..=n].join("-"));
    Some((0..parts.len()).map(upto).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "4d5447ca1de35dbc7755806a43d8d14114298885d93396ab45c4d8ceae8404c0";

    fn shapes(parent: &str) -> Vec<String> {
        let all = candidates(parent, "ID");
        all.iter().map(|p| p.display().to_string()).collect()
    }

    #[test]
    fn both_drivers_and_their_parents_have_their_shapes() {
        let cases: [(&str, &[&str]); 8] = [
            ("", &["docker/ID", "system.slice/docker-ID.scope"]),
            ("/agents", &["agents/ID"]),
            ("relative/x/", &["relative/x/ID"]),
            ("/../../x", &["x/ID"]),
            (
                "clawker.slice",
                &["clawker.slice/docker-ID.scope", "clawker.slice/ID"],
            ),
            (
                "a-b.slice",
                &[
                    "a-b.slice/docker-ID.scope",
                    "a-b.slice/ID",
                    "a.slice/a-b.slice/docker-ID.scope",
                    "a.slice/a-b.slice/ID",
                ],
            ),
            (
                "-.slice",
                &[
                    "-.slice/docker-ID.scope",
                    "-.slice/ID",
                    "docker-ID.scope",
                    "ID",
                ],
            ),
            (
                "a--b.slice",
                &["a--b.slice/docker-ID.scope", "a--b.slice/ID"],
            ),
        ];
        for (parent, wanted) in cases {
            assert_eq!(shapes(parent), wanted, "{parent:?}");
        }
    }

    #[test]
    fn a_name_has_an_id_only_in_the_engines_shapes() {
        assert_eq!(id_in(ID), Some(ID));
        assert_eq!(id_in(&format!("docker-{ID}.scope")), Some(ID));
        for other in [
            "docker",
            "system.slice",
            &ID[1..],
            &format!("{ID}0"),
            &ID.to_uppercase(),
            &format!("{ID}.scope"),
            &format!("docker-{ID}"),
            "docker-.scope",
        ] {
            assert_eq!(id_in(other), None, "{other}");
        }
    }

    #[test]
    fn the_processes_line_leads_to_the_outermost_directory_with_the_id() {
        let hybrid = |path: &str| format!("4:memory:/docker/{ID}\n1:name=systemd:/\n0::{path}\n");
        let own = |path: &str| own(&hybrid(path), ID).map(|p| p.display().to_string());
        let wanted = Some(format!("docker/{ID}"));
        assert_eq!(own(&format!("/docker/{ID}")), wanted);
        assert_eq!(own(&format!("/docker/{ID} (deleted)")), wanted);
        assert_eq!(own(&format!("/docker/{ID}/init/docker/{ID}")), wanted);
        let scope = format!("system.slice/docker-{ID}.scope");
        assert_eq!(own(&format!("/{scope}/x")), Some(scope));
        assert_eq!(
            own("/"),
            None,
            "version 1 alone has it: not ours to attach to"
        );
        assert_eq!(own(&format!("/docker/{}", ID.replace('4', "5"))), None);
        assert_eq!(
            own(&format!("/../{ID}")),
            None,
            "outside of our cgroup namespace"
        );
    }

    proptest! {
        #[test]
        fn no_parent_leads_out_of_the_mount(parent in "[a-z./-]{0,24}(\\.slice)?") {
            for path in candidates(&parent, ID) {
                prop_assert!(path.is_relative());
                prop_assert!(path.components().all(|c| matches!(c, Component::Normal(_))));
                let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
                prop_assert_eq!(id_in(name), Some(ID));
                prop_assert_eq!(own(&format!("0::/{}\n", path.display()), ID), Some(path.clone()));
            }
        }
    }
}
