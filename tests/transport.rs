//! One contract, kept by every transport: the simulated network, nng over ipc, nng over TCP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "transport/contract.rs"]
mod contract;
#[path = "transport/memory_only.rs"]
mod memory_only;
#[path = "transport/nng_only.rs"]
mod nng_only;
#[path = "transport/world.rs"]
mod world;
