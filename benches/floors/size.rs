//! Whether cost grows with what a router holds: idle connections, and peers.

use std::time::{Duration, Instant};

use vlmessaging::{Addr, Router};

use crate::Run;
use crate::in_process::Sides;
use crate::kid::Kid;
use crate::load::{self, PATIENCE, WARM_UP, body};
use crate::ours::{self, ask, builder};
use crate::report::Row;

const CONNECTIONS: usize = 100_000;
const PEERS: [usize; 2] = [100, 200];
/// Requests in a round.
const REQUESTS: usize = 5_000;

/// A process of its own: prints the figures of its rounds.
pub(crate) fn child(words: &[&str]) {
    load::pin();
    actix::System::new().block_on(async {
        match *words {
            ["connections", count, rounds] => connections(number(count), number(rounds)).await,
            ["peers", count, rounds, folder] => peers(number(count), number(rounds), folder).await,
            _ => panic!("what size: {words:?}"),
        }
    });
    std::process::exit(0);
}

fn number(word: &str) -> usize {
    word.parse().expect("a number")
}

/// Prints the nanoseconds of a request, first with few connections and then with `count`, and at last the bytes of each.
async fn connections(count: usize, rounds: usize) {
    let sides = Sides::start(false, &actix::Arbiter::current()).await;
    let before = resident();
    let mut held = Vec::with_capacity(count);
    for phase in 0..2 {
        for _ in 0..rounds {
            let began = Instant::now();
            for number in 0..100_000 {
                sides.ask_ours(number).await;
            }
            println!("{}", began.elapsed().as_nanos() as f64 / 1e5);
        }
        if phase == 0 {
            held.extend((0..count).map(|_| sides.connect()));
        }
    }
    println!("{}", (resident() - before) / count as f64);
}

/// Bytes.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("resident memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("a number") * 1024.0
}

/// Many routers in one process, an echo in each: prints where they are.
pub(crate) fn many(words: &[&str]) {
    let [count, folder] = *words else { panic!("count and folder") };
    let (count, folder) = (number(count), folder.to_owned());
    actix::System::new().block_on(async move {
        let mut routers: Vec<Router> = Vec::new();
        let mut said = Vec::new();
        for _ in 0..count {
            let router = builder("ipc", &folder).start().await.expect("a router");
            let Addr { machine, connection, .. } = ours::echo(&router);
            said.push(format!("{} {}", machine.expect("an endpoint"), connection.unwrap_or_default()));
            routers.push(router);
        }
        println!("READY {}", said.join(";"));
        std::thread::spawn(|| {
            // It ends with its parent's wish.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        });
        std::future::pending::<()>().await;
    });
}

/// Prints the median round trip to one of `count` peers, all of which are linked.
async fn peers(count: usize, rounds: usize, folder: &str) {
    let server = Kid::start(&["@server", "many", &count.to_string(), folder]);
    let ready = server.ready_within(PATIENCE * 3);
    let peers: Vec<Addr> = ready.split(';').map(ours::parse).collect();
    let router = builder("ipc", folder).start().await.expect("a router");
    let conn = router.connect();
    for peer in &peers {
        assert!(ask(&conn, peer, body(0, 64)).await, "each peer answers");
    }
    for number in 0..WARM_UP {
        assert!(ask(&conn, &peers[0], body(number, 64)).await, "the peer answers");
    }
    for _ in 0..rounds {
        let mut nanos = Vec::with_capacity(REQUESTS);
        for number in 0..REQUESTS {
            let (body, asked) = (body(number, 64), Instant::now());
            assert!(ask(&conn, &peers[0], body).await, "the peer answers");
            nanos.push(asked.elapsed().as_nanos() as u64);
        }
        println!("{}", load::of_round_trips(nanos, REQUESTS, 1.0).figure);
    }
}

pub(crate) fn measure(run: &mut Run) {
    let rounds = if run.quick { 1 } else { 5 };
    let figures = |words: &[&str], count: usize| -> Vec<f64> {
        let child = Kid::start(words);
        let line = || child.line(Duration::from_mins(1)).and_then(|line| line.parse().ok());
        (0..count).map(|_| line().unwrap_or(f64::NAN)).collect()
    };
    let name = format!("size/request, one thread, {CONNECTIONS} connections");
    if run.wants(&name) {
        let told = figures(&["@size", "connections", &CONNECTIONS.to_string(), &rounds.to_string()], rounds * 2 + 1);
        let (few, many) = told[..rounds * 2].split_at(rounds);
        run.report.add(Row::new(name, "ns", many.to_vec(), few.to_vec()).beside("3 connections"));
        run.report.add(Row::new("size/idle connection, resident", "bytes", told[rounds * 2..].to_vec(), Vec::new()));
    }
    for count in PEERS {
        let name = format!("size/round trip, ipc, pinned, {count} peers");
        if !run.wants(&name) {
            continue;
        }
        let (mut many, mut one) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            for (count, rounds) in [(count, &mut many), (1, &mut one)] {
                let folder = run.new_folder();
                rounds.extend(figures(&["@size", "peers", &count.to_string(), "1", &folder], 1));
            }
        }
        run.report.add(Row::new(name, "us, p50", many, one).beside("1 peer"));
    }
}
