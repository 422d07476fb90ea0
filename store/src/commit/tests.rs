//! Group commit over the double: order, limits, poison, tickets.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use super::batch::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, Batch, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use super::queue::{QUEUE_BATCHES_MAX, QUEUE_BYTES_MAX};
use super::{CommitError, Fault};
use crate::store::ReadError;
use crate::testing::{Event, FREE_BYTES, Memory, Operation};
use crate::{Options, Store, Ticket, Tree};

const TREE: Tree = Tree::Own;

fn store() -> (Memory, Store) {
    let memory = Memory::new();
    let store = memory.open(&Options::new([1; 32], 0)).expect("opens");
    (memory, store)
}

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put_raw(TREE, key.as_bytes(), value.as_bytes());
    batch
}

fn commit(store: &Store, batch: Batch) -> Ticket {
    store.commit(batch).expect("accepted")
}

/// Occupies the committer with a sync that does not end until released.
fn busy(memory: &Memory, store: &Store) -> Ticket {
    memory.hold_syncs();
    let ticket = commit(store, put("busy", "x"));
    memory.wait_until_syncing();
    ticket
}

fn value(memory: &Memory, key: &str) -> Option<String> {
    use crate::backend::Backend;
    let bytes = memory.get(TREE, key.as_bytes()).expect("reads")?;
    Some(String::from_utf8(bytes).expect("text"))
}

#[test]
fn nothing_is_acknowledged_before_it_is_synced() {
    let (memory, store) = store();
    let ticket = busy(&memory, &store);
    assert_eq!(memory.unsynced(), 1, "applied");
    assert!(ticket.poll_now().is_none(), "but not acknowledged");
    assert_eq!(value(&memory.crash(0), "busy"), None);
    memory.release_syncs();
    ticket.wait().expect("durable");
    assert_eq!(value(&memory.crash(0), "busy").as_deref(), Some("x"));
}

#[test]
fn whoever_waits_during_a_sync_shares_the_next_one() {
    let (memory, store) = store();
    let first = busy(&memory, &store);
    let tickets: Vec<_> = (0..100).map(|number| commit(&store, put(&format!("key {number}"), "y"))).collect();
    let before = memory.events().len();
    memory.release_syncs();
    first.wait().expect("durable");
    tickets.into_iter().for_each(|ticket| ticket.wait().expect("durable"));

    let events = memory.events();
    let [Event::Synced, Event::Applied(group), Event::SyncBegan, Event::Synced] = &events[before..] else {
        panic!("{:?}", &events[before..]);
    };
    assert_eq!(group.len(), 100);
}

#[test]
fn a_batch_is_all_or_nothing_and_the_last_write_to_a_key_wins() {
    let (memory, store) = store();
    let mut batch = put("a", "1");
    batch.put_raw(TREE, b"b", b"2").put_raw(TREE, b"a", b"3").delete_raw(TREE, b"b").put_raw(
        Tree::Pins,
        b"a",
        b"4",
    );
    commit(&store, batch).wait().expect("durable");
    assert_eq!((value(&memory, "a").as_deref(), value(&memory, "b")), (Some("3"), None));
    assert_eq!(store.get(Tree::Pins, b"a").expect("reads").as_deref(), Some(&b"4"[..]));
}

#[test]
fn expectations_see_the_batches_before_them_in_the_same_group() {
    let (memory, store) = store();
    let first = busy(&memory, &store);
    let claim = |by: &str| {
        let mut batch = put("token", by);
        batch.expect_raw(TREE, b"token", None).put_raw(Tree::Pins, by.as_bytes(), b"claimed");
        commit(&store, batch)
    };
    let (winner, loser) = (claim("winner"), claim("loser"));
    memory.release_syncs();
    first.wait().expect("durable");
    winner.wait().expect("durable");
    let Err(CommitError::Conflict { tree: TREE, key }) = loser.wait() else { panic!("not a conflict") };
    assert_eq!(key, b"token");
    assert_eq!(value(&memory, "token").as_deref(), Some("winner"));
    assert_eq!(store.get(Tree::Pins, b"loser").expect("reads"), None);
}

#[test]
fn an_expectation_of_a_value_holds_only_for_that_value() {
    let (_, store) = store();
    commit(&store, put("a", "1")).wait().expect("durable");
    let replace = |old: &[u8]| {
        let mut batch = put("a", "2");
        batch.expect_raw(TREE, b"a", Some(old));
        commit(&store, batch).wait()
    };
    assert!(matches!(replace(b"0"), Err(CommitError::Conflict { .. })));
    replace(b"1").expect("durable");
    assert!(matches!(replace(b"1"), Err(CommitError::Conflict { .. })));
}

#[test]
fn an_empty_batch_is_a_barrier() {
    let (memory, store) = store();
    let first = busy(&memory, &store);
    let barrier = commit(&store, Batch::new());
    assert!(barrier.poll_now().is_none());
    memory.release_syncs();
    barrier.wait().expect("durable");
    assert!(first.poll_now().expect("resolved before the barrier").is_ok());
    assert_eq!(memory.unsynced(), 0);
}

#[test]
fn a_full_queue_refuses_and_a_blocking_commit_waits() {
    let (memory, store) = store();
    let first = busy(&memory, &store);
    let tickets: Vec<_> = (0..QUEUE_BATCHES_MAX).map(|_| commit(&store, put("k", "v"))).collect();
    assert!(matches!(store.commit(put("late", "v")), Err(CommitError::Busy)));
    let waiter = thread::spawn({
        let store = store.clone();
        move || store.commit_blocking(put("patient", "v")).and_then(Ticket::wait)
    });
    memory.release_syncs();
    waiter.join().expect("no panic").expect("durable");
    tickets.into_iter().chain([first]).for_each(|ticket| ticket.wait().expect("durable"));
    assert_eq!((value(&memory, "late"), value(&memory, "patient").as_deref()), (None, Some("v")));
}

#[test]
fn the_queue_is_bounded_in_bytes_too() {
    let (memory, store) = store();
    let first = busy(&memory, &store);
    let mut big = Batch::new();
    for number in 0..60u8 {
        big.put_raw(TREE, &[number], &[0; VALUE_BYTES_MAX]);
    }
    let fit = QUEUE_BYTES_MAX / big.bytes();
    let tickets: Vec<_> = (0..fit).map(|_| commit(&store, big.clone())).collect();
    assert!(matches!(store.commit(big), Err(CommitError::Busy)));
    memory.release_syncs();
    tickets.into_iter().chain([first]).for_each(|ticket| ticket.wait().expect("durable"));
}

#[test]
fn oversized_parts_are_refused_before_anything_is_written() {
    let (memory, store) = store();
    let refused = |key: &[u8], value: &[u8]| {
        let mut batch = put("innocent", "x");
        batch.put_raw(TREE, key, value);
        store.commit(batch).expect_err("refused")
    };
    assert!(matches!(refused(b"", b""), CommitError::KeyLength { bytes: 0, .. }));
    assert!(matches!(refused(&[0; KEY_BYTES_MAX + 1], b""), CommitError::KeyLength { .. }));
    assert!(matches!(refused(b"k", &[0; VALUE_BYTES_MAX + 1]), CommitError::ValueTooLarge { .. }));

    let mut many = Batch::new();
    for _ in 0..=BATCH_OPERATIONS_MAX {
        many.delete_raw(TREE, b"k");
    }
    assert!(matches!(store.commit(many), Err(CommitError::BatchTooLarge { .. })));
    let mut large = Batch::new();
    for _ in 0..=BATCH_BYTES_MAX / VALUE_BYTES_MAX {
        large.put_raw(TREE, b"k", &[0; VALUE_BYTES_MAX]);
    }
    assert!(matches!(store.commit(large), Err(CommitError::BatchTooLarge { .. })));
    assert_eq!(value(&memory, "innocent"), None);

    let mut largest = Batch::new();
    largest.put_raw(TREE, &[1; KEY_BYTES_MAX], &[0; VALUE_BYTES_MAX]);
    commit(&store, largest).wait().expect("durable");
}

#[test]
fn any_failure_poisons_the_store_for_good() {
    for operation in [Operation::Apply, Operation::Sync, Operation::Read] {
        let (memory, store) = store();
        memory.fail(operation, 0, ErrorKind::Other);
        let mut batch = put("a", "1");
        batch.expect_raw(TREE, b"a", None); // so that the committer reads
        let failed = commit(&store, batch).wait();
        assert!(matches!(failed, Err(CommitError::Poisoned(_))), "{operation:?}: {failed:?}");

        let after = memory.events().len();
        assert!(matches!(store.commit(put("b", "2")), Err(CommitError::Poisoned(_))));
        assert!(matches!(store.get(TREE, b"a"), Err(ReadError::Poisoned(_))));
        assert!(store.put_blob(b"x").is_err());
        assert_eq!(memory.events().len(), after, "{operation:?}: the device was used again");
        assert!(store.close().is_err());
    }
}

#[test]
fn a_failed_read_poisons_writers_too() {
    let (memory, store) = store();
    memory.fail(Operation::Read, 0, ErrorKind::Other);
    assert!(matches!(store.get(TREE, b"a"), Err(ReadError::Poisoned(_))));
    assert!(matches!(store.commit(put("b", "2")), Err(CommitError::Poisoned(_))));
}

#[test]
fn everyone_in_a_failed_group_and_behind_it_hears_of_it() {
    let (memory, store) = store();
    let first = busy(&memory, &store);
    let tickets: Vec<_> = (0..700).map(|number| commit(&store, put(&number.to_string(), "y"))).collect();
    memory.fail(Operation::Sync, 0, ErrorKind::Other);
    memory.release_syncs();
    for ticket in tickets.into_iter().chain([first]) {
        assert!(matches!(ticket.wait(), Err(CommitError::Poisoned(_))));
    }
    let syncs = memory.events().into_iter().filter(|event| *event == Event::SyncBegan).count();
    assert_eq!(syncs, 2, "the schema's and the failed one; a sync is never tried again");
}

#[test]
fn a_nearly_full_disk_refuses_and_recovers() {
    let (memory, store) = store();
    memory.set_free_bytes(1000);
    let refused = commit(&store, put("a", "1")).wait();
    assert!(matches!(refused, Err(CommitError::NoSpace { free_bytes: 1000, .. })), "{refused:?}");
    assert_eq!(store.get(TREE, b"a").expect("still reads"), None);
    memory.set_free_bytes(FREE_BYTES);
    commit(&store, put("a", "1")).wait().expect("durable");
}

#[test]
fn closing_makes_what_was_accepted_durable_and_refuses_the_rest() {
    let (memory, store) = store();
    let first = busy(&memory, &store);
    let second = commit(&store, put("second", "y"));
    let closer = thread::spawn({
        let store = store.clone();
        move || store.close().map_err(|fault: Fault| fault.to_string())
    });
    while !matches!(store.commit(Batch::new()), Err(CommitError::Closed)) {
        thread::yield_now();
    }
    assert!(second.poll_now().is_none());
    memory.release_syncs();
    closer.join().expect("no panic").expect("closes");
    first.wait().expect("durable");
    second.wait().expect("durable");
    assert_eq!(value(&memory.crash(0), "second").as_deref(), Some("y"));
    assert!(matches!(store.get(TREE, b"second"), Err(ReadError::Closed)));
    store.close().expect("closing twice is fine");
}

#[test]
fn dropping_the_last_handle_closes() {
    let (memory, store) = store();
    let ticket = commit(&store, put("a", "1"));
    drop(store);
    assert!(ticket.poll_now().expect("resolved").is_ok());
    assert_eq!(value(&memory.crash(0), "a").as_deref(), Some("1"));
}

#[test]
fn a_ticket_wakes_its_task_once_resolved() {
    struct Counter(AtomicUsize);
    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (memory, store) = store();
    let counter = Arc::new(Counter(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&counter));
    let mut ticket = pin!(busy(&memory, &store));
    assert!(ticket.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(ticket.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let behind = commit(&store, Batch::new());
    memory.release_syncs();
    behind.wait().expect("durable");
    assert_eq!(counter.0.load(Ordering::SeqCst), 1);
    assert!(matches!(ticket.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(()))));
}

#[test]
fn a_dropped_ticket_does_not_undo_its_batch() {
    let (memory, store) = store();
    drop(commit(&store, put("a", "1")));
    store.close().expect("closes");
    assert_eq!(value(&memory.crash(0), "a").as_deref(), Some("1"));
}
