//! The sending end of one connection, used from any thread.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::inlet::{LONGEST_HEAD, head};
use super::net::{self, Set};
use crate::transport::lane::Lane;
use crate::transport::{DialError, Event, PipeId, SendError};

pub(super) struct Pipe {
    pub(super) id: PipeId,
    pub(super) ipc: bool,
    /// This side began it.
    pub(super) dialed: bool,
    pub(super) lane: Lane,
    pub(super) exit: Arc<Exit>,
}

/// Where frames leave. It may be kept when the pipe has ended, and takes none then.
pub(super) struct Exit {
    pub(super) id: PipeId,
    ipc: bool,
    out: Mutex<Out>,
}

#[derive(Default)]
struct Out {
    socket: Option<Arc<OwnedFd>>,
    /// A frame may be handed over, or is under way.
    open: bool,
    /// `Sent` has not been told yet.
    busy: bool,
    rest: Option<Rest>,
}

/// A frame that did not fit whole.
struct Rest {
    head: ([u8; LONGEST_HEAD], usize),
    frame: Bytes,
    at: usize,
}

/// What has become of a frame that was handed over.
pub(super) enum Written {
    /// The system has it.
    Whole,
    /// The rest goes when there is room.
    InPart,
    /// The other side reads no more.
    Broken(Bytes),
}

impl Pipe {
    pub(super) fn new(id: PipeId, ipc: bool, dialed: bool, lane: Lane) -> Self {
        Self { id, ipc, dialed, lane, exit: Arc::new(Exit { id, ipc, out: Mutex::default() }) }
    }

    /// Frames may be handed over from now on.
    pub(super) fn open(&self, socket: Arc<OwnedFd>) {
        let mut out = self.exit.out.lock();
        // One that was closed in the meantime stays so.
        if !self.lane.is_over() {
            out.socket = Some(socket);
            out.open = true;
        }
    }

    /// Writes more of a frame that did not fit. Whether it has gone now.
    pub(super) fn write_on(&self, set: &Set) -> bool {
        let mut out = self.exit.out.lock();
        let out = &mut *out;
        let (Some(socket), Some(rest)) = (&out.socket, &mut out.rest) else { return false };
        match net::write(socket, &rest.head.0[..rest.head.1], &rest.frame, rest.at) {
            Ok(written) => rest.at += written,
            // The end is read next.
            Err(_) => out.open = false,
        }
        let gone = rest.at == rest.head.1 + rest.frame.len();
        if gone || !out.open {
            out.rest = None;
            set.wait_for_room(&**socket, self.id.0, false);
        }
        gone && out.open
    }

    pub(super) fn is_writing(&self) -> bool {
        self.exit.out.lock().rest.is_some()
    }

    /// There is room for the next frame.
    pub(super) fn tell_sent(&self) {
        self.exit.out.lock().busy = false;
        self.lane.tell(Event::Sent { pipe: self.id });
    }

    /// No frame is taken from now on, and its end is told, unless it was. What is being written still goes. Whether this ended it.
    pub(super) fn end(&self, error: DialError) -> bool {
        let pipe = self.id;
        let ended = self.lane.end(|opened| {
            let closed = Event::Closed { pipe };
            if opened { Some(closed) } else { self.dialed.then_some(Event::DialFailed { pipe, error }) }
        });
        self.shut();
        ended
    }

    /// The same in silence.
    pub(super) fn end_silently(&self) {
        self.lane.end(|_| None);
        self.shut();
    }

    /// The socket is not used any more.
    pub(super) fn let_go(&self) {
        *self.exit.out.lock() = Out::default();
    }

    fn shut(&self) {
        self.exit.out.lock().open = false;
    }
}

impl Exit {
    pub(super) fn send(&self, set: &Set, frame: Bytes) -> Result<Written, SendError> {
        let mut out = self.out.lock();
        let Out { socket: Some(socket), open: open @ true, busy, rest } = &mut *out else {
            return Err(SendError::Gone(frame));
        };
        if *busy {
            return Err(SendError::Busy(frame));
        }
        let head = head(self.ipc, frame.len());
        let Ok(written) = net::write(socket, &head.0[..head.1], &frame, 0) else {
            *open = false;
            return Ok(Written::Broken(frame));
        };
        if written < head.1 + frame.len() {
            *busy = true;
            *rest = Some(Rest { head, frame, at: written });
            set.wait_for_room(&**socket, self.id.0, true);
            return Ok(Written::InPart);
        }
        Ok(Written::Whole)
    }
}
