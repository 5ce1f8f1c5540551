//! The thread that owns a transport's life: what nng and the callers note comes here in order, as does the passing of time.
//!
//! It alone decides that a dial ended, that a pipe is gone, and when it is safe to close a socket. It never waits: what may
//! is done on the threads of `workers`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::accepted::Accepted;
use super::dialed::Dialed;
use super::sys::{CLOSE_LIMIT, RawPipe, end_after_what_came, visitors_at};
use super::{Pipe, Shared, closing};
use crate::addr::Scheme;
use crate::transport::sockets::check_dialable;
use crate::transport::{DialError, Event, Origin, PipeId};

/// How long after the loss of a pipe it is told: frames that nng read before may still be on their way through another thread.
const LAST_WORDS: Duration = Duration::from_millis(1);
/// How often a pipe that is to be closed is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// A peer that said nothing for this long is not in the middle of a burst: a read in the very moment of the close, which is what
/// hangs, is then most unlikely.
const QUIET: Duration = Duration::from_millis(20);
/// How long a close waits for a frame to be written out, so that what was taken is sent if the peer reads at all.
const WRITE_OUT: Duration = Duration::from_secs(1);
/// How long the end of a transport waits until each pipe may be closed or nng has found its end; milliseconds as a rule.
const HANG_UP: Duration = Duration::from_millis(900);
/// An accepted ipc pipe whose connection cannot be told from another is closed after this silence.
const LONG_QUIET: Duration = Duration::from_secs(1);

/// What happened, for the owner.
pub(super) enum Note {
    /// `dial` was called.
    DialBegun(Arc<Dialed>),
    /// A dialed pipe stands.
    DialedAdded(PipeId, RawPipe),
    /// A dialed pipe is gone.
    DialedGone(PipeId),
    /// The attempt to connect is over.
    DialEnded(PipeId, Result<(), DialError>),
    /// Somebody came.
    Accepted(RawPipe),
    /// Who came is gone.
    AcceptedGone(RawPipe),
    /// `close` was called.
    Retire(PipeId),
    /// `shutdown` was called; the sender is dropped when all is closed.
    Shutdown(Instant, Option<Sender<()>>),
}

enum Due {
    DialLimit(PipeId),
    Silent(RawPipe),
    DialedLost(PipeId),
    AcceptedLost(RawPipe),
    RetireDialed(PipeId, Instant),
    RetireAccepted(RawPipe),
    LookAtCloser,
    Finish,
}

pub(super) struct Owner {
    shared: Arc<Shared>,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    what: HashMap<u64, Due>,
    next: u64,
    dials: HashMap<PipeId, Dial>,
    ending: Option<Ending>,
}

/// A dialed pipe that is not buried yet.
struct Dial {
    pipe: Arc<Dialed>,
    raw: Option<RawPipe>,
    gone: bool,
}

struct Ending {
    began: Instant,
    limit: Instant,
    done: Option<Sender<()>>,
}

impl Owner {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, due: BinaryHeap::new(), what: HashMap::new(), next: 0, dials: HashMap::new(), ending: None }
    }

    pub(super) fn run(mut self, notes: &Receiver<Note>) {
        loop {
            let note = match self.due.peek() {
                Some(Reverse((at, _))) => notes.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => notes.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match note {
                Ok(note) => self.take(note),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.act_on_time() {
                return;
            }
        }
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::DialBegun(pipe) => self.begin(pipe),
            Note::DialedAdded(id, raw) => {
                if let Some(dial) = self.dials.get_mut(&id) {
                    dial.raw = Some(raw);
                }
            }
            Note::DialedGone(id) => {
                if let Some(dial) = self.dials.get_mut(&id) {
                    dial.gone = true;
                    self.after(LAST_WORDS, Due::DialedLost(id));
                }
            }
            Note::DialEnded(id, outcome) => self.dial_ended(id, outcome),
            Note::Accepted(raw) => self.accepted(raw),
            Note::AcceptedGone(raw) => self.after(LAST_WORDS, Due::AcceptedLost(raw)),
            Note::Retire(id) => self.retire(id),
            Note::Shutdown(limit, done) => self.shut_down(limit, done),
        }
    }

    /// Whether everything is over.
    fn act_on_time(&mut self) -> bool {
        let now = Instant::now();
        while let Some(Reverse((at, key))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            match self.what.remove(&key) {
                Some(Due::Finish) if self.finish() => return true,
                Some(due) => self.act(due),
                None => {}
            }
        }
        false
    }

    fn act(&mut self, due: Due) {
        match due {
            Due::DialLimit(id) => self.dial_limit(id),
            Due::Silent(raw) => self.close_if_silent(raw),
            Due::DialedLost(id) => self.dialed_lost(id),
            Due::AcceptedLost(raw) => self.accepted_lost(raw),
            Due::RetireDialed(id, since) => self.retire_dialed(id, since),
            Due::RetireAccepted(raw) => self.retire_accepted(raw),
            Due::LookAtCloser => closing::run(|| ()), // It reports a close that hangs.
            Due::Finish => {}                         // Not yet: it has set the next look itself.
        }
    }

    fn begin(&mut self, pipe: Arc<Dialed>) {
        let id = pipe.id;
        if let Err(error) = check_dialable(&pipe.to) {
            pipe.lane.end(|_| Some(Event::DialFailed { pipe: id, error }));
            self.shared.pipes.write().remove(&id);
            return;
        }
        if self.ending.is_some() {
            return;
        }
        self.after(self.shared.options.dial_limit, Due::DialLimit(id));
        pipe.start(&self.shared);
        let dial = Dial { pipe, raw: None, gone: false };
        self.dials.insert(id, dial);
    }

    fn dial_ended(&mut self, id: PipeId, outcome: Result<(), DialError>) {
        let Some(dial) = self.dials.get(&id) else {
            return;
        };
        let pipe = dial.pipe.clone();
        let outcome =
            outcome.and_then(|()| dial.raw.ok_or_else(|| DialError::System("the peer does not speak Pair1".into())));
        match outcome {
            Ok(raw) if !pipe.lane.is_over() => self.dial_stands(&pipe, raw),
            Ok(_) => {} // Closed meanwhile: its retirement is under way.
            Err(error) => {
                pipe.lane.end(|_| Some(Event::DialFailed { pipe: id, error }));
                self.bury(id);
            }
        }
    }

    fn dial_stands(&self, pipe: &Arc<Dialed>, raw: RawPipe) {
        let (local, remote, pid) = super::ends(raw, pipe.to.scheme() == Scheme::Tcp);
        // Open before it is told: the sink may send at once.
        pipe.state.lock().open = true;
        pipe.lane.open(Event::Opened { pipe: pipe.id, origin: Origin::Dialed(pipe.to.clone()), local, remote, pid });
        pipe.listen();
    }

    fn dial_limit(&mut self, id: PipeId) {
        let Some(dial) = self.dials.get(&id) else {
            return;
        };
        if dial.pipe.lane.is_held() {
            let error = DialError::TimedOut(self.shared.options.dial_limit);
            dial.pipe.lane.end(|_| Some(Event::DialFailed { pipe: id, error }));
            self.bury(id);
        }
    }

    fn dialed_lost(&mut self, id: PipeId) {
        let Some(dial) = self.dials.get(&id) else {
            return;
        };
        if dial.pipe.lane.is_held() {
            // The dialing thread has not come back yet; that it did not last is told after that.
            self.after(LAST_WORDS, Due::DialedLost(id));
            return;
        }
        dial.pipe.state.lock().open = false;
        dial.pipe.lane.end(|opened| opened.then_some(Event::Closed { pipe: id }));
        self.bury(id);
    }

    /// Has the socket closed; its pipe is gone, quiet, or never was. A dial that has just begun is let be for a moment.
    fn bury(&mut self, id: PipeId) {
        self.shared.pipes.write().remove(&id);
        let wait = self.dials.get(&id).and_then(|dial| dial.pipe.must_wait());
        if let Some(wait) = wait {
            self.after(wait, Due::RetireDialed(id, Instant::now()));
            return;
        }
        if let Some(dial) = self.dials.remove(&id) {
            dial.pipe.abandon();
            self.after(CLOSE_LIMIT + QUIET, Due::LookAtCloser);
        }
    }

    fn accepted(&mut self, raw: RawPipe) {
        let Some(pipe) = self.visitor(raw) else {
            return;
        };
        pipe.open(&self.shared.hall);
        if pipe.ipc().is_some() && !pipe.has_spoken() {
            self.after(self.shared.options.silent_limit, Due::Silent(raw));
        }
    }

    fn accepted_lost(&mut self, raw: RawPipe) {
        let Some(pipe) = self.shared.hall.pipes.write().remove(&raw) else {
            return;
        };
        self.shared.pipes.write().remove(&pipe.id);
        pipe.end();
    }

    /// Who has said one word is not touched.
    fn close_if_silent(&mut self, raw: RawPipe) {
        let Some(pipe) = self.visitor(raw) else {
            return;
        };
        if pipe.has_spoken() {
            return;
        }
        tracing::debug!(pipe = pipe.id.0, "closing an ipc pipe that said nothing");
        pipe.end();
        self.retire_accepted(raw);
    }

    fn retire(&mut self, id: PipeId) {
        let pipe = self.shared.pipes.write().remove(&id);
        match pipe {
            Some(Pipe::Dialed(pipe)) => {
                pipe.go_deaf();
                self.retire_dialed(id, Instant::now());
            }
            Some(Pipe::Accepted(pipe)) => self.retire_accepted(pipe.raw),
            None => {}
        }
    }

    fn retire_dialed(&mut self, id: PipeId, since: Instant) {
        let Some(dial) = self.dials.get(&id) else {
            return;
        };
        let never_stood = dial.raw.is_none();
        let read_quiet = dial.pipe.is_read_quiet(QUIET);
        let write_quiet = dial.pipe.is_write_quiet() || since.elapsed() > WRITE_OUT;
        if dial.gone || never_stood || (read_quiet && write_quiet) {
            self.bury(id);
        } else {
            self.after(LOOK_AGAIN, Due::RetireDialed(id, since));
        }
    }

    /// Over ipc the connection is shut so that nng finds it out by itself, if it is known which it is; else when it is silent.
    fn retire_accepted(&mut self, raw: RawPipe) {
        let Some(pipe) = self.visitor(raw) else {
            return;
        };
        let Some((path, pid)) = pipe.ipc() else {
            raw.close();
            return;
        };
        let candidates = visitors_at(path, pid);
        if let [connection] = candidates.as_slice() {
            end_after_what_came(connection);
        } else if !pipe.has_spoken() || pipe.is_silent_for(LONG_QUIET) {
            raw.close();
        } else {
            self.after(QUIET, Due::RetireAccepted(raw));
        }
    }

    fn shut_down(&mut self, limit: Instant, done: Option<Sender<()>>) {
        if self.ending.is_some() {
            return;
        }
        self.shared.unlink();
        let ids: Vec<PipeId> = self.dials.keys().copied().collect();
        for id in ids {
            // Whoever dials on is told nothing more, but its socket is closed with the same care.
            if let Some(dial) = self.dials.get(&id) {
                dial.pipe.lane.end(|_| None);
                dial.pipe.state.lock().open = false;
            }
            self.retire(id);
        }
        self.ending = Some(Ending { began: Instant::now(), limit, done });
        self.after(Duration::ZERO, Due::Finish);
    }

    /// Closes the rest once nobody is connected over ipc and no dialed pipe is left, at the latest a moment after the limit. Whether it did.
    fn finish(&mut self) -> bool {
        let Some(ending) = &self.ending else {
            return false;
        };
        let now = Instant::now();
        let alone = self.shared.hang_up_on_ipc() && self.dials.is_empty();
        if !alone && now < ending.limit.max(ending.began + HANG_UP) {
            self.after(LOOK_AGAIN, Due::Finish);
            return false;
        }
        let done = self.ending.take().and_then(|ending| ending.done);
        for dial in self.dials.values() {
            dial.pipe.abandon();
        }
        let shared = self.shared.clone();
        closing::run(move || {
            shared.close_hall();
            drop(done);
        });
        true
    }

    fn visitor(&self, raw: RawPipe) -> Option<Arc<Accepted>> {
        self.shared.hall.pipes.read().get(&raw).cloned()
    }

    fn after(&mut self, delay: Duration, due: Due) {
        self.next += 1;
        self.due.push(Reverse((Instant::now() + delay, self.next)));
        self.what.insert(self.next, due);
    }
}
