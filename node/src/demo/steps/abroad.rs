//! A call that runs at another org's site, in another country.

use serde_json::json;

use crate::demo::cast::CAST;
use crate::demo::receipt::Ran;
use crate::demo::server::direct;
use crate::demo::stage::Stage;
use crate::demo::step::{Fault, Step, Told, ensure};

/// Who serves what is called.
const EXECUTOR: usize = 0;

pub(super) const STEP: Step = Step {
    name: "abroad",
    title: "A call that runs abroad",
    about: "Only Berlin converts times. The client in Ashburn calls the tool like any other; the answer comes with a \
            receipt that Berlin's node has signed.",
    run: |stage| Box::pin(run(stage)),
};

async fn run(stage: &mut Stage) -> Result<Told, Fault> {
    const TOOL: &str = "convert_time";
    let arguments = json!({
        "time": "2026-11-20T14:30", "from": "Europe/Berlin", "to": ["America/New_York", "Asia/Tokyo"]
    });
    let result = stage.client()?.call(TOOL, &arguments, &json!({})).await?;
    let answer = &result.structured_content;
    let expected = direct(CAST[EXECUTOR].own, TOOL, &arguments);
    ensure(!result.is_error && expected.as_ref() == Some(answer), || {
        Fault::at(EXECUTOR, format!("the tool answered {answer}"))
    })?;
    let ran = Ran::of(&result)?;
    let role = &CAST[EXECUTOR];
    let as_expected =
        stage.index_of(&ran.node) == Some(EXECUTOR) && ran.org == role.org && ran.locations == [role.country];
    ensure(as_expected, || {
        Fault::new(format!("it ran at {} of {} in {:?}", ran.node, ran.org, ran.locations))
    })?;
    let times = answer["to"].as_array().into_iter().flatten().map(|moment| {
        let [zone, time] = ["zone", "time"].map(|key| moment[key].as_str().unwrap_or_default());
        format!("  {time}  {zone}")
    });
    let text = format!(
        "{TOOL}: 2026-11-20T14:30 in Berlin is\n{}\n{}",
        times.collect::<Vec<_>>().join("\n"),
        told(stage, &ran)
    );
    let detail = json!({ "tool": TOOL, "answer": answer, "receipt": ran });
    Ok(Told { detail, text })
}

/// A receipt in words.
pub(super) fn told(stage: &Stage, ran: &Ran) -> String {
    format!(
        "receipt: {} of {} ran {} in {} (signature checked)",
        stage.name_of(&ran.node),
        ran.org,
        ran.capability,
        ran.locations.join(",")
    )
}
