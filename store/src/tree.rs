//! The closed set of trees.

use std::fmt;

/// A named key space. The name is part of the disk format: it never changes once released.
///
/// Outbox and audit trees come with their own issues; adding a variant here and to [`Tree::ALL`] is all
/// that a new tree needs, because trees are created on opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// The store's own record: schema version, creation time, owner.
    Meta,
    /// Node id to the last advert received from it.
    Adverts,
    /// Node id to the highest `(epoch, seq)` accepted from it; outlives the advert.
    Sequences,
    /// This node's own `(epoch, seq)`.
    Own,
    /// Org name to the pinned root hash.
    Pins,
    /// Org name and version to a signed org root.
    Roots,
    /// Approval scope to the operator's approval.
    Approvals,
    /// Hash of a one-time token to what it allows.
    Invites,
    /// Serial to a membership certificate that this node issued.
    Issued,
}

impl Tree {
    /// Every tree, in declaration order.
    pub const ALL: [Tree; 9] = [
        Tree::Meta,
        Tree::Adverts,
        Tree::Sequences,
        Tree::Own,
        Tree::Pins,
        Tree::Roots,
        Tree::Approvals,
        Tree::Invites,
        Tree::Issued,
    ];

    /// The name on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Tree::Meta => "meta",
            Tree::Adverts => "adverts",
            Tree::Sequences => "sequences",
            Tree::Own => "own",
            Tree::Pins => "pins",
            Tree::Roots => "roots",
            Tree::Approvals => "approvals",
            Tree::Invites => "invites",
            Tree::Issued => "issued",
        }
    }

    /// Position in [`Tree::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Tree;

    #[test]
    fn every_tree_is_listed_once_at_its_index() {
        for (index, tree) in Tree::ALL.into_iter().enumerate() {
            assert_eq!(tree.index(), index, "{tree}");
        }
        let names: BTreeSet<_> = Tree::ALL.into_iter().map(Tree::name).collect();
        assert_eq!(names.len(), Tree::ALL.len());
    }
}
