//! Orgs and nodes for tests and simulations, made from small numbers so that every run has the same keys.

use std::time::Duration;

use ed25519_dalek::SigningKey;

use crate::advert::{Advert, Site};
use crate::geo::CountrySet;
use crate::ids::{MeshName, NodeId, OrgName};
use crate::time::Wall;
use crate::trust::{Membership, OrgRoot, RoleSet, RootChain, SignedRoot, Verified, seal};

/// A day: the lifetime of what tests make.
pub const DAY: Duration = Duration::from_secs(86_400);

/// The mesh of every test.
pub fn mesh() -> MeshName {
    "test".parse().expect("a mesh name")
}

/// A set of countries from space-separated codes or group names.
pub fn places(codes: &str) -> CountrySet {
    codes
        .split_whitespace()
        .fold(CountrySet::EMPTY, |set, code| set.union(&crate::geo::resolve_place(code).expect("a place")))
}

/// An org with one key.
#[derive(Clone)]
pub struct TestOrg {
    /// Its name.
    pub name: OrgName,
    /// Its key.
    pub key: SigningKey,
    /// Its root.
    pub chain: RootChain,
    /// When it was made.
    pub made: Wall,
}

impl TestOrg {
    /// The org `name` with the key of `seed`, made at `made`.
    pub fn new(name: &str, seed: u8, made: Wall) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let name: OrgName = name.parse().expect("an org name");
        let root = OrgRoot::first(name.clone(), key.verifying_key().into(), made, DAY * 300);
        let chain = RootChain::new(SignedRoot::sign(&root, &[&key]));
        Self { name, key, chain, made }
    }

    /// A membership for `node` that allows `places` and lasts a week.
    pub fn admit(&self, node: NodeId, places: CountrySet) -> Verified<Membership> {
        self.admit_with(node, places, |_| {})
    }

    /// A membership, changed by `change` before it is signed.
    pub fn admit_with(
        &self,
        node: NodeId,
        places: CountrySet,
        change: impl FnOnce(&mut Membership),
    ) -> Verified<Membership> {
        let mut membership = Membership {
            org: self.name.clone(),
            root_version: 1,
            node,
            serial: 1,
            epoch: 1,
            roles: RoleSet::standard(),
            locations_max: places,
            not_before: self.made,
            expires: self.made + DAY * 7,
        };
        change(&mut membership);
        seal(membership, &self.key, Some(&mesh()))
    }
}

/// A node of a test org.
#[derive(Clone)]
pub struct TestNode {
    /// Its key.
    pub key: SigningKey,
    /// Its id.
    pub id: NodeId,
    /// Its membership.
    pub membership: Verified<Membership>,
}

impl TestNode {
    /// The node of `seed` in `org`, allowed in `places`.
    pub fn new(org: &TestOrg, seed: u16, places: CountrySet) -> Self {
        let mut secret = [0x5a; 32];
        secret[..2].copy_from_slice(&seed.to_be_bytes());
        let key = SigningKey::from_bytes(&secret);
        let id = NodeId::from(key.verifying_key());
        Self { membership: org.admit(id, places), key, id }
    }

    /// An advert of sequence `seq` with every place that the membership allows, issued at `now`.
    pub fn advert(&self, seq: u64, now: Wall) -> Verified<Advert> {
        self.advert_with(seq, now, |_| {})
    }

    /// An advert, changed by `change` before it is signed.
    pub fn advert_with(&self, seq: u64, now: Wall, change: impl FnOnce(&mut Advert)) -> Verified<Advert> {
        let mut advert = Advert {
            node: self.id,
            org: self.membership.org.clone(),
            epoch: self.membership.epoch,
            seq,
            membership: self.membership.bytes().to_vec().into(),
            name: "node".into(),
            site: Site { processing_locations: self.membership.locations_max, ..Site::default() },
            addresses: vec!["/memory/1".into()],
            offers: None,
            org_offers: None,
            claims: None,
            audience: None,
            leaving: false,
            issued: now,
            expires: now + Duration::from_secs(4 * 3600),
        };
        change(&mut advert);
        seal(advert, &self.key, Some(&mesh()))
    }
}
