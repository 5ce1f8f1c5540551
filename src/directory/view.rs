//! What a directory believes and why, for people: asked with [`GET_VIEW`](crate::subject::GET_VIEW), shown by `vlm why` and `vlm check`.

use serde::{Deserialize, Serialize};

use super::core::Core;
use super::entry::Entry;
use crate::addr::{Addr, Endpoint};

/// What one directory holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectoryView {
    /// Where its router is.
    pub home: Addr,
    /// Which life of that router.
    pub incarnation: u64,
    /// The vnets that it shares over the network.
    pub vnets: Vec<String>,
    /// What it holds of each router, its own first.
    pub routers: Vec<RouterView>,
    /// Lives of routers that it holds for dead, and for how many milliseconds.
    pub dead: Vec<(u64, u64)>,
}

/// What a directory holds of one router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterView {
    /// Where that router is reached.
    pub home: Addr,
    /// Which life of it.
    pub incarnation: u64,
    /// The vnets through which it was heard of; none on the same machine.
    pub vnets: Option<Vec<String>>,
    /// How many changes are known.
    pub version: u64,
    /// How many entries there are.
    pub count: u64,
    /// Equal for equal entries.
    pub fingerprint: u64,
    /// Milliseconds since it was last known to be there.
    pub age: u64,
    /// Which neighbour tells of it; none of its own.
    pub via: Option<Endpoint>,
    /// The entries that were asked for.
    pub entries: Vec<Entry>,
}

impl Core {
    /// What this directory holds, with the entries that `is_asked`. Those that stay in their router are named to askers of the machine alone.
    pub(crate) fn view(&self, is_near: bool, is_asked: impl Fn(&Entry) -> bool) -> DirectoryView {
        let now = self.replica.now;
        let millis = |since| now.saturating_sub(since).as_millis() as u64;
        let routers = self.replica.logs().map(|(incarnation, view, log)| {
            let entries = log.live.values().map(|item| log.resolved(&item.entry, view));
            let may_be_named = |entry: &Entry| is_near || entry.is_in(&self.vnets);
            RouterView {
                home: log.home.clone(),
                incarnation,
                vnets: view.0.as_ref().map(|vnets| vnets.iter().cloned().collect()),
                version: log.version,
                // Entries that are told to nobody are no matter of agreement.
                count: log.live.values().filter(|item| !item.entry.vnets.is_empty()).count() as u64,
                fingerprint: fingerprint(
                    log.live.iter().filter(|(_, item)| !item.entry.vnets.is_empty()).map(|(number, _)| *number),
                ),
                age: millis(log.fresh),
                via: log.via.clone(),
                entries: entries
                    .filter(|entry| is_asked(entry) && may_be_named(entry))
                    .map(|entry| (*entry).clone())
                    .collect(),
            }
        });
        DirectoryView {
            home: self.home.clone(),
            incarnation: self.replica.me,
            vnets: self.vnets.clone(),
            routers: routers.collect(),
            dead: self.replica.dead.iter().map(|(incarnation, (_, since))| (*incarnation, millis(*since))).collect(),
        }
    }
}

/// An entry is named by its number and never changes, so the numbers say which there are.
fn fingerprint(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, |sum, number| (sum ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)) >> 1
}
