//! The agent of the examples, with counters: it adds one.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use serde::Serialize;
use vlmessaging::{Agent, Handled, Msg, subject};

/// Subjects that are counted one by one. Default 1,000: beyond, they are counted together as `...`.
const SUBJECTS: usize = 1000;

/// Answers `ADD_ONE` \[int\] with the next int, `ECHO` \[anything\] with the same, `STATS` \[anything\] with what it has counted:
/// `{add_one, echo, events, other: {subject: count}}`. Counts `EVENT`, which is not answered.
#[derive(Default)]
pub struct AddOne {
    delay: Duration,
    is_terse: bool,
    counts: Counts,
}

#[derive(Clone, Default, Serialize)]
struct Counts {
    add_one: u64,
    echo: u64,
    events: u64,
    other: BTreeMap<String, u64>,
}

impl AddOne {
    /// Waits so long before each answer. Default: not at all.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Of what it does not understand, answers `PING` alone.
    #[must_use]
    pub fn ping_only(self, is_terse: bool) -> Self {
        Self { is_terse, ..self }
    }

    /// Calls `answer` now, or after the delay.
    fn answer(&self, msg: Msg, answer: impl FnOnce(Msg) -> Handled + 'static) -> Handled {
        if self.delay.is_zero() {
            return answer(msg);
        }
        let (handled, msg) = msg.later();
        let delay = self.delay;
        actix::spawn(async move {
            actix::clock::sleep(delay).await;
            answer(msg)
        });
        handled
    }

    fn count_other(&mut self, msg: &Msg) {
        let name = if msg.is_reply() { format!("reply:{}", msg.subject()) } else { msg.subject().into() };
        let other = &mut self.counts.other;
        let is_known = other.len() < SUBJECTS || other.contains_key(&name);
        *other.entry(if is_known { name } else { "...".into() }).or_default() += 1;
    }
}

impl Actor for AddOne {
    type Context = Context<Self>;
}

impl Agent for AddOne {}

/// Somebody asks, or an event happened.
impl Handler<Msg> for AddOne {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        if msg.is_reply() {
            self.count_other(&msg);
            return msg.unhandled();
        }
        match msg.subject() {
            "ADD_ONE" => {
                self.counts.add_one += 1;
                self.answer(msg, add_one)
            }
            "ECHO" => {
                self.counts.echo += 1;
                self.answer(msg, |mut msg| {
                    let same = msg.take_raw();
                    msg.reply(same)
                })
            }
            "STATS" => {
                let counts = self.counts.clone();
                self.answer(msg, |msg| msg.reply(counts))
            }
            "EVENT" => {
                self.counts.events += 1;
                msg.handled()
            }
            other => {
                let is_silent = self.is_terse && other != subject::PING;
                self.count_other(&msg);
                if is_silent { msg.handled() } else { msg.unhandled() }
            }
        }
    }
}

fn add_one(msg: Msg) -> Handled {
    match msg.contents::<i128>().map(|n| n.checked_add(1)) {
        Ok(Some(next)) => msg.reply(next),
        Ok(None) => msg.refuse("there is no next int of 128 bits"),
        Err(error) => msg.refuse(&error.to_string()),
    }
}
