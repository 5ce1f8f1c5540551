//! `-- parted`, as root: two processes in network namespaces, A - M - B, whose TCP connection M cuts without a word to either, for 2 s and for 60 s, while they send to each other.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Options;
use crate::checker::{Tally, check};
use crate::faults::end;

const A: &str = "10.78.1.2";
const B: &str = "10.78.2.2";
const HUB: &str = "tcp://10.78.2.2:36100";
/// How long they take at most to send to each other again after a long cut. Default 10 s.
const CONVERGED: Duration = Duration::from_secs(10);

/// Cuts, heals and joins the journals; false if a promise was broken.
pub(crate) fn run(options: &Options, dir: &Path, vlm: &Path) -> bool {
    let network = Network::make();
    let (brief, lasting) = (dir.join("brief"), dir.join("lasting"));
    let short = Pair::start(options, &brief);
    std::thread::sleep(Duration::from_secs(3));
    network.cut(Duration::from_secs(2), || {});
    std::thread::sleep(Duration::from_secs(3));
    println!("cut for 2 s under load, healed:");
    let tally = short.end();
    let ok = tally.is_some_and(|told| told.refused + told.unknown == 0);
    println!("{} nothing lost, nobody declared dead", if ok { "ok  " } else { "FAIL" });

    let long = Pair::start(options, &lasting);
    std::thread::sleep(Duration::from_secs(3));
    let mut is_told = false;
    network.cut(Duration::from_mins(1), || is_told = dial_into_the_void(vlm));
    let healed = Instant::now();
    let (before, mut now) = (long.foreign(), (0, 0));
    while (now.0 <= before.0 || now.1 <= before.1) && healed.elapsed() < CONVERGED {
        std::thread::sleep(Duration::from_millis(20));
        now = long.foreign();
    }
    let took = healed.elapsed();
    println!("cut for 60 s under load, healed:");
    let ok_too = long.end().is_some_and(|told| told.unknown > 0) && took < CONVERGED;
    println!("{} both hear each other again {took:.2?} after the healing", if ok_too { "ok  " } else { "FAIL" });
    ok && ok_too && is_told
}

/// A request to an address that swallows every packet.
fn dial_into_the_void(vlm: &Path) -> bool {
    std::thread::sleep(Duration::from_secs(5));
    let folder = std::env::temp_dir();
    let since = Instant::now();
    let said = within("vlcA", vlm)
        .args(["call", "--no-hub", "--json", "--timeout-ms", "10000", "--subject", "ADD_ONE"])
        .args(["--addr", &format!("tcp://{B}:36999||3"), "--folder", folder.to_str().unwrap()])
        .output()
        .unwrap();
    let took = since.elapsed();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let ok = text.contains("dial failed") && took < Duration::from_millis(2500);
    println!(
        "{} a request into the void, the start of its process included: {took:.2?}",
        if ok { "ok  " } else { "FAIL" }
    );
    if !ok {
        println!("{text}");
    }
    ok
}

/// One process in A, and in B the one that listens.
struct Pair<'a> {
    dir: &'a Path,
    nodes: [Child; 2],
}

impl<'a> Pair<'a> {
    fn start(options: &Options, dir: &'a Path) -> Self {
        let node = |space: &str, role: &str, at: &str| {
            let folder = dir.join(role);
            std::fs::create_dir_all(&folder).unwrap();
            within(space, &std::env::current_exe().unwrap())
                .args(["--node", dir.to_str().unwrap(), "--folder", folder.to_str().unwrap()])
                .args(["--hub", HUB, "--role", role, "--at", at, "--over", "tcp"])
                .args(["--pause-ms", &options.pause.as_millis().to_string()])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap()
        };
        Self { dir, nodes: [node("vlcB", "hub", HUB), node("vlcA", "any", &format!("tcp://{A}:0"))] }
    }

    /// How many messages of the other each has handled.
    fn foreign(&self) -> (usize, usize) {
        let of = |node: &Child| {
            let text = std::fs::read_to_string(self.dir.join(format!("journal-{}", node.id()))).unwrap_or_default();
            let ids = text.lines().filter_map(|line| line.strip_prefix("handled ")?.parse::<u64>().ok());
            ids.filter(|id| id >> 32 != u64::from(node.id())).count()
        };
        (of(&self.nodes[0]), of(&self.nodes[1]))
    }

    /// Lets both send their last before either ends.
    fn end(mut self) -> Option<Tally> {
        for node in &mut self.nodes {
            node.stdin.as_mut().unwrap().write_all(b"hush\n").unwrap();
        }
        std::thread::sleep(Duration::from_secs(1));
        let (one, other) = self.foreign();
        println!("{one} and {other} messages of the other were handled");
        let all_end = self.nodes.iter_mut().map(end).filter(|ended| !ended).count() == 0;
        check(self.dir).filter(|_| all_end && one > 0 && other > 0)
    }
}

// ---- the network ------------------------------------------------------------------------------

/// Three namespaces, which go when this is dropped.
struct Network;

impl Network {
    fn make() -> Self {
        drop(Self);
        for space in ["vlcA", "vlcM", "vlcB"] {
            ip(&format!("netns add {space}"));
            ip(&format!("-n {space} link set lo up"));
        }
        for (space, number, address) in [("vlcA", 1, A), ("vlcB", 2, B)] {
            ip(&format!("link add vlcm{number} netns vlcM type veth peer name eth0 netns {space}"));
            ip(&format!("-n {space} addr add {address}/24 dev eth0"));
            ip(&format!("-n {space} link set eth0 up"));
            ip(&format!("-n vlcM addr add 10.78.{number}.1/24 dev vlcm{number}"));
            ip(&format!("-n vlcM link set vlcm{number} up"));
            ip(&format!("-n {space} route add default via 10.78.{number}.1"));
        }
        forward(true);
        Self
    }

    /// No packet passes, and no socket is told.
    fn cut(&self, length: Duration, meanwhile: impl FnOnce()) {
        let since = Instant::now();
        forward(false);
        for to in [A, B] {
            ip(&format!("-n vlcM route add blackhole {to}/32"));
        }
        meanwhile();
        std::thread::sleep(length.saturating_sub(since.elapsed()));
        for to in [A, B] {
            ip(&format!("-n vlcM route del blackhole {to}/32"));
        }
        forward(true);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for space in ["vlcA", "vlcM", "vlcB"] {
            // There is none when it starts.
            let _ = Command::new("ip").args(["netns", "del", space]).stderr(Stdio::null()).status();
        }
    }
}

fn forward(is_on: bool) {
    let text = format!("echo {} > /proc/sys/net/ipv4/ip_forward", u8::from(is_on));
    let ended = within("vlcM", Path::new("sh")).args(["-c", &text]).status().unwrap();
    assert!(ended.success(), "ip_forward: is this root?");
}

fn within(space: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space]).arg(program);
    command
}

fn ip(args: &str) {
    let ended = Command::new("ip").args(args.split_whitespace()).status().unwrap();
    assert!(ended.success(), "ip {args}: is this root?");
}
