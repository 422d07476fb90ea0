//! Where a server asked for input, so that the retry reaches the same one.
//!
//! A 2026-07-28 server that answers `input_required` may keep what it needs in `requestState`, sealed with a key of its
//! own, or in itself. Of several nodes that offer the tool only the one that asked can go on. The state itself is the
//! client's and the server's: nothing is written into it, so what it belongs to is remembered here.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use comity_protocol::ids::NodeId;
use comity_protocol::json;
use comity_protocol::time::Mono;
use serde_json::value::RawValue;

/// Questions whose node is remembered; the oldest gives way. A retry whose node is forgotten is routed like a new call.
pub(super) const PINS_MAX: usize = 4096;

/// How long each is remembered.
pub(super) const PIN_LIFE: Duration = Duration::from_secs(60 * 60);

/// What a retry has in common with the question that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PinKey([u8; 32]);

impl PinKey {
    /// The key of a question with this `requestState`. One without is known by the arguments, which the retry repeats.
    pub(super) fn of(principal: &str, tool: &str, state: Option<&RawValue>, params: &RawValue) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("comity 2026 input pin 1");
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        part(principal.as_bytes());
        part(tool.as_bytes());
        match state.and_then(json::as_str) {
            Some(state) => part(state.as_bytes()),
            None => {
                let arguments = json::path(params, &["arguments"]).and_then(|raw| json::canonical(raw).ok());
                part(b"");
                part(&arguments.unwrap_or_default());
            }
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The key of a retry; `None` for a call that is none.
    pub(super) fn of_retry(principal: &str, tool: &str, params: &RawValue) -> Option<Self> {
        // Hardly any call is one: a search is much cheaper than reading them all.
        let text = params.get().as_bytes();
        let names = |key: &str| memchr::memmem::find(text, key.as_bytes()).is_some();
        if !names("\"requestState\"") && !names("\"inputResponses\"") {
            return None;
        }
        let state = json::path(params, &["requestState"]);
        let is_retry = state.is_some() || json::path(params, &["inputResponses"]).is_some();
        is_retry.then(|| Self::of(principal, tool, state, params))
    }
}

/// The nodes that asked.
#[derive(Debug, Default)]
pub(super) struct Pins {
    nodes: HashMap<PinKey, (NodeId, Mono)>,
    /// In the order in which they came; a key that came again is in it twice.
    order: VecDeque<(PinKey, Mono)>,
}

impl Pins {
    /// Remembers who asked.
    pub(super) fn note(&mut self, key: PinKey, node: NodeId, now: Mono) {
        self.forget(now);
        self.nodes.insert(key, (node, now));
        self.order.push_back((key, now));
    }

    /// Who asked.
    pub(super) fn get(&self, key: &PinKey, now: Mono) -> Option<NodeId> {
        self.nodes.get(key).filter(|(_, noted)| now.since(*noted) < PIN_LIFE).map(|(node, _)| *node)
    }

    fn forget(&mut self, now: Mono) {
        while let Some((key, noted)) = self.order.front().copied() {
            if self.order.len() < PINS_MAX && now.since(noted) < PIN_LIFE {
                return;
            }
            self.order.pop_front();
            if self.nodes.get(&key).is_some_and(|(_, last)| *last == noted) {
                self.nodes.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn key(principal: &str, params: &str) -> Option<PinKey> {
        PinKey::of_retry(principal, "t", &raw(params))
    }

    #[test]
    fn a_retry_is_known_by_its_state_or_else_by_its_arguments() {
        let asked = |state: Option<&str>, params: &str| {
            let state = state.map(raw);
            PinKey::of("ana", "t", state.as_deref(), &raw(params))
        };
        let with_state = r#"{"name":"x","requestState":"s\u00e9","inputResponses":{}}"#;
        assert_eq!(key("ana", with_state), Some(asked(Some("\"sé\""), "{}")), "however it is escaped");
        assert_ne!(key("ben", with_state), key("ana", with_state));
        let without = r#"{"arguments":{"a":1, "b":2},"inputResponses":{}}"#;
        assert_eq!(key("ana", without), Some(asked(None, r#"{"arguments":{"b":2,"a":1}}"#)));
        assert_ne!(key("ana", without), Some(asked(None, r#"{"arguments":{}}"#)));
        assert_eq!(key("ana", r#"{"arguments":{"requestState":1}}"#), None, "that is an argument");
        assert_eq!(key("ana", "{}"), None);
    }

    #[test]
    fn nodes_are_remembered_for_a_while_and_in_bounded_number() {
        let (mut pins, now) = (Pins::default(), Mono::from_micros(1));
        let node = NodeId::from_bytes([1; 32]);
        let numbered = |n: usize| PinKey::of("ana", "t", Some(&raw(&format!("\"{n}\""))), &raw("{}"));
        for n in 0..2 * PINS_MAX {
            pins.note(numbered(n), node, now);
            pins.note(numbered(n), node, now);
        }
        assert!(pins.nodes.len() <= PINS_MAX && pins.order.len() <= PINS_MAX);
        let last = numbered(2 * PINS_MAX - 1);
        assert_eq!((pins.get(&last, now), pins.get(&numbered(0), now)), (Some(node), None));
        assert_eq!(pins.get(&last, now + PIN_LIFE), None);
        pins.note(numbered(0), node, now + PIN_LIFE);
        assert_eq!(pins.nodes.len(), 1);
    }
}
