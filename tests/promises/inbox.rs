//! What waits for an agent: handled in order and in turns, kept through a restart, told when nobody handles it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AtomicResponse, Context, Handler, Running, WrapFuture};
use futures::future::join_all;
use vlmessaging::{Agent, Connection, DeliverError, Handled, Msg, Reason, Router};

use crate::common::agents::{adder, does, fragile};
use crate::common::{LONG, assert_serves, each_way, failure, limits, scene, soon, until, with_router};

#[test]
fn a_restarted_agent_handles_what_waited_for_it() {
    each_way(async |pair| {
        let agent = pair.provider.spawn_supervised(fragile);
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        let subjects = std::iter::repeat_n("ADD_ONE", 10).chain(["PANIC"]).chain(std::iter::repeat_n("ADD_ONE", 100));
        let mut ended = join_all(subjects.map(|subject| conn.request(&to, subject, 41, LONG))).await;
        assert_eq!(failure(ended.remove(10)).reason, Reason::AgentPanicked);
        for answer in ended {
            assert_eq!(answer.unwrap().contents::<i64>(), Ok(42));
        }
    });
}

#[test]
fn what_waits_for_an_agent_that_is_given_up_is_told() {
    each_way(async |pair| {
        let agent = pair.provider.spawn_supervised(fragile);
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        let asked = (0..200).map(|_| conn.request(&to, "PANIC", (), LONG));
        for ended in join_all(asked).await {
            let reason = failure(ended).reason;
            assert!(matches!(reason, Reason::AgentPanicked | Reason::NoSuchConnection), "{reason:?}");
        }
    });
}

/// Sends each message on to itself, for ever.
struct Spins(Option<Connection>, Rc<Cell<u64>>);

impl Actor for Spins {
    type Context = Context<Self>;
}

impl Agent for Spins {
    fn started(&mut self, connection: Connection, _: &mut Context<Self>) {
        self.0 = Some(connection);
    }
}

impl Handler<Msg> for Spins {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        self.1.set(self.1.get() + 1);
        let conn = self.0.as_ref().unwrap();
        conn.try_send(conn.addr(), "SPIN", ()).unwrap();
        msg.handled()
    }
}

#[test]
fn an_agent_that_always_has_messages_leaves_the_others_of_its_thread_their_turn() {
    with_router(async |router| {
        let turns = Rc::new(Cell::new(0));
        let (spins, neighbour) = (router.spawn(Spins(None, turns.clone())), router.spawn(adder()));
        let conn = router.connect();
        conn.send(&spins, "SPIN", ()).await.unwrap();
        until("it spins", || turns.get() > 1000).await;
        for _ in 0..10 {
            assert_serves(&conn, &neighbour).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let before = turns.get();
        until("it spins on", || turns.get() > before).await;
        spins.stop();
        until("it has stopped", || !spins.actor().connected()).await;
    });
}

/// Waits within each message; meanwhile it shall get no other. Stops at `STOP`, though not at once if it is told to go on.
#[derive(Default)]
struct OneByOne {
    busy: bool,
    goes_on: bool,
    seen: Rc<RefCell<Vec<i64>>>,
}

impl Actor for OneByOne {
    type Context = Context<Self>;

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        if std::mem::take(&mut self.goes_on) { Running::Continue } else { Running::Stop }
    }
}

impl Agent for OneByOne {}

impl Handler<Msg> for OneByOne {
    type Result = AtomicResponse<Self, Handled>;

    fn handle(&mut self, mut msg: Msg, ctx: &mut Context<Self>) -> Self::Result {
        assert!(!std::mem::replace(&mut self.busy, true), "a message came while another was in hand");
        if msg.subject() == "STOP" {
            ctx.stop();
        }
        self.seen.borrow_mut().push(msg.take_contents().unwrap());
        let wait = async { tokio::task::yield_now().await };
        AtomicResponse::new(Box::pin(wait.into_actor(self).map(|(), this, _| {
            this.busy = false;
            msg.handled()
        })))
    }
}

#[test]
fn an_agent_that_waits_within_a_message_is_given_no_other() {
    each_way(async |pair| {
        let agent = OneByOne::default();
        let seen = agent.seen.clone();
        let (conn, to) = (pair.asker.connect(), pair.reach(&pair.provider.spawn(agent)));
        for number in 0..500 {
            conn.send(&to, "TAKE", number).await.unwrap();
        }
        until("all are handled", || seen.borrow().len() == 500).await;
        assert!(seen.borrow().iter().copied().eq(0..500));
    });
}

#[test]
fn an_agent_that_decides_not_to_stop_goes_on_with_what_waits() {
    with_router(async |router| {
        let agent = OneByOne { goes_on: true, ..OneByOne::default() };
        let seen = agent.seen.clone();
        let (conn, agent) = (router.connect(), router.spawn(agent));
        for number in 0..10 {
            conn.send(&agent, if number == 3 { "STOP" } else { "TAKE" }, number).await.unwrap();
        }
        until("all are handled", || seen.borrow().len() == 10).await;
    });
}

#[test]
fn messages_to_an_agent_that_is_still_being_made_wait_for_it() {
    with_router(async |router| {
        let thread = actix::Arbiter::new();
        let (go, gone) = std::sync::mpsc::channel();
        let agent = router.spawn_on(&thread.handle(), move || {
            gone.recv().unwrap();
            does(|msg| msg.answer(|n: i64| n + 1))
        });
        let conn = router.connect();
        let asked = (0..100).map(|n| conn.request(&agent, "ADD_ONE", n, LONG));
        let (answers, ()) = futures::future::join(join_all(asked), async { go.send(()).unwrap() }).await;
        for (n, answer) in (0..).zip(answers) {
            assert_eq!(answer.unwrap().contents::<i64>(), Ok(n + 1));
        }
        assert!(thread.stop());
    });
}

#[test]
fn who_sent_what_an_agent_does_not_get_to_in_time_is_told_once_and_it_is_handled_all_the_same() {
    scene(async |scene| {
        let impatient = limits(|limits| limits.outcome = Duration::from_millis(200));
        let router = scene.start(Router::local().limits(impatient)).await;
        let thread = actix::Arbiter::new();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let (handled, mut all) = tokio::sync::mpsc::unbounded_channel();
        let agent = router.spawn_on(&thread.handle(), move || {
            does(move |msg| {
                let number = msg.contents::<u64>().unwrap();
                if number == 0 {
                    gone.recv().unwrap();
                }
                handled.send(number).unwrap();
                msg.handled()
            })
        });
        let conn = router.connect();
        // The first is in a handler's hands, which it blocks; two wait with it, or in the queue.
        for number in 0..3_u64 {
            conn.send(&agent, "TAKE", number).await.unwrap();
        }
        for _ in 0..2 {
            assert_eq!(soon(conn.not_delivered()).await.reason, Reason::NoOutcome);
        }
        let waiting = conn.deliver(&agent, "TAKE", 3_u64, LONG).await;
        assert!(matches!(waiting, Err(DeliverError::Unknown(_))), "{waiting:?}");

        go.send(()).unwrap();
        for number in 0..4 {
            assert_eq!(soon(all.recv()).await.unwrap(), number);
        }
        let after = Duration::from_millis(500);
        assert!(tokio::time::timeout(after, conn.not_delivered()).await.is_err(), "they are told once");
        assert!(thread.stop());
    });
}
