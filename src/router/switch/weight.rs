//! How many bytes of messages from other routers agents have not dealt with: a bound for what strangers can fill.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::msg::{Creditor, Debt};

/// Bytes that are not counted. Default 1 KiB: as many small messages as mailboxes take are few bytes, and are the many.
const SMALL: usize = 1024;

/// What a router counts against its limit.
#[derive(Default)]
pub(super) struct Scale {
    held: AtomicUsize,
}

/// The bytes of one message, until they are dealt with.
pub(super) struct Weight {
    scale: Arc<Scale>,
    bytes: usize,
}

impl Scale {
    /// Counts a message. `Err`: there is no room. Answers have room where questions have none left: somebody may wait for them.
    pub(super) fn weigh(self: &Arc<Self>, bytes: usize, is_reply: bool, limit: usize) -> Result<Option<Weight>, ()> {
        if bytes <= SMALL {
            return Ok(None);
        }
        let limit = if is_reply { limit.saturating_mul(2) } else { limit };
        let has_room = |held: usize| Some(held + bytes).filter(|sum| *sum <= limit || held == 0);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room).map_err(|_| ())?;
        Ok(Some(Weight { scale: self.clone(), bytes }))
    }
}

/// What is owed for a message, and its weight, until it is dealt with.
struct Weighed {
    debt: Mutex<Debt>,
    _weight: Weight,
}

impl Weight {
    /// A debt that ends with this weight.
    pub(super) fn with(self, debt: Debt) -> Debt {
        Debt::to(Arc::new(Weighed { debt: Mutex::new(debt), _weight: self }), 0)
    }
}

impl Creditor for Weighed {
    fn settle(&self, _: u64, handled: bool) {
        let mut debt = std::mem::take(&mut *self.debt.lock());
        if handled {
            debt.handled();
        }
    }

    fn unreported(&self, _: u64) {
        let mut debt = std::mem::take(&mut *self.debt.lock());
        debt.unreported();
    }

    fn life(&self) -> Option<u64> {
        self.debt.lock().life()
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.scale.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_until_the_limit_and_again_when_something_has_gone() {
        let scale = Arc::<Scale>::default();
        let first = scale.weigh(6000, false, 10_000).unwrap();
        assert!(scale.weigh(6000, false, 10_000).is_err());
        assert!(scale.weigh(SMALL, false, 10_000).unwrap().is_none());
        let answer = scale.weigh(6000, true, 10_000).unwrap();
        drop(first);
        drop(answer);
        // One that is larger than all of the room travels alone.
        assert!(scale.weigh(20_000, false, 10_000).unwrap().is_some());
    }
}
