//! The links of a router: found by name, told what happens, and what they decide carried out.

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::arrivals::{PipeInfo, came_over};
use super::{Stage, Switch};
use crate::addr::{Addr, Endpoint, Scheme};
use crate::failure::Reason;
use crate::hash::Seeded;
use crate::link::{Act, Link, Me, Way};
use crate::router::names::{Came, Route};
use crate::subject;
use crate::transport::{Handed, PipeId, SendError};

/// Peers that a router keeps links to. Default 4,096: far above any network this is for, and each costs a few kilobytes.
pub(super) const LINKS: usize = 4096;
/// Links up to which one is made for a report. Default half of them: whoever names senders that are not there, and to whom every report has to be tried, leaves room for those who come.
pub(super) const LINKS_FOR_REPORTS: usize = LINKS / 2;

/// Links up to which those that lead nowhere are kept. Default 16, afterwards twice as many as were left the last time: so the dead cost no more than the living. In tests 2, so that it happens.
const FEW: usize = if cfg!(test) { 2 } else { 16 };

/// Names of ended pipes of one peer that still lead to it. Default 16: as many as it can lose while an agent has a message in its hands.
const FORMER: usize = 16;

thread_local! {
    // What links ask for is written into the same place again and again.
    static ACTS: Cell<Vec<Act>> = const { Cell::new(Vec::new()) };
}

#[derive(Default)]
pub(super) struct Links {
    pub(super) by_name: HashMap<Endpoint, Arc<Peer>, Seeded>,
    /// Names that lead to the link to another name, because that life of a router said it listens there: no longer than it lives.
    learned: HashMap<Endpoint, u64, Seeded>,
    /// The links to one life of a router: several if it is known by names of which nobody knew that they are one's. The last is the newest.
    by_incarnation: HashMap<u64, Vec<Arc<Peer>>, Seeded>,
    pub(super) by_session: HashMap<u64, Arc<Peer>, Seeded>,
    /// So many were left when those that lead nowhere were let go.
    left: usize,
    /// So many were ever made.
    made: u64,
}

/// A link and what its owner needs beside it.
pub(super) struct Peer {
    pub(super) name: Endpoint,
    /// Which of the router's links this is.
    pub(super) number: u64,
    pub(super) link: Mutex<Guarded>,
    pub(super) room: Arc<Notify>,
    /// Somebody has found no room, and may wait for it. Set under the link's lock.
    pub(super) was_full: AtomicBool,
    /// By which it was known on pipes that have ended.
    former: Mutex<VecDeque<Endpoint>>,
}

impl Peer {
    /// Takes note of a name of an ended pipe. Answers with one that is too old.
    pub(super) fn remember(&self, name: &Endpoint) -> Option<Endpoint> {
        let mut former = self.former.lock();
        if !former.contains(name) {
            former.push_back(name.clone());
        }
        if former.len() > FORMER { former.pop_front() } else { None }
    }
}

pub(super) struct Guarded {
    pub(super) link: Link,
    pub(super) session: u64,
    pub(super) armed: Option<Instant>,
    /// When the link was last told the time, and how much was taken since then.
    pub(super) looked: Instant,
    pub(super) taken: u8,
}

/// Messages that share a look at the clock, a tenth of what each costs, if they join a frame that waits. Default 64.
const IN_A_LOOK: u8 = 64;

impl Switch {
    /// Makes sure that a link leads to `endpoint`, without a message: the directory is told who is there, or that nobody is.
    pub(crate) fn reach(&self, endpoint: &Endpoint) {
        if let Some(peer) = self.peer(endpoint, LINKS) {
            self.with(&peer, crate::link::Link::reach);
        }
    }

    /// The link to the peer at `endpoint`, made if there is none; none if there are `most` already.
    pub(super) fn peer(&self, endpoint: &Endpoint, most: usize) -> Option<Arc<Peer>> {
        if let Some(peer) = self.links.read().by_name.get(endpoint) {
            return Some(peer.clone());
        }
        let accepted = self.accepted_from(endpoint);
        let mut links = self.links_mut();
        if let Some(peer) = links.by_name.get(endpoint) {
            return Some(peer.clone());
        }
        if links.by_name.len() >= (2 * links.left).clamp(FEW, most) {
            links.sweep();
        }
        if links.by_name.len() >= most {
            return None;
        }
        let me = Me {
            incarnation: self.incarnation,
            message: self.limits.message,
            mailbox: self.limits.mailbox,
            window: self.limits.link,
            ahead: self.limits.ahead,
            outcome: self.limits.outcome,
            introduction: self.limits.introduction,
        };
        let dial = accepted.is_none().then(|| endpoint.clone());
        let now = self.clock.now();
        let mut link = Link::new(me, endpoint.clone(), dial, self.clock.draw(), now);
        if let Some(way) = accepted {
            link.reached_by(way);
        }
        if self.stage() != Stage::Running {
            link.close_down(now, &mut Vec::new());
        }
        let session = link.session();
        links.made += 1;
        let peer = Arc::new(Peer {
            name: endpoint.clone(),
            number: links.made,
            link: Mutex::new(Guarded { link, session, armed: None, looked: now, taken: 0 }),
            room: Arc::default(),
            was_full: AtomicBool::new(false),
            former: Mutex::default(),
        });
        links.by_name.insert(endpoint.clone(), peer.clone());
        links.by_session.insert(session, peer.clone());
        Some(peer)
    }

    /// Whether an endpoint is the other end of a pipe that a peer made to us: nobody else can dial it.
    pub(crate) fn is_dialed_by(&self, remote: &Endpoint) -> bool {
        self.accepted_from(remote).is_some()
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
    pub(super) fn with<R>(&self, peer: &Arc<Peer>, decide: impl FnOnce(&mut Link, Instant, &mut Vec<Act>) -> R) -> R {
        let mut acts = ACTS.try_with(Cell::take).unwrap_or_default();
        let mut guarded = peer.link.lock();
        let (now, before) = (self.clock.now(), guarded.link.burden());
        guarded.looked = now;
        let result = decide(&mut guarded.link, now, &mut acts);
        self.carry_on(peer, guarded, now, before, acts);
        result
    }

    /// The same for what is taken to be sent. Where that changes nothing else, as in the midst of a stream, there is nothing to look after.
    pub(super) fn push<R>(&self, peer: &Arc<Peer>, take: impl FnOnce(&mut Link, Instant) -> R) -> R {
        let mut acts = ACTS.try_with(Cell::take).unwrap_or_default();
        let mut guarded = peer.link.lock();
        guarded.taken += 1;
        if guarded.taken >= IN_A_LOOK || !guarded.link.is_loading() {
            (guarded.looked, guarded.taken) = (self.clock.now(), 0);
        }
        let (now, before) = (guarded.looked, guarded.link.burden());
        let result = take(&mut guarded.link, now);
        guarded.link.go_on(now, &mut acts);
        // No deadline but that of its outcome is new.
        let is_quiet = acts.is_empty() && guarded.link.is_loading();
        if is_quiet && guarded.armed.is_some_and(|armed| armed <= now + self.limits.outcome) {
            drop(guarded);
            let _ = ACTS.try_with(|place| place.set(acts));
        } else {
            self.carry_on(peer, guarded, now, before, acts);
        }
        result
    }

    /// Does what a link says, and tells it of each frame that has left at once.
    fn carry_on(
        &self,
        peer: &Arc<Peer>,
        guarded: MutexGuard<'_, Guarded>,
        now: Instant,
        before: (usize, usize),
        mut acts: Vec<Act>,
    ) {
        let mut has_room = self.has_decided(peer, guarded, before, &mut acts);
        loop {
            let mut sent = None;
            for act in acts.drain(..) {
                match act {
                    Act::Send(pipe, frame) => sent = self.send(peer, pipe, frame).then_some(pipe).or(sent),
                    act => self.carry_out(peer, act),
                }
            }
            let Some(pipe) = sent else { break };
            let mut guarded = peer.link.lock();
            let before = guarded.link.burden();
            guarded.link.sent(pipe, now, &mut acts);
            has_room |= self.has_decided(peer, guarded, before, &mut acts);
        }
        // A thread that ends keeps nothing.
        let _ = ACTS.try_with(|place| place.set(acts));
        // Not after every look: a try that found no room would wake those who wait for it, itself among them, for ever.
        if has_room && peer.was_full.load(Ordering::SeqCst) && peer.was_full.swap(false, Ordering::SeqCst) {
            peer.room.notify_waiters();
        }
    }

    /// Keeps the tables in step with a link that has decided. Whether it has more room than before.
    fn has_decided(
        &self,
        peer: &Arc<Peer>,
        mut guarded: MutexGuard<'_, Guarded>,
        before: (usize, usize),
        acts: &mut Vec<Act>,
    ) -> bool {
        // Dialed under the lock: the link must know its pipe before anything happens on it.
        if acts.iter().any(|act| matches!(act, Act::Dial(_))) {
            acts.retain(|act| match act {
                Act::Dial(endpoint) => {
                    self.dial(peer, &mut guarded.link, endpoint);
                    false
                }
                _ => true,
            });
        }
        self.arm(peer, &mut guarded);
        let (old, new) = (guarded.session, guarded.link.session());
        guarded.session = new;
        let after = guarded.link.burden();
        drop(guarded);
        if old != new {
            let mut links = self.links_mut();
            links.by_session.remove(&old);
            links.by_session.insert(new, peer.clone());
        }
        after.0 < before.0 || after.1 < before.1
    }

    #[cold]
    pub(super) fn dial(&self, peer: &Arc<Peer>, link: &mut Link, endpoint: &Endpoint) {
        let Some(transport) = self.transport.get() else { return };
        let mut pipes = self.pipes_mut();
        let pipe = transport.dial(endpoint);
        let came = came_over(endpoint);
        pipes.insert(pipe, PipeInfo::new(came, Some(peer.clone())));
        link.dialing(pipe, self.clock.now());
    }

    fn carry_out(&self, peer: &Arc<Peer>, act: Act) {
        match act {
            Act::Close(pipe) => {
                if let Some(transport) = self.transport.get() {
                    transport.close(pipe);
                }
            }
            Act::Lost(mut msg, reason) => {
                let is_report = msg.subject == subject::MSG_NOT_DELIVERED;
                if let Some(incarnation) = peer.link.lock().link.incarnation().filter(|_| is_report) {
                    self.reports_are_lost(incarnation);
                }
                self.report(&mut msg, reason);
            }
            Act::Settled(debts, handled) => debts.settle(handled),
            Act::Overdue(mut outside) => self.report(&mut outside, Reason::NoOutcome),
            Act::Abandon(incarnation) => {
                self.reports_are_lost(incarnation);
                self.abandon(peer);
            }
            Act::Up(incarnation) => {
                tracing::debug!(peer = %peer.name, incarnation, "a Rust router is there");
                self.links_mut().lives(incarnation, peer);
                self.board.peer_up(&peer.name, incarnation);
                self.tell_again(incarnation);
            }
            Act::Python => self.board.peer_is_python(&peer.name),
            Act::Gone(reason) => {
                tracing::debug!(peer = %peer.name, %reason, "a router is gone");
                self.peer_gone(peer, &reason);
            }
            Act::Dial(_) | Act::Send(..) => unreachable!("done before"),
        }
    }

    /// Hands a frame to the transport. Whether there is room for the next.
    fn send(&self, peer: &Arc<Peer>, pipe: PipeId, frame: Bytes) -> bool {
        let Some(transport) = self.transport.get() else { return false };
        let refused = match transport.hand_over(pipe, frame) {
            Ok(handed) => return handed == Handed::Gone,
            Err(SendError::Gone(frame)) => frame,
            Err(SendError::Busy(frame)) => {
                tracing::error!(?pipe, "a frame was sent before the previous one had left");
                frame
            }
        };
        // `Closed` follows, or has been: the link sends it on its next pipe, or reports it.
        self.with(peer, |link, now, acts| link.bounced(pipe, &refused, now, acts));
        false
    }

    #[cold]
    fn abandon(&self, peer: &Arc<Peer>) {
        let Some(transport) = self.transport.get() else { return };
        let is_its = |info: &PipeInfo| info.peer.as_ref().is_some_and(|other| Arc::ptr_eq(other, peer));
        let mut pipes: Vec<PipeId> =
            self.pipes.lock().iter().filter(|(_, info)| is_its(info)).map(|(pipe, _)| *pipe).collect();
        pipes.sort_unstable();
        for pipe in pipes {
            transport.close(pipe);
        }
    }

    #[cold]
    fn peer_gone(&self, peer: &Arc<Peer>, reason: &Reason) {
        let now = peer.link.lock().link.incarnation();
        let (ended, names) = {
            let mut links = self.links_mut();
            let is_over = |incarnation: &u64, peers: &mut Vec<Arc<Peer>>| {
                peers.retain(|other| !Arc::ptr_eq(other, peer) || Some(*incarnation) == now);
                peers.is_empty()
            };
            let ended: Vec<u64> =
                links.by_incarnation.extract_if(is_over).map(|(incarnation, _)| incarnation).collect();
            (ended, links.end_names(peer, now))
        };
        // By the way that a message takes: over a gateway, and not to a namesake on another machine.
        let lost = |to: &Addr| matches!(self.names.read().route(to, Came::Here), Route::There(endpoint) if names.contains(&endpoint));
        for port in self.ports() {
            port.fail_requests(reason, peer.name.short(), lost);
        }
        for name in &names {
            self.board.peer_gone(name);
        }
        for incarnation in ended {
            self.board.life_ended(incarnation);
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
            timers.remove(&(before, peer.number));
        }
        guarded.armed = deadline;
        if let Some(deadline) = deadline {
            timers.insert((deadline, peer.number), Arc::downgrade(peer));
            if timers.first_key_value().is_some_and(|((first, _), _)| *first == deadline) {
                self.rearmed.notify_one();
            }
        }
    }

    /// When [`Switch::tick`] has something to do.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.lock().first_key_value().map(|((at, _), _)| *at)
    }

    /// Looks at every link whose time has come.
    pub(crate) fn tick(&self) {
        let now = self.clock.now();
        loop {
            let due = {
                let mut timers = self.timers.lock();
                match timers.first_entry() {
                    Some(first) if first.key().0 <= now => first.remove_entry(),
                    _ => return,
                }
            };
            let ((at, _), peer) = due;
            if let Some(peer) = peer.upgrade() {
                self.with_armed(&peer, at);
            }
        }
    }

    fn with_armed(&self, peer: &Arc<Peer>, at: Instant) {
        {
            let mut guarded = peer.link.lock();
            if guarded.armed == Some(at) {
                guarded.armed = None;
            }
        }
        self.with(peer, crate::link::Link::tick);
    }
}

impl Links {
    /// A peer has introduced itself as this life of a router.
    pub(super) fn lives(&mut self, incarnation: u64, peer: &Arc<Peer>) {
        let peers = self.by_incarnation.entry(incarnation).or_default();
        peers.retain(|other| !Arc::ptr_eq(other, peer));
        peers.push(peer.clone());
    }

    /// The newest link to a life of a router.
    pub(super) fn to(&self, incarnation: u64) -> Option<&Arc<Peer>> {
        self.by_incarnation.get(&incarnation)?.last()
    }

    /// The others.
    pub(super) fn beside(&self, incarnation: u64) -> Vec<Arc<Peer>> {
        let beside = self.by_incarnation.get(&incarnation).and_then(|peers| peers.split_last());
        beside.map_or_else(Vec::new, |(_, others)| others.to_vec())
    }

    /// A life of a router whom a link leads to under another name says where it listens.
    pub(super) fn learn(&mut self, name: &Endpoint, incarnation: u64, peer: &Arc<Peer>) {
        if self.by_name.len() < LINKS && !self.by_name.contains_key(name) {
            self.by_name.insert(name.clone(), peer.clone());
            self.learned.insert(name.clone(), incarnation);
        }
    }

    /// The names of a link whose peer is gone. Those that were learned from it end: who is at the link's own name next is somebody else.
    fn end_names(&mut self, peer: &Arc<Peer>, now: Option<u64>) -> Vec<Endpoint> {
        let is_its = |(_, other): &(&Endpoint, &Arc<Peer>)| Arc::ptr_eq(other, peer);
        let mut names: Vec<Endpoint> = self.by_name.iter().filter(is_its).map(|(name, _)| name.clone()).collect();
        names.retain(|name| self.learned.get(name).is_none_or(|incarnation| Some(*incarnation) != now));
        for name in &names {
            if self.learned.remove(name).is_some() {
                self.by_name.remove(name);
            }
        }
        names
    }

    /// Lets go of links that hold nothing and lead nowhere.
    fn sweep(&mut self) {
        let mut held: HashMap<*const Peer, (usize, &Arc<Peer>)> = HashMap::new();
        let tables =
            self.by_name.values().chain(self.by_session.values()).chain(self.by_incarnation.values().flatten());
        for peer in tables {
            held.entry(Arc::as_ptr(peer)).or_insert((0, peer)).0 += 1;
        }
        // Who has just looked one up, to send on it, holds it beside these tables.
        let is_over =
            |(times, peer): &(usize, &Arc<Peer>)| *times == Arc::strong_count(peer) && peer.link.lock().link.is_spent();
        let over: HashSet<*const Peer> = held.into_iter().filter(|(_, held)| is_over(held)).map(|(at, _)| at).collect();
        let stays = |peer: &Arc<Peer>| !over.contains(&Arc::as_ptr(peer));
        self.by_name.retain(|_, peer| stays(peer));
        self.learned.retain(|name, _| self.by_name.contains_key(name));
        self.by_incarnation.retain(|_, peers| {
            peers.retain(|peer| stays(peer));
            !peers.is_empty()
        });
        self.by_session.retain(|_, peer| stays(peer));
        self.left = self.by_name.len();
    }
}
