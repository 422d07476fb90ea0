//! Black-box tests of Comity: real processes, real MCP servers, real MCP clients.
//!
//! This library is the harness. The tests themselves are in `tests/blackbox` and `tests/network`. Nothing here uses Comity's own code: what
//! is tested is the binary, through its command line, its configuration and its endpoints, as a user meets them.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`fixtures`] | installs pinned MCP servers and clients into `.fixtures/`, once |
//! | [`binary`] | builds or finds the `comity` binary |
//! | [`process`] | runs programs: with a deadline, or in the background with their output kept |
//! | [`wait`] | waits for a state, never for a time |
//! | [`command`] | runs `comity` commands and reads what they print |
//! | [`config`] | writes `comity.toml` |
//! | [`node`] | one running node |
//! | [`federation`] | orgs and nodes that trust each other |
//! | [`http`] | HTTP/1.1 as bytes, for well-formed and malformed requests |
//! | [`conformance`] | the conformance suites and the server that passes them |
//! | [`mcp`] | MCP over HTTP in both eras, by hand |
//! | [`raw`] | answers as bytes |
//! | [`cut`] | a network between nodes that can be delayed, thinned out, cut and healed |
//! | [`clients`] | the makers' client libraries and the Inspector, as programs |
//! | [`servers`] | MCP servers to put behind a node, kind and hostile |
//!
//! A harness that cannot do its work panics: a test that cannot run fails.

pub mod binary;
pub mod clients;
pub mod command;
pub mod config;
pub mod conformance;
pub mod cut;
pub mod federation;
pub mod fixtures;
pub mod http;
pub mod mcp;
pub mod node;
pub mod process;
pub mod raw;
pub mod servers;
pub mod wait;

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a member of a workspace")
}

/// A file that comes with the tests, such as `python/client.py`.
pub fn fixture_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}
