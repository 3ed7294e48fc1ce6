//! What `policy explain` and `policy test` say: the decision first, then who lost and why.

mod json;

use super::line::{printable, verdict_style};
use crate::record;
use policy::{
    Action, Case, Destination, Effect, Explanation, Lost, Mismatch, Mode, PathMatch, PathMismatch,
    PathRule, PathVerdict, PortRange, Reason, Request, Rule, Target, Why,
};
use std::{fmt::Write as _, net::IpAddr};

/// Rules far from deciding that are listed; the rest is counted.
const FAR: usize = 20;
/// Rules are padded up to this width.
const WIDEST: usize = 64;

/// An answer to `policy explain`.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Name of the policy file.
    pub file: &'a str,
    /// Agent asked for.
    pub agent: Option<&'a str>,
    /// Project asked for.
    pub project: Option<&'a str>,
    /// Where to.
    pub target: &'a Target,
    /// The request, if one was asked about.
    pub request: Option<&'a Request>,
    /// Addresses of the policy's resolvers, as far as they are known.
    pub trusted: &'a [IpAddr],
    /// What is told.
    pub told: &'a Explanation<'a>,
}

/// One test of `policy test` and what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Tested<'a> {
    /// The test.
    pub case: &'a Case,
    /// What the policy says.
    pub told: &'a Explanation<'a>,
    /// Name of the file with the tests.
    pub tests: &'a str,
    /// Name of the policy file.
    pub policy: &'a str,
}

/// `2 passed, 1 failed`.
#[must_use]
pub fn summary(passed: usize, failed: usize) -> String {
    format!("{passed} passed, {failed} failed\n")
}

/// What is asked, on one line: `tcp api.github.com:443 GET /x for acme/reviewer`.
fn question(
    target: &Target,
    request: Option<&Request>,
    (agent, project): (Option<&str>, Option<&str>),
) -> String {
    let mut text = format!("{} {target}", record::proto(target.proto));
    if let (Some(_), Some(addr)) = (&target.host, target.addr) {
        let _ = write!(text, " at {addr}");
    }
    if let Some(request) = request {
        let _ = write!(text, " {} {}", request.method, request.path);
    }
    match (agent, project) {
        (None, None) => {}
        (Some(agent), None) => text.push_str(&format!(" for {agent}")),
        (None, Some(project)) => text.push_str(&format!(" for the project {project}")),
        (Some(agent), Some(project)) => text.push_str(&format!(" for {project}/{agent}")),
    }
    printable(&text)
}

fn verdict(action: Action) -> &'static str {
    match action {
        Action::Allow => "ALLOWED",
        Action::Deny => "DENIED",
    }
}

/// What decided, on one line.
fn decider(told: &Explanation<'_>, file: &str, port: u16, trusted: &[IpAddr]) -> String {
    let action = told.verdict.action;
    match (told.verdict.reason, told.decider()) {
        (_, Some(rule)) => format!("rule {:?} ({file}:{}): {rule}", rule.title(), rule.line),
        (Reason::Builtin(what), _) => {
            format!("built-in deny set: {what}; only `allow_builtin` opens it")
        }
        (Reason::Resolver, _) if action == Action::Allow => "DNS to a trusted resolver".to_owned(),
        (Reason::Resolver, _) if port == 53 => {
            let list: Vec<String> = trusted.iter().map(ToString::to_string).collect();
            let list = if list.is_empty() {
                "none is known here".to_owned()
            } else {
                list.join(", ")
            };
            format!("port 53 belongs to `resolvers` ({list}), whatever the rules say")
        }
        (Reason::Resolver, _) => "port 853 is closed to everybody, whatever the rules say".into(),
        _ => format!("default {action}: no rule is about it"),
    }
}

impl Answer<'_> {
    /// The answer as text. `all`: every rule, however far from deciding.
    #[must_use]
    pub fn text(&self, all: bool) -> String {
        let told = self.told;
        let verdict = verdict(told.action());
        let style = verdict_style(verdict);
        let asked = question(self.target, self.request, (self.agent, self.project));
        let mut out = format!("{style}{verdict}{style:#}  {asked}\n");
        let mut say = |text: &str| {
            let _ = writeln!(out, "  {text}");
        };
        say(&decider(told, self.file, self.target.port, self.trusted));
        if let Some(path) = &told.path {
            paths(path, self.file).iter().for_each(|line| say(line));
        }
        if told.needs_request() {
            say("its path rules judge each request: ask with --method and --path");
        }
        if let Some(mode) = self.mode() {
            say(mode);
        }
        if !told.may_resolve {
            say("the name is not looked up: no rule could allow it, and the query is refused");
        }
        if self.target.addr.is_some_and(|addr| addr.is_loopback()) {
            say("inside a container loopback is not egress, and nothing judges it");
        }
        out.push_str(&self.lost(all));
        out
    }

    /// What the mode makes of the decision, where that is something else.
    fn mode(&self) -> Option<&'static str> {
        let denied = self.told.action() == Action::Deny;
        let mode = self.told.selected.mode;
        match (mode, self.told.effect(mode)) {
            (Mode::Enforce, _) | (Mode::Audit, Effect::Allowed) => None,
            (_, Effect::WouldDeny) => {
                Some("mode audit: it passes all the same, and its record says would_deny")
            }
            (_, Effect::Denied) => Some("the built-in deny set holds in every mode"),
            _ if denied => Some("mode observe: it passes all the same"),
            _ => Some("mode observe: everything but the built-in deny set passes"),
        }
    }

    fn lost(&self, all: bool) -> String {
        let lost = &self.told.lost;
        if lost.is_empty() {
            return String::new();
        }
        let near = lost.iter().filter(|lost| !lost.is_far()).count();
        let shown = if all { lost.len() } else { near + FAR };
        let rows: Vec<[String; 3]> = lost.iter().take(shown).map(|lost| self.row(lost)).collect();
        let width = |column: usize| {
            let widths = rows.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or(0).min(WIDEST)
        };
        let (first, second) = (width(0), width(1));
        let mut out = "rules that did not decide:\n".to_owned();
        for [place, rule, why] in &rows {
            let _ = writeln!(out, "  {place:<first$}  {rule:<second$}  {why}");
        }
        let more = lost.len().saturating_sub(shown);
        if more > 0 {
            let _ = writeln!(out, "  and {more} more, further off; --all lists them");
        }
        out
    }

    fn row(&self, lost: &Lost<'_>) -> [String; 3] {
        let rule = lost.rule;
        let name = rule.name.as_deref();
        let name = name.map(|name| format!("{name:?} ")).unwrap_or_default();
        [
            format!("{}:{}", self.file, rule.line),
            format!("{name}{rule}"),
            why(lost, self.target),
        ]
    }
}

/// Why a rule did not decide, in words.
fn why(lost: &Lost<'_>, target: &Target) -> String {
    let titled = |by: &Rule| format!("{:?} (line {})", by.title(), by.line);
    match lost.why {
        Why::Builtin(_) => "the built-in deny set comes first".to_owned(),
        Why::Resolver => "ports 53 and 853 have no rules".to_owned(),
        Why::Denied(by) => format!("deny beats allow: {}", titled(by)),
        Why::Later(by) => format!("{} comes first and says the same", titled(by)),
        Why::Section { fits } => section(lost.rule, fits),
        Why::Mismatch(mismatch) => mismatched(mismatch, lost.rule, target),
    }
}

/// Whom a rule is for.
fn section(rule: &Rule, fits: bool) -> String {
    let place = &rule.place;
    let section = [".rules[", ".domains["]
        .iter()
        .find_map(|list| place.rsplit_once(list))
        .map_or(place.as_str(), |(section, _)| section);
    let would = if fits { ", would be about it" } else { "" };
    format!("only for {section}{would}")
}

fn mismatched(mismatch: Mismatch, rule: &Rule, target: &Target) -> String {
    match mismatch {
        Mismatch::Destination if matches!(rule.dst, Destination::Network(_)) => {
            "the address does not match".to_owned()
        }
        Mismatch::Destination => "the name does not match".to_owned(),
        Mismatch::NoName => "for a name; none is known to lead here".to_owned(),
        Mismatch::NoAddress => "for addresses; --addr says where the name leads".to_owned(),
        Mismatch::Private => {
            "the name leads to a private address, and `private: true` is not said".to_owned()
        }
        Mismatch::Protocol => {
            format!(
                "wrong protocol: {}, not {}",
                rule.proto,
                record::proto(target.proto)
            )
        }
        Mismatch::Port if target.port == 0 => "wrong protocol: only what has ports".to_owned(),
        Mismatch::Port => format!("wrong port: {}, not {}", ports(&rule.ports), target.port),
    }
}

fn ports(ranges: &[PortRange]) -> String {
    let all: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    all.join(", ")
}

/// The path rules up to the one that decided.
fn paths(path: &PathVerdict<'_>, file: &str) -> Vec<String> {
    let line = |rule: &PathRule, what: &str| {
        format!("{file}:{} path {}: {what}", rule.line, pattern(rule))
    };
    let passed = path.passed.iter().map(|(rule, why)| match why {
        PathMismatch::Path => line(rule, "another path"),
        PathMismatch::Method => line(rule, &format!("only {}", rule.methods.join(", "))),
    });
    let last = match path.by {
        Some(rule) => line(rule, &format!("{}, the first that matches", rule.action)),
        None => format!("path_default {}: no path rule matches", path.action),
    };
    passed.chain([last]).collect()
}

fn pattern(rule: &PathRule) -> String {
    match &rule.path {
        PathMatch::Prefix(prefix) => printable(prefix),
        PathMatch::Regex(regex) => format!("~{}", printable(regex)),
    }
}

impl Tested<'_> {
    fn identity(&self) -> (Option<&str>, Option<&str>) {
        (self.case.agent.as_deref(), self.case.project.as_deref())
    }

    /// What a test that fails says.
    #[must_use]
    pub fn difference(&self) -> String {
        let (case, told) = (self.case, self.told);
        let style = verdict_style("DENIED");
        let asked = question(&case.target, case.request.as_ref(), self.identity());
        let by = case.by.as_ref().map(|by| format!(" by {by:?}"));
        let mut out = format!(
            "{style}FAILED{style:#}  {}:{} {asked}\n",
            self.tests, case.line
        );
        let _ = writeln!(out, "  expected {}{}", case.expect, by.unwrap_or_default());
        let found = decider(told, self.policy, case.target.port, &[]);
        let _ = writeln!(out, "  got      {} by {found}", told.action());
        if let Some(path) = &told.path {
            for line in paths(path, self.policy) {
                let _ = writeln!(out, "           {line}");
            }
        } else if told.needs_request() {
            let _ = writeln!(
                out,
                "           its path rules judge each request: add `method` and `path`"
            );
        }
        out
    }
}
