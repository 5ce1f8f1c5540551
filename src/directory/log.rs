//! What one router provides, as a log with one writer: that router. Others hold it up to some version, and tell the rest from there.
//!
//! A version is a change; an entry is named by the version that brought it and never changes. What was withdrawn is remembered for [`REMEMBER`]: whoever holds
//! an older version than that is told what is left instead. So two holders of the same version hold the same, whatever they heard and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::addr::{Addr, Endpoint};
use crate::directory::entry::Entry;

/// The time since a router started, on its own clock that never goes back.
pub(crate) type Time = Duration;

/// How long a router is believed to be there that nobody has heard. Default 30 s: six digests, so that three routers on the way and a lost digest each do no harm. The rule is for
/// the case that a router and all that watch it die together; else the link says sooner that it is gone.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// How long withdrawals, and the dead, are remembered. Default 1 min: two leases, after which no old copy of them can be about.
pub(crate) const REMEMBER: Duration = Duration::from_mins(1);
/// Changes in one message. Default 2,000: about 200 kilobytes.
const CHUNK: usize = 2000;

/// Through whose eyes a log is seen. Each view has versions of its own, because it leaves out what it may not see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct View(
    /// On a machine nothing: all that is in any vnet. On the network the vnets that all routers on the way take part in.
    pub(crate) Option<BTreeSet<String>>,
);

impl View {
    pub(crate) const MACHINE: View = View(None);

    /// What is left of it over the network, through a router of these vnets; none if nothing is.
    pub(crate) fn over_network(&self, vnets: &[String]) -> Option<View> {
        let passes = |vnet: &&String| self.0.as_ref().is_none_or(|view| view.contains(*vnet));
        let left: BTreeSet<String> = vnets.iter().filter(passes).cloned().collect();
        (!left.is_empty()).then_some(View(Some(left)))
    }

    pub(crate) fn is_network(&self) -> bool {
        self.0.is_some()
    }

    fn sees(&self, entry: &Entry) -> bool {
        match &self.0 {
            None => !entry.vnets.is_empty(),
            Some(vnets) => entry.vnets.iter().any(|vnet| vnets.contains(vnet)),
        }
    }
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) entry: Arc<Entry>,
    /// It is provided by a Python router that shares with the log's writer: others may be told only by whom it reaches.
    pub(crate) python: bool,
}

/// What a router provides, as far as it is known here.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Log {
    pub(crate) home: Addr,
    pub(crate) version: u64,
    /// Withdrawals up to this version are forgotten.
    pub(crate) floor: u64,
    pub(crate) live: BTreeMap<u64, Item>,
    /// By the version that withdrew it: which entry, and when that was heard.
    pub(crate) withdrawn: BTreeMap<u64, (u64, Time)>,
    /// When its writer was last known to be there.
    pub(crate) fresh: Time,
    /// The neighbour that keeps us up to date.
    pub(crate) via: Option<Endpoint>,
    /// That neighbour was lost at this time, and nobody else has told of it since.
    pub(crate) orphaned: Option<Time>,
}

/// What is told of a log to somebody who holds it up to `from`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct News {
    pub(crate) home: Addr,
    pub(crate) incarnation: u64,
    pub(crate) view: View,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Milliseconds since the writer was last known to be there.
    pub(crate) age: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) added: Vec<(u64, bool, Entry)>,
    /// Pairs: the version that withdrew, and the entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) withdrawn: Vec<(u64, u64)>,
    /// Withdrawals up to this version are forgotten there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) floor: u64,
    /// What is left of the entries up to `from`, if withdrawals since are among those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) left: Option<Vec<u64>>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How two logs differ after news.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    pub(crate) added: Vec<(u64, Item)>,
    pub(crate) removed: Vec<(u64, Item)>,
}

impl Log {
    /// The writer adds an entry, which is named by the new version.
    pub(crate) fn add(&mut self, item: Item) -> u64 {
        self.version += 1;
        self.live.insert(self.version, item);
        self.version
    }

    /// The writer withdraws one; false if it is not there.
    pub(crate) fn withdraw(&mut self, number: u64, now: Time) -> bool {
        if self.live.remove(&number).is_none() {
            return false;
        }
        self.version += 1;
        self.withdrawn.insert(self.version, (number, now));
        true
    }

    /// Forgets withdrawals that were heard too long ago.
    pub(crate) fn forget(&mut self, now: Time) {
        while let Some(oldest) = self.withdrawn.first_entry().filter(|oldest| oldest.get().1 + REMEMBER <= now) {
            self.floor = self.floor.max(*oldest.key());
            oldest.remove();
        }
    }

    /// An address of this log as its reader must use it.
    pub(crate) fn resolved(&self, entry: &Arc<Entry>, view: &View) -> Arc<Entry> {
        if !view.is_network() || entry.addr.net.is_some() || self.home.net.is_none() {
            return entry.clone();
        }
        let addr = Addr { net: self.home.net.clone(), ..entry.addr.clone() };
        Arc::new(Entry { addr, ..(**entry).clone() })
    }

    /// What somebody lacks who holds this up to `from` in a view; `reaches` says of a Python router's entry whether he can reach it.
    pub(crate) fn since(
        &self,
        from: u64,
        view: &View,
        now: Time,
        incarnation: u64,
        reaches: impl Fn(&Entry) -> bool,
    ) -> Vec<News> {
        let is_told = |item: &Item| view.sees(&item.entry) && (!item.python || reaches(&item.entry));
        let new = self.live.range(from + 1..).filter(|(_, item)| is_told(item));
        let mut added: Vec<_> = new.map(|(number, item)| (*number, item.python, self.shortened(&item.entry))).collect();
        let mut first = News {
            home: self.home.clone(),
            incarnation,
            view: view.clone(),
            from,
            to: self.version,
            age: now.saturating_sub(self.fresh).as_millis() as u64,
            added: Vec::new(),
            withdrawn: self.withdrawn.range(from + 1..).map(|(version, (number, _))| (*version, *number)).collect(),
            floor: self.floor,
            left: (0 < from && from < self.floor)
                .then(|| self.live.range(..=from).map(|(number, _)| *number).collect()),
        };
        let mut news = Vec::new();
        while added.len() > CHUNK {
            let rest = added.split_off(CHUNK);
            let to = added.last().map_or(first.to, |(number, _, _)| *number);
            let next = News { from: to, withdrawn: Vec::new(), left: None, ..first.clone() };
            news.push(News { to, added, ..std::mem::replace(&mut first, next) });
            added = rest;
        }
        news.push(News { added, ..first });
        news
    }

    /// Takes news that follow on what is known here.
    pub(crate) fn hear(&mut self, news: News, now: Time) -> Difference {
        let mut difference = Difference::default();
        if news.to <= self.version || news.from > self.version {
            return difference;
        }
        let mut over: Vec<u64> = news.withdrawn.iter().map(|(_, number)| *number).collect();
        if let Some(left) = news.left {
            let left: BTreeSet<u64> = left.into_iter().collect();
            over.extend(
                self.live.range(..=news.from).map(|(number, _)| *number).filter(|number| !left.contains(number)),
            );
        }
        self.floor = self.floor.max(news.floor);
        // Who knows more and does not tell of an entry knows that it is over.
        let told: BTreeSet<u64> = news.added.iter().map(|(number, _, _)| *number).collect();
        over.extend(
            self.live.range(news.from + 1..).map(|(number, _)| *number).filter(|number| !told.contains(number)),
        );
        difference.removed.extend(over.into_iter().filter_map(|number| Some((number, self.live.remove(&number)?))));
        self.withdrawn.extend(news.withdrawn.into_iter().map(|(version, number)| (version, (number, now))));
        for (number, python, entry) in news.added.into_iter().filter(|(number, _, _)| *number > self.version) {
            let item = Item { entry: Arc::new(self.lengthened(entry)), python };
            self.live.insert(number, item.clone());
            difference.added.push((number, item));
        }
        self.version = news.to;
        difference
    }

    /// On the wire an entry of the router itself leaves out which router that is.
    fn shortened(&self, entry: &Entry) -> Entry {
        let mut entry = entry.clone();
        if entry.addr.net.is_none() && entry.addr.machine == self.home.machine {
            entry.addr.machine = None;
        }
        entry
    }

    fn lengthened(&self, mut entry: Entry) -> Entry {
        if entry.addr.machine.is_none() && entry.addr.net.is_none() {
            entry.addr.machine.clone_from(&self.home.machine);
        }
        entry
    }
}
