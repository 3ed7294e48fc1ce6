//! A command under a policy file that changes.

use crate::{
    check::fields,
    eventually,
    run::{Bench, Outcome},
    talk::Talk,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Opens the first of two destinations.
pub const ONE: &str = "rules:\n  - { name: one, dst: 192.0.2.1, proto: any }\n";
/// Opens the second.
pub const TWO: &str = "rules:\n  - { name: two, dst: 192.0.2.2, proto: any }\n";

/// Says at each word which of the two destinations may be reached.
pub const KNOCK: &str = "while step('one' if tcp('192.0.2.1', 81) == 'ECONNREFUSED' else '-', \
    'two' if tcp('192.0.2.2', 81) == 'ECONNREFUSED' else '-'): pass";

/// A command under a file that is followed, and what came of its changes so far.
pub struct World {
    /// Its place.
    pub bench: Bench,
    /// The command.
    pub talk: Talk,
    /// The policy file.
    pub file: PathBuf,
    told: usize,
}

impl World {
    /// Starts under [`ONE`] in the given file, unless it is there.
    #[must_use]
    pub fn at(bench: Bench, file: &str, args: &[&str], program: &str) -> Self {
        let file = bench.path(file);
        if !file.exists() {
            fs::write(&file, ONE).expect("the policy is written");
        }
        let mut all = vec!["--policy", file.to_str().expect("a plain path")];
        all.extend(args);
        let talk = bench.talk(None, &all, program);
        Self {
            bench,
            talk,
            file,
            told: 0,
        }
    }

    /// Starts [`KNOCK`] under a file that is followed.
    #[must_use]
    pub fn new() -> Self {
        let mut w = Self::at(Bench::new(), "egress.yaml", &["--reload"], KNOCK);
        assert_eq!(w.talk.hear(), "one -");
        w
    }

    /// The next event.
    #[track_caller]
    pub fn event(&mut self) -> Value {
        let at = self.told;
        self.told += 1;
        eventually("a change of policy to be told", || {
            self.bench.events().get(at).cloned()
        })
    }

    /// Waits until the file is applied.
    #[track_caller]
    pub fn applied(&mut self, generation: u32) -> Value {
        let event = self.event();
        let file = self.file.to_str().expect("a plain path");
        fields(
            &event,
            &json!({"event_name": "clawker.overseer.policy", "outcome": "applied", "policy": file, "generation": generation}),
        );
        event
    }

    /// Waits until the file is refused, and why.
    #[track_caller]
    pub fn refused(&mut self, generation: u32, says: &str) {
        let event = self.event();
        fields(
            &event,
            &json!({"outcome": "refused", "generation": generation}),
        );
        let message = event["message"].as_str().expect("a text");
        assert!(message.contains(says), "{says:?} in {message}");
    }

    /// What can be reached now.
    pub fn reached(&mut self) -> String {
        self.talk.go()
    }

    /// Ends the command; every event must have been waited for.
    #[track_caller]
    pub fn end(self) -> Outcome {
        let out = self.talk.end(&self.bench);
        assert_eq!(out.code, 0, "{}", out.stderr);
        assert_eq!(out.events.len(), self.told, "{:#?}", out.events);
        out
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// A new file beside, and then in the place of the old one, as most editors write.
pub fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).expect("the policy is written");
    fs::rename(beside, path).expect("the policy is replaced");
}
