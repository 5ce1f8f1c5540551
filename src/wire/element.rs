//! Ion elements to their encoding and back, and Ion text as people type it: the only place that runs `ion_rs`.
//!
//! Its reader recurses and can panic on odd input, so it sees binary only behind the gate, text only after a look at length and
//! depth, and always where a panic is caught.

use std::panic::{UnwindSafe, catch_unwind};
use std::thread;

use bytes::Bytes;
use ion_rs::v1_0::Binary;
use ion_rs::{Element, IonResult, Value};

use super::gate::check;
use super::ion::{self, MARKER};
use super::refused::Fault;
use super::top::Top;
use super::{DecodeError, EncodeError, Encoded, MAX_DEPTH, Profile};

/// The longest text that is read. Unit: bytes; default and only value: 1 MiB, far more than anybody types.
pub const MAX_TEXT: usize = 1024 * 1024;

/// The stack that text is read on. Unit: bytes; default and only value: 16 MiB, of which only what is used is taken: five times
/// what [`MAX_DEPTH`] levels took where the reader was not optimized.
const TEXT_STACK: usize = 16 * 1024 * 1024;

/// What is told of a reader that panicked.
const GAVE_UP: &str = "the Ion reader gave up on it";

/// Text that is not one Ion value: see the reason and type it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// More than [`MAX_TEXT`]: send it from a program.
    #[error("{len} bytes of text, more than {MAX_TEXT}")]
    TooLong {
        /// How long it is.
        len: usize,
    },
    /// Brackets within brackets beyond [`MAX_DEPTH`]: send it flatter.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Not Ion, or not exactly one value.
    #[error("not one Ion value: {0}")]
    Malformed(String),
}

/// Encodes an Ion element.
///
/// # Errors
///
/// [`EncodeError::TooDeep`], and [`EncodeError::Custom`] for an element that only looks like a value, such as a symbol table.
pub fn encode_element(element: &Element) -> Result<Encoded, EncodeError> {
    if is_too_deep(element) {
        return Err(EncodeError::TooDeep);
    }
    let stream = element.encode_as(Binary).map_err(|error| EncodeError::Custom(error.to_string()))?;
    only_value(&stream.into()).map_err(|fault| EncodeError::Custom(fault.refused_in_frame().to_string()))
}

fn only_value(stream: &Bytes) -> Result<Encoded, Fault> {
    let mut top = Top::new(stream, Profile::Rust)?;
    let value = top.next()?.map(|_| top.encoded());
    match (value, top.next()?) {
        (Some(value), None) => Ok(value),
        _ => Err(Fault::malformed(0, ion::Malformed(&"a symbol table is not a value"))),
    }
}

/// Whether a container is in more than [`MAX_DEPTH`] others; looks no deeper than that.
fn is_too_deep(element: &Element) -> bool {
    let mut waiting = vec![(element, 0)];
    while let Some((element, depth)) = waiting.pop() {
        let inside = depth + 1;
        match element.value() {
            Value::List(_) | Value::SExp(_) | Value::Struct(_) if depth > MAX_DEPTH => return true,
            Value::List(items) | Value::SExp(items) => {
                waiting.extend(items.iter().map(|item| (item, inside)));
            }
            Value::Struct(fields) => waiting.extend(fields.iter().map(|(_, value)| (value, inside))),
            _ => {}
        }
    }
    false
}

/// Decodes a value as an Ion element: any type, ints of any size, annotations and symbols kept.
///
/// # Errors
///
/// [`DecodeError`] for bytes that are not well-formed.
pub fn decode_element(value: &Encoded) -> Result<Element, DecodeError> {
    check(value, Profile::Rust, "$")?;
    let malformed = |reason| DecodeError { path: "$".into(), reason };
    let stream = in_a_list(value);
    let list = caught(move || Element::read_one(stream)).map_err(malformed)?;
    let items = list.try_into_list().map_err(|error| malformed(error.to_string()))?;
    let mut items = items.into_iter();
    items.next().ok_or_else(|| malformed("there is no value".into()))
}

/// The value as the only element of a list, so that no reader takes it for one of a stream's own values.
fn in_a_list(value: &Encoded) -> Vec<u8> {
    let mut stream = Vec::with_capacity(value.wire_len() + 16);
    stream.extend_from_slice(&MARKER);
    stream.extend_from_slice(value.symbol_bytes());
    ion::write_header(ion::Container::List as u8, value.bytes.len(), &mut stream);
    stream.extend_from_slice(&value.bytes);
    stream
}

/// Reads one Ion value from text.
///
/// # Errors
///
/// [`TextError`]: what is wrong with the text.
pub fn text_to_element(text: &str) -> Result<Element, TextError> {
    if text.len() > MAX_TEXT {
        return Err(TextError::TooLong { len: text.len() });
    }
    if depth_of_text(text) > MAX_DEPTH + 1 {
        return Err(TextError::TooDeep);
    }
    let text = text.to_owned();
    on_a_stack_of_its_own(move || Element::read_one(text)).map_err(TextError::Malformed)
}

/// Runs the text reader, which takes ten kilobytes of stack a level where it is not optimized, on a thread that has them.
fn on_a_stack_of_its_own<T: Send + 'static>(read: impl FnOnce() -> IonResult<T> + Send + 'static) -> Result<T, String> {
    let read = move || read().map_err(|error| error.to_string());
    let thread = thread::Builder::new().stack_size(TEXT_STACK).spawn(read);
    let thread = thread.map_err(|error| format!("no thread to read it on: {error}"))?;
    thread.join().unwrap_or_else(|_| Err(GAVE_UP.into()))
}

/// Writes an element as Ion text, on one line unless it has lines of its own.
///
/// # Errors
///
/// [`EncodeError::TooDeep`], and [`EncodeError::Custom`] for an element that has no text.
pub fn element_to_text(element: &Element) -> Result<String, EncodeError> {
    if is_too_deep(element) {
        return Err(EncodeError::TooDeep);
    }
    let text = element.encode_as(ion_rs::v1_0::Text.with_format(ion_rs::TextFormat::Compact));
    let text = text.map_err(|error| EncodeError::Custom(error.to_string()))?;
    Ok(text.trim().to_owned())
}

/// Runs a reader that may panic; the panic becomes an error.
fn caught<T>(read: impl FnOnce() -> IonResult<T> + UnwindSafe) -> Result<T, String> {
    match catch_unwind(read) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(GAVE_UP.into()),
    }
}

/// How deep brackets are within brackets, outside of texts and comments.
///
/// Where text is not well-formed the answer may be too high, and then the text is refused for that instead.
fn depth_of_text(text: &str) -> usize {
    let mut rest = text;
    let (mut depth, mut deepest) = (0_usize, 0);
    while let Some(next) = rest.chars().next() {
        if let Some(after) = after_lob(rest).or_else(|| after_quoted(rest)).or_else(|| after_comment(rest)) {
            rest = after;
            continue;
        }
        match next {
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
        rest = rest.get(next.len_utf8()..).unwrap_or_default();
    }
    deepest
}

/// What follows a blob, in whose base64 two slashes are no comment. A clob's text is left to [`after_quoted`].
fn after_lob(text: &str) -> Option<&str> {
    let inside = text.strip_prefix("{{")?;
    let end = inside.find(|c: char| !(c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || "+/=".contains(c)))?;
    inside.get(end..)?.strip_prefix("}}")
}

/// What follows a string, a long string or a quoted symbol; all of nothing if it does not end.
fn after_quoted(text: &str) -> Option<&str> {
    let quote = ["'''", "\"", "'"].into_iter().find(|&quote| text.starts_with(quote))?;
    let mut rest = text.strip_prefix(quote)?;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(quote) {
            return Some(after);
        }
        let mut chars = rest.chars();
        if chars.next() == Some('\\') {
            chars.next();
        }
        rest = chars.as_str();
    }
    Some(rest)
}

/// What follows a comment.
fn after_comment(text: &str) -> Option<&str> {
    let (inside, end) = match text.strip_prefix("//") {
        Some(inside) => (inside, "\n"),
        None => (text.strip_prefix("/*")?, "*/"),
    };
    Some(inside.split_once(end).map_or("", |(_, after)| after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) {
        let element = text_to_element(text).unwrap();
        let encoded = encode_element(&element).unwrap();
        assert!(element == decode_element(&encoded).unwrap(), "{text}");
        let again = text_to_element(&element_to_text(&element).unwrap()).unwrap();
        assert!(element == again, "{text}");
    }

    #[test]
    fn elements_of_every_type_come_back() {
        for text in [
            "null",
            "null.blob",
            "{a: 1, b: [2., 1.5e0, 2026-11-22T10:00Z], c: (x y \"z\")}",
            "outer::inner::{{aGk=}}",
            "{{\"clob\"}}",
            "a_symbol",
            "123456789012345678901234567890123456789012345678901234567890",
            "$ion_symbol_table::[1]",
            "{a: $ion_symbol_table::{symbols: [\"q\"]}}",
        ] {
            round_trip(text);
        }
    }

    #[test]
    fn an_element_that_reads_as_a_symbol_table_is_refused() {
        let table = Element::read_one("[$ion_symbol_table::{symbols: [\"q\"]}]").unwrap();
        let table = table.as_list().unwrap().get(0).unwrap();
        assert!(matches!(encode_element(table), Err(EncodeError::Custom(_))));
    }

    #[test]
    fn depth_of_text_counts_brackets_outside_of_texts() {
        for (text, depth) in [
            ("1", 0),
            ("[[], ()]", 2),
            (r#"["[[[", '[[', '''[[[[''' ]"#, 1),
            (r#"["\"[["]"#, 1),
            ("[ /* [[[ */ // [[[\n [] ]", 2),
            ("[{{ aa//aa== }}, {{\"[\"}}, [[]]]", 3),
        ] {
            assert_eq!(depth_of_text(text), depth, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(text_to_element(&deep), Err(TextError::TooDeep));
        assert!(text_to_element(&format!("{}{}", "[".repeat(200), "]".repeat(200))).is_ok());
    }

    #[test]
    fn text_that_is_no_value_is_refused() {
        for text in ["", "1 2", "[", "}", "\u{e9}\u{0}", "$ion_1_1 1", "{a:}"] {
            assert!(matches!(text_to_element(text), Err(TextError::Malformed(_))), "{text:?}");
        }
        let long = " ".repeat(MAX_TEXT + 1);
        assert_eq!(text_to_element(&long), Err(TextError::TooLong { len: MAX_TEXT + 1 }));
    }

    #[test]
    fn an_element_may_be_as_deep_as_a_value_and_no_deeper() {
        let nested =
            |levels| (1..levels).fold(Element::from(ion_rs::ion_list![]), |inner, _| ion_rs::ion_list![inner].into());
        assert!(decode_element(&encode_element(&nested(201)).unwrap()).is_ok());
        assert_eq!(encode_element(&nested(202)), Err(EncodeError::TooDeep));
    }
}
