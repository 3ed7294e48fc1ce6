//! TCP: the record of one connection, byte for byte, however it went and ended.

use kernel_tests::{
    check::fields,
    peer::{drain, once, reset, send, take},
    policies::TCP,
    run::{Bench, Outcome},
};
use serde_json::json;
use std::{
    fs,
    io::{ErrorKind, Read as _},
    net::{Shutdown, SocketAddr, TcpStream},
};

/// Runs a program and the far side of its one connection, each to its end.
fn meet<T: Send + 'static>(
    far: impl FnOnce(TcpStream) -> T + Send + 'static,
    program: &str,
) -> (Outcome, SocketAddr, T) {
    let bench = Bench::new();
    let server = once("192.0.2.1:8080", far);
    let out = bench.agent(TCP, &format!("s = dial('192.0.2.1')\n{program}"));
    let (from, saw) = server.join().unwrap();
    (out, from, saw)
}

#[test]
fn a_plain_connection_tells_who_where_and_how_much() {
    let far = |mut s: TcpStream| {
        take(&mut s, 100_003);
        send(&mut s, 70_001);
    };
    let (out, from, ()) = meet(
        far,
        "s.sendall(b'x' * 100_003); print(read(s), os.getpid())",
    );
    assert_eq!(out.words()[0], "70001");
    let pid: u32 = out.words()[1].parse().unwrap();
    out.is_one(&json!({
        "verdict": "ALLOWED", "direction": "egress", "l4_proto": "tcp", "l7_proto": "unknown",
        "src_ip": from.ip(), "src_port": from.port(), "dst_ip": "192.0.2.1", "dst_port": 8080,
        "bytes_out": 100_003, "bytes_in": 70_001, "reason": "rule", "rule": "doc nets",
        "close_reason": "fin", "pid": pid, "comm": "python3", "would_deny": null, "count": null,
    }));
    let r = &out.records[0];
    assert!(r["packets_out"].as_u64() >= Some(3) && r["packets_in"].as_u64() >= Some(3));
    assert!(r["start_time"].as_str() <= r["time"].as_str());
    assert!(r["rtt_us"].as_u64() > Some(0));
}

#[test]
fn half_closed_by_the_agent() {
    let far = |mut s: TcpStream| {
        let n = drain(&mut s);
        send(&mut s, 300_000);
        n
    };
    let (out, _, n) = meet(
        far,
        "s.sendall(b'x' * 5000); s.shutdown(socket.SHUT_WR); print(read(s))",
    );
    assert_eq!((out.stdout.as_str(), n), ("300000\n", 5000));
    out.is_one(&json!({"bytes_out": 5000, "bytes_in": 300_000, "close_reason": "fin"}));
}

#[test]
fn half_closed_by_the_peer() {
    let far = |mut s: TcpStream| {
        send(&mut s, 1000);
        s.shutdown(Shutdown::Write).unwrap();
        drain(&mut s)
    };
    let (out, _, n) = meet(far, "assert read(s) == 1000; s.sendall(b'x' * 20_000)");
    assert_eq!(n, 20_000);
    out.is_one(&json!({"bytes_out": 20_000, "bytes_in": 1000, "close_reason": "fin"}));
}

#[test]
fn reset_by_the_agent() {
    let far = |mut s: TcpStream| {
        take(&mut s, 4000);
        send(&mut s, 1);
        s.read(&mut [0]).unwrap_err().kind()
    };
    let (out, _, end) = meet(
        far,
        "s.sendall(b'x' * 4000); s.recv(1)\n\
         s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()",
    );
    assert_eq!(end, ErrorKind::ConnectionReset);
    out.is_one(&json!({"bytes_out": 4000, "bytes_in": 1, "close_reason": "rst"}));
}

#[test]
fn reset_by_the_agent_because_it_closed_without_reading() {
    let far = |mut s: TcpStream| {
        send(&mut s, 900);
        take(&mut s, 10);
        s.read(&mut [0]).unwrap_err().kind()
    };
    let (out, _, end) = meet(
        far,
        "assert len(s.recv(900, socket.MSG_WAITALL | socket.MSG_PEEK)) == 900\n\
         s.sendall(b'x' * 10); s.close()",
    );
    assert_eq!(end, ErrorKind::ConnectionReset);
    out.is_one(&json!({"bytes_out": 10, "bytes_in": 900, "close_reason": "rst"}));
}

#[test]
fn reset_by_the_peer() {
    let far = |mut s: TcpStream| {
        take(&mut s, 4000);
        reset(s);
    };
    let (out, _, ()) = meet(
        far,
        "s.sendall(b'x' * 4000)\n\
         try: s.recv(1); sys.exit(9)\n\
         except ConnectionResetError: pass",
    );
    out.is_one(&json!({"bytes_out": 4000, "bytes_in": 0, "close_reason": "rst"}));
}

#[test]
fn an_accepted_connection_is_ingress() {
    let bench = Bench::new();
    let mut agent = bench.talk(
        TCP,
        &[],
        "ls = [socket.create_server((ip, 9000), family=family(ip)) for ip in ('192.0.2.1', '2001:db8::1')]\n\
         say('up')\n\
         for l in ls:\n  \
         s, _ = l.accept(); n = read(s); s.sendall(b'r' * (2 * n)); s.close()",
    );
    assert_eq!(agent.hear(), "up");
    let callers = ["192.0.2.1", "2001:db8::1"].map(|address| {
        let mut s = TcpStream::connect((address, 9000)).unwrap();
        send(&mut s, 30_011);
        s.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&mut s), 60_022);
        s.local_addr().unwrap()
    });
    let out = agent.end(&bench);
    assert_eq!((out.code, out.records.len()), (0, 2), "{}", out.stderr);
    for from in callers {
        let ip = json!(from.ip());
        fields(
            out.only(&[("dst_ip", ip.clone())]),
            &json!({
                "verdict": "ALLOWED", "direction": "ingress", "reason": "inbound", "src_ip": ip,
                "src_port": from.port(), "dst_port": 9000, "bytes_in": 30_011, "bytes_out": 60_022,
                "close_reason": "fin",
            }),
        );
    }
}

#[test]
fn a_socket_that_a_child_inherits_stays_one_flow() {
    let far = |mut s: TcpStream| {
        send(&mut s, 700);
        drain(&mut s)
    };
    let (out, _, n) = meet(
        far,
        "s.sendall(b'p' * 100)\n\
         if os.fork() == 0:\n  \
         need(s, 700); s.sendall(b'c' * 1500); os._exit(0)\n\
         s.close(); os.wait(); print(os.getpid())",
    );
    assert_eq!(n, 1600);
    let pid: u32 = out.stdout.trim().parse().unwrap();
    out.is_one(&json!({"bytes_out": 1600, "bytes_in": 700, "pid": pid, "close_reason": "fin"}));
}

#[test]
fn a_reconnected_socket_is_two_flows() {
    let bench = Bench::new();
    let first = once("192.0.2.1:8080", |mut s| {
        take(&mut s, 300);
        send(&mut s, 30);
        drain(&mut s)
    });
    let second = once("192.0.2.2:8080", |mut s| drain(&mut s));
    let out = bench.agent(
        TCP,
        "s = dial('192.0.2.1'); s.sendall(b'a' * 300); need(s, 30)\n\
         assert ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16) == 0\n\
         s.connect(('192.0.2.2', 8080)); s.sendall(b'b' * 400); s.close()",
    );
    first.join().unwrap();
    assert_eq!(second.join().unwrap().1, 400);
    assert_eq!(out.records.len(), 2);
    fields(
        out.only(&[("dst_ip", json!("192.0.2.1"))]),
        &json!({"bytes_out": 300, "bytes_in": 30, "close_reason": "rst"}),
    );
    fields(
        out.only(&[("dst_ip", json!("192.0.2.2"))]),
        &json!({"bytes_out": 400, "bytes_in": 0, "close_reason": "fin"}),
    );
}

#[test]
fn data_in_the_syn_counts_on_both_sides() {
    let bench = Bench::new();
    // Client and server, with and without a cookie.
    fs::write("/proc/sys/net/ipv4/tcp_fastopen", "519").unwrap();
    let out = bench.agent(
        TCP,
        "l = socket.create_server(('192.0.2.1', 8080)); l.setsockopt(6, 23, 16)\n\
         s = socket.socket(); assert s.sendto(b'x' * 600, 0x20000000, ('192.0.2.1', 8080)) == 600\n\
         c, _ = l.accept(); need(c, 600); c.sendall(b'y' * 40); need(s, 40)\n\
         assert c.getsockopt(6, 11, 104)[5] & 32, 'no data in the SYN'\n\
         s.close(); c.recv(1); c.close()",
    );
    assert_eq!(out.records.len(), 2, "{:#?}", out.records);
    fields(
        out.only(&[("direction", json!("egress"))]),
        &json!({"bytes_out": 600, "bytes_in": 40, "close_reason": "fin", "dst_port": 8080}),
    );
    fields(
        out.only(&[("direction", json!("ingress"))]),
        &json!({"bytes_out": 40, "bytes_in": 600, "close_reason": "fin", "dst_port": 8080}),
    );
}

#[test]
fn version_6_and_mapped_addresses() {
    let bench = Bench::new();
    let six = once("[2001:db8::1]:8080", |mut s| drain(&mut s));
    let four = once("192.0.2.1:8080", |mut s| drain(&mut s));
    let out = bench.agent(TCP, "s = dial('2001:db8::1'); s.sendall(b'x' * 6666); s.close()\n\
         s = socket.socket(socket.AF_INET6); s.connect(('::ffff:192.0.2.1', 8080)); s.sendall(b'x' * 4444); s.close()",
    );
    let (six, four) = (six.join().unwrap(), four.join().unwrap());
    assert_eq!((six.1, four.1), (6666, 4444));
    assert_eq!(out.records.len(), 2);
    fields(
        out.only(&[("dst_ip", json!("2001:db8::1"))]),
        &json!({"bytes_out": 6666, "rule": "v6", "src_ip": six.0.ip(), "src_port": six.0.port(), "close_reason": "fin"}),
    );
    fields(
        out.only(&[("dst_ip", json!("192.0.2.1"))]),
        &json!({"bytes_out": 4444, "rule": "doc nets", "src_ip": four.0.ip(), "src_port": four.0.port(), "close_reason": "fin"}),
    );
}
