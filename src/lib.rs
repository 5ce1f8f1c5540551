//! Very light peer-to-peer messaging and an agent runtime that tells the truth about failure.
//!
//! A [`Router`] holds connections. An [`Agent`] is an actix actor with a connection of its own; [`Router::connect`] makes one without an
//! agent. Connections send [`Msg`]s to each other by [`Addr`], find addresses by what they provide ([`Connection::find`]), and await answers
//! ([`Connection::request`]), wherever the other one lives.
//!
//! # Guarantees
//!
//! - Every message ends, at its sender, in exactly one of: delivered (its handler was called with it), refused (with the reason and the place), or unknown (nobody can say, told
//!   within [`Limits::outcome`]). [`Connection::deliver`] waits for that end; nothing is handled twice.
//! - A request ends with an answer, with a named error as soon as that is known, or at its limit.
//! - Between two routers of this library, a lost and remade connection loses nothing and repeats nothing, and order per sender and receiver is kept.
//! - A panic in an agent harms no other agent.
//! - Bytes from outside cost at most themselves. Every queue has a limit ([`Limits`]).
//!
//! # Not guaranteed
//!
//! - When the other process dies, messages of which it had not said what became of them are reported as [`Reason::PeerLost`]: they may have been handled.
//! - A message in the hands of an agent of the same router has no deadline: it ends when the agent is done with it, stops or panics.
//! - A Python router acknowledges nothing: what it loses is noticed as a request's timeout.
//!
//! # Non-goals
//!
//! Authentication, encryption, persistence, publish and subscribe: built by agents where they are needed.

mod addr;
mod agent;
mod alarm;
mod config;
mod connection;
mod contents;
mod directory;
mod error;
mod failure;
mod hash;
mod link;
mod msg;
mod port;
mod router;
pub mod subject;
mod timer;
#[doc(hidden)]
pub mod transport;
mod value;
#[doc(hidden)]
pub mod wire;

pub use addr::{Addr, DIRECTORY, Endpoint, ParseAddrError, Scheme};
pub use agent::{Agent, Spawned, Supervised};
pub use config::Limits;
pub use connection::Connection;
pub use contents::{Contents, ContentsError, IntoContents};
pub use directory::{
    AskError, Change, DirectoryView, Entry, Find, Known, LOCAL_VNET, Pick, Register, Registration, RouterView, Watch,
};
pub use error::{DeliverError, Error, FindError, JoinError, RegisterError, RequestError, SendError, StartError};
pub use failure::{NotDelivered, Reason};
pub use msg::{Handled, Msg};
pub use router::{FOLDER_VARIABLE, Mode, Router, RouterBuilder, Stats};
pub use timer::Timer;
pub use transport::{DialError, ListenError, SOCKETS_VARIABLE, Sockets};
pub use value::Value;
pub use wire::Element;

/// The README's first example is one of the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
