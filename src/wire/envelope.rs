//! A message on the wire: twelve values in a fixed order, the first of which is the schema.
//!
//! Reading is one pass of the gate that keeps the fields as it meets them. Contents and meta stay slices of the frame; endpoints
//! and subject are copied, so that a small text kept for long does not keep a large frame alive.

use std::sync::Arc;

use bytes::Bytes;
use smol_str::SmolStr;

use super::ion::{self, Kind, MARKER, Value};
use super::meta::with_hops;
use super::refused::{Fault, Reason, Refused, RefusedKind, Why};
use super::top::Top;
use super::{Encoded, MESSAGE_SCHEMA, Profile};
use crate::addr::{Addr, Endpoint};

/// A message with the fields that routing needs, and the rest still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where an answer goes.
    pub from: Addr,
    /// Where the message goes.
    pub to: Addr,
    /// What it is about.
    pub subject: SmolStr,
    /// Its number among the sender's messages; absent in a hello.
    pub id: Option<i64>,
    /// The number of the message that it answers.
    pub reply_to: Option<i64>,
    /// What it carries.
    pub contents: Encoded,
    /// Side data: a struct, or null.
    pub meta: Encoded,
}

/// What messages in a row have in common, and share: whence, whither, and what about.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub(crate) to: Addr,
    pub(crate) from: Addr,
    pub(crate) subject: SmolStr,
    /// How often they were passed on, beside what their `meta` says.
    pub(crate) hops: u32,
}

/// An [`Envelope`] as a router keeps it; `meta` is absent where it is the usual empty struct.
pub(crate) struct Letter {
    pub(crate) head: Arc<Head>,
    pub(crate) id: Option<i64>,
    pub(crate) reply_to: Option<i64>,
    pub(crate) contents: Encoded,
    pub(crate) meta: Option<Box<Encoded>>,
}

impl From<Envelope> for Letter {
    fn from(envelope: Envelope) -> Self {
        let Envelope { from, to, subject, id, reply_to, contents, meta } = envelope;
        let meta = (meta != Encoded::empty_struct()).then(|| Box::new(meta));
        Self { head: Arc::new(Head { to, from, subject, hops: 0 }), id, reply_to, contents, meta }
    }
}

impl From<Letter> for Envelope {
    fn from(letter: Letter) -> Self {
        let Letter { head, id, reply_to, contents, meta } = letter;
        let Head { to, from, subject, hops } = Arc::unwrap_or_clone(head);
        let meta = with_hops(meta.map_or_else(Encoded::empty_struct, |meta| *meta), hops);
        Self { from, to, subject, id, reply_to, contents, meta }
    }
}

/// The fields of a message as they stand in the frame, whatever their types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positional {
    /// Where an answer goes: tcp endpoint, ipc endpoint, connection.
    pub from: [Encoded; 3],
    /// Where the message goes: tcp endpoint, ipc endpoint, connection.
    pub to: [Encoded; 3],
    /// What it is about.
    pub subject: Encoded,
    /// Its number among the sender's messages.
    pub id: Encoded,
    /// The number of the message that it answers.
    pub reply_to: Encoded,
    /// What it carries.
    pub contents: Encoded,
    /// Side data.
    pub meta: Encoded,
}

/// Reads the fields of a message without asking for their types, as Python does.
///
/// # Errors
///
/// Every kind but [`RefusedKind::Odd`]: the frame costs itself only, go on with the next.
pub fn read_positional(frame: &Bytes, profile: Profile) -> Result<Positional, Refused> {
    Fields::read(frame, profile, Fields::positional)
}

/// Reads a message whose envelope can be used.
///
/// # Errors
///
/// Every kind: the frame costs itself only, go on with the next.
pub fn read_message(frame: &Bytes, profile: Profile) -> Result<Envelope, Refused> {
    Fields::read(frame, profile, Fields::message)
}

/// Appends a message as one frame. Contents and meta go as they are: [`check`](super::check) them for the reader first.
pub fn write_message(message: &Envelope, out: &mut Vec<u8>) {
    out.extend_from_slice(&MARKER);
    ion::write_string(MESSAGE_SCHEMA, out);
    write_addr(&message.from, out);
    write_addr(&message.to, out);
    ion::write_string(&message.subject, out);
    write_id(message.id, out);
    write_id(message.reply_to, out);
    write_encoded(&message.contents, out);
    if message.meta.symbols.is_some() && message.contents.symbols.is_some() {
        out.extend_from_slice(&MARKER);
    }
    write_encoded(&message.meta, out);
}

fn write_addr(addr: &Addr, out: &mut Vec<u8>) {
    for endpoint in [&addr.net, &addr.machine] {
        match endpoint {
            Some(endpoint) => ion::write_string(endpoint.as_str(), out),
            None => out.push(ion::NULL),
        }
    }
    match addr.connection {
        Some(number) => ion::write_uint(number, out),
        None => out.push(ion::NULL),
    }
}

fn write_id(id: Option<i64>, out: &mut Vec<u8>) {
    match id {
        Some(id) => ion::write_int(id, out),
        None => out.push(ion::NULL),
    }
}

fn write_encoded(value: &Encoded, out: &mut Vec<u8>) {
    if let Some(symbols) = &value.symbols {
        out.extend_from_slice(symbols);
    }
    out.extend_from_slice(&value.bytes);
}

/// The fields of a frame one by one.
struct Fields<'a> {
    top: Top<'a>,
    /// The field that was asked for last.
    name: &'static str,
}

static END_OF_FRAME: Reason = Reason(RefusedKind::Malformed, "end of frame", "a message has twelve values");

static THIRTEENTH: Reason = Reason(RefusedKind::Malformed, "thirteenth value", "a message has twelve values");

static NOT_A_MESSAGE: Reason = Reason(RefusedKind::Schema, "another value", "only \"1\" is a message");

impl<'a> Fields<'a> {
    /// Reads a frame with `fields`, which takes what follows the schema, and turns a fault into the refusal of a field.
    fn read<T>(
        frame: &'a Bytes,
        profile: Profile,
        fields: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Refused> {
        let top = Top::new(frame, profile).map_err(Fault::refused_in_frame)?;
        let mut reader = Self { top, name: "schema" };
        reader.whole(fields).map_err(|fault| reader.refused(fault))
    }

    fn whole<T>(&mut self, fields: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        self.schema()?;
        let read = fields(self)?;
        self.name = "thirteenth value";
        match self.top.next()? {
            None => Ok(read),
            Some(_) => Err(Fault::other(self.top.at(), &THIRTEENTH)),
        }
    }

    #[cold]
    fn refused(&mut self, fault: Fault) -> Refused {
        match fault.why {
            Why::Other(reason) if std::ptr::eq(reason, &raw const END_OF_FRAME) => fault.refused(self.name.into()),
            Why::Other(reason) if std::ptr::eq(reason, &raw const THIRTEENTH) => fault.refused_in_frame(),
            _ => self.top.refused(fault, self.name),
        }
    }

    fn message(&mut self) -> Result<Envelope, Fault> {
        Ok(Envelope {
            from: self.addr(["from.net", "from.machine", "from.connection"])?,
            to: self.addr(["to.net", "to.machine", "to.connection"])?,
            subject: self.subject()?,
            id: self.int("id")?,
            reply_to: self.int("reply_to")?,
            contents: self.encoded("contents")?,
            meta: self.meta()?,
        })
    }

    fn positional(&mut self) -> Result<Positional, Fault> {
        Ok(Positional {
            from: [self.encoded("from.net")?, self.encoded("from.machine")?, self.encoded("from.connection")?],
            to: [self.encoded("to.net")?, self.encoded("to.machine")?, self.encoded("to.connection")?],
            subject: self.encoded("subject")?,
            id: self.encoded("id")?,
            reply_to: self.encoded("reply_to")?,
            contents: self.encoded("contents")?,
            meta: self.encoded("meta")?,
        })
    }

    fn next(&mut self, name: &'static str) -> Result<Value<'a>, Fault> {
        self.name = name;
        match self.top.next()? {
            Some(value) => Ok(value),
            None => Err(Fault::other(self.top.at(), &END_OF_FRAME)),
        }
    }

    fn odd<T>(&self, value: Value<'_>, reason: &'static &'static str) -> Result<T, Fault> {
        let found = if value.is_null() { Kind::Null } else { value.header.kind };
        let why = Why::Odd(found, reason);
        Err(Fault { at: self.top.at(), why })
    }

    fn schema(&mut self) -> Result<(), Fault> {
        let schema = self.next("schema")?;
        if text(schema) == Some(MESSAGE_SCHEMA) { Ok(()) } else { Err(Fault::other(self.top.at(), &NOT_A_MESSAGE)) }
    }

    fn encoded(&mut self, name: &'static str) -> Result<Encoded, Fault> {
        self.next(name)?;
        Ok(self.top.encoded())
    }

    fn addr(&mut self, [net, machine, connection]: [&'static str; 3]) -> Result<Addr, Fault> {
        Ok(Addr {
            net: self.endpoint(net)?,
            machine: self.endpoint(machine)?,
            connection: self.connection(connection)?,
        })
    }

    fn endpoint(&mut self, name: &'static str) -> Result<Option<Endpoint>, Fault> {
        let value = self.next(name)?;
        match text(value) {
            Some(text) => Ok(Some(Endpoint::new(text))),
            None if value.is_null() => Ok(None),
            None => self.odd(value, &"an endpoint is a string or null"),
        }
    }

    fn connection(&mut self, name: &'static str) -> Result<Option<u64>, Fault> {
        let value = self.next(name)?;
        if value.is_null() {
            return Ok(None);
        }
        match int(value).map(u64::try_from) {
            Some(Ok(number)) => Ok(Some(number)),
            _ => self.odd(value, &"a connection is an int from 0 to 2^64 - 1, or null"),
        }
    }

    fn subject(&mut self) -> Result<SmolStr, Fault> {
        let value = self.next("subject")?;
        match text(value) {
            Some(text) => Ok(SmolStr::from(text)),
            None => self.odd(value, &"a subject is a string"),
        }
    }

    fn int(&mut self, name: &'static str) -> Result<Option<i64>, Fault> {
        let value = self.next(name)?;
        if value.is_null() {
            return Ok(None);
        }
        match int(value).map(i64::try_from) {
            Some(Ok(number)) => Ok(Some(number)),
            _ => self.odd(value, &"a message number is an int of 64 bits, or null"),
        }
    }

    fn meta(&mut self) -> Result<Encoded, Fault> {
        let meta = self.next("meta")?;
        if meta.is_null() || meta.header.kind == Kind::Struct {
            Ok(self.top.encoded())
        } else {
            self.odd(meta, &"meta is a struct or null")
        }
    }
}

fn text(value: Value<'_>) -> Option<&str> {
    if value.header.kind != Kind::String || value.is_null() {
        return None;
    }
    std::str::from_utf8(value.body).ok()
}

fn int(value: Value<'_>) -> Option<i128> {
    let magnitude = i128::try_from(ion::magnitude(value.body)?).ok()?;
    match value.header.kind {
        Kind::Positive => Some(magnitude),
        Kind::Negative => Some(-magnitude),
        _ => None,
    }
}
