//! Envoy's access log: one OTLP record a request, with the names of `docs/fields.md`.
//!
//! Envoy knows text only; the collector makes numbers of numbers and leaves out `-`, which stands for
//! what there is not. The query of a request is in no record.

use crate::settings::LISTENER_OFFSET;
use serde_json::{Value, json};

/// Name of the cluster that the log goes to.
pub(crate) const COLLECTOR: &str = "collector";
/// Name space of the metadata that chains and routes carry.
pub(crate) const METADATA: &str = "clawker";

/// Attribute and where it comes from, in records of requests.
pub const ATTRIBUTES: [(&str, &str); 24] = [
    ("agent", "%METADATA(LISTENER_FILTER_CHAIN:clawker:agent)%"),
    (
        "project",
        "%METADATA(LISTENER_FILTER_CHAIN:clawker:project)%",
    ),
    (
        "container_id",
        "%METADATA(LISTENER_FILTER_CHAIN:clawker:container_id)%",
    ),
    ("src_ip", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"),
    ("src_port", "%DOWNSTREAM_DIRECT_REMOTE_PORT%"),
    (
        "dst_port",
        "%METADATA(LISTENER_FILTER_CHAIN:clawker:dst_port)%",
    ),
    ("l4_proto", "tcp"),
    ("l7_proto", "%METADATA(ROUTE:clawker:l7_proto)%"),
    ("verdict", "%METADATA(ROUTE:clawker:verdict)%"),
    ("rule", "%METADATA(ROUTE:clawker:rule)%"),
    ("reason", "%METADATA(ROUTE:clawker:reason)%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%PATH(NQ)%"),
    ("request_host", "%REQ(:AUTHORITY)%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("grpc_status", "%GRPC_STATUS%"),
    ("sni", "%REQUESTED_SERVER_NAME%"),
    ("tls_version", "%DOWNSTREAM_TLS_VERSION%"),
    ("upstream_ip", "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
    // What arrived at the agent is what Envoy sent.
    ("bytes_in", "%BYTES_SENT%"),
    ("bytes_out", "%BYTES_RECEIVED%"),
    ("duration_ms", "%DURATION%"),
    ("start_time", "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%"),
];

/// Attributes whose value the route has not, where a filter before it refuses.
const REFUSED: [(&str, &str); 2] = [("verdict", "DENIED"), ("reason", "proxy")];
/// A record of a connection that is nobody's has no more than these.
const CONNECTION: [&str; 5] = [
    "src_ip",
    "src_port",
    "l4_proto",
    "response_flags",
    "start_time",
];

/// The logs of requests: those that reached their route, and those that Envoy refused.
pub(crate) fn requests() -> Value {
    let own = ATTRIBUTES.map(|(key, value)| {
        let refused = REFUSED.iter().find(|(name, _)| *name == key);
        (key, refused.map_or(value, |(_, value)| *value))
    });
    json!([
        logger(&ATTRIBUTES, "routed", &cel(ROUTED)),
        logger(&own, "refused", &cel(&format!("!({ROUTED})"))),
    ])
}

/// Whether a request got as far as its route. What RBAC and the codec refuse has none, or has not been there.
const ROUTED: &str = "has(xds.route_name) && xds.route_name != '' && !(has(response.code_details) && response.code_details.startsWith('rbac_access_denied'))";

/// The logs of connections that come to no request: those that no filter chain is for, those of an agent on a layer
/// that no rule is about, and those whose handshake of TLS fails.
pub(crate) fn connections(listener_port: u16) -> Value {
    let port = (listener_port - LISTENER_OFFSET).to_string();
    let of = |known: &[&str], reason: &'static str| -> Vec<(&str, &str)> {
        let known = |(key, _): &(&str, &str)| CONNECTION.contains(key) || known.contains(key);
        let attributes = ATTRIBUTES.into_iter().filter(known);
        let more = [
            ("dst_port", port.as_str()),
            ("verdict", "DENIED"),
            ("reason", reason),
        ];
        attributes.chain(more).collect()
    };
    let nobody = json!({"response_flag_filter": {"flags": ["NR"]}});
    let (refused, failed) = (
        format!("{NAMED} && {REFUSED_CHAIN}"),
        format!("{NAMED} && {FAILED}"),
    );
    json!([
        logger(&of(&[], "not_enrolled"), "nobody", &nobody),
        logger(&of(&AGENTS, "protocol"), "layer", &cel(&refused)),
        logger(&of(&AGENTS, "proxy"), "handshake", &cel(&failed)),
    ])
}

/// How the name of a chain begins that closes whatever comes.
pub(crate) const REFUSAL: &str = "refused ";
/// What is known besides of a connection that is an agent's.
const AGENTS: [&str; 4] = ["agent", "project", "container_id", "sni"];
/// Whether a connection is an agent's.
const NAMED: &str = "has(xds.filter_chain_name)";
/// Whether its chain is one that closes whatever comes.
const REFUSED_CHAIN: &str = "xds.filter_chain_name.startsWith('refused ')";
/// Whether TLS itself ended it: a client that believes no certificate, an alert, noise.
const FAILED: &str = "xds.filter_chain_name.startsWith('tls ') && has(connection.transport_failure_reason) && connection.transport_failure_reason != ''";

fn cel(expression: &str) -> Value {
    json!({"extension_filter": {
        "name": "envoy.access_loggers.extension_filters.cel",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            "expression": expression,
        },
    }})
}

fn logger(attributes: &[(&str, &str)], prefix: &str, filter: &Value) -> Value {
    let values: Vec<Value> = attributes
        .iter()
        .map(|(key, value)| json!({"key": key, "value": {"string_value": value}}))
        .collect();
    json!({
        "name": "envoy.access_loggers.open_telemetry",
        "filter": filter,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
            "grpc_service": {
                "envoy_grpc": {"cluster_name": COLLECTOR},
                "timeout": "10s",
                // Kept in memory and sent again: an outage that is longer than this, or the end of Envoy,
                // loses what had not left.
                "retry_policy": {
                    "retry_on": "connect-failure,unavailable,refused-stream",
                    "num_retries": 30,
                    "retry_back_off": {"base_interval": "0.5s", "max_interval": "10s"},
                },
            },
            "stat_prefix": prefix,
            "disable_builtin_labels": true,
            "resource_attributes": {"values": [
                {"key": "service.name", "value": {"string_value": "clawker-envoy"}},
            ]},
            "attributes": {"values": values},
        },
    })
}
