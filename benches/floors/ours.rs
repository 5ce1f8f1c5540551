//! The same loads through the library: a router in each process, an agent that answers and counts.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Context, Handler};
use vlmessaging::{Addr, Agent, Connection, Endpoint, Handled, Msg, Registration, Router, RouterBuilder};

use crate::kid::{Kid, serve};
use crate::load::{Load, Outcome, PATIENCE, Tally, WARM_UP, body, of_answers, of_round_trips, share};

/// What the agent of [`server`] provides, if it is told to.
pub(crate) const SERVICE: &str = "FloorsEcho";

struct Echo {
    tally: Arc<Tally>,
}

impl Actor for Echo {
    type Context = Context<Self>;
}

impl Agent for Echo {}

impl Handler<Msg> for Echo {
    type Result = Handled;

    fn handle(&mut self, mut msg: Msg, _: &mut Context<Self>) -> Handled {
        match msg.subject() {
            "ECHO" => msg.answer(|text: String| text),
            "EVENT" => match msg.take_contents::<String>() {
                Ok(text) => {
                    self.tally.arrived(&text);
                    msg.handled()
                }
                Err(error) => msg.refuse(&error.to_string()),
            },
            _ => msg.unhandled(),
        }
    }
}

/// The other process. `over` is `ipc`, `tcp`, or `hub` for a provider on the machine's hub.
pub(crate) fn server(words: &[&str]) {
    let [over, folder] = *words else { panic!("over and folder") };
    let tally = Arc::new(Tally::default());
    let (told, started) = std::sync::mpsc::channel();
    let (agent, over, folder) = (Echo { tally: tally.clone() }, over.to_owned(), folder.to_owned());
    std::thread::spawn(move || {
        actix::System::new().block_on(async move {
            let router = builder(if over == "tcp-undialable" { "tcp" } else { &over }, &folder);
            let router = router.start().await.expect("a router");
            let echo = router.spawn(agent);
            let registration: Option<Registration> = match &*over {
                "hub" => Some(echo.register(SERVICE).await.expect("a registration")),
                _ => None,
            };
            let Addr { net, machine, connection } = router.net_addr(echo.addr().connection.unwrap_or_default());
            let endpoint = net.or(machine).expect("an endpoint");
            told.send(format!("{endpoint} {}", connection.unwrap_or_default())).expect("somebody to tell");
            router.stopped().await;
            drop(registration);
        });
    });
    serve(&started.recv().expect("a router"), &tally);
}

/// An agent that answers, for as long as its router runs.
pub(crate) fn echo(router: &Router) -> Addr {
    router.spawn(Echo { tally: Arc::default() }).addr()
}

/// An address as [`server`] says it.
pub(crate) fn parse(ready: &str) -> Addr {
    let (endpoint, number) = ready.split_once(' ').expect("endpoint and number");
    Addr::at(Endpoint::new(endpoint), number.parse().expect("a number"))
}

/// The router of either process; `sp-` before the way says which sockets.
pub(crate) fn builder(over: &str, folder: &str) -> RouterBuilder {
    if let Some(over) = over.strip_prefix("sp-") {
        return builder(over, folder).sockets("sp".parse().expect("it is compiled in"));
    }
    match over {
        "ipc" => Router::machine().without_hub(),
        "hub" => Router::machine(),
        "tcp" => Router::network().without_hub().listen("tcp://127.0.0.1:0"),
        "tcp-undialable" => Router::network().without_hub(),
        _ => panic!("over what: {over}"),
    }
    .folder(folder)
}

pub(crate) struct Client {
    pub(crate) server: Kid,
    to: Addr,
    conn: Connection,
    router: Router,
    /// What passes messages on, if something does.
    _gateway: Option<Kid>,
}

impl Client {
    pub(crate) async fn start(over: &str, folder: &str) -> Self {
        let two_hops = over == "two-hops";
        let server = Kid::start(&["@server", "ours", if two_hops { "ipc" } else { over }, folder]);
        let mut to = parse(&server.ready());
        let gateway = two_hops.then(|| Kid::start(&["@server", "ours", "tcp", folder]));
        if let Some(gateway) = &gateway {
            to.net = parse(&gateway.ready()).net;
        }
        let router = builder(if two_hops { "tcp" } else { over }, folder).start().await.expect("a router");
        let conn = router.connect();
        Self { server, to, conn, router, _gateway: gateway }
    }

    pub(crate) async fn run(&mut self, load: Load) -> Outcome {
        match load {
            Load::Sequential { count } => self.sequential(count).await,
            Load::Outstanding { count, window } => self.outstanding(count, window).await,
            Load::Stream { count, size } => {
                let sent = one_way(&self.conn, &self.to, (0..count).map(|number| body(number, size)));
                sent.await;
                self.arrived(count).await
            }
            Load::Together { count, senders } => {
                let tasks: Vec<_> = (0..senders)
                    .map(|sender| {
                        let (conn, to) = (self.router.connect(), self.to.clone());
                        actix::spawn(async move { one_way(&conn, &to, share(count, senders, sender)).await })
                    })
                    .collect();
                for task in tasks {
                    task.await.expect("a task that does not panic");
                }
                self.arrived(count).await
            }
        }
    }

    async fn sequential(&self, count: usize) -> Outcome {
        let mut nanos = Vec::with_capacity(count);
        let began = Instant::now();
        for number in 0..count {
            let body = body(number, 64);
            let asked = Instant::now();
            if !ask(&self.conn, &self.to, body).await {
                continue;
            }
            nanos.push(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        of_round_trips(nanos, count, began.elapsed().as_secs_f64())
    }

    /// As many tasks as may be outstanding, each with one request at a time.
    async fn outstanding(&self, count: usize, window: usize) -> Outcome {
        let (asked, good) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let began = Instant::now();
        let tasks: Vec<_> = (0..window)
            .map(|_| {
                let (conn, to, asked, good) = (self.conn.clone(), self.to.clone(), asked.clone(), good.clone());
                actix::spawn(async move {
                    while asked.get() < count {
                        let number = asked.replace(asked.get() + 1);
                        if ask(&conn, &to, body(number, 64)).await {
                            good.set(good.get() + 1);
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("a task that does not panic");
        }
        of_answers(good.get(), count, began.elapsed().as_secs_f64())
    }

    async fn arrived(&mut self, count: usize) -> Outcome {
        let mut outcome: Outcome = {
            let told = self.server.ask(&format!("wait {count}"), PATIENCE).expect("the server counts");
            serde_json::from_str(&told).expect("an outcome")
        };
        outcome.lost = count as u64 - outcome.good;
        if outcome.lost > 0 {
            let report = tokio::time::timeout(PATIENCE, self.conn.not_delivered()).await;
            eprintln!("{} messages did not arrive; the first report: {report:?}", outcome.lost);
        }
        outcome
    }

    pub(crate) async fn warm_up(&self) {
        for number in 0..WARM_UP {
            assert!(ask(&self.conn, &self.to, body(number, 64)).await, "our server answers");
        }
    }
}

async fn one_way(conn: &Connection, to: &Addr, bodies: impl Iterator<Item = String>) {
    for body in bodies {
        if let Err(error) = conn.send(to, "EVENT", body).await {
            eprintln!("not sent: {error}");
            return;
        }
    }
}

/// Asks, and says whether the right answer came.
pub(crate) async fn ask(conn: &Connection, to: &Addr, body: String) -> bool {
    match conn.request(to, "ECHO", body.clone(), PATIENCE).await {
        Ok(mut answer) => answer.take_contents::<String>().is_ok_and(|answer| answer == body),
        Err(error) => {
            eprintln!("not answered: {error}");
            false
        }
    }
}
