//! Either side is killed without a goodbye, and is back at the same endpoint: calls reach the living one.

use std::time::Duration;

use serde_json::{Value, json};
use vlmessaging::{Addr, Endpoint, Router};

use crate::peer::{Folder, Peer, add_one_twenty_times, free_tcp, python_hub, router_number, until};

/// What Python's rounds take to bring an entry through: its pauses double from 50 ms.
const ROUNDS: Duration = Duration::from_secs(10);
/// How often a router is killed and comes back.
const LIVES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lang {
    Rust,
    Python,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Ipc,
    Tcp,
}

/// Where a router is, in each of its lives.
struct Place {
    lang: Lang,
    options: Vec<String>,
    /// Its agent.
    addr: Addr,
}

impl Place {
    fn new(lang: Lang, over: Over, folder: &Folder) -> Self {
        let tcp = free_tcp();
        let number = router_number();
        let options = match (lang, over) {
            (Lang::Python, Over::Ipc) => vec!["--number", &number],
            (Lang::Python, Over::Tcp) => vec!["--number", &number, "--mode", "network", "--net-listen", &tcp],
            (Lang::Rust, Over::Ipc) => vec!["--folder", folder.path(), "--listen"],
            (Lang::Rust, Over::Tcp) => vec!["--folder", folder.path(), "--mode", "network", "--listen", &tcp],
        };
        let mut options: Vec<String> = options.into_iter().map(String::from).collect();
        let ipc = match lang {
            Lang::Python => format!("ipc:///tmp/router_{number}"),
            Lang::Rust => format!("ipc://{}/router_{number}", folder.path()),
        };
        if (lang, over) == (Lang::Rust, Over::Ipc) {
            options.push(ipc.clone());
        }
        let at = if over == Over::Tcp { tcp } else { ipc };
        Self { lang, options, addr: Addr::at(at.into(), 3) }
    }

    async fn start(&self) -> Peer {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        match self.lang {
            Lang::Rust => Peer::rust(&options).await,
            Lang::Python => Peer::python(&options).await,
        }
    }
}

/// Has one ask the other until it answers, and then in a row: each is answered.
async fn assert_reaches(asker: &mut Peer, to: &Addr, what: &str) {
    let called = reaches(asker, to, what, 5000).await;
    assert_eq!(called["answered"], 20, "{what}: {called}");
}

/// The same where the package loses some of its own requests: over tcp each one dials anew once its listener was restarted.
async fn assert_reaches_at_times(asker: &mut Peer, to: &Addr, what: &str) {
    let called = reaches(asker, to, what, 300).await;
    println!("{what}: {called}");
    assert!(called["answered"].as_u64() >= Some(1), "{what}: {called}");
}

async fn reaches(asker: &mut Peer, to: &Addr, what: &str, within: u64) -> Value {
    let met = asker.tell(json!({"do": "meet", "to": to, "within": 15_000})).await;
    assert_ne!(met["tries"], 0, "{what}: nobody answers");
    let called = asker.tell(json!({"do": "call", "to": to, "times": 20, "within": within})).await;
    assert_eq!(called["wrong"], 0, "{what}: {called}");
    called
}

async fn killed_and_back(is_provider: bool) {
    for (provider, asker) in [(Lang::Rust, Lang::Python), (Lang::Python, Lang::Rust)] {
        for over in [Over::Ipc, Over::Tcp] {
            let folder = Folder::of_the_killed();
            let (provider, asker) = (Place::new(provider, over, &folder), Place::new(asker, over, &folder));
            let (mut provides, mut asks) = (provider.start().await, asker.start().await);
            for life in 1..=LIVES {
                let what = format!("{:?} asks {:?} over {over:?}, life {life}", asker.lang, provider.lang);
                if (asker.lang, over) == (Lang::Python, Over::Tcp) && is_provider && life > 1 {
                    assert_reaches_at_times(&mut asks, &provider.addr, &what).await;
                } else {
                    assert_reaches(&mut asks, &provider.addr, &what).await;
                }
                if life < LIVES {
                    let (killed, place) = if is_provider { (&mut provides, &provider) } else { (&mut asks, &asker) };
                    killed.kill();
                    killed.is_succeeded_by(place.start().await);
                }
            }
            asks.end().await;
            provides.end().await;
        }
    }
}

#[actix::test]
async fn a_provider_is_killed_and_back_and_the_other_language_reaches_it() {
    killed_and_back(true).await;
}

#[actix::test]
async fn an_asker_is_killed_and_back_and_the_other_language_answers_it() {
    killed_and_back(false).await;
}

#[actix::test]
async fn a_killed_python_directory_is_gone_from_a_rust_hub_and_back_five_times() {
    let folder = Folder::new();
    let (builder, hub) = folder.hub(Router::network().vnet("test").listen("tcp://127.0.0.1:0"));
    let router = builder.start().await.unwrap();
    let net_hub = router.net_addr(0).net.unwrap();
    let (tcp, number) = (free_tcp(), router_number());
    let on_machine = ["--number", &number, "--hub", &hub, "--entry-vnet", "local"];
    let listening = ["--mode", "network", "--net-hub", net_hub.as_str(), "--vnet", "test", "--entry-vnet", "test"];
    let dialing = [&listening[..], &["--number", &number]].concat();
    let listening = [&listening[..], &["--number", &number, "--net-listen", &tcp]].concat();
    let conn = router.connect();

    for options in [&on_machine[..], &listening, &dialing] {
        let options = [options, &["--service", "AddOneAgent"]].concat();
        for generation in 0..5 {
            let mut agent = Peer::agent(&options).await;
            let found = conn.find("AddOneAgent").first_within(ROUNDS).await;
            let found = found.unwrap_or_else(|error| panic!("generation {generation} of {options:?}: {error}"));
            assert_eq!((&found.addr.machine, found.addr.connection), (&agent.addr.machine, Some(3)));
            add_one_twenty_times(&conn, &found.addr).await;
            let count = conn.request(&found.addr, "COUNT", (), ROUNDS).await.unwrap();
            assert_eq!(count.contents::<u64>(), Ok(20), "the living one of generation {generation} has answered");
            assert_eq!(agent.tell(json!({"do": "fate"})).await["main_loop_alive"], true);
            agent.kill();
            until("the entry is gone", async || conn.find("AddOneAgent").all().is_empty()).await;
        }
    }
    router.shutdown().await;
}

#[actix::test]
async fn a_killed_rust_hub_is_back_and_knows_its_python_routers_again() {
    let folder = Folder::of_the_killed();
    let hub = format!("ipc://{}/hub_1", folder.path());
    let options =
        ["--folder", folder.path(), "--hub-listen", "hub_1", "--service", "AddOneAgent", "--entry-vnet", "local"];
    let mut rust = Peer::rust(&options).await;
    let mut python = Peer::client(&["--hub", &hub, "--service", "Plus", "--entry-vnet", "local"]).await;
    for _ in 0..LIVES {
        let found = rust.tell(json!({"do": "find", "service": "Plus", "within": 15_000})).await;
        assert_eq!(found["entries"][0][0], json!(python.addr), "{found}");
        assert_reaches(&mut rust, &python.addr, "the hub asks").await;
        python.find("AddOneAgent").await;
        assert_reaches(&mut python, &rust.addr, "the hub answers").await;
        rust.kill();
        rust.is_succeeded_by(Peer::rust(&options).await);
    }
    python.end().await;
    rust.end().await;
}

#[actix::test]
async fn a_killed_python_hub_is_joined_again_when_it_is_back() {
    let folder = Folder::new();
    let (ipc, tcp) = (python_hub(), free_tcp());
    let on_machine = ["--hub-listen", &ipc, "--entry-vnet", "local"];
    let on_network = ["--mode", "network", "--vnet", "test", "--net-listen", &tcp, "--entry-vnet", "test"];
    for (options, hub) in [(&on_machine[..], &ipc), (&on_network, &tcp)] {
        let builder = folder.router(Router::network()).vnet("test");
        let router = builder.join(Endpoint::from(hub.as_str())).start().await.unwrap();
        let conn = router.connect();
        let options = [options, &["--service", "AddOneAgent"]].concat();
        for _ in 0..LIVES {
            let mut agent = Peer::agent(&options).await;
            let found = conn.find("AddOneAgent").first_within(ROUNDS).await.unwrap();
            assert_eq!(found.addr, agent.addr);
            add_one_twenty_times(&conn, &found.addr).await;
            assert_eq!(agent.tell(json!({"do": "fate"})).await["main_loop_alive"], true);
            agent.kill();
            until("the entry is gone", async || conn.find("AddOneAgent").all().is_empty()).await;
        }
        router.shutdown().await;
    }
}
