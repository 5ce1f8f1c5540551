//! The numbered messages of one session: kept until the peer has them, and remembered until it says what became of them.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use crate::addr::Endpoint;
use crate::link::Place;
use crate::msg::{Debt, Msg};
use crate::wire::{Block, Encoded, How, Receipt};

/// Numbers with a known outcome that are kept between those without. Default 1,024, and as many as are open: beyond, the oldest are set apart.
const GAPS: usize = 1024;
/// Messages booked within this time share a deadline: that of the first. Default 1 s: a deadline of a minute is kept by sixty notes.
const GRAIN: Duration = Duration::from_secs(1);

/// Bytes of messages that one frame carries, unless a single one is larger. Default 64 KiB: more gains no throughput, and delays whatever comes behind it.
const FRAME: usize = 64 << 10;

/// What is remembered of a message to report its end: its outside, and what is settled with it.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) msg: Msg,
    /// Counts the message among those to its destination, for as long as it is kept.
    pub(crate) place: Option<Place>,
    /// Its sender has been told that its outcome was not known in time.
    pub(crate) told: bool,
}

/// A message to be numbered.
pub(crate) struct Message<'a> {
    pub(crate) msg: Msg,
    pub(crate) contents: Encoded,
    /// Where answers go, if it does not say so itself.
    pub(crate) net: Option<&'a Endpoint>,
    pub(crate) place: Option<Place>,
    /// What it takes of the link's room.
    pub(crate) size: usize,
    /// When it was taken.
    pub(crate) since: Instant,
}

impl Ticket {
    #[inline]
    pub(crate) fn new(mut msg: Msg, place: Option<Place>) -> Self {
        msg.empty();
        Self { msg, place, told: false }
    }
}

/// A frame's worth of messages that the peer has not accepted.
pub(crate) struct Flight {
    pub(crate) first: u64,
    pub(crate) block: Block,
    /// What they take of the link's room.
    pub(crate) size: usize,
    /// Handed to a transport at least once: the peer may have it.
    pub(crate) tried: bool,
}

#[derive(Default)]
pub(crate) struct Ledger {
    /// The number of the next message.
    next: u64,
    flights: VecDeque<Flight>,
    /// The last that was let go of, for the next.
    spare: Block,
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
    /// When messages were booked: a time, and the number after the last of those that share it.
    booked: VecDeque<(Instant, u64)>,
    /// The version of the last receipt.
    heard: u64,
    /// All below this number have been accepted.
    accepted: u64,
    /// The number after the last message that is remembered, and not kept to be sent again.
    forgotten: u64,
}

/// What a receipt tells.
#[derive(Default)]
pub(crate) struct News {
    /// What is settled and somebody waits for, and whether a handler was called with it.
    pub(crate) settled: Vec<(Debt, bool)>,
    /// What the peer could not read.
    pub(crate) unread: Vec<Ticket>,
    /// What no handler was called with, and whose report may be lost.
    pub(crate) unreported: Vec<Ticket>,
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

    /// The number of the next message on the present pipe.
    pub(crate) fn next_unsent(&self) -> u64 {
        self.flights.get(self.sent).map_or(self.next, |flight| flight.first)
    }

    /// The number after the last that is on its way once the next flight is, or is not, launched.
    pub(crate) fn gone(&self, launching: bool) -> u64 {
        let next = self.flights.get(self.sent).filter(|_| launching);
        next.map_or(self.next_unsent(), |flight| flight.first + flight.block.len() as u64)
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

    /// The version of the last receipt.
    pub(crate) fn heard(&self) -> u64 {
        self.heard
    }

    /// Since when the oldest messages wait for their outcome, at least.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.booked.front().map(|(at, _)| *at)
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
    pub(crate) fn launch(&mut self) {
        if let Some(flight) = self.flights.get_mut(self.sent) {
            self.sent += 1;
            flight.tried = true;
        }
    }

    /// The flight that was launched last.
    pub(crate) fn launched(&self) -> Option<&Flight> {
        self.flights.get(self.sent.checked_sub(1)?)
    }

    /// More waits to be sent than the next frame takes, or that is full.
    pub(crate) fn has_full(&self) -> bool {
        let next = self.flights.get(self.sent);
        self.sent + 1 < self.flights.len() || next.is_some_and(|flight| flight.block.size() >= FRAME / 2)
    }

    /// Numbers a message that was handed to the transport alone, and keeps it.
    pub(crate) fn book(&mut self, message: Message<'_>) {
        self.open_flight();
        self.add(message);
        self.launch();
    }

    /// Numbers a message that was handed to the transport alone, and keeps nothing but who sent it.
    pub(crate) fn remember(&mut self, ticket: Ticket, since: Instant) {
        self.number(ticket, since);
        self.forgotten = self.next;
    }

    /// Something was sent that the peer may not have, and that cannot be sent again.
    pub(crate) fn has_forgotten(&self) -> bool {
        self.accepted < self.forgotten
    }

    /// Numbers a message and keeps it, to be sent with others.
    pub(crate) fn add(&mut self, Message { msg, contents, net, place, size, since }: Message<'_>) {
        let is_open =
            |flight: &Flight| !flight.tried && flight.block.size() + size <= FRAME && flight.block.has_names_for(4);
        if self.sent == self.flights.len() || !self.flights.back().is_some_and(is_open) {
            self.open_flight();
        }
        let Some(flight) = self.flights.back_mut() else { return };
        flight.block.add(msg.parts(&contents), net);
        flight.size += size;
        self.number(Ticket::new(msg, place), since);
    }

    #[inline]
    fn number(&mut self, ticket: Ticket, since: Instant) {
        self.next += 1;
        match self.booked.back_mut() {
            Some((first, next)) if since < *first + GRAIN => *next = self.next,
            _ => self.booked.push_back((since, self.next)),
        }
        self.open += 1;
        self.tickets.push_back(Some(ticket));
    }

    fn open_flight(&mut self) {
        let mut block = mem::take(&mut self.spare);
        block.clear();
        self.flights.push_back(Flight { first: self.next, block, size: 0, tried: false });
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

    /// The peer may never say what it has: what was sent to it keeps no room from others any more. Answers with the bytes that are free now.
    pub(crate) fn lighten(&mut self) -> usize {
        for ticket in self.held.values_mut().chain(self.tickets.iter_mut().flatten()) {
            ticket.place = None;
        }
        self.flights.iter_mut().map(|flight| mem::take(&mut flight.size)).sum()
    }

    /// Takes in what the peer says it has, and what of that is settled. Answers with the bytes that are free now.
    pub(crate) fn receive(&mut self, receipt: &Receipt, news: &mut News) -> usize {
        let freed = self.accept(receipt.accepted);
        self.accepted = self.accepted.max(receipt.accepted);
        self.heard = self.heard.max(receipt.version);
        // Where nobody waits for the outcome of its own message, there is nothing to tell.
        let told = |settled: &mut Vec<_>, ticket: &mut Option<Ticket>, handled| {
            if let Some(ticket) = ticket.as_mut().filter(|ticket| ticket.msg.debt.is_owed()) {
                settled.push((mem::take(&mut ticket.msg.debt), handled));
            }
        };
        for failed in &receipt.failed {
            match failed.how {
                How::Reported => {
                    self.settle(failed.from, failed.upto, |ticket| told(&mut news.settled, ticket, false));
                }
                How::Unread => self.settle(failed.from, failed.upto, |ticket| news.unread.extend(ticket.take())),
                How::Unreported => {
                    self.settle(failed.from, failed.upto, |ticket| news.unreported.extend(ticket.take()));
                }
            }
        }
        let ranges = receipt.beyond.iter().copied();
        for (from, upto) in std::iter::once((0, receipt.settled)).chain(ranges) {
            self.settle(from, upto, |ticket| told(&mut news.settled, ticket, true));
        }
        self.trim();
        freed
    }

    fn accept(&mut self, upto: u64) -> usize {
        let mut freed = 0;
        while let Some(flight) = self.flights.pop_front_if(|flight| flight.first + flight.block.len() as u64 <= upto) {
            freed += flight.size;
            self.sent = self.sent.saturating_sub(1);
            self.spare = flight.block;
        }
        freed
    }

    /// Numbers that are settled already, and beyond the last, are a forger's or a repetition.
    fn settle(&mut self, from: u64, upto: u64, mut settled: impl FnMut(&mut Option<Ticket>)) {
        while let Some((&number, _)) = self.held.range(from..upto.max(from)).next() {
            self.open -= 1;
            settled(&mut self.held.remove(&number));
        }
        let index = |number: u64| {
            usize::try_from(number.saturating_sub(self.oldest)).unwrap_or(usize::MAX).min(self.tickets.len())
        };
        let range = index(from)..index(upto).max(index(from));
        for place in self.tickets.range_mut(range) {
            // Where it is: a ticket is too large to be moved about.
            if place.is_some() {
                self.open -= 1;
                settled(place);
                *place = None;
            }
        }
    }

    /// The messages that have waited for their outcome since `since` or longer, once each; none of those that came from elsewhere. They stay, to be settled.
    pub(crate) fn overdue(&mut self, since: Instant) -> Vec<Msg> {
        let mut upto = 0;
        while let Some((_, number)) = self.booked.pop_front_if(|(at, _)| *at <= since) {
            upto = number;
        }
        let recent = (self.oldest..upto).zip(self.tickets.iter_mut()).filter_map(|(_, ticket)| ticket.as_mut());
        let held = self.held.range_mut(..upto).map(|(_, ticket)| ticket);
        let due = held.chain(recent).filter(|ticket| !ticket.told && !ticket.msg.debt.is_elsewhere());
        due.map(|ticket| {
            ticket.told = true;
            ticket.msg.outside()
        })
        .collect()
    }

    /// Lets go of the messages that have waited for their outcome since `since` or longer: nobody will tell it.
    pub(crate) fn forget(&mut self, since: Instant) -> Vec<Ticket> {
        let mut upto = 0;
        while let Some((_, number)) = self.booked.pop_front_if(|(at, _)| *at <= since) {
            upto = number;
        }
        self.forget_below(upto)
    }

    /// The same for the oldest, so that no more than so many are left.
    pub(crate) fn forget_beyond(&mut self, most: usize) -> Vec<Ticket> {
        if self.open <= most { Vec::new() } else { self.forget_below(self.oldest + 1) }
    }

    fn forget_below(&mut self, upto: u64) -> Vec<Ticket> {
        let mut forgotten = Vec::new();
        self.settle(0, upto, |ticket| forgotten.extend(ticket.take()));
        self.trim();
        forgotten
    }

    /// Settles the message of a connection that was answered.
    pub(crate) fn answered(&mut self, connection: Option<u64>, id: i64) -> Option<Debt> {
        let is_it = |ticket: &Ticket| ticket.msg.id == Some(id) && ticket.msg.from.connection == connection;
        let held = self.held.iter().find(|(_, ticket)| is_it(ticket)).map(|(number, _)| *number);
        let ticket = match held {
            Some(number) => self.held.remove(&number),
            None => self.tickets.iter_mut().find(|ticket| ticket.as_ref().is_some_and(is_it))?.take(),
        };
        self.open -= usize::from(ticket.is_some());
        self.trim();
        ticket.map(|mut ticket| mem::take(&mut ticket.msg.debt))
    }

    /// Lets go of tickets up to the oldest whose outcome is not known; of that, too, if it would keep many known ones.
    fn trim(&mut self) {
        let most = GAPS + 2 * (self.open - self.held.len());
        loop {
            let known = self.tickets.iter().take_while(|ticket| ticket.is_none()).count();
            self.tickets.drain(..known);
            self.oldest += known as u64;
            if self.tickets.len() <= most {
                break;
            }
            let ticket = self.tickets.pop_front().flatten();
            self.held.extend(ticket.map(|ticket| (self.oldest, ticket)));
            self.oldest += 1;
        }
        if self.open == 0 {
            self.booked.clear();
        }
    }

    /// Ends the session. What is open comes back, oldest first, with the bytes that are free now.
    pub(crate) fn end(&mut self) -> (Vec<Open>, usize) {
        let freed = self.flights.iter().map(|flight| flight.size).sum();
        let untried: Vec<_> = self
            .flights
            .iter()
            .filter(|flight| !flight.tried)
            .map(|flight| flight.first..flight.first + flight.block.len() as u64)
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
    use crate::wire::Failed;

    fn msg(debt: Debt) -> Msg {
        let mut msg = Msg::new(Addr::default(), "S", crate::Contents::null());
        msg.debt = debt;
        msg
    }

    /// Waits for outcomes, and does nothing with them.
    struct Waits;

    impl crate::msg::Creditor for Waits {
        fn settle(&self, _: u64, _: bool) {}
    }

    /// Books so many messages of 10 bytes, and sends them.
    fn book(ledger: &mut Ledger, count: usize, sent: bool, since: Instant) {
        for _ in 0..count {
            let msg = msg(Debt::to(std::sync::Arc::new(Waits), 0));
            ledger.add(Message { msg, contents: Encoded::null(), net: None, place: None, size: 10, since });
        }
        if sent {
            ledger.launch();
        }
    }

    fn receipt(accepted: u64, settled: u64, beyond: &[(u64, u64)]) -> Receipt {
        Receipt { session: 1, version: 1, accepted, settled, beyond: beyond.to_vec(), failed: Vec::new() }
    }

    #[test]
    fn what_had_no_handler_is_told_apart_and_what_was_not_read_comes_back() {
        let mut ledger = Ledger::default();
        book(&mut ledger, 5, true, Instant::now());
        let failed =
            vec![Failed { from: 1, upto: 2, how: How::Reported }, Failed { from: 3, upto: 4, how: How::Unread }];
        let told = Receipt { failed, ..receipt(5, 5, &[]) };
        let mut news = News::default();
        ledger.receive(&told, &mut news);
        assert_eq!(news.settled.iter().filter(|(_, handled)| *handled).count(), 3);
        assert_eq!((news.settled.len(), news.unread.len(), ledger.heard()), (4, 1, 1));
        assert!(ledger.is_settled());
    }

    #[test]
    fn what_has_no_outcome_in_time_is_told_once_and_settled_later() {
        let mut ledger = Ledger::default();
        let began = Instant::now();
        let (late, later) = (began + GRAIN, began + GRAIN * 2);
        book(&mut ledger, 2, true, began);
        book(&mut ledger, 1, true, late);
        ledger.receive(&receipt(3, 1, &[]), &mut News::default());
        assert_eq!(ledger.oldest(), Some(began));
        assert_eq!(ledger.overdue(began).len(), 1);
        assert_eq!(ledger.overdue(began).len(), 0);
        assert_eq!(ledger.overdue(later).len(), 1);
        assert_eq!((ledger.open(), ledger.oldest()), (2, None));
        let mut news = News::default();
        ledger.receive(&receipt(3, 3, &[]), &mut news);
        assert_eq!(news.settled.len(), 2);
    }

    #[test]
    fn accepted_flights_are_let_go_and_tickets_stay_until_they_are_settled() {
        let mut ledger = Ledger::default();
        book(&mut ledger, 2, true, Instant::now());
        book(&mut ledger, 1, true, Instant::now());
        let mut news = News::default();
        assert_eq!(ledger.receive(&receipt(2, 0, &[]), &mut news), 20);
        assert_eq!((news.settled.len(), ledger.open(), ledger.on_their_way()), (0, 3, 1));
        assert_eq!(ledger.receive(&receipt(3, 0, &[(1, 2)]), &mut news), 10);
        assert!(ledger.is_accepted());
        assert_eq!((news.settled.len(), ledger.open()), (1, 2));
        ledger.receive(&receipt(3, 3, &[]), &mut news);
        assert!(ledger.is_settled());
        assert_eq!(news.settled.len(), 3);
    }

    #[test]
    fn a_recalled_flight_goes_again_and_one_never_sent_is_told_apart() {
        let mut ledger = Ledger::default();
        book(&mut ledger, 1, true, Instant::now());
        book(&mut ledger, 1, false, Instant::now());
        assert_eq!(ledger.launched().map(|flight| flight.first), Some(0));
        ledger.recall();
        ledger.launch();
        assert_eq!(ledger.launched().map(|flight| flight.first), Some(0));
        let (open, freed) = ledger.end();
        assert_eq!(freed, 20);
        assert_eq!(open.iter().map(|open| open.tried).collect::<Vec<_>>(), [true, false]);
        assert_eq!(ledger.next(), 0);
    }

    #[test]
    fn messages_that_are_held_keep_no_room_from_others() {
        let mut ledger = Ledger::default();
        book(&mut ledger, 2, true, Instant::now());
        let mut news = News::default();
        for number in 2..100_000 {
            book(&mut ledger, 1, true, Instant::now());
            ledger.receive(&receipt(number + 1, 0, &[(2, number + 1)]), &mut news);
            assert_eq!(ledger.open(), 2);
        }
        assert!(ledger.tickets.len() <= GAPS + 4, "{}", ledger.tickets.len());
        assert_eq!(news.settled.len(), 100_000 - 2);
        ledger.receive(&receipt(100_000, 1, &[(2, 100_000)]), &mut news);
        assert_eq!((news.settled.len(), ledger.open()), (100_000 - 1, 1));
        assert_eq!(ledger.end().0.len(), 1);
        assert!(ledger.is_settled());
    }

    #[test]
    fn a_receipt_for_what_never_was_harms_nobody() {
        let mut ledger = Ledger::default();
        book(&mut ledger, 1, true, Instant::now());
        let mut news = News::default();
        let wild = receipt(u64::MAX, u64::MAX, &[(5, 2), (u64::MAX, 0), (0, u64::MAX)]);
        assert_eq!(ledger.receive(&wild, &mut news), 10);
        assert_eq!(news.settled.len(), 1);
        assert_eq!(ledger.receive(&wild, &mut news), 0);
    }
}
