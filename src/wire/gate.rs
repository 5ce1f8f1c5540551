//! The gate: one walk over bytes from outside that finds everything a decoder could trip over.
//!
//! The walk does not recurse, allocates nothing for values, and looks at each byte once, so time and memory are bounded by the
//! length of the input: a value takes at least a byte, a symbol at least a byte of its table. It checks lengths against
//! what holds them, types, depth, UTF-8, ids against the symbol tables in force, and what the [`Profile`] cannot read.
//! Ion text never passes: input starts with the binary version marker or is refused.

use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;

use super::ion::{self, Header, Kind, MARKER, Malformed, Reader, SYMBOL_TABLE, SYSTEM_SYMBOLS, Value};
use super::refused::{Fault, Refused, RefusedKind, path_to};
use super::symbols::{LocalTable, SYSTEM_MAX_ID};
use super::{Encoded, MAX_DEPTH, MAX_DEPTH_COMPAT, MAX_DIGITS_COMPAT, MAX_SYMBOLS, Profile};

/// Tells whether a reader of `profile` can read the value; `root` is what the path of a refusal starts with, `contents` for one.
///
/// # Errors
///
/// [`RefusedKind::Unsupported`] or [`RefusedKind::Limit`]: send it in another form, or only to who can read it.
/// [`RefusedKind::Malformed`]: the value was not made by this crate's encoders.
pub fn check(value: &Encoded, profile: Profile, root: &str) -> Result<(), Refused> {
    let mut scope = Scope::default();
    let tables = value.symbol_bytes();
    let in_tables = |fault: Fault| fault.refused(format!("{root}'s symbol table"));
    scope.apply_all(tables).map_err(in_tables)?;
    let refused = |fault: Fault| fault.refused(path_to(fault.at, root, &value.bytes, 0, tables));
    single_value(&value.bytes, &scope, profile).map_err(refused)
}

/// Walks bytes that must be exactly one value, and one that nobody takes for a symbol table or a marker.
fn single_value(bytes: &[u8], scope: &Scope, profile: Profile) -> Result<(), Fault> {
    let malformed = |at, reason| Fault::malformed(at, Malformed(reason));
    let mut reader = Reader::new(bytes);
    if matches!(reader.peek(), Some(0..ion::NULL)) {
        return Err(malformed(0, "padding in place of a value"));
    }
    Walk::new(&mut reader, scope, profile).value()?;
    if !reader.is_at_end() {
        return Err(malformed(reader.at(), "more than one value"));
    }
    match Reader::new(bytes).value() {
        Ok(Some(value)) if value.is_symbol_table() => Err(malformed(0, "a symbol table in place of a value")),
        _ => Ok(()),
    }
}

/// The symbols in force, as far as the gate needs them: how many there are, and which have no text.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    max_id: usize,
    /// Local ids without text, in order.
    textless: Vec<usize>,
}

impl Default for Scope {
    fn default() -> Self {
        Self { max_id: SYSTEM_MAX_ID, textless: Vec::new() }
    }
}

impl Scope {
    fn reset(&mut self) {
        self.max_id = SYSTEM_MAX_ID;
        self.textless.clear();
    }

    fn knows(&self, id: usize) -> bool {
        id <= self.max_id
    }

    fn has_text(&self, id: usize) -> bool {
        id != 0 && (self.textless.is_empty() || self.textless.binary_search(&id).is_err())
    }

    /// Walks the tables in `tables` and brings them into force one after the other.
    fn apply_all(&mut self, tables: &[u8]) -> Result<(), Fault> {
        let mut reader = Reader::new(tables);
        while !reader.is_at_end() {
            let at = reader.at();
            let malformed = |reason| Fault::malformed(at, reason);
            let mut ahead = reader;
            Walk::new(&mut reader, self, Profile::Rust).value()?;
            match ahead.value().map_err(malformed)? {
                Some(table) if table.is_symbol_table() => self.apply(table, at)?,
                _ => {
                    return Err(malformed(Malformed("something else among the symbol tables")));
                }
            }
        }
        Ok(())
    }

    /// Brings a table into force that was walked before.
    fn apply(&mut self, table: Value<'_>, at: usize) -> Result<(), Fault> {
        let malformed = |reason| Fault::malformed(at, reason);
        let mut table = LocalTable::read(table).map_err(malformed)?;
        if !table.appends {
            self.reset();
        }
        while let Some(text) = table.next().map_err(malformed)? {
            self.max_id += 1;
            match text {
                None => self.textless.push(self.max_id),
                // Readers that go by text would take a value annotated with it for a table, and miscount the values.
                Some(text) if Some(&text) == SYSTEM_SYMBOLS.get(SYMBOL_TABLE - 1) => {
                    return Err(malformed(Malformed("a local symbol named $ion_symbol_table")));
                }
                Some(_) => {}
            }
        }
        if self.max_id > SYSTEM_MAX_ID + MAX_SYMBOLS {
            return Err(Fault {
                at,
                kind: RefusedKind::Limit,
                what: "symbol table",
                reason: "more symbols than 65536",
            });
        }
        Ok(())
    }
}

/// The top level of a frame: its values one by one, gated, with markers, padding and symbol tables taken care of.
pub(crate) struct Top<'a> {
    frame: &'a Bytes,
    reader: Reader<'a>,
    profile: Profile,
    scope: Scope,
    tables: Tables,
    /// Where the value starts that is being walked; none between values and in symbol tables.
    walking: Option<usize>,
}

/// A gated value of a frame's top level.
#[derive(Clone, Debug)]
pub(crate) struct TopValue<'a> {
    pub(crate) value: Value<'a>,
    range: Range<usize>,
    uses_local: bool,
}

/// Where the tables in force are in the frame.
#[derive(Default)]
struct Tables {
    ranges: Vec<Range<usize>>,
    /// The same, in one piece, once a value needed it.
    joined: Option<Bytes>,
}

impl Tables {
    fn clear(&mut self) {
        self.ranges.clear();
        self.joined = None;
    }

    fn add(&mut self, range: Range<usize>, appends: bool) {
        if !appends {
            self.ranges.clear();
        }
        self.joined = None;
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
    }

    fn join(&mut self, frame: &Bytes) -> Option<Bytes> {
        if self.joined.is_none() {
            self.joined = match self.ranges.as_slice() {
                [] => None,
                [one] => Some(frame.slice(one.clone())),
                many => {
                    let parts: Vec<&[u8]> = many.iter().filter_map(|range| frame.get(range.clone())).collect();
                    Some(parts.concat().into())
                }
            };
        }
        self.joined.clone()
    }
}

impl<'a> Top<'a> {
    /// Starts at the frame's version marker.
    pub(crate) fn new(frame: &'a Bytes, profile: Profile) -> Result<Self, Fault> {
        if !frame.starts_with(&MARKER) {
            return Err(Fault {
                at: 0,
                kind: RefusedKind::Malformed,
                what: "frame",
                reason: "it does not start with the marker of Ion 1.0 binary",
            });
        }
        Ok(Self {
            frame,
            reader: Reader::new(frame),
            profile,
            scope: Scope::default(),
            tables: Tables::default(),
            walking: None,
        })
    }

    /// The next value, none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<TopValue<'a>>, Fault> {
        self.walking = None;
        while let Some(byte) = self.reader.peek() {
            match byte {
                0xE0 => self.marker()?,
                0..ion::NULL => {
                    let at = self.reader.at();
                    self.reader.skip_padding().map_err(|reason| Fault::malformed(at, reason))?;
                }
                _ => {
                    if let Some(value) = self.value_or_table()? {
                        return Ok(Some(value));
                    }
                }
            }
        }
        Ok(None)
    }

    fn marker(&mut self) -> Result<(), Fault> {
        let at = self.reader.at();
        if self.reader.take(MARKER.len()) != Ok(&MARKER) {
            return Err(Fault::malformed(at, Malformed("a version marker other than that of Ion 1.0")));
        }
        self.scope.reset();
        self.tables.clear();
        Ok(())
    }

    /// The value that comes next; none if it is a symbol table, which is then in force.
    fn value_or_table(&mut self) -> Result<Option<TopValue<'a>>, Fault> {
        let at = self.reader.at();
        let malformed = |reason| Fault::malformed(at, reason);
        self.walking = Some(at);
        let mut ahead = self.reader;
        let value = ahead.value().map_err(malformed)?.ok_or(malformed(ion::TRUNCATED))?;
        let is_table = value.is_symbol_table();
        if is_table {
            self.walking = None;
        }
        let profile = if is_table { Profile::Rust } else { self.profile };
        let mut walk = Walk::new(&mut self.reader, &self.scope, profile);
        walk.value()?;
        let uses_local = walk.uses_local;
        let range = at..self.reader.at();
        if !is_table {
            return Ok(Some(TopValue { value, range, uses_local }));
        }
        let appends = LocalTable::read(value).map_err(malformed)?.appends;
        self.scope.apply(value, at)?;
        self.tables.add(range, appends);
        Ok(None)
    }

    /// The value, still encoded, as a slice of the frame with the tables it needs.
    pub(crate) fn encoded(&mut self, value: &TopValue<'a>) -> Encoded {
        Encoded {
            bytes: self.frame.slice(value.range.clone()),
            symbols: if value.uses_local { self.tables.join(self.frame) } else { None },
        }
    }

    /// The refusal of what [`Top::next`] met instead of the field `name`.
    pub(crate) fn refused(&mut self, fault: Fault, name: &str) -> Refused {
        let Some(start) = self.walking else {
            return fault.refused_in_frame();
        };
        let tables = self.tables.join(self.frame).unwrap_or_default();
        fault.refused(path_to(fault.at, name, self.frame, start, &tables))
    }

    /// Where the next byte is.
    pub(crate) fn at(&self) -> usize {
        self.reader.at()
    }
}

/// A container that the walk is in.
#[derive(Clone, Copy)]
struct Level {
    end: usize,
    in_struct: bool,
}

/// The walk over one value.
struct Walk<'r, 'a> {
    reader: &'r mut Reader<'a>,
    scope: &'r Scope,
    profile: Profile,
    /// Whether a symbol was met that only a local table defines.
    uses_local: bool,
}

impl<'r, 'a> Walk<'r, 'a> {
    fn new(reader: &'r mut Reader<'a>, scope: &'r Scope, profile: Profile) -> Self {
        Self { reader, scope, profile, uses_local: false }
    }

    /// Walks the next value with all it holds.
    fn value(&mut self) -> Result<(), Fault> {
        match self.one()? {
            Some(level) => self.inside(level),
            None => Ok(()),
        }
    }

    /// Walks all that a container holds; the containers it is in wait on a stack, which flat ones never need.
    #[inline(never)]
    fn inside(&mut self, outermost: Level) -> Result<(), Fault> {
        let outside = self.reader.end();
        let max_depth = self.max_depth();
        let mut stack = Vec::new();
        let mut level = outermost;
        self.reader.set_end(level.end);
        loop {
            if self.reader.is_at_end() {
                let Some(outer) = stack.pop() else { break };
                level = outer;
                self.reader.set_end(level.end);
                continue;
            }
            let at = self.reader.at();
            if level.in_struct {
                self.field_name()?;
            }
            let Some(inner) = self.one()? else { continue };
            if stack.len() + 1 > max_depth {
                return Err(self.too_deep(at));
            }
            stack.push(level);
            level = inner;
            self.reader.set_end(level.end);
        }
        self.reader.set_end(outside);
        Ok(())
    }

    fn max_depth(&self) -> usize {
        match self.profile {
            Profile::Compat => MAX_DEPTH_COMPAT,
            Profile::Rust => MAX_DEPTH,
        }
    }

    fn too_deep(&self, at: usize) -> Fault {
        Fault {
            at,
            kind: RefusedKind::Limit,
            what: "container",
            reason: match self.profile {
                Profile::Compat => "Python shall not read more than 150 levels",
                Profile::Rust => "more than 200 levels",
            },
        }
    }

    /// Walks one value or piece of padding; of a container only the header, and answers with it.
    fn one(&mut self) -> Result<Option<Level>, Fault> {
        let at = self.reader.at();
        let malformed = |reason| Fault::malformed(at, reason);
        let mut header = self.reader.header().map_err(malformed)?;
        if header.kind == Kind::Annotated {
            let end = self.reader.at() + header.len;
            self.annotations(header.len).map_err(malformed)?;
            header = self.reader.header().map_err(malformed)?;
            let alone = self.reader.at() + header.len == end;
            if !alone || matches!(header.kind, Kind::Nop | Kind::Annotated) {
                return Err(malformed(Malformed("annotations hold exactly one value")));
            }
        }
        if header.kind.is_container() && !header.is_null() {
            return Ok(Some(Level { end: self.reader.at() + header.len, in_struct: header.kind == Kind::Struct }));
        }
        let body = self.reader.take(header.len).map_err(malformed)?;
        if header.is_null() {
            return Ok(None);
        }
        self.scalar(header, body, at)?;
        Ok(None)
    }

    fn annotations(&mut self, len: usize) -> Result<(), Malformed> {
        let mut ids = Reader::new(self.reader.annotations(len)?);
        while !ids.is_at_end() {
            self.symbol(ids.var_uint()?)?;
        }
        Ok(())
    }

    fn symbol(&mut self, id: usize) -> Result<(), Malformed> {
        self.uses_local |= id > SYSTEM_MAX_ID;
        if self.scope.knows(id) { Ok(()) } else { Err(Malformed("a symbol that no table defines")) }
    }

    fn field_name(&mut self) -> Result<(), Fault> {
        let at = self.reader.at();
        let malformed = |reason| Fault::malformed(at, reason);
        let id = self.reader.var_uint().map_err(malformed)?;
        self.symbol(id).map_err(malformed)?;
        let Some(next) = self.reader.peek() else {
            return Err(malformed(Malformed("a field name without a value")));
        };
        let names_padding = next < ion::NULL;
        if self.profile == Profile::Compat && !names_padding && !self.scope.has_text(id) {
            return Err(unsupported(at, "field name without text", "Python reads no such struct"));
        }
        Ok(())
    }

    fn scalar(&mut self, header: Header, body: &[u8], at: usize) -> Result<(), Fault> {
        let malformed = |reason| Err(Fault::malformed(at, Malformed(reason)));
        let compat = self.profile == Profile::Compat;
        match header.kind {
            Kind::String if std::str::from_utf8(body).is_err() => malformed("text that is not UTF-8"),
            Kind::Negative if body.iter().all(|&byte| byte == 0) => malformed("an int that is minus zero"),
            Kind::Positive | Kind::Negative if compat && has_too_many_digits(body) => {
                Err(Fault { at, kind: RefusedKind::Limit, what: "int", reason: "Python reads at most 4300 digits" })
            }
            Kind::Symbol => {
                let id = ion::symbol_id(body).unwrap_or(usize::MAX);
                self.symbol(id).map_err(|reason| Fault::malformed(at, reason))?;
                refuse_if(compat, at, "symbol", "Python reads no symbols, only strings")
            }
            Kind::Decimal if !is_decimal(body) => malformed("a decimal without a sound exponent"),
            Kind::Decimal => refuse_if(compat, at, "decimal", "Python reads no decimals"),
            Kind::Timestamp if !is_timestamp(body) => malformed("a timestamp that is no moment"),
            Kind::Timestamp => refuse_if(compat, at, "timestamp", "Python reads no timestamps"),
            Kind::Clob => refuse_if(compat, at, "clob", "Python reads no clobs"),
            Kind::Blob => refuse_if(compat, at, "blob", "Python reads no blobs"),
            _ => Ok(()),
        }
    }
}

fn refuse_if(refuse: bool, at: usize, what: &'static str, reason: &'static str) -> Result<(), Fault> {
    if refuse { Err(unsupported(at, what, reason)) } else { Ok(()) }
}

fn unsupported(at: usize, what: &'static str, reason: &'static str) -> Fault {
    Fault { at, kind: RefusedKind::Unsupported, what, reason }
}

/// The smallest magnitude of more than [`MAX_DIGITS_COMPAT`] digits.
static TOO_LARGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut little_endian = vec![1_u8];
    for _ in 0..MAX_DIGITS_COMPAT {
        let mut carry = 0;
        for digit in &mut little_endian {
            let product = u16::from(*digit) * 10 + carry;
            *digit = product as u8;
            carry = product >> 8;
        }
        if carry > 0 {
            little_endian.push(carry as u8);
        }
    }
    little_endian.reverse();
    little_endian
});

fn has_too_many_digits(magnitude: &[u8]) -> bool {
    // A byte is more than two digits, so that this spares nearly every int the comparison.
    if magnitude.len() <= MAX_DIGITS_COMPAT / 3 {
        return false;
    }
    let magnitude = ion::without_leading_zeros(magnitude);
    let limit = TOO_LARGE.as_slice();
    (magnitude.len(), magnitude) >= (limit.len(), limit)
}

/// Passes a number with a sign in groups of seven bits, and answers with its magnitude.
fn var_int(reader: &mut Reader<'_>) -> Option<u64> {
    let first = reader.byte().ok()?;
    let mut number = u64::from(first & 0x3F);
    let mut byte = first;
    for _ in 0..8 {
        if byte & 0x80 != 0 {
            return Some(number);
        }
        byte = reader.byte().ok()?;
        number = number << 7 | u64::from(byte & 0x7F);
    }
    (byte & 0x80 != 0).then_some(number)
}

/// Whether the body is an exponent and a coefficient, or nothing.
fn is_decimal(body: &[u8]) -> bool {
    body.is_empty() || var_int(&mut Reader::new(body)).is_some()
}

/// Whether the body is an offset, and a year with as many finer parts as it likes, each in its range.
fn is_timestamp(body: &[u8]) -> bool {
    let mut reader = Reader::new(body);
    if var_int(&mut reader).is_none_or(|offset| offset >= 24 * 60) {
        return false;
    }
    let mut parts = 0;
    for range in [1..=9999, 1..=12, 1..=31, 0..=23, 0..=59, 0..=59] {
        if reader.is_at_end() {
            break;
        }
        if !reader.var_uint().is_ok_and(|part| range.contains(&part)) {
            return false;
        }
        parts += 1;
    }
    // An hour without its minute is no moment; a fraction follows a second only.
    let whole = matches!(parts, 1..=3 | 5 | 6);
    whole && (reader.is_at_end() || is_fraction(reader))
}

fn is_fraction(mut reader: Reader<'_>) -> bool {
    var_int(&mut reader).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(bytes: &[u8]) -> Encoded {
        Encoded { bytes: Bytes::copy_from_slice(bytes), symbols: None }
    }

    #[test]
    fn the_largest_int_that_python_reads_has_4300_digits() {
        let limit = TOO_LARGE.clone();
        assert!(has_too_many_digits(&limit));
        let mut below = limit.clone();
        let last = below.iter().rposition(|&byte| byte != 0).unwrap();
        below[last] -= 1;
        assert!(!has_too_many_digits(&below));
        assert!(!has_too_many_digits(&[&[0; 4000], &limit[1..]].concat()));
        assert!(has_too_many_digits(&[&limit[..], &[0]].concat()));
    }

    #[test]
    fn depth_is_limited_per_profile() {
        let nested = |levels: usize| {
            let mut bytes = vec![0xB0];
            for _ in 1..levels {
                let mut outer = vec![];
                ion::write_header(0xB0, bytes.len(), &mut outer);
                outer.append(&mut bytes);
                bytes = outer;
            }
            plain(&bytes)
        };
        assert!(check(&nested(151), Profile::Compat, "c").is_ok());
        let refused = check(&nested(152), Profile::Compat, "c").unwrap_err();
        assert_eq!(refused.kind, RefusedKind::Limit);
        assert!(refused.path.starts_with("c[0][0]") && refused.path.len() < 210);
        assert!(check(&nested(201), Profile::Rust, "c").is_ok());
        assert_eq!(check(&nested(202), Profile::Rust, "c").unwrap_err().kind, RefusedKind::Limit);
    }

    #[test]
    fn an_encoded_value_is_one_value_and_no_table() {
        let kind = |bytes: &[u8]| check(&plain(bytes), Profile::Rust, "c").unwrap_err().kind;
        assert_eq!(kind(&[]), RefusedKind::Malformed);
        assert_eq!(kind(&[0x00]), RefusedKind::Malformed);
        assert_eq!(kind(&[0x20, 0x20]), RefusedKind::Malformed);
        assert_eq!(kind(&MARKER), RefusedKind::Malformed);
        assert_eq!(kind(&[0xE3, 0x81, 0x83, 0xD0]), RefusedKind::Malformed);
        assert!(check(&plain(&[0xE3, 0x81, 0x83, 0xB0]), Profile::Rust, "c").is_ok());
    }

    #[test]
    fn decimals_and_timestamps_are_looked_into() {
        let ok = |bytes: &[u8]| check(&plain(bytes), Profile::Rust, "c").is_ok();
        assert!(ok(&[0x50]) && ok(&[0x52, 0xC1, 0x0F]) && !ok(&[0x51, 0x41]));
        let moment = [0x80, 0x0F, 0xEA, 0x81, 0x81, 0x80, 0x80, 0x80, 0xC6];
        for (len, good) in [(1, false), (3, true), (4, true), (5, true), (6, false), (7, true), (8, true), (9, true)] {
            let bytes = [&[0x60 | len as u8], &moment[..len]].concat();
            assert_eq!(ok(&bytes), good, "{len} bytes");
        }
        assert!(!ok(&[0x64, 0x80, 0x0F, 0xEA, 0x8D]), "month 13");
    }
}
