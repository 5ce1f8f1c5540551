//! Bytes from outside: never a panic, never more time than their length is worth.

use std::path::Path;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::run::run;
use crate::vectors::vectors;

const MARKER: &[u8] = b"\xE0\x01\x00\xEA";

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..80)) {
        run(&bytes);
        run(&[MARKER, &bytes].concat());
    }

    #[test]
    fn mutated_messages_never_panic(pick: prop::sample::Index, changes in vec(any::<(prop::sample::Index, u8, u8)>(), 1..6)) {
        let frames = frames();
        let mut frame = pick.get(frames).clone();
        for (place, byte, how) in changes {
            let at = place.index(frame.len());
            match how % 4 {
                0 => frame[at] = byte,
                1 => frame[at] ^= 1 << (byte % 8),
                2 => frame.insert(at, byte),
                _ => drop(frame.drain(at..(at + usize::from(byte % 8)).min(frame.len() - 1).max(at))),
            }
        }
        run(&frame);
    }
}

/// All small frames of the vectors.
fn frames() -> &'static [Vec<u8>] {
    static FRAMES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    FRAMES.get_or_init(|| {
        let files = ["messages.json", "accepted.json", "rejected.json"].into_iter().flat_map(vectors);
        files.map(|vector| vector.frame.to_vec()).filter(|frame| (1..400).contains(&frame.len())).collect()
    })
}

#[test]
fn every_file_of_the_corpus_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/gate");
    let mut files = 0;
    for file in std::fs::read_dir(corpus).unwrap() {
        run(&std::fs::read(file.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 24, "{files} files");
}

#[test]
fn time_is_bounded_by_the_length_of_the_bytes() {
    const LENGTH: usize = 128 * 1024;
    let head = [MARKER, b"\x811\x0F\x0F\x21\x03\x0F\x0F\x21\x04\x81S\x0F\x0F"].concat();
    let around = |contents: &[u8]| [&head, contents, b"\xD0"].concat();
    let list = |body: &[u8]| [&b"\xBE"[..], &var_uint(body.len()), body].concat();
    let many = |bytes: &[u8]| bytes.repeat(LENGTH / bytes.len());
    let table = b"\xE8\x81\x83\xD5\x86\x71\x03\x87\xB0";
    let growing = b"\xEA\x81\x83\xD7\x86\x71\x03\x87\xB2\x81\x61";
    let nested = (0..140).fold(many(b"\xD0"), |inner, _| list(&inner));
    let shapes = [
        ("nulls", around(&list(&many(b"\x0F")))),
        ("padding", around(&list(&many(b"\x00")))),
        ("padding between values", around(&[&many(b"\x00")[..], b"\x0F"].concat())),
        ("markers", around(&[&many(MARKER)[..], b"\x0F"].concat())),
        ("empty tables", around(&[&many(table)[..], b"\x0F"].concat())),
        ("growing tables", around(&[&many(growing)[..], b"\xD2\x8A\x0F"].concat())),
        ("repeated fields", around(&[&b"\xDE"[..], &var_uint(LENGTH), &many(b"\x84\x0F")].concat())),
        ("deep", around(&nested)),
        ("length of zeros", around(&[&b"\x8E"[..], &many(b"\x00")].concat())),
        ("one int", around(&[&b"\x2E"[..], &var_uint(LENGTH), &many(b"\xFF")].concat())),
    ];
    for (name, frame) in shapes {
        let start = Instant::now();
        run(&frame);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(10), "{name} took {took:?}");
    }
}

fn var_uint(mut number: usize) -> Vec<u8> {
    let mut groups = vec![0x80 | (number & 0x7F) as u8];
    while number > 0x7F {
        number >>= 7;
        groups.insert(0, (number & 0x7F) as u8);
    }
    groups
}
