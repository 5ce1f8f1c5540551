//! A network of transports in one process whose clock stands still until it is moved: for tests.
//!
//! Frames travel as bytes over links with a delay. Links can be cut, which nobody is told, and healed; a transport can be killed,
//! which its peers are told at once as when a process dies, or frozen, so that it takes things in and handles nothing.
//!
//! # Contract
//!
//! Nothing happens but in [`MemoryNet::advance`]: whatever is due is told there, in order of time and then of cause, so that
//! the same calls give the same events; `advance(Duration::ZERO)` tells what is due now. No lock is held while a sink runs,
//! so it may call back. There are no threads.
//!
//! # Not modelled
//!
//! Bandwidth, loss other than by a cut, and order between different pipes of equal delay beyond the order of sending.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{DialError, Event, EventSink, ListenError, Options, Origin, PipeId, SendError, Transport};
use crate::addr::{Endpoint, Scheme};

/// What a link takes for a frame unless it was set: about what a socket of one machine takes.
const DEFAULT_DELAY: Duration = Duration::from_micros(50);
/// Frames that an accepted pipe holds for a peer that has not got them; further ones are dropped, as nng does.
const UNDELIVERED: usize = 2;
/// Where ports begin that are given for port 0.
const FIRST_PORT: u16 = 40_000;

/// The network: its clock, its links and who is on it. Cheap to clone.
#[derive(Clone)]
pub struct MemoryNet {
    state: Arc<Mutex<State>>,
}

/// One process on the network.
pub struct MemoryTransport {
    net: MemoryNet,
    node: Node,
}

/// The name of a transport within its network.
type Node = usize;
/// Which end of a wire: [`DIALER`] or [`LISTENER`].
type End = usize;

const DIALER: End = 0;
const LISTENER: End = 1;

#[derive(Default)]
struct State {
    now: Duration,
    order: u64,
    due: BTreeMap<(Duration, u64), Due>,
    hosts: Vec<Host>,
    listeners: HashMap<Endpoint, Node>,
    wires: Vec<Wire>,
    delays: HashMap<(Node, Node), Duration>,
    cuts: HashSet<(Node, Node)>,
    next_port: u16,
}

struct Host {
    sink: EventSink,
    options: Options,
    dead: bool,
    keeps_all: bool,
    frozen: bool,
    /// What came while it was frozen.
    kept: Vec<Due>,
    pipes: HashMap<PipeId, (usize, End)>,
    next: u64,
}

/// One connection, from the first attempt on.
struct Wire {
    to: Endpoint,
    /// The dialer's own TCP address.
    from: Option<Endpoint>,
    ends: [Side; 2],
    spoken: bool,
    /// A cut has swallowed something: the rest never arrives either, as in a broken stream.
    severed: bool,
}

#[derive(Clone, Copy)]
struct Side {
    node: Node,
    pipe: PipeId,
    stage: Stage,
    /// A frame was taken and `Sent` not told.
    sending: bool,
    /// Frames on their way from here.
    undelivered: usize,
    /// When the last of what was sent from here arrives: nothing overtakes it.
    last_arrival: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Absent,
    Dialing,
    Open,
    Over,
}

/// What will happen.
#[derive(Clone)]
enum Due {
    Knock { wire: usize },
    Answer { wire: usize },
    Refused { wire: usize },
    GiveUp { wire: usize },
    Silence { wire: usize },
    Frame { wire: usize, to: End, frame: Bytes },
    Hangup { wire: usize, to: End },
    Sent { wire: usize, end: End },
    Tell { node: Node, event: Event },
}

type Told = Option<(Node, Event)>;

impl Default for MemoryNet {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryNet {
    /// A network without anybody, at time zero.
    #[must_use]
    pub fn new() -> Self {
        let state = State { next_port: FIRST_PORT, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A new process on the network.
    pub fn transport(&self, sink: EventSink, options: Options) -> Arc<MemoryTransport> {
        let mut state = self.state.lock();
        state.hosts.push(Host {
            sink,
            options,
            dead: false,
            keeps_all: false,
            frozen: false,
            kept: Vec::new(),
            pipes: HashMap::new(),
            next: 1,
        });
        Arc::new(MemoryTransport { net: self.clone(), node: state.hosts.len() - 1 })
    }

    /// The time since the network was made.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.state.lock().now
    }

    /// When the next thing happens, if nobody does anything until then.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.state.lock().due.keys().next().map(|(at, _)| *at)
    }

    /// Moves the clock, and tells all that is due until then.
    pub fn advance(&self, by: Duration) {
        let end = self.now() + by;
        while let Some(told) = self.step(end) {
            if let Some((sink, event)) = told {
                sink(event);
            }
        }
        let mut state = self.state.lock();
        state.now = state.now.max(end);
    }

    /// Sets how long a frame takes between two, both ways, from now on. Default 50 µs.
    pub fn set_delay(&self, a: &MemoryTransport, b: &MemoryTransport, delay: Duration) {
        let link = link(a.node, b.node);
        self.state.lock().delays.insert(link, delay);
    }

    /// Unplugs the cable between two: what is on its way and what is sent later vanishes, and nobody is told.
    pub fn cut(&self, a: &MemoryTransport, b: &MemoryTransport) {
        self.state.lock().cut(link(a.node, b.node));
    }

    /// Plugs it in again: new connections work, and old ones that lost nothing. One that lost something stays mute.
    pub fn heal(&self, a: &MemoryTransport, b: &MemoryTransport) {
        self.state.lock().cuts.remove(&link(a.node, b.node));
    }

    /// Resets every connection between two: what is on its way is lost, and both are told `Closed`. New ones can be made.
    pub fn reset(&self, a: &MemoryTransport, b: &MemoryTransport) {
        self.state.lock().reset(link(a.node, b.node));
    }

    /// Ends a process: its peers are told `Closed`, nobody is at its endpoints any more, and it is told nothing.
    pub fn kill(&self, transport: &MemoryTransport) {
        self.state.lock().kill(transport.node);
    }

    /// Lets a process take things in without handling them.
    pub fn freeze(&self, transport: &MemoryTransport) {
        self.state.lock().hosts[transport.node].frozen = true;
    }

    /// Lets it handle what it took in, at the next `advance`.
    pub fn thaw(&self, transport: &MemoryTransport) {
        let mut state = self.state.lock();
        let host = &mut state.hosts[transport.node];
        host.frozen = false;
        for due in std::mem::take(&mut host.kept) {
            state.after(Duration::ZERO, due);
        }
    }

    /// Does the next thing that is due until `end`; whom to tell what.
    fn step(&self, end: Duration) -> Option<Option<(EventSink, Event)>> {
        let mut state = self.state.lock();
        let next = state.due.first_entry()?;
        let at = next.key().0;
        if at > end {
            return None;
        }
        let due = next.remove();
        state.now = state.now.max(at);
        let told = state.happen(due);
        let told = told.filter(|(node, _)| !state.hosts[*node].dead);
        Some(told.map(|(node, event)| (state.hosts[node].sink.clone(), event)))
    }
}

impl MemoryTransport {
    /// Drops nothing on accepted pipes from now on, as sockets in Rust alone.
    pub fn keep_all(&self) {
        self.net.state.lock().hosts[self.node].keeps_all = true;
    }
}

impl Transport for MemoryTransport {
    fn listen(&self, at: &Endpoint) -> Result<Endpoint, ListenError> {
        self.net.state.lock().listen(self.node, at)
    }

    fn dial(&self, to: &Endpoint) -> PipeId {
        self.net.state.lock().dial(self.node, to)
    }

    fn send(&self, pipe: PipeId, frame: Bytes) -> Result<(), SendError> {
        self.net.state.lock().send(self.node, pipe, frame)
    }

    fn keeps_all(&self) -> bool {
        self.net.state.lock().hosts[self.node].keeps_all
    }

    fn close(&self, pipe: PipeId) {
        self.net.state.lock().close(self.node, pipe);
    }

    fn shutdown(&self, _limit: Duration) {
        self.net.state.lock().kill(self.node);
    }
}

/// What the transports ask for.
impl State {
    fn listen(&mut self, node: Node, at: &Endpoint) -> Result<Endpoint, ListenError> {
        let bound = match at.scheme() {
            Scheme::Unknown => {
                let reason = "an endpoint begins with ipc:// or tcp://".into();
                return Err(ListenError::Invalid { at: at.clone(), reason });
            }
            Scheme::Tcp => match at.as_str().strip_suffix(":0") {
                Some(host) => Endpoint::from(format!("{host}:{}", self.new_port())),
                None => at.clone(),
            },
            Scheme::Ipc => at.clone(),
        };
        if self.listeners.contains_key(&bound) {
            return Err(ListenError::InUse { at: at.clone() });
        }
        self.listeners.insert(bound.clone(), node);
        Ok(bound)
    }

    fn dial(&mut self, node: Node, to: &Endpoint) -> PipeId {
        let wire = self.wires.len();
        let pipe = self.new_pipe(node, wire, DIALER);
        let tcp = to.scheme() == Scheme::Tcp;
        let from = tcp.then(|| Endpoint::from(format!("tcp://127.0.0.1:{}", self.new_port())));
        let dialer = Side::new(node, pipe, Stage::Dialing);
        let nobody = Side::new(node, PipeId(0), Stage::Absent);
        self.wires.push(Wire { to: to.clone(), from, ends: [dialer, nobody], spoken: false, severed: false });
        if to.scheme() == Scheme::Unknown {
            let error = DialError::Invalid("an endpoint begins with ipc:// or tcp://".into());
            self.end(wire, DIALER);
            self.tell(node, Event::DialFailed { pipe, error });
            return pipe;
        }
        let there = self.listeners.get(to).copied();
        let delay = there.map_or(Duration::ZERO, |there| self.delay(node, there));
        self.after(delay, Due::Knock { wire });
        let limit = self.hosts[node].options.dial_limit;
        self.after(limit, Due::GiveUp { wire });
        pipe
    }

    fn send(&mut self, node: Node, pipe: PipeId, frame: Bytes) -> Result<(), SendError> {
        let Some((wire, end)) = self.hosts[node].pipes.get(&pipe).copied() else {
            return Err(SendError::Gone(frame));
        };
        let side = &mut self.wires[wire].ends[end];
        if side.stage != Stage::Open {
            return Err(SendError::Gone(frame));
        }
        if side.sending {
            return Err(SendError::Busy(frame));
        }
        side.sending = true;
        let dropped = end == LISTENER && side.undelivered >= UNDELIVERED && !self.hosts[node].keeps_all;
        self.after(Duration::ZERO, Due::Sent { wire, end });
        if !dropped {
            self.wires[wire].ends[end].undelivered += 1;
            self.wires[wire].spoken |= end == DIALER;
            let to = other(end);
            self.travel(wire, end, Due::Frame { wire, to, frame });
        }
        Ok(())
    }

    fn close(&mut self, node: Node, pipe: PipeId) {
        let Some((wire, end)) = self.hosts[node].pipes.get(&pipe).copied() else {
            return;
        };
        let event = self.last_event(wire, end, DialError::Closed);
        self.hang_up(wire, end);
        self.tell(node, event);
    }

    fn kill(&mut self, node: Node) {
        self.hosts[node].dead = true;
        self.listeners.retain(|_, listener| *listener != node);
        let mut pipes: Vec<_> = self.hosts[node].pipes.values().copied().collect();
        pipes.sort_unstable(); // So that a run is like the other.
        for (wire, end) in pipes {
            self.hang_up(wire, end);
        }
    }

    fn reset(&mut self, link: (Node, Node)) {
        for wire in 0..self.wires.len() {
            if self.link_of(wire) != Some(link) {
                continue;
            }
            for end in [DIALER, LISTENER] {
                let Side { node, pipe, stage, .. } = self.wires[wire].ends[end];
                if stage == Stage::Open {
                    if self.wires[wire].ends[other(end)].stage == Stage::Dialing {
                        // It hears of the end behind the answer that is on its way.
                        self.hang_up(wire, end);
                    } else {
                        self.end(wire, end);
                    }
                    self.tell(node, Event::Closed { pipe });
                }
            }
        }
    }

    fn cut(&mut self, link: (Node, Node)) {
        self.cuts.insert(link);
        let on_their_way: Vec<usize> = self.due.values().filter_map(Due::travels).collect();
        for wire in on_their_way {
            if self.link_of(wire) == Some(link) {
                self.wires[wire].severed = true;
            }
        }
    }
}

/// What happens by itself.
impl State {
    fn happen(&mut self, due: Due) -> Told {
        if let Some(node) = self.handled_by(&due)
            && self.hosts[node].frozen
        {
            self.hosts[node].kept.push(due);
            return None;
        }
        match due {
            Due::Knock { wire } => self.knock(wire),
            Due::Answer { wire } => self.answered(wire),
            Due::Refused { wire } => self.dial_failed(wire, DialError::Refused),
            Due::GiveUp { wire } => {
                let limit = self.hosts[self.wires[wire].ends[DIALER].node].options.dial_limit;
                self.dial_failed(wire, DialError::TimedOut(limit))
            }
            Due::Silence { wire } => self.silence(wire),
            Due::Frame { wire, to, frame } => self.arrive(wire, to, frame),
            Due::Hangup { wire, to } => self.hung_up(wire, to),
            Due::Sent { wire, end } => self.sent(wire, end),
            Due::Tell { node, event } => Some((node, event)),
        }
    }

    /// Somebody is at the door: let in, turned away where nobody listens, unheard where the link is cut.
    fn knock(&mut self, wire: usize) -> Told {
        let dialer = self.wires[wire].ends[DIALER];
        if dialer.stage != Stage::Dialing {
            return None;
        }
        let to = self.wires[wire].to.clone();
        let Some(node) = self.listeners.get(&to).copied() else {
            self.after(Duration::ZERO, Due::Refused { wire });
            return None;
        };
        if self.cuts.contains(&link(dialer.node, node)) {
            return None; // The dialer gives up by itself.
        }
        let pipe = self.new_pipe(node, wire, LISTENER);
        self.wires[wire].ends[LISTENER] = Side::new(node, pipe, Stage::Open);
        self.travel(wire, LISTENER, Due::Answer { wire });
        if to.scheme() == Scheme::Ipc {
            let limit = self.hosts[node].options.silent_limit;
            self.after(limit, Due::Silence { wire });
        }
        Some((node, self.opened(wire, LISTENER)))
    }

    fn answered(&mut self, wire: usize) -> Told {
        let side = &mut self.wires[wire].ends[DIALER];
        if side.stage != Stage::Dialing || self.wires[wire].severed {
            return None;
        }
        self.wires[wire].ends[DIALER].stage = Stage::Open;
        let node = self.wires[wire].ends[DIALER].node;
        Some((node, self.opened(wire, DIALER)))
    }

    fn dial_failed(&mut self, wire: usize, error: DialError) -> Told {
        let side = self.wires[wire].ends[DIALER];
        if side.stage != Stage::Dialing {
            return None;
        }
        let pipe = side.pipe;
        self.hang_up(wire, DIALER);
        Some((side.node, Event::DialFailed { pipe, error }))
    }

    /// An accepted ipc pipe that has said nothing is closed.
    fn silence(&mut self, wire: usize) -> Told {
        let side = self.wires[wire].ends[LISTENER];
        if side.stage != Stage::Open || self.wires[wire].spoken {
            return None;
        }
        self.hang_up(wire, LISTENER);
        Some((side.node, Event::Closed { pipe: side.pipe }))
    }

    fn arrive(&mut self, wire: usize, to: End, frame: Bytes) -> Told {
        self.wires[wire].ends[other(to)].undelivered -= 1;
        let side = self.wires[wire].ends[to];
        if self.wires[wire].severed || side.stage != Stage::Open {
            return None;
        }
        let pipe = side.pipe;
        if frame.len() > self.hosts[side.node].options.max_frame {
            self.hang_up(wire, to);
            return Some((side.node, Event::Closed { pipe }));
        }
        Some((side.node, Event::Received { pipe, frame }))
    }

    fn hung_up(&mut self, wire: usize, to: End) -> Told {
        let side = self.wires[wire].ends[to];
        if self.wires[wire].severed || matches!(side.stage, Stage::Absent | Stage::Over) {
            return None;
        }
        let error = DialError::System("the peer hung up".into());
        let event = self.last_event(wire, to, error);
        self.end(wire, to);
        Some((side.node, event))
    }

    fn sent(&mut self, wire: usize, end: End) -> Told {
        let side = &mut self.wires[wire].ends[end];
        side.sending = false;
        let open = side.stage == Stage::Open;
        open.then_some((side.node, Event::Sent { pipe: side.pipe }))
    }
}

/// The small things.
impl State {
    fn after(&mut self, delay: Duration, due: Due) {
        self.order += 1;
        self.due.insert((self.now + delay, self.order), due);
    }

    fn tell(&mut self, node: Node, event: Event) {
        self.after(Duration::ZERO, Due::Tell { node, event });
    }

    /// Sends something along a wire, behind what was sent before; over a cut link it is lost, and the rest with it.
    fn travel(&mut self, wire: usize, from: End, due: Due) {
        let ends = self.wires[wire].ends;
        let link = link(ends[DIALER].node, ends[LISTENER].node);
        if self.cuts.contains(&link) {
            self.wires[wire].severed = true;
        }
        let at = (self.now + self.delay(link.0, link.1)).max(ends[from].last_arrival);
        self.wires[wire].ends[from].last_arrival = at;
        self.after(at.saturating_sub(self.now), due);
    }

    /// Ends this end of a wire, and lets the other know if it can.
    fn hang_up(&mut self, wire: usize, end: End) {
        self.end(wire, end);
        if self.wires[wire].ends[LISTENER].stage != Stage::Absent {
            let to = other(end);
            self.travel(wire, end, Due::Hangup { wire, to });
        }
    }

    fn end(&mut self, wire: usize, end: End) {
        let side = &mut self.wires[wire].ends[end];
        side.stage = Stage::Over;
        self.hosts[side.node].pipes.remove(&side.pipe);
    }

    /// How the life of this end is told to be over.
    fn last_event(&self, wire: usize, end: End, error: DialError) -> Event {
        let Side { pipe, stage, .. } = self.wires[wire].ends[end];
        match stage {
            Stage::Dialing => Event::DialFailed { pipe, error },
            _ => Event::Closed { pipe },
        }
    }

    fn opened(&self, wire: usize, end: End) -> Event {
        let Wire { to, from, ends, .. } = &self.wires[wire];
        let here = from.as_ref().map(|_| to.clone());
        let (origin, local, remote) = match end {
            DIALER => (Origin::Dialed(to.clone()), from.clone(), here),
            _ => (Origin::Accepted(Some(to.clone())), here, from.clone()),
        };
        let pid = u32::try_from(ends[other(end)].node + 1).ok();
        Event::Opened { pipe: ends[end].pipe, origin, local, remote, pid: pid.filter(|_| from.is_none()) }
    }

    /// Who has to be awake for it. The kernel alone accepts, refuses and keeps time for nobody.
    fn handled_by(&self, due: &Due) -> Option<Node> {
        let node = |wire: usize, end: End| self.wires[wire].ends[end].node;
        match due {
            Due::Knock { wire } => self.listeners.get(&self.wires[*wire].to).copied(),
            Due::Answer { wire } | Due::Refused { wire } | Due::GiveUp { wire } => Some(node(*wire, DIALER)),
            Due::Silence { wire } => Some(node(*wire, LISTENER)),
            Due::Frame { wire, to, .. } | Due::Hangup { wire, to } => Some(node(*wire, *to)),
            Due::Sent { wire, end } => Some(node(*wire, *end)),
            Due::Tell { node, .. } => Some(*node),
        }
    }

    fn link_of(&self, wire: usize) -> Option<(Node, Node)> {
        let ends = &self.wires[wire].ends;
        let there = match ends[LISTENER].stage {
            Stage::Absent => *self.listeners.get(&self.wires[wire].to)?,
            _ => ends[LISTENER].node,
        };
        Some(link(ends[DIALER].node, there))
    }

    fn delay(&self, a: Node, b: Node) -> Duration {
        let set = self.delays.get(&link(a, b)).copied();
        set.unwrap_or(DEFAULT_DELAY)
    }

    fn new_pipe(&mut self, node: Node, wire: usize, end: End) -> PipeId {
        let host = &mut self.hosts[node];
        let pipe = PipeId(host.next);
        host.next += 1;
        host.pipes.insert(pipe, (wire, end));
        pipe
    }

    fn new_port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        self.next_port
    }
}

impl Side {
    fn new(node: Node, pipe: PipeId, stage: Stage) -> Self {
        Self { node, pipe, stage, sending: false, undelivered: 0, last_arrival: Duration::ZERO }
    }
}

impl Due {
    /// The wire that it is travelling on.
    fn travels(&self) -> Option<usize> {
        match self {
            Due::Answer { wire } | Due::Frame { wire, .. } | Due::Hangup { wire, .. } => Some(*wire),
            _ => None,
        }
    }
}

fn link(a: Node, b: Node) -> (Node, Node) {
    (a.min(b), a.max(b))
}

fn other(end: End) -> End {
    1 - end
}
