//! How bytes travel: QUIC, or TCP with Noise and Yamux, both dialled by name where need be.
//!
//! `transport` makes the real one (the feature `sockets`); whoever has another, as the simulator has, [`secured`] makes one
//! of its raw connections, for [`super::start_over`].

#[cfg(feature = "sockets")]
use std::io;
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::futures::{AsyncRead, AsyncWrite};
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport, noise, yamux};
#[cfg(feature = "sockets")]
use libp2p::{dns, futures::future::Either, quic, tcp};

/// What every transport of ours yields: who is at the other end, proved by its key, and a connection to open streams on.
pub type MeshTransport = Boxed<(PeerId, StreamMuxerBox)>;

/// Streams that a peer may have open at once on a connection; it waits for one to end before it opens more.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 1024;

/// Bytes that a peer may send ahead on one QUIC stream that nobody reads.
#[cfg(feature = "sockets")]
const QUIC_STREAM_WINDOW: u32 = 2 * 1024 * 1024;

/// Bytes that a peer may send ahead on one QUIC connection that nobody reads.
#[cfg(feature = "sockets")]
const QUIC_CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// A QUIC connection on which nothing was heard for so long is dead. The link's pings come sooner.
#[cfg(feature = "sockets")]
const QUIC_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a QUIC handshake may take.
#[cfg(feature = "sockets")]
const QUIC_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a TCP connection may take to be made, secured and multiplexed.
const TCP_TIMEOUT: Duration = Duration::from_secs(15);

/// QUIC and TCP for the holder of `keypair`.
///
/// # Errors
/// When the system's random generator cannot make the keys of a session.
#[cfg(feature = "sockets")]
pub fn transport(keypair: &Keypair) -> io::Result<MeshTransport> {
    let noise = noise::Config::new(keypair).map_err(io::Error::other)?;
    let over_tcp =
        || upgraded(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)), noise.clone());
    let over_quic = || {
        quic::tokio::Transport::new(quic_config(keypair))
            .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
    };
    let by_address = || {
        over_quic().or_transport(over_tcp()).map(|either, _| match either {
            Either::Left(output) | Either::Right(output) => output,
        })
    };
    match dns::tokio::Transport::system(by_address()) {
        Ok(by_name) => Ok(by_name.boxed()),
        Err(error) => {
            tracing::warn!(%error, "no usable resolver configuration: peers can be dialled by IP address only");
            Ok(by_address().boxed())
        }
    }
}

/// A transport of raw connections made into one of the mesh's as TCP is: Noise proves the keys, Yamux carries the streams.
///
/// # Errors
/// When the system's random generator cannot make the keys of a session.
pub fn secured<T>(raw: T, keypair: &Keypair) -> Result<MeshTransport, noise::Error>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    Ok(upgraded(raw, noise::Config::new(keypair)?).boxed())
}

fn upgraded<T>(
    raw: T,
    noise: noise::Config,
) -> impl Transport<
    Output = (PeerId, StreamMuxerBox),
    Error: Send + Sync + 'static,
    Dial: Send + 'static,
    ListenerUpgrade: Send + 'static,
> + Send
+ Unpin
+ 'static
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    raw.upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux_config())
        .timeout(TCP_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
}

#[cfg(feature = "sockets")]
fn quic_config(keypair: &Keypair) -> quic::Config {
    let mut config = quic::Config::new(keypair);
    config.handshake_timeout = QUIC_HANDSHAKE_TIMEOUT;
    config.max_idle_timeout = u32::try_from(QUIC_IDLE_TIMEOUT.as_millis()).expect("a small constant");
    config.max_concurrent_stream_limit = STREAMS_PER_CONNECTION_MAX;
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_CONNECTION_WINDOW;
    config
}

fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS_PER_CONNECTION_MAX as usize);
    config
}
