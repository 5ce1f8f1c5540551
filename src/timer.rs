//! Calls at a later time, for as long as a connection is open. Agents have actix's own: `ctx.run_later` and `ctx.run_interval`.

use std::sync::Arc;
use std::time::Duration;

use actix::clock::{Instant, interval_at, sleep};
use tokio::task::JoinHandle;

use crate::port::Port;

/// A call to come. Dropping this does not cancel it.
#[derive(Debug)]
pub struct Timer(JoinHandle<()>);

impl Timer {
    pub(crate) fn after(port: Arc<Port>, delay: Duration, call: impl FnOnce() + 'static) -> Self {
        Self(actix::spawn(async move {
            sleep(delay).await;
            if port.is_open() {
                call();
            }
        }))
    }

    pub(crate) fn every(port: Arc<Port>, period: Duration, mut call: impl FnMut() + 'static) -> Self {
        Self(actix::spawn(async move {
            let mut times = interval_at(Instant::now() + period, period);
            loop {
                times.tick().await;
                if !port.is_open() {
                    return;
                }
                call();
            }
        }))
    }

    /// Cancels what has not been called yet.
    pub fn cancel(self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::Router;

    #[actix::test]
    async fn calls_come_in_time_until_cancelled_or_the_connection_is_closed() {
        let router = Router::local().start().await.unwrap();
        let conn = router.connect();
        let calls = Rc::new(Cell::new(0));
        let count = |by: i32| {
            let calls = calls.clone();
            move || calls.set(calls.get() + by)
        };
        let (done, called) = tokio::sync::oneshot::channel();
        let every = conn.every(Duration::from_millis(1), count(1));
        conn.after(Duration::from_millis(2), count(1000)).cancel();
        conn.after(Duration::from_millis(20), move || done.send(()).unwrap());
        called.await.unwrap();
        every.cancel();
        assert!((1..1000).contains(&calls.get()), "{}", calls.get());

        let closed = conn.after(Duration::from_millis(1), count(5000));
        drop(conn);
        closed.0.await.unwrap();
        assert!(calls.get() < 1000);
        router.shutdown().await;
    }
}
