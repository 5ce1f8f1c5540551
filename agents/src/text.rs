//! Contents as people type and read them: JSON, or Ion text.

use serde::Deserialize;
use vlmessaging::{Contents, ContentsError, Element, IntoContents, Value};

use crate::outcome::Failure;

/// From here on a float may stand for an int that JSON's reader could not hold. 2 to the 63rd.
const LARGE: f64 = 9_223_372_036_854_775_808.0;

/// Contents read from text, to be sent any number of times.
#[derive(Clone)]
pub(crate) enum Typed {
    Json(Value),
    Ion(Element),
}

impl Typed {
    /// Reads JSON, and what is not JSON as Ion text.
    pub(crate) fn read(text: &str) -> Result<Self, Failure> {
        match serde_json::from_str::<Value>(text) {
            Ok(value) if !may_be_rounded(&value) => Ok(Self::Json(value)),
            _ => Contents::from_text(text).and_then(|contents| contents.element()).map(Self::Ion).map_err(|error| {
                Failure::usage(format!("contents {text:?} are neither JSON nor Ion text: {}", error.problem))
                    .next("quote text within the shell's quotes: '\"text\"'")
            }),
        }
    }

    pub(crate) fn contents(&self) -> Result<Contents, ContentsError> {
        match self {
            Self::Json(value) => Ok(value.clone().into_contents()),
            Self::Ion(element) => Contents::from_element(element),
        }
    }
}

/// Whether an int may have been read as a float: Ion reads it as it is.
fn may_be_rounded(value: &Value) -> bool {
    match value {
        Value::Float(float) => float.abs() >= LARGE,
        Value::List(items) => items.iter().any(may_be_rounded),
        Value::Map(pairs) => pairs.iter().any(|(_, value)| may_be_rounded(value)),
        _ => false,
    }
}

/// Contents as a value that JSON can hold; none of infinities, ints beyond 128 bits, blobs, decimals and timestamps. Symbols are text.
pub(crate) fn json_of(contents: &Contents) -> Option<Value> {
    contents.get::<Value>().ok().filter(is_json)
}

fn is_json(value: &Value) -> bool {
    match value {
        Value::Float(float) => float.is_finite(),
        Value::List(items) => items.iter().all(is_json),
        Value::Map(pairs) => pairs.iter().all(|(_, value)| is_json(value)),
        _ => true,
    }
}

/// Contents as people read them: JSON where it can hold them, else Ion text.
pub(crate) fn shown(contents: &Contents) -> String {
    let json = json_of(contents).and_then(|value| serde_json::to_string(&value).ok());
    json.or_else(|| contents.to_text().ok()).unwrap_or_else(|| "unreadable contents".into())
}

/// A value as a part of a JSON object.
pub(crate) fn json_of_value(value: &Value) -> Option<serde_json::Value> {
    serde_json::to_value(value).ok()
}

/// A value from JSON.
pub(crate) fn value_of_json(json: &serde_json::Value) -> Value {
    Value::deserialize(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str) -> String {
        Typed::read(text).unwrap().contents().unwrap().to_text().unwrap()
    }

    #[test]
    fn json_is_read_as_json_and_the_rest_as_ion() {
        for (text, ion) in [
            ("41", "41"),
            ("2.5", "2.5e0"),
            ("\"\\ud83d\\ude00\"", "\"😀\""),
            ("100000000000000000000000", "100000000000000000000000"),
            ("a::(2.5 sym)", "a::(2.5 sym )"),
            ("2026-11-22T", "2026-11-22T"),
        ] {
            assert_eq!(sent(text), ion, "{text}");
        }
        let failure = Typed::read("{a").err().unwrap();
        assert!(failure.text.contains("neither JSON nor Ion"), "{}", failure.text);
    }

    #[test]
    fn what_json_cannot_hold_has_no_json() {
        let json = |text: &str| json_of(&Typed::read(text).unwrap().contents().unwrap());
        let shown = |text: &str| shown(&Typed::read(text).unwrap().contents().unwrap());
        assert_eq!(
            shown("{b: 1, a: [2.5e0, \"x\", 100000000000000000000000]}"),
            r#"{"b":1,"a":[2.5,"x",100000000000000000000000]}"#
        );
        for text in ["nan", "2026T", "{{aGk=}}"] {
            assert_eq!(json(text), None, "{text}");
            assert_eq!(shown(text), text);
        }
    }
}
