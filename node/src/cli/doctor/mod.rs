//! `comity doctor`: looks at everything that a node needs, and says how to mend what is wrong.
//!
//! Each check is one function that returns [`Check`]s; `files` needs the disk only, `network` and `servers` go out. All go
//! on whatever the others found, so that one run names everything.

mod files;
mod network;
mod servers;

use serde::Serialize;
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::output::{BAD, CAUTION, GOOD, clean};
use crate::config::{Loaded, NodeConfig};

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: String,
    state: State,
    detail: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Warn,
    Fail,
}

impl Check {
    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Check { name: name.into(), state: State::Ok, detail: detail.into(), mend: None }
    }

    fn warn(name: impl Into<String>, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Check { name: name.into(), state: State::Warn, detail: detail.into(), mend: Some(mend.into()) }
    }

    fn fail(name: impl Into<String>, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Check { state: State::Fail, ..Check::warn(name, detail, mend) }
    }
}

/// Ends with 1 when something must be mended.
pub(super) fn run(context: &Context) -> Result<Exit, CliError> {
    let checks = examine(context)?;
    let worst = checks.iter().map(|check| check.state).max().unwrap_or(State::Ok);
    let next = match worst {
        State::Ok => "all is well",
        State::Warn => "nothing stands in the way; look at the warnings when you can",
        State::Fail => "mend what failed, then run: comity doctor",
    };
    context.out.result(&json!({ "ok": worst != State::Fail, "checks": checks, "next": next }), |_| {
        let lines: Vec<String> = checks.iter().map(describe).collect();
        format!("{}\n\n{next}", lines.join("\n"))
    });
    Ok(if worst == State::Fail { Exit::Failed } else { Exit::Done })
}

fn examine(context: &Context) -> Result<Vec<Check>, CliError> {
    let mut checks = files::data_dir(&context.dir);
    let (config_checks, config) = configuration(context);
    checks.extend(config_checks);
    let (key_check, node) = files::node_key(&context.dir);
    checks.push(key_check);
    if let Some(config) = config {
        checks.extend(files::identity(&context.dir, &config, node));
        checks.extend(context.block_on(async { Ok(outside(context, &config).await) })?);
    }
    Ok(checks)
}

async fn outside(context: &Context, config: &NodeConfig) -> Vec<Check> {
    let mut checks = network::ports(context, config).await;
    checks.extend(network::seeds(config).await);
    checks.extend(servers::servers(config).await);
    checks
}

fn configuration(context: &Context) -> (Vec<Check>, Option<NodeConfig>) {
    let name = "configuration";
    match context.load() {
        Ok(Loaded { config, warnings }) => {
            let mut checks = vec![Check::ok(name, context.config_path.display().to_string())];
            checks.extend(
                warnings.list.iter().map(|warning| Check::warn(name, warning.to_string(), "see the hint")),
            );
            (checks, Some(config))
        }
        Err(error) => {
            let faults = error.faults.iter().map(|fault| format!("\n    {fault}")).collect::<String>();
            let mend = error.next.unwrap_or_else(|| "comity config check".to_owned());
            (vec![Check::fail(name, error.message + &faults, mend)], None)
        }
    }
}

fn describe(check: &Check) -> String {
    let (style, word) = match check.state {
        State::Ok => (GOOD, "ok  "),
        State::Warn => (CAUTION, "warn"),
        State::Fail => (BAD, "FAIL"),
    };
    let mend = check.mend.as_ref().map(|mend| format!("\n      mend: {}", clean(mend))).unwrap_or_default();
    format!("{style}{word}{style:#}  {}: {}{mend}", check.name, clean(&check.detail))
}

#[cfg(test)]
mod tests;
