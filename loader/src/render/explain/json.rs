//! The same as objects, with the field names of records where they mean the same.

use super::{Answer, Tested, mismatched, section};
use crate::record;
use policy::{Effect, Explanation, Lost, Mismatch, Mode, Reason, Request, Target, Why};
use serde::Serialize;
use std::net::IpAddr;

/// What is asked.
#[derive(Debug, Serialize)]
struct Asked<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_port: Option<u16>,
    l4_proto: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
}

/// What decided.
#[derive(Debug, Serialize)]
struct Decided<'a> {
    /// What the rules say: `allow` or `deny`.
    action: String,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// Line of the path rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_rule: Option<usize>,
    /// No path rule matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_default: Option<bool>,
    /// The path rules decide, and no request was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    needs_request: Option<bool>,
}

#[derive(Debug, Serialize)]
struct LostRule<'a> {
    rule: &'a str,
    line: usize,
    text: String,
    why: &'static str,
    /// The rule that decided instead, or what else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// An answer to `policy explain --json`.
#[derive(Debug, Serialize)]
pub struct AnswerJson<'a> {
    /// As the flow's record would have it under the agent's mode.
    verdict: &'static str,
    #[serde(flatten)]
    asked: Asked<'a>,
    #[serde(flatten)]
    decided: Decided<'a>,
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_deny: Option<bool>,
    /// The name may be looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    may_resolve: Option<bool>,
    lost: Vec<LostRule<'a>>,
}

/// One test of `policy test --json`.
#[derive(Debug, Serialize)]
pub struct TestedJson<'a> {
    passed: bool,
    file: &'a str,
    test_line: usize,
    #[serde(flatten)]
    asked: Asked<'a>,
    expect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect_by: Option<&'a str>,
    #[serde(flatten)]
    decided: Decided<'a>,
}

fn asked<'a>(
    target: &'a Target,
    request: Option<&'a Request>,
    (agent, project): (Option<&'a str>, Option<&'a str>),
) -> Asked<'a> {
    Asked {
        agent,
        project,
        dst_host: target.host.as_ref().map(policy::Name::as_str),
        dst_ip: target.addr,
        dst_port: (target.port != 0).then_some(target.port),
        l4_proto: record::proto(target.proto),
        method: request.map(|request| request.method.as_str()),
        path: request.map(|request| request.path.as_str()),
    }
}

fn decided<'a>(told: &Explanation<'a>) -> Decided<'a> {
    let rule = told.decider();
    let path = told.path.as_ref();
    Decided {
        action: told.action().to_string(),
        reason: match told.verdict.reason {
            Reason::Rule(_) => "rule",
            Reason::Default => "default",
            Reason::Builtin(_) => "builtin",
            Reason::Resolver => "resolver",
        },
        rule: rule.map(policy::Rule::title),
        line: rule.map(|rule| rule.line),
        path_rule: path.and_then(|path| path.by).map(|rule| rule.line),
        path_default: path.filter(|path| path.by.is_none()).map(|_| true),
        needs_request: told.needs_request().then_some(true),
    }
}

fn lost<'a>(lost: &Lost<'a>, target: &Target) -> LostRule<'a> {
    let (why, detail) = match lost.why {
        Why::Builtin(_) => ("builtin", None),
        Why::Resolver => ("resolver", None),
        Why::Denied(by) => ("denied", Some(by.title().to_owned())),
        Why::Later(by) => ("later", Some(by.title().to_owned())),
        Why::Section { fits } => ("section", Some(section(lost.rule, fits))),
        Why::Mismatch(mismatch) => (
            match mismatch {
                Mismatch::Destination => "destination",
                Mismatch::NoName => "no_name",
                Mismatch::NoAddress => "no_address",
                Mismatch::Private => "private",
                Mismatch::Protocol => "protocol",
                Mismatch::Port => "port",
            },
            Some(mismatched(mismatch, lost.rule, target)),
        ),
    };
    LostRule {
        rule: lost.rule.title(),
        line: lost.rule.line,
        text: lost.rule.to_string(),
        why,
        detail,
    }
}

impl<'a> Answer<'a> {
    /// The answer as an object, every rule in it.
    #[must_use]
    pub fn json(&self) -> AnswerJson<'a> {
        let told = self.told;
        let mode = told.selected.mode;
        let effect = told.effect(mode);
        AnswerJson {
            verdict: if effect == Effect::Denied {
                "DENIED"
            } else {
                "ALLOWED"
            },
            asked: asked(self.target, self.request, (self.agent, self.project)),
            decided: decided(told),
            mode: match mode {
                Mode::Enforce => "enforce",
                Mode::Audit => "audit",
                Mode::Observe => "observe",
            },
            would_deny: (effect == Effect::WouldDeny).then_some(true),
            may_resolve: self.target.host.as_ref().map(|_| told.may_resolve),
            lost: told.lost.iter().map(|one| lost(one, self.target)).collect(),
        }
    }
}

impl<'a> Tested<'a> {
    /// The test as an object.
    #[must_use]
    pub fn json(&self) -> TestedJson<'a> {
        let case = self.case;
        let identity = (case.agent.as_deref(), case.project.as_deref());
        TestedJson {
            passed: case.passes(self.told),
            file: self.tests,
            test_line: case.line,
            asked: asked(&case.target, case.request.as_ref(), identity),
            expect: case.expect.to_string(),
            expect_by: case.by.as_deref(),
            decided: decided(self.told),
        }
    }
}
