//! One table, and the same as JSON lines.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

/// One line.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// One figure per round.
    pub(crate) ours: Vec<f64>,
    /// The same for the floor; empty where there is none.
    pub(crate) floor: Vec<f64>,
    /// What the floor is.
    pub(crate) beside: &'static str,
    pub(crate) lost: Option<u64>,
    pub(crate) disordered: u64,
}

#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, ours: Vec<f64>, floor: Vec<f64>) -> Self {
        Self { name: name.into(), unit, ours, floor, beside: "", lost: None, disordered: 0 }
    }

    pub(crate) fn beside(mut self, what: &'static str) -> Self {
        self.beside = what;
        self
    }

    pub(crate) fn lost(mut self, lost: u64, disordered: u64) -> Self {
        self.lost = Some(lost);
        self.disordered = disordered;
        self
    }

    fn ratio(&self) -> Option<f64> {
        Some(median(&self.ours)? / median(&self.floor)?).filter(|ratio| ratio.is_finite())
    }

    fn lost_text(&self) -> String {
        match (self.lost, self.disordered) {
            (None, _) => String::new(),
            (Some(lost), 0) => lost.to_string(),
            (Some(lost), disordered) => format!("{lost} +{disordered}"),
        }
    }

    fn cells(&self) -> [String; 8] {
        let figure = |rounds: &[f64]| median(rounds).map_or("-".into(), short);
        let ratio = self.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let spread = if self.floor.is_empty() {
            spread(&self.ours)
        } else {
            format!("{} | {}", spread(&self.ours), spread(&self.floor))
        };
        let (ours, floor) = (figure(&self.ours), figure(&self.floor));
        [self.name.clone(), ours, floor, ratio, self.unit.into(), self.lost_text(), spread, self.beside.into()]
    }
}

impl Report {
    /// Takes a line, and shows it at once: a run takes minutes.
    pub(crate) fn add(&mut self, row: Row) {
        let [name, ours, floor, ratio, unit, ..] = row.cells();
        eprintln!("{name}: {ours} beside {floor} {unit} ({ratio})");
        self.rows.push(row);
    }

    pub(crate) fn print(&self) {
        let head = ["", "ours", "floor", "ratio", "unit", "lost", "spread ours | floor", "the floor is"];
        let lines: Vec<[String; 8]> =
            std::iter::once(head.map(String::from)).chain(self.rows.iter().map(Row::cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for line in &lines {
            let mut text = String::new();
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let figures = (1..=3).contains(&column);
                let written = if figures { write!(text, "{cell:>width$}  ") } else { write!(text, "{cell:<width$}  ") };
                written.expect("a string takes everything");
            }
            println!("{}", text.trim_end());
        }
    }

    pub(crate) fn save(&self) {
        let mut lines = String::new();
        for row in &self.rows {
            let (low, high) = range(&row.ours);
            let line = json!({
                "name": row.name, "value": median(&row.ours), "unit": row.unit, "floor": median(&row.floor), "ratio": row.ratio(),
                "lost": row.lost, "disordered": row.disordered, "low": low, "high": high, "floor_is": row.beside,
            });
            writeln!(lines, "{line}").expect("a string takes everything");
        }
        let target =
            std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| format!("{}/target", env!("CARGO_MANIFEST_DIR")));
        let folder = Path::new(&target).join("bench");
        std::fs::create_dir_all(&folder).expect("target/bench");
        std::fs::write(folder.join("floors.jsonl"), lines).expect("target/bench/floors.jsonl");
    }
}

/// None of no rounds.
fn median(rounds: &[f64]) -> Option<f64> {
    let mut sorted = rounds.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn range(rounds: &[f64]) -> (Option<f64>, Option<f64>) {
    let least = rounds.iter().copied().reduce(f64::min);
    (least, rounds.iter().copied().reduce(f64::max))
}

fn spread(rounds: &[f64]) -> String {
    match range(rounds) {
        (Some(least), Some(largest)) if rounds.len() > 1 => format!("{}..{}", short(least), short(largest)),
        _ => String::new(),
    }
}

/// Three significant digits, or all of a whole number.
fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 || figure.fract() == 0.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}
