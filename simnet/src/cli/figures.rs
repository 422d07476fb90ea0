//! The figures of docs/performance.md: what a federation of so many nodes does, and what simulating it costs.
#![expect(clippy::disallowed_methods, reason = "what a run costs is real time; no run sees it")]

use std::time::{Duration, Instant};

use serde::Serialize;

use super::progress::Progress;
use super::tell::say;
use super::{CliError, Exit, commit};
use crate::library;
use crate::run::{Report, run};

/// What is measured, each as a scenario in which `WEST` and `EAST` stand for three and seven tenths of the nodes.
const MEASURED: [(&str, &str); 5] = [
    ("adverts", include_str!("../../figures/adverts.toml")),
    ("lossy", include_str!("../../figures/lossy.toml")),
    ("newcomers", include_str!("../../figures/newcomers.toml")),
    ("split", include_str!("../../figures/split.toml")),
    ("deaths", include_str!("../../figures/deaths.toml")),
];

/// One scenario measured.
#[derive(Serialize)]
struct Measured<'a> {
    #[serde(flatten)]
    report: &'a Report,
    cpu_s: f64,
    simulated_s_per_cpu_s: f64,
    resident_mib_max: Option<u64>,
}

/// Measures a federation of `nodes`, all that there is or what `only` names.
pub(super) fn figures(nodes: usize, seed: u64, only: &[String], json: bool) -> Result<Exit, CliError> {
    let (commit, mut all_well) = (commit::current(), true);
    for (name, text) in
        MEASURED.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|one| one == name))
    {
        let west = (nodes * 3 / 10).max(1);
        let text =
            text.replace("WEST", &west.to_string()).replace("EAST", &(nodes - west).max(1).to_string());
        let source = library::source(name, &text)
            .map_err(|mistakes| CliError::Mistakes { place: (*name).to_owned(), mistakes })?;
        let (began, cpu) = (Instant::now(), cpu_time());
        let mut progress = Progress::new(source.scenario.phases.total(), json);
        let report = run(&source, seed, &commit, |at| progress.show(name, seed, at))?;
        progress.clear();
        let cpu =
            cpu_time().zip(cpu).map_or_else(|| began.elapsed(), |(end, begin)| end.saturating_sub(begin));
        all_well &= report.is_ok();
        tell(&report, cpu, json);
    }
    Ok(if all_well { Exit::Ok } else { Exit::Violated })
}

fn tell(report: &Report, cpu: Duration, json: bool) {
    let simulated_s = report.simulated_ms as f64 / 1000.0;
    let measured = Measured {
        report,
        cpu_s: cpu.as_secs_f64(),
        simulated_s_per_cpu_s: simulated_s / cpu.as_secs_f64().max(0.01),
        resident_mib_max: resident_mib_max(),
    };
    if json {
        return say(&serde_json::to_string(&measured).unwrap_or_default());
    }
    let figures = &report.figures;
    say(&format!("{} with {} nodes, seed {}", report.scenario, figures.nodes, report.seed));
    let percentiles = [
        ("an advert at one other", figures.advert_spread_ms),
        ("a newcomer knows all", figures.newcomer_ms),
        ("a death known to one other", figures.death_ms),
        ("still called first after death", figures.to_dead_ms),
        ("a call answered", figures.call_ms),
    ];
    for (what, times) in percentiles.into_iter().filter_map(|(what, times)| Some((what, times?))) {
        say(&format!("  {what}: p50 {} ms, p99 {} ms, max {} ms", times.p50, times.p99, times.max));
    }
    let times = [
        ("all know the same after the last fault", figures.merged_ms, "ms"),
        ("and nobody who lives is held dead", figures.healed_ms, "ms"),
        ("sent by a node when quiet", figures.quiet_bytes_per_node_s, "bytes/s"),
    ];
    for (what, value, unit) in times.into_iter().filter_map(|(what, value, unit)| Some((what, value?, unit)))
    {
        say(&format!("  {what}: {value} {unit}"));
    }
    say(&format!(
        "  cost: {simulated_s:.0} s simulated in {:.1} CPU-s, {:.1} to 1, at most {} MiB resident so far",
        measured.cpu_s,
        measured.simulated_s_per_cpu_s,
        measured.resident_mib_max.map_or_else(|| "?".to_owned(), |mib| mib.to_string())
    ));
    report.violations.iter().for_each(|violation| say(&format!("  BROKEN {violation}")));
}

/// This process's CPU time, where the system tells it.
fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    // Linux tells it in hundredths of a second, whatever its own clock.
    Some(Duration::from_millis(ticks * 10))
}

/// The most memory that this process has had resident.
fn resident_mib_max() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}
