//! Which foreign tools clients may see: approvals by org, by server or by contract, and trust on first use.
//!
//! A foreign org's tool is invisible until the operator approves it. The most specific decision counts:
//!
//! 1. The *capability's own record*, when there is one: the digests that are approved for it. Another digest is
//!    quarantined; when the operator has taken every digest back, all are unapproved.
//! 2. The operator's word on the *server*, yes or no.
//! 3. The operator's word on the *org*.
//!
//! Under a yes of 2 or 3 the first contract that is seen of each capability is approved and recorded (trust on first
//! use), so a contract that changes afterwards falls under 1 and is quarantined until the operator approves *that
//! digest*. Judging is per digest, never per capability: while an org upgrades node by node, the nodes that still serve
//! the approved contract go on serving, and only the others wait. Approving the new digest does not take the old one
//! back; [`CONTRACTS_MAX`] keeps the last few.
//!
//! One's own org needs no approval: whoever may change its tools may change its nodes too.
//!
//! Changes come out of [`Approvals::poll_effect`] as records to persist; [`Approvals::restore`] reads them back. A
//! first use that is lost in a crash is decided again on the next sight, so nothing waits for its durability; an
//! operator's command should.

use core::fmt;
use std::collections::{BTreeMap, VecDeque};

use minicbor::{Decode, Encode};

use crate::ids::{CapabilityId, ContractDigest, ItemName, Kind, OrgName, ServerName};
use crate::time::Wall;

/// Most operator's decisions on orgs and servers. Full: [`ApprovalError::Policies`], nothing changes.
pub const POLICIES_MAX: usize = 4096;

/// Most capabilities of one org that are remembered. Full: further ones stay unapproved, so an org that invents tools
/// without end crowds out nobody but itself.
pub const CAPABILITIES_PER_ORG_MAX: usize = 8192;

/// Most capabilities of all orgs together. Full: further ones stay unapproved.
pub const CAPABILITIES_MAX: usize = 65_536;

/// Most approved contracts of one capability: what an upgrade in several steps needs. One more drops the oldest.
pub const CONTRACTS_MAX: usize = 4;

/// What an operator approves or revokes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything that an org offers, now and later.
    Org(OrgName),
    /// Everything that one server of an org offers, now and later.
    Server(OrgName, ServerName),
    /// One tool under one contract.
    Contract(CapabilityId, ContractDigest),
}

impl Scope {
    /// The org that the scope lies in.
    pub const fn org(&self) -> &OrgName {
        match self {
            Self::Org(org) | Self::Server(org, _) => org,
            Self::Contract(capability, _) => &capability.org,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Org(org) => write!(f, "{org}"),
            Self::Server(org, server) => write!(f, "{org}/{server}"),
            Self::Contract(capability, digest) => write!(f, "{capability} under {digest}"),
        }
    }
}

/// Whether clients may see a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// They may.
    Approved,
    /// The operator has not approved it, or has taken the approval back.
    Unapproved,
    /// It was approved under another contract; the operator must look again.
    Quarantined {
        /// The contract that was approved last.
        approved: ContractDigest,
        /// The contract that is offered.
        seen: ContractDigest,
    },
}

impl Judgement {
    /// Whether clients may see the tool.
    pub const fn is_approved(&self) -> bool {
        matches!(self, Self::Approved)
    }

    /// A short name for tables, logs and denials.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Unapproved => "unapproved",
            Self::Quarantined { .. } => "quarantined",
        }
    }
}

/// Why an approval was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// No room for another org or server.
    #[error("{POLICIES_MAX} orgs and servers are decided upon already: revoke some first")]
    Policies,
    /// No room for another capability of this org, or at all.
    #[error(
        "no more capabilities of {0} can be remembered (at most {CAPABILITIES_PER_ORG_MAX} of an org and {CAPABILITIES_MAX} in all)"
    )]
    Capabilities(OrgName),
    /// The stored records contradict each other or the bounds.
    #[error("the stored approvals cannot be right: {0}")]
    Records(&'static str),
}

/// How an approval of a contract came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Provenance {
    /// The operator approved this digest.
    #[n(0)]
    Operator,
    /// It was the first that was seen under an approved org or server.
    #[n(1)]
    FirstUse,
}

/// One approved contract of a capability.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ApprovedContract {
    /// The contract.
    #[n(0)]
    pub contract: ContractDigest,
    /// How it came to be approved.
    #[n(1)]
    pub provenance: Provenance,
    /// When.
    #[n(2)]
    pub at: Wall,
}

/// What a stored record is about; its order is the store's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum RecordKey {
    /// An org.
    #[n(0)]
    Org(#[n(0)] OrgName),
    /// A server of an org.
    #[n(1)]
    Server(#[n(0)] OrgName, #[n(1)] ServerName),
    /// A capability.
    #[n(2)]
    Capability(#[n(0)] CapabilityId),
}

/// What is stored about it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RecordValue {
    /// The operator's word on an org or a server.
    #[n(0)]
    Policy(#[n(0)] Policy),
    /// The approved contracts of a capability, oldest first. None: the operator took them back.
    #[n(1)]
    Contracts(#[n(0)] Vec<ApprovedContract>),
}

/// The operator's word on an org or a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Policy {
    /// Yes or no.
    #[n(0)]
    pub approved: bool,
    /// When it was said.
    #[n(1)]
    pub at: Wall,
}

/// A change to make durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write this record.
    Put(RecordKey, RecordValue),
    /// Delete this record.
    Remove(RecordKey),
}

/// An item within its org.
type Place = (ServerName, Kind, ItemName);

/// The operator's approvals. Feed it [`approve`](Self::approve), [`revoke`](Self::revoke) and
/// [`judge`](Self::judge), and drain [`poll_effect`](Self::poll_effect) after each.
#[derive(Clone, Debug, Default)]
pub struct Approvals {
    orgs: BTreeMap<OrgName, Policy>,
    servers: BTreeMap<(OrgName, ServerName), Policy>,
    capabilities: BTreeMap<OrgName, BTreeMap<Place, Vec<ApprovedContract>>>,
    capability_count: usize,
    effects: VecDeque<Effect>,
}

impl Approvals {
    /// Nothing approved.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state that `records` describe; no effects.
    ///
    /// # Errors
    /// [`ApprovalError`] when the records cannot have come from here.
    pub fn restore(
        records: impl IntoIterator<Item = (RecordKey, RecordValue)>,
    ) -> Result<Self, ApprovalError> {
        let mut approvals = Self::new();
        for (key, value) in records {
            approvals.load(key, value)?;
        }
        Ok(approvals)
    }

    /// Every record that is stored now, in order.
    pub fn records(&self) -> impl Iterator<Item = (RecordKey, RecordValue)> + '_ {
        let orgs = self.orgs.iter().map(|(org, policy)| (RecordKey::Org(org.clone()), *policy));
        let servers = self
            .servers
            .iter()
            .map(|((org, server), policy)| (RecordKey::Server(org.clone(), server.clone()), *policy));
        let policies = orgs.chain(servers).map(|(key, policy)| (key, RecordValue::Policy(policy)));
        let contracts = self.capabilities.iter().flat_map(|(org, tools)| {
            tools.iter().map(|(place, contracts)| {
                let id = capability_at(org, place.clone());
                (RecordKey::Capability(id), RecordValue::Contracts(contracts.clone()))
            })
        });
        policies.chain(contracts)
    }

    /// Takes the operator's yes. For an org or a server it covers what comes later and what is new; a capability that
    /// has a record of its own (quarantined, or taken back by digest) still needs its digest approved.
    ///
    /// # Errors
    /// [`ApprovalError`] when a table is full; nothing has changed then.
    pub fn approve(&mut self, scope: Scope, now: Wall) -> Result<(), ApprovalError> {
        match scope {
            Scope::Contract(capability, contract) => {
                let approved = ApprovedContract { contract, provenance: Provenance::Operator, at: now };
                self.add_contract(&capability, approved)
            }
            scope => self.set_policy(scope, Policy { approved: true, at: now }),
        }
    }

    /// Takes the operator's no. For an org or a server everything inside it is forgotten, approvals by digest too; a
    /// server's no holds even while its org has a yes.
    ///
    /// # Errors
    /// [`ApprovalError`] when a table is full; nothing has changed then.
    pub fn revoke(&mut self, scope: Scope, now: Wall) -> Result<(), ApprovalError> {
        match scope {
            Scope::Contract(capability, contract) => self.remove_contract(&capability, contract),
            Scope::Server(org, server) => self.revoke_server(org, server, now)?,
            Scope::Org(org) => self.revoke_org(&org),
        }
        Ok(())
    }

    /// Judges one offer, and records a first use. Judge what has been verified: `contract` should be that of a
    /// descriptor at hand, not only a claim.
    pub fn judge(
        &mut self,
        capability: &CapabilityId,
        contract: ContractDigest,
        own_org: bool,
        now: Wall,
    ) -> Judgement {
        if !own_org && self.record(capability).is_none() && self.covers(capability) {
            let approved = ApprovedContract { contract, provenance: Provenance::FirstUse, at: now };
            return match self.add_contract(capability, approved) {
                Ok(()) => Judgement::Approved,
                Err(_) => Judgement::Unapproved,
            };
        }
        self.peek(capability, contract, own_org)
    }

    /// Judges one offer without recording anything: what [`judge`](Self::judge) would say, except that a first use
    /// counts as approved even where there is no room to record it.
    pub fn peek(&self, capability: &CapabilityId, contract: ContractDigest, own_org: bool) -> Judgement {
        if own_org {
            return Judgement::Approved;
        }
        let Some(contracts) = self.record(capability) else {
            return if self.covers(capability) { Judgement::Approved } else { Judgement::Unapproved };
        };
        if contracts.iter().any(|known| known.contract == contract) {
            return Judgement::Approved;
        }
        contracts.last().map_or(Judgement::Unapproved, |last| Judgement::Quarantined {
            approved: last.contract,
            seen: contract,
        })
    }

    /// Whether the operator has said anything on `org` as a whole.
    pub fn has_policy(&self, org: &OrgName) -> bool {
        self.orgs.contains_key(org)
    }

    /// The next change to make durable. Drain it after every call that takes `&mut self`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether the operator's word on the server, or else on the org, is yes.
    fn covers(&self, capability: &CapabilityId) -> bool {
        let server = self.servers.get(&(capability.org.clone(), capability.server.clone()));
        server.or_else(|| self.orgs.get(&capability.org)).is_some_and(|policy| policy.approved)
    }

    fn record(&self, capability: &CapabilityId) -> Option<&Vec<ApprovedContract>> {
        self.capabilities.get(&capability.org)?.get(&key_of(capability))
    }

    fn set_policy(&mut self, scope: Scope, policy: Policy) -> Result<(), ApprovalError> {
        let known = match &scope {
            Scope::Org(org) => self.orgs.contains_key(org),
            Scope::Server(org, server) => self.servers.contains_key(&(org.clone(), server.clone())),
            Scope::Contract(..) => true,
        };
        if !known && self.orgs.len() + self.servers.len() >= POLICIES_MAX {
            return Err(ApprovalError::Policies);
        }
        let key = match scope {
            Scope::Org(org) => {
                self.orgs.insert(org.clone(), policy);
                RecordKey::Org(org)
            }
            Scope::Server(org, server) => {
                self.servers.insert((org.clone(), server.clone()), policy);
                RecordKey::Server(org, server)
            }
            Scope::Contract(..) => return Ok(()),
        };
        self.effects.push_back(Effect::Put(key, RecordValue::Policy(policy)));
        Ok(())
    }

    /// Adds to a capability's record, making one if there is room.
    fn add_contract(
        &mut self,
        capability: &CapabilityId,
        approved: ApprovedContract,
    ) -> Result<(), ApprovalError> {
        if self.record(capability).is_none() {
            self.check_room(&capability.org)?;
            self.capability_count += 1;
        }
        let contracts = self
            .capabilities
            .entry(capability.org.clone())
            .or_default()
            .entry(key_of(capability))
            .or_default();
        contracts.retain(|known| known.contract != approved.contract);
        contracts.push(approved);
        let surplus = contracts.len().saturating_sub(CONTRACTS_MAX);
        contracts.drain(..surplus);
        let value = RecordValue::Contracts(contracts.clone());
        self.effects.push_back(Effect::Put(RecordKey::Capability(capability.clone()), value));
        Ok(())
    }

    fn check_room(&self, org: &OrgName) -> Result<(), ApprovalError> {
        let of_org = self.capabilities.get(org).map_or(0, BTreeMap::len);
        if of_org >= CAPABILITIES_PER_ORG_MAX || self.capability_count >= CAPABILITIES_MAX {
            return Err(ApprovalError::Capabilities(org.clone()));
        }
        Ok(())
    }

    /// The record stays when its last contract goes: without it the digest would be a first use again.
    fn remove_contract(&mut self, capability: &CapabilityId, contract: ContractDigest) {
        let Some(contracts) =
            self.capabilities.get_mut(&capability.org).and_then(|tools| tools.get_mut(&key_of(capability)))
        else {
            return;
        };
        contracts.retain(|known| known.contract != contract);
        let value = RecordValue::Contracts(contracts.clone());
        self.effects.push_back(Effect::Put(RecordKey::Capability(capability.clone()), value));
    }

    /// Under an org's yes the server's no must be remembered; otherwise forgetting its yes is enough.
    fn revoke_server(&mut self, org: OrgName, server: ServerName, now: Wall) -> Result<(), ApprovalError> {
        if self.orgs.get(&org).is_some_and(|policy| policy.approved) {
            let scope = Scope::Server(org.clone(), server.clone());
            self.set_policy(scope, Policy { approved: false, at: now })?;
        } else if self.servers.remove(&(org.clone(), server.clone())).is_some() {
            self.effects.push_back(Effect::Remove(RecordKey::Server(org.clone(), server.clone())));
        }
        self.forget_capabilities(&org, |(of, ..)| *of == server);
        Ok(())
    }

    fn revoke_org(&mut self, org: &OrgName) {
        if self.orgs.remove(org).is_some() {
            self.effects.push_back(Effect::Remove(RecordKey::Org(org.clone())));
        }
        let servers: Vec<_> = self.servers.keys().filter(|(of, _)| of == org).cloned().collect();
        for key in servers {
            self.servers.remove(&key);
            self.effects.push_back(Effect::Remove(RecordKey::Server(key.0, key.1)));
        }
        self.forget_capabilities(org, |_| true);
    }

    fn forget_capabilities(&mut self, org: &OrgName, which: impl Fn(&Place) -> bool) {
        let Some(tools) = self.capabilities.get_mut(org) else { return };
        let gone: Vec<_> = tools.keys().filter(|key| which(key)).cloned().collect();
        for key in &gone {
            tools.remove(key);
        }
        if tools.is_empty() {
            self.capabilities.remove(org);
        }
        self.capability_count -= gone.len();
        let records = gone.into_iter().map(|place| RecordKey::Capability(capability_at(org, place)));
        self.effects.extend(records.map(Effect::Remove));
    }

    fn load(&mut self, key: RecordKey, value: RecordValue) -> Result<(), ApprovalError> {
        match (key, value) {
            (RecordKey::Org(org), RecordValue::Policy(policy)) => {
                self.orgs.insert(org, policy);
            }
            (RecordKey::Server(org, server), RecordValue::Policy(policy)) => {
                self.servers.insert((org, server), policy);
            }
            (RecordKey::Capability(id), RecordValue::Contracts(contracts)) => {
                return self.load_capability(&id, contracts);
            }
            _ => return Err(ApprovalError::Records("a record's value is of another kind than its key")),
        }
        if self.orgs.len() + self.servers.len() > POLICIES_MAX {
            return Err(ApprovalError::Policies);
        }
        Ok(())
    }

    fn load_capability(
        &mut self,
        id: &CapabilityId,
        contracts: Vec<ApprovedContract>,
    ) -> Result<(), ApprovalError> {
        if contracts.len() > CONTRACTS_MAX {
            return Err(ApprovalError::Records("a capability has too many contracts"));
        }
        self.check_room(&id.org)?;
        let tools = self.capabilities.entry(id.org.clone()).or_default();
        if tools.insert(key_of(id), contracts).is_some() {
            return Err(ApprovalError::Records("a capability has two records"));
        }
        self.capability_count += 1;
        Ok(())
    }
}

fn key_of(capability: &CapabilityId) -> Place {
    (capability.server.clone(), capability.kind, capability.name.clone())
}

fn capability_at(org: &OrgName, (server, kind, name): Place) -> CapabilityId {
    CapabilityId { org: org.clone(), server, kind, name }
}

#[cfg(test)]
mod tests;
