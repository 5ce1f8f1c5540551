//! What the gate asks of the bodies of ints, decimals and timestamps.

use std::sync::LazyLock;

use super::MAX_DIGITS_COMPAT;
use super::ion::{self, Reader};

/// The smallest magnitude of more than [`MAX_DIGITS_COMPAT`] digits.
static TOO_LARGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut little_endian = vec![1_u8];
    for _ in 0..MAX_DIGITS_COMPAT {
        let mut carry = 0;
        for digit in &mut little_endian {
            let product = u16::from(*digit) * 10 + carry;
            *digit = product as u8;
            carry = product >> 8;
        }
        if carry > 0 {
            little_endian.push(carry as u8);
        }
    }
    little_endian.reverse();
    little_endian
});

/// Whether an int of this magnitude has more than [`MAX_DIGITS_COMPAT`] digits.
pub(crate) fn has_too_many_digits(magnitude: &[u8]) -> bool {
    // A byte is more than two digits, so that this spares nearly every int the comparison.
    if magnitude.len() <= MAX_DIGITS_COMPAT / 3 {
        return false;
    }
    let magnitude = ion::without_leading_zeros(magnitude);
    let limit = TOO_LARGE.as_slice();
    (magnitude.len(), magnitude) >= (limit.len(), limit)
}

/// Passes a number with a sign in groups of seven bits, and answers with its magnitude.
fn var_int(reader: &mut Reader<'_>) -> Option<u64> {
    let first = reader.byte().ok()?;
    let mut number = u64::from(first & 0x3F);
    let mut byte = first;
    for _ in 0..8 {
        if byte & 0x80 != 0 {
            return Some(number);
        }
        byte = reader.byte().ok()?;
        number = number << 7 | u64::from(byte & 0x7F);
    }
    (byte & 0x80 != 0).then_some(number)
}

/// Whether the body is an exponent and a coefficient, or nothing.
pub(crate) fn is_decimal(body: &[u8]) -> bool {
    body.is_empty() || var_int(&mut Reader::new(body)).is_some()
}

/// Whether the body is an offset, and a year with as many finer parts as it likes, each in its range.
pub(crate) fn is_timestamp(body: &[u8]) -> bool {
    let mut reader = Reader::new(body);
    if var_int(&mut reader).is_none_or(|offset| offset >= 24 * 60) {
        return false;
    }
    let mut parts = 0;
    for range in [1..=9999, 1..=12, 1..=31, 0..=23, 0..=59, 0..=59] {
        if reader.is_at_end() {
            break;
        }
        if !reader.var_uint().is_ok_and(|part| range.contains(&part)) {
            return false;
        }
        parts += 1;
    }
    // An hour without its minute is no moment; a fraction follows a second only.
    let whole = matches!(parts, 1..=3 | 5 | 6);
    whole && (reader.is_at_end() || is_fraction(reader))
}

fn is_fraction(mut reader: Reader<'_>) -> bool {
    var_int(&mut reader).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_int_that_python_reads_has_4300_digits() {
        let limit = TOO_LARGE.clone();
        assert!(has_too_many_digits(&limit));
        let mut below = limit.clone();
        let last = below.iter().rposition(|&byte| byte != 0).unwrap();
        below[last] -= 1;
        assert!(!has_too_many_digits(&below));
        assert!(!has_too_many_digits(&[&[0; 4000], &limit[1..]].concat()));
        assert!(has_too_many_digits(&[&limit[..], &[0]].concat()));
    }
}
