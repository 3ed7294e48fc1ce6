//! The house of a run: cgroup, programs, pins and reader, built, lived in and taken down.

use super::{
    super::{CommandError, alarm, warn},
    reload::Reload,
    telemetry::Telemetry,
    terminal::{self, Event, Watch},
};
use crate::{
    cgroup::{self, Cgroup},
    cli::RunArgs,
    contain::{self, Plan},
    control::{self, Gate},
    enrol::{self, Identity, Way},
    instance::{self, Instance, Root},
    kernel::{Engine, Sizes},
    operators::Operators,
    record::Owner,
    render::summary::{Losses, Summary},
    resolvers::Place,
    session::{self, Session},
    sink::Sink,
};
use ::policy::Compiled;
use abi::close;
use std::{
    fs,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};
use wire::{Outlet, log_layer::SECURITY};

/// The one slot of a run.
const INDEX: u32 = 1;
/// Name of its one attachment, under `links`.
const ATTACHMENT: &str = "1";

/// Everything that must be taken down again.
pub(super) struct House {
    instance: Instance,
    cgroup: Cgroup,
    session: Session,
    reload: Reload,
    operators: Operators,
    /// Keeps the programs; the pinned links keep them after us.
    _engine: Engine,
    identity: Identity,
    slot: u32,
    control: Option<control::Server>,
    /// Once there is somebody to tell.
    telemetry: Option<Telemetry>,
}

impl House {
    pub(super) fn build(
        root: &Root,
        args: &RunArgs,
        sizes: Sizes,
        (compiled, resolvers): (&Compiled, &[IpAddr]),
        reload: Reload,
        control_dir: &Path,
    ) -> Result<Self, CommandError> {
        let mount = cgroup::root()?;
        let ours = mount.join(cgroup::OURS);
        // Process ids come round: what a loader with this one has left behind may live on there.
        let left = |id: &str| {
            let path = ours.join(id);
            path.exists() && fs::remove_dir(path).is_err()
        };
        let instance = root.create(super::KIND, left)?;
        let operators = Operators::of_new(&instance.id, control_dir);
        let below = format!("{}/{}", cgroup::OURS, instance.id);
        let cgroup = Cgroup::at(mount.join(&below));
        // From here on everything made is taken down again by `undo` on failure.
        let made = Self::furnish(
            root,
            args,
            sizes,
            (compiled, resolvers),
            &instance,
            &below,
            &cgroup,
        );
        match made {
            Ok((engine, session, identity, slot)) => Ok(Self {
                instance,
                cgroup,
                session,
                reload,
                operators,
                _engine: engine,
                slot,
                identity,
                control: None,
                telemetry: None,
            }),
            Err(e) => {
                undo(&instance, &cgroup);
                Err(e)
            }
        }
    }

    fn furnish(
        root: &Root,
        args: &RunArgs,
        sizes: Sizes,
        (compiled, resolvers): (&Compiled, &[IpAddr]),
        instance: &Instance,
        below: &str,
        cgroup: &Cgroup,
    ) -> Result<(Engine, Session, Identity, u32), CommandError> {
        Cgroup::create(cgroup.path())?;
        let mut engine = Engine::load(instance.pins.dir(), sizes)?;
        engine.attach(&cgroup.open()?, ATTACHMENT)?;
        instance.pins.policy()?.write(compiled)?;
        let slot = root.draw_slot()?;
        let identity = Identity {
            agent: args.agent.clone(),
            project: args.project.clone(),
            command: args
                .command
                .iter()
                .map(|a| a.to_string_lossy())
                .collect::<Vec<_>>()
                .join(" "),
            policy_file: args
                .policy
                .as_deref()
                .map(|p| p.display().to_string())
                .unwrap_or_default(),
            cgroup: below.to_owned(),
            cgroup_id: cgroup.id()?,
            ..Identity::default()
        };
        let config = enrol::config(
            (slot, INDEX),
            super::FIRST_POLICY,
            compiled,
            resolvers,
            Place::Host,
        );
        let config = Way::to(&args.lead, |_| true).lead(config);
        engine.enrol(&identity.info(slot, session::boot_now()), &config)?;
        let mut session = Session::new(engine.rings()?, &instance.pins);
        let owner = Owner {
            agent: args.agent.clone(),
            project: args.project.clone(),
            ..Owner::default()
        };
        session.admit(slot, INDEX, owner);
        Ok((engine, session, identity, slot))
    }

    /// Starts the command, shows its flows, and waits until it and its connections are done.
    pub(super) fn live(
        &mut self,
        plan: &Plan,
        control: Option<(&Path, Gate)>,
        sink: &mut Sink,
        summary: &mut Summary,
        linger: Duration,
    ) -> Result<u8, CommandError> {
        // Before the command exists, so that none of its signals is lost.
        let mut watch = Watch::new()?;
        let child = contain::start(plan, &self.cgroup.open()?)?;
        watch.child(child);
        // Not before the command exists: a new process is made while there is one thread.
        if let Some((dir, gate)) = control {
            self.open_control(dir, gate);
        }
        self.start_export(sink);
        let code = loop {
            let seen = self.session.pump(sink, Some(summary))?;
            self.session.clean(&self.instance.pins)?;
            self.follow_policy(sink);
            self.hear_operators(sink)?;
            self.idle_flush(&mut watch, sink)?;
            self.tell(sink);
            let waits = watch.wait(seen > 0, self.session.rings(), self.operators.fd());
            if let Event::Exited(code) = waits? {
                break code;
            }
        };
        self.outlast(&mut watch, sink, summary, linger)?;
        Ok(code)
    }

    /// Starts to send records, and to say how that goes.
    fn start_export(&mut self, sink: &mut Sink) {
        let Some(export) = &mut sink.export else {
            return;
        };
        self.telemetry = Some(Telemetry::new(
            &self.instance.id,
            self.instance.pins.dir().join("links").join(ATTACHMENT),
            self.identity.cgroup_id,
            export.log.as_ref().map(Outlet::unsent),
        ));
        export.start(&self.instance.id);
    }

    fn tell(&mut self, sink: &Sink) {
        if let (Some(telemetry), Some(export)) = (&mut self.telemetry, &sink.export) {
            telemetry.tick(&self.session, &self.cgroup, export);
        }
    }

    /// Lets people watch. Without it the run goes on as well.
    fn open_control(&mut self, dir: &Path, gate: Gate) {
        let status = self.identity.status(&self.instance.id);
        match control::Server::start(dir, gate, status) {
            Ok((server, tap, desk)) => {
                self.session.tap = tap;
                self.operators.open(desk);
                self.control = Some(server);
            }
            Err(e) => alarm(&format!("{e}; this run cannot be watched")),
        }
    }

    /// Reading the iterators ends datagram flows that have been idle; once a second is often enough.
    /// Connections that were cut are ended for the command too, which would wait for nothing.
    fn idle_flush(&mut self, watch: &mut Watch, sink: &mut Sink) -> Result<(), CommandError> {
        if watch.second_passed() {
            let sockets = self.session.live(&self.instance.pins)?;
            // Where the kernel cannot, they time out; nothing of them passes either way.
            let _ = self.instance.pins.destroy(&sockets.cut);
            let policy = self.reload.notice(&self.instance.pins, INDEX, sink)?;
            self.session.remember_rules(policy);
        }
        Ok(())
    }

    /// Puts the command under a policy file that has changed.
    fn follow_policy(&mut self, sink: &mut Sink) {
        if let Some(policy) = self.reload.look(&self.instance.pins, INDEX, sink) {
            self.session.remember_rules(policy);
        }
    }

    /// Lifts enforcement, or puts it back, where somebody has asked for it.
    fn hear_operators(&mut self, sink: &mut Sink) -> Result<(), CommandError> {
        let tap = &mut self.session.tap;
        Ok(self.operators.turn(&self.instance.pins, sink, tap)?)
    }

    /// Ends the command's background processes and waits for connections that still carry data.
    fn outlast(
        &mut self,
        watch: &mut Watch,
        sink: &mut Sink,
        summary: &mut Summary,
        linger: Duration,
    ) -> Result<(), CommandError> {
        if self.cgroup.populated()? {
            self.cgroup.kill()?;
        }
        let began = Instant::now();
        let mut told = false;
        loop {
            self.session.pump(sink, Some(summary))?;
            self.follow_policy(sink);
            self.hear_operators(sink)?;
            self.tell(sink);
            let live = self.session.live(&self.instance.pins)?.live.len();
            let waited = began.elapsed();
            if (live == 0 && !self.cgroup.populated()?) || waited >= linger {
                return Ok(());
            }
            if !told && waited > Duration::from_secs(2) {
                told = true;
                anstream::eprintln!(
                    "waiting up to {} s for {live} connection(s) that outlive the command; ^C ends them",
                    linger.as_secs()
                );
            }
            if matches!(
                watch.wait(true, self.session.rings(), self.operators.fd())?,
                Event::Interrupted
            ) {
                return Ok(());
            }
        }
    }

    /// Ends what is left, takes everything down and reads the last records. `ran`: the command ran.
    pub(super) fn close(
        mut self,
        sink: &mut Sink,
        summary: &mut Summary,
        ran: bool,
    ) -> Result<Losses, CommandError> {
        if !ran {
            // Whatever was started must not go on without its reader.
            let _ = self.cgroup.kill();
        }
        self.reload.notice(&self.instance.pins, INDEX, sink)?;
        self.operators.close(&self.instance.pins, sink);
        self.session.end_flows(self.slot, close::CONTAINER_EXIT)?;
        self.session.pump(sink, Some(summary))?;
        let free = instance::let_go(&self.instance.pins, std::slice::from_ref(&self.cgroup));
        if free.is_ok() {
            instance::remove_pins(&self.instance.pins.dir().join("links"))?;
            self.session.settle()?;
            // Flows that began in between, on sockets that outlive the command.
            self.session.end_flows(self.slot, close::CONTAINER_EXIT)?;
            while self.session.pump(sink, Some(summary))? > 0 {}
        }
        drop(self.control.take());
        if self.session.malformed > 0 {
            alarm(&format!(
                "{} entries of the rings were no records",
                self.session.malformed
            ));
        }
        let losses = Losses {
            lost: self.session.lost(self.slot),
            unwritten: sink.unwritten,
            undelivered: 0,
        };
        if losses.lost > 0 {
            // People are told when everything is over; nothing more is sent by then.
            tracing::error!(target: SECURITY, "{} flows are in no record", losses.lost);
        }
        if let (Some(telemetry), Some(export)) = (&mut self.telemetry, &sink.export) {
            telemetry.last(&self.session, losses.lost, export);
        }
        match free {
            Ok(()) => undo(&self.instance, &self.cgroup),
            Err(e) => warn(&format!(
                "{e}; the next run removes it when they are gone, as does `ebpf-manager detach --instance {}`",
                self.instance.id
            )),
        }
        Ok(losses)
    }
}

/// Takes down as much as can be; what resists is told and left to `detach`.
fn undo(instance: &Instance, cgroup: &Cgroup) {
    let removed = instance::remove_pins(instance.pins.dir()).map_err(|e| e.to_string());
    let removed = removed.and_then(|()| {
        wait_empty(cgroup).and_then(|()| cgroup.remove().map_err(|e| e.to_string()))
    });
    if let Err(e) = removed {
        warn(&format!(
            "{e}; `ebpf-manager detach --instance {}` removes it",
            instance.id
        ));
    }
}

/// A killed process leaves its cgroup a moment after it was reaped.
fn wait_empty(cgroup: &Cgroup) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while cgroup.populated().map_err(|e| e.to_string())? && Instant::now() < deadline {
        terminal::pause(Duration::from_millis(5));
    }
    Ok(())
}
