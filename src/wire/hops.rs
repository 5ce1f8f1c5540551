//! Counts in `meta` how often a message was passed on: `{"hops": 2}`.

use super::{Encoded, decode, encode};
use crate::failure::Reason;
use crate::value::Value;

const KEY: &str = "hops";

/// Counts one more hop, unless that is more than `limit`.
pub(crate) fn count_hop(meta: &mut Encoded, limit: u32) -> Result<(), Reason> {
    let unreadable = |error| Reason::NoRoute(format!("its meta cannot be read: {error}"));
    let mut pairs = match decode(meta).map_err(unreadable)? {
        Value::Map(pairs) => pairs,
        Value::Null => Vec::new(),
        _ => return Err(Reason::NoRoute("its meta is not a struct".into())),
    };
    let hops = match pairs.iter_mut().find(|(key, _)| key == KEY) {
        Some((_, hops)) => hops,
        None => {
            pairs.push((KEY.into(), Value::Int(0)));
            &mut pairs.last_mut().ok_or(Reason::HopLimit)?.1
        }
    };
    match hops {
        Value::Int(count) if (0..i128::from(limit)).contains(count) => *count += 1,
        _ => return Err(Reason::HopLimit),
    }
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
        assert_eq!(counted.get("hops"), Some(&Value::Int(2)));
        assert_eq!(counted.get("trace"), Some(&Value::Text("a".into())));
        assert_eq!(count_hop(&mut meta, 2), Err(Reason::HopLimit));
    }

    #[test]
    fn a_forged_count_is_not_passed_on() {
        for forged in [Value::Int(-1), Value::Text("none".into()), Value::Float(0.5)] {
            let mut meta = encode(&Value::from([("hops", forged)])).unwrap();
            assert_eq!(count_hop(&mut meta, 2), Err(Reason::HopLimit));
        }
    }
}
