//! The gate on one connection: no inner handler at first, then one whose streams are withheld, then an open one.

use std::fmt;
use std::task::{Context, Poll, Waker};

use libp2p::core::upgrade::{InboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, FullyNegotiatedInbound, InboundUpgradeSend,
    ListenUpgradeError, UpgradeInfoSend,
};
use libp2p::swarm::{Stream, SubstreamProtocol};

/// Outbound streams of the inner handler that wait for the gate to open; a handler that asks for more is not polled
/// until then.
const WITHHELD_MAX: usize = 8;

/// What the gate tells a connection.
pub enum GateIn<H: ConnectionHandler> {
    /// The inner handler; its inbound protocols are on offer from now on.
    Install(H),
    /// The inner handler's own streams may go out.
    Release,
    /// For the inner handler.
    Inner(H::FromBehaviour),
}

impl<H: ConnectionHandler> fmt::Debug for GateIn<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Install(_) => f.write_str("Install"),
            Self::Release => f.write_str("Release"),
            Self::Inner(event) => f.debug_tuple("Inner").field(event).finish(),
        }
    }
}

/// What a connection tells the gate.
#[derive(Debug)]
pub enum GateOut<E> {
    /// The inner handler is in place: the peer's streams are taken from now on.
    Installed,
    /// From the inner handler.
    Inner(E),
}

type Event<H> = ConnectionHandlerEvent<
    <H as ConnectionHandler>::OutboundProtocol,
    <H as ConnectionHandler>::OutboundOpenInfo,
    GateOut<<H as ConnectionHandler>::ToBehaviour>,
>;

/// The handler of a gated behaviour.
pub struct GateHandler<H: ConnectionHandler> {
    inner: Option<H>,
    announced: bool,
    released: bool,
    withheld: Vec<Event<H>>,
    waker: Option<Waker>,
}

impl<H: ConnectionHandler> GateHandler<H> {
    pub(super) fn shut() -> Self {
        Self { inner: None, announced: false, released: false, withheld: Vec::new(), waker: None }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<H: ConnectionHandler> ConnectionHandler for GateHandler<H> {
    type FromBehaviour = GateIn<H>;
    type ToBehaviour = GateOut<H::ToBehaviour>;
    type InboundProtocol = GateUpgrade<H::InboundProtocol>;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = Option<H::InboundOpenInfo>;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        match &self.inner {
            Some(inner) => {
                inner.listen_protocol().map_upgrade(|upgrade| GateUpgrade(Some(upgrade))).map_info(Some)
            }
            None => SubstreamProtocol::new(GateUpgrade(None), None),
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.as_ref().is_some_and(H::connection_keep_alive)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event<H>> {
        self.waker = Some(cx.waker().clone());
        if self.released && !self.withheld.is_empty() {
            return Poll::Ready(self.withheld.remove(0));
        }
        let Some(inner) = &mut self.inner else { return Poll::Pending };
        if !std::mem::replace(&mut self.announced, true) {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(GateOut::Installed));
        }
        while self.withheld.len() < WITHHELD_MAX {
            match inner.poll(cx).map(|event| event.map_custom(GateOut::Inner)) {
                Poll::Ready(request @ ConnectionHandlerEvent::OutboundSubstreamRequest { .. })
                    if !self.released =>
                {
                    self.withheld.push(request);
                }
                other => return other,
            }
        }
        Poll::Pending
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        inner.poll_close(cx).map(|last| last.map(GateOut::Inner))
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match (event, &mut self.inner) {
            (GateIn::Install(handler), _) => self.inner = Some(handler),
            (GateIn::Release, _) => self.released = true,
            (GateIn::Inner(event), Some(inner)) => inner.on_behaviour_event(event),
            (GateIn::Inner(_), None) => {}
        }
        self.wake();
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        let Some(inner) = &mut self.inner else { return };
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol,
                info: Some(info),
            }) => {
                let inbound = FullyNegotiatedInbound { protocol, info };
                inner.on_connection_event(ConnectionEvent::FullyNegotiatedInbound(inbound));
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info: Some(info), error }) => {
                let error = ListenUpgradeError { info, error };
                inner.on_connection_event(ConnectionEvent::ListenUpgradeError(error));
            }
            ConnectionEvent::FullyNegotiatedOutbound(outbound) => {
                inner.on_connection_event(ConnectionEvent::FullyNegotiatedOutbound(outbound));
            }
            ConnectionEvent::DialUpgradeError(error) => {
                inner.on_connection_event(ConnectionEvent::DialUpgradeError(error));
            }
            ConnectionEvent::AddressChange(change) => {
                inner.on_connection_event(ConnectionEvent::AddressChange(change));
            }
            ConnectionEvent::LocalProtocolsChange(change) => {
                inner.on_connection_event(ConnectionEvent::LocalProtocolsChange(change));
            }
            ConnectionEvent::RemoteProtocolsChange(change) => {
                inner.on_connection_event(ConnectionEvent::RemoteProtocolsChange(change));
            }
            // What the shut gate had offered: nothing, so that nothing can come of it.
            _ => {}
        }
    }
}

/// The inner handler's inbound upgrade, or one that offers nothing.
pub struct GateUpgrade<U>(Option<U>);

impl<U: UpgradeInfoSend> UpgradeInfo for GateUpgrade<U> {
    type Info = U::Info;
    type InfoIter = std::iter::Flatten<std::option::IntoIter<U::InfoIter>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.as_ref().map(U::protocol_info).into_iter().flatten()
    }
}

impl<U: InboundUpgradeSend> InboundUpgrade<Stream> for GateUpgrade<U> {
    type Output = U::Output;
    type Error = U::Error;
    type Future = U::Future;

    fn upgrade_inbound(self, stream: Stream, info: Self::Info) -> Self::Future {
        let upgrade = self.0.expect("an upgrade that offers no protocol is never chosen");
        upgrade.upgrade_inbound(stream, info)
    }
}
