//! Keeps records in a spool, and says which: for tests that kill it, and for measuring.
//!
//! `keeper DIR SENDER` keeps batches for ever; each number that it prints is a batch that is on the disk.
//! `keeper DIR measure CALLERS BATCHES` says how fast that goes.

use otlp_bridge::{
    incoming::{BatchId, Flows, Incoming, Keeper as _, Weight},
    spool::{Bounds, Spool},
};
use prost::Message as _;
use std::{
    env,
    error::Error,
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};
use wire::{RecordBuilder, Severity, Source, fields as f, stream};

const BOUNDS: Bounds = Bounds {
    bytes: 4 << 30,
    age: Duration::from_secs(1 << 20),
};
/// Records of a batch: few for those who are killed, so that there are many acknowledgements.
const FEW: u64 = 20;
const MANY: u64 = 1000;
const BOOT: &str = "0123456789abcdef0123456789abcdef";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [dir, "measure", callers, batches] => measure(dir, callers.parse()?, batches.parse()?),
        [dir, sender] => keep(dir, sender),
        _ => Err("keeper DIR SENDER | keeper DIR measure CALLERS BATCHES".into()),
    }
}

fn open(dir: &str) -> Result<Spool, Box<dyn Error>> {
    Ok(Spool::open(Path::new(dir), BOUNDS, |e| panic!("{e}"))?)
}

/// A record like that of a flow, a kilobyte long.
fn record(slot: u32, n: u64) -> Incoming {
    let now = jiff::Timestamp::now();
    let id = format!("{BOOT}-{slot}-a{n}");
    let record = RecordBuilder::new(stream::FLOW, now, now, Severity::Info, "x".repeat(300))
        .with(f::AGENT, "reviewer")
        .with(f::PROJECT, "acme")
        .with(f::CONTAINER_ID, "c".repeat(64))
        .with(f::VERDICT, "ALLOWED")
        .with(f::DST_HOST, "api.github.com")
        .with(f::RULE, "y".repeat(200))
        .with(f::FLOW_ID, id.as_str());
    let source = Source::new(stream::EGRESS, "ebpf-manager", "0.1.0", "serve");
    Incoming {
        stream: stream::EGRESS.to_owned(),
        id,
        weight: Weight::Allowed,
        flows: Some(Flows {
            boot: BOOT.to_owned(),
            slot,
            verdict: "ALLOWED".to_owned(),
            count: 1,
        }),
        bytes: source.records(vec![record.build()]).encode_to_vec(),
    }
}

fn keep(dir: &str, sender: &str) -> Result<(), Box<dyn Error>> {
    let spool = open(dir)?;
    for number in 1.. {
        let batch = BatchId {
            sender: sender.to_owned(),
            number,
        };
        let slot = sender.parse()?;
        let records: Vec<_> = (0..FEW).map(|n| record(slot, number * FEW + n)).collect();
        spool.keep(Some(&batch), &records)?;
        writeln!(io::stdout(), "{number}")?;
    }
    Ok(())
}

fn measure(dir: &str, callers: u32, batches: u64) -> Result<(), Box<dyn Error>> {
    let spool = open(dir)?;
    let size = record(0, 0).bytes.len();
    let prepared: Vec<Vec<Vec<Incoming>>> = (0..callers)
        .map(|slot| {
            let batch = |b| (0..MANY).map(|n| record(slot, b * MANY + n)).collect();
            (0..batches).map(batch).collect()
        })
        .collect();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for batches in &prepared {
            let spool = &spool;
            scope.spawn(move || {
                for records in batches {
                    spool.keep(None, records).expect("there is room");
                }
            });
        }
    });
    let took = begin.elapsed();
    let records = u64::from(callers) * batches * MANY;
    let state = spool.state()?;
    println!(
        "kept {records} records of {size} bytes in {:.2} s: {:.0} records/s; counted {} bytes, file {} bytes",
        took.as_secs_f64(),
        records as f64 / took.as_secs_f64(),
        state.bytes,
        state.file_bytes,
    );
    let begin = Instant::now();
    loop {
        let some = spool.hand_out(
            stream::EGRESS,
            otlp_bridge::spool::From::Oldest,
            200,
            1 << 21,
        )?;
        if some.is_empty() {
            break;
        }
        spool.delivered(stream::EGRESS, &some);
    }
    spool.flush()?;
    let took = begin.elapsed().as_secs_f64();
    println!(
        "handed out and removed in {took:.2} s: {:.0} records/s",
        records as f64 / took
    );
    Ok(())
}
