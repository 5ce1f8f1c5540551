//! This library under the workloads of the others: two processes (W1 to W4), one process (L1 to L4). Says its result as they do.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Arbiter, ArbiterHandle, Context, Handler};
use serde_json::{Map, Value, json};
use vlmessaging::{Addr, Agent, Connection, Endpoint, Handled, Msg, Router, RouterBuilder};

use crate::kid::{Kid, serve};
use crate::load::{Outcome, PATIENCE, Tally, body, cpu_micros};
use crate::scaled;

/// What a request of W1's second form carries beside its number.
const TEXT: &str = "abcdefghijklmnopqrstuvwxyz-0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Requests at once in W2.
const WINDOW: usize = 1_000;
/// Messages between two barriers in L2.
const BURST: i64 = 1_000;

#[derive(Default)]
struct Provider {
    tally: Arc<Tally>,
    seen: i64,
}

impl Actor for Provider {
    type Context = Context<Self>;
}

impl Agent for Provider {}

impl Handler<Msg> for Provider {
    type Result = Handled;

    fn handle(&mut self, mut msg: Msg, _: &mut Context<Self>) -> Handled {
        match msg.subject() {
            "ADD_ONE" => msg.answer(|number: i64| number + 1),
            "ADD_ONE_TEXT" => msg.answer(|(number, text): (i64, String)| (number + 1, text)),
            "EVENT" => {
                self.tally.arrived(&msg.take_contents::<String>().expect("a text"));
                msg.handled()
            }
            "TELL" => {
                self.seen += i64::from(msg.take_contents::<i64>().is_ok());
                msg.handled()
            }
            "SEEN" => msg.reply(self.seen),
            _ => msg.unhandled(),
        }
    }
}

fn builder(over: &str, folder: &str) -> RouterBuilder {
    match over {
        "ipc" => Router::machine(),
        "tcp" => Router::network().listen("tcp://127.0.0.1:0"),
        _ => panic!("over what: {over}"),
    }
    .without_hub()
    .folder(folder)
}

pub(crate) fn server(words: &[&str]) {
    let [over, folder] = *words else { panic!("over and folder") };
    let tally = Arc::new(Tally::default());
    let (told, started) = std::sync::mpsc::channel();
    let (provider, over, folder) = (Provider { tally: tally.clone(), seen: 0 }, over.to_owned(), folder.to_owned());
    std::thread::spawn(move || {
        actix::System::new().block_on(async move {
            let router = builder(&over, &folder).start().await.expect("a router");
            let number = router.spawn(provider).addr().connection.unwrap_or_default();
            let Addr { net, machine, .. } = router.net_addr(number);
            told.send(format!("{} {number}", net.or(machine).expect("an endpoint"))).expect("somebody to tell");
            router.stopped().await;
        });
    });
    serve(&started.recv().expect("a router"), &tally);
}

/// The program that is measured: `ipc`, `tcp` or `local`.
pub(crate) fn client(variant: &str) {
    let variant = variant.to_owned();
    let result = actix::System::new().block_on(async {
        if variant == "local" {
            return in_process().await;
        }
        // A task of the arbiter, as every agent's requests are.
        actix::spawn(async move { two_processes(&variant).await }).await.expect("a task that does not panic")
    });
    println!("RESULT {}", Value::Object(result));
    std::process::exit(0);
}

/// A server process of its own, and the way to it.
struct Way {
    server: Kid,
    to: Addr,
    conn: Connection,
    _router: Router,
}

impl Way {
    async fn to(over: &str, folder: &str) -> Self {
        let server = Kid::start(&["@server", over, folder]);
        let ready = server.ready();
        let (endpoint, number) = ready.split_once(' ').expect("endpoint and number");
        let to = Addr::at(Endpoint::new(endpoint), number.parse().expect("a number"));
        let router = builder(over, folder).start().await.expect("a router");
        let conn = router.connect();
        Self { server, to, conn, _router: router }
    }

    fn cpu(&self) -> f64 {
        cpu_micros(std::process::id()) + cpu_micros(self.server.id())
    }
}

async fn two_processes(over: &str) -> Map<String, Value> {
    let mut result = Map::new();
    let folder = crate::folder();
    let way = Way::to(over, &folder).await;
    for (key, text) in [("w1", false), ("w1s", true)] {
        result.insert(key.into(), sequential(&way, text).await);
    }
    result.insert("w2".into(), pipelined(&way).await);
    drop(way);
    for (key, count, size) in [("w3", 200_000, 64), ("w4", 20_000, 16 << 10)] {
        // The counts of each are a server's own.
        let mut way = Way::to(over, &folder).await;
        result.insert(key.into(), one_way(&mut way, scaled(count), size).await);
    }
    result
}

async fn ask(conn: &Connection, to: &Addr, number: i64) -> bool {
    let answer = conn.request(to, "ADD_ONE", number, PATIENCE).await;
    answer.is_ok_and(|mut answer| answer.take_contents::<i64>().is_ok_and(|answer| answer == number + 1))
}

async fn ask_text(conn: &Connection, to: &Addr, number: i64) -> bool {
    let answer = conn.request(to, "ADD_ONE_TEXT", (number, TEXT.to_owned()), PATIENCE).await;
    let is_right = |answer: (i64, String)| answer.0 == number + 1 && answer.1 == TEXT;
    answer.is_ok_and(|mut answer| answer.take_contents().is_ok_and(is_right))
}

async fn sequential(way: &Way, text: bool) -> Value {
    let (warm_up, count) = (scaled(1_000), scaled(20_000));
    let (mut nanos, mut failed, mut cpu) = (Vec::with_capacity(count), 0, 0.0);
    for number in 0..warm_up + count {
        if number == warm_up {
            cpu = way.cpu();
        }
        let asked = Instant::now();
        let is_right = if text {
            ask_text(&way.conn, &way.to, number as i64).await
        } else {
            ask(&way.conn, &way.to, number as i64).await
        };
        let took = asked.elapsed().as_nanos() as f64 / 1e3;
        if !is_right {
            failed += 1;
        } else if number >= warm_up {
            nanos.push(took);
        }
    }
    let cpu = (way.cpu() - cpu) / count as f64;
    nanos.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| nanos.get((nanos.len().saturating_sub(1) as f64 * part) as usize);
    json!({ "n": nanos.len(), "failed": failed, "p50_us": at(0.5), "p99_us": at(0.99), "cpu_us_per_op": cpu })
}

async fn pipelined(way: &Way) -> Value {
    let count = scaled(100_000);
    let (asked, answered) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (cpu, began) = (way.cpu(), Instant::now());
    let tasks: Vec<_> = (0..WINDOW)
        .map(|_| {
            let (conn, to, asked, answered) = (way.conn.clone(), way.to.clone(), asked.clone(), answered.clone());
            actix::spawn(async move {
                while asked.get() < count {
                    let number = asked.replace(asked.get() + 1);
                    let is_right = ask(&conn, &to, number as i64).await;
                    answered.set(answered.get() + usize::from(is_right));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task that does not panic");
    }
    let (seconds, answered) = (began.elapsed().as_secs_f64(), answered.get());
    json!({
        "issued": count, "answered": answered, "unanswered": count - answered, "seconds": seconds,
        "req_per_s": answered as f64 / seconds, "cpu_us_per_op": (way.cpu() - cpu) / count as f64,
    })
}

async fn one_way(way: &mut Way, count: usize, size: usize) -> Value {
    let cpu = way.cpu();
    for number in 0..count {
        if let Err(error) = way.conn.send(&way.to, "EVENT", body(number, size)).await {
            eprintln!("not sent: {error}");
        }
    }
    let told = way.server.ask(&format!("wait {count}"), PATIENCE * 3).expect("the server counts");
    let Outcome { figure, good, disordered, .. } = serde_json::from_str(&told).expect("an outcome");
    json!({
        "sent": count, "received": good, "lost": count as u64 - good, "reordered": disordered, "msgs_per_s": figure,
        "mb_per_s": figure * size as f64 / 1e6, "cpu_us_per_op": (way.cpu() - cpu) / count as f64,
    })
}

async fn in_process() -> Map<String, Value> {
    let mut result = Map::new();
    let (conn, to, _router) = beside(&Arbiter::current()).await;
    let count = scaled(1_000_000);
    let began = Instant::now();
    for number in 0..count {
        assert!(ask(&conn, &to, number as i64).await, "a right answer");
    }
    result.insert("l1".into(), json!({ "ns": began.elapsed().as_nanos() as f64 / count as f64 }));
    result.insert("l2".into(), told(&conn, &to, scaled(2_000_000) as i64, BURST).await);
    let (conn, to, _router) = beside(&Arbiter::new().handle()).await;
    let mut micros = Vec::new();
    for number in 0..scaled(50_000) {
        let asked = Instant::now();
        assert!(ask(&conn, &to, number as i64).await, "a right answer");
        micros.push(asked.elapsed().as_nanos() as f64 / 1e3);
    }
    micros.sort_unstable_by(f64::total_cmp);
    result
        .insert("l3".into(), json!({ "p50_us": micros[micros.len() / 2], "p99_us": micros[micros.len() * 99 / 100] }));
    let count = scaled(2_000_000) as i64;
    result.insert("l4".into(), told(&conn, &to, count, count).await);
    result
}

/// A router of one process with the provider on `thread`.
async fn beside(thread: &ArbiterHandle) -> (Connection, Addr, Router) {
    let router = Router::local().start().await.expect("a router");
    let to = router.spawn_on(thread, Provider::default).addr();
    (router.connect(), to, router)
}

/// One way, with a request as a barrier after every `burst`; the mailbox is bounded, so a sender waits for room.
async fn told(conn: &Connection, to: &Addr, count: i64, burst: i64) -> Value {
    let began = Instant::now();
    let mut number = 0;
    while number < count {
        for _ in 0..burst.min(count - number) {
            conn.send(to, "TELL", number).await.expect("room");
            number += 1;
        }
        assert!(ask(conn, to, 0).await, "a right answer");
    }
    let nanos = began.elapsed().as_nanos() as f64 / count as f64;
    let seen: i64 = conn.request(to, "SEEN", (), PATIENCE).await.expect("an answer").contents().expect("a number");
    assert_eq!(seen, count, "none is lost");
    json!({ "ns": nanos })
}
