//! Strict bytes, and the chain of upgrades.

use minicbor::{Decode, Encode};

use super::{DecodeError, First, Key, OrgVersion, Record, Versioned, decode, encode};
use crate::records::{Pin, PinSource};
use crate::store::ReadError;
use crate::testing::Memory;
use crate::{Batch, Options, Store, Tree};

/// What `pins` may become one day: two versions on, without a source and with a note.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct PinV2 {
    #[cbor(n(0), with = "minicbor::bytes")]
    root: [u8; 32],
    #[n(1)]
    added_at_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct PinV3 {
    #[cbor(n(0), with = "minicbor::bytes")]
    root: [u8; 32],
    #[n(1)]
    added_at_s: u64,
    #[n(2)]
    note: String,
}

impl Versioned for PinV2 {
    const VERSION: u32 = 2;
    type Previous = Pin;

    fn upgrade(previous: Pin) -> Self {
        Self { root: previous.root, added_at_ms: previous.added_at_ms }
    }
}

impl Versioned for PinV3 {
    const VERSION: u32 = 3;
    type Previous = PinV2;

    fn upgrade(previous: PinV2) -> Self {
        Self { root: previous.root, added_at_s: previous.added_at_ms / 1000, note: "from v2".to_owned() }
    }
}

impl Record for PinV3 {
    const TREE: Tree = Tree::Pins;
    type Key = String;
}

fn pin() -> Pin {
    Pin { root: [9; 32], source: PinSource::Cli, added_at_ms: 7000 }
}

fn upgraded() -> PinV3 {
    PinV3 { root: [9; 32], added_at_s: 7, note: "from v2".to_owned() }
}

fn store_with(values: &[(&str, &[u8])]) -> Store {
    let store = Memory::new().open(&Options::new([1; 32], 0)).expect("opens");
    let mut batch = Batch::new();
    for (key, value) in values {
        batch.put_raw(Tree::Pins, key.as_bytes(), value);
    }
    store.commit(batch).expect("accepted").wait().expect("durable");
    store
}

#[test]
fn a_store_of_mixed_old_records_reads_as_the_newest_version() {
    let v2 = PinV2 { root: [9; 32], added_at_ms: 7000 };
    let v3 = PinV3 { note: "mine".to_owned(), ..upgraded() };
    let store = store_with(&[("one", &encode(&pin())), ("three", &encode(&v3)), ("two", &encode(&v2))]);
    let found: Vec<_> = store.table::<PinV3>().iter().map(|entry| entry.expect("reads")).collect();
    let expected = [("one", upgraded()), ("three", v3), ("two", upgraded())];
    assert_eq!(found, expected.map(|(key, record)| (key.to_owned(), record)));
}

#[test]
fn an_unknown_version_is_an_error_that_names_tree_key_and_version() {
    let store = store_with(&[("acme.example", &encode(&upgraded()))]);
    let error = store.pins().get(&"acme.example".to_owned()).expect_err("too new");
    let ReadError::Record(error) = error else { panic!("{error:?}") };
    let text = format!("{error}: {}", error.source);
    for part in ["pins", "acme.example", "version 3", "1 to 1"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    let mut all = store.pins().iter();
    assert!(all.next().expect("an entry").is_err());
    assert!(all.next().is_none(), "it ends after an error");
}

#[test]
fn version_zero_and_the_end_of_the_chain_are_unknown() {
    let mut bytes = encode(&pin());
    bytes[1] = 0;
    assert!(matches!(decode::<Pin>(&bytes), Err(DecodeError::UnknownVersion { found: 0, newest: 1 })));
    assert!(matches!(decode::<PinV3>(&bytes), Err(DecodeError::UnknownVersion { found: 0, newest: 3 })));
    assert!(decode::<First>(&bytes).is_err());
}

#[test]
fn exactly_one_byte_string_stands_for_a_record() {
    let good = encode(&pin());
    assert_eq!(decode::<Pin>(&good).expect("decodes"), pin());
    assert_eq!(good[..5], [0x82, 0x01, 0x83, 0x58, 0x20]);
    let body = &good[2..];
    let cases: [(&str, Vec<u8>); 8] = [
        ("trailing byte", [&good[..], &[0]].concat()),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("empty", Vec::new()),
        ("not an array", vec![0x01]),
        ("long version", [&[0x82, 0x18, 0x01], body].concat()),
        ("indefinite outer array", [&[0x9f, 0x01], body, &[0xff]].concat()),
        ("additional field", [&[0x82, 0x01, 0x84], &good[3..], &[0x00]].concat()),
        ("long length", [&[0x82, 0x01, 0x98, 0x03], &good[3..]].concat()),
    ];
    for (name, bytes) in cases {
        assert!(decode::<Pin>(&bytes).is_err(), "{name}");
    }
}

#[test]
fn no_mutation_of_a_record_panics_or_reads_as_two_things() {
    let good = encode(&pin());
    for at in 0..good.len() {
        for byte in 0..=u8::MAX {
            let mut bytes = good.clone();
            bytes[at] = byte;
            if let Ok(record) = decode::<Pin>(&bytes) {
                assert_eq!(encode(&record), bytes, "byte {at} = {byte:#x}");
            }
        }
    }
}

#[test]
fn keys_sort_as_their_values_do_and_read_back() {
    let version = |org: &str, version| OrgVersion { org: org.to_owned(), version };
    let ascending =
        [version("a.example", 1), version("a.example", 256), version("a.example", u64::MAX), version("b", 0)];
    let bytes: Vec<_> = ascending.iter().map(Key::to_bytes).collect();
    assert!(bytes.is_sorted());
    for (key, bytes) in ascending.iter().zip(&bytes) {
        assert_eq!(OrgVersion::from_bytes(bytes).as_ref(), Some(key));
    }
    assert!([1u64, 255, 256, u64::MAX].map(|serial| serial.to_bytes()).is_sorted());
    assert_eq!(u64::from_bytes(&[1]), None);
    assert_eq!(OrgVersion::from_bytes(b"short"), None);
    assert_eq!(OrgVersion::from_bytes(b"a\0b\0\0\0\0\0\0\0\0\0"), None, "a zero byte in the name");
    assert_eq!(String::from_bytes(&[0xff]), None);
    assert_eq!(<[u8; 32]>::from_bytes(&[0; 31]), None);
}
