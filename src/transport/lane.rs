//! Tells a pipe's events in order and one at a time, whatever threads they come from.
//!
//! Frames that come before `Opened` could be told are held; after the last event nothing is told. No lock is held while the
//! sink runs, so it may call back into the transport: what that adds to the lane is told after it returned.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::transport::{Event, EventSink};

thread_local! {
    // How many sink calls of this thread are under way, so that a shutdown from within a sink does not wait for itself.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// The sink, until it is shut.
pub(in crate::transport) struct Outlet {
    sink: EventSink,
    shut: AtomicBool,
    running: AtomicUsize,
}

/// One pipe's events.
pub(in crate::transport) struct Lane {
    outlet: Arc<Outlet>,
    state: Mutex<State>,
}

struct State {
    queue: VecDeque<Event>,
    stage: Stage,
    telling: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Held,
    Open,
    Over,
}

impl Outlet {
    pub(in crate::transport) fn new(sink: EventSink) -> Self {
        Self { sink, shut: AtomicBool::new(false), running: AtomicUsize::new(0) }
    }

    /// Lets nothing through from now on, and waits up to `limit` for what is being told on other threads.
    pub(in crate::transport) fn shut(&self, limit: Duration) {
        self.shut.store(true, Ordering::SeqCst);
        let own = DEPTH.get();
        let end = Instant::now() + limit;
        while self.running.load(Ordering::SeqCst) > own && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Whether this thread is in a call of the sink.
    pub(in crate::transport) fn is_inside() -> bool {
        DEPTH.get() > 0
    }

    /// A panic of the sink's ends here: no thread of a transport may die of it.
    fn tell(&self, event: Event) {
        self.running.fetch_add(1, Ordering::SeqCst);
        DEPTH.set(DEPTH.get() + 1);
        if !self.shut.load(Ordering::SeqCst) {
            let told = catch_unwind(AssertUnwindSafe(|| (self.sink)(event)));
            if told.is_err() {
                tracing::error!("an event sink panicked; what it was told is lost");
            }
        }
        DEPTH.set(DEPTH.get() - 1);
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Lane {
    pub(in crate::transport) fn new(outlet: Arc<Outlet>) -> Self {
        Self { outlet, state: Mutex::new(State { queue: VecDeque::new(), stage: Stage::Held, telling: false }) }
    }

    /// Tells `opened`, then what was held. Does nothing if it is open or over.
    pub(in crate::transport) fn open(&self, opened: Event) {
        let mut state = self.state.lock();
        if state.stage != Stage::Held {
            return;
        }
        state.stage = Stage::Open;
        state.queue.push_front(opened);
        drop(state);
        self.drain();
    }

    /// Tells an event in its turn.
    pub(in crate::transport) fn tell(&self, event: Event) {
        let mut state = self.state.lock();
        match state.stage {
            Stage::Over => {}
            Stage::Held => state.queue.push_back(event),
            Stage::Open if state.telling || !state.queue.is_empty() => state.queue.push_back(event),
            Stage::Open => {
                state.telling = true;
                drop(state);
                self.outlet.tell(event);
                self.tell_queued(self.state.lock());
            }
        }
    }

    /// Tells the last event, made by `last` from whether `Opened` came before it; `None` ends in silence. What was held is dropped.
    /// Says whether this call ended it.
    pub(in crate::transport) fn end(&self, last: impl FnOnce(bool) -> Option<Event>) -> bool {
        let mut state = self.state.lock();
        if state.stage == Stage::Over {
            return false;
        }
        let opened = state.stage == Stage::Open;
        if !opened {
            state.queue.clear();
        }
        state.stage = Stage::Over;
        state.queue.extend(last(opened));
        drop(state);
        self.drain();
        true
    }

    pub(in crate::transport) fn is_over(&self) -> bool {
        self.state.lock().stage == Stage::Over
    }

    #[cfg(feature = "nng")]
    pub(in crate::transport) fn is_held(&self) -> bool {
        self.state.lock().stage == Stage::Held
    }

    fn drain(&self) {
        let mut state = self.state.lock();
        if state.telling || state.stage == Stage::Held {
            return; // Who tells now tells this too; what is held waits.
        }
        state.telling = true;
        self.tell_queued(state);
    }

    fn tell_queued<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        while let Some(event) = state.queue.pop_front() {
            drop(state);
            self.outlet.tell(event);
            state = self.state.lock();
        }
        state.telling = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Origin, PipeId};
    use bytes::Bytes;

    const PIPE: PipeId = PipeId(1);

    fn opened() -> Event {
        Event::Opened { pipe: PIPE, origin: Origin::Accepted(None), local: None, remote: None, pid: None }
    }

    fn frame() -> Event {
        Event::Received { pipe: PIPE, frame: Bytes::from_static(b"x") }
    }

    fn lane() -> (Lane, Arc<Mutex<Vec<Event>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = told.clone();
        let outlet = Outlet::new(Arc::new(move |event| seen.lock().push(event)));
        (Lane::new(Arc::new(outlet)), told)
    }

    #[test]
    fn frames_before_opened_are_told_after_it() {
        let (lane, told) = lane();
        lane.tell(frame());
        assert!(told.lock().is_empty());
        lane.open(opened());
        assert_eq!(*told.lock(), [opened(), frame()]);
    }

    #[test]
    fn nothing_is_told_after_the_last_event() {
        let (lane, told) = lane();
        lane.open(opened());
        assert!(lane.end(|_| Some(Event::Closed { pipe: PIPE })));
        assert!(!lane.end(|_| Some(Event::Closed { pipe: PIPE })));
        lane.tell(frame());
        assert_eq!(*told.lock(), [opened(), Event::Closed { pipe: PIPE }]);
    }

    #[test]
    fn a_sink_that_panics_is_told_the_next_event_too() {
        let told = Arc::new(Mutex::new(0));
        let seen = told.clone();
        let outlet = Outlet::new(Arc::new(move |_| {
            *seen.lock() += 1;
            panic!("on purpose");
        }));
        let lane = Lane::new(Arc::new(outlet));
        lane.open(opened());
        lane.tell(frame());
        assert_eq!(*told.lock(), 2);
        lane.outlet.shut(Duration::from_secs(10)); // Waits for nobody.
    }

    #[test]
    fn a_shut_outlet_tells_nothing() {
        let (lane, told) = lane();
        lane.outlet.shut(Duration::ZERO);
        lane.open(opened());
        assert!(told.lock().is_empty());
    }
}
