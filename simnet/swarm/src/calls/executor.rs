//! The executing side: the executor's machine over a stream, and a tool that takes as long as the scenario says.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use comity_mesh::IncomingCall;
use comity_protocol::call::executor::{Effect, HEADER_WAIT};
use comity_protocol::call::{CallerPeer, Desk, ExecutionFailure, Executor, Frame, STREAM_IDLE_MAX};
use comity_protocol::constraints::DataClass;
use comity_protocol::testing::mesh;
use tokio::time::{Sleep, sleep, timeout};

use super::framed::Framed;
use super::{ANSWER, Office, RUNNING_MAX, due_at};

/// How long a tool takes to stop when it is told to.
const STOP: Duration = Duration::from_millis(50);

/// How a tool ends.
#[derive(Clone, Copy)]
enum ToolEnd {
    Result,
    /// Its server broke down in the middle.
    Broken,
    /// It was told to stop, and did.
    Stopped,
}

struct Execution<'a> {
    office: &'a Office,
    machine: Executor,
    /// `None` once nothing more comes.
    stream: Option<Framed>,
    tool: Option<(Pin<Box<Sleep>>, ToolEnd)>,
    counted: bool,
}

enum Happened {
    Frame(Result<Frame, String>),
    Tool(ToolEnd),
    Due,
}

/// Runs one call after another for a peer, on a stream that it has opened.
pub(super) async fn execute(office: Arc<Office>, call: IncomingCall) {
    let connection = call.stream.connection().clone();
    let key = office.net.lock().stage.identity(office.node).key;
    let peer = CallerPeer { node: call.peer, org: call.org, is_client: call.is_client };
    let (mut line, mut patience) = (Framed::new(call.stream), HEADER_WAIT);
    while let Ok(Ok(())) = timeout(patience, line.readable()).await {
        let _work = connection.work();
        let machine = Executor::new(mesh(), key.clone(), peer.clone(), office.clock.now());
        let execution =
            Execution { office: &office, machine, stream: Some(line), tool: None, counted: false };
        match execution.drive().await {
            Some(idle) => line = idle,
            None => return,
        }
        patience = STREAM_IDLE_MAX;
    }
}

impl Execution<'_> {
    /// Runs the call to its end; the stream, if it may carry another.
    async fn drive(mut self) -> Option<Framed> {
        loop {
            while let Some(effect) = self.machine.poll_effect() {
                if let Effect::Close { again } = effect {
                    return self.close(again).await;
                }
                self.carry_out(effect).await;
            }
            let happened = self.wait().await;
            self.tell(happened);
        }
    }

    async fn wait(&mut self) -> Happened {
        let due = self.machine.poll_timeout().map(|at| self.office.clock.instant(at));
        tokio::select! {
            biased;
            end = tool_ended(&mut self.tool) => Happened::Tool(end),
            frame = next_frame(&mut self.stream) => Happened::Frame(frame),
            () = due_at(due) => Happened::Due,
        }
    }

    fn tell(&mut self, happened: Happened) {
        let now = self.office.clock.now();
        match happened {
            Happened::Frame(Ok(frame)) => self.take_in(frame),
            Happened::Frame(Err(_)) => {
                self.stream = None;
                self.machine.handle_lost(now);
            }
            Happened::Tool(end) => {
                self.tool = None;
                match end {
                    ToolEnd::Result => self.machine.handle_upstream_result(ANSWER.to_vec(), now),
                    ToolEnd::Broken => self.machine.handle_upstream_failed(&broke(), now),
                    ToolEnd::Stopped => self.machine.handle_upstream_failed(&stopped(), now),
                }
            }
            Happened::Due => self.machine.handle_timeout(now),
        }
    }

    fn take_in(&mut self, frame: Frame) {
        let now = self.office.clock.now();
        let net = self.office.net.lock();
        let (stage, node) = (&net.stage, self.office.node);
        let site = stage.facts(node, DataClass::Restricted);
        let offer = |capability: &_| stage.local_offer(node, capability);
        let desk = &mut *self.office.desk();
        let has_room = desk.running < RUNNING_MAX;
        let mut desk = Desk { site: &site, offer: &offer, seen: &mut desk.seen, is_executor: true, has_room };
        self.machine.handle_frame(frame, &mut desk, now);
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(frame) => self.send(&frame).await,
            Effect::StartUpstream { .. } => self.start_tool(),
            Effect::CancelUpstream { .. } => self.tool = Some((Box::pin(sleep(STOP)), ToolEnd::Stopped)),
            Effect::ToUpstream(_) | Effect::Close { .. } => {}
        }
    }

    async fn send(&mut self, frame: &Frame) {
        let (Some(stream), Ok(bytes)) = (&mut self.stream, frame.to_vec()) else { return };
        if stream.send(&bytes).await.is_err() {
            self.stream = None;
            self.machine.handle_lost(self.office.clock.now());
        }
    }

    fn start_tool(&mut self) {
        let Some(call) = self.machine.header().map(|header| header.call) else { return };
        self.counted = true;
        self.office.desk().running += 1;
        let book = &self.office.book;
        // A call of nobody's in the book would be one that nobody made.
        let Some(number) = book.number_of(&call) else { return };
        book.execute(number, self.office.node);
        let (takes, breaks) = book.draw_upstream(number);
        let end = if breaks { ToolEnd::Broken } else { ToolEnd::Result };
        self.tool = Some((Box::pin(sleep(takes)), end));
    }

    async fn close(mut self, again: bool) -> Option<Framed> {
        let stream = self.stream.take()?;
        if again {
            return Some(stream);
        }
        stream.finish().await;
        None
    }
}

impl Drop for Execution<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.office.desk().running -= 1;
        }
    }
}

fn broke() -> ExecutionFailure {
    ExecutionFailure::new("upstream_died", "the server broke down", true)
}

fn stopped() -> ExecutionFailure {
    ExecutionFailure::new("cancelled", "it was told to stop", true)
}

/// How the tool ended; never, when none runs. Cancel-safe.
async fn tool_ended(tool: &mut Option<(Pin<Box<Sleep>>, ToolEnd)>) -> ToolEnd {
    match tool {
        Some((timer, end)) => {
            timer.as_mut().await;
            *end
        }
        None => std::future::pending().await,
    }
}

/// The next frame; never, once nothing more comes. Cancel-safe.
async fn next_frame(stream: &mut Option<Framed>) -> Result<Frame, String> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}
