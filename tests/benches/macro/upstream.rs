//! The MCP server that is called: one tool that returns its text, as fast as an ordinary HTTP stack allows.
//!
//! It is this same program, started again: `macro upstream http` serves any number of servers, one under each path
//! `/ERA/TOOL`; `macro upstream stdio ERA TOOL` is one of them over pipes.

use std::borrow::Cow;
use std::convert::Infallible;
use std::env;
use std::io::{BufRead, Write, stdin, stdout};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpListener;

/// The first argument that makes this program the server.
pub(crate) const ARGUMENT: &str = "upstream";

/// The revision of MCP that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2025-11-25: a session.
    Legacy,
    /// 2026-07-28: every request for itself.
    Modern,
}

impl Era {
    /// Its name here.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Era::Legacy => "legacy",
            Era::Modern => "modern",
        }
    }

    /// Its name in the protocol.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Era::Legacy => "2025-11-25",
            Era::Modern => "2026-07-28",
        }
    }

    fn of(name: &str) -> Self {
        if name == Era::Legacy.name() { Era::Legacy } else { Era::Modern }
    }
}

/// The command that starts it.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().expect("the system tells a process its program"));
    command.arg(ARGUMENT).args(arguments);
    command
}

/// Is the server, until it is killed or its input ends.
pub(crate) fn serve(arguments: &[String]) {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["http"] => serve_http(),
        ["stdio", era, tool] => serve_lines(&Server { era: Era::of(era), tool }),
        other => panic!("no such server: {other:?}"),
    }
}

/// What a tool has in its name whose server works on each call.
pub(crate) const WORKING: &str = "_work_";

/// How long it works, on the processor: so long that it answers some 25,000 calls a second, as servers made with an SDK do.
const WORK: Duration = Duration::from_micros(30);

/// One MCP server.
#[derive(Debug, Clone, Copy)]
struct Server<'a> {
    era: Era,
    tool: &'a str,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CallParams<'a> {
    #[serde(borrow)]
    arguments: Arguments<'a>,
}

#[derive(Deserialize)]
struct Arguments<'a> {
    #[serde(borrow)]
    text: &'a RawValue,
}

impl Server<'_> {
    /// The answer to a message; none to a notification.
    fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let Ok(message) = serde_json::from_slice::<Message<'_>>(message) else {
            return Some(error("null", -32700, "no JSON-RPC"));
        };
        let id = message.id?.get();
        Some(match (&*message.method, self.era) {
            ("tools/call", _) => self.call(id, message.params),
            ("tools/list", _) => result(id, &self.list().to_string()),
            ("server/discover", Era::Modern) => result(id, &self.discover().to_string()),
            ("initialize", Era::Legacy) => result(id, &self.initialize().to_string()),
            ("ping", Era::Legacy) => result(id, "{}"),
            (method, _) => error(id, -32601, method),
        })
    }

    fn call(&self, id: &str, params: Option<&RawValue>) -> Vec<u8> {
        if self.tool.contains(WORKING) {
            let began = Instant::now();
            while began.elapsed() < WORK {
                std::hint::spin_loop();
            }
        }
        let call = params.and_then(|params| serde_json::from_str::<CallParams<'_>>(params.get()).ok());
        let Some(call) = call else { return error(id, -32602, "arguments.text is missing") };
        let text = call.arguments.text.get();
        let complete = if self.era == Era::Modern { r#""resultType":"complete","# } else { "" };
        let mut answer = Vec::with_capacity(text.len() + id.len() + 128);
        let written = write!(
            answer,
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{{complete}"content":[{{"type":"text","text":{text}}}]}}}}"#
        );
        written.expect("a vector takes what is written");
        answer
    }

    fn list(&self) -> serde_json::Value {
        json!({
            "resultType": "complete", "ttlMs": 60_000, "cacheScope": "private",
            "tools": [{
                "name": self.tool,
                "description": "Returns its text",
                "inputSchema": { "type": "object", "properties": { "text": { "type": "string" } }, "required": ["text"] },
            }],
        })
    }

    fn discover(&self) -> serde_json::Value {
        json!({
            "resultType": "complete", "ttlMs": 60_000, "cacheScope": "private",
            "supportedVersions": [Era::Modern.version()], "capabilities": { "tools": {} },
            "_meta": { "io.modelcontextprotocol/serverInfo": { "name": "echo", "version": "1" } },
        })
    }

    fn initialize(&self) -> serde_json::Value {
        json!({
            "protocolVersion": Era::Legacy.version(), "capabilities": { "tools": {} },
            "serverInfo": { "name": "echo", "version": "1" },
        })
    }
}

fn result(id: &str, result: &str) -> Vec<u8> {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into_bytes()
}

fn error(id: &str, code: i64, message: &str) -> Vec<u8> {
    let error = json!({ "code": code, "message": message });
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#).into_bytes()
}

fn serve_lines(server: &Server<'_>) {
    let (mut input, mut output) = (stdin().lock(), stdout().lock());
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if let Some(mut answer) = server.answer(&line) {
            answer.push(b'\n');
            // Flushed at each answer: standard output is line-buffered.
            if output.write_all(&answer).is_err() {
                return;
            }
        }
        line.clear();
    }
}

/// Serves on a port of its own, whose address is its first line of output.
fn serve_http() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        println!("{}", listener.local_addr().expect("it is bound"));
        loop {
            let (stream, _) = listener.accept().await.expect("connections are accepted");
            stream.set_nodelay(true).expect("TCP takes NODELAY");
            let connection =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer_http));
            tokio::spawn(connection);
        }
    });
}

async fn answer_http(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return Ok(status(StatusCode::METHOD_NOT_ALLOWED));
    }
    let Ok(body) = body.collect().await else { return Ok(status(StatusCode::BAD_REQUEST)) };
    let mut path = head.uri.path().trim_start_matches('/').split('/');
    let server =
        Server { era: Era::of(path.next().unwrap_or_default()), tool: path.next().unwrap_or_default() };
    let Some(answer) = server.answer(&body.to_bytes()) else { return Ok(status(StatusCode::ACCEPTED)) };
    let mut response = Response::new(Full::new(Bytes::from(answer)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if server.era == Era::Legacy {
        response.headers_mut().insert("mcp-session-id", HeaderValue::from_static("one-for-all"));
    }
    Ok(response)
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
