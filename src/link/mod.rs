//! The link to one peer: what waits to be sent, how it is sent, and who is told when it cannot be.
//!
//! A link is a plain state machine: events and the time go in, [`Act`]s come out, and its owner carries them out in order. Plain messages, one to a
//! frame and readable by Python, flow as soon as a pipe is open. Once the peer has proved to be a Rust router (see [`hello`]) the link sends
//! frames of many messages. Messages to a peer that is, or may be, a Rust router are numbered from 0 in the link's session ([`ledger`]) and kept until the peer has accepted
//! them: after a lost pipe what was not is sent again, and the other side drops what it has ([`inflow`]). What is settled with a message is
//! remembered until the peer says that its handler was called or its sender told why not; where that takes too long its sender is told so. A peer that came back as another incarnation, that is silent for
//! too long, or that nobody can reach, is gone, and everything that was open is reported.
//!
//! # Not promised
//!
//! A message handed to a Python router is settled by that: its wire says nothing more. A peer that does not introduce itself in time is taken for one, and spoken to as to one; but until it has shown that it
//! is one (it says a hello without more, or answers a message without a number) each message to it is remembered. Should it introduce itself as a Rust router after all, its receipts tell what became of
//! them; should it be lost, or do neither until their outcome is overdue, their senders are told that nobody knows. Of more than [`REMEMBERED`] the oldest are told so at once.

pub(crate) mod hello;
pub(crate) mod inflow;
pub(crate) mod ledger;

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::addr::{Addr, Endpoint, Scheme};
use crate::failure::Reason;
use crate::hash::Seeded;
use crate::msg::{Debts, Msg};
use crate::transport::{DialError, PipeId};
use crate::wire::{self, Block, Encoded, Envelope, FrameKind, Lent, Mood, Profile, Receipt};
use hello::{Greeting, Hello, VERSION};
use inflow::Inflow;
use ledger::{Ledger, Message, News, Places, Run, Seat};

/// How long an acknowledgement waits for a frame to travel with. Default 5 ms: a reply is usually faster, and the window is far from full by then.
const ACK_DELAY: Duration = Duration::from_millis(5);
/// Bytes received after which an acknowledgement does not wait. Default 1 MiB: a quarter of the default window.
const ACK_BYTES: usize = 1 << 20;
/// Pause between plain messages on a pipe that the peer dialed. Default 1 ms: such a pipe drops what does not fit into its queue of two, and Python reads
/// about 1,000 messages a second.
const PACE: Duration = Duration::from_millis(1);
/// Messages to one peer whose outcome is not known. Default 65,536: four mailboxes full, and about 16 MiB of memory.
pub(crate) const OPEN: usize = 65_536;
/// Messages remembered that went to a peer which has not said who it is. Default 32,768: half of those that may be without an outcome, so that it keeps nobody from sending.
const REMEMBERED: usize = OPEN / 2;
/// What answers and reports may hold, in windows. Default 64: 256 MiB, a thousand answers of 256 KiB. A peer that asks and does not read is then told `mailbox full`.
const ANSWERS: usize = 64;
/// Bytes up to which answers and reports have room beyond that too, as long as there are not twice [`OPEN`] of them: what says that an answer had no room has some itself.
const SMALL: usize = 1024;
/// Frames on their way on a pipe that the peer dialed. 2: a third may be dropped by its queue.
const UNDIALED_FRAMES: usize = 2;
/// Frames on their way on a pipe of our own before those that are not full wait for the peer's word. Default 2: what is sent meanwhile shares the next, which costs as long as the peer takes to say a word, and
/// no timer; with one the pipe would be idle half of the time.
const FRAMES: usize = 2;
/// How long the word of a peer that cannot be dialed is waited for before it is told again what came of its messages. Default 2 s: two heartbeats, each of which says what was heard.
const TELL_AGAIN: Duration = Duration::from_secs(2);
/// Pipes of one peer whose tokens are echoed. Default 8: one for each of our names that it knows.
const ECHOES: usize = 8;
/// Frames received after which a receipt does not wait. Default 2: the sender may be waiting for it.
const ACK_FRAMES: usize = 2;
/// How long a dial may take before messages wait for the peer's word. Default 250 ms: a listener hangs up on a pipe that says nothing for 500 ms, and what is sent on one that it has hung up on is
/// in doubt.
const SLOW_DIAL: Duration = Duration::from_millis(250);
/// How long a Rust peer that has nothing to say may be silent before it is asked. Default 1 s: four tiny frames a second for a pair of idle routers.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a Rust peer may be silent before it is gone, or stay away if it cannot be dialed. Default 3.5 s: three heartbeats may be late or lost.
pub(crate) const DEAD: Duration = Duration::from_millis(3500);
/// Plain messages sent to a peer that has not said who it is; further ones wait for its hello, or until it is taken for Python. Default 64: a Rust router's comes at once, and then thousands share a frame;
/// Python needs some 60 ms to read so many.
const BEFORE_HELLO: usize = 64;
/// Bytes that a message takes in a queue beyond contents, meta and subject: its envelope. Default 256: addresses of usual length.
const ENVELOPE: usize = 256;
/// Bytes that a peer takes without having said its limit. Default 1 MiB: what a Rust router's transport takes beyond its limit, however small that
/// is. A larger message waits for the peer's hello: sent before, it could end its pipe, again and again.
const UNANNOUNCED: usize = 1 << 20;

/// Receiving ends by their session, in order. A peer has one or two: in a row they cost no memory that comes and goes.
type Inflows = Vec<(u64, Arc<Mutex<Inflow>>)>;

fn note(inflows: &mut Inflows, session: u64, inflow: &Arc<Mutex<Inflow>>) {
    match inflows.binary_search_by_key(&session, |(session, _)| *session) {
        Ok(at) if Arc::ptr_eq(&inflows[at].1, inflow) => {}
        Ok(at) => inflows[at].1 = inflow.clone(),
        Err(at) => inflows.insert(at, (session, inflow.clone())),
    }
}

/// What the owner of a link has to do, in this order.
#[derive(Debug)]
pub(crate) enum Act {
    /// Start a dial, and tell the link its pipe with [`Link::dialing`].
    Dial(Endpoint),
    /// Hand a frame to the transport.
    Send(PipeId, Bytes),
    /// End a pipe.
    Close(PipeId),
    /// End every pipe that this life of the peer made: if it lives after all, it comes back and introduces itself anew. What it was to be told about its messages may be lost.
    Abandon(u64),
    /// Tell the sender of a message that it was not delivered.
    Lost(Msg, Reason),
    /// Messages have come to their end where they went: whether a handler was called with them. If not, their sender is told in a report from there.
    Settled(Debts, bool),
    /// Tell the sender of a message that its outcome was not known in time.
    Overdue(Msg),
    /// The peer is a Rust router of this incarnation, and reachable.
    Up(u64),
    /// The peer has not said that it is a Rust router: it is taken for a Python one.
    Python,
    /// The peer is gone: whoever waits for it waits in vain.
    Gone(Reason),
}

/// What the link needs to know about its own router.
#[derive(Clone, Debug)]
pub(crate) struct Me {
    pub(crate) incarnation: u64,
    /// Bytes of the largest message taken here.
    pub(crate) message: usize,
    /// Messages that a mailbox holds here.
    pub(crate) mailbox: usize,
    /// Bytes that may wait or be unacknowledged.
    pub(crate) window: usize,
    /// Messages to one destination whose outcome may be unknown.
    pub(crate) ahead: usize,
    /// How long the outcome of a message is waited for.
    pub(crate) outcome: Duration,
    /// How long contents that Python cannot read wait for the peer's hello.
    pub(crate) introduction: Duration,
}

/// A pipe that can be sent on.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) pipe: PipeId,
    /// The peer dialed it.
    pub(crate) accepted: bool,
    /// Nothing that is sent on it is dropped, although the peer dialed it.
    pub(crate) lossless: bool,
    /// The endpoint named in hellos on this pipe.
    pub(crate) claimed: Endpoint,
    /// Whether `claimed` can be dialed.
    pub(crate) listens: bool,
    /// The tcp endpoint that Python's answers to messages of this pipe go to; none on ipc. A Rust peer answers to `claimed`.
    pub(crate) net: Option<Endpoint>,
}

/// Why a link did not take a message.
#[derive(Debug)]
pub(crate) struct NotTaken {
    pub(crate) reason: Reason,
    /// Only for want of room: it may be tried again when something has left.
    pub(crate) full: bool,
}

pub(crate) struct Link {
    me: Me,
    name: Endpoint,
    dial: Option<Endpoint>,
    pipe: Pipe,
    fallback: Option<Way>,
    peer: Peer,
    /// The tokens of the pipes that the peer made, to be echoed on each of ours: it may have dialed several of our names, and counts on being answered about each.
    echoes: VecDeque<(PipeId, u64)>,
    tokens: u64,
    session: u64,
    queue: VecDeque<Queued>,
    /// How many are on their way to each destination, as seen from the peer.
    places: HashMap<Addr, Arc<AtomicUsize>, Seeded>,
    ledger: Ledger,
    held: usize,
    /// Sessions of the peer about which there is news to tell.
    owed: Inflows,
    /// Those about which the peer has been told, and has not said that it has heard.
    told: Inflows,
    /// When it is told again, on a pipe that may have dropped what it was told.
    tell_again: Option<Instant>,
    ack_due: Option<Instant>,
    ack_bytes: usize,
    ack_frames: usize,
    orphaned: Option<Instant>,
    /// This router shuts down.
    closing: bool,
    /// What the peer's frames say.
    mood: Mood,
    /// The peer has to be told something at once.
    urgent: bool,
    /// The peer said hello while it was being dialed: should that fail, it was its predecessor that did not answer.
    dial_again: bool,
    /// When the peer was last heard, spoken to, and its silence looked at.
    heard: Instant,
    spoken: Instant,
    looked: Instant,
}

enum Pipe {
    None,
    /// Since when.
    Dialing(PipeId, Instant),
    Open(Open),
}

struct Open {
    way: Way,
    token: u64,
    since: Instant,
    busy: bool,
    /// It took so long to make that the peer may have hung up.
    doubtful: bool,
    /// Hellos, which go before everything else: what each echoes.
    hellos: VecDeque<Option<u64>>,
    paced: Option<Instant>,
    /// Messages sent one to a frame.
    plain: usize,
    /// The first message of this pipe, by its sender and number: an answer to it means that the hello before it was read.
    first: Option<(Option<u64>, i64)>,
    hello_is_read: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Peer {
    Unknown,
    /// Taken for one, or `shown` to be one.
    Python {
        shown: bool,
    },
    /// `proven`: the router at the other end of the present pipe is this one.
    Rust {
        incarnation: u64,
        limit: usize,
        mailbox: usize,
        proven: bool,
    },
}

struct Queued {
    msg: Msg,
    contents: Encoded,
    places: Option<Places>,
    since: Instant,
    size: usize,
    /// Why it cannot go to a Python router; not asked where the peer is known.
    rust_only: Option<Reason>,
}

impl Link {
    /// A link to the peer known as `name`; `dial` is where it can be dialed; `seed` makes session and tokens hard to guess.
    pub(crate) fn new(me: Me, name: Endpoint, dial: Option<Endpoint>, seed: u64, now: Instant) -> Self {
        Self {
            me,
            name,
            dial,
            pipe: Pipe::None,
            fallback: None,
            peer: Peer::Unknown,
            echoes: VecDeque::new(),
            tokens: seed,
            session: scramble(seed),
            queue: VecDeque::new(),
            places: HashMap::default(),
            ledger: Ledger::default(),
            held: 0,
            owed: Inflows::new(),
            told: Inflows::new(),
            tell_again: None,
            ack_due: None,
            ack_bytes: 0,
            ack_frames: 0,
            orphaned: None,
            closing: false,
            mood: Mood::default(),
            urgent: false,
            dial_again: false,
            heard: now,
            spoken: now,
            looked: now,
        }
    }

    /// Names this link's numbering in the acknowledgements of the peer.
    pub(crate) fn session(&self) -> u64 {
        self.session
    }

    /// The incarnation of a peer that has introduced itself as a Rust router.
    pub(crate) fn incarnation(&self) -> Option<u64> {
        match self.peer {
            Peer::Rust { incarnation, .. } => Some(incarnation),
            Peer::Unknown | Peer::Python { .. } => None,
        }
    }

    /// Whether the peer may be Python: it has not proved otherwise.
    pub(crate) fn may_be_python(&self) -> bool {
        !matches!(self.peer, Peer::Rust { proven: true, .. })
    }

    /// The token that the peer must echo to be trusted with frames.
    pub(crate) fn token(&self) -> Option<u64> {
        match &self.pipe {
            Pipe::Open(open) => Some(open.token),
            Pipe::None | Pipe::Dialing(..) => None,
        }
    }

    /// Nothing waits, nothing is on its way, and the peer has been told what has come of its messages; what was accepted by it may still be without an outcome.
    pub(crate) fn is_idle(&self) -> bool {
        let owes = matches!(self.pipe, Pipe::Open(_)) && !self.may_be_python() && !self.owed.is_empty();
        !owes
            && self.queue.is_empty()
            && (self.ledger.is_accepted() || self.is_python())
            && !matches!(&self.pipe, Pipe::Open(open) if !open.hellos.is_empty())
    }

    /// This router shuts down: the peer is told, so that it sends nothing more and says when it has.
    pub(crate) fn close_down(&mut self, now: Instant, acts: &mut Vec<Act>) {
        self.closing = true;
        self.urgent = true;
        self.pump(now, acts);
    }

    /// All that the peer has sent to this router, which shuts down, has come.
    pub(crate) fn is_hushed(&self) -> bool {
        self.mood.hushed || self.may_be_python() || !matches!(self.pipe, Pipe::Open(_))
    }

    /// The outcome of everything is known, as far as the peer tells any.
    pub(crate) fn is_settled(&self) -> bool {
        self.ledger.is_settled() || self.is_python()
    }

    /// Nothing is kept, and no pipe leads there.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_idle()
            && self.ledger.is_settled()
            && matches!(self.pipe, Pipe::None)
            && self.fallback.is_none()
            && self.orphaned.is_none()
    }

    /// How long the present pipe has been open, towards a peer that may be Python and may not have read our hello.
    pub(crate) fn open_towards_python(&self) -> Option<Instant> {
        match &self.pipe {
            Pipe::Open(open) if self.may_be_python() && !open.hello_is_read => Some(open.since),
            _ => None,
        }
    }

    /// Takes a message, to [go on](Self::go_on) when others have been taken, too. It stays where it is if it is too large, unreadable for a known Python peer, or for want of room.
    pub(crate) fn take(&mut self, message: &mut Option<Msg>, contents: Lent<'_>, now: Instant) -> Result<(), NotTaken> {
        let Some(msg) = message else { return Ok(()) };
        let refused = |reason| Err(NotTaken { reason, full: false });
        let size = size_of(msg, contents.wire_len());
        if let Err((reason, full)) = self.admit(size, msg.is_reply()) {
            return Err(NotTaken { reason, full });
        }
        if self.mood.closing && !msg.is_reply() {
            return refused(Reason::ShuttingDown);
        }
        let rust_only = if self.may_be_python() { self.barrier(msg, &contents.into()) } else { None };
        if let (Peer::Python { .. }, Some(reason)) = (self.peer, &rust_only) {
            return refused(reason.clone());
        }
        let Some(seat) = self.seat(msg) else {
            return Err(NotTaken { reason: Reason::MailboxFull, full: true });
        };
        self.held += size;
        let Some(msg) = message.take() else { return Ok(()) };
        match &self.pipe {
            // Laid out by who sends it, not by who next sees the pipe free.
            Pipe::Open(open) if self.lays_out() => {
                let net = open.way.answers_to();
                self.ledger.add(Message { msg, contents, net, seat, size, since: now });
            }
            _ => {
                let places = if let Seat::Own(places) = seat { Some(places) } else { None };
                let contents = contents.into();
                let msg = msg.without_contents();
                self.queue.push_back(Queued { msg, contents, places, since: now, size, rust_only });
            }
        }
        Ok(())
    }

    /// What is taken goes into a frame at once.
    fn lays_out(&self) -> bool {
        matches!(self.pipe, Pipe::Open(_)) && self.queue.is_empty() && !self.may_be_python()
    }

    /// What is taken joins others that wait for the peer's word.
    pub(crate) fn is_loading(&self) -> bool {
        self.lays_out() && self.ledger.has_unsent()
    }

    /// Dials if need be, and sends what can be sent.
    pub(crate) fn go_on(&mut self, now: Instant, acts: &mut Vec<Act>) {
        self.connect(now, acts);
        self.pump(now, acts);
    }

    /// Dials without a message, to learn who is there.
    pub(crate) fn reach(&mut self, now: Instant, acts: &mut Vec<Act>) {
        match self.peer {
            Peer::Python { .. } if matches!(self.pipe, Pipe::Open(_)) => acts.push(Act::Python),
            Peer::Rust { incarnation, proven: true, .. } => acts.push(Act::Up(incarnation)),
            _ => self.connect(now, acts),
        }
    }

    /// The peer made a pipe to us, on which it can be answered.
    pub(crate) fn reached_by(&mut self, way: Way) {
        self.fallback = Some(way);
    }

    /// The dial asked for has this pipe.
    pub(crate) fn dialing(&mut self, pipe: PipeId, now: Instant) {
        self.pipe = Pipe::Dialing(pipe, now);
    }

    /// A dialed pipe is open.
    pub(crate) fn opened(&mut self, way: Way, now: Instant, acts: &mut Vec<Act>) {
        self.tokens = scramble(self.tokens);
        self.orphaned = None;
        let speaks_first = !way.accepted || self.incarnation().is_some();
        let doubtful = matches!(self.pipe, Pipe::Dialing(_, since) if now >= since + SLOW_DIAL);
        self.pipe = Pipe::Open(Open {
            way,
            token: self.tokens,
            since: now,
            busy: false,
            doubtful,
            hellos: VecDeque::new(),
            paced: None,
            plain: 0,
            first: None,
            hello_is_read: false,
        });
        if speaks_first {
            self.say_hellos();
        }
        self.pump(now, acts);
    }

    /// The dial came to nothing.
    pub(crate) fn dial_failed(&mut self, pipe: PipeId, error: &DialError, now: Instant, acts: &mut Vec<Act>) {
        if !matches!(self.pipe, Pipe::Dialing(dialing, _) if dialing == pipe) {
            return;
        }
        self.pipe = Pipe::None;
        match (self.fallback.clone(), &self.dial) {
            (Some(way), _) => self.opened(way, now, acts),
            (None, Some(endpoint)) if mem::take(&mut self.dial_again) => acts.push(Act::Dial(endpoint.clone())),
            (None, _) => self.give_up(Reason::DialFailed(error.to_string()), acts),
        }
    }

    /// A pipe ended. One that was sent on is dialed again at once: a refusal then is the peer's death.
    pub(crate) fn closed(&mut self, pipe: PipeId, now: Instant, acts: &mut Vec<Act>) {
        if self.fallback.as_ref().is_some_and(|way| way.pipe == pipe) {
            self.fallback = None;
        }
        self.echoes.retain(|(theirs, _)| *theirs != pipe);
        if !matches!(&self.pipe, Pipe::Open(open) if open.way.pipe == pipe) {
            return;
        }
        self.pipe = Pipe::None;
        self.doubt();
        self.ledger.recall();
        if self.may_be_python() && self.incarnation().is_none() || self.ledger.has_forgotten() {
            // Nobody is known who would say what came of them, or it cannot be sent again.
            self.end_session(&Reason::PeerLost, acts);
        }
        if self.is_python() {
            // Who is there next has to show it anew.
            self.peer = Peer::Python { shown: false };
        }
        match (&self.dial, self.peer) {
            (Some(endpoint), _) => acts.push(Act::Dial(endpoint.clone())),
            (None, Peer::Rust { .. }) => match self.fallback.clone() {
                // It has come back already.
                Some(way) => self.opened(way, now, acts),
                None => self.orphaned = Some(now + DEAD),
            },
            (None, _) => self.give_up(Reason::PeerLost, acts),
        }
    }

    /// Whether the peer, which cannot be dialed, has made this pipe after the one that it is sent to on.
    pub(crate) fn is_left_for(&self, pipe: PipeId) -> bool {
        self.dial.is_none() && matches!(&self.pipe, Pipe::Open(open) if open.way.pipe < pipe)
    }

    /// Someone who can be answered on `way` says hello under this link's name.
    pub(crate) fn greeted(&mut self, greeting: &Greeting, way: Way, now: Instant, acts: &mut Vec<Act>) {
        // On a machine everybody can be dialed, and the pipes of others are only listened to.
        self.fallback = Some(way.clone()).filter(|way| way.net.is_some());
        let Some(hello) = &greeting.hello else {
            if self.incarnation().is_none() {
                self.show_python(acts);
            }
            return;
        };
        self.meet(hello, acts);
        self.hears_token(way.pipe, hello.token);
        match &self.pipe {
            // It came back before its last pipe was known to have ended: that one leads nowhere.
            Pipe::Open(open) if self.is_left_for(way.pipe) => {
                acts.push(Act::Close(open.way.pipe));
                self.doubt();
                self.ledger.recall();
                self.opened(way, now, acts);
            }
            Pipe::Open(_) => self.say_hello(Some(hello.token)),
            Pipe::Dialing(..) => self.dial_again = true,
            Pipe::None => match &self.dial {
                // One connection for both ways is cheaper than one for each: what is received is acknowledged with what is sent.
                Some(endpoint) if !way.lossless => acts.push(Act::Dial(endpoint.clone())),
                _ => self.opened(way, now, acts),
            },
        }
        self.pump(now, acts);
    }

    /// A hello echoes the token of the present pipe: the router at its other end is this one.
    pub(crate) fn proven(&mut self, hello: &Hello, pipe: PipeId, now: Instant, acts: &mut Vec<Act>) {
        if hello.echo.is_none() || hello.echo != self.token() {
            return;
        }
        self.meet(hello, acts);
        let Peer::Rust { incarnation, proven, .. } = &mut self.peer else { return };
        let news = !mem::replace(proven, true);
        let incarnation = *incarnation;
        if self.hears_token(pipe, hello.token) {
            self.say_hello(Some(hello.token));
        }
        if news {
            self.heard = now;
            self.looked = now;
            acts.push(Act::Up(incarnation));
        }
        self.pump(now, acts);
    }

    /// A frame came from the peer. One that shuts down is sent nothing more, but for answers. A heartbeat that is due leaves now: who moves this link's clock may be kept by an agent that
    /// blocks its thread.
    pub(crate) fn heard(&mut self, mood: Mood, now: Instant, acts: &mut Vec<Act>) {
        self.heard = now;
        let news = mood.closing && !self.mood.closing;
        self.mood = mood;
        if news {
            let (kept, refused) = mem::take(&mut self.queue).into_iter().partition(Queued::is_answer);
            self.queue = kept;
            self.refuse(refused, |_| Reason::ShuttingDown, acts);
            self.urgent = true;
        }
        self.pump(now, acts);
    }

    /// The transport has room for the next frame.
    pub(crate) fn sent(&mut self, pipe: PipeId, now: Instant, acts: &mut Vec<Act>) {
        if let Pipe::Open(open) = &mut self.pipe
            && open.way.pipe == pipe
        {
            open.busy = false;
            self.pump(now, acts);
        }
    }

    /// The transport did not take a frame. What is in it was not sent, and the pipe is gone: its end may have been told before it was chosen.
    #[cold]
    pub(crate) fn bounced(&mut self, pipe: PipeId, frame: &Bytes, now: Instant, acts: &mut Vec<Act>) {
        match wire::kind(frame) {
            FrameKind::Link => {
                // One of receipts alone names a message that is not in it.
                if let Ok((header, bodies)) = wire::read_frame(frame)
                    && !bodies.is_empty()
                {
                    self.ledger.bounced(header.first);
                }
            }
            FrameKind::Message => match wire::read_message(frame, Profile::Rust) {
                Ok(envelope) if hello::read(&envelope).is_none() => self.bounced_plain(envelope, now),
                _ => {}
            },
        }
        self.closed(pipe, now, acts);
        if !self.is_idle() {
            self.connect(now, acts);
        }
    }

    /// The peer says what has come of this session, and what is settled.
    pub(crate) fn receipt(&mut self, receipt: &Receipt, now: Instant, acts: &mut Vec<Act>) {
        let mut news = News::default();
        self.held -= self.ledger.receive(receipt, &mut news);
        if !receipt.failed.is_empty() {
            // The peer keeps them until it knows that they were heard of.
            self.ack_due.get_or_insert(now + ACK_DELAY);
        }
        let unread = |msg| Act::Lost(msg, Reason::NotEncodable("the other router could not read it".into()));
        acts.extend(news.unread.into_iter().flat_map(Run::messages).map(unread));
        news.unreported.into_iter().for_each(|run| ended(run, &Reason::PeerLost, acts));
        acts.extend(news.settled.into_iter().map(|(debts, handled)| Act::Settled(debts, handled)));
        self.pump(now, acts);
    }

    /// The peer answered a message, and so has handled it: one that may be Python says so in no other way.
    pub(crate) fn answered(
        &mut self,
        connection: Option<u64>,
        id: i64,
        numbered: bool,
        now: Instant,
        acts: &mut Vec<Act>,
    ) {
        let mut is_python = false;
        if let Pipe::Open(open) = &mut self.pipe {
            open.hello_is_read |= open.first == Some((connection, id));
            // A Rust router would have read our hello before, and numbered its answer.
            is_python = !numbered
                && match self.peer {
                    Peer::Unknown => open.hello_is_read,
                    Peer::Python { shown } => !shown,
                    Peer::Rust { .. } => false,
                };
        }
        if self.may_be_python() {
            acts.extend(self.ledger.answered(connection, id).map(|debts| Act::Settled(debts, true)));
        }
        if is_python {
            self.show_python(acts);
            self.pump(now, acts);
        }
    }

    /// There is news about the peer's session: it is told with the next frame, or soon; at once if `urgent`.
    pub(crate) fn owe(
        &mut self,
        session: u64,
        inflow: &Arc<Mutex<Inflow>>,
        bytes: usize,
        urgent: bool,
        now: Instant,
        acts: &mut Vec<Act>,
    ) {
        note(&mut self.owed, session, inflow);
        self.ack_bytes += bytes;
        self.ack_frames += usize::from(bytes > 0);
        let is_due = urgent || self.ack_bytes >= ACK_BYTES || self.ack_frames >= ACK_FRAMES;
        let due = if is_due { now } else { now + ACK_DELAY };
        self.ack_due = Some(self.ack_due.map_or(due, |before| before.min(due)));
        self.pump(now, acts);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant, acts: &mut Vec<Act>) {
        if self.orphaned.is_some_and(|until| now >= until) {
            self.orphaned = None;
            self.give_up(Reason::PeerLost, acts);
        }
        self.look(now, acts);
        self.repeat(now);
        self.expire(now, acts);
        self.pump(now, acts);
    }

    /// When `tick` has something to do, if nothing else happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let oldest = sooner(self.queue.front().map(|queued| queued.since), self.ledger.oldest());
        let expiry = oldest.map(|since| since + self.me.outcome);
        let Pipe::Open(open) = &self.pipe else { return sooner(self.orphaned, expiry) };
        if self.may_be_python() {
            let judgement = self.judgement().filter(|_| !open.busy);
            let paced = open.paced.filter(|_| !open.busy && !self.queue.is_empty());
            return sooner(sooner(judgement, paced), expiry);
        }
        let look = (self.looked + HEARTBEAT).min(self.heard + DEAD);
        let look = if open.busy { look } else { look.min(self.spoken + HEARTBEAT) };
        let ack = self.ack_due.filter(|_| !open.busy);
        sooner(sooner(Some(look), ack), sooner(self.tell_again, expiry))
    }

    /// Gives the peer up: reports everything that waits, and lets go of its pipe.
    #[cold]
    pub(crate) fn give_up(&mut self, reason: Reason, acts: &mut Vec<Act>) {
        if let Pipe::Open(Open { way: Way { pipe, .. }, .. }) | Pipe::Dialing(pipe, _) =
            mem::replace(&mut self.pipe, Pipe::None)
        {
            acts.push(Act::Close(pipe));
        }
        acts.extend(self.incarnation().map(Act::Abandon));
        self.restart(&reason, acts);
        acts.extend(self.queue.drain(..).map(|queued| Act::Lost(queued.msg, reason.clone())));
        self.held = 0;
        self.peer = Peer::Unknown;
        self.mood = Mood::default();
        self.echoes.clear();
        // Whoever waits for an answer after all these reports sent its request: a refused dial does not tell what became of it.
        let reason = if reason == Reason::ShuttingDown { reason } else { Reason::PeerLost };
        acts.push(Act::Gone(reason));
    }

    /// Messages and bytes that are held: where either has become less there is room.
    pub(crate) fn burden(&self) -> (usize, usize) {
        (self.ledger.open() + self.queue.len(), self.held)
    }

    /// Answers and reports have room of their own, or a requester would wait in vain for one that its own requests left no room for.
    fn admit(&self, size: usize, is_answer: bool) -> Result<(), (Reason, bool)> {
        let limit = match self.peer {
            Peer::Rust { limit, .. } => limit,
            Peer::Unknown | Peer::Python { .. } => self.me.message,
        };
        if size > limit {
            return Err((Reason::TooLarge { size: size as u64, limit: limit as u64 }, false));
        }
        let (open, window) = if is_answer { (OPEN * 2, self.me.window * ANSWERS) } else { (OPEN, self.me.window) };
        let fits = self.held == 0 || self.held + size <= window || is_answer && size <= SMALL;
        if self.burden().0 >= open || !fits {
            return Err((Reason::MailboxFull, true));
        }
        Ok(())
    }

    /// How a message is counted at its destination, if there are not as many on their way there as may be: an agent that is slower than its senders makes them wait, and nobody else.
    fn seat(&mut self, msg: &Msg) -> Option<Seat> {
        if msg.is_reply() || msg.debt.is_elsewhere() {
            return Some(Seat::None);
        }
        let ahead = match self.peer {
            Peer::Rust { mailbox, .. } => self.me.ahead.min(mailbox / 2).max(1),
            Peer::Unknown | Peer::Python { .. } => self.me.ahead,
        };
        if self.lays_out()
            && let Some(places) = self.ledger.places_of_last(msg.head())
        {
            return (places.taken_by_all() < ahead).then_some(Seat::Same);
        }
        let beyond =
            |endpoint: &Option<Endpoint>| endpoint.as_ref().filter(|endpoint| **endpoint != self.name).cloned();
        let Addr { net, machine, connection } = &msg.to;
        let to = Addr { net: beyond(net), machine: beyond(machine), connection: *connection };
        if self.places.len() == self.places.capacity() {
            self.places.retain(|_, places| places.load(Ordering::Relaxed) > 0);
        }
        let places = self.places.entry(to).or_default();
        (places.load(Ordering::Relaxed) < ahead).then(|| Seat::Own(Places::one(places)))
    }

    /// Why a message cannot go to a Python router, if so.
    #[cold]
    fn barrier(&self, msg: &Msg, contents: &Encoded) -> Option<Reason> {
        if self.name.scheme() == Scheme::Ipc && msg.to.net.is_some() {
            return Some(Reason::NoRoute(format!(
                "{} is a Python router, which takes no message that came over tcp",
                self.name
            )));
        }
        let refused = wire::check(contents, Profile::Compat, "contents")
            .and_then(|()| wire::check(msg.encoded_meta(), Profile::Compat, "meta"))
            .err()?;
        Some(Reason::NotEncodable(refused.to_string()))
    }

    fn connect(&mut self, now: Instant, acts: &mut Vec<Act>) {
        if matches!(self.pipe, Pipe::None) && self.orphaned.is_none() {
            match (&self.dial, self.fallback.clone()) {
                (Some(endpoint), _) => acts.push(Act::Dial(endpoint.clone())),
                (None, Some(way)) => self.opened(way, now, acts),
                (None, None) => self.give_up(Reason::PeerLost, acts),
            }
        }
    }

    /// Takes note of who the peer is. Another incarnation is another peer: what the last one did not acknowledge is lost.
    fn meet(&mut self, hello: &Hello, acts: &mut Vec<Act>) {
        let limit = usize::try_from(hello.limit).unwrap_or(usize::MAX);
        let mailbox = usize::try_from(hello.mailbox).unwrap_or(usize::MAX);
        let met = Peer::Rust { incarnation: hello.incarnation, limit, mailbox, proven: false };
        match self.peer {
            Peer::Rust { incarnation, .. } if incarnation == hello.incarnation => {}
            Peer::Rust { .. } => {
                self.restart(&Reason::PeerLost, acts);
                self.peer = met;
                self.mood = Mood::default();
                acts.push(Act::Gone(Reason::PeerLost));
            }
            Peer::Unknown | Peer::Python { .. } => self.peer = met,
        }
        self.lose_too_large(limit, acts);
    }

    /// What was taken before the peer said its limit, and is larger, is not sent.
    fn lose_too_large(&mut self, limit: usize, acts: &mut Vec<Act>) {
        let (lost, kept): (VecDeque<_>, _) =
            mem::take(&mut self.queue).into_iter().partition(|queued| queued.size > limit);
        self.queue = kept;
        self.refuse(lost, |queued| Reason::TooLarge { size: queued.size as u64, limit: limit as u64 }, acts);
    }

    /// Reports what was taken and is not sent after all.
    #[cold]
    fn refuse(&mut self, queue: VecDeque<Queued>, reason: impl Fn(&Queued) -> Reason, acts: &mut Vec<Act>) {
        for queued in queue {
            self.held -= queued.size;
            let reason = reason(&queued);
            acts.push(Act::Lost(queued.msg, reason));
        }
    }

    /// When a peer that has not proved to be a Rust router is taken for Python, or given up if it was one.
    fn judgement(&self) -> Option<Instant> {
        let Pipe::Open(open) = &self.pipe else { return None };
        match self.peer {
            Peer::Unknown => Some(open.since + self.me.introduction),
            // It was one before the pipe was lost, or says it is: time for the answer of a busy one.
            Peer::Rust { proven: false, .. } => Some(open.since + DEAD),
            Peer::Python { .. } | Peer::Rust { .. } => None,
        }
    }

    #[cold]
    fn judge(&mut self, acts: &mut Vec<Act>) {
        if matches!(self.peer, Peer::Rust { .. }) {
            // It was a Rust router, and does not answer: whoever is there now is met anew.
            self.fallback = None;
            self.give_up(Reason::PeerLost, acts);
            return;
        }
        self.peer = Peer::Python { shown: false };
        // It may yet be a Rust router that was busy, and say what came of what it was sent. Nothing waits for that.
        self.held -= self.ledger.lighten();
        acts.push(Act::Python);
    }

    fn is_python(&self) -> bool {
        matches!(self.peer, Peer::Python { .. })
    }

    /// The peer is Python for certain, and has taken what it was sent: nothing more will be heard of that.
    #[cold]
    fn show_python(&mut self, acts: &mut Vec<Act>) {
        if self.peer == Peer::Unknown {
            self.judge(acts);
        }
        self.peer = Peer::Python { shown: true };
        let (open, freed) = self.ledger.end();
        self.held -= freed;
        self.session = scramble(self.session);
        acts.extend(open.into_iter().map(|open| let_go(open.msg)));
    }

    /// Gives a Rust peer up that has been silent for too long, unless it is this process that was asleep.
    fn look(&mut self, now: Instant, acts: &mut Vec<Act>) {
        if self.may_be_python() {
            return;
        }
        if now >= self.looked + HEARTBEAT * 2 {
            self.heard = now;
        }
        self.looked = now;
        if now >= self.heard + DEAD {
            // Its pipe to us is as silent as ours to it.
            self.fallback = None;
            self.give_up(Reason::PeerLost, acts);
        }
    }

    /// Tells the senders of what has waited for too long: what was never sent is given up, what was is still waited for.
    fn expire(&mut self, now: Instant, acts: &mut Vec<Act>) {
        let Some(since) = now.checked_sub(self.me.outcome) else { return };
        while let Some(queued) = self.queue.pop_front_if(|queued| queued.since <= since) {
            self.held -= queued.size;
            acts.push(Act::Lost(queued.msg, Reason::Expired));
        }
        if self.is_python() {
            return self.ledger.forget(since).into_iter().for_each(|run| ended(run, &Reason::NoOutcome, acts));
        }
        acts.extend(self.ledger.overdue(since).into_iter().map(Act::Overdue));
    }

    /// Tells again what the peer has not said in time to have heard.
    fn repeat(&mut self, now: Instant) {
        if self.tell_again.take_if(|due| now >= *due).is_some() {
            self.recall_told();
            self.ack_due = (!self.owed.is_empty()).then_some(now);
        }
    }

    fn recall_told(&mut self) {
        for (session, inflow) in mem::take(&mut self.told) {
            let mut told = inflow.lock();
            if told.waits_for_word() {
                told.tell_again();
                drop(told);
                note(&mut self.owed, session, &inflow);
            }
        }
    }

    /// The pipe is lost, and with it perhaps what was told on it.
    #[cold]
    fn doubt(&mut self) {
        self.recall_told();
        self.tell_again = None;
        if let Peer::Rust { proven, .. } = &mut self.peer {
            *proven = false;
        }
    }

    /// Reports what is open, with `unsent` where it cannot have been received, and begins a new session.
    #[cold]
    fn restart(&mut self, unsent: &Reason, acts: &mut Vec<Act>) {
        self.end_session(unsent, acts);
        self.doubt();
        self.owed.clear();
        self.ack_due = None;
    }

    fn end_session(&mut self, unsent: &Reason, acts: &mut Vec<Act>) {
        let (open, freed) = self.ledger.end();
        self.held -= freed;
        acts.extend(open.into_iter().map(|open| {
            let reason = if open.tried { &Reason::PeerLost } else { unsent };
            if open.told { let_go(open.msg) } else { Act::Lost(open.msg, reason.clone()) }
        }));
        self.session = scramble(self.session);
    }

    /// A message that travelled alone came back: a numbered one is still kept, another waits again.
    fn bounced_plain(&mut self, mut envelope: Envelope, now: Instant) {
        match wire::take_mark(&mut envelope.meta) {
            Some([_, session, number]) if session == self.session => self.ledger.bounced(number),
            Some(_) => {}
            None => {
                let (contents, msg) = (envelope.contents.clone(), Msg::of(envelope));
                let size = size_of(&msg, contents.wire_len());
                self.held += size;
                self.queue.push_front(Queued { msg, contents, places: None, since: now, size, rust_only: None });
            }
        }
    }

    /// Takes note of the token of a pipe that the peer made. True if it is new.
    fn hears_token(&mut self, pipe: PipeId, token: u64) -> bool {
        if self.echoes.contains(&(pipe, token)) {
            return false;
        }
        self.echoes.retain(|(theirs, _)| *theirs != pipe);
        self.echoes.push_back((pipe, token));
        if self.echoes.len() > ECHOES {
            self.echoes.pop_front();
        }
        true
    }

    fn say_hellos(&mut self) {
        let echoes: Vec<u64> = self.echoes.iter().map(|(_, token)| *token).collect();
        self.say_hello(echoes.first().copied());
        echoes.into_iter().skip(1).for_each(|echo| self.say_hello(Some(echo)));
    }

    fn say_hello(&mut self, echo: Option<u64>) {
        let Pipe::Open(open) = &mut self.pipe else { return };
        // One that still waits and echoes nothing says less.
        open.hellos.retain(|waits| waits.is_some() && *waits != echo);
        open.hellos.push_back(echo);
        if open.hellos.len() > ECHOES {
            open.hellos.pop_front();
        }
    }

    /// The frame of the next hello that waits.
    fn next_hello(&mut self) -> Option<Bytes> {
        let Pipe::Open(open) = &mut self.pipe else { return None };
        let echo = open.hellos.pop_front()?;
        let hello = Hello {
            version: VERSION,
            incarnation: self.me.incarnation,
            limit: self.me.message as u64,
            mailbox: self.me.mailbox as u64,
            at: open.way.listens.then(|| open.way.claimed.clone()),
            token: open.token,
            echo,
        };
        let mut frame = Vec::new();
        wire::write_message(&hello::write(&hello, &open.way.claimed, &self.name), &mut frame);
        Some(frame.into())
    }

    /// Hands the next frame to the transport, if there is one and it has room.
    fn pump(&mut self, now: Instant, acts: &mut Vec<Act>) {
        let Pipe::Open(open) = &mut self.pipe else { return };
        if open.busy {
            return;
        }
        let pipe = open.way.pipe;
        let frame = match self.next_hello() {
            Some(hello) => Some(hello),
            None if self.may_be_python() => self.next_plain(now, acts),
            None => self.next_frame(now),
        };
        if let (Some(frame), Pipe::Open(open)) = (frame, &mut self.pipe) {
            open.busy = true;
            acts.push(Act::Send(pipe, frame));
        }
    }

    fn next_plain(&mut self, now: Instant, acts: &mut Vec<Act>) -> Option<Bytes> {
        if self.judgement().is_some_and(|due| now >= due) {
            self.judge(acts);
        }
        let is_python = self.is_python();
        let Pipe::Open(open) = &mut self.pipe else { return None };
        // A pause that is over is nothing to wait for any more, also where something else is.
        open.paced = open.paced.filter(|until| now < *until);
        // What a lost pipe left unaccepted comes before anything newer.
        let waits_for_word = self.peer == Peer::Unknown && (open.doubtful || open.plain >= BEFORE_HELLO);
        if self.ledger.has_unsent() || open.paced.is_some() || waits_for_word {
            return None;
        }
        while let Some(mut queued) = self.queue.pop_front() {
            match queued.rust_only.take() {
                Some(reason) if is_python => {
                    self.held -= queued.size;
                    acts.push(Act::Lost(queued.msg, reason));
                }
                Some(reason) => {
                    queued.rust_only = Some(reason);
                    self.queue.push_front(queued);
                    return None;
                }
                None if queued.size > UNANNOUNCED && self.peer == Peer::Unknown => {
                    self.queue.push_front(queued);
                    return None;
                }
                None => {
                    open.paced = open.way.accepted.then(|| now + PACE);
                    open.plain += 1;
                    return Some(self.send_plain(queued, acts));
                }
            }
        }
        None
    }

    /// The frame of one message; numbered and kept, if its peer may yet turn out to be a Rust router.
    fn send_plain(&mut self, queued: Queued, acts: &mut Vec<Act>) -> Bytes {
        let is_kept = self.peer == Peer::Unknown || self.incarnation().is_some();
        let Pipe::Open(Open { way, first, .. }) = &mut self.pipe else { return Bytes::new() };
        let sent = queued.msg.id.map(|id| (queued.msg.from.connection, id));
        *first = first.or(sent);
        let mut marked = queued.msg.envelope(queued.contents.clone());
        let (size, net) = (queued.size, way.net.clone());
        let is_numbered = self.peer != Peer::Python { shown: true }
            && wire::mark(&mut marked.meta, [self.me.incarnation, self.session, self.ledger.next()]).is_ok();
        if is_numbered && is_kept {
            self.ledger.book(queued.message(&marked.contents, way));
            return plain(marked, net.as_ref());
        }
        self.held -= size;
        if is_numbered {
            let since = queued.since;
            self.ledger.remember(queued.msg, since);
            self.ledger.forget_beyond(REMEMBERED).into_iter().for_each(|run| ended(run, &Reason::NoOutcome, acts));
        } else {
            acts.push(let_go(queued.msg));
        }
        plain(marked, net.as_ref())
    }

    fn next_frame(&mut self, now: Instant) -> Option<Bytes> {
        self.load();
        let may_send = if self.may_drop() {
            self.ledger.on_their_way() < UNDIALED_FRAMES
        } else {
            self.ledger.on_their_way() < FRAMES || self.ledger.has_full()
        };
        let loaded = may_send && self.ledger.has_unsent();
        let heartbeat = now >= self.spoken + HEARTBEAT;
        if !loaded && !heartbeat && !self.urgent && self.ack_due.is_none_or(|due| now < due) {
            return None;
        }
        self.spoken = now;
        Some(self.frame(loaded, now))
    }

    /// The present pipe drops what its queue has no room for.
    fn may_drop(&self) -> bool {
        matches!(&self.pipe, Pipe::Open(open) if open.way.accepted && !open.way.lossless)
    }

    /// Moves messages from the queue into flights.
    fn load(&mut self) {
        let Pipe::Open(open) = &self.pipe else { return };
        while let Some(queued) = self.queue.pop_front() {
            let contents = queued.contents.clone();
            self.ledger.add(queued.message(&contents, &open.way));
        }
    }

    /// The frame of the first unsent flight, or of receipts alone; one of neither is a heartbeat.
    fn frame(&mut self, loaded: bool, now: Instant) -> Bytes {
        let to = self.incarnation().unwrap_or_default();
        self.told.retain(|(_, inflow)| inflow.lock().waits_for_word());
        let may_drop = self.may_drop();
        let (reported, gone) = (self.ledger.next(), self.ledger.gone(loaded));
        let mut receipts = wire::Receipts::new();
        let mut more = false;
        self.owed.retain(|(session, inflow)| {
            let mut filled = inflow.lock();
            if may_drop {
                filled.doubt();
            }
            let receipt = filled.receipt(*session, reported, gone);
            if may_drop || !receipt.failed.is_empty() {
                note(&mut self.told, *session, inflow);
            }
            receipts.push(receipt);
            more |= filled.has_more();
            filled.has_more() || filled.has_unreported()
        });
        if may_drop && !receipts.is_empty() {
            self.tell_again.get_or_insert(now + TELL_AGAIN);
        }
        // On a pipe that drops frames the rest follows when the peer has had time to say that it has heard.
        let rest = if may_drop { now + ACK_DELAY * 2 } else { now };
        self.ack_due = more.then_some(rest);
        self.ack_bytes = 0;
        self.ack_frames = 0;
        self.urgent = false;
        // Also where nothing is sent: a peer that does not have all before it knows then that something was lost.
        let first = self.ledger.next_unsent();
        let heard = self.ledger.heard();
        if loaded {
            self.ledger.launch();
        }
        // It is said when all has been sent but for answers, which alone are still taken.
        let hushed = self.mood.closing && !self.ledger.has_unsent();
        let mood = Mood { closing: self.closing, hushed, patient: !may_drop };
        let (from, session) = (self.me.incarnation, self.session);
        let header = |first| wire::Header { from, to, session, heard, mood, first, receipts };
        match self.ledger.launched().filter(|_| loaded) {
            Some(flight) => wire::launch_frame(&header(flight.first), &mut flight.block),
            None => wire::write_frame(&header(first), &Block::default()),
        }
    }
}

impl Way {
    /// Where a Rust peer answers to messages that do not say so themselves.
    fn answers_to(&self) -> Option<&Endpoint> {
        self.net.as_ref().map(|_| &self.claimed)
    }
}

impl Queued {
    fn is_answer(&self) -> bool {
        self.msg.is_reply()
    }

    /// The message as it is numbered: answers to it go to where this router listens.
    fn message<'a>(self, contents: &'a Encoded, way: &'a Way) -> Message<'a> {
        let Self { msg, places, since, size, .. } = self;
        let seat = places.map_or(Seat::None, Seat::Own);
        Message { msg, contents: contents.lend(), net: way.answers_to(), seat, size, since }
    }
}

/// Tells the senders of messages that nobody knows of their end, unless they have been told already.
fn ended(run: Run, reason: &Reason, acts: &mut Vec<Act>) {
    if run.told {
        acts.push(Act::Settled(run.debts, false));
    } else {
        acts.extend(run.messages().into_iter().map(|msg| Act::Lost(msg, reason.clone())));
    }
}

/// Nothing more will be heard of a message.
fn let_go(mut msg: Msg) -> Act {
    Act::Settled(Debts::of(mem::take(&mut msg.debt)), false)
}

#[inline]
fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}

fn size_of(msg: &Msg, contents: usize) -> usize {
    contents + msg.encoded_meta().wire_len() + msg.subject.len() + ENVELOPE
}

/// A message as Python reads it. Over tcp its reply address has a `net`, also where nobody can be answered: Python looks for one otherwise, and dies if
/// the pipe has gone.
fn plain(mut envelope: Envelope, net: Option<&Endpoint>) -> Bytes {
    envelope.from.net = envelope.from.net.or_else(|| net.cloned());
    let mut frame = Vec::with_capacity(envelope.contents.wire_len() + ENVELOPE);
    wire::write_message(&envelope, &mut frame);
    frame.into()
}

/// The next number of a sequence that does not show its seed (splitmix64).
fn scramble(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    // Ids travel as Ion ints that any reader takes: 63 bits.
    (mixed ^ (mixed >> 31)) >> 1
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
