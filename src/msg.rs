//! The message: the envelope, what it is about, what it carries, and how to answer it.
//!
//! A message that reached an agent must end in one of [`answer`](Msg::answer), [`reply`](Msg::reply), [`handled`](Msg::handled), [`unhandled`](Msg::unhandled),
//! [`refuse`](Msg::refuse) or [`later`](Msg::later): only they make the [`Handled`] that a handler returns. One that is dropped without (its
//! agent stopped or panicked, or its mailbox closed) tells its sender so.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Message};
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;

use crate::addr::Addr;
use crate::contents::{Contents, ContentsError, IntoContents};
use crate::failure::{NotDelivered, Reason, Report};
use crate::port::Port;
use crate::subject;
use crate::wire::{self, Encoded, Envelope, Head, Lent, Letter};

/// One message. Its `Debug` shows the envelope, never the contents.
pub struct Msg {
    head: Arc<Head>,
    pub(crate) id: Option<i64>,
    pub(crate) reply_to: Option<i64>,
    pub(crate) contents: Contents,
    /// None for the usual empty struct.
    meta: Option<Box<Encoded>>,
    pub(crate) duty: Option<Duty>,
    pub(crate) debt: Debt,
}

const _: () = assert!(size_of::<Msg>() <= 120);

/// The usual `meta`.
const EMPTY: Encoded = Encoded::empty_struct();

/// Who waits to know what becomes of a message, if anybody, and under which number. Told once: by [`Debt::handled`], or by its drop.
#[derive(Default)]
pub(crate) struct Debt(Option<(Arc<dyn Creditor>, u64)>);

/// See [`Debt`].
pub(crate) trait Creditor: Send + Sync {
    /// Message `number` has come to its end: a handler was called with it, or else its sender is told why not in a report.
    fn settle(&self, number: u64, handled: bool);

    /// The same of so many messages from `first` on.
    fn settle_row(&self, first: u64, count: u64, handled: bool) {
        (first..first + count).for_each(|number| self.settle(number, handled));
    }

    /// It has come to its end without a handler, and the report found no way.
    fn unreported(&self, number: u64) {
        self.settle(number, false);
    }

    /// Which life of another router the message came from; that keeps the time for it.
    fn life(&self) -> Option<u64> {
        None
    }
}

impl Debt {
    /// Nobody waits to know.
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn to(creditor: Arc<dyn Creditor>, number: u64) -> Self {
        Self(Some((creditor, number)))
    }

    pub(crate) fn is_owed(&self) -> bool {
        self.0.is_some()
    }

    /// Which life of another router waits.
    pub(crate) fn life(&self) -> Option<u64> {
        self.0.as_ref().and_then(|(creditor, _)| creditor.life())
    }

    pub(crate) fn is_elsewhere(&self) -> bool {
        self.life().is_some()
    }

    /// A handler was called with the message, and has come to its end.
    pub(crate) fn handled(&mut self) {
        self.tell(true);
    }

    /// Its sender cannot be told here why no handler was called.
    pub(crate) fn unreported(&mut self) {
        if let Some((creditor, number)) = self.0.take() {
            creditor.unreported(number);
        }
    }

    fn tell(&mut self, handled: bool) {
        if let Some((creditor, number)) = self.0.take() {
            creditor.settle(number, handled);
        }
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        self.tell(false);
    }
}

/// What is owed for messages in a row, to one who waits: their debts, in as little as one.
#[derive(Debug, Default)]
pub(crate) struct Debts {
    first: Debt,
    count: u64,
}

impl Debts {
    pub(crate) fn of(first: Debt) -> Self {
        Self { first, count: 1 }
    }

    /// Whether anybody waits.
    pub(crate) fn is_owed(&self) -> bool {
        self.first.is_owed()
    }

    pub(crate) fn is_elsewhere(&self) -> bool {
        self.first.is_elsewhere()
    }

    /// Adds the debt of the next message if it is the next to whom these are owed.
    pub(crate) fn add(&mut self, next: &mut Debt) -> bool {
        let is_next = match (&self.first.0, &next.0) {
            (None, None) => true,
            (Some((creditor, first)), Some((other, number))) => {
                *number == first.wrapping_add(self.count)
                    && std::ptr::addr_eq(Arc::as_ptr(creditor), Arc::as_ptr(other))
            }
            _ => false,
        };
        if is_next {
            self.count += 1;
            next.0 = None;
        }
        is_next
    }

    /// Takes those of the first so many messages out.
    pub(crate) fn split_off_first(&mut self, count: u64) -> Self {
        let after = |(creditor, first): &(Arc<dyn Creditor>, u64)| (creditor.clone(), first.wrapping_add(count));
        let rest = self.first.0.as_ref().filter(|_| count < self.count).map(after);
        let first = Self { first: Debt(std::mem::replace(&mut self.first.0, rest)), count };
        self.count -= count;
        first
    }

    pub(crate) fn settle(mut self, handled: bool) {
        self.tell(handled);
    }

    fn tell(&mut self, handled: bool) {
        if let Some((creditor, first)) = self.first.0.take() {
            creditor.settle_row(first, self.count, handled);
        }
    }

    /// The debt of the only message.
    pub(crate) fn into_one(mut self) -> Debt {
        debug_assert_eq!(self.count, 1);
        std::mem::take(&mut self.first)
    }
}

impl Drop for Debts {
    fn drop(&mut self) {
        self.tell(false);
    }
}

impl fmt::Debug for Debt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((_, number)) => write!(f, "Debt({number})"),
            None => f.write_str("Debt(none)"),
        }
    }
}

/// What a handler of [`Msg`] returns: proof that the message was dealt with.
#[must_use = "a handler returns this"]
#[derive(Debug)]
pub struct Handled(());

/// The receiver's promise to deal with a message. A message dropped with its duty undone reports to its sender.
pub(crate) struct Duty(Arc<Port>);

impl Message for Msg {
    type Result = Handled;
}

/// The message has been dealt with by the time its handler returns: nothing is left to do.
impl<A: Actor, M: Message<Result = Handled>> MessageResponse<A, M> for Handled {
    fn handle(self, _: &mut A::Context, waiting: Option<OneshotSender<Handled>>) {
        if let Some(waiting) = waiting {
            // Whoever asked through actix itself may have gone: the message has its outcome all the same.
            let _ = waiting.send(self);
        }
    }
}

impl Msg {
    pub(crate) fn new(to: Addr, subject: impl Into<SmolStr>, contents: Contents) -> Self {
        Self::with(Arc::new(Head { to, from: Addr::default(), subject: subject.into(), hops: 0 }), contents)
    }

    pub(crate) fn with(head: Arc<Head>, contents: Contents) -> Self {
        Self { head, id: None, reply_to: None, contents, meta: None, duty: None, debt: Debt::NONE }
    }

    /// A message as it came over the wire.
    pub(crate) fn of(letter: impl Into<Letter>) -> Self {
        let Letter { head, id, reply_to, contents, meta } = letter.into();
        Self { head, id, reply_to, contents: Contents::from(contents), meta, duty: None, debt: Debt::NONE }
    }

    /// The message as it goes over the wire, with these contents.
    pub(crate) fn envelope(&self, contents: Encoded) -> Envelope {
        let Head { to, from, subject, hops } = (*self.head).clone();
        let Self { id, reply_to, .. } = *self;
        let meta = wire::with_hops(self.encoded_meta().clone(), hops);
        Envelope { from, to, subject, id, reply_to, contents, meta }
    }

    /// The same without what it carries, but for its meta.
    pub(crate) fn without_contents(mut self) -> Self {
        self.contents = Contents::null();
        self
    }

    /// Counts one more hop, unless that is more than `limit`.
    pub(crate) fn count_hop(&mut self, limit: u32) -> Result<(), Reason> {
        let hops = self.head.hops;
        match &mut self.meta {
            Some(meta) => wire::count_hop(meta, limit.saturating_sub(hops)),
            None if hops >= limit => Err(Reason::HopLimit),
            None => {
                self.hops += 1;
                Ok(())
            }
        }
    }

    pub(crate) fn has_meta(&self) -> bool {
        self.meta.is_some()
    }

    pub(crate) fn set_head(&mut self, head: Arc<Head>) {
        self.head = head;
    }

    pub(crate) fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// What the message is about: an agreed word such as `"ADD_ONE"`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Where an answer goes; [null](Addr::is_null) if nobody can be answered.
    #[must_use]
    pub fn from(&self) -> &Addr {
        &self.from
    }

    /// Where the message was sent.
    #[must_use]
    pub fn to(&self) -> &Addr {
        &self.to
    }

    /// The sender's number for the message, from 1 up per connection.
    #[must_use]
    pub fn id(&self) -> Option<i64> {
        self.id
    }

    /// The id of the message that this one answers.
    #[must_use]
    pub fn reply_to(&self) -> Option<i64> {
        self.reply_to
    }

    /// Whether this answers a message. An agent sees only answers that no request waits for.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.reply_to.is_some()
    }

    /// A copy of the contents as a `T`.
    ///
    /// # Errors
    ///
    /// When they are something else, naming both.
    pub fn contents<T: DeserializeOwned + Clone + 'static>(&self) -> Result<T, ContentsError> {
        self.contents.get()
    }

    /// The contents as a `T`, moved out; null is left. No copy is made of a `T` from the same process.
    ///
    /// # Errors
    ///
    /// When they are something else, naming both; they stay.
    pub fn take_contents<T: DeserializeOwned + 'static>(&mut self) -> Result<T, ContentsError> {
        let contents = std::mem::replace(&mut self.contents, Contents::null());
        contents.take().map_err(|(error, contents)| {
            self.contents = contents;
            error
        })
    }

    /// The contents as they are, moved out; null is left. To answer with them, or to pass them on, and still answer.
    pub fn take_raw(&mut self) -> Contents {
        std::mem::replace(&mut self.contents, Contents::null())
    }

    /// The contents as they are.
    #[must_use]
    pub fn raw(&self) -> &Contents {
        &self.contents
    }

    /// Side data of the message.
    ///
    /// # Errors
    ///
    /// When it is not a `T`, naming both.
    pub fn meta<T: DeserializeOwned>(&self) -> Result<T, ContentsError> {
        let wrong =
            |error: wire::DecodeError| ContentsError { asked: std::any::type_name::<T>(), problem: error.to_string() };
        wire::decode(self.encoded_meta()).map_err(wrong)
    }

    /// What was not delivered, if this message reports that.
    #[must_use]
    pub fn not_delivered(&self) -> Option<NotDelivered> {
        if self.subject != subject::MSG_NOT_DELIVERED {
            return None;
        }
        let report = self.meta().unwrap_or(Report { reason: Reason::Unstated, place: String::new() });
        let to = self.contents().unwrap_or_default();
        Some(NotDelivered { to, subject: String::new(), reason: report.reason, place: report.place })
    }

    /// Answers with what `f` makes of the contents. Contents of another type are answered with `DOES_NOT_UNDERSTAND`, naming both types.
    pub fn answer<T, R>(mut self, f: impl FnOnce(T) -> R) -> Handled
    where
        T: DeserializeOwned + 'static,
        R: IntoContents,
    {
        match self.take_contents() {
            Ok(contents) => self.reply(f(contents)),
            Err(error) => self.refuse(&error.to_string()),
        }
    }

    /// Answers under the same subject.
    pub fn reply(mut self, contents: impl IntoContents) -> Handled {
        self.contents = contents.into_contents();
        self.answer_with(EMPTY)
    }

    /// Answers under another subject, which the requester must have named as acceptable.
    pub fn reply_as(mut self, subject: impl Into<SmolStr>, contents: impl IntoContents) -> Handled {
        self.subject = subject.into();
        self.reply(contents)
    }

    /// Answers `DOES_NOT_UNDERSTAND`: contents are the subject, `meta` holds `reason`.
    pub fn refuse(mut self, reason: &str) -> Handled {
        self.contents = self.subject.to_string().into_contents();
        self.subject = SmolStr::new_static(subject::DOES_NOT_UNDERSTAND);
        self.answer_with(refusal(reason))
    }

    /// Ends the message without an answer.
    pub fn handled(mut self) -> Handled {
        self.debt.handled();
        self.duty = None;
        Handled(())
    }

    /// Leaves the message to the standard answers: PING is answered; an answer that nobody waits for and a failure report are dropped; SHUTDOWN
    /// stops the router if the agent allows it; anything else is answered with `DOES_NOT_UNDERSTAND`.
    pub fn unhandled(self) -> Handled {
        let Some(port) = self.duty.as_ref().map(|duty| duty.0.clone()) else { return Handled(()) };
        if self.is_reply() || self.subject == subject::MSG_NOT_DELIVERED {
            port.count_stray(&self);
            return self.handled();
        }
        match &*self.subject {
            subject::PING => self.reply(()),
            subject::SHUTDOWN if port.allows_shutdown() => {
                port.shut_down();
                self.handled()
            }
            _ => self.refuse("no handler for this subject"),
        }
    }

    /// Lets the handler return now and the message be dealt with afterwards. Dropped instead, it reports to its sender as if the agent had stopped.
    pub fn later(self) -> (Handled, Msg) {
        (Handled(()), self)
    }

    pub(crate) fn encoded_meta(&self) -> &Encoded {
        static NONE: Encoded = EMPTY;
        self.meta.as_deref().unwrap_or(&NONE)
    }

    /// What a link lays out, with these contents.
    pub(crate) fn parts<'a>(&'a self, contents: Lent<'a>) -> wire::Parts<'a> {
        let Self { head, id, reply_to, .. } = self;
        wire::Parts { head, id: *id, reply_to: *reply_to, contents, meta: self.meta.as_deref() }
    }

    pub(crate) fn set_meta(&mut self, meta: Encoded) {
        self.meta = (meta != EMPTY).then(|| Box::new(meta));
    }

    /// Puts the message into a receiver's care.
    pub(crate) fn charge(&mut self, port: Arc<Port>) {
        self.duty = Some(Duty(port));
    }

    /// Ends a message that its receiver does not deal with: its sender is told.
    pub(crate) fn abandon(mut self, reason: Reason) {
        if let Some(duty) = self.duty.take() {
            duty.0.abandoned(&mut self, reason);
        }
    }

    /// The report that this message was not delivered; none if nobody can be told, or if this is such a report itself, or what Python answers to one.
    pub(crate) fn undelivered(&self, reason: Reason, place: String) -> Option<Msg> {
        if self.from.is_null() || self.to.connection.is_none() || self.subject == subject::MSG_NOT_DELIVERED {
            return None;
        }
        let mut report = Msg::new(
            self.from.clone(),
            SmolStr::new_static(subject::MSG_NOT_DELIVERED),
            self.to.clone().into_contents(),
        );
        report.reply_to = self.id;
        report.set_meta(wire::encode(&Report { reason, place }).unwrap_or(EMPTY));
        Some(report)
    }

    /// The refusal that is sent in place of this answer.
    pub(crate) fn refused_instead(&self, reason: &str) -> Msg {
        let subject = SmolStr::new_static(subject::DOES_NOT_UNDERSTAND);
        let mut refused = Msg::new(self.to.clone(), subject, self.subject.to_string().into_contents());
        refused.from.net.clone_from(&self.from.net);
        refused.reply_to = self.reply_to;
        refused.set_meta(refusal(reason));
        refused
    }

    /// Turns the message, whose subject and contents are the answer's already, round.
    fn answer_with(mut self, meta: Encoded) -> Handled {
        // Settled before it is answered: both travel in one frame, and no asker who was answered is told of a loss.
        self.debt.handled();
        let Some(duty) = self.duty.take().filter(|_| !self.from.is_null()) else { return Handled(()) };
        self.head = duty.0.turn_round(&self.head);
        self.reply_to = self.id.take();
        self.set_meta(meta);
        duty.0.answer(self);
        Handled(())
    }
}

/// `meta` of a refusal.
fn refusal(reason: &str) -> Encoded {
    #[derive(Serialize)]
    struct Refusal<'a> {
        reason: &'a str,
    }
    wire::encode(&Refusal { reason }).unwrap_or(EMPTY)
}

impl Deref for Msg {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl DerefMut for Msg {
    fn deref_mut(&mut self) -> &mut Head {
        Arc::make_mut(&mut self.head)
    }
}

impl Drop for Msg {
    fn drop(&mut self) {
        if let Some(duty) = self.duty.take() {
            let reason = if std::thread::panicking() { Reason::AgentPanicked } else { Reason::AgentStopped };
            duty.0.abandoned(self, reason);
        }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl fmt::Debug for Msg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} -> {}", &*self.subject, self.from, self.to)?;
        if let Some(id) = self.id {
            write!(f, " id {id}")?;
        }
        if let Some(id) = self.reply_to {
            write!(f, " answers {id}")?;
        }
        write!(f, " carrying {:?}", self.contents)
    }
}
