//! The flags by which `call` and `route` state constraints.

use std::time::Duration;

use clap::Args;
use comity_protocol::constraints::Constraints;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::context::raw;
use super::exit::CliError;
use crate::config::setting::TextSetting;

/// What the caller demands of whoever runs the call. It adds to what the operator demands and never loosens it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Constraints")]
pub struct ConstraintArgs {
    /// Where data may be processed: a country (DE) or a group (EU, EEA); repeatable
    #[arg(long = "allow-loc", value_name = "CC")]
    pub allow_locations: Vec<String>,
    /// A country whose operators may not run it; repeatable
    #[arg(long = "deny-operator", value_name = "CC")]
    pub deny_operator_countries: Vec<String>,
    /// An org that may run it; repeatable
    #[arg(long = "allow-org", value_name = "ORG")]
    pub allow_orgs: Vec<String>,
    /// A certification that must be attested, such as iso27001:2022; repeatable
    #[arg(long = "require-cert", value_name = "CERT")]
    pub require_certs: Vec<String>,
    /// The class of the data: 0 public, 1 internal, 2 confidential, 3 restricted
    #[arg(long, value_name = "N")]
    pub class: Option<u8>,
    /// The least trust that the executor must have: T0, T1, T2 or T3
    #[arg(long, value_name = "T")]
    pub min_trust: Option<String>,
    /// How long the call may take, such as 30 (seconds), 500ms or 2m
    #[arg(long, value_name = "TIME", value_parser = parse_deadline)]
    pub deadline: Option<Duration>,
}

impl ConstraintArgs {
    /// The constraints' JSON form, checked here so that a mistake is named before anything is asked; `None` when nothing
    /// is demanded.
    pub fn to_raw(&self) -> Result<Option<Box<RawValue>>, CliError> {
        let value = self.to_json();
        if value.as_object().is_some_and(Map::is_empty) {
            return Ok(None);
        }
        Constraints::from_json(&value).map_err(|error| CliError::usage(error.to_string()))?;
        raw(&value).map(Some)
    }

    fn to_json(&self) -> Value {
        let mut object = Map::new();
        let lists = [
            ("allow_locations", &self.allow_locations),
            ("deny_operator_countries", &self.deny_operator_countries),
            ("allow_orgs", &self.allow_orgs),
            ("require_certs", &self.require_certs),
        ];
        for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            object.insert(key.to_owned(), json!(list));
        }
        let singles = [
            ("class", self.class.map(Value::from)),
            ("min_trust", self.min_trust.clone().map(Value::from)),
            ("deadline_ms", self.deadline.map(|deadline| Value::from(deadline.as_millis() as u64))),
        ];
        object.extend(singles.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        Value::Object(object)
    }
}

/// A bare number is seconds.
fn parse_deadline(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => Duration::from_text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_the_json_form_and_mistakes_are_named() {
        let mut args = ConstraintArgs::default();
        assert!(args.to_raw().expect("nothing is fine").is_none());
        args.allow_locations = vec!["EU".into()];
        args.class = Some(2);
        args.deadline = Some(parse_deadline("1m").expect("a time"));
        let raw = args.to_raw().expect("good").expect("something");
        assert_eq!(raw.get(), r#"{"allow_locations":["EU"],"class":2,"deadline_ms":60000}"#);
        for (mistake, part) in [
            (ConstraintArgs { allow_locations: vec!["UK".into()], ..ConstraintArgs::default() }, "GB"),
            (ConstraintArgs { class: Some(7), ..ConstraintArgs::default() }, "0 to 3"),
            (ConstraintArgs { min_trust: Some("T9".into()), ..ConstraintArgs::default() }, "T0, T1"),
        ] {
            let error = mistake.to_raw().expect_err(part);
            assert!(error.message.contains(part), "{}", error.message);
        }
        assert_eq!(parse_deadline("5"), Ok(Duration::from_secs(5)));
    }
}
