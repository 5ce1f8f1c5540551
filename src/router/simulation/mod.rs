//! Whole routers on a network that fails, from a seed: the promise is looked at after every event.
//!
//! Each router is the real one (its switch, links and ports) on the transport of simulated time, without actix and without a clock. They send to each other over unix sockets,
//! over TCP, also where one side only dials, and through gateways; connections are reset, stalled and cut, routers freeze, crash, restart and shut down in order, their clocks
//! differ; frames come late, on dead pipes, after the router that sent them, and twice. What every sender and every handler sees is written down and compared ([`fates`]).
//!
//! `VLM_SEEDS=1000000 cargo test --lib router::simulation` runs more than the usual; `VLM_SEED=17` replays one, and prints what happened.

mod fates;
mod host;
mod world;

use world::World;

/// Seeds that `cargo test` runs of each kind of trouble. Default 5,000: about 15 s for either, on two cores at the same time.
const SEEDS: u64 = 5000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// What a router must bear without anybody noticing: resets, pauses of up to two seconds, slow links, orderly restarts.
    Mild,
    /// Everything.
    Wild,
}

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs one seed; a broken promise panics.
fn play(seed: u64, trouble: Trouble, aloud: bool) -> World {
    let mut world = World::new(seed, trouble, aloud);
    world.run();
    world
}

fn play_all(trouble: Trouble, seeds: u64) {
    let one = number_in("VLM_SEED");
    let seeds = one.map_or(0..number_in("VLM_SEEDS").unwrap_or(seeds), |seed| seed..seed + 1);
    let (mut messages, mut slowest, mut tally) = (0, std::time::Duration::ZERO, std::collections::BTreeMap::new());
    for seed in seeds {
        match std::panic::catch_unwind(|| play(seed, trouble, one.is_some())) {
            Ok(world) => {
                messages += world.fates.len();
                slowest = slowest.max(world.fates.slowest);
                for (told, count) in &world.fates.tally {
                    *tally.entry(told.clone()).or_insert(0) += count;
                }
            }
            Err(_) => {
                let again = one.is_none().then(|| std::panic::catch_unwind(|| play(seed, trouble, true)));
                assert!(!matches!(again, Some(Ok(_))), "seed {seed} ends differently when it is repeated");
                panic!("seed {seed} ({trouble:?}) broke a promise: VLM_SEED={seed} replays it");
            }
        }
    }
    println!("{messages} messages, the slowest outcome after {slowest:?}: {tally:#?}");
}

#[test]
fn every_message_has_one_outcome_and_is_handled_once_and_in_order_whatever_fails() {
    play_all(Trouble::Wild, SEEDS);
}

#[test]
fn what_is_only_slow_or_reset_loses_nothing() {
    play_all(Trouble::Mild, SEEDS);
}

#[test]
fn a_seed_is_played_the_same_way_twice() {
    for seed in 0..20 {
        let [first, second] = [(); 2].map(|()| play(seed, Trouble::Wild, false));
        assert_eq!(first.events, second.events, "seed {seed}");
        assert_eq!(first.fates.tally, second.fates.tally, "seed {seed}");
    }
}
