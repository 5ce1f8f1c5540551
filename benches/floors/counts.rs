//! Instructions of one operation, counted by valgrind: they repeat exactly, also on a busy machine.

use std::hint::black_box;
use std::process::Command;

use vlmessaging::wire::{self, Envelope, Profile};
use vlmessaging::{Addr, Endpoint};

use crate::Run;
use crate::in_process::{BURST, Sides};
use crate::report::Row;

/// Operations of the shorter of two runs; the longer has twice as many, and the difference is theirs.
const COUNT: i64 = 2_000;

/// What is counted, and beside what.
const LINES: [(&str, Option<(&str, &str)>); 8] = [
    ("request", Some(("actix-send", "actix Addr::send"))),
    ("one-way", Some(("actix-do-send", "actix do_send"))),
    ("one-way-machine", Some(("actix-do-send", "actix do_send"))),
    ("encode-number", None),
    ("decode-number", None),
    ("write-message", None),
    ("read-message", None),
    ("decode-struct", None),
];

#[derive(serde::Serialize, serde::Deserialize)]
struct Quote {
    symbol: String,
    bid: f64,
    ask: f64,
    sizes: Vec<i64>,
}

fn quote() -> Quote {
    Quote { symbol: "VLM".into(), bid: 41.5, ask: 42.5, sizes: vec![100, 200, 300] }
}

fn envelope() -> Envelope {
    let router = Endpoint::from("ipc:///tmp/router_4021");
    Envelope {
        from: Addr::at(router.clone(), 3),
        to: Addr::at(router, 4),
        subject: "ADD_ONE".into(),
        id: Some(1_000_000),
        reply_to: None,
        contents: wire::encode(&quote()).expect("a quote"),
        meta: wire::Encoded::empty_struct(),
    }
}

/// A process of its own, which does one thing so many times.
pub(crate) fn child(words: &[&str]) {
    let [what, count] = *words else { panic!("what and how often") };
    let count: i64 = count.parse().expect("a count");
    match what {
        "request" | "one-way" | "one-way-machine" | "actix-send" | "actix-do-send" => {
            actix::System::new().block_on(in_process(what, count));
        }
        "encode-number" => (0..count).for_each(|number| drop(black_box(wire::encode(&number)))),
        "decode-number" => {
            let number = wire::encode(&1_000_000_i64).expect("a number");
            (0..count).for_each(|_| assert!(wire::decode::<i64>(black_box(&number)).is_ok()));
        }
        "decode-struct" => {
            let quote = wire::encode(&quote()).expect("a quote");
            (0..count).for_each(|_| assert!(wire::decode::<Quote>(black_box(&quote)).is_ok()));
        }
        "write-message" => {
            let (envelope, mut bytes) = (envelope(), Vec::with_capacity(1024));
            for _ in 0..count {
                bytes.clear();
                wire::write_message(black_box(&envelope), &mut bytes);
            }
        }
        "read-message" => {
            let mut bytes = Vec::new();
            wire::write_message(&envelope(), &mut bytes);
            let bytes = bytes.into();
            (0..count).for_each(|_| assert!(wire::read_message(black_box(&bytes), Profile::Rust).is_ok()));
        }
        _ => panic!("count what: {what}"),
    }
    std::process::exit(0);
}

async fn in_process(what: &str, count: i64) {
    let sides = Sides::start(what == "one-way-machine", &actix::Arbiter::current()).await;
    match what {
        "request" => {
            for number in 0..count {
                sides.ask_ours(number).await;
            }
        }
        "actix-send" => {
            for number in 0..count {
                sides.ask_plain(number).await;
            }
        }
        "actix-do-send" => {
            for _ in 0..count / BURST {
                sides.tell_plain().await;
            }
        }
        _ => {
            for _ in 0..count / BURST {
                sides.tell_ours().await;
            }
        }
    }
}

pub(crate) fn measure(run: &mut Run) {
    for (what, floor) in LINES {
        let name = format!("instructions/{what}");
        if !run.wants(&name) {
            continue;
        }
        let Some(ours) = instructions(what) else {
            eprintln!("{name}: not counted, valgrind is needed: apt-get install valgrind");
            return;
        };
        let floor_is = floor.map_or("", |(_, words)| words);
        let floor = floor.and_then(|(floor, _)| instructions(floor));
        run.report.add(Row::new(name, "instructions", vec![ours], floor.into_iter().collect()).beside(floor_is));
    }
}

fn instructions(what: &str) -> Option<f64> {
    Some((collected(what, COUNT * 2)? - collected(what, COUNT)?) / COUNT as f64)
}

/// Of a whole process.
fn collected(what: &str, count: i64) -> Option<f64> {
    let program = std::env::current_exe().expect("this program's path");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    let output = command.args(["@count", what, &count.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    line.split_whitespace().last()?.parse().ok()
}
