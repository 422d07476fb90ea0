//! Joining: from the line that somebody handed over to what is written down here. Needs no running node.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use comity_protocol::enrol::{Applicant, EnrolError, Enrolled, Joiner, Words};
use comity_protocol::ids::{MeshName, NodeId, OrgName, RootHash};
use comity_protocol::invite::{Invite, InviteError, InviteKind};
use libp2p::Multiaddr;

use super::guest::{self, VisitError, Visiting};
use crate::clock::Clock;
use crate::config::edit::{self, EditError};
use crate::config::mesh::PeerAddress;
use crate::config::setting::TextSetting as _;
use crate::config::trust::Approve;
use crate::config::{ConfigError, NodeConfig};
use crate::control::reports;
use crate::control::{ControlFault, FaultKind};
use crate::identity::{DataDir, KeyError, load_key, node_id};
use crate::mesh::stranger::{self, StrangerError};
use crate::node::{IdentityError, NodeIdentity};
use crate::org::{self, OrgError};
use crate::telemetry::Chain;

/// Entries that one join adds to the configuration's peers; the directory finds the rest of the mesh from them.
pub(crate) const PEERS_ADDED_MAX: usize = 4;

/// Who joins.
#[derive(Clone, Debug)]
pub(crate) struct Entrant {
    /// Its data directory.
    pub(crate) dir: DataDir,
    /// Its configuration, which a join edits.
    pub(crate) config_path: PathBuf,
    /// Its clock.
    pub(crate) clock: Clock,
    /// Where it can be dialled, with its id, as far as it knows.
    pub(crate) seeds: Vec<String>,
}

/// The person at this side.
pub(crate) trait Operator: Sync {
    /// Shows the words and asks whether `other`, the side that was dialled, shows the same.
    fn compare(&self, words: Words, other: &str) -> impl Future<Output = bool> + Send;

    /// Tells something on the way.
    fn tell(&self, note: String) -> impl Future<Output = ()> + Send;
}

/// What came of it. All of it is durable.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    /// What was granted, verified from the line's pin.
    pub(crate) granted: Enrolled,
    /// Whom the configuration now names as peers because of this.
    pub(crate) peers: Vec<PeerAddress>,
}

/// Why it did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// The line.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// The configuration.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The node's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The node's identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The membership that is here.
    #[error(transparent)]
    Org(#[from] OrgError),
    /// The node belongs elsewhere.
    #[error("this node belongs to {own}, and the invite is to join {other}")]
    OtherOrg {
        /// Where it belongs.
        own: OrgName,
        /// Where it is invited.
        other: OrgName,
    },
    /// Only a member can speak for its org.
    #[error("this node is in no org, so it cannot federate one with {0}")]
    NoOrg(OrgName),
    /// The other org's nodes are in another mesh.
    #[error("this node is in the mesh {own}, and the invite is of the mesh {other}")]
    OtherMesh {
        /// This node's.
        own: MeshName,
        /// The invite's.
        other: MeshName,
    },
    /// The org is pinned, and to something else than the line says.
    #[error("{org} is pinned to {pinned}, and the invite says {offered}")]
    PinnedOtherwise {
        /// The org.
        org: OrgName,
        /// What is pinned.
        pinned: RootHash,
        /// What the line says.
        offered: RootHash,
    },
    /// The inviter was not reached.
    #[error(transparent)]
    Reach(#[from] StrangerError),
    /// The exchange.
    #[error(transparent)]
    Visit(#[from] VisitError),
    /// There is no randomness.
    #[error("the system has no randomness to give")]
    Random(#[from] getrandom::Error),
}

impl From<EnrolError> for JoinError {
    fn from(error: EnrolError) -> Self {
        Self::Visit(error.into())
    }
}

impl From<JoinError> for ControlFault {
    fn from(error: JoinError) -> Self {
        let fault = ControlFault::new(error.kind(), Chain(&error).to_string());
        match error.next() {
            Some(next) => fault.next(next),
            None => fault,
        }
    }
}

impl JoinError {
    const fn kind(&self) -> FaultKind {
        match self {
            Self::Reach(StrangerError::Unreachable { .. } | StrangerError::Stream { .. }) => {
                FaultKind::Unreachable
            }
            Self::Reach(StrangerError::OtherKey { .. })
            | Self::Visit(VisitError::Declined | VisitError::Enrol(EnrolError::Refused(_)))
            | Self::PinnedOtherwise { .. } => FaultKind::Denied,
            Self::Reach(_) | Self::Visit(_) | Self::Random(_) => FaultKind::Failed,
            _ => FaultKind::Usage,
        }
    }

    fn next(&self) -> Option<&'static str> {
        match self {
            Self::Invite(_) => Some("ask the other side for a new line: comity invite"),
            Self::Config(_) => Some("see what is wrong: comity config check"),
            Self::Key(_) => Some("make the node's key with: comity init"),
            Self::OtherOrg { .. } => Some("use another --data-dir for another org"),
            Self::NoOrg(_) => {
                Some("make an org with: comity org create NAME   or join one: comity join LINE")
            }
            Self::OtherMesh { .. } => Some("set [mesh] name to the same on both sides"),
            Self::PinnedOtherwise { .. } => {
                Some("find out which is right; then: comity trust unpin ORG, and join again")
            }
            Self::Reach(StrangerError::OtherKey { .. }) => {
                Some("somebody else is at the inviter's address: tell its operator")
            }
            Self::Reach(_) => {
                Some("is the inviter's node running, and can this machine reach its addresses?")
            }
            Self::Visit(VisitError::Declined) => {
                Some("if the words differed somebody is between you: get a new line in another way")
            }
            _ => None,
        }
    }
}

/// Accepts the invite of `line`: dials the inviter, goes through the exchange, and keeps what is granted. When this
/// returns `Ok` all of it is durable. Not cancel-safe while it stores; a join that was broken off there can be repeated
/// with the same line.
///
/// # Errors
/// [`JoinError`], which says what to do.
pub(crate) async fn join(
    entrant: &Entrant,
    line: &str,
    approve: Approve,
    operator: &impl Operator,
) -> Result<Joined, JoinError> {
    let invite = Invite::parse(line)?;
    let config = NodeConfig::load(&entrant.config_path)?.config;
    let key = load_key(&entrant.dir.node_key())?;
    let applicant = entrant.applicant(&config, &invite)?;
    let (now, mut nonce) = (entrant.clock.now(), [0; 32]);
    getrandom::fill(&mut nonce)?;
    let addresses: Vec<Multiaddr> = invite.addresses.iter().filter_map(|text| text.parse().ok()).collect();
    let (inviter, org) = (invite.inviter, invite.org.clone());
    let joiner = Joiner::new(invite, node_id(&key), applicant, nonce, now)?;
    operator.tell(format!("dialling {inviter} of {org}")).await;
    let stream = stranger::dial(&key, entrant.clock, inviter, &addresses).await?;
    let keeper = Keeper {
        entrant,
        operator,
        other: format!("node {inviter} of {org}"),
        addresses: in_order(stream.address(), addresses, inviter),
        mesh: config.mesh.name,
        approve,
        joined: Mutex::default(),
    };
    guest::visit(stream, joiner, &keeper, entrant.clock).await?;
    let joined = keeper.joined.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(joined.ok_or(EnrolError::Internal("it ended before anything was stored".into()))?)
}

impl Entrant {
    /// What to ask for, as far as this node may ask at all.
    fn applicant(&self, config: &NodeConfig, invite: &Invite) -> Result<Applicant, JoinError> {
        match invite.kind {
            InviteKind::Member => self.member(config, invite),
            InviteKind::Federate => self.org(config, invite),
        }
    }

    fn member(&self, config: &NodeConfig, invite: &Invite) -> Result<Applicant, JoinError> {
        let stored = org::load_membership(&self.dir)?.map(|stored| stored.claimed().org.clone());
        if let Some(own) = config.org.clone().or(stored).filter(|own| *own != invite.org) {
            return Err(JoinError::OtherOrg { own, other: invite.org.clone() });
        }
        Ok(Applicant::Member { name: config.name.clone(), locations: config.site.processing_locations })
    }

    fn org(&self, config: &NodeConfig, invite: &Invite) -> Result<Applicant, JoinError> {
        let (mesh, pinned) = (&config.mesh.name, config.trust.iter().find(|org| org.name == invite.org));
        if *mesh != invite.mesh {
            return Err(JoinError::OtherMesh { own: mesh.clone(), other: invite.mesh.clone() });
        }
        if let Some(pinned) = pinned.filter(|pinned| pinned.root != invite.root) {
            let (org, pinned) = (pinned.name.clone(), pinned.root);
            return Err(JoinError::PinnedOtherwise { org, pinned, offered: invite.root });
        }
        let member = NodeIdentity::load(&self.dir, config, self.clock.now().wall)?.member;
        let member = member.ok_or_else(|| JoinError::NoOrg(invite.org.clone()))?;
        let root = member.chain.pin().ok_or_else(|| JoinError::NoOrg(invite.org.clone()))?;
        Ok(Applicant::Org {
            membership: member.membership.bytes().to_vec(),
            org: member.membership.org.clone(),
            root,
            roots: member.chain,
            seeds: self.seeds.clone(),
        })
    }
}

/// The inviter's addresses as peers, the one at which it answered first.
fn in_order(answered: &Multiaddr, all: Vec<Multiaddr>, node: NodeId) -> Vec<PeerAddress> {
    let mut addresses = vec![answered.clone()];
    addresses.extend(all.into_iter().filter(|address| address != answered));
    addresses.into_iter().map(|address| PeerAddress { node, address }).collect()
}

/// Carries a visit between the machine and the operator, and writes down what is granted.
struct Keeper<'a, O> {
    entrant: &'a Entrant,
    operator: &'a O,
    other: String,
    addresses: Vec<PeerAddress>,
    /// The mesh that the configuration names.
    mesh: MeshName,
    approve: Approve,
    joined: Mutex<Option<Joined>>,
}

impl<O: Operator> Visiting for Keeper<'_, O> {
    async fn compare(&self, words: Words) -> bool {
        self.operator.compare(words, &self.other).await
    }

    async fn waiting(&self) {
        self.operator.tell("waiting for the other side to compare the words".into()).await;
    }

    async fn store(&self, enrolled: Enrolled) -> Result<(), String> {
        let joined = Joined { peers: self.peers(&enrolled), granted: enrolled };
        let (entrant, mesh, approve, kept) =
            (self.entrant.clone(), self.mesh.clone(), self.approve, joined.clone());
        let stored = tokio::task::spawn_blocking(move || entrant.store(&kept, &mesh, approve)).await;
        stored.map_err(|error| error.to_string())?.map_err(|error| Chain(&error).to_string())?;
        *self.joined.lock().unwrap_or_else(PoisonError::into_inner) = Some(joined);
        Ok(())
    }
}

impl<O> Keeper<'_, O> {
    /// The inviter's addresses, then what it named; a hint that is none is left out.
    fn peers(&self, enrolled: &Enrolled) -> Vec<PeerAddress> {
        let hints = enrolled.seeds.iter().filter_map(|seed| PeerAddress::from_text(seed).ok());
        let mut peers: Vec<PeerAddress> = Vec::new();
        for peer in self.addresses.iter().cloned().chain(hints) {
            if peers.len() < PEERS_ADDED_MAX && !peers.contains(&peer) {
                peers.push(peer);
            }
        }
        peers
    }
}

/// Why what was granted could not be kept.
#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(transparent)]
    Org(#[from] OrgError),
}

impl Entrant {
    /// The membership is written last: it is what makes the node a member, and all that it needs is there by then.
    fn store(&self, joined: &Joined, configured: &MeshName, approve: Approve) -> Result<(), StoreError> {
        let (path, granted): (&Path, _) = (&self.config_path, &joined.granted);
        org::save_chain(&self.dir, &granted.org, &granted.roots)?;
        edit::add_peers(path, &joined.peers)?;
        let Some(membership) = &granted.membership else {
            edit::pin_org(path, &granted.org, granted.root, approve)?;
            return Ok(());
        };
        if granted.mesh != *configured {
            edit::set(path, "mesh", "name", granted.mesh.as_str())?;
        }
        edit::set(path, "org", "name", granted.org.as_str())?;
        Ok(org::save_membership(&self.dir, membership)?)
    }
}

impl Joined {
    /// The report for the operator.
    pub(crate) fn report(&self, next: &str) -> reports::Enrolled {
        reports::Enrolled {
            org: self.granted.org.to_string(),
            root: self.granted.root.to_string(),
            node: self.granted.inviter.to_string(),
            next: next.to_owned(),
        }
    }
}
