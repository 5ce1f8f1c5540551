//! Real processes that are killed, stopped, besieged and restarted while they send to each other: `cargo bench --bench chaos -- --seconds 600 --over tcp`.
//!
//! Every process writes a journal: `sent` before it sends, `outcome` when it is told, `handled` in the handler. The checker joins them: each message of a process that was
//! not killed has exactly one outcome, what is delivered was handled, what is refused was not, and nothing was handled twice. `--seed` repeats the order of the faults,
//! `-- parted`, as root, cuts a TCP connection between network namespaces. `-- show` runs what the README promises, one after the other, and prints a table; both need `cargo build --release` first, or `--vlm PATH`.
//! `--over` is `ipc` or `tcp`, `--sockets` is `nng` or `sp`, `--pause-ms` what each of a process's eight senders waits between two messages. The exit status tells.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod checker;
mod faults;
mod node;
mod parted;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

struct Options {
    seed: u64,
    length: Duration,
    pause: Duration,
    over_tcp: bool,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    if args.iter().any(|arg| arg == "--test") {
        return ExitCode::SUCCESS;
    }
    if let Some(sockets) = value("--sockets") {
        return again_with(&sockets, &args);
    }
    let number = |name: &str, default: u64| value(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let options = Options {
        seed: number("--seed", 1),
        length: Duration::from_secs(number("--seconds", 60)),
        pause: Duration::from_millis(number("--pause-ms", 10)),
        over_tcp: value("--over").is_some_and(|over| over == "tcp"),
    };
    if let Some(dir) = value("--node") {
        let hub = options.over_tcp.then(|| value("--hub").unwrap());
        let (folder, at) = (value("--folder"), value("--at"));
        let folder = folder.as_ref().unwrap_or(&dir);
        let at = at.as_deref().unwrap_or("tcp://127.0.0.1:0");
        node::be_a_node(Path::new(&dir), Path::new(folder), (hub, at), &value("--role").unwrap(), options.pause);
        return ExitCode::SUCCESS;
    }
    if let Some(dir) = value("--provide") {
        show::provide(Path::new(&dir));
        return ExitCode::SUCCESS;
    }
    let dir = std::env::temp_dir().join(format!("vlm-chaos-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let vlm = value("--vlm").map_or_else(|| std::env::current_exe().unwrap().with_file_name("../vlm"), PathBuf::from);
    let ok = if args.iter().any(|arg| arg == "show") {
        show::show(&dir, &vlm)
    } else if args.iter().any(|arg| arg == "parted") {
        parted::run(&options, &dir, &vlm)
    } else {
        faults::Chaos::new(&options, &dir).run()
    };
    if ok {
        std::fs::remove_dir_all(&dir).unwrap();
    } else {
        println!("the journals are in {}", dir.display());
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The choice of sockets is inherited by every process of the run.
fn again_with(sockets: &str, args: &[String]) -> ExitCode {
    let at = args.iter().position(|arg| arg == "--sockets").unwrap();
    let rest = args[1..at].iter().chain(&args[at + 2..]);
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    let status = again.args(rest).env(vlmessaging::SOCKETS_VARIABLE, sockets).status().unwrap();
    ExitCode::from(u8::from(!status.success()))
}
