//! Recordings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_counters::RecordingCounters;

/// Recordings.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RecordingSection {
    /// The folder.
    pub dir: String,
    /// Files finished.
    pub files: Vec<String>,
    /// What was written.
    #[serde(flatten)]
    pub counted: RecordingCounters,
    /// What went wrong, in plain words.
    pub errors: Vec<String>,
}
