//! The real bridge, and the leases that it stamps by.

use crate::{
    collector::{BRIDGE, STACK},
    program::{self, Program},
};
use kernel_tests::{eventually, run::built};
use lease::{BootId, BootTime, Hold, Lease, Leases, Publisher, Reading, WallTime};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

/// How often the loader publishes leases, or more often.
const PACE: Duration = Duration::from_millis(200);

/// A bridge between the collector's intake and the collector. It ends with this.
pub struct Bridge {
    program: Program,
    dir: PathBuf,
    _leases: Published,
}

/// Whose an address is.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// The agent.
    pub agent: &'static str,
    /// Its project.
    pub project: &'static str,
    /// Its address, for an hour already.
    pub ip: &'static str,
}

impl Holder {
    /// The container, which has a name made of the agent's.
    #[must_use]
    pub fn container(&self) -> String {
        format!("container-of-{}", self.agent)
    }
}

fn binary() -> PathBuf {
    built("otlp-bridge", "-p otlp-bridge")
}

impl Bridge {
    /// Starts it with its spool, its socket and its leases below a directory, and waits until it is well.
    #[must_use]
    pub fn start(dir: &Path, holders: &[Holder]) -> Self {
        let mut bridge = Self {
            program: Program::new("the bridge", dir.join("bridge.log")),
            dir: dir.to_owned(),
            _leases: Published::start(dir.join("leases.json"), holders),
        };
        bridge.restart();
        bridge
    }

    /// The loader's entrance.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("bridge.sock")
    }

    /// Starts it again.
    #[track_caller]
    pub fn restart(&mut self) {
        let mut command = program::command(binary());
        command.args(["serve", "--listen", BRIDGE]);
        command.args(["--to", &format!("http://{STACK}:4319/v1/logs")]);
        command.args(["--metrics-to", &format!("http://{STACK}:4319/v1/metrics")]);
        command.arg("--spool").arg(self.dir.join("spool"));
        command.arg("--socket").arg(self.socket());
        command.arg("--leases").arg(self.dir.join("leases.json"));
        self.program.start(command);
        eventually("the bridge to be healthy", || {
            self.program.must_run();
            let mut c = Command::new(binary());
            let out = c
                .arg("check-health")
                .arg("--socket")
                .arg(self.socket())
                .output();
            out.expect("it runs").status.success().then_some(())
        });
    }

    /// What it says about itself.
    #[must_use]
    pub fn status(&self) -> Value {
        let mut command = Command::new(binary());
        command
            .args(["status", "--json", "--socket"])
            .arg(self.socket());
        command.arg("--spool").arg(self.dir.join("spool"));
        let out = command.output().expect("it runs");
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        serde_json::from_slice(&out.stdout).expect("one JSON object")
    }

    /// A number of a data stream in its status; 0 for a stream that it does not know.
    #[must_use]
    pub fn stream(&self, name: &str, number: &str) -> u64 {
        let status = self.status();
        let streams = status["streams"].as_array().expect("streams");
        let found = streams.iter().find(|s| s["stream"] == name);
        found.map_or(0, |s| s[number].as_u64().expect("a number"))
    }

    /// File of what it keeps.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.dir.join("spool/spool.redb")
    }

    /// What it has said.
    #[must_use]
    pub fn said(&self) -> String {
        self.program.said()
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        self.program.kill();
    }
}

/// Models the loader as far as its leases are concerned: it publishes them again and again.
struct Published {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Published {
    fn start(path: PathBuf, holders: &[Holder]) -> Self {
        let mut leases = leases(holders);
        let mut publisher = Publisher::open(&path, None).expect("a place for leases");
        let mut publish = move || {
            leases.complete_until(now());
            publisher.publish(&leases).expect("leases are published");
        };
        // The first ones are there before anybody looks.
        publish();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
                publish();
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed.
            let _ = thread.join();
        }
    }
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("a clock");
    u64::try_from(time.tv_sec() * 1_000_000_000 + time.tv_nsec()).expect("after 1970")
}

fn now() -> BootTime {
    BootTime(nanos(ClockId::CLOCK_BOOTTIME))
}

fn leases(holders: &[Holder]) -> Leases {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
    let mut book = Leases::new(BootId::parse(&boot).expect("a boot id"));
    // A machine that is younger than an hour had them since its boot.
    let since = BootTime(now().0.saturating_sub(3_600_000_000_000));
    book.observe(Reading {
        before: since,
        wall: WallTime(nanos(ClockId::CLOCK_REALTIME) - (now().0 - since.0)),
        after: since,
    });
    for holder in holders {
        book.open(Lease {
            agent: Some(holder.agent.to_owned()),
            project: Some(holder.project.to_owned()),
            container_id: holder.container(),
            name: holder.agent.to_owned(),
            slot: None,
            cgroup_id: None,
            netns: None,
            since,
            until: None,
            ips: vec![Hold {
                ip: holder.ip.parse().expect("an address"),
                since,
                until: None,
            }],
        })
        .expect("a lease");
    }
    book
}
