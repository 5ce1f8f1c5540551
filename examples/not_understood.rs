//! An agent that has no handler for a subject, or none for such contents, says so at once.
//!
//! ```text
//! cargo run --example not_understood
//! ```

use std::time::Duration;

use actix::{Actor, Context, Handler};
use vlmessaging::{Agent, Error, Handled, Msg, RequestError, Router};

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

    for (subject, contents) in [("ADD_TWO", "41"), ("ADD_ONE", "forty-one")] {
        match conn.request(&add_one, subject, contents, Duration::from_mins(1)).await {
            Err(error @ RequestError::NotUnderstood { .. }) => println!("{error}"),
            other => panic!("{subject} made {other:?}"),
        }
    }

    router.shutdown().await;
    Ok(())
}
