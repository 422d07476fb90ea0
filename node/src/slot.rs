//! The mesh of a node that may have none: a node that has joined no org yet serves its own clients all the same.

use std::sync::Arc;

use tokio::sync::watch;

use crate::mesh::{MeshHandle, MeshSnapshot};

/// The mesh, if this node has joined one.
#[derive(Clone, Debug)]
pub struct MeshSlot {
    handle: Option<MeshHandle>,
    /// Never changes; what a node without a mesh waits on.
    still: Arc<watch::Sender<u64>>,
}

impl MeshSlot {
    /// A node's mesh, or its absence.
    pub fn new(handle: Option<MeshHandle>) -> Self {
        Self { handle, still: Arc::new(watch::Sender::new(0)) }
    }

    /// The mesh.
    pub fn get(&self) -> Option<MeshHandle> {
        self.handle.clone()
    }

    /// The mesh as it was a moment ago; nobody at all where there is none.
    pub fn snapshot(&self) -> Arc<MeshSnapshot> {
        self.handle.as_ref().map(MeshHandle::snapshot).unwrap_or_default()
    }

    /// Rises with every new snapshot.
    pub fn refreshed(&self) -> watch::Receiver<u64> {
        self.handle.as_ref().map_or_else(|| self.still.subscribe(), MeshHandle::refreshed)
    }
}
