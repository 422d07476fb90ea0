//! What a request demands: the constraints of endpoint, token and request tightened into one, its deadline, its trace.

use std::time::Duration;

use comity_protocol::constraints::Constraints;
use comity_protocol::json::{self, JsonError};
use comity_protocol::jsonrpc::codes;
use comity_protocol::trace::TraceContext;
use serde_json::value::RawValue;

use crate::exchange::Failure;
use crate::gateway::{CallerContext, GatewayRequest};

/// The `_meta` key under which a request states its constraints.
pub const CONSTRAINTS_KEY: &str = "dev.comity/constraints";

/// Largest constraints of a request, in bytes.
const CONSTRAINTS_BYTES_MAX: usize = 16 * 1024;

/// What a request demands.
#[derive(Clone, Debug)]
pub struct Demand {
    /// What must hold of whoever runs it.
    pub constraints: Constraints,
    /// How long the caller waits, from now.
    pub patience: Duration,
    /// The trace that the call belongs to; this node's own span is its parent from here on.
    pub trace: Option<TraceContext>,
}

impl Demand {
    /// Reads what `request` demands; it waits no longer than `ceiling`.
    ///
    /// # Errors
    /// [`Failure::Refused`] names the constraint that cannot be read: a demand is never dropped for not being understood.
    pub fn of(request: &GatewayRequest, ceiling: Duration) -> Result<Self, Failure> {
        let caller = &request.caller;
        let asked = requested(&request.params)?;
        let constraints = merge(caller, asked.as_ref());
        let waits = [constraints.deadline(), caller.deadline].into_iter().flatten();
        let patience = waits.fold(ceiling, Duration::min);
        Ok(Self { constraints, patience, trace: own_span(caller.trace.as_ref()) })
    }
}

/// Endpoint, then token, then request: each can only tighten.
fn merge(caller: &CallerContext, asked: Option<&Constraints>) -> Constraints {
    let mut constraints = Constraints::clone(&caller.endpoint_constraints);
    for tighter in caller.token_constraints.as_deref().into_iter().chain(asked) {
        constraints = constraints.tightened_by(tighter);
    }
    constraints
}

fn requested(params: &RawValue) -> Result<Option<Constraints>, Failure> {
    // Keys that come twice must not hide a demand from one reader that another obeys.
    let once = |error: JsonError| Failure::Refused {
        code: codes::INVALID_PARAMS,
        detail: format!("_meta: {error}"),
    };
    let Some(meta) = json::field(params, "_meta").map_err(once)? else { return Ok(None) };
    json::field(meta, CONSTRAINTS_KEY).map_err(once)?.map(read).transpose()
}

/// Reads constraints in their JSON form.
///
/// # Errors
/// [`Failure::Refused`] names what is wrong.
pub fn read(raw: &RawValue) -> Result<Constraints, Failure> {
    let refuse = |detail: String| Failure::Refused { code: codes::INVALID_PARAMS, detail };
    if raw.get().len() > CONSTRAINTS_BYTES_MAX {
        return Err(refuse(format!("constraints of more than {CONSTRAINTS_BYTES_MAX} bytes")));
    }
    let value = serde_json::from_str(raw.get()).map_err(|error| refuse(format!("constraints: {error}")))?;
    Constraints::from_json(&value).map_err(|error| refuse(error.to_string()))
}

/// This node's span in the caller's trace, or the first span of a new one. `None` only where there is no randomness.
fn own_span(parent: Option<&TraceContext>) -> Option<TraceContext> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).ok()?;
    let (trace_id, span_id) = bytes.split_at(16);
    let span_id = span_id.try_into().ok()?;
    match parent {
        Some(parent) => parent.child(span_id).ok(),
        None => TraceContext::new(trace_id.try_into().ok()?, span_id, 0).ok(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use comity_protocol::ids::CallId;

    use crate::gateway::{ClientProfile, Endpoint, Target};

    fn request(meta: &str) -> GatewayRequest {
        let constraints = |json: &str| Arc::new(read(&RawValue::from_string(json.into()).unwrap()).unwrap());
        GatewayRequest {
            method: "tools/call".into(),
            endpoint: Endpoint::All,
            target: Target::tool("t"),
            params: RawValue::from_string(format!(r#"{{"name":"t","_meta":{meta}}}"#)).unwrap(),
            caller: CallerContext {
                call_id: CallId::from_bytes([1; 16]),
                principal: "local".into(),
                endpoint_constraints: constraints(r#"{"allow_locations":["EU"],"deadline_ms":9000}"#),
                token_constraints: Some(constraints(r#"{"allow_locations":["DE","FR","US"]}"#)),
                trace: None,
                deadline: Some(Duration::from_secs(8)),
                client: ClientProfile::default(),
            },
        }
    }

    /// A request that demands nothing of its own.
    pub(crate) fn plain() -> GatewayRequest {
        request("{}")
    }

    fn demand(meta: &str) -> Result<Demand, Failure> {
        Demand::of(&request(meta), Duration::from_secs(60))
    }

    #[test]
    fn every_source_tightens() {
        let all = demand(r#"{"dev.comity/constraints":{"allow_locations":["FR","US"],"class":2}}"#).unwrap();
        assert_eq!(all.constraints.allow_locations.unwrap().to_string(), "FR");
        assert_eq!((all.constraints.class.level(), all.patience), (2, Duration::from_secs(8)));
        let none = demand("{}").unwrap();
        assert_eq!(none.constraints.allow_locations.unwrap().to_string(), "DE,FR");
        let short = demand(r#"{"dev.comity/constraints":{"deadline_ms":5}}"#).unwrap();
        assert_eq!(short.patience, Duration::from_millis(5));
    }

    #[test]
    fn a_demand_that_cannot_be_read_refuses_the_call() {
        for meta in [
            r#"{"dev.comity/constraints":7}"#,
            r#"{"dev.comity/constraints":{"allow":["DE"]}}"#,
            r#"{"dev.comity/constraints":{"class":3},"dev.comity/constraints":{}}"#,
            r#"{"dev.comity/constraints":{"class":3}},"_meta":{}"#,
            "7",
        ] {
            assert!(matches!(demand(meta), Err(Failure::Refused { .. })), "{meta}");
        }
    }

    #[test]
    fn a_call_without_a_trace_begins_one_and_with_one_continues_it() {
        assert!(demand("{}").unwrap().trace.is_some());
        let mut request = request("{}");
        let parent = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        request.caller.trace = Some(parent.clone());
        let own = Demand::of(&request, Duration::from_secs(1)).unwrap().trace.unwrap();
        assert_eq!(own.trace_id(), parent.trace_id());
        assert_ne!(own.parent_id(), parent.parent_id());
    }
}
