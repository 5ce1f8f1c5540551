//! Calls by address, both ways, over ipc and tcp; and what contents are on the other side.

use serde_json::json;
use vlmessaging::{Contents, Endpoint, Router};

use crate::peer::{
    AddOne, Folder, LIMIT, Peer, add_one_twenty_times, element, free_tcp, over_tcp, python_adds_one_twenty_times, until,
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
