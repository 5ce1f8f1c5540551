//! Two routers on one machine, and a request from one to an agent of the other, by its address.
//!
//! ```text
//! cargo run --example add_one_ipc
//! ```

use std::time::Duration;

use actix::{Actor, Context, Handler};
use vlmessaging::{Agent, Error, Handled, Msg, Router};

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
async fn main() -> Result<(), Error> {
    let router1 = Router::machine().without_hub().start().await?;
    let router2 = Router::machine().without_hub().start().await?;
    let add_one = router1.spawn(AddOne);
    let conn = router2.connect();

    let reply = conn.request(&add_one, "ADD_ONE", 41, Duration::from_secs(1)).await?;

    println!("41 + 1 = {}", reply.contents::<i64>()?);
    router1.shutdown().await;
    router2.shutdown().await;
    Ok(())
}
