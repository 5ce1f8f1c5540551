//! Agents for tests: one made of a closure, and one whose messages the test deals with itself.

use std::pin::Pin;

use actix::{Actor, ActorContext, Context, Handler, ResponseFuture};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use vlmessaging::{Agent, Handled, Msg, Router, Spawned};

/// Does with each message what the closure says.
pub(crate) struct Does<F>(F);

pub(crate) fn does<F: FnMut(Msg) -> Handled + Unpin + 'static>(handle: F) -> Does<F> {
    Does(handle)
}

/// Answers `ADD_ONE`, and leaves the rest to the standard answers.
pub(crate) fn adder() -> Does<fn(Msg) -> Handled> {
    Does(|msg| match msg.subject() {
        "ADD_ONE" => msg.answer(|n: i64| n + 1),
        _ => msg.unhandled(),
    })
}

/// An adder that panics at `PANIC`.
pub(crate) fn fragile() -> Does<fn(Msg) -> Handled> {
    Does(|msg| match msg.subject() {
        "PANIC" => panic!("asked to panic"),
        "ADD_ONE" => msg.answer(|n: i64| n + 1),
        _ => msg.unhandled(),
    })
}

impl<F: FnMut(Msg) -> Handled + Unpin + 'static> Actor for Does<F> {
    type Context = Context<Self>;
}

impl<F: FnMut(Msg) -> Handled + Unpin + 'static> Agent for Does<F> {}

impl<F: FnMut(Msg) -> Handled + Unpin + 'static> Handler<Msg> for Does<F> {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        self.0(msg)
    }
}

/// The same with handlers that wait.
pub(crate) struct Waits<F>(F);

pub(crate) fn waits<F: Fn(Msg) -> Pin<Box<dyn Future<Output = Handled>>> + Unpin + 'static>(handle: F) -> Waits<F> {
    Waits(handle)
}

impl<F: Fn(Msg) -> Pin<Box<dyn Future<Output = Handled>>> + Unpin + 'static> Actor for Waits<F> {
    type Context = Context<Self>;
}

impl<F: Fn(Msg) -> Pin<Box<dyn Future<Output = Handled>>> + Unpin + 'static> Agent for Waits<F> {}

impl<F: Fn(Msg) -> Pin<Box<dyn Future<Output = Handled>>> + Unpin + 'static> Handler<Msg> for Waits<F> {
    type Result = ResponseFuture<Handled>;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> ResponseFuture<Handled> {
        self.0(msg)
    }
}

/// Hands every message to the test, to be dealt with there.
pub(crate) struct Holds(UnboundedSender<Msg>);

/// What a holder was sent.
pub(crate) struct Held(UnboundedReceiver<Msg>);

pub(crate) fn hold(router: &Router) -> (Spawned<Holds>, Held) {
    let (give, held) = unbounded_channel();
    (router.spawn(Holds(give)), Held(held))
}

impl Held {
    pub(crate) async fn next(&mut self) -> Msg {
        super::soon(self.0.recv()).await.expect("the holder has ended")
    }

    /// What has come so far.
    pub(crate) fn now(&mut self) -> Vec<Msg> {
        std::iter::from_fn(|| self.0.try_recv().ok()).collect()
    }
}

impl Actor for Holds {
    type Context = Context<Self>;
}

impl Agent for Holds {}

impl Handler<Msg> for Holds {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        let (handled, msg) = msg.later();
        // A test that has seen enough drops its end: then the message reports itself.
        let _ = self.0.send(msg);
        handled
    }
}

/// Obeys `SHUTDOWN`.
pub(crate) struct Obedient;

impl Actor for Obedient {
    type Context = Context<Self>;
}

impl Agent for Obedient {
    fn allows_shutdown(&self) -> bool {
        true
    }
}

impl Handler<Msg> for Obedient {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        msg.unhandled()
    }
}

/// Stops itself at the first message, which it holds.
pub(crate) struct StopsAtFirst;

impl Actor for StopsAtFirst {
    type Context = Context<Self>;
}

impl Agent for StopsAtFirst {}

impl Handler<Msg> for StopsAtFirst {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, ctx: &mut Context<Self>) -> Handled {
        ctx.stop();
        msg.handled()
    }
}
