//! A scenario: a federation, what befalls it, and what is expected of it. Users write them as TOML in the words of the
//! glossary; docs/simulation.md teaches how.
//!
//! [`Scenario::parse`] reads one and names every mistake with its line. What a scenario leaves open, such as how many
//! nodes a site has, each run draws by its seed.

mod expect;
mod faults;
mod import;
mod mistake;
pub mod node_file;
mod read;
mod section;
#[cfg(test)]
mod tests;
mod value;
mod write;

use std::collections::BTreeSet;
use std::time::Duration;

use comity_protocol::constraints::{Constraints, DataClass};
use comity_protocol::geo::{Country, CountrySet};
use comity_protocol::ids::{ItemName, OrgName, ServerName};

pub use expect::{Expectation, Verdict};
pub(crate) use expect::{lawful_sites, satisfies};
pub(crate) use faults::DEGRADED;
pub use faults::{Act, Direction, DiskFate, Fault, FaultKind, Jump, Victims};
pub use import::Files;
pub use mistake::{Mistake, Mistakes, nearest};
pub use value::{DURATION_MAX, Share, Span};

/// Most bytes of a scenario's text.
pub const SCENARIO_BYTES_MAX: usize = 256 * 1024;

/// Most orgs of a scenario, because test keys are made from one byte.
pub const ORGS_MAX: usize = 200;

/// A site by its place in [`Scenario::sites`].
pub type SiteId = usize;

/// A federation, what befalls it, and what is expected of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What people call it.
    pub name: String,
    /// What it is about.
    pub about: String,
    /// How long its phases are.
    pub phases: Phases,
    /// The organisations.
    pub orgs: Vec<Org>,
    /// Where nodes run.
    pub sites: Vec<Site>,
    /// What can be called.
    pub tools: Vec<Tool>,
    /// What lies between any two sites.
    pub network: Path,
    /// What lies between two sites where that is special; the last that fits counts.
    pub links: Vec<Link>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Who calls what.
    pub calls: Vec<Calls>,
    /// What is expected besides the invariants.
    pub expectations: Vec<Expectation>,
}

/// How long the phases of a run are, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    /// Nodes start one by one within this time.
    pub start_within: Duration,
    /// Until when faults may happen, from the beginning.
    pub faults_for: Duration,
    /// Within what time after the last fault the federation must have healed.
    pub heal_within: Duration,
    /// How long it must then stay healed; the run ends after that.
    pub quiet_for: Duration,
}

impl Phases {
    /// The longest that a run may take.
    pub fn total(&self) -> Duration {
        self.faults_for + self.heal_within + self.quiet_for
    }
}

/// One organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Org {
    /// Its name.
    pub name: OrgName,
    /// The orgs that its nodes have pinned, itself among them.
    pub pins: BTreeSet<OrgName>,
}

/// Where nodes run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// What people call it.
    pub name: String,
    /// Its org, by place.
    pub org: usize,
    /// How many nodes run there.
    pub nodes: Span<usize>,
    /// Where they process calls.
    pub processing: CountrySet,
    /// Whose law their operator is under.
    pub operator: Option<Country>,
    /// Sites whose first node they dial first; the first site unless the scenario says which.
    pub seeds: Vec<SiteId>,
    /// By how much each node's clock may be wrong, either way.
    pub clock_skew: Duration,
    /// By how many millionths it may run fast or slow.
    pub clock_drift_ppm: u32,
    /// What its nodes demand of every call made there; calls can only add to it.
    pub constraints: Constraints,
}

/// What can be called, under one contract wherever it is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its server.
    pub server: ServerName,
    /// Its name.
    pub tool: ItemName,
    /// The sites that offer it.
    pub sites: Vec<SiteId>,
    /// Whether only the offering org may call it.
    pub org_only: bool,
    /// The highest class of data that it takes.
    pub class_max: DataClass,
    /// How long a call takes.
    pub takes: Span<Duration>,
    /// How often its server breaks down in the middle of a call.
    pub breaks: Share,
    /// Whether callers vouch that it may run twice.
    pub repeatable: bool,
}

impl Tool {
    /// As scenarios write it: `server/tool`.
    pub fn text(&self) -> String {
        format!("{}/{}", self.server, self.tool)
    }
}

/// What lies between two sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// One way; each pair of nodes draws its own.
    pub latency: Span<Duration>,
    /// How often a packet is lost. Streams send it again, which costs time.
    pub loss: Share,
    /// Kilobits a second each way between two nodes; `None` is unlimited.
    pub kilobits: Option<u32>,
    /// How often a hop of gossip fails for good, as when a queue is full.
    pub gossip_loss: Share,
}

/// What lies between two particular sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// One side.
    pub between: (SiteId, SiteId),
    /// What lies there.
    pub path: Path,
}

/// Calls that are made again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls {
    /// What people call them.
    pub name: String,
    /// The sites that call.
    pub from: Vec<SiteId>,
    /// The tool, by place.
    pub tool: usize,
    /// The time between two calls of one site.
    pub every: Span<Duration>,
    /// From when on.
    pub start: Duration,
    /// What they demand.
    pub constraints: Constraints,
    /// How long the caller waits.
    pub deadline: Duration,
}

impl Scenario {
    /// Reads a scenario from its TOML text.
    ///
    /// # Errors
    /// [`Mistakes`]: everything that is wrong, with lines.
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        Self::parse_with(text, &|_| Err("can only be read where the scenario is a file".to_owned()))
    }

    /// The same, with the files that `[[nodes]]` import.
    ///
    /// # Errors
    /// [`Mistakes`]: everything that is wrong, with lines.
    pub fn parse_with(text: &str, files: Files<'_>) -> Result<Self, Mistakes> {
        read::scenario(text, files)
    }

    /// The scenario as TOML text that reads back as the same scenario. What has a default may be left out of it.
    pub fn to_toml(&self) -> String {
        write::toml(self)
    }

    /// The hash by which reports and replay lines name a scenario's text: the first twelve hexadecimal digits of its
    /// BLAKE3.
    pub fn hash(text: &str) -> String {
        blake3::hash(text.as_bytes()).to_hex()[..12].to_owned()
    }

    /// What some calls demand where they are made at a site.
    pub fn demands(&self, calls: &Calls, site: SiteId) -> Constraints {
        self.sites[site].constraints.tightened_by(&calls.constraints)
    }

    /// The most nodes that a run may have.
    pub fn nodes_max(&self) -> usize {
        self.sites.iter().map(|site| site.nodes.to).sum()
    }
}
