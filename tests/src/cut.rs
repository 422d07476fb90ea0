//! A network between real processes that a test can delay, thin out, cut in one direction or both, and heal.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`rules`] | what becomes of a packet between two sites: lost, or how late |
//! | [`delayer`] | the wire itself: packets that wait for their time |
//! | [`namespaces`] | one network namespace a site; all packets pass the rules through a TUN device |
//! | [`tun`] | the part of a namespace that runs inside of it |
//! | [`loopback`] | the same for QUIC alone where namespaces are refused: forwarders on 127.0.0.0/8 |
//! | [`enter`] | finds out which of the two may be had, and restarts the test program inside it |
//!
//! Nothing outside is ever reached: a site's only way out is its TUN device, and what comes from there is carried to
//! another site of the same network or dropped. A namespace lives as long as the process that holds it, and that process
//! ends when its standard input does, so a test program that is killed leaves none behind.

pub mod delayer;
pub mod enter;
pub mod loopback;
pub mod namespaces;
pub mod rules;
pub mod tun;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::config::Settings;
use crate::node::Node;

pub use enter::Backend;
pub use rules::{Link, Rules};

/// Most sites of one network: a site's number is one byte of its address.
pub const SITES_MAX: usize = 64;

/// Sites that reach each other through rules only.
#[derive(Debug)]
pub struct Network {
    rules: Arc<Rules>,
    sites: Sites,
}

#[derive(Debug)]
enum Sites {
    Namespaces(namespaces::Namespaces),
    Loopback(loopback::Loopback),
}

/// What a network has done so far.
#[derive(Debug, Default)]
pub struct Figures {
    pub(crate) carried: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

impl Figures {
    /// Packets that reached their site.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// Packets that did not: lost by a rule, or for nobody here.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Network {
    /// A network of so many sites, numbered from 0, without delay and without loss. `seed` decides which packets are lost.
    ///
    /// # Panics
    /// When it cannot be made: the backend was found to work before.
    pub fn new(backend: Backend, sites: usize, seed: u64) -> Self {
        assert!(sites <= SITES_MAX, "a network has {SITES_MAX} sites at most");
        let rules = Arc::new(Rules::new(seed));
        let sites = match backend {
            Backend::Namespaces => Sites::Namespaces(namespaces::Namespaces::new(sites, rules.clone())),
            Backend::Loopback => Sites::Loopback(loopback::Loopback::new(sites, rules.clone())),
        };
        Network { rules, sites }
    }

    /// Every link that has no other of its own is like this.
    pub fn all_links(&self, link: Link) {
        self.rules.set_all(link);
    }

    /// Nothing that `from` sends reaches `to` any more.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.rules.cut(from, to);
    }

    /// Nothing passes between `site` and any other.
    pub fn isolate(&self, site: usize) {
        for other in (0..self.len()).filter(|other| *other != site) {
            self.rules.cut(site, other);
            self.rules.cut(other, site);
        }
    }

    /// Every cut is mended. Delay and loss stay.
    pub fn heal(&self) {
        self.rules.heal();
    }

    /// How many sites it has.
    pub fn len(&self) -> usize {
        match &self.sites {
            Sites::Namespaces(sites) => sites.len(),
            Sites::Loopback(sites) => sites.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it has done so far.
    pub fn figures(&self) -> &Figures {
        self.rules.figures()
    }

    /// The settings of a node at a site: where it listens, and where it says that it can be dialled.
    #[must_use]
    pub fn settings(&self, site: usize, settings: Settings) -> Settings {
        let settings = settings.listen(&self.listen(site));
        match &self.sites {
            Sites::Namespaces(_) => settings,
            Sites::Loopback(sites) => settings.mesh(&external_line(&sites.front(site))),
        }
    }

    /// Puts a node that is not running at its site.
    pub fn place(&self, site: usize, node: &mut Node) {
        if let Sites::Namespaces(sites) = &self.sites {
            node.run_behind(&sites.entrance(site));
        }
    }

    /// Where the node of this id can be dialled at its site.
    pub fn addresses(&self, site: usize, id: &str) -> Vec<String> {
        let addresses = match &self.sites {
            Sites::Namespaces(_) => self.listen(site),
            Sites::Loopback(sites) => vec![sites.front(site)],
        };
        addresses.into_iter().map(|address| format!("{address}/p2p/{id}")).collect()
    }

    /// Gives a site another address and takes the old one away; its node, which must not be running, is told where it
    /// listens now.
    pub fn move_away(&mut self, site: usize, node: &Node) {
        let before = self.listen(site);
        match &mut self.sites {
            Sites::Namespaces(sites) => sites.move_away(site),
            Sites::Loopback(sites) => {
                let old = external_line(&sites.front(site));
                sites.move_away(site);
                node.edit_config(|text| text.replace(&old, &external_line(&sites.front(site))));
            }
        }
        let after = self.listen(site);
        node.edit_config(|text| {
            before.iter().zip(&after).fold(text, |text, (before, after)| text.replace(before, after))
        });
    }

    fn listen(&self, site: usize) -> Vec<String> {
        match &self.sites {
            Sites::Namespaces(sites) => {
                let (ip, port) = (sites.address(site), namespaces::MESH_PORT);
                vec![format!("/ip4/{ip}/udp/{port}/quic-v1"), format!("/ip4/{ip}/tcp/{port}")]
            }
            Sites::Loopback(sites) => vec![sites.own(site)],
        }
    }
}

fn external_line(address: &str) -> String {
    format!("external_addresses = {}", json!([address]))
}

impl Link {
    /// A link of this delay, one way.
    pub fn delayed(delay: Duration) -> Self {
        Link { delay, ..Link::default() }
    }

    /// It loses so many packets of a hundred.
    #[must_use]
    pub fn losing(mut self, percent: u32) -> Self {
        self.loss_percent = percent;
        self
    }
}
