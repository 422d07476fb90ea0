//! Signature checks remembered across the nodes of a run: each signed object is checked once, by whichever node reads it
//! first, and what does not verify is checked by every node anew. Without it a federation of a thousand nodes would check
//! the same thousand adverts a million times.

use core::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use comity_protocol::ids::ObjectDigest;
use comity_protocol::trust::SealMemory;

/// Most objects that are remembered. When full, all are forgotten and checked again when they come.
const OBJECTS_MAX: usize = 64 * 1024;

/// The memory that all nodes of a run share.
#[derive(Debug, Default)]
pub(crate) struct SharedMemory(Mutex<BTreeMap<ObjectDigest, Arc<dyn Any + Send + Sync>>>);

impl SealMemory for SharedMemory {
    fn find(&self, digest: &ObjectDigest) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn keep(&self, digest: ObjectDigest, object: Arc<dyn Any + Send + Sync>) {
        let mut objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if objects.len() >= OBJECTS_MAX {
            objects.clear();
        }
        objects.insert(digest, object);
    }
}
