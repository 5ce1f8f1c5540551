//! Shutting down: nothing is left behind, and nobody is left waiting.

use std::time::{Duration, Instant};

use vlmessaging::{Addr, Limits, ListenError, Reason, Router, StartError};

use crate::common::agents::{adder, does, hold};
use crate::common::program::alone;
use crate::common::{
    AT_ONCE, LONG, assert_serves, each_way, fails_at_once, failure, limits, net, run, scene, soon, sp, until,
};

#[test]
fn shutdown_leaves_no_socket_and_no_lock_file() {
    scene(async |scene| {
        let router = Router::network().listen("tcp://127.0.0.1:0").listen(scene.ipc("shop"));
        let router = scene.start(router).await;
        crate::common::until("all its sockets are there", || {
            scene.files().iter().filter(|file| !file.contains(".lock")).count() == 3
        })
        .await;
        let port = net(&router);
        router.shutdown().await;
        assert_eq!(scene.files(), Vec::<String>::new());
        assert!(std::net::TcpListener::bind(port.rest()).is_ok());
    });
}

#[test]
fn requests_that_wait_are_told_of_the_shutdown_of_their_router() {
    scene(async |scene| {
        let (a, b) = (scene.machine().await, scene.machine().await);
        let (agent, mut held) = hold(&b);
        let conn = a.connect();
        let asked = actix::spawn(async move { conn.request(&agent, "BUY", 1, LONG).await });
        let request = held.next().await;
        a.shutdown().await;
        let reason = failure(soon(asked).await.unwrap()).reason;
        // The peer need not have said that it has the request: then it may have been handled.
        assert!(matches!(reason, Reason::ShuttingDown | Reason::PeerLost), "{reason:?}");
        let _handled = request.handled();
    });
}

#[test]
fn requests_that_wait_are_told_of_the_shutdown_of_the_provider() {
    each_way(async |pair| {
        let (agent, mut held) = hold(&pair.provider);
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        let asked = actix::spawn(async move { conn.request(to, "BUY", 1, LONG).await });
        let request = held.next().await;
        let began = Instant::now();
        pair.provider.shutdown().await;
        let reason = failure(soon(asked).await.unwrap()).reason;
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        let right = matches!(reason, Reason::ShuttingDown | Reason::PeerLost | Reason::DialFailed(_));
        assert!(right, "{reason:?}");
        let _handled = request.handled();
    });
}

#[test]
fn a_router_that_was_shut_down_sends_nothing() {
    scene(async |scene| {
        let (a, b) = (scene.machine().await, scene.machine().await);
        let (here, there) = (a.spawn(adder()), b.spawn(adder()));
        let conn = a.connect();
        a.shutdown().await;
        for to in [here.addr(), there.addr()] {
            assert_eq!(fails_at_once(&conn, to).await.reason, Reason::ShuttingDown);
        }
        let late = a.connect();
        assert_eq!(late.try_send(&there, "TAKE", 1).unwrap_err().reason, Reason::ShuttingDown);
    });
}

#[test]
fn shutdown_may_be_asked_for_twice_and_by_many() {
    scene(async |scene| {
        let router = scene.machine().await;
        let many = futures::future::join_all((0..5).map(|_| router.shutdown()));
        futures::future::join(soon(many), soon(router.stopped())).await;
        soon(router.shutdown()).await;
        soon(router.stopped()).await;
    });
}

#[test]
fn shutdown_stops_every_agent() {
    scene(async |scene| {
        let router = scene.start(Router::local()).await;
        let (here, thread) = (router.spawn(adder()), actix::Arbiter::new());
        let there = router.spawn_on(&thread.handle(), adder);
        assert_serves(&router.connect(), &there).await;
        router.shutdown().await;
        crate::common::until("both have ended", || !here.actor().connected() && !there.actor().connected()).await;
        thread.stop();
    });
}

#[test]
fn what_was_sent_before_shutdown_arrives() {
    scene(async |scene| {
        let (a, b) = (scene.machine().await, scene.machine().await);
        let (agent, mut held) = hold(&b);
        let conn = a.connect();
        for n in 0..1000 {
            conn.send(&agent, "TAKE", n).await.unwrap();
        }
        a.shutdown().await;
        for n in 0..1000 {
            let mut msg = held.next().await;
            assert_eq!(msg.take_contents(), Ok(n));
            let _handled = msg.handled();
        }
    });
}

#[test]
fn shutdown_waits_no_longer_than_its_limit_for_a_peer_that_does_not_read() {
    scene(async |scene| {
        let patience = Duration::from_millis(300);
        let short: Limits = limits(|limits| limits.shutdown = patience);
        let router = scene.start(Router::machine().without_hub().limits(short)).await;
        let listener = sp::listen(&scene.ipc("mute"));
        for _ in 0..100 {
            router.connect().try_send(Addr::at(scene.ipc("mute"), 3), "TAKE", "x".repeat(30_000)).unwrap();
        }
        let accepting = std::thread::spawn(move || (sp::Sp::accept(&listener), listener));
        let (peer, _) = soon(tokio::task::spawn_blocking(|| accepting.join().unwrap())).await.unwrap();
        let began = Instant::now();
        router.shutdown().await;
        assert!(began.elapsed() >= patience && began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        drop(peer);
        std::fs::remove_file(scene.folder().join("mute")).unwrap();
    });
}

#[test]
fn a_router_whose_system_ends_lets_go_of_its_endpoints() {
    scene(async |scene| {
        let folder = scene.folder().to_owned();
        let start = async || drop(Router::machine().folder(folder).start().await.unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| actix::System::new().block_on(start()));
        });
        until("its files are gone", || scene.files().is_empty()).await;
        scene.start(Router::machine()).await.joined(LONG).await.unwrap();
    });
}

#[test]
fn an_endpoint_in_use_is_said_at_once() {
    scene(async |scene| {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = format!("tcp://{}", held.local_addr().unwrap());
        let shop = scene.ipc("shop");
        let _owner = scene.start(Router::machine().without_hub().listen(shop.clone())).await;
        for at in [port, shop.to_string()] {
            let began = Instant::now();
            let builder = Router::network().without_hub().folder(scene.folder()).listen(at.as_str());
            let Err(StartError::Listen(error)) = builder.start().await.map(drop) else { panic!("it started") };
            assert!(matches!(&error, ListenError::InUse { .. }), "{error}");
            assert_eq!(error.to_string(), format!("{at} is already in use"));
            assert!(began.elapsed() < AT_ONCE);
        }
    });
}

#[test]
fn a_router_that_did_not_start_leaves_nothing_behind() {
    scene(async |scene| {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = format!("tcp://{}", held.local_addr().unwrap());
        let builder = Router::network().without_hub().folder(scene.folder()).listen(scene.ipc("shop")).listen(port);
        assert!(builder.start().await.is_err());
        crate::common::until("its files are gone", || scene.files().is_empty()).await;
    });
}

#[test]
fn a_file_in_the_way_is_refused_and_left_as_it_is() {
    scene(async |scene| {
        let file = scene.folder().join("shop");
        std::fs::write(&file, "the ledger").unwrap();
        let builder = Router::machine().without_hub().folder(scene.folder()).listen(scene.ipc("shop"));
        let Err(StartError::Listen(error)) = builder.start().await.map(drop) else { panic!("it started") };
        assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "the ledger");
        std::fs::remove_file(file).unwrap();
        crate::common::until("its files are gone", || scene.files().is_empty()).await;
    });
}

#[test]
fn an_endpoint_that_makes_no_sense_is_said() {
    scene(async |scene| {
        let missing = format!("ipc://{}/missing/shop", scene.folder().display());
        let long = format!("ipc://{}", scene.folder().join("long".repeat(40)).display());
        for at in ["tcp://127.0.0.1", "tcp://256.1.1.1:0", "ipc://relative", "http://127.0.0.1:80", &missing, &long] {
            let builder = Router::network().without_hub().folder(scene.folder()).listen(at);
            let Err(StartError::Listen(error)) = builder.start().await.map(drop) else { panic!("{at} started") };
            assert!(matches!(error, ListenError::Invalid { .. } | ListenError::System { .. }), "{at}: {error}");
        }
        crate::common::until("its files are gone", || scene.files().is_empty()).await;
    });
}

#[test]
fn a_missing_folder_and_an_endpoint_beyond_the_mode_are_said() {
    scene(async |scene| {
        let missing = scene.folder().join("missing");
        let ended = Router::machine().without_hub().folder(missing).start().await;
        assert!(matches!(ended, Err(StartError::Listen(_))), "{:?}", ended.err());
        for builder in [Router::local().join("ipc:///tmp/hub_1"), Router::machine().listen("tcp://127.0.0.1:0")] {
            let ended = builder.folder(scene.folder()).start().await;
            assert!(matches!(ended, Err(StartError::Options(_))), "{:?}", ended.err());
        }
    });
}

#[test]
fn a_folder_full_of_routers_is_said() {
    scene(async |scene| {
        let first = std::process::id();
        let path = |number| scene.folder().join(format!("router_{number}"));
        let full: Vec<_> =
            (first..first + 1000).map(|n| std::os::unix::net::UnixListener::bind(path(n)).unwrap()).collect();
        let ended = Router::machine().without_hub().folder(scene.folder()).start().await;
        let Err(StartError::NoFreeEndpoint { first: at, tried: 1000 }) = ended else { panic!("{:?}", ended.err()) };
        assert_eq!(at, scene.ipc(&format!("router_{first}")));
        drop(full);
        (first..first + 1000).for_each(|n| std::fs::remove_file(path(n)).unwrap());
    });
}

/// Descriptors and threads of this process.
fn held() -> (usize, usize) {
    let count = |folder: &str| std::fs::read_dir(folder).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

async fn start_and_stop() {
    let folder = std::env::temp_dir();
    let start = || Router::network().without_hub().folder(&folder).listen("tcp://127.0.0.1:0").start();
    let (a, b) = (start().await.unwrap(), start().await.unwrap());
    let adder = b.spawn(adder());
    let _quiet = b.spawn(does(vlmessaging::Msg::handled));
    assert_serves(&a.connect(), &adder).await;
    assert_serves(&a.connect(), b.net_addr(adder.addr().connection.unwrap())).await;
    a.shutdown().await;
    b.shutdown().await;
}

#[test]
fn routers_started_and_stopped_fifty_times_leave_no_descriptors_and_threads() {
    alone("shutdown::routers_started_and_stopped_fifty_times_leave_no_descriptors_and_threads", || {
        run(async {
            for _ in 0..5 {
                start_and_stop().await;
            }
            let before = held();
            for _ in 0..50 {
                start_and_stop().await;
            }
            crate::common::until("no more is held than before", || {
                let now = held();
                now.0 <= before.0 + 2 && now.1 <= before.1 + 2
            })
            .await;
        });
    });
}
