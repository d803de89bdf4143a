//! The parts of the subscribers, each with figures of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_core::MediaKind;
use stampede_engine::{CohortReport, Distributions};

use super::build::{injected, media};
use super::merge;
use super::types::{CohortSection, ImpairmentSection, MediaSection};
use super::viewers::Viewers;
use crate::run::{Cohort, Cohorts, RunData};

/// One part of the subscribers: a `[[cohort]]`, those that an `--impair` chose, or the rest. Every
/// subscriber is in one of them only.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct CohortFigures {
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
    pub(crate) fn media(&self) -> impl Iterator<Item = (&'static str, &MediaSection)> {
        let kinds = [("video", &self.video), ("audio", &self.audio)];
        kinds.into_iter().filter_map(|(name, section)| Some((name, section.as_ref()?)))
    }
}

/// The cohorts of a run with what the workers know of each.
pub(super) struct Parts {
    cohorts: Cohorts,
    reports: Vec<CohortReport>,
}

impl Parts {
    /// Of this run.
    pub(super) fn of(data: &RunData) -> Self {
        let cohorts = Cohorts::of(&data.plan, data.seed);
        let mut reports = vec![CohortReport::default(); cohorts.all().len()];
        for worker in data.engine.iter().flat_map(|engine| &engine.workers) {
            for (sum, own) in reports.iter_mut().zip(&worker.cohorts) {
                sum.merge(own);
            }
        }
        Self { cohorts, reports }
    }

    /// What a cohort is called, if there are any.
    pub(super) fn name(&self, cohort: u16) -> Option<String> {
        let all = self.cohorts.all();
        let named = all.get(usize::from(cohort)).filter(|_| !self.cohorts.is_trivial())?;
        Some(named.name.clone())
    }

    /// Of each whether an outage of ours kept everything from it for a while; nothing else that is
    /// done on purpose stops what joins are made of.
    pub(super) fn cut_off(&self) -> Vec<bool> {
        let outage = |cohort: &Cohort| {
            cohort.impair.as_ref().is_some_and(|cause| !cause.spec.outages.is_empty())
        };
        let cohorts = self.cohorts.all().iter().zip(&self.reports);
        cohorts
            .map(|(cohort, report)| outage(cohort) && report.impaired.other_dropped > 0)
            .collect()
    }
}

/// The cohorts of a run: all that the scenario file names, and others that somebody was in; none
/// if there is nothing to tell apart. `kinds` are the kinds of media that the report has, and
/// whether the publishers of each are ours.
pub(super) fn of(
    data: &RunData,
    viewers: &Viewers<'_>,
    parts: &Parts,
    kinds: [Option<bool>; 2],
) -> Vec<CohortFigures> {
    let Parts { cohorts, reports } = parts;
    if cohorts.is_trivial() {
        return Vec::new();
    }
    let nothing = Distributions::default();
    let named = |name: &str| data.plan.shape.cohorts.iter().any(|cohort| cohort.name == name);
    let rows = cohorts.all().iter().zip(reports).enumerate();
    let rows = rows.filter_map(|(index, (cohort, report))| {
        let index = index as u16;
        let (subscribers, expected) = data.book.cohort(index);
        // One whose subscribers all came to nothing has figures too. Publishers are peers of the
        // first one for form's sake.
        let came = subscribers > 0 || (report.peers > 0 && data.book.is_in(index));
        if !came && !named(&cohort.name) {
            return None;
        }
        let distributions = report.distributions.as_deref().unwrap_or(&nothing);
        let section = |kind: MediaKind| {
            let (place, counters) = match kind {
                MediaKind::Video => (0, &report.totals.video),
                MediaKind::Audio => (1, &report.totals.audio),
            };
            let ours = kinds[place]?;
            let expected = expected[place].filter(|_| ours);
            Some(media(data, viewers, kind, Some(index), counters, distributions, expected))
        };
        Some(CohortFigures {
            name: cohort.name.clone(),
            impair: cohort.impair.as_ref().map(|cause| cause.spec.to_string()),
            subscribers,
            video: section(MediaKind::Video),
            audio: section(MediaKind::Audio),
        })
    });
    rows.collect()
}

/// What was done on purpose; `None` if nothing was to be.
pub(super) fn impairment(Parts { cohorts, reports }: &Parts) -> Option<ImpairmentSection> {
    let mut section = ImpairmentSection::default();
    for cause in cohorts.causes() {
        let mut row = CohortSection {
            name: cause.name.clone(),
            spec: cause.spec.to_string(),
            ..CohortSection::default()
        };
        for (cohort, report) in cohorts.all().iter().zip(reports) {
            if cohort.impair.as_ref().is_some_and(|own| own.name == cause.name) {
                row.peers += report.peers;
                row.injected.add(&injected(&report.impaired));
            }
        }
        section.all.add(&row.injected);
        section.cohorts.push(row);
    }
    (!section.cohorts.is_empty()).then_some(section)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Command, Parsed, Plan, parse};

    #[test]
    fn a_cohort_of_the_scenario_file_has_its_row_even_if_nobody_came() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.toml");
        std::fs::write(&path, "[[cohort]]\nname = \"far\"\ncount = 2\n").unwrap();
        let scenario = format!("--scenario={}", path.display());
        let words = ["stampede", "run", &scenario, "--impair=cohort=5%,loss=1%"];
        let Parsed::Command(Command::Run(mut flags)) = parse(words.map(Into::into)).unwrap() else {
            panic!()
        };
        flags.url = None;
        let data = crate::run::test_data(Plan::new(*flags).unwrap());
        let rows = of(&data, &Viewers::of(&data), &Parts::of(&data), [Some(true), None]);
        let [far] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((&*far.name, far.subscribers), ("far", 0));
        assert!(far.audio.is_none());
        let video = far.video.as_ref().unwrap();
        assert_eq!((video.packets.expected, video.latency_ms.is_none()), (0, true));
    }
}
