//! Our protocols on one connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::iter::Copied;
use std::slice;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, DialUpgradeError, FullyNegotiatedInbound,
    FullyNegotiatedOutbound,
};
use libp2p::swarm::{Stream, StreamUpgradeError, SubstreamProtocol};
use tokio::sync::{mpsc, oneshot};

use super::{Inbound, IncomingCall, MeshStream, StreamKind};
use crate::connections::{Connection, OpenRequest, OpenStreamError};

/// Inbound streams of one connection that wait, for admission or for the driver; more are refused.
const WAITING_MAX: usize = 32;

/// How long the transport may take to give a stream.
const STREAM_DEADLINE: Duration = Duration::from_secs(10);

const STRANGERS: &[StreamKind] = &[StreamKind::Link, StreamKind::Enrol];
const PEERS: &[StreamKind] = &[StreamKind::Link, StreamKind::Call, StreamKind::Blob, StreamKind::Enrol];

/// How far a connection has got.
#[derive(Clone, Copy, Debug)]
pub enum StageChange {
    /// Calls and blobs are on offer.
    Accept,
    /// Calls that came meanwhile go to the executor.
    Admit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Stranger,
    Accepted,
    Admitted,
}

/// The handler of [`super::Streams`].
pub struct StreamsHandler {
    connection: Arc<Connection>,
    requests: mpsc::Receiver<OpenRequest>,
    calls: mpsc::Sender<IncomingCall>,
    stage: Stage,
    held: Vec<(StreamKind, MeshStream)>,
    events: VecDeque<Inbound>,
    waker: Option<Waker>,
}

impl StreamsHandler {
    pub(super) fn new(
        connection: Arc<Connection>,
        requests: mpsc::Receiver<OpenRequest>,
        calls: mpsc::Sender<IncomingCall>,
    ) -> Self {
        Self {
            connection,
            requests,
            calls,
            stage: Stage::Stranger,
            held: Vec::new(),
            events: VecDeque::new(),
            waker: None,
        }
    }

    fn offer(&self) -> Offer {
        Offer(if self.stage == Stage::Stranger { STRANGERS } else { PEERS })
    }

    /// Work waits for admission; all else goes its way at once.
    fn take_in(&mut self, kind: StreamKind, stream: Stream) {
        let stream = MeshStream::inbound(stream, self.connection.clone(), kind);
        if kind.is_work() && self.stage != Stage::Admitted {
            if self.held.len() < WAITING_MAX {
                self.held.push((kind, stream));
            }
        } else {
            self.deliver(kind, stream);
        }
    }

    fn deliver(&mut self, kind: StreamKind, stream: MeshStream) {
        if kind == StreamKind::Call {
            self.deliver_call(stream);
        } else if self.events.len() < WAITING_MAX {
            self.events.push_back(Inbound { connection: self.connection.clone(), kind, stream });
            self.wake();
        }
    }

    /// A call that nobody has room for is dropped, which the caller sees as a stream reset before any answer.
    fn deliver_call(&self, stream: MeshStream) {
        let Some(org) = self.connection.org().cloned() else { return };
        let is_client = self.connection.has_role(comity_protocol::trust::Role::Client);
        let call = IncomingCall { peer: self.connection.peer, org, is_client, stream };
        if self.calls.try_send(call).is_err() {
            tracing::debug!(peer = %self.connection.peer, "refused a call: the queue of incoming calls is full");
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A handler goes when its connection does, under every transport and whoever ended it.
impl Drop for StreamsHandler {
    fn drop(&mut self) {
        self.connection.ending.end();
        self.connection.idle_streams.close();
    }
}

impl ConnectionHandler for StreamsHandler {
    type FromBehaviour = StageChange;
    type ToBehaviour = Inbound;
    type InboundProtocol = Offer;
    type OutboundProtocol = Wish;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opening;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(self.offer(), ()).with_timeout(STREAM_DEADLINE)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Wish, Opening, Inbound>> {
        if let Some(inbound) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(inbound));
        }
        self.waker = Some(cx.waker().clone());
        if let Poll::Ready(Some(OpenRequest { kind, reply })) = self.requests.poll_recv(cx) {
            let protocol = SubstreamProtocol::new(Wish(kind), Opening { kind, reply });
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: protocol.with_timeout(STREAM_DEADLINE),
            });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: StageChange) {
        match event {
            StageChange::Accept if self.stage == Stage::Stranger => self.stage = Stage::Accepted,
            StageChange::Accept => {}
            StageChange::Admit => {
                self.stage = Stage::Admitted;
                for (kind, stream) in std::mem::take(&mut self.held) {
                    self.deliver(kind, stream);
                }
            }
        }
        self.wake();
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Wish, (), Opening>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (kind, stream),
                ..
            }) => self.take_in(kind, stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                let stream = MeshStream::outbound(protocol, self.connection.clone(), info.kind);
                let _nobody_waits = info.reply.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let _nobody_waits = info.reply.send(Err(open_error(info.kind, error)));
            }
            _ => {}
        }
    }
}

fn open_error(kind: StreamKind, error: StreamUpgradeError<Infallible>) -> OpenStreamError {
    match error {
        StreamUpgradeError::Timeout => OpenStreamError::TimedOut,
        StreamUpgradeError::NegotiationFailed => OpenStreamError::Unsupported(kind.protocol()),
        StreamUpgradeError::Io(error) => OpenStreamError::Io(error.to_string()),
        StreamUpgradeError::Apply(never) => match never {},
    }
}

/// What a stream was asked for, until it is there.
pub struct Opening {
    kind: StreamKind,
    reply: oneshot::Sender<Result<MeshStream, OpenStreamError>>,
}

/// The protocols that a peer may choose from.
#[derive(Clone, Copy)]
pub struct Offer(&'static [StreamKind]);

impl UpgradeInfo for Offer {
    type Info = StreamKind;
    type InfoIter = Copied<slice::Iter<'static, StreamKind>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().copied()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (StreamKind, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, kind: StreamKind) -> Self::Future {
        ready(Ok((kind, stream)))
    }
}

/// The one protocol that we ask for.
#[derive(Clone, Copy)]
pub struct Wish(StreamKind);

impl UpgradeInfo for Wish {
    type Info = StreamKind;
    type InfoIter = std::iter::Once<StreamKind>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(self.0)
    }
}

impl OutboundUpgrade<Stream> for Wish {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamKind) -> Self::Future {
        ready(Ok(stream))
    }
}
