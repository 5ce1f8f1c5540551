//! What a connection provides: one line of the directory.
//!
//! As contents an entry is a list of five: address (a list of three), service, params, vnets, perms.

use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::addr::Addr;
use crate::value::Value;

/// The vnet of the machine: entries in it are shared with the other routers of the machine.
pub const LOCAL_VNET: &str = "local";

/// Who provides what, and who may see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The connection that provides it.
    pub addr: Addr,
    /// What is provided, by name.
    pub service: String,
    /// What exactly: usually a map; null if the name says all.
    pub params: Value,
    /// The virtual networks that it is shared in; none: it stays in its router.
    pub vnets: Vec<String>,
    /// Who may see and use it, for programs to look at: nothing here acts on it.
    pub perms: Value,
}

/// A router, as the directory of another knows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Known {
    /// Where it is; the connection number is absent.
    pub home: Addr,
    /// Whether it is one of this library; if not, Python's.
    pub is_rust: bool,
    /// What it provides, as far as the router that was asked may see it.
    pub entries: Vec<Entry>,
}

impl Entry {
    /// Whether this is the service asked for, with equal values on the keys asked for.
    #[must_use]
    pub fn provides(&self, service: &str, params: &Value) -> bool {
        self.service == service && self.params.satisfies(params)
    }

    /// Whether both stand for the same thing provided by the same connection.
    pub(crate) fn is_same(&self, other: &Entry) -> bool {
        self.addr == other.addr && self.service == other.service && self.params == other.params
    }

    pub(crate) fn is_in(&self, vnets: &[String]) -> bool {
        self.vnets.iter().any(|vnet| vnets.contains(vnet))
    }
}

impl From<Entry> for Addr {
    fn from(entry: Entry) -> Self {
        entry.addr
    }
}

impl From<&Entry> for Addr {
    fn from(entry: &Entry) -> Self {
        entry.addr.clone()
    }
}

impl From<&Arc<Entry>> for Addr {
    fn from(entry: &Arc<Entry>) -> Self {
        entry.addr.clone()
    }
}

impl From<Arc<Entry>> for Addr {
    fn from(entry: Arc<Entry>) -> Self {
        entry.addr.clone()
    }
}

impl From<&Addr> for Addr {
    fn from(addr: &Addr) -> Self {
        addr.clone()
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.addr, &self.service, &self.params, &self.vnets, &self.perms).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an entry: a list of address, service, params, vnets and perms")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entry, A::Error> {
        fn part<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(seq: &mut A, index: usize) -> Result<T, A::Error> {
            seq.next_element()?.ok_or_else(|| de::Error::invalid_length(index, &EntryVisitor))
        }
        let entry = Entry {
            addr: part(&mut seq, 0)?,
            service: part(&mut seq, 1)?,
            params: part(&mut seq, 2)?,
            vnets: part::<Option<Vec<String>>, A>(&mut seq, 3)?.unwrap_or_default(),
            perms: part(&mut seq, 4)?,
        };
        // The reference reads longer lists too.
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(entry)
    }
}
