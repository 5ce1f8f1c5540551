//! What a router counts, to be looked at and never to be decided on.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident by $count:ident),* $(,)?) => {
        /// What a router has counted since it started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $field: u64,)*
        }

        #[derive(Default)]
        pub(crate) struct Counters {
            $($field: AtomicU64,)*
        }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                Stats { $($field: self.$field.load(Ordering::Relaxed),)* }
            }

            $(pub(crate) fn $count(&self) {
                self.$field.fetch_add(1, Ordering::Relaxed);
            })*
        }
    };
}

counters! {
    /// Frames that could not be read, or came from a life of a peer that has ended.
    refused_frames by refused_frame,
    /// Answers that nobody waited for any more.
    late_replies by late_reply,
    /// Messages that did not reach a handler, as this router saw it.
    undelivered by undelivered,
    /// Those of them whose sender could not be told.
    untold by untold,
    /// Reports that a connection without an agent had no room for.
    dropped_reports by reports_dropped,
}
