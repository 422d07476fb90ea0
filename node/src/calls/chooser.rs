//! How peers have been doing, and the decision made from that: the router's state in one place, behind one short lock.

use comity_protocol::ids::{CallId, CapabilityId, NodeId};
use comity_protocol::rng::Rng;
use comity_protocol::route::{self, Attempt, Candidate, Health, PeerStats, RetryBudget, Route, RouteRequest};
use comity_protocol::time::{Mono, Now};

/// The router's state.
#[derive(Debug)]
pub struct Chooser {
    stats: PeerStats,
    budget: RetryBudget,
    rng: Rng,
}

impl Chooser {
    /// Nobody has been called yet. `seed` fixes the random choices.
    pub fn new(seed: u64, now: Mono) -> Self {
        Self { stats: PeerStats::new(), budget: RetryBudget::new(now), rng: Rng::new(seed) }
    }

    /// Decides a call.
    pub fn decide<'a>(&mut self, request: &RouteRequest, candidates: &'a [Candidate], now: Now) -> Route<'a> {
        route::decide(request, candidates, &self.stats, now, &mut self.rng)
    }

    /// A call begins: it earns a part of a retry.
    pub fn call_begins(&mut self) {
        self.budget.deposit();
    }

    /// Whether a further candidate may be tried.
    pub fn may_retry(&mut self, now: Mono) -> bool {
        self.budget.withdraw(now)
    }

    /// A try begins.
    pub fn begin(&mut self, node: NodeId, capability: &CapabilityId, call: CallId, now: Mono) -> Attempt {
        self.stats.begin(node, capability, call, now)
    }

    /// A try has ended.
    pub fn finish(&mut self, attempt: Attempt, health: Health, now: Mono) {
        self.stats.finish(attempt, health, now);
    }

    /// What the choice weighs for `node`, in milliseconds; lower is better.
    pub fn cost_ms(&self, node: &NodeId, now: Mono) -> f64 {
        self.stats.score(node, now) as f64 / 1000.0
    }
}
