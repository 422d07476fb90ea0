//! How bytes travel: QUIC, or TCP with Noise and Yamux, both dialled by name where need be.
//!
//! [`transport`] makes the real one; whoever has another (a simulator, a test) hands [`super::start`] its own.

use std::io;
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::futures::future::Either;
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport as _, dns, noise, quic, tcp, yamux};

/// What every transport of ours yields: who is at the other end, proved by its key, and a connection to open streams on.
pub type MeshTransport = Boxed<(PeerId, StreamMuxerBox)>;

/// Streams that a peer may have open at once on a connection; it waits for one to end before it opens more.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 1024;

/// Bytes that a peer may send ahead on one QUIC stream that nobody reads.
const QUIC_STREAM_WINDOW: u32 = 2 * 1024 * 1024;

/// Bytes that a peer may send ahead on one QUIC connection that nobody reads.
const QUIC_CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// A QUIC connection on which nothing was heard for so long is dead. The link's pings come sooner.
const QUIC_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a QUIC handshake may take.
const QUIC_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a TCP connection may take to be made, secured and multiplexed.
const TCP_TIMEOUT: Duration = Duration::from_secs(15);

/// QUIC and TCP for the holder of `keypair`.
///
/// # Errors
/// When the system's random generator cannot make the keys of a session.
pub fn transport(keypair: &Keypair) -> io::Result<MeshTransport> {
    let noise = noise::Config::new(keypair).map_err(io::Error::other)?;
    let over_tcp = || {
        tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .upgrade(Version::V1Lazy)
            .authenticate(noise.clone())
            .multiplex(yamux_config())
            .timeout(TCP_TIMEOUT)
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
    };
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
