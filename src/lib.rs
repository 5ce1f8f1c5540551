//! Very light peer-to-peer messaging and an agent runtime that tells the truth about failure.

mod addr;
mod agent;
mod config;
mod connection;
mod contents;
mod directory;
mod error;
mod failure;
mod link;
mod msg;
mod port;
mod router;
pub mod subject;
#[doc(hidden)]
pub mod transport;
mod value;
#[doc(hidden)]
pub mod wire;

pub use addr::{Addr, DIRECTORY, Endpoint, ParseAddrError, Scheme};
pub use agent::{Agent, Spawned, Supervised};
pub use config::Limits;
pub use connection::Connection;
pub use contents::{Contents, ContentsError, IntoContents};
pub use directory::{Entry, Find, LOCAL_VNET, Register, Registration};
pub use error::{Error, FindError, RegisterError, RequestError, SendError, StartError};
pub use failure::{NotDelivered, Reason};
pub use msg::{Handled, Msg};
pub use router::{FOLDER_VARIABLE, Mode, Router, RouterBuilder, Stats};
pub use transport::{DialError, ListenError};
pub use value::Value;
pub use wire::Element;
