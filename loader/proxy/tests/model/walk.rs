//! A model of how Envoy finds a route in what is rendered (its documentation of `RouteConfiguration`): the
//! chain by source and transport, the virtual host by the most specific domain, the first route that
//! matches. It is a model; `tests/stack` sends requests through the real one.

use regex::Regex;
use serde_json::Value;

/// A request as Envoy sees it, its path normalised.
#[derive(Clone, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) source: &'a str,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) host: &'a str,
    pub(crate) method: &'a str,
    /// Path and query.
    pub(crate) path: &'a str,
    pub(crate) upgrade: bool,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Cluster that it goes to; none: refused.
    pub(crate) cluster: Option<String>,
    pub(crate) verdict: String,
    pub(crate) reason: String,
    pub(crate) rule: Option<String>,
}

/// Nothing where no chain is for the connection.
pub(crate) fn walk(listeners: &Value, asked: &Asked<'_>) -> Option<Answer> {
    let chain = chain(listeners, asked)?;
    let filter = &chain["filters"][0];
    if filter["name"] == "envoy.filters.network.direct_response" {
        return None;
    }
    let config = &filter["typed_config"]["route_config"];
    let hosts = config["virtual_hosts"].as_array().unwrap();
    let host = asked.host.to_ascii_lowercase();
    let virtual_host = virtual_host(hosts, &host);
    let routes = virtual_host["routes"].as_array().unwrap();
    let route = routes
        .iter()
        .find(|route| matches(&route["match"], asked))
        .unwrap();
    let fields = &route["metadata"]["filter_metadata"]["clawker"];
    let text = |field: &str| fields[field].as_str().map(ToOwned::to_owned);
    let cluster = route["route"]["cluster"].as_str().map(ToOwned::to_owned);
    assert_eq!(cluster.is_none(), route["direct_response"]["status"] == 403);
    Some(Answer {
        cluster,
        verdict: text("verdict").unwrap(),
        reason: text("reason").unwrap(),
        rule: text("rule"),
    })
}

fn chain<'v>(listeners: &'v Value, asked: &Asked<'_>) -> Option<&'v Value> {
    let name = format!("port-{}", asked.port);
    let all = listeners["resources"].as_array().unwrap();
    let listener = all.iter().find(|listener| listener["name"] == name)?;
    let own = &listener["address"]["socket_address"]["port_value"];
    assert_eq!(own.as_u64(), Some(u64::from(asked.port) + 10_000));
    let transport = if asked.tls { "tls" } else { "raw_buffer" };
    let of = |chain: &&Value| {
        let matching = &chain["filter_chain_match"];
        let sources = matching["source_prefix_ranges"].as_array().unwrap();
        matching["transport_protocol"] == transport
            && sources
                .iter()
                .any(|source| source["address_prefix"] == asked.source)
    };
    let chains = listener["filter_chains"].as_array().unwrap();
    let mut found = chains.iter().filter(of);
    let first = found.next();
    assert!(found.next().is_none(), "two chains for one connection");
    first
}

fn virtual_host<'v>(hosts: &'v [Value], host: &str) -> &'v Value {
    let mut best: Option<(usize, &Value)> = None;
    let mut seen = Vec::new();
    for one in hosts {
        for domain in one["domains"].as_array().unwrap() {
            let domain = domain.as_str().unwrap();
            assert!(
                !seen.contains(&domain),
                "{domain} twice: Envoy takes no such file"
            );
            seen.push(domain);
            let weight = match domain.strip_prefix('*') {
                Some("") => 1,
                Some(suffix) if host.ends_with(suffix) && host.len() > suffix.len() => {
                    1 + suffix.len()
                }
                None if host == domain => usize::MAX,
                _ => continue,
            };
            if best.is_none_or(|(before, _)| weight > before) {
                best = Some((weight, one));
            }
        }
    }
    best.unwrap().1
}

fn matches(matching: &Value, asked: &Asked<'_>) -> bool {
    if matching["connect_matcher"].is_object() {
        return asked.method == "CONNECT";
    }
    let path = asked.path.split('?').next().unwrap();
    let place = match (
        matching["prefix"].as_str(),
        matching["safe_regex"]["regex"].as_str(),
    ) {
        (Some(prefix), None) => asked.path.starts_with(prefix),
        (None, Some(regex)) => full(regex, path),
        other => panic!("{other:?}"),
    };
    let headers = matching["headers"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let grpc = matching["grpc"].is_object();
    place
        && !grpc
        && asked.method != "CONNECT"
        && headers.iter().all(|header| header_matches(header, asked))
}

fn header_matches(header: &Value, asked: &Asked<'_>) -> bool {
    let value = match header["name"].as_str().unwrap() {
        ":method" => asked.method,
        ":authority" => asked.host,
        "upgrade" if asked.upgrade => "WebSocket",
        "upgrade" => return false,
        other => panic!("{other}"),
    };
    let wanted = &header["string_match"];
    match (
        wanted["exact"].as_str(),
        wanted["safe_regex"]["regex"].as_str(),
    ) {
        (Some(exact), None) => exact.eq_ignore_ascii_case(value),
        (None, Some(regex)) => full(regex, value),
        other => panic!("{other:?}"),
    }
}

/// As RE2 does it for Envoy: the whole text.
fn full(regex: &str, text: &str) -> bool {
    Regex::new(&format!(r"\A(?:{regex})\z"))
        .unwrap()
        .is_match(text)
}
