//! The receipt: the executor's signed statement of what it ran, where and for whom.
//!
//! It names the digests of the request and of the answer, so that it fits one call only, and the places under which it
//! ran. The caller holds it against the header that it sent and against the constraints in it; a receipt that says
//! that the call ran where it may not is refused like a forged one.

use minicbor::{Decode, Encode};
use serde_json::{Value, json};

use crate::geo::{Country, CountrySet};
use crate::ids::{CallId, CapabilityId, ContractDigest, MeshName, NodeId, OrgName, PayloadDigest};
use crate::route::residency::{operator_is_denied, residency_holds};
use crate::time::Wall;
use crate::trust::{SealError, SealedType, Unverified, Verified};

use super::header::CallHeader;

/// The key under which a result's `_meta` carries the receipt.
pub const RECEIPT_META_KEY: &str = "dev.comity/receipt";

/// How the call ended at the executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ReceiptOutcome {
    /// The upstream gave a result.
    #[n(0)]
    Result,
    /// The upstream gave a JSON-RPC error.
    #[n(1)]
    Error,
    /// The upstream had the request and gave no answer.
    #[n(2)]
    Failed,
}

impl ReceiptOutcome {
    /// The word in the JSON form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Error => "error",
            Self::Failed => "failed",
        }
    }
}

/// What the executor states.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Receipt {
    /// The call.
    #[n(0)]
    pub call: CallId,
    /// The node that ran it, whose key signs.
    #[n(1)]
    pub executor: NodeId,
    /// Its org.
    #[n(2)]
    pub executor_org: OrgName,
    /// The node that asked.
    #[n(3)]
    pub caller: NodeId,
    /// Its org.
    #[n(4)]
    pub caller_org: OrgName,
    /// What ran.
    #[n(5)]
    pub capability: CapabilityId,
    /// Under which contract.
    #[n(6)]
    pub contract: ContractDigest,
    /// The digest of the request's body.
    #[n(7)]
    pub request: PayloadDigest,
    /// The digest of the result or error; none when it failed.
    #[n(8)]
    pub answer: Option<PayloadDigest>,
    /// How it ended.
    #[n(9)]
    pub outcome: ReceiptOutcome,
    /// Where the executor may have processed it.
    #[n(10)]
    pub processing_locations: CountrySet,
    /// Under whose law its operator is.
    #[n(11)]
    pub operator_country: Option<Country>,
    /// When the upstream was given it, by the executor's clock.
    #[n(12)]
    pub started: Wall,
    /// When it ended, by the executor's clock.
    #[n(13)]
    pub finished: Wall,
}

impl SealedType for Receipt {
    const TYPE: &'static str = "receipt";
    const VERSION: u16 = 1;
    const BYTES_MAX: usize = 4096;
}

/// Why a receipt does not prove the call that was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// None came.
    #[error("the executor sent no receipt")]
    Missing,
    /// Something else came where the receipt belongs.
    #[error("the executor sent another frame where the receipt belongs")]
    Misplaced,
    /// Unreadable, or not signed by the executor.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It speaks of something else than the call that was made.
    #[error("the receipt states another {0} than the call had")]
    Mismatch(&'static str),
    /// It says that the call ran where it may not.
    #[error("the receipt says that the call ran in {ran}; allowed: {allowed}")]
    Place {
        /// Where it ran.
        ran: Box<CountrySet>,
        /// Where it may run.
        allowed: Box<CountrySet>,
    },
    /// It says that the operator is under a law that the call denied, or does not say under which.
    #[error("the receipt does not clear the operator of the laws that the call denied")]
    Operator,
}

impl ReceiptError {
    /// A short name for logs, metrics and the audit log.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "receipt_missing",
            Self::Misplaced => "receipt_misplaced",
            Self::Seal(_) => "receipt_bad_signature",
            Self::Mismatch(_) => "receipt_mismatch",
            Self::Place { .. } => "receipt_wrong_place",
            Self::Operator => "receipt_wrong_operator",
        }
    }
}

/// The call as the caller knows it: what a receipt must state.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The header that was sent.
    pub header: &'a CallHeader,
    /// The org of the node that it was sent to.
    pub executor_org: &'a OrgName,
    /// How the call ended.
    pub outcome: ReceiptOutcome,
    /// The digest of the result or error.
    pub answer: Option<PayloadDigest>,
}

impl Receipt {
    /// Opens a receipt and holds it against the call. Cheap comparisons come before the signature.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn verify(
        bytes: &[u8],
        expected: Expected<'_>,
        mesh: &MeshName,
    ) -> Result<Verified<Self>, ReceiptError> {
        let unverified = Unverified::<Self>::decode(bytes)?;
        unverified.claimed().check(expected)?;
        let key = expected.header.executor.verifying_key().ok_or(SealError::Signature(Self::TYPE))?;
        Ok(unverified.verify(&key, Some(mesh))?)
    }

    fn check(&self, expected: Expected<'_>) -> Result<(), ReceiptError> {
        let header = expected.header;
        for (same, what) in [
            (self.call == header.call, "call"),
            (self.executor == header.executor, "executor"),
            (self.executor_org == *expected.executor_org, "executor's org"),
            (self.caller == header.principal.node, "caller"),
            (self.caller_org == header.principal.org, "caller's org"),
            (self.capability == header.capability, "capability"),
            (self.contract == header.contract, "contract"),
            (self.request == header.request, "request"),
            (self.answer == expected.answer, "answer"),
            (self.outcome == expected.outcome, "outcome"),
            (self.started <= self.finished, "time"),
        ] {
            if !same {
                return Err(ReceiptError::Mismatch(what));
            }
        }
        self.check_law(header)
    }

    fn check_law(&self, header: &CallHeader) -> Result<(), ReceiptError> {
        let allowed = header.constraints.allow_locations;
        if !residency_holds(allowed.as_ref(), &self.processing_locations) {
            let (ran, allowed) = (self.processing_locations.into(), allowed.unwrap_or_default().into());
            return Err(ReceiptError::Place { ran, allowed });
        }
        if operator_is_denied(&header.constraints, self.operator_country) {
            return Err(ReceiptError::Operator);
        }
        Ok(())
    }
}

/// The JSON form for `_meta["dev.comity/receipt"]`: the fields for people, and the envelope, which alone proves them.
pub fn to_json(receipt: &Verified<Receipt>) -> Value {
    json!({
        "call": receipt.call.to_string(),
        "executor": receipt.executor.to_string(),
        "executor_org": receipt.executor_org,
        "caller": receipt.caller.to_string(),
        "caller_org": receipt.caller_org,
        "capability": receipt.capability.to_string(),
        "contract": receipt.contract.to_string(),
        "request": receipt.request.to_string(),
        "answer": receipt.answer.map(|digest| digest.to_string()),
        "outcome": receipt.outcome.as_str(),
        "processing_locations": receipt.processing_locations.iter().map(|c| c.to_string()).collect::<Vec<_>>(),
        "operator_country": receipt.operator_country.map(|country| country.to_string()),
        "started": receipt.started.to_string(),
        "finished": receipt.finished.to_string(),
        "envelope": data_encoding::BASE64.encode(receipt.bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::tests::{ANSWER, executor_key, header, receipt_for};
    use crate::codec;
    use crate::testing::{mesh, places};
    use crate::trust::seal;

    fn expected(header: &CallHeader) -> Expected<'_> {
        Expected {
            header,
            executor_org: &header.capability.org,
            outcome: ReceiptOutcome::Result,
            answer: Some(PayloadDigest::of(ANSWER)),
        }
    }

    fn verify(change: impl FnOnce(&mut Receipt)) -> Result<Verified<Receipt>, ReceiptError> {
        let header = header();
        let mut receipt = receipt_for(&header);
        change(&mut receipt);
        let sealed = seal(receipt, &executor_key(), Some(&mesh()));
        Receipt::verify(sealed.bytes(), expected(&header), &mesh())
    }

    #[test]
    fn a_true_receipt_verifies_and_shows_its_envelope() {
        let receipt = verify(|_| {}).unwrap();
        let json = to_json(&receipt);
        assert_eq!(json["processing_locations"], json!(["DE"]));
        assert_eq!(json["outcome"], "result");
        let envelope = data_encoding::BASE64.decode(json["envelope"].as_str().unwrap().as_bytes()).unwrap();
        let header = header();
        assert!(Receipt::verify(&envelope, expected(&header), &mesh()).is_ok());
    }

    #[test]
    fn a_receipt_of_another_call_is_refused_by_name() {
        for (change, what) in [
            ((|r| r.call = CallId::from_bytes([9; 16])) as fn(&mut Receipt), "call"),
            (|r| r.executor = NodeId::from_bytes([9; 32]), "executor"),
            (|r| r.executor_org = "evil.example".parse().unwrap(), "executor's org"),
            (|r| r.caller = NodeId::from_bytes([9; 32]), "caller"),
            (|r| r.caller_org = "evil.example".parse().unwrap(), "caller's org"),
            (|r| r.capability.name = "rm".parse().unwrap(), "capability"),
            (|r| r.contract = ContractDigest::of(b"other"), "contract"),
            (|r| r.request = PayloadDigest::of(b"other"), "request"),
            (|r| r.answer = Some(PayloadDigest::of(b"other")), "answer"),
            (|r| r.answer = None, "answer"),
            (|r| r.outcome = ReceiptOutcome::Error, "outcome"),
            (|r| (r.started, r.finished) = (r.finished, r.started), "time"),
        ] {
            assert_eq!(verify(change).unwrap_err(), ReceiptError::Mismatch(what));
        }
    }

    #[test]
    fn a_receipt_that_admits_a_breach_is_refused() {
        let abroad = verify(|receipt| receipt.processing_locations = places("DE US")).unwrap_err();
        assert_eq!(abroad.to_string(), "the receipt says that the call ran in DE,US; allowed: EU");
        let silent = verify(|receipt| receipt.processing_locations = CountrySet::EMPTY).unwrap_err();
        assert_eq!(silent.code(), "receipt_wrong_place");
        let foreign = verify(|receipt| receipt.operator_country = Some("US".parse().unwrap()));
        assert_eq!(foreign.unwrap_err(), ReceiptError::Operator);
        assert_eq!(verify(|receipt| receipt.operator_country = None).unwrap_err(), ReceiptError::Operator);
    }

    #[test]
    fn every_changed_byte_and_every_other_key_or_mesh_is_refused() {
        let header = header();
        let sealed = seal(receipt_for(&header), &executor_key(), Some(&mesh()));
        for at in 0..sealed.bytes().len() {
            let mut forged = sealed.bytes().to_vec();
            forged[at] ^= 1;
            assert!(Receipt::verify(&forged, expected(&header), &mesh()).is_err(), "byte {at}");
        }
        let stranger = ed25519_dalek::SigningKey::from_bytes(&[77; 32]);
        let forged = seal(receipt_for(&header), &stranger, Some(&mesh()));
        assert!(Receipt::verify(forged.bytes(), expected(&header), &mesh()).is_err());
        let elsewhere = "elsewhere".parse().unwrap();
        assert!(Receipt::verify(sealed.bytes(), expected(&header), &elsewhere).is_err());
    }

    #[test]
    fn the_largest_receipt_fits() {
        let mut receipt = receipt_for(&header());
        let long: OrgName =
            format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61))
                .parse()
                .unwrap();
        (receipt.executor_org, receipt.caller_org) = (long.clone(), long.clone());
        receipt.capability.org = long;
        receipt.capability.server = "s".repeat(64).parse().unwrap();
        receipt.capability.name = "t".repeat(crate::ids::ITEM_NAME_BYTES_MAX).parse().unwrap();
        receipt.processing_locations = CountrySet::ALL;
        (receipt.started, receipt.finished) = (Wall::from_millis(u64::MAX), Wall::from_millis(u64::MAX));
        let sealed = seal(receipt, &executor_key(), Some(&mesh()));
        assert!(sealed.bytes().len() <= Receipt::BYTES_MAX, "{}", sealed.bytes().len());
        assert!(codec::decode::<Receipt>(&codec::encode(&*sealed), Receipt::BYTES_MAX).is_ok());
    }
}
