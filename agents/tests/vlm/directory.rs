//! The directory explained: `ls --watch`, `why` and `check`.

use serde_json::json;

use crate::fixture::Folder;

#[test]
fn check_says_that_all_directories_agree() {
    let folder = Folder::new("check");
    assert_eq!(folder.vlm(&["check", "--lookup-ms", "50"]).status, 3, "there is nobody");
    let _hub = folder.start(&["hub"]);
    let agent = folder.start(&["agent", "add-one"]);
    let checked = folder.vlm(&["check", "--json"]);
    assert_eq!((checked.status, &checked.json()["directories"]), (0, &json!(2)), "{}{}", checked.out, checked.err);
    agent.kill();
    let checked = folder.vlm(&["check"]);
    assert_eq!((checked.status, checked.out.as_str()), (0, "1 directories agree\n"), "{}", checked.err);
}

#[test]
fn why_says_who_provides_who_sees_it_and_what_a_message_would_be_answered() {
    let folder = Folder::new("why");
    let hub = folder.start(&["hub"]);
    let agent = folder.start(&["agent", "add-one"]);
    let told = folder.vlm(&["why", "AddOneAgent", "--json"]).json();
    assert_eq!((&told["addr"], &told["send"]), (&agent.up["agent"], &json!("answered")), "{told}");
    assert_eq!((told["seen_by"].as_array().unwrap().len(), &told["unseen_by"]), (3, &json!([])), "{told}");
    assert!(told["via"].as_str().unwrap().ends_with("hub_1"), "{told}");
    let by_address = folder.vlm(&["why", &agent.addr("agent"), "--json"]).json();
    assert_eq!(by_address["service"], "AddOneAgent");
    let people = folder.vlm(&["why", "AddOneAgent"]).out;
    assert!(people.contains("a message    answered"), "{people}");
    let nobody = folder.vlm(&["why", "AddTwoAgent"]);
    assert_eq!(nobody.status, 3);
    assert!(nobody.err.contains("never announced"), "{}", nobody.err);
    assert_eq!(hub.end().1, 0);
}

#[test]
fn why_says_that_an_entry_stays_in_its_vnet() {
    let folder = Folder::new("why_vnets");
    let hub = folder.start(&["hub", "--net-listen", "tcp://127.0.0.1:0", "--vnet", "desk"]);
    let _agent = folder.start(&["agent", "add-one", "--vnet", "other"]);
    let elsewhere = Folder::new("why_vnets_elsewhere");
    let at = hub.up["nEps"][0].as_str().unwrap();
    let missing = elsewhere.vlm(&["why", "AddOneAgent", "--net-hub", at]);
    assert_eq!(missing.status, 3, "{}", missing.out);
    let near = folder.vlm(&["why", "AddOneAgent", "--json"]).json();
    assert_eq!((&near["vnets"], &near["unseen_by"]), (&json!(["other"]), &json!([])), "{near}");
}

#[test]
fn ls_watch_tells_what_comes_and_goes() {
    let folder = Folder::new("ls_watch");
    let _hub = folder.start(&["hub"]);
    let watching = std::thread::scope(|scope| {
        let watching = scope.spawn(|| folder.vlm(&["ls", "--watch", "3", "--json"]));
        let agent = folder.start(&["agent", "add-one"]);
        assert_eq!(folder.vlm(&["ls", "AddOneAgent"]).status, 0);
        // The watcher may still be starting: it is told what is there all the same.
        std::thread::sleep(std::time::Duration::from_secs(1));
        agent.kill();
        watching.join().unwrap()
    });
    let told: Vec<_> = watching.lines().iter().map(|line| (line["kind"].clone(), line["service"].clone())).collect();
    assert_eq!(told, [(json!("appeared"), json!("AddOneAgent")), (json!("gone"), json!("AddOneAgent"))]);
}
