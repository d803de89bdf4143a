//! Reports of several hosts as one: counts are added up, histograms merged as histograms, seconds
//! aligned by the clock. What can't be merged is `null`.
//!
//! Structures are taken apart field by field, so that the compiler asks for a rule when one gets a
//! new field.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use stampede_core::MediaKind;
use stampede_counters::{
    Figure, GeneratorCounters, MediaCounters, PublishCounters, RecordingCounters,
};

use super::hist::Hist;
use super::latency::{self, LatencySource};
use super::layers::LayersSection;
use super::threshold::{self, Threshold, Thresholds};
use super::types::{
    CohortFigures, DataSection, Fault, FaultRow, GeneratorSection, HostSection, ImpairmentSection,
    JoinPaths, JoinSection, MediaSection, Outcome, PendingAt, Phases, PublishSection,
    RecordingSection, RecoveriesSection, Report, RpcSection, RunSection, SCHEMA, SeriesRow,
    ServerMetrics, ServerSection, SignallingSection, StageRow, TargetSection, Verdict,
    WatchFigures, WatchSection, worst,
};
use crate::Failure;
use crate::sections::Latencies;
use crate::show::round;

/// How much of the longest host's run all others must share for rates to be added up.
const OVERLAP_MIN: f64 = 0.9;
/// Most seconds between the first and the last row of a merged series.
const SERIES_S_MAX: u64 = 7 * 86_400;

/// Merges two or more reports.
///
/// # Errors
/// Exit code 104: a report was merged already, or is given twice, or its start is no date.
pub fn merge(reports: &[Report]) -> Result<Report, Failure> {
    let mut starts = Vec::new();
    for (index, report) in reports.iter().enumerate() {
        let run = &report.run;
        if run.hosts.is_some() {
            return Err(Failure::config(format!(
                "the report of run {} is of several hosts already: merge theirs instead",
                run.id
            )));
        }
        let twin = reports[..index]
            .iter()
            .any(|other| other.run.id == run.id && other.run.started_at == run.started_at);
        if twin {
            return Err(Failure::config(format!("the report of run {} is given twice", run.id)));
        }
        starts.push(humantime::parse_rfc3339(&run.started_at).map_err(|error| {
            Failure::config(format!("run {}: its started_at is no date: {error}", run.id))
        })?);
    }
    let hosts = host_names(reports);
    let together = overlap(reports, &starts);
    let series = series(reports, &starts);
    let mut merged = Report {
        schema: SCHEMA.to_owned(),
        run: run(reports, &starts, &hosts, together),
        verdict: verdict(reports, &hosts),
        join: join(reports, &series),
        recoveries: RecoveriesSection::merged(reports.iter().map(|report| &report.recoveries)),
        faults: faults(reports, &hosts),
        signalling: SignallingSection::merged(reports.iter().map(|report| &report.signalling)),
        video: media(&present(reports, |report| report.video.as_ref()), together),
        audio: media(&present(reports, |report| report.audio.as_ref()), together),
        cohorts: cohorts(reports.iter().map(|report| &report.cohorts), together),
        publish: publish(&present(reports, |report| report.publish.as_ref())),
        data: DataSection::merged(&present(reports, |report| report.data.as_ref())),
        rpc: RpcSection::merged(&present(reports, |report| report.rpc.as_ref())),
        impairment: impairment(&present(reports, |report| report.impairment.as_ref())),
        recordings: recordings(&present(reports, |report| report.recordings.as_ref())),
        captures: reports.iter().flat_map(|report| report.captures.iter().cloned()).collect(),
        find: None,
        watch: WatchSection::merged(reports.iter().map(|report| report.watch.as_ref()).zip(&hosts)),
        generator: generator(reports, &hosts, together),
        server: server(reports),
        series,
        thresholds: Vec::new(),
        streams: Vec::new(),
        streams_total: counts(reports.iter().map(|report| report.streams_total)),
        all_streams: Vec::new(),
        lacks: Vec::new(),
    };
    for (report, host) in reports.iter().zip(&hosts) {
        let named = report.streams.iter().cloned().map(|mut row| {
            row.host = Some(host.clone());
            row
        });
        merged.all_streams.extend(named);
    }
    merged.streams = worst(&merged.all_streams);
    apply_thresholds(&mut merged, reports);
    Ok(merged)
}

/// Each host's own: what was done there was done to its participants.
fn faults(reports: &[Report], hosts: &[String]) -> Vec<FaultRow> {
    let rows = reports.iter().zip(hosts).flat_map(|(report, host)| {
        report.faults.iter().map(|row| FaultRow { host: Some(host.clone()), ..row.clone() })
    });
    rows.collect()
}

/// What all hosts injected; their cohorts one after the other.
fn impairment(sections: &[&ImpairmentSection]) -> Option<ImpairmentSection> {
    let mut merged = ImpairmentSection::default();
    for section in sections {
        merged.all.merge(&section.all);
        merged.cohorts.extend(section.cohorts.iter().cloned());
    }
    (!sections.is_empty()).then_some(merged)
}

/// Hostnames, told apart by a number where two are alike or unknown.
fn host_names(reports: &[Report]) -> Vec<String> {
    let name = |report: &Report| {
        let machine = report.run.machine.as_ref();
        machine.and_then(|machine| machine.hostname.clone()).unwrap_or_else(|| "host".to_owned())
    };
    let names: Vec<String> = reports.iter().map(name).collect();
    let alone = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
    let number = |(index, name): (usize, &String)| match alone(name) {
        true => name.clone(),
        false => format!("{name}#{}", index + 1),
    };
    names.iter().enumerate().map(number).collect()
}

fn present<'a, T>(reports: &'a [Report], part: impl Fn(&'a Report) -> Option<&'a T>) -> Vec<&'a T> {
    reports.iter().filter_map(part).collect()
}

/// When a run ended; its start if the file's duration leads nowhere.
fn end(report: &Report, start: SystemTime) -> SystemTime {
    let duration = Duration::try_from_secs_f64(report.run.duration_s).unwrap_or_default();
    start.checked_add(duration).unwrap_or(start)
}

/// True if the runs went on at the same time, so that their rates add up.
fn overlap(reports: &[Report], starts: &[SystemTime]) -> bool {
    let ends = reports.iter().zip(starts).map(|(report, start)| end(report, *start));
    let (Some(last_start), Some(first_end)) = (starts.iter().max(), ends.min()) else {
        return false;
    };
    let shared_s = first_end.duration_since(*last_start).unwrap_or_default().as_secs_f64();
    let longest_s = reports.iter().map(|report| report.run.duration_s).fold(0.0, f64::max);
    longest_s > 0.0 && shared_s >= OVERLAP_MIN * longest_s
}

fn run(reports: &[Report], starts: &[SystemTime], hosts: &[String], together: bool) -> RunSection {
    let first = starts.iter().min().copied().unwrap_or(SystemTime::UNIX_EPOCH);
    let ends = reports.iter().zip(starts).map(|(report, start)| {
        start.duration_since(first).unwrap_or_default().as_secs_f64() + report.run.duration_s
    });
    let ids: Vec<&str> = reports.iter().map(|report| report.run.id.as_str()).collect();
    let same = |values: Vec<Option<&String>>| match values.split_first() {
        Some((first, rest)) if rest.iter().all(|value| value == first) => first.cloned(),
        _ => None,
    };
    let target = |report: &'_ Report| report.run.target.clone();
    let targets: Vec<TargetSection> = reports.iter().map(target).collect();
    RunSection {
        id: ids.join("+"),
        started_at: humantime::format_rfc3339_millis(first).to_string(),
        duration_s: round(ends.fold(0.0, f64::max), 3),
        measured_s: None,
        interrupted: reports.iter().any(|report| report.run.interrupted),
        target: TargetSection {
            url: same(targets.iter().map(|target| target.url.as_ref()).collect()),
            embedded: targets.iter().all(|target| target.embedded),
            server_version: same(
                targets.iter().map(|target| target.server_version.as_ref()).collect(),
            ),
        },
        options: None,
        seed: None,
        machine: None,
        stampede_version: env!("CARGO_PKG_VERSION").to_owned(),
        hosts: Some(
            reports.iter().zip(hosts).map(|(report, host)| host_section(report, host)).collect(),
        ),
        stages: StageRow::merged(
            reports.iter().map(|report| report.run.stages.as_deref()),
            together,
        ),
    }
}

fn host_section(report: &Report, host: &str) -> HostSection {
    let run = &report.run;
    HostSection {
        host: host.to_owned(),
        id: run.id.clone(),
        started_at: run.started_at.clone(),
        duration_s: run.duration_s,
        measured_s: run.measured_s,
        options: run.options.clone(),
        seed: run.seed,
        machine: run.machine.clone(),
        verdict: report.verdict.clone(),
        stampede_version: Some(run.stampede_version.clone()),
        clock: None,
        lost: None,
    }
}

/// That of the worst host, with everybody's reasons.
fn verdict(reports: &[Report], hosts: &[String]) -> Verdict {
    let rank = |outcome| match outcome {
        Outcome::Pass => 0,
        Outcome::Fail => 1,
        Outcome::Invalid => 2,
        Outcome::Interrupted => 3,
    };
    let fault = |fault| u8::from(fault != Fault::None);
    let worst = reports
        .iter()
        .map(|report| &report.verdict)
        .max_by_key(|verdict| (rank(verdict.result), fault(verdict.fault)));
    let mut order: Vec<_> = reports.iter().zip(hosts).collect();
    order.sort_by_key(|(report, _)| std::cmp::Reverse(rank(report.verdict.result)));
    let reasons = order.into_iter().flat_map(|(report, host)| {
        report.verdict.reasons.iter().map(move |reason| format!("{host}: {reason}"))
    });
    Verdict {
        result: worst.map_or(Outcome::Pass, |verdict| verdict.result),
        fault: worst.map_or(Fault::None, |verdict| verdict.fault),
        reasons: reasons.collect(),
    }
}

fn join(reports: &[Report], series: &[SeriesRow]) -> JoinSection {
    let mut sum = JoinSection {
        pending_at: Some(PendingAt::default()),
        paths: Some(JoinPaths::default()),
        ..JoinSection::default()
    };
    let mut by_path: BTreeMap<&str, Vec<&Phases>> = BTreeMap::new();
    for JoinSection {
        counted,
        pending_at,
        errors,
        error_texts,
        paths,
        signalling,
        peak: _,
        phases_ms: _,
        phases_ms_by_path,
    } in reports.iter().map(|report| &report.join)
    {
        sum.counted.merge(counted);
        sum.pending_at = sum.pending_at.zip(*pending_at).map(|(mut sum, own)| {
            sum.merge(&own);
            sum
        });
        sum.signalling.merge(signalling);
        for (kind, count) in errors {
            sum.errors.entry(kind.clone()).or_default().merge(count);
        }
        for (kind, text) in error_texts {
            sum.error_texts.entry(kind.clone()).or_insert_with(|| text.clone());
        }
        sum.paths = sum.paths.zip(*paths).map(|(mut sum, own)| {
            sum.merge(&own);
            sum
        });
        for (path, own) in phases_ms_by_path {
            by_path.entry(path).or_default().push(own);
        }
    }
    // Peaks of different moments don't add up; seconds do.
    sum.peak = series.iter().map(|row| row.joined).max();
    let all: Vec<_> = reports.iter().map(|report| &report.join.phases_ms).collect();
    sum.phases_ms = phases(&all);
    let by_path = by_path.into_iter();
    sum.phases_ms_by_path = by_path.map(|(path, own)| (path.to_owned(), phases(&own))).collect();
    sum
}

fn phases(all: &[&Phases]) -> Phases {
    let mut lists: [Vec<Option<&Hist>>; 6] = Default::default();
    for own in all {
        for (list, (_, hist)) in lists.iter_mut().zip(own.named()) {
            list.push(hist);
        }
    }
    let [websocket, signal, ice, dtls, first_packet, first_keyframe] =
        lists.map(|list| hists(&list));
    Phases { websocket, signal, ice, dtls, first_packet, first_keyframe }
}

/// Hosts without values have nothing to add; one whose histogram can't be read makes it unknown.
fn hists(list: &[Option<&Hist>]) -> Option<Hist> {
    Hist::merged(list.iter().copied().flatten())
}

/// At most the largest number there is.
fn counts(all: impl Iterator<Item = u64>) -> u64 {
    u64::sum_of(all).unwrap_or_default()
}

/// The same, if every host knows its part.
fn known(all: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    Option::sum_of(all).flatten()
}

pub(super) fn media(all: &[&MediaSection], together: bool) -> Option<MediaSection> {
    // A host that only publishes knows no rate, and has nothing to add to one.
    let sections = busy(all, |one| {
        one.counters() != MediaCounters::default() || one.watch.expected_s.is_some()
    });
    let counted = MediaCounters::sum_of(sections.iter().map(|section| section.counters()))?;
    let freezes = sections.iter().all(|section| section.freezes.is_some());
    let kind = if freezes { MediaKind::Video } else { MediaKind::Audio };
    let list = |part: fn(&MediaSection) -> Option<&Hist>| {
        hists(&sections.iter().map(|section| part(section)).collect::<Vec<_>>())
    };
    // Each host's rate weighs as much as its tracks were expected.
    let expected_s: Option<f64> = sections.iter().map(|section| section.watch.expected_s).sum();
    let pictures = sections.iter().map(|section| Some(section.fps? * section.watch.expected_s?));
    let pictures: Option<f64> = pictures.sum();
    let rates: Option<f64> = sections.iter().map(|section| section.bitrate_bps).sum();
    Some(MediaSection {
        tracks_expected: known(all.iter().map(|section| section.tracks_expected)),
        tracks_received: counts(sections.iter().map(|section| section.tracks_received)),
        bitrate_bps: rates.filter(|_| together),
        fps: pictures
            .zip(expected_s)
            .filter(|(_, expected_s)| *expected_s > 0.0)
            .map(|(pictures, expected_s)| round(pictures / expected_s, 2)),
        watch: WatchFigures::merged(sections.iter().map(|section| &section.watch)),
        layers: freezes.then(|| {
            LayersSection::merged(sections.iter().filter_map(|section| section.layers.as_ref()))
        }),
        jitter_ms: list(|section| section.jitter_ms.as_ref()),
        latency_ms: list(|section| section.latency_ms.as_ref()),
        latency_layers_ms: latency::merged_layers(
            sections.iter().map(|section| &section.latency_layers_ms),
        ),
        latency_source: LatencySource {
            counted: counted.latency,
            unknown_because: latency::merged_reason(
                sections.iter().map(|section| &section.latency_source),
            ),
        },
        pli_to_keyframe_ms: list(|section| section.pli_to_keyframe_ms.as_ref()),
        estimate_bps: Hist::merged_bps(
            sections.iter().filter_map(|section| section.estimate_bps.as_ref()),
        ),
        ..MediaSection::of(&counted, kind)
    })
}

/// Those that have anything, if one has.
fn busy<'a, T>(all: &[&'a T], has_any: impl Fn(&T) -> bool) -> Vec<&'a T> {
    let busy: Vec<&T> = all.iter().copied().filter(|one| has_any(one)).collect();
    if busy.is_empty() { all.to_vec() } else { busy }
}

fn publish(all: &[&PublishSection]) -> Option<PublishSection> {
    // Nobody reports to a host that publishes nothing.
    let sections = busy(all, |one| one.counted != PublishCounters::default());
    let counted = PublishCounters::sum_of(sections.iter().map(|section| section.counted))?;
    let late: Vec<_> = sections.iter().map(|section| section.lateness_ms.as_ref()).collect();
    Some(PublishSection {
        counted,
        upstream_loss_rate: counted.upstream_loss_rate(),
        lateness_ms: hists(&late),
        estimate_bps: Hist::merged_bps(
            sections.iter().filter_map(|section| section.estimate_bps.as_ref()),
        ),
    })
}

fn recordings(sections: &[&RecordingSection]) -> Option<RecordingSection> {
    let counted = RecordingCounters::sum_of(sections.iter().map(|section| section.counted))?;
    let all = |part: fn(&RecordingSection) -> &Vec<String>| {
        sections.iter().flat_map(|section| part(section)).cloned().collect()
    };
    let dirs: Vec<&str> = sections.iter().map(|section| section.dir.as_str()).collect();
    Some(RecordingSection {
        dir: dirs.join(", "),
        files: all(|section| &section.files),
        counted,
        errors: all(|section| &section.errors),
    })
}

fn generator(reports: &[Report], hosts: &[String], together: bool) -> GeneratorSection {
    let sections: Vec<_> = reports.iter().map(|report| &report.generator).collect();
    let words = |part: fn(&GeneratorSection) -> &String| {
        let mut words: Vec<&str> = sections.iter().map(|one| part(one).as_str()).collect();
        words.sort_unstable();
        words.dedup();
        words.join(", ")
    };
    let cpu_s: f64 = sections.iter().map(|section| section.cpu_s).sum();
    let counted = GeneratorCounters::sum_of(sections.iter().map(|section| section.counted));
    let counted = counted.unwrap_or_default();
    let packets = counted.udp.datagrams();
    let cpu_cores: Option<f64> = sections.iter().map(|one| one.cpu_cores).sum();
    let workers = sections.iter().zip(hosts).flat_map(|(section, host)| {
        section.workers.iter().cloned().map(|mut worker| {
            worker.host = Some(host.clone());
            worker
        })
    });
    GeneratorSection {
        backend: words(|one| &one.backend),
        backend_reason: words(|one| &one.backend_reason),
        workers: workers.collect(),
        cpu_s: round(cpu_s, 3),
        cpu_cores: cpu_cores.filter(|_| together),
        counted,
        cpu_ns_per_packet: (packets > 0).then(|| (cpu_s * 1e9 / packets as f64).round()),
        rss_bytes: known(sections.iter().map(|one| one.rss_bytes)),
        rss_bytes_per_peer: None,
    }
}

/// An embedded SFU belongs to one host; several of them are no server. Several hosts may have
/// scraped the same server, so only the figures of a single scraper stand; what it set them against
/// is not all that the server sent.
fn server(reports: &[Report]) -> ServerSection {
    let embedded = present(reports, |report| report.server.embedded.as_ref());
    let metrics = present(reports, |report| report.server.metrics.as_ref());
    ServerSection {
        embedded: match embedded[..] {
            [one] => Some(one.clone()),
            _ => None,
        },
        embedded_missing: match embedded[..] {
            [] => reports.iter().find_map(|report| report.server.embedded_missing.clone()),
            _ => None,
        },
        metrics: match metrics[..] {
            [one] => Some(ServerMetrics { reconciliation: None, ..one.clone() }),
            _ => None,
        },
    }
}

/// One row for each second of the clock in which a host has one. Hosts' rows fall half a second
/// off the mark at most.
fn series(reports: &[Report], starts: &[SystemTime]) -> Vec<SeriesRow> {
    let Some(first) = starts.iter().min() else { return Vec::new() };
    let scrapers = reports.iter().filter(|report| report.server.metrics.is_some()).count();
    let mut seconds: BTreeMap<u64, (SeriesRow, Latencies)> = BTreeMap::new();
    for (report, start) in reports.iter().zip(starts) {
        let offset_s = start.duration_since(*first).unwrap_or_default().as_secs_f64().round();
        for (second, (own, own_latencies)) in host_seconds(&report.series, offset_s) {
            let (sum, latencies) = seconds.entry(second).or_default();
            latencies.merge(own_latencies);
            sum.t_s = second as f64;
            sum.length_s = sum.length_s.max(own.length_s);
            sum.planned.merge(&own.planned);
            sum.joined.merge(&own.joined);
            sum.interrupted.merge(&own.interrupted);
            sum.subscribers.merge(&own.subscribers);
            add(sum, &own, 1.0);
            if scrapers == 1 && own.server.is_some() {
                sum.server = own.server;
            }
        }
    }
    let rows = seconds.into_values().map(|(mut row, latencies)| {
        let a_second = |sum: f64| if row.length_s > 0.0 { sum / row.length_s } else { 0.0 };
        row.bitrate_bps = a_second(row.bitrate_bps).round();
        row.cpu_cores = round(a_second(row.cpu_cores), 3);
        row.length_s = round(row.length_s, 3);
        latencies.fill(&mut row);
        row
    });
    rows.collect()
}

/// The rows of one host by second of the clock; the rates in them are sums over their length yet.
/// What was left of the last second may fall into the same as the row before it, and the two are
/// then one longer row.
fn host_seconds(rows: &[SeriesRow], offset_s: f64) -> BTreeMap<u64, (SeriesRow, Latencies)> {
    let mut seconds: BTreeMap<u64, (SeriesRow, Latencies)> = BTreeMap::new();
    for row in rows {
        let second = (offset_s + row.t_s.round()).max(0.0) as u64;
        if second > SERIES_S_MAX {
            continue;
        }
        let (sum, latencies) = seconds.entry(second).or_default();
        latencies.add(row);
        let length_s = row.length_s.max(0.0);
        sum.length_s += length_s;
        // Nobody is there any more in a last row.
        sum.planned = sum.planned.max(row.planned);
        sum.joined = sum.joined.max(row.joined);
        sum.subscribers = sum.subscribers.max(row.subscribers);
        sum.interrupted = sum.interrupted.max(row.interrupted);
        add(sum, row, length_s);
        if row.server.is_some() {
            sum.server.clone_from(&row.server);
        }
    }
    seconds
}

/// The same second of several hosts as one.
pub fn second<'a>(hosts: impl Iterator<Item = &'a SeriesRow>) -> SeriesRow {
    let (mut sum, mut latencies) = (SeriesRow::default(), Latencies::default());
    for own in hosts {
        latencies.add(own);
        sum.t_s = sum.t_s.max(own.t_s);
        sum.length_s = sum.length_s.max(own.length_s);
        sum.planned.merge(&own.planned);
        sum.joined.merge(&own.joined);
        sum.interrupted.merge(&own.interrupted);
        sum.subscribers.merge(&own.subscribers);
        add(&mut sum, own, 1.0);
    }
    latencies.fill(&mut sum);
    sum
}

/// Adds counts, and rates with this weight.
fn add(sum: &mut SeriesRow, row: &SeriesRow, weight: f64) {
    let SeriesRow {
        t_s: _,
        // What goes on side by side does not add up to a longer time; that is the caller's.
        length_s: _,
        planned: _,
        joined: _,
        subscribers: _,
        interrupted: _,
        packets_in,
        packets_out,
        bitrate_bps,
        media,
        counters,
        cpu_cores,
        busy_ratio_max,
        lateness_ms_max,
        // Percentiles of several hosts make no percentile: [`Latencies`].
        latency_ms_p50: _,
        latency_ms_p95: _,
        latency_ms_p99: _,
        latency_hdr: _,
        server: _,
    } = row;
    sum.packets_in.merge(packets_in);
    sum.packets_out.merge(packets_out);
    sum.bitrate_bps += bitrate_bps * weight;
    sum.media.merge(media);
    sum.counters.merge(counters);
    sum.cpu_cores += cpu_cores * weight;
    sum.busy_ratio_max = sum.busy_ratio_max.max(*busy_ratio_max);
    sum.lateness_ms_max = sum.lateness_ms_max.max(*lateness_ms_max);
}

/// Every threshold of every host, set against the merged figures. One that ended a host's run
/// stays failed.
fn apply_thresholds(merged: &mut Report, reports: &[Report]) {
    let rows = || reports.iter().flat_map(|report| &report.thresholds);
    let mut tests: Vec<Threshold> = Vec::new();
    for row in rows() {
        // What a file holds may be of a later version.
        let Ok(Thresholds(parsed)) = row.expr.parse::<Thresholds>() else { continue };
        for test in parsed {
            if !tests.iter().any(|other| other.expr == test.expr) {
                tests.push(test);
            }
        }
    }
    threshold::apply(merged, &tests, None);
    for row in &mut merged.thresholds {
        let ended = rows().find(|other| other.aborted && other.expr == row.expr);
        if let Some(ended) = ended {
            *row = ended.clone();
        }
    }
}

/// Cohorts of several hosts: those of one name are one. `together` as for all media.
fn cohorts<'a>(
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
            media(&sections, together)
        };
        // Several hosts may do different things to what they call by one name.
        let impair = rows[0].impair.clone();
        CohortFigures {
            name: rows[0].name.clone(),
            impair: impair.filter(|spec| rows.iter().all(|row| row.impair.as_ref() == Some(spec))),
            feedback: match rows.iter().all(|row| row.feedback == rows[0].feedback) {
                true => rows[0].feedback.clone(),
                false => String::new(),
            },
            subscribers: counts(rows.iter().map(|row| row.subscribers)),
            video: section(|row| row.video.as_ref()),
            audio: section(|row| row.audio.as_ref()),
        }
    };
    by_name.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests;
