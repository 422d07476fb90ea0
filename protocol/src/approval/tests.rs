use proptest::prelude::*;

use super::*;
use crate::codec;

const NOW: Wall = Wall::from_millis(1_795_000_000_000);

/// `umbrella.example/time/now`, from its last two parts.
fn tool(path: &str) -> CapabilityId {
    let (server, tool) = path.split_once('/').expect("server/tool");
    let org = umbrella();
    CapabilityId { org, server: server.parse().unwrap(), kind: Kind::Tool, name: tool.parse().unwrap() }
}

fn umbrella() -> OrgName {
    "umbrella.example".parse().unwrap()
}

fn server(name: &str) -> Scope {
    Scope::Server(umbrella(), name.parse().unwrap())
}

fn digest(n: u8) -> ContractDigest {
    ContractDigest::from_bytes([n; 32])
}

fn contract(path: &str, n: u8) -> Scope {
    Scope::Contract(tool(path), digest(n))
}

/// Approvals with a store behind them.
#[derive(Default)]
struct Stored {
    approvals: Approvals,
    records: BTreeMap<RecordKey, RecordValue>,
}

impl Stored {
    fn with(scopes: impl IntoIterator<Item = Scope>) -> Self {
        let mut stored = Self::default();
        scopes.into_iter().for_each(|scope| stored.approve(scope));
        stored
    }

    fn approve(&mut self, scope: Scope) {
        self.approvals.approve(scope, NOW).unwrap();
        self.persist();
    }

    fn revoke(&mut self, scope: Scope) {
        self.approvals.revoke(scope, NOW).unwrap();
        self.persist();
    }

    fn judge(&mut self, path: &str, n: u8) -> &'static str {
        let judged = self.approvals.judge(&tool(path), digest(n), false, NOW);
        self.persist();
        judged.code()
    }

    fn persist(&mut self) {
        while let Some(effect) = self.approvals.poll_effect() {
            match effect {
                Effect::Put(key, value) => self.records.insert(key, value),
                Effect::Remove(key) => self.records.remove(&key),
            };
        }
    }

    /// What a restart makes of the records, through their bytes.
    fn restarted(&self) -> Self {
        let bytes = self.records.iter().map(|(key, value)| (codec::encode(key), codec::encode(value)));
        let records = bytes
            .map(|(key, value)| (codec::decode(&key, 1024).unwrap(), codec::decode(&value, 1024).unwrap()));
        Self { approvals: Approvals::restore(records).unwrap(), records: self.records.clone() }
    }
}

#[test]
fn a_foreign_tool_is_invisible_until_approved_and_ones_own_never_is() {
    let mut stored = Stored::default();
    assert_eq!(stored.judge("time/now", 1), "unapproved");
    assert_eq!(stored.approvals.judge(&tool("time/now"), digest(1), true, NOW), Judgement::Approved);
    assert!(stored.records.is_empty(), "neither leaves a trace");
}

#[test]
fn each_scope_covers_what_it_says_and_no_more() {
    for (scope, visible) in [
        (Scope::Org(umbrella()), ["approved", "approved", "approved"]),
        (server("time"), ["approved", "approved", "unapproved"]),
        (contract("time/now", 1), ["approved", "unapproved", "unapproved"]),
    ] {
        let mut stored = Stored::with([scope.clone()]);
        let judged = ["time/now", "time/zones", "files/read"].map(|path| stored.judge(path, 1));
        assert_eq!(judged, visible, "{scope}");
    }
    let mut other = tool("time/now");
    other.org = "other.example".parse().unwrap();
    let mut stored = Stored::with([Scope::Org(umbrella())]);
    assert_eq!(stored.approvals.judge(&other, digest(1), false, NOW), Judgement::Unapproved);
}

#[test]
fn a_changed_contract_waits_until_it_is_approved_too() {
    let mut stored = Stored::with([Scope::Org(umbrella())]);
    assert_eq!(stored.judge("time/now", 1), "approved");
    let judged = stored.approvals.judge(&tool("time/now"), digest(2), false, NOW);
    assert_eq!(judged, Judgement::Quarantined { approved: digest(1), seen: digest(2) });
    stored.approve(Scope::Org(umbrella()));
    stored.approve(server("time"));
    assert_eq!(stored.judge("time/now", 2), "quarantined", "a wide yes does not wave a change through");
    stored.approve(contract("time/now", 2));
    assert_eq!(stored.judge("time/now", 2), "approved");
    assert_eq!(stored.judge("time/now", 3), "quarantined");
}

#[test]
fn during_a_rolling_upgrade_the_old_contract_goes_on_serving() {
    let mut stored = Stored::with([server("time")]);
    for _ in 0..3 {
        assert_eq!(stored.judge("time/now", 1), "approved", "from the nodes that are not upgraded yet");
        assert_eq!(stored.judge("time/now", 2), "quarantined", "from the nodes that are");
    }
    stored.approve(contract("time/now", 2));
    assert_eq!([1, 2].map(|n| stored.judge("time/now", n)), ["approved", "approved"]);
    stored.revoke(contract("time/now", 1));
    assert_eq!([1, 2].map(|n| stored.judge("time/now", n)), ["quarantined", "approved"]);
}

#[test]
fn what_is_revoked_by_digest_is_no_first_use_again() {
    let mut stored = Stored::with([Scope::Org(umbrella())]);
    stored.judge("time/now", 1);
    stored.revoke(contract("time/now", 1));
    let mut later = stored.restarted();
    assert_eq!([1, 2].map(|n| later.judge("time/now", n)), ["unapproved", "unapproved"]);
    later.approve(contract("time/now", 1));
    assert_eq!(later.judge("time/now", 1), "approved");
}

#[test]
fn a_servers_no_holds_under_its_orgs_yes() {
    let mut stored = Stored::with([Scope::Org(umbrella()), contract("files/read", 7)]);
    stored.revoke(server("files"));
    let mut later = stored.restarted();
    assert_eq!(later.judge("files/read", 7), "unapproved");
    assert_eq!(later.judge("time/now", 1), "approved");
    later.approve(Scope::Org(umbrella()));
    assert_eq!(later.judge("files/read", 7), "unapproved", "the narrower word counts");
    later.approve(server("files"));
    assert_eq!(later.judge("files/read", 7), "approved");
}

#[test]
fn revoking_an_org_forgets_everything_in_it() {
    let mut stored = Stored::with([Scope::Org(umbrella()), server("files"), contract("git/log", 1)]);
    stored.judge("time/now", 1);
    assert_eq!(stored.records.len(), 4);
    stored.revoke(Scope::Org(umbrella()));
    assert!(stored.records.is_empty(), "{:?}", stored.records);
    for path in ["time/now", "files/read", "git/log"] {
        assert_eq!(stored.judge(path, 1), "unapproved");
    }
}

#[test]
fn only_the_last_contracts_stay_approved() {
    let mut stored = Stored::default();
    (0..=CONTRACTS_MAX as u8).for_each(|n| stored.approve(contract("time/now", n)));
    assert_eq!(stored.judge("time/now", 0), "quarantined");
    assert!((1..=CONTRACTS_MAX as u8).all(|n| stored.judge("time/now", n) == "approved"));
}

#[test]
fn an_org_that_invents_tools_without_end_fills_only_its_own_room() {
    let mut stored = Stored::with([Scope::Org(umbrella())]);
    for n in 0..CAPABILITIES_PER_ORG_MAX {
        assert_eq!(stored.judge(&format!("s/t{n}"), 1), "approved");
    }
    assert_eq!(stored.judge("s/one-more", 1), "unapproved");
    assert_eq!(stored.judge("s/t0", 1), "approved", "the known ones stay");
    let full = stored.approvals.approve(contract("s/one-more", 1), NOW);
    assert_eq!(full, Err(ApprovalError::Capabilities(umbrella())));
    let mut other = tool("s/t");
    other.org = "other.example".parse().unwrap();
    assert!(stored.approvals.approve(Scope::Contract(other, digest(1)), NOW).is_ok());
    assert_eq!(stored.restarted().approvals.capability_count, CAPABILITIES_PER_ORG_MAX);
}

#[test]
fn the_policies_have_a_bound() {
    let mut approvals = Approvals::new();
    for n in 0..POLICIES_MAX {
        let scope = Scope::Server(umbrella(), format!("s{n}").parse().unwrap());
        approvals.approve(scope, NOW).unwrap();
    }
    assert_eq!(approvals.approve(server("more"), NOW), Err(ApprovalError::Policies));
    assert_eq!(approvals.approve(server("s0"), NOW), Ok(()), "a known one has its place");
}

#[test]
fn records_that_cannot_be_right_are_refused() {
    let policy = RecordValue::Policy(Policy { approved: true, at: NOW });
    let crossed = [(RecordKey::Capability(tool("time/now")), policy)];
    assert!(matches!(Approvals::restore(crossed), Err(ApprovalError::Records(_))));
    let one = |n| ApprovedContract { contract: digest(n), provenance: Provenance::Operator, at: NOW };
    let many = RecordValue::Contracts((0..9).map(one).collect());
    let bloated = [(RecordKey::Capability(tool("time/now")), many)];
    assert!(matches!(Approvals::restore(bloated), Err(ApprovalError::Records(_))));
    let twice = [(); 2].map(|()| (RecordKey::Capability(tool("time/now")), RecordValue::Contracts(vec![])));
    assert!(matches!(Approvals::restore(twice), Err(ApprovalError::Records(_))));
}

#[derive(Clone, Debug)]
enum Step {
    Approve(Scope),
    Revoke(Scope),
    Judge(&'static str, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = prop::sample::select(vec!["time/now", "time/zones", "files/read"]);
    let scope = prop_oneof![
        Just(Scope::Org(umbrella())),
        prop::sample::select(vec!["time", "files"]).prop_map(server),
        (path.clone(), 0..3_u8).prop_map(|(path, n)| contract(path, n)),
    ];
    let step = prop_oneof![
        scope.clone().prop_map(Step::Approve),
        scope.prop_map(Step::Revoke),
        (path, 0..3_u8).prop_map(|(path, n)| Step::Judge(path, n)),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    /// Whatever happens, the stored records are the whole state, and judging twice says the same.
    #[test]
    fn the_records_are_the_state(steps in steps()) {
        let mut stored = Stored::default();
        for step in steps {
            match step {
                Step::Approve(scope) => stored.approve(scope),
                Step::Revoke(scope) => stored.revoke(scope),
                Step::Judge(path, n) => {
                    let first = stored.judge(path, n);
                    prop_assert_eq!(stored.judge(path, n), first);
                    prop_assert_eq!(stored.approvals.peek(&tool(path), digest(n), false).code(), first);
                }
            }
            let state: BTreeMap<_, _> = stored.approvals.records().collect();
            prop_assert_eq!(&state, &stored.records);
            let counted: usize = stored.approvals.capabilities.values().map(BTreeMap::len).sum();
            prop_assert_eq!(counted, stored.approvals.capability_count);
        }
        let mut later = stored.restarted();
        for path in ["time/now", "time/zones", "files/read"] {
            for n in 0..3 {
                prop_assert_eq!(later.judge(path, n), stored.judge(path, n));
            }
        }
    }
}
