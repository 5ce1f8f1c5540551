//! The receiving ends of the sessions of peers. Those of lives that have ended are remembered by a few numbers, so that nothing late is handled twice.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Switch;
use crate::hash::Seeded;
use crate::link::inflow::{Inflow, Remains, Tell};
use crate::msg::Creditor;
use crate::wire::How;

/// Sessions of peers that a router remembers. Default 8,192: two for each link. Beyond, the one that was heard of longest ago makes room: those that live are heard of every second.
const SESSIONS: usize = 8192;
/// Sessions up to which those of nobody are kept whole. Default 32, afterwards twice as many as were whole the last time: so the dead cost little beside the living. In tests 2, so that it happens.
const FEW: usize = if cfg!(test) { 2 } else { 32 };

/// By the sender's incarnation and the session.
type Key = (u64, u64);

#[derive(Default)]
pub(super) struct Sessions {
    /// Not kept alive by what was once received.
    switch: Weak<Switch>,
    whole: HashMap<Key, Known<Arc<Incoming>>, Seeded>,
    /// Those that nobody spoke to us about any more, and in which nothing was open.
    ended: HashMap<Key, Known<Remains>, Seeded>,
    /// So many were left whole the last time.
    left: usize,
    /// Counts what was heard.
    clock: u64,
}

struct Known<T> {
    it: T,
    heard: u64,
}

/// The receiving end of one session, and whom its messages are settled with.
pub(super) struct Incoming {
    switch: Weak<Switch>,
    pub(super) sender: u64,
    pub(super) session: u64,
    /// Filled by whoever receives, and told by the link to its sender.
    pub(super) inflow: Arc<Mutex<Inflow>>,
}

impl Sessions {
    pub(super) fn new(switch: Weak<Switch>) -> Self {
        Self { switch, ..Self::default() }
    }

    /// The session, if it is known. It was heard of.
    pub(super) fn heard(&mut self, key: Key) -> Option<Arc<Incoming>> {
        self.clock += 1;
        if let Some(Known { it, .. }) = self.ended.remove(&key) {
            return Some(self.add(key, Inflow::from(it)));
        }
        let known = self.whole.get_mut(&key)?;
        known.heard = self.clock;
        Some(known.it.clone())
    }

    /// The session, new if it is not known, and whether another was forgotten for it. Those of senders for whom `is_linked` is false make room.
    pub(super) fn begin(&mut self, key: Key, is_linked: impl Fn(u64) -> bool) -> (Arc<Incoming>, bool) {
        if let Some(incoming) = self.heard(key) {
            return (incoming, false);
        }
        if self.whole.len() >= (2 * self.left).max(FEW) {
            self.end_those(|sender| !is_linked(sender));
        }
        let is_full = self.whole.len() + self.ended.len() >= SESSIONS;
        if is_full {
            self.forget_one();
        }
        (self.add(key, Inflow::default()), is_full)
    }

    /// All sessions of a sender.
    pub(super) fn of(&mut self, sender: u64) -> Vec<Arc<Incoming>> {
        let its = |key: &&Key| key.0 == sender;
        let mut keys: Vec<Key> = self.whole.keys().filter(its).chain(self.ended.keys().filter(its)).copied().collect();
        // So that a simulation is like the other.
        keys.sort_unstable();
        keys.into_iter().filter_map(|key| self.heard(key)).collect()
    }

    pub(super) fn clear(&mut self) {
        self.whole.clear();
        self.ended.clear();
    }

    fn add(&mut self, key: Key, inflow: Inflow) -> Arc<Incoming> {
        let (sender, session) = key;
        let inflow = Arc::new(Mutex::new(inflow));
        let it = Arc::new(Incoming { switch: self.switch.clone(), sender, session, inflow });
        self.whole.insert(key, Known { it: it.clone(), heard: self.clock });
        it
    }

    /// Keeps a few numbers of the sessions that no link has to tell of, and none of whose messages is in anybody's hands.
    fn end_those(&mut self, is_over: impl Fn(u64) -> bool) {
        let over = |key: &Key, known: &mut Known<Arc<Incoming>>| {
            is_over(key.0) && Arc::strong_count(&known.it) == 1 && Arc::strong_count(&known.it.inflow) == 1
        };
        for (key, Known { it, heard }) in self.whole.extract_if(over) {
            let it = it.inflow.lock().remains();
            self.ended.insert(key, Known { it, heard });
        }
        self.left = self.whole.len();
        self.whole.shrink_to(self.left);
    }

    fn forget_one(&mut self) {
        let ended = self.ended.iter().map(|(key, known)| (known.heard, *key));
        // Not one that is in use: a thread that reads it need not ask here.
        let unused = self.whole.iter().filter(|(_, known)| Arc::strong_count(&known.it) == 1);
        let whole = unused.map(|(key, known)| (known.heard, *key));
        let any = self.whole.iter().map(|(key, known)| (known.heard, *key));
        if let Some((_, oldest)) = ended.min().or_else(|| whole.min()).or_else(|| any.min()) {
            self.ended.remove(&oldest);
            self.whole.remove(&oldest);
        }
    }
}

impl Incoming {
    /// So many messages from `number` on have come to their end: handlers were called with them, or none because of this.
    pub(super) fn ended(&self, number: u64, count: u64, failed: Option<How>) {
        let mut inflow = self.inflow.lock();
        let tell = match failed {
            None => inflow.settle(number, count),
            Some(how) => inflow.fail(number, count, how),
        };
        drop(inflow);
        if tell != Tell::AsBefore
            && let Some(switch) = self.switch.upgrade()
        {
            switch.owe(self, 0, tell == Tell::Now);
        }
    }
}

/// The sender's router is told what became of its message with the next receipt.
impl Creditor for Incoming {
    fn settle(&self, number: u64, handled: bool) {
        self.settle_row(number, 1, handled);
    }

    fn settle_row(&self, first: u64, count: u64, handled: bool) {
        self.ended(first, count, (!handled).then_some(How::Reported));
    }

    fn unreported(&self, number: u64) {
        self.ended(number, 1, Some(How::Unreported));
    }

    fn life(&self) -> Option<u64> {
        Some(self.sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::inflow::Verdict;

    fn begin(sessions: &mut Sessions, key: Key, is_linked: bool) -> Arc<Incoming> {
        sessions.begin(key, |_| is_linked).0
    }

    #[test]
    fn sessions_of_nobody_make_room_and_those_that_are_heard_of_stay() {
        let mut sessions = Sessions::default();
        let alive = begin(&mut sessions, (1, 0), true);
        alive.inflow.lock().receive(0, 7);
        for session in 1..SESSIONS as u64 + 100 {
            begin(&mut sessions, (1, session), true);
            assert!(sessions.heard((1, 0)).is_some_and(|heard| Arc::ptr_eq(&heard, &alive)));
        }
        assert_eq!(sessions.of(1).len(), SESSIONS);
    }

    #[test]
    fn what_a_life_that_ended_had_sent_is_known_when_it_comes_back() {
        let mut sessions = Sessions::default();
        let first = begin(&mut sessions, (1, 0), false);
        first.inflow.lock().receive(0, 3);
        let held = begin(&mut sessions, (2, 0), false);
        for number in 0..2 {
            first.settle(number, true);
        }
        first.settle(2, false);
        drop(first);
        for session in 1..10 {
            begin(&mut sessions, (3, session), false);
        }
        assert!(sessions.ended.contains_key(&(1, 0)) && !sessions.ended.contains_key(&(2, 0)));
        drop(held);
        let back = sessions.of(1).remove(0);
        let mut inflow = back.inflow.lock();
        assert_eq!(inflow.receive(0, 4), Verdict::Take { skip: 3 });
        let receipt = inflow.receipt(0, 0, 0);
        assert_eq!((receipt.accepted, receipt.failed[0].from, receipt.failed[0].how), (4, 2, How::Unreported));
    }
}
