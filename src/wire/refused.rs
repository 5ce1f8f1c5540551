//! Why bytes are refused, told as what, where and why: `blob at contents.rows[3].data: Python reads no blobs`.
//!
//! The gate notes a [`Fault`] as an offset and a fixed text, which costs nothing while all is well. The path is found afterwards
//! by going down to the offset once more.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::ion::{Kind, Malformed, Reader};
use super::symbols::Symbols;

/// The longest path that is told. Unit: bytes; beyond it the path ends in `…`. Default and only value: 200, a line of a log.
const MAX_PATH: usize = 200;

/// The longest field name in a path, in characters. Default and only value: 40, so that a few levels fit a line.
const MAX_NAME: usize = 40;

/// Bytes that are not let in, or a value that may not go out. Nothing of it was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at {path}: {reason}")]
pub struct Refused {
    /// What sort of refusal, and so what to do next.
    pub kind: RefusedKind,
    /// What was found: `blob`, `list`, `frame`.
    pub what: &'static str,
    /// Where: `contents.rows[3].data`, or `byte 17` of the frame where no field was reached.
    pub path: String,
    /// Why it is refused.
    pub reason: Cow<'static, str>,
}

/// What sort of refusal a [`Refused`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedKind {
    /// Not Ion 1.0 binary, or not the twelve values of a message: the sender is broken, count it.
    Malformed,
    /// The schema is not `"1"`: this is no message; see whether it is another sort of frame.
    Schema,
    /// Valid Ion that the profile's reader does not take: send it in another form, or only to who can read it.
    Unsupported,
    /// More of something than the profile allows: send it in smaller or flatter parts.
    Limit,
    /// A valid field of the envelope that cannot be used, such as a subject that is no string: count it.
    Odd,
}

/// A refusal as the gate notes it: where, and a fixed text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) why: Why,
}

/// What a [`Fault`] says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Why {
    Malformed(Malformed),
    Other(&'static Reason),
    /// A field of the envelope is of this type, and should be something else.
    Odd(Kind, &'static &'static str),
}

/// Kind, what and why of a refusal.
#[derive(Debug)]
pub(crate) struct Reason(pub(crate) RefusedKind, pub(crate) &'static str, pub(crate) &'static str);

impl Fault {
    pub(crate) fn malformed(at: usize, reason: Malformed) -> Self {
        let why = Why::Malformed(reason);
        Self { at, why }
    }

    pub(crate) fn other(at: usize, reason: &'static Reason) -> Self {
        let why = Why::Other(reason);
        Self { at, why }
    }

    /// The refusal, with the path that the caller found.
    pub(crate) fn refused(self, path: String) -> Refused {
        let (kind, what, reason) = match self.why {
            Why::Malformed(reason) => (RefusedKind::Malformed, "malformed Ion", *reason.0),
            Why::Other(&Reason(kind, what, reason)) => (kind, what, reason),
            Why::Odd(found, reason) => (RefusedKind::Odd, found.name(), *reason),
        };
        Refused { kind, what, path, reason: Cow::Borrowed(reason) }
    }

    /// The refusal of something that is in no field.
    pub(crate) fn refused_in_frame(self) -> Refused {
        self.refused(format!("byte {}", self.at))
    }
}

/// The path from the value that starts at `start` of `bytes` down to the offset `fault`, which starts with `root`.
///
/// What comes before the fault was found well-formed; at the first thing that is not, the path ends.
pub(crate) fn path_to(fault: usize, root: &str, bytes: &[u8], start: usize, tables: &[u8]) -> String {
    let symbols = Symbols::read(tables).unwrap_or_default();
    let mut path = String::from(root);
    let mut reader = Reader::new(bytes);
    if reader.take(start).is_err() {
        return path;
    }
    while let Some(kind) = enter(&mut reader) {
        if reader.at() > fault || !step(&mut reader, kind, fault, &symbols, &mut path) {
            break;
        }
        if path.len() > MAX_PATH {
            shorten(&mut path);
            break;
        }
    }
    path
}

/// Goes into the container at the reader, through its annotations; none if there is no container.
fn enter(reader: &mut Reader<'_>) -> Option<Kind> {
    let mut header = reader.header().ok()?;
    if header.kind == Kind::Annotated {
        reader.annotations(header.len).ok()?;
        header = reader.header().ok()?;
    }
    reader.set_end(reader.at() + header.len);
    (header.kind.is_container() && !header.is_null()).then_some(header.kind)
}

/// Goes to the child that holds the offset `fault`, and adds it to the path. False if there is none.
fn step(reader: &mut Reader<'_>, kind: Kind, fault: usize, symbols: &Symbols<'_>, path: &mut String) -> bool {
    let mut index = 0;
    while !reader.is_at_end() {
        let name = match kind {
            Kind::Struct => reader.var_uint().ok(),
            _ => None,
        };
        let mut after = *reader;
        let passed = pass(&mut after);
        if passed.is_none() || after.at() > fault {
            add_segment(name, index, symbols, path);
            return true;
        }
        index += usize::from(passed == Some(true));
        *reader = after;
    }
    false
}

/// Passes one value or piece of padding, and tells whether it was a value; none if it is malformed.
fn pass(reader: &mut Reader<'_>) -> Option<bool> {
    let header = reader.header().ok()?;
    reader.take(header.len).ok()?;
    Some(header.kind != Kind::Nop)
}

fn add_segment(name: Option<usize>, index: usize, symbols: &Symbols<'_>, path: &mut String) {
    // Writing to a `String` cannot fail.
    let _ = match name.map(|id| (id, symbols.text(id).flatten())) {
        Some((_, Some(text))) => write!(path, ".{}", short_name(text)),
        Some((id, None)) => write!(path, ".${id}"),
        None => write!(path, "[{index}]"),
    };
}

/// A field name as a path shows it: not longer than a line can take.
pub(crate) fn short_name(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_NAME) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

/// Cuts a path that is longer than a line can take.
pub(crate) fn shorten(path: &mut String) {
    if path.len() > MAX_PATH {
        let end = (0..=MAX_PATH).rev().find(|&at| path.is_char_boundary(at));
        path.truncate(end.unwrap_or(0));
        path.push('…');
    }
}
