//! Five routers over TCP in network namespaces, parted and healed.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::node::{Node, agree};

const NODES: usize = 5;
const PARTED: Duration = Duration::from_secs(30);

fn ip(args: &str) {
    let ended = Command::new("ip").args(args.split_whitespace()).status().expect("ip");
    assert!(ended.success(), "ip {args}: is this root?");
}

pub(crate) fn run() {
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
    let folders: Vec<_> = (0..NODES).map(|at| super::folder(&format!("node{at}"))).collect();
    let at = |number: usize| format!("tcp://10.77.0.{}:30001", number + 1);
    let start = |number: usize| {
        let others: Vec<String> = (0..NODES).filter(|other| *other != number).map(at).collect();
        let folder = folders[number].to_str().expect("a plain name");
        Node::of_network(&format!("vlm{number}"), folder, &at(number), &others.join(","))
    };
    let mut nodes: Vec<Node> = (0..NODES).map(start).collect();
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
    super::report("five directories agree after the partition healed:", took, Duration::from_secs(2));
    nodes.into_iter().for_each(Node::end);
    for folder in folders {
        let _ = std::fs::remove_dir_all(folder);
    }
    tidy();
}
