//! An org's own business: making its root, issuing memberships, and handing both to a new member.

use std::io;
use std::time::Duration;

use comity_protocol::codec;
use comity_protocol::geo::CountrySet;
use comity_protocol::ids::{MeshName, NodeId, OrgName, RootHash};
use comity_protocol::time::Wall;
use comity_protocol::trust::{
    Anchors, MEMBERSHIP_LIFETIME_MAX, Membership, MembershipError, OrgRoot, ROOT_LIFETIME_MAX, RoleSet,
    RootChain, RootError, RootRefusal, SealError, SignedRoot, Unverified, Verified, seal,
};
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::SigningKey;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::files::{MODE_PRIVATE, ReadError, WriteError, read_bounded, write_atomic};
use crate::identity::{DataDir, KeyError, create_key, load_key, node_id};

/// Largest file of a chain of roots.
pub const ROOT_FILE_BYTES_MAX: usize = 128 * 1024;
/// Largest membership file.
pub const MEMBERSHIP_FILE_BYTES_MAX: usize = 4096;
/// What an admission line begins with.
pub const ADMISSION_PREFIX: &str = "comity-admission:";
/// Longest admission line.
const ADMISSION_LINE_BYTES_MAX: usize = 2 * ROOT_FILE_BYTES_MAX;

/// Why an org's root or membership cannot be made, read or used.
#[derive(Debug, Error)]
pub enum OrgError {
    /// The key cannot be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The stored root is not valid.
    #[error("the stored root of {org} is not valid")]
    Root {
        /// The org.
        org: OrgName,
        /// Why.
        source: RootError,
    },
    /// This machine's `org.key` may not issue for the org.
    #[error("the key in org.key may not issue memberships for {0}")]
    NotIssuer(OrgName),
    /// The stored membership is not readable.
    #[error("the stored membership cannot be read")]
    Membership(#[from] SealError),
    /// The system has no randomness to give.
    #[error("the system gave no randomness")]
    Randomness(#[from] getrandom::Error),
}

/// Makes an org: its key (`org.key`) and its first root. Refuses where there is an org's key already.
pub fn create(dir: &DataDir, org: &OrgName, now: Wall) -> Result<Issuer, OrgError> {
    let key = create_key(&dir.org_key())?;
    let root = OrgRoot::first(org.clone(), node_id(&key), now, ROOT_LIFETIME_MAX);
    let chain = RootChain::new(SignedRoot::sign(&root, &[&key]));
    save_chain(dir, org, &chain)?;
    Ok(Issuer { key, root, chain })
}

/// Reads an org's chain of roots; `None` where it has not arrived.
pub fn load_chain(dir: &DataDir, org: &OrgName) -> Result<Option<RootChain>, OrgError> {
    let Some(bytes) = read_optional(&dir.root(org), ROOT_FILE_BYTES_MAX)? else { return Ok(None) };
    let chain = RootChain::decode(&bytes).map_err(|source| OrgError::Root { org: org.clone(), source })?;
    Ok(Some(chain))
}

/// Keeps an org's chain of roots.
pub fn save_chain(dir: &DataDir, org: &OrgName, chain: &RootChain) -> Result<(), OrgError> {
    let made = std::fs::create_dir_all(dir.roots());
    made.map_err(|source| WriteError { path: dir.roots(), source })?;
    Ok(write_atomic(&dir.root(org), &chain.encode(), MODE_PRIVATE)?)
}

/// This node's membership as stored: its claims are readable, and prove nothing before they are checked.
pub fn load_membership(dir: &DataDir) -> Result<Option<Unverified<Membership>>, OrgError> {
    match read_optional(&dir.membership(), MEMBERSHIP_FILE_BYTES_MAX)? {
        Some(bytes) => Ok(Some(Unverified::decode(&bytes)?)),
        None => Ok(None),
    }
}

/// Keeps this node's membership.
pub fn save_membership(dir: &DataDir, membership: &Verified<Membership>) -> Result<(), OrgError> {
    Ok(write_atomic(&dir.membership(), membership.bytes(), MODE_PRIVATE)?)
}

fn read_optional(path: &std::path::Path, bytes_max: usize) -> Result<Option<Vec<u8>>, ReadError> {
    match read_bounded(path, bytes_max) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The machine that holds an org's key and admits nodes.
pub struct Issuer {
    key: SigningKey,
    root: OrgRoot,
    chain: RootChain,
}

impl Issuer {
    /// Reads `org.key` and the root of `org`; `None` where this machine is not its issuer.
    pub fn load(dir: &DataDir, org: &OrgName) -> Result<Option<Self>, OrgError> {
        let Some(chain) = load_chain(dir, org)? else { return Ok(None) };
        if !dir.org_key().exists() {
            return Ok(None);
        }
        let key = load_key(&dir.org_key())?;
        let root = chain.verify().map_err(|source| OrgError::Root { org: org.clone(), source })?;
        match root.issuers.contains(&node_id(&key)) {
            true => Ok(Some(Issuer { key, root, chain })),
            false => Err(OrgError::NotIssuer(org.clone())),
        }
    }

    /// The org.
    pub fn org(&self) -> &OrgName {
        &self.root.org
    }

    /// The newest root.
    pub fn root(&self) -> &OrgRoot {
        &self.root
    }

    /// The chain of roots, to hand to members.
    pub fn chain(&self) -> &RootChain {
        &self.chain
    }

    /// The digest that others pin.
    pub fn pin(&self) -> RootHash {
        self.chain.pin().expect("a chain that verified is not empty")
    }

    /// Admits a node anew: its sequence may begin again, because the epoch (the second of admission) is a later one.
    pub fn admit(
        &self,
        mesh: &MeshName,
        node: NodeId,
        places: CountrySet,
        now: Wall,
    ) -> Result<Verified<Membership>, OrgError> {
        let epoch = u32::try_from(now.as_millis() / 1000).unwrap_or(u32::MAX);
        self.issue(mesh, node, places, epoch, now)
    }

    /// Extends a membership that this org issued, epoch and bounds unchanged.
    pub fn renew(
        &self,
        mesh: &MeshName,
        old: &Membership,
        now: Wall,
    ) -> Result<Verified<Membership>, OrgError> {
        self.issue(mesh, old.node, old.locations_max, old.epoch, now)
    }

    fn issue(
        &self,
        mesh: &MeshName,
        node: NodeId,
        locations_max: CountrySet,
        epoch: u32,
        now: Wall,
    ) -> Result<Verified<Membership>, OrgError> {
        let membership = Membership {
            org: self.root.org.clone(),
            root_version: self.root.version,
            node,
            serial: random_serial()?,
            epoch,
            roles: RoleSet::standard(),
            locations_max,
            not_before: now,
            expires: now + MEMBERSHIP_LIFETIME_MAX,
        };
        Ok(seal(membership, &self.key, Some(mesh)))
    }
}

/// A number that no other membership of the org has, for all practical purposes. 53 bits, so that JSON carries it whole.
fn random_serial() -> Result<u64, getrandom::Error> {
    Ok(getrandom::u64()? >> 11)
}

/// What a new member needs: its org's roots and its membership. Travels as one line, by hand.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Admission {
    #[n(0)]
    chain: ByteVec,
    #[n(1)]
    membership: ByteVec,
}

/// Why an admission was refused.
#[derive(Debug, Error)]
pub enum AdmissionError {
    /// The line is not an admission.
    #[error("this is not an admission line (it begins with {ADMISSION_PREFIX})")]
    Line,
    /// The roots in it do not hold.
    #[error("the org's root in it is not valid")]
    Root(#[from] RootError),
    /// The roots in it are not those of its org.
    #[error(transparent)]
    Refused(#[from] RootRefusal),
    /// The membership in it does not hold.
    #[error("the membership in it is not valid")]
    Membership(#[from] MembershipError),
    /// The membership is another node's.
    #[error("it admits {admitted}, and this node is {this}")]
    OtherNode {
        /// Whom it admits.
        admitted: NodeId,
        /// Who reads it.
        this: NodeId,
    },
}

impl Admission {
    /// An admission as the issuer hands it out.
    pub fn new(chain: &RootChain, membership: &Verified<Membership>) -> Self {
        Admission { chain: chain.encode().into(), membership: membership.bytes().to_vec().into() }
    }

    /// The line to carry over.
    pub fn to_line(&self) -> String {
        format!("{ADMISSION_PREFIX}{}", BASE64URL_NOPAD.encode(&codec::encode(self)))
    }

    /// Reads a line without believing it.
    pub fn from_line(line: &str) -> Result<Self, AdmissionError> {
        let encoded = line.trim().strip_prefix(ADMISSION_PREFIX).ok_or(AdmissionError::Line)?;
        if encoded.len() > ADMISSION_LINE_BYTES_MAX {
            return Err(AdmissionError::Line);
        }
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| AdmissionError::Line)?;
        codec::decode(&bytes, ADMISSION_LINE_BYTES_MAX).map_err(|_| AdmissionError::Line)
    }

    /// Checks that the chain holds and that, by it, `this` node is a member. The chain itself is taken on the word of
    /// whoever handed the line over: its digest must be compared by people.
    pub fn verify(
        &self,
        mesh: &MeshName,
        this: NodeId,
        now: Wall,
    ) -> Result<(RootChain, Verified<Membership>), AdmissionError> {
        let chain = RootChain::decode(&self.chain)?;
        let root = chain.verify()?;
        let mut anchors = Anchors::new(mesh.clone());
        anchors.pin(root.org.clone(), chain.pin().ok_or(AdmissionError::Line)?);
        anchors.learn(chain.clone())?;
        let membership = anchors.verify_membership(&self.membership, now)?;
        if membership.node != this {
            return Err(AdmissionError::OtherNode { admitted: membership.node, this });
        }
        Ok((chain, membership))
    }
}

/// The share of a membership's life after which it is renewed.
pub const RENEW_AFTER: Duration = Duration::from_secs(MEMBERSHIP_LIFETIME_MAX.as_secs() / 3);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall::from_millis(1_800_000_000_000);

    struct Fixture {
        _temp: tempfile::TempDir,
        dir: DataDir,
        org: OrgName,
        mesh: MeshName,
    }

    fn fixture() -> Fixture {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = DataDir::locate(Some(temp.path().join("data"))).expect("given");
        dir.create().expect("create");
        Fixture {
            _temp: temp,
            dir,
            org: "acme.example".parse().expect("org"),
            mesh: "m".parse().expect("mesh"),
        }
    }

    fn node() -> NodeId {
        node_id(&SigningKey::from_bytes(&[9; 32]))
    }

    #[test]
    fn an_org_is_made_once_and_its_issuer_reads_back() {
        let f = fixture();
        assert!(Issuer::load(&f.dir, &f.org).expect("nothing yet").is_none());
        let made = create(&f.dir, &f.org, NOW).expect("create");
        let loaded = Issuer::load(&f.dir, &f.org).expect("load").expect("present");
        assert_eq!((loaded.pin(), loaded.org()), (made.pin(), &f.org));
        assert!(matches!(create(&f.dir, &f.org, NOW), Err(OrgError::Key(KeyError::Exists(_)))));
    }

    #[test]
    fn an_admission_travels_as_a_line_and_is_checked_by_who_gets_it() {
        let f = fixture();
        let issuer = create(&f.dir, &f.org, NOW).expect("create");
        let places = [("DE".parse().expect("country"))].into_iter().collect();
        let membership = issuer.admit(&f.mesh, node(), places, NOW).expect("admit");
        let line = Admission::new(issuer.chain(), &membership).to_line();
        let admission = Admission::from_line(&format!(" {line}\n")).expect("reads");
        let (chain, verified) = admission.verify(&f.mesh, node(), NOW).expect("holds");
        assert_eq!((chain.pin(), verified.locations_max), (Some(issuer.pin()), places));

        let other = node_id(&SigningKey::from_bytes(&[8; 32]));
        assert!(matches!(admission.verify(&f.mesh, other, NOW), Err(AdmissionError::OtherNode { .. })));
        let wrong_mesh = "n".parse().expect("mesh");
        assert!(matches!(admission.verify(&wrong_mesh, node(), NOW), Err(AdmissionError::Membership(_))));
        let late = NOW + MEMBERSHIP_LIFETIME_MAX;
        assert!(matches!(admission.verify(&f.mesh, node(), late), Err(AdmissionError::Membership(_))));
        for bad in ["", "comity-admission:", "comity-admission:!!", &line[..line.len() - 4]] {
            assert!(matches!(Admission::from_line(bad), Err(AdmissionError::Line)), "{bad}");
        }
    }

    #[test]
    fn a_renewal_keeps_the_epoch_and_a_new_admission_raises_it() {
        let f = fixture();
        let issuer = create(&f.dir, &f.org, NOW).expect("create");
        let first = issuer.admit(&f.mesh, node(), CountrySet::EMPTY, NOW).expect("admit");
        let later = NOW + Duration::from_secs(60);
        let renewed = issuer.renew(&f.mesh, &first, later).expect("renew");
        assert_eq!((renewed.epoch, renewed.not_before), (first.epoch, later));
        assert_ne!(renewed.serial, first.serial);
        assert!(issuer.admit(&f.mesh, node(), CountrySet::EMPTY, later).expect("admit").epoch > first.epoch);
    }

    #[test]
    fn membership_and_roots_are_kept_in_the_data_directory() {
        let f = fixture();
        assert!(load_membership(&f.dir).expect("none yet").is_none());
        let issuer = create(&f.dir, &f.org, NOW).expect("create");
        let membership = issuer.admit(&f.mesh, node(), CountrySet::EMPTY, NOW).expect("admit");
        save_membership(&f.dir, &membership).expect("save");
        assert_eq!(load_membership(&f.dir).expect("load").expect("present").claimed().node, node());
        assert_eq!(
            load_chain(&f.dir, &f.org).expect("load").and_then(|chain| chain.pin()),
            Some(issuer.pin())
        );
        std::fs::write(f.dir.root(&f.org), b"junk").expect("write");
        assert!(matches!(load_chain(&f.dir, &f.org), Err(OrgError::Root { .. })));
    }
}
