//! Why a flow is decided as it is: what decided, and of every other rule why it did not.
//!
//! The decision is [`Selected::decide`]'s and the path rules' verdict [`Rule::judge_request`]'s; here
//! is only the telling.

use crate::decide::{Mismatch, Question, Reason, Verdict, names};
use crate::destination::Name;
use crate::paths::{PathMismatch, Request};
use crate::policy::{Mode, Policy, Section};
use crate::rule::{Action, PathRule, Rule};
use crate::select::Selected;

/// Why a rule did not decide.
#[derive(Clone, Copy, Debug)]
pub enum Why<'p> {
    /// The rule is not about the flow.
    Mismatch(Mismatch),
    /// It is, but the destination is in the built-in deny set; what the destination is.
    Builtin(&'static str),
    /// It is, but ports 53 and 853 are the resolvers' business.
    Resolver,
    /// It allows, and this rule denies.
    Denied(&'p Rule),
    /// It says the same as this rule, which stands before it.
    Later(&'p Rule),
    /// It stands in a section of other agents or projects.
    Section {
        /// It would be about the flow.
        fits: bool,
    },
}

/// A rule that did not decide.
#[derive(Clone, Copy, Debug)]
pub struct Lost<'p> {
    /// The rule.
    pub rule: &'p Rule,
    /// Why not.
    pub why: Why<'p>,
}

/// What the path rules of the deciding rule say of a request.
#[derive(Clone, Debug)]
pub struct PathVerdict<'p> {
    /// What happens.
    pub action: Action,
    /// The path rule that decided; `None` is `path_default`.
    pub by: Option<&'p PathRule>,
    /// The path rules before it, and why each was passed over.
    pub passed: Vec<(&'p PathRule, PathMismatch)>,
}

/// What the programs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is refused.
    Denied,
    /// It passes.
    Allowed,
    /// It passes, and its record says `would_deny`: mode audit.
    WouldDeny,
    /// It passes, whatever the rules say: mode observe.
    Observed,
}

/// A decision and everything that led to it.
#[derive(Clone, Debug)]
pub struct Explanation<'p> {
    /// What holds for the agent.
    pub selected: Selected<'p>,
    /// The decision about the flow.
    pub verdict: Verdict,
    /// The decision about the request, where there is one and the deciding rule looks at requests.
    pub path: Option<PathVerdict<'p>>,
    /// Every other rule of the policy, those that came closest first.
    pub lost: Vec<Lost<'p>>,
    /// A name that led here may be asked for; true where none did.
    pub may_resolve: bool,
}

impl Policy {
    /// Explains one flow of an agent, and one request on it.
    #[must_use]
    pub fn explain(
        &self,
        agent: Option<&str>,
        project: Option<&str>,
        question: &Question<'_>,
        request: Option<&Request>,
    ) -> Explanation<'_> {
        let selected = self.select(agent, project);
        let verdict = selected.decide(question);
        let mut lost = lost(&selected, &verdict, question);
        lost.extend(self.elsewhere(agent, project, question));
        lost.sort_by_key(|lost| distance(&lost.why));
        let may = |host: &&str| selected.may_resolve(host);
        let may_resolve = question.hosts.is_empty() || question.hosts.iter().any(may);
        let path = request.and_then(|request| judge(&selected, &verdict, request));
        Explanation {
            selected,
            verdict,
            path,
            lost,
            may_resolve,
        }
    }

    /// The rules of the sections that do not hold for the agent.
    fn elsewhere(
        &self,
        agent: Option<&str>,
        project: Option<&str>,
        question: &Question<'_>,
    ) -> Vec<Lost<'_>> {
        let chosen = self.chosen(agent, project);
        let (question, hosts) = (question.judged(), names(question.hosts));
        let other = |section: &&Section| {
            let mut chosen = chosen.iter().flatten();
            !chosen.any(|one| std::ptr::eq(*one, *section))
        };
        let told = |rule| Lost {
            rule,
            why: Why::Section {
                fits: rule.mismatch(&question, &hosts).is_none(),
            },
        };
        let rules = self.sections().filter(other);
        rules.flat_map(|section| &section.rules).map(told).collect()
    }
}

/// The selected rules that did not decide.
fn lost<'p>(selected: &Selected<'p>, verdict: &Verdict, question: &Question<'_>) -> Vec<Lost<'p>> {
    let (question, hosts) = (question.judged(), names(question.hosts));
    let decider = decider(selected, verdict);
    let told = |rule: &&'p Rule| Lost {
        rule,
        why: why(rule, &question, &hosts, verdict.reason, decider),
    };
    let others = selected.rules().iter();
    others
        .filter(|rule| decider.is_none_or(|decider| !std::ptr::eq(decider, **rule)))
        .map(told)
        .collect()
}

fn decider<'p>(selected: &Selected<'p>, verdict: &Verdict) -> Option<&'p Rule> {
    match verdict.reason {
        Reason::Rule(number) => selected.rules().get(number as usize).copied(),
        _ => None,
    }
}

fn why<'p>(
    rule: &Rule,
    question: &Question<'_>,
    hosts: &[Name],
    reason: Reason,
    decider: Option<&'p Rule>,
) -> Why<'p> {
    if let Some(mismatch) = rule.mismatch(question, hosts) {
        return Why::Mismatch(mismatch);
    }
    match (reason, decider) {
        (Reason::Builtin(what), _) => Why::Builtin(what),
        (_, Some(decider)) if decider.action != rule.action => Why::Denied(decider),
        (_, Some(decider)) => Why::Later(decider),
        // A rule that matches decides, unless the built-in set or the resolvers come first.
        (_, None) => Why::Resolver,
    }
}

/// How far a rule was from deciding; what is about the flow comes first.
fn distance(why: &Why<'_>) -> u8 {
    match why {
        Why::Builtin(_) | Why::Resolver | Why::Denied(_) | Why::Later(_) => 0,
        Why::Section { fits: true } => 1,
        Why::Mismatch(Mismatch::Private) => 2,
        Why::Mismatch(Mismatch::Port) => 3,
        Why::Mismatch(Mismatch::Protocol) => 4,
        Why::Mismatch(Mismatch::NoAddress) => 5,
        Why::Mismatch(Mismatch::NoName) => FAR,
        Why::Mismatch(Mismatch::Destination) => FAR + 1,
        Why::Section { fits: false } => FAR + 2,
    }
}

/// From here on rules are about something else altogether.
const FAR: u8 = 6;

/// What the deciding rule's path rules say; nothing where none are asked.
fn judge<'p>(
    selected: &Selected<'p>,
    verdict: &Verdict,
    request: &Request,
) -> Option<PathVerdict<'p>> {
    let rule = decider(selected, verdict)?;
    if rule.path_rules.is_empty() || verdict.action == Action::Deny {
        return None;
    }
    let (action, by) = rule.judge_request(request);
    let before = &rule.path_rules[..by.unwrap_or(rule.path_rules.len())];
    let passed = before
        .iter()
        .filter_map(|path| Some((path, path.mismatch(request)?)))
        .collect();
    Some(PathVerdict {
        action,
        by: by.and_then(|number| rule.path_rules.get(number)),
        passed,
    })
}

impl Lost<'_> {
    /// The rule is about something else altogether.
    #[must_use]
    pub fn is_far(&self) -> bool {
        distance(&self.why) >= FAR
    }
}

impl<'p> Explanation<'p> {
    /// What happens under `mode: enforce`, the request included.
    #[must_use]
    pub fn action(&self) -> Action {
        self.path
            .as_ref()
            .map_or(self.verdict.action, |path| path.action)
    }

    /// The rule that decided, if one did.
    #[must_use]
    pub fn decider(&self) -> Option<&'p Rule> {
        decider(&self.selected, &self.verdict)
    }

    /// What decided: the name of the rule, else the reason as records have it.
    #[must_use]
    pub fn decided_by(&self) -> &'p str {
        match self.verdict.reason {
            Reason::Builtin(_) => "builtin",
            Reason::Resolver => "resolver",
            Reason::Default => "default",
            Reason::Rule(_) => self.decider().map_or("rule", Rule::title),
        }
    }

    /// The request decides, and none was given.
    #[must_use]
    pub fn needs_request(&self) -> bool {
        let paths = |rule: &Rule| !rule.path_rules.is_empty();
        self.path.is_none()
            && self.verdict.action == Action::Allow
            && self.decider().is_some_and(paths)
    }

    /// What the programs do under a mode. The built-in deny set holds in every one.
    #[must_use]
    pub fn effect(&self, mode: Mode) -> Effect {
        let builtin = matches!(self.verdict.reason, Reason::Builtin(_));
        match (mode, self.action()) {
            (_, Action::Deny) if builtin => Effect::Denied,
            (Mode::Observe, _) => Effect::Observed,
            (_, Action::Allow) => Effect::Allowed,
            (Mode::Audit, Action::Deny) => Effect::WouldDeny,
            (Mode::Enforce, Action::Deny) => Effect::Denied,
        }
    }
}
