//! A node that offers the capability, with everything that the decision needs to know laid out flat.

use std::sync::Arc;

use crate::advert::{Offer, TrustedAdvert};
use crate::approval::Judgement;
use crate::constraints::{CertificationSet, TrustLevel};
use crate::ids::ContractDigest;
use crate::time::Wall;
use crate::trust::Role;

use super::RouteRequest;
use super::rejection::{Rejection, Rejections};
use super::residency::SiteFacts;

/// How a node can be reached now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// This node itself.
    Local,
    /// There is a connection.
    Connected,
    /// There are addresses to dial.
    Known,
    /// A neighbour says that it is dead, or the last dial failed: a hint that ranks it last.
    Suspected,
    /// No connection and no address.
    Unreachable,
}

impl Reach {
    /// The word for reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Connected => "connected",
            Self::Known => "known",
            Self::Suspected => "suspected",
            Self::Unreachable => "unreachable",
        }
    }
}

/// What the reader adds to an advert: its own judgement, which never travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How far it trusts the node.
    pub trust: TrustLevel,
    /// Whether the operator approved the offer's contract.
    pub approval: Judgement,
    /// How the node can be reached.
    pub reach: Reach,
    /// Whether the node's region is this node's.
    pub same_region: bool,
    /// Certifications attested by those whom the reader pinned.
    pub certifications: CertificationSet,
}

/// One node that offers a capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What constraints are about.
    pub site: SiteFacts,
    /// What people call the node.
    pub name: Arc<str>,
    /// Whether its membership lets it run calls for others.
    pub executor: bool,
    /// The contract under which it offers the tool.
    pub contract: ContractDigest,
    /// Whether the operator approved that contract.
    pub approval: Judgement,
    /// How it can be reached.
    pub reach: Reach,
    /// Whether it is in this node's region.
    pub same_region: bool,
    /// When its advert or its membership ends.
    pub expires: Wall,
}

impl Candidate {
    /// The candidate that a verified advert and one of its offers make, as the reader judges it.
    pub fn from_directory(trusted: &TrustedAdvert, offer: &Offer, standing: Standing) -> Self {
        let (advert, membership) = (&trusted.advert, &trusted.membership);
        Self {
            site: SiteFacts {
                node: advert.node,
                org: membership.org.clone(),
                processing: advert.site.processing_locations,
                locations_max: membership.locations_max,
                operator_country: advert.site.operator_country,
                trust: standing.trust,
                class_max: offer.class_max,
                certifications: standing.certifications,
            },
            name: advert.name.as_str().into(),
            executor: membership.roles.has(Role::Exec),
            contract: offer.contract,
            approval: standing.approval,
            reach: standing.reach,
            same_region: standing.same_region,
            expires: trusted.expires(),
        }
    }

    /// What stands in the way besides the constraints.
    pub(super) fn availability(&self, request: &RouteRequest, now: Wall) -> Rejections {
        let mut reasons = Rejections::NONE;
        if !self.executor {
            reasons.insert(Rejection::NotExecutor);
        }
        if now >= self.expires {
            reasons.insert(Rejection::AdvertExpired);
        }
        if self.contract != request.contract {
            reasons.insert(Rejection::ContractMismatch);
        }
        match self.approval {
            Judgement::Approved => {}
            Judgement::Unapproved => reasons.insert(Rejection::ContractUnapproved),
            Judgement::Quarantined { .. } => reasons.insert(Rejection::ContractQuarantined),
        }
        if self.reach == Reach::Unreachable {
            reasons.insert(Rejection::Unreachable);
        }
        reasons
    }

    /// Why this candidate fails `reason`, with the facts, for people.
    pub fn explain(&self, reason: Rejection, request: &RouteRequest) -> String {
        match reason {
            Rejection::AdvertExpired => format!("its advert or its membership ended at {}", self.expires),
            Rejection::ContractMismatch => format!(
                "offers the tool under contract {}; the call is for {}",
                self.contract.short(),
                request.contract.short()
            ),
            Rejection::ContractQuarantined | Rejection::ContractUnapproved => self.explain_approval(reason),
            _ => self.site.explain(reason, &request.constraints),
        }
    }

    fn explain_approval(&self, reason: Rejection) -> String {
        match self.approval {
            Judgement::Quarantined { approved, seen } => {
                format!(
                    "its contract changed since it was approved: {approved} was approved, {seen} is offered"
                )
            }
            _ => format!("{} ({})", reason.summary(), self.contract),
        }
    }
}
