//! What became of every call: who made it, who ran it, what its caller was told; held against the scenario at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use comity_protocol::ids::CallId;
use comity_protocol::rng::Rng;
use comity_simnet::judge::Invariant;
use comity_simnet::moment::Moment;
use comity_simnet::scenario::{Expectation, Scenario, Verdict};

use crate::net::Shared;

/// Kinds of traced events.
const RAN: u8 = 24;
const ENDED: u8 = 25;

/// How long after its deadline a call may still be ended, as in the first tier.
const ENDING: Duration = Duration::from_secs(15);

/// Something that did not hold: what, at which node, and what was the case.
pub(crate) type Fault = (Invariant, Moment, Option<usize>, String);

/// The book of a run's calls. Shared by all nodes; nobody reads it to decide.
#[derive(Clone)]
pub(crate) struct Book(Arc<Mutex<Pages>>, Shared, Arc<Scenario>);

struct Pages {
    calls: Vec<Call>,
    numbers: BTreeMap<CallId, usize>,
    rng: Rng,
    faults: Vec<Fault>,
}

struct Call {
    source: usize,
    caller: usize,
    began: Moment,
    executions: Vec<usize>,
    said_not_run: bool,
    outcome: Option<(Verdict, Moment, Option<usize>)>,
}

impl Book {
    pub(crate) fn new(net: Shared, scenario: Arc<Scenario>, seed: u64) -> Self {
        let pages =
            Pages { calls: Vec::new(), numbers: BTreeMap::new(), rng: Rng::new(seed), faults: Vec::new() };
        Self(Arc::new(Mutex::new(pages)), net, scenario)
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new call of a node, and the id that it gets.
    pub(crate) fn begin(&self, source: usize, caller: usize) -> (usize, CallId) {
        let began = self.1.lock().now();
        let pages = &mut *self.lock();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&pages.rng.next_u64().to_le_bytes());
        bytes[8..].copy_from_slice(&pages.rng.next_u64().to_le_bytes());
        let (id, number) = (CallId::from_bytes(bytes), pages.calls.len());
        pages.numbers.insert(id, number);
        let (executions, said_not_run, outcome) = (Vec::new(), false, None);
        pages.calls.push(Call { source, caller, began, executions, said_not_run, outcome });
        (number, id)
    }

    /// The call of an id; `None` for one that nobody has made.
    pub(super) fn number_of(&self, id: &CallId) -> Option<usize> {
        self.lock().numbers.get(id).copied()
    }

    /// Anything that a run draws for its calls.
    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.lock().rng)
    }

    /// How long a tool takes this time, and whether it breaks down.
    pub(super) fn draw_upstream(&self, number: usize) -> (Duration, bool) {
        let pages = &mut *self.lock();
        let tool = &self.2.tools[self.2.calls[pages.calls[number].source].tool];
        (tool.takes.draw(&mut pages.rng), tool.breaks.happens(&mut pages.rng))
    }

    /// A node begins to run a call.
    pub(super) fn execute(&self, number: usize, node: usize) {
        let (now, may_run) = {
            let net = &mut *self.1.lock();
            let now = net.now();
            net.trace.event(now, RAN, node, &(number as u64).to_le_bytes());
            let (source, caller) = self.made_by(number);
            (now, net.stage.may_run(source, caller, node))
        };
        let pages = &mut *self.lock();
        let call = &mut pages.calls[number];
        call.executions.push(node);
        let name = &self.2.calls[call.source].name;
        let repeatable = self.2.tools[self.2.calls[call.source].tool].repeatable;
        let told = call.said_not_run || call.outcome.is_some_and(|(verdict, ..)| says_nothing_ran(verdict));
        let wrong = [
            (!may_run, Invariant::LawfulRun, "that it may not run"),
            (call.executions.len() > 1 && !repeatable, Invariant::RunsOnce, "that had run before"),
            (told, Invariant::NothingHidden, "of which its caller was told that it did not run"),
        ];
        for (_, invariant, what) in wrong.into_iter().filter(|(wrong, ..)| *wrong) {
            pages.faults.push((invariant, now, Some(node), format!("runs a call of {name} {what}")));
        }
    }

    fn made_by(&self, number: usize) -> (usize, usize) {
        let call = &self.lock().calls[number];
        (call.source, call.caller)
    }

    /// A caller's machine says that a call that it gave up was not handed over.
    pub(super) fn said_not_run(&self, number: usize) {
        self.lock().calls[number].said_not_run = true;
        self.look_for_hidden(number);
    }

    /// A call has its outcome.
    pub(super) fn finish(&self, number: usize, verdict: Verdict, by: Option<usize>) {
        let (_, caller) = self.made_by(number);
        let now = {
            let net = &mut *self.1.lock();
            let now = net.now();
            net.trace.event(now, ENDED, caller, &[verdict as u8]);
            now
        };
        let again = self.lock().calls[number].outcome.replace((verdict, now, by)).is_some();
        if again {
            self.fault(number, Invariant::OneOutcome, "has a second outcome");
        }
        let never_ran = by.is_some_and(|by| !self.lock().calls[number].executions.contains(&by));
        if verdict == Verdict::Answered && never_ran {
            self.fault(number, Invariant::NothingHidden, "is answered by somebody who never ran it");
        }
        if says_nothing_ran(verdict) {
            self.look_for_hidden(number);
        }
    }

    fn look_for_hidden(&self, number: usize) {
        if !self.lock().calls[number].executions.is_empty() {
            self.fault(number, Invariant::NothingHidden, "ran, and its caller was told that it did not");
        }
    }

    fn fault(&self, number: usize, invariant: Invariant, what: &str) {
        let now = self.1.lock().now();
        let pages = &mut *self.lock();
        let call = &pages.calls[number];
        let detail = format!("a call of {} {what}", self.2.calls[call.source].name);
        let caller = call.caller;
        pages.faults.push((invariant, now, Some(caller), detail));
    }

    /// A node has gone with all the calls that it had made.
    pub(crate) fn caller_gone(&self, node: usize) {
        let now = self.1.lock().now();
        let calls = &mut self.lock().calls;
        for call in calls.iter_mut().filter(|call| call.caller == node && call.outcome.is_none()) {
            call.outcome = Some((Verdict::CallerGone, now, None));
        }
    }

    /// What did not hold so far; each once.
    pub(crate) fn take_faults(&self) -> Vec<Fault> {
        std::mem::take(&mut self.lock().faults)
    }

    /// At the end of a run: calls without an outcome whose time is up, and expectations that are not met.
    pub(crate) fn close(&self, now: Moment) {
        let late = |call: &Call| {
            let calls = &self.2.calls[call.source];
            let longest = calls.deadline.max(self.2.tools[calls.tool].takes.to);
            call.outcome.is_none() && now > call.began + longest + ENDING
        };
        let late: Vec<usize> =
            self.lock().calls.iter().enumerate().filter(|(_, call)| late(call)).map(|(at, _)| at).collect();
        late.into_iter().for_each(|number| self.fault(number, Invariant::OneOutcome, "has no outcome"));
        let disappointments: Vec<String> =
            self.2.expectations.iter().filter_map(|wanted| self.disappointment(wanted)).collect();
        let faults = disappointments.into_iter().map(|detail| (Invariant::Expectation, now, None, detail));
        self.lock().faults.extend(faults);
    }

    fn disappointment(&self, wanted: &Expectation) -> Option<String> {
        let site_of = |by: usize| self.1.lock().stage.site_of(by);
        let during = |began: Moment| {
            (Moment::after(wanted.during.from)..Moment::after(wanted.during.to)).contains(&began)
        };
        let ended: Vec<(Verdict, Option<usize>)> = {
            let calls = &self.lock().calls;
            let of_these = calls.iter().filter(|call| call.source == wanted.calls && during(call.began));
            let ended = of_these.filter_map(|call| call.outcome.map(|(verdict, _, by)| (verdict, by)));
            ended.filter(|(verdict, _)| *verdict != Verdict::CallerGone).collect()
        };
        let name = &self.2.calls[wanted.calls].name;
        let stretch = format!("{:?} to {:?}", wanted.during.from, wanted.during.to);
        if ended.is_empty() {
            return Some(format!("no call of `{name}` was made from {stretch}"));
        }
        let good = |(verdict, by): &&(Verdict, Option<usize>)| {
            let there = wanted.sites.is_empty() || by.is_some_and(|by| wanted.sites.contains(&site_of(by)));
            wanted.outcomes.contains(verdict) && there
        };
        let met = ended.iter().filter(good).count();
        let enough = (met as u64) * 1_000_000 >= (ended.len() as u64) * u64::from(wanted.at_least.0);
        (!enough)
            .then(|| format!("of {} calls of `{name}` from {stretch}, {met} were as expected", ended.len()))
    }

    /// How many calls came to what.
    pub(crate) fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for (verdict, ..) in self.lock().calls.iter().filter_map(|call| call.outcome) {
            *counts.entry(verdict.word()).or_default() += 1;
        }
        counts
    }

    /// How long answered calls took: the median and the most, in milliseconds.
    pub(crate) fn answered_ms(&self) -> Option<(u64, u64)> {
        let calls = &self.lock().calls;
        let answered = calls.iter().filter_map(|call| match call.outcome {
            Some((Verdict::Answered, at, _)) => Some(at.since(call.began).as_millis()),
            _ => None,
        });
        let mut took: Vec<u64> = answered.filter_map(|ms| u64::try_from(ms).ok()).collect();
        took.sort_unstable();
        Some((*took.get(took.len() / 2)?, *took.last()?))
    }
}

/// Whether a verdict tells the caller that nothing ran.
const fn says_nothing_ran(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Denied | Verdict::Unknown | Verdict::Unreachable)
}
