//! `[[nodes]]`: real nodes by their `comity.toml`. Each entry becomes a site, with what the file says of it.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::constraints::DataClass;
use comity_protocol::ids::{ItemName, MeshName, OrgName, ServerName};

use super::node_file::{NodeFile, NodeServer, Share};
use super::section::{Section, Setting};
use super::value::{Span, text};

/// Reads a file that a scenario names, by its path as the scenario has it; or says why it cannot.
pub type Files<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Most nodes that a scenario may import.
const IMPORTS_MAX: usize = 256;

/// One node that was imported.
pub(super) struct Import {
    /// The file, as the scenario names it.
    pub(super) path: String,
    /// What its site is called.
    pub(super) site: String,
    pub(super) org: OrgName,
    /// How many nodes there are of its kind.
    pub(super) nodes: Span<usize>,
    pub(super) file: NodeFile,
    /// Its tools, by server.
    tools: BTreeMap<ServerName, BTreeSet<ItemName>>,
}

/// One tool as all nodes that were imported offer it.
pub(super) struct ImportedTool {
    /// The sites that do, by name.
    pub(super) sites: Vec<String>,
    pub(super) org_only: bool,
    pub(super) class_max: DataClass,
    pub(super) repeatable: bool,
    path: String,
}

/// A path to a file.
struct FilePath(String);

impl Setting for FilePath {
    const EXPECTED: &'static str = "the path of a node's comity.toml, from where the scenario is";

    fn read(value: &toml::de::DeValue<'_>) -> Result<Self, String> {
        let path = text(value)?;
        let odd = path.is_empty() || path.len() > 4096 || path.chars().any(char::is_control);
        if odd { Err("is no path".into()) } else { Ok(Self(path.to_owned())) }
    }
}

/// Reads every `[[nodes]]` entry and the files that they name.
pub(super) fn read(root: &mut Section<'_>, files: Files<'_>) -> Vec<Import> {
    let sections = root.sections("nodes");
    if sections.len() > IMPORTS_MAX {
        root.mistake(
            "nodes",
            format!("names {} nodes", sections.len()),
            format!("import at most {IMPORTS_MAX}"),
        );
        return Vec::new();
    }
    let imports: Vec<Import> = sections.into_iter().filter_map(|section| read_one(section, files)).collect();
    check_meshes(root, &imports);
    imports
}

fn read_one(mut section: Section<'_>, files: Files<'_>) -> Option<Import> {
    let path = section.required::<FilePath>("import").map(|path| path.0);
    let file = path.as_deref().and_then(|path| load(&section, path, files));
    let site: Option<String> = section.get("site");
    let org: Option<OrgName> = section.get("org");
    let nodes = section.or("nodes", Span::just(1));
    let named = section.lists::<ItemName>("tools");
    let (Some(path), Some(file)) = (path, file) else {
        section.finish();
        return None;
    };
    let site = site.or_else(|| file.name.clone());
    if site.is_none() {
        section.mistake("site", "is missing, and the file names no node", "give the site a name");
    }
    let org = org_of(&section, org, &file);
    let tools = tools_of(&section, named, &file);
    section.finish();
    Some(Import { path, site: site?, org: org?, nodes, file, tools })
}

/// Reads a file; what is wrong in it is told with its own lines.
fn load(section: &Section<'_>, path: &str, files: Files<'_>) -> Option<NodeFile> {
    let text = match files(path) {
        Ok(text) => text,
        Err(problem) => {
            section.mistake("import", problem, "give the path of a comity.toml, from where the scenario is");
            return None;
        }
    };
    match NodeFile::parse(&text) {
        Ok(file) => Some(file),
        Err(mistakes) => {
            for mistake in mistakes.list {
                let key = if mistake.key.is_empty() { String::new() } else { format!("{}: ", mistake.key) };
                let problem = format!("{path} line {}: {key}{}", mistake.line, mistake.problem);
                section.mistake("import", problem, mistake.hint);
            }
            None
        }
    }
}

fn org_of(section: &Section<'_>, given: Option<OrgName>, file: &NodeFile) -> Option<OrgName> {
    match (given, &file.org) {
        (Some(given), Some(org)) if given != *org => {
            section.mistake(
                "org",
                format!("is {given}, and the file says {org}"),
                "remove it, or import another file",
            );
            None
        }
        (given, org) => {
            let found = given.or_else(|| org.clone());
            if found.is_none() {
                section.mistake(
                    "org",
                    "is missing: the file's node has joined none",
                    "say which org it will join",
                );
            }
            found
        }
    }
}

/// The tools of each server that others may call: those that the file approves, those that it vouches for, and those that
/// the scenario names because the file offers all and lists none.
fn tools_of(
    section: &Section<'_>,
    named: Vec<(String, Vec<ItemName>)>,
    file: &NodeFile,
) -> BTreeMap<ServerName, BTreeSet<ItemName>> {
    let of_file = |server: &NodeServer| -> BTreeSet<ItemName> {
        server.approve.as_ref().unwrap_or(&server.repeatable).iter().cloned().collect()
    };
    let mut tools: BTreeMap<ServerName, BTreeSet<ItemName>> =
        file.servers.iter().map(|(name, server)| (name.clone(), of_file(server))).collect();
    for (name, list) in named {
        let Some((server, known)) = tools.iter_mut().find(|(server, _)| server.as_str() == name) else {
            let (span, key) = (section.span_of("tools"), section.key_path("tools"));
            section.report().unknown(
                &span,
                &key,
                "server",
                &name,
                file.servers.keys().map(ServerName::as_str),
            );
            continue;
        };
        let approved = file.servers.get(server).and_then(|server| server.approve.as_ref());
        for tool in list {
            if approved.is_some_and(|approved| !approved.contains(&tool)) {
                let problem = format!("{name} has no tool {tool} that its `approve` lets through");
                section.mistake("tools", problem, "name one of those, or change the node's file");
            }
            known.insert(tool);
        }
    }
    tools
}

fn check_meshes(root: &Section<'_>, imports: &[Import]) {
    let meshes: BTreeMap<&MeshName, &str> =
        imports.iter().map(|import| (&import.file.mesh, import.path.as_str())).collect();
    if meshes.len() > 1 {
        let named: Vec<String> = meshes.iter().map(|(mesh, path)| format!("{mesh} ({path})")).collect();
        let problem = format!("are of several meshes, which never talk: {}", named.join(", "));
        root.mistake("nodes", problem, "simulate one mesh at a time");
    }
}

/// The orgs that imported nodes are of, in the order of their first node.
pub(super) fn orgs(imports: &[Import]) -> Vec<OrgName> {
    let mut orgs: Vec<OrgName> = Vec::new();
    for import in imports {
        if !orgs.contains(&import.org) {
            orgs.push(import.org.clone());
        }
    }
    orgs
}

/// Those of the `known` orgs that an org's imported nodes have pinned; `None` where no node of it was imported. They must
/// agree, because the simulator knows trust by org.
pub(super) fn pins(
    root: &Section<'_>,
    org: &OrgName,
    imports: &[Import],
    known: &BTreeSet<OrgName>,
) -> Option<BTreeSet<OrgName>> {
    let mut of_org = imports.iter().filter(|import| import.org == *org);
    let pins = |import: &Import| -> BTreeSet<OrgName> {
        import.file.pins.iter().filter(|pin| *pin != org && known.contains(*pin)).cloned().collect()
    };
    let first = of_org.next()?;
    for other in of_org.filter(|other| pins(other) != pins(first)) {
        let problem = format!("{} and {} are of {org} and pin different orgs", first.path, other.path);
        let hint = format!("make them agree, or say it with an [[orgs]] table of {org} that has `pins`");
        root.mistake("nodes", problem, hint);
    }
    Some(pins(first))
}

/// Every tool that imported nodes share, by `server/tool`.
pub(super) fn tools(
    root: &Section<'_>,
    imports: &[Import],
) -> BTreeMap<(ServerName, ItemName), ImportedTool> {
    let mut all: BTreeMap<(ServerName, ItemName), ImportedTool> = BTreeMap::new();
    for import in imports {
        let shared = import.file.servers.iter().filter(|(_, server)| server.share != Share::Local);
        for (name, server) in shared {
            for tool in import.tools.get(name).into_iter().flatten() {
                let org_only = server.share == Share::Org;
                let one = all.entry((name.clone(), tool.clone())).or_insert_with(|| ImportedTool {
                    sites: Vec::new(),
                    org_only,
                    class_max: server.class_max,
                    repeatable: true,
                    path: import.path.clone(),
                });
                if (one.org_only, one.class_max) != (org_only, server.class_max) {
                    let problem = format!(
                        "{} and {} offer {name}/{tool} with another `share` or `class_max`, and the simulator knows one of each",
                        one.path, import.path
                    );
                    root.mistake(
                        "nodes",
                        problem,
                        "make them agree, or import them into scenarios of their own",
                    );
                }
                one.sites.push(import.site.clone());
                one.repeatable &= server.repeatable.contains(tool);
            }
        }
    }
    all
}
