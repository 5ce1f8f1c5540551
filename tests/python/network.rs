//! Python directories of the network, which a Rust hub asks back: their own shares fail as soon as they have an entry.

use std::time::Duration;

use serde_json::json;
use vlmessaging::{Addr, Endpoint, Router};

use crate::peer::{
    AddOne, Folder, LIMIT, Peer, add_one_twenty_times, free_tcp, over_tcp, python_adds_one_twenty_times, until,
};

/// What Python's rounds take to bring an entry through: its pauses double from 50 ms.
const ROUNDS: Duration = Duration::from_secs(10);
const NETWORK: [&str; 4] = ["--mode", "network", "--vnet", "test"];
const PROVIDES: [&str; 4] = ["--service", "AddOneAgent", "--entry-vnet", "test"];

/// A Rust hub of the network, which is its machine's hub too.
async fn hub(folder: &Folder) -> (Router, Endpoint) {
    let (builder, _) = folder.hub(Router::network().vnet("test").listen("tcp://127.0.0.1:0"));
    let router = builder.start().await.unwrap();
    let tcp = router.net_addr(0).net.unwrap();
    (router, tcp)
}

#[actix::test]
async fn rust_finds_a_python_agent_that_joined_a_rust_tcp_hub() {
    let folder = Folder::new();
    let (router, tcp) = hub(&folder).await;
    let conn = router.connect();
    for listen in [Some(free_tcp()), None] {
        let listens: Vec<&str> = listen.iter().flat_map(|at| ["--net-listen", at]).collect();
        let agent = Peer::agent(&[&NETWORK[..], &PROVIDES, &["--net-hub", tcp.as_str()], &listens].concat()).await;

        let found = conn.find("AddOneAgent").first_within(ROUNDS).await.unwrap();

        assert_eq!(found.addr.machine, agent.addr.machine);
        assert!(listen.is_none() || found.addr.net == listen.map(Endpoint::from));
        add_one_twenty_times(&conn, &found.addr).await;
        agent.end().await;
        until("the entry is gone", async || conn.find("AddOneAgent").all().is_empty()).await;
    }
    router.shutdown().await;
}

#[actix::test]
async fn what_joined_a_rust_tcp_hub_is_found_by_the_rest_of_the_network() {
    let folder = Folder::new();
    let (router, tcp) = hub(&folder).await;
    let join = ["--net-hub", tcp.as_str()];
    let listening = free_tcp();
    let agent = Peer::agent(&[&NETWORK[..], &PROVIDES, &join, &["--net-listen", &listening]].concat()).await;
    let elsewhere = Folder::new();
    let network = elsewhere.router(Router::network()).vnet("test").join(tcp.clone()).start().await.unwrap();
    let machine = folder.hub(Router::machine()).0.start().await.unwrap();

    for rust in [&router, &network, &machine] {
        let conn = rust.connect();
        let found = conn.find("AddOneAgent").first_within(ROUNDS).await.unwrap();
        assert_eq!(found.addr, over_tcp(&agent.addr, &Endpoint::from(listening.as_str())));
        add_one_twenty_times(&conn, &found.addr).await;
    }
    let mut python = Peer::client(&[&NETWORK[..], &join].concat()).await;
    let found = python.find("AddOneAgent").await;
    python_adds_one_twenty_times(&mut python, &found).await;

    python.end().await;
    agent.end().await;
    for rust in [machine, network, router] {
        rust.shutdown().await;
    }
}

#[actix::test]
async fn what_only_dials_is_found_where_it_can_be_answered() {
    let folder = Folder::new();
    let (router, tcp) = hub(&folder).await;
    let agent = Peer::agent(&[&NETWORK[..], &PROVIDES, &["--net-hub", tcp.as_str()]].concat()).await;
    router.connect().find("AddOneAgent").first_within(ROUNDS).await.unwrap();
    let machine = folder.hub(Router::machine()).0.start().await.unwrap();
    let elsewhere = Folder::new();
    let network = elsewhere.router(Router::network()).vnet("test").join(tcp.clone()).start().await.unwrap();

    // Through the hub, at which it has its pipe.
    let conn = machine.connect();
    let found = conn.find("AddOneAgent").first_within(ROUNDS).await.unwrap();
    add_one_twenty_times(&conn, &found.addr).await;
    network.joined(ROUNDS).await.unwrap();
    assert_eq!(network.connect().find("AddOneAgent").all(), []);

    for rust in [network, machine, router] {
        rust.shutdown().await;
    }
    agent.end().await;
}

#[actix::test]
async fn an_entry_in_no_vnet_of_the_hub_stays_where_it_is() {
    let folder = Folder::new();
    let (router, tcp) = hub(&folder).await;
    let private = ["--service", "Private", "--entry-vnet", "another", "--net-hub", tcp.as_str()];
    let agent = Peer::agent(&[&NETWORK[..], &private].concat()).await;
    let other = Peer::agent(&[&NETWORK[..], &PROVIDES, &["--net-hub", tcp.as_str()]].concat()).await;

    // Asked a second later than the first.
    router.connect().find("AddOneAgent").first_within(ROUNDS).await.unwrap();

    assert_eq!(router.connect().find("Private").all(), []);
    router.shutdown().await;
    other.end().await;
    agent.end().await;
}

#[actix::test]
async fn a_python_router_that_listens_at_all_addresses_is_answered_and_asked() {
    let folder = Folder::new();
    let (router, tcp) = hub(&folder).await;
    let agent = over_tcp(&router.spawn(AddOne::default()).addr(), &tcp);
    let (_, port) = free_tcp().rsplit_once(':').map(|(host, port)| (host.to_string(), port.to_string())).unwrap();
    let everywhere = format!("tcp://0.0.0.0:{port}");
    let mut python = Peer::client(&[&NETWORK[..], &["--net-listen", &everywhere]].concat()).await;

    python_adds_one_twenty_times(&mut python, &agent).await;
    let at: Endpoint = format!("tcp://127.0.0.1:{port}").into();
    add_one_twenty_times(&router.connect(), &over_tcp(&python.addr, &at)).await;

    router.shutdown().await;
    python.end().await;
}

#[actix::test]
async fn a_rust_router_joins_a_python_hub_that_listens_at_all_addresses() {
    let folder = Folder::new();
    let (_, port) = free_tcp().rsplit_once(':').map(|(host, port)| (host.to_string(), port.to_string())).unwrap();
    let everywhere = format!("tcp://0.0.0.0:{port}");
    let agent = Peer::agent(&[&NETWORK[..], &PROVIDES, &["--net-listen", &everywhere]].concat()).await;
    let hub: Endpoint = format!("tcp://127.0.0.1:{port}").into();
    let router = folder.router(Router::network()).vnet("test").join(hub.clone()).start().await.unwrap();
    let conn = router.connect();

    let found = conn.find("AddOneAgent").first_within(ROUNDS).await.unwrap();

    assert_eq!(found.addr, over_tcp(&agent.addr, &hub));
    add_one_twenty_times(&conn, &found.addr).await;
    router.shutdown().await;
    agent.end().await;
}

#[actix::test]
async fn a_message_for_a_python_router_two_hops_away_is_not_passed_on() {
    let folder = Folder::new();
    let (router, tcp) = hub(&folder).await;
    let python = Peer::agent(&[]).await;
    let elsewhere = Folder::new();
    let asker = elsewhere.router(Router::network()).start().await.unwrap();
    // The hub knows it.
    router.connect().request(&python.addr, "PING", (), LIMIT).await.unwrap();
    let two_hops = Addr { net: Some(tcp), ..python.addr.clone() };

    let refused = asker.connect().request(&two_hops, "ADD_ONE", 41, LIMIT).await;

    assert!(format!("{refused:?}").contains("NoRoute"), "{refused:?}");
    add_one_twenty_times(&router.connect(), &python.addr).await;
    asker.shutdown().await;
    router.shutdown().await;
    python.end().await;
}

#[actix::test]
async fn a_client_without_entries_is_known_and_what_it_provides_later_is_found() {
    let folder = Folder::new();
    let (router, tcp) = hub(&folder).await;
    let mut python = Peer::client(&[&NETWORK[..], &["--net-hub", tcp.as_str()]].concat()).await;
    let conn = router.connect();
    let agent = router.spawn(AddOne::default());
    let _entry = agent.register("Here").await.unwrap();
    // It has joined by then, and says nothing more of itself.
    python.find("Here").await;
    python.tell(json!({"do": "register", "service": "Late", "vnets": ["test"]})).await;

    let found = conn.find("Late").first_within(ROUNDS).await.unwrap();
    add_one_twenty_times(&conn, &found.addr).await;
    python.tell(json!({"do": "unregister", "service": "Late", "vnets": ["test"]})).await;
    until("the entry is gone", async || conn.find("Late").all().is_empty()).await;

    router.shutdown().await;
    python.end().await;
}
