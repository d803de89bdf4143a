//! The report of a host that can't make its own: what it had told of its part until then.

use stampede_core::MediaKind;
use stampede_counters::{
    DataCounters, ImpairCounters, MediaCounters, PublishCounters, RpcCounters,
};
use stampede_engine::PathKind;
use stampede_report::types::{
    GeneratorSection, ImpairmentSection, JoinSection, MediaSection, Phases, RecoveriesSection,
    RecoverySection, Report, RunSection, SCHEMA, SeriesRow, ServerSection, SignallingSection,
    Verdict, WatchFigures, WorkerSection,
};

use crate::facts::{Sums, data_section, measured, publish, rpc_section};
use crate::progress::{Progress, WorkerProgress};
use crate::recoveries::WAY_NAMES;

/// What is known of a run so far: what was counted and measured until then, and nothing of single
/// streams, subscribers and cohorts, for that is made at the end. `series` are its rows until then,
/// and `run` has its stages.
pub fn report_so_far(
    run: RunSection,
    verdict: Verdict,
    progress: &Progress,
    series: Vec<SeriesRow>,
) -> Report {
    let (counted, watch) = (&progress.counters, &progress.watch);
    let told = &*progress.distributions;
    let sums = Sums { counted: *counted, distributions: told.measured() };
    let media = |kind, counted: &MediaCounters, watch: &WatchFigures| {
        // Nobody was to receive any, as far as is known.
        let known = *counted != MediaCounters::default() || watch.expected_s.is_some();
        known.then(|| MediaSection {
            tracks_received: counted.streams.received,
            watch: watch.clone(),
            ..measured(kind, counted, &sums.distributions)
        })
    };
    let video = media(MediaKind::Video, &counted.video, &watch.video);
    let video = video.map(|section| MediaSection { layers: Some(watch.layers.clone()), ..section });
    let [resume, ice_restart, full_reconnect, moved] =
        WAY_NAMES.map(|name| told.ms(&format!("recovery/{name}")));
    let recovery = |counted, ms| RecoverySection { counted, ms };
    let recoveries = progress.recoveries;
    Report {
        schema: SCHEMA.to_owned(),
        run,
        verdict,
        join: join(progress),
        recoveries: RecoveriesSection {
            resume: recovery(recoveries.resume, resume),
            ice_restart: recovery(recoveries.ice_restart, ice_restart),
            full_reconnect: recovery(recoveries.full_reconnect, full_reconnect),
            moved: recovery(recoveries.moved, moved),
        },
        faults: Vec::new(),
        signalling: SignallingSection {
            ping_rtt_ms: told.ms("ping_rtt"),
            ..SignallingSection::default()
        },
        video,
        audio: media(MediaKind::Audio, &counted.audio, &watch.audio),
        cohorts: Vec::new(),
        publish: (counted.publish != PublishCounters::default()).then(|| publish(&sums)),
        data: (counted.data != DataCounters::default()).then(|| data_section(&sums)),
        rpc: (counted.rpc != RpcCounters::default()).then(|| rpc_section(&sums)),
        impairment: (counted.impairment != ImpairCounters::default())
            .then(|| ImpairmentSection { all: counted.impairment, cohorts: Vec::new() }),
        recordings: None,
        captures: Vec::new(),
        find: None,
        watch: None,
        generator: GeneratorSection {
            workers: progress.workers.iter().map(worker).collect(),
            cpu_s: progress.workers.iter().map(|worker| worker.cpu.as_secs_f64()).sum(),
            counted: counted.generator,
            ..GeneratorSection::default()
        },
        server: ServerSection::default(),
        series,
        thresholds: Vec::new(),
        streams: Vec::new(),
        streams_total: 0,
        all_streams: Vec::new(),
        lacks: Vec::new(),
    }
}

fn join(progress: &Progress) -> JoinSection {
    let told = &*progress.distributions;
    let paths = [PathKind::Udp, PathKind::Tcp].into_iter().chain(PathKind::RELAYED);
    let by_path = paths.map(|path| {
        let name = path.name();
        (name.to_owned(), told.phases_ms(&format!("join/{name}")))
    });
    let is_told = |phases: &Phases| phases.named().iter().any(|(_, hist)| hist.is_some());
    JoinSection {
        counted: progress.joins.counted,
        pending_at: Some(progress.joins.pending_at),
        errors: progress.joins.errors.clone(),
        paths: Some(Default::default()),
        peak: Some(progress.joins.peak),
        phases_ms: told.phases_ms("join"),
        phases_ms_by_path: by_path.filter(|(_, phases)| is_told(phases)).collect(),
        ..JoinSection::default()
    }
}

fn worker(worker: &WorkerProgress) -> WorkerSection {
    WorkerSection {
        core: worker.core,
        peers: worker.peers as u64,
        cpu_s: worker.cpu.as_secs_f64(),
        busy_ratio: worker.busy_ratio,
        ..WorkerSection::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stampede_engine::Distributions;
    use stampede_report::hist::{Hist, Samples};
    use stampede_report::merge::merge;
    use stampede_report::types::{Fault, Machine, Outcome};

    use super::*;
    use crate::distributions::LiveDistributions;

    #[test]
    fn what_a_lost_host_had_counted_is_in_the_sums() {
        let whole = stampede_report::testing::report();
        let mut progress = Progress::default();
        progress.joins.counted.requested = 9;
        progress.joins.counted.joined = 7;
        progress.counters.video.packets.expected = 1_000;
        progress.counters.publish.packets_sent = 50;
        let run = RunSection {
            id: "lost".to_owned(),
            machine: Some(Machine { hostname: Some("b".to_owned()), ..Machine::default() }),
            ..whole.run.clone()
        };
        let verdict = Verdict {
            result: Outcome::Invalid,
            fault: Fault::Generator,
            reasons: vec!["lost".to_owned()],
        };
        let mut told = LiveDistributions::default();
        let mut distributions = Distributions::default();
        distributions.video_latency_us.record_n(9_000, 700).unwrap();
        distributions.publish_lateness_us.record_n(40, 50).unwrap();
        told.put_measured(&distributions);
        let mut took = Samples::new();
        (0..7).for_each(|_| took.record_micros(80_000, 1));
        for name in ["join/dtls", "join/tcp/dtls", "recovery/resume", "ping_rtt"] {
            told.put(name.to_owned(), took.histogram());
        }
        progress.distributions = Arc::new(told);
        let row = SeriesRow { t_s: 1.0, packets_in: 3, ..SeriesRow::default() };
        let lost = report_so_far(run, verdict, &progress, vec![row]);
        // It can be stored and read as any other.
        let json = serde_json::to_vec(&lost).unwrap();
        let lost = stampede_report::from_json(&json).unwrap();
        let merged = merge(&[whole.clone(), lost]).unwrap();
        let (one, sum) = (&whole.join.counted, &merged.join.counted);
        assert_eq!((sum.requested, sum.joined), (one.requested + 9, one.joined + 7));
        let expected = |report: &Report| report.video.as_ref().unwrap().packets.expected;
        assert_eq!(expected(&merged), expected(&whole) + 1_000);
        assert_eq!(
            merged.publish.as_ref().unwrap().counted.packets_sent,
            whole.publish.as_ref().unwrap().counted.packets_sent + 50
        );
        let count = |hist: Option<&Hist>| hist.map_or(0, |hist| hist.count);
        let video = |report: &Report| report.video.clone().unwrap();
        let latency = |report: &Report| count(video(report).latency_ms.as_ref());
        assert_eq!(latency(&merged), latency(&whole) + 700);
        let jitter = |report: &Report| count(video(report).jitter_ms.as_ref());
        assert_eq!(jitter(&merged), jitter(&whole), "no stream had ended");
        let late = |report: &Report| count(report.publish.as_ref().unwrap().lateness_ms.as_ref());
        assert_eq!(late(&merged), late(&whole) + 50);
        let dtls = |report: &Report| count(report.join.phases_ms.dtls.as_ref());
        assert_eq!(dtls(&merged), dtls(&whole) + 7);
        assert_eq!(count(merged.join.phases_ms_by_path["tcp"].dtls.as_ref()), 7);
        let resume = |report: &Report| count(report.recoveries.resume.ms.as_ref());
        assert_eq!(resume(&merged), resume(&whole) + 7);
        let rtt = |report: &Report| count(report.signalling.ping_rtt_ms.as_ref());
        assert_eq!(rtt(&merged), rtt(&whole) + 7);
        assert_eq!(merged.verdict.result, Outcome::Invalid);
        assert_eq!(merged.verdict.reasons[0], "b: lost");
        assert!(merged.audio.is_some(), "the other host's");
    }
}
