//! By which endpoints a router is known, and where a message goes from here.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::addr::{Addr, Endpoint, Scheme};
use crate::failure::Reason;
use crate::hash::Seeded;

/// Endpoints remembered as reached through a gateway. Default 1,024: more peers than one machine talks to; beyond, all are learned anew.
const GATEWAYS: usize = 1024;

/// Names of ended pipes that a router still answers to. Default 64: a peer that it dials has at most the last few in its hands.
const FORMER: usize = 64;

/// How far a router reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Within the process: no sockets.
    Local,
    /// Within the machine: unix sockets.
    Machine,
    /// Within the network: unix sockets and TCP.
    Network,
}

/// Where a message comes from, as far as routing cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Here,
    Ipc,
    Tcp,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To a connection of this router.
    Here(u64),
    /// To the router at this endpoint.
    There(Endpoint),
    /// Nowhere.
    Nowhere(Reason),
}

pub(crate) struct Names {
    mode: Mode,
    ipc: Vec<Endpoint>,
    tcp: Vec<Endpoint>,
    /// Our ends of tcp pipes: peers that we dialed may know us by them.
    pipes: HashSet<Endpoint, Seeded>,
    /// Those that have ended: answers to what was sent on them come on others.
    former: VecDeque<Endpoint>,
    /// The router of this machine through which an endpoint of the network was heard of.
    gateways: HashMap<Endpoint, Endpoint, Seeded>,
}

impl Names {
    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            mode,
            ipc: Vec::new(),
            tcp: Vec::new(),
            pipes: HashSet::default(),
            former: VecDeque::new(),
            gateways: HashMap::default(),
        }
    }

    pub(crate) fn listens_at(&mut self, endpoint: Endpoint) {
        match endpoint.scheme() {
            Scheme::Tcp => self.tcp.push(endpoint),
            _ => self.ipc.push(endpoint),
        }
    }

    pub(crate) fn add_pipe(&mut self, local: Endpoint) {
        self.pipes.insert(local);
    }

    pub(crate) fn remove_pipe(&mut self, local: &Endpoint) {
        if self.pipes.remove(local) {
            if self.former.len() >= FORMER {
                self.former.pop_front();
            }
            self.former.push_back(local.clone());
        }
    }

    /// Whether it is news that an address of the network is reached through a router of this machine.
    pub(crate) fn is_news(&self, net: &Endpoint, gateway: &Endpoint) -> bool {
        self.mode != Mode::Network && self.gateways.get(net) != Some(gateway)
    }

    /// The same, to be remembered.
    pub(crate) fn heard_of(&mut self, net: &Endpoint, gateway: &Endpoint) {
        if self.gateways.len() >= GATEWAYS {
            self.gateways.clear();
        }
        self.gateways.insert(net.clone(), gateway.clone());
    }

    /// The ipc endpoint that this router is named by.
    pub(crate) fn machine(&self) -> Option<&Endpoint> {
        self.ipc.first()
    }

    /// The tcp endpoint listened at last.
    pub(crate) fn net(&self) -> Option<&Endpoint> {
        self.tcp.last()
    }

    /// All endpoints listened at.
    pub(crate) fn all(&self) -> Vec<Endpoint> {
        self.ipc.iter().chain(&self.tcp).cloned().collect()
    }

    pub(crate) fn is_mine(&self, endpoint: &Endpoint) -> bool {
        match endpoint.scheme() {
            Scheme::Tcp => self.tcp.contains(endpoint) || self.pipes.contains(endpoint),
            _ => self.ipc.contains(endpoint),
        }
    }

    /// Whether an address is one of this router's, by whatever name.
    pub(crate) fn is_here(&self, addr: &Addr) -> bool {
        [&addr.net, &addr.machine].into_iter().flatten().all(|endpoint| self.is_mine(endpoint))
    }

    /// Decides where a message goes. Endpoints are compared as text.
    pub(crate) fn route(&self, to: &Addr, came: Came) -> Route {
        let machine = to.machine.as_ref().filter(|machine| !self.is_mine(machine));
        // Only for what came over the network: here, another program may have such a name by now.
        let was_mine = |net: &Endpoint| came == Came::Tcp && self.former.contains(net);
        if let Some(net) = to.net.as_ref().filter(|net| !self.is_mine(net) && !was_mine(net)) {
            // A gateway passes a message on with the network's name for this machine in it.
            let is_for_us = came == Came::Ipc && to.machine.is_some() && machine.is_none();
            if !is_for_us {
                return self.route_to_network(net);
            }
        }
        match (machine, to.connection) {
            (Some(machine), _) if self.mode == Mode::Local => Route::Nowhere(unreachable("a local router", machine)),
            (Some(machine), _) => Route::There(machine.clone()),
            (None, Some(number)) => Route::Here(number),
            (None, None) => Route::Nowhere(Reason::NoSuchConnection),
        }
    }

    fn route_to_network(&self, net: &Endpoint) -> Route {
        match (self.mode, self.gateways.get(net)) {
            (Mode::Network, _) => Route::There(net.clone()),
            (Mode::Machine, Some(gateway)) => Route::There(gateway.clone()),
            (Mode::Machine, None) => Route::Nowhere(unreachable("a machine router", net)),
            (Mode::Local, _) => Route::Nowhere(unreachable("a local router", net)),
        }
    }
}

fn unreachable(who: &str, endpoint: &Endpoint) -> Reason {
    Reason::NoRoute(format!("{who} does not reach {endpoint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(mode: Mode) -> Names {
        let mut names = Names::new(mode);
        names.listens_at("ipc:///tmp/router_1".into());
        names.listens_at("ipc:///tmp/hub_1".into());
        if mode == Mode::Network {
            names.listens_at("tcp://127.0.0.1:30001".into());
        }
        names
    }

    fn route(names: &Names, addr: &str, came: Came) -> Route {
        names.route(&addr.parse().unwrap(), came)
    }

    #[test]
    fn own_names_lead_here_and_others_there() {
        let names = names(Mode::Network);
        for here in [
            "||3",
            "|ipc:///tmp/router_1|3",
            "|ipc:///tmp/hub_1|3",
            "tcp://127.0.0.1:30001||3",
            "tcp://127.0.0.1:30001|ipc:///tmp/hub_1|3",
        ] {
            assert_eq!(route(&names, here, Came::Here), Route::Here(3), "{here}");
        }
        assert_eq!(route(&names, "|ipc:///tmp/router_2|3", Came::Here), Route::There("ipc:///tmp/router_2".into()));
        assert_eq!(
            route(&names, "tcp://127.0.0.1:30001|ipc:///tmp/router_2|3", Came::Tcp),
            Route::There("ipc:///tmp/router_2".into())
        );
        assert_eq!(
            route(&names, "tcp://127.0.0.1:9|ipc:///tmp/router_1|3", Came::Here),
            Route::There("tcp://127.0.0.1:9".into())
        );
        assert_eq!(route(&names, "||", Came::Here), Route::Nowhere(Reason::NoSuchConnection));
    }

    #[test]
    fn a_machine_router_answers_the_network_through_the_router_it_was_heard_of() {
        let mut names = names(Mode::Machine);
        let far = "tcp://10.0.0.9:1|ipc:///tmp/router_1|3";
        assert!(matches!(route(&names, far, Came::Here), Route::Nowhere(Reason::NoRoute(_))));
        assert_eq!(route(&names, far, Came::Ipc), Route::Here(3));
        names.heard_of(&"tcp://10.0.0.9:1".into(), &"ipc:///tmp/router_5".into());
        assert_eq!(route(&names, far, Came::Here), Route::There("ipc:///tmp/router_5".into()));
    }

    #[test]
    fn a_local_router_reaches_nothing_outside() {
        let names = Names::new(Mode::Local);
        assert!(matches!(route(&names, "|ipc:///tmp/router_2|3", Came::Here), Route::Nowhere(Reason::NoRoute(_))));
        assert!(matches!(route(&names, "tcp://127.0.0.1:9||3", Came::Here), Route::Nowhere(Reason::NoRoute(_))));
        assert_eq!(route(&names, "||7", Came::Here), Route::Here(7));
    }

    #[test]
    fn our_end_of_a_pipe_is_ours_while_it_lasts() {
        let mut names = names(Mode::Network);
        names.add_pipe("tcp://127.0.0.1:54321".into());
        assert_eq!(route(&names, "tcp://127.0.0.1:54321|ipc:///tmp/router_1|3", Came::Tcp), Route::Here(3));
        names.remove_pipe(&"tcp://127.0.0.1:54321".into());
        assert_eq!(
            route(&names, "tcp://127.0.0.1:54321|ipc:///tmp/router_1|3", Came::Tcp),
            Route::Here(3),
            "an answer"
        );
        assert_eq!(route(&names, "tcp://127.0.0.1:54321||3", Came::Here), Route::There("tcp://127.0.0.1:54321".into()));
    }
}
