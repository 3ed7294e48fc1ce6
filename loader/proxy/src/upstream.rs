//! The way out: clusters, and the addresses that a name may not lead to.

use crate::access::COLLECTOR;
use crate::chain::Way;
use crate::settings::Settings;
use ipnet::IpNet;
use policy::{Action, Policy};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Networks of [`policy::is_private`], as Envoy wants them; IPv4 inside IPv6 is refused as a whole.
pub(crate) const PRIVATE: [&str; 20] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.192/32",
    "192.168.0.0/16",
    "224.0.0.0/3",
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "100.100.100.200/32",
];

/// How Envoy talks to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) tls: bool,
    pub(crate) verify: bool,
    /// HTTP/1.1 only: what an upgrade needs.
    pub(crate) http1: bool,
}

/// Every way that a route can name.
const OUTS: [Out; 5] = [
    Out {
        tls: false,
        verify: false,
        http1: false,
    },
    Out {
        tls: true,
        verify: true,
        http1: false,
    },
    Out {
        tls: true,
        verify: true,
        http1: true,
    },
    Out {
        tls: true,
        verify: false,
        http1: false,
    },
    Out {
        tls: true,
        verify: false,
        http1: true,
    },
];

impl Out {
    /// Name of its cluster.
    pub(crate) fn cluster(self) -> &'static str {
        match (self.tls, self.verify, self.http1) {
            (false, ..) => "plain",
            (true, true, false) => "tls",
            (true, true, true) => "tls_http1",
            (true, false, false) => "tls_unverified",
            (true, false, true) => "tls_unverified_http1",
        }
    }
}

/// One cache of names for every filter and cluster: Envoy wants the same settings wherever it is named.
pub(crate) fn dns_cache(settings: &Settings) -> Value {
    let mut cache = json!({
        "name": "clawker",
        "dns_lookup_family": "ALL",
        "max_hosts": 8192,
        "host_ttl": "60s",
        "dns_query_timeout": "5s",
        "dns_cache_circuit_breaker": {"max_pending_requests": 1024},
    });
    if !settings.resolvers.is_empty() {
        let resolvers: Vec<Value> = settings
            .resolvers
            .iter()
            .map(|one| socket(&one.ip().to_string(), one.port()))
            .collect();
        cache["typed_dns_resolver_config"] = json!({
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": resolvers,
                "dns_resolver_options": {"no_default_search_domain": true},
            },
        });
    }
    cache
}

pub(crate) fn socket(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

/// The clusters that routes name.
pub(crate) fn clusters(settings: &Settings) -> Vec<Value> {
    OUTS.iter().map(|out| cluster(*out, settings)).collect()
}

fn cluster(out: Out, settings: &Settings) -> Value {
    let mut cluster = json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": out.cluster(),
        "connect_timeout": "10s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.dynamic_forward_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
                "dns_cache_config": dns_cache(settings),
                "allow_insecure_cluster_options": !out.verify,
            },
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol(out),
        },
        "circuit_breakers": {"thresholds": [
            {"max_connections": 16384, "max_pending_requests": 16384, "max_requests": 16384},
        ]},
    });
    if out.tls {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": tls(out, settings),
        });
    }
    cluster
}

fn protocol(out: Out) -> Value {
    let mut options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"idle_timeout": "300s", "max_headers_count": 200},
    });
    if !out.tls {
        // In the clear nothing is negotiated: what the agent speaks, the server is spoken to.
        options["use_downstream_protocol_config"] = json!({
            "http_protocol_options": {}, "http2_protocol_options": {},
        });
        return options;
    }
    options["upstream_http_protocol_options"] =
        json!({"auto_sni": true, "auto_san_validation": out.verify});
    let how = if out.http1 {
        "explicit_http_config"
    } else {
        "auto_config"
    };
    options[how] = if out.http1 {
        json!({"http_protocol_options": {}})
    } else {
        json!({"http_protocol_options": {}, "http2_protocol_options": {}})
    };
    options
}

fn tls(out: Out, settings: &Settings) -> Value {
    let mut common = json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
    });
    common["validation_context"] = if out.verify {
        json!({"trusted_ca": {"filename": settings.upstream_ca}})
    } else {
        json!({"trust_chain_verification": "ACCEPT_UNTRUSTED"})
    };
    json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": common,
    })
}

/// The collector, which the access log goes to. It stands in the bootstrap: a listener may not come before it.
pub(crate) fn collector(settings: &Settings) -> Value {
    let host = settings.collector_host.as_str();
    let kind = if host.parse::<IpAddr>().is_ok() {
        "STATIC"
    } else {
        "STRICT_DNS"
    };
    json!({
        "name": COLLECTOR,
        "type": kind,
        "connect_timeout": "5s",
        // Each batch that waits to be sent again counts as a retry until it is: with Envoy's own bound the fourth is lost.
        "circuit_breakers": {"thresholds": [{"max_retries": 10_000, "max_requests": 10_000, "max_pending_requests": 10_000}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
        "load_assignment": {
            "cluster_name": COLLECTOR,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(host, settings.collector_port)}}]}],
        },
    })
}

/// Filter that lets requests go to addresses which the rules let a name lead to, and to no other: where the
/// address is not known, nothing goes. `private`: the deciding rule lets it lead to private ones.
pub(crate) fn addresses(policy: &Policy, way: &Way<'_, '_>, private: bool) -> Value {
    let nets =
        |texts: &[&str]| -> Vec<IpNet> { texts.iter().flat_map(|net| net.parse()).collect() };
    let builtin: Vec<IpNet> = policy.builtin().collect();
    let mut rules = vec![
        any(&nets(&["0.0.0.0/0", "::/0"])),
        // IPv4 in IPv6's clothes: no network of IPv4 would be held against it.
        none(&nets(&["::ffff:0:0/96"]), &[]),
        none(&builtin, policy.allow_builtin()),
    ];
    if way.enforced {
        let denied: Vec<IpNet> = way.networks(Action::Deny).map(|(net, _)| net).collect();
        if !denied.is_empty() {
            rules.push(none(&denied, &[]));
        }
        if !private && way.distrusts() {
            // What a rule allows by its address is allowed, whatever name led there.
            let open: Vec<IpNet> = way
                .networks(Action::Allow)
                .filter(|(_, rule)| rule.path_rules.is_empty())
                .map(|(net, _)| net)
                .collect();
            rules.push(none(&nets(&PRIVATE), &open));
        }
    }
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": "ALLOW", "policies": {"addresses": {
            "permissions": [{"and_rules": {"rules": rules}}],
            "principals": [{"any": true}],
        }}},
    })
}

/// Inside one of some networks.
fn any(nets: &[IpNet]) -> Value {
    let rules: Vec<Value> = nets.iter().map(|net| leads_to(*net)).collect();
    json!({"or_rules": {"rules": rules}})
}

/// Not inside `closed`, or inside `open`.
fn none(closed: &[IpNet], open: &[IpNet]) -> Value {
    let outside = json!({"not_rule": any(closed)});
    if open.is_empty() {
        return outside;
    }
    json!({"or_rules": {"rules": [outside, any(open)]}})
}

fn leads_to(net: IpNet) -> Value {
    json!({"matcher": {
        "name": "envoy.rbac.matchers.upstream_ip_port",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher",
            "upstream_ip": {"address_prefix": net.addr().to_string(), "prefix_len": net.prefix_len()},
        },
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{BUILTIN, is_private};

    #[test]
    fn the_monitors_own_networks_are_refused_to_every_name() {
        let mut policy = Policy::parse("default: allow").policy.unwrap();
        policy.close(&["10.9.0.0/16".parse().unwrap()]);
        let agent = crate::Agent::parse("a@192.0.2.1").unwrap();
        let way = Way::new(&policy, &policy, &agent, 80, crate::chain::Layer::Raw);
        for private in [false, true] {
            let filter = addresses(&policy, &way, private).to_string();
            assert!(
                filter.contains(r#""address_prefix":"10.9.0.0","prefix_len":16"#),
                "{filter}"
            );
        }
    }

    /// At the edges of every network, inside and outside: the list and the predicate are one.
    #[test]
    fn the_private_networks_are_the_policys() {
        let nets: Vec<IpNet> = PRIVATE.iter().map(|net| net.parse().unwrap()).collect();
        let mapped: IpNet = "::ffff:0:0/96".parse().unwrap();
        let step = |addr: IpAddr, up: bool| -> Option<IpAddr> {
            match addr {
                IpAddr::V4(a) => {
                    let n = u32::from(a);
                    (if up {
                        n.checked_add(1)
                    } else {
                        n.checked_sub(1)
                    })
                    .map(|n| IpAddr::V4(n.into()))
                }
                IpAddr::V6(a) => {
                    let n = u128::from(a);
                    (if up {
                        n.checked_add(1)
                    } else {
                        n.checked_sub(1)
                    })
                    .map(|n| IpAddr::V6(n.into()))
                }
            }
        };
        for net in &nets {
            let (first, last) = (net.network(), net.broadcast());
            let near = [
                Some(first),
                Some(last),
                step(first, false),
                step(last, true),
            ];
            for addr in near
                .into_iter()
                .flatten()
                .filter(|addr| !mapped.contains(addr))
            {
                let listed = nets.iter().any(|net| net.contains(&addr));
                assert_eq!(listed, is_private(addr), "{addr}");
            }
        }
        for (net, what) in BUILTIN {
            let inside = nets.iter().any(|private| private.contains(&net));
            assert!(inside, "{what}");
        }
    }
}
