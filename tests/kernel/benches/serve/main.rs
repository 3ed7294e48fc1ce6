//! What `serve` costs, and what its way of records carries: the rows of DESIGN §8 about many agents and the
//! whole way from ring to collector. Loader, bridge and collector are the real ones; containers are
//! processes in cgroups that a stand-in for the engine describes.

mod idle;
mod stage;
mod way;

use kernel_tests::net;

fn row(what: &str, value: &str, goal: &str) {
    println!("| {what} | {value} | {goal} |");
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    net::isolate();
    println!("| what | measured | goal |\n|---|---|---|");
    idle::enrolment();
    for (agents, goal) in [(0, "–"), (100, "≤ 32 MiB, ≤ 0.1 %"), (1000, "–")] {
        idle::with(agents, goal);
    }
    way::whole();
    way::curve();
}
