//! A Rust router in a process of its own, with an agent that answers and a connection that does what the test says: this program, started again.
//!
//! Options and commands are those of `node.py`, as far as the tests need them of both.

use std::collections::BTreeMap;
use std::io::{BufRead, stdin};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use vlmessaging::{Addr, Connection, Entry, RequestError, Router, RouterBuilder};

use crate::peer::{AddOne, addr_of};

/// Names the options, as JSON, in a process that is to be such a router.
pub(crate) const OPTIONS: &str = "VLM_TEST_NODE";

#[derive(Default)]
struct Options {
    folder: String,
    mode: String,
    hub: Vec<String>,
    hub_listen: Option<String>,
    listen: Vec<String>,
    vnet: Vec<String>,
    service: Option<String>,
    entry_vnet: Vec<String>,
}

#[derive(Deserialize)]
struct Command {
    #[serde(rename = "do")]
    what: String,
    #[serde(default)]
    to: Value,
    #[serde(default)]
    service: String,
    #[serde(default)]
    times: u64,
    #[serde(default)]
    within: u64,
    #[serde(default)]
    pause: u64,
}

/// Plays the part, in a process that was started for it; elsewhere it is a test that has nothing to do.
#[test]
fn a_rust_router_in_a_process_of_its_own() {
    let Ok(options) = std::env::var(OPTIONS) else { return };
    let options = Options::read(serde_json::from_str(&options).unwrap());
    actix::System::new().block_on(options.play());
}

impl Options {
    fn read(given: Vec<String>) -> Self {
        let mut read = Self::default();
        for pair in given.chunks(2) {
            let value = pair[1].clone();
            match pair[0].as_str() {
                "--folder" => read.folder = value,
                "--mode" => read.mode = value,
                "--hub" | "--net-hub" => read.hub.push(value),
                "--hub-listen" => read.hub_listen = Some(value),
                "--listen" | "--net-listen" => read.listen.push(value),
                "--vnet" => read.vnet.push(value),
                "--service" => read.service = Some(value),
                "--entry-vnet" => read.entry_vnet.push(value),
                other => panic!("no option {other}"),
            }
        }
        read
    }

    fn builder(&self) -> RouterBuilder {
        let builder = if self.mode == "network" { Router::network() } else { Router::machine() };
        let builder = builder.folder(&self.folder);
        let builder = match &self.hub_listen {
            Some(hub) => builder.hub(hub),
            None => builder.without_hub(),
        };
        let builder = self.hub.iter().fold(builder, |builder, hub| builder.join(hub.as_str()));
        let builder = self.listen.iter().fold(builder, |builder, at| builder.listen(at.as_str()));
        self.vnet.iter().fold(builder, RouterBuilder::vnet)
    }

    async fn play(self) {
        let router = self.builder().start().await.unwrap();
        let agent = router.spawn(AddOne::default());
        let mut entry = None;
        if let Some(service) = &self.service {
            entry = Some(agent.register(service).vnets(&self.entry_vnet).await.unwrap());
        }
        let conn = router.connect();
        let addr = router.net_addr(agent.addr().connection.unwrap());
        println!("\n{}", json!({"addr": addr, "endpoints": router.endpoints()}));
        let mut commands = read_commands();
        while let Some(command) = commands.recv().await {
            println!("{}", answer(&conn, &router, &agent.addr(), command).await);
        }
        drop(entry);
        router.shutdown().await;
        println!("{}", json!({"main_loop_alive": true}));
    }
}

fn read_commands() -> tokio::sync::mpsc::UnboundedReceiver<Command> {
    let (commands, receiver) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            if commands.send(serde_json::from_str(&line).expect("it is a command")).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn answer(conn: &Connection, router: &Router, agent: &Addr, command: Command) -> Value {
    let within = Duration::from_millis(command.within);
    match command.what.as_str() {
        "find" => {
            let found = conn.find(&command.service).first_within(within).await;
            json!({"entries": found.iter().map(|entry| told(entry)).collect::<Vec<_>>()})
        }
        "known" => {
            let entries = router.known().into_iter().flat_map(|router| router.entries);
            json!({"entries": entries.map(|entry| told(&entry)).collect::<Vec<_>>()})
        }
        "meet" => json!({"tries": meet(conn, &addr_of(&command.to), within).await}),
        "call" => call(conn, &command).await,
        "count" => {
            let counted = conn.request(agent, "COUNT", (), Duration::from_secs(5)).await;
            json!({"count": counted.unwrap().contents::<u64>().unwrap()})
        }
        "fate" => json!({"main_loop_alive": true, "untold": router.stats().untold}),
        other => panic!("no command {other}"),
    }
}

fn told(entry: &Entry) -> Value {
    json!([entry.addr, entry.service])
}

async fn meet(conn: &Connection, to: &Addr, within: Duration) -> u64 {
    let until = Instant::now() + within;
    let mut tries = 0;
    while Instant::now() < until {
        tries += 1;
        if conn.request(to, "PING", (), Duration::from_millis(300)).await.is_ok() {
            return tries;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    0
}

/// Asks in a row. What is lost is lost by name.
async fn call(conn: &Connection, command: &Command) -> Value {
    let to = addr_of(&command.to);
    let (mut answered, mut wrong, mut lost) = (0, 0, 0);
    let mut failures = BTreeMap::<String, u64>::new();
    for n in 0..command.times {
        match conn.request(&to, "ADD_ONE", n, Duration::from_millis(command.within)).await {
            Ok(reply) if reply.contents::<u64>() == Ok(n + 1) => answered += 1,
            Ok(_) => wrong += 1,
            Err(error) => {
                lost += 1;
                *failures.entry(name_of(&error)).or_default() += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(command.pause)).await;
    }
    json!({"sent": command.times, "answered": answered, "wrong": wrong, "lost": lost, "failures": failures})
}

fn name_of(error: &RequestError) -> String {
    match error {
        RequestError::NotSent(error) => error.reason.to_string(),
        RequestError::NotDelivered(failure) => failure.reason.to_string(),
        RequestError::TimedOut { .. } => "timed out".into(),
        other => other.to_string(),
    }
}
