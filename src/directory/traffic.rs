//! What directories tell each other while little happens, in encoded bytes: a hub and 99 spokes with 10,000 entries.
//!
//! `cargo test --lib directory::traffic -- --nocapture` prints it.

use std::time::Duration;

use super::entry::{Entry, LOCAL_VNET};
use super::replica::Replica;
use crate::addr::{Addr, Endpoint};
use crate::value::Value;

const ROUTERS: usize = 100;
const ENTRIES: usize = 10_000;
/// Simulated time that is measured, after all have met.
const MEASURED: Duration = Duration::from_mins(5);
/// Link and transport add so much to a message: a header, an address and a subject.
const ENVELOPE: usize = 60;

struct Star {
    replicas: Vec<Replica>,
    now: Duration,
    /// Bytes that each has sent.
    sent: Vec<usize>,
}

fn endpoint(index: usize) -> Endpoint {
    Endpoint::from(format!("ipc:///tmp/router_{}", 40_000 + index))
}

fn entry(index: usize, number: u64) -> Entry {
    Entry {
        addr: Addr::at(endpoint(index), number),
        service: format!("Service{}", number % 100),
        params: Value::from([("ccy", "USD"), ("desk", "london")]),
        vnets: vec![LOCAL_VNET.into()],
        perms: Value::Null,
    }
}

impl Star {
    fn new() -> Self {
        // An incarnation is a random number of 64 bits: eight bytes in a digest, whatever it is.
        let life = |index: usize| (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 << 63;
        let home = |index| Addr { connection: None, ..Addr::at(endpoint(index), 0) };
        let mut star = Self {
            replicas: (0..ROUTERS).map(|index| Replica::new(home(index), life(index), Vec::new())).collect(),
            now: Duration::ZERO,
            sent: vec![0; ROUTERS],
        };
        for index in 0..ENTRIES {
            let at = index % ROUTERS;
            star.replicas[at].add(entry(at, 3 + (index / ROUTERS) as u64), false);
        }
        for spoke in 1..ROUTERS {
            star.replicas[0].meet(&endpoint(spoke), Some(life(spoke)));
            star.replicas[spoke].meet(&endpoint(0), Some(life(0)));
        }
        star.settle();
        assert!(star.replicas.iter().all(|replica| replica.index.all().count() == ENTRIES));
        star
    }

    /// What is said arrives, and what is said to that.
    fn settle(&mut self) {
        loop {
            let mut mail = Vec::new();
            for (from, replica) in self.replicas.iter_mut().enumerate() {
                mail.extend(replica.take_mail().into_iter().map(|(name, sync)| (from, name, sync)));
            }
            if mail.is_empty() {
                return;
            }
            for (from, name, sync) in mail {
                let encoded = crate::wire::encode(&sync).unwrap();
                self.sent[from] += encoded.bytes.len() + encoded.symbols.map_or(0, |symbols| symbols.len()) + ENVELOPE;
                let to = if name == endpoint(0) { 0 } else { (1..ROUTERS).find(|to| endpoint(*to) == name).unwrap() };
                self.replicas[to].heard(&endpoint(from), sync);
            }
        }
    }

    /// Bytes a second of a spoke, in and out (the mean of all), and of the hub. `each_second` is what happens.
    fn measure(&mut self, mut each_second: impl FnMut(&mut Self)) -> (f64, f64) {
        self.sent.fill(0);
        let end = self.now + MEASURED;
        while self.now < end {
            self.now += Duration::from_secs(1);
            each_second(self);
            for replica in &mut self.replicas {
                replica.at(self.now);
                replica.tick();
            }
            self.settle();
        }
        let all: usize = self.sent.iter().sum();
        let seconds = MEASURED.as_secs_f64();
        // All of it is between the hub and one of the spokes.
        (all as f64 / (ROUTERS - 1) as f64 / seconds, all as f64 / seconds)
    }
}

#[test]
fn a_hundred_routers_with_ten_thousand_entries_cost_a_spoke_less_than_a_kilobyte_a_second() {
    let mut star = Star::new();
    let joined: usize = star.sent.iter().sum();
    let (spoke, hub) = star.measure(|_| {});
    println!("all met: {} bytes an entry and router", joined / ENTRIES / ROUTERS);
    println!("steady: {spoke:.0} bytes a second for each spoke, {hub:.0} for the hub");
    assert!(spoke <= 1000.0, "{spoke} bytes a second");
    let mut turn = 0;
    let (spoke, hub) = star.measure(|star| {
        turn += 1;
        let at = turn % ROUTERS;
        let oldest = *star.replicas[at].own.live.keys().next().unwrap();
        star.replicas[at].withdraw(oldest);
        star.replicas[at].add(entry(at, 1000 + turn as u64), false);
    });
    println!("an entry replaced each second: {spoke:.0} bytes a second for each spoke, {hub:.0} for the hub");
    assert!(spoke <= 1000.0, "{spoke} bytes a second");
}
