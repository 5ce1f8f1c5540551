//! Agents: actors with an address in a router.
//!
//! An agent is an actix actor that handles [`Msg`]. Spawned, it has a connection of its own; when it stops or panics, its entries are gone from the
//! directory, whoever sent it a message that it did not deal with is told, and no other agent notices.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use actix::dev::MessageResponse;
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, AsyncContext, Context, Handler};
use tokio::sync::oneshot;
use tokio::task::consume_budget;

use crate::addr::Addr;
use crate::connection::Connection;
use crate::directory::Register;
use crate::failure::Reason;
use crate::msg::Msg;
use crate::port::Port;

/// Restarts of a supervised agent within [`RESTART_WINDOW`]. Default 3: a fault that comes again at once does not go away by itself.
const RESTARTS: usize = 3;
/// Default one minute: as Erlang's supervisors count.
const RESTART_WINDOW: Duration = Duration::from_mins(1);

/// An actor that can be spawned in a router. Every method has a default.
pub trait Agent: Actor<Context = Context<Self>> + Handler<Msg> {
    /// Called before the actor's own `started`, with the agent's connection: keep a clone to send from.
    fn started(&mut self, connection: Connection, ctx: &mut Context<Self>) {
        let _ = (connection, ctx);
    }

    /// Whether a `SHUTDOWN` message may stop this agent's router. Default: no.
    fn allows_shutdown(&self) -> bool {
        false
    }
}

/// A spawned agent: its address and its actor. Dropping this does not stop it.
pub struct Spawned<A: Agent> {
    port: Arc<Port>,
    actor: actix::Addr<A>,
}

/// A supervised agent: its address, which stays the same when it is restarted. Dropping this does not stop it.
pub struct Supervised {
    port: Arc<Port>,
}

macro_rules! spawned_methods {
    () => {
        /// Where the agent is reached.
        #[must_use]
        pub fn addr(&self) -> Addr {
            self.port.addr()
        }

        /// Provides a service from this agent, for as long as the registration and the agent live.
        pub fn register(&self, service: impl Into<String>) -> Register {
            Register::new(self.port.clone(), service)
        }

        /// The agent's connection.
        #[must_use]
        pub fn connection(&self) -> Connection {
            Connection::of_agent(self.port.clone())
        }

        /// Stops the agent after the message in hand; the senders of those in its mailbox are told.
        pub fn stop(&self) {
            self.port.stop();
        }
    };
}

impl<A: Agent> Spawned<A> {
    spawned_methods!();

    /// The actor, for messages of its own besides [`Msg`].
    #[must_use]
    pub fn actor(&self) -> &actix::Addr<A> {
        &self.actor
    }
}

impl Supervised {
    spawned_methods!();
}

impl From<&Supervised> for Addr {
    fn from(agent: &Supervised) -> Self {
        agent.addr()
    }
}

impl<A: Agent> From<&Spawned<A>> for Addr {
    fn from(agent: &Spawned<A>) -> Self {
        agent.addr()
    }
}

/// Starts an agent on the present arbiter.
pub(crate) fn spawn<A: Agent>(port: Arc<Port>, agent: A) -> Spawned<A> {
    let presence = Presence::new(&port, None);
    let actor = A::create(|ctx| settle_in(agent, presence, ctx));
    Spawned { port, actor }
}

/// Starts an agent on another arbiter, where it is also made.
pub(crate) fn spawn_on<A: Agent>(
    port: Arc<Port>,
    arbiter: &actix::ArbiterHandle,
    make: impl FnOnce() -> A + Send + 'static,
) -> Spawned<A> {
    // Messages wait from now on, until the arbiter has made it.
    let presence = Presence::new(&port, None);
    let actor = A::start_in_arbiter(arbiter, move |ctx| settle_in(make(), presence, ctx));
    Spawned { port, actor }
}

/// Starts an agent on the present arbiter, and another in its place whenever it panics.
pub(crate) fn spawn_supervised<A: Agent>(port: Arc<Port>, mut make: impl FnMut() -> A + 'static) -> Supervised {
    let supervised = Supervised { port: port.clone() };
    // Whichever way the supervision ends, the connection ends with it: also when `make` panics, or the arbiter stops.
    let mut care = Care { port, reason: Reason::AgentStopped };
    let mut ended = start_life(&care.port, &mut make);
    actix::spawn(async move {
        let mut panics: Vec<Instant> = Vec::new();
        while matches!(ended.await, Ok(End::Panicked)) {
            care.reason = Reason::AgentPanicked;
            panics.retain(|panic| panic.elapsed() < RESTART_WINDOW);
            panics.push(Instant::now());
            let (agent, addr) = (std::any::type_name::<A>(), care.port.addr());
            if panics.len() > RESTARTS {
                tracing::error!(agent, %addr, "panicked {} times within {RESTART_WINDOW:?}, not restarted", panics.len());
                return;
            }
            tracing::warn!(agent, %addr, "panicked, restarted");
            ended = start_life(&care.port, &mut make);
            care.reason = Reason::AgentStopped;
        }
    });
    supervised
}

/// A supervised agent's connection, which is closed when nobody restarts the agent any more.
struct Care {
    port: Arc<Port>,
    reason: Reason,
}

impl Drop for Care {
    fn drop(&mut self) {
        self.port.close(self.reason.clone());
    }
}

/// How one life of an actor ended.
enum End {
    Stopped,
    Panicked,
}

/// Lives in the actor's context: hands the actor its messages, and tells when it ends, in whichever way.
struct Presence {
    port: Arc<Port>,
    /// So many were taken and are not handled yet.
    taken: usize,
    /// Who restarts it; without, the connection ends with the actor.
    ended: Option<oneshot::Sender<End>>,
}

impl Presence {
    fn new(port: &Arc<Port>, ended: Option<oneshot::Sender<End>>) -> Self {
        port.attach();
        Self { port: port.clone(), taken: 0, ended }
    }
}

/// Calls the handler with one message after the other. The others of its thread have their turn when tokio's budget for one turn (128 steps) is used up.
impl<A: Agent> ActorFuture<A> for Presence {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        agent: &mut A,
        ctx: &mut Context<A>,
        task: &mut std::task::Context<'_>,
    ) -> Poll<()> {
        loop {
            if self.port.is_stopping() {
                ctx.stop();
                return Poll::Ready(());
            }
            // An agent that stops, or waits for a future of its own, takes no more messages; when that has ended, this is called again.
            if ctx.waiting() {
                return Poll::Pending;
            }
            let Some(left) = self.taken.checked_sub(1) else {
                self.taken = ready!(self.port.poll_take(task));
                continue;
            };
            self.taken = left;
            let Some(msg) = self.port.next_taken() else { continue };
            Handler::<Msg>::handle(agent, msg, ctx).handle(ctx, None);
            ready!(pin!(consume_budget()).as_mut().poll(task));
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        let (end, reason) =
            if panicking { (End::Panicked, Reason::AgentPanicked) } else { (End::Stopped, Reason::AgentStopped) };
        // The next life handles them; if there is none, their senders are told when the connection is closed.
        self.port.give_back();
        match self.ended.take() {
            Some(ended) => {
                // The supervisor may have ended with its arbiter: then nobody restarts anything.
                let _ = ended.send(end);
            }
            None => self.port.close(reason),
        }
    }
}

fn start_life<A: Agent>(port: &Arc<Port>, make: &mut impl FnMut() -> A) -> oneshot::Receiver<End> {
    let (ended, end) = oneshot::channel();
    let presence = Presence::new(port, Some(ended));
    let agent = make();
    A::create(|ctx| settle_in(agent, presence, ctx));
    end
}

/// Ties an actor to its connection: messages come in, and the end is noticed.
fn settle_in<A: Agent>(mut agent: A, presence: Presence, ctx: &mut Context<A>) -> A {
    let port = presence.port.clone();
    if agent.allows_shutdown() {
        port.allow_shutdown();
    }
    ctx.spawn(presence);
    Agent::started(&mut agent, Connection::of_agent(port), ctx);
    agent
}
