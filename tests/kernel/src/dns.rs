//! A resolver that answers as it is told.

use crate::run::Outcome;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    thread,
};

/// What a name answers: raw records behind the question, or nothing.
type Zone = Arc<Mutex<HashMap<String, Vec<Vec<u8>>>>>;

/// A resolver on UDP port 53 of an address of the namespace.
pub struct Resolver {
    zone: Zone,
    asked: Arc<Mutex<Vec<String>>>,
}

/// A resource record of the question's name.
#[must_use]
pub fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut r = vec![0xc0, 0x0c];
    r.extend(kind.to_be_bytes());
    r.extend(1u16.to_be_bytes());
    r.extend(ttl.to_be_bytes());
    r.extend((data.len() as u16).to_be_bytes());
    r.extend_from_slice(data);
    r
}

/// An address record.
#[must_use]
pub fn address(ip: &str, ttl: u32) -> Vec<u8> {
    match ip.parse().expect("an address") {
        IpAddr::V4(a) => record(1, ttl, &a.octets()),
        IpAddr::V6(a) => record(28, ttl, &a.octets()),
    }
}

/// A name as it is written in a message.
#[must_use]
pub fn wire_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

/// Address of the resolver that the policies of the tests trust.
pub const RESOLVER: &str = "192.0.2.53";

/// Denied records to port 53 of the resolver, as reason and name asked for.
#[must_use]
pub fn refused(out: &Outcome) -> Vec<(String, Value)> {
    out.denied(&[("dst_ip", json!(RESOLVER))])
        .iter()
        .map(|r| {
            let reason = r["reason"].as_str().expect("a reason");
            (reason.to_owned(), r["qname"].clone())
        })
        .collect()
}

impl Resolver {
    /// Starts answering for names with one address each, for five minutes.
    #[must_use]
    pub fn naming(zone: &[(&str, &str)]) -> Self {
        let resolver = Self::start(RESOLVER);
        for (name, ip) in zone {
            resolver.set(name, vec![address(ip, 300)]);
        }
        resolver
    }

    /// Starts answering on an address of the namespace.
    #[must_use]
    pub fn start(ip: &str) -> Self {
        let addr = SocketAddr::new(ip.parse().expect("an address"), 53);
        let socket = UdpSocket::bind(addr).expect("port 53 of the namespace is free");
        let (zone, asked): (Zone, Arc<Mutex<Vec<String>>>) = Default::default();
        let (z, a) = (Arc::clone(&zone), Arc::clone(&asked));
        thread::spawn(move || serve(&socket, &z, &a));
        Self { zone, asked }
    }

    /// Answers a name with these records from now on.
    pub fn set(&self, name: &str, records: Vec<Vec<u8>>) {
        self.zone
            .lock()
            .expect("no panic")
            .insert(name.to_owned(), records);
    }

    /// Names that were asked, in lower case, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

fn serve(socket: &UdpSocket, zone: &Zone, asked: &Mutex<Vec<String>>) {
    let mut buf = [0; 1500];
    while let Ok((n, from)) = socket.recv_from(&mut buf) {
        let Some((name, end)) = question(&buf[..n]) else {
            continue;
        };
        let kind = u16::from_be_bytes([buf[end - 4], buf[end - 3]]);
        asked.lock().expect("no panic").push(name.clone());
        let known = zone.lock().expect("no panic").get(&name).cloned();
        // Address records only for the type that was asked; anything else as set.
        let records: Vec<Vec<u8>> = known
            .clone()
            .unwrap_or_default()
            .into_iter()
            .filter(|r| {
                let t = u16::from_be_bytes([r[2], r[3]]);
                !matches!(t, 1 | 28) || t == kind
            })
            .collect();
        let rcode = if known.is_some() { 0x80 } else { 0x83 };
        let mut m = vec![buf[0], buf[1], 0x81, rcode, 0, 1];
        m.extend((records.len() as u16).to_be_bytes());
        m.extend([0, 0, 0, 0]);
        m.extend_from_slice(&buf[12..end]);
        m.extend(records.concat());
        let _ = socket.send_to(&m, from);
    }
}

/// Name and end of the question.
fn question(m: &[u8]) -> Option<(String, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let len = usize::from(*m.get(at)?);
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(m.get(at + 1..at + 1 + len)?).to_lowercase());
        at += 1 + len;
    }
    (m.len() >= at + 5).then(|| (labels.join("."), at + 5))
}
