//! The newline binding: one JSON-RPC message a line, both ways, over a Unix socket. `comity stdio` is a pipe to it.
//!
//! A connection is one client. In the legacy era it is one session; requests of 2026-07-28 stand for themselves and may
//! come on the same connection. Everything for the client goes through one queue, so a call's messages keep their order.
//!
//! Source: MCP "stdio" transport of both eras, which allows its framing on any stream.

use std::sync::Arc;

use comity_protocol::jsonrpc::{Limits, Message, RpcError, codes};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, BufWriter},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    call::{Call, Wire},
    conversation::Conversation,
    core::{self, Answer, Caller, ChangeFeed, Core, Plan, Subscription, Told},
    handshake::{self, Handshake},
    params::{Head, Request},
};
use crate::gateway::{ClientProfile, Era};

/// Messages that may wait for a client to read them. When so many do, calls wait and so does reading.
const QUEUE_MAX: usize = 64;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// Serves one client until it closes its side and its calls have ended, or it goes away.
pub(super) async fn serve(core: Arc<Core>, stream: UnixStream) {
    let (read, write) = stream.into_split();
    let (out, queue) = mpsc::channel(QUEUE_MAX);
    let mut connection = Connection {
        bytes_max: core.config.limits.body_bytes_max,
        conversation: Arc::default(),
        handshake: None,
        out,
        calls: JoinSet::new(),
        feeds: JoinSet::new(),
        core,
    };
    let mut lines = Lines { reader: BufReader::with_capacity(READ_BYTES, read), line: Vec::new() };
    let writer = write_out(queue, write);
    let served = async move {
        connection.run(&mut lines).await;
        drop(connection); // Ends the feeds and closes the queue, and with it the writer.
    };
    tokio::join!(served, writer);
}

/// Writes messages as they come; flushes whenever there is none left.
async fn write_out(mut queue: mpsc::Receiver<Message>, write: OwnedWriteHalf) {
    let mut write = BufWriter::new(write);
    let mut buffer = Vec::new();
    while let Some(message) = queue.recv().await {
        buffer.clear();
        message.write_line(&mut buffer);
        let written = write.write_all(&buffer).await;
        let flushed = if queue.is_empty() { write.flush().await } else { Ok(()) };
        if written.and(flushed).is_err() {
            return; // The client is gone: dropping the queue tells everybody.
        }
    }
    let _ = write.shutdown().await;
}

struct Connection {
    core: Arc<Core>,
    bytes_max: usize,
    conversation: Arc<Conversation>,
    /// Set by `initialize`.
    handshake: Option<Handshake>,
    out: mpsc::Sender<Message>,
    /// Bounded by the conversation.
    calls: JoinSet<()>,
    /// Subscriptions, bounded by the conversation, and one feed of changes.
    feeds: JoinSet<()>,
}

impl Connection {
    async fn run(&mut self, lines: &mut Lines<impl AsyncRead + Unpin>) {
        let (draining, out) = (self.core.draining.clone(), self.out.clone());
        let mut reading = true;
        while reading || !self.calls.is_empty() {
            tokio::select! {
                line = lines.next(self.bytes_max), if reading => reading = self.line(line).await,
                Some(_) = self.calls.join_next() => {}
                Some(_) = self.feeds.join_next() => {}
                () = draining.cancelled(), if reading && self.calls.is_empty() => return self.farewell().await,
                () = out.closed() => return self.calls.shutdown().await,
            }
        }
    }

    /// The node goes down: subscriptions say so themselves.
    async fn farewell(&mut self) {
        while self.feeds.join_next().await.is_some() {}
    }

    /// Takes one line; `false` ends reading.
    async fn line(&mut self, line: Line) -> bool {
        match line {
            Line::Message(line) if line.trim_ascii().is_empty() => true,
            Line::Message(line) => self.parse(&line).await,
            Line::TooLong => {
                let text = format!("a line exceeds {} bytes", self.bytes_max);
                self.send(Message::error(None, &RpcError::new(codes::TOO_LARGE, text))).await;
                false
            }
            Line::End => false,
        }
    }

    async fn parse(&mut self, line: &[u8]) -> bool {
        let limits = Limits { bytes_max: self.bytes_max, ..Limits::default() };
        match Message::parse(line, limits) {
            Ok(Message::Request { id, method, params }) => self.request(Request { id, method, params }).await,
            Ok(message) => {
                core::take(&self.conversation, message).await;
                true
            }
            Err(fault) => {
                self.send(Message::error(None, &RpcError::new(fault.code(), fault.to_string()))).await
            }
        }
    }

    async fn request(&mut self, request: Request) -> bool {
        let id = request.id.clone();
        let answer = self.answer(request);
        match answer {
            Ok(Some(message)) => self.send(message).await,
            Ok(None) => true,
            Err(error) => self.send(Message::error(Some(id), &error)).await,
        }
    }

    fn initialize(&mut self, request: &Request) -> Result<Option<Message>, RpcError> {
        if self.handshake.is_some() {
            return Err(RpcError::new(codes::INVALID_REQUEST, "this session is initialized already"));
        }
        let handshake = handshake::initialize(request)?;
        let door = Arc::clone(self.core.main_door());
        let (catalogue, about) = self.core.about(&door)?;
        let result = handshake::initialize_result(handshake.version, &about);
        self.handshake = Some(handshake);
        let told = Arc::new(Told::all(&door, &catalogue));
        let feed = ChangeFeed::new(&self.core, door, told, Arc::clone(&self.conversation));
        self.feeds.spawn(tell_changes(feed, self.out.clone(), self.core.draining.clone()));
        Ok(Some(Message::Response { id: request.id.clone(), result }))
    }

    /// Answers at once, or starts a task that will. `initialize` with the metadata of 2026-07-28 is a method that does
    /// not exist there.
    fn answer(&mut self, request: Request) -> Result<Option<Message>, RpcError> {
        if self.core.draining.is_cancelled() {
            return Err(RpcError::new(codes::OVERLOADED, "this node is shutting down"));
        }
        let (plan, client) = {
            let head = request.head()?;
            if request.method == "initialize" && head.meta.version.is_none() {
                return self.initialize(&request);
            }
            let client = self.client(&request, &head)?;
            (Plan::of(&request.method, client.era, &head, self.core.main_door())?, client)
        };
        let id = request.id.clone();
        let principal = Arc::clone(self.core.tokens.local());
        let caller = Caller {
            principal: &principal,
            client: &client,
            door: self.core.main_door(),
            conversation: Some(&self.conversation),
        };
        match self.core.answer(plan, request, caller)? {
            Answer::Ready(result) => return Ok(Some(Message::Response { id, result })),
            Answer::Call(call) => self.calls.spawn(relay_call(call, self.out.clone())),
            Answer::Subscription(subscription) => {
                self.feeds.spawn(relay_subscription(subscription, self.out.clone()))
            }
        };
        Ok(None)
    }

    /// Who asks, by the request's own metadata or by the session.
    fn client(&self, request: &Request, head: &Head<'_>) -> Result<ClientProfile, RpcError> {
        if head.meta.version.is_some() || request.method == "server/discover" {
            return handshake::modern_client(&head.meta);
        }
        match &self.handshake {
            Some(handshake) => Ok(handshake.client.clone()),
            None if request.method == "ping" => {
                Ok(ClientProfile { era: Era::Legacy, ..ClientProfile::default() })
            }
            None => Err(RpcError::new(
                codes::INVALID_REQUEST,
                "send `initialize` first, or the metadata of 2026-07-28",
            )),
        }
    }

    /// Queues a message; `false` when the client is gone.
    async fn send(&self, message: Message) -> bool {
        self.out.send(message).await.is_ok()
    }
}

async fn relay_call(mut call: Call, out: mpsc::Sender<Message>) {
    loop {
        match call.next().await {
            Wire::Message(message) => {
                if out.send(message).await.is_err() {
                    return;
                }
            }
            Wire::Last(last) => {
                // A client that cancelled must hear no more of the call (MCP "Cancellation").
                if !last.cancelled {
                    let _ = out.send(last.message).await;
                }
                return;
            }
        }
    }
}

async fn relay_subscription(mut subscription: Subscription, out: mpsc::Sender<Message>) {
    while let Some(message) = subscription.next().await {
        if out.send(message).await.is_err() {
            return;
        }
    }
}

async fn tell_changes(mut feed: ChangeFeed, out: mpsc::Sender<Message>, draining: CancellationToken) {
    let told = async {
        while let Some((_, message)) = feed.next().await {
            if out.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = told => {}
        () = draining.cancelled() => {}
    }
}

/// Lines of bounded length.
struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
}

enum Line {
    Message(Vec<u8>),
    TooLong,
    /// The client has closed its side, or the connection broke. What stood on an unfinished line is dropped.
    End,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// The next line, without its end. Cancel-safe: what has been read stays.
    async fn next(&mut self, bytes_max: usize) -> Line {
        loop {
            let chunk = match self.reader.fill_buf().await {
                Ok([]) | Err(_) => return Line::End,
                Ok(chunk) => chunk,
            };
            let end = memchr::memchr(b'\n', chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.line.len() + part.len() > bytes_max {
                return Line::TooLong;
            }
            self.line.extend_from_slice(part);
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                return Line::Message(std::mem::take(&mut self.line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded() {
        let mut lines =
            Lines { reader: BufReader::with_capacity(3, &b"ab\n\ncdefg\nrest"[..]), line: Vec::new() };
        assert!(matches!(lines.next(5).await, Line::Message(line) if line == b"ab"));
        assert!(matches!(lines.next(5).await, Line::Message(line) if line.is_empty()));
        assert!(matches!(lines.next(5).await, Line::Message(line) if line == b"cdefg"));
        assert!(matches!(lines.next(5).await, Line::End), "an unfinished line is no message");
        let mut long = Lines { reader: BufReader::with_capacity(3, &b"abcdef\n"[..]), line: Vec::new() };
        assert!(matches!(long.next(5).await, Line::TooLong));
    }
}
