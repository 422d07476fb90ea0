//! What the mesh counts, for Prometheus.
//!
//! Every label has few values: those that come from outside are kept up to a bound, and what comes after that counts as
//! [`OTHER`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Reasons for refusing a peer that are counted by name.
pub const REASONS_MAX: usize = 32;
/// What everything beyond a bound counts as.
pub const OTHER: &str = "other";

/// The counters of one mesh. Cheap to clone; every clone counts into the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    refusals: Family<ReasonLabels, Counter>,
    reasons: Arc<Labels<REASONS_MAX>>,
    gossip_bytes: Family<DirectionLabels, Counter>,
    /// Peers that are connected and admitted.
    pub peers: Gauge,
    /// Adverts in the directory.
    pub directory_size: Gauge,
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
struct ReasonLabels {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

impl Metrics {
    /// Makes the counters and registers them in `registry`, which gives them their prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            refusals: Family::default(),
            reasons: Arc::default(),
            gossip_bytes: Family::default(),
            peers: Gauge::default(),
            directory_size: Gauge::default(),
        };
        registry.register("peers", "Peers connected and admitted", metrics.peers.clone());
        registry.register("directory_size", "Adverts in the directory", metrics.directory_size.clone());
        registry.register("gossip_bytes", "Bytes of gossip", metrics.gossip_bytes.clone());
        registry.register("admission_refusals", "Peers that were refused", metrics.refusals.clone());
        metrics
    }

    /// Counts a peer that was refused; `reason` is a short code.
    pub fn admission_refused(&self, reason: &str) {
        self.refusals.get_or_create(&ReasonLabels { reason: self.reasons.label(reason) }).inc();
    }

    /// Counts gossip.
    pub fn gossip(&self, direction: Direction, bytes: u64) {
        self.gossip_bytes.get_or_create(&DirectionLabels { direction: direction.label() }).inc_by(bytes);
    }
}

impl Direction {
    const fn label(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Sent => "sent",
        }
    }
}

/// Label values that were seen, at most `MAX`; those beyond are all [`OTHER`].
#[derive(Debug, Default)]
pub struct Labels<const MAX: usize>(Mutex<BTreeSet<String>>);

impl<const MAX: usize> Labels<MAX> {
    /// The label under which `value` is counted.
    pub fn label(&self, value: &str) -> String {
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

    use super::*;

    fn registered() -> (Registry, Metrics) {
        let mut registry = Registry::with_prefix("comity");
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
        metrics.admission_refused("unpinned_org");
        metrics.gossip(Direction::Sent, 42);
        metrics.peers.set(2);
        let text = text(&registry);
        for line in [
            "comity_admission_refusals_total{reason=\"unpinned_org\"} 1",
            "comity_gossip_bytes_total{direction=\"sent\"} 42",
            "comity_peers 2",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
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
