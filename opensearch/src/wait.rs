//! Waiting for servers that are still starting, with a word about it now and then.

use crate::{answer::CallError, client::Client};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// Nobody is told of a shorter wait.
const QUIET: Duration = Duration::from_secs(2);
/// Between two lines, where there is no terminal.
const EVERY: Duration = Duration::from_secs(15);

/// Asks until there is a good answer, and says on stderr what is being waited for.
///
/// # Errors
///
/// An answer that will not get better, or none in time.
pub async fn answer(
    client: &Client,
    path: &str,
    what: &str,
    patience: Duration,
) -> Result<Value, CallError> {
    let begin = Instant::now();
    let mut told = Told::new(what, begin);
    loop {
        // A server that takes the call and never answers must not make it longer.
        let asked = timeout_at(begin + patience, client.get(path)).await;
        let error = match asked {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(e)) if !e.is_passing() => return Err(e),
            Ok(Err(e)) => e,
            Err(_) => CallError::NoAnswer {
                method: "GET",
                url: client.url().to_owned(),
                path: path.to_owned(),
                why: format!("no answer within {} s", patience.as_secs()),
                passing: true,
            },
        };
        if begin.elapsed() + PAUSE >= patience {
            return Err(error);
        }
        told.tell(&error);
        sleep(PAUSE).await;
    }
}

/// What people see of a wait.
struct Told {
    what: String,
    begin: Instant,
    next: Instant,
    bar: Option<ProgressBar>,
}

impl Told {
    fn new(what: &str, begin: Instant) -> Self {
        Self {
            what: what.to_owned(),
            begin,
            next: begin + QUIET,
            bar: None,
        }
    }

    fn tell(&mut self, error: &CallError) {
        if Instant::now() < self.next {
            return;
        }
        let line = format!("waiting for {}: {error}", self.what);
        if !io::stderr().is_terminal() {
            anstream::eprintln!("{line} ({} s)", self.begin.elapsed().as_secs());
            self.next = Instant::now() + EVERY;
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_message(line);
        bar.tick();
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
