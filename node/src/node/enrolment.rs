//! Enrolment at a running node: invites that it makes, guests that come with them, and joins that it is asked for.

use std::sync::Arc;
use std::time::Duration;

use comity_protocol::enrol::{
    EnrolError, Enrolled as Granted, Frame, Guest, Host, Inviter, IssuedInvite, Question, Refusal,
    RefusalCode, Registrar, STEP_TIMEOUT, STRANGER_FRAME_MAX, Terms, Welcomed, Words,
};
use comity_protocol::geo::{CountrySet, resolve_place};
use comity_protocol::ids::{NodeId, OrgName, RootHash};
use comity_protocol::invite::{
    INVITE_ADDRESS_BYTES_MAX, INVITE_ADDRESSES_MAX, INVITE_LIFETIME_MAX, Invite, InviteId,
    InviteKind as LineKind, Token,
};
use comity_protocol::mesh::MeshRecord;
use comity_protocol::trust::{RoleSet, RootChain};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::identity::Member;
use super::{Shared, watchers};
use crate::config::edit;
use crate::config::mesh::PeerAddress;
use crate::config::setting::TextSetting as _;
use crate::config::trust::Approve;
use crate::control::messages::{
    ConfirmRequest, ControlFault, Event, FaultKind, InviteKind, InviteRequest, JoinRequest, Response,
};
use crate::control::reports::{Compare, Enrolled, Invitation, Line};
use crate::control::server::Events;
use crate::enrolment::book::IssueError;
use crate::enrolment::entry::{self, Entrant, Joined, Operator};
use crate::enrolment::frames::Frames;
use crate::enrolment::host::{self, Hosting, Visit};
use crate::enrolment::questions::Questions;
use crate::enrolment::reception::{Notice, Reception};
use crate::enrolment::roll::RollError;
use crate::mesh::enrol::ENROLMENT_DEADLINE;
use crate::mesh::persist::Persister as _;
use crate::mesh::{EnrolStream, IncomingEnrolment};
use crate::org::{self, Issuer};
use crate::telemetry::Chain;

/// How long a node that has just started may take to know at which addresses it can be dialled.
const ADDRESSES_WAIT: Duration = Duration::from_secs(5);

/// How long an answer waits for the edited configuration to be read back.
const LISTED_WAIT: Duration = Duration::from_secs(3);

fn fault(kind: FaultKind, message: impl Into<String>) -> ControlFault {
    ControlFault::new(kind, message)
}

fn failed(error: &dyn std::error::Error) -> ControlFault {
    fault(FaultKind::Failed, Chain(error).to_string())
}

/// Making invites.
impl Shared {
    /// Makes an invite and, if asked, waits for its guest.
    pub(super) async fn invite(
        &self,
        request: InviteRequest,
        events: Events,
    ) -> Result<Response, ControlFault> {
        let member = self.member().filter(|_| self.mesh.get().is_some()).ok_or_else(|| {
            fault(FaultKind::Usage, "this node is in no org, so it has nothing to invite to")
                .next("make an org with: comity org create NAME   or join one: comity join LINE")
        })?;
        let (kind, locations_max) = self.purpose(&request, &member)?;
        let addresses = self.line_addresses().await?;
        let terms = self.terms(&request, kind, locations_max);
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|error| failed(&error))?;
        let token = Token::from_bytes(token);
        let line = Invite {
            kind: terms.kind,
            mesh: self.config.borrow().mesh.name.clone(),
            inviter: self.identity.node,
            addresses,
            org: member.membership.org.clone(),
            root: member.chain.pin().ok_or_else(|| fault(FaultKind::Failed, "the org's roots are empty"))?,
            token: token.clone(),
            expires: terms.expires,
        };
        let (expires, line) = (terms.expires, line.to_line().map_err(|error| failed(&error))?);
        let issued = self.reception.book.issue(terms, token, self.clock.now().wall).await;
        let id = issued.map_err(|error| match error {
            IssueError::Ledger(error) => fault(FaultKind::Busy, error.to_string()),
            IssueError::Commit(error) => failed(&error),
        })?;
        info!(invite = %id, %expires, "made an invite");
        let waiting = request.wait.then(|| Waiting::begin(self, id));
        events
            .send(Event::Invitation(Invitation { line: Line::from(line), expires: expires.to_string() }))
            .await;
        match waiting {
            Some(waiting) => waiting.for_guest(request.lifetime, &events).await,
            None => Ok(Response::Done),
        }
    }

    /// What an invite is for, as far as this node may make it, and where a new member may process calls.
    fn purpose(
        &self,
        request: &InviteRequest,
        member: &Member,
    ) -> Result<(LineKind, CountrySet), ControlFault> {
        if request.lifetime.is_zero() || request.lifetime > INVITE_LIFETIME_MAX {
            return Err(fault(FaultKind::Usage, "an invite holds for up to seven days")
                .next("give a shorter time, such as: --expires 24h"));
        }
        match &request.kind {
            InviteKind::Member { locations } => {
                self.issuer(&member.membership.org)?;
                Ok((LineKind::Member, places(locations)?))
            }
            InviteKind::Federation { .. } => Ok((LineKind::Federate, CountrySet::EMPTY)),
        }
    }

    fn terms(&self, request: &InviteRequest, kind: LineKind, locations_max: CountrySet) -> Terms {
        let issued = self.clock.now().wall;
        Terms {
            kind,
            locations_max,
            roles: RoleSet::standard(),
            // Whoever waits is there to be asked.
            confirm: request.wait,
            issued,
            expires: issued + request.lifetime,
            approve_all: matches!(request.kind, InviteKind::Federation { approve: Approve::All }),
        }
    }

    fn issuer(&self, org: &OrgName) -> Result<Issuer, ControlFault> {
        let loaded = Issuer::load(&self.dir, org).map_err(|error| failed(&error))?;
        loaded.ok_or_else(|| {
            fault(
                FaultKind::Usage,
                format!("this machine does not hold the key of {org}, so it admits nobody"),
            )
            .next("run this where the org was created: that machine has org.key in its data directory")
        })
    }

    /// Where the line says that this node can be dialled. A node that has just started is given a moment to know.
    async fn line_addresses(&self) -> Result<Vec<String>, ControlFault> {
        if let Some(mesh) = self.mesh.get() {
            let known = mesh.wait_until(|snapshot| snapshot.nodes.contains_key(&self.identity.node));
            let _what_is_missing_is_seen_below = timeout(ADDRESSES_WAIT, known).await;
        }
        let snapshot = self.mesh.snapshot();
        let own = snapshot.nodes.get(&self.identity.node);
        let mut addresses = own.map(|entry| entry.advert().addresses.clone()).unwrap_or_default();
        addresses.retain(|address| address.len() <= INVITE_ADDRESS_BYTES_MAX);
        addresses.truncate(INVITE_ADDRESSES_MAX);
        if addresses.is_empty() {
            return Err(fault(FaultKind::Failed, "this node knows no address at which others can dial it")
                .next("name one in comity.toml: [mesh] external_addresses"));
        }
        Ok(addresses)
    }
}

fn places(texts: &[String]) -> Result<CountrySet, ControlFault> {
    texts.iter().try_fold(CountrySet::EMPTY, |all, text| {
        let place = resolve_place(text).map_err(|error| fault(FaultKind::Usage, error.to_string()))?;
        Ok(all.union(&place))
    })
}

/// Somebody at a command line who waits for a guest. When they go away the invite is void: nobody is left who could
/// compare the words.
struct Waiting<'a> {
    shared: &'a Shared,
    id: InviteId,
    notices: mpsc::Receiver<Notice>,
}

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Shared, id: InviteId) -> Self {
        Self { shared, id, notices: shared.reception.wait_for(id) }
    }

    async fn for_guest(mut self, lifetime: Duration, events: &Events) -> Result<Response, ControlFault> {
        let mut expiry = std::pin::pin!(sleep(lifetime));
        loop {
            let notice = tokio::select! {
                notice = self.notices.recv() => notice,
                () = &mut expiry => {
                    return Err(fault(FaultKind::Failed, "nobody used the invite before it expired")
                        .next("make another, and give it more time: comity invite --expires 1h"));
                }
            };
            match notice {
                Some(Notice::Compare(compare)) => events.send(Event::Compare(compare)).await,
                Some(Notice::Note(note)) => events.send(Event::Note(note)).await,
                Some(Notice::Welcomed(enrolled)) => return Ok(Response::Enrolled(enrolled)),
                Some(Notice::Declined) => {
                    return Err(fault(
                        FaultKind::Denied,
                        "the words were not confirmed, so the invite is void",
                    )
                    .next("if they differed somebody is between you: hand a new line over in another way"));
                }
                None => return Err(fault(FaultKind::Failed, "the node no longer waits for this invite")),
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.reception.leave(&self.id);
        let (reception, id) = (self.shared.reception.clone(), self.id);
        let now = self.shared.clock.now().wall;
        // One that was used stays as it is.
        self.shared.tasks.spawn(async move { revoke(&reception, id, now).await });
    }
}

async fn revoke(reception: &Reception, id: InviteId, now: comity_protocol::time::Wall) {
    match reception.book.revoke(&id, now).await {
        Ok(true) => info!(invite = %id, "an invite is void"),
        Ok(false) => {}
        Err(error) => error!(invite = %id, error = %Chain(&error), "an invite could not be made void"),
    }
}

/// Serving guests.
impl Shared {
    /// Serves everybody who comes to enrol, as many at once as the mesh lets in.
    pub(super) async fn serve_enrolments(self: Arc<Self>, mut incoming: mpsc::Receiver<IncomingEnrolment>) {
        while let Some(Some(enrolment)) = self.stop.run_until_cancelled(incoming.recv()).await {
            let shared = self.clone();
            self.tasks.spawn(async move {
                let served = timeout(ENROLMENT_DEADLINE, shared.serve_enrolment(enrolment));
                let _stopping_or_too_slow = shared.stop.run_until_cancelled(served).await;
            });
        }
    }

    async fn serve_enrolment(&self, enrolment: IncomingEnrolment) {
        let IncomingEnrolment { peer, stream } = enrolment;
        let mut frames = Frames::new(stream);
        let first = match timeout(STEP_TIMEOUT, frames.next(STRANGER_FRAME_MAX)).await {
            Ok(Ok(Some(first))) => first,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                info!(%peer, %error, "refused an enrolment");
                return;
            }
        };
        match Frame::decode(&first, STRANGER_FRAME_MAX) {
            Ok(Frame::Renew(shown)) => self.serve_renewal(peer, frames, &shown).await,
            // The machine answers whatever else it is, also what cannot be read.
            _ => self.serve_guest(peer, frames, &first).await,
        }
    }

    async fn serve_guest(&self, joiner: NodeId, mut frames: Frames<EnrolStream>, first: &[u8]) {
        let Some(member) = self.member() else { return };
        let (Some(host), mut nonce) = (self.host(&member), [0; 32]) else { return };
        if let Err(error) = getrandom::fill(&mut nonce) {
            error!(%error, "the system has no randomness to give");
            return;
        }
        let inviter = Inviter::new(Arc::new(host), joiner, nonce, self.clock.now());
        let door = Door { shared: self, joiner, member };
        let visit = host::host(&mut frames, first, inviter, &door, self.clock).await;
        self.note_visit(joiner, visit).await;
        frames.finish().await;
    }

    fn host(&self, member: &Member) -> Option<Host> {
        Some(Host {
            node: self.identity.node,
            mesh: self.config.borrow().mesh.name.clone(),
            org: member.membership.org.clone(),
            root: member.chain.pin()?,
            roots: member.chain.clone(),
            membership: member.membership.bytes().to_vec(),
            seeds: self.addresses(),
        })
    }

    /// Tells the log, and whoever waits, how a visit ended.
    async fn note_visit(&self, joiner: NodeId, visit: Visit) {
        let Visit { invite, words, outcome } = visit;
        let words = words.map(|words| words.join(" ")).unwrap_or_default();
        let invite_name = invite.map(tracing::field::display);
        let notice = match outcome {
            Ok(welcomed) => {
                let Welcomed { guest, acknowledged } = &*welcomed;
                info!(%joiner, invite = invite_name, words, acknowledged, "enrolled {}", describe(guest));
                Notice::Welcomed(self.enrolled(&welcomed))
            }
            Err(error) => {
                warn!(%joiner, invite = invite_name, words, error = %Chain(&error), "an enrolment came to nothing");
                let declined =
                    matches!(&error, EnrolError::WeRefused(refusal) if refusal.code == RefusalCode::Declined);
                if let Some(invite) = invite.filter(|_| declined) {
                    revoke(&self.reception, invite, self.clock.now().wall).await;
                    Notice::Declined
                } else {
                    Notice::Note(format!("node {joiner} came and nothing was granted: {error}"))
                }
            }
        };
        if let Some(invite) = invite {
            self.reception.tell(&invite, notice).await;
        }
    }

    fn enrolled(&self, welcomed: &Welcomed) -> Enrolled {
        let (node, org, root, next) = match &welcomed.guest {
            Guest::Member { node, .. } => {
                let member = self.member();
                let org = member.as_ref().map(|member| member.membership.org.to_string()).unwrap_or_default();
                let root = member.and_then(|member| member.chain.pin()).map(|root| root.to_string());
                (
                    node,
                    org,
                    root.unwrap_or_default(),
                    "once it runs (comity up there), it shows in: comity peers",
                )
            }
            Guest::Org { node, org, root, .. } => {
                let next = "look at its tools: comity tools   then: comity tools approve";
                (node, org.to_string(), root.to_string(), next)
            }
        };
        let next = match welcomed.acknowledged {
            true => next.to_owned(),
            false => format!(
                "the other side has not said that it stored this; if it failed, run `comity join` there again\n{next}"
            ),
        };
        Enrolled { org, root, node: node.to_string(), next }
    }

    async fn serve_renewal(&self, member: NodeId, mut frames: Frames<EnrolStream>, shown: &[u8]) {
        let answer = match self.renew_other(member, shown).await {
            Ok(answer) => {
                info!(peer = %member, "renewed a member's membership");
                answer
            }
            Err(refusal) => {
                info!(peer = %member, reason = %refusal, "refused to renew a membership");
                Frame::Refuse(refusal).encode()
            }
        };
        if frames.send(&answer).await.is_ok() {
            frames.finish().await;
        }
    }

    async fn renew_other(&self, node: NodeId, shown: &[u8]) -> Result<Vec<u8>, Refusal> {
        let internal = |error: &dyn std::error::Error| {
            error!(peer = %node, error = %Chain(error), "cannot renew a membership");
            Refusal::from(RefusalCode::Internal)
        };
        let org = self.member().ok_or(RefusalCode::NotIssuer)?.membership.org.clone();
        let issuer = Issuer::load(&self.dir, &org).map_err(|error| internal(&error))?;
        let issuer = issuer.ok_or(RefusalCode::NotIssuer)?;
        let mesh = self.config.borrow().mesh.name.clone();
        let registrar = Registrar { mesh: &mesh, roots: issuer.chain() };
        let now = self.clock.now();
        let old = registrar.check(shown, node, now)?;
        if self.config.borrow().revoked.contains(&node) {
            return Err(Refusal::new(RefusalCode::Introduction, "this node was revoked"));
        }
        let renewed = self.reception.roll.renew(&issuer, &mesh, &old, now.wall).await;
        Ok(registrar.grant(renewed.map_err(|error| internal(&error))?))
    }
}

fn describe(guest: &Guest) -> String {
    match guest {
        Guest::Member { node, name, locations, .. } if locations.is_empty() => format!("{name} ({node})"),
        Guest::Member { node, name, locations, .. } => format!("{name} in {locations} ({node})"),
        Guest::Org { node, org, root, .. } => format!("node {node} of {org} ({root})"),
    }
}

/// What the node does for the machine of one guest.
struct Door<'a> {
    shared: &'a Shared,
    joiner: NodeId,
    member: Member,
}

impl Hosting for Door<'_> {
    fn find(&self, invite: InviteId) -> Result<IssuedInvite, RefusalCode> {
        if self.shared.config.borrow().revoked.contains(&self.joiner) {
            return Err(RefusalCode::Introduction);
        }
        self.shared.reception.book.find(&invite, &self.joiner, self.shared.clock.now().wall)
    }

    async fn count_failure(&self, invite: InviteId) {
        let counted = self.shared.reception.book.count_failure(&invite, self.shared.clock.now().wall).await;
        if let Err(error) = counted {
            error!(%invite, error = %Chain(&error), "a wrong proof could not be counted");
        }
    }

    async fn confirm(&self, invite: InviteId, question: Question) -> bool {
        let reception = &self.shared.reception;
        let Some(mut asked) = reception.questions.ask() else { return false };
        let compare = compare(&asked.id, &question.words, describe(&question.guest));
        reception.tell(&invite, Notice::Compare(compare)).await && asked.answer().await
    }

    async fn consume(&self, invite: InviteId) -> Result<(), RefusalCode> {
        let now = self.shared.clock.now().wall;
        let consumed = self.shared.reception.book.consume(&invite, self.joiner, now).await;
        consumed.unwrap_or_else(|error| {
            error!(%invite, error = %Chain(&error), "an invite could not be used up");
            Err(RefusalCode::Internal)
        })
    }

    async fn fulfil(&self, invite: InviteId, guest: Guest) -> Result<Option<Vec<u8>>, String> {
        let terms = self.shared.reception.book.terms(&invite).ok_or("the invite was forgotten")?;
        match guest {
            Guest::Member { node, .. } => self.admit(node, terms.locations_max).await.map(Some),
            Guest::Org { node, org, root, roots, seeds } => {
                let approve = if terms.approve_all { Approve::All } else { Approve::None };
                let peers = seeds.iter().filter_map(|seed| PeerAddress::from_text(seed).ok());
                // A hint is taken for the node that gave it, and for no other.
                let peers = peers.filter(|peer| peer.node == node).take(entry::PEERS_ADDED_MAX).collect();
                self.shared.federate(org, root, roots, peers, approve).await.map(|()| None)
            }
        }
    }
}

impl Door<'_> {
    async fn admit(&self, node: NodeId, places: CountrySet) -> Result<Vec<u8>, String> {
        let shared = self.shared;
        let issuer = shared.issuer(&self.member.membership.org).map_err(|fault| fault.to_string())?;
        let (mesh, now) = (shared.config.borrow().mesh.name.clone(), shared.clock.now().wall);
        let admitted = shared.reception.roll.admit(&issuer, &mesh, node, places, now).await;
        let text = |error: RollError| Chain(&error).to_string();
        admitted.map(|membership| membership.bytes().to_vec()).map_err(text)
    }
}

fn compare(id: &str, words: &Words, other: String) -> Compare {
    Compare {
        id: id.to_owned(),
        words: words.iter().map(|&word| word.to_owned()).collect(),
        other,
        confirm: true,
    }
}

/// Federating and joining.
impl Shared {
    /// Pins another org: in the configuration, where the operator finds it, and in the running mesh.
    async fn federate(
        &self,
        org: OrgName,
        root: RootHash,
        roots: RootChain,
        peers: Vec<PeerAddress>,
        approve: Approve,
    ) -> Result<(), String> {
        let (path, dir) = (self.config_path.clone(), self.dir.clone());
        let (name, chain, seeds) = (org.clone(), roots.clone(), peers.clone());
        let write = move || {
            edit::pin_org(&path, &name, root, approve).map_err(|error| Chain(&error).to_string())?;
            edit::add_peers(&path, &seeds).map_err(|error| Chain(&error).to_string())?;
            org::save_chain(&dir, &name, &chain).map_err(|error| Chain(&error).to_string())
        };
        tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())??;
        self.take_org(&org, root, &roots, &peers).await;
        Ok(())
    }

    /// Tells the running mesh of an org that was pinned just now, without waiting for the file to be read again.
    async fn take_org(&self, org: &OrgName, root: RootHash, roots: &RootChain, peers: &[PeerAddress]) {
        let record = MeshRecord::Roots { org: org.clone(), bytes: roots.encode() };
        if let Err(error) = self.keeping.mesh.persist(vec![record]).await {
            // It comes again with the first of the org's nodes.
            warn!(%org, error = %Chain(&*error), "the root of an org could not be kept");
        }
        let Some(mesh) = self.mesh.get() else { return };
        info!(%org, %root, "org pinned");
        mesh.pin(org.clone(), root).await;
        for peer in peers {
            mesh.add_seed(watchers::seed(peer)).await;
        }
        // Whoever asks next is to find it listed. The file is what counts, so a slow watcher only delays.
        let mut config = self.config.clone();
        let listed = config.wait_for(|config| config.trust.iter().any(|pinned| pinned.name == *org));
        let _listed_later = timeout(LISTED_WAIT, listed).await;
    }

    /// Accepts an invite on behalf of the command line.
    pub(super) async fn join(&self, request: JoinRequest, events: Events) -> Result<Response, ControlFault> {
        let entrant = Entrant {
            dir: self.dir.clone(),
            config_path: self.config_path.clone(),
            clock: self.clock,
            seeds: self.addresses(),
        };
        let line = AtControl { questions: self.reception.questions.clone(), events };
        let joined = entry::join(&entrant, request.line.expose(), request.approve, &line).await?;
        let Granted { org, root, inviter, .. } = &joined.granted;
        info!(%org, %root, %inviter, "enrolled");
        Ok(Response::Enrolled(self.take_joined(joined).await))
    }

    async fn take_joined(&self, joined: Joined) -> Enrolled {
        if joined.granted.membership.is_some() {
            self.restart_soon();
            return joined.report("the node starts again as a member, by itself; then look: comity status");
        }
        let Granted { org, root, roots, .. } = &joined.granted;
        self.take_org(org, *root, roots, &joined.peers).await;
        joined.report("look at its tools: comity tools   then: comity tools approve")
    }

    /// Answers a comparison of words.
    pub(super) fn confirm(&self, request: &ConfirmRequest) -> Result<Response, ControlFault> {
        match self.reception.questions.answer(&request.id, request.same) {
            true => Ok(Response::Done),
            false => {
                Err(fault(FaultKind::NotFound, "the other side has gone, so there is nothing to confirm")
                    .next("run `comity join` there again"))
            }
        }
    }
}

/// The operator behind the control socket.
struct AtControl {
    questions: Questions,
    events: Events,
}

impl Operator for AtControl {
    async fn compare(&self, words: Words, other: &str) -> bool {
        let Some(mut asked) = self.questions.ask() else { return false };
        self.events.send(Event::Compare(compare(&asked.id, &words, other.to_owned()))).await;
        asked.answer().await
    }

    async fn tell(&self, note: String) {
        self.events.send(Event::Note(note)).await;
    }
}

#[cfg(test)]
mod tests;
