//! Dates.

use jiff::civil::{Date, Weekday};
use rmcp::schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tool::DemoTool;

pub(super) fn tools() -> Vec<DemoTool> {
    vec![
        DemoTool::new(
            "days_between",
            "Days between dates",
            "Counts the days and the working days (Monday to Friday) from one date to another.",
            days_between,
        ),
        DemoTool::new(
            "describe_date",
            "Describe a date",
            "The day of the week, the ISO 8601 week, the quarter and the day of the year of a date.",
            describe,
        ),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
struct Span {
    /// The first date, such as 2026-11-20; it is not counted.
    from: String,
    /// The last date; it is counted.
    to: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Days {
    /// Days; negative when `to` comes first.
    days: i64,
    /// Those of them that are Mondays to Fridays.
    working_days: i64,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
struct Day {
    /// A date, such as 2026-11-20.
    date: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Described {
    weekday: String,
    /// The ISO 8601 week, such as 2026-W47.
    week: String,
    /// 1 to 4.
    quarter: i8,
    /// 1 to 366.
    day_of_year: i16,
    leap_year: bool,
}

fn days_between(Span { from, to }: Span) -> Result<Days, String> {
    let (from, to) = (date(&from)?, date(&to)?);
    Ok(Days { days: day_number(to) - day_number(from), working_days: working_days(to) - working_days(from) })
}

fn describe(Day { date: text }: Day) -> Result<Described, String> {
    let date = date(&text)?;
    let week = date.iso_week_date();
    Ok(Described {
        weekday: date.strftime("%A").to_string(),
        week: format!("{}-W{:02}", week.year(), week.week()),
        quarter: (date.month() - 1) / 3 + 1,
        day_of_year: date.day_of_year(),
        leap_year: date.in_leap_year(),
    })
}

fn date(text: &str) -> Result<Date, String> {
    text.parse().map_err(|_| format!("{text:?} is no date: write it as 2026-11-20"))
}

/// Days since a Sunday before all dates that can be written.
fn day_number(date: Date) -> i64 {
    let origin = Date::constant(-9999, 1, 1);
    let origin_from_sunday = i64::from(Weekday::Sunday.until(origin.weekday()));
    let days = origin.duration_until(date).as_hours() / 24;
    days + origin_from_sunday
}

/// Mondays to Fridays from that Sunday to `date`, which is counted.
fn working_days(date: Date) -> i64 {
    let days = day_number(date);
    days / 7 * 5 + (days % 7).min(5)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run(name: &str, arguments: Value) -> Result<Value, String> {
        super::super::tool::run(&tools(), name, arguments)
    }

    #[test]
    fn days_and_working_days_are_counted() {
        for (from, to, days, working_days) in [
            ("2026-11-20", "2026-11-20", 0, 0),
            ("2026-11-20", "2026-11-23", 3, 1), // Friday to Monday
            ("2026-11-21", "2026-11-22", 1, 0), // Saturday to Sunday
            ("2026-11-16", "2026-11-20", 4, 4),
            ("2026-01-01", "2027-01-01", 365, 261),
            ("2026-11-23", "2026-11-20", -3, -1),
        ] {
            let counted = run("days_between", json!({ "from": from, "to": to }));
            let expected = json!({ "days": days, "working_days": working_days });
            assert_eq!(counted, Ok(expected), "{from} to {to}");
        }
        assert!(run("days_between", json!({ "from": "-009999-01-01", "to": "9999-12-31" })).is_ok());
    }

    #[test]
    fn a_date_is_described() {
        let described = run("describe_date", json!({ "date": "2026-11-20" }));
        let expected = json!({
            "weekday": "Friday", "week": "2026-W47", "quarter": 4, "day_of_year": 324, "leap_year": false
        });
        assert_eq!(described, Ok(expected));
        assert_eq!(run("describe_date", json!({ "date": "2027-01-01" })).unwrap()["week"], "2026-W53");
        assert!(run("describe_date", json!({ "date": "20.11.2026" })).unwrap_err().contains("2026-11-20"));
        assert!(run("describe_date", json!({ "date": "2026-02-30" })).is_err());
    }
}
