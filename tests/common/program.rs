//! Other programs: this one started again, in the part of a provider or alone.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use vlmessaging::{Addr, FOLDER_VARIABLE, Router, RouterBuilder};

use super::agents::does;

const PART: &str = "VLM_TEST_PART";
const AT: &str = "VLM_TEST_AT";

/// A provider in a process of its own. It is killed with this.
pub(crate) struct Program {
    child: Child,
    /// Answers `ADD_ONE`, and never `HOLD`.
    pub(crate) agent: Addr,
}

impl Program {
    /// Starts a provider that listens at `at` besides its own endpoint.
    pub(crate) fn start(folder: &Path, part: &str, at: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "routing::a_provider_in_another_process_is_reached", "--nocapture"])
            .env(FOLDER_VARIABLE, folder)
            .env(PART, part)
            .env(AT, at)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let ready = out.lines().map_while(Result::ok).find_map(|line| line.split_once("READY ")?.1.parse().ok());
        Self { child, agent: ready.expect("the provider did not start") }
    }

    /// Bytes of memory that it had at most so far.
    pub(crate) fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
    }

    /// Files and sockets that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a process that was started as a provider: provides, and does not come back.
pub(crate) fn play_part() {
    let Ok(part) = std::env::var(PART) else { return };
    let at = std::env::var(AT).unwrap();
    let builder = match part.as_str() {
        "tcp" => Router::network().without_hub(),
        "ipc" => Router::machine().without_hub(),
        "hub" => Router::machine(),
        other => panic!("no part {other}"),
    };
    actix::System::new().block_on(provide(if at.is_empty() { builder } else { builder.listen(at) }));
}

async fn provide(builder: RouterBuilder) {
    let router = builder.start().await.unwrap();
    let mut held = Vec::new();
    let agent = router.spawn(does(move |msg| match msg.subject() {
        "ADD_ONE" => msg.answer(|n: i64| n + 1),
        "HOLD" => {
            let (handled, msg) = msg.later();
            held.push(msg);
            handled
        }
        _ => msg.unhandled(),
    }));
    let _entry = agent.register("AddOne").await.unwrap();
    let addr = router.net_addr(super::number(&agent));
    let text = |endpoint: Option<vlmessaging::Endpoint>| endpoint.map(|at| at.to_string()).unwrap_or_default();
    println!("\nREADY {}|{}|{}", text(addr.net), text(addr.machine), addr.connection.unwrap());
    std::future::pending::<()>().await;
}

/// Runs a test in a process of its own, where nobody else opens descriptors or starts threads. `name` is the test's.
pub(crate) fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var(PART).is_ok_and(|part| part == "alone") {
        return test();
    }
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(PART, "alone")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(said.contains("1 passed"), "no test of that name ran: {said}");
}
