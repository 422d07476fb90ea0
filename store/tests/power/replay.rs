//! A disk as it may be found after a power cut, rebuilt from a recording.
//!
//! The rules are harsher than any real file system: a file's bytes are durable only after a sync of the file, a
//! name only after a sync of its directory; of what is not, each 4 KiB block may or may not be there, and each
//! directory keeps some prefix of its changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const BLOCK_BYTES: usize = 4096;

/// An entry of the recording, in the order of execution.
#[derive(Debug)]
pub(crate) enum Event {
    /// A new, empty file.
    Create(PathBuf),
    /// A new directory.
    Mkdir(PathBuf),
    /// Bytes at an offset.
    Write(PathBuf, usize, Vec<u8>),
    /// A new length.
    Truncate(PathBuf, usize),
    /// `fsync` or `fdatasync` of a file or a directory.
    Sync(PathBuf),
    /// A file moved.
    Rename(PathBuf, PathBuf),
    /// A file removed.
    Unlink(PathBuf),
    /// Something on stdout.
    Said(String),
}

/// Reads the recorder's log; a torn last entry is left out.
pub(crate) fn read_log(path: &Path) -> Vec<Event> {
    let bytes = fs::read(path).expect("the recorder wrote a log");
    let mut rest = &bytes[..];
    std::iter::from_fn(|| read_event(&mut rest)).collect()
}

fn read_event(rest: &mut &[u8]) -> Option<Event> {
    let (kind, after) = rest.split_first()?;
    let (path_bytes, after) = after.split_first_chunk::<4>()?;
    let (offset, after) = after.split_first_chunk::<8>()?;
    let (data_bytes, after) = after.split_first_chunk::<8>()?;
    let (path, after) = after.split_at_checked(u32::from_ne_bytes(*path_bytes) as usize)?;
    let (data, after) = after.split_at_checked(usize::try_from(u64::from_ne_bytes(*data_bytes)).ok()?)?;
    *rest = after;
    let offset = usize::try_from(u64::from_ne_bytes(*offset)).ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let path = PathBuf::from(text(path));
    Some(match kind {
        b'C' => Event::Create(path),
        b'D' => Event::Mkdir(path),
        b'W' => Event::Write(path, offset, data.to_vec()),
        b'T' => Event::Truncate(path, offset),
        b'S' => Event::Sync(path),
        b'R' => Event::Rename(path, PathBuf::from(text(data))),
        b'U' => Event::Unlink(path),
        b'A' => Event::Said(text(data)),
        _ => panic!("unknown entry {kind}"),
    })
}

/// What is on the disk for certain, and what is on its way.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    nodes: Vec<Node>,
    /// Names as the running process sees them.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// For each directory, its changes since it was last synced.
    changes: BTreeMap<PathBuf, Vec<NameChange>>,
}

#[derive(Debug)]
enum Node {
    Directory,
    File { durable: Vec<u8>, pending: Vec<Change> },
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(PathBuf, usize),
    Unset(PathBuf),
}

impl Disk {
    /// A disk on which `root` holds what `source` holds now, all of it durable.
    pub(crate) fn of(source: &Path, root: &Path) -> Self {
        let mut disk = Self::default();
        disk.load(source, root);
        disk.durable_names = disk.names.clone();
        disk
    }

    fn load(&mut self, source: &Path, path: &Path) {
        if source.is_dir() {
            self.add(path, Node::Directory);
            for entry in fs::read_dir(source).expect("lists") {
                let entry = entry.expect("entry");
                self.load(&entry.path(), &path.join(entry.file_name()));
            }
        } else {
            let durable = fs::read(source).expect("reads");
            self.add(path, Node::File { durable, pending: Vec::new() });
        }
    }

    fn add(&mut self, path: &Path, node: Node) -> usize {
        self.nodes.push(node);
        self.names.insert(path.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// Does what the process did.
    pub(crate) fn run(&mut self, event: &Event) {
        match event {
            Event::Create(path) => self.create(path, Node::File { durable: Vec::new(), pending: Vec::new() }),
            Event::Mkdir(path) => self.create(path, Node::Directory),
            Event::Write(path, at, bytes) => self.change(path, Change::Write(*at, bytes.clone())),
            Event::Truncate(path, length) => self.change(path, Change::Truncate(*length)),
            Event::Sync(path) => self.sync(path),
            Event::Rename(from, to) => {
                let node = self.names.remove(from).expect("renamed files exist");
                self.names.insert(to.clone(), node);
                self.note(from, NameChange::Unset(from.clone()));
                self.note(to, NameChange::Set(to.clone(), node));
            }
            Event::Unlink(path) => {
                self.names.remove(path);
                self.note(path, NameChange::Unset(path.clone()));
            }
            Event::Said(_) => {}
        }
    }

    fn create(&mut self, path: &Path, node: Node) {
        let node = self.add(path, node);
        self.note(path, NameChange::Set(path.to_owned(), node));
    }

    fn note(&mut self, path: &Path, change: NameChange) {
        self.changes.entry(path.parent().expect("below the root").to_owned()).or_default().push(change);
    }

    fn change(&mut self, path: &Path, change: Change) {
        let node = self
            .names
            .get(path)
            .unwrap_or_else(|| panic!("{} is written but was never made", path.display()));
        match &mut self.nodes[*node] {
            Node::File { pending, .. } => pending.push(change),
            Node::Directory => panic!("{} is a directory", path.display()),
        }
    }

    fn sync(&mut self, path: &Path) {
        let Some(node) = self.names.get(path) else { return };
        match &mut self.nodes[*node] {
            Node::File { durable, pending } => {
                pending.drain(..).for_each(|change| apply(durable, &change, |_| true))
            }
            Node::Directory => {
                let changes = self.changes.remove(path).unwrap_or_default();
                changes.iter().for_each(|change| rename(&mut self.durable_names, change));
            }
        }
    }

    /// Writes one disk that a power cut may leave to `target`, where `root` was. `survives` is asked for each
    /// thing that is not certain.
    pub(crate) fn cut(&self, root: &Path, target: &Path, mut survives: impl FnMut() -> bool) {
        let mut names = self.durable_names.clone();
        for changes in self.changes.values() {
            let kept = changes.iter().take_while(|_| survives());
            kept.for_each(|change| rename(&mut names, change));
        }
        for (path, node) in names {
            let path = target.join(path.strip_prefix(root).expect("below the root"));
            let parent_is_there = path.parent().is_some_and(Path::is_dir);
            match &self.nodes[node] {
                _ if path != target && !parent_is_there => {}
                Node::Directory => fs::create_dir_all(path).expect("creates"),
                Node::File { durable, pending } => {
                    let mut bytes = durable.clone();
                    pending.iter().for_each(|change| apply(&mut bytes, change, |_| survives()));
                    fs::write(path, bytes).expect("writes");
                }
            }
        }
    }
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Set(path, node) => names.insert(path.clone(), *node),
        NameChange::Unset(path) => names.remove(path),
    };
}

/// Applies those blocks of a change that survive.
fn apply(bytes: &mut Vec<u8>, change: &Change, mut survives: impl FnMut(usize) -> bool) {
    match change {
        Change::Truncate(length) => {
            if survives(0) {
                bytes.resize(*length, 0);
            }
        }
        Change::Write(at, data) => {
            let mut from = *at;
            let end = at + data.len();
            while from < end {
                let to = end.min((from / BLOCK_BYTES + 1) * BLOCK_BYTES);
                if survives(from) {
                    bytes.resize(bytes.len().max(to), 0);
                    bytes[from..to].copy_from_slice(&data[from - at..to - at]);
                }
                from = to;
            }
        }
    }
}
