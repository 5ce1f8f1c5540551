//! What Python cannot read never reaches it: its router would die of it.

use serde::{Serialize, Serializer};
use vlmessaging::{Contents, IntoContents, Reason, RequestError, Router, Value};

use crate::peer::{Folder, LIMIT, Peer, add_one_twenty_times, element};

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

fn assert_names(refused: Result<vlmessaging::Msg, RequestError>, named: &str) {
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

#[actix::test]
async fn an_answer_that_python_cannot_read_is_not_sent() {
    let folder = Folder::new();
    let router = folder.router(Router::machine()).start().await.unwrap();
    let agent = router.spawn(crate::peer::AddOne).addr();
    let mut client = Peer::client(&[]).await;
    client.meet(&agent).await;

    let answer = client.ask(&agent, "BLOB", serde_json::Value::Null).await;

    assert_eq!(answer, serde_json::Value::Null);
    crate::peer::python_adds_one_twenty_times(&mut client, &agent).await;
    client.end().await;
    router.shutdown().await;
}
