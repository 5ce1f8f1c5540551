//! One process: an agent beside a plain actix actor, on the same arbiter and on another.

use std::time::{Duration, Instant};

use actix::{Actor, Arbiter, ArbiterHandle, Context, Handler, Message};
use futures::future::join_all;
use vlmessaging::{Addr, Agent, Connection, Handled, Limits, Msg, Router};

use crate::kid::Kid;
use crate::load;
use crate::report::Row;
use crate::{Run, load::PATIENCE};

/// Messages one way before the one request that waits until they are handled: below our bound, so that nobody waits for room; actix's `do_send` has none.
pub(crate) const BURST: i64 = 1_000;
const ROUNDS: usize = 7;

struct Plain;

impl Actor for Plain {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(Limits::default().mailbox);
    }
}

#[derive(Message)]
#[rtype(result = "i64")]
struct AddOne(i64);

impl Handler<AddOne> for Plain {
    type Result = i64;

    fn handle(&mut self, AddOne(number): AddOne, _: &mut Context<Self>) -> i64 {
        number + 1
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Note(i64);

impl Handler<Note> for Plain {
    type Result = ();

    fn handle(&mut self, Note(number): Note, _: &mut Context<Self>) {
        std::hint::black_box(number);
    }
}

struct Ours;

impl Actor for Ours {
    type Context = Context<Self>;
}

impl Agent for Ours {}

impl Handler<Msg> for Ours {
    type Result = Handled;

    fn handle(&mut self, mut msg: Msg, _: &mut Context<Self>) -> Handled {
        match msg.subject() {
            "ADD_ONE" => msg.answer(|number: i64| number + 1),
            "NOTE" => {
                std::hint::black_box(msg.take_contents::<i64>()).expect("a number");
                msg.handled()
            }
            _ => msg.unhandled(),
        }
    }
}

/// Both, ready to be asked.
pub(crate) struct Sides {
    plain: actix::Addr<Plain>,
    conn: Connection,
    ours: Addr,
    router: Router,
}

impl Sides {
    /// With a router of one process, or of one machine, whose addresses name it.
    pub(crate) async fn start(machine: bool, thread: &ArbiterHandle) -> Self {
        let builder = if machine {
            let folder = std::env::temp_dir().join(format!("vlm-floors-{}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a folder for the socket");
            Router::machine().folder(folder).without_hub()
        } else {
            Router::local()
        };
        let router = builder.start().await.expect("a router");
        let plain = Plain::start_in_arbiter(thread, |_| Plain);
        let ours = router.spawn_on(thread, || Ours).addr();
        Self { plain, conn: router.connect(), ours, router }
    }

    pub(crate) fn connect(&self) -> Connection {
        self.router.connect()
    }

    pub(crate) async fn ask_plain(&self, number: i64) {
        assert_eq!(self.plain.send(AddOne(number)).await.ok(), Some(number + 1));
    }

    pub(crate) async fn ask_ours(&self, number: i64) {
        let mut answer = self.conn.request(&self.ours, "ADD_ONE", number, PATIENCE).await.expect("an answer");
        assert_eq!(answer.take_contents::<i64>().ok(), Some(number + 1));
    }

    /// [`BURST`] one way, and waits until they are handled.
    pub(crate) async fn tell_plain(&self) {
        (0..BURST).for_each(|number| self.plain.do_send(Note(number)));
        self.ask_plain(0).await;
    }

    /// The same with a bound and a known outcome, as ours has: actix has it for those who wait.
    pub(crate) async fn tell_plain_and_know(&self) {
        let told = join_all((0..BURST).map(|number| self.plain.send(Note(number)))).await;
        assert!(told.iter().all(Result::is_ok), "all are handled");
    }

    pub(crate) async fn tell_ours(&self) {
        for number in 0..BURST {
            self.conn.send(&self.ours, "NOTE", number).await.expect("room");
        }
        self.ask_ours(0).await;
    }

    /// Nanoseconds per operation in one round: asked plainly, asked ours, told plainly, told plainly with a known outcome, told ours.
    async fn round(&self, count: i64) -> [f64; 5] {
        let began = Instant::now();
        for number in 0..count {
            self.ask_plain(number).await;
        }
        let asked_plain = per(began, count);
        let began = Instant::now();
        for number in 0..count {
            self.ask_ours(number).await;
        }
        let asked_ours = per(began, count);
        let bursts = (count / BURST).max(1);
        let began = Instant::now();
        for _ in 0..bursts {
            self.tell_plain().await;
        }
        let told_plain = per(began, bursts * BURST);
        let began = Instant::now();
        for _ in 0..bursts {
            self.tell_plain_and_know().await;
        }
        let known_plain = per(began, bursts * BURST);
        let began = Instant::now();
        for _ in 0..bursts {
            self.tell_ours().await;
        }
        [asked_plain, asked_ours, told_plain, known_plain, per(began, bursts * BURST)]
    }
}

fn per(began: Instant, count: i64) -> f64 {
    began.elapsed().as_nanos() as f64 / count as f64
}

/// A process of its own: a `local` or `machine` router, `one` or `two` threads, `pinned` or `anywhere`, so many operations a round.
pub(crate) fn child(words: &[&str]) {
    let [router, threads, placed, count, rounds] = *words else { panic!("five words") };
    if placed == "pinned" {
        load::pin();
    }
    let (count, rounds): (i64, usize) = (count.parse().expect("a count"), rounds.parse().expect("rounds"));
    actix::System::new().block_on(async {
        let thread = if threads == "two" { Arbiter::new().handle() } else { Arbiter::current() };
        let sides = Sides::start(router == "machine", &thread).await;
        sides.round(count).await;
        for _ in 0..rounds {
            println!("{}", serde_json::to_string(&sides.round(count).await).expect("numbers"));
        }
    });
    std::process::exit(0);
}

pub(crate) fn measure(run: &mut Run) {
    for (title, router, threads, placed, full) in [
        ("one thread", "local", "one", "anywhere", 100_000),
        ("one thread, machine router", "machine", "one", "anywhere", 100_000),
        ("two threads, pinned", "local", "two", "pinned", 20_000),
        ("two threads", "local", "two", "anywhere", 20_000),
    ] {
        let asked = format!("in process/request, {title}");
        let told = format!("in process/one way, {title}");
        if !run.wants(&asked) && !run.wants(&told) {
            continue;
        }
        let (count, rounds) = (run.count(full).to_string(), if run.quick { 5 } else { ROUNDS });
        let child = Kid::start(&["@in-process", router, threads, placed, &count, &rounds.to_string()]);
        let mut columns: [Vec<f64>; 5] = Default::default();
        for _ in 0..rounds {
            let line = child.line(Duration::from_mins(1)).expect("a round within a minute");
            let round: [f64; 5] = serde_json::from_str(&line).expect("five numbers");
            columns.iter_mut().zip(round).for_each(|(column, figure)| column.push(figure));
        }
        let [asked_plain, asked_ours, told_plain, known_plain, told_ours] = columns;
        run.report.add(Row::new(asked, "ns", asked_ours, asked_plain).beside("actix Addr::send"));
        let known = Row::new(format!("{told}, outcome known"), "ns", told_ours.clone(), known_plain);
        run.report.add(Row::new(told, "ns", told_ours, told_plain).beside("actix do_send"));
        run.report.add(known.beside("actix Addr::send, awaited together"));
    }
}
