//! A message on the wire: twelve values in a fixed order, the first of which is the schema.
//!
//! Reading is one pass of the gate that keeps the fields as it meets them. Contents and meta stay slices of the frame; endpoints
//! and subject are copied, so that a small text kept for long does not keep a large frame alive.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;

use super::gate::{Top, TopValue};
use super::ion::{self, Kind, MARKER, Value};
use super::refused::{Fault, Refused, RefusedKind};
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
    pub subject: ByteString,
    /// Its number among the sender's messages; absent in a hello.
    pub id: Option<i64>,
    /// The number of the message that it answers.
    pub reply_to: Option<i64>,
    /// What it carries.
    pub contents: Encoded,
    /// Side data: a struct, or null.
    pub meta: Encoded,
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
    let mut fields = Fields::new(frame, profile)?;
    let positional = Positional {
        from: [fields.encoded("from.net")?, fields.encoded("from.machine")?, fields.encoded("from.connection")?],
        to: [fields.encoded("to.net")?, fields.encoded("to.machine")?, fields.encoded("to.connection")?],
        subject: fields.encoded("subject")?,
        id: fields.encoded("id")?,
        reply_to: fields.encoded("reply_to")?,
        contents: fields.encoded("contents")?,
        meta: fields.encoded("meta")?,
    };
    fields.end()?;
    Ok(positional)
}

/// Reads a message whose envelope can be used.
///
/// # Errors
///
/// Every kind: the frame costs itself only, go on with the next.
pub fn read_message(frame: &Bytes, profile: Profile) -> Result<Envelope, Refused> {
    let mut fields = Fields::new(frame, profile)?;
    let envelope = Envelope {
        from: fields.addr(["from.net", "from.machine", "from.connection"])?,
        to: fields.addr(["to.net", "to.machine", "to.connection"])?,
        subject: fields.subject()?,
        id: fields.int("id")?,
        reply_to: fields.int("reply_to")?,
        contents: fields.encoded("contents")?,
        meta: fields.meta()?,
    };
    fields.end()?;
    Ok(envelope)
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

/// The fields of a frame one by one, the schema behind them.
struct Fields<'a> {
    top: Top<'a>,
}

impl<'a> Fields<'a> {
    fn new(frame: &'a Bytes, profile: Profile) -> Result<Self, Refused> {
        let top = Top::new(frame, profile).map_err(Fault::refused_in_frame)?;
        let mut fields = Self { top };
        let schema = fields.next("schema")?.value;
        let is_message =
            schema.header.kind == Kind::String && !schema.is_null() && schema.body == MESSAGE_SCHEMA.as_bytes();
        if is_message { Ok(fields) } else { Err(not_a_message(schema)) }
    }

    fn next(&mut self, name: &'static str) -> Result<TopValue<'a>, Refused> {
        match self.top.next() {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(Refused {
                kind: RefusedKind::Malformed,
                what: "end of frame",
                path: name.into(),
                reason: Cow::Borrowed("a message has twelve values"),
            }),
            Err(fault) => Err(self.top.refused(fault, name)),
        }
    }

    fn encoded(&mut self, name: &'static str) -> Result<Encoded, Refused> {
        let value = self.next(name)?;
        Ok(self.top.encoded(&value))
    }

    fn addr(&mut self, [net, machine, connection]: [&'static str; 3]) -> Result<Addr, Refused> {
        Ok(Addr {
            net: self.endpoint(net)?,
            machine: self.endpoint(machine)?,
            connection: self.connection(connection)?,
        })
    }

    fn endpoint(&mut self, name: &'static str) -> Result<Option<Endpoint>, Refused> {
        let value = self.next(name)?.value;
        match text(value) {
            _ if value.is_null() => Ok(None),
            Some(text) => Ok(Some(Endpoint::new(text))),
            None => Err(odd(value, name, "an endpoint is a string or null")),
        }
    }

    fn connection(&mut self, name: &'static str) -> Result<Option<u64>, Refused> {
        let value = self.next(name)?.value;
        let number = match value.header.kind {
            _ if value.is_null() => return Ok(None),
            Kind::Positive => ion::magnitude(value.body).and_then(|number| number.try_into().ok()),
            _ => None,
        };
        let wrong = || odd(value, name, "a connection is an int from 0 to 2^64 - 1, or null");
        number.map(Some).ok_or_else(wrong)
    }

    fn subject(&mut self) -> Result<ByteString, Refused> {
        let value = self.next("subject")?.value;
        text(value).ok_or_else(|| odd(value, "subject", "a subject is a string"))
    }

    fn int(&mut self, name: &'static str) -> Result<Option<i64>, Refused> {
        let value = self.next(name)?.value;
        let magnitude = || ion::magnitude(value.body).and_then(|number| i128::try_from(number).ok());
        let number = match value.header.kind {
            _ if value.is_null() => return Ok(None),
            Kind::Positive => magnitude(),
            Kind::Negative => magnitude().map(|number| -number),
            _ => None,
        };
        let wrong = || odd(value, name, "a message number is an int of 64 bits, or null");
        number.and_then(|number| number.try_into().ok()).map(Some).ok_or_else(wrong)
    }

    fn meta(&mut self) -> Result<Encoded, Refused> {
        let meta = self.next("meta")?;
        if meta.value.is_null() || meta.value.header.kind == Kind::Struct {
            Ok(self.top.encoded(&meta))
        } else {
            Err(odd(meta.value, "meta", "meta is a struct or null"))
        }
    }

    /// Refuses a frame that holds more than its message.
    fn end(mut self) -> Result<(), Refused> {
        let at = self.top.at();
        match self.top.next() {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(Refused {
                kind: RefusedKind::Malformed,
                what: "thirteenth value",
                path: format!("byte {at}"),
                reason: Cow::Borrowed("a message has twelve values"),
            }),
            Err(fault) => Err(fault.refused_in_frame()),
        }
    }
}

fn text(value: Value<'_>) -> Option<ByteString> {
    if value.header.kind != Kind::String || value.is_null() {
        return None;
    }
    std::str::from_utf8(value.body).ok().map(ByteString::from)
}

fn odd(value: Value<'_>, name: &'static str, reason: &'static str) -> Refused {
    Refused { kind: RefusedKind::Odd, what: value.header.name(), path: name.into(), reason: Cow::Borrowed(reason) }
}

fn not_a_message(schema: Value<'_>) -> Refused {
    Refused {
        kind: RefusedKind::Schema,
        what: schema.header.name(),
        path: "schema".into(),
        reason: Cow::Borrowed("only \"1\" is a message"),
    }
}
