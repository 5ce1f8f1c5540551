//! What every transport promises.

use std::time::{Duration, Instant};

use vlmessaging::transport::{DialError, Event, ListenError, Options, Origin, SendError};
use vlmessaging::{Endpoint, Scheme, Sockets};

use crate::world::{Kind, PATIENCE, Peer, World, connect, connect_to};

macro_rules! contract {
    ($($name:ident)*) => {
        mod memory { $(#[test] fn $name() { super::$name(&super::World::simulated()); })* }
        #[cfg(feature = "nng")]
        mod nng {
            use super::{World, Kind, Sockets};
            mod ipc { $(#[test] fn $name() { super::super::$name(&super::World::with(super::Sockets::Nng, super::Kind::Ipc)); })* }
            mod tcp { $(#[test] fn $name() { super::super::$name(&super::World::with(super::Sockets::Nng, super::Kind::Tcp)); })* }
        }
        #[cfg(feature = "sp")]
        mod sp {
            use super::{World, Kind, Sockets};
            mod ipc { $(#[test] fn $name() { super::super::$name(&super::World::with(super::Sockets::Sp, super::Kind::Ipc)); })* }
            mod tcp { $(#[test] fn $name() { super::super::$name(&super::World::with(super::Sockets::Sp, super::Kind::Tcp)); })* }
            mod on_an_arbiter {
                use super::{World, Kind, Sockets};
                mod ipc { $(#[test] fn $name() { super::super::super::$name(&super::World::on_an_arbiter(super::Sockets::Sp, super::Kind::Ipc)); })* }
                mod tcp { $(#[test] fn $name() { super::super::super::$name(&super::World::on_an_arbiter(super::Sockets::Sp, super::Kind::Tcp)); })* }
            }
        }
    };
}

contract! {
    both_sides_are_told_who_began
    frames_arrive_in_order_both_ways
    frames_of_any_length_arrive_whole
    a_second_frame_before_sent_comes_back
    a_frame_for_a_pipe_that_is_gone_comes_back
    a_dial_to_nobody_is_refused_at_once
    an_endpoint_of_no_transport_is_invalid
    a_mute_peer_is_timed_out
    a_close_is_told_on_both_sides
    the_end_of_a_peer_is_told
    a_frame_that_is_too_long_ends_its_pipe_only
    many_peers_do_not_disturb_each_other
    a_second_dial_gives_a_new_pipe
    a_shutdown_ends_everything_in_silence
    a_dial_that_is_closed_has_one_outcome
    a_listener_takes_several_endpoints
    an_endpoint_in_use_is_refused
    a_dialer_that_is_closed_while_the_peer_talks_is_told_once
    a_sink_may_call_back
    a_sink_may_shut_down
}

fn both_sides_are_told_who_began(world: &World) {
    let (a, b) = (world.peer(), world.peer());
    let at = b.listen();
    let pipe = a.dial(&at);
    let Event::Opened { pipe: opened, origin, local, remote, pid } = a.next() else {
        panic!("not opened");
    };
    let Event::Opened { origin: came, local: here, remote: there, pid: whose, .. } = b.next() else {
        panic!("not opened");
    };
    assert_eq!((opened, origin), (pipe, Origin::Dialed(at.clone())));
    assert_eq!(came, Origin::Accepted(Some(at.clone())));
    if at.scheme() == Scheme::Tcp {
        assert_eq!((here, remote), (Some(at.clone()), Some(at)));
        assert_eq!(local, there);
        assert!(local.is_some());
    } else {
        assert!(pid.is_some() && whose.is_some());
    }
}

fn frames_arrive_in_order_both_ways(world: &World) {
    let (a, b) = (world.peer(), world.peer());
    let (there, here) = connect(&a, &b);
    for n in 0..200_u32 {
        a.send(there, &n.to_be_bytes());
        assert_eq!(b.received(here)[..], n.to_be_bytes());
        b.send(here, &n.to_be_bytes());
        assert_eq!(a.received(there)[..], n.to_be_bytes());
    }
    for n in 0..500_u32 {
        a.send(there, &n.to_be_bytes());
    }
    for n in 0..500_u32 {
        assert_eq!(b.received(here)[..], n.to_be_bytes());
    }
}

fn frames_of_any_length_arrive_whole(world: &World) {
    let (a, b) = (world.peer(), world.peer());
    let (there, here) = connect(&a, &b);
    for length in [0, 1, 2, 31, 1000, 65_535, 65_536, 300_000, 1 << 20] {
        let frame: Vec<u8> = (0..length).map(|n| n as u8).collect();
        a.send(there, &frame);
        assert_eq!(b.received(here), frame, "of {length} bytes");
        b.send(here, &frame);
        assert_eq!(a.received(there), frame, "of {length} bytes");
    }
}

fn a_second_frame_before_sent_comes_back(world: &World) {
    // More than the system takes at once.
    let frame = |number: u8| vec![number; 12 << 20];
    let (a, b) = (world.peer(), world.peer());
    let (there, here) = connect(&a, &b);
    let mut sent = 0;
    let busy = loop {
        match a.try_send(there, &frame(sent)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(busy == SendError::Busy(frame(sent).into()), "the frame comes back");
    for _ in 0..sent {
        a.until(|event| matches!(event, Event::Sent { .. }));
    }
    a.send(there, b"next");
    for n in 0..sent {
        assert!(b.received(here)[..] == frame(n), "frame {n} arrives whole");
    }
    assert_eq!(b.received(here)[..], *b"next");
}

fn a_frame_for_a_pipe_that_is_gone_comes_back(world: &World) {
    let (a, b) = (world.peer(), world.peer());
    let at = b.listen();
    let pipe = a.dial(&at);
    let gone = SendError::Gone(b"x".to_vec().into());
    if world.kind == Kind::Memory {
        assert_eq!(a.try_send(pipe, b"x"), Err(gone.clone()), "before it is opened");
    }
    assert_eq!(a.opened(), pipe);
    a.close(pipe);
    assert_eq!(a.try_send(pipe, b"x"), Err(gone.clone()));
    a.closed(pipe);
    assert_eq!(a.try_send(pipe, b"x"), Err(gone));
}

fn a_dial_to_nobody_is_refused_at_once(world: &World) {
    let a = world.peer();
    let to = world.nobody();
    let began = Instant::now();
    let pipe = a.dial(&to);
    assert_eq!(a.next(), Event::DialFailed { pipe, error: DialError::Refused });
    assert!(began.elapsed() < Duration::from_secs(1), "took {:?}", began.elapsed());
}

fn an_endpoint_of_no_transport_is_invalid(world: &World) {
    let a = world.peer();
    let pipe = a.dial(&Endpoint::from("carrier://pigeon"));
    let told = a.next();
    assert!(matches!(told, Event::DialFailed { pipe: which, error: DialError::Invalid(_) } if which == pipe));
    let refused = a.transport().listen(&Endpoint::from("carrier://pigeon"));
    assert!(matches!(refused, Err(ListenError::Invalid { .. })));
}

fn a_mute_peer_is_timed_out(world: &World) {
    let limit = Duration::from_millis(200);
    let a = world.peer_with(Options { dial_limit: limit, ..Options::default() });
    let b = world.peer();
    let timed_out = |to: &Endpoint| {
        let began = Instant::now();
        let pipe = a.dial(to);
        assert_eq!(a.next(), Event::DialFailed { pipe, error: DialError::TimedOut(limit) });
        assert!(began.elapsed() < limit * 5);
    };
    match world.kind {
        Kind::Memory => {
            let at = b.listen();
            world.net().freeze(b.memory());
            timed_out(&at);
        }
        Kind::Ipc => {
            let path = world.dir().join("mute");
            let _mute = std::os::unix::net::UnixListener::bind(&path).unwrap();
            timed_out(&Endpoint::from(format!("ipc://{}", path.display())));
            std::fs::remove_file(path).unwrap();
        }
        Kind::Tcp => {
            let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            timed_out(&Endpoint::from(format!("tcp://{}", mute.local_addr().unwrap())));
        }
    }
}

fn a_close_is_told_on_both_sides(world: &World) {
    let (a, b) = (world.peer(), world.peer());
    let at = b.listen();
    let (there, here) = connect_to(&a, &b, &at);
    a.send(there, b"last words");
    assert_eq!(b.received(here)[..], *b"last words");
    a.close(there);
    a.closed(there);
    b.closed(here);
    let (there, here) = connect_to(&a, &b, &at);
    a.send(there, b"first words");
    assert_eq!(b.received(here)[..], *b"first words");
    b.close(here);
    b.closed(here);
    a.closed(there);
    a.close(there);
    a.stays_without(|event| matches!(event, Event::Closed { .. }));
}

fn the_end_of_a_peer_is_told(world: &World) {
    let (a, b, c) = (world.peer(), world.peer(), world.peer());
    let at = b.listen();
    let (there, here) = connect_to(&a, &b, &at);
    a.send(there, b"x");
    b.received(here);
    let (to_c, at_c) = connect(&b, &c);
    match world.kind {
        Kind::Memory => world.net().kill(b.memory()),
        _ => b.transport().shutdown(Duration::from_millis(100)),
    }
    a.closed(there);
    c.closed(at_c);
    let pipe = a.dial(&at);
    assert_eq!(a.next(), Event::DialFailed { pipe, error: DialError::Refused });
    b.stays_without(|event| *event == Event::Closed { pipe: to_c });
}

fn a_frame_that_is_too_long_ends_its_pipe_only(world: &World) {
    let b = world.peer_with(Options { max_frame: 1000, ..Options::default() });
    let (a, c) = (world.peer(), world.peer());
    let at = b.listen();
    let (from_a, here_a) = connect_to(&a, &b, &at);
    let (from_c, here_c) = connect_to(&c, &b, &at);
    c.send(from_c, &[1; 1000]);
    assert_eq!(b.received(here_c).len(), 1000);
    // Its end may come before its `Sent` could be told, which then is not.
    a.try_send(from_a, &[1; 1001]).unwrap();
    b.closed(here_a);
    a.closed(from_a);
    c.send(from_c, &[2; 1000]);
    assert_eq!(b.received(here_c)[0], 2);
    b.stays_without(|event| matches!(event, Event::Received { .. }));
}

fn many_peers_do_not_disturb_each_other(world: &World) {
    let b = world.peer();
    let at = b.listen();
    let peers: Vec<Peer> = (0..20).map(|_| world.peer()).collect();
    let pipes: Vec<_> = peers.iter().map(|peer| connect_to(peer, &b, &at)).collect();
    for round in 0..10_u8 {
        for (peer, (there, _)) in peers.iter().zip(&pipes) {
            peer.send(*there, &[round; 100]);
        }
        if round == 5 {
            peers[3].close(pipes[3].0);
            b.closed(pipes[3].1);
            assert!(peers[3].try_send(pipes[3].0, b"x").is_err());
            break;
        }
    }
    for (n, (peer, (there, here))) in peers.iter().zip(&pipes).enumerate().filter(|(n, _)| *n != 3) {
        for round in 0..=5_u8 {
            assert_eq!(b.received(*here)[..], [round; 100], "peer {n}");
        }
        b.send(*here, &[n as u8]);
        assert_eq!(peer.received(*there)[..], [n as u8]);
    }
}

fn a_second_dial_gives_a_new_pipe(world: &World) {
    let (a, b) = (world.peer(), world.peer());
    let at = b.listen();
    let (first, here) = connect_to(&a, &b, &at);
    a.send(first, b"1");
    b.received(here);
    a.close(first);
    a.closed(first);
    b.closed(here);
    let (second, again) = connect_to(&a, &b, &at);
    assert!(second != first && again != here);
    a.send(second, b"2");
    assert_eq!(b.received(again)[..], *b"2");
    assert!(matches!(a.try_send(first, b"3"), Err(SendError::Gone(_))));
}

fn a_shutdown_ends_everything_in_silence(world: &World) {
    let (a, b) = (world.peer(), world.peer());
    let at = b.listen();
    let (there, here) = connect_to(&a, &b, &at);
    a.send(there, b"x");
    b.received(here);
    b.transport().shutdown(Duration::from_millis(200));
    a.closed(there);
    b.stays_without(|_| true);
    assert!(matches!(b.try_send(here, b"x"), Err(SendError::Gone(_))));
    b.transport().shutdown(Duration::from_millis(200));
    let c = world.peer();
    assert_eq!(c.transport().listen(&at).unwrap(), at, "the endpoint is free again");
}

fn a_dial_that_is_closed_has_one_outcome(world: &World) {
    let (a, b) = (world.peer(), world.peer());
    let at = b.listen();
    for _ in 0..20 {
        let pipe = a.dial(&at);
        a.close(pipe);
        let is_outcome = |event: &Event| matches!(event, Event::Opened { pipe: which, .. } | Event::DialFailed { pipe: which, .. } if *which == pipe);
        match a.until(is_outcome) {
            Event::Opened { .. } => a.closed(pipe),
            event => assert_eq!(event, Event::DialFailed { pipe, error: DialError::Closed }),
        }
        a.close(pipe);
    }
    a.stays_without(|_| true);
}

fn a_listener_takes_several_endpoints(world: &World) {
    let (a, b) = (world.peer(), world.peer());
    for at in [b.listen(), b.listen(), b.listen()] {
        let pipe = a.dial(&at);
        assert_eq!(a.opened(), pipe);
        let Event::Opened { origin, .. } = b.next() else {
            panic!("not opened");
        };
        assert_eq!(origin, Origin::Accepted(Some(at)));
    }
}

fn an_endpoint_in_use_is_refused(world: &World) {
    let (a, b, c) = (world.peer(), world.peer(), world.peer());
    let at = b.listen();
    assert!(matches!(a.transport().listen(&at), Err(ListenError::InUse { at: which }) if which == at));
    assert!(matches!(b.transport().listen(&at), Err(ListenError::InUse { .. })));
    let (there, here) = connect_to(&c, &b, &at);
    c.send(there, b"still served");
    assert_eq!(b.received(here)[..], *b"still served");
    b.stays_without(|event| matches!(event, Event::Opened { .. }));
}

fn a_dialer_that_is_closed_while_the_peer_talks_is_told_once(world: &World) {
    let (a, b) = (world.peer(), world.peer());
    let at = b.listen();
    for _ in 0..10 {
        let (there, here) = connect_to(&a, &b, &at);
        a.send(there, b"talk to me");
        b.received(here);
        for _ in 0..5 {
            b.send(here, &[7; 500]);
        }
        a.received(there);
        a.close(there);
        a.closed(there);
        b.closed(here);
    }
}

fn a_sink_may_call_back(world: &World) {
    use std::sync::{Arc, Mutex, OnceLock};
    use vlmessaging::transport::Transport;

    type Shared = Arc<OnceLock<Arc<dyn Transport>>>;
    let own: Shared = Arc::new(OnceLock::new());
    let log = Arc::new(Mutex::new(Vec::new()));
    let (me, seen) = (own.clone(), log.clone());
    let sink = Arc::new(move |event: Event| {
        if let (Event::Received { pipe, frame }, Some(me)) = (&event, me.get()) {
            me.send(*pipe, frame.clone()).unwrap();
            me.close(*pipe);
        }
        seen.lock().unwrap().push(event);
    });
    let echo = world.start(sink, Options::default());
    assert!(own.set(echo.clone()).is_ok());
    let at = echo.listen(&world.fresh()).unwrap();
    let a = world.peer();
    let pipe = a.dial(&at);
    a.opened();
    // The answer's end may come before its `Sent` could be told, which then is not.
    a.try_send(pipe, b"x").unwrap();
    a.closed(pipe);
    // Its own end may be told to it after the other side's.
    let end = Instant::now() + PATIENCE;
    let is_over = |log: &Vec<Event>| matches!(log.last(), Some(Event::Closed { .. }));
    while !is_over(&log.lock().unwrap()) && Instant::now() < end {
        world.net().advance(Duration::ZERO);
        std::thread::yield_now();
    }
    let mut told = log.lock().unwrap().clone();
    told.retain(|event| !matches!(event, Event::Sent { .. }));
    assert!(matches!(told[..], [Event::Opened { .. }, Event::Received { .. }, Event::Closed { .. }]), "{told:?}");
    echo.shutdown(Duration::from_millis(200));
}

fn a_sink_may_shut_down(world: &World) {
    use std::sync::{Arc, OnceLock};
    use vlmessaging::transport::Transport;

    let own: Arc<OnceLock<Arc<dyn Transport>>> = Arc::default();
    let me = own.clone();
    let sink = Arc::new(move |event: Event| {
        if let (Event::Opened { .. }, Some(me)) = (event, me.get()) {
            me.shutdown(Duration::from_secs(5));
        }
    });
    let other = world.start(sink, Options::default());
    assert!(own.set(other.clone()).is_ok());
    let at = other.listen(&world.fresh()).unwrap();
    let a = world.peer();
    let pipe = a.dial(&at);
    let began = Instant::now();
    a.until(|event| {
        matches!(event, Event::Closed { pipe: which } | Event::DialFailed { pipe: which, .. } if *which == pipe)
    });
    assert!(began.elapsed() < Duration::from_secs(2), "took {:?}", began.elapsed());
    other.shutdown(Duration::from_secs(1));
}
