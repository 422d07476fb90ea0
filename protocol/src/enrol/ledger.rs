//! The invites that a node has issued: each works for one node, until it expires, is revoked, or too many wrong
//! proofs were tried on it.
//!
//! One ledger is owned by one task, so that of two streams with the same token one is first. Its changes come out of
//! [`Ledger::poll_effect`]; what a change permits (a signature, a pin) must wait until the change is durable.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::geo::CountrySet;
use crate::ids::NodeId;
use crate::invite::{INVITE_LIFETIME_MAX, InviteId, InviteKind, Token};
use crate::time::Wall;
use crate::trust::RoleSet;

use super::frames::RefusalCode;

/// Most invites that are remembered. Full: those past their end go first, then [`LedgerError::Full`].
pub const INVITES_MAX: usize = 256;

/// Wrong proofs after which an invite is void. Only somebody who has the line, or part of it, can name the invite, so
/// this many mean a damaged copy or an attack; either way a new invite is the answer.
pub const ATTEMPTS_MAX: u8 = 5;

/// What an invite allows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Terms {
    /// To do what.
    #[n(0)]
    pub kind: InviteKind,
    /// The most places that a new member may be given.
    #[n(1)]
    pub locations_max: CountrySet,
    /// What a new member may do.
    #[n(2)]
    pub roles: RoleSet,
    /// Whether the operator must compare the words before anything is granted.
    #[n(3)]
    pub confirm: bool,
    /// From when.
    #[n(4)]
    pub issued: Wall,
    /// Until when.
    #[n(5)]
    pub expires: Wall,
    /// Whether all tools of the other org become visible at once, when two orgs federate.
    #[n(6)]
    pub approve_all: bool,
}

/// Where an invite stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum InviteState {
    /// Nobody has used it; so many wrong proofs were tried.
    #[n(0)]
    Open(#[n(0)] u8),
    /// This node used it; it may come again, should the answer have been lost.
    #[n(1)]
    Used(#[n(0)] NodeId, #[n(1)] Wall),
    /// It is of no use to anybody.
    #[n(2)]
    Void(#[n(0)] Wall),
}

/// An invite as its issuer remembers it. `Debug` does not show the token.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IssuedInvite {
    /// The secret.
    #[n(0)]
    pub token: Token,
    /// What it allows.
    #[n(1)]
    pub terms: Terms,
    /// Where it stands.
    #[n(2)]
    pub state: InviteState,
}

/// Why an invite was not issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// No room.
    #[error("{INVITES_MAX} invites are open already: revoke some, or wait until some expire")]
    Full,
    /// It would live too long, or not at all.
    #[error("an invite lives up to seven days")]
    Lifetime,
    /// The token is in use: the shell's generator repeats itself.
    #[error("the token is in use already")]
    Token,
}

/// A change to make durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerEffect {
    /// Write this record under this key.
    Put(InviteId, IssuedInvite),
    /// Delete this record.
    Remove(InviteId),
}

/// The issued invites.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    invites: BTreeMap<InviteId, IssuedInvite>,
    effects: VecDeque<LedgerEffect>,
}

impl Ledger {
    /// No invites.
    pub fn new() -> Self {
        Self::default()
    }

    /// The ledger of these records, which [`LedgerEffect`]s once wrote; of more than [`INVITES_MAX`] those that end
    /// last stay.
    pub fn restore(records: impl IntoIterator<Item = IssuedInvite>) -> Self {
        let mut records: Vec<_> = records.into_iter().collect();
        records.sort_by_key(|invite| core::cmp::Reverse(invite.terms.expires));
        let kept = records.into_iter().take(INVITES_MAX);
        Self { invites: kept.map(|invite| (invite.token.id(), invite)).collect(), effects: VecDeque::new() }
    }

    /// Issues an invite.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing has changed then.
    pub fn issue(&mut self, terms: Terms, token: Token, now: Wall) -> Result<InviteId, LedgerError> {
        let lifetime = terms.expires.since(now);
        if lifetime == Duration::ZERO || lifetime > INVITE_LIFETIME_MAX {
            return Err(LedgerError::Lifetime);
        }
        self.sweep(now);
        let id = token.id();
        if self.invites.contains_key(&id) {
            return Err(LedgerError::Token);
        }
        if self.invites.len() >= INVITES_MAX {
            return Err(LedgerError::Full);
        }
        self.put(id, IssuedInvite { token, terms, state: InviteState::Open(0) });
        Ok(id)
    }

    /// The invite, if `node` may use it now.
    ///
    /// # Errors
    /// Why it may not.
    pub fn find(&self, id: &InviteId, node: &NodeId, now: Wall) -> Result<&IssuedInvite, RefusalCode> {
        let invite = self.invites.get(id).ok_or(RefusalCode::Unknown)?;
        if now >= invite.terms.expires {
            return Err(RefusalCode::Expired);
        }
        match invite.state {
            InviteState::Open(_) => Ok(invite),
            InviteState::Used(by, _) if by == *node => Ok(invite),
            InviteState::Used(..) => Err(RefusalCode::Used),
            InviteState::Void(_) => Err(RefusalCode::Void),
        }
    }

    /// Counts a wrong proof.
    pub fn count_failure(&mut self, id: &InviteId, now: Wall) {
        let Some(invite) = self.invites.get(id) else { return };
        let InviteState::Open(failures) = invite.state else { return };
        let failures = failures.saturating_add(1);
        let void = failures >= ATTEMPTS_MAX;
        let state = if void { InviteState::Void(now) } else { InviteState::Open(failures) };
        self.put(*id, IssuedInvite { state, ..invite.clone() });
    }

    /// Uses the invite up for `node`. Once the effect is durable, and not before, sign or pin.
    ///
    /// # Errors
    /// Why `node` may not use it.
    pub fn consume(&mut self, id: &InviteId, node: NodeId, now: Wall) -> Result<(), RefusalCode> {
        let invite = self.find(id, &node, now)?;
        let used = IssuedInvite { state: InviteState::Used(node, now), ..invite.clone() };
        self.put(*id, used);
        Ok(())
    }

    /// Makes an invite void. Returns whether it was open.
    pub fn revoke(&mut self, id: &InviteId, now: Wall) -> bool {
        let Some(invite) = self.invites.get(id) else { return false };
        let open = matches!(invite.state, InviteState::Open(_));
        if open {
            self.put(*id, IssuedInvite { state: InviteState::Void(now), ..invite.clone() });
        }
        open
    }

    /// Forgets the invites that are past their end.
    pub fn sweep(&mut self, now: Wall) {
        let past = |(id, invite): (&InviteId, &IssuedInvite)| (now >= invite.terms.expires).then_some(*id);
        let past: Vec<_> = self.invites.iter().filter_map(past).collect();
        for id in past {
            self.invites.remove(&id);
            self.effects.push_back(LedgerEffect::Remove(id));
        }
    }

    /// The invites, for the operator.
    pub fn invites(&self) -> impl Iterator<Item = (&InviteId, &IssuedInvite)> {
        self.invites.iter()
    }

    /// The next change to make durable. Drain it after every call that takes `&mut self`.
    pub fn poll_effect(&mut self) -> Option<LedgerEffect> {
        self.effects.pop_front()
    }

    fn put(&mut self, id: InviteId, invite: IssuedInvite) {
        self.effects.push_back(LedgerEffect::Put(id, invite.clone()));
        self.invites.insert(id, invite);
    }
}
