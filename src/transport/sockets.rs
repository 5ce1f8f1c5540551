//! What transports over real sockets share: which endpoints can be, and how many sockets there may be.

use std::sync::Once;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::{DialError, ListenError, claim};
use crate::addr::{Endpoint, Scheme};

/// What the system would not say clearly, or not at once.
pub(in crate::transport) fn check_dialable(to: &Endpoint) -> Result<(), DialError> {
    let fault = match to.scheme() {
        Scheme::Ipc => claim::path_fault(to.rest()),
        Scheme::Tcp => match host_and_port(to.rest()) {
            Ok((_, 0)) => Some("port 0 cannot be dialed".into()),
            Ok(("" | "*", _)) => Some("the host is missing".into()),
            Ok(_) => None,
            Err(reason) => Some(reason.into()),
        },
        Scheme::Unknown => Some(NO_SCHEME.into()),
    };
    fault.map_or(Ok(()), |reason| Err(DialError::Invalid(reason)))
}

pub(in crate::transport) const NO_SCHEME: &str = "an endpoint begins with ipc:// or tcp://";

pub(in crate::transport) fn host_and_port(text: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("a tcp endpoint is tcp://host:port")?;
    let port = port.parse().map_err(|_| "the port is not a number up to 65535")?;
    if host.contains(['/', '?', '#', '@']) {
        return Err("a tcp endpoint is tcp://host:port");
    }
    Ok((host, port))
}

/// The endpoint as bound: port 0 became a real one.
pub(in crate::transport) fn with_port(at: &Endpoint, port: Option<u16>) -> Endpoint {
    match (port, at.as_str().strip_suffix(":0")) {
        (Some(port), Some(host)) => Endpoint::from(format!("{host}:{port}")),
        _ => at.clone(),
    }
}

pub(in crate::transport) fn invalid(at: &Endpoint, reason: impl Into<String>) -> ListenError {
    ListenError::Invalid { at: at.clone(), reason: reason.into() }
}

/// Every pipe is a descriptor, and the usual soft limit of 1,024 is reached by a few hundred peers.
pub(in crate::transport) fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            limit.current = limit.maximum;
            if let Err(error) = setrlimit(Resource::Nofile, limit) {
                tracing::warn!(%error, "the limit of open descriptors stays as it is");
            }
        }
    });
}
