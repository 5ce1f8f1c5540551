//! Where a message goes and where its answer goes: three parts, each of which may be absent.
//!
//! On the wire, and as contents, an address is a list of three: tcp endpoint, ipc endpoint, connection number. Endpoints are
//! compared as text: `tcp://localhost:1` and `tcp://127.0.0.1:1` are two endpoints.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The connection number of every router's directory.
pub const DIRECTORY: u64 = 1;

/// Where a router listens: `ipc:///tmp/router_4021` or `tcp://127.0.0.1:30001`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(Arc<Text>);

/// One pointer, so that addresses, which go with every message, are small.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Text(Box<str>);

/// What carries messages to an [`Endpoint`], told by the text before `://`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// A unix socket; the rest of the endpoint is its absolute path.
    Ipc,
    /// A TCP address; the rest of the endpoint is `host:port`.
    Tcp,
    /// Neither: such an endpoint can be named but not reached.
    Unknown,
}

/// The address of a connection: machine on a network, router on a machine, connection in a router.
///
/// An absent part means "here": an address of only a connection number is one of the same router.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Addr {
    /// The tcp endpoint of the router, or of the machine's gateway to it.
    pub net: Option<Endpoint>,
    /// The ipc endpoint of the router.
    pub machine: Option<Endpoint>,
    /// The connection number; absent only where nobody can be answered.
    pub connection: Option<u64>,
}

/// Text that is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address: write it as tcp|ipc|number, for example |ipc:///tmp/router_1|3")]
pub struct ParseAddrError {
    /// The text as given.
    pub text: String,
}

impl Endpoint {
    /// The endpoint of this text, as it is: whether it can be reached is told when it is dialed.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self::from(text.as_ref())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.0
    }

    /// What carries messages there.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        // Asked for every message: told by the first bytes.
        match self.as_str().as_bytes() {
            [b'i', b'p', b'c', b':', b'/', b'/', ..] => Scheme::Ipc,
            [b't', b'c', b'p', b':', b'/', b'/', ..] => Scheme::Tcp,
            _ => Scheme::Unknown,
        }
    }

    /// What follows `://`: a path, or `host:port`.
    #[must_use]
    pub fn rest(&self) -> &str {
        match self.scheme() {
            Scheme::Unknown => self.as_str().split_once("://").map_or("", |(_, rest)| rest),
            Scheme::Ipc | Scheme::Tcp => &self.as_str()["ipc://".len()..],
        }
    }

    /// The last part of the path, or `host:port`: how an endpoint is shown to people.
    #[must_use]
    pub fn short(&self) -> &str {
        match self.scheme() {
            Scheme::Ipc => self.as_str().rsplit('/').next().unwrap_or(self.as_str()),
            Scheme::Tcp => self.rest(),
            Scheme::Unknown => self.as_str(),
        }
    }
}

impl Addr {
    /// The address of connection `number` of the same router.
    #[must_use]
    pub fn local(number: u64) -> Self {
        Self { net: None, machine: None, connection: Some(number) }
    }

    /// The address of connection `number` of the router that listens at `endpoint`, ipc or tcp.
    #[must_use]
    pub fn at(endpoint: Endpoint, number: u64) -> Self {
        match endpoint.scheme() {
            Scheme::Tcp => Self { net: Some(endpoint), machine: None, connection: Some(number) },
            _ => Self { net: None, machine: Some(endpoint), connection: Some(number) },
        }
    }

    /// The same router's connection `number`.
    #[must_use]
    pub fn with_connection(&self, number: u64) -> Self {
        Self { connection: Some(number), ..self.clone() }
    }

    /// Whether all three parts are absent: nobody can be answered there.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.net.is_none() && self.machine.is_none() && self.connection.is_none()
    }
}

impl From<&str> for Endpoint {
    fn from(text: &str) -> Self {
        Self(Arc::new(Text(text.into())))
    }
}

impl From<String> for Endpoint {
    fn from(text: String) -> Self {
        Self(Arc::new(Text(text.into())))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `<127.0.0.1:30001::router_4021::7>`, absent parts left out.
impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<")?;
        for endpoint in [&self.net, &self.machine].into_iter().flatten() {
            write!(f, "{}::", endpoint.short())?;
        }
        match self.connection {
            Some(number) => write!(f, "{number}>"),
            None => f.write_str("->"),
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads `tcp|ipc|number` with an empty part for an absent one, as the Python programs take it.
impl FromStr for Addr {
    type Err = ParseAddrError;

    fn from_str(text: &str) -> Result<Self, ParseAddrError> {
        let wrong = || ParseAddrError { text: text.into() };
        let parts: Vec<&str> = text.split('|').collect();
        let &[net, machine, number] = parts.as_slice() else {
            return Err(wrong());
        };
        let endpoint = |part: &str| (!part.is_empty()).then(|| Endpoint::from(part));
        let connection = if number.is_empty() { None } else { Some(number.parse().map_err(|_| wrong())?) };
        Ok(Self { net: endpoint(net), machine: endpoint(machine), connection })
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl Serialize for Addr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.net, &self.machine, &self.connection).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Addr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(deserializer).map(|(net, machine, connection)| Self { net, machine, connection })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_short_and_read_from_bars() {
        let addr: Addr = "tcp://127.0.0.1:30001|ipc:///tmp/router_4021|7".parse().unwrap();
        assert_eq!(addr.to_string(), "<127.0.0.1:30001::router_4021::7>");
        assert_eq!("|ipc:///tmp/router_4021|7".parse::<Addr>().unwrap().to_string(), "<router_4021::7>");
        assert_eq!("||7".parse::<Addr>().unwrap(), Addr::local(7));
        assert!("ipc:///tmp/router_1".parse::<Addr>().is_err());
        assert!("||seven".parse::<Addr>().is_err());
        assert!(Addr::default().is_null());
    }
}
