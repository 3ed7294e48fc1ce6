//! Builds the kernel objects that tests of the upgrade come from: another build of the same ABI, and one
//! of another ABI. The binary under test has its own.

#[path = "../../loader/build/object.rs"]
mod object;

use std::path::Path;

fn main() {
    let objects = [
        ("other.bpf.o", "object,other"),
        ("next.bpf.o", "object,next"),
    ];
    object::build_all(Path::new("../.."), &objects);
}
