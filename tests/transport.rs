//! One contract, kept by every transport: the simulated network, and every kind of sockets over ipc and TCP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "transport/contract.rs"]
mod contract;
#[path = "transport/memory_only.rs"]
mod memory_only;
#[path = "transport/sockets_only.rs"]
mod sockets_only;
#[path = "transport/world.rs"]
mod world;
