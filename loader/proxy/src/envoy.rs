//! Envoy's files: bootstrap, listeners and clusters; which certificates they name.

use crate::access::{self, METADATA};
use crate::agent::{Agent, Fleet};
use crate::chain::{Layer, Way, wanted};
use crate::http::manager;
use crate::names::{Region, single};
use crate::note::Note;
use crate::settings::{LISTENER_OFFSET, READY_PORT, Settings};
use crate::upstream::{clusters, collector, socket};
use policy::{Action, Destination, Policy, PortRange, Proto};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Ports that a proxy listens for. A wider range of a rule is not rendered.
const MAX_PORTS: usize = 64;

/// What Envoy reads. It takes the files up when they are replaced (`rename(2)` into their directory).
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// `bootstrap.json`: what `envoy -c` is given.
    pub bootstrap: Value,
    /// `listeners.json`.
    pub listeners: Value,
    /// `clusters.json`.
    pub clusters: Value,
    /// Names and addresses that certificates are needed for; each has the files of [`certificate_files`].
    pub certificates: BTreeSet<String>,
    /// What is left out.
    pub notes: BTreeSet<Note>,
}

/// Renders a policy for the agents of a fleet. Addresses of nobody are not answered.
#[must_use]
pub fn render(policy: &Policy, fleet: &Fleet, settings: &Settings) -> Rendered {
    between(policy, policy, fleet, settings)
}

/// Renders a policy for the time in which the kernel still leads what another one says: every decision is `policy`'s,
/// also for hosts and ports that `before` sends through Envoy and `policy` does not.
#[must_use]
pub fn between(policy: &Policy, before: &Policy, fleet: &Fleet, settings: &Settings) -> Rendered {
    let mut notes = BTreeSet::new();
    let mut ports = ports(policy, fleet, settings, &mut notes);
    for (port, layers) in self::ports(before, fleet, settings, &mut BTreeSet::new()) {
        ports.entry(port).or_default().extend(layers);
    }
    let mut certificates = BTreeSet::new();
    let mut listeners = Vec::new();
    for (port, layers) in &ports {
        let mut chains = Vec::new();
        let mut answered = false;
        for agent in fleet.agents() {
            for layer in [Layer::Tls, Layer::Raw] {
                let way = Way::new(policy, before, agent, *port, layer);
                let names = match layer {
                    Layer::Tls if layers.contains(&layer) => certified(&way),
                    _ => Vec::new(),
                };
                // Without an allowed name there is no certificate to greet with.
                if !layers.contains(&layer) || (layer == Layer::Tls && names.is_empty()) {
                    chains.push(refusal(&way));
                    continue;
                }
                answered = true;
                chains.push(chain(policy, &way, &names, settings));
                certificates.extend(names);
            }
        }
        if answered {
            listeners.push(listener(*port, &chains, settings));
        }
    }
    Rendered {
        bootstrap: bootstrap(settings),
        listeners: resources(&listeners, settings),
        clusters: resources(&clusters(settings), settings),
        certificates,
        notes,
    }
}

fn resources(all: &[Value], settings: &Settings) -> Value {
    let mut resources = json!({"resources": all});
    if !settings.version.is_empty() {
        resources["version_info"] = json!(settings.version);
    }
    resources
}

/// Ports that agents may send requests to, with the layers that rules are for, and what cannot be had.
fn ports(
    policy: &Policy,
    fleet: &Fleet,
    settings: &Settings,
    notes: &mut BTreeSet<Note>,
) -> BTreeMap<u16, BTreeSet<Layer>> {
    let mut found: BTreeMap<u16, BTreeSet<Layer>> = BTreeMap::new();
    for agent in fleet.agents() {
        let selected = policy.select(agent.agent.as_deref(), agent.project.as_deref());
        for rule in selected.rules() {
            notes.extend(limits(policy, rule, settings));
        }
        for (range, layer) in wanted(selected.rules().iter().copied()) {
            let renderable = layer == Layer::Raw || settings.intercept;
            if renderable && fits(range) {
                for port in range.lo..=range.hi {
                    found.entry(port).or_default().insert(layer);
                }
            }
        }
    }
    found
}

/// Whether every port of a range has a listener's port, and they are not too many.
fn fits(range: PortRange) -> bool {
    range.lo > 0
        && range.hi <= u16::MAX - LISTENER_OFFSET
        && usize::from(range.hi - range.lo) < MAX_PORTS
}

/// What stock Envoy does not do for a rule.
fn limits(policy: &Policy, rule: &policy::Rule, settings: &Settings) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut note = |what: &str| notes.push(Note::of(rule, what));
    if rule.action == Action::Deny {
        return notes;
    }
    match (Layer::of(rule.proto), &rule.dst) {
        (None, _) => {
            if rule.proto == Proto::Ssh || rule.proto == Proto::Tcp {
                note("not sent through Envoy: the kernel decides by name, address and port");
            }
            return notes;
        }
        (Some(Layer::Tls), _) if !settings.intercept => {
            note("TLS is not answered: there are no certificates to intercept it with");
        }
        (Some(Layer::Tls), Destination::Below(_) | Destination::Tree(_)) => {
            note(
                "its certificate holds for one label in front of the name, deeper names fail the handshake",
            );
        }
        _ => {}
    }
    if matches!(&rule.dst, Destination::Network(net) if single(net).is_none()) {
        note("a network is no host: requests that name an address of it are denied");
    }
    if !rule.ports.iter().all(|range| fits(*range)) {
        note("ports above 55535 and ranges of more than 64 are not rendered");
    }
    if !policy.intercept()
        && Layer::of(rule.proto) == Some(Layer::Tls)
        && rule.path_rules.is_empty()
    {
        note("intercept is false: nothing should send it to Envoy, and what comes is intercepted");
    }
    notes
}

/// Names and addresses that a way in needs certificates for: those that may pass.
fn certified(way: &Way<'_, '_>) -> Vec<String> {
    let passes = |region: &Region| {
        let decision = way.decide(region);
        way.passes(decision.action, decision.reason)
    };
    let regions = way.regions.all().into_iter().filter(passes);
    regions
        .filter_map(|region| match region {
            Region::Exact(name) => Some(name),
            Region::Below(base) => Some(format!("*.{base}")),
            Region::Address(address) => Some(address.to_string()),
            Region::Rest => None,
        })
        .collect()
}

/// Files of a certificate and its key, in the directory of the rendered files.
#[must_use]
pub fn certificate_files(name: &str) -> [String; 2] {
    let stem = file_stem(name);
    [
        format!("certificates/{stem}.pem"),
        format!("certificates/{stem}.key"),
    ]
}

/// A star and colons are awkward in file names, and no name has a plus.
fn file_stem(name: &str) -> String {
    name.replace(['*', ':'], "+")
}

fn listener(port: u16, chains: &[Value], settings: &Settings) -> Value {
    let own = port + LISTENER_OFFSET;
    let mut addresses = settings
        .listen
        .iter()
        .map(|addr| socket(&addr.to_string(), own));
    let first = addresses.next();
    let more: Vec<Value> = addresses
        .map(|address| json!({"address": address}))
        .collect();
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": format!("port-{port}"),
        "address": first,
        "additional_addresses": more,
        "per_connection_buffer_limit_bytes": 1_048_576,
        "listener_filters_timeout": "10s",
        "listener_filters": [{
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
            },
        }],
        "filter_chains": chains,
        "access_log": access::connections(own),
    })
}

/// What every connection of a way in is known by.
fn known(way: &Way<'_, '_>, prefixed: &str) -> Value {
    let transport = match way.layer {
        Layer::Tls => "tls",
        Layer::Raw => "raw_buffer",
    };
    json!({
        "name": format!("{prefixed}{transport} {}", sources(way.agent).join(" ")),
        "filter_chain_match": {
            "transport_protocol": transport,
            "source_prefix_ranges": way.agent.addresses.iter().map(|addr| prefix(*addr)).collect::<Vec<_>>(),
        },
        "metadata": {"filter_metadata": {METADATA: identity(way)}},
    })
}

/// Closes what an agent begins on a layer that no rule is about, so that it is told of as the agent's.
fn refusal(way: &Way<'_, '_>) -> Value {
    let mut chain = known(way, access::REFUSAL);
    chain["filters"] = json!([{
        "name": "envoy.filters.network.direct_response",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config",
        },
    }]);
    chain
}

fn chain(policy: &Policy, way: &Way<'_, '_>, names: &[String], settings: &Settings) -> Value {
    let mut chain = known(way, "");
    chain["filters"] = json!([manager(policy, way, settings)]);
    chain["transport_socket_connect_timeout"] = json!("10s");
    if way.layer == Layer::Tls {
        // A chain that is the same stays as it is, with the certificates that it has read.
        chain["metadata"]["filter_metadata"][METADATA]["issued"] = json!(settings.issued);
        chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": downstream_tls(names, settings),
        });
    }
    chain
}

fn sources(agent: &Agent) -> Vec<String> {
    agent.addresses.iter().map(ToString::to_string).collect()
}

fn prefix(address: IpAddr) -> Value {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    json!({"address_prefix": address.to_string(), "prefix_len": bits})
}

/// Who the requests of a way in are from, for the access log. What is not known is not there.
fn identity(way: &Way<'_, '_>) -> Value {
    let mut fields = json!({"dst_port": way.port.to_string()});
    let agent = way.agent;
    for (key, value) in [
        ("agent", &agent.agent),
        ("project", &agent.project),
        ("container_id", &agent.container_id),
    ] {
        if let Some(value) = value {
            fields[key] = json!(value);
        }
    }
    fields
}

/// The certificates stand in the chain, not in secrets that are watched: Envoy opens an inotify instance for each file
/// that it watches, a user has 128 of them, and without one Envoy aborts.
fn downstream_tls(names: &[String], settings: &Settings) -> Value {
    let one = |name: &String| {
        let [certificate, key] = certificate_files(name).map(|file| settings.file(&file));
        json!({"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}})
    };
    json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificates": names.iter().map(one).collect::<Vec<_>>(),
        },
    })
}

/// Answers 200 for `/ready` on Envoy's own loopback once it listens for agents: for a health check, which cannot speak
/// to the admin socket with what is in the stock image.
fn ready() -> Value {
    json!({
        "name": "ready",
        "address": socket("127.0.0.1", READY_PORT),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "ready",
                "route_config": {},
                "http_filters": [
                    {"name": "envoy.filters.http.health_check", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck",
                        "pass_through_mode": false,
                        "headers": [{"name": ":path", "string_match": {"exact": "/ready"}}],
                    }},
                    {"name": "envoy.filters.http.router", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    }},
                ],
            },
        }]}],
    })
}

fn bootstrap(settings: &Settings) -> Value {
    let watched = |file: &str| {
        json!({
            "resource_api_version": "V3",
            "path_config_source": {
                "path": settings.file(file),
                "watched_directory": {"path": settings.directory},
            },
        })
    };
    json!({
        "node": {"id": "clawker-envoy", "cluster": "clawker"},
        // For the loader alone, which asks whether a configuration was taken.
        "admin": {"address": {"pipe": {"path": settings.admin(), "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": watched("listeners.json"),
            "cds_config": watched("clusters.json"),
        },
        "static_resources": {"clusters": [collector(settings)], "listeners": [ready()]},
        "layered_runtime": {"layers": [{
            "name": "static",
            // Expressions are bounded where the policy is read; Envoy's own bound is too low for
            // ordinary ones, and one of them would have the whole configuration refused.
            "static_layer": {"re2.max_program_size.error_level": 1_000_000},
        }]},
        "overload_manager": {"resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": "50000",
            },
        }]},
    })
}
