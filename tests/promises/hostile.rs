//! Peers that speak nonsense, or lie: each costs itself only.

use std::time::Duration;

use bytes::Bytes;
use vlmessaging::wire::{self, Block, Encoded, Envelope, Failed, Header, How, Mood, Profile, Receipt};
use vlmessaging::{Addr, Endpoint, Reason, Router, Value};

use crate::common::agents::{adder, hold};
use crate::common::sp::{self, HANDSHAKE, Sp};
use crate::common::{Scene, assert_serves, net, number, reason, scene, until};

const MARKER: [u8; 4] = [0xE0, 1, 0, 0xEA];

/// A router with an adder, and another that asks it.
struct Victim {
    router: Router,
    asker: Router,
    adder: u64,
    /// Where it can be attacked.
    door: Endpoint,
}

impl Victim {
    async fn in_scene(scene: &Scene, over_tcp: bool) -> Self {
        let (router, asker) = (scene.network().await, scene.network().await);
        let adder = number(&router.spawn(adder()));
        let door = if over_tcp { net(&router) } else { router.endpoints()[0].clone() };
        let victim = Self { router, asker, adder, door };
        victim.assert_serves().await;
        victim
    }

    /// Serves those that it knows, and newcomers by both doors.
    async fn assert_serves(&self) {
        assert_serves(&self.asker.connect(), Addr::at(self.door.clone(), self.adder)).await;
        let mut guest = Sp::dial(&self.door);
        let (agent, mut held) = hold(&self.router);
        guest.send(&sp::frame(&sp::message(Addr::default(), Addr::at(self.door.clone(), number(&agent)), "HELLO")));
        let hello = held.next().await;
        assert_eq!(hello.subject(), "HELLO");
        let _handled = hello.handled();
    }

    fn question(&self) -> Vec<u8> {
        sp::frame(&sp::message(Addr::default(), Addr::at(self.door.clone(), self.adder), "PING"))
    }

    /// Waits until so many frames were refused, and no more.
    async fn refused(&self, frames: u64) {
        until("they are counted", || self.router.stats().refused_frames >= frames).await;
        assert_eq!(self.router.stats().refused_frames, frames);
    }
}

/// Runs an attack on a router over ipc and over tcp; afterwards it must serve.
#[expect(clippy::needless_pass_by_value, reason = "an attack reads better without a reference")]
fn attack(how: impl AsyncFn(&Victim, &Scene)) {
    for over_tcp in [false, true] {
        println!("over tcp: {over_tcp}");
        scene(async |scene| {
            let victim = Victim::in_scene(scene, over_tcp).await;
            how(&victim, scene).await;
            victim.assert_serves().await;
        });
    }
}

fn nested(levels: usize) -> Vec<u8> {
    let mut value = vec![0x0F];
    for _ in 0..levels {
        // Its length in three groups of seven bits, the last one marked.
        let group = |shift: usize| u8::try_from((value.len() >> shift) & 0x7F).unwrap();
        let length = [group(14), group(7), group(0) | 0x80];
        value = [&[0xBE], &length[..], &value].concat();
    }
    value
}

/// A message with these contents as they are.
fn carrying(contents: Vec<u8>) -> Vec<u8> {
    let contents = Encoded { bytes: contents.into(), symbols: None };
    sp::frame(&Envelope { contents, ..sp::message(Addr::default(), Addr::local(3), "TAKE") })
}

#[test]
fn frames_that_cannot_be_read_are_refused_and_cost_themselves_only() {
    attack(async |victim, _| {
        let good = victim.question();
        let mut frames: Vec<Vec<u8>> = vec![
            vec![],
            MARKER.to_vec(),
            b"hello".to_vec(),
            b"$ion_1_0 \"1\" null null null null null 3 \"PING\" 1 null null {}".to_vec(),
            vec![0; 1000],
            vec![0xFF; 1000],
            [good.clone(), good.clone()].concat(),
            carrying(nested(300)),
            carrying(nested(20_000)),
            carrying(vec![0xBE, 0x7F, 0x7F, 0xFF]),
            carrying(vec![0x8E, 0x7F, 0x7F, 0x7F, 0x7F, 0x7F, 0x7F, 0x7F, 0x7F, 0x7F, 0xFF]),
            carrying(vec![0x30]),
        ];
        frames.extend((1..good.len()).map(|cut| good[..cut].to_vec()));
        // All on one connection, which is kept.
        let mut peer = Sp::dial(&victim.door);
        for frame in &frames {
            peer.send(frame);
        }
        victim.refused(frames.len() as u64).await;
        peer.send(&good);
        victim.assert_serves().await;
        victim.refused(frames.len() as u64).await;
    });
}

#[test]
fn a_message_longer_than_the_limit_ends_its_own_connection() {
    attack(async |victim, _| {
        for length in [64 << 20, 1 << 33, 1 << 50, u64::MAX] {
            let mut peer = Sp::dial(&victim.door);
            peer.send(&victim.question());
            peer.claim(length);
            peer.write(&[0; 1000]);
            assert!(tokio::task::spawn_blocking(move || peer.is_ended()).await.unwrap(), "{length}");
        }
    });
}

#[test]
fn connections_that_never_shake_hands_disturb_nobody() {
    attack(async |victim, _| {
        let first_words: [&[u8]; 7] = [
            &[],
            &HANDSHAKE[..3],
            &[0, 0x53, 0x50, 0, 0, 0x10, 0, 0],
            &[0, 0x53, 0x50, 0, 0, 0x12, 0, 0],
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            &[0xFF; 64],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ];
        let mut open = Vec::new();
        for words in first_words {
            for _ in 0..20 {
                let mut peer = Sp::mute(&victim.door);
                peer.write(words);
                open.push(peer);
            }
        }
        victim.assert_serves().await;
        drop(open);
        victim.assert_serves().await;
        victim.refused(0).await;
    });
}

#[test]
fn two_thousand_visits_that_end_at_once_disturb_nobody() {
    attack(async |victim, _| {
        for visit in 0..2000 {
            let mut peer = Sp::mute(&victim.door);
            peer.write(&HANDSHAKE[..visit % 9]);
            if visit % 200 == 0 {
                tokio::task::yield_now().await;
            }
        }
        victim.assert_serves().await;
        victim.refused(0).await;
    });
}

#[test]
fn a_message_cut_off_by_the_end_of_its_connection_is_nothing() {
    attack(async |victim, _| {
        for _ in 0..100 {
            let mut peer = Sp::dial(&victim.door);
            peer.claim(500);
            peer.write(&[0, 0, 0, 1, 0xE0]);
        }
        victim.assert_serves().await;
        assert_eq!(victim.router.stats().refused_frames, 0);
    });
}

#[test]
fn hellos_with_odd_contents_disturb_nobody() {
    attack(async |victim, scene| {
        let own = victim.router.endpoints();
        let long = format!("ipc:///{}", "x".repeat(5000));
        let nobody = scene.ipc("nobody").to_string();
        let claims = ["", "router", "ipc://", "tcp://", "http://a", "tcp://127.0.0.1:notaport", &long, &nobody, "\0"];
        let vlm = |meta: Value| wire::encode(&Value::from([("vlm", meta)])).unwrap();
        let metas = [
            Encoded::empty_struct(),
            vlm(Value::Null),
            vlm(Value::from([("version", 3)])),
            vlm(Value::from([("version", -1), ("incarnation", 2), ("limit", 3), ("token", 4)])),
            vlm(Value::from([("version", 3), ("incarnation", 0), ("limit", 0), ("token", 0), ("echo", 0)])),
            vlm(Value::from([("version", 3), ("incarnation", i64::MAX), ("limit", i64::MAX), ("token", i64::MAX)])),
        ];
        let mut open = Vec::new();
        for claimed in claims.into_iter().chain(own.iter().map(Endpoint::as_str)) {
            for meta in &metas {
                let mut peer = Sp::dial(&victim.door);
                peer.send(&sp::hello(claimed, meta.clone()));
                peer.send(&victim.question());
                open.push(peer);
            }
        }
        victim.assert_serves().await;
        drop(open);
        victim.assert_serves().await;
    });
}

#[test]
fn a_hello_that_claims_another_routers_endpoint_does_not_take_its_messages() {
    scene(async |scene| {
        let victim = Victim::in_scene(scene, false).await;
        let honest = scene.machine().await;
        let (agent, mut held) = hold(&honest);
        let mut thief = Sp::dial(&victim.door);
        thief.send(&sp::hello(honest.endpoints()[0].as_str(), Encoded::empty_struct()));
        thief.send(&victim.question());
        for n in 0..10 {
            victim.router.connect().send(&agent, "TAKE", n).await.unwrap();
            assert_eq!(held.next().await.contents::<i64>(), Ok(n));
        }
    });
}

#[test]
fn link_frames_of_strangers_are_refused() {
    attack(async |victim, _| {
        let all = u64::MAX >> 1;
        let failed = vec![Failed { from: 0, upto: all, how: How::Unread }];
        let receipt = Receipt { session: 1, version: all, accepted: all, settled: all, beyond: vec![(0, all)], failed };
        let header = |from, to| {
            let (mood, receipts) = (Mood { closing: true, hushed: true, patient: false }, [receipt.clone()].into());
            Header { from, to, session: 1, heard: all, mood, first: 0, receipts }
        };
        let mut messages = Block::default();
        messages.push(&wire::read_message(&victim.question().into(), Profile::Rust).unwrap(), None);
        let frames = [
            wire::write_frame(&header(1, 2), &messages),
            wire::write_frame(&header(0, 0), &messages),
            wire::write_frame(&header(u64::MAX, u64::MAX), &Block::default()),
            wire::write_frame(&header(1, 2), &messages).slice(..40),
            Bytes::from([&MARKER[..], b"\x82L3"].concat()),
            Bytes::from([&MARKER[..], b"\x82L3", &[0xFF; 100]].concat()),
        ];
        for frame in &frames {
            // A stranger's connection is ended, so that a router would introduce itself anew.
            Sp::dial(&victim.door).send(frame);
        }
        victim.refused(6).await;
    });
}

#[test]
fn messages_to_nowhere_are_told_to_who_can_be_told() {
    attack(async |victim, scene| {
        let (asker, mut reports) = hold(&victim.asker);
        let from = victim.asker.net_addr(number(&asker));
        let mut peer = Sp::dial(&victim.door);
        let here = |number| Addr::at(victim.door.clone(), number);
        for to in [here(99), here(2), here(0), here(u64::MAX >> 1), Addr::at(scene.ipc("nobody"), 3)] {
            peer.send(&sp::frame(&sp::message(from.clone(), to.clone(), "BUY")));
            let report = reports.next().await;
            let reason = reason(&report);
            assert!(
                matches!(reason, Reason::NoSuchConnection | Reason::DialFailed(_) | Reason::NoRoute(_)),
                "{to}: {reason:?}"
            );
            let _handled = report.handled();
        }
        // Nobody can be told of these.
        for to in [Addr::default(), here(99)] {
            peer.send(&sp::frame(&sp::message(Addr::default(), to, "BUY")));
        }
        until("they are counted", || victim.router.stats().untold == 2).await;
    });
}

#[test]
fn a_report_of_what_was_never_sent_disturbs_nobody() {
    attack(async |victim, _| {
        let mut peer = Sp::dial(&victim.door);
        let lie = sp::message(Addr::default(), Addr::at(victim.door.clone(), victim.adder), "MSG_NOT_DELIVERED");
        for reply_to in [None, Some(1), Some(-1), Some(i64::MAX)] {
            for meta in [Encoded::empty_struct(), Encoded::null(), wire::encode(&"meta").unwrap()] {
                peer.send(&sp::frame(&Envelope { reply_to, meta, ..lie.clone() }));
            }
        }
        victim.assert_serves().await;
    });
}

#[test]
fn entries_that_make_no_sense_disturb_no_directory() {
    attack(async |victim, _| {
        let mut peer = Sp::dial(&victim.door);
        let subjects = [
            "SYNC_ENTRIES",
            "SHARE_ENTRIES",
            "REGISTER_ENTRY",
            "UNREGISTER_ADDR",
            "GET_ENTRIES",
            "GET_VNETS",
            "BAD_ENTRIES",
        ];
        let contents =
            [Value::Null, Value::Int(-1), Value::List(vec![Value::Null]), Value::from([("home", Value::Null)])];
        let from = Addr::at("ipc:///tmp/liar".into(), 1);
        for subject in subjects {
            for contents in &contents {
                let to = Addr::at(victim.door.clone(), 1);
                let contents = wire::encode(contents).unwrap();
                peer.send(&sp::frame(&Envelope { contents, ..sp::message(from.clone(), to, subject) }));
            }
        }
        let agent = victim.router.spawn(adder());
        let _entry = agent.register("AddOne").await.unwrap();
        assert_eq!(victim.router.connect().find("AddOne").all().len(), 1);
    });
}

#[test]
fn a_peer_that_shakes_hands_and_says_nothing_is_let_go_over_ipc() {
    scene(async |scene| {
        let victim = Victim::in_scene(scene, false).await;
        let mut peer = Sp::dial(&victim.door);
        let began = std::time::Instant::now();
        assert!(tokio::task::spawn_blocking(move || peer.is_ended()).await.unwrap());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        victim.assert_serves().await;
    });
}
