//! The calling side: the route, and the caller's machine over a stream.

use std::collections::VecDeque;
use std::sync::Arc;

use comity_mesh::{MeshStream, OpenError};
use comity_protocol::call::caller::Effect;
use comity_protocol::call::frame::{FrameKind, prefix};
use comity_protocol::call::{
    Answer, AttemptId, CallFailure, CallOutcome, CallPlan, Caller, Frame, HeaderParts, Principal, Target,
};
use comity_protocol::ids::{NodeId, PayloadDigest};
use comity_protocol::route::{self, Attempt, Health, Reach, Route, RouteRequest};
use comity_protocol::testing::mesh;
use comity_protocol::time::Mono;
use comity_simnet::scenario::Verdict;
use libp2p::futures::future::BoxFuture;
use tokio::time::sleep;

use super::framed::Framed;
use super::{BODY, Office, Order, due_at};

/// Where a call may go, in order.
enum Leg {
    Here,
    There(Vec<Target>),
}

/// What a call has come to, and who answered.
type End = (Verdict, Option<NodeId>);

/// Makes a call and writes down what became of it. Dropped, the book shows that its caller has gone.
pub(super) async fn make(office: Arc<Office>, order: Order) {
    let (verdict, by) = run(&office, order).await;
    let by = by.and_then(|by| office.net.lock().stage.find(&by));
    office.book.finish(order.number, verdict, by);
}

async fn run(office: &Office, order: Order) -> End {
    let (request, deadline) = {
        let stage = &office.net.lock().stage;
        let wait = stage.scenario().calls[order.source].deadline;
        (stage.request(order.source, office.node), office.clock.mono() + wait)
    };
    let (verdict, legs) = decide(office, &request);
    if verdict != route::Verdict::Routable {
        return (unroutable(verdict), None);
    }
    let mut again = false;
    for leg in legs {
        match leg {
            Leg::Here => return run_here(office, order, deadline).await,
            Leg::There(targets) => {
                let Ok(mut call) = Call::new(office, order, &request, deadline, targets) else {
                    return (Verdict::Denied, None);
                };
                call.again = again;
                if let Some(end) = ended(office, order, call.drive().await) {
                    return end;
                }
                again = true;
            }
        }
    }
    // A call in front of a machine that would rather have none: after the last leg nothing was tried.
    (Verdict::Unreachable, None)
}

fn decide(office: &Office, request: &RouteRequest) -> (route::Verdict, VecDeque<Leg>) {
    let candidates = office.candidates(request);
    let desk = &mut *office.desk();
    desk.budget.deposit();
    let route = route::decide(request, &candidates, &desk.stats, office.clock.now(), &mut desk.rng);
    (route.verdict(), legs(&route))
}

const fn unroutable(verdict: route::Verdict) -> Verdict {
    match verdict {
        route::Verdict::NobodyOffers => Verdict::Unknown,
        route::Verdict::Unreachable | route::Verdict::Routable => Verdict::Unreachable,
        route::Verdict::Unapproved | route::Verdict::Denied => Verdict::Denied,
    }
}

/// The ranked candidates, cut where this node itself stands among them.
fn legs(route: &Route<'_>) -> VecDeque<Leg> {
    let mut legs = VecDeque::new();
    for candidate in &route.ranked {
        match (legs.back_mut(), candidate.reach) {
            (_, Reach::Local) => legs.push_back(Leg::Here),
            (Some(Leg::There(targets)), _) => targets.push(Target::from(*candidate)),
            _ => legs.push_back(Leg::There(vec![Target::from(*candidate)])),
        }
    }
    legs
}

async fn run_here(office: &Office, order: Order, deadline: Mono) -> End {
    office.book.execute(order.number, office.node);
    let (takes, breaks) = office.book.draw_upstream(order.number);
    sleep(takes).await;
    let verdict = match (office.clock.mono() >= deadline, breaks) {
        (true, _) => Verdict::Timeout,
        (false, true) => Verdict::InDoubt,
        (false, false) => Verdict::Answered,
    };
    (verdict, Some(office.handle.node()))
}

/// What an outcome comes to; `None` when the next leg may be tried.
fn ended(office: &Office, order: Order, outcome: CallOutcome) -> Option<End> {
    Some(match outcome {
        CallOutcome::Answered { executor, answer, receipt } => {
            let verdict = match (answer, receipt.is_ok()) {
                (Answer::Failed(_), _) => Verdict::InDoubt,
                (Answer::Result(_) | Answer::Error(_), true) => Verdict::Answered,
                (Answer::Result(_) | Answer::Error(_), false) => Verdict::Unproved,
            };
            (verdict, Some(executor.node))
        }
        CallOutcome::Failed(CallFailure::Exhausted { .. }) => return None,
        CallOutcome::Failed(CallFailure::InDoubt { executor, .. }) => (Verdict::InDoubt, Some(executor.node)),
        CallOutcome::Failed(
            CallFailure::Timeout { handed_over } | CallFailure::Cancelled { handed_over },
        ) => {
            if !handed_over {
                office.book.said_not_run(order.number);
            }
            (Verdict::Timeout, None)
        }
    })
}

/// A stream that is being opened, to whom and for which attempt.
type Opening = (AttemptId, NodeId, BoxFuture<'static, Result<MeshStream, OpenError>>);

/// One leg of a call: the machine, and the attempt that is under way.
struct Call<'a> {
    office: &'a Office,
    request: &'a RouteRequest,
    order: Order,
    machine: Caller,
    /// Whether another leg was tried before.
    again: bool,
    opening: Option<Opening>,
    stream: Option<(AttemptId, Framed)>,
    begun: Option<(AttemptId, Attempt)>,
}

enum Happened {
    Opened(AttemptId, NodeId, Result<MeshStream, OpenError>),
    Frame(AttemptId, Result<Frame, String>),
    Due,
}

impl<'a> Call<'a> {
    fn new(
        office: &'a Office,
        order: Order,
        request: &'a RouteRequest,
        deadline: Mono,
        targets: Vec<Target>,
    ) -> Result<Self, comity_protocol::call::header::HeaderError> {
        let machine = Caller::new(plan(office, order, request, deadline), targets, office.clock.now())?;
        Ok(Self { office, request, order, machine, again: false, opening: None, stream: None, begun: None })
    }

    async fn drive(&mut self) -> CallOutcome {
        loop {
            while let Some(effect) = self.machine.poll_effect() {
                if let Effect::Finish(outcome) = effect {
                    return *outcome;
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
            (attempt, node, opened) = opened(&mut self.opening) => Happened::Opened(attempt, node, opened),
            (attempt, frame) = next_frame(&mut self.stream) => Happened::Frame(attempt, frame),
            () = due_at(due) => Happened::Due,
        }
    }

    fn tell(&mut self, happened: Happened) {
        let now = self.office.clock.now();
        match happened {
            Happened::Opened(attempt, node, Ok(stream)) => {
                self.opening = None;
                self.stream = Some((attempt, Framed::new(stream)));
                let silence = self.office.handle.last_heard(node);
                let heard = silence
                    .map(|silence| Mono::from_micros(now.mono.as_micros().saturating_sub(micros(silence))));
                self.machine.handle_opened(attempt, heard, now);
            }
            Happened::Opened(attempt, _, Err(error)) => {
                self.opening = None;
                self.machine.handle_lost(attempt, error.to_string(), now);
            }
            Happened::Frame(attempt, Ok(frame)) => self.machine.handle_frame(attempt, frame, now),
            Happened::Frame(attempt, Err(detail)) => self.lost(attempt, detail),
            Happened::Due => self.machine.handle_timeout(now),
        }
    }

    fn lost(&mut self, attempt: AttemptId, detail: String) {
        self.stream = None;
        self.machine.handle_lost(attempt, detail, self.office.clock.now());
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Open { attempt, node, retry } => self.open(attempt, node, retry),
            Effect::Send { attempt, frame } => {
                if let Ok(bytes) = frame.to_vec() {
                    self.write(attempt, &bytes).await;
                }
            }
            Effect::SendBody { attempt } => {
                if let Ok(head) = prefix(FrameKind::Body, BODY.len()) {
                    self.write(attempt, &[&head[..], BODY].concat()).await;
                }
            }
            Effect::Close { attempt, health, again } => self.close(attempt, health, again).await,
            Effect::Deliver(_) | Effect::Finish(_) => {}
        }
    }

    fn open(&mut self, attempt: AttemptId, node: NodeId, retry: bool) {
        let retry = retry || std::mem::take(&mut self.again);
        let now = self.office.clock.mono();
        let desk = &mut *self.office.desk();
        if retry && !desk.budget.withdraw(now) {
            return self.machine.handle_no_budget(attempt);
        }
        let begun = desk.stats.begin(node, &self.request.capability, self.order.id, now);
        self.begun = Some((attempt, begun));
        let handle = self.office.handle.clone();
        self.opening = Some((attempt, node, Box::pin(async move { handle.open_call(node, &[]).await })));
    }

    async fn write(&mut self, attempt: AttemptId, bytes: &[u8]) {
        let Some((_, stream)) = self.stream.as_mut().filter(|(open, _)| *open == attempt) else { return };
        if let Err(error) = stream.send(bytes).await {
            self.lost(attempt, error.to_string());
        }
    }

    async fn close(&mut self, attempt: AttemptId, health: Health, again: bool) {
        if let Some((_, begun)) = self.begun.take_if(|(begun, _)| *begun == attempt) {
            let now = self.office.clock.mono();
            self.office.desk().stats.finish(begun, health, now);
        }
        self.opening = None;
        match self.stream.take() {
            Some((_, stream)) if again => stream.keep_for_another(),
            Some((_, stream)) => stream.finish().await,
            None => {}
        }
    }
}

fn plan(office: &Office, order: Order, request: &RouteRequest, deadline: Mono) -> CallPlan {
    let stage = &office.net.lock().stage;
    let scenario = stage.scenario();
    let calls = &scenario.calls[order.source];
    CallPlan {
        mesh: mesh(),
        parts: HeaderParts {
            call: order.id,
            capability: request.capability.clone(),
            contract: request.contract,
            method: "tools/call".into(),
            constraints: request.constraints.clone(),
            principal: Principal {
                org: request.capability.org.clone(),
                node: office.handle.node(),
                node_name: stage.name(office.node).to_owned(),
                name: "simnet".into(),
            },
            request: PayloadDigest::of(BODY),
            request_bytes: u32::try_from(BODY.len()).unwrap_or(u32::MAX),
            trace: None,
            hops: 1,
        },
        vouched: scenario.tools[calls.tool].repeatable,
        deadline,
    }
}

/// The result of the opening that is under way; never, when there is none. Cancel-safe.
async fn opened(opening: &mut Option<Opening>) -> (AttemptId, NodeId, Result<MeshStream, OpenError>) {
    match opening {
        Some((attempt, node, opening)) => (*attempt, *node, opening.await),
        None => std::future::pending().await,
    }
}

/// The next frame of the stream that is open; never, when there is none. Cancel-safe.
async fn next_frame(stream: &mut Option<(AttemptId, Framed)>) -> (AttemptId, Result<Frame, String>) {
    match stream {
        Some((attempt, stream)) => (*attempt, stream.next().await),
        None => std::future::pending().await,
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
