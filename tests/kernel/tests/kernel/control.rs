//! The control socket: who may open it, that the command may not, and what hostile clients can do to the
//! run: nothing.

use kernel_tests::{
    check::flows,
    control::Client,
    eventually,
    run::{Bench, binary},
    talk::Talk,
};
use std::{
    fs::{self, Permissions},
    io::{BufRead as _, BufReader},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    os::unix::net::UnixListener,
    process::{Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::Instant,
};

const POLICY: &str = "version: 1\n";

/// Waits for a line, connects to as many denied ports as it says, until there is none.
const AGENT: &str = "\
said = 'ready'
while True:
  word = step(said)
  if not word: break
  for i in range(int(word)): tcp('203.0.113.9', 1 + i)
  said = 'done'
";

/// Asks who it is, as another user, with these groups; says what comes back or what went wrong.
const ASK: &str = "\
import os, socket, sys
path, uid, gid, groups = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
os.setgroups([int(g) for g in groups]); os.setgid(gid); os.setuid(uid)
s = socket.socket(socket.AF_UNIX)
try:
  s.connect(path)
  try: s.sendall(b'{\"v\":1,\"status\":{}}\\n')
  except BrokenPipeError: pass
  print(s.recv(4096).decode())
except OSError as e: print(type(e).__name__)
";

/// Starts [`AGENT`] and waits until it listens.
fn start(bench: &Bench, args: &[&str]) -> Talk {
    let mut talk = bench.talk(POLICY, &[&["--quiet"], args].concat(), AGENT);
    assert_eq!(talk.hear(), "ready");
    talk
}

fn ask_as(bench: &Bench, loader: u32, uid: u32, gid: u32, groups: &[u32]) -> String {
    let mut c = Command::new("python3");
    c.args(["-c", ASK]).arg(bench.socket(loader));
    c.args([uid, gid].iter().chain(groups).map(ToString::to_string));
    String::from_utf8(c.output().unwrap().stdout).unwrap()
}

#[test]
fn only_root_and_the_group_may_ask() {
    let bench = Bench::new();
    // The bench itself is root's alone, which is not what is tested.
    fs::set_permissions(bench.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let talk = start(&bench, &["--control-group", "4711"]);
    let socket = bench.socket(talk.pid());
    let dir = fs::metadata(bench.control()).unwrap();
    assert_eq!((dir.uid(), dir.mode() & 0o7777), (0, 0o755));
    let file = fs::metadata(&socket).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(
        (file.uid(), file.gid(), file.mode() & 0o7777),
        (0, 4711, 0o660)
    );

    let ask = |uid, gid, groups: &[u32]| ask_as(&bench, talk.pid(), uid, gid, groups);
    let welcome = "\"status\":{";
    assert!(ask(0, 0, &[]).contains(welcome));
    assert!(ask(65534, 4711, &[]).contains(welcome), "his main group");
    assert!(
        ask(65534, 65534, &[1, 4711, 9]).contains(welcome),
        "one of his groups"
    );
    assert_eq!(ask(65534, 65534, &[1, 9]), "PermissionError\n");
    // Should the file's mode ever be wrong, the server asks the kernel all the same.
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let refused = ask(65534, 65534, &[1, 9]);
    assert!(
        refused.contains("only root and members of the control group may ask"),
        "{refused}"
    );
    assert!(ask(65534, 4711, &[]).contains(welcome));
    talk.end(&bench);
}

#[test]
fn watch_tells_who_may() {
    let bench = Bench::new();
    fs::set_permissions(bench.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = bench.path("ebpf-manager");
    fs::copy(binary(), &copy).unwrap();
    let mut talk = start(&bench, &["--control-group", "4711"]);
    let _ = bench.socket(talk.pid());
    let watch = |groups: &str| {
        let mut c = Command::new("setpriv");
        c.args(["--reuid=65534", "--regid=65534", groups])
            .arg(&copy);
        c.arg("--control-dir").arg(bench.control());
        c.args(["watch", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        c
    };
    let refused = |wanted: &str| {
        let out = watch("--clear-groups").output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains(wanted) && said.lines().count() == 1, "{said}");
        assert!(
            said.contains("run this as root (sudo), or as a member"),
            "{said}"
        );
    };
    refused(&format!(
        "cannot open the control socket of {}",
        talk.instance()
    ));

    let mut member = watch("--groups=4711").spawn().unwrap();
    let heard = BufReader::new(member.stdout.take().unwrap());
    let (say, flow) = channel();
    thread::spawn(move || say.send(heard.lines().next().unwrap().unwrap()));
    let first = eventually("a flow that a member sees", || {
        talk.say("1");
        assert_eq!(talk.hear(), "done");
        flow.try_recv().ok()
    });
    member.kill().unwrap();
    member.wait().unwrap();
    assert!(first.contains("\"verdict\":\"DENIED\""), "{first}");

    fs::set_permissions(bench.control(), Permissions::from_mode(0o700)).unwrap();
    refused("cannot read");
    talk.end(&bench);
}

#[test]
fn without_a_group_it_is_roots_alone() {
    let bench = Bench::new();
    let talk = start(&bench, &[]);
    let file = fs::metadata(bench.socket(talk.pid())).unwrap();
    let clawker = nix::unistd::Group::from_name("clawker")
        .unwrap()
        .map(|g| g.gid.as_raw());
    let wanted = clawker.map_or((0, 0o600), |gid| (gid, 0o660));
    assert_eq!((file.gid(), file.mode() & 0o7777), wanted);
    talk.end(&bench);
    let out = bench.run(POLICY, &["--control-group", "no-such-group"], &["true"]);
    assert_eq!(out.code, 2);
    assert!(
        out.stderr.contains("there is no group no-such-group"),
        "{}",
        out.stderr
    );
    bench.nothing_left(&[]);
}

#[test]
fn a_directory_that_others_may_write_to_is_not_used() {
    let bench = Bench::new();
    fs::create_dir(bench.control()).unwrap();
    fs::set_permissions(bench.control(), Permissions::from_mode(0o777)).unwrap();
    let out = bench.run(POLICY, &["--quiet"], &["sh", "-c", "echo ran"]);
    assert_eq!((out.code, out.stdout.as_str()), (0, "ran\n"));
    assert!(out.stderr.contains("is not root's alone"), "{}", out.stderr);
    assert!(
        out.stderr.contains("this run cannot be watched"),
        "{}",
        out.stderr
    );
}

#[test]
fn the_command_does_not_see_it_even_as_root() {
    let bench = Bench::new();
    let dir = bench.control();
    let dir = dir.to_str().unwrap();
    let look = format!(
        "import os, socket, sys\n\
         d = {dir:?}\n\
         print(os.listdir(d))\n\
         for how in ('umount {dir}', 'umount -l {dir}', 'unshare -Urm umount {dir}', 'rm -r {dir}', 'touch {dir}/x'):\n\
         \x20 print(os.system(how + ' 2>/dev/null') != 0)\n\
         s = socket.socket(socket.AF_UNIX)\n\
         try: s.connect(f'{{d}}/run-{{os.getppid()}}.sock'); print('in')\n\
         except FileNotFoundError: print('nothing there')\n"
    );
    // Another instance, which was there before it, is hidden too.
    let talk = start(&bench, &[]);
    let _ = bench.socket(talk.pid());
    let out = bench.run(POLICY, &["--quiet"], &["python3", "-c", &look]);
    let wanted = format!("[]\n{}nothing there\n", "True\n".repeat(5));
    assert_eq!((out.code, out.stdout), (0, wanted), "{}", out.stderr);
    talk.end(&bench);
}

#[test]
fn a_way_around_the_hiding_leads_to_a_closed_door() {
    let bench = Bench::new();
    fs::set_permissions(bench.dir.path(), Permissions::from_mode(0o755)).unwrap();
    // The same user outside, through whose view of the file system the command may look.
    let mut outside = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "sleep",
            "1000",
        ])
        .spawn()
        .unwrap();
    let view = format!("/proc/{}/root", outside.id());
    let program = format!(
        "import os, socket\n\
         d = '{view}{}'\n\
         names = os.listdir(d)\n\
         s = socket.socket(socket.AF_UNIX)\n\
         s.connect(d + '/' + names[0])\n\
         print(s.recv(4096).decode())\n",
        bench.control().display()
    );
    let args = ["--quiet", "--user", "nobody", "--control-group", "65534"];
    let mut c = bench.command(POLICY, &args, &["python3", "-c", &wait_for_it(&program)]);
    let out = c.output().unwrap();
    outside.kill().unwrap();
    outside.wait().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        said.contains("processes under the firewall may not ask"),
        "{out:?}"
    );
}

/// The socket shows up a moment after the command has started.
fn wait_for_it(program: &str) -> String {
    program.replacen(
        "names = os.listdir(d)\n",
        "import time\nnames = []\nend = time.monotonic() + 20\n\
         while not names and time.monotonic() < end: names = [n for n in os.listdir(d) if n.endswith('.sock')]\n",
        1,
    )
}

#[test]
fn hostile_clients_change_nothing() {
    let bench = Bench::new();
    let mut talk = start(&bench, &[]);
    let loader = talk.pid();
    let mut watcher = bench.watcher(loader);
    let huge = vec![b'{'; 1 << 20];
    let deep = format!(
        "{{\"v\":1,\"watch\":{}1{}}}\n",
        "[".repeat(2000),
        "]".repeat(2000)
    );
    for said in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\0\xff\xfe\n",
        b"{\"v\":7,\"watch\":{}}\n",
        b"{\"v\":1,\"watch\":{},\"status\":{}}\n",
        deep.as_bytes(),
        &huge,
    ] {
        let mut client = bench.client(loader);
        client.say(said);
        let heard: Vec<_> = std::iter::from_fn(|| client.hear()).collect();
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(heard[0]["error"].is_string(), "{heard:?}");
    }
    // Half a line and silence, nothing at all, a watcher that never reads: all of them stay.
    let mut crowd: Vec<Client> = (0..100).map(|_| bench.client(loader)).collect();
    for (i, client) in crowd.iter_mut().enumerate() {
        match i % 3 {
            0 => client.say(b"{\"v\":1,\"wat"),
            1 => client.say(b"{\"v\":1,\"watch\":{}}\n"),
            _ => {}
        }
    }
    let late = bench.operate(&["watch", "--json", "--instance", &talk.instance()]);
    let said = String::from_utf8_lossy(&late.stderr);
    assert!(said.contains("too many are connected already"), "{said}");
    talk.say("3000");
    assert_eq!(talk.hear(), "done");
    let mut told = 0;
    while told < 3000 {
        let said = watcher.hear().expect("it goes on");
        told += said["lost"].as_u64().unwrap_or(0);
        told += said
            .get("ended")
            .map_or(0, |r| r["count"].as_u64().unwrap_or(1));
    }
    assert_eq!(told, 3000);
    let began = Instant::now();
    let out = talk.end(&bench);
    assert_eq!((out.code, flows(&out.records)), (0, 3000), "{}", out.stderr);
    assert!(!out.stderr.contains("in no record"), "{}", out.stderr);
    // They are not waited for: the rest is what any end takes.
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    while watcher.hear().is_some() {}
    assert_eq!(fs::read_dir(bench.control()).unwrap().count(), 0);
    bench.nothing_left(&[loader]);
}

#[test]
fn sockets_of_the_dead_are_removed_by_whoever_comes_next() {
    let bench = Bench::new();
    for by_detach in [false, true] {
        let mut talk = start(&bench, &[]);
        let socket = bench.socket(talk.pid());
        talk.kill_loader();
        talk.end(&bench);
        assert!(socket.exists(), "nobody was left to remove it");
        // One that belongs to nothing at all.
        drop(UnixListener::bind(bench.control().join("run-x.sock")).unwrap());
        if by_detach {
            let out = bench.operate(&["detach", "--all", "--force"]);
            assert!(out.status.success(), "{out:?}");
        } else {
            assert_eq!(bench.run(POLICY, &["--quiet"], &["true"]).code, 0);
        }
        assert_eq!(fs::read_dir(bench.control()).unwrap().count(), 0);
    }
}
