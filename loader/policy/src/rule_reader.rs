//! From one entry of `rules` or `domains` to a [`Rule`].

use crate::destination::Destination;
use crate::diagnostic::{Reports, quoted};
use crate::fields::{Field, Fields};
use crate::rule::{Action, PathRule, PortRange, Proto, Rule};
use crate::values::{self, ACTIONS, PROTOS};
use crate::yaml::Node;

const RULE: [&str; 9] = [
    "name",
    "dst",
    "proto",
    "port",
    "action",
    "path_rules",
    "path_default",
    "insecure_skip_tls_verify",
    "private",
];
const PATH_RULE: [&str; 3] = ["path", "methods", "action"];

/// Where an entry stands.
pub(crate) struct Place<'a> {
    /// Section with a dot, empty for the top level.
    pub(crate) prefix: &'a str,
    /// `rules` or `domains`.
    pub(crate) list: &'static str,
    /// Position, from 0.
    pub(crate) number: usize,
}

impl Place<'_> {
    fn text(&self) -> String {
        format!("{}{}[{}]", self.prefix, self.list, self.number)
    }
}

/// Reads an entry of `domains`: https to a destination.
pub(crate) fn domain(
    item: &Node<'_>,
    place: &Place<'_>,
    reports: &mut Reports<'_>,
) -> Option<Rule> {
    let text = values::item_text(item, "a domain", reports)?;
    let dst = values::destination(text, &item.span, reports)?;
    Some(Rule {
        name: None,
        place: place.text(),
        span: item.span.clone(),
        line: reports.line(item.span.start),
        dst,
        proto: Proto::Https,
        ports: Proto::Https.default_ports().into_iter().collect(),
        action: Action::Allow,
        path_rules: Vec::new(),
        path_default: Action::Deny,
        insecure_skip_tls_verify: false,
        private: false,
    })
}

/// Reads an entry of `rules`. Every key is looked at, whatever is wrong with the others.
pub(crate) fn rule(item: &Node<'_>, place: &Place<'_>, reports: &mut Reports<'_>) -> Option<Rule> {
    let fields = Fields::read(item, "a rule", &RULE, reports)?;
    let name = fields.get("name").and_then(|field| name(&field, reports));
    let dst = destination(&fields, item, reports);
    let proto = match fields.get("proto") {
        Some(field) => field.word(&PROTOS, reports),
        None => Some(Proto::Https),
    };
    let ports = ports(&fields, proto, reports);
    let action = fields
        .get("action")
        .and_then(|field| field.word(&ACTIONS, reports));
    let path_rules = path_rules(&fields, proto, reports);
    let path_default = path_default(&fields, proto, reports);
    let insecure = fields
        .get("insecure_skip_tls_verify")
        .and_then(|field| field.boolean(reports));
    let private = fields
        .get("private")
        .and_then(|field| field.boolean(reports));
    let span = fields
        .get("dst")
        .map_or(&item.span, |field| field.span())
        .clone();
    Some(Rule {
        name,
        place: place.text(),
        line: reports.line(span.start),
        span,
        dst: dst?,
        proto: proto?,
        ports: ports?,
        action: action.unwrap_or(Action::Allow),
        path_rules,
        path_default: path_default.unwrap_or(Action::Deny),
        insecure_skip_tls_verify: insecure.unwrap_or(false),
        private: private.unwrap_or(false),
    })
}

/// Names go to terminals and into records.
pub(crate) fn name(field: &Field<'_>, reports: &mut Reports<'_>) -> Option<String> {
    let text = field.text(reports)?;
    if text.chars().any(char::is_control) {
        let message = format!("`{}` {} has control characters", field.key, quoted(text));
        reports
            .error(field.span(), message)
            .label("must be one line of text");
        return None;
    }
    Some(text.to_owned())
}

fn destination(
    fields: &Fields<'_>,
    item: &Node<'_>,
    reports: &mut Reports<'_>,
) -> Option<Destination> {
    let Some(field) = fields.get("dst") else {
        let diagnostic = reports.error(&item.span, "a rule without `dst`");
        diagnostic
            .label("must say where to")
            .help("add `dst:` with a name, address or network");
        return None;
    };
    let text = field.text(reports)?;
    values::destination(text, field.span(), reports)
}

fn ports(
    fields: &Fields<'_>,
    proto: Option<Proto>,
    reports: &mut Reports<'_>,
) -> Option<Vec<PortRange>> {
    let given = fields
        .get("port")
        .map(|field| (field, values::ports(&field, reports)));
    match (given, proto?) {
        (Some((field, _)), Proto::Icmp) => {
            let diagnostic = reports.error(field.key_span, "`port` in a rule for icmp");
            diagnostic.label("icmp has no ports");
            None
        }
        (Some((_, ports)), _) => ports,
        (None, proto) => proto.default_ports().map_or_else(
            || {
                if let Some(field) = fields.get("proto") {
                    let message = format!("a rule for {proto} without `port`");
                    let diagnostic = reports.error(field.span(), message);
                    diagnostic.label("has no port of its own");
                    diagnostic.help("add `port: 443`, `port: \"9000-9100\"` or `port: [80, 8080]`");
                }
                None
            },
            |ports| Some(vec![ports]),
        ),
    }
}

/// Path rules and `path_default` need requests to look at.
fn needs_http(field: &Field<'_>, proto: Option<Proto>, reports: &mut Reports<'_>) {
    if let Some(proto) = proto.filter(|proto| !proto.is_http()) {
        let message = format!("`{}` in a rule for {proto}", field.key);
        reports
            .error(field.key_span, message)
            .label("only http, https, ws and wss have paths");
    }
}

fn path_rules(
    fields: &Fields<'_>,
    proto: Option<Proto>,
    reports: &mut Reports<'_>,
) -> Vec<PathRule> {
    let Some(field) = fields.get("path_rules") else {
        return Vec::new();
    };
    needs_http(&field, proto, reports);
    let items = field.list(reports).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| path_rule(item, reports))
        .collect()
}

fn path_rule(item: &Node<'_>, reports: &mut Reports<'_>) -> Option<PathRule> {
    let fields = Fields::read(item, "a path rule", &PATH_RULE, reports)?;
    let path = match fields.get("path") {
        Some(field) => values::path(&field, reports),
        None => {
            reports
                .error(&item.span, "a path rule without `path`")
                .label("must say which paths");
            None
        }
    };
    let methods = match fields.get("methods") {
        Some(field) => values::methods(&field, reports),
        None => Some(Vec::new()),
    };
    let action = fields
        .get("action")
        .and_then(|field| field.word(&ACTIONS, reports));
    Some(PathRule {
        path: path?,
        methods: methods?,
        action: action.unwrap_or(Action::Allow),
        line: reports.line(item.span.start),
    })
}

fn path_default(
    fields: &Fields<'_>,
    proto: Option<Proto>,
    reports: &mut Reports<'_>,
) -> Option<Action> {
    let field = fields.get("path_default")?;
    needs_http(&field, proto, reports);
    if fields
        .get("path_rules")
        .is_none_or(|rules| rules.is_empty())
    {
        let diagnostic = reports.warning(field.key_span, "`path_default` without `path_rules`");
        diagnostic.label("decides nothing");
    }
    field.word(&ACTIONS, reports)
}
