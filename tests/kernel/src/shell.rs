//! A run in the foreground of a terminal, with the part of a shell played by a few lines of Python.

use crate::{
    PATIENCE,
    run::{Bench, PolicyText},
};
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::openpty,
    sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr},
};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, Stdio},
};

/// Starts its arguments as a job in the foreground, says when the job stops, and ends as it ends.
const SHELL: &str = r"
import os, signal, sys
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN); os.tcsetpgrp(0, os.getpgrp()); signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    _, status = os.waitpid(pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status): sys.exit(os.waitstatus_to_exitcode(status))
    print('stopped', pid, flush=True)
";

/// A terminal with a shell that runs one command under the firewall.
pub struct Terminal {
    shell: Child,
    master: File,
    screen: String,
}

impl Bench {
    /// Starts a command quietly in the foreground of a terminal of its own.
    pub fn terminal(&self, policy: impl PolicyText, cmd: &[&str]) -> Terminal {
        let run = self.command(policy, &["--quiet"], cmd);
        let pty = openpty(None, None).expect("a terminal");
        let mut modes = tcgetattr(&pty.slave).expect("a terminal");
        // The screen shows what programs write, and nothing else.
        modes.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &modes).expect("a terminal");
        let end = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        let mut shell = Command::new("python3");
        shell.args(["-c", SHELL]).arg(run.get_program());
        shell.args(run.get_args());
        shell.stdin(end()).stdout(end()).stderr(end());
        let slave = pty.slave.as_raw_fd();
        // SAFETY: two calls that are allowed after fork; the descriptor is open there.
        unsafe {
            shell.pre_exec(move || {
                nix::unistd::setsid()?;
                match libc::ioctl(slave, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let shell = shell.spawn().expect("python3 starts");
        Terminal {
            shell,
            master: File::from(pty.master),
            screen: String::new(),
        }
    }
}

impl Terminal {
    /// The next line on the screen.
    pub fn read(&mut self) -> String {
        loop {
            if let Some((line, rest)) = self.screen.split_once("\r\n") {
                let line = line.to_owned();
                self.screen = rest.to_owned();
                return line;
            }
            let timeout = PollTimeout::try_from(PATIENCE).expect("less than a month");
            let ready = poll(
                &mut [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)],
                timeout,
            );
            assert_eq!(ready, Ok(1), "waited for a line behind {:?}", self.screen);
            let mut buf = [0; 4096];
            let n = self.master.read(&mut buf).expect("a terminal");
            self.screen.push_str(&String::from_utf8_lossy(&buf[..n]));
        }
    }

    /// Types.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Waits for the command's end; the exit code.
    pub fn end(&mut self) -> Option<i32> {
        self.shell.wait().expect("the process is ours").code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Hangs up on the whole session if it is still there.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
