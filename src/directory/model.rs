//! Every order of events there is, in a small world: a hub and two providers, whose messages may be lost, one of the three dies and may come back as another life.
//!
//! `VLM_ADDS=2 cargo test --lib directory::model -- --nocapture` plays the larger one, and prints how many states that are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use stateright::{Checker, Model, Property};

use super::entry::Entry;
use super::replica::{DIGEST, Replica, Sync};
use crate::addr::{Addr, Endpoint};
use crate::value::Value;

const HUB: usize = 0;
const PROVIDERS: [usize; 2] = [1, 2];
/// Digests after which what was lost is found again: one at the hub, one behind it.
const REPAIRED: u8 = 2;

/// What may still happen.
#[derive(Clone, Debug)]
struct Budget {
    adds: u8,
    withdrawals: u8,
    losses: u8,
    crashes: u8,
    digests: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Add(usize),
    Withdraw(usize),
    /// The oldest message from one to the other arrives; or is lost.
    Deliver(usize, usize),
    Lose(usize, usize),
    Crash(usize),
    /// The first hears that the second has died.
    Notice(usize, usize),
    Restart(usize),
    /// Nothing is on its way, and the time of a digest passes.
    Digest,
}

#[derive(Clone)]
struct World {
    replicas: [Option<Replica>; 3],
    /// By sender and receiver; a link keeps the order.
    wires: BTreeMap<(usize, usize), VecDeque<Sync>>,
    /// Who has not heard yet that a life of somebody has ended.
    unnoticed: BTreeSet<(usize, usize, u64)>,
    lives: u64,
    digests: u32,
    /// Digests since something was lost.
    calm: u8,
    left: Budget,
    /// What each life provided at each of its versions.
    histories: BTreeMap<u64, BTreeMap<u64, BTreeSet<u64>>>,
    /// All of that as text: two worlds with the same are one.
    print: String,
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.print.hash(state);
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.print)
    }
}

fn endpoint(index: usize) -> Endpoint {
    Endpoint::from(format!("ipc:///tmp/router_{index}"))
}

fn neighbours(index: usize) -> &'static [usize] {
    if index == HUB { &PROVIDERS } else { &[HUB] }
}

impl World {
    fn new(left: Budget) -> Self {
        let mut world = Self {
            replicas: [None, None, None],
            wires: BTreeMap::new(),
            unnoticed: BTreeSet::new(),
            lives: 0,
            digests: 0,
            calm: REPAIRED,
            left,
            histories: BTreeMap::new(),
            print: String::new(),
        };
        (0..3).for_each(|index| world.start(index));
        // They have met: the orders of that are played by a restart.
        while let Some((from, to)) = world.wires.keys().next().copied() {
            world.deliver(from, to);
            world.post();
        }
        world.finish();
        world
    }

    fn now(&self) -> Duration {
        DIGEST * self.digests
    }

    fn start(&mut self, index: usize) {
        self.lives += 1;
        let home = Addr { connection: None, ..Addr::at(endpoint(index), 0) };
        let mut replica = Replica::new(home, self.lives, Vec::new());
        replica.at(self.now());
        self.replicas[index] = Some(replica);
        for peer in neighbours(index) {
            let lives = [*peer, index].map(|at| self.replicas[at].as_ref().map(|replica| replica.me));
            if let [Some(of_peer), Some(of_index)] = lives {
                self.meet(index, *peer, of_peer);
                self.meet(*peer, index, of_index);
            }
        }
        self.post();
    }

    fn meet(&mut self, at: usize, peer: usize, life: u64) {
        if let Some(replica) = &mut self.replicas[at] {
            replica.meet(&endpoint(peer), Some(life));
        }
    }

    fn notice(&mut self, at: usize, peer: usize) {
        let Some(noticed) = self.unnoticed.iter().find(|(who, whom, _)| (*who, *whom) == (at, peer)).copied() else {
            return;
        };
        self.unnoticed.remove(&noticed);
        if let Some(replica) = &mut self.replicas[at] {
            replica.lost(&endpoint(peer));
            replica.life_ended(noticed.2);
        }
    }

    fn crash(&mut self, index: usize) {
        let Some(life) = self.replicas[index].take().map(|replica| replica.me) else { return };
        self.wires.retain(|(from, to), _| *from != index && *to != index);
        self.unnoticed.retain(|(who, _, _)| *who != index);
        for peer in neighbours(index).iter().filter(|peer| self.replicas[**peer].is_some()) {
            self.unnoticed.insert((*peer, index, life));
        }
    }

    fn take(&mut self, from: usize, to: usize) -> Option<Sync> {
        let wire = self.wires.get_mut(&(from, to))?;
        let sync = wire.pop_front();
        if wire.is_empty() {
            self.wires.remove(&(from, to));
        }
        sync
    }

    fn deliver(&mut self, from: usize, to: usize) {
        if let Some(sync) = self.take(from, to)
            && let Some(replica) = &mut self.replicas[to]
        {
            replica.heard(&endpoint(from), sync);
        }
    }

    /// What the directories have to say goes on its way, to those who live.
    fn post(&mut self) {
        for from in 0..3 {
            let mail = self.replicas[from].as_mut().map(Replica::take_mail).unwrap_or_default();
            for (name, sync) in mail {
                let to = (0..3).find(|to| endpoint(*to) == name && self.replicas[*to].is_some());
                if let Some(to) = to {
                    self.wires.entry((from, to)).or_default().push_back(sync);
                }
            }
        }
    }

    /// Notes what the writers provide, and which world this is.
    fn finish(&mut self) {
        for replica in self.replicas.iter().flatten() {
            let live = replica.own.live.keys().copied().collect();
            self.histories.entry(replica.me).or_default().insert(replica.own.version, live);
        }
        let states: Vec<_> = self.replicas.iter().map(|replica| replica.as_ref().map(Replica::state)).collect();
        self.print = format!(
            "{states:?} {:?} {:?} {} {} {:?} {:?}",
            self.wires, self.unnoticed, self.lives, self.calm, self.left, self.histories
        );
    }

    fn is_settled(&self) -> bool {
        self.wires.is_empty()
            && self.unnoticed.is_empty()
            && self.calm >= REPAIRED
            && self.replicas.iter().all(Option::is_some)
    }

    /// What each directory holds is what the writer provided at that version: nothing is made up, nothing comes back.
    fn holds_what_was(&self) -> bool {
        let logs = self.replicas.iter().flatten().flat_map(|replica| replica.others.iter());
        logs.into_iter().all(|((incarnation, _), log)| {
            let held: BTreeSet<u64> = log.live.keys().copied().collect();
            self.histories.get(incarnation).and_then(|history| history.get(&log.version)) == Some(&held)
        })
    }

    fn all_are_equal(&self) -> bool {
        let truth: BTreeMap<u64, BTreeSet<u64>> =
            self.replicas.iter().flatten().map(|one| (one.me, one.own.live.keys().copied().collect())).collect();
        self.replicas.iter().flatten().all(|replica| {
            let held: BTreeMap<u64, BTreeSet<u64>> =
                replica.logs().map(|(life, _, log)| (life, log.live.keys().copied().collect())).collect();
            held == truth && replica.index.all().count() == truth.values().map(BTreeSet::len).sum::<usize>()
        })
    }
}

impl Model for Budget {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.clone())]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let left = &world.left;
        for index in PROVIDERS {
            let Some(replica) = &world.replicas[index] else { continue };
            if left.adds > 0 {
                actions.push(Action::Add(index));
            }
            if left.withdrawals > 0 && !replica.own.live.is_empty() {
                actions.push(Action::Withdraw(index));
            }
        }
        for (from, to) in world.wires.keys().copied() {
            actions.push(Action::Deliver(from, to));
            if left.losses > 0 {
                actions.push(Action::Lose(from, to));
            }
        }
        actions.extend(world.unnoticed.iter().map(|(at, peer, _)| Action::Notice(*at, *peer)));
        for index in 0..3 {
            match world.replicas[index] {
                Some(_) if left.crashes > 0 => actions.push(Action::Crash(index)),
                Some(_) => {}
                None => actions.push(Action::Restart(index)),
            }
        }
        if left.digests > 0 && world.calm < REPAIRED && world.wires.is_empty() && world.unnoticed.is_empty() {
            actions.push(Action::Digest);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        match action {
            Action::Add(index) => {
                world.left.adds -= 1;
                let addr = Addr::at(endpoint(index), u64::from(world.left.adds) + 2);
                let vnets = vec!["local".into()];
                let entry = Entry { addr, service: "S".into(), params: Value::Null, vnets, perms: Value::Null };
                world.replicas[index].as_mut()?.add(entry, false);
            }
            Action::Withdraw(index) => {
                world.left.withdrawals -= 1;
                let replica = world.replicas[index].as_mut()?;
                let oldest = *replica.own.live.keys().next()?;
                replica.withdraw(oldest);
            }
            Action::Deliver(from, to) => world.deliver(from, to),
            Action::Lose(from, to) => {
                world.left.losses -= 1;
                world.calm = 0;
                world.take(from, to);
            }
            Action::Crash(index) => {
                world.left.crashes -= 1;
                world.crash(index);
            }
            Action::Notice(at, peer) => world.notice(at, peer),
            Action::Restart(index) => {
                // Whoever meets the new life has noticed that the old one ended.
                for peer in neighbours(index) {
                    world.notice(*peer, index);
                }
                world.start(index);
            }
            Action::Digest => {
                world.left.digests -= 1;
                world.digests += 1;
                world.calm += 1;
                let now = world.now();
                for replica in world.replicas.iter_mut().flatten() {
                    replica.at(now);
                    replica.tick();
                }
            }
        }
        world.post();
        world.finish();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what is held is what its writer provided", |_, world: &World| world.holds_what_was()),
            Property::always("in the end all are equal", |_, world: &World| {
                !world.is_settled() || world.all_are_equal()
            }),
            Property::sometimes("a router comes back after a loss", |_, world: &World| {
                world.is_settled() && world.lives > 3 && world.left.losses == 0
            }),
        ]
    }
}

fn explore(world: &Budget) {
    let checker = world.clone().checker().threads(2).spawn_bfs().join();
    println!("{} states, {} steps at most: {world:?}", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

#[test]
fn in_every_order_of_events_nothing_comes_back_and_all_agree() {
    let adds = std::env::var("VLM_ADDS").map_or(1, |adds| adds.parse().unwrap());
    explore(&Budget { adds, withdrawals: 1, losses: 1, crashes: 1, digests: 4 });
}

#[test]
fn where_no_message_is_lost_no_digest_is_needed() {
    explore(&Budget { adds: 2, withdrawals: 1, losses: 0, crashes: 1, digests: 0 });
}
