//! `vlm hub`: a router at which the others of the machine, or of the network, find each other.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::outcome::{Exit, Failure, print, print_json};
use crate::place::{self, Place};
use crate::signals::Stop;

/// How long it is waited for whoever is the hub. Default 1 s: a Python one takes a third of that.
const SETTLING: Duration = Duration::from_secs(1);

/// Run a router as the machine's hub, at which the others find each other
#[derive(Args)]
#[allow(clippy::struct_field_names, reason = "fields are named as their options")]
pub(crate) struct Hub {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Be the hub at this ipc endpoint instead of the machine's
    #[arg(long, value_name = "IPC")]
    hub_listen: Option<String>,
    /// Virtual network that is shared over tcp; repeatable
    #[arg(long, value_name = "VNET")]
    vnet: Vec<String>,
    /// End after so long [default: Ctrl-C ends it]
    #[arg(long, value_parser = place::read_seconds)]
    seconds: Option<Duration>,
}

impl Hub {
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let stop = Stop::on_signals()?;
        let mut place = self.place.clone();
        place.dir_vnet.extend(self.vnet);
        let router = place.host(self.hub_listen.as_deref()).start().await?;
        // Where another is the hub and does not answer, this one has said where it listens all the same.
        let _ = stop.or(router.joined(SETTLING)).await;
        let (ipc, tcp) = place::endpoints(&router);
        let hubs = ipc.get(1..).unwrap_or_default();
        if place.json {
            print_json(&json!({
                "event": "up", "pid": std::process::id(), "is_hub": !hubs.is_empty(), "mEps": ipc, "nEps": tcp,
                "vnets": place.dir_vnet, "directory": router.net_addr(vlmessaging::DIRECTORY),
            }));
        } else {
            for at in hubs.iter().chain(&tcp) {
                print(&format!("hub at {at}"));
            }
            if hubs.is_empty() && !place.no_hub && place.hub.is_empty() && place.net_hub.is_empty() {
                eprintln!("vlm: another router is the machine's hub; this one takes its place when it is gone");
            }
        }
        stop.asked_within(self.seconds).await;
        let known = router.known().len() - 1;
        let stats = place::stats(router.stats());
        let closed = place::close(&router).await;
        if place.json {
            print_json(&json!({
                "program": "vlm hub", "ok": closed, "routers": known, "closed": closed, "stats": stats,
            }));
        }
        if closed { Ok(Exit::Ok) } else { Err(place::not_closed()) }
    }
}
