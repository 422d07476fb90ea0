//! HTTP/1.1 as bytes over a socket. A library would not let a test send what must be refused.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a socket may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The parts of `http://HOST/PATH` that a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// The host and port.
    pub host: String,
    /// The path, from its slash.
    pub path: String,
}

impl Url {
    /// Takes a URL apart.
    ///
    /// # Panics
    /// When it is not `http://`.
    pub fn parse(url: &str) -> Self {
        let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url} is not an http:// URL"));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        Url { host: host.to_owned(), path: format!("/{path}") }
    }
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    body: BufReader<TcpStream>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Connects and sends bytes as they are.
pub fn send(url: &Url, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(&url.host)
        .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", url.host));
    socket.set_read_timeout(Some(SILENCE_MAX)).expect("a timeout can be set");
    socket.set_nodelay(true).expect("an option can be set");
    // A server may refuse and close before it has read all: what matters is what it answers.
    let _ = socket.write_all(bytes);
    socket
}

/// The bytes of a request, the only one on its connection.
pub fn request(method: &str, url: &Url, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    request_then(method, url, &[headers, &[("connection", "close")]].concat(), body)
}

/// The bytes of a request that others may follow.
fn request_then(method: &str, url: &Url, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {} HTTP/1.1\r\n", url.path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("host: {}\r\n", url.host));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if method == "POST" {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// Reads the head of an answer; `None` when the server closed the connection without one.
pub fn answer(socket: TcpStream) -> Option<Answer> {
    let mut body = BufReader::new(socket);
    let (status, headers) = head(&mut body)?;
    Some(Answer { status, headers, body })
}

fn head(from: &mut impl BufRead) -> Option<(u16, Vec<(String, String)>)> {
    let status = line(from)?;
    let status = status.split(' ').nth(1)?.parse().ok()?;
    let mut headers = Vec::new();
    while let Some(line) = line(from).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some((status, headers))
}

fn chunk(from: &mut impl BufRead) -> Option<Vec<u8>> {
    let size = usize::from_str_radix(line(from)?.split(';').next()?.trim(), 16).ok()?;
    let mut chunk = vec![0; size];
    from.read_exact(&mut chunk).ok()?;
    line(from);
    (size > 0).then_some(chunk)
}

fn line(from: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let length = from.read_line(&mut line).ok()?;
    (length > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Sends a request and reads the whole answer.
///
/// # Panics
/// When there is no answer.
pub fn exchange(url: &Url, bytes: &[u8]) -> Response {
    answer(send(url, bytes))
        .unwrap_or_else(|| panic!("{} closed the connection without an answer", url.host))
        .read()
}

/// `GET`.
pub fn get(url: &Url) -> Response {
    exchange(url, &request("GET", url, &[], b""))
}

/// A connection that is kept for one request after another.
#[derive(Debug)]
pub struct Kept {
    url: Url,
    socket: BufReader<TcpStream>,
    /// How many requests it has carried.
    pub posts: u64,
}

impl Kept {
    /// Connects.
    pub fn open(url: &Url) -> Self {
        Kept { url: url.clone(), socket: BufReader::new(send(url, b"")), posts: 0 }
    }

    /// Posts a body and reads the whole answer.
    ///
    /// # Panics
    /// When there is none, or one that does not say where it ends.
    pub fn post(&mut self, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let bytes = request_then("POST", &self.url, headers, body);
        self.posts += 1;
        self.socket.get_mut().write_all(&bytes).expect("the server reads");
        let (status, headers) = head(&mut self.socket).expect("an answer");
        let mut body = Vec::new();
        if find(&headers, "transfer-encoding") == Some("chunked") {
            while let Some(chunk) = chunk(&mut self.socket) {
                body.extend(chunk);
            }
        } else {
            let length = find(&headers, "content-length").and_then(|length| length.parse().ok());
            body.resize(length.expect("an answer says where it ends"), 0);
            self.socket.read_exact(&mut body).expect("the body is as long as it was said to be");
        }
        Response { status, headers, body }
    }
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Reads the rest.
    pub fn read(mut self) -> Response {
        let mut body = Vec::new();
        if self.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                body.extend(chunk);
            }
        } else if let Some(length) = self.header("content-length").and_then(|length| length.parse().ok()) {
            body = vec![0; length];
            self.body.read_exact(&mut body).expect("the body is as long as it was said to be");
        } else {
            let _ = self.body.read_to_end(&mut body);
        }
        Response { status: self.status, headers: self.headers, body }
    }

    /// The next chunk of a chunked body, as it arrives; `None` at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        chunk(&mut self.body)
    }
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn find<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}
