//! The world of one seed: what happens when, to whom.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smol_str::SmolStr;

use super::Trouble;
use super::fates::{Fates, Told, Who};
use super::host::{Bell, Habit, Life, Look, RECEIVERS, Rung, Site, SkewedClock, scramble};
use crate::addr::{Addr, Endpoint};
use crate::config::Limits;
use crate::contents::IntoContents;
use crate::error::RequestError;
use crate::failure::Reason;
use crate::msg::{Creditor, Debt, Msg};
use crate::port::{Answer, Outcome};
use crate::router::clock::Clock;
use crate::router::names::Mode;
use crate::transport::memory::MemoryNet;
use crate::transport::{Event, Transport};
use crate::wire;

/// How long messages are sent and things go wrong, and how long everything may take to come to rest.
const TROUBLE: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(30);
/// How long a request waits for its answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// What the end of a message may come later than its limit: links look for overdue ones now and then.
const SLACK: Duration = Duration::from_secs(1);
/// What a stalled connection delays its frames at most. 700 ms: a dial takes two of them, and an introduction four, which is less than a router waits for either.
const STALL: Duration = Duration::from_millis(700);
/// Time after the last outcome in which nothing may be handled or told any more.
/// How long after a router was killed whoever waits for it knows, at least. 6.5 s: a dial that nobody answers ends after 2 s, and silence is death after 3.5 s on a clock that may be a little slow.
const NOTICED: Duration = Duration::from_millis(6500);
const AFTERMATH: Duration = Duration::from_millis(500);
/// Pause between the looks of a router that ends.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

#[derive(Clone, Debug)]
enum Happening {
    Send(usize),
    Fault,
    Turn { host: usize, life: u64, agent: usize },
    Finish { host: usize, life: u64, agent: usize, key: u64 },
    Impatience(usize),
    Thaw(usize),
    Heal(usize, usize),
    Speed(usize, usize, Duration),
    Begin(usize),
    Drain { host: usize, life: u64, step: Draining, until: Duration },
}

/// How far a router is that ends in order.
#[derive(Clone, Copy, Debug)]
enum Draining {
    Handling,
    Reporting,
    Sending,
}

pub(super) struct World {
    rng: u64,
    trouble: Trouble,
    aloud: bool,
    net: MemoryNet,
    origin: Instant,
    limits: Limits,
    sites: Vec<Site>,
    hosts: Vec<Option<Life>>,
    lives: u64,
    agenda: BTreeMap<(Duration, u64), Happening>,
    count: u64,
    rung: Rung,
    ends: Arc<Ends>,
    waits: BTreeMap<usize, Waits>,
    pub(super) fates: Fates,
    pub(super) events: u64,
    /// Of a thousand frames, those that come twice.
    doubles: u64,
    /// A router has ended in order, and was away for a moment.
    has_restarted: bool,
    /// When lives were killed.
    killed: BTreeMap<(usize, u64), Duration>,
    /// When routers were last frozen.
    thawed: BTreeMap<usize, Duration>,
    /// How long routers were frozen in all.
    asleep: BTreeMap<usize, Duration>,
}

/// Told when a message has come to its end as its sender's router sees it: its number, and whether it was handled.
#[derive(Default)]
struct Ends(Mutex<Vec<(usize, bool)>>);

impl Creditor for Ends {
    fn settle(&self, number: u64, handled: bool) {
        self.0.lock().push((usize::try_from(number).unwrap(), handled));
    }
}

/// How a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Tell,
    Confirm,
    Ask,
}

/// What its sender waits for.
enum Waits {
    Answer(Answer),
    Outcome(Outcome),
}

impl World {
    pub(super) fn new(seed: u64, trouble: Trouble, aloud: bool) -> Self {
        let mut world = Self {
            rng: scramble(seed ^ if trouble == Trouble::Mild { 1 << 40 } else { 0 }),
            trouble,
            aloud,
            net: MemoryNet::new(),
            origin: Instant::now(),
            limits: Limits::default(),
            sites: Vec::new(),
            hosts: Vec::new(),
            lives: 0,
            agenda: BTreeMap::new(),
            count: 0,
            rung: Rung::default(),
            ends: Arc::default(),
            waits: BTreeMap::new(),
            fates: Fates::default(),
            events: 0,
            doubles: 0,
            has_restarted: false,
            killed: BTreeMap::new(),
            thawed: BTreeMap::new(),
            asleep: BTreeMap::new(),
        };
        world.plan();
        world
    }

    /// Decides who is there, what is sent and what goes wrong.
    fn plan(&mut self) {
        let size = match self.below(100) {
            0 => 6 + self.below(45),
            1..10 => 4 + self.below(3),
            _ => 2 + self.below(3),
        };
        self.sites = match self.below(4) {
            0 => on_one_machine(size),
            1 => on_a_network(size, self.below(size)),
            2 => behind_gateways(size),
            _ => by_two_names(size, self.below(size)),
        };
        for site in 0..size {
            self.sites[site].keeps_all = self.below(2) == 0;
        }
        if self.trouble == Trouble::Wild && self.below(3) == 0 {
            self.limits.mailbox = 4 + self.below(20);
            self.limits.link = 1024 << self.below(8);
        }
        if self.below(4) == 0 {
            self.doubles = 1 + self.below(100) as u64;
        }
        if self.below(8) > 0 || self.trouble == Trouble::Mild {
            self.limits.introduction = Duration::from_secs(1000);
        }
        self.limits.outcome = Duration::from_secs(3 + self.below(20) as u64);
        for host in 0..size {
            self.hosts.push(None);
            self.begin(host);
        }
        let messages = 20 + self.below(60);
        for _ in 0..messages {
            let (at, host, burst) = (self.within(TROUBLE), self.below(size), self.below(20));
            let many = if burst == 0 { 1 + self.below(60) } else { 1 };
            (0..many).for_each(|_| self.at(at, Happening::Send(host)));
        }
        for index in 0..self.below(8) {
            // Mild troubles come one after the other, so that no two of them make a bad one.
            let at = match self.trouble {
                Trouble::Mild => Duration::from_secs(1 + 6 * index as u64),
                Trouble::Wild => self.within(TROUBLE),
            };
            self.at(at, Happening::Fault);
        }
    }

    // ---- chance and time -----------------------------------------------------------------------

    fn below(&mut self, limit: usize) -> usize {
        self.rng = scramble(self.rng);
        usize::try_from((self.rng >> 1) % limit as u64).unwrap()
    }

    fn within(&mut self, span: Duration) -> Duration {
        Duration::from_micros(self.below(usize::try_from(span.as_micros()).unwrap().max(1)) as u64)
    }

    fn at(&mut self, at: Duration, what: Happening) {
        self.count += 1;
        self.agenda.insert((at, self.count), what);
    }

    fn later(&mut self, after: Duration, what: Happening) {
        self.at(self.net.now() + after, what);
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.aloud {
            println!("{:>12.6} {}", self.net.now().as_secs_f64(), what());
        }
    }

    // ---- the loop --------------------------------------------------------------------------------

    pub(super) fn run(&mut self) {
        let mut rests_since = None;
        loop {
            let now = self.net.now();
            let Some(next) = self.next_time() else { break };
            rests_since = if self.is_at_rest() { rests_since.or(Some(now)) } else { None };
            let end = rests_since.map_or(TROUBLE * 5 + REST, |since| since + AFTERMATH);
            if next > end {
                break;
            }
            self.net.advance(next.saturating_sub(now));
            self.look();
            while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= next) {
                let what = entry.remove();
                self.happen(what);
                self.look();
            }
            self.tick();
            self.look();
            self.events += 1;
        }
        let asleep = |host| self.asleep.get(&host).copied().unwrap_or_default();
        self.fates.check(self.net.now(), |host| self.limits.outcome.max(PATIENCE) + SLACK + asleep(host));
        if self.trouble == Trouble::Mild {
            self.fates.check_nothing_lost(self.has_restarted, self.may_be_python());
        }
    }

    /// A router that is slow to introduce itself is taken for one in Python.
    fn may_be_python(&self) -> bool {
        self.limits.introduction < REST
    }

    fn is_at_rest(&self) -> bool {
        let is_over =
            |what: &Happening| !matches!(what, Happening::Send(_) | Happening::Fault | Happening::Finish { .. });
        self.fates.is_at_rest() && self.agenda.values().all(is_over)
    }

    fn next_time(&self) -> Option<Duration> {
        let awake = self.hosts.iter().flatten().filter(|life| !life.frozen);
        let timers = awake.filter_map(|life| Some(life.clock.when(life.switch.next_timer()?)));
        let agenda = self.agenda.first_key_value().map(|((at, _), _)| *at);
        timers.chain(agenda).chain(self.net.next_due()).min().map(|at| at.max(self.net.now()))
    }

    fn tick(&mut self) {
        for life in self.hosts.iter().flatten().filter(|life| !life.frozen) {
            if life.switch.next_timer().is_some_and(|at| at <= life.clock.now()) {
                life.switch.tick();
                life.switch.tell_overdue();
            }
        }
    }

    /// Looks at whatever has rung, until nothing does.
    fn look(&mut self) {
        loop {
            let ends = std::mem::take(&mut *self.ends.0.lock());
            for (number, handled) in &ends {
                self.say(|| format!("{number} has ended, handled: {handled}"));
                self.fates.settled(*number, *handled, self.net.now());
            }
            let mut rung = std::mem::take(&mut *self.rung.lock());
            if rung.is_empty() && ends.is_empty() {
                return;
            }
            rung.sort_unstable();
            rung.dedup();
            for what in rung {
                match what {
                    Look::Mailbox { host, life, agent } => self.turn(host, life, agent),
                    Look::Answer(number) => self.look_for_answer(number),
                }
            }
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Send(host) => self.send(host),
            Happening::Fault => self.fault(),
            Happening::Turn { host, life, agent } => {
                if let Some(life) = self.life(host, life) {
                    life.agents[agent].is_busy = false;
                }
                self.turn(host, life, agent);
            }
            Happening::Finish { host, life, agent, key } => self.finish(host, life, agent, key),
            Happening::Impatience(number) => {
                if let Some(waited) = self.waits.remove(&number) {
                    self.assert_may_time_out(number, &waited);
                    self.fates.told(number, Told::Unknown("timed out".into()), self.net.now());
                }
            }
            Happening::Thaw(host) => {
                self.say(|| format!("r{host} thaws"));
                let Some(life) = self.hosts[host].as_mut().filter(|life| life.frozen) else { return };
                life.frozen = false;
                self.thawed.insert(host, self.net.now());
                self.net.thaw(&life.transport);
                let number = life.number;
                for agent in 0..=RECEIVERS {
                    self.turn(host, number, agent);
                }
            }
            Happening::Heal(a, b) => self.between(a, b, MemoryNet::heal),
            Happening::Speed(a, b, delay) => self.between(a, b, |net, a, b| net.set_delay(a, b, delay)),
            Happening::Begin(host) => self.begin(host),
            Happening::Drain { host, life, step, until } => self.drain(host, life, step, until),
        }
    }

    // ---- messages --------------------------------------------------------------------------------

    fn life(&mut self, host: usize, life: u64) -> Option<&mut Life> {
        self.hosts[host].as_mut().filter(|present| present.number == life)
    }

    fn send(&mut self, from: usize) {
        let to = self.below(self.sites.len());
        let agent = 1 + self.below(RECEIVERS);
        let Some(mut addr) = self.sites[from].address(&self.sites, to, agent) else { return };
        let [here, there] = [from, to].map(|host| &self.sites[host]);
        if here.machine == there.machine && here.tcp.is_some() && there.tcp.is_some() {
            addr.net = there.tcp.clone().filter(|_| self.below(2) == 0);
        }
        let way = [Way::Tell, Way::Confirm, Way::Ask][self.below(3)];
        let life = self.hosts[to].as_ref().map(|life| (to, life.number));
        // Some in a row: their routers remember them together.
        let count = if self.below(4) == 0 { 4 } else { 1 };
        for _ in 0..count {
            self.send_to(from, 0, addr.clone(), way, life);
        }
    }

    /// `life`: who is there to take it.
    fn send_to(&mut self, from: usize, agent: usize, addr: Addr, way: Way, life: Option<(usize, u64)>) {
        let (now, receiver) = (self.net.now(), life);
        let Some(life) = self.hosts[from].as_ref().filter(|life| !life.frozen && !life.draining) else { return };
        let (port, sender) = (life.agents[agent].port.clone(), Who { host: from, life: life.number, agent });
        let number = self.fates.new_message(sender, now, way == Way::Tell, receiver);
        if addr.net.is_some() {
            self.fates.goes_by_net(number);
        }
        let pad = match self.below(40) {
            0 => 40_000,
            1..4 => 2_000,
            _ => self.below(200),
        };
        self.say(|| format!("r{from}.{agent} sends {number} to {addr}: {way:?}"));
        let subject = SmolStr::new_static(if way == Way::Ask { "ASK" } else { "TELL" });
        let mut msg = port.compose(addr, subject, (number as u64, " ".repeat(pad)).into_contents());
        let id = port.next_id();
        match way {
            Way::Tell => {
                msg.debt = Debt::to(self.ends.clone(), number as u64);
                self.fates.named(number, id);
            }
            Way::Confirm => drop(self.waits.insert(number, Waits::Outcome(port.confirm(id, &mut msg)))),
            Way::Ask => drop(self.waits.insert(number, Waits::Answer(port.expect(id, &msg, Vec::new())))),
        }
        match port.send_as(id, msg) {
            Ok(()) if way == Way::Tell => {}
            Ok(()) => {
                if way == Way::Ask {
                    self.later(PATIENCE, Happening::Impatience(number));
                }
                self.look_for_answer(number);
            }
            Err(unsent) => {
                self.say(|| format!("{number} is not sent: {}", unsent.reason));
                self.waits.remove(&number);
                self.fates.told(number, Told::Refused(unsent.reason), now);
            }
        }
    }

    /// A request to a router that was killed long ago, and that no gateway stands before, has ended by name.
    fn assert_may_time_out(&self, number: usize, waited: &Waits) {
        let Waits::Answer(_) = waited else { return };
        let Some(to) = self.fates.asked(number).filter(|_| self.sites.iter().all(|site| site.gateway.is_none())) else {
            return;
        };
        let thawed = self.thawed.get(&self.fates.sender(number).0);
        let killed = self.killed.get(&to).copied().max(thawed.copied());
        let killed = self.killed.get(&to).and(killed);
        assert!(
            killed.is_none_or(|at| self.net.now() < at + NOTICED),
            "request {number} to r{}, killed at {killed:?}, timed out",
            to.0
        );
    }

    fn look_for_answer(&mut self, number: usize) {
        let bell = Bell { rung: self.rung.clone(), what: Look::Answer(number) };
        let waker = Arc::new(bell).into();
        let task = &mut Context::from_waker(&waker);
        let told = match self.waits.get_mut(&number) {
            Some(Waits::Answer(answer)) => match Pin::new(answer).poll(task) {
                Poll::Ready(Ok(_)) => Told::Delivered,
                Poll::Ready(Err(RequestError::NotDelivered(failure))) => told(failure.reason),
                // Only for want of room for the answer: it was handled.
                Poll::Ready(Err(error)) => Told::Unknown(error.to_string()),
                Poll::Pending => return,
            },
            Some(Waits::Outcome(outcome)) => match Pin::new(&mut outcome.coming).poll(task) {
                Poll::Ready(Ok(None)) => Told::Delivered,
                Poll::Ready(Ok(Some(failure))) => told(failure.reason),
                Poll::Ready(Err(_)) => Told::Unknown("the connection was closed".into()),
                Poll::Pending => return,
            },
            None => return,
        };
        self.waits.remove(&number);
        self.say(|| format!("the sender of {number} is told {told:?}"));
        self.fates.told(number, told, self.net.now());
    }

    /// An agent takes its next message, if it is free.
    fn turn(&mut self, host: usize, life: u64, agent: usize) {
        let who = Who { host, life, agent };
        let Some(present) = self.life(host, life).filter(|life| !life.frozen) else { return };
        let free = !present.agents[agent].is_busy && !present.agents[agent].is_gone;
        let Some(msg) = free.then(|| present.agents[agent].take()).flatten() else { return };
        let habit = present.agents[agent].habit;
        self.handle(who, habit, msg);
    }

    fn handle(&mut self, who: Who, habit: Habit, msg: Msg) {
        let Who { host, life, agent } = who;
        let again = Happening::Turn { host, life, agent };
        if let Some(report) = msg.not_delivered() {
            let number = msg.reply_to().and_then(|id| self.fates.number_of(who, id));
            self.say(|| format!("r{host}.{agent} is told of {number:?}: {report}"));
            let _ = msg.handled();
            if let Some(number) = number {
                self.fates.told(number, told(report.reason), self.net.now());
            }
            return self.later(Duration::ZERO, again);
        }
        if msg.is_reply() {
            let _ = msg.handled();
            return self.later(Duration::ZERO, again);
        }
        let (number, _) = msg.contents::<(u64, String)>().unwrap();
        self.say(|| format!("r{host}.{agent} handles {number}"));
        self.fates.called(usize::try_from(number).unwrap(), who);
        let answers = habit == Habit::Quick && !msg.from().is_null() && self.below(10) == 0;
        let back = answers.then(|| msg.from().clone());
        match habit {
            Habit::Quick => {
                end(msg);
                self.later(Duration::ZERO, again);
            }
            Habit::Slow(pace) => self.keep(who, msg, pace, true),
            Habit::Later(span) => {
                let after = self.within(span);
                self.keep(who, msg, after, false);
                self.later(Duration::ZERO, again);
            }
        }
        if let Some(back) = back {
            self.send_to(host, agent, back, Way::Tell, None);
        }
    }

    /// The agent has a message in its hands for a while.
    fn keep(&mut self, Who { host, life, agent }: Who, msg: Msg, time: Duration, is_busy: bool) {
        self.count += 1;
        let key = self.count;
        let Some(present) = self.life(host, life) else { return };
        present.agents[agent].is_busy = is_busy;
        present.agents[agent].hands.push((key, msg.later().1));
        self.later(time, Happening::Finish { host, life, agent, key });
    }

    fn finish(&mut self, host: usize, life: u64, agent: usize, key: u64) {
        let Some(present) = self.life(host, life) else { return };
        if present.frozen {
            return self.later(Duration::from_millis(100), Happening::Finish { host, life, agent, key });
        }
        let agent_here = &mut present.agents[agent];
        let Some(index) = agent_here.hands.iter().position(|(other, _)| *other == key) else { return };
        let (_, msg) = agent_here.hands.remove(index);
        agent_here.is_busy = false;
        end(msg);
        self.turn(host, life, agent);
    }

    // ---- faults ----------------------------------------------------------------------------------

    fn fault(&mut self) {
        let size = self.sites.len();
        let (a, b) = (self.below(size), self.below(size));
        let mild = self.trouble == Trouble::Mild;
        let kind = self.below(if mild { 5 } else { 10 });
        self.say(|| format!("fault {kind} at r{a}, r{b}"));
        match kind {
            0 => self.between(a, b, MemoryNet::reset),
            1 => self.freeze(a, Duration::from_millis(1900)),
            2 | 3 => {
                let (delay, time) = (self.within(STALL), self.within(Duration::from_secs(2)));
                self.between(a, b, |net, a, b| net.set_delay(a, b, delay));
                let usual = self.within(Duration::from_millis(5));
                self.later(time, Happening::Speed(a, b, usual));
            }
            4 => self.end_in_order(a),
            5 => self.freeze(a, Duration::from_secs(8)),
            6 => {
                let seconds = if self.below(3) == 0 { 20 } else { 3 };
                let time = self.within(Duration::from_secs(seconds));
                self.between(a, b, MemoryNet::cut);
                self.later(time, Happening::Heal(a, b));
            }
            7 | 8 => self.crash(a),
            _ => {
                let agent = 1 + self.below(RECEIVERS);
                if let Some(life) = self.hosts[a].as_mut().filter(|life| !life.frozen) {
                    life.agents[agent].stop(Reason::AgentStopped);
                }
            }
        }
    }

    fn between(
        &self,
        a: usize,
        b: usize,
        act: impl FnOnce(&MemoryNet, &crate::transport::memory::MemoryTransport, &crate::transport::memory::MemoryTransport),
    ) {
        if let (Some(a), Some(b)) = (&self.hosts[a], &self.hosts[b]) {
            act(&self.net, &a.transport, &b.transport);
        }
    }

    fn freeze(&mut self, host: usize, limit: Duration) {
        let time = self.within(limit);
        let Some(life) = self.hosts[host].as_mut().filter(|life| !life.frozen) else { return };
        life.frozen = true;
        *self.asleep.entry(host).or_default() += time;
        self.net.freeze(&life.transport);
        self.later(time, Happening::Thaw(host));
    }

    /// The router is killed; another starts in its place soon.
    fn crash(&mut self, host: usize) {
        let Some(life) = self.hosts[host].take() else { return };
        self.net.kill(&life.transport);
        self.killed.insert((host, life.number), self.net.now());
        self.bury(host, life);
        let after = self.within(Duration::from_secs(2));
        self.later(after, Happening::Begin(host));
    }

    /// Lets go of a life; whatever it says or counts while it falls apart is nobody's.
    fn bury(&mut self, host: usize, mut life: Life) {
        self.fates.died(host, life.number);
        let number = life.number;
        self.waits.retain(|asked, _| self.fates.sender(*asked) != (host, number));
        for agent in life.agents.iter_mut().filter(|agent| !agent.is_gone) {
            agent.stop(Reason::AgentStopped);
        }
        life.switch.end();
    }

    fn begin(&mut self, host: usize) {
        if self.hosts[host].is_some() {
            return;
        }
        self.lives += 1;
        let (number, seed) = (self.lives, scramble(self.rng ^ self.lives));
        let (ahead, fast) = (self.within(Duration::from_secs(100_000)), self.below(40_001) as i64 - 20_000);
        let clock = SkewedClock::new(self.net.clone(), self.origin, ahead, fast, seed);
        let pass = self.pass(host);
        let mut life =
            Life::begin(number, &self.sites[host], &self.sites, &self.net, Arc::new(clock), &self.limits, pass);
        for agent in 0..=RECEIVERS {
            let habit = match (agent, self.below(3)) {
                (0 | 1, _) => Habit::Quick,
                (2, _) => Habit::Slow(self.within(Duration::from_millis(60))),
                (_, 0) => Habit::Later(Duration::from_millis(800)),
                _ => Habit::Later(Duration::from_millis(20)),
            };
            let what = Look::Mailbox { host, life: number, agent };
            life.add_agent(habit, Bell { rung: self.rung.clone(), what });
        }
        self.say(|| format!("r{host} begins life {number}, incarnation {}", life.switch.incarnation()));
        self.hosts[host] = Some(life);
    }

    /// What the transport tells passes here on its way to the router: how often it is told.
    fn pass(&mut self, host: usize) -> impl Fn(&Event) -> usize + Send + Sync + 'static {
        let (aloud, net, doubles) = (self.aloud, self.net.clone(), self.doubles);
        let rng = Mutex::new(RefCell::new(scramble(self.rng ^ host as u64)));
        move |event| {
            if aloud {
                println!("{:>12.6} r{host} <- {}", net.now().as_secs_f64(), shown(event));
            }
            let rng = rng.lock();
            let drawn = scramble(*rng.borrow());
            rng.replace(drawn);
            1 + usize::from(matches!(event, Event::Received { .. }) && drawn % 1000 < doubles)
        }
    }

    // ---- the orderly end -------------------------------------------------------------------------

    fn end_in_order(&mut self, host: usize) {
        let now = self.net.now();
        let Some(life) = self.hosts[host].as_mut().filter(|life| !life.frozen && !life.draining) else { return };
        life.draining = true;
        self.has_restarted = true;
        life.switch.close_down();
        let (life, until) = (life.number, now + life.switch.limits.shutdown);
        self.later(DRAIN_LOOK, Happening::Drain { host, life, step: Draining::Handling, until });
    }

    /// What the router's actor does when it shuts down.
    fn drain(&mut self, host: usize, life: u64, step: Draining, until: Duration) {
        let (now, linger) = (self.net.now(), Duration::from_millis(300));
        let last_words = now + Duration::from_millis(500);
        let Some(present) = self.life(host, life) else { return };
        let switch = present.switch.clone();
        let handled = || present.agents.iter().all(|agent| agent.port.is_empty());
        let is_done = match step {
            Draining::Handling => switch.is_drained(linger) && switch.is_handled(),
            Draining::Reporting => handled(),
            Draining::Sending => switch.is_drained(linger),
        };
        let is_over = is_done || now >= until;
        let next = match (step, is_over) {
            (_, false) => (step, until),
            (Draining::Handling, true) => {
                // What becomes of its own messages its agents are not there to hear.
                self.fates.died(host, life);
                switch.stop_ports();
                let agents = self.life(host, life).into_iter().flat_map(|life| life.agents.iter_mut());
                agents.for_each(|agent| agent.stop(Reason::ShuttingDown));
                (Draining::Reporting, last_words)
            }
            (Draining::Reporting, true) => (Draining::Sending, last_words),
            (Draining::Sending, true) => {
                let Some(life) = self.hosts[host].take() else { return };
                life.transport.shutdown(Duration::ZERO);
                self.bury(host, life);
                self.say(|| format!("r{host} has ended"));
                let after = self.within(Duration::from_millis(500));
                return self.later(after, Happening::Begin(host));
            }
        };
        self.later(DRAIN_LOOK, Happening::Drain { host, life, step: next.0, until: next.1 });
    }
}

/// Deals with a message: a question is answered.
fn end(msg: Msg) {
    let _ = if msg.subject() == "ASK" { msg.reply(()) } else { msg.handled() };
}

fn told(reason: Reason) -> Told {
    match reason {
        reason if reason.is_unknown() => Told::Unknown(reason.to_string()),
        reason => Told::Refused(reason),
    }
}

fn shown(event: &Event) -> String {
    let Event::Received { pipe, frame } = event else { return format!("{event:?}") };
    match wire::kind(frame) {
        wire::FrameKind::Link => {
            format!("{pipe:?} {} B {:?}", frame.len(), wire::read_frame(frame).map(|read| (read.0, read.1.len())))
        }
        wire::FrameKind::Message => format!("{pipe:?} {:?}", wire::read_message(frame, wire::Profile::Rust)),
    }
}

// ---- who is where --------------------------------------------------------------------------------

fn ipc(host: usize) -> Endpoint {
    Endpoint::from(format!("ipc:///tmp/router_{host}"))
}

fn tcp(host: usize) -> Endpoint {
    Endpoint::from(format!("tcp://10.0.0.{host}:1"))
}

fn on_one_machine(size: usize) -> Vec<Site> {
    let site =
        |host| Site { machine: 0, mode: Mode::Machine, ipc: ipc(host), tcp: None, gateway: None, keeps_all: false };
    (0..size).map(site).collect()
}

/// Each on a machine of its own; the last so many only dial, which leaves one at least that listens.
fn on_a_network(size: usize, dialers: usize) -> Vec<Site> {
    let site = |host| {
        let tcp = (host < size - dialers).then(|| tcp(host));
        Site { machine: host, mode: Mode::Network, ipc: ipc(host), tcp, gateway: None, keeps_all: false }
    };
    (0..size).map(site).collect()
}

/// On one machine and on the network: whoever listens for it can be reached in two ways.
fn by_two_names(size: usize, others: usize) -> Vec<Site> {
    let mut sites = on_one_machine(size);
    for (host, site) in sites.iter_mut().enumerate().skip(others) {
        (site.mode, site.tcp) = (Mode::Network, Some(tcp(host)));
    }
    sites
}

/// Two machines, the first router of each of which is on the network.
fn behind_gateways(size: usize) -> Vec<Site> {
    let site = |host| {
        let machine = host % 2;
        let is_gateway = host < 2;
        Site {
            machine,
            mode: if is_gateway { Mode::Network } else { Mode::Machine },
            ipc: ipc(host),
            tcp: is_gateway.then(|| tcp(host)),
            gateway: (!is_gateway).then_some(machine),
            keeps_all: false,
        }
    };
    (0..size).map(site).collect()
}
