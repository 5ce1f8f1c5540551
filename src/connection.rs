//! A connection: an address in a router, from which messages are sent and at which answers arrive.

use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::addr::{Addr, DIRECTORY};
use crate::alarm::within;
use crate::contents::IntoContents;
use crate::directory::{Find, Register};
use crate::error::{DeliverError, RequestError, SendError};
use crate::failure::{NotDelivered, Reason};
use crate::msg::Msg;
use crate::port::Port;
use crate::router::switch::Unsent;
use crate::timer::Timer;

/// Sends messages and awaits answers. Cheap to clone; works on any thread that runs in an actix or tokio runtime.
///
/// [`Router::connect`](crate::Router::connect) makes one without an agent, which is closed with its last clone. An agent is given its own in
/// [`Agent::started`](crate::Agent::started), which is closed with the agent.
#[derive(Clone)]
pub struct Connection {
    port: Arc<Port>,
    own: Option<Arc<Own>>,
}

/// What a connection without an agent has: the reports of its one-way messages, and an end.
struct Own {
    port: Arc<Port>,
    /// One at a time waits for a report.
    turn: Mutex<()>,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.port.close(Reason::NoSuchConnection);
    }
}

impl Connection {
    pub(crate) fn without_agent(port: Arc<Port>) -> Self {
        let own = Own { port: port.clone(), turn: Mutex::default() };
        Self { port, own: Some(Arc::new(own)) }
    }

    pub(crate) fn of_agent(port: Arc<Port>) -> Self {
        Self { port, own: None }
    }

    pub(crate) fn port(&self) -> &Arc<Port> {
        &self.port
    }

    /// Where this connection is reached.
    #[must_use]
    pub fn addr(&self) -> Addr {
        self.port.addr()
    }

    /// The directory of this connection's router.
    #[must_use]
    pub fn directory(&self) -> Addr {
        self.addr().with_connection(DIRECTORY)
    }

    /// Sends one way. Waits for room, at most for [`Limits::room`](crate::Limits::room): in the receiver's mailbox if it is in this router; if it is not, until fewer than
    /// [`Limits::ahead`](crate::Limits::ahead) messages to it have no outcome yet, and there is room on the link. The id returned is the `reply_to` of the report that comes if the message is not delivered after all,
    /// or if that is not known in time.
    ///
    /// # Errors
    ///
    /// When it is known at once that it cannot be delivered, and [`Reason::MailboxFull`] when there was no room; the contents come back.
    pub async fn send(
        &self,
        to: impl Into<Addr>,
        subject: impl AsRef<str> + Into<SmolStr>,
        contents: impl IntoContents,
    ) -> Result<i64, SendError> {
        let msg = self.port.compose(to.into(), subject, contents.into_contents());
        let id = self.port.next_id();
        // As a rule there is room, and nothing to await.
        if let Err(unsent) = self.port.send_as(id, msg) {
            self.send_in_time(id, unsent, self.port.switch.limits.room).await.map_err(SendError::from)?;
        }
        Ok(id)
    }

    /// Sends one way, and waits until a handler was called with the message and has come to its end, or that is known not to be, at most for `limit`. Waits for room as
    /// [`send`](Self::send). What the handler answers is dropped; an agent that does not understand the message has handled it.
    ///
    /// # Errors
    ///
    /// [`DeliverError::NotSent`] and [`DeliverError::Refused`]: no handler was called with it. [`DeliverError::Unknown`]: nobody knows, or `limit` has passed first; a Python router, which
    /// acknowledges nothing, leaves every message so.
    pub async fn deliver(
        &self,
        to: impl Into<Addr>,
        subject: impl AsRef<str> + Into<SmolStr>,
        contents: impl IntoContents,
        limit: Duration,
    ) -> Result<(), DeliverError> {
        let mut msg = self.port.compose(to.into(), subject, contents.into_contents());
        let (to, subject) = (msg.to.clone(), msg.subject.clone());
        let ends = Instant::now() + limit;
        let id = self.port.next_id();
        let mut outcome = self.port.confirm(id, &mut msg);
        if let Err(unsent) = self.port.send_as(id, msg) {
            self.send_in_time(id, unsent, limit).await.map_err(SendError::from)?;
        }
        let (reason, place) = match tokio::time::timeout_at(ends, &mut outcome.coming).await {
            Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some(failure))) if failure.reason.is_unknown() => return Err(DeliverError::Unknown(failure)),
            Ok(Ok(Some(failure))) => return Err(DeliverError::Refused(failure)),
            // The connection was closed while the message was on its way.
            Ok(Err(_)) => (Reason::PeerLost, self.addr().to_string()),
            Err(_) => (Reason::NoOutcome, self.addr().to_string()),
        };
        Err(DeliverError::Unknown(NotDelivered { to, subject: subject.to_string(), reason, place }))
    }

    /// Sends one way, or hands the contents back if there is no room now.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`Reason::MailboxFull`] where that would wait.
    pub fn try_send(
        &self,
        to: impl Into<Addr>,
        subject: impl AsRef<str> + Into<SmolStr>,
        contents: impl IntoContents,
    ) -> Result<i64, SendError> {
        let msg = self.port.compose(to.into(), subject, contents.into_contents());
        self.port.send(msg).map_err(SendError::from)
    }

    /// Sends, and awaits the answer: a message of the same subject.
    ///
    /// # Errors
    ///
    /// [`RequestError::NotSent`] and [`RequestError::NotDelivered`] as soon as that is known, [`RequestError::NotUnderstood`] when the agent says
    /// so, [`RequestError::TimedOut`] after `limit`.
    pub async fn request(
        &self,
        to: impl Into<Addr>,
        subject: impl AsRef<str> + Into<SmolStr>,
        contents: impl IntoContents,
        limit: Duration,
    ) -> Result<Msg, RequestError> {
        self.request_or(to, subject, contents, limit, &[]).await
    }

    /// The same, with answers of further subjects accepted.
    ///
    /// # Errors
    ///
    /// As [`request`](Self::request).
    pub async fn request_or(
        &self,
        to: impl Into<Addr>,
        subject: impl AsRef<str> + Into<SmolStr>,
        contents: impl IntoContents,
        limit: Duration,
        also: &[&str],
    ) -> Result<Msg, RequestError> {
        let msg = self.port.compose(to.into(), subject, contents.into_contents());
        let also = also.iter().map(|subject| SmolStr::from(*subject)).collect();
        let id = self.port.next_id();
        let mut answer = self.port.expect(id, &msg, also);
        let asked = async {
            self.send_when_room(id, &mut Some(msg)).await.map_err(SendError::from)?;
            (&mut answer).await
        };
        match within(limit, asked).await {
            Some(ended) => ended,
            None => Err(answer.overdue(limit)),
        }
    }

    /// Asks the directory who provides a service.
    pub fn find(&self, service: impl Into<String>) -> Find {
        Find::new(self.port.switch.clone(), service)
    }

    /// Asks the directory for everything that is provided.
    pub fn find_all(&self) -> Find {
        Find::everything(self.port.switch.clone())
    }

    /// Provides a service from this connection.
    pub fn register(&self, service: impl Into<String>) -> Register {
        Register::new(self.port.clone(), service)
    }

    /// Calls `call` after `delay`, on this thread, unless the connection is closed by then.
    ///
    /// # Panics
    ///
    /// Outside of an actix System.
    pub fn after(&self, delay: Duration, call: impl FnOnce() + 'static) -> Timer {
        Timer::after(self.port.clone(), delay, call)
    }

    /// Calls `call` every `period`, on this thread, until the connection is closed.
    ///
    /// # Panics
    ///
    /// Outside of an actix System, or if the period is zero.
    pub fn every(&self, period: Duration, call: impl FnMut() + 'static) -> Timer {
        Timer::every(self.port.clone(), period, call)
    }

    /// Waits for the next report of a one-way message that was not delivered. Never ready for an agent's connection: its handler gets them as messages.
    pub async fn not_delivered(&self) -> NotDelivered {
        let Some(own) = &self.own else { return std::future::pending().await };
        let _turn = own.turn.lock().await;
        loop {
            let report = std::future::poll_fn(|task| own.port.poll_next(task)).await;
            if let Some(report) = report.not_delivered() {
                return report;
            }
        }
    }

    /// Sends what found no room when there is some, and gives the message back if there is none in time.
    async fn send_in_time(&self, id: i64, unsent: Unsent, limit: Duration) -> Result<(), Unsent> {
        if unsent.room.is_none() {
            return Err(unsent);
        }
        let mut waiting = Some(unsent.msg);
        match within(limit, self.send_when_room(id, &mut waiting)).await {
            Some(sent) => sent,
            None => waiting.map_or(Ok(()), |msg| Err(Unsent::because(msg, Reason::MailboxFull))),
        }
    }

    async fn send_when_room(&self, id: i64, waiting: &mut Option<Msg>) -> Result<(), Unsent> {
        while let Some(msg) = waiting.take() {
            let Unsent { msg, reason, room } = match self.port.send_as(id, msg) {
                Ok(()) => return Ok(()),
                Err(unsent) => unsent,
            };
            let Some(room) = room else { return Err(Unsent { msg, reason, room }) };
            let mut freed = std::pin::pin!(room.notified());
            freed.as_mut().enable();
            // Room that came between the try and now is seen by this second try; room that comes later wakes.
            match self.port.send_as(id, msg) {
                Ok(()) => return Ok(()),
                Err(unsent) if unsent.room.is_some() => *waiting = Some(unsent.msg),
                Err(unsent) => return Err(unsent),
            }
            freed.await;
        }
        Ok(())
    }
}

impl From<Unsent> for SendError {
    fn from(unsent: Unsent) -> Self {
        let Unsent { mut msg, reason, .. } = unsent;
        let contents = std::mem::replace(&mut msg.contents, crate::Contents::null());
        Self { to: msg.to.clone(), subject: msg.subject.to_string(), reason, contents: Box::new(contents) }
    }
}
