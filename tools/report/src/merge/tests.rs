//! Reports of several hosts as one.

use super::*;
use crate::keys;

fn report() -> Report {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/report.json");
    crate::read(file.as_ref()).unwrap()
}

/// Two hosts with the same figures, the second half a second later.
fn pair() -> [Report; 2] {
    let (one, mut two) = (report(), report());
    two.run.id = "second".to_owned();
    let start = humantime::parse_rfc3339(&one.run.started_at).unwrap();
    let later = start + Duration::from_millis(400);
    two.run.started_at = humantime::format_rfc3339_millis(later).to_string();
    [one, two]
}

#[test]
fn two_equal_hosts_have_twice_the_counts_and_the_same_rates_and_percentiles() {
    let [mut one, mut two] = pair();
    // The fixture is of a version that did not know how long could be watched.
    for report in [&mut one, &mut two] {
        report.video.as_mut().unwrap().watch = crate::testing::watched(&[(10, 4), (10, 0)]);
    }
    let merged = merge(&[one.clone(), two]).unwrap();
    let figures = |report: &Report| serde_json::to_value(report).unwrap();
    let (single, both) = (figures(&one), figures(&merged));
    let at = |report, key: &str| keys::value(report, key);
    for key in [
        "join.joined",
        "video.packets.expected",
        "video.packets.missing",
        "video.bitrate_bps",
        "video.jitter_ms.count",
        "video.expected_s",
        "video.interruptions.count",
        "video.interruptions.causes.silent.total_s",
        "audio.frames.complete",
        "publish.packets_sent",
        "generator.packets_in",
        "generator.cpu_cores",
        "join.phases_ms.dtls.count",
    ] {
        let (single, both) = (at(&single, key).unwrap(), at(&both, key).unwrap());
        assert!((both - 2.0 * single).abs() < 1e-6 * both.max(1.0), "{key}");
    }
    for key in [
        "video.loss_rate",
        "video.fps",
        "video.watch_ratio",
        "video.watch_ratio_subscribers.min",
        "video.interruptions.length_s.p50",
        "video.jitter_ms.p99",
        "join.phases_ms.dtls.p50",
    ] {
        assert_eq!(at(&single, key), at(&both, key), "{key}");
    }
    assert_eq!(at(&both, "generator.rss_bytes_per_peer"), None);
    let first = |report: &Report| report.series.iter().map(|row| row.packets_in).sum::<u64>();
    assert_eq!(first(&merged), 2 * first(&one));
    assert_eq!(merged.series.len(), one.series.len());
    assert!(merged.streams.iter().all(|row| row.host.is_some()));
    assert_eq!(merged.run.hosts.as_ref().unwrap().len(), 2);
}

#[test]
fn a_host_that_only_watches_or_only_publishes_makes_nothing_unknown() {
    let [mut one, mut two] = pair();
    one.video.as_mut().unwrap().watch = crate::testing::watched(&[(10, 4), (10, 0)]);
    let sent = one.publish.as_mut().unwrap();
    (sent.counted.upstream_lost, sent.counted.upstream_expected) = (Some(5), Some(1_000));
    two.publish = Some(PublishSection::default());
    two.video = Some(MediaSection {
        tracks_expected: Some(0),
        ..MediaSection::of(&MediaCounters::default(), MediaKind::Video)
    });
    let mut publishing = two.clone();
    let merged = merge(&[one.clone(), two]).unwrap();
    assert_eq!(merged.publish.unwrap().upstream_loss_rate, Some(0.005));
    // What one that does publish does not know is not known.
    publishing.publish.as_mut().unwrap().counted.packets_sent = 7;
    let unknown = merge(&[one.clone(), publishing]).unwrap();
    assert_eq!(unknown.publish.unwrap().upstream_loss_rate, None);
    let (video, own) = (merged.video.unwrap(), one.video.unwrap());
    assert!(own.fps.is_some() && own.watch.watch_ratio.is_some());
    assert_eq!((video.fps, video.watch.watch_ratio), (own.fps, own.watch.watch_ratio));
    assert_eq!(video.tracks_expected, own.tracks_expected);
}

#[test]
fn rows_of_any_length_keep_their_rates() {
    let row = |t_s: f64, length_s: f64, joined: u64| SeriesRow {
        t_s,
        length_s,
        joined,
        packets_in: (100.0 * length_s).round() as u64,
        bitrate_bps: 8_000.0,
        cpu_cores: 0.5,
        ..SeriesRow::default()
    };
    let [mut one, mut two] = pair();
    two.run.started_at.clone_from(&one.run.started_at);
    // The last row falls to the second before it, though it is more than half of one.
    one.series = vec![row(1.0, 1.0, 4), row(1.8, 1.0, 4), row(2.4, 0.6, 0)];
    two.series = vec![row(1.0, 1.0, 6), row(1.5, 0.5, 0)];
    let starts = [&one, &two].map(|one| humantime::parse_rfc3339(&one.run.started_at).unwrap());
    let rows = series(&[one, two], &starts);
    let figures: Vec<_> = rows
        .iter()
        .map(|row| (row.t_s, row.length_s, row.joined, row.packets_in, row.bitrate_bps))
        .collect();
    // In the second bucket the other host was there for 0.5 s of 1.6.
    assert_eq!(figures, [(1.0, 1.0, 10, 200, 16_000.0), (2.0, 1.6, 4, 210, 10_500.0)]);
    assert_eq!((rows[0].cpu_cores, rows[1].cpu_cores), (1.0, 0.656));
}

#[test]
fn cohorts_of_one_name_are_one_and_others_stay() {
    let [mut one, mut two] = pair();
    let cohort = |report: &Report, name: &str, impair: Option<&str>| CohortFigures {
        name: name.to_owned(),
        impair: impair.map(str::to_owned),
        feedback: "none".to_owned(),
        subscribers: 2,
        video: report.video.clone(),
        audio: None,
    };
    one.cohorts = vec![
        cohort(&one, "mobile", Some("loss=1%")),
        cohort(&one, "rest", None),
        cohort(&one, "impair-1", Some("delay=1ms")),
    ];
    two.cohorts = vec![cohort(&two, "rest", None), cohort(&two, "impair-1", Some("delay=2ms"))];
    let merged = merge(&[one.clone(), two]).unwrap();
    let rows: Vec<_> = merged.cohorts.iter().map(|row| (&*row.name, row.subscribers)).collect();
    assert_eq!(rows, [("mobile", 2), ("rest", 4), ("impair-1", 4)]);
    assert_eq!(merged.cohorts[0].impair.as_deref(), Some("loss=1%"));
    assert_eq!(merged.cohorts[2].impair, None, "they differ");
    assert_eq!(merged.cohorts[1].feedback, "none");
    let video = |report: &Report, row: usize| report.cohorts[row].video.clone().unwrap();
    let (single, both) = (video(&one, 1), video(&merged, 1));
    assert_eq!(both.packets.expected, 2 * single.packets.expected);
    let jitter = |section: &MediaSection| section.jitter_ms.clone().unwrap();
    assert_eq!(jitter(&both).count, 2 * jitter(&single).count);
    assert!(merged.cohorts[1].audio.is_none());
    let figures = serde_json::to_value(&merged).unwrap();
    let value = |key| keys::value(&figures, key);
    assert_eq!(value("cohorts.rest.video.packets.expected"), Some(both.packets.expected as f64));
    assert_eq!(value("cohorts.nobody.video.packets.expected"), None);
    let tests: Thresholds = "cohorts.mobile+impair-1.video.loss_rate<1%".parse().unwrap();
    assert_eq!(tests.0[0].limit, 0.01);
    assert!("cohorts.rest.video.los_rate<1%".parse::<Thresholds>().is_err());
}

#[test]
fn the_worst_verdict_counts_and_reasons_have_their_host() {
    let [mut one, mut two] = pair();
    one.run.machine.as_mut().unwrap().hostname = Some("left".to_owned());
    two.run.machine.as_mut().unwrap().hostname = Some("right".to_owned());
    two.verdict = Verdict {
        result: Outcome::Invalid,
        fault: Fault::Generator,
        reasons: vec!["generator: worker 0 was busy".to_owned()],
    };
    let merged = merge(&[one, two]).unwrap();
    assert_eq!(merged.verdict.result, Outcome::Invalid);
    assert_eq!(merged.verdict.fault, Fault::Generator);
    assert_eq!(merged.verdict.reasons[0], "right: generator: worker 0 was busy");
}

#[test]
fn thresholds_are_set_against_the_merged_figures() {
    let [mut one, two] = pair();
    let joined = one.join.counted.joined;
    let tests: Thresholds = format!("join.joined<={joined}").parse().unwrap();
    threshold::add(&mut one, &tests.0);
    assert!(one.thresholds[0].ok);
    let merged = merge(&[one, two]).unwrap();
    assert_eq!(merged.thresholds.len(), 1);
    assert!(!merged.thresholds[0].ok, "twice as many joined");
    assert_eq!(merged.verdict.result, Outcome::Fail);
}

#[test]
fn runs_at_different_times_have_no_common_rate() {
    let [one, mut two] = pair();
    two.run.started_at = "2001-01-01T00:00:00Z".to_owned();
    let merged = merge(&[one, two]).unwrap();
    assert_eq!(merged.video.unwrap().bitrate_bps, None);
    assert_eq!(merged.generator.cpu_cores, None);
}

#[test]
fn the_same_report_twice_and_a_merged_one_are_refused() {
    let [one, two] = pair();
    let twice = merge(&[one.clone(), one.clone()]).unwrap_err();
    assert!(twice.to_string().contains("given twice"));
    let merged = merge(&[one.clone(), two]).unwrap();
    assert!(merge(&[merged, one]).unwrap_err().to_string().contains("already"));
}
