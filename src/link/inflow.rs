//! The receiving end of one numbered session: what is new, what came twice, what is missing, and what has been settled.

use std::collections::BTreeMap;

use crate::wire::Receipt;

/// Settled ranges told in one receipt. Default 64: beyond the first gap there are few unless agents differ a lot in pace, and the rest is told later.
const RANGES: usize = 64;

/// How far one session of one peer has been received, and settled: handled here, or its sender told why not.
#[derive(Debug, Default)]
pub(crate) struct Inflow {
    next: u64,
    /// All below this number are settled.
    settled: u64,
    /// Beyond: the first and, exclusive, the last of each settled range.
    beyond: BTreeMap<u64, u64>,
    /// There is something that the peer has not been told.
    news: bool,
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
    /// Judges a frame of `count` messages numbered from `first`, and counts those taken as received.
    pub(crate) fn receive(&mut self, first: u64, count: usize) -> Verdict {
        if first > self.next {
            return Verdict::Gap;
        }
        let skip = usize::try_from(self.next - first).unwrap_or(usize::MAX).min(count);
        self.next = self.next.max(first.saturating_add(count as u64));
        Verdict::Take { skip }
    }

    /// A received message came to its end. True if that is the first news since the last receipt.
    pub(crate) fn settle(&mut self, number: u64) -> bool {
        let mut end = number + 1;
        if let Some(next) = self.beyond.remove(&end) {
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
        !std::mem::replace(&mut self.news, true)
    }

    /// What the peer is told.
    pub(crate) fn receipt(&mut self, session: u64) -> Receipt {
        self.news = false;
        let beyond = self.beyond.iter().take(RANGES).map(|(from, upto)| (*from, *upto)).collect();
        Receipt { session, accepted: self.next, settled: self.settled, beyond }
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
        assert_eq!(inflow.receipt(1).accepted, 5);
        assert_eq!(inflow.receive(u64::MAX, 9), Verdict::Gap);
    }

    #[test]
    fn what_is_settled_out_of_order_is_told_in_ranges_until_they_meet() {
        let mut inflow = Inflow::default();
        inflow.receive(0, 10);
        assert!(inflow.settle(3));
        assert!(!inflow.settle(5));
        inflow.settle(4);
        inflow.settle(8);
        let receipt = inflow.receipt(7);
        assert_eq!((receipt.settled, receipt.beyond.as_slice()), (0, &[(3, 6), (8, 9)][..]));
        assert!(inflow.settle(0), "news again");
        inflow.settle(2);
        inflow.settle(1);
        let receipt = inflow.receipt(7);
        assert_eq!((receipt.settled, receipt.beyond.as_slice()), (6, &[(8, 9)][..]));
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
                inflow.settle(numbers.swap_remove(index));
            }
            let receipt = inflow.receipt(7);
            assert_eq!((receipt.settled, receipt.beyond.len()), (40, 0));
        }
    }
}
