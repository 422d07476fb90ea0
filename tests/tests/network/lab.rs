//! What the scenarios work with: three sites of two orgs on one network, each with a server that journals what it runs.

use std::collections::BTreeMap;
use std::process::Command;

use comity_tests::command::{Answer, exit};
use comity_tests::cut::{Backend, Link, Network};
use comity_tests::federation::Trio;
use comity_tests::node::Node;
use comity_tests::process::Background;
use comity_tests::servers::OwnServer;
use comity_tests::{binary, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Sites by their numbers on the network.
pub(crate) const BERLIN: usize = 0;
pub(crate) const PARIS: usize = 1;
pub(crate) const NEWYORK: usize = 2;
pub(crate) const ALL: [usize; 3] = [BERLIN, PARIS, NEWYORK];

/// Tools that every site's server offers under the same contracts.
const TOOLS: [&str; 3] = ["journal", "count", "wait"];

/// Berlin and Paris of acme.example, New York of umbrella.example; Berlin is the seed of the others.
pub(crate) struct Lab {
    // Nodes go before the network that they are on.
    pub(crate) trio: Trio,
    pub(crate) servers: [OwnServer; 3],
    pub(crate) network: Network,
    state: TempDir,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    /// Denied: the codes of all reasons.
    Denied(Vec<String>),
    /// It was handed over to nobody.
    Unreachable,
    /// It may have been run.
    InDoubt,
    /// Anything else, as it was told.
    Otherwise(String),
}

impl Lab {
    /// Makes the three and starts them over links like `link`; each knows and is connected to both others.
    pub(crate) fn start(backend: Backend, seed: u64, link: Link) -> Self {
        let state = TempDir::new().expect("a temporary directory");
        let network = Network::new(backend, ALL.len(), seed);
        network.all_links(link);
        let servers = ["berlin", "paris", "newyork"].map(|name| OwnServer::new(&state.path().join(name)));
        let settings = Trio::settings();
        let mut sites = servers.iter().enumerate();
        let settings = settings.map(|settings| {
            let (site, server) = sites.next().expect("a server for each");
            network.settings(site, settings.server(server.server("work", &TOOLS)))
        });
        let mut lab = Lab { trio: Trio::make(settings), servers, network, state };
        for site in ALL {
            lab.start_at(site);
        }
        lab.wait_until_whole();
        lab
    }

    /// Starts the node of a site, which dials Berlin.
    pub(crate) fn start_at(&mut self, site: usize) {
        let seeds = self.network.addresses(BERLIN, &self.trio.berlin.id);
        let Lab { trio, network, .. } = self;
        let node = node_mut(trio, site);
        network.place(site, node);
        if site != BERLIN {
            node.seeds(&seeds);
        }
        node.start();
    }

    pub(crate) fn node(&self, site: usize) -> &Node {
        [&self.trio.berlin, &self.trio.paris, &self.trio.newyork][site]
    }

    pub(crate) fn node_mut(&mut self, site: usize) -> &mut Node {
        node_mut(&mut self.trio, site)
    }

    /// A directory for a further server.
    pub(crate) fn server(&self, name: &str) -> OwnServer {
        OwnServer::new(&self.state.path().join(name))
    }

    /// Waits until every node is connected to both others, and all know the same.
    pub(crate) fn wait_until_whole(&self) {
        for site in ALL {
            self.wait_for_peers(site, 2);
            let node = self.node(site);
            wait::until(&format!("{} knows a provider at each site", node.name), || {
                let tools = node.json(&["tools"]);
                let providers = providers(&tools, "journal");
                if providers == 3 { Ok(()) } else { Err((providers, tools)) }
            });
        }
        wait::until("all know the same", || {
            let digests = ALL.map(|site| self.node(site).status()["directory_digest"].clone());
            if digests.iter().all(|digest| digest.is_string() && *digest == digests[0]) {
                Ok(())
            } else {
                Err(digests)
            }
        });
    }

    /// Waits until a node is connected to so many others.
    pub(crate) fn wait_for_peers(&self, site: usize, count: u64) {
        self.node(site).wait_for_peers(count);
    }

    /// Calls `journal` from a site, to be run in one of `places`, with an id that tells this call from all others.
    pub(crate) fn call(&self, from: usize, id: &str, places: &[&str]) -> Ended {
        let arguments = json!({ "id": id }).to_string();
        let mut command = vec!["call", "journal", "--args", &arguments, "--deadline", "60"];
        command.extend(places.iter().flat_map(|place| ["--allow-loc", place]));
        ended(&self.node(from).ask(&command))
    }

    /// At which sites a call was run, and how often.
    pub(crate) fn ran(&self, id: &str) -> Vec<usize> {
        let at =
            |site: usize| self.servers[site].journal().into_iter().filter(|ran| ran == id).map(move |_| site);
        ALL.into_iter().flat_map(at).collect()
    }

    /// Calls like [`Self::call`] until one is done after another `count` times, and returns how many were in doubt. Each
    /// that was done was run exactly once, at `site`; each that was not, at most once.
    pub(crate) fn calls_end_at(
        &self,
        site: usize,
        count: usize,
        from: usize,
        name: &str,
        places: &[&str],
    ) -> usize {
        let (mut done, mut doubtful) = (0, 0);
        for number in 0.. {
            let id = format!("{name}-{number}");
            match self.call(from, &id, places) {
                Ended::Done => {
                    assert_eq!(self.ran(&id), [site], "{id}");
                    done += 1;
                }
                // On its way in the very moment of the cut.
                Ended::InDoubt if doubtful < 3 => {
                    assert!(self.ran(&id).len() <= 1, "{id} ran more than once");
                    doubtful += 1;
                }
                other => panic!("{id} ended as {other:?}"),
            }
            if done == count {
                break;
            }
        }
        doubtful
    }

    /// No call was run twice, whatever its caller was told.
    pub(crate) fn nothing_ran_twice(&self) {
        let mut runs: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for site in ALL {
            for id in self.servers[site].journal() {
                runs.entry(id).or_default().push(site);
            }
        }
        let twice: Vec<_> = runs.iter().filter(|(_, sites)| sites.len() > 1).collect();
        assert!(twice.is_empty(), "these ran more than once: {twice:?}");
    }

    /// `comity stdio` at a site: MCP over its standard input and output.
    pub(crate) fn stdio(&self, site: usize) -> Background {
        let mut command = Command::new(binary::comity());
        command.arg("--data-dir").arg(self.node(site).data_dir()).arg("stdio");
        Background::start("comity stdio", &mut command)
    }
}

fn node_mut(trio: &mut Trio, site: usize) -> &mut Node {
    [&mut trio.berlin, &mut trio.paris, &mut trio.newyork].into_iter().nth(site).expect("a site")
}

/// How many nodes serve a tool. Each org that offers it has an entry of its own.
pub(crate) fn providers(tools: &Value, name: &str) -> u64 {
    let listed = tools.as_array().expect("a list of tools").iter().filter(|tool| tool["name"] == name);
    listed.filter_map(|tool| tool["providers"].as_u64()).sum()
}

/// How a `comity call` ended.
pub(crate) fn ended(answer: &Answer) -> Ended {
    match answer.code() {
        exit::DONE => Ended::Done,
        exit::UNREACHABLE => Ended::Unreachable,
        exit::DENIED => {
            let reasons = answer.error(exit::DENIED)["reasons"].clone();
            let codes = reasons.as_array().into_iter().flatten();
            Ended::Denied(codes.filter_map(|reason| reason["code"].as_str()).map(str::to_owned).collect())
        }
        code => {
            let message = answer.error(code)["message"].as_str().unwrap_or_default().to_owned();
            if message.starts_with("in doubt") { Ended::InDoubt } else { Ended::Otherwise(message) }
        }
    }
}
