//! A container as far as packets can tell: a process in a cgroup and in a network namespace of its own,
//! at the other end of a veth. Its host is the namespace of the test.

use crate::{
    agent::code,
    net::ip,
    parent::{Parent, into},
    talk::Talk,
};
use ebpf_manager::{cgroup::Cgroup, kernel::host_sides};
use std::{fs::File, net::IpAddr, process::Command};

/// What AF_PACKET needs: whole frames, put together by hand.
pub const FRAMES: &str = r"
def ones(b):
    n = sum(struct.unpack('>%dH' % (len(b) // 2), b))
    while n >> 16: n = (n & 0xffff) + (n >> 16)
    return struct.pack('>H', n ^ 0xffff)
def four(src, dst, proto, rest, ttl=64, opts=b''):
    h = struct.pack('>BBHHHBBH', 0x45 + len(opts) // 4, 0, 20 + len(opts) + len(rest), 1, 0, ttl, proto, 0) + socket.inet_aton(src) + socket.inet_aton(dst) + opts
    return h[:10] + ones(h) + h[12:] + rest
def six(src, dst, proto, rest, hops=64):
    return struct.pack('>IHBB', 6 << 28, len(rest), proto, hops) + socket.inet_pton(10, src) + socket.inet_pton(10, dst) + rest
def datagram(sport, dport, data): return struct.pack('>HHHH', sport, dport, 8 + len(data), 0) + data
def segment(sport, dport, flags, data=b''): return struct.pack('>HHIIBBHHH', sport, dport, 1, 1, 0x50, flags, 512, 0, 0) + data
def summed(src, dst, s):
    c = ones(socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack('>HH', 6, len(s)) + s)
    return s[:16] + c + s[18:]
def ether(kind, packet): return b'\xff' * 6 + b'\2\0\0\0\0\1' + struct.pack('>H', kind) + packet
def packets(dev, bypass=0):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind((dev, 0))
    s.setsockopt(263, 20, bypass)
    return s
";

/// The process, its cgroup and its link.
pub struct Container {
    /// The process.
    pub talk: Talk,
    /// Its cgroup.
    pub cgroup: Cgroup,
    n: u8,
    addresses: Vec<IpAddr>,
}

impl Container {
    /// Starts a Python program as number `n` below a parent, its network ready, its cgroup not attached.
    /// What `early` makes is made outside of the cgroup.
    #[must_use]
    pub fn start(parent: &Parent, n: u8, early: &str, program: &str) -> Self {
        let whole = format!(
            "{FRAMES}\nopen('/proc/sys/net/ipv4/ip_forward', 'w').write('0')\nstep('here')\n{early}\nstep('early')\n{program}"
        );
        let mut talk =
            Talk::start(Command::new("unshare").args(["--net", "python3", "-c", &code(&whole)]));
        assert_eq!(talk.hear(), "here");
        let cgroup = parent.child(&format!("container-{n}"));
        let mut container = Self {
            talk,
            cgroup,
            n,
            addresses: Vec::new(),
        };
        container.network(n);
        container.inside(&["link", "set", "lo", "up"]);
        for family in ["-4", "-6"] {
            let gateway = if family == "-4" {
                format!("198.18.{n}.1")
            } else {
                format!("fd00:{n}::1")
            };
            let dev = format!("eth{n}");
            container.inside(&[
                family, "route", "add", "default", "via", &gateway, "dev", &dev,
            ]);
        }
        assert_eq!(container.talk.go(), "early");
        into(&container.cgroup, &container.talk);
        container
    }

    /// Links it to another network of the host, `198.18.n.0/24` and `fd00:n::/64`: `.1` is the host, `.2`
    /// the container.
    pub fn network(&mut self, n: u8) {
        let (here, there) = (format!("veth{n}"), format!("eth{n}"));
        let pid = self.talk.pid().to_string();
        ip(&[
            "link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &pid,
        ]);
        ip(&["addr", "add", &format!("198.18.{n}.1/24"), "dev", &here]);
        let six = format!("fd00:{n}::1/64");
        ip(&["-6", "addr", "add", &six, "dev", &here, "nodad"]);
        ip(&["link", "set", &here, "up"]);
        self.inside(&["addr", "add", &format!("198.18.{n}.2/24"), "dev", &there]);
        let six = format!("fd00:{n}::2/64");
        self.inside(&["-6", "addr", "add", &six, "dev", &there, "nodad"]);
        self.inside(&["link", "set", &there, "up"]);
        let own = [format!("198.18.{n}.2"), format!("fd00:{n}::2")];
        let own = own.map(|address| address.parse().expect("an address"));
        self.addresses.extend::<[IpAddr; 2]>(own);
    }

    /// Runs `ip` in its namespace, which must succeed.
    pub fn inside(&self, args: &[&str]) {
        let pid = self.talk.pid().to_string();
        let out = Command::new("nsenter")
            .args([&["-t", &pid, "-n", "ip"], args].concat())
            .output()
            .expect("util-linux is installed");
        assert!(
            out.status.success(),
            "ip {args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    /// The host's ends of its links.
    #[must_use]
    pub fn interfaces(&self) -> Vec<u32> {
        let netns = File::open(format!("/proc/{}/ns/net", self.talk.pid()));
        host_sides(&netns.expect("the process lives")).expect("the kernel tells")
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.n
    }
}

impl Parent {
    /// Attaches and opens a container, with a backstop at every interface.
    pub fn stop(&mut self, c: &Container, policy: &str) -> abi::SlotConfig {
        let config = self.enrol(&c.cgroup, u32::from(c.number()), policy);
        for interface in c.interfaces() {
            self.back(c, &config, interface);
        }
        config
    }

    /// Puts a backstop at one interface, which knows the addresses of [`Container::network`].
    pub fn back(&mut self, c: &Container, config: &abi::SlotConfig, interface: u32) {
        let put = self
            .engine
            .backstop(&c.number().to_string(), config, interface, &c.addresses);
        put.expect("a kernel with TCX");
    }
}
