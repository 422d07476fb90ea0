//! The law: whether a site may run a call under the caller's constraints.
//!
//! [`check`] is the only place where constraints are held against a site. The caller's router runs it on every
//! candidate, the executor runs it again on itself, and a receipt is held against it afterwards: three times the same
//! lines. The rule for places is *subset*: a site that processes in DE and US does not satisfy a demand for DE,
//! because nobody could say in which of the two a call ran.

use crate::constraints::{CertificationSet, Constraints, DataClass, TrustLevel};
use crate::geo::{Country, CountrySet};
use crate::ids::{NodeId, OrgName};

use super::rejection::{Rejection, Rejections};

/// What the reader knows of a site: the subject of constraints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteFacts {
    /// The node.
    pub node: NodeId,
    /// Its org, as its membership proves.
    pub org: OrgName,
    /// Where it may process a call; empty when it does not say.
    pub processing: CountrySet,
    /// What its org's membership allows it to claim as places.
    pub locations_max: CountrySet,
    /// The country whose law its operator is under, if it says.
    pub operator_country: Option<Country>,
    /// How far the reader trusts it.
    pub trust: TrustLevel,
    /// The highest class of data that it takes for this capability.
    pub class_max: DataClass,
    /// Certifications that somebody whom the reader pinned has attested.
    pub certifications: CertificationSet,
}

/// Every constraint that `site` fails; empty when it may run the call.
pub fn check(constraints: &Constraints, site: &SiteFacts) -> Rejections {
    let mut reasons = Rejections::NONE;
    let mut fail_if = |failed, reason| {
        if failed {
            reasons.insert(reason);
        }
    };
    fail_if(!site.processing.is_subset(&site.locations_max), Rejection::LocationOutsideMembership);
    // THE line that rejects a peer for residency.
    fail_if(
        !residency_holds(constraints.allow_locations.as_ref(), &site.processing),
        Rejection::LocationNotAllowed,
    );
    fail_if(operator_is_denied(constraints, site.operator_country), Rejection::OperatorCountryDenied);
    let org_allowed = constraints.allow_orgs.as_ref().is_none_or(|orgs| orgs.0.contains(&site.org));
    fail_if(!org_allowed, Rejection::OrgNotAllowed);
    fail_if(site.trust < constraints.min_trust, Rejection::TrustTooLow);
    fail_if(site.class_max < constraints.class, Rejection::ClassTooHigh);
    let required = &constraints.require_certifications.0;
    let certified = required.is_empty() || required.is_subset(&site.certifications.0);
    fail_if(!certified, Rejection::CertificationMissing);
    reasons
}

/// Whether processing in `places` keeps a call within `allowed`. A site that names no place satisfies no demand:
/// the empty set is a subset of every set, but silence is not a promise.
pub fn residency_holds(allowed: Option<&CountrySet>, places: &CountrySet) -> bool {
    allowed.is_none_or(|allowed| !places.is_empty() && places.is_subset(allowed))
}

/// An operator that does not say under whose law it stands may stand under a denied one.
pub(crate) fn operator_is_denied(constraints: &Constraints, operator: Option<Country>) -> bool {
    let denied = &constraints.deny_operator_countries;
    match operator {
        Some(country) => denied.contains(country),
        None => !denied.is_empty(),
    }
}

impl SiteFacts {
    /// Why this site fails `reason`, with the facts, for people.
    pub fn explain(&self, reason: Rejection, constraints: &Constraints) -> String {
        match reason {
            Rejection::LocationOutsideMembership => format!(
                "claims to process in {}, and its org's membership allows only {}",
                self.processing, self.locations_max
            ),
            Rejection::LocationNotAllowed => self.explain_location(constraints),
            Rejection::OperatorCountryDenied => match self.operator_country {
                Some(country) => format!("its operator is under the law of {country}, which is denied"),
                None => format!(
                    "does not say under whose law its operator is, and {} is denied",
                    constraints.deny_operator_countries
                ),
            },
            Rejection::OrgNotAllowed => {
                let orgs = constraints.allow_orgs.iter().flat_map(|orgs| &orgs.0).map(OrgName::as_str);
                format!("belongs to {}; allowed: {}", self.org, listed(orgs))
            }
            Rejection::TrustTooLow => {
                format!("is trusted at {}; at least {} is demanded", self.trust, constraints.min_trust)
            }
            Rejection::ClassTooHigh => format!(
                "takes data up to class {} ({}); the call's is {} ({})",
                self.class_max.level(),
                self.class_max,
                constraints.class.level(),
                constraints.class
            ),
            Rejection::CertificationMissing => {
                let missing = constraints.require_certifications.0.difference(&self.certifications.0);
                format!("nobody pinned here has attested: {}", listed(missing.map(String::as_str)))
            }
            other => other.summary().to_owned(),
        }
    }

    fn explain_location(&self, constraints: &Constraints) -> String {
        let allowed = constraints.allow_locations.unwrap_or_default();
        if self.processing.is_empty() {
            return format!("does not say where it processes; allowed: {allowed}");
        }
        let beyond = self.processing.difference(&allowed);
        format!("processes in {}; allowed: {allowed}; not allowed: {beyond}", self.processing)
    }
}

/// Most names that one explanation lists.
const NAMES_SHOWN_MAX: usize = 8;

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.len() {
        0 => "none".to_owned(),
        n if n <= NAMES_SHOWN_MAX => names.join(", "),
        n => format!("{} and {} more", names[..NAMES_SHOWN_MAX].join(", "), n - NAMES_SHOWN_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraints::OrgSet;
    use crate::testing::places;

    fn site(processing: &str, operator: Option<&str>) -> SiteFacts {
        SiteFacts {
            node: NodeId::from_bytes([1; 32]),
            org: "acme.example".parse().unwrap(),
            processing: places(processing),
            locations_max: CountrySet::ALL,
            operator_country: operator.map(|code| code.parse().unwrap()),
            trust: TrustLevel::T1,
            class_max: DataClass::Internal,
            certifications: CertificationSet::default(),
        }
    }

    fn codes(constraints: &Constraints, site: &SiteFacts) -> Vec<&'static str> {
        check(constraints, site).iter().map(Rejection::code).collect()
    }

    #[test]
    fn places_are_a_matter_of_subset() {
        for (processing, allowed, lawful) in [
            ("DE", Some("DE"), true),
            ("DE", Some("EU"), true),
            ("DE FR", Some("EU"), true),
            ("DE US", Some("DE"), false),
            ("DE US", Some("EU"), false),
            ("US", Some("DE"), false),
            ("GB", Some("EU"), false),
            ("", Some("DE"), false),
            ("", Some("EU"), false),
            ("DE", Some(""), false),
            ("", Some(""), false),
            ("", None, true),
            ("US", None, true),
        ] {
            let constraints = Constraints { allow_locations: allowed.map(places), ..Constraints::default() };
            let expected: &[&str] = if lawful { &[] } else { &["location_not_allowed"] };
            assert_eq!(codes(&constraints, &site(processing, None)), expected, "{processing} in {allowed:?}");
        }
    }

    #[test]
    fn an_unknown_operator_fails_any_denial() {
        for (operator, denied, lawful) in [
            (Some("DE"), "US", true),
            (Some("US"), "US", false),
            (Some("FR"), "EU", false),
            (None, "US", false),
            (None, "", true),
        ] {
            let constraints =
                Constraints { deny_operator_countries: places(denied), ..Constraints::default() };
            let failed =
                check(&constraints, &site("DE", operator)).contains(Rejection::OperatorCountryDenied);
            assert_eq!(failed, !lawful, "{operator:?} with {denied} denied");
        }
    }

    #[test]
    fn a_claim_beyond_the_membership_is_a_rejection_and_never_a_trim() {
        let mut claims_more = site("DE US", None);
        claims_more.locations_max = places("DE");
        assert_eq!(codes(&Constraints::default(), &claims_more), ["location_outside_membership"]);
        let only_de = Constraints { allow_locations: Some(places("DE")), ..Constraints::default() };
        assert_eq!(codes(&only_de, &claims_more), ["location_outside_membership", "location_not_allowed"]);
    }

    #[test]
    fn every_failing_rule_is_named_in_the_fixed_order_with_its_facts() {
        let constraints = Constraints {
            allow_locations: Some(places("DE")),
            deny_operator_countries: places("US"),
            class: DataClass::Restricted,
            min_trust: TrustLevel::T2,
            allow_orgs: Some(OrgSet::from_iter(["b.example".parse().unwrap()])),
            require_certifications: CertificationSet::from_iter(["soc2:type2".to_owned()]),
            deadline_ms: None,
        };
        let site = site("DE US", Some("US"));
        let told: Vec<String> =
            check(&constraints, &site).iter().map(|reason| site.explain(reason, &constraints)).collect();
        assert_eq!(
            told,
            [
                "processes in DE,US; allowed: DE; not allowed: US",
                "its operator is under the law of US, which is denied",
                "belongs to acme.example; allowed: b.example",
                "is trusted at T1; at least T2 is demanded",
                "takes data up to class 1 (internal); the call's is 3 (restricted)",
                "nobody pinned here has attested: soc2:type2",
            ]
        );
    }

    #[test]
    fn an_empty_allow_list_of_orgs_allows_nobody() {
        let nobody = Constraints { allow_orgs: Some(OrgSet::default()), ..Constraints::default() };
        assert_eq!(codes(&nobody, &site("DE", None)), ["org_not_allowed"]);
        let told = site("DE", None).explain(Rejection::OrgNotAllowed, &nobody);
        assert_eq!(told, "belongs to acme.example; allowed: none");
    }
}
