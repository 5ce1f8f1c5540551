//! One process: it sends to all others, handles what comes, and writes a journal of both.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler};
use futures::future::join_all;
use vlmessaging::{Addr, Agent, Connection, DeliverError, Handled, Msg, Router};

const SENDERS: usize = 8;
/// Messages of a flood, all at once. Default 5,000: more than a router lets be on their way to an agent once two flood it.
const FLOOD: usize = 5_000;
/// How long a message waits for its outcome. Default 10 s.
const LIMIT: Duration = Duration::from_secs(10);
const VNET: &str = "chaos";

#[derive(Clone)]
struct Journal(Arc<File>);

impl Journal {
    fn write(&self, line: &str) {
        (&*self.0).write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

struct Target(Journal);

impl Actor for Target {
    type Context = Context<Self>;
}

impl Agent for Target {}

impl Handler<Msg> for Target {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        match msg.contents::<u64>() {
            Ok(id) if msg.subject() == "TELL" => {
                self.0.write(&format!("handled {id}"));
                msg.handled()
            }
            _ => msg.unhandled(),
        }
    }
}

/// Sends to everybody and handles what comes, until its input ends. On it `flood` means: send many at once; `hush`: send no more. The role `hub` is the network's hub, `spared` is never one.
pub(crate) fn be_a_node(dir: &Path, folder: &Path, (hub, at): (Option<String>, &str), role: &str, pause: Duration) {
    // Systems use the numbers of ended processes again.
    let lives = (0..256).map(|again| again << 22 | u64::from(std::process::id()));
    let open = |life: &u64| OpenOptions::new().create_new(true).append(true).open(dir.join(format!("journal-{life}")));
    let (life, journal) = lives.map(|life| (life, open(&life))).find(|(_, journal)| journal.is_ok()).unwrap();
    let journal = Journal(Arc::new(journal.unwrap()));
    actix::System::new().block_on(async move {
        let router = match hub {
            None if role == "spared" => Router::machine().folder(folder).guest(),
            None => Router::machine().folder(folder),
            Some(hub) if role == "hub" => {
                Router::network().folder(folder).without_hub().listen(hub.as_str()).vnet(VNET)
            }
            Some(hub) => Router::network().folder(folder).without_hub().listen(at).join(hub.as_str()).vnet(VNET),
        };
        let router = router.start().await.unwrap();
        let target = router.spawn(Target(journal.clone()));
        let registration = target.register("Target").await.unwrap();
        let next = Rc::new(Cell::new(life << 32));
        let teller = Teller { router: router.clone(), journal: journal.clone(), next };
        let over = Rc::new(Cell::new(false));
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let (teller, over) = (teller.clone(), over.clone());
                actix::spawn(async move {
                    let conn = teller.router.connect();
                    while !over.get() {
                        teller.tell(&conn).await;
                        tokio::time::sleep(pause).await;
                    }
                })
            })
            .collect();
        let (say, mut asked) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || std::io::stdin().lines().map_while(Result::ok).all(|line| say.send(line).is_ok()));
        // Until the parent closes it, or ends.
        while let Some(line) = asked.recv().await {
            if line == "hush" {
                over.set(true);
                continue;
            }
            let conn = router.connect();
            join_all((0..FLOOD).map(|_| teller.tell(&conn))).await;
        }
        over.set(true);
        for sender in senders {
            sender.await.unwrap();
        }
        drop(registration);
        router.shutdown().await;
        journal.write("ended");
    });
}

#[derive(Clone)]
struct Teller {
    router: Router,
    journal: Journal,
    /// The number of the next message: this life's, and how many there were before.
    next: Rc<Cell<u64>>,
}

impl Teller {
    /// Sends one message, and writes down what became of it.
    async fn tell(&self, conn: &Connection) {
        let id = self.next.replace(self.next.get() + 1);
        let targets = conn.find("Target").all();
        let Some(target) = targets.get(id as usize % targets.len().max(1)) else {
            return tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.journal.write(&format!("sent {id}"));
        let began = Instant::now();
        let told = conn.deliver(Addr::from(target), "TELL", id, LIMIT).await;
        let kind = match &told {
            Ok(()) => "delivered",
            Err(DeliverError::NotSent(_) | DeliverError::Refused(_)) => "refused",
            Err(_) => "unknown",
        };
        let why = told.err().map_or(String::new(), |error| error.to_string());
        self.journal.write(&format!("outcome {id} {kind} {} {why}", began.elapsed().as_micros()));
    }
}
