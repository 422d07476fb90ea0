//! One run in two processes: whatever one process alone has, its addresses and its hash keys among it, must leave no trace.

use std::process::{Child, Command, Output, Stdio};

/// Why two runs do not count as the same.
#[derive(Debug, thiserror::Error)]
pub(super) enum TwiceError {
    #[error("cannot start this program again")]
    Spawn(#[source] std::io::Error),
    #[error("a run failed: {0}")]
    Failed(String),
    #[error("the same seed gave two runs:\n{0}\n{1}")]
    Differ(String, String),
}

/// Runs a scenario with a seed in two processes at once and returns the report, as JSON, that both came to.
pub(super) fn run(scenario: &str, seed: u64) -> Result<String, TwiceError> {
    let children = [spawn(scenario, seed)?, spawn(scenario, seed)?];
    let [one, other] = children.map(|child| child.wait_with_output().map_err(TwiceError::Spawn));
    let (one, other) = (report(&one?)?, report(&other?)?);
    if one == other { Ok(one) } else { Err(TwiceError::Differ(one, other)) }
}

fn spawn(scenario: &str, seed: u64) -> Result<Child, TwiceError> {
    let program = std::env::current_exe().map_err(TwiceError::Spawn)?;
    let mut command = Command::new(program);
    command.args(["run", scenario, "--json", "--seed", &seed.to_string()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(TwiceError::Spawn)
}

fn report(output: &Output) -> Result<String, TwiceError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(TwiceError::Failed(format!("{}{}", text(&output.stdout), text(&output.stderr))))
    }
}
