//! How a call's outcome is written in its client's era.

use std::borrow::Cow;

use comity_protocol::{
    json::{self, RawObject},
    jsonrpc::{Id, Message, RpcError, codes},
};
use serde_json::value::RawValue;

use crate::{exchange::Outcome, gateway::Era};

/// The member of every 2026-07-28 result that earlier revisions do not have.
const RESULT_TYPE: &str = "resultType";

/// The answer under the client's id, and its code if it is an error.
pub(super) fn answer(id: &Id, era: Era, outcome: Outcome) -> (Message, Option<i64>) {
    let refused = |error: &RpcError| (Message::error(Some(id.clone()), error), Some(error.code));
    match outcome {
        Outcome::Result(result) => match for_era(result, era) {
            Ok(result) => (Message::Response { id: id.clone(), result }, None),
            Err(error) => refused(&error),
        },
        Outcome::Error(error) => {
            let code = RpcError::from_raw(&error).code;
            (Message::Error { id: Some(id.clone()), error }, Some(code))
        }
        Outcome::Failed(failure) => refused(&failure.to_rpc_error()),
    }
}

/// A result as the client's era knows it.
///
/// # Errors
/// When the server wants input in a way that a legacy client cannot give.
fn for_era(result: Box<RawValue>, era: Era) -> Result<Box<RawValue>, RpcError> {
    match (era, result_type(&result)) {
        (Era::Modern, None) => Ok(with_result_type(result)),
        (Era::Legacy, Some(kind)) if kind == "complete" => Ok(without_result_type(result)),
        (Era::Legacy, Some(kind)) => {
            let kind: String = kind.chars().take(32).collect();
            let why = format!("the tool answered with `{kind}`, which needs a client of MCP 2026-07-28");
            Err(RpcError::new(codes::INTERNAL_ERROR, why))
        }
        (Era::Modern, Some(_)) | (Era::Legacy, None) => Ok(result),
    }
}

fn result_type(result: &RawValue) -> Option<Cow<'_, str>> {
    // Most results have none: a search is much cheaper than reading them.
    memchr::memmem::find(result.get().as_bytes(), RESULT_TYPE.as_bytes())?;
    json::as_str(json::field(result, RESULT_TYPE).ok()??)
}

/// Puts the member first and leaves every other byte as it was. What is no object is left alone.
fn with_result_type(result: Box<RawValue>) -> Box<RawValue> {
    let Some(rest) = result.get().strip_prefix('{') else { return result };
    let comma = if rest.trim_ascii_start() == "}" { "" } else { "," };
    let text = format!(r#"{{"{RESULT_TYPE}":"complete"{comma}{rest}"#);
    RawValue::from_string(text).unwrap_or(result)
}

fn without_result_type(result: Box<RawValue>) -> Box<RawValue> {
    let Ok(mut object) = RawObject::parse(&result) else { return result };
    object.remove(RESULT_TYPE);
    object.to_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_fitted_to_the_era_and_otherwise_untouched() {
        let cases = [
            (
                Era::Modern,
                r#"{ "b":1e999, "a":[] }"#,
                Some(r#"{"resultType":"complete", "b":1e999, "a":[] }"#),
            ),
            (Era::Modern, "{ }", Some(r#"{"resultType":"complete" }"#)),
            (Era::Modern, r#"{"resultType":"task","x":1}"#, Some(r#"{"resultType":"task","x":1}"#)),
            (
                Era::Modern,
                r#"{"x":{"resultType":"no"}}"#,
                Some(r#"{"resultType":"complete","x":{"resultType":"no"}}"#),
            ),
            (Era::Modern, "7", Some("7")),
            (Era::Legacy, r#"{ "b":1e999 }"#, Some(r#"{ "b":1e999 }"#)),
            (Era::Legacy, r#"{"resultType":"complete","b":1e999}"#, Some(r#"{"b":1e999}"#)),
            (Era::Legacy, r#"{"x":"resultType"}"#, Some(r#"{"x":"resultType"}"#)),
            (Era::Legacy, r#"{"resultType":"input_required"}"#, None),
        ];
        for (era, result, expected) in cases {
            let fitted = for_era(RawValue::from_string(result.into()).unwrap(), era).ok();
            assert_eq!(fitted.as_deref().map(RawValue::get), expected, "{result}");
        }
    }
}
