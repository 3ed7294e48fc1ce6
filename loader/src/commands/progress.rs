//! Something to look at while a command takes its time.

use indicatif::ProgressBar;
use std::{
    io::IsTerminal as _,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

/// Nothing is shown for what is done sooner.
const SOON: Duration = Duration::from_secs(2);

/// Does something, and says on stderr what is going on when it takes longer than two seconds and
/// somebody looks.
pub(super) fn waiting<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let (done, over) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if over.recv_timeout(SOON) == Err(RecvTimeoutError::Timeout) {
                let spinner = ProgressBar::new_spinner().with_message(what);
                spinner.enable_steady_tick(Duration::from_millis(100));
                // Until the sender is dropped.
                let _ = over.recv();
                spinner.finish_and_clear();
            }
        });
        let result = work();
        drop(done);
        result
    })
}
