//! Faults, one after the other, upon processes that send to each other.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::Options;
use crate::checker::check;

/// The first is spared all but pauses, floods and strangers; the second is the network's hub.
const NODES: usize = 6;
const HUB: usize = 1;
/// How long one process stays stopped while the other faults go on: nobody reads what it is sent. Default 30 s.
const FROZEN: Duration = Duration::from_secs(30);
/// What the fitted line of memory may rise by over the run, in KiB. Default 256: a third of what the process holds.
const RISE: f64 = 256.0;
/// Has the C library's allocator keep nothing for each thread: what it keeps would hide whether the process holds more and more.
const PLAIN_ALLOCATOR: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1");

pub(crate) struct Chaos<'a> {
    options: &'a Options,
    dir: PathBuf,
    hub: String,
    rng: u64,
    nodes: Vec<Child>,
    frozen: Option<(usize, Instant)>,
    /// Strangers that stay, and never read.
    mute: Vec<UnixStream>,
    faults: BTreeMap<&'static str, u64>,
    /// Of the first process: seconds, KiB, descriptors.
    samples: Vec<(f64, f64, f64)>,
}

impl<'a> Chaos<'a> {
    pub(crate) fn new(options: &'a Options, dir: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self {
            options,
            dir: dir.into(),
            hub: format!("tcp://127.0.0.1:{port}"),
            rng: options.seed,
            nodes: Vec::new(),
            frozen: None,
            mute: Vec::new(),
            faults: BTreeMap::new(),
            samples: Vec::new(),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.rng = self.rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.rng >> 33) % limit
    }

    fn start(&self, index: usize) -> Child {
        let role = ["spared", "hub"].get(index).unwrap_or(&"any");
        Command::new(std::env::current_exe().unwrap())
            .envs((index == 0).then_some(PLAIN_ALLOCATOR))
            .args(["--node", self.dir.to_str().unwrap(), "--hub", &self.hub, "--role", role])
            .args(["--over", if self.options.over_tcp { "tcp" } else { "ipc" }])
            .args(["--pause-ms", &self.options.pause.as_millis().to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs all faults for the time that was asked for; false if a promise was broken.
    pub(crate) fn run(mut self) -> bool {
        for index in 0..NODES {
            let node = self.start(index);
            self.nodes.push(node);
        }
        std::thread::sleep(Duration::from_secs(2));
        let began = Instant::now();
        while began.elapsed() < self.options.length {
            let pause = self.below(1000);
            std::thread::sleep(Duration::from_millis(pause));
            if self.frozen.is_some_and(|(_, until)| Instant::now() >= until) {
                self.thaw();
            }
            let what = self.fault();
            *self.faults.entry(what).or_default() += 1;
            let (kib, descriptors) = burden(&self.nodes[0]);
            self.samples.push((began.elapsed().as_secs_f64(), kib, descriptors));
        }
        self.thaw();
        self.mute.clear();
        std::thread::sleep(Duration::from_secs(2));
        let mut all_end = true;
        for node in &mut self.nodes {
            all_end &= end(node);
        }
        println!("faults: {:?}", self.faults);
        let is_flat = self.is_flat();
        check(&self.dir).is_some() && all_end && is_flat
    }

    fn fault(&mut self) -> &'static str {
        let mut index = 1 + self.below(NODES as u64 - 1) as usize;
        if self.frozen.is_some_and(|(frozen, _)| frozen == index) {
            index = 1 + index % (NODES - 1);
        }
        match self.below(9) {
            0 | 1 => {
                self.kill(index);
                "kill -9"
            }
            2 => match self.hub() {
                Some(hub) => {
                    self.kill(hub);
                    "kill -9 of the hub"
                }
                None => "no hub to kill",
            },
            3 => self.pause(index, 2000, "stopped for at most 2 s"),
            4 => self.pause(index, 7000, "stopped for at most 7 s"),
            5 => {
                assert!(end(&mut self.nodes[index]), "a process did not end in order");
                self.nodes[index] = self.start(index);
                "restarted in order"
            }
            6 => {
                // A process that was just killed cannot be told.
                let _ = self.nodes[index].stdin.as_mut().unwrap().write_all(b"flood\n");
                "flood"
            }
            7 if self.frozen.is_none() => {
                signal(&self.nodes[index], Signal::STOP);
                self.frozen = Some((index, Instant::now() + FROZEN));
                "frozen for 30 s beside the others"
            }
            _ => {
                self.besiege();
                "strangers"
            }
        }
    }

    fn kill(&mut self, index: usize) {
        if self.frozen.is_some_and(|(frozen, _)| frozen == index) {
            self.frozen = None;
        }
        self.nodes[index].kill().unwrap();
        self.nodes[index].wait().unwrap();
        let pause = self.below(500);
        std::thread::sleep(Duration::from_millis(pause));
        self.nodes[index] = self.start(index);
    }

    /// Which process the others find each other at: over unix sockets, whoever has bound the path at present.
    fn hub(&self) -> Option<usize> {
        if self.options.over_tcp {
            return Some(HUB);
        }
        let path = self.dir.join("hub_1");
        let table = std::fs::read_to_string("/proc/net/unix").unwrap();
        let bound = table.lines().find(|line| line.ends_with(path.to_str().unwrap()) && line.contains(" 00010000 "))?;
        let socket = format!("socket:[{}]", bound.split_whitespace().nth(6)?);
        self.nodes.iter().position(|node| {
            let files = std::fs::read_dir(format!("/proc/{}/fd", node.id())).into_iter().flatten().flatten();
            files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|to| to.as_os_str() == socket.as_str())
        })
    }

    fn pause(&mut self, index: usize, limit: u64, what: &'static str) -> &'static str {
        signal(&self.nodes[index], Signal::STOP);
        let pause = self.below(limit);
        std::thread::sleep(Duration::from_millis(pause));
        signal(&self.nodes[index], Signal::CONT);
        what
    }

    fn thaw(&mut self) {
        if let Some((index, _)) = self.frozen.take() {
            signal(&self.nodes[index], Signal::CONT);
        }
    }

    /// Connects, says nothing or nonsense, and goes; some stay until the next siege and never read.
    fn besiege(&mut self) {
        self.mute.clear();
        for file in std::fs::read_dir(&self.dir).unwrap().flatten() {
            for count in 0..20 {
                if let Ok(mut stream) = visit(&file.path()) {
                    // Whoever does not want to hear it closes: so much the better.
                    let _ = stream.write_all(&[0, b'S', b'P', 0, 0, 0x11, 0, 0, count]);
                    self.mute.extend((count == 0).then_some(stream));
                }
            }
        }
        if let Some(at) = self.hub.strip_prefix("tcp://").filter(|_| self.options.over_tcp) {
            for _ in 0..20 {
                // A hub that is stopped answers nobody.
                let stream = TcpStream::connect_timeout(&at.parse().unwrap(), Duration::from_millis(50));
                drop(stream.and_then(|mut stream| stream.write_all(b"GET / HTTP/1.0\r\n\r\n")));
            }
        }
    }

    /// Whether memory and descriptors of the process that was spared stay what they are, by least squares, in the second half of the run.
    fn is_flat(&self) -> bool {
        let later = &self.samples[self.samples.len() / 2..];
        let minutes = self.options.length.as_secs_f64() / 60.0;
        let memory = slope(later.iter().map(|sample| (sample.0, sample.1))) * 60.0;
        let descriptors = slope(later.iter().map(|sample| (sample.0, sample.2))) * 60.0;
        let most = later.iter().map(|sample| sample.1).fold(0.0, f64::max);
        let is_flat = memory * minutes < RISE && descriptors * minutes < 3.0;
        let fifths = self.samples.chunks(self.samples.len().div_ceil(5));
        let means = fifths.map(|part| part.iter().map(|sample| sample.1).sum::<f64>() / part.len() as f64);
        println!("memory of the spared process, mean of each fifth: {:.0?} KiB", means.collect::<Vec<_>>());
        println!(
            "{} the spared process: {most:.0} KiB at most, slope {memory:+.1} KiB a minute, {descriptors:+.2} descriptors a minute",
            if is_flat { "ok  " } else { "FAIL" }
        );
        is_flat
    }
}

fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let count = points.clone().count() as f64;
    let (x, y) = points.clone().fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / count, sum.1 + point.1 / count));
    let (up, down) = points.fold((0.0, 0.0), |(up, down), point| {
        (up + (point.0 - x) * (point.1 - y), down + (point.0 - x) * (point.0 - x))
    });
    up / down
}

/// Connects, unless nobody accepts there at present: a stopped process would be waited for as long as it is stopped.
fn visit(path: &Path) -> rustix::io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

pub(crate) fn signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).unwrap();
}

/// Asks a process to end in order; false if it does not within 15 s.
pub(crate) fn end(node: &mut Child) -> bool {
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

/// Resident memory of its own in KiB, without the pages of the program, which come as its rarer parts are first used; and open descriptors.
pub(crate) fn burden(process: &Child) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0.0);
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", process.id())).map_or(0, Iterator::count);
    (kib, descriptors as f64)
}
