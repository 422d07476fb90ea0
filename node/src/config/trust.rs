//! The `[trust]` section: the orgs that this node believes, each by the digest of its root.

use comity_protocol::ids::{ItemName, OrgName, RootHash, ServerName};

use super::section::Section;
use super::setting::TextSetting;

/// Orgs that one configuration may pin.
pub const ORGS_MAX: usize = 1_000;
/// Tools of one org that may be vouched for.
pub const REPEATABLE_MAX: usize = 1_000;

/// One `[[trust.orgs]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedOrg {
    /// The org.
    pub name: OrgName,
    /// The digest of its first root; later roots are believed by the chain of signatures from it.
    pub root: RootHash,
    /// Which of its tools are visible without an approval of their own.
    pub approve: Approve,
    /// Which of its tools the operator here vouches may run twice with the effect of once.
    pub repeatable: Vec<ToolOfServer>,
}

/// A tool of an org, written `server/tool`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOfServer {
    /// The server, as the node that fronts it names it.
    pub server: ServerName,
    /// The tool, as the server names it.
    pub tool: ItemName,
}

impl TextSetting for ToolOfServer {
    const EXPECTED: &'static str = "a server and its tool, such as \"crm/find_invoice\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let (server, tool) = text.split_once('/').ok_or_else(|| format!("{text:?} has no slash"))?;
        let server = server.parse::<ServerName>().map_err(|error| error.to_string())?;
        let tool = tool.parse::<ItemName>().map_err(|error| error.to_string())?;
        Ok(Self { server, tool })
    }
}

/// Which tools of a foreign org clients see before the operator has approved each contract.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approve {
    /// None: each contract is approved with `comity tools approve`.
    #[default]
    None,
    /// All, as they are when first seen; a contract that changes is still quarantined.
    All,
}

impl TextSetting for Approve {
    const EXPECTED: &'static str = "\"none\" or \"all\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Approve::None),
            "all" => Ok(Approve::All),
            other => Err(format!("{other:?} is neither \"none\" nor \"all\"")),
        }
    }
}

pub(super) fn read(mut trust: Section<'_>) -> Vec<TrustedOrg> {
    let mut orgs: Vec<TrustedOrg> = Vec::new();
    let sections = trust.sections("orgs");
    if sections.len() > ORGS_MAX {
        trust.fault("orgs", format!("names {} orgs", sections.len()), format!("name at most {ORGS_MAX}"));
    }
    for mut section in sections.into_iter().take(ORGS_MAX) {
        let name = section.required::<OrgName>("name");
        let root = section.required::<RootHash>("root");
        let approve = section.or("approve", Approve::default());
        let repeatable = repeatable(&mut section);
        if let (Some(name), Some(root)) = (name, root) {
            match orgs.iter().any(|known| known.name == name) {
                true => section.fault(
                    "name",
                    format!("{name} is pinned twice"),
                    "keep the entry with the right root",
                ),
                false => orgs.push(TrustedOrg { name, root, approve, repeatable }),
            }
        }
        section.finish();
    }
    trust.finish();
    orgs
}

fn repeatable(org: &mut Section<'_>) -> Vec<ToolOfServer> {
    let tools = org.list_of_distinct("repeatable").unwrap_or_default();
    if tools.len() > REPEATABLE_MAX {
        let named = format!("names {} tools", tools.len());
        org.fault("repeatable", named, format!("name at most {REPEATABLE_MAX}"));
    }
    tools
}
