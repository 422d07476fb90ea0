//! Whole nodes in one process, over real sockets on loopback: invited, refused, federated, renewed.

use std::sync::Mutex;

use comity_protocol::invite::InviteError;
use comity_protocol::time::Wall;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::Clock;
use crate::config::NodeConfig;
use crate::control::reports::Line;
use crate::control::{ClientError, ControlClient, Request};
use crate::enrolment::entry::JoinError;
use crate::enrolment::guest::VisitError;
use crate::identity::{DataDir, create_key, load_key, node_id};
use crate::mesh::stranger::StrangerError;
use crate::node::{End, Node, RunError};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const PATIENCE: Duration = Duration::from_secs(60);
const ACME: &str = "acme.example";
const BETA: &str = "beta.example";

/// Where a node lives, whether or not it runs.
struct Site {
    _temp: TempDir,
    dir: DataDir,
}

impl Site {
    /// A node that has just been initialised, in `mesh`.
    fn new(name: &str, mesh: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::locate(Some(temp.path().join("data"))).unwrap();
        dir.create().unwrap();
        create_key(&dir.node_key()).unwrap();
        let config = format!(
            "[node]\nname = \"{name}\"\n\n[site]\nprocessing_locations = [\"DE\"]\noperator_country = \"DE\"\n\n\
             [mesh]\nname = \"{mesh}\"\nlisten = [\"/ip4/127.0.0.1/udp/0/quic-v1\", \"/ip4/127.0.0.1/tcp/0\"]\n\n\
             [mcp]\nlisten = \"127.0.0.1:0\"\n\n[admin]\nlisten = \"127.0.0.1:0\"\n"
        );
        std::fs::write(dir.config(), config).unwrap();
        Self { _temp: temp, dir }
    }

    /// The first node of `org`, which holds its key.
    fn issuer(org: &str, mesh: &str) -> Self {
        let site = Self::new("issuer", mesh);
        let issuer = org::create(&site.dir, &org.parse().unwrap(), now()).unwrap();
        site.admit(&issuer, site.node(), now());
        site
    }

    /// Makes `node` a member as `comity org admit` does, at `at`.
    fn admit(&self, issuer: &Issuer, node: NodeId, at: Wall) {
        let mesh = self.config().mesh.name;
        let membership = issuer.admit(&mesh, node, places(&["DE".into()]).unwrap(), at).unwrap();
        edit::set(&self.dir.config(), "org", "name", issuer.org().as_str()).unwrap();
        org::save_chain(&self.dir, issuer.org(), issuer.chain()).unwrap();
        org::save_membership(&self.dir, &membership).unwrap();
    }

    fn node(&self) -> NodeId {
        node_id(&load_key(&self.dir.node_key()).unwrap())
    }

    fn config(&self) -> NodeConfig {
        NodeConfig::load(&self.dir.config()).unwrap().config
    }

    async fn start(&self) -> Running {
        let stop = CancellationToken::new();
        let node =
            Node::start(self.dir.clone(), self.dir.config(), self.config(), stop.clone()).await.unwrap();
        let (shared, dir) = (node.shared.clone(), self.dir.clone());
        Running { shared, dir, stop, run: tokio::spawn(node.run()) }
    }

    fn entrant(&self) -> Entrant {
        let (dir, config_path) = (self.dir.clone(), self.dir.config());
        Entrant { dir, config_path, clock: Clock::start(), seeds: Vec::new() }
    }

    /// Joins without a node, with an operator who says `same`.
    async fn join(&self, line: &str, same: bool) -> Result<Words, JoinError> {
        let operator = Person { same, words: Mutex::default() };
        entry::join(&self.entrant(), line, Approve::None, &operator).await?;
        Ok(operator.words.into_inner().unwrap().expect("the words were shown"))
    }

    /// Why a join was refused by the other side.
    async fn refusal(&self, line: &str) -> RefusalCode {
        match self.join(line, true).await {
            Err(JoinError::Visit(VisitError::Enrol(EnrolError::Refused(refusal)))) => refusal.code,
            other => panic!("{other:?}"),
        }
    }
}

fn now() -> Wall {
    Clock::start().now().wall
}

struct Person {
    same: bool,
    words: Mutex<Option<Words>>,
}

impl Operator for Person {
    async fn compare(&self, words: Words, _: &str) -> bool {
        *self.words.lock().unwrap() = Some(words);
        self.same
    }

    async fn tell(&self, _: String) {}
}

/// A node that runs.
struct Running {
    shared: Arc<Shared>,
    dir: DataDir,
    stop: CancellationToken,
    run: JoinHandle<Result<End, RunError>>,
}

impl Running {
    async fn ask(&self, request: Request) -> Result<Response, ClientError> {
        ControlClient::connect(&self.dir.socket()).unwrap().request(&request, |_| ()).await
    }

    /// Joins through the node, with an operator who says that the words are the same.
    async fn join(&self, line: String) -> (Enrolled, Vec<Vec<String>>) {
        let (socket, mut words) = (self.dir.socket(), Vec::new());
        let request = JoinRequest { line: Line::from(line), approve: Approve::None };
        assert!(!format!("{request:?}").contains("comity1:"), "a line is never shown by accident");
        let client = ControlClient::connect(&socket).unwrap();
        let request = Request::Join(request);
        let joined = client.request(&request, |event| {
            if let Event::Compare(compare) = event {
                words.push(compare.words.clone());
                tokio::spawn(confirm(socket.clone(), compare.id, true));
            }
        });
        match joined.await.unwrap() {
            Response::Enrolled(enrolled) => (enrolled, words),
            other => panic!("{other:?}"),
        }
    }

    /// Why it makes no invite.
    async fn makes_no_invite(&self, kind: InviteKind) -> String {
        let request = InviteRequest { kind, lifetime: DAY, wait: false };
        self.ask(Request::Invite(request)).await.unwrap_err().to_string()
    }

    /// A line that is used without a comparison of words.
    async fn line(&self, kind: InviteKind) -> String {
        let request = InviteRequest { kind, lifetime: DAY, wait: false };
        let mut line = None;
        let client = ControlClient::connect(&self.dir.socket()).unwrap();
        let answer = client.request(&Request::Invite(request), |event| line = as_line(event)).await;
        assert!(matches!(answer, Ok(Response::Done)), "{answer:?}");
        line.expect("an invitation")
    }

    /// A line whose guest is waited for, by an operator who says `same` to each comparison.
    async fn wait_for_guest(&self, kind: InviteKind, lifetime: Duration, same: bool) -> Inviting {
        let request = Request::Invite(InviteRequest { kind, lifetime, wait: true });
        let (tell, told) = oneshot::channel();
        let (socket, words) = (self.dir.socket(), Arc::new(Mutex::new(Vec::new())));
        let seen = words.clone();
        let answer = tokio::spawn(async move {
            let mut tell = Some(tell);
            let client = ControlClient::connect(&socket).unwrap();
            let answer = client.request(&request, |event| match event {
                Event::Compare(compare) => {
                    seen.lock().unwrap().push(compare.words.clone());
                    tokio::spawn(confirm(socket.clone(), compare.id, same));
                }
                event => {
                    if let (Some(line), Some(tell)) = (as_line(event), tell.take()) {
                        tell.send(line).unwrap();
                    }
                }
            });
            answer.await
        });
        Inviting { line: told.await.unwrap(), words, answer }
    }

    async fn wait_for_peer(&self, peer: NodeId) {
        let mesh = self.shared.mesh.get().expect("a member has a mesh");
        let linked = mesh.wait_until(|snapshot| snapshot.linked().any(|linked| linked.node == peer));
        timeout(PATIENCE, linked).await.expect("linked in time").expect("running");
    }

    fn invite_of(&self, line: &str) -> InviteId {
        let _ = self;
        Invite::parse(line).unwrap().token.id()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.run.await.unwrap().unwrap();
    }
}

async fn confirm(socket: std::path::PathBuf, id: String, same: bool) {
    let request = Request::Confirm(ConfirmRequest { id, same });
    ControlClient::connect(&socket).unwrap().request(&request, |_| ()).await.unwrap();
}

fn as_line(event: Event) -> Option<String> {
    match event {
        Event::Invitation(invitation) => Some(invitation.line.expose().to_owned()),
        _ => None,
    }
}

/// Somebody at a command line who waits for a guest.
struct Inviting {
    line: String,
    words: Arc<Mutex<Vec<Vec<String>>>>,
    answer: JoinHandle<Result<Response, ClientError>>,
}

impl Inviting {
    async fn enrolled(self) -> (Enrolled, Vec<Vec<String>>) {
        match self.answer.await.unwrap().unwrap() {
            Response::Enrolled(enrolled) => {
                (enrolled, Arc::into_inner(self.words).unwrap().into_inner().unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    async fn fault(self) -> ControlFault {
        match self.answer.await.unwrap() {
            Err(ClientError::Fault(fault)) => fault,
            other => panic!("{other:?}"),
        }
    }
}

fn member(places: &[&str]) -> InviteKind {
    InviteKind::Member { locations: places.iter().map(|&place| place.to_owned()).collect() }
}

fn federation() -> InviteKind {
    InviteKind::Federation { approve: Approve::All }
}

/// The line with another list of addresses.
fn redirected(line: &str, change: impl FnOnce(&mut Vec<String>)) -> String {
    let mut invite = Invite::parse(line).unwrap();
    change(&mut invite.addresses);
    invite.to_line().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_and_takes_part_in_the_mesh() {
    let (acme, new) = (Site::issuer(ACME, "tests"), Site::new("berlin-2", "comity"));
    let issuer = acme.start().await;
    let inviting = issuer.wait_for_guest(member(&["EU"]), DAY, true).await;
    let words = new.join(&inviting.line, true).await.unwrap();
    let (enrolled, shown) = inviting.enrolled().await;
    assert_eq!(shown, [words.map(str::to_owned).to_vec()], "both sides showed the same words, once");
    assert_eq!((enrolled.org.as_str(), enrolled.node), (ACME, new.node().to_string()));

    let stored = org::load_membership(&new.dir).unwrap().unwrap();
    let issued = issuer.shared.keeping.store.issued().get(&stored.claimed().serial).unwrap().unwrap();
    assert_eq!(issued.certificate, stored.bytes().to_vec(), "what was issued is on record");
    assert_eq!(stored.claimed().locations_max, resolve_place("EU").unwrap());
    let config = new.config();
    assert_eq!((config.org.unwrap().as_str(), config.mesh.name.as_str()), (ACME, "tests"));
    assert!(config.mesh.peers.iter().any(|peer| peer.node == acme.node()));

    let started = new.start().await;
    started.wait_for_peer(acme.node()).await;
    issuer.wait_for_peer(new.node()).await;
    started.stop().await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_come_with_one_line_one_is_let_in() {
    let acme = Site::issuer(ACME, "comity");
    let (first, second) = (Site::new("first", "comity"), Site::new("second", "comity"));
    let issuer = acme.start().await;
    let line = issuer.line(member(&["DE"])).await;
    let (one, two) = tokio::join!(first.join(&line, true), second.join(&line, true));
    let (winner, loser, lost) = match (one, two) {
        (Ok(_), Err(lost)) => (&first, &second, lost),
        (Err(lost), Ok(_)) => (&second, &first, lost),
        other => panic!("{other:?}"),
    };
    assert!(lost.to_string().contains("used by another node"), "{lost}");
    assert!(org::load_membership(&loser.dir).unwrap().is_none(), "nothing was stored");
    winner.join(&line, true).await.expect("an answer may have been lost: its own node may come again");
    assert_eq!(loser.refusal(&line).await, RefusalCode::Used);

    let taken = Site::new("greedy", "comity");
    let narrow = issuer.line(member(&["FR"])).await;
    assert_eq!(taken.refusal(&narrow).await, RefusalCode::Locations, "its site is in DE");
    let forged = Invite { token: Token::from_bytes([1; 16]), ..Invite::parse(&narrow).unwrap() };
    assert_eq!(taken.refusal(&forged.to_line().unwrap()).await, RefusalCode::Unknown);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_that_has_expired_lets_nobody_in() {
    let (acme, new) = (Site::issuer(ACME, "comity"), Site::new("late", "comity"));
    let issuer = acme.start().await;
    let inviting = issuer.wait_for_guest(member(&["DE"]), Duration::from_millis(500), true).await;
    let expired = Invite::parse(&inviting.line).unwrap();
    let fault = Inviting { line: String::new(), ..inviting }.fault().await;
    assert!(fault.message.contains("nobody used the invite"), "{fault}");
    // The line's own date may be changed by whoever holds it; the inviter's ledger is not.
    let refused = new.join(&expired.to_line().unwrap(), true).await.unwrap_err();
    assert!(
        matches!(&refused, JoinError::Visit(VisitError::Enrol(EnrolError::Invite(InviteError::Expired(_))))),
        "{refused}"
    );
    let longer = Invite { expires: now() + DAY, ..expired };
    let code = new.refusal(&longer.to_line().unwrap()).await;
    assert!(matches!(code, RefusalCode::Expired | RefusalCode::Void), "{code:?}");
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_at_the_address_is_refused_by_the_transport() {
    let (acme, other) = (Site::issuer(ACME, "comity"), Site::issuer(BETA, "comity"));
    let new = Site::new("new", "comity");
    let (issuer, middle) = (acme.start().await, other.start().await);
    let line = issuer.line(member(&["DE"])).await;
    let elsewhere = middle.shared.line_addresses().await.unwrap();
    let diverted = redirected(&line, |addresses| *addresses = elsewhere.clone());
    let refused = new.join(&diverted, true).await.unwrap_err();
    assert!(matches!(refused, JoinError::Reach(StrangerError::OtherKey { .. })), "{refused}");
    assert_eq!(ControlFault::from(refused).kind, FaultKind::Denied);
    assert!(org::load_membership(&new.dir).unwrap().is_none());

    let mixed = redirected(&line, |addresses| addresses.splice(0..0, elsewhere).for_each(drop));
    new.join(&mixed, true).await.expect("the address at which the right key answers is found");
    let nowhere = redirected(&line, |addresses| *addresses = vec!["/ip4/127.0.0.1/tcp/1".into()]);
    let unreached = ControlFault::from(new.join(&nowhere, true).await.unwrap_err());
    assert_eq!(unreached.kind, FaultKind::Unreachable);
    issuer.stop().await;
    middle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inviter_that_dies_before_it_grants_lets_the_same_node_come_again() {
    let acme = Site::issuer(ACME, "comity");
    let (first, second) = (Site::new("first", "comity"), Site::new("second", "comity"));
    let issuer = acme.start().await;
    let line = issuer.line(member(&["DE"])).await;
    // As far as the invite's use is durable, and no further.
    let used = issuer.shared.reception.book.consume(&issuer.invite_of(&line), first.node(), now()).await;
    used.unwrap().unwrap();
    issuer.stop().await;

    let issuer = acme.start().await;
    let addresses = issuer.shared.line_addresses().await.unwrap();
    let line = redirected(&line, |old| *old = addresses);
    assert_eq!(second.refusal(&line).await, RefusalCode::Used);
    first.join(&line, true).await.expect("the answer never left, so it comes again");
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_that_differ_end_it_on_either_side() {
    let (acme, new) = (Site::issuer(ACME, "comity"), Site::new("new", "comity"));
    let issuer = acme.start().await;
    let inviting = issuer.wait_for_guest(member(&["DE"]), DAY, false).await;
    let line = inviting.line.clone();
    assert_eq!(new.refusal(&line).await, RefusalCode::Declined);
    assert_eq!(inviting.fault().await.kind, FaultKind::Denied);
    assert_eq!(new.refusal(&line).await, RefusalCode::Void, "a line over which words differed is void");

    let inviting = issuer.wait_for_guest(member(&["DE"]), DAY, true).await;
    let declined = new.join(&inviting.line, false).await.unwrap_err();
    assert!(matches!(declined, JoinError::Visit(VisitError::Declined)), "{declined}");
    assert!(org::load_membership(&new.dir).unwrap().is_none(), "nothing was stored");
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_whose_operator_has_gone_is_void() {
    let (acme, new) = (Site::issuer(ACME, "comity"), Site::new("new", "comity"));
    let issuer = acme.start().await;
    let inviting = issuer.wait_for_guest(member(&["DE"]), DAY, true).await;
    inviting.answer.abort();
    let (book, id) = (&issuer.shared.reception.book, issuer.invite_of(&inviting.line));
    until(|| book.find(&id, &new.node(), now()).is_err()).await;
    assert_eq!(new.refusal(&inviting.line).await, RefusalCode::Void);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_orgs_federate_while_both_run() {
    let (acme, beta) = (Site::issuer(ACME, "comity"), Site::issuer(BETA, "comity"));
    let (a, b) = (acme.start().await, beta.start().await);
    let inviting = a.wait_for_guest(federation(), DAY, true).await;
    let (joined, shown) = b.join(inviting.line.clone()).await;
    let (enrolled, words) = inviting.enrolled().await;
    assert_eq!((joined.org.as_str(), enrolled.org.as_str()), (ACME, BETA));
    assert_eq!(shown, words, "both sides showed the same words, once");

    a.wait_for_peer(beta.node()).await;
    b.wait_for_peer(acme.node()).await;
    for (running, other, root, approve) in
        [(&a, BETA, &enrolled.root, Approve::All), (&b, ACME, &joined.root, Approve::None)]
    {
        let Ok(Response::Trust(trusted)) = running.ask(Request::Trust).await else { panic!() };
        let pinned = trusted.iter().find(|org| org.org == other).expect("it is listed");
        assert_eq!((&pinned.root, pinned.approve), (root, approve));
    }
    edit::unpin_org(&acme.dir.config(), &BETA.parse().unwrap()).expect("what was pinned can be unpinned");
    let gone = a.shared.mesh.get().unwrap();
    let gone = gone.wait_until(|snapshot| snapshot.linked().all(|peer| peer.node != beta.node()));
    timeout(PATIENCE, gone).await.unwrap().unwrap();
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_org_federates_before_its_node_runs() {
    let (acme, beta) = (Site::issuer(ACME, "comity"), Site::issuer(BETA, "comity"));
    let a = acme.start().await;
    let line = a.line(federation()).await;
    let own = acme.join(&line, true).await.unwrap_err();
    assert!(own.to_string().contains("this node's own invite"), "{own}");
    let lone = Site::new("lone", "comity").join(&line, true).await.unwrap_err();
    assert!(matches!(lone, JoinError::NoOrg(_)), "{lone}");
    let elsewhere = Site::issuer(BETA, "other").join(&line, true).await.unwrap_err();
    assert!(matches!(elsewhere, JoinError::OtherMesh { .. }), "{elsewhere}");

    beta.join(&line, true).await.unwrap();
    let b = beta.start().await;
    b.wait_for_peer(acme.node()).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_runs_without_an_org_joins_and_starts_again() {
    let (acme, new) = (Site::issuer(ACME, "comity"), Site::new("new", "comity"));
    let (issuer, lonely) = (acme.start().await, new.start().await);
    assert!(lonely.makes_no_invite(federation()).await.contains("in no org"));
    let line = issuer.line(member(&["DE"])).await;
    lonely.join(line).await;
    assert_eq!(timeout(PATIENCE, lonely.run).await.unwrap().unwrap().unwrap(), End::Restart);
    let started = new.start().await;
    started.wait_for_peer(acme.node()).await;

    assert!(started.makes_no_invite(member(&["DE"])).await.contains("does not hold the key"));
    issuer.stop().await;
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_membership_past_half_of_its_life_is_renewed_by_itself() {
    let acme = Site::issuer(ACME, "comity");
    let (plain, old) = (Site::new("plain", "comity"), Site::new("old", "comity"));
    let key = Issuer::load(&acme.dir, &ACME.parse().unwrap()).unwrap().unwrap();
    let long_ago = Wall::from_millis(now().as_millis() - 4 * u64::try_from(DAY.as_millis()).unwrap());
    plain.admit(&key, plain.node(), now());
    // The root is from long ago too, as far as the membership is concerned: only its end is checked.
    old.admit(&key, old.node(), long_ago);
    let before = org::load_membership(&old.dir).unwrap().unwrap().claimed().clone();

    let issuer = acme.start().await;
    let peers: Vec<_> = issuer.shared.line_addresses().await.unwrap();
    let peers: Vec<_> = peers
        .iter()
        .map(|address| PeerAddress { node: acme.node(), address: address.parse().unwrap() })
        .collect();
    for site in [&plain, &old] {
        edit::add_peers(&site.dir.config(), &peers).unwrap();
    }
    // A colleague without the org's key is asked too, and passes it on to others.
    let colleague = plain.start().await;
    colleague.wait_for_peer(acme.node()).await;
    let member = old.start().await;
    let renewed = || org::load_membership(&old.dir).unwrap().unwrap().claimed().clone();
    until(|| renewed().expires > before.expires).await;
    let after = renewed();
    assert_eq!((after.epoch, after.locations_max), (before.epoch, before.locations_max));
    let record = issuer.shared.keeping.store.issued().get(&after.serial).unwrap();
    assert!(record.is_some(), "the issuer has it on record");
    let refused = colleague.shared.renew_other(old.node(), &[]).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::NotIssuer);
    member.wait_for_peer(acme.node()).await;
    for running in [member, colleague, issuer] {
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_renews_its_own_membership_while_it_runs_and_tells_the_mesh() {
    let acme = Site::issuer(ACME, "comity");
    let key = Issuer::load(&acme.dir, &ACME.parse().unwrap()).unwrap().unwrap();
    let long_ago = Wall::from_millis(now().as_millis() - 4 * u64::try_from(DAY.as_millis()).unwrap());
    acme.admit(&key, acme.node(), long_ago);
    let running = acme.start().await;
    // Renewed at the start; so that it is due once more, a later admission of then is put in its place.
    acme.admit(&key, acme.node(), long_ago + Duration::from_secs(1));
    let due = org::load_membership(&acme.dir).unwrap().unwrap().claimed().clone();
    let mut used = running.shared.member.subscribe();
    let taken = used.wait_for(|used| used.as_ref().is_some_and(|used| used.membership.serial == due.serial));
    timeout(PATIENCE, taken).await.expect("what is put there by hand is taken up").unwrap();
    running.shared.renew_if_due().await.unwrap();
    let after = org::load_membership(&acme.dir).unwrap().unwrap().claimed().clone();
    assert!(after.expires > due.expires && after.epoch == due.epoch);
    assert!(running.shared.keeping.store.issued().get(&after.serial).unwrap().is_some(), "it is on the roll");
    let mesh = running.shared.mesh.get().unwrap();
    let advertised = mesh.wait_until(|snapshot| {
        let own = snapshot.nodes.get(&acme.node());
        own.is_some_and(|entry| entry.trusted.membership.serial == after.serial)
    });
    timeout(PATIENCE, advertised).await.unwrap().unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_revoked_is_neither_renewed_nor_admitted_again() {
    let (acme, gone) = (Site::issuer(ACME, "comity"), Site::new("gone", "comity"));
    let issuer = acme.start().await;
    gone.join(&issuer.line(member(&["DE"])).await, true).await.unwrap();
    let shown = org::load_membership(&gone.dir).unwrap().unwrap().bytes().to_vec();
    issuer.shared.renew_other(gone.node(), &shown).await.expect("a member");

    edit::revoke_node(&acme.dir.config(), gone.node()).unwrap();
    let mut config = issuer.shared.config.clone();
    let read = config.wait_for(|config| config.revoked.contains(&gone.node()));
    timeout(PATIENCE, read).await.unwrap().unwrap();
    let refused = issuer.shared.renew_other(gone.node(), &shown).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.detail().as_str()),
        (RefusalCode::Introduction, "this node was revoked")
    );
    assert_eq!(gone.refusal(&issuer.line(member(&["DE"])).await).await, RefusalCode::Introduction);
    issuer.stop().await;
}

/// Waits until it `holds`.
async fn until(holds: impl Fn() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("it holds in time");
}
