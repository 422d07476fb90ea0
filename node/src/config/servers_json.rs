//! `[[servers_from]]`: servers as desktop clients write them, in `mcpServers` (Claude Desktop, Claude Code, Cursor,
//! Windsurf) or `servers` (VS Code) of a JSON file, comments and trailing commas allowed.
//!
//! The file belongs to another program, so keys that mean nothing here are a warning; what we would act on and cannot
//! read is a fault all the same.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use comity_protocol::constraints::DataClass;
use comity_protocol::ids::{ItemName, ServerName};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::expand::{Lookup, expand};
use super::fault::Report;
use super::jsonc::to_json;
use super::section::Section;
use super::servers::{Launch, ServerConfig, Share, TIMEOUT_DEFAULT};
use super::setting::{HttpUrl, TextSetting};
use crate::secret::Secret;

/// JSON files that one configuration may import from.
pub const IMPORTS_MAX: usize = 16;

/// One `[[servers_from]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServersFrom {
    /// The JSON file.
    pub path: PathBuf,
    /// Who may call the tools of the servers in it.
    pub share: Share,
    /// Servers in it that this node leaves alone.
    pub skip: Vec<String>,
    /// Where the entry's path stands in `comity.toml`.
    pub(super) span: Range<usize>,
}

/// Reads every `[[servers_from]]` entry of `comity.toml`.
pub(super) fn read_entries(root: &mut Section<'_>) -> Vec<ServersFrom> {
    let sections = root.sections("servers_from");
    if sections.len() > IMPORTS_MAX {
        root.fault(
            "servers_from",
            format!("names {} files", sections.len()),
            format!("name at most {IMPORTS_MAX}"),
        );
    }
    let mut entries: Vec<ServersFrom> = Vec::new();
    for mut section in sections.into_iter().take(IMPORTS_MAX) {
        let path = section.required::<PathBuf>("path").map(|path| section.resolve_path(&path));
        let share = section.or("share", Share::default());
        let skip = section.list_of_distinct("skip").unwrap_or_default();
        if let Some(path) = path {
            match entries.iter().any(|entry| entry.path == path) {
                true => section.fault("path", "is imported twice", "keep one of the two"),
                false => entries.push(ServersFrom { path, share, skip, span: section.span_of("path") }),
            }
        }
        section.finish();
    }
    entries
}

/// Reads the servers of one JSON file; what is wrong goes into `report`, whose source is the file's text.
pub(super) fn import(
    report: &Report<'_>,
    source: &str,
    entry: &ServersFrom,
    lookup: Lookup<'_>,
) -> Vec<(ServerName, Range<usize>, ServerConfig)> {
    let json = to_json(source);
    let reader = Reader { report, json: &json, lookup };
    let Some(table) = reader.servers_table() else { return Vec::new() };
    let mut servers = Vec::new();
    for (name, value) in table.0 {
        let path = format!("mcpServers.{name}");
        if entry.skip.contains(&name) {
            continue;
        }
        if let Some(launch) = reader.launch(value, &path) {
            let span = reader.span(value);
            if let Some(name) = reader.name(&name, span.clone(), &path) {
                servers.push((name, span, server(launch, entry)));
            }
        }
    }
    servers
}

fn server(launch: Launch, entry: &ServersFrom) -> ServerConfig {
    ServerConfig {
        launch,
        share: entry.share,
        approve: None,
        read_only: Vec::<ItemName>::new(),
        idempotent: Vec::<ItemName>::new(),
        timeout: TIMEOUT_DEFAULT,
        era: crate::upstream::EraChoice::Auto,
        class_max: DataClass::Restricted,
        defined_in: entry.path.clone(),
    }
}

/// One level of a JSON object, in order, its values where they stand in the text.
struct Object<'j>(Vec<(String, &'j RawValue)>);

impl<'de: 'j, 'j> Deserialize<'de> for Object<'j> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Entries).map(Object)
    }
}

struct Reader<'r> {
    report: &'r Report<'r>,
    json: &'r str,
    lookup: Lookup<'r>,
}

impl<'r> Reader<'r> {
    /// Where a value stands: it is a slice of the text that was parsed.
    fn span(&self, value: &RawValue) -> Range<usize> {
        let start = (value.get().as_ptr() as usize).saturating_sub(self.json.as_ptr() as usize);
        start..start + value.get().len()
    }

    fn servers_table(&self) -> Option<Object<'r>> {
        let root: Object<'r> = match serde_json::from_str(self.json) {
            Ok(root) => root,
            Err(error) => {
                let at = offset(self.json, error.line(), error.column());
                self.report.fault(
                    at..at,
                    "",
                    format!("is not JSON: {error}"),
                    "mend it, or remove the import",
                );
                return None;
            }
        };
        let found = root.0.iter().find(|(key, _)| key == "mcpServers" || key == "servers");
        let Some((key, value)) = found else {
            let hint = "give a file in which a desktop client lists its MCP servers";
            self.report.fault(0..0, "", "has neither `mcpServers` nor `servers`", hint);
            return None;
        };
        self.read(value, key, "an object of servers")
    }

    fn launch(&self, value: &'r RawValue, path: &str) -> Option<Launch> {
        let fields = Fields::new(self.read(value, path, "an object")?);
        if fields.bool(self, path, "disabled") == Some(true) {
            return None;
        }
        let transport = fields.string(self, path, &["type", "transport"]);
        let command = fields.string(self, path, &["command"]);
        let args: Vec<String> = fields.read(self, path, &["args"], "a list of strings").unwrap_or_default();
        let env = fields.secrets(self, path, "env");
        let cwd = fields.string(self, path, &["cwd"]).map(PathBuf::from);
        let url = fields.string(self, path, &["url", "serverUrl", "httpUrl"]);
        let headers = fields.secrets(self, path, "headers");
        fields.warn_of_the_rest(self, path);
        if transport.as_deref() == Some("sse") {
            let hint = "use the server's streamable HTTP endpoint, or name it in `skip`";
            self.report.fault(
                self.span(value),
                path,
                "speaks the old HTTP+SSE transport, which Comity does not",
                hint,
            );
            return None;
        }
        match (command, url) {
            (Some(program), None) => {
                let args =
                    args.iter().filter_map(|arg| self.expanded(value, path, arg)).map(Secret::new).collect();
                Some(Launch::Command { program: self.expanded(value, path, &program)?, args, env, cwd })
            }
            (None, Some(url)) => {
                let url = HttpUrl::from_text(&self.expanded(value, path, &url)?);
                let url = url.map_err(|problem| self.fault(value, &format!("{path}.url"), problem)).ok()?;
                Some(Launch::Http { url, headers })
            }
            (Some(_), Some(_)) => {
                self.fault(value, path, "has both a command and a URL; keep one".to_owned());
                None
            }
            (None, None) => {
                self.fault(value, path, "has neither a command nor a URL; give one".to_owned());
                None
            }
        }
    }

    /// Desktop clients allow any text as a name; ours are part of tool names, so other characters become `-`.
    fn name(&self, written: &str, span: Range<usize>, path: &str) -> Option<ServerName> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        let cleaned: String = written.trim().chars().take(64).map(plain).collect();
        match cleaned.parse::<ServerName>() {
            Ok(name) => {
                if cleaned != written {
                    self.report.warning(span, path, format!("is known here as `{cleaned}`"), "");
                }
                Some(name)
            }
            Err(error) => {
                self.report.fault(span, path, error.to_string(), "rename it, or name it in `skip`");
                None
            }
        }
    }

    fn read<T: Deserialize<'r>>(&self, value: &'r RawValue, path: &str, expected: &str) -> Option<T> {
        match serde_json::from_str(value.get()) {
            Ok(read) => Some(read),
            Err(_) => {
                self.report.fault(
                    self.span(value),
                    path,
                    format!("is not {expected}"),
                    format!("give {expected}"),
                );
                None
            }
        }
    }

    fn expanded(&self, value: &RawValue, path: &str, text: &str) -> Option<String> {
        expand(text, self.lookup).map_err(|problem| self.fault(value, path, problem)).ok()
    }

    fn fault(&self, value: &RawValue, path: &str, problem: String) {
        self.report.fault(self.span(value), path, problem, "mend it, or name the server in `skip`");
    }
}

/// The keys of one server, noting which were asked for.
struct Fields<'j> {
    object: Object<'j>,
    known: std::cell::RefCell<Vec<String>>,
}

impl<'r> Fields<'r> {
    fn new(object: Object<'r>) -> Self {
        Fields { object, known: std::cell::RefCell::default() }
    }

    fn read<T: Deserialize<'r>>(
        &self,
        from: &Reader<'r>,
        path: &str,
        keys: &[&str],
        expected: &str,
    ) -> Option<T> {
        self.known.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
        let (key, value) = self.object.0.iter().find(|(key, _)| keys.contains(&key.as_str()))?;
        if value.get() == "null" {
            return None;
        }
        from.read(value, &format!("{path}.{key}"), expected)
    }

    fn string(&self, from: &Reader<'r>, path: &str, keys: &[&str]) -> Option<String> {
        self.read(from, path, keys, "a string")
    }

    fn bool(&self, from: &Reader<'r>, path: &str, key: &str) -> Option<bool> {
        self.read(from, path, &[key], "true or false")
    }

    fn secrets(&self, from: &Reader<'r>, path: &str, key: &str) -> BTreeMap<String, Secret> {
        let texts: BTreeMap<String, &'r RawValue> =
            self.read(from, path, &[key], "an object of strings").unwrap_or_default();
        texts
            .into_iter()
            .filter_map(|(name, value)| {
                let path = format!("{path}.{key}.{name}");
                let text: String = from.read(value, &path, "a string")?;
                Some((name, Secret::new(from.expanded(value, &path, &text)?)))
            })
            .collect()
    }

    fn warn_of_the_rest(&self, from: &Reader<'r>, path: &str) {
        let known = self.known.borrow();
        for (key, value) in self.object.0.iter().filter(|(key, _)| !known.contains(key)) {
            from.report.warning(from.span(value), &format!("{path}.{key}"), "means nothing to Comity", "");
        }
    }
}

/// The byte offset of a line and column (from 1) as serde_json counts them.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    start + column.saturating_sub(1)
}
