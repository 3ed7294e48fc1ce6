//! A [`Stack`] before a [`crate::sink::Sink`], whose parts die and come back.

use crate::{
    engine::Engine,
    sink,
    stack::{self, Stack},
};
use kernel_tests::{collector::Collector, eventually, run::Bench};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
};

/// One of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Process {
    /// `ebpf-manager serve`.
    Loader,
    /// `otlp-bridge serve`.
    Bridge,
    /// Between the bridge and the sink.
    Collector,
}

/// A stack before a sink, with a small disk for its spool.
pub struct Chaos {
    /// What runs.
    pub stack: Stack,
    policy: PathBuf,
    more: Vec<String>,
}

/// What somebody else has put on the disk of the spool. It goes with this.
pub struct Filled(PathBuf);

impl Drop for Filled {
    fn drop(&mut self) {
        // The disk may be gone.
        let _ = fs::remove_file(&self.0);
    }
}

impl Chaos {
    /// Starts everything but the sink. The thread must be in the engine's namespaces.
    #[must_use]
    pub fn start(engine: &Engine, policy: &str, more: &[&str]) -> Self {
        let bench = Bench::without_network();
        let spool = stack::spool(&bench);
        fs::create_dir_all(&spool).expect("a directory");
        let none = None::<&str>;
        mount(
            none,
            &spool,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=24m"),
        )
        .expect("a disk");
        let collector = Collector::handing_on(&bench, &format!("http://{}", sink::AT));
        let policy = bench.policy(policy);
        let bridge = stack::start_bridge(&bench);
        let loader = stack::start_loader(&bench, &engine.socket(), &policy, more);
        let stack = Stack {
            bench,
            collector,
            bridge,
            loader,
        };
        stack.is_up();
        Self {
            stack,
            policy,
            more: more.iter().map(|s| (*s).to_owned()).collect(),
        }
    }

    /// Kills one of them as nothing can prevent.
    pub fn kill(&mut self, process: Process) {
        match process {
            Process::Loader => self.stack.loader.kill_loader(),
            Process::Bridge => self.stack.bridge.kill_loader(),
            Process::Collector => self.stack.collector.kill(),
        }
    }

    /// Starts it again.
    pub fn revive(&mut self, process: Process, engine: &Engine) {
        let bench = &self.stack.bench;
        match process {
            Process::Loader => {
                let more: Vec<&str> = self.more.iter().map(String::as_str).collect();
                self.stack.loader =
                    stack::start_loader(bench, &engine.socket(), &self.policy, &more);
            }
            Process::Bridge => self.stack.bridge = stack::start_bridge(bench),
            Process::Collector => {
                let to = format!("http://{}", sink::AT);
                self.stack.collector = Collector::handing_on(bench, &to);
            }
        }
    }

    /// Fills the disk of the spool to the last byte.
    #[must_use]
    pub fn fill_disk(&self) -> Filled {
        let path = stack::spool(&self.stack.bench).join("somebody-elses");
        let mut file = File::create(&path).expect("a file");
        let block = vec![0; 1 << 16];
        eventually("the disk to be full", || {
            file.write_all(&block).is_err().then_some(())
        });
        Filled(path)
    }

    /// Ends what runs, and what would stay by design.
    #[track_caller]
    pub fn end(self) {
        let spool = stack::spool(&self.stack.bench);
        self.stack.end();
        umount2(&spool, MntFlags::MNT_DETACH).expect("it is mounted");
    }
}
