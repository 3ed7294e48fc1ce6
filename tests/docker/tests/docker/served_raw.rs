//! Root in a container with what the engine grants by default, CAP_NET_RAW among it.

use docker_tests::{
    engine::Engine,
    stack::{Stack, is_of, send},
};
use kernel_tests::{eventually, peer::Far};
use serde_json::json;

const LABELS: (&str, &str) = ("web", "shop");

#[test]
fn raw_sockets_are_refused_and_told() {
    let engine = Engine::start();
    let stack = Stack::start(&engine);
    let agent = stack.agent(&engine, "web", "shop", &[]);
    let said = agent.exec(
        "raw = lambda f, p: tried(lambda: socket.socket(f, socket.SOCK_RAW, p), 'made')\n\
         print(raw(socket.AF_INET, 255), raw(socket.AF_INET, 1), raw(socket.AF_INET, 17), raw(socket.AF_INET6, 58),\n\
           tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1), 'made'),\n\
           tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262), 'made'))",
    );
    assert_eq!(said, "EPERM EPERM EPERM EPERM EPERM EPERM");
    let all = eventually("a record of each", || {
        let all = stack.collector.received();
        let flows = |r: &kernel_tests::collector::Received| {
            r.attributes.get("count").map_or(1, |n| n.as_u64().unwrap())
        };
        (all.iter().map(flows).sum::<u64>() == 6).then_some(all)
    });
    let mut reasons: Vec<_> = all
        .iter()
        .map(|r| r.attributes["reason"].to_string())
        .collect();
    reasons.sort();
    reasons.dedup();
    assert_eq!(reasons, ["\"protocol\"", "\"raw_socket\""]);
    for r in &all {
        is_of(r, &agent, LABELS);
        assert_eq!(
            (&r.attributes["verdict"], &r.attributes["bytes_out"]),
            (&json!("DENIED"), &json!(0))
        );
    }
    stack.end();
}

/// A datagram to a denied port, made by hand, frame and all.
const FRAME: &str = "
def checksum(h):
    n = sum(struct.unpack('>%dH' % (len(h) // 2), h))
    while n >> 16: n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff
def datagram(to, port, data):
    src = socket.inet_aton(HERE)
    head = lambda c: struct.pack('>BBHHHBBH4s4s', 0x45, 0, 28 + len(data), 7, 0, 64, 17, c, src, socket.inet_aton(to))
    return head(checksum(head(0))) + struct.pack('>HHHH', 4000, port, 8 + len(data), 0) + data
def gateway():
    for line in open('/proc/net/arp').read().splitlines()[1:]:
        return bytes.fromhex(line.split()[3].replace(':', ''))
def frame(to, port, data):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x800))
    return tried(lambda: s.sendto(datagram(to, port, data), ('eth0', 0x800, 0, 0, gateway())))
";

#[test]
fn frames_made_by_hand_meet_the_backstop_and_need_net_raw() {
    let engine = Engine::start();
    let stack = Stack::start(&engine);
    let agent = stack.agent(&engine, "web", "shop", &[]);
    // The gateway's hardware address becomes known.
    send(&agent, 8000, 1);
    stack.flow_to(8000);
    let far = Far::start("192.0.2.1:9000", false);
    let here = agent.ip("bridge");
    let send = format!(
        "HERE = '{here}'\n{FRAME}\nfor _ in range(3): say(frame('192.0.2.1', 9000, b'out'))"
    );
    assert_eq!(agent.exec(&send), "sent\nsent\nsent");
    let flows = || -> u64 {
        let all = stack.collector.received();
        let denied = all
            .iter()
            .filter(|r| r.attributes.get("dst_port") == Some(&json!(9000)));
        denied
            .map(|r| {
                is_of(r, &agent, LABELS);
                assert_eq!(
                    (&r.attributes["verdict"], &r.attributes["reason"]),
                    (&json!("DENIED"), &json!("unjudged"))
                );
                r.attributes.get("count").map_or(1, |n| n.as_u64().unwrap())
            })
            .sum()
    };
    eventually("each frame to be told", || (flows() == 3).then_some(()));
    assert_eq!(far.end(), (0, 0), "nothing got through");
    let tame = stack.agent(&engine, "tame", "shop", &["--cap-drop", "NET_RAW"]);
    let said = tame.exec("print(tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)))");
    assert_eq!(said, "EPERM");
    stack.end();
}
