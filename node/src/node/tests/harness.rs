//! Orgs, nodes and calls for tests, made in a line.

use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use comity_protocol::catalogue::Catalogue;
use comity_protocol::geo::CountrySet;
use comity_protocol::ids::{Kind, MeshName, NodeId, OrgName};
use comity_protocol::json::{self, RawObject};
use comity_protocol::testing::places;
use comity_protocol::trust::{Membership, Verified};
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::calls::CallGateway;
use crate::clock::Clock;
use crate::config::NodeConfig;
use crate::exchange::{Exchange, Failure, Incoming, Outcome};
use crate::face::tests::client::Client;
use crate::gateway::{CallerContext, ClientProfile, Endpoint, Gateway, GatewayRequest, Target, new_call_id};
use crate::identity::{DataDir, create_key, node_id};
use crate::node::{End, Node, RunError, Shared};
use crate::org::{self, Issuer};
use crate::world::World;

const SERVER: &str = include_str!("server.py");
const MODERN_SERVER: &str = include_str!("modern.py");

/// Fails the test when `future` takes longer than any machine should need.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}

/// Waits until `holds` gives something.
pub(super) async fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = holds() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Shows what the nodes of a test log where `COMITY_LOG` says what to show.
fn log() {
    if let Ok(filter) = std::env::var("COMITY_LOG") {
        // The first test of a process has set it up for all.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
    }
}

pub(super) fn mesh_name() -> MeshName {
    "test".parse().unwrap()
}

/// An org, and the machine that holds its key.
pub(super) struct Org {
    pub(super) name: OrgName,
    pub(super) issuer: Issuer,
    _dir: TempDir,
}

impl Org {
    pub(super) fn new(name: &str) -> Self {
        let (dir, name) = (TempDir::new().unwrap(), name.parse().unwrap());
        let data = DataDir::at(dir.path().join("issuer"));
        data.create().unwrap();
        let issuer = org::create(&data, &name, Clock::start().now().wall).unwrap();
        Self { name, issuer, _dir: dir }
    }

    pub(super) fn admit(&self, node: NodeId, locations_max: CountrySet) -> Verified<Membership> {
        self.issuer.admit(&mesh_name(), node, locations_max, Clock::start().now().wall).unwrap()
    }
}

/// A node that may be started, more than once.
pub(super) struct Plan {
    pub(super) dir: DataDir,
    pub(super) id: NodeId,
    name: String,
    org: Option<OrgName>,
    places: String,
    trust: String,
    servers: String,
    peers: Vec<String>,
    call_timeout: &'static str,
    temp: TempDir,
}

impl Plan {
    /// A node that is in no org.
    pub(super) fn alone(name: &str, places: &str) -> Self {
        let temp = TempDir::new().unwrap();
        let dir = DataDir::at(temp.path().join("data"));
        dir.create().unwrap();
        let id = node_id(&create_key(&dir.node_key()).unwrap());
        let (trust, servers, peers) = (String::new(), String::new(), Vec::new());
        let call_timeout = "5m";
        Self {
            dir,
            id,
            name: name.into(),
            org: None,
            places: places.into(),
            trust,
            servers,
            peers,
            call_timeout,
            temp,
        }
    }

    /// A member of `org` that processes in `places`.
    pub(super) fn of(org: &Org, name: &str, places_of: &str) -> Self {
        let mut plan = Self::alone(name, places_of);
        plan.org = Some(org.name.clone());
        plan.admitted(org, places(places_of));
        plan
    }

    /// Waits longer for calls than tests do otherwise.
    pub(super) fn patient(mut self) -> Self {
        self.call_timeout = "1h";
        self
    }

    /// Names an org in the file without being a member of it.
    pub(super) fn in_org(mut self, name: &str) -> Self {
        self.org = Some(name.parse().unwrap());
        self
    }

    /// Puts a membership into the data directory.
    pub(super) fn admitted(&self, org: &Org, locations_max: CountrySet) {
        org::save_chain(&self.dir, &org.name, org.issuer.chain()).unwrap();
        org::save_membership(&self.dir, &org.admit(self.id, locations_max)).unwrap();
    }

    /// Pins `org`; `approve` is what the file says.
    pub(super) fn trusts(mut self, org: &Org, approve: &str) -> Self {
        self.trust(org, approve);
        self
    }

    pub(super) fn trust(&mut self, org: &Org, approve: &str) {
        let (name, root) = (&org.name, org.issuer.pin());
        writeln!(self.trust, "[[trust.orgs]]\nname = \"{name}\"\nroot = \"{root}\"\napprove = \"{approve}\"")
            .unwrap();
    }

    /// Vouches that `tool` of the org pinned last may run twice.
    pub(super) fn vouches_for(mut self, tool: &str) -> Self {
        writeln!(self.trust, "repeatable = [\"{tool}\"]").unwrap();
        self
    }

    /// Trusts nobody any more.
    pub(super) fn trust_nobody(&mut self) {
        self.trust.clear();
    }

    /// Fronts the test server under `name`.
    pub(super) fn serves(mut self, name: &str, share: &str) -> Self {
        self.serve(name, share, "as it was");
        self
    }

    /// The same, with another `description` of its tool `change`.
    pub(super) fn serve(&mut self, name: &str, share: &str, description: &str) {
        let home = self.temp.path().join(name);
        std::fs::create_dir_all(&home).unwrap();
        let script = self.temp.path().join("server.py");
        std::fs::write(&script, SERVER).unwrap();
        let (script, home) = (script.display(), home.display());
        writeln!(
            self.servers,
            "[servers.{name}]\ncommand = \"python3\"\nargs = [\"{script}\", \"{home}\", \"{description}\"]\nshare = \"{share}\""
        )
        .unwrap();
    }

    /// Fronts the test server of 2026-07-28 under `name`.
    pub(super) fn serves_modern(mut self, name: &str, share: &str) -> Self {
        let home = self.temp.path().join(name);
        std::fs::create_dir_all(&home).unwrap();
        let script = self.temp.path().join("modern.py");
        std::fs::write(&script, MODERN_SERVER).unwrap();
        let (script, home) = (script.display(), home.display());
        writeln!(
            self.servers,
            "[servers.{name}]\ncommand = \"python3\"\nargs = [\"{script}\", \"{home}\"]\nshare = \"{share}\""
        )
        .unwrap();
        self
    }

    /// Has the server `name` speak 2026-07-28.
    pub(super) fn modern(self, server: &str) -> Self {
        std::fs::write(self.temp.path().join(server).join("modern"), "").unwrap();
        self
    }

    /// Further lines for the server that was added last.
    pub(super) fn with(mut self, line: &str) -> Self {
        writeln!(self.servers, "{line}").unwrap();
        self
    }

    /// Dials `other` from the start.
    pub(super) fn to(self, other: &Running) -> Self {
        self.at_address(other.address())
    }

    pub(super) fn at_address(mut self, address: String) -> Self {
        self.peers.push(address);
        self
    }

    /// What calls of the server `name` have left.
    pub(super) fn ran(&self, server: &str) -> Vec<String> {
        let calls = std::fs::read_to_string(self.temp.path().join(server).join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// Lets the tool `wait` of a server go on.
    pub(super) fn go(&self, server: &str) {
        std::fs::write(self.temp.path().join(server).join("go"), "").unwrap();
    }

    /// Writes the file as it stands now; a running node notices.
    pub(super) fn write(&self) {
        let org = self.org.as_ref().map(|org| format!("[org]\nname = \"{org}\"\n")).unwrap_or_default();
        let places: Vec<_> = self.places.split(' ').map(|place| format!("\"{place}\"")).collect();
        let peers: Vec<_> = self.peers.iter().map(|peer| format!("\"{peer}\"")).collect();
        let text = format!(
            "[node]\nname = \"{}\"\n{org}[site]\nprocessing_locations = [{}]\n\
             [mesh]\nname = \"test\"\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\npeers = [{}]\n\
             [limits]\ncall_timeout = \"{}\"\n[mcp]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{}{}",
            self.name,
            places.join(", "),
            peers.join(", "),
            self.call_timeout,
            self.servers,
            self.trust,
        );
        let fresh = self.temp.path().join("comity.toml.new");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, self.path()).unwrap();
    }

    fn path(&self) -> std::path::PathBuf {
        self.temp.path().join("comity.toml")
    }

    pub(super) async fn start(&self) -> Running {
        log();
        self.write();
        let path = self.path();
        let config = NodeConfig::load(&path).unwrap_or_else(|error| panic!("{error}")).config;
        let shutdown = CancellationToken::new();
        let node = Node::start(self.dir.clone(), path, config, shutdown.clone()).await.unwrap();
        let shared = node.shared.clone();
        Running { shared, shutdown, run: tokio::spawn(node.run()) }
    }
}

/// A running node.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) shutdown: CancellationToken,
    pub(super) run: JoinHandle<Result<End, RunError>>,
}

impl Running {
    pub(super) fn id(&self) -> NodeId {
        self.shared.identity.node
    }

    /// An MCP client of this node, over HTTP.
    pub(super) fn client(&self) -> Client {
        Client::new(self.shared.mcp_address.expect("it serves HTTP"))
    }

    /// Where others dial it.
    pub(super) fn address(&self) -> String {
        let snapshot = self.shared.mesh.snapshot();
        format!("{}/p2p/{}", snapshot.listening[0], self.id())
    }

    /// Ends it as a crash would, as far as its peers can tell.
    pub(super) fn kill(&self) {
        self.run.abort();
    }

    /// Ends it in good order.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        assert_eq!(within("the node ends", self.run).await.unwrap().unwrap(), End::Stop);
    }

    pub(super) fn world(&self) -> Arc<World> {
        self.shared.world.load()
    }

    pub(super) async fn sees<T>(&self, what: &str, holds: impl Fn(&World) -> Option<T>) -> T {
        until(what, || holds(&self.world())).await
    }

    /// Waits until `tool` can be called here and exactly these nodes, connected or local, offer it.
    pub(super) async fn offers(&self, tool: &str, nodes: &[NodeId]) {
        let wanted: std::collections::BTreeSet<_> = nodes.iter().copied().collect();
        self.sees(&format!("{tool} at {} nodes", nodes.len()), |world| {
            let route = world.route(tool)?;
            let there: std::collections::BTreeSet<_> =
                route.candidates.iter().map(|candidate| candidate.site.node).collect();
            (there == wanted && self.linked(nodes)).then_some(())
        })
        .await;
    }

    fn linked(&self, nodes: &[NodeId]) -> bool {
        let snapshot = self.shared.mesh.snapshot();
        let linked = |node: &NodeId| *node == self.id() || snapshot.linked().any(|peer| peer.node == *node);
        nodes.iter().all(linked)
    }

    /// Waits until there is no connection to `other`.
    pub(super) async fn parted_from(&self, other: &Self) {
        until("it has noticed", || (!self.linked(&[other.id()])).then_some(())).await;
    }

    /// Waits until the server `name` here is ready.
    pub(super) async fn ready(&self, name: &str) {
        let name = name.parse().unwrap();
        until("the server is ready", || {
            let view = self.shared.upstreams.snapshot().get(&name).cloned()?;
            (view.state == crate::upstream::UpstreamState::Ready).then_some(())
        })
        .await;
    }

    /// Starts a call; `meta` and `arguments` are JSON objects.
    pub(super) fn call_with(
        &self,
        tool: &str,
        arguments: &str,
        meta: &str,
        deadline: Option<Duration>,
    ) -> Exchange {
        let params = format!(r#"{{"name":"{tool}","arguments":{arguments},"_meta":{meta}}}"#);
        self.request("tools/call", Endpoint::All, Target::tool(tool), &params, deadline)
    }

    /// Asks for something of any kind, as a client of one of the endpoints does.
    pub(super) fn ask(&self, method: &str, kind: Kind, name: &str, params: &str) -> Exchange {
        self.request(method, Endpoint::All, Target::Item(kind, name.into()), params, None)
    }

    /// What `endpoint` shows.
    pub(super) fn catalogue(&self, endpoint: &Endpoint) -> Option<Arc<Catalogue>> {
        CallGateway(self.shared.calls.clone()).catalogue(endpoint)
    }

    /// Makes a request as the face does.
    pub(super) fn request(
        &self,
        method: &str,
        endpoint: Endpoint,
        target: Target,
        params: &str,
        deadline: Option<Duration>,
    ) -> Exchange {
        CallGateway(self.shared.calls.clone()).request(GatewayRequest {
            method: method.into(),
            endpoint,
            target,
            params: RawValue::from_string(params.to_owned()).unwrap(),
            caller: CallerContext {
                call_id: new_call_id().unwrap(),
                principal: "local".into(),
                endpoint_constraints: Arc::default(),
                token_constraints: None,
                trace: None,
                deadline,
                client: ClientProfile::default(),
            },
        })
    }

    pub(super) fn call(&self, tool: &str) -> Exchange {
        self.call_with(tool, "{}", "{}", None)
    }

    /// A call under constraints, as JSON.
    pub(super) fn constrained(&self, tool: &str, constraints: &str) -> Exchange {
        let meta = format!(r#"{{"dev.comity/constraints":{constraints}}}"#);
        self.call_with(tool, "{}", &meta, None)
    }
}

pub(super) async fn outcome(exchange: Exchange) -> Outcome {
    within("an outcome", exchange.outcome()).await
}

/// The result of a call that succeeds.
pub(super) async fn result(exchange: Exchange) -> Box<RawValue> {
    match outcome(exchange).await {
        Outcome::Result(result) => result,
        other => panic!("{other:?}"),
    }
}

/// The failure of a call that does not.
pub(super) async fn failure(exchange: Exchange) -> Failure {
    match outcome(exchange).await {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

/// Who ran it, by the receipt.
pub(super) fn executor(result: &RawValue) -> String {
    let executor = json::path(result, &["_meta", "dev.comity/receipt", "executor"]).expect("a receipt");
    json::as_str(executor).unwrap().into_owned()
}

/// Every message until the outcome.
pub(super) async fn messages(mut exchange: Exchange) -> (Vec<RawObject>, Outcome) {
    let mut messages = Vec::new();
    loop {
        match within("a message", exchange.next()).await {
            Incoming::Message(message) => messages.push(RawObject::parse(message.params().unwrap()).unwrap()),
            Incoming::Done(outcome) => return (messages, outcome),
        }
    }
}
