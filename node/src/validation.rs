//! Holding calls against their tool's contract: arguments before they leave the site, structured results on arrival.
//!
//! A check can only ever help: whatever cannot be checked passes, and its server decides. That is so for a schema that
//! cannot be compiled (a `$ref` that is not in it, a revision of JSON Schema that is not known, a regular expression
//! with look-around), for one that would cost too much (`cost`), and for numbers that no machine type holds. Nothing
//! is ever fetched.
//!
//! Schemas are the revision of JSON Schema that their `$schema` names (draft 4 to 2020-12), 2020-12 where they name none.
//! `format` is an annotation, as 2020-12 has it.

mod cost;
mod schema;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use comity_protocol::contract::Descriptor;
use comity_protocol::ids::ContractDigest;
use comity_protocol::json;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::OnceCell;

use self::schema::Schema;

/// Contracts whose schemas are kept compiled; the oldest gives way.
pub const CONTRACTS_MAX: usize = 1024;

/// Faults that are told of one value.
pub const FAULTS_MAX: usize = 16;

/// Characters of a fault's path and of its text that are told.
const FAULT_CHARS_MAX: usize = 240;

/// Above this many bytes a value is read and checked on a thread that may block.
const BLOCKING_BYTES: usize = 2 << 20;

/// Above this many steps a value is checked there.
const BLOCKING_STEPS: u64 = 100_000;

/// One thing that is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where: a JSON Pointer, empty for the value as a whole.
    pub path: String,
    /// The keyword of the schema that it breaks.
    pub keyword: String,
    /// What is wrong, for people and models. Values are not quoted.
    pub detail: String,
}

/// What is wrong with a value, at most [`FAULTS_MAX`] things; at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Faults(Vec<Fault>);

#[cfg(test)]
impl Faults {
    /// One fault.
    pub(crate) fn of(path: &str, keyword: &str, detail: &str) -> Self {
        Self(vec![Fault { path: path.into(), keyword: keyword.into(), detail: detail.into() }])
    }
}

/// Each fault on a line of its own: `- at /path: what`.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Fault { path, detail, .. }) in self.0.iter().enumerate() {
            let separator = if index > 0 { "\n" } else { "" };
            let path = if path.is_empty() { "the top" } else { path };
            write!(f, "{separator}- at {path}: {detail}")?;
        }
        Ok(())
    }
}

/// The schemas of one contract, compiled.
#[derive(Debug, Default)]
pub struct Checks {
    input: Option<Arc<Schema>>,
    output: Option<Arc<Schema>>,
}

impl Checks {
    fn compile(descriptor: &Descriptor) -> Self {
        let schema = |key| {
            let schema = json::path(descriptor.raw(), &[key])?;
            match Schema::compile(schema) {
                Ok(schema) => schema.map(Arc::new),
                Err(error) => {
                    let (tool, contract) = (descriptor.name(), descriptor.contract());
                    tracing::info!(%tool, ?contract, key, %error, "this schema is not checked here: its server does");
                    None
                }
            }
        };
        Self { input: schema("inputSchema"), output: schema("outputSchema") }
    }

    /// What is wrong with the arguments in these `params` of `tools/call`; none are as good as `{}`.
    pub async fn arguments(&self, params: &RawValue) -> Result<(), Faults> {
        let Some(schema) = &self.input else { return Ok(()) };
        let arguments = json::field(params, "arguments").ok().flatten();
        check(schema, arguments.map_or("{}", RawValue::get)).await
    }

    /// What is wrong with the structured content of this result. One that has none, or reports an error, promises
    /// nothing.
    pub async fn result(&self, result: &RawValue) -> Result<(), Faults> {
        let Some(schema) = &self.output else { return Ok(()) };
        let is_error = json::path(result, &["isError"]).is_some_and(|value| value.get() == "true");
        match json::path(result, &["structuredContent"]).filter(|_| !is_error) {
            Some(content) => check(schema, content.get()).await,
            None => Ok(()),
        }
    }
}

async fn check(schema: &Arc<Schema>, text: &str) -> Result<(), Faults> {
    if text.len() > BLOCKING_BYTES {
        let (schema, text) = (Arc::clone(schema), text.to_owned());
        return elsewhere(move || schema.read(&text).map_or(Ok(()), |read| schema.check(&read))).await;
    }
    match schema.read(text) {
        None => Ok(()),
        Some(read) if read.steps <= BLOCKING_STEPS => schema.check(&read),
        Some(read) => {
            let schema = Arc::clone(schema);
            elsewhere(move || schema.check(&read)).await
        }
    }
}

/// A check that panicked would be a defect of a library: the call goes on without it.
async fn elsewhere(check: impl FnOnce() -> Result<(), Faults> + Send + 'static) -> Result<(), Faults> {
    tokio::task::spawn_blocking(check).await.unwrap_or(Ok(()))
}

/// The checks of contracts, compiled when first asked for.
#[derive(Debug, Default)]
pub struct Validators {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    checks: HashMap<ContractDigest, Arc<OnceCell<Checks>>>,
    /// In the order in which they came.
    order: VecDeque<ContractDigest>,
}

impl Validators {
    /// The checks of a contract. The first call under it compiles them, on a thread that may block; others wait for it.
    pub async fn of(&self, descriptor: &Arc<Descriptor>) -> Arc<OnceCell<Checks>> {
        let cell = self.lock().cell(descriptor.contract());
        if !cell.initialized() {
            let descriptor = Arc::clone(descriptor);
            cell.get_or_init(|| async move {
                let compiled = tokio::task::spawn_blocking(move || Checks::compile(&descriptor));
                compiled.await.unwrap_or_default()
            })
            .await;
        }
        cell
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Both tables are whole at each point where this could panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn cell(&mut self, contract: ContractDigest) -> Arc<OnceCell<Checks>> {
        if let Some(cell) = self.checks.get(&contract) {
            return Arc::clone(cell);
        }
        if self.order.len() >= CONTRACTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.checks.remove(&oldest);
        }
        self.order.push_back(contract);
        Arc::clone(self.checks.entry(contract).or_default())
    }
}

/// Enough of a text for a message.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(FAULT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
