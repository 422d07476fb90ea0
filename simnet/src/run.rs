//! One run from scenario and seed to report.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::chronicle::Chronicle;
use crate::federation::NODES_MAX;
use crate::figures::Summary;
use crate::judge::Violation;
use crate::sabotage::Sabotage;
use crate::scenario::Scenario;
use crate::world::World;

/// A scenario with the text that it was read from.
#[derive(Clone, Debug)]
pub struct Source {
    /// What replay lines call it: the name of a built-in scenario, or a file's path.
    pub place: String,
    /// The hash of its text.
    pub hash: String,
    /// What it says.
    pub scenario: Arc<Scenario>,
}

/// What a run came to. The same source and seed give the same report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The hash of its text.
    pub scenario_hash: String,
    /// The seed.
    pub seed: u64,
    /// The commit of the code that ran.
    pub commit: String,
    /// The hash of all that happened, in order.
    pub trace_hash: String,
    /// How much time was simulated.
    pub simulated_ms: u64,
    /// What did not hold; empty when all was well.
    pub violations: Vec<Violation>,
    /// What was measured.
    pub figures: Summary,
    /// The line that runs this again.
    pub replay: String,
}

impl Report {
    /// Whether all was well.
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Why a scenario cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// More nodes than keys.
    #[error("the scenario may have {0} nodes, and a run has at most {NODES_MAX}")]
    TooManyNodes(usize),
    /// A fault that the second tier cannot have.
    #[error("faults of kind `{0}` are for the pure machines: run this scenario with `simnet`")]
    MachinesOnly(&'static str),
}

/// Runs a scenario with a seed. `progress` is told from time to time how much has been simulated.
///
/// # Errors
/// [`RunError`].
pub fn run(
    source: &Source,
    seed: u64,
    commit: &str,
    mut progress: impl FnMut(Duration),
) -> Result<Report, RunError> {
    let mut world = world(source, seed)?;
    world.run(|moment| progress(Duration::from_micros(moment.0)));
    Ok(report(source, seed, commit, &world))
}

/// The same, with what happened. It is the same run, step for step.
///
/// # Errors
/// [`RunError`].
pub fn run_recorded(
    source: &Source,
    seed: u64,
    commit: &str,
    mut progress: impl FnMut(Duration),
) -> Result<(Report, Chronicle), RunError> {
    let mut world = world(source, seed)?;
    world.keep_chronicle();
    world.run(|moment| progress(Duration::from_micros(moment.0)));
    let chronicle = world.take_chronicle().unwrap_or_default();
    Ok((report(source, seed, commit, &world), chronicle))
}

/// A run in which honest nodes break a rule, for tests of the judge. See [`Sabotage`].
///
/// # Errors
/// [`RunError`].
pub fn run_sabotaged(source: &Source, seed: u64, sabotage: Sabotage) -> Result<Report, RunError> {
    let mut world = world(source, seed)?;
    world.sabotage = Some(sabotage);
    world.run(|_| ());
    Ok(report(source, seed, "sabotaged", &world))
}

fn world(source: &Source, seed: u64) -> Result<World, RunError> {
    let nodes = source.scenario.nodes_max();
    if nodes > NODES_MAX {
        return Err(RunError::TooManyNodes(nodes));
    }
    Ok(World::new(source.scenario.clone(), seed))
}

fn report(source: &Source, seed: u64, commit: &str, world: &World) -> Report {
    Report {
        scenario: source.scenario.name.clone(),
        scenario_hash: source.hash.clone(),
        seed,
        commit: commit.to_owned(),
        trace_hash: world.trace.hash(),
        simulated_ms: world.now.as_millis(),
        violations: world.judge.violations.clone(),
        figures: summary(world),
        replay: crate::replay::Replay::of(source, seed, commit).to_string(),
    }
}

fn summary(world: &World) -> Summary {
    let phases = world.scenario.phases;
    let faults_end = u64::try_from(phases.faults_for.as_millis()).unwrap_or(u64::MAX);
    let healed = world.judge.healed;
    let quiet = healed.map(|healed| world.now.since(healed)).filter(|quiet| *quiet >= Duration::from_secs(1));
    let sent: u64 = world.nodes.iter().map(|node| node.bytes_sent).sum();
    let running = world.nodes.iter().filter(|node| node.mesh.is_some()).count() as u64;
    let quiet_bytes = quiet.map(|quiet| {
        sent.saturating_sub(world.figures.bytes_when_healed) * 1000
            / u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX)
            / running.max(1)
    });
    Summary {
        nodes: world.nodes.len(),
        events: world.trace.events(),
        converged_ms: world.judge.converged.map(crate::moment::Moment::as_millis),
        healed_ms: world.judge.truly_healed().map(|healed| healed.as_millis().saturating_sub(faults_end)),
        merged_ms: world.judge.merged.map(|merged| merged.as_millis().saturating_sub(faults_end)),
        quiet_bytes_per_node_s: quiet_bytes,
        ..world.figures.summary()
    }
}
