//! The build of the kernel object, for the build scripts of those who embed one.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where `scripts/toolchain.sh` notes which compiler and linker to use.
const NOTE: &str = "clawker/bpf-toolchain";

/// Builds objects into `OUT_DIR`: file names, and the features of package `bpf` that make them. `root` is
/// the workspace. Ends the build script when one does not build.
pub(crate) fn build_all(root: &Path, objects: &[(&str, &str)]) {
    for part in ["bpf", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(part).display());
    }
    for name in [
        "CLAWKER_BPF_SKIP",
        "CLAWKER_BPF_CARGO",
        "CLAWKER_BPF_LINKER",
    ] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let skip = env::var_os("CLAWKER_BPF_SKIP").is_some_and(|v| v == "1");
    for (name, features) in objects {
        let object = out.join(name);
        // A new file: the old one may have another name in a copy of this directory.
        let _ = fs::remove_file(&object);
        if skip {
            fs::write(&object, []).expect("OUT_DIR is writable");
        } else if let Err(why) = build(root, &out, &object, features) {
            println!("cargo::error={}", why.replace('\n', " "));
            std::process::exit(1);
        }
    }
}

/// What to build with.
struct Toolchain {
    /// Command and leading arguments that run the cargo of the BPF compiler.
    cargo: Vec<String>,
    /// bpf-linker.
    linker: String,
}

impl Toolchain {
    fn find() -> Result<Self, String> {
        if let (Ok(cargo), Ok(linker)) = (
            env::var("CLAWKER_BPF_CARGO"),
            env::var("CLAWKER_BPF_LINKER"),
        ) {
            return Ok(Self {
                cargo: words(&cargo),
                linker,
            });
        }
        let cache = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
        let note = cache
            .ok_or("neither XDG_CACHE_HOME nor HOME is set")?
            .join(NOTE);
        println!("cargo::rerun-if-changed={}", note.display());
        let text = fs::read_to_string(&note).map_err(|e| {
            format!(
                "no BPF toolchain is set up ({}: {e}): run scripts/toolchain.sh first",
                note.display()
            )
        })?;
        let mut lines = text.lines();
        let (Some(cargo), Some(linker)) = (lines.next(), lines.next()) else {
            return Err(format!(
                "{} is damaged: run scripts/toolchain.sh again",
                note.display()
            ));
        };
        Ok(Self {
            cargo: words(cargo),
            linker: linker.to_owned(),
        })
    }
}

fn words(s: &str) -> Vec<String> {
    s.split_whitespace().map(str::to_owned).collect()
}

fn build(root: &Path, out: &Path, object: &Path, features: &str) -> Result<(), String> {
    let tools = Toolchain::find()?;
    let (program, leading) = tools
        .cargo
        .split_first()
        .ok_or("the BPF cargo command is empty")?;
    // A directory of its own: cargo holds a lock on the outer one while this script runs.
    let target = out.join("bpf-target");
    let mut flags = OsString::new();
    for flag in ["-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Clink-arg=--btf"] {
        flags.push(flag);
        flags.push("\x1f");
    }
    flags.push("-Clinker=");
    flags.push(&tools.linker);
    let output = Command::new(program)
        .args(leading)
        .args([
            "build",
            "--package=bpf",
            "--bin=clawker",
            "--release",
            "--features",
            features,
        ])
        .args([
            "--target=bpfel-unknown-none",
            "-Zbuild-std=core",
            "--locked",
            "--target-dir",
        ])
        .arg(&target)
        .current_dir(root)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        // Unstable flags on a release compiler, for this build only.
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .output()
        .map_err(|e| format!("cannot run {program}: {e}; run scripts/toolchain.sh"))?;
    if !output.status.success() {
        return Err(format!(
            "the kernel object does not build ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let built = target.join("bpfel-unknown-none/release/clawker");
    fs::copy(&built, object).map_err(|e| format!("cannot copy {}: {e}", built.display()))?;
    Ok(())
}
