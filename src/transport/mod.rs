//! Moves frames between routers. What a frame means is not known here.
//!
//! A *pipe* is the life of one connection between two routers: it is dialed by one and accepted by the other, carries whole
//! frames both ways, in order, and ends once. Pipe ids are never used again. A lost pipe stays lost: to dial again is the
//! caller's decision and gives a new pipe.
//!
//! Everything that happens is told to the [`EventSink`] that the transport was made with, from threads of the transport's own
//! (or, for [`memory`], from whoever moves its clock). Events of one pipe come in order and one at a time: `Opened`, then any number of
//! `Received` and `Sent`, then `Closed`; or `DialFailed` alone. A sink must not block, and may call `send`, `dial` and `close`.
//!
//! # Not promised
//!
//! `Sent` says that the next frame may be handed over, not that the peer has this one. A pipe that ends loses what was on its way.
//! On an *accepted* pipe of nng's more than two frames on their way may be dropped without a word: whoever sends there must wait for the
//! peer's word in between. On an accepted *ipc* pipe nothing should be sent at all (`nng` says why): dial the peer. `sp` has neither limit, but
//! a router does not know what the peer uses.

#[cfg(any(feature = "nng", feature = "sp"))]
mod claim;
#[cfg(any(feature = "nng", feature = "sp"))]
mod lane;
pub mod memory;
#[cfg(feature = "nng")]
pub mod nng;
#[cfg(any(feature = "nng", feature = "sp"))]
mod sockets;
#[cfg(feature = "sp")]
pub mod sp;
#[cfg(any(feature = "nng", feature = "sp"))]
mod workers;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::addr::Endpoint;

/// Which sockets a router uses. On the wire they are the same: routers of both kinds, and Python's, are in one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sockets {
    /// nng, the C library: what Python routers use.
    #[cfg(feature = "nng")]
    Nng,
    /// The same wire in Rust alone: no C, one thread, and a message is handled by the thread that reads it.
    #[cfg(feature = "sp")]
    Sp,
}

/// The environment variable that says which sockets a router uses that does not say so itself: `nng` or `sp`.
pub const SOCKETS_VARIABLE: &str = "VLM_SOCKETS";

impl Sockets {
    /// Every kind that is compiled in, the default first.
    pub const ALL: &[Self] = &[
        #[cfg(feature = "nng")]
        Self::Nng,
        #[cfg(feature = "sp")]
        Self::Sp,
    ];

    /// What the environment asks for, else the first that is compiled in.
    pub(crate) fn chosen() -> Result<Self, String> {
        match std::env::var(SOCKETS_VARIABLE) {
            Ok(name) => name.parse().map_err(|reason| format!("{SOCKETS_VARIABLE}: {reason}")),
            Err(_) => Self::ALL.first().copied().ok_or_else(|| "no sockets: build with the feature nng or sp".into()),
        }
    }

    /// Starts a transport with them.
    #[doc(hidden)]
    pub fn start(self, sink: EventSink, options: Options) -> io::Result<Arc<dyn Transport>> {
        match self {
            #[cfg(feature = "nng")]
            Self::Nng => Ok(Arc::new(nng::NngTransport::new(sink, options)?)),
            #[cfg(feature = "sp")]
            Self::Sp => Ok(Arc::new(sp::SpTransport::new(sink, options)?)),
        }
    }
}

impl std::fmt::Display for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match *self {
            #[cfg(feature = "nng")]
            Self::Nng => "nng",
            #[cfg(feature = "sp")]
            Self::Sp => "sp",
        })
    }
}

impl std::str::FromStr for Sockets {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        let found = Self::ALL.iter().find(|sockets| sockets.to_string() == name);
        found.copied().ok_or_else(|| format!("{name:?} names no sockets of this program: say {}", names()))
    }
}

/// Names one pipe for as long as its transport lives; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PipeId(pub u64);

/// Takes what happens; called from any thread.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// Sockets, as the router sees them.
pub trait Transport: Send + Sync + 'static {
    /// Accepts connections at `at` from now on, and answers with the endpoint as bound (a TCP port 0 becomes the real one).
    ///
    /// # Errors
    ///
    /// Says why nobody can listen there; an existing file that is not a socket is left as it is.
    fn listen(&self, at: &Endpoint) -> Result<Endpoint, ListenError>;

    /// Listens again at ipc endpoints whose socket file somebody has removed, as programs do that clean up: nobody else would come any more. Pipes stay.
    fn mend(&self) {}

    /// Starts one attempt to connect. It ends in exactly one `Opened` or `DialFailed` for the pipe returned, also when it is closed
    /// before. That may be told before this returns.
    fn dial(&self, to: &Endpoint) -> PipeId;

    /// Hands a frame over. One frame per pipe is taken at a time; the next after its `Sent`.
    ///
    /// # Errors
    ///
    /// Gives the frame back: the previous one is still on its way, or the pipe is gone.
    fn send(&self, pipe: PipeId, frame: Bytes) -> Result<(), SendError>;

    /// The same for who asks before the next frame: where the system has all of this one at once, no `Sent` follows.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    fn hand_over(&self, pipe: PipeId, frame: Bytes) -> Result<Handed, SendError> {
        self.send(pipe, frame).map(|()| Handed::Going)
    }

    /// Whether nothing is dropped on accepted tcp pipes: they are as good to send on as dialed ones.
    fn keeps_all(&self) -> bool {
        false
    }

    /// Ends a pipe. `Closed` follows, or `DialFailed` if it was not opened yet, unless the end has been told already; nothing else is
    /// told of it any more. The peer learns of it when closing is safe.
    fn close(&self, pipe: PipeId);

    /// Ends everything: no listening, no pipes, no socket files, no events afterwards. Waits at most `limit` for what is on its way,
    /// and a moment for the closing itself. May be called from a sink, and twice.
    fn shutdown(&self, limit: Duration);
}

/// What has become of a frame that was [handed over](Transport::hand_over).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// The system has it: the next may be handed over.
    Gone,
    /// It is on its way: `Sent` follows.
    Going,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection stands.
    Opened {
        /// Its name from now on.
        pipe: PipeId,
        /// Who began it.
        origin: Origin,
        /// This end, if the transport knows it (tcp: `tcp://ip:port`).
        local: Option<Endpoint>,
        /// The other end, if the transport knows it (tcp: `tcp://ip:port`).
        remote: Option<Endpoint>,
        /// The process at the other end, if the system tells (ipc).
        pid: Option<u32>,
    },
    /// The attempt to connect ended without a connection.
    DialFailed {
        /// As returned by `dial`.
        pipe: PipeId,
        /// Why.
        error: DialError,
    },
    /// A whole frame came.
    Received {
        /// From where.
        pipe: PipeId,
        /// Its bytes.
        frame: Bytes,
    },
    /// The last frame was handed on; there is room for the next.
    Sent {
        /// Where.
        pipe: PipeId,
    },
    /// The pipe ended: closed here, closed there, or the other process is gone.
    Closed {
        /// Which.
        pipe: PipeId,
    },
}

/// Who began a pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This side, by dialing the endpoint.
    Dialed(Endpoint),
    /// The other side; it came to the endpoint that this side listens at, if the transport knows which one.
    Accepted(Option<Endpoint>),
}

/// Why nobody can listen there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another program listens there. Choose another endpoint, or end that program.
    #[error("{at} is already in use")]
    InUse {
        /// The endpoint asked for.
        at: Endpoint,
    },
    /// The path exists and is not a socket; it was not touched. Choose another path, or move the file away.
    #[error("{at} names a file that is not a socket; it was left as it is")]
    NotASocket {
        /// The endpoint asked for.
        at: Endpoint,
    },
    /// The endpoint cannot be listened at at all: correct it.
    #[error("cannot listen at {at}: {reason}")]
    Invalid {
        /// The endpoint asked for.
        at: Endpoint,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused: see the source.
    #[error("cannot listen at {at}")]
    System {
        /// The endpoint asked for.
        at: Endpoint,
        /// What the system said.
        source: io::Error,
    },
}

/// Why no connection came to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nobody listens there (any more).
    #[error("nobody listens there")]
    Refused,
    /// No answer within the limit given to the transport.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The endpoint cannot be dialed at all.
    #[error("not an endpoint that can be dialed: {0}")]
    Invalid(String),
    /// Closed from this side before it was decided.
    #[error("given up")]
    Closed,
    /// Another fault of the system, in its words.
    #[error("{0}")]
    System(String),
}

/// A frame that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The previous frame has not been handed on: wait for `Sent`.
    #[error("the previous frame is still being sent")]
    Busy(Bytes),
    /// The pipe is gone, or was never opened.
    #[error("the pipe is gone")]
    Gone(Bytes),
}

/// What every transport is given.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes a received frame may have; a longer one ends its pipe before it is read. Default 17 MiB: the default message limit of
    /// 16 MiB and room for the envelope around it.
    pub max_frame: usize,
    /// How long an attempt to connect may take before it is `TimedOut`. Default 2 s: far above any handshake on a
    /// healthy network, and a person still waits for it.
    pub dial_limit: Duration,
    /// An accepted ipc pipe that has said nothing for this long is closed. Default 500 ms: a Python dialer says hello at once, or,
    /// when its dial got stuck, never and dials again only when it is closed.
    pub silent_limit: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_frame: 17 << 20, dial_limit: Duration::from_secs(2), silent_limit: Duration::from_millis(500) }
    }
}
