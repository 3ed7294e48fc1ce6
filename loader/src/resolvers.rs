//! The resolvers that `system` stands for, and lookups that pass them by.

use policy::Resolver;
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

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
    #[error(
        "`resolvers: [coredns]` needs to know where CoreDNS is: give --dns, or name addresses or `system`"
    )]
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

/// The engine's own resolver, as containers on its networks reach it.
pub const ENGINE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
/// What systemd-resolved asks, where the machine itself asks systemd-resolved.
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Whose `system` is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The machine's, for what runs in its network namespace.
    Host,
    /// That of a container with a network namespace of its own.
    Container,
}

impl Place {
    /// As a slot was enrolled.
    #[must_use]
    pub fn of(config: &abi::SlotConfig) -> Self {
        if config.flags & abi::SLOT_LOOPBACK_IS_EGRESS == 0 {
            Self::Container
        } else {
            Self::Host
        }
    }
}

fn system() -> Result<Vec<IpAddr>, ResolverError> {
    let text = fs::read_to_string("/etc/resolv.conf").map_err(ResolverError::ResolvConf)?;
    Ok(parse(&text))
}

/// What the engine writes into a container's `resolv.conf`: its own resolver on its networks, the
/// machine's on the default one, where addresses of the machine's loopback are of no use. The file in the
/// container is not asked: the agent can write it.
fn of_container() -> Result<Vec<IpAddr>, ResolverError> {
    let mut found = system()?;
    found.retain(|ip| !ip.is_loopback());
    if found.is_empty() {
        // Not there unless systemd-resolved runs.
        let text = fs::read_to_string(BEHIND_RESOLVED).unwrap_or_default();
        found = parse(&text);
        found.retain(|ip| !ip.is_loopback());
    }
    found.insert(0, ENGINE);
    Ok(found)
}

/// Turns the policy's list into addresses. `led`: there is a CoreDNS that DNS is led to.
pub fn resolve(list: &[Resolver], place: Place, led: bool) -> Result<Vec<IpAddr>, ResolverError> {
    let mut out: Vec<IpAddr> = Vec::new();
    for entry in list {
        match entry {
            Resolver::System if place == Place::Container => out.extend(of_container()?),
            Resolver::System => {
                let found = system()?;
                // An empty file means the local host (resolv.conf(5)).
                let found = if found.is_empty() {
                    vec![IpAddr::from([127, 0, 0, 1])]
                } else {
                    found
                };
                out.extend(found);
            }
            Resolver::Address(a) => out.push(*a),
            // The programs know it as the name server.
            Resolver::CoreDns if led => {}
            Resolver::CoreDns => return Err(ResolverError::CoreDns),
        }
    }
    out.dedup();
    out.truncate(abi::MAX_RESOLVERS);
    Ok(out)
}

/// What came of asking a resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answered, after this long.
    Answered(Duration),
    /// It answered with an error code other than "no such name".
    Refused(u8),
    /// It said nothing for this long.
    Silent(Duration),
    /// The query did not get there.
    Unreachable(String),
    /// Its address alone does not say where it is.
    NotAsked,
}

/// Asks a resolver for the name servers of the root, which every resolver knows; up to `tries` times,
/// waiting for each answer for `patience`.
#[must_use]
pub fn ask(server: IpAddr, tries: u16, patience: Duration) -> Answer {
    if matches!(server, IpAddr::V6(a) if a.is_unicast_link_local()) {
        return Answer::NotAsked;
    }
    ask_at(SocketAddr::new(server, 53), tries, patience)
}

fn ask_at(server: SocketAddr, tries: u16, patience: Duration) -> Answer {
    let began = Instant::now();
    for id in 1..=tries {
        match exchange(server, id, patience) {
            Ok(0 | 3) => return Answer::Answered(began.elapsed()),
            Ok(code) => return Answer::Refused(code),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) => {}
            Err(e) => return Answer::Unreachable(e.to_string()),
        }
    }
    Answer::Silent(patience * u32::from(tries))
}

/// Sends one query and returns the response code of its answer.
fn exchange(server: SocketAddr, id: u16, patience: Duration) -> io::Result<u8> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(server)?;
    let [hi, lo] = id.to_be_bytes();
    // RFC 1035 §4.1: recursion desired, one question: the root, NS, IN.
    let query = [hi, lo, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    socket.send(&query)?;
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let mut answer = [0; 512];
        let n = socket.recv(&mut answer)?;
        // A late answer to an earlier try went to a port that is closed; anything else is not ours.
        if n >= 12 && answer[..2] == [hi, lo] && answer[2] & 0x80 != 0 {
            return Ok(answer[3] & 0x0f);
        }
    }
}

/// The addresses that a policy's list comes to on this machine, as far as they can be told.
#[must_use]
pub fn known(list: &[Resolver]) -> Vec<IpAddr> {
    let each = list.iter().map(std::slice::from_ref);
    each.filter_map(|one| resolve(one, Place::Host, false).ok())
        .flatten()
        .collect()
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

    /// A server that answers each query with what `answer` makes of it.
    fn server(answer: fn(&mut Vec<u8>)) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((n, from)) = socket.recv_from(&mut query) {
                let mut reply = query[..n].to_vec();
                answer(&mut reply);
                socket.send_to(&reply, from).unwrap();
            }
        });
        at
    }

    #[test]
    fn a_resolver_that_answers_is_told_from_one_that_refuses_or_is_silent() {
        let patience = Duration::from_secs(10);
        let code = |answer| ask_at(server(answer), 1, patience);
        assert!(matches!(code(|m| m[2] |= 0x80), Answer::Answered(_)));
        let no_such_name = code(|m| (m[2], m[3]) = (0x81, 3));
        assert!(
            matches!(no_such_name, Answer::Answered(_)),
            "{no_such_name:?}"
        );
        assert_eq!(code(|m| (m[2], m[3]) = (0x81, 0x85)), Answer::Refused(5));
        // The query itself is no answer, and neither is that of another query.
        let brief = Duration::from_millis(30);
        let echo = ask_at(server(|_| ()), 2, brief);
        assert_eq!(echo, Answer::Silent(brief * 2));
        let other = ask_at(server(|m| (m[1], m[2]) = (9, 0x80)), 1, brief);
        assert_eq!(other, Answer::Silent(brief));
        let nobody = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(matches!(
            ask_at(nobody, 1, patience),
            Answer::Unreachable(_)
        ));
        let link_local: IpAddr = "fe80::1".parse().unwrap();
        assert_eq!(ask(link_local, 1, Duration::ZERO), Answer::NotAsked);
    }

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
