//! DNS servers that answer whatever a test hands them, and places to connect to.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Messages that were asked, as they came.
#[derive(Clone, Default)]
pub struct Asked(Arc<Mutex<Vec<Vec<u8>>>>);

impl Asked {
    /// All of them, in order.
    #[must_use]
    pub fn all(&self) -> Vec<Vec<u8>> {
        self.0.lock().expect("no panic").clone()
    }

    fn note(&self, message: &[u8]) {
        self.0.lock().expect("no panic").push(message.to_vec());
    }
}

/// Answers each datagram on port 53 of an address with the datagrams that the closure returns.
pub fn dns_udp(
    ip: &str,
    mut answer: impl FnMut(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
) -> Asked {
    let addr = SocketAddr::new(ip.parse().expect("an address"), 53);
    let socket = UdpSocket::bind(addr).expect("port 53 of the namespace is free");
    let asked = Asked::default();
    let log = asked.clone();
    thread::spawn(move || {
        let mut buf = vec![0; 1 << 16];
        while let Ok((n, from)) = socket.recv_from(&mut buf) {
            log.note(&buf[..n]);
            for message in answer(&buf[..n], from) {
                // Whoever asked may be gone.
                let _ = socket.send_to(&message, from);
            }
        }
    });
    asked
}

/// Answers each message of a stream on port 53 with the writes that the closure returns, length
/// fields included.
pub fn dns_tcp(ip: &str, answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Asked {
    let addr = SocketAddr::new(ip.parse().expect("an address"), 53);
    let listener = TcpListener::bind(addr).expect("port 53 of the namespace is free");
    let asked = Asked::default();
    let (log, answer) = (asked.clone(), Arc::new(Mutex::new(answer)));
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_nodelay(true).expect("a TCP socket");
            let (log, answer) = (log.clone(), Arc::clone(&answer));
            thread::spawn(move || {
                while let Some(message) = framed(&mut stream) {
                    log.note(&message);
                    for write in answer.lock().expect("no panic")(&message) {
                        let _ = stream.write_all(&write);
                    }
                }
            });
        }
    });
    asked
}

fn framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

/// A message behind its length field.
#[must_use]
pub fn frame(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

/// End of the one question of a message.
#[must_use]
pub fn question_end(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}

/// The answer to a query, with these records behind the question.
#[must_use]
pub fn reply(query: &[u8], records: &[Vec<u8>]) -> Vec<u8> {
    let mut m = vec![query[0], query[1], 0x81, 0x80, 0, 1];
    m.extend((records.len() as u16).to_be_bytes());
    m.extend([0, 0, 0, 0]);
    m.extend_from_slice(&query[12..question_end(query)]);
    m.extend(records.concat());
    m
}

/// A place that takes TCP connections, reads them to their end and counts.
#[derive(Clone)]
pub struct Place {
    listener: Arc<Mutex<TcpListener>>,
    calls: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

impl Place {
    /// Opens the place.
    #[must_use]
    pub fn open(addr: &str) -> Self {
        let listener = TcpListener::bind(addr).expect("the address is free");
        listener.set_nonblocking(true).expect("a socket");
        let waiting = listener.try_clone().expect("a descriptor");
        let place = Self {
            listener: Arc::new(Mutex::new(listener)),
            calls: Arc::default(),
            bytes: Arc::default(),
        };
        let p = place.clone();
        thread::spawn(move || {
            let mut polled = [PollFd::new(waiting.as_fd(), PollFlags::POLLIN)];
            while poll(&mut polled, PollTimeout::NONE).is_ok() {
                p.take();
            }
        });
        place
    }

    /// Takes all connections that there are.
    fn take(&self) {
        let listener = self.listener.lock().expect("no panic");
        while let Ok((mut stream, _)) = listener.accept() {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let p = self.clone();
            thread::spawn(move || {
                let mut buf = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buf) {
                    p.bytes.fetch_add(n, Ordering::SeqCst);
                }
            });
        }
    }

    /// Connections so far, those that nobody has taken yet included.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.take();
        self.calls.load(Ordering::SeqCst)
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }
}
