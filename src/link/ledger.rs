//! The numbered messages of one session: kept until the peer has them, and remembered until it says what became of them.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::addr::Endpoint;
use crate::contents::Contents;
use crate::msg::{Debts, Msg};
use crate::wire::{Block, Head, How, Lent, Receipt};

/// Numbers with a known outcome that are kept between those without. Default 1,024, and as many as are open: beyond, the oldest are set apart.
const GAPS: usize = 1024;
/// Messages booked within this time share a deadline: that of the first. Default 1 s: a deadline of a minute is kept by sixty notes.
const GRAIN: Duration = Duration::from_secs(1);

/// Bytes of messages that one frame carries, unless a single one is larger. Default 64 KiB: more gains no throughput, and delays whatever comes behind it.
const FRAME: usize = 64 << 10;
/// Bytes of memory that a link keeps for its next frame while none is on its way. Default 4 KiB: enough for one or two messages, and there may be thousands of links.
const SPARE: usize = 4 << 10;

/// What is remembered of messages in a row to report their ends: their outsides, which differ by ids that count up, and what is settled with them. A stream costs no more memory than a message.
pub(crate) struct Run {
    first: u64,
    count: u64,
    head: Arc<Head>,
    /// Those of the first.
    id: Option<i64>,
    reply_to: Option<i64>,
    pub(crate) debts: Debts,
    places: Option<Places>,
    /// Their senders have been told that their outcome was not known in time.
    pub(crate) told: bool,
}

/// Places among the messages to one destination, which count for as long as this is kept.
pub(crate) struct Places {
    counter: Arc<AtomicUsize>,
    taken: usize,
}

/// How a message is counted among those to its destination.
pub(crate) enum Seat {
    /// It is not.
    None,
    /// As the message before.
    Same,
    Own(Places),
}

/// A message to be numbered.
pub(crate) struct Message<'a> {
    pub(crate) msg: Msg,
    pub(crate) contents: Lent<'a>,
    /// Where answers go, if it does not say so itself.
    pub(crate) net: Option<&'a Endpoint>,
    pub(crate) seat: Seat,
    /// What it takes of the link's room.
    pub(crate) size: usize,
    /// When it was taken.
    pub(crate) since: Instant,
}

impl Places {
    /// One more that `counter` counts.
    pub(crate) fn one(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self { counter: counter.clone(), taken: 1 }
    }

    /// How many are taken at the destination, by all.
    pub(crate) fn taken_by_all(&self) -> usize {
        self.counter.load(Ordering::Relaxed)
    }

    /// Whether `seat` can be counted with these.
    fn are_those_of(&self, seat: &Seat) -> bool {
        match seat {
            Seat::None => false,
            Seat::Same => true,
            Seat::Own(own) => Arc::ptr_eq(&own.counter, &self.counter),
        }
    }

    fn add(&mut self, seat: Seat) {
        match seat {
            Seat::None => {}
            Seat::Same => {
                self.counter.fetch_add(1, Ordering::Relaxed);
                self.taken += 1;
            }
            Seat::Own(mut own) => self.taken += mem::take(&mut own.taken),
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

impl Run {
    fn new(first: u64, msg: &mut Msg, places: Option<Places>) -> Self {
        let debts = Debts::of(mem::take(&mut msg.debt));
        let (head, id, reply_to) = (msg.head().clone(), msg.id, msg.reply_to);
        Self { first, count: 1, head, id, reply_to, debts, places, told: false }
    }

    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// The number after the last.
    fn upto(&self) -> u64 {
        self.first + self.count
    }

    /// Whether the message of this number can be remembered with these; if so, what is owed for it is.
    fn takes(&mut self, number: u64, msg: &mut Msg, seat: &Seat) -> bool {
        self.upto() == number
            && Arc::ptr_eq(&self.head, msg.head())
            && !self.told
            && self.id.is_some()
            && further(self.id, self.count) == msg.id
            && further(self.reply_to, self.count) == msg.reply_to
            && self.places.as_ref().map_or(matches!(seat, Seat::None), |places| places.are_those_of(seat))
            && self.debts.add(&mut msg.debt)
    }

    /// Takes the first so many out.
    fn split_off_first(&mut self, count: u64) -> Self {
        let &mut Self { first, id, reply_to, told, .. } = self;
        let (head, debts) = (self.head.clone(), self.debts.split_off_first(count));
        let places = self.places.as_mut().map(|places| {
            let taken = places.taken.min(usize::try_from(count).unwrap_or(usize::MAX));
            places.taken -= taken;
            Places { counter: places.counter.clone(), taken }
        });
        self.first += count;
        self.count -= count;
        (self.id, self.reply_to) = (further(id, count), further(reply_to, count));
        Self { first, count, head, id, reply_to, debts, places, told }
    }

    /// The outside of each.
    fn outsides(&self) -> impl Iterator<Item = Msg> {
        (0..self.count).map(|nth| {
            let mut msg = Msg::with(self.head.clone(), Contents::null());
            (msg.id, msg.reply_to) = (further(self.id, nth), further(self.reply_to, nth));
            msg
        })
    }

    /// Each with what is settled with it.
    pub(crate) fn messages(mut self) -> Vec<Msg> {
        let outsides: Vec<Msg> = self.outsides().collect();
        let owing = |mut msg: Msg| {
            msg.debt = self.debts.split_off_first(1).into_one();
            msg
        };
        outsides.into_iter().map(owing).collect()
    }
}

/// The id so many messages after `id`.
fn further(id: Option<i64>, count: u64) -> Option<i64> {
    id.map(|id| id.wrapping_add_unsigned(count))
}

/// A frame's worth of messages that the peer has not accepted.
pub(crate) struct Flight {
    pub(crate) first: u64,
    pub(crate) block: Block,
    /// What they take of the link's room.
    pub(crate) size: usize,
    /// Handed to a transport at least once: the peer may have it.
    pub(crate) tried: bool,
    /// The same before the last time.
    tried_before: bool,
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
    /// Those that are held for so long, or between others, that they are set apart, by their first.
    held: BTreeMap<u64, Run>,
    /// The others, oldest first, with the number after the last of each; absent where the outcome is known and an older one's is not.
    runs: VecDeque<(u64, Option<Run>)>,
    /// So many of them are there.
    live: usize,
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
    pub(crate) settled: Vec<(Debts, bool)>,
    /// What the peer could not read.
    pub(crate) unread: Vec<Run>,
    /// What no handler was called with, and whose report may be lost.
    pub(crate) unreported: Vec<Run>,
}

/// How a message ended that was still open at the end of its session.
pub(crate) struct Open {
    pub(crate) msg: Msg,
    /// Its sender has been told that its outcome was not known in time.
    pub(crate) told: bool,
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
            flight.tried_before = mem::replace(&mut flight.tried, true);
        }
    }

    /// The flight that was launched last.
    pub(crate) fn launched(&mut self) -> Option<&mut Flight> {
        self.flights.get_mut(self.sent.checked_sub(1)?)
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
    pub(crate) fn remember(&mut self, msg: Msg, since: Instant) {
        self.number(msg, Seat::None, since);
        self.forgotten = self.next;
    }

    /// The places at the destination of the last message, if it has the same outside and was counted.
    pub(crate) fn places_of_last(&self, head: &Arc<Head>) -> Option<&Places> {
        let (_, run) = self.runs.back()?;
        run.as_ref().filter(|run| Arc::ptr_eq(&run.head, head))?.places.as_ref()
    }

    /// Something was sent that the peer may not have, and that cannot be sent again.
    pub(crate) fn has_forgotten(&self) -> bool {
        self.accepted < self.forgotten
    }

    /// Numbers a message and keeps it, to be sent with others.
    pub(crate) fn add(&mut self, Message { msg, contents, net, seat, size, since }: Message<'_>) {
        let is_open = |flight: &Flight| {
            !flight.tried
                && flight.block.is_open()
                && flight.block.size() + size <= FRAME
                && flight.block.has_names_for(4)
        };
        if self.sent == self.flights.len() || !self.flights.back().is_some_and(is_open) {
            self.open_flight();
        }
        let Some(flight) = self.flights.back_mut() else { return };
        flight.block.add(msg.parts(contents), net);
        flight.size += size;
        self.number(msg, seat, since);
    }

    fn number(&mut self, mut msg: Msg, seat: Seat, since: Instant) {
        let number = self.next;
        self.next += 1;
        self.open += 1;
        let last = self.runs.back_mut().and_then(|(upto, run)| Some((upto, run.as_mut()?)));
        match self.booked.back_mut() {
            Some((first, next)) if since < *first + GRAIN => {
                *next = self.next;
                if let Some((upto, run)) = last
                    && run.takes(number, &mut msg, &seat)
                {
                    run.count += 1;
                    if let Some(places) = &mut run.places {
                        places.add(seat);
                    }
                    *upto = self.next;
                    return;
                }
            }
            // Those in a row share a deadline.
            _ => self.booked.push_back((since, self.next)),
        }
        let places = match seat {
            Seat::None => None,
            Seat::Same => self.places_of_last(msg.head()).map(|places| Places::one(&places.counter)),
            Seat::Own(places) => Some(places),
        };
        self.live += 1;
        self.runs.push_back((self.next, Some(Run::new(number, &mut msg, places))));
    }

    fn open_flight(&mut self) {
        // In a stream the next is as large as the one before.
        let before = self.flights.back().map_or(0, |flight| flight.block.size().min(FRAME));
        let block = mem::take(&mut self.spare).expecting(before);
        self.flights.push_back(Flight { first: self.next, block, size: 0, tried: false, tried_before: false });
    }

    /// The pipe was lost: all that was not accepted has to be sent again.
    pub(crate) fn recall(&mut self) {
        self.sent = 0;
    }

    /// A flight came back from the transport unsent.
    pub(crate) fn bounced(&mut self, first: u64) {
        let index = self.flights.iter().rposition(|flight| flight.first == first);
        if let Some((index, flight)) = index.and_then(|index| Some((index, self.flights.get_mut(index)?))) {
            flight.tried = flight.tried_before;
            self.sent = self.sent.min(index);
        }
    }

    /// The peer may never say what it has: what was sent to it keeps no room from others any more. Answers with the bytes that are free now.
    pub(crate) fn lighten(&mut self) -> usize {
        for run in self.held.values_mut().chain(self.runs.iter_mut().filter_map(|(_, run)| run.as_mut())) {
            run.places = None;
        }
        self.flights.iter_mut().map(|flight| mem::take(&mut flight.size)).sum()
    }

    /// Takes in what the peer says it has, and what of that is settled. Answers with the bytes that are free now.
    pub(crate) fn receive(&mut self, receipt: &Receipt, news: &mut News) -> usize {
        let freed = self.accept(receipt.accepted);
        self.accepted = self.accepted.max(receipt.accepted);
        self.heard = self.heard.max(receipt.version);
        // Where nobody waits for the outcome of its own message, there is nothing to tell.
        let told = |settled: &mut Vec<_>, run: Run, handled| {
            if run.debts.is_owed() {
                settled.push((run.debts, handled));
            }
        };
        for failed in &receipt.failed {
            match failed.how {
                How::Reported => {
                    self.settle(failed.from, failed.upto, |run| told(&mut news.settled, run, false));
                }
                How::Unread => self.settle(failed.from, failed.upto, |run| news.unread.push(run)),
                How::Unreported => {
                    self.settle(failed.from, failed.upto, |run| news.unreported.push(run));
                }
            }
        }
        let ranges = receipt.beyond.iter().copied();
        let mut end = 0;
        for (from, upto) in std::iter::once((0, receipt.settled)).chain(ranges) {
            // They ascend; those that do not are a forger's, and would be looked through again and again.
            if from >= end {
                self.settle(from, upto, |run| told(&mut news.settled, run, true));
                end = upto;
            }
        }
        self.trim();
        freed
    }

    fn accept(&mut self, upto: u64) -> usize {
        let mut freed = 0;
        while let Some(flight) = self.flights.pop_front_if(|flight| flight.first + flight.block.len() as u64 <= upto) {
            freed += flight.size;
            self.sent = self.sent.saturating_sub(1);
            self.spare = flight.block.emptied(SPARE);
        }
        freed
    }

    /// Numbers that are settled already, and beyond the last, are a forger's or a repetition.
    fn settle(&mut self, from: u64, upto: u64, mut settled: impl FnMut(Run)) {
        if from >= upto {
            return;
        }
        if !self.held.is_empty() {
            self.settle_held(from, upto, &mut settled);
        }
        let at = self.runs.partition_point(|(end, _)| *end <= from);
        for (end, place) in self.runs.range_mut(at..) {
            match place {
                Some(run) if run.first >= upto => break,
                Some(run) => {
                    if run.first < from {
                        let before = run.split_off_first(from - run.first);
                        self.held.insert(before.first, before);
                    }
                    let part =
                        if run.upto() > upto { Some(run.split_off_first(upto - run.first)) } else { place.take() };
                    self.live -= usize::from(place.is_none());
                    if let Some(part) = part {
                        self.open -= part.len();
                        settled(part);
                    }
                }
                None if *end >= upto => break,
                None => {}
            }
        }
    }

    fn settle_held(&mut self, from: u64, upto: u64, settled: &mut impl FnMut(Run)) {
        let before = self.held.range(..from).next_back().filter(|(_, run)| run.upto() > from).map(|(first, _)| *first);
        let first = |ledger: &Self| ledger.held.range(from..upto).next().map(|(first, _)| *first);
        let mut next = before.or_else(|| first(self));
        while let Some(mut run) = next.and_then(|first| self.held.remove(&first)) {
            if run.first < from {
                let before = run.split_off_first(from - run.first);
                self.held.insert(before.first, before);
            }
            if run.upto() > upto {
                let part = run.split_off_first(upto - run.first);
                self.held.insert(run.first, mem::replace(&mut run, part));
            }
            self.open -= run.len();
            settled(run);
            next = first(self);
        }
    }

    /// The messages that have waited for their outcome since `since` or longer, once each; none of those that came from elsewhere. They stay, to be settled.
    pub(crate) fn overdue(&mut self, since: Instant) -> Vec<Msg> {
        let mut upto = 0;
        while let Some((_, number)) = self.booked.pop_front_if(|(at, _)| *at <= since) {
            upto = number;
        }
        // Those in a row share a deadline.
        let recent = self.runs.iter_mut().filter_map(|(_, run)| run.as_mut()).take_while(|run| run.first < upto);
        let held = self.held.range_mut(..upto).map(|(_, run)| run);
        let mut due: Vec<_> = held.chain(recent).filter(|run| !run.told && !run.debts.is_elsewhere()).collect();
        due.sort_unstable_by_key(|run| run.first);
        for run in &mut due {
            run.told = true;
        }
        due.iter().flat_map(|run| run.outsides()).collect()
    }

    /// Lets go of the messages that have waited for their outcome since `since` or longer: nobody will tell it.
    pub(crate) fn forget(&mut self, since: Instant) -> Vec<Run> {
        let mut upto = 0;
        while let Some((_, number)) = self.booked.pop_front_if(|(at, _)| *at <= since) {
            upto = number;
        }
        self.forget_below(upto)
    }

    /// The same for the oldest, if there are more than so many.
    pub(crate) fn forget_beyond(&mut self, most: usize) -> Vec<Run> {
        if self.open <= most {
            return Vec::new();
        }
        let recent = self.runs.iter().find_map(|(_, run)| run.as_ref()).map(|run| run.first);
        let oldest = self.held.keys().next().copied().into_iter().chain(recent).min();
        self.forget_below(oldest.map_or(0, |oldest| oldest + 1))
    }

    fn forget_below(&mut self, upto: u64) -> Vec<Run> {
        let mut forgotten = Vec::new();
        self.settle(0, upto, |run| forgotten.push(run));
        self.trim();
        forgotten
    }

    /// Settles the message of a connection that was answered.
    pub(crate) fn answered(&mut self, connection: Option<u64>, id: i64) -> Option<Debts> {
        let number = |run: &Run| {
            let nth = u64::try_from(id.checked_sub(run.id?)?).ok()?;
            (run.head.from.connection == connection && nth < run.count).then(|| run.first + nth)
        };
        let mut runs = self.held.values().chain(self.runs.iter().filter_map(|(_, run)| run.as_ref()));
        let number = runs.find_map(number)?;
        let mut answered = None;
        self.settle(number, number + 1, |run| answered = Some(run.debts));
        self.trim();
        answered
    }

    /// Lets go of what is known up to the oldest whose outcome is not; of that, too, if it would keep much that is known.
    fn trim(&mut self) {
        let most = GAPS + 2 * self.live;
        loop {
            while self.runs.pop_front_if(|(_, run)| run.is_none()).is_some() {}
            if self.runs.len() <= most {
                break;
            }
            let run = self.runs.pop_front().and_then(|(_, run)| run);
            self.live -= 1;
            self.held.extend(run.map(|run| (run.first, run)));
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
        let recent = mem::take(&mut self.runs).into_iter().filter_map(|(_, run)| run);
        let mut runs: Vec<Run> = mem::take(&mut self.held).into_values().chain(recent).collect();
        runs.sort_unstable_by_key(|run| run.first);
        let open = runs.into_iter().flat_map(|run| {
            let (told, first) = (run.told, run.first);
            (first..).zip(run.messages()).map(move |(number, msg)| (number, msg, told))
        });
        let open = open.map(|(number, msg, told)| {
            let tried = !untried.iter().any(|range| range.contains(&number));
            Open { msg, told, tried }
        });
        let open = open.collect();
        *self = Self::default();
        (open, freed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::addr::Addr;
    use crate::msg::Debt;
    use crate::wire::{Encoded, Failed};

    fn msg(debt: Debt, connection: u64) -> Msg {
        let mut msg = Msg::new(Addr::local(connection), "S", Contents::null());
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
            let msg = msg(Debt::to(Arc::new(Waits), 0), 3);
            let contents = Encoded::null();
            ledger.add(Message { msg, contents: contents.lend(), net: None, seat: Seat::None, size: 10, since });
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
        // Also one that came back the second time may have come there the first.
        ledger.bounced(0);
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
        assert!(ledger.runs.len() <= GAPS + 4, "{}", ledger.runs.len());
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

    /// Notes what messages came to, by their number: whether a handler was called.
    #[derive(Default)]
    struct Notes(parking_lot::Mutex<BTreeMap<u64, Vec<bool>>>);

    impl crate::msg::Creditor for Notes {
        fn settle(&self, number: u64, handled: bool) {
            self.0.lock().entry(number).or_default().push(handled);
        }

        fn settle_row(&self, first: u64, count: u64, handled: bool) {
            assert!(count > 0, "nothing is settled");
            (first..first + count).for_each(|number| self.settle(number, handled));
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// So many messages in a row, of one of three senders.
        Book(usize, usize),
        /// The one of this number and as many as said after it have come to their end.
        Settle(u64, u64, How),
        /// All below this number.
        Below(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let how = proptest::sample::select(vec![How::Reported, How::Unread, How::Unreported]);
        prop_oneof![
            (0..3_usize, 1..9_usize).prop_map(|(sender, count)| Step::Book(sender, count)),
            (0..80_u64, 0..9_u64, how).prop_map(|(from, count, how)| Step::Settle(from, from + count, how)),
            (0..80_u64).prop_map(Step::Below),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn messages_in_a_row_end_as_they_would_one_by_one(steps in proptest::collection::vec(step(), 0..30)) {
            let notes = Arc::new(Notes::default());
            let heads: Vec<_> = (1..4).map(|number| msg(Debt::NONE, number)).collect();
            let (mut ledger, contents, since) = (Ledger::default(), Encoded::null(), Instant::now());
            let counter = Arc::new(AtomicUsize::new(0));
            let mut next = [100, 200, 300];
            // By number: whose it is, and how it ended.
            let mut booked: Vec<(i64, Option<Option<bool>>)> = Vec::new();
            let mut back = BTreeMap::new();
            for step in steps {
                let mut receipt = receipt(0, 0, &[]);
                let range = match step {
                    Step::Book(sender, count) => {
                        for _ in 0..count {
                            let mut msg = Msg::with(heads[sender].head().clone(), Contents::null());
                            msg.id = Some(next[sender]);
                            msg.debt = Debt::to(notes.clone(), booked.len() as u64);
                            booked.push((next[sender], None));
                            next[sender] += 1;
                            let seat = if ledger.places_of_last(msg.head()).is_some() { Seat::Same } else { Seat::Own(Places::one(&counter)) };
                            ledger.add(Message { msg, contents: contents.lend(), net: None, seat, size: 1, since });
                        }
                        continue;
                    }
                    Step::Settle(from, upto, how) => {
                        receipt.failed.push(Failed { from, upto, how });
                        from..upto
                    }
                    Step::Below(upto) => {
                        receipt.settled = upto;
                        0..upto
                    }
                };
                let how = receipt.failed.first().map(|failed| failed.how);
                for number in range {
                    if let Some((_, end @ None)) = booked.get_mut(usize::try_from(number).unwrap()) {
                        *end = Some(match how {
                            None => Some(true),
                            Some(How::Reported) => Some(false),
                            Some(_) => None,
                        });
                    }
                }
                let mut news = News::default();
                ledger.receive(&receipt, &mut news);
                news.settled.into_iter().for_each(|(debts, handled)| debts.settle(handled));
                for msg in news.unread.into_iter().chain(news.unreported).flat_map(Run::messages) {
                    prop_assert_eq!(back.insert(msg.id, ()), None);
                }
                let open = booked.iter().filter(|(_, end)| end.is_none()).count();
                prop_assert_eq!((ledger.open(), counter.load(Ordering::Relaxed)), (open, open));
                let live = ledger.runs.iter().filter(|(_, run)| run.is_some()).count();
                prop_assert_eq!(ledger.live, live);
            }
            let told = notes.0.lock().clone();
            for (number, (id, end)) in booked.iter().enumerate() {
                let came = told.get(&(number as u64)).cloned().unwrap_or_default();
                match end {
                    None => prop_assert!(came.is_empty()),
                    Some(Some(handled)) => prop_assert_eq!(came, vec![*handled]),
                    Some(None) => prop_assert!(back.contains_key(&Some(*id)), "{} has not come back", id),
                }
            }
            let left: Vec<_> = ledger.end().0.iter().map(|open| open.msg.id).collect();
            let open: Vec<_> = booked.iter().filter(|(_, end)| end.is_none()).map(|(id, _)| Some(*id)).collect();
            prop_assert_eq!(left, open);
        }
    }
}
