//! `vlm sink`: counts one-way messages.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::sync::Notify;
use vlmessaging::Value;
use vlmessaging_agents::Sink as SinkAgent;

use super::agent::{EntryOptions, ask_own, settle, with_counts};
use crate::outcome::{Exit, Failure, print, print_json};
use crate::place::{self, Place, on_network, typed};
use crate::signals::Stop;

/// The service that sinks are found as.
pub(crate) const SERVICE: &str = "Sink";
/// After the last expected message it is seen for so long whether more come. Default 500 ms: as the reference's program.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// Run an agent that counts one-way messages
#[derive(Args)]
pub(crate) struct Sink {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    entry: EntryOptions,
    /// The service it is registered as
    #[arg(long, default_value = SERVICE)]
    service: String,
    /// End after so long [default: Ctrl-C ends it]
    #[arg(long, value_parser = place::read_seconds)]
    seconds: Option<Duration>,
    /// End half a second after so many have come; ok only then
    #[arg(long)]
    expect: Option<u64>,
}

impl Sink {
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let stop = Stop::on_signals()?;
        let router = self.place.host(self.entry.hub_listen.as_deref()).start().await?;
        let reached = Arc::new(Notify::new());
        let agent = match self.expect {
            Some(expected) => SinkAgent::default().expecting(expected, reached.clone()),
            None => SinkAgent::default(),
        };
        let sink = router.spawn(agent);
        let registration = self.entry.register(sink.register(&self.service), Value::Null).await?;
        settle(&router, &stop).await;
        self.tell_up(&router, &sink.addr());
        let arrived = async {
            reached.notified().await;
            tokio::time::sleep(AFTERWARDS).await;
        };
        // Whatever comes first: all have arrived, the time is up, or it is asked to end.
        let _ = tokio::time::timeout(self.seconds.unwrap_or(Duration::MAX), stop.or(arrived)).await;

        let counts = ask_own(&router, sink.addr(), "COUNT").await?;
        let stats = place::stats(router.stats());
        drop(registration);
        let closed = place::close(&router).await;
        let count = match counts.get("count") {
            Some(Value::Int(count)) => *count,
            _ => 0,
        };
        let is_complete = self.expect.is_none_or(|expected| count >= expected.into());
        let mut result = json!({
            "program": "vlm sink", "ok": closed && is_complete, "expected": self.expect, "closed": closed, "stats": stats,
        });
        with_counts(&mut result, &counts);
        if self.place.json {
            print_json(&result);
        } else {
            let number = |name| counts.get(name).and_then(crate::text::json_of_value).unwrap_or_default();
            let (lower, twice) = (number("out_of_order"), number("duplicates"));
            print(&format!("{count} arrived, {lower} out of order, {twice} twice"));
        }
        Ok(if closed && is_complete { Exit::Ok } else { Exit::Failed })
    }

    fn tell_up(&self, router: &vlmessaging::Router, addr: &vlmessaging::Addr) {
        let on_network = on_network(router, addr);
        if !self.place.json {
            print(&format!("{} at {}", self.service, typed(on_network.as_ref().unwrap_or(addr))));
            return;
        }
        let (ipc, tcp) = place::endpoints(router);
        print_json(&json!({
            "event": "up", "pid": std::process::id(), "mEps": ipc, "nEps": tcp, "sink": addr, "sink_net": on_network,
        }));
    }
}
