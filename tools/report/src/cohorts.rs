//! The parts of the subscribers, each with figures of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::merge;
use super::types::MediaSection;

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

/// Cohorts of several hosts: those of one name are one. `together` as for all media.
pub(super) fn merged<'a>(
    hosts: impl Iterator<Item = &'a Vec<CohortFigures>>,
    together: bool,
) -> Vec<CohortFigures> {
    let mut by_name: Vec<Vec<&CohortFigures>> = Vec::new();
    for row in hosts.flatten() {
        match by_name.iter_mut().find(|rows| rows[0].name == row.name) {
            Some(rows) => rows.push(row),
            None => by_name.push(vec![row]),
        }
    }
    let one = |rows: Vec<&CohortFigures>| {
        let section = |part: fn(&CohortFigures) -> Option<&MediaSection>| {
            let sections: Vec<_> = rows.iter().filter_map(|row| part(row)).collect();
            merge::media(&sections, together)
        };
        // Several hosts may do different things to what they call by one name.
        let impair = rows[0].impair.clone();
        CohortFigures {
            name: rows[0].name.clone(),
            impair: impair.filter(|spec| rows.iter().all(|row| row.impair.as_ref() == Some(spec))),
            subscribers: rows.iter().map(|row| row.subscribers).sum(),
            video: section(|row| row.video.as_ref()),
            audio: section(|row| row.audio.as_ref()),
        }
    };
    by_name.into_iter().map(one).collect()
}
