//! `run`: one command in its own cgroup, from its first instruction to the end of its last flow.

mod house;
mod learn;
mod reload;
mod telemetry;
mod terminal;

pub use learn::LearningError;
pub use reload::ReloadError;

use super::{
    CommandError, FAILED, alarm, color_on_stderr, detach, kernel_is_new_enough, need_root, otlp,
    report, ring_bytes, warn,
};
use crate::{
    cgroup::{self, Delegation},
    cli::RunArgs,
    contain::{Plan, WITHHELD},
    control::{self, Gate},
    enrol::Leads,
    instance::{Found, InstanceError, Root},
    kernel::Sizes,
    policy_file::{self, PolicyFile},
    render::summary::{Losses, Summary},
    resolvers::{self, Place},
    sink::{Format, Sink},
    user::{self, Target},
};
use ::policy::{Compiled, Policy};
use caps::Capability;
use house::House;
use learn::Learning;
use nix::unistd::Gid;
use reload::Reload;
use std::{
    net::IpAddr,
    path::Path,
    str::FromStr as _,
    time::{Duration, Instant},
};

/// The first policy of an instance.
const FIRST_POLICY: u32 = 1;
/// How the names of its instances begin.
const KIND: &str = "run";

pub(super) fn run(root: &Root, control_dir: &Path, args: &RunArgs) -> Result<u8, CommandError> {
    need_root("run")?;
    kernel_is_new_enough()?;
    let sizes = sizes(args)?;
    let cap_add = capabilities(&args.cap_add)?;
    let user = user::target(args.user.as_deref())?;
    let group = control::group(args.control_group.as_deref())?;
    let file = args
        .policy
        .as_deref()
        .map(|p| policy_file::load(p, color_on_stderr()))
        .transpose()?;
    let (compiled, resolvers) = rules(args, file.as_ref())?;
    let cap_add = raw_where_it_passes(cap_add, &compiled);
    let learning = Learning::open(args, file.as_ref(), (&compiled, &resolvers))?;
    let export = otlp::export(&args.otlp)?;
    let mut sink = Sink::open(format(args), args.out.as_deref(), owner(user.as_ref()))?;
    sink.export = export;
    let learning = learning.map(|(learning, learner)| {
        sink.learner = Some(learner);
        learning
    });
    root.prepare()?;
    borders(args)?;
    sweep(root)?;
    let control = control_at(control_dir, group);
    notes(args, file.as_ref(), &compiled, user.as_ref());
    let reload = Reload::new(args, file.as_ref(), &compiled, user.as_ref())?;
    let mut house = House::build(
        root,
        args,
        sizes,
        (&compiled, &resolvers),
        reload,
        control_dir,
    )?;
    let plan = Plan {
        command: args.command.clone(),
        user,
        cap_add,
        keep_fds: args.keep_fds,
        hidden: control_dir.to_owned(),
    };
    let mut summary = Summary::default();
    let began = Instant::now();
    let outcome = house.live(
        &plan,
        control,
        &mut sink,
        &mut summary,
        Duration::from_secs(args.linger),
    );
    let closed = house.close(&mut sink, &mut summary, outcome.is_ok());
    let undelivered = otlp::finish(&mut sink);
    let losses = Losses {
        undelivered,
        ..closed?
    };
    let code = outcome?;
    if !args.quiet && !args.json {
        let name = file.as_ref().map(|f| f.name.as_str());
        anstream::eprint!("\n{}", summary.render(began.elapsed(), losses, name));
    }
    if losses.lost + losses.unwritten > 0 {
        warn(&format!(
            "{} flows are in no record, {} records were not written",
            losses.lost, losses.unwritten
        ));
    }
    let mut failed = losses.lost + losses.unwritten + losses.undelivered > 0;
    if let Some((learning, learner)) = learning.zip(sink.learner)
        && let Err(e) = learning.finish(learner)
    {
        report(&e);
        failed = true;
    }
    Ok(if code == 0 && failed { FAILED } else { code })
}

fn sizes(args: &RunArgs) -> Result<Sizes, CommandError> {
    Ok(Sizes {
        ring_bytes: ring_bytes(args.ring_kib)?,
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

/// Raw sockets are refused only where a policy is enforced; elsewhere the capability for them stays.
fn raw_where_it_passes(mut cap_add: Vec<Capability>, compiled: &Compiled) -> Vec<Capability> {
    if compiled.mode != abi::MODE_ENFORCE {
        cap_add.push(Capability::CAP_NET_RAW);
    }
    cap_add
}

/// The compiled policy and the addresses of its resolvers.
fn rules(
    args: &RunArgs,
    file: Option<&PolicyFile>,
) -> Result<(Compiled, Vec<IpAddr>), CommandError> {
    let observe = Policy::observe();
    let (name, policy) = file.map_or(("", &observe), |f| (f.name.as_str(), &f.policy));
    let who = (args.agent.as_deref(), args.project.as_deref());
    super::rules(
        name,
        policy,
        who,
        (FIRST_POLICY, Place::Host),
        args.mode,
        Leads::of(&args.lead),
    )
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
    // Instances of another kind have loaders of their own, which come back for them.
    let ours = |f: &&Found| f.id.starts_with(KIND) && !f.alive && f.is_over();
    for found in root.list()?.iter().filter(ours) {
        let unreported = match detach::take_down(found, false) {
            // It goes when its connections are gone.
            Err(CommandError::Instance(InstanceError::Resists(_))) => continue,
            told => told?,
        };
        anstream::eprintln!("cleaned up {}, whose loader had died{unreported}", found.id);
    }
    Ok(())
}

/// Where to serve whoever watches, and whom; nowhere if that is not possible, which the command does not
/// suffer from.
fn control_at(dir: &Path, group: Option<Gid>) -> Option<(&Path, Gate)> {
    control::sweep(dir);
    match control::prepare(dir) {
        Ok(()) => Some((dir, Gate { group })),
        Err(e) => {
            alarm(&format!("{e}; this run cannot be watched"));
            None
        }
    }
}

/// Sees to it that cgroup namespaces are borders, or says that they are not.
fn borders(args: &RunArgs) -> Result<(), CommandError> {
    match cgroup::delegate()? {
        Delegation::TurnedOn(at) if !args.quiet && !args.json => anstream::eprintln!(
            "turned on nsdelegate on {}: without it a command run as root could leave its cgroup",
            at.display()
        ),
        Delegation::Off(at, e) => alarm(&format!(
            "{} is mounted without nsdelegate, and that cannot be changed from here ({e}): a command run as root may leave its cgroup through other processes' view of it",
            at.display()
        )),
        _ => {}
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
                let learn = args.learn.as_deref().map(|path| path.display());
                match learn {
                    Some(path) => anstream::eprintln!("observing only: learning into {path}"),
                    None => {
                        anstream::eprintln!("observing only: no policy (try --learn egress.yaml)");
                    }
                }
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
        alarm(&format!(
            "--cap-add {cap}: with it the command may be able to lift the firewall"
        ));
    }
    if let Some(door) = user::doors(user).first() {
        alarm(&format!(
            "the command can reach {door}: what it has started there is outside the firewall"
        ));
    }
    if let Some(service) = resolvers::unseen_lookups() {
        warn(&format!(
            "lookups through {service} are not seen: rules for names may not hold, flows show addresses"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_withheld_capabilities_can_be_left() {
        let names = |given: &[&str]| given.iter().map(ToString::to_string).collect::<Vec<_>>();
        let both = capabilities(&names(&["net_admin", "CAP_BPF"])).unwrap();
        assert_eq!(both, [Capability::CAP_NET_ADMIN, Capability::CAP_BPF]);
        for wrong in ["CAP_CHOWN", "nonsense", ""] {
            assert!(capabilities(&names(&[wrong])).is_err(), "{wrong}");
        }
    }
}
