//! The command line of the second tier: `run` and `list`. The only part that looks at clocks, files and the terminal.

mod cost;
mod twice;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use comity_simnet::cli::{Exit, commit};
use comity_simnet::library::{self, BUILT_IN};
use comity_simnet::run::Source;
use comity_simnet::scenario::{Mistakes, SCENARIO_BYTES_MAX, nearest};
use comity_simnet::stage::Stage;

use crate::run::{Report, RunError, run};
use cost::Cost;

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("no scenario is called `{0}` and there is no such file{1}")]
    NoScenario(String, String),
    #[error("cannot read {0}")]
    Read(String, #[source] std::io::Error),
    #[error("{0} is larger than {SCENARIO_BYTES_MAX} bytes")]
    TooLarge(String),
    #[error("{0} has mistakes:\n{1}")]
    Mistakes(String, Mistakes),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Twice(#[from] twice::TwiceError),
}

/// Runs federations of real Comity meshes over libp2p in virtual time, deterministically.
#[derive(Debug, Parser)]
#[command(
    name = "simnet-swarm",
    version,
    long_about = "The simulator's second tier: the shipped mesh with real gossipsub, Noise and Yamux, over a simulated network and \
under a paused clock. Scenarios and seeds are those of `simnet`.",
    after_help = "SCENARIO is the name of a built-in scenario or the path of a TOML file.
Exit codes: 0 all was well, 1 an invariant did not hold or two runs differ, 64 wrong usage or a scenario with mistakes.",
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
        /// Run it in two processes and compare all that happened
        #[arg(long)]
        twice: bool,
    },
    /// Lists the built-in scenarios that this tier can run
    List,
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
            eprintln!("simnet-swarm: {error}{}", source.unwrap_or_default());
            ExitCode::from(exit_of(&error) as u8)
        }
    }
}

/// A run that cannot be trusted is no wrong usage.
fn exit_of(error: &CliError) -> Exit {
    match error {
        CliError::Run(RunError::Scenario(_)) => Exit::Usage,
        CliError::Run(_) | CliError::Twice(_) => Exit::Violated,
        _ => Exit::Usage,
    }
}

fn execute(cli: &Cli) -> Result<Exit, CliError> {
    match &cli.command {
        Command::Run { scenario, seed, twice: true } => {
            find(scenario)?;
            let report = twice::run(scenario, *seed)?;
            say(report.trim_end());
            Ok(Exit::Ok)
        }
        Command::Run { scenario, seed, twice: false } => run_one(&find(scenario)?, *seed, cli.json),
        Command::List => {
            list();
            Ok(Exit::Ok)
        }
    }
}

/// Prints a line. A reader that has gone, such as `head`, is no fault of ours.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn list() {
    for built_in in BUILT_IN {
        let source = built_in.source().ok();
        let here = source.as_ref().filter(|source| Stage::new(&source.scenario, 1).is_ok());
        if let Some(source) = here {
            say(&format!("{:<14} {}", built_in.name, source.scenario.about));
        }
    }
}

fn find(place: &str) -> Result<Source, CliError> {
    let mistaken = |mistakes| CliError::Mistakes(place.to_owned(), mistakes);
    if let Some(built_in) = library::find(place) {
        return built_in.source().map_err(mistaken);
    }
    if !Path::new(place).is_file() {
        let near = nearest(place, BUILT_IN.iter().map(|built_in| built_in.name));
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return Err(CliError::NoScenario(place.to_owned(), hint));
    }
    library::source(place, &read(place)?).map_err(mistaken)
}

fn read(place: &str) -> Result<String, CliError> {
    let failed = |error| CliError::Read(place.to_owned(), error);
    if std::fs::metadata(place).map_err(failed)?.len() > SCENARIO_BYTES_MAX as u64 {
        return Err(CliError::TooLarge(place.to_owned()));
    }
    std::fs::read_to_string(place).map_err(failed)
}

fn run_one(source: &Source, seed: u64, json: bool) -> Result<Exit, CliError> {
    let report = run(source, seed, &commit::current(), |_| {})?;
    tell(&report, json);
    Cost::of_this_process().tell(report.simulated_ms);
    Ok(if report.is_ok() { Exit::Ok } else { Exit::Violated })
}

fn tell(report: &Report, json: bool) {
    if json {
        say(&serde_json::to_string(report).unwrap_or_default());
        return;
    }
    let figures = &report.figures;
    let seconds = |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
    say(&format!(
        "{} seed {}: {} real nodes, {} s simulated, {} events, trace {}",
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
    if !figures.calls.is_empty() {
        let calls: Vec<_> = figures.calls.iter().map(|(word, count)| format!("{count} {word}")).collect();
        say(&format!("  calls: {}", calls.join(", ")));
    }
    if let Some(bytes) = figures.quiet_bytes_per_node_s {
        say(&format!("  a node sends {bytes} bytes a second when all is quiet"));
    }
    for violation in &report.violations {
        say(&format!("VIOLATED {violation}"));
    }
    if !report.is_ok() {
        say(&format!("simnet-swarm run {} --seed {}   # {}", report.scenario, report.seed, report.replay));
    }
}
