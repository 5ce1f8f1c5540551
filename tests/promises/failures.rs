//! One-way messages that do not arrive: their sender is told, with the reason. And the words of every error.

use std::time::Duration;

use vlmessaging::{
    Addr, ContentsError, DeliverError, DialError, Endpoint, Error, FindError, ListenError, NotDelivered,
    ParseAddrError, Reason, RegisterError, RequestError, StartError,
};

use crate::common::agents::{fragile, hold};
use crate::common::{each_way, number, soon, until, with_router, with_two_routers};

#[test]
fn a_connection_is_told_what_was_not_delivered() {
    with_two_routers(async |a, b| {
        let conn = a.connect();
        let to = b.net_addr(99);
        conn.send(&to, "TAKE", 1).await.unwrap();
        let report = soon(conn.not_delivered()).await;
        assert_eq!((report.to, report.reason), (to, Reason::NoSuchConnection));
        assert_eq!(report.place, b.endpoints()[0].short());
    });
}

#[test]
fn an_agent_is_told_in_a_message_what_was_not_delivered() {
    each_way(async |pair| {
        let (sender, mut held) = hold(&pair.asker);
        let fragile = pair.reach(&pair.provider.spawn(fragile()));
        let id = sender.connection().send(&fragile, "PANIC", ()).await.unwrap();
        let report = held.next().await;
        assert_eq!((report.subject(), report.reply_to()), ("MSG_NOT_DELIVERED", Some(id)));
        let failure = report.not_delivered().unwrap();
        assert_eq!((&failure.to, failure.reason), (&fragile, Reason::AgentPanicked));
        assert_eq!(failure.place, format!("{}", Addr { net: None, ..pair.provider.net_addr(number(fragile.clone())) }));
        let _handled = report.handled();
    });
}

#[test]
fn each_message_to_a_dead_router_is_reported_once() {
    with_two_routers(async |a, b| {
        let (sender, mut held) = hold(&a);
        let gone = b.net_addr(3);
        b.shutdown().await;
        let mut sent: Vec<_> = Vec::new();
        for n in 0..100 {
            sent.push(Some(sender.connection().send(&gone, "TAKE", n).await.unwrap()));
        }
        let mut told = Vec::new();
        for _ in 0..100 {
            let report = held.next().await;
            assert!(matches!(report.not_delivered().unwrap().reason, Reason::DialFailed(_)), "{report:?}");
            told.push(report.reply_to());
        }
        told.sort_unstable();
        assert_eq!(told, sent);
    });
}

#[test]
fn what_is_known_at_once_is_said_by_send() {
    with_router(async |router| {
        let error = router.connect().send(Addr::local(99), "TAKE", "the goods".to_string()).await.unwrap_err();
        assert_eq!(error.reason, Reason::NoSuchConnection);
        assert_eq!(error.into_contents().get::<String>().unwrap(), "the goods");
    });
}

#[test]
fn a_report_that_nobody_takes_is_counted() {
    with_two_routers(async |a, b| {
        let conn = a.connect();
        conn.send(b.net_addr(99), "TAKE", 1).await.unwrap();
        drop(conn);
        until("the report is counted as untold", || a.stats().untold == 1).await;
        assert_eq!((b.stats().undelivered, b.stats().untold), (1, 0));
    });
}

/// Every reason, and its words.
fn reasons() -> [(Reason, &'static str); 13] {
    [
        (Reason::NoSuchConnection, "no such connection"),
        (Reason::NoHandler, "nobody handles it there"),
        (Reason::AgentStopped, "agent stopped"),
        (Reason::AgentPanicked, "agent panicked"),
        (Reason::MailboxFull, "mailbox full"),
        (Reason::PeerLost, "peer lost, it may have been handled"),
        (Reason::NoRoute("too far".into()), "no route: too far"),
        (Reason::DialFailed(DialError::Refused.to_string()), "dial failed: nobody listens there"),
        (Reason::HopLimit, "hop limit reached"),
        (Reason::TooLarge { size: 9, limit: 8 }, "too large: 9 bytes where 8 are taken"),
        (Reason::NotEncodable("blob at contents".into()), "not readable there: blob at contents"),
        (Reason::ShuttingDown, "shutting down"),
        (Reason::Unstated, "no reason stated"),
    ]
}

#[test]
fn every_reason_is_said_in_words() {
    let (said, words): (Vec<_>, Vec<_>) =
        reasons().into_iter().map(|(reason, words)| (reason.to_string(), words.to_string())).unzip();
    assert_eq!(said, words);
}

#[test]
fn every_error_says_who_and_how_much() {
    let at: Endpoint = "ipc:///tmp/router_7".into();
    let to = Addr::at(at.clone(), 3);
    let after = Duration::from_millis(250);
    let not_delivered = |place: &str| NotDelivered {
        to: to.clone(),
        subject: "BUY".into(),
        reason: Reason::PeerLost,
        place: place.into(),
    };
    let contents = ContentsError { asked: "i64", problem: "found a string".into() };
    let listen = ListenError::InUse { at: at.clone() };
    let errors: Vec<(Error, &str)> = vec![
        (StartError::Listen(listen).into(), "ipc:///tmp/router_7 is already in use"),
        (
            StartError::Listen(ListenError::NotASocket { at: at.clone() }).into(),
            "ipc:///tmp/router_7 names a file that is not a socket; it was left as it is",
        ),
        (
            StartError::Listen(ListenError::Invalid { at: at.clone(), reason: "too long".into() }).into(),
            "cannot listen at ipc:///tmp/router_7: too long",
        ),
        (
            StartError::Listen(ListenError::System { at: at.clone(), source: std::io::Error::other("no") }).into(),
            "cannot listen at ipc:///tmp/router_7",
        ),
        (
            StartError::NoFreeEndpoint { first: at, tried: 1000 }.into(),
            "none of 1000 router endpoints from ipc:///tmp/router_7 on is free",
        ),
        (StartError::Transport(std::io::Error::other("no")).into(), "the transport did not start"),
        (StartError::Options("they differ".into()).into(), "they differ"),
        (
            RequestError::NotDelivered(not_delivered("router_7")).into(),
            "\"BUY\" to <router_7::3> was not delivered: peer lost, it may have been handled (says router_7)",
        ),
        (
            RequestError::NotDelivered(not_delivered("")).into(),
            "\"BUY\" to <router_7::3> was not delivered: peer lost, it may have been handled",
        ),
        (
            DeliverError::Refused(not_delivered("router_7")).into(),
            "\"BUY\" to <router_7::3> was not delivered: peer lost, it may have been handled (says router_7)",
        ),
        (
            DeliverError::Unknown(not_delivered("router_7")).into(),
            "nobody knows whether \"BUY\" to <router_7::3> was handled: peer lost, it may have been handled",
        ),
        (
            RequestError::NotUnderstood { to: to.clone(), subject: "BUY".into(), why: "closed".into() }.into(),
            "<router_7::3> does not understand \"BUY\": closed",
        ),
        (
            RequestError::NotUnderstood { to: to.clone(), subject: "BUY".into(), why: String::new() }.into(),
            "<router_7::3> does not understand \"BUY\"",
        ),
        (
            RequestError::TimedOut { to: to.clone(), subject: "BUY".into(), after }.into(),
            "no reply from <router_7::3> to \"BUY\" within 250ms",
        ),
        (contents.clone().into(), "contents asked for as i64: found a string"),
        (
            FindError::Nobody { service: "Shop".into(), within: after, provided: vec!["A".into(), "B".into()] }.into(),
            "nobody provides \"Shop\" within 250ms; provided are: A, B",
        ),
        (
            FindError::Nobody { service: "Shop".into(), within: after, provided: vec![] }.into(),
            "nobody provides \"Shop\" within 250ms; provided are: none",
        ),
        (RegisterError::Closed { addr: to }.into(), "<router_7::3> is closed and can provide nothing"),
        (RegisterError::Params(contents).into(), "contents asked for as i64: found a string"),
    ];
    let (said, words): (Vec<_>, Vec<_>) =
        errors.into_iter().map(|(error, words)| (error.to_string(), words.to_string())).unzip();
    assert_eq!(said, words);
}

#[test]
fn a_send_error_says_what_was_not_sent_where_and_why() {
    with_router(async |router| {
        let error = router.connect().try_send(Addr::local(99), "BUY", 1).unwrap_err();
        assert_eq!(error.to_string(), "\"BUY\" to <99> was not sent: no such connection");
        assert_eq!(Error::from(error).to_string(), "\"BUY\" to <99> was not sent: no such connection");
    });
}

#[test]
fn every_failure_to_dial_and_to_read_an_address_is_said_in_words() {
    let said = [
        DialError::Refused.to_string(),
        DialError::TimedOut(Duration::from_secs(2)).to_string(),
        DialError::Invalid("no port".into()).to_string(),
        DialError::Closed.to_string(),
        DialError::System("host unreachable".into()).to_string(),
        ParseAddrError { text: "7".into() }.to_string(),
    ];
    let words = [
        "nobody listens there",
        "no answer within 2s",
        "not an endpoint that can be dialed: no port",
        "given up",
        "host unreachable",
        "\"7\" is not an address: write it as tcp|ipc|number, for example |ipc:///tmp/router_1|3",
    ];
    assert_eq!(said, words);
}
