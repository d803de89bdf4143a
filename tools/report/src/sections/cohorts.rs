//! The parts of the subscribers, each with figures of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::media::MediaSection;

/// One part of the subscribers: a `[[cohort]]`, those that an `--impair` chose, or the rest. Every
/// subscriber is in one of them only.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CohortFigures {
    /// As in the scenario file; `impair-1` for the first `--impair`, `mobile+impair-1` for those of
    /// `mobile` that it chose, `rest` for all others.
    pub name: String,
    /// What is done to it on purpose in this process; `null` if nothing is.
    pub impair: Option<String>,
    /// What it tells the server of congestion: `--feedback`, or the cohort's own; empty where hosts
    /// whose reports were merged differ, and in reports of versions without the latter.
    pub feedback: String,
    /// Subscribers connected in the measured window.
    pub subscribers: u64,
    /// Video it received; `null` where `video` of the report is.
    pub video: Option<MediaSection>,
    /// Audio it received; `null` where `audio` of the report is.
    pub audio: Option<MediaSection>,
}

impl CohortFigures {
    /// Its kinds of media that are there, with their names.
    pub fn media(&self) -> impl Iterator<Item = (&'static str, &MediaSection)> {
        let kinds = [("video", &self.video), ("audio", &self.audio)];
        kinds.into_iter().filter_map(|(name, section)| Some((name, section.as_ref()?)))
    }
}
