//! What the node counts, for Prometheus.
//!
//! Every label has few values: those that come from outside (capabilities, servers, reasons) are kept up to a bound, and
//! what comes after that counts as [`OTHER`]. One [`Registry`] holds ours and libp2p's.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::control::reports::ServerState;
use crate::exchange::{Failure, Outcome};

/// Capabilities that are counted by name.
pub const CAPABILITIES_MAX: usize = 256;
/// Reasons for refusing a peer that are counted by name.
pub const REASONS_MAX: usize = 32;
/// What everything beyond a bound counts as.
pub const OTHER: &str = "other";

/// Upper bounds of the latency histogram's buckets, in seconds.
const LATENCY_BUCKETS_S: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

/// All counters of a node. Cheap to clone; every clone counts into the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    calls: Family<CallLabels, Counter>,
    call_seconds: Family<HopLabels, Histogram, fn() -> Histogram>,
    capabilities: Arc<Bounded<CAPABILITIES_MAX>>,
    refusals: Family<ReasonLabels, Counter>,
    reasons: Arc<Bounded<REASONS_MAX>>,
    gossip_bytes: Family<DirectionLabels, Counter>,
    upstreams: Family<UpstreamLabels, Gauge>,
    /// Peers that are connected and admitted.
    pub peers: Gauge,
    /// Adverts in the directory.
    pub directory_size: Gauge,
    /// Calls in flight here.
    pub calls_in_flight: Gauge,
}

/// Which side of a call this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hop {
    /// A client here called a server here.
    Local,
    /// A client here called a server elsewhere.
    Out,
    /// A node elsewhere called a server here.
    In,
}

/// Which way bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a peer.
    Received,
    /// To a peer.
    Sent,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    capability: String,
    outcome: &'static str,
    hop: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HopLabels {
    hop: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    server: String,
    state: &'static str,
}

impl Metrics {
    /// Makes the counters and registers them under `comity_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Metrics {
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS_S)),
            capabilities: Arc::default(),
            refusals: Family::default(),
            reasons: Arc::default(),
            gossip_bytes: Family::default(),
            upstreams: Family::default(),
            peers: Gauge::default(),
            directory_size: Gauge::default(),
            calls_in_flight: Gauge::default(),
        };
        let ours = registry.sub_registry_with_prefix("comity");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        ours.register("build", "The release that runs", version);
        ours.register("calls", "Calls that ended", metrics.calls.clone());
        ours.register("call_duration_seconds", "How long calls took", metrics.call_seconds.clone());
        ours.register("calls_in_flight", "Calls that are running", metrics.calls_in_flight.clone());
        ours.register("peers", "Peers connected and admitted", metrics.peers.clone());
        ours.register("directory_size", "Adverts in the directory", metrics.directory_size.clone());
        ours.register("gossip_bytes", "Bytes of gossip", metrics.gossip_bytes.clone());
        ours.register("admission_refusals", "Peers that were refused", metrics.refusals.clone());
        ours.register("upstream_state", "1 for the state in which a server is", metrics.upstreams.clone());
        metrics
    }

    /// Counts a call that ended.
    pub fn call_ended(&self, capability: &str, outcome: &Outcome, hop: Hop, took: Duration) {
        let (capability, hop) = (self.capabilities.label(capability), hop.label());
        self.calls.get_or_create(&CallLabels { capability, outcome: outcome_label(outcome), hop }).inc();
        self.call_seconds.get_or_create(&HopLabels { hop }).observe(took.as_secs_f64());
    }

    /// Counts a peer that was refused; `reason` is a short code.
    pub fn admission_refused(&self, reason: &str) {
        self.refusals.get_or_create(&ReasonLabels { reason: self.reasons.label(reason) }).inc();
    }

    /// Counts gossip.
    pub fn gossip(&self, direction: Direction, bytes: u64) {
        self.gossip_bytes.get_or_create(&DirectionLabels { direction: direction.label() }).inc_by(bytes);
    }

    /// Sets the state of a server; `None` forgets a server that was removed.
    pub fn upstream(&self, server: &str, state: Option<ServerState>) {
        for known in [ServerState::Starting, ServerState::Ready, ServerState::Backoff, ServerState::Stopping]
        {
            let labels = UpstreamLabels { server: server.to_owned(), state: state_label(known) };
            match state {
                Some(state) => {
                    self.upstreams.get_or_create(&labels).set(i64::from(state == known));
                }
                None => {
                    self.upstreams.remove(&labels);
                }
            }
        }
    }
}

impl Hop {
    const fn label(self) -> &'static str {
        match self {
            Hop::Local => "local",
            Hop::Out => "out",
            Hop::In => "in",
        }
    }
}

impl Direction {
    const fn label(self) -> &'static str {
        match self {
            Direction::Received => "received",
            Direction::Sent => "sent",
        }
    }
}

fn outcome_label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Result(_) => "ok",
        Outcome::Error(_) => "error",
        Outcome::Failed(failure) => match failure {
            Failure::Unreachable { .. } => "unreachable",
            Failure::UpstreamDied { .. } => "upstream_died",
            Failure::Timeout { .. } => "timeout",
            Failure::Cancelled { .. } => "cancelled",
            Failure::InDoubt { .. } => "in_doubt",
            Failure::Denied { .. } => "denied",
            Failure::Overloaded { .. } => "overloaded",
            Failure::TooLarge { .. } => "too_large",
            Failure::Unapproved { .. } => "unapproved",
            Failure::Refused { .. } => "refused",
            Failure::Internal { .. } => "internal",
        },
    }
}

fn state_label(state: ServerState) -> &'static str {
    match state {
        ServerState::Starting => "starting",
        ServerState::Ready => "ready",
        ServerState::Backoff => "backoff",
        ServerState::Stopping => "stopping",
    }
}

/// Label values that were seen, at most `MAX`.
#[derive(Debug, Default)]
struct Bounded<const MAX: usize>(Mutex<BTreeSet<String>>);

impl<const MAX: usize> Bounded<MAX> {
    fn label(&self, value: &str) -> String {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(value) {
            value.to_owned()
        } else if seen.len() < MAX {
            seen.insert(value.to_owned());
            value.to_owned()
        } else {
            OTHER.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use serde_json::value::RawValue;

    use super::*;

    fn registered() -> (Registry, Metrics) {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        (registry, metrics)
    }

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).expect("encodes");
        text
    }

    #[test]
    fn what_happened_is_shown() {
        let (registry, metrics) = registered();
        let ok = Outcome::Result(RawValue::from_string("{}".into()).expect("JSON"));
        let denied = Outcome::Failed(Failure::Denied { reasons: Vec::new() });
        metrics.call_ended("acme.example/time/now", &ok, Hop::Local, Duration::from_millis(3));
        metrics.call_ended("acme.example/time/now", &denied, Hop::Out, Duration::ZERO);
        metrics.admission_refused("unpinned_org");
        metrics.gossip(Direction::Sent, 42);
        metrics.upstream("time", Some(ServerState::Ready));
        metrics.peers.set(2);
        let text = text(&registry);
        for line in [
            "comity_calls_total{capability=\"acme.example/time/now\",outcome=\"ok\",hop=\"local\"} 1",
            "comity_calls_total{capability=\"acme.example/time/now\",outcome=\"denied\",hop=\"out\"} 1",
            "comity_call_duration_seconds_bucket{le=\"0.005\",hop=\"local\"} 1",
            "comity_admission_refusals_total{reason=\"unpinned_org\"} 1",
            "comity_gossip_bytes_total{direction=\"sent\"} 42",
            "comity_upstream_state{server=\"time\",state=\"ready\"} 1",
            "comity_upstream_state{server=\"time\",state=\"backoff\"} 0",
            "comity_peers 2",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_server_that_was_removed_is_forgotten() {
        let (registry, metrics) = registered();
        metrics.upstream("time", Some(ServerState::Ready));
        metrics.upstream("time", None);
        assert!(!text(&registry).contains("server=\"time\""));
    }

    #[test]
    fn labels_from_outside_are_bounded() {
        let (registry, metrics) = registered();
        for n in 0..REASONS_MAX + 5 {
            metrics.admission_refused(&format!("r{n}"));
        }
        metrics.admission_refused("r0");
        let text = text(&registry);
        assert!(text.contains("{reason=\"other\"} 5") && text.contains("{reason=\"r0\"} 2"), "{text}");
        assert!(!text.contains(&format!("r{REASONS_MAX}\"")));
    }
}
