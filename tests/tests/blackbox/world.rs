//! The federation that most tests use: three nodes of two orgs, each with a server `work` of our own.

use comity_tests::federation::Trio;
use comity_tests::node::Node;
use comity_tests::servers::OwnServer;
use tempfile::TempDir;

/// Tools that every `work` server offers.
pub(crate) const TOOLS: [&str; 6] = ["echo", "whoami", "fail", "wait", "die", "hang"];

/// Berlin, Paris and New York, whose `work` servers offer the same tools under the same contracts: each call has three
/// candidates, and the servers' own records say which of them ran it.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) trio: Trio,
    /// The servers of Berlin, Paris and New York.
    pub(crate) servers: [OwnServer; 3],
    _state: TempDir,
}

/// The nodes in the order of their servers.
pub(crate) const NODES: [&str; 3] = ["berlin", "paris", "newyork"];

impl Work {
    /// Starts the three, and waits until each has a connection to each and knows every tool of all.
    pub(crate) fn start() -> Self {
        let mut work = Work::make();
        work.start_all();
        work
    }

    /// Makes the three without starting them.
    pub(crate) fn make() -> Self {
        let state = TempDir::new().expect("a temporary directory");
        let servers = NODES.map(|name| OwnServer::new(&state.path().join(name)));
        let mut settings = Trio::settings();
        for (settings, server) in settings.iter_mut().zip(&servers) {
            settings.servers.push(server.server("work", &TOOLS));
        }
        Work { trio: Trio::make(settings), servers, _state: state }
    }

    /// Starts the three around Berlin and waits until they know each other.
    pub(crate) fn start_all(&mut self) {
        let Trio { berlin, paris, newyork, .. } = &mut self.trio;
        comity_tests::federation::start_around_first(&mut [berlin, paris, newyork]);
        self.wait_until_whole();
    }

    /// Waits until every node counts three providers of every tool.
    pub(crate) fn wait_until_whole(&self) {
        for node in self.nodes() {
            wait_for_providers(node, "echo", NODES.len() as u64);
        }
    }

    /// The three.
    pub(crate) fn nodes(&self) -> [&Node; 3] {
        [&self.trio.berlin, &self.trio.paris, &self.trio.newyork]
    }

    /// How often `tool` ran at Berlin, Paris and New York.
    pub(crate) fn runs(&self, tool: &str) -> [usize; 3] {
        [0, 1, 2].map(|at| self.servers[at].calls().iter().filter(|call| *call == tool).count())
    }
}

/// Waits until `node` knows this many nodes that serve the tool that its clients call `tool`. Each org that offers it has
/// an entry of its own.
pub(crate) fn wait_for_providers(node: &Node, tool: &str, count: u64) {
    comity_tests::wait::until(&format!("{} knows {count} providers of {tool}", node.name), || {
        let tools = node.json(&["tools"]);
        let listed =
            tools.as_array().expect("a list of tools").iter().filter(|listed| listed["name"] == tool);
        let providers: u64 = listed.filter_map(|listed| listed["providers"].as_u64()).sum();
        if providers == count { Ok(()) } else { Err((providers, tools)) }
    });
}
