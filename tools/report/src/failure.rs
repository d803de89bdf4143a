//! How a command ends: exit codes (docs/reports.md) and one-line failures.

use std::fmt;
use std::process::ExitCode;

use stampede_output::one_line;

/// Exit codes scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The run passed.
    Pass,
    /// Anything that has no code of its own: nobody joined, nothing was received, a crash of the
    /// embedded SFU.
    Failure,
    /// A threshold failed, or a `--fail-if` of `compare` holds.
    Threshold,
    /// The run is invalid: the generator was at fault.
    Invalid,
    /// Bad flag, file, key, URL, or a machine that can't carry what was asked.
    BadConfiguration,
    /// Ended by a signal; a full report was still written.
    Interrupted,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Failure => 1,
            Self::Threshold => 99,
            Self::Invalid => 98,
            Self::BadConfiguration => 104,
            Self::Interrupted => 105,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command ended before it had a result: one line for people, a code for scripts.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What, which value, why, what to do; never a secret.
    message: String,
}

impl Failure {
    /// Something the user can put right before trying again.
    pub fn config(message: impl fmt::Display) -> Self {
        Self { exit: Exit::BadConfiguration, message: one_line(&message.to_string()) }
    }

    /// Anything else.
    pub fn other(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Failure, message: one_line(&message.to_string()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
