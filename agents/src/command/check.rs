//! `vlm check`: whether all directories agree, or which differ in what.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::look::{Looked, look};
use super::target::{self, LOOKUP};
use crate::outcome::{Exit, Failure, print, print_json};
use crate::place::{self, Place, typed};
use crate::signals::Stop;

/// Pause between looks while directories differ: what is on its way needs a moment. Default 100 ms.
const AGAIN: Duration = Duration::from_millis(100);

/// Compare what all directories of the network hold
#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Wait so long for the hubs to tell and the directories to agree, in milliseconds
    #[arg(long, default_value = LOOKUP, value_parser = place::read_millis)]
    lookup_ms: Duration,
}

/// What directories hold of one router, in one view: versions and entries, and who holds that.
type Held = BTreeMap<(u64, u64), Vec<String>>;

/// Which life of a router, and through which vnets it was heard of.
type View = (u64, Option<Vec<String>>);

impl Check {
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let stop = Stop::on_signals()?;
        let router = self.place.guest(None).start().await?;
        let joined = stop.or(router.joined(self.lookup_ms)).await;
        let conn = router.connect();
        let until = Instant::now() + self.lookup_ms;
        let looked = loop {
            let looked = look(&router, &conn, None, None, self.lookup_ms).await;
            if differences(&looked).is_empty() || Instant::now() >= until || stop.is_asked() {
                break looked;
            }
            // Asked to end or not, it is looked once more.
            let _ = stop.or(tokio::time::sleep(AGAIN)).await;
        };
        place::close(&router).await;
        if let Some(Err(silent)) = joined {
            return Err(target::no_hub(&silent));
        }
        self.tell(&looked)
    }

    fn tell(&self, looked: &[Looked]) -> Result<Exit, Failure> {
        let differences = differences(looked);
        // The first is the directory of this command.
        let count = looked.iter().skip(1).filter(|looked| matches!(looked.view, Some(Ok(_)))).count();
        let python = looked.iter().filter(|looked| looked.view.is_none()).count();
        if self.place.json {
            for (home, said) in &differences {
                print_json(&json!({ "kind": "difference", "router": home, "said": said }));
            }
            print_json(&json!({
                "program": "vlm check", "ok": differences.is_empty(), "directories": count, "python": python, "differences": differences.len(),
            }));
        } else {
            for (home, said) in &differences {
                print(&format!("of {home}:"));
                for line in said {
                    print(&format!("  {line}"));
                }
            }
        }
        if !differences.is_empty() {
            let text = format!("{} directories differ about {} routers", count, differences.len());
            return Err(
                Failure::new(Exit::Failed, text).next("see why: vlm why ADDR; they repair it within a digest, 5 s")
            );
        }
        if !self.place.json {
            print(&format!(
                "{count} directories agree{}",
                if python > 0 { format!("; {python} Python routers explain nothing") } else { String::new() }
            ));
        }
        Ok(Exit::Ok)
    }
}

/// By router: who holds what of it, where not all hold the same, and who does not answer.
fn differences(looked: &[Looked]) -> Vec<(String, Vec<String>)> {
    let mut held: BTreeMap<View, (String, Held)> = BTreeMap::new();
    let mut all = Vec::new();
    for one in looked {
        match &one.view {
            None => {}
            Some(Err(error)) => all.push((typed(&one.home), vec![format!("its directory does not answer: {error}")])),
            Some(Ok(view)) => {
                for router in &view.routers {
                    let name = (router.incarnation, router.vnets.clone());
                    let (home, said) = held.entry(name).or_default();
                    if home.is_empty() {
                        *home = typed(&router.home);
                    }
                    said.entry((router.version, router.fingerprint)).or_default().push(typed(&view.home));
                }
            }
        }
    }
    let own = looked.first().and_then(|one| one.view.as_ref()?.as_ref().ok()).map(|view| view.incarnation);
    let answering =
        |who: u64| looked.iter().filter_map(|one| one.view.as_ref()?.as_ref().ok()).any(|view| view.incarnation == who);
    for ((incarnation, vnets), (home, said)) in held {
        let mut lines: Vec<String> = Vec::new();
        if said.len() > 1 {
            lines.extend(said.iter().map(|((version, _), who)| format!("version {version} at {}", who.join(", "))));
        }
        if !answering(incarnation) && Some(incarnation) != own {
            lines.push(format!("it does not answer, but {} believe in it", said.values().map(Vec::len).sum::<usize>()));
        }
        // Within a machine all know all.
        let holders: Vec<&String> = said.values().flatten().collect();
        let near = looked.iter().filter(|one| one.home.net.is_none() && matches!(one.view, Some(Ok(_))));
        if vnets.is_none() && Some(incarnation) != own && all_near(looked) {
            lines.extend(
                near.filter(|one| !holders.contains(&&typed(&one.home)))
                    .map(|one| format!("unknown at {}", typed(&one.home))),
            );
        }
        if !lines.is_empty() {
            all.push((home, lines));
        }
    }
    all
}

fn all_near(looked: &[Looked]) -> bool {
    looked.iter().all(|one| one.home.net.is_none())
}
