//! What agents try that want out. An escape is judged on the wire, not by what the agent was told.

use crate::{
    run::{Bench, Outcome},
    sniff::Sniffer,
};

/// One port of two addresses is open, and DNS to one resolver.
pub const POLICY: &str = "resolvers: [192.0.2.53]\nrules:\n\
    - { name: four, dst: 192.0.2.1, proto: tcp, port: 80 }\n\
    - { name: datagrams, dst: 192.0.2.1, proto: udp, port: 80 }\n\
    - { name: six, dst: \"2001:db8::1\", proto: tcp, port: 80 }\n";

/// Addresses that nothing may reach.
pub const FORBIDDEN: [&str; 2] = ["203.0.113.9", "2001:db8::2"];

/// Calls that undo a firewall or lead around it, and two attempts to see whether one did.
pub const TOOLS: &str = r"
import glob
libc = ctypes.CDLL(None, use_errno=True)
def bpf(cmd, attr):
    buf = ctypes.create_string_buffer(attr, len(attr))
    r = libc.syscall(321, cmd, buf, len(attr))
    return r if r >= 0 else -ctypes.get_errno()
def obj_get(path):
    p = ctypes.create_string_buffer(path.encode())
    return bpf(7, struct.pack('QII', ctypes.addressof(p), 0, 0))
def into(path, then):
    fd = os.open(path, os.O_RDONLY)
    args = ctypes.create_string_buffer(struct.pack('11Q', 0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, fd), 88)
    r = libc.syscall(435, args, 88)
    if r == 0:
        try: then()
        finally: os._exit(0)
    if r > 0: os.waitpid(r, 0)
    return r
def out():
    print(tcp('203.0.113.9', 80), udp(b'x', '203.0.113.9', 80, 0), flush=True)
def or_error(f):
    try: return f()
    except OSError as e: return errno.errorcode[e.errno]
";

/// Runs the program, in which every attempt prints a word, under [`POLICY`] and asserts that nothing of
/// it reached a forbidden address.
#[track_caller]
pub fn attempt(program: &str) -> Outcome {
    attempt_in(&Bench::new(), program)
}

/// The same in a namespace that the test has prepared.
#[track_caller]
pub fn attempt_in(bench: &Bench, program: &str) -> Outcome {
    let wire = Sniffer::start();
    // What is withheld otherwise, so that the hooks are what refuses.
    let out = bench.agent_with(POLICY, &["--cap-add", "CAP_NET_RAW"], program);
    for p in wire.packets() {
        assert!(
            !FORBIDDEN.contains(&p.dst.to_string().as_str()),
            "escaped: {p:?}"
        );
    }
    out
}
