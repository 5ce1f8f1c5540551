//! The transport actor: it carries the sockets' events into the agents' mailboxes, and moves the links' clocks.
//!
//! What sockets receive is put into mailboxes by the socket library's own threads, through the [`Switch`]: one hand-over instead of two. What takes time or waits for
//! time (listening, ticking, closing down) is this actor's.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture};

use crate::addr::Endpoint;
use crate::router::switch::Switch;
use crate::transport::{EventSink, ListenError, Transport};

pub(crate) struct Bridge {
    switch: Arc<Switch>,
    transport: Arc<dyn Transport>,
}

impl Bridge {
    /// Makes the transport whose events go to the switch, and starts.
    pub(crate) fn start(
        switch: &Arc<Switch>,
        make: impl FnOnce(EventSink) -> io::Result<Arc<dyn Transport>>,
    ) -> io::Result<actix::Addr<Self>> {
        // The switch holds the transport, which must not hold the switch: neither would end.
        let events = Arc::downgrade(switch);
        let happened = move |event| {
            if let Some(switch) = events.upgrade() {
                switch.happened(event);
            }
        };
        let transport = make(Arc::new(happened))?;
        switch.use_transport(transport.clone());
        Ok(Self { switch: switch.clone(), transport }.start())
    }
}

/// An actix System may end before its router is shut down: then nobody would serve who is still connected.
impl Drop for Bridge {
    fn drop(&mut self) {
        if !*self.switch.ended().borrow() {
            self.transport.shutdown(Duration::ZERO);
            self.switch.end();
        }
    }
}

impl Actor for Bridge {
    type Context = Context<Self>;

    /// Ticks the links whenever one of them is due.
    fn started(&mut self, ctx: &mut Context<Self>) {
        let switch = self.switch.clone();
        let clock = async move {
            loop {
                let rearmed = switch.rearmed.notified();
                match switch.next_timer() {
                    Some(at) => {
                        // Either the time has come or an earlier one was set: both are looked at next.
                        let _ = tokio::time::timeout_at(at.into(), rearmed).await;
                    }
                    None => rearmed.await,
                }
                switch.tick();
            }
        };
        ctx.spawn(clock.into_actor(self));
    }
}

/// Accept connections at an endpoint.
#[derive(actix::Message)]
#[rtype(result = "Result<Endpoint, ListenError>")]
pub(crate) struct Listen(pub(crate) Endpoint);

impl Handler<Listen> for Bridge {
    type Result = Result<Endpoint, ListenError>;

    fn handle(&mut self, Listen(at): Listen, _: &mut Context<Self>) -> Self::Result {
        let bound = self.transport.listen(&at)?;
        tracing::debug!(%bound, "listening");
        self.switch.listens_at(bound.clone());
        Ok(bound)
    }
}

/// Ends every connection, waiting at most so long for what is on its way, and then the actor.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct CloseDown(pub(crate) Duration);

impl Handler<CloseDown> for Bridge {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, CloseDown(limit): CloseDown, _: &mut Context<Self>) -> ResponseActFuture<Self, ()> {
        let transport = self.transport.clone();
        let closing = async move {
            let closing = tokio::task::spawn_blocking(move || transport.shutdown(limit));
            if closing.await.is_err() {
                tracing::error!("the transport panicked while it closed");
            }
        };
        Box::pin(closing.into_actor(self).map(|(), _, ctx| ctx.stop()))
    }
}
