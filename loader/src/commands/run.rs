//! `run`: one command in its own cgroup, from its first instruction to the end of its last flow.

mod terminal;

use super::{CommandError, FAILED, color_on_stderr, compile, detach, need_root, warn};
use crate::{
    cgroup::{self, Cgroup},
    cli::RunArgs,
    contain::{self, Plan, WITHHELD},
    enrol::{self, Identity},
    instance::{self, Instance, Root},
    kernel::{Engine, Sizes},
    policy_file::{self, PolicyFile},
    render::summary::{Losses, Summary},
    resolvers,
    session::{self, Session},
    sink::{Format, Sink},
    user::{self, Target},
};
use ::policy::{Compiled, Policy};
use abi::close;
use caps::Capability;
use std::{
    net::IpAddr,
    str::FromStr as _,
    time::{Duration, Instant},
};
use terminal::{Event, Watch};

/// Directory of our cgroups below the mount.
const CGROUP_DIR: &str = "clawker";
/// The one slot of a run.
const INDEX: u32 = 1;
/// The first policy of an instance.
const FIRST_POLICY: u32 = 1;

pub(super) fn run(root: &Root, args: &RunArgs) -> Result<u8, CommandError> {
    need_root("run")?;
    kernel_is_new_enough()?;
    let sizes = sizes(args)?;
    let cap_add = capabilities(&args.cap_add)?;
    let user = user::target(args.user.as_deref())?;
    let file = args
        .policy
        .as_deref()
        .map(|p| policy_file::load(p, color_on_stderr()))
        .transpose()?;
    let (compiled, resolvers) = rules(args, file.as_ref())?;
    let mut sink = Sink::open(format(args), args.out.as_deref(), owner(user.as_ref()))?;
    root.prepare()?;
    sweep(root)?;
    notes(args, file.as_ref(), &compiled, user.as_ref());
    let mut house = House::build(root, args, sizes, &compiled, &resolvers)?;
    let plan = Plan {
        command: args.command.clone(),
        user,
        cap_add,
        keep_fds: args.keep_fds,
    };
    let mut summary = Summary::default();
    let began = Instant::now();
    let outcome = house.live(
        &plan,
        &mut sink,
        &mut summary,
        Duration::from_secs(args.linger),
    );
    let losses = house.close(&mut sink, &mut summary, outcome.is_ok())?;
    let code = outcome?;
    if !args.quiet && !args.json {
        let name = file.as_ref().map(|f| f.name.as_str());
        anstream::eprint!("\n{}", summary.render(began.elapsed(), losses, name));
    }
    let incomplete = losses.lost + losses.unwritten > 0;
    if incomplete {
        warn(&format!(
            "{} flows are in no record, {} records were not written",
            losses.lost, losses.unwritten
        ));
    }
    Ok(if code == 0 && incomplete {
        FAILED
    } else {
        code
    })
}

fn kernel_is_new_enough() -> Result<(), CommandError> {
    const NEEDED: &str = "5.17";
    let release = nix::sys::utsname::uname().map_or(String::new(), |u| {
        u.release().to_string_lossy().into_owned()
    });
    let mut numbers = release
        .split(['.', '-'])
        .map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 17) {
        return Err(CommandError::OldKernel {
            found: release,
            needed: NEEDED,
        });
    }
    Ok(())
}

fn sizes(args: &RunArgs) -> Result<Sizes, CommandError> {
    let kib = args.ring_kib;
    if !kib.is_power_of_two() || !(4..=1 << 20).contains(&kib) {
        return Err(CommandError::RingSize(kib));
    }
    Ok(Sizes {
        ring_bytes: kib.saturating_mul(1024),
        rate: args.rate,
        ..Sizes::default()
    })
}

fn capabilities(given: &[String]) -> Result<Vec<Capability>, CommandError> {
    given
        .iter()
        .map(|name| {
            let upper = name.to_uppercase();
            let full = if upper.starts_with("CAP_") {
                upper
            } else {
                format!("CAP_{upper}")
            };
            let known = Capability::from_str(&full)
                .ok()
                .filter(|c| WITHHELD.contains(c));
            known.ok_or_else(|| CommandError::Capability {
                given: name.clone(),
                withheld: WITHHELD
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            })
        })
        .collect()
}

/// The compiled policy and the addresses of its resolvers.
fn rules(
    args: &RunArgs,
    file: Option<&PolicyFile>,
) -> Result<(Compiled, Vec<IpAddr>), CommandError> {
    let observe = Policy::observe();
    let (name, policy) = file.map_or(("", &observe), |f| (f.name.as_str(), &f.policy));
    let selected = policy.select(args.agent.as_deref(), args.project.as_deref());
    let compiled = compile(name, &selected, FIRST_POLICY, args.mode)?;
    let resolvers = resolvers::resolve(&compiled.resolvers)?;
    Ok((compiled, resolvers))
}

fn format(args: &RunArgs) -> Format {
    match (args.quiet, args.json && args.out.is_none()) {
        (true, _) => Format::Quiet,
        (_, true) => Format::Json,
        _ if args.json => Format::Quiet,
        _ => Format::Table,
    }
}

fn owner(user: Option<&Target>) -> Option<(u32, u32)> {
    user.map(|u| (u.uid.as_raw(), u.gid.as_raw()))
}

/// Removes what earlier loaders left when they died, where nothing needs it any more.
fn sweep(root: &Root) -> Result<(), CommandError> {
    for found in root.list()?.iter().filter(|f| !f.alive && f.is_over()) {
        let unreported = detach::unreported(found);
        found.remove()?;
        anstream::eprintln!("cleaned up {}, whose loader had died{unreported}", found.id);
    }
    Ok(())
}

/// One line for each thing the user should know before the command starts.
fn notes(args: &RunArgs, file: Option<&PolicyFile>, compiled: &Compiled, user: Option<&Target>) {
    if let Some(f) = file
        && f.has_warnings()
    {
        anstream::eprint!("{}", f.report(color_on_stderr()));
    }
    if !args.quiet && !args.json {
        match (file, compiled.mode) {
            (None, _) => {
                anstream::eprintln!("observing only: no policy (give one with --policy FILE)");
            }
            (Some(f), abi::MODE_OBSERVE) => {
                anstream::eprintln!("observing only: {} is not enforced", f.name);
            }
            (Some(f), abi::MODE_AUDIT) => anstream::eprintln!(
                "auditing: {} denies nothing, it marks what it would deny",
                f.name
            ),
            _ => {}
        }
    }
    for cap in &args.cap_add {
        warn(&format!(
            "--cap-add {cap}: with it the command may be able to lift the firewall"
        ));
    }
    if let Some(door) = terminal::door(user) {
        warn(&format!(
            "the command can reach {door}: what it has started there is outside the firewall"
        ));
    }
    if let Some(service) = resolvers::unseen_lookups() {
        warn(&format!(
            "lookups through {service} are not seen: rules for names may not hold, flows show addresses"
        ));
    }
}

/// Everything that must be taken down again.
struct House {
    instance: Instance,
    cgroup: Cgroup,
    session: Session,
    /// Keeps the programs; the pinned links keep them after us.
    _engine: Engine,
}

impl House {
    fn build(
        root: &Root,
        args: &RunArgs,
        sizes: Sizes,
        compiled: &Compiled,
        resolvers: &[IpAddr],
    ) -> Result<Self, CommandError> {
        let mount = cgroup::root()?;
        let instance = root.create("run")?;
        let below = format!("{CGROUP_DIR}/{}", instance.id);
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
            Ok((engine, session)) => Ok(Self {
                instance,
                cgroup,
                session,
                _engine: engine,
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
    ) -> Result<(Engine, Session), CommandError> {
        Cgroup::create(cgroup.path())?;
        let mut engine = Engine::load(instance.pins.dir(), sizes)?;
        engine.attach(&cgroup.open()?, "1")?;
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
        };
        let config = enrol::config(slot, INDEX, FIRST_POLICY, compiled, resolvers);
        engine.enrol(&identity.info(slot, session::boot_now()), &config)?;
        let context = session::context(args.agent.clone(), args.project.clone());
        let session = Session::new(engine.rings()?, &instance.pins, context, slot, INDEX);
        Ok((engine, session))
    }

    /// Starts the command, shows its flows, and waits until it and its connections are done.
    fn live(
        &mut self,
        plan: &Plan,
        sink: &mut Sink,
        summary: &mut Summary,
        linger: Duration,
    ) -> Result<u8, CommandError> {
        // Before the command exists, so that none of its signals is lost.
        let mut watch = Watch::new()?;
        let child = contain::start(plan, &self.cgroup.open()?)?;
        watch.child(child);
        let code = loop {
            let seen = self.session.pump(sink, summary)?;
            self.session.clean(&self.instance.pins)?;
            self.idle_flush(&mut watch)?;
            if let Event::Exited(code) = watch.wait(seen > 0, self.session.rings())? {
                break code;
            }
        };
        self.outlast(&mut watch, sink, summary, linger)?;
        Ok(code)
    }

    /// Reading the iterators ends datagram flows that have been idle; once a second is often enough.
    fn idle_flush(&self, watch: &mut Watch) -> Result<(), CommandError> {
        if watch.second_passed() {
            self.session.live(&self.instance.pins)?;
        }
        Ok(())
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
            self.session.pump(sink, summary)?;
            let live = self.session.live(&self.instance.pins)?;
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
            if matches!(watch.wait(true, self.session.rings())?, Event::Interrupted) {
                return Ok(());
            }
        }
    }

    /// Ends what is left, takes everything down and reads the last records. `ran`: the command ran.
    fn close(
        mut self,
        sink: &mut Sink,
        summary: &mut Summary,
        ran: bool,
    ) -> Result<Losses, CommandError> {
        if !ran {
            // Whatever was started must not go on without its reader.
            let _ = self.cgroup.kill();
        }
        self.session.end_flows(close::CONTAINER_EXIT)?;
        self.session.pump(sink, summary)?;
        instance::remove_pins(&self.instance.pins.dir().join("links"))?;
        self.session.pump(sink, summary)?;
        if self.session.malformed > 0 {
            warn(&format!(
                "{} entries of the rings were no records",
                self.session.malformed
            ));
        }
        let losses = Losses {
            lost: self.session.lost(),
            unwritten: sink.unwritten,
        };
        undo(&self.instance, &self.cgroup);
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
