//! The resolvers that `system` stands for, and lookups that pass them by.

use policy::Resolver;
use std::{fs, io, net::IpAddr, path::Path};

/// The C library asks at most three (`resolv.conf(5)`, `MAXNS`).
const MAXNS: usize = 3;

/// What can go wrong with resolvers.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The system's list cannot be read.
    #[error(
        "cannot read /etc/resolv.conf ({0}): name the resolvers in the policy (`resolvers: [192.0.2.53]`)"
    )]
    ResolvConf(io::Error),
    /// CoreDNS is part of the stack.
    #[error("`resolvers: [coredns]` works beside the stack only: name addresses or `system`")]
    CoreDns,
}

/// Addresses in a `resolv.conf`. A zone (`fe80::1%eth0`) is dropped: packets do not carry it.
fn parse(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter_map(|rest| {
            rest.split_whitespace()
                .next()?
                .split('%')
                .next()?
                .parse()
                .ok()
        })
        .take(MAXNS)
        .collect()
}

/// Turns the policy's list into addresses.
pub fn resolve(list: &[Resolver]) -> Result<Vec<IpAddr>, ResolverError> {
    let mut out: Vec<IpAddr> = Vec::new();
    for entry in list {
        match entry {
            Resolver::System => {
                let text =
                    fs::read_to_string("/etc/resolv.conf").map_err(ResolverError::ResolvConf)?;
                let found = parse(&text);
                // An empty file means the local host (resolv.conf(5)).
                let found = if found.is_empty() {
                    vec![IpAddr::from([127, 0, 0, 1])]
                } else {
                    found
                };
                out.extend(found);
            }
            Resolver::Address(a) => out.push(*a),
            Resolver::CoreDns => return Err(ResolverError::CoreDns),
        }
    }
    out.dedup();
    out.truncate(abi::MAX_RESOLVERS);
    Ok(out)
}

/// A way of looking names up that no packet shows: answers teach nothing.
#[must_use]
pub fn unseen_lookups() -> Option<&'static str> {
    for socket in ["/run/nscd/socket", "/var/run/nscd/socket"] {
        if Path::new(socket).exists() {
            return Some("nscd");
        }
    }
    let switch = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let hosts = switch
        .lines()
        .find_map(|l| l.trim().strip_prefix("hosts:"))?;
    let resolve = hosts.split_whitespace().any(|w| w == "resolve");
    (resolve && Path::new("/run/systemd/resolve/io.systemd.Resolve").exists())
        .then_some("nss-resolve")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_read_as_the_c_library_does() {
        let text = "# nameserver 192.0.2.9\n nameserver 192.0.2.1 \nsearch example\nnameserver fe80::1%eth0\n\
                    nameserver nonsense\nnameserver 2001:db8::1\nnameserver 192.0.2.4\n";
        let expected: Vec<IpAddr> = ["192.0.2.1", "fe80::1", "2001:db8::1"]
            .iter()
            .map(|s| s.parse().unwrap())
            .collect();
        assert_eq!(parse(text), expected);
    }
}
