//! `vlm`: look at a network of routers, call and measure agents, run ready-made ones, and read frames.
//!
//! Every command starts a router of its own, asks the network, and ends. `agents/README.md` has the options, the fields of `--json`
//! and the exit statuses.

#![allow(clippy::doc_markdown, reason = "the comments of options are the help that a terminal shows")]
#![allow(clippy::struct_excessive_bools, reason = "options are switches that have nothing to do with each other")]

mod command;
mod outcome;
mod place;
mod signals;
mod text;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use command::{agent, burst, call, check, codec, hub, ls, ping, sink, why};
use outcome::{Exit, Failure};

const AFTER_HELP: &str = "\
Two terminals find each other without any option:
  vlm agent add-one
  vlm call AddOneAgent ADD_ONE 41

Exit status: 0 ok, 1 failed otherwise, 2 usage, 3 not found, 4 not delivered, 5 not understood, 6 timed out.";

/// Messaging between agents: look at a network, call agents, run ready-made ones.
#[derive(Parser)]
#[command(name = "vlm", version, after_help = AFTER_HELP, arg_required_else_help = true)]
struct Vlm {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a router as the machine's hub, at which the others find each other
    Hub(hub::Hub),
    /// List the entries and the routers of the network
    Ls(ls::Ls),
    /// Explain who provides a service, or what is at an address, and who can see it
    Why(why::Why),
    /// Compare what all directories of the network hold
    Check(check::Check),
    /// Ask every provider of a service, or an address, whether it is there
    Ping(ping::Ping),
    /// Send a request and print the answer, once or many times
    Call(call::Call),
    /// Run a ready-made agent
    #[command(subcommand)]
    Agent(agent::Agent),
    /// Run an agent that counts one-way messages
    Sink(sink::Sink),
    /// Send one-way messages, and ask a sink what arrived
    Burst(burst::Burst),
    /// Read frames, as lines of hex on standard input, into lines of JSON
    Decode(codec::Decode),
    /// Write frames, as lines of hex, from lines of JSON on standard input
    Encode(codec::Encode),
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let (name, is_json, ended) = run(Vlm::parse().command);
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.tell(name, is_json);
            failure.exit.into()
        }
    }
}

/// Runs a command; its name, and whether it speaks JSON, come back for the telling of a failure.
fn run(command: Command) -> (&'static str, bool, Result<Exit, Failure>) {
    match command {
        Command::Hub(hub) => ("vlm hub", hub.place.json, in_a_system(hub.run())),
        Command::Ls(ls) => ("vlm ls", ls.place.json, in_a_system(ls.run())),
        Command::Why(why) => ("vlm why", why.place.json, in_a_system(why.run())),
        Command::Check(check) => ("vlm check", check.place.json, in_a_system(check.run())),
        Command::Ping(ping) => ("vlm ping", ping.place.json, in_a_system(ping.run())),
        Command::Call(call) => ("vlm call", call.place.json, in_a_system(call.run())),
        Command::Agent(agent::Agent::AddOne(add_one)) => {
            ("vlm agent add-one", add_one.place.json, in_a_system(add_one.run()))
        }
        Command::Sink(sink) => ("vlm sink", sink.place.json, in_a_system(sink.run())),
        Command::Burst(burst) => ("vlm burst", burst.place.json, in_a_system(burst.run())),
        Command::Decode(decode) => ("vlm decode", decode.json, decode.run()),
        Command::Encode(encode) => ("vlm encode", encode.json, encode.run()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Vlm::command(), "vlm", &mut script);
            outcome::print(String::from_utf8_lossy(&script).trim_end());
            ("vlm completions", false, Ok(Exit::Ok))
        }
    }
}

fn in_a_system(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    actix::System::new().block_on(command)
}
