//! The way of a record from the ring to a line of JSON.

use crate::{address, median, row, world::World};
use ebpf_manager::{
    record::{Lookup, Owner},
    session,
};
use std::{net::TcpStream, time::Instant};

/// Names nothing: the cost of looking up is the session's cache, not the record's.
struct Nameless;

impl Lookup for Nameless {
    fn name(&mut self, _slot: u32, _hash: u64) -> Option<String> {
        None
    }

    fn rule(&mut self, _policy: u32, _rule: u32) -> Option<String> {
        None
    }
}

/// Fills a ring with refused connections and times the way from the ring to JSON lines, on one core.
pub(crate) fn ring_to_json() {
    let mut world = World::new(10);
    world.stop_reading();
    let mut rings = world.rings();
    let context = session::context(Owner {
        agent: Some("agent".to_owned()),
        project: Some("project".to_owned()),
        ..Owner::default()
    });
    let refused = address("203.0.113.9:80");
    world.enter(true);
    let mut rates = Vec::new();
    let mut text = Vec::with_capacity(1 << 22);
    for _ in 0..20 {
        (0..4500).for_each(|_| drop(TcpStream::connect(refused)));
        let mut n = 0;
        text.clear();
        let began = Instant::now();
        rings.drain(|event| {
            n += 1;
            let record = context.ended(event, &mut Nameless);
            serde_json::to_writer(&mut text, &record).expect("JSON");
            text.push(b'\n');
            true
        });
        rates.push(f64::from(n) / began.elapsed().as_secs_f64());
    }
    row(
        "records a second, ring to JSON, one core",
        &format!("{:.0} k", median(rates) / 1e3),
        "≥ 100 k",
    );
}
