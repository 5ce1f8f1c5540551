//! Agents are found across the two languages, whichever of them runs the hub.

use std::time::Duration;

use vlmessaging::Router;

use crate::peer::{
    AddOne, Folder, Peer, add_one_twenty_times, free_tcp, over_tcp, python_adds_one_twenty_times, python_hub, until,
};

/// What Python's rounds take to bring an entry through: its pauses double from 50 ms.
const ROUNDS: Duration = Duration::from_secs(10);

#[actix::test]
async fn python_finds_a_rust_agent_through_a_rust_hub() {
    let folder = Folder::new();
    let (builder, hub) = folder.hub(Router::machine());
    let router = builder.start().await.unwrap();
    let agent = router.spawn(AddOne::default());
    let _entry = agent.register("AddOneAgent").await.unwrap();
    let mut client = Peer::client(&["--hub", &hub]).await;

    let found = client.find("AddOneAgent").await;

    assert_eq!(found, agent.addr());
    python_adds_one_twenty_times(&mut client, &found).await;
    client.end().await;
    router.shutdown().await;
}

#[actix::test]
async fn rust_finds_a_python_agent_through_a_python_hub() {
    let folder = Folder::new();
    let hub = python_hub();
    let agent = Peer::agent(&["--hub-listen", &hub, "--service", "AddOneAgent", "--entry-vnet", "local"]).await;
    let router = folder.router(Router::machine()).join(hub).start().await.unwrap();
    let conn = router.connect();

    let found = conn.find("AddOneAgent").first_within(ROUNDS).await.unwrap();

    assert_eq!(found.addr, agent.addr);
    add_one_twenty_times(&conn, &found.addr).await;
    router.shutdown().await;
    agent.end().await;
}

#[actix::test]
async fn rust_finds_a_python_agent_that_joined_a_rust_hub() {
    let folder = Folder::new();
    let (builder, hub) = folder.hub(Router::machine());
    let router = builder.start().await.unwrap();
    let agent = Peer::agent(&["--hub", &hub, "--service", "AddOneAgent", "--entry-vnet", "local"]).await;
    let conn = router.connect();

    let found = conn.find("AddOneAgent").first_within(ROUNDS).await.unwrap();

    assert_eq!(found.addr, agent.addr);
    add_one_twenty_times(&conn, &found.addr).await;
    router.shutdown().await;
    agent.end().await;
}

#[actix::test]
async fn python_finds_a_rust_agent_through_a_python_hub() {
    let folder = Folder::new();
    let hub = python_hub();
    let hub_agent = Peer::agent(&["--hub-listen", &hub]).await;
    let router = folder.router(Router::machine()).join(hub.as_str()).start().await.unwrap();
    let agent = router.spawn(AddOne::default());
    let _entry = agent.register("AddOneAgent").await.unwrap();
    let mut client = Peer::client(&["--hub", &hub]).await;

    let found = client.find("AddOneAgent").await;

    assert_eq!(found, agent.addr());
    python_adds_one_twenty_times(&mut client, &found).await;
    client.end().await;
    router.shutdown().await;
    hub_agent.end().await;
}

#[actix::test]
async fn an_entry_of_a_killed_python_agent_is_gone_from_a_rust_hub() {
    let folder = Folder::new();
    let (builder, hub) = folder.hub(Router::machine());
    let router = builder.start().await.unwrap();
    let mut agent = Peer::agent(&["--hub", &hub, "--service", "AddOneAgent", "--entry-vnet", "local"]).await;
    let conn = router.connect();
    conn.find("AddOneAgent").first_within(ROUNDS).await.unwrap();

    agent.kill();

    until("the entry is gone", async || conn.find("AddOneAgent").all().is_empty()).await;
    router.shutdown().await;
}

#[actix::test]
async fn python_finds_a_rust_agent_through_a_rust_tcp_hub() {
    let folder = Folder::new();
    let builder = folder.router(Router::network()).vnet("test").listen("tcp://127.0.0.1:0");
    let router = builder.start().await.unwrap();
    let hub = router.net_addr(0).net.unwrap();
    let agent = router.spawn(AddOne::default());
    let _entry = agent.register("AddOneAgent").await.unwrap();
    let mut client = Peer::client(&["--mode", "network", "--vnet", "test", "--net-hub", hub.as_str()]).await;

    let found = client.find("AddOneAgent").await;

    assert_eq!(found, over_tcp(&agent.addr(), &hub));
    python_adds_one_twenty_times(&mut client, &found).await;
    client.end().await;
    router.shutdown().await;
}

#[actix::test]
async fn a_rust_router_that_only_dials_finds_a_python_agent_through_a_python_tcp_hub() {
    let folder = Folder::new();
    let hub = free_tcp();
    let agent = Peer::agent(&[
        "--mode",
        "network",
        "--vnet",
        "test",
        "--net-listen",
        &hub,
        "--service",
        "AddOneAgent",
        "--entry-vnet",
        "test",
    ])
    .await;
    let router = folder.router(Router::network()).vnet("test").join(hub).start().await.unwrap();
    let conn = router.connect();

    let found = conn.find("AddOneAgent").first_within(ROUNDS).await.unwrap();

    assert_eq!(found.addr, agent.addr);
    add_one_twenty_times(&conn, &found.addr).await;
    router.shutdown().await;
    agent.end().await;
}

#[actix::test]
async fn a_rust_router_that_listens_finds_a_python_agent_through_a_python_tcp_hub() {
    let folder = Folder::new();
    let hub = free_tcp();
    let agent = Peer::agent(&[
        "--mode",
        "network",
        "--vnet",
        "test",
        "--net-listen",
        &hub,
        "--service",
        "AddOneAgent",
        "--entry-vnet",
        "test",
    ])
    .await;
    let builder = folder.router(Router::network()).vnet("test").listen("tcp://127.0.0.1:0");
    let router = builder.join(hub).start().await.unwrap();
    let conn = router.connect();

    let found = conn.find("AddOneAgent").first_within(ROUNDS).await.unwrap();

    assert_eq!(found.addr, agent.addr);
    add_one_twenty_times(&conn, &found.addr).await;
    router.shutdown().await;
    agent.end().await;
}

#[actix::test]
async fn python_comes_back_to_a_rust_hub_that_was_restarted() {
    let folder = Folder::new();
    let (builder, hub) = folder.hub(Router::machine());
    let first = builder.start().await.unwrap();
    let agent = Peer::agent(&["--hub", &hub, "--service", "AddOneAgent", "--entry-vnet", "local"]).await;
    first.connect().find("AddOneAgent").first_within(ROUNDS).await.unwrap();
    first.shutdown().await;

    let second = folder.hub(Router::machine()).0.start().await.unwrap();
    let conn = second.connect();
    let found = conn.find("AddOneAgent").first_within(ROUNDS).await.unwrap();

    assert_eq!(found.addr, agent.addr);
    add_one_twenty_times(&conn, &found.addr).await;
    second.shutdown().await;
    agent.end().await;
}

#[actix::test]
async fn rust_joins_a_python_hub_again_that_was_killed_and_restarted() {
    let folder = Folder::new();
    let hub = python_hub();
    let options = ["--hub-listen", &hub, "--service", "AddOneAgent", "--entry-vnet", "local"];
    let mut first = Peer::agent(&options).await;
    let router = folder.router(Router::machine()).join(hub.as_str()).start().await.unwrap();
    let conn = router.connect();
    conn.find("AddOneAgent").first_within(ROUNDS).await.unwrap();
    first.kill();
    until("the entry is gone", async || conn.find("AddOneAgent").all().is_empty()).await;

    let second = Peer::agent(&options).await;
    let found = conn.find("AddOneAgent").first_within(ROUNDS).await.unwrap();

    assert_eq!(found.addr, second.addr);
    add_one_twenty_times(&conn, &found.addr).await;
    router.shutdown().await;
    second.end().await;
}
