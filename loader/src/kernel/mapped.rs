//! Array maps mapped into our memory: counters are read without a call, and reset where they stand.

use abi::{Control, FlowEvent, FoldRow, SlotMetrics, VERDICT_DENIED, VERDICTS};
use std::{
    io,
    marker::PhantomData,
    mem::size_of,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The elements of a memory-mapped array map.
struct Mapped<T> {
    base: NonNull<T>,
    bytes: usize,
    len: usize,
    _elements: PhantomData<T>,
}

// SAFETY: the memory is shared with the kernel anyway; every access below is atomic or volatile.
unsafe impl<T> Send for Mapped<T> {}

impl<T> Mapped<T> {
    fn new(map: impl AsFd, len: u32) -> io::Result<Self> {
        // The kernel rounds elements up to eight bytes; ours are multiples of eight.
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let bytes = size_of::<T>() * len as usize;
        let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { mmap(None, length, prot, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self {
            base: base.cast(),
            bytes,
            len: len as usize,
            _elements: PhantomData,
        })
    }

    /// Element `i`.
    fn at(&self, i: u32) -> Option<*mut T> {
        // SAFETY: the element lies within the mapping.
        ((i as usize) < self.len).then(|| unsafe { self.base.as_ptr().add(i as usize) })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody holds a pointer into it beyond a method's body. A
        // failure would leave address space behind, nothing else.
        let _ = unsafe { munmap(self.base.cast(), self.bytes) };
    }
}

/// Atomic view of a counter inside the mapping.
///
/// # Safety
///
/// `p` points to an aligned counter that stays mapped for the borrow.
unsafe fn atomic<'a>(p: *mut u64) -> &'a AtomicU64 {
    // SAFETY: promised by the caller.
    unsafe { AtomicU64::from_ptr(p) }
}

/// `metrics_map`.
pub struct Books(Mapped<SlotMetrics>);

impl Books {
    pub(super) fn new(map: impl AsFd, rows: u32) -> io::Result<Self> {
        Mapped::new(map, rows).map(Self)
    }

    /// A copy of one row; each counter is exact, together they are as of about now.
    #[must_use]
    pub fn row(&self, index: u32) -> Option<SlotMetrics> {
        // SAFETY: within the mapping; plain integers.
        self.0.at(index).map(|p| unsafe { p.read_volatile() })
    }

    fn counter(&self, index: u32, of: impl Fn(*mut SlotMetrics) -> *mut u64) -> u64 {
        let value = |p| {
            // SAFETY: an aligned counter within the mapping.
            unsafe { atomic(of(p)) }.load(Ordering::Relaxed)
        };
        self.0.at(index).map_or(0, value)
    }

    /// Slot that owns a row; 0 is none, or not enrolled.
    #[must_use]
    pub fn owner(&self, index: u32) -> u32 {
        // SAFETY: within the mapping; a plain integer that only loaders write.
        let slot = |p: *mut SlotMetrics| unsafe { (&raw const (*p).slot).read_volatile() };
        self.0.at(index).map_or(0, slot)
    }

    /// The row of a slot.
    #[must_use]
    pub fn row_of(&self, slot: u32) -> Option<u32> {
        (0..self.0.len as u32).find(|index| self.owner(*index) == slot)
    }

    /// Says of how many flows of a row there is a record, by verdict. For whoever takes over the books and
    /// has asked.
    pub(super) fn set_recorded(&self, index: u32, flows: [u64; VERDICTS]) {
        if let Some(p) = self.0.at(index) {
            for (at, n) in flows.into_iter().enumerate() {
                // SAFETY: within the mapping, aligned; only loaders write here.
                unsafe { atomic(&raw mut (*p).recorded[at]) }.store(n, Ordering::Relaxed);
            }
        }
    }

    /// Flows of a row that were ever folded.
    pub(super) fn folded(&self, index: u32) -> u64 {
        // SAFETY: fields of a mapped structure, indexes in range.
        let of = |v| self.counter(index, |p| unsafe { &raw mut (*p).folded[v] });
        (0..VERDICTS).map(of).sum()
    }

    /// Writes the limits of a row that no program uses yet, and cleans its books.
    pub(super) fn open(&self, index: u32, fresh: &SlotMetrics) {
        if let Some(p) = self.0.at(index) {
            // SAFETY: within the mapping; the slot is not configured yet, so no program writes here.
            unsafe { p.write_volatile(*fresh) };
        }
    }

    /// Notes that a record of this many flows was written, if the row is still the slot's. An unknown
    /// verdict counts as the kernel's books count it, as denied.
    pub(super) fn recorded(&self, index: u32, slot: u32, verdict: u8, flows: u64) {
        if let Some(p) = self.0.at(index).filter(|_| self.owner(index) == slot) {
            let verdict = usize::from(verdict);
            let at = if verdict < VERDICTS {
                verdict
            } else {
                usize::from(VERDICT_DENIED)
            };
            // SAFETY: within the mapping, aligned; only loaders write here.
            unsafe { atomic(&raw mut (*p).recorded[at]) }.fetch_add(flows, Ordering::Relaxed);
        }
    }

    /// Takes the catch-all rows of a drained epoch and frees its quota.
    pub(super) fn take_epoch(&self, index: u32, epoch: u32) -> [FoldRow; VERDICTS] {
        let parity = (epoch & 1) as usize;
        let Some(p) = self.0.at(index) else {
            return [FoldRow::default(); VERDICTS];
        };
        // SAFETY: within the mapping; a grace period after the epoch's end no program writes here.
        unsafe {
            let rows = (&raw const (*p).catch_all[parity]).read_volatile();
            (&raw mut (*p).catch_all[parity]).write_volatile([FoldRow::default(); VERDICTS]);
            atomic(&raw mut (*p).folds_used[parity]).store(0, Ordering::Relaxed);
            rows
        }
    }

    /// Takes quota for names and addresses that another set has learned.
    pub(super) fn learned(&self, index: u32, names: u64, addrs: u64) {
        if let Some(p) = self.0.at(index) {
            // SAFETY: within the mapping, aligned, atomic on both sides.
            unsafe {
                atomic(&raw mut (*p).names_used).fetch_add(names, Ordering::Relaxed);
                atomic(&raw mut (*p).addrs_used).fetch_add(addrs, Ordering::Relaxed);
            }
        }
    }

    /// Gives back quota of forgotten names and addresses.
    pub(super) fn forget(&self, index: u32, names: u64, addrs: u64) {
        if let Some(p) = self.0.at(index) {
            // SAFETY: within the mapping, aligned, atomic on both sides.
            unsafe {
                atomic(&raw mut (*p).names_used).fetch_sub(names, Ordering::Relaxed);
                atomic(&raw mut (*p).addrs_used).fetch_sub(addrs, Ordering::Relaxed);
            }
        }
    }
}

/// `metrics_map` of a set of programs whose rows have another layout.
pub(super) struct ForeignBooks {
    words: Mapped<u64>,
    row: usize,
}

impl ForeignBooks {
    /// Of rows of this many bytes, a multiple of eight as the kernel makes all elements.
    pub(super) fn new(map: impl AsFd, rows: u32, row: usize) -> io::Result<Self> {
        let words = Mapped::new(map, rows * (row / 8) as u32)?;
        Ok(Self { words, row })
    }

    fn word(&self, index: u32, offset: usize) -> Option<*mut u64> {
        let at = (index as usize * self.row + offset) / 8;
        (offset < self.row).then(|| self.words.at(at as u32))?
    }

    /// A copy of one row.
    pub(super) fn row(&self, index: u32) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.row);
        for offset in (0..self.row).step_by(8) {
            // SAFETY: within the mapping; plain integers.
            bytes.extend(unsafe { self.word(index, offset)?.read_volatile() }.to_ne_bytes());
        }
        Some(bytes)
    }

    /// Adds to a counter, which is aligned as the kernel side needs it.
    pub(super) fn add(&self, index: u32, offset: usize, n: u64) {
        if let Some(p) = self.word(index, offset) {
            // SAFETY: within the mapping, aligned; programs add atomically too.
            unsafe { atomic(p) }.fetch_add(n, Ordering::Relaxed);
        }
    }
}

/// `CONTROL`.
pub(super) struct Switches(Mapped<Control>);

impl Switches {
    pub(super) fn new(map: impl AsFd) -> io::Result<Self> {
        Mapped::new(map, 1).map(Self)
    }

    fn field(&self, of: impl Fn(*mut Control) -> *mut u32) -> Option<&AtomicU32> {
        // SAFETY: an aligned field within the mapping, atomic on our side, read once by programs.
        self.0.at(0).map(|p| unsafe { AtomicU32::from_ptr(of(p)) })
    }

    /// Starts a new epoch of folded rows; returns the one before.
    pub(super) fn next_epoch(&self) -> u32 {
        // SAFETY: a field of a mapped structure.
        self.field(|p| unsafe { &raw mut (*p).fold_epoch })
            .map_or(0, |f| f.fetch_add(1, Ordering::SeqCst))
    }

    /// Lets the iterators end every flow of a slot with this reason; slot 0 lets them live.
    pub(super) fn end_slot(&self, slot: u32, close: u8) {
        // SAFETY: fields of a mapped structure.
        if let Some(f) = self.field(|p| unsafe { &raw mut (*p).end_close }) {
            f.store(u32::from(close), Ordering::SeqCst);
        }
        // SAFETY: as above.
        if let Some(f) = self.field(|p| unsafe { &raw mut (*p).end_slot }) {
            f.store(slot, Ordering::SeqCst);
        }
    }
}

/// How full a ring is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFill {
    /// Records that wait to be read.
    pub records: u64,
    /// Records that find room.
    pub capacity: u64,
}

/// Reads both positions of a ring of flow records of this many bytes, and nothing else
/// (`kernel/bpf/ringbuf.c`: a page for the consumer, a page for the producer).
pub(super) fn ring_fill(map: impl AsFd, bytes: u32) -> io::Result<RingFill> {
    /// Bytes that the kernel puts in front of each record.
    const HEAD: u64 = 8;
    let page = NonZeroUsize::new(page_size()).ok_or(io::ErrorKind::InvalidInput)?;
    let position = |offset: usize| -> io::Result<u64> {
        let flags = MapFlags::MAP_SHARED;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let at = unsafe { mmap(None, page, ProtFlags::PROT_READ, flags, &map, offset as i64) }?;
        // SAFETY: the page begins with an aligned position, which the kernel writes in one piece.
        let value = unsafe { at.cast::<u64>().read_volatile() };
        // SAFETY: mapped above, and no reference into it is left.
        unsafe { munmap(at, page.get()) }?;
        Ok(value)
    };
    // The consumer first: read the other way round, it could have overtaken the producer.
    let (taken, written) = (position(0)?, position(page.get())?);
    let each = (size_of::<FlowEvent>() as u64 + HEAD).next_multiple_of(8);
    Ok(RingFill {
        records: written.saturating_sub(taken) / each,
        capacity: u64::from(bytes) / each,
    })
}

fn page_size() -> usize {
    // SAFETY: no pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(0)
}
