//! The rules that a candidate can fail, and a set of them that costs no allocation.

/// One rule that a candidate fails. The order of the variants is the order of the checks and of every report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Rejection {
    /// It claims places beyond its membership.
    LocationOutsideMembership,
    /// It processes somewhere that is not allowed, or does not say where.
    LocationNotAllowed,
    /// Its operator is under a denied law, or does not say under which.
    OperatorCountryDenied,
    /// Its org is not among those allowed.
    OrgNotAllowed,
    /// It is trusted less than demanded.
    TrustTooLow,
    /// The call's data is of a higher class than it takes.
    ClassTooHigh,
    /// A demanded certification is not attested.
    CertificationMissing,
    /// Its membership does not let it run calls for others.
    NotExecutor,
    /// Its advert or its membership has ended.
    AdvertExpired,
    /// It offers the tool under another contract.
    ContractMismatch,
    /// Its contract changed since it was approved.
    ContractQuarantined,
    /// The operator has not approved its contract.
    ContractUnapproved,
    /// There is no connection to it and no address to dial.
    Unreachable,
    /// It failed too often lately and is left alone for a while.
    CircuitOpen,
}

impl Rejection {
    /// Every rule in order.
    pub const ALL: [Self; 14] = [
        Self::LocationOutsideMembership,
        Self::LocationNotAllowed,
        Self::OperatorCountryDenied,
        Self::OrgNotAllowed,
        Self::TrustTooLow,
        Self::ClassTooHigh,
        Self::CertificationMissing,
        Self::NotExecutor,
        Self::AdvertExpired,
        Self::ContractMismatch,
        Self::ContractQuarantined,
        Self::ContractUnapproved,
        Self::Unreachable,
        Self::CircuitOpen,
    ];

    /// The rule's stable name, for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::LocationOutsideMembership => "location_outside_membership",
            Self::LocationNotAllowed => "location_not_allowed",
            Self::OperatorCountryDenied => "operator_country_denied",
            Self::OrgNotAllowed => "org_not_allowed",
            Self::TrustTooLow => "trust_too_low",
            Self::ClassTooHigh => "class_too_high",
            Self::CertificationMissing => "certification_missing",
            Self::NotExecutor => "not_executor",
            Self::AdvertExpired => "advert_expired",
            Self::ContractMismatch => "contract_mismatch",
            Self::ContractQuarantined => "contract_quarantined",
            Self::ContractUnapproved => "contract_unapproved",
            Self::Unreachable => "unreachable",
            Self::CircuitOpen => "circuit_open",
        }
    }

    /// The rule in words, without the facts of a case.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::LocationOutsideMembership => "claims places beyond its membership",
            Self::LocationNotAllowed => "processes where it is not allowed",
            Self::OperatorCountryDenied => "its operator is under a denied law",
            Self::OrgNotAllowed => "its org is not allowed",
            Self::TrustTooLow => "is trusted too little",
            Self::ClassTooHigh => "does not take data of this class",
            Self::CertificationMissing => "lacks a demanded certification",
            Self::NotExecutor => "its membership does not let it run calls for others",
            Self::AdvertExpired => "its advert has expired",
            Self::ContractMismatch => "offers the tool under another contract",
            Self::ContractQuarantined => "its contract changed since it was approved; approve it again",
            Self::ContractUnapproved => "its contract is not approved here",
            Self::Unreachable => "there is no connection to it and no address to dial",
            Self::CircuitOpen => "it failed too often lately and is left alone for a while",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// A set of rules that one candidate fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejections(u16);

const REACH: u16 = Rejection::Unreachable.bit() | Rejection::CircuitOpen.bit();
const APPROVAL: u16 = Rejection::ContractUnapproved.bit() | Rejection::ContractQuarantined.bit();

impl Rejections {
    /// No rule failed.
    pub const NONE: Self = Self(0);

    /// Adds a rule.
    pub const fn insert(&mut self, reason: Rejection) {
        self.0 |= reason.bit();
    }

    /// Adds all of `other`.
    pub const fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether no rule failed.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `reason` is among them.
    pub const fn contains(self, reason: Rejection) -> bool {
        self.0 & reason.bit() != 0
    }

    /// The rules in the order of the checks.
    pub fn iter(self) -> impl Iterator<Item = Rejection> {
        Rejection::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }

    /// Whether nothing but reach stands in the way.
    pub const fn is_only_reach(self) -> bool {
        self.0 & !REACH == 0
    }

    /// Whether nothing but reach and the operator's approval stand in the way.
    pub const fn is_only_reach_or_approval(self) -> bool {
        self.0 & !(REACH | APPROVAL) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_yields_what_was_put_in_and_in_order() {
        for (at, reason) in Rejection::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at, "ALL is in the order of the variants");
        }
        let mut set = Rejections::NONE;
        set.insert(Rejection::CircuitOpen);
        set.insert(Rejection::LocationNotAllowed);
        set.insert(Rejection::CircuitOpen);
        let listed: Vec<_> = set.iter().collect();
        assert_eq!(listed, [Rejection::LocationNotAllowed, Rejection::CircuitOpen]);
        assert!(!set.is_only_reach());
    }

    #[test]
    fn codes_are_distinct() {
        let codes: std::collections::BTreeSet<_> = Rejection::ALL.map(Rejection::code).into();
        assert_eq!(codes.len(), Rejection::ALL.len());
    }
}
