//! The far side of connections and datagrams, told what to do by the test.

use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// What a far side did and saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Who called.
    pub from: SocketAddr,
    /// Bytes that came.
    pub received: u64,
}

/// Accepts one connection and lets the test's closure have it; the answer tells who it was.
pub fn once<T: Send + 'static>(
    addr: &str,
    talk: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> JoinHandle<(SocketAddr, T)> {
    let listener = TcpListener::bind(addr).expect("the address is free");
    thread::spawn(move || {
        let (stream, from) = listener.accept().expect("a caller");
        (from, talk(stream))
    })
}

/// A listener for more callers at once than the standard library asks for, which is 128.
#[must_use]
pub fn listen(addr: &str) -> TcpListener {
    let listener = TcpListener::bind(addr).expect("the address is free");
    // SAFETY: a listening socket may be told to listen again.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 4096) }, 0);
    listener
}

fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener.accept().expect("a caller")
}

/// Accepts `n` connections, one after the other, and reads each to its end in a thread of its own
/// while answering `answer` bytes for every connection.
pub fn many(addr: &str, n: usize, answer: usize) -> JoinHandle<Vec<Served>> {
    let listener = listen(addr);
    thread::spawn(move || {
        let talks: Vec<_> = (0..n)
            .map(|_| {
                let (mut stream, from) = accept(&listener);
                thread::spawn(move || {
                    let received = drain(&mut stream);
                    send(&mut stream, answer);
                    Served { from, received }
                })
            })
            .collect();
        talks
            .into_iter()
            .map(|t| t.join().expect("the talk ends"))
            .collect()
    })
}

/// Reads `n` connections, each to its end before the next is accepted; the bytes that came.
pub fn in_turn(addr: &str, n: usize) -> JoinHandle<u64> {
    let listener = listen(addr);
    thread::spawn(move || (0..n).map(|_| drain(&mut accept(&listener).0)).sum())
}

/// Accepts `n` connections before it reads any to its end; the bytes that came.
pub fn all_open(addr: &str, n: usize) -> JoinHandle<u64> {
    let listener = listen(addr);
    thread::spawn(move || {
        let mut all: Vec<_> = (0..n).map(|_| accept(&listener).0).collect();
        all.iter_mut().map(drain).sum()
    })
}

/// Reads to the end of the stream; how many bytes there were. A reset ends it too.
pub fn drain(stream: &mut TcpStream) -> u64 {
    let mut buf = vec![0; 1 << 16];
    let mut n = 0;
    while let Ok(m @ 1..) = stream.read(&mut buf) {
        n += m as u64;
    }
    n
}

/// Reads exactly this many bytes.
pub fn take(stream: &mut TcpStream, n: usize) {
    let mut buf = vec![0; n];
    stream.read_exact(&mut buf).expect("as many bytes");
}

/// Writes this many bytes.
pub fn send(stream: &mut TcpStream, n: usize) {
    stream.write_all(&vec![b'z'; n]).expect("the peer reads");
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &linger).expect("SO_LINGER");
    drop(stream);
}

/// The far side of datagrams: receives what comes to an address, and answers with the first half if it
/// is to.
pub struct Far {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64)>,
}

impl Far {
    /// Starts receiving.
    #[must_use]
    pub fn start(addr: &str, echo: bool) -> Self {
        let socket = UdpSocket::bind(addr).expect("the address is free");
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut packets, mut bytes) = (0, 0);
            let mut buf = vec![0; 1 << 16];
            loop {
                match socket.recv_from(&mut buf) {
                    Ok((n, from)) => {
                        packets += 1;
                        bytes += n as u64;
                        if echo {
                            // A socket that is gone by now takes no answer.
                            let _ = socket.send_to(&buf[..n / 2], from);
                        }
                    }
                    Err(_) if over.load(Ordering::Relaxed) => return (packets, bytes),
                    Err(_) => {}
                }
            }
        });
        Self { stop, thread }
    }

    /// Datagrams and bytes that came.
    #[must_use]
    pub fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the far side lives")
    }
}
