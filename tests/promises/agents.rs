//! Agents: what becomes of a message that its handler does not deal with, and who lives on.

use std::cell::Cell;
use std::rc::Rc;

use actix::{Actor, AsyncContext, Context, Handler};
use futures::future::join_all;
use vlmessaging::{Agent, Connection, Handled, Msg, Reason, RequestError};

use crate::common::agents::{Obedient, StopsAtFirst, adder, does, fragile, hold, waits};
use crate::common::{
    LONG, assert_serves, each_way, fails_at_once, failure, reason, soon, until, with_router, with_two_routers,
};

#[test]
fn an_async_handler_answers_when_it_is_done() {
    each_way(async |pair| {
        let agent = pair.provider.spawn(waits(|msg| {
            Box::pin(async {
                tokio::task::yield_now().await;
                msg.answer(|n: i64| n + 1)
            })
        }));
        assert_serves(&pair.asker.connect(), pair.reach(&agent)).await;
    });
}

#[test]
fn async_handlers_run_side_by_side() {
    with_router(async |router| {
        let together = Rc::new(tokio::sync::Barrier::new(10));
        let agent = router.spawn(waits(move |msg| {
            let together = together.clone();
            Box::pin(async move {
                together.wait().await;
                msg.answer(|n: i64| n + 1)
            })
        }));
        let conn = router.connect();
        let replies = join_all((0..10).map(|n| conn.request(&agent, "ADD_ONE", n, LONG))).await;
        assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    });
}

#[test]
fn a_message_can_be_dealt_with_later() {
    each_way(async |pair| {
        let (agent, mut held) = hold(&pair.provider);
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        let asked = actix::spawn(async move { conn.request(to, "ADD_ONE", 41, LONG).await });
        let request = held.next().await;
        assert_serves(&pair.asker.connect(), pair.reach(&pair.provider.spawn(adder()))).await;
        let _handled = request.answer(|n: i64| n + 1);
        assert_eq!(asked.await.unwrap().unwrap().contents::<i64>(), Ok(42));
    });
}

#[test]
fn a_message_put_off_and_dropped_is_told_to_its_sender() {
    each_way(async |pair| {
        let agent = pair.provider.spawn(does(|msg| msg.later().0));
        let failure = fails_at_once(&pair.asker.connect(), pair.reach(&agent)).await;
        assert_eq!(failure.reason, Reason::AgentStopped);
    });
}

#[test]
fn a_panic_is_told_to_the_sender() {
    each_way(async |pair| {
        let agent = pair.provider.spawn(fragile());
        let ended = pair.asker.connect().request(pair.reach(&agent), "PANIC", (), LONG).await;
        assert_eq!(failure(ended).reason, Reason::AgentPanicked);
    });
}

#[test]
fn a_panic_in_an_async_handler_is_told_to_the_sender_and_the_agent_lives_on() {
    each_way(async |pair| {
        let agent = pair.provider.spawn(waits(|msg| {
            Box::pin(async {
                tokio::task::yield_now().await;
                assert_eq!(msg.subject(), "ADD_ONE", "asked to panic");
                msg.answer(|n: i64| n + 1)
            })
        }));
        let conn = pair.asker.connect();
        let ended = conn.request(pair.reach(&agent), "PANIC", (), LONG).await;
        assert_eq!(failure(ended).reason, Reason::AgentPanicked);
        assert_serves(&conn, pair.reach(&agent)).await;
    });
}

#[test]
fn a_panic_tells_the_senders_of_what_was_in_the_mailbox() {
    each_way(async |pair| {
        let agent = pair.provider.spawn(fragile());
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        let subjects = std::iter::once("PANIC").chain(std::iter::repeat_n("ADD_ONE", 100));
        let ended = join_all(subjects.map(|subject| conn.request(&to, subject, 41, LONG))).await;
        let mut told = ended.into_iter().map(|ended| failure(ended).reason);
        assert_eq!(told.next(), Some(Reason::AgentPanicked));
        // Only the one in hand is at fault; the rest were in the mailbox, or came when it was gone.
        let rest = [Reason::AgentStopped, Reason::AgentPanicked, Reason::NoSuchConnection];
        assert!(told.all(|reason| rest.contains(&reason)));
    });
}

#[test]
fn a_panic_leaves_the_neighbours_alone() {
    with_router(async |router| {
        let (neighbour, fragile) = (router.spawn(adder()), router.spawn(fragile()));
        let conn = router.connect();
        let ended = conn.request(&fragile, "PANIC", (), LONG).await;
        assert_eq!(failure(ended).reason, Reason::AgentPanicked);
        assert_serves(&conn, &neighbour).await;
        assert_serves(&conn, &router.spawn(adder())).await;
    });
}

#[test]
fn a_spawned_agent_is_not_restarted() {
    each_way(async |pair| {
        let agent = pair.provider.spawn(fragile());
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        let _panicked = conn.request(&to, "PANIC", (), LONG).await;
        until("the actor has ended", || !agent.actor().connected()).await;
        let reason = fails_at_once(&conn, &to).await.reason;
        assert!(matches!(reason, Reason::NoSuchConnection | Reason::AgentPanicked), "{reason:?}");
    });
}

#[test]
fn a_supervised_agent_is_restarted_at_its_address_three_times_a_minute() {
    with_router(async |router| {
        let lives = Rc::new(Cell::new(0));
        let born = lives.clone();
        let agent = router.spawn_supervised(move || {
            born.set(born.get() + 1);
            fragile()
        });
        let conn = router.connect();
        for life in 1..=4 {
            until("it lives again", || lives.get() == life).await;
            assert_serves(&conn, &agent).await;
            let ended = conn.request(&agent, "PANIC", (), LONG).await;
            assert_eq!(failure(ended).reason, Reason::AgentPanicked);
        }
        until("it is given up", || agent.connection().try_send(&agent, "ADD_ONE", 1).is_err()).await;
        let reason = fails_at_once(&conn, &agent).await.reason;
        assert!(matches!(reason, Reason::NoSuchConnection | Reason::AgentPanicked), "{reason:?}");
        assert_eq!(lives.get(), 4);
    });
}

#[test]
fn a_supervised_agent_that_cannot_be_made_again_is_gone() {
    with_router(async |router| {
        let lives = Cell::new(0);
        let agent = router.spawn_supervised(move || {
            lives.set(lives.get() + 1);
            assert_eq!(lives.get(), 1, "asked to panic");
            fragile()
        });
        let _entry = agent.register("Fragile").await.unwrap();
        let conn = router.connect();
        let ended = conn.request(&agent, "PANIC", (), LONG).await;
        assert_eq!(failure(ended).reason, Reason::AgentPanicked);
        until("it provides nothing", || conn.find("Fragile").all().is_empty()).await;
        assert_eq!(fails_at_once(&conn, &agent).await.reason, Reason::NoSuchConnection);
    });
}

#[test]
fn a_supervised_agent_that_stops_is_not_restarted() {
    with_router(async |router| {
        let agent = router.spawn_supervised(adder);
        let conn = router.connect();
        assert_serves(&conn, &agent).await;
        agent.stop();
        until("it has stopped", || conn.try_send(&agent, "PING", ()).is_err()).await;
        let reason = fails_at_once(&conn, &agent).await.reason;
        assert!(matches!(reason, Reason::NoSuchConnection | Reason::AgentStopped), "{reason:?}");
    });
}

#[test]
fn each_of_a_thousand_messages_in_a_stopped_agents_mailbox_is_told_once() {
    each_way(async |pair| {
        let (sender, mut reports) = hold(&pair.asker);
        let (conn, to) = (sender.connection(), pair.reach(&pair.provider.spawn(StopsAtFirst)));
        conn.send(&to, "STOP", 0).await.unwrap();
        let (mut sent, mut told) = (Vec::new(), Vec::new());
        for n in 0..1000 {
            // Some may be refused at once: those are told by that.
            sent.extend(conn.try_send(&to, "TAKE", n).ok());
        }
        for _ in &sent {
            let report = reports.next().await;
            let reason = reason(&report);
            assert!(matches!(reason, Reason::AgentStopped | Reason::NoSuchConnection), "{reason:?}");
            told.extend(report.reply_to());
            let _handled = report.handled();
        }
        told.sort_unstable();
        assert_eq!(told, sent);
        assert!(!sent.is_empty());
        assert_serves(&pair.asker.connect(), pair.reach(&pair.provider.spawn(adder()))).await;
        assert_eq!(reports.now().len(), 0);
    });
}

#[test]
fn stop_lets_the_message_in_hand_end_and_tells_the_senders_of_the_rest() {
    with_router(async |router| {
        let (agent, mut held) = hold(&router);
        let (conn, to) = (router.connect(), agent.addr());
        let first = actix::spawn(async move { conn.request(to, "ADD_ONE", 41, LONG).await });
        let in_hand = held.next().await;
        agent.stop();
        until("it has stopped", || !agent.actor().connected()).await;
        let _handled = in_hand.answer(|n: i64| n + 1);
        let answer = first.await.unwrap();
        assert_eq!(answer.unwrap().contents::<i64>(), Ok(42));
        assert_eq!(fails_at_once(&router.connect(), &agent).await.reason, Reason::NoSuchConnection);
    });
}

#[test]
fn a_stopped_agents_own_requests_end() {
    with_router(async |router| {
        let (silent, mut held) = hold(&router);
        let (agent, _) = hold(&router);
        let conn = agent.connection();
        let asked = actix::spawn(async move { conn.request(&silent, "BUY", 1, LONG).await });
        let request = held.next().await;
        agent.stop();
        let failure = failure(soon(asked).await.unwrap());
        assert_eq!((failure.reason, failure.place), (Reason::AgentStopped, agent.addr().to_string()));
        let _handled = request.handled();
    });
}

#[test]
fn agents_on_other_threads_answer() {
    each_way(async |pair| {
        let threads: Vec<_> = (0..3).map(|_| actix::Arbiter::new()).collect();
        let agents: Vec<_> = threads.iter().map(|thread| pair.provider.spawn_on(&thread.handle(), adder)).collect();
        let conn = pair.asker.connect();
        for agent in &agents {
            assert_serves(&conn, pair.reach(agent)).await;
        }
        assert!(threads.iter().all(actix::Arbiter::stop));
    });
}

/// Keeps a message for ever.
async fn pending(msg: Msg) -> Handled {
    std::future::pending::<()>().await;
    msg.handled()
}

#[test]
fn messages_to_an_agent_whose_thread_ends_are_told() {
    with_router(async |router| {
        let thread = actix::Arbiter::new();
        let agent = router.spawn_on(&thread.handle(), || waits(|msg| Box::pin(async { pending(msg).await })));
        let conn = router.connect();
        let asked = (0..20).map(|n| conn.request(&agent, "ADD_ONE", n, LONG));
        let stop = async { assert!(thread.stop()) };
        let (ended, ()) = futures::future::join(join_all(asked), stop).await;
        for ended in ended {
            assert_eq!(failure(ended).reason, Reason::AgentStopped);
        }
        assert_eq!(fails_at_once(&conn, &agent).await.reason, Reason::NoSuchConnection);
    });
}

#[test]
fn ping_is_answered() {
    each_way(async |pair| {
        let agent = pair.provider.spawn(adder());
        let reply = pair.asker.connect().request(pair.reach(&agent), "PING", (), LONG).await.unwrap();
        assert_eq!((reply.subject(), reply.contents::<()>()), ("PING", Ok(())));
    });
}

#[test]
fn shutdown_stops_the_router_of_an_agent_that_allows_it() {
    with_two_routers(async |a, b| {
        let agent = b.spawn(Obedient);
        a.connect().send(&agent, "SHUTDOWN", ()).await.unwrap();
        soon(b.stopped()).await;
    });
}

#[test]
fn shutdown_is_not_understood_by_an_agent_that_does_not_allow_it() {
    with_two_routers(async |a, b| {
        let agent = b.spawn(adder());
        let conn = a.connect();
        let ended = conn.request(&agent, "SHUTDOWN", (), LONG).await;
        assert!(matches!(ended, Err(RequestError::NotUnderstood { .. })), "{ended:?}");
        assert_serves(&conn, &agent).await;
    });
}

#[test]
fn a_stray_reply_is_ignored_and_counted() {
    with_router(async |router| {
        let (asker, mut held) = hold(&router);
        let to = asker.addr();
        let agent = router.spawn(does(|msg| msg.reply("unasked")));
        let id = asker.connection().send(&agent, "TELL", ()).await.unwrap();
        let stray = held.next().await;
        assert_eq!((stray.is_reply(), stray.reply_to(), stray.to()), (true, Some(id), &to));
        let _handled = stray.unhandled();
        assert_eq!(router.stats().late_replies, 1);
        assert_eq!(router.stats().undelivered, 0);
    });
}

/// Asks itself nothing, but another agent, whenever it is asked.
struct Asks(Option<Connection>, vlmessaging::Addr);

impl Actor for Asks {
    type Context = Context<Self>;
}

impl Agent for Asks {
    fn started(&mut self, connection: Connection, _: &mut Context<Self>) {
        self.0 = Some(connection);
    }
}

impl Handler<Msg> for Asks {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, ctx: &mut Context<Self>) -> Handled {
        let (handled, msg) = msg.later();
        let (conn, other) = (self.0.clone().unwrap(), self.1.clone());
        ctx.spawn(actix::fut::wrap_future(async move {
            let _handled = match conn.request(other, "ADD_ONE", msg.contents::<i64>().unwrap(), LONG).await {
                Ok(reply) => msg.reply(reply.contents::<i64>().unwrap() + 1),
                Err(error) => msg.refuse(&error.to_string()),
            };
        }));
        handled
    }
}

#[test]
fn an_agent_asks_another_with_the_connection_it_was_given() {
    with_two_routers(async |a, b| {
        let asks = b.spawn(Asks(None, a.spawn(adder()).addr()));
        let reply = a.connect().request(&asks, "ADD_TWO", 40, LONG).await.unwrap();
        assert_eq!(reply.contents::<i64>(), Ok(42));
    });
}
