//! What the transport tells: pipes that open and end, hellos, and messages that come in.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use super::links::{LINKS, Peer};
use super::sessions::Incoming;
use super::{Stage, Switch, Unsent};
use crate::addr::{Addr, DIRECTORY, Endpoint, Scheme};
use crate::failure::Reason;
use crate::link::hello::{self, Greeting};
use crate::link::inflow::Verdict;
use crate::link::{Act, Way};
use crate::msg::{Debt, Msg};
use crate::port::Port;
use crate::router::names::{Came, Route};
use crate::transport::{Event, Origin, PipeId, Transport};
use crate::wire::{self, Bodies, Envelope, FrameKind, Head, How, Letter, Profile, Refused};

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

/// What the messages of one pipe have in common.
struct Via {
    pipe: PipeId,
    came: Came,
    remote: Option<Endpoint>,
    gateway: Option<Endpoint>,
    urgent: bool,
}

/// Messages of a row that are handed over in one step. Default 1,024: as many small ones as a usual frame has; one of a stranger may have millions, each of which takes more memory than it has bytes.
const ROW: usize = 1024;

/// Messages in a row for one connection, here or elsewhere.
#[derive(Default)]
struct Row {
    /// The outside of those before, which the next may have.
    recent: Option<Arc<Head>>,
    /// That of those in the row, and where they go.
    last: Option<Arc<Head>>,
    goes: Goes,
    msgs: SmallVec<[Msg; 2]>,
}

#[derive(Default)]
enum Goes {
    #[default]
    Nowhere,
    In(Weak<Port>),
    /// To another router, with this outside.
    On(Arc<Peer>, Arc<Head>),
}

/// What the last link frame of a thread was read with, which is so for as long as its router's names, links, pipes, ports and sessions stay as they are.
struct Known {
    router: u64,
    era: u64,
    sender: u64,
    session: u64,
    peer: Arc<Peer>,
    /// The other links to it.
    beside: Vec<Arc<Peer>>,
    via: Via,
    incoming: Option<Arc<Incoming>>,
    row: Row,
}

thread_local! {
    // Most frames of a thread come from where the one before came from.
    static KNOWN: Cell<Option<Box<Known>>> = const { Cell::new(None) };
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
        if endpoint.scheme() != Scheme::Tcp {
            self.machine.get_or_init(|| endpoint.clone());
        }
        self.names_mut().listens_at(endpoint);
    }

    /// Takes an event of the transport, on the transport's thread.
    pub(crate) fn happened(&self, event: Event) {
        match event {
            Event::Opened { pipe, origin, local, remote, .. } => self.opened(pipe, &origin, local, remote),
            Event::DialFailed { pipe, error } => {
                let info = self.pipes_mut().remove(&pipe);
                if let Some(peer) = info.and_then(|info| info.peer) {
                    tracing::debug!(peer = %peer.name, %error, "dial failed");
                    self.with(&peer, |link, now, acts| link.dial_failed(pipe, &error, now, acts));
                }
            }
            Event::Received { pipe, frame } => self.received(pipe, frame),
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
            self.names_mut().add_pipe(local.clone());
        }
        let (peer, greeting) = {
            let mut pipes = self.pipes_mut();
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
            return Some(Way { pipe, accepted, lossless: false, claimed, listens: true, net: None });
        }
        let listening = names.net().and_then(|net| reachable(net, local));
        let listens = listening.is_some();
        let claimed = listening.or_else(|| local.cloned())?;
        // Named by our end of the pipe, Python answers on the pipe. To a listening endpoint it dials, and loses the first answer.
        let own_end = local.filter(|_| !accepted).unwrap_or(&claimed).clone();
        let lossless = self.transport.get().is_some_and(|transport| transport.keeps_all());
        Some(Way { pipe, accepted, lossless, claimed, listens, net: Some(own_end) })
    }

    fn closed(&self, pipe: PipeId) {
        let Some(info) = self.pipes_mut().remove(&pipe) else { return };
        if let Some(local) = info.local.filter(|_| info.way.as_ref().is_some_and(|way| !way.accepted)) {
            self.names_mut().remove_pipe(&local);
        }
        let by_name = info.remote.as_ref().and_then(|remote| self.links.read().by_name.get(remote).cloned());
        for peer in [info.peer, by_name].into_iter().flatten() {
            self.with(&peer, |link, now, acts| link.closed(pipe, now, acts));
            if let Some(remote) = info.remote.as_ref().filter(|remote| **remote != peer.name) {
                // Answers to what came on the pipe find its maker by its name, also after its end.
                let forgotten = peer.remember(remote);
                let mut links = self.links_mut();
                forgotten.and_then(|name| links.by_name.remove(&name));
            }
        }
    }

    fn peer_of(&self, pipe: PipeId) -> Option<Arc<Peer>> {
        let (peer, remote) = self.pipes.lock().get(&pipe).map(|info| (info.peer.clone(), info.remote.clone()))?;
        // Not looked up under the lock of the pipes: links are swept, and dial, in the other order.
        peer.or_else(|| self.links.read().by_name.get(&remote?).cloned())
    }

    fn received(&self, pipe: PipeId, frame: Bytes) {
        let outcome = match wire::kind(&frame) {
            FrameKind::Message => {
                wire::read_message(&frame, Profile::Rust).map(|envelope| self.plain_message(pipe, envelope))
            }
            FrameKind::Link => wire::open_frame(frame).map(|(header, bodies)| self.link_frame(pipe, &header, bodies)),
        };
        if let Err(refused) = outcome {
            self.refused(pipe, &refused);
        }
    }

    /// A frame that cannot be read costs itself: it is counted, and nobody is told at an address it merely claims.
    #[cold]
    pub(super) fn refused(&self, pipe: PipeId, refused: &Refused) {
        self.counters.refused_frame();
        tracing::warn!(?pipe, %refused, "a frame was refused");
    }

    fn plain_message(&self, pipe: PipeId, mut envelope: Envelope) {
        if let Some(greeting) = hello::read(&envelope) {
            self.greeted(pipe, &greeting);
            return;
        }
        let mark = wire::take_mark(&mut envelope.meta);
        if let (Some(id), Some(peer)) = (envelope.reply_to, self.peer_of(pipe)) {
            let to = envelope.to.connection;
            self.with(&peer, |link, now, acts| link.answered(to, id, mark.is_some(), now, acts));
        }
        let Some([sender, session, number]) = mark else {
            return self.arrived(pipe, envelope, Debt::NONE);
        };
        if sender == self.incarnation {
            // It went in a circle, which its count of hops ends.
            return self.arrived(pipe, envelope, Debt::NONE);
        }
        if self.links.read().to(sender).is_none() {
            return self.begin_anew(pipe);
        }
        let incoming = self.incoming(sender, session);
        let verdict = incoming.inflow.lock().receive(number, 1);
        match verdict {
            Verdict::Take { skip: 0 } => {
                self.arrived(pipe, envelope, Debt::to(incoming.clone(), number));
                self.owe(&incoming, 0, false);
            }
            Verdict::Take { .. } => self.owe(&incoming, 0, false),
            Verdict::Gap => self.begin_anew(pipe),
        }
    }

    /// A message from outside: it is for a connection here, or passed on.
    fn arrived(&self, pipe: PipeId, envelope: Envelope, debt: Debt) {
        let Some(via) = self.via(pipe) else { return };
        let sent = self.let_in(&via, envelope.into(), debt, None).and_then(|msg| self.dispatch(msg, via.came));
        self.tell(sent.err());
    }

    fn tell(&self, unsent: impl IntoIterator<Item = Unsent>) {
        for mut unsent in unsent {
            self.report(&mut unsent.msg, unsent.reason);
        }
    }

    /// What the messages of a pipe have in common.
    fn via(&self, pipe: PipeId) -> Option<Via> {
        let pipes = self.pipes.lock();
        let info = pipes.get(&pipe)?;
        let gateway = info.peer.as_ref().map(|peer| peer.name.clone());
        // A peer that we dialed sends on our pipe, where it may have two frames on their way: it waits for us.
        let urgent = info.way.as_ref().is_some_and(|way| !way.accepted);
        Some(Via { pipe, came: info.came, remote: info.remote.clone(), gateway, urgent })
    }

    /// Makes a message of an envelope that came in, if there is room for it and this router takes any. One that has the outside of the `last`, which was let in as it is, has a sound one.
    fn let_in(&self, via: &Via, mut letter: Letter, debt: Debt, last: Option<&Arc<Head>>) -> Result<Msg, Unsent> {
        if last.is_none_or(|last| !Arc::ptr_eq(last, &letter.head)) {
            self.look_at_head(via, &mut letter.head);
        }
        let meta = letter.meta.as_ref().map_or(0, |meta| meta.wire_len());
        let bytes = letter.contents.wire_len() + meta + letter.head.subject.len();
        let weight = self.scale.weigh(bytes, letter.reply_to.is_some(), self.limits.unhandled);
        let mut msg = Msg::of(letter);
        msg.debt = debt;
        match weight {
            _ if !self.takes(&msg) => return Err(Unsent::because(msg, Reason::ShuttingDown)),
            Ok(Some(weight)) => msg.debt = weight.with(std::mem::take(&mut msg.debt)),
            Ok(None) => {}
            Err(()) => return Err(Unsent::because(msg, Reason::MailboxFull)),
        }
        Ok(msg)
    }

    /// Sees that the outside of a message that came in names its sender as it can be answered, and takes note of what it tells.
    fn look_at_head(&self, via: &Via, head: &mut Arc<Head>) {
        let names_nobody = |net: &Option<Endpoint>| net.as_ref().is_none_or(is_all_addresses);
        if via.came == Came::Tcp && names_nobody(&head.from.net) && !head.from.is_null() {
            // A peer that does not name itself, or by all addresses at once, can be answered on its own pipe.
            Arc::make_mut(head).from.net.clone_from(&via.remote);
        }
        if head.to.connection == Some(DIRECTORY) && !head.from.is_null() && self.names.read().is_here(&head.from) {
            disown(Arc::make_mut(head), via.pipe);
        }
        if let (Came::Ipc, Some(net), Some(gateway)) = (via.came, &head.from.net, &via.gateway) {
            self.heard_of(net, gateway);
        }
    }

    fn greeted(&self, pipe: PipeId, greeting: &Greeting) {
        let told = |info: &PipeInfo| (info.way.clone(), info.came, info.remote.clone(), info.came_to.clone());
        let Some((way, came, remote, came_to)) = self.pipes.lock().get(&pipe).map(told) else { return };
        let Some(way) = way else { return };
        tracing::debug!(?pipe, claimed = %greeting.claimed, rust = greeting.hello.is_some(), "hello");
        let echoed = greeting.hello.as_ref().and_then(|hello| hello.echo).and_then(|echo| self.peer_with_token(echo));
        // One that cannot be dialed and comes back may know the token of its last pipe.
        let echoed = echoed.filter(|peer| !peer.link.lock().link.is_left_for(pipe));
        if let (Some(peer), Some(hello)) = (&echoed, &greeting.hello) {
            self.associate(pipe, peer);
            self.learn_name(peer, &greeting.claimed, came, hello.incarnation);
            self.learn_pipe(peer, remote);
            self.with(peer, |link, now, acts| link.proven(hello, pipe, now, acts));
            return;
        }
        let name = match (came, &greeting.hello) {
            (Came::Tcp, None) => return,
            (Came::Tcp, Some(hello)) => hello.at.clone().or_else(|| remote.clone()),
            _ => Some(greeting.claimed.clone()),
        };
        let known = greeting.hello.as_ref().and_then(|hello| self.links.read().to(hello.incarnation).cloned());
        let Some(name) = name.filter(|name| !self.is_mine(name)) else { return };
        let Some(peer) = known.or_else(|| self.peer(&name, LINKS)) else { return };
        if let Some(hello) = &greeting.hello {
            self.links_mut().lives(hello.incarnation, &peer);
            self.learn_pipe(&peer, remote);
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
        self.peers().into_iter().find(|peer| peer.link.lock().link.token() == Some(token))
    }

    /// From now on a pipe is this link's, and no other's: who had it before would not hear of its end.
    fn associate(&self, pipe: PipeId, peer: &Arc<Peer>) {
        let before = self.pipes_mut().get_mut(&pipe).and_then(|info| info.peer.replace(peer.clone()));
        if let Some(before) = before.filter(|before| !Arc::ptr_eq(before, peer)) {
            self.with(&before, |link, now, acts| link.closed(pipe, now, acts));
        }
    }

    /// The peer we dialed by one name says another that it listens at: on the same machine both lead to it.
    fn learn_name(&self, peer: &Arc<Peer>, claimed: &Endpoint, came: Came, incarnation: u64) {
        let mut links = self.links_mut();
        links.lives(incarnation, peer);
        if came == Came::Ipc {
            links.learn(claimed, incarnation, peer);
        }
    }

    /// Answers to a pipe's name go to the peer that made it, also when it comes back on another: a second link on the same pipe would never hear that its frames have left.
    fn learn_pipe(&self, peer: &Arc<Peer>, remote: Option<Endpoint>) {
        if let Some(remote) = remote {
            self.links_mut().by_name.insert(remote, peer.clone());
        }
    }

    fn link_frame(&self, pipe: PipeId, header: &wire::Header, bodies: Bodies) {
        let Some(mut known) = self.known(pipe, header) else { return };
        let Known { peer, beside, via, incoming, row, .. } = &mut *known;
        let urgent = via.urgent && !header.mood.patient;
        let verdict = self.receive(header, bodies.len(), incoming);
        let owed = incoming.as_ref().filter(|_| matches!(verdict, Some(Verdict::Take { .. })));
        // That no handler was called is passed on behind the reports of it, which may be in this frame.
        let mut failed = Vec::new();
        let mut set_apart =
            |acts: &mut Vec<Act>| failed.extend(acts.extract_if(.., |act| matches!(act, Act::Settled(_, false))));
        let session = self.with(peer, |link, now, acts| {
            let session = link.session();
            link.heard(header.mood, now, acts);
            for receipt in header.receipts.iter().filter(|receipt| receipt.session == session) {
                link.receipt(receipt, now, acts);
            }
            set_apart(acts);
            if let Some(incoming) = owed {
                link.owe(incoming.session, &incoming.inflow, bodies.size(), urgent, now, acts);
            }
            session
        });
        // It lives, by whichever of its names it is known.
        for peer in beside {
            self.with(peer, |link, now, acts| link.heard(header.mood, now, acts));
        }
        for receipt in header.receipts.iter().filter(|receipt| receipt.session != session) {
            let told = self.links.read().by_session.get(&receipt.session).cloned();
            if let Some(told) = told {
                self.with(&told, |link, now, acts| {
                    link.receipt(receipt, now, acts);
                    set_apart(acts);
                });
            }
        }
        match (verdict, incoming) {
            (Some(Verdict::Take { skip }), Some(incoming)) => {
                self.numbered(via, incoming, row, header.first, bodies, skip);
            }
            (Some(Verdict::Gap), _) => {
                tracing::debug!(?pipe, first = header.first, "messages are missing");
                self.begin_anew(pipe);
            }
            _ => {}
        }
        for act in failed {
            if let Act::Settled(debts, handled) = act {
                debts.settle(handled);
            }
        }
        // A thread that ends keeps nothing.
        let _ = KNOWN.try_with(|place| place.set(Some(known)));
    }

    /// What a frame is read with. None if its sender is not known, or it is meant for another life of this router.
    fn known(&self, pipe: PipeId, header: &wire::Header) -> Option<Box<Known>> {
        // Before the look at what it stands for.
        let era = self.era.load(Ordering::Acquire);
        let last = KNOWN.try_with(Cell::take).ok().flatten().filter(|last| last.router == self.number);
        let is_so = |last: &Known| {
            let is_its = (last.sender, last.session) == (header.from, header.session) && last.via.pipe == pipe;
            last.era == era && is_its && header.to == self.incarnation
        };
        match last {
            Some(last) if is_so(&last) => Some(last),
            last => self.get_to_know(pipe, header, era, last),
        }
    }

    #[inline(never)]
    fn get_to_know(
        &self,
        pipe: PipeId,
        header: &wire::Header,
        era: u64,
        last: Option<Box<Known>>,
    ) -> Option<Box<Known>> {
        if let Some(last) = last.filter(|last| last.incoming.is_some()) {
            // All that while it was.
            self.sessions.lock().heard((last.sender, last.session));
        }
        let (peer, beside) = {
            let links = self.links.read();
            (links.to(header.from).cloned(), links.beside(header.from))
        };
        let Some(peer) = peer.filter(|_| header.to == self.incarnation) else {
            self.refused(pipe, &Refused::stale());
            self.begin_anew(pipe);
            return None;
        };
        let (router, sender, session) = (self.number, header.from, header.session);
        let (via, incoming, row) = (self.via(pipe)?, None, Row::default());
        Some(Box::new(Known { router, era, sender, session, peer, beside, via, incoming, row }))
    }

    /// Notes what has come of a session, if it is known or something has come: which of these messages are new, or that some before them are missing.
    fn receive(&self, header: &wire::Header, count: usize, incoming: &mut Option<Arc<Incoming>>) -> Option<Verdict> {
        let incoming = match incoming {
            Some(incoming) => incoming,
            None if count == 0 && header.first == 0 => {
                incoming.insert(self.sessions.lock().heard((header.from, header.session))?)
            }
            None => incoming.insert(self.incoming(header.from, header.session)),
        };
        let mut inflow = incoming.inflow.lock();
        inflow.heard(header.heard);
        match count {
            0 if inflow.misses(header.first) => Some(Verdict::Gap),
            0 => None,
            count => Some(inflow.receive(header.first, count)),
        }
    }

    /// Ends a pipe whose sender and this router disagree about what has been: it dials again, introduces itself, and sends what is missing.
    #[cold]
    fn begin_anew(&self, pipe: PipeId) {
        if let Some(transport) = self.transport.get() {
            transport.close(pipe);
        }
    }

    /// Says again what has come of all sessions of a peer: the pipe that it was last said on may have been lost.
    pub(super) fn tell_again(&self, sender: u64) {
        let sessions = self.sessions.lock().of(sender);
        for incoming in sessions {
            incoming.inflow.lock().tell_again();
            self.owe(&incoming, 0, false);
        }
    }

    /// What was to be told to a peer about its messages may be lost.
    pub(super) fn reports_are_lost(&self, sender: u64) {
        let sessions = self.sessions.lock().of(sender);
        for incoming in sessions {
            incoming.inflow.lock().reports_are_lost();
        }
    }

    /// Messages of a session: those that came before are skipped, and those in a row for one connection are put into its queue in one step.
    fn numbered(&self, via: &Via, incoming: &Arc<Incoming>, row: &mut Row, first: u64, bodies: Bodies, skip: usize) {
        let mut recent = row.recent.take();
        for (number, read) in (first..).zip(bodies.letters(&mut recent)).skip(skip) {
            match read {
                Ok(letter) => match self.let_in(via, letter, Debt::to(incoming.clone(), number), row.last.as_ref()) {
                    Ok(msg) => self.in_row(row, msg, via.came),
                    Err(unsent) => self.tell([unsent]),
                },
                Err(refused) => {
                    self.refused(via.pipe, &refused);
                    incoming.ended(number, 1, Some(How::Unread));
                }
            }
        }
        row.recent = recent;
        self.end_row(row);
    }

    /// Adds a message to the row if it goes where the row goes, or ends the row and begins another.
    fn in_row(&self, row: &mut Row, mut msg: Msg, came: Came) {
        if row.msgs.len() >= ROW {
            self.end_row(row);
        }
        let last = row.last.as_ref();
        let is_same = last.is_some_and(|last| Arc::ptr_eq(last, msg.head()));
        match &row.goes {
            Goes::In(_) if is_same || last.is_some_and(|last| last.to == msg.to) => return row.msgs.push(msg),
            Goes::On(_, passed) if is_same && !msg.has_meta() => {
                msg.set_head(passed.clone());
                return row.msgs.push(msg);
            }
            _ => self.end_row(row),
        }
        let route = self.names.read().route(&msg.to, came);
        match route {
            Route::Here(number) => {
                row.last = Some(msg.head().clone());
                row.goes = Goes::In(self.port(number).map_or_else(Weak::new, |port| Arc::downgrade(&port)));
                row.msgs.push(msg);
            }
            Route::There(endpoint) if !msg.has_meta() => {
                let last = msg.head().clone();
                match self.next_hop(&endpoint, &mut msg, came) {
                    Ok(peer) => {
                        row.last = Some(last);
                        row.goes = Goes::On(peer, msg.head().clone());
                        row.msgs.push(msg);
                    }
                    Err(reason) => self.tell([Unsent::because(msg, reason)]),
                }
            }
            _ => self.tell(self.dispatch(msg, came).err()),
        }
    }

    fn end_row(&self, row: &mut Row) {
        if row.msgs.is_empty() {
            return;
        }
        let nobody = |msg| Unsent::because(msg, Reason::NoSuchConnection);
        match &row.goes {
            Goes::In(port) => match port.upgrade() {
                Some(port) => self.tell(port.deliver_all(&mut row.msgs)),
                None => self.tell(row.msgs.drain(..).map(nobody)),
            },
            Goes::On(peer, _) => self.tell(self.hand_all_to(peer, &mut row.msgs)),
            Goes::Nowhere => {}
        }
    }

    /// The receiving end of a peer's session.
    fn incoming(&self, sender: u64, session: u64) -> Arc<Incoming> {
        let links = self.links.read();
        let mut sessions = self.sessions.lock();
        let (incoming, forgot) = sessions.begin((sender, session), |sender| links.to(sender).is_some());
        if forgot {
            self.era.fetch_add(1, Ordering::Release);
        }
        incoming
    }

    /// There is news for the sender of a session.
    pub(super) fn owe(&self, incoming: &Incoming, bytes: usize, urgent: bool) {
        let peer = self.links.read().to(incoming.sender).cloned();
        if let Some(peer) = peer {
            let (session, inflow) = (incoming.session, &incoming.inflow);
            self.with(&peer, |link, now, acts| link.owe(session, inflow, bytes, urgent, now, acts));
        }
    }

    /// A router that ends takes answers, and what directories say, and nothing new.
    fn takes(&self, msg: &Msg) -> bool {
        self.stage() == Stage::Running || msg.is_reply() || msg.to.connection == Some(DIRECTORY)
    }
}

/// What this router provides only its own connections say.
#[cold]
fn disown(head: &mut Head, pipe: PipeId) {
    tracing::warn!(?pipe, from = %head.from, "a message from outside claims to be from here");
    head.from = Addr::default();
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
    // Asked for every message: most names are told by their first byte.
    matches!(endpoint.rest().as_bytes().first(), Some(b'0' | b'[' | b'*' | b':'))
        && endpoint.rest().rsplit_once(':').is_some_and(|(host, _)| matches!(host, "0.0.0.0" | "[::]" | "*" | ""))
}
