//! What it takes to begin, and what it takes to be there.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use vlmessaging::{Addr, Router};

use crate::Run;
use crate::kid::Kid;
use crate::load::PATIENCE;
use crate::raw::Shape;
use crate::report::Row;
use crate::{ours, raw};

/// What an idle program is left alone for, and in a quick run.
const IDLE: Duration = Duration::from_secs(2);
const IDLE_QUICK: Duration = Duration::from_millis(500);

/// A program that asks once: of whom it finds, of whom it knows, or with raw nng; says so and ends.
pub(crate) fn cold_client(words: &[&str]) {
    match *words {
        ["raw", url] => {
            assert!(raw::ask_once(url), "raw nng answers");
            println!("answered");
            std::process::exit(0);
        }
        ["found", folder] => actix::System::new().block_on(ask_once(folder, None)),
        ["known", folder, endpoint, number] => {
            let addr = ours::parse(&format!("{endpoint} {number}"));
            actix::System::new().block_on(ask_once(folder, Some(addr)));
        }
        _ => panic!("no such client: {words:?}"),
    }
}

async fn ask_once(folder: &str, known: Option<Addr>) {
    let router = ours::builder("hub", folder).start().await.expect("a router");
    let conn = router.connect();
    let to = match known {
        Some(addr) => addr,
        None => conn.find(ours::SERVICE).first_within(PATIENCE).await.expect("a provider").into(),
    };
    assert!(ours::ask(&conn, &to, "once".into()).await, "the provider answers");
    println!("answered");
    router.shutdown().await;
}

pub(crate) fn measure_cold(run: &mut Run) {
    let names = ["cold start/provider found through the hub", "cold start/address known"];
    if !names.iter().any(|name| run.wants(name)) {
        return;
    }
    let folder = run.new_folder();
    let hub = Kid::start(&["@idle", "machine", &folder]);
    hub.ready();
    let provider = Kid::start(&["@server", "ours", "hub", &folder]);
    let ready = provider.ready();
    let (endpoint, number) = ready.split_once(' ').expect("endpoint and number");
    let url = format!("ipc://{folder}/raw");
    let raw = Kid::start(&["@server", "raw", Shape::OnePipe.word(), &url]);
    raw.ready();
    let mut columns: [Vec<[f64; 2]>; 3] = Default::default();
    for _ in 0..if run.quick { 5 } else { 20 } {
        columns[0].push(start_once(&["@cold", "found", &folder]));
        columns[1].push(start_once(&["@cold", "known", &folder, endpoint, number]));
        columns[2].push(start_once(&["@cold", "raw", &url]));
    }
    let column = |which: usize, moment: usize| columns[which].iter().map(|moments| moments[moment]).collect();
    let lost = |which: usize| columns[which].iter().filter(|moments| moments[0].is_nan()).count() as u64;
    for (which, name) in names.into_iter().enumerate() {
        let answered = Row::new(name, "ms", column(which, 0), column(2, 0));
        let ended = Row::new(format!("{name}, until its end"), "ms", column(which, 1), column(2, 1));
        run.report.add(answered.beside("nng, one pipe").lost(lost(which), 0));
        run.report.add(ended.beside("nng, one pipe"));
    }
}

/// Milliseconds until the answer, and until the program's end.
fn start_once(words: &[&str]) -> [f64; 2] {
    let began = Instant::now();
    let mut client = Kid::start(words);
    let answered = client.line(PATIENCE).is_some_and(|line| line == "answered");
    let until_answered = began.elapsed();
    let ended = client.ends(PATIENCE);
    let millis = |told: bool, time: Duration| if told { time.as_secs_f64() * 1e3 } else { f64::NAN };
    [millis(answered, until_answered), millis(answered && ended, began.elapsed())]
}

/// A program that does nothing: with a router, or with an actix System alone.
pub(crate) fn idle_program(what: &str, folder: &str) {
    actix::System::new().block_on(async {
        let router = match what {
            "machine" => Some(Router::machine().folder(folder)),
            "network" => Some(Router::network().folder(folder).listen("tcp://127.0.0.1:0")),
            _ => None,
        };
        let router = match router {
            Some(router) => Some(router.start().await.expect("a router")),
            None => None,
        };
        println!("READY idle");
        // It ends with its parent's wish.
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        });
        std::future::pending::<()>().await;
        drop(router);
    });
}

pub(crate) fn measure_idle(run: &mut Run) {
    let kinds = [("machine", "idle/MACHINE router"), ("network", "idle/NETWORK router")];
    let wanted: Vec<_> = kinds.into_iter().filter(|(_, name)| run.wants(name)).collect();
    if !wanted.is_empty() {
        let bare = footprint(run, "bare");
        for (what, name) in wanted {
            let ours = footprint(run, what);
            let units = [("resident memory", "MiB"), ("threads", ""), ("descriptors", ""), ("CPU while idle", "ms/s")];
            for (index, (kind, unit)) in units.into_iter().enumerate() {
                let row = Row::new(format!("{name}, {kind}"), unit, vec![ours[index]], vec![bare[index]]);
                run.report.add(row.beside("an actix System"));
            }
        }
    }
    if run.wants("idle/crates") {
        let ours = crates(&["vlmessaging"]);
        let floor = crates(&["actix", "nng", "nng-c-sys", "ion-rs"]);
        let row = Row::new("idle/crates", "", vec![ours as f64], vec![floor as f64]);
        run.report.add(row.beside("actix, nng and ion-rs"));
    }
}

/// Memory in MiB, threads, descriptors, and milliseconds of CPU used in a second, of a program.
fn footprint(run: &mut Run, what: &str) -> [f64; 4] {
    let folder = run.new_folder();
    let program = Kid::start(&["@idle", what, &folder]);
    program.line(PATIENCE).expect("it starts");
    let busy = crate::load::cpu_micros(program.id());
    let idle = if run.quick { IDLE_QUICK } else { IDLE };
    std::thread::sleep(idle);
    let busy = (crate::load::cpu_micros(program.id()) - busy) / 1e3 / idle.as_secs_f64();
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).expect("its status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", program.id())).expect("its descriptors").count();
    let memory = field("VmRSS:").unwrap_or(f64::NAN) / 1024.0;
    [memory, field("Threads:").unwrap_or(f64::NAN), descriptors as f64, busy]
}

/// Distinct crates in the normal dependency trees of these packages, themselves included.
fn crates(packages: &[&str]) -> usize {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["tree", "-e", "normal", "--prefix", "none"]);
    for package in packages {
        command.args(["-p", package]);
    }
    let output = command.output().expect("cargo");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let distinct: BTreeSet<&str> =
        text.lines().map(|line| line.trim_end_matches(" (*)")).filter(|line| !line.is_empty()).collect();
    distinct.len()
}
