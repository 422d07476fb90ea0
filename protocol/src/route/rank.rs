//! The order in which lawful candidates are tried.
//!
//! This node itself first, unless it is loaded. Then the better of a few: two random near ones and one random other,
//! compared by measured load (a power-of-choices rule: Mitzenmacher, "The Power of Two Choices in Randomized Load
//! Balancing"; the far one keeps a whole region from collapsing together). Then all the others, for failover, in
//! random order: near, far, and last those who are suspected to be dead.

use crate::rng::Rng;
use crate::time::Mono;

use super::candidate::{Candidate, Reach};
use super::stats::PeerStats;

/// Calls in flight at this node's own upstreams from which on it competes with the others instead of going first.
pub const LOCAL_PENDING_MAX: u32 = 16;

/// How many near candidates are compared.
const NEAR_SAMPLES: usize = 2;

/// How many candidates are compared in all.
const SAMPLES: usize = 3;

/// Puts `lawful` in the order in which to try them.
pub(super) fn rank<'a>(
    lawful: Vec<&'a Candidate>,
    stats: &PeerStats,
    now: Mono,
    rng: &mut Rng,
) -> Vec<&'a Candidate> {
    let mut tiers = Tiers::sort(lawful);
    for tier in [&mut tiers.near, &mut tiers.far, &mut tiers.suspected] {
        rng.shuffle(tier);
    }
    let mut compared = tiers.sample();
    let mut ranked = Vec::with_capacity(tiers.len() + compared.len());
    for local in tiers.local.drain(..) {
        let loaded = stats.pending(&local.site.node) >= LOCAL_PENDING_MAX;
        if loaded { compared.push(local) } else { ranked.push(local) }
    }
    compared.sort_by_cached_key(|candidate| stats.score(&candidate.site.node, now));
    ranked.append(&mut compared);
    ranked.append(&mut tiers.near);
    ranked.append(&mut tiers.far);
    ranked.append(&mut tiers.suspected);
    ranked
}

#[derive(Default)]
struct Tiers<'a> {
    local: Vec<&'a Candidate>,
    near: Vec<&'a Candidate>,
    far: Vec<&'a Candidate>,
    suspected: Vec<&'a Candidate>,
}

impl<'a> Tiers<'a> {
    fn sort(lawful: Vec<&'a Candidate>) -> Self {
        let (near, far) = (Vec::with_capacity(lawful.len()), Vec::with_capacity(lawful.len()));
        let mut tiers = Self { near, far, ..Self::default() };
        for candidate in lawful {
            tiers.of(candidate).push(candidate);
        }
        tiers
    }

    fn of(&mut self, candidate: &Candidate) -> &mut Vec<&'a Candidate> {
        match candidate.reach {
            Reach::Local => &mut self.local,
            Reach::Suspected | Reach::Unreachable => &mut self.suspected,
            Reach::Connected => &mut self.near,
            Reach::Known if candidate.same_region => &mut self.near,
            Reach::Known => &mut self.far,
        }
    }

    /// Takes those to compare off the shuffled tiers: two near and one far, or more of the one where the other is short.
    fn sample(&mut self) -> Vec<&'a Candidate> {
        let near = NEAR_SAMPLES.max(SAMPLES.saturating_sub(self.far.len())).min(self.near.len());
        let far = (SAMPLES - near).min(self.far.len());
        let mut sample = self.near.split_off(self.near.len() - near);
        sample.extend(self.far.drain(self.far.len() - far..));
        sample
    }

    fn len(&self) -> usize {
        self.local.len() + self.near.len() + self.far.len() + self.suspected.len()
    }
}
