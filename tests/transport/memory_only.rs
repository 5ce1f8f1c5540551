//! What only the simulated network can do.

use std::time::Duration;

use vlmessaging::Endpoint;
use vlmessaging::transport::{DialError, Event, Options};

use crate::world::{World, connect_to};

#[test]
fn a_cut_link_swallows_everything_and_nobody_is_told() {
    let world = World::simulated();
    let (a, b) = (world.peer(), world.peer());
    let at = b.listen();
    let (there, here) = connect_to(&a, &b, &at);
    a.send(there, b"before");
    assert_eq!(b.received(here)[..], *b"before");
    a.try_send(there, b"on its way").unwrap();
    world.net().cut(a.memory(), b.memory());
    a.until(|event| matches!(event, Event::Sent { .. }));
    a.send(there, b"into the void");
    a.stays_without(|_| true);
    b.stays_without(|_| true);
    let dial = a.dial(&at);
    let limit = Options::default().dial_limit;
    let error = DialError::TimedOut(limit);
    assert_eq!(a.next(), Event::DialFailed { pipe: dial, error });
    world.net().heal(a.memory(), b.memory());
    let (again, anew) = connect_to(&a, &b, &at);
    a.send(again, b"after");
    assert_eq!(b.received(anew)[..], *b"after");
    b.stays_without(|event| matches!(event, Event::Received { .. }));
}

#[test]
fn a_cut_that_swallowed_nothing_is_forgotten_when_it_heals() {
    let world = World::simulated();
    let (a, b) = (world.peer(), world.peer());
    let at = b.listen();
    let (there, here) = connect_to(&a, &b, &at);
    world.net().cut(a.memory(), b.memory());
    world.net().heal(a.memory(), b.memory());
    a.send(there, b"x");
    assert_eq!(b.received(here)[..], *b"x");
}

#[test]
fn a_frozen_process_handles_what_came_when_it_thaws() {
    let world = World::simulated();
    let (a, b) = (world.peer(), world.peer());
    let at = b.listen();
    let (there, here) = connect_to(&a, &b, &at);
    world.net().freeze(b.memory());
    a.send(there, b"1");
    a.send(there, b"2");
    b.stays_without(|_| true);
    world.net().thaw(b.memory());
    assert_eq!(b.received(here)[..], *b"1");
    assert_eq!(b.received(here)[..], *b"2");
}

#[test]
fn a_frame_takes_as_long_as_its_link() {
    let world = World::simulated();
    let (a, b) = (world.peer(), world.peer());
    let delay = Duration::from_millis(80);
    world.net().set_delay(a.memory(), b.memory(), delay);
    let at = b.listen();
    let (there, here) = connect_to(&a, &b, &at);
    let began = world.net().now();
    a.send(there, b"x");
    b.received(here);
    assert_eq!(world.net().now().checked_sub(began).unwrap(), delay);
}

#[test]
fn a_third_frame_on_its_way_on_an_accepted_pipe_is_dropped_without_a_word() {
    let world = World::simulated();
    let (a, b) = (world.peer(), world.peer());
    let at = b.listen();
    let (there, here) = connect_to(&a, &b, &at);
    for frame in [b"1", b"2", b"3"] {
        b.try_send(here, frame).unwrap();
        world.net().advance(Duration::ZERO);
    }
    assert_eq!(a.received(there)[..], *b"1");
    assert_eq!(a.received(there)[..], *b"2");
    a.stays_without(|event| matches!(event, Event::Received { .. }));
}

#[test]
fn the_same_calls_give_the_same_events() {
    let run = || {
        let world = World::simulated();
        let (a, b) = (world.peer(), world.peer());
        // Not `fresh`, whose folder differs from run to run.
        let at = b.transport().listen(&Endpoint::from("ipc:///r")).unwrap();
        let pipes: Vec<_> = (0..10).map(|_| a.dial(&at)).collect();
        world.net().advance(Duration::from_millis(1));
        for pipe in &pipes {
            a.try_send(*pipe, b"x").unwrap();
        }
        a.close(pipes[3]);
        world.net().advance(Duration::from_secs(1));
        (a.all(), b.all())
    };
    assert_eq!(run(), run());
}
