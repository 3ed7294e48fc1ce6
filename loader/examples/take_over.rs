//! Takes over an instance from a loader that is dead, whatever its ABI, and prints the records of its
//! flows as JSON lines until it is killed: the least that a daemon does between two restarts.
//!
//!     cargo run -p ebpf-manager --example take_over -- /sys/fs/bpf/clawker serve policy.yaml

use abi::{FlowEvent, FoldKey, FoldRow, SlotConfig, SlotInfo};
use ebpf_manager::{
    enrol,
    instance::{InstanceError, OldNames, Root, Seat, Successor},
    kernel::{Engine, KernelError, Sizes},
    record::{Context, Owner, Record},
    resolvers::Place,
    session::{self, Names},
};
use nix::poll::{PollFd, PollFlags, poll};
use std::{
    env,
    error::Error,
    io::{self, Write as _},
    path::Path,
};

/// Prints records, and puts what was enrolled under the policy of a file.
struct Heir<'a> {
    root: &'a Root,
    policy: policy::Policy,
    context: Context,
    printed: bool,
}

impl Heir<'_> {
    fn print(&mut self, record: &Record) -> bool {
        let line = serde_json::to_string(record).unwrap_or_default();
        self.printed = true;
        // One write a line: whoever kills us cuts no line in two.
        io::stdout()
            .write_all(format!("{line}\n").as_bytes())
            .is_ok()
    }
}

impl Successor for Heir<'_> {
    fn seat(
        &mut self,
        engine: &Engine,
        old: &Seat,
    ) -> Result<Option<(SlotInfo, SlotConfig)>, InstanceError> {
        // An id of its own for the policy of every slot.
        let id = old.index;
        let agent = enrol::text(&old.info.agent);
        let project = enrol::text(&old.info.project);
        let selected = self.policy.select(Some(&agent), Some(&project));
        let compiled = selected
            .compile(id)
            .map_err(|e| InstanceError::Slot(io::Error::other(e.to_string())))?;
        let mut maps = engine.pins().policy()?;
        maps.discard(id)?;
        maps.write(&compiled)?;
        let config = enrol::config(
            (self.root.draw_slot()?, old.index),
            id,
            &compiled,
            &[],
            Place::Host,
        );
        Ok(Some((old.info, config)))
    }

    fn ended(&mut self, event: &FlowEvent, names: &mut OldNames<'_>) -> bool {
        let record = self.context.ended(event, names);
        self.print(&record)
    }

    fn folded(&mut self, key: &FoldKey, row: &FoldRow, names: &mut OldNames<'_>) -> bool {
        let record = self.context.folded(key, row, names);
        self.print(&record)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [base, id, file] = &args[..] else {
        return Err("usage: take_over PIN_ROOT INSTANCE POLICY_FILE".into());
    };
    let root = Root::new(Path::new(base));
    root.prepare()?;
    let text = std::fs::read_to_string(file)?;
    let policy = policy::Policy::parse(&text)
        .policy
        .ok_or("the policy has mistakes")?;
    let context = session::context(Owner::default());
    let mut heir = Heir {
        root: &root,
        policy,
        context,
        printed: false,
    };
    let mut taken = root.take_over(id, Sizes::default())?;
    if let Some(before) = taken.before.take() {
        eprintln!("taking over from {}", before.dir().display());
        let (retired, remains) = before.hand_over(&mut taken.engine, &mut heir)?;
        if let Some(lost) = &retired.lost {
            eprintln!("lost: {lost}");
        }
        remains.remove()?;
    }
    eprintln!("ready");
    let mut names = Names::new(&taken.instance.pins);
    let mut rings = taken.engine.rings()?;
    loop {
        heir.printed = false;
        rings.drain(|event| {
            let record = heir.context.ended(event, &mut names);
            heir.print(&record)
        });
        let folds: Result<_, KernelError> = rings.folds();
        for (key, row) in folds? {
            let record = heir.context.folded(&key, &row, &mut names);
            if heir.print(&record) {
                let index = rings.books().row_of(key.slot).unwrap_or(0);
                rings.recorded(index, key.slot, key.verdict, row.count);
            }
        }
        if !heir.printed {
            // As soon as a ring is half full, or after a moment.
            let mut fds = rings
                .wake_fds()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            poll(&mut fds, 5u8)?;
        }
    }
}
