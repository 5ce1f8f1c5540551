//! Frames as the Python package wrote, read or refused them, through `vlm decode` and `vlm encode`.

use serde_json::{Value, json};

use crate::fixture::Folder;

const MESSAGES: &str = include_str!("../data/messages.jsonl");
const ACCEPTED: &str = include_str!("../data/accepted.jsonl");
const REJECTED: &str = include_str!("../data/rejected.jsonl");

fn vectors(file: &str) -> Vec<Value> {
    file.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn column(vectors: &[Value], name: &str) -> String {
    vectors.iter().flat_map(|vector| [vector[name].as_str().unwrap(), "\n"]).collect()
}

#[test]
fn what_python_reads_is_decoded_as_it_reads_it() {
    let folder = Folder::new("decode");
    let vectors = [vectors(MESSAGES), vectors(ACCEPTED)].concat();
    for profile in ["compat", "rust"] {
        let decoded = folder.vlm_with(&["decode", "--profile", profile], &column(&vectors, "hex"));
        let lines = decoded.lines();
        assert_eq!((decoded.status, lines.len()), (0, vectors.len()), "{}", decoded.err);
        for (line, vector) in lines.iter().zip(&vectors) {
            assert_eq!(line, &json!({ "decoded": vector["decoded"] }), "{}", vector["name"]);
        }
    }
}

#[test]
fn what_python_refuses_is_refused_by_kind() {
    let folder = Folder::new("refuse");
    let vectors = vectors(REJECTED);
    let decoded = folder.vlm_with(&["decode"], &column(&vectors, "hex"));
    assert_eq!(decoded.status, 0, "{}", decoded.err);
    for (line, vector) in decoded.lines().iter().zip(&vectors) {
        assert_eq!(line["refused"], vector["kind"], "{}", vector["name"]);
        assert!(line["reason"].is_string());
    }
    let read = folder.vlm_with(&["decode", "--profile", "rust"], &column(&vectors, "hex")).lines();
    for (line, vector) in read.iter().zip(&vectors) {
        assert_eq!(line["decoded"].is_object(), vector["kind"] == "unsupported", "{}", vector["name"]);
    }
}

#[test]
fn what_is_decoded_is_encoded_again() {
    let folder = Folder::new("encode");
    let hex = column(&vectors(MESSAGES), "hex");
    let decoded = folder.vlm_with(&["decode"], &hex);
    let encoded = folder.vlm_with(&["encode"], &decoded.out);
    assert_eq!((encoded.status, encoded.out.lines().count()), (0, hex.lines().count()), "{}", encoded.err);
    assert_eq!(folder.vlm_with(&["decode"], &encoded.out).out, decoded.out);
    // The vectors' own lines are messages too.
    assert_eq!(folder.vlm_with(&["encode"], MESSAGES).out, encoded.out);
    let hex = folder.vlm_with(&["encode", "--json"], MESSAGES).lines()[0]["hex"].clone();
    assert_eq!(hex.as_str(), encoded.out.lines().next());
}

#[test]
fn what_only_rust_reads_is_ion_text() {
    let folder = Folder::new("ion");
    let line =
        r#"{"toAddr": [null, null, 3], "subject": "S", "contents": {"$map": [["at", {"$ion": "2026-11-22T"}]]}}"#;
    let refused = folder.vlm_with(&["encode"], line).json();
    assert_eq!(
        refused,
        json!({ "refused": "unsupported", "reason": "timestamp at contents.at: Python reads no timestamps" })
    );
    let encoded = folder.vlm_with(&["encode", "--profile", "rust"], line).out;
    let decoded = folder.vlm_with(&["decode", "--profile", "rust"], &encoded).json();
    assert_eq!(decoded["decoded"]["contents"], json!({ "$map": [["at", { "$ion": "2026-11-22T" }]] }));
    assert_eq!(decoded["decoded"]["toAddr"], json!([null, null, 3]));
}

#[test]
fn lines_that_make_no_sense_are_told_by_number() {
    let folder = Folder::new("lines");
    let deep = "[".repeat(100_000);
    for (command, input, text) in [
        ("decode", "00\nxyz\n", "line 2: 'x' is no hex digit"),
        ("decode", "abc\n", "line 1: an odd number of hex digits"),
        ("encode", "\n{\n", "line 2: EOF while parsing"),
        ("encode", "3\n", "line 1: a message is an object"),
        ("encode", &deep, "line 1: nested deeper than 1000 levels"),
        (
            "encode",
            r#"{"toAddr": [null, null, 3], "subject": "S", "contents": {"$int": "x"}}"#,
            "\"x\" is no decimal number",
        ),
    ] {
        let ended = folder.vlm_with(&[command], input);
        assert_eq!(ended.status, 2, "{input}");
        assert!(ended.err.contains(text), "{text:?} is not in {:?}", ended.err);
    }
    let odd = folder.vlm_with(&["encode"], r#"{"toAddr": [null, null, 3], "subject": 3}"#).json();
    assert_eq!(odd["refused"], "odd");
}

#[test]
fn frames_of_ion_text_are_read_as_python_reads_them() {
    let folder = Folder::new("text");
    let text = r#"$ion_1_0 "1" null null 4 null "ipc:///tmp/router_2" 3 "S" 7 null {a: [1, 2.5e0, "x"]} {}"#;
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let contents = json!({ "$map": [["a", [{ "$int": "1" }, { "$float": "4004000000000000", "repr": "2.5" }, "x"]]] });
    let read = folder.vlm_with(&["decode"], &hex(text)).json();
    assert_eq!((&read["decoded"]["subject"], &read["decoded"]["contents"]), (&json!("S"), &contents));
    // Too few values, a decimal, another schema, and a reader that takes binary only.
    let short = folder.vlm_with(&["decode"], &hex("\"1\" null")).json();
    let decimal = folder.vlm_with(&["decode"], &hex(&text.replace("2.5e0", "2.5"))).json();
    let schema = folder.vlm_with(&["decode"], &hex(&text.replace("\"1\"", "\"2\""))).json();
    let rust = folder.vlm_with(&["decode", "--profile", "rust"], &hex(text)).json();
    let refused = [short, decimal, schema, rust].map(|line| line["refused"].clone());
    assert_eq!(refused, ["malformed", "unsupported", "schema", "malformed"]);
}
