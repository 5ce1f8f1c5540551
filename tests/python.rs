//! What holds between this library and the Python package that it shares a wire with: programs of both call, find and outlive each other.
//!
//! The Python programs are `node.py` beside the modules; they run in an environment that the first test to need it
//! installs under `target/python`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

// Tests begin in the order of their names: the longest first, so that the others run beside it.
#[path = "python/soak.rs"]
mod a_soak;
#[path = "python/calls.rs"]
mod calls;
#[path = "python/discovery.rs"]
mod discovery;
#[path = "python/environment.rs"]
mod environment;
#[path = "python/examples.rs"]
mod examples;
#[path = "python/failures.rs"]
mod failures;
#[path = "python/kinds.rs"]
mod kinds;
#[path = "python/messages.rs"]
mod messages;
#[path = "python/network.rs"]
mod network;
#[path = "python/node.rs"]
mod node;
#[path = "python/peer.rs"]
mod peer;
#[path = "python/rebirth.rs"]
mod rebirth;
#[path = "python/refusals.rs"]
mod refusals;
