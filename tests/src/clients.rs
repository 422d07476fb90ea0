//! Real MCP clients, as programs: the makers' libraries and the Inspector.

use std::process::Command;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::fixture_file;
use crate::fixtures::{Npm, Python};
use crate::process::{Background, Finished, run};
use crate::wait;

/// What a client talks to: a node's endpoint, or a server that it starts itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An endpoint.
    Url(String),
    /// A program and its arguments.
    Command(Vec<String>),
}

/// How a client negotiates.
pub const LEGACY: &str = "legacy";
/// How a client negotiates: the modern era where the server speaks it.
pub const AUTO: &str = "auto";

/// A client library of the protocol's makers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// `mcp`, which knows both eras; `fixtures/python/client.py`.
    Python,
    /// `@modelcontextprotocol/sdk` 1.x, which knows the legacy era; `fixtures/typescript/client.mjs`.
    TypeScript1,
    /// `@modelcontextprotocol/client` 2.x, which knows both; `fixtures/typescript/client.mjs`.
    TypeScript2,
}

impl Library {
    /// Every library in every mode that it has, with the revision that it then negotiates with a node.
    pub const MODES: [(Library, &str, &str); 5] = [
        (Library::Python, LEGACY, "2025-11-25"),
        (Library::Python, AUTO, "2026-07-28"),
        (Library::TypeScript1, LEGACY, "2025-11-25"),
        (Library::TypeScript2, LEGACY, "2025-11-25"),
        (Library::TypeScript2, AUTO, "2026-07-28"),
    ];

    /// Connects; what a server asks is answered.
    ///
    /// # Panics
    /// When it cannot.
    pub fn connect(self, target: &Target, mode: &str) -> Client {
        Client::start(self, &json!({ "target": target.to_json(), "mode": mode, "answers": true }))
    }

    fn command(self) -> Command {
        let (program, script) = match self {
            Library::Python => (Python::get().program("python"), "python/client.py"),
            Library::TypeScript1 | Library::TypeScript2 => (Npm::get().node(), "typescript/client.mjs"),
        };
        let mut command = Command::new(program);
        command.arg(fixture_file(script)).env("NO_PROXY", "127.0.0.1");
        match self {
            Library::Python => {}
            Library::TypeScript1 => drop(command.arg(Npm::get().script("")).arg("1")),
            Library::TypeScript2 => drop(command.arg(Npm::get().script("")).arg("2")),
        }
        command
    }
}

impl Target {
    fn to_json(&self) -> Value {
        match self {
            Target::Url(url) => json!(url),
            Target::Command(command) => json!(command),
        }
    }
}

/// The Python client, as one that cannot be asked anything.
#[derive(Debug)]
pub struct PythonClient;

impl PythonClient {
    /// Connects.
    ///
    /// # Panics
    /// When it cannot.
    pub fn connect(target: &Target, mode: &str) -> Client {
        Self::connect_with(target, mode, None)
    }

    /// Connects with a bearer token.
    pub fn connect_with(target: &Target, mode: &str, token: Option<&str>) -> Client {
        Client::start(Library::Python, &json!({ "target": target.to_json(), "mode": mode, "token": token }))
    }
}

/// A client, connected.
#[derive(Debug)]
pub struct Client {
    process: Background,
    name: String,
    lines_read: usize,
    /// The revision that was negotiated.
    pub protocol: String,
}

impl Client {
    fn start(library: Library, config: &Value) -> Self {
        let name = format!("the client {library:?}");
        let process = Background::start(&name, library.command().arg(config.to_string()));
        let mut client = Client { process, name, lines_read: 0, protocol: String::new() };
        let hello = client.next();
        client.protocol =
            hello["protocol"].as_str().unwrap_or_else(|| panic!("not connected: {hello}")).to_owned();
        client
    }

    /// The descriptors of all tools.
    pub fn tools(&mut self) -> Vec<Value> {
        let answer = self.operate(json!({ "op": "list" }));
        answer["tools"].as_array().unwrap_or_else(|| panic!("no tools: {answer}")).clone()
    }

    /// Calls a tool; the answer holds `result`, `progress` and `logs`, or `error`.
    pub fn call(&mut self, name: &str, arguments: Value) -> Value {
        self.operate(json!({ "op": "call", "name": name, "arguments": arguments }))
    }

    /// Calls a tool, and cancels the call at its `progress`th progress notification.
    pub fn call_and_cancel(&mut self, name: &str, arguments: Value, progress: usize) -> Value {
        self.operate(json!({ "op": "call", "name": name, "arguments": arguments, "cancel_after": progress }))
    }

    /// One of the lists: `prompts`, `resources` or `templates`.
    pub fn list(&mut self, what: &str) -> Vec<Value> {
        let answer = self.operate(json!({ "op": what }));
        answer[what].as_array().unwrap_or_else(|| panic!("no {what}: {answer}")).clone()
    }

    /// Fills in a prompt; the answer holds `result` or `error`.
    pub fn prompt(&mut self, name: &str, arguments: Value) -> Value {
        self.operate(json!({ "op": "prompt", "name": name, "arguments": arguments }))
    }

    /// Reads a resource; the answer holds `result` or `error`.
    pub fn read(&mut self, uri: &str) -> Value {
        self.operate(json!({ "op": "read", "uri": uri }))
    }

    /// Asks how an argument might go on; the answer holds `result` or `error`.
    pub fn complete(&mut self, reference: Value, argument: &str, value: &str) -> Value {
        let argument = json!({ "name": argument, "value": value });
        self.operate(json!({ "op": "complete", "ref": reference, "argument": argument }))
    }

    /// Calls a tool with constraints.
    pub fn call_within(&mut self, name: &str, arguments: Value, constraints: Value) -> Value {
        let meta = json!({ "dev.comity/constraints": constraints });
        self.operate(json!({ "op": "call", "name": name, "arguments": arguments, "meta": meta }))
    }

    /// Begins to listen for changes of the tools.
    pub fn watch(&mut self) {
        let answer = self.operate(json!({ "op": "watch" }));
        assert_eq!(answer["watching"], true, "{answer}");
    }

    /// Waits until the tools are said to have changed.
    pub fn wait_for_change(&mut self) {
        let event = self.next();
        assert_eq!(event["event"], "tools_changed", "{event}");
    }

    fn operate(&mut self, operation: Value) -> Value {
        self.process.write_line(&operation.to_string());
        loop {
            let line = self.next();
            // A change that arrives meanwhile is not this operation's answer.
            if line.get("event").is_none() {
                return line;
            }
        }
    }

    fn next(&mut self) -> Value {
        let name = self.name.clone();
        let line = wait::until(&format!("{name} answers"), || {
            if let Some(line) = self.process.stdout.all().get(self.lines_read) {
                return Ok(line.clone());
            }
            assert!(self.process.ended().is_none(), "{name} ended");
            Err("nothing yet")
        });
        self.lines_read += 1;
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
    }
}

/// The two eras as the Inspector names them.
pub const ERAS: [&str; 2] = ["legacy", "modern"];

/// Runs the Inspector's command line in one era.
pub fn inspect(target: &Target, era: &str, arguments: &[&str]) -> Finished {
    // It keeps files in the home directory, which must not be that of whoever runs the tests.
    let home = TempDir::new().expect("a temporary directory can be made");
    let mut command = Command::new(Npm::get().node());
    command
        .arg(Npm::get().script("@modelcontextprotocol/inspector/clients/launcher/build/index.js"))
        .arg("--cli");
    match target {
        Target::Url(url) => command.args(["--transport", "http", "--server-url", url]),
        Target::Command(server) => command.args(server),
    };
    command.args(["--protocol-era", era, "--quiet", "--stored-auth-only"]).args(arguments);
    run(command.env("HOME", home.path()).env("NO_PROXY", "127.0.0.1"))
}

/// Calls a tool with the Inspector.
#[track_caller]
pub fn inspect_call(target: &Target, era: &str, tool: &str, arguments: &Value) -> Value {
    let arguments = arguments.to_string();
    let done = inspect(
        target,
        era,
        &["--method", "tools/call", "--tool-name", tool, "--tool-args-json", &arguments],
    );
    serde_json::from_str(done.success()).unwrap_or_else(|error| panic!("not JSON ({error}): {}", done.stdout))
}

/// What a tool said, without what the way there adds: an era's marks, and metadata. Two answers of one tool are equal in
/// this.
pub fn said(result: &Value) -> Value {
    let of_the_tool =
        |(key, _): &(&String, &Value)| matches!(key.as_str(), "content" | "structuredContent" | "isError");
    let object = result.as_object().unwrap_or_else(|| panic!("not a result: {result}"));
    let mut said: Map<String, Value> =
        object.iter().filter(of_the_tool).map(|(key, value)| (key.clone(), value.clone())).collect();
    // Absent means false.
    said.entry("isError").or_insert(json!(false));
    Value::Object(said)
}
