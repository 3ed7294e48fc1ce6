//! The table on a terminal: what comes in goes to the model, and the model to the screen, at most ten
//! times a second. The terminal is given back as it was, however it ends.

use super::{CommandError, Links, look, not_ours};
use crate::{
    cli::WatchArgs,
    watch::{
        keys::{self, Then},
        model::Model,
        view::{self, Look},
    },
};
use jiff::{Timestamp, tz::TimeZone};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor,
        event::{self, Event},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use std::{
    io::{self, Stdout},
    os::fd::AsFd as _,
    panic,
    time::{Duration, Instant},
};

/// How often the screen is drawn at most, and how long a portion of news has to last.
const FRAME: Duration = Duration::from_millis(100);
/// News taken in a frame; the rest stays where it is, and if it is too much the loader counts it as lost.
const NEWS_A_FRAME: usize = 2000;

/// A terminal in our hands. Dropping it gives it back.
struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    fn open() -> io::Result<Self> {
        // A panic is to be read, and the shell used, afterwards.
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        enable_raw_mode()?;
        let opened = execute!(io::stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        opened.map(Self).inspect_err(|_| give_back())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // If the terminal is gone there is nothing to give back.
    let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}

/// Signals that end the program; from the keyboard they come as keys.
fn ending() -> SigSet {
    [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ]
    .into_iter()
    .collect()
}

/// What woke us.
#[derive(Default)]
struct Woken {
    signal: Option<u8>,
    keys: bool,
    /// The terminal is gone.
    hung_up: bool,
}

pub(super) fn watch(mut links: Links, args: &WatchArgs) -> Result<u8, CommandError> {
    let mut model = Model::new(args.filter.clone(), args.sort).of(args.whom.clone());
    // Before the terminal is ours, so that an error is read where it is expected.
    look_around(&mut links, &mut model)?;
    let mask = ending();
    mask.thread_block().map_err(CommandError::Wait)?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(&mask, flags).map_err(CommandError::Wait)?;
    let look = Look {
        color: std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        zone: TimeZone::system(),
        now: Timestamp::now(),
    };
    let mut screen = Screen::open().map_err(CommandError::Terminal)?;
    let code = live(&mut screen, &mut links, &mut model, &look, &signals);
    drop(screen);
    code
}

/// Looks for instances. Returns whether there is anything new.
fn look_around(links: &mut Links, model: &mut Model) -> Result<bool, CommandError> {
    let mut heard = false;
    let denied = look(links, &mut |id, news| {
        heard = true;
        model.hear(id, news);
    })?;
    heard |= !denied.is_empty();
    for id in denied {
        model.notice(not_ours(&id));
    }
    Ok(heard)
}

fn live(
    screen: &mut Screen,
    links: &mut Links,
    model: &mut Model,
    look: &Look,
    signals: &SignalFd,
) -> Result<u8, CommandError> {
    let (mut drawn, mut room, mut stale) = (Instant::now(), NEWS_A_FRAME, false);
    screen.draw(model, look)?;
    loop {
        let now = Instant::now();
        if now >= drawn + FRAME {
            if stale {
                screen.draw(model, look)?;
                stale = false;
            }
            (drawn, room) = (now, NEWS_A_FRAME);
        }
        if now >= links.look_at() {
            stale |= look_around(links, model)?;
        }
        let taken = links.read(room, &mut |id, news| {
            stale = true;
            model.hear(id, news);
        });
        room = room.saturating_sub(taken);
        let until = if stale || room == 0 {
            drawn + FRAME
        } else {
            links.look_at()
        };
        let woken = wait(until.min(links.look_at()), links, room > 0, signals)?;
        if woken.hung_up {
            return Ok(0);
        }
        if let Some(signal) = woken.signal {
            return Ok(128 + signal);
        }
        if woken.keys {
            if press(model)? == Then::Quit {
                return Ok(0);
            }
            // Whoever types wants to see it at once.
            screen.draw(model, look)?;
            stale = false;
        }
    }
}

impl Screen {
    fn draw(&mut self, model: &mut Model, look: &Look) -> Result<(), CommandError> {
        let look = Look {
            now: Timestamp::now(),
            ..look.clone()
        };
        let drawn = self.0.draw(|frame| view::draw(model, frame, &look));
        drawn.map(drop).map_err(CommandError::Terminal)
    }
}

/// Waits until a moment, or for signals, keys and, if they are `welcome`, news.
fn wait(
    until: Instant,
    links: &Links,
    welcome: bool,
    signals: &SignalFd,
) -> Result<Woken, CommandError> {
    let stdin = io::stdin();
    let watched = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut fds = vec![watched(signals.as_fd()), watched(stdin.as_fd())];
    if welcome {
        fds.extend(links.fds().map(watched));
    }
    let left = until.saturating_duration_since(Instant::now());
    // Rounded up: a rest of less than a millisecond would be waited for in circles.
    let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, left) {
        // A new size of the terminal is told by a signal, and read like a key.
        Err(nix::Error::EINTR) => {
            return Ok(Woken {
                keys: true,
                ..Woken::default()
            });
        }
        Ok(_) => {}
        Err(e) => return Err(CommandError::Wait(e)),
    }
    let ready = |i: usize| {
        fds.get(i)
            .and_then(PollFd::revents)
            .unwrap_or(PollFlags::empty())
    };
    let signal = match signals.read_signal() {
        // Numbers of signals are below 65.
        Ok(Some(info)) => Some(info.ssi_signo as u8),
        _ => None,
    };
    Ok(Woken {
        signal,
        keys: ready(1).contains(PollFlags::POLLIN),
        hung_up: ready(1).intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL),
    })
}

/// Hands on every key that has been pressed.
fn press(model: &mut Model) -> Result<Then, CommandError> {
    while event::poll(Duration::ZERO).map_err(CommandError::Terminal)? {
        if let Event::Key(key) = event::read().map_err(CommandError::Terminal)?
            && keys::key(model, key) == Then::Quit
        {
            return Ok(Then::Quit);
        }
    }
    Ok(Then::GoOn)
}
