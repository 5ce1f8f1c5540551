//! A router in a process of its own, which does what it is told on standard input.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use vlmessaging::Router;

/// Its folder; and for one of the network: where it listens, and whom it joins, separated by commas.
const FOLDER: &str = "VLM_NODE_FOLDER";
const LISTEN: &str = "VLM_NODE_LISTEN";
const JOIN: &str = "VLM_NODE_JOIN";

/// The program of the process.
pub(crate) async fn run() {
    let text = |name: &str| std::env::var(name).ok();
    let folder = text(FOLDER).expect("a folder");
    let builder = match text(LISTEN) {
        None => Router::machine().folder(&folder),
        Some(listen) => {
            let builder = Router::network().folder(&folder).without_hub().vnet("desk").listen(listen);
            text(JOIN).expect("whom to join").split(',').fold(builder, vlmessaging::RouterBuilder::join)
        }
    };
    let router = builder.start().await.expect("a router");
    let conn = router.connect();
    let (say, mut said) = tokio::sync::mpsc::unbounded_channel::<String>();
    std::thread::spawn(move || std::io::stdin().lines().map_while(Result::ok).all(|line| say.send(line).is_ok()));
    let mut held = BTreeMap::new();
    while let Some(line) = said.recv().await {
        match line.split_once(' ') {
            Some(("add", name)) => drop(held.insert(name.to_string(), conn.register(name).await.expect("registered"))),
            Some(("drop", name)) => drop(held.remove(name)),
            _ if line == "hub" => println!("{}", router.endpoints().iter().any(|at| at.as_str().ends_with("/hub_1"))),
            _ => {
                let known = router.known();
                let mut known: Vec<&str> =
                    known.iter().flat_map(|router| &router.entries).map(|entry| entry.service.as_str()).collect();
                known.sort_unstable();
                println!("{}", known.join(","));
            }
        }
    }
    router.shutdown().await;
}

/// The process, from outside.
pub(crate) struct Node {
    pub(crate) child: Child,
    tell: ChildStdin,
    told: Receiver<String>,
}

impl Node {
    /// A router of a machine.
    pub(crate) fn of_machine(folder: &str) -> Self {
        Self::start(Command::new(std::env::current_exe().expect("this program")).env(FOLDER, folder))
    }

    /// A router of the network, in a namespace.
    pub(crate) fn of_network(namespace: &str, folder: &str, listen: &str, join: &str) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(std::env::current_exe().expect("this program"));
        Self::start(command.env(FOLDER, folder).env(LISTEN, listen).env(JOIN, join))
    }

    fn start(command: &mut Command) -> Self {
        let command = command.arg("node").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the process starts");
        let (say, told) = channel();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || out.lines().map_while(Result::ok).all(|line| say.send(line).is_ok()));
        Self { tell: child.stdin.take().expect("piped"), child, told }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.tell, "{line}").expect("the node has ended");
    }

    fn ask(&mut self, what: &str) -> String {
        self.tell(what);
        self.told.recv_timeout(Duration::from_secs(10)).expect("the node answers")
    }

    /// The services that it knows, in order.
    pub(crate) fn known(&mut self) -> String {
        self.ask("known")
    }

    /// Whether it is the machine's hub.
    pub(crate) fn is_hub(&mut self) -> bool {
        self.ask("hub") == "true"
    }

    pub(crate) fn end(self) {
        let Self { mut child, tell, .. } = self;
        drop(tell);
        let _ = child.wait();
    }

    /// Without a goodbye.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        let _ = self.child.wait();
    }
}

/// Waits until all know the same, and says how long that took.
pub(crate) fn agree(nodes: &mut [Node], all: &str, limit: Duration) -> Duration {
    let since = Instant::now();
    loop {
        let known: Vec<String> = nodes.iter_mut().map(Node::known).collect();
        if known.iter().all(|known| known == all) {
            return since.elapsed();
        }
        assert!(since.elapsed() < limit, "they never agree on {all}: {known:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
