//! `comity demo`: a small federation on this machine, played step by step.
//!
//! Three nodes of three orgs run as processes of their own, made by the commands that an operator would type, with keys,
//! stores and MCP servers of their own. The demo plays two parts: the operators, through the command line and the control
//! socket, and an AI client, through MCP over HTTP. Every step checks what really came of it; nothing is told that was
//! not seen.
//!
//! | room | what is there |
//! | --- | --- |
//! | `cast` | who takes part |
//! | `node` | one node: its files and its process |
//! | `stage` | the three nodes together, and the client |
//! | `client` | an MCP client of 2026-07-28 |
//! | `receipt` | receipts, checked as a client can check them |
//! | `step`, `steps` | what a step is, and all of them in order: add a module there and a line to the list |
//! | `teller` | how it is told, to people and to programs |
//! | [`server`] | the MCP servers that the nodes front |

mod cast;
mod client;
mod node;
mod receipt;
pub mod server;
mod stage;
mod step;
mod steps;
mod teller;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use self::stage::{Place, Stage};
use self::step::Fault;
use self::steps::STEPS;
use self::teller::Teller;
use crate::cli::output::Output;

/// How long one step may take before it counts as failed.
const STEP_DEADLINE: Duration = Duration::from_secs(30);

/// What is wanted of the demo.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Leave the federation up after the last step, until a signal comes.
    pub stay: bool,
    /// Leave each node's data directory in this one, under the node's name.
    pub keep: Option<PathBuf>,
}

/// How the demo ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every step held.
    Held,
    /// A step did not hold.
    Failed,
    /// A signal came before the last step.
    Interrupted,
}

/// Why the demo could not begin.
#[derive(Debug, Error)]
pub enum DemoError {
    /// There is no room for the nodes' data.
    #[error("cannot make a directory for the nodes")]
    Place(#[source] io::Error),
    /// Something is where a node's data would go.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The nodes are run by this very program.
    #[error("cannot find this program")]
    Program(#[source] io::Error),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

/// Plays the demo and tells it through `out`. Whatever happens, no node outlives it.
///
/// # Errors
/// [`DemoError`] before the first step; what goes wrong later is told as a step that failed.
pub async fn run(options: &Options, out: Output) -> Result<Ending, DemoError> {
    let mut stop = Stop::new().map_err(DemoError::Signals)?;
    let place = Place::new(options.keep.as_deref())?;
    let mut stage = Stage::new(place)?;
    let teller = Teller::new(out);
    let ending = tokio::select! {
        ending = play(&mut stage, teller) => ending,
        () = stop.come() => Ending::Interrupted,
    };
    if ending == Ending::Held && options.stay {
        teller.staying(&stage);
        stop.come().await;
    }
    stage.close().await;
    teller.ended(ending, options.keep.as_deref());
    Ok(ending)
}

/// Plays every step, up to the first that fails: those after it stand on it.
async fn play(stage: &mut Stage, teller: Teller) -> Ending {
    teller.begins();
    for (at, step) in STEPS.iter().enumerate() {
        teller.step_begins(at, step);
        let began = Instant::now();
        let told =
            timeout(STEP_DEADLINE, (step.run)(stage)).await.unwrap_or(Err(Fault::TooSlow(STEP_DEADLINE)));
        match told {
            Ok(told) => teller.step_held(step, told, began.elapsed()),
            Err(fault) => {
                let logs = stage.last_log_lines(fault.node());
                teller.step_failed(step, &fault, &logs);
                return Ending::Failed;
            }
        }
    }
    Ending::Held
}

/// Ctrl-C, or a polite request to end.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
