//! A connection: an address in a router, from which messages are sent and at which answers arrive.

use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::sync::Mutex;

use crate::addr::{Addr, DIRECTORY};
use crate::contents::IntoContents;
use crate::directory::{Find, Register};
use crate::error::{RequestError, SendError};
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

    /// Sends one way. Waits, without a limit, for room in the receiver's mailbox if it is in this router, and on the link if it is not; a full mailbox behind a link refuses the
    /// message, which is reported. Two agents that wait for each other's room wait for ever: use [`try_send`](Self::try_send), or a timeout, where they may. The id returned is the `reply_to` of the report that
    /// comes if the message is not delivered after all.
    ///
    /// # Errors
    ///
    /// When it is known at once that it cannot be delivered; the contents come back.
    pub async fn send(
        &self,
        to: impl Into<Addr>,
        subject: impl Into<SmolStr>,
        contents: impl IntoContents,
    ) -> Result<i64, SendError> {
        let msg = Msg::new(to.into(), subject, contents.into_contents());
        let id = self.port.next_id();
        self.send_when_room(id, msg).await.map_err(SendError::from)?;
        Ok(id)
    }

    /// Sends one way, or hands the contents back if there is no room now.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`Reason::MailboxFull`] where that would wait.
    pub fn try_send(
        &self,
        to: impl Into<Addr>,
        subject: impl Into<SmolStr>,
        contents: impl IntoContents,
    ) -> Result<i64, SendError> {
        let msg = Msg::new(to.into(), subject, contents.into_contents());
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
        subject: impl Into<SmolStr>,
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
        subject: impl Into<SmolStr>,
        contents: impl IntoContents,
        limit: Duration,
        also: &[&str],
    ) -> Result<Msg, RequestError> {
        let msg = Msg::new(to.into(), subject, contents.into_contents());
        let also = also.iter().map(|subject| SmolStr::from(*subject)).collect();
        let id = self.port.next_id();
        let mut answer = self.port.expect(id, &msg, also);
        let asked = async {
            self.send_when_room(id, msg).await.map_err(SendError::from)?;
            (&mut answer).await
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(ended) => ended,
            Err(_) => Err(answer.overdue(limit)),
        }
    }

    /// Asks the directory who provides a service.
    pub fn find(&self, service: impl Into<String>) -> Find {
        Find::new(self.port.switch.clone(), service)
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

    async fn send_when_room(&self, id: i64, mut msg: Msg) -> Result<(), Unsent> {
        loop {
            let Unsent { msg: back, room, reason } = match self.port.send_as(id, msg) {
                Ok(()) => return Ok(()),
                Err(unsent) => unsent,
            };
            let Some(room) = room else { return Err(Unsent { msg: back, room, reason }) };
            let mut freed = std::pin::pin!(room.notified());
            freed.as_mut().enable();
            // Room that came between the try and now is seen by this second try; room that comes later wakes.
            msg = match self.port.send_as(id, back) {
                Ok(()) => return Ok(()),
                Err(unsent) if unsent.room.is_some() => unsent.msg,
                Err(unsent) => return Err(unsent),
            };
            freed.await;
        }
    }
}

impl From<Unsent> for SendError {
    fn from(unsent: Unsent) -> Self {
        let Unsent { mut msg, reason, .. } = unsent;
        let contents = std::mem::replace(&mut msg.contents, crate::Contents::null());
        Self { to: msg.to.clone(), subject: msg.subject.to_string(), reason, contents: Box::new(contents) }
    }
}
