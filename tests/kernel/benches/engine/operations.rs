//! Whole operations, with the programs and without.

use crate::{DATAGRAMS, SERVER, SINK, address, connect_once, median, row, world::World};
use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

/// Operations between two moves.
const BATCH: usize = 300;
/// Moves of a comparison.
const ROUNDS: usize = 40;
/// Seconds of one batch, with and without, interleaved; medians.
fn compare(world: &World, batch: usize, mut op: impl FnMut()) -> (f64, f64) {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS * 2 {
        let with = round % 2 == 0;
        world.enter(with);
        let began = Instant::now();
        (0..batch).for_each(|_| op());
        times[usize::from(with)].push(began.elapsed().as_secs_f64() / batch as f64);
    }
    let [without, with] = times;
    (median(with), median(without))
}

/// Microseconds more with the programs than without.
fn difference(with: f64, without: f64) -> String {
    let more = (with - without) * 1e6;
    let (with, without) = (with * 1e6, without * 1e6);
    format!("{more:+.2} µs ({without:.2} µs → {with:.2} µs)")
}

/// What an application sees of the programs.
pub(crate) fn whole(world: &World) {
    let to = address(SERVER);
    let (with, without) = compare(world, BATCH, || connect_once(&to));
    row(
        "TCP connect, back to back",
        &difference(with, without),
        "≤ +1 µs",
    );
    let socket = UdpSocket::bind("192.0.2.2:0").expect("bind");
    let udp = address(DATAGRAMS);
    let (with, without) = compare(world, BATCH * 10, || drop(socket.send_to(b"x", udp)));
    row(
        "UDP sendto, one way",
        &difference(with, without),
        "≤ +0.7 µs",
    );
    paced(world, &to);
    throughput(world);
}

/// Connects 200 times a second: what a burst hides, a pause shows.
fn paced(world: &World, to: &SocketAddr) {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..20 {
        let with = round % 2 == 0;
        world.enter(with);
        for _ in 0..40 {
            let began = Instant::now();
            connect_once(to);
            times[usize::from(with)].push(began.elapsed().as_secs_f64());
            nix::poll::poll(&mut [], 5u16).ok();
        }
    }
    let [without, with] = times.map(median);
    row(
        "whole TCP operation at 200/s",
        &format!("{:+.1} %", (with / without - 1.0) * 100.0),
        "≤ +5 %",
    );
}

fn throughput(world: &World) {
    let sink = address(SINK);
    let block = vec![0; 1 << 17];
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..20 {
        let with = round % 2 == 0;
        world.enter(with);
        let mut stream = TcpStream::connect(sink).expect("connected");
        let began = Instant::now();
        let mut sent = 0;
        while began.elapsed() < Duration::from_millis(300) {
            stream.write_all(&block).expect("written");
            sent += block.len();
        }
        rates[usize::from(with)].push(sent as f64 / began.elapsed().as_secs_f64());
    }
    let [without, with] = rates.map(median);
    row(
        "single-stream TCP throughput",
        &format!("{:.1} % of no programs", with / without * 100.0),
        "≥ 98 %",
    );
}
