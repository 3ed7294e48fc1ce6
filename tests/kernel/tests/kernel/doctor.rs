//! `doctor` beside an instance that is well, and beside one that was broken on purpose: it says which
//! thing it is, and nothing else.

use abi::{maps, programs};
use aya::maps::{Array, MapData};
use ebpf_manager::{cgroup::Cgroup, instance::Root};
use kernel_tests::{
    bpf, cgroup_root,
    dns::{RESOLVER, Resolver},
    doctor::Checkup,
    eventually,
    run::Bench,
    talk::Talk,
};
use nix::sys::signal::Signal;
use std::{fs, path::PathBuf};

const POLICY: &str = "resolvers: [192.0.2.53]\nrules:\n\
    - { name: web, dst: 192.0.2.1, proto: tcp, port: 8080 }\n\
    - { name: echo, dst: 192.0.2.1, proto: udp, port: 7 }\n";

/// An instance with a command that waits, one live flow, one that ended, and one that was denied.
struct World {
    bench: Bench,
    talk: Talk,
    id: String,
    _resolver: Resolver,
}

impl World {
    fn new() -> Self {
        let bench = Bench::new();
        let resolver = Resolver::start(RESOLVER);
        let mut talk = bench.talk(
            POLICY,
            &["--agent", "a"],
            "live = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             live.sendto(b'x', ('192.0.2.1', 7))\n\
             udp(b'x', '192.0.2.1', 7, 0)\n\
             tcp('203.0.113.9', 80)\n\
             while step('ready') != 'end': tcp('203.0.113.9', 80)\n",
        );
        assert_eq!(talk.hear(), "ready");
        let id = bench.instance();
        Self {
            bench,
            talk,
            id,
            _resolver: resolver,
        }
    }

    /// A path below the instance's pins.
    fn pin(&self, below: &str) -> PathBuf {
        self.bench.pins_of(&self.id).dir().join(below)
    }

    fn link(&self, hook: &str) -> PathBuf {
        self.pin("links/1").join(hook)
    }

    fn cgroup(&self) -> PathBuf {
        cgroup_root().join("clawker").join(&self.id)
    }

    fn doctor(&self) -> Checkup {
        self.bench.doctor(&["--instance", &self.id])
    }

    /// Waits until `doctor` says something of a state.
    #[track_caller]
    fn says(&self, state: &str, words: &str) -> Checkup {
        eventually(words, || {
            let check = self.doctor();
            check
                .of(state)
                .iter()
                .any(|f| f.contains(words))
                .then_some(check)
        })
    }

    fn end(mut self) {
        self.talk.say("end");
        let loader = self.talk.pid();
        self.talk.end(&self.bench);
        self.bench.nothing_left(&[loader]);
    }
}

#[test]
fn an_instance_that_is_well_has_no_problem_and_its_numbers_add_up() {
    let w = World::new();
    let check = w.says("ok", " 0 waiting");
    check.well();
    let ok = check.of("ok");
    let all = abi::maps::ALL.len();
    for says in [
        format!("13 of 13 hooks effective on clawker/{}", w.id),
        format!("{all} of {all} pinned maps are those of its programs"),
        "accounting: 3 flows = 2 recorded + 0 waiting + 1 live".to_owned(),
        "the kernel accepts every program".to_owned(),
        "resolver 192.0.2.53 answers".to_owned(),
    ] {
        assert!(ok.iter().any(|f| f.starts_with(&says)), "{says} in {ok:#?}");
    }
    assert!(ok.iter().any(|f| f.contains("cgroup v2 at")), "{ok:#?}");
    let mut for_people = w.bench.manager_where(RESOLVER, "true");
    let out = for_people
        .arg("doctor")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(
        text.contains(&format!("✔ {}: 13 of 13 hooks", w.id)),
        "{text}"
    );
    assert!(
        text.lines().last().unwrap().starts_with("no problem"),
        "{text}"
    );
    assert!(!text.contains('\x1b') && out.stderr.is_empty(), "{text}");
    w.end();
}

#[test]
fn flows_that_come_and_go_meanwhile_are_no_problem() {
    let bench = Bench::new();
    let _resolver = Resolver::start(RESOLVER);
    let mut talk = bench.talk(
        POLICY,
        &["--ring-kib", "4"],
        "def many():\n\
         \x20   while True:\n\
         \x20       tcp('203.0.113.9', 80); udp(b'x', '192.0.2.1', 7, 0)\n\
         threading.Thread(target=many, daemon=True).start()\n\
         step('ready')\n\
         os._exit(0)\n",
    );
    assert_eq!(talk.hear(), "ready");
    let id = bench.instance();
    let before = bench.counter("opened");
    for _ in 0..5 {
        bench.doctor(&["--instance", &id]).well();
    }
    assert!(bench.counter("opened") > before + 100, "nothing moved");
    talk.say("end");
    talk.end(&bench);
}

#[test]
fn each_link_that_is_detached_by_hand_is_named() {
    let w = World::new();
    let mut named: Vec<(&str, [&str; 3])> = Vec::new();
    for hooks in programs::CGROUP.chunks(3) {
        for hook in hooks {
            bpf::detach(&w.link(hook));
            named.push((
                "hooks",
                [hook, "is detached from clawker/", "detach --instance"],
            ));
        }
        let wanted: Vec<(&str, &[&str])> =
            named.iter().map(|(c, words)| (*c, &words[..])).collect();
        w.doctor().names(&wanted);
    }
    w.end();
}

#[test]
fn a_link_whose_pin_is_removed_is_named() {
    let w = World::new();
    fs::remove_file(w.link(programs::EGRESS)).unwrap();
    let check = w.doctor();
    check.names(&[(
        "hooks",
        &[
            "pin of link egress is gone",
            "nothing of ours runs",
            "run it again",
        ],
    )]);
    w.end();
}

#[test]
fn a_link_whose_pin_holds_another_is_named() {
    let w = World::new();
    fs::rename(w.link(programs::INGRESS), w.link(programs::EGRESS)).unwrap();
    let check = w.doctor();
    check.names(&[
        (
            "hooks",
            &["pin of link egress was replaced", "holds ingress"],
        ),
        (
            "hooks",
            &["pin of link ingress is gone", "runs on as long as"],
        ),
    ]);
    w.end();
}

#[test]
fn a_map_that_is_replaced_is_named() {
    let w = World::new();
    // One that programs use, and one that only `dump` reads, under a twin with the same contents.
    let map = |name: &str| w.pin("maps").join(name);
    fs::remove_file(map(maps::POLICY_NAMES)).unwrap();
    let other: Array<MapData, u32> = Array::create(1, 0).unwrap();
    other.pin(map(maps::POLICY_NAMES)).unwrap();
    let policy: (&str, &[&str]) = (
        "maps",
        &[
            "POLICY_NAMES was replaced",
            "the programs use map",
            "run it again",
        ],
    );
    w.doctor().names(&[policy]);

    const SIZE: usize = size_of::<abi::SlotInfo>();
    let from = MapData::from_pin(map(maps::SLOT_INFO)).unwrap();
    let old: Array<MapData, [u8; SIZE]> = aya::maps::Map::Array(from).try_into().unwrap();
    let mut twin: Array<MapData, [u8; SIZE]> = Array::create(old.len(), 0).unwrap();
    for i in 0..old.len() {
        twin.set(i, old.get(&i, 0).unwrap(), 0).unwrap();
    }
    fs::remove_file(map(maps::SLOT_INFO)).unwrap();
    twin.pin(map(maps::SLOT_INFO)).unwrap();
    let info: (&str, &[&str]) = ("maps", &["SLOT_INFO was replaced", "another load has made"]);
    w.doctor().names(&[policy, info]);
    w.end();
}

#[test]
fn an_iterator_whose_pin_is_removed_is_named() {
    let w = World::new();
    fs::remove_file(w.pin(programs::ITER_TCP)).unwrap();
    let check = w.doctor();
    check.names(&[
        ("iterators", &["iterator iter_tcp is gone", "No such file"]),
        ("accounting", &["live flows cannot be counted", "iter_tcp"]),
    ]);
    // The loader cannot end an instance well without its iterators, and may have given up by now.
    w.talk.signal(Signal::SIGKILL);
    w.talk.end(&w.bench);
}

#[test]
fn a_slot_that_is_zero_or_another_is_named() {
    let w = World::new();
    let pins = w.bench.pins_of(&w.id);
    let id = Cgroup::at(w.cgroup()).id().unwrap();
    let config = pins.config(id).unwrap().unwrap();
    let zero = abi::SlotConfig { slot: 0, ..config };
    pins.configure(id, &zero).unwrap();
    let check = w.doctor();
    check.names(&[("slot", &["slot of clawker/", "is zero", "run it again"])]);
    let other = abi::SlotConfig {
        slot: config.slot + 1,
        ..config
    };
    pins.configure(id, &other).unwrap();
    let check = w.doctor();
    let wanted = format!("but slot {} was enrolled", config.slot);
    check.names(&[("slot", &[&wanted])]);
    pins.configure(id, &config).unwrap();
    w.doctor().well();
    w.end();
}

#[test]
fn a_read_only_bpffs_is_named() {
    let w = World::new();
    let check = w.bench.doctor_where(
        "mount -o remount,bind,ro /sys/fs/bpf",
        &["--instance", &w.id],
    );
    check.names(&[(
        "bpffs",
        &[
            "/sys/fs/bpf is read-only",
            "mount -o remount,rw /sys/fs/bpf",
        ],
    )]);
    w.end();
}

#[test]
fn a_missing_cgroup_v2_is_named_and_the_hooks_are_not_called_well() {
    let w = World::new();
    let root = cgroup_root();
    let check = w.bench.doctor_where(
        &format!("umount {}", root.display()),
        &["--instance", &w.id],
    );
    check.names(&[
        (
            "cgroup",
            &["no cgroup v2 file system is mounted", "mount -t cgroup2"],
        ),
        ("hooks", &["cannot be checked", "no cgroup v2"]),
    ]);
    w.end();
}

#[test]
fn a_dead_loader_is_named_and_what_waits_is_counted() {
    let mut w = World::new();
    w.says("ok", " 0 waiting");
    w.talk.kill_loader();
    eventually("its lock to go", || {
        (!w.bench.dump(&[]).is_empty() && dead(&w)).then_some(())
    });
    for n in 1..=3 {
        assert_eq!(w.talk.go(), "ready");
        let waiting = format!("{n} flow{} waiting", if n == 1 { "" } else { "s" });
        let mend = format!("detach --instance {}", w.id);
        let check = w.doctor();
        check.names(&[(
            "loader",
            &["loader is dead; enforcement goes on", &waiting, &mend],
        )]);
        let hooks = check
            .of("ok")
            .iter()
            .any(|f| f.contains("13 of 13 hooks effective"));
        assert!(hooks, "{:#?}", check.findings);
    }
    w.talk.say("end");
    let over = w.says("problem", "nothing needs it");
    // The flow that was alive has ended with its socket.
    over.names(&[(
        "loader",
        &[
            "nothing needs it any more",
            "never recorded: 4 flows",
            "the next `run`",
        ],
    )]);
    w.talk.end(&w.bench);
}

fn dead(w: &World) -> bool {
    let all = Root::new(&w.bench.pins).list().unwrap();
    all.iter().any(|f| f.id == w.id && !f.alive)
}
