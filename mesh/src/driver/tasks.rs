//! What the driver has others do: pulls, answers to pulls, records, waiting for calls to end.

use std::sync::Arc;
use std::time::Duration;

use comity_protocol::advert::Sequence;
use comity_protocol::ids::{BlobDigest, NodeId, OrgName};
use comity_protocol::mesh::{ConnectionId, FetchId};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{sleep, timeout};

use super::{Driver, MeshError};
use crate::blobs::{self, PullError};
use crate::connections::Connection;
use crate::enrol::ENROLMENT_DEADLINE;
use crate::handle::MeshHandle;
use crate::persist::PersistError;
use crate::streams::{MeshStream, StreamKind};

/// How long calls may go on over a connection that is to be closed.
const CALLS_GRACE: Duration = Duration::from_secs(60);

/// How long the last bytes of an enrolment have to arrive.
const ENROLMENT_LINGER: Duration = Duration::from_secs(1);

/// How a task of the driver's ended.
pub(super) enum Done {
    /// There is nothing to say.
    Nothing,
    /// A pull has ended.
    Fetched { id: FetchId, answers: Option<Vec<Option<Vec<u8>>>> },
    /// The connection is to be closed now.
    Close(ConnectionId),
}

/// A peer's wish for blobs, which only the driver can look up.
pub(super) struct Lookup {
    org: OrgName,
    digests: Vec<BlobDigest>,
    reply: oneshot::Sender<Vec<Option<Arc<[u8]>>>>,
}

/// A group of records that was handed over, and the own sequence among it.
pub(super) type Persisted = (Result<(), PersistError>, Option<Sequence>);

/// The result of the group of records that is under way; never, when there is none. Cancel-safe.
pub(super) async fn settled(persisting: &mut Option<JoinHandle<Persisted>>) -> Result<Persisted, JoinError> {
    let Some(task) = persisting else { return std::future::pending().await };
    let result = task.await;
    *persisting = None;
    result
}

impl Driver {
    /// Hands the waiting records over, one group at a time.
    pub(super) fn persist_waiting(&mut self) {
        if self.persisting.is_some() {
            return;
        }
        let Some((records, own)) = self.backlog.take() else { return };
        let persisting = self.persister.persist(records);
        self.persisting = Some(tokio::spawn(async move { (persisting.await, own) }));
    }

    pub(super) fn on_persisted(&mut self, persisted: Result<Persisted, JoinError>) -> Result<(), MeshError> {
        let (result, own) = persisted.map_err(|error| MeshError::Persist(error.into()))?;
        result.map_err(MeshError::Persist)?;
        if let Some(sequence) = own {
            self.mesh.handle_persisted(sequence, self.clock.now());
        }
        Ok(())
    }

    pub(super) fn on_done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Nothing) => {}
            Ok(Done::Fetched { id, answers }) => self.mesh.handle_blobs(id, answers, self.clock.now()),
            Ok(Done::Close(connection)) => self.close_now(connection),
            // The connection that the task served ends by its silence or its deadline; the node goes on.
            Err(error) => tracing::error!(%error, "a task of the mesh panicked: this is a bug"),
        }
    }

    pub(super) fn fetch(
        &mut self,
        id: FetchId,
        from: NodeId,
        addresses: Vec<String>,
        digests: Vec<BlobDigest>,
    ) {
        let handle = self.handle.clone();
        self.tasks.spawn(async move {
            let answers = pull(&handle, from, &addresses, digests).await;
            Done::Fetched { id, answers }
        });
    }

    /// Serves a pull of an admitted peer.
    pub(super) fn serve(&mut self, connection: &Arc<Connection>, stream: MeshStream) {
        let Some(org) = connection.org().cloned() else { return };
        let Some(permit) = self.pull_permit(connection.id) else {
            tracing::debug!(peer = %connection.peer, "refused a pull: too many at once");
            return;
        };
        let (lookups, peer) = (self.lookup_sender.clone(), connection.peer);
        self.tasks.spawn(async move {
            if let Err(error) = answer(stream, org, &lookups).await {
                tracing::debug!(%peer, %error, "a pull by a peer failed");
            }
            drop(permit);
            Done::Nothing
        });
    }

    fn pull_permit(&self, connection: ConnectionId) -> Option<OwnedSemaphorePermit> {
        self.peers.get(connection)?.pulls.clone().try_acquire_owned().ok()
    }

    pub(super) fn on_lookup(&self, lookup: Lookup) {
        let Lookup { org, digests, reply } = lookup;
        let blobs = digests.iter().map(|digest| self.mesh.blob_for(&org, digest)).collect();
        let _gave_up = reply.send(blobs);
    }

    /// Closes the connection when no call runs over it any more, or they have taken too long.
    pub(super) fn close_when_idle(&mut self, connection: Arc<Connection>) {
        self.tasks.spawn(async move {
            let _in_time = timeout(CALLS_GRACE, connection.idle()).await;
            Done::Close(connection.id)
        });
    }

    /// Closes an enrolment's connection soon after its stream was dropped, or when it has taken too long.
    pub(super) fn close_after_enrolment(&mut self, connection: ConnectionId, ended: oneshot::Receiver<()>) {
        self.tasks.spawn(async move {
            if timeout(ENROLMENT_DEADLINE, ended).await.is_ok() {
                sleep(ENROLMENT_LINGER).await;
            }
            Done::Close(connection)
        });
    }
}

async fn pull(
    handle: &MeshHandle,
    from: NodeId,
    addresses: &[String],
    digests: Vec<BlobDigest>,
) -> Option<Vec<Option<Vec<u8>>>> {
    let stream = handle.open(from, addresses, StreamKind::Blob).await;
    let stream = stream.inspect_err(|error| tracing::debug!(%error, "cannot pull")).ok()?;
    let pulled = blobs::pull(stream, digests).await;
    pulled.inspect_err(|error| tracing::debug!(peer = %from, %error, "a pull failed")).ok()
}

async fn answer(
    mut stream: MeshStream,
    org: OrgName,
    lookups: &mpsc::Sender<Lookup>,
) -> Result<(), PullError> {
    let digests = blobs::read_request(&mut stream).await?;
    let (reply, found) = oneshot::channel();
    if lookups.send(Lookup { org, digests, reply }).await.is_err() {
        return Ok(());
    }
    match found.await {
        Ok(found) => blobs::answer(stream, found).await,
        Err(_stopped) => Ok(()),
    }
}
