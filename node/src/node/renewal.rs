//! This node's own membership: it lives seven days, and is replaced past half of its life without anybody's help.
//!
//! Where `org.key` is, the node signs its next membership itself. Elsewhere it asks nodes of its org, which it knows
//! from the directory; the one that has the key answers. Until one does it asks again, ever more rarely, and says so.

use std::sync::Arc;
use std::time::Duration;

use comity_protocol::enrol::{ENROL_FRAME_MAX, EnrolError, Renewal, Renewed, STEP_TIMEOUT};
use comity_protocol::ids::NodeId;
use comity_protocol::trust::MEMBERSHIP_LIFETIME_MAX;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use super::Shared;
use super::identity::Member;
use super::watchers::renewal_due;
use crate::enrolment::frames::Frames;
use crate::enrolment::roll::RollError;
use crate::mesh::{MeshHandle, MeshSnapshot, OpenError, peer};
use crate::org::{self, Issuer, OrgError};
use crate::telemetry::Chain;

/// How often it is asked whether a renewal is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The first and the longest pause after nobody could renew it.
const PAUSE_MIN: Duration = Duration::from_secs(15);
const PAUSE_MAX: Duration = Duration::from_secs(30 * 60);

/// Nodes that are asked in one attempt; others come in the next.
const ASKED_MAX: usize = 8;

/// Addresses of each that are tried.
const ADDRESSES_MAX: usize = 4;

/// Why a membership was not renewed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewError {
    /// A file of the org's, or its key.
    #[error(transparent)]
    Org(#[from] OrgError),
    /// It could not be issued here.
    #[error(transparent)]
    Roll(#[from] RollError),
    /// What was issued here does not verify here: a bug, or a damaged store.
    #[error("the renewed membership cannot be read back")]
    ReadBack,
    /// A node of the org could not be reached.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was reached, and did not renew.
    #[error(transparent)]
    Exchange(#[from] EnrolError),
    /// There is nothing to dial.
    #[error("the directory names no address of it that can be dialled")]
    NoAddress,
    /// All were asked.
    #[error("no node of {0} that this one knows could renew the membership")]
    Nobody(String),
}

impl Shared {
    /// Keeps the membership from ending, for as long as the node runs.
    pub(super) async fn keep_membership(self: Arc<Self>) {
        let mut pause = PAUSE_MIN;
        while !self.stop.is_cancelled() {
            let wait = match self.renew_if_due().await {
                Ok(()) => {
                    pause = PAUSE_MIN;
                    LOOK_INTERVAL
                }
                Err(error) => {
                    self.complain(&error);
                    let wait = pause;
                    pause = (pause * 2).min(PAUSE_MAX);
                    wait
                }
            };
            let _stopping = self.stop.run_until_cancelled(sleep(wait)).await;
        }
    }

    /// Renews the membership if that is due.
    pub(super) async fn renew_if_due(&self) -> Result<(), RenewError> {
        let Some(member) = self.member() else { return Ok(()) };
        if renewal_due(&member.membership, self.clock.now().wall) {
            let renewed = self.renewed(&member).await?;
            self.take_membership(renewed).await;
        }
        Ok(())
    }

    fn complain(&self, error: &RenewError) {
        let expires = self.member().map(|member| tracing::field::display(member.membership.expires));
        warn!(expires, error = %Chain(error),
            "this node's membership ends soon and is not renewed yet: is the node that holds org.key up?");
    }

    /// The next membership, kept.
    async fn renewed(&self, member: &Member) -> Result<Member, RenewError> {
        let renewed = match Issuer::load(&self.dir, &member.membership.org)? {
            Some(issuer) => self.renew_here(&issuer, member).await?,
            None => self.renew_elsewhere(member).await?,
        };
        if renewed.chain != member.chain {
            org::save_chain(&self.dir, &renewed.membership.org, &renewed.chain)?;
        }
        org::save_membership(&self.dir, &renewed.membership)?;
        Ok(renewed)
    }

    async fn renew_here(&self, issuer: &Issuer, member: &Member) -> Result<Member, RenewError> {
        let (mesh, now) = (self.config.borrow().mesh.name.clone(), self.clock.now().wall);
        let membership = self.reception.roll.renew(issuer, &mesh, &member.membership, now).await?;
        let mut anchors = comity_protocol::trust::Anchors::new(mesh);
        anchors.pin(issuer.org().clone(), issuer.pin());
        anchors.learn(issuer.chain().clone()).map_err(|_| RenewError::ReadBack)?;
        let membership = anchors.verify_membership(&membership, now).map_err(|_| RenewError::ReadBack)?;
        Ok(Member { membership, chain: issuer.chain().clone() })
    }

    /// Asks nodes of the own org, connected ones first, until one renews.
    async fn renew_elsewhere(&self, member: &Member) -> Result<Member, RenewError> {
        let nobody = || RenewError::Nobody(member.membership.org.to_string());
        let (mesh, pin) = (self.mesh.get().ok_or_else(nobody)?, member.chain.pin().ok_or_else(nobody)?);
        let known = mesh.wait_until(|snapshot| !self.colleagues(snapshot, member).is_empty());
        // A node that has just started knows nobody yet.
        let snapshot = timeout(LOOK_INTERVAL, known).await.ok().flatten().ok_or_else(nobody)?;
        let renewal = Renewal::new(self.config.borrow().mesh.name.clone(), pin, member.membership.clone());
        let mut colleagues = self.colleagues(&snapshot, member);
        self.shuffle(&mut colleagues, &snapshot);
        for node in colleagues.into_iter().take(ASKED_MAX) {
            let asked = self.stop.run_until_cancelled(self.ask(&mesh, &snapshot, node, &renewal)).await;
            match asked {
                Some(Ok(Renewed { membership, roots })) => {
                    info!(by = %node, "an issuer of this org renewed the membership");
                    return Ok(Member { membership, chain: roots });
                }
                Some(Err(error)) => debug!(%node, error = %Chain(&error), "did not renew the membership"),
                None => break,
            }
        }
        Err(nobody())
    }

    /// The other nodes of this one's org.
    fn colleagues(&self, snapshot: &MeshSnapshot, member: &Member) -> Vec<NodeId> {
        let own_org = |entry: &comity_protocol::mesh::directory::Entry| *entry.org() == member.membership.org;
        let others =
            snapshot.nodes.iter().filter(|(node, entry)| **node != self.identity.node && own_org(entry));
        others.map(|(node, _)| *node).collect()
    }

    /// Another order each time, so that all are asked in the end; connected ones stay first.
    fn shuffle(&self, nodes: &mut [NodeId], snapshot: &MeshSnapshot) {
        match getrandom::u64() {
            Ok(at) if !nodes.is_empty() => nodes.rotate_left(at as usize % nodes.len()),
            Ok(_) => {}
            Err(error) => error!(%error, "the system has no randomness to give"),
        }
        nodes.sort_by_key(|node| !snapshot.linked().any(|peer| peer.node == *node));
    }

    async fn ask(
        &self,
        mesh: &MeshHandle,
        snapshot: &MeshSnapshot,
        node: NodeId,
        renewal: &Renewal,
    ) -> Result<Renewed, RenewError> {
        let advertised = snapshot.nodes.get(&node).map(|entry| entry.advert().addresses.as_slice());
        let mut outcome = Err(RenewError::NoAddress);
        for address in peer::addresses(advertised.unwrap_or_default()).into_iter().take(ADDRESSES_MAX) {
            match mesh.open_enrol(node, address).await {
                Ok(stream) => return Ok(exchange(Frames::new(stream), renewal, self.clock).await?),
                Err(error) => outcome = Err(error.into()),
            }
        }
        outcome
    }
}

async fn exchange<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut frames: Frames<S>,
    renewal: &Renewal,
    clock: crate::clock::Clock,
) -> Result<Renewed, EnrolError> {
    frames.send(&renewal.ask()).await.map_err(|_| EnrolError::Closed)?;
    let answer =
        timeout(STEP_TIMEOUT, frames.next(ENROL_FRAME_MAX)).await.map_err(|_| EnrolError::Timeout)?;
    let answer = answer.ok().flatten().ok_or(EnrolError::Closed)?;
    let renewed = renewal.handle_answer(&answer, clock.now());
    frames.finish().await;
    renewed
}

const _: () =
    assert!(PAUSE_MAX.as_secs() * 24 < MEMBERSHIP_LIFETIME_MAX.as_secs() / 2, "there are many attempts left");
