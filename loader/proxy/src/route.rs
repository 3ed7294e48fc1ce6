//! What is decided, as Envoy's virtual hosts and routes.

use crate::access::METADATA;
use crate::chain::{Decision, Layer, Way};
use crate::names::Region;
use crate::upstream::{Out, addresses};
use policy::{Action, PathMatch, PathRule, Policy, Rule};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// Name of the filter that holds a name's addresses against the rules.
pub(crate) const UPSTREAM_FILTER: &str = "clawker.upstream";
/// Name of the filter that holds the authority against the server name of the TLS handshake.
pub(crate) const SNI_FILTER: &str = "clawker.sni";
/// Characters of a rule's name on the page that a denied request gets; Envoy takes pages of up to 4096 bytes.
const MAX_TITLE: usize = 128;

/// Virtual hosts of a way in, the one for everything else last.
pub(crate) fn virtual_hosts(policy: &Policy, way: &Way<'_, '_>) -> Vec<Value> {
    let host = |(number, region): (usize, Region)| virtual_host(policy, way, &region, number);
    way.regions
        .all()
        .into_iter()
        .enumerate()
        .map(host)
        .collect()
}

fn virtual_host(policy: &Policy, way: &Way<'_, '_>, region: &Region, number: usize) -> Value {
    let decision = way.decide(region);
    let mut filters = Map::new();
    if way.layer == Layer::Tls && way.enforced {
        filters.insert(SNI_FILTER.to_owned(), per_route(&agrees(way, region)));
    }
    if allowing(&decision).is_some_and(|rule| rule.private) {
        let open = addresses(policy, way, true);
        filters.insert(UPSTREAM_FILTER.to_owned(), per_route(&open));
    }
    json!({
        "name": format!("{number}"),
        "domains": domains(way, region),
        "routes": routes(way, region, &decision),
        "typed_per_filter_config": filters,
    })
}

/// The rule that allows, if one does.
fn allowing<'p>(decision: &Decision<'p>) -> Option<&'p Rule> {
    decision.rule.filter(|_| decision.action == Action::Allow)
}

fn per_route(rbac: &Value) -> Value {
    let mut rbac = rbac.clone();
    if let Some(fields) = rbac.as_object_mut() {
        fields.remove("@type");
    }
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
        "rbac": rbac,
    })
}

/// Hosts as a request names them. Without a port a host means the protocol's own, wherever the request
/// came in: where that is another, the port must be said.
fn domains(way: &Way<'_, '_>, region: &Region) -> Vec<String> {
    let host = match region {
        Region::Exact(name) => name.clone(),
        Region::Below(base) => format!("*.{base}"),
        Region::Address(IpAddr::V4(address)) => address.to_string(),
        Region::Address(IpAddr::V6(address)) => format!("[{address}]"),
        Region::Rest => return vec!["*".to_owned()],
    };
    let with_port = format!("{host}:{}", way.port);
    if way.port == way.layer.default_port() {
        vec![host, with_port]
    } else {
        vec![with_port]
    }
}

/// How a host of many must be spelled to pass. A last dot, a port of its own or signs that no name has
/// could make it another server than the one that was judged.
fn spelled(way: &Way<'_, '_>, region: &Region) -> Option<Value> {
    const LABEL: &str = "[a-z0-9_-]+";
    let host = match region {
        Region::Exact(_) | Region::Address(_) => return None,
        Region::Below(base) => format!(r"({LABEL}\.)+{}", base.replace('.', r"\.")),
        Region::Rest => format!(r"({LABEL}\.)*{LABEL}|\[[0-9a-f:.]+\]"),
    };
    let own = way.port == way.layer.default_port();
    let may = if own { "?" } else { "" };
    let regex = format!("(?i)({host})(:{}){may}", way.port);
    Some(json!({"name": ":authority", "string_match": {"safe_regex": {"regex": regex}}}))
}

/// Who may be asked under a name of TLS's handshake: the server that the request names, and no other.
fn agrees(way: &Way<'_, '_>, region: &Region) -> Value {
    let mut policy = json!({"permissions": [{"any": true}], "principals": [{"any": true}]});
    match region {
        Region::Exact(name) => {
            policy["permissions"] = json!([{"requested_server_name": {"exact": name}}]);
        }
        // An address is no server name (RFC 6066 §3).
        Region::Address(_) => {
            policy["permissions"] = json!([{"requested_server_name": {"exact": ""}}]);
        }
        Region::Below(_) | Region::Rest => policy["condition"] = same_host(way),
    }
    json!({"rules": {"action": "ALLOW", "policies": {"agrees": policy}}})
}

/// `request.host == sni`, or that and the port, as a parsed expression of CEL. What it cannot evaluate
/// is not allowed.
fn same_host(way: &Way<'_, '_>) -> Value {
    let select = |of: &str, field: &str| json!({"select_expr": {"operand": {"ident_expr": {"name": of}}, "field": field}});
    let call = |function: &str, args: Vec<Value>| json!({"call_expr": {"function": function, "args": args}});
    let method = |target: &Value, function: &str, arg: Value| json!({"call_expr": {"target": target, "function": function, "args": [arg]}});
    let (host, sni) = (
        select("request", "host"),
        select("connection", "requested_server_name"),
    );
    let port = format!(":{}", way.port);
    let length = json!({"const_expr": {"int64_value": port.len().to_string()}});
    let size = |of: &Value| call("size", vec![of.clone()]);
    let ends = method(
        &host,
        "endsWith",
        json!({"const_expr": {"string_value": port}}),
    );
    let starts = method(&host, "startsWith", sni.clone());
    let exactly = call(
        "_==_",
        vec![size(&host), call("_+_", vec![size(&sni), length])],
    );
    let with_port = call("_&&_", vec![call("_&&_", vec![starts, ends]), exactly]);
    let named = call(
        "_!=_",
        vec![sni.clone(), json!({"const_expr": {"string_value": ""}})],
    );
    let same = if way.port == way.layer.default_port() {
        call("_||_", vec![call("_==_", vec![host, sni]), with_port])
    } else {
        with_port
    };
    call("_&&_", vec![named, same])
}

/// The routes of a virtual host; the first that matches a request decides.
fn routes(way: &Way<'_, '_>, region: &Region, decision: &Decision<'_>) -> Vec<Value> {
    // A tunnel hides what is in it.
    let tunnel = json!({"connect_matcher": {}});
    let mut routes = vec![denied_for(way, decision, "protocol", &tunnel)];
    let (every, pathless) = (
        json!({"prefix": "/"}),
        json!({"safe_regex": {"regex": ".*"}}),
    );
    let mut rest = decision.reason;
    if way.passes(decision.action, decision.reason) {
        let spelled = spelled(way, region);
        let rule = allowing(decision);
        let paths = rule.map_or(&[][..], |rule| rule.path_rules.as_slice());
        for path in paths {
            let Some(matching) = matching(path) else {
                continue;
            };
            add(
                &mut routes,
                way,
                decision,
                path.action,
                &matching,
                spelled.as_ref(),
            );
        }
        let last = rule
            .filter(|rule| !rule.path_rules.is_empty())
            .map_or(decision.action, |rule| rule.path_default);
        add(&mut routes, way, decision, last, &every, spelled.as_ref());
        // What is left is spelled as no host is, or `OPTIONS *`, which has no path to judge.
        rest = "name";
    }
    routes.extend([every, pathless].map(|matching| denied_for(way, decision, rest, &matching)));
    routes
}

/// Which requests a path rule is about; nothing where there can be none: paths have no query.
fn matching(path: &PathRule) -> Option<Value> {
    let mut matching = match &path.path {
        PathMatch::Prefix(prefix) if prefix.contains(['?', '#']) => return None,
        PathMatch::Prefix(prefix) => json!({"prefix": prefix}),
        PathMatch::Regex(pattern) => json!({"safe_regex": {"regex": pattern}}),
    };
    if !path.methods.is_empty() {
        let any = path.methods.join("|");
        let methods = json!({"name": ":method", "string_match": {"safe_regex": {"regex": any}}});
        matching["headers"] = json!([methods]);
    }
    Some(matching)
}

/// Adds what happens to the requests of one match.
fn add(
    routes: &mut Vec<Value>,
    way: &Way<'_, '_>,
    decision: &Decision<'_>,
    action: Action,
    matching: &Value,
    spelled: Option<&Value>,
) {
    if !way.passes(action, decision.reason) {
        routes.push(denied_for(way, decision, decision.reason, matching));
        return;
    }
    let out = Out {
        tls: way.layer == Layer::Tls,
        verify: way.layer == Layer::Tls
            && !allowing(decision).is_some_and(|rule| rule.insecure_skip_tls_verify),
        http1: false,
    };
    let upgrade = json!({
        "name": "upgrade",
        "string_match": {"exact": "websocket", "ignore_case": true},
    });
    let matching = with_header(matching, spelled);
    let websocket = with_header(&matching, Some(&upgrade));
    let mut grpc = matching.clone();
    grpc["grpc"] = json!({});
    let http1 = Out {
        http1: out.tls,
        ..out
    };
    routes.extend([
        passed(decision, "websocket", http1, &websocket),
        passed(decision, "grpc", out, &grpc),
        passed(decision, way.layer.l7(), out, &matching),
    ]);
}

/// A match that asks for one header more.
fn with_header(matching: &Value, header: Option<&Value>) -> Value {
    let mut matching = matching.clone();
    let Some(header) = header else {
        return matching;
    };
    match matching.get_mut("headers").and_then(Value::as_array_mut) {
        Some(headers) => headers.push(header.clone()),
        None => matching["headers"] = json!([header]),
    }
    matching
}

fn metadata(verdict: &str, l7: &str, reason: &str, by: &str) -> Value {
    let mut fields = json!({"verdict": verdict, "l7_proto": l7, "reason": reason});
    if !matches!(by, "builtin" | "resolver" | "default") {
        fields["rule"] = json!(by);
    }
    json!({"filter_metadata": {METADATA: fields}})
}

fn passed(decision: &Decision<'_>, l7: &str, out: Out, matching: &Value) -> Value {
    json!({
        "name": "passed",
        "match": matching,
        "metadata": metadata("ALLOWED", l7, decision.reason, decision.by),
        // Streams last as long as they last; the idle time ends what nobody uses.
        "route": {"cluster": out.cluster(), "timeout": "0s", "idle_timeout": "3600s"},
    })
}

fn denied_for(way: &Way<'_, '_>, decision: &Decision<'_>, reason: &str, matching: &Value) -> Value {
    json!({
        "name": "denied",
        "match": matching,
        "metadata": metadata("DENIED", way.layer.l7(), reason, decision.by),
        "direct_response": {"status": 403, "body": {"inline_string": page(decision, reason)}},
        // Envoy answers itself: there is no address to judge.
        "typed_per_filter_config": {UPSTREAM_FILTER: {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
        }},
        "response_headers_to_add": [{
            "header": {"key": "content-type", "value": "text/plain; charset=utf-8"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }],
    })
}

/// What a denied request is answered.
fn page(decision: &Decision<'_>, reason: &str) -> String {
    let title = decision.by.char_indices().nth(MAX_TITLE);
    let title = title.map_or(decision.by, |(end, _)| &decision.by[..end]);
    let why = match (reason, decision.rule) {
        ("name", _) => "the host is not spelled as a name".to_owned(),
        ("protocol", _) => "no rule allows this protocol here".to_owned(),
        ("default", _) => "no rule allows it".to_owned(),
        ("builtin", _) => "the built-in deny set".to_owned(),
        ("resolver", _) => "DNS ports are the resolvers'".to_owned(),
        (_, Some(rule)) => format!("rule `{title}` (line {})", rule.line),
        _ => format!("`{title}`"),
    };
    format!("clawker: denied by the egress policy: {why}\n")
}
