//! What a run means: result, fault, reasons, thresholds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::show::shown;
use crate::unit::unit;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It did what was asked.
    Pass,
    /// A threshold failed, nobody could join, too many joins failed or never ended, nothing was
    /// received or sent, too much was lost, too many tracks stayed silent, the server went away, or
    /// a recording or capture that was asked for is not whole.
    Fail,
    /// The generator was at fault: its figures say nothing about the server.
    Invalid,
    /// A signal ended it: its figures are of a part of what was asked for. Before any other; fault
    /// and reasons are of that part.
    Interrupted,
}

impl Outcome {
    /// As people read it: the first word of every form of a report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Invalid => "INVALID",
            Self::Interrupted => "INTERRUPTED",
        }
    }
}

/// Whose fault what went wrong is (docs/measurement.md, "Fault").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// Nothing went wrong.
    None,
    /// This process or this machine.
    Generator,
    /// Sent by the server, never seen by our kernel.
    Network,
    /// Never sent by the server, or refused by it.
    Server,
    /// Lost on the way to the server.
    Publisher,
    /// Not provable with what is known.
    Unknown,
}

/// The verdict with its reasons in plain words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// How it ended.
    pub result: Outcome,
    /// Whose fault.
    pub fault: Fault,
    /// Why, most important first.
    pub reasons: Vec<String>,
}

/// One comparison of a `--threshold`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ThresholdRow {
    /// As given.
    pub expr: String,
    /// The figure; `null` if there is none, which fails the threshold.
    pub value: Option<f64>,
    /// Whether it held.
    pub ok: bool,
    /// True if crossing it ended the run (`abort`); `value` is then of that moment.
    #[serde(default)]
    pub aborted: bool,
}

impl ThresholdRow {
    /// The key that was compared.
    pub fn key(&self) -> &str {
        self.expr.split(['<', '>', '=', '!']).next().unwrap_or_default()
    }

    /// The figure for people.
    pub fn value_text(&self) -> String {
        let shown = |value| shown(value, unit(self.key()));
        let value = self.value.map_or("no value".to_owned(), shown);
        if self.aborted { format!("{value}; it ended the run") } else { value }
    }
}
