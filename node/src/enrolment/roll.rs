//! The memberships that this node has issued for its org. Each is durable before it leaves: an org must be able to say
//! whom it has admitted, and to revoke it by its serial.

use std::collections::BTreeMap;
use std::time::Duration;

use comity_protocol::geo::CountrySet;
use comity_protocol::ids::{MeshName, NodeId};
use comity_protocol::time::Wall;
use comity_protocol::trust::{Membership, Unverified, Verified};
use comity_store::records::Issued;
use comity_store::{Batch, CommitError, ReadError, Store};
use tokio::sync::Mutex;

use crate::keeping::KeepingError;
use crate::org::{Issuer, OrgError};

/// Memberships that hold at once; full means that nothing is issued until some have ended. A member renews twice a week.
pub(crate) const ISSUED_MAX: usize = 32 * 1024;

/// A member that asks again within this time is given what it was given before: an answer may have been lost, and no
/// member can make its issuer sign and write without end.
pub(crate) const RENEWAL_GAP: Duration = Duration::from_secs(60 * 60);

/// Records that have ended and are deleted together with a new one.
const SWEEP_MAX: usize = 64;

/// Why a membership was not issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RollError {
    /// It could not be signed.
    #[error(transparent)]
    Org(#[from] OrgError),
    /// It could not be made durable.
    #[error("the membership cannot be kept")]
    Commit(#[from] CommitError),
    /// There are too many.
    #[error("{ISSUED_MAX} memberships hold at once already")]
    Full,
}

/// Every membership that was issued here and holds, by its serial.
#[derive(Debug)]
pub(crate) struct Roll {
    store: Store,
    held: Mutex<BTreeMap<u64, Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    claims: Membership,
    bytes: Vec<u8>,
}

impl Roll {
    /// The memberships that `store` holds.
    ///
    /// # Errors
    /// [`KeepingError`].
    pub(crate) fn restore(store: Store) -> Result<Self, KeepingError> {
        let read = |record: Result<(u64, Issued), ReadError>| {
            let (serial, Issued { certificate: bytes }) = record?;
            let claims = Unverified::<Membership>::decode(&bytes).map_err(|error| KeepingError::Record {
                what: "issued membership",
                detail: error.to_string(),
            })?;
            Ok((serial, Entry { claims: claims.claimed().clone(), bytes }))
        };
        let held = store.issued().iter().map(read).collect::<Result<_, KeepingError>>()?;
        Ok(Self { store, held: Mutex::new(held) })
    }

    /// Admits a node anew; when this returns the membership is durable.
    ///
    /// # Errors
    /// [`RollError`].
    pub(crate) async fn admit(
        &self,
        issuer: &Issuer,
        mesh: &MeshName,
        node: NodeId,
        places: CountrySet,
        now: Wall,
    ) -> Result<Verified<Membership>, RollError> {
        let membership = issuer.admit(mesh, node, places, now)?;
        self.keep(&membership, now).await?;
        Ok(membership)
    }

    /// Extends a membership, epoch and places unchanged; when this returns the next one is durable.
    ///
    /// # Errors
    /// [`RollError`].
    pub(crate) async fn renew(
        &self,
        issuer: &Issuer,
        mesh: &MeshName,
        old: &Membership,
        now: Wall,
    ) -> Result<Vec<u8>, RollError> {
        if let Some(bytes) = self.issued_lately(old, now).await {
            return Ok(bytes);
        }
        let membership = issuer.renew(mesh, old, now)?;
        self.keep(&membership, now).await?;
        Ok(membership.bytes().to_vec())
    }

    async fn issued_lately(&self, old: &Membership, now: Wall) -> Option<Vec<u8>> {
        let held = self.held.lock().await;
        let follows = |entry: &&Entry| {
            let Membership { node, epoch, locations_max, expires, not_before, .. } = &entry.claims;
            (node, epoch, locations_max) == (&old.node, &old.epoch, &old.locations_max)
                && *expires > old.expires
                && now.since(*not_before) < RENEWAL_GAP
        };
        held.values().find(follows).map(|entry| entry.bytes.clone())
    }

    /// Writes the membership down, and forgets some that have ended.
    async fn keep(&self, membership: &Verified<Membership>, now: Wall) -> Result<(), RollError> {
        let mut held = self.held.lock().await;
        let past = |(serial, entry): (&u64, &Entry)| (entry.claims.expires <= now).then_some(*serial);
        let past: Vec<u64> = held.iter().filter_map(past).take(SWEEP_MAX).collect();
        if held.len() - past.len() >= ISSUED_MAX {
            return Err(RollError::Full);
        }
        let (serial, bytes) = (membership.serial, membership.bytes().to_vec());
        let mut batch = Batch::new();
        for serial in &past {
            batch.delete::<Issued>(serial);
        }
        // Two of one serial would be revoked together; the second is not issued.
        batch.expect::<Issued>(&serial, None).put(&serial, &Issued { certificate: bytes.clone() });
        self.store.commit(batch)?.await?;
        held.retain(|serial, _| !past.contains(serial));
        held.insert(serial, Entry { claims: (**membership).clone(), bytes });
        Ok(())
    }
}
