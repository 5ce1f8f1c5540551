//! Every message ends in one outcome, told to its sender: delivered, refused, or nobody knows.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, AtomicResponse, Context, Handler, WrapFuture};
use tokio::sync::mpsc;
use vlmessaging::wire::{self, Block, Encoded, Envelope, FrameKind, Header, How, Mood, Profile, Receipts};
use vlmessaging::{Addr, Agent, Connection, DeliverError, Handled, Msg, Reason, Router, Value};

use crate::common::agents::{adder, does, fragile, hold};
use crate::common::sp::{self, Sp};
use crate::common::{LONG, Way, assert_serves, each_way, limits, over, reason, scene, soon};

#[test]
fn a_confirmed_message_is_delivered_when_its_handler_is_done_with_it() {
    each_way(async |pair| {
        let (agent, mut held) = hold(&pair.provider);
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        let (waiting, there) = (conn.clone(), to.clone());
        let delivering = actix::spawn(async move { waiting.deliver(&there, "TAKE", 1, LONG).await });
        let msg = held.next().await;
        assert_serves(&conn, pair.reach(&pair.provider.spawn(adder()))).await;
        assert!(!delivering.is_finished(), "it is still in its handler's hands");
        let _handled = msg.handled();
        soon(delivering).await.unwrap().unwrap();

        let answering = pair.reach(&pair.provider.spawn(adder()));
        conn.deliver(&answering, "ADD_ONE", 1, LONG).await.unwrap();
        conn.deliver(&answering, "WHAT", 1, LONG).await.unwrap();
    });
}

#[test]
fn a_confirmed_message_without_a_handler_is_refused_with_reason_and_place() {
    each_way(async |pair| {
        let conn = pair.asker.connect();
        let fragile = pair.reach(&pair.provider.spawn(fragile()));
        let refused = conn.deliver(&fragile, "PANIC", (), LONG).await;
        let Err(DeliverError::Refused(failure)) = refused else { panic!("{refused:?}") };
        assert_eq!((&failure.to, &*failure.subject, failure.reason), (&fragile, "PANIC", Reason::AgentPanicked));
        assert!(!failure.place.is_empty());

        let nobody = Addr { connection: Some(99), ..fragile };
        match conn.deliver(&nobody, "TAKE", "the goods".to_string(), LONG).await {
            Err(DeliverError::NotSent(error)) if pair.way == Way::Here => {
                assert_eq!(error.reason, Reason::NoSuchConnection);
                assert_eq!(error.into_contents().take::<String>().unwrap(), "the goods");
            }
            Err(DeliverError::Refused(failure)) => assert_eq!(failure.reason, Reason::NoSuchConnection),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn refusals_and_deliveries_are_not_mixed_up_however_many_there_are() {
    over(Way::Ipc, async |pair| {
        let agent = pair.provider.spawn(does(|mut msg| match msg.take_contents::<u32>() {
            Ok(n) if n % 3 == 0 => {
                let (handled, msg) = msg.later();
                drop(msg);
                handled
            }
            _ => msg.handled(),
        }));
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        let ends = futures::future::join_all((0..5000_u32).map(|n| conn.deliver(&to, "TAKE", n, LONG))).await;
        for (n, end) in ends.into_iter().enumerate() {
            match end {
                Ok(()) => assert_ne!(n % 3, 0),
                Err(DeliverError::Refused(_)) => assert_eq!(n % 3, 0),
                Err(other) => panic!("{other}"),
            }
        }
    });
}

#[test]
fn nobody_knows_what_becomes_of_a_message_that_its_agent_keeps() {
    each_way(async |pair| {
        let (agent, mut held) = hold(&pair.provider);
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        let unknown = conn.deliver(&to, "TAKE", 1, Duration::from_millis(100)).await;
        let Err(DeliverError::Unknown(failure)) = unknown else { panic!("{unknown:?}") };
        assert_eq!((failure.to, &*failure.subject, failure.reason), (to, "TAKE", Reason::NoOutcome));
        let _handled = held.next().await.handled();
    });
}

#[test]
fn a_message_that_is_kept_for_too_long_is_told_once_and_its_late_end_is_not() {
    scene(async |scene| {
        let impatient = limits(|limits| limits.outcome = Duration::from_millis(200));
        let (a, b) = (scene.start(Router::machine().without_hub().limits(impatient)).await, scene.machine().await);
        let (agent, mut held) = hold(&b);
        let (sender, mut reports) = hold(&a);
        let id = sender.connection().send(&agent, "TAKE", 1).await.unwrap();
        let kept = held.next().await;
        let report = reports.next().await;
        assert_eq!((reason(&report), report.reply_to()), (Reason::NoOutcome, Some(id)));
        drop(kept);
        let id = sender.connection().send(&agent.addr().with_connection(99), "TAKE", 2).await.unwrap();
        let report = reports.next().await;
        assert_eq!((reason(&report), report.reply_to()), (Reason::NoSuchConnection, Some(id)), "nothing came between");

        let conn = a.connect();
        let asked = actix::spawn(async move { conn.request(&agent, "TAKE", 3, LONG).await });
        let request = held.next().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let _handled = request.reply(4);
        assert_eq!(soon(asked).await.unwrap().unwrap().contents(), Ok(4), "a request has a limit of its own");
    });
}

#[test]
fn a_message_that_cannot_leave_in_time_is_told() {
    scene(async |scene| {
        let impatient = limits(|limits| limits.outcome = Duration::from_millis(200));
        let a = scene.start(Router::machine().without_hub().limits(impatient)).await;
        let mute = scene.ipc("mute");
        let listener = sp::listen(&mute);
        let (sender, mut reports) = hold(&a);
        for _ in 0..100 {
            sender.connection().send(Addr::at(mute.clone(), 3), "TAKE", "x".repeat(30_000)).await.unwrap();
        }
        assert_eq!(reason(&reports.next().await), Reason::Expired);
        drop(listener);
        std::fs::remove_file(scene.folder().join("mute")).unwrap();
    });
}

#[test]
fn an_agent_elsewhere_that_is_slower_than_its_sender_makes_it_wait_and_nobody_else() {
    for way in [Way::Ipc, Way::Tcp, Way::Undialed] {
        over(way, async |pair| {
            let (slow, mut held) = hold(&pair.provider);
            let quick = pair.reach(&pair.provider.spawn(adder()));
            let (conn, to) = (pair.asker.connect(), pair.reach(&slow));
            assert_serves(&conn, &quick).await;
            let ahead = 8192;
            for n in 0..ahead {
                conn.try_send(&to, "TAKE", n).unwrap();
            }
            let refused = conn.try_send(&to, "TAKE", "the goods".to_string()).unwrap_err();
            assert_eq!(refused.reason, Reason::MailboxFull);
            assert_eq!(refused.into_contents().take::<String>().unwrap(), "the goods");
            assert_serves(&conn, &quick).await;

            let waiting = conn.clone();
            let sending = actix::spawn(async move {
                for n in ahead..ahead + 500 {
                    waiting.send(&to, "TAKE", n).await.unwrap();
                }
            });
            for n in 0..ahead + 500 {
                let mut msg = held.next().await;
                assert_eq!(msg.take_contents(), Ok(n));
                let _handled = msg.handled();
            }
            soon(sending).await.unwrap();
        });
    }
}

/// Passes on what it gets before it takes the next, and tells whether it could.
struct Ring {
    connection: Option<Connection>,
    next: Rc<RefCell<Addr>>,
    told: mpsc::UnboundedSender<bool>,
}

impl Actor for Ring {
    type Context = Context<Self>;
}

impl Agent for Ring {
    fn started(&mut self, connection: Connection, _: &mut Context<Self>) {
        self.connection = Some(connection);
    }
}

impl Handler<Msg> for Ring {
    type Result = AtomicResponse<Self, Handled>;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Self::Result {
        let (conn, next, told) = (self.connection.clone().unwrap(), self.next.borrow().clone(), self.told.clone());
        let passing = async move {
            told.send(conn.send(&next, "TAKE", ()).await.is_ok()).unwrap();
            msg.handled()
        };
        AtomicResponse::new(Box::pin(passing.into_actor(self)))
    }
}

#[test]
fn agents_that_wait_for_each_others_room_in_a_circle_are_told_and_go_on() {
    scene(async |scene| {
        let tight = || {
            Router::machine().without_hub().limits(limits(|limits| {
                limits.mailbox = 2;
                limits.room = Duration::from_millis(200);
            }))
        };
        let (a, b) = (scene.start(tight()).await, scene.start(tight()).await);
        for (first, second) in [(&a, &a), (&a, &b)] {
            let (told, mut tells) = mpsc::unbounded_channel();
            let next = [Rc::default(), Rc::default()];
            let ring = |next: &Rc<RefCell<Addr>>| Ring { connection: None, next: next.clone(), told: told.clone() };
            let (one, two) = (first.spawn(ring(&next[0])), second.spawn(ring(&next[1])));
            let (one_at, two_at) = (one.addr(), two.addr());
            *next[0].borrow_mut() = two_at.clone();
            *next[1].borrow_mut() = one_at.clone();
            let (at_first, at_second) = (first.connect(), second.connect());
            // More than both mailboxes hold, by the way that the circle takes itself: each that is taken makes another.
            let fill = || {
                let full = |conn: &Connection, to: Addr| while conn.try_send(&to, "TAKE", ()).is_ok() {};
                full(&at_second, one_at.clone());
                full(&at_first, two_at.clone());
            };
            fill();
            while soon(tells.recv()).await.unwrap() {
                fill();
            }
            // Told that there was no room, the agent takes the next.
            soon(tells.recv()).await.unwrap();
            one.stop();
            two.stop();
        }
    });
}

/// What a peer says of itself when it introduces itself.
fn introduction(at: &str, echo: Value) -> Vec<u8> {
    let vlm = Value::from([
        ("version", Value::from(3)),
        ("incarnation", Value::from(77)),
        ("limit", Value::from(1 << 20)),
        ("mailbox", Value::from(1000)),
        ("at", Value::from(at)),
        ("token", Value::from(5)),
        ("echo", echo),
    ]);
    sp::hello(at, wire::encode(&Value::from([("vlm", vlm)])).unwrap())
}

#[test]
fn a_message_in_a_frame_that_cannot_be_read_is_told_to_the_router_that_sent_it() {
    scene(async |scene| {
        let victim = scene.machine().await;
        let (door, at) = (victim.endpoints()[0].clone(), scene.ipc("peer"));
        let listener = sp::listen(&at);
        victim.connect().try_send(Addr::at(at.clone(), 3), "TAKE", 1).unwrap();
        let talk = move || {
            let mut hears = Sp::accept(&listener);
            let hello = wire::read_message(&hears.receive().unwrap(), Profile::Rust).unwrap();
            let meta: Value = wire::decode(&hello.meta).unwrap();
            let vlm = meta.get("vlm").unwrap();
            let (Some(Value::Int(to)), Some(token)) = (vlm.get("incarnation"), vlm.get("token")) else { panic!() };
            let mut says = Sp::dial(&door);
            says.send(&introduction(at.as_str(), token.clone()));
            let to = u64::try_from(*to).unwrap();
            let header = Header {
                from: 77,
                to,
                session: 9,
                heard: 0,
                mood: Mood::default(),
                first: 0,
                receipts: Receipts::new(),
            };
            let contents = Encoded { bytes: bytes::Bytes::from_static(b"what is this?"), symbols: None };
            let mut block = Block::default();
            let unreadable = sp::message(Addr::default(), Addr::local(3), "TAKE");
            block.push(&Envelope { contents, ..unreadable }, None);
            says.send(&wire::write_frame(&header, &block));
            loop {
                let frame = hears.receive().expect("the router has hung up");
                if wire::kind(&frame) != FrameKind::Link {
                    continue;
                }
                let (header, _) = wire::read_frame(&frame).unwrap();
                if let Some(receipt) = header.receipts.iter().find(|receipt| receipt.accepted == 1) {
                    return receipt.clone();
                }
            }
        };
        let receipt = soon(tokio::task::spawn_blocking(talk)).await.unwrap();
        assert_eq!(receipt.settled, 1);
        assert_eq!(receipt.failed.iter().map(|failed| failed.how).collect::<Vec<_>>(), [How::Unread]);
        std::fs::remove_file(scene.folder().join("peer")).unwrap();
    });
}

#[test]
fn a_router_that_shuts_down_deals_with_what_it_has_and_refuses_what_is_new() {
    each_way(async |pair| {
        if pair.way == Way::Here {
            return;
        }
        let (agent, mut held) = hold(&pair.provider);
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        let (waiting, there) = (conn.clone(), to.clone());
        let asked = actix::spawn(async move { waiting.request(&there, "BUY", 1, LONG).await });
        let request = held.next().await;
        let ending = pair.provider.clone();
        let ending = actix::spawn(async move { ending.shutdown().await });
        // The first that is refused has heard of it.
        loop {
            match conn.deliver(&to, "BUY", "the goods".to_string(), Duration::from_millis(50)).await {
                Err(DeliverError::NotSent(error)) => {
                    assert_eq!(error.reason, Reason::ShuttingDown);
                    assert_eq!(error.into_contents().take::<String>().unwrap(), "the goods");
                    break;
                }
                Err(DeliverError::Refused(failure)) => assert_eq!(failure.reason, Reason::ShuttingDown),
                Err(DeliverError::Unknown(failure)) => assert_eq!(failure.reason, Reason::NoOutcome),
                other => panic!("nobody handles it: {other:?}"),
            }
        }
        let _handled = request.reply("sold");
        assert_eq!(soon(asked).await.unwrap().unwrap().contents::<String>().unwrap(), "sold");
        soon(ending).await.unwrap();
        drop(held);
    });
}

/// What was sent and what came of it, by number.
#[derive(Default)]
struct Journal {
    sent: Cell<u32>,
    delivered: RefCell<BTreeSet<u32>>,
    refused: RefCell<BTreeSet<u32>>,
    unknown: RefCell<BTreeMap<u32, String>>,
    handled: RefCell<Vec<u32>>,
}

#[test]
fn nothing_is_lost_when_three_routers_under_load_are_restarted_in_turn() {
    scene(async |scene| {
        let journal = Rc::new(Journal::default());
        let serve = |router: &Router| {
            let journal = journal.clone();
            router.spawn(does(move |mut msg: Msg| {
                journal.handled.borrow_mut().push(msg.take_contents().unwrap());
                msg.handled()
            }))
        };
        let mut routers = Vec::new();
        for _ in 0..3 {
            let router = scene.machine().await;
            let addr = serve(&router).addr();
            routers.push((router, addr));
        }
        let stop = Rc::new(Cell::new(false));
        let clients = scene.machine().await;
        let sending: Vec<_> = (0..30)
            .map(|n| {
                let (conn, journal, stop) = (clients.connect(), journal.clone(), stop.clone());
                let to = routers[n % 3].1.clone();
                actix::spawn(async move {
                    while !stop.get() {
                        let number = journal.sent.replace(journal.sent.get() + 1);
                        let end = match conn.deliver(&to, "TAKE", number, LONG).await {
                            Ok(()) => &journal.delivered,
                            Err(DeliverError::NotSent(_) | DeliverError::Refused(_)) => &journal.refused,
                            Err(other) => {
                                journal.unknown.borrow_mut().insert(number, other.to_string());
                                continue;
                            }
                        };
                        end.borrow_mut().insert(number);
                        // One who is refused looks for another before long.
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                })
            })
            .collect();
        for (router, addr) in &mut routers {
            let before = journal.delivered.borrow().len();
            crate::common::until("there is load", || journal.delivered.borrow().len() > before + 300).await;
            router.shutdown().await;
            *router = scene.machine().await;
            assert_eq!(serve(router).addr(), *addr, "it is back where it was");
        }
        let before = journal.delivered.borrow().len();
        crate::common::until("all are served again", || journal.delivered.borrow().len() > before + 300).await;
        stop.set(true);
        for sender in sending {
            soon(sender).await.unwrap();
        }
        let (delivered, refused) = (journal.delivered.take(), journal.refused.take());
        let handled = journal.handled.take();
        let once: BTreeSet<_> = handled.iter().copied().collect();
        assert_eq!(handled.len(), once.len(), "handled twice");
        assert_eq!(journal.unknown.take(), BTreeMap::new(), "their fate is not known");
        assert_eq!(delivered.len() + refused.len(), journal.sent.get() as usize);
        assert_eq!(delivered, once, "delivered means handled, and refused means not");
    });
}
