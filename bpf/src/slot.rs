//! Access to the slot of the attached cgroup: its configuration and its books.

use crate::maps::{CONFIGS, CONTROL, METRICS, SLOT};
use abi::{Control, Flow, Ip, NO_RULE, SlotConfig, SlotMetrics, Tail};
use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_local_storage, bpf_ktime_get_boot_ns,
    bpf_probe_read_kernel,
};
use bpf::addr;
use core::arch::asm;
use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_xadd, atomic_xchg};
use core::mem::MaybeUninit;
use zerocopy::FromZeros;

/// Configuration of the cgroup that the running program is attached to, whatever cgroup the task or
/// the socket is in.
#[inline(always)]
pub(crate) fn config() -> &'static SlotConfig {
    // SAFETY: the kernel allocated the storage at attachment and never returns NULL; loader updates
    // swap the buffer under RCU, so this one stays whole and unchanged for the program's run.
    unsafe { &*bpf_get_local_storage((&raw const SLOT).cast_mut().cast(), 0).cast::<SlotConfig>() }
}

/// Configuration of a slot by row, for programs at another place than its cgroup; row 0 is of no slot.
#[inline(always)]
pub(crate) fn copied(index: u32) -> Option<&'static SlotConfig> {
    let c = CONFIGS.get_ptr(index)?;
    // SAFETY: a map value; the loader changes the copy that is not in use and then `turn`, so this one
    // stays as it is until two changes have passed, which no run outlasts.
    unsafe {
        let turn = (&raw const (*c).turn).read_volatile() as usize & 1;
        Some(&(*c).configs[turn])
    }
}

/// Books of a slot, by row.
#[inline(always)]
pub(crate) fn metrics(index: u32) -> Option<*mut SlotMetrics> {
    METRICS.get_ptr_mut(index)
}

/// The loader's switches.
#[inline(always)]
pub(crate) fn control() -> Option<&'static Control> {
    // SAFETY: the element lives as long as the map; fields are plain integers that user space may
    // change between two reads, each read is valid on its own.
    CONTROL.get_ptr(0).map(|p| unsafe { &*p })
}

/// Adds, and returns what was there before. Not relaxed: for that ordering the compiler picks the
/// instruction that returns nothing, and hands out `n` instead.
#[inline(always)]
pub(crate) fn add(counter: *mut u64, n: u64) -> u64 {
    // SAFETY: the pointer is to a map value (checked by the verifier) and the access is atomic.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(counter, n) }
}

/// Takes what is there and leaves `n`.
#[inline(always)]
pub(crate) fn swap(cell: *mut u64, n: u64) -> u64 {
    // SAFETY: as in `add`.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(cell, n) }
}

/// Boot clock in nanoseconds: runs through suspend and cannot be set.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Writes process and command name of the running task; only for hooks that run in the caller's
/// context.
#[inline(always)]
pub(crate) fn stamp_task(flow: &mut Flow) {
    // SAFETY: no arguments; then a buffer of the given length.
    unsafe {
        flow.pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        bpf_get_current_comm(flow.comm.as_mut_ptr().cast(), 16);
    }
}

/// The next index of a loop that is to stay a loop: unrolled, its addresses fill the stack.
#[inline(always)]
pub(crate) fn next(i: usize) -> usize {
    let mut n = i + 1;
    // SAFETY: a move onto itself, which hides the value from the optimiser and not from the verifier.
    unsafe { asm!("{0} = {0}", inout(reg) n, options(pure, nomem, nostack)) };
    n
}

/// Lets the optimiser know that a value may be changed behind its back from here on: loop callbacks
/// find it again by number.
#[inline(always)]
pub(crate) fn shared<T>(value: &mut T) {
    let mut p = core::ptr::from_mut(value);
    // SAFETY: a move onto itself; without `nomem` the pointer counts as having escaped.
    unsafe { asm!("{0} = {0}", inout(reg) p, options(nostack)) };
    let _ = p;
}

/// Fills a value with zeroes, word by word; the compiler's own way is a call to a loop over bytes.
#[inline(always)]
pub(crate) fn zero<T: FromZeros>(to: &mut MaybeUninit<T>) -> &mut T {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let p = to.as_mut_ptr().cast::<u64>();
    let mut i = 0;
    // SAFETY: as many words as the value has; all zeroes is a valid `T`.
    unsafe {
        while i < size_of::<T>() / 8 {
            p.add(i).write_volatile(0);
            i += 1;
        }
        to.assume_init_mut()
    }
}

/// Stores one field for itself. Neighbouring zeroes would be joined into a call to a loop over bytes.
#[inline(always)]
pub(crate) fn store<T: Copy>(to: &mut T, value: T) {
    // SAFETY: a valid reference.
    unsafe { core::ptr::from_mut(to).write_volatile(value) };
}

/// Makes what is there all zeroes.
#[inline(always)]
pub(crate) fn clear<T: FromZeros>(value: &mut T) {
    // SAFETY: zeroes are a valid `T` again when the call returns.
    zero(unsafe { &mut *core::ptr::from_mut(value).cast::<MaybeUninit<T>>() });
}

/// A record of nothing yet.
#[inline(always)]
pub(crate) fn tail(to: &mut MaybeUninit<Tail>, close: u8, end: u64) -> &mut Tail {
    let t = zero(to);
    ends(t, close, end);
    t
}

/// Says how and when a flow has ended, in a record that is zero or is written over.
#[inline(always)]
fn ends(t: &mut Tail, close: u8, end: u64) {
    t.end = end;
    t.close = close as u64;
    t.cut_rule = NO_RULE;
}

/// The same in memory that is at hand, where the stack has no room.
#[inline(always)]
pub(crate) fn tail_in(t: &mut Tail, close: u8, end: u64) {
    clear(t);
    ends(t, close, end);
}

/// Copies a value word by word. The compiler's own copy of more than a few words is a call to a loop
/// over bytes; volatile keeps it from finding that again here.
#[inline(always)]
pub(crate) fn copy<T: Copy>(to: &mut T, from: &T) {
    const { assert!(size_of::<T>().is_multiple_of(4)) };
    let (to, from) = (core::ptr::from_mut(to), core::ptr::from_ref(from));
    let mut i = 0;
    // SAFETY: both sides are whole values of `T`, whose alignment is at least that of the words where
    // the kernel cares at all (BPF memory is aligned to eight bytes, fields here to four).
    unsafe {
        while i < size_of::<T>() / 8 {
            to.cast::<u64>()
                .add(i)
                .write_volatile(from.cast::<u64>().add(i).read_volatile());
            i += 1;
        }
        if !size_of::<T>().is_multiple_of(8) {
            let last = size_of::<T>() / 4 - 1;
            to.cast::<u32>()
                .add(last)
                .write_volatile(from.cast::<u32>().add(last).read_volatile());
        }
    }
}

/// Reads an IPv6 address out of a context, word by word: the verifier allows no other width there.
///
/// # Safety
///
/// `p` points to four words of the running program's context.
#[inline(always)]
pub(crate) unsafe fn context_addr(p: *const u32) -> Ip {
    // SAFETY: promised by the caller; volatile keeps the loads 32 bit wide.
    let w = unsafe {
        [
            p.read_volatile(),
            p.add(1).read_volatile(),
            p.add(2).read_volatile(),
            p.add(3).read_volatile(),
        ]
    };
    addr::from_v6([
        u32::from_be(w[0]),
        u32::from_be(w[1]),
        u32::from_be(w[2]),
        u32::from_be(w[3]),
    ])
}

/// Reads a field of a kernel structure at an offset from BTF; zero if it cannot be read.
#[inline(always)]
pub(crate) fn kernel_field<T: Copy + Default>(of: *mut c_void, off: u32) -> T {
    let mut v = T::default();
    // SAFETY: the helper checks the address itself and fills `v` or leaves it.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut v).cast(),
            size_of::<T>() as u32,
            of.byte_add(off as usize),
        )
    };
    v
}

/// Notes trouble in the books.
#[inline(always)]
pub(crate) fn trouble(index: u32, what: usize) {
    if let Some(m) = metrics(index) {
        // SAFETY: `m` is a map value; `what` is a constant below `trouble::COUNT`.
        add(unsafe { &raw mut (*m).trouble[what] }, 1);
    }
}
