//! The directory with a hundred thousand entries, and on real sockets: `cargo bench --bench directory [-- lookup|spread|partition]`.
//!
//! `lookup`: 100,000 entries of 100 providers, ten to a service: time of a lookup, memory an entry takes, time until a new router has them all.
//! `spread`: time from a registration at one spoke until it is seen at another, and from its withdrawal.
//!
//! `partition`: five routers over TCP in network namespaces, parted 2/3 for 30 s with changes on both sides, and healed. Asks for root and `ip netns`; it cleans up after itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on fails")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use vlmessaging::{Router, Value};

const ENTRIES: usize = 100_000;
const TO_A_SERVICE: usize = 10;
const LOOKUPS: usize = 20_000;
const SPREADS: usize = 300;

fn main() {
    let mode = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    match mode.as_deref() {
        Some("partition") => partition(),
        Some("node") => actix::System::new().block_on(node()),
        Some("lookup") => actix::System::new().block_on(lookup()),
        Some("spread") => actix::System::new().block_on(spread()),
        _ => actix::System::new().block_on(async {
            lookup().await;
            spread().await;
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
        println!("lookup by {name}: p50 {p50:.2?}, p99 {p99:.2?} (asked: {limit} µs)");
    }
    let before = resident();
    let since = Instant::now();
    let spoke = Router::machine().folder(&folder).start().await.expect("a router");
    let there = spoke.connect();
    while spoke.known().iter().map(|router| router.entries.len()).sum::<usize>() < ENTRIES {
        assert!(since.elapsed() < Duration::from_mins(1), "never complete");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("a new router has all {ENTRIES} in {:.2} s (asked: 5 s)", since.elapsed().as_secs_f64());
    println!("memory {} bytes an entry learned", resident().saturating_sub(before) / ENTRIES);
    assert_eq!(there.find("Service7").all().len(), TO_A_SERVICE);
    spoke.shutdown().await;
    hub.shutdown().await;
    std::fs::remove_dir_all(folder).expect("the folder is empty");
}

async fn spread() {
    let folder = folder("spread");
    let hub = Router::machine().folder(&folder).start().await.expect("a router");
    let one = Router::machine().folder(&folder).start().await.expect("a router");
    let two = Router::machine().folder(&folder).start().await.expect("a router");
    for spoke in [&one, &two] {
        spoke.joined(Duration::from_secs(5)).await.expect("joined");
    }
    let (provider, asker) = (one.connect(), two.connect());
    let (mut came, mut went) = (Vec::new(), Vec::new());
    let mut watch = asker.find("Spread").watch();
    for _ in 0..SPREADS {
        let since = Instant::now();
        let entry = provider.register("Spread").await.expect("registered");
        watch.next().await;
        came.push(since.elapsed());
        let since = Instant::now();
        drop(entry);
        watch.next().await;
        went.push(since.elapsed());
    }
    for (name, times) in [("registered", &mut came), ("withdrawn", &mut went)] {
        let (p50, p99) = (percentile(times, 50), percentile(times, 99));
        println!("{name} at one spoke, seen at another: p50 {p50:.2?}, p99 {p99:.2?} (asked: 20 ms)");
    }
    for router in [one, two, hub] {
        router.shutdown().await;
    }
    std::fs::remove_dir_all(folder).expect("the folder is empty");
}

// ---- partition ---------------------------------------------------------------------------------------

const NODES: usize = 5;
const PARTED: Duration = Duration::from_secs(30);

/// One of the five: it provides what it is told on standard input, and prints what it knows when it is asked.
async fn node() {
    let at: usize = std::env::var("VLM_NODE").expect("VLM_NODE").parse().expect("a number");
    let builder = Router::network().folder(folder(&format!("node{at}"))).without_hub().vnet("desk");
    let builder = builder.listen(format!("tcp://10.77.0.{}:30001", at + 1));
    let others = (0..NODES).filter(|other| *other != at).map(|other| format!("tcp://10.77.0.{}:30001", other + 1));
    let router = others.fold(builder, vlmessaging::RouterBuilder::join).start().await.expect("a router");
    let conn = router.connect();
    let (say, mut said) = tokio::sync::mpsc::unbounded_channel::<String>();
    std::thread::spawn(move || std::io::stdin().lines().map_while(Result::ok).all(|line| say.send(line).is_ok()));
    let mut held = std::collections::BTreeMap::new();
    while let Some(line) = said.recv().await {
        match line.split_once(' ') {
            Some(("add", name)) => drop(held.insert(name.to_string(), conn.register(name).await.expect("registered"))),
            Some(("drop", name)) => drop(held.remove(name)),
            _ => {
                let mut known: Vec<String> = router
                    .known()
                    .iter()
                    .flat_map(|router| &router.entries)
                    .map(|entry| entry.service.clone())
                    .collect();
                known.sort_unstable();
                println!("{}", known.join(","));
            }
        }
    }
    router.shutdown().await;
    let _ = std::fs::remove_dir_all(folder(&format!("node{at}")));
}

struct Node {
    child: Child,
    tell: ChildStdin,
    told: Receiver<String>,
}

impl Node {
    fn start(at: usize) -> Self {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &format!("vlm{at}")])
            .arg(std::env::current_exe().expect("this program"))
            .arg("node")
            .env("VLM_NODE", at.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip netns exec");
        let (say, told) = channel();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || out.lines().map_while(Result::ok).all(|line| say.send(line).is_ok()));
        Self { tell: child.stdin.take().expect("piped"), child, told }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.tell, "{line}").expect("the node has ended");
    }

    fn known(&mut self) -> String {
        self.tell("known");
        self.told.recv_timeout(Duration::from_secs(10)).expect("the node answers")
    }
}

fn ip(args: &str) {
    let ended = Command::new("ip").args(args.split_whitespace()).status().expect("ip");
    assert!(ended.success(), "ip {args}: is this root?");
}

fn partition() {
    let tidy = || {
        for at in 0..NODES {
            let _ = Command::new("ip").args(["netns", "del", &format!("vlm{at}")]).stderr(Stdio::null()).status();
        }
        for bridge in ["vlmbr0", "vlmbr1"] {
            let _ = Command::new("ip").args(["link", "del", bridge]).stderr(Stdio::null()).status();
        }
    };
    tidy();
    for bridge in ["vlmbr0", "vlmbr1"] {
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("link set {bridge} up"));
    }
    for at in 0..NODES {
        ip(&format!("netns add vlm{at}"));
        ip(&format!("link add vlmv{at} type veth peer name eth0 netns vlm{at}"));
        ip(&format!("link set vlmv{at} master vlmbr0 up"));
        ip(&format!("-n vlm{at} addr add 10.77.0.{}/24 dev eth0", at + 1));
        ip(&format!("-n vlm{at} link set eth0 up"));
        ip(&format!("-n vlm{at} link set lo up"));
    }
    let mut nodes: Vec<Node> = (0..NODES).map(Node::start).collect();
    for (at, node) in nodes.iter_mut().enumerate() {
        node.tell(&format!("add stays{at}"));
        node.tell(&format!("add goes{at}"));
    }
    let all = |extra: &str| {
        let mut names: Vec<String> = (0..NODES).flat_map(|at| [format!("stays{at}"), format!("{extra}{at}")]).collect();
        names.sort_unstable();
        names.join(",")
    };
    let took = agree(&mut nodes, &all("goes"), Duration::from_secs(20));
    println!("five directories agree {took:.2?} after their start");
    // Two of them move to another bridge: no packet passes, and no socket is told.
    for at in 0..2 {
        ip(&format!("link set vlmv{at} master vlmbr1"));
    }
    std::thread::sleep(PARTED / 2);
    for (at, node) in nodes.iter_mut().enumerate() {
        node.tell(&format!("drop goes{at}"));
        node.tell(&format!("add came{at}"));
    }
    std::thread::sleep(PARTED / 2);
    let sides: Vec<String> = nodes.iter_mut().map(Node::known).collect();
    assert_eq!(sides[0], "came0,came1,stays0,stays1", "the side of two knows itself alone");
    assert_eq!(sides[4], "came2,came3,came4,stays2,stays3,stays4", "the side of three knows itself alone");
    println!("parted for {PARTED:?}: each side knows its own, {} and {}", sides[0], sides[4]);
    for at in 0..2 {
        ip(&format!("link set vlmv{at} master vlmbr0"));
    }
    let took = agree(&mut nodes, &all("came"), Duration::from_secs(30));
    println!("five directories agree {took:.2?} after the partition healed (asked: 2 s)");
    for Node { mut child, tell, .. } in nodes {
        drop(tell);
        let _ = child.wait();
    }
    tidy();
}

fn agree(nodes: &mut [Node], all: &str, limit: Duration) -> Duration {
    let since = Instant::now();
    loop {
        let known: Vec<String> = nodes.iter_mut().map(Node::known).collect();
        if known.iter().all(|known| known == all) {
            return since.elapsed();
        }
        assert!(since.elapsed() < limit, "they never agree: {known:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
