//! Messages and contents to Ion binary and back; nothing outside this module names `ion_rs`'s reader or writer.
//!
//! Bytes from outside pass the gate before any decoder sees them: [`read_message`], [`read_positional`] and [`check`] walk
//! them once, without recursion, and refuse by name what the chosen [`Profile`] cannot read. A message's contents stay
//! encoded, with the symbol table they need, until somebody asks for them: routing and forwarding never decode them.
//!
//! [`encode`] and [`decode`] turn any serde type into an [`Encoded`] and back, in `serde_json`'s form (enums as strings or
//! structs of one field), so that what a Rust program sends is what a Python program expects. [`encode_element`] and
//! [`decode_element`] do the same for Ion elements, which can hold what serde has no name for: decimals, timestamps, symbols.
//!
//! # Not promised
//!
//! Bytes are not canonical: two encodings of equal values may differ. Annotations and the difference between lists and
//! s-expressions are kept in an [`Encoded`], but serde types do not see them.

mod block;
mod de;
mod element;
mod envelope;
mod frame;
mod gate;
mod ion;
mod key;
mod meta;
mod packed;
mod refused;
mod scalars;
mod ser;
mod symbols;
mod top;

use std::fmt;

use bytes::Bytes;

pub(crate) use block::Parts;
pub use block::{Block, Bodies};
pub use de::{DecodeError, decode};
pub use element::{MAX_TEXT, TextError, decode_element, element_to_text, encode_element, text_to_element};
#[doc(hidden)]
pub use envelope::Head;
pub(crate) use envelope::Letter;
pub use envelope::{Envelope, Positional, read_message, read_positional, write_message};
pub use frame::{Failed, FrameKind, Header, How, Mood, Receipt, Receipts, kind, read_frame, write_frame};
pub(crate) use frame::{launch_frame, open_frame};
pub use gate::check;
pub use ion_rs::Element;
pub(crate) use meta::{count_hop, mark, take_mark, with_hops};
pub use refused::{Refused, RefusedKind};
pub(crate) use ser::lend;
pub use ser::{EncodeError, encode};

/// The schema of a frame that holds one message; frames of another schema are something else.
pub const MESSAGE_SCHEMA: &str = "1";

/// How many containers a list, struct or s-expression may be in, within one value. Default and only value: 200.
///
/// Readers that recurse need about a kilobyte of stack a level: 200 levels fit any thread, and Python reads 200 but not 500.
pub const MAX_DEPTH: usize = 200;

/// The same for a value that Python shall read. Default and only value: 150.
///
/// Python's own limit is that of its stack at the moment of reading; 150 passed in every place it was tried.
pub const MAX_DEPTH_COMPAT: usize = 150;

/// Symbols that the tables in force may define together. Default and only value: 65,536.
///
/// A symbol takes a byte of the frame but about a hundred of an Ion reader's memory. Structs of that many *different* field
/// names are data keyed by name, which reads better as a list of pairs.
pub const MAX_SYMBOLS: usize = 65_536;

/// Decimal digits of an int that Python shall read. Default and only value: 4,300, Python's own limit.
pub const MAX_DIGITS_COMPAT: usize = 4_300;

/// Whose reader a value must suit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The Python package's: no symbols as values, no blobs, clobs, decimals or timestamps, no field name without text, ints
    /// of at most [`MAX_DIGITS_COMPAT`] digits, [`MAX_DEPTH_COMPAT`] levels.
    Compat,
    /// All of Ion 1.0, [`MAX_DEPTH`] levels.
    Rust,
}

/// Exactly one Ion value, still encoded, with the symbol tables it may need. Cheap to clone.
///
/// Made by this crate's encoders and readers it is well-formed. One made from parts by hand need not be: [`check`] tells, and
/// every decoder answers bad bytes with an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The value, its annotations included, without version marker.
    pub bytes: Bytes,
    /// The local symbol tables in force, as encoded, one after the other; absent if the value uses no local symbol.
    pub symbols: Option<Bytes>,
}

/// [`Encoded`] that somebody else keeps; no symbols are none.
#[derive(Clone, Copy)]
pub(crate) struct Lent<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) symbols: &'a [u8],
}

impl Lent<'_> {
    pub(crate) fn wire_len(&self) -> usize {
        self.bytes.len() + self.symbols.len()
    }
}

impl From<Lent<'_>> for Encoded {
    fn from(Lent { bytes, symbols }: Lent<'_>) -> Self {
        let symbols = (!symbols.is_empty()).then(|| Bytes::copy_from_slice(symbols));
        Self { bytes: Bytes::copy_from_slice(bytes), symbols }
    }
}

impl Encoded {
    pub(crate) fn lend(&self) -> Lent<'_> {
        Lent { bytes: &self.bytes, symbols: self.symbol_bytes() }
    }

    /// The untyped null.
    #[must_use]
    pub const fn null() -> Self {
        Self::plain(&[ion::NULL])
    }

    /// A struct without fields.
    #[must_use]
    pub const fn empty_struct() -> Self {
        Self::plain(&[ion::EMPTY_STRUCT])
    }

    const fn plain(bytes: &'static [u8]) -> Self {
        Self { bytes: Bytes::from_static(bytes), symbols: None }
    }

    /// Whether the value is a null, typed or not.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.root().is_some_and(|value| value.header.is_null())
    }

    /// The Ion type's name, for people: `struct`, `int`, `blob`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.root().map_or("nothing", |value| value.header.name())
    }

    /// The bytes it takes on the wire, its symbol tables included.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.bytes.len() + self.symbols.as_ref().map_or(0, Bytes::len)
    }

    fn root(&self) -> Option<ion::Value<'_>> {
        ion::Reader::new(&self.bytes).value().ok().flatten()
    }

    fn symbol_bytes(&self) -> &[u8] {
        self.symbols.as_deref().unwrap_or_default()
    }
}

/// Lengths and type only: contents belong to the user, not to a log.
impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, symbols) = (self.bytes.len(), self.symbol_bytes().len());
        write!(f, "Encoded({}, {bytes} bytes, {symbols} of symbols)", self.type_name())
    }
}
