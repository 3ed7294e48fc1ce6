//! The file of `run --learn`: what is overwritten, what is not, and whose it is.

use kernel_tests::run::Bench;
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
};

/// A run that must not start, and what it says.
#[track_caller]
fn refused(bench: &Bench, policy: Option<&str>, file: &Path, why: &str) {
    let started = bench.path("started");
    let touch = format!("open({started:?}, 'w')");
    let out = bench.learn(policy, file, &touch);
    assert_eq!(out.code, 2, "{}", out.stderr);
    assert!(out.stderr.contains(why), "{}", out.stderr);
    assert!(!started.exists(), "the command was started");
    assert!(out.records.is_empty());
}

#[test]
fn nothing_but_its_own_file_is_overwritten() {
    let bench = Bench::new();
    let file = bench.path("egress.yaml");
    let theirs = "was not written by --learn, or somebody has changed it";
    for text in ["domains: [example.com]\n", "", "not: [yaml", "\u{0}"] {
        fs::write(&file, text).unwrap();
        refused(&bench, None, &file, theirs);
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(bench.learn(None, &file, "").code, 0);
    let learned = fs::read_to_string(&file).unwrap();
    for changed in [
        learned.replace("deny", "allow # mine"),
        format!("{learned}\n"),
        learned.replace("# Review", "# Read"),
        format!("mode: audit\n{learned}"),
    ] {
        fs::write(&file, &changed).unwrap();
        refused(&bench, None, &file, theirs);
        assert_eq!(fs::read_to_string(&file).unwrap(), changed);
    }
    fs::remove_file(&file).unwrap();
    let target = bench.path("target.yaml");
    fs::write(&target, &learned).unwrap();
    symlink(&target, &file).unwrap();
    refused(&bench, None, &file, "is a symbolic link");
    fs::create_dir(bench.path("dir")).unwrap();
    refused(&bench, None, &bench.path("dir"), theirs);
    refused(&bench, None, Path::new("/"), "not the name of a file");
    let enforced = "--learn needs a run that denies nothing";
    refused(&bench, Some("rules: []"), &bench.path("new.yaml"), enforced);
    assert!(!bench.path("new.yaml").exists());
}

/// A file that the command changed is left alone; what was learned is shown.
#[test]
fn a_command_that_touches_the_file_teaches_nothing() {
    let bench = Bench::new();
    let file = bench.path("egress.yaml");
    let forged = "domains: [evil.example]\n";
    let forge = format!("tcp('192.0.2.2', 7001); open({file:?}, 'w').write({forged:?})");
    let out = bench.learn(None, &file, &forge);
    assert_eq!(out.code, 1, "{}", out.stderr);
    assert!(
        out.stderr.contains("was changed while the command ran"),
        "{}",
        out.stderr
    );
    assert!(
        out.stderr
            .contains("  - {dst: 192.0.2.2, proto: tcp, port: 7001} # python3")
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), forged);
    // Nor does a link in its place lead anywhere.
    fs::remove_file(&file).unwrap();
    let victim = bench.path("victim");
    fs::write(&victim, "untouched").unwrap();
    let swap = format!("os.symlink({victim:?}, {file:?})");
    let out = bench.learn(None, &file, &swap);
    assert_eq!(out.code, 1, "{}", out.stderr);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(leftovers(&bench), Vec::<PathBuf>::new());
}

/// Files that were made on the way and not removed.
fn leftovers(bench: &Bench) -> Vec<PathBuf> {
    let entries = fs::read_dir(bench.dir.path()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with('.'))
        .collect()
}

#[test]
fn the_file_belongs_to_whoever_called_sudo() {
    let bench = Bench::new();
    let file = bench.path("egress.yaml");
    let learn = |args: &[&str]| {
        let args = [&["--learn", file.to_str().unwrap()], args].concat();
        let mut command = bench.command(None, &args, &["true"]);
        command.env("SUDO_UID", "65534").env("SUDO_GID", "65534");
        let out = command.output().unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let meta = fs::metadata(&file).unwrap();
        (meta.uid(), meta.mode() & 0o777)
    };
    assert_eq!(learn(&[]), (65534, 0o644));
    fs::remove_file(&file).unwrap();
    // Whoever the command runs as has no part in it.
    assert_eq!(learn(&["--user", "root"]), (65534, 0o644));
    assert_eq!(leftovers(&bench), Vec::<PathBuf>::new());
}
