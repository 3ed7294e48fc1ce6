//! Connections to the control sockets of running instances: found, opened, read and lost.

use crate::{
    bypass::Lifted,
    control::{self, ControlError, Live, Message, Request, Status, Watch},
};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, send},
};
use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, BufReader, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    time::{Duration, Instant},
};

/// How often to look for new instances.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest line that an instance may say.
const MAX_LINE: u64 = 4 << 20;
/// Most instances at a time.
const MAX_LINKS: usize = 256;

/// What an instance has to say.
#[derive(Debug)]
pub enum News<'a> {
    /// It is there.
    Joined(Status),
    /// A flow ended; its record as JSON.
    Ended(&'a str),
    /// What lives.
    Live(Live),
    /// The bypasses that run now.
    Bypasses(Vec<Lifted>),
    /// So many records did not come through, because we were too slow.
    Lost(u64),
    /// It is gone.
    Left(Left),
}

/// How an instance went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is over.
    Over,
    /// Its loader died, or let go of us.
    Died,
    /// It speaks another language, or will not speak to us.
    Refused(String),
}

/// The connections.
#[derive(Debug)]
pub struct Links {
    dir: PathBuf,
    only: Option<String>,
    watch: Watch,
    links: Vec<Link>,
    /// Instances that refused us, or that we cannot open: not tried again.
    given_up: BTreeSet<String>,
    look_at: Instant,
}

#[derive(Debug)]
struct Link {
    id: String,
    from: BufReader<UnixStream>,
    line: Vec<u8>,
    /// Whether it has said anything.
    greeted: bool,
    left: Option<Left>,
}

/// What came of opening a socket.
enum Attempt {
    Open(Link),
    Later,
    Denied,
    Refused(&'static str),
}

impl Links {
    /// To one instance, or to every one in a directory of sockets.
    #[must_use]
    pub fn new(dir: PathBuf, only: Option<String>, watch: Watch) -> Self {
        Self {
            dir,
            only,
            watch,
            links: Vec::new(),
            given_up: BTreeSet::new(),
            look_at: Instant::now(),
        }
    }

    /// Whether there is no instance.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Sockets to wait for.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.links.iter().map(|l| l.from.get_ref().as_fd())
    }

    /// When it is time to look for new instances again.
    #[must_use]
    pub fn look_at(&self) -> Instant {
        self.look_at
    }

    /// Connects to instances that are new. Returns those whose sockets may not be opened by us.
    pub fn look(
        &mut self,
        tell: &mut impl FnMut(&str, News<'_>),
    ) -> Result<Vec<String>, ControlError> {
        self.look_at = Instant::now() + LOOK_EVERY;
        let ids = control::sockets(&self.dir)?;
        self.given_up.retain(|id| ids.contains(id));
        let mut denied = Vec::new();
        for id in ids {
            let wanted = self.only.as_ref().is_none_or(|only| *only == id);
            let known = self.given_up.contains(&id) || self.links.iter().any(|l| l.id == id);
            if !wanted || known || self.links.len() >= MAX_LINKS {
                continue;
            }
            match self.open(&id) {
                Attempt::Open(link) => self.links.push(link),
                // Dead and not yet swept away, or not ready: the next look tells.
                Attempt::Later => {}
                Attempt::Denied => {
                    self.given_up.insert(id.clone());
                    denied.push(id);
                }
                Attempt::Refused(why) => {
                    tell(&id, News::Left(Left::Refused(why.to_owned())));
                    self.given_up.insert(id);
                }
            }
        }
        Ok(denied)
    }

    /// Opens a socket and asks for flows.
    fn open(&self, id: &str) -> Attempt {
        let stream = match control::connect_to(&control::socket_path(&self.dir, id)) {
            Ok(stream) => stream,
            Err(Errno::EACCES | Errno::EPERM) => return Attempt::Denied,
            Err(_) => return Attempt::Later,
        };
        if !control::is_connected_to_root(&stream) {
            return Attempt::Refused("it is not served by root");
        }
        let ask = Request::Watch(self.watch).line();
        // A few bytes go into an empty buffer whole. Who is refused cannot send, but can read why.
        match send(stream.as_raw_fd(), ask.as_bytes(), MsgFlags::MSG_NOSIGNAL) {
            Ok(_) | Err(Errno::EPIPE) => Attempt::Open(Link {
                id: id.to_owned(),
                from: BufReader::with_capacity(64 << 10, stream),
                line: Vec::new(),
                greeted: false,
                left: None,
            }),
            Err(_) => Attempt::Later,
        }
    }

    /// Hands on what has come, about `most` lines at most. Returns how many there were.
    pub fn read(&mut self, most: usize, tell: &mut impl FnMut(&str, News<'_>)) -> usize {
        let share = most.div_ceil(self.links.len().max(1));
        let mut taken = 0;
        for link in &mut self.links {
            taken += (0..share).take_while(|_| link.next(tell)).count();
        }
        let mut gone = self.links.extract_if(.., |l| l.left.is_some());
        for link in &mut gone {
            let left = link.left.unwrap_or(Left::Died);
            let refused = matches!(left, Left::Refused(_));
            if refused {
                self.given_up.insert(link.id.clone());
            }
            // One that ended while we came is no news.
            if link.greeted || refused {
                tell(&link.id, News::Left(left));
            }
        }
        taken
    }
}

impl Link {
    /// Takes one line. Returns whether there was one.
    fn next(&mut self, tell: &mut impl FnMut(&str, News<'_>)) -> bool {
        if self.left.is_some() {
            return false;
        }
        let room = MAX_LINE.saturating_sub(self.line.len() as u64);
        match (&mut self.from)
            .take(room)
            .read_until(b'\n', &mut self.line)
        {
            Ok(_) => {}
            // What came of the line so far is kept.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return true,
            Err(_) => {
                self.left = Some(Left::Died);
                return false;
            }
        }
        if self.line.pop_if(|b| *b == b'\n').is_none() {
            self.left = Some(match self.line.len() as u64 {
                MAX_LINE.. => Left::Refused("it says a line without an end".to_owned()),
                _ => Left::Died,
            });
            return false;
        }
        self.greeted = true;
        let text = str::from_utf8(&self.line).map_err(|e| e.to_string());
        match text.and_then(|t| Message::parse(t).map_err(|e| e.to_string())) {
            Ok(Message::Status(status)) => tell(&self.id, News::Joined(status)),
            Ok(Message::Ended(json)) => tell(&self.id, News::Ended(json)),
            Ok(Message::Live(live)) => tell(&self.id, News::Live(live)),
            Ok(Message::Lost(n)) => tell(&self.id, News::Lost(n)),
            Ok(Message::End) => self.left = Some(Left::Over),
            Ok(Message::Error(why)) => self.left = Some(Left::Refused(why)),
            Ok(Message::Bypasses(all)) => tell(&self.id, News::Bypasses(all)),
            Ok(Message::Unknown | Message::Done(_)) => {}
            Err(e) => self.left = Some(Left::Refused(e)),
        }
        self.line.clear();
        // A snapshot of live flows makes it big.
        self.line.shrink_to(64 << 10);
        true
    }
}
