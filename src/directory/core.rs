//! Who provides what, as one router knows it, and what it tells the directories of others.
//!
//! Each router is the only writer of its own entries: it says them all, with its incarnation and a version, whenever they change. Others keep the
//! newest that they heard and pass it on, so it does not matter in which order or how often they hear it. A router that was lost, or that said
//! goodbye, is remembered as dead at the version it had, and nothing of up to that version counts any more. One that was only asleep says a newer one when it is back.
//!
//! Python directories only ever add. What one of them shares is believed of its own entries, from a hub also of those of its other Python routers, and goes when the
//! router that said it goes. They tell one router only, so that one tells its Rust neighbours for them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::addr::{Addr, DIRECTORY, Endpoint, Scheme};
use crate::directory::entry::{Entry, Known};
use crate::directory::python::Guest;
use crate::subject;
use crate::value::Value;

/// Dead incarnations that are remembered. Default 4,096: as many as a router keeps links; the oldest are forgotten first.
const DEAD: usize = 4096;
/// Routers whose entries are kept. Default 4,096, for the same reason: beyond, newcomers are not learned.
const ROUTERS: usize = 4096;
/// Entries taken from one router. Default 100,000: what a large network has in all.
const ENTRIES: usize = 100_000;

/// All that one router provides, as it says itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Where that router is; the connection number is absent.
    pub(crate) home: Addr,
    pub(crate) incarnation: u64,
    pub(crate) version: u64,
    pub(crate) entries: Vec<Entry>,
    /// What the Python routers provide that share with it: they tell nobody else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) python: Vec<Entry>,
    /// It is dead, or says goodbye.
    pub(crate) gone: bool,
}

/// A message to the directory of another router.
#[derive(Debug, PartialEq)]
pub(crate) struct Outgoing {
    pub(crate) to: Addr,
    pub(crate) what: What,
}

#[derive(Debug, PartialEq)]
pub(crate) enum What {
    Sync(Vec<State>),
    Share(Vec<Entry>),
    AskVnets,
    AskEntries,
}

impl What {
    pub(crate) fn subject(&self) -> &'static str {
        match self {
            What::Sync(_) => subject::SYNC_ENTRIES,
            What::Share(_) => subject::SHARE_ENTRIES,
            What::AskVnets => subject::GET_VNETS,
            What::AskEntries => subject::GET_ENTRIES,
        }
    }
}

impl State {
    /// How much it says.
    fn len(&self) -> usize {
        self.entries.len() + self.python.len()
    }

    /// The same router, which has ended.
    fn ended(self) -> Self {
        Self { entries: Vec::new(), python: Vec::new(), gone: true, ..self }
    }
}

#[derive(Default)]
pub(crate) struct Core {
    pub(super) home: Addr,
    incarnation: u64,
    version: u64,
    pub(super) vnets: Vec<String>,
    pub(super) own: Vec<(u64, Entry)>,
    next: u64,
    pub(super) others: BTreeMap<u64, State>,
    /// Incarnations, and the versions at which they were lost.
    dead: VecDeque<(u64, u64)>,
    /// Entries learned from Python routers, by the router that said them.
    pub(super) python: HashMap<Endpoint, Vec<Entry>>,
    /// Python directories of the network that joined this router.
    pub(super) guests: Vec<Guest>,
    /// Directories that hear of every change.
    neighbours: Vec<Endpoint>,
    pub(super) hubs: Vec<Hub>,
    pub(super) outbox: Vec<Outgoing>,
}

/// A hub that this directory joins.
pub(super) struct Hub {
    pub(super) at: Endpoint,
    pub(super) kind: Kind,
    /// What a network hub says it serves; asked first.
    pub(super) vnets: Option<Vec<String>>,
    /// Which life of a Rust router is there.
    incarnation: Option<u64>,
    /// It has said what it knows.
    pub(super) has_told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unknown,
    Rust,
    Python,
}

impl Core {
    /// Says which router this is the directory of, and which vnets it serves on the network.
    pub(crate) fn belongs_to(&mut self, home: Addr, incarnation: u64, vnets: Vec<String>) {
        self.home = home;
        self.incarnation = incarnation;
        self.vnets = vnets;
    }

    pub(crate) fn vnets(&self) -> &[String] {
        &self.vnets
    }

    // ---- what this router provides -----------------------------------------------------------

    /// Adds an entry; the number withdraws it.
    pub(crate) fn register(&mut self, entry: Entry) -> u64 {
        self.next += 1;
        self.own.push((self.next, entry));
        self.own_changed();
        self.next
    }

    /// Removes the entry of that number; false if it was not there.
    pub(crate) fn withdraw(&mut self, number: u64) -> bool {
        self.retain_own(|(other, _)| *other != number)
    }

    /// Removes an equal entry.
    pub(crate) fn withdraw_entry(&mut self, entry: &Entry) -> bool {
        self.retain_own(|(_, other)| other != entry)
    }

    /// Removes what a connection provides.
    pub(crate) fn forget(&mut self, connection: u64) -> bool {
        self.retain_own(|(_, entry)| entry.addr.connection != Some(connection))
    }

    /// Whether this router provides the same already.
    pub(crate) fn has_own(&self, entry: &Entry) -> bool {
        self.own.iter().any(|(_, own)| own.is_same(entry))
    }

    fn retain_own(&mut self, keep: impl Fn(&(u64, Entry)) -> bool) -> bool {
        let before = self.own.len();
        self.own.retain(keep);
        let changed = self.own.len() != before;
        if changed {
            self.own_changed();
        }
        changed
    }

    fn own_changed(&mut self) {
        self.tell_own();
        self.round();
    }

    /// Tells a new version of what this router and the Python routers that share with it provide.
    pub(super) fn tell_own(&mut self) {
        self.version += 1;
        let state = self.own_state();
        self.tell_neighbours(&state, None);
    }

    fn own_state(&self) -> State {
        State {
            home: self.home.clone(),
            incarnation: self.incarnation,
            version: self.version,
            entries: self.own.iter().map(|(_, entry)| entry.clone()).collect(),
            python: self.python.values().flatten().cloned().collect(),
            gone: false,
        }
    }

    // ---- who provides what -----------------------------------------------------------------------

    /// Everything known: own entries first, then the machine's, then the network's.
    pub(crate) fn entries<'a>(&'a self) -> impl Iterator<Item = &'a Entry> {
        let own = self.own.iter().map(|(_, entry)| entry);
        let is_news = |entry: &&Entry| !self.python.values().flatten().any(|known| known.is_same(entry));
        let told = move |state: &'a State| state.entries.iter().chain(state.python.iter().filter(is_news));
        let others = move || self.others.values().flat_map(told).chain(self.python.values().flatten());
        let near = others().filter(|entry| entry.addr.net.is_none());
        let far = others().filter(|entry| entry.addr.net.is_some());
        own.chain(near).chain(far)
    }

    /// The providers of a service, nearest first; of a vnet, if one is named.
    pub(crate) fn find(&self, service: &str, params: &Value, vnet: Option<&str>) -> Vec<Entry> {
        let fits = |entry: &&Entry| {
            entry.provides(service, params) && vnet.is_none_or(|vnet| entry.vnets.iter().any(|other| other == vnet))
        };
        self.entries().filter(fits).cloned().collect()
    }

    /// The names of all services known, each once.
    pub(crate) fn services(&self) -> Vec<String> {
        let mut names: Vec<String> = self.entries().map(|entry| entry.service.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Every router known: this one, Rust routers, and Python routers that provide something or are a hub.
    pub(crate) fn routers(&self) -> Vec<Known> {
        let own = Known { home: self.home.clone(), is_rust: true, entries: self.own_state().entries };
        let rust = self.others.values();
        let rust = rust.map(|state| Known { home: state.home.clone(), is_rust: true, entries: state.entries.clone() });
        let mut known: Vec<Known> = std::iter::once(own).chain(rust).collect();
        let told = self.others.values().flat_map(|state| &state.python);
        for entry in self.python.values().flatten().chain(told) {
            let home = Addr { connection: None, ..entry.addr.clone() };
            match known.iter_mut().find(|router| !router.is_rust && router.home == home) {
                Some(router) if router.entries.contains(entry) => {}
                Some(router) => router.entries.push(entry.clone()),
                None => known.push(Known { home, is_rust: false, entries: vec![entry.clone()] }),
            }
        }
        for hub in self.hubs.iter().filter(|hub| hub.kind == Kind::Python) {
            let home = Addr { connection: None, ..Addr::at(hub.at.clone(), DIRECTORY) };
            let is_known = known.iter().any(|router| router_of(&router.home) == router_of(&home));
            if !is_known && !self.python.contains_key(&hub.at) {
                known.push(Known { home, is_rust: false, entries: Vec::new() });
            }
        }
        known
    }

    // ---- other directories ---------------------------------------------------------------------------

    /// A hub to be joined as soon as somebody is there.
    pub(crate) fn join(&mut self, hub: Endpoint) {
        if !self.hubs.iter().any(|other| other.at == hub) {
            self.hubs.push(Hub { at: hub, kind: Kind::Unknown, vnets: None, incarnation: None, has_told: false });
        }
    }

    /// This router is the hub itself now.
    pub(crate) fn leave(&mut self, hub: &Endpoint) {
        self.hubs.retain(|other| other.at != *hub);
    }

    /// Whether somebody was found at a hub.
    pub(crate) fn has_reached(&self, hub: &Endpoint) -> bool {
        self.hubs.iter().any(|other| other.at == *hub && other.kind != Kind::Unknown)
    }

    /// Hubs of which it is not known who is there.
    pub(crate) fn missing_hubs(&self) -> Vec<Endpoint> {
        self.hubs.iter().filter(|hub| hub.kind == Kind::Unknown).map(|hub| hub.at.clone()).collect()
    }

    /// The first hub that has not said what it knows, as long as there is one.
    pub(crate) fn silent_hub(&self) -> Option<&Endpoint> {
        self.hubs.iter().find(|hub| !hub.has_told).map(|hub| &hub.at)
    }

    /// Which life of a Rust router is at a hub.
    pub(crate) fn hub_is(&mut self, name: &Endpoint, incarnation: u64) {
        if let Some(hub) = self.hubs.iter_mut().find(|hub| hub.at == *name) {
            hub.has_told &= hub.incarnation == Some(incarnation);
            hub.incarnation = Some(incarnation);
        }
    }

    /// A Rust router is reachable. If it is a hub of ours, it is told everything; its answer makes it a neighbour.
    pub(crate) fn peer_up(&mut self, name: &Endpoint) {
        if let Some(hub) = self.hubs.iter_mut().find(|hub| hub.at == *name) {
            hub.kind = Kind::Rust;
            // It may have taken us for dead: what is said from now on is newer than that.
            self.version += 1;
            self.welcome(name);
        }
    }

    pub(crate) fn peer_is_python(&mut self, name: &Endpoint) {
        if let Some(hub) = self.hubs.iter_mut().find(|hub| hub.at == *name) {
            hub.kind = Kind::Python;
            self.round();
        }
    }

    /// A router cannot be reached any more: what it provides is gone, and everybody is told so.
    pub(crate) fn peer_gone(&mut self, name: &Endpoint) -> bool {
        if let Some(hub) = self.hubs.iter_mut().find(|hub| hub.at == *name) {
            *hub = Hub { at: name.clone(), kind: Kind::Unknown, vnets: None, incarnation: None, has_told: false };
        }
        self.neighbours.retain(|neighbour| neighbour != name);
        self.guest_gone(name);
        let mut changed = self.python.remove(name).is_some();
        if changed {
            self.tell_own();
        }
        let lost: Vec<u64> =
            self.others.values().filter(|state| is_at(&state.home, name)).map(|state| state.incarnation).collect();
        for incarnation in lost {
            changed |= self.life_ended(incarnation);
        }
        changed
    }

    /// A Rust router's life is over: what it provided is gone, by whatever name it was reached.
    pub(crate) fn life_ended(&mut self, incarnation: u64) -> bool {
        let Some(version) = self.others.get(&incarnation).map(|state| state.version) else { return false };
        self.bury(incarnation, version, None);
        true
    }

    /// What neighbours hear when this router goes.
    pub(crate) fn goodbye(&mut self) {
        let state = State { version: self.version + 1, ..self.own_state().ended() };
        self.tell_neighbours(&state, None);
    }

    /// A Rust directory says what it knows. True if something is new here.
    pub(crate) fn heard(&mut self, from: &Addr, states: Vec<State>) -> bool {
        let Some(neighbour) = router_of(from) else { return false };
        let mut changed = self.hub_tells(from, &states);
        for state in states {
            changed |= self.heard_one(&neighbour, from, state);
        }
        if !self.neighbours.contains(&neighbour) {
            self.welcome(&neighbour);
        }
        changed
    }

    /// A hub that tells of itself tells all it knows. True if it had not.
    fn hub_tells(&mut self, from: &Addr, states: &[State]) -> bool {
        // On the machine a router of the network goes by its machine's name for it.
        let speaks_for =
            |home: &Addr| if from.net.is_some() { home.net == from.net } else { home.machine == from.machine };
        let is_own = |hub: &&mut Hub| {
            let tells = |state: &State| Some(state.incarnation) == hub.incarnation && speaks_for(&state.home);
            !hub.has_told && states.iter().any(tells)
        };
        let Some(hub) = self.hubs.iter_mut().find(is_own) else { return false };
        hub.has_told = true;
        true
    }

    fn heard_one(&mut self, neighbour: &Endpoint, from: &Addr, mut state: State) -> bool {
        if state.incarnation == self.incarnation || self.is_dead(&state) {
            return false;
        }
        let known = self.others.get(&state.incarnation);
        if state.gone {
            let was_known = known.is_some();
            let is_old = known.is_some_and(|known| known.version > state.version);
            if !is_old {
                self.bury(state.incarnation, state.version, Some(neighbour));
            }
            return was_known && !is_old;
        }
        let is_news = known.is_none_or(|known| known.version < state.version);
        if !is_news || (known.is_none() && self.others.len() >= ROUTERS) || state.len() > ENTRIES {
            return false;
        }
        // What came over the network without saying from where is at the other end of it.
        state.python.retain(|entry| entry.addr.machine != self.home.machine);
        for addr in
            state.entries.iter_mut().chain(&mut state.python).map(|entry| &mut entry.addr).chain([&mut state.home])
        {
            addr.net = addr.net.take().or_else(|| from.net.clone());
        }
        self.is_no_python(&state.home);
        self.tell_neighbours(&state, Some(neighbour));
        self.others.insert(state.incarnation, state);
        true
    }

    /// Makes a directory a neighbour, and tells it everything.
    fn welcome(&mut self, name: &Endpoint) {
        if !self.neighbours.contains(name) {
            self.neighbours.push(name.clone());
        }
        let mut states = vec![self.own_state()];
        states.extend(self.others.values().filter(|state| !is_at(&state.home, name)).cloned());
        self.send_states(name, states);
    }

    /// Whether this is old news of a router that has been lost since.
    fn is_dead(&self, state: &State) -> bool {
        self.dead.iter().any(|(incarnation, version)| *incarnation == state.incarnation && state.version <= *version)
    }

    fn bury(&mut self, incarnation: u64, version: u64, told_by: Option<&Endpoint>) {
        self.dead.retain(|(other, _)| *other != incarnation);
        if self.dead.len() >= DEAD {
            self.dead.pop_front();
        }
        self.dead.push_back((incarnation, version));
        if let Some(state) = self.others.remove(&incarnation) {
            let gone = state.ended();
            self.tell_neighbours(&gone, told_by);
        }
    }

    fn tell_neighbours(&mut self, state: &State, except: Option<&Endpoint>) {
        for name in self.neighbours.clone() {
            if Some(&name) != except && !is_at(&state.home, &name) {
                self.send_states(&name, vec![state.clone()]);
            }
        }
    }

    fn send_states(&mut self, name: &Endpoint, mut states: Vec<State>) {
        for state in &mut states {
            state.entries = self.visible(&state.entries, name.scheme());
            state.python = self.visible_python(&state.python, name.scheme());
        }
        self.outbox.push(Outgoing { to: Addr::at(name.clone(), DIRECTORY), what: What::Sync(states) });
    }

    /// The entries that may be seen over such a connection: on the machine those in any vnet, on the network those in ours.
    pub(super) fn visible(&self, entries: &[Entry], scheme: Scheme) -> Vec<Entry> {
        let may_be_seen = |entry: &&Entry| match scheme {
            Scheme::Tcp => entry.is_in(&self.vnets),
            _ => !entry.vnets.is_empty(),
        };
        let named = |entry: &Entry| Entry { addr: self.named(&entry.addr, scheme), ..entry.clone() };
        entries.iter().filter(may_be_seen).map(named).collect()
    }

    /// An address of this machine as the network must know it.
    pub(super) fn named(&self, addr: &Addr, scheme: Scheme) -> Addr {
        let mut addr = addr.clone();
        if scheme == Scheme::Tcp && addr.net.is_none() {
            addr.net.clone_from(&self.home.net);
        }
        addr
    }

    pub(crate) fn take_outbox(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outbox)
    }
}

/// The endpoint of an address' router: of the network if it is there, else of the machine.
pub(super) fn router_of(addr: &Addr) -> Option<Endpoint> {
    addr.net.clone().or_else(|| addr.machine.clone())
}

fn is_at(home: &Addr, name: &Endpoint) -> bool {
    router_of(home).as_ref() == Some(name)
}
