//! A pipe that this side dialed: a plain Pair1 socket of its own, for one connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::Shared;
use super::owner::Note;
use super::sys::{Aio, Code, Msg, PipeEvent, Socket};
use crate::addr::{Endpoint, Scheme};
use crate::transport::lane::Lane;
use crate::transport::workers::Workers;
use crate::transport::{DialError, Event, PipeId, SendError};

/// Threads that may wait for a connection at once. More dials than that wait in line, and only mute peers hold a thread
/// longer than a millisecond.
static DIALERS: Workers = Workers::new("vlm-nng-dial", 64);

pub(super) struct Dialed {
    pub(super) id: PipeId,
    pub(super) to: Endpoint,
    pub(super) lane: Lane,
    pub(super) state: Mutex<Sending>,
    parts: Mutex<Parts>,
    deaf: AtomicBool,
    heard: Mutex<Option<Instant>>,
}

/// A dial that began less than this ago is not interrupted. Two things go wrong in nng 1.12 when a socket is closed while its
/// dial starts or shakes hands: the dial may never return and the close with it, or the connection's descriptor is lost. After
/// this time a dial that still waits has long been waiting for a mute peer, and is interrupted safely.
const UNINTERRUPTED: Duration = Duration::from_millis(100);

/// Whether a frame may be handed over.
#[derive(Default)]
pub(super) struct Sending {
    pub(super) open: bool,
    pub(super) busy: bool,
}

/// What the dialing thread makes and the owner buries.
enum Parts {
    /// Not made yet.
    Waiting,
    Made(Arc<Made>),
    /// Not wanted any more.
    Abandoned,
}

pub(super) struct Made {
    pub(super) socket: Socket,
    send: Aio,
    receive: Aio,
    dialing: Mutex<Dialing>,
}

#[derive(Clone, Copy)]
enum Dialing {
    Since(Instant),
    Ended,
}

impl Dialed {
    pub(super) fn new(id: PipeId, to: Endpoint, lane: Lane) -> Self {
        Self {
            id,
            to,
            lane,
            state: Mutex::default(),
            parts: Mutex::new(Parts::Waiting),
            deaf: AtomicBool::new(false),
            heard: Mutex::new(None),
        }
    }

    /// Connects on a thread that may wait; tells the owner how it went.
    pub(super) fn start(self: &Arc<Self>, shared: &Arc<Shared>) {
        let (pipe, shared) = (self.clone(), shared.clone());
        DIALERS.run(Box::new(move || {
            if let Some(outcome) = pipe.connect(&shared) {
                shared.note(Note::DialEnded(pipe.id, outcome));
            }
        }));
    }

    /// `None` if it was given up before it began.
    fn connect(self: &Arc<Self>, shared: &Arc<Shared>) -> Option<Result<(), DialError>> {
        if self.lane.is_over() {
            return None;
        }
        let made = match self.make(shared) {
            Ok(made) => Arc::new(made),
            Err(code) => return Some(Err(dial_error(code))),
        };
        {
            let mut parts = self.parts.lock();
            if let Parts::Abandoned = *parts {
                drop(parts);
                bury(made);
                return None;
            }
            *parts = Parts::Made(made.clone());
        }
        let outcome = made.socket.dial_blocking(self.to.as_str());
        *made.dialing.lock() = Dialing::Ended;
        Some(outcome.map_err(dial_error))
    }

    fn make(self: &Arc<Self>, shared: &Arc<Shared>) -> Result<Made, Code> {
        let (id, notes) = (self.id, Arc::downgrade(shared));
        let notify = move |event, raw| {
            let Some(shared) = notes.upgrade() else {
                return;
            };
            match event {
                PipeEvent::Adding => {}
                PipeEvent::Added => shared.note(Note::DialedAdded(id, raw)),
                PipeEvent::Gone => shared.note(Note::DialedGone(id)),
            }
        };
        let socket = Socket::open(false, Box::new(notify))?;
        let made = || {
            socket.limit_received(shared.receive_limit())?;
            socket.never_reconnect()?;
            socket.no_delay()?;
            let weak = Arc::downgrade(self);
            let sent = Aio::new(Box::new(move |result, _unsent| on_sent(&weak, result)))?;
            let weak = Arc::downgrade(self);
            let received = Aio::new(Box::new(move |result, msg| on_received(&weak, result, msg)))?;
            Ok((sent, received))
        };
        match made() {
            Ok((send, receive)) => {
                Ok(Made { socket, send, receive, dialing: Mutex::new(Dialing::Since(Instant::now())) })
            }
            Err(code) => {
                super::closing::run(move || socket.close());
                Err(code)
            }
        }
    }

    /// Lets frames in from now on.
    pub(super) fn listen(&self) {
        if let Some(made) = self.made() {
            made.socket.receive(&made.receive);
        }
    }

    pub(super) fn send(&self, frame: Bytes) -> Result<(), SendError> {
        let Some(made) = self.made() else {
            return Err(SendError::Gone(frame));
        };
        {
            let mut state = self.state.lock();
            if !state.open {
                return Err(SendError::Gone(frame));
            }
            if state.busy {
                return Err(SendError::Busy(frame));
            }
            state.busy = true;
        }
        match Msg::new(&frame) {
            Ok(msg) => {
                made.socket.send(&made.send, msg);
                Ok(())
            }
            Err(code) => {
                tracing::error!(pipe = self.id.0, %code, "no memory for a frame");
                self.state.lock().busy = false;
                Err(SendError::Busy(frame))
            }
        }
    }

    /// No frame goes out from now on; tells how it ended, unless that was told.
    pub(super) fn end(&self) -> bool {
        self.state.lock().open = false;
        let pipe = self.id;
        self.lane.end(|opened| {
            let error = DialError::Closed;
            Some(if opened { Event::Closed { pipe } } else { Event::DialFailed { pipe, error } })
        })
    }

    /// Stops reading: what the peer says next stays unread, and once it does nothing is being read while the socket is closed.
    pub(super) fn go_deaf(&self) {
        self.deaf.store(true, Ordering::SeqCst);
        if let Some(made) = self.made() {
            made.receive.cancel();
        }
    }

    /// Whether no byte from the peer can be in nng's hands at this moment.
    pub(super) fn is_read_quiet(&self, silence: Duration) -> bool {
        if self.to.scheme() == Scheme::Tcp {
            return true; // nng's TCP looks whether the pipe is closed before it reads on; its ipc does not.
        }
        let silent = self.heard.lock().is_none_or(|at| at.elapsed() >= silence);
        silent || self.made().is_none_or(|made| made.socket.is_parked())
    }

    /// Whether no frame is being written at this moment.
    pub(super) fn is_write_quiet(&self) -> bool {
        self.made().is_none_or(|made| made.socket.is_written())
    }

    /// How long the dial must not be interrupted yet, if at all.
    pub(super) fn must_wait(&self) -> Option<Duration> {
        self.made().and_then(|made| made.must_wait())
    }

    /// Has the socket closed, if there is one, and none be made; not before it may.
    pub(super) fn abandon(&self) {
        let parts = std::mem::replace(&mut *self.parts.lock(), Parts::Abandoned);
        if let Parts::Made(made) = parts {
            bury(made);
        }
    }

    fn made(&self) -> Option<Arc<Made>> {
        match &*self.parts.lock() {
            Parts::Made(made) => Some(made.clone()),
            Parts::Waiting | Parts::Abandoned => None,
        }
    }
}

impl Made {
    fn must_wait(&self) -> Option<Duration> {
        match *self.dialing.lock() {
            Dialing::Since(began) => UNINTERRUPTED.checked_sub(began.elapsed()),
            Dialing::Ended => None,
        }
    }
}

fn bury(made: Arc<Made>) {
    super::closing::run(move || {
        // Nothing left when the owner waited, as it does unless it ends.
        while made.must_wait().is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
        made.socket.close();
    });
}

fn on_sent(pipe: &Weak<Dialed>, result: Result<(), Code>) {
    let Some(pipe) = pipe.upgrade() else { return };
    if result.is_err() {
        return; // Only a closed socket does that, and its end is told.
    }
    pipe.state.lock().busy = false;
    pipe.lane.tell(Event::Sent { pipe: pipe.id });
}

fn on_received(pipe: &Weak<Dialed>, result: Result<(), Code>, msg: Option<Msg>) {
    let Some(pipe) = pipe.upgrade() else { return };
    if let Some(msg) = msg {
        *pipe.heard.lock() = Some(Instant::now());
        pipe.lane.tell(Event::Received { pipe: pipe.id, frame: Bytes::from_owner(msg) });
    }
    if result.is_ok() && !pipe.deaf.load(Ordering::SeqCst) {
        pipe.listen();
    }
}

fn dial_error(code: Code) -> DialError {
    use nng_sys as c;
    match code.0.cast_unsigned() {
        c::NNG_ECONNREFUSED | c::NNG_ENOENT => DialError::Refused,
        c::NNG_EADDRINVAL | c::NNG_ENOTSUP | c::NNG_EINVAL => DialError::Invalid(code.to_string()),
        _ => DialError::System(code.to_string()),
    }
}
