//! Calls between participants as they are asked for.

use std::time::Duration;

/// Calls as they were asked for; `None` is what was not given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RpcDraft {
    /// Who calls, per room.
    pub callers: Option<u32>,
    /// Calls that one of them makes in a second.
    pub rate: Option<f64>,
    /// Bytes of a payload.
    pub bytes: Option<usize>,
    /// How long an answer may take.
    pub timeout: Option<Duration>,
    /// What is called.
    pub method: Option<String>,
    /// Who is called, if not everybody of this run in turn.
    pub to: Option<String>,
}
