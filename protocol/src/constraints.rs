//! What a caller demands of whoever runs its call, and how demands from several sources combine.
//!
//! Constraints only ever tighten: allow-sets intersect, deny-sets unite, floors rise, deadlines fall. There is no way
//! to take one back, and none is widened to find somebody.

use core::fmt;
use std::collections::BTreeSet;
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde_json::Value;

use crate::codec::encoded_set;
use crate::geo::{CountrySet, resolve_place};
use crate::ids::OrgName;

/// How sensitive the data of a call is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum DataClass {
    /// Anybody may see it.
    #[default]
    #[n(0)]
    Public,
    /// For the org and those it works with.
    #[n(1)]
    Internal,
    /// For those who need it.
    #[n(2)]
    Confidential,
    /// Regulated or secret.
    #[n(3)]
    Restricted,
}

impl DataClass {
    /// The class of a number from 0 to 3.
    pub const fn from_level(level: u64) -> Option<Self> {
        match level {
            0 => Some(Self::Public),
            1 => Some(Self::Internal),
            2 => Some(Self::Confidential),
            3 => Some(Self::Restricted),
            _ => None,
        }
    }

    /// The class's number, 0 to 3.
    pub const fn level(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for DataClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Confidential => "confidential",
            Self::Restricted => "restricted",
        })
    }
}

/// How far the reader trusts a peer. Derived locally, never sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum TrustLevel {
    /// Unknown.
    #[default]
    #[n(0)]
    T0,
    /// A member of a pinned org.
    #[n(1)]
    T1,
    /// T1 with fresh status and a location that a pinned third party attests.
    #[n(2)]
    T2,
    /// T2 with the required certifications attested.
    #[n(3)]
    T3,
}

impl fmt::Display for TrustLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}", *self as u8)
    }
}

impl core::str::FromStr for TrustLevel {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        match text {
            "T0" => Ok(Self::T0),
            "T1" => Ok(Self::T1),
            "T2" => Ok(Self::T2),
            "T3" => Ok(Self::T3),
            _ => Err(ConstraintError::new("min_trust", "expected one of T0, T1, T2, T3")),
        }
    }
}

/// A certification or standard as constraints name it, such as `iso27001:2022` or `soc2:type2`.
pub type Certification = String;

/// Most entries that one list of a request's constraints may have.
pub const LIST_MAX: usize = 256;

/// Longest time that a caller may ask for, in milliseconds: one day.
pub const DEADLINE_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// What a caller demands of whoever runs the call. The default demands nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Constraints {
    /// Where data may be processed; `None` means anywhere, the empty set nowhere.
    #[n(0)]
    pub allow_locations: Option<CountrySet>,
    /// Countries whose operators may not run it, wherever their machines stand.
    #[n(1)]
    pub deny_operator_countries: CountrySet,
    /// The class of the call's data; a peer must accept at least this class.
    #[n(2)]
    pub class: DataClass,
    /// The least trust that the executor must have.
    #[n(3)]
    pub min_trust: TrustLevel,
    /// The orgs that may run it; `None` means any pinned org.
    #[n(4)]
    pub allow_orgs: Option<OrgSet>,
    /// Certifications that somebody whom the reader pinned must have attested.
    #[n(5)]
    pub require_certifications: CertificationSet,
    /// The most time that the call may take, in milliseconds.
    #[n(6)]
    pub deadline_ms: Option<u64>,
}

impl Constraints {
    /// Both demands at once: no looser than either.
    #[must_use]
    pub fn tightened_by(&self, other: &Self) -> Self {
        Self {
            allow_locations: both(&self.allow_locations, &other.allow_locations, CountrySet::intersection),
            deny_operator_countries: self.deny_operator_countries.union(&other.deny_operator_countries),
            class: self.class.max(other.class),
            min_trust: self.min_trust.max(other.min_trust),
            allow_orgs: both(&self.allow_orgs, &other.allow_orgs, |a, b| OrgSet(&a.0 & &b.0)),
            require_certifications: CertificationSet(
                &self.require_certifications.0 | &other.require_certifications.0,
            ),
            deadline_ms: both(&self.deadline_ms, &other.deadline_ms, |a, b| *a.min(b)),
        }
    }

    /// The deadline as a duration.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline_ms.map(Duration::from_millis)
    }

    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads the JSON form: `_meta["dev.comity/constraints"]`, and what the command line builds.
    ///
    /// Keys: `allow_locations`, `deny_operator_countries` (countries or groups), `class` (0 to 3), `min_trust`
    /// (`"T0"` to `"T3"`), `allow_orgs`, `require_certs`, `deadline_ms`.
    ///
    /// # Errors
    /// [`ConstraintError`] names the key that is wrong. A key that is not known is an error too: a demand that is not
    /// understood must not be dropped.
    pub fn from_json(value: &Value) -> Result<Self, ConstraintError> {
        let object =
            value.as_object().ok_or_else(|| ConstraintError::new("constraints", "expected an object"))?;
        let mut constraints = Self::default();
        for (key, value) in object {
            constraints.set_from_json(key, value)?;
        }
        Ok(constraints)
    }

    fn set_from_json(&mut self, key: &str, value: &Value) -> Result<(), ConstraintError> {
        match key {
            "allow_locations" => self.allow_locations = Some(places(key, value)?),
            "deny_operator_countries" => self.deny_operator_countries = places(key, value)?,
            "class" => {
                let class = value.as_u64().and_then(DataClass::from_level);
                self.class =
                    class.ok_or_else(|| ConstraintError::new(key, "expected a number from 0 to 3"))?;
            }
            "min_trust" => self.min_trust = value.as_str().unwrap_or_default().parse()?,
            "allow_orgs" => self.allow_orgs = Some(OrgSet(parsed(key, value)?)),
            "require_certs" => {
                self.require_certifications = CertificationSet(
                    strings(key, value)?.map(|text| text.map(str::to_owned)).collect::<Result<_, _>>()?,
                );
            }
            "deadline_ms" => {
                let ms = value.as_u64().filter(|ms| (1..=DEADLINE_MS_MAX).contains(ms));
                self.deadline_ms = Some(ms.ok_or_else(|| {
                    ConstraintError::new(key, format!("expected milliseconds from 1 to {DEADLINE_MS_MAX}"))
                })?);
            }
            _ => {
                return Err(ConstraintError::new(
                    key,
                    format!("not a constraint; known are {}", KEYS.join(", ")),
                ));
            }
        }
        Ok(())
    }
}

/// The keys of the JSON form.
pub const KEYS: [&str; 7] = [
    "allow_locations",
    "deny_operator_countries",
    "class",
    "min_trust",
    "allow_orgs",
    "require_certs",
    "deadline_ms",
];

/// What holds when each side, if it demands anything, must be satisfied.
fn both<T: Clone>(a: &Option<T>, b: &Option<T>, meet: impl Fn(&T, &T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(meet(a, b)),
        (one, other) => one.clone().or_else(|| other.clone()),
    }
}

fn strings<'a>(
    key: &'a str,
    value: &'a Value,
) -> Result<impl Iterator<Item = Result<&'a str, ConstraintError>>, ConstraintError> {
    let list = value.as_array().filter(|list| list.len() <= LIST_MAX);
    let list = list
        .ok_or_else(|| ConstraintError::new(key, format!("expected a list of at most {LIST_MAX} strings")))?;
    Ok(list.iter().map(move |item| {
        item.as_str().ok_or_else(|| ConstraintError::new(key, "expected a list of strings"))
    }))
}

fn parsed<T>(key: &str, value: &Value) -> Result<BTreeSet<T>, ConstraintError>
where
    T: core::str::FromStr<Err: fmt::Display> + Ord,
{
    strings(key, value)?.map(|text| text?.parse().map_err(|error| ConstraintError::new(key, error))).collect()
}

fn places(key: &str, value: &Value) -> Result<CountrySet, ConstraintError> {
    strings(key, value)?.try_fold(CountrySet::EMPTY, |set, text| {
        let place = resolve_place(text?).map_err(|error| ConstraintError::new(key, error))?;
        Ok(set.union(&place))
    })
}

/// A constraint that cannot be read: which, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("constraint `{key}`: {detail}")]
pub struct ConstraintError {
    /// The key at fault.
    pub key: String,
    /// What is wrong with it.
    pub detail: String,
}

impl ConstraintError {
    fn new(key: &str, detail: impl fmt::Display) -> Self {
        Self { key: key.chars().take(64).collect(), detail: detail.to_string() }
    }
}

encoded_set!(
    /// A set of orgs.
    OrgSet,
    OrgName
);
encoded_set!(
    /// A set of certifications.
    CertificationSet,
    Certification
);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Constraints {
        Constraints::from_json(&value).unwrap()
    }

    #[test]
    fn demands_only_tighten() {
        let eu = read(json!({"allow_locations": ["EU"], "class": 1, "deadline_ms": 5000}));
        let mine = read(json!({"allow_locations": ["DE", "US"], "min_trust": "T1", "deadline_ms": 9000}));
        let both = eu.tightened_by(&mine);
        assert_eq!(both.allow_locations.unwrap().to_string(), "DE");
        assert_eq!(
            (both.class, both.min_trust, both.deadline_ms),
            (DataClass::Internal, TrustLevel::T1, Some(5000))
        );
        assert_eq!(eu.tightened_by(&mine), mine.tightened_by(&eu));
        assert_eq!(eu.tightened_by(&Constraints::default()), eu);
    }

    #[test]
    fn disjoint_demands_leave_nowhere_rather_than_anywhere() {
        let de = read(json!({"allow_locations": ["DE"], "allow_orgs": ["a.example"]}));
        let us = read(json!({"allow_locations": ["US"], "allow_orgs": ["b.example"]}));
        let both = de.tightened_by(&us);
        assert_eq!(both.allow_locations, Some(CountrySet::EMPTY));
        assert_eq!(both.allow_orgs, Some(OrgSet::default()));
    }

    #[test]
    fn a_demand_that_is_not_understood_is_refused_by_name() {
        for (value, key) in [
            (json!([]), "constraints"),
            (json!({"allow_location": ["DE"]}), "allow_location"),
            (json!({"allow_locations": "DE"}), "allow_locations"),
            (json!({"allow_locations": ["Germany"]}), "allow_locations"),
            (json!({"class": 4}), "class"),
            (json!({"min_trust": 1}), "min_trust"),
            (json!({"allow_orgs": ["Not An Org"]}), "allow_orgs"),
            (json!({"deadline_ms": 0}), "deadline_ms"),
            (json!({"require_certs": vec!["x"; LIST_MAX + 1]}), "require_certs"),
        ] {
            assert_eq!(Constraints::from_json(&value).unwrap_err().key, key, "{value}");
        }
    }

    #[test]
    fn the_wire_form_reads_back() {
        let constraints = read(json!({
            "allow_locations": ["EU"], "deny_operator_countries": ["US"], "class": 2, "min_trust": "T1",
            "allow_orgs": ["b.example", "a.example"], "require_certs": ["soc2:type2"], "deadline_ms": 10
        }));
        let bytes = crate::codec::encode(&constraints);
        assert_eq!(crate::codec::decode::<Constraints>(&bytes, 4096), Ok(constraints));
    }
}
