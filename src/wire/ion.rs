//! Ion 1.0 binary as far as the wire needs it: types, headers, variable-length numbers, and how to write each kind of value.
//!
//! Reading is by [`Reader`], a cursor that cannot leave its bytes: whatever they hold, the answer is a value or [`Malformed`].
//! Writing appends to a `Vec<u8>`; a container's length is put in when it is closed.

/// Starts every Ion 1.0 binary stream; between values it resets the symbol table.
pub(crate) const MARKER: [u8; 4] = [0xE0, 0x01, 0x00, 0xEA];

/// The encoded untyped null.
pub(crate) const NULL: u8 = 0x0F;

/// The encoded struct without fields.
pub(crate) const EMPTY_STRUCT: u8 = 0xD0;

/// What ids 1 to 9 mean in every symbol table.
pub(crate) const SYSTEM_SYMBOLS: [&str; 9] = [
    "$ion",
    "$ion_1_0",
    "$ion_symbol_table",
    "name",
    "version",
    "imports",
    "symbols",
    "max_id",
    "$ion_shared_symbol_table",
];

/// The id of `$ion_symbol_table`: what a local symbol table is annotated with, and what one that appends imports.
pub(crate) const SYMBOL_TABLE: usize = 3;

/// The ids of the other system symbols that field names may be; a symbol table's own fields are the third and the fourth.
pub(crate) const NAME: usize = 4;
pub(crate) const VERSION: usize = 5;
pub(crate) const IMPORTS: usize = 6;
pub(crate) const SYMBOLS: usize = 7;
pub(crate) const MAX_ID: usize = 8;

/// The low half of a header that says "the length follows".
const LENGTH_FOLLOWS: u8 = 14;

/// The most bytes of a `VarUInt`: 63 bits, more than any length; also what other readers take.
const MAX_VAR_UINT: usize = 9;

/// Why bytes are not Ion 1.0 binary. A thin pointer, so that results which hold it stay in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static &'static str);

pub(crate) const TRUNCATED: Malformed = Malformed(&"it ends before its length");

/// The types of Ion, as the high half of a header tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    /// Padding, no value.
    Nop,
    Bool,
    /// An int of zero or more.
    Positive,
    /// An int below zero.
    Negative,
    Float,
    Decimal,
    Timestamp,
    Symbol,
    String,
    Clob,
    Blob,
    List,
    Sexp,
    Struct,
    /// A wrapper of annotations around a value.
    Annotated,
}

/// A value's first byte and length, checked against each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// The low half of the first byte: 15 for a null of a type.
    pub(crate) low: u8,
    /// How many bytes follow the header.
    pub(crate) len: usize,
}

/// A value with its annotations taken off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a> {
    pub(crate) header: Header,
    pub(crate) body: &'a [u8],
    /// The ids of the annotations, encoded; empty if there are none.
    pub(crate) annotations: &'a [u8],
}

impl Kind {
    #[inline]
    fn of(byte: u8) -> Result<Self, Malformed> {
        Ok(match byte >> 4 {
            0 if byte == NULL => Self::Null,
            0 => Self::Nop,
            1 => Self::Bool,
            2 => Self::Positive,
            3 => Self::Negative,
            4 => Self::Float,
            5 => Self::Decimal,
            6 => Self::Timestamp,
            7 => Self::Symbol,
            8 => Self::String,
            9 => Self::Clob,
            10 => Self::Blob,
            11 => Self::List,
            12 => Self::Sexp,
            13 => Self::Struct,
            14 => Self::Annotated,
            _ => return Err(Malformed(&"type code 15 is not in use")),
        })
    }

    /// The high half of a header of a value of this type.
    #[inline]
    fn code(self) -> u8 {
        match self {
            Self::Null | Self::Nop => 0,
            Self::Bool => 1,
            Self::Positive => 2,
            Self::Negative => 3,
            Self::Float => 4,
            Self::Decimal => 5,
            Self::Timestamp => 6,
            Self::Symbol => 7,
            Self::String => 8,
            Self::Clob => 9,
            Self::Blob => 10,
            Self::List => 11,
            Self::Sexp => 12,
            Self::Struct => 13,
            Self::Annotated => 14,
        }
    }

    /// The type's name, for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Nop => "padding",
            Self::Bool => "bool",
            Self::Positive | Self::Negative => "int",
            Self::Float => "float",
            Self::Decimal => "decimal",
            Self::Timestamp => "timestamp",
            Self::Symbol => "symbol",
            Self::String => "string",
            Self::Clob => "clob",
            Self::Blob => "blob",
            Self::List => "list",
            Self::Sexp => "s-expression",
            Self::Struct => "struct",
            Self::Annotated => "annotation",
        }
    }

    #[inline]
    pub(crate) fn is_container(self) -> bool {
        matches!(self, Self::List | Self::Sexp | Self::Struct)
    }
}

impl Header {
    #[inline]
    pub(crate) fn is_null(self) -> bool {
        self.low == 15
    }

    pub(crate) fn name(self) -> &'static str {
        if self.is_null() { "null" } else { self.kind.name() }
    }
}

impl Value<'_> {
    /// Whether this is a local symbol table: a struct whose first annotation says so.
    #[inline]
    pub(crate) fn is_symbol_table(&self) -> bool {
        self.header.kind == Kind::Struct
            && !self.annotations.is_empty()
            && Reader::new(self.annotations).var_uint() == Ok(SYMBOL_TABLE)
    }

    pub(crate) fn is_null(&self) -> bool {
        self.header.is_null()
    }
}

/// A cursor over encoded bytes that never leaves them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, end: bytes.len() }
    }

    /// Where the next byte is, counted from the first one.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Where the reader stops.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Goes back over the last `len` bytes: into a value that was passed.
    pub(crate) fn back(&mut self, len: usize) {
        self.at = self.at.saturating_sub(len);
    }

    /// Lets the reader stop at `end`: a container's end when it is entered, its parent's when it is left.
    pub(crate) fn set_end(&mut self, end: usize) {
        self.end = end.min(self.bytes.len());
    }

    #[inline]
    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    /// The next byte, without passing it.
    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        if self.at < self.end { self.bytes.get(self.at).copied() } else { None }
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = self.peek().ok_or(TRUNCATED)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next `len` bytes.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        if len > self.end.saturating_sub(self.at) {
            return Err(TRUNCATED);
        }
        let taken = self.bytes.get(self.at..self.at + len).ok_or(TRUNCATED)?;
        self.at += len;
        Ok(taken)
    }

    /// The body of the next value if it is of this type, without annotations, padding before it, or null: what this library writes. Else nothing is passed.
    #[inline]
    pub(crate) fn plain(&mut self, kind: Kind) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let header = ahead.byte().ok()?;
        let len = match header & 0x0F {
            15 => return None,
            LENGTH_FOLLOWS => ahead.var_uint().ok()?,
            low => usize::from(low),
        };
        let body = ahead.take(len).ok()?;
        if header >> 4 != kind.code() {
            return None;
        }
        self.at = ahead.at;
        Some(body)
    }

    /// The next value if it is an int of zero or more and at most 64 bits, and [plain](Self::plain).
    #[inline]
    pub(crate) fn plain_uint(&mut self) -> Option<u64> {
        let (&header, body) = self.bytes.get(self.at..self.end)?.split_first()?;
        let len = usize::from(header & 0x0F);
        if header >> 4 != Kind::Positive.code() || len > 8 {
            return None;
        }
        let number = match body.first_chunk::<8>() {
            _ if len == 0 => 0,
            Some(eight) => u64::from_be_bytes(*eight) >> (64 - 8 * len),
            None => body.get(..len)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)),
        };
        self.at += 1 + len;
        Some(number)
    }

    /// A number in groups of seven bits, the last one marked: lengths, field names, annotations.
    #[inline]
    pub(crate) fn var_uint(&mut self) -> Result<usize, Malformed> {
        match self.peek() {
            Some(byte) if byte & 0x80 != 0 => {
                self.at += 1;
                Ok(usize::from(byte & 0x7F))
            }
            _ => self.long_var_uint(),
        }
    }

    fn long_var_uint(&mut self) -> Result<usize, Malformed> {
        let mut number = 0_u64;
        for _ in 0..MAX_VAR_UINT {
            let byte = self.byte()?;
            number = number << 7 | u64::from(byte & 0x7F);
            if byte & 0x80 != 0 {
                return usize::try_from(number).map_err(|_| TRUNCATED);
            }
        }
        Err(Malformed(&"a length or an id of more than nine bytes"))
    }

    /// The next header. Its `len` bytes are known to be there.
    #[inline]
    pub(crate) fn header(&mut self) -> Result<Header, Malformed> {
        let byte = self.byte()?;
        let kind = Kind::of(byte)?;
        let low = byte & 0x0F;
        let len = match (kind, low) {
            (Kind::Bool, 0 | 1 | 15) | (Kind::Null, _) => 0,
            (Kind::Bool, _) => return Err(Malformed(&"a bool is 0 or 1")),
            (Kind::Annotated, 0) => return Err(Malformed(&"a version marker inside a value")),
            (Kind::Annotated, 1 | 2 | 15) => {
                return Err(Malformed(&"annotations without a value"));
            }
            (_, 15) => 0,
            (Kind::Float, 0 | 4 | 8) => usize::from(low),
            (Kind::Float, _) => return Err(Malformed(&"a float has 0, 4 or 8 bytes")),
            (Kind::Struct, 1) => self.sorted_struct_length()?,
            (_, LENGTH_FOLLOWS) => self.var_uint()?,
            _ => usize::from(low),
        };
        if len > self.end - self.at {
            return Err(Malformed(&"it goes past the end of what holds it"));
        }
        Ok(Header { kind, low, len })
    }

    fn sorted_struct_length(&mut self) -> Result<usize, Malformed> {
        match self.var_uint()? {
            0 => Err(Malformed(&"a sorted struct without fields")),
            len => Ok(len),
        }
    }

    /// After the header of a wrapper of `len` bytes: the ids of its annotations. What follows is the value, up to the same end.
    pub(crate) fn annotations(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.saturating_add(len);
        let ids = self.var_uint()?;
        if ids == 0 || ids >= end.saturating_sub(self.at) {
            return Err(Malformed(&"annotations without a value"));
        }
        self.take(ids)
    }

    /// The next value, past padding, without its annotations; none at the end.
    #[inline]
    pub(crate) fn value(&mut self) -> Result<Option<Value<'a>>, Malformed> {
        while !self.is_at_end() {
            let header = self.header()?;
            match header.kind {
                Kind::Nop => {
                    self.take(header.len)?;
                }
                Kind::Annotated => return self.annotated(header.len).map(Some),
                _ => {
                    let body = self.take(header.len)?;
                    return Ok(Some(Value { header, body, annotations: &[] }));
                }
            }
        }
        Ok(None)
    }

    fn annotated(&mut self, len: usize) -> Result<Value<'a>, Malformed> {
        let end = self.at.saturating_add(len);
        let annotations = self.annotations(len)?;
        let header = self.header()?;
        let body = self.take(header.len)?;
        if matches!(header.kind, Kind::Nop | Kind::Annotated) || self.at != end {
            return Err(Malformed(&"annotations hold exactly one value"));
        }
        Ok(Value { header, body, annotations })
    }

    /// The next field of a struct, past padding: its name's id and its value; none at the end.
    #[inline]
    pub(crate) fn field(&mut self) -> Result<Option<(usize, Value<'a>)>, Malformed> {
        while !self.is_at_end() {
            let name = self.var_uint()?;
            if self.peek().is_none() {
                return Err(Malformed(&"a field name without a value"));
            }
            if self.skip_padding()? {
                continue;
            }
            return Ok(self.value()?.map(|value| (name, value)));
        }
        Ok(None)
    }

    /// Passes one piece of padding, and tells whether there was one.
    #[inline]
    pub(crate) fn skip_padding(&mut self) -> Result<bool, Malformed> {
        match self.peek() {
            Some(byte) if byte < NULL => {
                let header = self.header()?;
                self.take(header.len)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// The number that big-endian bytes spell, if it fits 128 bits; leading zeros are free.
pub(crate) fn magnitude(bytes: &[u8]) -> Option<u128> {
    let bytes = without_leading_zeros(bytes);
    if bytes.len() > 16 {
        return None;
    }
    Some(bytes.iter().fold(0, |number, &byte| number << 8 | u128::from(byte)))
}

pub(crate) fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// The id in a symbol's body; none if no table could hold it.
pub(crate) fn symbol_id(body: &[u8]) -> Option<usize> {
    magnitude(body).and_then(|id| usize::try_from(id).ok())
}

/// The number in a float's body.
pub(crate) fn float(body: &[u8]) -> Option<f64> {
    match body {
        [] => Some(0.0),
        &[a, b, c, d] => Some(f64::from(f32::from_be_bytes([a, b, c, d]))),
        _ => body.try_into().ok().map(f64::from_be_bytes),
    }
}

/// Writes a number in groups of seven bits.
pub(crate) fn write_var_uint(number: usize, out: &mut Vec<u8>) {
    let (bytes, len) = var_uint_bytes(number);
    out.extend(bytes.iter().skip(bytes.len() - len));
}

/// The groups at the end of ten bytes, and how many of them count.
fn var_uint_bytes(number: usize) -> ([u8; 10], usize) {
    let mut groups = [0; 10];
    let mut rest = number as u64;
    let mut len = 0;
    for group in groups.iter_mut().rev() {
        *group = (rest & 0x7F) as u8;
        rest >>= 7;
        len += 1;
        if rest == 0 {
            break;
        }
    }
    if let Some(last) = groups.last_mut() {
        *last |= 0x80;
    }
    (groups, len)
}

/// Writes the first byte and the length of a value of the type in `high`, whose low half is zero.
pub(crate) fn write_header(high: u8, len: usize, out: &mut Vec<u8>) {
    if len < usize::from(LENGTH_FOLLOWS) {
        out.push(high | len as u8);
    } else {
        out.push(high | LENGTH_FOLLOWS);
        write_var_uint(len, out);
    }
}

pub(crate) fn write_bool(value: bool, out: &mut Vec<u8>) {
    out.push(0x10 | u8::from(value));
}

/// Writes an int in as few bytes as it needs.
pub(crate) fn write_int(value: i64, out: &mut Vec<u8>) {
    write_magnitude(value < 0, value.unsigned_abs(), out);
}

pub(crate) fn write_uint(value: u64, out: &mut Vec<u8>) {
    write_magnitude(false, value, out);
}

fn write_magnitude(negative: bool, magnitude: u64, out: &mut Vec<u8>) {
    let len = 8 - magnitude.leading_zeros() as usize / 8;
    out.push(if negative { 0x30 } else { 0x20 } | len as u8);
    // Eight bytes are copied faster than however many there are.
    let end = out.len() + len;
    out.extend_from_slice(&magnitude.unbounded_shl(64 - 8 * len as u32).to_be_bytes());
    out.truncate(end);
}

/// Writes an int of up to 128 bits and a sign.
pub(crate) fn write_big_int(negative: bool, magnitude: u128, out: &mut Vec<u8>) {
    let len = 16 - magnitude.leading_zeros() as usize / 8;
    write_header(if negative { 0x30 } else { 0x20 }, len, out);
    out.extend(magnitude.to_be_bytes().iter().skip(16 - len));
}

/// Writes a float of 32 bits; zero without bytes, as readers expect it.
pub(crate) fn write_f32(value: f32, out: &mut Vec<u8>) {
    if value.to_bits() == 0 {
        out.push(0x40);
    } else {
        out.push(0x44);
        out.extend(value.to_be_bytes());
    }
}

/// Writes a float of 64 bits; zero without bytes, as readers expect it.
pub(crate) fn write_f64(value: f64, out: &mut Vec<u8>) {
    if value.to_bits() == 0 {
        out.push(0x40);
    } else {
        out.push(0x48);
        out.extend(value.to_be_bytes());
    }
}

pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    write_header(0x80, text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn write_blob(bytes: &[u8], out: &mut Vec<u8>) {
    write_header(0xA0, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// The type of a container that [`open`] starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Container {
    List = 0xB0,
    Struct = 0xD0,
    Annotated = 0xE0,
}

/// Starts a container; what is written from now on is in it, until [`close`] is called with the place this answers with.
pub(crate) fn open(container: Container, out: &mut Vec<u8>) -> usize {
    out.push(container as u8);
    out.len()
}

/// Ends a container by putting its length in front of it. A long one's bytes move up to make room.
pub(crate) fn close(start: usize, out: &mut Vec<u8>) {
    let len = out.len().saturating_sub(start);
    let follows = len >= usize::from(LENGTH_FOLLOWS);
    if let Some(header) = start.checked_sub(1).and_then(|at| out.get_mut(at)) {
        *header |= if follows { LENGTH_FOLLOWS } else { len as u8 };
    }
    if follows {
        insert_length(start, len, out);
    }
}

fn insert_length(start: usize, len: usize, out: &mut Vec<u8>) {
    let (groups, count) = var_uint_bytes(len);
    let end = out.len();
    out.extend_from_slice(&groups[..count]);
    out.copy_within(start..end, start + count);
    for (place, group) in out.iter_mut().skip(start).zip(&groups[groups.len() - count..]) {
        *place = *group;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_as_long_as_what_it_holds() {
        for len in [0, 1, 13, 14, 127, 128, 16_383, 16_384, 2_097_152] {
            let mut out = vec![7];
            let start = open(Container::List, &mut out);
            out.extend((0..len).map(|n| (n % 15) as u8 | 0x80));
            close(start, &mut out);
            let mut reader = Reader::new(&out[1..]);
            let header = reader.header().unwrap();
            assert_eq!((header.kind, header.len), (Kind::List, len));
            let body = reader.take(len).unwrap();
            assert!(body.iter().enumerate().all(|(n, &b)| b == (n % 15) as u8 | 0x80));
            assert!(reader.is_at_end());
        }
    }

    #[test]
    fn numbers_are_written_as_short_as_they_are() {
        let written = |value| {
            let mut out = vec![];
            write_int(value, &mut out);
            out
        };
        assert_eq!(written(0), [0x20]);
        assert_eq!(written(-1), [0x31, 1]);
        assert_eq!(written(256), [0x22, 1, 0]);
        assert_eq!(written(i64::MIN), [0x38, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        let mut big = vec![];
        write_big_int(true, u128::MAX, &mut big);
        assert_eq!(big.len(), 18);
        assert_eq!(magnitude(&big[2..]), Some(u128::MAX));
    }

    #[test]
    fn a_reader_never_leaves_its_bytes() {
        let refused = |bytes: &[u8]| *Reader::new(bytes).value().unwrap_err().0;
        assert_eq!(refused(&[0xB2, 0x20]), "it goes past the end of what holds it");
        assert_eq!(refused(&[0x8E]), "it ends before its length");
        assert_eq!(
            refused(&[0x8E, 0x7F, 0x7F, 0x7F, 0x7F, 0x7F, 0x7F, 0x7F, 0x7F, 0xFF]),
            "it goes past the end of what holds it"
        );
        assert_eq!(refused(&[0x8E, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]), "a length or an id of more than nine bytes");
        assert_eq!(refused(&[0xE4, 0x81, 0x8A, 0xE3, 0x81]), "it goes past the end of what holds it");
        assert_eq!(refused(&[0xE3, 0x81, 0x8A, 0x00]), "annotations hold exactly one value");
        assert_eq!(refused(&[0xF0]), "type code 15 is not in use");
    }
}
