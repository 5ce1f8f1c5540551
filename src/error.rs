//! What can go wrong, one enum per operation. Each names who and how much, and what to do next.

use std::fmt;
use std::time::Duration;

use crate::addr::{Addr, Endpoint};
use crate::contents::{Contents, ContentsError};
use crate::failure::{NotDelivered, Reason};
use crate::transport::ListenError;

/// Any error of this library, for programs that pass them all on with `?`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A router did not start: see [`StartError`].
    #[error(transparent)]
    Start(#[from] StartError),
    /// A message was not sent: see [`SendError`].
    #[error(transparent)]
    Send(#[from] SendError),
    /// A message was not delivered, or nobody knows: see [`DeliverError`].
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// A request was not answered: see [`RequestError`].
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Contents were not of the type asked for: see [`ContentsError`].
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// No provider was found: see [`FindError`].
    #[error(transparent)]
    Find(#[from] FindError),
    /// A hub was not joined: see [`JoinError`].
    #[error(transparent)]
    Join(#[from] JoinError),
    /// No provider answered: see [`AskError`](crate::AskError).
    #[error(transparent)]
    Ask(#[from] crate::AskError),
    /// An entry was not registered: see [`RegisterError`].
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// Why a router did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It could not listen where it should: choose another endpoint, or end who holds it.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No free router endpoint was found in the folder: remove stale files, or choose another folder.
    #[error("none of {tried} router endpoints from {first} on is free")]
    NoFreeEndpoint {
        /// The first endpoint tried.
        first: Endpoint,
        /// How many were tried.
        tried: u32,
    },
    /// The socket library did not start: the system has no memory, descriptors or threads left.
    #[error("the transport did not start")]
    Transport(#[source] std::io::Error),
    /// The options contradict each other: correct them.
    #[error("{0}")]
    Options(String),
}

/// A message that was not sent; what it carried comes back with [`into_contents`](SendError::into_contents).
#[derive(Debug, thiserror::Error)]
#[error("{subject:?} to {to} was not sent: {reason}")]
pub struct SendError {
    /// Where it was to go.
    pub to: Addr,
    /// Its subject.
    pub subject: String,
    /// Why not; each reason says what to do next.
    pub reason: Reason,
    pub(crate) contents: Box<Contents>,
}

/// Why a message is not known to have been delivered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliverError {
    /// It was not sent: nothing happened anywhere, and the contents come back. The reason says what to do next.
    #[error(transparent)]
    NotSent(#[from] SendError),
    /// It was sent, and no handler was called with it: find another receiver, or send it again.
    #[error(transparent)]
    Refused(NotDelivered),
    /// Nobody knows: it may have been handled, or be handled yet. Send it again if that does no harm.
    #[error("nobody knows whether {} was handled: {}", Named(.0), .0.reason)]
    Unknown(NotDelivered),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It was not sent: nothing happened anywhere.
    #[error(transparent)]
    NotSent(#[from] SendError),
    /// It was sent and did not reach a handler, or nobody knows whether it did: the reason tells which.
    #[error(transparent)]
    NotDelivered(NotDelivered),
    /// It reached an agent that has no handler for the subject, or not for such contents: correct the request.
    #[error("{to} does not understand {subject:?}{}", Why(.why))]
    NotUnderstood {
        /// Who was asked.
        to: Addr,
        /// What was asked.
        subject: String,
        /// In the agent's words; empty if it gave none.
        why: String,
    },
    /// No answer came in time; the request may have been handled. Ask again if that does no harm.
    #[error("no reply from {to} to {subject:?} within {after:?}")]
    TimedOut {
        /// Who was asked.
        to: Addr,
        /// What was asked.
        subject: String,
        /// How long the answer was waited for.
        after: Duration,
    },
}

/// Why no provider was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// Nobody registered such an entry, here or at a hub, in time: start a provider, or correct the name.
    #[error("nobody provides {service:?} within {within:?}; provided are: {}", List(.provided))]
    Nobody {
        /// The service asked for.
        service: String,
        /// How long it was waited for.
        within: Duration,
        /// Services that are known here.
        provided: Vec<String>,
    },
}

/// Why a router does not know yet what the network knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// A hub has not said what it knows: start one there, or wait for it longer.
    #[error("no hub answers at {hub} within {within:?}")]
    Silent {
        /// The hub that this router joins.
        hub: Endpoint,
        /// How long it was waited for.
        within: Duration,
    },
}

/// Why an entry was not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The connection is closed, or its router is: start another.
    #[error("{addr} is closed and can provide nothing")]
    Closed {
        /// Whose entry it was to be.
        addr: Addr,
    },
    /// The params cannot be encoded: correct them.
    #[error(transparent)]
    Params(#[from] ContentsError),
}

impl SendError {
    /// What the message carried.
    #[must_use]
    pub fn into_contents(self) -> Contents {
        *self.contents
    }
}

struct Why<'a>(&'a str);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

struct Named<'a>(&'a NotDelivered);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} to {}", self.0.subject, self.0.to)
    }
}

struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("none") } else { f.write_str(&self.0.join(", ")) }
    }
}
