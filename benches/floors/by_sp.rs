//! The library on sockets in Rust alone, beside itself on nng, beside nng alone, and beside a bare socket that coalesces.

use crate::Run;
use crate::load::{Load, Outcome};
use crate::pairs::take_turns;
use crate::raw::Shape;
use crate::report::Row;

pub(crate) fn measure(run: &mut Run) {
    for over in ["ipc", "tcp"] {
        let asked = Load::Sequential { count: run.count(10_000) };
        let requests = Load::Outstanding { count: run.count(100_000), window: 1_000 };
        let events = Load::Stream { count: run.count(1_000_000), size: 64 };
        let bulk = Load::Stream { count: run.count(20_000), size: 16 << 10 };
        let mega = Load::Stream { count: run.count(500), size: 1 << 20 };
        let lines = [
            ("round trip, pinned", asked, Shape::TwoWays, "us, p50", "pinned", 1.0),
            ("requests, 1,000 outstanding", requests, Shape::Buffered, "1/s", "anywhere", 1.0),
            ("stream of 64 B", events, Shape::Buffered, "1/s", "anywhere", 1.0),
            ("stream of 16 KiB", bulk, Shape::Buffered, "MB/s", "anywhere", 16_384.0 / 1e6),
            ("stream of 1 MiB", mega, Shape::Buffered, "MB/s", "anywhere", 1_048_576.0 / 1e6),
        ];
        for (what, load, shape, unit, placed, scale) in lines {
            let name = format!("sp, {over}/{what}");
            if !run.wants(&name) {
                continue;
            }
            let [ours, by_nng, nng, bare] = take_turns(run, ["sp", "ours", shape.word(), "bare"], over, load, placed);
            let (lost, disordered) = (ours.iter().map(|o| o.lost).sum(), ours.iter().map(|o| o.disordered).sum());
            let figures = |outcomes: &[Outcome]| outcomes.iter().map(|outcome| outcome.figure * scale).collect();
            let cpus = |outcomes: &[Outcome]| outcomes.iter().map(|outcome| outcome.cpu).collect();
            let row = Row::new(&name, unit, figures(&ours), figures(&by_nng)).beside("ours by nng");
            run.report.add(row.lost(lost, disordered));
            let cpu = Row::new(format!("{name}, CPU of both"), "us/op", cpus(&ours), cpus(&by_nng));
            run.report.add(cpu.beside("ours by nng"));
            let row = Row::new(format!("{name}, nng"), unit, figures(&ours), figures(&nng));
            run.report.add(row.beside("nng alone").lost(lost, disordered));
            let row = Row::new(format!("{name}, bare"), unit, figures(&ours), figures(&bare));
            run.report.add(row.beside("a bare socket").lost(lost, disordered));
        }
    }
}
