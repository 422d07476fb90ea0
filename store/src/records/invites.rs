//! `invites`: one-time tokens, by their hash. A token works once even when two machines present it at the
//! same moment.

use minicbor::{Decode, Encode};

use super::{Hash, UpdateError, first_version};
use crate::record::Table;
use crate::store::ReadError;
use crate::{Batch, CommitError, Ticket, Tree};

/// What a one-time token allows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Invite {
    /// To do what.
    #[n(0)]
    pub kind: InviteKind,
    /// For which org.
    #[n(1)]
    pub org: String,
    /// Until when, in milliseconds since the Unix epoch; not at or after it.
    #[n(2)]
    pub expires_at_ms: u64,
    /// Who used it up.
    #[n(3)]
    pub used_by: Option<String>,
}

/// What an invite is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum InviteKind {
    /// A node joins the org.
    #[n(0)]
    Enrol,
    /// Another org federates with it.
    #[n(1)]
    Federate,
}

/// Why a token was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// No such token was issued here, or it was cleared away.
    #[error("the invite is not known here")]
    Unknown,
    /// Too late.
    #[error("the invite has expired")]
    Expired,
    /// Somebody was faster.
    #[error("the invite was already used by {by}")]
    Used {
        /// Who.
        by: String,
    },
    /// The store could not say or could not write.
    #[error(transparent)]
    Store(#[from] UpdateError),
}

impl From<ReadError> for RedeemError {
    fn from(error: ReadError) -> Self {
        RedeemError::Store(error.into())
    }
}

impl From<CommitError> for RedeemError {
    fn from(error: CommitError) -> Self {
        RedeemError::Store(error.into())
    }
}

first_version!(Invite, Tree::Invites, Hash);

impl Table<'_, Invite> {
    /// Uses up the token, together with `batch` (what the token was for: nothing of it happens otherwise).
    ///
    /// The token is used only once the ticket resolves to `Ok`; of two that race, one ticket resolves to
    /// [`CommitError::Conflict`].
    ///
    /// # Errors
    /// [`RedeemError`].
    pub fn redeem(
        &self,
        token: &Hash,
        by: &str,
        now_ms: u64,
        mut batch: Batch,
    ) -> Result<(Invite, Ticket), RedeemError> {
        let open = self.get(token)?.ok_or(RedeemError::Unknown)?;
        if let Some(by) = open.used_by {
            return Err(RedeemError::Used { by });
        }
        if now_ms >= open.expires_at_ms {
            return Err(RedeemError::Expired);
        }
        let used = Invite { used_by: Some(by.to_owned()), ..open.clone() };
        batch.expect(token, Some(&open)).put(token, &used);
        Ok((used, self.store().commit(batch)?))
    }
}
