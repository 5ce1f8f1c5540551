//! Two processes over ipc and tcp.

use std::time::Duration;

use crate::kid::Kid;
use crate::load::{self, Load, Outcome, cpu_micros};
use crate::raw::Shape;
use crate::report::Row;
use crate::{Run, bare, ours, raw};

/// A client that takes longer hangs.
const LIMIT: Duration = Duration::from_mins(2);

/// A client process: starts its server, applies the load, prints the outcome.
pub(crate) fn client(words: &[&str]) {
    let [who, over, folder, what, count, more, placed] = *words else { panic!("seven words") };
    if placed == "pinned" {
        load::pin();
    }
    let load = Load::parse(what, count, more);
    let outcome = match who {
        "ours" | "sp" => actix::System::new().block_on(async {
            let over = if who == "sp" { format!("sp-{over}") } else { over.to_owned() };
            let mut client = ours::Client::start(&over, folder).await;
            client.warm_up().await;
            let before = cpu_of(&client.server);
            let outcome = client.run(load).await;
            Outcome { cpu: cpu_of(&client.server) - before, ..outcome }
        }),
        "bare" => {
            let mut client = bare::Client::start(over, folder);
            client.warm_up();
            let before = cpu_of(&client.server);
            let outcome = client.run(load);
            Outcome { cpu: cpu_of(&client.server) - before, ..outcome }
        }
        shape => {
            let mut client = raw::Client::start(shape, over, folder);
            client.warm_up();
            let before = cpu_of(&client.server);
            let outcome = client.run(load);
            let cpu = cpu_of(&client.server) - before;
            // Its sockets are left to the end of the process: only their use is measured, not their end.
            std::mem::forget(client);
            Outcome { cpu, ..outcome }
        }
    };
    let outcome = Outcome { cpu: outcome.cpu / load.count() as f64, ..outcome };
    println!("{}", serde_json::to_string(&outcome).expect("an outcome"));
    // What is still open is not waited for: the server ends when its input closes.
    std::process::exit(0);
}

/// Of client and server.
fn cpu_of(server: &Kid) -> f64 {
    cpu_micros(std::process::id()) + cpu_micros(server.id())
}

pub(crate) fn measure(run: &mut Run) {
    for over in ["ipc", "tcp"] {
        round_trips(run, over, over);
        rates(run, over, over);
        ten_thousand(run, over);
    }
    two_hops(run);
    round_trips(run, "tcp-undialable", "tcp, not dialable");
    rates(run, "tcp-undialable", "tcp, not dialable");
}

fn round_trips(run: &mut Run, over: &str, title: &str) {
    let name = format!("{title}/round trip, pinned");
    if !run.wants(&name) {
        return;
    }
    let load = Load::Sequential { count: run.count(10_000) };
    let [ours, two_ways, one_pipe] =
        take_turns(run, ["ours", Shape::TwoWays.word(), Shape::OnePipe.word()], over, load, "pinned");
    let figure = |outcome: &Outcome| outcome.figure;
    let cpu = |outcome: &Outcome| outcome.cpu;
    let lost = ours.iter().map(|outcome| outcome.lost).sum();
    let row = |name: String, unit, of: fn(&Outcome) -> f64, floor: &[Outcome]| {
        Row::new(name, unit, ours.iter().map(of).collect(), floor.iter().map(of).collect()).lost(lost, 0)
    };
    let rows = [
        row(name.clone(), "us, p50", figure, &two_ways).beside("nng, two ways"),
        row(format!("{name}, CPU of both"), "us/op", cpu, &two_ways).beside("nng, two ways"),
        row(format!("{name}, best shape"), "us, p50", figure, &one_pipe).beside("nng, one pipe"),
        row(format!("{name}, best shape, CPU of both"), "us/op", cpu, &one_pipe).beside("nng, one pipe"),
    ];
    for row in rows {
        run.report.add(row);
    }
}

fn rates(run: &mut Run, over: &str, title: &str) {
    let requests = Load::Outstanding { count: run.count(100_000), window: 1_000 };
    // A second or two: two processes that start on one CPU are parted by the system after some 30 ms.
    let events = Load::Stream { count: run.count(1_000_000), size: 64 };
    let together = Load::Together { count: run.count(200_000) / 16 * 16, senders: 16 };
    let kilo = Load::Stream { count: run.count(100_000), size: 1 << 10 };
    let bulk = Load::Stream { count: run.count(20_000), size: 16 << 10 };
    let mega = Load::Stream { count: run.count(500), size: 1 << 20 };
    let lines = [
        (format!("{title}/requests, 1,000 outstanding"), requests, "1/s", 1.0),
        (format!("{title}/stream of 64 B"), events, "1/s", 1.0),
        (format!("{title}/stream of 64 B, 16 senders"), together, "1/s", 1.0),
        (format!("{title}/stream of 1 KiB"), kilo, "MB/s", 1_024.0 / 1e6),
        (format!("{title}/stream of 16 KiB"), bulk, "MB/s", 16_384.0 / 1e6),
        (format!("{title}/stream of 1 MiB"), mega, "MB/s", 1_048_576.0 / 1e6),
    ];
    for (name, load, unit, scale) in lines {
        if !run.wants(&name) {
            continue;
        }
        let figures = |outcomes: &[Outcome]| outcomes.iter().map(|outcome| outcome.figure * scale).collect();
        let cpus = |outcomes: &[Outcome]| outcomes.iter().map(|outcome| outcome.cpu).collect();
        let [ours, floor, socket] = take_turns(run, ["ours", Shape::Buffered.word(), "bare"], over, load, "anywhere");
        let (lost, disordered) = (ours.iter().map(|o| o.lost).sum(), ours.iter().map(|o| o.disordered).sum());
        let row = Row::new(&name, unit, figures(&ours), figures(&floor)).beside("nng, one pipe, buffers");
        run.report.add(row.lost(lost, disordered));
        let cpu = Row::new(format!("{name}, CPU of both"), "us/op", cpus(&ours), cpus(&floor));
        run.report.add(cpu.beside("nng, one pipe, buffers"));
        let row = Row::new(format!("{name}, bare"), unit, figures(&ours), figures(&socket));
        run.report.add(row.beside("a coalescing socket").lost(lost, disordered));
    }
}

/// Over a router that passes on, from TCP to a unix socket; the floor is the first hop alone.
fn two_hops(run: &mut Run) {
    let lines = [
        ("two hops/round trip, pinned", Load::Sequential { count: run.count(10_000) }, "us, p50", "pinned"),
        (
            "two hops/requests, 1,000 outstanding",
            Load::Outstanding { count: run.count(100_000), window: 1_000 },
            "1/s",
            "anywhere",
        ),
        ("two hops/stream of 64 B", Load::Stream { count: run.count(1_000_000), size: 64 }, "1/s", "anywhere"),
    ];
    for (name, load, unit, placed) in lines {
        if !run.wants(name) {
            continue;
        }
        let (mut two, mut one) = (Vec::new(), Vec::new());
        for _ in 0..run.rounds(5) {
            two.push(once(run, "ours", "two-hops", load, placed));
            one.push(once(run, "ours", "tcp", load, placed));
        }
        let figures = |outcomes: &[Outcome]| outcomes.iter().map(|outcome| outcome.figure).collect();
        let (lost, disordered) = (two.iter().map(|o| o.lost).sum(), two.iter().map(|o| o.disordered).sum());
        let row = Row::new(name, unit, figures(&two), figures(&one)).beside("this library, one hop over tcp");
        run.report.add(row.lost(lost, disordered));
    }
}

/// The promise of ten thousand: all are answered.
fn ten_thousand(run: &mut Run, over: &str) {
    let sequential = Load::Sequential { count: 10_000 };
    let together = Load::Outstanding { count: 10_000, window: 10_000 };
    let lines = [
        (format!("{over}/10,000 requests, one after another"), sequential, Shape::TwoWays, "nng, two ways"),
        (format!("{over}/10,000 requests, all at once"), together, Shape::Buffered, "nng, one pipe, buffers"),
    ];
    for (name, load, shape, beside) in lines {
        if !run.wants(&name) {
            continue;
        }
        let [ours, floor] = take_turns(run, ["ours", shape.word()], over, load, "anywhere");
        let seconds = |outcomes: &[Outcome]| outcomes.iter().map(|outcome| outcome.seconds).collect();
        let answered = |outcomes: &[Outcome]| outcomes.iter().map(|outcome| outcome.good as f64).collect();
        let lost = ours.iter().map(|outcome| outcome.lost).sum();
        let row = Row::new(format!("{name}, answered"), "", answered(&ours), answered(&floor));
        run.report.add(row.beside(beside).lost(lost, 0));
        run.report.add(Row::new(name, "s", seconds(&ours), seconds(&floor)).beside(beside).lost(lost, 0));
    }
}

/// Every round has each of `who` once; those that fail have no figure in it, and lose all.
pub(crate) fn take_turns<const N: usize>(
    run: &mut Run,
    who: [&str; N],
    over: &str,
    load: Load,
    placed: &str,
) -> [Vec<Outcome>; N] {
    let mut outcomes: [Vec<Outcome>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..run.rounds(5) {
        for (who, outcomes) in who.iter().zip(&mut outcomes) {
            outcomes.push(once(run, who, over, load, placed));
        }
    }
    outcomes
}

fn once(run: &mut Run, who: &str, over: &str, load: Load, placed: &str) -> Outcome {
    let folder = run.new_folder();
    let [what, count, more] = load.words();
    let client = Kid::start(&["@client", who, over, &folder, &what, &count, &more, placed]);
    let outcome = client.line(LIMIT).and_then(|line| serde_json::from_str(&line).ok());
    outcome.unwrap_or_else(|| {
        eprintln!("{who} over {over} failed at {load:?}");
        let lost = load.count() as u64;
        Outcome { figure: f64::NAN, seconds: f64::NAN, lost, cpu: f64::NAN, ..Outcome::default() }
    })
}
