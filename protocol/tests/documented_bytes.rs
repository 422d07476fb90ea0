//! The examples in docs/protocol.md are these bytes: a page that says something else fails here.

use std::fs;
use std::path::Path;

use comity_protocol::ids::{MeshName, NodeId};
use comity_protocol::mesh::wire::LinkMessage;
use comity_protocol::time::Wall;
use comity_protocol::trust::{Membership, RoleSet, Unverified, seal};
use ed25519_dalek::SigningKey;

/// 2026-11-18T10:13:20Z.
const ISSUED_MS: u64 = 1_795_000_000_000;
const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// The page without its white space, so that an example may be broken into lines and annotated by line.
fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let text = fs::read_to_string(path).expect("docs/protocol.md");
    let bytes_only = |line: &str| line.split("  #").next().unwrap_or_default().to_owned();
    text.lines().map(bytes_only).collect::<String>().split_whitespace().collect()
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn mesh() -> MeshName {
    "test".parse().expect("a mesh name")
}

fn membership() -> Membership {
    let node = SigningKey::from_bytes(&[2; 32]);
    Membership {
        org: "acme.example".parse().expect("an org name"),
        root_version: 1,
        node: NodeId::from(node.verifying_key()),
        serial: 1,
        epoch: 1,
        roles: RoleSet::standard(),
        locations_max: ["DE", "FR"].iter().map(|code| code.parse().expect("a country")).collect(),
        not_before: Wall::from_millis(ISSUED_MS),
        expires: Wall::from_millis(ISSUED_MS + WEEK_MS),
    }
}

#[test]
fn the_ping_is_as_documented() {
    let ping = LinkMessage::Ping { nonce: 7, digest: 0x0123_4567_89ab_cdef }.encode();
    let length = u32::try_from(ping.len()).expect("a short frame").to_be_bytes();
    let frame = hex(&[&length[..], &ping].concat());
    assert!(page().contains(&frame), "docs/protocol.md lacks the ping {frame}");
}

#[test]
fn the_membership_is_as_documented_and_verifies() {
    let issuer = SigningKey::from_bytes(&[1; 32]);
    let sealed = seal(membership(), &issuer, Some(&mesh()));
    let envelope = hex(sealed.bytes());
    assert!(page().contains(&envelope), "docs/protocol.md lacks the membership {envelope}");
    let read = Unverified::<Membership>::decode(sealed.bytes()).expect("an envelope");
    let verified = read.verify(&issuer.verifying_key(), Some(&mesh())).expect("the issuer's signature");
    assert_eq!(*verified, membership());
    assert!(page().contains(&verified.digest().to_string()), "docs/protocol.md lacks {}", verified.digest());
}
