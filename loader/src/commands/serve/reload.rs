//! The policy file while `serve` runs: read again when it has changed, or when somebody says so.

use super::super::{
    error_text,
    follow::{Follow, PATIENCE},
};
use crate::{
    audit::{self, Outcome, PolicyChange},
    commands::color_on_stderr,
    policy_file::{self, PolicyFile},
    sink::Sink,
};
use anstream::adapter::strip_str;
use jiff::Timestamp;
use std::{path::Path, time::Instant};

/// A policy file that is followed.
pub(super) struct Reload {
    follow: Option<Follow>,
    /// What was last seen in the file, or why nothing was.
    seen: Result<Vec<u8>, String>,
    asked: bool,
}

impl Reload {
    pub(super) fn new(path: Option<&Path>, file: Option<&PolicyFile>) -> Self {
        let source = file.map(|f| f.source.clone().into_bytes());
        Self {
            follow: path.map(|p| Follow::new(p, Instant::now())),
            seen: Ok(source.unwrap_or_default()),
            asked: false,
        }
    }

    /// Somebody wants the file to be read now.
    pub(super) fn now(&mut self) {
        self.asked = true;
    }

    /// A file that has changed and has no mistakes. What is wrong is told, and what holds goes on.
    pub(super) fn look(&mut self, sink: &mut Sink) -> Option<PolicyFile> {
        let follow = self.follow.as_mut()?;
        let waited = follow.news(Instant::now());
        if waited.is_none() && !self.asked {
            return None;
        }
        let path = follow.path().to_owned();
        let bytes = match policy_file::read_written(&path) {
            Ok(None) if waited.unwrap_or_default() < PATIENCE => return None,
            Ok(None) => Err(format!("policy {}: it is open for writing", path.display())),
            Ok(Some(bytes)) => Ok(bytes),
            Err(e) => Err(e.to_string()),
        };
        if bytes.is_ok() || waited.is_some() {
            follow.read();
        }
        let asked = std::mem::take(&mut self.asked);
        if self.seen == bytes && !asked {
            return None;
        }
        self.seen.clone_from(&bytes);
        let checked = match bytes {
            Ok(bytes) => policy_file::check(&path, bytes, color_on_stderr())
                .map_err(|e| error_text(&e.into())),
            Err(said) => Err(said + "\n"),
        };
        match checked {
            Ok(file) => {
                if file.has_warnings() {
                    anstream::eprint!("{}", file.report(color_on_stderr()));
                }
                Some(file)
            }
            Err(report) => {
                let change = PolicyChange {
                    time: Timestamp::now(),
                    event_name: audit::POLICY,
                    agent: None,
                    project: None,
                    outcome: Outcome::Refused,
                    policy: path.display().to_string(),
                    generation: 0,
                    message: strip_str(report.trim_end()).to_string(),
                };
                sink.change(&change, &report);
                None
            }
        }
    }
}
