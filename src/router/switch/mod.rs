//! What all parts of one router share: connections by number, links by endpoint, and the way of every message between them.
//!
//! Nothing here waits. Agents call [`Switch::post`] from their arbiters, the transport calls [`Switch::happened`] from its own threads, and a message
//! is put into the receiver's mailbox, or handed to the transport, by the thread that has it. Locks are taken in the order link, pipes, and none is
//! held while a message is delivered or reported.

mod arrivals;
mod links;
mod sessions;
mod weight;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockWriteGuard};
use smallvec::SmallVec;
use tokio::sync::{Notify, watch};

use crate::addr::{Addr, DIRECTORY, Endpoint};
use crate::config::Limits;
use crate::contents::Contents;
use crate::directory::Board;
use crate::failure::Reason;
use crate::hash::BySequence;
use crate::link::{Link, NotTaken};
use crate::msg::Msg;
use crate::port::Port;
use crate::router::clock::Clock;
use crate::router::counters::Counters;
use crate::router::names::{Came, Mode, Names, Route};
use crate::subject;
use crate::transport::{PipeId, Transport};
use crate::wire::{self, Head, Lent};
use arrivals::{Greets, PipeInfo};
use links::{LINKS, LINKS_FOR_REPORTS, Links, Peer};
use sessions::Sessions;
use weight::Scale;

/// Tells the routers of a process apart.
static NUMBER: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Most messages of a thread go where the one before went.
    static LAST: Cell<Option<Last>> = const { Cell::new(None) };
}

/// Where the last message of a thread went, which is so for as long as its router's names and links stay as they are.
struct Last {
    router: u64,
    era: u64,
    head: Arc<Head>,
    peer: Arc<Peer>,
}

pub(crate) struct Switch {
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    pub(crate) board: Board,
    incarnation: u64,
    number: u64,
    /// Grows with every change of names, links, pipes and ports, and when a session is forgotten.
    era: AtomicU64,
    clock: Arc<dyn Clock>,
    stage: AtomicU8,
    names: RwLock<Names>,
    /// The endpoint that this router is named by on its machine, once it listens there.
    machine: OnceLock<Endpoint>,
    ports: RwLock<HashMap<u64, Arc<Port>, BySequence>>,
    next_port: AtomicU64,
    transport: OnceLock<Arc<dyn Transport>>,
    links: RwLock<Links>,
    pipes: Mutex<HashMap<PipeId, PipeInfo, BySequence>>,
    sessions: Mutex<Sessions>,
    scale: Arc<Scale>,
    /// By the number of the link, which some name may not lead to any more.
    timers: Mutex<BTreeMap<(Instant, u64), Weak<Peer>>>,
    /// The earliest timer is new.
    pub(crate) rearmed: Notify,
    /// An agent was told to shut the router down.
    pub(crate) shutdown_asked: Notify,
    ended: watch::Sender<bool>,
}

/// Kept for the next message of this thread.
fn remember(last: Last) {
    // A thread that ends sends without.
    let _ = LAST.try_with(|place| place.set(Some(last)));
}

/// A message that was not sent.
#[derive(Debug)]
pub(crate) struct Unsent {
    pub(crate) msg: Msg,
    pub(crate) reason: Reason,
    /// Told when something leaves the queue that had no room.
    pub(crate) room: Option<Arc<Notify>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    Running,
    /// Only answers are sent.
    Draining,
    Stopped,
}

impl Unsent {
    #[cold]
    pub(crate) fn because(msg: Msg, reason: Reason) -> Self {
        Self { msg, reason, room: None }
    }

    #[cold]
    pub(crate) fn full(msg: Msg, room: Arc<Notify>) -> Self {
        Self { msg, reason: Reason::MailboxFull, room: Some(room) }
    }
}

/// A link takes a message, and its peer is noted as one that somebody may wait for if it has no room.
fn take(
    peer: &Peer,
    link: &mut Link,
    outgoing: &mut Option<Msg>,
    contents: Lent<'_>,
    now: Instant,
) -> Result<(), NotTaken> {
    let taken = link.take(outgoing, contents, now);
    if taken.as_ref().is_err_and(|not_taken| not_taken.full) {
        peer.was_full.store(true, Ordering::SeqCst);
    }
    taken
}

/// A message that could not be encoded, or was not taken.
fn unsent(
    peer: &Peer,
    mut msg: Msg,
    contents: Contents,
    encoded: Result<(), wire::EncodeError>,
    taken: Result<(), NotTaken>,
) -> Unsent {
    msg.contents = contents;
    match (encoded, taken) {
        (Err(error), _) => Unsent::because(msg, Reason::NotEncodable(error.to_string())),
        (_, Err(NotTaken { reason, full })) => Unsent { msg, reason, room: full.then(|| peer.room.clone()) },
        (Ok(()), Ok(())) => unreachable!("it was taken"),
    }
}

impl Switch {
    pub(crate) fn new(mode: Mode, limits: Limits, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new_cyclic(|switch| Self {
            limits,
            counters: Counters::default(),
            board: Board::default(),
            incarnation: clock.draw(),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            era: AtomicU64::new(0),
            clock,
            stage: AtomicU8::new(Stage::Running as u8),
            names: RwLock::new(Names::new(mode)),
            machine: OnceLock::new(),
            ports: RwLock::default(),
            next_port: AtomicU64::new(DIRECTORY),
            transport: OnceLock::new(),
            links: RwLock::default(),
            pipes: Mutex::default(),
            sessions: Mutex::new(Sessions::new(switch.clone())),
            scale: Arc::default(),
            timers: Mutex::default(),
            rearmed: Notify::new(),
            shutdown_asked: Notify::new(),
            ended: watch::channel(false).0,
        })
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// A number of 63 bits that nobody foresees.
    pub(crate) fn draw(&self) -> u64 {
        self.clock.draw()
    }

    // ---- who is here -----------------------------------------------------------------------

    /// Opens the next connection: 1 is the directory's, 2 is kept for a gateway, users have 3 and up.
    pub(crate) fn open_port(self: &Arc<Self>) -> Arc<Port> {
        let number = self.next_port.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |number| {
            Some(if number == DIRECTORY { 3 } else { number + 1 })
        });
        let port = Port::new(number.unwrap_or_else(|number| number), self.clone());
        self.ports_mut().insert(port.number, port.clone());
        port
    }

    /// Frees a connection number, and takes what it provides out of the directory.
    pub(crate) fn forget(&self, number: u64) {
        let port = self.ports_mut().remove(&number);
        drop(port);
        self.board.forget(number);
    }

    pub(crate) fn is_open(&self, number: u64) -> bool {
        self.ports.read().contains_key(&number)
    }

    /// In the order of their numbers, so that a simulation is like the other.
    pub(crate) fn ports(&self) -> Vec<Arc<Port>> {
        let mut ports: Vec<_> = self.ports.read().values().cloned().collect();
        ports.sort_unstable_by_key(|port| port.number);
        ports
    }

    pub(crate) fn own_addr(&self, number: u64) -> Addr {
        Addr { net: None, machine: self.names.read().machine().cloned(), connection: Some(number) }
    }

    /// A router of this machine leads to an address of the network.
    pub(crate) fn heard_of(&self, net: &Endpoint, gateway: &Endpoint) {
        if self.names.read().is_news(net, gateway) {
            self.names_mut().heard_of(net, gateway);
        }
    }

    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.names.read().all()
    }

    /// The tcp endpoint that peers on the network know this router by, if it listens at one.
    pub(crate) fn net_endpoint(&self) -> Option<Endpoint> {
        self.names.read().net().cloned()
    }

    pub(crate) fn is_mine(&self, endpoint: &Endpoint) -> bool {
        self.names.read().is_mine(endpoint)
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Running,
            1 => Stage::Draining,
            _ => Stage::Stopped,
        }
    }

    fn enter_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Becomes true when the router has ended.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    pub(crate) fn ask_shutdown(&self) {
        self.shutdown_asked.notify_one();
    }

    // ---- messages from here ----------------------------------------------------------------

    /// Fills in where an answer goes, as the receiver needs it; what a reply already says stays.
    pub(crate) fn fill_reply_addr(&self, msg: &mut Msg, number: u64) {
        let machine = self.named_to(&msg.to).or(msg.from.machine.as_ref());
        if msg.from.connection != Some(number) || msg.from.machine.as_ref() != machine {
            let machine = machine.cloned();
            let from = &mut msg.from;
            (from.machine, from.connection) = (machine, Some(number));
        }
    }

    /// How this router is named on its machine to who is at `to`: not at all where that is here.
    pub(crate) fn named_to(&self, to: &Addr) -> Option<&Endpoint> {
        self.machine.get().filter(|_| to.machine.is_some() || to.net.is_some())
    }

    /// Sends a message of a connection of this router. It comes back, with the reason, if that is known at once.
    pub(crate) fn post(&self, msg: Msg) -> Result<(), Unsent> {
        match self.stage() {
            Stage::Running => {}
            Stage::Draining if msg.is_reply() => {}
            Stage::Draining | Stage::Stopped => return Err(Unsent::because(msg, Reason::ShuttingDown)),
        }
        self.dispatch(msg, Came::Here)
    }

    /// Tells the sender of a message that it was not delivered, in the name of this router.
    #[cold]
    pub(crate) fn report(&self, msg: &mut Msg, reason: Reason) {
        let place = self.names.read().machine().map_or("router", |machine| machine.short()).to_string();
        self.report_as(msg, reason, place);
    }

    /// The same in the name of a connection.
    #[cold]
    pub(crate) fn report_from(&self, msg: &mut Msg, reason: Reason, number: u64) {
        self.report_as(msg, reason, self.own_addr(number).to_string());
    }

    #[cold]
    fn report_as(&self, msg: &mut Msg, reason: Reason, place: String) {
        tracing::warn!(?msg, %reason, %place, "not delivered");
        self.counters.undelivered();
        let Some(report) = msg.undelivered(reason, place) else {
            self.counters.untold();
            return;
        };
        if !self.send_report(report, msg.debt.life()) {
            // But the router that it came from knows that there was one.
            msg.debt.unreported();
        }
    }

    /// Nobody is told that a report did not arrive: that would have no end. False if it did not. One about a message of another router's life goes back over the link to that, whose receipts rely on it,
    /// by whichever name its sender is known.
    #[cold]
    pub(crate) fn send_report(&self, report: Msg, life: Option<u64>) -> bool {
        let is_there = || matches!(self.names.read().route(&report.to, Came::Here), Route::There(_));
        let back = life.and_then(|life| self.links.read().to(life).cloned()).filter(|_| is_there());
        let sent = match back {
            Some(peer) => self.hand_to(&peer, report),
            None => self.dispatch(report, Came::Here),
        };
        if let Err(unsent) = &sent {
            self.counters.untold();
            tracing::warn!(msg = ?unsent.msg, reason = %unsent.reason, "a report did not arrive");
        }
        sent.is_ok()
    }

    /// Tells the senders of what agents of this router have not got to in time.
    pub(crate) fn tell_overdue(&self) {
        let now = self.clock.now();
        for port in self.ports() {
            port.tell_overdue(now);
        }
    }

    // ---- the way of a message --------------------------------------------------------------

    fn dispatch(&self, msg: Msg, came: Came) -> Result<(), Unsent> {
        if came == Came::Here
            && let Some(last) = self.last(msg.head())
        {
            let sent = self.hand_to(&last.peer, msg);
            remember(last);
            return sent;
        }
        // Before the look at what it may change.
        let era = self.era.load(Ordering::Acquire);
        let route = match &msg.to {
            Addr { net: None, machine: None, connection: Some(number) } => Route::Here(*number),
            to => self.names.read().route(to, came),
        };
        match route {
            Route::Here(number) => self.deliver(number, msg),
            Route::There(endpoint) => self.pass_on(&endpoint, msg, came, era),
            Route::Nowhere(reason) => Err(Unsent::because(msg, reason)),
        }
    }

    fn port(&self, number: u64) -> Option<Arc<Port>> {
        self.ports.read().get(&number).cloned()
    }

    fn deliver(&self, number: u64, msg: Msg) -> Result<(), Unsent> {
        match self.port(number) {
            Some(port) => port.deliver(msg),
            None => Err(Unsent::because(msg, Reason::NoSuchConnection)),
        }
    }

    fn pass_on(&self, endpoint: &Endpoint, mut msg: Msg, came: Came, era: u64) -> Result<(), Unsent> {
        let peer = match self.next_hop(endpoint, &mut msg, came) {
            Ok(peer) => peer,
            Err(reason) => return Err(Unsent::because(msg, reason)),
        };
        let last = (came == Came::Here).then(|| Last {
            router: self.number,
            era,
            head: msg.head().clone(),
            peer: peer.clone(),
        });
        let sent = self.hand_to(&peer, msg);
        if let Some(last) = last {
            remember(last);
        }
        sent
    }

    /// The link to `endpoint`, for a message that was counted there.
    fn next_hop(&self, endpoint: &Endpoint, msg: &mut Msg, came: Came) -> Result<Arc<Peer>, Reason> {
        if came != Came::Here {
            msg.count_hop(self.limits.hops)?;
        }
        let most = if msg.subject == subject::MSG_NOT_DELIVERED { LINKS_FOR_REPORTS } else { LINKS };
        self.peer(endpoint, most).ok_or_else(|| Reason::NoRoute(format!("this router has {most} links already")))
    }

    /// Where the last message of this thread went, if it went where one with this outside goes.
    fn last(&self, head: &Arc<Head>) -> Option<Last> {
        let last = LAST.try_with(Cell::take).ok().flatten()?;
        let is_so = last.router == self.number && last.era == self.era.load(Ordering::Acquire);
        let goes_there = |last: &Last| Arc::ptr_eq(&last.head, head) || last.head.to == head.to;
        Some(last).filter(|last| is_so && goes_there(last))
    }

    fn hand_to(&self, peer: &Arc<Peer>, mut msg: Msg) -> Result<(), Unsent> {
        let contents = std::mem::replace(&mut msg.contents, Contents::null());
        let mut outgoing = Some(msg);
        let mut taken = Ok(());
        let encoded = contents.lend(|lent| {
            taken = self.push(peer, |link, now| take(peer, link, &mut outgoing, lent, now));
        });
        match outgoing {
            None => Ok(()),
            Some(msg) => Err(unsent(peer, msg, contents, encoded, taken)),
        }
    }

    /// Hands over messages that were passed on in a row, in one step; those that are not taken come back.
    fn hand_all_to(&self, peer: &Arc<Peer>, msgs: &mut SmallVec<[Msg; 2]>) -> Vec<Unsent> {
        let mut refused = Vec::new();
        self.push(peer, |link, now| {
            for mut msg in msgs.drain(..) {
                let contents = std::mem::replace(&mut msg.contents, Contents::null());
                let mut outgoing = Some(msg);
                let mut taken = Ok(());
                let encoded = contents.lend(|lent| taken = take(peer, link, &mut outgoing, lent, now));
                refused.extend(outgoing.map(|msg| unsent(peer, msg, contents, encoded, taken)));
            }
        });
        refused
    }

    // ---- what changes seldom ---------------------------------------------------------------

    fn names_mut(&self) -> RwLockWriteGuard<'_, Names> {
        let names = self.names.write();
        self.era.fetch_add(1, Ordering::Release);
        names
    }

    fn ports_mut(&self) -> RwLockWriteGuard<'_, HashMap<u64, Arc<Port>, BySequence>> {
        let ports = self.ports.write();
        self.era.fetch_add(1, Ordering::Release);
        ports
    }

    fn pipes_mut(&self) -> MutexGuard<'_, HashMap<PipeId, PipeInfo, BySequence>> {
        let pipes = self.pipes.lock();
        self.era.fetch_add(1, Ordering::Release);
        pipes
    }

    fn links_mut(&self) -> RwLockWriteGuard<'_, Links> {
        let links = self.links.write();
        self.era.fetch_add(1, Ordering::Release);
        links
    }

    // ---- the end ---------------------------------------------------------------------------

    /// Whether every link has sent what it had, and Python peers have had `linger` to read our hello.
    pub(crate) fn is_drained(&self, linger: std::time::Duration) -> bool {
        let now = self.clock.now();
        let is_fresh = |greets: &Greets| greets.since.is_some_and(|since| now - since < linger);
        if self.pipes.lock().values().filter_map(|info| info.greets.as_ref()).any(is_fresh) {
            return false;
        }
        self.peers().iter().all(|peer| {
            let guarded = peer.link.lock();
            guarded.link.is_idle()
                && guarded.link.is_hushed()
                && guarded.link.open_towards_python().is_none_or(|since| now - since >= linger)
        })
    }

    /// Takes answers alone from now on, and tells every peer.
    pub(crate) fn close_down(&self) {
        self.enter_stage(Stage::Draining);
        for peer in self.peers() {
            self.with(&peer, crate::link::Link::close_down);
        }
    }

    /// All links, also those whose name leads to another by now: each has a session. In the order of their numbers, so that a simulation is like the other.
    fn peers(&self) -> Vec<Arc<Peer>> {
        let mut peers: Vec<_> = self.links.read().by_session.values().cloned().collect();
        peers.sort_unstable_by_key(|peer| peer.number);
        peers
    }

    /// Whether agents have dealt with everything that they were sent, and other routers with what they were sent from here or over here.
    pub(crate) fn is_handled(&self) -> bool {
        self.ports.read().values().all(|port| port.is_empty())
            && self.peers().iter().all(|peer| peer.link.lock().link.is_settled())
    }

    /// Stops every agent and closes every connection.
    pub(crate) fn stop_ports(&self) -> Vec<Arc<Port>> {
        let ports = self.ports();
        for port in &ports {
            port.fail_requests(&Reason::ShuttingDown, "this router", |_| true);
            port.stop();
            port.close(Reason::ShuttingDown);
        }
        ports
    }

    /// Reports what still waits to be sent, and lets go of everything.
    pub(crate) fn end(&self) {
        for peer in self.peers() {
            self.with(&peer, |link, _, acts| link.give_up(Reason::ShuttingDown, acts));
        }
        self.enter_stage(Stage::Stopped);
        let links = std::mem::take(&mut *self.links_mut());
        // Not under its lock: what is owed for the last messages is told to links.
        drop(links);
        self.pipes_mut().clear();
        self.timers.lock().clear();
        self.sessions.lock().clear();
        self.ended.send_replace(true);
    }
}
