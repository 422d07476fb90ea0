//! A stranger's way to a node: a swarm of its own that dials one node, opens one enrolment stream and does nothing else.
//!
//! A machine that has no membership runs no mesh, and still must reach whoever invited it. It listens nowhere, so it
//! takes nothing from anybody; the transport proves the key at the other end before a byte is sent.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use comity_protocol::ids::NodeId;
use ed25519_dalek::SigningKey;
use libp2p::Multiaddr;
use libp2p::core::ConnectedPoint;
use libp2p::futures::StreamExt as _;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, Swarm, SwarmEvent};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::behaviour::swarm_config;
use super::connections::{Connection, OpenStreamError};
use super::driver::describe_dial_error;
use super::streams::{MeshStream, StreamKind, Streams};
use super::{peer, transport};
use crate::clock::Clock;

/// How long it may take to reach a node, all of its addresses together.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(20);

/// Addresses that are tried; those beyond are not.
pub const ADDRESSES_MAX: usize = 16;

/// Why a node was not reached.
#[derive(Debug, thiserror::Error)]
pub enum StrangerError {
    /// No transport could be made.
    #[error("cannot make a transport")]
    Transport(#[source] io::Error),
    /// Somebody else's key answers at every address that answers at all.
    #[error("another key answers at {address}: {found} instead of {expected}")]
    OtherKey {
        /// Where.
        address: Multiaddr,
        /// Whose key it is.
        found: String,
        /// Whose it should be.
        expected: NodeId,
    },
    /// Nothing answers.
    #[error("cannot reach {node}: {detail}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// What went wrong at each address.
        detail: String,
    },
    /// It answers, and gives no stream.
    #[error("{node} takes no enrolments")]
    Stream {
        /// The node.
        node: NodeId,
        /// What went wrong.
        source: OpenStreamError,
    },
}

/// The stream of one enrolment, on a connection that exists for it alone. Shut it down and read it to its end before it
/// is dropped, so that what was written last arrives.
pub struct StrangerStream {
    stream: MeshStream,
    address: Multiaddr,
    /// Drives the connection; ended with the stream.
    _swarm: AbortOnDropHandle<()>,
}

impl StrangerStream {
    /// At which of its addresses the node was reached.
    pub const fn address(&self) -> &Multiaddr {
        &self.address
    }
}

/// Opens an enrolment stream to the holder of the key of `node`, at whichever of `addresses` it answers first. Addresses
/// at which others answer are passed over. Cancel-safe.
///
/// # Errors
/// [`StrangerError`]; nothing was sent then.
pub async fn dial(
    key: &SigningKey,
    clock: Clock,
    node: NodeId,
    addresses: &[Multiaddr],
) -> Result<StrangerStream, StrangerError> {
    let mut dialler = Dialler::new(key, clock, node, addresses)?;
    let dialled = timeout(DIAL_DEADLINE, dialler.reach()).await;
    let unreachable = |detail: &str| StrangerError::Unreachable { node, detail: detail.to_owned() };
    let (address, connection) = dialled.map_err(|_| unreachable("it took too long"))??;
    let swarm = AbortOnDropHandle::new(tokio::spawn(dialler.run()));
    let opened = timeout(DIAL_DEADLINE, connection.open(StreamKind::Enrol)).await;
    let opened = opened.unwrap_or(Err(OpenStreamError::TimedOut));
    let stream = opened.map_err(|source| StrangerError::Stream { node, source })?;
    Ok(StrangerStream { stream, address, _swarm: swarm })
}

struct Dialler {
    swarm: Swarm<Streams>,
    node: NodeId,
    addresses: Vec<Multiaddr>,
}

impl Dialler {
    fn new(
        key: &SigningKey,
        clock: Clock,
        node: NodeId,
        addresses: &[Multiaddr],
    ) -> Result<Self, StrangerError> {
        let keypair = peer::keypair(key);
        let transport = transport::transport(&keypair).map_err(StrangerError::Transport)?;
        // Nobody is admitted here, so no call ever comes.
        let (calls, _none) = mpsc::channel(1);
        let streams = Streams::new(clock, calls);
        let swarm = Swarm::new(transport, streams, keypair.public().to_peer_id(), swarm_config());
        let addresses = addresses.iter().take(ADDRESSES_MAX).cloned().map(peer::without_peer).collect();
        Ok(Self { swarm, node, addresses })
    }

    /// Dials all addresses at once; one at which another key answers is taken out, and the rest are dialled again.
    async fn reach(&mut self) -> Result<(Multiaddr, Arc<Connection>), StrangerError> {
        let mut strangers = BTreeMap::new();
        loop {
            match self.attempt().await {
                Ok(reached) => return Ok(reached),
                Err(DialError::WrongPeerId { obtained, address }) => {
                    let address = peer::without_peer(address);
                    self.addresses.retain(|known| *known != address);
                    let known = strangers.insert(address.clone(), obtained).is_some();
                    if self.addresses.is_empty() || known {
                        let (found, expected) = (obtained.to_string(), self.node);
                        return Err(StrangerError::OtherKey { address, found, expected });
                    }
                }
                Err(error) => {
                    return Err(StrangerError::Unreachable {
                        node: self.node,
                        detail: describe_dial_error(&error),
                    });
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<(Multiaddr, Arc<Connection>), DialError> {
        let options = DialOpts::peer_id(peer::peer_id(self.node)).addresses(self.addresses.clone()).build();
        self.swarm.dial(options)?;
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { connection_id, endpoint, .. } => {
                    if let Some(connection) = self.swarm.behaviour().connection(connection_id).cloned() {
                        return Ok((dialled_address(endpoint), connection));
                    }
                }
                SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error),
                _ => {}
            }
        }
    }

    /// Keeps the connection going. What the other side begins is dropped.
    async fn run(mut self) {
        loop {
            self.swarm.select_next_some().await;
        }
    }
}

fn dialled_address(endpoint: ConnectedPoint) -> Multiaddr {
    peer::without_peer(endpoint.get_remote_address().clone())
}

impl fmt::Debug for StrangerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.stream, self.address)
    }
}

impl AsyncRead for StrangerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for StrangerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
