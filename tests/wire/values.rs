//! Contents stay what they are on their way, and what Python would refuse is refused by what and where.

use bytes::Bytes;
use ion_rs::{Decimal, Element, Int, IonType, Symbol, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use vlmessaging::wire::{
    Encoded, Envelope, Profile, RefusedKind, check, decode_element, encode, encode_element, read_message,
    read_positional, text_to_element, write_message,
};
use vlmessaging::{Addr, Endpoint};

use crate::shapes::json_like;

fn element() -> impl Strategy<Value = Element> {
    let leaf = prop_oneof![
        Just(Element::null(IonType::Blob)),
        any::<bool>().prop_map(Element::boolean),
        (any::<i128>(), 0..127_u32).prop_map(|(n, shift)| Element::int(Int::from(n >> shift))),
        any::<f64>().prop_map(Element::float),
        (any::<i64>(), -20..20_i64).prop_map(|(n, exponent)| Element::decimal(Decimal::new(n, exponent))),
        (1_u32..9999, 1_u32..13).prop_map(|(y, m)| Timestamp::with_year(y).with_month(m).build().unwrap().into()),
        any::<String>().prop_map(Element::string),
        "[a-f]{0,2}".prop_map(Element::symbol),
        vec(any::<u8>(), 0..20).prop_map(Element::blob),
        vec(any::<u8>(), 0..20).prop_map(Element::clob),
    ];
    let tree = leaf.prop_recursive(5, 48, 8, |inner| {
        let items = || vec(inner.clone(), 0..8);
        prop_oneof![
            items().prop_map(|items| Element::sequence_builder().push_all(items).build_list().into()),
            items().prop_map(|items| Element::sequence_builder().push_all(items).build_sexp().into()),
            vec(("[a-f]{0,2}|name", inner.clone()), 0..8)
                .prop_map(|fields| Element::struct_builder().with_fields(fields).build().into()),
        ]
    });
    (tree, vec("[x-z]{1,3}", 0..3)).prop_map(|(element, annotations)| {
        element.with_annotations(annotations.into_iter().map(Symbol::owned).collect::<Vec<_>>())
    })
}

fn addr() -> impl Strategy<Value = Addr> {
    let endpoint = |form: &'static str| option::of(form.prop_map(Endpoint::from));
    (endpoint("tcp://[0-9.]{1,20}:[0-9]{1,5}"), endpoint("ipc:///tmp/[a-z_0-9]{1,30}"), option::of(any::<u64>()))
        .prop_map(|(net, machine, connection)| Addr { net, machine, connection })
}

fn value() -> impl Strategy<Value = Encoded> {
    let json = json_like().prop_map(|value| encode(&value).unwrap());
    prop_oneof![json, element().prop_map(|element| encode_element(&element).unwrap())]
}

fn meta() -> impl Strategy<Value = Encoded> {
    let some = proptest::collection::btree_map("[a-f]{1,2}", any::<i32>(), 0..12);
    prop_oneof![Just(Encoded::empty_struct()), some.prop_map(|map| encode(&map).unwrap())]
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let ids = (option::of(any::<i64>()), option::of(any::<i64>()));
    (addr(), addr(), any::<String>(), ids, value(), meta()).prop_map(
        |(from, to, subject, (id, reply_to), contents, meta)| Envelope {
            from,
            to,
            subject: subject.into(),
            id,
            reply_to,
            contents,
            meta,
        },
    )
}

fn written(message: &Envelope) -> Bytes {
    let mut frame = vec![];
    write_message(message, &mut frame);
    frame.into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_message_comes_out_of_every_hop_as_it_went_in(message in envelope()) {
        let frame = written(&message);
        let read = read_message(&frame, Profile::Rust).unwrap();
        prop_assert_eq!(&read, &message);
        prop_assert_eq!(written(&read), frame);
    }

    #[test]
    fn a_message_that_the_check_lets_through_is_one_that_python_reads(message in envelope()) {
        let checked = check(&message.contents, Profile::Compat, "contents");
        let read = read_positional(&written(&message), Profile::Compat);
        prop_assert_eq!(read.map(|fields| fields.contents), checked.map(|()| message.contents));
    }

    #[test]
    fn elements_come_back_whatever_their_types(element in element()) {
        let encoded = encode_element(&element).unwrap();
        prop_assert_eq!(check(&encoded, Profile::Rust, "contents"), Ok(()));
        let back = decode_element(&encoded).unwrap();
        prop_assert!(ion_rs::IonData::eq(&element, &back), "{element} became {back}");
    }
}

fn refused(text: &str, profile: Profile) -> String {
    let encoded = encode_element(&text_to_element(text).unwrap()).unwrap();
    check(&encoded, profile, "contents").unwrap_err().to_string()
}

#[test]
fn what_python_does_not_read_is_refused_by_what_and_where() {
    for (text, told) in [
        ("{rows: [1, 2, 3, {data: {{aGk=}}}]}", "blob at contents.rows[3].data: Python reads no blobs"),
        ("[[], ({a: 1, b: x})]", "symbol at contents[1][0].b: Python reads no symbols, only strings"),
        ("1.5", "decimal at contents: Python reads no decimals"),
        ("a::b::[c::2026T]", "timestamp at contents[0]: Python reads no timestamps"),
        ("{name: {{\"x\"}}}", "clob at contents.name: Python reads no clobs"),
        ("{a: {$0: 1}}", "field name without text at contents.a.$0: Python reads no such struct"),
    ] {
        assert_eq!(refused(text, Profile::Compat), told);
    }
    let big = format!("[{}]", "9".repeat(4_301));
    assert_eq!(refused(&big, Profile::Compat), "int at contents[0]: Python reads at most 4300 digits");
}

#[test]
fn annotations_typed_nulls_and_s_expressions_are_fine_for_python() {
    let text = "a::[null.blob, null.symbol, null.decimal, (1 2), b::{c: null.timestamp}]";
    let encoded = encode_element(&text_to_element(text).unwrap()).unwrap();
    assert_eq!(check(&encoded, Profile::Compat, "contents"), Ok(()));
}

#[test]
fn bytes_are_a_blob_which_only_rust_peers_read() {
    struct Raw;
    impl serde::Serialize for Raw {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(b"hi")
        }
    }
    let encoded = encode(&(1, Raw)).unwrap();
    assert_eq!(check(&encoded, Profile::Rust, "contents"), Ok(()));
    let refused = check(&encoded, Profile::Compat, "contents").unwrap_err();
    assert_eq!((refused.kind, refused.path.as_str()), (RefusedKind::Unsupported, "contents[1]"));
}

#[test]
fn a_refused_frame_tells_the_field_or_the_byte() {
    let good = Envelope {
        from: Addr::local(3),
        to: Addr::local(4),
        subject: "S".into(),
        id: Some(1),
        reply_to: None,
        contents: encode(&41).unwrap(),
        meta: Encoded::empty_struct(),
    };
    let frame = written(&good);
    let told = |frame: Vec<u8>| read_message(&frame.into(), Profile::Compat).unwrap_err().to_string();
    assert_eq!(told(frame[..frame.len() - 1].to_vec()), "end of frame at meta: a message has twelve values");
    assert_eq!(
        told([&frame[..], &[0x0F]].concat()),
        format!("thirteenth value at byte {}: a message has twelve values", frame.len())
    );
    assert_eq!(told(b"\"1\" null".to_vec()), "frame at byte 0: it does not start with the marker of Ion 1.0 binary");
    assert_eq!(told(b"\xE0\x01\x00\xEA\x812".to_vec()), "another value at schema: only \"1\" is a message");
    assert_eq!(told([&frame[..frame.len() - 1], &[0xB0]].concat()), "list at meta: meta is a struct or null");
    assert_eq!(
        told([&frame[..frame.len() - 1], &[0xD3, 0x84, 0x22, 0x01]].concat()),
        "malformed Ion at meta.name: it goes past the end of what holds it"
    );
}

#[test]
fn a_small_subject_does_not_keep_a_large_frame() {
    let message = Envelope {
        from: Addr::at(Endpoint::from("ipc:///tmp/router_1"), 3),
        to: Addr::local(4),
        subject: "S".into(),
        id: None,
        reply_to: None,
        contents: encode(&"x".repeat(100_000)).unwrap(),
        meta: Encoded::null(),
    };
    let frame = written(&message);
    let Envelope { from, to, subject, contents, meta, .. } = read_message(&frame, Profile::Compat).unwrap();
    assert!(!frame.is_unique());
    drop((contents, meta));
    assert!(frame.is_unique(), "only contents and meta are slices of it");
    assert_eq!((from, to, subject), (message.from, message.to, message.subject));
}
