//! The receiving end of one numbered session: what is new, what came twice, what is missing, and what has become of it.

use std::collections::BTreeMap;

use super::OPEN;
use crate::wire::{Failed, How, Receipt};

/// Settled ranges told in one receipt. Default 64: beyond the first gap there are few unless agents differ a lot in pace, and the rest follows in the next frames.
const RANGES: usize = 64;
/// Ranges that had no handler, told in one receipt. Default 512: the rest follows in the next frames, and until then is not told as settled either.
const FAILED: usize = 512;

/// Ranges without handler that are kept until the peer has heard of them. Default [`OPEN`]: a peer has at most twice as many messages open. Beyond, the last is stretched, and tells of what is in it that
/// nobody knows: a peer that never says what it has heard has itself to blame.
const KEPT: usize = OPEN;
/// Settled messages that are told at once when nothing more is in anybody's hands: their sender may be waiting to send more. Default 16: fewer wait for an answer that goes with them, or for 5 ms.
const FEW: u64 = 16;
/// Settled messages that are told at once whatever else is there. Default 2,048: a quarter of those that may be ahead by default.
const MANY: u64 = 2048;

/// When the peer is to be told what has become of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    /// As was to be done before.
    AsBefore,
    /// Soon: it is the first news since the last receipt.
    Soon,
    Now,
}

/// How far one session of one peer has been received, and settled: handled here, or not, which is told until the peer has heard it.
#[expect(clippy::struct_excessive_bools, reason = "what the next receipt has to do with the last, each for itself")]
#[derive(Debug, Default)]
pub(crate) struct Inflow {
    next: u64,
    /// All below this number are settled.
    settled: u64,
    /// Beyond: the first and, exclusive, the last of each settled range.
    beyond: BTreeMap<u64, u64>,
    /// Those among the settled that had no handler, by the first of a range, until the peer has heard of them.
    failed: BTreeMap<u64, Untold>,
    /// The number of the last receipt.
    version: u64,
    /// That of the last which the peer has said to have heard.
    heard: u64,
    /// Where in `beyond` the next receipt goes on: it had no place for all.
    cursor: u64,
    /// Before that something is new.
    again: bool,
    /// The last receipt had no place for something.
    more: bool,
    /// It left something out whose report waits to be sent.
    unreported: bool,
    /// The reports of those below this number may be lost, also if they fail later.
    doubtful: u64,
    /// There is something that the peer has not been told.
    news: bool,
    /// So many were settled since the last receipt.
    untold: u64,
}

#[derive(Debug)]
struct Untold {
    upto: u64,
    how: How,
    /// The receipt that told it.
    since: Option<u64>,
    /// Its report is among our messages below this number.
    reported: Option<u64>,
}

/// What is kept of a session in which nothing is open: its peer was given up, and may live after all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remains {
    next: u64,
    /// All below this number were handled; what became of the others is not known any more.
    handled: u64,
    version: u64,
}

/// Which messages of a frame to take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All but the first so many, which came before.
    Take {
        /// Messages to skip.
        skip: usize,
    },
    /// None: messages before these are missing, and will come again.
    Gap,
}

impl Inflow {
    /// What to remember when no message of it is in anybody's hands.
    pub(crate) fn remains(&self) -> Remains {
        let failed = self.failed.keys().next().copied().unwrap_or(u64::MAX);
        Remains { next: self.next, handled: self.settled.min(failed), version: self.version }
    }

    /// Judges a frame of `count` messages numbered from `first`, and counts those taken as received.
    pub(crate) fn receive(&mut self, first: u64, count: usize) -> Verdict {
        if first > self.next {
            return Verdict::Gap;
        }
        let skip = usize::try_from(self.next - first).unwrap_or(usize::MAX).min(count);
        self.next = self.next.max(first.saturating_add(count as u64));
        // Whoever receives owes a receipt, and what is settled until then is told in it.
        self.news |= count > 0;
        Verdict::Take { skip }
    }

    /// Whether some of the messages before this number have not come.
    pub(crate) fn misses(&self, number: u64) -> bool {
        number > self.next
    }

    /// The peer has heard our receipts up to this one.
    pub(crate) fn heard(&mut self, version: u64) {
        self.heard = self.heard.max(version);
        if !self.failed.is_empty() {
            self.failed.retain(|_, untold| untold.since.is_none_or(|since| since > version));
        }
    }

    /// Handlers were called with so many received messages from `number` on.
    pub(crate) fn settle(&mut self, number: u64, count: u64) -> Tell {
        let mut end = number + count;
        if !self.beyond.is_empty()
            && let Some(next) = self.beyond.remove(&end)
        {
            end = next;
        }
        if number == self.settled {
            self.settled = end;
        } else {
            match self.beyond.range_mut(..number).next_back() {
                Some((_, before)) if *before == number => *before = end,
                _ => {
                    self.beyond.insert(number, end);
                }
            }
        }
        self.again |= number < self.cursor;
        let before = self.untold;
        self.untold += count;
        let is_first = !std::mem::replace(&mut self.news, true);
        let are_many = before < MANY && self.untold >= MANY;
        if are_many || self.untold >= FEW && self.settled == self.next {
            Tell::Now
        } else if is_first {
            Tell::Soon
        } else {
            Tell::AsBefore
        }
    }

    /// So many received messages from `number` on had no handler.
    pub(crate) fn fail(&mut self, number: u64, count: u64, how: How) -> Tell {
        let upto = number + count;
        if how == How::Reported && (number + 1..upto).contains(&self.doubtful) {
            let before = self.fail(number, self.doubtful - number, how);
            let then = self.fail(self.doubtful, upto - self.doubtful, how);
            return if then == Tell::AsBefore { before } else { then };
        }
        let how = if how == How::Reported && number < self.doubtful { How::Unreported } else { how };
        let is_new = |untold: &Untold| untold.since.is_none() && untold.reported.is_none();
        let is_full = self.failed.len() >= KEPT;
        match self.failed.range_mut(..number).next_back() {
            Some((_, before)) if before.upto == number && before.how == how && is_new(before) => before.upto = upto,
            Some((_, before)) if is_full => {
                *before = Untold { upto, how: How::Unreported, since: None, reported: None };
            }
            _ => {
                self.failed.insert(number, Untold { upto, how, since: None, reported: None });
            }
        }
        self.settle(number, count)
    }

    /// What the peer is told in a frame: all reports so far are among our messages below `reported`, and those below `gone` are on their way with it. A report that still waits, and is lost when
    /// the peer is given up, must not have been relied on.
    pub(crate) fn receipt(&mut self, session: u64, reported: u64, gone: u64) -> Receipt {
        self.news = false;
        self.untold = 0;
        self.unreported = false;
        self.version += 1;
        let mut failed = Vec::new();
        let mut horizon = u64::MAX;
        for (&from, untold) in self.failed.iter_mut().filter(|(_, untold)| untold.since.is_none()) {
            let waits = untold.how == How::Reported && *untold.reported.get_or_insert(reported) > gone;
            // What is not told with the failed must not pass for handled.
            if horizon == u64::MAX && (waits || failed.len() == FAILED) {
                horizon = from;
                self.unreported = waits;
            }
            if horizon == u64::MAX {
                untold.since = Some(self.version);
                failed.push(Failed { from, upto: untold.upto, how: untold.how });
            }
        }
        let mut ranges = self.beyond.range(self.cursor..horizon.max(self.cursor));
        let beyond: Vec<_> = ranges.by_ref().take(RANGES).map(|(&from, &upto)| (from, upto.min(horizon))).collect();
        let next = ranges.next().map(|(&from, _)| from);
        self.more = horizon < u64::MAX && !self.unreported || next.is_some() || std::mem::take(&mut self.again);
        self.cursor = next.unwrap_or(0);
        let settled = self.settled.min(horizon);
        Receipt { session, version: self.version, accepted: self.next, settled, beyond, failed }
    }

    /// The last receipt had no place for something that is to be told.
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }

    /// The last receipt left something out that is told when its report has been sent.
    pub(crate) fn has_unreported(&self) -> bool {
        self.unreported
    }

    /// The peer was given up: what it was to be told, and has not heard, may be lost. If it lives after all, it is told so.
    pub(crate) fn reports_are_lost(&mut self) {
        self.doubtful = self.next;
        for untold in self.failed.values_mut().filter(|untold| untold.how == How::Reported) {
            untold.how = How::Unreported;
        }
    }

    /// The peer has not said that it has heard all it was told.
    pub(crate) fn waits_for_word(&self) -> bool {
        !self.failed.is_empty() || self.heard < self.version
    }

    /// What the peer was told may be lost, with its pipe or on it: all of it is told again.
    pub(crate) fn tell_again(&mut self) {
        self.cursor = 0;
        self.doubt();
        // Our messages may be numbered anew.
        self.failed.values_mut().for_each(|untold| untold.reported = None);
    }

    /// The next receipt must not take for heard what an earlier one said had no handler: on a pipe that drops frames a later one may come without it.
    pub(crate) fn doubt(&mut self) {
        for untold in self.failed.values_mut() {
            untold.since = None;
        }
    }
}

impl From<Remains> for Inflow {
    fn from(Remains { next, handled, version }: Remains) -> Self {
        let mut inflow = Self { next, settled: next, version, doubtful: next, ..Self::default() };
        if handled < next {
            let untold = Untold { upto: next, how: How::Unreported, since: None, reported: None };
            inflow.failed.insert(handled, untold);
        }
        inflow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_once_and_in_order() {
        let mut inflow = Inflow::default();
        assert_eq!(inflow.receive(0, 3), Verdict::Take { skip: 0 });
        assert_eq!(inflow.receive(1, 4), Verdict::Take { skip: 2 });
        assert_eq!(inflow.receive(0, 5), Verdict::Take { skip: 5 });
        assert_eq!(inflow.receive(7, 1), Verdict::Gap);
        assert_eq!(inflow.receive(5, 0), Verdict::Take { skip: 0 });
        assert_eq!(inflow.receipt(1, 0, 0).accepted, 5);
        assert_eq!(inflow.receive(u64::MAX, 9), Verdict::Gap);
    }

    #[test]
    fn a_peer_that_never_hears_what_failed_fills_no_memory() {
        let mut inflow = Inflow::default();
        inflow.receive(0, 3 * KEPT);
        for number in 0..3 * KEPT as u64 {
            if number % 2 == 0 {
                inflow.fail(number, 1, How::Reported)
            } else {
                inflow.settle(number, 1)
            };
            if number % 1024 == 0 {
                inflow.receipt(1, u64::MAX, u64::MAX);
            }
        }
        assert_eq!((inflow.failed.len(), inflow.settled), (KEPT, 3 * KEPT as u64));
    }

    #[test]
    fn who_may_wait_to_send_more_is_told_at_once() {
        let mut inflow = Inflow::default();
        inflow.receive(0, 10_000);
        inflow.receipt(1, 0, 0);
        assert_eq!(inflow.settle(0, MANY - 1), Tell::Soon);
        assert_eq!(inflow.settle(MANY - 1, 1), Tell::Now);
        assert_eq!(inflow.settle(MANY, 100), Tell::AsBefore);
        inflow.receipt(1, 0, 0);
        assert_eq!(inflow.settle(MANY + 100, 10_000 - FEW - MANY - 100), Tell::Now);
        inflow.receipt(1, 0, 0);
        assert_eq!(inflow.settle(10_000 - FEW, FEW - 1), Tell::Soon);
        assert_eq!(inflow.settle(9_999, 1), Tell::Now, "nothing is left");
    }

    #[test]
    fn what_is_settled_out_of_order_is_told_in_ranges_until_they_meet() {
        let mut inflow = Inflow::default();
        inflow.receive(0, 10);
        assert_eq!(inflow.settle(3, 1), Tell::AsBefore, "a receipt is owed for what was received");
        inflow.receipt(7, 0, 0);
        assert_eq!(inflow.settle(5, 1), Tell::Soon);
        assert_eq!(inflow.settle(4, 1), Tell::AsBefore);
        inflow.settle(8, 1);
        let receipt = inflow.receipt(7, 0, 0);
        assert_eq!((receipt.settled, receipt.beyond.as_slice()), (0, &[(3, 6), (8, 9)][..]));
        assert_eq!(inflow.settle(0, 1), Tell::Soon, "news again");
        inflow.settle(2, 1);
        inflow.settle(1, 1);
        let receipt = inflow.receipt(7, 0, 0);
        assert_eq!((receipt.settled, receipt.beyond.as_slice()), (6, &[(8, 9)][..]));
    }

    #[test]
    fn what_had_no_handler_is_told_until_the_peer_has_heard_it() {
        let mut inflow = Inflow::default();
        inflow.receive(0, 10);
        inflow.settle(0, 1);
        inflow.fail(1, 1, How::Reported);
        inflow.fail(2, 1, How::Reported);
        inflow.fail(3, 1, How::Unread);
        let told = inflow.receipt(7, 0, 0);
        let both = [Failed { from: 1, upto: 3, how: How::Reported }, Failed { from: 3, upto: 4, how: How::Unread }];
        assert_eq!((told.settled, told.failed.as_slice()), (4, &both[..]));
        inflow.fail(4, 1, How::Reported);
        let third = Failed { from: 4, upto: 5, how: How::Reported };
        assert_eq!(inflow.receipt(7, 0, 0).failed, [third]);
        inflow.tell_again();
        let told = inflow.receipt(7, 0, 0);
        assert_eq!(told.failed.len(), 3, "what was told on a pipe that was lost may be lost");
        inflow.fail(6, 1, How::Reported);
        inflow.heard(told.version);
        inflow.tell_again();
        assert_eq!(inflow.receipt(7, 0, 0).failed, [Failed { from: 6, upto: 7, how: How::Reported }]);
    }

    #[test]
    fn what_has_a_report_is_told_with_it_or_after_it_and_in_doubt_if_that_may_be_lost() {
        let mut inflow = Inflow::default();
        inflow.receive(0, 10);
        inflow.settle(0, 1);
        inflow.fail(1, 1, How::Reported);
        inflow.settle(2, 1);
        let early = inflow.receipt(7, 5, 4);
        assert_eq!((early.settled, early.beyond.len(), early.failed.len()), (1, 0, 0));
        assert_eq!((inflow.has_unreported(), inflow.has_more()), (true, false));
        // Later messages of ours do not hold it up.
        let told = inflow.receipt(7, 9, 5);
        assert_eq!((told.settled, told.failed.as_slice()), (3, &[Failed { from: 1, upto: 2, how: How::Reported }][..]));
        inflow.reports_are_lost();
        inflow.fail(4, 1, How::Reported);
        inflow.tell_again();
        let again = inflow.receipt(7, 0, 0).failed;
        assert!(again.iter().all(|failed| failed.how == How::Unreported), "{again:?}");
        assert_eq!(again.len(), 2);
    }

    #[test]
    fn what_a_receipt_has_no_place_for_does_not_pass_for_handled() {
        let mut inflow = Inflow::default();
        inflow.receive(0, 4000);
        for number in 0..4000 {
            if number % 2 == 0 {
                inflow.fail(number, 1, How::Reported)
            } else {
                inflow.settle(number, 1)
            };
        }
        let mut failed = 0;
        loop {
            let told = inflow.receipt(7, 0, 0);
            assert!(told.settled <= told.failed.last().map_or(4000, |last| last.upto + 1));
            failed += told.failed.len();
            if !inflow.has_more() {
                assert_eq!((failed, told.settled), (2000, 4000));
                return;
            }
        }
    }

    #[test]
    fn all_that_is_settled_out_of_order_is_told_in_the_end() {
        let mut inflow = Inflow::default();
        inflow.receive(0, 1001);
        let mut told = BTreeMap::new();
        let mut tell = |inflow: &mut Inflow| {
            let beyond = inflow.receipt(7, 0, 0).beyond;
            assert!(beyond.len() <= RANGES);
            told.extend(beyond);
            (told.len(), inflow.has_more())
        };
        for number in (5..1000).step_by(2) {
            inflow.settle(number, 1);
        }
        assert_eq!(tell(&mut inflow), (RANGES, true));
        inflow.settle(1, 1);
        while tell(&mut inflow).1 {}
        assert_eq!(tell(&mut inflow).0, 499);
    }

    #[test]
    fn any_order_of_settling_ends_in_the_same_receipt() {
        let mut seed = 1_u64;
        for _ in 0..200 {
            let mut inflow = Inflow::default();
            inflow.receive(0, 40);
            let mut numbers: Vec<u64> = (0..40).collect();
            while !numbers.is_empty() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let index = usize::try_from(seed >> 33).unwrap() % numbers.len();
                inflow.settle(numbers.swap_remove(index), 1);
            }
            let receipt = inflow.receipt(7, 0, 0);
            assert_eq!((receipt.settled, receipt.beyond.len()), (40, 0));
        }
    }
}
