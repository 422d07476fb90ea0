//! The face over real sockets, with a gateway that the tests script.

mod access;
pub(crate) mod client;
mod drain;
mod gateway;
mod hostile;
mod input;
mod items;
mod legacy;
mod lines;
mod modern;
mod streams;

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Face, FaceConfig, FaceGauges};
use client::Client;
use gateway::FakeGateway;
pub(super) use gateway::{catalogue, catalogue_of};

/// Longer than anything here takes on the busiest machine: a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running face. Dropping it ends it at once.
struct Node {
    gateway: Arc<FakeGateway>,
    client: Client,
    gauges: FaceGauges,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    _dir: tempfile::TempDir,
    socket: std::path::PathBuf,
}

impl Node {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut FaceConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("mcp.sock");
        let mut config = FaceConfig {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            unix_socket: Some(socket.clone()),
            ..FaceConfig::default()
        };
        // A busy machine must not turn a plain answer into a stream; tests of the switch shorten it.
        config.limits.json_hold = PATIENCE;
        change(&mut config);
        let gateway = Arc::new(FakeGateway::new());
        let face = Face::bind(config, Arc::clone(&gateway) as _).await.unwrap();
        let client = Client::new(face.local_addr().unwrap());
        let gauges = face.gauges();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(face.run(shutdown.clone()));
        Self { gateway, client, gauges, shutdown, running, _dir: dir, socket }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Waits for `future`, but not for ever.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("this should have happened by now")
}
