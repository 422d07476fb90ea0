//! How a command ends, and what it says when it did not work.

use std::error::Error;
use std::process::ExitCode;

use serde::Serialize;

use crate::config::ConfigError;
use crate::config::edit::EditError;
use crate::config::fault::Fault;
use crate::control::{ClientError, ControlFault, FaultKind};
use crate::exchange::DenialReason;
use crate::identity::{DataDirError, KeyError};
use crate::org::OrgError;
use crate::telemetry::Chain;

/// The process's exit codes. Stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It is done.
    Done,
    /// It failed; for `call`, the tool itself reported an error.
    Failed,
    /// Nobody may lawfully do it.
    Denied,
    /// It waits in the outbox.
    Queued,
    /// No node can be reached.
    Unreachable,
    /// Wrong usage or configuration.
    Usage,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Denied => 2,
            Exit::Queued => 3,
            Exit::Unreachable => 4,
            Exit::Usage => 64,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Why a command did not work, and what to do about it.
#[derive(Debug, Serialize)]
pub struct CliError {
    /// How the process ends.
    #[serde(skip)]
    pub exit: Exit,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Every candidate's reason, for a denial.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<DenialReason>,
    /// Every fault of the configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

impl CliError {
    /// An error that ends the process with `exit`.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        CliError { exit, message: message.into(), next: None, reasons: Vec::new(), faults: Vec::new() }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        CliError::new(Exit::Usage, message)
    }

    /// An error with all its causes.
    pub fn of(exit: Exit, error: &dyn Error) -> Self {
        CliError::new(exit, Chain(error).to_string())
    }

    /// Says what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Faults(faults) => {
                let count = faults.list.len() + faults.omitted;
                let message = match count {
                    1 => "the configuration has a fault".to_owned(),
                    count => format!("the configuration has {count} faults"),
                };
                CliError { faults: faults.list, ..CliError::usage(message) }
                    .next("mend them, then run: comity config check")
            }
            ConfigError::Read(_) => CliError::of(Exit::Usage, &error).next("make one with: comity init"),
            ConfigError::NotText(_) => CliError::of(Exit::Usage, &error).next("save the file as UTF-8"),
        }
    }
}

impl From<EditError> for CliError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Invalid(error) => CliError::from(*error),
            EditError::Read(_) => CliError::of(Exit::Usage, &error).next("make one with: comity init"),
            EditError::NoServer(..) => CliError::of(Exit::Usage, &error).next("see: comity servers list"),
            EditError::NoOrg(_) => CliError::of(Exit::Usage, &error).next("see: comity trust list"),
            EditError::Lock { .. } | EditError::Write(_) => CliError::of(Exit::Failed, &error),
            _ => CliError::of(Exit::Usage, &error),
        }
    }
}

impl From<DataDirError> for CliError {
    fn from(error: DataDirError) -> Self {
        CliError::of(Exit::Usage, &error)
    }
}

impl From<KeyError> for CliError {
    fn from(error: KeyError) -> Self {
        let next = matches!(error, KeyError::Read(_)).then(|| "make one with: comity init".to_owned());
        CliError { next, ..CliError::of(Exit::Usage, &error) }
    }
}

impl From<OrgError> for CliError {
    fn from(error: OrgError) -> Self {
        match error {
            OrgError::Key(error) => error.into(),
            error => CliError::of(Exit::Failed, &error),
        }
    }
}

impl From<ControlFault> for CliError {
    fn from(fault: ControlFault) -> Self {
        let exit = match fault.kind {
            FaultKind::Usage | FaultKind::NotFound => Exit::Usage,
            FaultKind::Denied => Exit::Denied,
            FaultKind::Unreachable => Exit::Unreachable,
            FaultKind::Busy | FaultKind::Failed => Exit::Failed,
        };
        CliError { next: fault.next, reasons: fault.reasons, ..CliError::new(exit, fault.message) }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Fault(fault) => fault.into(),
            ClientError::NotRunning(_) => {
                CliError::of(Exit::Unreachable, &error).next("start it with: comity up")
            }
            error => {
                CliError::of(Exit::Unreachable, &error).next("see the node's log, or run: comity doctor")
            }
        }
    }
}
