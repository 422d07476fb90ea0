//! Anti-entropy: how two neighbours find out what differs between their directories, and fetch just that.
//!
//! Each org's adverts are divided into [`BUCKETS`] buckets by node id; a bucket's digest covers the versions in it, an
//! org's digest its buckets, a link's digest the orgs that both sides have pinned. Where a ping shows that digests
//! differ, four messages narrow it down: orgs, buckets, entries, adverts. Every step is stateless, so a lost or a lying
//! peer can hold nothing up: the next ping begins anew. The digests are BLAKE3 over sorted content, which, unlike sums or
//! exclusive-or, a member cannot make collide by choosing its adverts.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{NodeId, RootHash};

use super::directory::Version;
use super::wire::{BUCKETS, ENTRIES_MAX, EntrySummary, OrgBuckets, OrgDigest, OrgEntries};

/// The digests of a directory, kept up to date entry by entry.
#[derive(Clone, Debug, Default)]
pub struct DigestTree {
    orgs: BTreeMap<RootHash, OrgTree>,
}

#[derive(Clone, Debug)]
struct OrgTree {
    buckets: Vec<Bucket>,
    digest: u64,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    versions: BTreeMap<NodeId, Version>,
    digest: u64,
}

/// What one side of an exchange should do about the entries that the other listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Nodes whose advert the other lacks or has in an older version.
    pub send: Vec<NodeId>,
    /// Nodes whose advert we lack or have in an older version.
    pub want: Vec<NodeId>,
}

impl DigestTree {
    /// Notes that `node` of the org pinned as `org` now has `version`.
    pub fn set(&mut self, org: RootHash, node: NodeId, version: Version) {
        let tree = self.orgs.entry(org).or_insert_with(OrgTree::empty);
        tree.change(node, |versions| {
            versions.insert(node, version);
        });
    }

    /// Notes that `node` of the org pinned as `org` is known no more.
    pub fn remove(&mut self, org: &RootHash, node: &NodeId) {
        if let Some(tree) = self.orgs.get_mut(org) {
            tree.change(*node, |versions| {
                versions.remove(node);
            });
        }
    }

    /// The digest of all that the orgs in `shared` (ascending) have here: the one that pings carry.
    pub fn digest(&self, shared: &[RootHash]) -> u64 {
        let known = shared.iter().map(|org| (org, self.org_digest(org))).filter(|(_, digest)| *digest != 0);
        digest_of(known, |hasher, (org, digest)| {
            hasher.update(org.as_bytes()).update(&digest.to_be_bytes());
        })
    }

    fn org_digest(&self, org: &RootHash) -> u64 {
        self.orgs.get(org).map_or(0, |tree| tree.digest)
    }

    /// The first message: the digest of each shared org.
    pub fn org_digests(&self, shared: &[RootHash]) -> Vec<OrgDigest> {
        shared.iter().map(|org| OrgDigest { org: *org, digest: self.org_digest(org) }).collect()
    }

    /// The second: our buckets of each org whose digest differs from ours.
    pub fn answer_orgs(&self, shared: &[RootHash], theirs: &[OrgDigest]) -> Vec<OrgBuckets> {
        let differs = |their: &&OrgDigest| {
            shared.binary_search(&their.org).is_ok() && self.org_digest(&their.org) != their.digest
        };
        let orgs: BTreeSet<RootHash> = theirs.iter().filter(differs).map(|their| their.org).collect();
        orgs.into_iter().map(|org| OrgBuckets { org, buckets: self.bucket_digests(&org) }).collect()
    }

    fn bucket_digests(&self, org: &RootHash) -> Vec<u64> {
        match self.orgs.get(org) {
            Some(tree) => tree.buckets.iter().map(|bucket| bucket.digest).collect(),
            None => vec![0; BUCKETS],
        }
    }

    /// The third: our entries of each bucket that differs from ours, at most [`ENTRIES_MAX`] in all. What does not fit
    /// is found by a later exchange, because the digests still differ.
    pub fn answer_buckets(&self, shared: &[RootHash], theirs: &[OrgBuckets]) -> Vec<OrgEntries> {
        let mut room = ENTRIES_MAX;
        let valid = theirs
            .iter()
            .filter(|their| shared.binary_search(&their.org).is_ok() && their.buckets.len() == BUCKETS)
            .take(shared.len());
        valid
            .map(|their| self.entries_of(their, &mut room))
            .filter(|answer| !answer.buckets.is_empty())
            .collect()
    }

    fn entries_of(&self, theirs: &OrgBuckets, room: &mut usize) -> OrgEntries {
        let ours = self.bucket_digests(&theirs.org);
        let mut answer = OrgEntries { org: theirs.org, buckets: Vec::new(), entries: Vec::new() };
        for (at, _) in
            ours.iter().zip(&theirs.buckets).enumerate().filter(|(_, (ours, theirs))| ours != theirs)
        {
            let versions = self.bucket(&theirs.org, at);
            let size = versions.map_or(0, BTreeMap::len);
            if size > *room {
                break;
            }
            *room -= size;
            answer.buckets.push(at as u8);
            answer.entries.extend(versions.into_iter().flatten().map(summary));
        }
        answer
    }

    /// All entries of an org, as an answer to buckets that all differ; `None` when there are more than `max`.
    pub fn list(&self, org: &RootHash, max: usize) -> Option<OrgEntries> {
        let buckets = || self.orgs.get(org).into_iter().flat_map(|tree| &tree.buckets);
        if buckets().map(|bucket| bucket.versions.len()).sum::<usize>() > max {
            return None;
        }
        let entries = buckets().flat_map(|bucket| &bucket.versions).map(summary).collect();
        Some(OrgEntries { org: *org, buckets: (0..BUCKETS).map(|at| at as u8).collect(), entries })
    }

    fn bucket(&self, org: &RootHash, at: usize) -> Option<&BTreeMap<NodeId, Version>> {
        self.orgs.get(org).and_then(|tree| tree.buckets.get(at)).map(|bucket| &bucket.versions)
    }

    /// The last: what to send and what to ask for, given the other side's entries of some buckets.
    pub fn answer_entries(&self, shared: &[RootHash], theirs: &[OrgEntries]) -> Difference {
        let mut difference = Difference::default();
        for their in theirs.iter().filter(|their| shared.binary_search(&their.org).is_ok()) {
            self.compare_entries(their, &mut difference);
        }
        difference.send.truncate(ENTRIES_MAX);
        difference.want.truncate(ENTRIES_MAX);
        difference
    }

    fn compare_entries(&self, theirs: &OrgEntries, difference: &mut Difference) {
        let known: BTreeMap<NodeId, Version> = theirs
            .entries
            .iter()
            .take(ENTRIES_MAX)
            .map(|entry| (entry.node, Version { sequence: entry.sequence, digest: entry.digest }))
            .collect();
        let ours =
            theirs.buckets.iter().filter_map(|at| self.bucket(&theirs.org, usize::from(*at))).flatten();
        let mut seen = BTreeSet::new();
        for (node, version) in ours {
            seen.insert(*node);
            match known.get(node) {
                Some(their) if their == version => {}
                Some(their) if their > version => difference.want.push(*node),
                _ => difference.send.push(*node),
            }
        }
        difference.want.extend(known.keys().filter(|node| !seen.contains(*node)));
    }
}

fn summary((node, version): (&NodeId, &Version)) -> EntrySummary {
    EntrySummary { node: *node, sequence: version.sequence, digest: version.digest }
}

impl OrgTree {
    fn empty() -> Self {
        Self { buckets: vec![Bucket::default(); BUCKETS], digest: 0 }
    }

    fn change(&mut self, node: NodeId, change: impl FnOnce(&mut BTreeMap<NodeId, Version>)) {
        let bucket = &mut self.buckets[bucket_of(&node)];
        change(&mut bucket.versions);
        bucket.digest = digest_of(bucket.versions.iter(), |hasher, (node, version)| {
            hasher.update(node.as_bytes());
            hasher.update(&version.sequence.epoch.to_be_bytes()).update(&version.sequence.seq.to_be_bytes());
            hasher.update(&version.digest.to_be_bytes());
        });
        let filled = self.buckets.iter().enumerate().filter(|(_, bucket)| bucket.digest != 0);
        self.digest = digest_of(filled, |hasher, (at, bucket)| {
            hasher.update(&[at as u8]).update(&bucket.digest.to_be_bytes());
        });
    }
}

/// Node ids are public keys, so their last byte is as good as random, except to a node that chooses its key: it can
/// crowd one bucket, which costs exchanges some bytes and nothing else.
fn bucket_of(node: &NodeId) -> usize {
    usize::from(node.as_bytes()[31]) % BUCKETS
}

/// The digest of a sequence; 0 for an empty one, and only for that.
fn digest_of<T>(items: impl Iterator<Item = T>, mut add: impl FnMut(&mut blake3::Hasher, T)) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("comity 2026 directory digest");
    let mut empty = true;
    for item in items {
        add(&mut hasher, item);
        empty = false;
    }
    if empty {
        return 0;
    }
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_be_bytes(first).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advert::Sequence;

    const ORG: RootHash = RootHash::from_bytes([1; 32]);
    const OTHER: RootHash = RootHash::from_bytes([2; 32]);

    fn node(n: u16) -> NodeId {
        NodeId::from_bytes(*blake3::hash(&n.to_be_bytes()).as_bytes())
    }

    fn version(seq: u64) -> Version {
        Version { sequence: Sequence { epoch: 1, seq }, digest: seq }
    }

    fn tree(entries: &[(u16, u64)]) -> DigestTree {
        let mut tree = DigestTree::default();
        for (n, seq) in entries {
            tree.set(ORG, node(*n), version(*seq));
        }
        tree
    }

    /// Runs one exchange that `a` begins and returns what `a` would do at its end.
    fn exchange(a: &DigestTree, b: &DigestTree, shared: &[RootHash]) -> Difference {
        let buckets = b.answer_orgs(shared, &a.org_digests(shared));
        let entries = a.answer_buckets(shared, &buckets);
        b.answer_entries(shared, &entries)
    }

    #[test]
    fn an_exchange_finds_just_what_differs() {
        let (a, b) = (tree(&[(1, 1), (2, 5), (3, 1), (4, 1)]), tree(&[(1, 1), (2, 4), (3, 2), (5, 1)]));
        let difference = exchange(&a, &b, &[ORG]);
        let sorted = |mut nodes: Vec<NodeId>| {
            nodes.sort();
            nodes
        };
        assert_eq!(sorted(difference.want), sorted(vec![node(2), node(4)]));
        assert!(difference.send.contains(&node(3)));
        let back = exchange(&b, &a, &[ORG]);
        assert!(back.want.contains(&node(5)) && back.want.contains(&node(3)));
    }

    #[test]
    fn equal_directories_have_equal_digests_however_they_came_about() {
        let (a, mut b) = (tree(&[(1, 1), (2, 2)]), tree(&[(2, 2), (3, 1), (1, 1)]));
        assert_ne!(a.digest(&[ORG]), b.digest(&[ORG]));
        b.remove(&ORG, &node(3));
        assert_eq!(a.digest(&[ORG]), b.digest(&[ORG]));
        b.remove(&ORG, &node(1));
        b.remove(&ORG, &node(2));
        assert_eq!(b.digest(&[ORG]), DigestTree::default().digest(&[ORG]));
    }

    #[test]
    fn what_is_not_shared_neither_shows_nor_counts() {
        let (mut a, b) = (tree(&[(1, 1)]), tree(&[(1, 1)]));
        a.set(OTHER, node(9), version(1));
        assert_eq!(a.digest(&[ORG]), b.digest(&[ORG]));
        let ask = vec![OrgDigest { org: OTHER, digest: 7 }];
        assert!(a.answer_orgs(&[ORG], &ask).is_empty());
        let ask = vec![OrgBuckets { org: OTHER, buckets: vec![7; BUCKETS] }];
        assert!(a.answer_buckets(&[ORG], &ask).is_empty());
    }

    #[test]
    fn a_newcomer_gets_everything_in_bounded_steps() {
        let full = tree(&(0..3000).map(|n| (n, 1)).collect::<Vec<_>>());
        let mut newcomer = DigestTree::default();
        let mut rounds = 0;
        while newcomer.digest(&[ORG]) != full.digest(&[ORG]) {
            let buckets = newcomer.answer_orgs(&[ORG], &full.org_digests(&[ORG]));
            let entries = full.answer_buckets(&[ORG], &buckets);
            assert!(entries.iter().map(|org| org.entries.len()).sum::<usize>() <= ENTRIES_MAX);
            for wanted in newcomer.answer_entries(&[ORG], &entries).want {
                newcomer.set(ORG, wanted, version(1));
            }
            rounds += 1;
            assert!(rounds < 10);
        }
    }

    #[test]
    fn hostile_shapes_are_harmless() {
        let tree = tree(&[(1, 1)]);
        let short = vec![OrgBuckets { org: ORG, buckets: vec![7; 3] }];
        assert!(tree.answer_buckets(&[ORG], &short).is_empty());
        let many = vec![OrgBuckets { org: ORG, buckets: vec![7; BUCKETS] }; 5000];
        assert!(tree.answer_buckets(&[ORG], &many).len() <= 1);
        let wild = vec![OrgEntries { org: ORG, buckets: vec![255, 0, 0], entries: vec![] }];
        assert!(tree.answer_entries(&[ORG], &wild).send.len() <= 2);
    }
}
