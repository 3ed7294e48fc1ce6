//! A query that an allowed name is asked with in the SYN of a Fast Open connection leaves; what follows on
//! the same stream must be judged where it really begins, one behind the SYN.

use kernel_tests::{
    dns::{RESOLVER, refused},
    policies::NAMES,
    run::Bench,
    server::{frame, reply},
};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::fd::AsRawFd as _,
    thread,
};

/// Answers one stream, with data in the SYN or (like most servers) without.
fn serve(fast_open: bool) {
    let listener = TcpListener::bind((RESOLVER, 53)).unwrap();
    if fast_open {
        let backlog: nix::libc::c_int = 16;
        // SAFETY: the value is an integer, whose size is given.
        let r = unsafe {
            nix::libc::setsockopt(
                listener.as_raw_fd(),
                nix::libc::IPPROTO_TCP,
                nix::libc::TCP_FASTOPEN,
                (&raw const backlog).cast(),
                4,
            )
        };
        assert_eq!(r, 0);
    }
    thread::spawn(move || {
        let (mut s, _) = listener.accept().unwrap();
        let mut len = [0; 2];
        while s.read_exact(&mut len).is_ok() {
            let mut m = vec![0; usize::from(u16::from_be_bytes(len))];
            s.read_exact(&mut m).unwrap();
            s.write_all(&frame(&reply(&m, &[]))).unwrap();
        }
    });
}

const TWO_QUERIES: &str = "s = socket.socket(); s.settimeout(3)\n\
    m = framed(query('api.example')); assert s.sendto(m, 0x20000000, (R, 53)) == len(m)\n\
    def more(): return 'answered' if len(s.recv(512)) > 12 else 'closed'\n\
    try:\n  print(more()); s.sendall(m); print(more())\n\
    except OSError as e: print('silence')\n";

fn two_queries(fast_open: bool) {
    let bench = Bench::new();
    fs::write("/proc/sys/net/ipv4/tcp_fastopen", "519").unwrap();
    serve(fast_open);
    let out = bench.agent_with(NAMES, &["--linger", "0"], TWO_QUERIES);
    assert_eq!(out.words(), ["answered", "answered"], "{:#?}", out.records);
    assert_eq!(refused(&out), []);
}

#[test]
fn a_query_in_the_syn_and_one_behind_it() {
    two_queries(true);
}

#[test]
fn a_query_in_the_syn_that_the_resolver_does_not_take_there() {
    two_queries(false);
}
