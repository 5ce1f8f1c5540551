//! Local symbol tables: what a table says, and the texts of all tables in force.

use std::collections::HashMap;

use super::MAX_SYMBOLS;
use super::ion::{
    self, Container, IMPORTS, Kind, MAX_ID, Malformed, NAME, Reader, SYMBOL_TABLE, SYMBOLS, SYSTEM_SYMBOLS, VERSION,
    Value,
};

/// The highest id of the system's own symbols.
pub(crate) const SYSTEM_MAX_ID: usize = SYSTEM_SYMBOLS.len();

/// Up to how many local symbols a list is searched rather than a map.
const FEW: usize = 16;

/// One local symbol table, as its struct says.
pub(crate) struct LocalTable<'a> {
    /// Whether its symbols come after those in force rather than in their place.
    pub(crate) appends: bool,
    symbols: Reader<'a>,
}

impl<'a> LocalTable<'a> {
    /// Reads the struct of a local symbol table.
    pub(crate) fn read(table: Value<'a>) -> Result<Self, Malformed> {
        if table.is_null() {
            return Err(Malformed(&"a symbol table that is null"));
        }
        let (mut imports, mut symbols) = (None, None);
        let mut fields = Reader::new(table.body);
        while let Some((name, value)) = fields.field()? {
            let slot = match name {
                IMPORTS => &mut imports,
                SYMBOLS => &mut symbols,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(Malformed(&"a symbol table that says one thing twice"));
            }
        }
        let symbols = match symbols {
            Some(value) if value.header.kind == Kind::List => value.body,
            _ => &[],
        };
        Ok(Self { appends: imports.map_or(Ok(false), is_append)?, symbols: Reader::new(symbols) })
    }

    /// The text of the next symbol: inner none for a symbol without text, outer none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Option<&'a str>>, Malformed> {
        let Some(value) = self.symbols.value()? else {
            return Ok(None);
        };
        if value.header.kind != Kind::String || value.is_null() {
            return Ok(Some(None));
        }
        let text = std::str::from_utf8(value.body).map_err(|_| Malformed(&"text that is not UTF-8"))?;
        Ok(Some(Some(text)))
    }
}

/// Whether these imports are "the table in force"; nothing else can be imported, as nobody knows a catalogue of shared tables.
fn is_append(imports: Value<'_>) -> Result<bool, Malformed> {
    match imports.header.kind {
        _ if imports.is_null() => Ok(false),
        Kind::Symbol => Ok(ion::symbol_id(imports.body) == Some(SYMBOL_TABLE)),
        Kind::List if Reader::new(imports.body).value()?.is_some() => {
            Err(Malformed(&"an import of a shared symbol table"))
        }
        _ => Ok(false),
    }
}

/// The texts of the symbols in force.
#[derive(Default)]
pub(crate) struct Symbols<'a> {
    local: Vec<Option<&'a str>>,
    /// Ids whose text another id has already, and that id, in order.
    twins: Vec<(usize, usize)>,
}

impl<'a> Symbols<'a> {
    /// The symbols that the tables in `tables`, one after the other, leave in force.
    pub(crate) fn read(tables: &'a [u8]) -> Result<Self, Malformed> {
        let mut symbols = Self::default();
        if tables.is_empty() {
            return Ok(symbols);
        }
        let mut reader = Reader::new(tables);
        while let Some(value) = reader.value()? {
            if !value.is_symbol_table() {
                return Err(Malformed(&"something else among the symbol tables"));
            }
            symbols.apply(LocalTable::read(value)?)?;
        }
        symbols.find_twins();
        Ok(symbols)
    }

    fn apply(&mut self, mut table: LocalTable<'a>) -> Result<(), Malformed> {
        if !table.appends {
            self.local.clear();
        }
        while let Some(text) = table.next()? {
            if self.local.len() >= MAX_SYMBOLS {
                return Err(Malformed(&"more symbols than the limit"));
            }
            self.local.push(text);
        }
        Ok(())
    }

    /// Notes ids of the same text, so that fields of one name are known as such whatever id each uses.
    fn find_twins(&mut self) {
        let with_ids = || (SYSTEM_MAX_ID + 1..).zip(&self.local);
        let mut twins = Vec::new();
        if self.local.len() <= FEW {
            for (id, text) in with_ids() {
                let first = |text| self.first_id_of(text, id);
                twins.extend(text.and_then(first).map(|first| (id, first)));
            }
        } else {
            let mut ids: HashMap<&str, usize> = SYSTEM_SYMBOLS.into_iter().zip(1..).collect();
            for (id, text) in with_ids() {
                let Some(text) = text else { continue };
                let first = *ids.entry(text).or_insert(id);
                if first != id {
                    twins.push((id, first));
                }
            }
        }
        self.twins = twins;
    }

    fn first_id_of(&self, text: &str, below: usize) -> Option<usize> {
        let mut local = self.local.iter().zip(SYSTEM_MAX_ID + 1..below);
        let mut found = || local.find(|&(known, _)| *known == Some(text));
        system_id(text).or_else(|| found().map(|(_, id)| id))
    }

    /// The text of `id`: inner none if it has none, outer none if no table defines it.
    pub(crate) fn text(&self, id: usize) -> Option<Option<&'a str>> {
        match id.checked_sub(SYSTEM_MAX_ID + 1) {
            Some(place) => self.local.get(place).copied(),
            None if id == 0 => Some(None),
            None => Some(SYSTEM_SYMBOLS.get(id - 1).copied()),
        }
    }

    /// The same id for all ids of one text.
    pub(crate) fn canonical(&self, id: usize) -> usize {
        if self.twins.is_empty() {
            return id;
        }
        match self.twins.binary_search_by_key(&id, |&(twin, _)| twin) {
            Ok(place) => self.twins.get(place).map_or(id, |&(_, first)| first),
            Err(_) => id,
        }
    }
}

/// The id that every table has for `text`.
fn system_id(text: &str) -> Option<usize> {
    // Nearly every name is told apart by its length and first letter.
    let candidate = match text.as_bytes() {
        [b'$', ..] => SYSTEM_SYMBOLS.iter().position(|&known| known == text)?,
        [b'n', _, _, _] => NAME - 1,
        [b'v', ..] => VERSION - 1,
        [b'i', ..] => IMPORTS - 1,
        [b's', ..] => SYMBOLS - 1,
        [b'm', ..] => MAX_ID - 1,
        _ => return None,
    };
    (SYSTEM_SYMBOLS.get(candidate) == Some(&text)).then_some(candidate + 1)
}

/// Collects field names while a value is written, and writes their table.
#[derive(Default)]
pub(crate) struct NewSymbols {
    /// All names, one after the other.
    texts: String,
    /// Where each name ends in `texts`.
    ends: Vec<usize>,
    /// The place of each name, once they are many.
    places: HashMap<Box<str>, usize>,
    /// The place after the name that was asked for last: structs of one type ask in one order.
    guess: usize,
}

/// Up to how many names a list is searched rather than a map.
const FEW_NAMES: usize = 8;

impl NewSymbols {
    /// The id of `name`, a new one if it has none; none if there are [`MAX_SYMBOLS`] already.
    pub(crate) fn id(&mut self, name: &str) -> Option<usize> {
        if let Some(place) = self.place(name) {
            self.guess = place + 1;
            return Some(place + SYSTEM_MAX_ID + 1);
        }
        system_id(name).or_else(|| self.add(name))
    }

    fn place(&self, name: &str) -> Option<usize> {
        if self.name(self.guess) == Some(name) {
            return Some(self.guess);
        }
        if self.ends.len() > FEW_NAMES {
            return self.places.get(name).copied();
        }
        self.names().position(|known| known == name)
    }

    fn name(&self, place: usize) -> Option<&str> {
        let end = *self.ends.get(place)?;
        let start = place.checked_sub(1).and_then(|before| self.ends.get(before));
        self.texts.get(start.copied().unwrap_or(0)..end)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).filter_map(|place| self.name(place))
    }

    fn add(&mut self, name: &str) -> Option<usize> {
        let place = self.ends.len();
        if place >= MAX_SYMBOLS {
            return None;
        }
        self.texts.push_str(name);
        self.ends.push(self.texts.len());
        if place == FEW_NAMES {
            self.places = self.names().map(Box::from).zip(0..).collect();
        } else if place > FEW_NAMES {
            self.places.insert(name.into(), place);
        }
        self.guess = place + 1;
        Some(place + SYSTEM_MAX_ID + 1)
    }

    /// Forgets all names, and keeps the memory for the next ones.
    pub(crate) fn clear(&mut self) {
        self.texts.clear();
        self.ends.clear();
        self.places.clear();
        self.guess = 0;
    }

    /// The memory it holds, in bytes, roughly.
    pub(crate) fn capacity(&self) -> usize {
        self.texts.capacity() + 8 * self.ends.capacity() + 64 * self.places.capacity()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Writes a table of the names, to stand before the value.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let annotated = ion::open(Container::Annotated, out);
        ion::write_var_uint(1, out);
        ion::write_var_uint(SYMBOL_TABLE, out);
        let table = ion::open(Container::Struct, out);
        ion::write_var_uint(SYMBOLS, out);
        let list = ion::open(Container::List, out);
        for name in self.names() {
            ion::write_string(name, out);
        }
        for start in [list, table, annotated] {
            ion::close(start, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_of(names: &[&str]) -> Vec<u8> {
        let mut symbols = NewSymbols::default();
        for name in names {
            symbols.add(name);
        }
        let mut out = vec![];
        symbols.write(&mut out);
        out
    }

    #[test]
    fn names_get_ids_in_order_of_first_use_and_keep_them() {
        let mut symbols = NewSymbols::default();
        let names: Vec<String> = (0..40).map(|n| format!("n{n}")).collect();
        for _ in 0..2 {
            for (name, id) in names.iter().zip(10..) {
                assert_eq!(symbols.id(name), Some(id));
                assert_eq!(symbols.id("version"), Some(5));
            }
        }
        let mut out = vec![];
        symbols.write(&mut out);
        let read = Symbols::read(&out).unwrap();
        assert_eq!(read.text(49), Some(Some("n39")));
        assert_eq!(read.text(50), None);
        assert_eq!(read.text(7), Some(Some("symbols")));
        assert_eq!(read.text(0), Some(None));
    }

    #[test]
    fn ids_of_one_text_have_one_canonical_id() {
        let many: Vec<String> = (0..30).map(|n| format!("n{n}")).collect();
        let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
        many.extend(["name", "n3"]);
        for (names, twins) in [(vec!["a", "name", "a"], [(11, 4), (12, 10)]), (many, [(40, 4), (41, 13)])] {
            let table = table_of(&names);
            let symbols = Symbols::read(&table).unwrap();
            for (twin, first) in twins {
                assert_eq!(symbols.canonical(twin), first);
                assert_eq!(symbols.canonical(first), first);
            }
        }
    }

    #[test]
    fn only_the_table_in_force_can_be_imported() {
        // $ion_symbol_table::{imports:[{}], symbols:["a"]}
        let shared = [0xE8, 0x81, 0x83, 0xD7, 0x86, 0xB1, 0xD0, 0x87, 0xB2, 0x81, 0x61];
        let error = Symbols::read(&[&[0xEA], &shared[1..]].concat()).err();
        assert_eq!(error, Some(Malformed(&"an import of a shared symbol table")));
    }
}
