//! The client that makes the load over HTTP. It is light, so that what is measured is not the client: requests are
//! written from bytes made beforehand, answers are searched rather than parsed, one thread serves all connections.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::upstream::Era;

/// How long each connection calls before its calls count.
pub(crate) const WARM_UP: Duration = Duration::from_millis(100);

/// What one measurement brought.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// How long each answered call took, in the order of their ends on each connection.
    pub(crate) latencies_ns: Vec<u64>,
    /// How long calls were counted.
    pub(crate) lasted: Duration,
    /// Calls made, those of the warm-up too: CPU time is shared among all of them.
    pub(crate) calls: usize,
}

/// An MCP endpoint and the tool that is called there.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    path: String,
    tool: String,
    era: Era,
    session: Option<String>,
}

impl Endpoint {
    /// The endpoint at `url`; in the legacy era a session is opened there.
    pub(crate) fn open(url: &str, tool: &str, era: Era) -> Self {
        let rest = url.strip_prefix("http://").expect("an http URL");
        let (address, path) = rest.split_once('/').expect("a URL with a path");
        let address = address.parse().expect("a URL with an IP address");
        let mut endpoint =
            Endpoint { address, path: format!("/{path}"), tool: tool.to_owned(), era, session: None };
        if era == Era::Legacy {
            endpoint.session = Some(endpoint.initialize());
        }
        endpoint
    }

    fn initialize(&self) -> String {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{}","capabilities":{{}},"clientInfo":{{"name":"bench","version":"1"}}}}}}"#,
            self.era.version()
        );
        runtime().block_on(async {
            let mut connection = Connection::open(self.address).await;
            let head = connection.exchange(&self.request("initialize", &body)).await.0;
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("mcp-session-id:"));
            let line = line.unwrap_or_else(|| panic!("no session at {}: {head}", self.path));
            let session = line[15..].trim().to_owned();
            let opened = Endpoint { session: Some(session.clone()), ..self.clone() };
            let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
            connection.exchange(&opened.request("notifications/initialized", initialized)).await;
            session
        })
    }

    /// Calls for `phase`, always with `in_flight` calls, each with a text of `bytes`.
    ///
    /// # Panics
    /// When a call is not answered with its text.
    pub(crate) fn run(&self, in_flight: usize, bytes: usize, phase: Duration) -> Sample {
        runtime().block_on(async {
            let mut connections = Vec::new();
            for _ in 0..in_flight {
                connections.push(Connection::open(self.address).await);
            }
            let mut callers = JoinSet::new();
            let begin = Instant::now() + WARM_UP;
            for (number, connection) in connections.into_iter().enumerate() {
                let (request, text) = self.call(number, bytes);
                callers.spawn(call_until(connection, request, text, begin, begin + phase));
            }
            let mut whole = Sample { lasted: phase, ..Sample::default() };
            while let Some(sample) = callers.join_next().await {
                let (latencies_ns, calls) = sample.expect("a caller does not panic");
                whole.latencies_ns.extend(latencies_ns);
                whole.calls += calls;
            }
            whole
        })
    }

    /// The bytes of a call, and of the text that must come back.
    fn call(&self, number: usize, bytes: usize) -> (Vec<u8>, Vec<u8>) {
        let text = text(number, bytes);
        let meta = match self.era {
            Era::Legacy => String::new(),
            Era::Modern => format!(
                r#","_meta":{{"io.modelcontextprotocol/protocolVersion":"{}","io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/clientInfo":{{"name":"bench","version":"1"}}}}"#,
                self.era.version()
            ),
        };
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{},"method":"tools/call","params":{{"name":"{}","arguments":{{"text":"{text}"}}{meta}}}}}"#,
            number + 1,
            self.tool
        );
        (self.request("tools/call", &body), text.into_bytes())
    }

    fn request(&self, method: &str, body: &str) -> Vec<u8> {
        let mut head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nmcp-protocol-version: {}\r\ncontent-length: {}\r\n",
            self.path,
            self.address,
            self.era.version(),
            body.len()
        );
        if self.era == Era::Modern {
            head += &format!("mcp-method: {method}\r\nmcp-name: {}\r\n", self.tool);
        }
        if let Some(session) = &self.session {
            head += &format!("mcp-session-id: {session}\r\n");
        }
        [head.as_bytes(), b"\r\n", body.as_bytes()].concat()
    }
}

/// A text of exactly so many bytes, of its own for each caller.
pub(crate) fn text(number: usize, bytes: usize) -> String {
    let mut text = format!("{number:08}");
    text.extend(std::iter::repeat_n('x', bytes.saturating_sub(text.len())));
    text
}

async fn call_until(
    mut connection: Connection,
    request: Vec<u8>,
    text: Vec<u8>,
    begin: Instant,
    end: Instant,
) -> (Vec<u64>, usize) {
    let (mut latencies_ns, mut calls) = (Vec::new(), 0);
    let mut sent = Instant::now();
    while sent < end {
        let (head, body) = connection.exchange(&request).await;
        let answered = Instant::now();
        assert!(holds(body, &text), "not the answer: {head}\n{}", String::from_utf8_lossy(body));
        if sent >= begin && answered <= end {
            latencies_ns.push(u64::try_from((answered - sent).as_nanos()).unwrap_or(u64::MAX));
        }
        calls += 1;
        sent = answered;
    }
    (latencies_ns, calls)
}

/// Whether an answer is a result with this text in it. The text stands near the front, so that a long one costs no
/// search.
pub(crate) fn holds(answer: &[u8], text: &[u8]) -> bool {
    let key = br#""text":""#;
    answer.windows(key.len()).position(|window| window == key).is_some_and(|at| {
        let said = &answer[at + key.len()..];
        said.starts_with(text) && said.get(text.len()) == Some(&b'"')
    })
}

/// A connection that is kept alive.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the endpoint listens");
        stream.set_nodelay(true).expect("TCP takes NODELAY");
        Connection { stream, buffer: Vec::with_capacity(4096) }
    }

    /// Sends a request and reads the whole answer: its head and its body.
    async fn exchange(&mut self, request: &[u8]) -> (&str, &[u8]) {
        self.stream.write_all(request).await.expect("the endpoint reads");
        self.buffer.clear();
        let head = loop {
            self.read().await;
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
        };
        match content_length(&self.buffer[..head]) {
            Some(length) => {
                self.buffer.reserve(length);
                while self.buffer.len() < head + length {
                    self.read().await;
                }
            }
            None => {
                while !self.buffer.ends_with(b"0\r\n\r\n") {
                    self.read().await;
                }
            }
        }
        let (head, body) = self.buffer.split_at(head);
        (std::str::from_utf8(head).expect("a head is ASCII"), body)
    }

    async fn read(&mut self) {
        let read = self.stream.read_buf(&mut self.buffer).await.expect("the endpoint answers");
        assert!(read > 0, "the endpoint closed the connection: {}", String::from_utf8_lossy(&self.buffer));
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        name.eq_ignore_ascii_case(b"content-length:")
            .then(|| std::str::from_utf8(value).ok()?.trim().parse().ok())?
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
}
