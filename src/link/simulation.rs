//! Routers that send to each other over a network that fails, from a seed: every promise of the link is looked at after every event.
//!
//! Pipes stall, break and are refused; routers freeze, crash and come back. Each message's fate is written down where it is sent and where it is handled, and compared.
//! `VLM_SEEDS=100000 cargo test --lib simulation` runs more seeds than the usual; `VLM_SEED=17` replays one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use smol_str::SmolStr;

use super::hello;
use super::inflow::{Inflow, Tell, Verdict};
use super::*;
use crate::addr::Addr;
use crate::contents::Contents;
use crate::msg::{Creditor, Debt};
use crate::transport::{DialError, PipeId};
use crate::wire::{self, Encoded, FrameKind, Head, How};

/// Seeds that `cargo test` runs: about ten seconds without optimisation.
const SEEDS: u64 = 200;
/// How long routers send and faults happen, and how long everything has to come to rest.
const TROUBLE: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(30);

/// What became of one message.
#[derive(Clone, Debug, Default)]
struct Fate {
    handled: u32,
    /// It came to its end where it was received, without a handler.
    failed: Option<How>,
    settled: u32,
    lost: Vec<Reason>,
    /// The incarnation that sent it.
    sender: u64,
    /// The sender itself is no more: nobody can be told.
    orphan: bool,
}

type Fates = Rc<RefCell<Vec<Fate>>>;

/// Notes what the link says that has become of messages.
#[derive(Default)]
struct Marks(Mutex<Vec<(usize, bool)>>);

impl Creditor for Marks {
    fn settle(&self, number: u64, handled: bool) {
        self.0.lock().push((usize::try_from(number).unwrap(), handled));
    }
}

struct Node {
    incarnation: u64,
    thaws: Instant,
    links: BTreeMap<usize, Link>,
    inflows: BTreeMap<(u64, u64), Arc<Mutex<Inflow>>>,
    /// By incarnation, which router that is.
    known: BTreeMap<u64, usize>,
    /// The last message handled of each sender.
    last: BTreeMap<u64, usize>,
}

struct PipeState {
    ends: [usize; 2],
    lives: [u64; 2],
    open: bool,
    stalled: Instant,
    /// When the last frame in each direction arrives, and those on their way to each end: frames do not overtake.
    arrives: [Instant; 2],
    frames: [VecDeque<Bytes>; 2],
}

#[derive(Debug)]
enum Happening {
    DialEnds(PipeId),
    Frame(PipeId, usize),
    Sent(PipeId, usize),
    Closed(PipeId, usize),
    Tick(usize, usize),
    Settle { node: usize, life: u64, sender: u64, session: u64, number: u64, failed: Option<How> },
    Push(usize, usize),
    Fault,
}

struct World {
    rng: u64,
    now: Instant,
    ends: Instant,
    count: u64,
    queue: BinaryHeap<std::cmp::Reverse<(Instant, u64)>>,
    what: BTreeMap<u64, Happening>,
    nodes: Vec<Node>,
    pipes: BTreeMap<PipeId, PipeState>,
    lives: u64,
    /// When a link is looked at next.
    armed: BTreeMap<(usize, usize), Instant>,
    fates: Fates,
    settled: Arc<Marks>,
    /// What the messages of one life to one node look like.
    heads: BTreeMap<(u64, usize), Arc<Head>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut world = Self {
            rng: scramble(seed),
            now,
            ends: now + TROUBLE,
            count: 0,
            queue: BinaryHeap::new(),
            what: BTreeMap::new(),
            nodes: Vec::new(),
            pipes: BTreeMap::new(),
            lives: 0,
            armed: BTreeMap::new(),
            fates: Fates::default(),
            settled: Arc::default(),
            heads: BTreeMap::new(),
        };
        let size = 2 + world.below(4);
        for _ in 0..size {
            let node = world.born();
            world.nodes.push(node);
        }
        for _ in 0..200 {
            let at = world.within(TROUBLE);
            let (from, to) = (world.below(size), world.below(size));
            if from != to {
                world.later(at, Happening::Push(from, to));
            }
        }
        for _ in 0..12 {
            let at = world.within(TROUBLE);
            world.later(at, Happening::Fault);
        }
        world
    }

    fn born(&mut self) -> Node {
        self.lives += 1;
        Node {
            incarnation: self.lives,
            thaws: self.now,
            links: BTreeMap::new(),
            inflows: BTreeMap::new(),
            known: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.rng = scramble(self.rng);
        usize::try_from(self.rng % limit as u64).unwrap()
    }

    fn within(&mut self, span: Duration) -> Duration {
        let micros = self.below(usize::try_from(span.as_micros()).unwrap());
        Duration::from_micros(micros as u64)
    }

    fn later(&mut self, after: Duration, what: Happening) {
        self.at(self.now + after, what);
    }

    fn at(&mut self, at: Instant, what: Happening) {
        self.count += 1;
        self.queue.push(std::cmp::Reverse((at, self.count)));
        self.what.insert(self.count, what);
    }

    fn run(&mut self) {
        while let Some(std::cmp::Reverse((at, number))) = self.queue.pop() {
            if at > self.ends + REST {
                return;
            }
            self.now = self.now.max(at);
            let what = self.what.remove(&number).unwrap();
            self.happen(what);
            self.look();
        }
    }

    /// What must hold after every event.
    fn look(&mut self) {
        let mut fates = self.fates.borrow_mut();
        for (number, handled) in self.settled.0.lock().drain(..) {
            let fate = &mut fates[number];
            // A report and its debt come together: the report is what the sender was told.
            if fate.lost.is_empty() && !fate.orphan {
                fate.settled += 1;
                assert_eq!(fate.handled, 1, "message {number} was said to be settled: {fate:?}");
                assert_eq!(fate.failed, (!handled).then_some(How::Reported), "message {number}: {fate:?}");
            }
            assert!(fate.settled as usize + fate.lost.len() <= 1, "message {number} has two outcomes: {fate:?}");
            assert!(fate.handled <= 1, "message {number} was handled twice: {fate:?}");
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            // Some in a row, which are remembered together.
            Happening::Push(from, to) => (0..[1, 1, 5][self.below(3)]).for_each(|_| self.push(from, to)),
            Happening::Fault => self.fault(),
            Happening::DialEnds(pipe) => self.dial_ends(pipe),
            Happening::Tick(node, peer) => {
                self.armed.remove(&(node, peer));
                self.with(node, peer, super::Link::tick);
            }
            Happening::Settle { node, life, sender, session, number, failed } => {
                if self.nodes[node].incarnation == life {
                    self.settle(node, sender, session, number, failed);
                }
            }
            Happening::Sent(pipe, end) => self.at_end(pipe, end, |world, node, peer| {
                world.with(node, peer, |link, now, acts| link.sent(pipe, now, acts));
            }),
            Happening::Closed(pipe, end) => self.at_end(pipe, end, |world, node, peer| {
                world.with(node, peer, |link, now, acts| link.closed(pipe, now, acts));
            }),
            Happening::Frame(pipe, end) => {
                let state = self.pipes.get_mut(&pipe).unwrap();
                let node = &self.nodes[state.ends[end]];
                let (until, is_there) = (state.stalled.max(node.thaws), state.lives[end] == node.incarnation);
                if is_there && until > self.now {
                    self.at(until, Happening::Frame(pipe, end));
                } else if let Some(frame) = state.frames[end].pop_front().filter(|_| is_there && state.open) {
                    self.receive(pipe, end, &frame);
                }
            }
        }
    }

    /// Does something at one end of a pipe, if the router there still lives.
    fn at_end(&mut self, pipe: PipeId, end: usize, act: impl FnOnce(&mut Self, usize, usize)) {
        let Some(state) = self.pipes.get(&pipe) else { return };
        let (node, peer) = (state.ends[end], state.ends[1 - end]);
        if self.nodes[node].incarnation == state.lives[end] {
            act(self, node, peer);
        }
    }

    fn push(&mut self, from: usize, to: usize) {
        let number = self.fates.borrow().len();
        self.fates.borrow_mut().push(Fate { sender: self.nodes[from].incarnation, ..Fate::default() });
        let incarnation = self.nodes[from].incarnation;
        let head = self.heads.entry((incarnation, to)).or_insert_with(|| {
            let (from, to) = (Addr::local(incarnation), Addr::at(name(to), 3));
            Arc::new(Head { to, from, subject: SmolStr::new_static("EVENT"), hops: 0 })
        });
        let mut msg = Msg::with(head.clone(), Contents::null());
        msg.id = Some(number as i64);
        msg.debt = Debt::to(self.settled.clone(), number as u64);
        let fates = self.fates.clone();
        self.with(from, to, |link, now, acts| match link.take(&mut Some(msg), Encoded::null().lend(), now) {
            Ok(()) => link.go_on(now, acts),
            Err(refused) => fates.borrow_mut()[number].lost.push(refused.reason),
        });
    }

    fn with(&mut self, node: usize, peer: usize, decide: impl FnOnce(&mut Link, Instant, &mut Vec<Act>)) {
        // Not a number of the world's own sequence: sessions go on from it in the same way.
        let (seed, now) = (self.rng.rotate_left(17) ^ self.count, self.now);
        let incarnation = self.nodes[node].incarnation;
        let me = Me {
            incarnation,
            message: 1 << 20,
            mailbox: 1 << 20,
            window: 1 << 20,
            ahead: 1 << 20,
            outcome: Duration::from_secs(100),
            introduction: Duration::from_secs(100),
        };
        let link = self.nodes[node]
            .links
            .entry(peer)
            .or_insert_with(|| Link::new(me, name(peer), Some(name(peer)), seed, now));
        let mut acts = Vec::new();
        decide(link, now, &mut acts);
        let deadline = link.deadline();
        for act in acts {
            self.carry_out(node, peer, act);
        }
        if let Some(at) = deadline.map(|at| at.max(self.now + Duration::from_millis(1)))
            && self.armed.get(&(node, peer)).is_none_or(|armed| at < *armed)
        {
            self.armed.insert((node, peer), at);
            self.at(at, Happening::Tick(node, peer));
        }
    }

    fn carry_out(&mut self, node: usize, peer: usize, act: Act) {
        match act {
            Act::Dial(_) => self.dial(node, peer),
            Act::Send(pipe, frame) => self.send(node, peer, pipe, frame),
            Act::Close(pipe) => self.close(pipe),
            Act::Abandon(incarnation) => {
                let inflows = self.nodes[node].inflows.iter().filter(|((sender, _), _)| *sender == incarnation);
                inflows.for_each(|(_, inflow)| inflow.lock().reports_are_lost());
                let life = self.nodes[node].incarnation;
                let made = |state: &PipeState| state.ends == [peer, node] && state.lives[1] == life;
                for pipe in
                    self.pipes.iter().filter(|(_, state)| made(state)).map(|(pipe, _)| *pipe).collect::<Vec<_>>()
                {
                    self.close(pipe);
                }
            }
            Act::Lost(msg, reason) => {
                let number = usize::try_from(msg.id.unwrap()).unwrap();
                let mut fates = self.fates.borrow_mut();
                let fate = &mut fates[number];
                let unread = fate.failed == Some(How::Unread) && matches!(reason, Reason::NotEncodable(_));
                assert!(
                    fate.handled == 0 || reason == Reason::PeerLost || unread,
                    "message {number} was handled, and told {reason}"
                );
                fate.lost.push(reason);
            }
            Act::Settled(debts, handled) => debts.settle(handled),
            Act::Overdue(head) => panic!("there is time for {head:?}"),
            Act::Up(incarnation) => {
                let inflows = self.nodes[node].inflows.iter().filter(|((sender, _), _)| *sender == incarnation);
                for (session, inflow) in
                    inflows.map(|((_, session), inflow)| (*session, inflow.clone())).collect::<Vec<_>>()
                {
                    inflow.lock().tell_again();
                    self.with(node, peer, |link, now, acts| link.owe(session, &inflow, 0, false, now, acts));
                }
            }
            Act::Python | Act::Gone(_) => {}
        }
    }

    fn dial(&mut self, node: usize, peer: usize) {
        self.count += 1;
        let pipe = PipeId(self.count);
        let lives = [self.nodes[node].incarnation, self.nodes[peer].incarnation];
        let now = self.now;
        self.pipes.insert(
            pipe,
            PipeState {
                ends: [node, peer],
                lives,
                open: false,
                stalled: now,
                arrives: [now; 2],
                frames: Default::default(),
            },
        );
        self.nodes[node].links.get_mut(&peer).unwrap().dialing(pipe, now);
        let after = Duration::from_micros(200) + self.within(Duration::from_millis(3));
        self.later(after, Happening::DialEnds(pipe));
    }

    fn dial_ends(&mut self, pipe: PipeId) {
        let state = self.pipes.get_mut(&pipe).unwrap();
        let [dialer, listener] = state.ends;
        let is_there = self.nodes[listener].incarnation == state.lives[1];
        state.open = is_there;
        self.at_end(pipe, 0, |world, node, peer| {
            world.with(node, peer, |link, now, acts| {
                if is_there {
                    link.opened(way(pipe, dialer), now, acts);
                } else {
                    link.dial_failed(pipe, &DialError::Refused, now, acts);
                }
            });
        });
    }

    fn send(&mut self, node: usize, peer: usize, pipe: PipeId, frame: Bytes) {
        let delay = Duration::from_micros(50) + self.within(Duration::from_millis(2));
        let state = self.pipes.get_mut(&pipe).unwrap();
        let end = usize::from(state.ends[0] == node);
        if !state.open {
            self.with(node, peer, |link, now, acts| link.bounced(pipe, &frame, now, acts));
            return;
        }
        let arrives = (self.now + delay).max(state.arrives[end] + Duration::from_nanos(1));
        state.arrives[end] = arrives;
        state.frames[end].push_back(frame);
        self.at(arrives, Happening::Frame(pipe, end));
        self.at(arrives, Happening::Sent(pipe, 1 - end));
    }

    fn close(&mut self, pipe: PipeId) {
        if let Some(state) = self.pipes.get_mut(&pipe)
            && state.open
        {
            state.open = false;
            for end in 0..2 {
                let after = self.within(Duration::from_millis(2));
                self.later(after, Happening::Closed(pipe, end));
            }
        }
    }

    fn receive(&mut self, pipe: PipeId, end: usize, frame: &Bytes) {
        let state = &self.pipes[&pipe];
        let (node, peer) = (state.ends[end], state.ends[1 - end]);
        match wire::kind(frame) {
            FrameKind::Link => {
                let (header, bodies) = wire::read_frame(frame).unwrap();
                self.link_frame(pipe, node, &header, &bodies);
            }
            FrameKind::Message => {
                let mut envelope = wire::read_message(frame, Profile::Rust).unwrap();
                if let Some(greeting) = hello::read(&envelope) {
                    return self.greeted(pipe, node, peer, &greeting);
                }
                let [sender, session, number] = wire::take_mark(&mut envelope.meta).unwrap();
                if self.nodes[node].links.get(&peer).and_then(Link::incarnation) != Some(sender) {
                    return self.close(pipe);
                }
                let header = wire::Header {
                    from: sender,
                    to: self.nodes[node].incarnation,
                    session,
                    heard: 0,
                    mood: Mood::default(),
                    first: number,
                    receipts: wire::Receipts::new(),
                };
                self.numbered(pipe, node, &header, &[envelope]);
            }
        }
    }

    fn greeted(&mut self, pipe: PipeId, node: usize, peer: usize, greeting: &hello::Greeting) {
        let hello = greeting.hello.clone().unwrap();
        let token = self.nodes[node].links.get(&peer).and_then(Link::token);
        self.nodes[node].known.insert(hello.incarnation, peer);
        let echoed = hello.echo.is_some() && hello.echo == token;
        self.with(node, peer, |link, now, acts| {
            if echoed {
                link.proven(&hello, pipe, now, acts);
            } else {
                link.greeted(greeting, Way { accepted: true, ..way(pipe, node) }, now, acts);
            }
        });
    }

    fn link_frame(&mut self, pipe: PipeId, node: usize, header: &wire::Header, bodies: &wire::Bodies) {
        let known = self.nodes[node].known.get(&header.from).copied();
        let sender = known.filter(|peer| self.nodes[node].links[peer].incarnation() == Some(header.from));
        let Some(peer) = sender.filter(|_| header.to == self.nodes[node].incarnation) else {
            return self.close(pipe);
        };
        self.with(node, peer, |link, now, acts| {
            link.heard(header.mood, now, acts);
            let session = link.session();
            for receipt in header.receipts.iter().filter(|receipt| receipt.session == session) {
                link.receipt(receipt, now, acts);
            }
        });
        let envelopes: Vec<_> = bodies.iter().map(Result::unwrap).collect();
        self.numbered(pipe, node, header, &envelopes);
    }

    fn numbered(&mut self, pipe: PipeId, node: usize, header: &wire::Header, envelopes: &[Envelope]) {
        let peer = self.nodes[node].known[&header.from];
        let inflow = self.nodes[node].inflows.entry((header.from, header.session)).or_default().clone();
        inflow.lock().heard(header.heard);
        let verdict = inflow.lock().receive(header.first, envelopes.len());
        let Verdict::Take { skip } = verdict else { return self.close(pipe) };
        if envelopes.is_empty() {
            return;
        }
        for (number, envelope) in (header.first..).zip(envelopes).skip(skip) {
            let message = usize::try_from(envelope.id.unwrap()).unwrap();
            let last = self.nodes[node].last.insert(header.from, message);
            assert!(last.is_none_or(|last| last < message), "message {message} came after {last:?}");
            let failed = match self.below(8) {
                0 => Some(How::Reported),
                1 => Some(How::Unread),
                _ => None,
            };
            let mut fates = self.fates.borrow_mut();
            fates[message].handled += 1;
            fates[message].failed = failed;
            drop(fates);
            let life = self.nodes[node].incarnation;
            let after = self.within(Duration::from_millis(30));
            let (sender, session) = (header.from, header.session);
            self.later(after, Happening::Settle { node, life, sender, session, number, failed });
        }
        let session = header.session;
        self.with(node, peer, |link, now, acts| link.owe(session, &inflow, 0, false, now, acts));
    }

    /// A handler has returned, or there was none.
    fn settle(&mut self, node: usize, sender: u64, session: u64, number: u64, failed: Option<How>) {
        let inflow = self.nodes[node].inflows[&(sender, session)].clone();
        let tell = match failed {
            None => inflow.lock().settle(number, 1),
            Some(how) => inflow.lock().fail(number, 1, how),
        };
        if let Some(&peer) = self.nodes[node].known.get(&sender).filter(|_| tell != Tell::AsBefore) {
            self.with(node, peer, |link, now, acts| link.owe(session, &inflow, 0, tell == Tell::Now, now, acts));
        }
    }

    fn fault(&mut self) {
        let node = self.below(self.nodes.len());
        let pipes: Vec<PipeId> = {
            let mut pipes: Vec<_> = self.pipes.iter().filter(|(_, state)| state.open).map(|(pipe, _)| *pipe).collect();
            pipes.sort();
            pipes
        };
        match self.below(4) {
            0 => self.crash(node, &pipes),
            1 => self.nodes[node].thaws = self.now + self.within(Duration::from_secs(3)),
            2 if !pipes.is_empty() => {
                let index = self.below(pipes.len());
                self.close(pipes[index]);
            }
            _ if !pipes.is_empty() => {
                let pipe = pipes[self.below(pipes.len())];
                let until = self.now + self.within(Duration::from_secs(6));
                self.pipes.get_mut(&pipe).unwrap().stalled = until;
            }
            _ => {}
        }
    }

    /// The router is killed, and another starts in its place.
    fn crash(&mut self, node: usize, pipes: &[PipeId]) {
        let reborn = self.born();
        let dead = mem::replace(&mut self.nodes[node], reborn);
        for fate in self.fates.borrow_mut().iter_mut().filter(|fate| fate.sender == dead.incarnation) {
            fate.orphan = fate.settled == 0 && fate.lost.is_empty();
        }
        drop(dead);
        for pipe in pipes {
            if self.pipes[pipe].ends.contains(&node) {
                self.close(*pipe);
            }
        }
    }
}

fn name(node: usize) -> Endpoint {
    Endpoint::from(format!("ipc:///tmp/router_{node}"))
}

fn way(pipe: PipeId, node: usize) -> Way {
    Way { pipe, accepted: false, lossless: false, claimed: name(node), listens: true, net: None }
}

/// Runs one seed, and looks at what became of every message when all has come to rest.
fn play(seed: u64) {
    let mut world = World::new(seed);
    world.run();
    for (number, fate) in world.fates.borrow().iter().enumerate().filter(|(_, fate)| !fate.orphan) {
        assert_eq!(fate.settled as usize + fate.lost.len(), 1, "message {number} has no outcome: {fate:?}");
    }
}

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn every_message_has_one_outcome_and_is_handled_once_and_in_order_whatever_fails() {
    let one = number_in("VLM_SEED");
    let seeds = one.map_or(0..number_in("VLM_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    for seed in seeds {
        let failed = std::panic::catch_unwind(|| play(seed)).is_err();
        assert!(!failed, "seed {seed} broke a promise: VLM_SEED={seed} replays it");
    }
}
