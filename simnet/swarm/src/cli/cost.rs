//! What a run has cost the machine: told on standard error, for it differs from run to run.

/// Clock ticks of `/proc/self/stat` a second: fixed by Linux for programs.
const TICKS_PER_S: u64 = 100;

/// What this process has used.
pub(super) struct Cost {
    cpu_ms: u64,
    peak_kib: u64,
}

impl Cost {
    /// Zero where there is no `/proc`.
    pub(super) fn of_this_process() -> Self {
        Self { cpu_ms: cpu_ms().unwrap_or_default(), peak_kib: peak_kib().unwrap_or_default() }
    }

    pub(super) fn tell(&self, simulated_ms: u64) {
        let per_minute = self.cpu_ms as f64 * 60.0 / simulated_ms.max(1) as f64;
        eprintln!(
            "{:.1} CPU-s, {per_minute:.1} for each simulated minute; at most {} MiB of memory",
            self.cpu_ms as f64 / 1000.0,
            self.peak_kib / 1024
        );
    }
}

/// See proc_pid_stat(5): fields 14 and 15, counted behind the command in parentheses.
fn cpu_ms() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) * 1000 / TICKS_PER_S)
}

fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
