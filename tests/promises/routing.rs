//! Routing: by every name of a router, over gateways, and to peers that are dead, die, or come back.

use std::time::{Duration, Instant};

use vlmessaging::wire::{self, Envelope};
use vlmessaging::{Addr, Connection, Endpoint, Reason, RequestError, Router, Value};

use crate::common::agents::{adder, hold};
use crate::common::program::{Program, play_part};
use crate::common::sp::{self, Sp};
use crate::common::{
    AT_ONCE, LONG, Way, assert_serves, each_way, fails_at_once, failure, net, number, over, reason, scene, soon, until,
    with_router, with_two_routers,
};

/// A killed process is felt when its sockets close.
const KILLED: Duration = Duration::from_millis(100);

#[test]
fn a_router_is_reached_by_each_of_its_names() {
    scene(async |scene| {
        let b = Router::network().hub("hub_b").listen("tcp://127.0.0.1:0").listen(scene.ipc("shop"));
        let (a, b) = (scene.network().await, scene.start(b).await);
        until("it is the hub", || b.endpoints().len() == 4).await;
        let adder = number(&b.spawn(adder()));
        let own = b.connect();
        for at in b.endpoints() {
            assert_serves(&a.connect(), Addr::at(at.clone(), adder)).await;
            assert_serves(&own, Addr::at(at, adder)).await;
        }
        assert_serves(&own, Addr::local(adder)).await;
        assert_serves(&a.connect(), b.net_addr(adder)).await;
    });
}

#[test]
fn a_receiver_can_write_to_the_address_that_a_message_came_from() {
    each_way(async |pair| {
        let (asker, mut answers) = hold(&pair.asker);
        let (agent, mut held) = hold(&pair.provider);
        asker.connection().send(pair.reach(&agent), "HELLO", 1).await.unwrap();
        let msg = held.next().await;
        agent.connection().send(msg.from(), "AND_TO_YOU", 2).await.unwrap();
        let answer = answers.next().await;
        assert_eq!((answer.subject(), answer.reply_to(), answer.contents::<i64>()), ("AND_TO_YOU", None, Ok(2)));
        assert_eq!(number(answer.from().clone()), number(&agent));
    });
}

#[test]
fn routers_that_ask_each_other_at_the_same_time_are_both_answered() {
    for way in [Way::Ipc, Way::Tcp] {
        over(way, async |pair| {
            let (one, other) = (pair.asker.spawn(adder()), pair.provider.spawn(adder()));
            let (to_one, to_other) = (pair.asker.net_addr(number(&one)), pair.reach(&other));
            let (left, right) = (pair.asker.connect(), pair.provider.connect());
            futures::future::join(assert_serves(&left, to_other), assert_serves(&right, to_one)).await;
        });
    }
}

#[test]
fn a_gateway_passes_requests_on_and_answers_back() {
    scene(async |scene| {
        let (far, gateway, near) = (scene.network().await, scene.network().await, scene.machine().await);
        let adder = near.spawn(adder());
        let to = Addr { net: Some(net(&gateway)), ..adder.addr() };
        assert_serves(&far.connect(), &to).await;
        let ended = far.connect().request(&to, "ADD_TWO", 40, LONG).await;
        assert!(matches!(ended, Err(RequestError::NotUnderstood { .. })), "{ended:?}");
    });
}

#[test]
fn a_gateway_passes_requests_on_from_a_router_that_nobody_can_dial() {
    scene(async |scene| {
        let far = scene.start(Router::network().without_hub()).await;
        let (gateway, near) = (scene.network().await, scene.machine().await);
        let adder = near.spawn(adder());
        assert_serves(&far.connect(), Addr { net: Some(net(&gateway)), ..adder.addr() }).await;
    });
}

#[test]
fn what_a_gateway_cannot_deliver_is_told_to_the_first_sender() {
    scene(async |scene| {
        let (far, gateway, near) = (scene.network().await, scene.network().await, scene.machine().await);
        let conn = far.connect();
        let to = |machine: Endpoint| Addr { net: Some(net(&gateway)), machine: Some(machine), connection: Some(99) };
        let nobody = fails_at_once(&conn, to(near.endpoints()[0].clone())).await;
        assert_eq!((nobody.reason, nobody.place.as_str()), (Reason::NoSuchConnection, near.endpoints()[0].short()));
        let nowhere = fails_at_once(&conn, to(scene.ipc("nowhere"))).await;
        assert!(matches!(nowhere.reason, Reason::DialFailed(_)), "{nowhere}");
    });
}

#[test]
fn a_request_over_a_gateway_fails_when_the_gateway_goes() {
    scene(async |scene| {
        let (far, gateway, near) = (scene.network().await, scene.network().await, scene.machine().await);
        let (holder, mut held) = hold(&near);
        let conn = far.connect();
        let to = Addr { net: Some(net(&gateway)), ..holder.addr() };
        let asked = actix::spawn(async move { conn.request(to, "BUY", 1, LONG).await });
        let request = held.next().await;
        gateway.shutdown().await;
        let failure = failure(soon(asked).await.unwrap());
        assert!(matches!(failure.reason, Reason::PeerLost | Reason::DialFailed(_)), "{failure}");
        let _handled = request.handled();
    });
}

#[test]
fn a_machine_routers_request_to_the_network_fails_when_its_gateway_goes() {
    scene(async |scene| {
        let (far, gateway, near) = (scene.network().await, scene.network().await, scene.machine().await);
        let (holder, mut held) = hold(&far);
        // The near router hears of the far one by a message that came over the gateway.
        let (near_agent, mut heard) = hold(&near);
        let to = Addr { net: Some(net(&gateway)), ..near_agent.addr() };
        holder.connection().send(to, "HELLO", 1).await.unwrap();
        let hello = heard.next().await;
        let (conn, back) = (near.connect(), hello.from().clone());
        let asked = actix::spawn(async move { conn.request(back, "BUY", 1, LONG).await });
        let request = held.next().await;
        gateway.shutdown().await;
        let failure = failure(soon(asked).await.unwrap());
        assert!(matches!(failure.reason, Reason::PeerLost | Reason::DialFailed(_)), "{failure}");
        drop((request, hello));
    });
}

#[test]
fn a_lost_router_of_this_machine_does_not_fail_requests_to_its_namesake_elsewhere() {
    scene(async |scene| {
        let router = scene.start(Router::network().without_hub()).await;
        let shop = scene.start(Router::machine().without_hub().listen(scene.ipc("shop"))).await;
        let conn = router.connect();
        assert_serves(&conn, Addr::at(scene.ipc("shop"), number(&shop.spawn(adder())))).await;
        // A shop on another machine, with the same path there.
        let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let there = Endpoint::from(format!("tcp://{}", elsewhere.local_addr().unwrap()));
        let to = Addr { machine: Some(scene.ipc("shop")), ..Addr::at(there, 3) };
        let asked = actix::spawn(async move { conn.request(to, "BUY", 1, LONG).await });
        let far = tokio::task::spawn_blocking(move || {
            let mut far = Sp::accept_tcp(&elsewhere);
            (far.receive_message().unwrap(), far)
        });
        let (request, mut far) = soon(far).await.unwrap();
        shop.shutdown().await;
        fails_at_once(&router.connect(), Addr::at(scene.ipc("shop"), 3)).await;
        let reply = sp::message(request.to, request.from, "BUY");
        far.send(&sp::frame(&Envelope { reply_to: request.id, ..reply }));
        assert_eq!(soon(asked).await.unwrap().unwrap().subject(), "BUY");
    });
}

#[test]
fn a_message_passed_on_too_often_is_told_to_its_sender() {
    scene(async |scene| {
        let (sender, gateway, last) = (scene.machine().await, scene.machine().await, scene.machine().await);
        let (reported, mut reports) = hold(&sender);
        let forged = |hops: i64| {
            let meta = wire::encode(&Value::from([("hops", hops)])).unwrap();
            sp::frame(&Envelope { meta, ..sp::message(reported.addr(), last.net_addr(99), "BUY") })
        };
        let mut peer = Sp::dial(&gateway.endpoints()[0]);
        for hops in [16, -1, i64::MAX] {
            peer.send(&forged(hops));
            assert_eq!(reason(&reports.next().await), Reason::HopLimit, "{hops}");
        }
        peer.send(&forged(15));
        assert_eq!(reason(&reports.next().await), Reason::NoSuchConnection);
    });
}

#[test]
fn an_address_that_leads_in_a_circle_ends_at_the_hop_limit() {
    scene(async |scene| {
        let router = scene.network().await;
        let alias = net(&router).as_str().replace("127.0.0.1", "localhost");
        let failure = fails_at_once(&router.connect(), Addr::at(alias.into(), 99)).await;
        assert_eq!(failure.reason, Reason::HopLimit);
    });
}

#[test]
fn a_local_router_does_not_reach_out() {
    with_router(async |router| {
        for out in ["ipc:///tmp/router_1", "tcp://127.0.0.1:9"] {
            let failure = fails_at_once(&router.connect(), Addr::at(out.into(), 3)).await;
            assert_eq!(failure.reason, Reason::NoRoute(format!("a local router does not reach {out}")));
        }
    });
}

#[test]
fn a_machine_router_does_not_reach_the_network() {
    with_two_routers(async |a, _| {
        let failure = fails_at_once(&a.connect(), Addr::at("tcp://127.0.0.1:9".into(), 3)).await;
        assert_eq!(failure.reason, Reason::NoRoute("a machine router does not reach tcp://127.0.0.1:9".into()));
    });
}

#[test]
fn a_way_that_was_used_before_is_not_used_when_it_has_changed() {
    each_way(async |pair| {
        let asker = pair.asker.connect();
        let first = pair.provider.spawn(adder());
        let next = pair.reach(&first).with_connection(number(&first) + 1);
        for _ in 0..3 {
            assert_serves(&asker, pair.reach(&first)).await;
            assert_eq!(fails_at_once(&asker, next.clone()).await.reason, Reason::NoSuchConnection);
        }
        let second = pair.provider.spawn(adder());
        assert_eq!(pair.reach(&second), next);
        assert_serves(&asker, next.clone()).await;
        first.stop();
        until("it has stopped", || !first.actor().connected()).await;
        assert_eq!(fails_at_once(&asker, pair.reach(&first)).await.reason, Reason::NoSuchConnection);
        assert_serves(&asker, next).await;
    });
}

#[test]
fn a_request_to_nobody_fails_at_once() {
    scene(async |scene| {
        let router = scene.network().await;
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let endpoints = [
            scene.ipc("nobody").to_string(),
            format!("tcp://{closed}"),
            "tcp://127.0.0.1:notaport".into(),
            "tcp://".into(),
            "ipc://".into(),
            "http://127.0.0.1:80".into(),
            format!("ipc:///{}", "long/".repeat(100)),
        ];
        for at in endpoints {
            let failure = fails_at_once(&router.connect(), Addr::at(at.as_str().into(), 3)).await;
            assert!(matches!(failure.reason, Reason::DialFailed(_) | Reason::NoRoute(_)), "{failure}");
        }
    });
}

#[test]
fn a_provider_in_another_process_is_reached() {
    play_part();
    scene(async |scene| {
        let router = scene.network().await;
        for (part, at) in [("ipc", ""), ("tcp", "tcp://127.0.0.1:0")] {
            let mut program = Program::start(scene.folder(), part, at);
            assert_serves(&router.connect(), &program.agent).await;
            kill(scene.folder(), &mut program);
        }
    });
}

/// Kills a provider, and clears what it had no time to clear.
fn kill(folder: &std::path::Path, program: &mut Program) {
    program.kill();
    let own = program.agent.machine.as_ref().unwrap().rest().to_string();
    for file in [own.clone(), format!("{own}.lock")] {
        let _ = std::fs::remove_file(folder.join(file));
    }
}

/// How long after its provider was killed a pending request failed.
async fn killed(conn: &Connection, program: &mut Program) -> Duration {
    assert_serves(conn, &program.agent).await;
    let (waiting, to) = (conn.clone(), program.agent.clone());
    let asked = actix::spawn(async move { (waiting.request(to, "HOLD", (), LONG).await, Instant::now()) });
    // The request is there when what was sent after it is answered.
    tokio::task::yield_now().await;
    assert_serves(conn, &program.agent).await;
    let at = Instant::now();
    program.kill();
    let (ended, told) = soon(asked).await.unwrap();
    let failure = failure(ended);
    assert!(matches!(failure.reason, Reason::PeerLost | Reason::DialFailed(_)), "{failure}");
    told.saturating_duration_since(at)
}

#[test]
fn a_request_to_a_process_that_is_killed_fails_within_100_ms() {
    scene(async |scene| {
        for (part, at) in [("ipc", ""), ("tcp", "tcp://127.0.0.1:0")] {
            let mut times = Vec::new();
            for asker in [scene.network().await, scene.start(Router::network().without_hub()).await] {
                let mut program = Program::start(scene.folder(), part, at);
                times.push(killed(&asker.connect(), &mut program).await);
                fails_at_once(&asker.connect(), &program.agent).await;
                kill(scene.folder(), &mut program);
            }
            // A busy machine may be late once.
            assert!(times.iter().min().unwrap() < &KILLED, "{part}: {times:?}");
            assert!(times.iter().max().unwrap() < &AT_ONCE, "{part}: {times:?}");
        }
    });
}

#[test]
fn one_way_messages_in_the_hands_of_a_process_that_is_killed_are_told() {
    scene(async |scene| {
        let a = scene.network().await;
        let (sender, mut reports) = hold(&a);
        for (part, at) in [("ipc", ""), ("tcp", "tcp://127.0.0.1:0")] {
            let mut program = Program::start(scene.folder(), part, at);
            let (conn, mut sent) = (sender.connection(), Vec::new());
            for n in 0..100 {
                sent.push(conn.send(&program.agent, "HOLD", n).await.unwrap());
            }
            // The messages are there when what was sent after them is answered.
            assert_serves(&a.connect(), &program.agent).await;
            kill(scene.folder(), &mut program);
            let mut told = Vec::new();
            for _ in &sent {
                let report = reports.next().await;
                assert!(matches!(reason(&report), Reason::PeerLost | Reason::DialFailed(_)), "{report:?}");
                told.extend(report.reply_to());
            }
            told.sort_unstable();
            assert_eq!(told, sent);
        }
    });
}

/// Asks until it is answered: what was on its way to the last life is told, and says that nobody knows.
async fn assert_serves_again(conn: &Connection, adder: &Addr) {
    let began = Instant::now();
    while began.elapsed() < LONG {
        match conn.request(adder, "ADD_ONE", 41, LONG).await {
            Ok(reply) => return assert_eq!(reply.contents::<i64>(), Ok(42)),
            ended => {
                let reason = failure(ended).reason;
                assert!(matches!(reason, Reason::PeerLost | Reason::DialFailed(_) | Reason::ShuttingDown), "{reason}");
            }
        }
    }
    panic!("it was not reached again");
}

#[test]
fn a_router_that_is_restarted_at_its_endpoint_is_reached_again() {
    scene(async |scene| {
        let a = scene.machine().await;
        let conn = a.connect();
        for _ in 0..3 {
            let shop = scene.start(Router::machine().without_hub().listen(scene.ipc("shop"))).await;
            let to = Addr::at(scene.ipc("shop"), number(&shop.spawn(adder())));
            assert_serves_again(&conn, &to).await;
            shop.shutdown().await;
            let failure = fails_at_once(&conn, &to).await;
            let gone = matches!(failure.reason, Reason::DialFailed(_) | Reason::PeerLost | Reason::ShuttingDown);
            assert!(gone, "{failure}");
        }
    });
}

#[test]
fn a_process_that_is_killed_and_restarted_at_its_endpoint_is_reached_again() {
    scene(async |scene| {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (part, at) in [("ipc", scene.ipc("shop").to_string()), ("tcp", format!("tcp://{port}"))] {
            let router = scene.network().await;
            let conn = router.connect();
            for _ in 0..2 {
                let mut program = Program::start(scene.folder(), part, &at);
                let to = Addr::at(at.as_str().into(), number(program.agent.clone()));
                assert_serves_again(&conn, &to).await;
                kill(scene.folder(), &mut program);
                fails_at_once(&conn, &to).await;
            }
        }
        for file in ["shop", "shop.lock"] {
            let _ = std::fs::remove_file(scene.folder().join(file));
        }
    });
}
