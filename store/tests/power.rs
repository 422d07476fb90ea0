//! Cutting the power: a child's writes and syncs are recorded, and from the recording disks are built as a cut at
//! any moment may leave them. Each must open and hold what was acknowledged before the cut.

mod common;
#[path = "power/replay.rs"]
mod replay;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use comity_store::{OpenReport, Store};
use common::writer::{self, check, parse, spawn, stderr};
use common::{chain, options};
use replay::{Disk, Event, read_log};
use tempfile::TempDir;

/// Disks built from each recording. Set COMITY_POWER_CUTS for more.
const CUTS: u64 = 40;
const ACKS: usize = 150;

/// The process that is recorded: this test binary, started by the tests below.
#[test]
fn child_process() {
    writer::run_if_child();
}

#[test]
fn a_cut_at_any_moment_loses_nothing_acknowledged() {
    let lab = Lab::new();
    let fresh = lab.record("fresh");
    lab.cut_many(&fresh, 1);
    // What the first run left is the beginning of a second, which recovers and writes a snapshot.
    let again = lab.record("again");
    lab.cut_many(&again, 2);
}

/// The test of this test: with the recorded syncs left out, losses must show.
#[test]
fn without_its_syncs_the_same_recording_loses() {
    let lab = Lab::new();
    let mut recording = lab.record("fresh");
    let first_ack = recording.events.iter().position(is_ack).expect("something was acknowledged");
    let mut index = 0;
    recording.events.retain(|event| {
        index += 1;
        index < first_ack || !matches!(event, Event::Sync(_))
    });
    let lost = (0..CUTS).filter(|seed| lab.cut(&recording, *seed).is_err()).count();
    assert!(lost > 0, "no loss was noticed in {CUTS} cuts");
}

struct Lab {
    dir: TempDir,
    recorder: PathBuf,
}

struct Recording {
    /// The disk before the first event, as seen by the child.
    before: PathBuf,
    events: Vec<Event>,
}

impl Lab {
    fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("disk")).expect("creates");
        let recorder = dir.path().join("recorder.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/recorder.c");
        let compiled =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&recorder).arg(source).status();
        assert!(compiled.expect("cc, which links Rust too, is there").success());
        Self { dir, recorder }
    }

    /// Where the child's store lives.
    fn disk(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Runs a child until it has acknowledged enough, kills it, and returns what it did.
    fn record(&self, name: &str) -> Recording {
        let before = self.dir.path().join(format!("{name}-before"));
        copy(&self.disk(), &before);
        let (disk, log) = (self.disk(), self.dir.path().join(format!("{name}.log")));
        let environment: [(&str, &OsStr); 3] = [
            ("LD_PRELOAD", self.recorder.as_os_str()),
            ("COMITY_RECORD_ROOT", disk.as_os_str()),
            ("COMITY_RECORD_LOG", log.as_os_str()),
        ];
        let mut child = spawn(&disk.join("store"), &environment);
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let acks = lines.map_while(Result::ok).filter_map(|line| parse(&line)).take(ACKS).count();
        child.kill().expect("SIGKILL");
        child.wait().expect("reaped");
        assert_eq!(acks, ACKS, "{}", stderr(&mut child));
        let events = read_log(&log);
        // The kill may come between the last line and its entry.
        assert!(events.iter().filter(|event| is_ack(event)).count() >= ACKS - 1);
        Recording { before, events }
    }

    fn cut_many(&self, recording: &Recording, salt: u64) {
        let cuts = std::env::var("COMITY_POWER_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(CUTS);
        for seed in 0..cuts {
            let seed = seed * 1000 + salt;
            self.cut(recording, seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }

    /// Cuts at a moment of the seed's choosing and opens what is left.
    fn cut(&self, recording: &Recording, seed: u64) -> Result<(), String> {
        let mut random = Random(seed);
        let moment = random.below(recording.events.len() + 1);
        // From "nothing that was not synced" to "nearly everything".
        let survival = [0, 50, 90, 99][random.below(4)];
        let image = tempfile::tempdir_in(self.dir.path()).expect("a temporary directory");
        let mut disk = self.disk_before(recording);
        recording.events[..moment].iter().for_each(|event| disk.run(event));
        disk.cut(&self.disk(), image.path(), || random.below(100) < survival);

        let opened = Store::open(image.path().join("store"), options());
        let (store, report) = opened.map_err(|error| format!("at {moment}: {}", chain(&error)))?;
        let acknowledged = acknowledged(&recording.events[..moment]);
        let allowed = OpenReport {
            created: report.created && acknowledged.is_empty(),
            creation_restarted: report.creation_restarted && acknowledged.is_empty(),
            snapshots_removed: report.snapshots_removed,
            ..OpenReport::default()
        };
        if report != allowed {
            return Err(format!("at {moment}: {report:?}"));
        }
        check(&store, &acknowledged).map_err(|error| format!("at {moment}: {error}"))
    }

    /// The disk as it was, under the names that the child knew.
    fn disk_before(&self, recording: &Recording) -> Disk {
        Disk::of(&recording.before, &self.disk())
    }
}

fn is_ack(event: &Event) -> bool {
    matches!(event, Event::Said(text) if parse(text.trim_end()).is_some())
}

fn acknowledged(events: &[Event]) -> Vec<(u8, u32)> {
    let said =
        events.iter().filter_map(|event| if let Event::Said(text) = event { Some(text) } else { None });
    said.flat_map(|text| text.lines()).filter_map(parse).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("creates");
    for entry in std::fs::read_dir(from).expect("lists") {
        let path = entry.expect("entry").path();
        let target = to.join(path.file_name().expect("named"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, target).expect("copies");
        }
    }
}

/// splitmix64: the same cuts for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
