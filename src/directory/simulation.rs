//! Directories on a network that loses, doubles, delays and reorders, from a seed: `VLM_SEEDS=100000 cargo test --lib directory::simulation`.
//!
//! Five directories are joined as a mesh, a star or a chain. Entries come and go, the network parts two from three and heals, directories crash and come back as
//! another life. Then it is quiet, and after two seconds each holds exactly what all the living provide. While it is not quiet, what a router withdrew never comes back where it was seen gone
//! while its writer was in reach, which the version of its log shows: it never goes back within a life.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::entry::Entry;
use super::log::View;
use super::replica::{Replica, Sync};
use crate::addr::{Addr, Endpoint};
use crate::value::Value;

const DIRECTORIES: usize = 5;
/// Milliseconds until a lost link is noticed, as heartbeats do.
const NOTICED: u64 = 3500;

struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn endpoint(index: usize) -> Endpoint {
    Endpoint::from(format!("ipc:///tmp/router_{index}"))
}

struct World {
    rng: Rng,
    now: u64,
    replicas: Vec<Option<Replica>>,
    lives: u64,
    /// Pairs that are joined, the lower first.
    joined: BTreeSet<(usize, usize)>,
    /// Since when a pair cannot speak, and whether both have noticed.
    cut: BTreeMap<(usize, usize), (u64, bool)>,
    /// By time of arrival: from, of which life, to, what.
    mail: BTreeMap<(u64, u64), (usize, u64, usize, Sync)>,
    sent: u64,
    /// Percent of messages that are lost: links lose none, this asks for more.
    loss: u64,
    /// A cut has healed unnoticed.
    silent: bool,
    /// The newest version of each life that each has held.
    seen: BTreeMap<(usize, u64, u64), u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        rng.below(2);
        let shape = rng.below(3);
        let all = (0..DIRECTORIES).flat_map(|low| (low + 1..DIRECTORIES).map(move |high| (low, high)));
        let joined = all.filter(|(low, high)| match shape {
            0 => true,
            1 => *low == 0,
            _ => high - low == 1,
        });
        let joined = joined.collect();
        let loss = [0, 0, 5, 30][rng.below(4) as usize];
        let mut world = Self {
            rng,
            now: 0,
            replicas: (0..DIRECTORIES).map(|_| None).collect(),
            lives: 0,
            joined,
            cut: BTreeMap::new(),
            mail: BTreeMap::new(),
            sent: 0,
            loss,
            silent: false,
            seen: BTreeMap::new(),
        };
        (0..DIRECTORIES).for_each(|index| world.start(index));
        world
    }

    fn start(&mut self, index: usize) {
        self.lives += 1;
        let home = Addr { connection: None, ..Addr::at(endpoint(index), 0) };
        let mut replica = Replica::new(home, self.lives, Vec::new());
        replica.at(Duration::from_millis(self.now));
        self.replicas[index] = Some(replica);
        for other in self.peers(index) {
            self.meet(index, other);
        }
    }

    fn peers(&self, index: usize) -> Vec<usize> {
        let other = |(low, high): &(usize, usize)| {
            if *low == index { Some(*high) } else { (*high == index).then_some(*low) }
        };
        self.joined.iter().filter_map(other).collect()
    }

    /// The link is up, at both ends, if both are there and nothing cuts it.
    fn meet(&mut self, one: usize, two: usize) {
        let (low, high) = (one.min(two), one.max(two));
        if let Some((_, noticed)) = self.cut.get_mut(&(low, high)) {
            // They have not met: they will when it heals.
            *noticed = true;
            return;
        }
        if self.replicas[low].is_none() || self.replicas[high].is_none() {
            return;
        }
        let lives = [low, high].map(|index| self.replicas[index].as_ref().map(|it| it.me));
        for (at, peer, life) in [(low, high, lives[1]), (high, low, lives[0])] {
            if let Some(replica) = &mut self.replicas[at] {
                replica.meet(&endpoint(peer), life);
            }
        }
    }

    fn lose(&mut self, at: usize, peer: usize, life: Option<u64>) {
        if let Some(replica) = &mut self.replicas[at] {
            replica.lost(&endpoint(peer));
            if let Some(life) = life {
                replica.life_ended(life);
            }
        }
    }

    fn crash(&mut self, index: usize) {
        let Some(life) = self.replicas[index].take().map(|it| it.me) else { return };
        for peer in self.peers(index) {
            // Behind a cut it is noticed later that another life is there; that it is noticed at all is the link's promise.
            if let Some((_, noticed)) = self.cut.get_mut(&(index.min(peer), index.max(peer))) {
                *noticed = true;
            }
            self.lose(peer, index, Some(life));
        }
    }

    fn part(&mut self) {
        let side: Vec<bool> = (0..DIRECTORIES).map(|_| self.rng.chance(40)).collect();
        for (low, high) in self.joined.clone() {
            if side[low] != side[high] {
                self.cut.entry((low, high)).or_insert((self.now, false));
            }
        }
    }

    fn heal(&mut self) {
        for ((low, high), (_, noticed)) in std::mem::take(&mut self.cut) {
            // A short cut is not noticed: the link sends again what was lost. The simulated one does not, so the digest must find it.
            if noticed || self.rng.chance(50) {
                self.meet(low, high);
            } else {
                self.silent = true;
            }
        }
    }

    fn change(&mut self) {
        let index = self.rng.below(DIRECTORIES as u64) as usize;
        let number = self.rng.below(1000);
        let withdraws = self.rng.chance(40);
        let Some(replica) = &mut self.replicas[index] else { return };
        if let Some(oldest) = replica.own.live.keys().next().copied().filter(|_| withdraws) {
            replica.withdraw(oldest);
            return;
        }
        let entry = Entry {
            addr: Addr::at(endpoint(index), number),
            service: format!("S{}", number % 3),
            params: Value::Null,
            vnets: vec!["local".into()],
            perms: Value::Null,
        };
        replica.add(entry, false);
    }

    /// Twenty milliseconds pass.
    fn step(&mut self) {
        self.now += 20;
        for pair in self.joined.clone() {
            let Some((since, noticed)) = self.cut.get_mut(&pair) else { continue };
            if self.now - *since >= NOTICED && !*noticed {
                *noticed = true;
                self.lose(pair.0, pair.1, None);
                self.lose(pair.1, pair.0, None);
            }
        }
        while let Some(mail) = self.mail.first_entry().filter(|mail| mail.key().0 <= self.now) {
            let (from, life, to, sync) = mail.remove();
            let is_cut = self.cut.contains_key(&(from.min(to), from.max(to)));
            // A life that ended is not heard any more: its link was given up.
            let lives = self.replicas[from].as_ref().is_some_and(|replica| replica.me == life);
            if let Some(replica) = self.replicas[to].as_mut().filter(|_| lives && !is_cut) {
                replica.at(Duration::from_millis(self.now));
                replica.heard(&endpoint(from), sync);
            }
        }
        for index in 0..DIRECTORIES {
            let Some(replica) = &mut self.replicas[index] else { continue };
            replica.at(Duration::from_millis(self.now));
            replica.tick();
            let life = replica.me;
            for (name, sync) in replica.take_mail() {
                let Some(to) = (0..DIRECTORIES).find(|to| endpoint(*to) == name) else { continue };
                for _ in 0..=u64::from(self.loss > 0 && self.rng.chance(5)) {
                    if self.loss > 0 && self.rng.chance(self.loss) {
                        continue;
                    }
                    let late = if self.loss > 0 { 10 + self.rng.below(200) } else { 10 };
                    self.sent += 1;
                    self.mail.insert((self.now + late, self.sent), (index, life, to, sync.clone()));
                }
            }
        }
        if self.now.is_multiple_of(200) {
            self.check_versions();
        }
    }

    /// Nobody goes back to an older version of a life.
    fn check_versions(&mut self) {
        for (index, replica) in self.replicas.iter().enumerate() {
            let Some(replica) = replica else { continue };
            for (incarnation, _, log) in replica.logs() {
                let newest = self.seen.entry((index, replica.me, incarnation)).or_default();
                // One that had let go of it learns it anew, in one step unless it is large.
                assert!(*newest <= log.version, "{index} went back from {newest} to {} of {incarnation}", log.version);
                *newest = log.version;
            }
        }
    }

    fn quiet(&mut self) {
        self.loss = 0;
        self.heal();
        for index in 0..DIRECTORIES {
            if self.replicas[index].is_none() {
                self.start(index);
            }
        }
    }

    /// What each provides, and what each believes that all provide.
    fn disagreement(&self) -> Option<String> {
        let replicas = || self.replicas.iter().flatten();
        let provided = |replica: &Replica| -> BTreeMap<u64, Addr> {
            replica.own.live.iter().map(|(number, item)| (*number, item.entry.addr.clone())).collect()
        };
        let truth: BTreeMap<u64, _> = replicas().map(|replica| (replica.me, provided(replica))).collect();
        for replica in replicas() {
            let mut known: BTreeMap<u64, BTreeMap<u64, Addr>> = BTreeMap::new();
            for ((incarnation, view), log) in &replica.others {
                assert_eq!(*view, View::MACHINE);
                known.insert(
                    *incarnation,
                    log.live.iter().map(|(number, item)| (*number, item.entry.addr.clone())).collect(),
                );
            }
            known.insert(replica.me, provided(replica));
            if known != truth {
                return Some(format!("{} knows {known:?} of {truth:?}", replica.me));
            }
            let indexed: usize = replica.index.all().count();
            let entries: usize = truth.values().map(BTreeMap::len).sum();
            assert_eq!(indexed, entries, "the index of {}", replica.me);
        }
        None
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let end = 2_000 + world.rng.below(15_000);
    while world.now < end {
        match world.rng.below(500) {
            0..20 => world.change(),
            20..23 => world.part(),
            23..26 => world.heal(),
            26..27 => {
                let index = world.rng.below(DIRECTORIES as u64) as usize;
                world.crash(index);
            }
            27..29 => {
                let index = world.rng.below(DIRECTORIES as u64) as usize;
                if world.replicas[index].is_none() {
                    world.start(index);
                }
            }
            _ => {}
        }
        world.step();
    }
    let lossy = world.loss > 0;
    world.quiet();
    // Where nothing was lost in silence two seconds do; else a digest must pass, over four hops in a chain.
    let limit = if lossy || world.silent { 35_000 } else { 2_000 };
    let until = world.now + limit;
    while world.now < until {
        world.step();
        if world.now.is_multiple_of(500) && world.disagreement().is_none() {
            return;
        }
    }
    if let Some(disagreement) = world.disagreement() {
        panic!("seed {seed}: {disagreement}");
    }
}

#[test]
fn directories_agree_again_whatever_the_network_did() {
    let seeds = std::env::var("VLM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    // Two halves at once; a seed that fails says which it was.
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || (half..seeds).step_by(2).for_each(run));
        }
    });
}

/// Seeds of one test run. Default 10,000: four seconds on two cores.
const SEEDS: u64 = 10_000;
