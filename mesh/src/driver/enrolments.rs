//! Enrolments, in and out: connections of which the machine knows nothing.

use std::sync::Arc;

use comity_protocol::mesh::ConnectionId;
use libp2p::swarm;
use tokio::sync::oneshot;

use super::Driver;
use super::peers::{Peer, Role};
use super::reach::EnrolReply;
use super::tasks::Done;
use crate::connections::Connection;
use crate::enrol::{EnrolStream, IncomingEnrolment};
use crate::handle::OpenError;
use crate::streams::{MeshStream, StreamKind};

impl Driver {
    /// Somebody has come to enrol. A stranger's connection serves that and nothing else from now on; a member may renew
    /// over the connection that it has.
    pub(super) fn enrol_in(&mut self, connection: &Arc<Connection>, stream: MeshStream) {
        let Ok(permit) = self.enrolment_permits.clone().try_acquire_owned() else {
            tracing::warn!(peer = %connection.peer, "refused an enrolment: too many at once");
            return;
        };
        let (ended_sender, ended) = oneshot::channel();
        if connection.org().is_none() {
            self.hand_over_to_enrolment(connection.id);
            self.close_after_enrolment(connection.id, ended);
        }
        let stream = EnrolStream::new(stream, permit, ended_sender);
        let incoming = IncomingEnrolment { peer: connection.peer, stream };
        if self.enrolments.try_send(incoming).is_err() {
            tracing::debug!(peer = %connection.peer, "refused an enrolment: nobody takes them");
        }
    }

    fn hand_over_to_enrolment(&mut self, connection: ConnectionId) {
        let member = self.peers.get_mut(connection).filter(|peer| peer.role == Role::Member);
        let Some(peer) = member else { return };
        peer.role = Role::Enrolment;
        peer.end_link();
        self.mesh.handle_disconnected(connection, "the peer came to enrol", self.clock.now());
    }

    /// We came to enrol, and the connection stands.
    pub(super) fn enrol_out(
        &mut self,
        id: swarm::ConnectionId,
        connection: Arc<Connection>,
        reply: EnrolReply,
    ) {
        self.peers.insert(Peer::new(id, connection.clone(), Role::Enrolment));
        let Ok(permit) = self.enrolment_permits.clone().try_acquire_owned() else {
            let _gave_up = reply.send(Err(OpenError::Overloaded));
            self.close_now(connection.id);
            return;
        };
        let (ended_sender, ended) = oneshot::channel();
        self.close_after_enrolment(connection.id, ended);
        self.tasks.spawn(async move {
            let opened = connection.open(StreamKind::Enrol).await;
            let opened = opened.map(|stream| EnrolStream::new(stream, permit, ended_sender));
            let _gave_up = reply.send(opened.map_err(|error| OpenError::from_stream(connection.peer, error)));
            Done::Nothing
        });
    }
}
