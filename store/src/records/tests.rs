//! What the records' own operations promise.

use super::*;
use crate::record::OrgVersion;
use crate::testing::Memory;
use crate::{Batch, Options};

fn store() -> (Memory, Store) {
    let memory = Memory::new();
    let store = memory.open(&Options::new([1; 32], 0)).expect("opens");
    (memory, store)
}

fn reopened(memory: &Memory) -> Store {
    memory.crash(0).open(&Options::new([1; 32], 0)).expect("opens")
}

#[test]
fn a_sequence_never_goes_back_even_after_a_crash() {
    let (memory, store) = store();
    let node = [3; 32];
    let advance = |store: &Store, epoch, seq| {
        let mut batch = Batch::new();
        let new = Sequence { epoch, seq };
        let progress = store.sequences().advance(&mut batch, &node, new).expect("reads");
        store.commit(batch).expect("accepted").wait().expect("durable");
        progress
    };
    assert!(advance(&store, 1, 5));
    assert!(!advance(&store, 1, 5));
    assert!(!advance(&store, 0, 9));
    assert!(advance(&store, 2, 0));
    let store = reopened(&memory);
    assert!(!advance(&store, 1, 99));
    assert_eq!(store.sequences().get(&node).expect("reads"), Some(Sequence { epoch: 2, seq: 0 }));
}

#[test]
fn of_two_that_advance_a_node_at_once_one_is_told() {
    let (_, store) = store();
    let stage = |seq| {
        let mut batch = Batch::new();
        store.sequences().advance(&mut batch, &[3; 32], Sequence { epoch: 0, seq }).expect("reads");
        batch
    };
    let (later, earlier) = (stage(9), stage(8));
    store.commit(later).expect("accepted").wait().expect("durable");
    let stale = store.commit(earlier).expect("accepted").wait();
    assert!(matches!(stale, Err(CommitError::Conflict { .. })), "{stale:?}");
}

#[test]
fn own_counters_are_durable_when_their_ticket_resolves() {
    let (memory, store) = store();
    let take = |store: &Store| {
        let (own, ticket) = store.own().next().expect("taken");
        ticket.wait().expect("durable");
        (own.epoch, own.seq)
    };
    assert_eq!((take(&store), take(&store)), ((0, 1), (0, 2)));
    let store = reopened(&memory);
    assert_eq!(take(&store), (0, 3));
    let (own, ticket) = store.own().start_epoch(7).expect("taken");
    ticket.wait().expect("durable");
    assert_eq!((own.epoch, own.seq), (7, 0));
    assert_eq!(take(&store), (7, 1));
}

#[test]
fn an_exhausted_counter_is_an_error() {
    let (_, store) = store();
    let end = Own { epoch: u64::MAX, seq: u64::MAX };
    store.own().put(&Own::KEY.to_owned(), &end).expect("accepted").wait().expect("durable");
    assert!(matches!(store.own().next(), Err(UpdateError::Exhausted)));
    assert!(matches!(store.own().start_epoch(0), Err(UpdateError::Exhausted)));
}

#[test]
fn an_invite_works_once() {
    let (_, store) = store();
    let token = [5; 32];
    let invite =
        Invite { kind: InviteKind::Enrol, org: "acme".to_owned(), expires_at_ms: 100, used_by: None };
    store.invites().put(&token, &invite).expect("accepted").wait().expect("durable");
    let redeem = |by: &str, now_ms| store.invites().redeem(&token, by, now_ms, Batch::new());

    assert!(matches!(store.invites().redeem(&[6; 32], "x", 0, Batch::new()), Err(RedeemError::Unknown)));
    assert!(matches!(redeem("late", 100), Err(RedeemError::Expired)));
    let (used, ticket) = redeem("node a", 99).expect("accepted");
    ticket.wait().expect("durable");
    assert_eq!(used.used_by.as_deref(), Some("node a"));
    assert!(matches!(redeem("node b", 99), Err(RedeemError::Used { by }) if by == "node a"));
}

#[test]
fn of_two_that_redeem_at_once_one_gets_nothing() {
    let (memory, store) = store();
    let token = [5; 32];
    let invite =
        Invite { kind: InviteKind::Enrol, org: "acme".to_owned(), expires_at_ms: 100, used_by: None };
    store.invites().put(&token, &invite).expect("accepted").wait().expect("durable");
    memory.hold_syncs();
    let busy = store.pins().delete(&"none".to_owned()).expect("accepted");
    memory.wait_until_syncing();
    let redeem = |by: &str, serial: u64| {
        let mut batch = Batch::new();
        batch.put(&serial, &Issued { certificate: by.into() });
        store.invites().redeem(&token, by, 0, batch).expect("looks unused").1
    };
    let (first, second) = (redeem("first", 1), redeem("second", 2));
    memory.release_syncs();
    busy.wait().expect("durable");
    first.wait().expect("durable");
    assert!(matches!(second.wait(), Err(CommitError::Conflict { .. })));
    assert_eq!(store.issued().get(&2).expect("reads"), None, "the loser's certificate must not be issued");
    assert_eq!(store.issued().next_serial().expect("reads"), 2);
}

#[test]
fn an_orgs_roots_are_its_own_and_in_order() {
    let (_, store) = store();
    let mut batch = Batch::new();
    for (org, version) in [("acme", 1), ("acme", 300), ("acme", 2), ("acme.example", 9), ("acm", 7)] {
        let key = OrgVersion { org: org.to_owned(), version };
        batch.put(&key, &SignedRoot { envelope: version.to_be_bytes().to_vec() });
    }
    store.commit(batch).expect("accepted").wait().expect("durable");
    let roots = store.roots();
    let versions: Vec<_> = roots.of_org("acme").map(|root| root.expect("reads").0.version).collect();
    assert_eq!(versions, [1, 2, 300]);
    let (latest, _) = roots.latest("acme").expect("reads").expect("is there");
    assert_eq!((latest.org.as_str(), latest.version), ("acme", 300));
    assert_eq!(roots.latest("nobody").expect("reads"), None);
}

#[test]
fn iteration_crosses_pages() {
    let (_, store) = store();
    let count = 2 * crate::record::PAGE_RECORDS as u64 + 3;
    for serials in (0..count).collect::<Vec<_>>().chunks(500) {
        let mut batch = Batch::new();
        for serial in serials {
            batch.put(serial, &Issued { certificate: vec![1] });
        }
        store.commit(batch).expect("accepted").wait().expect("durable");
    }
    let serials: Vec<_> = store.issued().iter().map(|entry| entry.expect("reads").0).collect();
    assert_eq!(serials, (0..count).collect::<Vec<_>>());
}
