//! How what the mesh must not forget becomes durable.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use comity_protocol::advert::Sequence;
use comity_protocol::ids::{NodeId, OrgName};
use comity_protocol::mesh::{MeshRecord, Restored};

/// Why nothing more can be kept. The mesh stops on it: a node that forgets its sequence would contradict itself.
pub type PersistError = Box<dyn Error + Send + Sync>;

/// What [`Persister::persist`] gives: resolved once the records are durable.
pub type Persisting = Pin<Box<dyn Future<Output = Result<(), PersistError>> + Send>>;

/// Keeps the mesh's records. The node's is over the store; tests have one in memory.
pub trait Persister: Send + Sync + 'static {
    /// Makes `records` durable, all in one group. The mesh hands over one group at a time.
    fn persist(&self, records: Vec<MeshRecord>) -> Persisting;
}

/// Records that wait for the group before them to be durable. A newer record replaces an older one of the same thing,
/// which bounds this by the size of the directory.
#[derive(Debug, Default)]
pub(super) struct Backlog(BTreeMap<Thing, MeshRecord>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    OwnSequence,
    /// An advert and the word that it has ended are two things: the sequence in the advert outlives it, so both are
    /// kept, in this order.
    Advert(NodeId),
    Ended(NodeId),
    Roots(OrgName),
}

impl Backlog {
    pub(super) fn push(&mut self, record: MeshRecord) {
        let thing = match &record {
            MeshRecord::OwnSequence(_) => Thing::OwnSequence,
            MeshRecord::Advert { node, .. } => {
                self.0.remove(&Thing::Ended(*node));
                Thing::Advert(*node)
            }
            MeshRecord::Forget(node) => Thing::Ended(*node),
            MeshRecord::Roots { org, .. } => Thing::Roots(org.clone()),
        };
        self.0.insert(thing, record);
    }

    /// Takes what waits, and the own sequence among it.
    pub(super) fn take(&mut self) -> Option<(Vec<MeshRecord>, Option<Sequence>)> {
        if self.0.is_empty() {
            return None;
        }
        let own = match self.0.get(&Thing::OwnSequence) {
            Some(MeshRecord::OwnSequence(sequence)) => Some(*sequence),
            _ => None,
        };
        Some((std::mem::take(&mut self.0).into_values().collect(), own))
    }
}

/// A persister in memory, for tests: a restart is a new mesh with what [`MemoryPersister::restored`] gives.
#[derive(Clone, Debug, Default)]
pub struct MemoryPersister(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    own: Sequence,
    sequences: BTreeMap<NodeId, Sequence>,
    adverts: BTreeMap<NodeId, Vec<u8>>,
    roots: BTreeMap<OrgName, Vec<u8>>,
}

impl MemoryPersister {
    /// What a mesh that restarts would find.
    #[must_use]
    pub fn restored(&self) -> Restored {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Restored {
            own: kept.own,
            sequences: kept.sequences.clone(),
            adverts: kept.adverts.values().cloned().collect(),
        }
    }

    fn keep(&self, record: MeshRecord) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match record {
            MeshRecord::OwnSequence(sequence) => kept.own = sequence,
            MeshRecord::Advert { node, sequence, bytes } => {
                kept.sequences.insert(node, sequence);
                kept.adverts.insert(node, bytes.to_vec());
            }
            MeshRecord::Forget(node) => {
                kept.adverts.remove(&node);
            }
            MeshRecord::Roots { org, bytes } => {
                kept.roots.insert(org, bytes);
            }
        }
    }
}

impl Persister for MemoryPersister {
    fn persist(&self, records: Vec<MeshRecord>) -> Persisting {
        records.into_iter().for_each(|record| self.keep(record));
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn advert(byte: u8, seq: u64) -> MeshRecord {
        MeshRecord::Advert {
            node: node(byte),
            sequence: Sequence { epoch: 1, seq },
            bytes: Arc::from([byte]),
        }
    }

    #[test]
    fn newer_records_replace_older_ones_but_a_sequence_is_never_lost() {
        let mut backlog = Backlog::default();
        assert!(backlog.take().is_none());
        for record in [
            advert(1, 1),
            advert(2, 5),
            advert(1, 2),
            MeshRecord::Forget(node(2)),
            MeshRecord::Forget(node(1)),
            advert(1, 3),
        ] {
            backlog.push(record);
        }
        let own = Sequence { epoch: 1, seq: 9 };
        backlog.push(MeshRecord::OwnSequence(own));
        let (records, sequence) = backlog.take().unwrap();
        assert_eq!(sequence, Some(own));
        let memory = MemoryPersister::default();
        records.into_iter().for_each(|record| memory.keep(record));
        let restored = memory.restored();
        assert_eq!(restored.adverts, [vec![1]]);
        assert_eq!(restored.sequences[&node(1)].seq, 3);
        assert_eq!(restored.sequences[&node(2)].seq, 5);
        assert!(backlog.take().is_none());
    }
}
