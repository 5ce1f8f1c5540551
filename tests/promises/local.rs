//! Contents: moved where they can be, encoded where they must be, and the same either way.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vlmessaging::wire::text_to_element;
use vlmessaging::{Contents, Reason, RequestError, Value};

use crate::common::agents::{adder, does, hold};
use crate::common::{LONG, Way, each_way, failure, over, with_router, with_two_routers};

/// Can be moved and nothing else.
#[derive(Debug, PartialEq)]
struct OnlyMoved(i64);

impl Serialize for OnlyMoved {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("it was encoded"))
    }
}

impl<'de> Deserialize<'de> for OnlyMoved {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("it was decoded"))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Side {
    Buy,
    Sell { shares: u32 },
    Hold(i8, Option<bool>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    name: String,
    side: Side,
    limit: Option<f64>,
    tags: BTreeMap<String, Vec<u8>>,
}

/// The same to whoever reads fewer fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Named {
    name: String,
}

fn order() -> Order {
    let tags = BTreeMap::from([("desk".to_string(), vec![1, 2, 255]), (String::new(), vec![])]);
    Order { name: "émigré \u{0}".into(), side: Side::Hold(-1, None), limit: Some(-0.0), tags }
}

#[test]
fn contents_of_the_same_type_are_moved_within_a_router() {
    with_router(async |router| {
        let agent = router.spawn(does(|msg| msg.answer(|OnlyMoved(n)| OnlyMoved(n + 1))));
        let mut reply = router.connect().request(&agent, "MOVE", OnlyMoved(41), LONG).await.unwrap();
        assert_eq!(reply.take_contents(), Ok(OnlyMoved(42)));
    });
}

#[test]
fn contents_that_cannot_be_encoded_are_refused_before_they_are_sent_elsewhere() {
    with_two_routers(async |a, b| {
        let (agent, _held) = hold(&b);
        let ended = a.connect().request(&agent, "MOVE", OnlyMoved(41), LONG).await;
        assert!(matches!(ended, Err(RequestError::NotSent(_))), "{ended:?}");
        let Reason::NotEncodable(why) = failure(ended).reason else { panic!("another reason") };
        assert!(why.contains("it was encoded"), "{why}");
    });
}

#[test]
fn a_reply_that_cannot_be_encoded_is_told_to_both_sides() {
    with_two_routers(async |a, b| {
        let (agent, mut held) = hold(&b);
        let conn = a.connect();
        let asked = actix::spawn(async move { conn.request(&agent, "MOVE", 1, LONG).await });
        let _handled = held.next().await.reply(OnlyMoved(42));
        let report = held.next().await;
        assert!(matches!(report.not_delivered().unwrap().reason, Reason::NotEncodable(_)), "{report:?}");
        let _handled = report.handled();
        let error = asked.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("its answer was not sent") && error.contains("it was encoded"), "{error}");
    });
}

#[test]
fn values_arrive_as_they_were_sent_whichever_way() {
    each_way(async |pair| {
        let (agent, mut held) = hold(&pair.provider);
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        macro_rules! arrives {
            ($($value:expr),* $(,)?) => {$(
                conn.send(&to, "TAKE", $value).await.unwrap();
                assert_eq!(held.next().await.take_contents(), Ok($value));
            )*};
        }
        arrives![
            (),
            true,
            -1_i8,
            u64::MAX,
            i128::MIN,
            u128::MAX,
            f64::MAX,
            'ß',
            String::from("text"),
            Some(3_u8),
            None::<u8>,
            (1, "two".to_string(), 3.5_f32),
            [1_u16; 3],
            vec![Some(1), None],
            Side::Buy,
            Side::Sell { shares: 7 },
            order(),
            Value::from([("list", 1), ("map", 2)]),
            BTreeMap::from([(-3, "a".to_string())]),
        ];
    });
}

#[test]
fn another_type_reads_the_same_whichever_way() {
    each_way(async |pair| {
        let (agent, mut held) = hold(&pair.provider);
        let to = pair.reach(&agent);
        pair.asker.connect().send(&to, "TAKE", order()).await.unwrap();
        let msg = held.next().await;
        assert_eq!(msg.contents(), Ok(Named { name: order().name }));
        let value: Value = msg.contents().unwrap();
        assert_eq!(value.get("side").unwrap().get("Hold"), Some(&Value::List(vec![Value::Int(-1), Value::Null])));
        let _handled = msg.handled();
    });
}

#[test]
fn a_misfit_names_both_types_in_the_same_words_whichever_way() {
    fn misfit<T: DeserializeOwned + Clone + 'static>(msg: &vlmessaging::Msg) -> String {
        msg.contents::<T>().err().unwrap().to_string()
    }
    let said = RefCell::new(Vec::new());
    each_way(async |pair| {
        let (agent, mut held) = hold(&pair.provider);
        pair.asker.connect().send(pair.reach(&agent), "TAKE", order()).await.unwrap();
        let msg = held.next().await;
        said.borrow_mut().push([misfit::<i64>(&msg), misfit::<Vec<u8>>(&msg), misfit::<Side>(&msg)]);
        let _handled = msg.handled();
    });
    let said = said.into_inner();
    assert_eq!(said.len(), 4);
    assert!(said.iter().all(|words| *words == said[0]), "{said:#?}");
    assert!(said[0][0].contains("i64") && said[0][0].contains("map"), "{said:#?}");
}

#[test]
fn contents_of_the_wrong_type_are_not_understood_with_both_types_named() {
    each_way(async |pair| {
        let agent = pair.provider.spawn(adder());
        let ended = pair.asker.connect().request(pair.reach(&agent), "ADD_ONE", "forty-one", LONG).await;
        let Err(RequestError::NotUnderstood { why, subject, .. }) = ended else { panic!("{ended:?}") };
        assert_eq!(subject, "ADD_ONE");
        assert!(why.contains("i64") && why.contains("string"), "{why}");
    });
}

#[test]
fn a_number_that_does_not_fit_is_a_misfit_and_not_another_number() {
    each_way(async |pair| {
        let (agent, mut held) = hold(&pair.provider);
        pair.asker.connect().send(pair.reach(&agent), "TAKE", 300).await.unwrap();
        let msg = held.next().await;
        assert_eq!(msg.contents::<u16>(), Ok(300));
        assert!(msg.contents::<u8>().is_err());
        let _handled = msg.handled();
    });
}

/// One of every Ion type, and what surrounds it.
const ELEMENTS: [&str; 14] = [
    "null.timestamp",
    "true",
    "123456789012345678901234567890123456789012345678901234567890",
    "-340282366920938463463374607431768211457",
    "1.5e300",
    "123.45600d-20",
    "2026-11-22T10:00:00.123456789+01:00",
    "a_symbol",
    "\"text\"",
    "{{\"clob\"}}",
    "{{aGFsbG8=}}",
    "[1, [2.50, {a: b}]]",
    "(+ 1 outer::inner::two)",
    "{price: 1.10, at: 2026T, 'two words': {{AA==}}, list: [null.int]}",
];

#[test]
fn elements_of_every_type_arrive_unchanged_between_rust_routers() {
    each_way(async |pair| {
        let (agent, mut held) = hold(&pair.provider);
        let (conn, to) = (pair.asker.connect(), pair.reach(&agent));
        for text in ELEMENTS {
            let element = text_to_element(text).unwrap();
            conn.send(&to, "TAKE", Contents::from_element(&element).unwrap()).await.unwrap();
            let mut msg = held.next().await;
            let contents = msg.take_raw();
            let _handled = msg.handled();
            assert!(contents.element().unwrap() == element, "{text} over {:?}", pair.way);
        }
    });
}

#[test]
fn contents_are_passed_on_as_they_came() {
    over(Way::Ipc, async |pair| {
        let (last, mut held) = hold(&pair.asker);
        let last = pair.asker.net_addr(crate::common::number(&last));
        let conn = pair.provider.connect();
        let relay = pair.provider.spawn(does(move |mut msg| {
            conn.try_send(&last, "TAKE", msg.take_raw()).unwrap();
            msg.handled()
        }));
        let element = text_to_element(ELEMENTS[13]).unwrap();
        let conn = pair.asker.connect();
        conn.send(&relay, "TAKE", Contents::from_element(&element).unwrap()).await.unwrap();
        let mut msg = held.next().await;
        let contents = msg.take_raw();
        let _handled = msg.handled();
        assert!(contents.element().unwrap() == element);
    });
}
