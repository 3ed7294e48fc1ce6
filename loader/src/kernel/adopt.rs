//! Taking over what a loader of the same ABI has left pinned: every map as it is, every link with the
//! programs of this build behind it.

use super::{
    KernelError, Pins,
    guard::names_in,
    io_error,
    mapped::Switches,
    object::{self, Engine, ITERATORS, program_fd},
    query::{self, Target},
    sizes::Sizes,
    sys,
};
use abi::{maps, programs};
use aya::{
    maps::{MapInfo, MapType},
    programs::{ProgramInfo, loaded_programs},
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// What [`Engine::update`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Updated {
    /// Links that have this build's programs behind them now.
    pub links: usize,
    /// Whether any program is another than before.
    pub changed: bool,
}

/// What matters of a program when another one takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Nature {
    /// The kernel's digest of its instructions.
    tag: u64,
    /// Maps in which it keeps configurations.
    storage: Vec<u32>,
}

impl Engine {
    /// Takes over the maps that a dead loader has pinned below `dir`: loads the object around them, having
    /// compared each with what this build would have made. The caller holds the instance's lock. Nothing
    /// changes for what is attached until [`Engine::update`].
    pub fn adopt(dir: &Path) -> Result<Self, KernelError> {
        Self::adopt_object(object::object(), dir)
    }

    /// The same for any object.
    pub fn adopt_object(object: &[u8], dir: &Path) -> Result<Self, KernelError> {
        if object.is_empty() {
            return Err(KernelError::NoObject);
        }
        let pins = Pins::new(dir);
        let sizes = pinned_sizes(&pins)?;
        let pinned = compare(object, &pins, sizes)?;
        let reused = maps::ALL.map(|name| (name, pins.map_path(name)));
        let ebpf = object::open(object, sizes, &reused)?;
        for (name, id) in &pinned {
            let taken = ebpf.map(name).and_then(map_id);
            // Somebody exchanged a pin meanwhile.
            if taken != Some(*id) {
                return Err(layout(name, pins.map_path(name)));
            }
        }
        let engine = Self::of(ebpf, dir, sizes)?;
        // A loader that died while it ended a slot's flows has left this on, for whoever reads an iterator.
        let control = pins.map(maps::CONTROL)?;
        let switches = Switches::new(control.fd());
        switches
            .map_err(|e| KernelError::map("map into memory", maps::CONTROL, e))?
            .end_slot(0, 0);
        Ok(engine)
    }

    /// Puts this engine's programs behind every pinned link and iterator, one by one. Until it is through,
    /// programs of both builds work side by side at one cgroup: they share every map that outlives a run,
    /// and its layout, so neither can tell which build wrote what it reads. An error leaves each link
    /// on a program that works, and the call can be repeated.
    ///
    /// Links of the same build are updated as well: the programs of the dead loader and their working
    /// memory are let go that way, and one load is behind all links, as `doctor` expects.
    pub fn update(&mut self) -> Result<Updated, KernelError> {
        self.pin_iterators()?;
        let links = self.links()?;
        for (_, name, _) in &links {
            object::load_program(&mut self.ebpf, name)?;
        }
        let known = natures()?;
        let mut changed = false;
        // All are looked at before one is touched.
        for (path, name, program) in &links {
            let new = self.nature(name)?;
            let old = known.get(program);
            // The kernel keeps the buffers that a link was made with: a program with other storage would
            // read its slot from a buffer that nobody writes, or from none.
            if old.is_some_and(|old| old.storage != new.storage) {
                return Err(KernelError::Storage {
                    name,
                    path: path.clone(),
                });
            }
            changed |= old.is_none_or(|old| old.tag != new.tag);
        }
        for (done, (path, name, _)) in links.iter().enumerate() {
            let put = sys::link_update(path, program_fd(&self.ebpf, name)?);
            match put {
                // Its cgroup went in this moment.
                Err(e) if e.raw_os_error() == Some(libc::ENOLINK) => {}
                Err(source) => {
                    return Err(KernelError::Update {
                        path: path.clone(),
                        done,
                        all: links.len(),
                        source,
                    });
                }
                Ok(()) => {}
            }
        }
        Ok(Updated {
            links: links.len(),
            changed,
        })
    }

    /// Pins of all links that still lead somewhere, the name of the program that belongs there, and the id
    /// of the one that is there.
    fn links(&self) -> Result<Vec<(PathBuf, &'static str, u32)>, KernelError> {
        let mut paths: Vec<_> = ITERATORS
            .map(|(name, _)| (self.dir.join(name), name))
            .to_vec();
        let pins = self.pins();
        let dir = self.dir.join("links");
        for of in names_in(&dir)? {
            paths.extend(programs::CGROUP.map(|name| (dir.join(&of).join(name), name)));
            let backstops = pins.backstops(&of)?.into_iter();
            paths.extend(
                backstops.map(|b| (pins.backstop_path(&of, b.interface), programs::BACKSTOP)),
            );
        }
        let guards = pins.guards()?.into_iter();
        paths.extend(guards.map(|g| (pins.guard_path(&g.name), programs::GUARD)));
        let mut links = Vec::new();
        for (path, name) in paths.into_iter().filter(|(path, _)| path.exists()) {
            let link = query::link(&path)?;
            match link.target {
                Target::Cgroup { id: 0, .. } | Target::Interface { index: 0 } => {}
                Target::Cgroup { hook, .. } if hook != Some(hook_of(name)) => {
                    return Err(KernelError::Elsewhere { path });
                }
                Target::Other => return Err(KernelError::Elsewhere { path }),
                Target::Cgroup { .. } | Target::Iterator { .. } | Target::Interface { .. } => {
                    links.push((path, name, link.program));
                }
            }
        }
        Ok(links)
    }

    fn nature(&self, name: &'static str) -> Result<Nature, KernelError> {
        let info = self.program(name)?.info();
        info.map_err(unknown).and_then(|info| nature(&info))
    }
}

/// The hook that a program is attached to.
fn hook_of(program: &'static str) -> &'static str {
    if program == programs::GUARD {
        programs::EGRESS
    } else {
        program
    }
}

fn unknown(e: aya::programs::ProgramError) -> KernelError {
    KernelError::Call {
        what: "cannot look at a program",
        source: io::Error::other(e),
    }
}

/// What the kernel knows of every program.
fn natures() -> Result<BTreeMap<u32, Nature>, KernelError> {
    let mut all = BTreeMap::new();
    for program in loaded_programs() {
        // Somebody's that goes meanwhile is none of ours, which the links hold.
        if let Ok(info) = program
            && let Ok(nature) = nature(&info)
        {
            all.insert(info.id(), nature);
        }
    }
    Ok(all)
}

fn nature(info: &ProgramInfo) -> Result<Nature, KernelError> {
    let mut storage = Vec::new();
    for id in info.map_ids().map_err(unknown)?.unwrap_or_default() {
        let map = MapInfo::from_id(id).map_err(|e| KernelError::Call {
            what: "cannot look at a map by its id",
            source: io_error(e),
        })?;
        if is_storage(map.map_type().ok()) {
            storage.push(id);
        }
    }
    Ok(Nature {
        tag: info.tag(),
        storage,
    })
}

fn is_storage(kind: Option<MapType>) -> bool {
    matches!(
        kind,
        Some(MapType::CgroupStorage | MapType::PerCpuCgroupStorage)
    )
}

fn map_id(map: &aya::maps::Map) -> Option<u32> {
    use aya::maps::Map;
    match map {
        Map::Array(m)
        | Map::CgroupStorage(m)
        | Map::HashMap(m)
        | Map::LpmTrie(m)
        | Map::LruHashMap(m)
        | Map::PerCpuArray(m)
        | Map::RingBuf(m)
        | Map::SkStorage(m)
        | Map::Unsupported(m) => m.info().ok().map(|i| i.id()),
        _ => None,
    }
}

fn layout(name: &'static str, path: PathBuf) -> KernelError {
    KernelError::Layout { name, path }
}

/// The sizes that the pinned maps were made with.
fn pinned_sizes(pins: &Pins) -> Result<Sizes, KernelError> {
    let entries = |name| query::map(&pins.map_path(name)).map(|m| m.max_entries);
    let rows = entries(maps::METRICS)?;
    let slots = rows.saturating_sub(1).max(1);
    let books = pins.books()?;
    Ok(Sizes {
        ring_bytes: entries(maps::RING_ALLOWED)?,
        slots,
        names: entries(maps::LEARNED_NAMES)? / slots,
        addrs: entries(maps::LEARNED_ADDRS)? / slots,
        folds: entries(maps::FOLDS)? / (slots + 1) / 2,
        // Row 0 has the limits from the beginning.
        rate: books.first().map_or(0, |row| row.rate),
    })
}

/// Holds every pinned map against what the object would have made; their ids.
fn compare(
    object: &[u8],
    pins: &Pins,
    sizes: Sizes,
) -> Result<Vec<(&'static str, u32)>, KernelError> {
    let wanted = aya_obj::Object::parse(object)
        .map_err(|e| KernelError::Load(Box::new(aya::EbpfError::ParseError(e))))?;
    let sized = BTreeMap::from(sizes.entries());
    let mut ids = Vec::new();
    for name in maps::ALL {
        let path = pins.map_path(name);
        let is = sys::map_info(&path).map_err(|e| KernelError::pin("look at map", &path, e))?;
        let want = wanted
            .maps
            .get(name)
            .ok_or(KernelError::Missing { kind: "map", name })?;
        // What a ring carries is told by the object alone.
        let ring = want.map_type() == BPF_MAP_TYPE_RINGBUF as u32;
        let entries = sized.get(name).copied().unwrap_or(want.max_entries());
        let same = is.type_ == want.map_type()
            && is.map_flags == want.map_flags()
            && is.max_entries == entries
            && (ring || (is.key_size, is.value_size) == (want.key_size(), want.value_size()));
        if !same {
            return Err(layout(name, path));
        }
        ids.push((name, is.id));
    }
    Ok(ids)
}
