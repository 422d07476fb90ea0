//! Pulling blobs by digest: from whom, how many at once, and when to try again.
//!
//! A linked neighbour is asked first, because it has most likely pulled the same; then the node that offers it. What comes
//! proves itself by its digest, so it does not matter who gave it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{BlobDigest, NodeId};
use crate::rng::Rng;
use crate::time::Mono;

use super::FetchId;
use super::blobs::Visibility;
use super::wire::BLOBS_PER_REQUEST_MAX;

/// Most pulls under way at once.
pub const FETCHES_MAX: usize = 16;

/// Most blobs wanted at once. When full, further ones wait until their advert is looked at again.
pub const WANTED_MAX: usize = 16 * 1024;

/// Most nodes remembered as offering one blob.
const OWNERS_MAX: usize = 8;

/// The pause after a first failure, doubled after each up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);

/// The longest pause between two tries for one blob.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How long a pull may take before it counts as failed.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// What a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A set of offers.
    OfferSet,
    /// A tool's descriptor.
    Descriptor,
}

/// One blob that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What it is.
    pub kind: Kind,
    /// To whom we may pass it on.
    pub visibility: Visibility,
    /// Nodes that offer it.
    owners: BTreeSet<NodeId>,
    tries: u32,
    next: Mono,
    pulling: bool,
}

impl Wanted {
    /// Nodes that offer it.
    pub const fn owners(&self) -> &BTreeSet<NodeId> {
        &self.owners
    }
}

/// A pull to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// Its number.
    pub id: FetchId,
    /// From whom.
    pub from: NodeId,
    /// What.
    pub digests: Vec<BlobDigest>,
}

#[derive(Clone, Debug)]
struct Running {
    from: NodeId,
    digests: Vec<BlobDigest>,
    since: Mono,
}

/// The blobs that are wanted and the pulls under way.
#[derive(Clone, Debug)]
pub struct Fetcher {
    wanted: BTreeMap<BlobDigest, Wanted>,
    running: BTreeMap<FetchId, Running>,
    next_id: u64,
    rng: Rng,
}

impl Fetcher {
    /// A fetcher that wants nothing yet.
    pub const fn new(seed: u64) -> Self {
        Self { wanted: BTreeMap::new(), running: BTreeMap::new(), next_id: 0, rng: Rng::new(seed) }
    }

    /// Wants a blob that `owner` offers.
    pub fn want(
        &mut self,
        digest: BlobDigest,
        kind: Kind,
        owner: NodeId,
        visibility: &Visibility,
        now: Mono,
    ) {
        if let Some(wanted) = self.wanted.get_mut(&digest) {
            wanted.visibility.widen(visibility);
            if wanted.owners.len() < OWNERS_MAX {
                wanted.owners.insert(owner);
            }
        } else if self.wanted.len() < WANTED_MAX {
            let (owners, visibility) = ([owner].into(), visibility.clone());
            self.wanted
                .insert(digest, Wanted { kind, visibility, owners, tries: 0, next: now, pulling: false });
        }
    }

    /// Wants only what `keep` accepts.
    pub fn retain(&mut self, keep: impl Fn(&BlobDigest) -> bool) {
        self.wanted.retain(|digest, wanted| wanted.pulling || keep(digest));
    }

    /// The pulls to begin now, given the peers that are linked.
    pub fn plan(&mut self, linked: &[NodeId], now: Mono) -> Vec<Pull> {
        self.fail_overdue(now);
        let room = FETCHES_MAX.saturating_sub(self.running.len());
        if room == 0 {
            return Vec::new();
        }
        let mut by_source: BTreeMap<NodeId, Vec<BlobDigest>> = BTreeMap::new();
        for (digest, wanted) in self.wanted.iter().filter(|(_, wanted)| !wanted.pulling && now >= wanted.next)
        {
            let Some(source) = source(wanted, linked, &mut self.rng) else { continue };
            let full = by_source.len() >= room && !by_source.contains_key(&source);
            if !full {
                let digests = by_source.entry(source).or_default();
                if digests.len() < BLOBS_PER_REQUEST_MAX {
                    digests.push(*digest);
                }
            }
        }
        by_source.into_iter().map(|(from, digests)| self.begin(from, digests, now)).collect()
    }

    fn begin(&mut self, from: NodeId, digests: Vec<BlobDigest>, now: Mono) -> Pull {
        for digest in &digests {
            if let Some(wanted) = self.wanted.get_mut(digest) {
                wanted.pulling = true;
            }
        }
        self.next_id += 1;
        let id = FetchId(self.next_id);
        self.running.insert(id, Running { from, digests: digests.clone(), since: now });
        Pull { id, from, digests }
    }

    fn fail_overdue(&mut self, now: Mono) {
        let late = self.running.iter().filter(|(_, running)| now.since(running.since) >= FETCH_TIMEOUT);
        for id in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.finish(id, None, now);
        }
    }

    /// A pull has ended: `answers` in the order asked, or `None` when the peer could not be asked. Returns whom was asked
    /// and what came and is what was asked for; everything else is tried again later.
    pub fn finish(
        &mut self,
        id: FetchId,
        answers: Option<Vec<Option<Vec<u8>>>>,
        now: Mono,
    ) -> Vec<(BlobDigest, Wanted, Vec<u8>)> {
        let Some(running) = self.running.remove(&id) else { return Vec::new() };
        let mut answers = answers.unwrap_or_default().into_iter();
        let mut got = Vec::new();
        for digest in running.digests {
            let bytes = answers.next().flatten().filter(|bytes| BlobDigest::of(bytes) == digest);
            match bytes {
                Some(bytes) => got.extend(self.wanted.remove(&digest).map(|wanted| (digest, wanted, bytes))),
                None => self.retry(&digest, running.from, now),
            }
        }
        got
    }

    fn retry(&mut self, digest: &BlobDigest, from: NodeId, now: Mono) {
        let Some(wanted) = self.wanted.get_mut(digest) else { return };
        wanted.pulling = false;
        // A neighbour that has it not costs nothing: ask the owner at once. An owner that fails costs a pause.
        let pause = if wanted.owners.contains(&from) {
            self.rng.jitter(RETRY_MIN.saturating_mul(1 << wanted.tries.min(10)).min(RETRY_MAX))
        } else {
            Duration::ZERO
        };
        wanted.tries = wanted.tries.saturating_add(1);
        wanted.next = now + pause;
    }

    /// When to plan again.
    pub fn next_timeout(&self, now: Mono) -> Option<Mono> {
        let retries = self
            .wanted
            .values()
            .filter(|wanted| !wanted.pulling && wanted.next > now)
            .map(|wanted| wanted.next);
        retries.chain(self.running.values().map(|running| running.since + FETCH_TIMEOUT)).min()
    }

    /// How many pulls are under way.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// How many blobs are wanted.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }
}

/// A linked owner; else on even tries any linked peer; else an owner that must be dialled.
fn source(wanted: &Wanted, linked: &[NodeId], rng: &mut Rng) -> Option<NodeId> {
    let owner = wanted.owners.iter().find(|owner| linked.contains(owner));
    let neighbour = || if wanted.tries.is_multiple_of(2) { rng.pick(linked) } else { None };
    let at = wanted.tries as usize / 2 % wanted.owners.len().max(1);
    owner.or_else(neighbour).or_else(|| wanted.owners.iter().nth(at)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn at(ms: u64) -> Mono {
        Mono::from_micros(ms * 1000)
    }

    fn want(fetcher: &mut Fetcher, content: &[u8], owner: u8) -> BlobDigest {
        let digest = BlobDigest::of(content);
        fetcher.want(digest, Kind::Descriptor, node(owner), &Visibility::everyone(), at(0));
        digest
    }

    #[test]
    fn a_neighbour_is_asked_first_and_the_owner_when_it_has_it_not() {
        let mut fetcher = Fetcher::new(1);
        want(&mut fetcher, b"x", 1);
        let pull = fetcher.plan(&[node(2)], at(0)).remove(0);
        assert_eq!(pull.from, node(2));
        assert!(fetcher.finish(pull.id, Some(vec![None]), at(0)).is_empty());
        let pull = fetcher.plan(&[node(2)], at(0)).remove(0);
        assert_eq!(pull.from, node(1));
        let got = fetcher.finish(pull.id, Some(vec![Some(b"x".to_vec())]), at(0));
        assert_eq!((got.len(), fetcher.is_empty()), (1, true));
    }

    #[test]
    fn bytes_of_another_digest_are_not_taken() {
        let mut fetcher = Fetcher::new(1);
        want(&mut fetcher, b"x", 1);
        let pull = fetcher.plan(&[node(1)], at(0)).remove(0);
        assert!(
            fetcher.finish(pull.id, Some(vec![Some(b"y".to_vec()), Some(b"x".to_vec())]), at(0)).is_empty()
        );
        assert!(fetcher.plan(&[node(1)], at(0)).is_empty());
        assert!(!fetcher.plan(&[node(1)], at(2000)).is_empty());
    }

    #[test]
    fn pulls_are_batched_bounded_and_given_up_when_they_hang() {
        let mut fetcher = Fetcher::new(1);
        for n in 0..100_u8 {
            want(&mut fetcher, &[n], 1);
        }
        let pulls = fetcher.plan(&[node(1)], at(0));
        assert_eq!(pulls.iter().map(|pull| pull.digests.len()).collect::<Vec<_>>(), [BLOBS_PER_REQUEST_MAX]);
        assert_eq!(fetcher.plan(&[node(1)], at(0))[0].digests.len(), 100 - BLOBS_PER_REQUEST_MAX);
        assert!(fetcher.plan(&[node(1)], at(0)).is_empty());
        assert_eq!(fetcher.next_timeout(at(0)), Some(at(30_000)));
        assert!(fetcher.plan(&[node(1)], at(30_000)).is_empty());
        assert!(!fetcher.plan(&[node(1)], at(32_000)).is_empty());
    }
}
