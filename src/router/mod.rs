//! The router: where connections live, and the one thing a program starts.

pub(crate) mod bridge;
pub(crate) mod clock;
pub(crate) mod counters;
pub(crate) mod names;
#[cfg(test)]
mod simulation;
pub(crate) mod switch;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture};

use crate::addr::{Addr, Endpoint};
use crate::agent::{self, Agent, Spawned, Supervised};
use crate::config::Limits;
use crate::connection::Connection;
use crate::directory::{self, Directory, Known, Wake};
use crate::error::{JoinError, StartError};
use crate::transport::{EventSink, ListenError, Options, Sockets, Transport};
use bridge::{Bridge, CloseDown, Listen};
use clock::SystemClock;
pub use counters::Stats;
pub use names::Mode;
use switch::Switch;

/// Router endpoints tried, from the process id up. Default 1,000: as the reference.
const ENDPOINTS_TRIED: u32 = 1000;
/// The folder of ipc endpoints. Default `/tmp`: as the reference.
const FOLDER: &str = "/tmp";
/// The environment variable that names another folder, for programs that do not say one themselves.
pub const FOLDER_VARIABLE: &str = "VLM_FOLDER";
/// The file name of the hub of a machine.
const HUB: &str = "hub_1";

/// How long a Python router is given to read our hello before its connection ends. Default 300 ms: one that reads it later ends its main loop.
const LINGER: Duration = Duration::from_millis(300);
/// How long a router that ends waits for the reports of its agents to leave. Default 500 ms: they are small, and most links take them at once.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Pause between looks at whether a router has come to rest. Default 2 ms.
const LOOK: Duration = Duration::from_millis(2);

/// A running router; cheap to clone. It runs until [`shutdown`](Router::shutdown) or the end of its actix System, also when every clone is dropped.
#[derive(Clone)]
pub struct Router {
    switch: Arc<Switch>,
    actor: actix::Addr<RouterActor>,
}

/// Makes the transport of a router that tells what happens to this sink.
type MakeTransport = Box<dyn FnOnce(EventSink) -> io::Result<Arc<dyn Transport>>>;

/// A router to be started. Its methods say where it listens and which hubs it joins; every one has a default.
#[must_use = "a router runs after start()"]
pub struct RouterBuilder {
    mode: Mode,
    folder: PathBuf,
    hub: Option<String>,
    is_guest: bool,
    listen: Vec<Endpoint>,
    hubs: Vec<Endpoint>,
    vnets: Vec<String>,
    limits: Limits,
    sockets: Option<Sockets>,
    transport: Option<MakeTransport>,
}

impl Router {
    /// A router for agents of this process alone: no sockets.
    pub fn local() -> RouterBuilder {
        RouterBuilder::new(Mode::Local)
    }

    /// A router that reaches others of the machine over unix sockets, and joins (or is) the machine's hub.
    pub fn machine() -> RouterBuilder {
        RouterBuilder::new(Mode::Machine)
    }

    /// A router that also reaches others over TCP.
    pub fn network() -> RouterBuilder {
        RouterBuilder::new(Mode::Network)
    }

    /// A connection without an agent, to send from and to await answers at.
    #[must_use]
    pub fn connect(&self) -> Connection {
        Connection::without_agent(self.switch.open_port())
    }

    /// Starts an agent on the present thread. It is never restarted.
    pub fn spawn<A: Agent>(&self, agent: A) -> Spawned<A> {
        agent::spawn(self.switch.open_port(), agent)
    }

    /// Makes and starts an agent on the thread of another arbiter. It is never restarted.
    pub fn spawn_on<A: Agent>(
        &self,
        arbiter: &actix::ArbiterHandle,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Spawned<A> {
        agent::spawn_on(self.switch.open_port(), arbiter, make)
    }

    /// Starts an agent on the present thread, and another in its place, at the same address, when it panics: three times a minute at most.
    pub fn spawn_supervised<A: Agent>(&self, make: impl FnMut() -> A + 'static) -> Supervised {
        agent::spawn_supervised(self.switch.open_port(), make)
    }

    /// Every endpoint that this router listens at: its own first.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.switch.endpoints()
    }

    /// The address of connection `number` of this router, as the network knows it.
    #[must_use]
    pub fn net_addr(&self, number: u64) -> Addr {
        Addr { net: self.switch.net_endpoint(), ..self.switch.own_addr(number) }
    }

    /// Every router that the directory knows, with what each provides: this one first. Complete after [`joined`](Router::joined), and newer with every look.
    #[must_use]
    pub fn known(&self) -> Vec<Known> {
        self.switch.board.routers()
    }

    /// Waits until every hub that this router joins has said what it knows. At once where this router is the hub, or joins none.
    ///
    /// # Errors
    ///
    /// [`JoinError::Silent`]: nobody is at a hub, or does not answer in time; start one, or wait longer.
    pub async fn joined(&self, limit: Duration) -> Result<(), JoinError> {
        self.switch.board.joined(limit).await
    }

    /// What has been counted since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.switch.counters.read()
    }

    /// Refuses new messages, lets agents deal with those they have for at most [`Limits::shutdown`], stops every agent, tells the senders of the rest, and ends every
    /// connection.
    pub async fn shutdown(&self) {
        if self.actor.send(Shutdown).await.is_err() {
            tracing::debug!("the router had been stopped");
        }
    }

    /// Waits until somebody has shut the router down.
    pub async fn stopped(&self) {
        let mut ended = self.switch.ended();
        // An error means that the router is no more, which is what was waited for.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

impl RouterBuilder {
    fn new(mode: Mode) -> Self {
        let folder = std::env::var_os(FOLDER_VARIABLE).map_or_else(|| PathBuf::from(FOLDER), PathBuf::from);
        Self {
            mode,
            folder,
            hub: Some(HUB.into()),
            is_guest: false,
            listen: Vec::new(),
            hubs: Vec::new(),
            vnets: Vec::new(),
            limits: Limits::default(),
            sockets: None,
            transport: None,
        }
    }

    /// The folder of this router's ipc endpoint, and of the machine's hub. Default: the environment variable `VLM_FOLDER`, else `/tmp` as the
    /// reference. Routers of different folders do not find each other, and where only one user may enter it nobody else gets in.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// The name of the machine's hub: a file name in the folder. Default `hub_1`. This router is the hub if nobody else is, and joins it otherwise.
    pub fn hub(mut self, name: impl Into<String>) -> Self {
        self.hub = Some(name.into());
        self
    }

    /// Joins the machine's hub where there is one, and never becomes it: for programs that end soon, after which the others would have to find another.
    pub fn guest(mut self) -> Self {
        self.is_guest = true;
        self
    }

    /// No hub on the machine: other routers are found through hubs named with [`join`](Self::join) alone.
    pub fn without_hub(mut self) -> Self {
        self.hub = None;
        self
    }

    /// Listens at this endpoint too: `tcp://127.0.0.1:30001`, port 0 for any, or a further `ipc://` path.
    pub fn listen(mut self, at: impl Into<Endpoint>) -> Self {
        self.listen.push(at.into());
        self
    }

    /// Joins the hub at this endpoint, now or as soon as it is there.
    pub fn join(mut self, hub: impl Into<Endpoint>) -> Self {
        self.hubs.push(hub.into());
        self
    }

    /// Takes part in a virtual network: entries in it are shared over TCP.
    pub fn vnet(mut self, name: impl Into<String>) -> Self {
        self.vnets.push(name.into());
        self
    }

    /// Other limits than the defaults.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Which sockets it uses, where several are compiled in. Default: the environment variable `VLM_SOCKETS`, else nng. The wire is the same.
    pub fn sockets(mut self, sockets: Sockets) -> Self {
        self.sockets = Some(sockets);
        self
    }

    /// Another transport than over sockets.
    #[doc(hidden)]
    pub fn transport(mut self, make: impl FnOnce(EventSink) -> io::Result<Arc<dyn Transport>> + 'static) -> Self {
        self.transport = Some(Box::new(make));
        self
    }

    /// Starts the router in the present actix System.
    ///
    /// # Errors
    ///
    /// [`StartError::Listen`] when an endpoint cannot be listened at, [`StartError::NoFreeEndpoint`] when the folder is full of routers,
    /// [`StartError::Options`] when a tcp endpoint is named without network mode, or outside an actix System.
    pub async fn start(self) -> Result<Router, StartError> {
        if actix::System::try_current().is_none() {
            return Err(StartError::Options(
                "a router starts inside an actix System: mark the function #[actix::main]".into(),
            ));
        }
        self.check()?;
        let switch = Switch::new(self.mode, self.limits.clone(), Arc::new(SystemClock));
        let hub = self.hub.as_ref().filter(|_| self.mode != Mode::Local).map(|name| self.endpoint(name));
        let (listen, mut hubs, vnets) = (self.listen.clone(), self.hubs.clone(), self.vnets.clone());
        // Nobody knows yet who is the machine's hub: it is to be joined until this router turns out to be it.
        hubs.extend(hub.clone());
        let hub = hub.filter(|_| !self.is_guest);
        let bridge = if self.mode == Mode::Local { None } else { Some(self.bridge(&switch).await?) };
        if let Some(bridge) = &bridge {
            for at in listen {
                if let Err(error) = started(bridge.send(Listen(at)).await) {
                    return Err(undone(bridge, error).await);
                }
            }
        }
        let home = Addr { net: switch.net_endpoint(), ..switch.own_addr(0) };
        switch.board.belongs_to(Addr { connection: None, ..home }, switch.incarnation(), vnets);
        for hub in hubs {
            switch.board.join(hub);
        }
        let directory = agent::spawn(switch.open_port(), Directory::new(hub));
        let actor =
            RouterActor { switch: switch.clone(), bridge, directory: directory.actor().clone(), is_ending: false };
        Ok(Router { switch, actor: actor.start() })
    }

    fn check(&self) -> Result<(), StartError> {
        let mut endpoints = self.listen.iter().chain(&self.hubs);
        let refused = match self.mode {
            Mode::Local => endpoints.next(),
            Mode::Machine => endpoints.find(|endpoint| directory::is_network(endpoint)),
            Mode::Network => None,
        };
        match refused {
            Some(endpoint) => Err(StartError::Options(format!(
                "{endpoint} needs Router::{}()",
                if self.mode == Mode::Local { "machine() or network" } else { "network" }
            ))),
            None => Ok(()),
        }
    }

    fn endpoint(&self, name: &str) -> Endpoint {
        Endpoint::from(format!("{}://{}", "ipc", self.folder.join(name).display()))
    }

    /// Starts the transport, and listens at the first free router endpoint.
    async fn bridge(mut self, switch: &Arc<Switch>) -> Result<actix::Addr<Bridge>, StartError> {
        let options = Options {
            max_frame: self.limits.message + (1 << 20),
            dial_limit: self.limits.connect,
            ..Options::default()
        };
        let make = match (self.transport.take(), self.sockets) {
            (Some(make), _) => make,
            (None, sockets) => {
                let sockets = sockets.map_or_else(Sockets::chosen, Ok).map_err(StartError::Options)?;
                Box::new(move |sink| sockets.start(sink, options))
            }
        };
        let bridge = Bridge::start(switch, make).map_err(StartError::Transport)?;
        let pid = std::process::id();
        for number in pid..pid.saturating_add(ENDPOINTS_TRIED) {
            match started(bridge.send(Listen(self.endpoint(&format!("router_{number}")))).await) {
                Ok(_) => return Ok(bridge),
                Err(StartError::Listen(ListenError::InUse { .. })) => {}
                Err(error) => return Err(undone(&bridge, error).await),
            }
        }
        let full =
            StartError::NoFreeEndpoint { first: self.endpoint(&format!("router_{pid}")), tried: ENDPOINTS_TRIED };
        Err(undone(&bridge, full).await)
    }
}

/// Closes what a router that does not start has opened: nobody will shut it down.
async fn undone(bridge: &actix::Addr<Bridge>, error: StartError) -> StartError {
    if bridge.send(CloseDown(std::time::Duration::ZERO)).await.is_err() {
        tracing::error!("the transport actor ended before its router");
    }
    error
}

/// The transport actor's answer; it does not end before its router.
fn started(answer: Result<Result<Endpoint, ListenError>, actix::MailboxError>) -> Result<Endpoint, StartError> {
    match answer {
        Ok(bound) => Ok(bound?),
        Err(error) => Err(StartError::Options(format!("the transport actor ended: {error}"))),
    }
}

/// The actor that ends a router in order.
struct RouterActor {
    switch: Arc<Switch>,
    bridge: Option<actix::Addr<Bridge>>,
    directory: actix::Addr<Directory>,
    /// Somebody has asked for the end, which is made once.
    is_ending: bool,
}

impl Actor for RouterActor {
    type Context = Context<Self>;

    /// An agent may be told to shut the router down.
    fn started(&mut self, ctx: &mut Context<Self>) {
        let (switch, me) = (self.switch.clone(), ctx.address());
        let asked = async move {
            switch.shutdown_asked.notified().await;
            // If this actor has ended, so has the router.
            let _ = me.send(Shutdown).await;
        };
        ctx.spawn(asked.into_actor(self));
    }
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Shutdown;

/// A program, or an agent on behalf of a message, ends the router.
impl Handler<Shutdown> for RouterActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Shutdown, _: &mut Context<Self>) -> ResponseActFuture<Self, ()> {
        let (switch, bridge, directory) = (self.switch.clone(), self.bridge.clone(), self.directory.clone());
        let is_ending = std::mem::replace(&mut self.is_ending, true);
        let ending = async move {
            if is_ending {
                let mut ended = switch.ended();
                // An error means that the router is no more, which is what was waited for.
                let _ = ended.wait_for(|ended| *ended).await;
                return;
            }
            switch.board.goodbye();
            // The goodbye is on its way before nothing is taken any more. A directory that has ended has nothing to say.
            let _ = directory.send(Wake).await;
            switch.close_down();
            until(switch.limits.shutdown, || switch.is_drained(LINGER) && switch.is_handled()).await;
            // Stopped agents report what was left in their mailboxes: those reports go out, too.
            let ports = switch.stop_ports();
            until(LAST_WORDS, || ports.iter().all(|port| port.is_empty())).await;
            until(LAST_WORDS, || switch.is_drained(LINGER)).await;
            if let Some(bridge) = bridge
                && bridge.send(CloseDown(LAST_WORDS)).await.is_err()
            {
                tracing::error!("the transport actor ended before its router");
            }
            switch.end();
        };
        Box::pin(ending.into_actor(self).map(|(), _, ctx| ctx.stop()))
    }
}

/// Waits until something is so, at most for `limit`.
async fn until(limit: Duration, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !is_so() && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
}

/// Endpoints of the network need network mode.
#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn a_tcp_endpoint_needs_a_network_router() {
        let error = Router::machine().listen("tcp://127.0.0.1:0").start().await.err().unwrap();
        assert_eq!(error.to_string(), "tcp://127.0.0.1:0 needs Router::network()");
    }
}
