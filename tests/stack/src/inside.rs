//! An agent under `run` whose connected sockets the test speaks over: what leaves by them is the agent's.

use kernel_tests::{
    PATIENCE,
    run::{Bench, Outcome, PolicyText},
    talk::Talk,
};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use std::{
    io::IoSliceMut,
    net::TcpStream,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
};

/// Evaluates what it is told, line by line.
const PROGRAM: &str = "
def give(ip, port):
    s = socket.socket(family(ip))
    e = s.connect_ex((ip, port))
    if not e: socket.send_fds(box, [b'x'], [s.fileno()])
    s.close()
    return errno.errorcode[e] if e else 'given'
def look(n):
    got = udp(query(n))
    return socket.inet_ntoa(got[-4:]) if isinstance(got, bytes) else got
while line := hear(): say(eval(line))
";

/// An agent that runs.
pub struct Inside {
    talk: Talk,
    sockets: UnixStream,
}

impl Inside {
    /// Starts it, with arguments for `run`.
    #[track_caller]
    pub fn start(bench: &Bench, policy: impl PolicyText, args: &[&str]) -> Self {
        let path = bench.path("inside.sock");
        let listener = UnixListener::bind(&path).expect("a place for a socket");
        let start = format!(
            "box = socket.socket(socket.AF_UNIX); box.connect('{}'); say('up')\n{PROGRAM}",
            path.display()
        );
        let mut talk = bench.talk(policy, args, &start);
        assert_eq!(talk.hear(), "up");
        let (sockets, _) = listener.accept().expect("it has connected");
        Self { talk, sockets }
    }

    /// The value of an expression of Python, which may use the prelude of the agents.
    pub fn value(&mut self, expression: &str) -> String {
        self.talk.say(expression);
        self.talk.hear()
    }

    /// Asks for an address of a name; else what went wrong.
    pub fn look(&mut self, name: &str) -> String {
        self.value(&format!("look('{name}')"))
    }

    /// A socket of the agent's that is connected to an address; else what went wrong.
    pub fn connect(&mut self, ip: &str, port: u16) -> Result<TcpStream, String> {
        let word = self.value(&format!("give('{ip}', {port})"));
        if word != "given" {
            return Err(word);
        }
        let stream = TcpStream::from(self.taken());
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Ok(stream)
    }

    /// Looks a name up and connects to what it got, as any program does.
    #[track_caller]
    pub fn dial(&mut self, name: &str, port: u16) -> TcpStream {
        let ip = self.look(name);
        self.connect(&ip, port).expect("it may connect")
    }

    fn taken(&self) -> OwnedFd {
        let mut byte = [0];
        let mut iov = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!(i32);
        let from = self.sockets.as_raw_fd();
        // Programs that the test starts later must not hold it open.
        let message = recvmsg::<SockaddrStorage>(
            from,
            &mut iov,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .expect("a message");
        let mut fds = message.cmsgs().expect("room enough").flat_map(|c| match c {
            ControlMessageOwned::ScmRights(fds) => fds,
            _ => Vec::new(),
        });
        let fd = fds.next().expect("a descriptor");
        // SAFETY: the kernel made this descriptor for us.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    /// Ends it.
    pub fn end(self, bench: &Bench) -> Outcome {
        let out = self.talk.end(bench);
        assert_eq!(out.code, 0, "{}", out.stderr);
        out
    }
}
