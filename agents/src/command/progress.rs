//! How far a long command is: a line on the terminal that is written over, if standard error is one.

use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Pause before the first line, and between two. Default 500 ms: quick calls show nothing.
const PAUSE: Duration = Duration::from_millis(500);

/// Shows lines until it is dropped, which wipes the last one.
pub(crate) struct Progress(Option<tokio::task::JoinHandle<()>>);

impl Progress {
    /// Shows what `line` says, now and then.
    pub(crate) fn show(line: impl Fn() -> String + 'static) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let task = actix::spawn(async move {
            loop {
                actix::clock::sleep(PAUSE).await;
                write(&line());
            }
        });
        Self(Some(task))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            write("");
        }
    }
}

/// Writes over the line. A terminal that has gone needs no progress.
fn write(line: &str) {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "\r\x1b[K{line}").and_then(|()| err.flush());
}
