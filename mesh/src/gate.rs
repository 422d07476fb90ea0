//! A gate in front of the protocols that only admitted peers may speak.
//!
//! [`Gated`] wraps a behaviour and keeps a connection from it altogether until [`Gated::accept`]: the inner behaviour has
//! no handler on it, does not know that it exists, keeps no queue and no score for its peer, and none of its protocols
//! is negotiated in either direction. So a stranger gets no application byte, and nothing that the inner behaviour does
//! when a connection is established (gossipsub sends its subscriptions then, once) is lost by the gate opening late: for
//! the inner behaviour the connection is established at that moment.
//!
//! It opens in two stages, because two nodes never open in the same instant. After [`Gated::accept`] the peer's streams
//! are taken, while ours are withheld; [`Gated::admit`] lets ours out. A node accepts before it tells its peer anything
//! that makes the peer admit, so whoever opens a stream finds the other side ready: gossipsub disables itself for good
//! on a connection where its protocol was once not supported. A connection is a task of its own, so accepting takes
//! effect a moment later: whoever has accepted waits for [`GateEvent::Accepted`] before it tells the peer.

mod handler;

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::{AddressChange, ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

pub use handler::{GateHandler, GateIn, GateOut};

/// A behaviour behind a gate. See the module.
pub struct Gated<B: NetworkBehaviour> {
    inner: B,
    connections: HashMap<ConnectionId, Guarded>,
    orders: VecDeque<Order<B>>,
}

/// What comes out of the gate.
#[derive(Debug)]
pub enum GateEvent<E> {
    /// The peer's streams are taken on the connection from now on.
    Accepted(ConnectionId),
    /// From the inner behaviour.
    Inner(E),
}

type Order<B> = ToSwarm<GateEvent<<B as NetworkBehaviour>::ToSwarm>, GateIn<THandler<B>>>;

/// What is kept of a connection so that it can be shown to the inner behaviour later.
struct Guarded {
    peer: PeerId,
    endpoint: ConnectedPoint,
    birth: Birth,
    accepted: bool,
}

/// The arguments with which the swarm announced a connection.
enum Birth {
    Inbound { local: Multiaddr, remote: Multiaddr },
    Outbound { address: Multiaddr, role_override: Endpoint, port_use: PortUse },
}

impl<B: NetworkBehaviour> Gated<B> {
    /// Puts `inner` behind a gate.
    pub fn new(inner: B) -> Self {
        Self { inner, connections: HashMap::new(), orders: VecDeque::new() }
    }

    /// The behaviour behind the gate.
    pub const fn inner(&self) -> &B {
        &self.inner
    }

    /// The behaviour behind the gate.
    pub const fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Shows the connection to the inner behaviour and takes the peer's streams; ours wait for [`Self::admit`].
    /// Does nothing for a connection that is gone or accepted already.
    pub fn accept(&mut self, connection: ConnectionId) {
        let Some(guarded) = self.connections.get(&connection).filter(|guarded| !guarded.accepted) else {
            return;
        };
        let peer = guarded.peer;
        match self.handler_for(connection) {
            Ok(handler) => self.install(connection, peer, handler),
            Err(_denied) => self.orders.push_back(ToSwarm::CloseConnection {
                peer_id: peer,
                connection: CloseConnection::One(connection),
            }),
        }
    }

    /// Lets the inner behaviour's own streams out. Does nothing for a connection that was not accepted.
    pub fn admit(&mut self, connection: ConnectionId) {
        if let Some(guarded) = self.connections.get(&connection).filter(|guarded| guarded.accepted) {
            let peer = guarded.peer;
            self.notify(peer, connection, GateIn::Release);
        }
    }

    fn handler_for(&mut self, connection: ConnectionId) -> Result<THandler<B>, ConnectionDenied> {
        let guarded = &self.connections[&connection];
        match &guarded.birth {
            Birth::Inbound { local, remote } => {
                self.inner.handle_established_inbound_connection(connection, guarded.peer, local, remote)
            }
            Birth::Outbound { address, role_override, port_use } => {
                self.inner.handle_established_outbound_connection(
                    connection,
                    guarded.peer,
                    address,
                    *role_override,
                    *port_use,
                )
            }
        }
    }

    /// Hands the handler to the connection, and only then tells the inner behaviour, whose orders come after.
    fn install(&mut self, connection: ConnectionId, peer: PeerId, handler: THandler<B>) {
        let other_established = self.accepted_of(peer);
        self.notify(peer, connection, GateIn::Install(handler));
        let guarded = self.connections.get_mut(&connection).expect("accept has just read it");
        guarded.accepted = true;
        let endpoint = guarded.endpoint.clone();
        self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: connection,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established,
        }));
    }

    fn notify(&mut self, peer_id: PeerId, connection: ConnectionId, event: THandlerInEvent<Self>) {
        self.orders.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event,
        });
    }

    fn accepted_of(&self, peer: PeerId) -> usize {
        self.connections.values().filter(|guarded| guarded.peer == peer && guarded.accepted).count()
    }

    /// A connection of `peer` that the inner behaviour knows, for what it sends to any.
    fn any_accepted(&self, peer: PeerId) -> Option<ConnectionId> {
        let mut known =
            self.connections.iter().filter(|(_, guarded)| guarded.peer == peer && guarded.accepted);
        known.next().map(|(id, _)| *id)
    }

    fn remember(&mut self, connection: ConnectionId, peer: PeerId, endpoint: ConnectedPoint, birth: Birth) {
        self.connections.insert(connection, Guarded { peer, endpoint, birth, accepted: false });
    }

    fn on_closed(&mut self, closed: ConnectionClosed<'_>) {
        let Some(guarded) = self.connections.remove(&closed.connection_id) else { return };
        if guarded.accepted {
            let remaining_established = self.accepted_of(guarded.peer);
            self.inner.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                remaining_established,
                ..closed
            }));
        }
    }

    fn on_address_change(&mut self, change: AddressChange<'_>) {
        let Some(guarded) = self.connections.get_mut(&change.connection_id) else { return };
        guarded.endpoint = change.new.clone();
        if guarded.accepted {
            self.inner.on_swarm_event(FromSwarm::AddressChange(change));
        }
    }

    /// Addresses what the inner behaviour sends to any connection of a peer to one that it knows.
    fn readdress(&self, order: ToSwarm<B::ToSwarm, THandlerInEvent<B>>) -> Option<Order<B>> {
        match order {
            ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event } => {
                self.any_accepted(peer_id).map(|connection| ToSwarm::NotifyHandler {
                    peer_id,
                    handler: NotifyHandler::One(connection),
                    event: GateIn::Inner(event),
                })
            }
            other => Some(other.map_in(GateIn::Inner).map_out(GateEvent::Inner)),
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Gated<B> {
    type ConnectionHandler = GateHandler<THandler<B>>;
    type ToSwarm = GateEvent<B::ToSwarm>;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let endpoint = ConnectedPoint::Listener { local_addr: local.clone(), send_back_addr: remote.clone() };
        let birth = Birth::Inbound { local: local.clone(), remote: remote.clone() };
        self.remember(connection, peer, endpoint, birth);
        Ok(GateHandler::shut())
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let endpoint = ConnectedPoint::Dialer { address: address.clone(), role_override, port_use };
        let birth = Birth::Outbound { address: address.clone(), role_override, port_use };
        self.remember(connection, peer, endpoint, birth);
        Ok(GateHandler::shut())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(_) => {}
            FromSwarm::ConnectionClosed(closed) => self.on_closed(closed),
            FromSwarm::AddressChange(change) => self.on_address_change(change),
            FromSwarm::DialFailure(failure) => {
                self.connections.remove(&failure.connection_id);
                self.inner.on_swarm_event(event);
            }
            FromSwarm::ListenFailure(failure) => {
                self.connections.remove(&failure.connection_id);
                self.inner.on_swarm_event(event);
            }
            other => self.inner.on_swarm_event(other),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            GateOut::Installed => {
                self.orders.push_back(ToSwarm::GenerateEvent(GateEvent::Accepted(connection)));
            }
            GateOut::Inner(event) => self.inner.on_connection_handler_event(peer, connection, event),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(order) = self.orders.pop_front() {
                return Poll::Ready(order);
            }
            let Poll::Ready(order) = self.inner.poll(cx) else { return Poll::Pending };
            if let Some(order) = self.readdress(order) {
                return Poll::Ready(order);
            }
        }
    }
}
