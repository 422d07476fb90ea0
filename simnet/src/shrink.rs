//! From a run that broke an invariant to a smaller one that breaks the same one: fewer nodes, sites, calls and faults, and
//! a shorter time.
//!
//! First the scenario is [pinned](pin::pin): what the seed drew, such as how many nodes a site has and which faults a
//! `chaos` came to, is written out, so that it can be taken away piece by piece. Then one cut (`cuts`) after another is
//! tried, and kept when the run still [breaks the same](Target), until none helps or time is up (delta debugging: Zeller
//! and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002).
//!
//! Every candidate is written as TOML and read back before it is run: what is saved at the end is what was tried.

mod cuts;
mod pin;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::judge::{Invariant, Violation};
use crate::scenario::Scenario;
use crate::world::World;

pub use pin::pin;

/// Most runs that one search makes.
pub const ATTEMPTS_MAX: u32 = 1_500;

/// How many seeds are tried for each candidate. Whatever is taken away moves the draws of all the rest, so that the same
/// seed may miss what is still there.
const SEEDS_PER_CANDIDATE: u64 = 3;

/// What a smaller run has to break: the same invariant, and for an expectation that of the same calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    invariant: Invariant,
    subject: String,
}

impl Target {
    /// What a violation is about.
    pub fn of(violation: &Violation) -> Self {
        Self { invariant: violation.invariant, subject: subject(violation) }
    }

    /// Whether a violation is about the same.
    pub fn is_met_by(&self, violation: &Violation) -> bool {
        self.invariant == violation.invariant && self.subject == subject(violation)
    }

    /// Whether it needs time to tell that it does not hold: a run may not be cut off right after it.
    pub(crate) const fn needs_the_end(&self) -> bool {
        matches!(
            self.invariant,
            Invariant::Converged
                | Invariant::StaysConverged
                | Invariant::Suspected
                | Invariant::Served
                | Invariant::OneOutcome
                | Invariant::Expectation
        )
    }
}

/// Which calls an expectation is of, and in which way it was not met: that none was made is something else than that some
/// failed. Other invariants are told apart enough by their name.
fn subject(violation: &Violation) -> String {
    if violation.invariant != Invariant::Expectation {
        return String::new();
    }
    let detail = &violation.detail;
    let (kind, rest) = match detail.split_once(" calls of ") {
        Some((_, rest)) => ("some", rest),
        None => ("none", detail.as_str()),
    };
    format!("{kind} {}", rest.split(", ").next().unwrap_or_default())
}

/// How far a search has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Runs made.
    pub attempts: u32,
    /// The size of the smallest that still fails.
    pub size: Size,
}

/// How large a scenario is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Size {
    /// Nodes at most.
    pub nodes: usize,
    /// Sites.
    pub sites: usize,
    /// Faults.
    pub faults: usize,
    /// Groups of calls.
    pub calls: usize,
    /// The longest that a run takes.
    pub seconds: u64,
}

impl Size {
    /// That of a scenario.
    pub fn of(scenario: &Scenario) -> Self {
        Self {
            nodes: scenario.nodes_max(),
            sites: scenario.sites.len(),
            faults: scenario.faults.len(),
            calls: scenario.calls.len(),
            seconds: scenario.phases.total().as_secs(),
        }
    }
}

impl core::fmt::Display for Size {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let counted = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let parts = [
            counted(self.nodes, "node"),
            counted(self.sites, "site"),
            counted(self.faults, "fault"),
            counted(self.calls, "group") + " of calls",
            format!("{} s", self.seconds),
        ];
        f.write_str(&parts.join(", "))
    }
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smaller scenario, as text.
    pub text: String,
    /// The seed with which it fails; not always the one of the run that it comes from.
    pub seed: u64,
    /// What it breaks.
    pub violation: Violation,
    /// How large the run was, and how large it is now.
    pub sizes: (Size, Size),
    /// Runs made.
    pub attempts: u32,
    /// Whether the search ended because nothing more could be taken away, and not because time was up.
    pub complete: bool,
}

/// Makes a failing run smaller. `go_on` is asked often, in the middle of runs too, whether there is time left.
///
/// `None` when not even the same run fails again, which cannot be unless `go_on` says no at once.
pub fn shrink(
    scenario: &Arc<Scenario>,
    seed: u64,
    violation: &Violation,
    go_on: &mut dyn FnMut(Status) -> bool,
) -> Option<Shrunk> {
    let pinned = pin(scenario, seed);
    let before = Size::of(&pinned);
    let target = Target::of(violation);
    let mut search = Search {
        best: pinned,
        seed,
        violation: violation.clone(),
        target,
        attempts: 0,
        size: before,
        out_of_time: false,
        go_on,
    };
    let first = search.best.clone();
    if !search.fails(&first, &[seed]) {
        // What is pinned fails in another way, so the drawing stays.
        let scenario = Scenario::clone(scenario);
        if !search.fails(&scenario, &[seed]) {
            return None;
        }
    }
    search.rounds();
    Some(Shrunk {
        text: search.best.to_toml(),
        seed: search.seed,
        sizes: (before, Size::of(&search.best)),
        attempts: search.attempts,
        complete: !search.out_of_time && search.attempts < ATTEMPTS_MAX,
        violation: search.violation,
    })
}

/// A search under way.
struct Search<'a> {
    best: Scenario,
    seed: u64,
    violation: Violation,
    target: Target,
    attempts: u32,
    size: Size,
    out_of_time: bool,
    go_on: &'a mut dyn FnMut(Status) -> bool,
}

impl Search<'_> {
    /// Round after round of all cuts, until one takes nothing away.
    fn rounds(&mut self) {
        loop {
            let before = self.best.clone();
            for cut in cuts::ALL {
                cut(self);
            }
            if self.is_over() || before == self.best {
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.out_of_time || self.attempts >= ATTEMPTS_MAX
    }

    /// Takes a candidate when it still fails. A candidate that is no scenario is none.
    fn try_candidate(&mut self, candidate: Scenario) -> bool {
        if candidate == self.best || self.is_over() {
            return false;
        }
        let seeds: Vec<u64> = (0..SEEDS_PER_CANDIDATE).map(|more| self.seed.wrapping_add(more)).collect();
        self.fails(&candidate, &seeds)
    }

    fn fails(&mut self, candidate: &Scenario, seeds: &[u64]) -> bool {
        let Ok(read) = Scenario::parse(&candidate.to_toml()) else { return false };
        let read = Arc::new(read);
        for seed in seeds {
            if let Some(violation) = self.violation_of(&read, *seed) {
                self.best = Scenario::clone(&read);
                self.size = Size::of(&read);
                (self.seed, self.violation) = (*seed, violation);
                return true;
            }
        }
        false
    }

    /// Runs until what is looked for is found, the run ends or time is up.
    fn violation_of(&mut self, scenario: &Arc<Scenario>, seed: u64) -> Option<Violation> {
        let status = Status { attempts: self.attempts, size: self.size };
        self.out_of_time |= !(self.go_on)(status);
        if self.is_over() {
            return None;
        }
        self.attempts += 1;
        let mut world = World::new(scenario.clone(), seed);
        world.judge.look_for(self.target.clone());
        let (attempts, size) = (self.attempts, self.size);
        let (go_on, out_of_time) = (&mut self.go_on, &mut self.out_of_time);
        world.run_while(|_| {
            *out_of_time |= !go_on(Status { attempts, size });
            if *out_of_time { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let found = world.judge.violations.iter().find(|violation| self.target.is_met_by(violation));
        found.filter(|_| !self.out_of_time).cloned()
    }
}

/// Rounds up to whole seconds, and one more: a run that ends there has seen what happened.
fn soon_after(at_ms: u64) -> Duration {
    Duration::from_secs(at_ms / 1000 + 2)
}
