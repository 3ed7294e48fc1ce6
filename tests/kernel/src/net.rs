//! A network namespace whose loopback carries documentation addresses, so that "remote" peers live in
//! the test process and nothing leaves the machine.

use nix::sched::{CloneFlags, unshare};
use std::process::Command;

/// Addresses on the namespace's loopback besides 127.0.0.1 and ::1.
pub const ADDRESSES: [&str; 8] = [
    "192.0.2.1/32",
    "192.0.2.2/32",
    "192.0.2.53/32",
    "198.51.100.7/32",
    "203.0.113.9/32",
    "2001:db8::1/128",
    "2001:db8::2/128",
    "2001:db8::53/128",
];

/// Moves this thread, and every thread and process it starts from now on, into a fresh namespace.
pub fn isolate() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "kernel tests need root: use `sudo make test-kernel`"
    );
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own");
    ip(&["link", "set", "lo", "up"]);
    for address in ADDRESSES {
        let family = if address.contains(':') { "-6" } else { "-4" };
        let nodad: &[&str] = if family == "-6" { &["nodad"] } else { &[] };
        let args = [&[family, "addr", "add", address, "dev", "lo"][..], nodad].concat();
        ip(&args);
    }
}

/// Runs `ip`, which must succeed.
pub fn ip(args: &[&str]) {
    let out = Command::new("ip")
        .args(args)
        .output()
        .expect("iproute2 is installed");
    assert!(
        out.status.success(),
        "ip {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}
