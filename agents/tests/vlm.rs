//! What `vlm` promises at the terminal: two of them find each other, every failure has a text and an exit status, nothing is left behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "vlm/codec.rs"]
mod codec;
#[path = "vlm/commands.rs"]
mod commands;
#[path = "vlm/directory.rs"]
mod directory;
#[path = "vlm/failures.rs"]
mod failures;
#[path = "vlm/fixture.rs"]
mod fixture;
