//! The kernel object: one file a hook family. See `docs/architecture.md` for what fires when.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(
    internal_features,
    reason = "BPF's atomic additions have no stable spelling"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand programs their context by value"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key by value is one more copy on a small stack"
)]

mod backstop;
mod connect;
mod create;
mod dgram;
mod dgram_end;
mod emit;
mod guard;
mod handover;
mod iter;
mod judge;
mod learn;
mod maps;
mod mark;
mod packet;
mod packet_dgram;
mod packet_tcp;
mod query;
mod redirect;
mod slot;
mod tcp_flow;
mod work;

/// GPL-only helpers (`bpf_probe_read_kernel`, `bpf_seq_write`) ask for this.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses an object in which this could be reached.
    loop {}
}
