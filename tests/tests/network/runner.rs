//! Runs the scenarios that are asked for, some at a time, and says how each went.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use comity_tests::cut::Backend;

use crate::scenarios::{SCENARIOS, Scenario};

/// Scenarios at once. They mostly wait.
const THREADS: usize = 4;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Wish {
    scenarios: Vec<&'static Scenario>,
    list: bool,
    repeat: usize,
    threads: usize,
}

impl Wish {
    /// Reads the arguments. Those of Rust's test harness that mean nothing here are taken and ignored, so that `cargo test`
    /// may pass the same to every test program.
    pub(crate) fn of_arguments() -> Self {
        let (mut filters, mut list, mut exact) = (Vec::new(), false, false);
        let (mut repeat, mut threads) = (1, THREADS);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().and_then(|text| text.parse().ok()).filter(|n| *n > 0);
            match argument.as_str() {
                "--list" => list = true,
                "--exact" => exact = true,
                "--repeat" => repeat = number().expect("--repeat N"),
                "--test-threads" => threads = number().expect("--test-threads N"),
                "--skip" | "--format" | "--color" | "--logfile" => drop(arguments.next()),
                option if option.starts_with('-') => {}
                _ => filters.push(argument),
            }
        }
        let wanted = |scenario: &&Scenario| {
            let fits = |filter: &String| {
                if exact { scenario.name == filter } else { scenario.name.contains(filter.as_str()) }
            };
            filters.is_empty() || filters.iter().any(fits)
        };
        Wish { scenarios: SCENARIOS.iter().filter(wanted).collect(), list, repeat, threads }
    }

    /// Whether nothing is to be run: the list, which is printed, was all, or no scenario is meant.
    pub(crate) fn is_settled(&self) -> bool {
        if self.list {
            self.scenarios.iter().for_each(|scenario| println!("{}: test", scenario.name));
        }
        self.list || self.scenarios.is_empty()
    }
}

/// Runs what is asked for.
pub(crate) fn run(wish: &Wish, backend: Backend) -> ExitCode {
    let runs: Vec<&Scenario> = (0..wish.repeat).flat_map(|_| wish.scenarios.iter().copied()).collect();
    println!("running {} scenarios", runs.len());
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..wish.threads.min(runs.len()) {
            scope.spawn(|| {
                while let Some(scenario) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !passes(scenario, backend) {
                        failed.lock().expect("no scenario panics here").push(scenario.name);
                        // What failed once is looked at before it is run again.
                        next.store(runs.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no scenario panics here");
    if failed.is_empty() {
        println!("result: all scenarios hold");
        return ExitCode::SUCCESS;
    }
    println!("result: FAILED: {}", failed.join(", "));
    ExitCode::FAILURE
}

fn passes(scenario: &'static Scenario, backend: Backend) -> bool {
    let began = Instant::now();
    // A thread of its own: its name is in the message of its panic, and what it started is killed when it ends.
    let thread = thread::Builder::new().name(scenario.name.to_owned());
    let ended = thread.spawn(move || (scenario.run)(backend)).expect("a thread can be started").join();
    let took = Duration::from_millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    match &ended {
        Ok(report) => println!("{} ... ok ({took:?}): {report}", scenario.name),
        Err(_) => println!("{} ... FAILED ({took:?})", scenario.name),
    }
    ended.is_ok()
}
