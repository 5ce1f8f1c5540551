//! A request that nobody answers in time: the error says who was asked, what, and how long.
//!
//! ```text
//! cargo run --example timed_out
//! ```

use std::time::Duration;

use actix::{Actor, Context, Handler};
use vlmessaging::{Agent, Error, Handled, Msg, RequestError, Router};

struct Silent;

impl Actor for Silent {
    type Context = Context<Self>;
}

impl Agent for Silent {}

impl Handler<Msg> for Silent {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        // Dealt with, and no answer: the requester cannot know that none will come.
        msg.handled()
    }
}

#[actix::main]
async fn main() -> Result<(), Error> {
    let router = Router::local().start().await?;
    let silent = router.spawn(Silent);
    let conn = router.connect();

    match conn.request(&silent, "ADD_ONE", 41, Duration::from_millis(250)).await {
        Err(error @ RequestError::TimedOut { .. }) => println!("{error}"),
        other => panic!("a silent agent made {other:?}"),
    }

    router.shutdown().await;
    Ok(())
}
