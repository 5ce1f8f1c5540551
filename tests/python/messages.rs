//! What a directory is told and asked, message by message: a Rust one answers Python as the reference should, and asks it nothing that harms it.

use std::time::Duration;

use serde_json::{Value as Json, json};
use vlmessaging::{Addr, Connection, DIRECTORY, LOCAL_VNET, RequestError, Router, Value};

use crate::peer::{AddOne, Folder, LIMIT, Peer, python_adds_one_twenty_times, until};

/// Asks a directory once; the subject and the contents of the answer.
async fn ask(client: &mut Peer, to: &Addr, subject: &str, contents: Json) -> Json {
    let also = ["DOES_NOT_UNDERSTAND", "MSG_NOT_DELIVERED"];
    let asked = json!({"do": "ask", "to": to, "subject": subject, "contents": contents, "also": also, "within": 1000});
    let reply = client.tell(asked).await["replies"][0].take();
    json!([reply["subject"], reply["contents"]])
}

/// A Rust router and what a Python client needs to ask its directory, over ipc and over tcp.
async fn each_way(test: impl AsyncFn(&Router, &mut Peer, &Addr)) {
    for mode in ["machine", "network"] {
        let folder = Folder::new();
        let builder = folder.router(Router::network()).vnet("test").listen("tcp://127.0.0.1:0");
        let router = builder.start().await.unwrap();
        let mut directory = router.net_addr(DIRECTORY);
        directory.net = directory.net.filter(|_| mode == "network");
        let mut client = Peer::client(&["--mode", mode]).await;
        client.meet(&directory).await;
        test(&router, &mut client, &directory).await;
        client.end().await;
        router.shutdown().await;
    }
}

#[actix::test]
async fn entries_are_told_to_python_as_lists_of_five() {
    each_way(async |router, client, directory| {
        let agent = router.spawn(AddOne::default());
        let _plain = agent.register("Plain").await.unwrap();
        let _params = agent.register("Params").params(Value::from([("ccy", "USD")])).vnets(["test"]).await.unwrap();
        let _hidden = agent.register("Hidden").vnets(Vec::<String>::new()).await.unwrap();
        let at = Addr { net: directory.net.clone(), ..agent.addr() };
        let plain = json!([at, "Plain", null, [LOCAL_VNET, "test"], null]);
        let params = json!([at, "Params", {"ccy": "USD"}, ["test"], null]);

        assert_eq!(ask(client, directory, "GET_ENTRIES", json!("Plain")).await, json!(["GET_ENTRIES", [plain]]));
        assert_eq!(ask(client, directory, "GET_ENTRIES", json!("Nobody")).await, json!(["GET_ENTRIES", []]));
        for all in [json!(null), json!(""), json!(0), json!(false)] {
            assert_eq!(ask(client, directory, "GET_ENTRIES", all).await, json!(["GET_ENTRIES", [plain, params]]));
        }
    })
    .await;
}

#[actix::test]
async fn vnets_pings_and_what_a_directory_does_not_understand_are_answered() {
    each_way(async |_, client, directory| {
        assert_eq!(ask(client, directory, "GET_VNETS", json!(null)).await, json!(["GET_VNETS", ["test"]]));
        assert_eq!(ask(client, directory, "PING", json!(null)).await, json!(["PING", null]));
        for other in ["SHUTDOWN", "MEOW", "SYNC"] {
            assert_eq!(ask(client, directory, other, json!(1)).await, json!(["DOES_NOT_UNDERSTAND", other]));
        }
        python_adds_one(client, directory).await;
    })
    .await;
}

/// After anything, a directory still answers.
async fn python_adds_one(client: &mut Peer, directory: &Addr) {
    assert_eq!(ask(client, directory, "GET_VNETS", json!(null)).await, json!(["GET_VNETS", ["test"]]));
}

#[actix::test]
async fn shared_entries_are_answered_and_unreadable_ones_complained_about() {
    each_way(async |router, client, directory| {
        let own = client.addr.clone();
        let entry = |service: &str| json!([own, service, null, ["local", "test"], null]);
        let longer = json!([own, "Longer", null, ["local", "test"], null, "more"]);
        let known = || router.connect().find("Shared").all().len();

        let told = ask(client, directory, "SHARE_ENTRIES", json!([entry("Shared"), longer])).await;
        assert_eq!(told[0], "SHARE_ENTRIES");
        assert!(told[1].is_array(), "{told}");
        assert_eq!((known(), router.connect().find("Longer").all().len()), (1, 1));

        // The whole batch is dropped, nothing is replied, and a message of its own says so.
        for bad in [json!([entry("Other"), [own, "Short"]]), json!([entry("Other"), 5]), json!(null), json!("text")] {
            assert_eq!(ask(client, directory, "SHARE_ENTRIES", bad).await, json!([null, null]));
            let heard = client.tell(json!({"do": "heard"})).await;
            assert_eq!(heard["unexpected"], json!([["BAD_ENTRIES", null, false]]));
        }
        assert_eq!((known(), router.connect().find("Other").all().len()), (1, 0));

        assert_eq!(ask(client, directory, "SHARE_ENTRIES", json!([])).await[0], "SHARE_ENTRIES");
        assert_eq!(known(), 0);
    })
    .await;
}

#[actix::test]
async fn an_entry_is_believed_from_its_own_router_only() {
    each_way(async |router, client, directory| {
        let agent = router.spawn(AddOne::default());
        let stranger = json!([null, "ipc:///tmp/router_1", 3]);
        for lie in [stranger, json!(agent.addr()), json!(router.net_addr(3))] {
            let entry = json!([lie, "Lie", null, ["local", "test"], null]);
            ask(client, directory, "SHARE_ENTRIES", json!([entry])).await;
            let refused = ask(client, directory, "REGISTER_ENTRY", entry.clone()).await;
            assert_eq!(refused, json!(["DOES_NOT_UNDERSTAND", "REGISTER_ENTRY"]));
            assert_eq!(router.connect().find("Lie").all(), []);
        }
        let _entry = agent.register("Ours").await.unwrap();
        ask(client, directory, "UNREGISTER_ADDR", json!(agent.addr())).await;
        assert_eq!(router.connect().find("Ours").all().len(), 1);
    })
    .await;
}

#[actix::test]
async fn a_python_router_without_a_hub_registers_at_a_rust_directory() {
    each_way(async |router, client, directory| {
        let conn = router.connect();
        let found = |service: &str| conn.find(service).all().len();
        let yes = |subject: &str| json!({"reply": [subject, true]});
        let vnets = ["local", "test"];
        let register = |service: &str| json!({"do": "register", "service": service, "vnets": vnets, "to": directory});
        let unregister = json!({"do": "unregister", "service": "One", "vnets": vnets, "to": directory});

        for _ in 0..2 {
            assert_eq!(client.tell(register("One")).await, yes("REGISTER_ENTRY"));
        }
        assert_eq!(client.tell(register("Two")).await, yes("REGISTER_ENTRY"));
        assert_eq!((found("One"), found("Two")), (1, 1));
        for _ in 0..2 {
            assert_eq!(client.tell(unregister.clone()).await, yes("UNREGISTER_ENTRY"));
            assert_eq!((found("One"), found("Two")), (0, 1));
        }
        let all = ask(client, directory, "UNREGISTER_ADDR", json!(client.addr.clone())).await;
        assert_eq!(all, json!(["UNREGISTER_ADDR", true]));
        assert_eq!(found("Two"), 0);
        let wrong = ask(client, directory, "REGISTER_ENTRY", json!(null)).await;
        assert_eq!(wrong, json!(["DOES_NOT_UNDERSTAND", "REGISTER_ENTRY"]));
    })
    .await;
}

#[actix::test]
async fn an_entry_that_python_cannot_read_keeps_no_other_from_it() {
    each_way(async |router, client, directory| {
        let agent = router.spawn(AddOne::default());
        let deep = (0..180).fold(Value::Null, |inside, _| Value::List(vec![inside]));
        let _deep = agent.register("Deep").params(deep).await.unwrap();
        let _plain = agent.register("Plain").await.unwrap();
        let told = ask(client, directory, "GET_ENTRIES", json!(null)).await;
        assert_eq!(told[1].as_array().map(Vec::len), Some(1), "{told}");
        assert_eq!(ask(client, directory, "SHARE_ENTRIES", json!([])).await[1], told[1]);
    })
    .await;
}

#[actix::test]
async fn a_python_directory_answers_rust_and_lives_on() {
    let folder = Folder::new();
    let router = folder.router(Router::machine()).start().await.unwrap();
    let agent = Peer::agent(&["--service", "AddOneAgent", "--entry-vnet", "local", "--vnet", "test"]).await;
    let (conn, directory) = (router.connect(), agent.addr.with_connection(DIRECTORY));
    let ask = async |subject: &'static str, contents: Value| conn.request(&directory, subject, contents, LIMIT).await;

    let entries = ask("GET_ENTRIES", Value::Null).await.unwrap().contents::<Vec<vlmessaging::Entry>>().unwrap();
    assert_eq!((entries.len(), &entries[0].addr), (1, &agent.addr));
    assert_eq!(ask("GET_VNETS", Value::Null).await.unwrap().contents::<Vec<String>>().unwrap(), ["test"]);
    // It is answered twice; the second answer is nobody's.
    ask("PING", Value::Null).await.unwrap();
    until("the second answer has come", async || router.stats().late_replies == 1).await;
    for other in ["SHUTDOWN", "MEOW"] {
        assert!(matches!(ask(other, Value::Null).await, Err(RequestError::NotUnderstood { .. })));
    }
    // It raises within its handler, and answers nothing.
    let share = conn.request(&directory, "SHARE_ENTRIES", Value::Null, Duration::from_millis(300)).await;
    assert!(matches!(share, Err(RequestError::TimedOut { .. })), "{share:?}");
    assert_answers(&conn, &directory).await;
    router.shutdown().await;
    agent.end().await;
}

async fn assert_answers(conn: &Connection, directory: &Addr) {
    conn.request(directory, "GET_VNETS", (), LIMIT).await.expect("the directory answers");
}

#[actix::test]
async fn a_python_heartbeat_of_four_messages_is_lived_with() {
    let folder = Folder::new();
    let (builder, hub) = folder.hub(Router::machine());
    let router = builder.start().await.unwrap();
    let agent = router.spawn(AddOne::default());
    let _entry = agent.register("AddOneAgent").await.unwrap();
    let mut client = Peer::client(&["--hub", &hub, "--heartbeat", "1500"]).await;
    client.find("AddOneAgent").await;

    until("its answer to our answer has come", async || router.stats().late_replies == 1).await;

    python_adds_one_twenty_times(&mut client, &agent.addr()).await;
    client.end().await;
    router.shutdown().await;
}
