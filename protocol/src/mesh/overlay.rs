//! The overlay: whom this node dials, keeps as a neighbour and lets go.
//!
//! A partial view in the manner of HyParView (Leitao, Pereira, Rodrigues, DSN 2007): some eight neighbours chosen at
//! random. Three rules come from simulation. A node goes on dialling its seeds and nodes it has lost, at a low rate and
//! for ever, because otherwise two halves of a healed partition never meet. A full node always makes room for a lonely
//! one, because otherwise the old nodes of a large mesh form a closed clique. And a node dials whom it holds dead even
//! when it has neighbours enough, because otherwise a peer that lives is ranked last until its advert is next renewed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::NodeId;
use crate::rng::Rng;
use crate::time::Mono;

use super::DialTarget;
use super::directory::{Directory, Entry};
use super::wire::Want;

/// How many neighbours a node looks for, unless its operator says otherwise. It takes half as many again when asked; beyond
/// them only a lonely node is let in, in another's place.
pub const NEIGHBOURS_TARGET: usize = 8;

/// The least time between two looks for more neighbours: each looks through the whole directory.
const FILL_GAP: Duration = Duration::from_millis(25);

/// Most dials under way at once.
pub const DIALS_MAX: usize = 8;

/// Most targets whose failures are remembered. When full, those that may be dialled again are forgotten.
pub const ATTEMPTS_MAX: usize = 4096;

/// How long after the first failure a target is dialled again; doubled after each up to [`REDIAL_MAX`].
pub const REDIAL_MIN: Duration = Duration::from_millis(500);

/// The longest pause between dials of a target that a node wants.
pub const REDIAL_MAX: Duration = Duration::from_secs(30);

/// How often a node that has neighbours enough dials a random other, so that halves of a partition find each other.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// How often a node that is held dead is dialled, so that one which lives is not ranked last for long. Each is still left
/// alone for as long as its failures say.
pub const REVISIT_INTERVAL: Duration = Duration::from_secs(1);

/// Most such dials under way at once: those who answer nothing must not keep a node from finding neighbours.
pub const REVISITS_MAX: usize = 4;

/// How long a dial may take before it counts as failed.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// For how long a dial or a link that is not a neighbour's yet counts as one that may become one.
pub const UNDECIDED: Duration = Duration::from_secs(1);

/// When nothing is under way.
const NEVER: Mono = Mono::from_micros(u64::MAX);

/// An address that the operator gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The node that answers there, when the address names it.
    pub node: Option<NodeId>,
    /// The multiaddr.
    pub address: String,
}

/// What has been tried.
#[derive(Clone, Copy, Debug, Default)]
struct Attempt {
    failures: u32,
    next: Mono,
    dialling: Option<Mono>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Node(NodeId),
    Address(String),
}

impl Key {
    fn of(target: &DialTarget) -> Self {
        match target.node {
            Some(node) => Self::Node(node),
            None => Self::Address(target.addresses.first().cloned().unwrap_or_default()),
        }
    }
}

/// What the overlay decides from.
#[derive(Debug)]
pub struct View<'a> {
    /// This node.
    pub me: NodeId,
    /// Peers with a connection, admitted or on the way.
    pub connected: &'a BTreeSet<NodeId>,
    /// How many neighbours there are.
    pub neighbours: usize,
    /// How many links are so young that they may become neighbours' yet: nobody is dialled in their place.
    pub undecided: usize,
    /// What is known of others.
    pub directory: &'a Directory,
}

/// Whom this node dials, keeps and lets go.
#[derive(Clone, Debug)]
pub struct Overlay {
    seeds: Vec<Seed>,
    /// The nodes that seeds without a name turned out to be.
    seed_nodes: BTreeMap<String, NodeId>,
    attempts: BTreeMap<Key, Attempt>,
    next_probe: Mono,
    next_revisit: Mono,
    next_fill: Mono,
    /// Whether neighbours are wanted and [`FILL_GAP`] has not passed.
    waits_to_fill: bool,
    /// When the first dial under way has taken too long, or earlier.
    next_overdue: Mono,
    target: usize,
    rng: Rng,
}

impl Overlay {
    /// An overlay that begins with `seeds`.
    pub fn new(seeds: Vec<Seed>, seed: u64, now: Mono) -> Self {
        let mut rng = Rng::new(seed);
        let next_probe = now + rng.jitter(PROBE_INTERVAL / 2);
        let (seed_nodes, attempts) = (BTreeMap::new(), BTreeMap::new());
        let next_revisit = now + REVISIT_INTERVAL;
        Self {
            seeds,
            seed_nodes,
            attempts,
            next_probe,
            next_revisit,
            next_fill: now,
            waits_to_fill: false,
            next_overdue: NEVER,
            target: NEIGHBOURS_TARGET,
            rng,
        }
    }

    /// Looks for `target` neighbours from now on; at least for one.
    pub fn set_target(&mut self, target: usize) {
        self.target = target.max(1);
    }

    /// How many neighbours are taken when asked.
    pub const fn neighbours_max(&self) -> usize {
        self.target + self.target.div_ceil(2)
    }

    /// Whether [`Self::plan`] may have something to do for a node with so many neighbours. Cheap, for it is asked after
    /// every input; when it says no although there are too few, it sees to it that it is asked again.
    pub fn is_due(&mut self, neighbours: usize, now: Mono) -> bool {
        let wants_more = neighbours < self.target;
        self.waits_to_fill = wants_more && now < self.next_fill;
        let fills = wants_more && !self.waits_to_fill;
        fills || now >= self.next_probe || now >= self.next_revisit || now >= self.next_overdue
    }

    /// Adds a seed, as a join brings one.
    pub fn add_seed(&mut self, seed: Seed) {
        if !self.seeds.contains(&seed) {
            self.seeds.push(seed);
        }
    }

    /// Whom to dial now.
    pub fn plan(&mut self, view: &View<'_>, now: Mono) -> Vec<DialTarget> {
        if now >= self.next_overdue {
            self.fail_overdue(now);
        }
        let mut room = DIALS_MAX.saturating_sub(self.dialling());
        let mut targets = Vec::new();
        if view.neighbours < self.target && now >= self.next_fill {
            self.next_fill = now + FILL_GAP;
            targets.extend(self.due_seeds(view, now));
            let coming = view.undecided + self.dialling_since(now);
            let missing = self.target.saturating_sub(view.neighbours + coming);
            targets.extend(self.random_known(view, now, missing));
        }
        if now >= self.next_probe {
            self.next_probe = now + self.rng.jitter(PROBE_INTERVAL);
            targets.extend(self.probe(view, now));
        }
        if now >= self.next_revisit {
            self.next_revisit = now + REVISIT_INTERVAL;
            targets.extend(self.revisit(view, now));
        }
        targets.retain(|target| {
            let take = room > 0 && self.begin(target, now);
            room -= usize::from(take);
            take
        });
        targets
    }

    /// How many targets' dials are remembered.
    pub fn attempts_len(&self) -> usize {
        self.attempts.len()
    }

    /// How many dials are under way.
    pub fn dialling(&self) -> usize {
        self.attempts.values().filter(|attempt| attempt.dialling.is_some()).count()
    }

    /// How many dials under way are so young that they may well succeed.
    fn dialling_since(&self, now: Mono) -> usize {
        let young = |attempt: &&Attempt| attempt.dialling.is_some_and(|since| now.since(since) < UNDECIDED);
        self.attempts.values().filter(young).count()
    }

    fn begin(&mut self, target: &DialTarget, now: Mono) -> bool {
        self.make_room(now);
        let attempt = self.attempts.entry(Key::of(target)).or_default();
        let free = attempt.dialling.is_none() && now >= attempt.next;
        if free {
            attempt.dialling = Some(now);
            self.next_overdue = self.next_overdue.min(now + DIAL_TIMEOUT);
        }
        free
    }

    fn make_room(&mut self, now: Mono) {
        if self.attempts.len() >= ATTEMPTS_MAX {
            self.attempts.retain(|_, attempt| attempt.dialling.is_some() || attempt.next > now);
        }
    }

    fn fail_overdue(&mut self, now: Mono) {
        let late = |attempt: &Attempt| attempt.dialling.is_some_and(|since| now.since(since) >= DIAL_TIMEOUT);
        let overdue: Vec<_> =
            self.attempts.iter().filter(|(_, attempt)| late(attempt)).map(|(key, _)| key.clone()).collect();
        for key in overdue {
            self.fail(key, now);
        }
        let under_way = self.attempts.values().filter_map(|attempt| attempt.dialling);
        self.next_overdue = under_way.min().map_or(NEVER, |since| since + DIAL_TIMEOUT);
    }

    fn may_dial(&self, key: &Key, now: Mono) -> bool {
        self.attempts.get(key).is_none_or(|attempt| attempt.dialling.is_none() && now >= attempt.next)
    }

    fn due_seeds(&self, view: &View<'_>, now: Mono) -> Vec<DialTarget> {
        let due = self.seeds.iter().filter(|seed| {
            let node = seed.node.or_else(|| self.seed_nodes.get(&seed.address).copied());
            let there = node.is_some_and(|node| node == view.me || view.connected.contains(&node));
            !there && self.may_dial(&Key::of(&seed_target(seed)), now)
        });
        due.map(seed_target).collect()
    }

    fn random_known(&mut self, view: &View<'_>, now: Mono, count: usize) -> Vec<DialTarget> {
        let mut known = self.unlinked(view, now);
        self.rng.shuffle(&mut known);
        known.truncate(count);
        known.into_iter().filter_map(|node| node_target(view.directory, &node)).collect()
    }

    fn unlinked(&self, view: &View<'_>, now: Mono) -> Vec<NodeId> {
        view.directory
            .iter()
            .map(|(node, _)| *node)
            .filter(|node| self.is_eligible(view, node, now))
            .collect()
    }

    fn is_eligible(&self, view: &View<'_>, node: &NodeId, now: Mono) -> bool {
        let reachable = |entry: &Entry| !entry.advert().leaving && !entry.advert().addresses.is_empty();
        *node != view.me
            && !view.connected.contains(node)
            && view.directory.get(node).is_some_and(reachable)
            && self.may_dial(&Key::Node(*node), now)
    }

    fn probe(&mut self, view: &View<'_>, now: Mono) -> Option<DialTarget> {
        let known = self.unlinked(view, now);
        let seeds = self.due_seeds(view, now);
        // Seeds take part like everybody else: they are where halves that know nothing of each other can meet.
        match self.rng.below(known.len() + seeds.len()) {
            at if at < known.len() => node_target(view.directory, &known[at]),
            at => seeds.into_iter().nth(at - known.len()),
        }
    }

    /// One of those held dead, each as likely as the others. The mesh looks every second at least, so no timer is set.
    fn revisit(&mut self, view: &View<'_>, now: Mono) -> Option<DialTarget> {
        let suspects = view.directory.suspects();
        let under_way = suspects.iter().filter(|node| self.is_dialling(&Key::Node(**node))).count();
        if under_way >= REVISITS_MAX {
            return None;
        }
        // Whom only others hold dead the whole mesh asks in turn: each is dialled about once a second by somebody.
        let asks = self.rng.below(view.directory.len()) < suspects.len();
        let due = suspects
            .iter()
            .copied()
            .filter(|node| (asks || view.directory.is_known_dead(node)) && self.is_eligible(view, node, now));
        let due: Vec<NodeId> = due.collect();
        self.rng.pick(&due).and_then(|node| node_target(view.directory, node))
    }

    fn is_dialling(&self, key: &Key) -> bool {
        self.attempts.get(key).is_some_and(|attempt| attempt.dialling.is_some())
    }

    /// A dial has led to a connection with `node`. Its failures are forgotten only once both have admitted each other: a
    /// peer that answers and refuses is dialled ever more rarely, like one that does not answer.
    pub fn connected(&mut self, target: &DialTarget, node: NodeId) {
        if let Some(attempt) = self.attempts.get_mut(&Key::of(target)) {
            attempt.dialling = None;
        }
        if target.node.is_none()
            && let Some(address) = target.addresses.first()
            && self.seeds.iter().any(|seed| &seed.address == address)
        {
            self.seed_nodes.insert(address.clone(), node);
        }
    }

    /// `node` and this node have admitted each other.
    pub fn admitted(&mut self, node: NodeId) {
        for key in self.keys_of(node) {
            self.attempts.remove(&key);
        }
    }

    /// A node's own key, and those of the seeds that turned out to be it.
    fn keys_of(&self, node: NodeId) -> Vec<Key> {
        let seeds = self.seed_nodes.iter().filter(|(_, known)| **known == node);
        let addresses = seeds.map(|(address, _)| Key::Address(address.clone()));
        addresses.chain([Key::Node(node)]).collect()
    }

    /// A dial has failed, or a peer did not let us in: wait before the next, longer each time.
    pub fn failed(&mut self, target: &DialTarget, now: Mono) {
        self.seed_nodes.retain(|address, _| Some(address) != target.addresses.first());
        self.fail(Key::of(target), now);
    }

    /// A peer refused us or was refused, or was silent: do not dial it again at once.
    pub fn avoid(&mut self, node: NodeId, now: Mono) {
        self.make_room(now);
        for key in self.keys_of(node) {
            self.fail(key, now);
        }
    }

    fn fail(&mut self, key: Key, now: Mono) {
        let pause = self.pause(self.attempts.get(&key).map_or(0, |attempt| attempt.failures));
        let attempt = self.attempts.entry(key).or_default();
        attempt.failures = attempt.failures.saturating_add(1);
        attempt.dialling = None;
        attempt.next = now + pause;
    }

    fn pause(&mut self, failures: u32) -> Duration {
        self.rng.jitter(REDIAL_MIN.saturating_mul(1 << failures.min(16)).min(REDIAL_MAX))
    }

    /// Whether to want a peer that wants us as `theirs`, with `others` neighbours beside it. A peer that says no is
    /// still wanted while there are too few, so that it knows whom to ask when it has room.
    pub fn want(&self, theirs: Want, others: usize) -> Want {
        match theirs {
            _ if others == 0 => Want::Lonely,
            Want::Lonely => Want::Yes,
            Want::Yes if others < self.neighbours_max() => Want::Yes,
            Want::No if others < self.target => Want::Yes,
            Want::Yes | Want::No => Want::No,
        }
    }

    /// Which of `neighbours` makes room for a lonely newcomer.
    pub fn evict(&mut self, neighbours: &[NodeId]) -> Option<NodeId> {
        self.rng.pick(neighbours).copied()
    }

    /// When to plan again: the next probe, the next dial that may be repeated, or the next that has taken too long.
    /// Always later than `now`: what is due already and was not dialled waits for something to change.
    pub fn next_timeout(&self, now: Mono) -> Mono {
        let attempts = self.attempts.values().map(|attempt| match attempt.dialling {
            Some(since) => since + DIAL_TIMEOUT,
            None => attempt.next,
        });
        let fill = self.waits_to_fill.then_some(self.next_fill);
        attempts.chain(fill).filter(|next| *next > now).fold(self.next_probe, Mono::min)
    }
}

fn seed_target(seed: &Seed) -> DialTarget {
    DialTarget { node: seed.node, addresses: vec![seed.address.clone()] }
}

fn node_target(directory: &Directory, node: &NodeId) -> Option<DialTarget> {
    let addresses = directory.get(node)?.advert().addresses.clone();
    (!addresses.is_empty()).then_some(DialTarget { node: Some(*node), addresses })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestNode, TestOrg, mesh, places};
    use crate::time::{Now, Wall};
    use crate::trust::Anchors;

    const ME: NodeId = NodeId::from_bytes([0; 32]);

    fn at(ms: u64) -> Mono {
        Mono::from_micros(ms * 1000)
    }

    fn seed(address: &str) -> Seed {
        Seed { node: None, address: address.into() }
    }

    fn plan(overlay: &mut Overlay, connected: &[NodeId], now: Mono) -> Vec<DialTarget> {
        let (connected, directory) = (connected.iter().copied().collect(), Directory::default());
        let neighbours = BTreeSet::len(&connected);
        overlay.plan(
            &View { me: ME, connected: &connected, neighbours, undecided: 0, directory: &directory },
            now,
        )
    }

    #[test]
    fn a_seed_that_is_down_is_dialled_for_ever_and_ever_more_slowly() {
        let mut overlay = Overlay::new(vec![seed("a")], 1, at(0));
        let (mut now, mut dials) = (at(0), Vec::new());
        while now < at(600_000) {
            for target in plan(&mut overlay, &[], now) {
                overlay.failed(&target, now);
                dials.push(now);
            }
            now = overlay.next_timeout(now);
        }
        assert!((20..60).contains(&dials.len()), "{} dials in ten minutes", dials.len());
        let last = dials[dials.len() - 1].since(dials[dials.len() - 2]);
        assert!(last >= REDIAL_MAX && last <= REDIAL_MAX * 5 / 4, "{last:?}");
    }

    #[test]
    fn a_seed_that_has_answered_is_not_dialled_again_while_it_is_linked() {
        let mut overlay = Overlay::new(vec![seed("a")], 1, at(0));
        let target = plan(&mut overlay, &[], at(0)).remove(0);
        let node = NodeId::from_bytes([7; 32]);
        overlay.connected(&target, node);
        overlay.admitted(node);
        assert!(plan(&mut overlay, &[node], at(1000)).is_empty());
        assert_eq!(plan(&mut overlay, &[], at(1100)), vec![target]);
    }

    #[test]
    fn one_target_is_dialled_once_at_a_time_and_a_dial_that_hangs_fails() {
        let mut overlay = Overlay::new(vec![seed("a")], 1, at(0));
        assert_eq!(plan(&mut overlay, &[], at(0)).len(), 1);
        assert!(plan(&mut overlay, &[], at(10)).is_empty());
        assert!(plan(&mut overlay, &[], at(15_000)).is_empty());
        assert_eq!(plan(&mut overlay, &[], at(16_000)).len(), 1);
    }

    #[test]
    fn whom_a_node_holds_dead_it_dials_again_though_it_has_neighbours_enough() {
        let now = Now { mono: at(0), wall: Wall::from_millis(1_795_000_000_000) };
        let org = TestOrg::new("acme.example", 1, now.wall);
        let mut anchors = Anchors::new(mesh());
        anchors.pin(org.name.clone(), org.chain.pin().unwrap());
        anchors.learn(org.chain.clone()).unwrap();
        let mut directory = Directory::default();
        let dead: Vec<NodeId> = (0..10)
            .map(|seed| {
                let node = TestNode::new(&org, seed, places("DE"));
                directory.insert(node.advert(1, now.wall).bytes(), &mut anchors, now).unwrap();
                node.id
            })
            .collect();
        let (mut overlay, connected) = (Overlay::new(vec![], 1, at(0)), BTreeSet::new());
        let mut plan = |directory: &Directory, ms| {
            let view = View {
                me: ME,
                connected: &connected,
                neighbours: NEIGHBOURS_TARGET,
                undecided: 0,
                directory,
            };
            overlay.plan(&view, at(ms))
        };
        assert!(plan(&directory, 1000).is_empty());
        for node in &dead {
            assert!(directory.suspect(node, true));
        }
        let dialled: Vec<_> = (2..10).flat_map(|second| plan(&directory, second * 1000)).collect();
        assert_eq!(dialled.len(), REVISITS_MAX, "one a second, and no more while they hang: {dialled:?}");
        let distinct: BTreeSet<_> = dialled.iter().filter_map(|target| target.node).collect();
        assert_eq!(distinct.len(), REVISITS_MAX);
    }

    #[test]
    fn a_look_for_more_that_comes_too_soon_is_made_up_for() {
        let mut overlay = Overlay::new(vec![seed("a")], 1, at(0));
        assert!(overlay.is_due(0, at(0)));
        plan(&mut overlay, &[], at(0));
        assert!(!overlay.is_due(0, at(1)));
        let next = overlay.next_timeout(at(1));
        assert!(next <= at(25) && overlay.is_due(0, next));
    }

    #[test]
    fn dials_are_bounded() {
        let seeds = (0..50).map(|n| seed(&n.to_string())).collect();
        assert_eq!(plan(&mut Overlay::new(seeds, 1, at(0)), &[], at(0)).len(), DIALS_MAX);
    }

    #[test]
    fn the_lonely_are_let_in_and_the_merely_curious_are_not() {
        let overlay = Overlay::new(vec![], 1, at(0));
        let full = overlay.neighbours_max();
        for (theirs, others, ours) in [
            (Want::Lonely, full, Want::Yes),
            (Want::Yes, full, Want::No),
            (Want::Yes, full - 1, Want::Yes),
            (Want::No, NEIGHBOURS_TARGET, Want::No),
            (Want::No, NEIGHBOURS_TARGET - 1, Want::Yes),
            (Want::No, 0, Want::Lonely),
        ] {
            assert_eq!(overlay.want(theirs, others), ours, "{theirs:?} {others}");
        }
    }

    #[test]
    fn who_answers_and_refuses_is_dialled_ever_more_rarely() {
        let node = NodeId::from_bytes([7; 32]);
        for seed in [seed("a"), Seed { node: Some(node), address: "a".into() }] {
            let mut overlay = Overlay::new(vec![seed], 1, at(0));
            let (mut now, mut dials) = (at(0), 0);
            while now < at(600_000) {
                for target in plan(&mut overlay, &[], now) {
                    overlay.connected(&target, node);
                    overlay.avoid(node, now);
                    dials += 1;
                }
                now = overlay.next_timeout(now);
            }
            assert!((20..60).contains(&dials), "{dials} dials in ten minutes");
        }
    }
}
