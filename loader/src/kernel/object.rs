//! Loading, attaching and pinning: everything with an effect on the kernel's programs.

use super::{Books, KernelError, Pins, Sizes, btf, rings::Rings, sys};
use abi::{ConfigCopies, SlotConfig, SlotInfo, SlotMetrics, maps, programs};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Map, MapData},
    programs::{Program, ProgramError},
};
use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// The kernel object, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/clawker.bpf.o"));

/// The kernel object as it is embedded; empty when the binary was built without it.
#[must_use]
pub fn object() -> &'static [u8] {
    OBJECT
}

/// A loaded object whose maps are pinned, ready to be attached.
pub struct Engine {
    pub(super) ebpf: Ebpf,
    pub(super) dir: PathBuf,
    pub(super) sizes: Sizes,
    slots: MapData,
    copies: MapData,
    books: Books,
}

/// Iterators and the maps that they go over.
pub(super) const ITERATORS: [(&str, &str); 2] = [
    (programs::ITER_TCP, maps::TCP_FLOWS),
    (programs::ITER_DGRAM, maps::DGRAM_FLOWS),
];

impl Engine {
    /// Loads the object, verifies every program and pins maps and iterators below `dir`, which must
    /// exist on a BPF file system.
    pub fn load(dir: &Path, sizes: Sizes) -> Result<Self, KernelError> {
        Self::load_object(OBJECT, dir, sizes, &[])
    }

    /// The same for any object, which takes some maps from where they are pinned already.
    pub fn load_object(
        object: &[u8],
        dir: &Path,
        sizes: Sizes,
        reused: &[(&'static str, PathBuf)],
    ) -> Result<Self, KernelError> {
        let ebpf = open(object, sizes, reused)?;
        let map_dir = dir.join("maps");
        fs::create_dir(&map_dir).map_err(|e| KernelError::pin("create", &map_dir, e))?;
        for name in maps::ALL {
            let path = map_dir.join(name);
            let map = ebpf
                .map(name)
                .ok_or(KernelError::Missing { kind: "map", name })?;
            map.pin(&path)
                .map_err(|e| KernelError::pin("pin map", path, io::Error::other(e)))?;
        }
        let engine = Self::of(ebpf, dir, sizes)?;
        engine.pin_iterators()?;
        engine.books.open(0, &engine.limits(0));
        Ok(engine)
    }

    /// An engine out of a loaded object whose maps are pinned below `dir`.
    pub(super) fn of(mut ebpf: Ebpf, dir: &Path, sizes: Sizes) -> Result<Self, KernelError> {
        let slots = take(&mut ebpf, maps::SLOT)?;
        let copies = take(&mut ebpf, maps::CONFIGS)?;
        let books = books(&ebpf, sizes.rows())?;
        Ok(Self {
            ebpf,
            dir: dir.to_owned(),
            sizes,
            slots,
            copies,
            books,
        })
    }

    /// How large its maps are.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn limits(&self, slot: u32) -> SlotMetrics {
        let mut m = SlotMetrics::new_zeroed();
        m.slot = slot;
        m.rate = self.sizes.rate;
        m.max_names = self.sizes.names;
        m.max_addrs = self.sizes.addrs;
        m.max_folds = self.sizes.folds;
        m
    }

    /// Pins the iterators that are not there.
    pub(super) fn pin_iterators(&self) -> Result<(), KernelError> {
        for (name, map) in ITERATORS {
            if !self.dir.join(name).exists() {
                self.pin_iterator(name, map)?;
            }
        }
        Ok(())
    }

    fn pin_iterator(&self, name: &'static str, map: &'static str) -> Result<(), KernelError> {
        let prog = program_fd(&self.ebpf, name)?;
        let target = Pins::new(&self.dir).map(map)?;
        let link =
            sys::iter_link(prog, target.fd().as_fd()).map_err(|source| KernelError::Call {
                what: "cannot create the flow iterator",
                source,
            })?;
        let path = self.dir.join(name);
        sys::pin(link.as_fd(), &path).map_err(|e| KernelError::pin("pin", path, e))
    }

    /// Configuration of an attached cgroup; nothing when it is not attached any more.
    pub fn config(&self, cgroup_id: u64) -> Result<Option<SlotConfig>, KernelError> {
        configuration(&self.slots, cgroup_id)
    }

    /// Takes a cgroup's slot away: from now on it is not enrolled, and everything is denied. One that is
    /// not attached any more is no error.
    pub fn bar(&self, cgroup_id: u64) -> Result<(), KernelError> {
        match configure(
            &self.slots,
            &self.copies,
            cgroup_id,
            &SlotConfig::new_zeroed(),
        ) {
            Err(KernelError::Map { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            told => told,
        }
    }

    /// Frees a row whose slot is over: its books and its identity.
    pub fn free(&self, index: u32) -> Result<(), KernelError> {
        self.books.open(index, &SlotMetrics::new_zeroed());
        self.pins().set_info(index, &SlotInfo::new_zeroed())
    }

    /// Opens a slot: limits and identity first, the configuration last, in one write.
    pub fn enrol(&self, info: &SlotInfo, config: &SlotConfig) -> Result<(), KernelError> {
        self.books.open(config.index, &self.limits(config.slot));
        self.pins().set_info(config.index, info)?;
        configure(&self.slots, &self.copies, info.cgroup_id, config)
    }

    /// Adds what another set of programs has learned for the slot of a row, at the cost of its quota.
    pub fn learn(&self, index: u32, more: &super::Learned) -> Result<(), KernelError> {
        let (names, addrs) = self.pins().learn(more)?;
        self.books.learned(index, names, addrs);
        Ok(())
    }

    /// Books of the slots.
    #[must_use]
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// The reading end of both rings, the folded rows and the iterators.
    pub fn rings(&self) -> Result<Rings, KernelError> {
        Rings::open(&Pins::new(&self.dir), self.sizes.rows())
    }

    /// A loaded program, for running it on a made-up packet.
    pub fn program(&self, name: &'static str) -> Result<&Program, KernelError> {
        self.ebpf.program(name).ok_or_else(|| missing(name))
    }

    /// The pins of this instance.
    #[must_use]
    pub fn pins(&self) -> Pins {
        Pins::new(&self.dir)
    }
}

/// The configuration of an attached cgroup; nothing when it is not attached any more.
pub(super) fn configuration(
    slots: &MapData,
    cgroup_id: u64,
) -> Result<Option<SlotConfig>, KernelError> {
    let mut config = SlotConfig::new_zeroed();
    let id = cgroup_id.as_bytes();
    match sys::map_lookup(slots.fd().as_fd(), id, config.as_mut_bytes()) {
        Ok(()) => Ok(Some(config)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(KernelError::map("read", maps::SLOT, e)),
    }
}

/// Replaces the configuration of an attached cgroup in one step, and then its copy.
pub(super) fn configure(
    slots: &MapData,
    copies: &MapData,
    cgroup_id: u64,
    config: &SlotConfig,
) -> Result<(), KernelError> {
    sys::map_update(slots.fd().as_fd(), cgroup_id.as_bytes(), config.as_bytes())
        .map_err(|e| KernelError::map("write", maps::SLOT, e))?;
    copy(copies, config)
}

/// Writes the copy that is not in use, then says that it is. Programs may read while an element is
/// written, so each of the two steps leaves alone what they look at.
pub(super) fn copy(copies: &MapData, config: &SlotConfig) -> Result<(), KernelError> {
    let write = |e| KernelError::map("write", maps::CONFIGS, e);
    let copies = copies.fd().as_fd();
    // Row 0 is of no slot, and stays so.
    if config.index == 0 {
        return Ok(());
    }
    let key = config.index.to_ne_bytes();
    let mut both = ConfigCopies::new_zeroed();
    sys::map_lookup(copies, &key, both.as_mut_bytes()).map_err(write)?;
    let next = (both.turn ^ 1) & 1;
    both.configs[next as usize] = *config;
    sys::map_update(copies, &key, both.as_bytes()).map_err(write)?;
    both.turn = next;
    sys::map_update(copies, &key, both.as_bytes()).map_err(write)
}

/// Loads an object and has every program verified; nothing is attached or pinned. Maps that are named in
/// `reused` are taken from their pins as they are.
pub(super) fn open(
    object: &[u8],
    sizes: Sizes,
    reused: &[(&'static str, PathBuf)],
) -> Result<Ebpf, KernelError> {
    if object.is_empty() {
        return Err(KernelError::NoObject);
    }
    let offsets = btf::offsets()?;
    let mut loader = EbpfLoader::new();
    for (name, entries) in sizes.entries() {
        loader.map_max_entries(name, entries);
    }
    for (name, path) in reused {
        loader.map_pin_path(name, path.as_path());
    }
    let mut ebpf = loader
        .override_global("TCP_OFFSETS", &offsets.tcp, true)
        .override_global("SK_ERR_OFFSET", &offsets.error, true)
        .override_global("SK_STATE_OFFSET", &offsets.state, true)
        .override_global("SK_KERN", &offsets.kern, true)
        .load(object)
        .map_err(|e| KernelError::Load(Box::new(e)))?;
    load_programs(&mut ebpf)?;
    Ok(ebpf)
}

/// The books; their map stays where it is, for programs that are loaded later.
fn books(ebpf: &Ebpf, rows: u32) -> Result<Books, KernelError> {
    let name = maps::METRICS;
    let Some(Map::Array(metrics)) = ebpf.map(name) else {
        return Err(KernelError::Missing { kind: "map", name });
    };
    Books::new(metrics.fd(), rows).map_err(|e| KernelError::map("map into memory", name, e))
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, KernelError> {
    match ebpf.take_map(name) {
        Some(Map::CgroupStorage(m) | Map::Array(m) | Map::Unsupported(m)) => Ok(m),
        _ => Err(KernelError::Missing { kind: "map", name }),
    }
}

pub(super) fn program_fd<'a>(
    ebpf: &'a Ebpf,
    name: &'static str,
) -> Result<BorrowedFd<'a>, KernelError> {
    let program = ebpf.program(name).ok_or_else(|| missing(name))?;
    program
        .fd()
        .map(|fd| fd.as_fd())
        .map_err(|e| refused(name, e))
}

fn load_programs(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let kernel_btf = Btf::from_sys_fs().map_err(|_| BtfRead)?;
    for name in programs::CGROUP {
        load_program(ebpf, name)?;
    }
    for name in [programs::ITER_TCP, programs::ITER_DGRAM] {
        let Some(Program::Iter(p)) = ebpf.program_mut(name) else {
            return Err(missing(name));
        };
        p.load("bpf_sk_storage_map", &kernel_btf)
            .map_err(|e| refused(name, e))?;
    }
    Ok(())
}

/// Has one program verified, unless it was before. Guard and backstop are loaded only where they are
/// attached.
pub(super) fn load_program(ebpf: &mut Ebpf, name: &'static str) -> Result<(), KernelError> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    if program.fd().is_ok() {
        return Ok(());
    }
    match program {
        Program::CgroupSkb(p) => p.load(),
        Program::CgroupSock(p) => p.load(),
        Program::CgroupSockAddr(p) => p.load(),
        Program::SockOps(p) => p.load(),
        Program::SchedClassifier(p) => p.load(),
        _ => return Err(missing(name)),
    }
    .map_err(|e| refused(name, e))
}

pub(super) fn missing(name: &'static str) -> KernelError {
    KernelError::Missing {
        kind: "program",
        name,
    }
}

pub(super) fn refused(name: &'static str, e: ProgramError) -> KernelError {
    KernelError::Program {
        name,
        source: Box::new(e),
    }
}

/// `Btf::from_sys_fs` failed after our own reader succeeded.
struct BtfRead;

impl From<BtfRead> for KernelError {
    fn from(_: BtfRead) -> Self {
        Self::Btf(btf::BtfError::Malformed)
    }
}
