//! The hello: the first message of a dialed connection, as the reference has it, with what a Rust peer needs in `meta`.
//!
//! `meta` is `{"vlm": {version, incarnation, limit, mailbox, at, token, echo}}`, which Python ignores. A token names one pipe of the sender. A hello that echoes it
//! can only come from the router at the pipe's other end: until then nobody knows that this is a Rust router.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::addr::{Addr, Endpoint};
use crate::subject;
use crate::wire::{self, Encoded, Envelope};

/// The version of link frames that this library speaks; peers with another one are spoken to as if they were Python.
pub(crate) const VERSION: u32 = 3;

/// What one Rust router tells another when they meet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`VERSION`] of the sender.
    pub(crate) version: u32,
    /// One life of the sender: another after each start.
    pub(crate) incarnation: u64,
    /// Bytes of the largest message that the sender takes.
    pub(crate) limit: u64,
    /// Messages that a mailbox of the sender holds.
    pub(crate) mailbox: u64,
    /// Where the sender can be dialed, if it listens.
    pub(crate) at: Option<Endpoint>,
    /// Names the pipe that the sender will send on.
    pub(crate) token: u64,
    /// The receiver's token, once the sender has it.
    pub(crate) echo: Option<u64>,
}

/// A hello as it came: from any router the claimed endpoint, from a Rust router more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) claimed: Endpoint,
    pub(crate) hello: Option<Hello>,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    vlm: Hello,
}

/// Writes a hello for the pipe to `peer`; `claimed` is the endpoint that the receiver may dial back.
pub(crate) fn write(hello: &Hello, claimed: &Endpoint, peer: &Endpoint) -> Envelope {
    Envelope { meta: encode(&Meta { vlm: hello.clone() }), ..write_plain(claimed, peer) }
}

/// Writes a hello that says what Python reads of one, and no more.
pub(crate) fn write_plain(claimed: &Endpoint, peer: &Endpoint) -> Envelope {
    let over_tcp = peer.scheme() == crate::addr::Scheme::Tcp;
    let from = if over_tcp { Addr::at(claimed.clone(), 0) } else { Addr::default() };
    let to = if over_tcp { Addr::at(peer.clone(), 0) } else { Addr::local(0) };
    Envelope {
        from,
        to,
        subject: SmolStr::new_static(subject::SET_ROUTE_BACK_TO_ME),
        id: None,
        reply_to: None,
        contents: encode(claimed),
        meta: Encoded::empty_struct(),
    }
}

fn encode(value: &impl Serialize) -> Encoded {
    wire::encode(value).unwrap_or_else(|_| Encoded::empty_struct())
}

/// Reads a hello; none if the message is not one, or claims nothing that can be dialed.
pub(crate) fn read(envelope: &Envelope) -> Option<Greeting> {
    if envelope.subject != subject::SET_ROUTE_BACK_TO_ME || envelope.to.connection != Some(0) {
        return None;
    }
    let claimed = wire::decode(&envelope.contents).ok()?;
    let hello = wire::decode::<Meta>(&envelope.meta).ok().map(|meta| meta.vlm);
    Some(Greeting { claimed, hello: hello.filter(|hello| hello.version == VERSION) })
}
