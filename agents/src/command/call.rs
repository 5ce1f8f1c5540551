//! `vlm call`: requests, one or many, to a service's nearest provider or to an address.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler};
use clap::Args;
use serde::Serialize;
use vlmessaging::{Addr, Agent, Connection, Contents, Element, Handled, IntoContents, Msg, Router, Value};

use super::progress::Progress;
use super::target::{self, LOOKUP};
use crate::outcome::{Exit, Failure, print, print_json};
use crate::place::{self, Place};
use crate::signals::Stop;
use crate::text::{Typed, json_of, shown};

/// Round trips that are remembered for their distribution. Default a million: 16 MB; later ones are counted only.
const TIMES: usize = 1_000_000;
/// Subjects of what nobody waited for that are counted. Default 100: a call has one of its own.
const SUBJECTS: usize = 100;
/// A wrong answer is shown as far as this many characters. Default 200.
const SHOWN: usize = 200;

const SERVICE: &str = "AddOneAgent";
const SUBJECT: &str = "ADD_ONE";

/// Send a request and print the answer, once or many times
#[derive(Args)]
#[command(
    override_usage = "vlm call [OPTIONS] [SERVICE [SUBJECT [CONTENTS]]]\n       vlm call [OPTIONS] --addr <ADDR> [SUBJECT [CONTENTS]]"
)]
pub(crate) struct Call {
    /// Service, subject, and contents as JSON or Ion text. Without: AddOneAgent, ADD_ONE, and numbers from 0 up; other
    /// subjects carry null
    #[arg(value_names = ["SERVICE", "SUBJECT", "CONTENTS"], num_args = 0..=3, allow_negative_numbers = true)]
    what: Vec<String>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Call this address, without looking anybody up: tcp|ipc|number
    #[arg(long, value_parser = place::read_addr, allow_hyphen_values = true)]
    addr: Option<Addr>,
    /// The service, if not the first argument
    #[arg(long, conflicts_with = "addr")]
    service: Option<String>,
    /// The subject, if not an argument
    #[arg(long)]
    subject: Option<String>,
    /// Send these contents (JSON or Ion text) with subject ECHO; the answer must equal them
    #[arg(long, value_name = "CONTENTS", allow_hyphen_values = true, conflicts_with = "subject")]
    echo: Option<String>,
    /// Wait so long for a provider
    #[arg(long, default_value = LOOKUP, value_parser = place::read_millis)]
    lookup_ms: Duration,
    /// How many requests
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Requests on their way at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    concurrency: u64,
    /// Wait so long for each answer
    #[arg(long, default_value = "1000", value_parser = place::read_millis)]
    timeout_ms: Duration,
    /// Pause after each request
    #[arg(long, default_value = "0", value_parser = place::read_millis)]
    pause_ms: Duration,
    /// Requests that may be lost before counting starts: at most this many tries for a first answer
    #[arg(long, default_value_t = 0)]
    warmup: u64,
    /// Requests without an answer that are still ok
    #[arg(long, default_value_t = 0)]
    allow_lost: u64,
    /// Keep calling for so long instead of --count times
    #[arg(long, value_parser = place::read_seconds)]
    seconds: Option<Duration>,
}

/// The result, as it is printed in JSON.
#[derive(Serialize)]
struct Called {
    program: &'static str,
    ok: bool,
    addr: Option<Addr>,
    lookup_ms: Option<f64>,
    found: Option<usize>,
    sent: u64,
    answered: u64,
    wrong: u64,
    lost: u64,
    /// Why those are lost.
    timed_out: u64,
    not_delivered: u64,
    not_understood: u64,
    rtt_ms: Option<Times>,
    warmup_tries: Option<u64>,
    /// What came that no request waited for, by subject: late answers, above all.
    extras: BTreeMap<String, u64>,
    /// The last answer; null also where JSON cannot hold it.
    reply: Option<Value>,
    /// The last answer as Ion text.
    reply_ion: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    example_wrong: Option<String>,
    #[serde(skip)]
    shown: Option<String>,
    closed: bool,
    stats: serde_json::Value,
    #[serde(flatten)]
    failure: Option<Failure>,
}

/// The agent that requests come from. It counts what comes that no request waits for.
#[derive(Clone, Default)]
struct Strays(Rc<RefCell<BTreeMap<String, u64>>>);

impl Actor for Strays {
    type Context = Context<Self>;
}

impl Agent for Strays {}

impl Handler<Msg> for Strays {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        let mut strays = self.0.borrow_mut();
        if strays.len() < SUBJECTS || strays.contains_key(msg.subject()) {
            *strays.entry(msg.subject().into()).or_default() += 1;
        }
        msg.unhandled()
    }
}

/// Round trips in milliseconds.
#[derive(Clone, Serialize)]
pub(crate) struct Times {
    min: f64,
    median: f64,
    p99: f64,
    max: f64,
}

/// What is sent, and what must come back.
struct Request {
    subject: String,
    carries: Carries,
}

enum Carries {
    /// As typed.
    Given(Typed),
    /// As typed, and the same must come back.
    Echo(Typed, Element),
    /// The number of the request; the next number must come back.
    Counted,
    Nothing,
}

/// Requests in progress, and how they ended.
struct Job {
    conn: Connection,
    to: Addr,
    request: Request,
    timeout: Duration,
    pause: Duration,
    count: u64,
    end: Cell<Option<Instant>>,
    next: Cell<u64>,
    tally: RefCell<Tally>,
    stop: Stop,
}

#[derive(Default)]
struct Tally {
    sent: u64,
    answered: u64,
    wrong: u64,
    timed_out: u64,
    not_delivered: u64,
    not_understood: u64,
    times: Vec<Duration>,
    reply: Option<Contents>,
    example_wrong: Option<String>,
    failure: Option<Failure>,
}

impl Call {
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let stop = Stop::on_signals()?;
        let (service, request) = self.request()?;
        let router = self.place.guest(self.addr.as_ref()).start().await?;
        let since = Instant::now();
        let strays = Strays::default();
        let conn = router.spawn(strays.clone()).connection();
        let found = match &self.addr {
            Some(addr) => Ok((addr.clone(), None)),
            None => self.look_up(&router, &conn, &service, &stop).await,
        };
        let lookup_ms = self.addr.is_none().then(|| millis(since.elapsed()));
        let (to, found, failure) = match found {
            Ok((to, found)) => (Some(to), found, None),
            Err(failure) => (None, Some(0), Some(failure)),
        };
        let (tally, warmup_tries) = match &to {
            Some(to) => self.call(conn, to.clone(), request, &stop).await,
            None => (Tally { failure, ..Tally::default() }, None),
        };
        let stats = place::stats(router.stats());
        let closed = place::close(&router).await;
        let called = tally.result(
            self.allow_lost,
            Called {
                program: "vlm call",
                addr: to,
                lookup_ms,
                found,
                warmup_tries,
                extras: strays.0.take(),
                closed,
                stats,
                ..Called::nothing()
            },
        );
        Ok(self.tell(&called))
    }

    /// The service, and the request, from arguments and options.
    fn request(&self) -> Result<(String, Request), Failure> {
        let mut what = self.what.iter().cloned();
        let service = match &self.service {
            Some(service) => service.clone(),
            None if self.addr.is_some() => String::new(),
            None => what.next().unwrap_or_else(|| SERVICE.into()),
        };
        let subject = match (&self.echo, &self.subject) {
            (Some(_), _) => "ECHO".into(),
            (None, Some(subject)) => subject.clone(),
            (None, None) => what.next().unwrap_or_else(|| SUBJECT.into()),
        };
        let carries = match (&self.echo, what.next()) {
            (Some(text), None) => {
                let typed = Typed::read(text)?;
                let element = typed.contents().and_then(|contents| contents.element());
                Carries::Echo(typed, element.map_err(|error| Failure::usage(error.to_string()))?)
            }
            (None, Some(text)) => Carries::Given(Typed::read(&text)?),
            (None, None) if subject == SUBJECT => Carries::Counted,
            (None, None) => Carries::Nothing,
            (Some(_), Some(_)) => return Err(Failure::usage("--echo has the contents already")),
        };
        match what.next() {
            None => Ok((service, Request { subject, carries })),
            Some(more) => Err(Failure::usage(format!("{more:?} is one argument too many"))
                .next("with --addr or --service the arguments are: SUBJECT CONTENTS")),
        }
    }

    async fn look_up(
        &self,
        router: &Router,
        conn: &Connection,
        service: &str,
        stop: &Stop,
    ) -> Result<(Addr, Option<usize>), Failure> {
        let waited = Instant::now();
        let name = service.to_string();
        let _progress = Progress::show(move || format!("looking for {name:?} since {:.0?}", waited.elapsed()));
        let found = target::providers(router, conn, service, self.lookup_ms, stop).await?;
        let nearest = found.first().map(Addr::from);
        let gone = || Failure::new(Exit::NotFound, format!("who provided {service:?} has just gone"));
        Ok((nearest.ok_or_else(gone)?, Some(found.len())))
    }

    async fn call(&self, conn: Connection, to: Addr, request: Request, stop: &Stop) -> (Tally, Option<u64>) {
        let job = Rc::new(Job {
            conn,
            to,
            request,
            timeout: self.timeout_ms,
            pause: self.pause_ms,
            count: self.count,
            end: Cell::default(),
            next: Cell::new(0),
            tally: RefCell::default(),
            stop: stop.clone(),
        });
        let mut warmup_tries = None;
        for tries in 1..=self.warmup {
            warmup_tries = Some(tries);
            if stop.is_asked() || matches!(stop.or(job.ask(0)).await, Some(Ok(_))) {
                break;
            }
        }
        job.end.set(self.seconds.map(|seconds| Instant::now() + seconds));
        let watched = job.clone();
        let progress = Progress::show(move || watched.progress());
        let workers = if self.seconds.is_some() { self.concurrency } else { self.concurrency.min(self.count) };
        let workers: Vec<_> = (0..workers).map(|_| actix::spawn(job.clone().work())).collect();
        for worker in workers {
            if worker.await.is_err() {
                eprintln!("vlm: a request ended in a panic");
            }
        }
        drop(progress);
        (job.tally.take(), warmup_tries)
    }

    fn tell(&self, called: &Called) -> Exit {
        if self.place.json {
            print_json(called);
        } else {
            self.tell_people(called);
        }
        match &called.failure {
            _ if called.ok => Exit::Ok,
            Some(failure) => failure.exit,
            None => Exit::Failed,
        }
    }

    fn tell_people(&self, called: &Called) {
        if self.count == 1 && self.seconds.is_none() {
            if let Some(reply) = &called.shown {
                print(reply);
            }
        } else if called.addr.is_some() {
            let Called { sent, answered, wrong, lost, .. } = called;
            let times = called.rtt_ms.as_ref().map_or(String::new(), |times| format!("; {times}"));
            print(&format!("{sent} sent, {answered} answered, {wrong} wrong, {lost} lost{times}"));
        }
        if let Some(failure) = &called.failure {
            failure.tell(called.program, false);
        }
        if let Some(wrong) = &called.example_wrong {
            eprintln!("vlm: a wrong answer was {wrong}");
        }
    }
}

impl Job {
    async fn work(self: Rc<Self>) {
        while let Some(index) = self.take() {
            let since = Instant::now();
            let Some(answer) = self.stop.or(self.ask(index)).await else { return };
            self.tally.borrow_mut().count(&self.request.carries, index, since.elapsed(), answer);
            if !self.pause.is_zero() {
                // Asked to end or not, the pause is over.
                let _ = self.stop.or(tokio::time::sleep(self.pause)).await;
            }
        }
    }

    /// The number of the next request, if there is to be one.
    fn take(&self) -> Option<u64> {
        let index = self.next.get();
        let is_over = self.end.get().map_or(index >= self.count, |end| Instant::now() >= end);
        if is_over || self.stop.is_asked() {
            return None;
        }
        self.next.set(index + 1);
        Some(index)
    }

    async fn ask(&self, index: u64) -> Result<Msg, Failure> {
        let contents = self.request.carries.contents(index)?;
        let subject = self.request.subject.as_str();
        Ok(self.conn.request(&self.to, subject, contents, self.timeout).await?)
    }

    fn progress(&self) -> String {
        let tally = self.tally.borrow();
        match self.end.get() {
            None if self.count == 1 => format!("waiting for an answer for at most {:?}", self.timeout),
            None => format!("{} of {} answered, {} lost", tally.answered, self.count, tally.lost()),
            Some(end) => {
                let left = end.saturating_duration_since(Instant::now());
                format!("{} answered, {} lost, {left:.0?} left", tally.answered, tally.lost())
            }
        }
    }
}

impl Carries {
    fn contents(&self, index: u64) -> Result<Contents, Failure> {
        match self {
            Carries::Given(typed) | Carries::Echo(typed, _) => {
                typed.contents().map_err(|error| Failure::usage(error.to_string()))
            }
            Carries::Counted => Ok(index.into_contents()),
            Carries::Nothing => Ok(Contents::null()),
        }
    }

    fn is_right(&self, index: u64, reply: &Contents) -> bool {
        match self {
            Carries::Echo(_, sent) => reply.element().is_ok_and(|reply| reply == *sent),
            Carries::Counted => reply.get::<u64>().is_ok_and(|reply| reply == index + 1),
            Carries::Given(_) | Carries::Nothing => true,
        }
    }
}

impl Tally {
    fn count(&mut self, carries: &Carries, index: u64, time: Duration, answer: Result<Msg, Failure>) {
        self.sent += 1;
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(failure) => return self.count_lost(failure),
        };
        if self.times.len() < TIMES {
            self.times.push(time);
        }
        let reply = answer.take_raw();
        if carries.is_right(index, &reply) {
            self.answered += 1;
        } else {
            self.wrong += 1;
            self.example_wrong.get_or_insert_with(|| shown(&reply).chars().take(SHOWN).collect());
        }
        self.reply = Some(reply);
    }

    fn count_lost(&mut self, failure: Failure) {
        match failure.exit {
            Exit::TimedOut => self.timed_out += 1,
            Exit::NotUnderstood => self.not_understood += 1,
            _ => self.not_delivered += 1,
        }
        self.failure.get_or_insert(failure);
    }

    fn lost(&self) -> u64 {
        self.timed_out + self.not_delivered + self.not_understood
    }

    fn result(self, allow_lost: u64, called: Called) -> Called {
        let lost = self.lost();
        let ok = called.addr.is_some() && self.answered > 0 && self.wrong == 0 && lost <= allow_lost && called.closed;
        Called {
            ok,
            sent: self.sent,
            answered: self.answered,
            wrong: self.wrong,
            lost,
            timed_out: self.timed_out,
            not_delivered: self.not_delivered,
            not_understood: self.not_understood,
            rtt_ms: Times::of(self.times),
            reply: self.reply.as_ref().and_then(json_of),
            shown: self.reply.as_ref().map(shown),
            reply_ion: self.reply.as_ref().and_then(|reply| reply.to_text().ok()),
            example_wrong: self.example_wrong,
            failure: self.failure,
            ..called
        }
    }
}

impl Called {
    fn nothing() -> Self {
        Self {
            program: "",
            ok: false,
            addr: None,
            lookup_ms: None,
            found: None,
            sent: 0,
            answered: 0,
            wrong: 0,
            lost: 0,
            timed_out: 0,
            not_delivered: 0,
            not_understood: 0,
            rtt_ms: None,
            warmup_tries: None,
            extras: BTreeMap::new(),
            reply: None,
            reply_ion: None,
            shown: None,
            example_wrong: None,
            closed: false,
            stats: serde_json::Value::Null,
            failure: None,
        }
    }
}

impl Times {
    /// None of none.
    pub(crate) fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let at = |index: usize| times.get(index).copied().map(millis);
        let last = times.len().checked_sub(1)?;
        Some(Self {
            min: at(0)?,
            median: at(times.len() / 2)?,
            p99: at((times.len() * 99 / 100).min(last))?,
            max: at(last)?,
        })
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, median, p99, max } = self;
        if min.total_cmp(max).is_eq() {
            return write!(f, "{median} ms");
        }
        write!(f, "min {min}, median {median}, p99 {p99}, max {max} ms")
    }
}

/// Milliseconds, to the microsecond.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
