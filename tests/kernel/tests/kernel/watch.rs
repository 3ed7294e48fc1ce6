//! `watch` as people use it: on a real terminal, in a pipe, with instances that come and go.

use kernel_tests::{
    PATIENCE, agent::code, eventually, pty::Terminal, run::Bench, server::Place, talk::Talk,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

const POLICY: &str =
    "rules:\n- { name: \"doc nets\", dst: 192.0.2.0/24, proto: tcp, port: \"1-65535\" }\n";

/// An agent that connects as it is told: `ADDRESS PORT`, `hold ADDRESS PORT`.
const AGENT: &str = "\
held = []
said = 'ready'
while True:
  word = step(said)
  if not word: break
  *hold, ip, port = word.split()
  if hold:
    held.append(socket.create_connection((ip, int(port)))); said = 'held'
  else: said = tcp(ip, int(port), b'hello')
";

/// Starts [`AGENT`] and waits until it listens.
fn start(bench: &Bench, args: &[&str]) -> Talk {
    let mut talk = bench.talk(POLICY, &[&["--quiet"], args].concat(), AGENT);
    assert_eq!(talk.hear(), "ready");
    talk
}

/// Tells [`AGENT`] what to do; it must come out like this.
#[track_caller]
fn does(talk: &mut Talk, what: &str, wanted: &str) {
    talk.say(what);
    assert_eq!(talk.hear(), wanted);
}

fn watch(bench: &Bench, args: &[&str]) -> Command {
    let mut c = bench.manager();
    c.arg("watch").args(args).env_remove("NO_COLOR");
    c
}

#[test]
fn flows_are_seen_chosen_and_looked_at_and_quitting_leaves_the_run_alone() {
    let bench = Bench::new();
    let _place = Place::open("192.0.2.1:80");
    let mut seen = Terminal::start(watch(&bench, &[]), 30, 140);
    seen.reads("waiting for an instance…");
    let mut talk = start(&bench, &["--agent", "reviewer", "--project", "acme"]);
    seen.reads(&format!("run-{} (acme/reviewer)", talk.pid()));

    does(&mut talk, "192.0.2.1 80", "ok");
    does(&mut talk, "203.0.113.9 4444", "EPERM");
    does(&mut talk, "hold 192.0.2.1 80", "held");
    let screen = seen.shows("three flows", |s| {
        s.contains("2 ended") && s.contains("live · 1") && s.contains("203.0.113.9:4444")
    });
    assert!(screen.contains("rule \"doc nets\""), "{screen}");
    assert!(screen.contains("5 B"), "{screen}");

    seen.press("/verdict=denied prot");
    seen.reads("an operator is missing behind `prot`");
    seen.press("\u{15}verdict=denied port>4000\r");
    let screen = seen.shows("the denied flow alone", |s| s.contains("ended · 1 "));
    assert!(
        screen.contains("203.0.113.9:4444") && !screen.contains("192.0.2.1:80"),
        "{screen}"
    );

    seen.press("\r");
    let screen = seen.reads("decided by");
    for field in [
        "no rule (default)",
        "203.0.113.9",
        "agent           reviewer",
    ] {
        assert!(screen.contains(field), "{field}: {screen}");
    }
    seen.press("G");
    let screen = seen.reads("would_deny");
    assert!(screen.contains("comm            python3"), "{screen}");
    assert!(screen.contains("flow_id"), "{screen}");
    // A terminal tells escape from the beginning of a longer key by what follows.
    seen.press("\u{1b}");
    seen.shows("the tables", |s| s.contains("DESTINATION"));

    seen.resize(12, 60);
    let screen = seen.shows("the smaller screen", |s| {
        s.lines().count() <= 12 && s.contains("203.0.113.9:4444") && !s.contains("WHY")
    });
    assert!(screen.lines().all(|l| l.chars().count() <= 60), "{screen}");
    seen.resize(40, 150);
    seen.reads("WHY");

    seen.press("q");
    assert_eq!(seen.ended(), 0);
    does(&mut talk, "192.0.2.1 80", "ok");
    let out = talk.end(&bench);
    assert_eq!((out.code, out.records.len()), (0, 4), "{}", out.stderr);
    assert_eq!(std::fs::read_dir(bench.control()).unwrap().count(), 0);
}

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    let bench = Bench::new();
    for (signal, code) in [
        (Some(Signal::SIGTERM), 143),
        (Some(Signal::SIGHUP), 129),
        (Some(Signal::SIGINT), 130),
        (Some(Signal::SIGQUIT), 131),
        (None, 0),
    ] {
        let mut seen = Terminal::start(watch(&bench, &[]), 24, 80);
        seen.reads("waiting for an instance…");
        match signal {
            Some(signal) => seen.signal(signal),
            None => seen.press("\u{3}"),
        }
        assert_eq!(seen.ended(), code, "{signal:?}");
    }
}

#[test]
fn colours_are_for_those_who_want_them() {
    let bench = Bench::new();
    let mut talk = start(&bench, &[]);
    for no_color in [false, true] {
        let mut command = watch(&bench, &[]);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let seen = Terminal::start(command, 24, 100);
        seen.reads(&talk.instance());
        does(&mut talk, "203.0.113.9 4444", "EPERM");
        seen.reads("DENIED");
        assert_eq!(seen.is_colored("DENIED"), !no_color);
    }
    talk.end(&bench);
}

/// A watcher in a pipe.
struct Piped {
    child: Child,
    out: Receiver<String>,
    err: BufReader<ChildStderr>,
}

fn piped(mut command: Command) -> Piped {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (say, out) = channel();
    let from: ChildStdout = child.stdout.take().unwrap();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = say.send(line);
        }
    });
    let err = BufReader::new(child.stderr.take().unwrap());
    Piped { child, out, err }
}

impl Piped {
    fn line(&self) -> String {
        self.out.recv_timeout(PATIENCE).expect("a line")
    }

    fn complaint(&mut self) -> String {
        let mut line = String::new();
        self.err.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn end(mut self) -> i32 {
        let child = &mut self.child;
        let status = eventually("its end", || child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn in_a_pipe_it_is_one_line_a_flow() {
    let bench = Bench::new();
    let _place = Place::open("192.0.2.1:80");
    let mut plain = piped(watch(&bench, &[]));
    let mut json = piped(watch(&bench, &["--json", "--filter", "verdict=DENIED"]));
    assert_eq!(plain.complaint(), "waiting for an instance…");
    assert_eq!(json.complaint(), "waiting for an instance…");
    let mut talk = start(&bench, &[]);
    let mut one = piped(watch(&bench, &["--json", "--instance", &talk.instance()]));
    // Each of the watchers is there when it shows a flow.
    let (mut shown, mut told, mut all) = (0, 0, 0);
    eventually("every watcher", || {
        does(&mut talk, "203.0.113.9 4444", "EPERM");
        shown += plain.out.try_iter().count();
        told += json.out.try_iter().count();
        all += one.out.try_iter().count();
        (shown > 0 && told > 0 && all > 0).then_some(())
    });
    does(&mut talk, "192.0.2.1 80", "ok");
    let line = loop {
        let line = plain.line();
        if line.contains("ALLOWED") {
            break line;
        }
    };
    assert!(
        line.contains("192.0.2.1:80") && line.contains("rule \"doc nets\""),
        "{line}"
    );
    assert!(!line.contains('\u{1b}'), "{line:?}");

    // Another instance is picked up, and its end is told.
    let ask = code("while True:\n  tcp('169.254.169.254', 5555); time.sleep(0.02)");
    let mut run = bench.manager();
    let second = Talk::start(run.args(["run", "--quiet", "--", "python3", "-c", &ask]));
    eventually("the second instance", || {
        plain
            .out
            .try_iter()
            .any(|l| l.contains(":5555"))
            .then_some(())
    });
    second.signal(Signal::SIGTERM);
    let over = format!("{} is over", second.instance());
    second.end(&bench);
    while plain.complaint() != over {}

    let id = talk.instance();
    let out = talk.end(&bench);
    assert_eq!(one.complaint(), format!("{id} is over"));
    let told: Vec<Value> = one
        .out
        .iter()
        .map(|l| serde_json::from_str(&l).unwrap())
        .collect();
    assert_eq!(one.end(), 0, "the one that it watched is over");
    assert!(
        told.iter().all(|r| out.records.contains(r)),
        "they are the records of the run"
    );
    assert_eq!(told.last().unwrap()["verdict"], "ALLOWED");
    let denied: Vec<String> = json.out.try_iter().collect();
    assert!(
        denied.iter().all(|l| l.contains("\"DENIED\"")),
        "{denied:?}"
    );
    while !plain.complaint().contains("waiting for an instance…") {}
}

#[test]
fn a_pipe_that_is_closed_ends_it() {
    let bench = Bench::new();
    let mut command = watch(&bench, &["--json"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let status = eventually("its end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_loader_that_dies_is_told_from_one_that_ends() {
    let bench = Bench::new();
    let mut talk = start(&bench, &[]);
    let id = talk.instance();
    let seen = Terminal::start(watch(&bench, &["--instance", &id]), 24, 80);
    seen.reads(&id);
    talk.kill_loader();
    seen.reads(&format!("{id} is gone: its loader died"));
    seen.reads("waiting for an instance…");
    talk.end(&bench);
}

#[test]
fn live_flows_can_be_filtered_in_dump_too() {
    let bench = Bench::new();
    let _place = Place::open("192.0.2.1:80");
    let mut talk = start(&bench, &[]);
    does(&mut talk, "hold 192.0.2.1 80", "held");
    for (filter, found) in [("dst=192.0.2.0/24 port=80", 1), ("port=81", 0), ("", 1)] {
        let flows = bench.dump(&["--flows", "--filter", filter]);
        assert_eq!(flows.len(), found, "{filter}: {flows:?}");
    }
    let wrong = bench.operate(&["dump", "--flows", "--filter", "prot=81"]);
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        said.contains("there is no field `prot`\n  prot=81\n  ^^^^\nfields: "),
        "{said}"
    );
    let alone = bench.operate(&["dump", "--filter", "port=81"]);
    assert_eq!(
        alone.status.code(),
        Some(2),
        "there is nothing to filter without --flows"
    );
    talk.end(&bench);
}
