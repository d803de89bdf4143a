//! The parts of the subscribers with what the workers know of each.

use stampede_core::MediaKind;
use stampede_counters::ImpairCounters;
use stampede_engine::{CohortReport, Distributions};
use stampede_report::types::CohortFigures;
use stampede_report::types::{CohortSection, ImpairmentSection};
use stampede_scenario::{Cohort, Cohorts};

use super::media;
use crate::data::RunData;
use crate::viewers::Viewers;

/// The cohorts of a run with what the workers know of each.
pub(super) struct CohortReports {
    cohorts: Cohorts,
    reports: Vec<CohortReport>,
}

impl CohortReports {
    /// Of this run.
    pub(super) fn of(data: &RunData) -> Self {
        let cohorts = data.scenario.cohorts.clone();
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
            .map(|(cohort, report)| outage(cohort) && report.totals.impairment.other_dropped > 0)
            .collect()
    }
}

/// The cohorts of a run: all that the scenario file names, and others that somebody was in; none
/// if there is nothing to tell apart. `kinds` are the kinds of media that the report has, and
/// whether the publishers of each are ours.
pub(super) fn of(
    data: &RunData,
    viewers: &Viewers<'_>,
    parts: &CohortReports,
    kinds: [Option<bool>; 2],
) -> Vec<CohortFigures> {
    let CohortReports { cohorts, reports } = parts;
    if cohorts.is_trivial() {
        return Vec::new();
    }
    let nothing = Distributions::default();
    let named = |name: &str| data.scenario.shape.cohorts.iter().any(|cohort| cohort.name == name);
    let rows = cohorts.all().iter().zip(reports).enumerate();
    let rows = rows.filter_map(|(index, (cohort, report))| {
        let index = index as u16;
        let (subscribers, expected) = data.joins.cohort(index);
        // One whose subscribers all came to nothing has figures too. Publishers are peers of the
        // first one for form's sake.
        let came = subscribers > 0 || (report.peers > 0 && data.joins.is_in(index));
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
            feedback: cohort.feedback.unwrap_or(data.scenario.feedback).to_string(),
            subscribers,
            video: section(MediaKind::Video),
            audio: section(MediaKind::Audio),
        })
    });
    rows.collect()
}

/// What was done on purpose, `all` of it together, by outages of `--fault` too; `None` if nothing was
/// to be, nor was.
pub(super) fn impairment(
    CohortReports { cohorts, reports }: &CohortReports,
    all: ImpairCounters,
) -> Option<ImpairmentSection> {
    let mut section = ImpairmentSection { all, ..ImpairmentSection::default() };
    for cause in cohorts.causes() {
        let mut row = CohortSection {
            name: cause.name.clone(),
            spec: cause.spec.to_string(),
            ..CohortSection::default()
        };
        for (cohort, report) in cohorts.all().iter().zip(reports) {
            if cohort.impair.as_ref().is_some_and(|own| own.name == cause.name) {
                row.peers += report.peers;
                row.injected.merge(&report.totals.impairment);
            }
        }
        section.cohorts.push(row);
    }
    let nothing = all == ImpairCounters::default();
    (!section.cohorts.is_empty() || !nothing).then_some(section)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_scenario::{CohortSize, CohortSpec, Draft, Scenario};

    #[test]
    fn a_cohort_of_the_scenario_file_has_its_row_even_if_nobody_came() {
        let far = CohortSpec::new("far".to_owned(), CohortSize::Count(2));
        let impair = vec!["cohort=5%,loss=1%".parse().unwrap()];
        let draft = Draft { cohorts: vec![far], impair, ..Draft::default() };
        let data = crate::nothing_happened(Scenario::new(draft).unwrap());
        let rows = of(&data, &Viewers::of(&data), &CohortReports::of(&data), [Some(true), None]);
        let [far] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((&*far.name, far.subscribers), ("far", 0));
        assert!(far.audio.is_none());
        let video = far.video.as_ref().unwrap();
        assert_eq!((video.packets.expected, video.latency_ms.is_none()), (0, true));
    }
}
