//! What the wire promises: Python's messages are read as Python reads them, what Python would refuse is refused by name, values
//! come back as they were, and bytes from outside cost time in proportion to their length and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "wire/frames.rs"]
mod frames;
#[path = "wire/hostile.rs"]
mod hostile;
#[path = "../fuzz/fuzz_targets/run.rs"]
mod run;
#[path = "wire/shapes.rs"]
mod shapes;
#[path = "wire/values.rs"]
mod values;
#[path = "wire/vectors.rs"]
mod vectors;
