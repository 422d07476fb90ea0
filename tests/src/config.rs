//! Writing `comity.toml`.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What a node under test is told. Every listener is on loopback, on a port that the system picks, but where a test says
/// otherwise.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The node's name.
    pub name: String,
    /// Its processing locations, which are also the country of its operator when there is one only.
    pub locations: Vec<String>,
    /// Whose law binds its operator, where it is not that of the location.
    pub operator_country: Option<String>,
    /// Where the mesh listens, where that is not a port of loopback that the system picks.
    pub listen: Vec<String>,
    /// The servers that it fronts.
    pub servers: Vec<Server>,
    /// More of the `[mesh]` section, as TOML lines.
    pub mesh: String,
    /// More sections, as TOML.
    pub sections: String,
}

impl Settings {
    /// A node of this name that processes in these countries.
    pub fn new(name: &str, locations: &[&str]) -> Self {
        Settings {
            name: name.to_owned(),
            locations: locations.iter().map(|country| (*country).to_owned()).collect(),
            ..Settings::default()
        }
    }

    /// Its operator is under this country's law.
    #[must_use]
    pub fn operated_from(mut self, country: &str) -> Self {
        self.operator_country = Some(country.to_owned());
        self
    }

    /// The mesh listens here.
    #[must_use]
    pub fn listen(mut self, addresses: &[String]) -> Self {
        self.listen = addresses.to_vec();
        self
    }

    /// It fronts this server.
    #[must_use]
    pub fn server(mut self, server: Server) -> Self {
        self.servers.push(server);
        self
    }

    /// The `[mesh]` section says this too.
    #[must_use]
    pub fn mesh(mut self, line: &str) -> Self {
        let _ = writeln!(self.mesh, "{line}");
        self
    }

    /// The file holds these sections too.
    #[must_use]
    pub fn section(mut self, toml: &str) -> Self {
        self.sections.push_str(toml);
        self.sections.push('\n');
        self
    }

    fn listeners(&self) -> Value {
        match self.listen.as_slice() {
            [] => json!(["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"]),
            listen => json!(listen),
        }
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        // A string, a list of strings and a number are written in TOML as in JSON.
        let country = self.operator_country.as_ref().or(match self.locations.as_slice() {
            [only] => Some(only),
            _ => None,
        });
        let operator =
            country.map(|country| format!("operator_country = {}\n", json!(country))).unwrap_or_default();
        let mut text = format!(
            "[node]\nname = {}\n\n[site]\nprocessing_locations = {}\n{operator}\n\
             [mesh]\nlisten = {}\npeers = []\n{}\n\
             [mcp]\nlisten = \"127.0.0.1:0\"\n\n[admin]\nlisten = \"127.0.0.1:0\"\n\n{}\n",
            json!(self.name),
            json!(self.locations),
            self.listeners(),
            self.mesh,
            self.sections,
        );
        for server in &self.servers {
            text.push_str(&server.to_toml());
        }
        text
    }
}

/// A `[servers.NAME]` section.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// The program and its arguments; empty for a server over HTTP.
    pub command: Vec<String>,
    /// The endpoint of a server over HTTP.
    pub url: Option<String>,
    /// Who may call it: `local`, `org` or `federation`.
    pub share: String,
    /// More of the section, as TOML lines.
    pub more: String,
}

impl Server {
    /// A server that is started by a command, open to the whole federation.
    pub fn command<S: ToString>(name: &str, command: impl IntoIterator<Item = S>) -> Self {
        let command = command.into_iter().map(|part| part.to_string()).collect();
        Server {
            name: name.to_owned(),
            command,
            url: None,
            share: "federation".to_owned(),
            more: String::new(),
        }
    }

    /// A server over HTTP, open to the whole federation.
    pub fn http(name: &str, url: &str) -> Self {
        Server { url: Some(url.to_owned()), ..Server::command::<String>(name, []) }
    }

    /// Who may call it.
    #[must_use]
    pub fn share(mut self, share: &str) -> Self {
        self.share = share.to_owned();
        self
    }

    /// The section says this too.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        let _ = writeln!(self.more, "{lines}");
        self
    }

    /// The section's text.
    pub fn to_toml(&self) -> String {
        let launch = match (&self.url, self.command.split_first()) {
            (Some(url), _) => format!("url = {}", json!(url)),
            (None, Some((program, arguments))) => {
                format!("command = {}\nargs = {}", json!(program), json!(arguments))
            }
            (None, None) => String::new(),
        };
        format!("\n[servers.{}]\n{launch}\nshare = {}\n{}", self.name, json!(self.share), self.more)
    }
}
