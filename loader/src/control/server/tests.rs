use super::*;
use crate::{control::Request, render::line::tests::record};
use jiff::Timestamp;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::Shutdown,
};
use tempfile::TempDir;

struct Bench {
    dir: TempDir,
    server: Option<Server>,
    tap: Tap,
    desk: Desk,
}

fn status() -> Status {
    Status {
        instance: "run-7".to_owned(),
        agent: Some("reviewer".to_owned()),
        project: None,
        command: "curl".to_owned(),
        policy_file: String::new(),
        pid: 7,
        since: Timestamp::UNIX_EPOCH,
        version: "1".to_owned(),
    }
}

/// Served for the group of whoever runs the tests, who need not be root.
fn bench() -> Bench {
    let dir = TempDir::new().unwrap();
    let gate = Gate {
        group: Some(nix::unistd::getgid()),
    };
    let (server, tap, desk) = Server::start(dir.path(), gate, status()).unwrap();
    Bench {
        dir,
        server: Some(server),
        tap,
        desk,
    }
}

impl Bench {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(socket_path(self.dir.path(), "run-7")).unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        stream
    }

    /// A watcher that is already let in by the tap.
    fn watch(&mut self) -> BufReader<UnixStream> {
        let mut stream = self.connect();
        let ask = Request::Watch(crate::control::Watch { live: false });
        stream.write_all(ask.line().as_bytes()).unwrap();
        let mut heard = BufReader::new(stream);
        assert!(line(&mut heard).contains("run-7"));
        self.tap.admit();
        heard
    }

    fn end_flows(&mut self, n: usize) {
        for _ in 0..n {
            self.tap.ended(&record());
        }
        self.tap.flush();
    }
}

fn line(from: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

/// Everything that is said to a client which says this and no more.
fn told(bench: &Bench, said: &[u8]) -> String {
    let mut stream = bench.connect();
    // Who is refused may not take all of it.
    let _ = stream.write_all(said);
    let _ = stream.shutdown(Shutdown::Write);
    let mut all = Vec::new();
    let mut buf = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        all.extend_from_slice(&buf[..n]);
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn it_says_who_it_is() {
    let b = bench();
    let said = told(&b, Request::Status.line().repeat(2).as_bytes());
    let lines: Vec<serde_json::Value> = said
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert_eq!(lines[0]["v"], 1);
    assert_eq!(lines[0]["status"]["instance"], "run-7");
    assert_eq!(lines[0]["status"]["agent"], "reviewer");
}

#[test]
fn a_watcher_gets_every_record_and_the_end() {
    let mut b = bench();
    let mut heard = b.watch();
    // It may close its half: `nc` does when its input ends.
    heard.get_ref().shutdown(Shutdown::Write).unwrap();
    b.end_flows(2000);
    let json = serde_json::to_string(&record()).unwrap();
    for _ in 0..2000 {
        assert_eq!(line(&mut heard), format!("{{\"ended\":{json}}}\n"));
    }
    // Who has been there for long is bidden farewell like everybody else.
    let patience = crate::control::guest::PATIENCE;
    poll(&mut [], PollTimeout::try_from(patience).unwrap()).unwrap();
    b.end_flows(3);
    drop(b.server.take());
    let mut rest = String::new();
    heard.read_to_string(&mut rest).unwrap();
    assert_eq!(rest.lines().count(), 4, "{rest}");
    assert!(rest.ends_with("{\"end\":{}}\n"), "{rest}");
    assert!(!socket_path(b.dir.path(), "run-7").exists());
}

#[test]
fn who_does_not_read_holds_nobody_up_and_is_told_what_it_missed() {
    let mut b = bench();
    let mut slow = b.watch();
    let mut fast = b.watch();
    let told = 20_000;
    let (from, count) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        let mut got = 0;
        let mut text = String::new();
        while fast.read_line(&mut text).unwrap() > 0 {
            got += u64::from(text.starts_with("{\"ended\""));
            from.send(got).unwrap();
            text.clear();
        }
    });
    for sent in (100..=told).step_by(100) {
        b.end_flows(100);
        // As slow as the fast one reads, so that only the slow one misses something.
        while count.recv().unwrap() < sent {}
    }
    drop(b.server.take());
    reader.join().unwrap();
    let mut rest = String::new();
    slow.read_to_string(&mut rest).unwrap();
    let got = rest.lines().filter(|l| l.starts_with("{\"ended\"")).count();
    assert!(got > 0 && (got as u64) < told, "{got}");
}

#[test]
fn a_slow_watcher_that_catches_up_knows_exactly_how_much_it_missed() {
    let mut b = bench();
    let mut slow = b.watch();
    let told = 20_000;
    for _ in 0..told / 100 {
        b.end_flows(100);
    }
    let (mut got, mut lost) = (0, 0);
    while got + lost < told {
        let text = line(&mut slow);
        let said: serde_json::Value = serde_json::from_str(&text).unwrap();
        got += u64::from(said.get("ended").is_some());
        lost += said["lost"].as_u64().unwrap_or(0);
    }
    assert_eq!(got + lost, told);
    assert!(lost > 0 && got > 0, "{got} {lost}");
    b.end_flows(1);
    assert!(line(&mut slow).starts_with("{\"ended\""));
}

#[test]
fn nonsense_is_answered_once_and_the_server_goes_on() {
    let mut b = bench();
    let mut heard = b.watch();
    let huge = vec![b'x'; 1 << 20];
    let requests = Request::Status.line().repeat(1000);
    let while_watching = format!("{}more\n", Request::Watch(Default::default()).line());
    for (said, reply) in [
        (&b"\n"[..], "a request is one line such as"),
        (b"\0\xff\xfe{{{{\n", "a request is one line such as"),
        (b"{\"v\":9,\"watch\":{}}\n", "version 9"),
        (b"{\"v\":1,\"wat", ""),
        (b"", ""),
        (&huge, "at most 4096 bytes"),
        (requests.as_bytes(), "enough was asked"),
        (while_watching.as_bytes(), "while watching"),
    ] {
        let answer = told(&b, said);
        assert!(answer.contains(reply), "{answer}");
        let errors = answer.matches("\"error\"").count();
        assert_eq!(errors, usize::from(!reply.is_empty()), "{answer}");
    }
    b.end_flows(1);
    assert!(line(&mut heard).starts_with("{\"ended\""));
}

#[test]
fn connections_are_bounded_and_idle_ones_make_room() {
    let mut b = bench();
    let mut heard = b.watch();
    let crowd: Vec<UnixStream> = (0..100).map(|_| b.connect()).collect();
    b.end_flows(1);
    assert!(
        line(&mut heard).starts_with("{\"ended\""),
        "who was there stays"
    );
    let refused = crowd
        .iter()
        .filter_map(|s| {
            let mut s = s;
            let mut text = String::new();
            s.set_nonblocking(true).unwrap();
            let _ = s.read_to_string(&mut text);
            text.contains("too many are connected").then_some(())
        })
        .count();
    let root = nix::unistd::geteuid().is_root();
    let room = if root {
        MAX_GUESTS
    } else {
        MAX_GUESTS - KEPT_FOR_ROOT
    };
    assert!(refused <= 101 - room, "{refused}");
    // Those that never ask are sent away after a while; then there is room.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !told(&b, Request::Status.line().as_bytes()).contains("run-7") {
        assert!(Instant::now() < deadline, "no room was made");
    }
    b.end_flows(1);
    assert!(line(&mut heard).starts_with("{\"ended\""));
}

#[test]
fn the_end_does_not_wait_long_for_who_does_not_read() {
    let mut b = bench();
    let watchers: Vec<_> = (0..5).map(|_| b.watch()).collect();
    b.end_flows(10_000);
    let began = Instant::now();
    drop(b.server.take());
    assert!(began.elapsed() < 10 * FAREWELL, "{:?}", began.elapsed());
    drop(watchers);
}

#[test]
fn strangers_are_refused() {
    let dir = TempDir::new().unwrap();
    let gate = Gate { group: None };
    let (_server, tap, desk) = Server::start(dir.path(), gate, status()).unwrap();
    let b = Bench {
        dir,
        server: None,
        tap,
        desk,
    };
    let answer = told(&b, Request::Status.line().as_bytes());
    if nix::unistd::geteuid().is_root() {
        assert!(answer.contains("run-7"), "{answer}");
    } else {
        assert!(answer.contains("only root and members"), "{answer}");
    }
}

#[test]
fn sockets_that_nobody_serves_are_swept_away_and_others_stay() {
    let mut b = bench();
    let dir = b.dir.path().to_owned();
    drop(UnixListener::bind(socket_path(&dir, "run-dead")).unwrap());
    drop(UnixListener::bind(dir.join("run-new.sock.new")).unwrap());
    fs::write(dir.join("file.sock"), "").unwrap();
    assert_eq!(place::sockets(&dir).unwrap(), ["file", "run-7", "run-dead"]);
    place::sweep(&dir);
    assert_eq!(place::sockets(&dir).unwrap(), ["file", "run-7"]);
    assert!(
        dir.join("run-new.sock.new").exists(),
        "it may be in the making"
    );
    let _ = b.watch();
}

const LIFT: &[u8] =
    b"{\"v\":1,\"bypass\":{\"agent\":\"reviewer\",\"for_ms\":1000,\"reason\":\"x\"}}\n";

#[test]
fn an_order_waits_for_the_loop_and_its_answer_is_the_last_word() {
    let b = bench();
    let mut stream = b.connect();
    // What is asked for behind an order is not looked at.
    stream.write_all(&[LIFT, LIFT].concat()).unwrap();
    let asked = eventually(|| b.desk.next());
    assert_eq!(asked.actor.actor_pid, std::process::id());
    // The thread goes on serving others meanwhile.
    assert!(told(&b, b"{\"v\":1,\"status\":{}}\n").contains("run-7"));
    let done = crate::bypass::Done {
        unchanged: vec!["acme/reviewer".to_owned()],
        ..crate::bypass::Done::default()
    };
    asked.answer(Ok(&done));
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all.lines().count(), 1, "{all}");
    assert!(all.contains("acme/reviewer"), "{all}");
    assert!(b.desk.next().is_none());
}

#[test]
fn an_order_that_nobody_takes_is_given_up() {
    let b = bench();
    let said = told(&b, LIFT);
    assert!(said.contains("has not said in time"), "{said}");
    assert!(b.desk.next().is_none(), "too late to do it");
}

#[test]
fn watchers_are_told_of_bypasses_those_that_come_later_too() {
    let mut b = bench();
    let mut first = b.watch();
    let lifted = crate::bypass::Lifted {
        agent: Some("reviewer".to_owned()),
        project: None,
        container_name: None,
        by: "alice, uid 1000".to_owned(),
        reason: "debug npm".to_owned(),
        until: Timestamp::UNIX_EPOCH,
    };
    b.tap.bypasses(&[lifted]);
    let mut second = b.watch();
    b.tap.flush();
    for heard in [&mut first, &mut second] {
        assert!(line(heard).contains("debug npm"));
    }
    b.tap.bypasses(&[]);
    for heard in [&mut first, &mut second] {
        assert_eq!(line(heard), "{\"bypasses\":[]}\n");
    }
}

fn eventually<T>(mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
}
