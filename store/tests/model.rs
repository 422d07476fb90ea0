//! The store over a failing device against a map.
//!
//! Random batches, expectations, failures, full disks and crashes; after each crash the store must hold every
//! acknowledged batch, in order, and beyond them at most a prefix of those whose fate was left open.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use comity_store::testing::{FREE_BYTES, Memory, Operation};
use comity_store::{Batch, CommitError, KeyRange, Options, Store, Ticket, Tree};
use proptest::prelude::*;

const TREES: [Tree; 2] = [Tree::Adverts, Tree::Pins];

type Slot = (Tree, u8);
type Model = BTreeMap<Slot, u8>;

#[derive(Clone, Debug)]
struct Writes {
    expect: Option<(Slot, Option<u8>)>,
    writes: Vec<(Slot, Option<u8>)>,
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Writes),
    Settle,
    Fail(Operation, u64),
    Disk { full: bool },
    Crash { survivors: usize },
    Close,
}

fn slot() -> impl Strategy<Value = Slot> {
    (prop::sample::select(TREES.to_vec()), 0..4u8)
}

fn writes() -> impl Strategy<Value = Writes> {
    let value = || prop::option::weighted(0.8, 0..3u8);
    (prop::option::weighted(0.3, (slot(), value())), prop::collection::vec((slot(), value()), 0..4))
        .prop_map(|(expect, writes)| Writes { expect, writes })
}

fn step() -> impl Strategy<Value = Step> {
    let operation = prop::sample::select(vec![Operation::Apply, Operation::Sync, Operation::Read]);
    prop_oneof![
        12 => writes().prop_map(Step::Commit),
        4 => Just(Step::Settle),
        1 => (operation, 0..3u64).prop_map(|(operation, after)| Step::Fail(operation, after)),
        1 => any::<bool>().prop_map(|full| Step::Disk { full }),
        1 => (0..4usize).prop_map(|survivors| Step::Crash { survivors }),
        1 => Just(Step::Close),
    ]
}

/// The store under test, what it must hold, and what it may hold besides.
struct World {
    memory: Memory,
    store: Store,
    acknowledged: Model,
    open: Vec<Writes>,
    pending: Vec<(Ticket, Writes)>,
}

impl World {
    fn new() -> Self {
        let memory = Memory::new();
        let store = open(&memory);
        Self { memory, store, acknowledged: Model::new(), open: Vec::new(), pending: Vec::new() }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Commit(writes) => self.commit(writes),
            Step::Settle => self.settle(),
            Step::Fail(operation, after) => self.memory.fail(operation, after, ErrorKind::Other),
            Step::Disk { full } => {
                self.settle();
                self.memory.set_free_bytes(if full { 0 } else { FREE_BYTES });
            }
            Step::Crash { survivors } => {
                self.settle();
                self.restart(self.memory.crash(survivors));
            }
            Step::Close => {
                let closed = self.store.close();
                self.settle();
                assert_eq!(closed.is_ok(), self.open.is_empty() && self.store.fault().is_none());
                self.restart(self.memory.crash(usize::MAX));
            }
        }
    }

    fn commit(&mut self, writes: Writes) {
        match self.store.commit(batch(&writes)) {
            Ok(ticket) => self.pending.push((ticket, writes)),
            Err(CommitError::Poisoned(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for every ticket, in order, and holds each answer against the model.
    fn settle(&mut self) {
        for (ticket, writes) in std::mem::take(&mut self.pending) {
            match ticket.wait() {
                Ok(()) => {
                    assert!(self.open.is_empty(), "acknowledged after a failure");
                    assert!(expectation_holds(&self.acknowledged, &writes), "{writes:?}");
                    apply(&mut self.acknowledged, &writes);
                }
                // An expectation may have been held against batches of the same group that then failed.
                Err(CommitError::Conflict { .. }) if self.open.is_empty() && self.store.fault().is_none() => {
                    assert!(!expectation_holds(&self.acknowledged, &writes), "{writes:?}");
                }
                Err(CommitError::Conflict { .. } | CommitError::NoSpace { .. }) => {}
                Err(CommitError::Poisoned(_)) => self.open.push(writes),
                Err(error) => panic!("{error}"),
            }
        }
        if self.store.fault().is_none()
            && let Some(held) = contents(&self.store)
        {
            assert_eq!(held, self.acknowledged);
        }
    }

    fn restart(&mut self, memory: Memory) {
        self.store = open(&memory);
        self.memory = memory;
        let held = contents(&self.store).expect("a new process reads");
        let mut allowed = self.acknowledged.clone();
        let mut open = std::mem::take(&mut self.open).into_iter();
        while held != allowed {
            let next = open.next();
            apply(
                &mut allowed,
                &next.unwrap_or_else(|| panic!("{held:?} is no prefix after {:?}", self.acknowledged)),
            );
        }
        self.acknowledged = held;
    }
}

fn open(memory: &Memory) -> Store {
    memory.open(&Options::new([1; 32], 0)).expect("opens")
}

fn batch(writes: &Writes) -> Batch {
    let mut batch = Batch::new();
    if let Some(((tree, key), value)) = writes.expect {
        batch.expect_raw(tree, &[key], value.map(|value| [value]).as_ref().map(|value| &value[..]));
    }
    for ((tree, key), value) in &writes.writes {
        match value {
            Some(value) => batch.put_raw(*tree, &[*key], &[*value]),
            None => batch.delete_raw(*tree, &[*key]),
        };
    }
    batch
}

fn expectation_holds(model: &Model, writes: &Writes) -> bool {
    writes.expect.is_none_or(|(slot, value)| model.get(&slot).copied() == value)
}

fn apply(model: &mut Model, writes: &Writes) {
    for (slot, value) in &writes.writes {
        match value {
            Some(value) => model.insert(*slot, *value),
            None => model.remove(slot),
        };
    }
}

/// Everything in the store; `None` if a scripted failure or a close came in between.
fn contents(store: &Store) -> Option<Model> {
    let mut model = Model::new();
    for tree in TREES {
        for (key, value) in store.scan(tree, &KeyRange::all(), usize::MAX).ok()? {
            model.insert((tree, key[0]), value[0]);
        }
    }
    Some(model)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_means_there_and_nothing_is_torn(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        world.run(Step::Crash { survivors: 0 });
    }
}
