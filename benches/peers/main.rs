//! This library beside what people would pick instead: `cargo bench --bench peers -- [--peers DIR] [--rounds N] [--scale X] [NAME ...]`.
//!
//! The others are programs of a folder that is not a part of this project (default `../shared/peers`): a cargo workspace whose binaries are called with
//! `client VARIANT` and print `RESULT {json}`. They are built into `--bins` (default `target/peers/release`) unless they are there; one that cannot be
//! built, or prints no result, is named and left out. Programs take turns, round by round.
//!
//! | workload | |
//! | --- | --- |
//! | W1 | two processes: 20,000 requests in a row, a number and the same with a text of 64 bytes |
//! | W2 | 100,000 requests, 1,000 outstanding |
//! | W3, W4 | one way: 200,000 messages of 64 bytes; 20,000 of 16 KiB; rate between the first and the last arrival |
//! | L1, L2 | one thread: requests in a row; one way, a request after every thousand |
//! | L3, L4 | two threads: requests in a row; one way, a request at the end |
//!
//! `--scale 0.1` is a tenth of the counts. `+1cpu` has all processes on CPU 0, `@sp` the sockets in Rust alone. The table goes to standard output, JSON lines to `target/bench/peers.jsonl`:
//! medians of the rounds, the least and the largest beside them.

#![allow(clippy::expect_used, reason = "a measurement that cannot go on ends")]
#![allow(clippy::cast_precision_loss, reason = "counts and nanoseconds stay far below 2^52")]

#[allow(dead_code, reason = "the other bench uses the rest")]
#[path = "../floors/kid.rs"]
mod kid;
#[allow(dead_code, reason = "the other bench uses the rest")]
#[path = "../floors/load.rs"]
mod load;
mod ours;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use vlmessaging::SOCKETS_VARIABLE;

/// What runs if nothing is named: the variant, and the package that has it; ours are this program.
const PROGRAMS: [(&str, &str); 33] = [
    ("ipc", "ours"),
    ("ipc+1cpu", "ours"),
    ("ipc@sp", "ours"),
    ("ipc@sp+1cpu", "ours"),
    ("tcp", "ours"),
    ("tcp@sp", "ours"),
    ("tcp@sp+1cpu", "ours"),
    ("zmq-ipc", "zmq"),
    ("zmq-ipc+1cpu", "zmq"),
    ("zmq-tcp", "zmq"),
    ("tarpc-unix", "rpc"),
    ("tarpc-unix@ct+1cpu", "rpc"),
    ("tarpc-tcp", "rpc"),
    ("tarpc-tcp@ct+1cpu", "rpc"),
    ("nats", "nats"),
    ("zenoh-unix", "zenoh"),
    ("zenoh-tcp", "zenoh"),
    ("ractor-cluster-tcp", "ractor"),
    ("kameo-remote", "kameo"),
    ("nng-ipc+1cpu", "nng"),
    ("nng-ipc-aio-buf", "nng"),
    ("nng-ipc-aio-buf+1cpu", "nng"),
    ("nng-tcp-buf", "nng"),
    ("raw-unix+1cpu", "raw"),
    ("raw-tcp+1cpu", "raw"),
    ("raw-unix-buf", "raw"),
    ("raw-tcp-buf", "raw"),
    ("local", "ours"),
    ("local+1cpu", "ours"),
    ("actix", "inproc"),
    ("kameo", "inproc"),
    ("ractor", "inproc"),
    ("tokio-mpsc", "inproc"),
];

/// Heading, path in the result, and what a figure of it is called.
const COLUMNS: [(&str, &str, &str); 16] = [
    ("W1 p50", "w1.p50_us", "us"),
    ("W1 p99", "w1.p99_us", "us"),
    ("W1 CPU", "w1.cpu_us_per_op", "us/op"),
    ("W1s p50", "w1s.p50_us", "us"),
    ("W2 requests", "w2.req_per_s", "1/s"),
    ("unanswered", "w2.unanswered", ""),
    ("W3 one way", "w3.msgs_per_s", "1/s"),
    ("lost", "w3.lost", ""),
    ("W4 one way", "w4.mb_per_s", "MB/s"),
    ("lost", "w4.lost", ""),
    ("W3 CPU", "w3.cpu_us_per_op", "us/op"),
    ("L1 request", "l1.ns", "ns"),
    ("L2 one way", "l2.ns", "ns"),
    ("L3 p50", "l3.p50_us", "us"),
    ("L3 p99", "l3.p99_us", "us"),
    ("L4 one way", "l4.ns", "ns"),
];

/// A program without a result by then has none.
const LIMIT: Duration = Duration::from_secs(150);
const SCALE: &str = "PEERS_SCALE";

/// A count as much smaller as was asked for.
pub(crate) fn scaled(count: usize) -> usize {
    let scale = std::env::var(SCALE).ok().and_then(|scale| scale.parse::<f64>().ok()).unwrap_or(1.0);
    ((count as f64 * scale) as usize).max(10)
}

/// A folder of this process for sockets.
pub(crate) fn folder() -> String {
    let folder = std::env::temp_dir().join(format!("vlm-peers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the sockets");
    folder.display().to_string()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["client", variant] => ours::client(variant),
        ["@server", ref rest @ ..] => ours::server(rest),
        // `cargo test --all-targets` runs it without.
        _ if words.contains(&"--bench") => compare(&words),
        _ => println!("nothing to test here: cargo bench --bench peers"),
    }
    ExitCode::SUCCESS
}

struct Options {
    peers: PathBuf,
    bins: PathBuf,
    rounds: usize,
    scale: String,
    names: Vec<String>,
}

impl Options {
    fn of(words: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut options = Self {
            peers: root.join("../shared/peers"),
            bins: root.join("target/peers/release"),
            rounds: 3,
            scale: "1".into(),
            names: Vec::new(),
        };
        let mut words = words.iter().filter(|word| **word != "--bench");
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match *word {
                "--peers" => options.peers = value().into(),
                "--bins" => options.bins = value().into(),
                "--rounds" => options.rounds = value().parse().expect("--rounds needs a number"),
                "--scale" => options.scale = (*value()).into(),
                name => options.names.push(name.into()),
            }
        }
        options
    }

    /// Where a program is; none, and why, if there is none.
    fn program(&self, package: &str) -> Result<PathBuf, String> {
        if package == "ours" {
            return Ok(std::env::current_exe().expect("this program's path"));
        }
        let program = self.bins.join(format!("peer-{package}"));
        if program.exists() {
            return Ok(program);
        }
        let manifest = self.peers.join("Cargo.toml");
        if !manifest.exists() {
            return Err(format!("there is no {}", manifest.display()));
        }
        let target = self.bins.parent().expect("a target folder");
        let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        cargo.args(["build", "--release", "--locked", "--quiet", "-p", &format!("peer-{package}"), "--manifest-path"]);
        let built = cargo.arg(&manifest).env("CARGO_TARGET_DIR", target).status();
        match built {
            Ok(status) if status.success() && program.exists() => Ok(program),
            _ => Err("it cannot be built: see above".into()),
        }
    }
}

fn compare(words: &[&str]) {
    let options = Options::of(words);
    let mut left_out: Vec<String> = Vec::new();
    let mut programs = Vec::new();
    for (variant, package) in PROGRAMS {
        let named = |name: &String| name == variant || name == package;
        if !options.names.is_empty() && !options.names.iter().any(named) {
            continue;
        }
        match options.program(package) {
            Ok(program) => programs.push((label(variant, package), variant, program)),
            Err(why) => left_out.push(format!("{variant}: {why}")),
        }
    }
    let before = load::average();
    let mut results: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for round in 1..=options.rounds {
        for (label, variant, program) in &programs {
            match run(program, variant, &options.scale) {
                Ok(result) => results.entry(label.clone()).or_default().push(result),
                Err(why) => left_out.push(format!("{label}, round {round}: {why}")),
            }
            eprintln!("round {round} of {}: {label}", options.rounds);
        }
    }
    let rows: Vec<_> = programs.iter().filter_map(|(label, ..)| Some((label.as_str(), results.get(label)?))).collect();
    print(&rows, |path| path.starts_with('w'));
    print(&rows, |path| path.starts_with('l'));
    for line in &left_out {
        println!("left out: {line}");
    }
    println!(
        "{} rounds, counts times {}; load average before: {before}; after: {}",
        options.rounds,
        options.scale,
        load::average()
    );
    save(&rows);
}

fn label(variant: &str, package: &str) -> String {
    if package == "ours" { format!("vlmessaging {variant}") } else { variant.to_owned() }
}

/// What one program makes of the workloads.
fn run(program: &Path, variant: &str, scale: &str) -> Result<Value, String> {
    let (variant, pinned) = variant.strip_suffix("+1cpu").map_or((variant, false), |variant| (variant, true));
    let (variant, sockets) = variant.strip_suffix("@sp").map_or((variant, "nng"), |variant| (variant, "sp"));
    let mut command = Command::new(if pinned { Path::new("taskset") } else { program });
    if pinned {
        command.args(["-c", "0"]).arg(program);
    }
    let child = command
        .args(["client", variant])
        .env(SCALE, scale)
        .env(SOCKETS_VARIABLE, sockets)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(|error| error.to_string())?;
    let output = child.stdout.take().expect("it was piped");
    let (told, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let mut results = lines.filter_map(|line| line.strip_prefix("RESULT ").map(ToOwned::to_owned));
        // A program that prints none ends the channel.
        let _ = results.next().map(|line| told.send(line));
    });
    let line = result.recv_timeout(LIMIT);
    // It has said all it had to say: its server ends with it.
    let _ = child.kill();
    let _ = child.wait();
    let line = line.map_err(|_| format!("no result within {LIMIT:?}"))?;
    serde_json::from_str(&line).map_err(|error| error.to_string())
}

/// Sorted figures of the rounds; none where a program has no such workload.
fn figures(results: &[Value], path: &str) -> Vec<f64> {
    let (workload, figure) = path.split_once('.').expect("workload and figure");
    let mut figures: Vec<f64> = results.iter().filter_map(|result| result[workload][figure].as_f64()).collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures
}

fn print(rows: &[(&str, &Vec<Value>)], of: impl Fn(&str) -> bool) {
    let columns: Vec<_> = COLUMNS.into_iter().filter(|(_, path, _)| of(path)).collect();
    let head = columns.iter().map(|(heading, _, unit)| format!("{heading} {unit}").trim().to_owned());
    let mut lines = vec![std::iter::once(String::new()).chain(head).collect::<Vec<_>>()];
    for (label, results) in rows {
        let cells: Vec<String> = columns.iter().map(|(_, path, _)| cell(&figures(results, path))).collect();
        if cells.iter().any(|cell| cell != "-") {
            lines.push(std::iter::once((*label).to_owned()).chain(cells).collect());
        }
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=columns.len()).map(width).collect();
    for line in lines.iter().filter(|_| lines.len() > 1) {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            write!(text, "{cell:<width$}  ").expect("a string takes everything");
        }
        println!("{}", text.trim_end());
    }
    println!();
}

/// The median, and the range where it is one.
fn cell(sorted: &[f64]) -> String {
    let Some(median) = sorted.get(sorted.len() / 2) else { return "-".into() };
    let (least, largest) = (sorted[0], sorted[sorted.len() - 1]);
    let short = |figure: f64| {
        if figure >= 100.0 || figure.fract() == 0.0 { format!("{figure:.0}") } else { format!("{figure:.1}") }
    };
    if short(least) == short(largest) {
        short(*median)
    } else {
        format!("{} ({}..{})", short(*median), short(least), short(largest))
    }
}

fn save(rows: &[(&str, &Vec<Value>)]) {
    let mut lines = String::new();
    for (label, results) in rows {
        for (_, path, unit) in COLUMNS {
            let sorted = figures(results, path);
            let Some(value) = sorted.get(sorted.len() / 2) else { continue };
            let workload = path.split_once('.').map_or("", |(workload, _)| workload);
            let lost = results.iter().filter_map(|result| result[workload]["lost"].as_i64()).sum::<i64>();
            let line = json!({
                "name": format!("{label}/{path}"), "value": value, "unit": unit, "lost": lost, "low": sorted[0], "high": sorted[sorted.len() - 1],
            });
            writeln!(lines, "{line}").expect("a string takes everything");
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder).expect("target/bench");
    std::fs::write(folder.join("peers.jsonl"), lines).expect("target/bench/peers.jsonl");
}
