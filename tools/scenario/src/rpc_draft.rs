//! Calls between participants as they are asked for.

use std::time::Duration;

/// Calls as they were asked for, of a run or of a cohort; `None` is what was not given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RpcDraft {
    /// Who calls: per room, or of a cohort over all rooms.
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

impl RpcDraft {
    /// Somebody calls.
    pub(crate) fn calls(&self) -> bool {
        self.callers.is_some_and(|callers| callers > 0)
    }

    /// What is given that says nothing without callers, by its flag.
    pub(crate) fn how(&self) -> Option<&'static str> {
        let given = [
            (self.rate.is_some(), "rpc-rate"),
            (self.bytes.is_some(), "rpc-size"),
            (self.timeout.is_some(), "rpc-timeout"),
            (self.method.is_some(), "rpc-method"),
            (self.to.is_some(), "rpc-to"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, flag)| flag)
    }
}
