//! `vlm why`: which router provides a service or an address, how it is reached, who sees it, and why somebody does not.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use vlmessaging::{Addr, Connection, DirectoryView, Entry, Router, RouterView, subject};

use super::look::{Looked, look};
use super::target::{self, LOOKUP};
use crate::outcome::{Exit, Failure, print, print_json};
use crate::place::{self, Place, typed};
use crate::signals::Stop;

/// Explain who provides a service, or what is at an address, and who can see it
#[derive(Args)]
pub(crate) struct Why {
    /// A service, or an address: tcp|ipc|number
    #[arg(value_name = "SERVICE|ADDR")]
    whom: String,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Wait so long for the hubs to tell, and for each answer, in milliseconds
    #[arg(long, default_value = LOOKUP, value_parser = place::read_millis)]
    lookup_ms: Duration,
}

/// One entry, and what each directory makes of it.
struct Explained<'a> {
    entry: &'a Entry,
    provider: &'a DirectoryView,
    seen_by: Vec<Addr>,
    unseen_by: Vec<(Addr, String)>,
    /// How the asker's own directory knows of its router.
    known: Option<&'a RouterView>,
    answer: String,
}

impl Why {
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let stop = Stop::on_signals()?;
        let addr = if self.whom.contains('|') || self.whom.starts_with('[') {
            Some(place::read_addr(&self.whom).map_err(Failure::usage)?)
        } else {
            None
        };
        let router = self.place.guest(None).start().await?;
        let joined = stop.or(router.joined(self.lookup_ms)).await;
        let told = self.explain(&router, addr.as_ref()).await;
        place::close(&router).await;
        match (told, joined) {
            (Err(_), Some(Err(silent))) => Err(target::no_hub(&silent)),
            (told, _) => told,
        }
    }

    async fn explain(&self, router: &Router, addr: Option<&Addr>) -> Result<Exit, Failure> {
        let conn = router.connect();
        let service = addr.is_none().then_some(self.whom.as_str());
        let looked = look(router, &conn, service, addr, self.lookup_ms).await;
        let views: Vec<&DirectoryView> = looked.iter().filter_map(|one| one.view.as_ref()?.as_ref().ok()).collect();
        let mut found = 0;
        for provider in &views {
            for entry in provider.routers.first().into_iter().flat_map(|own| &own.entries) {
                found += 1;
                self.tell(&self.one(&conn, provider, entry, &views, &looked).await);
            }
        }
        if found > 0 {
            return Ok(Exit::Ok);
        }
        // A connection that provides nothing may be there all the same.
        let answer = match addr {
            Some(addr) => format!("; a message to it: {}", self.send(&conn, addr).await),
            None => String::new(),
        };
        let dead: usize = views.first().map_or(0, |own| own.dead.len());
        let text = format!(
            "none of {} directories says that it provides {:?}: it was never announced, or is withdrawn or dead ({dead} routers died within a minute){answer}",
            views.len(),
            self.whom
        );
        Err(Failure::new(Exit::NotFound, text).next("see what is provided: vlm ls"))
    }

    async fn one<'a>(
        &self,
        conn: &Connection,
        provider: &'a DirectoryView,
        entry: &'a Entry,
        views: &[&'a DirectoryView],
        looked: &[Looked],
    ) -> Explained<'a> {
        let (mut seen_by, mut unseen_by, mut known) = (Vec::new(), Vec::new(), None);
        for (at, view) in views.iter().enumerate() {
            let router = view.routers.iter().find(|router| router.incarnation == provider.incarnation);
            let is_same = |other: &Entry| {
                other.addr.connection == entry.addr.connection
                    && other.service == entry.service
                    && other.params == entry.params
            };
            if at == 0 {
                known = router;
            }
            match router {
                Some(router) if router.entries.iter().any(is_same) => seen_by.push(view.home.clone()),
                router => unseen_by.push((view.home.clone(), unseen(entry, provider, view, router))),
            }
        }
        for silent in looked.iter().filter(|one| !matches!(one.view, Some(Ok(_)))) {
            let why = if silent.view.is_none() {
                "a Python directory: it does not say"
            } else {
                "its directory does not answer"
            };
            unseen_by.push((silent.home.clone(), why.into()));
        }
        let at =
            known.and_then(|router| router.entries.iter().find(|other| other.addr.connection == entry.addr.connection));
        let answer = self.send(conn, at.map_or(&entry.addr, |entry| &entry.addr)).await;
        Explained { entry, provider, seen_by, unseen_by, known, answer }
    }

    /// What a message there is answered.
    async fn send(&self, conn: &Connection, to: &Addr) -> String {
        match conn.request(to, subject::PING, (), self.lookup_ms).await {
            Ok(_) => "answered".into(),
            Err(error) => error.to_string(),
        }
    }

    fn tell(&self, it: &Explained) {
        let via = it.known.and_then(|router| router.via.as_ref());
        if self.place.json {
            let unseen: Vec<_> = it.unseen_by.iter().map(|(home, why)| json!({ "router": home, "why": why })).collect();
            return print_json(&json!({
                "kind": "why", "service": it.entry.service, "addr": it.entry.addr, "vnets": it.entry.vnets, "router": it.provider.home,
                "via": via, "age_ms": it.known.map(|router| router.age), "seen_by": it.seen_by, "unseen_by": unseen, "send": it.answer,
            }));
        }
        print(&format!("{} at {}", it.entry.service, typed(&it.entry.addr)));
        print(&format!("  provided by  {}, in vnets {}", typed(&it.provider.home), list(&it.entry.vnets)));
        match it.known {
            Some(router) => {
                let way = via.map_or("directly".to_string(), |via| format!("told by {via}"));
                print(&format!("  last heard   {} ms ago, {way}", router.age));
            }
            None => print("  last heard   never, by the directory of this command"),
        }
        print(&format!("  a message    {}", it.answer));
        print(&format!("  seen by      {}", list(&it.seen_by.iter().map(typed).collect::<Vec<_>>())));
        for (home, why) in &it.unseen_by {
            print(&format!("  not seen by  {}: {why}", typed(home)));
        }
    }
}

/// Why a directory does not have an entry.
fn unseen(entry: &Entry, provider: &DirectoryView, view: &DirectoryView, router: Option<&RouterView>) -> String {
    if entry.vnets.is_empty() {
        return "it is in no vnet: it stays in its router".into();
    }
    match router {
        Some(router) => match &router.vnets {
            Some(vnets) => format!("vnets: it is in {}, and over the network came {}", list(&entry.vnets), list(vnets)),
            None => "it is on its way, or has been withdrawn".into(),
        },
        None if view.dead.iter().any(|(dead, _)| *dead == provider.incarnation) => {
            "its router is held for dead there".into()
        }
        None if view.home.net.is_some() || provider.home.net.is_some() => {
            let (there, here) = (list(&view.vnets), list(&provider.vnets));
            format!(
                "scope: over the network only common vnets are told; it takes part in {there}, the provider in {here}"
            )
        }
        None => "it never heard of the router: they share no hub".into(),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
