//! Calls by address, both ways, over ipc and tcp; and what contents are on the other side.

use serde_json::json;
use vlmessaging::{Addr, Contents, Endpoint, Router};

use crate::peer::{
    AddOne, Events, Folder, LIMIT, Peer, add_one_twenty_times, element, free_tcp, over_tcp,
    python_adds_one_twenty_times, until,
};

/// Ion text, and what Python calls the same.
const SHAPES: &[(&str, &str)] = &[
    ("null", "null"),
    ("true", "true"),
    ("0", "0"),
    ("-1", "-1"),
    ("9223372036854775808", "9223372036854775808"),
    ("-9223372036854775809", "-9223372036854775809"),
    // 2 to the 200th, and below its negative.
    (
        "1606938044258990275541962092341162602522202993782792835301376",
        "1606938044258990275541962092341162602522202993782792835301376",
    ),
    (
        "-1606938044258990275541962092341162602522202993782792835301377",
        "-1606938044258990275541962092341162602522202993782792835301377",
    ),
    ("0e0", "0.0"),
    ("-0e0", "-0.0"),
    ("1e-1", "0.1"),
    ("5e-1", "0.5"),
    ("1e300", "1e+300"),
    ("5e-324", "5e-324"),
    ("+inf", "Infinity"),
    (r#""""#, r#""""#),
    (r#""naïve ☃ 𝄞""#, r#""naïve ☃ 𝄞""#),
    (r#""a\0b\n""#, r#""a\u0000b\n""#),
    ("[]", "[]"),
    ("{}", "{}"),
    ("[1, [2, [3e0, [null, [false]]]]]", "[1, [2, [3.0, [null, [false]]]]]"),
    (r#"{"z": 1, "a": {"y": [], "b": {}}, "m": 2}"#, r#"{"z": 1, "a": {"y": [], "b": {}}, "m": 2}"#),
    (r#"{"name": 1, "symbols": 2, "": 3, "é": 4}"#, r#"{"name": 1, "symbols": 2, "": 3, "é": 4}"#),
];

#[actix::test]
async fn a_python_client_calls_a_rust_agent_and_each_call_is_answered() {
    let folder = Folder::new();
    let router = folder.router(Router::machine()).start().await.unwrap();
    let agent = router.spawn(AddOne::default()).addr();
    let mut client = Peer::client(&[]).await;

    python_adds_one_twenty_times(&mut client, &agent).await;

    client.end().await;
    router.shutdown().await;
}

#[actix::test]
async fn a_rust_connection_calls_a_python_agent_and_each_call_is_answered() {
    let folder = Folder::new();
    let router = folder.router(Router::machine()).start().await.unwrap();
    let agent = Peer::agent(&[]).await;

    add_one_twenty_times(&router.connect(), &agent.addr).await;

    router.shutdown().await;
    agent.end().await;
}

#[actix::test]
async fn contents_of_any_shape_come_back_to_python_unchanged() {
    let folder = Folder::new();
    let router = folder.router(Router::machine()).start().await.unwrap();
    let agent = router.spawn(AddOne::default()).addr();
    let mut client = Peer::client(&[]).await;
    client.meet(&agent).await;

    for (_, text) in SHAPES {
        let echo = client.tell(json!({"do": "echo", "to": agent, "json": text})).await;
        assert_eq!(echo, json!({"sent": text, "came": text}));
    }

    client.end().await;
    router.shutdown().await;
}

#[actix::test]
async fn contents_of_any_shape_are_the_same_in_python_and_come_back_to_rust_unchanged() {
    let folder = Folder::new();
    let router = folder.router(Router::machine()).start().await.unwrap();
    let agent = Peer::agent(&[]).await;
    let conn = router.connect();

    for (text, python) in SHAPES {
        let contents = || Contents::from_element(&element(text)).unwrap();
        let shown = conn.request(&agent.addr, "SHOW", contents(), LIMIT).await.unwrap();
        let echoed = conn.request(&agent.addr, "ECHO", contents(), LIMIT).await.unwrap();
        assert_eq!(shown.contents::<String>().as_deref(), Ok(*python));
        assert_eq!(echoed.raw().element().unwrap().to_string(), element(text).to_string());
    }

    router.shutdown().await;
    agent.end().await;
}

#[actix::test]
async fn a_burst_of_200_one_way_messages_reaches_python_complete_and_in_order() {
    let folder = Folder::new();
    let router = folder.router(Router::machine()).start().await.unwrap();
    let agent = Peer::agent(&[]).await;
    let conn = router.connect();

    for n in 0..200_i64 {
        conn.send(&agent.addr, "EVENT", n).await.unwrap();
    }

    let arrived =
        async || conn.request(&agent.addr, "EVENTS", (), LIMIT).await.unwrap().contents::<Vec<i64>>().unwrap();
    until("200 events are there", async || arrived().await.len() >= 200).await;
    assert_eq!(arrived().await, (0..200).collect::<Vec<i64>>());
    router.shutdown().await;
    agent.end().await;
}

#[actix::test]
async fn a_rust_router_that_only_dials_calls_python_over_tcp() {
    let folder = Folder::new();
    let router = folder.router(Router::network()).start().await.unwrap();
    let agent = Peer::agent(&["--mode", "network", "--net-listen", &free_tcp()]).await;

    add_one_twenty_times(&router.connect(), &agent.addr).await;

    router.shutdown().await;
    agent.end().await;
}

#[actix::test]
async fn a_rust_router_that_listens_calls_python_over_tcp() {
    let folder = Folder::new();
    let router = folder.router(Router::network()).listen("tcp://127.0.0.1:0").start().await.unwrap();
    let agent = Peer::agent(&["--mode", "network", "--net-listen", &free_tcp()]).await;

    add_one_twenty_times(&router.connect(), &agent.addr).await;

    router.shutdown().await;
    agent.end().await;
}

#[actix::test]
async fn a_python_client_calls_a_rust_agent_over_tcp() {
    let folder = Folder::new();
    let router = folder.router(Router::network()).listen("tcp://127.0.0.1:0").start().await.unwrap();
    let tcp: Endpoint = router.net_addr(0).net.unwrap();
    let agent = over_tcp(&router.spawn(AddOne::default()).addr(), &tcp);
    let mut client = Peer::client(&["--mode", "network"]).await;

    python_adds_one_twenty_times(&mut client, &agent).await;

    client.end().await;
    router.shutdown().await;
}

/// A Rust router and a Python one, over ipc and over tcp, with one calling the other a thousand times.
async fn a_thousand_calls(test: impl AsyncFn(&Router, &mut Peer, Option<&Endpoint>)) {
    for over_tcp in [false, true] {
        let folder = Folder::new();
        let router = folder.router(Router::network()).listen("tcp://127.0.0.1:0").start().await.unwrap();
        let tcp = router.net_addr(0).net.filter(|_| over_tcp);
        let listening = free_tcp();
        let options = ["--mode", "network", "--net-listen", &listening];
        let mut peer = Peer::agent(if over_tcp { &options } else { &[] }).await;
        test(&router, &mut peer, tcp.as_ref()).await;
        peer.end().await;
        assert_eq!(router.stats().untold, 0);
        router.shutdown().await;
    }
}

#[actix::test]
async fn of_a_thousand_calls_from_python_rust_loses_none_and_pythons_own_losses_are_counted() {
    a_thousand_calls(async |router, python, tcp| {
        let agent = router.spawn(AddOne::default()).addr();
        let to = Addr { net: tcp.cloned(), ..agent.clone() };
        python.meet(&to).await;

        let called = python.tell(json!({"do": "call", "to": to, "times": 1000, "within": 1000})).await;

        let handled = router.connect().request(&agent, "COUNT", (), LIMIT).await.unwrap().contents::<u64>().unwrap();
        let number = |name: &str| called[name].as_u64().unwrap();
        println!("over {tcp:?}: {called}, of which Rust handled {handled}");
        assert_eq!(number("answered") + number("lost"), 1000);
        // What Rust had it answered, and Python got: what is missing Python's sender dropped.
        assert_eq!((number("answered"), number("wrong")), (handled, 0));
        assert!(number("lost") <= 10, "one at a time Python loses next to none: {called}");
    })
    .await;
}

#[actix::test]
async fn of_a_thousand_calls_from_rust_python_answers_each() {
    a_thousand_calls(async |router, python, _| {
        let conn = router.connect();
        for n in 0..1000_i64 {
            let reply = conn.request(&python.addr, "ADD_ONE", n, LIMIT).await.expect("Python answers");
            assert_eq!(reply.contents::<i64>(), Ok(n + 1));
        }
    })
    .await;
}

#[actix::test]
async fn what_python_loses_of_a_burst_it_loses_before_rust_has_it() {
    a_thousand_calls(async |router, python, tcp| {
        let (agent, mut events) = Events::spawn(router);
        let to = Addr { net: tcp.cloned(), ..agent };
        python.meet(&to).await;

        python.tell(json!({"do": "send", "to": to, "subject": "EVENT", "times": 1000, "pause": 0})).await;
        // Slower than a millisecond each it loses nothing, so these come after all that it did not lose.
        python.tell(json!({"do": "send", "to": to, "subject": "LAST", "times": 5, "pause": 20})).await;

        let came = events.until_last().await;
        println!("of 1000 sent by Python without a pause over {tcp:?} {} came", came.len());
        assert!(came.len() >= 10);
        assert!(came.is_sorted_by(|one, next| one < next), "in order, none twice");
        assert_eq!(router.stats().undelivered, 0);
    })
    .await;
}
