//! One node: its data directory, its configuration, and its process while it runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::Value;
use tempfile::TempDir;

use crate::binary;
use crate::clients::Target;
use crate::command::{Answer, ask, comity};
use crate::config::{Server, Settings};
use crate::http;
use crate::process::{Background, Finished, run};
use crate::wait;

/// A node of a federation under test. Its process is killed and its directory removed when this is dropped.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub id: String,
    process: Option<Background>,
    log_level: &'static str,
    variables: Vec<(&'static str, String)>,
    /// The program, with its arguments, behind which the node runs; none for most.
    behind: Vec<String>,
    mcp_url: String,
    admin_url: String,
    dir: TempDir,
}

impl Node {
    /// Makes a node's keys with `comity init`, then writes its configuration.
    pub fn init(settings: &Settings) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("comity-test-")
            .tempdir()
            .expect("a temporary directory can be made");
        let data_dir = dir.path().join("data");
        let made = ask(&data_dir, &["init", "--name", &settings.name]).json();
        fs::write(data_dir.join("comity.toml"), settings.to_toml()).expect("a configuration can be written");
        Node {
            name: settings.name.clone(),
            id: made["node"].as_str().expect("init prints the node's id").to_owned(),
            process: None,
            log_level: "debug",
            variables: Vec::new(),
            behind: Vec::new(),
            mcp_url: String::new(),
            admin_url: String::new(),
            dir,
        }
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A directory for the test's own files, removed with the node.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// `comity ARGUMENTS` for this node, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        comity(&self.data_dir(), arguments)
    }

    /// Runs `comity ARGUMENTS`.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments))
    }

    /// Runs `comity ARGUMENTS --json`.
    pub fn ask(&self, arguments: &[&str]) -> Answer {
        ask(&self.data_dir(), arguments)
    }

    /// Runs `comity ARGUMENTS --json`, which must succeed.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.ask(arguments).json()
    }

    /// Changes the text of its configuration. The file is replaced as editors do, so that a running node never reads half.
    pub fn edit_config(&self, change: impl FnOnce(String) -> String) {
        let path = self.data_dir().join("comity.toml");
        let text = fs::read_to_string(&path).expect("the configuration can be read");
        let written = self.data_dir().join("comity.toml.edited");
        fs::write(&written, change(text)).expect("the configuration can be written");
        fs::rename(&written, &path).expect("the configuration can be replaced");
    }

    /// Adds a server to its configuration by editing the file.
    pub fn edit_in_server(&self, server: &Server) {
        self.edit_config(|text| text + &server.to_toml());
    }

    /// Names the nodes that it dials.
    pub fn seeds(&self, addresses: &[String]) {
        self.edit_config(|text| {
            let start = text.find("peers = ").expect("the configuration names peers");
            let end = text[start..].find('\n').map_or(text.len(), |length| start + length);
            format!("{}peers = {}{}", &text[..start], serde_json::json!(addresses), &text[end..])
        });
    }

    /// What it logs from its next start on; without this, all that tests look for.
    pub fn log_level(&mut self, level: &'static str) {
        self.log_level = level;
    }

    /// A variable of its environment from its next start on.
    pub fn variable(&mut self, name: &'static str, value: impl Into<String>) {
        self.variables.push((name, value.into()));
    }

    /// Runs it from its next start on behind a program that becomes it, such as one that enters a namespace. Commands
    /// reach it as ever: they go through its data directory.
    pub fn run_behind(&mut self, program: &[String]) {
        self.behind = program.to_vec();
    }

    /// Starts it and waits until it answers.
    pub fn start(&mut self) {
        self.spawn(&[]);
        self.wait_until_up();
    }

    /// Starts `comity up` and does not wait.
    pub fn spawn(&mut self, arguments: &[&str]) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let mut command = self.command(&["up", "--log-format", "json", "--log-level", self.log_level]);
        command.args(arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        self.process = Some(Background::start(&self.name, &mut behind(&self.behind, command)));
    }

    fn wait_until_up(&mut self) {
        let status = wait::until(&format!("{} is up", self.name), || {
            let ended = self.process.as_mut().expect("it was started").ended();
            assert!(ended.is_none(), "{} ended at start: {ended:?}", self.name);
            let answer = self.ask(&["status"]);
            match answer.code() {
                Some(0) if answer.json()["mcp_url"].is_string() => Ok(answer.json()),
                _ => Err(answer),
            }
        });
        let url =
            |key: &str| status[key].as_str().unwrap_or_else(|| panic!("no {key} in {status}")).to_owned();
        (self.mcp_url, self.admin_url) = (url("mcp_url"), url("admin_url"));
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&mut self) -> &mut Background {
        self.process.as_mut().expect("the node runs")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the node runs").pid()
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.process().kill();
        self.process = None;
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.process().terminate();
        let status = self.process().wait();
        self.process = None;
        status
    }

    /// Keeps the ports that it has for its next start, so that others find it where it was.
    pub fn keep_addresses(&self) {
        let addresses = self.addresses();
        let (udp, tcp) = (port(&addresses, "/udp/"), port(&addresses, "/tcp/"));
        self.edit_config(|text| {
            text.replace("/udp/0/", &format!("/udp/{udp}/")).replace("/tcp/0\"", &format!("/tcp/{tcp}\""))
        });
    }

    /// What `comity status` tells.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.json(&["status"])
    }

    /// The addresses at which it can be dialled. They are told once it has published them.
    pub fn addresses(&self) -> Vec<String> {
        let status = self.wait_for_status("it tells both addresses", |status| {
            status["addresses"].as_array().is_some_and(|addresses| addresses.len() >= 2)
        });
        let addresses = status["addresses"].as_array().expect("a list of addresses");
        addresses.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// The endpoint for clients.
    pub fn mcp_url(&self) -> &str {
        &self.mcp_url
    }

    /// The endpoint for clients, as clients are told it.
    pub fn target(&self) -> Target {
        Target::Url(self.mcp_url.clone())
    }

    /// The endpoint that shows one server's capability set under its own names.
    pub fn raw_url(&self, server: &str) -> String {
        format!("{}/raw/{server}", self.mcp_url)
    }

    /// `comity stdio`, for clients that start a process.
    pub fn bridge(&self) -> Target {
        let text = |path: &Path| path.to_str().expect("a path is text").to_owned();
        let data_dir = text(&self.data_dir());
        Target::Command(vec![text(binary::comity()), "--data-dir".into(), data_dir, "stdio".into()])
    }

    /// What `GET PATH` of its endpoint for operators answers.
    pub fn admin(&self, path: &str) -> http::Response {
        let base = http::Url::parse(&self.admin_url);
        http::get(&http::Url { path: path.to_owned(), ..base })
    }

    /// One number of its metrics: the sum over the samples whose line begins with `name` and holds every one of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.admin("/metrics").text();
        let samples = text.lines().filter(|line| !line.starts_with('#') && line.starts_with(name));
        let samples = samples.filter(|line| labels.iter().all(|label| line.contains(label)));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The names of the tools that its clients see.
    pub fn tool_names(&self) -> Vec<String> {
        let tools = self.json(&["tools"]);
        let tools = tools.as_array().expect("a list of tools");
        tools.iter().filter_map(|tool| tool["name"].as_str()).map(str::to_owned).collect()
    }

    /// Waits until its clients see all of these tools.
    pub fn wait_for_tools(&self, names: &[&str]) {
        wait::until(&format!("{} shows {names:?}", self.name), || {
            let seen = self.tool_names();
            if names.iter().all(|name| seen.iter().any(|seen| seen == name)) { Ok(()) } else { Err(seen) }
        });
    }

    /// Waits until its status fits. A node that starts again within its process, as one does that has just joined an
    /// org, does not answer for a moment.
    pub fn wait_for_status(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait::until(&format!("{}: {what}", self.name), || {
            let answer = self.ask(&["status"]);
            match answer.code() {
                Some(0) if fits(&answer.json()) => Ok(answer.json()),
                _ => Err(answer.finished),
            }
        })
    }

    /// Waits until every server that it fronts answers.
    pub fn wait_until_serving(&self) {
        self.wait_for_status("its servers answer", |status| {
            let servers = status["servers"].as_array().expect("a list of servers");
            servers.iter().all(|server| server["state"] == "ready")
        });
    }

    /// Waits until it fronts a server, which answers.
    pub fn wait_until_serving_one(&self) {
        self.wait_for_status("its server answers", |status| {
            let servers = status["servers"].as_array().expect("a list of servers");
            servers.len() == 1 && servers[0]["state"] == "ready"
        });
    }

    /// Waits until it is connected to this many peers.
    pub fn wait_for_peers(&self, count: u64) {
        self.wait_for_status(&format!("{count} peers"), |status| status["peers_connected"] == count);
    }

    /// The route of a call: who would run it, and who may not.
    pub fn route(&self, tool: &str, constraints: &[&str]) -> Value {
        self.json(&[&["route", tool], constraints].concat())
    }
}

/// `command` with the environment that it has, run by `program`.
fn behind(program: &[String], command: Command) -> Command {
    let Some((name, arguments)) = program.split_first() else { return command };
    let mut outer = Command::new(name);
    outer.args(arguments).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(key, value),
            None => outer.env_remove(key),
        };
    }
    outer
}

/// The port of the address that holds `protocol`, such as `/tcp/`.
pub fn port(addresses: &[String], protocol: &str) -> u16 {
    let mut ports = addresses
        .iter()
        .filter_map(|address| address.split_once(protocol)?.1.split('/').next()?.parse().ok());
    ports.next().unwrap_or_else(|| panic!("no {protocol} address in {addresses:?}"))
}
