//! Queries of any bytes from any address, and a resolver that answers them all.

use kernel_tests::dns::{address, record};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// Type of IPv4 addresses.
pub const A: u16 = 1;
/// Type of other names.
pub const CNAME: u16 = 5;
/// Type of free text.
pub const TXT: u16 = 16;
/// Type of IPv6 addresses.
pub const AAAA: u16 = 28;
/// Type of keys of a zone below.
pub const DS: u16 = 43;
/// Type of ways to a service, keys of Encrypted Client Hello among them.
pub const SVCB: u16 = 64;
/// The same for HTTPS.
pub const HTTPS: u16 = 65;
/// Type of a question for everything.
pub const ANY: u16 = 255;

/// Answered.
pub const NOERROR: u8 = 0;
/// There is no such name.
pub const NXDOMAIN: u8 = 3;
/// Not answered on purpose.
pub const REFUSED: u8 = 5;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Query {
    /// Labels of the name, of any bytes.
    pub labels: Vec<Vec<u8>>,
    /// Number of the type.
    pub kind: u16,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Response code.
    pub rcode: u8,
    /// How many records are in the answer.
    pub records: usize,
    /// The message.
    pub message: Vec<u8>,
    /// Port that was asked from.
    pub port: u16,
}

impl Answer {
    /// Whether these bytes are in it.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        self.message.windows(bytes.len()).any(|w| w == bytes)
    }
}

impl Query {
    /// One for a name as people write it.
    #[must_use]
    pub fn of(name: &str, kind: u16) -> Self {
        let labels = name.split('.').filter(|label| !label.is_empty());
        Self {
            labels: labels.map(|label| label.as_bytes().to_vec()).collect(),
            kind,
        }
    }

    /// The name, in small letters, if it has only signs of names; none otherwise.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let all: Vec<_> = self.labels.iter().map(Vec::as_slice).collect();
        let plain = all.iter().all(|label| label.iter().all(plain));
        plain.then(|| String::from_utf8_lossy(&all.join(&b'.')).to_lowercase())
    }

    /// The name as CoreDNS writes it: in small letters, odd bytes escaped (RFC 4343 §2.1).
    #[must_use]
    pub fn written(&self) -> String {
        let mut text = String::new();
        for label in &self.labels {
            for byte in label {
                match byte {
                    b' ' | b'"' | b'\'' | b'(' | b')' | b'.' | b';' | b'@' | b'\\' => {
                        text.push('\\');
                        text.push(char::from(*byte));
                    }
                    0x21..=0x7e => text.push(char::from(byte.to_ascii_lowercase())),
                    _ => text += &format!("\\{byte:03}"),
                }
            }
            text.push('.');
        }
        if text.is_empty() {
            text.push('.');
        }
        text
    }

    /// The question as it is sent.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in &self.labels {
            message.push(label.len() as u8);
            message.extend_from_slice(label);
        }
        message.push(0);
        message.extend(self.kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    /// Asks over UDP, from an address of the namespace.
    #[track_caller]
    #[must_use]
    pub fn udp(&self, from: &str, to: &str) -> Answer {
        self.try_udp(from, to, PATIENCE)
            .unwrap_or_else(|e| panic!("{self:?} from {from}: {e}"))
    }

    /// The same, for a server that may not be there.
    pub fn try_udp(&self, from: &str, to: &str, patience: Duration) -> io::Result<Answer> {
        exchange(&self.message(), from, to, patience)
    }

    /// Asks over TCP, from an address of the namespace.
    #[track_caller]
    #[must_use]
    pub fn tcp(&self, from: &str, to: &str) -> Answer {
        let (mut stream, port) = dial(at(from, 0), at(to, 53));
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        send(&mut stream, &self.message()).expect("it is read");
        let message = receive(&mut stream);
        let message = message.unwrap_or_else(|e| panic!("{self:?} from {from}: {e}"));
        answer(&message, port)
    }
}

/// Sends any bytes over UDP and waits for an answer.
pub fn exchange(message: &[u8], from: &str, to: &str, patience: Duration) -> io::Result<Answer> {
    let socket = UdpSocket::bind(at(from, 0))?;
    socket.connect(at(to, 53))?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(message)?;
    let mut bytes = [0; 65_535];
    let n = socket.recv(&mut bytes)?;
    Ok(answer(&bytes[..n], socket.local_addr()?.port()))
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

fn answer(message: &[u8], port: u16) -> Answer {
    assert!(message.len() >= 12, "no message: {message:?}");
    Answer {
        rcode: message[3] & 15,
        records: usize::from(u16::from_be_bytes([message[6], message[7]])),
        message: message.to_vec(),
        port,
    }
}

/// A connection, and the port that it comes from.
fn dial(from: SocketAddr, to: SocketAddr) -> (TcpStream, u16) {
    let family = match from.ip() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let socket = socket.expect("a socket");
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from)).expect("the address is ours");
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).expect("somebody listens");
    let stream = TcpStream::from(socket);
    let port = stream.local_addr().expect("it is bound").port();
    (stream, port)
}

fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = (message.len() as u16).to_be_bytes();
    stream.write_all(&[&length, message].concat())
}

fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// What a resolver answers: whole records behind the question.
type Zone = fn(&Query) -> Vec<Vec<u8>>;

/// Addresses, and where something else is asked for, eight bytes of it.
#[must_use]
pub fn anything(query: &Query) -> Vec<Vec<u8>> {
    vec![match query.kind {
        A => address("203.0.113.9", 300),
        AAAA => address("2001:db8::2", 300),
        kind => record(kind, 300, b"\x07clawker"),
    }]
}

/// A resolver on port 53 of an address of the namespace, over UDP and TCP, that writes down what it is asked.
pub struct Upstream(Arc<Mutex<Vec<Query>>>);

impl Upstream {
    /// Starts it.
    #[must_use]
    pub fn start(ip: &str, zone: Zone) -> Self {
        let asked = Self(Arc::default());
        let socket = UdpSocket::bind(at(ip, 53)).expect("port 53 of the namespace is free");
        let listener = TcpListener::bind(at(ip, 53)).expect("port 53 of the namespace is free");
        let log = Arc::clone(&asked.0);
        thread::spawn(move || {
            let mut bytes = [0; 65_535];
            while let Ok((n, from)) = socket.recv_from(&mut bytes) {
                // Whoever asked may be gone.
                let _ = socket.send_to(&reply(&bytes[..n], zone, &log), from);
            }
        });
        let log = Arc::clone(&asked.0);
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let log = Arc::clone(&log);
                thread::spawn(move || {
                    while let Ok(message) = receive(&mut stream) {
                        let _ = send(&mut stream, &reply(&message, zone, &log));
                    }
                });
            }
        });
        asked
    }

    /// Everything that it was asked so far, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<Query> {
        self.0.lock().expect("no panic").clone()
    }

    /// The same, and it is forgotten.
    #[must_use]
    pub fn take(&self) -> Vec<Query> {
        std::mem::take(&mut self.0.lock().expect("no panic"))
    }
}

fn reply(message: &[u8], zone: Zone, log: &Mutex<Vec<Query>>) -> Vec<u8> {
    let (query, end) = question(message);
    let records = zone(&query);
    log.lock().expect("no panic").push(query);
    let mut reply = message[..end].to_vec();
    reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    reply.extend(records.concat());
    reply
}

/// The question of a message, and where it ends.
fn question(message: &[u8]) -> (Query, usize) {
    let mut labels = Vec::new();
    let mut at = 12;
    while message[at] > 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(message[at + 1..end].to_vec());
        at = end;
    }
    let kind = u16::from_be_bytes([message[at + 1], message[at + 2]]);
    (Query { labels, kind }, at + 5)
}
