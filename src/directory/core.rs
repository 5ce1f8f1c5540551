//! Who provides what, as one router knows it: what Rust directories tell each other ([`Replica`]), the hubs that this one joins, and what Python directories say (`python`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::entry::{Entry, Known};
use super::index::Place;
use super::log::{Time, View};
use super::python::{Answers, Guest};
use super::replica::{Replica, Sync};
use crate::addr::{Addr, DIRECTORY, Endpoint, Scheme};
use crate::subject;
use crate::value::Value;

/// A message to the directory of another router.
#[derive(Debug, PartialEq)]
pub(crate) struct Outgoing {
    pub(crate) to: Addr,
    pub(crate) what: What,
}

#[derive(Debug, PartialEq)]
pub(crate) enum What {
    Sync(Sync),
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

#[derive(Default)]
pub(crate) struct Core {
    pub(super) home: Addr,
    pub(super) vnets: Vec<String>,
    pub(super) replica: Replica,
    /// Entries learned from Python routers, by the router that said them.
    pub(super) python: HashMap<Endpoint, Vec<Entry>>,
    /// Python directories of the network that joined this router.
    pub(super) guests: Vec<Guest>,
    pub(super) answers: Answers,
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
        // A router that listens everywhere is known by the endpoint that it was reached at.
        let net =
            home.net.clone().filter(|net| !net.rest().starts_with("0.0.0.0:") && !net.rest().starts_with("[::]:"));
        self.replica = Replica::new(Addr { net, ..home.clone() }, incarnation, vnets.clone());
        self.home = home;
        self.vnets = vnets;
    }

    pub(crate) fn vnets(&self) -> &[String] {
        &self.vnets
    }

    /// The time is this now; it never goes back.
    pub(crate) fn at(&mut self, now: Time) {
        self.replica.at(now);
    }

    /// Time has passed. True if something is no more.
    pub(crate) fn tick(&mut self) -> bool {
        self.replica.tick()
    }

    // ---- what this router provides -----------------------------------------------------------

    /// Adds an entry; the number withdraws it.
    pub(crate) fn register(&mut self, entry: Entry) -> u64 {
        let number = self.replica.add(entry, false);
        self.round();
        number
    }

    /// Removes the entry of that number; false if it was not there.
    pub(crate) fn withdraw(&mut self, number: u64) -> bool {
        let was_there = self.replica.withdraw(number);
        if was_there {
            self.round();
        }
        was_there
    }

    /// Removes an equal entry.
    pub(crate) fn withdraw_entry(&mut self, entry: &Entry) -> bool {
        self.withdraw_all(|own| own == entry)
    }

    /// Removes what a connection provides.
    pub(crate) fn forget(&mut self, connection: u64) -> bool {
        self.withdraw_all(|own| own.addr.connection == Some(connection))
    }

    /// Whether this router provides the same already.
    pub(crate) fn has_own(&self, entry: &Entry) -> bool {
        self.own().any(|own| own.is_same(entry))
    }

    pub(super) fn own(&self) -> impl Iterator<Item = &Entry> {
        self.replica.own.live.values().filter(|item| !item.python).map(|item| &*item.entry)
    }

    fn withdraw_all(&mut self, is_meant: impl Fn(&Entry) -> bool) -> bool {
        let live = self.replica.own.live.iter();
        let meant = live.filter(|(_, item)| !item.python && is_meant(&item.entry)).map(|(number, _)| *number);
        let meant: Vec<u64> = meant.collect();
        for number in &meant {
            self.replica.withdraw(*number);
        }
        if !meant.is_empty() {
            self.round();
        }
        !meant.is_empty()
    }

    /// What Python routers provide that share with this one is told as a part of its own log.
    pub(super) fn tell_own(&mut self) {
        self.replica.dialable = self.guests.iter().filter_map(Guest::dialable).collect();
        let mut wanted: BTreeMap<(&Addr, &str), Vec<&Entry>> = BTreeMap::new();
        for entry in self.python.values().flatten() {
            wanted.entry((&entry.addr, &entry.service)).or_default().push(entry);
        }
        let mut over = Vec::new();
        for (number, item) in self.replica.own.live.iter().filter(|(_, item)| item.python) {
            let same = wanted.get_mut(&(&item.entry.addr, item.entry.service.as_str()));
            match same.and_then(|same| Some((same.iter().position(|entry| **entry == *item.entry)?, same))) {
                Some((at, same)) => drop(same.swap_remove(at)),
                None => over.push(*number),
            }
        }
        let added: Vec<Entry> = wanted.into_values().flatten().cloned().collect();
        for number in over {
            self.replica.withdraw(number);
        }
        for entry in added {
            self.replica.add(entry, true);
        }
    }

    // ---- who provides what -----------------------------------------------------------------------

    /// The providers of a service, nearest first; of a vnet, if one is named.
    pub(crate) fn providers(
        &self,
        service: &str,
        params: &Value,
        vnet: Option<&str>,
    ) -> impl Iterator<Item = &Arc<Entry>> {
        let fits = move |entry: &Entry| {
            entry.params.satisfies(params) && vnet.is_none_or(|vnet| entry.vnets.iter().any(|other| other == vnet))
        };
        let all = self.replica.index.providers(service).filter(move |(_, entry)| fits(entry));
        all.filter(|(place, entry)| !self.is_known_here(place, entry)).map(|(_, entry)| entry)
    }

    /// The same of any service, if none is named.
    pub(crate) fn find(&self, service: Option<&str>, params: &Value, vnet: Option<&str>) -> Vec<Arc<Entry>> {
        match service {
            Some(service) => self.providers(service, params, vnet).cloned().collect(),
            None => {
                let services = self.replica.index.services();
                services.flat_map(|service| self.providers(service, params, vnet)).cloned().collect()
            }
        }
    }

    /// Everything known, the nearest first.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        let all = self.replica.index.all().filter(|(place, entry)| !self.is_known_here(place, entry));
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, entry)| entry.clone()).collect()
    }

    /// A Python router's entry that another router tells of, too.
    fn is_known_here(&self, place: &Place, entry: &Entry) -> bool {
        place.incarnation != self.replica.me && self.python.values().flatten().any(|known| known.is_same(entry))
    }

    /// The names of all services known, each once.
    pub(crate) fn services(&self) -> Vec<String> {
        let mut names: Vec<String> = self.replica.index.services().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Every router known: this one, Rust routers, and Python routers that provide something or are a hub.
    pub(crate) fn routers(&self) -> Vec<Known> {
        let mut rust: BTreeMap<u64, Known> = BTreeMap::new();
        let mut python: Vec<Known> = Vec::new();
        for (incarnation, view, log) in self.replica.logs().skip(1) {
            let is_own = |(_, item): &(&u64, &super::log::Item)| !item.python;
            let entries = log.live.iter().filter(is_own).map(|(_, item)| (*log.resolved(&item.entry, view)).clone());
            let known = || Known { home: log.home.clone(), is_rust: true, entries: entries.collect() };
            rust.entry(incarnation).or_insert_with(known);
        }
        let told = |python: bool| {
            move |(_, view, log): (u64, &'_ View, &'_ super::log::Log)| {
                let items = log.live.values().filter(move |item| item.python == python);
                items.map(|item| (*log.resolved(&item.entry, view)).clone()).collect::<Vec<Entry>>()
            }
        };
        for entry in self.replica.logs().flat_map(told(true)) {
            let home = Addr { connection: None, ..entry.addr.clone() };
            match python.iter_mut().find(|router| router.home == home) {
                Some(router) if router.entries.contains(&entry) => {}
                Some(router) => router.entries.push(entry),
                None => python.push(Known { home, is_rust: false, entries: vec![entry] }),
            }
        }
        let own = Known { home: self.home.clone(), is_rust: true, entries: self.own().cloned().collect() };
        let mut known: Vec<Known> = std::iter::once(own).chain(rust.into_values()).chain(python).collect();
        for hub in self.hubs.iter().filter(|hub| hub.kind == Kind::Python) {
            let home = Addr { connection: None, ..Addr::at(hub.at.clone(), DIRECTORY) };
            let is_known = known.iter().any(|router| router_of(&router.home) == router_of(&home));
            if !is_known && !self.python.contains_key(&hub.at) {
                known.push(Known { home, is_rust: false, entries: Vec::new() });
            }
        }
        known
    }

    // ---- hubs ----------------------------------------------------------------------------------------

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

    /// A Rust router of this life is reachable. If it is a hub of ours, both tell each other what they know.
    pub(crate) fn peer_up(&mut self, name: &Endpoint, incarnation: u64) {
        if let Some(hub) = self.hubs.iter_mut().find(|hub| hub.at == *name) {
            hub.has_told &= hub.incarnation == Some(incarnation);
            hub.incarnation = Some(incarnation);
            hub.kind = Kind::Rust;
            self.replica.meet(name, Some(incarnation));
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
        self.guest_gone(name);
        let was_python = self.python.remove(name).is_some();
        if was_python {
            self.tell_own();
        }
        self.replica.lost(name) || was_python
    }

    /// A Rust router's life is over, by whatever name it was reached.
    pub(crate) fn life_ended(&mut self, incarnation: u64) -> bool {
        self.replica.life_ended(incarnation)
    }

    /// What neighbours hear when this router goes.
    pub(crate) fn goodbye(&mut self) {
        self.replica.goodbye();
    }

    /// A Rust directory speaks. True if something is new here.
    pub(crate) fn heard(&mut self, from: &Addr, sync: Sync) -> bool {
        // A hub is known by the endpoint that was joined, not by its own.
        let hub = self.hubs.iter_mut().find(|hub| hub.incarnation == Some(sync.who));
        let is_first = hub.as_ref().is_some_and(|hub| sync.is_all && !hub.has_told);
        let mut name = router_of(from);
        if let Some(hub) = hub {
            hub.has_told |= sync.is_all;
            name = Some(hub.at.clone());
        }
        let Some(name) = name else { return false };
        for home in sync.news.iter().map(|news| &news.home) {
            self.is_no_python(home);
        }
        self.replica.heard(&name, sync) || is_first
    }

    pub(crate) fn take_outbox(&mut self) -> Vec<Outgoing> {
        let told = self.replica.take_mail().into_iter();
        let told = told.map(|(name, sync)| Outgoing { to: Addr::at(name, DIRECTORY), what: What::Sync(sync) });
        std::mem::take(&mut self.outbox).into_iter().chain(told).collect()
    }

    /// An address of this machine as the network must know it.
    pub(super) fn named(&self, addr: &Addr, scheme: Scheme) -> Addr {
        let mut addr = addr.clone();
        if scheme == Scheme::Tcp && addr.net.is_none() {
            addr.net.clone_from(&self.home.net);
        }
        addr
    }
}

/// The endpoint of an address' router: of the network if it is there, else of the machine.
pub(super) fn router_of(addr: &Addr) -> Option<Endpoint> {
    addr.net.clone().or_else(|| addr.machine.clone())
}
