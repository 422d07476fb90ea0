//! How the demo is told: to people as a story, to programs as one object a step.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::Ending;
use super::cast::HOME;
use super::stage::Stage;
use super::step::{Fault, Step, Told};
use super::steps::STEPS;
use crate::cli::output::{BAD, CAUTION, GOOD, Output, clean};

/// Tells through an [`Output`].
#[derive(Clone, Copy)]
pub(super) struct Teller {
    out: Output,
}

/// What programs read of a step.
#[derive(Serialize)]
struct Line<'a> {
    step: &'a str,
    ok: bool,
    detail: Value,
}

impl Teller {
    pub(super) fn new(out: Output) -> Self {
        Self { out }
    }

    pub(super) fn begins(self) {
        self.say("Comity: three organisations share tools, each under its own law. Everything here runs on this machine.");
    }

    pub(super) fn step_begins(self, at: usize, step: &Step) {
        let (number, count, title) = (at + 1, STEPS.len(), step.title);
        self.say(&format!("\n{CAUTION}{number}/{count} {title}{CAUTION:#}\n{}\n", wrap(step.about)));
    }

    pub(super) fn step_held(self, step: &Step, told: Told, took: Duration) {
        let Told { mut detail, text } = told;
        detail["took_ms"] = json!(took.as_millis() as u64);
        let line = Line { step: step.name, ok: true, detail };
        let seconds = took.as_secs_f64();
        self.out.result(&line, |_| format!("{}\n{GOOD}✓{GOOD:#} {seconds:.1} s", indent(&text)));
    }

    pub(super) fn step_failed(self, step: &Step, fault: &Fault, logs: &[(&str, Vec<String>)]) {
        let error = crate::telemetry::Chain(fault).to_string();
        let shown: serde_json::Map<_, _> =
            logs.iter().map(|(name, lines)| ((*name).to_owned(), json!(lines))).collect();
        let line = Line { step: step.name, ok: false, detail: json!({ "error": error, "log": shown }) };
        self.out.result(&line, |_| {
            let logs =
                logs.iter().map(|(name, lines)| format!("\nThe end of {name}'s log:\n{}", lines.join("\n")));
            clean_but_styled(&error, &logs.collect::<String>())
        });
    }

    /// How a client of the user's own can be pointed at the federation.
    pub(super) fn staying(self, stage: &Stage) {
        let node = &stage.nodes[HOME];
        let program = std::env::current_exe().unwrap_or_else(|_| "comity".into());
        let url = node.status.mcp_url.as_deref().unwrap_or_default();
        let arguments = json!(["stdio", "--data-dir", node.data_dir()]);
        let config = json!({ "mcpServers": { "comity": { "command": program, "args": arguments } } });
        let stdio = format!("{} stdio --data-dir {}", program.display(), node.data_dir().display());
        let detail = json!({ "url": url, "config": config, "stdio": stdio, "data_dir": node.data_dir() });
        self.out.result(&Line { step: "staying", ok: true, detail }, |_| {
            let config = serde_json::to_string_pretty(&config).unwrap_or_default();
            format!(
                "\n{CAUTION}The federation stays up.{CAUTION:#} Point an MCP client at {}:\n\n  over HTTP   {url}\n  over stdio  \
                 {stdio}\n\nA desktop client takes this configuration:\n\n{}\n\nLook around:\n\n  {} tools --data-dir {}\n\n\
                 Ctrl-C ends it.",
                node.role.name,
                indent(&config),
                program.display(),
                node.data_dir().display(),
            )
        });
    }

    pub(super) fn ended(self, ending: Ending, kept: Option<&Path>) {
        self.say(&match ending {
            Ending::Held => format!("\n{GOOD}Every step held.{GOOD:#}"),
            Ending::Failed => format!("\n{BAD}A step did not hold; those after it were not played.{BAD:#}"),
            Ending::Interrupted => "\nInterrupted.".to_owned(),
        });
        if let Some(kept) = kept {
            self.say(&format!("What the nodes wrote is in {}.", kept.display()));
        }
    }

    /// Something that is for people only.
    fn say(self, text: &str) {
        if !self.out.is_json() {
            self.out.result(&(), |()| text.to_owned());
        }
    }
}

fn clean_but_styled(error: &str, logs: &str) -> String {
    format!("{BAD}✗ {}{BAD:#}\n{}", clean(error), clean(logs))
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// Lines of a width that is easy to read.
fn wrap(text: &str) -> String {
    const WIDTH: usize = 100;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_between_words() {
        let text = "word ".repeat(60);
        let wrapped = wrap(&text);
        assert!(wrapped.lines().all(|line| line.len() <= 100) && wrapped.lines().count() == 3, "{wrapped}");
        assert_eq!(wrapped.split_whitespace().count(), 60);
        assert_eq!(indent("a\nb"), "  a\n  b");
    }
}
