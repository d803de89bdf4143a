//! From what a run knows to the report: facts for the verdict, and the sections that only a run can
//! fill.

mod cohorts;
mod streams;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hdrhistogram::Histogram;
use stampede_core::{MediaCounters, MediaKind, PacketCounters, StreamReport};
use stampede_counters::{
    DataCounters, Figure, GeneratorCounters, ImpairCounters, PublishCounters, RecordingCounters,
    RunCounters, SfuWorkerCounters,
};
use stampede_engine::{Distributions, EngineReport, LeftOut, PeerRow, WorkerReport};
use stampede_scenario::values::Backend;
use stampede_scenario::{Cohort, CongestionFeedback, FaultKind, Simulation, Stage, Target};
use stampede_sfu::{Congestion, Ledger, LedgerTotals};

use stampede_report::facts::{
    DataFacts, DataLedgerFacts, Facts, LedgerFacts, OnPurposeFacts, RpcFacts, TracksFacts,
    WorkerFacts,
};
use stampede_report::hist::Hist;
use stampede_report::joins::{BoundJoins, LostJoins};
use stampede_report::judge::judge;
use stampede_report::latency::by_height;
use stampede_report::recording::Recorded;
use stampede_report::senders::SenderFacts;
use stampede_report::show::round;
use stampede_report::threshold::{self, Threshold};
use stampede_report::types::worst;
use stampede_report::types::{
    DataSection, EmbeddedOptions, EmbeddedSection, GeneratorSection, MediaSection, Options,
    PublishSection, Reconciliation, RecordingSection, Report, RpcSection, RunSection, SCHEMA,
    ServerMetrics, ServerSection, TargetSection, WorkerSection,
};

use crate::data::RunData;
use crate::joins::of_first_try;
use crate::machine;
use crate::viewers::Viewers;
use cohorts::CohortReports;

/// Builds and judges. `promise` is what the run has to keep besides its own thresholds, and what
/// somebody else judges it by.
pub fn report_of(mut data: RunData, promise: &[Threshold]) -> Report {
    let thresholds = std::mem::take(&mut data.scenario.thresholds);
    let crossed = data.crossed.take();
    let own = || thresholds.iter().chain(promise);
    let own_bound = |kind| !own().any(|test| test.bounds_loss_of(kind));
    let bounds = Bounds {
        loss: [MediaKind::Video, MediaKind::Audio].map(own_bound),
        joins: BoundJoins::under(own()),
        layers: !own().any(Threshold::bounds_layers),
    };
    let mut report = without_thresholds(data, bounds);
    threshold::apply(&mut report, &thresholds, crossed.as_ref());
    report
}

/// Which of the fixed bounds apply: no threshold of the user's own takes their place.
#[derive(Clone, Copy)]
struct Bounds {
    /// On the loss of video and audio.
    loss: [bool; 2],
    /// On joins.
    joins: BoundJoins,
    /// On smaller pictures than those asked for.
    layers: bool,
}

fn without_thresholds(data: RunData, bounds: Bounds) -> Report {
    let sums = Sums::of(data.engine.as_ref());
    let viewers = Viewers::of(&data);
    let parts = CohortReports::of(&data);
    let impairment = cohorts::impairment(&parts, sums.counted.impairment);
    let injected = impairment.as_ref().map(|section| section.all);
    let mut facts = facts(&data, &sums, &viewers, injected, bounds);
    facts.lost_joins = data.joins.lost_joins(bounds.joins, &parts.cut_off());
    let verdict = judge(&facts);
    let subscribers = data.scenario.shape.receivers() > 0 && !data.scenario.no_media;
    let join = data.joins.section();
    let [video_tracks, audio_tracks] = data.joins.tracks_expected();
    let own_video = data.clips.has_video();
    let own_audio = data.clips.has_audio();
    let all_are_others = !own_video && !own_audio;
    let received = |kind, counters: &MediaCounters, ours: bool, expected: Option<u64>| {
        // What others publish is not ours to know.
        let expected = expected.filter(|_| ours);
        (subscribers && (ours || all_are_others || counters.streams.received > 0))
            .then(|| media(&data, &viewers, kind, None, counters, &sums.distributions, expected))
    };
    let video = received(MediaKind::Video, &sums.counted.video, own_video, video_tracks);
    let audio = received(MediaKind::Audio, &sums.counted.audio, own_audio, audio_tracks);
    let kinds = [video.as_ref().map(|_| own_video), audio.as_ref().map(|_| own_audio)];
    let all_streams = streams::all(&data, &viewers);
    let streams_left_out: u64 = left_out(&data).map(|workers| workers.streams).sum();
    let metrics = server_metrics(&data);
    let measured = ledger_measured(&data).map(|(totals, _)| totals);
    let mut series = data.series.clone();
    viewers.fill(&mut series);
    let watch = viewers.section(&|cohort| parts.name(cohort));
    Report {
        schema: SCHEMA.to_owned(),
        verdict,
        join,
        recoveries: data.recoveries.section(),
        faults: data.recoveries.faults(),
        signalling: data.signalled.section(),
        video,
        audio,
        cohorts: cohorts::of(&data, &viewers, &parts, kinds),
        publish: (data.scenario.shape.senders() > 0).then(|| publish(&sums)),
        data: data.scenario.data.map(|_| data_section(&sums)),
        rpc: data.scenario.rpc.as_ref().map(|_| rpc_section(&sums)),
        impairment,
        recordings: recordings(&data),
        captures: data.captured.iter().map(|file| file.display().to_string()).collect(),
        find: None,
        generator: generator(&data, &sums),
        run: run_section(&data),
        server: ServerSection {
            embedded: data.ledger.map(|ledger| EmbeddedSection { ledger, measured }),
            embedded_missing: data.ledger_missing,
            metrics,
        },
        series,
        watch,
        thresholds: Vec::new(),
        streams: worst(&all_streams),
        streams_total: all_streams.len() as u64 + streams_left_out,
        all_streams,
        lacks: Vec::new(),
    }
}

/// Sums over workers.
#[derive(Default)]
pub(crate) struct Sums {
    pub(crate) counted: RunCounters,
    pub(crate) distributions: Distributions,
}

impl Sums {
    fn of(engine: Option<&EngineReport>) -> Self {
        let mut sums = Self::default();
        for worker in engine.map_or(&[][..], |engine| &engine.workers) {
            sums.counted.merge(&worker.counted);
            sums.distributions.merge(&worker.distributions);
        }
        sums
    }
}

fn facts(
    data: &RunData,
    sums: &Sums,
    viewers: &Viewers<'_>,
    injected: Option<ImpairCounters>,
    bounds: Bounds,
) -> Facts {
    let (video, audio) = (&sums.counted.video.packets, &sums.counted.audio.packets);
    let of_bounded = |of: fn(&PacketCounters) -> u64| {
        let kinds = [video, audio].into_iter().zip(bounds.loss);
        kinds.filter(|(_, bounded)| *bounded).map(|(packets, _)| of(packets)).sum()
    };
    let GeneratorCounters { udp, uncategorised, .. } = &sums.counted.generator;
    let join = data.joins.section();
    let mut workers_failed: Vec<String> = Vec::new();
    let mut workers = Vec::new();
    if let Some(engine) = &data.engine {
        workers = engine.workers.iter().map(worker_facts).collect();
        let died = engine.workers.iter().filter_map(|worker| {
            let why = worker.failed.as_ref()?;
            Some(format!("worker {} ended early: {why}", worker.worker))
        });
        let panicked = engine.workers_panicked.iter();
        workers_failed = died
            .chain(panicked.map(|worker| format!("worker {worker} crashed: a bug of stampede")))
            .collect();
    }
    Facts {
        started: join.counted.started,
        joined: join.counted.joined,
        failed: join.counted.failed,
        dropped: join.counted.dropped,
        balance: join.balance(),
        lost_joins: LostJoins::default(),
        left_absent: data.joins.left_absent(),
        recoveries: data.recoveries.counted(),
        on_purpose: on_purpose(data),
        server_gone: data.server_gone.clone(),
        subscribers_joined: data.joins.receivers_joined() as u64,
        publishers_joined: data.joins.senders_joined() as u64,
        no_media: data.scenario.no_media
            || ((data.scenario.data.is_some() || data.scenario.rpc.is_some())
                && data.scenario.shape.senders() == 0),
        errors: data.joins.error_facts(),
        interrupted: data.interrupted,
        ended_early: data.ended_early.clone(),
        expected: video.expected + audio.expected,
        received: video.received + audio.received,
        missing: video.missing + audio.missing,
        reordered: video.reordered + audio.reordered,
        repaired: video.repaired + audio.repaired + audio.repaired_by_red,
        unrecovered: video.unrecovered + audio.unrecovered,
        late: video.late + audio.late,
        published: sums.counted.publish.packets_sent,
        injected,
        impaired: !data.scenario.cohorts.causes().is_empty(),
        faults_without_effect: faults_without_effect(data),
        watch: viewers.facts(),
        layers: viewers.layers(None, smaller_excused(data)),
        layers_bounded: bounds.layers,
        embedded: matches!(data.scenario.target, Target::Embedded(_)),
        // Signalling by a tunnel is local, its media is not.
        local: data.local
            && peers(data).filter_map(|peer| peer.remote).all(|remote| remote.ip().is_loopback())
            && left_out(data).all(|peers| peers.distant == 0),
        upstream_lost: sums.counted.publish.upstream_lost.unwrap_or(0),
        upstream_reported: sums.counted.publish.upstream_expected.unwrap_or(0),
        sent_again: match data.scenario.rooms {
            1 => sums.counted.publish.retransmitted,
            _ => 0,
        },
        rejected: uncategorised.peers.malformed + uncategorised.peers.rejected,
        tracks: tracks_facts(data, sums, viewers),
        publish_late_ms_max: sums.counted.publish.lateness_max_s.as_secs_f64() * 1_000.0,
        join_response_wait_ms_max: data.joins.join_response_wait_max().as_secs_f64() * 1_000.0,
        bounded_unrecovered: of_bounded(|packets| packets.unrecovered),
        bounded_expected: of_bounded(|packets| packets.expected),
        datagrams_in: udp.datagrams_in,
        datagrams_out: udp.datagrams_out,
        kernel_drops: udp.kernel_drops,
        drops_estimated: udp.kernel_drops != udp.segment_runs_dropped,
        send_losses: udp.unsent(),
        workers,
        workers_failed,
        ledger: ledger_facts(data),
        data: data.scenario.data.map(|_| data_facts(data, &sums.counted.data)),
        rpc: data
            .scenario
            .rpc
            .as_ref()
            .map(|_| RpcFacts { counted: sums.counted.rpc, ledger: data_ledger(data) }),
        senders: senders(data),
        subscribers_lossy: peers(data).filter(|peer| peer.lost_for_good()).count() as u64
            + left_out(data).map(|peers| peers.lossy).sum::<u64>(),
        files_lost: files_lost(data),
    }
}

/// Why pictures smaller than those asked for are not held against anybody.
fn smaller_excused(data: &RunData) -> Option<&'static str> {
    let (of_embedded, listens) = match &data.scenario.target {
        Target::Embedded(embedded) => {
            (&embedded.impair[..], embedded.options.congestion != Congestion::None)
        }
        Target::Server(_) => (&[][..], true),
    };
    let mut faults = data.scenario.faults.iter().map(|fault| fault.kind);
    let bandwidth =
        |kind| matches!(kind, FaultKind::Simulate(Simulation::SubscriberBandwidth { .. }));
    // A queue or losses of our own making are told to a server that listens, which rightly sends less.
    let cohorts = data.scenario.cohorts.all();
    let tells = |cohort: &Cohort| {
        let feedback = cohort.feedback.unwrap_or(data.scenario.feedback);
        listens && feedback == CongestionFeedback::Chrome
    };
    let ours = cohorts.iter().filter_map(|one| Some((one, &one.impair.as_ref()?.spec)));
    let mut worse = ours
        .map(|(one, spec)| tells(one) || spec.rate_bps.is_some())
        .chain(of_embedded.iter().map(|spec| cohorts.iter().any(tells) || spec.rate_bps.is_some()));
    if worse.any(|worse| worse) || faults.any(bandwidth) {
        return Some("a way was made worse on purpose");
    }
    // Held back from before the window on, or dropped in it.
    let workers = data.engine.iter().flat_map(|engine| &engine.workers);
    let mut sent = workers.map(|worker| worker.counted.publish);
    let adapted = |sent: PublishCounters| sent.layer_drops > 0 || sent.frames_withheld > 0;
    if data.scenario.adapt && sent.any(adapted) {
        return Some("publishers left layers out that their way had no room for (--adapt)");
    }
    (!data.clips.has_video()).then_some(
        "the publishers are not this run's: whether they sent what they announced is not known",
    )
}

/// Faults that were to be done and were done to nobody: what they are to show, the run does not.
fn faults_without_effect(data: &RunData) -> Vec<String> {
    let rows = data.recoveries.faults().into_iter();
    let idle = rows.filter(|row| row.fired > 0 && row.hit == 0);
    idle.map(|row| match row.missed {
        0 => {
            format!("--fault {} hit nobody: its share of those that it may hit is none", row.fault)
        }
        missed => format!("--fault {} hit nobody: it could not be done to {missed}", row.fault),
    })
    .collect()
}

fn on_purpose(data: &RunData) -> OnPurposeFacts {
    let rows = data.recoveries.faults();
    // A row for each fault of the scenario, in its order.
    let of_media = data.scenario.faults.iter().map(|fault| fault.kind.may_lose_media());
    OnPurposeFacts {
        hit_media: rows
            .iter()
            .zip(of_media)
            .filter(|(_, lost)| *lost)
            .map(|(row, _)| row.hit)
            .sum(),
        hit: rows.iter().map(|row| row.hit).sum(),
        recovered: rows.iter().map(|row| row.recovered).sum(),
        // Of several rooms nobody knows here whose subscribers lack what.
        unsent: match data.scenario.rooms {
            1 => peers(data)
                .filter(|peer| !peer.report.published.is_empty())
                .map(|peer| peer.report.counters.impairment.unsent)
                .sum(),
            _ => 0,
        },
    }
}

fn peers(data: &RunData) -> impl Iterator<Item = &PeerRow> {
    data.engine.iter().flat_map(|engine| &engine.workers).flat_map(|worker| &worker.peers)
}

/// Of the peers without a row, by worker.
fn left_out(data: &RunData) -> impl Iterator<Item = &LeftOut> {
    data.engine.iter().flat_map(|engine| &engine.workers).map(|worker| &worker.left_out)
}

/// Streams without a row are as streams without sender reports: nothing is proven by them. They have
/// less to tell of missing packets than any that has one.
fn senders(data: &RunData) -> SenderFacts {
    let mut senders = SenderFacts::of(peers(data).flat_map(|peer| &peer.report.streams));
    senders.streams += left_out(data).map(|peers| peers.streams_received).sum::<u64>();
    senders
}

fn worker_facts(worker: &WorkerReport) -> WorkerFacts {
    let ms_p99 = |micros: &Histogram<u64>| micros.value_at_quantile(0.99) as f64 / 1_000.0;
    let longest = worker.health.lateness_us.max().max(worker.health.batch_age_us.max());
    WorkerFacts {
        stall_ms_max: longest as f64 / 1_000.0,
        busy_ratio: worker.health.busy_ratio(),
        lateness_ms_p99: ms_p99(&worker.health.lateness_us),
        batch_age_ms_p99: ms_p99(&worker.health.batch_age_us),
    }
}

fn ledger_facts(data: &RunData) -> Option<LedgerFacts> {
    let (begin, end) = ledgers(data)?;
    let (totals, inside) = ledger_measured(data)?;
    let signalling = end.signalling.since(&begin.signalling);
    // A worker that the older one does not know had used nothing then.
    let full_before = |worker: usize| {
        let known = begin.workers.iter().find(|known| known.worker == worker);
        known.map_or(0.0, |known| known.full_s)
    };
    let full = end.workers.iter().map(|worker| worker.full_s - full_before(worker.worker));
    Some(LedgerFacts {
        packets_sent: totals.forward.packets_sent,
        dropped: totals.forward.dropped,
        reordered: totals.forward.reordered,
        retransmits_dropped: totals.forward.retransmits_dropped,
        upstream_lost: totals.upstream.publisher_packets_lost,
        lost_inside: inside.lost_inside(),
        receive_drops: inside.kernel_drops,
        fell_silent: signalling.media_lost + signalling.signalling_timeouts,
        read_too_slowly: signalling.signalling_overflows,
        full_s: full.fold(0.0, f64::max),
    })
}

pub(crate) fn data_section(sums: &Sums) -> DataSection {
    let latencies = &sums.distributions.data_latency_us;
    DataSection::of(&sums.counted.data, latencies.each_ref().map(Hist::of_micros_as_ms))
}

pub(crate) fn rpc_section(sums: &Sums) -> RpcSection {
    let round_trips = Hist::of_micros_as_ms(&sums.distributions.rpc_round_trip_us);
    RpcSection::of(sums.counted.rpc, round_trips)
}

fn data_ledger(data: &RunData) -> Option<DataLedgerFacts> {
    ledger_measured(data).map(|(_, inside)| DataLedgerFacts {
        withheld: inside.messages_withheld,
        unsent: inside.messages_unsent,
        dropped: inside.messages_dropped,
    })
}

fn data_facts(data: &RunData, counted: &DataCounters) -> DataFacts {
    let receivers = data.joins.receivers_joined() as u64;
    DataFacts { counted: *counted, receivers, ledger: data_ledger(data) }
}

/// The embedded SFU's ledgers at both ends of the time that the engine's figures are of. `None`
/// without one of them.
fn ledgers(data: &RunData) -> Option<(Cow<'_, Ledger>, &Ledger)> {
    let end = data.ledger.as_ref()?;
    match &data.ledger_begin {
        Some(begin) => Some((Cow::Borrowed(begin), end)),
        // The ramp did not end: all of it counts.
        None if data.measured.begin.is_none() => Some((Cow::Owned(Ledger::default()), end)),
        None => None,
    }
}

/// What the embedded SFU did in that time, and what it lost by itself.
fn ledger_measured(data: &RunData) -> Option<(LedgerTotals, SfuWorkerCounters)> {
    let (begin, end) = ledgers(data)?;
    let workers = |ledger: &Ledger| {
        SfuWorkerCounters::sum_of(ledger.workers.iter().map(|worker| worker.counted))
            .unwrap_or_default()
    };
    let inside = workers(end).since(&workers(&begin));
    Some((end.totals.since(&begin.totals), inside))
}

/// Of all subscribers, or of one cohort with its own counters and distributions.
pub(super) fn media(
    data: &RunData,
    viewers: &Viewers<'_>,
    kind: MediaKind,
    cohort: Option<u16>,
    counters: &MediaCounters,
    distributions: &Distributions,
    tracks_expected: Option<u64>,
) -> MediaSection {
    let video = kind == MediaKind::Video;
    let watched = viewers.sums(kind, cohort);
    // Over the time in which the tracks should have played, never over what was left of them.
    let expected_s = viewers.counted(kind, cohort).as_secs_f64();
    let counted_s = counted(data).filter(|_| expected_s > 0.0);
    MediaSection {
        tracks_expected,
        tracks_received: tracks_received(data, kind, cohort),
        watch: watched.figures(),
        layers: video.then(|| viewers.layers(cohort, smaller_excused(data))),
        bitrate_bps: counted_s
            .map(|seconds| (counters.packets.bytes as f64 * 8.0 / seconds).round()),
        fps: (expected_s > 0.0).then(|| {
            let frames = counters.frames.decodable.unwrap_or(counters.frames.complete);
            round(frames as f64 / expected_s, 2)
        }),
        ..measured(kind, counters, distributions)
    }
}

/// What peers counted and measured of a kind of media.
pub(crate) fn measured(
    kind: MediaKind,
    counters: &MediaCounters,
    distributions: &Distributions,
) -> MediaSection {
    let video = kind == MediaKind::Video;
    let (latency_us, jitter_us) = match kind {
        MediaKind::Video => (&distributions.video_latency_us, &distributions.video_jitter_us),
        MediaKind::Audio => (&distributions.audio_latency_us, &distributions.audio_jitter_us),
    };
    MediaSection {
        jitter_ms: Hist::of_micros_as_ms(jitter_us),
        latency_ms: Hist::of_micros_as_ms(latency_us),
        latency_layers_ms: match kind {
            MediaKind::Video => by_height(&distributions.video_latency_by_height_us),
            MediaKind::Audio => BTreeMap::new(),
        },
        pli_to_keyframe_ms: video
            .then(|| Hist::of_micros_as_ms(&distributions.pli_to_keyframe_us))
            .flatten(),
        estimate_bps: video.then(|| Hist::of_bps(&distributions.estimate_bps)).flatten(),
        ..MediaSection::of(counters, kind)
    }
}

/// How long packets were counted: from the start of the measured window, or of the run, until
/// everybody was told to leave; `None` if it did not come to that.
fn counted(data: &RunData) -> Option<f64> {
    let begin = data.measured.begin.as_ref().or(data.measured.start.as_ref())?.at;
    let seconds = data.measured.leaving?.saturating_duration_since(begin).as_secs_f64();
    (seconds > 0.0).then_some(seconds)
}

/// Tracks of which a packet came in the measured window. A track is a subscriber's of a
/// publication, whatever streams and peers it had.
fn tracks_received(data: &RunData, kind: MediaKind, cohort: Option<u16>) -> u64 {
    let of_cohort = |own: u16| cohort.is_none_or(|cohort| own == cohort);
    let rows = peers(data).filter(|peer| of_cohort(peer.cohort)).flat_map(|peer| {
        let received = |stream: &&StreamReport| stream.kind == kind && stream.packets.received > 0;
        let streams = peer.report.streams.iter().filter(received);
        streams.map(|stream| {
            let sid = stream.track_id.as_deref().unwrap_or_default();
            (peer.label.as_str(), sid, Some(stream.ssrc))
        })
    });
    let without_row = left_out(data).flat_map(|peers| &peers.tracks);
    let without_row = without_row
        .filter(|track| track.kind == kind && of_cohort(track.cohort))
        .map(|track| (track.label.as_str(), track.track_id.as_str(), None));
    let tracks: BTreeSet<_> = rows
        .chain(without_row)
        .map(|(label, sid, ssrc)| {
            let subscriber = of_first_try(label);
            let room = data.joins.member(subscriber).map_or("", |member| &member.room);
            // A stream without a name is told from others by its SSRC alone.
            let unknown = || (sid, ssrc.filter(|_| sid.is_empty()));
            (subscriber, data.audience.publication_of(room, sid).ok_or_else(unknown))
        })
        .collect();
    tracks.len() as u64
}

pub(crate) fn publish(sums: &Sums) -> PublishSection {
    let counted = sums.counted.publish;
    PublishSection {
        counted,
        upstream_loss_rate: counted.upstream_loss_rate(),
        lateness_ms: Hist::of_micros_as_ms(&sums.distributions.publish_lateness_us),
        estimate_bps: Hist::of_bps(&sums.distributions.uplink_estimate_bps),
    }
}

/// Subscriptions to our own publishers' tracks of which no packet came in the measured window.
fn tracks_facts(data: &RunData, sums: &Sums, viewers: &Viewers<'_>) -> TracksFacts {
    // What layouts leave out is not expected; what can't be known is not missed.
    let known = data.joins.tracks_expected();
    let expected = known.map(|tracks| tracks.unwrap_or(0));
    let discounted = data.joins.tracks_discounted();
    let missing = |kind: usize, received: u64| {
        expected[kind].saturating_sub(discounted[kind]).saturating_sub(received)
    };
    // An open subscription that nothing was sent on, by the ledger.
    let rows = data.ledger.iter().flat_map(|ledger| &ledger.rooms);
    let rows = rows.flat_map(|room| &room.subscribers).flat_map(|subscriber| &subscriber.tracks);
    let unsent =
        rows.filter(|track| track.counts.packets_sent + track.counts.dropped == 0).count() as u64;
    // Who left at once, or had just come, missed nothing.
    let silent = viewers.silent(data.scenario.watch_rules.interruption_min);
    let not_received = missing(0, tracks_received(data, MediaKind::Video, None))
        + missing(1, tracks_received(data, MediaKind::Audio, None));
    TracksFacts {
        expected: expected.iter().sum(),
        missing: not_received.min(silent),
        none_due: known
            .iter()
            .zip(discounted)
            .all(|(due, lacks)| due.is_some_and(|due| due <= lacks)),
        unsent: data.ledger.is_some().then_some(unsent),
        plis: sums.counted.video.feedback.pli_sent,
    }
}

/// Recordings and captures that were asked for and are not whole.
fn files_lost(data: &RunData) -> Vec<String> {
    let errors = recordings(data).map_or_else(Vec::new, |section| section.errors);
    let recordings = errors.iter().map(|error| format!("recording: {error}"));
    let captures = data.capture_errors.iter().map(|error| format!("capture: {error}"));
    recordings.chain(captures).collect()
}

fn recordings(data: &RunData) -> Option<RecordingSection> {
    let record = data.scenario.record.as_ref()?;
    let report = data.engine.as_ref()?.recordings.as_ref()?;
    let mut counted = RecordingCounters {
        frames_written: report.files.iter().map(|file| file.frames).sum(),
        frames_dropped: report.frames_dropped,
        ..RecordingCounters::default()
    };
    for worker in data.engine.iter().flat_map(|engine| &engine.workers) {
        counted.assembly.merge(&worker.assembled);
    }
    for file in &report.files {
        counted.timing.merge(&file.timing);
    }
    let recorded = Recorded {
        dir: record.dir.display().to_string(),
        errors: report.errors.clone(),
        errors_total: report.errors_total,
        frames_written: counted.frames_written,
        frames_dropped: counted.frames_dropped,
        frames_not_taken: counted.assembly.frames_not_polled,
        somebody_received: data.joins.receivers_joined() > 0,
    };
    let files = report.files.iter().filter(|file| file.frames > 0);
    Some(RecordingSection {
        dir: record.dir.display().to_string(),
        files: files.map(|file| file.path.display().to_string()).collect(),
        counted,
        errors: recorded.wrongs(),
    })
}

fn generator(data: &RunData, sums: &Sums) -> GeneratorSection {
    let measured = &data.measured;
    let from = measured.begin.or(measured.start);
    let window = from.zip(measured.end);
    let cpu = window.map_or(Duration::ZERO, |(from, to)| to.cpu.saturating_sub(from.cpu));
    let wall_s = window.map_or(0.0, |(from, to)| (to.at - from.at).as_secs_f64());
    let counted = sums.counted.generator;
    let packets = counted.udp.datagrams();
    let rss_bytes = measured.end.and_then(|mark| mark.rss_bytes);
    let before = measured.start.and_then(|mark| mark.rss_bytes);
    let connected = measured.connected as u64;
    GeneratorSection {
        backend: data.backend.as_ref().map_or_else(String::new, |report| report.name.to_owned()),
        backend_reason: data
            .backend
            .as_ref()
            .map_or_else(String::new, |report| report.reason.clone()),
        workers: data
            .engine
            .as_ref()
            .map_or_else(Vec::new, |engine| engine.workers.iter().map(worker).collect()),
        cpu_s: round(cpu.as_secs_f64(), 3),
        cpu_cores: (wall_s > 0.0).then(|| round(cpu.as_secs_f64() / wall_s, 3)),
        counted,
        cpu_ns_per_packet: (packets > 0).then(|| (cpu.as_nanos() as f64 / packets as f64).round()),
        rss_bytes,
        rss_bytes_per_peer: rss_bytes
            .zip(before)
            .filter(|_| connected > 0)
            .map(|(after, before)| after.saturating_sub(before) / connected),
    }
}

fn worker(worker: &WorkerReport) -> WorkerSection {
    WorkerSection {
        host: None,
        core: worker.core,
        peers: worker.peers.len() as u64 + worker.left_out.rows,
        cpu_s: round(worker.health.cpu.as_secs_f64(), 3),
        busy_ratio: round(worker.health.busy_ratio(), 4),
        lateness_ms: Hist::of_micros_as_ms(&worker.health.lateness_us),
        batch_age_ms: Hist::of_micros_as_ms(&worker.health.batch_age_us),
        failed: worker.failed.clone(),
    }
}

fn run_section(data: &RunData) -> RunSection {
    let measured = &data.measured;
    let window = measured.begin.zip(measured.end);
    RunSection {
        id: data.id.clone(),
        started_at: humantime::format_rfc3339_millis(data.clock.started_at).to_string(),
        duration_s: round(data.duration.as_secs_f64(), 3),
        measured_s: window.map(|(from, to)| round((to.at - from.at).as_secs_f64(), 3)),
        interrupted: data.interrupted,
        target: TargetSection {
            url: data.url.clone(),
            embedded: matches!(data.scenario.target, Target::Embedded(_)),
            server_version: data.joins.known_server_version(),
        },
        options: Some(options(data)),
        seed: Some(data.seed),
        machine: Some(machine::describe(data.cpus)),
        stampede_version: env!("CARGO_PKG_VERSION").to_owned(),
        hosts: None,
        stages: data.measured.stages.clone(),
    }
}

fn options(data: &RunData) -> Options {
    let scenario = &data.scenario;
    let audience = scenario.audience;
    let rpc = scenario.rpc.as_ref();
    // What the run itself has; cohorts have their own.
    let sent = scenario.data.filter(|_| scenario.shape.sends_data());
    let called = rpc.filter(|rpc| rpc.callers > 0);
    Options {
        room: data.room.clone(),
        rooms: scenario.rooms,
        video_publishers: scenario.video_publishers,
        audio_publishers: scenario.audio_publishers,
        screen_share_publishers: scenario.screen_share_publishers,
        screen_share_audio: scenario.shape.screen_share_audio,
        subscribers: scenario.subscribers,
        participants: scenario.participants,
        participant_tracks: (scenario.shape.participants() > 0)
            .then(|| scenario.shape.participant_tracks().to_string()),
        data_publishers: scenario.data.map_or(0, |data| data.publishers),
        data_rate: sent.map(|data| data.rate),
        data_size_bytes: sent.map(|data| data.bytes),
        data_kind: sent.map(|data| data.kinds.to_string()),
        data_track_subscribe: scenario.data.map(|data| data.subscribe.name().to_owned()),
        rpc_callers: rpc.map_or(0, |rpc| rpc.callers),
        rpc_rate: called.map(|rpc| rpc.rate),
        rpc_size_bytes: called.map(|rpc| rpc.bytes),
        rpc_timeout_s: rpc.map(|rpc| rpc.timeout.as_secs_f64()),
        rpc_method: rpc.map(|rpc| rpc.method.to_string()),
        rpc_to: rpc.and_then(|rpc| rpc.to.as_deref().map(str::to_owned)),
        duration_s: scenario.duration.as_secs_f64(),
        num_per_second: scenario.joins_per_second,
        retry: scenario.retry,
        retry_sleep_s: scenario.retry_sleep.as_secs_f64(),
        reconnect: scenario.reconnect.to_string(),
        signal: scenario.signal.to_string(),
        feedback: scenario.feedback.to_string(),
        adapt: scenario.adapt,
        transport: scenario.transport.to_string(),
        arrival: audience.arrival.name().to_owned(),
        stay_s: audience.stay.map(|stay| stay.as_secs_f64()),
        rejoin: audience.rejoin,
        away_s: (audience.rejoin > 0.0).then_some(audience.away.as_secs_f64()),
        room_sizes: scenario.shape.room_sizes.as_ref().map(ToString::to_string),
        fault: scenario.faults.iter().map(ToString::to_string).collect(),
        video_resolution: scenario.resolution.name().to_owned(),
        video: data.clips.all_video().flatten().map(|clip| clip.name.clone()).collect(),
        screen_share: data.clips.screen.iter().map(|clip| clip.name.clone()).collect(),
        video_codec: scenario
            .video
            .as_ref()
            .and_then(|video| video.codec.as_ref())
            .map(|mix| mix.to_string()),
        backup_codec: data
            .clips
            .backup
            .first()
            .or(data.clips.screen_backup.as_ref())
            .map(|clip| stampede_scenario::values::codec_name(clip.codec).to_owned()),
        subscribe_codecs: scenario.subscribe_codecs.as_ref().map(ToString::to_string),
        audio: data.clips.audio.as_ref().map(|clip| clip.name.clone()),
        audio_red: Some(scenario.audio_options.red),
        audio_dtx: Some(scenario.audio_options.dtx),
        record: scenario.record.as_ref().map(|record| record.dir.display().to_string()),
        record_subscribers: scenario.record.as_ref().map_or(0, |record| record.subscribers),
        dynacast: scenario.dynacast,
        stage: scenario.shape.stages.iter().map(stage).collect(),
        layout: scenario.shape.layout.map(|layout| layout.name().to_owned()),
        subscribe_mode: scenario.shape.subscribe_mode.name().to_owned(),
        hidden: scenario.shape.hidden,
        simulate_speakers: scenario.shape.simulate_speakers,
        cohorts: scenario.shape.cohorts.iter().map(|cohort| cohort.name.clone()).collect(),
        no_media: scenario.no_media,
        grant: scenario.profile.grants.iter().map(ToString::to_string).collect(),
        participant_metadata_bytes: scenario.profile.bytes(),
        token_file: match &scenario.target {
            Target::Server(server) => server.token_file.is_some(),
            Target::Embedded(_) => false,
        },
        metadata_updates_per_second: scenario.metadata_updates_per_second,
        playout_deadline_ms: scenario.playout_deadline.as_secs_f64() * 1_000.0,
        interruption_min_s: scenario.watch_rules.interruption_min.as_secs_f64(),
        join_grace_s: scenario.watch_rules.join_grace.as_secs_f64(),
        impair: scenario.impair.iter().map(ToString::to_string).collect(),
        workers: data.cores.workers,
        cores: data.cores.worker_cores.clone(),
        backend: scenario.backend.name().to_owned(),
        receive_buffer_bytes: Some(scenario.receive_buffer_bytes),
        packet_ring_bytes: data
            .backend
            .as_ref()
            .filter(|report| report.name == Backend::PacketRing.name())
            .map(|_| scenario.packet_ring_bytes_of(data.cores.workers)),
        embedded: match &scenario.target {
            Target::Server(_) => None,
            Target::Embedded(embedded) => Some(EmbeddedOptions {
                cores: data.cores.sfu_cores.clone(),
                drop: embedded.short.drop.unwrap_or(0.0),
                drop_burst: embedded.short.drop_burst.unwrap_or(1),
                delay_ms: embedded.short.delay.unwrap_or_default().as_secs_f64() * 1_000.0,
                impair: embedded.impair.iter().map(ToString::to_string).collect(),
                flags: embedded.flags.clone(),
            }),
        },
    }
}

/// The scraped figures, set against what arrived in the whole run, ramp included.
fn server_metrics(data: &RunData) -> Option<ServerMetrics> {
    let mut metrics = data.server_metrics.clone()?;
    if let (Some(sent), Some(engine)) = (metrics.packets_out, &data.engine) {
        let sent = sent.saturating_add(metrics.packets_resent.unwrap_or(0));
        let arrived = engine.workers.iter().map(|worker| worker.rtp_arrived).sum();
        metrics.reconciliation = Some(Reconciliation::new(sent, arrived));
    }
    Some(metrics)
}

fn stage(stage: &Stage) -> String {
    format!("{}s:{}", stage.duration.as_secs_f64(), stage.subscribers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_scenario::{Draft, Scenario};

    fn report(draft: Draft) -> Report {
        report_of(crate::nothing_happened(Scenario::new(draft).unwrap()), &[])
    }

    fn json(draft: Draft) -> serde_json::Value {
        serde_json::to_value(report(draft)).unwrap()
    }

    #[test]
    fn what_only_cohorts_send_and_call_is_no_option_of_the_run() {
        use stampede_scenario::{CohortSize, CohortSpec, DataDraft, RpcDraft};
        let data = DataDraft { publishers: Some(1), ..DataDraft::default() };
        let rpc = RpcDraft { callers: Some(1), ..RpcDraft::default() };
        let few = CohortSpec {
            data,
            rpc: rpc.clone(),
            ..CohortSpec::new("few".to_owned(), CohortSize::Count(2))
        };
        let of = |draft| {
            let options = json(draft)["run"]["options"].clone();
            ["data_rate", "data_size_bytes", "data_kind", "rpc_rate", "rpc_size_bytes"]
                .map(|key| options[key].is_null())
        };
        assert_eq!(of(Draft { cohorts: vec![few.clone()], ..Draft::default() }), [true; 5]);
        assert_eq!(of(Draft { cohorts: vec![few], data, rpc, ..Draft::default() }), [false; 5]);
    }

    #[test]
    fn unknown_values_are_null_never_zero() {
        let json = json(Draft::default());
        assert_eq!(json["schema"], "stampede.report.v1");
        for pointer in [
            "/run/measured_s",
            "/run/target/server_version",
            "/video/loss_rate",
            "/video/missing_rate",
            "/video/bitrate_bps",
            "/video/fps",
            "/video/jitter_ms",
            "/video/latency_ms",
            "/video/pli_to_keyframe_ms",
            "/video/estimate_bps",
            "/video/layer_switches",
            "/publish/lateness_ms",
            "/publish/estimate_bps",
            "/audio/freezes",
            "/publish/upstream_loss_rate",
            "/recordings",
            "/impairment",
            "/generator/cpu_cores",
            "/generator/cpu_ns_per_packet",
            "/generator/rss_bytes",
            "/server/embedded",
            "/join/phases_ms/dtls",
        ] {
            assert_eq!(json.pointer(pointer), Some(&serde_json::Value::Null), "{pointer}");
        }
        assert_eq!(json["join"]["errors"], serde_json::json!({}));
    }

    #[test]
    fn sections_without_a_part_in_the_run_are_null() {
        let nobody = json(Draft { subscribers: Some(0), ..Draft::default() });
        assert!(nobody["video"].is_null() && nobody["audio"].is_null());
        assert!(nobody["publish"].is_object());
        let only_subscribers = json(Draft {
            video_publishers: Some(0),
            audio_publishers: Some(0),
            ..Draft::default()
        });
        assert!(only_subscribers["publish"].is_null() && only_subscribers["video"].is_object());
        let expected = &only_subscribers["video"]["tracks_expected"];
        assert!(expected.is_null(), "the publishers are not ours");
        let video_only = json(Draft { audio_publishers: Some(0), ..Draft::default() });
        assert!(video_only["audio"].is_null() && video_only["video"].is_object());
    }

    #[test]
    fn shared_screens_are_video_of_this_run() {
        let shared = |screen_share_audio| Draft {
            video_publishers: Some(0),
            audio_publishers: Some(0),
            screen_share_publishers: 1,
            screen_share_audio,
            subscribers: Some(1),
            ..Draft::default()
        };
        for sound in [false, true] {
            let json = json(shared(sound));
            // Of nobody who joined nothing is expected, and that is known.
            assert_eq!(json["video"]["tracks_expected"], 0, "{sound}");
            assert_eq!(json["video"]["layers"]["excused"], serde_json::Value::Null, "{sound}");
            assert_eq!(json["audio"].is_object(), sound);
        }
    }

    #[test]
    fn the_api_secret_is_nowhere_in_the_report() {
        let secret = "hunter2".parse().unwrap();
        let text = serde_json::to_string(&report(Draft {
            url: Some("ws://h:1".to_owned()),
            subscribers: Some(1),
            api_key: Some("k".to_owned()),
            api_secret: Some(secret),
            ..Draft::default()
        }));
        assert!(!text.unwrap().contains("hunter2"));
    }
}
