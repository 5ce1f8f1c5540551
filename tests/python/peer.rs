//! Python processes under a test's control, and the Rust side that they meet.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use vlmessaging::{Addr, Agent, Connection, Contents, Element, Endpoint, Handled, Msg, Router, RouterBuilder};

use crate::environment::python;
use crate::node::OPTIONS;

/// How long a Python process may take to say its next line: it starts in half a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// What one request waits at most. Python answers in a few milliseconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// A process that runs a router, of Python or of Rust. It ends with this.
pub(crate) struct Peer {
    child: Child,
    commands: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<Value>,
    errors: Arc<Mutex<String>>,
    sockets: Vec<PathBuf>,
    /// Its agent.
    pub(crate) addr: Addr,
}

impl Peer {
    /// Starts a Python router whose agent is to be called, and waits until it is up.
    pub(crate) async fn agent(options: &[&str]) -> Self {
        Self::python(options).await
    }

    /// Starts a Python router whose connection is to do what the test says, and waits until it is up.
    pub(crate) async fn client(options: &[&str]) -> Self {
        Self::python(options).await
    }

    /// Starts `node.py`, and waits until it is up.
    pub(crate) async fn python(options: &[&str]) -> Self {
        let mut command = Command::new(python());
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/node.py")).args(options);
        Self::start(command.env("PYTHONDONTWRITEBYTECODE", "1")).await
    }

    /// Starts a Rust router in a process of its own, and waits until it is up.
    pub(crate) async fn rust(options: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program is a file"));
        command.args(["--exact", "node::a_rust_router_in_a_process_of_its_own", "--nocapture"]);
        Self::start(command.env(OPTIONS, json!(options).to_string())).await
    }

    async fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the peer's program runs");
        let lines = read_lines(child.stdout.take().expect("it is piped"));
        let errors = read_all(child.stderr.take().expect("it is piped"));
        let commands = child.stdin.take();
        let mut peer = Self { child, commands, lines, errors, sockets: Vec::new(), addr: Addr::default() };
        let up = peer.next_line().await;
        peer.addr = addr_of(&up["addr"]);
        let endpoints = up["endpoints"].as_array().into_iter().flatten().filter_map(Value::as_str);
        peer.sockets = endpoints.filter_map(|endpoint| endpoint.strip_prefix("ipc://")).map(PathBuf::from).collect();
        peer
    }

    /// Gives a client a command, and waits for what it says.
    pub(crate) async fn tell(&mut self, command: Value) -> Value {
        writeln!(self.commands.as_mut().expect("it has not ended"), "{command}").expect("it is running");
        self.next_line().await
    }

    /// Has a client make the connection to an address that answers, and says how many tries that took.
    pub(crate) async fn meet(&mut self, to: &Addr) -> u64 {
        let met = self.tell(json!({"do": "meet", "to": to, "within": 10_000})).await["tries"].as_u64();
        met.filter(|tries| *tries > 0).unwrap_or_else(|| panic!("{to} does not answer Python"))
    }

    /// Has a client find a provider of a service.
    pub(crate) async fn find(&mut self, service: &str) -> Addr {
        let found = self.tell(json!({"do": "find", "service": service, "within": 15_000})).await;
        assert_ne!(found["entries"], json!([]), "Python finds no {service:?}");
        addr_of(&found["entries"][0][0])
    }

    /// Ends it in order. Its last line says that the main loop lived until then.
    pub(crate) async fn end(mut self) -> Value {
        self.end_in_order().await
    }

    /// The same for one that may have a successor.
    pub(crate) async fn end_in_order(&mut self) -> Value {
        drop(self.commands.take());
        let last = self.next_line().await;
        assert_eq!(last["main_loop_alive"], true, "the router died: {last}");
        last
    }

    /// Ends it at once, as the system would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is running");
        self.child.wait().expect("it has ended");
    }

    /// Another life of this router, which was killed, has begun; some of its sockets are the same, and at the hub's somebody else listens by now.
    pub(crate) fn is_succeeded_by(&mut self, next: Self) {
        let mut killed = std::mem::replace(self, next);
        killed.sockets.retain(|socket| !self.sockets.contains(socket) && !socket.ends_with("hub_1"));
    }

    async fn next_line(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await.expect("the process says something");
        line.expect("the process says something before it ends")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself, and taken its sockets with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for socket in &self.sockets {
            let _ = std::fs::remove_file(socket);
        }
        if thread::panicking() {
            eprintln!("---- the process at {} said:\n{}", self.addr, self.errors.lock());
        }
    }
}

/// A folder for the sockets of one test's Rust routers.
pub(crate) struct Folder {
    path: PathBuf,
    /// Routers are killed here, and leave their files.
    is_left_behind: bool,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("vlm-python-{}", unique()));
        std::fs::create_dir(&path).expect("a new folder");
        Self { path, is_left_behind: false }
    }

    /// One in which routers are killed: they leave their files.
    pub(crate) fn of_the_killed() -> Self {
        let mut folder = Self::new();
        folder.is_left_behind = true;
        folder
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().expect("a folder of plain letters")
    }

    /// A router in this folder, without a hub.
    pub(crate) fn router(&self, builder: RouterBuilder) -> RouterBuilder {
        builder.folder(&self.path).without_hub()
    }

    /// A router in this folder that is its hub.
    pub(crate) fn hub(&self, builder: RouterBuilder) -> (RouterBuilder, String) {
        (builder.folder(&self.path).hub("hub_1"), format!("ipc://{}", self.path.join("hub_1").display()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_left_behind || thread::panicking() {
            // The router was not shut down: its sockets go with the folder, as far as they can.
            let _ = std::fs::remove_dir_all(&self.path);
        } else if let Err(error) = std::fs::remove_dir(&self.path) {
            panic!("a socket outlived its router: {error}");
        }
    }
}

/// The Rust agent of these tests: the same subjects as the agent of `node.py`.
#[derive(Default)]
pub(crate) struct AddOne {
    count: u64,
}

impl Actor for AddOne {
    type Context = Context<Self>;
}

impl Agent for AddOne {}

impl Handler<Msg> for AddOne {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        match msg.subject() {
            "ADD_ONE" => {
                self.count += 1;
                msg.answer(|n: i64| n + 1)
            }
            "COUNT" => msg.reply(self.count),
            "SILENCE" => msg.handled(),
            "ECHO" => match msg.raw().element().and_then(|element| Contents::from_element(&element)) {
                Ok(contents) => msg.reply(contents),
                Err(error) => msg.refuse(&error.to_string()),
            },
            _ => msg.unhandled(),
        }
    }
}

/// The contents of EVENT messages as they come, until one is LAST.
pub(crate) struct Events(mpsc::UnboundedReceiver<Option<i64>>);

impl Events {
    pub(crate) fn spawn(router: &Router) -> (Addr, Self) {
        let (tell, events) = mpsc::unbounded_channel();
        (router.spawn(Listener(tell)).addr(), Self(events))
    }

    pub(crate) async fn until_last(&mut self) -> Vec<i64> {
        let mut came = Vec::new();
        while let Some(event) = tokio::time::timeout(PATIENCE, self.0.recv()).await.expect("the last comes").flatten() {
            came.push(event);
        }
        came
    }
}

struct Listener(mpsc::UnboundedSender<Option<i64>>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Agent for Listener {}

impl Handler<Msg> for Listener {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        let event = match msg.subject() {
            "EVENT" => msg.contents::<i64>().ok(),
            "LAST" => None,
            _ => return msg.unhandled(),
        };
        // A test that has seen the last one listens no more.
        let _ = self.0.send(event);
        msg.handled()
    }
}

/// Asks a Python agent twenty times, and expects every answer.
pub(crate) async fn add_one_twenty_times(conn: &Connection, agent: &Addr) {
    for n in 0..20_i64 {
        let reply = conn.request(agent, "ADD_ONE", n, LIMIT).await.expect("Python answers");
        assert_eq!(reply.contents::<i64>(), Ok(n + 1));
    }
}

/// Has a Python client ask a Rust agent twenty times, and expects every answer.
pub(crate) async fn python_adds_one_twenty_times(client: &mut Peer, agent: &Addr) {
    client.meet(agent).await;
    let asked = json!({"do": "ask", "to": agent, "subject": "ADD_ONE", "contents": 100, "times": 20});
    let expected: Vec<Value> = (101..121).map(|n| json!({"subject": "ADD_ONE", "contents": n})).collect();
    assert_eq!(client.tell(asked).await["replies"], json!(expected));
}

/// Ion text, and JSON, as the element it stands for.
pub(crate) fn element(text: &str) -> Element {
    Element::read_one(text).expect("it is Ion text")
}

/// An ipc endpoint that a Python router can be a hub at; Python takes them in this folder alone.
pub(crate) fn python_hub() -> String {
    format!("ipc:///tmp/hub_vlm-python-{}", unique())
}

/// A tcp endpoint that nobody listens at. Python does not know port 0, and stands still where a port is in use: it is none of those that the system
/// gives to dialers, one of whom could have it by the time that a router comes back to it.
pub(crate) fn free_tcp() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let port = 20_000 + (std::process::id() * 64 + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port as u16)).is_ok() {
            return format!("tcp://127.0.0.1:{port}");
        }
    }
}

/// A number for a Python router that no process has.
pub(crate) fn router_number() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Above the largest process id of the system, 2 to the 22nd.
    (10_000_000 + std::process::id() * 100 + NEXT.fetch_add(1, Ordering::Relaxed)).to_string()
}

/// The address of a connection as `tcp` reaches its router.
pub(crate) fn over_tcp(addr: &Addr, tcp: &Endpoint) -> Addr {
    Addr { net: Some(tcp.clone()), ..addr.clone() }
}

/// Waits until `ready` says so.
pub(crate) async fn until(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ready().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn addr_of(json: &Value) -> Addr {
    let endpoint = |value: &Value| value.as_str().map(Endpoint::from);
    Addr { net: endpoint(&json[0]), machine: endpoint(&json[1]), connection: json[2].as_u64() }
}

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn read_lines(output: impl Read + Send + 'static) -> mpsc::UnboundedReceiver<Value> {
    let (lines, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Between its lines a Rust router's says how the test is that it runs in. The test here may have ended before its peer did.
            let _ = serde_json::from_str(&line).map(|line: Value| lines.send(line));
        }
    });
    receiver
}

fn read_all(mut output: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let read = Arc::new(Mutex::new(String::new()));
    let into = read.clone();
    thread::spawn(move || {
        let mut some = [0; 4096];
        while let Ok(n @ 1..) = output.read(&mut some) {
            into.lock().push_str(&String::from_utf8_lossy(&some[..n]));
        }
    });
    read
}
