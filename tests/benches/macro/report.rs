//! The figures: made from the measurements, printed as tables or as JSON.

use serde_json::{Value, json};

use crate::arms::Cell;
use crate::proc::Memory;
use crate::site::Memories;
use crate::start::{Start, Starts};

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) json: bool,
    pub(crate) starts: Option<Starts>,
    pub(crate) idle: Memories,
    pub(crate) loaded: Memories,
    pub(crate) cells: Vec<Cell>,
}

/// One line of the main table: an arm at a number of calls in flight with a size of text, over all rounds.
#[derive(Debug)]
struct Line {
    arm: &'static str,
    in_flight: usize,
    bytes: usize,
    /// Median over rounds.
    calls_per_s: f64,
    /// Median over rounds of this arm's calls per second by its baseline's of the same round.
    of_direct: f64,
    /// Over the calls of all rounds.
    p50_us: f64,
    p99_us: f64,
    /// Median over rounds of the difference to the baseline of the same round.
    added_p50_us: f64,
    added_p99_us: f64,
    /// CPU time by call, over all rounds.
    client_us: f64,
    a_us: f64,
    b_us: f64,
    server_us: f64,
}

impl Report {
    /// Prints it.
    pub(crate) fn print(&self) {
        let lines = self.lines();
        if self.json {
            return println!("{}", self.to_json(&lines));
        }
        println!(
            "| way | text | in flight | calls/s | of direct | p50 µs | p99 µs | added p50 µs | added p99 µs | CPU µs a call: client | node A | node B | server |"
        );
        println!(
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
        );
        for line in &lines {
            println!("{}", line.to_markdown());
        }
        println!("\n| memory, MiB | resident | anonymous | of files |\n| --- | ---: | ---: | ---: |");
        let memories = [("idle", self.idle), ("after load", self.loaded)];
        for (when, memories) in memories {
            print_memory(&format!("node A {when}"), memories.a);
            print_memory(&format!("node B {when}"), memories.b);
        }
        if let Some(starts) = &self.starts {
            print_starts(starts);
        }
    }

    fn lines(&self) -> Vec<Line> {
        let mut seen = Vec::new();
        for cell in &self.cells {
            let key = (cell.arm, cell.in_flight, cell.bytes);
            if !seen.contains(&key) {
                seen.push(key);
            }
        }
        // Ordinary calls first, then by arms in their order, so that what belongs together stands together.
        seen.sort_by_key(|(_, in_flight, bytes)| (*bytes, *in_flight));
        seen.into_iter().map(|(arm, in_flight, bytes)| self.line(arm, in_flight, bytes)).collect()
    }

    fn line(&self, arm: &'static str, in_flight: usize, bytes: usize) -> Line {
        let same = |cell: &&Cell| cell.in_flight == in_flight && cell.bytes == bytes;
        let own: Vec<&Cell> = self.cells.iter().filter(same).filter(|cell| cell.arm == arm).collect();
        let direct = |cell: &Cell| {
            let mut others = self.cells.iter().filter(same).filter(|other| other.arm == cell.baseline);
            others.find(|other| other.round == cell.round).expect("the direct arms are always measured")
        };
        let over_rounds = |figure: &dyn Fn(&Cell, &Cell) -> f64| {
            median(own.iter().map(|cell| figure(cell, direct(cell))).collect())
        };
        let mut all: Vec<u64> =
            own.iter().flat_map(|cell| cell.sample.latencies_ns.iter().copied()).collect();
        all.sort_unstable();
        let calls: usize = own.iter().map(|cell| cell.sample.calls).sum();
        let by_call = |used: &dyn Fn(&Cell) -> u64| {
            own.iter().map(|cell| used(cell)).sum::<u64>() as f64 / calls as f64
        };
        Line {
            arm,
            in_flight,
            bytes,
            calls_per_s: over_rounds(&|cell, _| rate(cell)),
            of_direct: over_rounds(&|cell, direct| rate(cell) / rate(direct)),
            p50_us: quantile(&all, 0.5),
            p99_us: quantile(&all, 0.99),
            added_p50_us: over_rounds(&|cell, direct| latency(cell, 0.5) - latency(direct, 0.5)),
            added_p99_us: over_rounds(&|cell, direct| latency(cell, 0.99) - latency(direct, 0.99)),
            client_us: by_call(&|cell| cell.cpu.client_us),
            a_us: by_call(&|cell| cell.cpu.a_us),
            b_us: by_call(&|cell| cell.cpu.b_us),
            server_us: by_call(&|cell| cell.cpu.server_us),
        }
    }

    fn to_json(&self, lines: &[Line]) -> Value {
        json!({
            "calls": lines.iter().map(Line::to_json).collect::<Vec<_>>(),
            "memory": { "idle": self.idle, "loaded": self.loaded },
            "starts": self.starts,
        })
    }
}

impl Line {
    fn to_markdown(&self) -> String {
        format!(
            "| {} | {} B | {} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            self.arm,
            self.bytes,
            self.in_flight,
            self.calls_per_s,
            self.of_direct,
            self.p50_us,
            self.p99_us,
            self.added_p50_us,
            self.added_p99_us,
            self.client_us,
            self.a_us,
            self.b_us,
            self.server_us,
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "way": self.arm, "in_flight": self.in_flight, "text_bytes": self.bytes,
            "calls_per_s": self.calls_per_s, "of_direct": self.of_direct,
            "p50_us": self.p50_us, "p99_us": self.p99_us,
            "added_p50_us": self.added_p50_us, "added_p99_us": self.added_p99_us,
            "cpu_us": { "client": self.client_us, "a": self.a_us, "b": self.b_us, "server": self.server_us },
        })
    }
}

fn print_memory(what: &str, memory: Memory) {
    let mib = |kib: u64| kib as f64 / 1024.0;
    let Memory { resident_kib, anonymous_kib, file_kib } = memory;
    println!("| {what} | {:.1} | {:.1} | {:.1} |", mib(resident_kib), mib(anonymous_kib), mib(file_kib));
}

fn print_starts(starts: &Starts) {
    let of = |figure: fn(&Start) -> f64| starts.again.iter().map(figure).collect::<Vec<_>>();
    let (answered, complete) = (of(|start| start.answered_ms), of(|start| start.complete_ms));
    let worst = |figures: &[f64]| figures.iter().copied().fold(0.0, f64::max);
    println!("\n| from exec, ms | tools/list answered | with the server's tool |\n| --- | ---: | ---: |");
    println!("| first start | {:.0} | {:.0} |", starts.first.answered_ms, starts.first.complete_ms);
    println!("| later starts, worst | {:.0} | {:.0} |", worst(&answered), worst(&complete));
    println!("| later starts, median | {:.0} | {:.0} |", median(answered), median(complete));
}

fn rate(cell: &Cell) -> f64 {
    cell.sample.latencies_ns.len() as f64 / cell.sample.lasted.as_secs_f64()
}

fn latency(cell: &Cell, quantile_of: f64) -> f64 {
    let mut sorted = cell.sample.latencies_ns.clone();
    sorted.sort_unstable();
    quantile(&sorted, quantile_of)
}

/// In microseconds, of sorted nanoseconds.
fn quantile(sorted_ns: &[u64], quantile: f64) -> f64 {
    let at = ((sorted_ns.len() - 1) as f64 * quantile).round() as usize;
    sorted_ns[at] as f64 / 1000.0
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 { figures[middle] } else { (figures[middle - 1] + figures[middle]) / 2.0 }
}
