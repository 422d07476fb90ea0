//! A decision as people and programs read it: what `comity route` prints and what a denial carries.

use serde::Serialize;

use super::candidate::Candidate;
use super::rejection::Rejection;
use super::{Route, RouteRequest, Verdict};

/// Why one peer may not run the call: an entry of a denial's `data.reasons`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerReason {
    /// The node id.
    pub peer: String,
    /// Its org.
    pub org: String,
    /// What people call it.
    pub node: String,
    /// The rule's stable name.
    pub code: String,
    /// The facts of the case.
    pub detail: String,
}

/// Who a peer is and where it stands, for reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerFacts {
    /// The node id.
    pub peer: String,
    /// Its org.
    pub org: String,
    /// What people call it.
    pub node: String,
    /// Where it processes.
    pub processing_locations: String,
    /// Under whose law its operator is.
    pub operator_country: Option<String>,
    /// How far it is trusted.
    pub trust: String,
    /// How it can be reached.
    pub reach: &'static str,
}

/// One who may not run the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RejectedPeer {
    /// Who.
    #[serde(flatten)]
    pub peer: PeerFacts,
    /// Every rule that it fails, as code and detail.
    pub reasons: Vec<PeerReason>,
}

/// A whole decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteReport {
    /// `org/server/tool`.
    pub capability: String,
    /// The contract's digest.
    pub contract: String,
    /// `routable`, `nobody_offers`, `unreachable`, `unapproved` or `denied`.
    pub verdict: &'static str,
    /// Those who may run it, best first.
    pub ranked: Vec<PeerFacts>,
    /// Those who may not.
    pub rejected: Vec<RejectedPeer>,
}

impl Verdict {
    /// The word for reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routable => "routable",
            Self::NobodyOffers => "nobody_offers",
            Self::Unreachable => "unreachable",
            Self::Unapproved => "unapproved",
            Self::Denied => "denied",
        }
    }
}

impl RouteReport {
    /// Renders `route`, which [`super::decide`] made for `request`.
    pub fn new(request: &RouteRequest, route: &Route<'_>) -> Self {
        let rejected = route.rejected.iter().map(|(candidate, reasons)| {
            let peer = PeerFacts::new(candidate);
            let reasons = reasons.iter().map(|reason| peer.fails(reason, candidate.explain(reason, request)));
            RejectedPeer { reasons: reasons.collect(), peer }
        });
        Self {
            capability: request.capability.to_string(),
            contract: request.contract.to_string(),
            verdict: route.verdict().as_str(),
            ranked: route.ranked.iter().map(|candidate| PeerFacts::new(candidate)).collect(),
            rejected: rejected.collect(),
        }
    }

    /// Every reason of every rejected peer, in one list: a denial's `data.reasons`.
    pub fn reasons(&self) -> Vec<PeerReason> {
        self.rejected.iter().flat_map(|rejected| rejected.reasons.iter().cloned()).collect()
    }
}

impl PeerFacts {
    fn new(candidate: &Candidate) -> Self {
        let site = &candidate.site;
        Self {
            peer: site.node.to_string(),
            org: site.org.to_string(),
            node: candidate.name.to_string(),
            processing_locations: site.processing.to_string(),
            operator_country: site.operator_country.map(|country| country.to_string()),
            trust: site.trust.to_string(),
            reach: candidate.reach.as_str(),
        }
    }

    fn fails(&self, reason: Rejection, detail: String) -> PeerReason {
        let Self { peer, org, node, .. } = self.clone();
        PeerReason { peer, org, node, code: reason.code().to_owned(), detail }
    }
}
