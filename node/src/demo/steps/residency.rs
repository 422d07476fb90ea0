//! A call whose data may be processed in the European Union only.

use serde_json::{Value, json};

use super::abroad::told;
use crate::cli::output::table;
use crate::demo::cast::{CAST, COMMON, HOME};
use crate::demo::receipt::Ran;
use crate::demo::server::direct;
use crate::demo::stage::Stage;
use crate::demo::step::{Fault, Step, Told, ensure, of};

/// The tool that every site serves.
pub(super) const TOOL: &str = "count_text";

pub(super) const STEP: Step = Step {
    name: "residency",
    title: "A call that must stay in the EU",
    about: "A customer's letter from Germany has reached Ashburn. All three sites could count its words, Ashburn itself \
            first of all; the client says that the data may be processed in the EU only.",
    run: |stage| Box::pin(run(stage)),
};

/// What the client demands.
pub(super) fn constraints() -> Value {
    json!({ "allow_locations": ["EU"] })
}

async fn run(stage: &mut Stage) -> Result<Told, Fault> {
    let route = stage.home().route(TOOL, &constraints()).await.map_err(of(HOME))?;
    let home_is_out =
        route.rejected.iter().any(|reason| reason.peer.as_deref() == Some(stage.nodes[HOME].id()));
    ensure(home_is_out, || Fault::at(HOME, "the route does not rule the client's own site out"))?;
    let (ran, answer) = call_in_eu(stage).await?;
    stage.ran_in_eu = stage.index_of(&ran.node);
    let may = route.candidates.iter().map(|candidate| {
        let why = format!("processes in {}", candidate.locations.join(","));
        [stage.name_of(&candidate.node), "may".to_owned(), why]
    });
    let may_not = route.rejected.iter().map(|reason| {
        let name = stage.name_of(reason.peer.as_deref().unwrap_or_default());
        [name, "may not".to_owned(), stage.why(reason)]
    });
    let text = format!(
        "{}\n{TOOL}: {} words, to be read in {} s\n{}",
        table(&["NODE", "", "WHY"], may.chain(may_not), ""),
        answer["words"],
        answer["reading_seconds"],
        told(stage, &ran)
    );
    let detail = json!({
        "tool": TOOL, "constraints": constraints(), "candidates": route.candidates, "rejected": route.rejected,
        "answer": answer, "receipt": ran,
    });
    Ok(Told { detail, text })
}

/// Has the letter counted in the EU, and checks where that was and what came of it.
pub(super) async fn call_in_eu(stage: &mut Stage) -> Result<(Ran, Value), Fault> {
    call_within(stage, &constraints()).await
}

/// Has the letter counted under `constraints` that leave Berlin or Paris or both.
pub(super) async fn call_within(stage: &mut Stage, constraints: &Value) -> Result<(Ran, Value), Fault> {
    const LETTER: &str = "Sehr geehrte Damen und Herren,\nhiermit kündige ich meinen Vertrag zum Jahresende. Bitte \
                          bestätigen Sie mir die Kündigung schriftlich!\nMit freundlichen Grüßen\nErika Mustermann";
    let arguments = json!({ "text": LETTER });
    let result = stage.client()?.call(TOOL, &arguments, constraints).await?;
    let answer = result.structured_content.clone();
    ensure(!result.is_error && direct(COMMON, TOOL, &arguments).as_ref() == Some(&answer), || {
        Fault::new(format!("the tool answered {answer}"))
    })?;
    let ran = Ran::of(&result)?;
    let at = stage.index_of(&ran.node).filter(|at| *at != HOME);
    let in_eu = at.is_some_and(|at| ran.locations == [CAST[at].country] && ran.org == CAST[at].org);
    ensure(in_eu, || Fault::new(format!("it ran at {} in {:?}", stage.name_of(&ran.node), ran.locations)))?;
    Ok((ran, answer))
}
