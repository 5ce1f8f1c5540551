//! Where messages for one connection arrive: its queue, its waiting requests, and the count of what is inside.
//!
//! Whoever sends puts a message into the queue and wakes who takes from it: an agent's actor, in batches, or a connection that awaits reports.

use std::cell::Cell;
use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;
use smol_str::SmolStr;
use tokio::sync::{Notify, oneshot};

use crate::addr::{Addr, Endpoint};
use crate::contents::Contents;
use crate::error::RequestError;
use crate::failure::{NotDelivered, Reason};
use crate::hash::BySequence;
use crate::link;
use crate::msg::{Creditor, Debt, Msg};
use crate::router::switch::{Stage, Switch, Unsent};
use crate::subject;
use crate::wire::Head;

/// Bits of the number that a connection's messages begin with. Default 40: one restart in ten million meets the ids of the life before, and an id has five bytes.
const ID_BITS: u32 = 40;
/// Notes of how many messages had come to an agent by then. Default 64 within the limit of their outcome: it is told at most a 64th late.
const NOTES: u32 = 64;

thread_local! {
    // Most messages of a thread have the outside of the one before, and so have most answers.
    static OUTSIDE: Cell<Option<Arc<Head>>> = const { Cell::new(None) };
    static ROUND: Cell<Option<Round>> = const { Cell::new(None) };
}

/// What the last message that a thread answered looked like, and its answer.
struct Round {
    port: Weak<Port>,
    asked: Arc<Head>,
    answer: Arc<Head>,
}

pub(crate) struct Port {
    pub(crate) number: u64,
    pub(crate) switch: Arc<Switch>,
    first_id: i64,
    next_id: AtomicI64,
    requests: Mutex<HashMap<i64, Waiting, BySequence>>,
    confirms: Mutex<HashMap<i64, Confirming, BySequence>>,
    /// Messages whose sender was told their end, by another router or without knowing it: what comes later is not told any more.
    told: Mutex<BTreeSet<i64>>,
    inbox: Mutex<Inbox>,
    /// Taken from the queue by the agent, to be handled one after the other.
    taken: Mutex<VecDeque<Msg>>,
    /// Messages for an agent, in the queue or in a handler's hands.
    inside: AtomicUsize,
    room: Arc<Notify>,
    /// Somebody has found no room, and may wait for it.
    was_full: AtomicBool,
    allows_shutdown: AtomicBool,
    is_stopping: AtomicBool,
}

struct Inbox {
    receiver: Receiver,
    queue: VecDeque<Msg>,
    /// Who found the queue empty.
    waiting: Option<Waker>,
    age: Age,
}

/// How long messages for an agent have waited: they are counted as they come, and now and then it is noted how many had come by then.
#[derive(Default)]
struct Age {
    entered: u64,
    noted: VecDeque<(Instant, u64)>,
    /// The senders of those below this number have been told that they wait, or have nothing to be told.
    told: u64,
}

enum Receiver {
    /// A connection without an agent: it takes answers, and reports of what was not delivered.
    Reports,
    Agent,
    /// Nobody, and why.
    Closed(Reason),
}

/// A request that waits for its answer.
struct Waiting {
    head: Arc<Head>,
    also: Vec<SmolStr>,
    end: Option<Result<Msg, NotDelivered>>,
    asker: Option<Waker>,
}

/// A message whose outcome is waited for: none once a handler was called with it.
struct Confirming {
    to: Addr,
    subject: SmolStr,
    outcome: oneshot::Sender<Option<NotDelivered>>,
    /// No handler was called with it: the report says why.
    failed: bool,
}

/// The outcome to come; forgets the message when dropped.
pub(crate) struct Outcome {
    port: Arc<Port>,
    id: i64,
    pub(crate) coming: oneshot::Receiver<Option<NotDelivered>>,
}

/// The answer to come; forgets the request when dropped.
pub(crate) struct Answer {
    port: Arc<Port>,
    id: i64,
    /// It has come, or what there is instead.
    is_over: bool,
}

impl Port {
    pub(crate) fn new(number: u64, switch: Arc<Switch>) -> Arc<Self> {
        // Not from 1 in each life of a router: late answers to the last one would be taken for those to this one.
        let first_id = (switch.draw() >> (u64::BITS - 1 - ID_BITS)).cast_signed();
        Arc::new(Self {
            number,
            switch,
            first_id,
            next_id: AtomicI64::new(first_id),
            requests: Mutex::default(),
            confirms: Mutex::default(),
            told: Mutex::default(),
            inbox: Mutex::new(Inbox {
                receiver: Receiver::Reports,
                queue: VecDeque::new(),
                waiting: None,
                age: Age::default(),
            }),
            taken: Mutex::default(),
            inside: AtomicUsize::new(0),
            room: Arc::default(),
            was_full: AtomicBool::new(false),
            allows_shutdown: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        })
    }

    /// The address of this connection, as routers elsewhere on the machine know it.
    pub(crate) fn addr(&self) -> Addr {
        self.switch.own_addr(self.number)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.switch.is_open(self.number)
    }

    /// From now on messages are for an agent, which [takes](Port::poll_take) them when it is there.
    pub(crate) fn attach(&self) {
        let mut inbox = self.inbox.lock();
        if !matches!(inbox.receiver, Receiver::Closed(_)) {
            inbox.receiver = Receiver::Agent;
            inbox.age.entered = inbox.age.entered.max(inbox.queue.len() as u64);
        }
    }

    /// Takes all that has arrived, and says how many that is; ready without if the agent shall stop.
    pub(crate) fn poll_take(&self, task: &Context<'_>) -> Poll<usize> {
        let mut inbox = self.inbox.lock();
        // Looked at under the lock: who asks to stop takes it, too, to wake.
        if inbox.queue.is_empty() && !self.is_stopping() {
            wait(&mut inbox.waiting, task);
            return Poll::Pending;
        }
        let mut taken = self.taken.lock();
        debug_assert!(taken.is_empty(), "what is in it would be handled after what comes");
        std::mem::swap(&mut inbox.queue, &mut *taken);
        Poll::Ready(taken.len())
    }

    /// The next of those that were taken.
    pub(crate) fn next_taken(&self) -> Option<Msg> {
        self.taken.lock().pop_front()
    }

    /// Tells the senders of messages that an agent has not got to within [`Limits::outcome`](crate::Limits::outcome): it may yet. Those from other routers are told by theirs.
    pub(crate) fn tell_overdue(&self, now: Instant) {
        let place = self.addr().to_string();
        let reports = self.overdue(now, |msg| msg.undelivered(Reason::NoOutcome, place.clone()));
        // Not under the locks: they may be for this very port.
        for report in reports {
            self.switch.send_report(report, None);
        }
    }

    fn overdue(&self, now: Instant, report: impl Fn(&Msg) -> Option<Msg>) -> Vec<Msg> {
        let limit = self.switch.limits.outcome;
        let mut inbox = self.inbox.lock();
        let Inbox { receiver: Receiver::Agent, queue, age, .. } = &mut *inbox else { return Vec::new() };
        let upto = age.upto(now, limit);
        if upto <= age.told {
            return Vec::new();
        }
        let taken = self.taken.lock();
        let first = age.entered.saturating_sub((taken.len() + queue.len()) as u64);
        let waiting = taken.iter().chain(queue.iter()).zip(first..upto).filter(|(_, number)| *number >= age.told);
        let is_mine = |at: &Option<Endpoint>| at.as_ref().is_none_or(|at| self.switch.is_mine(at));
        let from_here = waiting.filter(|(msg, _)| is_mine(&msg.from.net) && is_mine(&msg.from.machine));
        let reports = from_here.filter_map(|(msg, _)| report(msg)).collect();
        age.told = upto;
        reports
    }

    /// Takes what has arrived first.
    pub(crate) fn poll_next(&self, task: &Context<'_>) -> Poll<Msg> {
        let mut inbox = self.inbox.lock();
        match inbox.queue.pop_front() {
            Some(msg) => Poll::Ready(msg),
            None => {
                wait(&mut inbox.waiting, task);
                Poll::Pending
            }
        }
    }

    /// Puts back what was taken and not handled, before what has come since.
    pub(crate) fn give_back(&self) {
        let mut inbox = self.inbox.lock();
        let mut taken = std::mem::take(&mut *self.taken.lock());
        taken.append(&mut inbox.queue);
        inbox.queue = taken;
    }

    pub(crate) fn allow_shutdown(&self) {
        self.allows_shutdown.store(true, Ordering::Relaxed);
    }

    pub(crate) fn allows_shutdown(&self) -> bool {
        self.allows_shutdown.load(Ordering::Relaxed)
    }

    pub(crate) fn shut_down(&self) {
        self.switch.ask_shutdown();
    }

    /// Asks the agent to stop after the message in hand.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        let waiting = self.inbox.lock().waiting.take();
        wake(waiting);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Ends the connection: its number is free of messages from now on, and nobody waits in it any more. The senders of what is in the queue are told.
    pub(crate) fn close(&self, reason: Reason) {
        self.switch.forget(self.number);
        let left = {
            let mut inbox = self.inbox.lock();
            inbox.receiver = Receiver::Closed(reason.clone());
            std::mem::take(&mut inbox.queue)
        };
        // Not under the lock: they report, perhaps to this very port.
        for msg in left {
            msg.abandon(reason.clone());
        }
        self.fail_requests(&self.in_context(reason), &self.addr().to_string(), |_| true);
        self.confirms.lock().clear();
        self.room.notify_waiters();
    }

    /// A message of this connection.
    pub(crate) fn compose(&self, to: Addr, subject: impl AsRef<str> + Into<SmolStr>, contents: Contents) -> Msg {
        let last = OUTSIDE.try_with(Cell::take).ok().flatten();
        let from_here = |from: &Addr| {
            let machine = self.switch.named_to(&to);
            from.net.is_none() && from.machine.as_ref() == machine && from.connection == Some(self.number)
        };
        let is_so = |last: &Arc<Head>| last.subject == subject.as_ref() && last.to == to && from_here(&last.from);
        let head = last.filter(is_so).unwrap_or_else(|| {
            let machine = self.switch.named_to(&to).cloned();
            let from = Addr { net: None, machine, connection: Some(self.number) };
            Arc::new(Head { to, from, subject: subject.into(), hops: 0 })
        });
        // A thread that ends sends without.
        let _ = OUTSIDE.try_with(|place| place.set(Some(head.clone())));
        Msg::with(head, contents)
    }

    /// The outside of the answer to a message that came to this connection.
    pub(crate) fn turn_round(self: &Arc<Self>, asked: &Arc<Head>) -> Arc<Head> {
        let last = ROUND.try_with(Cell::take).ok().flatten();
        let is_so =
            |last: &Round| Arc::ptr_eq(&last.asked, asked) && std::ptr::eq(last.port.as_ptr(), &raw const **self);
        let last = last.filter(is_so).unwrap_or_else(|| {
            let to = asked.from.clone();
            let machine = self.switch.named_to(&to).cloned();
            // A Python directory compares the text by which it addressed us with the text in the answer.
            let from = Addr { net: asked.to.net.clone(), machine, connection: Some(self.number) };
            let answer = Arc::new(Head { to, from, subject: asked.subject.clone(), hops: 0 });
            Round { port: Arc::downgrade(self), asked: asked.clone(), answer }
        });
        let answer = last.answer.clone();
        // A thread that ends answers without.
        let _ = ROUND.try_with(|place| place.set(Some(last)));
        answer
    }

    /// Fills in id and reply address, and sends.
    pub(crate) fn send(self: &Arc<Self>, msg: Msg) -> Result<i64, Unsent> {
        let id = self.next_id();
        self.send_as(id, msg).map(|()| id)
    }

    pub(crate) fn next_id(&self) -> i64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn send_as(&self, id: i64, mut msg: Msg) -> Result<(), Unsent> {
        // Beyond its bound a mailbox holds reports alone: an agent that does not look at a mailbox full of them sends nothing that could make more.
        if !msg.is_reply() && self.inside.load(Ordering::Relaxed) >= self.switch.limits.mailbox * 2 {
            return Err(Unsent::because(msg, Reason::MailboxFull));
        }
        msg.id = Some(id);
        self.switch.fill_reply_addr(&mut msg, self.number);
        self.switch.post(msg)
    }

    /// Sends an answer; one that cannot be sent is reported to the agent that gave it, and whoever waits for it is told if that is possible.
    pub(crate) fn answer(self: &Arc<Self>, reply: Msg) {
        if let Err(mut unsent) = self.send(reply) {
            if matches!(unsent.reason, Reason::NotEncodable(_) | Reason::TooLarge { .. } | Reason::MailboxFull) {
                let refusal = unsent.msg.refused_instead(&format!("its answer was not sent: {}", unsent.reason));
                // What is in the way of a small refusal, too, is in the report below.
                let _ = self.send(refusal);
            }
            self.switch.report(&mut unsent.msg, unsent.reason);
        }
    }

    /// Gets ready for the answer to message `id`.
    pub(crate) fn expect(self: &Arc<Self>, id: i64, msg: &Msg, also: Vec<SmolStr>) -> Answer {
        let waiting = Waiting { head: msg.head().clone(), also, end: None, asker: None };
        self.requests.lock().insert(id, waiting);
        Answer { port: self.clone(), id, is_over: false }
    }

    /// Gets ready for the outcome of message `id`.
    pub(crate) fn confirm(self: &Arc<Self>, id: i64, msg: &mut Msg) -> Outcome {
        let (outcome, coming) = oneshot::channel();
        self.confirms
            .lock()
            .insert(id, Confirming { to: msg.to.clone(), subject: msg.subject.clone(), outcome, failed: false });
        msg.debt = Debt::to(self.clone(), id.unsigned_abs());
        Outcome { port: self.clone(), id, coming }
    }

    /// Takes a message in. It comes back, with the reason, if it cannot be.
    pub(crate) fn deliver(self: &Arc<Self>, msg: Msg) -> Result<(), Unsent> {
        let Some(msg) = self.settle(msg) else { return Ok(()) };
        let (outcome, waiting) = {
            let mut inbox = self.inbox.lock();
            (self.enqueue(&mut inbox, msg), inbox.waiting.take())
        };
        wake(waiting);
        outcome.map(|mut settled| settled.handled())
    }

    /// Takes messages in, in order and in one step; those that cannot be come back, each with its reason.
    pub(crate) fn deliver_all(self: &Arc<Self>, msgs: &mut SmallVec<[Msg; 2]>) -> Vec<Unsent> {
        if msgs.iter().any(Msg::is_reply) {
            *msgs = std::mem::take(msgs).into_iter().filter_map(|msg| self.settle(msg)).collect();
        }
        let (mut settled, mut refused) = (Vec::new(), Vec::new());
        let waiting = {
            let mut inbox = self.inbox.lock();
            for msg in msgs.drain(..) {
                match self.enqueue(&mut inbox, msg) {
                    Ok(debt) => settled.extend(debt.is_owed().then_some(debt)),
                    Err(unsent) => refused.push(unsent),
                }
            }
            inbox.waiting.take()
        };
        wake(waiting);
        settled.iter_mut().for_each(Debt::handled);
        refused
    }

    /// Returns what is settled by that, to be told when the inbox is not locked: it tells the link.
    fn enqueue(self: &Arc<Self>, inbox: &mut Inbox, mut msg: Msg) -> Result<Debt, Unsent> {
        let is_report = msg.subject == subject::MSG_NOT_DELIVERED;
        match &inbox.receiver {
            Receiver::Agent => {
                // A report was reserved for by its message: see `send_as`.
                if !self.enter(is_report) {
                    return Err(Unsent::full(msg, self.room.clone()));
                }
                msg.charge(self.clone());
                inbox.age.entered += 1;
                inbox.queue.push_back(msg);
                Ok(Debt::NONE)
            }
            Receiver::Reports if is_report => {
                let settled = std::mem::take(&mut msg.debt);
                if inbox.queue.len() < self.switch.limits.mailbox.max(1) {
                    inbox.queue.push_back(msg);
                } else {
                    self.switch.counters.reports_dropped();
                }
                Ok(settled)
            }
            Receiver::Reports => {
                self.count_stray(&msg);
                Err(Unsent::because(msg, Reason::NoHandler))
            }
            Receiver::Closed(reason) => Err(Unsent::because(msg, reason.clone())),
        }
    }

    /// A message left the mailbox and the handler's hands.
    pub(crate) fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
        if self.was_full.load(Ordering::SeqCst) {
            self.room.notify_one();
        }
    }

    /// Whether no message is in the mailbox or in a handler's hands.
    pub(crate) fn is_empty(&self) -> bool {
        self.inside.load(Ordering::Acquire) == 0
    }

    /// A message was dropped by those who should have dealt with it.
    pub(crate) fn abandoned(&self, msg: &mut Msg, reason: Reason) {
        self.switch.report_from(msg, self.in_context(reason), self.number);
    }

    /// An agent that stops when its router does is not the reason.
    fn in_context(&self, reason: Reason) -> Reason {
        let ending = reason == Reason::AgentStopped && self.switch.stage() != Stage::Running;
        if ending { Reason::ShuttingDown } else { reason }
    }

    pub(crate) fn count_stray(&self, msg: &Msg) {
        if msg.is_reply() {
            self.switch.counters.late_reply();
            tracing::debug!(?msg, "nobody waits for this answer");
        }
    }

    /// Ends the requests whose answers would come from what `lost` tells, and says why.
    pub(crate) fn fail_requests(&self, reason: &Reason, place: &str, lost: impl Fn(&Addr) -> bool) {
        let mut askers = Vec::new();
        for waiting in
            self.requests.lock().values_mut().filter(|waiting| waiting.end.is_none() && lost(&waiting.head.to))
        {
            waiting.end = Some(Err(NotDelivered {
                to: waiting.head.to.clone(),
                subject: waiting.head.subject.to_string(),
                reason: reason.clone(),
                place: place.into(),
            }));
            askers.push(waiting.asker.take());
        }
        askers.into_iter().for_each(wake);
        // Its link reports a message by itself; what that has reported to it may be lost with the peer.
        let is_over = |_: &i64, confirming: &mut Confirming| {
            (confirming.failed || *reason == Reason::ShuttingDown) && lost(&confirming.to)
        };
        for (_, confirming) in self.confirms.lock().extract_if(is_over) {
            // It was sent, and the end of this router does not tell what becomes of it.
            let reason = if reason.is_unknown() { reason.clone() } else { Reason::NoOutcome };
            confirming.end(reason, place.into());
        }
    }

    /// Counts a message in, unless there are as many as there may be.
    fn enter(&self, is_report: bool) -> bool {
        let mailbox = self.switch.limits.mailbox;
        // What was on its way when the agent had to stop sending still comes back; beyond that, reports are forged.
        let limit = if is_report { mailbox * 2 + link::OPEN } else { mailbox };
        // Called under the lock of the inbox: nobody else enters meanwhile.
        let has_room = self.inside.load(Ordering::SeqCst) < limit;
        if has_room {
            self.inside.fetch_add(1, Ordering::SeqCst);
        } else {
            // Room that comes before this is seen is found by the second try of those who wait for it.
            self.was_full.store(true, Ordering::SeqCst);
        }
        has_room
    }

    /// Whether nothing is left to do about a report: its message was confirmed by it, or has been told to have ended.
    fn is_reported(&self, id: i64, report: &Msg) -> bool {
        if self.told.lock().remove(&id) {
            return true;
        }
        let (reason, place) =
            report.not_delivered().map_or((Reason::Unstated, String::new()), |told| (told.reason, told.place));
        let is_request = self.requests.lock().contains_key(&id);
        if is_request && reason == Reason::NoOutcome {
            // A request ends at its own limit.
            return true;
        }
        // What is heard of it later changes nothing: the outcome, or that the peer was lost before its link knew that it had told.
        if reason.is_unknown() || report.debt.is_elsewhere() {
            self.remember_told(id);
        }
        let Some(confirming) = self.confirms.lock().remove(&id) else { return false };
        confirming.end(reason, place);
        true
    }

    fn remember_told(&self, id: i64) {
        // Not what is yet to be sent: who forges a report of it would keep the true one from its sender.
        if !(self.first_id..self.next_id.load(Ordering::Relaxed)).contains(&id) {
            return;
        }
        let mut told = self.told.lock();
        told.insert(id);
        if told.len() > link::OPEN {
            told.pop_first();
        }
    }

    /// Gives a message to the request that waits for it, or back.
    fn settle(&self, mut msg: Msg) -> Option<Msg> {
        let Some(id) = msg.reply_to else { return Some(msg) };
        if msg.subject == subject::MSG_NOT_DELIVERED && self.is_reported(id, &msg) {
            msg.debt.handled();
            return None;
        }
        let mut requests = self.requests.lock();
        let Some(waiting) = requests.get_mut(&id).filter(|waiting| waiting.takes(&msg.subject)) else {
            return Some(msg);
        };
        // It has reached who waits for it, which is all that its sender's router wants to know.
        let mut settled = std::mem::take(&mut msg.debt);
        waiting.end = Some(Ok(msg));
        let asker = waiting.asker.take();
        drop(requests);
        settled.handled();
        wake(asker);
        None
    }
}

impl Age {
    /// Messages below this number have waited for `limit`. The time is this now.
    fn upto(&mut self, now: Instant, limit: Duration) -> u64 {
        let mut upto = 0;
        while let Some((_, number)) = self.noted.pop_front_if(|(at, _)| now.saturating_duration_since(*at) >= limit) {
            upto = number;
        }
        // A note for each of so many parts of the limit, however often this is called.
        let is_due = |(at, number): &(Instant, u64)| {
            *number < self.entered && now.saturating_duration_since(*at) >= limit / NOTES
        };
        if self.noted.back().is_none_or(is_due) {
            self.noted.push_back((now, self.entered));
        }
        upto
    }
}

fn wait(waiting: &mut Option<Waker>, task: &Context<'_>) {
    if !waiting.as_ref().is_some_and(|waiting| waiting.will_wake(task.waker())) {
        *waiting = Some(task.waker().clone());
    }
}

fn wake(waiting: Option<Waker>) {
    if let Some(waiting) = waiting {
        waiting.wake();
    }
}

/// The outcome of one of this connection's messages is known where it went.
impl Creditor for Port {
    fn settle(&self, number: u64, handled: bool) {
        let (id, mut confirms) = (number.cast_signed(), self.confirms.lock());
        if !handled {
            if let Some(confirming) = confirms.get_mut(&id) {
                confirming.failed = true;
            }
            return;
        }
        let confirming = confirms.remove(&id);
        drop(confirms);
        // Whoever waited may have given up.
        confirming.map(|confirming| confirming.outcome.send(None));
    }
}

impl Confirming {
    fn end(self, reason: Reason, place: String) {
        let failure = NotDelivered { to: self.to, subject: self.subject.to_string(), reason, place };
        // Whoever waited may have given up.
        let _ = self.outcome.send(Some(failure));
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.port.confirms.lock().remove(&self.id);
    }
}

impl Waiting {
    fn takes(&self, subject: &SmolStr) -> bool {
        self.end.is_none()
            && (*subject == self.head.subject
                || self.also.contains(subject)
                || *subject == subject::MSG_NOT_DELIVERED
                || *subject == subject::DOES_NOT_UNDERSTAND)
    }

    /// What the request makes of what ended it.
    fn ended(self, end: Result<Msg, NotDelivered>) -> Result<Msg, RequestError> {
        #[derive(serde::Deserialize)]
        struct Refusal {
            reason: String,
        }
        let msg = end.map_err(RequestError::NotDelivered)?;
        if msg.subject == self.head.subject {
            return Ok(msg);
        }
        let subject = || self.head.subject.to_string();
        if let Some(failure) = msg.not_delivered() {
            return Err(RequestError::NotDelivered(NotDelivered { subject: subject(), ..failure }));
        }
        if msg.subject == subject::DOES_NOT_UNDERSTAND {
            let why = msg.meta::<Refusal>().map(|refusal| refusal.reason).unwrap_or_default();
            return Err(RequestError::NotUnderstood { to: self.head.to.clone(), subject: subject(), why });
        }
        Ok(msg)
    }
}

impl Answer {
    /// Ends a request that was waited for long enough.
    pub(crate) fn overdue(self, after: Duration) -> RequestError {
        let waiting = self.port.requests.lock().remove(&self.id);
        let told = |waiting: Waiting| (waiting.head.to.clone(), waiting.head.subject.to_string());
        let (to, subject) = waiting.map(told).unwrap_or_default();
        RequestError::TimedOut { to, subject, after }
    }
}

impl Future for Answer {
    type Output = Result<Msg, RequestError>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = &mut *self;
        let mut requests = answer.port.requests.lock();
        // It is there until this future is ready.
        let Entry::Occupied(mut request) = requests.entry(answer.id) else { return Poll::Pending };
        let Some(end) = request.get_mut().end.take() else {
            wait(&mut request.get_mut().asker, task);
            return Poll::Pending;
        };
        let request = request.remove();
        // Not under the lock: what a message carries is the user's, and may do anything when it is dropped.
        drop(requests);
        answer.is_over = true;
        Poll::Ready(request.ended(end))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.is_over {
            let forgotten = self.port.requests.lock().remove(&self.id);
            drop(forgotten);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;
    use crate::contents::IntoContents;
    use crate::router::Mode;
    use crate::router::clock::SystemClock;
    use crate::{Addr, Limits};

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn agents_port(mailbox: usize) -> Arc<Port> {
        let limits = Limits { mailbox, ..Limits::default() };
        let port = Switch::new(Mode::Local, limits, Arc::new(SystemClock)).open_port();
        port.attach();
        port
    }

    fn numbered(numbers: std::ops::Range<i64>) -> impl Iterator<Item = Msg> {
        numbers.map(|number| Msg::new(Addr::local(3), "TAKE", number.into_contents()))
    }

    fn numbers(msgs: impl IntoIterator<Item = Msg>) -> Vec<i64> {
        let mut numbers = Vec::new();
        for msg in msgs {
            numbers.push(msg.contents().unwrap());
            let _handled = msg.handled();
        }
        numbers
    }

    #[test]
    fn many_come_in_one_step_with_one_wake_and_what_was_taken_can_be_given_back() {
        let port = agents_port(100);
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let task = Context::from_waker(&waker);
        assert!(port.poll_take(&task).is_pending());
        assert!(port.deliver_all(&mut numbered(0..10).collect()).is_empty());
        port.deliver(numbered(10..11).next().unwrap()).unwrap();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(port.poll_take(&task).is_ready());
        port.deliver(numbered(11..12).next().unwrap()).unwrap();
        let first = port.next_taken();
        port.give_back();
        assert!(port.poll_take(&task).is_ready());
        let taken = std::iter::from_fn(|| port.next_taken());
        assert_eq!(numbers(first.into_iter().chain(taken)), (0..12).collect::<Vec<_>>());
        assert!(port.is_empty());
    }

    #[test]
    fn what_has_no_room_or_nobody_comes_back_with_its_reason() {
        let port = agents_port(3);
        let refused = port.deliver_all(&mut numbered(0..5).collect());
        assert!(refused.iter().all(|unsent| unsent.reason == Reason::MailboxFull && unsent.room.is_some()));
        assert_eq!(numbers(refused.into_iter().map(|unsent| unsent.msg)), [3, 4]);
        port.close(Reason::AgentStopped);
        assert!(port.is_empty());
        let refused = port.deliver_all(&mut numbered(5..6).collect());
        assert_eq!(refused[0].reason, Reason::AgentStopped);
    }
}
