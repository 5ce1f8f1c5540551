//! Limits of a router, each with its unit, its default, and why that.

use std::time::Duration;

/// What a router holds at most, and how long it waits. Every queue of a router has one of these as its bound.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one encoded message. Default 16 MiB: large tables pass, and a hundred peers that each send one still fit into memory.
    /// Announced to Rust peers, which refuse to send more.
    pub message: usize,
    /// Messages waiting in one agent's mailbox or in its async handlers. Default 16,384: a burst of ten thousand requests fits, and costs about 5 MiB without contents.
    /// As many reports of messages that were not delivered have room beside them; a connection without an agent keeps as many until it asks, and counts more in
    /// [`Stats::dropped_reports`](crate::Stats::dropped_reports).
    pub mailbox: usize,
    /// Bytes waiting to be sent to one peer, or sent and not yet acknowledged. Default 4 MiB: what TCP itself takes in before a stalled receiver is felt.
    /// One larger message travels alone. Answers and reports may take 64 times that, so that requests leave room for them.
    pub link: usize,
    /// Messages to one agent of another router whose outcome is not known: [`send`](crate::Connection::send) waits beyond. Default 8,192: half a mailbox, so that one sender does not
    /// fill it, and two milliseconds of what a link carries at most. Half the other router's mailbox where that is less.
    pub ahead: usize,
    /// What a message waits at most for its outcome, once it was taken for another router, or for an agent of this one that gets to it: then its sender is told
    /// [`Reason::NoOutcome`](crate::Reason::NoOutcome), or [`Reason::Expired`](crate::Reason::Expired) if it was never sent. Default 60 s: four times what an agent takes for a full mailbox at a thousand a second.
    pub outcome: Duration,
    /// What [`send`](crate::Connection::send) waits at most for room. Default 10 s: far above the time that a working agent takes to make some, and the end of agents that wait for each
    /// other in a circle.
    pub room: Duration,
    /// Bytes of messages from other routers that their agents have not dealt with, in all; those of up to a kilobyte do not count. Default 256 MiB: sixteen of the largest. What
    /// has no room is told `mailbox full`. Answers may take as much again.
    pub unhandled: usize,
    /// Attempt to connect to another router. Default 2 s: far above any handshake on a healthy network, and a person still waits for it.
    pub connect: Duration,
    /// Contents that only a Rust router can read wait this long for the peer to say it is one. Default 250 ms: an answering hello takes two to five.
    pub introduction: Duration,
    /// How often a message may be passed on from router to router. Default 16: the longest sensible way has three.
    pub hops: u32,
    /// What `shutdown` waits at most for messages on their way out. Default 2 s: one round of retries, shorter than a service manager's patience.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: 16 << 20,
            mailbox: 16_384,
            link: 4 << 20,
            ahead: 8192,
            outcome: Duration::from_mins(1),
            room: Duration::from_secs(10),
            unhandled: 256 << 20,
            connect: Duration::from_secs(2),
            introduction: Duration::from_millis(250),
            hops: 16,
            shutdown: Duration::from_secs(2),
        }
    }
}
