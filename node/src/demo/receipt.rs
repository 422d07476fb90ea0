//! Receipts, checked as a client can check them: by the signature of the node that states them.

use comity_protocol::call::Receipt;
use comity_protocol::ids::{MeshName, NodeId};
use comity_protocol::trust::{SealError, Unverified};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use super::cast::MESH;
use super::client::ToolResult;

/// Why a receipt proves nothing.
#[derive(Debug, Error)]
pub(super) enum ReceiptFault {
    /// There is none.
    #[error("the result carries no receipt")]
    Missing,
    /// It cannot be read, or the node found that it does not hold.
    #[error("the receipt cannot be read: {0}")]
    Unreadable(String),
    /// The executor did not sign it.
    #[error("the receipt is not signed by the node that it names")]
    Signature(#[from] SealError),
}

/// Who ran a call, and where.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ran {
    /// The node's identity, whose signature was checked.
    pub(super) node: String,
    /// Its org.
    pub(super) org: String,
    /// Where it processes.
    pub(super) locations: Vec<String>,
    /// Whose law binds its operator.
    pub(super) operator_country: Option<String>,
    /// What it ran.
    pub(super) capability: String,
    /// The call's id, the same in both nodes' logs.
    pub(super) call: String,
}

impl Ran {
    /// Reads the receipt of a result and checks its signature.
    pub(super) fn of(result: &ToolResult) -> Result<Self, ReceiptFault> {
        let receipt = result.receipt().ok_or(ReceiptFault::Missing)?;
        let unreadable = || ReceiptFault::Unreadable(receipt.to_string());
        let envelope = receipt.get("envelope").and_then(Value::as_str).ok_or_else(unreadable)?;
        let envelope = data_encoding::BASE64.decode(envelope.as_bytes()).map_err(|_| unreadable())?;
        let unverified = Unverified::<Receipt>::decode(&envelope)?;
        let executor: NodeId = unverified.claimed().executor;
        let key = executor.verifying_key().ok_or_else(unreadable)?;
        let mesh: MeshName = MESH.parse().map_err(|_| unreadable())?;
        let receipt = unverified.verify(&key, Some(&mesh))?;
        Ok(Self {
            node: executor.to_string(),
            org: receipt.executor_org.to_string(),
            locations: receipt.processing_locations.iter().map(|country| country.to_string()).collect(),
            operator_country: receipt.operator_country.map(|country| country.to_string()),
            capability: receipt.capability.to_string(),
            call: receipt.call.to_string(),
        })
    }
}
