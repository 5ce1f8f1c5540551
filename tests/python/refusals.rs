//! What Python cannot read never reaches it: its router would die of it.

use actix::{Actor, Context, Handler};
use serde::{Serialize, Serializer};
use serde_json::json;
use tokio::sync::mpsc;
use vlmessaging::{Agent, Contents, Handled, IntoContents, Msg, Reason, RequestError, Router, Value};

use crate::peer::{Folder, LIMIT, Peer, add_one_twenty_times, element, python_adds_one_twenty_times};

/// Serialized as bytes, which Ion calls a blob.
struct Bytes;

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(b"bytes")
    }
}

/// What Python's reader dies of, and the word for it.
fn unreadable() -> Vec<(Contents, &'static str)> {
    let of = |text: &str| Contents::from_element(&element(text)).unwrap();
    vec![
        (Bytes.into_contents(), "blob at contents"),
        (of("{rows: [1, {data: {{aGVsbG8=}}}]}"), "blob at contents.rows[1].data"),
        (of(r#"{{"clob"}}"#), "clob at contents"),
        (of("[1.5]"), "decimal at contents[0]"),
        (of("2026-01-11"), "timestamp at contents"),
        (of("a_symbol"), "symbol at contents"),
        (of(&"9".repeat(4301)), "int at contents"),
        (
            (0..180).fold(Value::Null, |inside, _| Value::List(vec![inside])).into_contents(),
            "Python shall not read more than 150 levels",
        ),
    ]
}

fn assert_names(refused: Result<Msg, RequestError>, named: &str) {
    let reason = match refused {
        Err(RequestError::NotSent(error)) => error.reason,
        Err(RequestError::NotDelivered(error)) => error.reason,
        other => panic!("{named} made {other:?}"),
    };
    match reason {
        Reason::NotEncodable(why) => assert!(why.contains(named), "{why} instead of {named}"),
        other => panic!("{named} was refused for {other}"),
    }
}

#[actix::test]
async fn what_python_cannot_read_is_refused_by_name_before_it_is_sent() {
    let folder = Folder::new();
    let router = folder.router(Router::machine()).start().await.unwrap();
    let agent = Peer::agent(&[]).await;
    let conn = router.connect();

    for (contents, named) in unreadable() {
        assert_names(conn.request(&agent.addr, "ECHO", contents, LIMIT).await, named);
    }

    add_one_twenty_times(&conn, &agent.addr).await;
    router.shutdown().await;
    agent.end().await;
}

/// Answers BLOB with one, and passes on why that was not delivered.
struct Careless(mpsc::UnboundedSender<Reason>);

impl Actor for Careless {
    type Context = Context<Self>;
}

impl Agent for Careless {}

impl Handler<Msg> for Careless {
    type Result = Handled;

    fn handle(&mut self, msg: Msg, _: &mut Context<Self>) -> Handled {
        match (msg.subject(), msg.not_delivered()) {
            ("BLOB", _) => msg.reply(Bytes),
            (_, Some(failure)) => {
                self.0.send(failure.reason).expect("the test waits for it");
                msg.handled()
            }
            ("ADD_ONE", None) => msg.answer(|n: i64| n + 1),
            _ => msg.unhandled(),
        }
    }
}

#[actix::test]
async fn an_answer_that_python_cannot_read_is_not_sent_and_the_agent_is_told() {
    let folder = Folder::new();
    let router = folder.router(Router::machine()).start().await.unwrap();
    let (tell, mut told) = mpsc::unbounded_channel();
    let agent = router.spawn(Careless(tell)).addr();
    let mut client = Peer::client(&[]).await;
    client.meet(&agent).await;

    let asked = json!({"do": "ask", "to": agent, "subject": "BLOB", "within": 100});
    assert_eq!(client.tell(asked).await, json!({"replies": [null]}));

    let reason = tokio::time::timeout(LIMIT, told.recv()).await.expect("the agent is told");
    assert!(matches!(&reason, Some(Reason::NotEncodable(why)) if why.contains("blob")), "{reason:?}");
    python_adds_one_twenty_times(&mut client, &agent).await;
    client.end().await;
    router.shutdown().await;
}
