//! Taking over from a set of programs of another ABI version, without its build and without a moment in
//! which nobody enforces: `docs/architecture.md`, "Restart and upgrade".

use super::{
    InstanceError, Seat,
    bequest::{heir, resettle, seated},
    remove_pins,
    successor::{OldNames, Retired, Successor},
};
use crate::{
    accounting,
    cgroup::{self, Cgroup},
    enrol::text,
    kernel::{
        Engine, Foreign, KernelError, Pins,
        query::{self, Target},
    },
};
use abi::{PHASE_ALONE, PHASE_GONE, PHASE_HEIR, PHASE_LEAVING, SlotConfig, close, maps, programs};
use nix::{fcntl::Flock, poll::poll};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long the kernel may take to let go of a cgroup that was removed.
const REMOVAL: Duration = Duration::from_secs(2);

/// A set of programs of another version that is in force, with a dead loader.
pub struct Predecessor {
    old: Foreign,
    alive: Flock<File>,
}

/// The maps of a set that was taken over from: nothing runs there any more. They stay until its last
/// records are in safe hands; a loader that is killed meanwhile is followed by one that finds them again.
#[derive(Debug)]
pub struct Remains {
    dir: PathBuf,
    _alive: Flock<File>,
}

impl Remains {
    /// Removes them.
    pub fn remove(self) -> Result<(), InstanceError> {
        // Without its iterators it is not whole: whoever finds the rest removes it.
        let whole = self.dir.join(programs::ITER_DGRAM);
        fs::remove_file(&whole).map_err(|e| InstanceError::io("remove", whole, e))?;
        remove_pins(&self.dir)
    }
}

/// A slot on its way from one set to the other.
struct Move {
    old: Seat,
    /// The new slot's configuration; none when the cgroup does not go on.
    new: Option<SlotConfig>,
}

/// Which reading of the live flows it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// While the old programs judge. What the new ones have noted since they listen knows less of a flow that is older.
    First,
    /// When they stand aside.
    Second,
}

/// Slots that a set of any version has room for.
pub(super) fn room(dir: &Path) -> Result<u32, KernelError> {
    let rows = query::map(&Pins::new(dir).map_path(maps::METRICS))?.max_entries;
    Ok(rows.saturating_sub(1).max(1))
}

impl Predecessor {
    pub(super) fn open(dir: &Path, alive: Flock<File>, ours: &Pins) -> Result<Self, KernelError> {
        Ok(Self {
            old: Foreign::open(dir, ours)?,
            alive,
        })
    }

    /// Its pins.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.old.pins().dir()
    }

    /// What it has enrolled.
    pub fn seats(&self) -> Result<Vec<Seat>, KernelError> {
        let infos = self.old.infos()?.into_iter();
        let seats = infos.map(|(index, info)| {
            let config = self.old.config(info.cgroup_id)?;
            Ok(Seat {
                index,
                info,
                config,
            })
        });
        seats.collect()
    }

    /// Takes over every cgroup, and detaches the old set. After an error both sets are attached and every
    /// event is judged by one of them; taking over again goes on where this ended.
    ///
    /// 1. The new programs are attached behind the old ones, let everything pass and record nothing.
    /// 2. The old ones begin to leave a mark for each event that they handle.
    /// 3. The new ones handle what has no mark: nothing so far.
    /// 4. One write a slot lets the old ones stand aside. Whatever begins from here on is the new ones',
    ///    and live flows end with their next packet and go on as new ones in the same event.
    /// 5. The flows of which no packet came are ended by the iterators; all records are read, the old links
    ///    removed.
    ///
    /// Between the steps every program run that is under way ends (`membarrier`).
    pub fn hand_over(
        mut self,
        engine: &mut Engine,
        to: &mut dyn Successor,
    ) -> Result<(Retired, Remains), InstanceError> {
        // Nobody changes a policy meanwhile.
        let _held = self.old.pins().hold()?;
        engine.pins().exempt(&self.old.pins().exempted()?)?;
        let moves = self.attach(engine, to)?;
        self.guard(engine)?;
        self.old.settle()?;
        self.set_phases(&moves, PHASE_LEAVING)?;
        self.old.settle()?;
        set_new_phases(engine, &moves, PHASE_HEIR)?;
        self.old.settle()?;
        self.bequeath(engine, &moves, Reading::First)?;
        self.set_phases(&moves, PHASE_GONE)?;
        self.old.settle()?;
        // What began between the first reading and the switch.
        self.bequeath(engine, &moves, Reading::Second)?;
        self.end_flows(&moves)?;
        let mut malformed = self.drain(to);
        self.stand_down()?;
        remove_pins(&self.dir().join("links"))?;
        self.old.settle()?;
        self.end_flows(&moves)?;
        malformed += self.drain(to);
        let rows = self.old.folds()?;
        let mut names = self.names();
        for (key, row) in rows {
            if to.folded(&key, &row, &mut names) {
                self.old.recorded(&key, &row);
            }
        }
        let books: Vec<_> = (0..=self.old.room())
            .filter_map(|index| self.old.row(index))
            .collect();
        let retired = Retired {
            lost: accounting::losses(books.get(1..).unwrap_or_default()),
            books,
            malformed,
            seats: moves
                .iter()
                .map(|m| (m.old, m.new.map(|c| c.slot)))
                .collect(),
        };
        set_new_phases(engine, &moves, PHASE_ALONE)?;
        engine.pins().forget_sent()?;
        let remains = Remains {
            dir: self.dir().to_owned(),
            _alive: self.alive,
        };
        Ok((retired, remains))
    }

    fn names(&self) -> OldNames<'_> {
        OldNames::new(&self.old)
    }

    /// Attaches the new programs to every cgroup of the old set that is there.
    fn attach(
        &self,
        engine: &mut Engine,
        to: &mut dyn Successor,
    ) -> Result<Vec<Move>, InstanceError> {
        let mount = cgroup::root()?;
        let mut moves = Vec::new();
        for old in self.seats()? {
            let cgroup = Cgroup::at(mount.join(text(&old.info.cgroup)));
            let here = cgroup.id().is_ok_and(|id| id == old.info.cgroup_id);
            if !here && self.stays(old.info.cgroup_id)? {
                // Letting it go would leave whoever lives there without a firewall.
                let missing = io::Error::from(io::ErrorKind::NotFound);
                return Err(InstanceError::io("find cgroup", cgroup.path(), missing));
            }
            let Some(theirs) = old.config.filter(|_| here) else {
                moves.push(Move { old, new: None });
                continue;
            };
            let sets = [engine.pins(), self.old.pins().clone()];
            let name = link_name(&sets, old.info.cgroup_id);
            let fd = cgroup.open()?;
            // A loader that was killed half-way may have come so far.
            let begun = engine.pins().config(old.info.cgroup_id)?;
            let new = match begun.filter(|c| c.slot != 0) {
                Some(config) => {
                    engine.attach(&fd, &name)?;
                    Some(config)
                }
                None => match to.seat(engine, &old)? {
                    None => None,
                    Some((info, config)) => {
                        let (info, config) = seated(&old, &theirs, info, config);
                        engine.attach_enrolled(&fd, &name, &info, &config)?;
                        Some(config)
                    }
                },
            };
            if let Some(config) = &new {
                for old in self.old.pins().backstops(&name)? {
                    if old.attached {
                        // Its addresses are known when the engine tells of it.
                        engine.backstop(&name, config, old.interface, &[])?;
                    }
                }
            }
            moves.push(Move { old, new });
        }
        Ok(moves)
    }

    /// Guards what the old set guards. From here on its programs leave marks for both.
    fn guard(&self, engine: &mut Engine) -> Result<(), InstanceError> {
        let mount = Cgroup::at(cgroup::root()?);
        for guard in self.old.pins().guards()? {
            let Target::Cgroup { id, .. } = guard.link?.target else {
                continue;
            };
            if let Some(parent) = mount.find(id) {
                engine.guard(&parent.open()?, &guard.name)?;
            }
        }
        Ok(())
    }

    /// Takes guards and backstops away before the programs that leave marks for them.
    fn stand_down(&self) -> Result<(), KernelError> {
        let old = self.old.pins();
        for guard in old.guards()? {
            old.unguard(&guard.name)?;
        }
        for (name, backstop) in old.every_backstop()? {
            old.unhook(&name, backstop.interface)?;
        }
        Ok(())
    }

    /// Whether a cgroup is there although its path is not. One that was just removed keeps its
    /// configuration for a moment.
    fn stays(&self, cgroup_id: u64) -> Result<bool, KernelError> {
        let deadline = Instant::now() + REMOVAL;
        while self.old.config(cgroup_id)?.is_some() {
            if Instant::now() > deadline {
                return Ok(true);
            }
            // A signal ends the pause early.
            let _ = poll(&mut [], 10u8);
        }
        Ok(false)
    }

    fn set_phases(&self, moves: &[Move], phase: u8) -> Result<(), KernelError> {
        for m in moves.iter().filter(|m| m.new.is_some()) {
            // Never back: the new programs would wait for marks that nobody leaves.
            if m.old.config.is_some_and(|c| c.phase < phase) {
                self.old.set_phase(m.old.info.cgroup_id, phase)?;
            }
        }
        Ok(())
    }

    /// Lets the new set know of everything that lives and was learned.
    fn bequeath(
        &self,
        engine: &Engine,
        moves: &[Move],
        reading: Reading,
    ) -> Result<(), KernelError> {
        let live = self.old.live()?;
        for m in moves {
            let Some(new) = &m.new else { continue };
            let slot = m.old.info.slot;
            let mut learned = self.old.learned(slot)?;
            resettle(&mut learned, new.slot);
            engine.learn(new.index, &learned)?;
            let own = live.iter().filter(|l| l.flow.slot == slot);
            let heirs: Vec<_> = own.map(|l| heir(l, new)).collect();
            // The new programs use what is there as soon as the old ones stand aside.
            let waits = m.old.config.is_some_and(|c| c.phase != PHASE_GONE);
            let over = waits && reading == Reading::First;
            engine.pins().inherit(&heirs, over)?;
        }
        Ok(())
    }

    fn end_flows(&self, moves: &[Move]) -> Result<(), KernelError> {
        for m in moves {
            let why = if m.new.is_some() {
                close::UPGRADED
            } else {
                close::CONTAINER_EXIT
            };
            self.old.end_flows(m.old.info.slot, why)?;
        }
        Ok(())
    }

    /// Hands out every record there is; how many entries were none.
    fn drain(&mut self, to: &mut dyn Successor) -> u64 {
        let mut malformed = 0;
        loop {
            let (events, bad) = self.old.drain();
            malformed += bad;
            if events.is_empty() && bad == 0 {
                return malformed;
            }
            let mut names = self.names();
            for event in &events {
                if to.ended(event, &mut names) {
                    self.old.kept(event);
                }
            }
        }
    }
}

/// The name under which one of the sets has pinned its links to a cgroup.
fn link_name(sets: &[Pins], cgroup_id: u64) -> String {
    let dirs = sets
        .iter()
        .map(|pins| fs::read_dir(pins.dir().join("links")));
    for entry in dirs.flatten().flatten().flatten() {
        // The new set attaches this one first.
        let link = query::link(&entry.path().join(programs::SOCK_OPS));
        if let Ok(Target::Cgroup { id, .. }) = link.map(|l| l.target)
            && id == cgroup_id
        {
            return entry.file_name().to_string_lossy().into_owned();
        }
    }
    cgroup_id.to_string()
}

/// Writes a phase into the configurations of the new set.
fn set_new_phases(engine: &Engine, moves: &[Move], phase: u8) -> Result<(), KernelError> {
    let pins = engine.pins();
    // Somebody may be changing a policy of it already.
    let _held = pins.hold()?;
    for m in moves.iter().filter(|m| m.new.is_some()) {
        let id = m.old.info.cgroup_id;
        if let Some(config) = pins.config(id)? {
            pins.configure(id, &SlotConfig { phase, ..config })?;
        }
    }
    Ok(())
}
