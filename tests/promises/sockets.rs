//! Sockets: routers of every kind are in one network, and an agent that blocks its thread holds up nobody's messages.

use std::sync::mpsc::channel;

use vlmessaging::{Router, Sockets};

use crate::common::agents::{adder, does, hold};
use crate::common::{LONG, Scene, assert_serves, number, run, scene};

/// Two routers whose sockets are of these kinds, of the machine or of the network.
async fn two(scene: &Scene, kinds: [Sockets; 2], over_tcp: bool) -> [Router; 2] {
    let builder = |kind| {
        let builder = if over_tcp { Router::network().listen("tcp://127.0.0.1:0") } else { Router::machine() };
        builder.without_hub().sockets(kind)
    };
    [scene.start(builder(kinds[0])).await, scene.start(builder(kinds[1])).await]
}

fn each_pair_of_kinds(test: impl AsyncFn(&Scene, [Sockets; 2])) {
    for one in Sockets::ALL {
        for other in Sockets::ALL {
            println!("{one} and {other}");
            scene(async |scene| test(scene, [*one, *other]).await);
        }
    }
}

#[test]
fn routers_of_each_kind_ask_each_other() {
    each_pair_of_kinds(async |scene, kinds| {
        for over_tcp in [false, true] {
            let [a, b] = two(scene, kinds, over_tcp).await;
            let (at_a, at_b) = (a.spawn(adder()), b.spawn(adder()));
            let (to_a, to_b) = (a.net_addr(number(&at_a)), b.net_addr(number(&at_b)));
            let (from_a, from_b) = (a.connect(), b.connect());
            for _ in 0..20 {
                futures::future::join(assert_serves(&from_a, to_b.clone()), assert_serves(&from_b, to_a.clone())).await;
            }
        }
    });
}

#[test]
fn what_is_sent_between_kinds_arrives_once_and_in_order() {
    each_pair_of_kinds(async |scene, kinds| {
        for over_tcp in [false, true] {
            let [a, b] = two(scene, kinds, over_tcp).await;
            let (counter, mut held) = hold(&b);
            let (conn, to) = (a.connect(), b.net_addr(number(&counter)));
            for n in 0..3_000_i64 {
                conn.send(&to, "COUNT", n).await.unwrap();
            }
            for n in 0..3_000_i64 {
                assert_eq!(held.next().await.contents::<i64>(), Ok(n));
            }
        }
    });
}

#[test]
fn what_an_agent_has_sent_arrives_while_it_blocks_its_thread() {
    each_pair_of_kinds(async |scene, kinds| {
        let (tell, told) = channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (folder, kind) = (scene.folder().to_owned(), kinds[1]);
        let (tell_at, at) = channel();
        let provider = std::thread::spawn(move || {
            run(async {
                let router = Router::machine().without_hub().sockets(kind).folder(folder).start().await.unwrap();
                let counter = router.spawn(does(move |msg| {
                    tell.send(msg.contents::<i64>().unwrap()).unwrap();
                    msg.handled()
                }));
                tell_at.send(router.net_addr(number(&counter))).unwrap();
                // Ends with the test, also when it fails.
                let _ = stopped.await;
                router.shutdown().await;
            });
        });
        let router = scene.start(Router::machine().without_hub().sockets(kinds[0])).await;
        let (conn, to) = (router.connect(), at.recv().unwrap());
        for n in 0..10_000_i64 {
            conn.send(&to, "COUNT", n).await.unwrap();
        }
        // Here it blocks the thread that its router runs on.
        for n in 0..10_000_i64 {
            assert_eq!(told.recv_timeout(LONG), Ok(n));
        }
        stop.send(()).unwrap();
        provider.join().unwrap();
    });
}
