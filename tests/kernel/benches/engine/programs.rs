//! Nanoseconds a run of each program, by the kernel's own statistics.

use crate::{DATAGRAMS, SERVER, SINK, address, connect_once, row, world::World};
use aya::sys::{Stats, enable_stats};
use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream, UdpSocket},
};

/// Nanoseconds a run of a program while `op` goes on.
fn cost(world: &World, name: &'static str, op: impl FnOnce()) -> f64 {
    let before = world.run_ns(name);
    op();
    let after = world.run_ns(name);
    (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64
}

/// Every program on its path that is taken most.
pub(crate) fn each(world: &World) {
    let _stats = enable_stats(Stats::RunTime).expect("run time statistics");
    world.enter(true);
    let (to, udp) = (address(SERVER), address(DATAGRAMS));
    let ns = |what: &str, goal: &str, name: &'static str, op: &mut dyn FnMut()| {
        let ns = cost(world, name, op);
        row(what, &format!("{ns:.0} ns a run"), goal);
    };
    ns("connect4, allowed", "≤ 600", "connect4", &mut || {
        (0..5000).for_each(|_| connect_once(&to));
    });
    ns("sock_create", "≤ 250", "sock_create", &mut || {
        (0..5000).for_each(|_| drop(UdpSocket::bind("127.0.0.1:0")));
    });
    let socket = UdpSocket::bind("192.0.2.2:0").expect("bind");
    ns("sendmsg4, one peer", "≤ 700", "sendmsg4", &mut || {
        (0..20_000).for_each(|_| drop(socket.send_to(b"x", udp)));
    });
    let new_peer = "sendmsg4, a new peer each time";
    ns(new_peer, "≤ 700", "sendmsg4", &mut || {
        (0..5000u16).for_each(|i| {
            let _ = socket.send_to(b"x", SocketAddr::new(udp.ip(), 10_000 + i));
        });
    });
    let mut stream = TcpStream::connect(address(SINK)).expect("connected");
    let established = "packet program, established TCP";
    ns(established, "≤ 200", "egress", &mut || {
        (0..20_000).for_each(|_| stream.write_all(&[0; 100]).expect("written"));
    });
}

/// `connect4` under few rules and under many.
pub(crate) fn many_rules() {
    let connect4 = |rules: usize| {
        let world = World::new(rules);
        let _stats = enable_stats(Stats::RunTime).expect("run time statistics");
        world.enter(true);
        let to = address(SERVER);
        cost(&world, "connect4", || {
            (0..5000).for_each(|_| connect_once(&to));
        })
    };
    let (small, large) = (connect4(10), connect4(100_000));
    row(
        "connect4 with 10 → 100 000 rules",
        &format!("{small:.0} → {large:.0} ns a run"),
        "flat",
    );
}
