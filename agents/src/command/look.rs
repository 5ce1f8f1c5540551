//! What `vlm why` and `vlm check` share: every directory of the network, asked what it holds.

use std::time::Duration;

use futures::future::join_all;
use vlmessaging::{Addr, Connection, DIRECTORY, DirectoryView, Known, RequestError, Router, subject};

/// What a directory was asked, and said.
pub(crate) struct Looked {
    pub(crate) home: Addr,
    /// None of a Python router, whose directory explains nothing.
    pub(crate) view: Option<Result<DirectoryView, String>>,
}

/// Asks every directory that this router knows, its own first, all at once.
pub(crate) async fn look(
    router: &Router,
    conn: &Connection,
    service: Option<&str>,
    addr: Option<&Addr>,
    limit: Duration,
) -> Vec<Looked> {
    let known = router.known();
    join_all(known.iter().enumerate().map(|(at, known)| one(conn, at == 0, known, service, addr, limit))).await
}

async fn one(
    conn: &Connection,
    is_own: bool,
    known: &Known,
    service: Option<&str>,
    addr: Option<&Addr>,
    limit: Duration,
) -> Looked {
    let home = known.home.clone();
    if !known.is_rust {
        return Looked { home, view: None };
    }
    let to = if is_own { conn.directory() } else { home.with_connection(DIRECTORY) };
    let asked = (service.map(String::from), addr.cloned());
    let mut answer = conn.request(to.clone(), subject::GET_VIEW, asked.clone(), limit).await;
    if let (Err(RequestError::NotSent(_)), Some(_)) = (&answer, &to.net) {
        // A router of this machine that listens on the network, too: this one may reach it by unix socket alone.
        answer = conn.request(Addr { net: None, ..to }, subject::GET_VIEW, asked, limit).await;
    }
    let view = answer
        .map_err(|error| error.to_string())
        .and_then(|answer| answer.contents::<DirectoryView>().map_err(|error| error.to_string()));
    Looked { home, view: Some(view) }
}
