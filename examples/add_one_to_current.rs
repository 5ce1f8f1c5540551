//! An agent that works by means of another: it finds a provider, survives that one's death, and goes on with the next.
//!
//! ```text
//! cargo run --example add_one_to_current              # all of the following, one after the other
//! cargo run --example add_one_to_current here         # everybody in one router
//! cargo run --example add_one_to_current routers      # three routers in one process
//! cargo run --example add_one_to_current processes    # three processes, one of which is killed
//! cargo run --example add_one_to_current network      # three routers that know each other over TCP alone
//! ```

use std::cell::RefCell;
use std::process::{Child, Command};
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, ResponseFuture};
use vlmessaging::{Addr, Agent, Connection, Error, Handled, Msg, Router, Spawned};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

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

/// Keeps a number, and has whoever provides `AddOneAgent` add one to it.
#[derive(Default)]
struct AddOneToCurrent {
    conn: Option<Connection>,
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    current: i64,
    provider: Option<Addr>,
}

impl Actor for AddOneToCurrent {
    type Context = Context<Self>;
}

impl Agent for AddOneToCurrent {
    fn started(&mut self, connection: Connection, _: &mut Context<Self>) {
        self.conn = Some(connection);
    }
}

impl Handler<Msg> for AddOneToCurrent {
    type Result = ResponseFuture<Handled>;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> ResponseFuture<Handled> {
        let (conn, state) = (self.conn.clone(), self.state.clone());
        Box::pin(async move {
            match (msg.subject(), conn) {
                ("ADD_ONE_TO_CURRENT", Some(conn)) => match add_one(&conn, &state).await {
                    Ok(answer) => msg.reply(answer),
                    Err(error) => msg.refuse(&error.to_string()),
                },
                _ => msg.unhandled(),
            }
        })
    }
}

/// The new number, and who added one.
async fn add_one(conn: &Connection, state: &RefCell<State>) -> std::result::Result<(i64, Addr), Error> {
    loop {
        let known = state.borrow().provider.clone();
        let provider = match known {
            Some(provider) => provider,
            // Ends when nobody provides it any more: the directory forgets who has died.
            None => conn.find("AddOneAgent").first_within(Duration::from_secs(2)).await?.into(),
        };
        let current = state.borrow().current;
        match conn.request(&provider, "ADD_ONE", current, Duration::from_secs(1)).await {
            Ok(reply) => {
                let current = reply.contents()?;
                *state.borrow_mut() = State { current, provider: Some(provider.clone()) };
                return Ok((current, provider));
            }
            Err(_) => state.borrow_mut().provider = None,
        }
    }
}

/// Has one added three times; after the second time the provider of that dies.
async fn play(how: &str, router: &Router, mut kill: impl AsyncFnMut(&Addr) -> Result<()>) -> Result<()> {
    let agent = router.spawn(AddOneToCurrent::default());
    let conn = router.connect();
    let ask = async || -> Result<(i64, Addr)> {
        let reply = conn.request(&agent, "ADD_ONE_TO_CURRENT", (), Duration::from_secs(5)).await?;
        Ok(reply.contents()?)
    };

    let (one, provider) = ask().await?;
    let (two, _) = ask().await?;
    kill(&provider).await?;
    let (three, next) = ask().await?;

    let is_another = if next == provider { "the same, which is dead" } else { "another" };
    println!("{how}: {one}, {two}, its provider dies, {three} from {is_another}");
    Ok(())
}

/// Everybody in one router.
async fn here() -> Result<()> {
    let router = Router::local().start().await?;
    let providers = [router.spawn(AddOne), router.spawn(AddOne)];
    let _entries = [providers[0].register("AddOneAgent").await?, providers[1].register("AddOneAgent").await?];
    let stop = async |provider: &Addr| {
        providers.iter().filter(|agent| agent.addr() == *provider).for_each(Spawned::stop);
        Ok(())
    };
    play("here", &router, stop).await?;
    router.shutdown().await;
    Ok(())
}

/// Two routers with a provider each, and a third that asks.
async fn three_routers(how: &str, routers: [Router; 2], asking: Router) -> Result<()> {
    let providers = [routers[0].spawn(AddOne), routers[1].spawn(AddOne)];
    let _entries = [providers[0].register("AddOneAgent").await?, providers[1].register("AddOneAgent").await?];
    wait_for_both(&asking).await;
    let shut_down = async |provider: &Addr| {
        let of = providers.iter().position(|agent| agent.addr().machine == provider.machine);
        routers[of.ok_or("who is that?")?].shutdown().await;
        Ok(())
    };
    play(how, &asking, shut_down).await?;
    for router in routers.into_iter().chain([asking]) {
        router.shutdown().await;
    }
    Ok(())
}

async fn wait_for_both(router: &Router) {
    let conn = router.connect();
    while conn.find("AddOneAgent").all().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Three processes on one machine. Whoever started first is the hub; when it is killed, another is.
async fn processes() -> Result<()> {
    let provide = || Command::new(std::env::current_exe()?).arg("provide").spawn();
    let mut providers: Vec<Child> = vec![provide()?, provide()?];
    let router = Router::machine().start().await?;
    wait_for_both(&router).await;
    let kill = async |provider: &Addr| {
        // A router is named by its process, and that is what shall die without a goodbye.
        let name = provider.machine.as_ref().map(ToString::to_string).unwrap_or_default();
        let of = providers.iter_mut().find(|child| name.ends_with(&format!("router_{}", child.id())));
        let child = of.ok_or("who is that?")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    };
    play("processes", &router, kill).await?;
    for provider in router.connect().find("AddOneAgent").all() {
        router.connect().send(&provider, "SHUTDOWN", ()).await?;
    }
    router.shutdown().await;
    for provider in &mut providers {
        provider.wait()?;
    }
    Ok(())
}

/// The program of a provider in a process of its own.
async fn provide() -> Result<()> {
    let router = Router::machine().start().await?;
    let _entry = router.spawn(AddOne).register("AddOneAgent").await?;
    router.stopped().await;
    Ok(())
}

async fn routers() -> Result<()> {
    let routers = [Router::machine().start().await?, Router::machine().start().await?];
    three_routers("routers", routers, Router::machine().start().await?).await
}

async fn network() -> Result<()> {
    let router = || Router::network().without_hub().vnet("test");
    let asking = router().listen("tcp://127.0.0.1:0").start().await?;
    let hub = asking.endpoints().pop().ok_or("it listens nowhere")?;
    let joins = || router().listen("tcp://127.0.0.1:0").join(hub.clone()).start();
    three_routers("network", [joins().await?, joins().await?], asking).await
}

#[actix::main]
async fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("provide") => provide().await,
        Some("here") => here().await,
        Some("routers") => routers().await,
        Some("processes") => processes().await,
        Some("network") => network().await,
        _ => {
            here().await?;
            routers().await?;
            processes().await?;
            network().await
        }
    }
}
