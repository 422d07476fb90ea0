//! A server that runs as a child process, with everything that it starts.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::guard::Guard;
use crate::secret::Secret;

/// How long a server may take to end once its standard input is closed, as the specification asks
/// it to.
const EXIT_PATIENCE: Duration = Duration::from_secs(1);

/// How long it may take after SIGTERM, before SIGKILL.
const TERM_PATIENCE: Duration = Duration::from_secs(2);

/// Variables of the node's environment that every child gets: what programs need to find themselves,
/// the network and the user's language, and nothing that is likely to hold a secret of the node.
const INHERITED: &[&str] = &[
    "HOME",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TERM",
    "USER",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// A child process and its process group. Dropping it kills the whole group.
#[derive(Debug)]
pub(super) struct ChildGroup {
    child: Child,
    group: Pid,
    guard: Arc<Guard>,
}

/// A child's pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

/// How to start a child.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program<'a> {
    pub(super) program: &'a str,
    pub(super) args: &'a [Secret],
    pub(super) env: &'a BTreeMap<String, Secret>,
    pub(super) cwd: Option<&'a Path>,
}

impl ChildGroup {
    /// Starts `program` in a process group of its own, watched by `guard`.
    pub(super) fn spawn(program: Program<'_>, guard: Arc<Guard>) -> io::Result<(Self, Pipes)> {
        let mut command = Command::new(program.program);
        command
            .args(program.args.iter().map(Secret::expose))
            .env_clear()
            .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .envs(program.env.iter().map(|(name, value)| (name, value.expose())))
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(cwd) = program.cwd {
            command.current_dir(cwd);
        }
        let mut child = command.spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let group = pid.ok_or_else(|| io::Error::other("the child has no process id"))?;
        guard.watch(group.as_raw_nonzero().get());
        let pipes = take_pipes(&mut child).ok_or_else(|| io::Error::other("the child has no pipes"));
        let child = Self { child, group, guard };
        Ok((child, pipes?))
    }

    /// Waits until the process itself has ended; its descendants may live on until this is dropped.
    /// Cancel-safe.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends the group in good order. Its standard input must have been closed: the process is given
    /// time to notice, then SIGTERM and time, then the group is killed.
    pub(super) async fn stop(mut self) {
        if timeout(EXIT_PATIENCE, self.child.wait()).await.is_ok() {
            return;
        }
        self.signal(Signal::TERM);
        if timeout(TERM_PATIENCE, self.child.wait()).await.is_ok() {
            return;
        }
        self.signal(Signal::KILL);
        // A process that was killed ends as soon as the kernel gets to it.
        let _ = timeout(TERM_PATIENCE, self.child.wait()).await;
    }

    fn signal(&self, signal: Signal) {
        match kill_process_group(self.group, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                tracing::warn!(group = %self.group.as_raw_nonzero(), %error, "cannot signal a server")
            }
        }
    }
}

impl Drop for ChildGroup {
    fn drop(&mut self) {
        // Also after the process itself has ended: what it started may have stayed. The group's
        // number cannot have been given away unless the group is empty *and* process ids wrapped
        // around since it was reaped, moments ago.
        self.signal(Signal::KILL);
        self.guard.release(self.group.as_raw_nonzero().get());
    }
}

fn take_pipes(child: &mut Child) -> Option<Pipes> {
    Some(Pipes { stdin: child.stdin.take()?, stdout: child.stdout.take()?, stderr: child.stderr.take()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::test_kill_process_group;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

    fn spawn(script: &str, env: &[(&str, &str)]) -> (ChildGroup, Pipes) {
        let args = ["-c", script].map(|arg| Secret::new(arg.to_owned()));
        let env =
            env.iter().map(|(name, value)| (name.to_string(), Secret::new(value.to_string()))).collect();
        let program = Program { program: "/bin/sh", args: &args, env: &env, cwd: Some(Path::new("/")) };
        ChildGroup::spawn(program, Arc::default()).unwrap()
    }

    /// Waits until no process of the group is left.
    async fn gone(group: Pid) {
        while test_kill_process_group(group).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn first_line(pipes: &mut Pipes) -> String {
        let mut line = String::new();
        BufReader::new(&mut pipes.stdout).read_line(&mut line).await.unwrap();
        line
    }

    #[tokio::test]
    async fn dropping_a_child_ends_what_it_started_too() {
        let (child, mut pipes) = spawn("trap '' TERM; (trap '' TERM; sleep 600) & echo up; sleep 600", &[]);
        assert_eq!(first_line(&mut pipes).await, "up\n");
        let group = child.group;
        drop(child);
        gone(group).await;
    }

    #[tokio::test]
    async fn a_child_is_given_the_chance_to_end_by_itself() {
        let (child, mut pipes) = spawn("echo up; read -r line; echo bye", &[]);
        assert_eq!(first_line(&mut pipes).await, "up\n");
        drop(pipes.stdin);
        let group = child.group;
        child.stop().await;
        let mut rest = String::new();
        pipes.stdout.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "bye\n");
        gone(group).await;
    }

    #[tokio::test]
    async fn a_child_that_ignores_everything_is_killed() {
        let (child, mut pipes) = spawn("trap '' TERM; echo up; while :; do sleep 600; done", &[]);
        assert_eq!(first_line(&mut pipes).await, "up\n");
        let group = child.group;
        child.stop().await;
        gone(group).await;
    }

    #[tokio::test]
    async fn the_environment_is_what_was_given_and_little_else() {
        let (_child, mut pipes) = spawn("pwd; env", &[("MINE", "yes")]);
        let mut said = String::new();
        pipes.stdout.read_to_string(&mut said).await.unwrap();
        let mut lines = said.lines();
        assert_eq!(lines.next(), Some("/"));
        let (mine, others): (Vec<&str>, Vec<&str>) = lines.partition(|line| *line == "MINE=yes");
        assert_eq!(mine.len(), 1);
        // The shell sets a few of its own.
        let own = ["PWD", "OLDPWD", "SHLVL", "_"];
        for line in others.iter().filter_map(|line| line.split_once('=')) {
            assert!(INHERITED.contains(&line.0) || own.contains(&line.0), "{line:?} reached the child");
        }
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let env = BTreeMap::new();
        let program = Program { program: "/nonexistent/server", args: &[], env: &env, cwd: None };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(async { ChildGroup::spawn(program, Arc::default()).map(drop) });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
