//! The gate: one walk over bytes from outside that finds everything a decoder could trip over.
//!
//! The walk does not recurse, allocates nothing for values, and looks at each byte once, so time and memory are bounded by the
//! length of the input: a value takes at least a byte, a symbol at least a byte of its table. It checks lengths against
//! what holds them, types, depth, UTF-8, ids against the symbol tables in force, and what the [`Profile`] cannot read.
//! Ion text never passes: input starts with the binary version marker or is refused.

use super::ion::{self, Header, Kind, Malformed, Reader, SYMBOL_TABLE, SYSTEM_SYMBOLS, Value};
use super::refused::{Fault, Reason, Refused, RefusedKind, path_to};
use super::scalars::{has_too_many_digits, is_decimal, is_timestamp};
use super::symbols::{LocalTable, SYSTEM_MAX_ID};
use super::{Encoded, MAX_DEPTH, MAX_DEPTH_COMPAT, MAX_SYMBOLS, Profile};

/// Tells whether a reader of `profile` can read the value; `root` is what the path of a refusal starts with, `contents` for one.
///
/// # Errors
///
/// [`RefusedKind::Unsupported`] or [`RefusedKind::Limit`]: send it in another form, or only to who can read it.
/// [`RefusedKind::Malformed`]: the value was not made by this crate's encoders.
pub fn check(value: &Encoded, profile: Profile, root: &str) -> Result<(), Refused> {
    if value.symbols.is_none() && is_plain(&value.bytes) {
        return Ok(());
    }
    let mut scope = Scope::default();
    let tables = value.symbol_bytes();
    let in_tables = |fault: Fault| fault.refused(format!("{root}'s symbol table"));
    scope.apply_all(tables).map_err(in_tables)?;
    let refused = |fault: Fault| fault.refused(path_to(fault.at, root, &value.bytes, 0, tables));
    single_value(&value.bytes, &scope, profile).map_err(refused)
}

/// Whether the bytes are one text, small int, or list of such, as those of most messages are: any reader takes them.
fn is_plain(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    let is_sound = match reader.plain(Kind::List) {
        Some(items) => {
            let mut items = Reader::new(items);
            while !items.is_at_end() && is_plain_scalar(&mut items) {}
            items.is_at_end()
        }
        None => is_plain_scalar(&mut reader),
    };
    is_sound && reader.is_at_end()
}

fn is_plain_scalar(reader: &mut Reader<'_>) -> bool {
    match reader.plain(Kind::String) {
        Some(text) => is_utf8(text),
        None => reader.plain_uint().is_some(),
    }
}

/// Most texts are ASCII, which is told in a third of the time.
fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || std::str::from_utf8(text).is_ok()
}

/// Walks bytes that must be exactly one value, and one that nobody takes for a symbol table or a marker.
fn single_value(bytes: &[u8], scope: &Scope, profile: Profile) -> Result<(), Fault> {
    let malformed = |at, reason| Fault::malformed(at, Malformed(reason));
    let mut reader = Reader::new(bytes);
    if matches!(reader.peek(), None | Some(0..ion::NULL)) {
        return Err(malformed(0, &"nothing in place of a value"));
    }
    let value = Walk::new(&mut reader, scope, profile).value()?;
    if value.is_symbol_table() {
        return Err(malformed(0, &"a symbol table in place of a value"));
    }
    if !reader.is_at_end() {
        return Err(malformed(reader.at(), &"more than one value"));
    }
    Ok(())
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
    pub(crate) fn reset(&mut self) {
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
            let table = Walk::new(&mut reader, self, Profile::Rust).value()?;
            if !table.is_symbol_table() {
                let reason = Malformed(&"something else among the symbol tables");
                return Err(Fault::malformed(at, reason));
            }
            self.apply(table, at)?;
        }
        Ok(())
    }

    /// Brings a table into force that was walked before.
    pub(crate) fn apply(&mut self, table: Value<'_>, at: usize) -> Result<(), Fault> {
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
                    return Err(malformed(Malformed(&"a local symbol named $ion_symbol_table")));
                }
                Some(_) => {}
            }
        }
        if self.max_id > SYSTEM_MAX_ID + MAX_SYMBOLS {
            return Err(Fault::other(at, &Reason(RefusedKind::Limit, "symbol table", "more symbols than 65536")));
        }
        Ok(())
    }
}

/// A container that the walk is in.
#[derive(Clone, Copy)]
struct Level {
    end: usize,
    in_struct: bool,
}

/// The walk over one value.
pub(crate) struct Walk<'r, 'a> {
    reader: &'r mut Reader<'a>,
    scope: &'r Scope,
    profile: Profile,
    /// Whether a symbol was met that only a local table defines.
    pub(crate) uses_local: bool,
}

impl<'r, 'a> Walk<'r, 'a> {
    pub(crate) fn new(reader: &'r mut Reader<'a>, scope: &'r Scope, profile: Profile) -> Self {
        Self { reader, scope, profile, uses_local: false }
    }

    /// Walks the next value with all it holds, and answers with it.
    fn value(&mut self) -> Result<Value<'a>, Fault> {
        let at = self.reader.at();
        let value = self.pass()?;
        self.look_into(value, at)?;
        Ok(value)
    }

    /// Passes the next value, whatever it holds.
    #[inline]
    pub(crate) fn pass(&mut self) -> Result<Value<'a>, Fault> {
        let at = self.reader.at();
        let malformed = |reason| Fault::malformed(at, reason);
        let value = self.reader.value().map_err(malformed)?;
        value.ok_or(malformed(ion::TRUNCATED))
    }

    /// Walks the value that was just passed, which started at `at`.
    #[inline]
    pub(crate) fn look_into(&mut self, value: Value<'a>, at: usize) -> Result<(), Fault> {
        if !value.annotations.is_empty() {
            self.annotation_ids(value.annotations).map_err(|reason| Fault::malformed(at, reason))?;
        }
        if value.is_null() {
            return Ok(());
        }
        if !value.header.kind.is_container() {
            return self.scalar(value.header, value.body, at);
        }
        if value.body.is_empty() {
            return Ok(());
        }
        let level = Level { end: self.reader.at(), in_struct: value.header.kind == Kind::Struct };
        self.reader.back(value.body.len());
        self.inside(level)
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
        const COMPAT: &Reason = &Reason(RefusedKind::Limit, "container", "Python shall not read more than 150 levels");
        const RUST: &Reason = &Reason(RefusedKind::Limit, "container", "more than 200 levels");
        Fault::other(at, if self.profile == Profile::Compat { COMPAT } else { RUST })
    }

    /// Walks one value or piece of padding; of a container only the header, and answers with it.
    fn one(&mut self) -> Result<Option<Level>, Fault> {
        let at = self.reader.at();
        let malformed = |reason| Fault::malformed(at, reason);
        let mut header = self.reader.header().map_err(malformed)?;
        if header.kind == Kind::Annotated {
            let end = self.reader.at() + header.len;
            let ids = self.reader.annotations(header.len).map_err(malformed)?;
            self.annotation_ids(ids).map_err(malformed)?;
            header = self.reader.header().map_err(malformed)?;
            let alone = self.reader.at() + header.len == end;
            if !alone || matches!(header.kind, Kind::Nop | Kind::Annotated) {
                return Err(malformed(Malformed(&"annotations hold exactly one value")));
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

    fn annotation_ids(&mut self, ids: &[u8]) -> Result<(), Malformed> {
        let mut ids = Reader::new(ids);
        while !ids.is_at_end() {
            self.symbol(ids.var_uint()?)?;
        }
        Ok(())
    }

    fn symbol(&mut self, id: usize) -> Result<(), Malformed> {
        self.uses_local |= id > SYSTEM_MAX_ID;
        if self.scope.knows(id) { Ok(()) } else { Err(Malformed(&"a symbol that no table defines")) }
    }

    fn field_name(&mut self) -> Result<(), Fault> {
        let at = self.reader.at();
        let malformed = |reason| Fault::malformed(at, reason);
        let id = self.reader.var_uint().map_err(malformed)?;
        self.symbol(id).map_err(malformed)?;
        let Some(next) = self.reader.peek() else {
            return Err(malformed(Malformed(&"a field name without a value")));
        };
        let names_padding = next < ion::NULL;
        if self.profile == Profile::Compat && !names_padding && !self.scope.has_text(id) {
            return Err(Fault::other(
                at,
                &Reason(RefusedKind::Unsupported, "field name without text", "Python reads no such struct"),
            ));
        }
        Ok(())
    }

    fn scalar(&mut self, header: Header, body: &[u8], at: usize) -> Result<(), Fault> {
        let malformed = |reason| Err(Fault::malformed(at, Malformed(reason)));
        let compat = self.profile == Profile::Compat;
        match header.kind {
            Kind::String if !is_utf8(body) => malformed(&"text that is not UTF-8"),
            Kind::Negative if body.iter().all(|&byte| byte == 0) => malformed(&"an int that is minus zero"),
            Kind::Positive | Kind::Negative if compat && has_too_many_digits(body) => {
                Err(Fault::other(at, &Reason(RefusedKind::Limit, "int", "Python reads at most 4300 digits")))
            }
            Kind::Symbol => {
                let id = ion::symbol_id(body).unwrap_or(usize::MAX);
                self.symbol(id).map_err(|reason| Fault::malformed(at, reason))?;
                refuse_if(
                    compat,
                    at,
                    &Reason(RefusedKind::Unsupported, "symbol", "Python reads no symbols, only strings"),
                )
            }
            Kind::Decimal if !is_decimal(body) => malformed(&"a decimal without a sound exponent"),
            Kind::Decimal => {
                refuse_if(compat, at, &Reason(RefusedKind::Unsupported, "decimal", "Python reads no decimals"))
            }
            Kind::Timestamp if !is_timestamp(body) => malformed(&"a timestamp that is no moment"),
            Kind::Timestamp => {
                refuse_if(compat, at, &Reason(RefusedKind::Unsupported, "timestamp", "Python reads no timestamps"))
            }
            Kind::Clob => refuse_if(compat, at, &Reason(RefusedKind::Unsupported, "clob", "Python reads no clobs")),
            Kind::Blob => refuse_if(compat, at, &Reason(RefusedKind::Unsupported, "blob", "Python reads no blobs")),
            _ => Ok(()),
        }
    }
}

fn refuse_if(refuse: bool, at: usize, reason: &'static Reason) -> Result<(), Fault> {
    if refuse { Err(Fault::other(at, reason)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::ion::MARKER;
    use super::*;

    fn plain(bytes: &[u8]) -> Encoded {
        Encoded { bytes: Bytes::copy_from_slice(bytes), symbols: None }
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
