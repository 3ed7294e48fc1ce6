//! Which policy files are followed: those that the command cannot change, or those one was told to follow.

use kernel_tests::{
    check::fields,
    follow::{KNOCK, ONE, TWO, World, replace},
    run::Bench,
};
use nix::unistd::{Uid, chown};
use serde_json::json;
use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, lchown, symlink},
    path::PathBuf,
    process::Stdio,
};

/// A directory that everybody may enter and only root change, outside the bench's own.
fn roots(bench: &Bench) -> PathBuf {
    fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    bench.path("egress.yaml")
}

#[test]
fn a_file_out_of_the_commands_reach_is_followed_without_being_told_to() {
    let bench = Bench::new();
    roots(&bench);
    let mut w = World::at(bench, "egress.yaml", &["--user", "nobody"], KNOCK);
    assert_eq!(w.talk.hear(), "one -");
    replace(&w.file, TWO);
    w.applied(2);
    assert_eq!(w.reached(), "- two");
    // From now on the command could write it.
    fs::set_permissions(&w.file, fs::Permissions::from_mode(0o666)).unwrap();
    fs::write(&w.file, ONE).unwrap();
    w.refused(2, "the command can change");
    assert_eq!(w.reached(), "- two");
    replace(&w.file, ONE);
    w.applied(3);
    assert_eq!(w.reached(), "one -");
    let said = w.end().stderr;
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn a_file_within_the_commands_reach_is_not_followed_unless_told_to() {
    let bench = Bench::new();
    let file = roots(&bench);
    let nobody = Uid::from_raw(65534);
    let ours = bench.path("ours");
    fs::create_dir(&ours).unwrap();
    for (args, exposed) in [
        // Root may write everything.
        (&[][..], &file),
        (&["--user", "nobody"], &file),
        (&["--user", "nobody"], &ours),
    ] {
        let path = if *exposed == ours {
            ours.join("p.yaml")
        } else {
            file.clone()
        };
        fs::write(&path, ONE).unwrap();
        if !args.is_empty() {
            chown(exposed, Some(nobody), None).unwrap();
        }
        let mut all = vec!["--policy", path.to_str().unwrap()];
        all.extend(args);
        let out = bench.run(None, &all, &["true"]);
        let note = format!("because the command can change {}", exposed.display());
        assert!(out.stderr.contains(&note), "{note:?} in {}", out.stderr);
        all.push("--reload");
        let out = bench.run(None, &all, &["true"]);
        let warning = format!("the command can change {} and so lift", exposed.display());
        assert!(
            out.stderr.contains(&warning),
            "{warning:?} in {}",
            out.stderr
        );
    }
}

#[test]
fn a_file_that_is_not_followed_changes_nothing() {
    let bench = Bench::new();
    let mut w = World::at(bench, "egress.yaml", &["--reload"], KNOCK);
    let path = w.file.to_str().unwrap().to_owned();
    let still: Vec<_> = [&[][..], &["--no-reload"]]
        .into_iter()
        .map(|args| {
            let other = Bench::without_network();
            let mut all = vec!["--policy", &path];
            all.extend(args);
            let mut talk = other.talk(None, &all, KNOCK);
            assert_eq!(talk.hear(), "one -");
            (other, talk)
        })
        .collect();
    assert_eq!(w.talk.hear(), "one -");
    // Whoever follows has seen both changes; the others had as long.
    for (generation, text) in [(2, TWO), (3, ONE), (4, TWO)] {
        replace(&w.file, text);
        w.applied(generation);
    }
    for (other, mut talk) in still {
        assert_eq!(talk.go(), "one -");
        let out = talk.end(&other);
        assert_eq!((out.code, out.events.len()), (0, 0), "{}", out.stderr);
    }
    assert_eq!(w.reached(), "- two");
    w.end();
}

#[test]
fn wrong_use_is_told() {
    let bench = Bench::new();
    let file = bench.policy(ONE);
    let file = file.to_str().unwrap();
    for (args, says) in [
        (&["--reload"][..], "--policy"),
        (
            &["--policy", file, "--reload", "--no-reload"],
            "--no-reload",
        ),
    ] {
        let out = bench.run(None, args, &["echo", "ran"]);
        assert_eq!((out.code, out.stdout.as_str()), (2, ""), "{}", out.stderr);
        assert!(out.stderr.contains(says), "{says:?} in {}", out.stderr);
    }
    // A pipe has no later content.
    for (args, code) in [(&["--", "true"][..], 0), (&["--reload", "--", "true"], 2)] {
        let mut c = bench.manager();
        c.args(["run", "--policy", "/dev/stdin"]).args(args);
        let mut child = c
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(ONE.as_bytes())
            .unwrap();
        let out = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{said}");
        assert_eq!(said.contains("not a file"), code == 2, "{said}");
    }
    bench.nothing_left(&[]);
}

#[test]
fn what_only_root_may_read_is_not_shown_through_a_link() {
    let bench = Bench::new();
    let file = roots(&bench);
    let secret = bench.path("secret");
    fs::write(&secret, "password: hunter2\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, ONE).unwrap();
    chown(&file, Some(Uid::from_raw(65534)), None).unwrap();
    let args = ["--user", "nobody", "--reload"];
    let mut w = World::at(bench, "egress.yaml", &args, KNOCK);
    assert_eq!(w.talk.hear(), "one -");
    fs::remove_file(&file).unwrap();
    symlink(&secret, &file).unwrap();
    // As if the command had made it.
    lchown(&file, Some(65534), None).unwrap();
    w.refused(1, "Permission denied");
    replace(&file, TWO);
    w.applied(2);
    assert_eq!(w.reached(), "- two");
    let out = w.end();
    assert!(!format!("{out:?}").contains("hunter2"), "{out:?}");
    fields(&out.events[0], &json!({"outcome": "refused"}));
}
