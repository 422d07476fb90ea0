//! One run from scenario and seed to report.

use std::collections::BTreeMap;
use std::time::Duration;

use comity_simnet::judge::Violation;
use comity_simnet::moment::Moment;
use comity_simnet::replay::Replay;
use comity_simnet::run::Source;
use comity_simnet::stage::Stage;
use serde::{Deserialize, Serialize};

use crate::entropy;
use crate::linked::{self, NotLinked};
use crate::nodes::StartError;
use crate::world::{Outcome, World};

/// What a run came to. The same source and seed give the same report. Its words are those of the first tier's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which tier ran: always `swarm`.
    pub tier: &'static str,
    /// The scenario's name.
    pub scenario: String,
    /// The hash of its text.
    pub scenario_hash: String,
    /// The seed.
    pub seed: u64,
    /// The commit of the code that ran.
    pub commit: String,
    /// The hash of all that happened, in order, every byte on the network among it.
    pub trace_hash: String,
    /// How much time was simulated.
    pub simulated_ms: u64,
    /// What did not hold; empty when all was well.
    pub violations: Vec<Violation>,
    /// What was measured.
    pub figures: Figures,
    /// The line that runs this again.
    pub replay: String,
}

/// What a run has measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Nodes of the federation.
    pub nodes: usize,
    /// Events in the trace.
    pub events: u64,
    /// When all had converged for the first time, in milliseconds; none when faults began before.
    pub converged_ms: Option<u64>,
    /// How long after the last fault all had healed.
    pub healed_ms: Option<u64>,
    /// What became of calls.
    pub calls: BTreeMap<String, u64>,
    /// How long answered calls took.
    pub call_ms: Option<Took>,
    /// How many nodes each running node knows and does not hold dead, itself among them, summed up over all.
    pub known: u64,
    /// Bytes that all nodes sent, with what TCP and IP add.
    pub bytes_sent: u64,
    /// Bytes a second that one node sent on average, from when all had healed to the end.
    pub quiet_bytes_per_node_s: Option<u64>,
}

/// How long something took, in two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// The median.
    pub p50: u64,
    /// The most.
    pub max: u64,
}

impl Report {
    /// Whether all was well.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The scenario cannot be run in this tier.
    #[error(transparent)]
    Scenario(#[from] comity_simnet::run::RunError),
    /// The run could not be repeated, so it is not begun.
    #[error(transparent)]
    NotLinked(#[from] NotLinked),
    /// A node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The machine gives no thread or no runtime.
    #[error("cannot begin a run")]
    Machine(#[source] std::io::Error),
    /// A bug of the simulator or of the mesh.
    #[error("the run panicked")]
    Panicked,
}

/// Runs a scenario with a seed. `progress` is told from time to time how much has been simulated.
///
/// Once a process: libp2p numbers connections and listeners through the whole life of a process, so that a second run in the
/// same one is a good run, and not the same as it would be in a process of its own.
///
/// # Errors
/// [`RunError`].
pub fn run(
    source: &Source,
    seed: u64,
    commit: &str,
    progress: impl FnMut(Duration) + Send,
) -> Result<Report, RunError> {
    let stage = Stage::new(&source.scenario, seed)?;
    // A thread of its own: the keys of hash tables and the state of generators are kept by thread.
    std::thread::scope(|scope| {
        let body = || on_thread(source, seed, commit, stage, progress);
        let thread = std::thread::Builder::new().name("run".to_owned()).spawn_scoped(scope, body);
        thread.map_err(RunError::Machine)?.join().unwrap_or(Err(RunError::Panicked))
    })
}

fn on_thread(
    source: &Source,
    seed: u64,
    commit: &str,
    stage: Stage,
    mut progress: impl FnMut(Duration),
) -> Result<Report, RunError> {
    entropy::seed(seed);
    let paused = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    paused().map_err(RunError::Machine)?.block_on(linked::check())?;
    let runtime = paused().map_err(RunError::Machine)?;
    runtime.block_on(async {
        let mut world = World::new(source.scenario.clone(), stage);
        let outcome = world.run(|at| progress(at.since(Moment::default()))).await?;
        Ok(report(source, seed, commit, &world, outcome))
    })
}

fn report(source: &Source, seed: u64, commit: &str, world: &World, outcome: Outcome) -> Report {
    Report {
        tier: "swarm",
        scenario: source.scenario.name.clone(),
        scenario_hash: source.hash.clone(),
        seed,
        commit: commit.to_owned(),
        trace_hash: outcome.trace_hash.clone(),
        simulated_ms: outcome.ended.as_millis(),
        violations: world.judge.violations.clone(),
        figures: figures(source, world, &outcome),
        replay: Replay::of(source, seed, commit).to_string(),
    }
}

fn figures(source: &Source, world: &World, outcome: &Outcome) -> Figures {
    let faults_end = Moment::after(source.scenario.phases.faults_for);
    let healed = world.judge.healed;
    let quiet =
        healed.map(|healed| outcome.ended.since(healed)).filter(|quiet| *quiet >= Duration::from_secs(1));
    let quiet_ms = quiet.and_then(|quiet| u64::try_from(quiet.as_millis()).ok());
    Figures {
        nodes: outcome.nodes,
        events: outcome.events,
        converged_ms: world.judge.converged.map(Moment::as_millis),
        healed_ms: healed.map(|healed| healed.as_millis().saturating_sub(faults_end.as_millis())),
        calls: world.book.outcomes().into_iter().map(|(word, count)| (word.to_owned(), count)).collect(),
        call_ms: world.book.answered_ms().map(|(p50, max)| Took { p50, max }),
        known: outcome.known,
        bytes_sent: outcome.bytes_sent,
        quiet_bytes_per_node_s: quiet_ms.map(|ms| outcome.quiet_bytes * 1000 / ms / outcome.running.max(1)),
    }
}
