//! The store's one-way switch from working to poisoned.

use std::sync::OnceLock;

use super::Fault;
use crate::backend::BackendError;

/// Set once, by the first error below the seam; never cleared in the life of a store.
#[derive(Debug, Default)]
pub(crate) struct Health(OnceLock<Fault>);

impl Health {
    /// The fault, if there was one.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.0.get().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// Poisons the store and returns the fault that did: this one, or an earlier one.
    pub(crate) fn poison(&self, error: BackendError) -> Fault {
        self.0
            .get_or_init(|| {
                let fault = Fault::new(error);
                let cause = std::error::Error::source(&fault).map(ToString::to_string);
                tracing::error!(error = %fault, cause, "the store failed; nothing more will be written or read");
                fault
            })
            .clone()
    }

    /// Poisons the store if `result` is an error.
    pub(crate) fn watch<T>(&self, result: Result<T, BackendError>) -> Result<T, Fault> {
        result.map_err(|error| self.poison(error))
    }
}
