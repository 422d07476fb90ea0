//! `comity call`: one tool call from the command line.

use std::io::Read;
use std::path::Path;

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::constraints::ConstraintArgs;
use super::context::{Context, unexpected};
use super::exit::{CliError, Exit};
use super::output::{Output, clean};
use crate::control::messages::{CallReport, CallRequest, WhenOffline};
use crate::control::{Event, Request, Response};
use crate::exchange::Failure;
use crate::files::read_bounded;

/// Largest arguments, in bytes.
const ARGUMENTS_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  comity call get_current_time --args '{\"timezone\": \"Europe/Berlin\"}'
  comity call acme.example/crm/find --args @query.json --allow-loc EU --deadline 10
  echo '{\"text\": \"hi\"}' | comity call shout --args -")]
pub(super) struct CallArgs {
    /// The tool: the name that clients see (`comity tools` lists them), or org/server/tool
    tool: String,
    /// The arguments, a JSON object; @FILE reads a file, - reads stdin
    #[arg(long, value_name = "JSON", default_value = "{}")]
    args: String,
    #[command(flatten)]
    constraints: ConstraintArgs,
    /// What to do when nobody who may run it can be reached
    #[arg(long, value_enum, default_value_t)]
    when_offline: WhenOffline,
}

pub(super) fn run(args: CallArgs, context: &Context) -> Result<Exit, CliError> {
    let request = Request::Call(CallRequest {
        tool: args.tool,
        arguments: Some(read_arguments(&args.args)?),
        constraints: args.constraints.to_raw()?,
        when_offline: args.when_offline,
    });
    let out = context.out;
    let answer = context.block_on(context.ask_with(&request, |event| show_event(event, out)))?;
    let Response::Call(report) = answer else { return Err(unexpected()) };
    show(report, out)
}

fn read_arguments(text: &str) -> Result<Box<RawValue>, CliError> {
    let text = match text.strip_prefix('@') {
        Some(file) => read_text(
            read_bounded(Path::new(file), ARGUMENTS_BYTES_MAX)
                .map_err(|error| CliError::of(Exit::Usage, &error))?,
        )?,
        None if text == "-" => read_text(read_stdin()?)?,
        None => text.to_owned(),
    };
    let object = serde_json::from_str::<serde_json::Map<String, Value>>(&text);
    object.map_err(|error| {
        CliError::usage(format!("the arguments are not a JSON object: {error}"))
            .next("for example: --args '{\"name\": \"value\"}'")
    })?;
    // Carried as written: numbers, order and all.
    RawValue::from_string(text.trim().to_owned()).map_err(|error| CliError::of(Exit::Usage, &error))
}

fn read_stdin() -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().take(ARGUMENTS_BYTES_MAX as u64).read_to_end(&mut bytes);
    read.map_err(|error| CliError::of(Exit::Usage, &error))?;
    Ok(bytes)
}

fn read_text(bytes: Vec<u8>) -> Result<String, CliError> {
    String::from_utf8(bytes).map_err(|_| CliError::usage("the arguments are not UTF-8 text"))
}

fn show_event(event: Event, out: Output) {
    if let Event::Notification { method, params } = event {
        let event = json!({ "event": { "method": method, "params": params } });
        out.progress(&event, |_| clean(&format!("{method} {}", params.as_deref().map_or("", RawValue::get))));
    }
}

fn show(report: CallReport, out: Output) -> Result<Exit, CliError> {
    match report {
        CallReport::Result(result) => {
            let fields: ResultFields = serde_json::from_str(result.get()).unwrap_or_default();
            out.result(&json_line("result", &result), |_| fields.text(&result));
            Ok(if fields.is_error { Exit::Failed } else { Exit::Done })
        }
        CallReport::Error(error) => {
            out.result(&json_line("error", &error), |_| {
                format!("the tool's server refused: {}", clean(error.get()))
            });
            Ok(Exit::Failed)
        }
        CallReport::Queued { job } => {
            let next = format!("comity outbox show {job}");
            out.result(&json!({ "queued": job, "next": next }), |_| format!("queued as {job}\nnext: {next}"));
            Ok(Exit::Queued)
        }
        CallReport::Failed(failure) => Err(failed(failure)),
    }
}

fn failed(failure: Failure) -> CliError {
    let message = failure.to_string();
    match failure {
        Failure::Denied { reasons } => {
            CliError { reasons, ..CliError::new(Exit::Denied, "denied: nobody may run it") }
                .next("comity route TOOL with the same constraints shows every candidate")
        }
        Failure::Unapproved { .. } => CliError::new(Exit::Denied, message)
            .next("look at it with: comity tools   then: comity tools approve TOOL"),
        Failure::Unreachable { .. } => {
            CliError::new(Exit::Unreachable, message).next("see who is there with: comity peers")
        }
        Failure::Refused { .. } => {
            CliError::new(Exit::Usage, message).next("see what there is with: comity tools")
        }
        Failure::InDoubt { .. } => CliError::new(Exit::Failed, message)
            .next("it may have run: find out at its server before you call again"),
        _ => CliError::new(Exit::Failed, message),
    }
}

/// A JSON object with one key whose value is carried unchanged.
fn json_line<'a>(key: &'static str, value: &'a RawValue) -> impl Serialize + 'a {
    std::collections::BTreeMap::from([(key, value)])
}

/// What a person wants to see of a result.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResultFields {
    is_error: bool,
    content: Vec<Content>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Content {
    r#type: String,
    text: Option<String>,
}

impl ResultFields {
    /// The text of all parts; a result without any is shown as it is.
    fn text(&self, whole: &RawValue) -> String {
        let part = |content: &Content| match &content.text {
            Some(text) => clean(text),
            None => format!("[{}: use --json to see it]", clean(&content.r#type)),
        };
        match self.content.as_slice() {
            [] => clean(whole.get()),
            content => content.iter().map(part).collect::<Vec<_>>().join("\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_an_object_and_carried_as_written() {
        assert_eq!(
            read_arguments(" {\"b\": 1.0, \"a\": 18446744073709551616} ").expect("good").get(),
            "{\"b\": 1.0, \"a\": 18446744073709551616}"
        );
        for bad in ["", "[]", "3", "{", "{} x"] {
            assert_eq!(read_arguments(bad).expect_err(bad).exit, Exit::Usage);
        }
    }

    #[test]
    fn the_exit_code_says_how_a_call_ended() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).expect("JSON");
        let out = Output::new(true);
        for (report, exit) in [
            (CallReport::Result(raw(r#"{"content":[]}"#)), Exit::Done),
            (CallReport::Result(raw(r#"{"isError":true}"#)), Exit::Failed),
            (CallReport::Error(raw(r#"{"code":-1}"#)), Exit::Failed),
            (CallReport::Queued { job: "j".into() }, Exit::Queued),
            (CallReport::Failed(Failure::Denied { reasons: Vec::new() }), Exit::Denied),
            (CallReport::Failed(Failure::Unreachable { detail: String::new() }), Exit::Unreachable),
            (CallReport::Failed(Failure::InDoubt { detail: String::new() }), Exit::Failed),
        ] {
            let shown = format!("{report:?}");
            assert_eq!(show(report, out).unwrap_or_else(|error| error.exit), exit, "{shown}");
        }
    }
}
