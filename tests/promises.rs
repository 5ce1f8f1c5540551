//! What users are promised, asked of routers that run: a module per promise.
//!
//! The number of requests in a row is `VLM_TEST_ROUNDS` (default 1,000; the promise is kept for 10,000 and more).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails a fixture fails its test")]

mod common;

#[path = "promises/agents.rs"]
mod agents;
#[path = "promises/directory.rs"]
mod directory;
#[path = "promises/failures.rs"]
mod failures;
#[path = "promises/hostile.rs"]
mod hostile;
#[path = "promises/inbox.rs"]
mod inbox;
#[path = "promises/limits.rs"]
mod limits;
#[path = "promises/local.rs"]
mod local;
#[path = "promises/outcomes.rs"]
mod outcomes;
#[path = "promises/requests.rs"]
mod requests;
#[path = "promises/routing.rs"]
mod routing;
#[path = "promises/shutdown.rs"]
mod shutdown;
#[path = "promises/siege.rs"]
mod siege;
#[path = "promises/sockets.rs"]
mod sockets;
