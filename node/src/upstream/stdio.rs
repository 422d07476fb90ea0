//! MCP over a pair of pipes: one JSON-RPC message per line.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comity_protocol::ids::ServerName;
use comity_protocol::jsonrpc::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::child::{ChildGroup, Program};
use super::config::UpstreamConfig;
use super::guard::Guard;
use super::lines::{Discarded, Line, Lines};
use super::noise::{LastWords, Throttle, log_stderr, printable};
use super::queue::WriteQueue;
use super::session::{Link, Session};
use crate::exchange::{Failure, Outcome};

/// How long after its pipe a process's exit status is waited for.
const STATUS_PATIENCE: Duration = Duration::from_millis(200);

/// How long what a process wrote before it ended may take to be read; a descendant may hold the pipe
/// open for ever.
const DRAIN_PATIENCE: Duration = Duration::from_millis(500);

/// Lines after which requesters get a turn to take what was read for them: a server may write
/// progress faster than a thread of our own reads and passes it on.
const YIELD_LINES: usize = 128;

/// Bytes asked of the pipe at a time.
const READ_BYTES: usize = 64 << 10;

/// A running server: its session and the tasks that serve it. Dropping it kills the child.
#[derive(Debug)]
pub(super) struct StdioServer {
    pub(super) session: Session,
    /// What the child wrote last to its standard error.
    pub(super) words: LastWords,
    life: JoinHandle<()>,
    helpers: JoinSet<()>,
    stop: CancellationToken,
}

impl StdioServer {
    /// Starts a child process and the tasks that serve it.
    pub(super) fn spawn(
        server: ServerName,
        program: Program<'_>,
        config: &UpstreamConfig,
        guard: Arc<Guard>,
    ) -> io::Result<Self> {
        let (child, pipes) = ChildGroup::spawn(program, guard)?;
        let session = pipe_session(server.clone(), config);
        let (words, stop) = (LastWords::default(), CancellationToken::new());
        let mut helpers = JoinSet::new();
        helpers.spawn(write(session.clone(), pipes.stdin));
        helpers.spawn(log_stderr(server, pipes.stderr, words.clone()));
        let life = tokio::spawn(live(session.clone(), pipes.stdout, child, stop.clone()));
        Ok(Self { session, words, life, helpers, stop })
    }

    /// Ends the child in good order. Takes a few seconds if it does not cooperate.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        let _ = (&mut self.life).await;
        // A descendant that left the process group may hold the pipes open for ever.
        let ended = async { while self.helpers.join_next().await.is_some() {} };
        let _ = timeout(DRAIN_PATIENCE, ended).await;
    }
}

impl Drop for StdioServer {
    fn drop(&mut self) {
        // The child belongs to this task and dies with it.
        self.life.abort();
    }
}

/// A session over any pair of pipes, without a process: what is read ends it.
#[cfg(test)]
pub(super) fn over_pipes(
    server: ServerName,
    config: &UpstreamConfig,
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
) -> (Session, JoinSet<()>) {
    let session = pipe_session(server, config);
    let mut tasks = JoinSet::new();
    tasks.spawn(write(session.clone(), writer));
    let reading = session.clone();
    tasks.spawn(async move {
        let end = read(&reading, reader).await;
        reading.close(&describe(&end, None));
    });
    (session, tasks)
}

fn pipe_session(server: ServerName, config: &UpstreamConfig) -> Session {
    let link = Link::Pipe(WriteQueue::default());
    Session::new(server, link, config)
}

async fn write(session: Session, pipe: impl AsyncWrite + Unpin) {
    let Link::Pipe(queue) = session.link() else { return };
    if let Err(error) = queue.pump(pipe).await {
        // The reader hears of the same end, with more to say about it.
        tracing::debug!(server = %session.server(), %error, "cannot write to the server");
    }
}

/// Serves a child until it ends or is to be stopped.
async fn live(
    session: Session,
    stdout: impl AsyncRead + Unpin,
    mut child: ChildGroup,
    stop: CancellationToken,
) {
    let detail = {
        let reading = read(&session, stdout);
        tokio::pin!(reading);
        tokio::select! {
            end = &mut reading => {
                let status = timeout(STATUS_PATIENCE, child.wait()).await.ok();
                describe(&end, status.map(|status| status.map(|status| status.to_string())))
            }
            status = child.wait() => {
                // What it wrote before it ended still counts.
                let _ = timeout(DRAIN_PATIENCE, &mut reading).await;
                describe(&Ok(()), Some(status.map(|status| status.to_string())))
            }
            () = stop.cancelled() => "stopped by the operator".to_owned(),
        }
    };
    session.close(&detail);
    child.stop().await;
}

fn describe(end: &io::Result<()>, status: Option<io::Result<String>>) -> String {
    match (end, status) {
        (_, Some(Ok(status))) => format!("its process ended ({status})"),
        (Err(error), _) => format!("its output cannot be read: {error}"),
        (Ok(()), _) => "it closed its output".to_owned(),
    }
}

/// Reads messages until the pipe ends. Whatever the server writes, this costs at most one message's
/// memory and never waits for anybody but the server.
async fn read(session: &Session, mut pipe: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut lines = Lines::new(session.limits().bytes_max);
    let mut throttle = Throttle::new(Instant::now());
    loop {
        let buffer = lines.buffer();
        buffer.reserve(READ_BYTES);
        if pipe.read_buf(buffer).await? == 0 {
            return Ok(());
        }
        let mut taken = 0;
        while let Some(line) = lines.next() {
            take_line(session, &line, &mut throttle);
            taken += 1;
            if taken % YIELD_LINES == 0 {
                tokio::task::yield_now().await;
            }
        }
        // A server that never stops writing must not keep this thread from its other tasks.
        tokio::task::coop::consume_budget().await;
    }
}

fn take_line(session: &Session, line: &Line<'_>, throttle: &mut Throttle) {
    match line {
        Line::Whole(bytes) if bytes.trim_ascii().is_empty() => {}
        Line::Whole(bytes) => match Message::parse(bytes, session.limits()) {
            Ok(message) => session.receive(message, None),
            Err(error) => {
                if let Some(suppressed) = throttle.admit(Instant::now()) {
                    let server = session.server();
                    tracing::warn!(%server, suppressed, %error, "not a message: {}", printable(bytes));
                }
            }
        },
        Line::TooLong(discarded) => too_long(session, discarded),
    }
}

/// The call whose answer was too long ends at once, if the line shows whose it was; otherwise it
/// times out.
fn too_long(session: &Session, discarded: &Discarded) {
    let (size, max) = (discarded.size, session.limits().bytes_max);
    tracing::warn!(server = %session.server(), size, max, "discarded a message that is too large");
    let detail = format!("an answer of {size} bytes exceeds the limit of {max}");
    if let Some(id) = discarded.id() {
        let failure = Failure::TooLarge { handed_over: true, detail };
        session.finish(id, Outcome::Failed(failure));
    }
}
