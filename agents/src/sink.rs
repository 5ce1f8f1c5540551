//! An agent that counts one-way messages, and notices what came twice or out of order.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use serde::Serialize;
use tokio::sync::Notify;
use vlmessaging::{Agent, Handled, Msg, Value};

/// Pieces of the numbers seen that are remembered. Default 65,536: beyond, whatever lies outside of them counts as new.
const PIECES: usize = 65_536;

/// Counts `EVENT` \[a number, or a list of a number and a text\], which is not answered. Answers `COUNT` \[anything\] with
/// `{count, first, last, out_of_order, duplicates, bytes}` and `RESET` \[anything\] with true after it has cleared them.
#[derive(Default)]
pub struct Sink {
    counts: Counts,
    seen: Seen,
    expected: Option<(u64, Arc<Notify>)>,
}

#[derive(Clone, Default, Serialize)]
struct Counts {
    count: u64,
    first: Option<Value>,
    last: Option<Value>,
    /// Numbers lower than the one before.
    out_of_order: u64,
    duplicates: u64,
    /// Characters of text, as the reference's program counts them.
    bytes: u64,
}

/// Numbers, as pieces without gaps: first and last of each.
#[derive(Default)]
struct Seen(BTreeMap<i128, i128>);

impl Sink {
    /// Tells `reached` when so many have been counted.
    #[must_use]
    pub fn expecting(self, count: u64, reached: Arc<Notify>) -> Self {
        Self { expected: Some((count, reached)), ..self }
    }

    fn count(&mut self, contents: Value) {
        let (number, text) = match contents {
            Value::List(mut items) => {
                let text = if items.len() > 1 { items.pop() } else { None };
                (items.into_iter().next().unwrap_or_default(), text)
            }
            number => (number, None),
        };
        if let Some(Value::Text(text)) = text {
            self.counts.bytes += text.chars().count() as u64;
        }
        if let Value::Int(number) = number {
            let is_lower = matches!(self.counts.last, Some(Value::Int(last)) if number < last);
            self.counts.out_of_order += u64::from(is_lower);
            self.counts.duplicates += u64::from(!self.seen.add(number));
        }
        self.counts.count += 1;
        self.counts.first.get_or_insert_with(|| number.clone());
        self.counts.last = Some(number);
        if let Some((expected, reached)) = &self.expected
            && self.counts.count >= *expected
        {
            reached.notify_one();
        }
    }
}

impl Seen {
    /// Adds a number; false if it was there.
    fn add(&mut self, number: i128) -> bool {
        let before = self.0.range(..=number).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| number <= last) {
            return false;
        }
        let first = match before {
            Some((first, last)) if last.checked_add(1) == Some(number) => first,
            _ => number,
        };
        let joined = number.checked_add(1).and_then(|next| self.0.remove(&next));
        if first != number || self.0.len() < PIECES {
            self.0.insert(first, joined.unwrap_or(number));
        }
        true
    }
}

impl Actor for Sink {
    type Context = Context<Self>;
}

impl Agent for Sink {}

/// An event happened, or somebody asks how many.
impl Handler<Msg> for Sink {
    type Result = Handled;

    fn handle(&mut self, mut msg: Msg, _: &mut Context<Self>) -> Handled {
        if msg.is_reply() {
            return msg.unhandled();
        }
        match msg.subject() {
            "EVENT" => {
                // What is no plain value is an event all the same.
                self.count(msg.take_contents().unwrap_or_default());
                msg.handled()
            }
            "COUNT" => msg.reply(self.counts.clone()),
            "RESET" => {
                self.counts = Counts::default();
                self.seen = Seen::default();
                msg.reply(true)
            }
            _ => msg.unhandled(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_seen_are_kept_as_pieces() {
        let mut seen = Seen::default();
        for (number, is_new) in [(1, true), (2, true), (4, true), (2, false), (3, true), (4, false), (0, true)] {
            assert_eq!(seen.add(number), is_new, "{number}");
        }
        assert_eq!(seen.0.into_iter().collect::<Vec<_>>(), [(0, 4)]);
    }

    #[test]
    fn order_duplicates_and_text_are_counted() {
        let mut sink = Sink::default();
        for number in [0, 1, 3, 2, 3] {
            sink.count(Value::List(vec![Value::Int(number), Value::Text("äb".into())]));
        }
        let Counts { count, out_of_order, duplicates, bytes, .. } = sink.counts;
        assert_eq!((count, out_of_order, duplicates, bytes), (5, 1, 1, 10));
    }
}
