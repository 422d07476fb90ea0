//! Whole meshes in memory and in virtual time: a small network of the real machines, a few nodes at a time. The simulator
//! does the same at scale and with faults.

use super::own::OwnOffers;
use super::wire::{Hello, LinkMessage};
use super::*;
use crate::advert::{Offer, OfferSet, Site};
use crate::constraints::DataClass;
use crate::ids::{ContractDigest, Kind};
use crate::testing::{DAY, TestNode, TestOrg, mesh as mesh_name, places};

const START: Wall = Wall::from_millis(1_795_000_000_000);
const LATENCY: Duration = Duration::from_millis(20);

enum Event {
    Frame(usize, ConnectionId, Vec<u8>),
    Gossip(usize, NodeId, Arc<[u8]>),
    Connected(usize, ConnectionId, NodeId, Option<DialTarget>),
    DialFailed(usize, DialTarget),
    Gone(usize, ConnectionId),
    Blobs(usize, FetchId, Option<Vec<Option<Vec<u8>>>>),
    Persisted(usize, Sequence),
}

struct Site_ {
    machine: Option<Mesh>,
    id: NodeId,
    identity: Identity,
    durable: Restored,
    events: Vec<MeshEvent>,
    admitted: BTreeMap<ConnectionId, NodeId>,
}

#[derive(Default)]
struct Net {
    now: Mono,
    sites: Vec<Site_>,
    queue: BTreeMap<(Mono, u64), Event>,
    serial: u64,
    wires: BTreeMap<ConnectionId, (usize, usize)>,
    cut: BTreeSet<(usize, usize)>,
    dials: usize,
}

impl Net {
    fn now(&self) -> Now {
        Now { mono: self.now, wall: START + self.now.since(Mono::ZERO) }
    }

    fn anchors(orgs: &[&TestOrg]) -> Anchors {
        let mut anchors = Anchors::new(mesh_name());
        for org in orgs {
            anchors.pin(org.name.clone(), org.chain.pin().unwrap());
        }
        anchors
    }

    fn add(&mut self, org: &TestOrg, seed: u16, pins: &[&TestOrg], seeds: &[usize]) -> usize {
        let node = TestNode::new(org, seed, places("DE"));
        let identity = Identity {
            key: node.key.clone(),
            membership: node.membership.clone(),
            roots: org.chain.clone(),
            name: format!("n{seed}"),
            site: Site { processing_locations: places("DE"), ..Site::default() },
            version: "test".into(),
        };
        let at = self.sites.len();
        self.sites.push(Site_ {
            machine: None,
            id: node.id,
            identity,
            durable: Restored::default(),
            events: Vec::new(),
            admitted: BTreeMap::new(),
        });
        self.start(at, pins, seeds);
        at
    }

    fn start(&mut self, at: usize, pins: &[&TestOrg], seeds: &[usize]) {
        let seeds = seeds.iter().map(|seed| Seed { node: None, address: seed.to_string() }).collect();
        let now = self.now();
        let site = &mut self.sites[at];
        let mut machine = Mesh::new(
            site.identity.clone(),
            Self::anchors(pins),
            seeds,
            site.durable.clone(),
            at as u64,
            now,
        );
        machine.set_addresses(vec![at.to_string()], now);
        site.machine = Some(machine);
        self.drain(at);
    }

    fn kill(&mut self, at: usize) {
        self.sites[at].machine = None;
        self.sites[at].admitted.clear();
    }

    fn later(&mut self, after: Duration, event: Event) {
        self.serial += 1;
        self.queue.insert((self.now + after, self.serial), event);
    }

    fn mesh(&mut self, at: usize) -> &mut Mesh {
        self.sites[at].machine.as_mut().unwrap()
    }

    fn other(&self, at: usize, connection: ConnectionId) -> Option<usize> {
        let (a, b) = self.wires.get(&connection)?;
        Some(if *a == at { *b } else { *a })
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn drain(&mut self, at: usize) {
        while let Some(effect) = self.sites[at].machine.as_mut().and_then(Mesh::poll_effect) {
            self.carry_out(at, effect);
        }
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Dial(target) => self.dial(at, target),
            Effect::Send(connection, frame) => {
                if let Some(to) = self.other(at, connection).filter(|to| !self.is_cut(at, *to)) {
                    self.later(LATENCY, Event::Frame(to, connection, frame));
                }
            }
            Effect::Accept(_) => {}
            Effect::Admit { connection, peer, .. } => {
                self.sites[at].admitted.insert(connection, peer);
            }
            Effect::Close { connection, .. } => {
                self.sites[at].admitted.remove(&connection);
                if let Some(to) = self.other(at, connection) {
                    self.wires.remove(&connection);
                    self.later(Duration::ZERO, Event::Gone(at, connection));
                    if !self.is_cut(at, to) {
                        self.later(LATENCY, Event::Gone(to, connection));
                    }
                }
            }
            Effect::Publish(bytes) => self.gossip(at, None, &bytes),
            Effect::Fetch { id, from, digests, .. } => {
                let to = self.sites.iter().position(|site| site.id == from).unwrap();
                let org = self.sites[at].identity.membership.org.clone();
                let cut = self.is_cut(at, to);
                let answers = self.sites[to].machine.as_ref().filter(|_| !cut).map(|machine| {
                    digests
                        .iter()
                        .map(|digest| machine.blob_for(&org, digest).map(|blob| blob.to_vec()))
                        .collect()
                });
                self.later(LATENCY * 2, Event::Blobs(at, id, answers));
            }
            Effect::Persist(record) => self.persist(at, record),
            Effect::Event(event) => self.sites[at].events.push(event),
        }
    }

    fn dial(&mut self, at: usize, target: DialTarget) {
        let to: usize = target.addresses[0].parse().unwrap();
        let there = self.sites.get(to).is_some_and(|site| site.machine.is_some()) && !self.is_cut(at, to);
        if !there {
            return self.later(LATENCY, Event::DialFailed(at, target));
        }
        self.dials += 1;
        let connection = ConnectionId(self.dials as u64);
        self.wires.insert(connection, (at, to));
        self.later(LATENCY, Event::Connected(to, connection, self.sites[at].id, None));
        self.later(LATENCY, Event::Connected(at, connection, self.sites[to].id, Some(target)));
    }

    fn gossip(&mut self, at: usize, from: Option<NodeId>, bytes: &Arc<[u8]>) {
        let peers: BTreeSet<NodeId> =
            self.sites[at].admitted.values().copied().filter(|p| Some(*p) != from).collect();
        let me = self.sites[at].id;
        for peer in peers {
            let to = self.sites.iter().position(|site| site.id == peer).unwrap();
            if !self.is_cut(at, to) {
                self.later(LATENCY, Event::Gossip(to, me, bytes.clone()));
            }
        }
    }

    fn persist(&mut self, at: usize, record: MeshRecord) {
        let durable = &mut self.sites[at].durable;
        match record {
            MeshRecord::OwnSequence(sequence) => {
                durable.own = sequence;
                self.later(Duration::from_millis(1), Event::Persisted(at, sequence));
            }
            MeshRecord::Advert { node, sequence, bytes } => {
                durable.sequences.insert(node, sequence);
                durable.adverts.push(bytes.to_vec());
            }
            MeshRecord::Forget(_) | MeshRecord::Roots { .. } => {}
        }
    }

    fn step(&mut self, event: Event) {
        let now = self.now();
        let at = match event {
            Event::Frame(at, connection, frame) => {
                if let Some(machine) = &mut self.sites[at].machine {
                    machine.handle_frame(connection, &frame, now);
                }
                at
            }
            Event::Gossip(at, from, bytes) => {
                let Some(machine) = &mut self.sites[at].machine else { return };
                if machine.handle_gossip(from, &bytes, now) == Acceptance::Accept {
                    self.gossip(at, Some(from), &bytes);
                }
                at
            }
            Event::Connected(at, connection, peer, target) => {
                if let Some(machine) = &mut self.sites[at].machine {
                    machine.handle_connected(connection, peer, target.as_ref(), now);
                }
                at
            }
            Event::DialFailed(at, target) => {
                if let Some(machine) = &mut self.sites[at].machine {
                    machine.handle_dial_failed(&target, now);
                }
                at
            }
            Event::Gone(at, connection) => {
                self.sites[at].admitted.remove(&connection);
                if let Some(machine) = &mut self.sites[at].machine {
                    machine.handle_disconnected(connection, "closed", now);
                }
                at
            }
            Event::Blobs(at, id, answers) => {
                if let Some(machine) = &mut self.sites[at].machine {
                    machine.handle_blobs(id, answers, now);
                }
                at
            }
            Event::Persisted(at, sequence) => {
                if let Some(machine) = &mut self.sites[at].machine {
                    machine.handle_persisted(sequence, now);
                }
                at
            }
        };
        self.drain(at);
    }

    /// Runs until `done` or for `limit`; returns whether `done` came true.
    fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        while self.now < end {
            if done(self) {
                return true;
            }
            let now = self.now();
            let timers =
                self.sites.iter().filter_map(|site| site.machine.as_ref()).map(|m| m.poll_timeout(now));
            let timer = timers.fold(end, Mono::min);
            let next = self.queue.first_key_value().map_or(end, |((at, _), _)| *at);
            if next <= timer
                && let Some(((at, _), event)) = self.queue.pop_first()
            {
                self.now = at;
                self.step(event);
            } else {
                self.now = timer;
                self.tick_due(now);
            }
        }
        done(self)
    }

    fn tick_due(&mut self, before: Now) {
        let now = self.now();
        for at in 0..self.sites.len() {
            if let Some(machine) =
                self.sites[at].machine.as_mut().filter(|m| m.poll_timeout(before) <= now.mono)
            {
                machine.handle_timeout(now);
                self.drain(at);
            }
        }
    }

    fn converged(&mut self) -> bool {
        let alive: Vec<&Mesh> = self.sites.iter().filter_map(|site| site.machine.as_ref()).collect();
        alive.iter().all(|m| m.directory().len() == alive.len() && m.digest() == alive[0].digest())
    }

    fn knows(&self, at: usize, of: usize) -> bool {
        let of = self.sites[of].id;
        self.sites[at].machine.as_ref().is_some_and(|machine| machine.directory().get(&of).is_some())
    }

    fn refusals(&self, at: usize) -> Vec<(bool, &str)> {
        let refused = self.sites[at].events.iter().filter_map(|event| match event {
            MeshEvent::Refused { by_peer, code, .. } => Some((*by_peer, code.as_str())),
            _ => None,
        });
        refused.collect()
    }
}

fn org(name: &str, seed: u8) -> TestOrg {
    TestOrg::new(name, seed, START)
}

const SOON: Duration = Duration::from_secs(10);

#[test]
fn nodes_of_two_orgs_find_each_other_through_one_seed() {
    let (a, b) = (org("a.example", 1), org("b.example", 2));
    let mut net = Net::default();
    for n in 0..12 {
        net.add(if n % 2 == 0 { &a } else { &b }, n, &[&a, &b], &[0]);
    }
    assert!(net.run_until(SOON, Net::converged), "12 nodes do not agree");
}

#[test]
fn a_late_joiner_learns_all_within_half_a_second() {
    let a = org("a.example", 1);
    let mut net = Net::default();
    for n in 0..30 {
        net.add(&a, n, &[&a], &[0]);
    }
    assert!(net.run_until(SOON, Net::converged));
    net.add(&a, 99, &[&a], &[3]);
    assert!(net.run_until(Duration::from_millis(500), |net| {
        net.sites[30].machine.as_ref().is_some_and(|machine| machine.directory().len() == 31)
    }));
    assert!(net.run_until(SOON, Net::converged));
}

#[test]
fn a_healed_partition_merges_by_itself() {
    let a = org("a.example", 1);
    let mut net = Net::default();
    for n in 0..10 {
        net.add(&a, n, &[&a], &[0, 5]);
    }
    assert!(net.run_until(SOON, Net::converged));
    net.cut = (0..5).flat_map(|x| (5..10).map(move |y| (x, y))).collect();
    assert!(net.run_until(SOON * 6, |net| net.now >= Mono::from_micros(60_000_000)));
    for at in [0, 7] {
        let now = net.now();
        net.mesh(at).set_addresses(vec![at.to_string(), "news".into()], now);
        net.drain(at);
    }
    net.run_until(SOON, |_| false);
    assert!(!net.converged(), "the cut does not cut");
    net.cut.clear();
    assert!(net.run_until(Duration::from_secs(60), Net::converged));
}

#[test]
fn strangers_are_refused_and_both_sides_know_why() {
    let (a, b, c) = (org("a.example", 1), org("b.example", 2), org("c.example", 3));
    let mut net = Net::default();
    net.add(&a, 0, &[&a, &b], &[]);
    let unpinned = net.add(&c, 1, &[&a, &c], &[0]);
    let impostor = net.add(&org("b.example", 9), 2, &[&a], &[0]);
    let expired = net.add(&b, 3, &[&a, &b], &[0]);
    net.sites[expired].identity.membership =
        b.admit_with(net.sites[expired].id, places("DE"), |m| m.expires = START + Duration::from_millis(1));
    net.start(expired, &[&a, &b], &[0]);
    net.run_until(Duration::from_secs(2), |_| false);
    assert!(net.refusals(0).contains(&(false, "unpinned_org")));
    assert!(net.refusals(unpinned).contains(&(true, "unpinned_org")));
    assert!(net.refusals(impostor).iter().any(|(by_peer, _)| *by_peer));
    assert!(net.refusals(expired).contains(&(true, "membership_expired")));
    assert!(net.sites.iter().all(|site| site.admitted.is_empty()));
    assert_eq!(net.mesh(0).directory().len(), 1);
}

#[test]
fn a_silent_peer_is_dropped_suspected_and_found_again() {
    let a = org("a.example", 1);
    let mut net = Net::default();
    for n in 0..3 {
        net.add(&a, n, &[&a], &[0]);
    }
    assert!(net.run_until(SOON, Net::converged));
    let dead = net.sites[2].id;
    net.kill(2);
    let suspected = |net: &mut Net| net.mesh(0).directory().get(&dead).is_some_and(|entry| entry.suspected);
    assert!(net.run_until(Duration::from_secs(4), suspected));
    net.start(2, &[&a], &[0]);
    assert!(net.run_until(SOON, |net| net.converged() && !suspected(net)));
}

/// Found by the simulator: the peer came back on a new link, the old one fell silent later, and nothing ever took the
/// suspicion away because the peer was linked.
#[test]
fn a_peer_that_is_back_on_a_new_link_is_not_suspected_for_the_silence_of_the_old() {
    let a = org("a.example", 1);
    let mut net = Net::default();
    for n in 0..3 {
        net.add(&a, n, &[&a], &[0]);
    }
    assert!(net.run_until(SOON, Net::converged));
    let back = net.sites[2].id;
    let links = |net: &mut Net| -> BTreeSet<ConnectionId> {
        net.mesh(0)
            .links()
            .filter(|link| link.is_up() && link.peer == back)
            .map(|link| link.connection)
            .collect()
    };
    let old = links(&mut net);
    net.kill(2);
    net.wires.retain(|_, (from, to)| *from != 2 && *to != 2);
    net.start(2, &[&a], &[0]);
    let back_at_once = |net: &mut Net| !links(net).is_subset(&old) && !links(net).is_disjoint(&old);
    assert!(net.run_until(Duration::from_secs(2), back_at_once));
    let old_silent = |net: &mut Net| !links(net).is_empty() && links(net).is_disjoint(&old);
    assert!(net.run_until(SOON, old_silent));
    assert!(net.mesh(0).directory().get(&back).is_some_and(|entry| !entry.suspected));
}

#[test]
fn a_restarted_node_continues_its_sequence_even_without_its_disk() {
    let a = org("a.example", 1);
    let mut net = Net::default();
    net.add(&a, 0, &[&a], &[]);
    net.add(&a, 1, &[&a], &[0]);
    assert!(net.run_until(SOON, Net::converged));
    let (id, before) = (net.sites[1].id, net.sites[1].durable.own);
    net.kill(1);
    net.sites[1].durable = Restored::default();
    net.run_until(Duration::from_secs(5), |_| false);
    net.start(1, &[&a], &[0]);
    assert!(net.run_until(SOON, |net| net.converged() && net.sites[1].durable.own > before));
    assert_eq!(net.mesh(0).directory().sequence(&id), Some(net.sites[1].durable.own));
}

#[test]
fn offers_and_descriptors_are_pulled_and_org_offers_stay_in_the_org() {
    let (a, b) = (org("a.example", 1), org("b.example", 2));
    let mut net = Net::default();
    let owner = net.add(&a, 0, &[&a, &b], &[]);
    let sibling = net.add(&a, 1, &[&a, &b], &[0]);
    let foreigner = net.add(&b, 2, &[&a, &b], &[0]);
    let offer = |tool: &str, descriptor: &[u8]| Offer {
        server: "s".parse().unwrap(),
        kind: Kind::Tool,
        name: tool.parse().unwrap(),
        contract: ContractDigest::of(descriptor),
        descriptor: BlobDigest::of(descriptor),
        class_max: DataClass::Public,
    };
    let descriptors = [b"open".as_slice(), b"mine"].map(|bytes| (BlobDigest::of(bytes), Arc::from(bytes)));
    let offers = OwnOffers {
        federation: OfferSet::new(vec![offer("open", b"open")]).unwrap(),
        org: OfferSet::new(vec![offer("mine", b"mine")]).unwrap(),
        descriptors: descriptors.into(),
    };
    let now = net.now();
    net.mesh(owner).set_offers(offers, now);
    net.drain(owner);
    let has =
        |net: &mut Net, at: usize, bytes: &[u8]| net.mesh(at).blobs().get(&BlobDigest::of(bytes)).is_some();
    assert!(net.run_until(SOON, |net| has(net, sibling, b"mine") && has(net, foreigner, b"open")));
    net.run_until(SOON, |_| false);
    assert!(!has(&mut net, foreigner, b"mine"));
    let org_b = b.name.clone();
    assert!(net.mesh(sibling).blob_for(&org_b, &BlobDigest::of(b"mine")).is_none());
}

#[test]
fn roots_travel_to_those_who_pinned_them_and_never_met_the_org() {
    let (a, b, c) = (org("a.example", 1), org("b.example", 2), org("c.example", 3));
    let mut net = Net::default();
    let middle = net.add(&b, 0, &[&a, &b, &c], &[]);
    let left = net.add(&a, 1, &[&a, &b, &c], &[middle]);
    let right = net.add(&c, 2, &[&a, &b, &c], &[middle]);
    net.cut.insert((left, right));
    assert!(net.run_until(SOON, |net| net.knows(left, right) && net.knows(right, left)));
}

#[test]
fn what_is_for_some_never_reaches_others() {
    let (a, b, c) = (org("a.example", 1), org("b.example", 2), org("c.example", 3));
    let all = [&a, &b, &c];
    let mut net = Net::default();
    let reader = net.add(&b, 0, &all, &[]);
    let other = net.add(&c, 1, &all, &[0]);
    assert!(net.run_until(SOON, Net::converged));
    let secret = TestNode::new(&a, 7, places("DE"));
    let now = net.now();
    let audience = Some([b.name.clone()].into_iter().collect());
    let advert = secret.advert_with(1, now.wall, |advert| {
        advert.audience = audience;
        advert.addresses.clear();
    });
    net.mesh(reader).learn_roots(&a.chain.encode(), now);
    assert_eq!(net.mesh(reader).handle_gossip(secret.id, advert.bytes(), now), Acceptance::Reject);
    net.drain(reader);
    net.run_until(SOON, |_| false);
    assert!(net.mesh(reader).directory().get(&secret.id).is_some());
    assert!(net.mesh(other).directory().get(&secret.id).is_none());
}

#[test]
fn unpinning_sends_an_org_away_with_all_it_said() {
    let (a, b) = (org("a.example", 1), org("b.example", 2));
    let mut net = Net::default();
    net.add(&a, 0, &[&a, &b], &[]);
    net.add(&b, 1, &[&a, &b], &[0]);
    assert!(net.run_until(SOON, Net::converged));
    let now = net.now();
    net.mesh(0).unpin(&b.name, now);
    net.drain(0);
    net.run_until(Duration::from_secs(1), |_| false);
    assert!(!net.knows(0, 1) && net.sites[0].admitted.is_empty());
}

#[test]
fn a_node_that_leaves_is_known_to_have_left() {
    let a = org("a.example", 1);
    let mut net = Net::default();
    for n in 0..3 {
        net.add(&a, n, &[&a], &[0]);
    }
    assert!(net.run_until(SOON, Net::converged));
    let (id, now) = (net.sites[2].id, net.now());
    net.mesh(2).leave(now);
    net.drain(2);
    assert!(net.run_until(SOON, |net| {
        [0, 1]
            .into_iter()
            .all(|at| net.mesh(at).directory().get(&id).is_some_and(|entry| entry.advert().leaving))
    }));
}

#[test]
fn hostile_frames_close_the_link_and_change_nothing() {
    let a = org("a.example", 1);
    let mut net = Net::default();
    let at = net.add(&a, 0, &[&a], &[]);
    let thief = TestNode::new(&a, 1, places("DE"));
    let hello = |mesh: &str, node: &TestNode| {
        LinkMessage::Hello(Hello {
            mesh: mesh.parse().unwrap(),
            membership: node.membership.bytes().to_vec().into(),
            roots: a.chain.encode().into(),
            wall: START,
            version: String::new(),
        })
        .encode()
    };
    let ping = LinkMessage::Ping { nonce: 1, digest: 2 }.encode();
    let stolen = TestNode::new(&a, 5, places("DE"));
    let frames =
        [vec![], vec![0xff; 100], vec![0x9f; 70_000], ping, hello("other", &thief), hello("test", &stolen)];
    for (n, frame) in frames.iter().enumerate() {
        let (now, connection) = (net.now(), ConnectionId(1000 + n as u64));
        net.mesh(at).handle_connected(connection, thief.id, None, now);
        net.mesh(at).handle_frame(connection, frame, now);
        let effects: Vec<_> = std::iter::from_fn(|| net.mesh(at).poll_effect()).collect();
        let closed =
            |effect: &Effect| matches!(effect, Effect::Close { connection: c, .. } if *c == connection);
        assert!(effects.iter().any(closed), "frame {n}");
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Accept(_))), "frame {n}");
    }
    assert_eq!(net.mesh(at).directory().len(), usize::from(net.knows(at, at)));
}

#[test]
fn expiry_removes_and_the_digest_follows() {
    let a = org("a.example", 1);
    let mut net = Net::default();
    net.add(&a, 0, &[&a], &[]);
    net.add(&a, 1, &[&a], &[0]);
    assert!(net.run_until(SOON, Net::converged));
    net.kill(1);
    assert!(net.run_until(DAY, |net| !net.knows(0, 1)));
    assert!(net.converged());
}
