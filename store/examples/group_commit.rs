//! How much of the disk's own speed group commit keeps: the store against a bare appending file that syncs the
//! same way, taking turns in one run. Only the ratios mean anything on a shared machine.
//!
//! `cargo run --release -p comity-store --example group_commit [DIR]` (DIR on the disk to be measured).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use comity_store::{Batch, Options, Store, Tree};

/// Bytes of each record.
const RECORD_BYTES: usize = 300;
/// How long each contender writes in a round.
const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    println!("{:>8} {:>12} {:>12} {:>7}", "writers", "raw/s", "store/s", "ratio");
    for writers in [1, 8, 64] {
        let dir = tempfile::tempdir_in(&base)?;
        let (raw, store) = contest(dir.path(), writers)?;
        println!("{writers:>8} {raw:>12.0} {store:>12.0} {:>7.2}", store / raw);
    }
    Ok(())
}

/// Medians of records per second, raw and store, in alternating rounds.
fn contest(dir: &Path, writers: usize) -> Result<(f64, f64), Failure> {
    let file = OpenOptions::new().create(true).append(true).open(dir.join("raw"))?;
    let (store, _) = Store::open(dir.join("store"), Options::new([0; 32], 0))?;
    let (mut raw_rates, mut store_rates) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        raw_rates.push(raw(&file, writers)?);
        store_rates.push(through_store(&store, writers, round)?);
    }
    store.close()?;
    Ok((median(raw_rates), median(store_rates)))
}

/// The same shape as the store: writers hand over records, one thread appends what waits, syncs, and answers.
fn raw(file: &File, writers: usize) -> Result<f64, Failure> {
    let (sender, receiver) = sync_channel::<SyncSender<()>>(1024);
    let file = file.try_clone()?;
    let committer = thread::spawn(move || append(file, &receiver));
    let total = race(writers, |_, _| {
        let (done, answer) = sync_channel(1);
        sender.send(done)?;
        Ok(answer.recv()?)
    })?;
    drop(sender);
    committer.join().map_err(|_| "the appender panicked")??;
    Ok(total)
}

fn append(mut file: File, receiver: &Receiver<SyncSender<()>>) -> io::Result<()> {
    while let Ok(first) = receiver.recv() {
        let waiting: Vec<_> = std::iter::once(first).chain(receiver.try_iter()).collect();
        file.write_all(&vec![7; RECORD_BYTES * waiting.len()])?;
        file.sync_data()?;
        // A writer that gave up waiting is of no interest.
        waiting.into_iter().for_each(|done| done.send(()).unwrap_or_default());
    }
    Ok(())
}

fn through_store(store: &Store, writers: usize, round: usize) -> Result<f64, Failure> {
    race(writers, |writer, number| {
        let mut batch = Batch::new();
        let key = [&[round as u8, writer as u8][..], &number.to_be_bytes()].concat();
        batch.put_raw(Tree::Adverts, &key, &[7; RECORD_BYTES]);
        Ok(store.commit_blocking(batch)?.wait()?)
    })
}

/// Records per second that `writers` threads get through together.
fn race(writers: usize, write: impl Fn(usize, u64) -> Result<(), Failure> + Sync) -> Result<f64, Failure> {
    let start = Instant::now();
    let write = &write;
    let total = thread::scope(|scope| {
        let run = |writer| {
            move || {
                let mut number = 0;
                while start.elapsed() < ROUND {
                    write(writer, number)?;
                    number += 1;
                }
                Ok(number)
            }
        };
        let threads: Vec<_> = (0..writers).map(|writer| scope.spawn(run(writer))).collect();
        let counts = threads.into_iter().map(|thread| thread.join().map_err(|_| "a writer panicked")?);
        counts.sum::<Result<u64, Failure>>()
    })?;
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
