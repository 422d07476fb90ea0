//! Noticing edits while the node runs.
//!
//! Directories are watched, not files: editors replace a file by renaming another over it, and a watch on the file would
//! follow the old one. A slow tick looks as well, for file systems that tell nothing. A file that does not read leaves
//! the running configuration as it was, and its faults in the log.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{ConfigError, Loaded, NodeConfig};
use crate::files::parent;
use crate::telemetry::Chain;

/// How long the files must have been quiet before they are read: editors write in several steps.
const QUIET: Duration = Duration::from_millis(150);
/// How long a stream of changes can put reading off.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often the files are looked at whether or not anything was told.
const TICK: Duration = Duration::from_secs(5);

/// Watches a configuration until cancelled. Each configuration that reads and differs goes to `current`; receivers that
/// are slow see the newest.
///
/// Cancel-safe only through `cancel`: dropping the future stops watching too.
pub async fn watch(path: PathBuf, current: watch::Sender<Arc<NodeConfig>>, cancel: CancellationToken) {
    let changed = Arc::new(Notify::new());
    let mut state = Watching::new(path, current, Arc::clone(&changed));
    loop {
        // What was read at start may be out of date by the time that the watch stands, so the first look comes at once.
        state.look().await;
        tokio::select! {
            () = cancel.cancelled() => return,
            told = timeout(TICK, changed.notified()) => {
                if told.is_ok() {
                    quiet(&changed).await;
                }
            }
        }
    }
}

/// Waits until nothing has changed for [`QUIET`].
async fn quiet(changed: &Notify) {
    let give_up = Instant::now() + QUIET_WAIT_MAX;
    loop {
        tokio::select! {
            () = sleep_until(give_up) => return,
            told = timeout(QUIET, changed.notified()) => if told.is_err() { return },
        }
    }
}

struct Watching {
    path: PathBuf,
    current: watch::Sender<Arc<NodeConfig>>,
    watcher: Option<RecommendedWatcher>,
    changed: Arc<Notify>,
    watched: BTreeSet<PathBuf>,
    seen: Vec<Option<Fingerprint>>,
    /// The faults last logged. While there are some the files are read at every tick: what is missing may appear
    /// outside the files that are known.
    faults: Option<String>,
}

impl Watching {
    fn new(path: PathBuf, current: watch::Sender<Arc<NodeConfig>>, changed: Arc<Notify>) -> Self {
        let notify = Arc::clone(&changed);
        let tell = move |event: notify::Result<notify::Event>| {
            if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                notify.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(tell)
            .inspect_err(|error| warn!(%error, "cannot watch files; edits are noticed within {TICK:?}"))
            .ok();
        let watched = BTreeSet::new();
        let mut state = Watching { path, current, watcher, changed, watched, seen: Vec::new(), faults: None };
        state.follow();
        state
    }

    async fn look(&mut self) {
        let seen = fingerprints(&self.files());
        if seen == self.seen && self.faults.is_none() {
            return;
        }
        self.seen = seen;
        let path = self.path.clone();
        match tokio::task::spawn_blocking(move || NodeConfig::load(&path)).await {
            Ok(Ok(loaded)) => self.take(loaded),
            Ok(Err(error)) => self.refuse(&error),
            Err(error) => error!(error = %Chain(&error), "reading the configuration failed"),
        }
    }

    fn take(&mut self, loaded: Loaded) {
        if self.faults.take().is_some() {
            info!("the configuration reads again");
        }
        let previous = self.current.borrow().clone();
        if *previous == loaded.config {
            debug!("the configuration was written and says the same");
            return;
        }
        for warning in &loaded.warnings.list {
            warn!("{warning}");
        }
        let restart_needed = previous.restart_needed(&loaded.config);
        if !restart_needed.is_empty() {
            warn!(
                sections = restart_needed.join(", "),
                "changed sections that take effect only after a restart"
            );
        }
        info!(file = %self.path.display(), "configuration changed");
        self.current.send_replace(Arc::new(loaded.config));
        self.follow();
    }

    fn refuse(&mut self, error: &ConfigError) {
        let faults = Chain(error).to_string();
        if self.faults.as_ref() != Some(&faults) {
            error!("the changed configuration is not used; the node goes on with the one it has:\n{faults}");
            self.faults = Some(faults);
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        self.current.borrow().files(&self.path)
    }

    /// Watches the directories of all files, and of the files that links among them lead to.
    fn follow(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let files = self.current.borrow().files(&self.path);
        let targets = files.iter().filter_map(|file| fs::canonicalize(file).ok());
        let wanted: BTreeSet<PathBuf> =
            files.iter().cloned().chain(targets).map(|file| parent(&file).to_owned()).collect();
        for gone in self.watched.difference(&wanted) {
            let _ = watcher.unwatch(gone);
        }
        for new in wanted.difference(&self.watched) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                warn!(dir = %new.display(), %error, "cannot watch; edits are noticed within {TICK:?}");
            }
        }
        if wanted != self.watched {
            // An edit between reading a file and watching its directory told nobody.
            self.changed.notify_one();
            self.watched = wanted;
        }
    }
}

/// What tells one version of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    length: u64,
    modified_s: i64,
    modified_ns: i64,
}

fn fingerprints(files: &[PathBuf]) -> Vec<Option<Fingerprint>> {
    files.iter().map(|file| fingerprint(file)).collect()
}

fn fingerprint(file: &Path) -> Option<Fingerprint> {
    let metadata = fs::metadata(file).ok()?;
    Some(Fingerprint {
        device: metadata.dev(),
        inode: metadata.ino(),
        length: metadata.len(),
        modified_s: metadata.mtime(),
        modified_ns: metadata.mtime_nsec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        dir: tempfile::TempDir,
        seen: watch::Receiver<Arc<NodeConfig>>,
        _cancel: tokio_util::sync::DropGuard,
    }

    fn start(text: &str) -> Fixture {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("comity.toml");
        fs::write(&path, text).expect("write");
        let first = NodeConfig::load(&path).expect("valid").config;
        let (sender, seen) = watch::channel(Arc::new(first));
        let cancel = CancellationToken::new();
        tokio::spawn(watch(path, sender, cancel.clone()));
        Fixture { dir, seen, _cancel: cancel.drop_guard() }
    }

    impl Fixture {
        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).expect("write");
        }

        async fn servers(&mut self, expected: &[&str]) {
            let names = |config: &Arc<NodeConfig>| {
                config.servers.keys().map(|name| name.to_string()).collect::<Vec<_>>()
            };
            let wait = self.seen.wait_for(|config| names(config) == expected);
            timeout(Duration::from_secs(60), wait).await.expect("in time").expect("still watching");
        }
    }

    #[tokio::test]
    async fn edits_are_seen_whether_written_in_place_or_renamed_over() {
        let mut f = start("");
        f.write("comity.toml", "[servers.a]\ncommand = \"x\"\n");
        f.servers(&["a"]).await;
        f.write("new", "[servers.b]\ncommand = \"x\"\n");
        fs::rename(f.path("new"), f.path("comity.toml")).expect("rename");
        f.servers(&["b"]).await;
    }

    #[tokio::test]
    async fn a_bad_edit_leaves_the_running_configuration_as_it_was() {
        let mut f = start("[servers.a]\ncommand = \"x\"\n");
        f.write("comity.toml", "[servers.a]\ncommand = 3\n");
        f.write("comity.toml", "[servers.a]\ncommand = 3\n[servers.b]\ncommand = \"x\"\n");
        f.write("comity.toml", "[servers.c]\ncommand = \"x\"\n");
        f.servers(&["c"]).await;
        f.write("comity.toml", "[servers.c");
        f.write("comity.toml", "");
        f.servers(&[]).await;
    }

    #[tokio::test]
    async fn imported_files_are_followed_too() {
        let mut f = start("");
        f.write("mcp.json", r#"{"mcpServers": {"a": {"command": "x"}}}"#);
        f.write("comity.toml", "[[servers_from]]\npath = \"mcp.json\"\n");
        f.servers(&["a"]).await;
        f.write("mcp.json", r#"{"mcpServers": {"b": {"command": "x"}}}"#);
        f.servers(&["b"]).await;
    }
}
