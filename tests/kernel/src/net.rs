//! A network namespace whose loopback carries documentation addresses, so that "remote" peers live in
//! the test process and nothing leaves the machine.

use nix::{
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use std::{process::Command, sync::mpsc, thread};

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

/// An address behind a link that swallows every packet.
pub const BLACK_HOLE: &str = "198.51.100.200";

/// Makes the way to [`BLACK_HOLE`].
pub fn black_hole() {
    ip(&["link", "add", "bh0", "type", "veth", "peer", "name", "bh1"]);
    ip(&["link", "set", "bh0", "up"]);
    ip(&["link", "set", "bh1", "up"]);
    ip(&["route", "add", BLACK_HOLE, "dev", "bh0"]);
    let nobody = "02:00:00:00:00:99";
    ip(&[
        "neigh",
        "add",
        BLACK_HOLE,
        "lladdr",
        nobody,
        "dev",
        "bh0",
        "nud",
        "permanent",
    ]);
}

/// Our address on the link to a [`neighbour`].
pub const HERE: &str = "198.18.0.1";
/// The neighbour's.
pub const THERE: &str = "198.18.0.2";

/// Runs something on another machine, as far as packets can tell: in a namespace at the other end of
/// a link. Once a test.
pub fn neighbour<T: Send>(talk: impl FnOnce() -> T + Send) -> T {
    let (say, hear) = mpsc::channel();
    let (go, ready) = mpsc::channel();
    thread::scope(|scope| {
        let far = scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own");
            say.send(nix::unistd::gettid()).expect("the test waits");
            ready.recv().expect("a link");
            ip(&["addr", "add", &format!("{THERE}/24"), "dev", "there"]);
            ip(&["link", "set", "there", "up"]);
            talk()
        });
        let thread = hear.recv().expect("the neighbour lives").to_string();
        ip(&[
            "link", "add", "here", "type", "veth", "peer", "name", "there",
        ]);
        ip(&["link", "set", "there", "netns", &thread]);
        ip(&["addr", "add", &format!("{HERE}/24"), "dev", "here"]);
        ip(&["link", "set", "here", "up"]);
        go.send(()).expect("the neighbour waits");
        far.join().expect("the neighbour ends well")
    })
}

/// Room for this many sockets on either side.
pub fn room_for(sockets: usize) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    assert!(
        most > sockets as u64 + 1000,
        "{most} open files are too few: raise the hard limit"
    );
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the hard limit allows it");
}
