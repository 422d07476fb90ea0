//! Killing a process that writes, again and again, and reading what it leaves.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::thread;

use comity_store::Store;
use common::writer::{self, check, pair, parse, spawn, spawn_limited, stderr};
use common::{Home, chain};

/// How many acknowledgements each round lets pass before the kill.
const ROUNDS: [usize; 10] = [1, 0, 37, 5, 120, 0, 64, 9, 200, 2];

/// The process that is killed: this test binary, started by the tests below.
#[test]
fn child_process() {
    writer::run_if_child();
}

/// Lets `acks` acknowledgements pass, kills, and returns every acknowledgement that was ever printed.
fn run_and_kill(dir: &Path, acks: usize) -> Vec<(u8, u32)> {
    let mut child = spawn(dir, &[]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut acknowledged = Vec::new();
    while acknowledged.len() < acks {
        let Some(line) = lines.next() else { panic!("the child ended by itself: {}", stderr(&mut child)) };
        acknowledged.extend(parse(&line.expect("text")));
    }
    child.kill().expect("SIGKILL");
    acknowledged.extend(lines.map_while(Result::ok).filter_map(|line| parse(&line)));
    child.wait().expect("reaped");
    acknowledged
}

#[test]
fn killed_while_writing_nothing_acknowledged_is_lost() {
    let home = Home::new();
    let mut acknowledged = Vec::new();
    for acks in ROUNDS {
        acknowledged.extend(run_and_kill(&home.store(), acks));
        let (store, report) = home.open();
        assert_eq!((report.loss, report.repaired_copy), (None, None), "after {acks}");
        check(&store, &acknowledged).unwrap_or_else(|error| panic!("after {acks}: {error}"));
        store.close().expect("closes");
    }
    assert!(acknowledged.len() >= ROUNDS.iter().sum());
}

#[test]
fn killed_while_creating_it_starts_over() {
    for sign in ["lock", "creating", "conf", "db", "head", "payloads"] {
        let home = Home::new();
        let mut child = spawn(&home.store(), &[]);
        while !home.file(sign).exists() {
            assert!(
                child.try_wait().expect("waits").is_none(),
                "ended before {sign}: {}",
                stderr(&mut child)
            );
            thread::yield_now();
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("reaped");
        let opened = Store::open(home.store(), common::options());
        let (store, _) = opened.unwrap_or_else(|error| panic!("killed at {sign}: {}", chain(&error)));
        store.commit(pair(0, 0)).expect("accepted").wait().expect("durable");
    }
}

#[test]
fn a_second_process_is_refused_with_the_pid_of_the_first() {
    let home = Home::new();
    let mut child = spawn(&home.store(), &[]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    while lines.next().is_some_and(|line| !line.expect("text").contains("open")) {}
    let error = Store::open(home.store(), common::options()).expect_err("refused");
    assert!(error.to_string().contains(&format!("pid {}", child.id())), "{error}");
    child.kill().expect("SIGKILL");
    child.wait().expect("reaped");
    home.open();
}

/// A file size limit makes a real write fail: sled, its threads and ours must all come to an end.
#[test]
fn a_real_write_error_ends_the_store_and_loses_nothing() {
    let home = Home::new();
    home.open().0.close().expect("closes");
    let mut child = spawn_limited(&home.store(), 8 << 20);
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let acknowledged: Vec<_> = lines.map_while(Result::ok).filter_map(|line| parse(&line)).collect();
    let status = child.wait().expect("reaped");
    let said = stderr(&mut child);
    assert!(!status.success() && said.contains("Poisoned"), "{status}: {said}");
    assert!(!acknowledged.is_empty(), "{said}");
    let (store, report) = home.open();
    assert_eq!(report.loss, None);
    check(&store, &acknowledged).unwrap_or_else(|error| panic!("{error}"));
}
