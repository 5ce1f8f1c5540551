//! What is done with arbitrary bytes, by the fuzzer and by `cargo test`.

use bytes::Bytes;
use vlmessaging::wire::{
    Block, Encoded, Profile, check, decode, decode_element, encode, encode_element, kind, read_frame, read_message,
    read_positional, write_frame, write_message,
};

/// Runs everything that bytes from outside can reach, and asserts what must hold of whatever is let in.
pub(crate) fn run(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    for profile in [Profile::Compat, Profile::Rust] {
        if let Ok(fields) = read_positional(&frame, profile) {
            let ([a, b, c], [d, e, f]) = (fields.from, fields.to);
            let rest = [fields.subject, fields.id, fields.reply_to, fields.contents, fields.meta];
            for field in [a, b, c, d, e, f].into_iter().chain(rest) {
                let_in(&field, profile);
            }
        }
        forward(&frame, profile);
    }
    link_frame(&frame);
    without_gate(&frame);
}

/// What passed the gate is readable, and what is made of it passes again.
fn let_in(value: &Encoded, profile: Profile) {
    assert_eq!(check(value, profile, "field"), Ok(()));
    if let Ok(json) = decode::<serde_json::Value>(value) {
        let again = encode(&json).expect("what was decoded can be encoded");
        assert_eq!(check(&again, profile, "field"), Ok(()));
        assert_eq!(decode::<serde_json::Value>(&again).expect("and decoded"), json);
    }
    let Ok(element) = decode_element(value) else {
        return;
    };
    // Decimals of more digits than its writer takes can be read, but not written.
    if let Ok(again) = encode_element(&element) {
        assert_eq!(check(&again, Profile::Rust, "field"), Ok(()));
        let element = decode_element(&again).expect("and decoded");
        assert_eq!(encode_element(&element).as_ref(), Ok(&again));
    }
}

/// A message that was read is written so that it reads the same.
fn forward(frame: &Bytes, profile: Profile) {
    let Ok(message) = read_message(frame, profile) else {
        return;
    };
    let mut written = Vec::new();
    write_message(&message, &mut written);
    let again = read_message(&written.into(), profile).expect("what was written can be read");
    assert_eq!(again, message);
}

/// A link frame that was read is written so that it reads the same, as are the messages in it that were let in.
fn link_frame(frame: &Bytes) {
    let _ = kind(frame);
    let Ok((header, bodies)) = read_frame(frame) else {
        return;
    };
    assert_eq!(bodies.iter().count(), bodies.len());
    let messages: Vec<_> = bodies.iter().filter_map(Result::ok).collect();
    let mut block = Block::default();
    for message in &messages {
        block.push(message, None);
    }
    let (again, bodies) = read_frame(&write_frame(&header, &block)).expect("what was written can be read");
    assert_eq!(again, header);
    let again: Vec<_> = bodies.iter().map(|message| message.expect("and so can its messages")).collect();
    assert_eq!(again, messages);
}

/// Decoders are safe on bytes that passed no gate, with and without something for symbol tables.
fn without_gate(frame: &Bytes) {
    let mut values = vec![Encoded { bytes: frame.clone(), symbols: None }];
    if let Some((&split, rest)) = frame.split_first() {
        let split = usize::from(split).min(rest.len());
        let (symbols, bytes) = rest.split_at(split);
        values.push(Encoded { bytes: frame.slice_ref(bytes), symbols: Some(frame.slice_ref(symbols)) });
    }
    for value in values {
        let _ = decode::<serde_json::Value>(&value);
        let _ = decode::<Vec<Option<(i128, String)>>>(&value);
        let _ = decode_element(&value);
        let _ = format!("{value:?}");
        for profile in [Profile::Compat, Profile::Rust] {
            if check(&value, profile, "value").is_ok() {
                let_in(&value, profile);
            }
        }
    }
}
