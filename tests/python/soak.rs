//! Three Rust and three Python routers on one machine and one network call each other while one after the other is killed, or ends, and comes back.
//!
//! Two minutes; `VLM_SOAK_SECONDS` says otherwise, `VLM_SOAK_SEED` repeats who goes when. The hub is whichever Rust router has it. What must hold:
//! no Python main loop dies, what a living Rust router was asked it has answered to everybody who lives, and what is asked of somebody who goes is told by name.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use vlmessaging::{Addr, Endpoint};

use crate::peer::{Folder, Peer, free_tcp, router_number};

/// Calls of each caller in a round.
const CALLS: u64 = 20;
/// The same from Python over tcp, where each one dials anew once the listener was restarted: such dialers stay as long as it lives.
const CALLS_THAT_DIAL: u64 = 3;
/// What one call waits at most, in milliseconds. Whatever lives answers within a few.
const WITHIN: u64 = 1500;
/// After all have met, before somebody goes: a hello that is read after its connection has ended is what a Python router dies of.
const SETTLING: Duration = Duration::from_millis(500);

struct Slot {
    name: String,
    is_rust: bool,
    options: Vec<String>,
    tcp: Option<Endpoint>,
    peer: Peer,
}

/// Splitmix64: the same seed, the same story.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    fn other_than(&mut self, not: &[usize], of: &[usize]) -> usize {
        let left: Vec<usize> = of.iter().copied().filter(|one| !not.contains(one)).collect();
        left[self.roll(left.len())]
    }
}

#[derive(Default)]
struct Sums {
    rounds: u64,
    killed: u64,
    ended: u64,
    sent: u64,
    answered: u64,
    lost_by_python: u64,
    told: HashMap<String, u64>,
}

async fn start(is_rust: bool, options: &[String]) -> Peer {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    if is_rust { Peer::rust(&options).await } else { Peer::python(&options).await }
}

/// The router of a slot: the first of each language is of the machine alone.
async fn slot(index: usize, folder: &Folder) -> Slot {
    let is_rust = index < 3;
    let tcp = (!index.is_multiple_of(3)).then(free_tcp);
    let hub = format!("ipc://{}/hub_1", folder.path());
    let number = router_number();
    let name = format!("Service{index}");
    let mut options = vec!["--service", &name, "--entry-vnet", "local"];
    if is_rust {
        options.extend(["--folder", folder.path(), "--hub-listen", "hub_1"]);
    } else {
        options.extend(["--hub", &hub, "--number", &number]);
    }
    if let Some(tcp) = &tcp {
        options.extend(["--mode", "network", "--net-listen", tcp]);
    }
    let options: Vec<String> = options.into_iter().map(String::from).collect();
    let peer = start(is_rust, &options).await;
    Slot { name, is_rust, options, tcp: tcp.map(Endpoint::from), peer }
}

impl Slot {
    fn by_ipc(&self) -> Addr {
        Addr { net: None, ..self.peer.addr.clone() }
    }

    async fn is_alive(&mut self) {
        let fate = self.peer.tell(json!({"do": "fate"})).await;
        assert_eq!(fate["main_loop_alive"], true, "{} has died: {fate}", self.name);
    }

    async fn count(&mut self) -> u64 {
        self.peer.tell(json!({"do": "count"})).await["count"].as_u64().unwrap()
    }
}

/// Who calls whom in a round, and how it ended.
struct Call {
    caller: usize,
    callee: usize,
    to: Addr,
    times: u64,
}

/// Chooses whom each calls: Rust routers anybody, Python ones Rust routers, because they lose each other for good (`9.5` of what was found out about the package).
fn choose(slots: &[Slot], dice: &mut Dice) -> Vec<Call> {
    let chosen = (0..slots.len()).map(|caller| {
        let is_rust = slots[caller].is_rust;
        let callee = dice.other_than(&[caller], if is_rust { &[0, 1, 2, 3, 4, 5] } else { &[0, 1, 2] });
        let over_tcp = slots[caller].tcp.is_some() && slots[callee].tcp.is_some() && dice.roll(2) == 0;
        let net = slots[callee].tcp.clone().filter(|_| over_tcp);
        let times = if over_tcp && !is_rust { CALLS_THAT_DIAL } else { CALLS };
        Call { caller, callee, to: Addr { net, ..slots[callee].by_ipc() }, times }
    });
    chosen.collect()
}

/// One round: all meet, all call, and one of them goes meanwhile.
async fn round(slots: &mut [Slot], victim: usize, is_killed: bool, after: Duration, dice: &mut Dice, sums: &mut Sums) {
    let calls = choose(slots, dice);
    let met = slots.iter_mut().zip(&calls).map(async |(slot, call)| {
        let met = slot.peer.tell(json!({"do": "meet", "to": call.to, "within": 18_000})).await;
        assert_ne!(met["tries"], 0, "{} does not reach {}", slot.name, call.to);
    });
    join_all(met).await;
    tokio::time::sleep(SETTLING).await;
    let before = counts(slots).await;

    let played = slots.iter_mut().zip(&calls).enumerate().map(async |(index, (slot, call))| {
        if index == victim {
            tokio::time::sleep(after).await;
            if is_killed {
                slot.peer.kill();
            } else {
                slot.peer.end_in_order().await;
            }
            return Value::Null;
        }
        // Python is told nothing of somebody who has gone: it notices by waiting.
        let (to, times) = (&call.to, call.times);
        slot.peer
            .tell(json!({"do": "call", "to": to, "times": times, "within": WITHIN, "pause": 2, "give_up": 2}))
            .await
    });
    let ended = join_all(played).await;

    let next = start(slots[victim].is_rust, &slots[victim].options).await;
    slots[victim].peer.is_succeeded_by(next);
    for slot in slots.iter_mut() {
        slot.is_alive().await;
    }
    let after = counts(slots).await;
    judge(slots, victim, &calls, &ended, sums);
    for callee in (0..3).filter(|callee| *callee != victim) {
        let answered: u64 = (calls.iter().zip(&ended))
            .filter(|(call, _)| call.callee == callee && call.caller != victim)
            .map(|(_, ended)| ended["answered"].as_u64().unwrap())
            .sum();
        assert_eq!(after[callee] - before[callee], answered, "{} answered what nobody got", slots[callee].name);
    }
    sums.rounds += 1;
    *(if is_killed { &mut sums.killed } else { &mut sums.ended }) += 1;
}

async fn counts(slots: &mut [Slot]) -> Vec<u64> {
    join_all(slots[..3].iter_mut().map(Slot::count)).await
}

/// What each caller tells must be the truth.
fn judge(slots: &[Slot], victim: usize, calls: &[Call], ended: &[Value], sums: &mut Sums) {
    for (call, ended) in calls.iter().zip(ended).filter(|(call, _)| call.caller != victim) {
        let (caller, callee) = (&slots[call.caller], &slots[call.callee]);
        let number = |field: &str| ended[field].as_u64().unwrap();
        let what = format!("{} to {}: {ended}", caller.name, callee.name);
        assert_eq!((number("answered") + number("lost"), number("wrong")), (number("sent"), 0), "{what}");
        assert!(number("sent") == call.times || !caller.is_rust, "{what}");
        sums.sent += number("sent");
        sums.answered += number("answered");
        if !caller.is_rust {
            sums.lost_by_python += number("lost");
            continue;
        }
        for (reason, times) in ended["failures"].as_object().unwrap() {
            assert!(call.callee == victim, "somebody who lives was not reached: {what}");
            assert_ne!(reason, "timed out", "it was not told by name: {what}");
            *sums.told.entry(reason.clone()).or_default() += times.as_u64().unwrap();
        }
    }
}

/// In the end everybody is there, and known to all.
async fn assert_all_known(slots: &mut [Slot]) {
    let expected: Vec<(String, Addr)> = slots.iter().map(|slot| (slot.name.clone(), slot.by_ipc())).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    for slot in slots {
        loop {
            let known = slot.peer.tell(json!({"do": "known"})).await;
            let has = |(name, addr): &&(String, Addr)| {
                let entries = known["entries"].as_array().unwrap();
                entries.iter().any(|entry| {
                    let mut at = entry[0].clone();
                    at[0] = Value::Null;
                    entry[1] == json!(name) && at == json!(addr)
                })
            };
            let missing: Vec<_> = expected.iter().filter(|expected| !has(expected)).collect();
            if missing.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "{} does not know {missing:?} but {known}", slot.name);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[actix::test]
async fn six_routers_of_two_languages_come_and_go_for_two_minutes() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let seconds = number("VLM_SOAK_SECONDS", 120);
    let seed = number("VLM_SOAK_SEED", 3);
    println!("VLM_SOAK_SEED={seed}");
    let folder = Folder::of_the_killed();
    let mut slots = Vec::new();
    for index in 0..6 {
        slots.push(slot(index, &folder).await);
    }
    let (mut dice, mut sums) = (Dice(seed), Sums::default());
    let mut gone = Vec::new();

    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        // Who has just come back stays for two rounds.
        let victim = dice.other_than(&gone, &[0, 1, 2, 3, 4, 5]);
        gone = gone.into_iter().last().into_iter().chain([victim]).collect();
        let (is_killed, after) = (dice.roll(3) > 0, Duration::from_millis(dice.roll(60) as u64));
        round(&mut slots, victim, is_killed, after, &mut dice, &mut sums).await;
    }

    assert_all_known(&mut slots).await;
    let Sums { rounds, killed, ended, sent, answered, lost_by_python, told } = sums;
    println!(
        "{seconds} s, {rounds} rounds: {killed} killed, {ended} ended in order; {sent} calls, {answered} answered, told by name {told:?}, lost by Python {lost_by_python}"
    );
    assert!(killed > 0 && ended > 0 && answered > sent / 2);
    for slot in slots.into_iter().rev() {
        slot.peer.end().await;
    }
}
