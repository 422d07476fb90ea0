//! One node of the demo: its data directory, and its process while it runs.
//!
//! Everything is done as an operator does it: by running `comity`, by editing `comity.toml`, and over the control socket.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use thiserror::Error;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use toml_edit::{Array, DocumentMut, TomlError, value};

use super::cast::{MESH, Role};
use super::server::ToolSet;
use crate::control::messages::{RouteReport, RouteRequest, StatusReport, ToolInfo, ToolSelector};
use crate::control::{ClientError, ControlClient, Request, Response};
use crate::files::{MODE_PRIVATE, ReadError, WriteError, read_bounded, write_atomic};
use crate::identity::DataDir;
use crate::upstream::Guard;

/// How long a command, or a question to a node, may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);
/// How long a node may take to end when asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(8);
/// How often a state is looked at while it is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Largest configuration that is edited.
const CONFIG_BYTES_MAX: usize = 1 << 20;
/// How much of a log's end is read, and how many of its lines are shown.
const LOG_TAIL: (u64, usize) = (32 << 10, 15);
/// Variables by which the user speaks to a `comity` of their own.
const NOT_INHERITED: [&str; 3] = ["COMITY_DATA_DIR", "COMITY_CONFIG", "COMITY_LOG"];

/// Why a node did not do what it should.
#[derive(Debug, Error)]
pub(super) enum NodeError {
    /// The program cannot be run.
    #[error("cannot run comity {command}")]
    Spawn { command: String, source: io::Error },
    /// A command failed.
    #[error("comity {command} ended with {status}: {said}")]
    Command { command: String, status: ExitStatus, said: String },
    /// A command or a node took too long.
    #[error("{0} took more than {ANSWER_DEADLINE:?}")]
    TooSlow(String),
    /// A command printed something else than it should.
    #[error("comity {0} did not print what was expected")]
    Output(String),
    /// The node ended by itself.
    #[error("the node ended by itself ({0})")]
    Ended(ExitStatus),
    /// The node did not answer.
    #[error(transparent)]
    Control(#[from] ClientError),
    /// The configuration cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The configuration cannot be understood.
    #[error("the configuration is not TOML")]
    Toml(#[from] TomlError),
    /// The configuration cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The process cannot be watched or signalled.
    #[error("the node's process cannot be handled")]
    Process(#[from] io::Error),
}

/// One node. Dropping it kills its process.
pub(super) struct DemoNode {
    pub(super) role: &'static Role,
    /// What it told of itself last.
    pub(super) status: StatusReport,
    /// The digest of its org's root.
    pub(super) root: String,
    dir: DataDir,
    log: PathBuf,
    program: PathBuf,
    guard: Arc<Guard>,
    process: Option<Running>,
}

/// A node's process, in a process group of its own: a Ctrl-C is the demo's to handle.
struct Running {
    child: Child,
    pid: Pid,
    guard: Arc<Guard>,
}

impl DemoNode {
    /// A node whose data goes to `under`, in a directory of its name. Nothing is made yet.
    pub(super) fn new(role: &'static Role, under: &Path, program: &Path, guard: Arc<Guard>) -> Self {
        Self {
            role,
            status: StatusReport::default(),
            root: String::new(),
            dir: DataDir::at(under.join(role.name)),
            log: under.join(format!("{}.log", role.name)),
            program: program.to_owned(),
            guard,
            process: None,
        }
    }

    /// Its data directory.
    pub(super) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its identity, once it has run.
    pub(super) fn id(&self) -> &str {
        &self.status.node
    }

    /// Runs `comity ARGUMENTS --json` for this node and returns what it printed.
    pub(super) async fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Value, NodeError> {
        let command =
            arguments.iter().map(|part| part.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ");
        let running = self.command().arg("--json").args(arguments).stdin(Stdio::null()).output();
        let output = match timeout(ANSWER_DEADLINE, running).await {
            Ok(Ok(output)) => output,
            Ok(Err(source)) => return Err(NodeError::Spawn { command, source }),
            Err(_) => return Err(NodeError::TooSlow(format!("comity {command}"))),
        };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(NodeError::Command { command, status: output.status, said });
        }
        serde_json::from_slice(&output.stdout).map_err(|_| NodeError::Output(command))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--data-dir").arg(self.dir.path()).kill_on_drop(true);
        NOT_INHERITED.iter().for_each(|name| {
            command.env_remove(name);
        });
        command
    }

    /// Makes its keys, its configuration and its org, and has it front its servers.
    pub(super) async fn found(&mut self, servers: &[ToolSet]) -> Result<(), NodeError> {
        let Role { name, org, country, operator, .. } = self.role;
        self.run(&["init", "--name", name, "--location", country, "--operator-country", operator]).await?;
        self.edit(|config| {
            config["mesh"]["name"] = value(MESH);
            config["mesh"]["listen"] =
                value(Array::from_iter(["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"]));
            config["mcp"]["listen"] = value("127.0.0.1:0");
            config["admin"]["listen"] = value("127.0.0.1:0");
        })?;
        let created = self.run(&["org", "create", org]).await?;
        self.root =
            created["root"].as_str().ok_or_else(|| NodeError::Output("org create".into()))?.to_owned();
        for set in servers {
            let program = self.program.as_os_str();
            let head = ["servers", "add", set.name(), "--share", "federation", "--"].map(OsStr::new);
            let arguments = [&head[..], &[program], &["demo-server", set.name()].map(OsStr::new)].concat();
            self.run(&arguments).await?;
        }
        Ok(())
    }

    /// Has it believe another org.
    pub(super) async fn pin(&self, org: &str, root: &str, approve_all: bool) -> Result<(), NodeError> {
        let mut arguments = vec!["trust", "pin", org, root];
        arguments.extend(approve_all.then_some("--approve-all"));
        self.run(&arguments).await.map(drop)
    }

    /// Names the nodes that it dials.
    pub(super) fn seeds(&self, addresses: &[String]) -> Result<(), NodeError> {
        self.edit(|config| config["mesh"]["peers"] = value(Array::from_iter(addresses)))
    }

    /// Changes its configuration, as with an editor.
    fn edit(&self, change: impl FnOnce(&mut DocumentMut)) -> Result<(), NodeError> {
        let path = self.dir.config();
        let text = read_bounded(&path, CONFIG_BYTES_MAX)?;
        let mut config: DocumentMut = String::from_utf8_lossy(&text).parse()?;
        change(&mut config);
        Ok(write_atomic(&path, config.to_string().as_bytes(), MODE_PRIVATE)?)
    }

    /// Starts `comity up`, its log appended to a file, and waits until it answers.
    pub(super) async fn start(&mut self) -> Result<(), NodeError> {
        let log = File::options().append(true).create(true).open(&self.log)?;
        let mut command = self.command();
        command.arg("up").process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|source| NodeError::Spawn { command: "up".into(), source })?;
        self.process = Some(Running::new(child, self.guard.clone())?);
        let up = async {
            loop {
                if let Some(status) = self.has_ended()? {
                    return Err(NodeError::Ended(status));
                }
                match self.look().await {
                    Ok(status) if status.mcp_url.is_some() && !status.addresses.is_empty() => return Ok(()),
                    Ok(_) | Err(NodeError::Control(ClientError::NotRunning(_))) => sleep(LOOK_INTERVAL).await,
                    Err(error) => return Err(error),
                }
            }
        };
        timeout(ANSWER_DEADLINE, up).await.unwrap_or_else(|_| Err(NodeError::TooSlow("comity up".into())))
    }

    fn has_ended(&mut self) -> Result<Option<ExitStatus>, NodeError> {
        Ok(self.process.as_mut().map(|running| running.child.try_wait()).transpose()?.flatten())
    }

    /// How it is now; kept in [`DemoNode::status`] too.
    pub(super) async fn look(&mut self) -> Result<&StatusReport, NodeError> {
        match self.ask(&Request::Status).await? {
            Response::Status(status) => {
                self.status = *status;
                Ok(&self.status)
            }
            _ => Err(ClientError::Unexpected.into()),
        }
    }

    /// Every tool that it knows of.
    pub(super) async fn tools(&self) -> Result<Vec<ToolInfo>, NodeError> {
        self.ask_tools(&Request::Tools).await
    }

    /// Approves all tools of an org, as `comity tools approve --org` does.
    pub(super) async fn approve(&self, org: &str) -> Result<Vec<ToolInfo>, NodeError> {
        let selector = ToolSelector { org: Some(org.to_owned()), ..ToolSelector::default() };
        self.ask_tools(&Request::ApproveTools(selector)).await
    }

    async fn ask_tools(&self, request: &Request) -> Result<Vec<ToolInfo>, NodeError> {
        match self.ask(request).await? {
            Response::Tools(tools) => Ok(tools),
            _ => Err(ClientError::Unexpected.into()),
        }
    }

    /// Who would run a call of `tool`, as `comity route` explains it.
    pub(super) async fn route(&self, tool: &str, constraints: &Value) -> Result<RouteReport, NodeError> {
        let constraints = serde_json::value::to_raw_value(constraints).ok();
        let request = Request::Route(RouteRequest { tool: tool.to_owned(), constraints });
        match self.ask(&request).await? {
            Response::Route(report) => Ok(report),
            _ => Err(ClientError::Unexpected.into()),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Response, NodeError> {
        let asked = async { ControlClient::connect(&self.dir.socket())?.request(request, |_| ()).await };
        match timeout(ANSWER_DEADLINE, asked).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(NodeError::TooSlow(format!("an answer of {}", self.role.name))),
        }
    }

    /// Its process id while it runs.
    pub(super) fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(|running| running.pid.as_raw_nonzero().get())
    }

    /// Kills its process, as a crash would, and waits until it is gone.
    pub(super) async fn kill(&mut self) -> Result<(), NodeError> {
        match self.process.take() {
            Some(mut running) => Ok(running.child.kill().await?),
            None => Ok(()),
        }
    }

    /// Asks its process to end; kills it when it does not.
    pub(super) async fn stop(&mut self) {
        let Some(mut running) = self.process.take() else { return };
        // Nothing is left to do about a process that cannot be signalled or waited for: dropping it kills it.
        let _ = kill_process(running.pid, Signal::TERM);
        let _ = timeout(STOP_DEADLINE, running.child.wait()).await;
    }

    /// The last lines of its log.
    pub(super) fn last_log_lines(&self) -> Vec<String> {
        let (bytes, lines) = LOG_TAIL;
        let text = read_tail(&self.log, bytes).unwrap_or_default();
        let all: Vec<_> = text.lines().map(str::to_owned).collect();
        all[all.len().saturating_sub(lines)..].to_vec()
    }
}

fn read_tail(path: &Path, bytes_max: u64) -> io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut tail = Vec::new();
    file.take(bytes_max).read_to_end(&mut tail)?;
    Ok(String::from_utf8_lossy(&tail).into_owned())
}

impl Running {
    fn new(child: Child, guard: Arc<Guard>) -> io::Result<Self> {
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.ok_or_else(|| io::Error::other("the child has no process id"))?;
        guard.watch(pid.as_raw_nonzero().get());
        Ok(Self { child, pid, guard })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The child itself is killed by tokio when it still runs.
        self.guard.release(self.pid.as_raw_nonzero().get());
    }
}
