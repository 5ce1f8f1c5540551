//! `vlm ping`: whether somebody answers, and how soon.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use vlmessaging::{Addr, Connection, Router, subject};

use super::call::Times;
use super::target::{self, LOOKUP};
use crate::outcome::{Exit, Failure, print, print_json};
use crate::place::{self, Place, typed};
use crate::signals::Stop;

/// Ask every provider of a service, or an address, whether it is there
#[derive(Args)]
pub(crate) struct Ping {
    /// A service, or an address: tcp|ipc|number
    #[arg(value_name = "SERVICE|ADDR")]
    whom: String,
    #[command(flatten)]
    pub(crate) place: Place,
    /// How often each is asked
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Wait so long for an answer
    #[arg(long, default_value = "1000", value_parser = place::read_millis)]
    timeout_ms: Duration,
    /// Pause after each question
    #[arg(long, default_value = "0", value_parser = place::read_millis)]
    pause_ms: Duration,
    /// Wait so long for a provider
    #[arg(long, default_value = LOOKUP, value_parser = place::read_millis)]
    lookup_ms: Duration,
}

#[derive(Serialize)]
struct Pinged {
    program: &'static str,
    ok: bool,
    addr: Addr,
    sent: u64,
    answered: u64,
    rtt_ms: Option<Times>,
    #[serde(flatten)]
    failure: Option<Failure>,
}

impl Ping {
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let stop = Stop::on_signals()?;
        let addr = if self.whom.contains('|') || self.whom.starts_with('[') {
            Some(place::read_addr(&self.whom).map_err(Failure::usage)?)
        } else {
            None
        };
        let router = self.place.guest(addr.as_ref()).start().await?;
        let asked = self.ask_all(&router, addr, &stop).await;
        place::close(&router).await;
        asked
    }

    async fn ask_all(&self, router: &Router, addr: Option<Addr>, stop: &Stop) -> Result<Exit, Failure> {
        let conn = router.connect();
        let addrs = match addr {
            Some(addr) => vec![addr],
            None => self.providers(router, &conn, stop).await?,
        };
        let mut exit = Exit::Ok;
        for addr in addrs {
            let pinged = self.ask(&conn, addr, stop).await;
            if let (Some(failure), Exit::Ok) = (&pinged.failure, exit) {
                exit = failure.exit;
            }
            self.tell(&pinged);
        }
        Ok(exit)
    }

    /// All that the hubs know of, not only those known first.
    async fn providers(&self, router: &Router, conn: &Connection, stop: &Stop) -> Result<Vec<Addr>, Failure> {
        let mut found = target::providers(router, conn, &self.whom, self.lookup_ms, stop).await?;
        if stop.or(router.joined(self.lookup_ms)).await == Some(Ok(())) {
            found = conn.find(&self.whom).all();
        }
        Ok(found.into_iter().map(Addr::from).collect())
    }

    async fn ask(&self, conn: &Connection, addr: Addr, stop: &Stop) -> Pinged {
        let (mut sent, mut times, mut failure) = (0, Vec::new(), None);
        while sent < self.count && !stop.is_asked() {
            let since = Instant::now();
            let Some(answer) = stop.or(conn.request(&addr, subject::PING, (), self.timeout_ms)).await else { break };
            sent += 1;
            match answer {
                Ok(_) => times.push(since.elapsed()),
                Err(error) => failure = Some(Failure::from(error)),
            }
            if sent < self.count {
                // Asked to end or not, the pause is over.
                let _ = stop.or(tokio::time::sleep(self.pause_ms)).await;
            }
        }
        let answered = times.len() as u64;
        let ok = answered == sent && sent > 0;
        Pinged { program: "vlm ping", ok, addr, sent, answered, rtt_ms: Times::of(times), failure }
    }

    fn tell(&self, pinged: &Pinged) {
        if self.place.json {
            return print_json(pinged);
        }
        if let Some(times) = &pinged.rtt_ms {
            print(&format!("{}  {} of {} answered, {times}", typed(&pinged.addr), pinged.answered, pinged.sent));
        }
        if let Some(failure) = &pinged.failure {
            failure.tell("vlm ping", false);
        }
    }
}
