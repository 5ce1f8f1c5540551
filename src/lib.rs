//! Very light peer-to-peer messaging and agent runtime.

mod addr;
#[doc(hidden)]
pub mod transport;
#[doc(hidden)]
pub mod wire;

pub use addr::{Addr, DIRECTORY, Endpoint, ParseAddrError, Scheme};
