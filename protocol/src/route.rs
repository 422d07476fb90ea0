//! The decision for one call: who may lawfully run it, in which order to try them, and why every other may not.
//!
//! [`residency`] is the law: the one function that holds a site against a caller's constraints. [`decide`] runs it over
//! every [`Candidate`], adds what is not law (role, approval, reach) and ranks those who are left by how they have
//! been doing ([`stats`]). Nothing here widens a constraint to find somebody: no candidate left is a denial, and
//! [`RouteReport`] says why for each.

mod breaker;
mod budget;
mod candidate;
mod rank;
mod rejection;
mod report;
pub mod residency;
pub mod stats;

pub use breaker::{Breaker, CIRCUIT_OPEN_MAX, CIRCUIT_OPEN_MIN, CIRCUIT_SAMPLES_MIN};
pub use budget::{RETRIES_BANKED_MAX, RetryBudget};
pub use candidate::{Candidate, Reach, Standing};
pub use rank::LOCAL_PENDING_MAX;
pub use rejection::{Rejection, Rejections};
pub use report::{PeerFacts, PeerReason, RejectedPeer, RouteReport};
pub use residency::SiteFacts;
pub use stats::{Attempt, Health, PeerStats};

use crate::constraints::Constraints;
use crate::ids::{CapabilityId, ContractDigest};
use crate::rng::Rng;
use crate::time::Now;

/// What is to be routed.
#[derive(Clone, Debug)]
pub struct RouteRequest {
    /// The capability that is called.
    pub capability: CapabilityId,
    /// The contract under which the caller knows it; a candidate that offers another is not the same tool.
    pub contract: ContractDigest,
    /// What the caller demands, all sources already merged.
    pub constraints: Constraints,
}

/// A decision: whom to try in which order, and who may not be tried.
#[derive(Clone, Debug, Default)]
pub struct Route<'a> {
    /// Those who may run the call, best first.
    pub ranked: Vec<&'a Candidate>,
    /// Those who may not, each with every rule that it fails.
    pub rejected: Vec<(&'a Candidate, Rejections)>,
}

/// What a route comes to when it is empty, and so which error the caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody may run it.
    Routable,
    /// Nobody offers the capability.
    NobodyOffers,
    /// Somebody lawful offers it and cannot be reached now.
    Unreachable,
    /// Somebody lawful offers it and the operator has not approved the contract.
    Unapproved,
    /// Everybody who offers it fails a constraint.
    Denied,
}

impl Route<'_> {
    /// What the route comes to. Of several obstacles the one that is easiest to remove names the verdict.
    pub fn verdict(&self) -> Verdict {
        if !self.ranked.is_empty() {
            return Verdict::Routable;
        }
        let some = |blocked_only_by: fn(Rejections) -> bool| {
            self.rejected.iter().any(|(_, reasons)| blocked_only_by(*reasons))
        };
        if self.rejected.is_empty() {
            Verdict::NobodyOffers
        } else if some(Rejections::is_only_reach) {
            Verdict::Unreachable
        } else if some(Rejections::is_only_reach_or_approval) {
            Verdict::Unapproved
        } else {
            Verdict::Denied
        }
    }
}

/// Decides one call. Every candidate ends up in exactly one of the two lists; the same arguments give the same route.
///
/// Costs one pass over the candidates and no allocation per candidate, whatever the number of reasons.
pub fn decide<'a>(
    request: &RouteRequest,
    candidates: &'a [Candidate],
    stats: &PeerStats,
    now: Now,
    rng: &mut Rng,
) -> Route<'a> {
    let mut lawful = Vec::with_capacity(candidates.len());
    let mut rejected = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let mut reasons = residency::check(&request.constraints, &candidate.site);
        reasons.extend(candidate.availability(request, now.wall));
        // How it has been doing matters only for those who may run the call.
        if reasons.is_empty() && !stats.circuit_allows(&candidate.site.node, &request.capability, now.mono) {
            reasons.insert(Rejection::CircuitOpen);
        }
        if reasons.is_empty() {
            lawful.push(candidate);
        } else {
            rejected.push((candidate, reasons));
        }
    }
    Route { ranked: rank::rank(lawful, stats, now.mono, rng), rejected }
}

#[cfg(test)]
mod tests;
