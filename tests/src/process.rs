//! Running programs: to their end with a deadline, or in the background with their output kept.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::wait;

/// How long a program may run before the test fails.
pub const RUN_DEADLINE: Duration = Duration::from_secs(120);

/// Lines of a background program's output that are kept; older ones are forgotten.
pub const LINES_MAX: usize = 50_000;

/// Lines that a failing test shows of each program.
const LINES_SHOWN: usize = 200;

/// How often a program is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be started, or does not end within `deadline`.
pub fn run_within(command: &mut Command, input: &str, deadline: Duration) -> Finished {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let stdout = read_all(child.stdout.take().expect("piped"));
    let stderr = read_all(child.stderr.take().expect("piped"));
    // A program that ends without reading its input is judged by its exit code, not here.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let ended = wait_for_end(&mut child, deadline);
    if ended.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = |reader: JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().expect("the reader does not panic")).into_owned()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    let Some(status) = ended else {
        panic!("{command:?} did not end within {deadline:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    };
    Finished { code: status.code(), stdout, stderr }
}

/// Runs a program to its end, without input, within [`RUN_DEADLINE`].
pub fn run(command: &mut Command) -> Finished {
    run_within(command, "", RUN_DEADLINE)
}

impl Finished {
    /// Standard output, of a program that must have succeeded.
    #[track_caller]
    pub fn success(&self) -> &str {
        assert_eq!(self.code, Some(0), "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        &self.stdout
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

fn wait_for_end(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + deadline;
    loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => return Some(status),
            None if Instant::now() >= end => return None,
            None => thread::sleep(POLL),
        }
    }
}

/// A program that runs in the background. It is killed when this is dropped, on panic too; what it wrote is then shown if
/// the test failed.
#[derive(Debug)]
pub struct Background {
    name: String,
    child: Child,
    /// What it wrote to standard output.
    pub stdout: Lines,
    /// What it wrote to standard error.
    pub stderr: Lines,
}

impl Background {
    /// Starts a program; its standard input stays open until this is dropped.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let stdout = Lines::read(child.stdout.take().expect("piped"));
        let stderr = Lines::read(child.stderr.take().expect("piped"));
        Background { name: name.to_owned(), child, stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes one line to its standard input.
    pub fn write_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("open until dropped");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{} does not read: {error}", self.name));
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        signal(self.pid(), "TERM");
    }

    /// Ends it as a crash would (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        wait::until(&format!("{name} ends"), || self.ended().ok_or("it runs"))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            for (what, lines) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
                eprintln!(
                    "--- {} of {} (last {LINES_SHOWN} lines)\n{}",
                    what,
                    self.name,
                    lines.last(LINES_SHOWN)
                );
            }
        }
    }
}

/// Sends a signal to one process.
///
/// # Panics
/// When there is no such process.
pub fn signal(pid: u32, signal: &str) {
    run(Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string())).success();
}

/// Whether a process exists and is more than an entry that nobody has collected yet.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the program's name, which is in parentheses and may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The processes that a process has started and that still run.
pub fn children_of(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    children.flat_map(|pids| pids.split_whitespace().flat_map(str::parse).collect::<Vec<u32>>()).collect()
}

/// The memory that a process holds, in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("process {pid} is gone")) * 1024
}

/// Lines that arrive from a program.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<VecDeque<String>>>);

impl Lines {
    fn read(from: impl Read + Send + 'static) -> Self {
        let lines = Lines::default();
        let kept = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                kept.push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        lines
    }

    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// All that has arrived and is kept.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The lines that hold `part`.
    pub fn containing(&self, part: &str) -> Vec<String> {
        self.all().into_iter().filter(|line| line.contains(part)).collect()
    }

    /// Waits for a line that holds every one of `parts`.
    pub fn wait_for(&self, parts: &[&str]) -> String {
        wait::until(&format!("a line holds {parts:?}"), || {
            let lines = self.all();
            let found = lines.iter().find(|line| parts.iter().all(|part| line.contains(part)));
            found.cloned().ok_or_else(|| lines.last().cloned())
        })
    }

    fn last(&self, count: usize) -> String {
        let lines = self.all();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}
