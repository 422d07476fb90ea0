//! The invites that this node has issued, in memory and in the store: what the [`Ledger`] changes is durable before
//! anybody builds on it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use comity_protocol::codec;
use comity_protocol::enrol::{IssuedInvite, Ledger, LedgerEffect, LedgerError, RefusalCode, Terms};
use comity_protocol::ids::NodeId;
use comity_protocol::invite::{InviteId, Token};
use comity_protocol::time::Wall;
use comity_store::records::Invite;
use comity_store::{Batch, CommitError, ReadError, Store, Ticket};

use crate::keeping::KeepingError;

/// Most bytes of one stored invite.
const INVITE_BYTES_MAX: usize = 4096;

/// Why an invite was not issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    /// The ledger says no.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It could not be made durable.
    #[error("the invite cannot be kept")]
    Commit(#[from] CommitError),
}

/// The ledger and its store. One for each node; shared by its tasks.
#[derive(Debug)]
pub(crate) struct Book {
    store: Store,
    ledger: Mutex<Ledger>,
}

impl Book {
    /// The invites that `store` holds.
    ///
    /// # Errors
    /// [`KeepingError`].
    pub(crate) fn restore(store: Store) -> Result<Self, KeepingError> {
        let read = |record: Result<(_, Invite), ReadError>| {
            let bad =
                |error: codec::CodecError| KeepingError::Record { what: "invite", detail: error.to_string() };
            codec::decode::<IssuedInvite>(&record?.1.value, INVITE_BYTES_MAX).map_err(bad)
        };
        let invites = store.invites().iter().map(read).collect::<Result<Vec<_>, KeepingError>>()?;
        Ok(Self { ledger: Mutex::new(Ledger::restore(invites)), store })
    }

    /// Issues an invite; when this returns it is durable.
    ///
    /// # Errors
    /// [`IssueError`].
    pub(crate) async fn issue(&self, terms: Terms, token: Token, now: Wall) -> Result<InviteId, IssueError> {
        let (id, ticket) = self.change(|ledger| ledger.issue(terms, token, now))?;
        ticket.await?;
        Ok(id?)
    }

    /// The invite, if `node` may use it now.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) fn find(&self, id: &InviteId, node: &NodeId, now: Wall) -> Result<IssuedInvite, RefusalCode> {
        self.lock().find(id, node, now).cloned()
    }

    /// What an invite allows, whatever became of it.
    pub(crate) fn terms(&self, id: &InviteId) -> Option<Terms> {
        self.lock().invites().find(|(known, _)| *known == id).map(|(_, invite)| invite.terms.clone())
    }

    /// Uses an invite up for `node`; when this returns that is durable. Of two that come at once one is first, because
    /// the ledger is changed under a lock.
    ///
    /// # Errors
    /// Why `node` may not use it; [`CommitError`] when the store could not keep it, and nothing may be granted then.
    pub(crate) async fn consume(
        &self,
        id: &InviteId,
        node: NodeId,
        now: Wall,
    ) -> Result<Result<(), RefusalCode>, CommitError> {
        let (consumed, ticket) = self.change(|ledger| ledger.consume(id, node, now))?;
        ticket.await?;
        Ok(consumed)
    }

    /// Counts a wrong proof; when this returns that is durable.
    ///
    /// # Errors
    /// [`CommitError`].
    pub(crate) async fn count_failure(&self, id: &InviteId, now: Wall) -> Result<(), CommitError> {
        let ((), ticket) = self.change(|ledger| ledger.count_failure(id, now))?;
        ticket.await
    }

    /// Makes an open invite void; when this returns that is durable. Returns whether it was open.
    ///
    /// # Errors
    /// [`CommitError`].
    pub(crate) async fn revoke(&self, id: &InviteId, now: Wall) -> Result<bool, CommitError> {
        let (open, ticket) = self.change(|ledger| ledger.revoke(id, now))?;
        ticket.await?;
        Ok(open)
    }

    /// Changes the ledger and hands the change to the store, in one order for both. A change that the store does not
    /// take has not happened.
    fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> Result<(T, Ticket), CommitError> {
        let mut ledger = self.lock();
        let mut next = ledger.clone();
        let outcome = change(&mut next);
        let mut batch = Batch::new();
        while let Some(effect) = next.poll_effect() {
            match effect {
                LedgerEffect::Put(id, invite) => {
                    batch.put(id.as_bytes(), &Invite { value: codec::encode(&invite) });
                }
                LedgerEffect::Remove(id) => {
                    batch.delete::<Invite>(id.as_bytes());
                }
            }
        }
        let ticket = self.store.commit(batch)?;
        *ledger = next;
        Ok((outcome, ticket))
    }

    /// A panic under the lock leaves the ledger as it was before: a change replaces it at its end.
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
