//! Checks of the MCP servers that are configured: is the program there, does the address answer?

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use comity_protocol::ids::ServerName;
use futures::StreamExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Check;
use super::network::{AT_ONCE_MAX, REACH_DEADLINE};
use crate::config::NodeConfig;
use crate::config::servers::{Launch, ServerConfig};
use crate::config::setting::HttpUrl;

pub(super) async fn servers(config: &NodeConfig) -> Vec<Check> {
    if config.servers.is_empty() {
        let mend = "add one: comity servers add NAME -- COMMAND";
        return vec![Check::warn("servers", "none, so this node serves no tools of its own", mend)];
    }
    let checks = futures::stream::iter(&config.servers).map(|(name, server)| check(name, server));
    checks.buffered(AT_ONCE_MAX).collect().await
}

async fn check(name: &ServerName, server: &ServerConfig) -> Check {
    let title = format!("server {name}");
    match &server.launch {
        Launch::Command { program, cwd, .. } => command(title, program, cwd.as_deref()),
        Launch::Http { url, .. } => endpoint(title, url).await,
    }
}

fn command(title: String, program: &str, cwd: Option<&Path>) -> Check {
    if let Some(cwd) = cwd.filter(|cwd| !cwd.is_dir()) {
        return Check::fail(title, format!("its directory {} is not there", cwd.display()), "correct `cwd`");
    }
    match find_program(program, cwd, env::var_os("PATH").as_deref()) {
        Some(path) => Check::ok(title, path.display().to_string()),
        None if program.contains('/') => {
            Check::fail(title, format!("{program} is not a program"), "correct `command`, or chmod +x it")
        }
        None => Check::fail(
            title,
            format!("{program} is not on PATH"),
            "install it, or give `command` with its full path",
        ),
    }
}

/// Where the system would find a program: a path as it is, a bare name on `PATH`.
fn find_program(program: &str, cwd: Option<&Path>, path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    if program.contains('/') {
        let path = cwd.unwrap_or(Path::new("")).join(program);
        return is_program(&path).then_some(path);
    }
    env::split_paths(path?).map(|dir| dir.join(program)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

async fn endpoint(title: String, url: &HttpUrl) -> Check {
    let address = url.as_url().host_str().zip(url.as_url().port_or_known_default());
    let Some((host, port)) = address else {
        return Check::fail(title, format!("{url} names no host"), "correct `url`");
    };
    let mend = "start that server, or correct `url`";
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match timeout(REACH_DEADLINE, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Check::ok(title, format!("{url} answers")),
        Ok(Err(error)) => Check::fail(title, format!("{url}: {error}"), mend),
        Err(_) => Check::fail(title, format!("{url} does not answer within {REACH_DEADLINE:?}"), mend),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_the_system_would() {
        let dir = tempfile::tempdir().expect("temp dir");
        let program = dir.path().join("tool");
        fs::write(&program, "").expect("write");
        let path = Some(dir.path().as_os_str());
        assert_eq!(find_program("tool", None, path), None, "not executable");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
        assert_eq!(find_program("tool", None, path).as_ref(), Some(&program));
        assert_eq!(find_program("./tool", Some(dir.path()), None), Some(dir.path().join("./tool")));
        assert_eq!(find_program("tool", None, None), None);
        assert_eq!(find_program("/", None, path), None, "a directory is no program");
    }
}
