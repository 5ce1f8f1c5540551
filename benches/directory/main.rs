//! The directory with a hundred thousand entries, and in real processes: `cargo bench --bench directory [-- lookup|spread|deaths|partition]`. It ends with an error if a target is missed.
//!
//! `lookup`: 100,000 entries of 100 providers, ten to a service: time of a lookup, memory an entry takes, time until a new router has them all.
//! `spread`: time from a registration at one spoke until it is seen at another, through a hub or a pair of hubs over TCP, and from its withdrawal.
//! `deaths`: processes that are killed: a provider, the hub under lookups, and each in turn.
//! `partition`: five routers over TCP in network namespaces, parted 2/3 for 30 s with changes on both sides, and healed. Asks for root and `ip netns`; it cleans up after itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on fails")]

mod deaths;
mod node;
mod partition;

use std::time::{Duration, Instant};

use vlmessaging::{Router, Value};

const ENTRIES: usize = 100_000;
const TO_A_SERVICE: usize = 10;
const LOOKUPS: usize = 20_000;
const SPREADS: usize = 300;

fn main() {
    let mode = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    match mode.as_deref() {
        Some("partition") => partition::run(),
        Some("node") => actix::System::new().block_on(node::run()),
        Some("deaths") => actix::System::new().block_on(deaths::run()),
        Some("lookup") => actix::System::new().block_on(lookup()),
        Some("spread") => actix::System::new().block_on(spread()),
        _ => actix::System::new().block_on(async {
            lookup().await;
            spread().await;
            deaths::run().await;
        }),
    }
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("vlm-bench-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for sockets");
    folder
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1024
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

async fn lookup() {
    let folder = folder("lookup");
    let hub = Router::machine().folder(&folder).start().await.expect("a router");
    let before = resident();
    let providers: Vec<_> = (0..100).map(|_| hub.connect()).collect();
    let mut entries = Vec::new();
    let since = Instant::now();
    for number in 0..ENTRIES {
        let (service, ccy) = (number / TO_A_SERVICE, ["USD", "EUR", "JPY", "GBP", "CHF"][number % 5]);
        let params =
            Value::from([("ccy", Value::from(ccy)), ("book", Value::from(number as i64 % TO_A_SERVICE as i64))]);
        let entry = providers[number % providers.len()].register(format!("Service{service}")).params(params);
        entries.push(entry.await.expect("registered"));
    }
    println!("registered {ENTRIES} entries in {:.2} s", since.elapsed().as_secs_f64());
    println!("memory {} bytes an entry, its registration included", (resident() - before) / ENTRIES);
    let conn = hub.connect();
    let mut plain = Vec::new();
    let mut by_params = Vec::new();
    for number in 0..LOOKUPS {
        let find = conn.find(format!("Service{}", number * 7919 % (ENTRIES / TO_A_SERVICE)));
        let since = Instant::now();
        let found = find.all();
        plain.push(since.elapsed());
        assert_eq!(found.len(), TO_A_SERVICE);
        let find = find.params([("ccy", "EUR")]);
        let since = Instant::now();
        let found = find.all();
        by_params.push(since.elapsed());
        assert_eq!(found.len(), TO_A_SERVICE / 5);
    }
    for (name, times, limit) in [("service", &mut plain, 5), ("service and params", &mut by_params, 20)] {
        let (p50, p99) = (percentile(times, 50), percentile(times, 99));
        report(&format!("lookup by {name}: p50 {p50:.2?}, p99"), p99, Duration::from_micros(limit));
    }
    let before = resident();
    let since = Instant::now();
    let spoke = Router::machine().folder(&folder).start().await.expect("a router");
    let there = spoke.connect();
    while spoke.known().iter().map(|router| router.entries.len()).sum::<usize>() < ENTRIES {
        assert!(since.elapsed() < Duration::from_mins(1), "never complete");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    report(&format!("a new router has all {ENTRIES} in"), since.elapsed(), Duration::from_secs(5));
    println!("memory {} bytes an entry learned", resident().saturating_sub(before) / ENTRIES);
    assert_eq!(there.find("Service7").all().len(), TO_A_SERVICE);
    spoke.shutdown().await;
    hub.shutdown().await;
    std::fs::remove_dir_all(folder).expect("the folder is empty");
}

async fn spread() {
    let folder = folder("spread");
    let machine = || Router::machine().folder(&folder).start();
    let (hub, one, two) = (machine().await.expect("a router"), machine().await.expect("a router"), machine().await);
    let two = two.expect("a router");
    for spoke in [&one, &two] {
        spoke.joined(Duration::from_secs(5)).await.expect("joined");
    }
    measure_spread("through a hub", &one, &two, Duration::from_millis(20)).await;
    for router in [one, two, hub] {
        router.shutdown().await;
    }
    std::fs::remove_dir_all(folder).expect("the folder is empty");
    spread_over_network().await;
}

/// Two machines: a hub of the network on each, and a router that joins it.
async fn spread_over_network() {
    let folders = [folder("here"), folder("there")];
    let listening = Router::network().folder(&folders[0]).listen("tcp://127.0.0.1:0").vnet("desk").start().await;
    let here = listening.expect("a router");
    let net = here.net_addr(1).net.expect("it listens");
    let joining = Router::network().folder(&folders[1]).listen("tcp://127.0.0.1:0").vnet("desk").join(net).start();
    let there = joining.await.expect("a router");
    let one = Router::machine().folder(&folders[0]).start().await.expect("a router");
    let two = Router::machine().folder(&folders[1]).start().await.expect("a router");
    for router in [&there, &one, &two] {
        router.joined(Duration::from_secs(5)).await.expect("joined");
    }
    measure_spread("across a pair of network hubs", &one, &two, Duration::from_secs(1)).await;
    for router in [one, two, there, here] {
        router.shutdown().await;
    }
    for folder in folders {
        std::fs::remove_dir_all(folder).expect("the folder is empty");
    }
}

async fn measure_spread(how: &str, one: &Router, two: &Router, target: Duration) {
    let (provider, asker) = (one.connect(), two.connect());
    let (mut came, mut went) = (Vec::new(), Vec::new());
    let mut watch = asker.find("Spread").watch();
    for _ in 0..SPREADS {
        let since = Instant::now();
        let entry = provider.register("Spread").vnets(["local", "desk"]).await.expect("registered");
        watch.next().await;
        came.push(since.elapsed());
        let since = Instant::now();
        drop(entry);
        watch.next().await;
        went.push(since.elapsed());
    }
    for (name, times) in [("registered", &mut came), ("withdrawn", &mut went)] {
        let (p50, p99) = (percentile(times, 50), percentile(times, 99));
        let what = format!("{name} at one router, seen at another {how}: p50 {p50:.2?}, p99");
        report(&what, p99, target);
    }
}

/// Prints a line of the table, and ends with an error if the target is missed.
fn report(what: &str, took: Duration, target: Duration) {
    println!("{what} {took:.2?} (asked: {target:.0?})");
    assert!(took <= target, "the target is missed");
}
