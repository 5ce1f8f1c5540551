//! Two programs find each other and talk: this one starts itself again as the provider.
//!
//! ```text
//! cargo run --example two_processes
//! ```
//!
//! Either of them may be the Python program beside this one, in another terminal:
//!
//! ```text
//! cargo run --example two_processes provide      python examples/two_processes.py ask
//! cargo run --example two_processes ask          python examples/two_processes.py provide
//! ```

use std::process::Command;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use vlmessaging::{Agent, Handled, Msg, Router};

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

/// The other program: it provides until it is told to shut down.
async fn provide() -> Result<(), Box<dyn std::error::Error>> {
    let router = Router::machine().start().await?;
    let add_one = router.spawn(AddOne);
    let _entry = add_one.register("AddOneAgent").await?;
    println!("process {} provides AddOneAgent at {}", std::process::id(), add_one.addr());
    router.stopped().await;
    Ok(())
}

/// This program: it finds a provider and asks.
async fn ask() -> Result<(), Box<dyn std::error::Error>> {
    let router = Router::machine().start().await?;
    let conn = router.connect();

    let provider = conn.find("AddOneAgent").first_within(Duration::from_secs(15)).await?;
    let reply = conn.request(&provider, "ADD_ONE", 41, Duration::from_secs(1)).await?;

    conn.send(&provider, "SHUTDOWN", ()).await?;

    println!("process {} hears from {} that 41 + 1 = {}", std::process::id(), provider.addr, reply.contents::<i64>()?);
    router.shutdown().await;
    Ok(())
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("provide") => return provide().await,
        Some("ask") => return ask().await,
        _ => {}
    }
    let mut provider = Command::new(std::env::current_exe()?).arg("provide").spawn()?;
    let asked = ask().await;
    if asked.is_err() {
        provider.kill()?;
    }
    provider.wait()?;
    asked
}
