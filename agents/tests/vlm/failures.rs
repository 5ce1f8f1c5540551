//! Each failure has its exit status, says what happened, and what to do next.

use crate::fixture::{Ended, Folder};

fn assert_fails(ended: &Ended, status: i32, texts: &[&str]) {
    assert_eq!(ended.status, status, "{}{}", ended.out, ended.err);
    for text in texts {
        assert!(ended.err.contains(text), "{text:?} is not in {:?}", ended.err);
    }
}

#[test]
fn without_a_hub_it_is_told_how_to_start_one() {
    let folder = Folder::new("no_hub");
    for args in [["call", "AddOneAgent"], ["ping", "AddOneAgent"], ["ls", "AddOneAgent"]] {
        let ended = folder.vlm(&[&args[..], &["--lookup-ms", "100"]].concat());
        assert_fails(&ended, 3, &["no hub answers at", &folder.at("hub_1"), "start one with `vlm hub`"]);
        assert_eq!(ended.out, "");
    }
    assert_eq!(folder.files(), Vec::<String>::new());
}

#[test]
fn an_unknown_service_is_told_with_those_that_are_provided() {
    let folder = Folder::new("nobody");
    let _agent = folder.start(&["agent", "add-one", "--service", "Somebody"]);
    let ended = folder.vlm(&["call", "Nobody", "ASK", "--lookup-ms", "100"]);
    assert_fails(
        &ended,
        3,
        &["nobody provides \"Nobody\"", "provided are: Somebody", "vlm agent add-one --service Nobody"],
    );
    let result = folder.vlm(&["call", "Nobody", "ASK", "--lookup-ms", "100", "--json"]).json();
    assert_eq!((&result["ok"], &result["failure"], &result["found"]), (&false.into(), &"not_found".into(), &0.into()));
}

#[test]
fn what_is_not_understood_is_told_with_the_reason() {
    let folder = Folder::new("not_understood");
    let _agent = folder.start(&["agent", "add-one"]);
    assert_fails(&folder.vlm(&["call", "AddOneAgent", "MEOW"]), 5, &["does not understand \"MEOW\""]);
    assert_fails(&folder.vlm(&["call", "AddOneAgent", "ADD_ONE", "\"x\""]), 5, &["string \"x\", expected i128"]);
    let result = folder.vlm(&["call", "AddOneAgent", "MEOW", "--json"]).json();
    assert_eq!((&result["failure"], &result["not_understood"]), (&"not_understood".into(), &1.into()));
}

#[test]
fn an_address_that_nobody_has_is_told_at_once() {
    let folder = Folder::new("not_delivered");
    let nowhere = format!("|{}|3", folder.at("router_1"));
    assert_fails(
        &folder.vlm(&["call", "--addr", &nowhere, "ADD_ONE", "1", "--timeout-ms", "60000"]),
        4,
        &["nobody listens there"],
    );
    assert_fails(&folder.vlm(&["burst", "--addr", &nowhere]), 4, &["nobody listens there", "vlm ls"]);
    let agent = folder.start(&["agent", "add-one"]);
    let stranger = format!("|{}|99", agent.up["mEps"][0].as_str().unwrap());
    assert_fails(&folder.vlm(&["ping", &stranger]), 4, &["no such connection"]);
    let reported =
        folder.vlm(&["burst", "--addr", &stranger, "--no-query", "--settle-ms", "5000", "--count", "1", "--json"]);
    assert_eq!((reported.status, &reported.json()["not_delivered"]), (4, &1.into()));
}

#[test]
fn a_late_answer_is_told_as_such() {
    let folder = Folder::new("timed_out");
    let _agent = folder.start(&["agent", "add-one", "--delay-ms", "60000"]);
    let ended = folder.vlm(&["call", "AddOneAgent", "ADD_ONE", "1", "--timeout-ms", "50"]);
    assert_fails(&ended, 6, &["no reply from", "within 50ms", "--timeout-ms"]);
}

#[test]
fn answers_that_come_too_late_are_counted() {
    let folder = Folder::new("late");
    let _agent = folder.start(&["agent", "add-one", "--delay-ms", "300"]);
    let call = ["call", "AddOneAgent", "--count", "2", "--timeout-ms", "50", "--pause-ms", "600", "--json"];
    let result = folder.vlm(&call).json();
    // The second's may come after the end.
    let late = result["extras"]["ADD_ONE"].as_u64().unwrap();
    assert!((1..=2).contains(&late), "{result}");
    assert_eq!(result["timed_out"], 2);
}

#[test]
fn lost_requests_that_are_allowed_are_no_failure() {
    let folder = Folder::new("allowed");
    let _agent = folder.start(&["agent", "add-one", "--ping-only"]);
    let ended = folder.vlm(&["call", "AddOneAgent", "MEOW", "--timeout-ms", "50", "--allow-lost", "1", "--json"]);
    assert_eq!((ended.status, &ended.json()["timed_out"]), (6, &1.into()), "nothing was answered");
}

#[test]
fn wrong_options_are_told_before_anything_is_started() {
    let folder = Folder::new("usage");
    for (args, text) in [
        (&["call", "--count", "x"][..], "invalid value 'x'"),
        (&["call", "A", "B", "{c"], "neither JSON nor Ion text"),
        (&["call", "--addr", "ipc:///tmp/router_1"], "write it as tcp|ipc|number"),
        (&["call", "--addr", "|a|3", "A", "1", "2"], "one argument too many"),
        (&["call", "--addr", "||3"], "it names no router"),
        (&["ping", "a|b"], "is not an address"),
        (&["burst", "--count"], "--count"),
        (&["meow"], "unrecognized subcommand"),
    ] {
        assert_fails(&folder.vlm(args), 2, &[text]);
    }
    assert_eq!(folder.files(), Vec::<String>::new());
}

#[test]
fn an_endpoint_in_use_is_told() {
    let folder = Folder::new("in_use");
    let at = folder.at("hub_7");
    let _hub = folder.start(&["hub", "--hub-listen", &at]);
    assert_fails(&folder.vlm(&["agent", "add-one", "--hub-listen", &at]), 1, &[&at, "choose another endpoint"]);
    let result = folder.vlm(&["agent", "add-one", "--hub-listen", &at, "--json"]).json();
    assert_eq!((&result["ok"], &result["failure"]), (&false.into(), &"failed".into()));
    let tcp = folder.vlm(&["agent", "add-one", "--mode", "machine", "--net-listen", "tcp://127.0.0.1:0"]);
    assert_fails(&tcp, 1, &["needs Router::network()"]);
}
