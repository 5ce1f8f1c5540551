//! The limit of one wait, on a timer that was used before: setting one of tokio's anew costs a fraction of making one.
//!
//! A timer that is kept holds on to the task that waited last, until it is used again or goes off: at most [`KEPT`] on a thread.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Timers that an arbiter keeps for the next wait. Default 256, of about a hundred bytes each: beyond so many waits at once they are made and dropped.
const KEPT: usize = 256;

/// Tells arbiters apart.
static NUMBER: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static IDLE: RefCell<Idle> = const { RefCell::new(Idle { arbiter: None, timers: Vec::new() }) };
}

/// What a thread keeps for the arbiter that runs on it: timers are of no use to any other. One that is kept may still go off, for nobody, at the end of the wait that it was made for.
struct Idle {
    arbiter: Option<u64>,
    timers: Vec<Pin<Box<Sleep>>>,
}

struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    arbiter: Option<u64>,
}

/// What `future` comes to; none if that takes longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut alarm, mut future) = (Alarm::after(limit), pin!(future));
    poll_fn(|task| match future.as_mut().poll(task) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => alarm.poll(task).map(|()| None),
    })
    .await
}

impl Alarm {
    fn after(limit: Duration) -> Self {
        let (arbiter, kept) = take();
        let timer = match (kept, Instant::now().checked_add(limit)) {
            (Some(mut timer), Some(at)) => {
                timer.as_mut().reset(at);
                timer
            }
            // One that never comes is tokio's to think of.
            _ => Box::pin(tokio::time::sleep(limit)),
        };
        Self { timer: Some(timer), arbiter }
    }

    fn poll(&mut self, task: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().map_or(Poll::Ready(()), |timer| timer.as_mut().poll(task))
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // A thread that ends keeps nothing.
        let _ = IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            if self.arbiter.is_some() && idle.arbiter == self.arbiter && idle.timers.len() < KEPT {
                idle.timers.extend(self.timer.take());
            }
        });
    }
}

/// The present arbiter, if there is one, and a timer that it has kept.
fn take() -> (Option<u64>, Option<Pin<Box<Sleep>>>) {
    let look = || {
        IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            (idle.arbiter, idle.timers.pop())
        })
        .unwrap_or_default()
    };
    let (arbiter, timer) = look();
    if arbiter.is_none() && actix::Arbiter::try_current().is_some() && tokio::runtime::Handle::try_current().is_ok() {
        IDLE.with_borrow_mut(|idle| idle.arbiter = Some(NUMBER.fetch_add(1, Ordering::Relaxed)));
        let guard = Guard;
        actix::spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        return look();
    }
    (arbiter, timer)
}

/// Lets go of what is kept when the arbiter ends.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        let kept = IDLE.try_with(|idle| idle.replace(Idle { arbiter: None, timers: Vec::new() }));
        drop(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> usize {
        IDLE.with_borrow(|idle| idle.timers.len())
    }

    #[test]
    fn timers_are_used_again_and_let_go_of_with_their_arbiter() {
        for _ in 0..2 {
            actix::System::new().block_on(async {
                for round in 0..20 {
                    let never = std::future::pending::<()>();
                    let began = Instant::now();
                    assert_eq!(within(Duration::from_millis(20), async { round }).await, Some(round));
                    assert_eq!(within(Duration::from_millis(2), never).await, None);
                    assert!(began.elapsed() >= Duration::from_millis(2));
                    assert_eq!(kept(), 1);
                }
                let many = (0..KEPT + 10).map(|_| within(Duration::from_millis(1), std::future::pending::<()>()));
                assert!(futures::future::join_all(many).await.iter().all(Option::is_none));
                assert_eq!(kept(), KEPT);
            });
            assert_eq!(kept(), 0);
        }
    }
}
