//! Who serves: the arbiter that the transport was made on, and a keeper thread.
//!
//! The arbiter watches the set of sockets as one of its own, so that a message goes from the socket through the mailbox to the handler, and its
//! answer back, without waking any thread. The keeper sleeps, looks after deadlines, and serves when the arbiter does not come round: an agent
//! that blocks its thread delays no other link. Where there is no arbiter, or none any more, the keeper serves alone.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::thread::Thread;
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Shared;
use super::net::Ready;

/// How often the keeper looks whether the arbiter comes round, while there are connections. Default 100 ms: two looks without a turn while something
/// is ready, and it serves. Far below the second after which a silent peer is asked.
const BEAT: Duration = Duration::from_millis(100);
/// How long the end of a transport waits for the other sides to read it. Default 200 ms: milliseconds as a rule.
const FAREWELL: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(super) struct Home {
    arbiter: OnceLock<Thread>,
    arbiter_serves: AtomicBool,
    waker: AtomicWaker,
    turns: AtomicU64,
    keeper: OnceLock<Thread>,
    /// The keeper watches the set, and is called by its bell.
    keeper_serves: AtomicBool,
}

impl Home {
    /// Whether this thread is the one that serves.
    pub(super) fn is_here(&self) -> bool {
        let home = if self.arbiter_serves.load(Ordering::Relaxed) { &self.arbiter } else { &self.keeper };
        home.get().is_some_and(|home| home.id() == std::thread::current().id())
    }

    pub(super) fn call_keeper(&self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.unpark();
        }
    }
}

impl Shared {
    /// Has somebody take a turn.
    pub(super) fn call(&self) {
        if self.home.arbiter_serves.load(Ordering::SeqCst) {
            self.home.waker.wake();
        }
        if self.home.keeper_serves.load(Ordering::SeqCst) {
            self.set.ring();
        }
    }

    /// Wakes all who serve, for the end.
    pub(super) fn call_all(&self) {
        self.home.waker.wake();
        self.set.ring();
        self.home.call_keeper();
    }

    fn turn(self: &Arc<Self>, ready: &Ready) -> bool {
        self.hall.lock().turn(self, ready)
    }
}

// ---- the arbiter -------------------------------------------------------------------------------

/// Has the present arbiter serve, if there is one.
pub(super) fn settle(shared: &Arc<Shared>) -> io::Result<()> {
    if actix::Arbiter::try_current().is_none() || tokio::runtime::Handle::try_current().is_err() {
        return Ok(());
    }
    #[allow(
        deprecated,
        reason = "its fault needs a type that gives out a descriptor it does not own; an OwnedFd is open for as long as this is"
    )]
    let set = AsyncFd::with_interest(shared.set.handle()?, Interest::READABLE)?;
    shared.home.arbiter.get_or_init(std::thread::current);
    shared.home.arbiter_serves.store(true, Ordering::SeqCst);
    let resident = Resident(shared.clone());
    actix::spawn(async move {
        let mut ready = Ready::new();
        while resident.comes_round(&set, &mut ready).await {
            while resident.0.turn(&ready) {
                others_first().await;
                resident.0.set.look(Some(Duration::ZERO), &mut ready);
            }
            resident.0.home.turns.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// The arbiter's task; when it ends, with its System or the transport, the keeper serves.
struct Resident(Arc<Shared>);

impl Resident {
    /// Waits until something is ready or asked for; false at the end.
    async fn comes_round(&self, set: &AsyncFd<std::os::fd::OwnedFd>, ready: &mut Ready) -> bool {
        poll_fn(|cx| self.poll(set, ready, cx)).await
    }

    fn poll(&self, set: &AsyncFd<std::os::fd::OwnedFd>, ready: &mut Ready, cx: &mut Context) -> Poll<bool> {
        let shared = &self.0;
        shared.home.waker.register(cx.waker());
        ready.clear();
        match set.poll_read_ready(cx) {
            Poll::Ready(Ok(mut guard)) => {
                // Before the look: what comes after it is told anew.
                guard.clear_ready();
                shared.set.look(Some(Duration::ZERO), ready);
            }
            Poll::Ready(Err(_)) => return Poll::Ready(false),
            Poll::Pending => {}
        }
        if shared.is_over() {
            return Poll::Ready(false);
        }
        if ready.is_empty() && !shared.jobs.is_waiting() {
            // A look that found nothing asks again: readiness was cleared.
            return self.again(set, cx);
        }
        Poll::Ready(true)
    }

    fn again(&self, set: &AsyncFd<std::os::fd::OwnedFd>, cx: &mut Context) -> Poll<bool> {
        if set.poll_read_ready(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.0.home.arbiter_serves.store(false, Ordering::SeqCst);
        self.0.home.call_keeper();
    }
}

/// Lets the arbiter's other tasks, agents among them, have a turn.
async fn others_first() {
    let mut had = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut had, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

// ---- the keeper --------------------------------------------------------------------------------

/// The keeper's thread, until the end.
pub(super) fn keep(shared: &Arc<Shared>) {
    let home = &shared.home;
    home.keeper.get_or_init(std::thread::current);
    let (mut ready, mut watch) = (Ready::new(), Watch::default());
    while !shared.is_over() {
        // While there are no connections, nothing but the first one wakes it.
        let serves = watch.is_stuck || shared.hall.lock().is_empty() || !home.arbiter_serves.load(Ordering::SeqCst);
        home.keeper_serves.store(serves, Ordering::SeqCst);
        let beats = !serves || watch.is_stuck;
        let pause = shared.pause(beats);
        if serves {
            let pause = if shared.jobs.is_waiting() { Some(Duration::ZERO) } else { pause };
            if shared.set.look(pause, &mut ready) {
                shared.set.unring();
            }
            shared.turn(&ready);
        } else {
            // Called between the look at the flag and here, it does not wait.
            match pause {
                Some(pause) => std::thread::park_timeout(pause),
                None => std::thread::park(),
            }
        }
        shared.hall.lock().act_on_time(shared, Instant::now());
        watch.look(shared, &mut ready);
    }
    finish(shared, &mut ready);
}

/// Whether the arbiter comes round.
#[derive(Default)]
struct Watch {
    turns: u64,
    looked: Option<Instant>,
    is_suspected: bool,
    is_stuck: bool,
}

impl Watch {
    fn look(&mut self, shared: &Arc<Shared>, ready: &mut Ready) {
        let now = Instant::now();
        if !self.is_stuck && self.looked.is_some_and(|looked| now.duration_since(looked) < BEAT) {
            return;
        }
        self.looked = Some(now);
        let turns = shared.home.turns.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.turns, turns) != turns || !shared.home.arbiter_serves.load(Ordering::SeqCst) {
            (self.is_suspected, self.is_stuck) = (false, false);
            return;
        }
        if !self.is_stuck {
            shared.set.look(Some(Duration::ZERO), ready);
            let waits = !ready.is_empty() || shared.jobs.is_waiting();
            self.is_stuck = waits && self.is_suspected;
            self.is_suspected = waits;
            if self.is_stuck {
                tracing::debug!("the arbiter does not come round: its thread is blocked, or the machine is busy");
            }
        }
    }
}

impl Shared {
    /// How long the keeper may wait: for ever if none.
    fn pause(&self, beats: bool) -> Option<Duration> {
        let hall = self.hall.lock();
        let due = hall.next_due().map(|at| at.saturating_duration_since(Instant::now()));
        let beat = (beats && !hall.is_empty()).then_some(BEAT);
        [due, beat].into_iter().flatten().min()
    }
}

/// Everything ends: what is on its way may go until the limit, and the other sides have a moment to read the end.
fn finish(shared: &Arc<Shared>, ready: &mut Ready) {
    let began = Instant::now();
    let (by, done) = shared.ending.lock().take().unwrap_or((began, None));
    shared.stop_listening();
    shared.hall.lock().leave_all(shared);
    loop {
        let now = Instant::now();
        {
            let hall = shared.hall.lock();
            let until = if hall.is_writing() { by } else { by.min(began + FAREWELL) };
            if hall.is_empty() || now >= until {
                break;
            }
        }
        shared.set.look(Some(Duration::from_millis(5)), ready);
        shared.turn(ready);
        shared.hall.lock().act_on_time(shared, Instant::now());
    }
    shared.hall.lock().drop_all();
    shared.pipes.write().clear();
    drop(done);
}
