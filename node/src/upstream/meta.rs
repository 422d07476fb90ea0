//! What is changed in a request's `params` on its way to an upstream: only `_meta`, and in it only
//! what names the session, the era and the caller. Everything else keeps its bytes.

use comity_protocol::ids::{NodeId, OrgName};
use comity_protocol::json::{self, JsonError, RawObject};
use serde::Serialize;
use serde_json::value::RawValue;

use super::profile::{self, Era};

/// The `_meta` key under which an upstream is told who calls.
pub const CALLER_KEY: &str = "dev.comity/caller";

/// Keys of the 2026-07-28 envelope, which older servers may refuse.
const MODERN_PREFIX: &str = "io.modelcontextprotocol/";
/// The key under which a request of 2026-07-28 names its revision.
pub const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
/// The key under which a request says what its client can do.
pub const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
const LOG_LEVEL_KEY: &str = "io.modelcontextprotocol/logLevel";
const CLIENT_KEY: &str = "io.modelcontextprotocol/clientInfo";

/// Who makes a call, as this node has verified it. Upstreams see it in each request's `_meta`,
/// where it replaces whatever a client wrote there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VerifiedCaller {
    /// The caller's organisation.
    pub org: OrgName,
    /// The node that the call entered the mesh by.
    pub node: NodeId,
    /// Who called that node: `local`, or the name of a token.
    pub principal: String,
}

impl VerifiedCaller {
    fn to_raw(&self) -> Box<RawValue> {
        #[derive(Serialize)]
        struct Wire<'a> {
            org: &'a str,
            node: String,
            principal: &'a str,
        }
        json::to_raw(&Wire {
            org: self.org.as_str(),
            node: self.node.to_string(),
            principal: &self.principal,
        })
    }
}

/// What a request is given on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dress<'a> {
    /// The session's era; `None` while it is being negotiated by hand.
    pub(super) era: Option<Era>,
    /// Who calls; `None` for the node's own requests, in which case a caller found there is removed.
    pub(super) caller: Option<&'a VerifiedCaller>,
    /// Our `traceparent`, to replace the client's.
    pub(super) traceparent: Option<&'a str>,
    /// What a client can do that cannot say so itself.
    pub(super) capabilities: Option<&'a RawValue>,
    /// The id of the request, which becomes its progress token.
    pub(super) id: i64,
}

/// A request ready to be sent.
#[derive(Debug)]
pub(super) struct Dressed {
    /// The params to send.
    pub(super) params: RawObject,
    /// The requester's own progress token.
    pub(super) token: Option<Box<RawValue>>,
}

impl Dress<'_> {
    /// Rewrites the `_meta` of `params`. Refuses params or `_meta` that are no objects, and a progress
    /// token that is neither a string nor a number.
    pub(super) fn put_on(self, params: Option<&RawValue>) -> Result<Dressed, JsonError> {
        let mut params = params.map(RawObject::parse).transpose()?.unwrap_or_default();
        let mut meta = params.get_object("_meta")?.unwrap_or_default();
        let had_meta = !meta.is_empty();
        let token = self.swap_token(&mut meta)?;
        meta.remove(CALLER_KEY);
        if let Some(caller) = self.caller {
            meta.set(CALLER_KEY, caller.to_raw());
        }
        if let Some(traceparent) = self.traceparent {
            meta.set_str("traceparent", traceparent);
        }
        match self.era {
            Some(Era::Modern) => modernise(&mut meta, self.capabilities),
            Some(Era::Legacy) => meta.retain(|key| !key.starts_with(MODERN_PREFIX)),
            None => {}
        }
        if had_meta || !meta.is_empty() {
            params.set("_meta", meta.to_raw());
        }
        Ok(Dressed { params, token })
    }

    fn swap_token(self, meta: &mut RawObject) -> Result<Option<Box<RawValue>>, JsonError> {
        let Some(token) = meta.get("progressToken").map(RawValue::to_owned) else { return Ok(None) };
        if !token.get().starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
            return Err(JsonError::Expected { expected: "a string or a number as progressToken" });
        }
        meta.set("progressToken", json::to_raw(&self.id));
        Ok(Some(token))
    }
}

/// Adds the envelope that 2026-07-28 requires. What the client says of itself stands; a client of an
/// older era says nothing and is shown as this node, with what that client can do.
///
/// A client of an older era is sent log messages unless it says otherwise, so all are asked for on its behalf: what it
/// does not want is left out on the way to it.
fn modernise(meta: &mut RawObject, capabilities: Option<&RawValue>) {
    let is_modern = meta.get(VERSION_KEY).is_some();
    if !is_modern && meta.get(LOG_LEVEL_KEY).is_none() {
        meta.set_str(LOG_LEVEL_KEY, "debug");
    }
    meta.set_str(VERSION_KEY, profile::MODERN_VERSION);
    if meta.get(CAPABILITIES_KEY).is_none_or(|value| !value.get().starts_with('{')) {
        let none = || RawObject::new().to_raw();
        meta.set(CAPABILITIES_KEY, capabilities.map_or_else(none, RawValue::to_owned));
    }
    if meta.get(CLIENT_KEY).is_none_or(|value| !value.get().starts_with('{')) {
        meta.set(CLIENT_KEY, profile::client_info());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn dress(era: Era) -> Dress<'static> {
        Dress { era: Some(era), caller: None, traceparent: None, capabilities: None, id: 42 }
    }

    fn put_on(dress: Dress<'_>, params: &str) -> String {
        dress.put_on(Some(&raw(params))).unwrap().params.to_raw().get().to_owned()
    }

    fn caller() -> VerifiedCaller {
        VerifiedCaller {
            org: "acme.example".parse().unwrap(),
            node: NodeId::from_bytes([7; 32]),
            principal: "local".into(),
        }
    }

    #[test]
    fn nothing_but_meta_is_touched() {
        let params = r#"{"z":123456789012345678901234567890,"arguments":{"b" : 1.0,"a":[ ]},"name":"t"}"#;
        assert_eq!(put_on(dress(Era::Legacy), params), params);
        assert!(dress(Era::Legacy).put_on(None).unwrap().params.is_empty());
    }

    #[test]
    fn tokens_are_swapped_and_kept() {
        let params = raw(r#"{"_meta":{"progressToken":"abc","x":1}}"#);
        let dressed = dress(Era::Legacy).put_on(Some(&params)).unwrap();
        assert_eq!(dressed.params.to_raw().get(), r#"{"_meta":{"progressToken":42,"x":1}}"#);
        assert_eq!(dressed.token.unwrap().get(), "\"abc\"");
    }

    #[test]
    fn a_claimed_caller_is_replaced_by_the_verified_one() {
        let forged = r#"{"_meta":{"dev.comity/caller":{"org":"root"},"dev.comity/constraints":{}}}"#;
        let caller = caller();
        let shown = put_on(Dress { caller: Some(&caller), ..dress(Era::Legacy) }, forged);
        let expected = format!(
            r#"{{"_meta":{{"dev.comity/constraints":{{}},"dev.comity/caller":{{"org":"acme.example","node":"{}","principal":"local"}}}}}}"#,
            caller.node
        );
        assert_eq!(shown, expected);
        assert!(!put_on(dress(Era::Legacy), forged).contains("caller"));
    }

    #[test]
    fn the_modern_envelope_is_added_for_modern_and_stripped_for_legacy() {
        let legacy = put_on(
            dress(Era::Legacy),
            r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","traceparent":"00-x"}}"#,
        );
        assert_eq!(legacy, r#"{"_meta":{"traceparent":"00-x"}}"#);
        let modern = put_on(dress(Era::Modern), "{}");
        assert!(modern.contains(r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#), "{modern}");
        assert!(modern.contains(r#""io.modelcontextprotocol/clientCapabilities":{}"#), "{modern}");
        assert!(modern.contains(r#""io.modelcontextprotocol/clientInfo":{"name":"comity""#), "{modern}");
        assert!(modern.contains(r#""io.modelcontextprotocol/logLevel":"debug""#), "{modern}");
        let quiet = r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#;
        assert!(
            !put_on(dress(Era::Modern), quiet).contains("logLevel"),
            "a modern client says what it wants"
        );
        let own = r#"{"_meta":{"io.modelcontextprotocol/clientCapabilities":{"sampling":{}}}}"#;
        let roots = raw(r#"{"roots":{}}"#);
        for dress in [dress(Era::Modern), Dress { capabilities: Some(&roots), ..dress(Era::Modern) }] {
            assert!(put_on(dress, own).contains(r#"clientCapabilities":{"sampling":{}}"#));
        }
        let shown = put_on(Dress { capabilities: Some(&roots), ..dress(Era::Modern) }, "{}");
        assert!(shown.contains(r#"clientCapabilities":{"roots":{}}"#), "{shown}");
    }

    #[test]
    fn our_trace_replaces_the_clients() {
        let dress = Dress { traceparent: Some("00-ours"), ..dress(Era::Legacy) };
        assert_eq!(
            put_on(dress, r#"{"_meta":{"traceparent":"00-theirs"}}"#),
            r#"{"_meta":{"traceparent":"00-ours"}}"#
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for wrong in ["[]", "1", r#"{"_meta":1}"#, r#"{"_meta":{"progressToken":{}}}"#, r#"{"a":1,"a":2}"#] {
            assert!(dress(Era::Legacy).put_on(Some(&raw(wrong))).is_err(), "{wrong}");
        }
    }
}
