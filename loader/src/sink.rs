//! Where records go: lines for people on stderr, JSON lines to stderr or a file.

use crate::{record::Record, render::line};
use jiff::tz::TimeZone;
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

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
#[error("cannot {what} {}: {source}", path.display())]
pub struct SinkError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Writes records and counts what it could not write.
pub struct Sink {
    format: Format,
    zone: TimeZone,
    file: Option<(PathBuf, File)>,
    /// Records that could not be written to the file.
    pub unwritten: u64,
    complained: bool,
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
            unwritten: 0,
            complained: false,
        })
    }

    /// Writes one record. A file that cannot take it loses it, is complained about once, and counts;
    /// what is shown on stderr is best effort, like every terminal.
    pub fn write(&mut self, r: &Record) {
        if self.file.is_some() {
            let json = serde_json::to_string(r).map_err(io::Error::other);
            let written = json.and_then(|mut text| {
                text.push('\n');
                match &mut self.file {
                    Some((_, f)) => append(f, text.as_bytes()),
                    None => Ok(()),
                }
            });
            if let Err(e) = written {
                self.unwritten += 1;
                self.complain(&e);
            }
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
    }

    fn complain(&mut self, e: &io::Error) {
        if let (false, Some((path, _))) = (self.complained, &self.file) {
            self.complained = true;
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

fn open(path: &Path, owner: Option<(u32, u32)>) -> Result<(PathBuf, File), SinkError> {
    let failed = |what| {
        move |source| SinkError {
            what,
            path: path.to_owned(),
            source,
        }
    };
    let fresh = !path.exists();
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(failed("open"))?;
    if let (true, Some((uid, gid))) = (fresh, owner) {
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).map_err(failed("give away"))?;
    }
    Ok((path.to_owned(), file))
}
