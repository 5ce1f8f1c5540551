//! Entries by service, nearest first: what a lookup reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::directory::entry::Entry;
use crate::directory::log::View;

/// Sets of vnets that are told apart. Default 1,024: a network has a handful. Further ones, which only a stranger makes up, share a number: an entry known by two of
/// them is then there by the one told last.
const VIEWS: usize = 1024;

/// How far away a provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Distance {
    /// In the same router.
    Router,
    /// In another router of the same machine.
    Machine,
    /// Over the network.
    Network,
}

/// Which entry of which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) distance: Distance,
    pub(crate) incarnation: u64,
    pub(crate) number: u64,
    view: u16,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    by_service: HashMap<String, BTreeMap<Place, Arc<Entry>>>,
    views: Vec<View>,
    len: usize,
    changes: u64,
}

impl Index {
    /// The name of an entry, of this router or of another's log in a view.
    pub(crate) fn place(&mut self, is_own: bool, incarnation: u64, view: &View, number: u64, entry: &Entry) -> Place {
        let distance = match (entry.addr.net.is_some() || view.is_network(), is_own) {
            (true, _) => Distance::Network,
            (false, true) => Distance::Router,
            (false, false) => Distance::Machine,
        };
        let known = self.views.iter().position(|other| other == view);
        let view = known.unwrap_or_else(|| {
            if self.views.len() < VIEWS {
                self.views.push(view.clone());
            }
            self.views.len() - 1
        });
        Place { distance, incarnation, number, view: view as u16 }
    }

    pub(crate) fn add(&mut self, place: Place, entry: Arc<Entry>) {
        let providers = match self.by_service.get_mut(&entry.service) {
            Some(providers) => providers,
            None => self.by_service.entry(entry.service.clone()).or_default(),
        };
        self.len += usize::from(providers.insert(place, entry).is_none());
        self.changes += 1;
    }

    pub(crate) fn remove(&mut self, place: Place, service: &str) {
        let Some(providers) = self.by_service.get_mut(service) else { return };
        self.len -= usize::from(providers.remove(&place).is_some());
        self.changes += 1;
        if providers.is_empty() {
            self.by_service.remove(service);
        }
    }

    /// How often something was added or removed: the same number, the same entries.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The providers of a service, nearest first. One that is known by several ways is there once, by the nearest.
    pub(crate) fn providers<'a>(&'a self, service: &str) -> impl Iterator<Item = (Place, &'a Arc<Entry>)> {
        let providers = self.by_service.get(service);
        let is_known_nearer = move |place: &Place| {
            let name = |distance, view| Place { distance, view, ..*place };
            let is_any = |mut found: std::collections::btree_map::Range<'_, Place, Arc<Entry>>| found.next().is_some();
            place.distance == Distance::Network
                && self.views.len() > 1
                && providers.is_some_and(|all| {
                    is_any(all.range(name(Distance::Network, 0)..*place))
                        || is_any(all.range(name(Distance::Machine, 0)..=name(Distance::Machine, u16::MAX)))
                })
        };
        providers
            .into_iter()
            .flatten()
            .filter(move |(place, _)| !is_known_nearer(place))
            .map(|(place, entry)| (*place, entry))
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &String> {
        self.by_service.keys()
    }

    /// All entries, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Place, &Arc<Entry>)> {
        self.by_service.keys().flat_map(|service| self.providers(service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    #[test]
    fn made_up_vnets_take_no_room_without_end() {
        let mut index = Index::default();
        for number in 0..VIEWS as u64 + 10 {
            let vnet = number.to_string();
            let (addr, service) = (crate::Addr::local(3), "S".into());
            let shared = Entry { addr, service, params: Value::Null, vnets: vec![vnet.clone()], perms: Value::Null };
            let view = View::MACHINE.over_network(&[vnet]).unwrap();
            let place = index.place(false, 1, &view, number, &shared);
            index.add(place, Arc::new(shared));
        }
        assert_eq!((index.views.len(), index.len), (VIEWS, VIEWS + 10));
    }
}
