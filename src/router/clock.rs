//! What a router takes from outside of its own state: the time, and numbers that nobody foresees. A simulation gives it both from a seed.

use std::time::Instant;

/// See [`SystemClock`], the one that programs use.
pub(crate) trait Clock: Send + Sync {
    /// The present time. It never goes back.
    fn now(&self) -> Instant;

    /// A number that no two routers draw alike.
    fn draw(&self) -> u64;
}

/// The machine's.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn draw(&self) -> u64 {
        use std::hash::{BuildHasher, Hasher, RandomState};
        RandomState::new().build_hasher().finish() >> 1
    }
}
