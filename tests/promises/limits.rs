//! Limits: what is full or too large is said, and what is waiting comes back or goes on.

use std::time::Duration;

use vlmessaging::{Msg, Reason, RequestError, Router, subject};

use crate::common::agents::{adder, does, hold};
use crate::common::{LONG, Way, assert_serves, limits, over, reason, scene, soon, sp};

#[test]
fn try_send_to_a_full_mailbox_hands_the_contents_back() {
    scene(async |scene| {
        let router = scene.start(Router::local().limits(limits(|limits| limits.mailbox = 4))).await;
        let (agent, _held) = hold(&router);
        let conn = router.connect();
        for n in 0..4 {
            conn.try_send(&agent, "TAKE", n).unwrap();
        }
        let error = conn.try_send(&agent, "TAKE", "the fifth".to_string()).unwrap_err();
        assert_eq!(error.reason, Reason::MailboxFull);
        assert_eq!(error.into_contents().take::<String>().unwrap(), "the fifth");
    });
}

#[test]
fn send_waits_for_room_in_a_mailbox() {
    scene(async |scene| {
        let router = scene.start(Router::local().limits(limits(|limits| limits.mailbox = 2))).await;
        let (agent, mut held) = hold(&router);
        let (conn, to) = (router.connect(), agent.addr());
        let sending = actix::spawn(async move {
            for n in 0..100 {
                conn.send(&to, "TAKE", n).await.unwrap();
            }
        });
        for n in 0..100 {
            let mut msg = held.next().await;
            assert_eq!(msg.take_contents(), Ok(n));
            let _handled = msg.handled();
        }
        soon(sending).await.unwrap();
    });
}

#[test]
fn many_senders_that_wait_for_room_all_get_their_turn() {
    scene(async |scene| {
        let router = scene.start(Router::local().limits(limits(|limits| limits.mailbox = 1))).await;
        let adder = router.spawn(adder());
        let conn = router.connect();
        let asked = (0..200_i64).map(|n| conn.request(&adder, "ADD_ONE", n, LONG));
        for (n, reply) in futures::future::join_all(asked).await.into_iter().enumerate() {
            assert_eq!(reply.unwrap().contents::<usize>(), Ok(n + 1));
        }
    });
}

#[test]
fn a_sender_that_waits_for_room_is_told_when_the_agent_stops() {
    scene(async |scene| {
        let router = scene.start(Router::local().limits(limits(|limits| limits.mailbox = 1))).await;
        let (agent, mut held) = hold(&router);
        let (conn, to) = (router.connect(), agent.addr());
        conn.send(&to, "TAKE", 1).await.unwrap();
        let first = held.next().await;
        let waiting = actix::spawn(async move { conn.send(&to, "TAKE", "the goods".to_string()).await });
        tokio::task::yield_now().await;
        agent.stop();
        let error = soon(waiting).await.unwrap().unwrap_err();
        assert!(matches!(error.reason, Reason::NoSuchConnection | Reason::AgentStopped), "{error}");
        assert_eq!(error.into_contents().take::<String>().unwrap(), "the goods");
        let _handled = first.handled();
    });
}

#[test]
fn a_full_mailbox_elsewhere_is_reported() {
    scene(async |scene| {
        let a = scene.machine().await;
        let small = limits(|limits| limits.mailbox = 4);
        let b = scene.start(Router::machine().without_hub().limits(small)).await;
        let (agent, mut held) = hold(&b);
        let (sender, mut reports) = hold(&a);
        for n in 0..4 {
            b.connect().send(&agent, "TAKE", n).await.unwrap();
        }
        for n in 4..10 {
            sender.connection().send(&agent, "TAKE", n).await.unwrap();
            assert_eq!(reason(&reports.next().await), Reason::MailboxFull);
        }
        assert_eq!(held.now().len(), 4);
    });
}

#[test]
fn a_message_larger_than_the_limit_is_refused_before_it_is_sent() {
    scene(async |scene| {
        let small = limits(|limits| limits.message = 64 << 10);
        let (a, b) = (scene.start(Router::machine().without_hub().limits(small)).await, scene.machine().await);
        let adder = b.spawn(adder());
        let conn = a.connect();
        let error = conn.send(&adder, "TAKE", "x".repeat(70_000)).await.unwrap_err();
        assert!(matches!(error.reason, Reason::TooLarge { size: 70_000.., limit: 65_536 }), "{error}");
        assert_eq!(error.into_contents().take::<String>().unwrap().len(), 70_000);
        assert_serves(&conn, &adder).await;
    });
}

#[test]
fn a_message_larger_than_a_known_peer_takes_is_refused_before_it_is_sent() {
    scene(async |scene| {
        let small = limits(|limits| limits.message = 64 << 10);
        let (a, b) = (scene.machine().await, scene.start(Router::machine().without_hub().limits(small)).await);
        let adder = b.spawn(adder());
        let conn = a.connect();
        assert_serves(&conn, &adder).await;
        let ended = conn.request(&adder, "ADD_ONE", "x".repeat(70_000), LONG).await;
        let Err(RequestError::NotSent(error)) = ended else { panic!("{ended:?}") };
        assert!(matches!(error.reason, Reason::TooLarge { size: 70_000.., limit: 65_536 }), "{error}");
    });
}

#[test]
fn a_first_message_larger_than_the_peer_takes_is_told() {
    scene(async |scene| {
        let small = limits(|limits| limits.message = 64 << 10);
        // A busy machine may take long to say hello.
        let patient = limits(|limits| limits.introduction = LONG);
        let a = scene.start(Router::machine().without_hub().limits(patient)).await;
        let b = scene.start(Router::machine().without_hub().limits(small)).await;
        let (agent, mut held) = hold(&b);
        let (sender, mut reports) = hold(&a);
        sender.connection().send(&agent, "TAKE", "x".repeat(3 << 20)).await.unwrap();
        let report = reports.next().await;
        assert!(matches!(reason(&report), Reason::TooLarge { limit: 65_536, .. }), "{report:?}");
        assert_eq!(held.now().len(), 0);
        sender.connection().send(&agent, "TAKE", 1).await.unwrap();
        assert_eq!(held.next().await.contents::<i64>(), Ok(1));
    });
}

#[test]
fn large_messages_arrive_whole() {
    crate::common::each_way(async |pair| {
        let (agent, mut held) = hold(&pair.provider);
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        for size in [1, 65_535, 65_536, 1 << 20, 5 << 20] {
            let text: String = ('a'..='w').cycle().take(size).collect();
            conn.send(&to, "TAKE", text.clone()).await.unwrap();
            assert!(held.next().await.take_contents() == Ok(text), "{size} over {:?}", pair.way);
        }
    });
}

#[test]
fn a_full_link_hands_contents_back_and_goes_on_when_the_peer_reads() {
    scene(async |scene| {
        let a = scene.start(Router::machine().without_hub().limits(limits(|limits| limits.link = 64 << 10))).await;
        let slow = scene.ipc("slow");
        let listener = sp::listen(&slow);
        let (conn, to) = (a.connect(), vlmessaging::Addr::at(slow, 3));
        let goods = "x".repeat(10_000);
        conn.send(&to, "TAKE", goods.clone()).await.unwrap();
        let reader = std::thread::spawn(move || (sp::Sp::accept(&listener), listener));
        let (mut peer, _listener) = reader.join().unwrap();
        let mut sent = 1_usize;
        let refused = loop {
            match conn.try_send(&to, "TAKE", goods.clone()) {
                Ok(_) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 1000, "the link takes everything");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        assert_eq!(refused.reason, Reason::MailboxFull);
        assert!(refused.into_contents().take::<String>().unwrap() == goods);
        let waiting = conn.clone();
        let waiting = actix::spawn(async move { waiting.send(&to, "TAKE", goods).await.map(|_| ()) });
        let reads = std::thread::spawn(move || (0..=sent).filter_map(|_| peer.receive_message()).count());
        soon(waiting).await.unwrap().unwrap();
        assert_eq!(soon(tokio::task::spawn_blocking(move || reads.join().unwrap())).await.unwrap(), sent + 1);
        std::fs::remove_file(scene.folder().join("slow")).unwrap();
    });
}

#[test]
fn answers_have_room_when_there_are_more_than_the_link_holds() {
    over(Way::Ipc, async |pair| {
        let agent = pair.provider.spawn(does(|msg| msg.reply("x".repeat(64 << 10))));
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        let asked = (0..300).map(|n| conn.request(&to, "BIG", n, LONG));
        assert!(futures::future::join_all(asked).await.iter().all(Result::is_ok));
    });
}

#[test]
fn forged_reports_do_not_fill_a_mailbox_without_end() {
    scene(async |scene| {
        let router = scene.start(Router::local().limits(limits(|limits| limits.mailbox = 10))).await;
        let (agent, _held) = hold(&router);
        let (conn, to) = (router.connect(), agent.addr());
        let forged = |_: &u32| conn.try_send(&to, subject::MSG_NOT_DELIVERED, ()).is_ok();
        assert_eq!((0..70_000).take_while(forged).count(), 2 * 10 + 65_536);
    });
}

#[test]
fn reports_have_room_beside_a_full_mailbox_and_an_agent_full_of_them_sends_no_more() {
    scene(async |scene| {
        let few = || limits(|limits| limits.mailbox = 10);
        let (ours, other) = (scene.start(Router::machine().limits(few())).await, scene.machine().await);
        let (sender, mut held) = hold(&ours);
        for n in 0..10 {
            ours.connect().try_send(&sender, "TAKE", n).unwrap();
        }
        let conn = sender.connection();
        for n in 0..10 {
            conn.send(other.net_addr(99), "TAKE", n).await.unwrap();
        }
        let mut in_hand = Vec::new();
        for _ in 0..20 {
            in_hand.push(held.next().await);
        }
        let reports = in_hand.iter().filter_map(Msg::not_delivered);
        assert!(reports.map(|report| report.reason).eq(vec![Reason::NoSuchConnection; 10]));
        assert_eq!(conn.try_send(other.net_addr(99), "TAKE", 0).unwrap_err().reason, Reason::MailboxFull);
        for msg in in_hand {
            let _handled = msg.handled();
        }
        assert!(conn.try_send(other.net_addr(99), "TAKE", 0).is_ok());
        assert_eq!(reason(&held.next().await), Reason::NoSuchConnection);
    });
}
