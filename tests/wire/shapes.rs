//! Serde types of every shape take `serde_json`'s form and come back as they were.

use std::collections::{BTreeMap, HashMap};

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vlmessaging::wire::{Profile, check, decode, decode_element, encode, encode_element};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Newtype(i64);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Side {
    Buy,
    Sell,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Order {
    Cancel,
    Limit(f64),
    Pair(Side, u64),
    Named { name: String, symbols: Option<Box<Order>> },
    Nothing(()),
    Maybe(Option<u8>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Empty,
    Full { a: i32, b: Vec<bool> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Text(String),
    Both { number: i64, text: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Zoo {
    unit: Unit,
    newtype: Newtype,
    #[serde(rename = "a name that is longer than fourteen bytes")]
    order: Order,
    orders: Vec<Order>,
    tagged: Tagged,
    untagged: Vec<Untagged>,
    tuple: (u8, i16, char),
    array: [u32; 3],
    by_text: BTreeMap<String, Option<f64>>,
    by_int: BTreeMap<i32, String>,
    by_bool: BTreeMap<bool, ()>,
    by_side: BTreeMap<Side, u8>,
    #[serde(flatten)]
    rest: BTreeMap<String, i64>,
}

fn order() -> impl Strategy<Value = Order> {
    let side = prop_oneof![Just(Side::Buy), Just(Side::Sell)];
    let leaf = prop_oneof![
        Just(Order::Cancel),
        Just(Order::Nothing(())),
        (-1e9..1e9).prop_map(Order::Limit),
        (side, any::<u64>()).prop_map(|(side, n)| Order::Pair(side, n)),
        option::of(any::<u8>()).prop_map(Order::Maybe),
    ];
    leaf.prop_recursive(4, 8, 1, |inner| {
        (any::<String>(), option::of(inner.prop_map(Box::new)))
            .prop_map(|(name, symbols)| Order::Named { name, symbols })
    })
}

fn tagged() -> impl Strategy<Value = Tagged> {
    let full = (any::<i32>(), vec(any::<bool>(), 0..20)).prop_map(|(a, b)| Tagged::Full { a, b });
    prop_oneof![Just(Tagged::Empty), full]
}

fn untagged() -> impl Strategy<Value = Untagged> {
    let both = (any::<i64>(), any::<String>()).prop_map(|(number, text)| Untagged::Both { number, text });
    prop_oneof![any::<i64>().prop_map(Untagged::Number), any::<String>().prop_map(Untagged::Text), both]
}

fn zoo() -> impl Strategy<Value = Zoo> {
    let first = (any::<i64>(), order(), vec(order(), 0..4), tagged(), vec(untagged(), 0..4), any::<(u8, i16, char)>());
    let maps = (
        btree_map(any::<String>(), option::of(-1e300..1e300), 0..12),
        btree_map(any::<i32>(), any::<String>(), 0..4),
        btree_map(any::<bool>(), Just(()), 0..2),
        btree_map(prop_oneof![Just(Side::Buy), Just(Side::Sell)], any::<u8>(), 0..2),
        btree_map("x[a-z]{1,9}", any::<i64>(), 0..4),
    );
    (first, any::<[u32; 3]>(), maps).prop_map(|(first, array, maps)| {
        let (newtype, order, orders, tagged, untagged, tuple) = first;
        let (by_text, by_int, by_bool, by_side, rest) = maps;
        let (unit, newtype) = (Unit, Newtype(newtype));
        Zoo { unit, newtype, order, orders, tagged, untagged, tuple, array, by_text, by_int, by_bool, by_side, rest }
    })
}

pub(crate) fn json_like() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 12, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..16).prop_map(Value::from),
            vec(("[a-e]{0,2}|name|version", inner), 0..12).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn types_of_every_shape_take_the_form_of_serde_json_and_come_back(zoo in zoo()) {
        let encoded = encode(&zoo).unwrap();
        prop_assert_eq!(check(&encoded, Profile::Compat, "contents"), Ok(()));
        prop_assert_eq!(decode::<Value>(&encoded).unwrap(), serde_json::to_value(&zoo).unwrap());
        prop_assert_eq!(decode::<Zoo>(&encoded).unwrap(), zoo);
    }

    #[test]
    fn json_comes_back_and_ion_reads_the_same(value in json_like()) {
        let encoded = encode(&value).unwrap();
        prop_assert_eq!(check(&encoded, Profile::Compat, "contents"), Ok(()));
        prop_assert_eq!(&decode::<Value>(&encoded).unwrap(), &value);
        let element = decode_element(&encoded).unwrap();
        let again = encode_element(&element).unwrap();
        prop_assert_eq!(&decode::<Value>(&again).unwrap(), &value);
    }

    #[test]
    fn numbers_of_every_size_come_back(a: i128, b: u128, c: f64, d: f32, shift in 0..127_u32) {
        let bits = |(a, b, c, d): (i128, u128, f64, f32)| (a, b, c.to_bits(), d.to_bits());
        let (a, b) = (a >> shift, b >> shift);
        let numbers = (a, b, c, d);
        let back = decode::<(i128, u128, f64, f32)>(&encode(&numbers).unwrap()).unwrap();
        prop_assert_eq!(bits(back), bits(numbers));
        let small = (a as i8, a as i16, a as i32, a as i64, b as u8, b as u16, b as u32, b as u64);
        prop_assert_eq!(decode::<(i8, i16, i32, i64, u8, u16, u32, u64)>(&encode(&small).unwrap()).unwrap(), small);
    }
}

#[test]
fn enums_are_strings_or_structs_of_one_field() {
    let form = |order: &Order| decode::<Value>(&encode(order).unwrap()).unwrap();
    assert_eq!(form(&Order::Cancel), json!("Cancel"));
    assert_eq!(form(&Order::Limit(1.5)), json!({ "Limit": 1.5 }));
    assert_eq!(form(&Order::Pair(Side::Sell, 3)), json!({ "Pair": ["Sell", 3] }));
    let named = Order::Named { name: "n".into(), symbols: None };
    assert_eq!(form(&named), json!({ "Named": { "name": "n", "symbols": null } }));
}

#[test]
fn texts_are_borrowed_from_the_encoded_value() {
    let encoded = encode(&("abc", BTreeMap::from([("key", "value")]))).unwrap();
    let (text, map): (&str, HashMap<&str, &str>) = decode(&encoded).unwrap();
    assert_eq!((text, map["key"]), ("abc", "value"));
    assert!(encoded.bytes.as_ptr_range().contains(&text.as_ptr()));
}

#[test]
fn thousands_of_field_names_come_back() {
    let map: BTreeMap<String, usize> = (0..5_000).map(|n| (format!("key_{n}"), n)).collect();
    let encoded = encode(&[map.clone(), map.clone()]).unwrap();
    assert_eq!(decode::<Vec<BTreeMap<String, usize>>>(&encoded).unwrap(), [map.clone(), map]);
    let names: HashMap<usize, ()> = (0..65_537).map(|n| (n, ())).collect();
    assert_eq!(encode(&names).unwrap_err().to_string(), "more than 65536 different field names");
}

#[test]
fn a_type_that_does_not_fit_is_an_error_with_its_place() {
    let zoo = json!({ "orders": ["Cancel", { "Pair": ["Buy", "x"] }] });
    let error = decode::<BTreeMap<String, Vec<Order>>>(&encode(&zoo).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "$.orders[1].Pair[1]: invalid type: string \"x\", expected u64");
    let error = decode::<Order>(&encode("Other").unwrap()).unwrap_err();
    assert!(error.reason.starts_with("unknown variant `Other`"), "{error}");
    let error = decode::<(u8, u8)>(&encode(&[1, 2, 3]).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "$: invalid length 3, expected fewer elements");
    let error = decode::<u8>(&encode(&300).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "$: invalid value: integer `300`, expected u8");
}
