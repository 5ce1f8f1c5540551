//! What routers of this project write into a message's `meta`, beside whatever else is there; Python ignores it.
//!
//! `hops` counts how often the message was passed on; between routers of this project it stands beside. `numbered` is its sender's incarnation, its session and number,
//! where it travels alone to a router that may be one of ours.

use super::{Encoded, decode, encode};
use crate::failure::Reason;
use crate::value::Value;

const HOPS: &str = "hops";
const NUMBERED: &str = "numbered";

/// Counts one more hop, unless that is more than `limit`.
pub(crate) fn count_hop(meta: &mut Encoded, limit: u32) -> Result<(), Reason> {
    count_hops(meta, 1, limit)
}

/// Counts so many more hops, unless that is more than `limit` together.
fn count_hops(meta: &mut Encoded, more: u32, limit: u32) -> Result<(), Reason> {
    let pairs = pairs(meta)?;
    let before = match pairs.iter().find(|(key, _)| key == HOPS) {
        Some((_, Value::Int(count))) if *count >= 0 => *count,
        Some(_) => return Err(Reason::HopLimit),
        None => 0,
    };
    match before.checked_add(i128::from(more)) {
        Some(hops) if hops <= i128::from(limit) => set(meta, pairs, HOPS, Value::Int(hops)),
        _ => Err(Reason::HopLimit),
    }
}

/// `meta` that says of so many more hops than it did.
pub(crate) fn with_hops(mut meta: Encoded, more: u32) -> Encoded {
    if more > 0 {
        // One that cannot be read, or says of more than there are, stays as it is.
        let _ = count_hops(&mut meta, more, u32::MAX);
    }
    meta
}

/// Writes which incarnation, session and number a message has.
pub(crate) fn mark(meta: &mut Encoded, numbered: [u64; 3]) -> Result<(), Reason> {
    let numbered = Value::List(numbered.map(Value::from).to_vec());
    set(meta, pairs(meta)?, NUMBERED, numbered)
}

/// Takes out which incarnation, session and number a message has, if it says so.
pub(crate) fn take_mark(meta: &mut Encoded) -> Option<[u64; 3]> {
    if *meta == Encoded::empty_struct() {
        return None;
    }
    let mut pairs = pairs(meta).ok()?;
    let index = pairs.iter().position(|(key, _)| key == NUMBERED)?;
    let (_, numbered) = pairs.remove(index);
    *meta = encode(&Value::Map(pairs)).ok()?;
    let Value::List(numbers) = numbered else { return None };
    let numbers: Vec<u64> = numbers.iter().map_while(number).collect();
    numbers.try_into().ok()
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn pairs(meta: &Encoded) -> Result<Vec<(String, Value)>, Reason> {
    let unreadable = |error| Reason::NoRoute(format!("its meta cannot be read: {error}"));
    match decode(meta).map_err(unreadable)? {
        Value::Map(pairs) => Ok(pairs),
        Value::Null => Ok(Vec::new()),
        _ => Err(Reason::NoRoute("its meta is not a struct".into())),
    }
}

fn set(meta: &mut Encoded, mut pairs: Vec<(String, Value)>, key: &str, value: Value) -> Result<(), Reason> {
    pairs.retain(|(other, _)| other != key);
    pairs.push((key.into(), value));
    *meta = encode(&Value::Map(pairs)).map_err(|error| Reason::NoRoute(error.to_string()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_counted_beside_what_else_is_there_up_to_the_limit() {
        let mut meta = encode(&Value::from([("trace", "a")])).unwrap();
        assert_eq!(count_hop(&mut meta, 2), Ok(()));
        assert_eq!(count_hop(&mut meta, 2), Ok(()));
        let counted: Value = decode(&meta).unwrap();
        assert_eq!(counted.get(HOPS), Some(&Value::Int(2)));
        assert_eq!(counted.get("trace"), Some(&Value::from("a")));
        assert_eq!(count_hop(&mut meta, 2), Err(Reason::HopLimit));
    }

    #[test]
    fn a_forged_count_is_not_passed_on() {
        for forged in [Value::Int(-1), Value::from("none"), Value::Float(0.5)] {
            let mut meta = encode(&Value::from([(HOPS, forged)])).unwrap();
            assert_eq!(count_hop(&mut meta, 2), Err(Reason::HopLimit));
        }
    }

    #[test]
    fn a_mark_is_taken_out_as_it_was_put_in() {
        let mut meta = encode(&Value::from([("trace", "a")])).unwrap();
        let plain = meta.clone();
        assert_eq!(take_mark(&mut meta), None);
        mark(&mut meta, [1, u64::MAX >> 1, 7]).unwrap();
        assert_eq!(take_mark(&mut meta), Some([1, u64::MAX >> 1, 7]));
        assert_eq!(decode::<Value>(&meta), decode(&plain));
        let mut forged = encode(&Value::from([(NUMBERED, "one")])).unwrap();
        assert_eq!(take_mark(&mut forged), None);
    }
}
