//! The few members of `params` and `_meta` that the face itself reads; the rest is passed on unread.

use std::borrow::Cow;

use comity_protocol::{
    json,
    jsonrpc::{Id, RpcError, codes},
    trace::TraceContext,
};
use serde::Deserialize;
use serde_json::value::RawValue;

/// `_meta` key of 2026-07-28: the revision this request speaks.
pub(super) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// `_meta` key of 2026-07-28: what the client can do.
pub(super) const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// One request, its parameters still raw.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: Id,
    pub(super) method: String,
    pub(super) params: Option<Box<RawValue>>,
}

impl Request {
    /// Reads what the face needs of the parameters.
    ///
    /// # Errors
    /// `-32602` when `params` or `_meta` is no object, or says one of these members twice.
    pub(super) fn head(&self) -> Result<Head<'_>, RpcError> {
        let params = self.params.as_deref().map(object::<ParamsHead<'_>>).transpose()?.unwrap_or_default();
        let meta = params.meta.map(object::<MetaHead<'_>>).transpose()?.unwrap_or_default();
        Ok(Head { params, meta })
    }
}

/// What the face reads of one request.
#[derive(Debug, Default)]
pub(super) struct Head<'a> {
    pub(super) params: ParamsHead<'a>,
    pub(super) meta: MetaHead<'a>,
}

/// Members of `params`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ParamsHead<'a> {
    #[serde(borrow, default)]
    pub(super) name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) uri: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "taskId")]
    pub(super) task_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) cursor: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "ref")]
    pub(super) reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) level: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) notifications: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestState")]
    pub(super) request_state: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "inputResponses")]
    pub(super) input_responses: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    pub(super) meta: Option<&'a RawValue>,
}

/// Members of `_meta`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct MetaHead<'a> {
    #[serde(borrow, default, rename = "progressToken")]
    pub(super) progress_token: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    pub(super) version: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientCapabilities")]
    pub(super) capabilities: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientInfo")]
    pub(super) info: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/logLevel")]
    pub(super) log_level: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) traceparent: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) tracestate: Option<&'a RawValue>,
}

impl MetaHead<'_> {
    /// The trace that the client put into `_meta`, if it is a valid one.
    pub(super) fn trace(&self) -> Option<TraceContext> {
        let parent = self.traceparent.and_then(json::as_str)?;
        let state = self.tracestate.and_then(json::as_str);
        trace(&parent, state.as_deref())
    }
}

/// A trace from the values of `traceparent` and `tracestate`. One that is malformed is as good as none.
pub(super) fn trace(parent: &str, state: Option<&str>) -> Option<TraceContext> {
    let context = TraceContext::parse(parent).ok()?;
    Some(match state {
        Some(state) => context.with_state(state),
        None => context,
    })
}

/// A member that must be a string.
///
/// # Errors
/// `-32602`, naming the member.
pub(super) fn text<'a>(value: Option<&'a RawValue>, member: &str) -> Result<Cow<'a, str>, RpcError> {
    value.and_then(json::as_str).ok_or_else(|| invalid(format!("`{member}` must be a string")))
}

/// An "invalid params" error.
pub(super) fn invalid(message: impl Into<String>) -> RpcError {
    RpcError::new(codes::INVALID_PARAMS, message)
}

/// Reads the wanted members of an object. The check of the first byte matters: serde would take an array as well.
pub(super) fn object<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, RpcError> {
    if !raw.get().starts_with('{') {
        return Err(invalid("`params` and `_meta` must be objects"));
    }
    serde_json::from_str(raw.get()).map_err(|error| invalid(format!("unusable params: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(params: &str) -> Request {
        let params = Some(RawValue::from_string(params.into()).unwrap());
        Request { id: Id::Number(1), method: "tools/call".into(), params }
    }

    #[test]
    fn members_are_found_and_left_as_they_were() {
        let params = r#"{"x":1e400,"name":"a\u0062","_meta":{"progressToken": 7e0 ,"other":{}},"arguments":{"n":1.0}}"#;
        let request = request(params);
        let head = request.head().unwrap();
        assert_eq!(text(head.params.name, "name").unwrap(), "ab");
        assert_eq!(head.meta.progress_token.unwrap().get(), "7e0");
        assert_eq!(head.params.arguments.unwrap().get(), r#"{"n":1.0}"#);
    }

    #[test]
    fn wrong_shapes_are_invalid_params() {
        for params in
            ["[]", "7", r#"["name"]"#, r#"{"_meta":[]}"#, r#"{"_meta":7}"#, r#"{"name":"a","name":"b"}"#]
        {
            assert_eq!(request(params).head().unwrap_err().code, codes::INVALID_PARAMS, "{params}");
        }
        let request = request(r#"{"name":7}"#);
        assert_eq!(
            text(request.head().unwrap().params.name, "name").unwrap_err().message,
            "`name` must be a string"
        );
    }

    #[test]
    fn a_malformed_trace_is_none() {
        let meta = r#"{"_meta":{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01","tracestate":"a=b"}}"#;
        let good = request(meta).head().unwrap().meta.trace().unwrap();
        assert_eq!((good.flags(), good.state()), (1, Some("a=b")));
        assert_eq!(request(r#"{"_meta":{"traceparent":"00-0-0-0"}}"#).head().unwrap().meta.trace(), None);
        assert_eq!(request(r#"{"_meta":{"traceparent":5}}"#).head().unwrap().meta.trace(), None);
    }
}
