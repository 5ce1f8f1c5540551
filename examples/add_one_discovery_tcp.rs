//! Two routers of a network find each other: one listens, the other is told where.
//!
//! ```text
//! cargo run --example add_one_discovery_tcp
//! ```

use std::time::Duration;

use actix::{Actor, Context, Handler};
use vlmessaging::{Agent, Handled, Msg, Router};

struct AddOne;

impl Actor for AddOne {
    type Context = Context<Self>;
}

impl Agent for AddOne {}

impl Handler<Msg> for AddOne {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        match msg.subject() {
            "ADD_ONE" => msg.answer(|n: i64| n + 1),
            _ => msg.unhandled(),
        }
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let router1 = Router::network().without_hub().vnet("test").listen("tcp://127.0.0.1:0").start().await?;
    let listening = router1.endpoints().pop().ok_or("it listens nowhere")?;
    let router2 = Router::network().without_hub().vnet("test").join(listening).start().await?;
    let add_one = router1.spawn(AddOne);
    let _entry = add_one.register("AddOneAgent").await?;

    let conn = router2.connect();
    let provider = conn.find("AddOneAgent").first_within(Duration::from_secs(2)).await?;
    let reply = conn.request(&provider, "ADD_ONE", 41, Duration::from_secs(1)).await?;

    println!("41 + 1 = {}, says {}", reply.contents::<i64>()?, provider.addr);
    router1.shutdown().await;
    router2.shutdown().await;
    Ok(())
}
