//! A map's keys to field names: texts, chars, ints, bools and unit variants become text, anything else is refused by what it is.

use std::fmt;

use serde::ser::{self, Impossible, Serialize};

use super::ser::{Done, EncodeError, Encoder};

/// Writes a map's key as a field name.
pub(crate) struct Key<'e>(pub(crate) &'e mut Encoder);

impl Key<'_> {
    fn shown(self, key: impl fmt::Display) -> Done {
        self.0.field_name(&key.to_string())
    }

    fn refused<T>(found: &'static str) -> Result<T, EncodeError> {
        Err(EncodeError::Key { found })
    }
}

type No = Impossible<(), EncodeError>;

impl ser::Serializer for Key<'_> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = No;
    type SerializeTuple = No;
    type SerializeTupleStruct = No;
    type SerializeTupleVariant = No;
    type SerializeMap = No;
    type SerializeStruct = No;
    type SerializeStructVariant = No;

    fn serialize_bool(self, value: bool) -> Done {
        self.shown(value)
    }

    fn serialize_i8(self, value: i8) -> Done {
        self.shown(value)
    }

    fn serialize_i16(self, value: i16) -> Done {
        self.shown(value)
    }

    fn serialize_i32(self, value: i32) -> Done {
        self.shown(value)
    }

    fn serialize_i64(self, value: i64) -> Done {
        self.shown(value)
    }

    fn serialize_i128(self, value: i128) -> Done {
        self.shown(value)
    }

    fn serialize_u8(self, value: u8) -> Done {
        self.shown(value)
    }

    fn serialize_u16(self, value: u16) -> Done {
        self.shown(value)
    }

    fn serialize_u32(self, value: u32) -> Done {
        self.shown(value)
    }

    fn serialize_u64(self, value: u64) -> Done {
        self.shown(value)
    }

    fn serialize_u128(self, value: u128) -> Done {
        self.shown(value)
    }

    fn serialize_f32(self, _: f32) -> Done {
        Self::refused("a float")
    }

    fn serialize_f64(self, _: f64) -> Done {
        Self::refused("a float")
    }

    fn serialize_char(self, value: char) -> Done {
        self.0.field_name(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Done {
        self.0.field_name(value)
    }

    fn serialize_bytes(self, _: &[u8]) -> Done {
        Self::refused("bytes")
    }

    fn serialize_none(self) -> Done {
        Self::refused("null")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Done {
        Self::refused("null")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Done {
        Self::refused("null")
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Done {
        self.0.field_name(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(self, _: &'static str, _: u32, _: &'static str, _: &T) -> Done {
        Self::refused("a variant with contents")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<No, EncodeError> {
        Self::refused("a list")
    }

    fn serialize_tuple(self, _: usize) -> Result<No, EncodeError> {
        Self::refused("a tuple")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<No, EncodeError> {
        Self::refused("a tuple")
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<No, EncodeError> {
        Self::refused("a variant with contents")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<No, EncodeError> {
        Self::refused("a map")
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<No, EncodeError> {
        Self::refused("a struct")
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<No, EncodeError> {
        Self::refused("a variant with contents")
    }
}
