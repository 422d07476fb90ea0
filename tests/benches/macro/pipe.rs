//! The server over pipes, called directly.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use crate::load::{Sample, WARM_UP, holds, text};
use crate::upstream;

/// A server that is a child of this program.
#[derive(Debug)]
pub(crate) struct Pipe {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Pipe {
    /// Starts it.
    pub(crate) fn start() -> Self {
        let mut command = upstream::command(&["stdio", "modern", "echo"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("this program can be started");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::with_capacity(1 << 16, child.stdout.take().expect("piped"));
        Pipe { child, input, output }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Calls for `phase`, always with `in_flight` calls. The server answers in order.
    pub(crate) fn run(&mut self, in_flight: usize, bytes: usize, phase: Duration) -> Sample {
        let text = text(0, bytes);
        let line = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{{"text":"{text}"}}}}}}"#
        ) + "\n";
        let begin = Instant::now() + WARM_UP;
        let end = begin + phase;
        let mut sample = Sample { lasted: phase, ..Sample::default() };
        let mut sent: VecDeque<Instant> = (0..in_flight).map(|_| self.send(&line)).collect();
        let mut answer = Vec::new();
        while let Some(at) = sent.pop_front() {
            answer.clear();
            self.output.read_until(b'\n', &mut answer).expect("the server answers");
            assert!(holds(&answer, text.as_bytes()), "not the answer: {}", String::from_utf8_lossy(&answer));
            let answered = Instant::now();
            sample.calls += 1;
            if at >= begin && answered <= end {
                sample.latencies_ns.push(u64::try_from((answered - at).as_nanos()).unwrap_or(u64::MAX));
            }
            if answered < end {
                sent.push_back(self.send(&line));
            }
        }
        sample
    }

    fn send(&mut self, line: &str) -> Instant {
        let at = Instant::now();
        self.input.write_all(line.as_bytes()).expect("the server reads");
        at
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
