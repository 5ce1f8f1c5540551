//! The messages of a frame between two Rust routers, laid out to be written and read in one go.
//!
//! Endpoints are named once, in a table. A message is: its length in 4 bytes, little-endian; a byte that tells which of the optional parts are there; the places in the table, from 1 on, of the endpoints that
//! it comes from and goes to, and their connections; its subject; how often it was passed on; its ids; symbols and `meta`; and to the end its contents, as Ion, untouched. Numbers are LEB128, ids zigzag before. One that comes from and
//! goes where the one before it does, about the same, says so in their place, and how much larger its ids are.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::envelope::{Head, Letter};
use super::gate::check;
use super::ion::Malformed;
use super::packed::{Packed, put_number, put_text};
use super::refused::{Fault, Refused, RefusedKind};
use super::{Encoded, Envelope, Lent, Profile};
use crate::addr::{Addr, Endpoint};

/// Endpoints that one block names. Default 4,096: a router has no more links.
const ENDPOINTS: usize = 4096;
/// Bytes up to which a block is copied behind the header of its frame. Default 1 KiB: copying more costs as much as an allocation.
pub(super) const SHORT: usize = 1 << 10;
/// Bytes kept free before the messages of a larger one, so that the header can be put there. Default 512: one with a receipt and the names of four routers takes 200.
const GAP: usize = 512;
/// Bytes of a subject that the next message may refer to. Default 256: of a longer one, named once in a frame, each message could become a frame of its own.
const SHARED: usize = 256;
/// Bytes of a message's length.
const LENGTH: usize = 4;

const ID: u8 = 1;
const REPLY_TO: u8 = 1 << 1;
const SYMBOLS: u8 = 1 << 2;
const META: u8 = 1 << 3;
const META_SYMBOLS: u8 = 1 << 4;
const FROM: u8 = 1 << 5;
const TO: u8 = 1 << 6;
/// Whence, whither and what about are those of the message before.
const SAME: u8 = 1 << 7;

const CUT_OFF: Malformed = Malformed(&"a message in a frame that ends too soon");
const UNNAMED: Malformed = Malformed(&"an endpoint that the frame does not name");
const NONE_BEFORE: Malformed = Malformed(&"a message in a frame refers to one before it that cannot be referred to");

/// The endpoints of a frame. Four have place without an allocation: net and machine of a sender and a receiver.
pub(super) type Endpoints = SmallVec<[Endpoint; 4]>;

/// Messages as they travel together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub(super) endpoints: Endpoints,
    /// The messages, behind a gap.
    bytes: Vec<u8>,
    gap: usize,
    /// The messages, once they are on their way in one piece with a header.
    sent: Option<Bytes>,
    /// As many bytes as it will probably take.
    expected: usize,
    count: usize,
    last: Option<Last>,
}

/// The message before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Last {
    head: Arc<Head>,
    id: i64,
    reply_to: i64,
}

/// Messages as they came: slices of their frame, read one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bodies {
    endpoints: Endpoints,
    bytes: Bytes,
    count: usize,
}

/// A message to be laid out; `meta` is absent where it is the usual empty struct.
pub(crate) struct Parts<'a> {
    pub(crate) head: &'a Arc<Head>,
    pub(crate) id: Option<i64>,
    pub(crate) reply_to: Option<i64>,
    pub(crate) contents: Lent<'a>,
    pub(crate) meta: Option<&'a Encoded>,
}

impl Block {
    /// How many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the messages.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes().len()
    }

    /// The messages.
    pub(super) fn bytes(&self) -> &[u8] {
        self.sent.as_deref().unwrap_or_else(|| self.bytes.get(self.gap..).unwrap_or_default())
    }

    /// Whether messages can be added: they have not been sent in one piece with a header.
    pub(crate) fn is_open(&self) -> bool {
        self.sent.is_none()
    }

    /// An empty one, with up to so many bytes of its memory.
    pub(crate) fn emptied(mut self, keep: usize) -> Self {
        self.endpoints.clear();
        self.bytes.clear();
        self.bytes.shrink_to(keep);
        Self { endpoints: self.endpoints, bytes: self.bytes, ..Self::default() }
    }

    /// One that will probably take so many bytes.
    pub(crate) fn expecting(self, expected: usize) -> Self {
        Self { expected, ..self }
    }

    /// The messages behind a header, none of them copied; none if they are few, or have been sent so before.
    pub(super) fn behind(&mut self, header: &[u8]) -> Option<Bytes> {
        let start = self.gap.checked_sub(header.len()).filter(|_| self.gap > 0 && self.sent.is_none())?;
        self.bytes.get_mut(start..self.gap)?.copy_from_slice(header);
        let whole = Bytes::from(std::mem::take(&mut self.bytes));
        self.sent = Some(whole.slice(self.gap..));
        Some(whole.slice(start..))
    }

    /// Has room for so many bytes more, with a gap if they are not few any more.
    fn reserve(&mut self, more: usize) {
        let size = self.bytes.len() + more;
        if self.gap > 0 || size <= SHORT {
            return self.bytes.reserve(more);
        }
        let mut roomy = Vec::with_capacity(GAP + size.max(self.expected));
        roomy.resize(GAP, 0);
        roomy.append(&mut self.bytes);
        (self.bytes, self.gap) = (roomy, GAP);
    }

    /// Whether so many further endpoints can be named.
    #[must_use]
    pub fn has_names_for(&self, more: usize) -> bool {
        self.endpoints.len() + more <= ENDPOINTS
    }

    /// Adds a message. Contents and meta go as they are; where it comes from is named with `net` if it names none itself.
    pub fn push(&mut self, message: &Envelope, net: Option<&Endpoint>) {
        let Envelope { from, to, subject, id, reply_to, contents, meta } = message;
        let meta = Some(meta).filter(|meta| **meta != Encoded::empty_struct());
        let head = Head { to: to.clone(), from: from.clone(), subject: subject.clone(), hops: 0 };
        let same = self.last.as_ref().map(|last| &last.head).filter(|last| ***last == head).cloned();
        let head = &same.unwrap_or_else(|| Arc::new(head));
        self.add(Parts { head, id: *id, reply_to: *reply_to, contents: contents.lend(), meta }, net);
    }

    pub(crate) fn add(&mut self, message: Parts<'_>, net: Option<&Endpoint>) {
        let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
        let Head { to, from, subject, hops } = &**message.head;
        let same = self.last.take().filter(|last| Arc::ptr_eq(&last.head, message.head) && subject.len() <= SHARED);
        let flags = flag(message.id.is_some(), ID)
            | flag(message.reply_to.is_some(), REPLY_TO)
            | flag(!message.contents.symbols.is_empty(), SYMBOLS)
            | flag(message.meta.is_some(), META)
            | flag(message.meta.is_some_and(|meta| meta.symbols.is_some()), META_SYMBOLS)
            | flag(from.connection.is_some(), FROM)
            | flag(to.connection.is_some(), TO)
            | flag(same.is_some(), SAME);
        let meta = message.meta.map_or(0, Encoded::wire_len);
        self.reserve(LENGTH + 48 + subject.len() + message.contents.wire_len() + meta);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; LENGTH]);
        self.bytes.push(flags);
        if same.is_none() {
            self.addr(from.net.as_ref().or(net), from.machine.as_ref(), from.connection);
            self.addr(to.net.as_ref(), to.machine.as_ref(), to.connection);
            put_text(subject.as_bytes(), &mut self.bytes);
            put_number(u64::from(*hops), &mut self.bytes);
        }
        let before = same.as_ref().map_or((0, 0), |last| (last.id, last.reply_to));
        for (id, before) in [(message.id, before.0), (message.reply_to, before.1)] {
            if let Some(id) = id {
                put_number(zigzag(id.wrapping_sub(before)), &mut self.bytes);
            }
        }
        if !message.contents.symbols.is_empty() {
            put_text(message.contents.symbols, &mut self.bytes);
        }
        if let Some(meta) = message.meta {
            put_text(&meta.bytes, &mut self.bytes);
        }
        if let Some(symbols) = message.meta.and_then(|meta| meta.symbols.as_ref()) {
            put_text(symbols, &mut self.bytes);
        }
        self.bytes.extend_from_slice(message.contents.bytes);
        let length = u32::try_from(self.bytes.len() - at - LENGTH).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(at..at + LENGTH) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        self.count += 1;
        let head = same.map_or_else(|| message.head.clone(), |last| last.head);
        self.last = Some(Last { head, id: message.id.unwrap_or(0), reply_to: message.reply_to.unwrap_or(0) });
    }

    fn addr(&mut self, net: Option<&Endpoint>, machine: Option<&Endpoint>, connection: Option<u64>) {
        for endpoint in [net, machine] {
            let place = endpoint.map_or(0, |endpoint| self.place(endpoint));
            put_number(place as u64, &mut self.bytes);
        }
        if let Some(connection) = connection {
            put_number(connection, &mut self.bytes);
        }
    }

    /// Where an endpoint is in the table, from 1 on.
    fn place(&mut self, endpoint: &Endpoint) -> usize {
        let known = self.endpoints.iter().position(|known| known == endpoint);
        1 + known.unwrap_or_else(|| {
            self.endpoints.push(endpoint.clone());
            self.endpoints.len() - 1
        })
    }
}

impl Bodies {
    /// The messages in `bytes`, not looked into, if there are `said`.
    pub(super) fn new(endpoints: Endpoints, bytes: Bytes, said: usize) -> Result<Self, Malformed> {
        if endpoints.len() > ENDPOINTS {
            return Err(Malformed(&"more endpoints than a router knows"));
        }
        let (mut count, mut rest) = (0, &bytes[..]);
        while !rest.is_empty() {
            (_, rest) = split(rest)?;
            count += 1;
        }
        if count != said {
            return Err(Malformed(&"more or fewer messages in a frame than it says"));
        }
        Ok(Self { endpoints, bytes, count })
    }

    /// How many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the messages.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Reads them one by one: each that is refused costs itself only.
    pub fn iter(&self) -> impl Iterator<Item = Result<Envelope, Refused>> + '_ {
        let mut recent = None;
        let letters: Vec<_> = self.clone().letters(&mut recent).collect();
        letters.into_iter().map(|read| read.map(Envelope::from))
    }

    /// The same; `recent` is an outside that some are likely to have, and share then: the last one that was read.
    pub(crate) fn letters(self, recent: &mut Option<Arc<Head>>) -> impl Iterator<Item = Result<Letter, Refused>> {
        let Self { endpoints, mut bytes, .. } = self;
        let (mut at, mut last) = (0, None);
        std::iter::from_fn(move || {
            let (body, after) = split(bytes.get(at..)?).ok()?;
            let (end, is_last) = (bytes.len() - after.len(), after.is_empty());
            let mut cursor = Cursor { packed: Packed(body), endpoints: &endpoints, bytes: &bytes };
            let read = cursor.message(&mut last, recent);
            let start = end - cursor.packed.0.len();
            at = end;
            // The last one has the frame for itself: of the only one, as most are, no byte is counted or copied.
            let contents = if is_last { std::mem::take(&mut bytes) } else { bytes.slice(..end) };
            Some(read.map_err(|malformed| Fault::malformed(start, malformed).refused_in_frame()).and_then(
                |mut letter| {
                    letter.contents.bytes = contents;
                    letter.contents.bytes.advance(start);
                    checked(letter)
                },
            ))
        })
    }
}

fn checked(letter: Letter) -> Result<Letter, Refused> {
    check(&letter.contents, Profile::Rust, "contents")?;
    if let Some(meta) = &letter.meta {
        check(meta, Profile::Rust, "meta")?;
        if !meta.is_null() && meta.type_name() != "struct" {
            let (what, reason) = (meta.type_name(), "meta is a struct or null".into());
            return Err(Refused { kind: RefusedKind::Odd, what, path: "meta".into(), reason });
        }
    }
    Ok(letter)
}

/// The first message, and what comes after it.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>().ok_or(CUT_OFF)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| CUT_OFF)?;
    rest.split_at_checked(length).ok_or(CUT_OFF)
}

struct Cursor<'a> {
    packed: Packed<'a>,
    endpoints: &'a [Endpoint],
    bytes: &'a Bytes,
}

impl Cursor<'_> {
    /// All but the bytes of its contents, which are what is left.
    fn message(&mut self, last: &mut Option<Last>, recent: &mut Option<Arc<Head>>) -> Result<Letter, Malformed> {
        let flags = self.packed.byte()?;
        let has = |flag: u8| flags & flag != 0;
        let before = last.take();
        let (head, before) = if has(SAME) {
            let Last { head, id, reply_to } =
                before.filter(|last| last.head.subject.len() <= SHARED).ok_or(NONE_BEFORE)?;
            (head, (id, reply_to))
        } else {
            let head = self.head(has(FROM), has(TO))?;
            let known = recent.take().filter(|recent| **recent == head);
            (recent.insert(known.unwrap_or_else(|| Arc::new(head))).clone(), (0, 0))
        };
        let id = if has(ID) { Some(self.id()?.wrapping_add(before.0)) } else { None };
        let reply_to = if has(REPLY_TO) { Some(self.id()?.wrapping_add(before.1)) } else { None };
        *last = Some(Last { head: head.clone(), id: id.unwrap_or(0), reply_to: reply_to.unwrap_or(0) });
        let symbols = if has(SYMBOLS) { Some(self.bytes()?) } else { None };
        let meta = if has(META) { Some(self.bytes()?) } else { None };
        let meta_symbols = if has(META_SYMBOLS) { Some(self.bytes()?) } else { None };
        let contents = Encoded { bytes: Bytes::new(), symbols };
        let meta = meta.map(|bytes| Box::new(Encoded { bytes, symbols: meta_symbols }));
        Ok(Letter { head, id, reply_to, contents, meta })
    }

    fn head(&mut self, has_from: bool, has_to: bool) -> Result<Head, Malformed> {
        let (from, to) = (self.addr(has_from)?, self.addr(has_to)?);
        let subject =
            std::str::from_utf8(self.packed.text()?).map_err(|_| Malformed(&"a subject that is not UTF-8"))?;
        let subject = SmolStr::new(subject);
        let hops = u32::try_from(self.packed.number()?).map_err(|_| Malformed(&"more hops than there are"))?;
        Ok(Head { to, from, subject, hops })
    }

    fn addr(&mut self, has_connection: bool) -> Result<Addr, Malformed> {
        let (net, machine) = (self.endpoint()?, self.endpoint()?);
        let connection = if has_connection { Some(self.packed.number()?) } else { None };
        Ok(Addr { net, machine, connection })
    }

    fn endpoint(&mut self) -> Result<Option<Endpoint>, Malformed> {
        match usize::try_from(self.packed.number()?).map_err(|_| UNNAMED)? {
            0 => Ok(None),
            place => Ok(Some(self.endpoints.get(place - 1).ok_or(UNNAMED)?.clone())),
        }
    }

    fn id(&mut self) -> Result<i64, Malformed> {
        let number = self.packed.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn bytes(&mut self) -> Result<Bytes, Malformed> {
        self.packed.text().map(|text| self.bytes.slice_ref(text))
    }
}

fn zigzag(id: i64) -> u64 {
    ((id << 1) ^ (id >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;
    use crate::wire::encode;

    fn messages() -> Vec<Envelope> {
        let here = |number| Addr { net: None, machine: Some("ipc:///tmp/router_1".into()), connection: number };
        let plain = Envelope {
            from: here(Some(3)),
            to: Addr::at("ipc:///tmp/router_2".into(), u64::MAX),
            subject: "EVENT".into(),
            id: Some(i64::MIN),
            reply_to: None,
            contents: encode(&"x".repeat(300)).unwrap(),
            meta: Encoded::empty_struct(),
        };
        let named = Envelope {
            from: Addr::default(),
            to: here(None),
            subject: "a subject of more than a few bytes, which has a place of its own".into(),
            id: None,
            reply_to: Some(i64::MAX),
            contents: encode(&Value::from([("names", Value::from([("x", 1)]))])).unwrap(),
            meta: encode(&Value::from([("hops", 2)])).unwrap(),
        };
        let nothing = Envelope { meta: Encoded::null(), contents: Encoded::null(), ..plain.clone() };
        let same = Envelope { id: Some(i64::MAX), reply_to: Some(-1), ..plain.clone() };
        vec![plain, named, nothing, same.clone(), same]
    }

    fn sent(block: &Block) -> Bodies {
        Bodies::new(block.endpoints.clone(), Bytes::copy_from_slice(block.bytes()), block.len()).unwrap()
    }

    #[test]
    fn messages_are_read_as_they_were_written_and_share_their_endpoints() {
        let mut block = Block::default();
        for message in messages() {
            block.push(&message, None);
        }
        assert_eq!((block.len(), block.endpoints.len()), (5, 2));
        let read: Vec<_> = sent(&block).iter().map(Result::unwrap).collect();
        assert_eq!(read, messages());
        let mut block = Block::default();
        block.push(&messages()[1], Some(&"tcp://127.0.0.1:1".into()));
        let from = sent(&block).iter().next().unwrap().unwrap().from;
        assert_eq!(from.net, Some("tcp://127.0.0.1:1".into()));
    }

    #[test]
    fn a_long_subject_is_not_referred_to() {
        let mut long = messages().remove(0);
        long.subject = "x".repeat(SHARED + 1).into();
        let mut block = Block::default();
        block.push(&long, None);
        let one = block.size();
        block.push(&long, None);
        assert_eq!(block.size(), 2 * one);
        assert!(sent(&block).iter().all(|read| read.unwrap() == long));
        // One that says it refers to it all the same is refused.
        let mut bytes = block.bytes().to_vec();
        bytes[one + LENGTH] |= SAME;
        let bodies = Bodies::new(block.endpoints.clone(), bytes.into(), 2).unwrap();
        assert!(bodies.iter().map(|read| read.is_ok()).eq([true, false]));
    }

    #[test]
    fn a_message_that_cannot_be_read_costs_itself_only() {
        let [first, second, third, ..]: [Envelope; 5] = messages().try_into().unwrap();
        let bad = Encoded { bytes: Bytes::from_static(b"\x8F what is this?"), symbols: None };
        let mut block = Block::default();
        for message in [&first, &Envelope { contents: bad.clone(), ..second.clone() }, &third] {
            block.push(message, None);
        }
        block.push(&Envelope { meta: bad, ..second.clone() }, None);
        block.push(&Envelope { meta: encode(&1).unwrap(), ..second }, None);
        let read: Vec<_> = sent(&block).iter().map(Result::ok).collect();
        assert_eq!(read, [Some(first), None, Some(third), None, None]);
    }

    #[test]
    fn damaged_bytes_are_refused_and_harm_nobody() {
        let mut block = Block::default();
        for message in messages() {
            block.push(&message, None);
        }
        for at in 0..block.size() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut bent = block.bytes().to_vec();
                bent[at] ^= flip;
                if let Ok(bodies) = Bodies::new(block.endpoints.clone(), bent.into(), block.count) {
                    assert!(bodies.iter().count() <= bodies.len());
                }
            }
            let cut = block.bytes()[..at].to_vec();
            assert!(Bodies::new(block.endpoints.clone(), cut.into(), block.len()).is_err());
        }
    }
}
