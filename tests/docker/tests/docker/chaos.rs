//! Everything of ours is killed at random, again and again, while agents go on: in the end every flow is in
//! a record or declared lost, to the last one, and nothing that is denied has left in between.

use docker_tests::{
    chaos::{Chaos, Process},
    container::Container,
    engine::Engine,
    sink::{Mood, Sink},
    stack::{Stack, is_denied},
};
use kernel_tests::{eventually, eventually_told, talk::Talk};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

const POLICY: &str = "version: 1\n\
rules:
  - { name: common, dst: 192.0.2.1, proto: any, port: 8000-8099 }
";

/// Allowed and denied, over TCP and UDP, until it is told to stop; what each must come to is asserted.
const AGENT: &str = "import collections\n\
n = collections.Counter(); over = threading.Event(); wrong = []\n\
def must(verdict, said, wanted):\n\
\x20   n[verdict] += 1\n\
\x20   if said != wanted: wrong.append((verdict, said))\n\
def work():\n\
\x20   while not over.is_set():\n\
\x20       must('ALLOWED', tcp('192.0.2.1', 8001), 'ECONNREFUSED')\n\
\x20       must('DENIED', tcp('192.0.2.1', 9001), 'EPERM')\n\
\x20       with dgram() as s: must('DENIED', tried(lambda: s.sendto(b'x', ('192.0.2.1', 9002))), 'EPERM')\n\
\x20       time.sleep(PAUSE)\n\
t = threading.Thread(target=work); t.start(); say('up'); hear(); over.set(); t.join()\n\
for w in wrong[:5]: sys.stderr.write(repr(w))\n\
say(len(wrong), n['ALLOWED'], n['DENIED']); hear()";

/// Flows by slot and verdict.
type Sums = BTreeMap<(u32, String), u64>;

/// Flows that have ended, as the kernel says.
fn ended(stack: &Stack) -> Sums {
    let mut all = Sums::new();
    for row in stack.pins().books().unwrap() {
        for (verdict, n) in ["ALLOWED", "DENIED", "BYPASSED"].iter().zip(row.ended) {
            if row.slot != 0 && n > 0 {
                all.insert((row.slot, (*verdict).to_owned()), n);
            }
        }
    }
    all
}

/// Flows of records that have arrived, and of gaps: each id once. Copies must be equal.
fn told(sink: &Sink) -> (Sums, Sums) {
    let (mut recorded, mut lost) = (Sums::new(), Sums::new());
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    for r in sink.records() {
        let of = |name: &str| r.attributes.get(name);
        let text = |name: &str| of(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| of(name).and_then(Value::as_u64);
        let id = text("flow_id")
            .or_else(|| text("record_id"))
            .expect("every record has an id");
        if let Some(before) = seen.insert(id.clone(), r.record.clone()) {
            assert_eq!(before["body"], r.record["body"], "{id} says two things");
            continue;
        }
        let verdict = text("verdict").unwrap_or_default();
        if r.resource["service.name"] == "clawker-egress" {
            let slot = id.split('-').nth(1).unwrap().parse().unwrap();
            *recorded.entry((slot, verdict)).or_default() += number("count").unwrap_or(1);
        } else if r.record["eventName"] == "clawker.overseer.gap" {
            let slot = number("slot").unwrap_or_else(|| panic!("a gap of no flows: {r:?}"));
            let slot = u32::try_from(slot).unwrap();
            *lost.entry((slot, verdict)).or_default() += number("flows").unwrap();
        }
    }
    (recorded, lost)
}

fn sum(a: &Sums, b: &Sums) -> Sums {
    let mut all = a.clone();
    for (key, n) in b {
        *all.entry(key.clone()).or_default() += n;
    }
    all
}

/// Random numbers that a failure can be repeated with.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = std::env::var("CHAOS_SEED").map_or(1, |s| s.parse().unwrap());
        eprintln!("CHAOS_SEED={seed}");
        Self(seed)
    }

    /// Below `n` (splitmix64).
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Waits until so many more flows have ended.
fn go_on(stack: &Stack, flows: u64) {
    let all = || ended(stack).values().sum::<u64>();
    let wanted = all() + flows;
    eventually("flows to go on", || (all() >= wanted).then_some(()));
}

fn start<'e>(stack: &Stack, engine: &'e Engine, name: &str) -> (Container<'e>, Talk) {
    start_slow(stack, engine, name, Duration::from_millis(2))
}

/// The same with so long a pause after three flows.
fn start_slow<'e>(
    stack: &Stack,
    engine: &'e Engine,
    name: &str,
    pause: Duration,
) -> (Container<'e>, Talk) {
    let agent = engine.agent(name, "shop", &[]);
    eventually("it to be enrolled", || {
        let infos = stack.pins().infos().unwrap();
        let mine = |i: &abi::SlotInfo| ebpf_manager::enrol::text(&i.container_id) == agent.id;
        infos.iter().any(|(_, i)| mine(i)).then_some(())
    });
    let mut talk =
        Talk::start(&mut agent.program(&format!("PAUSE = {}\n{AGENT}", pause.as_secs_f64())));
    assert_eq!(talk.hear(), "up");
    (agent, talk)
}

/// Stops the agents, and holds what they have done against the kernel's books. `more`: denied flows of
/// others in their containers.
fn stop(stack: &Stack, agents: &mut [(Container<'_>, Talk)], more: u64) -> Sums {
    let (mut allowed, mut denied) = (0, more);
    for (agent, talk) in agents.iter_mut() {
        let said = talk.go();
        let mut words = said.split(' ').map(|w| w.parse::<u64>().expect("a number"));
        assert_eq!(words.next(), Some(0), "{}: {said}", agent.id);
        allowed += words.next().unwrap();
        denied += words.next().unwrap();
    }
    eventually("every flow to have ended", || {
        let all = ended(stack);
        let of = |v: &str| {
            all.iter()
                .filter(|(k, _)| k.1 == v)
                .map(|(_, n)| n)
                .sum::<u64>()
        };
        assert!(
            of("ALLOWED") <= allowed && of("DENIED") <= denied,
            "{all:?} {allowed} {denied}"
        );
        ((of("ALLOWED"), of("DENIED")) == (allowed, denied)).then_some(())
    });
    ended(stack)
}

/// Waits until everything is told, and asserts that it is told once.
fn is_whole(sink: &Sink, ended: &Sums) -> (Sums, Sums) {
    eventually_told(Duration::from_secs(90), || {
        let (recorded, lost) = told(sink);
        let all = sum(&recorded, &lost);
        for (key, n) in &all {
            let ended = ended.get(key).copied().unwrap_or(0);
            assert!(*n <= ended, "{key:?}: {n} of {ended} told: {lost:?}");
        }
        if all == *ended {
            return Ok((recorded, lost));
        }
        Err(format!(
            "every flow to be told: {ended:?} have ended, recorded are {recorded:?}, lost {lost:?}"
        ))
    })
}

#[test]
fn kills_at_random_lose_nothing_that_is_not_declared() {
    const KILLS: usize = 14;
    let mut dice = Dice::new();
    let engine = Engine::start();
    let sink = Sink::start();
    let more = ["--max-agents", "4", "--rate", "300"];
    let mut chaos = Chaos::start(&engine, POLICY, &more);
    let mut agents = [
        start(&chaos.stack, &engine, "web"),
        start(&chaos.stack, &engine, "db"),
    ];
    let everyone = [Process::Loader, Process::Bridge, Process::Collector];
    for round in 0..KILLS {
        go_on(&chaos.stack, 20 + dice.below(500));
        let mut dead = HashSet::new();
        // Often the loader, now and then several at once.
        for _ in 0..=dice.below(2) {
            let at = dice.below(5).saturating_sub(2) as usize;
            dead.insert(everyone[at.min(2)]);
        }
        for process in &dead {
            chaos.kill(*process);
        }
        go_on(&chaos.stack, dice.below(300));
        // What is enforced is enforced by nobody of ours.
        for (agent, _) in &agents {
            if round % 4 == 0 {
                is_denied(agent, 9003);
            }
        }
        for process in dead {
            chaos.revive(process, &engine);
        }
    }
    // Those of the probes above were denied flows, too.
    let probes = (KILLS.div_ceil(4) * agents.len()) as u64;
    let said = stop(&chaos.stack, &mut agents, probes);
    let (recorded, lost) = is_whole(&sink, &said);
    eprintln!("recorded {recorded:?}, declared lost {lost:?}");
    assert!(recorded.values().sum::<u64>() > 1000, "{recorded:?}");
    chaos.end();
}

#[test]
fn a_receiver_that_is_slow_and_then_away_and_a_full_disk_are_told_to_the_last_flow() {
    let engine = Engine::start();
    let sink = Sink::start();
    let more = ["--max-agents", "4", "--rate", "100000"];
    let mut chaos = Chaos::start(&engine, POLICY, &more);
    let mut agents = [start(&chaos.stack, &engine, "web")];
    sink.be(Mood::Slow);
    go_on(&chaos.stack, 500);
    sink.be(Mood::Away);
    go_on(&chaos.stack, 1500);
    // Somebody fills the disk of the spool, and the loader is killed over it.
    let filled = chaos.fill_disk();
    go_on(&chaos.stack, 1500);
    chaos.kill(Process::Loader);
    go_on(&chaos.stack, 200);
    chaos.revive(Process::Loader, &engine);
    go_on(&chaos.stack, 500);
    drop(filled);
    sink.be(Mood::Well);
    let said = stop(&chaos.stack, &mut agents, 0);
    let (recorded, lost) = is_whole(&sink, &said);
    eprintln!("recorded {recorded:?}, declared lost {lost:?}");
    chaos.end();
}

#[test]
fn minutes_without_a_collector_lose_nothing() {
    const AWAY: Duration = Duration::from_secs(120);
    let engine = Engine::start();
    let sink = Sink::start();
    let more = ["--max-agents", "4", "--rate", "300"];
    let mut chaos = Chaos::start(&engine, POLICY, &more);
    // The disk of the spool is small.
    let pause = Duration::from_millis(100);
    let mut agents = ["web", "db"].map(|name| start_slow(&chaos.stack, &engine, name, pause));
    go_on(&chaos.stack, 50);
    let began = Instant::now();
    chaos.kill(Process::Collector);
    let mut restarted = false;
    let mut probes = 0;
    while began.elapsed() < AWAY {
        go_on(&chaos.stack, 200);
        for (agent, _) in &agents {
            is_denied(agent, 9003);
            probes += 1;
        }
        if !restarted && began.elapsed() > AWAY / 2 {
            // What it has taken is on its disk.
            chaos.kill(Process::Bridge);
            chaos.revive(Process::Bridge, &engine);
            restarted = true;
        }
    }
    assert!(restarted);
    chaos.revive(Process::Collector, &engine);
    let said = stop(&chaos.stack, &mut agents, probes);
    let (recorded, lost) = is_whole(&sink, &said);
    assert_eq!(lost, Sums::new(), "{recorded:?}");
    eprintln!("recorded {recorded:?}");
    chaos.end();
}
