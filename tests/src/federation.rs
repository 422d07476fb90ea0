//! Orgs and nodes that trust each other, made with the commands that an operator would use.

use serde_json::Value;

use crate::config::{Server, Settings};
use crate::node::Node;

/// An org: its name and the digest that others pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Org {
    /// Its name.
    pub name: String,
    /// The digest of its root.
    pub root: String,
}

impl Org {
    /// Makes an org on a new node, which holds its key.
    pub fn found(name: &str, settings: &Settings) -> (Org, Node) {
        let node = Node::init(settings);
        let created = node.json(&["org", "create", name]);
        let root = created["root"].as_str().expect("org create prints the root").to_owned();
        (Org { name: name.to_owned(), root }, node)
    }

    /// Makes a node and admits it to the org of `issuer`, with its own locations as the most that it may claim.
    pub fn admit(issuer: &Node, settings: &Settings) -> Node {
        let locations: Vec<&str> = settings.locations.iter().map(String::as_str).collect();
        Self::admit_within(issuer, settings, &locations)
    }

    /// Makes a node and admits it to the org of `issuer`, with `locations` as the most that it may claim.
    pub fn admit_within(issuer: &Node, settings: &Settings, locations: &[&str]) -> Node {
        let node = Node::init(settings);
        let mut arguments = vec!["org", "admit", &node.id];
        arguments.extend(locations.iter().flat_map(|place| ["--location", place]));
        let admitted = issuer.json(&arguments);
        node.json(&["join", admitted["line"].as_str().expect("org admit prints a line")]);
        node
    }
}

/// Pins `org` at `node`, its tools visible at once.
pub fn pin(node: &Node, org: &Org) -> Value {
    node.json(&["trust", "pin", &org.name, &org.root, "--approve-all"])
}

/// Pins `org` at `node`; each of its tools waits for an approval.
pub fn pin_without_approval(node: &Node, org: &Org) -> Value {
    node.json(&["trust", "pin", &org.name, &org.root])
}

/// Starts nodes, each after the first dialling the first, and waits until all are connected to it.
pub fn start_around_first(nodes: &mut [&mut Node]) {
    let Some((seed, others)) = nodes.split_first_mut() else { return };
    seed.start();
    seed.keep_addresses();
    let addresses = seed.addresses();
    for node in others {
        node.seeds(&addresses);
        node.start();
    }
}

/// Two nodes of two orgs: what a client of the one asks is done two hops and an org away.
#[derive(Debug)]
pub struct Pair {
    /// acme.example, Germany: clients come here.
    pub near: Node,
    /// umbrella.example, United States: the servers are here.
    pub far: Node,
}

impl Pair {
    /// Starts the two, `far` in front of these servers, and waits until they are connected.
    pub fn start(servers: impl IntoIterator<Item = Server>) -> Self {
        let mut settings = Settings::new("far", &["US"]);
        settings.servers.extend(servers);
        let (umbrella, mut far) = Org::found("umbrella.example", &settings);
        let (acme, mut near) = Org::found("acme.example", &Settings::new("near", &["DE"]));
        pin(&far, &acme);
        pin(&near, &umbrella);
        start_around_first(&mut [&mut far, &mut near]);
        far.wait_until_serving();
        near.wait_for_peers(1);
        Pair { near, far }
    }
}

/// The three nodes of two orgs that most tests use: Berlin and Paris of acme.example, New York of umbrella.example.
#[derive(Debug)]
pub struct Trio {
    /// acme.example, Germany; it holds the org's key.
    pub berlin: Node,
    /// acme.example, France.
    pub paris: Node,
    /// umbrella.example, United States; it holds the org's key.
    pub newyork: Node,
    /// acme.example.
    pub acme: Org,
    /// umbrella.example.
    pub umbrella: Org,
}

impl Trio {
    /// Makes the three, pinned to each other, not started. `settings` are those of Berlin, Paris and New York.
    pub fn make(settings: [Settings; 3]) -> Self {
        let [berlin, paris, newyork] = settings;
        let (acme, berlin) = Org::found("acme.example", &berlin);
        let paris = Org::admit(&berlin, &paris);
        let (umbrella, newyork) = Org::found("umbrella.example", &newyork);
        pin(&berlin, &umbrella);
        pin(&paris, &umbrella);
        pin(&newyork, &acme);
        Trio { berlin, paris, newyork, acme, umbrella }
    }

    /// Makes the three and starts them, Berlin first; all are connected to it.
    pub fn start(settings: [Settings; 3]) -> Self {
        let mut trio = Trio::make(settings);
        start_around_first(&mut [&mut trio.berlin, &mut trio.paris, &mut trio.newyork]);
        trio
    }

    /// The settings of the three without any server.
    pub fn settings() -> [Settings; 3] {
        [Settings::new("berlin", &["DE"]), Settings::new("paris", &["FR"]), Settings::new("newyork", &["US"])]
    }
}
