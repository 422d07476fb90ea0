//! What lies between nodes: how long a frame takes, and who is cut off from whom.
//!
//! Frames travel on streams of a connection, so a lost packet is not a lost frame: it is sent again after a timeout like
//! QUIC's (RFC 9002, section 6.2), which costs time and keeps the stream's order. A cut holds frames back; they go on
//! when it heals, unless the connection has died meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use comity_protocol::rng::Rng;

use crate::federation::Federation;
use crate::moment::Moment;
use crate::scenario::{Direction, Path, SiteId};

/// Bytes of a packet's payload: what QUIC sends before it knows more of the path.
const PACKET_BYTES: usize = 1200;

/// What every frame costs besides itself: headers of the stream, the connection, UDP and IP.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 60;

/// What is added to three one-way times before a packet is sent again: the receiver's delay of acknowledgements.
const ACK_DELAY: Duration = Duration::from_millis(25);

/// Most times that a packet is sent again before the simulation lets it through.
const RESENDS_MAX: u32 = 8;

/// Most packets of one frame whose loss is drawn one by one.
const PACKETS_DRAWN_MAX: usize = 64;

/// A fault that is in force, by number.
pub(crate) type FaultId = u64;

struct Cut {
    inside: Vec<bool>,
    outside: Vec<bool>,
    direction: Direction,
}

struct Degraded {
    inside: Vec<bool>,
    path: Path,
}

/// What lies between nodes.
pub(crate) struct Network {
    seed: u64,
    rng: Rng,
    site_of: Vec<SiteId>,
    sites: usize,
    paths: Vec<Path>,
    cuts: BTreeMap<FaultId, Cut>,
    degraded: BTreeMap<FaultId, Degraded>,
    busy: BTreeMap<(usize, usize), Moment>,
}

impl Network {
    pub(crate) fn new(federation: &Federation, seed: u64) -> Self {
        let scenario = &federation.scenario;
        let sites = scenario.sites.len();
        let mut paths = vec![scenario.network; sites * sites];
        for link in &scenario.links {
            let (one, other) = link.between;
            paths[one * sites + other] = link.path;
            paths[other * sites + one] = link.path;
        }
        let site_of = federation.members.iter().map(|member| member.site).collect();
        let (cuts, degraded, busy) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { seed, rng: Rng::new(seed), site_of, sites, paths, cuts, degraded, busy }
    }

    /// Whether nothing that `from` sends reaches `to`.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.values().any(|cut| {
            let out = cut.inside[from] && cut.outside[to] && cut.direction != Direction::In;
            let into = cut.outside[from] && cut.inside[to] && cut.direction != Direction::Out;
            out || into
        })
    }

    /// Whether anybody is cut off from anybody.
    pub(crate) fn has_cuts(&self) -> bool {
        !self.cuts.is_empty()
    }

    pub(crate) fn cut(&mut self, id: FaultId, inside: Vec<bool>, outside: Vec<bool>, direction: Direction) {
        self.cuts.insert(id, Cut { inside, outside, direction });
    }

    pub(crate) fn degrade(&mut self, id: FaultId, inside: Vec<bool>, path: Path) {
        self.degraded.insert(id, Degraded { inside, path });
    }

    /// Ends a cut or a degradation.
    pub(crate) fn mend(&mut self, id: FaultId) {
        self.cuts.remove(&id);
        self.degraded.remove(&id);
    }

    fn path(&self, from: usize, to: usize) -> Path {
        let degraded = self.degraded.values().find(|bad| bad.inside[from] != bad.inside[to]);
        degraded
            .map_or_else(|| self.paths[self.site_of[from] * self.sites + self.site_of[to]], |bad| bad.path)
    }

    /// How long one way takes now: what the pair has drawn once, and up to a tenth more.
    pub(crate) fn latency(&mut self, from: usize, to: usize) -> Duration {
        let path = self.path(from, to);
        let (low, high) = (from.min(to) as u64, from.max(to) as u64);
        let pair = self.seed ^ (low << 32 | high).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let base = path.latency.draw(&mut Rng::new(pair));
        let tenth = usize::try_from(base.as_micros() / 10).unwrap_or(usize::MAX - 1);
        base + Duration::from_micros(self.rng.below(tenth + 1) as u64)
    }

    /// When a frame that is sent now arrives.
    pub(crate) fn arrival(&mut self, from: usize, to: usize, bytes: usize, now: Moment) -> Moment {
        let path = self.path(from, to);
        let sent = match path.kilobits {
            Some(kilobits) => self.serialise((from, to), bytes, kilobits, now),
            None => now,
        };
        let latency = self.latency(from, to);
        sent + latency + self.resends(bytes, &path, latency)
    }

    /// When the last bit has left, after all that was sent before.
    fn serialise(&mut self, pair: (usize, usize), bytes: usize, kilobits: u32, now: Moment) -> Moment {
        let begin = self.busy.get(&pair).copied().unwrap_or_default().max(now);
        let micros = (bytes as u64).saturating_mul(8000) / u64::from(kilobits.max(1));
        let end = begin + Duration::from_micros(micros);
        self.busy.insert(pair, end);
        end
    }

    fn resends(&mut self, bytes: usize, path: &Path, latency: Duration) -> Duration {
        let (mut packets, mut delay) = ((bytes / PACKET_BYTES + 1).min(PACKETS_DRAWN_MAX), Duration::ZERO);
        for resend in 0..RESENDS_MAX {
            packets = (0..packets).filter(|_| path.loss.happens(&mut self.rng)).count();
            if packets == 0 {
                break;
            }
            delay += (latency * 3 + ACK_DELAY) * (1 << resend);
        }
        delay
    }

    /// Whether a hop of gossip fails for good.
    pub(crate) fn drops_gossip(&mut self, from: usize, to: usize) -> bool {
        let share = self.path(from, to).gossip_loss;
        share.happens(&mut self.rng)
    }
}
