//! `[constraints]`, and the `constraints` of a token: what the operator demands of whoever runs a call.

use std::time::Duration;

use comity_protocol::constraints::{CertificationSet, Constraints, DEADLINE_MS_MAX, OrgSet};
use comity_protocol::geo::CountrySet;

use super::domain::Place;
use super::section::Section;

/// Reads one table of constraints. What cannot be read is a fault, so nothing that was demanded is ever dropped.
pub(super) fn read_constraints(mut section: Section<'_>) -> Constraints {
    let default = Constraints::default();
    let constraints = Constraints {
        allow_locations: places(&mut section, "allow_locations"),
        deny_operator_countries: places(&mut section, "deny_operator_countries").unwrap_or_default(),
        class: section.or("class", default.class),
        min_trust: section.or("min_trust", default.min_trust),
        allow_orgs: section.list_of_distinct("allow_orgs").map(OrgSet::from_iter),
        require_certifications: certifications(&mut section),
        deadline_ms: deadline_ms(&mut section),
    };
    if constraints.allow_locations.is_some_and(|allowed| allowed.is_empty()) {
        section.fault(
            "allow_locations",
            "allows nowhere, so no call could run",
            "name a place, or remove the key",
        );
    }
    section.finish();
    constraints
}

fn places(section: &mut Section<'_>, key: &'static str) -> Option<CountrySet> {
    let places = section.list::<Place>(key)?;
    Some(places.iter().fold(CountrySet::EMPTY, |all, place| all.union(&place.0)))
}

fn certifications(section: &mut Section<'_>) -> CertificationSet {
    section.list_of_distinct::<String>("require_certs").unwrap_or_default().into_iter().collect()
}

fn deadline_ms(section: &mut Section<'_>) -> Option<u64> {
    let deadline: Duration = section.get("deadline")?;
    let ms = u64::try_from(deadline.as_millis()).ok().filter(|ms| (1..=DEADLINE_MS_MAX).contains(ms));
    if ms.is_none() {
        section.fault(
            "deadline",
            format!("{deadline:?} is out of range"),
            "give a deadline from \"1ms\" to \"24h\"",
        );
    }
    ms
}
