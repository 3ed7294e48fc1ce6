//! What the way through Envoy costs, and how long a new policy takes to get there: `make bench` prints the rows of
//! docs/benchmarks.md.

mod client;
mod reload;
mod ways;

use std::env;

/// A row of the table.
fn row(what: &str, measured: &[String]) {
    println!("| {what} | {} |", measured.join(" | "));
}

/// The value in the middle, or another part of the way: 0.99 for the slowest hundredth.
fn at(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted[(last as f64 * part).round() as usize]
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    at(&all, 0.5)
}

fn main() {
    let args: Vec<String> = env::args().collect();
    if let [_, word, to, name @ ..] = &args[..]
        && word == client::WORD
    {
        return client::run(to, name.first().map(String::as_str));
    }
    ways::compare(&ways::PLAIN);
    ways::compare(&ways::TLS);
    reload::thousand();
}
