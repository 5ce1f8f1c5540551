//! Properties of the merge: news may come in any order and any number of times, what they make is what the writer provided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::entry::Entry;
use super::log::{Item, Log, News, REMEMBER, View};
use super::replica::{Replica, Sync};
use crate::addr::{Addr, Endpoint};
use crate::value::Value;

const WRITER: u64 = 7;

/// What a writer does; times are seconds.
#[derive(Clone, Debug)]
enum Step {
    Add {
        is_local: bool,
        is_shared: bool,
    },
    Withdraw(Index),
    /// Old withdrawals are forgotten.
    Pass(u64),
    /// Somebody who holds so much of it is told what he lacks.
    Tell(Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<(bool, bool)>().prop_map(|(is_local, is_shared)| Step::Add { is_local, is_shared }),
        2 => any::<Index>().prop_map(Step::Withdraw),
        1 => (1..REMEMBER.as_secs()).prop_map(Step::Pass),
        4 => any::<Index>().prop_map(Step::Tell),
    ]
}

fn views() -> impl Strategy<Value = View> {
    prop_oneof![Just(View::MACHINE), Just(View::MACHINE.over_network(&["shared".into()]).unwrap())]
}

fn entry(number: u64, is_local: bool, is_shared: bool) -> Entry {
    let vnets = [("local", is_local), ("shared", is_shared)];
    let vnets = vnets.iter().filter(|(_, is_in)| *is_in).map(|(vnet, _)| (*vnet).to_string()).collect();
    let addr = Addr::at(Endpoint::from("ipc:///tmp/router_7"), number);
    Entry { addr, service: format!("S{}", number % 3), params: Value::Null, vnets, perms: Value::Null }
}

/// A writer's log, what it told in that time, and what a view could see of it at each version.
struct Told {
    log: Log,
    news: Vec<News>,
    seen: BTreeMap<u64, BTreeSet<u64>>,
    now: Duration,
}

fn play(steps: &[Step], view: &View) -> Told {
    let home = Addr { connection: None, ..Addr::at(Endpoint::from("ipc:///tmp/router_7"), 0) };
    let log = Log { home, version: 1, ..Log::default() };
    let mut told = Told { log, news: Vec::new(), seen: BTreeMap::from([(1, BTreeSet::new())]), now: Duration::ZERO };
    for step in steps {
        match step {
            Step::Add { is_local, is_shared } => {
                let entry = Arc::new(entry(told.log.version + 1, *is_local, *is_shared));
                told.log.add(Item { entry, python: false });
            }
            Step::Withdraw(which) if !told.log.live.is_empty() => {
                let number = *told.log.live.keys().nth(which.index(told.log.live.len())).unwrap();
                assert!(told.log.withdraw(number, told.now));
            }
            Step::Withdraw(_) => {}
            Step::Pass(seconds) => {
                told.now += Duration::from_secs(*seconds);
                told.log.fresh = told.now;
                told.log.forget(told.now);
            }
            Step::Tell(from) => {
                let from = from.index(told.log.version as usize + 1) as u64;
                told.news.extend(told.log.since(from, view, told.now, WRITER, |_| true));
            }
        }
        let visible = |item: &&Item| {
            if view.is_network() { item.entry.vnets.contains(&"shared".into()) } else { !item.entry.vnets.is_empty() }
        };
        let live = told.log.live.iter().filter(|(_, item)| visible(item)).map(|(number, _)| *number).collect();
        told.seen.insert(told.log.version, live);
    }
    told
}

fn held(log: &Log) -> BTreeSet<u64> {
    log.live.keys().copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever arrives in whatever order, who holds a version holds what the writer provided then, and never goes back.
    #[test]
    fn a_version_is_one_state_whatever_was_heard(steps in vec(step(), 1..40), view in views(), order in vec(any::<Index>(), 0..60)) {
        let told = play(&steps, &view);
        let mut log = Log::default();
        for which in order.iter().filter(|_| !told.news.is_empty()) {
            let news = told.news[which.index(told.news.len())].clone();
            let (before, again) = (log.version, news.clone());
            log.hear(news, told.now);
            prop_assert!(log.version >= before);
            let after = log.clone();
            prop_assert!(log.hear(again, told.now).added.is_empty());
            prop_assert_eq!(&log, &after, "the same twice");
            if log.version > 0 {
                prop_assert_eq!(Some(&held(&log)), told.seen.get(&log.version));
            }
        }
        for news in told.log.since(log.version, &view, told.now, WRITER, |_| true) {
            log.hear(news, told.now);
        }
        prop_assert_eq!((log.version, Some(&held(&log))), (told.log.version, told.seen.get(&told.log.version)));
    }

    /// The same of whole directories, with the index that lookups read, from two neighbours, and with the word that the writer is gone among it.
    #[test]
    fn two_directories_that_heard_the_same_in_other_orders_are_equal(
        steps in vec(step(), 1..30),
        gone in proptest::option::of(any::<Index>()),
        orders in [vec(any::<(Index, bool)>(), 0..40), vec(any::<(Index, bool)>(), 0..40)],
    ) {
        let told = play(&steps, &View::MACHINE);
        // Who tells from the start can be followed by anybody.
        let whole = told.log.since(0, &View::MACHINE, told.now, WRITER, |_| true);
        let gone = gone.map(|version| version.index(told.log.version as usize + 1) as u64);
        let mut said: Vec<Sync> = told.news.iter().map(|news| Sync { news: vec![news.clone()], ..Sync::default() }).collect();
        said.extend(gone.map(|version| Sync { gone: vec![(WRITER, version)], ..Sync::default() }));
        let last = [
            Some(Sync { news: whole, ..Sync::default() }),
            gone.map(|version| Sync { gone: vec![(WRITER, version)], ..Sync::default() }),
        ];
        let made = orders.iter().enumerate().map(|(turn, order)| {
            let home = Addr { connection: None, ..Addr::at(Endpoint::from("ipc:///tmp/router_1"), 0) };
            let mut replica = Replica::new(home, 1, Vec::new());
            replica.at(told.now);
            let mut hear = |sync: &Sync, by_first: bool| {
                let (who, name) = if by_first { (2, "ipc:///tmp/router_2") } else { (3, "ipc:///tmp/router_3") };
                replica.heard(&name.into(), Sync { who, ..sync.clone() });
            };
            for (which, by_first) in order.iter().filter(|_| !said.is_empty()) {
                hear(&said[which.index(said.len())], *by_first);
            }
            let mut last: Vec<&Sync> = last.iter().flatten().collect();
            if turn == 1 {
                last.reverse();
            }
            for sync in last {
                hear(sync, true);
            }
            let logs: Vec<_> = replica.others.values().map(|log| (log.version, held(log))).collect();
            let mut found: Vec<u64> = replica.index.all().filter_map(|(_, entry)| entry.addr.connection).collect();
            found.sort_unstable();
            (logs, found)
        });
        let made: Vec<_> = made.collect();
        let is_over = gone.is_some_and(|version| version >= told.log.version);
        let logs = if is_over { Vec::new() } else { vec![(told.log.version, told.seen[&told.log.version].clone())] };
        let found: Vec<u64> = logs.iter().flat_map(|(_, live)| live.iter().copied()).collect();
        prop_assert_eq!(&made[0], &(logs, found));
        prop_assert_eq!(&made[0], &made[1]);
    }
}
