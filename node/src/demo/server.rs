//! `comity demo-server`: a small MCP server over stdin and stdout, for the demo's nodes to front.
//!
//! It is real: `rmcp` speaks both eras of the protocol, tools have schemas for what they take and give, and a mistake in
//! the input is a tool error that says what would be right. It reads no file and no network, so its answers are the same
//! wherever it runs.

mod calendar;
mod text;
mod time;
mod tool;
mod units;

use clap::ValueEnum;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, Implementation, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, ServerInitializeError};
use rmcp::transport::io::stdio_pipes;
use rmcp::{ErrorData, RoleServer, ServerHandler, ServiceExt};
use thiserror::Error;

use self::tool::DemoTool;

/// A set of tools that one server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ToolSet {
    /// Time zones.
    Time,
    /// Text.
    Text,
    /// Units of measurement.
    Units,
    /// Dates.
    Calendar,
}

impl ToolSet {
    /// Its name: the argument of `comity demo-server`, and what the demo's nodes call the server.
    pub const fn name(self) -> &'static str {
        match self {
            ToolSet::Time => "time",
            ToolSet::Text => "text",
            ToolSet::Units => "units",
            ToolSet::Calendar => "calendar",
        }
    }

    const fn instructions(self) -> &'static str {
        match self {
            ToolSet::Time => "Times in the world's time zones.",
            ToolSet::Text => "Counts, compares and rewrites text. Nothing is kept.",
            ToolSet::Units => "Converts between units of measurement.",
            ToolSet::Calendar => "Facts of dates, and the days between them.",
        }
    }

    /// The names of its tools.
    pub(super) fn tool_names(self) -> Vec<String> {
        self.tools().iter().map(|tool| tool.descriptor.name.to_string()).collect()
    }

    fn tools(self) -> Vec<DemoTool> {
        match self {
            ToolSet::Time => time::tools(),
            ToolSet::Text => text::tools(),
            ToolSet::Units => units::tools(),
            ToolSet::Calendar => calendar::tools(),
        }
    }
}

/// What a tool of `set` answers when it is asked directly, to hold against what came over the mesh; `None` for an error.
pub(super) fn direct(set: ToolSet, tool: &str, arguments: &serde_json::Value) -> Option<serde_json::Value> {
    let tool = set.tools().into_iter().find(|known| known.descriptor.name == tool)?;
    tool.call(arguments.as_object().cloned().unwrap_or_default()).structured_content
}

/// Why the server ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The client did not begin as MCP does.
    #[error("the client did not begin a session")]
    Initialize(#[from] Box<ServerInitializeError>),
    /// Its task failed.
    #[error("the server failed")]
    Failed(#[from] tokio::task::JoinError),
}

/// Serves `set` over stdin and stdout until the client closes them.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(set: ToolSet) -> Result<(), ServeError> {
    let server = DemoServer { set, tools: set.tools() };
    let running = match server.serve(stdio_pipes()).await {
        Ok(running) => running,
        // Nobody wanted it after all.
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => return Err(Box::new(error).into()),
    };
    running.waiting().await?;
    Ok(())
}

struct DemoServer {
    set: ToolSet,
    tools: Vec<DemoTool>,
}

impl DemoServer {
    fn find(&self, name: &str) -> Option<&DemoTool> {
        self.tools.iter().find(|tool| tool.descriptor.name == name)
    }
}

impl ServerHandler for DemoServer {
    fn get_info(&self) -> ServerConfig {
        let name = format!("comity-demo-{}", self.set.name());
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new(name, env!("CARGO_PKG_VERSION")))
            .with_instructions(self.set.instructions())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = self.tools.iter().map(|tool| tool.descriptor.clone()).collect();
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let tool = self.find(&request.name).ok_or_else(|| {
            ErrorData::invalid_params(format!("there is no tool called {:?}", request.name), None)
        })?;
        Ok(tool.call(request.arguments.unwrap_or_default()).into())
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.find(name).map(|tool| tool.descriptor.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_tool_has_a_name_of_its_own_and_says_what_it_takes_gives_and_does() {
        let mut names = BTreeSet::new();
        for set in ToolSet::value_variants() {
            for DemoTool { descriptor, .. } in set.tools() {
                assert!(names.insert(descriptor.name.clone()), "{} twice", descriptor.name);
                let input = descriptor.input_schema.get("properties").and_then(|all| all.as_object());
                for (name, property) in input.expect("every tool takes something") {
                    let described = property.get("description").or(property.get("$ref"));
                    assert!(described.is_some(), "{}: {name} is not described", descriptor.name);
                }
                assert!(descriptor.output_schema.is_some() && descriptor.title.is_some());
                let annotations = descriptor.annotations.expect("annotations");
                assert_eq!(annotations.read_only_hint, Some(true));
            }
        }
    }

    #[test]
    fn the_command_line_knows_a_set_by_its_name() {
        for set in ToolSet::value_variants() {
            assert_eq!(ToolSet::from_str(set.name(), false), Ok(*set));
        }
    }
}
