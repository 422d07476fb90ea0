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

    /// Makes everything that `approvals` has changed durable.
    ///
    /// # Errors
    /// [`CommitError`]; the change is then not durable and the store is poisoned or busy.
    pub async fn keep(&self, approvals: &mut Approvals) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        let mut empty = true;
        while let Some(effect) = approvals.poll_effect() {
            empty = false;
            match effect {
                approval::Effect::Put(key, value) => {
                    batch.put(&ApprovalKey(codec::encode(&key)), &Approval { value: codec::encode(&value) });
                }
                approval::Effect::Remove(key) => {
                    batch.delete::<Approval>(&ApprovalKey(codec::encode(&key)));
                }
            }
        }
        if empty { Ok(()) } else { self.0.commit(batch)?.await }
    }
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
