//! Answers as bytes: what a server says over its pipe, and what a node's endpoint says, taken apart no further than needed
//! to compare the parts that nobody on the way may change.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::mcp::{LEGACY, Mcp};
use crate::process::Background;
use crate::wait;

/// The members of a JSON object, each as it was written.
pub type Members = BTreeMap<String, Box<RawValue>>;

/// Takes an object apart.
#[track_caller]
pub fn members(text: &str) -> Members {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not an object ({error}): {text}"))
}

/// What a result says, without what belongs to the way: the era's marks, and metadata.
#[track_caller]
pub fn said(result: &str) -> BTreeMap<String, String> {
    let of_the_way = ["resultType", "_meta", "ttlMs", "cacheScope", "nextCursor"];
    let said = members(result).into_iter().filter(|(key, _)| !of_the_way.contains(&key.as_str()));
    said.map(|(key, value)| (key, value.get().to_owned())).collect()
}

/// A server that is spoken to over its pipe, in the legacy era.
#[derive(Debug)]
pub struct Pipe {
    process: Background,
    next: u64,
}

impl Pipe {
    /// Starts it and opens its session.
    pub fn start(command: &[String]) -> Self {
        let (program, arguments) = command.split_first().expect("a command names a program");
        let mut pipe =
            Pipe { process: Background::start(program, Command::new(program).args(arguments)), next: 0 };
        pipe.result(
            "initialize",
            json!({ "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": { "name": "blackbox", "version": "1" } }),
        );
        pipe.process.write_line(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        pipe
    }

    /// The result of a request, as the server wrote it.
    pub fn result(&mut self, method: &str, params: Value) -> String {
        self.next += 1;
        let id = self.next;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.process.write_line(&request.to_string());
        let answer = wait::until(&format!("{method} is answered"), || {
            let lines = self.process.stdout.all();
            let of = |line: &&String| serde_json::from_str::<Value>(line).is_ok_and(|said| said["id"] == id);
            lines.iter().find(of).cloned().ok_or_else(|| lines.last().cloned())
        });
        result_of(&answer)
    }
}

/// The result of a request to an endpoint, as the endpoint wrote it.
pub fn result(client: &Mcp, method: &str, params: Value) -> String {
    let reply = client.post(&client.message(method, params).to_string());
    let text = reply.text();
    let is_stream = reply.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    if !is_stream {
        return result_of(&text);
    }
    let mut data = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
    result_of(data.rfind(|data| !data.is_empty()).expect("a stream ends with its answer"))
}

#[track_caller]
fn result_of(answer: &str) -> String {
    let mut members = members(answer);
    members.remove("result").unwrap_or_else(|| panic!("no result: {answer}")).get().to_owned()
}
