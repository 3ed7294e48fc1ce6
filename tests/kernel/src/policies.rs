//! Policies that several files of tests share.

/// Documentation addresses, all of TCP.
pub const TCP: &str = "rules:\n\
    - { name: doc nets, dst: 192.0.2.0/24, proto: tcp, port: 1-65535 }\n\
    - { name: v6, dst: \"2001:db8::/32\", proto: tcp, port: 1-65535 }\n\
    - { name: far, dst: 198.51.100.0/24, proto: tcp, port: 1-65535 }\n";

/// Documentation addresses, UDP above the ports of services; idle after a second.
pub const UDP: &str = "udp_idle: 1s\nrules:\n\
    - { name: games, dst: 192.0.2.0/24, proto: udp, port: 1000-65535 }\n\
    - { name: six, dst: \"2001:db8::/32\", proto: udp, port: 1000-65535 }\n";

/// One port of one address.
pub const WEB: &str = "rules:\n- { name: web, dst: 192.0.2.1, proto: tcp, port: 8080 }\n";

/// Names of every kind that rules know.
pub const NAMES: &str = "resolvers: [192.0.2.53]\nrules:\n\
    - { name: api, dst: api.example, proto: tcp, port: 443 }\n\
    - { name: below, dst: \"*.star.example\", proto: tcp, port: 443 }\n\
    - { name: both, dst: .suffix.example, proto: tcp, port: 443 }\n\
    - { name: never, dst: .deny.example, proto: any, action: deny }\n";
