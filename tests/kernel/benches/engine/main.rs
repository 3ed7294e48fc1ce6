//! What the firewall costs: the rows of DESIGN §8 that need no container engine. `make bench` runs it and
//! `docs/benchmarks.md` shows its output.
//!
//! Comparisons are interleaved: the same process moves between a cgroup with the programs and one
//! without them every few hundred operations, so that both sides meet the same machine. Medians over
//! rounds; ratios within one run.

mod interfaces;
mod operations;
mod programs;
mod records;
mod world;

use kernel_tests::{net, peer};
use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};
use world::World;

const SERVER: &str = "192.0.2.1:7000";
const SINK: &str = "192.0.2.1:7001";
const DATAGRAMS: &str = "192.0.2.1:7002";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn accept_and_close() {
    let listener = TcpListener::bind(SERVER).expect("bind");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            drop(stream);
        }
    });
}

fn swallow() {
    let listener = TcpListener::bind(SINK).expect("bind");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buf = vec![0; 1 << 17];
                while stream.read(&mut buf).is_ok_and(|n| n > 0) {}
            });
        }
    });
}

/// Connects and resets, so that no time-wait socket is left.
fn connect_once(to: &SocketAddr) {
    peer::reset(TcpStream::connect(to).expect("connected"));
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(f64::NAN)
}

fn row(what: &str, value: &str, goal: &str) {
    println!("| {what} | {value} | {goal} |");
}

fn main() {
    net::isolate();
    accept_and_close();
    swallow();
    let _datagrams = UdpSocket::bind(DATAGRAMS).expect("bind");
    println!("| what | measured | goal |\n|---|---|---|");
    {
        let world = World::new(10);
        world::memory();
        programs::each(&world);
        operations::whole(&world);
    }
    records::ring_to_json();
    programs::many_rules();
    interfaces::guarded();
}
