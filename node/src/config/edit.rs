//! Changing `comity.toml` by command: comments and layout stay, and a change that would not read back is not written.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use comity_protocol::ids::{NodeId, OrgName, RootHash, ServerName};
use thiserror::Error;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, value};

use super::comments;
use super::fault::nearest;
use super::mesh::{PEERS_MAX, PeerAddress};
use super::servers::Share;
use super::trust::Approve;
use super::{ConfigError, FILE_BYTES_MAX, NodeConfig, expand};
use crate::files::{MODE_PRIVATE, ReadError, WriteError, parent, read_bounded, write_atomic};

/// Why a configuration was not changed.
#[derive(Debug, Error)]
pub enum EditError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The directory cannot be locked.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The directory that holds the file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is wrong already, or would be after the change.
    #[error("the configuration would not be valid:\n{0}")]
    Invalid(Box<ConfigError>),
    /// The file is not a TOML document.
    #[error("the configuration is not TOML; run: comity config check")]
    Syntax(#[from] toml_edit::TomlError),
    /// There is one already.
    #[error("there is a server {0} already; remove it first, or choose another name")]
    ServerExists(ServerName),
    /// There is none.
    #[error("comity.toml has no server {0}{hint}", hint = near(.1))]
    NoServer(ServerName, Option<String>),
    /// There is a pin already, to another root.
    #[error("{org} is pinned already, to {pinned}; unpin it first if that is really out of date")]
    OrgExists {
        /// The org.
        org: OrgName,
        /// What is pinned.
        pinned: String,
    },
    /// There is none.
    #[error("comity.toml pins no org {0}")]
    NoOrg(OrgName),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn near(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// A server as the command line describes it; what it says is checked when the file is read back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewServer {
    /// The program and its arguments; empty for a URL.
    pub command: Vec<String>,
    /// Variables for the program.
    pub env: Vec<(String, String)>,
    /// Where the program runs.
    pub cwd: Option<PathBuf>,
    /// The endpoint, for a server over HTTP.
    pub url: Option<String>,
    /// Headers for the endpoint.
    pub headers: Vec<(String, String)>,
    /// Who may call it.
    pub share: Share,
}

/// Adds `[servers.NAME]`.
pub fn add_server(path: &Path, name: &ServerName, server: &NewServer) -> Result<(), EditError> {
    edit(path, |document| {
        let servers = document.get("servers");
        if servers.and_then(|servers| servers.get(name.as_str())).is_some() {
            return Err(EditError::ServerExists(name.clone()));
        }
        match document.get_mut("servers").and_then(Item::as_inline_table_mut) {
            Some(servers) => {
                servers.insert(name.as_str(), server.to_table().into_inline_table().into());
                Ok(Change::InPlace(()))
            }
            None => {
                let mut added = DocumentMut::new();
                table(added.as_table_mut(), "servers").insert(name.as_str(), Item::Table(server.to_table()));
                Ok(Change::Append((), added))
            }
        }
    })
}

/// Removes `[servers.NAME]`.
pub fn remove_server(path: &Path, name: &ServerName) -> Result<(), EditError> {
    edit(path, |document| {
        let servers = document.get_mut("servers").and_then(Item::as_table_like_mut);
        let Some(servers) = servers else { return Err(EditError::NoServer(name.clone(), None)) };
        let Some(removed) = servers.remove(name.as_str()) else {
            let known = servers.iter().map(|(key, _)| key);
            let near = nearest(name.as_str(), known).map(str::to_owned);
            return Err(EditError::NoServer(name.clone(), near));
        };
        if let Item::Table(removed) = &removed {
            comments::keep(document, removed);
        }
        Ok(Change::InPlace(()))
    })
}

/// Adds a `[[trust.orgs]]` entry. Returns whether it was new: pinning the same root again changes nothing.
pub fn pin_org(path: &Path, org: &OrgName, root: RootHash, approve: Approve) -> Result<bool, EditError> {
    edit(path, |document| {
        let orgs = document.get("trust").and_then(|trust| trust.get("orgs"));
        if let Some(entry) =
            orgs.and_then(|orgs| tables(orgs).find(|entry| name_of(*entry) == Some(org.as_str())))
        {
            let pinned = entry.get("root").and_then(Item::as_str).unwrap_or_default().to_owned();
            return match pinned == root.to_string() {
                true => Ok(Change::InPlace(false)),
                false => Err(EditError::OrgExists { org: org.clone(), pinned }),
            };
        }
        let entry = pin_entry(org, root, approve);
        let inline =
            document.get_mut("trust").and_then(|trust| trust.get_mut("orgs")).and_then(Item::as_array_mut);
        match inline {
            Some(orgs) => {
                orgs.push(entry.into_inline_table());
                Ok(Change::InPlace(true))
            }
            None => {
                let mut added = DocumentMut::new();
                let orgs = ArrayOfTables::from_iter([entry]);
                table(added.as_table_mut(), "trust").insert("orgs", Item::ArrayOfTables(orgs));
                Ok(Change::Append(true, added))
            }
        }
    })
}

fn pin_entry(org: &OrgName, root: RootHash, approve: Approve) -> Table {
    let mut entry = Table::new();
    entry.insert("name", value(org.as_str()));
    entry.insert("root", value(root.to_string()));
    if approve == Approve::All {
        entry.insert("approve", value("all"));
    }
    entry
}

/// Removes the `[[trust.orgs]]` entry of an org.
pub fn unpin_org(path: &Path, org: &OrgName) -> Result<(), EditError> {
    edit(path, |document| {
        let none = || EditError::NoOrg(org.clone());
        let orgs = document.get_mut("trust").and_then(|trust| trust.get_mut("orgs")).ok_or_else(none)?;
        let at = tables(orgs).position(|entry| name_of(entry) == Some(org.as_str())).ok_or_else(none)?;
        match orgs {
            Item::ArrayOfTables(tables) => {
                let removed = tables.get(at).cloned();
                tables.remove(at);
                if let Some(removed) = removed {
                    comments::keep(document, &removed);
                }
            }
            other => {
                other.as_array_mut().map(|array| array.remove(at));
            }
        }
        Ok(Change::InPlace(()))
    })
}

/// Adds peers to `mesh.peers`, leaving out those that are there. None is added beyond what one configuration may name.
pub fn add_peers(path: &Path, peers: &[PeerAddress]) -> Result<(), EditError> {
    edit(path, |document| {
        let mesh = table(document.as_table_mut(), "mesh");
        let listed = mesh.entry("peers").or_insert(value(Array::new()));
        if let Some(listed) = listed.as_array_mut() {
            for peer in peers {
                let text = peer.to_multiaddr().to_string();
                let known = listed.iter().any(|known| known.as_str() == Some(text.as_str()));
                if !known && listed.len() < PEERS_MAX {
                    listed.push(text);
                }
            }
        }
        Ok(Change::InPlace(()))
    })
}

/// Adds a node to `org.revoked`. Returns whether it was new.
pub fn revoke_node(path: &Path, node: NodeId) -> Result<bool, EditError> {
    edit(path, |document| {
        let org = table(document.as_table_mut(), "org");
        let revoked = org.entry("revoked").or_insert(value(Array::new()));
        let Some(revoked) = revoked.as_array_mut() else { return Ok(Change::InPlace(false)) };
        let text = node.to_string();
        let new = !revoked.iter().any(|known| known.as_str() == Some(text.as_str()));
        if new {
            revoked.push(text);
        }
        Ok(Change::InPlace(new))
    })
}

/// Sets one key of a section, such as `org.name`; a value that is there already is replaced.
pub fn set(path: &Path, section: &str, key: &str, to: &str) -> Result<(), EditError> {
    edit(path, |document| {
        table(document.as_table_mut(), section).insert(key, value(to));
        Ok(Change::InPlace(()))
    })
}

/// How a document was changed, and what the change comes to.
enum Change<T> {
    /// In the document itself.
    InPlace(T),
    /// By adding these tables after everything else. Inserting them would let them slip in between the last table and
    /// the comments that follow it.
    Append(T, DocumentMut),
}

/// Reads, changes, checks and replaces the file while holding a lock that keeps other edits out.
fn edit<T>(
    path: &Path,
    change: impl FnOnce(&mut DocumentMut) -> Result<Change<T>, EditError>,
) -> Result<T, EditError> {
    let _lock = lock(parent(path))?;
    let text = read_bounded(path, FILE_BYTES_MAX)?;
    let text = String::from_utf8(text)
        .map_err(|_| EditError::Invalid(Box::new(ConfigError::NotText(path.to_owned()))))?;
    check(path, &text)?;
    let mut document: DocumentMut = text.parse()?;
    let (outcome, changed) = match change(&mut document)? {
        Change::InPlace(outcome) => (outcome, document.to_string()),
        Change::Append(outcome, added) => (outcome, appended(&text, &added.to_string())),
    };
    if changed != text {
        check(path, &changed)?;
        write_atomic(path, changed.as_bytes(), MODE_PRIVATE)?;
    }
    Ok(outcome)
}

/// Two texts with one empty line between them.
fn appended(text: &str, added: &str) -> String {
    match text.trim_end() {
        "" => added.trim_start().to_owned(),
        text => format!("{text}\n\n{}", added.trim_start()),
    }
}

/// A variable that is not set here may be set for the node, so its absence is no reason to refuse an edit.
fn check(path: &Path, text: &str) -> Result<(), EditError> {
    let lookup = |name: &str| Some(expand::from_environment(name).unwrap_or_else(|| "unset".to_owned()));
    NodeConfig::parse(path, text, &lookup).map(drop).map_err(|error| EditError::Invalid(Box::new(error)))
}

/// Locks the directory itself: the file is replaced by each edit, so a lock on it would be on the old one.
fn lock(dir: &Path) -> Result<File, EditError> {
    let locked = File::open(dir).and_then(|file| file.lock().map(|()| file));
    locked.map_err(|source| EditError::Lock { path: dir.to_owned(), source })
}

fn table<'d>(within: &'d mut Table, key: &str) -> &'d mut dyn toml_edit::TableLike {
    let implicit = || {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    };
    within
        .entry(key)
        .or_insert_with(implicit)
        .as_table_like_mut()
        .expect("the text was read as configuration before")
}

/// The entries of an array of tables, however it is written.
fn tables(item: &Item) -> impl Iterator<Item = &dyn toml_edit::TableLike> {
    let written_apart =
        item.as_array_of_tables().into_iter().flatten().map(|table| table as &dyn toml_edit::TableLike);
    let inline = item.as_array().into_iter().flatten().filter_map(toml_edit::Value::as_inline_table);
    written_apart.chain(inline.map(|table| table as &dyn toml_edit::TableLike))
}

fn name_of(entry: &dyn toml_edit::TableLike) -> Option<&str> {
    entry.get("name").and_then(Item::as_str)
}

impl NewServer {
    fn to_table(&self) -> Table {
        let mut table = Table::new();
        if let Some((program, args)) = self.command.split_first() {
            table.insert("command", value(program));
            if !args.is_empty() {
                table.insert("args", value(args.iter().collect::<Array>()));
            }
        }
        if let Some(url) = &self.url {
            table.insert("url", value(url));
        }
        if let Some(cwd) = &self.cwd {
            table.insert("cwd", value(cwd.display().to_string()));
        }
        for (key, pairs) in [("env", &self.env), ("headers", &self.headers)] {
            if !pairs.is_empty() {
                table.insert(
                    key,
                    value(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<InlineTable>()),
                );
            }
        }
        if self.share != Share::Local {
            table.insert("share", value(self.share.to_string()));
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ROOT: [u8; 32] = [1; 32];

    struct Fixture {
        _dir: tempfile::TempDir,
        path: PathBuf,
    }

    fn file(text: &str) -> Fixture {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("comity.toml");
        fs::write(&path, text).expect("write");
        Fixture { _dir: dir, path }
    }

    impl Fixture {
        fn text(&self) -> String {
            fs::read_to_string(&self.path).expect("read")
        }

        fn config(&self) -> NodeConfig {
            NodeConfig::load(&self.path).expect("valid").config
        }
    }

    fn name(text: &str) -> ServerName {
        text.parse().expect("server name")
    }

    fn org(text: &str) -> OrgName {
        text.parse().expect("org name")
    }

    fn uvx() -> NewServer {
        NewServer {
            command: vec!["uvx".into(), "mcp-server-time".into()],
            env: vec![("TZ".into(), "UTC".into())],
            share: Share::Federation,
            ..NewServer::default()
        }
    }

    #[test]
    fn a_server_is_added_and_removed_and_the_rest_stays_as_it_was() {
        let before = "# mine\n[mcp] # keep\nlisten = \"127.0.0.1:1\"\n\n[servers.old]\ncommand = 'x' # why\n# the end\n";
        let f = file(before);
        add_server(&f.path, &name("time"), &uvx()).expect("add");
        assert!(f.text().starts_with(&format!("{before}\n[servers.time]\n")), "{}", f.text());
        let server = &f.config().servers[&name("time")];
        assert_eq!((server.share, server.launch.to_string().as_str()), (Share::Federation, "uvx"));
        assert!(matches!(add_server(&f.path, &name("time"), &uvx()), Err(EditError::ServerExists(_))));
        remove_server(&f.path, &name("time")).expect("remove");
        assert_eq!(f.text().trim_end(), before.trim_end());
        let error = remove_server(&f.path, &name("olt")).expect_err("none").to_string();
        assert!(error.contains("did you mean old?"), "{error}");
    }

    #[test]
    fn a_server_is_added_however_the_others_are_written() {
        for text in [
            "servers = {}\n",
            "[servers]\n",
            "[servers]\nold.command = \"x\"\n",
            "[servers.old]\ncommand = \"x\"",
        ] {
            let f = file(text);
            add_server(&f.path, &name("time"), &uvx()).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(f.config().servers.contains_key(&name("time")), "{}", f.text());
            assert!(
                matches!(add_server(&f.path, &name("time"), &uvx()), Err(EditError::ServerExists(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_change_that_would_not_read_back_is_not_written() {
        let both = NewServer { url: Some("http://x/".into()), ..uvx() };
        for (text, server) in [("", both), ("nonsense = 1\n", uvx()), ("[mcp\n", uvx())] {
            let f = file(text);
            let error = add_server(&f.path, &name("a"), &server).expect_err(text);
            assert!(matches!(error, EditError::Invalid(_)), "{error:?}");
            assert_eq!(f.text(), text);
        }
    }

    #[test]
    fn a_reference_that_is_not_set_here_does_not_forbid_an_edit() {
        let f = file("[servers.a]\ncommand = \"x\"\nenv = { K = \"${COMITY_TEST_NEVER_SET}\" }\n");
        add_server(&f.path, &name("b"), &uvx()).expect("add");
        assert!(f.text().contains("${COMITY_TEST_NEVER_SET}"));
    }

    #[test]
    fn orgs_are_pinned_once_and_unpinned_in_either_way_of_writing() {
        let (root, other) = (RootHash::from_bytes(ROOT), RootHash::from_bytes([2; 32]));
        for text in [
            "",
            "[trust]\norgs = []\n",
            &format!("[trust]\norgs = [{{ name = \"a.b\", root = \"{other}\" }}]\n"),
        ] {
            let f = file(text);
            assert!(pin_org(&f.path, &org("acme.example"), root, Approve::All).expect("pin"), "{text}");
            assert!(!pin_org(&f.path, &org("acme.example"), root, Approve::All).expect("again"), "{text}");
            let pinned =
                f.config().trust.into_iter().find(|pin| pin.name == org("acme.example")).expect("pinned");
            assert_eq!((pinned.root, pinned.approve), (root, Approve::All));
            let clash = pin_org(&f.path, &org("acme.example"), other, Approve::None);
            assert!(matches!(clash, Err(EditError::OrgExists { .. })), "{clash:?}");
            unpin_org(&f.path, &org("acme.example")).expect("unpin");
            assert!(matches!(unpin_org(&f.path, &org("acme.example")), Err(EditError::NoOrg(_))));
            assert!(f.config().trust.iter().all(|pin| pin.name != org("acme.example")));
        }
    }

    #[test]
    fn edits_at_the_same_time_are_all_kept() {
        let f = file("");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let path = &f.path;
                scope.spawn(move || add_server(path, &name(&format!("s{n}")), &uvx()).expect("add"));
            }
        });
        assert_eq!(f.config().servers.len(), 8);
    }

    #[test]
    fn peers_are_added_once() {
        let peer = |port: u16| PeerAddress {
            node: NodeId::from(ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key()),
            address: format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address"),
        };
        let listed = format!("[mesh]\npeers = [\"{}\"] # mine\n", peer(1).to_multiaddr());
        for (text, expected) in [("", vec![2, 3]), (&listed, vec![1, 2, 3])] {
            let f = file(text);
            add_peers(&f.path, &[peer(2), peer(3)]).expect("add");
            add_peers(&f.path, &[peer(3)]).expect("again");
            assert_eq!(f.config().mesh.peers, expected.into_iter().map(peer).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn a_node_is_revoked_once() {
        let f = file("[org]\nname = \"a.b\"\n");
        let node = NodeId::from(ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key());
        assert!(revoke_node(&f.path, node).expect("revoke"));
        assert!(!revoke_node(&f.path, node).expect("again"));
        assert_eq!(f.config().revoked, [node]);
        set(&f.path, "org", "revoked", "nonsense").expect_err("not a list");
    }

    #[test]
    fn one_key_is_set_or_replaced() {
        let f = file("[org]\nname = \"a.b\" # ours\n");
        set(&f.path, "org", "name", "c.d").expect("replace");
        set(&f.path, "node", "name", "x").expect("insert");
        assert_eq!((f.config().org, f.config().name), (Some(org("c.d")), "x".to_owned()));
    }
}
