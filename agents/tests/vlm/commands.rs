//! Each command does what its help says.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fixture::{Folder, typed};

#[test]
fn two_terminals_find_each_other_without_an_option() {
    let folder = Folder::new("two_terminals");
    let agent = folder.start(&["agent", "add-one"]);
    let called = folder.vlm(&["call", "AddOneAgent", "ADD_ONE", "41"]);
    assert_eq!((called.status, called.out.as_str(), called.err.as_str()), (0, "42\n", ""));
    let (result, status) = agent.end();
    assert_eq!((status, &result["ok"], &result["add_one"]), (0, &json!(true), &json!(1)));
}

#[test]
fn ctrl_c_and_sigterm_leave_no_socket_and_no_entry() {
    let folder = Folder::new("signals");
    let hub = folder.start(&["hub"]);
    for signal in [Signal::INT, Signal::TERM] {
        let agent = folder.start(&["agent", "add-one"]);
        assert_eq!(folder.vlm(&["ls", "AddOneAgent"]).status, 0);
        let (result, status) = agent.end_by(signal);
        assert_eq!((status, &result["closed"]), (0, &json!(true)));
        assert_eq!(folder.vlm(&["ls", "AddOneAgent"]).status, 3);
    }
    assert_eq!(hub.end().1, 0);
    assert_eq!(folder.files(), Vec::<String>::new());
}

#[test]
fn an_agent_ends_after_the_seconds_that_it_was_given() {
    let folder = Folder::new("seconds");
    let agent = folder.start(&["agent", "add-one", "--seconds", "0.1"]);
    let (result, status) = agent.result();
    assert_eq!((status, &result["program"]), (0, &json!("vlm agent add-one")));
    assert_eq!(folder.files(), Vec::<String>::new());
}

#[test]
fn a_call_tells_what_became_of_many_requests() {
    let folder = Folder::new("many");
    let agent = folder.start(&["agent", "add-one"]);
    let called = folder.vlm(&["call", "--count", "300", "--concurrency", "10", "--warmup", "3", "--json"]);
    let result = called.json();
    for (field, value) in [
        ("program", json!("vlm call")),
        ("ok", json!(true)),
        ("addr", agent.up["agent"].clone()),
        ("found", json!(1)),
        ("sent", json!(300)),
        ("answered", json!(300)),
        ("wrong", json!(0)),
        ("lost", json!(0)),
        ("warmup_tries", json!(1)),
        ("closed", json!(true)),
    ] {
        assert_eq!(result[field], value, "{field}");
    }
    assert!(result["lookup_ms"].is_number() && result["rtt_ms"]["p99"].is_number(), "{result}");
    let told = folder.vlm(&["call", "--count", "3", "--pause-ms", "1"]);
    assert!(told.out.starts_with("3 sent, 3 answered, 0 wrong, 0 lost; min "), "{}", told.out);
}

#[test]
fn a_call_goes_to_an_address_without_a_hub() {
    let folder = Folder::new("address");
    let agent = folder.start(&["agent", "add-one", "--no-hub"]);
    let addr = agent.addr("agent");
    assert_eq!(folder.vlm(&["call", "--addr", &addr, "ADD_ONE", "-1"]).out, "0\n");
    assert_eq!(folder.vlm(&["call", "--addr", &agent.up["agent"].to_string(), "ADD_ONE", "1"]).out, "2\n");
    assert_eq!(folder.vlm(&["ping", &addr, "--json"]).json()["answered"], 1);
    assert_eq!(folder.vlm(&["ls"]).status, 3);
}

#[test]
fn contents_are_json_or_ion_text() {
    let folder = Folder::new("contents");
    let _agent = folder.start(&["agent", "add-one"]);
    for (sent, shown) in [
        (r#"{"b": 1, "a": [2.5, null, "ä"]}"#, r#"{"b":1,"a":[2.5,null,"ä"]}"#),
        ("{b: 1, a: 2.5e0}", r#"{"b":1,"a":2.5}"#),
        ("170141183460469231731687303715884105727", "170141183460469231731687303715884105727"),
        ("{{aGk=}}", "{{aGk=}}"),
        ("2026-11-22T", "2026-11-22T"),
    ] {
        assert_eq!(folder.vlm(&["call", "AddOneAgent", "ECHO", sent]).out, format!("{shown}\n"));
        assert_eq!(folder.vlm(&["call", "--echo", sent, "--json"]).json()["wrong"], 0);
    }
    let result = folder.vlm(&["call", "AddOneAgent", "ECHO", "{{aGk=}}", "--json"]).json();
    assert_eq!((&result["reply"], &result["reply_ion"]), (&Value::Null, &json!("{{aGk=}}")));
}

#[test]
fn ls_lists_entries_and_routers_as_the_network_says() {
    let folder = Folder::new("ls");
    let hub = folder.start(&["hub"]);
    assert_eq!(hub.up["is_hub"], true);
    let agent = folder.start(&["agent", "add-one", "--service", "Plus", "--params", r#"{"by": 1}"#, "--vnet", "local"]);
    let lines = folder.vlm(&["ls", "--json"]).lines();
    let entry = json!({
        "kind": "entry", "service": "Plus", "params": { "by": 1 }, "vnets": ["local"], "addr": agent.up["agent"], "router": "rust",
    });
    assert_eq!(lines[0], entry);
    let mut services: Vec<_> = lines[1..].iter().map(|router| (&router["kind"], &router["services"])).collect();
    services.sort_by_key(|(_, services)| services.to_string());
    assert_eq!(services, [(&json!("router"), &json!(["Plus"])), (&json!("router"), &json!([]))]);
    let table = folder.vlm(&["ls", "Plus"]).out;
    assert!(table.starts_with("SERVICE"), "{table}");
    assert!(table.contains(&agent.addr("agent")), "{table}");
    agent.kill();
    assert_eq!(folder.vlm(&["ls", "Plus"]).status, 3);
}

#[test]
fn a_second_hub_stands_by() {
    let folder = Folder::new("second_hub");
    let first = folder.start(&["hub"]);
    let second = folder.start(&["hub"]);
    assert_eq!((&first.up["is_hub"], &second.up["is_hub"]), (&json!(true), &json!(false)));
    first.kill();
    // Its successor is found as soon as it is the hub.
    assert_eq!(folder.vlm(&["ls", "--lookup-ms", "10000"]).status, 0);
}

#[test]
fn ping_asks_every_provider() {
    let folder = Folder::new("ping");
    let agents = [folder.start(&["agent", "add-one"]), folder.start(&["agent", "add-one"])];
    let pinged = folder.vlm(&["ping", "AddOneAgent", "--count", "2", "--json"]);
    let mut told: Vec<String> = pinged.lines().iter().map(|line| typed(&line["addr"])).collect();
    let mut expected: Vec<String> = agents.iter().map(|agent| agent.addr("agent")).collect();
    told.sort();
    expected.sort();
    assert_eq!((pinged.status, told), (0, expected));
    assert!(pinged.lines().iter().all(|line| line["answered"] == 2 && line["ok"] == true), "{}", pinged.out);
}

#[test]
fn a_network_is_found_through_its_hub() {
    let folder = Folder::new("network");
    let hub = folder.start(&["hub", "--net-listen", "tcp://127.0.0.1:0", "--vnet", "test"]);
    let agent = folder.start(&["agent", "add-one", "--vnet", "test"]);
    let elsewhere = Folder::new("network_elsewhere");
    let at = hub.up["nEps"][0].as_str().unwrap();
    assert_eq!(elsewhere.vlm(&["call", "--net-hub", at, "AddOneAgent", "ADD_ONE", "41"]).out, "42\n");
    let entry = elsewhere.vlm(&["ls", "AddOneAgent", "--net-hub", at, "--json"]).lines()[0].clone();
    assert_eq!((entry["addr"][0].as_str(), &entry["addr"][2]), (Some(at), &agent.up["agent"][2]));
}

#[test]
fn a_long_call_shows_at_a_terminal_how_far_it_is_and_wipes_it() {
    let folder = Folder::new("progress");
    let _agent = folder.start(&["agent", "add-one"]);
    let shown = folder.vlm_at_terminal(&["call", "--seconds", "2"]);
    assert!(shown.contains("answered") && shown.contains("left"), "{shown:?}");
    assert!(shown.ends_with("\r\u{1b}[K"), "{shown:?}");
    assert_eq!(folder.vlm_at_terminal(&["call"]).trim_matches(['\r', '\u{1b}', '[', 'K']), "");
}

#[test]
fn a_burst_without_a_sink_is_told_how_to_start_one() {
    let folder = Folder::new("no_sink");
    let _hub = folder.start(&["hub"]);
    let ended = folder.vlm(&["burst", "--lookup-ms", "50"]);
    assert_eq!(ended.status, 3);
    assert!(ended.err.contains("vlm sink"), "{}", ended.err);
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    let folder = Folder::new("burst");
    let sink = folder.start(&["sink", "--expect", "2000"]);
    let fired = folder.vlm(&["burst", "--count", "2000", "--payload", "3", "--expect-all", "--json"]);
    let result = fired.json();
    for (field, value) in
        [("ok", json!(true)), ("sent", json!(2000)), ("not_delivered", json!(0)), ("warm", json!(true))]
    {
        assert_eq!(result[field], value, "{field}");
    }
    assert_eq!(result["sink"]["count"], 2000);
    let (result, status) = sink.result();
    let counted =
        ["ok", "count", "first", "last", "out_of_order", "duplicates", "bytes", "expected"].map(|field| &result[field]);
    assert_eq!((status, json!(counted)), (0, json!([true, 2000, 0, 1999, 0, 0, 6000, 2000])));
}

#[test]
fn an_agent_counts_what_it_is_sent() {
    let folder = Folder::new("counts");
    let agent = folder.start(&["agent", "add-one", "--delay-ms", "1", "--seconds", "60"]);
    let addr = agent.addr("agent");
    assert_eq!(folder.vlm(&["burst", "--addr", &addr, "--count", "5", "--no-query"]).status, 0);
    assert_eq!(folder.vlm(&["call", "--addr", &addr, "ECHO", "1"]).out, "1\n");
    assert_eq!(folder.vlm(&["call", "--addr", &addr, "MEOW"]).status, 5);
    let stats = folder.vlm(&["call", "--addr", &addr, "STATS", "--json"]).json();
    assert_eq!(stats["reply"], json!({ "add_one": 0, "echo": 1, "events": 5, "other": { "MEOW": 1 } }));
    let (result, _) = agent.end();
    assert_eq!((&result["events"], &result["entries"][0][1]), (&json!(5), &json!("AddOneAgent")));
}

#[test]
fn shells_are_given_completions() {
    let folder = Folder::new("completions");
    for shell in ["bash", "zsh", "fish"] {
        let script = folder.vlm(&["completions", shell]);
        assert_eq!(script.status, 0);
        assert!(script.out.contains("add-one"), "{shell}");
    }
}
