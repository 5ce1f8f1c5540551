//! An agent and a request in one thread: no sockets, nothing encoded.
//!
//! ```text
//! cargo run --example local
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
    let router = Router::local().start().await?;
    let add_one = router.spawn(AddOne);
    let conn = router.connect();

    let reply = conn.request(&add_one, "ADD_ONE", 41_i64, Duration::from_secs(1)).await?;

    println!("41 + 1 = {}", reply.contents::<i64>()?);
    router.shutdown().await;
    Ok(())
}
