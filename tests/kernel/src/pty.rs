//! A real terminal with nobody before it: what a program shows on it, and keys for it.

use crate::eventually;
use nix::{
    libc,
    pty::{OpenptyResult, Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{Termios, tcgetattr},
    },
    unistd::{Pid, setsid},
};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    num::NonZeroU16,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Child, Command},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};
use vt100::Parser;

/// A program on a terminal of its own. Killed when dropped.
pub struct Terminal {
    child: Child,
    keyboard: File,
    far_end: OwnedFd,
    before: Termios,
    screen: Arc<Mutex<Parser>>,
}

fn winsize(rows: u16, cols: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn some(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).expect("a terminal has rows and columns")
}

impl Terminal {
    /// Starts a program on a terminal of this size, as the leader of a session.
    #[must_use]
    pub fn start(mut command: Command, rows: u16, cols: u16) -> Self {
        let OpenptyResult { master, slave } =
            openpty(&winsize(rows, cols), None).expect("a pseudo-terminal");
        let before = tcgetattr(&slave).expect("it is a terminal");
        let end = || slave.try_clone().expect("a descriptor");
        command
            .env("TERM", "xterm-256color")
            .stdin(end())
            .stdout(end())
            .stderr(end());
        // SAFETY: both calls are async-signal-safe and touch nothing of the parent.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let child = command.spawn().expect("the program starts");
        let keyboard = File::from(master);
        let mut shown = keyboard.try_clone().expect("a descriptor");
        let screen = Arc::new(Mutex::new(Parser::new(some(rows), some(cols), 0)));
        let drawn = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buf = [0; 65536];
            while let Ok(n @ 1..) = shown.read(&mut buf) {
                drawn.lock().expect("no panic").process(&buf[..n]);
            }
        });
        Self {
            child,
            keyboard,
            far_end: slave,
            before,
            screen,
        }
    }

    fn parser(&self) -> MutexGuard<'_, Parser> {
        self.screen.lock().expect("no panic")
    }

    /// What is on the screen.
    #[must_use]
    pub fn text(&self) -> String {
        self.parser().screen().contents()
    }

    /// Waits until the screen is as wanted; returns it.
    #[track_caller]
    pub fn shows(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, || {
                last = self.text();
                wanted(&last).then(|| last.clone())
            })
        }));
        found.unwrap_or_else(|_| panic!("{what} is not on the screen:\n{last}"))
    }

    /// Waits until a text is on the screen.
    #[track_caller]
    pub fn reads(&self, text: &str) -> String {
        self.shows(&format!("{text:?}"), |screen| screen.contains(text))
    }

    /// Whether a text on the screen has a colour of its own.
    #[must_use]
    pub fn is_colored(&self, text: &str) -> bool {
        let parser = self.parser();
        let screen = parser.screen();
        let (rows, cols) = screen.size();
        let (rows, cols) = (rows.get(), cols.get());
        (0..rows).any(|row| {
            let line = screen.contents_between(row, 0, row, cols);
            // One column a character: nothing wide stands before it.
            let at = line.find(text).map(|i| line[..i].chars().count() as u16);
            let cell = at.and_then(|col| screen.cell(row, col));
            cell.is_some_and(|c| c.fgcolor() != vt100::Color::Default)
        })
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keyboard
            .write_all(keys.as_bytes())
            .expect("somebody reads");
    }

    /// Makes the window bigger or smaller.
    pub fn resize(&self, rows: u16, cols: u16) {
        self.parser().screen_mut().set_size(some(rows), some(cols));
        let size = winsize(rows, cols);
        // SAFETY: the size lives as long as the call; the kernel tells the program by a signal.
        let r =
            unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(r, 0);
    }

    /// Process id of the program.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the process is ours");
    }

    /// Waits for the program's end: its exit code, or the signal that killed it as shells tell it. The
    /// terminal must be as it was.
    #[track_caller]
    pub fn ended(&mut self) -> i32 {
        let child = &mut self.child;
        let status = eventually("the program to end", || {
            child.try_wait().expect("it is our child")
        });
        let now = tcgetattr(&self.far_end).expect("a terminal");
        assert_eq!(
            now, self.before,
            "the terminal's settings are not as they were"
        );
        self.shows_the_shell();
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    fn shows_the_shell(&self) {
        eventually("the ordinary screen with a cursor", || {
            let parser = self.parser();
            let screen = parser.screen();
            (!screen.alternate_screen() && !screen.hide_cursor()).then_some(())
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
