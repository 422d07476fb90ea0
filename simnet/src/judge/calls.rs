//! What became of calls: where they ran, how often, and what their callers were told.

use std::time::Duration;

use comity_protocol::route::{Rejection, Route};

use super::Invariant;
use crate::scenario::{Expectation, Verdict, satisfies};
use crate::world::World;

/// How long after its deadline a call may still be ended: cancelling it and waiting for its receipt take that long.
const ENDING: Duration = Duration::from_secs(15);

/// The rules of the law, as apart from reach and approval.
const LAW: [Rejection; 7] = [
    Rejection::LocationOutsideMembership,
    Rejection::LocationNotAllowed,
    Rejection::OperatorCountryDenied,
    Rejection::OrgNotAllowed,
    Rejection::TrustTooLow,
    Rejection::ClassTooHigh,
    Rejection::CertificationMissing,
];

impl World {
    /// Whether the scenario lets a node run a call.
    pub(crate) fn may_run(&self, call: usize, node: usize) -> bool {
        let one = &self.calls.list[call];
        let calls = &self.scenario.calls[one.source];
        let tool = &self.scenario.tools[calls.tool];
        let own = !tool.org_only || self.federation.org_of(node) == self.federation.org_of(one.caller);
        let site = &self.scenario.sites[self.federation.members[node].site];
        let demands = self.scenario.demands(calls, self.federation.members[one.caller].site);
        own && satisfies(&self.scenario, tool, site, &demands)
    }

    /// A caller has decided.
    pub(crate) fn judge_route(&mut self, call: usize, route: &Route<'_>) {
        self.judge_whole_route(call, route);
        self.time_rerouting(route);
        let ranked = route.ranked.iter().map(|candidate| (candidate, true));
        let by_law =
            |reasons: &comity_protocol::route::Rejections| LAW.iter().any(|rule| reasons.contains(*rule));
        let rejected = route.rejected.iter().filter(|(_, reasons)| by_law(reasons));
        let judged = ranked.chain(rejected.map(|(candidate, _)| (candidate, false)));
        let wrong = judged.filter_map(|(candidate, lawful)| {
            let node = self.federation.find(&candidate.site.node)?;
            (self.may_run(call, node) != lawful).then_some((node, lawful))
        });
        let wrong: Vec<_> = wrong.collect();
        let caller = self.calls.list[call].caller;
        for (node, lawful) in wrong {
            let (name, word) = (self.name(node), if lawful { "took" } else { "rejected by law" });
            let detail = format!("{word} {name}, and the scenario says the opposite");
            self.violate(Invariant::LawfulRoute, Some(caller), detail);
        }
    }

    /// A node is given the request itself.
    pub(crate) fn judge_hand_over(&mut self, call: usize, node: usize) {
        self.calls.list[call].handed.push(node);
        // What a hostile caller hands over is its own; what counts is whether it is run.
        if self.calls.list[call].hostile {
            return;
        }
        if !self.may_run(call, node) {
            let detail = format!("was given a call of {} that it may not run", self.calls_name(call));
            self.violate(Invariant::LawfulRun, Some(node), detail);
        }
    }

    /// A node begins to run a call.
    pub(crate) fn judge_execution(&mut self, call: usize, node: usize) {
        if self.nodes[node].is_tainted() {
            return;
        }
        if !self.may_run(call, node) {
            let detail = format!("runs a call of {} that it may not run", self.calls_name(call));
            self.violate(Invariant::LawfulRun, Some(node), detail);
        }
        let one = &mut self.calls.list[call];
        if one.hostile {
            return;
        }
        one.executions.push(node);
        let (times, told) = (one.executions.len(), one.outcome.map(|(verdict, _)| verdict));
        if times > 1 && !self.is_repeatable(call) {
            let detail = format!("a call of {} runs for the second time", self.calls_name(call));
            self.violate(Invariant::RunsOnce, Some(node), detail);
        }
        if told.is_some_and(says_nothing_ran) || self.calls.list[call].said_not_run {
            self.tell_hidden(call, node);
        }
    }

    fn is_repeatable(&self, call: usize) -> bool {
        self.scenario.tools[self.scenario.calls[self.calls.list[call].source].tool].repeatable
    }

    fn calls_name(&self, call: usize) -> &str {
        &self.scenario.calls[self.calls.list[call].source].name
    }

    fn tell_hidden(&mut self, call: usize, node: usize) {
        let detail = format!(
            "ran a call of {} of which its caller was told that it did not run",
            self.calls_name(call)
        );
        self.violate(Invariant::NothingHidden, Some(node), detail);
    }

    /// A caller's machine says whether a call that it gave up may have run.
    pub(crate) fn judge_denial_of_execution(&mut self, call: usize, handed_over: bool) {
        if handed_over || self.calls.list[call].hostile {
            return;
        }
        self.calls.list[call].said_not_run = true;
        if let Some(node) = self.calls.list[call].executions.first().copied() {
            self.tell_hidden(call, node);
        }
    }

    /// A caller's machine says whether it believes a receipt.
    pub(crate) fn judge_receipt(&mut self, call: usize, by: Option<usize>, believed: bool) {
        let one = &self.calls.list[call];
        if believed && !one.hostile && by.is_some_and(|by| one.tampered.contains(&by)) {
            let caller = one.caller;
            let detail = format!("believed a false receipt for a call of {}", self.calls_name(call));
            self.violate(Invariant::TrueReceipt, Some(caller), detail);
        }
    }

    /// A call has its outcome.
    pub(crate) fn judge_call(&mut self, call: usize, again: bool) {
        let one = &self.calls.list[call];
        let (caller, began) = (one.caller, one.began);
        let Some((verdict, _)) = one.outcome else { return };
        let ran = one.executions.first().copied();
        let missing =
            one.answered_by.filter(|by| !self.nodes[*by].is_tainted() && !one.executions.contains(by));
        if again {
            let detail = format!("a call of {} has a second outcome", self.calls_name(call));
            self.violate(Invariant::OneOutcome, Some(caller), detail);
        }
        if let Some(node) = ran.filter(|_| says_nothing_ran(verdict)) {
            self.tell_hidden(call, node);
        }
        if let Some(by) = missing.filter(|_| verdict == Verdict::Answered) {
            let detail =
                format!("is said to have answered a call of {} and never ran it", self.calls_name(call));
            self.violate(Invariant::NothingHidden, Some(by), detail);
        }
        let serving = self.serving_from().is_some_and(|from| began >= from);
        if serving && Self::is_unserved(verdict) && self.somebody_could(call) {
            let detail = format!(
                "a call of {} is {}, and somebody could run it",
                self.calls_name(call),
                verdict.word()
            );
            self.violate(Invariant::Served, Some(caller), detail);
        }
    }

    /// At the end of a run: every call whose time is up has its outcome.
    pub(super) fn judge_calls_at_end(&mut self) {
        for call in 0..self.calls.list.len() {
            let one = &self.calls.list[call];
            let calls = &self.scenario.calls[one.source];
            let longest = calls.deadline.max(self.scenario.tools[calls.tool].takes.to);
            if !one.hostile && one.outcome.is_none() && self.now > one.began + longest + ENDING {
                let detail = format!("a call of {} has no outcome", calls.name);
                let caller = one.caller;
                self.violate(Invariant::OneOutcome, Some(caller), detail);
            }
        }
    }

    /// At the end of a run: what the scenario expects.
    pub(super) fn judge_expectations(&mut self) {
        for expectation in self.scenario.expectations.clone() {
            if let Some(detail) = self.disappointment(&expectation) {
                self.violate(Invariant::Expectation, None, detail);
            }
        }
    }

    fn disappointment(&self, wanted: &Expectation) -> Option<String> {
        let during = |began: Duration| began >= wanted.during.from && began < wanted.during.to;
        let ended: Vec<_> = self
            .calls
            .list
            .iter()
            .filter(|call| {
                !call.hostile && call.source == wanted.calls && during(Duration::from_micros(call.began.0))
            })
            .filter_map(|call| Some((call.outcome?.0, call.answered_by)))
            .filter(|(verdict, _)| *verdict != Verdict::CallerGone)
            .collect();
        let name = &self.scenario.calls[wanted.calls].name;
        let stretch = format!("{:?} to {:?}", wanted.during.from, wanted.during.to);
        if ended.is_empty() {
            return Some(format!("no call of `{name}` was made from {stretch}"));
        }
        let good = |(verdict, by): &&(Verdict, Option<usize>)| {
            let site = by.map(|by| self.federation.members[by].site);
            wanted.outcomes.contains(verdict)
                && (wanted.sites.is_empty() || site.is_some_and(|site| wanted.sites.contains(&site)))
        };
        let met = ended.iter().filter(good).count();
        if (met as u64) * 1_000_000 >= (ended.len() as u64) * u64::from(wanted.at_least.0) {
            return None;
        }
        let mut seen = std::collections::BTreeMap::<(&str, &str), usize>::new();
        for (verdict, by) in &ended {
            let site =
                by.map_or("nobody", |by| self.scenario.sites[self.federation.members[by].site].name.as_str());
            *seen.entry((verdict.word(), site)).or_default() += 1;
        }
        let seen: Vec<_> =
            seen.iter().map(|((word, site), count)| format!("{count} {word} by {site}")).collect();
        Some(format!(
            "of {} calls of `{name}` from {stretch}, {met} were {} as expected: {}",
            ended.len(),
            wanted.outcomes.iter().map(|outcome| outcome.word()).collect::<Vec<_>>().join(" or "),
            seen.join(", ")
        ))
    }
}

/// Whether a verdict tells the caller that nothing ran.
const fn says_nothing_ran(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Denied | Verdict::Unknown | Verdict::Unreachable)
}
