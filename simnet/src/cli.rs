//! The command line: `run`, `soak`, `replay`, `list`.
//!
//! The only part of the simulator that looks at a clock, at files and at the terminal; a run sees none of them.

pub mod commit;
mod progress;
mod soak;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::library::{self, BUILT_IN};
use crate::replay::Replay;
use crate::run::{Report, Source, run};
use crate::scenario::{SCENARIO_BYTES_MAX, nearest};

use progress::Progress;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All was well.
    Ok = 0,
    /// An invariant or an expectation did not hold.
    Violated = 1,
    /// Wrong usage, or a scenario with mistakes.
    Usage = 64,
}

/// Why a command came to nothing; all of it is the user's to mend.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// No such scenario.
    #[error("no scenario is called `{0}` and there is no such file{1}")]
    NoScenario(String, String),
    /// The file cannot be read.
    #[error("cannot read {0}")]
    Read(String, #[source] std::io::Error),
    /// It is too large, or not text.
    #[error("{0} is no scenario: it is larger than {SCENARIO_BYTES_MAX} bytes, or not UTF-8 text")]
    NoText(String),
    /// It has mistakes.
    #[error("{place} has mistakes:\n{mistakes}")]
    Mistakes {
        /// Where it is.
        place: String,
        /// What is wrong.
        mistakes: crate::scenario::Mistakes,
    },
    /// The line is no replay line.
    #[error(transparent)]
    Replay(#[from] crate::replay::ReplayError),
    /// The scenario is another one now.
    #[error("{place} has changed: its hash is {now}, and the run had {then}")]
    Changed {
        /// Where it is.
        place: String,
        /// Its hash now.
        now: String,
        /// Its hash then.
        then: String,
    },
    /// The scenario cannot be run.
    #[error(transparent)]
    Run(#[from] crate::run::RunError),
}

/// Simulates whole federations of Comity nodes, deterministically.
#[derive(Debug, Parser)]
#[command(
    name = "simnet",
    version,
    long_about = "Runs the protocol code of Comity nodes over simulated networks, clocks and disks. One scenario and one \
seed give one run, on every machine; a run that breaks an invariant prints one line that runs it again.",
    after_help = "Begin here:
  simnet list
  simnet run residency --seed 1
  simnet soak --seeds 50 --minutes 1

SCENARIO is the name of a built-in scenario or the path of a TOML file.
Exit codes: 0 all was well, 1 an invariant or an expectation did not hold, 64 wrong usage or a scenario with mistakes.",
    max_term_width = 120
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs one scenario with one seed
    Run {
        /// A built-in scenario, or a file
        scenario: String,
        /// The seed; the same seed gives the same run
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Runs many seeds, one after another, until one breaks an invariant
    Soak {
        /// Built-in scenarios or files; all built-in ones when none is named
        scenarios: Vec<String>,
        /// How many seeds of each scenario
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first seed
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Stop after so many minutes
        #[arg(long)]
        minutes: Option<u64>,
    },
    /// Runs again what a failure's line says
    Replay {
        /// The line
        line: String,
    },
    /// Lists the built-in scenarios
    List,
    /// Prints a built-in scenario, to begin one's own from
    Show {
        /// Its name
        scenario: String,
    },
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let help = !error.use_stderr();
            // A terminal that takes no output leaves nothing to be done about it.
            let _ = error.print();
            return ExitCode::from(if help { Exit::Ok as u8 } else { Exit::Usage as u8 });
        }
    };
    match execute(&cli) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            eprintln!("simnet: {error}{}", source.unwrap_or_default());
            ExitCode::from(Exit::Usage as u8)
        }
    }
}

fn execute(cli: &Cli) -> Result<Exit, CliError> {
    match &cli.command {
        Command::Run { scenario, seed } => run_one(&find(scenario)?, *seed, cli.json),
        Command::Soak { scenarios, seeds, from, minutes } => {
            let named: Vec<&str> = match scenarios.as_slice() {
                [] => BUILT_IN.iter().map(|built_in| built_in.name).collect(),
                some => some.iter().map(String::as_str).collect(),
            };
            let sources = named.into_iter().map(find).collect::<Result<Vec<_>, _>>()?;
            soak::soak(&sources, *from, *seeds, *minutes, cli.json)
        }
        Command::Replay { line } => replay(&line.parse()?, cli.json),
        Command::List => {
            list(cli.json)?;
            Ok(Exit::Ok)
        }
        Command::Show { scenario } => match library::find(scenario) {
            Some(built_in) => {
                say(built_in.text.trim_end());
                Ok(Exit::Ok)
            }
            None => Err(unknown(scenario)),
        },
    }
}

/// Prints a line. A reader that has gone, such as `head`, is no fault of ours.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn find(place: &str) -> Result<Source, CliError> {
    let mistaken = |mistakes| CliError::Mistakes { place: place.to_owned(), mistakes };
    if let Some(built_in) = library::find(place) {
        return built_in.source().map_err(mistaken);
    }
    if !Path::new(place).is_file() {
        return Err(unknown(place));
    }
    library::source(place, &read(place)?).map_err(mistaken)
}

fn read(place: &str) -> Result<String, CliError> {
    let failed = |error| CliError::Read(place.to_owned(), error);
    let length = std::fs::metadata(place).map_err(failed)?.len();
    if length > SCENARIO_BYTES_MAX as u64 {
        return Err(CliError::NoText(place.to_owned()));
    }
    String::from_utf8(std::fs::read(place).map_err(failed)?).map_err(|_| CliError::NoText(place.to_owned()))
}

fn unknown(place: &str) -> CliError {
    let near = nearest(place, BUILT_IN.iter().map(|built_in| built_in.name));
    let hint = near.map_or("; `simnet list` has the built-in ones".to_owned(), |near| {
        format!("; did you mean `{near}`?")
    });
    CliError::NoScenario(place.to_owned(), hint)
}

fn run_one(source: &Source, seed: u64, json: bool) -> Result<Exit, CliError> {
    let mut progress = Progress::new(source.scenario.phases.total(), json);
    let report = run(source, seed, &commit::current(), |at| progress.show(&source.scenario.name, seed, at))?;
    progress.clear();
    tell(&report, json);
    Ok(if report.is_ok() { Exit::Ok } else { Exit::Violated })
}

fn replay(replay: &Replay, json: bool) -> Result<Exit, CliError> {
    let source = find(&replay.place)?;
    if source.hash != replay.hash {
        let (place, now, then) = (replay.place.clone(), source.hash, replay.hash.clone());
        return Err(CliError::Changed { place, now, then });
    }
    let commit = commit::current();
    if commit != replay.commit {
        eprintln!("simnet: this is commit {commit}, and the run was on {}: it may differ", replay.commit);
    }
    run_one(&source, replay.seed, json)
}

fn tell(report: &Report, json: bool) {
    if json {
        say(&serde_json::to_string(report).unwrap_or_default());
        return;
    }
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
        "  converged after {}, healed {} after the last fault",
        seconds(figures.converged_ms),
        seconds(figures.healed_ms)
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
    tell_violations(report);
}

fn tell_violations(report: &Report) {
    for violation in &report.violations {
        say(&format!("VIOLATED {violation}"));
    }
    if !report.is_ok() {
        say(&format!("simnet replay '{}'", report.replay));
    }
}

fn list(json: bool) -> Result<(), CliError> {
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
