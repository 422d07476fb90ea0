//! What an endpoint says of itself: capabilities, name, instructions.
//!
//! The node advertises what some server behind it has and nothing else. An endpoint of one server says what that server
//! says, word for word.

use comity_protocol::{
    catalogue::{Catalogue, CatalogueEntry},
    ids::Kind,
    json::{self, RawObject},
};
use serde_json::{json, value::RawValue};

use crate::{input::TASKS_EXTENSION, world::gather::LIST_TTL_KEY};

/// How long a client may keep a list, in milliseconds, where no server behind it says less. Changes are announced, so
/// this only serves clients that do not listen.
const TTL_MS: u64 = 5_000;

/// What an endpoint says of itself.
#[derive(Debug)]
pub(super) struct About {
    pub(super) capabilities: Box<RawValue>,
    pub(super) info: Box<RawValue>,
    pub(super) instructions: Option<Box<RawValue>>,
    /// How long its lists may be kept: no longer than any server behind them allows.
    pub(super) ttl_ms: u64,
    /// Whether it is the node that speaks, and not one server.
    is_node: bool,
}

impl About {
    /// The node itself, in front of everything in `catalogue`.
    pub(super) fn of_node(catalogue: &Catalogue, instructions: Option<&str>) -> Self {
        Self {
            capabilities: capabilities(catalogue),
            info: json::to_raw(&node_info()),
            instructions: instructions.map(json::to_raw),
            ttl_ms: ttl_ms(catalogue),
            is_node: true,
        }
    }

    /// The one server that `catalogue` is of. One that may not be shown as a whole says no more than what is listed.
    pub(super) fn of_server(catalogue: &Catalogue) -> Self {
        let Some(server) = catalogue.of_kind(Kind::Server).first() else {
            return Self::of_node(catalogue, None);
        };
        let said = |key: &str| json::path(&server.object, &[key]).map(RawValue::to_owned);
        Self {
            capabilities: said("capabilities").unwrap_or_else(|| RawObject::new().to_raw()),
            info: said("serverInfo").unwrap_or_else(|| json::to_raw(&node_info())),
            instructions: said("instructions"),
            ttl_ms: ttl_ms(catalogue),
            is_node: false,
        }
    }

    /// The same for a client of 2026-07-28: whatever server answers with a task, the node follows it up.
    pub(super) fn modern_capabilities(&self) -> Box<RawValue> {
        let with_tasks = || {
            let mut capabilities = RawObject::parse(&self.capabilities).ok()?;
            let mut extensions = capabilities.get_object("extensions").ok()?.unwrap_or_default();
            if extensions.get(TASKS_EXTENSION).is_none() {
                extensions.set(TASKS_EXTENSION, RawObject::new().to_raw());
            }
            capabilities.set("extensions", extensions.to_raw());
            Some(capabilities.to_raw())
        };
        self.is_node.then(with_tasks).flatten().unwrap_or_else(|| self.capabilities.clone())
    }

    /// `_meta` of results that the node writes: who answers.
    pub(super) fn meta(&self) -> String {
        format!(r#"{{"io.modelcontextprotocol/serverInfo":{}}}"#, self.info.get())
    }
}

/// What some server behind the catalogue has. Lists of all kinds are kept by the node, which tells of their changes.
fn capabilities(catalogue: &Catalogue) -> Box<RawValue> {
    let servers = catalogue.of_kind(Kind::Server);
    let can = |path: &[&str]| servers.iter().any(|server| has(server, path));
    let some = |kind| !catalogue.of_kind(kind).is_empty();
    let mut all = json!({ "logging": {}, "tools": { "listChanged": true } });
    if some(Kind::Prompt) || can(&["prompts"]) {
        all["prompts"] = json!({ "listChanged": true });
    }
    if some(Kind::Resource) || some(Kind::Template) || can(&["resources"]) {
        all["resources"] = json!({ "listChanged": true });
        if can(&["resources", "subscribe"]) {
            all["resources"]["subscribe"] = json!(true);
        }
    }
    if can(&["completions"]) {
        all["completions"] = json!({});
    }
    json::to_raw(&all)
}

fn has(server: &CatalogueEntry, path: &[&str]) -> bool {
    let capability = json::path(&server.object, &["capabilities"]).and_then(|all| json::path(all, path));
    capability.is_some_and(|value| !matches!(value.get(), "false" | "null"))
}

fn ttl_ms(catalogue: &Catalogue) -> u64 {
    let said = |server: &CatalogueEntry| json::path(&server.object, &[LIST_TTL_KEY])?.get().parse().ok();
    catalogue.of_kind(Kind::Server).iter().filter_map(said).fold(TTL_MS, u64::min)
}

fn node_info() -> serde_json::Value {
    json!({ "name": "comity", "title": "Comity", "version": env!("CARGO_PKG_VERSION") })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use comity_protocol::{
        approval::Judgement,
        catalogue::{Offered, Origin, Pool},
        contract::Descriptor,
        ids::{CapabilityId, NodeId},
    };

    use super::*;

    fn server(name: &str, more: &str) -> Offered {
        let text = format!(r#"{{"name":"{name}",{more}}}"#);
        Offered {
            node: NodeId::from_bytes([1; 32]),
            capability: CapabilityId::of_server("acme.example".parse().unwrap(), name.parse().unwrap()),
            descriptor: Arc::new(Descriptor::parse(Kind::Server, &text).unwrap()),
            origin: Origin::ThisNode,
            pool: Pool::SameOrg,
            judgement: Judgement::Approved,
        }
    }

    #[test]
    fn the_node_advertises_what_some_server_has() {
        let about = |offers: Vec<Offered>| About::of_node(&Catalogue::build(offers), None);
        let nothing = about(vec![]);
        assert_eq!(nothing.capabilities.get(), r#"{"logging":{},"tools":{"listChanged":true}}"#);
        assert_eq!(nothing.ttl_ms, TTL_MS);
        let some = about(vec![
            server("a", r#""capabilities":{"resources":{"subscribe":true},"prompts":false},"listTtlMs":700"#),
            server("b", r#""capabilities":{"completions":{}},"listTtlMs":60000"#),
        ]);
        let said: serde_json::Value = serde_json::from_str(some.capabilities.get()).unwrap();
        let expected = json!({
            "logging": {},
            "tools": { "listChanged": true },
            "resources": { "listChanged": true, "subscribe": true },
            "completions": {},
        });
        assert_eq!((said, some.ttl_ms), (expected, 700));
    }

    #[test]
    fn one_server_speaks_for_itself() {
        let offer = server(
            "a",
            r#""capabilities":{"x-vendor":1e999},"serverInfo":{"name":"A","n":1.0},"instructions":"Be kind.""#,
        );
        let about = About::of_server(&Catalogue::passthrough([offer]));
        assert_eq!(about.capabilities.get(), r#"{"x-vendor":1e999}"#);
        assert_eq!(about.info.get(), r#"{"name":"A","n":1.0}"#);
        assert_eq!(about.instructions.unwrap().get(), r#""Be kind.""#);
    }
}
