//! A node's `comity.toml`, as far as it matters to a simulation: who the node is, where it runs, what it offers to whom,
//! whom it believes and what it demands.
//!
//! The tables that matter are read as strictly as the node reads them, unknown keys included; a test of the node holds
//! both readers to the same files. Of `[mesh]` only the name matters. `[mcp]`, `[admin]`, `[log]`, `[limits]` and
//! `[[servers_from]]` do not, and what they hold is left to `comity config check`.

use std::collections::BTreeMap;

use comity_protocol::constraints::{
    CertificationSet, Constraints, DEADLINE_MS_MAX, DataClass, OrgSet, TrustLevel,
};
use comity_protocol::geo::{Country, CountrySet};
use comity_protocol::ids::{ItemName, MeshName, NodeId, OrgName, RootHash, ServerName};
use std::time::Duration;
use toml::de::{DeTable, DeValue};

use super::mistake::{Mistakes, Report};
use super::section::{Section, Setting, describe};
use super::value::{Length, text};

/// Most bytes of a node's configuration, as the node itself reads them.
pub const NODE_FILE_BYTES_MAX: usize = 1 << 20;

/// Longest name of a node, in bytes.
const NODE_NAME_BYTES_MAX: usize = 64;

/// Most labels of a site, and most bytes of a label.
const LABELS_MAX: usize = 16;
const LABEL_BYTES_MAX: usize = 64;

/// The mesh of a node that names none.
const MESH_NAME_DEFAULT: &str = "comity";

/// What a `comity.toml` says that matters to a simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFile {
    /// The node's name; `None` where it is the machine's.
    pub name: Option<String>,
    /// Its org; `None` before it joined one.
    pub org: Option<OrgName>,
    /// Its mesh.
    pub mesh: MeshName,
    /// Where it processes calls.
    pub processing: CountrySet,
    /// Whose law its operator is under.
    pub operator: Option<Country>,
    /// The servers that it fronts.
    pub servers: BTreeMap<ServerName, NodeServer>,
    /// The orgs that it has pinned, itself not among them.
    pub pins: Vec<OrgName>,
    /// What it demands of every call that is made there.
    pub constraints: Constraints,
}

/// One server of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeServer {
    /// Who may call it.
    pub share: Share,
    /// The only tools that are offered; `None` offers all, and the file does not say which those are.
    pub approve: Option<Vec<ItemName>>,
    /// Tools that may run twice: those vouched for as read-only or idempotent.
    pub repeatable: Vec<ItemName>,
    /// The most sensitive class of data that it may be given.
    pub class_max: DataClass,
}

/// Who may call a server's tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Clients of the node alone.
    Local,
    /// And nodes of its org.
    Org,
    /// And nodes of all orgs that trust each other.
    Federation,
}

impl NodeFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// [`Mistakes`]: everything that is wrong in what is read, with lines.
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        let report = Report::new(text);
        if text.len() > NODE_FILE_BYTES_MAX {
            let hint = format!("a configuration has at most {NODE_FILE_BYTES_MAX}");
            report.mistake(&(0..0), "", format!("{} bytes", text.len()), hint);
            return Err(report.finish().expect_err("a mistake was just noted"));
        }
        let document = match DeTable::parse(text) {
            Ok(document) => document,
            Err(error) => {
                report.mistake(&error.span().unwrap_or(0..0), "", error.message(), "write the file as TOML");
                return Err(report.finish().expect_err("a mistake was just noted"));
            }
        };
        let file = read_root(Section::root(&report, &document));
        report.finish()?;
        Ok(file)
    }
}

fn read_root(mut root: Section<'_>) -> NodeFile {
    let name = read_name(root.section("node"));
    let org = read_org(root.section("org"));
    let (processing, operator) = read_site(root.section("site"));
    let mut mesh = root.section("mesh");
    let mesh_name: Option<MeshName> = mesh.get("name");
    let servers = read_servers(&mut root);
    let pins = read_pins(root.section("trust"));
    let constraints = read_constraints(root.section("constraints"));
    for left in ["mcp", "admin", "log", "limits"] {
        let _ = root.section(left).is_present();
    }
    let _ = root.sections("servers_from");
    root.finish();
    NodeFile {
        name,
        org,
        mesh: mesh_name.unwrap_or_else(|| MESH_NAME_DEFAULT.parse().expect("a constant that a test parses")),
        processing,
        operator,
        servers,
        pins,
        constraints,
    }
}

fn read_name(mut section: Section<'_>) -> Option<String> {
    let name = section.get::<Text>("name").map(|name| name.0);
    let wrong = |name: &String| {
        name.is_empty() || name.len() > NODE_NAME_BYTES_MAX || name.chars().any(char::is_control)
    };
    if name.as_ref().is_some_and(wrong) {
        let hint = format!("give a name of 1 to {NODE_NAME_BYTES_MAX} bytes");
        section.mistake("name", "is empty, too long or has control characters", hint);
    }
    section.finish();
    name
}

fn read_org(mut section: Section<'_>) -> Option<OrgName> {
    let name = if section.is_present() { section.required("name") } else { None };
    section.distinct::<NodeId>("revoked");
    section.finish();
    name
}

fn read_site(mut section: Section<'_>) -> (CountrySet, Option<Country>) {
    let places = section.distinct::<Country>("processing_locations").unwrap_or_default();
    let operator = section.get("operator_country");
    let labels = section.entries::<Text>("labels");
    let too_long = |(name, value): &(String, Text)| name.len().max(value.0.len()) > LABEL_BYTES_MAX;
    if labels.len() > LABELS_MAX || labels.iter().any(too_long) {
        let hint = format!("keep {LABELS_MAX} labels of at most {LABEL_BYTES_MAX} bytes");
        section.mistake("labels", "holds too many labels, or one that is too long", hint);
    }
    section.finish();
    (places.into_iter().collect(), operator)
}

fn read_servers(root: &mut Section<'_>) -> BTreeMap<ServerName, NodeServer> {
    let mut servers = BTreeMap::new();
    for (name, section) in root.named_sections("servers") {
        let parsed = name
            .parse::<ServerName>()
            .map_err(|error| section.mistake("", error.to_string(), "rename the table"));
        let server = read_server(section);
        if let Ok(name) = parsed {
            servers.insert(name, server);
        }
    }
    servers
}

fn read_server(mut section: Section<'_>) -> NodeServer {
    // How a server is reached does not matter here, but that it can be does.
    let (command, url) = (section.take("command"), section.take("url"));
    if command == url {
        section.mistake(
            "",
            "has both or neither of `command` and `url`",
            "give the command that starts it, or its URL",
        );
    }
    for (key, goes_with) in [("args", command), ("env", command), ("cwd", command), ("headers", url)] {
        if section.take(key) && !goes_with {
            section.mistake(key, "means nothing for this server", "remove it");
        }
    }
    for left in ["timeout", "era"] {
        section.take(left);
    }
    let share = section.get("share").unwrap_or(Share::Local);
    let approve = section.distinct("approve");
    let mut repeatable = section.distinct("read_only").unwrap_or_default();
    repeatable.extend(section.distinct::<ItemName>("idempotent").unwrap_or_default());
    let class_max = section.get::<Class>("class_max").map_or(DataClass::Restricted, |class| class.0);
    section.finish();
    NodeServer { share, approve, repeatable, class_max }
}

fn read_pins(mut trust: Section<'_>) -> Vec<OrgName> {
    let mut pins: Vec<OrgName> = Vec::new();
    for mut section in trust.sections("orgs") {
        let (name, _root) = (section.required::<OrgName>("name"), section.required::<RootHash>("root"));
        let approve: Option<Text> = section.get("approve");
        if approve.is_some_and(|approve| !["none", "all"].contains(&approve.0.as_str())) {
            section.mistake("approve", "is neither \"none\" nor \"all\"", "give one of the two");
        }
        section.take("repeatable");
        if let Some(name) = name {
            if pins.contains(&name) {
                section.mistake(
                    "name",
                    format!("{name} is pinned twice"),
                    "keep the entry with the right root",
                );
            } else {
                pins.push(name);
            }
        }
        section.finish();
    }
    trust.finish();
    pins
}

/// Constraints as a node's file and a scenario's site have them: the JSON form's keys, but for `deadline`, which is text.
pub(super) fn read_constraints(mut section: Section<'_>) -> Constraints {
    let places = |section: &mut Section<'_>, key| -> Option<CountrySet> {
        let places = section.list::<CountrySet>(key)?;
        Some(places.iter().fold(CountrySet::EMPTY, |all, place| all.union(place)))
    };
    let allow_locations = places(&mut section, "allow_locations");
    if allow_locations.is_some_and(|allowed| allowed.is_empty()) {
        section.mistake(
            "allow_locations",
            "allows nowhere, so no call could run",
            "name a place, or remove the key",
        );
    }
    let default = Constraints::default();
    let constraints = Constraints {
        allow_locations,
        deny_operator_countries: places(&mut section, "deny_operator_countries").unwrap_or_default(),
        class: section.get::<Class>("class").map_or(default.class, |class| class.0),
        min_trust: section.get("min_trust").unwrap_or(default.min_trust),
        allow_orgs: section.distinct("allow_orgs").map(OrgSet::from_iter),
        require_certifications: certifications(&mut section),
        deadline_ms: deadline_ms(&mut section),
    };
    section.finish();
    constraints
}

fn certifications(section: &mut Section<'_>) -> CertificationSet {
    let names = section.distinct::<Text>("require_certs").unwrap_or_default();
    names.into_iter().map(|name| name.0).collect()
}

fn deadline_ms(section: &mut Section<'_>) -> Option<u64> {
    let Length(deadline) = section.get("deadline")?;
    let ms =
        u64::try_from(Duration::as_millis(&deadline)).ok().filter(|ms| (1..=DEADLINE_MS_MAX).contains(ms));
    if ms.is_none() {
        section.mistake(
            "deadline",
            format!("{deadline:?} is out of range"),
            "give a deadline from \"1ms\" to \"24h\"",
        );
    }
    ms
}

/// Any text.
#[derive(PartialEq)]
struct Text(String);

impl Setting for Text {
    const EXPECTED: &'static str = "a text";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        text(value).map(|text| Self(text.to_owned()))
    }
}

/// A class by its number or its name.
struct Class(DataClass);

impl Setting for Class {
    const EXPECTED: &'static str = "0 (public), 1 (internal), 2 (confidential) or 3 (restricted)";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let named = |name: &str| {
            (0..=3)
                .filter_map(DataClass::from_level)
                .find(|class| class.to_string() == name)
                .ok_or("is not a class")
        };
        match value {
            DeValue::Integer(_) => DataClass::read(value).map(Self),
            DeValue::String(name) => Ok(Self(named(name)?)),
            other => Err(format!("is {}, not a class", describe(other))),
        }
    }
}

impl Setting for Share {
    const EXPECTED: &'static str = "\"local\", \"org\" or \"federation\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match text(value)? {
            "local" => Ok(Self::Local),
            "org" => Ok(Self::Org),
            "federation" => Ok(Self::Federation),
            other => Err(format!("{other:?} is not a share")),
        }
    }
}

macro_rules! parsed_setting {
    ($($type:ty: $expected:literal),* $(,)?) => {$(
        impl Setting for $type {
            const EXPECTED: &'static str = $expected;

            fn read(value: &DeValue<'_>) -> Result<Self, String> {
                text(value)?.parse::<$type>().map_err(|error| error.to_string())
            }
        }
    )*};
}

parsed_setting! {
    ItemName: "a tool's own name, as its server gives it",
    MeshName: "a mesh name such as \"comity\"",
    RootHash: "\"blake3:\" and 64 hexadecimal digits, as `comity org root` prints it",
    NodeId: "a node's id, \"12D3KooW…\"",
    TrustLevel: "\"T0\", \"T1\", \"T2\" or \"T3\"",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_a_node_of_no_org() {
        let file = NodeFile::parse("").expect("no mistakes");
        assert_eq!((file.name, file.org, file.mesh.as_str()), (None, None, MESH_NAME_DEFAULT));
    }

    #[test]
    fn what_matters_is_read_strictly_and_the_rest_is_left() {
        let good = "[mcp]\nanything = 1\n[[servers_from]]\npath = 1\n[limits]\nmessage_max = \"8MiB\"\n";
        assert!(NodeFile::parse(good).is_ok());
        for (text, line, part) in [
            ("[site]\nprocessing_location = [\"DE\"]", 2, "did you mean `processing_locations`?"),
            ("[site]\nprocessing_locations = [\"EU\"]", 2, "ountr"),
            ("[site]\nprocessing_locations = [\"DE\", \"DE\"]", 2, "names the same value twice"),
            ("[org]\n", 1, "org.name: is missing"),
            ("[servers.crm]\nshare = \"org\"", 1, "both or neither"),
            ("[servers.crm]\ncommand = \"x\"\nshare = \"all\"", 3, "is not a share"),
            ("[servers.\"a b\"]\ncommand = \"x\"", 1, "rename the table"),
            ("[constraints]\nallow_locations = []", 2, "allows nowhere"),
            ("[constraints]\ndeadline = \"2d\"", 2, "out of range"),
            ("[[trust.orgs]]\nname = \"a.example\"", 1, "trust.orgs[0].root: is missing"),
            ("[sevrers.crm]\ncommand = \"x\"", 1, "did you mean `servers`?"),
        ] {
            let mistakes = NodeFile::parse(text).expect_err(text);
            let found = mistakes.list.iter().any(|one| one.line == line && one.to_string().contains(part));
            assert!(found, "no `{part}` on line {line} in:\n{mistakes}");
        }
    }
}
