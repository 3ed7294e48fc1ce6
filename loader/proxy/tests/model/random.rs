//! Random policies: few names, ports and paths, so that they meet.

use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn host() -> impl Strategy<Value = String> {
    let labels = prop::collection::vec(select(vec!["a", "b", "ab", "w"]), 1..4);
    labels.prop_map(|labels| labels.join("."))
}

fn path_rule() -> impl Strategy<Value = String> {
    let path = select(vec![
        "/",
        "/a",
        "/a/",
        "/a/b",
        "/b?x",
        "~/a/[a-z]+",
        "~/.*b",
        "~(?i)/A|/b",
    ]);
    let methods = select(vec![
        "",
        ", methods: [GET]",
        ", methods: [GET, HEAD]",
        ", methods: [POST]",
    ]);
    let action = select(vec!["", ", action: deny"]);
    (path, methods, action)
        .prop_map(|(path, methods, action)| format!("{{path: \"{path}\"{methods}{action}}}"))
}

fn rule() -> impl Strategy<Value = String> {
    let name = (host(), select(vec!["", ".", "*."])).prop_map(|(name, how)| format!("{how}{name}"));
    let address = select(vec![
        "192.0.2.7",
        "192.0.2.0/24",
        "\\\"2001:db8::7\\\"",
        "10.1.2.3",
    ]);
    let dst = prop_oneof![6 => name, 1 => address.prop_map(|one| one.replace("\\\"", ""))];
    let http = (
        select(vec![
            "https",
            "http",
            "ws",
            "wss",
            "https, port: [443, 8443]",
            "http, port: 80-82",
            "http, port: 443",
        ]),
        prop::collection::vec(path_rule(), 0..4),
        select(vec!["", ", path_default: allow", ", path_default: deny"]),
    );
    let http = http.prop_map(|(proto, paths, default)| {
        if paths.is_empty() {
            format!("proto: {proto}")
        } else {
            format!(
                "proto: {proto}, path_rules: [{}]{default}",
                paths.join(", ")
            )
        }
    });
    let other = select(vec![
        "ssh",
        "any",
        "any, port: 80",
        "tcp, port: 443",
        "tcp, port: 1-65535",
        "udp, port: 443",
        "icmp",
    ]);
    let other = other.prop_map(|proto| format!("proto: {proto}"));
    let how = prop_oneof![4 => http, 1 => other];
    let rest = select(vec![
        "",
        "",
        ", action: deny",
        ", private: true",
        ", insecure_skip_tls_verify: true",
    ]);
    (dst, how, rest).prop_map(|(dst, how, rest)| format!("{{dst: \"{dst}\", {how}{rest}}}"))
}

/// A policy with rules for all, for the project `p`, and for the agent `p/a`.
pub(crate) fn source() -> impl Strategy<Value = String> {
    let rules = |most| prop::collection::vec(rule(), 0..most);
    let default = select(vec!["deny", "deny", "allow"]);
    let mode = select(vec!["enforce", "enforce", "enforce", "audit", "observe"]);
    (rules(10), rules(4), rules(4), default, mode).prop_map(|(common, project, own, default, mode)| {
        format!(
            "mode: {mode}\ndefault: {default}\nresolvers: [192.0.2.53]\nrules: [{}]\nprojects: {{p: {{rules: [{}]}}}}\nagents: {{p/a: {{rules: [{}]}}}}\n",
            common.join(", "),
            project.join(", "),
            own.join(", "),
        )
    })
}
