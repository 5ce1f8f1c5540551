//! Threads that come when there is blocking work and go when there has been none for a while, so that an idle process has none.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How long a thread waits for more before it ends: long enough for a burst, short enough to be light.
const IDLE: Duration = Duration::from_secs(1);
/// They only make one call that may wait, and hand its result on.
const STACK: usize = 256 << 10;

pub(in crate::transport) type Job = Box<dyn FnOnce() + Send>;

/// Up to `most` threads over one queue.
pub(in crate::transport) struct Workers {
    name: &'static str,
    most: usize,
    state: Mutex<State>,
    more: Condvar,
}

struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    running: Vec<Instant>,
}

impl Workers {
    pub(in crate::transport) const fn new(name: &'static str, most: usize) -> Self {
        Self {
            name,
            most,
            state: Mutex::new(State { queue: VecDeque::new(), threads: 0, idle: 0, running: Vec::new() }),
            more: Condvar::new(),
        }
    }

    /// Queues a job; never waits.
    pub(in crate::transport) fn run(&'static self, job: Job) {
        let mut state = self.state.lock();
        state.queue.push_back(job);
        if state.queue.len() <= state.idle {
            self.more.notify_one();
            return;
        }
        if state.threads == self.most {
            return;
        }
        state.threads += 1;
        drop(state);
        let spawned = std::thread::Builder::new().name(self.name.to_owned()).stack_size(STACK).spawn(|| self.work());
        if let Err(error) = spawned {
            self.state.lock().threads -= 1;
            tracing::error!(%error, "no thread for {}; the job waits for another's", self.name);
        }
    }

    #[cfg(feature = "nng")]
    /// Jobs that wait or run.
    pub(in crate::transport) fn backlog(&self) -> usize {
        let state = self.state.lock();
        state.queue.len() + state.running.len()
    }

    #[cfg(feature = "nng")]
    /// How long the longest running job has taken.
    pub(in crate::transport) fn longest(&self) -> Option<Duration> {
        self.state.lock().running.iter().map(Instant::elapsed).max()
    }

    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                let began = Instant::now();
                state.running.push(began);
                drop(state);
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!("a job of {} panicked", self.name);
                }
                state = self.state.lock();
                if let Some(own) = state.running.iter().position(|other| *other == began) {
                    state.running.swap_remove(own);
                }
                continue;
            }
            state.idle += 1;
            let waited = self.more.wait_for(&mut state, IDLE);
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}
