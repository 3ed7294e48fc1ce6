//! Where records go: lines for people on stderr, JSON lines to stderr or a file, OTLP.

use crate::{
    audit::{BypassChange, Event, Outcome, PolicyChange},
    export::Export,
    machine::advice,
    record::Record,
    render::line,
    seen::Seen,
    session::Debt,
};
use jiff::tz::TimeZone;
use policy::Learner;
use serde::Serialize;
use std::{
    fmt::Display,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use wire::{LogRecord, log_layer::SECURITY};

/// How records are written to stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One line a flow for people.
    Table,
    /// One JSON object a line.
    Json,
    /// Not at all.
    Quiet,
}

/// Why a file for records is of no use.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}{}", path.display(), advice(source))]
pub struct SinkError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Whether a record is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is.
    Yes,
    /// It is when the receiver has confirmed it.
    Later,
    /// It is not, which has been said.
    No,
}

/// Writes records and counts what it could not write.
pub struct Sink {
    format: Format,
    zone: TimeZone,
    file: Option<(PathBuf, File)>,
    /// Learns from every record, written or not.
    pub learner: Option<Learner>,
    /// The way to an OTLP receiver.
    pub export: Option<Export>,
    /// Records that could not be written to the file.
    pub unwritten: u64,
    complained: bool,
    /// The last complaint about something else than the file.
    said: String,
}

impl Sink {
    /// Opens the file, if there is one, for appending. Under sudo it belongs to the caller.
    pub fn open(
        format: Format,
        file: Option<&Path>,
        owner: Option<(u32, u32)>,
    ) -> Result<Self, SinkError> {
        let file = file.map(|path| open(path, owner)).transpose()?;
        Ok(Self {
            format,
            zone: TimeZone::system(),
            file,
            learner: None,
            export: None,
            unwritten: 0,
            complained: false,
            said: String::new(),
        })
    }

    /// Whether another record can be taken. Where records are kept by a receiver, those that it has not
    /// confirmed are held here, and there is a limit to that.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.export.as_ref().is_none_or(Export::has_room)
    }

    /// Writes one record; whether it is kept. A file that cannot take it loses it, is complained about
    /// once, and counts; what is shown on stderr is best effort, like every terminal. The file comes last,
    /// so that as little as possible lies between its writing and the note that it is written. Where
    /// records are kept by a receiver, its word counts and not the file's.
    pub fn write(&mut self, r: &Record, debt: Debt) -> Kept {
        if let Some(learner) = &mut self.learner {
            let seen = Seen::from(r);
            // Our own records have no other verdicts than the three.
            if let Ok(outcome) = seen.outcome() {
                seen.observe(outcome, |o| learner.add(o));
            }
        }
        if let Some(export) = &mut self.export {
            export.offer(r, debt);
        }
        let mut err = anstream::stderr().lock();
        let _ = match self.format {
            Format::Table => writeln!(err, "{}", line::line(r, &self.zone)),
            Format::Json => match serde_json::to_string(r) {
                Ok(text) => writeln!(err, "{text}"),
                Err(e) => writeln!(err, "cannot write a record as JSON: {e}"),
            },
            Format::Quiet => Ok(()),
        };
        let written = self.keep(r);
        self.kept(written)
    }

    fn kept(&self, written: bool) -> Kept {
        match &self.export {
            Some(export) if export.keeps() => Kept::Later,
            _ if written => Kept::Yes,
            _ => Kept::No,
        }
    }

    /// Writes what else there is to tell: into the stream of records, to the receiver, and for people.
    pub fn tell(&mut self, e: &Event) {
        self.export_event(e.otlp());
        self.show(e, "", false);
    }

    /// The same for what declares flows lost; whether it is kept, as with [`Sink::write`].
    pub fn declare(&mut self, e: &Event, debt: Debt) -> Kept {
        if let Some(export) = &mut self.export {
            export.declare(e.otlp(), debt);
        }
        let written = self.show(e, "", false);
        self.kept(written)
    }

    /// Writes what was done to the firewall: into the stream of records, and for people `report`, which
    /// says more, and one line. What went well is not told where nothing is to be told.
    pub fn change(&mut self, c: &PolicyChange, report: &str) {
        self.export_event(c.otlp());
        self.show(c, report, c.outcome != Outcome::Refused);
    }

    /// Writes that a bypass began or ended: into the stream of records, and one line for people.
    pub fn bypass(&mut self, c: &BypassChange) {
        self.export_event(c.otlp());
        self.show(c, "", true);
    }

    fn export_event(&mut self, event: LogRecord) {
        if let Some(export) = &mut self.export {
            export.tell(event);
        }
    }

    /// Whether the file has it, if there is one.
    fn show(&mut self, what: &(impl Serialize + Display), report: &str, good: bool) -> bool {
        let mut err = anstream::stderr().lock();
        let quiet = self.format == Format::Quiet && good;
        let _ = match (self.format, serde_json::to_string(what)) {
            (Format::Json, Ok(text)) => writeln!(err, "{text}"),
            _ if quiet => Ok(()),
            _ => writeln!(err, "{report}{what}"),
        };
        drop(err);
        self.keep(what)
    }

    /// Says what is wrong, if it is not what was said last.
    pub fn complain_once(&mut self, what: &str) {
        if self.said != what {
            what.clone_into(&mut self.said);
            anstream::eprintln!("error: {what}");
        }
    }

    /// Appends to the file, if there is one.
    fn keep(&mut self, what: &impl Serialize) -> bool {
        let Some((_, file)) = &mut self.file else {
            return true;
        };
        let json = serde_json::to_string(what).map_err(io::Error::other);
        let written = json.and_then(|text| append(file, (text + "\n").as_bytes()));
        if let Err(e) = &written {
            self.unwritten += 1;
            self.complain(e);
        }
        written.is_ok()
    }

    fn complain(&mut self, e: &io::Error) {
        if let (false, Some((path, _))) = (self.complained, &self.file) {
            self.complained = true;
            tracing::warn!(target: SECURITY, "cannot write {}: {e}", path.display());
            eprintln!(
                "error: cannot write {}: {e}; records are lost and counted, the command goes on",
                path.display()
            );
        }
    }
}

/// Writes a line whole or not at all: a half one would be glued to the next.
fn append(file: &mut File, line: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    file.write_all(line).inspect_err(|_| {
        // What cannot be taken back stays; the error is reported all the same.
        let _ = file.set_len(before);
    })
}

/// Somebody else may own the directory, and point the name at a file that is root's: links are not
/// followed, but for those of the system (`/dev/stderr`).
fn links(path: &Path) -> i32 {
    if path.starts_with("/dev") || path.starts_with("/proc") {
        0
    } else {
        libc::O_NOFOLLOW
    }
}

/// Whether a file ends in the middle of a line, as one does whose writer was killed.
fn half_a_line(path: &Path) -> io::Result<bool> {
    let meta = path.metadata()?;
    if !meta.is_file() || meta.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    File::open(path)?.read_exact_at(&mut last, meta.len() - 1)?;
    Ok(last != *b"\n")
}

fn open(path: &Path, owner: Option<(u32, u32)>) -> Result<(PathBuf, File), SinkError> {
    let failed = |what| {
        move |source| SinkError {
            what,
            path: path.to_owned(),
            source,
        }
    };
    let fresh = !path.exists();
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .custom_flags(links(path))
        .open(path)
        .map_err(failed("open"))?;
    if half_a_line(path).map_err(failed("read"))? {
        append(&mut file, b"\n").map_err(failed("write"))?;
    }
    if let (true, Some((uid, gid))) = (fresh, owner) {
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).map_err(failed("give away"))?;
    }
    Ok((path.to_owned(), file))
}
