//! What the loader hears of an engine, and what the engine itself says.

use crate::engine::Engine;
use ebpf_manager::docker::{Container, News, Watcher};
use kernel_tests::eventually;
use nix::poll::{PollFd, PollFlags, poll};
use serde_json::Value;
use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::PathBuf,
    process::{Child, Stdio},
};

/// Everything that a watcher has told, in order.
pub struct Ear {
    watcher: Watcher,
    /// All of it, but for the marks of how far that goes.
    pub heard: Vec<News>,
}

impl Ear {
    /// Listens to an engine.
    #[must_use]
    pub fn new(engine: &Engine) -> Self {
        let watcher = Watcher::start(engine.described()).expect("a watcher");
        Self {
            watcher,
            heard: Vec::new(),
        }
    }

    /// Waits until `probe` finds something in what was heard.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, mut probe: impl FnMut(&[News]) -> Option<T>) -> T {
        eventually(what, || {
            // Woken by news, or once more in a while.
            let mut fds = [PollFd::new(self.watcher.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, 100u16).ok();
            let news = self.watcher.news();
            self.heard
                .extend(news.filter(|n| !matches!(n, News::Until(_))));
            probe(&self.heard)
        })
    }

    /// Waits for news that were not heard before, and gives the first that `wanted` takes. What comes
    /// before it counts as heard.
    #[track_caller]
    pub fn next<T>(&mut self, what: &str, mut wanted: impl FnMut(&News) -> Option<T>) -> T {
        let found = self.until(what, |heard| {
            heard
                .iter()
                .enumerate()
                .find_map(|(i, news)| Some((i, wanted(news)?)))
        });
        self.heard.drain(..=found.0);
        found.1
    }

    /// The next word of what runs.
    #[track_caller]
    pub fn all(&mut self) -> Vec<Container> {
        self.next("everything that runs", |news| match news {
            News::All(all) => Some(all.clone()),
            _ => None,
        })
    }

    /// The next word that this container runs, as it is now.
    #[track_caller]
    pub fn is(&mut self, id: &str) -> Container {
        self.next(&format!("{id} to run"), |news| match news {
            News::Is(c) if c.id == id => Some((**c).clone()),
            _ => None,
        })
    }

    /// The next word that it has ended; when.
    #[track_caller]
    pub fn ended(&mut self, id: &str) -> i64 {
        self.next(&format!("{id} to end"), |news| match news {
            News::Ended { id: ended, at } if ended == id => Some(*at),
            _ => None,
        })
    }
}

/// The engine's own events, as its client prints them.
pub struct Chronicle {
    client: Child,
    file: PathBuf,
}

impl Chronicle {
    /// Writes them down from now on.
    #[must_use]
    pub fn begin(engine: &Engine) -> Self {
        let file = engine.dir().join("events.jsonl");
        let out = File::create(&file).expect("a file");
        let mut client = engine.command();
        client.args([
            "events",
            "--since",
            "0s",
            "--format",
            "{{json .}}",
            "--filter",
            "type=container",
        ]);
        let client = client.stdout(out).stderr(Stdio::null()).spawn();
        Self {
            client: client.expect("docker starts"),
            file,
        }
    }

    /// Times of one kind of event (`start`, `die`) of a container, in order.
    #[must_use]
    pub fn times(&self, action: &str, id: &str) -> Vec<i64> {
        let text = fs::read_to_string(&self.file).expect("the file");
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = events.filter(|e| e["Action"] == action && e["Actor"]["ID"] == id);
        ours.filter_map(|e| e["timeNano"].as_i64()).collect()
    }
}

impl Drop for Chronicle {
    fn drop(&mut self) {
        // It may have ended with the engine.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
