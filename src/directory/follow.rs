//! Following who provides a service, and asking one of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::sync::watch;

use super::{Entry, Find};
use crate::connection::Connection;
use crate::contents::IntoContents;
use crate::error::{FindError, RequestError};
use crate::failure::Reason;
use crate::msg::Msg;
use crate::router::clock::{Clock, SystemClock};

/// What happened to an entry.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// It is there: since now, or since before the watch began.
    Appeared(Arc<Entry>),
    /// The same connection provides the same service in another way: its new entry.
    Changed(Arc<Entry>),
    /// It was withdrawn, or its router is gone.
    Gone(Arc<Entry>),
}

/// The entries that fit a search, as they come and go. [`next`](Watch::next) tells those that are there first, so nothing is missed between a list and a stream.
///
/// What came and went between two calls is not told; what is there in the end always is. So a slow reader holds no more than the entries themselves.
#[must_use = "nothing is told until next() is awaited"]
pub struct Watch {
    find: Find,
    changed: watch::Receiver<()>,
    known: Vec<Arc<Entry>>,
    untold: VecDeque<Change>,
}

/// Which of several providers is asked first. Those after it are asked when one is told dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pick {
    /// In the same router, else on the same machine, else over the network.
    #[default]
    Nearest,
    /// The first by address: the same one for all who ask.
    First,
    /// Any, each as likely.
    Random,
    /// Each in turn, of all that this router's connections ask.
    RoundRobin,
}

impl Watch {
    pub(super) fn new(find: Find) -> Self {
        let mut changed = find.switch.board.changed.subscribe();
        changed.mark_changed();
        Self { find, changed, known: Vec::new(), untold: VecDeque::new() }
    }

    /// The next change, as soon as there is one. Cancelled, it loses nothing.
    pub async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.untold.pop_front() {
                return change;
            }
            if self.changed.changed().await.is_err() {
                // The sender lives in the router, which this holds.
                std::future::pending::<()>().await;
            }
            self.look();
        }
    }

    fn look(&mut self) {
        let now = self.find.all();
        let mut before = std::mem::replace(&mut self.known, now.clone());
        for entry in now {
            let is_same = |old: &Arc<Entry>| old.addr == entry.addr && old.service == entry.service;
            let place = before.iter().position(|old| *old == entry).or_else(|| before.iter().position(is_same));
            match place.map(|at| before.swap_remove(at)) {
                Some(old) if old == entry => {}
                Some(_) => self.untold.push_back(Change::Changed(entry)),
                None => self.untold.push_back(Change::Appeared(entry)),
            }
        }
        for gone in before.into_iter().rev() {
            self.untold.push_front(Change::Gone(gone));
        }
    }
}

impl Find {
    /// Tells which entries fit, and from then on what changes.
    pub fn watch(self) -> Watch {
        Watch::new(self)
    }

    /// Which of several providers is asked first. Default: the nearest.
    pub fn pick(mut self, pick: Pick) -> Self {
        self.pick = pick;
        self
    }

    /// Those known now, the one to ask first at the front.
    #[must_use]
    pub fn picked(&self) -> Vec<Arc<Entry>> {
        let mut all = self.all();
        let turn = match self.pick {
            Pick::Nearest => return all,
            Pick::First => {
                all.sort_by(|one, other| one.addr.cmp(&other.addr));
                return all;
            }
            Pick::Random => SystemClock.draw() as usize,
            Pick::RoundRobin => self.switch.board.turn.fetch_add(1, Ordering::Relaxed),
        };
        if self.pick == Pick::RoundRobin {
            all.sort_by(|one, other| one.addr.cmp(&other.addr));
        }
        if !all.is_empty() {
            let turn = turn % all.len();
            all.rotate_left(turn);
        }
        all
    }

    /// Asks one provider, and the next one when a provider is told dead before it was handled; waits for a provider where there is none. `contents` makes what is sent, once for each that is asked.
    ///
    /// A request of which nobody knows whether it was handled (`peer lost`) is not asked again, unless it is [`repeatable`](Find::repeatable).
    ///
    /// # Errors
    ///
    /// [`AskError::Find`]: nobody provides it in time. [`AskError::Request`]: a provider was reached and did not answer well, or no other was left.
    pub async fn ask<C: IntoContents>(
        self,
        conn: &Connection,
        subject: impl Into<SmolStr>,
        contents: impl Fn() -> C,
        limit: Duration,
    ) -> Result<Msg, AskError> {
        let subject = subject.into();
        let deadline = tokio::time::Instant::now() + limit;
        let mut dead: Vec<Arc<Entry>> = Vec::new();
        let mut changed = self.switch.board.changed.subscribe();
        let mut last = None;
        loop {
            changed.mark_unchanged();
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let Some(entry) = self.picked().into_iter().find(|entry| !dead.contains(entry)) else {
                if matches!(tokio::time::timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
                    continue;
                }
                let provided = self.switch.board.core.lock().services();
                let nobody = FindError::Nobody { service: self.service.unwrap_or_default(), within: limit, provided };
                return Err(last.map_or(AskError::Find(nobody), AskError::Request));
            };
            match conn.request(&entry, subject.clone(), contents(), left).await {
                Ok(answer) => return Ok(answer),
                Err(error) if self.may_ask_another(&error) => {
                    tracing::debug!(%error, "another provider is asked");
                    dead.push(entry);
                    last = Some(error);
                }
                Err(error) => return Err(AskError::Request(error)),
            }
        }
    }

    /// A request that does no harm when it is handled twice: it is asked again also where nobody knows whether it was.
    pub fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    fn may_ask_another(&self, error: &RequestError) -> bool {
        let reason = match error {
            RequestError::NotSent(error) => &error.reason,
            RequestError::NotDelivered(failure) => &failure.reason,
            _ => return false,
        };
        match reason {
            Reason::PeerLost | Reason::Unstated => self.is_repeatable,
            Reason::NoSuchConnection
            | Reason::NoHandler
            | Reason::AgentStopped
            | Reason::NoRoute(_)
            | Reason::DialFailed(_)
            | Reason::Expired
            | Reason::ShuttingDown => true,
            _ => false,
        }
    }
}

/// Why a request to whoever provides a service has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody provides it: see [`FindError`].
    #[error(transparent)]
    Find(#[from] FindError),
    /// Those who do did not answer; of several, the last: see [`RequestError`].
    #[error(transparent)]
    Request(#[from] RequestError),
}
