//! The three nodes together, and the client that talks to one of them.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::DemoError;
use super::cast::{CAST, HOME};
use super::client::McpClient;
use super::node::DemoNode;
use super::step::Fault;
use crate::exchange::DenialReason;
use crate::upstream::Guard;

/// How long a state is waited for.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(20);
/// How often it is looked at.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(30);

/// Where the nodes' data goes.
pub(super) enum Place {
    /// To a directory that is removed with this.
    Temporary(TempDir),
    /// To one that stays.
    Kept(PathBuf),
}

impl Place {
    /// A temporary place, or `keep`, in which no node's data may be yet.
    pub(super) fn new(keep: Option<&Path>) -> Result<Self, DemoError> {
        let Some(keep) = keep else {
            let made = tempfile::Builder::new().prefix("comity-demo-").tempdir();
            return made.map(Place::Temporary).map_err(DemoError::Place);
        };
        std::fs::create_dir_all(keep).map_err(DemoError::Place)?;
        let keep = keep.canonicalize().map_err(DemoError::Place)?;
        match CAST.iter().map(|role| keep.join(role.name)).find(|dir| dir.exists()) {
            Some(dir) => Err(DemoError::Exists(dir)),
            None => Ok(Place::Kept(keep)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Place::Temporary(dir) => dir.path(),
            Place::Kept(path) => path,
        }
    }
}

/// What the steps act on.
pub(super) struct Stage {
    /// The nodes, in the order of [`CAST`].
    pub(super) nodes: Vec<DemoNode>,
    /// The node that ran the call constrained to the EU.
    pub(super) ran_in_eu: Option<usize>,
    client: Option<McpClient>,
    // Dropped last: the nodes must have ended before their data goes.
    _place: Place,
}

impl Stage {
    /// An empty stage.
    pub(super) fn new(place: Place) -> Result<Self, DemoError> {
        let program = std::env::current_exe().map_err(DemoError::Program)?;
        // Should the demo be killed, this ends the nodes.
        let guard = Arc::new(Guard::default());
        let node = |role| DemoNode::new(role, place.path(), &program, guard.clone());
        Ok(Self { nodes: CAST.iter().map(node).collect(), ran_in_eu: None, client: None, _place: place })
    }

    /// The node at which the client is.
    pub(super) fn home(&mut self) -> &mut DemoNode {
        &mut self.nodes[HOME]
    }

    /// The AI client, made when it is first asked for.
    pub(super) fn client(&mut self) -> Result<&McpClient, Fault> {
        if self.client.is_none() {
            let url = self.nodes[HOME].status.mcp_url.clone();
            let url = url.ok_or_else(|| Fault::at(HOME, "the node has no endpoint for clients"))?;
            self.client = Some(McpClient::new(url)?);
        }
        self.client.as_ref().ok_or_else(|| Fault::at(HOME, "there is no client"))
    }

    /// The node of that identity.
    pub(super) fn index_of(&self, id: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.id() == id)
    }

    /// The name of the node of that identity, or the identity itself.
    pub(super) fn name_of(&self, id: &str) -> String {
        self.index_of(id).map_or_else(|| id.to_owned(), |at| self.nodes[at].role.name.to_owned())
    }

    /// Why somebody may not run a call, without the name that the reason begins with: tables have it in a column of its own.
    pub(super) fn why(&self, reason: &DenialReason) -> String {
        let name = reason.peer.as_deref().map(|peer| self.name_of(peer)).unwrap_or_default();
        let rest = reason.detail.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix(": "));
        rest.unwrap_or(&reason.detail).to_owned()
    }

    /// The last log lines of the node at `at`, or of all of them.
    pub(super) fn last_log_lines(&self, at: Option<usize>) -> Vec<(&'static str, Vec<String>)> {
        let wanted = self.nodes.iter().enumerate().filter(|(index, _)| at.is_none_or(|at| at == *index));
        wanted.map(|(_, node)| (node.role.name, node.last_log_lines())).collect()
    }

    /// Waits until every node is connected to every other, fronts its servers, and knows the same as they do.
    pub(super) async fn converge(&mut self) -> Result<(), Fault> {
        let others = self.nodes.len() - 1;
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let looked =
                join_all(self.nodes.iter_mut().map(|node| async { node.look().await.map(drop) })).await;
            for (at, looked) in looked.into_iter().enumerate() {
                looked.map_err(|error| Fault::Node { at, error })?;
            }
            let first = &self.nodes[0].status.directory_digest;
            let lagging = self.nodes.iter().position(|node| {
                let status = &node.status;
                let together = status.peers_connected == others && status.directory_size == others + 1;
                !together || status.directory_digest != *first
            });
            match lagging {
                None => return Ok(()),
                Some(at) if Instant::now() > deadline => {
                    let status = &self.nodes[at].status;
                    let (links, known) = (status.peers_connected, status.directory_size);
                    let message = format!("{links} connected, {known} known, and not what the others know");
                    return Err(Fault::at(at, message));
                }
                Some(_) => sleep(LOOK_INTERVAL).await,
            }
        }
    }

    /// Ends every node.
    pub(super) async fn close(&mut self) {
        join_all(self.nodes.iter_mut().map(DemoNode::stop)).await;
    }
}

/// Looks until there is something to see; the last look's `Err` says what was seen instead.
pub(super) async fn wait_for<T, F>(at: usize, mut look: impl FnMut() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<Result<T, String>, Fault>>,
{
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        match look().await? {
            Ok(seen) => return Ok(seen),
            Err(instead) if Instant::now() > deadline => return Err(Fault::at(at, instead)),
            Err(_) => sleep(LOOK_INTERVAL).await,
        }
    }
}
