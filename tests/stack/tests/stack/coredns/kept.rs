//! packaging/coredns.sh, which runs CoreDNS in its container: what is answered has a line, and a new file holds at once.

use super::policy;
use ebpf_manager::proxy_files::{announce, put};
use kernel_tests::{cached, eventually, eventually_within, net, own_mounts, temporary};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proxy::{Agent, Fleet, Settings, coredns};
use stack_tests::{
    dns::{A, NXDOMAIN, Query, REFUSED},
    images::repository,
    program,
};
use std::{
    env,
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const HERE: &str = "127.0.0.1";
const ANN: &str = "127.0.0.9";
const BOB: &str = "127.0.0.10";
/// CoreDNS by itself looks at its file after two.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The script as it runs in the image, with its files in a directory.
struct Kept {
    dir: TempDir,
    script: Child,
}

impl Kept {
    /// Starts it by a file in which these are agents, and waits until it answers.
    fn start(agents: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        net::isolate();
        let dir = prepared();
        prepare(dir.path());
        let mut kept = Self::spawn(dir, &cached("bin", "coredns.sh").join("coredns"));
        // It waits for its file.
        kept.put(agents);
        eventually("CoreDNS to answer", || {
            assert_eq!(kept.script.try_wait().unwrap(), None);
            kept.rcode("ready.example", ANN).filter(|r| *r == NXDOMAIN)
        });
        kept
    }

    /// Starts it with this program, and does not wait.
    fn spawn(dir: TempDir, coredns: &Path) -> Self {
        let mut script = program::command(repository().join("packaging/coredns.sh"));
        let tools = cached("bin", "coredns.sh");
        let path = env::var("PATH").unwrap();
        script.env_clear();
        script.env("PATH", format!("{}:{path}", tools.display()));
        for (variable, name) in [
            ("CLAWKER_COREFILE", "Corefile"),
            ("CLAWKER_COREDNS_LOG", "logs"),
            ("CLAWKER_COREDNS_DIR", "own"),
        ] {
            script.env(variable, dir.path().join(name));
        }
        script.env("CLAWKER_COREDNS", coredns);
        let script = script.spawn().unwrap();
        Self { dir, script }
    }

    /// Has another file where it looks for one, as the loader does it.
    fn put(&self, agents: &[&str]) {
        let agents = agents
            .iter()
            .map(|a| Agent::parse(&format!("{a}@{a}")).unwrap());
        let fleet = Fleet::new(agents.collect()).unwrap();
        let settings = Settings {
            listen: vec![HERE.parse().unwrap()],
            ..Settings::default()
        };
        let text = coredns::render(&policy("domains: [open.example]"), &fleet, &settings);
        let file = self.dir.path().join("Corefile");
        put(&file, 0o644, text.as_bytes()).unwrap();
        announce(&file).unwrap();
    }

    /// The answer to a name that no policy allows; nothing if there is none.
    fn rcode(&self, name: &str, from: &str) -> Option<u8> {
        let query = Query::of(name, A);
        let answer = query.try_udp(from, HERE, Duration::from_millis(500));
        answer.ok().map(|answer| answer.rcode)
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.script.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Every line that is kept, in the order of its files.
    fn lines(&self) -> Vec<String> {
        let logs = self.dir.path().join("logs");
        let mut files: Vec<PathBuf> = fs::read_dir(logs)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        // `@…` before `current`.
        files.retain(|f| matches!(f.file_name().unwrap().as_encoded_bytes()[0], b'@' | b'c'));
        files.retain(|f| !f.ends_with("config"));
        files.sort();
        let texts = files.iter().map(|f| fs::read_to_string(f).unwrap());
        texts
            .flat_map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// How many lines are about names that begin so.
    fn about(&self, what: &str) -> usize {
        let what = format!("s {what}");
        self.lines()
            .iter()
            .filter(|line| line.contains(&what))
            .count()
    }

    /// What the script has started.
    fn children(&self) -> Vec<Pid> {
        let pid = self.script.id();
        let all = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let all = all.unwrap_or_default();
        let all = all.split_whitespace().map(|pid| pid.parse().unwrap());
        all.map(Pid::from_raw).collect()
    }

    /// The one with this name.
    fn child(&self, name: &str) -> Pid {
        let named = |pid: &Pid| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
            comm.is_ok_and(|comm| comm.trim() == name)
        };
        self.children().into_iter().find(named).expect(name)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // It may have ended. As in a container: all end with the first of them.
        for pid in self.children() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// A directory with what the image has in its own.
fn prepared() -> TempDir {
    let dir = temporary();
    for name in ["logs", "own"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    dir
}

#[test]
fn whatever_is_answered_has_a_line_to_the_very_end() {
    let mut kept = Kept::start(&[ANN], |_| {});
    let mut answered = 0;
    for n in 0..2000 {
        answered += usize::from(kept.rcode(&format!("n{n}.closed.example"), ANN) == Some(NXDOMAIN));
    }
    // As long as a name can be, and four times as long when it is written.
    let longest = Query {
        labels: [63, 63, 63, 61].map(|n| vec![0xff; n]).to_vec(),
        kind: A,
    };
    assert_eq!(longest.udp(ANN, HERE).rcode, NXDOMAIN);
    kept.signal(Signal::SIGTERM);
    let status = kept.script.wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!((answered, kept.about("n")), (2000, 2000));
    let lines = kept.lines();
    let line = lines
        .iter()
        .find(|line| line.contains("n7.closed.example"))
        .unwrap();
    let whole = format!("s {}", longest.written());
    assert!(lines.iter().any(|line| line.ends_with(&whole)), "{whole}");
    let (time, rest) = line.split_once(' ').unwrap();
    let time: jiff::Timestamp = format!("{time}Z").parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(time);
    assert!(age.as_secs() < 60 && !age.is_negative(), "{line}");
    assert!(
        rest.starts_with(&format!("[INFO] clawker DENIED {ANN} ")),
        "{line}"
    );
}

/// In the place of CoreDNS: one that ends as soon as it is told to, as CoreDNS seems to do to a shell that has to wait for
/// the processor.
const ENDS_AT_ONCE: &str = "#!/bin/sh
trap 'kill -KILL $!; exit 7' TERM
sleep 60 &
echo up
wait
";

#[test]
fn it_says_how_coredns_has_ended_however_soon_that_is() {
    for round in 0..100 {
        let dir = prepared();
        let stand_in = dir.path().join("ends-at-once");
        fs::write(&stand_in, ENDS_AT_ONCE).unwrap();
        fs::set_permissions(&stand_in, Permissions::from_mode(0o755)).unwrap();
        put(&dir.path().join("Corefile"), 0o644, b"").unwrap();
        announce(&dir.path().join("Corefile")).unwrap();
        let mut kept = Kept::spawn(dir, &stand_in);
        eventually("its first line", || {
            (!kept.lines().is_empty()).then_some(())
        });
        kept.signal(Signal::SIGTERM);
        let status = kept.script.wait().unwrap();
        assert_eq!(status.code(), Some(7), "round {round}");
    }
}

#[test]
fn another_file_holds_at_once_and_nothing_answers_by_the_one_before() {
    let kept = Kept::start(&[ANN], |_| {});
    let mut both = false;
    for turn in 0..25 {
        both = !both;
        let agents: &[&str] = if both { &[ANN, BOB] } else { &[ANN] };
        let is = Some(if both { NXDOMAIN } else { REFUSED });
        let began = Instant::now();
        kept.put(agents);
        // For a moment both answer, each some of those who ask.
        eventually_within(AT_ONCE, "the new file", || {
            let mut answers = (0..20).map(|_| kept.rcode("x.example", BOB));
            answers.all(|rcode| rcode == is).then_some(())
        });
        // Whatever the moment: each turn at another one.
        let until = began + Duration::from_millis(97 * (turn % 7));
        while Instant::now() < until {
            assert_eq!(kept.rcode("x.example", BOB), is, "turn {turn}");
            assert_eq!(kept.rcode("x.example", ANN), Some(NXDOMAIN));
        }
    }
}

#[test]
fn without_who_keeps_the_log_nothing_is_answered() {
    let mut kept = Kept::start(&[ANN], |_| {});
    kill(kept.child("svlogd"), Signal::SIGKILL).unwrap();
    // What it says next nobody hears, and it ends with that.
    let status = eventually("the end", || {
        let _ = kept.rcode("x.example", ANN);
        kept.script.try_wait().unwrap()
    });
    assert!(!status.success() && status.signal().is_none(), "{status}");
    assert_eq!(kept.rcode("x.example", ANN), None);
}

#[test]
fn on_a_full_disk_lines_wait_and_are_there_when_there_is_room() {
    let sized = |logs: &Path, flags: MsFlags, size: &str| {
        let options = format!("size={size}");
        mount(
            Some("logs"),
            logs,
            Some("tmpfs"),
            flags,
            Some(options.as_str()),
        )
        .unwrap();
    };
    let kept = Kept::start(&[ANN], |dir| {
        own_mounts();
        sized(&dir.join("logs"), MsFlags::empty(), "64k");
    });
    // More than there is room for, and more than the pipe holds: the rest is CoreDNS's to hold.
    const QUERIES: usize = 5000;
    for n in 0..QUERIES {
        assert_eq!(
            kept.rcode(&format!("n{n}.closed.example"), ANN),
            Some(NXDOMAIN)
        );
    }
    let logs = kept.dir.path().join("logs");
    assert!(kept.about("n") < QUERIES, "the disk is full");
    sized(&logs, MsFlags::MS_REMOUNT, "16m");
    eventually("all lines", || (kept.about("n") == QUERIES).then_some(()));
}
