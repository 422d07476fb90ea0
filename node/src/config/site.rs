//! The `[node]`, `[org]` and `[site]` sections: what this node says of itself.

use std::collections::BTreeMap;

use comity_protocol::geo::{Country, CountrySet};
use comity_protocol::ids::{NodeId, OrgName};

use super::section::Section;

/// Labels that one site may carry.
pub const LABELS_MAX: usize = 16;
/// Longest label, key or value, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;
/// Longest name of a node, in bytes.
pub const NODE_NAME_BYTES_MAX: usize = 64;
/// Nodes that one configuration may name as revoked. One whose membership has ended needs no naming.
pub const REVOKED_MAX: usize = 1_000;

/// The `[site]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteConfig {
    /// Every country in which data may be processed here. Others believe it as far as the membership allows.
    pub processing_locations: CountrySet,
    /// The country whose law binds the operator; residency is not sovereignty.
    pub operator_country: Option<Country>,
    /// Free labels, such as `region = "eu-central"`.
    pub labels: BTreeMap<String, String>,
}

impl SiteConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let config = SiteConfig {
            processing_locations: section
                .list_of_distinct::<Country>("processing_locations")
                .unwrap_or_default()
                .into_iter()
                .collect(),
            operator_country: section.get("operator_country"),
            labels: section.map("labels"),
        };
        if config.labels.len() > LABELS_MAX {
            section.fault(
                "labels",
                format!("holds {} labels", config.labels.len()),
                format!("keep {LABELS_MAX}"),
            );
        }
        for (name, value) in &config.labels {
            if name.len() > LABEL_BYTES_MAX || value.len() > LABEL_BYTES_MAX {
                section.fault(
                    "labels",
                    "holds a label that is too long",
                    format!("keep to {LABEL_BYTES_MAX} bytes"),
                );
            }
        }
        section.finish();
        config
    }
}

/// Reads `[node]`: the name that people see; the machine's own where it is not given.
pub(super) fn read_node_name(mut section: Section<'_>) -> String {
    let name = section.or("name", default_node_name());
    let problem = match name.as_str() {
        "" => Some("is empty"),
        long if long.len() > NODE_NAME_BYTES_MAX => Some("is too long"),
        odd if odd.chars().any(char::is_control) => Some("holds control characters"),
        _ => None,
    };
    if let Some(problem) = problem {
        section.fault("name", problem, format!("give a name of 1 to {NODE_NAME_BYTES_MAX} bytes"));
    }
    section.finish();
    name
}

/// The `[org]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OrgConfig {
    pub(super) name: Option<OrgName>,
    pub(super) revoked: Vec<NodeId>,
}

impl OrgConfig {
    /// Reads `[org]`: the org that this node belongs to, once it belongs to one, and whom it admits no longer.
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let name = match section.is_present() {
            true => section.required("name"),
            false => section.get("name"),
        };
        let revoked: Vec<NodeId> = section.list_of_distinct("revoked").unwrap_or_default();
        if revoked.len() > REVOKED_MAX {
            let hint = "leave out nodes whose membership ended more than seven days ago";
            section.fault("revoked", format!("names {} nodes", revoked.len()), hint);
        }
        section.finish();
        Self { name, revoked }
    }
}

/// The machine's name as Linux tells it, else `node`.
pub fn default_node_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let usable = (1..=NODE_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if usable { name.to_owned() } else { "node".to_owned() }
}
