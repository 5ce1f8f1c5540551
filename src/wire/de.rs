//! Ion binary to serde types, in `serde_json`'s form: any type that reads its JSON reads the same as Ion.
//!
//! The bytes need not have passed the gate: lengths, depth and UTF-8 are checked as they are met, and bad ones are errors. What a
//! type does not ask for is passed over without a look. Of fields that are repeated the last one counts.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Unexpected, VariantAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::ion::{self, Kind, Malformed, Reader, Value};
use super::refused::{Refused, short_name, shorten};
use super::symbols::Symbols;
use super::{Encoded, MAX_DEPTH};

/// A value that is not of the asked type: ask for what it is, or tell the sender what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct DecodeError {
    /// Where in the value, which itself is `$`: `$.rows[3].price`.
    pub path: String,
    /// What was found there, and what was expected.
    pub reason: String,
}

impl From<Refused> for DecodeError {
    fn from(refused: Refused) -> Self {
        let Refused { what, path, reason, .. } = refused;
        Self { path, reason: format!("{what}: {reason}") }
    }
}

/// Decodes a value as a type of serde's, borrowing texts and bytes where the type does.
///
/// # Errors
///
/// [`DecodeError`]: the value is of another type, or its bytes are not well-formed.
pub fn decode<'a, T: Deserialize<'a>>(value: &'a Encoded) -> Result<T, DecodeError> {
    decode_root(value).map_err(Error::told)
}

fn decode_root<'a, T: Deserialize<'a>>(value: &'a Encoded) -> Result<T, Error> {
    let symbols = Symbols::read(value.symbol_bytes())?;
    let Some(root) = Reader::new(&value.bytes).value()? else {
        return Err(de::Error::custom("there is no value"));
    };
    T::deserialize(Decoder { value: root, symbols: &symbols, depth: 0 })
}

/// The error on its way up, which gathers the path.
#[derive(Debug)]
struct Error(Box<Told>);

#[derive(Debug)]
struct Told {
    reason: String,
    /// The steps down to it, the last one first.
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Field(String),
    Index(usize),
}

impl Error {
    fn at(mut self, step: Step) -> Self {
        self.0.steps.push(step);
        self
    }

    fn told(self) -> DecodeError {
        let Told { reason, steps } = *self.0;
        let mut path = String::from("$");
        for step in steps.iter().rev() {
            // Writing to a `String` cannot fail.
            let _ = match step {
                Step::Field(name) => write!(path, ".{name}"),
                Step::Index(index) => write!(path, "[{index}]"),
            };
        }
        shorten(&mut path);
        DecodeError { path, reason }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.reason)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self(Box::new(Told { reason: reason.to_string(), steps: Vec::new() }))
    }
}

impl From<Malformed> for Error {
    fn from(Malformed(reason): Malformed) -> Self {
        de::Error::custom(format_args!("malformed Ion: {reason}"))
    }
}

/// A value to be decoded, and the symbols in force.
#[derive(Clone, Copy)]
struct Decoder<'de, 's> {
    value: Value<'de>,
    symbols: &'s Symbols<'de>,
    /// How many containers it is in.
    depth: usize,
}

impl<'de, 's> Decoder<'de, 's> {
    fn kind(&self) -> Kind {
        if self.value.is_null() { Kind::Null } else { self.value.header.kind }
    }

    fn inside(&self, value: Value<'de>) -> Self {
        Self { value, symbols: self.symbols, depth: self.depth + 1 }
    }

    /// Refuses to go into a container that is too deep.
    fn enter(&self) -> Result<(), Error> {
        if self.depth > MAX_DEPTH {
            return Err(de::Error::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }

    fn text(&self) -> Result<&'de str, Error> {
        let body = self.value.body;
        if self.value.header.kind == Kind::Symbol {
            let text = ion::symbol_id(body).and_then(|id| self.symbols.text(id)).flatten();
            return text.ok_or_else(|| de::Error::custom("a symbol without text"));
        }
        std::str::from_utf8(body).map_err(|_| Malformed(&"text that is not UTF-8").into())
    }

    fn visit_int<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let negative = self.value.header.kind == Kind::Negative;
        let Some(magnitude) = ion::magnitude(self.value.body) else {
            return Err(self.too_large());
        };
        if !negative {
            return match u64::try_from(magnitude) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_u128(magnitude),
            };
        }
        let Some(number) = 0_i128.checked_sub_unsigned(magnitude) else {
            return Err(self.too_large());
        };
        match i64::try_from(number) {
            Ok(number) => visitor.visit_i64(number),
            Err(_) => visitor.visit_i128(number),
        }
    }

    fn too_large(&self) -> Error {
        let bytes = ion::without_leading_zeros(self.value.body);
        let unused = bytes.first().map_or(0, |byte| byte.leading_zeros());
        let bits = bytes.len() as u64 * 8 - u64::from(unused);
        de::Error::custom(format_args!(
            "an int of {bits} bits does not fit the 128 of Rust's largest: read it as an Ion element"
        ))
    }

    fn visit_list<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.enter()?;
        let mut items = Items { of: self, reader: Reader::new(self.value.body), index: 0 };
        let visited = visitor.visit_seq(&mut items)?;
        let taken = items.index;
        match items.reader.value()? {
            None => Ok(visited),
            Some(_) => Err(de::Error::invalid_length(taken + 1, &"fewer elements")),
        }
    }

    fn visit_struct<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.enter()?;
        visitor.visit_map(Fields {
            of: self,
            reader: Reader::new(self.value.body),
            last: last_of_repeated(self.value.body, self.symbols)?,
            next: None,
        })
    }

    fn variant(self) -> Result<Variant<'de, 's>, Error> {
        match self.kind() {
            Kind::String | Kind::Symbol => Ok(Variant { name: self.text()?, contents: None }),
            Kind::Struct => self.variant_with_contents(),
            _ => Err(de::Error::invalid_type(self.unexpected(), &VARIANT)),
        }
    }

    fn variant_with_contents(self) -> Result<Variant<'de, 's>, Error> {
        self.enter()?;
        let mut fields = Reader::new(self.value.body);
        match (fields.field()?, fields.field()?) {
            (Some((name, value)), None) => {
                Ok(Variant { name: field_name(name, self.symbols)?, contents: Some(self.inside(value)) })
            }
            _ => Err(de::Error::invalid_value(Unexpected::Map, &VARIANT)),
        }
    }

    fn unexpected(&self) -> Unexpected<'de> {
        match self.kind() {
            Kind::Null => Unexpected::Unit,
            Kind::Bool => Unexpected::Bool(self.value.header.low == 1),
            Kind::List | Kind::Sexp => Unexpected::Seq,
            Kind::Struct => Unexpected::Map,
            kind => Unexpected::Other(kind.name()),
        }
    }
}

const VARIANT: &str = "a variant: a string, or a struct of one field";

fn field_name<'de>(id: usize, symbols: &Symbols<'de>) -> Result<&'de str, Error> {
    let text = symbols.text(id).flatten();
    text.ok_or_else(|| de::Error::custom(format_args!("a field name without text, ${id}")))
}

/// For a struct that repeats a field, where each field's last value ends; none for a struct that does not.
fn last_of_repeated(body: &[u8], symbols: &Symbols<'_>) -> Result<Option<HashMap<usize, usize>>, Error> {
    let mut seen = 0_u128;
    let mut high = Vec::new();
    let mut repeats = false;
    let mut fields = Reader::new(body);
    while let Some((id, _)) = fields.field()? {
        let id = symbols.canonical(id);
        if id < 128 {
            repeats |= seen >> id & 1 == 1;
            seen |= 1 << id;
        } else {
            high.push(id);
        }
    }
    high.sort_unstable();
    repeats |= high.windows(2).any(|pair| pair.first() == pair.last());
    if !repeats {
        return Ok(None);
    }
    let mut last = HashMap::new();
    let mut fields = Reader::new(body);
    while let Some((id, _)) = fields.field()? {
        last.insert(symbols.canonical(id), fields.at());
    }
    Ok(Some(last))
}

impl<'de> Deserializer<'de> for Decoder<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.kind() {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool => visitor.visit_bool(self.value.header.low == 1),
            Kind::Positive | Kind::Negative => self.visit_int(visitor),
            Kind::Float => match ion::float(self.value.body) {
                Some(number) => visitor.visit_f64(number),
                None => Err(Malformed(&"a float of another length").into()),
            },
            Kind::String | Kind::Symbol => visitor.visit_borrowed_str(self.text()?),
            Kind::Clob | Kind::Blob => visitor.visit_borrowed_bytes(self.value.body),
            Kind::List | Kind::Sexp => self.visit_list(visitor),
            Kind::Struct => self.visit_struct(visitor),
            Kind::Decimal | Kind::Timestamp => Err(de::Error::custom(format_args!(
                "a {}, which serde has no type for: read it as an Ion element",
                self.value.header.name()
            ))),
            Kind::Nop | Kind::Annotated => Err(Malformed(&"no value where one must be").into()),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value.body {
            &[a, b, c, d] if self.kind() == Kind::Float => visitor.visit_f32(f32::from_be_bytes([a, b, c, d])),
            _ => self.deserialize_f64(visitor),
        }
    }

    /// An int is fine where a float is asked for, a large one too.
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let is_int = matches!(self.kind(), Kind::Positive | Kind::Negative);
        match ion::magnitude(self.value.body) {
            Some(number) if is_int && number > u128::from(u64::MAX) => {
                let negative = self.value.header.kind == Kind::Negative;
                let number = number as f64;
                visitor.visit_f64(if negative { -number } else { number })
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.kind() {
            Kind::String => visitor.visit_borrowed_bytes(self.value.body),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.kind() {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.variant()?)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string unit unit_struct
        seq tuple tuple_struct map struct identifier
    }
}

/// The elements of a list.
struct Items<'de, 's> {
    of: Decoder<'de, 's>,
    reader: Reader<'de>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(value) = self.reader.value()? else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        let element = seed.deserialize(self.of.inside(value));
        element.map(Some).map_err(|error| error.at(Step::Index(index)))
    }
}

/// The fields of a struct.
struct Fields<'de, 's> {
    of: Decoder<'de, 's>,
    reader: Reader<'de>,
    /// Where the value that counts ends, of each field, if any is repeated.
    last: Option<HashMap<usize, usize>>,
    /// The field whose name was given out.
    next: Option<(&'de str, Value<'de>)>,
}

impl Fields<'_, '_> {
    fn is_overruled(&self, id: usize) -> bool {
        let id = self.of.symbols.canonical(id);
        self.last.as_ref().is_some_and(|last| last.get(&id) != Some(&self.reader.at()))
    }
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        while let Some((id, value)) = self.reader.field()? {
            if self.is_overruled(id) {
                continue;
            }
            let name = field_name(id, self.of.symbols)?;
            self.next = Some((name, value));
            return seed.deserialize(Key(name)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((name, value)) = self.next.take() else {
            return Err(de::Error::custom("a field's value was asked for before its name"));
        };
        let field = seed.deserialize(self.of.inside(value));
        field.map_err(|error| error.at(Step::Field(short_name(name).into_owned())))
    }
}

/// A field's name, as a struct's field or as a map's key of whatever type was turned into it.
struct Key<'de>(&'de str);

/// A key that does not spell what is asked for is told as the text it is.
macro_rules! parsed {
    ($($method:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0.parse() {
                Ok(key) => visitor.$visit(key),
                Err(_) => visitor.visit_borrowed_str(self.0),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.0)
    }

    parsed! {
        deserialize_bool visit_bool
        deserialize_i8 visit_i8
        deserialize_i16 visit_i16
        deserialize_i32 visit_i32
        deserialize_i64 visit_i64
        deserialize_i128 visit_i128
        deserialize_u8 visit_u8
        deserialize_u16 visit_u16
        deserialize_u32 visit_u32
        deserialize_u64 visit_u64
        deserialize_u128 visit_u128
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(BorrowedStrDeserializer::new(self.0))
    }

    forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// An enum's value: the variant's name, and what it holds unless it is a unit variant.
struct Variant<'de, 's> {
    name: &'de str,
    contents: Option<Decoder<'de, 's>>,
}

impl<'de> Variant<'de, '_> {
    /// Hands the contents to `visit`, which expects a variant that has some.
    fn with_contents<T>(
        self,
        expected: &'static str,
        visit: impl FnOnce(Decoder<'de, '_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(contents) = self.contents else {
            return Err(de::Error::invalid_type(Unexpected::UnitVariant, &expected));
        };
        visit(contents).map_err(|error| error.at(Step::Field(short_name(self.name).into_owned())))
    }
}

impl<'de> EnumAccess<'de> for Variant<'de, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        Ok((seed.deserialize(Key(self.name))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.contents {
            None => Ok(()),
            Some(_) => self.with_contents("a unit variant", |contents| <()>::deserialize(contents)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        self.with_contents("a variant with contents", |contents| seed.deserialize(contents))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.with_contents("a variant with a tuple", |contents| match contents.kind() {
            Kind::List | Kind::Sexp => contents.visit_list(visitor),
            _ => Err(de::Error::invalid_type(contents.unexpected(), &"a tuple")),
        })
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.with_contents("a variant with fields", |contents| contents.deserialize_any(visitor))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use serde::{Deserialize, Serialize};

    use super::super::encode;
    use super::*;

    fn plain(bytes: &[u8]) -> Encoded {
        Encoded { bytes: Bytes::copy_from_slice(bytes), symbols: None }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        name: String,
        price: f64,
    }

    #[test]
    fn an_error_says_where_and_what_was_found() {
        let rows = BTreeMap::from([("rows", vec![("name", "price"), ("a", "b")])]);
        let error = decode::<BTreeMap<String, Vec<(String, f64)>>>(&encode(&rows).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "$.rows[0][1]: invalid type: string \"price\", expected f64");
        let error = decode::<Vec<Row>>(&encode(&[BTreeMap::from([("name", "n")])]).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "$[0]: missing field `price`");
    }

    #[test]
    fn of_repeated_fields_the_last_counts() {
        // {name: "a", version: 7, name: "b", version: 8}, the second `name` from a local table.
        let value = Encoded {
            bytes: Bytes::from_static(&[0xDC, 0x84, 0x81, b'a', 0x85, 0x21, 7, 0x8A, 0x81, b'b', 0x85, 0x21, 8]),
            symbols: Some(Bytes::from_static(&[0xEA, 0x81, 0x83, 0xD7, 0x87, 0xB5, 0x84, b'n', b'a', b'm', b'e'])),
        };
        #[derive(Debug, PartialEq, Deserialize)]
        struct Named<'a> {
            name: &'a str,
            version: u8,
        }
        assert_eq!(decode::<Named<'_>>(&value).unwrap(), Named { name: "b", version: 8 });
    }

    #[test]
    fn what_serde_cannot_hold_is_named() {
        let reason = |bytes: &[u8]| decode::<serde_json::Value>(&plain(bytes)).unwrap_err().reason;
        assert!(reason(&[0x52, 0xC1, 0x0F]).starts_with("a decimal, which"));
        let mut int = vec![0x2E, 0x91, 4];
        int.resize(20, 0);
        assert!(reason(&int).starts_with("an int of 131 bits"));
    }

    #[test]
    fn an_int_is_a_float_where_one_is_asked_for() {
        assert_eq!(decode::<f64>(&encode(&7).unwrap()).unwrap(), 7.0);
        assert_eq!(decode::<f64>(&encode(&-(1_i128 << 100)).unwrap()).unwrap(), -(2_f64.powi(100)));
        assert!(decode::<i64>(&encode(&7.0).unwrap()).is_err());
    }

    #[test]
    fn annotations_padding_and_s_expressions_are_read_through() {
        // (x::1 padding 2) with x = $4
        let value = plain(&[0xC9, 0xE4, 0x81, 0x84, 0x21, 1, 0x01, 0xFF, 0x21, 2]);
        assert_eq!(decode::<(u8, u8)>(&value).unwrap(), (1, 2));
    }

    #[test]
    fn a_blob_is_bytes_and_so_is_a_list_of_ints() {
        #[derive(Debug, PartialEq)]
        struct Buf(Vec<u8>);
        impl<'de> Deserialize<'de> for Buf {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visit;
                impl<'de> Visitor<'de> for Visit {
                    type Value = Buf;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("bytes")
                    }
                    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Buf, E> {
                        Ok(Buf(bytes.to_vec()))
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Buf, A::Error> {
                        let mut bytes = vec![];
                        while let Some(byte) = seq.next_element()? {
                            bytes.push(byte);
                        }
                        Ok(Buf(bytes))
                    }
                }
                deserializer.deserialize_byte_buf(Visit)
            }
        }
        assert_eq!(decode::<Buf>(&plain(&[0xA2, 1, 2])).unwrap(), Buf(vec![1, 2]));
        assert_eq!(decode::<Buf>(&encode(&[1, 2]).unwrap()).unwrap(), Buf(vec![1, 2]));
    }

    #[test]
    fn bytes_that_passed_no_gate_only_give_errors() {
        let mut deep = vec![0xB0];
        for _ in 0..5_000 {
            let mut outer = vec![];
            ion::write_header(0xB0, deep.len(), &mut outer);
            outer.append(&mut deep);
            deep = outer;
        }
        let error = decode::<serde_json::Value>(&plain(&deep)).unwrap_err();
        assert_eq!(error.reason, "nested deeper than 200 levels");
        for bytes in [&[][..], &[0xF0], &[0xD2, 0x8A, 0x20], &[0x71, 99], &[0x82, 0xFF, 0xFE], &[0xB1, 0x21]] {
            assert!(decode::<serde_json::Value>(&plain(bytes)).is_err(), "{bytes:x?}");
        }
    }
}
