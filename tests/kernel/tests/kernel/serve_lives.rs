//! Containers come, go, and leave sockets behind.

use ebpf_manager::fleet;
use kernel_tests::{
    check::{fields, flows},
    fleet::Yard,
    peer::{drain, once},
};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::mpsc, thread, time::Duration};

const POLICY: &str = "rules: [{ name: all, dst: 192.0.2.0/24, proto: any }]\n";

/// A refused and a denied connection, and a datagram.
const SOME: &str = "assert tcp('192.0.2.1', 80) == 'ECONNREFUSED'\n\
    assert tcp('203.0.113.9', 80) == 'EPERM'\n\
    step('done')";

#[test]
fn many_lives_of_the_same_few_containers_leave_nothing_behind() {
    const LIVES: usize = 24;
    const ROWS: u32 = 6;
    let mut yard = Yard::new(Some(POLICY), ROWS);
    let mut running: Vec<(usize, _)> = Vec::new();
    for n in 0..LIVES {
        // Ids are used again, as by restarts, and addresses too.
        let id = format!("c{}", n % 4);
        if running.len() == 4 {
            let (_, pod) = running.remove(0);
            yard.stop(pod);
        }
        let mut pod = yard.pod(&id, (&format!("agent{n}"), "storm"), SOME);
        pod.container.addresses = vec!["172.18.0.9".parse().unwrap()];
        if n % 2 == 0 {
            yard.bear(&pod);
        }
        yard.until("room", |y| {
            y.start(&pod);
            (y.fleet.enrolled() > running.len()).then_some(())
        });
        assert_eq!(pod.agent.go(), "done");
        running.push((n, pod));
    }
    for (_, pod) in running {
        yard.stop(pod);
    }
    yard.is_empty();
    let mut by_agent: HashMap<String, Vec<Value>> = HashMap::new();
    for r in yard.bench.records() {
        let agent = r["agent"]
            .as_str()
            .expect("everything has a name")
            .to_owned();
        by_agent.entry(agent).or_default().push(r);
    }
    assert_eq!(by_agent.len(), LIVES);
    for (agent, records) in by_agent {
        let n: usize = agent.trim_start_matches("agent").parse().unwrap();
        assert_eq!(records.len(), 2, "{agent}: {records:#?}");
        for r in &records {
            fields(
                r,
                &json!({"container_id": format!("c{}", n % 4), "project": "storm"}),
            );
        }
    }
    assert_eq!(yard.events("left").len(), LIVES);
    assert!(yard.events("gap").is_empty());
}

#[test]
fn an_orphan_socket_is_under_its_policy_and_told_to_the_last_byte() {
    let mut yard = Yard::new(Some(POLICY), 2);
    let (go, wait) = mpsc::channel::<()>();
    let server = once("192.0.2.1:8080", move |mut s| {
        wait.recv().unwrap();
        drain(&mut s)
    });
    // More than the peer, who does not read yet, has room for.
    let mut pod = yard.pod(
        "c1",
        ("web", "shop"),
        "s = dial('192.0.2.1'); s.setblocking(False); n = 0\n\
         try:\n\
         \x20   while True: n += s.send(bytes(65536))\n\
         except BlockingIOError: step(n)",
    );
    yard.start(&pod);
    let sent: u64 = pod.agent.go().parse().unwrap();
    yard.stop(pod);
    for _ in 0..5 {
        yard.turn();
    }
    assert_eq!(yard.links().len(), 1, "it is still guarded");
    assert_eq!(yard.pins().infos().unwrap().len(), 1);
    assert!(yard.events("left").is_empty());
    go.send(()).unwrap();
    let arrived = server.join().unwrap().1;
    yard.is_empty();
    assert_eq!(arrived, sent);
    let records = yard.bench.records();
    assert_eq!(records.len(), 1);
    fields(
        &records[0],
        &json!({"agent": "web", "verdict": "ALLOWED", "bytes_out": sent, "close_reason": "fin"}),
    );
}

#[test]
fn a_socket_that_somebody_else_keeps_passes_nothing_more_when_its_container_is_over() {
    let linger = Duration::from_millis(500);
    let mut yard = Yard::with(Some(POLICY), fleet::sizes(2), linger, |_, sink| sink);
    // A datagram socket of the agent's lives on in a process outside, and has no flow at the moment.
    let path = yard.bench.path("passed.sock");
    let keeper = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut pod = yard.pod(
        "c1",
        ("web", "shop"),
        &format!(
            "s = dgram(); u = socket.socket(socket.AF_UNIX); u.connect({:?})\n\
             socket.send_fds(u, [b'x'], [s.fileno()]); step('passed'); hear()",
            path.display().to_string()
        ),
    );
    yard.start(&pod);
    let passed = thread::spawn(move || receive_fd(&keeper.accept().unwrap().0));
    assert_eq!(pod.agent.go(), "passed");
    let socket = passed.join().unwrap();
    socket.send_to(b"x", "192.0.2.1:9").unwrap();
    assert_eq!(yard.fleet.enrolled(), 1);
    yard.stop(pod);
    let links = yard.links();
    assert_eq!(links.len(), 1);
    yard.until("it to be over", |y| {
        (y.events("left").len() == 1).then_some(())
    });
    assert_eq!(
        yard.links(),
        links,
        "the socket keeps the cgroup, and so the links"
    );
    let e = socket.send_to(b"x", "192.0.2.1:9").unwrap_err();
    assert_eq!(e.raw_os_error(), Some(nix::libc::EPERM));
    drop(socket);
    yard.is_empty();
    let records = yard.bench.records();
    assert_eq!(flows(&records), 2);
    fields(
        &records[0],
        &json!({"agent": "web", "close_reason": "container_exit"}),
    );
    fields(
        &records[1],
        &json!({"agent": null, "reason": "not_enrolled", "verdict": "DENIED"}),
    );
}

/// A datagram socket out of a message.
fn receive_fd(from: &std::os::unix::net::UnixStream) -> std::net::UdpSocket {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use std::os::fd::{AsRawFd as _, FromRawFd as _};
    let mut byte = [0];
    let mut iov = [std::io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(from.as_raw_fd(), &mut iov, Some(&mut space), flags).unwrap();
    let fds = message.cmsgs().unwrap().find_map(|c| match c {
        ControlMessageOwned::ScmRights(fds) => Some(fds),
        _ => None,
    });
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    unsafe { std::net::UdpSocket::from_raw_fd(fds.unwrap()[0]) }
}

#[test]
fn a_cgroup_outside_the_mount_is_refused_and_said() {
    let mut yard = Yard::new(Some(POLICY), 2);
    let mut pod = yard.pod("c1", ("web", "shop"), "step('x')");
    pod.container.cgroup = "/tmp".into();
    yard.start(&pod);
    let shut = yard.events("shut");
    assert_eq!(shut.len(), 1);
    assert!(
        shut[0]["message"].as_str().unwrap().contains("/tmp"),
        "{shut:?}"
    );
    yard.turn();
    assert_eq!(yard.events("shut").len(), 1, "said once");
    yard.stop(pod);
    yard.is_empty();
}
