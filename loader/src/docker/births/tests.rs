//! Births in plain directories: inotify does not care which file system they are on. The kernel tier
//! and the docker tier have real cgroups.

use super::*;
use tempfile::TempDir;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

struct Tree(TempDir);

impl Tree {
    fn new() -> (Self, Births) {
        // In memory where there is room: a test makes thousands of directories.
        let memory = Path::new("/dev/shm");
        let tree = if memory.is_dir() {
            TempDir::new_in(memory)
        } else {
            TempDir::new()
        };
        let tree = Self(tree.unwrap());
        let births = Births::new(tree.0.path()).unwrap();
        (tree, births)
    }

    fn make(&self, path: &str) {
        fs::create_dir_all(self.0.path().join(path)).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_dir_all(self.0.path().join(path)).unwrap();
    }

    /// Changes as `+PATH` and `-PATH`.
    fn hear(&self, births: &mut Births) -> Vec<String> {
        let told = |sign: char, b: Birth| {
            assert!(b.path.to_str().unwrap().contains(&b.id));
            let path = b.path.strip_prefix(self.0.path()).unwrap();
            let path = path.display().to_string();
            format!("{sign}{}", path.replace(A, "A").replace(B, "B"))
        };
        let changes = births.changes().unwrap().into_iter();
        let told = changes.map(|c| match c {
            Change::Appeared(b) => told('+', b),
            Change::Vanished(b) => told('-', b),
        });
        told.collect()
    }
}

#[test]
fn containers_of_both_drivers_appear_and_vanish() {
    let (tree, mut births) = Tree::new();
    assert_eq!(tree.hear(&mut births), [""; 0]);
    // The engine makes the parent with the first container.
    tree.make(&format!("docker/{A}"));
    assert_eq!(tree.hear(&mut births), ["+docker/A"]);
    tree.make(&format!("docker/{B}/below"));
    tree.make(&format!("system.slice/docker-{B}.scope"));
    assert_eq!(
        tree.hear(&mut births),
        ["+docker/B", "+system.slice/docker-B.scope"]
    );
    tree.remove(&format!("docker/{A}"));
    tree.make(&format!("docker/{A}"));
    assert_eq!(
        tree.hear(&mut births),
        ["-docker/A", "+docker/A"],
        "another life"
    );
    tree.remove("docker");
    assert_eq!(tree.hear(&mut births).len(), 2);
    tree.make(&format!("docker/{A}"));
    assert_eq!(
        tree.hear(&mut births),
        ["+docker/A"],
        "the parent came back"
    );
}

#[test]
fn what_is_no_container_or_lies_elsewhere_is_not_told() {
    let (tree, mut births) = Tree::new();
    for path in [
        format!("docker/buildkit/{A}"),
        format!("elsewhere/{A}"),
        format!("user.slice/app/{A}"),
        format!("docker/x{A}"),
        format!("docker/{A}/docker/{B}"),
    ] {
        tree.make(&path);
    }
    fs::write(tree.0.path().join(format!("docker/{B}")), "a file").unwrap();
    assert_eq!(tree.hear(&mut births), ["+docker/A"]);
}

#[test]
fn a_parent_of_its_own_is_watched_from_when_it_exists() {
    let (tree, mut births) = Tree::new();
    tree.make(&format!("agents/old/{A}"));
    assert_eq!(tree.hear(&mut births), [""; 0]);
    births.watch("/agents/old").unwrap();
    births.watch("agents/new/deep").unwrap();
    births.watch("x-y.slice").unwrap();
    assert_eq!(tree.hear(&mut births), ["+agents/old/A"]);
    tree.make(&format!("agents/new/deep/{B}"));
    tree.make(&format!("x.slice/x-y.slice/docker-{A}.scope"));
    let wanted = ["+agents/new/deep/B", "+x.slice/x-y.slice/docker-A.scope"];
    let mut heard = tree.hear(&mut births);
    heard.sort_unstable();
    assert_eq!(heard, wanted);
}

#[test]
fn again_tells_everything_once_more_and_nothing_twice_after() {
    let (tree, mut births) = Tree::new();
    tree.make(&format!("docker/{A}"));
    assert_eq!(tree.hear(&mut births), ["+docker/A"]);
    births.again().unwrap();
    assert_eq!(tree.hear(&mut births), ["+docker/A"]);
    births.watch("other").unwrap();
    assert_eq!(tree.hear(&mut births), [""; 0]);
}

#[test]
fn after_an_overflow_of_the_queue_nothing_is_missing() {
    let (tree, mut births) = Tree::new();
    tree.make(&format!("docker/{A}"));
    assert_eq!(tree.hear(&mut births), ["+docker/A"]);
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    // Equal events in a row are one: two names in turn.
    for n in 0..limit / 4 + 2 {
        let dir = tree
            .0
            .path()
            .join(if n % 2 == 0 { "docker/x" } else { "docker/y" });
        fs::create_dir(&dir).unwrap();
        fs::remove_dir(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
        fs::remove_dir(&dir).unwrap();
    }
    tree.make(&format!("docker/{B}"));
    tree.make(&format!("system.slice/docker-{A}.scope"));
    tree.remove(&format!("docker/{A}"));
    let mut heard = tree.hear(&mut births);
    heard.sort_unstable();
    assert_eq!(
        heard,
        ["+docker/B", "+system.slice/docker-A.scope", "-docker/A"]
    );
}
