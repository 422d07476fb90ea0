//! One run, with its reports.

use std::path::Path;

use super::failure::{self, Case};
use super::find::find;
use super::progress::Progress;
use super::{CliError, Exit, Reports, Shrinking, commit, tell};
use crate::chronicle::Chronicle;
use crate::replay::Replay;
use crate::report::{html, jsonl};
use crate::run::{Report, Source, run, run_recorded};

/// Runs, tells and writes; makes a failing run smaller where `shrinking` says how.
pub(super) fn run_one(
    source: &Source,
    seed: u64,
    reports: &Reports,
    shrinking: Option<&Shrinking>,
    json: bool,
) -> Result<Exit, CliError> {
    let mut progress = Progress::new(source.scenario.phases.total(), json);
    let tick = |at| progress.show(&source.scenario.name, seed, at);
    let commit = commit::current();
    let (report, chronicle) = if reports.are_wanted() {
        let (report, chronicle) = run_recorded(source, seed, &commit, tick)?;
        (report, Some(chronicle))
    } else {
        (run(source, seed, &commit, tick)?, None)
    };
    progress.clear();
    if let Some(chronicle) = &chronicle {
        reports.write(source, &report, chronicle)?;
    }
    finish(source, &report, shrinking, json)
}

/// Tells of a run; of one that failed, after it was made smaller and saved.
pub(super) fn finish(
    source: &Source,
    report: &Report,
    shrinking: Option<&Shrinking>,
    json: bool,
) -> Result<Exit, CliError> {
    let shrinking = shrinking.filter(|shrinking| !shrinking.no_shrink && !report.is_ok());
    if !json {
        tell::run(report);
    }
    let case = match shrinking {
        Some(shrinking) => failure::shrink_and_save(source, report, shrinking, json)?,
        None => None,
    };
    if json {
        tell::json(report, case.as_ref());
    } else if let Some(case) = &case {
        case.tell();
    }
    Ok(if report.is_ok() { Exit::Ok } else { Exit::Violated })
}

/// Runs again what a line says.
pub(super) fn replay(replay: &Replay, reports: &Reports, json: bool) -> Result<Exit, CliError> {
    let source = find(&replay.place)?;
    if source.hash != replay.hash {
        let (place, now, then) = (replay.place.clone(), source.hash, replay.hash.clone());
        return Err(CliError::Changed { place, now, then });
    }
    let commit = commit::current();
    if commit != replay.commit {
        eprintln!("simnet: this is commit {commit}, and the run was on {}: it may differ", replay.commit);
    }
    run_one(&source, replay.seed, reports, None, json)
}

impl Reports {
    pub(super) fn are_wanted(&self) -> bool {
        self.report_html.is_some() || self.report_jsonl.is_some()
    }

    pub(super) fn write(
        &self,
        source: &Source,
        report: &Report,
        chronicle: &Chronicle,
    ) -> Result<(), CliError> {
        if let Some(path) = &self.report_jsonl {
            write(path, &jsonl::lines(&source.scenario, report, chronicle))?;
        }
        if let Some(path) = &self.report_html {
            write(path, &html::page(&source.scenario, report, chronicle))?;
        }
        Ok(())
    }
}

/// Writes a file, in a directory that is made where it is missing.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = |error| CliError::Write(path.display().to_string(), error);
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

impl Case {
    fn tell(&self) {
        for line in self.lines() {
            tell::say(&line);
        }
    }
}
