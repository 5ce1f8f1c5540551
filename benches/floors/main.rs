//! Every figure of this library beside its floor, measured in the same run: `cargo bench --bench floors [-- NAME] [--quick]`.
//!
//! A floor is what the layer below can do alone: raw actix in process, raw nng between processes, a program that starts nothing. `NAME` is a part of
//! a line's name (`idle`, `in process`, `ipc/`, `round trip`): only such lines are measured. `--quick` takes few and small rounds, within 20 s. The
//! table goes to standard output, the same as JSON lines to `target/bench/floors.jsonl`.
//!
//! `VLM_SOCKETS=sp` measures with the sockets in Rust alone.
//!
//! # Reading the table
//!
//! - `ours`, `floor`: medians over the rounds, which take turns; `ratio` is ours divided by the floor: below 1 is better for times, above 1 for rates.
//! - `spread`: the least and the largest round of ours, then of the floor.
//! - `lost`: messages of ours that did not arrive, or requests without the right answer; `+n` counts those that came out of order, or twice.
//!
//! # The lines
//!
//! - `in process/*` (`in_process`): one agent asked or told by another party of the same router; the floor is `actix::Addr::send` and `do_send`, which has no bound and
//!   tells nothing; `outcome known` has beside it what actix has for that: `send` of many, awaited together. `two threads`
//!   has the agent on an arbiter of its own, `pinned` both threads on one CPU.
//! - `ipc/*`, `tcp/*` (`pairs`): a client and a server process, contents a string of 64 bytes, or more. Shapes of the floor (`raw`): *two ways* is
//!   what the library uses, a listener for any number of peers on each side that only receives, and a plain dialer towards the peer that only sends;
//!   *one pipe* is the best that nng can do, plain Pair1 both ways, with buffers of 1,024 messages where many are on their way.
//! - `two hops/*`: the client reaches the server through a router that passes on, tcp and then a unix socket.
//! - `size/*` (`size`): what a router costs that holds much, beside one that holds little.
//! - `sp, *` (`by_sp`): the same on sockets in Rust alone; the floors are the library on nng, nng alone, and a bare socket.
//! - `tcp, not dialable/*`: the client does not listen, so it is answered on the pipe that it dialed.
//! - `cold start/*` (`start`): from before a program's process is made until its parent has read that it was answered; at the end the library shuts
//!   down in order, which `until its end` adds. The floor dials and asks with raw nng.
//! - `instructions/*` (`counts`): of one operation, by `valgrind --tool=callgrind`; left out, by name, where there is no valgrind.
//! - `idle/*`: a router two seconds after its start; the floor is an actix System with nothing in it. Crates are those of the normal dependency tree, beside
//!   those of actix, nng and ion-rs alone.
//!
//! Waking a thread on the other CPU may cost more than the message does, so round trips are measured with all processes pinned to CPU 0; the rest is not pinned.

#![allow(clippy::expect_used, reason = "a measurement that cannot go on ends")]
#![allow(clippy::cast_precision_loss, reason = "counts and nanoseconds stay far below 2^52")]

mod bare;
mod by_sp;
mod counts;
mod in_process;
mod kid;
mod load;
mod ours;
mod pairs;
mod raw;
mod report;
mod size;
mod start;

use std::path::PathBuf;
use std::process::ExitCode;

use report::Report;

/// What was asked for, and what has come of it.
pub(crate) struct Run {
    pub(crate) quick: bool,
    filter: Option<String>,
    /// A folder of this run's own, for sockets.
    folder: PathBuf,
    folders: usize,
    pub(crate) report: Report,
}

impl Run {
    /// Whether a line is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter))
    }

    /// How often to repeat.
    pub(crate) fn rounds(&self, full: usize) -> usize {
        if self.quick { 1 } else { full }
    }

    /// A tenth of a count for a quick run.
    pub(crate) fn count(&self, full: usize) -> usize {
        if self.quick { full / 10 } else { full }
    }

    /// An empty folder that no router has used.
    pub(crate) fn new_folder(&mut self) -> String {
        self.folders += 1;
        let folder = self.folder.join(self.folders.to_string());
        std::fs::create_dir_all(&folder).expect("a folder for the sockets");
        folder.display().to_string()
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["@in-process", ref rest @ ..] => in_process::child(rest),
        ["@count", ref rest @ ..] => counts::child(rest),
        ["@client", ref rest @ ..] => pairs::client(rest),
        ["@server", "ours", ref rest @ ..] => ours::server(rest),
        ["@server", "raw", ref rest @ ..] => raw::server(rest),
        ["@server", "bare", ref rest @ ..] => bare::server(rest),
        ["@server", "many", ref rest @ ..] => size::many(rest),
        ["@size", ref rest @ ..] => size::child(rest),
        ["@cold", ref rest @ ..] => start::cold_client(rest),
        ["@idle", what, folder] => start::idle_program(what, folder),
        // `cargo test --all-targets` runs it without.
        _ if words.contains(&"--bench") => all(&words),
        _ => println!("nothing to test here: cargo bench --bench floors"),
    }
    ExitCode::SUCCESS
}

fn all(words: &[&str]) {
    let folder = std::env::temp_dir().join(format!("vlm-floors-{}", std::process::id()));
    let filter = words.iter().find(|word| !word.starts_with("--")).map(ToString::to_string);
    let quick = words.contains(&"--quick");
    let mut run = Run { quick, filter, folder, folders: 0, report: Report::default() };
    let load = load::average();
    in_process::measure(&mut run);
    pairs::measure(&mut run);
    by_sp::measure(&mut run);
    size::measure(&mut run);
    start::measure_cold(&mut run);
    start::measure_idle(&mut run);
    counts::measure(&mut run);
    run.report.print();
    println!("load average before: {load}; after: {}", load::average());
    run.report.save();
    // What is left is socket files of programs that were ended; a temporary folder may keep them.
    let _ = std::fs::remove_dir_all(&run.folder);
}
