//! A tool whose input and output are Rust types: their schemas are derived, and what does not fit is a tool error.

use std::sync::Arc;

use rmcp::handler::server::common::{schema_for_input, schema_for_output};
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use rmcp::schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

type Run = Box<dyn Fn(JsonObject) -> Result<Value, String> + Send + Sync>;

/// One tool of the demo's servers. All of them only read what they are given.
pub(super) struct DemoTool {
    /// As clients are told of it.
    pub(super) descriptor: Tool,
    run: Run,
}

impl DemoTool {
    /// A tool that does `run`. An error of it is for the client's model: it says what would be right.
    pub(super) fn new<I, O>(
        name: &'static str,
        title: &str,
        description: &'static str,
        run: fn(I) -> Result<O, String>,
    ) -> Self
    where
        I: DeserializeOwned + JsonSchema + 'static,
        O: Serialize + JsonSchema + 'static,
    {
        let input = schema_for_input::<I>().unwrap_or_else(|_| Arc::new(JsonObject::new()));
        let annotations =
            ToolAnnotations::new().read_only(true).destructive(false).idempotent(true).open_world(false);
        let descriptor = Tool::new(name, description, input)
            .with_title(title)
            .with_raw_output_schema(schema_for_output::<O>())
            .with_annotations(annotations);
        let run = move |arguments| {
            let input =
                serde_json::from_value(Value::Object(arguments)).map_err(|error| error.to_string())?;
            serde_json::to_value(run(input)?).map_err(|error| error.to_string())
        };
        Self { descriptor, run: Box::new(run) }
    }

    /// Runs it. Bad input is a result with `isError`, so that the model that made the mistake reads what is wrong.
    pub(super) fn call(&self, arguments: JsonObject) -> CallToolResult {
        match (self.run)(arguments) {
            Ok(value) => CallToolResult::structured(value),
            Err(problem) => CallToolResult::error(vec![ContentBlock::text(problem)]),
        }
    }
}

/// Runs a tool of `tools` by name, for tests: its structured content, or its error's text.
#[cfg(test)]
pub(super) fn run(tools: &[DemoTool], name: &str, arguments: Value) -> Result<Value, String> {
    let tool = tools.iter().find(|tool| tool.descriptor.name == name).expect("a tool of that name");
    let result = tool.call(arguments.as_object().cloned().expect("an object"));
    match result.is_error {
        Some(true) => Err(result.content[0].as_text().expect("text").text.clone()),
        _ => Ok(result.structured_content.expect("structured content")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Deserialize, JsonSchema)]
    #[schemars(crate = "rmcp::schemars")]
    #[serde(deny_unknown_fields)]
    struct Half {
        /// An even number.
        number: u32,
    }

    #[derive(Serialize, JsonSchema)]
    #[schemars(crate = "rmcp::schemars")]
    struct Halved {
        half: u32,
    }

    #[test]
    fn input_that_does_not_fit_is_an_error_of_the_tool() {
        let halve = |Half { number }| match number % 2 {
            0 => Ok(Halved { half: number / 2 }),
            _ => Err(format!("{number} is odd")),
        };
        let tools = [DemoTool::new("halve", "Halve", "Halves a number.", halve)];
        assert_eq!(run(&tools, "halve", json!({ "number": 8 })), Ok(json!({ "half": 4 })));
        assert_eq!(run(&tools, "halve", json!({ "number": 7 })), Err("7 is odd".into()));
        for wrong in [json!({}), json!({ "number": "8" }), json!({ "number": 8, "more": 1 })] {
            assert!(run(&tools, "halve", wrong.clone()).is_err(), "{wrong}");
        }
        assert_eq!(tools[0].descriptor.input_schema["additionalProperties"], false);
    }
}
