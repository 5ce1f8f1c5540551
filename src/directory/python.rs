//! What a directory makes of Python ones, and tells them.
//!
//! Python directories only ever add. What one of them says of its own router is believed, of a hub also what it says of its other Python routers, and it goes when the
//! router that said it goes. On a machine they share in rounds. A network hub they only ask which vnets it serves, because their own share fails as soon as they have an entry:
//! so a router that is asked that asks back, in rounds, what is provided there.
//!
//! They are told what they can reach in one hop. Nothing is sent to one that has not spoken first, or is a hub that this router was told of.

use std::collections::VecDeque;
use std::sync::Arc;

use super::core::{Core, Kind, Outgoing, What, router_of};
use super::entry::{Entry, LOCAL_VNET};
use crate::addr::{Addr, DIRECTORY, Endpoint, Scheme};
use crate::contents::{Contents, IntoContents};
use crate::value::Value;
use crate::wire::{self, Encoded};

/// Entries taken from one router, and Python directories that are asked in rounds. Default 100,000 and 4,096, as for Rust ones.
const ENTRIES: usize = 100_000;
const ROUTERS: usize = 4096;

/// Levels of params and perms that Python is told. Default 140: it reads 150, and an entry is a list in a list. Others would keep all that is told with them from it.
const LEVELS: usize = 140;

/// Answers that are kept, one for each name by which this router is asked. Default 8: a router has one or two, a pipe's random port is a further one.
const ANSWERS: usize = 8;

/// What Python askers are answered, kept until the directory changes: they ask in rounds, and a flood of questions must not cost the whole directory each.
#[derive(Default)]
pub(crate) struct Answers {
    /// The index had changed so often.
    changes: u64,
    kept: VecDeque<(Option<Endpoint>, Encoded)>,
}

/// A Python directory of the network that asked what this hub serves.
pub(crate) struct Guest {
    directory: Addr,
    /// Others of the network can dial it.
    listens: bool,
}

impl Guest {
    /// Where the network can dial it.
    pub(super) fn dialable(&self) -> Option<Addr> {
        (self.listens && self.directory.net.is_some()).then(|| Addr { connection: None, ..self.directory.clone() })
    }
}

impl Core {
    /// Tells every Python hub what is provided here, and asks it, and every guest, what it has.
    pub(crate) fn round(&mut self) {
        if self.guests.is_empty() && self.hubs.iter().all(|hub| hub.kind != Kind::Python) {
            return;
        }
        let mut told = Vec::new();
        let own = || self.own().filter(|entry| is_readable(entry));
        let shared: Vec<Entry> =
            own().filter(|entry| entry.vnets.iter().any(|vnet| vnet == LOCAL_VNET)).cloned().collect();
        for hub in self.hubs.iter().filter(|hub| hub.kind == Kind::Python) {
            let what = match (hub.at.scheme(), &hub.vnets) {
                (Scheme::Tcp, None) => What::AskVnets,
                (Scheme::Tcp, Some(vnets)) => {
                    let in_vnets = own().filter(|entry| entry.is_in(vnets));
                    What::Share(
                        in_vnets
                            .map(|entry| Entry { addr: self.named(&entry.addr, Scheme::Tcp), ..entry.clone() })
                            .filter(|entry| entry.addr.net.is_some())
                            .collect(),
                    )
                }
                _ => What::Share(shared.clone()),
            };
            told.push(Outgoing { to: Addr::at(hub.at.clone(), DIRECTORY), what });
        }
        let guests = self.guests.iter().map(|guest| guest.directory.clone());
        told.extend(guests.map(|to| Outgoing { to, what: What::AskEntries }));
        self.outbox.append(&mut told);
    }

    // ---- Python hubs that this router joined -------------------------------------------------------------

    /// A network hub says which vnets it serves.
    pub(crate) fn hub_serves(&mut self, from: &Addr, vnets: Vec<String>) {
        if let Some(hub) = self.hubs.iter_mut().find(|hub| from.net.as_ref() == Some(&hub.at)) {
            hub.vnets = Some(vnets);
            self.round();
        }
    }

    /// A Python hub answers with what it has: all of it but what is ours, or a Rust router's, is believed.
    pub(crate) fn hub_has(&mut self, hub: &Endpoint, from: &Addr, mut entries: Vec<Entry>) -> bool {
        entries.retain(|entry| !self.is_known_better(&entry.addr));
        let is_first = self.hubs.iter_mut().find(|other| other.at == *hub && !other.has_told);
        let is_first = is_first.map(|hub| hub.has_told = true).is_some();
        self.learn_python(hub.clone(), from, entries) || is_first
    }

    fn is_known_better(&self, addr: &Addr) -> bool {
        let is_own = addr.machine == self.home.machine && (addr.net.is_none() || addr.net == self.home.net);
        let is_at = |home: &Addr| home.machine == addr.machine && home.net == addr.net;
        is_own || self.replica.logs().any(|(_, _, log)| is_at(&log.home))
    }

    // ---- Python directories that joined this router ----------------------------------------------------------

    /// A Python directory of the network asked what is served here. `listens`: others can dial it by that address.
    pub(crate) fn joined_by(&mut self, directory: &Addr, listens: bool) {
        let is_directory = directory.connection == Some(DIRECTORY);
        let is_known = self.guests.iter().any(|guest| guest.directory == *directory);
        if !is_directory || is_known || self.guests.len() >= ROUTERS || self.is_known_better(directory) {
            return;
        }
        self.guests.push(Guest { directory: directory.clone(), listens });
        self.answers.kept.clear();
        self.outbox.push(Outgoing { to: directory.clone(), what: What::AskEntries });
    }

    /// It cannot be reached any more.
    pub(super) fn guest_gone(&mut self, name: &Endpoint) {
        self.guests.retain(|guest| router_of(&guest.directory).as_ref() != Some(name));
        self.answers.kept.clear();
    }

    /// A guest answers with what it has: what its own router provides in the vnets served here is believed.
    pub(crate) fn guest_has(&mut self, from: &Addr, mut entries: Vec<Entry>) -> bool {
        if !self.guests.iter().any(|guest| router_of(&guest.directory) == router_of(from)) {
            return false;
        }
        entries.retain(|entry| entry.is_in(&self.vnets));
        self.shared_by(from, entries)
    }

    /// A Python directory says what it has: what its own router provides is believed. True if something is new here.
    pub(crate) fn shared_by(&mut self, from: &Addr, mut entries: Vec<Entry>) -> bool {
        entries.retain(|entry| is_of(&entry.addr, from));
        let Some(router) = router_of(from) else { return false };
        self.learn_python(router, from, entries)
    }

    /// A connection of a Python router, whose own directory may be none, provides something. `None`: it may not say that.
    pub(crate) fn registered_by(&mut self, from: &Addr, mut entry: Entry) -> Option<bool> {
        let router = router_of(from).filter(|_| is_of(&entry.addr, from) && !self.is_known_better(from))?;
        let mut entries = self.python.get(&router).cloned().unwrap_or_default();
        entry.addr.net.clone_from(&from.net);
        if entries.iter().any(|known| known.is_same(&entry)) {
            return Some(false);
        }
        entries.push(entry);
        Some(self.learn_python(router, from, entries))
    }

    /// A Python router withdraws what `is_meant` of what it provides at `addr`.
    pub(crate) fn withdrawn_by(&mut self, from: &Addr, addr: &Addr, is_meant: impl Fn(&Entry) -> bool) -> bool {
        let Some(router) = router_of(from).filter(|_| is_of(addr, from)) else { return false };
        let Some(entries) = self.python.get(&router) else { return false };
        let kept = entries.iter().filter(|entry| !(is_of(&entry.addr, from) && is_meant(entry))).cloned().collect();
        self.learn_python(router, from, kept)
    }

    /// A router turned out to be a Rust one, which says itself what it provides.
    pub(super) fn is_no_python(&mut self, home: &Addr) {
        let mut was_python = false;
        for name in [&home.net, &home.machine].into_iter().flatten() {
            self.guest_gone(name);
            was_python |= self.python.remove(name).is_some();
        }
        if was_python {
            self.tell_own();
        }
    }

    fn learn_python(&mut self, router: Endpoint, from: &Addr, mut entries: Vec<Entry>) -> bool {
        let has_room = self.python.contains_key(&router) || self.python.len() < ROUTERS;
        if entries.len() > ENTRIES || !has_room {
            return false;
        }
        for entry in &mut entries {
            entry.addr.net = entry.addr.net.take().or_else(|| from.net.clone());
        }
        let before =
            if entries.is_empty() { self.python.remove(&router) } else { self.python.insert(router.clone(), entries) };
        let changed = before.as_ref() != self.python.get(&router);
        if changed {
            self.tell_own();
        }
        changed
    }

    // ---- what others are told ------------------------------------------------------------------------------------

    fn can_be_dialed(&self, addr: &Addr) -> bool {
        let home = Addr { connection: None, ..addr.clone() };
        self.guests.iter().filter_map(Guest::dialable).any(|guest| guest == home)
    }

    /// [`for_python`](Self::for_python) as contents, made anew only when the directory has changed.
    pub(crate) fn answer_python(&mut self, asked_at: Option<&Endpoint>) -> Contents {
        let changes = self.replica.index.changes();
        if self.answers.changes != changes {
            self.answers = Answers { changes, kept: VecDeque::new() };
        }
        if let Some((_, answer)) = self.answers.kept.iter().find(|(at, _)| at.as_ref() == asked_at) {
            return answer.clone().into();
        }
        let entries = self.for_python(asked_at);
        let Ok(answer) = wire::encode(&entries) else { return entries.into_contents() };
        if self.answers.kept.len() == ANSWERS {
            self.answers.kept.pop_front();
        }
        self.answers.kept.push_back((asked_at.cloned(), answer.clone()));
        answer.into()
    }

    /// What a Python asker is answered: everything it can reach in one hop, in vnets that it may see. `asked_at` is the tcp endpoint by which it addressed us.
    pub(crate) fn for_python(&self, asked_at: Option<&Endpoint>) -> Vec<Entry> {
        let is_here = |addr: &Addr| addr.net.is_none() && addr.machine == self.home.machine;
        let reachable = |entry: &Entry| match asked_at {
            Some(_) => (is_here(&entry.addr) || self.can_be_dialed(&entry.addr)) && entry.is_in(&self.vnets),
            None => entry.addr.net.is_none() && !entry.vnets.is_empty(),
        };
        let named = |entry: Arc<Entry>| {
            let net = entry.addr.net.clone().or_else(|| asked_at.cloned());
            Entry { addr: Addr { net, ..entry.addr.clone() }, ..(*entry).clone() }
        };
        self.entries().into_iter().filter(|entry| reachable(entry) && is_readable(entry)).map(named).collect()
    }
}

/// Whether an address is one of the router that a message came from.
fn is_of(addr: &Addr, from: &Addr) -> bool {
    addr.machine == from.machine && (addr.net.is_none() || addr.net == from.net)
}

fn is_readable(entry: &Entry) -> bool {
    depth(&entry.params) <= LEVELS && depth(&entry.perms) <= LEVELS
}

fn depth(value: &Value) -> usize {
    match value {
        Value::List(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Map(pairs) => 1 + pairs.iter().map(|(_, value)| depth(value)).max().unwrap_or(0),
        _ => 0,
    }
}
