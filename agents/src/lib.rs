//! Ready-made agents, to try a network with and to learn from.
//!
//! | agent | answers |
//! | --- | --- |
//! | [`AddOne`] | `ADD_ONE`, `ECHO`, `STATS`; counts `EVENT` |
//! | [`Sink`] | `COUNT`, `RESET`; counts `EVENT` and notices gaps in order |

mod add_one;
mod sink;

pub use add_one::AddOne;
pub use sink::Sink;
