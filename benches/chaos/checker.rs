//! Joins the journals of all processes.

use std::collections::HashMap;
use std::path::Path;

/// What the journals say of one message.
#[derive(Default)]
struct Fate {
    sent: u8,
    delivered: u8,
    refused: u8,
    unknown: u8,
    handled: u8,
    /// Its sender was killed.
    orphan: bool,
}

impl Fate {
    fn told(&self) -> u8 {
        self.delivered + self.refused + self.unknown
    }
}

/// How many were not delivered.
pub(crate) struct Tally {
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
}

/// Prints what became of all messages; none if a promise was broken.
pub(crate) fn check(dir: &Path) -> Option<Tally> {
    let (fates, mut times) = join(dir);
    let count = |is_so: &dyn Fn(&Fate) -> bool| fates.values().filter(|fate| is_so(fate)).count();
    let tally = Tally { refused: count(&|fate| fate.refused > 0), unknown: count(&|fate| fate.unknown > 0) };
    println!(
        "{} sent: {} delivered, {} refused, {} unknown, {} of killed senders that were not told any more",
        fates.len(),
        count(&|fate| fate.delivered > 0),
        tally.refused,
        tally.unknown,
        count(&|fate| fate.orphan && fate.told() == 0),
    );
    times.sort_unstable();
    for part in [0.5, 0.9, 0.99, 0.999, 1.0] {
        let at = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
        println!("told within {:>9.3} ms: {:.1} %", times.get(at).map_or(0.0, |us| f64::from(*us) / 1e3), part * 100.0);
    }
    let broken = [
        ("without an outcome", count(&|fate| fate.told() == 0 && !fate.orphan)),
        ("with two outcomes", count(&|fate| fate.told() > 1)),
        ("handled twice", count(&|fate| fate.handled > 1)),
        ("delivered and not handled", count(&|fate| fate.delivered > 0 && fate.handled == 0)),
        ("refused and handled", count(&|fate| fate.refused > 0 && fate.handled > 0)),
        ("handled and not sent", count(&|fate| fate.sent == 0)),
    ];
    for (what, count) in &broken {
        println!("{} {count} {what}", if *count == 0 { "ok  " } else { "FAIL" });
    }
    (broken.iter().all(|(_, count)| *count == 0) && !times.is_empty()).then_some(tally)
}

/// Each message by its number, and the microseconds after which its sender was told.
fn join(dir: &Path) -> (HashMap<u64, Fate>, Vec<u32>) {
    let mut fates: HashMap<u64, Fate> = HashMap::new();
    let mut times = Vec::new();
    for file in std::fs::read_dir(dir).unwrap().flatten() {
        if !file.file_name().to_string_lossy().starts_with("journal-") {
            continue;
        }
        let text = std::fs::read_to_string(file.path()).unwrap();
        let was_killed = !text.ends_with("ended\n");
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let Some(id) = words.get(1).and_then(|id| id.parse().ok()) else { continue };
            let fate = fates.entry(id).or_default();
            let counted = match (words[0], words.get(2)) {
                ("sent", _) => {
                    fate.orphan = was_killed;
                    &mut fate.sent
                }
                ("outcome", Some(kind)) => {
                    times.push(words[3].parse().unwrap());
                    match *kind {
                        "delivered" => &mut fate.delivered,
                        "refused" => &mut fate.refused,
                        _ => &mut fate.unknown,
                    }
                }
                _ => &mut fate.handled,
            };
            *counted = counted.saturating_add(1);
        }
    }
    (fates, times)
}
