//! The bytes of every record version that was ever released, read by this program.
//!
//! Written by hand from docs/storage-format.md, not by the encoder. Never change a line: a record that changes
//! gets a new version, and its old bytes stay here.

mod common;

use std::fs;

use comity_store::record::{OrgVersion, encode};
use comity_store::records::{
    Advert, Approval, ApprovalKey, Invite, Issued, Own, Pin, PinSource, Sequence, SignedRoot,
};
use comity_store::{Batch, Store, Tree};
use common::Home;

const A: [u8; 32] = [0xaa; 32];
const B: [u8; 32] = [0xbb; 32];

/// `(tree, key, value)` in hexadecimal; `A` and `B` stand for 32 bytes `aa` and `bb`.
const VERSION_1: &[(Tree, &str, &str)] = &[
    (Tree::Adverts, "A", "82 01 82 1b000001a0c51a5c00 43 010203"),
    (Tree::Sequences, "A", "82 01 82 01 19 0100"),
    (Tree::Own, "73656c66", "82 01 82 02 18 2a"),
    (Tree::Pins, "61636d65", "82 01 83 5820 A 00 19 03e8"),
    (Tree::Pins, "62657461", "82 01 83 5820 B 02 00"),
    (Tree::Roots, "61636d65 00 0000000000000100", "82 01 81 41 ff"),
    (Tree::Approvals, "82 00 81 64 61636d65", "82 01 81 46 8200 8182 f505"),
    (Tree::Invites, "0102030405060708090a0b0c0d0e0f10", "82 01 81 42 0102"),
    (Tree::Issued, "0000000000000007", "82 01 81 40"),
];

fn bytes(text: &str) -> Vec<u8> {
    let text: String =
        text.replace('A', &"aa".repeat(32)).replace('B', &"bb".repeat(32)).split_whitespace().collect();
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hex"))
        .collect()
}

/// A store as version 1 wrote it.
fn store_of_version_1(home: &Home) -> Store {
    let (store, _) = home.open();
    let mut batch = Batch::new();
    for (tree, key, value) in VERSION_1 {
        batch.put_raw(*tree, &bytes(key), &bytes(value));
    }
    store.commit(batch).expect("accepted").wait().expect("durable");
    store.close().expect("closes");
    home.open().0
}

#[test]
fn a_store_of_version_1_reads_as_it_was_meant() {
    let home = Home::new();
    let store = store_of_version_1(&home);
    let name = str::to_owned;

    let advert = Advert { received_at_ms: 0x01a0_c51a_5c00, envelope: vec![1, 2, 3] };
    assert_eq!(store.adverts().get(&A).expect("reads"), Some(advert));
    assert_eq!(store.sequences().get(&A).expect("reads"), Some(Sequence { epoch: 1, seq: 256 }));
    assert_eq!(store.own().current().expect("reads"), Own { epoch: 2, seq: 42 });
    let pin = |root, source, added_at_ms| Some(Pin { root, source, added_at_ms });
    assert_eq!(store.pins().get(&name("acme")).expect("reads"), pin(A, PinSource::Config, 1000));
    assert_eq!(store.pins().get(&name("beta")).expect("reads"), pin(B, PinSource::Cli, 0));
    let (key, root) = store.roots().latest("acme").expect("reads").expect("is there");
    assert_eq!(
        (key, root),
        (OrgVersion { org: name("acme"), version: 256 }, SignedRoot { envelope: vec![0xff] })
    );
    let (key, approval) =
        (ApprovalKey(bytes("82 00 81 64 61636d65")), Approval { value: bytes("8200 8182 f505") });
    assert_eq!(store.approvals().get(&key).expect("reads"), Some(approval));
    let id = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    assert_eq!(store.invites().get(&id).expect("reads"), Some(Invite { value: vec![1, 2] }));
    assert_eq!(store.issued().get(&7).expect("reads"), Some(Issued { certificate: Vec::new() }));
}

#[test]
fn the_newest_version_writes_the_bytes_in_the_document() {
    assert_eq!(encode(&Sequence { epoch: 1, seq: 256 }), bytes("82 01 82 01 19 0100"));
    let pin = Pin { root: A, source: PinSource::Join, added_at_ms: 1000 };
    assert_eq!(encode(&pin), bytes("82 01 83 5820 A 01 19 03e8"));
    assert_eq!(encode(&Approval { value: vec![0xf6] }), bytes("82 01 81 41 f6"));
}

#[test]
fn the_files_of_a_store_are_those_in_the_document() {
    let home = Home::new();
    let store = store_of_version_1(&home);
    drop(store);
    let conf = fs::read(home.file("conf")).expect("reads");
    assert!(conf.starts_with(b"segment_size: 2097152\nuse_compression: false\nversion: 0.34\n"));
    let head = fs::read(home.file("head")).expect("reads");
    assert_eq!(head[..8], *b"CMTYHD01");
    assert_eq!(head[8..16], 2u64.to_be_bytes(), "the description, then one batch");
    assert_eq!(head[16..], blake3::hash(&head[..16]).as_bytes()[..8]);
}
