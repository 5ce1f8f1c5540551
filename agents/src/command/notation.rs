//! Frames in JSON.
//!
//! Addresses are lists of three, message ids plain numbers. In contents and meta null, booleans, strings and lists are themselves; an int is
//! `{"$int": "41"}`, a float `{"$float": "4004000000000000", "repr": "2.5"}` (the bits of the double, and Python's text for it), a struct
//! `{"$map": [[name, value], ...]}` in the order of its fields. What only a Rust router reads (blobs, clobs, decimals, timestamps, symbols) is
//! `{"$ion": "2026-11-22T"}`: Ion text. Annotations are not shown.

use bytes::Bytes;
use ion_rs::{Element, IonType, Value as Ion};
use serde::Serialize;
use serde_json::{Value, json};
use vlmessaging::wire::{
    Encoded, Envelope, Profile, Refused, RefusedKind, check, decode_element, element_to_text, encode_element,
    read_positional, text_to_element, write_message,
};
use vlmessaging::{Addr, Endpoint};

/// What Ion 1.0 binary begins with.
const MARKER: [u8; 4] = [0xE0, 1, 0, 0xEA];
/// Values in a frame.
const FIELDS: usize = 12;
/// Brackets within brackets of a line. Default 1,000: a struct takes three levels here, and frames have at most 200.
const DEPTH: usize = 1000;

/// The fields of a message.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Decoded {
    reply_addr: [Value; 3],
    to_addr: [Value; 3],
    subject: Value,
    msg_id: Value,
    reply_id: Value,
    contents: Value,
    meta: Value,
}

/// Reads a frame, whatever the types of its fields. Of Ion text too, for Python: it reads that.
pub(crate) fn decode(frame: &Bytes, profile: Profile) -> Result<Decoded, Refused> {
    let binary = if profile == Profile::Compat { binary_of_text(frame) } else { None };
    let fields = read_positional(binary.as_ref().unwrap_or(frame), profile)?;
    let plain = |field: &Encoded| show(field, true);
    let [[net, machine, connection], [to_net, to_machine, to_connection]] = [&fields.from, &fields.to];
    Ok(Decoded {
        reply_addr: [plain(net)?, plain(machine)?, plain(connection)?],
        to_addr: [plain(to_net)?, plain(to_machine)?, plain(to_connection)?],
        subject: plain(&fields.subject)?,
        msg_id: plain(&fields.id)?,
        reply_id: plain(&fields.reply_to)?,
        contents: show(&fields.contents, false)?,
        meta: show(&fields.meta, false)?,
    })
}

/// The values of a frame of Ion text, in binary; none if it is no such frame.
fn binary_of_text(frame: &Bytes) -> Option<Bytes> {
    let text = std::str::from_utf8(frame).ok().filter(|text| depth_of(text) <= DEPTH)?;
    let mut binary = Vec::new();
    for value in &Element::read_all(text).ok().filter(|values| values.len() == FIELDS)? {
        let Encoded { bytes, symbols } = encode_element(value).ok()?;
        binary.extend(MARKER.iter().chain(symbols.iter().flatten()).chain(&bytes));
    }
    Some(binary.into())
}

/// Writes a message; a line that is not one, or a message that the reader would refuse, is told.
pub(crate) fn encode(line: &str, profile: Profile) -> Result<Result<Vec<u8>, Refused>, String> {
    if depth_of(line) > DEPTH {
        return Err(format!("nested deeper than {DEPTH} levels"));
    }
    let mut json = serde_json::Deserializer::from_str(line);
    json.disable_recursion_limit();
    let told = <Value as serde::Deserialize>::deserialize(&mut json).map_err(|error| error.to_string())?;
    json.end().map_err(|error| error.to_string())?;
    let fields = told.get("decoded").unwrap_or(&told);
    if !fields.is_object() {
        return Err("a message is an object: {\"toAddr\": [...], \"subject\": ..., \"contents\": ...}".into());
    }
    let encoded = |name: &str, absent: Encoded| match fields.get(name) {
        Some(value) => encode_element(&element(value)?).map_err(|error| format!("{name}: {error}")),
        None => Ok(absent),
    };
    let contents = encoded("contents", Encoded::null())?;
    let meta = encoded("meta", Encoded::empty_struct())?;
    Ok(envelope(fields, contents, meta).and_then(|message| {
        check(&message.contents, profile, "contents")?;
        check(&message.meta, profile, "meta")?;
        let mut frame = Vec::new();
        write_message(&message, &mut frame);
        Ok(frame)
    }))
}

// ---- frames to JSON ----------------------------------------------------------------------------------

fn show(field: &Encoded, is_plain: bool) -> Result<Value, Refused> {
    let unreadable = |why: String| Refused {
        kind: RefusedKind::Malformed,
        what: "a value",
        path: "contents".into(),
        reason: why.into(),
    };
    let element = decode_element(field).map_err(|error| unreadable(error.to_string()))?;
    Ok(if is_plain { show_plain(&element) } else { show_element(&element) })
}

/// A field of the envelope: numbers as they are.
fn show_plain(element: &Element) -> Value {
    let plain = match element.value() {
        Ion::Int(int) => int.as_i64().map(Value::from),
        Ion::Float(float) => serde_json::Number::from_f64(*float).map(Value::from),
        _ => None,
    };
    plain.unwrap_or_else(|| show_element(element))
}

fn show_element(element: &Element) -> Value {
    match element.value() {
        Ion::Null(_) => Value::Null,
        Ion::Bool(value) => json!(value),
        Ion::Int(value) => json!({ "$int": value.to_string() }),
        Ion::Float(value) => show_float(*value),
        Ion::String(text) => json!(text.text()),
        Ion::List(items) | Ion::SExp(items) => items.iter().map(show_element).collect(),
        Ion::Struct(fields) => show_fields(fields.iter().map(|(name, value)| (name.text().unwrap_or("$0"), value))),
        _ => json!({ "$ion": element_to_text(element).unwrap_or_else(|error| error.to_string()) }),
    }
}

/// Of repeated fields the last counts.
fn show_fields<'a>(fields: impl Iterator<Item = (&'a str, &'a Element)>) -> Value {
    let mut places = std::collections::HashMap::new();
    let mut shown: Vec<(&str, Value)> = Vec::new();
    for (name, value) in fields {
        let place = *places.entry(name).or_insert(shown.len());
        match shown.get_mut(place) {
            Some(field) => field.1 = show_element(value),
            None => shown.push((name, show_element(value))),
        }
    }
    json!({ "$map": shown })
}

fn show_float(value: f64) -> Value {
    let value = if value.is_nan() { f64::NAN } else { value };
    json!({ "$float": format!("{:016x}", value.to_bits()), "repr": python_repr(value) })
}

/// The shortest text that reads as the same double, in Python's form.
fn python_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        -4..16 => {
            let text = value.to_string();
            if text.contains('.') { text } else { format!("{text}.0") }
        }
        exponent => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

// ---- JSON to frames ----------------------------------------------------------------------------------

fn envelope(fields: &Value, contents: Encoded, meta: Encoded) -> Result<Envelope, Refused> {
    let field = |name: &str| fields.get(name).unwrap_or(&Value::Null);
    let subject = field("subject").as_str().ok_or_else(|| odd("subject", "a subject is a string"))?;
    if !meta.is_null() && meta.type_name() != "struct" {
        return Err(odd("meta", "meta is a struct or null"));
    }
    Ok(Envelope {
        from: addr("replyAddr", field("replyAddr"))?,
        to: addr("toAddr", field("toAddr"))?,
        subject: subject.into(),
        id: id("msgId", field("msgId"))?,
        reply_to: id("replyId", field("replyId"))?,
        contents,
        meta,
    })
}

fn addr(name: &str, told: &Value) -> Result<Addr, Refused> {
    let parts = match told {
        Value::Null => return Ok(Addr::default()),
        Value::Array(parts) => parts.as_slice(),
        _ => &[],
    };
    let [net, machine, connection] = parts else {
        return Err(odd(name, "an address is a list of three"));
    };
    let endpoint = |part: &Value| match part {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(Endpoint::from(text.as_str()))),
        _ => Err(odd(name, "an endpoint is a string or null")),
    };
    let connection = match connection {
        Value::Null => None,
        number => Some(number.as_u64().ok_or_else(|| odd(name, "a connection is an int from 0 to 2^64 - 1, or null"))?),
    };
    Ok(Addr { net: endpoint(net)?, machine: endpoint(machine)?, connection })
}

fn id(name: &str, told: &Value) -> Result<Option<i64>, Refused> {
    match told {
        Value::Null => Ok(None),
        number => number.as_i64().map(Some).ok_or_else(|| odd(name, "a message number is an int of 64 bits, or null")),
    }
}

fn odd(path: &str, reason: &'static str) -> Refused {
    Refused { kind: RefusedKind::Odd, what: "a field", path: path.into(), reason: reason.into() }
}

fn element(told: &Value) -> Result<Element, String> {
    match told {
        Value::Null => Ok(Element::null(IonType::Null)),
        Value::Bool(value) => Ok(Element::boolean(*value)),
        Value::String(text) => Ok(Element::string(text.as_str())),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => Ok(Element::int(int)),
            (None, Some(float)) => Ok(Element::float(float)),
            (None, None) => Err(format!("{number} is neither an int nor a double")),
        },
        Value::Array(items) => {
            let items = items.iter().map(element).collect::<Result<Vec<_>, _>>()?;
            Ok(Element::sequence_builder().push_all(items).build_list().into())
        }
        Value::Object(marked) => {
            let mut marks = marked.iter().filter(|(mark, _)| *mark != "repr");
            match (marks.next(), marks.next()) {
                (Some((mark, told)), None) => marked_element(mark, told),
                _ => Err("an object has one of $int, $float, $map and $ion".into()),
            }
        }
    }
}

fn marked_element(mark: &str, told: &Value) -> Result<Element, String> {
    match (mark, told) {
        ("$int", Value::String(digits)) => int(digits),
        ("$float", Value::String(bits)) => {
            let bits = u64::from_str_radix(bits, 16).map_err(|error| format!("$float {bits:?}: {error}"))?;
            Ok(Element::float(f64::from_bits(bits)))
        }
        ("$map", Value::Array(pairs)) => {
            let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
                Some([Value::String(name), value]) => Ok((name.clone(), element(value)?)),
                _ => Err(format!("{pair} is no pair of name and value")),
            };
            let fields = pairs.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
            Ok(Element::struct_builder().with_fields(fields).build().into())
        }
        ("$ion", Value::String(text)) => text_to_element(text).map_err(|error| error.to_string()),
        _ => Err(format!("{mark:?} with {told} is none of $int, $float, $map and $ion")),
    }
}

fn int(digits: &str) -> Result<Element, String> {
    if let Ok(int) = digits.parse::<i128>() {
        return Ok(Element::int(int));
    }
    let magnitude = digits.strip_prefix('-').unwrap_or(digits);
    if magnitude.is_empty() || !magnitude.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(format!("$int {digits:?} is no decimal number"));
    }
    text_to_element(digits).map_err(|error| error.to_string())
}

/// How deep brackets are within brackets, outside of strings.
fn depth_of(line: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut is_escaped) = (0_usize, 0, false, false);
    for byte in line.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
