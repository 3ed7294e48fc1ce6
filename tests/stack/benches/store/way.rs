//! From the loader's side of the bridge to documents in the store.

use crate::{HEAP, flows::Flows, row};
use kernel_tests::eventually_within;
use provision::streams;
use stack_tests::chain::Chain;
use std::time::{Duration, Instant};
use wire::{Batch, BatchId, Client, Endpoint, Limits, Options, Outcome, Source, stream};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Sends flows to the bridge as the loader does: a request at a time, each until it is acknowledged.
async fn send(chain: &Chain, flows: u64) {
    let socket = format!("unix://{}", chain.bridge.socket().display());
    let endpoint = Endpoint::new(&socket, &Options::default()).expect("a socket");
    let client = Client::new(&endpoint);
    let source = Source::new(stream::EGRESS, "bench", "0", "bench");
    let mut batch = Batch::new(&source, Limits::default());
    let mut id = BatchId::first("bench").expect("a plain name");
    let mut all = Flows::new()
        .take(usize::try_from(flows).expect("few"))
        .peekable();
    while let Some(flow) = all.next() {
        assert_eq!(
            batch.push(flow.record()),
            None,
            "it was emptied when it was full"
        );
        if batch.len() < Limits::default().records && all.peek().is_some() {
            continue;
        }
        let payload = batch.take();
        loop {
            match client.send_batch(&payload, &id).await {
                Outcome::Delivered => break,
                Outcome::Retry { after, .. } => {
                    tokio::time::sleep(after.unwrap_or(Duration::from_millis(100))).await;
                }
                other => panic!("the bridge says {other:?}"),
            }
        }
        id = id.next();
    }
}

/// How many flows a second get through bridge, collector and pipeline into the index.
pub(crate) fn whole(flows: u64) {
    let mut chain = Chain::without_store();
    chain.store.full_size(HEAP);
    chain.store.restart();
    chain.store.contracts(&streams::all(&[]));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let began = Instant::now();
    runtime.expect("a runtime").block_on(send(&chain, flows));
    let kept = began.elapsed().as_secs_f64();
    eventually_within(PATIENCE, "everything to be delivered", || {
        (chain.bridge.stream("clawker-egress", "pending") == 0).then_some(())
    });
    let took = began.elapsed().as_secs_f64();
    assert_eq!(chain.store.count("clawker-egress"), flows);
    let rate = |seconds: f64| format!("{:.1} k a second", flows as f64 / seconds / 1e3);
    row(
        &format!("{flows} flows into the spool, each acknowledged"),
        &rate(kept),
    );
    row(
        "the same from the loader's socket into the index",
        &rate(took),
    );
}
