//! Builds the kernel object and leaves it in `OUT_DIR`, from where `src/kernel/object.rs` embeds it.
//!
//! Needs bpf-linker and a compiler with the same LLVM and the source of `core`: `scripts/toolchain.sh`
//! provides both. `CLAWKER_BPF_SKIP=1` writes an empty object instead, for editors and linters.

#[path = "build/object.rs"]
mod object;

use std::{env, path::Path};

fn main() {
    let target = env::var("TARGET").expect("cargo sets TARGET");
    println!("cargo::rustc-env=CLAWKER_TARGET={target}");
    object::build_all(Path::new(".."), &[("clawker.bpf.o", "object")]);
}
