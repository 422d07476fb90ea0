//! A call against its tool's contract: its arguments before anybody else sees them, its structured result on arrival.
//!
//! What does not fit becomes an error of the tool (`isError`) rather than of the protocol, as MCP asks since 2025-11-25:
//! the model that made the call then sees what is wrong and where, and can mend it.

use std::sync::Arc;

use comity_protocol::json::{self, RawObject};
use serde_json::json;
use serde_json::value::RawValue;
use tracing::info;

use super::Calls;
use super::outgoing::Call;
use crate::exchange::Outcome;
use crate::validation::{Checks, Faults};

/// The `_meta` key under which a result lists what does not fit the contract.
const FAULTS_KEY: &str = "dev.comity/faults";

/// The method whose params and result a contract describes.
const CALL_TOOL: &str = "tools/call";

/// Checks a call's arguments.
///
/// # Errors
/// The outcome that tells the faults; the call must not be made.
pub(super) async fn check_arguments(calls: &Calls, call: &Call) -> Result<(), Outcome> {
    let Some(checks) = checks(calls, call).await else { return Ok(()) };
    let Some(checks) = checks.get() else { return Ok(()) };
    checks.arguments(&call.request.params).await.map_err(|faults| {
        info!(capability = %call.route.capability, "arguments do not fit the tool's contract: not called");
        Outcome::Result(unfit(&faults))
    })
}

/// The outcome as the client is to have it.
pub(super) async fn check_result(calls: &Calls, call: &Call, outcome: Outcome) -> Outcome {
    let Outcome::Result(result) = outcome else { return outcome };
    let Some(checks) = checks(calls, call).await else { return Outcome::Result(result) };
    let Some(checks) = checks.get() else { return Outcome::Result(result) };
    match checks.result(&result).await {
        Ok(()) => Outcome::Result(result),
        Err(faults) => {
            info!(capability = %call.route.capability, "a result does not fit the tool's own contract");
            Outcome::Result(misfit(&result, &faults))
        }
    }
}

async fn checks(calls: &Calls, call: &Call) -> Option<Arc<tokio::sync::OnceCell<Checks>>> {
    match call.request.method == CALL_TOOL {
        true => Some(calls.validators.of(&call.route.descriptor).await),
        false => None,
    }
}

/// The result of a call that was not made.
fn unfit(faults: &Faults) -> Box<RawValue> {
    let text = format!("The arguments do not fit this tool's input schema; it was not called.\n{faults}");
    json::to_raw(&json!({
        "content": [{ "type": "text", "text": text }],
        "isError": true,
        "_meta": { FAULTS_KEY: faults },
    }))
}

/// The result with what is wrong with it in front. What the tool said to people stays; the structure that it promised
/// otherwise does not, because strict clients throw away the whole result for it.
fn misfit(result: &RawValue, faults: &Faults) -> Box<RawValue> {
    let Ok(mut object) = RawObject::parse(result) else { return result.to_owned() };
    let text =
        format!("The tool ran, but its structured result does not fit its own output schema.\n{faults}");
    let mut content = vec![json::to_raw(&json!({ "type": "text", "text": text }))];
    let said =
        object.get("content").and_then(|said| serde_json::from_str::<Vec<Box<RawValue>>>(said.get()).ok());
    content.extend(said.unwrap_or_default());
    object.set("content", json::to_raw(&content));
    object.set("isError", json::to_raw(&true));
    object.remove("structuredContent");
    if let Ok(meta) = object.get_object("_meta") {
        let mut meta = meta.unwrap_or_default();
        meta.set(FAULTS_KEY, json::to_raw(faults));
        object.set("_meta", meta.to_raw());
    }
    object.to_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_does_not_fit_keeps_what_was_said_and_its_receipt() {
        let result = RawValue::from_string(
            r#"{"x":1e400,"content":[{"type":"text","text":"t","n":1.0}],"structuredContent":{},"_meta":{"k":1}}"#.into(),
        );
        let faults = Faults::of("/n", "required", "\"n\" is missing");
        let told = misfit(&result.unwrap(), &faults);
        for kept in [r#""x":1e400"#, r#"{"type":"text","text":"t","n":1.0}"#, r#""k":1"#, r#""isError":true"#]
        {
            assert!(told.get().contains(kept), "{kept}: {told}");
        }
        assert!(!told.get().contains("structuredContent"), "{told}");
        assert_eq!(
            json::path(&told, &["_meta", FAULTS_KEY]).unwrap().get(),
            r#"[{"path":"/n","keyword":"required","detail":"\"n\" is missing"}]"#
        );
    }
}
