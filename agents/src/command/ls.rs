//! `vlm ls`: who provides what, and which routers there are, as the network says now.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use vlmessaging::{Change, Entry, Known, Router};

use super::target::{self, LOOKUP};
use crate::outcome::{Exit, Failure, print, print_json};
use crate::place::{self, Place, typed};
use crate::signals::Stop;
use crate::text::json_of_value;

/// List the entries and the routers of the network
#[derive(Args)]
pub(crate) struct Ls {
    /// Only entries of this service, and their routers
    service: Option<String>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Wait so long for the hubs to tell, in milliseconds
    #[arg(long, default_value = LOOKUP, value_parser = place::read_millis)]
    lookup_ms: Duration,
    /// Then tell what comes and goes, until Ctrl-C or for so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1e9", value_parser = place::read_seconds)]
    watch: Option<Duration>,
}

impl Ls {
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let stop = Stop::on_signals()?;
        let router = self.place.guest(None).start().await?;
        let joined = stop.or(router.joined(self.lookup_ms)).await;
        if let Some(limit) = self.watch {
            // Either way the time to end has come.
            let _ = tokio::time::timeout(limit, stop.or(self.follow(&router))).await;
            place::close(&router).await;
            return Ok(Exit::Ok);
        }
        // The first is the router of this command.
        let mut known = router.known().split_off(1);
        place::close(&router).await;
        if let Some(service) = &self.service {
            for router in &mut known {
                router.entries.retain(|entry| entry.service == *service);
            }
            known.retain(|router| !router.entries.is_empty());
        }
        let mut entries: Vec<(&Entry, &Known)> =
            known.iter().flat_map(|router| router.entries.iter().map(move |entry| (entry, router))).collect();
        entries.sort_by_key(|(entry, _)| (&entry.service, &entry.addr));
        if self.place.json {
            show_json(&entries, &known);
        } else if !known.is_empty() || matches!(joined, Some(Ok(()))) {
            show_table(&entries, &known);
        }
        match joined {
            Some(Err(silent)) => Err(target::no_hub(&silent)),
            _ if self.service.is_some() && entries.is_empty() => Err(self.nobody()),
            _ => Ok(Exit::Ok),
        }
    }

    /// Tells what is there, and what comes and goes.
    async fn follow(&self, router: &Router) {
        let conn = router.connect();
        let find = self.service.as_ref().map_or_else(|| conn.find_all(), |service| conn.find(service));
        let mut watch = find.watch();
        loop {
            let (mark, what, entry) = match watch.next().await {
                Change::Appeared(entry) => ("+", "appeared", entry),
                Change::Changed(entry) => ("~", "changed", entry),
                Change::Gone(entry) => ("-", "gone", entry),
                _ => continue,
            };
            let params = json_of_value(&entry.params);
            if self.place.json {
                print_json(&json!({
                    "kind": what, "service": entry.service, "params": params, "vnets": entry.vnets, "addr": entry.addr,
                }));
            } else {
                let params = params.filter(|params| !params.is_null()).map_or("-".into(), |params| params.to_string());
                print(&format!(
                    "{mark} {}  {params}  {}  {}",
                    entry.service,
                    entry.vnets.join(","),
                    typed(&entry.addr)
                ));
            }
        }
    }

    fn nobody(&self) -> Failure {
        let service = self.service.as_deref().unwrap_or_default();
        Failure::new(Exit::NotFound, format!("nobody provides {service:?}")).next("see what is provided: vlm ls")
    }
}

fn language(router: &Known) -> &'static str {
    if router.is_rust { "rust" } else { "python" }
}

fn show_json(entries: &[(&Entry, &Known)], known: &[Known]) {
    for (entry, router) in entries {
        print_json(&json!({
            "kind": "entry", "service": entry.service, "params": json_of_value(&entry.params), "vnets": entry.vnets,
            "addr": entry.addr, "router": language(router),
        }));
    }
    for router in known {
        let mut services: Vec<&str> = router.entries.iter().map(|entry| entry.service.as_str()).collect();
        services.sort_unstable();
        print_json(&json!({
            "kind": "router", "addr": router.home, "router": language(router), "services": services,
        }));
    }
}

fn show_table(entries: &[(&Entry, &Known)], known: &[Known]) {
    let shown =
        |params| json_of_value(params).filter(|params| !params.is_null()).map_or("-".into(), |it| it.to_string());
    let mut rows = vec![["SERVICE", "PARAMS", "VNETS", "ADDRESS", "ROUTER"].map(String::from)];
    for (entry, router) in entries {
        let (params, vnets) = (shown(&entry.params), entry.vnets.join(","));
        rows.push([entry.service.clone(), params, vnets, typed(&entry.addr), language(router).into()]);
    }
    print_table(&rows);
    print("");
    let mut rows = vec![["ROUTER AT", "KIND", "ENTRIES"].map(String::from)];
    for router in known {
        rows.push([typed(&router.home), language(router).into(), router.entries.len().to_string()]);
    }
    print_table(&rows);
}

fn print_table<const N: usize>(rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    for row in rows {
        let cells = row.iter().enumerate().map(|(at, cell)| format!("{cell:<width$}", width = width(at).unwrap_or(0)));
        print(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
