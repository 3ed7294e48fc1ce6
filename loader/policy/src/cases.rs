//! From `tests:` to [`Case`]s: what `policy test` asks and expects.

use crate::destination::{Destination, Name};
use crate::diagnostic::{Reports, quoted};
use crate::fields::{Field, Fields};
use crate::policy::Case;
use crate::rule_reader::name;
use crate::values::{self, ACTIONS};
use crate::yaml::Node;
use std::net::IpAddr;

const CASE: [&str; 6] = ["agent", "to", "method", "path", "expect", "by"];

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
    let target = to.and_then(|field| target(&field, reports));
    let expect = required(&fields, "expect", item, reports);
    let expect = expect.and_then(|field| field.word(&ACTIONS, reports));
    let method = fields
        .get("method")
        .and_then(|field| values::method(field.text(reports)?, field.span(), reports));
    let path = fields.get("path").and_then(|field| path(&field, reports));
    if let (Some(field), None) | (None, Some(field)) = (fields.get("method"), fields.get("path")) {
        let diagnostic = reports.error(field.key_span, format!("`{}` alone", field.key));
        diagnostic.label("a request has a method and a path");
    }
    let span = to.map_or(&item.span, |field| field.span()).clone();
    let (to, host, addr, port) = target?;
    Some(Case {
        agent: fields.get("agent").and_then(|field| name(&field, reports)),
        to,
        host,
        addr,
        port,
        method,
        path,
        expect: expect?,
        by: fields.get("by").and_then(|field| name(&field, reports)),
        line: reports.line(span.start),
        span,
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

type Target = (String, Option<Name>, Option<IpAddr>, u16);

/// `host:port`, `address:port` or `[address]:port`.
fn target(field: &Field<'_>, reports: &mut Reports<'_>) -> Option<Target> {
    let text = field.text(reports)?;
    let Some((host, port)) = text.rsplit_once(':') else {
        let diagnostic = reports.error(field.span(), format!("{} has no port", quoted(text)));
        diagnostic.label("must be like `api.github.com:443` or `[2001:db8::1]:443`");
        return None;
    };
    let port = values::port(port, field.span(), reports);
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    match values::destination(bare, field.span(), reports)? {
        Destination::Exact(name) => Some((text.to_owned(), Some(name), None, port?)),
        dst => {
            if let Some(addr) = dst.address() {
                return Some((text.to_owned(), None, Some(addr), port?));
            }
            let message = format!("{} is more than one destination", quoted(bare));
            reports
                .error(field.span(), message)
                .label("must be one name or one address");
            None
        }
    }
}

fn path(field: &Field<'_>, reports: &mut Reports<'_>) -> Option<String> {
    let text = field.text(reports)?;
    if text.starts_with('/') {
        return Some(text.to_owned());
    }
    reports
        .error(field.span(), format!("path {} is not a path", quoted(text)))
        .label("must start with `/`");
    None
}
