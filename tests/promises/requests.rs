//! Requests: answered, refused or timed out, each in its time.

use std::time::{Duration, Instant};

use futures::future::join_all;
use vlmessaging::{Reason, RequestError};

use crate::common::agents::{adder, does, hold};
use crate::common::{AT_ONCE, LONG, Way, assert_serves, each_way, fails_at_once, over, reason, until, with_router};

/// Short, for what shall not be answered.
const SHORT: Duration = Duration::from_millis(30);

fn rounds() -> i64 {
    std::env::var("VLM_TEST_ROUNDS").map_or(1000, |rounds| rounds.parse().unwrap())
}

#[test]
fn a_request_is_answered() {
    each_way(async |pair| {
        let adder = pair.provider.spawn(adder());
        let reply = pair.asker.connect().request(pair.reach(&adder), "ADD_ONE", 41, LONG).await.unwrap();
        assert_eq!(reply.contents::<i64>(), Ok(42));
        assert_eq!((reply.subject(), reply.is_reply()), ("ADD_ONE", true));
    });
}

#[test]
fn a_request_without_answer_times_out_and_says_who_what_and_how_long() {
    each_way(async |pair| {
        let (agent, _held) = hold(&pair.provider);
        let to = pair.reach(&agent);
        let asked = Instant::now();
        let error = pair.asker.connect().request(&to, "ADD_ONE", 41, SHORT).await.unwrap_err();
        assert!(asked.elapsed() >= SHORT && asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        assert_eq!(error.to_string(), format!("no reply from {to} to \"ADD_ONE\" within 30ms"));
    });
}

#[test]
fn an_answer_under_another_accepted_subject_is_an_answer() {
    each_way(async |pair| {
        let agent = pair.provider.spawn(does(|msg| msg.reply_as("SOLD_OUT", "tomorrow")));
        let conn = pair.asker.connect();
        let reply = conn.request_or(pair.reach(&agent), "BUY", 1, LONG, &["DEAR", "SOLD_OUT"]).await.unwrap();
        assert_eq!((reply.subject(), reply.contents::<String>().unwrap().as_str()), ("SOLD_OUT", "tomorrow"));
    });
}

#[test]
fn an_answer_under_a_subject_that_nobody_accepts_is_told_to_the_answerer() {
    with_router(async |router| {
        let (agent, mut held) = hold(&router);
        let conn = router.connect();
        let asked = actix::spawn(async move { conn.request(&agent, "BUY", 1, SHORT).await });
        let _handled = held.next().await.reply_as("SOLD_OUT", ());
        assert_eq!(reason(&held.next().await), Reason::NoHandler);
        assert!(matches!(asked.await.unwrap(), Err(RequestError::TimedOut { .. })));
    });
}

#[test]
fn a_refusal_ends_the_wait_at_once() {
    each_way(async |pair| {
        let adder = pair.provider.spawn(adder());
        let asked = Instant::now();
        let ended = pair.asker.connect().request(pair.reach(&adder), "ADD_TWO", 41, LONG).await;
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        let Err(RequestError::NotUnderstood { to, subject, why }) = ended else { panic!("{ended:?}") };
        assert_eq!((to, subject.as_str()), (pair.reach(&adder), "ADD_TWO"));
        assert_eq!(why, "no handler for this subject");
    });
}

#[test]
fn a_refusal_says_what_the_agent_says() {
    each_way(async |pair| {
        let agent = pair.provider.spawn(does(|msg| msg.refuse("not on a Sunday")));
        let error = pair.asker.connect().request(pair.reach(&agent), "BUY", 1, LONG).await.unwrap_err();
        assert!(error.to_string().ends_with("does not understand \"BUY\": not on a Sunday"), "{error}");
    });
}

#[test]
fn a_request_to_no_connection_fails_at_once() {
    each_way(async |pair| {
        let failure = fails_at_once(&pair.asker.connect(), pair.provider.net_addr(99)).await;
        assert_eq!((failure.reason, failure.subject.as_str()), (Reason::NoSuchConnection, "ADD_ONE"));
        assert_eq!(failure.to.connection, Some(99));
    });
}

#[test]
fn a_request_to_a_connection_without_agent_fails_at_once() {
    each_way(async |pair| {
        let deaf = pair.provider.connect();
        let failure = fails_at_once(&pair.asker.connect(), pair.reach(deaf.addr())).await;
        assert_eq!(failure.reason, Reason::NoHandler);
    });
}

#[test]
fn a_late_reply_is_dropped_and_counted_and_the_replier_is_told() {
    each_way(async |pair| {
        let (agent, mut held) = hold(&pair.provider);
        let conn = pair.asker.connect();
        let ended = conn.request(pair.reach(&agent), "BUY", 1, SHORT).await;
        assert!(matches!(ended, Err(RequestError::TimedOut { .. })), "{ended:?}");
        let _handled = held.next().await.reply(2);
        let report = held.next().await;
        assert_eq!(
            (reason(&report), report.not_delivered().unwrap().to.connection),
            (Reason::NoHandler, conn.addr().connection)
        );
        assert_eq!(pair.asker.stats().late_replies, 1);
    });
}

#[test]
fn an_answer_carries_the_number_of_its_request() {
    each_way(async |pair| {
        let (agent, mut held) = hold(&pair.provider);
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        let waiting = conn.clone();
        let buying = actix::spawn(async move { waiting.request(&to, "BUY", 1, LONG).await });
        let request = held.next().await;
        let id = request.id();
        let _handled = request.reply(2);
        let reply = buying.await.unwrap().unwrap();
        assert_eq!((reply.reply_to(), reply.to().connection), (id, conn.addr().connection));
    });
}

#[test]
fn a_thousand_requests_at_once_are_all_answered() {
    each_way(async |pair| {
        let adder = pair.provider.spawn(adder());
        let (conn, to) = (pair.asker.connect(), pair.reach(&adder));
        let replies = join_all((0..1000_i64).map(|n| conn.request(&to, "ADD_ONE", n, LONG))).await;
        let sums: Vec<i64> = replies.into_iter().map(|reply| reply.unwrap().contents().unwrap()).collect();
        assert_eq!(sums, (1..=1000).collect::<Vec<_>>());
    });
}

#[test]
fn requests_of_many_connections_are_not_mixed_up() {
    each_way(async |pair| {
        let adder = pair.provider.spawn(adder());
        let (conns, to): (Vec<_>, _) = ((0..50).map(|_| pair.asker.connect()).collect(), pair.reach(&adder));
        let replies = join_all(conns.iter().zip(0_i64..).map(|(conn, n)| conn.request(&to, "ADD_ONE", n, LONG))).await;
        for ((reply, conn), n) in replies.into_iter().zip(&conns).zip(0..) {
            let reply = reply.unwrap();
            assert_eq!((reply.contents::<i64>(), reply.to().connection), (Ok(n + 1), conn.addr().connection));
        }
    });
}

#[test]
fn requests_in_a_row_are_all_answered() {
    for way in [Way::Ipc, Way::Tcp, Way::Undialed] {
        over(way, async |pair| {
            let adder = pair.provider.spawn(adder());
            let (conn, to) = (pair.asker.connect(), pair.reach(&adder));
            for n in 0..rounds() {
                let reply = conn.request(&to, "ADD_ONE", n, LONG).await.unwrap();
                assert_eq!(reply.contents::<i64>(), Ok(n + 1));
            }
            assert_eq!(pair.asker.stats(), vlmessaging::Stats::default());
        });
    }
}

#[test]
fn messages_of_one_sender_arrive_in_order_and_once() {
    each_way(async |pair| {
        let (agent, mut held) = hold(&pair.provider);
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        for n in 0..2000 {
            conn.send(&to, "COUNT", n).await.unwrap();
        }
        for n in 0..2000 {
            assert_eq!(held.next().await.take_contents(), Ok(n));
        }
        assert_serves(&conn, pair.reach(&pair.provider.spawn(adder()))).await;
        assert_eq!(held.now().len(), 0);
    });
}

#[test]
fn a_request_given_up_makes_its_answer_late() {
    with_router(async |router| {
        let (agent, mut held) = hold(&router);
        let conn = router.connect();
        let given_up = tokio::time::timeout(SHORT, conn.request(&agent, "BUY", 1, LONG)).await;
        assert!(given_up.is_err());
        let _handled = held.next().await.reply(2);
        until("the answer is counted as late", || router.stats().late_replies == 1).await;
    });
}
