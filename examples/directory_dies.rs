//! The process whose directory joins all others, the machine's hub, is killed: lookups go on, another takes its place, and newcomers find the provider through that.
//!
//! ```text
//! cargo run --example directory_dies
//! ```

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use actix::{Actor, Context, Handler};
use vlmessaging::{Agent, Connection, Handled, Msg, Router};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Longer than a hub takes to be replaced, and a provider to be found.
const LIMIT: Duration = Duration::from_secs(5);

struct AddOne;

impl Actor for AddOne {
    type Context = Context<Self>;
}

impl Agent for AddOne {
    fn allows_shutdown(&self) -> bool {
        true
    }
}

impl Handler<Msg> for AddOne {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        match msg.subject() {
            "ADD_ONE" => msg.answer(|n: i64| n + 1),
            _ => msg.unhandled(),
        }
    }
}

/// The program of the hub: the first router of the machine.
async fn be_the_hub() -> Result<()> {
    let router = Router::machine().start().await?;
    while router.endpoints().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("up");
    router.stopped().await;
    Ok(())
}

/// The program of the provider.
async fn provide() -> Result<()> {
    let router = Router::machine().start().await?;
    let _entry = router.spawn(AddOne).register("AddOneAgent").await?;
    router.stopped().await;
    Ok(())
}

async fn ask(conn: &Connection, n: i64) -> Result<i64> {
    let provider = conn.find("AddOneAgent").first_within(LIMIT).await?;
    Ok(conn.request(&provider, "ADD_ONE", n, LIMIT).await?.contents()?)
}

/// This program: it asks the provider before and after the hub's death.
async fn story(hub: &mut Child) -> Result<()> {
    let early = Router::machine().start().await?;
    let conn = early.connect();
    println!("through the hub: 1 + 1 = {}", ask(&conn, 1).await?);

    hub.kill()?;
    hub.wait()?;
    println!("the hub is dead: 2 + 1 = {}", ask(&conn, 2).await?);

    let late = Router::machine().start().await?;
    println!("a newcomer, through another hub: 3 + 1 = {}", ask(&late.connect(), 3).await?);

    let provider = conn.find("AddOneAgent").first_within(LIMIT).await?;
    conn.send(&provider, "SHUTDOWN", ()).await?;
    late.shutdown().await;
    early.shutdown().await;
    Ok(())
}

#[actix::main]
async fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("hub") => return be_the_hub().await,
        Some("provide") => return provide().await,
        _ => {}
    }
    let program = std::env::current_exe()?;
    let mut hub = Command::new(&program).arg("hub").stdout(Stdio::piped()).spawn()?;
    let mut up = String::new();
    BufReader::new(hub.stdout.take().ok_or("it is piped")?).read_line(&mut up)?;
    let mut provider = Command::new(&program).arg("provide").spawn()?;
    story(&mut hub).await?;
    provider.wait()?;
    Ok(())
}
