//! One report of all hosts, of those that were lost as far as they had come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stampede_hosts::clock::Estimate;
use stampede_hosts::coordinator::Coordinator;
use stampede_hosts::messages::Growth;
use stampede_hosts::split::quotas;
use stampede_report::Failure;
use stampede_report::merge::merge;
use stampede_report::threshold::{self, Crossed, Threshold};
use stampede_report::types::{
    ClockSection, Fault, Machine, Outcome, Report, RunSection, SeriesRow, TargetSection, Verdict,
};
use stampede_run::{LiveDistributions, Progress, report_so_far};

use crate::flags::OnLostHost;

/// Most rows of a host that are kept for the case that it is lost: a day of seconds.
const ROWS_MAX: usize = 86_400;

/// What a host has told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Its latest state.
    pub progress: Option<Progress>,
    /// Its distributions so far, until its report is there.
    distributions: LiveDistributions,
    /// Its seconds, until then.
    rows: Vec<SeriesRow>,
    /// Its report.
    report: Option<Report>,
}

impl Told {
    /// Takes the next state, with what its distributions have grown by.
    ///
    /// # Errors
    /// What of it can't be read.
    pub(super) fn take(
        &mut self,
        progress: &str,
        grown: &BTreeMap<String, Growth>,
    ) -> Result<(), String> {
        let progress: Progress =
            serde_json::from_str(progress).map_err(|error| error.to_string())?;
        if self.report.is_some() {
            // It came later than the report, which has the rest.
            self.progress = Some(progress);
            return Ok(());
        }
        self.distributions.take(grown)?;
        let second = &progress.second;
        let newer = self.rows.last().is_none_or(|last| last.t_s < second.t_s);
        if newer && second.t_s > 0.0 && self.rows.len() < ROWS_MAX {
            self.rows.push(second.clone());
        }
        self.progress = Some(progress);
        Ok(())
    }

    /// Takes its report, which has everything that it told before.
    pub(super) fn report(&mut self, report: Report) {
        self.report = Some(report);
        self.distributions = LiveDistributions::default();
        self.rows = Vec::new();
    }
}

/// What the hosts' runs have in common.
pub(super) struct Common {
    /// Name of the run.
    pub run_id: String,
    /// When it started, by the coordinator's clock.
    pub started_at: std::time::SystemTime,
    /// Where it joined.
    pub url: Option<String>,
    /// All its participants.
    pub participants: usize,
    /// Subscribers come and go in stages.
    pub staged: bool,
    /// What it has to keep.
    pub thresholds: Vec<Threshold>,
    /// What ended it.
    pub crossed: Option<Crossed>,
    /// The hosts are to come back for another run.
    pub again: bool,
    /// What becomes of it where a host is lost.
    pub on_lost: OnLostHost,
}

/// One report of all.
///
/// # Errors
/// There is none of any host, or they can't be merged.
pub(super) fn report(
    coordinator: &Coordinator,
    mut told: Vec<Told>,
    common: &Common,
) -> Result<Report, Failure> {
    let own = quotas(common.participants, coordinator.weights());
    let anybody = told.iter().any(|one| one.report.is_some());
    let (mut reports, mut hosts) = (Vec::new(), Vec::new());
    for (index, host) in coordinator.sharing() {
        let number = host.number.unwrap_or(0) as usize;
        let mut one = told.get_mut(index).map(std::mem::take).unwrap_or_default();
        let lost = host.lost().map(str::to_owned);
        let report = match one.report.take() {
            Some(report) => report,
            None => {
                let why = lost.clone().unwrap_or_else(|| "it left no report".to_owned());
                let participants = own.get(number).copied().unwrap_or(0);
                let policy = if anybody { common.on_lost } else { OnLostHost::Invalid };
                let lost = Lost { name: &host.name, number, participants, why: &why, policy };
                lost_host(&lost, one, common)
            }
        };
        hosts.push((lost, host.clock));
        reports.push(report);
    }
    let mut merged = merge(&reports)?;
    merged.run.id.clone_from(&common.run_id);
    for (section, (lost, clock)) in merged.run.hosts.iter_mut().flatten().zip(hosts) {
        (section.lost, section.clock) = (lost, clock.map(section_of));
    }
    threshold::apply(&mut merged, &common.thresholds, common.crossed.as_ref());
    Ok(merged)
}

fn section_of(clock: Estimate) -> ClockSection {
    let ms = |ns: f64| (ns / 1e3).round() / 1e3;
    ClockSection { offset_ms: ms(clock.offset_ns as f64), bound_ms: ms(clock.bound_ns as f64) }
}

/// A host that made no report.
struct Lost<'a> {
    name: &'a str,
    number: usize,
    participants: usize,
    why: &'a str,
    policy: OnLostHost,
}

fn lost_host(lost: &Lost<'_>, told: Told, common: &Common) -> Report {
    let Lost { name, number, participants, why, policy } = lost;
    let Told { progress, distributions, rows, .. } = told;
    let mut progress = progress.unwrap_or_else(|| {
        let mut nothing = Progress::default();
        let joins = &mut nothing.joins.counted;
        (joins.requested, joins.not_started) = (*participants as u64, *participants as u64);
        nothing
    });
    progress.distributions = Arc::new(distributions);
    let known = match rows.last() {
        Some(row) => format!("its last snapshot, {:.0} s into the run, is in the sums", row.t_s),
        None => "it had told nothing of its part".to_owned(),
    };
    let reason = format!("the host was lost with its {participants} participants: {why}; {known}");
    let (result, fault) = match policy {
        OnLostHost::Invalid => (Outcome::Invalid, Fault::Generator),
        OnLostHost::Continue => (Outcome::Pass, Fault::None),
    };
    let duration: Duration = progress.elapsed;
    let run = RunSection {
        id: format!("{}-{}", common.run_id, number + 1),
        started_at: humantime::format_rfc3339_millis(common.started_at).to_string(),
        duration_s: (duration.as_secs_f64() * 1e3).round() / 1e3,
        measured_s: None,
        interrupted: false,
        target: TargetSection { url: common.url.clone(), embedded: false, server_version: None },
        options: None,
        seed: None,
        machine: Some(Machine { hostname: Some((*name).to_owned()), ..Machine::default() }),
        stampede_version: env!("CARGO_PKG_VERSION").to_owned(),
        hosts: None,
        // It may not have come to the end of the first.
        stages: common.staged.then(|| progress.stages.clone()),
    };
    let verdict = Verdict { result, fault, reasons: vec![reason] };
    report_so_far(run, verdict, &progress, rows)
}

#[cfg(test)]
mod tests {
    use stampede_hosts::coordinator::{Options, Plan};
    use stampede_hosts::messages::{Point, Share};
    use stampede_report::hist::{Samples, encode};
    use stampede_report::types::StageRow;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// Two hosts that run, of which the second is lost.
    fn coordinator() -> Coordinator {
        let share = Share {
            words: Vec::new(),
            scenario: None,
            run_id: "ab".to_owned(),
            number: 0,
            weights: Vec::new(),
        };
        let options = Options { hosts: 2, hosts_min: 2, gather: S, participants: 11 };
        let mut two = Coordinator::new(options, Plan { share }, Duration::ZERO);
        for name in ["a", "b"] {
            let host = two.admit(Duration::ZERO, name, None).unwrap();
            assert!(host < 2);
        }
        two.advance(Duration::ZERO, 0);
        for host in 0..2 {
            two.ready(host, Estimate { offset_ns: 1_500_000, bound_ns: 20_000 });
            two.arrived(host, Point::Start);
        }
        two.advance(Duration::ZERO, 0);
        two.gone(1, "connection reset");
        two.reporting(0, S, Estimate { offset_ns: 1_500_000, bound_ns: 20_000 });
        two.reported(0);
        two
    }

    fn common(on_lost: OnLostHost) -> Common {
        Common {
            run_id: "ab".to_owned(),
            started_at: std::time::UNIX_EPOCH,
            url: None,
            participants: 11,
            staged: false,
            thresholds: Vec::new(),
            crossed: None,
            again: false,
            on_lost,
        }
    }

    /// So many pings of 3 ms, as a host tells them.
    fn grown(pings: u64) -> BTreeMap<String, Growth> {
        let mut rtt = Samples::new();
        rtt.record_micros(3_000, pings);
        let hdr = encode(rtt.histogram()).unwrap();
        [("ping_rtt".to_owned(), Growth { anew: false, hdr })].into()
    }

    fn told(second: Option<Progress>) -> Vec<Told> {
        let mut report = stampede_report::testing::report();
        report.verdict = Verdict { result: Outcome::Pass, fault: Fault::None, reasons: Vec::new() };
        let first = Told { report: Some(report), ..Told::default() };
        let mut lost = Told::default();
        if let Some(progress) = second {
            let json = serde_json::to_string(&progress).unwrap();
            lost.take(&json, &grown(4)).unwrap();
            lost.take(&json, &grown(5)).unwrap();
        }
        vec![first, lost]
    }

    #[test]
    fn a_lost_host_makes_the_run_invalid_and_its_last_snapshot_counts() {
        let mut progress = Progress::default();
        progress.joins.counted.requested = 5;
        progress.counters.video.packets.expected = 700;
        progress.second.t_s = 7.0;
        let two = coordinator();
        let merged = report(&two, told(Some(progress)), &common(OnLostHost::Invalid)).unwrap();
        assert_eq!(merged.verdict.result, Outcome::Invalid);
        let reason = merged.verdict.reasons.join("\n");
        for needs in ["b: ", "its 5 participants", "connection reset", "7 s into the run"] {
            assert!(reason.contains(needs), "{reason}");
        }
        let one = stampede_report::testing::report();
        let expected = |report: &Report| report.video.as_ref().unwrap().packets.expected;
        assert_eq!(expected(&merged), expected(&one) + 700);
        let pings =
            |report: &Report| report.signalling.ping_rtt_ms.as_ref().map_or(0, |hist| hist.count);
        assert_eq!(pings(&merged), pings(&one) + 9);
        let hosts = merged.run.hosts.unwrap();
        assert_eq!(hosts[1].lost.as_deref(), Some("connection reset"));
        assert_eq!((hosts[0].lost.as_ref(), hosts[0].clock.unwrap().offset_ms), (None, 1.5));
        assert_eq!(hosts[0].clock.unwrap().bound_ms, 0.02);
    }

    #[test]
    fn a_host_lost_in_the_first_stage_leaves_the_run_its_stages() {
        let mut hosts = told(Some(Progress::default()));
        let report_of_one = hosts[0].report.as_mut().unwrap();
        report_of_one.run.stages = Some(vec![StageRow::default()]);
        let staged = Common { staged: true, ..common(OnLostHost::Continue) };
        let merged = report(&coordinator(), hosts, &staged).unwrap();
        assert_eq!(merged.run.stages, Some(Vec::new()), "as far as all came");
    }

    #[test]
    fn what_comes_after_the_report_is_not_kept_twice() {
        let mut progress = Progress::default();
        progress.second.t_s = 7.0;
        let mut host = told(Some(progress.clone())).remove(1);
        assert_eq!(host.rows.len(), 1);
        host.report(stampede_report::testing::report());
        progress.second.t_s = 8.0;
        host.take(&serde_json::to_string(&progress).unwrap(), &grown(4)).unwrap();
        assert_eq!(host.progress.unwrap().second.t_s, 8.0);
        assert!(host.rows.is_empty() && host.distributions == LiveDistributions::default());
    }

    #[test]
    fn who_goes_on_is_judged_by_the_others_and_told_of_it() {
        let two = coordinator();
        let merged = report(&two, told(None), &common(OnLostHost::Continue)).unwrap();
        assert_eq!(merged.verdict.result, Outcome::Pass);
        assert!(merged.verdict.reasons[0].contains("had told nothing"), "{:?}", merged.verdict);
        let one = stampede_report::testing::report();
        assert_eq!(merged.join.counted.not_started, one.join.counted.not_started + 5);
        // Where nobody is left, nothing is known.
        let nobody = vec![Told::default(), Told::default()];
        let merged = report(&two, nobody, &common(OnLostHost::Continue)).unwrap();
        assert_eq!(merged.verdict.result, Outcome::Invalid);
    }
}
