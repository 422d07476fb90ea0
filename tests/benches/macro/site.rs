//! The processes: the server, node A of one org that clients call, and node B of another org.

use std::time::{Duration, Instant};
use std::{env, fs, thread};

use comity_tests::config::{Server, Settings};
use comity_tests::federation::{Org, pin, start_around_first};
use comity_tests::node::Node;
use comity_tests::process::{Background, children_of};
use serde::Serialize;

use crate::proc::{self, Memory};
use crate::upstream::{self, Era};

/// How long a node's memory must stand still to count as settled.
const SETTLED: Duration = Duration::from_secs(3);

/// When a node that does not settle is measured all the same.
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Site {
    a: Node,
    b: Node,
    server: HttpServer,
    a_child: u32,
    b_child: u32,
}

/// The CPU time that each process has used, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Cpu {
    /// This program: the client.
    pub(crate) client_us: u64,
    /// The node that the client calls.
    pub(crate) a_us: u64,
    /// The node of the other org.
    pub(crate) b_us: u64,
    /// The server, however it is reached.
    pub(crate) server_us: u64,
}

/// The memory of both nodes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Memories {
    pub(crate) a: Memory,
    pub(crate) b: Memory,
}

/// The name of the tool of the server of `era` at the node `place` (`near` or `far`), which is also that server's name.
pub(crate) fn tool(place: &str, transport: &str, era: Era) -> String {
    format!("{place}_{transport}_{}", era.name())
}

/// The server over HTTP.
#[derive(Debug)]
pub(crate) struct HttpServer {
    process: Background,
    address: String,
}

impl HttpServer {
    /// Starts it.
    pub(crate) fn start() -> Self {
        let process = Background::start("upstream", &mut upstream::command(&["http"]));
        let address = process.stdout.wait_for(&["127.0.0.1:"]);
        HttpServer { process, address }
    }

    /// Where the server of `era` with `tool` is.
    pub(crate) fn url(&self, era: Era, tool: &str) -> String {
        format!("http://{}/{}/{tool}", self.address, era.name())
    }

    /// It as a node is told of it.
    pub(crate) fn server(&self, place: &str, era: Era) -> Server {
        self.named(era, &tool(place, "http", era))
    }

    /// The server that works on each call, as a node is told of it.
    fn working(&self, place: &str) -> Server {
        self.named(Era::Modern, &tool(place, "work", Era::Modern))
    }

    fn named(&self, era: Era, name: &str) -> Server {
        Server::http(name, &self.url(era, name))
    }
}

impl Site {
    /// Starts all and waits until node A sees every tool.
    pub(crate) fn start() -> Self {
        let server = HttpServer::start();
        let settings = |name: &str, country: &str, place: &str| {
            Settings::new(name, &[country])
                .server(server.server(place, Era::Legacy))
                .server(server.server(place, Era::Modern))
                .server(server.working(place))
                .server(stdio(place))
        };
        let (acme, mut a) = Org::found("acme.example", &settings("a", "DE", "near"));
        let (umbrella, mut b) = Org::found("umbrella.example", &settings("b", "FR", "far"));
        pin(&a, &umbrella);
        pin(&b, &acme);
        a.log_level("info");
        b.log_level("info");
        start_around_first(&mut [&mut b, &mut a]);
        let tools: Vec<String> = ["near", "far"]
            .iter()
            .flat_map(|place| {
                [
                    tool(place, "http", Era::Legacy),
                    tool(place, "http", Era::Modern),
                    tool(place, "work", Era::Modern),
                    tool(place, "stdio", Era::Modern),
                ]
            })
            .collect();
        a.wait_for_tools(&tools.iter().map(String::as_str).collect::<Vec<_>>());
        let (a_child, b_child) = (child(&a), child(&b));
        eprintln!("[macro] node A {}, node B {}, server {}", a.pid(), b.pid(), server.process.pid());
        Site { a, b, server, a_child, b_child }
    }

    /// The endpoint of node A.
    pub(crate) fn node_url(&self) -> &str {
        self.a.mcp_url()
    }

    /// The server over HTTP.
    pub(crate) fn server(&self) -> &HttpServer {
        &self.server
    }

    /// The CPU time used so far; `direct_child` is a server that this program has started itself.
    pub(crate) fn cpu(&self, direct_child: Option<u32>) -> Cpu {
        let servers = [Some(self.server.process.pid()), Some(self.a_child), Some(self.b_child), direct_child];
        Cpu {
            client_us: proc::cpu_us(std::process::id()),
            a_us: proc::cpu_us(self.a.pid()),
            b_us: proc::cpu_us(self.b.pid()),
            server_us: servers.into_iter().flatten().map(proc::cpu_us).sum(),
        }
    }

    /// The memory of both nodes now.
    pub(crate) fn memory_now(&self) -> Memories {
        Memories { a: proc::memory(self.a.pid()), b: proc::memory(self.b.pid()) }
    }

    /// The memory of both nodes once it stands still.
    pub(crate) fn memory_when_settled(&mut self) -> Memories {
        let give_up = Instant::now() + SETTLE_MAX;
        let (mut seen, mut since) = (self.memory_now(), Instant::now());
        while since.elapsed() < SETTLED && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(100));
            let now = self.memory_now();
            if (now.a, now.b) != (seen.a, seen.b) {
                (seen, since) = (now, Instant::now());
            }
        }
        seen
    }
}

impl Cpu {
    /// What has been used since `before`.
    pub(crate) fn since(&self, before: &Cpu) -> Cpu {
        Cpu {
            client_us: self.client_us - before.client_us,
            a_us: self.a_us - before.a_us,
            b_us: self.b_us - before.b_us,
            server_us: self.server_us - before.server_us,
        }
    }
}

/// The server over pipes, as a node is told of it.
fn stdio(place: &str) -> Server {
    let name = tool(place, "stdio", Era::Modern);
    let command = upstream::command(&["stdio", Era::Modern.name(), &name]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    Server::command(&name, words.map(|word| word.to_string_lossy().into_owned()))
}

/// The server that a node has started: the one of its children that is this program.
fn child(node: &Node) -> u32 {
    let program = env::current_exe().expect("the system tells a process its program");
    let runs_it = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    let found = children_of(node.pid()).into_iter().find(runs_it);
    found.unwrap_or_else(|| panic!("{} has not started its server", node.name))
}
