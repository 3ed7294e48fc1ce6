//! What the firewall costs: the rows of DESIGN §8 that need no container engine. `make bench` runs it and
//! `docs/benchmarks.md` shows its output.
//!
//! Comparisons are interleaved: the same process moves between a cgroup with the programs and one
//! without them every few hundred operations, so that both sides meet the same machine. Medians over
//! rounds; ratios within one run.

use aya::{
    programs::Program,
    sys::{Stats, enable_stats},
};
use ebpf_manager::{
    cgroup::{self, Cgroup},
    enrol::{self, Identity},
    instance::{Instance, Root},
    kernel::{Engine, Sizes},
    record::Lookup,
    session,
};
use kernel_tests::net;
use policy::Policy;
use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Operations between two moves.
const BATCH: usize = 300;
/// Moves of a comparison.
const ROUNDS: usize = 40;
const SERVER: &str = "192.0.2.1:7000";
const SINK: &str = "192.0.2.1:7001";
const DATAGRAMS: &str = "192.0.2.1:7002";

/// An attached engine with a reader, beside an empty cgroup.
struct World {
    engine: Engine,
    with: Cgroup,
    without: Cgroup,
    instance: Option<Instance>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<u64>>,
}

/// A policy with `rules` rules besides those that the bench needs.
fn policy(rules: usize) -> String {
    let mut text = String::from(
        "version: 1\nrules:\n  - { dst: 192.0.2.1, proto: any }\n  - { dst: host.example, proto: https }\n",
    );
    for i in 0..rules {
        let a = Ipv4Addr::from(0x0b00_0000 + u32::try_from(i).unwrap_or(0) * 7);
        text.push_str(&format!(
            "  - {{ dst: {a}, proto: tcp, port: {} }}\n",
            1000 + i % 5000
        ));
    }
    text
}

impl World {
    fn new(rules: usize) -> Self {
        let root = Root::new(Path::new(&format!(
            "/sys/fs/bpf/clawker-test-bench-{}",
            std::process::id()
        )));
        root.prepare().expect("a root for pins");
        let instance = root.create("bench").expect("an instance");
        let below = format!("clawker-test-bench-{}", std::process::id());
        let mount = cgroup::root().expect("cgroup v2");
        let with = Cgroup::create(mount.join(&below).join("with")).expect("a cgroup");
        let without = Cgroup::create(mount.join(&below).join("without")).expect("a cgroup");
        let sizes = Sizes {
            rate: 10_000_000,
            ..Sizes::default()
        };
        let mut engine = Engine::load(instance.pins.dir(), sizes).expect("the object loads");
        engine
            .attach(&with.open().expect("open"), "1")
            .expect("attach");
        let parsed = Policy::parse(&policy(rules))
            .policy
            .expect("the policy is good");
        let compiled = parsed.select(None, None).compile(1).expect("it compiles");
        instance
            .pins
            .policy()
            .and_then(|mut p| p.write(&compiled))
            .expect("it fits");
        let slot = root.draw_slot().expect("a slot");
        let id = Identity {
            cgroup_id: with.id().expect("id"),
            ..Identity::default()
        };
        let config = enrol::config(slot, 1, 1, &compiled, &[]);
        engine.enrol(&id.info(slot, 0), &config).expect("enrolled");
        let mut world = Self {
            engine,
            with,
            without,
            instance: Some(instance),
            stop: Arc::default(),
            reader: None,
        };
        world.read();
        world
    }

    /// Drains in a thread of its own, as the loader does.
    fn read(&mut self) {
        let mut rings = self.engine.rings().expect("rings");
        let stop = Arc::clone(&self.stop);
        self.reader = Some(thread::spawn(move || {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                rings.drain(|_| {
                    n += 1;
                    true
                });
                nix::poll::poll(&mut [], 5u16).ok();
            }
            n
        }));
    }

    fn enter(&self, with: bool) {
        let cgroup = if with { &self.with } else { &self.without };
        fs::write(cgroup.path().join("cgroup.procs"), "0").expect("the process moves");
    }

    fn run_ns(&self, name: &'static str) -> (u64, u64) {
        let info = match self.engine.program(name).expect("a program") {
            Program::CgroupSkb(p) => p.info(),
            Program::CgroupSock(p) => p.info(),
            Program::CgroupSockAddr(p) => p.info(),
            Program::SockOps(p) => p.info(),
            _ => unreachable!("only cgroup programs are asked for"),
        }
        .expect("info");
        (
            u64::try_from(info.run_time().as_nanos()).unwrap_or(0),
            info.run_count(),
        )
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let root = cgroup::root().expect("cgroup v2");
        fs::write(root.join("cgroup.procs"), "0").expect("the process moves out");
        if let Some(instance) = self.instance.take() {
            let dir = instance.pins.dir().to_owned();
            let _ = ebpf_manager::instance::remove_pins(&dir);
            let _ = dir.ancestors().nth(2).map(fs::remove_dir_all);
        }
        let _ = self.with.path().parent().map(|p| Cgroup::at(p).remove());
    }
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(f64::NAN)
}

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

fn accept_and_close() {
    let listener = TcpListener::bind(SERVER).expect("bind");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            drop(stream);
        }
    });
}

fn swallow() {
    let listener = TcpListener::bind(SINK).expect("bind");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buf = vec![0; 1 << 17];
                while stream.read(&mut buf).is_ok_and(|n| n > 0) {}
            });
        }
    });
}

/// Connects and resets, so that no time-wait socket is left.
fn connect_once(to: &SocketAddr) {
    let stream = TcpStream::connect(to).expect("connected");
    let _ = nix::sys::socket::setsockopt(
        &stream,
        nix::sys::socket::sockopt::Linger,
        &nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        },
    );
}

fn row(what: &str, value: &str, goal: &str) {
    println!("| {what} | {value} | {goal} |");
}

fn programs(world: &World) {
    let _stats = enable_stats(Stats::RunTime).expect("run time statistics");
    world.enter(true);
    let to: SocketAddr = SERVER.parse().expect("an address");
    let sink: SocketAddr = SINK.parse().expect("an address");
    let udp: SocketAddr = DATAGRAMS.parse().expect("an address");
    let cost = |name: &'static str, op: &mut dyn FnMut()| {
        let before = world.run_ns(name);
        op();
        let after = world.run_ns(name);
        (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64
    };
    let connect = cost("connect4", &mut || {
        (0..5000).for_each(|_| connect_once(&to));
    });
    row(
        "connect4, allowed",
        &format!("{connect:.0} ns a run"),
        "≤ 600",
    );
    let create = cost("sock_create", &mut || {
        (0..5000).for_each(|_| drop(UdpSocket::bind("127.0.0.1:0")));
    });
    row("sock_create", &format!("{create:.0} ns a run"), "≤ 250");
    let socket = UdpSocket::bind("192.0.2.2:0").expect("bind");
    let send = cost("sendmsg4", &mut || {
        (0..20_000).for_each(|_| drop(socket.send_to(b"x", udp)));
    });
    row(
        "sendmsg4, one peer",
        &format!("{send:.0} ns a run"),
        "≤ 700",
    );
    let mut first = 0;
    let fresh = cost("sendmsg4", &mut || {
        (0..5000u16).for_each(|i| {
            first += 1;
            let _ = socket.send_to(b"x", SocketAddr::new(udp.ip(), 10_000 + i));
        });
    });
    row(
        "sendmsg4, a new peer each time",
        &format!("{fresh:.0} ns a run"),
        "≤ 700",
    );
    let mut stream = TcpStream::connect(sink).expect("connected");
    let egress = cost("egress", &mut || {
        (0..20_000).for_each(|_| stream.write_all(&[0; 100]).expect("written"));
    });
    row(
        "packet program, established TCP",
        &format!("{egress:.0} ns a run"),
        "≤ 200",
    );
}

fn whole(world: &World) {
    let to: SocketAddr = SERVER.parse().expect("an address");
    let (with, without) = compare(world, BATCH, || connect_once(&to));
    row(
        "TCP connect, back to back",
        &format!(
            "{:+.2} µs ({:.2} µs → {:.2} µs)",
            (with - without) * 1e6,
            without * 1e6,
            with * 1e6
        ),
        "≤ +1 µs",
    );
    let socket = UdpSocket::bind("192.0.2.2:0").expect("bind");
    let udp: SocketAddr = DATAGRAMS.parse().expect("an address");
    let (with, without) = compare(world, BATCH * 10, || drop(socket.send_to(b"x", udp)));
    row(
        "UDP sendto, one way",
        &format!(
            "{:+.2} µs ({:.2} µs → {:.2} µs)",
            (with - without) * 1e6,
            without * 1e6,
            with * 1e6
        ),
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
    let sink: SocketAddr = SINK.parse().expect("an address");
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

/// Bytes of the maps, as the kernel accounts them; each map once, however often it is open.
fn memory() {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo").expect("proc").flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let value = |key: &str| {
            text.lines()
                .find_map(|l| l.strip_prefix(key)?.trim().parse::<u64>().ok())
        };
        if let (Some(id), Some(bytes)) = (value("map_id:"), value("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    let total: u64 = maps.values().sum();
    row(
        "map memory, 1 container",
        &format!("{:.2} MB", total as f64 / 1e6),
        "≤ 4 MB",
    );
}

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
fn records() {
    let mut world = World::new(10);
    world.stop.store(true, Ordering::Relaxed);
    if let Some(reader) = world.reader.take() {
        let _ = reader.join();
    }
    let mut rings = world.engine.rings().expect("rings");
    let context = session::context(Some("agent".to_owned()), Some("project".to_owned()));
    let refused: SocketAddr = "203.0.113.9:80".parse().expect("an address");
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

fn main() {
    net::isolate();
    accept_and_close();
    swallow();
    let _datagrams = UdpSocket::bind(DATAGRAMS).expect("bind");
    println!("| what | measured | goal |\n|---|---|---|");
    {
        let world = World::new(10);
        memory();
        programs(&world);
        whole(&world);
    }
    records();
    let cost = |rules: usize| {
        let world = World::new(rules);
        let _stats = enable_stats(Stats::RunTime).expect("run time statistics");
        world.enter(true);
        let to: SocketAddr = SERVER.parse().expect("an address");
        let before = world.run_ns("connect4");
        (0..5000).for_each(|_| connect_once(&to));
        let after = world.run_ns("connect4");
        (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64
    };
    let (small, large) = (cost(10), cost(100_000));
    row(
        "connect4 with 10 → 100 000 rules",
        &format!("{small:.0} → {large:.0} ns a run"),
        "flat",
    );
}
