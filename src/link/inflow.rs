//! The receiving end of one numbered session: what is new, what came twice, what is missing.

/// How far one session of one peer has been received.
#[derive(Debug, Default)]
pub(crate) struct Inflow {
    next: u64,
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

    /// All messages below this number have been received.
    pub(crate) fn upto(&self) -> u64 {
        self.next
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
        assert_eq!(inflow.upto(), 5);
        assert_eq!(inflow.receive(u64::MAX, 9), Verdict::Gap);
    }
}
