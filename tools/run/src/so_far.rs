//! The report of a host that can't make its own: what it had told of its part until then.

use std::collections::BTreeMap;

use stampede_core::MediaKind;
use stampede_counters::{
    DataCounters, ImpairCounters, MediaCounters, PublishCounters, RecoveryCounters, RpcCounters,
};
use stampede_report::types::{
    DataSection, GeneratorSection, ImpairmentSection, JoinSection, MediaSection, PublishSection,
    RecoveriesSection, RecoverySection, Report, RpcSection, RunSection, SCHEMA, SeriesRow,
    ServerSection, SignallingSection, Verdict, WatchFigures, WorkerSection,
};

use crate::progress::{Progress, WorkerProgress};

/// What is known of a run so far: counters and watch time, and no distribution, for those are made
/// at the end. `series` are its rows until then.
pub fn report_so_far(
    run: RunSection,
    verdict: Verdict,
    progress: &Progress,
    series: Vec<SeriesRow>,
) -> Report {
    let (counted, watch) = (&progress.counters, &progress.watch);
    let video = media(&counted.video, &watch.video, MediaKind::Video);
    let video = video.map(|section| MediaSection { layers: Some(watch.layers.clone()), ..section });
    let publish = counted.publish;
    let of_group = |counted: RecoveryCounters| RecoverySection { counted, ms: None };
    let recoveries = progress.recoveries;
    Report {
        schema: SCHEMA.to_owned(),
        run,
        verdict,
        join: JoinSection {
            counted: progress.joins.counted,
            pending_at: Some(progress.joins.pending_at),
            errors: progress.joins.errors.clone(),
            paths: Some(Default::default()),
            peak: Some(progress.joins.peak),
            ..JoinSection::default()
        },
        recoveries: RecoveriesSection {
            resume: of_group(recoveries.resume),
            ice_restart: of_group(recoveries.ice_restart),
            full_reconnect: of_group(recoveries.full_reconnect),
            moved: of_group(recoveries.moved),
        },
        faults: Vec::new(),
        signalling: SignallingSection::default(),
        video,
        audio: media(&counted.audio, &watch.audio, MediaKind::Audio),
        cohorts: Vec::new(),
        publish: (publish != PublishCounters::default()).then(|| PublishSection {
            counted: publish,
            upstream_loss_rate: publish.upstream_loss_rate(),
            ..PublishSection::default()
        }),
        data: (counted.data != DataCounters::default())
            .then(|| DataSection::of(&counted.data, [None, None, None])),
        rpc: (counted.rpc != RpcCounters::default()).then(|| RpcSection::of(counted.rpc, None)),
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

/// `None` if nobody was to receive any, as far as is known.
fn media(counted: &MediaCounters, watch: &WatchFigures, kind: MediaKind) -> Option<MediaSection> {
    let known = *counted != MediaCounters::default() || watch.expected_s.is_some();
    known.then(|| MediaSection {
        tracks_received: counted.streams.received,
        watch: watch.clone(),
        latency_layers_ms: BTreeMap::new(),
        ..MediaSection::of(counted, kind)
    })
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
    use stampede_report::merge::merge;
    use stampede_report::types::{Fault, Machine, Outcome};

    use super::*;

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
        let jitter = |report: &Report| {
            report.video.as_ref().unwrap().jitter_ms.as_ref().map(|hist| hist.count)
        };
        assert_eq!(jitter(&merged), jitter(&whole), "of it nothing is known");
        assert_eq!(merged.verdict.result, Outcome::Invalid);
        assert_eq!(merged.verdict.reasons[0], "b: lost");
        assert!(merged.audio.is_some(), "the other host's");
    }
}
