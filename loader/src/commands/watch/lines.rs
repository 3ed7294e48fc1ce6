//! One line a flow, for pipes.

use super::{CommandError, Links, look, not_ours};
use crate::{
    bypass::Lifted,
    cli::WatchArgs,
    commands::warn,
    record::Record,
    render::line,
    watch::{
        details,
        links::{Left, News},
    },
    whom,
};
use jiff::{Timestamp, tz::TimeZone};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
    os::fd::AsFd as _,
    time::Instant,
};

/// Lines written between two looks at everything else.
const AT_ONCE: usize = 1000;

/// Writes flows until nobody reads them any more.
struct Lines<'a, W: Write> {
    out: W,
    args: &'a WatchArgs,
    zone: TimeZone,
    failed: Option<io::Error>,
    over: bool,
    /// Bypasses that were told, by instance.
    lifted: BTreeMap<String, Vec<Lifted>>,
}

pub(super) fn watch(mut links: Links, args: &WatchArgs) -> Result<u8, CommandError> {
    let mut lines = Lines {
        out: BufWriter::new(anstream::stdout().lock()),
        args,
        zone: TimeZone::system(),
        failed: None,
        over: false,
        lifted: BTreeMap::new(),
    };
    let mut waiting = false;
    loop {
        if Instant::now() >= links.look_at() {
            for id in look(&mut links, &mut |id, news| lines.hear(id, news))? {
                warn(&not_ours(&id));
            }
        }
        let taken = links.read(AT_ONCE, &mut |id, news| lines.hear(id, news));
        lines.flush()?;
        if lines.over {
            return Ok(0);
        }
        if links.is_empty() != waiting {
            waiting = links.is_empty();
            if waiting {
                anstream::eprintln!(
                    "waiting for {}…",
                    args.instance.as_deref().unwrap_or("an instance")
                );
            }
        }
        if taken < AT_ONCE && !wait(&links)? {
            return Ok(0);
        }
    }
}

/// Waits until something comes or it is time to look around. Returns whether somebody still reads.
fn wait(links: &Links) -> Result<bool, CommandError> {
    let stdout = io::stdout();
    // Nothing is asked for: that the other end is closed is told all the same.
    let mut fds = vec![PollFd::new(stdout.as_fd(), PollFlags::empty())];
    fds.extend(links.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    let left = links.look_at().saturating_duration_since(Instant::now());
    match poll(
        &mut fds,
        PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO),
    ) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(e) => return Err(CommandError::Wait(e)),
    }
    let closed = fds.first().and_then(PollFd::revents);
    Ok(!closed.is_some_and(|r| r.contains(PollFlags::POLLERR)))
}

impl<W: Write> Lines<'_, W> {
    fn hear(&mut self, id: &str, news: News<'_>) {
        match news {
            News::Joined(_) | News::Live(_) => {}
            News::Ended(json) => self.ended(id, json),
            News::Bypasses(all) => self.bypasses(id, all),
            News::Lost(n) if self.args.json => {
                self.write(&serde_json::json!({ "lost": n, "instance": id }).to_string());
            }
            News::Lost(n) => warn(&format!(
                "{id}: {n} flows are not shown, the output was not taken fast enough; `run --out` has every one"
            )),
            News::Left(left) => {
                self.over |= self.args.instance.is_some();
                match left {
                    Left::Over => anstream::eprintln!("{id} is over"),
                    Left::Died => warn(&format!("{id} is gone: its loader died")),
                    Left::Refused(why) => warn(&format!("{id} cannot be watched: {why}")),
                }
            }
        }
    }

    fn ended(&mut self, id: &str, json: &str) {
        let whom = &self.args.whom;
        if self.args.json && self.args.filter.is_empty() && whom.is_everybody() {
            return self.write(json);
        }
        match serde_json::from_str::<Record>(json) {
            Ok(r) if !self.args.filter.matches(&r) || !whom.covers_flow(&r) => {}
            Ok(_) if self.args.json => self.write(json),
            Ok(r) => self.write(&line::line(&r, &self.zone)),
            Err(e) => warn(&format!("{id} told of a flow that cannot be read: {e}")),
        }
    }

    /// Says which bypasses are new.
    fn bypasses(&mut self, id: &str, all: Vec<Lifted>) {
        let known = self.lifted.remove(id).unwrap_or_default();
        for b in all.iter().filter(|b| !known.iter().any(|k| k.is_same(b))) {
            let label = |l: &Option<String>| l.clone().unwrap_or_default();
            let name = whom::name(&label(&b.agent), &label(&b.project));
            warn(&line::printable(&format!(
                "{id}: {name} is bypassed, {}",
                details::bypass(b, Timestamp::now(), &self.zone)
            )));
        }
        self.lifted.insert(id.to_owned(), all);
    }

    fn write(&mut self, line: &str) {
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{line}").err();
        }
    }

    fn flush(&mut self) -> Result<(), CommandError> {
        let flushed = self.failed.take().map_or_else(|| self.out.flush(), Err);
        flushed.map_err(CommandError::Output)
    }
}
