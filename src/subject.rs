//! The subjects that routers and directories use. Contents in brackets.

/// An attempt to reach an address failed \[the address\]; reply id is the message's; `meta` holds `reason` and `place`.
pub const MSG_NOT_DELIVERED: &str = "MSG_NOT_DELIVERED";
/// The receiver has no handler for a subject \[the subject\].
pub const DOES_NOT_UNDERSTAND: &str = "DOES_NOT_UNDERSTAND";
/// Are you there \[null\]; answered with PING \[null\].
pub const PING: &str = "PING";
/// Close your router \[anything\]; never answered, and only agents that allow it obey.
pub const SHUTDOWN: &str = "SHUTDOWN";
/// The first message of a dialed connection \[an endpoint that the dialer listens at\].
pub const SET_ROUTE_BACK_TO_ME: &str = "SET_ROUTE_BACK_TO_ME";
/// To the own directory \[entry\]; answered with true.
pub const REGISTER_ENTRY: &str = "REGISTER_ENTRY";
/// To the own directory \[entry\]; answered with true.
pub const UNREGISTER_ENTRY: &str = "UNREGISTER_ENTRY";
/// To the own directory \[address\]: all its entries; answered with true.
pub const UNREGISTER_ADDR: &str = "UNREGISTER_ADDR";
/// To any directory \[service or null\]; answered with a list of entries.
pub const GET_ENTRIES: &str = "GET_ENTRIES";
/// To a hub's directory \[list of entries\]; answered with a list of entries.
pub const SHARE_ENTRIES: &str = "SHARE_ENTRIES";
/// From a directory that could not read what was shared \[null\].
pub const BAD_ENTRIES: &str = "BAD_ENTRIES";
/// To a network hub's directory \[null\]; answered with a list of vnet names.
pub const GET_VNETS: &str = "GET_VNETS";
/// Between Rust directories only \[what is known, what is new, who is gone\]; not answered.
pub const SYNC_ENTRIES: &str = "SYNC_ENTRIES";
/// To a Rust directory: what it holds and since when \[list of two: a service or null, an address or null\]; answered with a [`DirectoryView`](crate::DirectoryView).
pub const GET_VIEW: &str = "GET_VIEW";
