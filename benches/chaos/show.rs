//! `-- show`: what each promise of README.md comes to, one line each: what was done, what came of it, what was asked.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler};
use futures::future::join_all;
use rustix::process::Signal;
use vlmessaging::{Addr, Agent, Connection, Handled, Msg, RequestError, Router};

use crate::faults::{burden, signal};

/// What an agent that is too slow handles in each hundredth of a second. Default 10: a thousand a second.
const PORTION: usize = 10;
/// How long it is flooded. Default 5 s.
const FLOODED: Duration = Duration::from_secs(5);
/// What memory may rise by while it is. Default 16 MiB: a full mailbox of small messages (5 MiB) at the one, their tickets and a full link (4 MiB) at the other, and as much again.
const BOUND: f64 = 16.0 * 1024.0;

// ---- the other process ------------------------------------------------------------------------

/// Answers `ADD_ONE`; keeps what is called `KEEP`, unanswered, and `SLOW` until its turn comes; answers `COUNT` with how many of those there were.
#[derive(Default)]
struct Provider {
    kept: Vec<Msg>,
    waiting: VecDeque<Msg>,
    done: u64,
}

impl Actor for Provider {
    type Context = Context<Self>;
}

impl Agent for Provider {
    fn started(&mut self, _: Connection, ctx: &mut Context<Self>) {
        ctx.run_interval(Duration::from_millis(10), |this, _| {
            for msg in this.waiting.drain(..PORTION.min(this.waiting.len())) {
                this.done += 1;
                drop(msg.handled());
            }
        });
    }
}

impl Handler<Msg> for Provider {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        match msg.subject() {
            "ADD_ONE" => msg.answer(|n: i64| n + 1),
            "COUNT" => msg.reply((self.done, self.kept.len(), self.waiting.len())),
            "KEEP" => {
                let (handled, msg) = msg.later();
                self.kept.push(msg);
                handled
            }
            "SLOW" => {
                let (handled, msg) = msg.later();
                self.waiting.push_back(msg);
                handled
            }
            _ => msg.unhandled(),
        }
    }
}

/// Provides two agents, whose addresses it prints, until its input ends.
pub(crate) fn provide(dir: &Path) {
    actix::System::new().block_on(async move {
        let router = Router::machine().folder(dir).start().await.unwrap();
        let (one, other) = (router.spawn(Provider::default()), router.spawn(Provider::default()));
        println!("{} {}", one.addr().connection.unwrap(), other.addr().connection.unwrap());
        println!("{}", router.endpoints()[0].as_str());
        tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await.unwrap().unwrap();
        router.shutdown().await;
    });
}

struct Process {
    child: Child,
    one: Addr,
    other: Addr,
}

impl Process {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--provide", dir.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (numbers, endpoint) = (lines.next().unwrap(), lines.next().unwrap());
        let (one, other) = numbers.split_once(' ').unwrap();
        let at = |number: &str| Addr::at(endpoint.as_str().into(), number.parse().unwrap());
        Self { one: at(one), other: at(other), child }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// ---- the table --------------------------------------------------------------------------------

struct Table(bool);

impl Table {
    fn line(&mut self, what: &str, figure: &str, target: &str, is_met: bool) {
        println!("| {} | {what} | {figure} | {target} |", if is_met { "ok" } else { "FAIL" });
        self.0 &= is_met;
    }
}

/// Prints the table; false if a target was missed.
pub(crate) fn show(dir: &Path, vlm: &Path) -> bool {
    let mut table = Table(true);
    println!("| | what | figure | target |\n| --- | --- | --- | --- |");
    for over in ["ipc", "tcp", "tcp, to a peer that only dials"] {
        burst(&mut table, dir, vlm, over);
    }
    actix::System::new().block_on(async {
        let router = Router::machine().folder(dir).start().await.unwrap();
        let conn = router.connect();
        requests(&mut table, dir, &conn).await;
        killed(&mut table, dir, &conn).await;
        frozen(&mut table, dir, &conn).await;
        asleep(&mut table, dir, &conn).await;
        flooded(&mut table, dir, &router).await;
        nobody(&mut table, dir).await;
        router.shutdown().await;
    });
    table.0
}

/// A million messages from `vlm burst` to `vlm sink`.
fn burst(table: &mut Table, dir: &Path, vlm: &Path, over: &str) {
    const COUNT: &str = "1000000";
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hub = format!("tcp://127.0.0.1:{port}");
    let net = ["--no-hub", "--mode", "network", "--dir-vnet", "show"];
    let (listens, joins) = (["--net-listen", &hub], ["--net-hub", &hub]);
    let any = ["--net-listen", "tcp://127.0.0.1:0"];
    // Over TCP each has a folder of its own, so that no unix socket leads from one to the other.
    let folder = |name: &str| -> PathBuf {
        let folder = dir.join(if over == "ipc" { "burst" } else { name });
        std::fs::create_dir_all(&folder).unwrap();
        folder
    };
    let command = |name: &str| {
        let mut command = Command::new(vlm);
        command.args([name, "--json", "--service", "Sink", "--folder"]).arg(folder(name));
        command
    };
    let (mut sink, mut burst) = (command("sink"), command("burst"));
    match over {
        "ipc" => {}
        "tcp" => {
            sink.args(net).args(["--vnet", "show"]).args(listens);
            burst.args(net).args(joins).args(any);
        }
        _ => {
            sink.args(net).args(["--vnet", "show"]).args(joins);
            burst.args(net).args(listens);
        }
    }
    let sink = sink.args(["--seconds", "60", "--expect", COUNT]).stdout(Stdio::piped()).spawn().unwrap();
    let fired = burst.args(["--lookup-ms", "10000", "--expect-all", "--count", COUNT]).output().unwrap();
    let (fired, sunk) = (fired.stdout, sink.wait_with_output().unwrap().stdout);
    let read = |text: &[u8]| -> serde_json::Value {
        let last = String::from_utf8_lossy(text).lines().last().unwrap_or("null").to_string();
        serde_json::from_str(&last).unwrap_or_default()
    };
    let (fired, sunk) = (read(&fired), read(&sunk));
    let figure = format!(
        "{} sent, {} arrived in {} s, {} out of order, {} twice, {} told lost",
        fired["sent"],
        sunk["count"],
        fired["flushed_seconds"],
        sunk["out_of_order"],
        sunk["duplicates"],
        fired["not_delivered"]
    );
    let is_met =
        fired["ok"] == true && sunk["count"] == 1_000_000 && sunk["out_of_order"] == 0 && sunk["duplicates"] == 0;
    table.line(
        &format!("`vlm burst` of 1,000,000 to `vlm sink`, {over}"),
        &figure,
        "all, in order, none twice",
        is_met,
    );
}

async fn requests(table: &mut Table, dir: &Path, conn: &Connection) {
    let provider = Process::start(dir);
    let began = Instant::now();
    let asked = (0..10_000_i64).map(|n| conn.request(&provider.one, "ADD_ONE", n, Duration::from_secs(30)));
    let replies = join_all(asked).await;
    let took = began.elapsed();
    let right = replies.iter().enumerate().filter(|(n, reply)| {
        reply.as_ref().is_ok_and(|reply| reply.contents::<i64>().is_ok_and(|answer| answer == *n as i64 + 1))
    });
    let right = right.count();
    table.line(
        "10,000 requests at once, ipc",
        &format!("{right} right answers in {took:.2?}"),
        "10,000",
        right == 10_000,
    );
}

/// Asks what is never answered, a thousand times; when each was told, after something was done to the process.
async fn told(conn: &Connection, provider: &Process, done: impl FnOnce()) -> Vec<(Duration, RequestError)> {
    let happened = Rc::new(Cell::new(Instant::now()));
    let asked: Vec<_> = (0..1000_i64)
        .map(|n| {
            let (conn, to, happened) = (conn.clone(), provider.one.clone(), happened.clone());
            actix::spawn(async move {
                let failed = conn.request(to, "KEEP", n, Duration::from_secs(30)).await.err();
                failed.map(|error| (happened.get().elapsed(), error))
            })
        })
        .collect();
    while conn
        .request(&provider.one, "COUNT", (), Duration::from_secs(5))
        .await
        .map_or(0, |reply| reply.contents::<(u64, usize, usize)>().unwrap().1)
        < 1000
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    happened.set(Instant::now());
    done();
    let mut told: Vec<_> = join_all(asked).await.into_iter().filter_map(Result::unwrap).collect();
    told.sort_by_key(|told| told.0);
    told
}

fn named(told: &[(Duration, RequestError)]) -> usize {
    told.iter().filter(|(_, error)| matches!(error, RequestError::NotDelivered(_) | RequestError::NotSent(_))).count()
}

async fn killed(table: &mut Table, dir: &Path, conn: &Connection) {
    let provider = Process::start(dir);
    let told = told(conn, &provider, || signal(&provider.child, Signal::KILL)).await;
    let (named, p99) = (named(&told), told.get(989).map_or(Duration::MAX, |told| told.0));
    let figure = format!("{named} told by name, p99 {p99:.2?} after the kill");
    let is_met = named == 1000 && p99 <= Duration::from_millis(50);
    table.line("kill -9 of a provider, 1,000 requests in flight, ipc", &figure, "1,000, p99 50 ms", is_met);
}

async fn frozen(table: &mut Table, dir: &Path, conn: &Connection) {
    let provider = Process::start(dir);
    let told = told(conn, &provider, || signal(&provider.child, Signal::STOP)).await;
    let (named, last) = (named(&told), told.last().map_or(Duration::MAX, |told| told.0));
    let figure = format!("{named} told by name, the last after {last:.2?}");
    table.line("SIGSTOP of it", &figure, "1,000, 4.5 s", named == 1000 && last <= Duration::from_millis(4500));
}

async fn asleep(table: &mut Table, dir: &Path, conn: &Connection) {
    let provider = Process::start(dir);
    let began = Instant::now();
    let mut asked = Vec::new();
    let mut is_stopped = false;
    while began.elapsed() < Duration::from_secs(4) {
        let should = (1..3).contains(&began.elapsed().as_secs());
        if should != is_stopped {
            signal(&provider.child, if should { Signal::STOP } else { Signal::CONT });
            is_stopped = should;
        }
        let (conn, to) = (conn.clone(), provider.one.clone());
        asked.push(actix::spawn(async move { conn.request(to, "ADD_ONE", 1, Duration::from_secs(10)).await.is_ok() }));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let replies = join_all(asked).await;
    let (all, lost) = (replies.len(), replies.iter().filter(|reply| !matches!(reply, Ok(true))).count());
    let figure = format!("{} of {all} requests answered", all - lost);
    table.line(
        "SIGSTOP for 2 s, requests all the while",
        &figure,
        "all: nothing lost, nobody declared dead",
        lost == 0,
    );
}

async fn flooded(table: &mut Table, dir: &Path, router: &Router) {
    let provider = Process::start(dir);
    let (flood, conn) = (router.connect(), router.connect());
    let (reports, times, over) =
        (Rc::new(Cell::new(0_u64)), Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
    let (listener, counted) = (flood.clone(), reports.clone());
    let listening = actix::spawn(async move {
        loop {
            listener.not_delivered().await;
            counted.set(counted.get() + 1);
        }
    });
    let (to, lines, ends) = (provider.other.clone(), times.clone(), over.clone());
    let asking = actix::spawn(async move {
        while !ends.get() {
            let since = Instant::now();
            conn.request(&to, "ADD_ONE", 1, Duration::from_secs(10)).await.unwrap();
            lines.borrow_mut().push(since.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let own = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4.0
    };
    let before = (own(), burden(&provider.child).0);
    let (mut taken, mut back, mut most) = (0_u64, 0_u64, (0.0_f64, 0.0_f64));
    let began = Instant::now();
    while began.elapsed() < FLOODED {
        for n in 0..50_i64 {
            match flood.try_send(&provider.one, "SLOW", n) {
                Ok(_) => taken += 1,
                Err(_) => back += 1,
            }
        }
        if back % 5000 < 50 {
            most = (most.0.max(own() - before.0), most.1.max(burden(&provider.child).0 - before.1));
        }
        tokio::task::yield_now().await;
    }
    over.set(true);
    asking.await.unwrap();
    // What was taken is handled in its turn, or told.
    let until = Instant::now() + Duration::from_secs(30);
    let mut handled = 0;
    while handled + reports.get() < taken && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let count = flood.request(&provider.one, "COUNT", (), Duration::from_secs(5)).await.unwrap();
        handled = count.contents::<(u64, usize, usize)>().unwrap().0;
    }
    listening.abort();
    let mut times = times.take();
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    let figure = format!(
        "{} tried: {handled} handled, {back} handed back, {} reported; memory +{:.1} and +{:.1} MiB; the other agent's p99 {p99:.2?}",
        taken + back,
        reports.get(),
        most.0 / 1024.0,
        most.1 / 1024.0
    );
    let is_met =
        handled + reports.get() == taken && most.0 < BOUND && most.1 < BOUND && p99 < Duration::from_millis(20);
    table.line(
        "`try_send` at full speed to an agent that handles 1,000 a second, 5 s",
        &figure,
        "each handled or told, at most +16 MiB, p99 20 ms",
        is_met,
    );
}

async fn nobody(table: &mut Table, dir: &Path) {
    let router = Router::network().folder(dir).without_hub().start().await.unwrap();
    let conn = router.connect();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for endpoint in [format!("ipc://{}/nobody", dir.display()), format!("tcp://127.0.0.1:{port}")] {
        let since = Instant::now();
        let failed = conn.request(Addr::at(endpoint.as_str().into(), 3), "ADD_ONE", 1, Duration::from_secs(10)).await;
        let took = since.elapsed();
        let text = failed.err().map_or("answered".into(), |error| error.to_string());
        let is_met = text.contains("dial failed") && took <= Duration::from_secs(2);
        let scheme = endpoint.split(':').next().unwrap();
        let figure = if is_met { "`dial failed`".into() } else { text };
        table.line(
            &format!("a request to nobody, {scheme}"),
            &format!("{figure} after {took:.2?}"),
            "`dial failed`, 2 s",
            is_met,
        );
    }
    router.shutdown().await;
}
