//! Many seeds, one after another.
#![expect(clippy::disallowed_methods, reason = "how long a soak may take is real time; no run sees it")]

use std::time::{Duration, Instant};

use serde::Serialize;

use super::one::finish;
use super::progress::Progress;
use super::tell::say;
use super::{CliError, Exit, Reports, Shrinking, commit};
use crate::run::{Report, Source, run, run_recorded};

/// Which seeds, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// The first.
    pub(super) from: u64,
    /// How many of each scenario.
    pub(super) seeds: u64,
    /// Stop after so many minutes.
    pub(super) minutes: Option<u64>,
}

/// What a soak came to.
#[derive(Serialize)]
struct Soaked {
    runs: u64,
    failed: u64,
    simulated_s: u64,
    took_s: f64,
    out_of_time: bool,
}

/// Runs seed after seed, every scenario with each, until one fails, all are done or the time is up.
pub(super) fn soak(
    sources: &[Source],
    plan: Plan,
    reports: &Reports,
    shrinking: &Shrinking,
    json: bool,
) -> Result<Exit, CliError> {
    let (began, commit) = (Instant::now(), commit::current());
    let limit = plan.minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60)));
    let all = plan.seeds.saturating_mul(sources.len() as u64);
    let mut soaked = Soaked { runs: 0, failed: 0, simulated_s: 0, took_s: 0.0, out_of_time: false };
    let mut failed: Option<(&Source, Report)> = None;
    'all: for seed in plan.from..plan.from.saturating_add(plan.seeds) {
        for source in sources {
            if limit.is_some_and(|limit| began.elapsed() >= limit) {
                soaked.out_of_time = true;
                break 'all;
            }
            let before = format!("{} of {all} runs well, {} s; ", soaked.runs, began.elapsed().as_secs());
            let mut progress = Progress::new(source.scenario.phases.total(), json).after(before);
            let report = run(source, seed, &commit, |at| progress.show(&source.scenario.name, seed, at))?;
            progress.clear();
            soaked.runs += 1;
            soaked.simulated_s += report.simulated_ms / 1000;
            if !report.is_ok() {
                soaked.failed += 1;
                failed = Some((source, report));
                break 'all;
            }
        }
    }
    soaked.took_s = began.elapsed().as_secs_f64();
    if let Some((source, report)) = &failed {
        if reports.are_wanted() {
            let (again, chronicle) = run_recorded(source, report.seed, &commit, |_| ())?;
            reports.write(source, &again, &chronicle)?;
        }
        finish(source, report, Some(shrinking), json)?;
    }
    tell_soaked(&soaked, json);
    Ok(if soaked.failed == 0 { Exit::Ok } else { Exit::Violated })
}

fn tell_soaked(soaked: &Soaked, json: bool) {
    if json {
        return say(&serde_json::to_string(soaked).unwrap_or_default());
    }
    let ended = match (soaked.failed, soaked.out_of_time) {
        (0, false) => "all well",
        (0, true) => "all well until the time was up",
        _ => "one failed",
    };
    say(&format!(
        "{} run{}, {} s simulated in {:.1} s: {ended}",
        soaked.runs,
        if soaked.runs == 1 { "" } else { "s" },
        soaked.simulated_s,
        soaked.took_s
    ));
}
