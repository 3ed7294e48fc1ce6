//! The far ends of the traffic.

use super::FORBIDDEN;
use crate::sniff::Sniffer;
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Far ends that echo, swallow, or notice what must not come.
pub(super) struct Far {
    pub(super) over: Arc<AtomicBool>,
    /// Bytes that were poured in.
    pub(super) poured: Arc<AtomicU64>,
    /// What reached a forbidden address.
    pub(super) escaped: Arc<AtomicU64>,
    pub(super) threads: Vec<JoinHandle<()>>,
}

fn each_caller(
    addr: &str,
    over: &Arc<AtomicBool>,
    talk: impl Fn(TcpStream) + Send + Sync + 'static,
) -> JoinHandle<()> {
    let listener = crate::peer::listen(addr);
    listener.set_nonblocking(true).expect("a socket");
    let (over, talk) = (Arc::clone(over), Arc::new(talk));
    thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).expect("a socket");
                    let talk = Arc::clone(&talk);
                    thread::spawn(move || talk(stream));
                }
                Err(_) => rest(),
            }
        }
    })
}

fn rest() {
    nix::poll::poll(&mut [], 1u16).ok();
}

fn echo(mut stream: TcpStream) {
    let mut buf = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        if stream.write_all(&buf[..n]).is_err() {
            return;
        }
    }
}

impl Far {
    pub(super) fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (poured, escaped): (Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let (p, e) = (Arc::clone(&poured), Arc::clone(&escaped));
        let mut threads = vec![
            each_caller("192.0.2.1:80", &over, echo),
            each_caller("192.0.2.1:82", &over, |mut s| {
                let mut buf = [0; 10];
                let _ = s.read_exact(&mut buf);
            }),
            each_caller("192.0.2.1:84", &over, move |mut s| {
                let mut buf = vec![0; 1 << 16];
                while let Ok(n @ 1..) = s.read(&mut buf) {
                    p.fetch_add(n as u64, Ordering::Relaxed);
                }
            }),
            each_caller(&format!("{FORBIDDEN}:80"), &over, move |_| {
                e.fetch_add(1, Ordering::Relaxed);
            }),
        ];
        let e = Arc::clone(&escaped);
        threads.push(datagrams("192.0.2.1:81", &over, |s, m, from| {
            let _ = s.send_to(m, from);
        }));
        threads.push(datagrams("192.0.2.1:83", &over, |_, _, _| {}));
        threads.push(datagrams(
            &format!("{FORBIDDEN}:81"),
            &over,
            move |_, _, _| {
                e.fetch_add(1, Ordering::Relaxed);
            },
        ));
        let (stop, e) = (Arc::clone(&over), Arc::clone(&escaped));
        let wire = Sniffer::start();
        threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                e.fetch_add(wire.to(FORBIDDEN).len() as u64, Ordering::Relaxed);
                rest();
            }
        }));
        Self {
            over,
            poured,
            escaped,
            threads,
        }
    }

    /// Calls the agent, and asks it by datagrams; how many times it has answered.
    pub(super) fn call(&mut self) -> Arc<AtomicU64> {
        let answers: Arc<AtomicU64> = Arc::default();
        let mut s = TcpStream::connect("192.0.2.2:90").expect("the agent listens");
        s.set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a socket");
        let (over, a) = (Arc::clone(&self.over), Arc::clone(&answers));
        self.threads.push(thread::spawn(move || {
            let mut buf = [0; 50];
            // The agent closes at its end.
            while !over.load(Ordering::Relaxed)
                && s.write_all(&[b'i'; 50]).is_ok()
                && s.read_exact(&mut buf).is_ok()
            {
                a.fetch_add(1, Ordering::Relaxed);
                rest();
            }
        }));
        let u = UdpSocket::bind("192.0.2.2:0").expect("the address is free");
        u.connect("192.0.2.2:91").expect("a datagram socket");
        u.set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a socket");
        let (over, a) = (Arc::clone(&self.over), Arc::clone(&answers));
        self.threads.push(thread::spawn(move || {
            let mut buf = [0; 50];
            while !over.load(Ordering::Relaxed) && u.send(b"inbound").is_ok() {
                a.fetch_add(u64::from(u.recv(&mut buf).is_ok()), Ordering::Relaxed);
                rest();
            }
        }));
        let over = Arc::clone(&self.over);
        self.threads.push(thread::spawn(move || {
            // One port after the other, none twice: each is a flow of its own.
            for port in 10_000..32_000 {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let u = UdpSocket::bind(("192.0.2.2", port)).expect("the port is free");
                u.set_read_timeout(Some(Duration::from_secs(5)))
                    .expect("a socket");
                // Whether it may answer is the agent's to see.
                let _ = u.send_to(b"who are you?", "192.0.2.2:92");
                let _ = u.recv(&mut [0; 50]);
                rest();
            }
        }));
        answers
    }
}

fn datagrams(
    addr: &str,
    over: &Arc<AtomicBool>,
    each: impl Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static,
) -> JoinHandle<()> {
    let socket = UdpSocket::bind(addr).expect("the address is free");
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("a socket");
    let over = Arc::clone(over);
    thread::spawn(move || {
        let mut buf = [0; 4096];
        while !over.load(Ordering::Relaxed) {
            if let Ok((n, from)) = socket.recv_from(&mut buf) {
                each(&socket, &buf[..n], from);
            }
        }
    })
}
