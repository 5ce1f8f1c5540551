//! Serde types to Ion binary, in `serde_json`'s form: what `serde_json` would write as JSON, this writes as Ion.
//!
//! Unit and `None` are null; a newtype is what it holds; sequences and tuples are lists; maps and structs are structs with their
//! fields in order; an enum's unit variant is a string, any other variant a struct of one field. Beyond JSON there are ints
//! of 128 bits, floats of 32 bits, infinities, NaN, and bytes (`serialize_bytes`) as a blob, which Python does not read.

use std::cell::Cell;
use std::fmt;

use serde::ser::{self, Serialize};

use super::ion::{self, Container};
use super::key::Key;
use super::symbols::NewSymbols;
use super::{Encoded, Lent, MAX_DEPTH, MAX_SYMBOLS};

/// A value that cannot be encoded. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Too many levels: send it flatter, and see that it does not hold itself.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Too many different field names: send a list of pairs.
    #[error("more than {MAX_SYMBOLS} different field names")]
    TooManyNames,
    /// A map's key that no field name can stand for: use keys that are texts, chars, ints, bools or unit variants.
    #[error("a map's key is {found}: only texts, chars, ints, bools and unit variants can be field names")]
    Key {
        /// What the key is.
        found: &'static str,
    },
    /// What the type's own `Serialize` says: see there.
    #[error("{0}")]
    Custom(String),
}

impl ser::Error for EncodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Custom(message.to_string())
    }
}

/// The most memory that a thread keeps for the next value. Unit: bytes; default and only value: 2 MiB. A large value that waits for room is encoded for each try, and new memory would cost more than that.
const KEPT_SCRATCH: usize = 2 << 20;

thread_local! {
    /// Values grow here and are then copied to a buffer of their size: one allocation a value, whatever it holds.
    static SCRATCH: Cell<Option<Box<Encoder>>> = const { Cell::new(None) };
}

/// Encodes a value of any serde type.
///
/// # Errors
///
/// [`EncodeError`]: the value cannot be sent in this form.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Encoded, EncodeError> {
    lend(value, |lent| Encoded::from(lent))
}

/// Encodes for as long as `take` runs.
pub(crate) fn lend<T: Serialize + ?Sized, R>(value: &T, take: impl FnOnce(Lent<'_>) -> R) -> Result<R, EncodeError> {
    let mut encoder = SCRATCH.take().unwrap_or_default();
    encoder.clear();
    let done = value.serialize(&mut *encoder);
    let encoded = done.map(|()| take(encoder.encoded()));
    if encoder.out.capacity() + encoder.symbols.capacity() <= KEPT_SCRATCH {
        SCRATCH.set(Some(encoder));
    }
    encoded
}

/// A value that is being written, with the names of its fields.
#[derive(Default)]
pub(crate) struct Encoder {
    out: Vec<u8>,
    symbols: NewSymbols,
    depth: usize,
}

impl Encoder {
    fn clear(&mut self) {
        self.out.clear();
        self.symbols.clear();
        self.depth = 0;
    }

    fn encoded(&mut self) -> Lent<'_> {
        let end = self.out.len();
        if !self.symbols.is_empty() {
            self.symbols.write(&mut self.out);
        }
        let (bytes, symbols) = self.out.split_at(end);
        Lent { bytes, symbols }
    }

    fn open(&mut self, container: Container) -> Result<usize, EncodeError> {
        if self.depth > MAX_DEPTH {
            return Err(EncodeError::TooDeep);
        }
        self.depth += 1;
        Ok(ion::open(container, &mut self.out))
    }

    fn close(&mut self, start: usize) {
        self.depth -= 1;
        ion::close(start, &mut self.out);
    }

    pub(crate) fn field_name(&mut self, name: &str) -> Result<(), EncodeError> {
        let id = self.symbols.id(name).ok_or(EncodeError::TooManyNames)?;
        ion::write_var_uint(id, &mut self.out);
        Ok(())
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), EncodeError> {
        self.field_name(name)?;
        value.serialize(self)
    }

    fn container(&mut self, container: Container) -> Result<Open<'_>, EncodeError> {
        let start = self.open(container)?;
        Ok(Open { encoder: self, start, variant: None })
    }

    fn variant(&mut self, name: &str, container: Container) -> Result<Open<'_>, EncodeError> {
        let outer = self.open(Container::Struct)?;
        self.field_name(name)?;
        let start = self.open(container)?;
        Ok(Open { encoder: self, start, variant: Some(outer) })
    }
}

/// A container that is being written, and around it, for a variant with contents, the struct of one field.
pub(crate) struct Open<'e> {
    encoder: &'e mut Encoder,
    start: usize,
    variant: Option<usize>,
}

impl Open<'_> {
    fn close(self) {
        self.encoder.close(self.start);
        if let Some(outer) = self.variant {
            self.encoder.close(outer);
        }
    }
}

pub(crate) type Done = Result<(), EncodeError>;

impl<'e> ser::Serializer for &'e mut Encoder {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Open<'e>;
    type SerializeTuple = Open<'e>;
    type SerializeTupleStruct = Open<'e>;
    type SerializeTupleVariant = Open<'e>;
    type SerializeMap = Open<'e>;
    type SerializeStruct = Open<'e>;
    type SerializeStructVariant = Open<'e>;

    fn serialize_bool(self, value: bool) -> Done {
        ion::write_bool(value, &mut self.out);
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Done {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Done {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Done {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Done {
        ion::write_int(value, &mut self.out);
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Done {
        ion::write_big_int(value < 0, value.unsigned_abs(), &mut self.out);
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Done {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Done {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Done {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Done {
        ion::write_uint(value, &mut self.out);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Done {
        ion::write_big_int(false, value, &mut self.out);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Done {
        ion::write_f32(value, &mut self.out);
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Done {
        ion::write_f64(value, &mut self.out);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Done {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Done {
        ion::write_string(value, &mut self.out);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Done {
        ion::write_blob(value, &mut self.out);
        Ok(())
    }

    fn serialize_none(self) -> Done {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Done {
        self.out.push(ion::NULL);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Done {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Done {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Done {
        let start = self.open(Container::Struct)?;
        self.field(variant, value)?;
        self.close(start);
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Open<'e>, EncodeError> {
        self.container(Container::List)
    }

    fn serialize_tuple(self, _: usize) -> Result<Open<'e>, EncodeError> {
        self.container(Container::List)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Open<'e>, EncodeError> {
        self.container(Container::List)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Open<'e>, EncodeError> {
        self.variant(variant, Container::List)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Open<'e>, EncodeError> {
        self.container(Container::Struct)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Open<'e>, EncodeError> {
        self.container(Container::Struct)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Open<'e>, EncodeError> {
        self.variant(variant, Container::Struct)
    }
}

/// The traits of lists differ in names only.
macro_rules! list {
    ($trait:ident, $method:ident) => {
        impl ser::$trait for Open<'_> {
            type Ok = ();
            type Error = EncodeError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
                value.serialize(&mut *self.encoder)
            }

            fn end(self) -> Done {
                self.close();
                Ok(())
            }
        }
    };
}

list!(SerializeSeq, serialize_element);
list!(SerializeTuple, serialize_element);
list!(SerializeTupleStruct, serialize_field);
list!(SerializeTupleVariant, serialize_field);

/// So do the traits of structs.
macro_rules! fields {
    ($trait:ident) => {
        impl ser::$trait for Open<'_> {
            type Ok = ();
            type Error = EncodeError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Done {
                self.encoder.field(name, value)
            }

            fn end(self) -> Done {
                self.close();
                Ok(())
            }
        }
    };
}

fields!(SerializeStruct);
fields!(SerializeStructVariant);

impl ser::SerializeMap for Open<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Done {
        key.serialize(Key(self.encoder))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        value.serialize(&mut *self.encoder)
    }

    fn end(self) -> Done {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn bytes(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
        encode(value).unwrap().bytes.to_vec()
    }

    #[test]
    fn small_values_take_the_bytes_that_python_writes() {
        assert_eq!(bytes(&()), [0x0F]);
        assert_eq!(bytes(&41), [0x21, 0x29]);
        assert_eq!(bytes(&-1), [0x31, 0x01]);
        assert_eq!(bytes(&0.0), [0x40]);
        assert_eq!(bytes(&-0.0)[0], 0x48);
        assert_eq!(bytes(&1.5_f32)[0], 0x44);
        assert_eq!(bytes("abc"), [0x83, b'a', b'b', b'c']);
        assert_eq!(bytes(&'é'), [0x82, 0xC3, 0xA9]);
        assert_eq!(bytes(&(1, "x", None::<u8>)), [0xB5, 0x21, 1, 0x81, b'x', 0x0F]);
        assert_eq!(bytes(&(1_u128 << 64)).len(), 10);
    }

    #[test]
    fn names_of_the_system_need_no_table() {
        let encoded = encode(&BTreeMap::from([("name", 1), ("version", 2)])).unwrap();
        assert_eq!(&encoded.bytes[..], [0xD6, 0x84, 0x21, 1, 0x85, 0x21, 2]);
        assert_eq!(encoded.symbols, None);
        let encoded = encode(&BTreeMap::from([("a", 1)])).unwrap();
        assert_eq!(&encoded.bytes[..], [0xD3, 0x8A, 0x21, 1]);
        assert_eq!(encoded.symbols.as_deref(), Some(&[0xE7, 0x81, 0x83, 0xD4, 0x87, 0xB2, 0x81, b'a'][..]));
    }

    #[test]
    fn a_key_that_is_no_field_name_is_refused_by_what_it_is() {
        let error = encode(&BTreeMap::from([((1, 2), 3)])).unwrap_err();
        assert_eq!(error, EncodeError::Key { found: "a tuple" });
        let fine = encode(&BTreeMap::from([(Some(-3), true)])).unwrap();
        let back: BTreeMap<String, bool> = super::super::decode(&fine).unwrap();
        assert_eq!(back, BTreeMap::from([("-3".to_owned(), true)]));
    }

    #[test]
    fn a_value_that_is_too_deep_is_refused_without_overflowing_the_stack() {
        struct Endless;
        impl Serialize for Endless {
            fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq([Endless])
            }
        }
        assert_eq!(encode(&Endless), Err(EncodeError::TooDeep));
        assert_eq!(encode(&[1]).unwrap().bytes.len(), 3, "the next value is not disturbed");
    }
}
