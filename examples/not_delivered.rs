//! Requests that reach no handler fail at once, each with its reason.
//!
//! ```text
//! cargo run --example not_delivered
//! ```

use std::time::Duration;

use actix::{Actor, Context, Handler};
use vlmessaging::{Addr, Agent, Error, Handled, Msg, RequestError, Router};

struct Fragile;

impl Actor for Fragile {
    type Context = Context<Self>;
}

impl Agent for Fragile {}

impl Handler<Msg> for Fragile {
    type Result = Handled;

    fn handle(&mut self, _msg: Msg, _: &mut Context<Self>) -> Handled {
        panic!("this agent handles nothing");
    }
}

/// Asks, and shows how it fails: long before the limit.
async fn show(conn: &vlmessaging::Connection, to: impl Into<Addr>) {
    match conn.request(to, "ADD_ONE", 41, Duration::from_mins(1)).await {
        Err(RequestError::NotSent(error)) => println!("not sent:      {error}"),
        Err(RequestError::NotDelivered(error)) => println!("not delivered: {error}"),
        other => panic!("nobody is there, and still: {other:?}"),
    }
}

#[actix::main]
async fn main() -> Result<(), Error> {
    let router1 = Router::machine().without_hub().start().await?;
    let router2 = Router::machine().without_hub().start().await?;
    let conn = router2.connect();

    // The router is there, the connection is not.
    show(&conn, router1.net_addr(99)).await;

    // The agent panics while it has the message.
    let fragile = router1.spawn(Fragile);
    show(&conn, &fragile).await;

    // The router has gone.
    router1.shutdown().await;
    show(&conn, &fragile).await;

    // This router does not speak TCP.
    show(&conn, Addr::at("tcp://127.0.0.1:9".into(), 3)).await;

    router2.shutdown().await;
    Ok(())
}
