//! What Linux tells of a process.

use std::fs;

use serde::Serialize;

/// CPU time is told in hundredths of a second on every Linux that runs Rust.
const TICK_US: u64 = 10_000;

/// The CPU time that a process has used, in user space and in the kernel, in microseconds.
pub(crate) fn cpu_us(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name is in parentheses and may hold anything; utime and stime are the 12th and 13th field after it.
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    ticks.sum::<u64>() * TICK_US
}

/// The memory that a process holds, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// All that is resident: `VmRSS`.
    pub(crate) resident_kib: u64,
    /// What it has written to itself: `RssAnon`.
    pub(crate) anonymous_kib: u64,
    /// Pages of files, above all of the program: `RssFile`. Nodes on one machine share them.
    pub(crate) file_kib: u64,
}

/// The memory that a process holds now.
pub(crate) fn memory(pid: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or_default()
    };
    Memory { resident_kib: kib("VmRSS:"), anonymous_kib: kib("RssAnon:"), file_kib: kib("RssFile:") }
}
