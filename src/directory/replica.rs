//! How Rust directories agree: each router writes a log of what it provides, and neighbours bring each other up to date.
//!
//! A change is told to every neighbour at once. Neighbours that meet say what they have (`have`) and are told what they lack. Every [`DIGEST`] each tells its neighbours how far it
//! could bring them (`alive`), which renews leases and finds what was missed. A log that nobody renews ends with its [`LEASE`]; the age travels with it, so copies of
//! copies end with it, too. A router that is lost is `gone`, up to the version it had; that is told on, and one that was not gone after all contradicts with a newer version.
//!
//! The caller gives the time with [`Replica::at`], names neighbours by endpoint, and carries what [`Replica::take_mail`] has to them, in any order, any number of times or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::index::Index;
use super::log::{Item, LEASE, Log, News, REMEMBER, Time, View};
use crate::addr::{Addr, Endpoint, Scheme};
use crate::directory::entry::Entry;

/// Pause between digests. Default 5 s: a digest costs about 16 bytes for each router known, so a hundred routers cost 320 bytes a second.
pub(crate) const DIGEST: Duration = Duration::from_secs(5);
/// How long a router is believed to be there after the neighbour was lost that told of it. Default 15 s: another hub is found within three, and tells of those that joined it within a digest.
const ORPHAN: Duration = Duration::from_secs(15);
/// Logs that are kept. Default 4,096: as many as a router keeps links; beyond, newcomers are not learned.
pub(crate) const ROUTERS: usize = 4096;
/// Entries taken from one router. Default 100,000: what a large network has in all.
pub(crate) const ENTRIES: usize = 100_000;

/// A message between Rust directories.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sync {
    /// Which life of a router speaks.
    pub(crate) who: u64,
    /// What it holds: it is to be told what it lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) have: Option<Digest>,
    /// How far it could bring the receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) alive: Option<Digest>,
    /// Routers that were lost, and up to which version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gone: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) news: Vec<News>,
    /// The last of the answer to a `have`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_all: bool,
}

/// By view: incarnations, versions, and ages in milliseconds.
pub(crate) type Digest = Vec<(View, Vec<(u64, u64, u64)>)>;
type Name = (u64, View);

#[derive(Clone, Debug, Default, PartialEq)]
struct Neighbour {
    incarnation: Option<u64>,
    /// Up to which versions it was told; none until it has said what it has.
    told: Option<BTreeMap<Name, u64>>,
    /// It has said all that it has, as it was asked; else it is asked again when it tells a digest.
    has_answered: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Replica {
    pub(super) me: u64,
    pub(super) own: Log,
    pub(super) vnets: Vec<String>,
    pub(super) others: BTreeMap<Name, Log>,
    /// Lost routers: up to which version, and since when.
    pub(super) dead: BTreeMap<u64, (u64, Time)>,
    neighbours: BTreeMap<Endpoint, Neighbour>,
    pub(super) index: Index,
    /// Logs with something that neighbours have not been told.
    dirty: BTreeSet<Name>,
    /// Logs whose home has changed, which is told without a change.
    moved: BTreeSet<Name>,
    mail: Vec<(Endpoint, Sync)>,
    pub(super) now: Time,
    digested: Time,
    /// Network endpoints of guests: Python routers that the network can dial.
    pub(super) dialable: BTreeSet<Addr>,
}

impl Replica {
    pub(crate) fn new(home: Addr, me: u64, vnets: Vec<String>) -> Self {
        let own = Log { home, version: 1, ..Log::default() };
        Self { me, own, vnets, ..Self::default() }
    }

    /// The time is this now; it never goes back.
    pub(crate) fn at(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.own.fresh = self.now;
    }

    // ---- the own log ---------------------------------------------------------------------------

    pub(crate) fn add(&mut self, entry: Entry, python: bool) -> u64 {
        let entry = Arc::new(entry);
        let number = self.own.add(Item { entry: entry.clone(), python });
        let place = self.index.place(!python, self.me, &View::MACHINE, number, &entry);
        self.index.add(place, entry);
        self.dirty.insert((self.me, View::MACHINE));
        number
    }

    pub(crate) fn withdraw(&mut self, number: u64) -> bool {
        let Some(item) = self.own.live.get(&number).cloned() else { return false };
        let place = self.index.place(!item.python, self.me, &View::MACHINE, number, &item.entry);
        self.index.remove(place, &item.entry.service);
        self.own.withdraw(number, self.now);
        self.dirty.insert((self.me, View::MACHINE));
        true
    }

    // ---- neighbours --------------------------------------------------------------------------------

    /// A Rust directory is there: it is asked what it has.
    pub(crate) fn meet(&mut self, name: &Endpoint, incarnation: Option<u64>) {
        // It may have spoken before, by another name.
        self.neighbours.retain(|_, it| incarnation.is_none() || it.incarnation != incarnation);
        self.neighbours.insert(name.clone(), Neighbour { incarnation, ..Neighbour::default() });
        self.ask(name);
    }

    /// A router cannot be reached any more: what it provides is gone, and everybody is told so. True if something changed.
    pub(crate) fn lost(&mut self, name: &Endpoint) -> bool {
        let mut lost: BTreeSet<u64> = self.neighbours.remove(name).and_then(|it| it.incarnation).into_iter().collect();
        let is_there = |(incarnation, _): &Name, log: &Log| {
            (log.home.net.as_ref().or(log.home.machine.as_ref()) == Some(name)).then_some(*incarnation)
        };
        lost.extend(self.others.iter().filter_map(|(key, log)| is_there(key, log)));
        for log in self.others.values_mut().filter(|log| log.via.as_ref() == Some(name)) {
            log.via = None;
            log.orphaned = Some(self.now);
        }
        let mut changed = false;
        for incarnation in lost {
            changed |= self.life_ended(incarnation);
        }
        changed
    }

    /// A router's life is over, by whatever name it was reached.
    pub(crate) fn life_ended(&mut self, incarnation: u64) -> bool {
        match self.version_of(incarnation) {
            Some(version) => self.bury(incarnation, version, None),
            None => false,
        }
    }

    /// Neighbours hear that this router goes.
    pub(crate) fn goodbye(&mut self) {
        let gone = vec![(self.me, self.own.version + 1)];
        for name in self.neighbours.keys().cloned().collect::<Vec<_>>() {
            self.send(&name, Sync { gone: gone.clone(), ..Sync::default() });
        }
    }

    /// A neighbour speaks. True if something changed.
    pub(crate) fn heard(&mut self, name: &Endpoint, sync: Sync) -> bool {
        if self.neighbours.get(name).is_none_or(|it| it.incarnation.is_some_and(|before| before != sync.who)) {
            self.meet(name, Some(sync.who));
        }
        let mut lacks = false;
        if let Some(neighbour) = self.neighbours.get_mut(name) {
            neighbour.incarnation = Some(sync.who);
            neighbour.has_answered |= sync.is_all;
            lacks = sync.alive.is_some() && !neighbour.has_answered;
        }
        let mut changed = false;
        for (incarnation, version) in sync.gone {
            changed |= self.hear_gone(name, incarnation, version);
        }
        for news in sync.news {
            changed |= self.hear_news(name, sync.who, news, &mut lacks);
        }
        if let Some(alive) = sync.alive {
            lacks |= self.hear_alive(name, &alive);
        }
        if lacks {
            self.ask(name);
        }
        if let Some(have) = sync.have {
            self.hear_have(name, have);
        }
        changed
    }

    fn hear_gone(&mut self, name: &Endpoint, incarnation: u64, version: u64) -> bool {
        if incarnation == self.me {
            if version >= self.own.version {
                self.own.version = version + 1;
                self.dirty.insert((self.me, View::MACHINE));
            }
            self.untold(name, incarnation);
            return false;
        }
        let Some(held) = self.version_of(incarnation) else {
            self.remember_dead(incarnation, version);
            return false;
        };
        if held > version {
            self.untold(name, incarnation);
            return false;
        }
        let direct =
            self.neighbours.iter().find(|(_, it)| it.incarnation == Some(incarnation)).map(|(at, _)| at.clone());
        match direct.filter(|at| at != name) {
            // It is there, as far as we know: let it say so itself.
            Some(at) => {
                self.untold(name, incarnation);
                self.send(&at, Sync { gone: vec![(incarnation, version)], ..Sync::default() });
                false
            }
            None => self.bury(incarnation, version, Some(name)),
        }
    }

    fn hear_news(&mut self, name: &Endpoint, who: u64, mut news: News, lacks: &mut bool) -> bool {
        let key = (news.incarnation, news.view.clone());
        let age = Duration::from_millis(news.age);
        if news.incarnation == self.me || age >= LEASE {
            return false;
        }
        if let Some((version, _)) = self.dead.get(&news.incarnation).filter(|(version, _)| news.to <= *version) {
            let gone = vec![(news.incarnation, *version)];
            self.send(name, Sync { gone, ..Sync::default() });
            return false;
        }
        if name.scheme() == Scheme::Tcp && news.home.net.is_none() {
            // What came over the network without saying from where is at the other end of it.
            news.home.net = Some(name.clone());
        }
        if self.is_succeeded(&news, who) {
            self.remember_dead(news.incarnation, news.to);
            let gone = vec![(news.incarnation, news.to)];
            self.send(name, Sync { gone, ..Sync::default() });
            return false;
        }
        let is_new = !self.others.contains_key(&key);
        if is_new && (self.others.len() >= ROUTERS || news.from > 0) {
            *lacks |= news.from > 0;
            return false;
        }
        let (now, home) = (self.now, news.home.clone());
        let log = self.others.entry(key.clone()).or_default();
        if is_new {
            log.home = home.clone();
        }
        if log.live.len() + news.added.len() > ENTRIES {
            return false;
        }
        *lacks |= news.from > log.version;
        let is_direct = who == news.incarnation;
        let (view, home_now) = (news.view.clone(), home.clone());
        let moved = log.home != home && (is_direct || log.via.as_ref().is_none_or(|via| via == name));
        let to = news.to;
        let before = log.version;
        let difference = log.hear(news, now);
        let changed = is_new || !difference.added.is_empty() || !difference.removed.is_empty();
        if log.version != before {
            self.dirty.insert(key.clone());
        }
        for (number, item) in difference.removed {
            self.unindex(&key, number, &item);
        }
        for (number, item) in difference.added {
            self.index_one(&key, number, &item);
        }
        if moved {
            self.moved(&key, home);
        }
        self.renew(&key, name, age);
        self.dead.remove(&key.0);
        if is_direct && is_new {
            self.bury_predecessors(&view, &home_now, who);
        }
        if let Some(told) = self.neighbours.get_mut(name).and_then(|it| it.told.as_mut()) {
            let version = told.entry(key).or_default();
            *version = to.max(*version);
        }
        changed || moved
    }

    fn hear_alive(&mut self, name: &Endpoint, alive: &Digest) -> bool {
        let mut lacks = false;
        let listed =
            alive.iter().flat_map(|(view, logs)| logs.iter().map(move |(incarnation, _, _)| (*incarnation, view)));
        let listed: BTreeSet<(u64, &View)> = listed.collect();
        // What it no longer tells of it has let go of.
        for (_, log) in self
            .others
            .iter_mut()
            .filter(|(key, log)| log.via.as_ref() == Some(name) && !listed.contains(&(key.0, &key.1)))
        {
            log.via = None;
            log.orphaned = Some(self.now);
        }
        for (view, logs) in alive {
            for (incarnation, version, age) in logs {
                if *incarnation == self.me || Duration::from_millis(*age) >= LEASE {
                    continue;
                }
                if let Some((dead, _)) = self.dead.get(incarnation).filter(|(dead, _)| dead >= version) {
                    let gone = vec![(*incarnation, *dead)];
                    self.send(name, Sync { gone, ..Sync::default() });
                    continue;
                }
                let key = (*incarnation, view.clone());
                match self.others.get(&key) {
                    Some(log) if log.version >= *version => self.renew(&key, name, Duration::from_millis(*age)),
                    _ => lacks = true,
                }
            }
        }
        lacks
    }

    fn hear_have(&mut self, name: &Endpoint, have: Digest) {
        let mut told = BTreeMap::new();
        let mut gone = Vec::new();
        for (view, logs) in have {
            for (incarnation, version, _) in logs {
                if let Some((dead, _)) = self.dead.get(&incarnation).filter(|(dead, _)| *dead >= version) {
                    gone.push((incarnation, *dead));
                }
                told.insert((incarnation, view.clone()), version);
            }
        }
        if let Some(neighbour) = self.neighbours.get_mut(name) {
            neighbour.told = Some(told);
        }
        let mut news = self.untold_news(name, None);
        let last = news.pop();
        for news in news {
            self.send(name, Sync { news: vec![news], ..Sync::default() });
        }
        self.send(name, Sync { gone, news: last.into_iter().collect(), is_all: true, ..Sync::default() });
    }

    /// Time has passed: digests are told, leases end, the dead are forgotten. True if something changed.
    pub(crate) fn tick(&mut self) -> bool {
        let now = self.now;
        let is_over = |log: &Log| log.fresh + LEASE <= now || log.orphaned.is_some_and(|since| since + ORPHAN <= now);
        let over: Vec<Name> = self.others.iter().filter(|(_, log)| is_over(log)).map(|(key, _)| key.clone()).collect();
        for key in &over {
            self.drop_log(key);
        }
        if self.digested + DIGEST <= now {
            self.digested = now;
            self.dead.retain(|_, (_, since)| *since + REMEMBER > now);
            self.own.forget(now);
            self.others.values_mut().for_each(|log| log.forget(now));
            for name in self.neighbours.keys().cloned().collect::<Vec<_>>() {
                let alive = Some(self.alive(&name));
                self.send(&name, Sync { alive, ..Sync::default() });
            }
        }
        !over.is_empty()
    }

    /// What is to be carried to neighbours.
    pub(crate) fn take_mail(&mut self) -> Vec<(Endpoint, Sync)> {
        let dirty = std::mem::take(&mut self.dirty);
        if !dirty.is_empty() {
            for name in self.neighbours.keys().cloned().collect::<Vec<_>>() {
                for news in self.untold_news(&name, Some(&dirty)) {
                    self.send(&name, Sync { news: vec![news], ..Sync::default() });
                }
            }
        }
        self.moved.clear();
        std::mem::take(&mut self.mail)
    }

    /// Every log known, this router's first, with its view.
    pub(crate) fn logs(&self) -> impl Iterator<Item = (u64, &View, &Log)> {
        let others = self.others.iter().map(|((incarnation, view), log)| (*incarnation, view, log));
        std::iter::once((self.me, &View::MACHINE, &self.own)).chain(others)
    }

    /// All that decides what it does next, in one order.
    #[cfg(test)]
    pub(super) fn state(&self) -> String {
        let held = (&self.own, &self.others, &self.dead, &self.neighbours);
        format!("{:?} {:?} {:?} {:?}", self.me, held, self.dirty, (self.now, self.digested))
    }

    // ---- what is told ------------------------------------------------------------------------------------

    fn ask(&mut self, name: &Endpoint) {
        let mut have: BTreeMap<View, Vec<(u64, u64, u64)>> = BTreeMap::new();
        for ((incarnation, view), log) in &self.others {
            have.entry(view.clone()).or_default().push((*incarnation, log.version, self.age(log)));
        }
        let have = Some(have.into_iter().collect());
        self.send(name, Sync { have, ..Sync::default() });
    }

    fn alive(&self, name: &Endpoint) -> Digest {
        let mut alive: BTreeMap<View, Vec<(u64, u64, u64)>> = BTreeMap::new();
        for ((incarnation, view), log) in self.told_to(name, None) {
            if log.via.as_ref() != Some(name) {
                alive.entry(view).or_default().push((incarnation, log.version, self.age(log)));
            }
        }
        alive.into_iter().collect()
    }

    fn age(&self, log: &Log) -> u64 {
        self.now.saturating_sub(log.fresh).as_millis() as u64
    }

    /// The logs that a neighbour may see, by the names under which it knows them: of those in several views the furthest.
    fn told_to(&self, name: &Endpoint, only: Option<&BTreeSet<Name>>) -> BTreeMap<Name, &Log> {
        let mut told: BTreeMap<Name, &Log> = BTreeMap::new();
        let Some(neighbour) = self.neighbours.get(name) else { return told };
        for (incarnation, view, log) in self.logs() {
            let is_asked = only.is_none_or(|only| only.iter().any(|(other, _)| *other == incarnation));
            if !is_asked || neighbour.incarnation == Some(incarnation) {
                continue;
            }
            let view = if name.scheme() == Scheme::Tcp { view.over_network(&self.vnets) } else { Some(view.clone()) };
            if let Some(view) = view {
                let best = told.entry((incarnation, view)).or_insert(log);
                if best.version < log.version {
                    *best = log;
                }
            }
        }
        told
    }

    fn untold_news(&mut self, name: &Endpoint, only: Option<&BTreeSet<Name>>) -> Vec<News> {
        let Some(told) = self.neighbours.get(name).and_then(|it| it.told.as_ref()) else { return Vec::new() };
        let mut all = Vec::new();
        let mut now_told = Vec::new();
        for (key, log) in self.told_to(name, only) {
            let from = told.get(&key).copied().unwrap_or(0);
            // A router that only dials is known by its pipe, which may be another one now.
            let is_moved = self.moved.iter().any(|(other, _)| *other == key.0) || (only.is_none() && key.0 == self.me);
            if from >= log.version && !is_moved {
                continue;
            }
            let from = from.min(log.version);
            let (incarnation, view) = &key;
            let over_network = name.scheme() == Scheme::Tcp;
            let is_own = *incarnation == self.me;
            let reaches = |entry: &Entry| {
                let home = Addr { connection: None, ..entry.addr.clone() };
                !over_network || (if is_own { self.dialable.contains(&home) } else { entry.addr.net.is_some() })
            };
            let mut news = log.since(from, view, self.now, *incarnation, reaches);
            for news in news.iter_mut().filter(|_| over_network) {
                // Through this router, unless it can be reached itself.
                news.home.net = news.home.net.take().or_else(|| self.own.home.net.clone());
            }
            now_told.push((key, log.version));
            all.extend(news);
        }
        if let Some(told) = self.neighbours.get_mut(name).and_then(|it| it.told.as_mut()) {
            told.extend(now_told);
        }
        all
    }

    /// What a neighbour was told of a router it has let go: it is told again from the start.
    fn untold(&mut self, name: &Endpoint, incarnation: u64) {
        if let Some(told) = self.neighbours.get_mut(name).and_then(|it| it.told.as_mut()) {
            told.retain(|(other, _), _| *other != incarnation);
        }
        let held =
            self.logs().filter(|(other, _, _)| *other == incarnation).map(|(_, view, _)| (incarnation, view.clone()));
        self.dirty.extend(held.collect::<Vec<_>>());
    }

    fn send(&mut self, name: &Endpoint, sync: Sync) {
        self.mail.push((name.clone(), Sync { who: self.me, ..sync }));
    }

    // ---- what is held ------------------------------------------------------------------------------------------

    fn version_of(&self, incarnation: u64) -> Option<u64> {
        self.views_of(incarnation).filter_map(|key| self.others.get(&key)).map(|log| log.version).max()
    }

    fn views_of(&self, incarnation: u64) -> impl Iterator<Item = Name> + use<> {
        let range = self.others.range((incarnation, View::MACHINE)..);
        let keys = range.map(|(key, _)| key.clone()).take_while(|(other, _)| *other == incarnation);
        keys.collect::<Vec<_>>().into_iter()
    }

    fn bury(&mut self, incarnation: u64, version: u64, told_by: Option<&Endpoint>) -> bool {
        for key in self.views_of(incarnation) {
            self.drop_log(&key);
        }
        self.remember_dead(incarnation, version);
        for name in self.neighbours.keys().cloned().collect::<Vec<_>>() {
            if Some(&name) != told_by {
                self.send(&name, Sync { gone: vec![(incarnation, version)], ..Sync::default() });
            }
        }
        true
    }

    /// An endpoint has one owner: another life of it is this router, or speaks with it.
    fn is_succeeded(&self, news: &News, who: u64) -> bool {
        let is_there = |incarnation: u64| self.neighbours.values().any(|it| it.incarnation == Some(incarnation));
        let has_its_place = |(incarnation, view): &Name, log: &Log| {
            *incarnation != news.incarnation
                && *view == news.view
                && is_same_router(view, &log.home, &news.home)
                && is_there(*incarnation)
        };
        is_same_router(&news.view, &news.home, &self.own.home)
            || who != news.incarnation && self.others.iter().any(|(key, log)| has_its_place(key, log))
    }

    /// A router speaks for itself: whoever else was at its endpoint is no more.
    fn bury_predecessors(&mut self, view: &View, home: &Addr, living: u64) {
        let is_over = |(incarnation, of): &Name, log: &Log| {
            *incarnation != living && of == view && is_same_router(view, &log.home, home)
        };
        let over = self
            .others
            .iter()
            .filter(|(key, log)| is_over(key, log))
            .map(|((incarnation, _), log)| (*incarnation, log.version));
        for (incarnation, version) in over.collect::<Vec<_>>() {
            self.bury(incarnation, version, None);
        }
    }

    fn remember_dead(&mut self, incarnation: u64, version: u64) {
        if self.dead.len() >= ROUTERS {
            let oldest = self.dead.iter().min_by_key(|(_, (_, since))| *since).map(|(incarnation, _)| *incarnation);
            oldest.and_then(|oldest| self.dead.remove(&oldest));
        }
        let known = self.dead.entry(incarnation).or_insert((version, self.now));
        *known = (known.0.max(version), self.now);
    }

    fn drop_log(&mut self, key: &Name) {
        let Some(log) = self.others.remove(key) else { return };
        for (number, item) in &log.live {
            self.unindex(key, *number, item);
        }
        for neighbour in self.neighbours.values_mut() {
            // What it is told of this router next is told from the start.
            if let Some(told) = &mut neighbour.told {
                told.retain(|(incarnation, _), _| *incarnation != key.0);
            }
        }
    }

    fn renew(&mut self, key: &Name, name: &Endpoint, age: Duration) {
        let Some(log) = self.others.get_mut(key) else { return };
        let fresh = self.now.saturating_sub(age);
        if log.orphaned.is_some_and(|since| fresh > since) {
            log.orphaned = None;
        }
        let is_writer = self.neighbours.get(name).is_some_and(|it| it.incarnation == Some(key.0));
        // The writer itself keeps us up to date, else whoever told first: two who held it from each other would both tell the other nothing.
        if is_writer || log.via.is_none() && log.orphaned.is_none() {
            log.via = Some(name.clone());
        }
        log.fresh = log.fresh.max(fresh);
    }

    /// A router is reached in another way than before: its entries are, too.
    fn moved(&mut self, key: &Name, home: Addr) {
        let Some(mut log) = self.others.remove(key) else { return };
        log.home = home;
        let live = log.live.clone();
        self.others.insert(key.clone(), log);
        for (number, item) in live {
            self.index_one(key, number, &item);
        }
        self.moved.insert(key.clone());
        self.dirty.insert(key.clone());
    }

    fn index_one(&mut self, key: &Name, number: u64, item: &Item) {
        let Some(log) = self.others.get(key) else { return };
        let entry = log.resolved(&item.entry, &key.1);
        let place = self.index.place(false, key.0, &key.1, number, &item.entry);
        self.index.add(place, entry);
    }

    fn unindex(&mut self, key: &Name, number: u64, item: &Item) {
        let place = self.index.place(false, key.0, &key.1, number, &item.entry);
        self.index.remove(place, &item.entry.service);
    }
}

/// Whether two homes are one: on a machine by the name there, on the network by both.
fn is_same_router(view: &View, one: &Addr, other: &Addr) -> bool {
    let is_one = |one: &Option<Endpoint>, other: &Option<Endpoint>| one.is_some() && one == other;
    is_one(&one.machine, &other.machine) && (!view.is_network() || is_one(&one.net, &other.net))
}
