//! Who is to be reached: a service's providers, or an address.

use std::sync::Arc;
use std::time::Duration;

use vlmessaging::{Connection, Entry, FindError, JoinError, Router};

use super::sink;
use crate::outcome::{Exit, Failure};
use crate::signals::Stop;

/// How long another Python directory may take to tell what it knows. Default 2 s: it is asked once a second.
pub(crate) const LOOKUP: &str = "2000";

/// The providers of a service, nearest first, as soon as one is known.
pub(crate) async fn providers(
    router: &Router,
    conn: &Connection,
    service: &str,
    limit: Duration,
    stop: &Stop,
) -> Result<Vec<Arc<Entry>>, Failure> {
    match stop.or(conn.find(service).first_within(limit)).await {
        Some(Ok(_)) => Ok(conn.find(service).all()),
        Some(Err(error)) => Err(nobody(router, &error).await),
        None => {
            Err(Failure::new(Exit::NotFound, format!("interrupted before somebody who provides {service:?} was found")))
        }
    }
}

/// Tells apart that nobody provides it and that nobody could be asked.
async fn nobody(router: &Router, error: &FindError) -> Failure {
    let FindError::Nobody { service, .. } = error else { return Failure::new(Exit::NotFound, error.to_string()) };
    if let Err(silent) = router.joined(Duration::ZERO).await {
        return no_hub(&silent);
    }
    let provider =
        if service == sink::SERVICE { "vlm sink".into() } else { format!("vlm agent add-one --service {service}") };
    Failure::new(Exit::NotFound, error.to_string())
        .next(format!("correct the name, or start a provider, for example: {provider}"))
}

/// The failure of finding nobody who knows the network.
pub(crate) fn no_hub(error: &JoinError) -> Failure {
    let JoinError::Silent { hub, .. } = error else { return Failure::new(Exit::NotFound, error.to_string()) };
    Failure::new(Exit::NotFound, format!("no hub answers at {hub}, so nobody can be found"))
        .next("start one with `vlm hub`, or any agent, which is the hub if nobody else is: vlm agent add-one")
}
