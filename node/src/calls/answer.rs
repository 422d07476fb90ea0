//! Failures and receipts as clients see them.

use comity_protocol::call::outcome::AttemptFailure;
use comity_protocol::call::{
    Answer, CallFailure, CallOutcome, ExecutionFailure, FailedAttempt, Receipt, ReceiptError, receipt,
};
use comity_protocol::json::{self, RawObject};
use comity_protocol::jsonrpc::codes;
use comity_protocol::route::{PeerReason, RejectedPeer, Rejection, RouteReport};
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
        "unreachable" => Failure::Unreachable { detail: out_of_reach(report) },
        "unapproved" => Failure::Unapproved {
            detail: format!(
                "{} waits for your approval: see `comity tools`, then `comity tools approve {}`",
                report.capability, report.capability
            ),
        },
        _ => Failure::Denied { reasons: reasons() },
    }
}

/// Who may run it and cannot be reached now; those who may not run it are no news here.
fn out_of_reach(report: &RouteReport) -> String {
    const SHOWN_MAX: usize = 5;
    let reach =
        |code: &str| [Rejection::Unreachable, Rejection::CircuitOpen].iter().any(|rule| rule.code() == code);
    let only_reach = |peer: &&RejectedPeer| peer.reasons.iter().all(|reason| reach(&reason.code));
    let shown = report.rejected.iter().filter(only_reach).take(SHOWN_MAX).map(|peer| {
        let why: Vec<_> = peer.reasons.iter().map(|reason| reason.detail.as_str()).collect();
        format!("{} ({}): {}", peer.peer.node, peer.peer.org, why.join(", "))
    });
    format!("nobody who may run it can be reached: {}", shown.collect::<Vec<_>>().join("; "))
}

fn reason(reason: PeerReason) -> DenialReason {
    DenialReason {
        peer: Some(reason.peer),
        org: Some(reason.org),
        code: reason.code,
        detail: format!("{}: {}", reason.node, reason.detail),
    }
}

/// Why every candidate that was tried did not take the call. `here` is how this node itself failed, if it was tried.
pub(super) fn exhausted(here: Option<&Failure>, attempts: &[FailedAttempt], budget_spent: bool) -> Failure {
    if here.is_none() && !attempts.is_empty() && attempts.iter().all(refused_by_law) {
        return Failure::Denied { reasons: attempts.iter().flat_map(refusal_reasons).collect() };
    }
    let here = here.map(|failure| format!("here: {failure}"));
    let there = attempts
        .iter()
        .map(|attempt| format!("{} ({}): {}", attempt.target.name, attempt.target.org, attempt.cause));
    let tried: Vec<_> = here.into_iter().chain(there).collect();
    let budget = if budget_spent { "; the retry budget is spent" } else { "" };
    let detail = format!("{}{budget}", tried.join("; "));
    match common_code(attempts) {
        Some("overloaded") => Failure::Overloaded { handed_over: false, detail },
        Some("too_large") => Failure::TooLarge { handed_over: false, detail },
        Some("refused") => Failure::Refused { code: codes::INVALID_PARAMS, detail },
        _ => Failure::Unreachable { detail },
    }
}

/// What every attempt failed of, where it was the same.
fn common_code(attempts: &[FailedAttempt]) -> Option<&str> {
    let first = attempts.first()?.cause.code();
    attempts.iter().all(|attempt| attempt.cause.code() == first).then_some(first)
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
        CallFailure::Exhausted { attempts, budget_spent } => exhausted(None, &attempts, budget_spent),
        CallFailure::InDoubt { executor, detail } => Failure::InDoubt {
            detail: format!("{} of {} may have run it: {detail}", executor.name, executor.org),
        },
        CallFailure::Timeout { handed_over } => Failure::Timeout { handed_over, after: demand.patience },
        CallFailure::Cancelled { handed_over } => Failure::Cancelled { handed_over },
    }
}

fn answered(answer: Answer, receipt: &Result<Verified<Receipt>, ReceiptError>, demand: &Demand) -> Outcome {
    let broken = |detail| Outcome::Failed(Failure::UpstreamDied { handed_over: true, detail });
    match answer {
        Answer::Result(bytes) => {
            raw(bytes).map_or_else(broken, |result| Outcome::Result(with_receipt(result, receipt)))
        }
        Answer::Error(bytes) => raw(bytes).map_or_else(broken, Outcome::Error),
        Answer::Failed(failure) => Outcome::Failed(execution_failure(&failure, demand)),
    }
}

/// What a peer sent as JSON, checked: it goes on as it is. Or what is wrong with it.
pub(super) fn raw(bytes: Vec<u8>) -> Result<Box<RawValue>, String> {
    let text = String::from_utf8(bytes).map_err(|_| "what the peer sent is not UTF-8".to_owned())?;
    json::check_depth(text.as_bytes(), json::DEPTH_MAX)
        .map_err(|error| format!("what the peer sent: {error}"))?;
    RawValue::from_string(text).map_err(|error| format!("what the peer sent is not JSON: {error}"))
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
        "refused" => Failure::Refused { code: codes::INVALID_PARAMS, detail },
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
        Failure::Refused { .. } => "refused",
        _ => "upstream_died",
    };
    ExecutionFailure::new(code, &detail_of(failure), failure.handed_over())
}

/// What the caller does not know already from the code.
fn detail_of(failure: &Failure) -> String {
    match failure {
        Failure::UpstreamDied { detail, .. }
        | Failure::Overloaded { detail, .. }
        | Failure::TooLarge { detail, .. }
        | Failure::Internal { detail, .. }
        | Failure::Refused { detail, .. } => detail.clone(),
        other => other.to_string(),
    }
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
            assert!(raw(bad).is_err());
        }
    }

    fn attempt(cause: AttemptFailure) -> FailedAttempt {
        let node = comity_protocol::ids::NodeId::from_bytes([1; 32]);
        let org = "acme.example".parse().unwrap();
        FailedAttempt {
            target: comity_protocol::call::Target { node, org, name: "n".into(), connected: true },
            cause,
        }
    }

    fn failed(code: &str) -> FailedAttempt {
        attempt(AttemptFailure::Failed(ExecutionFailure::new(code, "why", false)))
    }

    fn refused(code: &str) -> FailedAttempt {
        attempt(AttemptFailure::Refused(comity_protocol::call::Refusal::new(code, "why")))
    }

    #[test]
    fn a_call_that_nobody_took_fails_as_what_they_all_failed_of() {
        let lost = || attempt(AttemptFailure::Lost("gone".into()));
        let down = Failure::Unreachable { detail: "the MCP server is down".into() };
        for (here, attempts, expected) in [
            (None, vec![lost(), lost()], codes::UNREACHABLE),
            (None, vec![refused("location_not_allowed")], codes::DENIED),
            (None, vec![refused("location_not_allowed"), lost()], codes::UNREACHABLE),
            (None, vec![refused("overloaded"), refused("overloaded")], codes::OVERLOADED),
            (None, vec![refused("overloaded"), failed("overloaded")], codes::OVERLOADED),
            (None, vec![failed("too_large")], codes::TOO_LARGE),
            (None, vec![failed("refused"), failed("refused")], codes::INVALID_PARAMS),
            (None, vec![failed("upstream_died")], codes::UNREACHABLE),
            (Some(&down), vec![refused("location_not_allowed")], codes::UNREACHABLE),
            (None, vec![], codes::UNREACHABLE),
        ] {
            let failure = exhausted(here, &attempts, false);
            assert_eq!(failure.code(), expected, "{here:?} {attempts:?}");
            assert!(!failure.handed_over());
            assert_eq!(failure.to_string().contains("server is down"), here.is_some(), "{failure}");
        }
    }

    #[test]
    fn a_failure_keeps_its_class_and_its_words_over_the_mesh() {
        let request = crate::calls::demand::tests::plain();
        let demand = Demand::of(&request, std::time::Duration::from_secs(9)).unwrap();
        let detail = || "why it is".to_owned();
        for failure in [
            Failure::UpstreamDied { handed_over: true, detail: detail() },
            Failure::Overloaded { handed_over: true, detail: detail() },
            Failure::TooLarge { handed_over: true, detail: detail() },
            Failure::Internal { handed_over: true, detail: detail() },
            Failure::Refused { code: codes::INVALID_PARAMS, detail: detail() },
            Failure::Timeout { handed_over: true, after: demand.patience },
            Failure::Cancelled { handed_over: true },
        ] {
            assert_eq!(execution_failure(&to_execution_failure(&failure), &demand), failure);
        }
    }
}
