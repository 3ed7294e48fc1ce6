//! The packet programs on made-up packets. In a test run there is no cgroup and the slot is zero, so
//! nothing may pass, whatever the packet looks like, and everything must be counted.

use aya::programs::{Program, TestRun as _, TestRunOptions};
use ebpf_manager::{
    instance::{Instance, Root},
    kernel::{Engine, Sizes},
};
use kernel_tests::{noise, run::Bench};

struct Made {
    engine: Engine,
    instance: Instance,
    _bench: Bench,
}

fn made() -> Made {
    let bench = Bench::without_network();
    let root = Root::new(&bench.pins);
    root.prepare().unwrap();
    let instance = root.create("run", |_| false).unwrap();
    let engine = Engine::load(instance.pins.dir(), Sizes::default()).unwrap();
    Made {
        engine,
        instance,
        _bench: bench,
    }
}

impl Made {
    /// What a program says of a frame; nothing when the kernel does not take the frame at all.
    fn run(&self, name: &'static str, frame: &[u8]) -> Option<u32> {
        let Program::CgroupSkb(p) = self.engine.program(name).unwrap() else {
            panic!("{name} is no packet program");
        };
        let options = TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::default()
        };
        p.test_run(options).ok().map(|r| r.return_value)
    }

    /// Flows that row 0 of the books counts as denied.
    fn denied(&self) -> u64 {
        self.instance.pins.books().unwrap()[0].ended[1]
    }
}

fn ethernet(kind: u16, packet: &[u8]) -> Vec<u8> {
    [&[2; 12], &kind.to_be_bytes()[..], packet].concat()
}

fn v4(header_words: u8, fragment: u16, proto: u8, rest: &[u8]) -> Vec<u8> {
    let mut p = vec![0x40 | header_words, 0];
    p.extend((20 + rest.len() as u16).to_be_bytes());
    p.extend([0, 1]);
    p.extend(fragment.to_be_bytes());
    p.extend([64, proto, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    p.extend_from_slice(rest);
    ethernet(0x0800, &p)
}

fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut p = vec![0x60, 0, 0, 0];
    p.extend((rest.len() as u16).to_be_bytes());
    p.extend([next, 64]);
    p.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    p.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    p.extend_from_slice(rest);
    ethernet(0x86dd, &p)
}

/// Extension headers of these kinds in front of a transport header.
fn chain(kinds: &[u8], len: u8, last: u8, transport: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    for next in kinds[1..].iter().chain(&[last]) {
        rest.extend([*next, len]);
        rest.resize(rest.len() + 6 + usize::from(len) * 8, 0);
    }
    rest.extend_from_slice(transport);
    v6(kinds[0], &rest)
}

const UDP: [u8; 12] = [0x30, 0x39, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4];
const TCP: [u8; 20] = [
    0, 80, 1, 187, 0, 0, 1, 0, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0,
];

#[test]
fn every_shape_of_packet_is_denied_and_counted() {
    let made = made();
    let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
    let dns = [&UDP[..8], query].concat();
    let frames = [
        ("udp", v4(5, 0x4000, 17, &UDP)),
        ("tcp", v4(5, 0, 6, &TCP)),
        ("a DNS query", v4(5, 0, 17, &dns)),
        ("icmp", v4(5, 0, 1, &[8, 0, 0, 0, 0, 0, 0, 0])),
        ("gre", v4(5, 0, 47, &[0; 16])),
        ("ip in ip", v4(5, 0, 4, &v4(5, 0, 17, &UDP)[14..])),
        ("nothing inside", v4(5, 0, 59, &[])),
        (
            "a source route",
            v4(
                7,
                0,
                17,
                &[&[0x83, 7, 4, 203, 0, 113, 9, 0][..], &UDP].concat(),
            ),
        ),
        ("sixty bytes of options", v4(15, 0, 17, &[1; 60])),
        ("a header longer than the packet", v4(15, 0, 17, &UDP)),
        ("a header too short to be one", v4(2, 0, 17, &UDP)),
        ("a first fragment", v4(5, 0x2000, 17, &UDP)),
        ("a later fragment", v4(5, 0x00b9, 17, &UDP)),
        ("half a UDP header", v4(5, 0, 17, &UDP[..3])),
        ("half a TCP header", v4(5, 0, 6, &TCP[..13])),
        (
            "a TCP header that claims sixty bytes",
            v4(5, 0, 6, &[&TCP[..12], &[0xf0], &TCP[13..]].concat()),
        ),
        ("udp over six", v6(17, &UDP)),
        ("tcp over six", v6(6, &TCP)),
        ("icmp over six", v6(58, &[128, 0, 0, 0, 0, 0, 0, 0])),
        ("hop by hop", chain(&[0], 0, 17, &UDP)),
        ("three options", chain(&[0, 60, 60], 0, 6, &TCP)),
        ("six options", chain(&[0, 60, 60, 60, 60, 60], 0, 17, &UDP)),
        ("long options", chain(&[0, 60, 60], 100, 17, &UDP)),
        ("a routing header", chain(&[43], 0, 17, &UDP)),
        (
            "a routing header behind options",
            chain(&[60, 43], 2, 17, &UDP),
        ),
        ("a fragment", chain(&[44], 0, 17, &UDP)),
        ("authenticated", chain(&[51], 0, 17, &UDP)),
        ("mobile", chain(&[135], 0, 17, &UDP)),
        ("options past the end", v6(0, &[17, 200, 0, 0, 0, 0, 0, 0])),
        ("options cut off", v6(60, &[17])),
        ("no next header", v6(59, &[])),
    ];
    for (what, frame) in &frames {
        let before = made.denied();
        assert_eq!(made.run("egress", frame), Some(0), "egress: {what}");
        assert_eq!(made.denied(), before + 1, "counted: {what}");
        assert_eq!(made.run("ingress", frame), Some(0), "ingress: {what}");
        assert_eq!(
            made.denied(),
            before + 1,
            "an arrival is nobody's flow: {what}"
        );
    }
    let books = &made.instance.pins.books().unwrap()[0];
    assert_eq!(
        books.denied[usize::from(abi::reason::NOT_ENROLLED)],
        frames.len() as u64
    );
    assert_eq!(books.opened, frames.len() as u64);
}

#[test]
fn truncation_at_every_byte_is_denied() {
    let made = made();
    for whole in [v4(5, 0, 6, &TCP), chain(&[0, 60], 1, 17, &UDP)] {
        for n in 15..whole.len() {
            for program in ["egress", "ingress"] {
                // The kernel itself refuses what is shorter than an IP header.
                assert!(
                    matches!(made.run(program, &whole[..n]), Some(0) | None),
                    "{program}, {n} bytes"
                );
            }
        }
    }
}

#[test]
fn random_bytes_are_denied() {
    let made = made();
    let mut random = noise(0x2545_f491_4f6c_dd1d);
    let mut taken = 0;
    for i in 0..4000 {
        let kind = if i % 2 == 0 { 0x0800 } else { 0x86dd };
        let n = 40 + (random() % 1400) as usize;
        let mut packet: Vec<u8> = (0..n).map(|_| random() as u8).collect();
        packet[0] = if i % 2 == 0 { 0x45 } else { 0x60 };
        let frame = ethernet(kind, &packet);
        for program in ["egress", "ingress"] {
            match made.run(program, &frame) {
                Some(verdict) => {
                    assert_eq!(verdict, 0, "{program}: {frame:x?}");
                    taken += 1;
                }
                None => continue,
            }
        }
    }
    assert!(taken > 7000, "the kernel took only {taken}");
    assert_eq!(made.denied(), taken / 2);
}
