//! Pipes that came to this side: all of them share one poly Pair1 socket.

use std::collections::HashMap;
use std::os::raw::c_int;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::Shared;
use super::dialed::Sending;
use super::owner::Note;
use super::sys::{Aio, Code, Msg, PipeEvent, RawPipe, Socket};
use crate::addr::{Endpoint, Scheme};
use crate::transport::lane::Lane;
use crate::transport::{Event, Origin, PipeId, SendError};

/// The socket that everybody comes to.
pub(super) struct Hall {
    pub(super) socket: Socket,
    receive: OnceLock<Aio>,
    /// By nng's name of the listener.
    pub(super) listeners: RwLock<HashMap<c_int, Endpoint>>,
    pub(super) pipes: RwLock<HashMap<RawPipe, Arc<Accepted>>>,
}

pub(super) struct Accepted {
    pub(super) id: PipeId,
    pub(super) raw: RawPipe,
    pub(super) lane: Lane,
    state: Mutex<Sending>,
    send: OnceLock<Option<Aio>>,
    claimed: AtomicBool,
    /// Where, and who.
    came: OnceLock<(Option<Endpoint>, Option<u32>)>,
    heard: Mutex<Option<Instant>>,
}

impl Hall {
    pub(super) fn open(shared: Arc<OnceLock<Weak<Shared>>>, receive_limit: usize) -> Result<Self, Code> {
        let notify = move |event, raw| {
            let Some(shared) = shared.get().and_then(Weak::upgrade) else {
                return;
            };
            match event {
                PipeEvent::Adding => shared.expect(raw),
                PipeEvent::Added => shared.note(Note::Accepted(raw)),
                PipeEvent::Gone => shared.note(Note::AcceptedGone(raw)),
            }
        };
        let socket = Socket::open(true, Box::new(notify))?;
        socket.limit_received(receive_limit)?;
        socket.no_delay()?;
        Ok(Self { socket, receive: OnceLock::new(), listeners: RwLock::default(), pipes: RwLock::default() })
    }

    /// Lets frames in from now on.
    pub(super) fn receive(shared: &Arc<Shared>) -> Result<(), Code> {
        let weak = Arc::downgrade(shared);
        let aio = Aio::new(Box::new(move |result, msg| on_received(&weak, result, msg)))?;
        let aio = shared.hall.receive.get_or_init(|| aio);
        shared.hall.socket.receive(aio);
        Ok(())
    }

    fn rearm(&self) {
        if let Some(aio) = self.receive.get() {
            self.socket.receive(aio);
        }
    }
}

impl Accepted {
    pub(super) fn new(id: PipeId, raw: RawPipe, lane: Lane) -> Self {
        Self {
            id,
            raw,
            lane,
            state: Mutex::new(Sending { open: true, busy: false }),
            send: OnceLock::new(),
            claimed: AtomicBool::new(false),
            came: OnceLock::new(),
            heard: Mutex::new(None),
        }
    }

    /// Tells `Opened`, once, from whoever comes first: the owner, or the first frame.
    pub(super) fn open(&self, hall: &Hall) {
        if self.claimed.swap(true, Ordering::AcqRel) {
            return;
        }
        let came_to = hall.listeners.read().get(&self.raw.listener()).cloned();
        let tcp = came_to.as_ref().is_none_or(|at| at.scheme() == Scheme::Tcp);
        let (local, remote, pid) = super::ends(self.raw, tcp);
        // Nobody else sets it: the claim above is ours.
        let _ = self.came.set((came_to.clone(), pid));
        self.lane.open(Event::Opened { pipe: self.id, origin: Origin::Accepted(came_to), local, remote, pid });
    }

    /// The path that it came to, if it came over ipc, and the process at the other end.
    pub(super) fn ipc(&self) -> Option<(&Path, Option<u32>)> {
        let (at, pid) = self.came.get()?;
        let at = at.as_ref().filter(|at| at.scheme() == Scheme::Ipc)?;
        Some((Path::new(at.rest()), *pid))
    }

    pub(super) fn has_spoken(&self) -> bool {
        self.heard.lock().is_some()
    }

    pub(super) fn is_silent_for(&self, silence: Duration) -> bool {
        self.heard.lock().is_none_or(|at| at.elapsed() >= silence)
    }

    pub(super) fn send(self: &Arc<Self>, hall: &Hall, frame: Bytes) -> Result<(), SendError> {
        {
            let mut state = self.state.lock();
            if !state.open || self.lane.is_held() || self.lane.is_over() {
                return Err(SendError::Gone(frame));
            }
            if state.busy {
                return Err(SendError::Busy(frame));
            }
            state.busy = true;
        }
        let aio = self.send.get_or_init(|| {
            let weak = Arc::downgrade(self);
            Aio::new(Box::new(move |result, _unsent| on_sent(&weak, result))).ok()
        });
        if let (Some(aio), Ok(mut msg)) = (aio, Msg::new(&frame)) {
            msg.set_pipe(self.raw);
            hall.socket.send(aio, msg);
            Ok(())
        } else {
            tracing::error!(pipe = self.id.0, "no memory for a frame");
            self.state.lock().busy = false;
            Err(SendError::Busy(frame))
        }
    }

    /// No frame goes out from now on, and `Closed` is told if `Opened` was.
    pub(super) fn end(&self) -> bool {
        self.state.lock().open = false;
        self.lane.end(|opened| opened.then_some(Event::Closed { pipe: self.id }))
    }
}

fn on_sent(pipe: &Weak<Accepted>, result: Result<(), Code>) {
    let Some(pipe) = pipe.upgrade() else { return };
    if result.is_err() {
        return; // Only a closed socket does that, and its end is told.
    }
    pipe.state.lock().busy = false;
    pipe.lane.tell(Event::Sent { pipe: pipe.id });
}

fn on_received(shared: &Weak<Shared>, result: Result<(), Code>, msg: Option<Msg>) {
    let Some(shared) = shared.upgrade() else {
        return;
    };
    let hall = &shared.hall;
    if let Some(msg) = msg {
        let from = hall.pipes.read().get(&msg.pipe()).cloned();
        if let Some(pipe) = from {
            *pipe.heard.lock() = Some(Instant::now());
            pipe.open(hall);
            pipe.lane.tell(Event::Received { pipe: pipe.id, frame: Bytes::from_owner(msg) });
        }
    }
    if result != Err(Code(nng_sys::NNG_ECLOSED.cast_signed())) {
        hall.rearm();
    }
}
