//! What became of every message, written down where it is sent, handled and told about; whatever breaks the promise panics at once.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::failure::Reason;

/// One life of one agent of one router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Who {
    pub(super) host: usize,
    pub(super) life: u64,
    pub(super) agent: usize,
}

/// How the sender of a message got to know of its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Delivered,
    /// Not sent at all, or told not to have reached a handler.
    Refused(Reason),
    /// Nobody knows.
    Unknown(String),
}

#[derive(Debug)]
pub(super) struct Fate {
    pub(super) sender: Who,
    /// The router and its life that was there to take it.
    to: Option<(usize, u64)>,
    /// By its address on the network: another way than by that on the machine.
    by_net: bool,
    pub(super) sent: Duration,
    /// Sent one way: its sender's router is told when it was handled, and its sender by a report if not.
    pub(super) one_way: bool,
    called: Vec<Who>,
    told: Vec<Told>,
    /// Its sender's router let go of it.
    settled: u32,
    /// After so long its end was known.
    took: Duration,
    /// Its sender died before it was told, or ended in order and did not wait.
    orphan: bool,
}

#[derive(Default)]
pub(super) struct Fates {
    all: Vec<Fate>,
    ids: HashMap<(Who, i64), usize>,
    /// The last message that a receiver had of a sender, by each of its addresses.
    last: HashMap<(Who, Who, bool), usize>,
    /// Those whose end is not known yet.
    open: usize,
    pub(super) slowest: Duration,
    /// How often each outcome came.
    pub(super) tally: BTreeMap<String, u64>,
}

impl Fates {
    pub(super) fn new_message(
        &mut self,
        sender: Who,
        sent: Duration,
        one_way: bool,
        to: Option<(usize, u64)>,
    ) -> usize {
        let (called, told) = (Vec::new(), Vec::new());
        self.all.push(Fate {
            sender,
            to,
            by_net: false,
            sent,
            one_way,
            called,
            told,
            settled: 0,
            took: Duration::ZERO,
            orphan: false,
        });
        self.open += 1;
        self.all.len() - 1
    }

    /// The sender's own number for a message sent one way, by which reports name it.
    pub(super) fn named(&mut self, number: usize, id: i64) {
        self.ids.insert((self.all[number].sender, id), number);
    }

    pub(super) fn number_of(&self, sender: Who, id: i64) -> Option<usize> {
        self.ids.get(&(sender, id)).copied()
    }

    /// The router and its life that a message was sent from.
    pub(super) fn sender(&self, number: usize) -> (usize, u64) {
        let Who { host, life, .. } = self.all[number].sender;
        (host, life)
    }

    pub(super) fn goes_by_net(&mut self, number: usize) {
        self.all[number].by_net = true;
    }

    /// The router and its life that was there to take a message.
    pub(super) fn asked(&self, number: usize) -> Option<(usize, u64)> {
        self.all[number].to
    }

    /// A handler is called with a message.
    pub(super) fn called(&mut self, number: usize, by: Who) {
        let fate = &mut self.all[number];
        fate.called.push(by);
        assert!(fate.called.len() == 1, "message {number} is handled twice: {fate:?}");
        let refused = fate.told.iter().find(|told| matches!(told, Told::Refused(_)));
        assert!(refused.is_none() || fate.orphan, "message {number} is handled after it was refused: {fate:?}");
        let last = self.last.insert((fate.sender, by, fate.by_net), number);
        assert!(last.is_none_or(|last| last < number), "message {number} is handled after {last:?}: {fate:?}");
    }

    /// The sender is told.
    pub(super) fn told(&mut self, number: usize, told: Told, now: Duration) {
        let fate = &mut self.all[number];
        let was_open = fate.is_open();
        if fate.one_way && told == Told::Unknown(Reason::NoOutcome.to_string()) && fate.told[..] == [Told::Delivered] {
            // The report lay in the mailbox of its sender when its router heard better; nobody but this simulation was told of that.
            fate.told.clear();
        }
        *self.tally.entry(format!("{told:?}")).or_default() += 1;
        let in_hands =
            matches!(&told, Told::Refused(Reason::AgentStopped | Reason::AgentPanicked | Reason::ShuttingDown));
        fate.told.push(told);
        assert!(fate.told.len() == 1 || fate.orphan, "message {number} is told about twice: {fate:?}");
        let is_true = match &fate.told[0] {
            Told::Delivered => fate.called.len() == 1,
            Told::Refused(_) => fate.called.is_empty() || in_hands,
            Told::Unknown(_) => true,
        };
        assert!(is_true || fate.orphan, "the sender of message {number} is told what is not so: {fate:?}");
        self.closed(number, was_open, now);
    }

    /// A message sent one way has come to its end: it was handled, or its sender is being told why not.
    pub(super) fn settled(&mut self, number: usize, handled: bool, now: Duration) {
        let fate = &mut self.all[number];
        fate.settled += 1;
        assert!(fate.settled == 1, "message {number} is settled twice: {fate:?}");
        // Its sender may have been told already that nobody knows: then it hears no more.
        if handled && !matches!(fate.told[..], [Told::Unknown(_)]) {
            self.told(number, Told::Delivered, now);
        }
    }

    fn closed(&mut self, number: usize, was_open: bool, now: Duration) {
        let fate = &mut self.all[number];
        if was_open && !fate.is_open() {
            self.open -= 1;
            fate.took = now.saturating_sub(fate.sent);
            self.slowest = self.slowest.max(fate.took);
        }
    }

    /// A router died: those who sent from there are told nothing any more.
    pub(super) fn died(&mut self, host: usize, life: u64) {
        for fate in self.all.iter_mut().filter(|fate| fate.sender.host == host && fate.sender.life == life) {
            if fate.is_open() {
                self.open -= 1;
                fate.orphan = true;
            }
        }
    }

    /// Everything has come to rest: whatever has no end now never had one.
    /// `limit`: how long the router of a sender may take for that.
    pub(super) fn check(&self, now: Duration, limit: impl Fn(usize) -> Duration) {
        for (number, fate) in self.all.iter().enumerate().filter(|(_, fate)| !fate.orphan) {
            assert!(fate.told.len() == 1, "at {now:?} message {number} has no outcome: {fate:?}");
            assert!(fate.took <= limit(fate.sender.host), "the end of message {number} comes too late: {fate:?}");
        }
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.open == 0 && self.all.iter().all(|fate| fate.orphan || !fate.told.is_empty() || !fate.called.is_empty())
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Where nothing worse happened than a router can bear, nothing is in doubt; and nothing is refused, unless by routers that ended in order and were not there for a while.
    /// A router that is slow to introduce itself is taken for one in Python: what such a one has been sent cannot be sent again on its next pipe.
    pub(super) fn check_nothing_lost(&self, may_be_refused: bool, may_be_python: bool) {
        for (number, fate) in self.all.iter().enumerate() {
            let is_fine = match &fate.told[..] {
                [Told::Delivered] => true,
                [Told::Refused(_)] => may_be_refused,
                [Told::Unknown(_)] => may_be_python,
                _ => fate.orphan,
            };
            assert!(is_fine, "message {number} is lost although nothing worse happened than a pause: {fate:?}");
        }
    }
}

impl Fate {
    fn is_open(&self) -> bool {
        !self.orphan && self.told.is_empty()
    }
}
