//! Four agents on threads of their own, all in one router.
//!
//! ```text
//! cargo run --example threads
//! ```

use std::time::Duration;

use actix::{Actor, Arbiter, Context, Handler};
use futures::future::try_join_all;
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
    let threads: Vec<Arbiter> = (0..4).map(|_| Arbiter::new()).collect();
    let agents: Vec<_> = threads.iter().map(|thread| router.spawn_on(&thread.handle(), || AddOne)).collect();

    let conn = router.connect();
    let requests =
        agents.iter().zip(40_i64..).map(|(agent, n)| conn.request(agent, "ADD_ONE", n, Duration::from_secs(1)));
    for reply in try_join_all(requests).await? {
        println!("{} says {}", reply.from(), reply.contents::<i64>()?);
    }

    router.shutdown().await;
    Ok(())
}
