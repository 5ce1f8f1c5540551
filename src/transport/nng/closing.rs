//! The one thread of the process that closes sockets and frees operations: both wait for nng, which must never hold up
//! anybody else. A step that takes longer than five seconds is reported and left behind, with everything queued after it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::sys::CLOSE_LIMIT;
use crate::transport::workers::Workers;

static CLOSER: Workers = Workers::new("vlm-nng-close", 1);
static REPORTED: AtomicBool = AtomicBool::new(false);

/// Runs `step` after those queued before it.
pub(super) fn run(step: impl FnOnce() + Send + 'static) {
    CLOSER.run(Box::new(step));
    if is_stuck() && !REPORTED.swap(true, Ordering::AcqRel) {
        tracing::error!(
            "closing an nng socket hangs; it and those closed after it are left behind, and the end of a pipe may be told late"
        );
    }
}

/// Whether a close has hung for five seconds.
pub(super) fn is_stuck() -> bool {
    CLOSER.longest().is_some_and(|took| took > CLOSE_LIMIT)
}

/// How many steps wait or run.
pub(super) fn backlog() -> usize {
    CLOSER.backlog()
}
