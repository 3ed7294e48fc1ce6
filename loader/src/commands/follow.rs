//! Following a file: when there is something new to read.
//!
//! The file is looked at in every turn of the loop, which comes by at least every 50 ms. A look is one
//! `stat`, and sees what no watch on a directory sees: a link somewhere on the way that points elsewhere
//! now, a renamed directory further up, a file system that is changed from another machine, a write
//! through a mapping. It needs no thread either, and the loader must have one alone when it starts the
//! command.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long a file must have been left alone. Longer than a tick of the clock that files are stamped
/// with, so that no write between two looks goes unseen.
const QUIET: Duration = Duration::from_millis(100);

/// How long to wait for somebody to finish writing before it is told.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A file as seen from outside: another value means that it was written, replaced or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Look {
    /// Nothing when there is nothing to be seen, for whatever reason: reading will tell.
    fn at(path: &Path) -> Option<Self> {
        let m = fs::metadata(path).ok()?;
        Some(Self {
            device: m.dev(),
            inode: m.ino(),
            size: m.size(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        })
    }
}

/// A file that is being followed.
#[derive(Debug)]
pub(super) struct Follow {
    path: PathBuf,
    seen: Option<Look>,
    since: Instant,
    news: bool,
}

impl Follow {
    /// Begins with news: the file may have changed since it was read.
    pub(super) fn new(path: &Path, now: Instant) -> Self {
        Self {
            path: path.to_owned(),
            seen: Look::at(path),
            since: now,
            news: true,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// For how long there has been something new to read, once the file is quiet.
    pub(super) fn news(&mut self, now: Instant) -> Option<Duration> {
        let look = Look::at(&self.path);
        if look != self.seen {
            self.seen = look;
            self.since = now;
            self.news = true;
        }
        let quiet = now.saturating_duration_since(self.since);
        (self.news && quiet >= QUIET).then_some(quiet)
    }

    /// It has been read.
    pub(super) fn read(&mut self) {
        self.news = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("clawker-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Follows to the end of the news that there are.
    fn settle(f: &mut Follow, now: &mut Instant) -> bool {
        f.news(*now);
        *now += QUIET;
        let news = f.news(*now).is_some();
        f.read();
        news
    }

    #[test]
    fn every_way_of_changing_a_file_is_news() {
        let place = Place::new("follow");
        let path = place.file("a", "one");
        let other = place.file("b", "two");
        let mut now = Instant::now();
        let mut f = Follow::new(&path, now);
        assert!(settle(&mut f, &mut now), "it may have changed before");
        assert!(!settle(&mut f, &mut now));
        fs::write(&path, "longer than before").unwrap();
        assert!(settle(&mut f, &mut now), "written");
        fs::rename(&other, &path).unwrap();
        assert!(settle(&mut f, &mut now), "replaced");
        fs::remove_file(&path).unwrap();
        assert!(settle(&mut f, &mut now), "removed");
        assert!(!settle(&mut f, &mut now), "told once");
        std::os::unix::fs::symlink(place.file("c", "three"), &path).unwrap();
        assert!(settle(&mut f, &mut now), "linked");
        place.file("c", "four and more");
        assert!(settle(&mut f, &mut now), "written behind the link");
        assert!(!settle(&mut f, &mut now));
    }

    #[test]
    fn news_wait_until_the_file_is_quiet() {
        let place = Place::new("quiet");
        let path = place.file("a", "");
        let mut now = Instant::now();
        let mut f = Follow::new(&path, now);
        for i in 1..10 {
            fs::write(&path, "x".repeat(i)).unwrap();
            assert_eq!(f.news(now), None);
            now += QUIET * 3 / 4;
        }
        assert_eq!(f.news(now), None, "the last write was not long enough ago");
        now += QUIET / 4;
        assert_eq!(f.news(now), Some(QUIET));
        // Until somebody has read it.
        assert_eq!(f.news(now + QUIET), Some(QUIET * 2));
    }
}
