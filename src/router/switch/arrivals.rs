//! What the transport tells: pipes that open and end, hellos, and messages that come in.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Switch;
use super::links::{LINKS, Peer};
use crate::addr::{Addr, DIRECTORY, Endpoint, Scheme};
use crate::link::Way;
use crate::link::hello::{self, Greeting};
use crate::link::inflow::{Inflow, Verdict};
use crate::msg::{Debt, Msg, Owed};
use crate::router::names::Came;
use crate::transport::{Event, Origin, PipeId, Transport};
use crate::wire::{self, Envelope, FrameKind, Profile, Refused};

/// Sessions of peers that a router remembers. Default 8,192: two for each link.
const INFLOWS: usize = 8192;

/// Filled by whoever receives, and told by the link to its sender.
pub(super) type SharedInflow = Arc<Mutex<Inflow>>;

pub(super) struct PipeInfo {
    pub(super) way: Option<Way>,
    pub(super) came: Came,
    pub(super) peer: Option<Arc<Peer>>,
    pub(super) local: Option<Endpoint>,
    pub(super) remote: Option<Endpoint>,
    /// Which of our endpoints the peer dialed.
    pub(super) came_to: Option<Endpoint>,
    pub(super) greets: Option<Greets>,
}

/// What a pipe is for that only says hello to a Python router.
pub(super) struct Greets {
    pub(super) python: Endpoint,
    pub(super) in_the_name_of: Endpoint,
    pub(super) since: Option<Instant>,
}

impl Greets {
    fn begin(&mut self, now: Instant) -> Bytes {
        self.since = Some(now);
        let mut frame = Vec::new();
        wire::write_message(&hello::write_plain(&self.in_the_name_of, &self.python), &mut frame);
        frame.into()
    }
}

impl PipeInfo {
    pub(super) fn new(came: Came, peer: Option<Arc<Peer>>) -> Self {
        Self { way: None, came, peer, local: None, remote: None, came_to: None, greets: None }
    }
}

impl Switch {
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
    pub(crate) fn happened(self: &Arc<Self>, event: Event) {
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
        let (peer, greeting) = {
            let mut pipes = self.pipes.lock();
            let info = pipes.entry(pipe).or_insert_with(|| PipeInfo::new(came, None));
            info.way.clone_from(&way);
            info.local = local;
            info.remote = remote;
            if let Origin::Accepted(came_to) = origin {
                info.came_to.clone_from(came_to);
            }
            let greeting = info.greets.as_mut().map(|greets| greets.begin(self.clock.now()));
            (info.peer.clone(), greeting)
        };
        if let (Some(greeting), Some(transport)) = (greeting, self.transport.get()) {
            // A pipe that has ended already is made again when Python says its next hello.
            let _ = transport.send(pipe, greeting);
        }
        if let (Some(peer), Some(way)) = (peer, way) {
            self.with(&peer, |link, now, acts| link.opened(way, now, acts));
        }
    }

    /// How the peer at the other end of a pipe is told to answer.
    pub(super) fn way(&self, pipe: PipeId, accepted: bool, came: Came, local: Option<&Endpoint>) -> Option<Way> {
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
        let (peer, remote) = self.pipes.lock().get(&pipe).map(|info| (info.peer.clone(), info.remote.clone()))?;
        // Not looked up under the lock of the pipes: links are swept, and dial, in the other order.
        peer.or_else(|| self.links.read().by_name.get(&remote?).cloned())
    }

    fn received(self: &Arc<Self>, pipe: PipeId, frame: &Bytes) {
        let outcome = match wire::kind(frame) {
            FrameKind::Message => {
                wire::read_message(frame, Profile::Rust).map(|envelope| self.plain_message(pipe, envelope))
            }
            FrameKind::Link => wire::read_frame(frame).map(|(header, bodies)| self.link_frame(pipe, &header, &bodies)),
        };
        if let Err(refused) = outcome {
            self.refused(pipe, &refused);
        }
    }

    /// A frame that cannot be read costs itself: it is counted, and nobody is told at an address it merely claims.
    pub(super) fn refused(&self, pipe: PipeId, refused: &Refused) {
        self.counters.refused_frame();
        tracing::warn!(?pipe, %refused, "a frame was refused");
    }

    fn plain_message(self: &Arc<Self>, pipe: PipeId, mut envelope: Envelope) {
        if let Some(greeting) = hello::read(&envelope) {
            self.greeted(pipe, &greeting);
            return;
        }
        if let (Some(id), Some(peer)) = (envelope.reply_to, self.peer_of(pipe)) {
            self.with(&peer, |link, _, acts| link.answered(envelope.to.connection, id, acts));
        }
        let Some([sender, session, number]) = wire::take_mark(&mut envelope.meta) else {
            return self.arrived(pipe, envelope, None);
        };
        if sender == self.incarnation {
            // It went in a circle, which its count of hops ends.
            return self.arrived(pipe, envelope, None);
        }
        let is_known = self.links.read().by_incarnation.contains_key(&sender);
        let Some(inflow) = self.inflow(sender, session).filter(|_| is_known) else {
            return self.begin_anew(pipe);
        };
        let verdict = inflow.lock().receive(number, 1);
        match verdict {
            Verdict::Take { skip: 0 } => {
                let track = self.track(sender, session, &inflow, number);
                self.arrived(pipe, envelope, track);
                self.owe(sender, session, &inflow, 0, false);
            }
            Verdict::Take { .. } => self.owe(sender, session, &inflow, 0, false),
            Verdict::Gap => self.begin_anew(pipe),
        }
    }

    /// A message from outside: it is for a connection here, or passed on.
    fn arrived(&self, pipe: PipeId, mut envelope: Envelope, debt: Debt) {
        let (came, gateway) = {
            let pipes = self.pipes.lock();
            let Some(info) = pipes.get(&pipe) else { return };
            let names_nobody = |net: &Option<Endpoint>| net.as_ref().is_none_or(is_all_addresses);
            if info.came == Came::Tcp && names_nobody(&envelope.from.net) && !envelope.from.is_null() {
                // A peer that does not name itself, or by all addresses at once, can be answered on its own pipe.
                envelope.from.net.clone_from(&info.remote);
            }
            (info.came, info.peer.as_ref().map(|peer| peer.name.clone()))
        };
        if envelope.to.connection == Some(DIRECTORY)
            && !envelope.from.is_null()
            && self.names.read().is_here(&envelope.from)
        {
            // What this router provides only its own connections say.
            tracing::warn!(?pipe, from = %envelope.from, "a message from outside claims to be from here");
            envelope.from = Addr::default();
        }
        if let (Came::Ipc, Some(net), Some(gateway)) = (came, &envelope.from.net, gateway) {
            self.heard_of(net, &gateway);
        }
        let mut msg = Msg::of(envelope);
        msg.debt = debt;
        if let Err(unsent) = self.dispatch(msg, came) {
            self.report(&unsent.msg, unsent.reason);
        }
    }

    fn greeted(&self, pipe: PipeId, greeting: &Greeting) {
        let told = |info: &PipeInfo| (info.way.clone(), info.came, info.remote.clone(), info.came_to.clone());
        let Some((way, came, remote, came_to)) = self.pipes.lock().get(&pipe).map(told) else { return };
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
        if greeting.hello.is_none() {
            match came_to.filter(|came_to| *came_to != way.claimed) {
                Some(hub) => self.greet(&greeting.claimed, hub),
                // The same for our own endpoint, where our answers say hello. They may be waited for in vain: questions go into the dead connection.
                None => self.with(&peer, crate::link::Link::reach),
            }
        }
        self.with(&peer, |link, now, acts| link.greeted(greeting, way, now, acts));
    }

    /// Says hello to a Python router in the name of the endpoint that it dialed. Python sends to an endpoint on the first connection it ever had there,
    /// also when that one is dead, unless a later one says hello from there: without, it never reaches a hub again that was restarted.
    fn greet(&self, python: &Endpoint, in_the_name_of: Endpoint) {
        let Some(transport) = self.transport.get() else { return };
        let mut pipes = self.pipes.lock();
        let mut greetings = pipes.values().filter_map(|info| info.greets.as_ref());
        if greetings.any(|greets| greets.python == *python && greets.in_the_name_of == in_the_name_of) {
            return;
        }
        let greets = Some(Greets { python: python.clone(), in_the_name_of, since: None });
        let pipe = transport.dial(python);
        pipes.insert(pipe, PipeInfo { greets, ..PipeInfo::new(came_over(python), None) });
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

    fn link_frame(self: &Arc<Self>, pipe: PipeId, header: &wire::Header, bodies: &[Bytes]) {
        let peer = self.links.read().by_incarnation.get(&header.from).cloned();
        let Some(peer) = peer.filter(|_| header.to == self.incarnation) else {
            self.refused(pipe, &Refused::stale());
            return self.begin_anew(pipe);
        };
        self.with(&peer, |link, now, _| link.heard(now));
        for receipt in &header.receipts {
            let told = self.links.read().by_session.get(&receipt.session).cloned();
            if let Some(told) = told {
                self.with(&told, |link, now, acts| link.receipt(receipt, now, acts));
            }
        }
        if !bodies.is_empty() {
            self.numbered(pipe, header, bodies);
        }
    }

    /// Ends a pipe whose sender and this router disagree about what has been: it dials again, introduces itself, and sends what is missing.
    fn begin_anew(&self, pipe: PipeId) {
        if let Some(transport) = self.transport.get() {
            transport.close(pipe);
        }
    }

    /// Says again what has come of all sessions of a peer: the pipe that it was last said on may have been lost.
    pub(super) fn tell_again(&self, sender: u64) {
        let sessions: Vec<_> = self
            .inflows
            .lock()
            .iter()
            .filter(|((other, _), _)| *other == sender)
            .map(|((_, session), inflow)| (*session, inflow.clone()))
            .collect();
        for (session, inflow) in sessions {
            self.owe(sender, session, &inflow, 0, false);
        }
    }

    /// Messages of a session: those that came before are skipped.
    fn numbered(self: &Arc<Self>, pipe: PipeId, header: &wire::Header, bodies: &[Bytes]) {
        let Some(inflow) = self.inflow(header.from, header.session) else { return self.begin_anew(pipe) };
        let verdict = inflow.lock().receive(header.first, bodies.len());
        let Verdict::Take { skip } = verdict else {
            tracing::debug!(?pipe, first = header.first, "messages are missing");
            return self.begin_anew(pipe);
        };
        for (number, body) in (header.first..).zip(bodies).skip(skip) {
            let track = self.track(header.from, header.session, &inflow, number);
            match wire::read_message(body, Profile::Rust) {
                Ok(envelope) => self.arrived(pipe, envelope, track),
                Err(refused) => self.refused(pipe, &refused),
            }
        }
        let bytes = bodies.iter().map(Bytes::len).sum();
        // A peer that we dialed sends on our pipe, where it may have two frames on their way: it waits for us.
        let urgent =
            self.pipes.lock().get(&pipe).is_some_and(|info| info.way.as_ref().is_some_and(|way| !way.accepted));
        self.owe(header.from, header.session, &inflow, bytes, urgent);
    }

    /// The receiving end of a peer's session; none if there are too many.
    pub(super) fn inflow(&self, sender: u64, session: u64) -> Option<SharedInflow> {
        let mut inflows = self.inflows.lock();
        if let Some(inflow) = inflows.get(&(sender, session)) {
            return Some(inflow.clone());
        }
        if inflows.len() >= INFLOWS {
            let live: Vec<u64> = self.links.read().by_incarnation.keys().copied().collect();
            inflows.retain(|(incarnation, _), _| live.contains(incarnation));
        }
        // One peer with thousands of sessions is no router of ours.
        (inflows.len() < INFLOWS).then(|| inflows.entry((sender, session)).or_default().clone())
    }

    fn track(self: &Arc<Self>, sender: u64, session: u64, inflow: &SharedInflow, number: u64) -> Debt {
        Some(Box::new(Track { switch: self.clone(), sender, session, inflow: inflow.clone(), number }))
    }

    /// There is news for the sender of a session.
    fn owe(&self, sender: u64, session: u64, inflow: &SharedInflow, bytes: usize, urgent: bool) {
        let peer = self.links.read().by_incarnation.get(&sender).cloned();
        if let Some(peer) = peer {
            let inflow = inflow.clone();
            self.with(&peer, |link, now, acts| link.owe(session, inflow, bytes, urgent, now, acts));
        }
    }
}

/// Dropped with a message that came over a link: its sender's router is told that it is settled.
struct Track {
    switch: Arc<Switch>,
    sender: u64,
    session: u64,
    inflow: SharedInflow,
    number: u64,
}

impl Owed for Track {}

impl std::fmt::Debug for Track {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "message {} of session {}", self.number, self.session)
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        let is_first_news = self.inflow.lock().settle(self.number);
        if is_first_news {
            self.switch.owe(self.sender, self.session, &self.inflow, 0, false);
        }
    }
}

pub(super) fn came_over(endpoint: &Endpoint) -> Came {
    if endpoint.scheme() == Scheme::Tcp { Came::Tcp } else { Came::Ipc }
}

/// A listening endpoint as a peer can dial it: in place of "all addresses", the one that the peer already reaches.
fn reachable(listening: &Endpoint, local: Option<&Endpoint>) -> Option<Endpoint> {
    if !is_all_addresses(listening) {
        return Some(listening.clone());
    }
    let (_, port) = listening.rest().rsplit_once(':')?;
    let (host, _) = local?.rest().rsplit_once(':')?;
    Some(Endpoint::from(format!("tcp://{host}:{port}")))
}

/// Whether an endpoint stands for every address of its machine: it can be listened at, not dialed.
fn is_all_addresses(endpoint: &Endpoint) -> bool {
    endpoint.rest().rsplit_once(':').is_some_and(|(host, _)| matches!(host, "0.0.0.0" | "[::]" | "*" | ""))
}
