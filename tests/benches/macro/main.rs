//! What a hop costs: real nodes on loopback against the same MCP server called directly, in one run.
//!
//! `cargo bench --package comity-tests --bench macro [-- OPTIONS]`
//!
//! | option | what it does |
//! | --- | --- |
//! | `--json` | prints one JSON document instead of tables |
//! | `--rounds N` | how often each arm is measured; the arms take turns |
//! | `--phase-ms N` | how long one measurement of one arm lasts |
//! | `--in-flight A,B` | the numbers of calls in flight |
//! | `--only TEXT` | only the arms whose name holds TEXT, and the direct ones |
//! | `--hold SECONDS` | compares nothing: only keeps each arm named by `--only` under load, for a profiler |
//! | `--text BYTES` | with `--hold`: how long the text of a call is |
//! | `--no-start`, `--no-large` | leaves out starting times, or calls of 1 MiB |
//!
//! Each round measures every arm once, so that what else the machine does falls on all of them. Ratios are made
//! within a round and the median over rounds is told. A call that is not answered as it should be ends the run.

mod arms;
mod load;
mod pipe;
mod proc;
mod report;
mod site;
mod start;
mod upstream;

use std::env;
use std::time::Duration;

use arms::{Arm, Cell};
use report::Report;
use site::Site;

/// What is asked for on the command line.
#[derive(Debug)]
struct Options {
    json: bool,
    rounds: usize,
    phase: Duration,
    in_flight: Vec<usize>,
    only: String,
    start: bool,
    large: bool,
    hold: Option<Duration>,
    text: usize,
}

/// Bytes of text in an ordinary call.
const SMALL_BYTES: usize = 32;

/// Bytes of text in a large call.
const LARGE_BYTES: usize = 1 << 20;

/// Large calls in flight.
const LARGE_IN_FLIGHT: [usize; 2] = [1, 4];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == upstream::ARGUMENT) {
        return upstream::serve(&arguments[1..]);
    }
    // `cargo test --all-targets` runs benchmarks too, to see that they start; this one does nothing then.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return println!("the macro benchmark runs with `cargo bench --bench macro`");
    }
    let options = Options::read(&arguments);
    match options.hold {
        Some(phase) => hold(&options, phase),
        None => measure(&options).print(),
    }
}

impl Options {
    fn read(arguments: &[String]) -> Self {
        let mut options = Options {
            json: false,
            rounds: 7,
            phase: Duration::from_millis(400),
            in_flight: vec![1, 32, 256],
            only: String::new(),
            start: true,
            large: true,
            hold: None,
            text: SMALL_BYTES,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => {}
                "--json" => options.json = true,
                "--rounds" => options.rounds = number(value()),
                "--phase-ms" => options.phase = Duration::from_millis(number(value()) as u64),
                "--in-flight" => options.in_flight = value().split(',').map(number).collect(),
                "--only" => value().clone_into(&mut options.only),
                "--hold" => options.hold = Some(Duration::from_secs(number(value()) as u64)),
                "--text" => options.text = number(value()),
                "--no-start" => options.start = false,
                "--no-large" => options.large = false,
                other => panic!("unknown option {other}: see the head of benches/macro/main.rs"),
            }
        }
        options
    }
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a number"))
}

fn hold(options: &Options, phase: Duration) {
    let site = Site::start();
    for arm in Arm::all(&site).iter_mut().filter(|arm| arm.name.contains(&options.only)) {
        for in_flight in &options.in_flight {
            let cell = measure_cell(&site, arm, 0, *in_flight, options.text, phase);
            println!("{}: {} calls, {in_flight} in flight, {:?}", arm.name, cell.sample.calls, cell.cpu);
        }
    }
}

fn measure(options: &Options) -> Report {
    let starts = options.start.then(start::measure);
    let mut site = Site::start();
    let idle = site.memory_when_settled();
    let mut arms = Arm::all(&site);
    arms.retain(|arm| arm.is_direct() || arm.name.contains(&options.only));
    let mut cells = Vec::new();
    for round in 0..options.rounds {
        eprintln!("[macro] round {} of {}", round + 1, options.rounds);
        for arm in &mut arms {
            for in_flight in &options.in_flight {
                cells.push(measure_cell(&site, arm, round, *in_flight, SMALL_BYTES, options.phase));
            }
            if options.large && arm.carries_large() {
                for in_flight in LARGE_IN_FLIGHT {
                    cells.push(measure_cell(&site, arm, round, in_flight, LARGE_BYTES, options.phase));
                }
            }
        }
    }
    let loaded = site.memory_now();
    Report { json: options.json, starts, idle, loaded, cells }
}

fn measure_cell(
    site: &Site,
    arm: &mut Arm,
    round: usize,
    in_flight: usize,
    bytes: usize,
    phase: Duration,
) -> Cell {
    let before = site.cpu(arm.child());
    let sample = arm.run(in_flight, bytes, phase);
    let cpu = site.cpu(arm.child()).since(&before);
    assert!(sample.latencies_ns.len() > 1, "{} answered nothing in {phase:?}", arm.name);
    Cell { arm: arm.name, baseline: arm.baseline, round, in_flight, bytes, sample, cpu }
}
