//! How tables on the way of a message are hashed.

use std::hash::{BuildHasherDefault, Hasher};

/// Hashes what peers may choose: its seed is drawn for each table.
pub(crate) type Seeded = foldhash::fast::RandomState;

/// Hashes numbers that count up, and that nobody outside can choose: as quick as an index, and nothing is kept for those that are gone.
pub(crate) type BySequence = BuildHasherDefault<Sequence>;

#[derive(Default)]
pub(crate) struct Sequence(u64);

impl Hasher for Sequence {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio's fraction: neighbours end far apart.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
