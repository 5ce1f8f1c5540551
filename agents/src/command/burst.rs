//! `vlm burst`: one-way messages as fast as they are taken, and what became of them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use vlmessaging::{Addr, Connection, Contents, IntoContents, NotDelivered, Router, Value};

use super::progress::Progress;
use super::sink;
use super::target::{self, LOOKUP};
use crate::outcome::{Exit, Failure, print, print_json};
use crate::place::{self, Place};
use crate::signals::Stop;
use crate::text::json_of;

/// How long the sink may take to answer. Default 5 s: it counts what came before the question first.
const QUERY: Duration = Duration::from_secs(5);

/// Send one-way messages, and ask a sink what arrived
#[derive(Args)]
pub(crate) struct Burst {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Send to this address: tcp|ipc|number
    #[arg(long, value_parser = place::read_addr, allow_hyphen_values = true)]
    addr: Option<Addr>,
    /// Send to the nearest provider of this service
    #[arg(long, conflicts_with = "addr", default_value = sink::SERVICE)]
    service: String,
    /// Wait so long for a provider
    #[arg(long, default_value = LOOKUP, value_parser = place::read_millis)]
    lookup_ms: Duration,
    /// How many messages
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// Characters of text in each
    #[arg(long, default_value_t = 0)]
    payload: usize,
    /// Pause after each
    #[arg(long, default_value = "0", value_parser = place::read_millis)]
    pause_ms: Duration,
    /// Let others run after each
    #[arg(long = "yield")]
    yields: bool,
    /// No request (RESET) before the first
    #[arg(long)]
    cold: bool,
    /// Wait so long before the sink is asked
    #[arg(long, default_value = "0", value_parser = place::read_millis)]
    settle_ms: Duration,
    /// Do not ask: the other end is no sink
    #[arg(long)]
    no_query: bool,
    /// Ok only if all have arrived
    #[arg(long)]
    expect_all: bool,
}

/// The result, as it is printed in JSON.
#[derive(Default, Serialize)]
struct Fired {
    program: &'static str,
    ok: bool,
    addr: Addr,
    sent: u64,
    seconds: f64,
    /// Until the sink had counted them, less --settle-ms.
    flushed_seconds: Option<f64>,
    warm: Option<bool>,
    sink: Option<Value>,
    /// Messages that were reported as not delivered.
    not_delivered: u64,
    closed: bool,
    stats: serde_json::Value,
    #[serde(flatten)]
    failure: Option<Failure>,
}

impl Burst {
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let stop = Stop::on_signals()?;
        let router = self.place.guest(self.addr.as_ref()).start().await?;
        let fired = self.fire(&router, &stop).await;
        let stats = place::stats(router.stats());
        let closed = place::close(&router).await;
        let fired = fired?;
        let fired = Fired { ok: fired.ok && closed, closed, stats, ..fired };
        if self.place.json {
            print_json(&fired);
        } else {
            self.tell_people(&fired);
        }
        Ok(match &fired.failure {
            _ if fired.ok => Exit::Ok,
            Some(failure) => failure.exit,
            None => Exit::Failed,
        })
    }

    async fn fire(&self, router: &Router, stop: &Stop) -> Result<Fired, Failure> {
        let conn = router.connect();
        let to = match &self.addr {
            Some(addr) => addr.clone(),
            None => {
                let found = target::providers(router, &conn, &self.service, self.lookup_ms, stop).await?;
                found.first().map(Addr::from).unwrap_or_default()
            }
        };
        let mut fired = Fired { program: "vlm burst", addr: to.clone(), ..Fired::default() };
        if !self.cold && !self.no_query {
            // A sink that has begun is cleared, and one that is not there is told before anything is sent.
            conn.request(&to, "RESET", (), QUERY).await?;
            fired.warm = Some(true);
        }
        let (reports, listening) = listen_to_reports(&conn);
        let since = Instant::now();
        fired.failure = self.send_all(&conn, &to, stop, &mut fired.sent).await.err();
        fired.seconds = since.elapsed().as_secs_f64();
        // Asked to end or not, the pause is over.
        let _ = stop.or(tokio::time::sleep(self.settle_ms)).await;
        if !self.no_query && fired.failure.is_none() {
            match conn.request(&to, "COUNT", (), QUERY).await {
                Ok(reply) => {
                    fired.flushed_seconds = Some(since.elapsed().saturating_sub(self.settle_ms).as_secs_f64());
                    fired.sink = json_of(reply.raw());
                }
                Err(error) => fired.failure = Some(error.into()),
            }
        }
        listening.abort();
        fired.not_delivered = reports.0.get();
        if let (None, Some(report)) = (&fired.failure, reports.1.take()) {
            fired.failure = Some(Failure::new(Exit::NotDelivered, report.to_string()));
        }
        let arrived = fired.arrived();
        let is_complete = !self.expect_all || arrived == Some(self.count.into());
        fired.ok = fired.sent == self.count && fired.failure.is_none() && is_complete;
        Ok(fired)
    }

    async fn send_all(&self, conn: &Connection, to: &Addr, stop: &Stop, sent: &mut u64) -> Result<(), Failure> {
        let (count, so_far) = (self.count, Rc::new(Cell::new(0)));
        let shown = so_far.clone();
        let _progress = Progress::show(move || format!("{} of {count} sent", shown.get()));
        let text = "x".repeat(self.payload);
        for index in 0..count {
            let contents: Contents =
                if text.is_empty() { index.into_contents() } else { (index, text.clone()).into_contents() };
            let Some(taken) = stop.or(conn.send(to, "EVENT", contents)).await else { return Ok(()) };
            taken?;
            *sent = index + 1;
            so_far.set(*sent);
            if !self.pause_ms.is_zero() {
                tokio::time::sleep(self.pause_ms).await;
            } else if self.yields {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn tell_people(&self, fired: &Fired) {
        let Fired { sent, seconds, not_delivered, .. } = fired;
        let arrived = fired.arrived().map_or(String::new(), |count| format!(", {count} arrived"));
        print(&format!("{sent} of {} sent in {seconds:.3} s{arrived}, {not_delivered} reported lost", self.count));
        if let Some(failure) = &fired.failure {
            failure.tell(fired.program, false);
        }
    }
}

impl Fired {
    /// What the sink has counted.
    fn arrived(&self) -> Option<i128> {
        match self.sink.as_ref()?.get("count") {
            Some(Value::Int(count)) => Some(*count),
            _ => None,
        }
    }
}

/// Counts reports, and keeps the first.
type Reports = Rc<(Cell<u64>, Cell<Option<NotDelivered>>)>;

fn listen_to_reports(conn: &Connection) -> (Reports, tokio::task::JoinHandle<()>) {
    let reports = Reports::default();
    let (conn, counted) = (conn.clone(), reports.clone());
    let listening = actix::spawn(async move {
        loop {
            let report = conn.not_delivered().await;
            if counted.0.replace(counted.0.get() + 1) == 0 {
                counted.1.set(Some(report));
            }
        }
    });
    (reports, listening)
}
