//! Ctrl-C and SIGTERM: the first asks a command to end in order, a second ends it on the spot.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::outcome::{Exit, Failure};

/// What a shell reports of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Becomes true when the command is asked to end.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens from now on.
    pub(crate) fn on_signals() -> Result<Self, Failure> {
        let (asked, stop) = watch::channel(false);
        let failed = |error: io::Error| Failure::new(Exit::Failed, format!("signals cannot be listened to: {error}"));
        for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
            let mut signals = signal(kind).map_err(failed)?;
            let asked = asked.clone();
            actix::spawn(async move {
                while signals.recv().await.is_some() {
                    if asked.send_replace(true) {
                        std::process::exit(INTERRUPTED);
                    }
                }
            });
        }
        Ok(Self(stop))
    }

    pub(crate) fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the command is asked to end.
    pub(crate) async fn asked(&self) {
        // An error means that the listeners have ended, which they do with the process.
        let _ = self.0.clone().wait_for(|asked| *asked).await;
    }

    /// Waits for that, or for so long if there is a limit.
    pub(crate) async fn asked_within(&self, limit: Option<Duration>) {
        match limit {
            // Either way the time to end has come.
            Some(limit) => {
                let _ = tokio::time::timeout(limit, self.asked()).await;
            }
            None => self.asked().await,
        }
    }

    /// The outcome of `work`, or none if the command is asked to end before.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, mut asked) = (pin!(work), pin!(self.asked()));
        poll_fn(|cx| match (work.as_mut().poll(cx), asked.as_mut().poll(cx)) {
            (Poll::Ready(done), _) => Poll::Ready(Some(done)),
            (_, Poll::Ready(())) => Poll::Ready(None),
            _ => Poll::Pending,
        })
        .await
    }
}
