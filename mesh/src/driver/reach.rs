//! Reaching others: dials under way, and who waits for a connection.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use comity_protocol::ids::NodeId;
use comity_protocol::mesh::DialTarget;
use libp2p::Multiaddr;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use tokio::sync::oneshot;

use super::Driver;
use crate::connections::Connection;
use crate::enrol::EnrolStream;
use crate::handle::OpenError;
use crate::peer;

/// Calls and pulls that wait for connections; more are refused as overloaded.
const WAITERS_MAX: usize = 2048;

type Reply = oneshot::Sender<Result<Arc<Connection>, OpenError>>;
pub(super) type EnrolReply = oneshot::Sender<Result<EnrolStream, OpenError>>;

/// Dials under way and who waits. Dials are bounded by the swarm's limit on pending connections.
#[derive(Default)]
pub(super) struct Reach {
    dials: HashMap<ConnectionId, Dial>,
    waiters: BTreeMap<NodeId, Vec<Reply>>,
}

/// A dial under way.
pub(super) struct Dial {
    pub(super) target: DialTarget,
    pub(super) purpose: Purpose,
    /// Addresses still to be tried one by one, when it is not known whose they are.
    rest: VecDeque<Multiaddr>,
}

/// What a dial is for.
pub(super) enum Purpose {
    /// A link, and whatever the peers then do.
    Link,
    /// An enrolment.
    Enrol(EnrolReply),
}

impl Reach {
    pub(super) fn take_dial(&mut self, connection: ConnectionId) -> Option<Dial> {
        self.dials.remove(&connection)
    }

    fn is_dialling(&self, node: NodeId) -> bool {
        let leads_there =
            |dial: &Dial| dial.target.node == Some(node) && matches!(dial.purpose, Purpose::Link);
        self.dials.values().any(leads_there)
    }

    /// Gives `connection` to all who wait for its peer.
    pub(super) fn reached(&mut self, connection: &Arc<Connection>) {
        for waiter in self.waiters.remove(&connection.peer).into_iter().flatten() {
            let _gave_up = waiter.send(Ok(connection.clone()));
        }
    }

    /// Tells all who wait for `node` that it cannot be had.
    pub(super) fn gave_up(&mut self, node: NodeId, error: &OpenError) {
        for waiter in self.waiters.remove(&node).into_iter().flatten() {
            let _gave_up = waiter.send(Err(error.clone()));
        }
    }

    fn wait(&mut self, node: NodeId, reply: Reply) -> Result<(), Reply> {
        self.waiters.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        if self.waiters.values().map(Vec::len).sum::<usize>() >= WAITERS_MAX {
            return Err(reply);
        }
        self.waiters.entry(node).or_default().push(reply);
        Ok(())
    }
}

impl Driver {
    /// A task wants a connection to an admitted node. One that stands is given at once, one that is being made is waited
    /// for, and else one is made: however many wait, one dial is under way.
    pub(super) fn connect(&mut self, node: NodeId, addresses: Vec<String>, reply: Reply) {
        if self.leaving.is_some() {
            let _gave_up = reply.send(Err(OpenError::ShuttingDown));
            return;
        }
        if let Some(connection) = self.shared.admitted.best(node) {
            let _gave_up = reply.send(Ok(connection));
            return;
        }
        if let Err(reply) = self.reach.wait(node, reply) {
            let _gave_up = reply.send(Err(OpenError::Overloaded));
            return;
        }
        if !self.peers.has_hope_for(node) && !self.reach.is_dialling(node) {
            let addresses = if addresses.is_empty() { self.known_addresses(node) } else { addresses };
            self.dial(DialTarget { node: Some(node), addresses }, Purpose::Link);
        }
    }

    fn known_addresses(&self, node: NodeId) -> Vec<String> {
        self.mesh.directory().get(&node).map(|entry| entry.advert().addresses.clone()).unwrap_or_default()
    }

    pub(super) fn dial_to_enrol(&mut self, node: NodeId, address: &Multiaddr, reply: EnrolReply) {
        let target = DialTarget { node: Some(node), addresses: vec![address.to_string()] };
        self.dial(target, Purpose::Enrol(reply));
    }

    /// Dials; that it failed is told at once or later, in the same way.
    ///
    /// The swarm's own conditions on dialling are not used: it would refuse to dial a node to which a connection stands
    /// that is closing, or is an enrolment's. The machine and [`Self::connect`] know better.
    pub(super) fn dial(&mut self, target: DialTarget, purpose: Purpose) {
        let mut rest = VecDeque::from(peer::addresses(&target.addresses));
        let options = match target.node {
            Some(_) if rest.is_empty() => None,
            Some(node) => Some(
                DialOpts::peer_id(peer::peer_id(node))
                    .addresses(rest.drain(..).collect())
                    .condition(PeerCondition::Always)
                    .build(),
            ),
            None => rest.pop_front().map(DialOpts::from),
        };
        let dial = Dial { target, purpose, rest };
        match options {
            Some(options) => self.dial_with(options, dial),
            None => self.dial_failed(dial, "it has no address that this node can dial"),
        }
    }

    fn dial_with(&mut self, options: DialOpts, dial: Dial) {
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.reach.dials.insert(connection, dial);
            }
            Err(error) => self.next_address(dial, &error),
        }
    }

    pub(super) fn on_dial_error(&mut self, connection: ConnectionId, error: &DialError) {
        if let Some(dial) = self.reach.take_dial(connection) {
            self.next_address(dial, error);
        }
    }

    fn next_address(&mut self, mut dial: Dial, error: &DialError) {
        match dial.rest.pop_front() {
            Some(address) => self.dial_with(DialOpts::from(address), dial),
            None => self.dial_failed(dial, &describe(error)),
        }
    }

    fn dial_failed(&mut self, dial: Dial, detail: &str) {
        let Dial { target, purpose, .. } = dial;
        tracing::debug!(node = ?target.node, addresses = ?target.addresses, detail, "a dial failed");
        match (purpose, target.node) {
            (Purpose::Enrol(reply), Some(node)) => {
                let _gave_up = reply.send(Err(OpenError::unreachable(node, detail)));
            }
            (Purpose::Enrol(_), None) => {}
            (Purpose::Link, node) => {
                self.mesh.handle_dial_failed(&target, self.clock.now());
                if let Some(node) = node {
                    self.give_up_if_hopeless(node, detail);
                }
            }
        }
    }

    /// Tells those who wait for `node` when nothing is under way any more that could reach it.
    pub(super) fn give_up_if_hopeless(&mut self, node: NodeId, detail: &str) {
        if !self.peers.has_hope_for(node) && !self.reach.is_dialling(node) {
            self.reach.gave_up(node, &OpenError::unreachable(node, detail));
        }
    }
}

/// The error in one line, without the library's repetitions.
pub(crate) fn describe(error: &DialError) -> String {
    match error {
        DialError::Transport(errors) => {
            let each = errors.iter().map(|(address, error)| format!("{address}: {}", root_cause(error)));
            each.collect::<Vec<_>>().join("; ")
        }
        DialError::Denied { cause } => format!("this node has no room for it: {}", root_cause(cause)),
        other => other.to_string(),
    }
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
