//! What is printed of runs and scenarios.

use std::io::Write as _;

use serde::Serialize;

use super::CliError;
use super::failure::Case;
use crate::library::BUILT_IN;
use crate::run::Report;

/// Prints a line. A reader that has gone, such as `head`, is no fault of ours.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    case: Option<&'a Case>,
}

/// Prints a run for programs.
pub(super) fn json(report: &Report, case: Option<&Case>) {
    say(&serde_json::to_string(&Told { report, case }).unwrap_or_default());
}

/// Prints a run for people.
pub(super) fn run(report: &Report) {
    let figures = &report.figures;
    let seconds = |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
    say(&format!(
        "{} seed {}: {} nodes, {} s simulated, {} events, trace {}",
        report.scenario,
        report.seed,
        figures.nodes,
        report.simulated_ms / 1000,
        figures.events,
        report.trace_hash
    ));
    say(&format!(
        "  converged after {}, {}",
        seconds(figures.converged_ms),
        figures.healed_ms.map_or("not healed".to_owned(), |ms| {
            format!("healed {} after the last fault", seconds(Some(ms)))
        })
    ));
    if let Some(spread) = &figures.advert_spread_ms {
        say(&format!(
            "  adverts reach a node in {} ms, p99 {} ms, at most {} ms",
            spread.p50, spread.p99, spread.max
        ));
    }
    if !figures.calls.is_empty() {
        let calls: Vec<_> = figures.calls.iter().map(|(word, count)| format!("{count} {word}")).collect();
        say(&format!("  calls: {}", calls.join(", ")));
    }
    violations(report);
}

fn violations(report: &Report) {
    for violation in &report.violations {
        say(&format!("VIOLATED {violation}"));
    }
    if !report.is_ok() {
        say(&format!("simnet replay '{}'", report.replay));
    }
}

/// Prints the built-in scenarios.
pub(super) fn list(json: bool) -> Result<(), CliError> {
    for built_in in BUILT_IN {
        let place = built_in.name.to_owned();
        let source = built_in.source().map_err(|mistakes| CliError::Mistakes { place, mistakes })?;
        let scenario = &source.scenario;
        if json {
            let about = serde_json::json!({
                "name": built_in.name, "about": scenario.about, "hash": source.hash, "nodes_max": scenario.nodes_max(),
            });
            say(&about.to_string());
        } else {
            say(&format!("{:<14} {}", built_in.name, scenario.about));
        }
    }
    Ok(())
}
