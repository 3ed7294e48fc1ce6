//! The store under the flows of weeks: `make bench` prints the rows of docs/benchmarks.md.
//!
//! `CLAWKER_BENCH_FLOWS` is how many flows the store is filled with (5 million), `CLAWKER_BENCH_CHAIN` how many go
//! through the whole chain (200 000).

mod flows;
mod search;
mod way;

use std::env;

/// How many, as the environment says.
fn number(name: &str, usual: u64) -> u64 {
    let text = env::var(name).ok();
    text.map_or(usual, |t| {
        t.parse().unwrap_or_else(|e| panic!("{name}={t:?}: {e}"))
    })
}

/// A row of the table.
fn row(what: &str, measured: &str) {
    println!("| {what} | {measured} |");
}

/// What compose.yaml gives it.
const HEAP: &str = "1g";

fn main() {
    kernel_tests::net::isolate();
    println!("| what | measured |\n|---|---|");
    way::whole(number("CLAWKER_BENCH_CHAIN", 200_000));
    search::overview(number("CLAWKER_BENCH_FLOWS", 5_000_000));
}
