//! Tasks: the extension `io.modelcontextprotocol/tasks` of 2026-07-28, over the mesh.
//!
//! A server may answer a call with a task, which the client follows up by its id. Ids are the servers' own: two servers
//! may use the same, and nothing in one says where its task is. So each node that passes a task on gives it an id of its
//! own, which names the way back and is sealed with the node's key: the node that runs the call binds it to the peer and
//! principal that called, the client's node to its client's principal.
//!
//! A sealed id is all there is: no table that could be lost, fill up or fall behind. It is good for as long as the
//! server keeps its task, and outlives a restart of either node.

use comity_protocol::call::methods::FOLLOW_UPS;
use comity_protocol::ids::{CapabilityId, NodeId};
use comity_protocol::json::{self, RawObject};
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};
use serde_json::value::RawValue;
use subtle::ConstantTimeEq;

/// Bytes of an id that is read; ours are a few hundred.
const ID_BYTES_MAX: usize = 4096;

/// What a sealed id begins with.
const PREFIX: &str = "comity-task.";

/// Bytes of the seal.
const SEAL_BYTES: usize = 16;

const KEY: &str = "taskId";

/// Whether a request follows a task up.
pub(super) fn is_follow_up(method: &str) -> bool {
    FOLLOW_UPS.contains(&method)
}

/// Whether a result is a task.
pub(super) fn is_task(result: &RawValue) -> bool {
    super::rounds::result_type(result).as_deref() == Some("task")
}

/// Where a task is, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct TaskRef {
    /// Who may follow it up: a principal here, or one of a peer.
    #[n(0)]
    pub(super) holder: String,
    /// The node that ran the call.
    #[n(1)]
    pub(super) executor: NodeId,
    /// What was called.
    #[n(2)]
    pub(super) capability: CapabilityId,
    /// The id under which the next one on the way knows it.
    #[n(3)]
    pub(super) task: String,
}

/// Makes and reads ids.
pub(super) struct TaskIds([u8; 32]);

impl TaskIds {
    /// The ids of the node with this key.
    pub(super) fn new(key: &SigningKey) -> Self {
        Self(blake3::derive_key("comity 2026 task ids 1", key.as_bytes()))
    }

    /// The id that leads to `task`.
    pub(super) fn seal(&self, task: &TaskRef) -> String {
        let mut bytes = minicbor::to_vec(task).expect("writing to memory does not fail");
        let seal = self.seal_of(&bytes);
        bytes.extend_from_slice(&seal);
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// Where the task of this id is; `None` for an id that is not ours or not `holder`'s.
    pub(super) fn open(&self, id: &str, holder: &str) -> Option<TaskRef> {
        let text = id.strip_prefix(PREFIX).filter(|text| text.len() <= ID_BYTES_MAX)?;
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (bytes, seal) = bytes.split_last_chunk::<SEAL_BYTES>()?;
        if !bool::from(self.seal_of(bytes).ct_eq(seal)) {
            return None;
        }
        minicbor::decode(bytes).ok().filter(|task: &TaskRef| task.holder == holder)
    }

    fn seal_of(&self, bytes: &[u8]) -> [u8; SEAL_BYTES] {
        let hash = blake3::keyed_hash(&self.0, bytes);
        *hash.as_bytes().first_chunk().expect("a hash is longer than a seal")
    }
}

/// The id that a result gives its task.
pub(super) fn id_of(raw: &RawValue) -> Option<String> {
    json::path(raw, &[KEY]).and_then(json::as_str).map(std::borrow::Cow::into_owned)
}

/// The same with another id; every other byte stays.
pub(super) fn with_id(raw: &RawValue, id: &str) -> Box<RawValue> {
    let Ok(mut object) = RawObject::parse(raw) else { return raw.to_owned() };
    object.set_str(KEY, id);
    object.to_raw()
}

#[cfg(test)]
mod tests {
    use comity_protocol::ids::Kind;

    use super::*;

    fn task(holder: &str) -> TaskRef {
        TaskRef {
            holder: holder.into(),
            executor: NodeId::from_bytes([3; 32]),
            capability: CapabilityId {
                org: "acme.example".parse().unwrap(),
                server: "jobs".parse().unwrap(),
                kind: Kind::Tool,
                name: "slow".parse().unwrap(),
            },
            task: "task-1".into(),
        }
    }

    fn ids(seed: u8) -> TaskIds {
        TaskIds::new(&SigningKey::from_bytes(&[seed; 32]))
    }

    #[test]
    fn an_id_leads_back_for_its_holder_and_nobody_else_also_after_a_restart() {
        let id = ids(1).seal(&task("ana"));
        assert_eq!(ids(1).open(&id, "ana"), Some(task("ana")));
        assert_eq!(ids(1).open(&id, "ben"), None);
        assert_eq!(ids(2).open(&id, "ana"), None, "another node's");
        assert!(hyper::header::HeaderValue::from_str(&id).is_ok(), "it travels in `Mcp-Name`");
    }

    #[test]
    fn whatever_is_changed_in_an_id_makes_it_nobodys() {
        let id = ids(1).seal(&task("ana"));
        for at in 0..id.len() {
            let other = if id.as_bytes()[at] == b'A' { "B" } else { "A" };
            let mut forged = id.clone();
            forged.replace_range(at..=at, other);
            // The last letter has bits that mean nothing; strict decoding refuses them too.
            assert_eq!(ids(1).open(&forged, "ana"), None, "{at}");
        }
        for nonsense in ["", PREFIX, "comity-task.AAAA", "task-1"] {
            assert_eq!(ids(1).open(nonsense, "ana"), None);
        }
        assert_eq!(ids(1).open(&format!("{PREFIX}{}", "A".repeat(1 << 20)), "ana"), None);
    }

    #[test]
    fn only_the_id_changes_in_a_result() {
        let raw = RawValue::from_string(r#"{"resultType":"task", "taskId":"t","ttlMs":1.0}"#.into()).unwrap();
        assert_eq!((is_task(&raw), id_of(&raw).as_deref()), (true, Some("t")));
        assert_eq!(with_id(&raw, "x").get(), r#"{"resultType":"task","taskId":"x","ttlMs":1.0}"#);
    }
}
