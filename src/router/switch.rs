//! What all parts of one router share: connections by number, links by endpoint, and the way of every message between them.
//!
//! Nothing here waits. Agents call [`Switch::post`] from their arbiters, the transport calls [`Switch::happened`] from its own threads, and a message
//! is put into the receiver's mailbox, or handed to the transport, by the thread that has it. Locks are taken in the order link, pipes, and none is
//! held while a message is delivered or reported.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::addr::{Addr, DIRECTORY, Endpoint, Scheme};
use crate::config::Limits;
use crate::directory::Board;
use crate::failure::Reason;
use crate::link::hello::{self, Greeting};
use crate::link::inflow::{Inflow, Verdict};
use crate::link::{Act, Link, Me, Way};
use crate::msg::Msg;
use crate::port::Port;
use crate::router::counters::Counters;
use crate::router::names::{Came, Mode, Names, Route};
use crate::transport::{Event, Origin, PipeId, SendError, Transport};
use crate::wire::{self, Envelope, FrameKind, Profile, Refused};

/// Peers that a router keeps links to. Default 4,096: far above any network this is for, and each costs a few kilobytes.
const LINKS: usize = 4096;
/// Sessions of peers that a router remembers. Default 8,192: two for each link.
const INFLOWS: usize = 8192;

pub(crate) struct Switch {
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    pub(crate) board: Board,
    incarnation: u64,
    stage: AtomicU8,
    names: RwLock<Names>,
    ports: RwLock<HashMap<u64, Arc<Port>>>,
    next_port: AtomicU64,
    transport: OnceLock<Arc<dyn Transport>>,
    links: RwLock<Links>,
    pipes: Mutex<HashMap<PipeId, PipeInfo>>,
    inflows: Mutex<HashMap<(u64, u64), Inflow>>,
    timers: Mutex<BTreeSet<(Instant, Endpoint)>>,
    /// The earliest timer is new.
    pub(crate) rearmed: Notify,
    /// An agent was told to shut the router down.
    pub(crate) shutdown_asked: Notify,
    ended: watch::Sender<bool>,
}

/// A message that was not sent.
#[derive(Debug)]
pub(crate) struct Unsent {
    pub(crate) msg: Box<Msg>,
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

#[derive(Default)]
struct Links {
    by_name: HashMap<Endpoint, Arc<Peer>>,
    by_incarnation: HashMap<u64, Arc<Peer>>,
    by_session: HashMap<u64, Arc<Peer>>,
}

/// A link and what its owner needs beside it.
struct Peer {
    name: Endpoint,
    link: Mutex<Guarded>,
    room: Arc<Notify>,
}

struct Guarded {
    link: Link,
    session: u64,
    armed: Option<Instant>,
}

struct PipeInfo {
    way: Option<Way>,
    came: Came,
    peer: Option<Arc<Peer>>,
    local: Option<Endpoint>,
    remote: Option<Endpoint>,
}

impl Unsent {
    pub(crate) fn because(msg: Msg, reason: Reason) -> Self {
        Self { msg: Box::new(msg), reason, room: None }
    }

    pub(crate) fn full(msg: Msg, room: Arc<Notify>) -> Self {
        Self { msg: Box::new(msg), reason: Reason::MailboxFull, room: Some(room) }
    }
}

impl Switch {
    pub(crate) fn new(mode: Mode, limits: Limits, incarnation: u64) -> Arc<Self> {
        Arc::new(Self {
            limits,
            counters: Counters::default(),
            board: Board::default(),
            incarnation,
            stage: AtomicU8::new(Stage::Running as u8),
            names: RwLock::new(Names::new(mode)),
            ports: RwLock::default(),
            next_port: AtomicU64::new(DIRECTORY),
            transport: OnceLock::new(),
            links: RwLock::default(),
            pipes: Mutex::default(),
            inflows: Mutex::default(),
            timers: Mutex::default(),
            rearmed: Notify::new(),
            shutdown_asked: Notify::new(),
            ended: watch::channel(false).0,
        })
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    // ---- who is here -----------------------------------------------------------------------

    /// Opens the next connection: 1 is the directory's, 2 is kept for a gateway, users have 3 and up.
    pub(crate) fn open_port(
        self: &Arc<Self>,
    ) -> (Arc<Port>, tokio::sync::mpsc::Receiver<crate::failure::NotDelivered>) {
        let number = self.next_port.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |number| {
            Some(if number == DIRECTORY { 3 } else { number + 1 })
        });
        let (port, reports) = Port::new(number.unwrap_or_else(|number| number), self.clone());
        self.ports.write().insert(port.number, port.clone());
        (port, reports)
    }

    /// Frees a connection number, and takes what it provides out of the directory.
    pub(crate) fn forget(&self, number: u64) {
        let port = self.ports.write().remove(&number);
        drop(port);
        self.board.forget(number);
    }

    pub(crate) fn is_open(&self, number: u64) -> bool {
        self.ports.read().contains_key(&number)
    }

    pub(crate) fn ports(&self) -> Vec<Arc<Port>> {
        self.ports.read().values().cloned().collect()
    }

    pub(crate) fn own_addr(&self, number: u64) -> Addr {
        Addr { net: None, machine: self.names.read().machine().cloned(), connection: Some(number) }
    }

    /// A router of this machine leads to an address of the network.
    pub(crate) fn heard_of(&self, net: &Endpoint, gateway: &Endpoint) {
        self.names.write().heard_of(net, gateway);
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

    pub(crate) fn enter_stage(&self, stage: Stage) {
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
        msg.from.connection = Some(number);
        if msg.to.machine.is_some() || msg.to.net.is_some() {
            msg.from.machine = self.names.read().machine().cloned();
        }
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
    pub(crate) fn report(&self, msg: &Msg, reason: Reason) {
        let place = self.names.read().machine().map_or("router", |machine| machine.short()).to_string();
        self.report_as(msg, reason, place);
    }

    /// The same in the name of a connection.
    pub(crate) fn report_from(&self, msg: &Msg, reason: Reason, number: u64) {
        self.report_as(msg, reason, self.own_addr(number).to_string());
    }

    fn report_as(&self, msg: &Msg, reason: Reason, place: String) {
        tracing::warn!(?msg, %reason, %place, "not delivered");
        self.counters.undelivered();
        let Some(report) = msg.undelivered(reason, place) else {
            self.counters.untold();
            return;
        };
        // Nobody is told that a report did not arrive: that would have no end.
        if let Err(unsent) = self.dispatch(report, Came::Here) {
            self.counters.untold();
            tracing::warn!(msg = ?unsent.msg, reason = %unsent.reason, "a report did not arrive");
        }
    }

    // ---- the way of a message --------------------------------------------------------------

    fn dispatch(&self, msg: Msg, came: Came) -> Result<(), Unsent> {
        let route = match &msg.to {
            Addr { net: None, machine: None, connection: Some(number) } => Route::Here(*number),
            to => self.names.read().route(to, came),
        };
        match route {
            Route::Here(number) => self.deliver(number, msg),
            Route::There(endpoint) => self.pass_on(&endpoint, msg, came),
            Route::Nowhere(reason) => Err(Unsent::because(msg, reason)),
        }
    }

    fn deliver(&self, number: u64, msg: Msg) -> Result<(), Unsent> {
        let port = self.ports.read().get(&number).cloned();
        match port {
            Some(port) => port.deliver(msg),
            None => Err(Unsent::because(msg, Reason::NoSuchConnection)),
        }
    }

    fn pass_on(&self, endpoint: &Endpoint, mut msg: Msg, came: Came) -> Result<(), Unsent> {
        if came != Came::Here
            && let Err(reason) = wire::count_hop(&mut msg.meta, self.limits.hops)
        {
            return Err(Unsent::because(msg, reason));
        }
        let envelope = match msg.envelope() {
            Ok(envelope) => envelope,
            Err(error) => return Err(Unsent::because(msg, Reason::NotEncodable(error.to_string()))),
        };
        let Some(peer) = self.peer(endpoint) else {
            return Err(Unsent::because(msg, Reason::NoRoute(format!("this router has {LINKS} links already"))));
        };
        match self.with(&peer, |link, now, acts| link.push(envelope, now, acts)) {
            Ok(()) => Ok(()),
            Err(not_taken) if not_taken.full => Err(Unsent::full(msg, peer.room.clone())),
            Err(not_taken) => Err(Unsent::because(msg, not_taken.reason)),
        }
    }

    /// Makes sure that a link leads to `endpoint`, without a message: the directory is told who is there, or that nobody is.
    pub(crate) fn reach(&self, endpoint: &Endpoint) {
        if let Some(peer) = self.peer(endpoint) {
            self.with(&peer, |link, now, acts| link.reach(now, acts));
        }
    }

    // ---- links -----------------------------------------------------------------------------

    /// The link to the peer at `endpoint`, made if there is none; none if there are too many.
    fn peer(&self, endpoint: &Endpoint) -> Option<Arc<Peer>> {
        if let Some(peer) = self.links.read().by_name.get(endpoint) {
            return Some(peer.clone());
        }
        let accepted = self.accepted_from(endpoint);
        let mut links = self.links.write();
        if let Some(peer) = links.by_name.get(endpoint) {
            return Some(peer.clone());
        }
        if links.by_name.len() >= LINKS {
            links.sweep();
        }
        if links.by_name.len() >= LINKS {
            return None;
        }
        let me = Me {
            incarnation: self.incarnation,
            message: self.limits.message,
            window: self.limits.link,
            introduction: self.limits.introduction,
        };
        let dial = accepted.is_none().then(|| endpoint.clone());
        let mut link = Link::new(me, endpoint.clone(), dial, random(), Instant::now());
        if let Some(way) = accepted {
            link.reached_by(way);
        }
        let session = link.session();
        let peer = Arc::new(Peer {
            name: endpoint.clone(),
            link: Mutex::new(Guarded { link, session, armed: None }),
            room: Arc::default(),
        });
        links.by_name.insert(endpoint.clone(), peer.clone());
        links.by_session.insert(session, peer.clone());
        Some(peer)
    }

    /// The pipe that a peer which cannot be dialed made to us, by our name for it.
    fn accepted_from(&self, remote: &Endpoint) -> Option<Way> {
        if remote.scheme() != Scheme::Tcp {
            return None;
        }
        let pipes = self.pipes.lock();
        let info = pipes.values().find(|info| info.remote.as_ref() == Some(remote))?;
        info.way.clone().filter(|way| way.accepted)
    }

    /// Lets a link decide, and does what it says.
    fn with<R>(&self, peer: &Arc<Peer>, decide: impl FnOnce(&mut Link, Instant, &mut Vec<Act>) -> R) -> R {
        let mut acts = Vec::new();
        let new_session;
        let result = {
            let mut guarded = peer.link.lock();
            let result = decide(&mut guarded.link, Instant::now(), &mut acts);
            // Dialed under the lock: the link must know its pipe before anything happens on it.
            acts.retain(|act| match act {
                Act::Dial(endpoint) => {
                    self.dial(peer, &mut guarded.link, endpoint);
                    false
                }
                _ => true,
            });
            self.arm(peer, &mut guarded);
            let session = guarded.link.session();
            new_session = (guarded.session != session).then_some((guarded.session, session));
            guarded.session = session;
            result
        };
        if let Some((old, new)) = new_session {
            let mut links = self.links.write();
            links.by_session.remove(&old);
            links.by_session.insert(new, peer.clone());
        }
        for act in acts {
            self.carry_out(peer, act);
        }
        peer.room.notify_waiters();
        result
    }

    fn dial(&self, peer: &Arc<Peer>, link: &mut Link, endpoint: &Endpoint) {
        let Some(transport) = self.transport.get() else { return };
        let mut pipes = self.pipes.lock();
        let pipe = transport.dial(endpoint);
        let came = came_over(endpoint);
        pipes.insert(pipe, PipeInfo { way: None, came, peer: Some(peer.clone()), local: None, remote: None });
        link.dialing(pipe);
    }

    fn carry_out(&self, peer: &Arc<Peer>, act: Act) {
        match act {
            Act::Send(pipe, frame) => self.send(peer, pipe, frame),
            Act::Close(pipe) => {
                if let Some(transport) = self.transport.get() {
                    transport.close(pipe);
                }
            }
            Act::Lost(envelope, reason) => self.report(&Msg::of(*envelope), reason),
            Act::Up(incarnation) => {
                tracing::debug!(peer = %peer.name, incarnation, "a Rust router is there");
                self.links.write().by_incarnation.insert(incarnation, peer.clone());
                self.board.peer_up(&peer.name, incarnation);
            }
            Act::Python => self.board.peer_is_python(&peer.name),
            Act::Gone(reason) => {
                tracing::debug!(peer = %peer.name, %reason, "a router is gone");
                self.peer_gone(peer, &reason);
            }
            Act::Dial(_) => unreachable!("dialed under the lock"),
        }
    }

    fn send(&self, peer: &Arc<Peer>, pipe: PipeId, frame: Bytes) {
        let Some(transport) = self.transport.get() else { return };
        let refused = match transport.send(pipe, frame) {
            Ok(()) => return,
            Err(SendError::Gone(frame)) => frame,
            Err(SendError::Busy(frame)) => {
                tracing::error!(?pipe, "a frame was sent before the previous one had left");
                frame
            }
        };
        // `Closed` follows, or has been: the link sends it on its next pipe, or reports it.
        self.with(peer, |link, now, acts| link.bounced(&refused, now, acts));
    }

    fn peer_gone(&self, peer: &Arc<Peer>, reason: &Reason) {
        let now = peer.link.lock().link.incarnation();
        self.links
            .write()
            .by_incarnation
            .retain(|incarnation, other| !Arc::ptr_eq(other, peer) || Some(*incarnation) == now);
        let names = self.links.read().names_of(peer);
        // By the way that a message takes: over a gateway, and not to a namesake on another machine.
        let lost = |to: &Addr| matches!(self.names.read().route(to, Came::Here), Route::There(endpoint) if names.contains(&endpoint));
        for port in self.ports() {
            port.fail_requests(reason, peer.name.short(), lost);
        }
        for name in &names {
            self.board.peer_gone(name);
        }
    }

    // ---- time ------------------------------------------------------------------------------

    fn arm(&self, peer: &Arc<Peer>, guarded: &mut Guarded) {
        let deadline = guarded.link.deadline();
        // A timer that comes too early costs one look; moving it with every frame would cost more.
        if deadline == guarded.armed || guarded.armed.zip(deadline).is_some_and(|(armed, deadline)| armed <= deadline) {
            return;
        }
        let mut timers = self.timers.lock();
        if let Some(before) = guarded.armed {
            timers.remove(&(before, peer.name.clone()));
        }
        guarded.armed = deadline;
        if let Some(deadline) = deadline {
            timers.insert((deadline, peer.name.clone()));
            if timers.first().is_some_and(|(first, _)| *first == deadline) {
                self.rearmed.notify_one();
            }
        }
    }

    /// When [`Switch::tick`] has something to do.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.lock().first().map(|(at, _)| *at)
    }

    pub(crate) fn tick(&self, now: Instant) {
        loop {
            let due = {
                let mut timers = self.timers.lock();
                match timers.first() {
                    Some((at, _)) if *at <= now => timers.pop_first(),
                    _ => None,
                }
            };
            let Some((at, name)) = due else { return };
            let Some(peer) = self.links.read().by_name.get(&name).cloned() else { continue };
            self.with_armed(&peer, at);
        }
    }

    fn with_armed(&self, peer: &Arc<Peer>, at: Instant) {
        {
            let mut guarded = peer.link.lock();
            if guarded.armed == Some(at) {
                guarded.armed = None;
            }
        }
        self.with(peer, |link, now, acts| link.tick(now, acts));
    }

    // ---- what the transport tells ----------------------------------------------------------

    /// The transport in use from now on.
    pub(crate) fn use_transport(&self, transport: Arc<dyn Transport>) {
        if self.transport.set(transport).is_err() {
            tracing::error!("a router has one transport");
        }
    }

    pub(crate) fn transport(&self) -> Option<&Arc<dyn Transport>> {
        self.transport.get()
    }

    pub(crate) fn listens_at(&self, endpoint: Endpoint) {
        self.names.write().listens_at(endpoint);
    }

    /// Takes an event of the transport, on the transport's thread.
    pub(crate) fn happened(&self, event: Event) {
        match event {
            Event::Opened { pipe, origin, local, remote, .. } => self.opened(pipe, &origin, local, remote),
            Event::DialFailed { pipe, error } => {
                let info = self.pipes.lock().remove(&pipe);
                if let Some(peer) = info.and_then(|info| info.peer) {
                    tracing::debug!(peer = %peer.name, %error, "dial failed");
                    self.with(&peer, |link, now, acts| link.dial_failed(pipe, &error, now, acts));
                }
            }
            Event::Received { pipe, frame } => self.received(pipe, &frame),
            Event::Sent { pipe } => {
                if let Some(peer) = self.peer_of(pipe) {
                    self.with(&peer, |link, now, acts| link.sent(pipe, now, acts));
                }
            }
            Event::Closed { pipe } => self.closed(pipe),
        }
    }

    fn opened(&self, pipe: PipeId, origin: &Origin, local: Option<Endpoint>, remote: Option<Endpoint>) {
        let (accepted, came) = match origin {
            Origin::Dialed(endpoint) => (false, came_over(endpoint)),
            Origin::Accepted(_) => (true, if remote.is_some() { Came::Tcp } else { Came::Ipc }),
        };
        let way = self.way(pipe, accepted, came, local.as_ref());
        if let (false, Some(local)) = (accepted, &local) {
            self.names.write().add_pipe(local.clone());
        }
        let peer = {
            let mut pipes = self.pipes.lock();
            let info = pipes.entry(pipe).or_insert(PipeInfo { way: None, came, peer: None, local: None, remote: None });
            info.way.clone_from(&way);
            info.local = local;
            info.remote = remote;
            info.peer.clone()
        };
        if let (Some(peer), Some(way)) = (peer, way) {
            self.with(&peer, |link, now, acts| link.opened(way, now, acts));
        }
    }

    /// How the peer at the other end of a pipe is told to answer.
    fn way(&self, pipe: PipeId, accepted: bool, came: Came, local: Option<&Endpoint>) -> Option<Way> {
        let names = self.names.read();
        if came != Came::Tcp {
            let claimed = names.machine()?.clone();
            return Some(Way { pipe, accepted, claimed, listens: true, net: None });
        }
        let listening = names.net().and_then(|net| reachable(net, local));
        let listens = listening.is_some();
        let claimed = listening.or_else(|| local.cloned())?;
        // Named by our end of the pipe, Python answers on the pipe. To a listening endpoint it dials, and loses the first answer.
        let own_end = local.filter(|_| !accepted).unwrap_or(&claimed).clone();
        Some(Way { pipe, accepted, claimed, listens, net: Some(own_end) })
    }

    fn closed(&self, pipe: PipeId) {
        let Some(info) = self.pipes.lock().remove(&pipe) else { return };
        if let Some(local) = info.local.filter(|_| info.way.as_ref().is_some_and(|way| !way.accepted)) {
            self.names.write().remove_pipe(&local);
        }
        let by_name = info.remote.as_ref().and_then(|remote| self.links.read().by_name.get(remote).cloned());
        for peer in [info.peer, by_name].into_iter().flatten() {
            self.with(&peer, |link, now, acts| link.closed(pipe, now, acts));
            if let Some(remote) = info.remote.as_ref().filter(|remote| **remote != peer.name) {
                self.links.write().by_name.remove(remote);
            }
        }
    }

    fn peer_of(&self, pipe: PipeId) -> Option<Arc<Peer>> {
        let pipes = self.pipes.lock();
        let info = pipes.get(&pipe)?;
        match (&info.peer, &info.remote) {
            (Some(peer), _) => Some(peer.clone()),
            (None, Some(remote)) => self.links.read().by_name.get(remote).cloned(),
            (None, None) => None,
        }
    }

    fn received(&self, pipe: PipeId, frame: &Bytes) {
        let outcome = match wire::kind(frame) {
            FrameKind::Message => {
                wire::read_message(frame, Profile::Rust).map(|envelope| self.plain_message(pipe, envelope))
            }
            FrameKind::Link => {
                wire::read_frame(frame).and_then(|(header, bodies)| self.link_frame(pipe, &header, &bodies))
            }
        };
        if let Err(refused) = outcome {
            self.refused(pipe, &refused);
        }
    }

    /// A frame that cannot be read costs itself: it is counted, and nobody is told at an address it merely claims.
    fn refused(&self, pipe: PipeId, refused: &Refused) {
        self.counters.refused_frame();
        tracing::warn!(?pipe, %refused, "a frame was refused");
    }

    fn plain_message(&self, pipe: PipeId, envelope: Envelope) {
        match hello::read(&envelope) {
            Some(greeting) => self.greeted(pipe, &greeting),
            None => self.arrived(pipe, envelope),
        }
    }

    /// A message from outside: it is for a connection here, or passed on.
    fn arrived(&self, pipe: PipeId, mut envelope: Envelope) {
        let (came, gateway) = {
            let pipes = self.pipes.lock();
            let Some(info) = pipes.get(&pipe) else { return };
            if info.came == Came::Tcp && envelope.from.net.is_none() && !envelope.from.is_null() {
                // A peer that does not name itself can be answered on its own pipe.
                envelope.from.net.clone_from(&info.remote);
            }
            (info.came, info.peer.as_ref().map(|peer| peer.name.clone()))
        };
        if let (Came::Ipc, Some(net), Some(gateway)) = (came, &envelope.from.net, gateway) {
            self.heard_of(net, &gateway);
        }
        if let Err(unsent) = self.dispatch(Msg::of(envelope), came) {
            self.report(&unsent.msg, unsent.reason);
        }
    }

    fn greeted(&self, pipe: PipeId, greeting: &Greeting) {
        let Some((way, came, remote)) =
            self.pipes.lock().get(&pipe).map(|info| (info.way.clone(), info.came, info.remote.clone()))
        else {
            return;
        };
        let Some(way) = way else { return };
        tracing::debug!(?pipe, claimed = %greeting.claimed, rust = greeting.hello.is_some(), "hello");
        let echoed = greeting.hello.as_ref().and_then(|hello| hello.echo).and_then(|echo| self.peer_with_token(echo));
        if let (Some(peer), Some(hello)) = (&echoed, &greeting.hello) {
            self.associate(pipe, peer);
            self.learn_name(peer, &greeting.claimed, came, hello.incarnation);
            self.with(peer, |link, now, acts| link.proven(hello, now, acts));
            return;
        }
        let name = match (came, &greeting.hello) {
            (Came::Tcp, None) => return,
            (Came::Tcp, Some(hello)) => hello.at.clone().or_else(|| remote.clone()),
            _ => Some(greeting.claimed.clone()),
        };
        let known =
            greeting.hello.as_ref().and_then(|hello| self.links.read().by_incarnation.get(&hello.incarnation).cloned());
        let Some(name) = name.filter(|name| !self.is_mine(name)) else { return };
        let Some(peer) = known.or_else(|| self.peer(&name)) else { return };
        if let Some(hello) = &greeting.hello {
            let mut links = self.links.write();
            links.by_incarnation.insert(hello.incarnation, peer.clone());
            if let Some(remote) = remote {
                // Answers to this pipe's name go to the same peer, also when it comes back on another pipe.
                links.by_name.insert(remote, peer.clone());
            }
        }
        self.associate(pipe, &peer);
        self.with(&peer, |link, now, acts| link.greeted(greeting, way, now, acts));
    }

    fn peer_with_token(&self, token: u64) -> Option<Arc<Peer>> {
        let peers: Vec<_> = self.links.read().by_name.values().cloned().collect();
        peers.into_iter().find(|peer| peer.link.lock().link.token() == Some(token))
    }

    fn associate(&self, pipe: PipeId, peer: &Arc<Peer>) {
        if let Some(info) = self.pipes.lock().get_mut(&pipe) {
            info.peer = Some(peer.clone());
        }
    }

    /// The peer we dialed by one name says another that it listens at: on the same machine both lead to it.
    fn learn_name(&self, peer: &Arc<Peer>, claimed: &Endpoint, came: Came, incarnation: u64) {
        let mut links = self.links.write();
        links.by_incarnation.insert(incarnation, peer.clone());
        if came == Came::Ipc && links.by_name.len() < LINKS {
            links.by_name.entry(claimed.clone()).or_insert_with(|| peer.clone());
        }
    }

    fn link_frame(&self, pipe: PipeId, header: &wire::Header, bodies: &[Bytes]) -> Result<(), Refused> {
        if header.to != self.incarnation {
            return Err(Refused::stale());
        }
        let Some(peer) = self.links.read().by_incarnation.get(&header.from).cloned() else {
            return Err(Refused::stale());
        };
        self.with(&peer, |link, now, _| link.heard(now));
        for &(session, upto) in &header.acks {
            let acked = self.links.read().by_session.get(&session).cloned();
            if let Some(acked) = acked {
                self.with(&acked, |link, now, acts| link.acked(upto, now, acts));
            }
        }
        if bodies.is_empty() && !header.acks.is_empty() {
            return Ok(());
        }
        let (verdict, upto) = self.judge(header, bodies.len());
        let Verdict::Take { skip } = verdict else {
            tracing::debug!(peer = %peer.name, first = header.first, upto, "messages are missing, and will come again");
            return Ok(());
        };
        for body in bodies.iter().skip(skip) {
            match wire::read_message(body, Profile::Rust) {
                Ok(envelope) => self.arrived(pipe, envelope),
                Err(refused) => self.refused(pipe, &refused),
            }
        }
        let bytes = bodies.iter().map(Bytes::len).sum();
        // A peer that we dialed sends on our pipe, where it may have two frames on their way: it waits for us.
        let urgent =
            self.pipes.lock().get(&pipe).is_some_and(|info| info.way.as_ref().is_some_and(|way| !way.accepted));
        self.with(&peer, |link, now, acts| link.owe_ack(header.session, upto, bytes, urgent, now, acts));
        Ok(())
    }

    fn judge(&self, header: &wire::Header, count: usize) -> (Verdict, u64) {
        let mut inflows = self.inflows.lock();
        if inflows.len() >= INFLOWS {
            let live: Vec<u64> = self.links.read().by_incarnation.keys().copied().collect();
            inflows.retain(|(incarnation, _), _| live.contains(incarnation));
            if inflows.len() >= INFLOWS {
                // One peer with thousands of sessions is no router of ours.
                return (Verdict::Gap, 0);
            }
        }
        let inflow = inflows.entry((header.from, header.session)).or_default();
        let verdict = inflow.receive(header.first, count);
        (verdict, inflow.upto())
    }

    // ---- the end ---------------------------------------------------------------------------

    /// Whether every link has sent what it had, and Python peers have had `linger` to read our hello.
    pub(crate) fn is_drained(&self, linger: std::time::Duration) -> bool {
        let peers: Vec<_> = self.links.read().by_name.values().cloned().collect();
        peers.iter().all(|peer| {
            let guarded = peer.link.lock();
            guarded.link.is_idle() && guarded.link.open_towards_python().is_none_or(|since| since.elapsed() >= linger)
        })
    }

    /// Reports what is still waiting to be sent, and closes every connection.
    pub(crate) fn stop(&self) {
        let peers: Vec<_> = self.links.read().by_name.values().cloned().collect();
        for peer in peers {
            self.with(&peer, |link, _, acts| link.give_up(Reason::ShuttingDown, acts));
        }
        self.enter_stage(Stage::Stopped);
        for port in self.ports() {
            port.fail_requests(&Reason::ShuttingDown, "this router", |_| true);
            port.stop();
            port.close(Reason::ShuttingDown);
        }
        *self.links.write() = Links::default();
        self.pipes.lock().clear();
        self.timers.lock().clear();
        self.ended.send_replace(true);
    }
}

impl Links {
    fn names_of(&self, peer: &Arc<Peer>) -> Vec<Endpoint> {
        self.by_name.iter().filter(|(_, other)| Arc::ptr_eq(other, peer)).map(|(name, _)| name.clone()).collect()
    }

    /// Lets go of links that hold nothing and lead nowhere.
    fn sweep(&mut self) {
        self.by_name.retain(|_, peer| !peer.link.lock().link.is_spent());
        let live: Vec<*const Peer> = self.by_name.values().map(Arc::as_ptr).collect();
        self.by_incarnation.retain(|_, peer| live.contains(&Arc::as_ptr(peer)));
        self.by_session.retain(|_, peer| live.contains(&Arc::as_ptr(peer)));
    }
}

fn came_over(endpoint: &Endpoint) -> Came {
    if endpoint.scheme() == Scheme::Tcp { Came::Tcp } else { Came::Ipc }
}

/// A listening endpoint as a peer can dial it: in place of "all addresses", the one that the peer already reaches.
fn reachable(listening: &Endpoint, local: Option<&Endpoint>) -> Option<Endpoint> {
    let (host, port) = listening.rest().rsplit_once(':')?;
    if !matches!(host, "0.0.0.0" | "[::]" | "*" | "") {
        return Some(listening.clone());
    }
    let (host, _) = local?.rest().rsplit_once(':')?;
    Some(Endpoint::from(format!("tcp://{host}:{port}")))
}

/// A number that no two routers draw alike.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() >> 1
}
