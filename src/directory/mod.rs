//! The directory: an agent on connection 1 of every router that knows who provides what.
//!
//! Lookups read the router's own copy and never wait for another router. The agent keeps that copy equal to those of other routers: Rust
//! directories tell each other every change at once ([`SYNC_ENTRIES`](crate::subject::SYNC_ENTRIES)), Python ones are asked in rounds, as they ask.
//! On a machine one router is the hub that the others join: whoever listens at the hub endpoint first, and when that one is gone, another.

pub(crate) mod core;
mod entry;
mod follow;
pub(crate) mod index;
pub(crate) mod log;
mod python;
pub(crate) mod replica;
mod view;

use std::future::{IntoFuture, Ready, ready};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, WrapFuture};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::addr::{Addr, Endpoint, Scheme};
use crate::agent::Agent;
use crate::connection::Connection;
use crate::contents::{ContentsError, IntoContents};
use crate::error::{FindError, JoinError, RegisterError};
use crate::msg::{Handled, Msg};
use crate::port::Port;
use crate::router::switch::{Stage, Switch};
use crate::subject;
use crate::transport::ListenError;
use crate::value::Value;
use core::{Core, Outgoing, What};
pub use entry::{Entry, Known, LOCAL_VNET};
pub use follow::{AskError, Change, Pick, Watch};
use replica::Sync;
pub use view::{DirectoryView, RouterView};

/// Pause between tries to reach or become a hub that is not there. Default 200 ms: a dial to nobody costs well under a millisecond, and a person does not notice.
const RETRY: Duration = Duration::from_millis(200);
/// Pause between rounds with Python hubs, which do not tell what changes. Default 1 s: the reference takes 0.2 to 10 s.
const ROUND: Duration = Duration::from_secs(1);
/// Pause between looks for messages that an agent of this router has not got to in time. Default 1 s: a sixtieth of the usual limit.
const LOOK: Duration = Duration::from_secs(1);
/// Requests to Python directories whose answers are remembered. Default 256: more than answers outstanding in any one second.
const ASKED: usize = 256;

/// The copy of the directory that all connections of a router read.
pub(crate) struct Board {
    core: Mutex<Core>,
    /// There are messages to send.
    work: Notify,
    changed: watch::Sender<()>,
    start: Instant,
    /// Whose turn it is of several providers.
    turn: AtomicUsize,
}

/// An entry in the directory, for as long as this lives: dropped, it is withdrawn everywhere.
#[must_use = "an entry is withdrawn when its registration is dropped"]
pub struct Registration {
    switch: Arc<Switch>,
    number: u64,
}

/// A registration in the making: `await` it.
#[must_use = "nothing is registered until this is awaited"]
pub struct Register {
    port: Arc<Port>,
    service: String,
    params: Result<Value, ContentsError>,
    vnets: Option<Vec<String>>,
}

/// A question to the directory: who provides this.
#[must_use = "nothing is asked until one of the last methods is called"]
pub struct Find {
    switch: Arc<Switch>,
    /// None: any.
    service: Option<String>,
    params: Value,
    vnet: Option<String>,
    pick: Pick,
    is_repeatable: bool,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            core: Mutex::default(),
            work: Notify::new(),
            changed: watch::channel(()).0,
            start: Instant::now(),
            turn: AtomicUsize::new(0),
        }
    }
}

impl Board {
    /// Lets the core decide; `true` from it wakes those who wait for a provider.
    fn with(&self, decide: impl FnOnce(&mut Core) -> bool) {
        let changed = {
            let mut core = self.core.lock();
            core.at(self.start.elapsed());
            decide(&mut core)
        };
        self.work.notify_one();
        if changed {
            self.changed.send_replace(());
        }
    }

    pub(crate) fn belongs_to(&self, home: Addr, incarnation: u64, vnets: Vec<String>) {
        self.core.lock().belongs_to(home, incarnation, vnets);
    }

    pub(crate) fn join(&self, hub: Endpoint) {
        self.core.lock().join(hub);
    }

    /// Every router known, this one first.
    pub(crate) fn routers(&self) -> Vec<Known> {
        self.core.lock().routers()
    }

    /// Waits until every hub has said what it knows.
    pub(crate) async fn joined(&self, limit: Duration) -> Result<(), JoinError> {
        let mut changed = self.changed.subscribe();
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let Some(hub) = self.core.lock().silent_hub().cloned() else { return Ok(()) };
            // The sender lives in the router, which the caller holds: only the time can run out.
            if !matches!(tokio::time::timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
                return Err(JoinError::Silent { hub, within: limit });
            }
        }
    }

    pub(crate) fn forget(&self, connection: u64) {
        self.with(|core| core.forget(connection));
    }

    pub(crate) fn peer_up(&self, name: &Endpoint, incarnation: u64) {
        self.with(|core| {
            core.peer_up(name, incarnation);
            false
        });
    }

    pub(crate) fn peer_is_python(&self, name: &Endpoint) {
        self.with(|core| {
            core.peer_is_python(name);
            false
        });
    }

    fn tick(&self) {
        let is_less = {
            let mut core = self.core.lock();
            core.at(self.start.elapsed());
            core.tick()
        };
        if is_less {
            self.changed.send_replace(());
        }
    }

    pub(crate) fn life_ended(&self, incarnation: u64) {
        self.with(|core| core.life_ended(incarnation));
    }

    pub(crate) fn peer_gone(&self, name: &Endpoint) {
        self.with(|core| core.peer_gone(name));
    }

    pub(crate) fn goodbye(&self) {
        self.with(|core| {
            core.goodbye();
            false
        });
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.switch.board.with(|core| core.withdraw(self.number));
    }
}

impl Register {
    pub(crate) fn new(port: Arc<Port>, service: impl Into<String>) -> Self {
        Self { port, service: service.into(), params: Ok(Value::Null), vnets: None }
    }

    /// What exactly is provided: usually a map or struct. Default null.
    pub fn params(mut self, params: impl Serialize + Send + 'static) -> Self {
        self.params = params.into_contents().get();
        self
    }

    /// The virtual networks to share the entry in; none keeps it in its router. Default: `local`, and those of the router.
    pub fn vnets(mut self, vnets: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.vnets = Some(vnets.into_iter().map(Into::into).collect());
        self
    }

    fn register(self) -> Result<Registration, RegisterError> {
        let switch = self.port.switch.clone();
        let addr = self.port.addr();
        let params = self.params?;
        if !self.port.is_open() || switch.stage() != Stage::Running {
            return Err(RegisterError::Closed { addr });
        }
        let mut number = 0;
        switch.board.with(|core| {
            let usual = || [LOCAL_VNET.to_string()].into_iter().chain(core.vnets().iter().cloned()).collect();
            let vnets = self.vnets.unwrap_or_else(usual);
            number = core.register(Entry { addr, service: self.service, params, vnets, perms: Value::Null });
            true
        });
        Ok(Registration { switch, number })
    }
}

/// # Errors
///
/// [`RegisterError::Closed`]: the connection or its router is; start another. [`RegisterError::Params`]: they cannot be encoded.
impl IntoFuture for Register {
    type Output = Result<Registration, RegisterError>;
    type IntoFuture = Ready<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        ready(self.register())
    }
}

impl Find {
    pub(crate) fn new(switch: Arc<Switch>, service: impl Into<String>) -> Self {
        Self { service: Some(service.into()), ..Self::everything(switch) }
    }

    pub(crate) fn everything(switch: Arc<Switch>) -> Self {
        Self { switch, service: None, params: Value::Null, vnet: None, pick: Pick::default(), is_repeatable: false }
    }

    /// Only entries with equal values on these keys; other keys may be there.
    pub fn params(mut self, params: impl Into<Value>) -> Self {
        self.params = params.into();
        self
    }

    /// Only entries of this virtual network.
    pub fn vnet(mut self, vnet: impl Into<String>) -> Self {
        self.vnet = Some(vnet.into());
        self
    }

    /// Those known now, nearest first: same router, same machine, network.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.switch.board.core.lock().find(self.service.as_deref(), &self.params, self.vnet.as_deref())
    }

    /// The nearest, or the one that [`pick`](Find::pick) says, as soon as one is known.
    ///
    /// # Errors
    ///
    /// [`FindError::Nobody`] in time, naming what is provided: start a provider, or correct the name.
    pub async fn first_within(self, limit: Duration) -> Result<Arc<Entry>, FindError> {
        let mut changed = self.switch.board.changed.subscribe();
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if let Some(entry) = self.picked().into_iter().next() {
                return Ok(entry);
            }
            // The sender lives in the router, which this holds: only the time can run out.
            if !matches!(tokio::time::timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
                let provided = self.switch.board.core.lock().services();
                return Err(FindError::Nobody { service: self.service.unwrap_or_default(), within: limit, provided });
            }
        }
    }
}

/// The agent on connection 1.
pub(crate) struct Directory {
    port: Option<Arc<Port>>,
    /// The endpoint that this router tries to be the hub at, and otherwise joins.
    hub: Option<Endpoint>,
    asked: Vec<(i64, Endpoint)>,
    last_round: Instant,
}

impl Directory {
    pub(crate) fn new(hub: Option<Endpoint>) -> Self {
        Self { port: None, hub, asked: Vec::new(), last_round: Instant::now() }
    }

    /// Tries to be the hub where nobody is, and to reach those that are not.
    fn seek(&mut self) {
        let Some(port) = &self.port else { return };
        let switch = &port.switch;
        if let Some(hub) = &self.hub
            && !switch.is_mine(hub)
            && !switch.board.core.lock().has_reached(hub)
        {
            seek_hub(switch, hub);
        }
        let missing = switch.board.core.lock().missing_hubs();
        for hub in missing {
            switch.reach(&hub);
        }
    }

    /// Says what the core has to say, and whenever a round has passed more to Python hubs.
    fn work(&mut self) {
        let Some(port) = self.port.clone() else { return };
        if self.last_round.elapsed() >= ROUND {
            self.last_round = Instant::now();
            port.switch.board.core.lock().round();
            if let Some(transport) = port.switch.transport() {
                transport.mend();
            }
        }
        port.switch.board.tick();
        self.send_outbox(&port);
    }

    fn send_outbox(&mut self, port: &Arc<Port>) {
        let outbox = port.switch.board.core.lock().take_outbox();
        for Outgoing { to, what } in outbox {
            let hub = to.net.clone().or_else(|| to.machine.clone());
            let subject = what.subject();
            let is_for_python = !matches!(what, What::Sync(_));
            let contents = match what {
                What::Sync(sync) => sync.into_contents(),
                What::Share(entries) => entries.into_contents(),
                What::AskVnets | What::AskEntries => ().into_contents(),
            };
            let mut msg = Msg::new(to, subject, contents);
            // A Rust directory knows its neighbour by where it listens; Python is told where it answers best.
            msg.from.net = port.switch.net_endpoint().filter(|_| msg.to.net.is_some() && !is_for_python);
            match (port.send(msg), hub) {
                (Ok(id), Some(hub)) => self.remember(id, hub),
                (Ok(_), None) => {}
                // What a neighbour misses now it hears when its link is up again.
                (Err(unsent), _) => tracing::debug!(reason = %unsent.reason, "a directory was not told"),
            }
        }
    }

    fn remember(&mut self, id: i64, hub: Endpoint) {
        if self.asked.len() >= ASKED {
            self.asked.remove(0);
        }
        self.asked.push((id, hub));
    }

    /// Which hub a reply answers for.
    fn answered(&mut self, reply_to: Option<i64>) -> Option<Endpoint> {
        let index = self.asked.iter().position(|(id, _)| Some(*id) == reply_to)?;
        Some(self.asked.remove(index).1)
    }

    fn register(switch: &Switch, msg: Msg, is_ours: bool) -> Handled {
        let from = msg.from().clone();
        let entry = match msg.contents::<Entry>() {
            Ok(entry) => entry,
            Err(error) => return msg.refuse(&error.to_string()),
        };
        let mut is_taken = true;
        switch.board.with(|core| {
            if is_ours {
                let is_new = !core.has_own(&entry);
                if is_new {
                    core.register(entry);
                }
                return is_new;
            }
            let changed = core.registered_by(&from, entry);
            is_taken = changed.is_some();
            changed == Some(true)
        });
        if is_taken { msg.reply(true) } else { msg.refuse("each router's directory takes what that router provides") }
    }

    /// Withdraws an entry that is the sender's. Answered with true, found or not, as the reference does.
    fn withdraw_entry(switch: &Switch, msg: Msg, is_ours: bool) -> Handled {
        let from = msg.from().clone();
        msg.answer(|entry: Entry| {
            let is_meant = |known: &Entry| {
                known.addr.connection == entry.addr.connection
                    && *known == Entry { addr: known.addr.clone(), ..entry.clone() }
            };
            switch.board.with(|core| {
                if is_ours { core.withdraw_entry(&entry) } else { core.withdrawn_by(&from, &entry.addr, is_meant) }
            });
            true
        })
    }

    /// The same for all entries of a connection.
    fn withdraw_addr(switch: &Switch, msg: Msg, is_ours: bool) -> Handled {
        let from = msg.from().clone();
        msg.answer(|addr: Addr| {
            let is_meant = |known: &Entry| known.addr.connection == addr.connection;
            switch.board.with(|core| match addr.connection {
                Some(number) if is_ours => core.forget(number),
                _ => core.withdrawn_by(&from, &addr, is_meant),
            });
            true
        })
    }

    fn get_entries(switch: &Switch, msg: Msg, is_ours: bool) -> Handled {
        let asked_at = msg.to().net.clone();
        msg.answer(|service: Value| {
            let service = match service {
                Value::Text(service) if !service.is_empty() => Some(service),
                _ => None,
            };
            let mut core = switch.board.core.lock();
            if service.is_none() && !is_ours {
                return core.answer_python(asked_at.as_ref());
            }
            let all = if is_ours {
                core.entries().iter().map(|entry| (**entry).clone()).collect()
            } else {
                core.for_python(asked_at.as_ref())
            };
            let is_meant = |entry: &Entry| service.as_ref().is_none_or(|service| entry.service == *service);
            all.into_iter().filter(is_meant).collect::<Vec<Entry>>().into_contents()
        })
    }

    /// A Python directory speaks to this one as to its hub: on the network it is asked back.
    fn joined_by(switch: &Switch, directory: &Addr) {
        let Some(net) = &directory.net else { return };
        let listens = !switch.is_dialed_by(net);
        switch.board.with(|core| {
            core.joined_by(directory, listens);
            false
        });
    }

    /// A Python directory that joined says what it has.
    fn guest_has(switch: &Switch, msg: Msg) -> Handled {
        match msg.contents::<Vec<Entry>>() {
            Ok(entries) => switch.board.with(|core| core.guest_has(msg.from(), entries)),
            Err(error) => tracing::warn!(from = %msg.from(), %error, "a directory's entries cannot be read"),
        }
        msg.handled()
    }

    fn shared(&mut self, switch: &Switch, msg: Msg) -> Handled {
        let Ok(entries) = msg.contents::<Vec<Entry>>() else {
            tracing::warn!(from = %msg.from(), "shared entries cannot be read");
            if !msg.is_reply() {
                self.complain(msg.from());
            }
            return msg.handled();
        };
        if msg.is_reply() {
            if let Some(hub) = self.answered(msg.reply_to()) {
                switch.board.with(|core| core.hub_has(&hub, msg.from(), entries));
            }
            return msg.handled();
        }
        Self::joined_by(switch, msg.from());
        switch.board.with(|core| core.shared_by(msg.from(), entries));
        let has = switch.board.core.lock().answer_python(msg.to().net.as_ref());
        msg.reply(has)
    }

    /// Says that what was shared cannot be read, as the reference does: as a message, not as a reply.
    fn complain(&self, to: &Addr) {
        let Some(port) = &self.port else { return };
        if let Err(unsent) = port.send(Msg::new(to.clone(), subject::BAD_ENTRIES, ().into_contents())) {
            tracing::debug!(reason = %unsent.reason, "nobody to complain to");
        }
    }

    fn synced(switch: &Switch, mut msg: Msg) -> Handled {
        match msg.take_contents::<Sync>() {
            Ok(sync) => {
                if let (None, Some(gateway)) = (&msg.from().net, &msg.from().machine) {
                    let entries = sync.news.iter().flat_map(|news| &news.added).map(|(_, _, entry)| &entry.addr);
                    let homes = sync.news.iter().filter(|news| news.view.is_network()).map(|news| &news.home);
                    let nets = entries.chain(homes).filter_map(|addr| addr.net.as_ref());
                    nets.for_each(|net| switch.heard_of(net, gateway));
                }
                switch.board.with(|core| core.heard(msg.from(), sync));
            }
            Err(error) => tracing::warn!(from = %msg.from(), %error, "a directory's state cannot be read"),
        }
        msg.handled()
    }

    /// Explains what is held, with the entries of a service or at an address.
    fn view(switch: &Switch, msg: Msg) -> Handled {
        let is_near = msg.from().net.is_none();
        msg.answer(|(service, addr): (Option<String>, Option<Addr>)| {
            let is_of = |entry: &Entry| {
                let is_there = |addr: &Addr| {
                    addr.machine == entry.addr.machine
                        && addr.connection.is_none_or(|number| entry.addr.connection == Some(number))
                };
                service.as_ref().is_some_and(|service| entry.service == *service) || addr.as_ref().is_some_and(is_there)
            };
            switch.board.core.lock().view(is_near, is_of)
        })
    }

    fn vnets(switch: &Switch, msg: Msg) -> Handled {
        if msg.is_reply() {
            let vnets = msg.contents().unwrap_or_default();
            switch.board.with(|core| {
                core.hub_serves(msg.from(), vnets);
                false
            });
            return msg.handled();
        }
        Self::joined_by(switch, msg.from());
        let vnets = switch.board.core.lock().vnets().to_vec();
        msg.reply(vnets)
    }
}

impl Actor for Directory {
    type Context = Context<Self>;
}

impl Agent for Directory {
    /// Looks for the hub from now on, and sends what the core has to say.
    fn started(&mut self, connection: Connection, ctx: &mut Context<Self>) {
        let switch = connection.port().switch.clone();
        self.port = Some(connection.port().clone());
        let ports = switch.clone();
        ctx.run_interval(LOOK, move |_, _| ports.tell_overdue());
        if switch.transport().is_none() {
            return;
        }
        self.seek();
        ctx.run_interval(RETRY, |directory, _| {
            directory.seek();
            directory.work();
        });
        let me = actix::AsyncContext::address(ctx);
        let wake = async move {
            loop {
                switch.board.work.notified().await;
                if me.send(Wake).await.is_err() {
                    return;
                }
            }
        };
        ctx.spawn(wake.into_actor(self));
    }
}

/// There may be something to send.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Wake;

/// The core has something to say.
impl Handler<Wake> for Directory {
    type Result = ();

    fn handle(&mut self, _: Wake, _: &mut Context<Self>) {
        self.work();
    }
}

/// Another directory, or a connection, asks or tells.
impl Handler<Msg> for Directory {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        let Some(switch) = self.port.as_ref().map(|port| port.switch.clone()) else { return msg.unhandled() };
        let from = msg.from();
        let is_ours = from.net.is_none()
            && from.connection.is_some()
            && from.machine.as_ref().is_none_or(|machine| switch.is_mine(machine));
        match msg.subject() {
            subject::SYNC_ENTRIES => Self::synced(&switch, msg),
            subject::GET_VIEW if !msg.is_reply() => Self::view(&switch, msg),
            subject::SHARE_ENTRIES => self.shared(&switch, msg),
            subject::GET_VNETS => Self::vnets(&switch, msg),
            subject::GET_ENTRIES if !msg.is_reply() => Self::get_entries(&switch, msg, is_ours),
            subject::GET_ENTRIES => Self::guest_has(&switch, msg),
            subject::REGISTER_ENTRY if !msg.is_reply() => Self::register(&switch, msg, is_ours),
            subject::UNREGISTER_ENTRY if !msg.is_reply() => Self::withdraw_entry(&switch, msg, is_ours),
            subject::UNREGISTER_ADDR if !msg.is_reply() => Self::withdraw_addr(&switch, msg, is_ours),
            subject::BAD_ENTRIES => {
                tracing::warn!(from = %msg.from(), "a directory could not read what it was told");
                msg.handled()
            }
            _ => msg.unhandled(),
        }
    }
}

/// Becomes the hub at an endpoint, or joins whoever is.
fn seek_hub(switch: &Switch, hub: &Endpoint) {
    let Some(transport) = switch.transport() else { return };
    match transport.listen(hub) {
        Ok(bound) => {
            tracing::info!(%bound, "this router is the hub");
            switch.listens_at(bound.clone());
            switch.board.with(|core| {
                core.leave(&bound);
                true
            });
            return;
        }
        Err(ListenError::InUse { .. }) => {}
        Err(error) => tracing::warn!(%error, "this router cannot be the hub"),
    }
    switch.board.join(hub.clone());
}

/// Whether a hub endpoint is one of the network.
pub(crate) fn is_network(hub: &Endpoint) -> bool {
    hub.scheme() == Scheme::Tcp
}

#[cfg(test)]
mod merge;
#[cfg(test)]
mod model;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traffic;
