//! Where messages for one connection arrive: an agent's mailbox, waiting requests, and the count of what is inside.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use bytestring::ByteString;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::addr::Addr;
use crate::error::RequestError;
use crate::failure::{NotDelivered, Reason};
use crate::link;
use crate::msg::Msg;
use crate::router::switch::{Stage, Switch, Unsent};
use crate::subject;

/// Puts a message into an actor's mailbox, or says why not.
pub(crate) type Post = Arc<dyn Fn(Msg) -> Result<(), (Msg, Reason)> + Send + Sync>;

pub(crate) struct Port {
    pub(crate) number: u64,
    pub(crate) switch: Arc<Switch>,
    next_id: AtomicI64,
    requests: Mutex<HashMap<i64, Waiting>>,
    inbox: RwLock<Inbox>,
    /// Messages in the mailbox or in a handler's hands.
    inside: AtomicUsize,
    room: Arc<Notify>,
    allows_shutdown: AtomicBool,
    stop: Notify,
}

#[derive(Clone)]
enum Inbox {
    /// A connection without an agent: it takes answers, and reports of what was not delivered.
    Reports(mpsc::Sender<NotDelivered>),
    Agent(Post),
    /// Nobody, and why.
    Closed(Reason),
}

/// A request that waits for its answer.
struct Waiting {
    to: Addr,
    subject: ByteString,
    also: Vec<ByteString>,
    answer: oneshot::Sender<Result<Msg, RequestError>>,
}

/// The answer to come; forgets the request when dropped.
pub(crate) struct Answer {
    port: Arc<Port>,
    id: i64,
    pub(crate) coming: oneshot::Receiver<Result<Msg, RequestError>>,
}

impl Port {
    pub(crate) fn new(number: u64, switch: Arc<Switch>) -> (Arc<Self>, mpsc::Receiver<NotDelivered>) {
        let (reports, receiver) = mpsc::channel(switch.limits.mailbox.max(1));
        let port = Self {
            number,
            switch,
            next_id: AtomicI64::new(1),
            requests: Mutex::default(),
            inbox: RwLock::new(Inbox::Reports(reports)),
            inside: AtomicUsize::new(0),
            room: Arc::default(),
            allows_shutdown: AtomicBool::new(false),
            stop: Notify::new(),
        };
        (Arc::new(port), receiver)
    }

    /// The address of this connection, as routers elsewhere on the machine know it.
    pub(crate) fn addr(&self) -> Addr {
        self.switch.own_addr(self.number)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.switch.is_open(self.number)
    }

    pub(crate) fn attach(&self, post: Post) {
        *self.inbox.write() = Inbox::Agent(post);
    }

    pub(crate) fn detach(&self, reason: Reason) {
        let old = std::mem::replace(&mut *self.inbox.write(), Inbox::Closed(reason));
        // An agent's address may be the last thing that keeps its context alive: not dropped under the lock.
        drop(old);
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

    pub(crate) fn stop(&self) {
        self.stop.notify_waiters();
        self.stop.notify_one();
    }

    pub(crate) async fn stopped(&self) {
        self.stop.notified().await;
    }

    /// Ends the connection: its number is free of messages from now on, and nobody waits in it any more.
    pub(crate) fn close(&self, reason: Reason) {
        self.switch.forget(self.number);
        self.detach(reason);
        self.requests.lock().clear();
        self.room.notify_waiters();
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
        if let Err(unsent) = self.send(reply) {
            if matches!(unsent.reason, Reason::NotEncodable(_) | Reason::TooLarge { .. } | Reason::MailboxFull) {
                let refusal = unsent.msg.refused_instead(&format!("its answer was not sent: {}", unsent.reason));
                // What is in the way of a small refusal, too, is in the report below.
                let _ = self.send(refusal);
            }
            self.switch.report(&unsent.msg, unsent.reason);
        }
    }

    /// Gets ready for the answer to message `id`.
    pub(crate) fn expect(self: &Arc<Self>, id: i64, msg: &Msg, also: Vec<ByteString>) -> Answer {
        let (answer, coming) = oneshot::channel();
        let waiting = Waiting { to: msg.to.clone(), subject: msg.subject.clone(), also, answer };
        self.requests.lock().insert(id, waiting);
        Answer { port: self.clone(), id, coming }
    }

    /// Takes a message in. It comes back, with the reason, if it cannot be.
    pub(crate) fn deliver(self: &Arc<Self>, msg: Msg) -> Result<(), Unsent> {
        let Some(mut msg) = self.settle(msg) else { return Ok(()) };
        // Not called under the lock: a message that finds its actor gone reports itself, perhaps to this very port.
        let inbox = self.inbox.read().clone();
        match inbox {
            Inbox::Agent(post) => {
                // A report was reserved for by its message: see `send_as`.
                let is_report = msg.subject == subject::MSG_NOT_DELIVERED;
                if !self.enter(is_report) {
                    return Err(Unsent::full(msg, self.room.clone()));
                }
                msg.charge(self.clone());
                post(msg).map_err(|(mut msg, reason)| {
                    msg.discharge();
                    Unsent::because(msg, reason)
                })
            }
            Inbox::Reports(reports) => {
                if let Some(report) = msg.not_delivered() {
                    if reports.try_send(report).is_err() {
                        self.switch.counters.reports_dropped();
                    }
                    Ok(())
                } else {
                    self.count_stray(&msg);
                    Err(Unsent::because(msg, Reason::NoHandler))
                }
            }
            Inbox::Closed(reason) => Err(Unsent::because(msg, reason)),
        }
    }

    /// A message left the mailbox and the handler's hands.
    pub(crate) fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::Release);
        self.room.notify_one();
    }

    /// Whether no message is in the mailbox or in a handler's hands.
    pub(crate) fn is_empty(&self) -> bool {
        self.inside.load(Ordering::Acquire) == 0
    }

    /// A message was dropped by those who should have dealt with it.
    pub(crate) fn abandoned(&self, msg: &Msg, reason: Reason) {
        let ending = reason == Reason::AgentStopped && self.switch.stage() != Stage::Running;
        let reason = if ending { Reason::ShuttingDown } else { reason };
        self.switch.report_from(msg, reason, self.number);
    }

    pub(crate) fn count_stray(&self, msg: &Msg) {
        if msg.is_reply() {
            self.switch.counters.late_reply();
            tracing::debug!(?msg, "nobody waits for this answer");
        }
    }

    /// Ends the requests whose answers would come from what `lost` tells, and says why.
    pub(crate) fn fail_requests(&self, reason: &Reason, place: &str, lost: impl Fn(&Addr) -> bool) {
        let mut requests = self.requests.lock();
        for (_, waiting) in requests.extract_if(|_, waiting| lost(&waiting.to)) {
            let failure = NotDelivered {
                to: waiting.to,
                subject: waiting.subject.to_string(),
                reason: reason.clone(),
                place: place.into(),
            };
            // The requester may have stopped waiting: then nobody needs to be told.
            let _ = waiting.answer.send(Err(RequestError::NotDelivered(failure)));
        }
    }

    /// Counts a message in, unless there are as many as there may be.
    fn enter(&self, is_report: bool) -> bool {
        let mailbox = self.switch.limits.mailbox;
        // What was on its way when the agent had to stop sending still comes back; beyond that, reports are forged.
        let limit = if is_report { mailbox * 2 + link::OPEN } else { mailbox };
        // In one step: a place taken for a moment only would look like no room to a sender that then waits for ever.
        self.inside
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |inside| (inside < limit).then(|| inside + 1))
            .is_ok()
    }

    /// Gives a message to the request that waits for it, or back.
    fn settle(&self, mut msg: Msg) -> Option<Msg> {
        let Some(id) = msg.reply_to else { return Some(msg) };
        let mut requests = self.requests.lock();
        let Some(waiting) = requests.get(&id) else { return Some(msg) };
        if !waiting.takes(&msg.subject) {
            return Some(msg);
        }
        let waiting = requests.remove(&id)?;
        drop(requests);
        // It has reached who waits for it, which is all that its sender's router wants to know.
        msg.debt = None;
        match waiting.answer.send(waiting_result(waiting.to, &waiting.subject, msg)) {
            Ok(()) | Err(Err(_)) => None,
            Err(Ok(late)) => Some(late),
        }
    }
}

impl Waiting {
    fn takes(&self, subject: &ByteString) -> bool {
        *subject == self.subject
            || self.also.contains(subject)
            || *subject == subject::MSG_NOT_DELIVERED
            || *subject == subject::DOES_NOT_UNDERSTAND
    }
}

/// What a waiting request makes of the message that ends it.
fn waiting_result(to: Addr, subject: &ByteString, msg: Msg) -> Result<Msg, RequestError> {
    #[derive(serde::Deserialize)]
    struct Refusal {
        reason: String,
    }
    if msg.subject == *subject {
        return Ok(msg);
    }
    if let Some(mut failure) = msg.not_delivered() {
        failure.subject = subject.to_string();
        return Err(RequestError::NotDelivered(failure));
    }
    if msg.subject == subject::DOES_NOT_UNDERSTAND {
        let why = msg.meta::<Refusal>().map(|refusal| refusal.reason).unwrap_or_default();
        return Err(RequestError::NotUnderstood { to, subject: subject.to_string(), why });
    }
    Ok(msg)
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.port.requests.lock().remove(&self.id);
    }
}
