//! Routers of both kinds of sockets and of Python in one network.

use std::time::Duration;

use vlmessaging::{Router, Sockets};

use crate::peer::{AddOne, Folder, Peer, add_one_twenty_times, free_tcp, over_tcp, python_adds_one_twenty_times};

/// What Python's rounds take to bring an entry through: its pauses double from 50 ms.
const ROUNDS: Duration = Duration::from_secs(10);

/// The hub, and who joins it.
fn each_pair_of_kinds() -> impl Iterator<Item = [Sockets; 2]> {
    Sockets::ALL.iter().flat_map(|hub| Sockets::ALL.iter().map(|other| [*hub, *other]))
}

#[actix::test]
async fn on_one_machine_all_find_and_ask_each_other() {
    for [hub_kind, other_kind] in each_pair_of_kinds() {
        println!("{hub_kind} hub, {other_kind}, Python");
        let folder = Folder::new();
        let (builder, at) = folder.hub(Router::machine());
        let hub = builder.sockets(hub_kind).start().await.unwrap();
        let other = folder.hub(Router::machine()).0.sockets(other_kind).start().await.unwrap();
        let (at_hub, at_other) = (hub.spawn(AddOne::default()), other.spawn(AddOne::default()));
        let _entries = (at_hub.register("AtHub").await.unwrap(), at_other.register("AtOther").await.unwrap());
        let mut python = Peer::agent(&["--hub", &at, "--service", "InPython", "--entry-vnet", "local"]).await;

        for rust in [&hub, &other] {
            let conn = rust.connect();
            for service in ["InPython", "AtHub", "AtOther"] {
                let found = conn.find(service).first_within(ROUNDS).await.unwrap();
                add_one_twenty_times(&conn, &found.addr).await;
            }
        }
        for service in ["AtHub", "AtOther"] {
            let found = python.find(service).await;
            python_adds_one_twenty_times(&mut python, &found).await;
        }

        python.end().await;
        other.shutdown().await;
        hub.shutdown().await;
    }
}

#[actix::test]
async fn over_tcp_all_ask_each_other() {
    for [hub_kind, other_kind] in each_pair_of_kinds() {
        println!("{hub_kind} hub, {other_kind}, Python");
        let (folder, elsewhere) = (Folder::new(), Folder::new());
        let network = || Router::network().vnet("test").listen("tcp://127.0.0.1:0");
        let hub = folder.router(network()).sockets(hub_kind).start().await.unwrap();
        let at = hub.net_addr(0).net.unwrap();
        let other = elsewhere.router(network()).sockets(other_kind).join(at.clone()).start().await.unwrap();
        let own = free_tcp();
        let options = ["--mode", "network", "--vnet", "test", "--net-hub", at.as_str(), "--net-listen", &own];
        let mut python =
            Peer::agent(&[&options[..], &["--service", "InPython", "--entry-vnet", "test"]].concat()).await;

        for (rust, another) in [(&hub, &other), (&other, &hub)] {
            let agent = rust.spawn(AddOne::default()).addr();
            let tcp = rust.net_addr(0).net.unwrap();
            let conn = rust.connect();
            let found = conn.find("InPython").first_within(ROUNDS).await.unwrap();
            add_one_twenty_times(&conn, &found.addr).await;
            add_one_twenty_times(&another.connect(), &over_tcp(&agent, &tcp)).await;
            python_adds_one_twenty_times(&mut python, &over_tcp(&agent, &tcp)).await;
        }

        python.end().await;
        other.shutdown().await;
        hub.shutdown().await;
    }
}
