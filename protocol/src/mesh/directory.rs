//! The directory: every advert that this node has verified, one a node, the newest only.
//!
//! An advert replaces another of its node when its `(epoch, seq)` is greater. Two different adverts with one sequence
//! are a lie of the node that signed both; the one with the greater digest stays, so that honest readers still agree,
//! and the node is marked. The highest sequence of each node outlives its advert: an old one never comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::advert::{Advert, AdvertError, Sequence, TrustedAdvert};
use crate::ids::{NodeId, ObjectDigest, OrgName};
use crate::time::{Mono, Now, Wall};
use crate::trust::Anchors;
use crate::trust::memory::Seal;

/// Most nodes in the directory. When full, adverts of unknown nodes are refused and those of known ones still taken.
pub const DIRECTORY_MAX: usize = 8192;

/// Most sequences remembered, of present and past nodes. When full, the oldest of nodes that have no advert goes: it
/// takes twice as many member keys as a directory holds to get there, and each must be issued by a pinned org.
pub const SEQUENCES_MAX: usize = 4 * DIRECTORY_MAX;

/// Most adverts taken from one node in [`RATE_WINDOW`]; more are ignored until it has passed.
pub const ADVERTS_PER_WINDOW_MAX: u32 = 16;

/// The window in which a node's adverts are counted.
pub const RATE_WINDOW: Duration = Duration::from_secs(10);

/// What is known of one node.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its advert, verified.
    pub trusted: TrustedAdvert,
    /// Whether it has signed two adverts with one sequence.
    pub equivocated: bool,
    /// Whether it last failed to answer; it ranks last until it is heard again.
    pub suspected: bool,
    /// Until when that rests on others' word alone; `None` when this node has tried in vain itself.
    rumoured: Option<Mono>,
    window: (Mono, u32),
}

impl Entry {
    /// The advert.
    pub fn advert(&self) -> &Advert {
        &self.trusted.advert
    }

    /// The org, proved by the membership.
    pub fn org(&self) -> &OrgName {
        &self.trusted.membership.org
    }

    /// The envelope as received.
    pub fn bytes(&self) -> &Arc<[u8]> {
        self.trusted.advert.bytes()
    }

    /// What anti-entropy compares: the greater of two replaces the other.
    pub fn version(&self) -> Version {
        Version::of(self.advert().sequence(), self.trusted.advert.digest())
    }
}

/// What anti-entropy compares: sequence first, then the digest's first eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The advert's sequence.
    pub sequence: Sequence,
    /// The first eight bytes of its digest.
    pub digest: u64,
}

impl Version {
    fn of(sequence: Sequence, digest: ObjectDigest) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
        Self { sequence, digest: u64::from_be_bytes([a, b, c, d, e, f, g, h]) }
    }
}

/// What an advert that was taken did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is known already.
    Known,
    /// The node was unknown, or the advert is newer than the known one.
    Newer,
    /// It contradicts the known one and stays in its place.
    Contradicts,
}

/// Every advert that this node has verified.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    entries: BTreeMap<NodeId, Entry>,
    ends: BTreeSet<(Wall, NodeId)>,
    sequences: BTreeMap<NodeId, Sequence>,
    /// The nodes whose entry is marked as suspected.
    suspects: BTreeSet<NodeId>,
    /// When each rumour ends.
    rumours: BTreeSet<(Mono, NodeId)>,
}

impl Directory {
    /// A directory that refuses what `sequences` say is old.
    pub fn new(sequences: BTreeMap<NodeId, Sequence>) -> Self {
        Self { sequences, ..Self::default() }
    }

    /// What is known of `node`.
    pub fn get(&self, node: &NodeId) -> Option<&Entry> {
        self.entries.get(node)
    }

    /// All entries in the order of node ids.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Entry)> {
        self.entries.iter()
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no node is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The highest sequence ever taken from `node`.
    pub fn sequence(&self, node: &NodeId) -> Option<Sequence> {
        self.sequences.get(node).copied()
    }

    /// How many nodes' sequences are remembered.
    pub fn sequences_len(&self) -> usize {
        self.sequences.len()
    }

    /// Verifies an advert and takes it when it is news. What is known or old is told apart before any signature is
    /// checked, so that duplicates are cheap.
    ///
    /// # Errors
    /// [`AdvertError`]; the directory is unchanged.
    pub fn insert(
        &mut self,
        bytes: &[u8],
        anchors: &mut Anchors,
        now: Now,
    ) -> Result<(NodeId, Taken), AdvertError> {
        let digest = ObjectDigest::of(bytes);
        let seal = Seal::<Advert>::read(bytes, digest, anchors.memory())?;
        let (node, sequence) = (seal.claimed().node, seal.claimed().sequence());
        let taken = match self.compare(node, Version::of(sequence, digest))? {
            Taken::Known => return Ok((node, Taken::Known)),
            news => news,
        };
        let window = self.admit_to_window(node, now.mono)?;
        let trusted = TrustedAdvert::check(seal, anchors, now.wall)?;
        self.put(trusted, window, taken == Taken::Contradicts);
        Ok((node, taken))
    }

    /// Whether an advert of this version would be news.
    fn compare(&self, node: NodeId, version: Version) -> Result<Taken, AdvertError> {
        let stale = |known| AdvertError::Stale { node, got: version.sequence, known };
        if let Some(entry) = self.entries.get(&node) {
            let known = entry.version();
            return match version {
                _ if version == known => Ok(Taken::Known),
                _ if version.sequence > known.sequence => Ok(Taken::Newer),
                _ if version.sequence == known.sequence && version > known => Ok(Taken::Contradicts),
                _ => Err(stale(known.sequence)),
            };
        }
        if let Some(known) = self.sequences.get(&node).filter(|known| version.sequence < **known) {
            return Err(stale(*known));
        }
        if self.entries.len() >= DIRECTORY_MAX { Err(AdvertError::Full) } else { Ok(Taken::Newer) }
    }

    fn admit_to_window(&self, node: NodeId, now: Mono) -> Result<(Mono, u32), AdvertError> {
        match self.entries.get(&node).map(|entry| entry.window) {
            Some((start, _)) if now.since(start) >= RATE_WINDOW => Ok((now, 1)),
            Some((_, count)) if count >= ADVERTS_PER_WINDOW_MAX => Err(AdvertError::TooOften(node)),
            Some((start, count)) => Ok((start, count + 1)),
            None => Ok((now, 1)),
        }
    }

    fn put(&mut self, trusted: TrustedAdvert, window: (Mono, u32), contradicts: bool) {
        let node = trusted.advert.node;
        let before = self.entries.remove(&node);
        if let Some(before) = &before {
            self.ends.remove(&(before.trusted.expires(), node));
            self.clear_suspicion(before);
        }
        self.ends.insert((trusted.expires(), node));
        self.remember_sequence(node, trusted.advert.sequence());
        let equivocated = contradicts || before.is_some_and(|before| before.equivocated);
        self.entries.insert(node, Entry { trusted, equivocated, suspected: false, rumoured: None, window });
    }

    fn remember_sequence(&mut self, node: NodeId, sequence: Sequence) {
        if self.sequences.len() >= SEQUENCES_MAX && !self.sequences.contains_key(&node) {
            let past = self.sequences.keys().find(|known| !self.entries.contains_key(known)).copied();
            if let Some(past) = past {
                self.sequences.remove(&past);
            }
        }
        self.sequences.insert(node, sequence);
    }

    /// Marks `node` as one that did not answer this node, or that does. Returns whether that is news.
    pub fn suspect(&mut self, node: &NodeId, suspected: bool) -> bool {
        self.mark(node, suspected, None)
    }

    /// Marks `node` as one that others say does not answer, until `end`. Returns whether that is news.
    pub fn suspect_by_rumour(&mut self, node: &NodeId, end: Mono) -> bool {
        !self.suspects.contains(node) && self.mark(node, true, Some(end))
    }

    fn mark(&mut self, node: &NodeId, suspected: bool, rumoured: Option<Mono>) -> bool {
        let Some(entry) = self.entries.get_mut(node) else { return false };
        let news = entry.suspected != suspected;
        let before = core::mem::replace(&mut entry.rumoured, rumoured);
        entry.suspected = suspected;
        self.rumours.extend(rumoured.map(|end| (end, *node)));
        if before != rumoured {
            before.map(|end| self.rumours.remove(&(end, *node)));
        }
        if suspected {
            self.suspects.insert(*node);
        } else {
            self.suspects.remove(node);
        }
        news
    }

    /// Believes the rumours no more that nobody has renewed. Returns whether there were any.
    pub fn end_rumours(&mut self, now: Mono) -> bool {
        let mut ended = false;
        while let Some((_, node)) = self.rumours.first().copied().filter(|(end, _)| *end <= now) {
            ended |= self.mark(&node, false, None);
        }
        ended
    }

    /// Whether `node` is held dead because this node has tried in vain itself.
    pub fn is_known_dead(&self, node: &NodeId) -> bool {
        self.entries.get(node).is_some_and(|entry| entry.suspected && entry.rumoured.is_none())
    }

    fn clear_suspicion(&mut self, entry: &Entry) {
        let node = entry.advert().node;
        self.suspects.remove(&node);
        entry.rumoured.map(|end| self.rumours.remove(&(end, node)));
    }

    /// The nodes that are held dead, in the order of their ids.
    pub const fn suspects(&self) -> &BTreeSet<NodeId> {
        &self.suspects
    }

    /// When the next advert ends.
    pub fn next_end(&self) -> Option<Wall> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Removes the adverts that have ended and returns their entries.
    pub fn remove_ended(&mut self, now: Wall) -> Vec<Entry> {
        let mut ended = Vec::new();
        while let Some((end, node)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            self.ends.remove(&(end, node));
            ended.extend(self.entries.remove(&node));
        }
        ended.iter().for_each(|entry| self.clear_suspicion(entry));
        ended
    }

    /// Removes every advert of `org`; its pin was taken back.
    pub fn remove_org(&mut self, org: &OrgName) -> Vec<Entry> {
        let nodes: Vec<_> =
            self.entries.iter().filter(|(_, entry)| entry.org() == org).map(|(node, _)| *node).collect();
        let removed: Vec<_> = nodes.iter().filter_map(|node| self.entries.remove(node)).collect();
        for entry in &removed {
            self.ends.remove(&(entry.trusted.expires(), entry.advert().node));
            self.clear_suspicion(entry);
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DAY, TestNode, TestOrg, mesh, places};

    const START: Now = Now { mono: Mono::ZERO, wall: Wall::from_millis(1_795_000_000_000) };

    fn setup() -> (Anchors, TestOrg, TestNode) {
        let org = TestOrg::new("acme.example", 1, START.wall);
        let mut anchors = Anchors::new(mesh());
        anchors.pin(org.name.clone(), org.chain.pin().unwrap());
        anchors.learn(org.chain.clone()).unwrap();
        let node = TestNode::new(&org, 1, places("DE"));
        (anchors, org, node)
    }

    fn later(by: Duration) -> Now {
        Now { mono: START.mono + by, wall: START.wall + by }
    }

    #[test]
    fn only_news_is_taken_and_the_old_never_comes_back() {
        let (mut anchors, _, node) = setup();
        let mut directory = Directory::default();
        let mut insert = |seq, now| {
            let advert = node.advert(seq, START.wall);
            let outcome = directory.insert(advert.bytes(), &mut anchors, now);
            outcome.map(|(_, taken)| taken).map_err(|error| error.code())
        };
        assert_eq!(insert(5, START), Ok(Taken::Newer));
        assert_eq!(insert(5, START), Ok(Taken::Known));
        assert_eq!(insert(4, START), Err("stale"));
        assert_eq!(insert(6, START), Ok(Taken::Newer));
        assert_eq!(directory.remove_ended(START.wall + DAY).len(), 1);
        let mut restarted = Directory::new(directory.sequences.clone());
        let old = node.advert(5, START.wall);
        assert_eq!(restarted.insert(old.bytes(), &mut anchors, START).unwrap_err().code(), "stale");
    }

    #[test]
    fn a_lie_is_settled_the_same_way_whatever_comes_first() {
        let (mut anchors, _, node) = setup();
        let one = node.advert(1, START.wall);
        let two = node.advert_with(1, START.wall, |advert| advert.name = "other".into());
        let settle = |adverts: [&[u8]; 2], anchors: &mut Anchors| {
            let mut directory = Directory::default();
            for bytes in adverts {
                let _ = directory.insert(bytes, anchors, START);
            }
            directory.get(&node.id).unwrap().version()
        };
        let forth = settle([one.bytes(), two.bytes()], &mut anchors);
        assert_eq!(forth, settle([two.bytes(), one.bytes()], &mut anchors));
    }

    #[test]
    fn a_node_that_floods_is_ignored_for_a_while() {
        let (mut anchors, _, node) = setup();
        let mut directory = Directory::default();
        for seq in 1..=u64::from(ADVERTS_PER_WINDOW_MAX) {
            directory.insert(node.advert(seq, START.wall).bytes(), &mut anchors, START).unwrap();
        }
        let next = node.advert(99, START.wall);
        assert_eq!(directory.insert(next.bytes(), &mut anchors, START).unwrap_err().code(), "too_often");
        assert_eq!(
            directory.insert(next.bytes(), &mut anchors, later(RATE_WINDOW)),
            Ok((node.id, Taken::Newer))
        );
    }

    #[test]
    fn a_rumour_ends_by_itself_and_what_was_tried_in_vain_does_not() {
        let (mut anchors, _, node) = setup();
        let mut directory = Directory::default();
        directory.insert(node.advert(1, START.wall).bytes(), &mut anchors, START).unwrap();
        let soon = START.mono + Duration::from_secs(30);
        assert!(directory.suspect_by_rumour(&node.id, soon) && !directory.is_known_dead(&node.id));
        assert!(!directory.suspect_by_rumour(&node.id, soon), "it is no news twice");
        assert!(!directory.end_rumours(START.mono) && directory.suspects().len() == 1);
        assert!(directory.end_rumours(soon) && directory.suspects().is_empty());
        assert!(directory.suspect_by_rumour(&node.id, soon) && !directory.suspect(&node.id, true));
        assert!(!directory.end_rumours(soon) && directory.is_known_dead(&node.id));
        directory.insert(node.advert(2, START.wall).bytes(), &mut anchors, START).unwrap();
        assert!(directory.suspects().is_empty(), "its own word clears it");
    }

    #[test]
    fn what_ends_goes_and_an_unpinned_org_goes_whole() {
        let (mut anchors, org, node) = setup();
        let mut directory = Directory::default();
        let advert = node.advert(1, START.wall);
        directory.insert(advert.bytes(), &mut anchors, START).unwrap();
        let end = directory.next_end().unwrap();
        assert_eq!(end, advert.expires);
        assert!(directory.remove_ended(end - Duration::from_millis(1)).is_empty());
        assert_eq!(directory.remove_org(&org.name).len(), 1);
        assert!(directory.remove_ended(end).is_empty() && directory.next_end().is_none());
    }
}
