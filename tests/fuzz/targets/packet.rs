//! Packet headers as the packet programs read them: whatever the bytes, reading ends, the payload
//! begins behind the headers, and ports are those that stand in front of it.
#![no_main]

use abi::Ip;
use bpf::wire;
use libfuzzer_sys::fuzz_target;
use std::net::{Ipv4Addr, Ipv6Addr};

fuzz_target!(|data: &[u8]| {
    let Some(w) = wire::parse(data) else { return };
    let at = w.payload as usize;
    assert!(at >= 20, "a payload inside the network header: {at}");
    match data[0] >> 4 {
        4 => {
            assert_eq!(data[0] & 0xf, 5, "IPv4 options were let through");
            assert_eq!(w.proto, data[9]);
            for (read, at) in [(w.src, 12), (w.dst, 16)] {
                let four: [u8; 4] = data[at..at + 4].try_into().expect("four bytes");
                same(read, Ipv4Addr::from(four).to_ipv6_mapped());
            }
        }
        6 => {
            assert!(at >= 40, "a payload inside the IPv6 header: {at}");
            for (read, at) in [(w.src, 8), (w.dst, 24)] {
                let sixteen: [u8; 16] = data[at..at + 16].try_into().expect("sixteen bytes");
                same(read, Ipv6Addr::from(sixteen));
            }
        }
        v => panic!("version {v} was read"),
    }
});

/// The address of nobody is read as loopback: that is where the kernel takes it.
fn same(read: Ip, written: Ipv6Addr) {
    let read = Ipv6Addr::from(read.0).to_canonical();
    let written = written.to_canonical();
    if written.is_unspecified() {
        assert!(read.is_loopback(), "{read} for {written}");
        assert_eq!(read.is_ipv4(), written.is_ipv4());
    } else {
        assert_eq!(read, written);
    }
}
