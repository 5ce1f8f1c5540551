//! Proves the use of sockets on their own, below any router: `cargo bench --bench churn -- --seconds 600 [--sockets sp]`.
//!
//! A server listens on ipc and TCP. Peers come, in this process and in others, say something and are answered, on a pipe that
//! the server dials back or on their own; they close in order, in the middle of a dial, while they are talked to or flooded, or
//! are killed. All the while a clean client asks on both. At the end all must be as at the beginning; the exit status tells.
//!
//! 600 s on two busy cores, 22 November 2026: 155,096 connections of the server, 31,532 rounds in the process, 4,045 + 604
//! processes killed, 56 million frames sent; 906 of 906 checks answered, the slowest in 177 ms; no crash, no close that hung,
//! 11 descriptors before and after (nng). `--answer-on-ipc` shows what is avoided there: it hangs after some minutes. `--sockets sp` bears it, and has it always. `--no-flood` is milder.
//! With `CHURN_HOLD` set, a run that fails stands still for a minute, for a debugger.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vlmessaging::transport::{Event, Options, Origin, PipeId, SendError, Transport};
use vlmessaging::{Endpoint, Sockets};

/// The first byte of a frame.
const HELLO: u8 = b'H'; // + an endpoint: dial me back there
const ASK: u8 = b'Q'; // + anything: send it back
const ANSWER: u8 = b'R';
const ACK: u8 = b'A'; // an answer on my own pipe came
const FLOOD: u8 = b'F'; // send me all you can for a while
const LEAVE: u8 = b'C'; // close my pipe, whatever I say

/// Answers that may be on their way on a pipe that the server did not dial.
const UNACKED: usize = 2;
/// A round that takes longer hangs.
const STALL: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Counts {
    rounds: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    received: AtomicU64,
    answered: AtomicU64,
    dialed_back: AtomicU64,
    dial_failed: AtomicU64,
    kills: AtomicU64,
    talkers_killed: AtomicU64,
    exits: AtomicU64,
    checks: AtomicU64,
    failed_checks: AtomicU64,
    slowest_check_ms: AtomicU64,
    closes: [AtomicU64; 7],
}

const CLOSES: [&str; 7] = [
    "in order",
    "mid-dial",
    "while answered",
    "while flooded",
    "by dropping the transport",
    "after a megabyte",
    "by the server while it talked",
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    if let Some(at) = value("--talk") {
        talk_for_ever(&at);
    }
    if let (Some(ipc), Some(tcp), Some(dir)) = (value("--ipc"), value("--tcp"), value("--dir")) {
        let lives = value("--lives").and_then(|n| n.parse().ok());
        be_a_child(&Endpoint::from(ipc), &Endpoint::from(tcp), Path::new(&dir), lives);
        return ExitCode::SUCCESS;
    }
    if args.iter().any(|arg| arg == "--test") {
        return ExitCode::SUCCESS;
    }
    let seconds = value("--seconds").and_then(|n| n.parse().ok()).unwrap_or(20);
    churn(Duration::from_secs(seconds))
}

// ---- the whole -------------------------------------------------------------------------------

fn churn(length: Duration) -> ExitCode {
    let dir = std::env::temp_dir().join(format!("vlm-churn-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder for the sockets");
    let counts = Arc::new(Counts::default());
    let threads_before = threads();
    let rss_before = rss_kib();
    let server = Server::start(counts.clone());
    println!(
        "threads: {threads_before} before the transport, {} with it; rss {rss_before} -> {} KiB",
        threads(),
        rss_kib()
    );
    let ipc = server.listen(&format!("ipc://{}/hub", dir.display()));
    let tcp = server.listen("tcp://127.0.0.1:0");
    let mut rng = Rng(0x5eed);
    for _ in 0..5 {
        check(&counts, &[&ipc, &tcp], &dir, &mut rng);
    }
    settle(&counts);
    let base = (descriptors(), threads(), rss_kib());
    println!("baseline: {} descriptors, {} threads, {} KiB", base.0, base.1, base.2);

    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicBool::new(false));
    watch(counts.clone(), done.clone(), base);
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let (counts, over) = (counts.clone(), over.clone());
            let (ipc, tcp, dir) = (&ipc, &tcp, &dir);
            scope.spawn(move || live_in_process(&counts, &over, ipc, tcp, dir, seed));
        }
        for seed in 10..12 {
            let (counts, over) = (counts.clone(), over.clone());
            let (ipc, tcp, dir) = (&ipc, &tcp, &dir);
            scope.spawn(move || keep_children(&counts, &over, ipc, tcp, dir, seed));
        }
        {
            let (counts, over, talker) = (counts.clone(), over.clone(), talker_of(&ipc));
            scope.spawn(move || keep_a_talker(&counts, &over, &talker));
        }
        let begin = Instant::now();
        let mut printed = begin;
        while begin.elapsed() < length {
            check(&counts, &[&ipc, &tcp], &dir, &mut rng);
            std::thread::sleep(Duration::from_secs(2).min(length.saturating_sub(begin.elapsed())));
            if printed.elapsed() > Duration::from_secs(30) {
                printed = Instant::now();
                println!("{:>4} s: {}", begin.elapsed().as_secs(), brief(&counts));
            }
        }
        over.store(true, Relaxed);
    });
    for _ in 0..3 {
        check(&counts, &[&ipc, &tcp], &dir, &mut rng);
    }
    settle(&counts);
    let ok = report(&counts, &server, base);
    if !ok {
        hold();
    }
    let began = Instant::now();
    server.transport().shutdown(Duration::from_secs(1));
    println!("shutdown took {:?}; hub file left: {}", began.elapsed(), Path::new(ipc.rest()).exists());
    done.store(true, Relaxed);
    let left = Path::new(ipc.rest()).exists();
    drop(std::fs::remove_dir_all(&dir));
    if ok && !left { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(counts: &Counts, server: &Server, base: (usize, usize, u64)) -> bool {
    let (fds, threads, rss) = (descriptors(), threads(), rss_kib());
    println!("\n{}", brief(counts));
    for (name, count) in CLOSES.iter().zip(&counts.closes) {
        println!("  closed {name}: {}", count.load(Relaxed));
    }
    println!("descriptors {} -> {fds}, threads {} -> {threads}, rss {} -> {rss} KiB", base.0, base.1, base.2);
    let open = server.open_pipes();
    let failed = counts.failed_checks.load(Relaxed);
    let findings = [
        (
            failed == 0,
            format!(
                "{failed} of {} checks failed, slowest {} ms",
                counts.checks.load(Relaxed),
                counts.slowest_check_ms.load(Relaxed)
            ),
        ),
        (!is_closing_stuck(), "no close hangs".to_owned()),
        (closing_backlog() == 0, format!("{} closes wait", closing_backlog())),
        (open == 0, format!("{open} pipes of the server are open")),
        (fds <= base.0 + 2, format!("{fds} descriptors, {} at the beginning", base.0)),
        (
            threads <= base.1 + 3, // Helper threads come and go.
            format!("{threads} threads, {} at the beginning", base.1),
        ),
    ];
    for (fine, text) in &findings {
        println!("{} {text}", if *fine { "ok  " } else { "FAIL" });
    }
    findings.iter().all(|(fine, _)| *fine)
}

fn brief(counts: &Counts) -> String {
    let n = |count: &AtomicU64| count.load(Relaxed);
    format!(
        "rounds {} here, kills {} + {} talkers, exits {}; server: opened {}, closed {}, frames {}, answers {}, dialed back {}, dials failed {}; {} fds, {} threads, {} KiB, {} closes wait{}",
        n(&counts.rounds),
        n(&counts.kills),
        n(&counts.talkers_killed),
        n(&counts.exits),
        n(&counts.opened),
        n(&counts.closed),
        n(&counts.received),
        n(&counts.answered),
        n(&counts.dialed_back),
        n(&counts.dial_failed),
        descriptors(),
        threads(),
        rss_kib(),
        closing_backlog(),
        if is_closing_stuck() { ", A CLOSE HANGS" } else { "" },
    )
}

/// Ends the process when nothing moves any more.
fn watch(counts: Arc<Counts>, done: Arc<AtomicBool>, base: (usize, usize, u64)) {
    std::thread::spawn(move || {
        let mut last = (0, Instant::now());
        while !done.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(500));
            let rounds = counts.rounds.load(Relaxed) + counts.checks.load(Relaxed);
            if rounds != last.0 {
                last = (rounds, Instant::now());
            }
            if is_closing_stuck() || last.1.elapsed() > STALL {
                println!("HANG (baseline {base:?}): {}", brief(&counts));
                hold();
                std::process::exit(2);
            }
        }
    });
}

/// Stands still for a debugger, if that is wanted.
fn hold() {
    if std::env::var_os("CHURN_HOLD").is_some() {
        println!("held as process {}", std::process::id());
        drop(io::stdout().flush());
        std::thread::sleep(Duration::from_mins(1));
    }
}

/// Waits until the last pipes have been told closed and the helper threads have gone.
fn settle(counts: &Counts) {
    let end = Instant::now() + Duration::from_secs(15);
    let pending = || counts.opened.load(Relaxed) != counts.closed.load(Relaxed) || closing_backlog() > 0;
    while pending() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(2500));
}

// ---- the server ------------------------------------------------------------------------------

struct Server {
    transport: OnceLock<Arc<dyn Transport>>,
    pipes: Mutex<HashMap<PipeId, Line>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Line {
    dialed: bool,
    open: bool,
    busy: bool,
    unacked: usize,
    queue: VecDeque<Bytes>,
    back: Option<PipeId>,
    flood_until: Option<Instant>,
}

impl Server {
    fn start(counts: Arc<Counts>) -> Arc<Self> {
        let server = Arc::new(Self { transport: OnceLock::new(), pipes: Mutex::default(), counts });
        let weak = Arc::downgrade(&server);
        let sink = Arc::new(move |event| {
            if let Some(server) = weak.upgrade() {
                server.take(event);
            }
        });
        let transport = sockets().start(sink, Options::default()).expect("a transport");
        assert!(server.transport.set(transport).is_ok());
        server
    }

    fn transport(&self) -> &dyn Transport {
        &**self.transport.get().expect("started")
    }

    fn listen(&self, at: &str) -> Endpoint {
        self.transport().listen(&Endpoint::from(at)).expect("an endpoint of our own")
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, HashMap<PipeId, Line>> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_pipes(&self) -> usize {
        self.lines().len()
    }

    fn take(&self, event: Event) {
        match event {
            Event::Opened { pipe, origin, .. } => {
                self.counts.opened.fetch_add(1, Relaxed);
                let mut lines = self.lines();
                let line = lines.entry(pipe).or_default();
                line.open = true;
                line.dialed = matches!(origin, Origin::Dialed(_));
                drop(lines);
                self.pump(pipe);
            }
            Event::DialFailed { pipe, .. } => {
                self.counts.dial_failed.fetch_add(1, Relaxed);
                self.lines().remove(&pipe);
            }
            Event::Received { pipe, frame } => self.heard(pipe, &frame),
            Event::Sent { pipe } => {
                if let Some(line) = self.lines().get_mut(&pipe) {
                    line.busy = false;
                }
                self.pump(pipe);
            }
            Event::Closed { pipe } => {
                self.counts.closed.fetch_add(1, Relaxed);
                let line = self.lines().remove(&pipe);
                if let Some(back) = line.and_then(|line| line.back) {
                    self.transport().close(back);
                }
            }
        }
    }

    fn heard(&self, pipe: PipeId, frame: &Bytes) {
        self.counts.received.fetch_add(1, Relaxed);
        match frame.first() {
            Some(&HELLO) => self.dial_back(pipe, &String::from_utf8_lossy(&frame[1..])),
            Some(&ASK) => self.answer(pipe, &frame[1..]),
            Some(&LEAVE) => self.transport().close(pipe),
            Some(&ACK) => {
                if let Some(line) = self.lines().get_mut(&pipe) {
                    line.unacked = line.unacked.saturating_sub(1);
                }
                self.pump(pipe);
            }
            Some(&FLOOD) => {
                if let Some(line) = self.lines().get_mut(&pipe) {
                    line.flood_until = Some(Instant::now() + Duration::from_millis(40));
                }
                self.pump(pipe);
            }
            _ => {}
        }
    }

    fn dial_back(&self, pipe: PipeId, to: &str) {
        self.counts.dialed_back.fetch_add(1, Relaxed);
        let mut lines = self.lines();
        let back = self.transport().dial(&Endpoint::from(to));
        lines.entry(back).or_default().dialed = true;
        if let Some(line) = lines.get_mut(&pipe) {
            line.back = Some(back);
        }
    }

    fn answer(&self, pipe: PipeId, body: &[u8]) {
        let mut frame = vec![ANSWER];
        frame.extend_from_slice(body);
        let mut lines = self.lines();
        let on = lines.get(&pipe).and_then(|line| line.back).unwrap_or(pipe);
        if let Some(line) = lines.get_mut(&on) {
            line.queue.push_back(frame.into());
        }
        drop(lines);
        self.pump(on);
    }

    fn pump(&self, pipe: PipeId) {
        let mut lines = self.lines();
        let Some(line) = lines.get_mut(&pipe) else {
            return;
        };
        if !line.open || line.busy {
            return;
        }
        let flooding = line.flood_until.is_some_and(|until| Instant::now() < until);
        if line.queue.is_empty() && flooding {
            line.queue.push_back(Bytes::from_static(&[ANSWER; 200]));
            line.unacked = 0;
        }
        if !line.dialed && line.unacked >= UNACKED {
            return;
        }
        let Some(frame) = line.queue.pop_front() else {
            return;
        };
        line.busy = true;
        line.unacked += usize::from(!line.dialed);
        drop(lines);
        match self.transport().send(pipe, frame) {
            Ok(()) => {
                self.counts.answered.fetch_add(1, Relaxed);
            }
            Err(SendError::Gone(_)) => {} // Closed is on its way.
            Err(error) => println!("FAIL: {error} although it was not"),
        }
    }
}

// ---- a peer ----------------------------------------------------------------------------------

/// One transport of a peer and what it hears.
struct Peer {
    transport: Arc<dyn Transport>,
    events: Receiver<Event>,
    listens: Option<Endpoint>,
}

impl Peer {
    fn new(listen: Option<String>) -> Option<Self> {
        let (tell, events) = channel();
        let sink = Arc::new(move |event| drop(tell.send(event)));
        let options = Options { dial_limit: Duration::from_secs(5), ..Options::default() };
        let transport = sockets().start(sink, options).ok()?;
        let listens = match listen {
            Some(at) => Some(transport.listen(&Endpoint::from(at)).ok()?),
            None => None,
        };
        Some(Self { transport, events, listens })
    }

    fn next(&self, until: Instant) -> Option<Event> {
        let left = until.saturating_duration_since(Instant::now());
        self.events.recv_timeout(left).ok()
    }

    /// Comes to `to`, asks `asks` times and hears the answers, up to `heard`; gives the pipe and how many came.
    fn talk(&self, to: &Endpoint, bodies: &[Vec<u8>], heard: usize, limit: Duration) -> (PipeId, usize) {
        let until = Instant::now() + limit;
        let pipe = self.transport.dial(to);
        let mut out: VecDeque<Bytes> = VecDeque::new();
        if let Some(at) = &self.listens {
            out.push_back([&[HELLO], at.as_str().as_bytes()].concat().into());
        }
        out.extend(bodies.iter().map(|body| Bytes::from([&[ASK], body.as_slice()].concat())));
        let (mut open, mut busy, mut answers) = (false, false, 0);
        while answers < heard {
            if open
                && !busy
                && let Some(frame) = out.pop_front()
            {
                busy = self.transport.send(pipe, frame).is_ok();
            }
            match self.next(until) {
                Some(Event::Opened { pipe: which, .. }) if which == pipe => open = true,
                Some(Event::Sent { pipe: which }) if which == pipe => busy = false,
                Some(Event::Received { pipe: which, frame }) if frame.first() == Some(&ANSWER) => {
                    answers += 1;
                    if which == pipe {
                        out.push_back(Bytes::from_static(&[ACK]));
                    }
                }
                Some(Event::Closed { pipe: which } | Event::DialFailed { pipe: which, .. }) if which == pipe => {
                    break;
                }
                Some(_) => {}
                None => break,
            }
        }
        (pipe, answers)
    }
}

/// One life of a peer: comes somehow, goes somehow. Gives how.
fn life(rng: &mut Rng, ipc: &Endpoint, tcp: &Endpoint, dir: &Path) -> Option<usize> {
    let over_ipc = rng.below(2) == 0;
    let to = if over_ipc { ipc } else { tcp };
    let dialed_back = over_ipc && !answers_on_ipc() || rng.below(2) == 0;
    let listen = dialed_back.then(|| if over_ipc { own_path(dir) } else { "tcp://127.0.0.1:0".to_owned() });
    let peer = Peer::new(listen)?;
    let how = match usize::try_from(rng.below(7)).ok()? {
        3 if no_flood() => 2,
        how => how,
    };
    let small: Vec<Vec<u8>> =
        (0..=rng.below(8)).map(|_| vec![7; usize::try_from(rng.below(400)).unwrap_or(0)]).collect();
    let limit = Duration::from_secs(3);
    match how {
        0 => {
            let (pipe, _) = peer.talk(to, &small, small.len(), limit);
            peer.transport.close(pipe);
            wait_closed(&peer, pipe);
        }
        1 => {
            let pipe = peer.transport.dial(to);
            spin(Duration::from_micros(rng.below(600)));
            peer.transport.close(pipe);
            wait_closed(&peer, pipe);
        }
        2 => {
            let part = usize::try_from(rng.below(small.len() as u64)).ok()?;
            let (pipe, _) = peer.talk(to, &small, part, limit);
            peer.transport.close(pipe);
        }
        3 if over_ipc && !answers_on_ipc() => flood(&peer, rng, &talker_of(ipc)),
        3 => flood(&peer, rng, to),
        6 => be_closed(&peer, to),
        4 => drop(peer.talk(to, &small, 1, limit)),
        _ => {
            let large = vec![vec![9; usize::try_from(rng.below(1 << 20)).ok()?]; 3];
            let part = usize::try_from(rng.below(4)).ok()?;
            let (pipe, _) = peer.talk(to, &large, part, limit);
            peer.transport.close(pipe);
        }
    }
    if how != 4 && rng.below(2) == 0 {
        peer.transport.shutdown(Duration::from_millis(rng.below(50)));
    }
    Some(how)
}

/// Where the process listens that talks back on ipc.
fn talker_of(ipc: &Endpoint) -> Endpoint {
    Endpoint::from(format!("{ipc}-talker"))
}

/// Has the server talk without a break on our pipe, and closes it in the middle of that.
fn flood(peer: &Peer, rng: &mut Rng, to: &Endpoint) {
    let until = Instant::now() + Duration::from_secs(3);
    let pipe = peer.transport.dial(to);
    let mut heard = 0;
    let enough = 1 + rng.below(60);
    while heard < enough {
        match peer.next(until) {
            Some(Event::Opened { .. }) => drop(peer.transport.send(pipe, Bytes::from_static(&[FLOOD]))),
            Some(Event::Sent { .. }) => drop(peer.transport.send(pipe, Bytes::from_static(&[ACK]))),
            Some(Event::Received { .. }) => {
                heard += 1;
                drop(peer.transport.send(pipe, Bytes::from_static(&[ACK])));
            }
            Some(Event::Closed { .. } | Event::DialFailed { .. }) | None => break,
        }
    }
    peer.transport.close(pipe);
    wait_closed(peer, pipe);
}

/// Asks to be closed, and talks on without a break until that happened.
fn be_closed(peer: &Peer, to: &Endpoint) {
    let until = Instant::now() + Duration::from_secs(3);
    let pipe = peer.transport.dial(to);
    let mut said = 0;
    loop {
        match peer.next(until) {
            Some(Event::Opened { .. } | Event::Sent { .. }) => {
                let word = if said == 20 { LEAVE } else { ACK };
                said += 1;
                if said > 300 {
                    continue; // One of several of its process is only closed when it is silent.
                }
                // A pipe that is gone says so by `Closed`.
                drop(peer.transport.send(pipe, Bytes::copy_from_slice(&[word; 50])));
            }
            Some(Event::Closed { .. } | Event::DialFailed { .. }) => return,
            Some(Event::Received { .. }) => {}
            None => return println!("FAIL: a peer at {to} that asked to be closed was not"),
        }
    }
}

fn wait_closed(peer: &Peer, pipe: PipeId) {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match peer.next(until) {
            Some(Event::Closed { pipe: which } | Event::DialFailed { pipe: which, .. }) if which == pipe => {
                return;
            }
            Some(_) => {}
            None => return,
        }
    }
}

fn live_in_process(counts: &Counts, over: &AtomicBool, ipc: &Endpoint, tcp: &Endpoint, dir: &Path, seed: u64) {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9) + 1);
    while !over.load(Relaxed) {
        if let Some(how) = life(&mut rng, ipc, tcp, dir) {
            counts.closes[how].fetch_add(1, Relaxed);
        }
        counts.rounds.fetch_add(1, Relaxed);
    }
}

fn keep_children(counts: &Counts, over: &AtomicBool, ipc: &Endpoint, tcp: &Endpoint, dir: &Path, seed: u64) {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9) + 1);
    while !over.load(Relaxed) {
        let ends_itself = rng.below(4) == 0;
        let lives = if ends_itself { 1 + rng.below(20) } else { u64::MAX };
        let Some(mut child) = spawn(ipc, tcp, dir, lives) else {
            continue;
        };
        if ends_itself {
            reap(&mut child, Duration::from_secs(15));
            counts.exits.fetch_add(1, Relaxed);
        } else {
            std::thread::sleep(Duration::from_millis(10 + rng.below(200)));
            drop(child.kill());
            drop(child.wait());
            counts.kills.fetch_add(1, Relaxed);
        }
    }
}

fn reap(child: &mut Child, limit: Duration) {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return,
            Ok(Some(status)) => return println!("FAIL: a child ended with {status}"),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    println!("FAIL: child {} did not end in {limit:?}", child.id());
    drop(child.kill());
    drop(child.wait());
}

fn spawn(ipc: &Endpoint, tcp: &Endpoint, dir: &Path, lives: u64) -> Option<Child> {
    Command::new(std::env::current_exe().ok()?)
        .args(["--ipc", ipc.as_str(), "--tcp", tcp.as_str(), "--lives", &lives.to_string()])
        .args([Path::new("--dir"), dir])
        .args(["--sockets", &sockets().to_string()])
        .args(answers_on_ipc().then_some("--answer-on-ipc"))
        .args(no_flood().then_some("--no-flood"))
        .stdin(Stdio::null())
        .spawn()
        .ok()
}

/// Lives in two threads until killed, or `lives` lives in each.
fn be_a_child(ipc: &Endpoint, tcp: &Endpoint, dir: &Path, lives: Option<u64>) {
    end_with_the_parent();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn(move || {
                let mut rng = Rng(u64::from(std::process::id()).wrapping_mul(0x9e37_79b9) + thread);
                for _ in 0..lives.unwrap_or(1) {
                    life(&mut rng, ipc, tcp, dir);
                }
            });
        }
    });
}

/// Listens at `at` in a process of its own, as a Python router does: what it says goes out on the pipes that came.
fn talk_for_ever(at: &str) -> ! {
    end_with_the_parent();
    let server = Server::start(Arc::default());
    server.listen(at);
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Keeps such a process running at `at`, and kills it every second or so.
fn keep_a_talker(counts: &Counts, over: &AtomicBool, at: &Endpoint) {
    let mut rng = Rng(0x7a1c);
    while !over.load(Relaxed) {
        let Ok(program) = std::env::current_exe() else {
            return;
        };
        let Ok(mut child) = Command::new(program)
            .args(["--talk", at.as_str(), "--sockets", &sockets().to_string()])
            .stdin(Stdio::null())
            .spawn()
        else {
            continue;
        };
        std::thread::sleep(Duration::from_millis(200 + rng.below(1500)));
        drop(child.kill());
        drop(child.wait());
        counts.talkers_killed.fetch_add(1, Relaxed);
    }
}

/// One that outlived its parent would hold the parent's output open.
fn end_with_the_parent() {
    let parent = std::os::unix::process::parent_id();
    std::thread::spawn(move || {
        while std::os::unix::process::parent_id() == parent {
            std::thread::sleep(Duration::from_millis(200));
        }
        std::process::exit(3);
    });
}

/// Whether ipc peers are also answered on the pipes that they dialed, which nng 1.12 does not bear for long.
fn answers_on_ipc() -> bool {
    sockets().to_string() != "nng" || std::env::args().any(|arg| arg == "--answer-on-ipc")
}

/// The kind that is tried: the first that is compiled in, or what was asked for.
fn sockets() -> Sockets {
    let args: Vec<String> = std::env::args().collect();
    let asked = args.iter().position(|arg| arg == "--sockets").and_then(|at| args.get(at + 1));
    asked.map_or(Sockets::ALL[0], |name| name.parse().expect("nng or sp"))
}

/// How many closes of this process wait, and whether one hangs: only nng's can.
#[cfg(feature = "nng")]
use vlmessaging::transport::nng::{closing_backlog, is_closing_stuck};
#[cfg(not(feature = "nng"))]
fn closing_backlog() -> usize {
    0
}
#[cfg(not(feature = "nng"))]
fn is_closing_stuck() -> bool {
    false
}

/// Whether nobody asks to be flooded.
fn no_flood() -> bool {
    std::env::args().any(|arg| arg == "--no-flood")
}

/// A clean client must be answered, on its own pipe and on one dialed back.
fn check(counts: &Counts, at: &[&Endpoint], dir: &Path, rng: &mut Rng) {
    for to in at {
        for back in [false, true] {
            if !back && !answers_on_ipc() && to.as_str().starts_with("ipc") {
                continue;
            }
            let own = if to.as_str().starts_with("ipc") { own_path(dir) } else { "tcp://127.0.0.1:0".to_owned() };
            let Some(peer) = Peer::new(back.then_some(own)) else {
                continue;
            };
            let began = Instant::now();
            let bodies = vec![vec![1; usize::try_from(rng.below(2000)).unwrap_or(0)]; 5];
            let (_, answers) = peer.talk(to, &bodies, 5, Duration::from_secs(5));
            let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            counts.checks.fetch_add(1, Relaxed);
            counts.slowest_check_ms.fetch_max(took, Relaxed);
            if answers != 5 {
                counts.failed_checks.fetch_add(1, Relaxed);
                println!("FAIL: a clean client at {to} (dialed back: {back}) got {answers} of 5 answers in {took} ms");
            }
            peer.transport.shutdown(Duration::from_millis(100));
        }
    }
}

// ---- small things ----------------------------------------------------------------------------

fn own_path(dir: &Path) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let path: PathBuf = dir.join(format!("p{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)));
    format!("ipc://{}", path.display())
}

fn spin(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }
}
