//! Real processes that are killed, stopped, besieged and restarted while they send to each other: `cargo bench --bench chaos -- --seconds 600 --over tcp`.
//!
//! Every process writes a journal: `sent` before it sends, `outcome` when it is told, `handled` in the handler. The checker joins them: each message of a process that was
//! not killed has exactly one outcome, what is delivered was handled, what is refused was not, and nothing was handled twice. `--seed` repeats the order of the faults,
//! `--over` is `ipc` or `tcp`. The first process is spared but for pauses; its memory and descriptors are compared at the end. The exit status tells.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler};
use rustix::process::{Pid, Signal, kill_process};
use vlmessaging::{Addr, Agent, DeliverError, Handled, Msg, Router};

const NODES: usize = 6;
const SENDERS: usize = 8;
/// How long a message waits for its outcome. Default 10 s.
const LIMIT: Duration = Duration::from_secs(10);
const VNET: &str = "chaos";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    if args.iter().any(|arg| arg == "--test") {
        return ExitCode::SUCCESS;
    }
    let over_tcp = value("--over").is_some_and(|over| over == "tcp");
    if let Some(dir) = value("--node") {
        let hub = value("--hub").unwrap();
        be_a_node(Path::new(&dir), over_tcp.then_some(hub), args.iter().any(|arg| arg == "--first"));
        return ExitCode::SUCCESS;
    }
    let number = |name: &str, default: u64| value(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let dir = std::env::temp_dir().join(format!("vlm-chaos-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let ok = Chaos::new(&dir, over_tcp, number("--seed", 1)).run(Duration::from_secs(number("--seconds", 60)));
    if ok {
        std::fs::remove_dir_all(&dir).unwrap();
    } else {
        println!("the journals are in {}", dir.display());
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// ---- one process -----------------------------------------------------------------------------

#[derive(Clone)]
struct Journal(Arc<File>);

impl Journal {
    fn write(&self, line: &str) {
        (&*self.0).write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

struct Target(Journal);

impl Actor for Target {
    type Context = Context<Self>;
}

impl Agent for Target {}

impl Handler<Msg> for Target {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        match msg.contents::<u64>() {
            Ok(id) if msg.subject() == "TELL" => {
                self.0.write(&format!("handled {id}"));
                msg.handled()
            }
            _ => msg.unhandled(),
        }
    }
}

/// Sends to everybody and handles what comes, until its input ends.
fn be_a_node(dir: &Path, hub: Option<String>, is_first: bool) {
    let pid = std::process::id();
    let path = dir.join(format!("journal-{pid}"));
    let journal = Journal(Arc::new(OpenOptions::new().create(true).append(true).open(path).unwrap()));
    actix::System::new().block_on(async move {
        let router = match hub {
            None => Router::machine().folder(dir),
            Some(hub) if is_first => Router::network().folder(dir).without_hub().listen(hub.as_str()).vnet(VNET),
            Some(hub) => {
                Router::network().folder(dir).without_hub().listen("tcp://127.0.0.1:0").join(hub.as_str()).vnet(VNET)
            }
        };
        let router = router.start().await.unwrap();
        let target = router.spawn(Target(journal.clone()));
        let registration = target.register("Target").await.unwrap();
        let (next, over) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(false)));
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let (router, journal, next, over) = (router.clone(), journal.clone(), next.clone(), over.clone());
                actix::spawn(async move {
                    let conn = router.connect();
                    while !over.get() {
                        let id = u64::from(pid) << 32 | next.replace(next.get() + 1);
                        let targets = conn.find("Target").all();
                        let Some(target) = targets.get(id as usize % targets.len().max(1)) else {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            continue;
                        };
                        journal.write(&format!("sent {id}"));
                        let began = Instant::now();
                        let kind = match conn.deliver(Addr::from(target), "TELL", id, LIMIT).await {
                            Ok(()) => "delivered",
                            Err(DeliverError::NotSent(_) | DeliverError::Refused(_)) => "refused",
                            Err(_) => "unknown",
                        };
                        journal.write(&format!("outcome {id} {kind} {}", began.elapsed().as_micros()));
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                })
            })
            .collect();
        // Until the parent closes it, or ends.
        tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await.unwrap().unwrap();
        over.set(true);
        for sender in senders {
            sender.await.unwrap();
        }
        drop(registration);
        router.shutdown().await;
        journal.write("ended");
    });
}

// ---- all of them -------------------------------------------------------------------------------

struct Chaos {
    dir: PathBuf,
    over_tcp: bool,
    hub: String,
    rng: u64,
    nodes: Vec<Child>,
    faults: BTreeMap<&'static str, u64>,
}

impl Chaos {
    fn new(dir: &Path, over_tcp: bool, seed: u64) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let hub = format!("tcp://127.0.0.1:{port}");
        Self { dir: dir.into(), over_tcp, hub, rng: seed, nodes: Vec::new(), faults: BTreeMap::new() }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.rng = self.rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.rng >> 33) % limit
    }

    fn start(&self, is_first: bool) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--node", self.dir.to_str().unwrap(), "--hub", &self.hub])
            .args(["--over", if self.over_tcp { "tcp" } else { "ipc" }])
            .args(is_first.then_some("--first"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn run(mut self, length: Duration) -> bool {
        for index in 0..NODES {
            self.nodes.push(self.start(index == 0));
        }
        std::thread::sleep(Duration::from_secs(2));
        let before = burden(&self.nodes[0]);
        let began = Instant::now();
        while began.elapsed() < length {
            let pause = self.below(1000);
            std::thread::sleep(Duration::from_millis(pause));
            self.fault();
        }
        std::thread::sleep(Duration::from_secs(2));
        let after = burden(&self.nodes[0]);
        let mut all_end = true;
        for node in &mut self.nodes {
            all_end &= end(node);
        }
        println!("faults: {:?}", self.faults);
        println!("the first process: {} -> {} KiB, {} -> {} descriptors", before.0, after.0, before.1, after.1);
        check(&self.dir) && all_end
    }

    fn fault(&mut self) {
        let index = 1 + self.below(NODES as u64 - 1) as usize;
        let what = match self.below(6) {
            0 | 1 => {
                self.nodes[index].kill().unwrap();
                self.nodes[index].wait().unwrap();
                let pause = self.below(500);
                std::thread::sleep(Duration::from_millis(pause));
                self.nodes[index] = self.start(false);
                "kill -9"
            }
            2 => self.pause(index, 2000, "stopped for at most 2 s"),
            3 => self.pause(index, 7000, "stopped for at most 7 s"),
            4 => {
                assert!(end(&mut self.nodes[index]), "a process did not end in order");
                self.nodes[index] = self.start(false);
                "restarted in order"
            }
            _ => {
                self.besiege();
                "strangers"
            }
        };
        *self.faults.entry(what).or_default() += 1;
    }

    fn pause(&mut self, index: usize, limit: u64, what: &'static str) -> &'static str {
        let pid = Pid::from_child(&self.nodes[index]);
        kill_process(pid, Signal::STOP).unwrap();
        let pause = self.below(limit);
        std::thread::sleep(Duration::from_millis(pause));
        kill_process(pid, Signal::CONT).unwrap();
        what
    }

    /// Connects, says nothing or nonsense, and goes; some stay and never read.
    fn besiege(&mut self) {
        let mut stay = Vec::new();
        for file in std::fs::read_dir(&self.dir).unwrap().flatten() {
            for count in 0..20 {
                if let Ok(mut stream) = UnixStream::connect(file.path()) {
                    // Whoever does not want to hear it closes: so much the better.
                    let _ = stream.write_all(&[0, b'S', b'P', 0, 0, 0x11, 0, 0, count]);
                    stay.extend((count == 0).then_some(stream));
                }
            }
        }
        if let Some(at) = self.hub.strip_prefix("tcp://").filter(|_| self.over_tcp) {
            for _ in 0..20 {
                drop(
                    std::net::TcpStream::connect(at).and_then(|mut stream| stream.write_all(b"GET / HTTP/1.0\r\n\r\n")),
                );
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Asks a process to end in order; false if it does not within 15 s.
fn end(node: &mut Child) -> bool {
    drop(node.stdin.take());
    let until = Instant::now() + Duration::from_secs(15);
    while Instant::now() < until {
        if let Some(status) = node.try_wait().unwrap() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("FAIL: process {} did not end", node.id());
    node.kill().unwrap();
    node.wait().unwrap();
    false
}

/// Resident memory in KiB, and open descriptors.
fn burden(node: &Child) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
    (kib, std::fs::read_dir(format!("/proc/{}/fd", node.id())).map_or(0, Iterator::count))
}

// ---- the checker -------------------------------------------------------------------------------

#[derive(Default)]
struct Fate {
    sent: u64,
    outcomes: Vec<String>,
    handled: u64,
    /// Its sender was killed.
    orphan: bool,
}

/// Joins the journals; false if a promise was broken.
fn check(dir: &Path) -> bool {
    let mut fates: HashMap<u64, Fate> = HashMap::new();
    let mut times = Vec::new();
    for file in std::fs::read_dir(dir).unwrap().flatten() {
        if !file.file_name().to_string_lossy().starts_with("journal-") {
            continue;
        }
        let text = std::fs::read_to_string(file.path()).unwrap();
        let was_killed = !text.ends_with("ended\n");
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let Some(id) = words.get(1).and_then(|id| id.parse().ok()) else { continue };
            let fate = fates.entry(id).or_default();
            match words[0] {
                "sent" => {
                    fate.sent += 1;
                    fate.orphan = was_killed;
                }
                "outcome" => {
                    fate.outcomes.push(words[2].into());
                    times.push(words[3].parse::<u64>().unwrap());
                }
                _ => fate.handled += 1,
            }
        }
    }
    let count = |is_so: &dyn Fn(&Fate) -> bool| fates.values().filter(|fate| is_so(fate)).count();
    let told = |kind: &str| count(&|fate| fate.outcomes.iter().any(|told| told == kind));
    println!(
        "{} sent: {} delivered, {} refused, {} unknown",
        fates.len(),
        told("delivered"),
        told("refused"),
        told("unknown")
    );
    times.sort_unstable();
    for part in [0.5, 0.9, 0.99, 0.999, 1.0] {
        let at = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
        println!("told within {:>9.3} ms: {:.1} %", times.get(at).map_or(0.0, |us| *us as f64 / 1e3), part * 100.0);
    }
    let broken = [
        ("without an outcome", count(&|fate| fate.outcomes.is_empty() && !fate.orphan)),
        ("with two outcomes", count(&|fate| fate.outcomes.len() > 1)),
        ("handled twice", count(&|fate| fate.handled > 1)),
        ("delivered and not handled", count(&|fate| fate.outcomes == ["delivered"] && fate.handled == 0)),
        ("refused and handled", count(&|fate| fate.outcomes == ["refused"] && fate.handled > 0)),
        ("handled and not sent", count(&|fate| fate.sent == 0)),
    ];
    for (what, count) in &broken {
        println!("{} {count} {what}", if *count == 0 { "ok  " } else { "FAIL" });
    }
    broken.iter().all(|(_, count)| *count == 0) && !times.is_empty()
}
