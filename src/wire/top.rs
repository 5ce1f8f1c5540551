//! The top level of a frame: its values one by one, with markers, padding and symbol tables between them taken care of.

use std::ops::Range;

use bytes::Bytes;

use super::gate::{Scope, Walk};
use super::ion::{self, MARKER, Malformed, Reader, Value};
use super::refused::{Fault, Reason, Refused, RefusedKind, path_to};
use super::symbols::LocalTable;
use super::{Encoded, Profile};

/// The top level of a frame: its values one by one, gated, with markers, padding and symbol tables taken care of.
pub(crate) struct Top<'a> {
    frame: &'a Bytes,
    reader: Reader<'a>,
    profile: Profile,
    scope: Scope,
    tables: Tables,
    /// Where the last value starts; none after a symbol table, and at the end.
    start: Option<usize>,
    /// Whether the last value needs the tables in force.
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
            return Err(Fault::other(
                0,
                &Reason(RefusedKind::Malformed, "frame", "it does not start with the marker of Ion 1.0 binary"),
            ));
        }
        Ok(Self {
            frame,
            reader: Reader::new(frame),
            profile,
            scope: Scope::default(),
            tables: Tables::default(),
            start: None,
            uses_local: false,
        })
    }

    /// The next value, none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Value<'a>>, Fault> {
        self.start = None;
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
            return Err(Fault::malformed(at, Malformed(&"a version marker other than that of Ion 1.0")));
        }
        self.scope.reset();
        self.tables.clear();
        Ok(())
    }

    /// The value that comes next; none if it is a symbol table, which is then in force.
    #[inline]
    fn value_or_table(&mut self) -> Result<Option<Value<'a>>, Fault> {
        let at = self.reader.at();
        self.start = Some(at);
        let mut walk = Walk::new(&mut self.reader, &self.scope, self.profile);
        let value = walk.pass()?;
        if value.is_symbol_table() {
            self.table(value, at)?;
            return Ok(None);
        }
        walk.look_into(value, at)?;
        self.uses_local = walk.uses_local;
        Ok(Some(value))
    }

    /// Walks a table that was passed, which started at `at`, and brings it into force.
    fn table(&mut self, table: Value<'a>, at: usize) -> Result<(), Fault> {
        self.start = None;
        Walk::new(&mut self.reader, &self.scope, Profile::Rust).look_into(table, at)?;
        let read = LocalTable::read(table).map_err(|reason| Fault::malformed(at, reason))?;
        self.scope.apply(table, at)?;
        self.tables.add(at..self.reader.at(), read.appends);
        Ok(())
    }

    /// The last value, still encoded, as a slice of the frame with the tables it needs.
    pub(crate) fn encoded(&mut self) -> Encoded {
        let start = self.start.unwrap_or(self.reader.at());
        let symbols = if self.uses_local { self.tables.join(self.frame) } else { None };
        Encoded { bytes: self.frame.slice(start..self.reader.at()), symbols }
    }

    /// Where the last value starts, or if there is none where the next byte is.
    pub(crate) fn at(&self) -> usize {
        self.start.unwrap_or(self.reader.at())
    }

    /// The refusal of what was met as the field `name`.
    pub(crate) fn refused(&mut self, fault: Fault, name: &str) -> Refused {
        let Some(start) = self.start else {
            return fault.refused_in_frame();
        };
        let tables = self.tables.join(self.frame).unwrap_or_default();
        fault.refused(path_to(fault.at, name, self.frame, start, &tables))
    }
}
