//! What servers may ask clients for: elicitation, sampling and roots, and what a client must be able to do for it.
//!
//! In the legacy era a server asks with a request of its own; since 2026-07-28 it answers with `input_required` and the
//! same requests inside. Both are held against what the client said it can do.

use comity_protocol::json::{self, RawObject};
use comity_protocol::jsonrpc::{RpcError, codes};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The extension under which a server may answer with a task.
pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// What a client must be able to do to be asked something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// Show its user a form.
    ElicitForm,
    /// Send its user to a web page.
    ElicitUrl,
    /// Name its roots.
    Roots,
    /// Have its model say something.
    Sample,
    /// The same with tools.
    SampleWithTools,
    /// Follow up tasks; see [`TASKS_EXTENSION`].
    Tasks,
}

impl Ability {
    /// What it takes to be asked this; `None` for what no server may ask a client.
    pub fn to_answer(method: &str, params: Option<&RawValue>) -> Option<Self> {
        let member = |key| params.and_then(|params| json::path(params, &[key]));
        match method {
            "roots/list" => Some(Self::Roots),
            "elicitation/create" => {
                let url = member("mode").and_then(json::as_str).is_some_and(|mode| mode == "url");
                Some(if url { Self::ElicitUrl } else { Self::ElicitForm })
            }
            "sampling/createMessage" => {
                let tools = member("tools").is_some() || member("toolChoice").is_some();
                Some(if tools { Self::SampleWithTools } else { Self::Sample })
            }
            _ => None,
        }
    }

    /// Whether a client of these capabilities has it.
    pub fn is_among(self, capabilities: Option<&RawValue>) -> bool {
        let has = |path: &[&str]| {
            let found = capabilities.and_then(|capabilities| json::path(capabilities, path));
            found.is_some_and(|value| !matches!(value.get(), "null" | "false"))
        };
        match self {
            // Before there were two modes, to elicit was to show a form.
            Self::ElicitForm => {
                has(&["elicitation"]) && (has(&["elicitation", "form"]) || !has(&["elicitation", "url"]))
            }
            Self::ElicitUrl => has(&["elicitation", "url"]),
            Self::Roots => has(&["roots"]),
            Self::Sample => has(&["sampling"]),
            Self::SampleWithTools => has(&["sampling", "tools"]),
            Self::Tasks => has(&["extensions", TASKS_EXTENSION]),
        }
    }

    /// The error for a client that lacks it: `-32021` with the capabilities that it would need.
    pub fn missing(self) -> RpcError {
        let required: Value = match self {
            Self::ElicitForm => json!({ "elicitation": { "form": {} } }),
            Self::ElicitUrl => json!({ "elicitation": { "url": {} } }),
            Self::Roots => json!({ "roots": {} }),
            Self::Sample => json!({ "sampling": {} }),
            Self::SampleWithTools => json!({ "sampling": { "tools": {} } }),
            Self::Tasks => json!({ "extensions": { TASKS_EXTENSION: {} } }),
        };
        let data = json::to_raw(&json!({ "requiredCapabilities": required }));
        RpcError::new(codes::MISSING_CLIENT_CAPABILITY, "Missing required client capability").with_data(data)
    }
}

/// What a legacy client's capabilities are to a server of 2026-07-28: all but tasks, which that client could not follow
/// up. `None` where nothing is left.
pub fn modern_capabilities(legacy: &RawValue) -> Option<Box<RawValue>> {
    let mut capabilities = RawObject::parse(legacy).ok()?;
    capabilities.remove("tasks");
    if let Ok(Some(mut extensions)) = capabilities.get_object("extensions") {
        extensions.remove(TASKS_EXTENSION);
        capabilities.set("extensions", extensions.to_raw());
    }
    (!capabilities.is_empty()).then(|| capabilities.to_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn abilities_are_found_in_capabilities() {
        let cases = [
            ("elicitation/create", "{}", r#"{"elicitation":{}}"#, true),
            ("elicitation/create", "{}", r#"{"elicitation":{"url":{}}}"#, false),
            ("elicitation/create", "{}", r#"{"elicitation":{"url":{},"form":{}}}"#, true),
            ("elicitation/create", r#"{"mode":"url"}"#, r#"{"elicitation":{}}"#, false),
            ("elicitation/create", r#"{"mode":"url"}"#, r#"{"elicitation":{"url":{}}}"#, true),
            ("sampling/createMessage", "{}", r#"{"sampling":{}}"#, true),
            ("sampling/createMessage", r#"{"tools":[]}"#, r#"{"sampling":{}}"#, false),
            ("sampling/createMessage", r#"{"tools":[]}"#, r#"{"sampling":{"tools":{}}}"#, true),
            ("roots/list", "{}", r#"{"roots":{"listChanged":true}}"#, true),
            ("roots/list", "{}", r#"{"roots":null}"#, false),
            ("roots/list", "{}", "[]", false),
        ];
        for (method, params, capabilities, expected) in cases {
            let ability = Ability::to_answer(method, Some(&raw(params))).unwrap();
            assert_eq!(
                ability.is_among(Some(&raw(capabilities))),
                expected,
                "{method} {params} {capabilities}"
            );
            assert!(!ability.is_among(None));
            let error = ability.missing();
            let required = json::path(error.data.as_deref().unwrap(), &["requiredCapabilities"]).unwrap();
            assert!(ability.is_among(Some(required)), "who declares what is required has it");
        }
        assert_eq!(Ability::to_answer("tools/call", None), None);
    }

    #[test]
    fn a_legacy_client_is_never_shown_to_follow_up_tasks() {
        let shown = |text: &str| modern_capabilities(&raw(text)).map(|shown| shown.get().to_owned());
        assert_eq!(shown(r#"{"tasks":{},"roots":{}}"#).unwrap(), r#"{"roots":{}}"#);
        let extensions = r#"{"extensions":{"io.modelcontextprotocol/tasks":{},"x":{"n":1e400}}}"#;
        assert_eq!(shown(extensions).unwrap(), r#"{"extensions":{"x":{"n":1e400}}}"#);
        assert_eq!(shown("{}"), None);
        assert_eq!(shown("7"), None);
    }
}
