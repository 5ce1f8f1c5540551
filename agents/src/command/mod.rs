//! One command to a file. Each has its options as a struct, and `run`, which ends in an exit status or a failure.

pub(crate) mod agent;
pub(crate) mod burst;
pub(crate) mod call;
pub(crate) mod check;
pub(crate) mod codec;
pub(crate) mod hub;
mod look;
pub(crate) mod ls;
mod notation;
pub(crate) mod ping;
mod progress;
pub(crate) mod sink;
mod target;
pub(crate) mod why;
