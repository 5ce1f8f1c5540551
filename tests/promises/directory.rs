//! The directory: who provides what, the same everywhere, from when it is registered until it is not.

use std::time::Duration;

use vlmessaging::{Change, Connection, FindError, Pick, Reason, RegisterError, Router, Value};

use crate::common::agents::{Holds, adder, fragile, hold};
use crate::common::program::Program;
use crate::common::{LONG, Scene, assert_serves, failure, net, number, scene, soon, until, with_router};

/// Short, for what shall not be found.
const SHORT: Duration = Duration::from_millis(20);

async fn find(conn: &Connection, service: &str) -> std::sync::Arc<vlmessaging::Entry> {
    conn.find(service).first_within(LONG).await.unwrap()
}

async fn gone(conn: &Connection, service: &str) {
    until("the entry is gone", || conn.find(service).all().is_empty()).await;
}

/// A hub and a router that joins it.
async fn hub_and_spoke(scene: &Scene) -> (Router, Router) {
    let hub = scene.start(Router::machine()).await;
    until("it is the hub", || hub.endpoints().len() == 2).await;
    (hub, scene.start(Router::machine()).await)
}

#[test]
fn an_entry_is_found_in_its_router_at_once() {
    with_router(async |router| {
        let adder = router.spawn(adder());
        let _entry = adder.register("AddOne").await.unwrap();
        let entries = router.connect().find("AddOne").all();
        assert_eq!(entries.len(), 1);
        assert_eq!((&entries[0].addr, entries[0].service.as_str()), (&adder.addr(), "AddOne"));
        assert_serves(&router.connect(), &entries[0]).await;
    });
}

#[test]
fn an_entry_of_the_hub_is_found_at_a_spoke_whoever_starts_first() {
    scene(async |scene| {
        let (hub, early) = hub_and_spoke(scene).await;
        let adder = hub.spawn(adder());
        let _entry = adder.register("AddOne").await.unwrap();
        let late = scene.start(Router::machine()).await;
        for spoke in [early, late] {
            let conn = spoke.connect();
            assert_serves(&conn, find(&conn, "AddOne").await).await;
        }
    });
}

#[test]
fn a_hub_whose_socket_file_somebody_removed_is_found_again() {
    scene(async |scene| {
        let (hub, early) = hub_and_spoke(scene).await;
        let adder = early.spawn(adder());
        let _entry = adder.register("AddOne").await.unwrap();
        find(&hub.connect(), "AddOne").await;
        for endpoint in hub.endpoints() {
            std::fs::remove_file(endpoint.rest()).unwrap();
        }
        let late = scene.start(Router::machine()).await;
        let conn = late.connect();
        assert_serves(&conn, find(&conn, "AddOne").await).await;
        assert_eq!(early.stats().untold, 0);
    });
}

#[test]
fn what_is_for_a_hub_that_has_ended_does_not_go_to_the_next() {
    scene(async |scene| {
        let (hub, spoke) = hub_and_spoke(scene).await;
        let other = scene.start(Router::machine()).await;
        let adder = hub.spawn(adder());
        let _entry = adder.register("AddOne").await.unwrap();
        let spokes = [&spoke, &other];
        for router in spokes {
            let conn = router.connect();
            assert_serves(&conn, find(&conn, "AddOne").await).await;
        }
        hub.shutdown().await;
        until("one of them is the hub", || spokes.iter().any(|router| router.endpoints().len() == 2)).await;
        until("they have met", || spokes.iter().all(|router| router.known().len() == 2)).await;
        for router in spokes {
            let failure = failure(router.connect().request(adder.addr(), "ADD_ONE", 1, LONG).await);
            assert!(matches!(failure.reason, Reason::DialFailed(_) | Reason::PeerLost), "{failure}");
        }
    });
}

#[test]
fn an_entry_of_a_spoke_is_found_at_the_hub_and_at_other_spokes() {
    scene(async |scene| {
        let (hub, spoke) = hub_and_spoke(scene).await;
        let adder = spoke.spawn(adder());
        let _entry = adder.register("AddOne").await.unwrap();
        let other = scene.start(Router::machine()).await;
        for router in [hub, other] {
            let conn = router.connect();
            let entry = find(&conn, "AddOne").await;
            assert_eq!(entry.addr, adder.addr());
            assert_serves(&conn, entry).await;
        }
    });
}

#[test]
fn an_entry_is_withdrawn_everywhere_when_its_registration_is_dropped() {
    scene(async |scene| {
        let (hub, spoke) = hub_and_spoke(scene).await;
        let adder = spoke.spawn(adder());
        let entry = adder.register("AddOne").await.unwrap();
        let _other = adder.register("Other").await.unwrap();
        let conn = hub.connect();
        find(&conn, "AddOne").await;
        drop(entry);
        gone(&spoke.connect(), "AddOne").await;
        gone(&conn, "AddOne").await;
        assert_eq!(conn.find("Other").all().len(), 1);
    });
}

#[test]
fn an_entry_is_gone_everywhere_when_its_agent_stops_or_panics() {
    scene(async |scene| {
        let (hub, spoke) = hub_and_spoke(scene).await;
        let conn = hub.connect();
        for subject in ["STOP", "PANIC"] {
            let agent = spoke.spawn(fragile());
            let entry = agent.register("AddOne").await.unwrap();
            find(&conn, "AddOne").await;
            match subject {
                "STOP" => agent.stop(),
                _ => drop(spoke.connect().send(&agent, "PANIC", ()).await.unwrap()),
            }
            gone(&conn, "AddOne").await;
            drop(entry);
        }
    });
}

#[test]
fn an_entry_is_gone_when_its_connection_or_router_is() {
    scene(async |scene| {
        let (hub, spoke) = hub_and_spoke(scene).await;
        let conn = hub.connect();
        let provider = spoke.connect();
        let _entry = provider.register("Listener").await.unwrap();
        find(&conn, "Listener").await;
        drop(provider);
        gone(&conn, "Listener").await;
        let agent = spoke.spawn(adder());
        let _entry = agent.register("AddOne").await.unwrap();
        find(&conn, "AddOne").await;
        spoke.shutdown().await;
        gone(&conn, "AddOne").await;
    });
}

#[test]
fn a_supervised_agents_entry_outlives_its_restart() {
    with_router(async |router| {
        let agent = router.spawn_supervised(fragile);
        let _entry = agent.register("AddOne").await.unwrap();
        let conn = router.connect();
        let _panicked = conn.request(&agent, "PANIC", (), LONG).await;
        until("it lives again", || conn.try_send(&agent, "PING", ()).is_ok()).await;
        assert_serves(&conn, find(&conn, "AddOne").await).await;
    });
}

#[test]
fn entries_are_chosen_by_their_params() {
    scene(async |scene| {
        let (hub, spoke) = hub_and_spoke(scene).await;
        let (usd, eur) = (spoke.spawn(adder()), spoke.spawn(adder()));
        let _usd = usd.register("Price").params(Value::from([("ccy", "USD"), ("class", "equity")])).await.unwrap();
        let _eur = eur.register("Price").params(Value::from([("ccy", "EUR")])).await.unwrap();
        let conn = hub.connect();
        let in_usd = conn.find("Price").params([("ccy", "USD")]).first_within(LONG).await.unwrap();
        assert_eq!(in_usd.addr, usd.addr());
        assert_eq!(in_usd.params.get("class"), Some(&Value::Text("equity".into())));
        until("both are there", || conn.find("Price").all().len() == 2).await;
        assert_eq!(conn.find("Price").params([("ccy", "JPY")]).all(), vec![]);
        assert_eq!(conn.find("Price").params([("ccy", "EUR"), ("class", "equity")]).all(), vec![]);
    });
}

#[test]
fn an_entry_without_vnets_stays_in_its_router() {
    scene(async |scene| {
        let (hub, spoke) = hub_and_spoke(scene).await;
        let agent = spoke.spawn(adder());
        let _secret = agent.register("Secret").vnets(Vec::<String>::new()).await.unwrap();
        let _public = agent.register("Public").await.unwrap();
        find(&hub.connect(), "Public").await;
        assert_eq!(hub.connect().find("Secret").all(), vec![]);
        assert_eq!(spoke.connect().find("Secret").all().len(), 1);
    });
}

#[test]
fn an_entry_is_seen_over_the_network_by_those_of_its_vnets_alone() {
    scene(async |scene| {
        let hub = Router::network().without_hub().listen("tcp://127.0.0.1:0").vnet("desk");
        let hub = scene.start(hub).await;
        let join = |vnet: &str| Router::network().without_hub().join(net(&hub)).vnet(vnet);
        let spoke = scene.start(join("desk")).await;
        let agent = hub.spawn(adder());
        let _local = agent.register("OnlyHere").vnets(["local"]).await.unwrap();
        let _other = agent.register("OtherDesk").vnets(["other"]).await.unwrap();
        let _desk = agent.register("AddOne").vnets(["desk"]).await.unwrap();
        let conn = spoke.connect();
        assert_serves(&conn, find(&conn, "AddOne").await).await;
        assert_eq!(conn.find("OnlyHere").all(), vec![]);
        assert_eq!(conn.find("OtherDesk").all(), vec![]);
        assert_eq!(conn.find("AddOne").vnet("desk").all().len(), 1);
        assert_eq!(conn.find("AddOne").vnet("local").all(), vec![]);
    });
}

#[test]
fn a_network_hub_and_its_joiner_find_and_call_each_others_agents() {
    scene(async |scene| {
        let hub = scene.start(Router::network().without_hub().listen("tcp://127.0.0.1:0").vnet("desk")).await;
        let joiner = || Router::network().without_hub().join(net(&hub)).vnet("desk");
        for joiner in [joiner(), joiner().listen("tcp://127.0.0.1:0")] {
            let joiner = scene.start(joiner).await;
            let (here, there) = (hub.spawn(adder()), joiner.spawn(adder()));
            let _here = here.register("AtHub").await.unwrap();
            let there = there.register("AtJoiner").await.unwrap();
            let (conn, other) = (joiner.connect(), hub.connect());
            assert_serves(&conn, find(&conn, "AtHub").await).await;
            assert_serves(&other, find(&other, "AtJoiner").await).await;
            drop(there);
            gone(&other, "AtJoiner").await;
        }
    });
}

#[test]
fn two_joiners_of_a_network_hub_find_and_call_each_other() {
    scene(async |scene| {
        let hub = scene.start(Router::network().without_hub().listen("tcp://127.0.0.1:0").vnet("desk")).await;
        let joiner = || Router::network().without_hub().join(net(&hub)).vnet("desk").listen("tcp://127.0.0.1:0");
        let (one, two) = (scene.start(joiner()).await, scene.start(joiner()).await);
        let agent = one.spawn(adder());
        let _entry = agent.register("AddOne").await.unwrap();
        let conn = two.connect();
        let entry = find(&conn, "AddOne").await;
        assert_eq!(entry.addr, one.net_addr(number(&agent)));
        assert_serves(&conn, entry).await;
    });
}

#[test]
fn a_hub_may_be_joined_before_it_is_there() {
    scene(async |scene| {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let at = format!("tcp://{port}");
        let joiner = scene.start(Router::network().without_hub().join(at.as_str()).vnet("desk")).await;
        let agent = joiner.spawn(adder());
        let _entry = agent.register("AddOne").await.unwrap();
        let hub = scene.start(Router::network().without_hub().listen(at.as_str()).vnet("desk")).await;
        let conn = hub.connect();
        assert_serves(&conn, find(&conn, "AddOne").await).await;
    });
}

#[test]
fn who_finds_nobody_is_told_what_is_provided() {
    with_router(async |router| {
        let conn = router.connect();
        let error = conn.find("AddTwo").first_within(SHORT).await.unwrap_err();
        assert_eq!(error.to_string(), "nobody provides \"AddTwo\" within 20ms; provided are: none");
        let agent = router.spawn(adder());
        let _entries = (agent.register("Multiply").await.unwrap(), agent.register("AddOne").await.unwrap());
        let FindError::Nobody { service, within, provided } =
            conn.find("AddTwo").first_within(SHORT).await.unwrap_err()
        else {
            panic!("another error")
        };
        assert_eq!((service.as_str(), within), ("AddTwo", SHORT));
        assert_eq!(provided, ["AddOne", "Multiply"]);
    });
}

#[test]
fn a_waiting_search_ends_when_the_provider_comes() {
    scene(async |scene| {
        let (hub, spoke) = hub_and_spoke(scene).await;
        let conn = hub.connect();
        let found = actix::spawn(async move { conn.find("AddOne").first_within(LONG).await });
        tokio::task::yield_now().await;
        let agent = spoke.spawn(adder());
        let _entry = agent.register("AddOne").await.unwrap();
        assert_eq!(found.await.unwrap().unwrap().addr, agent.addr());
    });
}

#[test]
fn the_nearest_provider_is_found_first() {
    scene(async |scene| {
        let (hub, spoke) = hub_and_spoke(scene).await;
        let (far, near) = (hub.spawn(adder()), spoke.spawn(adder()));
        let _far = far.register("AddOne").await.unwrap();
        let conn = spoke.connect();
        find(&conn, "AddOne").await;
        let _near = near.register("AddOne").await.unwrap();
        let addrs: Vec<_> = conn.find("AddOne").all().into_iter().map(vlmessaging::Addr::from).collect();
        assert_eq!(addrs, [near.addr(), far.addr()]);
    });
}

#[test]
fn a_stopped_agent_and_a_stopped_router_register_nothing() {
    scene(async |scene| {
        let router = scene.machine().await;
        let (agent, _held): (vlmessaging::Spawned<Holds>, _) = hold(&router);
        let (addr, living) = (agent.addr(), router.spawn(adder()));
        agent.stop();
        until("it has stopped", || !agent.actor().connected()).await;
        assert_eq!(agent.register("AddOne").await.err(), Some(RegisterError::Closed { addr }));
        router.shutdown().await;
        assert!(matches!(living.register("AddOne").await, Err(RegisterError::Closed { .. })));
    });
}

#[test]
fn params_that_cannot_be_encoded_are_refused() {
    with_router(async |router| {
        let nested = (0..300).fold(Value::Null, |inner, _| Value::List(vec![inner]));
        let ended = router.spawn(adder()).register("AddOne").params(vec![nested]).await;
        assert!(matches!(ended, Err(RegisterError::Params(_))), "{:?}", ended.err());
    });
}

#[test]
fn another_router_takes_over_when_the_hub_is_killed() {
    scene(async |scene| {
        let mut hub = Program::start(scene.folder(), "hub", "");
        let (one, two) = (scene.start(Router::machine()).await, scene.start(Router::machine()).await);
        let (left, right) = (one.connect(), two.connect());
        let agent = one.spawn(adder());
        let early = agent.register("Early").await.unwrap();
        find(&right, "Early").await;
        assert_serves(&left, find(&left, "AddOne").await).await;
        hub.kill();
        gone(&left, "AddOne").await;
        gone(&right, "AddOne").await;
        until("one of them is the hub", || one.endpoints().len() + two.endpoints().len() == 3).await;
        let _late = agent.register("Late").await.unwrap();
        assert_serves(&right, find(&right, "Late").await).await;
        assert_serves(&right, find(&right, "Early").await).await;
        let newcomer = scene.start(Router::machine()).await;
        find(&newcomer.connect(), "Early").await;
        drop(early);
        gone(&right, "Early").await;
        let own = hub.agent.machine.as_ref().unwrap().rest();
        std::fs::remove_file(own).unwrap();
        std::fs::remove_file(format!("{own}.lock")).unwrap();
    });
}

#[test]
fn another_router_takes_over_when_the_hub_is_shut_down() {
    scene(async |scene| {
        let (hub, one) = hub_and_spoke(scene).await;
        let two = scene.start(Router::machine()).await;
        let agent = one.spawn(adder());
        let _entry = agent.register("AddOne").await.unwrap();
        let conn = two.connect();
        find(&conn, "AddOne").await;
        hub.shutdown().await;
        until("one of them is the hub", || one.endpoints().len() + two.endpoints().len() == 3).await;
        let _late = agent.register("Late").await.unwrap();
        assert_serves(&conn, find(&conn, "Late").await).await;
        assert_serves(&conn, find(&conn, "AddOne").await).await;
    });
}

#[test]
fn a_watch_tells_what_is_there_and_then_what_comes_changes_and_goes() {
    scene(async |scene| {
        let (hub, spoke) = hub_and_spoke(scene).await;
        let (early, late) = (spoke.spawn(adder()), spoke.spawn(adder()));
        let price = |ccy: &'static str| Value::from([("ccy", ccy)]);
        let first = early.register("Price").params(price("USD")).await.unwrap();
        let conn = hub.connect();
        find(&conn, "Price").await;
        let mut watch = conn.find("Price").watch();
        let Change::Appeared(entry) = soon(watch.next()).await else { panic!("it was there") };
        assert_eq!(entry.addr, early.addr());
        let _late = late.register("Price").await.unwrap();
        let Change::Appeared(entry) = soon(watch.next()).await else { panic!("another has come") };
        assert_eq!(entry.addr, late.addr());
        let again = early.register("Price").params(price("EUR")).await.unwrap();
        drop(first);
        let mut last = soon(watch.next()).await;
        while !matches!(last, Change::Gone(_) | Change::Changed(_)) {
            last = soon(watch.next()).await;
        }
        assert_eq!(conn.find("Price").params([("ccy", "EUR")]).all().len(), 1);
        drop(again);
        let mut last = soon(watch.next()).await;
        while !matches!(&last, Change::Gone(entry) if entry.params == price("EUR")) {
            last = soon(watch.next()).await;
        }
        spoke.shutdown().await;
        let Change::Gone(entry) = soon(watch.next()).await else { panic!("its router has ended") };
        assert_eq!(entry.addr, late.addr());
    });
}

#[test]
fn several_providers_are_asked_as_one_picks() {
    scene(async |scene| {
        let (hub, spoke) = hub_and_spoke(scene).await;
        let agents = [spoke.spawn(adder()), spoke.spawn(adder()), hub.spawn(adder())];
        let mut entries = Vec::new();
        for agent in &agents {
            entries.push(agent.register("AddOne").await.unwrap());
        }
        let conn = hub.connect();
        until("all are known", || conn.find("AddOne").all().len() == 3).await;
        let picked = |pick| conn.find("AddOne").pick(pick).picked().remove(0).addr.clone();
        assert_eq!(picked(Pick::Nearest), agents[2].addr());
        let turns: std::collections::BTreeSet<_> = (0..3).map(|_| picked(Pick::RoundRobin)).collect();
        assert_eq!(turns.len(), 3);
        let there = spoke.connect();
        until("it is known there", || there.find("AddOne").all().len() == 3).await;
        assert_eq!(picked(Pick::First), there.find("AddOne").pick(Pick::First).picked().remove(0).addr);
        let any: std::collections::BTreeSet<_> = (0..200).map(|_| picked(Pick::Random)).collect();
        assert_eq!(any.len(), 3);
    });
}

#[test]
fn the_next_provider_is_asked_when_one_is_told_dead_and_a_lost_request_only_if_it_may_be_repeated() {
    scene(async |scene| {
        let mut doomed = Program::start(scene.folder(), "hub", "");
        let router = scene.start(Router::machine()).await;
        let conn = router.connect();
        find(&conn, "AddOne").await;
        let held = conn.find("AddOne").ask(&conn, "HOLD", || 1, LONG);
        let killed = async {
            tokio::time::sleep(SHORT).await;
            doomed.kill();
        };
        let (lost, ()) = futures::join!(held, killed);
        assert!(matches!(lost, Err(vlmessaging::AskError::Request(_))), "{lost:?}");
        let asked = conn.find("AddOne").repeatable().ask(&conn, "ADD_ONE", || 41, LONG);
        let started = async {
            tokio::time::sleep(SHORT).await;
            let agent = router.spawn(adder());
            (agent.register("AddOne").await.unwrap(), agent)
        };
        let (answer, _other) = futures::join!(asked, started);
        assert_eq!(answer.unwrap().contents::<i64>(), Ok(42));
        until("it is the hub", || router.endpoints().len() == 2).await;
        let own = doomed.agent.machine.as_ref().unwrap().rest();
        std::fs::remove_file(own).unwrap();
        std::fs::remove_file(format!("{own}.lock")).unwrap();
    });
}
