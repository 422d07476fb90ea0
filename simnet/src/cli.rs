//! The command line: `run`, `soak`, `replay`, `list`, `show`.
//!
//! The only part of the simulator that looks at a clock, at files and at the terminal; a run sees none of them.
//! `one` makes a single run with its reports, `soak` many, `failure` makes one that failed smaller and saves it, `find`
//! reads scenarios, `tell` prints.

pub mod commit;
mod failure;
mod figures;
mod find;
mod one;
mod progress;
mod soak;
mod tell;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::library;
use crate::scenario::SCENARIO_BYTES_MAX;

use find::{find, unknown};
use tell::say;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All was well.
    Ok = 0,
    /// An invariant or an expectation did not hold.
    Violated = 1,
    /// Wrong usage, a scenario with mistakes, or a file that cannot be read or written.
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
    /// A report or a case cannot be written.
    #[error("cannot write {0}")]
    Write(String, #[source] std::io::Error),
}

/// Simulates whole federations of Comity nodes, deterministically.
#[derive(Debug, Parser)]
#[command(
    name = "simnet",
    version,
    long_about = "Runs the protocol code of Comity nodes over simulated networks, clocks and disks. One scenario and one \
seed give one run, on every machine; a run that breaks an invariant prints one line that runs it again, and is made \
smaller and saved.",
    after_help = "Begin here:
  simnet list
  simnet run residency --seed 1
  simnet run residency --report-html residency.html
  simnet soak --seeds 50 --minutes 1

SCENARIO is the name of a built-in scenario or the path of a TOML file.
Exit codes: 0 all was well, 1 an invariant or an expectation did not hold, 64 wrong usage, a scenario with mistakes, or a \
file that cannot be read or written.",
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
        #[command(flatten)]
        reports: Reports,
        #[command(flatten)]
        shrinking: Shrinking,
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
        #[command(flatten)]
        reports: Reports,
        #[command(flatten)]
        shrinking: Shrinking,
    },
    /// Measures a federation of so many nodes: the figures of docs/performance.md
    Figures {
        /// What to measure; all of adverts, lossy, newcomers, split and deaths when none is named
        only: Vec<String>,
        /// How many nodes
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        /// The seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Runs again what a failure's line says
    Replay {
        /// The line
        line: String,
        #[command(flatten)]
        reports: Reports,
    },
    /// Lists the built-in scenarios
    List,
    /// Prints a built-in scenario, to begin one's own from
    Show {
        /// Its name
        scenario: String,
    },
}

/// What is written of a run besides what is printed; of a soak, of the run that fails.
#[derive(Debug, Default, Args)]
struct Reports {
    /// Write what happened as JSON, one object a line
    #[arg(long, value_name = "FILE")]
    report_jsonl: Option<PathBuf>,
    /// Write a timeline as one HTML page that needs nothing else
    #[arg(long, value_name = "FILE")]
    report_html: Option<PathBuf>,
}

/// What is done with a run that fails.
#[derive(Debug, Args)]
struct Shrinking {
    /// Do not make a failing run smaller and save it
    #[arg(long)]
    no_shrink: bool,
    /// How long a failing run is made smaller
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    shrink_for: u64,
    /// Where cases are saved
    #[arg(long, value_name = "DIRECTORY", default_value = "simnet-cases")]
    cases: PathBuf,
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
        Command::Run { scenario, seed, reports, shrinking } => {
            one::run_one(&find(scenario)?, *seed, reports, Some(shrinking), cli.json)
        }
        Command::Soak { scenarios, seeds, from, minutes, reports, shrinking } => {
            let named: Vec<&str> = match scenarios.as_slice() {
                [] => library::soaked().map(|built_in| built_in.name).collect(),
                some => some.iter().map(String::as_str).collect(),
            };
            let sources = named.into_iter().map(find).collect::<Result<Vec<_>, _>>()?;
            let plan = soak::Plan { from: *from, seeds: *seeds, minutes: *minutes };
            soak::soak(&sources, plan, reports, shrinking, cli.json)
        }
        Command::Figures { only, nodes, seed } => figures::figures(*nodes, *seed, only, cli.json),
        Command::Replay { line, reports } => one::replay(&line.parse()?, reports, cli.json),
        Command::List => {
            tell::list(cli.json)?;
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
