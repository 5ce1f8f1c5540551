//! The numbered messages of one session: kept until the peer has them, and remembered until it says what became of them.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use bytes::Bytes;

use crate::msg::Debt;
use crate::wire::{Envelope, Receipt};

/// Numbers with a known outcome that are kept between those without. Default 1,024, and as many as are open: beyond, the oldest are set apart.
const GAPS: usize = 1024;

/// What is remembered of a message to report its end: the envelope without contents, and what is settled with it.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) head: Box<Envelope>,
    pub(crate) debt: Debt,
}

/// A frame's worth of messages that the peer has not accepted.
pub(crate) struct Flight {
    pub(crate) first: u64,
    pub(crate) bodies: Vec<Bytes>,
    pub(crate) size: usize,
    /// Handed to a transport at least once: the peer may have it.
    pub(crate) tried: bool,
}

#[derive(Default)]
pub(crate) struct Ledger {
    /// The number of the next message.
    next: u64,
    flights: VecDeque<Flight>,
    /// How many of the flights, from the oldest on, are on their way on the present pipe.
    sent: usize,
    /// Messages whose outcome is not known.
    open: usize,
    /// Those that are held for so long that they are set apart: all of them older than `oldest`.
    held: BTreeMap<u64, Ticket>,
    /// The number of the oldest of `tickets`.
    oldest: u64,
    /// Absent where the outcome is known and an older one's is not.
    tickets: VecDeque<Option<Ticket>>,
}

/// How a message ended that was still open at the end of its session.
pub(crate) struct Open {
    pub(crate) ticket: Ticket,
    /// The peer may have had it.
    pub(crate) tried: bool,
}

impl Ledger {
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Messages whose outcome is not known.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Everything was accepted.
    pub(crate) fn is_accepted(&self) -> bool {
        self.flights.is_empty()
    }

    /// The outcome of everything is known.
    pub(crate) fn is_settled(&self) -> bool {
        self.open == 0
    }

    /// Frames on their way.
    pub(crate) fn on_their_way(&self) -> usize {
        self.sent
    }

    /// Something has to be sent, or sent again.
    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.flights.len()
    }

    /// The oldest flight that has to be sent; it is on its way from now on.
    pub(crate) fn launch(&mut self) -> Option<&Flight> {
        let flight = self.flights.get_mut(self.sent)?;
        self.sent += 1;
        flight.tried = true;
        Some(flight)
    }

    /// Numbers messages and keeps them; `sent` if they have been handed to the transport.
    pub(crate) fn book(&mut self, messages: Vec<(Bytes, Ticket)>, size: usize, sent: bool) {
        let (bodies, tickets): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        let flight = Flight { first: self.next, size, tried: sent, bodies };
        self.next += flight.bodies.len() as u64;
        self.flights.push_back(flight);
        self.sent += usize::from(sent);
        self.open += tickets.len();
        self.tickets.extend(tickets.into_iter().map(Some));
    }

    /// The pipe was lost: all that was not accepted has to be sent again.
    pub(crate) fn recall(&mut self) {
        self.sent = 0;
    }

    /// A flight came back from the transport unsent.
    pub(crate) fn bounced(&mut self, first: u64) {
        let index = self.flights.iter().rposition(|flight| flight.first == first);
        if let Some((index, flight)) = index.and_then(|index| Some((index, self.flights.get_mut(index)?))) {
            flight.tried = false;
            self.sent = self.sent.min(index);
        }
    }

    /// Takes in what the peer says it has, and what of that is settled. Answers with the bytes that are free now.
    pub(crate) fn receive(&mut self, receipt: &Receipt, settled: &mut Vec<Debt>) -> usize {
        let freed = self.accept(receipt.accepted);
        self.settle(0, receipt.settled, settled);
        for &(from, upto) in &receipt.beyond {
            self.settle(from, upto, settled);
        }
        self.trim();
        freed
    }

    fn accept(&mut self, upto: u64) -> usize {
        let mut freed = 0;
        while let Some(flight) = self.flights.pop_front_if(|flight| flight.first + flight.bodies.len() as u64 <= upto) {
            freed += flight.size;
            self.sent = self.sent.saturating_sub(1);
        }
        freed
    }

    /// Numbers that are settled already, and beyond the last, are a forger's or a repetition.
    fn settle(&mut self, from: u64, upto: u64, settled: &mut Vec<Debt>) {
        let before = settled.len();
        while let Some((&number, _)) = self.held.range(from..upto.max(from)).next() {
            settled.extend(self.held.remove(&number).map(|ticket| ticket.debt));
        }
        let index = |number: u64| {
            usize::try_from(number.saturating_sub(self.oldest)).unwrap_or(usize::MAX).min(self.tickets.len())
        };
        let range = index(from)..index(upto).max(index(from));
        let known = self.tickets.range_mut(range).filter_map(Option::take);
        settled.extend(known.map(|ticket| ticket.debt));
        self.open -= settled.len() - before;
    }

    /// Settles the message of a connection that was answered.
    pub(crate) fn answered(&mut self, connection: Option<u64>, id: i64) -> Option<Debt> {
        let is_it = |ticket: &Ticket| ticket.head.id == Some(id) && ticket.head.from.connection == connection;
        let held = self.held.iter().find(|(_, ticket)| is_it(ticket)).map(|(number, _)| *number);
        let ticket = match held {
            Some(number) => self.held.remove(&number),
            None => self.tickets.iter_mut().find(|ticket| ticket.as_ref().is_some_and(is_it))?.take(),
        };
        self.open -= usize::from(ticket.is_some());
        self.trim();
        ticket.map(|ticket| ticket.debt)
    }

    /// Lets go of tickets up to the oldest whose outcome is not known; of that, too, if it would keep many known ones.
    fn trim(&mut self) {
        let most = GAPS + 2 * (self.open - self.held.len());
        while self.tickets.front().is_some_and(|ticket| ticket.is_none() || self.tickets.len() > most) {
            let ticket = self.tickets.pop_front().flatten();
            self.held.extend(ticket.map(|ticket| (self.oldest, ticket)));
            self.oldest += 1;
        }
    }

    /// Ends the session. What is open comes back, oldest first, with the bytes that are free now.
    pub(crate) fn end(&mut self) -> (Vec<Open>, usize) {
        let freed = self.flights.iter().map(|flight| flight.size).sum();
        let untried: Vec<_> = self
            .flights
            .iter()
            .filter(|flight| !flight.tried)
            .map(|flight| flight.first..flight.first + flight.bodies.len() as u64)
            .collect();
        let numbered = (self.oldest..).zip(mem::take(&mut self.tickets));
        let recent = numbered.filter_map(|(number, ticket)| Some((number, ticket?)));
        let open = mem::take(&mut self.held).into_iter().chain(recent).map(|(number, ticket)| {
            let tried = !untried.iter().any(|range| range.contains(&number));
            Open { ticket, tried }
        });
        let open = open.collect();
        *self = Self::default();
        (open, freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;
    use crate::wire::Encoded;

    fn message() -> (Bytes, Ticket) {
        let head = Envelope {
            from: Addr::default(),
            to: Addr::default(),
            subject: "S".into(),
            id: None,
            reply_to: None,
            contents: Encoded::null(),
            meta: Encoded::null(),
        };
        (Bytes::from_static(b"body"), Ticket { head: Box::new(head), debt: None })
    }

    fn receipt(accepted: u64, settled: u64, beyond: &[(u64, u64)]) -> Receipt {
        Receipt { session: 1, accepted, settled, beyond: beyond.to_vec() }
    }

    #[test]
    fn accepted_flights_are_let_go_and_tickets_stay_until_they_are_settled() {
        let mut ledger = Ledger::default();
        ledger.book(vec![message(), message()], 20, true);
        ledger.book(vec![message()], 10, true);
        let mut settled = Vec::new();
        assert_eq!(ledger.receive(&receipt(2, 0, &[]), &mut settled), 20);
        assert_eq!((settled.len(), ledger.open(), ledger.on_their_way()), (0, 3, 1));
        assert_eq!(ledger.receive(&receipt(3, 0, &[(1, 2)]), &mut settled), 10);
        assert!(ledger.is_accepted());
        assert_eq!((settled.len(), ledger.open()), (1, 2));
        ledger.receive(&receipt(3, 3, &[]), &mut settled);
        assert!(ledger.is_settled());
        assert_eq!(settled.len(), 3);
    }

    #[test]
    fn a_recalled_flight_goes_again_and_one_never_sent_is_told_apart() {
        let mut ledger = Ledger::default();
        ledger.book(vec![message()], 10, false);
        ledger.book(vec![message()], 10, false);
        assert_eq!(ledger.launch().map(|flight| flight.first), Some(0));
        ledger.recall();
        assert_eq!(ledger.launch().map(|flight| flight.first), Some(0));
        let (open, freed) = ledger.end();
        assert_eq!(freed, 20);
        assert_eq!(open.iter().map(|open| open.tried).collect::<Vec<_>>(), [true, false]);
        assert_eq!(ledger.next(), 0);
    }

    #[test]
    fn messages_that_are_held_keep_no_room_from_others() {
        let mut ledger = Ledger::default();
        ledger.book(vec![message(), message()], 20, true);
        let mut settled = Vec::new();
        for number in 2..100_000 {
            ledger.book(vec![message()], 10, true);
            ledger.receive(&receipt(number + 1, 0, &[(2, number + 1)]), &mut settled);
            assert_eq!(ledger.open(), 2);
        }
        assert!(ledger.tickets.len() <= GAPS + 4, "{}", ledger.tickets.len());
        assert_eq!(settled.len(), 100_000 - 2);
        ledger.receive(&receipt(100_000, 1, &[(2, 100_000)]), &mut settled);
        assert_eq!((settled.len(), ledger.open()), (100_000 - 1, 1));
        assert_eq!(ledger.end().0.len(), 1);
        assert!(ledger.is_settled());
    }

    #[test]
    fn a_receipt_for_what_never_was_harms_nobody() {
        let mut ledger = Ledger::default();
        ledger.book(vec![message()], 10, true);
        let mut settled = Vec::new();
        let wild = receipt(u64::MAX, u64::MAX, &[(5, 2), (u64::MAX, 0), (0, u64::MAX)]);
        assert_eq!(ledger.receive(&wild, &mut settled), 10);
        assert_eq!(settled.len(), 1);
        assert_eq!(ledger.receive(&wild, &mut settled), 0);
    }
}
