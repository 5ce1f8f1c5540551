//! Processes that are killed without a goodbye, and what the others know then.

use std::time::{Duration, Instant};

use vlmessaging::Router;

use super::node::{Node, agree};
use super::{folder, percentile, report};

const KILLS: usize = 30;
/// Longer than anything here may take.
const HANG: Duration = Duration::from_secs(30);

pub(crate) async fn run() {
    a_provider_dies().await;
    the_hub_dies().await;
    each_dies_in_turn();
}

/// Until another spoke knows that a killed process provides nothing any more.
async fn a_provider_dies() {
    let folder = folder("killed");
    let at = folder.to_str().expect("a plain name");
    let hub = Router::machine().folder(&folder).start().await.expect("a router");
    let other = Router::machine().folder(&folder).start().await.expect("a router");
    let conn = other.connect();
    let mut watch = conn.find("Mortal").watch();
    let mut times = Vec::new();
    for _ in 0..KILLS {
        let mut node = Node::of_machine(at);
        node.tell("add Mortal");
        watch.next().await;
        let since = Instant::now();
        node.child.kill().expect("it runs");
        watch.next().await;
        times.push(since.elapsed());
        let _ = node.child.wait();
    }
    let p50 = percentile(&mut times, 50);
    report(
        &format!("killed, gone at another spoke: p50 {p50:.2?}, p99"),
        percentile(&mut times, 99),
        Duration::from_millis(20),
    );
    other.shutdown().await;
    hub.shutdown().await;
    std::fs::remove_dir_all(folder).expect("the folder can go");
}

/// Lookups go on, another takes over, and what was registered meanwhile is seen everywhere.
async fn the_hub_dies() {
    let folder = folder("hub");
    let at = folder.to_str().expect("a plain name");
    let mut hub = Node::of_machine(at);
    while !hub.is_hub() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut nodes: Vec<Node> = (0..3).map(|_| Node::of_machine(at)).collect();
    nodes[0].tell("add Steady");
    agree(&mut nodes, "Steady", HANG);
    // Lookups of this process, all the while.
    let here = Router::machine().folder(&folder).start().await.expect("a router");
    let find = here.connect().find("Steady");
    let (mut lookups, mut failures) = (0_u64, 0_u64);
    let first = here.connect();
    first.find("Steady").first_within(HANG).await.expect("it is known");
    let killed = Instant::now();
    hub.kill();
    nodes[1].tell("add Meanwhile");
    let (mut took_over, mut seen) = (None, None);
    while seen.is_none() {
        for _ in 0..1000 {
            lookups += 1;
            failures += u64::from(find.all().is_empty());
        }
        // This process is a router like the others: it may be the hub now.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let is_here = here.endpoints().iter().any(|at| at.as_str().ends_with("/hub_1"));
        if took_over.is_none() && (is_here || nodes.iter_mut().any(Node::is_hub)) {
            took_over = Some(killed.elapsed());
        }
        if took_over.is_some() && nodes.iter_mut().all(|node| node.known() == "Meanwhile,Steady") {
            seen = Some(killed.elapsed());
        }
        assert!(killed.elapsed() < HANG, "nobody takes over");
    }
    let (took_over, seen) = (took_over.unwrap_or(HANG), seen.unwrap_or(HANG));
    println!("the hub is killed under {lookups} lookups: {failures} failed (asked: 0)");
    assert_eq!(failures, 0);
    report("another has taken over after", took_over, Duration::from_secs(3));
    report(
        "what was registered meanwhile is seen everywhere after another",
        seen.saturating_sub(took_over),
        Duration::from_secs(1),
    );
    // The hub's program is started again.
    let since = Instant::now();
    let mut again = [Node::of_machine(at)];
    agree(&mut again, "Meanwhile,Steady", HANG);
    report("the one that was killed, started again, knows everything after", since.elapsed(), Duration::from_secs(1));
    here.shutdown().await;
    again.into_iter().chain(nodes).for_each(Node::end);
    std::fs::remove_dir_all(folder).expect("the folder can go");
}

/// Each is killed and started again: all are equal after each, and nothing of an earlier life is left.
fn each_dies_in_turn() {
    let folder = folder("turn");
    let at = folder.to_str().expect("a plain name");
    let start = |name: &str| {
        let mut node = Node::of_machine(at);
        node.tell(&format!("add {name}"));
        node
    };
    let mut names: Vec<String> = (0..5).map(|number| format!("first{number}")).collect();
    let mut nodes: Vec<Node> = names.iter().map(|name| start(name)).collect();
    let mut slowest = Duration::ZERO;
    for number in 0..nodes.len() {
        agree(&mut nodes, &sorted(&names), HANG);
        names[number] = format!("again{number}");
        nodes.remove(number).kill();
        nodes.insert(number, start(&names[number]));
        slowest = slowest.max(agree(&mut nodes, &sorted(&names), HANG));
    }
    report(
        "five killed and started again in turn: all equal, nothing left, after at most",
        slowest,
        Duration::from_secs(4),
    );
    nodes.into_iter().for_each(Node::end);
    std::fs::remove_dir_all(folder).expect("the folder can go");
}

fn sorted(names: &[String]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.join(",")
}
