//! What an operator does beside a run: `dump`, `policy apply`, `detach`.

use crate::{check::sum, eventually, run::Bench};
use ebpf_manager::{instance::Root, kernel::Pins};
use serde_json::Value;
use std::{path::Path, process::Output};

impl Bench {
    /// `dump … --json` as objects.
    #[track_caller]
    pub fn dump(&self, args: &[&str]) -> Vec<Value> {
        self.try_dump(args).unwrap_or_else(|e| panic!("dump: {e}"))
    }

    /// `dump … --json` as objects, or what it says on stderr when it fails.
    pub fn try_dump(&self, args: &[&str]) -> Result<Vec<Value>, String> {
        let out = self.operate(&[&["dump", "--json"], args].concat());
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&out.stdout)
            .lines()
            .map(|l| serde_json::from_str(l).expect("dump --json is one object a line"))
            .collect())
    }

    /// Any other command, to its end.
    pub fn operate(&self, args: &[&str]) -> Output {
        let out = self.manager().args(args).output();
        out.expect("ebpf-manager starts")
    }

    /// The one instance that is running.
    #[must_use]
    pub fn instance(&self) -> String {
        let all = self.dump(&[]);
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]["instance"].as_str().expect("a name").to_owned()
    }

    /// A counter of the one instance.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        counter(&self.dump(&["--counters"]), name)
    }

    /// What an instance has pinned.
    #[must_use]
    pub fn pins_of(&self, instance: &str) -> Pins {
        Pins::new(&Root::new(&self.pins).dir().join(instance))
    }

    /// Waits until live flows have sent so many bytes that were acknowledged.
    #[track_caller]
    pub fn acknowledged(&self, bytes: u64) {
        eventually("all bytes to be acknowledged", || {
            let sum = sum(&self.dump(&["--flows"]), "bytes_out");
            (sum == bytes).then_some(())
        });
    }

    /// Puts the one instance under another policy.
    #[track_caller]
    pub fn apply(&self, text: &str) {
        let out = self.try_apply(text);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}");
    }

    /// Tries to put the one instance under another policy.
    pub fn try_apply(&self, text: &str) -> Output {
        let file = self.path("next.yaml");
        std::fs::write(&file, text).expect("the policy is written");
        let file = file.to_str().expect("a path of text");
        self.operate(&["policy", "apply", file, "--instance", &self.instance()])
    }

    /// Asserts that nothing is pinned but the counter of slot numbers, and that the cgroups of these
    /// loaders are gone.
    #[track_caller]
    pub fn nothing_left(&self, loaders: &[u32]) {
        assert!(self.dump(&[]).is_empty(), "something is attached");
        let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
        let pins: Vec<_> = entries(&self.pins)
            .flat_map(|version| entries(&version.path()))
            .map(|e| e.file_name())
            .filter(|n| n != "next_slot")
            .collect();
        assert!(pins.is_empty(), "{pins:?}");
        for pid in loaders {
            let cgroup = crate::instance_cgroup(*pid);
            assert!(!cgroup.exists(), "{}", cgroup.display());
        }
    }
}

/// A counter among the rows of `dump --counters`.
#[track_caller]
#[must_use]
pub fn counter(rows: &[Value], name: &str) -> u64 {
    let row = rows.iter().find(|r| r["counter"] == name);
    row.and_then(|r| r["value"].as_u64())
        .unwrap_or_else(|| panic!("no counter {name} in {rows:#?}"))
}
