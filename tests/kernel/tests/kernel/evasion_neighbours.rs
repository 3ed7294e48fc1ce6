//! Root in one contained command looks through `/proc/PID/root` of another process at that process's view of
//! the cgroups, and starts a process of its own in one of them. The kernel lets it wherever its capabilities
//! are no fewer than the other's: into every other instance, and through any process outside that has given
//! its capabilities up.

use kernel_tests::{
    cgroup_root,
    evasion::{POLICY, TOOLS},
    run::Bench,
    server::Place,
    sniff::Sniffer,
};
use std::process::{Child, Command, Stdio};

/// Tries to get away through a process, and asserts that nothing of it reached the wire.
fn through(bench: &Bench, pid: u32) {
    let place = Place::open("203.0.113.9:80");
    let wire = Sniffer::start();
    let cgroups = cgroup_root();
    let out = bench.agent(
        POLICY,
        &format!(
            "{TOOLS}\nthere = '/proc/{pid}/root{}'\nprint(or_error(lambda: into(there, out)))\n\
             def move():\n  with open(there + '/cgroup.procs', 'w') as f: f.write(str(os.getpid()))\n\
             print(or_error(move)); out()",
            cgroups.display()
        ),
    );
    let seen = wire.to("203.0.113.9");
    assert!(
        seen.is_empty() && place.calls() == 0,
        "{} packets left: {}",
        seen.len(),
        out.stdout
    );
}

#[test]
fn the_cgroup_of_another_instance_is_out_of_reach() {
    let bench = Bench::new();
    let other = bench.beside();
    let mut open = other.talk("default: allow\n", &[], "step(os.getpid())");
    let pid = open.hear().parse().unwrap();
    through(&bench, pid);
}

/// Ends with the test.
struct Outside(Child);

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_cgroups_are_out_of_reach_through_a_process_without_capabilities() {
    let bench = Bench::new();
    let mut outside = Command::new("setpriv");
    outside.args(["--bounding-set=-all", "--inh-caps=-all", "cat"]);
    let mut outside = Outside(
        outside
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    // It says a word when it has become what it is to be.
    let (mut to, mut from) = (
        outside.0.stdin.take().unwrap(),
        outside.0.stdout.take().unwrap(),
    );
    std::io::Write::write_all(&mut to, b"x").unwrap();
    std::io::Read::read_exact(&mut from, &mut [0]).unwrap();
    through(&bench, outside.0.id());
}
