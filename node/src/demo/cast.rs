//! Who takes part.

use super::server::ToolSet;

/// The mesh that the demo's nodes form; none of them would talk to a node of another.
pub(super) const MESH: &str = "comity-demo";

/// One site of one org.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Role {
    /// The node's name.
    pub(super) name: &'static str,
    /// Its org, which has this node only.
    pub(super) org: &'static str,
    /// The country in which it processes data.
    pub(super) country: &'static str,
    /// The country whose law binds its operator.
    pub(super) operator: &'static str,
    /// The tools that it alone serves.
    pub(super) own: ToolSet,
}

/// The tools that every site serves, under one contract.
pub(super) const COMMON: ToolSet = ToolSet::Text;

/// Where the AI client is.
pub(super) const HOME: usize = 2;

/// Whose tools wait for an approval at the client's site.
pub(super) const STRANGER: usize = 1;

/// Everybody. Paris processes in France for an operator under the law of the United States: residency is not sovereignty.
pub(super) const CAST: [Role; 3] = [
    Role { name: "berlin", org: "spree.example", country: "DE", operator: "DE", own: ToolSet::Time },
    Role { name: "paris", org: "seine.example", country: "FR", operator: "US", own: ToolSet::Units },
    Role { name: "ashburn", org: "potomac.example", country: "US", operator: "US", own: ToolSet::Calendar },
];
