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
fn a_serial_is_issued_once() {
    let (_, store) = store();
    let issue = |serial: u64, by: &str| {
        let mut batch = Batch::new();
        batch.expect::<Issued>(&serial, None).put(&serial, &Issued { certificate: by.into() });
        store.commit(batch).expect("accepted").wait()
    };
    issue(1, "first").expect("durable");
    assert!(matches!(issue(1, "second"), Err(CommitError::Conflict { .. })));
    assert_eq!(store.issued().get(&1).expect("reads"), Some(Issued { certificate: b"first".to_vec() }));
    assert_eq!(store.issued().next_serial().expect("reads"), 2);
}

#[test]
fn an_invite_shows_no_token() {
    let invite = Invite { value: b"sixteen secrets!".to_vec() };
    assert_eq!(format!("{invite:?}"), "Invite { .. }");
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
