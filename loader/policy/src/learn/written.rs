//! The learned policy as text, and the text read back.

use super::rules::Rules;
use crate::destination::Destination;
use crate::diagnostic::{Diagnostic, Severity};
use crate::policy::{Policy, Resolver};
use crate::rule::Action;
use abi::MAX_RESOLVERS;
use ipnet::IpNet;
use std::fmt::{self, Write};
use thiserror::Error;

/// Which text is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The file that `run --learn` keeps: nothing that differs from run to run, so no counts.
    Kept,
    /// What `policy learn` prints: with counts and notes.
    Printed,
}

/// Why a learned policy is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LearnError {
    /// It is more than a policy can hold.
    #[error("what was learned does not make a policy: {0}")]
    TooMuch(String),
    /// The runs had more resolvers than a policy can trust.
    #[error("the runs trusted more than {MAX_RESOLVERS} resolvers together")]
    Resolvers,
}

/// What was learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Whether connections were accepted; nothing is said where a base says it.
    pub(super) inbound: Option<Action>,
    pub(super) resolvers: Vec<Resolver>,
    /// Addresses of the built-in deny set that the base had opened, and that were reached.
    pub(super) allow_builtin: Vec<IpNet>,
    /// The file whose rules are not repeated.
    pub(super) beyond: Option<String>,
    pub(super) rules: Rules,
    pub(super) notes: Vec<String>,
    pub(super) counts: Counts,
}

/// Flows by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) allowed: u64,
    pub(super) denied: u64,
    pub(super) accepted: u64,
}

/// What a file of `run --learn` begins with. Nothing in it may differ from run to run.
const KEPT_HEAD: &str = "\
# Learned by `ebpf-manager run --learn`: what commands reached and nothing denied.
# Review each rule, then enforce it; behind it stand the processes that used it. Another run with
# --learn adds what it sees, unless somebody has changed this file.
";

impl Learned {
    /// What was seen and is in no rule, one line each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How many rules there are.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// The policy file. It has passed the check.
    pub fn render(&self, form: Form) -> Result<String, LearnError> {
        let text = self.text(form);
        let mistake = |found: &Diagnostic| found.severity == Severity::Error;
        match Policy::parse(&text).diagnostics.into_iter().find(mistake) {
            None => Ok(text),
            Some(mistake) => Err(LearnError::TooMuch(mistake.message)),
        }
    }

    fn text(&self, form: Form) -> String {
        let mut out = match form {
            Form::Kept => KEPT_HEAD.to_owned(),
            Form::Printed => self.head(),
        };
        if self.resolvers != [Resolver::System] {
            let list: Vec<String> = self.resolvers.iter().map(resolver).collect();
            push(&mut out, format_args!("resolvers: [{}]", list.join(", ")));
        }
        if !self.allow_builtin.is_empty() {
            let quoted = |net: &IpNet| format!("\"{}\"", Destination::Network(*net));
            let list: Vec<String> = self.allow_builtin.iter().map(quoted).collect();
            push(
                &mut out,
                format_args!("allow_builtin: [{}]", list.join(", ")),
            );
        }
        if let Some(inbound) = self.inbound {
            push(&mut out, format_args!("inbound: {inbound}"));
        }
        // Last, so that a rule can be appended to the file.
        let empty = self.rules.len() == 0;
        out.push_str(if empty { "rules: []\n" } else { "rules:\n" });
        for line in self.rules.lines(form) {
            push(&mut out, format_args!("  {line}"));
        }
        out
    }

    fn head(&self) -> String {
        let mut out = String::new();
        let Counts {
            allowed,
            denied,
            accepted,
        } = self.counts;
        let counts = format_args!(
            "# Learned from flows: {allowed} allowed, {accepted} accepted from peers; {denied} denied are left out."
        );
        push(&mut out, counts);
        let review =
            "# Review each rule; behind it stands how often and by which processes it was used.";
        push(&mut out, format_args!("{review}"));
        if let Some(base) = &self.beyond {
            let base = one_line(base);
            let only =
                format_args!("# Only what {base} does not allow: add it to the `rules` there.");
            push(&mut out, only);
        }
        for note in &self.notes {
            push(&mut out, format_args!("# not learned: {}", one_line(note)));
        }
        out
    }

    /// Reads a file that `run --learn` wrote; nothing if it is not one, or was changed.
    #[must_use]
    pub fn read(source: &str) -> Option<Self> {
        let policy = Policy::parse(source).policy?;
        let mut rules = Rules::default();
        let lines: Vec<&str> = source.lines().collect();
        for rule in &policy.common.rules {
            rules.read(rule, lines.get(rule.line.checked_sub(1)?)?);
        }
        let read = Self {
            inbound: Some(policy.inbound),
            resolvers: policy.resolvers,
            allow_builtin: policy.allow_builtin,
            beyond: None,
            rules,
            notes: Vec::new(),
            counts: Counts::default(),
        };
        (read.text(Form::Kept) == source).then_some(read)
    }

    /// Adds what an earlier run learned.
    pub fn merge(&mut self, earlier: Self) -> Result<(), LearnError> {
        self.rules.merge(earlier.rules);
        let crowded = self.rules.take_crowded().into_keys();
        self.notes.extend(
            crowded.map(|dst| {
                format!("more ports of {dst} than a policy can tell apart: write a range")
            }),
        );
        if earlier.inbound == Some(Action::Allow) {
            self.inbound = Some(Action::Allow);
        }
        join(&mut self.resolvers, earlier.resolvers);
        join(&mut self.allow_builtin, earlier.allow_builtin);
        if self.resolvers.len() > MAX_RESOLVERS {
            return Err(LearnError::Resolvers);
        }
        Ok(())
    }
}

fn join<T: Ord>(all: &mut Vec<T>, more: Vec<T>) {
    all.extend(more);
    all.sort_unstable();
    all.dedup();
}

fn resolver(resolver: &Resolver) -> String {
    match resolver {
        Resolver::System => "system".into(),
        Resolver::CoreDns => "coredns".into(),
        Resolver::Address(addr) => format!("\"{addr}\""),
    }
}

/// A text from outside on one line of a comment.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '_' } else { c })
        .collect()
}

fn push(out: &mut String, line: fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(out, "{line}");
}
