//! The vectors: frames as the Python package wrote, read or refused them, with the fields it read.

use std::path::Path;

use bytes::Bytes;
use ion_rs::{Element, Value as Ion};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};
use vlmessaging::wire::{
    Encoded, Positional, Profile, RefusedKind, decode, decode_element, read_message, read_positional, write_message,
};

pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) frame: Bytes,
    told: Value,
}

pub(crate) fn vectors(file: &str) -> Vec<Vector> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let mut json = serde_json::Deserializer::from_str(&text);
    json.disable_recursion_limit();
    let told = Vec::<Value>::deserialize(&mut json).unwrap();
    told.into_iter()
        .map(|told| Vector {
            name: told["name"].as_str().unwrap().into(),
            frame: bytes_of(told["hex"].as_str().unwrap()).into(),
            told,
        })
        .collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A field in the vectors' notation.
type Show = fn(&Encoded) -> Value;

/// A field as ion-rs reads it.
fn shown_by_ion(value: &Encoded) -> Value {
    show_element(&decode_element(value).unwrap())
}

fn show_element(element: &Element) -> Value {
    match element.value() {
        Ion::Null(_) => Value::Null,
        Ion::Bool(value) => json!(value),
        Ion::Int(value) => json!({ "$int": value.to_string() }),
        Ion::Float(value) => show_float(*value),
        Ion::String(text) => json!(text.text()),
        Ion::List(items) | Ion::SExp(items) => items.iter().map(show_element).collect(),
        Ion::Struct(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.text().unwrap().into(), show_element(value)));
            show_fields(fields.collect())
        }
        other => panic!("{other:?} is nothing that Python reads"),
    }
}

/// Structs in the notation: of repeated fields the last counts.
fn show_fields(fields: Vec<(String, Value)>) -> Value {
    let mut shown: Vec<(String, Value)> = vec![];
    for (name, value) in fields {
        match shown.iter_mut().find(|(known, _)| *known == name) {
            Some(field) => field.1 = value,
            None => shown.push((name, value)),
        }
    }
    json!({ "$map": shown })
}

fn show_float(value: f64) -> Value {
    let bits = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
    json!({ "$float": format!("{bits:016x}") })
}

/// A field as the codec of this crate reads it.
fn shown_by_serde(value: &Encoded) -> Value {
    match decode::<Shown>(value) {
        Ok(shown) => shown.0,
        // Ints beyond 128 bits have no type of serde's; they are elements.
        Err(error) => {
            assert!(error.reason.contains("does not fit the 128"), "{error}");
            shown_by_ion(value)
        }
    }
}

struct Shown(Value);

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShownVisitor).map(Shown)
    }
}

struct ShownVisitor;

impl<'de> Visitor<'de> for ShownVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what Python reads")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(json!(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(json!({ "$int": value.to_string() }))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(json!({ "$int": value.to_string() }))
    }
    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(json!({ "$int": value.to_string() }))
    }
    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(json!({ "$int": value.to_string() }))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(show_float(value))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(json!(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = vec![];
        while let Some(Shown(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields: Vec<(String, Value)> = vec![];
        while let Some((name, Shown(value))) = map.next_entry()? {
            fields.push((name, value));
        }
        Ok(json!({ "$map": fields }))
    }
}

fn show_all(fields: &Positional, show: Show) -> Value {
    json!({
        "replyAddr": fields.from.iter().map(show).collect::<Vec<_>>(),
        "toAddr": fields.to.iter().map(show).collect::<Vec<_>>(),
        "subject": show(&fields.subject),
        "msgId": show(&fields.id),
        "replyId": show(&fields.reply_to),
        "contents": show(&fields.contents),
        "meta": show(&fields.meta),
    })
}

/// The fields of a vector: plain numbers of the envelope in the notation of contents, floats without their text.
fn expected_of(vector: &Vector) -> Value {
    let mut fields = expected(&vector.told["decoded"]);
    if vector.name == "int_4300_digits" {
        // Too long for the program that wrote the vectors; it is the smallest of so many digits.
        fields["contents"] = json!({ "$int": format!("1{}", "0".repeat(4_299)) });
    }
    fields
}

fn expected(told: &Value) -> Value {
    match told {
        Value::Number(number) if number.is_f64() => show_float(number.as_f64().unwrap()),
        Value::Number(number) => json!({ "$int": number.to_string() }),
        Value::Array(items) => items.iter().map(expected).collect(),
        Value::Object(fields) if fields.contains_key("$float") => {
            let bits = u64::from_str_radix(fields["$float"].as_str().unwrap(), 16).unwrap();
            show_float(f64::from_bits(bits))
        }
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), expected(value))).collect(),
        other => other.clone(),
    }
}

fn assert_reads(vector: &Vector) {
    let expected = expected_of(vector);
    for profile in [Profile::Compat, Profile::Rust] {
        let fields = read_positional(&vector.frame, profile).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        for show in [shown_by_ion as Show, shown_by_serde] {
            assert_eq!(show_all(&fields, show), expected, "{}", vector.name);
        }
    }
}

/// A message that is read, written and read again has the fields it had.
fn assert_forwards(vector: &Vector) {
    let message =
        read_message(&vector.frame, Profile::Compat).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
    let mut written = vec![];
    write_message(&message, &mut written);
    let written = Bytes::from(written);
    assert_eq!(read_message(&written, Profile::Compat).as_ref(), Ok(&message), "{}", vector.name);
    let fields = read_positional(&written, Profile::Compat).unwrap();
    assert_eq!(show_all(&fields, shown_by_ion), expected_of(vector), "{}", vector.name);
}

#[test]
fn what_python_writes_is_read_with_the_fields_it_had() {
    let vectors = vectors("messages.json");
    assert_eq!(vectors.len(), 131);
    for vector in &vectors {
        assert_reads(vector);
        assert_forwards(vector);
    }
}

#[test]
fn other_encodings_that_python_reads_are_read_except_text() {
    let odd = ["meta_list", "subject_null", "subject_int", "rep_string", "rep_float", "msg_id_string"];
    for vector in &vectors("accepted.json") {
        if vector.name.starts_with("text_ion") {
            let refused = read_positional(&vector.frame, Profile::Rust).unwrap_err();
            assert_eq!(refused.kind, RefusedKind::Malformed);
            continue;
        }
        assert_reads(vector);
        if odd.contains(&&*vector.name) {
            let refused = read_message(&vector.frame, Profile::Compat).unwrap_err();
            assert_eq!(refused.kind, RefusedKind::Odd, "{}", vector.name);
        } else {
            assert_forwards(vector);
        }
    }
}

#[test]
fn what_python_refuses_is_refused_for_the_same_reason() {
    let kinds = [
        ("malformed", RefusedKind::Malformed),
        ("schema", RefusedKind::Schema),
        ("unsupported", RefusedKind::Unsupported),
        ("limit", RefusedKind::Limit),
    ];
    for vector in &vectors("rejected.json") {
        let (told, kind) = kinds.into_iter().find(|(told, _)| vector.told["kind"] == *told).unwrap();
        let refused = read_positional(&vector.frame, Profile::Compat).unwrap_err();
        assert_eq!(refused.kind, kind, "{}: {refused}", vector.name);
        assert!(read_message(&vector.frame, Profile::Compat).is_err());
        if told == "malformed" || told == "schema" {
            let refused = read_positional(&vector.frame, Profile::Rust).unwrap_err();
            assert_eq!(refused.kind, kind, "{}: {refused}", vector.name);
        }
    }
}

#[test]
fn what_only_python_refuses_is_read_from_a_rust_peer() {
    for vector in &vectors("rejected.json") {
        let is_schema = vector.name.starts_with("schema");
        if vector.told["kind"] == "unsupported" && !is_schema {
            let fields = read_positional(&vector.frame, Profile::Rust)
                .unwrap_or_else(|error| panic!("{}: {error}", vector.name));
            decode_element(&fields.contents).unwrap();
        }
    }
}

/// A frame as Python lays it out, a marker before each value, around these encoded contents.
fn frame_around(contents: &[u8]) -> Bytes {
    let marker = b"\xE0\x01\x00\xEA";
    let (from, to) = (b"\x8E\x96ipc:///tmp/router_2000", b"\x8E\x96ipc:///tmp/router_1000");
    let values: [&[u8]; 12] = [
        b"\x811",
        b"\x0F",
        from,
        b"\x21\x04",
        b"\x0F",
        to,
        b"\x21\x03",
        b"\x81X",
        b"\x21\x01",
        b"\x0F",
        contents,
        b"\xD0",
    ];
    values.map(|value| [marker, value].concat()).concat().into()
}

#[test]
fn large_contents_are_read() {
    let mega = [&b"\x8E\x40\x00\x80"[..], "0123456789abcdef".repeat(65_536).as_bytes()].concat();
    let message = read_message(&frame_around(&mega), Profile::Compat).unwrap();
    assert_eq!(decode::<&str>(&message.contents).unwrap().len(), 1 << 20);

    let emoji = [&b"\x8E\x06\x0D\xA0"[..], "😀".repeat(25_000).as_bytes()].concat();
    let message = read_message(&frame_around(&emoji), Profile::Compat).unwrap();
    assert!(decode::<&str>(&message.contents).unwrap().chars().all(|c| c == '😀'));

    let ints: Vec<i64> = (0..20_000).map(|n: i64| if n % 2 == 0 { n * n } else { -n * n }).collect();
    let contents = vlmessaging::wire::encode(&ints).unwrap();
    let message = read_message(&frame_around(&contents.bytes), Profile::Compat).unwrap();
    assert_eq!(decode::<Vec<i64>>(&message.contents).unwrap(), ints);
    assert_eq!(message.contents, contents, "Python writes these ints in the same bytes");
}
