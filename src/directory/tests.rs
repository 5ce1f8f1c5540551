//! Directories that tell each other, with the network between them played by hand.

use std::collections::HashMap;

use super::core::*;
use super::entry::*;
use super::replica::Sync;
use crate::addr::{Addr, Endpoint};
use crate::value::Value;

/// Directories by name; each message is delivered, in order, to the one that it names.
struct Network(HashMap<Endpoint, Core>);

impl Network {
    fn new(names: &[&str]) -> Self {
        let core = |(index, name): (usize, &&str)| {
            let mut core = Core::default();
            core.belongs_to(home(name), index as u64 + 1, vec!["test".into()]);
            (Endpoint::from(*name), core)
        };
        Self(names.iter().enumerate().map(core).collect())
    }

    fn at(&mut self, name: &str) -> &mut Core {
        self.0.get_mut(&Endpoint::from(name)).unwrap()
    }

    fn join(&mut self, name: &str, hub: &str) {
        self.at(name).join(hub.into());
        let incarnation = self.incarnation(hub);
        self.at(name).peer_up(&hub.into(), incarnation);
        self.settle();
    }

    fn incarnation(&mut self, name: &str) -> u64 {
        self.at(name).replica.me
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            let mut mail = Vec::new();
            for (name, core) in &mut self.0 {
                mail.extend(core.take_outbox().into_iter().map(|out| (name.clone(), out)));
            }
            if mail.is_empty() {
                return;
            }
            for (from, Outgoing { to, what }) in mail {
                let name = to.net.or(to.machine).unwrap();
                if let (Some(core), What::Sync(sync)) = (self.0.get_mut(&name), what) {
                    core.heard(&Addr { connection: Some(1), ..home(from.as_str()) }, sync);
                }
            }
        }
        panic!("the directories never stop talking");
    }

    fn lose(&mut self, name: &str) {
        self.0.remove(&Endpoint::from(name));
        for core in self.0.values_mut() {
            core.peer_gone(&name.into());
        }
        self.settle();
    }

    fn sees(&mut self, name: &str, service: &str) -> usize {
        self.at(name).find(Some(service), &Value::Null, None).len()
    }
}

fn home(name: &str) -> Addr {
    Addr { connection: None, ..Addr::at(name.into(), 0) }
}

fn entry(router: &str, number: u64, service: &str) -> Entry {
    let vnets = vec![LOCAL_VNET.into(), "test".into()];
    Entry {
        addr: Addr::at(router.into(), number),
        service: service.into(),
        params: Value::Null,
        vnets,
        perms: Value::Null,
    }
}

const HUB: &str = "ipc:///tmp/hub_1";
const A: &str = "ipc:///tmp/router_1";
const B: &str = "ipc:///tmp/router_2";

#[test]
fn an_entry_is_seen_through_the_hub_in_either_order_and_gone_when_withdrawn() {
    let mut network = Network::new(&[HUB, A, B]);
    network.join(A, HUB);
    let number = network.at(A).register(entry(A, 3, "AddOne"));
    network.settle();
    network.join(B, HUB);
    network.at(A).register(entry(A, 3, "AddTwo"));
    network.settle();
    assert_eq!((network.sees(B, "AddOne"), network.sees(B, "AddTwo"), network.sees(HUB, "AddOne")), (1, 1, 1));
    assert!(network.at(A).withdraw(number));
    assert!(!network.at(A).withdraw(number));
    network.settle();
    assert_eq!((network.sees(B, "AddOne"), network.sees(B, "AddTwo")), (0, 1));
}

#[test]
fn entries_of_a_lost_router_go_everywhere_and_old_news_does_not_bring_them_back() {
    let mut network = Network::new(&[HUB, A, B]);
    network.join(A, HUB);
    network.join(B, HUB);
    network.at(A).register(entry(A, 3, "AddOne"));
    let outbox = network.at(A).take_outbox();
    let old_news: Vec<Sync> =
        outbox.into_iter().filter_map(|out| if let What::Sync(sync) = out.what { Some(sync) } else { None }).collect();
    for sync in old_news.clone() {
        network.at(HUB).heard(&Addr { connection: Some(1), ..home(A) }, sync);
    }
    network.settle();
    assert_eq!(network.sees(B, "AddOne"), 1);
    network.lose(A);
    assert_eq!((network.sees(B, "AddOne"), network.sees(HUB, "AddOne")), (0, 0));
    for sync in old_news {
        assert!(!network.at(B).heard(&Addr { connection: Some(1), ..home(HUB) }, sync));
    }
    assert_eq!(network.sees(B, "AddOne"), 0);
}

#[test]
fn a_goodbye_takes_the_entries_with_it() {
    let mut network = Network::new(&[HUB, A, B]);
    network.join(A, HUB);
    network.join(B, HUB);
    network.at(A).register(entry(A, 3, "AddOne"));
    network.settle();
    network.at(A).goodbye();
    network.settle();
    assert_eq!((network.sees(HUB, "AddOne"), network.sees(B, "AddOne")), (0, 0));
}

#[test]
fn lookups_know_service_params_and_vnet() {
    let mut network = Network::new(&[A]);
    let core = network.at(A);
    core.register(Entry { params: Value::from([("ccy", "USD"), ("class", "fx")]), ..entry(A, 3, "vol") });
    core.register(Entry { vnets: vec!["other".into()], ..entry(A, 4, "vol") });
    assert_eq!(core.find(Some("vol"), &Value::Null, None).len(), 2);
    assert_eq!(core.find(Some("vol"), &Value::from([("ccy", "USD")]), None).len(), 1);
    assert_eq!(core.find(Some("vol"), &Value::from([("ccy", "EUR")]), None).len(), 0);
    assert_eq!(core.find(Some("vol"), &Value::Null, Some("other")).len(), 1);
    assert_eq!(core.services(), ["vol"]);
    assert!(core.forget(3));
    assert_eq!(core.find(Some("vol"), &Value::Null, None).len(), 1);
}

#[test]
fn a_python_router_is_believed_about_itself_and_forgotten_when_it_goes() {
    let mut network = Network::new(&[HUB]);
    let hub = network.at(HUB);
    let from: Addr = format!("|{A}|1").parse().unwrap();
    assert!(hub.shared_by(&from, vec![entry(A, 3, "AddOne"), entry(B, 3, "Echoed")]));
    assert_eq!(hub.services(), ["AddOne"]);
    assert_eq!(hub.for_python(None).len(), 1);
    assert!(!hub.shared_by(&from, vec![entry(A, 3, "AddOne")]), "nothing new");
    assert!(hub.peer_gone(&A.into()));
    assert!(hub.services().is_empty());
}

#[test]
fn a_python_hub_does_not_bring_back_what_this_router_has_withdrawn() {
    let mut network = Network::new(&[A]);
    let core = network.at(A);
    core.join(HUB.into());
    core.peer_is_python(&HUB.into());
    let number = core.register(entry(A, 3, "AddOne"));
    assert!(core.take_outbox().iter().any(|out| matches!(&out.what, What::Share(entries) if entries.len() == 1)));
    core.withdraw(number);
    let from: Addr = "|ipc:///tmp/router_9|1".parse().unwrap();
    core.hub_has(&HUB.into(), &from, vec![entry(A, 3, "AddOne"), entry(B, 3, "Other")]);
    assert_eq!(core.services(), ["Other"]);
    core.peer_gone(&HUB.into());
    assert!(core.services().is_empty());
}

#[test]
fn a_network_asker_is_told_what_it_reaches_in_one_hop_under_the_name_it_used() {
    let mut core = Core::default();
    let machine: Endpoint = A.into();
    let net: Endpoint = "tcp://127.0.0.1:30001".into();
    core.belongs_to(Addr { net: Some(net.clone()), machine: Some(machine), connection: None }, 1, vec!["test".into()]);
    core.register(entry(A, 3, "Here"));
    core.register(Entry { vnets: vec![LOCAL_VNET.into()], ..entry(A, 4, "MachineOnly") });
    core.shared_by(&format!("|{B}|1").parse().unwrap(), vec![entry(B, 3, "TwoHops")]);
    let told = core.for_python(Some(&net));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].addr, format!("{net}|{A}|3").parse().unwrap());
}

#[test]
fn what_python_is_answered_is_made_anew_only_after_a_change() {
    let mut core = Core::default();
    core.belongs_to(Addr { net: None, machine: Some(A.into()), connection: None }, 1, Vec::new());
    core.register(entry(A, 3, "One"));
    let answered = |core: &mut Core| core.answer_python(None).encoded().unwrap().bytes;
    let first = answered(&mut core);
    assert!((0..10).all(|_| answered(&mut core).as_ptr() == first.as_ptr()));

    let number = core.register(entry(A, 4, "Two"));
    let second = answered(&mut core);
    assert_ne!(second, first);
    core.withdraw(number);
    assert_eq!(answered(&mut core), first);
}

#[test]
fn an_entry_is_a_list_of_five_and_longer_ones_are_read() {
    let contents = crate::wire::encode(&entry(A, 3, "AddOne")).unwrap();
    assert_eq!(crate::wire::decode::<Entry>(&contents), Ok(entry(A, 3, "AddOne")));
    let longer = crate::wire::encode(&(Addr::local(3), "S", (), None::<Vec<String>>, (), "more")).unwrap();
    assert!(crate::wire::decode::<Entry>(&longer).unwrap().vnets.is_empty());
    let shorter = crate::wire::encode(&(Addr::local(3), "S", ())).unwrap();
    assert!(crate::wire::decode::<Entry>(&shorter).is_err());
}

#[test]
fn a_hub_has_told_once_it_has_told_of_itself() {
    let mut network = Network::new(&[A, HUB]);
    network.at(A).join(HUB.into());
    assert_eq!(network.at(A).silent_hub(), Some(&HUB.into()));
    network.join(A, HUB);
    assert_eq!(network.at(A).silent_hub(), None);
    let homes: Vec<Addr> = network.at(A).routers().into_iter().map(|router| router.home).collect();
    assert_eq!(homes, [home(A), home(HUB)]);
    network.lose(HUB);
    assert_eq!(network.at(A).silent_hub(), Some(&HUB.into()));
}

#[test]
fn what_a_python_router_shares_with_the_hub_is_known_to_all() {
    const PYTHON: &str = "ipc:///tmp/router_9";
    let mut network = Network::new(&[A, B, HUB]);
    network.join(A, HUB);
    let from = Addr::at(PYTHON.into(), 1);
    network.at(HUB).shared_by(&from, vec![entry(PYTHON, 3, "early")]);
    network.settle();
    network.join(B, HUB);
    assert_eq!((network.sees(A, "early"), network.sees(B, "early")), (1, 1));
    let known = network.at(A).routers().into_iter().find(|router| router.home == home(PYTHON)).unwrap();
    assert!(!known.is_rust);

    network.at(HUB).shared_by(&from, vec![entry(PYTHON, 3, "early"), entry(PYTHON, 4, "late")]);
    network.settle();
    assert_eq!((network.sees(A, "late"), network.sees(B, "late")), (1, 1));
    network.at(HUB).peer_gone(&PYTHON.into());
    network.settle();
    assert_eq!((network.sees(A, "early"), network.sees(B, "late")), (0, 0));

    network.at(HUB).shared_by(&from, vec![entry(PYTHON, 3, "again")]);
    network.settle();
    assert_eq!(network.sees(A, "again"), 1);
    network.lose(HUB);
    assert_eq!((network.sees(A, "again"), network.sees(B, "again")), (0, 0));
}

#[test]
fn a_hub_of_the_network_is_known_on_its_machine_by_another_name() {
    let mut hub = Core::default();
    let home = Addr { net: Some("tcp://127.0.0.1:30001".into()), machine: Some(A.into()), connection: None };
    hub.belongs_to(home, 7, vec!["test".into()]);
    hub.register(entry(A, 3, "AddOne"));
    let mut spoke = Core::default();
    spoke.belongs_to(Addr { connection: None, ..Addr::at(B.into(), 0) }, 8, Vec::new());
    spoke.join(HUB.into());
    spoke.peer_up(&HUB.into(), 7);
    for _ in 0..3 {
        for Outgoing { what, .. } in spoke.take_outbox() {
            let What::Sync(sync) = what else { panic!("a Rust hub is synced with") };
            hub.heard(&Addr::at(B.into(), 1), sync);
        }
        for Outgoing { what, .. } in hub.take_outbox() {
            let What::Sync(sync) = what else { panic!("a Rust spoke is synced with") };
            spoke.heard(&Addr::at(A.into(), 1), sync);
        }
    }
    assert_eq!(spoke.silent_hub(), None);
    assert_eq!(spoke.services(), ["AddOne"]);
    assert!(spoke.life_ended(7));
    assert!(!spoke.life_ended(7));
    assert!(spoke.services().is_empty());
}

#[test]
fn a_router_that_was_not_gone_after_all_says_so() {
    let mut network = Network::new(&[HUB, A, B]);
    network.join(A, HUB);
    network.join(B, HUB);
    network.at(A).register(entry(A, 3, "AddOne"));
    network.settle();
    // The second of the three that were made.
    assert!(network.at(HUB).life_ended(2));
    assert_eq!(network.sees(HUB, "AddOne"), 0);
    network.settle();
    assert_eq!((network.sees(HUB, "AddOne"), network.sees(B, "AddOne")), (1, 1));
}
