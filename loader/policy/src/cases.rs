//! From `tests:` to [`Case`]s: what `policy test` asks and expects.

use crate::diagnostic::{Reports, quoted};
use crate::explain::Explanation;
use crate::fields::{Field, Fields};
use crate::paths::Request;
use crate::policy::{Case, Policy};
use crate::rule_reader::name;
use crate::target::{TARGET_PROTOS, Target};
use crate::values::{self, ACTIONS};
use crate::yaml::Node;
use std::net::IpAddr;

impl Case {
    /// What the policy says of the case. `trusted` are the addresses of its resolvers.
    #[must_use]
    pub fn explain<'p>(&self, policy: &'p Policy, trusted: &[IpAddr]) -> Explanation<'p> {
        let (agent, project) = (self.agent.as_deref(), self.project.as_deref());
        self.target.ask(trusted, |question| {
            policy.explain(agent, project, question, self.request.as_ref())
        })
    }

    /// Whether that is what the case expects: the action, and what decided if it says.
    #[must_use]
    pub fn passes(&self, told: &Explanation<'_>) -> bool {
        let by = self.by.as_deref();
        told.action() == self.expect && by.is_none_or(|by| by == told.decided_by())
    }
}

const CASE: [&str; 8] = [
    "agent", "project", "to", "proto", "method", "path", "expect", "by",
];

pub(crate) fn read(top: &Fields<'_>, reports: &mut Reports<'_>) -> Vec<Case> {
    let items = top
        .get("tests")
        .and_then(|field| field.list(reports))
        .unwrap_or_default();
    items
        .iter()
        .filter_map(|item| case(item, reports))
        .collect()
}

fn case(item: &Node<'_>, reports: &mut Reports<'_>) -> Option<Case> {
    let fields = Fields::read(item, "a test", &CASE, reports)?;
    let to = required(&fields, "to", item, reports);
    let target = to.and_then(|to| target(&to, fields.get("proto"), reports));
    let expect = required(&fields, "expect", item, reports);
    let expect = expect.and_then(|field| field.word(&ACTIONS, reports));
    let identity = identity(&fields, reports);
    let request = request(&fields, reports);
    let by = fields.get("by").map(|field| name(&field, reports));
    let span = to.map_or(&item.span, |field| field.span());
    let (agent, project) = identity?;
    Some(Case {
        agent,
        project,
        target: target?,
        request: request?,
        expect: expect?,
        by: by.flatten(),
        line: reports.line(span.start),
    })
}

fn required<'n>(
    fields: &Fields<'n>,
    key: &str,
    item: &Node<'_>,
    reports: &mut Reports<'_>,
) -> Option<Field<'n>> {
    let field = fields.get(key);
    if field.is_none() {
        reports
            .error(&item.span, format!("a test without `{key}`"))
            .label("must have one");
    }
    field
}

fn target(
    field: &Field<'_>,
    proto: Option<Field<'_>>,
    reports: &mut Reports<'_>,
) -> Option<Target> {
    let proto = match proto {
        Some(proto) => Some(proto.word(&TARGET_PROTOS, reports)?),
        None => None,
    };
    let text = field.text(reports)?;
    match Target::parse(text, proto) {
        Ok(target) => Some(target),
        Err(error) => {
            let diagnostic = reports.error(field.span(), error.to_string());
            diagnostic.label(error.label());
            if let Some(help) = error.help() {
                diagnostic.help(help);
            }
            None
        }
    }
}

/// Agent and project; `agent: project/agent` names both.
type Identity = (Option<String>, Option<String>);

fn identity(fields: &Fields<'_>, reports: &mut Reports<'_>) -> Option<Identity> {
    let agent = fields.get("agent");
    let project = fields.get("project");
    let written = |field: Option<Field<'_>>, reports: &mut Reports<'_>| match field {
        Some(field) => name(&field, reports).map(Some),
        None => Some(None),
    };
    let (key, own) = (written(agent, reports)?, written(project, reports)?);
    match (key.as_deref().and_then(|key| key.split_once('/')), own) {
        (None, own) => Some((key, own)),
        (Some((project, agent)), None) => Some((Some(agent.to_owned()), Some(project.to_owned()))),
        (Some(_), Some(_)) => {
            let at = project.map_or(0..0, |field| field.key_span.clone());
            reports
                .error(&at, "`project` beside `agent: project/agent`")
                .label("the project is named twice");
            None
        }
    }
}

/// The outer `None` is a mistake, the inner one a test without a request.
fn request(fields: &Fields<'_>, reports: &mut Reports<'_>) -> Option<Option<Request>> {
    let (method, path) = match (fields.get("method"), fields.get("path")) {
        (None, None) => return Some(None),
        (Some(method), Some(path)) => (method, path),
        (Some(field), None) | (None, Some(field)) => {
            let diagnostic = reports.error(field.key_span, format!("`{}` alone", field.key));
            diagnostic.label("a request has a method and a path");
            return None;
        }
    };
    let name = method.text(reports);
    let name = name.and_then(|text| values::method(text, method.span(), reports));
    let target = path.text(reports)?;
    match Request::new(name.as_deref()?, target) {
        Ok(request) => Some(Some(request)),
        Err(error) => {
            let message = format!("path {} {error}", quoted(target));
            reports.error(path.span(), message).label(error.label());
            None
        }
    }
}
