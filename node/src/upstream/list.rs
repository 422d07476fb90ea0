//! What a server offers: its tools, prompts and resources, as it wrote them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use comity_protocol::ids::ItemName;
use comity_protocol::json::{self, JsonError, RawObject};
use serde_json::value::RawValue;

use super::http::annotations;
use super::profile::Era;
use super::session::{Link, RequestError, Session};

/// Pages of one list that are fetched.
const PAGES_MAX: usize = 100;

/// Entries of one list that are kept.
pub const LIST_ENTRIES_MAX: usize = 4096;

/// Bytes of one list that are kept.
pub const LIST_BYTES_MAX: usize = 16 << 20;

/// One tool of an upstream.
#[derive(Debug, Clone)]
pub struct Tool {
    /// The name that the server knows it by.
    pub name: ItemName,
    /// The whole tool object as the server wrote it.
    pub raw: Box<RawValue>,
}

/// What a server offers. What it does not advertise is empty.
#[derive(Debug, Clone, Default)]
pub struct Offerings {
    /// Tools, in the server's order, each name once.
    pub tools: Arc<[Tool]>,
    /// Prompt objects as the server wrote them.
    pub prompts: Arc<[Box<RawValue>]>,
    /// Resource objects as the server wrote them.
    pub resources: Arc<[Box<RawValue>]>,
    /// Resource templates as the server wrote them.
    pub resource_templates: Arc<[Box<RawValue>]>,
    /// How long its lists may be kept, in milliseconds: the shortest that it said of any, if it said so.
    pub ttl_ms: Option<u64>,
}

/// One list, as far as it was fetched.
#[derive(Debug, Default)]
struct List {
    entries: Vec<Box<RawValue>>,
    ttl_ms: Option<u64>,
}

/// Why a list could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    /// The server did not answer with a result.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The result is not what the method requires.
    #[error("malformed list: {0}")]
    Malformed(#[from] JsonError),
    /// It is too long, or has no end.
    #[error("the list exceeds {0}")]
    TooLong(&'static str),
}

impl Offerings {
    /// Fetches everything that the server advertises, at most `patience` for each page. Only the tools
    /// must come: a server whose prompts or resources fail is still worth having.
    pub(super) async fn fetch(session: &Session, patience: Duration) -> Result<Self, ListError> {
        let can = |kind| session.profile().is_some_and(|profile| profile.can(&[kind]));
        let (prompts, resources) = (can("prompts"), can("resources"));
        let tools = async {
            match can("tools") {
                true => fetch(session, "tools/list", "tools", patience).await,
                false => Ok(List::default()),
            }
        };
        let (tools, prompts, resources, resource_templates) = tokio::join!(
            tools,
            fetch_optional(prompts, session, "prompts/list", "prompts", patience),
            fetch_optional(resources, session, "resources/list", "resources", patience),
            fetch_optional(resources, session, "resources/templates/list", "resourceTemplates", patience),
        );
        let tools = tools?;
        let lists = [&tools, &prompts, &resources, &resource_templates];
        Ok(Self {
            ttl_ms: lists.into_iter().filter_map(|list| list.ttl_ms).min(),
            tools: named(session, obeying(session, tools.entries)).into(),
            prompts: prompts.entries.into(),
            resources: resources.entries.into(),
            resource_templates: resource_templates.entries.into(),
        })
    }
}

async fn fetch_optional(
    advertised: bool,
    session: &Session,
    method: &str,
    key: &str,
    patience: Duration,
) -> List {
    if !advertised {
        return List::default();
    }
    fetch(session, method, key, patience).await.unwrap_or_else(|error| {
        tracing::debug!(server = %session.server(), method, %error, "the server does not list these");
        List::default()
    })
}

/// Fetches every page of one list.
async fn fetch(session: &Session, method: &str, key: &str, patience: Duration) -> Result<List, ListError> {
    let (mut list, mut bytes) = (List::default(), 0);
    let mut cursor: Option<Box<RawValue>> = None;
    for _ in 0..PAGES_MAX {
        let mut params = RawObject::new();
        if let Some(cursor) = cursor.take() {
            params.set("cursor", cursor);
        }
        let page = session.request(method, Some(&params.to_raw()), patience).await?;
        let page = RawObject::parse(&page)?;
        for entry in read_array(page.get(key))? {
            bytes += entry.get().len();
            list.entries.push(entry);
            if list.entries.len() > LIST_ENTRIES_MAX || bytes > LIST_BYTES_MAX {
                return Err(ListError::TooLong("the entries or bytes that are kept"));
            }
        }
        let ttl_ms = page.get("ttlMs").and_then(|ttl| ttl.get().parse().ok());
        list.ttl_ms = list.ttl_ms.into_iter().chain(ttl_ms).min();
        cursor = page.get("nextCursor").filter(|cursor| cursor.get() != "null").map(RawValue::to_owned);
        if cursor.is_none() {
            return Ok(list);
        }
    }
    Err(ListError::TooLong("the pages that are fetched"))
}

fn read_array(raw: Option<&RawValue>) -> Result<Vec<Box<RawValue>>, JsonError> {
    let raw = raw.ok_or(JsonError::Expected { expected: "a list" })?;
    serde_json::from_str(raw.get()).map_err(|_| JsonError::Expected { expected: "a list" })
}

/// The tools whose annotations for headers can be obeyed, where there are headers to repeat arguments in.
fn obeying(session: &Session, mut raw: Vec<Box<RawValue>>) -> Vec<Box<RawValue>> {
    let is_modern = session.profile().is_some_and(|profile| profile.era == Era::Modern);
    if is_modern && matches!(session.link(), Link::Http(_)) {
        raw.retain(|tool| match annotations::check(tool) {
            Ok(()) => true,
            Err(error) => {
                let name = json::path(tool, &["name"]).map_or("", RawValue::get);
                tracing::warn!(server = %session.server(), tool = name, %error, "a tool is left out");
                false
            }
        });
    }
    raw
}

/// The tools that can be called: those with a name, and of several with one name the first.
fn named(session: &Session, raw: Vec<Box<RawValue>>) -> Vec<Tool> {
    let mut names = BTreeSet::new();
    let listed = raw.len();
    let usable = raw.into_iter().filter_map(|raw| {
        let name: ItemName = json::path(&raw, &["name"]).and_then(json::as_str)?.parse().ok()?;
        names.insert(name.clone()).then_some(Tool { name, raw })
    });
    let tools: Vec<Tool> = usable.collect();
    if tools.len() < listed {
        let (server, left_out) = (session.server(), listed - tools.len());
        tracing::warn!(%server, left_out, "tools left out: their names are missing, unusable or taken");
    }
    tools
}
