//! Whatever goes wrong is told at once and by name, and the Python router lives on.

use std::time::{Duration, Instant};

use serde_json::json;
use vlmessaging::{Reason, RequestError, Router};

use crate::peer::{AddOne, Folder, LIMIT, Peer, add_one_twenty_times, free_tcp, python_adds_one_twenty_times, until};

/// Far longer than any failure may take to be told.
const LONG: Duration = Duration::from_mins(1);

#[actix::test]
async fn a_subject_that_a_python_agent_does_not_understand_ends_the_request_at_once() {
    let folder = Folder::new();
    let router = folder.router(Router::machine()).start().await.unwrap();
    let agent = Peer::agent(&[]).await;
    let conn = router.connect();
    let started = Instant::now();

    let refused = conn.request(&agent.addr, "ADD_TWO", 41, LONG).await;

    assert!(matches!(refused, Err(RequestError::NotUnderstood { .. })), "{refused:?}");
    assert!(started.elapsed() < LIMIT);
    add_one_twenty_times(&conn, &agent.addr).await;
    router.shutdown().await;
    agent.end().await;
}

#[actix::test]
async fn a_request_to_a_killed_python_process_fails_at_once() {
    for options in [&[][..], &["--mode", "network", "--net-listen", &free_tcp()]] {
        let folder = Folder::new();
        let router = folder.router(Router::network()).start().await.unwrap();
        let mut agent = Peer::agent(options).await;
        let conn = router.connect();
        add_one_twenty_times(&conn, &agent.addr).await;
        let waiting = actix::spawn({
            let (conn, to) = (conn.clone(), agent.addr.clone());
            async move { conn.request(&to, "SILENCE", (), LONG).await }
        });
        // Only the silent one waits by now: Python has had it before the one that it answers here.
        conn.request(&agent.addr, "ADD_ONE", 1, LIMIT).await.unwrap();

        let killed = Instant::now();
        agent.kill();
        let of_waiting = waiting.await.unwrap();
        let told_after = killed.elapsed();
        let of_later = conn.request(&agent.addr, "ADD_ONE", 1, LONG).await;

        assert_eq!(reason(of_waiting), Reason::PeerLost);
        assert!(matches!(reason(of_later), Reason::DialFailed(_)));
        assert!(told_after < Duration::from_secs(1), "told after {told_after:?}");
        router.shutdown().await;
    }
}

#[actix::test]
async fn a_message_from_python_to_nobody_is_reported_and_python_lives_on() {
    for mode in ["machine", "network"] {
        let folder = Folder::new();
        let router = folder.router(Router::network()).listen("tcp://127.0.0.1:0").start().await.unwrap();
        let mut agent = router.spawn(AddOne::default()).addr();
        agent.net = router.net_addr(0).net.filter(|_| mode == "network");
        let nobody = agent.with_connection(4711);
        let mut client = Peer::client(&["--mode", mode]).await;
        client.meet(&agent).await;

        let asked =
            json!({"do": "ask", "to": nobody, "subject": "ADD_ONE", "contents": 1, "also": ["MSG_NOT_DELIVERED"]});
        let told = client.tell(asked).await["replies"][0].take();
        // Without the subject named, Python hears of it in its handler.
        let unnamed = client.tell(json!({"do": "ask", "to": nobody, "subject": "ADD_ONE", "within": 100})).await;

        assert_eq!(told, json!({"subject": "MSG_NOT_DELIVERED", "contents": nobody}));
        assert_eq!(unnamed, json!({"replies": [null]}));
        python_adds_one_twenty_times(&mut client, &agent).await;
        client.end().await;
        router.shutdown().await;
    }
}

#[actix::test]
async fn a_python_directory_that_pings_agents_here_and_gone_lives_on() {
    let folder = Folder::new();
    let (builder, hub) = folder.hub(Router::machine());
    let router = builder.start().await.unwrap();
    let (here, gone) = (router.spawn(AddOne::default()), router.spawn(AddOne::default()));
    let _entry = here.register("Here").await.unwrap();
    let going = gone.register("Gone").await.unwrap();
    let mut client = Peer::client(&["--hub", &hub, "--heartbeat", "3000"]).await;
    client.find("Here").await;
    client.find("Gone").await;
    drop(going);
    gone.stop();

    // To the ping's answer Python says that it does not understand it, as it does to the report.
    until("both have been pinged", async || router.stats().undelivered == 1 && router.stats().late_replies == 1).await;

    python_adds_one_twenty_times(&mut client, &here.addr()).await;
    client.end().await;
    router.shutdown().await;
}

#[actix::test]
async fn a_message_to_a_python_agent_from_nobody_any_more_does_no_harm() {
    let folder = Folder::new();
    let router = folder.router(Router::machine()).start().await.unwrap();
    let agent = Peer::agent(&[]).await;
    let brief = router.connect();
    brief.request(&agent.addr, "ADD_ONE", 1, LIMIT).await.unwrap();

    // Its answer comes to a connection that is closed.
    brief.send(&agent.addr, "ADD_ONE", 1).await.unwrap();
    drop(brief);

    add_one_twenty_times(&router.connect(), &agent.addr).await;
    router.shutdown().await;
    agent.end().await;
}

#[actix::test]
async fn a_rust_router_that_leaves_right_after_one_call_does_not_kill_python() {
    let folder = Folder::new();
    let agent = Peer::agent(&[]).await;

    for n in 0..5_i64 {
        let router = folder.router(Router::machine()).start().await.unwrap();
        let reply = router.connect().request(&agent.addr, "ADD_ONE", n, LIMIT).await.unwrap();
        assert_eq!(reply.contents::<i64>(), Ok(n + 1));
        router.shutdown().await;
    }

    agent.end().await;
}

#[actix::test]
async fn a_rust_router_that_leaves_without_a_word_heard_does_not_kill_python() {
    let folder = Folder::new();
    let agent = Peer::agent(&[]).await;

    for n in 0..5_i64 {
        let router = folder.router(Router::machine()).start().await.unwrap();
        router.connect().send(&agent.addr, "EVENT", n).await.unwrap();
        router.shutdown().await;
    }

    agent.end().await;
}

#[actix::test]
async fn python_finds_its_way_to_a_restarted_rust_router_that_does_not_know_of_it() {
    let folder = Folder::new();
    let mut client = Peer::client(&[]).await;
    let first = folder.router(Router::machine()).start().await.unwrap();
    let agent = first.spawn(AddOne::default()).addr();
    python_adds_one_twenty_times(&mut client, &agent).await;
    first.shutdown().await;

    let second = folder.router(Router::machine()).start().await.unwrap();
    assert_eq!(second.spawn(AddOne::default()).addr(), agent);

    python_adds_one_twenty_times(&mut client, &agent).await;
    client.end().await;
    second.shutdown().await;
}

#[actix::test]
async fn a_python_dial_that_got_stuck_recovers_because_silent_connections_are_closed() {
    let folder = Folder::new();
    let router = folder.router(Router::machine()).start().await.unwrap();
    let agent = router.spawn(AddOne::default()).addr();
    let mut client = Peer::client(&["--stuck-dials", "1"]).await;

    python_adds_one_twenty_times(&mut client, &agent).await;

    assert_eq!(client.end().await["stuck_dials"], 1);
    router.shutdown().await;
}

fn reason<T: std::fmt::Debug>(failed: Result<T, RequestError>) -> Reason {
    match failed {
        Err(RequestError::NotDelivered(failure)) => failure.reason,
        Err(RequestError::NotSent(error)) => error.reason,
        other => panic!("{other:?} instead of a failure"),
    }
}
