//! The entrance before a real spool: agents that fill their part of it are put off, and nobody else is.

use crate::house::{endpoint, payload, record, says, sent_by, settings};
use otlp_bridge::{
    intake::open,
    spool::{Bounds, Spool, State},
};
use std::{sync::Arc, time::Duration};
use wire::{BatchId, Client, Outcome, stream};

/// The bound of the spool in bytes.
const ROOM: u64 = 64 << 10;

fn find(state: &State, stream: &str) -> u64 {
    let found = state.streams.iter().find(|s| s.stream == stream);
    found.map_or(0, |s| s.kept)
}

#[tokio::test]
async fn agents_that_fill_their_part_of_the_spool_are_told_to_come_again_and_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        bytes: ROOM,
        age: Duration::from_secs(86_400),
    };
    let spool = Spool::open(dir.path(), bounds, |e| panic!("{e}")).unwrap();
    let spool = Arc::new(spool);
    let settings = settings(dir.path());
    let loader = endpoint(&format!("unix://{}", settings.socket.display()));
    let status = Arc::new(serde_json::Map::new);
    let intake = open(settings, Arc::clone(&spool), status).await.unwrap();
    let clients = ["", "/v1/logs"].map(|path| {
        let url = format!("http://{}{path}", intake.addresses()[0]);
        Client::new(&endpoint(&url))
    });
    for client in &clients {
        let mut taken = 0;
        let outcome = loop {
            match client.send(&sent_by("10.0.0.1")).await {
                Outcome::Delivered => taken += 1,
                other => break other,
            }
            assert!(taken < 1000, "it is never full");
        };
        let Outcome::Retry { after, failure } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(after, Some(Duration::from_secs(2)), "{failure}");
    }
    let counts = intake.counters().counts();
    let state = spool.state().unwrap();
    assert_eq!((counts.put_off, counts.tally.kept), (2, counts.accepted));
    assert_eq!(find(&state, stream::CLAUDE), counts.tally.kept);
    assert!(state.bytes <= ROOM / 4, "{state:?}");

    let way = vec![says("clawker.lane", "envoy"), says("src_ip", "10.0.0.1")];
    let logged = payload("", vec![record(way)]);
    assert_eq!(clients[0].send(&logged).await, Outcome::Delivered);
    let own = payload(stream::CONTROL_PLANE, vec![record(vec![])]);
    let first = BatchId::first("l").unwrap();
    let outcome = Client::new(&loader).send_batch(&own, &first).await;
    assert_eq!(outcome, Outcome::Delivered);
}
