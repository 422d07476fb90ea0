//! What an inviting node keeps: its invites, the memberships that it issued, and who waits for a guest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use comity_protocol::invite::InviteId;
use comity_store::Store;
use tokio::sync::mpsc;

use super::book::Book;
use super::questions::Questions;
use super::roll::Roll;
use crate::control::reports::{Compare, Enrolled};
use crate::keeping::KeepingError;

/// What whoever waits for a guest may lag behind; the guest's session waits then.
const NOTICES_MAX: usize = 16;

/// What somebody who waits for a guest hears.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Words to compare, and the question whether they are the same.
    Compare(Compare),
    /// Something happened and the invite is still open.
    Note(String),
    /// The guest is in.
    Welcomed(Enrolled),
    /// The operator said no, and the invite is void.
    Declined,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reception {
    /// The invites.
    pub(crate) book: Book,
    /// The memberships.
    pub(crate) roll: Roll,
    /// What the operator was asked.
    pub(crate) questions: Questions,
    /// Who waits, at most one for each invite: bounded as those are.
    waiting: Mutex<BTreeMap<InviteId, mpsc::Sender<Notice>>>,
}

impl Reception {
    /// What `store` holds.
    ///
    /// # Errors
    /// [`KeepingError`].
    pub(crate) fn restore(store: &Store) -> Result<Arc<Self>, KeepingError> {
        Ok(Arc::new(Self {
            book: Book::restore(store.clone())?,
            roll: Roll::restore(store.clone())?,
            questions: Questions::default(),
            waiting: Mutex::default(),
        }))
    }

    /// Waits for the guest of an invite, until [`Self::leave`].
    pub(crate) fn wait_for(&self, invite: InviteId) -> mpsc::Receiver<Notice> {
        let (sender, receiver) = mpsc::channel(NOTICES_MAX);
        self.lock().insert(invite, sender);
        receiver
    }

    /// Waits no longer.
    pub(crate) fn leave(&self, invite: &InviteId) {
        self.lock().remove(invite);
    }

    /// Tells whoever waits for the guest of `invite`. Returns whether anybody does.
    pub(crate) async fn tell(&self, invite: &InviteId, notice: Notice) -> bool {
        let waiting = self.lock().get(invite).cloned();
        match waiting {
            Some(waiting) => waiting.send(notice).await.is_ok(),
            None => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InviteId, mpsc::Sender<Notice>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
