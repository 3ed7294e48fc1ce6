//! The way of records: how many a second it carries, and what becomes of those above that.

use crate::{
    row,
    stage::{Stage, flows},
};
use std::time::Instant;

/// As many refusals as it is told, as many a second as it is told (0: as many as it can), by two processes.
/// Says how long that took.
const PROGRAM: &str = "
def some(n, rate):
    s, to = dgram(), ('203.0.113.9', 9)
    begin, i = time.monotonic(), 0
    while i < n:
        due = n if not rate else min(n, int((time.monotonic() - begin) * rate))
        while i < due: s.connect_ex(to); i += 1
        if i < n: time.sleep(0.001)
word = hear()
while word:
    n, rate = map(int, word.split())
    begin = time.monotonic()
    crowd(2, lambda: some(n // 2, rate / 2))
    word = step(time.monotonic() - begin)
";

/// For how many seconds each rate is held.
const SECONDS: u64 = 3;

/// Sends it off and waits until everything is told; how long the agent took, and how long all of it.
fn sent(stage: &mut Stage, n: u64, rate: u64) -> (f64, f64) {
    let (ended, began) = (flows(&stage.books()).0, Instant::now());
    let agent = stage.agent.as_mut().expect("an agent");
    agent.say(&format!("{n} {rate}"));
    let took = agent.hear().parse().expect("seconds");
    stage.until("every flow to be told", |s| {
        let (all, told) = flows(&s.books());
        (all >= ended + n && told == all && s.delivered().1 == 0).then_some(())
    });
    (took, began.elapsed().as_secs_f64())
}

fn begun(arguments: &[&str]) -> Stage {
    let mut stage = Stage::new(0, Some(PROGRAM), arguments);
    stage.agent.as_mut().expect("an agent").say("");
    stage
}

/// Flows that the records at the collector stand for, and how many records those are.
fn arrived(stage: &Stage) -> (u64, u64) {
    let all = stage.collector.received();
    let of = |count: Option<&serde_json::Value>| count.map_or(1, |n| n.as_u64().expect("a number"));
    let flows = all.iter().map(|r| of(r.attributes.get("count"))).sum();
    (flows, all.len() as u64)
}

/// From the ring to the collector's answer, nothing folded.
pub(crate) fn whole() {
    const FLOWS: u64 = 100_000;
    let mut stage = begun(&["--rate", "100000000", "--ring-kib", "65536"]);
    let (_, took) = sent(&mut stage, FLOWS, 0);
    let (flows, records) = arrived(&stage);
    assert_eq!((flows, records), (FLOWS, FLOWS), "none lost, none folded");
    row(
        "flows a second, ring to collector, none folded",
        &format!("{:.1} k", FLOWS as f64 / took / 1e3),
        "≥ 20 k",
    );
}

/// What becomes of flows at rates that grow, as it comes out of the box.
pub(crate) fn curve() {
    let mut stage = begun(&[]);
    let (mut flows_before, mut records_before) = (0, 0);
    println!(
        "\n| flows a second, one agent | made | records | folded | lost |\n|---|---|---|---|---|"
    );
    for rate in [1_000, 3_000, 10_000, 30_000, 100_000] {
        let n = rate * SECONDS;
        let (took, _) = sent(&mut stage, n, rate);
        // The collector writes its file a moment after it has answered.
        let (flows, records) = stage.until("the file", |s| {
            let now = arrived(s);
            (now.0 >= flows_before + n).then_some(now)
        });
        let (flows_now, records_now) = (flows - flows_before, records - records_before);
        (flows_before, records_before) = (flows, records);
        println!(
            "| {rate} | {:.0} | {records_now} | {} | {} |",
            n as f64 / took,
            flows_now.saturating_sub(records_now),
            n as i64 - flows_now as i64
        );
    }
}
