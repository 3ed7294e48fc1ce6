//! Datagrams that the kernel handles many at a time are counted one at a time.

use kernel_tests::{check::fields, peer::Far, policies::UDP, run::Bench};
use serde_json::json;

#[test]
fn segmented_datagrams_are_counted_one_by_one() {
    let bench = Bench::new();
    let far = ["192.0.2.1:5000", "[2001:db8::1]:5000"].map(|at| Far::start(at, false));
    let out = bench.agent(
        UDP,
        "for ip in ('192.0.2.1', '2001:db8::1'):\n  \
         s = dgram(family(ip)); s.setsockopt(17, 103, 100)\n  \
         for n in (4000, 4050, 100, 99): assert s.sendto(bytes(n), (ip, 5000)) == n",
    );
    assert_eq!(far.map(Far::end), [(40 + 41 + 2, 8249); 2]);
    assert_eq!(out.records.len(), 2);
    for ip in ["192.0.2.1", "2001:db8::1"] {
        fields(
            out.only(&[("dst_ip", json!(ip))]),
            &json!({"bytes_out": 8249, "packets_out": 83, "bytes_in": 0, "packets_in": 0}),
        );
    }
}

#[test]
fn coalesced_datagrams_are_counted_one_by_one() {
    let bench = Bench::new();
    // Both ends inside: the one that sends segments, the one that takes them in one piece.
    let out = bench.agent(UDP, "r = dgram(); r.bind(('192.0.2.2', 7000)); r.setsockopt(17, 104, 1)\n\
         s = dgram(); s.bind(('192.0.2.1', 7001)); s.setsockopt(17, 103, 200); s.sendto(bytes(5010), ('192.0.2.2', 7000))\n\
         n = 0; reads = 0\n\
         while n < 5010: n += len(r.recv(1 << 16)); reads += 1\n\
         assert reads < 26, reads\n\
         r.sendto(b'ok', ('192.0.2.1', 7001)); s.recv(9)",
    );
    assert_eq!(out.records.len(), 2, "{:#?}", out.records);
    fields(
        out.only(&[("direction", json!("egress"))]),
        &json!({"dst_ip": "192.0.2.2", "dst_port": 7000, "bytes_out": 5010, "packets_out": 26, "bytes_in": 2, "packets_in": 1}),
    );
    fields(
        out.only(&[("direction", json!("ingress"))]),
        &json!({
            "src_ip": "192.0.2.1", "src_port": 7001, "dst_ip": "192.0.2.2", "dst_port": 7000, "bytes_in": 5010,
            "packets_in": 26, "bytes_out": 2, "packets_out": 1, "reason": "inbound",
        }),
    );
}

#[test]
fn many_messages_in_one_call() {
    let bench = Bench::new();
    let (one, two) = (
        Far::start("192.0.2.1:5000", false),
        Far::start("192.0.2.1:5001", false),
    );
    let out = bench.agent(UDP, "class Iov(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]\n\
         class Msg(ctypes.Structure): _fields_ = [('name', ctypes.c_void_p), ('namelen', ctypes.c_uint), ('iov', ctypes.c_void_p), ('iovlen', ctypes.c_size_t), ('control', ctypes.c_void_p), ('controllen', ctypes.c_size_t), ('flags', ctypes.c_size_t), ('len', ctypes.c_size_t)]\n\
         s = dgram(); keep = []; all = (Msg * 30)()\n\
         for i in range(30):\n\
         \x20   name = ctypes.create_string_buffer(struct.pack('=HH4s8x', 2, socket.htons(5000 + i % 2), socket.inet_aton('192.0.2.1')))\n\
         \x20   data = ctypes.create_string_buffer(i + 1); iov = Iov(ctypes.addressof(data), i + 1); keep += [name, data, iov]\n\
         \x20   all[i].name = ctypes.addressof(name); all[i].namelen = 16; all[i].iov = ctypes.addressof(iov); all[i].iovlen = 1\n\
         assert ctypes.CDLL(None).sendmmsg(s.fileno(), all, 30, 0) == 30",
    );
    assert_eq!((one.end(), two.end()), ((15, 225), (15, 240)));
    assert_eq!(out.records.len(), 2);
    fields(
        out.only(&[("dst_port", json!(5000))]),
        &json!({"bytes_out": 225, "packets_out": 15}),
    );
    fields(
        out.only(&[("dst_port", json!(5001))]),
        &json!({"bytes_out": 240, "packets_out": 15}),
    );
}

#[test]
fn two_threads_on_one_socket_lose_no_count() {
    let bench = Bench::new();
    let far = Far::start("192.0.2.1:5000", false);
    // ctypes lets the interpreter's lock go for the call: both threads are in the kernel at once.
    let out = bench.agent(
        UDP,
        "libc = ctypes.CDLL(None); s = dgram(); s.connect(('192.0.2.1', 5000)); N = 40_000\n\
         def pour(cpu, size):\n\
         \x20   os.sched_setaffinity(0, {cpu % os.cpu_count()}); b = bytes(size); fd = s.fileno()\n\
         \x20   for _ in range(N): assert libc.send(fd, b, size, 0) == size\n\
         t = [threading.Thread(target=pour, args=(i, 7 + 4 * i)) for i in range(2)]\n\
         [x.start() for x in t]; [x.join() for x in t]",
    );
    let _ = far.end();
    assert_eq!(out.records.len(), 1);
    // What the far side had no room for left all the same.
    fields(
        &out.records[0],
        &json!({"packets_out": 80_000, "bytes_out": 40_000 * (7 + 11), "packets_in": 0}),
    );
}
