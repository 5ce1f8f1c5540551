//! A provider's process is killed while it has a request: its requester is told at once, and goes on with another provider.
//!
//! ```text
//! cargo run --example provider_dies
//! ```

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler};
use vlmessaging::{Agent, Handled, Msg, RequestError, Router};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Answers `ADD_ONE`; of the first `PONDER` it thinks for ever.
struct AddOne {
    pondered: Vec<Msg>,
}

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
            "PONDER" => {
                let (handled, msg) = msg.later();
                self.pondered.push(msg);
                handled
            }
            _ => msg.unhandled(),
        }
    }
}

/// The program of a provider.
async fn provide() -> Result<()> {
    let router = Router::machine().start().await?;
    let _entry = router.spawn(AddOne { pondered: Vec::new() }).register("AddOneAgent").await?;
    router.stopped().await;
    Ok(())
}

/// This program: it asks one of two, kills it, and asks the other.
async fn ask(providers: &mut [Child]) -> Result<()> {
    let router = Router::machine().start().await?;
    let conn = router.connect();
    while conn.find("AddOneAgent").all().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let first = conn.find("AddOneAgent").first_within(Duration::from_secs(2)).await?;
    let waiting = conn.request(&first, "PONDER", (), Duration::from_mins(1));
    let killing = async {
        // It has the first request by the time that it answers the second.
        conn.request(&first, "ADD_ONE", 1, Duration::from_secs(2)).await?;
        let name = first.addr.machine.as_ref().map(ToString::to_string).unwrap_or_default();
        let of = providers.iter_mut().find(|child| name.ends_with(&format!("router_{}", child.id())));
        of.ok_or("who is that?")?.kill()?;
        Result::Ok(Instant::now())
    };
    let (told, killed) = futures::join!(waiting, killing);
    let at_once = killed?.elapsed() < Duration::from_secs(3);
    match told {
        Err(RequestError::NotDelivered(failure)) => {
            println!("told {}: {failure}", if at_once { "at once" } else { "late" });
        }
        other => println!("that was not to be: {other:?}"),
    }

    // The directory has forgotten it, too.
    while conn.find("AddOneAgent").all().contains(&first) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let next = conn.find("AddOneAgent").first_within(Duration::from_secs(2)).await?;
    let reply = conn.request(&next, "ADD_ONE", 41, Duration::from_secs(1)).await?;
    println!("another provider says 41 + 1 = {}", reply.contents::<i64>()?);
    conn.send(&next, "SHUTDOWN", ()).await?;
    router.shutdown().await;
    Ok(())
}

#[actix::main]
async fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("provide") {
        return provide().await;
    }
    let provide = || Command::new(std::env::current_exe()?).arg("provide").spawn();
    let mut providers = [provide()?, provide()?];
    ask(&mut providers).await?;
    for provider in &mut providers {
        provider.wait()?;
    }
    Ok(())
}
