//! `vlm decode` and `vlm encode`: frames as lines of hex, and what they say as lines of JSON.

use std::io::{BufRead, stdin};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde::Serialize;
use vlmessaging::wire::{Profile as Reader, Refused, RefusedKind};

use super::notation::{self, Decoded};
use crate::outcome::{Exit, Failure, print, print_json};

/// Read frames, as lines of hex on standard input, into lines of JSON
#[derive(Args)]
pub(crate) struct Decode {
    /// Print JSON, as always
    #[arg(long)]
    pub(crate) json: bool,
    /// Whose reader decides what is refused
    #[arg(long, value_enum, default_value = "compat")]
    profile: Profile,
}

/// Write frames, as lines of hex, from lines of JSON on standard input
#[derive(Args)]
pub(crate) struct Encode {
    /// Print {"hex": ...} instead of bare hex
    #[arg(long)]
    pub(crate) json: bool,
    /// Whose reader decides what is refused
    #[arg(long, value_enum, default_value = "compat")]
    profile: Profile,
}

/// Whose reader a frame must suit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Python's.
    Compat,
    /// This library's: all of Ion.
    Rust,
}

/// One line of output.
#[derive(Serialize)]
#[serde(untagged)]
enum Line {
    Decoded { decoded: Box<Decoded> },
    Encoded { hex: String },
    Refused { refused: &'static str, reason: String },
}

impl Profile {
    fn reader(self) -> Reader {
        match self {
            Profile::Compat => Reader::Compat,
            Profile::Rust => Reader::Rust,
        }
    }
}

impl Decode {
    /// A refused frame is an answer, not a failure. An empty line is an empty frame.
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        each_line(|line| {
            let frame = bytes_of(line)?;
            Ok(Some(match notation::decode(&frame, self.profile.reader()) {
                Ok(decoded) => Line::Decoded { decoded: Box::new(decoded) },
                Err(refused) => Line::refused(&refused),
            }))
        })
    }
}

impl Encode {
    /// A message that the reader would refuse is answered with that.
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        each_line(|line| {
            if line.trim().is_empty() {
                return Ok(None);
            }
            match notation::encode(line, self.profile.reader())? {
                Ok(frame) if self.json => Ok(Some(Line::Encoded { hex: hex_of(&frame) })),
                Ok(frame) => {
                    print(&hex_of(&frame));
                    Ok(None)
                }
                Err(refused) => Ok(Some(Line::refused(&refused))),
            }
        })
    }
}

impl Line {
    fn refused(refused: &Refused) -> Self {
        let kind = match refused.kind {
            RefusedKind::Malformed => "malformed",
            RefusedKind::Schema => "schema",
            RefusedKind::Unsupported => "unsupported",
            RefusedKind::Limit => "limit",
            _ => "odd",
        };
        Line::Refused { refused: kind, reason: refused.to_string() }
    }
}

/// Prints what becomes of each line of standard input; the first that makes no sense ends it.
fn each_line(answer: impl Fn(&str) -> Result<Option<Line>, String>) -> Result<Exit, Failure> {
    for (index, line) in stdin().lock().lines().enumerate() {
        let line = line.map_err(|error| error.to_string()).and_then(|line| answer(&line));
        match line {
            Ok(Some(line)) => print_json(&line),
            Ok(None) => {}
            Err(why) => return Err(Failure::usage(format!("line {}: {why}", index + 1))),
        }
    }
    Ok(Exit::Ok)
}

fn bytes_of(hex: &str) -> Result<Bytes, String> {
    let digit = |digit: char| digit.to_digit(16).ok_or_else(|| format!("{digit:?} is no hex digit"));
    let digits =
        hex.chars().filter(|digit| !digit.is_ascii_whitespace()).map(digit).collect::<Result<Vec<u32>, _>>()?;
    let byte = |pair: &[u32]| match pair {
        [high, low] => u8::try_from(high * 16 + low).map_err(|error| error.to_string()),
        _ => Err("an odd number of hex digits".into()),
    };
    digits.chunks(2).map(byte).collect::<Result<Vec<u8>, _>>().map(Bytes::from)
}

fn hex_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS.get(usize::from(value)).copied().unwrap_or(b'?'));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
