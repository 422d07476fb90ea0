//! Failures and receipts as clients see them.

use comity_protocol::call::outcome::AttemptFailure;
use comity_protocol::call::{
    Answer, CallFailure, CallOutcome, ExecutionFailure, FailedAttempt, Receipt, ReceiptError, receipt,
};
use comity_protocol::json::{self, RawObject};
use comity_protocol::route::{PeerReason, RouteReport};
use comity_protocol::trust::Verified;
use serde_json::value::RawValue;
use tracing::warn;

use super::demand::Demand;
use crate::exchange::{DenialReason, Failure, Outcome};

/// The `_meta` key under which a result carries the executor's receipt.
pub(super) const RECEIPT_KEY: &str = "dev.comity/receipt";

/// Why nobody may run a call.
pub(super) fn denial(report: &RouteReport) -> Failure {
    let reasons = || report.reasons().into_iter().map(reason).collect();
    match report.verdict {
        "unreachable" => {
            Failure::Unreachable { detail: in_short("nobody who may run it can be reached", report) }
        }
        "unapproved" => Failure::Unapproved {
            detail: format!(
                "{} waits for your approval: see `comity tools`, then `comity tools approve {}`",
                report.capability, report.capability
            ),
        },
        _ => Failure::Denied { reasons: reasons() },
    }
}

fn in_short(what: &str, report: &RouteReport) -> String {
    let whom: Vec<_> = report.rejected.iter().take(5).map(|peer| peer.peer.node.as_str()).collect();
    if whom.is_empty() { what.to_owned() } else { format!("{what}: {}", whom.join(", ")) }
}

fn reason(reason: PeerReason) -> DenialReason {
    DenialReason {
        peer: Some(reason.peer),
        org: Some(reason.org),
        code: reason.code,
        detail: format!("{} {}", reason.node, reason.detail),
    }
}

/// Why every candidate that was tried did not take the call.
pub(super) fn exhausted(attempts: &[FailedAttempt], budget_spent: bool) -> Failure {
    if !attempts.is_empty() && attempts.iter().all(refused_by_law) {
        return Failure::Denied { reasons: attempts.iter().flat_map(refusal_reasons).collect() };
    }
    let tried: Vec<_> = attempts
        .iter()
        .map(|attempt| format!("{} ({}): {}", attempt.target.name, attempt.target.org, attempt.cause))
        .collect();
    let budget = if budget_spent { "; the retry budget is spent" } else { "" };
    Failure::Unreachable { detail: format!("{}{budget}", tried.join("; ")) }
}

/// Whether an executor refused because it may not run the call, rather than because it cannot now: its server is away, it
/// has no room, its contract has just changed.
fn refused_by_law(attempt: &FailedAttempt) -> bool {
    const NOT_NOW: [&str; 5] =
        ["unknown_capability", "contract_mismatch", "overloaded", "stale_call", "deadline_passed"];
    match &attempt.cause {
        AttemptFailure::Refused(refusal) => !NOT_NOW.contains(&refusal.code.as_str()),
        _ => false,
    }
}

fn refusal_reasons(attempt: &FailedAttempt) -> Vec<DenialReason> {
    let by = |code: &str, detail: &str| DenialReason {
        peer: Some(attempt.target.node.to_string()),
        org: Some(attempt.target.org.to_string()),
        code: code.to_owned(),
        detail: format!("{} refused: {detail}", attempt.target.name),
    };
    match &attempt.cause {
        AttemptFailure::Refused(refusal) if !refusal.reasons.is_empty() => {
            refusal.reasons.iter().map(|reason| by(&reason.code, &reason.detail)).collect()
        }
        cause => vec![by(cause.code(), &cause.to_string())],
    }
}

/// What became of a call over the mesh, as the requester sees it; the exhausted are the caller's to go on with.
pub(super) fn outcome(outcome: CallOutcome, demand: &Demand) -> Result<Outcome, (Vec<FailedAttempt>, bool)> {
    match outcome {
        CallOutcome::Answered { executor, answer, receipt } => {
            if let Err(error) = &receipt {
                warn!(peer = %executor.node, org = %executor.org, code = error.code(), %error, "a receipt does not hold");
            }
            Ok(answered(answer, &receipt, demand))
        }
        CallOutcome::Failed(CallFailure::Exhausted { attempts, budget_spent }) => {
            Err((attempts, budget_spent))
        }
        CallOutcome::Failed(failure) => Ok(Outcome::Failed(call_failure(failure, demand))),
    }
}

fn call_failure(failure: CallFailure, demand: &Demand) -> Failure {
    match failure {
        CallFailure::Exhausted { attempts, budget_spent } => exhausted(&attempts, budget_spent),
        CallFailure::InDoubt { executor, detail } => Failure::InDoubt {
            detail: format!("{} of {} may have run it: {detail}", executor.name, executor.org),
        },
        CallFailure::Timeout { handed_over } => Failure::Timeout { handed_over, after: demand.patience },
        CallFailure::Cancelled { handed_over } => Failure::Cancelled { handed_over },
    }
}

fn answered(answer: Answer, receipt: &Result<Verified<Receipt>, ReceiptError>, demand: &Demand) -> Outcome {
    match answer {
        Answer::Result(bytes) => match raw(bytes) {
            Ok(result) => Outcome::Result(with_receipt(result, receipt)),
            Err(failure) => Outcome::Failed(failure),
        },
        Answer::Error(bytes) => raw(bytes).map_or_else(Outcome::Failed, Outcome::Error),
        Answer::Failed(failure) => Outcome::Failed(execution_failure(&failure, demand)),
    }
}

/// What a peer sent as JSON, checked: it goes to a client as it is.
pub(super) fn raw(bytes: Vec<u8>) -> Result<Box<RawValue>, Failure> {
    let broken = |detail: String| Failure::UpstreamDied { handed_over: true, detail };
    let text = String::from_utf8(bytes).map_err(|_| broken("the peer's answer is not UTF-8".into()))?;
    json::check_depth(text.as_bytes(), json::DEPTH_MAX)
        .map_err(|error| broken(format!("the peer's answer: {error}")))?;
    RawValue::from_string(text).map_err(|error| broken(format!("the peer's answer is not JSON: {error}")))
}

/// The failure that an executor reported.
pub(super) fn execution_failure(failure: &ExecutionFailure, demand: &Demand) -> Failure {
    let (handed_over, detail) = (failure.handed_over, failure.detail.clone());
    match failure.code.as_str() {
        "timeout" => Failure::Timeout { handed_over, after: demand.patience },
        "cancelled" => Failure::Cancelled { handed_over },
        "overloaded" => Failure::Overloaded { handed_over, detail },
        "too_large" => Failure::TooLarge { handed_over, detail },
        "internal" => Failure::Internal { handed_over, detail },
        _ => Failure::UpstreamDied { handed_over, detail },
    }
}

/// The failure of a server here, as an executor reports it.
pub(super) fn to_execution_failure(failure: &Failure) -> ExecutionFailure {
    let code = match failure {
        Failure::Timeout { .. } => "timeout",
        Failure::Cancelled { .. } => "cancelled",
        Failure::Overloaded { .. } => "overloaded",
        Failure::TooLarge { .. } => "too_large",
        Failure::Internal { .. } => "internal",
        _ => "upstream_died",
    };
    ExecutionFailure::new(code, &failure.to_string(), failure.handed_over())
}

/// The result with the receipt in its `_meta`. All else keeps its bytes; what is no object is left alone.
fn with_receipt(result: Box<RawValue>, receipt: &Result<Verified<Receipt>, ReceiptError>) -> Box<RawValue> {
    let value = match receipt {
        Ok(receipt) => receipt::to_json(receipt),
        Err(error) => serde_json::json!({ "invalid": error.code(), "detail": error.to_string() }),
    };
    let Ok(mut object) = RawObject::parse(&result) else { return result };
    let Ok(meta) = object.get_object("_meta") else { return result };
    let mut meta = meta.unwrap_or_default();
    meta.set(RECEIPT_KEY, json::to_raw(&value));
    object.set("_meta", meta.to_raw());
    object.to_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_goes_into_meta_and_nothing_else_changes() {
        let result =
            RawValue::from_string(r#"{ "content" :[1.0, 99999999999999999999],"_meta":{"k":1}}"#.into())
                .unwrap();
        let with = with_receipt(result, &Err(ReceiptError::Missing));
        assert!(with.get().contains("[1.0, 99999999999999999999]"), "{with}");
        assert_eq!(json::path(&with, &["_meta", "k"]).unwrap().get(), "1");
        assert_eq!(
            json::path(&with, &["_meta", RECEIPT_KEY, "invalid"]).unwrap().get(),
            r#""receipt_missing""#
        );
        let odd = RawValue::from_string("[1]".into()).unwrap();
        assert_eq!(with_receipt(odd, &Err(ReceiptError::Missing)).get(), "[1]");
    }

    #[test]
    fn what_a_peer_sends_as_json_is_checked() {
        assert!(raw(b"{\"a\":1}".to_vec()).is_ok());
        for bad in [b"{".to_vec(), vec![0xff], b"[".repeat(100_000)] {
            assert!(matches!(raw(bad), Err(Failure::UpstreamDied { handed_over: true, .. })));
        }
    }
}
