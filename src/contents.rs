//! What a message carries: any serde type, any Ion element, or bytes passed on as they came.
//!
//! Contents are handed over by value. Inside a process they stay the value that was handed over, and whoever asks for the same type gets it without
//! encoding. Asked for another type, or sent elsewhere, they are encoded as Ion in the form that JSON would have (enums as strings or one-key
//! structs), so what one type reads of another is the same near and far.

use std::any::{Any, type_name};
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::{self, Element, Encoded, Lent};

/// Contents of a message, typed or encoded. Its `Debug` names the type or size, never the contents.
pub struct Contents(Form);

enum Form {
    Value(Box<dyn Value>),
    /// Without symbols, as most are: in place.
    Plain(Bytes),
    Encoded(Box<Encoded>),
}

/// What can be sent: every serde type, and [`Contents`] themselves.
pub trait IntoContents {
    /// Wraps without encoding.
    fn into_contents(self) -> Contents;
}

/// Contents that are not what was asked for; both are named. Ask for what was found, or tell the sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("contents asked for as {asked}: {problem}")]
pub struct ContentsError {
    /// The Rust type asked for.
    pub asked: &'static str,
    /// What was found instead, and where in the contents.
    pub problem: String,
}

/// A value that can be encoded when somebody needs it encoded.
trait Value: Send {
    fn encode(&self) -> Result<Encoded, wire::EncodeError>;
    fn lend(&self, take: &mut dyn FnMut(Lent<'_>)) -> Result<(), wire::EncodeError>;
    fn as_any(&self) -> &dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    fn type_name(&self) -> &'static str;
}

impl<T: Serialize + Send + 'static> Value for T {
    fn encode(&self) -> Result<Encoded, wire::EncodeError> {
        wire::encode(self)
    }

    fn lend(&self, take: &mut dyn FnMut(Lent<'_>)) -> Result<(), wire::EncodeError> {
        wire::lend(self, take)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn type_name(&self) -> &'static str {
        type_name::<T>()
    }
}

impl<T: Serialize + Send + 'static> IntoContents for T {
    fn into_contents(self) -> Contents {
        Contents(Form::Value(Box::new(self)))
    }
}

impl IntoContents for Contents {
    fn into_contents(self) -> Contents {
        self
    }
}

impl Contents {
    /// No contents: null.
    #[must_use]
    pub fn null() -> Self {
        Self::from(Encoded::null())
    }

    /// Contents of an Ion element of any type. Python reads no blobs, clobs, decimals, timestamps and symbols.
    ///
    /// # Errors
    ///
    /// When the element is nested too deeply to be read again.
    pub fn from_element(element: &Element) -> Result<Self, ContentsError> {
        let refused = |error: wire::EncodeError| ContentsError { asked: "Element", problem: error.to_string() };
        wire::encode_element(element).map(Self::from).map_err(refused)
    }

    /// Contents of one Ion value as people type it: `{rows: [1, 2.5e0], name: "x"}`. JSON is Ion, except that 2.5 is a decimal.
    ///
    /// # Errors
    ///
    /// When the text is not one Ion value.
    pub fn from_text(text: &str) -> Result<Self, ContentsError> {
        let element = wire::text_to_element(text).map_err(|error| wrong::<Element>(&error))?;
        Self::from_element(&element)
    }

    /// The contents as Ion text on one line.
    ///
    /// # Errors
    ///
    /// When they are not valid Ion, or a value that cannot be encoded.
    pub fn to_text(&self) -> Result<String, ContentsError> {
        wire::element_to_text(&self.element()?).map_err(|error| wrong::<Element>(&error))
    }

    /// The contents as an Ion element.
    ///
    /// # Errors
    ///
    /// When they are not valid Ion, or a value that cannot be encoded.
    pub fn element(&self) -> Result<Element, ContentsError> {
        let encoded = self.encoded().map_err(|error| wrong::<Element>(&error))?;
        wire::decode_element(&encoded).map_err(|error| wrong::<Element>(&error))
    }

    /// A copy of the contents as a `T`.
    ///
    /// # Errors
    ///
    /// When they are something else, naming both.
    pub fn get<T: DeserializeOwned + Clone + 'static>(&self) -> Result<T, ContentsError> {
        if let Form::Value(value) = &self.0
            && let Some(same) = value.as_any().downcast_ref::<T>()
        {
            return Ok(same.clone());
        }
        self.decode()
    }

    /// The contents as a `T`, moved out.
    ///
    /// # Errors
    ///
    /// When they are something else, naming both; the contents come back.
    pub fn take<T: DeserializeOwned + 'static>(self) -> Result<T, (ContentsError, Contents)> {
        let contents = match self.0 {
            Form::Value(value) if value.as_any().is::<T>() => match value.into_any().downcast::<T>() {
                Ok(same) => return Ok(*same),
                Err(_) => unreachable!("its type was just compared"),
            },
            Form::Plain(bytes) => {
                let encoded = Encoded { bytes, symbols: None };
                return wire::decode(&encoded).map_err(|error| (wrong::<T>(&error), Self::from(encoded)));
            }
            other => Contents(other),
        };
        contents.decode().map_err(|error| (error, contents))
    }

    /// The encoded form, made now if there was none.
    pub(crate) fn encoded(&self) -> Result<Encoded, wire::EncodeError> {
        match &self.0 {
            Form::Value(value) => value.encode(),
            Form::Plain(bytes) => Ok(Encoded { bytes: bytes.clone(), symbols: None }),
            Form::Encoded(encoded) => Ok((**encoded).clone()),
        }
    }

    /// The encoded form, for as long as `take` runs.
    pub(crate) fn lend(&self, mut take: impl FnMut(Lent<'_>)) -> Result<(), wire::EncodeError> {
        match &self.0 {
            Form::Value(value) => return value.lend(&mut take),
            Form::Plain(bytes) => take(Lent { bytes, symbols: &[] }),
            Form::Encoded(encoded) => take(encoded.lend()),
        }
        Ok(())
    }

    fn decode<T: DeserializeOwned>(&self) -> Result<T, ContentsError> {
        let encoded = self.encoded().map_err(|error| wrong::<T>(&error))?;
        wire::decode(&encoded).map_err(|error| wrong::<T>(&error))
    }
}

impl From<Encoded> for Contents {
    fn from(encoded: Encoded) -> Self {
        Self(match encoded.symbols {
            None => Form::Plain(encoded.bytes),
            Some(_) => Form::Encoded(Box::new(encoded)),
        })
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Value(value) => f.write_str(value.type_name()),
            Form::Plain(bytes) => fmt::Debug::fmt(&Encoded { bytes: bytes.clone(), symbols: None }, f),
            Form::Encoded(encoded) => fmt::Debug::fmt(encoded, f),
        }
    }
}

fn wrong<T>(problem: &impl fmt::Display) -> ContentsError {
    ContentsError { asked: type_name::<T>(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn far(contents: &Contents) -> Contents {
        Contents::from(contents.encoded().unwrap())
    }

    #[test]
    fn the_same_type_arrives_by_move_and_another_by_encoding() {
        let near = 41_i64.into_contents();
        assert_eq!(near.get::<i64>(), Ok(41));
        assert_eq!(near.get::<u8>(), Ok(41));
        assert_eq!(near.take::<i64>().unwrap(), 41);
    }

    #[test]
    fn a_misfit_reads_the_same_near_and_far() {
        let near = "forty".into_contents();
        let error = near.get::<i64>().unwrap_err();
        assert_eq!(far(&near).get::<i64>().unwrap_err(), error);
        assert!(error.to_string().contains("i64"), "{error}");
        assert!(error.to_string().contains("string"), "{error}");
        let (same, back) = near.take::<i64>().unwrap_err();
        assert_eq!((same, back.get::<String>().unwrap().as_str()), (error, "forty"));
    }

    #[test]
    fn contents_are_read_from_text_and_written_as_such() {
        let contents = Contents::from_text("{rows: [1, 2.5e0, sym], name: \"x\"}").unwrap();
        let again = Contents::from_text(&contents.to_text().unwrap()).unwrap();
        assert!(contents.element().unwrap() == again.element().unwrap());
        assert_eq!("a".into_contents().to_text().unwrap(), "\"a\"");
        assert!(Contents::from_text("{rows").unwrap_err().to_string().contains("not one Ion value"));
    }

    #[test]
    fn debug_shows_no_contents() {
        assert_eq!(format!("{:?}", "secret".into_contents()), "&str");
        assert!(!format!("{:?}", far(&"secret".into_contents())).contains("secret"));
    }
}
