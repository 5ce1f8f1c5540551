//! Where in the network a command's router stands: the options that all commands with a router share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use vlmessaging::{Addr, Endpoint, Router, RouterBuilder, Scheme, Sockets, Stats};

use crate::outcome::{Exit, Failure};

/// How long a router may take to end. Default 5 s: it gives itself two, and the transport a moment more.
const CLOSING: Duration = Duration::from_secs(5);

/// Where the command's router listens and which hubs it joins.
#[derive(Args, Clone)]
pub(crate) struct Place {
    /// Print JSON, one object to a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Folder of the machine's sockets [default: $VLM_FOLDER, else /tmp]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,
    /// Which sockets it uses, nng or sp; on the wire they are the same [default: $VLM_SOCKETS, else nng]
    #[arg(long, value_name = "KIND")]
    pub(crate) sockets: Option<Sockets>,
    /// How far the router reaches [default: network if an option names a tcp endpoint, else machine]
    #[arg(long, value_enum)]
    pub(crate) mode: Option<Mode>,
    /// Join the hub at this ipc endpoint instead of the machine's; repeatable
    #[arg(long, value_name = "IPC")]
    pub(crate) hub: Vec<String>,
    /// Join no hub of the machine
    #[arg(long)]
    pub(crate) no_hub: bool,
    /// Join the hub at this tcp endpoint, instead of the machine's; repeatable
    #[arg(long, value_name = "TCP")]
    pub(crate) net_hub: Vec<String>,
    /// Listen at this tcp endpoint; port 0 for any
    #[arg(long, value_name = "TCP")]
    pub(crate) net_listen: Option<String>,
    /// Virtual network that the router takes part in; repeatable
    #[arg(long, value_name = "VNET")]
    pub(crate) dir_vnet: Vec<String>,
}

/// How far a router reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Unix sockets.
    Machine,
    /// Unix sockets and TCP.
    Network,
}

impl Place {
    /// The router of a command that asks and goes: it never becomes the machine's hub.
    pub(crate) fn guest(&self, to: Option<&Addr>) -> RouterBuilder {
        let builder = self.router(to.is_some_and(|to| to.net.is_some())).guest();
        // Who is given an address asks no directory.
        if to.is_some() { builder.without_hub() } else { builder }
    }

    /// The router of an agent, which may become the machine's hub.
    pub(crate) fn host(&self, hub_listen: Option<&str>) -> RouterBuilder {
        let builder = self.router(false);
        match hub_listen {
            Some(at) => builder.without_hub().listen(at),
            None => builder,
        }
    }

    /// How far the router of an agent reaches, as `--mode` says it.
    pub(crate) fn mode_name(&self) -> &'static str {
        if self.is_machine(false) { "machine" } else { "network" }
    }

    fn is_machine(&self, speaks_tcp: bool) -> bool {
        let speaks_tcp = speaks_tcp || self.net_listen.is_some() || !self.net_hub.is_empty();
        self.mode.map_or(!speaks_tcp, |mode| mode == Mode::Machine)
    }

    fn router(&self, speaks_tcp: bool) -> RouterBuilder {
        let mut builder = if self.is_machine(speaks_tcp) { Router::machine() } else { Router::network() };
        if let Some(sockets) = self.sockets {
            builder = builder.sockets(sockets);
        }
        if let Some(folder) = &self.folder {
            builder = builder.folder(folder);
        }
        if self.no_hub || !self.hub.is_empty() || !self.net_hub.is_empty() {
            builder = builder.without_hub();
        }
        builder = self.hub.iter().chain(&self.net_hub).fold(builder, |builder, hub| builder.join(hub.as_str()));
        builder = self.net_listen.iter().fold(builder, |builder, at| builder.listen(at.as_str()));
        self.dir_vnet.iter().fold(builder, vlmessaging::RouterBuilder::vnet)
    }
}

/// The ipc endpoints, and the tcp endpoints, that a router listens at.
pub(crate) fn endpoints(router: &Router) -> (Vec<Endpoint>, Vec<Endpoint>) {
    router.endpoints().into_iter().partition(|endpoint| endpoint.scheme() != Scheme::Tcp)
}

/// The address as the network knows it, if the router listens there.
pub(crate) fn on_network(router: &Router, addr: &Addr) -> Option<Addr> {
    let net = router.net_addr(0).net?;
    Some(Addr { net: Some(net), ..addr.clone() })
}

/// An address as it is typed: `tcp|ipc|number`.
pub(crate) fn typed(addr: &Addr) -> String {
    let text = |endpoint: &Option<Endpoint>| endpoint.as_ref().map_or(String::new(), ToString::to_string);
    let number = addr.connection.map_or(String::new(), |number| number.to_string());
    format!("{}|{}|{number}", text(&addr.net), text(&addr.machine))
}

/// Reads an address as it is typed, or as it is printed in JSON.
pub(crate) fn read_addr(text: &str) -> Result<Addr, String> {
    let addr: Addr = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|error| format!("an address in JSON is [tcp, ipc, number]: {error}"))?
    } else {
        text.parse().map_err(|error: vlmessaging::ParseAddrError| error.to_string())?
    };
    match (&addr.net, &addr.machine) {
        (None, None) => Err("it names no router: `vlm ls` shows addresses as they are typed".into()),
        _ => Ok(addr),
    }
}

/// Reads a time in milliseconds.
pub(crate) fn read_millis(text: &str) -> Result<Duration, String> {
    read_time(text, 1e-3)
}

/// Reads a time in seconds.
pub(crate) fn read_seconds(text: &str) -> Result<Duration, String> {
    read_time(text, 1.0)
}

fn read_time(text: &str, unit: f64) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "a number is asked for".to_string())?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

/// Ends a router in order; false if it did not within [`CLOSING`].
pub(crate) async fn close(router: &Router) -> bool {
    tokio::time::timeout(CLOSING, router.shutdown()).await.is_ok()
}

/// What a router has counted, by name.
pub(crate) fn stats(stats: Stats) -> serde_json::Value {
    serde_json::json!({
        "refused_frames": stats.refused_frames,
        "late_replies": stats.late_replies,
        "undelivered": stats.undelivered,
        "untold": stats.untold,
        "dropped_reports": stats.dropped_reports,
    })
}

/// The failure of a router that did not end.
pub(crate) fn not_closed() -> Failure {
    Failure::new(Exit::Failed, format!("the router did not end within {CLOSING:?}"))
}
