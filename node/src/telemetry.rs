//! Logs: to stderr, as text or as JSON, one line an event.
//!
//! ERROR is something the operator must mend; WARN is something that hurts but mends itself; INFO is a change of state
//! that an operator cares about; DEBUG is one line a call; TRACE is one line a message. Context stands in spans
//! (`call_id`, `peer`, `trace`), values in fields. Secrets stand nowhere.

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;

use clap::ValueEnum;
use serde::Serialize;
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// The filter when neither flag, environment nor configuration gives one: libraries speak only when something is wrong.
pub const LEVEL_DEFAULT: &str =
    "warn,comity=info,comity_node=info,comity_mesh=info,comity_protocol=info,comity_store=info";

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// A log filter that is known to be well formed, such as `info` or `warn,comity_mesh=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// Parses a filter in the syntax of `RUST_LOG`. A bare level applies to Comity; libraries stay at `warn`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = text.parse::<tracing::Level>().is_ok() || text == "off";
        let directives = if bare { LEVEL_DEFAULT.replace("info", text) } else { text.to_owned() };
        EnvFilter::builder()
            .parse(&directives)
            .map_err(|error| format!("{text:?} is not a log filter ({error})"))?;
        Ok(LogLevel(directives))
    }

    fn filter(&self) -> EnvFilter {
        EnvFilter::builder().parse_lossy(&self.0)
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        LogLevel(LEVEL_DEFAULT.to_owned())
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `[log]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// Text or JSON.
    pub format: LogFormat,
    /// What is logged.
    pub level: LogLevel,
}

/// Logging was set up twice in one process.
#[derive(Debug, Error)]
#[error("logging is already set up")]
pub struct AlreadyInitialised;

/// Sends this process's logs to stderr. Call once, before any task starts.
pub fn init(config: &LogConfig) -> Result<(), AlreadyInitialised> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(config.level.filter())
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    match config.format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).finish().try_init(),
    }
    .map_err(|_| AlreadyInitialised)
}

/// Shows an error with all its causes on one line, `a: b: c`: log it once, where it is handled.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_quietens_libraries_and_a_filter_is_taken_as_it_is() {
        for (text, expected) in [
            (
                "debug",
                Some(
                    "warn,comity=debug,comity_node=debug,comity_mesh=debug,comity_protocol=debug,comity_store=debug",
                ),
            ),
            ("warn,comity_mesh=trace", Some("warn,comity_mesh=trace")),
            ("comity_node=loud", None),
            ("a=b=c", None),
        ] {
            assert_eq!(
                LogLevel::parse(text).ok().map(|level| level.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_chain_names_every_cause_once() {
        #[derive(Debug, Error)]
        #[error("cannot start")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("port taken"));
        assert_eq!(Chain(&error).to_string(), "cannot start: port taken");
    }
}
