//! What is done with a run that failed: it is made smaller, and the smaller one is saved with its timeline.
#![expect(clippy::disallowed_methods, reason = "how long a search may take is real time; no run sees it")]

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::one::write;
use super::progress::Progress;
use super::{CliError, Shrinking};
use crate::judge::Violation;
use crate::library;
use crate::report::html;
use crate::run::{Report, Source, run_recorded};
use crate::shrink::{Shrunk, Size, shrink};

/// A failure that was made smaller and saved.
#[derive(Debug, Serialize)]
pub(super) struct Case {
    /// The scenario.
    file: String,
    /// Its timeline.
    timeline: String,
    /// The seed with which it fails.
    seed: u64,
    /// The line that runs it.
    replay: String,
    /// What it breaks.
    violation: Violation,
    /// How large the run was.
    from: Size,
    /// How large it is now.
    to: Size,
    /// Runs that the search made.
    attempts: u32,
    /// Whether nothing more could be taken away, as apart from time having been up.
    complete: bool,
}

/// Makes a failing run smaller for as long as it may take, and saves it. `None` when there was no time for anything.
pub(super) fn shrink_and_save(
    source: &Source,
    report: &Report,
    shrinking: &Shrinking,
    json: bool,
) -> Result<Option<Case>, CliError> {
    let Some(violation) = report.violations.first() else { return Ok(None) };
    let (began, limit) = (Instant::now(), Duration::from_secs(shrinking.shrink_for));
    let mut progress = Progress::new(limit, json);
    let shrunk = shrink(&source.scenario, report.seed, violation, &mut |status| {
        progress.shrinking(began.elapsed(), status);
        began.elapsed() < limit
    });
    progress.clear();
    shrunk.map(|shrunk| save(report, shrunk, &shrinking.cases)).transpose()
}

fn save(report: &Report, shrunk: Shrunk, directory: &Path) -> Result<Case, CliError> {
    let stem = format!("{}-{}", file_name(&report.scenario), report.seed);
    let (file, timeline) = (directory.join(format!("{stem}.toml")), directory.join(format!("{stem}.html")));
    let place = file.display().to_string();
    let text = format!("{}\n{}", head(report, &shrunk, &place), shrunk.text);
    write(&file, &text)?;
    let source = library::source(&place, &text)
        .map_err(|mistakes| CliError::Mistakes { place: place.clone(), mistakes })?;
    let (again, chronicle) = run_recorded(&source, shrunk.seed, &report.commit, |_| ())?;
    write(&timeline, &html::page(&source.scenario, &again, &chronicle))?;
    Ok(Case {
        file: place,
        timeline: timeline.display().to_string(),
        seed: shrunk.seed,
        replay: again.replay,
        violation: shrunk.violation,
        from: shrunk.sizes.0,
        to: shrunk.sizes.1,
        attempts: shrunk.attempts,
        complete: shrunk.complete,
    })
}

fn head(report: &Report, shrunk: &Shrunk, place: &str) -> String {
    let violation = shrunk.violation.to_string().replace(char::is_control, " ");
    format!(
        "# {violation}\n# Made smaller from: simnet replay '{}'\n# Run it with: simnet run {place} --seed {}\n",
        report.replay.replace(char::is_control, " "),
        shrunk.seed
    )
}

/// A scenario's name as part of a file's: letters, digits, `-`, `_` and `.`.
fn file_name(scenario: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    scenario.chars().map(plain).collect::<String>().trim_start_matches('.').to_owned()
}

impl Case {
    /// What people are told.
    pub(super) fn lines(&self) -> Vec<String> {
        let ended =
            if self.complete { "nothing more can be taken away" } else { "time was up: --shrink-for" };
        vec![
            format!("shrunk from {}", self.from),
            format!("         to {} in {} runs; {ended}", self.to, self.attempts),
            format!("saved {}, and its timeline {}", self.file, self.timeline),
            format!("simnet run {} --seed {}", self.file, self.seed),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_a_file_of_its_directory_whatever_its_scenario_is_called() {
        for (name, file) in [("calm", "calm"), ("../../etc", "-..-etc"), ("a b/ä", "a-b--"), (".x", "x")] {
            assert_eq!(file_name(name), file, "{name}");
        }
    }
}
