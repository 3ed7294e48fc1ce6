//! `serve`: the daemon beside the container engine. The work is the fleet's; here are the arguments, the
//! loop and its end.

mod notify;
mod proxies;
mod reload;
mod wait;

use super::{
    CommandError, color_on_stderr, kernel_is_new_enough, metrics::Metrics, need_root, otlp,
    ring_bytes, warn,
};
use crate::{
    cgroup,
    cli::{BRIDGE, OtlpArgs, ServeArgs},
    control::{self, Gate, Status},
    docker::{Engine, News, Watcher},
    export::Export,
    fleet::{self, Fleet, FleetError, Setup},
    instance::Root,
    policy_file::{self, PolicyFile},
    sink::{Format, Sink},
    telemetry::log,
};
use jiff::Timestamp;
use nix::unistd::Gid;
use proxies::{Offer, Proxies};
use reload::Reload;
use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    time::Duration,
};
use wait::{Event, Wait};
use wire::{BatchId, Outlet};

/// How long records may take to arrive when the loader is told to end. What does not is declared by the
/// next one.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) fn serve(root: &Root, control_dir: &Path, args: &ServeArgs) -> Result<u8, CommandError> {
    need_root("serve")?;
    kernel_is_new_enough()?;
    let ring_bytes = ring_bytes(args.ring_kib)?;
    let group = control::group(args.control_group.as_deref())?;
    let leases_group = args.leases_group.as_deref();
    let leases_group = leases_group.map(|g| control::group(Some(g))).transpose()?;
    let policy = args.policy.as_deref();
    let policy = policy.map(|p| policy_file::load(p, color_on_stderr()));
    let policy = policy.transpose()?;
    if let Some(file) = policy.as_ref().filter(|f| f.has_warnings()) {
        anstream::eprint!("{}", file.report(color_on_stderr()));
    }
    let format = if args.json {
        Format::Json
    } else {
        Format::Quiet
    };
    let mut sink = Sink::open(format, args.out.as_deref(), None)?;
    sink.export = export(args)?;
    let proxies = Proxies::new(&args.files)?;
    let reload = Reload::new(args.policy.as_deref(), policy.as_ref());
    // Before any thread, so that no other one gets the signals.
    let wait = Wait::new()?;
    make_room(&args.leases);
    root.prepare()?;
    let setup = Setup {
        sizes: crate::kernel::Sizes {
            ring_bytes,
            rate: args.rate,
            ..fleet::sizes(args.max_agents)
        },
        policy,
        mode: args.mode,
        linger: Duration::from_secs(args.linger),
        leases: Some(&args.leases),
        leases_group: leases_group.flatten().map(Gid::as_raw),
        control_dir,
        parents: &args.cgroup_parent,
        engine: Some(&args.engine),
        own: &args.own_network,
        lead: &args.lead,
    };
    let unsent = sink.export.as_ref().and_then(|e| e.log.as_ref());
    let unsent = unsent.map(Outlet::unsent);
    let fleet = Fleet::open(root, setup, &mut sink)?;
    let metrics = Metrics::new(fleet.id(), unsent);
    let watcher = Watcher::start(Engine {
        socket: args.engine.clone(),
        cgroup_root: cgroup::root()?,
        parents: args.cgroup_parent.clone(),
    })?;
    let mut daemon = Daemon {
        proxies,
        fleet,
        sink,
        wait,
        reload,
        watcher,
        metrics,
    };
    let server = daemon.open_control(control_dir, Gate { group }, args);
    notify::tell("READY=1");
    let ended = daemon.live();
    notify::tell("STOPPING=1");
    drop(server);
    daemon.close();
    ended.map(|()| 0)
}

/// The way of the records: to the bridge, unless they go into a file alone.
fn export(args: &ServeArgs) -> Result<Option<Export>, CommandError> {
    let to_bridge = args.otlp.otlp.is_none() && args.out.is_none();
    let url = args
        .otlp
        .otlp
        .clone()
        .or_else(|| to_bridge.then(|| BRIDGE.to_owned()));
    let args = OtlpArgs {
        otlp: url,
        ..args.otlp.clone()
    };
    let endpoint = otlp::endpoint(&args)?;
    Ok(endpoint.map(|e| {
        let mut export = Export::keeping(e, first_request());
        export.log = log::listen();
        export
    }))
}

/// The first request of a sender whose name no other process has, and none will have.
fn first_request() -> BatchId {
    // Sixteen random bytes, made by the kernel. Without them the time and our number are as good.
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid");
    let sender = random.map_or_else(
        |_| {
            format!(
                "{}-{}",
                Timestamp::now().as_nanosecond(),
                std::process::id()
            )
        },
        |id| id.trim().replace('-', ""),
    );
    BatchId { sender, number: 1 }
}

/// The directory of the leases, where it is missing. What is wrong with it is said when they are written.
fn make_room(leases: &Path) {
    if let Some(dir) = leases.parent() {
        let _ = DirBuilder::new().recursive(true).mode(0o755).create(dir);
    }
}

/// The fleet and what drives it.
struct Daemon {
    proxies: Option<Proxies>,
    fleet: Fleet,
    sink: Sink,
    wait: Wait,
    reload: Reload,
    watcher: Watcher,
    metrics: Metrics,
}

impl Daemon {
    /// Lets people watch. Without it the rest goes on as well.
    fn open_control(
        &mut self,
        dir: &Path,
        gate: Gate,
        args: &ServeArgs,
    ) -> Option<control::Server> {
        control::sweep(dir);
        let status = Status {
            instance: self.fleet.id().to_owned(),
            agent: None,
            project: None,
            command: "serve".to_owned(),
            policy_file: args
                .policy
                .as_deref()
                .map_or(String::new(), |p| p.display().to_string()),
            pid: std::process::id(),
            since: Timestamp::now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let started =
            control::prepare(dir).and_then(|()| control::Server::start(dir, gate, status));
        match started {
            Ok((server, tap, desk)) => {
                self.fleet.session.tap = tap;
                self.fleet.operators.open(desk);
                Some(server)
            }
            Err(e) => {
                warn(&format!("{e}; flows cannot be watched"));
                None
            }
        }
    }

    /// Until somebody ends it. What goes wrong on the way is said, and tried again in the next turn.
    fn live(&mut self) -> Result<(), CommandError> {
        loop {
            for news in self.watcher.news() {
                if let News::Away(why) = &news {
                    warn(&format!(
                        "the engine is away: {why}; what is enforced stays"
                    ));
                }
                self.fleet.hear(news, &mut self.sink);
            }
            let seen = self.fleet.turn(&mut self.sink);
            let seen = self.or_complain(seen).unwrap_or(0);
            if let Some(proxies) = &mut self.proxies {
                proxies.follow(&self.fleet);
            }
            if self.metrics.are_due() {
                self.tell_metrics();
            }
            let rings = self.fleet.session.rings();
            let orders = self.fleet.operators.fd();
            match self.wait.wait(seen > 0, rings, &self.watcher, orders)? {
                Event::Tick => {}
                Event::Reload => self.reload.now(),
                Event::End => return Ok(()),
            }
            if let Some(file) = self.reload.look(&mut self.sink) {
                self.offer(file);
            }
            let outcome = self.proxies.as_mut().and_then(Proxies::outcome);
            if let Some(outcome) = outcome {
                self.settle(outcome);
            }
        }
    }

    /// A new policy: the proxies get it first, where there are any.
    fn offer(&mut self, mut file: PolicyFile) {
        self.fleet.suit(&mut file);
        let Some(proxies) = &mut self.proxies else {
            return self.put(file);
        };
        let name = file.name.clone();
        match proxies.offer(file, &self.fleet) {
            Ok(()) => self.fleet.offered(&name, &mut self.sink),
            Err(e) => self.fleet.refuse(&name, &e.to_string(), &mut self.sink),
        }
    }

    fn settle(&mut self, offer: Offer) {
        match offer {
            Offer::Taken(file) => self.put(file),
            Offer::Silent(file, said) => {
                warn(&format!(
                    "{said}; the kernel takes the new policy without it"
                ));
                self.put(file);
            }
            Offer::Refused(file, said) => self.fleet.refuse(&file.name, &said, &mut self.sink),
        }
    }

    fn put(&mut self, file: PolicyFile) {
        let replaced = self.fleet.replace_policy(file, &mut self.sink);
        self.or_complain(replaced);
    }

    fn tell_metrics(&mut self) {
        if let Some(export) = &self.sink.export {
            let view = self.fleet.view();
            self.metrics.tell(self.fleet.sums(), view, export);
        }
    }

    fn or_complain<T>(&mut self, outcome: Result<T, FleetError>) -> Option<T> {
        outcome
            .map_err(|e| self.sink.complain_once(&e.to_string()))
            .ok()
    }

    /// Stops reading. Everything stays in force.
    fn close(mut self) {
        self.tell_metrics();
        if let Some(export) = &mut self.sink.export {
            let undelivered = export.finish(LIMIT);
            if undelivered.records() > 0 {
                warn(&undelivered.to_string());
            }
        }
        // What has been confirmed meanwhile.
        self.fleet.session.settle_debts(&mut self.sink);
        anstream::eprintln!(
            "{} agent(s) stay under their policy; `ebpf-manager dump` shows them",
            self.fleet.enrolled()
        );
    }
}
