//! What a link decides, event by event, at times that the tests choose.

use std::time::{Duration, Instant};

use bytes::Bytes;
use smol_str::SmolStr;

use super::hello::{Greeting, Hello, VERSION};
use super::*;
use crate::addr::Addr;
use crate::transport::{DialError, PipeId};
use crate::wire::{self, Encoded};

const PEER: &str = "ipc:///tmp/router_2";

/// A link under test, with its time and what it has said to do.
struct Bench {
    link: Link,
    now: Instant,
    acts: Vec<Act>,
    pipes: u64,
}

impl Bench {
    fn new(dial: bool) -> Self {
        let me = Me {
            incarnation: 1,
            message: 10_000,
            mailbox: 100,
            window: 50_000,
            ahead: 20,
            outcome: Duration::from_mins(1),
            introduction: Duration::from_millis(250),
        };
        let now = Instant::now();
        let link = Link::new(me, PEER.into(), dial.then(|| PEER.into()), 42, now);
        Self { link, now, acts: Vec::new(), pipes: 0 }
    }

    /// A link that has sent its hello and been answered by incarnation 2.
    fn introduced() -> Self {
        let mut bench = Self::new(true);
        bench.link.reach(bench.now, &mut bench.acts);
        bench.open(false);
        bench.drain();
        bench.prove(2);
        bench.drain();
        bench.acts.clear();
        bench
    }

    fn push(&mut self, size: usize) -> Result<(), NotTaken> {
        self.push_contents(wire::encode(&"x".repeat(size)).unwrap())
    }

    fn push_contents(&mut self, contents: Encoded) -> Result<(), NotTaken> {
        self.push_to(3, contents)
    }

    fn push_to(&mut self, connection: u64, contents: Encoded) -> Result<(), NotTaken> {
        let envelope = Envelope {
            from: Addr::local(3),
            to: Addr::at(PEER.into(), connection),
            subject: SmolStr::new_static("EVENT"),
            id: Some(1),
            reply_to: None,
            contents: Encoded::null(),
            meta: Encoded::empty_struct(),
        };
        self.link.take(&mut Some(Msg::of(envelope)), contents.lend(), self.now)?;
        self.link.go_on(self.now, &mut self.acts);
        Ok(())
    }

    fn open(&mut self, accepted: bool) -> PipeId {
        self.pipes += 1;
        let pipe = PipeId(self.pipes);
        self.link.dialing(pipe, self.now);
        let way =
            Way { pipe, accepted, lossless: false, claimed: "ipc:///tmp/router_1".into(), listens: true, net: None };
        self.link.opened(way, self.now, &mut self.acts);
        pipe
    }

    fn prove(&mut self, incarnation: u64) {
        let hello = Hello { echo: self.link.token(), ..hello(incarnation) };
        self.link.proven(&hello, PipeId(100 + self.pipes), self.now, &mut self.acts);
    }

    /// The peer says that it has accepted, and settled, all below this number.
    fn ack(&mut self, upto: u64) {
        self.receipt(upto, upto);
    }

    fn receipt(&mut self, accepted: u64, settled: u64) {
        let session = self.link.session();
        let receipt = Receipt { session, version: 1, accepted, settled, beyond: Vec::new(), failed: Vec::new() };
        self.link.receipt(&receipt, self.now, &mut self.acts);
    }

    fn after(&mut self, time: Duration) {
        self.now += time;
        self.link.tick(self.now, &mut self.acts);
    }

    /// The frames sent until the link has nothing more to send, each handed on at once.
    fn drain(&mut self) -> Vec<Bytes> {
        let mut frames = Vec::new();
        while let Some(index) = self.acts.iter().position(|act| matches!(act, Act::Send(..))) {
            let Act::Send(pipe, frame) = self.acts.remove(index) else { unreachable!() };
            frames.push(frame);
            self.link.sent(pipe, self.now, &mut self.acts);
        }
        frames
    }

    /// The numbered messages sent: number of the first, and how many.
    fn numbers(&mut self) -> Vec<(u64, usize)> {
        let links = self.drain().into_iter().filter(|frame| wire::kind(frame) == wire::FrameKind::Link);
        links
            .map(|frame| wire::read_frame(&frame).unwrap())
            .map(|(header, messages)| (header.first, messages.len()))
            .collect()
    }

    fn lost(&mut self) -> Vec<Reason> {
        let is_lost = |act: &mut Act| matches!(act, Act::Lost(..));
        self.acts
            .extract_if(.., is_lost)
            .map(|act| if let Act::Lost(_, reason) = act { reason } else { unreachable!() })
            .collect()
    }

    fn dials(&mut self) -> usize {
        self.acts.extract_if(.., |act| matches!(act, Act::Dial(_))).count()
    }
}

fn hello(incarnation: u64) -> Hello {
    let at = Some(PEER.into());
    Hello { version: VERSION, incarnation, limit: 20_000, mailbox: 30, at, token: 7, echo: None }
}

fn subjects(frames: &[Bytes]) -> Vec<String> {
    frames.iter().map(|frame| wire::read_message(frame, Profile::Rust).unwrap().subject.to_string()).collect()
}

#[test]
fn the_first_message_dials_and_follows_the_hello_at_once() {
    let mut bench = Bench::new(true);
    bench.push(1).unwrap();
    assert_eq!(bench.dials(), 1);
    bench.open(false);
    assert_eq!(subjects(&bench.drain()), ["SET_ROUTE_BACK_TO_ME", "EVENT"]);
    bench.after(Duration::from_millis(250));
    assert!(bench.link.is_idle(), "it is Python: nothing more is to be learned");
}

#[test]
fn a_message_sent_before_the_introduction_is_numbered_and_settled_like_the_others() {
    for accepted in [true, false] {
        let mut bench = Bench::new(true);
        bench.push(1).unwrap();
        let pipe = bench.open(false);
        let mut first = wire::read_message(&bench.drain()[1], Profile::Rust).unwrap();
        assert_eq!(wire::take_mark(&mut first.meta), Some([1, bench.link.session(), 0]));
        bench.prove(2);
        bench.push(1).unwrap();
        assert_eq!(bench.numbers(), [(1, 1)]);
        if accepted {
            bench.receipt(2, 0);
        }
        bench.link.closed(pipe, bench.now, &mut bench.acts);
        bench.open(false);
        bench.drain();
        bench.prove(2);
        assert_eq!(bench.numbers(), if accepted { vec![] } else { vec![(0, 1), (1, 1)] });
        bench.prove(3);
        assert_eq!(bench.lost(), [Reason::PeerLost, Reason::PeerLost], "accepted is not settled");
    }
}

#[test]
fn an_introduced_peer_is_sent_numbered_messages() {
    let mut bench = Bench::introduced();
    bench.push(1).unwrap();
    bench.push(1).unwrap();
    assert_eq!(bench.numbers(), [(0, 1), (1, 1)]);
    assert!(!bench.link.is_idle());
    bench.ack(2);
    assert!(bench.link.is_idle());
}

#[test]
fn a_message_that_was_answered_is_not_reported_when_its_receiver_goes() {
    let mut bench = Bench::new(true);
    bench.push(1).unwrap();
    let pipe = bench.open(false);
    bench.drain();
    let now = bench.now;
    bench.link.answered(Some(3), 1, true, now, &mut bench.acts);
    bench.link.closed(pipe, bench.now, &mut bench.acts);
    assert!(bench.lost().is_empty());
}

#[test]
fn a_peer_that_answers_our_first_message_without_a_number_is_python_and_has_read_our_hello() {
    for numbered in [true, false] {
        let mut bench = Bench::new(true);
        bench.push(1).unwrap();
        bench.open(false);
        bench.drain();
        let now = bench.now;
        bench.link.answered(Some(3), 99, numbered, now, &mut bench.acts);
        assert!(bench.link.open_towards_python().is_some(), "that was no answer to the first");
        bench.link.answered(Some(3), 1, numbered, now, &mut bench.acts);
        assert!(bench.link.open_towards_python().is_none());
        assert_eq!(bench.acts.iter().any(|act| matches!(act, Act::Python)), !numbered);
    }
}

#[test]
fn messages_that_wait_for_the_pipe_share_a_frame() {
    let mut bench = Bench::introduced();
    for _ in 0..4 {
        bench.push(1).unwrap();
    }
    assert_eq!(bench.numbers(), [(0, 1), (1, 3)]);
}

#[test]
fn what_python_cannot_read_waits_for_the_introduction() {
    let mut bench = Bench::new(true);
    let blob = Encoded { bytes: Bytes::from_static(b"\xA1x"), symbols: None };
    bench.push_contents(blob.clone()).unwrap();
    bench.open(false);
    assert_eq!(subjects(&bench.drain()), ["SET_ROUTE_BACK_TO_ME"]);
    bench.prove(2);
    assert_eq!(bench.numbers(), [(0, 1)]);

    let mut bench = Bench::new(true);
    bench.push_contents(blob.clone()).unwrap();
    bench.open(false);
    bench.drain();
    assert_eq!(bench.link.deadline(), Some(bench.now + Duration::from_millis(250)));
    bench.after(Duration::from_millis(250));
    let lost = bench.lost();
    assert!(matches!(&lost[..], [Reason::NotEncodable(what)] if what.contains("blob at contents")), "{lost:?}");
    let refused = bench.push_contents(blob).unwrap_err();
    assert!(matches!(refused, NotTaken { reason: Reason::NotEncodable(_), full: false, .. }));
}

#[test]
fn the_window_is_a_bound_and_one_larger_message_travels_alone() {
    let mut bench = Bench::introduced();
    while bench.push(9_000).is_ok() {}
    let refused = bench.push(9_000).unwrap_err();
    assert!(refused.full);
    let sent: usize = bench.numbers().iter().map(|(_, count)| count).sum();
    bench.ack(sent as u64);
    assert!(bench.push(9_000).is_ok());
    let refused = bench.push(30_000).unwrap_err();
    assert!(matches!(refused, NotTaken { reason: Reason::TooLarge { limit: 20_000, .. }, full: false, .. }));
}

#[test]
fn messages_to_one_destination_leave_room_for_others_and_are_no_more_than_half_its_mailbox() {
    let mut bench = Bench::introduced();
    for _ in 0..15 {
        bench.push_to(3, Encoded::null()).unwrap();
    }
    let refused = bench.push_to(3, Encoded::null()).unwrap_err();
    assert!(refused.full && refused.reason == Reason::MailboxFull);
    bench.push_to(4, Encoded::null()).unwrap();
    bench.drain();
    bench.receipt(16, 0);
    assert!(bench.push_to(3, Encoded::null()).is_err(), "accepted is not settled");
    bench.receipt(16, 1);
    bench.acts.clear();
    bench.push_to(3, Encoded::null()).unwrap();
    assert!(bench.push_to(3, Encoded::null()).is_err());
}

#[test]
fn what_has_no_outcome_in_time_is_told_once_and_what_was_never_sent_is_given_up() {
    let mut bench = Bench::new(true);
    bench.push(1).unwrap();
    assert_eq!(bench.link.deadline(), Some(bench.now + Duration::from_mins(1)));
    bench.after(Duration::from_mins(1));
    assert_eq!(bench.lost(), [Reason::Expired]);

    let mut bench = Bench::introduced();
    bench.push(1).unwrap();
    bench.drain();
    for _ in 0..70 {
        bench.receipt(1, 0);
        bench.link.heard(Mood::default(), bench.now, &mut bench.acts);
        bench.after(Duration::from_secs(1));
        bench.drain();
    }
    let overdue = bench.acts.extract_if(.., |act| matches!(act, Act::Overdue(_))).count();
    assert_eq!((overdue, bench.lost().len()), (1, 0));
    bench.link.give_up(Reason::PeerLost, &mut bench.acts);
    assert_eq!(bench.lost(), [], "it has been told");
}

#[test]
fn a_cut_pipe_is_dialed_again_and_only_the_unacknowledged_comes_again() {
    let mut bench = Bench::introduced();
    for _ in 0..3 {
        bench.push(1).unwrap();
        bench.drain();
    }
    bench.ack(1);
    bench.drain();
    bench.link.closed(PipeId(1), bench.now, &mut bench.acts);
    assert_eq!(bench.dials(), 1);
    bench.push(1).unwrap();
    bench.open(false);
    assert_eq!(subjects(&bench.drain()), ["SET_ROUTE_BACK_TO_ME"], "nothing overtakes what may have to come again");
    bench.prove(2);
    assert_eq!(bench.numbers(), [(1, 1), (2, 1)]);
    bench.ack(3);
    assert_eq!(bench.numbers(), [(3, 1)]);
    assert!(bench.lost().is_empty());
}

#[test]
fn another_incarnation_has_lost_what_was_not_acknowledged() {
    let mut bench = Bench::introduced();
    let session = bench.link.session();
    bench.push(1).unwrap();
    bench.drain();
    bench.link.closed(PipeId(1), bench.now, &mut bench.acts);
    bench.push(1).unwrap();
    bench.open(false);
    bench.drain();
    bench.prove(3);
    assert_eq!(bench.lost(), [Reason::PeerLost]);
    assert_ne!(bench.link.session(), session);
    assert_eq!(bench.numbers(), [(0, 1)], "what was never sent goes to the new one");
}

#[test]
fn a_refused_dial_tells_what_was_never_sent_apart() {
    let mut bench = Bench::introduced();
    bench.push(1).unwrap();
    bench.drain();
    bench.link.closed(PipeId(1), bench.now, &mut bench.acts);
    bench.push(1).unwrap();
    bench.link.dialing(PipeId(2), bench.now);
    bench.link.dial_failed(PipeId(2), &DialError::Refused, bench.now, &mut bench.acts);
    let lost = bench.lost();
    assert!(matches!(&lost[..], [Reason::PeerLost, Reason::DialFailed(_)]), "{lost:?}");
    assert!(bench.link.is_spent());
}

#[test]
fn a_frame_that_the_transport_gives_back_was_not_sent() {
    let mut bench = Bench::introduced();
    bench.push(1).unwrap();
    let Some(Act::Send(_, frame)) = bench.acts.pop() else { panic!("nothing was sent") };
    bench.link.bounced(PipeId(1), &frame, bench.now, &mut bench.acts);
    bench.link.closed(PipeId(1), bench.now, &mut bench.acts);
    bench.link.dialing(PipeId(2), bench.now);
    bench.link.dial_failed(PipeId(2), &DialError::Refused, bench.now, &mut bench.acts);
    assert!(matches!(&bench.lost()[..], [Reason::DialFailed(_)]));
}

#[test]
fn a_pipe_of_the_peer_that_has_ended_unnoticed_is_not_waited_on() {
    let mut bench = Bench::introduced();
    let way = |pipe| Way {
        pipe,
        accepted: true,
        lossless: false,
        claimed: "tcp://10.0.0.1:1".into(),
        listens: true,
        net: Some("tcp://10.0.0.1:1".into()),
    };
    let greeting = Greeting { claimed: PEER.into(), hello: Some(hello(2)) };
    bench.link.greeted(&greeting, way(PipeId(9)), bench.now, &mut bench.acts);
    bench.drain();
    bench.link.closed(PipeId(1), bench.now, &mut bench.acts);
    bench.link.dialing(PipeId(2), bench.now);
    bench.link.dial_failed(PipeId(2), &DialError::Refused, bench.now, &mut bench.acts);
    bench.push(1).unwrap();
    let Some(Act::Send(PipeId(9), frame)) = bench.acts.pop() else { panic!("its pipe is taken") };
    bench.link.bounced(PipeId(9), &frame, bench.now, &mut bench.acts);
    assert!(matches!(bench.acts.pop(), Some(Act::Dial(_))));
    bench.link.dialing(PipeId(3), bench.now);
    bench.link.dial_failed(PipeId(3), &DialError::Refused, bench.now, &mut bench.acts);
    assert!(matches!(&bench.lost()[..], [Reason::DialFailed(_)]));
}

#[test]
fn what_follows_a_slow_dial_waits_for_the_peers_word() {
    let mut bench = Bench::new(true);
    bench.push(1).unwrap();
    bench.link.dialing(PipeId(1), bench.now);
    bench.now += SLOW_DIAL;
    let way = Way {
        pipe: PipeId(1),
        accepted: false,
        lossless: false,
        claimed: "ipc:///tmp/router_1".into(),
        listens: true,
        net: None,
    };
    bench.link.opened(way.clone(), bench.now, &mut bench.acts);
    assert_eq!(subjects(&bench.drain()), ["SET_ROUTE_BACK_TO_ME"]);
    // The peer hung up: nothing of it is in doubt.
    bench.link.closed(PipeId(1), bench.now, &mut bench.acts);
    assert!(bench.lost().is_empty());
    bench.link.dialing(PipeId(2), bench.now);
    bench.link.opened(Way { pipe: PipeId(2), ..way }, bench.now, &mut bench.acts);
    assert_eq!(subjects(&bench.drain()), ["SET_ROUTE_BACK_TO_ME", "EVENT"]);
}

#[test]
fn a_python_router_at_the_endpoint_of_a_rust_one_gets_no_frames() {
    let mut bench = Bench::introduced();
    bench.push(1).unwrap();
    bench.drain();
    bench.link.closed(PipeId(1), bench.now, &mut bench.acts);
    bench.open(false);
    bench.push(1).unwrap();
    assert_eq!(subjects(&bench.drain()), ["SET_ROUTE_BACK_TO_ME"]);
    bench.after(DEAD);
    assert_eq!(bench.lost(), [Reason::PeerLost, Reason::PeerLost]);
    bench.push(1).unwrap();
    bench.open(false);
    assert_eq!(subjects(&bench.drain()), ["SET_ROUTE_BACK_TO_ME", "EVENT"]);
}

#[test]
fn a_pipe_that_the_peer_dialed_has_two_frames_on_their_way_and_plain_ones_paced() {
    let mut bench = Bench::new(false);
    let way = Way {
        pipe: PipeId(9),
        accepted: true,
        lossless: false,
        claimed: "tcp://a:1".into(),
        listens: false,
        net: Some("tcp://a:1".into()),
    };
    let greeting = Greeting { claimed: PEER.into(), hello: None };
    bench.link.greeted(&greeting, way.clone(), bench.now, &mut bench.acts);
    bench.push(1).unwrap();
    bench.push(1).unwrap();
    assert_eq!(subjects(&bench.drain()), ["EVENT"], "Python's own hello is not answered");
    bench.after(PACE);
    assert_eq!(subjects(&bench.drain()), ["EVENT"]);

    let greeting = Greeting { claimed: PEER.into(), hello: Some(hello(2)) };
    bench.link.greeted(&greeting, way, bench.now, &mut bench.acts);
    bench.prove(2);
    bench.drain();
    let mut sent = Vec::new();
    for _ in 0..5 {
        bench.push(1).unwrap();
        sent.extend(bench.numbers());
    }
    assert_eq!(sent, [(0, 1), (1, 1)], "Python's were not numbered");
    bench.ack(1);
    assert_eq!(bench.numbers(), [(2, 3)], "the others waited and share the next");
}

#[test]
fn a_receipt_travels_with_a_message_or_after_a_moment() {
    let mut bench = Bench::introduced();
    let inflow = Arc::new(Mutex::new(Inflow::default()));
    let owe = |bench: &mut Bench, urgent| {
        inflow.lock().receive(0, 5);
        bench.link.owe(77, &inflow, 10, urgent, bench.now, &mut bench.acts);
    };
    owe(&mut bench, false);
    assert!(bench.drain().is_empty());
    bench.push(1).unwrap();
    let (header, _) = wire::read_frame(&bench.drain()[0]).unwrap();
    assert_eq!((header.receipts[0].session, header.receipts[0].accepted), (77, 5));

    owe(&mut bench, false);
    assert_eq!(bench.link.deadline(), Some(bench.now + ACK_DELAY));
    bench.after(ACK_DELAY);
    let (header, messages) = wire::read_frame(&bench.drain()[0]).unwrap();
    assert_eq!((header.receipts.len(), messages.len()), (1, 0));

    owe(&mut bench, true);
    assert_eq!(bench.drain().len(), 1, "urgent");
}

#[test]
fn a_silent_peer_is_asked_every_second_and_gone_after_three_and_a_half() {
    let mut bench = Bench::introduced();
    bench.push(1).unwrap();
    bench.drain();
    let mut asked = 0;
    for _ in 0..7 {
        bench.after(DEAD / 7);
        asked += bench.drain().len();
    }
    assert_eq!(asked, 3);
    assert_eq!(bench.lost(), [Reason::PeerLost]);
    assert!(bench.acts.iter().any(|act| matches!(act, Act::Gone(Reason::PeerLost))));
    assert!(bench.link.is_spent());
}

#[test]
fn a_peer_that_answers_lives_and_one_that_froze_for_two_seconds_too() {
    let mut bench = Bench::introduced();
    for silence in [1000, 1000, 2000, 3400, 1000] {
        for _ in 0..silence / 100 {
            bench.after(Duration::from_millis(100));
            bench.drain();
        }
        bench.link.heard(Mood::default(), bench.now, &mut bench.acts);
    }
    assert!(!bench.acts.iter().any(|act| matches!(act, Act::Gone(_))));
}

#[test]
fn a_peer_that_is_heard_is_answered_also_when_nobody_moves_the_clock() {
    let mut bench = Bench::introduced();
    let mut said = 0;
    for _ in 0..35 {
        bench.now += Duration::from_millis(100);
        bench.link.heard(Mood::default(), bench.now, &mut bench.acts);
        said += bench.drain().len();
    }
    assert_eq!(said, 3);
}

#[test]
fn a_router_that_slept_itself_does_not_blame_its_peers() {
    let mut bench = Bench::introduced();
    bench.after(Duration::from_mins(1));
    assert!(!bench.acts.iter().any(|act| matches!(act, Act::Gone(_))));
    bench.drain();
    for _ in 0..7 {
        bench.after(DEAD / 7);
    }
    assert!(bench.acts.iter().any(|act| matches!(act, Act::Gone(_))), "it is given one more chance, not two");
}

#[test]
fn a_link_that_owes_a_receipt_is_not_idle() {
    let mut bench = Bench::introduced();
    let inflow = Arc::new(Mutex::new(Inflow::default()));
    inflow.lock().receive(0, 1);
    bench.link.owe(77, &inflow, 10, false, bench.now, &mut bench.acts);
    assert!(!bench.link.is_idle(), "the peer would take its message for lost");
    bench.after(ACK_DELAY);
    assert_eq!(bench.drain().len(), 1);
    assert!(bench.link.is_idle());
}
