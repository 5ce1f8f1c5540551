//! Who serves: the arbiter that the transport was made on, and a keeper thread.
//!
//! The arbiter watches the set of sockets as one of its own, so that a message goes from the socket through the mailbox to the handler, and its
//! answer back, without waking any thread. The keeper sleeps, looks after deadlines, and serves when the arbiter does not come round: an agent
//! that blocks its thread delays no other link. Where there is no arbiter, or none any more, the keeper serves alone.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::thread::Thread;
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Shared;
use super::net::Ready;

/// How often the keeper looks whether the arbiter comes round, while messages come and go. Default 2 ms: an agent that sends much and then blocks its thread hardly delays it, and 500 looks a second
/// are a quarter of a percent of a CPU.
const BEAT: Duration = Duration::from_millis(2);
/// How long after a look that found something ready, and no turn since the one before, it looks again: still none, and it serves. Default 500 us: as long as most handlers take.
const DOUBT: Duration = Duration::from_micros(500);
/// The same where nothing has come or gone since the last look. Default 100 ms: far below the second after which a silent peer is asked.
const QUIET_BEAT: Duration = Duration::from_millis(100);
/// How long the end of a transport waits for the other sides to read it. Default 200 ms: milliseconds as a rule.
const FAREWELL: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(super) struct Home {
    arbiter_serves: AtomicBool,
    waker: AtomicWaker,
    turns: AtomicU64,
    keeper: OnceLock<Thread>,
    /// The keeper looks seldom, and is to be told of the next message.
    keeper_dozes: AtomicBool,
    /// The keeper watches the set, and is called by its bell.
    keeper_serves: AtomicBool,
    /// Open connections that the arbiter does not watch yet.
    newcomers: Mutex<Vec<(u64, Arc<OwnedFd>)>>,
}

impl Home {
    /// Something comes or goes.
    pub(super) fn rouse_keeper(&self) {
        if self.keeper_dozes.load(Ordering::SeqCst) && self.keeper_dozes.swap(false, Ordering::SeqCst) {
            self.call_keeper();
        }
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
            self.home.rouse_keeper();
        }
        if self.home.keeper_serves.load(Ordering::SeqCst) {
            self.set.ring();
        }
    }

    /// Has the keeper see when something is due next. Called by whoever holds the hall, so that it is known what the keeper waits for.
    pub(super) fn reckon_anew(&self) {
        if self.home.keeper_serves.load(Ordering::SeqCst) {
            self.set.ring();
        } else {
            self.home.call_keeper();
        }
    }

    /// Wakes all who serve, for the end.
    pub(super) fn call_all(&self) {
        self.home.waker.wake();
        self.set.ring();
        self.home.call_keeper();
    }

    /// A connection is open: the arbiter is to watch it, if there is one.
    pub(super) fn welcome(&self, key: u64, socket: Arc<OwnedFd>) {
        if self.home.arbiter_serves.load(Ordering::SeqCst) {
            self.home.newcomers.lock().push((key, socket));
            self.home.waker.wake();
        }
    }

    fn turn(self: &Arc<Self>, ready: &Ready) -> bool {
        self.hall.lock().turn(self, ready)
    }

    /// The arbiter has done its part.
    fn came_round(&self) {
        // Nobody else counts.
        self.home.turns.store(self.home.turns.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.home.rouse_keeper();
    }

    /// A frame did not fit, and nobody serves who would know better.
    fn is_writing(&self) -> bool {
        self.hall.try_lock().is_some_and(|hall| hall.is_writing())
    }
}

// ---- the arbiter -------------------------------------------------------------------------------

/// Has the present arbiter serve, if there is one.
pub(super) fn settle(shared: &Arc<Shared>) -> io::Result<()> {
    if actix::Arbiter::try_current().is_none() || tokio::runtime::Handle::try_current().is_err() {
        return Ok(());
    }
    let doors = watched(Arc::new(shared.set.handle()?))?;
    shared.home.arbiter_serves.store(true, Ordering::SeqCst);
    let resident = Resident(shared.clone());
    actix::spawn(async move {
        let mut ready = Ready::new();
        while resident.comes_round(&doors, &mut ready).await {
            while resident.turn(&ready) {
                others_first().await;
                resident.0.set.look_at_doors(&mut ready);
            }
        }
    });
    Ok(())
}

/// A descriptor that the arbiter watches.
type Watched = AsyncFd<Arc<OwnedFd>>;

#[allow(
    deprecated,
    reason = "its fault needs a type that gives out a descriptor it does not own; an OwnedFd is open for as long as this is"
)]
fn watched(descriptor: Arc<OwnedFd>) -> io::Result<Watched> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

/// The arbiter's task; when it ends, with its System or the transport, the keeper serves.
struct Resident(Arc<Shared>);

impl Resident {
    /// Waits until something is ready or asked for; false at the end.
    async fn comes_round(&self, doors: &Watched, ready: &mut Ready) -> bool {
        poll_fn(|cx| self.poll(doors, ready, cx)).await
    }

    fn turn(&self, ready: &Ready) -> bool {
        let more = self.0.turn(ready);
        self.0.came_round();
        more
    }

    /// Each open connection is watched by a task of its own.
    fn take_in_newcomers(&self) {
        let newcomers = std::mem::take(&mut *self.0.home.newcomers.lock());
        for (key, socket) in newcomers {
            match watched(socket) {
                Ok(socket) => {
                    let reader = actix::spawn(attend(self.0.clone(), key, socket)).abort_handle();
                    self.0.hall.lock().is_read_by(key, reader);
                }
                Err(error) => {
                    tracing::error!(pipe = key, %error, "a connection cannot be watched, and was ended");
                    self.0.hall.lock().give_up(&self.0, key);
                }
            }
        }
    }

    fn poll(&self, doors: &Watched, ready: &mut Ready, cx: &mut Context) -> Poll<bool> {
        let shared = &self.0;
        shared.home.waker.register(cx.waker());
        ready.clear();
        match doors.poll_read_ready(cx) {
            Poll::Ready(Ok(mut guard)) => {
                // Before the look: what comes after it is told anew.
                guard.clear_ready();
                shared.set.look_at_doors(ready);
            }
            Poll::Ready(Err(_)) => return Poll::Ready(false),
            Poll::Pending => {}
        }
        if shared.is_over() {
            return Poll::Ready(false);
        }
        self.take_in_newcomers();
        if ready.is_empty() && !shared.jobs.is_waiting() {
            // A look that found nothing asks again: readiness was cleared.
            return self.again(doors, cx);
        }
        Poll::Ready(true)
    }

    fn again(&self, doors: &Watched, cx: &mut Context) -> Poll<bool> {
        if doors.poll_read_ready(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.0.home.arbiter_serves.store(false, Ordering::SeqCst);
        self.0.home.newcomers.lock().clear();
        self.0.home.call_keeper();
    }
}

/// Reads one connection, for as long as it is open and there is an arbiter.
async fn attend(shared: Arc<Shared>, key: u64, socket: Watched) {
    while let Ok(mut ready) = poll_fn(|cx| socket.poll_read_ready(cx)).await {
        // Before the look: what comes after it is told anew. That the other side has ended stays.
        ready.clear_ready();
        loop {
            let more = shared.hall.lock().attend(&shared, key);
            shared.came_round();
            match more {
                None => return,
                Some(true) => others_first().await,
                Some(false) => break,
            }
        }
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
    let (mut ready, mut watch) = (Ready::new(), Watch::new());
    while !shared.is_over() {
        let Some(mut hall) = shared.hall.try_lock() else {
            // Whoever holds it serves.
            std::thread::park_timeout(BEAT);
            continue;
        };
        // While there are no connections, nothing but the first one wakes it.
        let serves = watch.is_stuck || hall.is_empty() || !home.arbiter_serves.load(Ordering::SeqCst);
        // In the hall: whoever is in it next, and has something due sooner, knows how to call.
        if home.keeper_serves.swap(serves, Ordering::SeqCst) && !serves {
            shared.set.unring();
        }
        if serves {
            hall.watch_all(shared);
        }
        let beat = (!hall.is_empty() && (!serves || watch.is_stuck)).then_some(watch.beat);
        let due = hall.next_due().map(|at| at.saturating_duration_since(Instant::now()));
        drop(hall);
        let pause = [due, beat].into_iter().flatten().min();
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
        if let Some(mut hall) = shared.hall.try_lock() {
            hall.act_on_time(shared, Instant::now());
        }
        watch.look(shared, &mut ready);
    }
    finish(shared, &mut ready);
}

/// Whether the arbiter comes round.
struct Watch {
    turns: u64,
    looked: Instant,
    beat: Duration,
    is_suspected: bool,
    is_stuck: bool,
}

impl Watch {
    fn new() -> Self {
        Self { turns: 0, looked: Instant::now(), beat: BEAT, is_suspected: false, is_stuck: false }
    }

    fn look(&mut self, shared: &Arc<Shared>, ready: &mut Ready) {
        let (home, now) = (&shared.home, Instant::now());
        let beat = if self.is_suspected { DOUBT } else { BEAT };
        if !self.is_stuck && now.duration_since(self.looked) < beat {
            // Roused: from now on it looks often.
            self.beat = beat;
            return;
        }
        self.looked = now;
        // Before the look at what there is: what comes after it rouses.
        home.keeper_dozes.store(true, Ordering::SeqCst);
        let turns = home.turns.load(Ordering::SeqCst);
        let comes_round = std::mem::replace(&mut self.turns, turns) != turns;
        if comes_round || !home.arbiter_serves.load(Ordering::SeqCst) {
            (self.is_suspected, self.is_stuck) = (false, false);
        } else if !self.is_stuck {
            if let Some(mut hall) = shared.hall.try_lock() {
                hall.watch_all(shared);
            }
            shared.set.look(Some(Duration::ZERO), ready);
            let waits = !ready.is_empty() || shared.jobs.is_waiting() || shared.is_writing();
            self.is_stuck = waits && self.is_suspected;
            self.is_suspected = waits;
            if self.is_stuck {
                tracing::debug!("the keeper serves: the arbiter does not come round, or a peer does not read");
            }
        }
        // While it serves, what wakes the arbiter wakes it too.
        let is_quiet = self.is_stuck || !(comes_round || self.is_suspected);
        home.keeper_dozes.store(is_quiet && !self.is_stuck, Ordering::SeqCst);
        self.beat = match self.is_suspected {
            _ if is_quiet => QUIET_BEAT,
            true => DOUBT,
            false => BEAT,
        };
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
        shared.hall.lock().watch_all(shared);
        shared.set.look(Some(Duration::from_millis(5)), ready);
        shared.turn(ready);
        shared.hall.lock().act_on_time(shared, Instant::now());
    }
    shared.hall.lock().drop_all();
    shared.pipes.write().clear();
    drop(done);
}
