//! Opening, closing and damaging real directories.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use comity_store::records::{Advert, Own, Pin, PinSource};
use comity_store::{
    Batch, CommitError, KEY_BYTES_MAX, Loss, OpenError, Options, Recovery, Store, Tree, VALUE_BYTES_MAX,
};
use common::{Home, NODE, NOW_MS, chain, options};

fn advert(number: u64) -> Advert {
    Advert { received_at_ms: number, envelope: vec![number as u8; 700] }
}

fn node(number: u64) -> [u8; 32] {
    *blake3::hash(&number.to_be_bytes()).as_bytes()
}

fn fill(store: &Store, count: u64) {
    for number in 0..count {
        store.adverts().put(&node(number), &advert(number)).expect("accepted").wait().expect("durable");
    }
}

#[test]
fn what_was_acknowledged_is_there_after_reopening() {
    let home = Home::new();
    let (store, report) = home.open();
    assert!(report.created && !report.creation_restarted && report.loss.is_none(), "{report:?}");
    let pin = Pin { root: [1; 32], source: PinSource::Join, added_at_ms: 3 };
    let mut batch = Batch::new();
    batch.put(&"acme.example".to_owned(), &pin).put(&node(1), &advert(1));
    store.commit(batch).expect("accepted").wait().expect("durable");
    store.close().expect("closes");
    assert!(matches!(store.get(Tree::Pins, b"acme.example"), Err(comity_store::ReadError::Closed)));

    let (store, report) = home.open();
    assert_eq!(report, comity_store::OpenReport::default());
    assert_eq!(store.pins().get(&"acme.example".to_owned()).expect("reads"), Some(pin));
    assert_eq!(store.adverts().get(&node(1)).expect("reads"), Some(advert(1)));
    let meta = store.meta().get(&"store".to_owned()).expect("reads").expect("is there");
    assert_eq!((meta.created_at_ms, meta.node), (NOW_MS, NODE));
}

#[test]
fn only_the_owner_can_read_it() {
    let home = Home::new();
    let (store, _) = home.open();
    drop(store.put_blob(b"payload").expect("written"));
    let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode(&home.store()), 0o700);
    assert_eq!(mode(&home.file("payloads")), 0o700);
    assert_eq!(mode(&home.file("head")), 0o600);
}

#[test]
fn a_second_opener_is_told_who_has_it() {
    let home = Home::new();
    let (store, _) = home.open();
    let error = Store::open(home.store(), options()).expect_err("refused");
    let text = error.to_string();
    assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    assert!(text.contains(&home.store().display().to_string()), "{text}");
    drop(store);
    home.open();
}

#[test]
fn another_nodes_store_is_refused() {
    let home = Home::new();
    drop(home.open());
    let error = Store::open(home.store(), Options { node: [8; 32], ..options() }).expect_err("refused");
    assert!(chain(&error).contains("belongs to another node"), "{}", chain(&error));
}

#[test]
fn an_unfinished_snapshot_is_removed_before_sled_sees_it() {
    let home = Home::new();
    let (store, _) = home.open();
    fill(&store, 50);
    drop(store);
    fs::write(home.file("snap.FFFFFFFFFFFFFFF0.generating"), b"half").expect("writes");
    let (store, report) = home.open();
    assert_eq!(report.snapshots_removed, 1);
    assert_eq!(report.repaired_copy, None);
    assert_eq!(store.adverts().iter().count(), 50);
}

#[test]
fn a_corrupt_snapshot_is_repaired_and_a_copy_kept() {
    let home = Home::new();
    let (store, _) = home.open();
    fill(&store, 50);
    drop(store);
    drop(home.open()); // opening is what writes a snapshot
    let snapshot = fs::read_dir(home.store())
        .expect("lists")
        .map(|entry| entry.expect("entry").path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap.")))
        .expect("sled wrote a snapshot");
    fs::write(&snapshot, b"this is not a snapshot at all").expect("writes");

    let (store, report) = home.open();
    let copy = report.repaired_copy.expect("repaired");
    assert_eq!(
        fs::read(copy.join(snapshot.file_name().expect("named"))).expect("copied"),
        b"this is not a snapshot at all"
    );
    assert_eq!(store.adverts().iter().filter(Result::is_ok).count(), 50);
}

#[test]
fn damaged_parameters_are_repaired() {
    let home = Home::new();
    let (store, _) = home.open();
    fill(&store, 5);
    drop(store);
    fs::write(home.file("conf"), b"segment_size: many\nuse_compression: perhaps\nversion: old\nabcd")
        .expect("writes");
    let (store, report) = home.open();
    assert!(report.repaired_copy.is_some());
    assert_eq!(store.adverts().iter().count(), 5);
}

#[test]
fn a_lost_tail_is_an_error_until_an_operator_accepts_it() {
    let home = Home::new();
    let (store, _) = home.open();
    fill(&store, 2000);
    drop(store);
    let data = OpenOptions::new().write(true).open(home.file("db")).expect("opens");
    let bytes = data.metadata().expect("has a size").len();
    assert!(bytes > 1 << 19, "{bytes}");
    data.set_len(1 << 18).expect("truncates");
    for entry in fs::read_dir(home.store()).expect("lists") {
        let path = entry.expect("entry").path();
        if path.display().to_string().contains("snap.") {
            fs::remove_file(path).expect("removes");
        }
    }

    let error = Store::open(home.store(), options()).expect_err("refused");
    assert!(matches!(error, OpenError::LostRecords { expected: 2001, .. }), "{}", chain(&error));
    let again = Store::open(home.store(), options()).expect_err("refused again");
    assert!(matches!(again, OpenError::LostRecords { .. }), "{}", chain(&again));

    let accepting = Options { recovery: Recovery::AcceptLoss, ..options() };
    let (store, report) = Store::open(home.store(), accepting).expect("opens");
    let Some(Loss { expected: Some(2001), found }) = report.loss else { panic!("{report:?}") };
    assert!(found < 2001);
    store
        .own()
        .put(&Own::KEY.to_owned(), &Own { epoch: 1, seq: 0 })
        .expect("accepted")
        .wait()
        .expect("durable");
    drop(store);
    let (_, report) = home.open();
    assert_eq!(report.loss, None);
}

#[test]
fn no_damage_to_the_data_file_goes_unnoticed() {
    for position in 0..24 {
        let home = Home::new();
        let (store, _) = home.open();
        fill(&store, 300);
        drop(store);
        let data = OpenOptions::new().read(true).write(true).open(home.file("db")).expect("opens");
        let used = (300 * 760) as u64;
        let at = used * position / 24 + 100;
        data.write_all_at(&[0x5a; 64], at).expect("damages");
        drop(data);
        match Store::open(home.store(), options()) {
            Err(error) => {
                let text = chain(&error);
                assert!(text.contains("restore"), "offset {at}: {text}");
            }
            // Damage may hit space that no live record is in; then everything must still read back.
            Ok((store, _)) => match (0..300).try_for_each(|number| check_advert(&store, number)) {
                Ok(()) => {}
                Err(text) => assert!(store.fault().is_some(), "offset {at}: {text}"),
            },
        }
    }
}

fn check_advert(store: &Store, number: u64) -> Result<(), String> {
    match store.adverts().get(&node(number)) {
        Ok(Some(found)) if found == advert(number) => Ok(()),
        Ok(found) => Err(format!("advert {number} is {found:?}")),
        Err(error) => Err(chain(&error)),
    }
}

#[test]
fn a_missing_database_is_an_error_not_an_empty_store() {
    let home = Home::new();
    drop(home.open());
    fs::remove_file(home.file("db")).expect("removes");
    let error = Store::open(home.store(), options()).expect_err("refused");
    assert!(matches!(error, OpenError::DatabaseMissing { .. }), "{error}");
    assert!(!home.file("db").exists(), "refusing must not create one");
}

#[test]
fn a_damaged_or_missing_head_is_an_error() {
    let home = Home::new();
    drop(home.open());
    fs::write(home.file("head"), b"nonsense").expect("writes");
    let error = Store::open(home.store(), options()).expect_err("refused");
    assert!(matches!(error, OpenError::HeadDamaged { .. }), "{error}");
    let accepting = Options { recovery: Recovery::AcceptLoss, ..options() };
    let (_, report) = Store::open(home.store(), accepting).expect("opens");
    assert_eq!(report.loss.expect("reported").expected, None);

    fs::remove_file(home.file("head")).expect("removes");
    let error = Store::open(home.store(), options()).expect_err("refused");
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
}

#[test]
fn an_interrupted_creation_starts_over() {
    let home = Home::new();
    drop(home.open());
    fs::remove_file(home.file("head")).expect("removes");
    fs::write(home.file("creating"), b"").expect("writes");
    fs::write(home.file("db"), b"torn").expect("writes");
    let (store, report) = home.open();
    assert!(report.created && report.creation_restarted, "{report:?}");
    fill(&store, 3);
    drop(store);
    let (store, report) = home.open();
    assert!(!report.created && !report.creation_restarted, "{report:?}");
    assert_eq!(store.adverts().iter().count(), 3);
}

#[test]
fn copies_of_a_corrupt_database_do_not_pile_up() {
    let home = Home::new();
    drop(home.open());
    let copies = |home: &Home| {
        let beside = home.store();
        let beside = beside.parent().expect("has a parent");
        let names = fs::read_dir(beside).expect("lists").map(|entry| entry.expect("entry").file_name());
        names.filter(|name| name.to_string_lossy().contains("corrupt")).count()
    };
    for _ in 0..5 {
        fs::write(home.file("conf"), b"segment_size: many\nuse_compression: perhaps\nversion: old\nabcd")
            .expect("writes");
        match Store::open(home.store(), options()) {
            Ok((_, report)) => assert!(report.repaired_copy.is_some()),
            Err(error) => assert!(matches!(error, OpenError::CorruptNotCopied { .. }), "{}", chain(&error)),
        }
    }
    assert_eq!(copies(&home), 2);
}

#[test]
fn ballast_is_laid_in_and_kept() {
    let home = Home::new();
    let with_ballast = || Options { ballast_bytes: 1 << 20, reserve_bytes: 1 << 20, ..options() };
    let (store, report) = Store::open(home.store(), with_ballast()).expect("opens");
    assert!(report.ballast && !report.ballast_released);
    assert_eq!(fs::metadata(home.file("ballast")).expect("is there").len(), 1 << 20);
    drop(store);
    let (_, report) = Store::open(home.store(), with_ballast()).expect("opens");
    assert!(report.ballast);
}

#[test]
fn a_full_disk_refuses_writes_without_ending_the_store() {
    let home = Home::new();
    let greedy = Options { reserve_bytes: u64::MAX, ..options() };
    let (store, _) = Store::open(home.store(), greedy).expect("opens");
    let refused = store.own().put(&Own::KEY.to_owned(), &Own::default()).expect("accepted").wait();
    assert!(matches!(refused, Err(CommitError::NoSpace { .. })), "{refused:?}");
    assert!(store.put_blob(b"x").is_err());
    assert_eq!(store.own().current().expect("still reads"), Own::default());
    assert!(store.fault().is_none());
}

#[test]
fn the_largest_values_and_batches_survive() {
    let home = Home::new();
    let (store, _) = home.open();
    let value = |number: u8| vec![number; VALUE_BYTES_MAX];
    for round in 0..20u8 {
        let mut batch = Batch::new();
        for number in 0..60u8 {
            batch.put_raw(Tree::Adverts, &[round, number], &value(number));
        }
        store.commit(batch).expect("accepted").wait().expect("durable");
    }
    drop(store);
    assert_eq!(sled_blobs(&home), 0);
    let (store, _) = home.open();
    for (round, number) in (0..20u8).flat_map(|round| (0..60u8).map(move |number| (round, number))) {
        let found = store.get(Tree::Adverts, &[round, number]).expect("reads");
        assert_eq!(found, Some(value(number)), "{round} {number}");
    }
}

#[test]
fn the_longest_keys_stay_inside_sleds_log() {
    let home = Home::new();
    let (store, _) = home.open();
    for round in 0..20u16 {
        let mut batch = Batch::new();
        for number in 0..400u16 {
            // Keys without a common prefix, which sled would compress.
            let seed = blake3::hash(&[round.to_be_bytes(), number.to_be_bytes()].concat());
            let mut key = [0; KEY_BYTES_MAX];
            blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut key);
            batch.put_raw(Tree::Adverts, &key, b"x");
        }
        store.commit(batch).expect("accepted").wait().expect("durable");
    }
    drop(store);
    assert_eq!(sled_blobs(&home), 0);
}

/// sled never syncs these files, so there must be none.
fn sled_blobs(home: &Home) -> usize {
    fs::read_dir(home.file("blobs")).expect("lists").count()
}
