//! `version`: which binary, which kernel, which object.

use super::CommandError;
use crate::{kernel, machine, render::units};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

#[derive(Serialize)]
struct Version {
    version: &'static str,
    target: &'static str,
    kernel: String,
    abi: u32,
    object_sha256: Option<String>,
    object_bytes: usize,
}

pub(super) fn version(as_json: bool) -> Result<u8, CommandError> {
    let object = kernel::object();
    let v = Version {
        version: env!("CARGO_PKG_VERSION"),
        target: env!("CLAWKER_TARGET"),
        kernel: machine::release(),
        abi: abi::ABI_VERSION,
        object_sha256: (!object.is_empty()).then(|| sha256(object)),
        object_bytes: object.len(),
    };
    print(&v, as_json).map_err(CommandError::Output)?;
    Ok(0)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, b| {
            // Writing to a string does not fail.
            let _ = write!(text, "{b:02x}");
            text
        })
}

fn print(v: &Version, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        return writeln!(out, "{}", serde_json::to_string(v)?);
    }
    let object = match &v.object_sha256 {
        Some(hash) => format!("{hash} ({})", units::bytes(v.object_bytes as u64)),
        None => "none (built with CLAWKER_BPF_SKIP)".to_owned(),
    };
    writeln!(out, "ebpf-manager {} for {}", v.version, v.target)?;
    writeln!(out, "kernel  {}", v.kernel)?;
    writeln!(out, "ABI     {}", v.abi)?;
    writeln!(out, "object  sha256 {object}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_standard() {
        // FIPS 180-4, the first example.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), abc);
    }
}
