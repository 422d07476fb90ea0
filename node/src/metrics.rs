//! What the node counts, for Prometheus.
//!
//! Every label has few values: those that come from outside (capabilities, servers) are kept up to a bound, and what comes
//! after that counts as other. One [`Registry`] holds ours, the mesh's and libp2p's.

use std::sync::Arc;
use std::time::Duration;

use comity_mesh::metrics::{self as mesh, Labels};
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

/// Upper bounds of the latency histogram's buckets, in seconds.
const LATENCY_BUCKETS_S: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

/// All counters of a node. Cheap to clone; every clone counts into the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    calls: Family<CallLabels, Counter>,
    call_seconds: Family<HopLabels, Histogram, fn() -> Histogram>,
    capabilities: Arc<Labels<CAPABILITIES_MAX>>,
    upstreams: Family<UpstreamLabels, Gauge>,
    /// What the mesh counts.
    pub mesh: mesh::Metrics,
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
struct UpstreamLabels {
    server: String,
    state: &'static str,
}

impl Metrics {
    /// Makes the counters and registers them under `comity_`.
    pub fn register(registry: &mut Registry) -> Self {
        let ours = registry.sub_registry_with_prefix("comity");
        let metrics = Metrics {
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS_S)),
            capabilities: Arc::default(),
            upstreams: Family::default(),
            mesh: mesh::Metrics::register(ours),
            calls_in_flight: Gauge::default(),
        };
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        ours.register("build", "The release that runs", version);
        ours.register("calls", "Calls that ended", metrics.calls.clone());
        ours.register("call_duration_seconds", "How long calls took", metrics.call_seconds.clone());
        ours.register("calls_in_flight", "Calls that are running", metrics.calls_in_flight.clone());
        ours.register("upstream_state", "1 for the state in which a server is", metrics.upstreams.clone());
        metrics
    }

    /// Counts a call that ended.
    pub fn call_ended(&self, capability: &str, outcome: &Outcome, hop: Hop, took: Duration) {
        let (capability, hop) = (self.capabilities.label(capability), hop.label());
        self.calls.get_or_create(&CallLabels { capability, outcome: outcome_label(outcome), hop }).inc();
        self.call_seconds.get_or_create(&HopLabels { hop }).observe(took.as_secs_f64());
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
        metrics.upstream("time", Some(ServerState::Ready));
        let text = text(&registry);
        for line in [
            "comity_calls_total{capability=\"acme.example/time/now\",outcome=\"ok\",hop=\"local\"} 1",
            "comity_calls_total{capability=\"acme.example/time/now\",outcome=\"denied\",hop=\"out\"} 1",
            "comity_call_duration_seconds_bucket{le=\"0.005\",hop=\"local\"} 1",
            "comity_upstream_state{server=\"time\",state=\"ready\"} 1",
            "comity_upstream_state{server=\"time\",state=\"backoff\"} 0",
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
}
