//! The routers of a simulation: where each stands, and one life of it with its clock and its agents.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::addr::{Addr, Endpoint};
use crate::config::Limits;
use crate::failure::Reason;
use crate::msg::Msg;
use crate::port::Port;
use crate::router::clock::Clock;
use crate::router::names::Mode;
use crate::router::switch::Switch;
use crate::transport::memory::{MemoryNet, MemoryTransport};
use crate::transport::{Event, Options};

/// The number of a router's first agent, which sends and takes reports; the others follow.
const FIRST: u64 = 3;
/// Agents that take messages, beside the first.
pub(super) const RECEIVERS: usize = 3;

/// Where a router stands; the same for all of its lives.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) machine: usize,
    pub(super) mode: Mode,
    pub(super) ipc: Endpoint,
    /// Where it listens for the network, if it does.
    pub(super) tcp: Option<Endpoint>,
    /// The router of its machine through which the network reaches it.
    pub(super) gateway: Option<usize>,
    /// Nothing is dropped on the pipes that it accepts.
    pub(super) keeps_all: bool,
}

/// One life of a router.
pub(super) struct Life {
    pub(super) number: u64,
    pub(super) switch: Arc<Switch>,
    pub(super) transport: Arc<MemoryTransport>,
    pub(super) clock: Arc<SkewedClock>,
    pub(super) agents: Vec<SimAgent>,
    pub(super) frozen: bool,
    pub(super) draining: bool,
}

pub(super) struct SimAgent {
    pub(super) port: Arc<Port>,
    waker: Waker,
    pub(super) habit: Habit,
    /// Messages that it deals with later.
    pub(super) hands: Vec<(u64, Msg)>,
    pub(super) is_busy: bool,
    pub(super) is_gone: bool,
}

/// How an agent deals with what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// At once.
    Quick,
    /// One after the other, each so slowly.
    Slow(Duration),
    /// Returns at once, and finishes later, in any order.
    Later(Duration),
}

/// A clock of its own: it began at another time than others, and is a little faster or slower.
pub(super) struct SkewedClock {
    net: MemoryNet,
    origin: Instant,
    ahead: Duration,
    /// Parts of a million.
    fast: i64,
    draws: Mutex<u64>,
}

impl SkewedClock {
    pub(super) fn new(net: MemoryNet, origin: Instant, ahead: Duration, fast: i64, seed: u64) -> Self {
        Self { net, origin, ahead, fast, draws: Mutex::new(seed) }
    }

    /// When this clock shows `at`.
    pub(super) fn when(&self, at: Instant) -> Duration {
        let shown = at.saturating_duration_since(self.origin + self.ahead).as_nanos();
        let real = (shown * 1_000_000).div_ceil((1_000_000 + self.fast) as u128);
        Duration::from_nanos(u64::try_from(real).unwrap_or(u64::MAX))
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Instant {
        let real = self.net.now().as_nanos();
        let shown = real * ((1_000_000 + self.fast) as u128) / 1_000_000;
        self.origin + self.ahead + Duration::from_nanos(u64::try_from(shown).unwrap_or(u64::MAX))
    }

    fn draw(&self) -> u64 {
        let mut state = self.draws.lock();
        *state = scramble(*state);
        *state >> 1
    }
}

impl Site {
    /// How `self` addresses an agent of `to`; none if it cannot.
    pub(super) fn address(&self, sites: &[Site], to: usize, agent: usize) -> Option<Addr> {
        let there = &sites[to];
        let net = if there.machine == self.machine {
            None
        } else {
            let entrance = there.tcp.as_ref().or_else(|| sites[there.gateway?].tcp.as_ref());
            Some(entrance.filter(|_| self.mode == Mode::Network || self.gateway.is_some())?.clone())
        };
        Some(Addr { net, machine: Some(there.ipc.clone()), connection: Some(FIRST + agent as u64) })
    }
}

impl Life {
    /// Starts a router; `tell` is called with what its transport says, before the router is.
    pub(super) fn begin(
        number: u64,
        site: &Site,
        sites: &[Site],
        net: &MemoryNet,
        clock: Arc<SkewedClock>,
        limits: &Limits,
        pass: impl Fn(&Event) -> usize + Send + Sync + 'static,
    ) -> Self {
        let switch = Switch::new(site.mode, limits.clone(), clock.clone());
        // Not the router itself, which holds the transport.
        let told = Arc::downgrade(&switch);
        let sink = Arc::new(move |event: Event| {
            let Some(switch) = told.upgrade() else { return };
            for _ in 0..pass(&event) {
                switch.happened(event.clone());
            }
        });
        let options =
            Options { max_frame: limits.message + (1 << 20), dial_limit: limits.connect, ..Options::default() };
        let transport = net.transport(sink, options);
        if site.keeps_all {
            transport.keep_all();
        }
        switch.use_transport(transport.clone());
        for at in [Some(&site.ipc), site.tcp.as_ref()].into_iter().flatten() {
            let bound = crate::transport::Transport::listen(&*transport, at).unwrap();
            switch.listens_at(bound);
        }
        if let Some(gateway) = site.gateway {
            let far = sites.iter().filter(|other| other.machine != site.machine).filter_map(|other| other.tcp.as_ref());
            far.for_each(|net| switch.heard_of(net, &sites[gateway].ipc));
        }
        let _directory = switch.open_port();
        Self { number, switch, transport, clock, agents: Vec::new(), frozen: false, draining: false }
    }

    /// Adds the next agent, which rings `bell` whenever a message came to its empty mailbox.
    pub(super) fn add_agent(&mut self, habit: Habit, bell: Bell) {
        let port = self.switch.open_port();
        port.attach();
        assert_eq!(port.number, FIRST + self.agents.len() as u64);
        let waker = Arc::new(bell).into();
        let mut agent = SimAgent { port, waker, habit, hands: Vec::new(), is_busy: false, is_gone: false };
        assert!(agent.take().is_none(), "nobody knows it yet");
        self.agents.push(agent);
    }
}

impl SimAgent {
    /// The next message of its mailbox; if there is none, the bell rings when one comes.
    pub(super) fn take(&mut self) -> Option<Msg> {
        match self.port.poll_next(&Context::from_waker(&self.waker)) {
            Poll::Ready(msg) => Some(msg),
            Poll::Pending => None,
        }
    }

    /// Ends the agent: whatever it had tells its sender so.
    pub(super) fn stop(&mut self, reason: Reason) {
        self.is_gone = true;
        self.port.close(reason);
        self.hands.clear();
    }
}

/// Says what there is to look at when it is rung.
pub(super) struct Bell {
    pub(super) rung: Rung,
    pub(super) what: Look,
}

pub(super) type Rung = Arc<Mutex<Vec<Look>>>;

/// What is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    Mailbox { host: usize, life: u64, agent: usize },
    Answer(usize),
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.lock().push(self.what);
    }
}

/// The next number of a sequence (splitmix64).
pub(super) fn scramble(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
