//! Why a message did not reach a handler: a reason, and the place that knows.
//!
//! On the wire this is the reference's `MSG_NOT_DELIVERED`: contents are the address that was not reached, the reply id is the id of the message,
//! and `meta` holds `reason` (the form serde gives [`Reason`]) and `place` (text). A Python router states neither.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::addr::Addr;

/// Why a message did not reach a handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reason {
    /// The router has no connection of that number: find the provider again.
    NoSuchConnection,
    /// The connection takes no messages, or nobody waits for this reply any more.
    NoHandler,
    /// The agent stopped with the message in its mailbox or in its hands: find another.
    AgentStopped,
    /// The agent panicked while it had the message: do not send the same again.
    AgentPanicked,
    /// The receiver has as many messages waiting as it may have: send slower, or wait for room.
    MailboxFull,
    /// The other router was lost before it said what became of the message: it may have been handled.
    PeerLost,
    /// No way leads there, with the reason why: correct the address, or the modes of the routers between.
    NoRoute(String),
    /// No connection to that router could be made: it is not running, or not there.
    DialFailed(String),
    /// Passed on by too many routers: their addresses lead in a circle.
    HopLimit,
    /// Larger than the receiver takes, in bytes: send less at once.
    TooLarge {
        /// What was to be sent.
        size: u64,
        /// What is taken.
        limit: u64,
    },
    /// The receiver cannot read such contents: it names what and where.
    NotEncodable(String),
    /// A router on the way is shutting down: find another.
    ShuttingDown,
    /// It waited for its way to the other router until its deadline, and was not sent: find another, or wait longer.
    Expired,
    /// No word of it came within its deadline: it may be handled yet, and nothing more will be told of it.
    NoOutcome,
    /// A Python router sends no reason.
    Unstated,
}

impl Reason {
    /// Whether nobody knows what became of the message: it may have been handled, or be handled yet. With any other reason no handler was called with it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::PeerLost | Self::NoOutcome)
    }
}

/// A message that did not reach a handler, as its sender is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject:?} to {to} was not delivered: {reason}{}", Place(.place))]
pub struct NotDelivered {
    /// Where it was to go.
    pub to: Addr,
    /// Its subject; empty where the report does not say.
    pub subject: String,
    /// Why it was not delivered.
    pub reason: Reason,
    /// Which router or connection says so; empty where the report does not say.
    pub place: String,
}

/// What `meta` of a `MSG_NOT_DELIVERED` holds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Report {
    #[serde(default = "unstated")]
    pub(crate) reason: Reason,
    #[serde(default)]
    pub(crate) place: String,
}

fn unstated() -> Reason {
    Reason::Unstated
}

struct Place<'a>(&'a str);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " (says {})", self.0) }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoSuchConnection => f.write_str("no such connection"),
            Reason::NoHandler => f.write_str("nobody handles it there"),
            Reason::AgentStopped => f.write_str("agent stopped"),
            Reason::AgentPanicked => f.write_str("agent panicked"),
            Reason::MailboxFull => f.write_str("mailbox full"),
            Reason::PeerLost => f.write_str("peer lost, it may have been handled"),
            Reason::NoRoute(why) => write!(f, "no route: {why}"),
            Reason::DialFailed(why) => write!(f, "dial failed: {why}"),
            Reason::HopLimit => f.write_str("hop limit reached"),
            Reason::TooLarge { size, limit } => write!(f, "too large: {size} bytes where {limit} are taken"),
            Reason::NotEncodable(what) => write!(f, "not readable there: {what}"),
            Reason::ShuttingDown => f.write_str("shutting down"),
            Reason::Expired => f.write_str("waited too long to be sent"),
            Reason::NoOutcome => f.write_str("no word of it in time, it may be handled yet"),
            Reason::Unstated => f.write_str("no reason stated"),
        }
    }
}
