//! A call that nobody may run, with the reason for every candidate.

use std::collections::BTreeSet;

use serde_json::json;

use super::residency::TOOL;
use crate::cli::output::table;
use crate::demo::client::{DENIED, McpError};
use crate::demo::stage::Stage;
use crate::demo::step::{Fault, Step, Told, ensure};
use crate::exchange::DenialReason;

pub(super) const STEP: Step = Step {
    name: "denied",
    title: "A call that nobody may run",
    about: "In France, and by nobody under the law of the United States. Paris is in France, but its operator is \
            American: residency is not sovereignty. The demand is not loosened to find somebody.",
    run: |stage| Box::pin(run(stage)),
};

async fn run(stage: &mut Stage) -> Result<Told, Fault> {
    let constraints = json!({ "allow_locations": ["FR"], "deny_operator_countries": ["US"] });
    let error = match stage.client()?.call(TOOL, &json!({ "text": "Secret." }), &constraints).await {
        Err(McpError::Rpc { error, .. }) => error,
        Err(error) => return Err(error.into()),
        Ok(result) => return Err(Fault::new(format!("it was answered: {}", result.structured_content))),
    };
    ensure(error.code == DENIED, || Fault::new(format!("the error is {}: {}", error.code, error.message)))?;
    let reasons = &error.data.reasons;
    let of = |name: &str| -> BTreeSet<&str> {
        let his = reasons.iter().filter(|reason| who(stage, reason) == name);
        his.map(|reason| reason.code.as_str()).collect()
    };
    for (name, codes) in [
        ("berlin", &["location_not_allowed"][..]),
        ("paris", &["operator_country_denied"]),
        ("ashburn", &["location_not_allowed", "operator_country_denied"]),
    ] {
        let expected = codes.iter().copied().collect();
        ensure(of(name) == expected, || Fault::new(format!("{name} was ruled out by {:?}", of(name))))?;
    }
    let rows = reasons.iter().map(|reason| [who(stage, reason), reason.code.clone(), stage.why(reason)]);
    let text =
        format!("error {}: {}\n{}", error.code, error.message, table(&["NODE", "RULE", "WHY"], rows, ""));
    let detail = json!({
        "tool": TOOL, "constraints": constraints, "code": error.code, "message": error.message, "reasons": reasons
    });
    Ok(Told { detail, text })
}

fn who(stage: &Stage, reason: &DenialReason) -> String {
    reason.peer.as_deref().map_or_else(|| "the call".to_owned(), |peer| stage.name_of(peer))
}
