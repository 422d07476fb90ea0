//! What goes wrong in a scenario: the `[[faults]]` tables.

use std::time::Duration;

use toml::de::DeValue;

use super::read::{path, site_list};
use super::section::{Section, Setting};
use super::value::{Span, word};
use super::{Path, Phases, Share, Site, SiteId};

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// The sites that it befalls; all of them when the scenario names none.
    pub sites: Vec<SiteId>,
    /// Which nodes of those sites.
    pub nodes: Victims,
    /// When it begins.
    pub at: Span<Duration>,
    /// How long it lasts. It ends with the phase of faults at the latest, except where it is for good.
    pub lasts: Span<Duration>,
    /// Whether it is not undone when the phase of faults ends.
    pub for_good: bool,
}

/// Which nodes a fault befalls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Victims {
    /// All of its sites.
    All,
    /// So many of its sites, drawn by the seed.
    Drawn(Span<usize>),
    /// These, by name. Those that a run does not have are spared.
    Named(Vec<String>),
}

impl Setting for Victims {
    const EXPECTED: &'static str = "a number, a range such as \"2..14\", or names such as [\"berlin-1\"]";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Array(names) => {
                let names = names.iter().map(|name| String::read(name.get_ref()));
                names.collect::<Result<_, _>>().map(Self::Named)
            }
            count => Span::read(count).map(Self::Drawn),
        }
    }
}

/// By how much a clock is set wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// By so much at most, either way, drawn by the seed.
    AtMost(Duration),
    /// By exactly so many milliseconds, back when negative.
    Exactly(i64),
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing passes between these nodes and the others.
    Partition {
        /// Which direction is cut, as these nodes see it.
        direction: Direction,
        /// The sites on the other side; every other node when empty.
        from: Vec<SiteId>,
    },
    /// The nodes are cut off again and again, all at once, as an edge site is.
    Flap {
        /// How long each time.
        down: Span<Duration>,
        /// How long they are back in between.
        up: Span<Duration>,
    },
    /// The nodes crash, and start again when the fault ends.
    Crash {
        /// What is left on their disks.
        disk: DiskFate,
    },
    /// One node after another crashes and comes back.
    Churn {
        /// The time between two crashes.
        every: Span<Duration>,
        /// How long each is down.
        down: Span<Duration>,
        /// What is left on their disks.
        disk: DiskFate,
    },
    /// The paths between these nodes and all others become worse.
    Degrade {
        /// What they are like.
        path: Path,
    },
    /// The nodes' clocks are set wrong.
    ClockJump {
        /// By how much.
        by: Jump,
    },
    /// The nodes leave in peace, and start again when the fault ends.
    Leave,
    /// One node after another is found under a new address, and says so.
    NewAddress {
        /// The time between two of them.
        every: Span<Duration>,
    },
    /// The nodes turn on the others. When the fault ends they are switched off.
    Byzantine {
        /// What they do.
        acts: Vec<Act>,
    },
    /// The seed draws faults of every kind.
    Chaos {
        /// The time between two of them.
        every: Span<Duration>,
    },
}

impl FaultKind {
    /// The word that scenarios and reports use.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Partition { .. } => "partition",
            Self::Flap { .. } => "flap",
            Self::Crash { .. } => "crash",
            Self::Churn { .. } => "churn",
            Self::Degrade { .. } => "degrade",
            Self::ClockJump { .. } => "clock_jump",
            Self::Leave => "leave",
            Self::NewAddress { .. } => "new_address",
            Self::Byzantine { .. } => "byzantine",
            Self::Chaos { .. } => "chaos",
        }
    }
}

/// Which direction of a partition is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Both.
    Both,
    /// What these nodes send.
    Out,
    /// What they are sent.
    In,
}

impl Direction {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Both, Self::Out, Self::In];
}

/// What a crash leaves on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFate {
    /// All that was handed to the store, or the first part of it, as when a process is killed.
    Kept,
    /// What was durable, as when the power fails.
    RolledBack,
    /// Nothing but the keys and the membership.
    Lost,
}

impl DiskFate {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kept, Self::RolledBack, Self::Lost];

    /// The word that scenarios and reports use.
    pub fn word(self) -> &'static str {
        DISKS.iter().find(|(_, disk)| *disk == self).map_or("", |(word, _)| word)
    }
}

/// What a Byzantine node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Makes up adverts of others and nodes that no org has admitted.
    Forge,
    /// Sends old adverts again.
    Replay,
    /// Signs two adverts with one sequence and sends each to some.
    Equivocate,
    /// Sends more than fits, and what is no message at all.
    Oversize,
    /// Publishes and speaks without pause.
    Flood,
    /// Claims places that its membership does not allow.
    FalseLocation,
    /// Accepts calls and never answers.
    NeverAnswer,
    /// Answers with receipts that are not true.
    TamperReceipt,
    /// Calls whom it may not call, and does as if it might.
    UnlawfulCall,
    /// Says of nodes that live that they do not answer.
    Slander,
    /// Signs adverts that end in the moment in which they arrive.
    LastMoment,
}

impl Act {
    /// All of them, by the words of a scenario.
    pub const WORDS: [(&'static str, Self); 11] = [
        ("forge", Self::Forge),
        ("replay", Self::Replay),
        ("equivocate", Self::Equivocate),
        ("oversize", Self::Oversize),
        ("flood", Self::Flood),
        ("false_location", Self::FalseLocation),
        ("never_answer", Self::NeverAnswer),
        ("tamper_receipt", Self::TamperReceipt),
        ("unlawful_call", Self::UnlawfulCall),
        ("slander", Self::Slander),
        ("last_moment", Self::LastMoment),
    ];

    /// What a hostile node does unless the scenario says what. Not `last_moment`: directories then differ until the
    /// advert before it ends, see docs/simulation.md.
    pub fn usual() -> Vec<Self> {
        Self::WORDS.iter().map(|(_, act)| *act).filter(|act| *act != Self::LastMoment).collect()
    }

    /// The word.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, act)| *act == self).map_or("", |(word, _)| word)
    }
}

const KINDS: [&str; 10] = [
    "partition",
    "flap",
    "crash",
    "churn",
    "degrade",
    "clock_jump",
    "leave",
    "new_address",
    "byzantine",
    "chaos",
];

pub(super) const DISKS: [(&str, DiskFate); 3] =
    [("kept", DiskFate::Kept), ("rolled_back", DiskFate::RolledBack), ("lost", DiskFate::Lost)];

pub(super) const DIRECTIONS: [(&str, Direction); 3] =
    [("both", Direction::Both), ("out", Direction::Out), ("in", Direction::In)];

const fn seconds(from: u64, to: u64) -> Span<Duration> {
    Span { from: Duration::from_secs(from), to: Duration::from_secs(to) }
}

pub(super) fn read(root: &mut Section<'_>, sites: &[Site], phases: &Phases) -> Vec<Fault> {
    let sections = root.sections("faults");
    sections.into_iter().filter_map(|section| read_fault(section, sites, phases)).collect()
}

fn read_fault(mut section: Section<'_>, sites: &[Site], phases: &Phases) -> Option<Fault> {
    let kind = read_kind(&mut section, sites);
    let at = section.or("at", seconds(10, 10));
    let rest = phases.faults_for.saturating_sub(at.from);
    let fault = Fault {
        sites: site_list(&mut section, "sites", sites).unwrap_or_else(|| (0..sites.len()).collect()),
        nodes: section.or("nodes", Victims::All),
        at,
        lasts: section.or("for", Span::just(rest)),
        for_good: section.or("for_good", false),
        kind: kind.clone().unwrap_or(FaultKind::Leave),
    };
    check(&section, &fault, sites, phases);
    section.finish();
    kind.map(|_| fault)
}

fn check(section: &Section<'_>, fault: &Fault, sites: &[Site], phases: &Phases) {
    if fault.at.to >= phases.faults_for {
        let problem = format!("begins after the phase of faults has ended ({:?})", phases.faults_for);
        section.mistake("at", problem, "begin earlier, or make `run.faults_for` longer");
    }
    let most: usize = fault.sites.iter().map(|site| sites[*site].nodes.to).sum();
    if let Victims::Named(names) = &fault.nodes {
        check_names(section, names, sites);
    }
    if matches!(fault.nodes, Victims::Drawn(nodes) if nodes.from > most) {
        section.mistake(
            "nodes",
            format!("asks for more nodes than the {most} that there are"),
            "ask for fewer",
        );
    }
    let cuts_nobody = fault.sites.len() == sites.len() && fault.nodes == Victims::All;
    if matches!(fault.kind, FaultKind::Partition { .. }) && cuts_nobody {
        section.mistake(
            "sites",
            "cuts everybody off from nobody",
            "name some sites, or some `nodes` of them",
        );
    }
    let undone =
        matches!(fault.kind, FaultKind::Partition { .. } | FaultKind::Crash { .. } | FaultKind::Leave);
    if fault.for_good && !undone {
        section.mistake(
            "for_good",
            "does not go with this kind",
            "only partition, crash and leave can be for good",
        );
    }
}

/// Named nodes are those that the scenario can have: a site's name, `-`, and a number from 1.
fn check_names(section: &Section<'_>, names: &[String], sites: &[Site]) {
    if section.has("sites") {
        section.mistake("sites", "stands beside `nodes` by name", "the names say whom: remove it");
    }
    if names.is_empty() {
        section.mistake("nodes", "names nobody", "name some nodes, or remove the fault");
    }
    for name in names {
        let (site, nth) = name.rsplit_once('-').unwrap_or((name, ""));
        let nth =
            Some(nth).filter(|nth| !nth.starts_with(['0', '+'])).and_then(|nth| nth.parse::<usize>().ok());
        match (sites.iter().find(|known| known.name == site), nth) {
            (Some(site), Some(nth)) if nth <= site.nodes.to => {}
            (Some(site), Some(_)) => section.mistake(
                "nodes",
                format!("`{name}` never is: {} has at most {} nodes", site.name, site.nodes.to),
                format!("name nodes up to {}-{}", site.name, site.nodes.to),
            ),
            _ => {
                let known: Vec<String> = sites.iter().map(|site| format!("{}-1", site.name)).collect();
                let (span, key) = (section.span_of("nodes"), section.key_path("nodes"));
                section.report().unknown(&span, &key, "node", name, known.iter().map(String::as_str));
            }
        }
    }
}

fn jump(section: &mut Section<'_>) -> Jump {
    let ms = |by: Duration| i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    let by: Option<Duration> = section.get("by");
    let ahead = section.get("ahead").map(ms);
    let behind = section.get("behind").map(|by| -ms(by));
    match (by, ahead.or(behind)) {
        (Some(_), Some(_)) => {
            section.mistake("by", "stands beside `ahead` or `behind`", "keep one of them");
            Jump::AtMost(Duration::ZERO)
        }
        (None, Some(_)) if ahead.is_some() && behind.is_some() => {
            section.mistake("behind", "stands beside `ahead`", "keep one of the two");
            Jump::AtMost(Duration::ZERO)
        }
        (None, Some(exactly)) => Jump::Exactly(exactly),
        (by, None) => Jump::AtMost(by.unwrap_or(Duration::from_secs(30))),
    }
}

fn read_kind(section: &mut Section<'_>, sites: &[Site]) -> Option<FaultKind> {
    let kind: String = section.required("kind")?;
    Some(match kind.as_str() {
        "partition" => FaultKind::Partition {
            direction: word(section, "direction", &DIRECTIONS).unwrap_or(Direction::Both),
            from: site_list(section, "from", sites).unwrap_or_default(),
        },
        "flap" => {
            FaultKind::Flap { down: section.or("down", seconds(1, 10)), up: section.or("up", seconds(1, 10)) }
        }
        "crash" => FaultKind::Crash { disk: disk(section) },
        "churn" => FaultKind::Churn {
            every: section.or("every", seconds(2, 8)),
            down: section.or("down", seconds(1, 10)),
            disk: disk(section),
        },
        "degrade" => FaultKind::Degrade { path: path(section, DEGRADED) },
        "clock_jump" => FaultKind::ClockJump { by: jump(section) },
        "leave" => FaultKind::Leave,
        "new_address" => FaultKind::NewAddress { every: section.or("every", seconds(1, 4)) },
        "byzantine" => FaultKind::Byzantine { acts: acts(section) },
        "chaos" => FaultKind::Chaos { every: section.or("every", seconds(2, 6)) },
        other => {
            let (span, key) = (section.span_of("kind"), section.key_path("kind"));
            section.report().unknown(&span, &key, "kind of fault", other, KINDS);
            return None;
        }
    })
}

/// What a path is like while it is bad, where the scenario does not say.
pub(crate) const DEGRADED: Path = Path {
    latency: Span { from: Duration::from_millis(200), to: Duration::from_millis(800) },
    loss: Share(200_000),
    kilobits: None,
    gossip_loss: Share(200_000),
};

fn disk(section: &mut Section<'_>) -> DiskFate {
    word(section, "disk", &DISKS).unwrap_or(DiskFate::Kept)
}

fn acts(section: &mut Section<'_>) -> Vec<Act> {
    let Some(given) = section.list::<String>("acts") else { return Act::usual() };
    let (span, key) = (section.span_of("acts"), section.key_path("acts"));
    let known = Act::WORDS.map(|(word, _)| word);
    let found = given.iter().filter_map(|name| {
        let act = Act::WORDS.iter().find(|(word, _)| word == name).map(|(_, act)| *act);
        if act.is_none() {
            section.report().unknown(&span, &key, "act", name, known);
        }
        act
    });
    found.collect()
}
