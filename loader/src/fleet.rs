//! Many agents under one instance: `serve` without its command line. `roll` knows what has to be done and
//! touches nothing, `works` does it.
//!
//! ```text
//! docker::News ─▶ roll::Roll ─▶ Step ─▶ works: links, slots, policies ─▶ the kernel
//!                    ▲                      ├─▶ book: leases ─▶ file ─▶ the bridge
//!      iterators, links, books              └─▶ sink: audit records
//! ```

mod adopt;
mod book;
mod count;
mod engine;
mod heir;
mod held;
mod leave;
mod renew;
pub mod roll;
mod rules;
mod ward;
mod works;

use crate::{
    audit::{Event, Kind},
    cgroup::{self, CgroupError},
    cli::{LeadArgs, Mode},
    commands::CommandError,
    docker::News,
    enrol::Leads,
    instance::{Instance, InstanceError, Root},
    kernel::{Engine, KernelError, Sizes},
    operators::Operators,
    policy_file::PolicyFile,
    record::Owner,
    resolvers::ResolverError,
    session::{Session, boot_now},
    sink::Sink,
};
use adopt::Past;
use book::Book;
use count::Count;
use heir::Old;
use ipnet::IpNet;
use lease::{FileError, LeasesError};
use policy::Policy;
use roll::{Life, Roll, Step};
use rules::Rules;
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use ward::Ward;

/// Name of the instance.
pub const INSTANCE: &str = "serve";
/// How often the kernel is asked what lives.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What can go wrong with a fleet.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// See [`InstanceError`].
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// See [`KernelError`].
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// See [`CgroupError`].
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// See [`FileError`].
    #[error(transparent)]
    Leases(#[from] FileError),
    /// A lease that cannot be.
    #[error(transparent)]
    Lease(#[from] LeasesError),
    /// A policy that cannot be put into force.
    #[error(transparent)]
    Rules(Box<CommandError>),
    /// See [`ResolverError`].
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// The boot id cannot be told.
    #[error("cannot read /proc/sys/kernel/random/boot_id: {0}")]
    Boot(io::Error),
    /// A cgroup that the engine names and that is none.
    #[error("{} is not below {}, where cgroups are", path.display(), root.display())]
    Elsewhere {
        /// As the engine says.
        path: PathBuf,
        /// Where cgroup v2 is mounted.
        root: PathBuf,
    },
    /// A parent cgroup that holds more than agents.
    #[error("--cgroup-parent {}: we live below it, and whoever is no agent has no network there: give agents a parent of their own", .0.display())]
    OwnParent(PathBuf),
}

/// How a fleet is set up.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Sizes of the maps; `slots` is how many agents there may be at once.
    pub sizes: Sizes,
    /// The policy file; without one agents are only observed.
    pub policy: Option<PolicyFile>,
    /// In place of the policy's mode.
    pub mode: Option<Mode>,
    /// How long the sockets of an ended container may live on before they are cut.
    pub linger: Duration,
    /// Where to publish leases.
    pub leases: Option<&'a Path>,
    /// Who may read them, besides root.
    pub leases_group: Option<u32>,
    /// Where control sockets are, and what operators did without a loader.
    pub control_dir: &'a Path,
    /// Parents of agents' cgroups that are guarded, as for `docker run --cgroup-parent`.
    pub parents: &'a [String],
    /// Socket of the engine.
    pub engine: Option<&'a Path>,
    /// Networks of the monitor itself, which no agent reaches.
    pub own: &'a [IpNet],
    /// Addresses of the proxies that connections and DNS are led to, if there are any.
    pub lead: &'a LeadArgs,
}

/// Sizes of the maps for this many agents. Tables are allocated for all of them at once, so each has less
/// than the one of a `run`: some 58 KiB.
#[must_use]
pub fn sizes(agents: u32) -> Sizes {
    Sizes {
        slots: agents,
        names: 1024,
        addrs: 2048,
        ..Sizes::default()
    }
}

/// What the kernel has of a life.
#[derive(Debug)]
struct Guard {
    cgroup_id: u64,
    /// Id of the policy that we put it under; nothing when somebody else has chosen another.
    policy: Option<u32>,
    /// Policy in force, as far as is known.
    current: u32,
    /// Its lease was opened.
    met: bool,
}

/// Every agent there is.
pub struct Fleet {
    root: Root,
    instance: Instance,
    engine: Engine,
    /// The reader.
    pub session: Session,
    /// Who may lift the firewall for a time, and what came of it.
    pub operators: Operators,
    roll: Roll,
    rules: Rules,
    book: Book,
    guards: HashMap<Life, Guard>,
    mount: PathBuf,
    lead: LeadArgs,
    /// Trouble that was told already, by whom it is about.
    told: HashMap<Life, String>,
    looked: Instant,
    ward: Ward,
    past: Past,
    /// A set of programs of another version, as long as its last records are on their way.
    old: Option<Old>,
    count: Count,
}

impl Fleet {
    /// Loads the programs and pins the maps, or takes over those of a loader that is dead: whom it has
    /// enrolled stays so all the time. Then the way of the records is opened, as soon as it is known which
    /// of them a loader before has brought there.
    pub fn open(root: &Root, setup: Setup<'_>, sink: &mut Sink) -> Result<Self, FleetError> {
        let mount = cgroup::root()?;
        let mut taken = root.take_over(INSTANCE, setup.sizes)?;
        let (book, trouble) = Book::open(setup.leases, setup.leases_group)?;
        if let Some(e) = trouble {
            sink.complain_once(&format!("{e}; leases begin anew"));
        }
        let before = taken.before.take();
        let adopted = taken.updated.is_some() || before.is_some();
        let session = Session::new(taken.engine.rings()?, &taken.instance.pins);
        let operators = if adopted {
            Operators::new(INSTANCE, setup.control_dir)
        } else {
            Operators::of_new(INSTANCE, setup.control_dir)
        };
        let slots = taken.engine.sizes().slots;
        if slots != setup.sizes.slots {
            sink.complain_once(&format!(
                "the maps that were taken over have room for {slots} agents, whatever --max-agents says"
            ));
        }
        let mut fleet = Self {
            root: root.clone(),
            instance: taken.instance,
            engine: taken.engine,
            count: Count::after(&session),
            session,
            operators,
            roll: Roll::new(slots, setup.linger),
            rules: Rules::new(setup.policy, setup.mode, setup.own, Leads::of(setup.lead)),
            book,
            guards: HashMap::new(),
            mount,
            lead: setup.lead.clone(),
            told: HashMap::new(),
            looked: Instant::now(),
            ward: Ward::new(setup.parents, setup.engine),
            past: Past::Clear,
            old: None,
        };
        // Before anybody can come.
        fleet.guard_parents()?;
        let placed = match before {
            Some(before) => fleet.take_from(before, sink)?,
            None => HashMap::new(),
        };
        fleet.adopt(&placed, sink)?;
        fleet.lift_guards()?;
        fleet.begin(adopted, sink);
        Ok(fleet)
    }

    /// The policy, with the name of its file, empty without one.
    #[must_use]
    pub fn policy(&self) -> (&str, &Policy) {
        (self.rules.name(), self.rules.policy())
    }

    /// Grows with each change of the policy.
    #[must_use]
    pub fn policy_number(&self) -> u64 {
        self.rules.number()
    }

    /// Agents that run and have addresses, by which proxies tell them apart.
    #[must_use]
    pub fn addressed(&self) -> Vec<proxy::Agent> {
        let containers = self.roll.iter().filter(|(_, m)| m.is_alive());
        let containers = containers.map(|(_, m)| &m.container);
        containers
            .filter(|c| c.is_agent && !c.addresses.is_empty())
            .map(|c| proxy::Agent {
                agent: c.agent.clone(),
                project: c.project.clone(),
                container_id: Some(c.id.clone()),
                addresses: c.addresses.clone(),
            })
            .collect()
    }

    /// Name of the instance.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.instance.id
    }

    /// Agents that are enrolled.
    #[must_use]
    pub fn enrolled(&self) -> usize {
        let enrolled = |m: &roll::Member| m.stage == roll::Stage::Enrolled;
        self.roll.iter().filter(|(_, m)| enrolled(m)).count()
    }

    /// Everybody, bystanders and those that are ending among them.
    #[must_use]
    pub fn members(&self) -> usize {
        self.roll.iter().count()
    }

    /// Takes in what the engine says.
    pub fn hear(&mut self, news: News, sink: &mut Sink) {
        if let News::Unclear { id, name, why } = &news {
            let owner = Owner {
                container_id: Some(id.clone()),
                container_name: name.clone(),
                ..Owner::default()
            };
            let message = why.clone();
            sink.tell(&Event::now(&owner, Kind::Unguarded { message }));
        }
        match &news {
            News::All(_) => {
                self.book.is_listed(true);
                if let Err(e) = self.exempt_engine() {
                    sink.complain_once(&format!("cannot exempt the engine: {e}"));
                }
            }
            News::Away(_) => self.book.is_listed(false),
            News::Until(at) => self.book.is_read(*at),
            _ => {}
        }
        let steps = self.roll.hear(news, boot_now());
        self.carry_out(steps, sink);
        self.publish(sink);
    }

    /// Reads what the kernel has handed out, and once a second looks at what lives. Returns how many
    /// records there were.
    pub fn turn(&mut self, sink: &mut Sink) -> Result<usize, FleetError> {
        let n = self.session.pump(sink, None)?;
        self.look_back(sink)?;
        self.operators
            .turn(&self.instance.pins, sink, &mut self.session.tap)?;
        if self.looked.elapsed() >= LOOK_EVERY {
            self.look(sink)?;
        }
        Ok(n)
    }

    /// Looks at what lives and does what follows from it.
    pub fn look(&mut self, sink: &mut Sink) -> Result<(), FleetError> {
        self.looked = Instant::now();
        self.session.clean(&self.instance.pins)?;
        let seen = self.see()?;
        let steps = self.roll.look(&seen, boot_now());
        self.carry_out(steps, sink);
        self.notice(sink)?;
        self.watch_over(sink);
        self.publish(sink);
        Ok(())
    }

    fn publish(&mut self, sink: &mut Sink) {
        let held = self.roll.held_since(boot_now());
        if let Err(e) = self.book.tick(held) {
            sink.complain_once(&format!(
                "{e}; leases are not published, records of other sources get no names"
            ));
        }
    }

    fn carry_out(&mut self, steps: Vec<Step>, sink: &mut Sink) {
        let mut closing = Vec::new();
        for step in steps {
            let done = match step {
                Step::Meet(life) => self.meet(life),
                Step::Enrol(life) => self.enrol(life, sink),
                Step::Shut(life) => self.shut(life, sink),
                Step::Renew(life) => self.renew(life, sink),
                Step::End { life, at } => {
                    self.end(life, at);
                    Ok(())
                }
                Step::Close(life) => {
                    closing.push(life);
                    Ok(())
                }
                Step::Free(life) => self.free(life, sink),
                Step::Unpin(life) => self.unpin(life),
            };
            if let Err(e) = done {
                sink.complain_once(&format!("{step:?}: {e}"));
            }
        }
        if !closing.is_empty()
            && let Err(e) = self.close(&closing)
        {
            sink.complain_once(&format!("cannot take slots away: {e}"));
        }
    }

    /// Says that an agent can reach nothing, and why, unless that was said.
    fn tell_shut(&mut self, life: Life, message: String, sink: &mut Sink) {
        if self.told.get(&life) == Some(&message) {
            return;
        }
        if let Some(m) = self.roll.get(life) {
            let shut = Kind::Shut {
                message: message.clone(),
            };
            sink.tell(&Event::now(&m.owner(), shut));
        }
        self.told.insert(life, message);
    }
}
