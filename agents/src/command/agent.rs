//! `vlm agent`: ready-made agents, registered, until Ctrl-C.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use vlmessaging::{Register, RegisterError, Registration, Router, Value};
use vlmessaging_agents::AddOne;

use crate::outcome::{Exit, Failure, print, print_json};
use crate::place::{self, Place, on_network, typed};
use crate::signals::Stop;
use crate::text::{json_of_value, value_of_json};

/// How long the agent's own counters may take to be told. Default 1 s: it is in this process.
const OWN: Duration = Duration::from_secs(1);
/// How long the hub may take to hear of the agent before that is said to be up. Default 1 s: a Python one takes a third of that.
const SETTLING: Duration = Duration::from_secs(1);

/// Run a ready-made agent
#[derive(Subcommand)]
pub(crate) enum Agent {
    /// Answers ADD_ONE, ECHO and STATS, counts EVENT
    AddOne(RunAddOne),
}

#[derive(Args)]
pub(crate) struct RunAddOne {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    entry: EntryOptions,
    /// The service it is registered as
    #[arg(long, default_value = "AddOneAgent")]
    service: String,
    /// Params of the entry, as JSON
    #[arg(long, default_value = "null", value_parser = read_json)]
    params: serde_json::Value,
    /// End after so long [default: Ctrl-C ends it]
    #[arg(long, value_parser = place::read_seconds)]
    seconds: Option<Duration>,
    /// Pause before each answer
    #[arg(long, default_value = "0", value_parser = place::read_millis)]
    delay_ms: Duration,
    /// Do not answer what is not understood
    #[arg(long)]
    ping_only: bool,
}

/// Where an agent's entry is seen.
#[derive(Args)]
pub(crate) struct EntryOptions {
    /// Be the hub at this ipc endpoint instead of the machine's
    #[arg(long, value_name = "IPC")]
    pub(crate) hub_listen: Option<String>,
    /// Virtual network of the entry, or "none"; repeatable [default: local, and those of --dir-vnet]
    #[arg(long, value_name = "VNET")]
    vnet: Vec<String>,
}

impl EntryOptions {
    pub(crate) async fn register(&self, register: Register, params: Value) -> Result<Registration, Failure> {
        let mut register = register.params(params);
        if !self.vnet.is_empty() {
            register = register.vnets(self.vnet.iter().filter(|vnet| *vnet != "none"));
        }
        register.await.map_err(|error: RegisterError| Failure::new(Exit::Failed, error.to_string()))
    }
}

fn read_json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Waits until the hub has heard of this router; where there is none that answers, the agent is up all the same.
pub(crate) async fn settle(router: &Router, stop: &Stop) {
    let _ = stop.or(router.joined(SETTLING)).await;
}

/// What an agent of this process says of itself.
pub(crate) async fn ask_own(router: &Router, agent: vlmessaging::Addr, subject: &str) -> Result<Value, Failure> {
    let reply = router.connect().request(agent, subject.to_string(), (), OWN).await?;
    reply.contents::<Value>().map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

/// Adds what an agent counted to a result.
pub(crate) fn with_counts(result: &mut serde_json::Value, counts: &Value) {
    if let (Some(result), Value::Map(counts)) = (result.as_object_mut(), counts) {
        result.extend(counts.iter().filter_map(|(name, value)| Some((name.clone(), json_of_value(value)?))));
    }
}

impl RunAddOne {
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let stop = Stop::on_signals()?;
        let router = self.place.host(self.entry.hub_listen.as_deref()).start().await?;
        let agent = router.spawn(AddOne::default().delay(self.delay_ms).ping_only(self.ping_only));
        let registration = self.entry.register(agent.register(&self.service), value_of_json(&self.params)).await?;
        settle(&router, &stop).await;
        self.tell_up(&router, &agent.addr());
        stop.asked_within(self.seconds).await;

        let counts = ask_own(&router, agent.addr(), "STATS").await?;
        let entries: Vec<_> = router.known().into_iter().flat_map(|router| router.entries).collect();
        let entries: Vec<_> = entries.iter().map(|entry| (&entry.addr, &entry.service)).collect();
        let stats = place::stats(router.stats());
        drop(registration);
        let closed = place::close(&router).await;
        let mut result = json!({ "program": "vlm agent add-one", "ok": closed, "entries": entries, "closed": closed, "stats": stats });
        with_counts(&mut result, &counts);
        if self.place.json {
            print_json(&result);
        } else {
            print(&format!("{} answers, {} events", total(&counts, &["add_one", "echo"]), total(&counts, &["events"])));
        }
        if closed { Ok(Exit::Ok) } else { Err(place::not_closed()) }
    }

    fn tell_up(&self, router: &Router, addr: &vlmessaging::Addr) {
        let on_network = on_network(router, addr);
        if !self.place.json {
            print(&format!("{} at {}", self.service, typed(on_network.as_ref().unwrap_or(addr))));
            return;
        }
        let (ipc, tcp) = place::endpoints(router);
        let own = router.known().into_iter().flat_map(|router| router.entries).find(|entry| entry.addr == *addr);
        print_json(&json!({
            "event": "up", "pid": std::process::id(), "mode": self.place.mode_name(), "service": self.service, "params": self.params,
            "vnets": own.as_ref().map(|entry| &entry.vnets), "mEps": ipc, "nEps": tcp, "agent": addr,
            "agent_net": on_network, "directory": addr.with_connection(vlmessaging::DIRECTORY),
            "registered": own.is_some(),
        }));
    }
}

fn total(counts: &Value, names: &[&str]) -> i128 {
    names.iter().map(|name| if let Some(Value::Int(count)) = counts.get(name) { *count } else { 0 }).sum()
}
