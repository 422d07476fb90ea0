//! What the mesh and the operator's decisions keep in the store, and how a node finds it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use comity_protocol::advert::Sequence;
use comity_protocol::approval::{self, Approvals};
use comity_protocol::codec;
use comity_protocol::ids::{NodeId, OrgName, RootHash};
use comity_protocol::mesh::{MeshRecord, Restored};
use comity_protocol::time::Wall;
use comity_protocol::trust::{Anchors, RootChain};
use comity_store::record::OrgVersion;
use comity_store::records::{Advert, Approval, ApprovalKey, Own, Pin, PinSource, SignedRoot};
use comity_store::{Batch, CommitError, ReadError, Store};

use crate::clock::Clock;
use crate::mesh::persist::{PersistError, Persister, Persisting};

/// Most bytes of one stored approval record.
const APPROVAL_BYTES_MAX: usize = 16 * 1024;

/// Why what was kept could not be found again. The node stops on it: a default in its place would forget a decision.
#[derive(Debug, thiserror::Error)]
pub enum KeepingError {
    /// The store does not read.
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
    /// The store does not write.
    #[error("the store cannot be written")]
    Commit(#[from] CommitError),
    /// A record reads as bytes and not as what it should be.
    #[error("the stored {what} cannot be understood: {detail}")]
    Record {
        /// Which kind of record.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
}

fn bad(what: &'static str, detail: impl ToString) -> KeepingError {
    KeepingError::Record { what, detail: detail.to_string() }
}

/// The mesh's records, in the store.
#[derive(Clone, Debug)]
pub struct MeshKeeping {
    store: Store,
    clock: Clock,
}

impl MeshKeeping {
    /// Over `store`.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// What an earlier run kept.
    ///
    /// # Errors
    /// [`KeepingError`].
    pub fn restore(&self) -> Result<Restored, KeepingError> {
        let own = self.store.own().current()?;
        let mut sequences = BTreeMap::new();
        for record in self.store.sequences().iter() {
            let (node, sequence) = record?;
            let epoch = u32::try_from(sequence.epoch).map_err(|error| bad("sequence", error))?;
            sequences.insert(NodeId::from_bytes(node), Sequence { epoch, seq: sequence.seq });
        }
        let adverts = self.store.adverts().iter().map(|record| Ok(record?.1.envelope));
        Ok(Restored {
            own: Sequence {
                epoch: u32::try_from(own.epoch).map_err(|error| bad("sequence", error))?,
                seq: own.seq,
            },
            sequences,
            adverts: adverts.collect::<Result<_, ReadError>>()?,
        })
    }

    fn add(&self, batch: &mut Batch, record: MeshRecord) -> Result<(), PersistError> {
        match record {
            MeshRecord::OwnSequence(sequence) => {
                let own = Own { epoch: u64::from(sequence.epoch), seq: sequence.seq };
                batch.put(&Own::KEY.to_owned(), &own);
            }
            MeshRecord::Advert { node, sequence, bytes } => {
                let key = *node.as_bytes();
                let received_at_ms = self.clock.now().wall.as_millis();
                batch.put(&key, &Advert { received_at_ms, envelope: bytes.to_vec() });
                let sequence =
                    comity_store::records::Sequence { epoch: u64::from(sequence.epoch), seq: sequence.seq };
                self.store.sequences().advance(batch, &key, sequence)?;
            }
            MeshRecord::Forget(node) => {
                batch.delete::<Advert>(node.as_bytes());
            }
            MeshRecord::Roots { org, bytes } => {
                let version = RootChain::decode(&bytes)?.len() as u64;
                let key = OrgVersion { org: org.as_str().to_owned(), version };
                batch.put(&key, &SignedRoot { envelope: bytes });
            }
        }
        Ok(())
    }

    /// In batches of a size that the store takes, one after the other; the last resolves after the others, because
    /// groups are committed in order.
    fn commit(&self, records: Vec<MeshRecord>) -> Result<Vec<comity_store::Ticket>, PersistError> {
        /// Two operations a record, with room below the store's own bounds.
        const RECORDS_PER_BATCH: usize = 64;
        let mut tickets = Vec::new();
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let mut batch = Batch::new();
            for record in records.by_ref().take(RECORDS_PER_BATCH) {
                self.add(&mut batch, record)?;
            }
            tickets.push(self.store.commit_blocking(batch)?);
        }
        Ok(tickets)
    }
}

impl Persister for MeshKeeping {
    fn persist(&self, records: Vec<MeshRecord>) -> Persisting {
        let keeping = self.clone();
        Box::pin(async move {
            let tickets = tokio::task::spawn_blocking(move || keeping.commit(records)).await??;
            for ticket in tickets {
                ticket.await?;
            }
            Ok(())
        })
    }
}

/// The operator's approvals, in the store.
#[derive(Clone, Debug)]
pub struct ApprovalKeeping(Store);

impl ApprovalKeeping {
    /// Over `store`.
    pub fn new(store: Store) -> Self {
        Self(store)
    }

    /// What was approved before.
    ///
    /// # Errors
    /// [`KeepingError`].
    pub fn restore(&self) -> Result<Approvals, KeepingError> {
        let read = |record: Result<(ApprovalKey, Approval), ReadError>| {
            let (key, value) = record?;
            let understood = |error: codec::CodecError| bad("approval", error);
            let key = codec::decode(&key.0, APPROVAL_BYTES_MAX).map_err(understood)?;
            let value = codec::decode(&value.value, APPROVAL_BYTES_MAX).map_err(understood)?;
            Ok((key, value))
        };
        let records = self.0.approvals().iter().map(read).collect::<Result<Vec<_>, KeepingError>>()?;
        Approvals::restore(records).map_err(|error| bad("approvals", error))
    }

    /// Makes everything that `approvals` has changed durable, in batches of a size that the store takes: an approved org
    /// may come with thousands of tools at once.
    ///
    /// # Errors
    /// [`CommitError`]; the change, or its later part, is then not durable and the store is poisoned or busy.
    pub async fn keep(&self, approvals: &mut Approvals) -> Result<(), CommitError> {
        while let Some(batch) = next_batch(approvals) {
            self.0.commit(batch)?.await?;
        }
        Ok(())
    }
}

/// The next changes; a record has some 600 bytes at most, so that a batch stays below the store's bound on bytes too.
fn next_batch(approvals: &mut Approvals) -> Option<Batch> {
    const RECORDS_PER_BATCH: usize = 512;
    let mut effects = std::iter::from_fn(|| approvals.poll_effect()).take(RECORDS_PER_BATCH).peekable();
    effects.peek()?;
    let mut batch = Batch::new();
    for effect in effects {
        match effect {
            approval::Effect::Put(key, value) => {
                batch.put(&ApprovalKey(codec::encode(&key)), &Approval { value: codec::encode(&value) });
            }
            approval::Effect::Remove(key) => {
                batch.delete::<Approval>(&ApprovalKey(codec::encode(&key)));
            }
        }
    }
    Some(batch)
}

/// Pins that were made by joining or on the command line, beside those of the configuration.
#[derive(Clone, Debug)]
pub struct PinKeeping(Store);

impl PinKeeping {
    /// Over `store`.
    pub fn new(store: Store) -> Self {
        Self(store)
    }

    /// Every kept pin.
    ///
    /// # Errors
    /// [`KeepingError`].
    pub fn all(&self) -> Result<Vec<(OrgName, RootHash, PinSource)>, KeepingError> {
        let read = |record: Result<(String, Pin), ReadError>| {
            let (org, pin) = record?;
            let org = org.parse().map_err(|error| bad("pin", error))?;
            Ok((org, RootHash::from_bytes(pin.root), pin.source))
        };
        self.0.pins().iter().map(read).collect()
    }

    /// Keeps a pin.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn put(
        &self,
        org: &OrgName,
        root: RootHash,
        source: PinSource,
        now: Wall,
    ) -> Result<(), CommitError> {
        let pin = Pin { root: *root.as_bytes(), source, added_at_ms: now.as_millis() };
        self.0.pins().put(&org.as_str().to_owned(), &pin)?.await
    }

    /// Forgets a pin.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn remove(&self, org: &OrgName) -> Result<(), CommitError> {
        self.0.pins().delete(&org.as_str().to_owned())?.await
    }

    /// Teaches `anchors` the newest kept root of each pinned org.
    ///
    /// # Errors
    /// [`KeepingError`].
    pub fn teach_roots(&self, anchors: &mut Anchors) -> Result<(), KeepingError> {
        let orgs: Vec<OrgName> = anchors.orgs().keys().cloned().collect();
        for org in orgs {
            if let Some((_, root)) = self.0.roots().latest(org.as_str())? {
                let chain = RootChain::decode(&root.envelope).map_err(|error| bad("root", error))?;
                // A chain from before the pin was changed teaches nothing, and is not wrong for that.
                let _ = anchors.learn(chain);
            }
        }
        Ok(())
    }
}

/// Shared by everything that keeps.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// The mesh's records.
    pub mesh: Arc<MeshKeeping>,
    /// Approvals.
    pub approvals: ApprovalKeeping,
    /// Pins.
    pub pins: PinKeeping,
    /// The store itself.
    pub store: Store,
}

impl Keeping {
    /// Over `store`.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self {
            mesh: Arc::new(MeshKeeping::new(store.clone(), clock)),
            approvals: ApprovalKeeping::new(store.clone()),
            pins: PinKeeping::new(store.clone()),
            store,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use comity_protocol::approval::{Judgement, Scope};
    use comity_protocol::ids::{CapabilityId, ContractDigest, Kind};
    use comity_store::Options;

    #[tokio::test]
    async fn an_approved_org_with_thousands_of_tools_is_kept_and_found_again() {
        const TOOLS: u32 = 3000;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store"), Options::new([1; 32], 0)).unwrap().0;
        let keeping = ApprovalKeeping::new(store.clone());
        let (mut approvals, now) = (Approvals::new(), Wall::from_millis(1));
        let org: OrgName = "umbrella.example".parse().unwrap();
        approvals.approve(Scope::Org(org.clone()), now).unwrap();
        let capability = |n: u32| CapabilityId {
            org: org.clone(),
            server: "s".parse().unwrap(),
            kind: Kind::Tool,
            name: format!("tool{n}").parse().unwrap(),
        };
        let contract = ContractDigest::of(b"c");
        for n in 0..TOOLS {
            assert!(approvals.judge(&capability(n), contract, false, now).is_approved());
        }
        keeping.keep(&mut approvals).await.unwrap();
        let kept = keeping.restore().unwrap();
        assert_eq!(kept.records().count(), 1 + TOOLS as usize);
        let changed = kept.peek(&capability(TOOLS - 1), ContractDigest::of(b"d"), false);
        assert!(matches!(changed, Judgement::Quarantined { .. }), "{changed:?}");
        store.close().unwrap();
    }
}
