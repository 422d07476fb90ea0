//! Time zones.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use rmcp::schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tool::DemoTool;

/// Zones that one conversion may name.
const ZONES_MAX: usize = 50;
/// Zones that an error suggests.
const SUGGESTIONS_MAX: usize = 5;

pub(super) fn tools() -> Vec<DemoTool> {
    vec![
        DemoTool::new(
            "convert_time",
            "Convert a time",
            "Converts a time in one IANA time zone to others, with each one's offset from UTC on that day.",
            convert,
        ),
        DemoTool::new(
            "current_time",
            "Current time",
            "The current time in an IANA time zone, by the clock of the machine that runs the tool.",
            current,
        ),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
struct Convert {
    /// A date and time such as 2026-11-20T14:30, or a time of the present day such as 14:30.
    time: String,
    /// The IANA time zone that the time is in, such as Europe/Berlin.
    from: String,
    /// The IANA time zones that it is converted to.
    to: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Converted {
    from: Moment,
    to: Vec<Moment>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
struct Current {
    /// An IANA time zone, such as America/New_York.
    zone: String,
}

/// One moment in one zone.
#[derive(Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Moment {
    /// The time zone.
    zone: String,
    /// Date and time there, with the offset from UTC.
    time: String,
    /// The day of the week there.
    weekday: String,
    /// The zone's abbreviation at that moment.
    abbreviation: String,
    /// Whether daylight saving time holds.
    daylight_saving: bool,
}

impl Moment {
    fn new(zone: &str, zoned: &Zoned) -> Self {
        let info = zoned.time_zone().to_offset_info(zoned.timestamp());
        Moment {
            zone: zone.to_owned(),
            time: zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            weekday: zoned.strftime("%A").to_string(),
            abbreviation: info.abbreviation().to_owned(),
            daylight_saving: info.dst().is_dst(),
        }
    }
}

fn convert(input: Convert) -> Result<Converted, String> {
    if input.to.len() > ZONES_MAX {
        return Err(format!("name at most {ZONES_MAX} time zones"));
    }
    let zone = zone(&input.from)?;
    let local = local_time(&input.time, &zone)?;
    let zoned = local.to_zoned(zone).map_err(|error| error.to_string())?;
    let to = input.to.iter().map(|name| Ok(Moment::new(name, &zoned.with_time_zone(self::zone(name)?))));
    Ok(Converted { to: to.collect::<Result<_, String>>()?, from: Moment::new(&input.from, &zoned) })
}

fn current(input: Current) -> Result<Moment, String> {
    let zone = zone(&input.zone)?;
    Ok(Moment::new(&input.zone, &Timestamp::now().to_zoned(zone)))
}

fn local_time(text: &str, zone: &TimeZone) -> Result<DateTime, String> {
    // The date first: as a time alone, jiff reads a date and time too and drops the date.
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let time = text.parse::<Time>();
    let time = time.map_err(|_| format!("{text:?} is no time: write 14:30 or 2026-11-20T14:30"))?;
    Ok(Timestamp::now().to_zoned(zone.clone()).date().to_datetime(time))
}

fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| {
        let near = similar(name);
        let hint = match near.as_slice() {
            [] => "use names such as Europe/Berlin or America/New_York".to_owned(),
            near => format!("did you mean {}?", near.join(" or ")),
        };
        format!("{name:?} is no IANA time zone: {hint}")
    })
}

/// Zones whose name holds the last part of `name`, as somebody who writes a city alone means it.
fn similar(name: &str) -> Vec<String> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(' ', "_");
    let wanted = plain(name.rsplit('/').next().unwrap_or(name));
    if wanted.len() < 3 {
        return Vec::new();
    }
    let all = jiff::tz::db().available().map(|zone| zone.as_str().to_owned());
    all.filter(|zone| zone.contains('/') && plain(zone).contains(&wanted)).take(SUGGESTIONS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run(name: &str, arguments: Value) -> Result<Value, String> {
        super::super::tool::run(&tools(), name, arguments)
    }

    #[test]
    fn a_time_is_converted_with_the_offset_of_its_day() {
        let zones = ["America/New_York", "Asia/Kolkata", "UTC"];
        let winter = json!({ "time": "2026-11-20T23:30", "from": "Europe/Berlin", "to": zones });
        let winter = run("convert_time", winter).unwrap();
        let times: Vec<_> = winter["to"].as_array().unwrap().iter().map(|moment| &moment["time"]).collect();
        assert_eq!(
            times,
            ["2026-11-20T17:30:00-05:00", "2026-11-21T04:00:00+05:30", "2026-11-20T22:30:00+00:00"]
        );
        assert_eq!(
            (&winter["from"]["abbreviation"], &winter["to"][1]["weekday"]),
            (&json!("CET"), &json!("Saturday"))
        );
        let summer = json!({ "time": "2026-07-01T12:00", "from": "Europe/Berlin", "to": ["UTC"] });
        let summer = run("convert_time", summer).unwrap();
        assert_eq!(summer["to"][0]["time"], "2026-07-01T10:00:00+00:00");
        assert_eq!(summer["from"]["daylight_saving"], true);
    }

    #[test]
    fn the_current_time_is_the_same_moment_everywhere() {
        let before = Timestamp::now().as_second();
        let time = run("current_time", json!({ "zone": "Pacific/Auckland" })).unwrap();
        let stated: Timestamp = time["time"].as_str().unwrap().parse().unwrap();
        assert!((before..=Timestamp::now().as_second()).contains(&stated.as_second()));
    }

    #[test]
    fn a_mistake_is_named_and_the_right_zone_suggested() {
        let error = run("current_time", json!({ "zone": "new york" })).unwrap_err();
        assert!(error.contains("America/New_York"), "{error}");
        let error = run("current_time", json!({ "zone": "?" })).unwrap_err();
        assert!(error.contains("Europe/Berlin"), "{error}");
        let bad = json!({ "time": "half past two", "from": "UTC", "to": [] });
        assert!(run("convert_time", bad).unwrap_err().contains("14:30"));
        let many = json!({ "time": "14:30", "from": "UTC", "to": vec!["UTC"; ZONES_MAX + 1] });
        assert!(run("convert_time", many).unwrap_err().contains("at most"));
    }
}
