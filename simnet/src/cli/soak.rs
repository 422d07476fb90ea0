//! Many seeds, one after another.
#![expect(clippy::disallowed_methods, reason = "how long a soak may take is real time; no run sees it")]

use std::time::{Duration, Instant};

use serde::Serialize;

use super::progress::Progress;
use super::{CliError, Exit, commit, say, tell};
use crate::run::{Source, run};

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
    from: u64,
    seeds: u64,
    minutes: Option<u64>,
    json: bool,
) -> Result<Exit, CliError> {
    let (began, commit) = (Instant::now(), commit::current());
    let limit = minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60)));
    let mut soaked = Soaked { runs: 0, failed: 0, simulated_s: 0, took_s: 0.0, out_of_time: false };
    'all: for seed in from..from.saturating_add(seeds) {
        for source in sources {
            if limit.is_some_and(|limit| began.elapsed() >= limit) {
                soaked.out_of_time = true;
                break 'all;
            }
            let mut progress = Progress::new(source.scenario.phases.total(), json);
            let report = run(source, seed, &commit, |at| progress.show(&source.scenario.name, seed, at))?;
            progress.clear();
            soaked.runs += 1;
            soaked.simulated_s += report.simulated_ms / 1000;
            if !report.is_ok() {
                soaked.failed += 1;
                tell(&report, json);
                break 'all;
            }
        }
    }
    soaked.took_s = began.elapsed().as_secs_f64();
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
        "{} runs, {} s simulated in {:.1} s: {ended}",
        soaked.runs, soaked.simulated_s, soaked.took_s
    ));
}
