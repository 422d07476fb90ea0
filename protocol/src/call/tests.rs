//! What the tests of this module's parts share: one call from umbrella.example to a node of acme.example in Germany.

use ed25519_dalek::SigningKey;

use crate::constraints::{CertificationSet, Constraints, DataClass, TrustLevel};
use crate::ids::{CallId, CapabilityId, ContractDigest, Kind, NodeId, PayloadDigest};
use crate::route::SiteFacts;
use crate::testing::places;
use crate::time::{Mono, Now, Wall};
use crate::trace::TraceContext;

use super::frame::{Cancel, ExecutionFailure, Frame, Refusal};
use super::header::{CallHeader, HeaderParts, Principal};
use super::receipt::{Receipt, ReceiptOutcome};

pub(super) const BODY: &[u8] = br#"{"name":"now","arguments":{"n":123456789012345678901234567890}}"#;
pub(super) const ANSWER: &[u8] = br#"{"content":[]}"#;

const START: u64 = 1_795_000_000_000;

/// `ms` milliseconds after the beginning.
pub(super) fn at(ms: u64) -> Now {
    Now { mono: Mono::from_micros(ms * 1000), wall: Wall::from_millis(START + ms) }
}

pub(super) fn executor_key() -> SigningKey {
    SigningKey::from_bytes(&[11; 32])
}

pub(super) fn node_of(key: &SigningKey) -> NodeId {
    key.verifying_key().into()
}

pub(super) fn caller_node() -> NodeId {
    node_of(&SigningKey::from_bytes(&[22; 32]))
}

pub(super) fn parts() -> HeaderParts {
    HeaderParts {
        call: CallId::from_bytes([5; 16]),
        capability: CapabilityId {
            org: "acme.example".parse().unwrap(),
            server: "time".parse().unwrap(),
            kind: Kind::Tool,
            name: "now".parse().unwrap(),
        },
        contract: ContractDigest::of(b"c"),
        method: "tools/call".into(),
        constraints: Constraints {
            allow_locations: Some(places("EU")),
            deny_operator_countries: places("US"),
            ..Constraints::default()
        },
        principal: Principal {
            org: "umbrella.example".parse().unwrap(),
            node: caller_node(),
            node_name: "paris-1".into(),
            name: "local".into(),
        },
        request: PayloadDigest::of(BODY),
        request_bytes: BODY.len() as u32,
        trace: TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .ok()
            .map(|trace| trace.with_state("vendor=1")),
        hops: 4,
    }
}

pub(super) fn header() -> CallHeader {
    CallHeader::new(parts(), node_of(&executor_key()), at(0).wall, 30_000)
}

/// The site of the node with `key`: in Germany, of acme.example.
pub(super) fn site(key: &SigningKey) -> SiteFacts {
    SiteFacts {
        node: node_of(key),
        org: "acme.example".parse().unwrap(),
        processing: places("DE"),
        locations_max: places("EU"),
        operator_country: Some("DE".parse().unwrap()),
        trust: TrustLevel::T1,
        class_max: DataClass::Restricted,
        certifications: CertificationSet::default(),
    }
}

/// A true receipt for the call of `header` with [`ANSWER`].
pub(super) fn receipt_for(header: &CallHeader) -> Receipt {
    Receipt {
        call: header.call,
        executor: header.executor,
        executor_org: "acme.example".parse().unwrap(),
        caller: header.principal.node,
        caller_org: header.principal.org.clone(),
        capability: header.capability.clone(),
        contract: header.contract,
        request: header.request,
        answer: Some(PayloadDigest::of(ANSWER)),
        outcome: ReceiptOutcome::Result,
        processing_locations: places("DE"),
        operator_country: Some("DE".parse().unwrap()),
        started: at(10).wall,
        finished: at(20).wall,
    }
}

/// What is on the wire between nodes of different versions. A change here is a new version of the protocol.
#[test]
fn the_bytes_are_pinned() {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let frame = |frame: Frame| hex(&frame.to_vec().unwrap());
    let reasons = [("a".to_owned(), "b".to_owned())];
    let failure = ExecutionFailure::new("timeout", "late", true);
    let refusal = Refusal::new("overloaded", "no room").because(reasons.into_iter());
    for (name, actual, pinned) in [
        ("header", frame(Frame::Header(header().into())), include_str!("tests/header.hex")),
        ("receipt", hex(&crate::codec::encode(&receipt_for(&header()))), include_str!("tests/receipt.hex")),
        ("accept", frame(Frame::Accept), "0000000003"),
        ("body", frame(Frame::Body(b"{}".to_vec())), "00000002027b7d"),
        (
            "refusal",
            frame(Frame::Refuse(refusal)),
            "0000001a04836a6f7665726c6f61646564676e6f20726f6f6d818261616162",
        ),
        ("failure", frame(Frame::Failed(failure)), "0000000f08836774696d656f7574646c617465f5"),
        ("cancellation", frame(Frame::Cancel(Cancel::new(Some("enough")))), "000000080a8166656e6f756768"),
        ("bare cancellation", frame(Frame::Cancel(Cancel::default())), "000000010a80"),
    ] {
        assert_eq!(actual, pinned.trim(), "{name}");
    }
}
