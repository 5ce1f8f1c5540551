//! A router in a process of its own, which strangers attack: after each attack it answers whoever behaves, and it never held more than its bound.

use std::time::Duration;

use vlmessaging::wire::{self, Encoded, Envelope};
use vlmessaging::{Addr, Connection, DIRECTORY, Endpoint, Limits, Reason, Value};

use crate::common::program::Program;
use crate::common::sp::{self, HANDSHAKE, Sp};
use crate::common::{LONG, Scene, assert_serves, failure, scene};

const MIB: usize = 1 << 20;
/// What a router takes that nobody attacks, and what the allocator keeps of what was given back.
const CALM: usize = 64 * MIB;
const MARKER: [u8; 4] = [0xE0, 1, 0, 0xEA];

/// The router, and a stranger's way to it.
struct Siege {
    victim: Program,
    door: Endpoint,
    asker: Connection,
}

impl Siege {
    async fn lay(scene: &Scene, over_tcp: bool) -> Self {
        let router = scene.network().await;
        let part = if over_tcp { "tcp" } else { "ipc" };
        let at = if over_tcp { "tcp://127.0.0.1:0" } else { "" };
        let victim = Program::start(scene.folder(), part, at);
        let agent = &victim.agent;
        let door = agent.net.clone().filter(|_| over_tcp).or_else(|| agent.machine.clone()).unwrap();
        Self { victim, door, asker: router.connect() }
    }

    fn agent(&self) -> Addr {
        Addr::at(self.door.clone(), self.victim.agent.connection.unwrap())
    }

    /// A message for the agent, of a sender that can be told nothing.
    fn message(&self, subject: &str, contents: Encoded) -> Vec<u8> {
        sp::frame(&Envelope { contents, ..sp::message(Addr::default(), self.agent(), subject) })
    }

    /// It answers who behaves, and held at most so much beyond what it takes when it is calm.
    async fn assert_stands(&self, what: &str, bound: usize) {
        let directory = Addr::at(self.door.clone(), DIRECTORY);
        self.asker.request(directory, "GET_VNETS", (), LONG).await.unwrap();
        match self.asker.request(self.agent(), "ADD_ONE", 41, LONG).await {
            Ok(reply) => assert_eq!(reply.contents::<i64>(), Ok(42)),
            // An agent that deals with nothing has no room for anybody, and says so.
            failed => assert_eq!(failure(failed).reason, Reason::MailboxFull),
        }
        let peak = self.victim.peak_memory();
        println!("{what} at {}: {} MiB at most", self.door, peak / MIB);
        assert!(peak <= CALM + bound, "{what}: it held {} MiB", peak / MIB);
    }
}

/// Runs an attack over ipc and over tcp. It must not take more than `bound` bytes.
#[expect(clippy::needless_pass_by_value, reason = "an attack reads better without a reference")]
fn attack(what: &str, bound: usize, how: impl AsyncFn(&Siege)) {
    for over_tcp in [false, true] {
        scene(async |scene| {
            let mut siege = Siege::lay(scene, over_tcp).await;
            how(&siege).await;
            siege.assert_stands(what, bound).await;
            siege.victim.kill();
            scene.clear_away();
        });
    }
}

/// Sends so often, as fast as it is taken, from a thread: the stranger's socket may be full for long.
async fn flood(door: &Endpoint, frames: Vec<Vec<u8>>, times: usize) {
    let door = door.clone();
    let flooding = tokio::task::spawn_blocking(move || {
        let mut peer = Sp::dial(&door);
        for _ in 0..times {
            for frame in &frames {
                peer.send(frame);
            }
        }
        peer
    });
    drop(tokio::time::timeout(LONG, flooding).await.expect("it takes what comes").unwrap());
}

#[test]
fn a_message_of_64_mebibytes_is_not_taken_in() {
    attack("64 MiB", 4 * Limits::default().message, async |siege| {
        for _ in 0..4 {
            let frame = siege.message("TAKE", wire::encode(&"x".repeat(64 * MIB)).unwrap());
            flood(&siege.door, vec![frame], 1).await;
        }
    });
}

#[test]
fn large_messages_that_nobody_deals_with_fill_their_bound_and_no_more() {
    let limits = Limits::default();
    attack("large messages", limits.unhandled + 4 * limits.message, async |siege| {
        let frame = siege.message("HOLD", wire::encode(&"x".repeat(4 * MIB)).unwrap());
        flood(&siege.door, vec![frame], 200).await;
    });
}

#[test]
fn floods_of_small_messages_fill_a_mailbox_and_no_more() {
    attack("small messages", 64 * MIB, async |siege| {
        flood(&siege.door, vec![siege.message("HOLD", wire::encode(&"x".repeat(100)).unwrap())], 100_000).await;
    });
}

#[test]
fn floods_of_garbage_are_dropped() {
    attack("garbage", 16 * MIB, async |siege| {
        let good = siege.message("PING", Encoded::null());
        let garbage = [&[0xFF; 700][..], &MARKER, b"hello", &[], &good[..good.len() / 2]];
        flood(&siege.door, garbage.iter().map(|bytes| bytes.to_vec()).collect(), 20_000).await;
    });
}

#[test]
fn floods_of_messages_that_cannot_be_answered_are_bounded() {
    attack("unanswerable messages", 64 * MIB, async |siege| {
        let nobody = |n: usize| Addr::at(format!("ipc:///tmp/vlm-no-such-folder/router_{n}").into(), 3);
        let to = |n: usize| Addr { connection: Some(1000 + n as u64), ..siege.agent() };
        let frames = (0..5000).map(|n| sp::frame(&sp::message(nobody(n), to(n), "BUY")));
        flood(&siege.door, frames.collect(), 1).await;
    });
}

#[test]
fn floods_of_hellos_of_routers_that_are_not_there_are_bounded() {
    attack("hellos", 64 * MIB, async |siege| {
        let hellos: Vec<_> = (0..2000)
            .map(|n| sp::hello(&format!("ipc:///tmp/vlm-no-such-folder/router_{n}"), Encoded::empty_struct()))
            .collect();
        let door = siege.door.clone();
        let visiting = tokio::task::spawn_blocking(move || {
            for hello in &hellos {
                Sp::dial(&door).send(hello);
            }
        });
        visiting.await.unwrap();
    });
}

#[test]
fn floods_of_entries_are_bounded() {
    attack("entries", 256 * MIB, async |siege| {
        let to = Addr::at(siege.door.clone(), 1);
        let share = |router: usize, entries: usize| {
            let machine = Endpoint::from(format!("ipc:///tmp/vlm-no-such-folder/router_{router}"));
            let from = Addr::at(machine.clone(), 1);
            let entry = |n: u64| (Addr::at(machine.clone(), n), "Service", (), ["local"], ());
            let entries: Vec<_> = (0..entries as u64).map(entry).collect();
            let contents = wire::encode(&entries).unwrap();
            sp::frame(&Envelope { contents, ..sp::message(from, to.clone(), "SHARE_ENTRIES") })
        };
        flood(&siege.door, vec![share(1, 100_001), share(2, 1000)], 1).await;
        flood(&siege.door, (0..200).map(|router| share(router, 20)).collect(), 1).await;
    });
}

#[test]
fn what_the_directory_is_told_of_others_by_strangers_is_not_believed() {
    attack("forged entries", 16 * MIB, async |siege| {
        let to = Addr::at(siege.door.clone(), 1);
        let own = &siege.victim.agent;
        let claims = [Addr::default(), Addr::local(3), own.clone(), Addr { net: None, ..own.clone() }];
        let entry = wire::encode(&(own, "Forged", (), ["local"], ())).unwrap();
        let addr = wire::encode(own).unwrap();
        let mut peer = Sp::dial(&siege.door);
        for from in claims {
            for (subject, contents) in
                [("REGISTER_ENTRY", &entry), ("UNREGISTER_ENTRY", &entry), ("UNREGISTER_ADDR", &addr)]
            {
                let contents = contents.clone();
                peer.send(&sp::frame(&Envelope { contents, ..sp::message(from.clone(), to.clone(), subject) }));
            }
        }
        let directory = Addr { net: None, ..own.with_connection(DIRECTORY) };
        let told = siege.asker.request(directory, "GET_ENTRIES", (), LONG).await.unwrap();
        let entries = told.contents::<Vec<(Addr, String, Value, Value, Value)>>().unwrap();
        let services: Vec<_> = entries.iter().map(|entry| entry.1.as_str()).collect();
        assert_eq!(services, ["AddOne"]);
    });
}

#[test]
fn unsupported_ion_and_odd_envelopes_cost_themselves() {
    attack("odd Ion", 16 * MIB, async |siege| {
        let message = |contents: &[u8]| {
            let contents = Encoded { bytes: contents.to_vec().into(), symbols: None };
            sp::frame(&Envelope { contents, ..sp::message(Addr::default(), siege.agent(), "TAKE") })
        };
        let version = |major: u8, minor: u8| [&[0xE0, major, minor, 0xEA][..], &message(&[0x0F])[4..]].concat();
        let odd: Vec<Vec<u8>> = vec![
            message(&[0x71, 0x0A]),             // a symbol that no table has
            message(&[0x71, 0x04]),             // a system symbol
            message(&[0x30]),                   // negative zero
            message(&[0x31, 0x00]),             // the same, longer
            message(&[0x83, 0xFF, 0xFE, 0xFD]), // a string that is no UTF-8
            message(&[0xA3, 1, 2, 3]),          // a blob
            message(&[0x92, b'h', b'i']),       // a clob
            message(&[0x52, 0xC1, 0x05]),       // a decimal
            message(&[0x63, 0xC0, 0x0F, 0xE0]), // a timestamp
            message(&[0xE3, 0x81, 0x83, 0xD0]), // an annotation without a value
            message(&[0x4F, 0x0F]),             // a value too many
            message(&[0xBE, 0x8E]),             // a list that ends before it should
            message(&[0xF1]),                   // no type at all
            version(1, 1),
            version(2, 0),
            b"$ion_1_0 \"1\" null null null null null 3 \"PING\" 1 null null {}".to_vec(),
            vec![0xE0, 1, 0],
            [&MARKER[..], &[0x81, b'2']].concat(),
            [&MARKER[..], &[0x21, 1]].concat(),
        ];
        flood(&siege.door, odd, 100).await;
    });
}

#[test]
fn odd_routes_lead_nowhere() {
    attack("odd routes", 64 * MIB, async |siege| {
        let own = siege.door.clone();
        let addr = |net: Option<&str>, machine: Option<&str>, connection| Addr {
            net: net.map(Endpoint::from),
            machine: machine.map(Endpoint::from),
            connection,
        };
        let places = [
            addr(None, None, None),
            addr(None, None, Some(u64::MAX >> 1)),
            addr(None, Some(""), Some(3)),
            addr(None, Some("nonsense"), Some(3)),
            addr(None, Some("tcp://127.0.0.1:1"), Some(3)),
            addr(Some("ipc:///tmp/x"), None, Some(3)),
            addr(Some("tcp://"), Some(own.as_str()), Some(3)),
            addr(Some("tcp://127.0.0.1:99999"), None, Some(3)),
            addr(Some("tcp://no.such.host.invalid:1"), None, Some(3)),
            addr(None, Some("ipc:///"), Some(3)),
            addr(None, Some(&format!("ipc:///{}", "x".repeat(300))), Some(3)),
            addr(None, Some("ws://127.0.0.1:1"), Some(3)),
            addr(Some("tcp://0.0.0.0:1"), None, Some(1)),
            siege.agent(),
        ];
        let mut frames = Vec::new();
        for to in &places {
            for from in &places {
                frames.push(sp::frame(&sp::message(from.clone(), to.clone(), "ADD_ONE")));
                let reply = Envelope { reply_to: Some(1), ..sp::message(from.clone(), to.clone(), "ADD_ONE") };
                frames.push(sp::frame(&reply));
            }
        }
        flood(&siege.door, frames, 20).await;
    });
}

#[test]
fn two_thousand_connections_that_come_and_go_leave_nothing() {
    attack("quick visits", 32 * MIB, async |siege| {
        let door = siege.door.clone();
        let question = siege.message("PING", Encoded::null());
        let before = siege.victim.descriptors();
        let visiting = tokio::task::spawn_blocking(move || {
            for visit in 0..2000 {
                match visit % 4 {
                    0 => drop(Sp::mute(&door)),
                    1 => Sp::mute(&door).write(&HANDSHAKE[..visit % 8]),
                    2 => Sp::mute(&door).write(b"GET / HTTP/1.1\r\n\r\n"),
                    _ => Sp::dial(&door).send(&question),
                }
            }
        });
        visiting.await.unwrap();
        assert_serves(&siege.asker, siege.agent()).await;
        let deadline = std::time::Instant::now() + LONG;
        while siege.victim.descriptors() > before + 4 {
            assert!(std::time::Instant::now() < deadline, "{} descriptors", siege.victim.descriptors());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}
