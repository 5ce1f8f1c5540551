//! A frame between two Rust routers: a header, and any number of messages.
//!
//! It begins as Ion, with the schema `"L3"`, so that it is told from a message; what follows is packed. The incarnations of sender and receiver, and the session, in eight bytes each; the sender's mood in one; the
//! last receipt heard of the session, the number of the first message, and how many receipts there are; the receipts; how many endpoints the messages name, and the endpoints; how many messages there are, and the messages to the end ([`Block`]).

use std::cell::{Cell, RefCell};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::block::{Block, Bodies, Endpoints, SHORT};
use super::ion::{self, MARKER, Malformed};
use super::packed::{Packed, put_number, put_text};
use super::refused::{Fault, Refused, RefusedKind};
use crate::addr::Endpoint;

/// The schema of a frame of messages. The digit is the version of its layout.
const SCHEMA: &str = "L3";
/// Receipts in one frame, ranges in one receipt, and endpoints. Default 4,096: a router has no more links, two routers have two or three sessions, and tell 64 ranges.
const SEVERAL: usize = 4096;

/// Endpoints of frames that each thread remembers. Default 64, of at most 128 bytes: the peers of a busy router, in 8 KiB.
const SHARED: usize = 64;
const LONGEST_SHARED: usize = 128;

thread_local! {
    // Headers and short frames grow here, to be copied to where they stay.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static RECENT: RefCell<[Option<Endpoint>; SHARED]> = const { RefCell::new([const { None }; SHARED]) };
}

/// What kind of frame came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// One message, or something that the gate will refuse.
    Message,
    /// Messages between two Rust routers.
    Link,
}

/// What stands before the messages of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's incarnation.
    pub from: u64,
    /// The incarnation that it is meant for: a restarted router does not take what its predecessor was sent.
    pub to: u64,
    /// Which numbering of the sender this is.
    pub session: u64,
    /// The version of the last receipt for it that the sender has heard.
    pub heard: u64,
    /// Whether the sender shuts down, knows that the receiver does, or can wait.
    pub mood: Mood,
    /// The number of the first message here.
    pub first: u64,
    /// What has come of the receiver's sessions.
    pub receipts: Receipts,
}

/// What the sender of a frame does, and what its receiver need not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mood {
    /// The sender is shutting down and takes answers alone from now on.
    pub closing: bool,
    /// The sender has heard that the receiver is: it has sent all that it will, but for answers.
    pub hushed: bool,
    /// The sender's frames are not dropped on their way, and it may have more than two of them there: their receipt need not hurry.
    pub patient: bool,
}

/// As a rule there is one.
pub type Receipts = SmallVec<[Receipt; 1]>;

/// What one router has of another's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The session.
    pub session: u64,
    /// Which receipt for it this is: each is newer than the one before.
    pub version: u64,
    /// All messages below this number have come.
    pub accepted: u64,
    /// All messages below this number are settled: handled, but for those among the failed of this receipt or an earlier one.
    pub settled: u64,
    /// Beyond: the first and, exclusive, the last of further settled ranges.
    pub beyond: Vec<(u64, u64)>,
    /// Settled ones that had no handler; told again until the receiver has heard this receipt.
    pub failed: Vec<Failed>,
}

/// A range of messages that had no handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The first.
    pub from: u64,
    /// Exclusive, the last.
    pub upto: u64,
    /// How their senders are told.
    pub how: How,
}

/// How the sender of a message without handler is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By a report, which is a message of its own.
    Reported,
    /// By its own router: the message could not be read, and so named nobody to report to.
    Unread,
    /// By its own router, which is told no reason: the report may be lost.
    Unreported,
}

/// Tells frames of messages from single messages by their first bytes.
#[must_use]
pub fn kind(frame: &[u8]) -> FrameKind {
    let schema = frame.get(MARKER.len()..MARKER.len() + 1 + SCHEMA.len());
    match schema {
        Some([0x82, text @ ..]) if text == SCHEMA.as_bytes() => FrameKind::Link,
        _ => FrameKind::Message,
    }
}

/// Writes a frame.
#[must_use]
pub fn write_frame(header: &Header, messages: &Block) -> Bytes {
    let mut out = SCRATCH.try_with(Cell::take).unwrap_or_default();
    write_header(header, messages, &mut out);
    finished(out, None, messages.bytes())
}

/// The same for messages that are kept to be sent again. Unless they are few, they become a part of the frame, and no more can be added.
pub(crate) fn launch_frame(header: &Header, messages: &mut Block) -> Bytes {
    let mut out = SCRATCH.try_with(Cell::take).unwrap_or_default();
    write_header(header, messages, &mut out);
    let whole = messages.behind(&out);
    finished(out, whole, messages.bytes())
}

/// The whole frame, or else a copy of its parts. The place of the header is kept for the next.
fn finished(mut header: Vec<u8>, whole: Option<Bytes>, messages: &[u8]) -> Bytes {
    let frame = whole.unwrap_or_else(|| {
        if messages.len() > SHORT {
            return [&header, messages].concat().into();
        }
        header.extend_from_slice(messages);
        Bytes::copy_from_slice(&header)
    });
    if header.capacity() <= 4 * SHORT {
        // A thread that ends keeps nothing.
        let _ = SCRATCH.try_with(|place| place.set(header));
    }
    frame
}

/// What stands before the messages.
fn write_header(header: &Header, messages: &Block, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&MARKER);
    ion::write_string(SCHEMA, out);
    for number in [header.from, header.to, header.session] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let Mood { closing, hushed, patient } = header.mood;
    out.push(u8::from(closing) | u8::from(hushed) << 1 | u8::from(patient) << 2);
    for number in [header.heard, header.first, header.receipts.len() as u64] {
        put_number(number, out);
    }
    for receipt in &header.receipts {
        write_receipt(receipt, out);
    }
    put_number(messages.endpoints.len() as u64, out);
    for endpoint in &messages.endpoints {
        put_text(endpoint.as_str().as_bytes(), out);
    }
    put_number(messages.len() as u64, out);
}

/// Reads a frame; the messages are slices of it, not looked into.
///
/// # Errors
///
/// [`RefusedKind::Malformed`] or [`RefusedKind::Limit`]: the frame costs itself only.
pub fn read_frame(frame: &Bytes) -> Result<(Header, Bodies), Refused> {
    open_frame(frame.clone())
}

pub(crate) fn open_frame(mut frame: Bytes) -> Result<(Header, Bodies), Refused> {
    let mut packed = Packed(&frame);
    let read = read(&mut packed, &frame);
    let at = frame.len() - packed.0.len();
    let refused = |malformed| Fault::malformed(at, malformed).refused_in_frame();
    let (header, endpoints, count) = read.map_err(refused)?;
    frame.advance(at);
    Ok((header, Bodies::new(endpoints, frame, count).map_err(refused)?))
}

impl Refused {
    /// A well-formed frame of or for a router's life that has ended.
    pub(crate) fn stale() -> Self {
        Self {
            kind: RefusedKind::Odd,
            what: "frame",
            path: "header".into(),
            reason: "it belongs to a router's life that has ended".into(),
        }
    }
}

/// What stands before the messages, whose number is the last of it.
fn read<'a>(packed: &mut Packed<'a>, frame: &'a [u8]) -> Result<(Header, Endpoints, usize), Malformed> {
    if kind(frame) != FrameKind::Link {
        return Err(Malformed(&"a frame of another schema"));
    }
    packed.0 = frame.get(MARKER.len() + 1 + SCHEMA.len()..).unwrap_or_default();
    let (from, to, session) = (packed.drawn()?, packed.drawn()?, packed.drawn()?);
    let mood = packed.byte()?;
    let mood = Mood { closing: mood & 1 != 0, hushed: mood & 2 != 0, patient: mood & 4 != 0 };
    let (heard, first) = (packed.number()?, packed.number()?);
    let header = Header { from, to, session, heard, mood, first, receipts: several(packed, receipt)? };
    let endpoints = several(packed, endpoint)?;
    Ok((header, endpoints, packed.count()?))
}

/// As many as are said.
#[inline]
fn several<'a, T: Extend<U> + Default, U>(
    packed: &mut Packed<'a>,
    one: impl Fn(&mut Packed<'a>) -> Result<U, Malformed>,
) -> Result<T, Malformed> {
    let count = packed.count()?;
    if count > SEVERAL {
        return Err(Malformed(&"more receipts, ranges or endpoints than a router knows"));
    }
    let mut several = T::default();
    for _ in 0..count {
        several.extend([one(packed)?]);
    }
    Ok(several)
}

fn endpoint(packed: &mut Packed<'_>) -> Result<Endpoint, Malformed> {
    let name = packed.text()?;
    let fresh =
        || std::str::from_utf8(name).map(Endpoint::new).map_err(|_| Malformed(&"an endpoint that is not UTF-8"));
    if name.len() > LONGEST_SHARED {
        return fresh();
    }
    // That of an earlier frame if it is remembered: frame after frame the same few cost no memory.
    let tail = name.last_chunk().map_or(0, |tail| u64::from_le_bytes(*tail)) ^ name.len() as u64;
    // The upper bits depend on all of them.
    let place = (tail.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as usize;
    RECENT.with_borrow_mut(|recent| match &mut recent[place % SHARED] {
        Some(endpoint) if endpoint.as_str().as_bytes() == name => Ok(endpoint.clone()),
        place => Ok(place.insert(fresh()?).clone()),
    })
}

fn write_receipt(receipt: &Receipt, out: &mut Vec<u8>) {
    out.extend_from_slice(&receipt.session.to_le_bytes());
    for number in [receipt.version, receipt.accepted, receipt.settled, receipt.beyond.len() as u64] {
        put_number(number, out);
    }
    for (from, upto) in &receipt.beyond {
        put_number(*from, out);
        put_number(*upto, out);
    }
    put_number(receipt.failed.len() as u64, out);
    for Failed { from, upto, how } in &receipt.failed {
        put_number(*from, out);
        put_number(*upto, out);
        out.push(*how as u8);
    }
}

fn receipt(packed: &mut Packed<'_>) -> Result<Receipt, Malformed> {
    let (session, version) = (packed.drawn()?, packed.number()?);
    let (accepted, settled) = (packed.number()?, packed.number()?);
    let beyond = several(packed, |packed| Ok((packed.number()?, packed.number()?)))?;
    let failed = several(packed, |packed| {
        let (from, upto) = (packed.number()?, packed.number()?);
        Ok(Failed { from, upto, how: how(packed.byte()?)? })
    })?;
    Ok(Receipt { session, version, accepted, settled, beyond, failed })
}

fn how(byte: u8) -> Result<How, Malformed> {
    match byte {
        0 => Ok(How::Reported),
        1 => Ok(How::Unread),
        2 => Ok(How::Unreported),
        _ => Err(Malformed(&"a message fails in one of three ways")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;
    use crate::wire::{Encoded, Envelope, Profile, read_message};

    fn told(session: u64, beyond: &[(u64, u64)]) -> Receipt {
        let failed = vec![
            Failed { from: 3, upto: 5, how: How::Unread },
            Failed { from: 6, upto: 7, how: How::Reported },
            Failed { from: 8, upto: 9, how: How::Unreported },
        ];
        Receipt { session, version: 400, accepted: 70_000, settled: 8, beyond: beyond.to_vec(), failed }
    }

    fn sample() -> (Header, Block) {
        let header = Header {
            from: 7,
            to: u64::MAX >> 1,
            session: 300,
            heard: 12,
            mood: Mood { closing: false, hushed: true, patient: true },
            first: 0,
            receipts: vec![told(1, &[]), told(3, &[(9, 12)])].into(),
        };
        let mut block = Block::default();
        for size in [0, 5, 5000] {
            let message = Envelope {
                from: Addr::local(3),
                to: Addr::at("ipc:///tmp/router_1".into(), 3),
                subject: "EVENT".into(),
                id: Some(size),
                reply_to: None,
                contents: crate::wire::encode(&"x".repeat(usize::try_from(size).unwrap())).unwrap(),
                meta: Encoded::empty_struct(),
            };
            block.push(&message, None);
        }
        (header, block)
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let (header, messages) = sample();
        let frame = write_frame(&header, &messages);
        assert_eq!(kind(&frame), FrameKind::Link);
        let (read, bodies) = read_frame(&frame).unwrap();
        assert_eq!((read, bodies.len(), bodies.size()), (header, messages.len(), messages.size()));
        assert!(bodies.iter().map(|message| message.unwrap().id.unwrap()).eq([0, 5, 5000]));
        let (_, none) = read_frame(&write_frame(&sample().0, &Block::default())).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn a_frame_is_no_message_and_a_message_no_frame() {
        let (header, messages) = sample();
        let frame = write_frame(&header, &messages);
        assert_eq!(read_message(&frame, Profile::Rust).unwrap_err().kind, RefusedKind::Schema);
        let message = Bytes::from_static(b"\xE0\x01\x00\xEA\x811");
        assert_eq!(kind(&message), FrameKind::Message);
        assert!(read_frame(&message).is_err());
    }

    #[test]
    fn a_damaged_frame_is_refused_and_harms_nobody() {
        let (header, messages) = sample();
        let frame = write_frame(&header, &messages);
        for cut in 0..frame.len().min(120) {
            let _refused_or_shorter = read_frame(&frame.slice(..cut));
            let mut bent = frame.to_vec();
            bent[cut] ^= 0x5A;
            let _refused_or_other = read_frame(&bent.into());
        }
        assert!(read_frame(&frame.slice(..frame.len() - 1)).is_err());
    }
}
