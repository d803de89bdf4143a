//! Two runs that were not asked for the same: in what they differ, and what their sums are divided
//! by so that they can be compared all the same.

use serde_json::Value;

use super::keys;
use super::types::{Options, Report};
use super::unit::{Unit, unit};

/// Options that differ in any two runs, or say nothing about what was asked for.
const OF_NO_MATTER: [&str; 1] = ["room"];
/// Options that are `null` or empty in reports of versions without them.
const UNKNOWN_IN_OLD: [&str; 6] = [
    "receive_buffer_bytes",
    "packet_ring_bytes",
    "reconnect",
    "audio_red",
    "audio_dtx",
    "transport",
];
/// Names of the figures of a distribution.
const OF_DISTRIBUTIONS: [&str; 9] =
    ["count", "min", "mean", "p50", "p90", "p95", "p99", "p999", "max"];

/// An option that differs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Difference {
    /// As in `run.options`.
    pub name: String,
    /// Of the first run.
    pub base: String,
    /// Of the second.
    pub new: String,
}

/// In which options two runs differ; those of several hosts are set against each other in order.
pub(super) fn differences(base: &Report, new: &Report) -> Vec<Difference> {
    let (of_base, of_new) = (options(base), options(new));
    let difference =
        |name: &str, base: String, new: String| Difference { name: name.to_owned(), base, new };
    if of_base.len() != of_new.len() {
        return vec![difference("hosts", of_base.len().to_string(), of_new.len().to_string())];
    }
    let mut found = Vec::new();
    let url = |report: &Report| match &report.run.target {
        target if target.embedded => "the embedded SFU".to_owned(),
        target => target.url.clone().unwrap_or_else(|| "unknown".to_owned()),
    };
    if url(base) != url(new) {
        found.push(difference("url", url(base), url(new)));
    }
    for (host, (base, new)) in of_base.iter().zip(&of_new).enumerate() {
        let name = if of_base.len() > 1 { format!("host {}: ", host + 1) } else { String::new() };
        let values = [base, new].map(|options| serde_json::to_value(options).unwrap_or_default());
        let mut flat = [Vec::new(), Vec::new()];
        for (value, flat) in values.iter().zip(&mut flat) {
            flatten(value, "", flat);
        }
        let [was, is] = flat;
        let names = was.iter().chain(is.iter().filter(|(name, _)| text(&was, name).is_none()));
        for (option, _) in names.filter(|(name, _)| !OF_NO_MATTER.contains(&name.as_str())) {
            let told = [&was, &is].map(|of| text(of, option));
            let unknown = UNKNOWN_IN_OLD.contains(&option.as_str()) && told.contains(&None);
            let [was, is] = told.map(|told| told.unwrap_or("none"));
            if was != is && !unknown {
                let name = format!("{name}{option}");
                found.push(difference(&name, was.to_owned(), is.to_owned()));
            }
        }
    }
    found
}

/// Of the host, or of each.
fn options(report: &Report) -> Vec<Option<&Options>> {
    match &report.run.hosts {
        Some(hosts) => hosts.iter().map(|host| host.options.as_ref()).collect(),
        None => vec![report.run.options.as_ref()],
    }
}

fn text<'a>(flat: &'a [(String, String)], name: &str) -> Option<&'a str> {
    flat.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
}

/// Options by dotted names, lists as one.
fn flatten(value: &Value, name: &str, flat: &mut Vec<(String, String)>) {
    let text = match value {
        Value::Object(object) => {
            for (key, value) in object {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(value, &name, flat);
            }
            return;
        }
        Value::Null => return,
        Value::Array(list) if list.is_empty() => return,
        Value::Array(list) => {
            let word = |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
            list.iter().map(word).collect::<Vec<_>>().join(", ")
        }
        Value::String(text) if text.is_empty() => return,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    flat.push((name.to_owned(), text));
}

/// What a figure that is a sum is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Per {
    /// It is no sum.
    Nothing,
    /// Each subscriber in each second of the measured window.
    SubscriberSecond,
    /// Each subscriber.
    Subscriber,
    /// Each participant that was to join.
    Participant,
    /// Each published track in each second of the measured window.
    TrackSecond,
}

impl Per {
    /// Behind the figure; [`LEGEND`] says what it means.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::SubscriberSecond => "/sub s",
            Self::Subscriber => "/sub",
            Self::Participant => "/join",
            Self::TrackSecond => "/track s",
        }
    }

    /// Of a figure.
    pub(super) fn of(key: &str) -> Self {
        let (parent, last) = key.rsplit_once('.').unwrap_or(("", key));
        let of_distribution = parent.ends_with("_ms") || parent.ends_with("_s");
        let of_distribution = of_distribution || parent.contains("phases_ms");
        let of_distribution =
            of_distribution || parent.ends_with(".ms") || parent.ends_with("_bps");
        if unit(key) == Unit::Share || of_distribution && OF_DISTRIBUTIONS.contains(&last) {
            return Self::Nothing;
        }
        let key = match kind_of_cohort(key) {
            Some((_, rest)) => rest,
            None => key,
        };
        let section = key.split('.').next().unwrap_or_default();
        match (section, last) {
            (_, "fps" | "cpu_ns_per_packet" | "rss_bytes_per_peer") => Self::Nothing,
            ("join", "requested") | ("publish", "tracks") => Self::Nothing,
            ("join" | "recoveries" | "signalling", _) => Self::Participant,
            ("publish", _) => Self::TrackSecond,
            (
                "video" | "audio",
                "tracks_expected" | "tracks_received" | "streams" | "bitrate_bps",
            )
            | ("video" | "audio", "subscribers")
            | ("generator", "cpu_cores" | "rss_bytes") => Self::Subscriber,
            ("video" | "audio" | "data" | "rpc" | "generator" | "impairment", _) => {
                Self::SubscriberSecond
            }
            _ if key.starts_with("server.embedded.measured.") => Self::SubscriberSecond,
            ("server", "cpu_cores" | "rss_bytes_max" | "participants_max") => Self::Subscriber,
            ("server", _) if key.starts_with("server.metrics.") => Self::SubscriberSecond,
            _ => Self::Nothing,
        }
    }
}

/// What the names of [`Per`] mean.
pub(super) const LEGEND: &str = "sums are compared as rates: /sub s a second and subscriber, /sub a \
                                 subscriber, /join a participant, /track s a second and track";

/// `cohorts.NAME` and `video.…` or `audio.…` of a figure of a cohort; names may hold dots.
fn kind_of_cohort(key: &str) -> Option<(&str, &str)> {
    let key_of = key.strip_prefix("cohorts.").map(|_| key)?;
    let at = key_of.find(".video.").or_else(|| key_of.find(".audio."))?;
    Some((&key_of[..at], &key_of[at + 1..]))
}

/// How much of everything a run had.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Size {
    /// Its measured window, or all of it without one.
    seconds: f64,
    /// Subscribers asked for. Of those that come and go in stages or by their stays, and of rooms of
    /// drawn sizes, the mean of those that were there.
    subscribers: f64,
    participants: f64,
    tracks: f64,
}

impl Size {
    /// Of a report.
    pub(super) fn of(report: &Report) -> Self {
        let run = &report.run;
        let measured_s = match &run.hosts {
            Some(hosts) => hosts.iter().filter_map(|host| host.measured_s).reduce(f64::max),
            None => run.measured_s,
        };
        let seconds = measured_s.unwrap_or(run.duration_s);
        let options = options(report);
        let asked = |options: &Option<&Options>| {
            let steady = |one: &&Options| {
                one.stage.is_empty() && one.stay_s.is_none() && one.room_sizes.is_none()
            };
            let options = options.filter(steady)?;
            let receivers = f64::from(options.subscribers) + f64::from(options.participants);
            Some(receivers * f64::from(options.rooms))
        };
        let asked: Option<f64> = options.iter().map(asked).sum();
        Self {
            seconds,
            subscribers: asked.unwrap_or_else(|| receiving(report, seconds)),
            participants: report.join.counted.requested as f64,
            tracks: report.publish.as_ref().map_or(0.0, |publish| publish.counted.tracks as f64),
        }
    }

    /// What a figure of it is divided by; `None` if that is not known.
    pub(super) fn divisor(&self, key: &str, figures: &Value) -> Option<f64> {
        let of_cohort = kind_of_cohort(key)
            .and_then(|(cohort, _)| keys::value(figures, &format!("{cohort}.subscribers")));
        let subscribers = of_cohort.unwrap_or(self.subscribers);
        let divisor = match Per::of(key) {
            Per::Nothing => 1.0,
            Per::SubscriberSecond => subscribers * self.seconds,
            Per::Subscriber => subscribers,
            Per::Participant => self.participants,
            Per::TrackSecond => self.tracks * self.seconds,
        };
        (divisor > 0.0).then_some(divisor)
    }
}

/// Mean number of subscribers that received in the last `seconds`.
fn receiving(report: &Report, seconds: f64) -> f64 {
    let end_s = report.series.last().map_or(0.0, |row| row.t_s);
    let rows = || report.series.iter().filter(|row| row.t_s > end_s - seconds);
    let length_s: f64 = rows().map(|row| row.length_s).sum();
    let sum: f64 = rows().map(|row| row.subscribers as f64 * row.length_s).sum();
    if length_s > 0.0 { sum / length_s } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/report.json");
        crate::read(file.as_ref()).unwrap()
    }

    #[test]
    fn options_that_differ_are_named_with_both_values_and_rooms_are_not() {
        let base = report();
        assert_eq!(differences(&base, &base), []);
        let mut new = base.clone();
        let options = new.run.options.as_mut().unwrap();
        options.room = "another".to_owned();
        options.subscribers += 7;
        options.impair = vec!["loss=1%".to_owned(), "delay=5ms".to_owned()];
        options.receive_buffer_bytes = None;
        let (was, is) = (options.subscribers - 7, options.subscribers);
        let found = differences(&base, &new);
        let rows: Vec<_> = found.iter().map(|one| (&*one.name, &*one.base, &*one.new)).collect();
        let (was, is) = (was.to_string(), is.to_string());
        assert!(rows.contains(&("subscribers", &was, &is)), "{rows:?}");
        assert!(rows.contains(&("impair", "none", "loss=1%, delay=5ms")), "{rows:?}");
        assert_eq!(rows.len(), 2, "{rows:?}");
        // The older report says nothing of it; of two that do, what they say counts.
        let reconnect = |report: &mut Report, text: &str| {
            report.run.options.as_mut().unwrap().reconnect = text.to_owned();
        };
        reconnect(&mut new, "none");
        assert_eq!(differences(&base, &new).len(), 2);
        let mut base = base.clone();
        reconnect(&mut base, "sdk");
        new.run.options.as_mut().unwrap().fault = vec!["signal_drop".to_owned()];
        let found = differences(&base, &new);
        for one in [("reconnect", "sdk", "none"), ("fault", "none", "signal_drop")] {
            assert!(found.iter().any(|row| (&*row.name, &*row.base, &*row.new) == one), "{one:?}");
        }
        new.run.target.embedded = !new.run.target.embedded;
        assert_eq!(differences(&base, &new)[0].name, "url");
    }

    #[test]
    fn every_sum_knows_what_it_is_a_sum_of() {
        for (key, per) in [
            ("video.packets.expected", Per::SubscriberSecond),
            ("video.freezes.total_s", Per::SubscriberSecond),
            ("video.bitrate_bps", Per::Subscriber),
            ("audio.tracks_received", Per::Subscriber),
            ("video.loss_rate", Per::Nothing),
            ("video.fps", Per::Nothing),
            ("video.latency_ms.p99", Per::Nothing),
            ("video.estimate_bps.p50", Per::Nothing),
            ("video.jitter_ms.count", Per::Nothing),
            ("cohorts.a.b.video.packets.expected", Per::SubscriberSecond),
            ("join.failed", Per::Participant),
            ("join.errors.http_503", Per::Participant),
            ("join.phases_ms.dtls.p99", Per::Nothing),
            ("join.requested", Per::Nothing),
            ("recoveries.resume.failed", Per::Participant),
            ("recoveries.ice_restart.ms.p99", Per::Nothing),
            ("publish.packets_sent", Per::TrackSecond),
            ("publish.upstream_loss_rate", Per::Nothing),
            ("generator.packets_in", Per::SubscriberSecond),
            ("generator.cpu_cores", Per::Subscriber),
            ("generator.cpu_ns_per_packet", Per::Nothing),
            ("server.embedded.measured.packets_sent", Per::SubscriberSecond),
        ] {
            assert_eq!(Per::of(key), per, "{key}");
        }
    }

    #[test]
    fn the_size_of_a_run_is_what_was_asked_for() {
        let mut one = report();
        let options = one.run.options.as_mut().unwrap();
        (options.subscribers, options.rooms) = (30, 2);
        one.run.measured_s = Some(10.0);
        let size = Size::of(&one);
        let figures = serde_json::json!({"cohorts": [{"name": "a.b", "subscribers": 5}]});
        assert_eq!(size.divisor("video.packets.expected", &figures), Some(600.0));
        assert_eq!(size.divisor("cohorts.a.b.video.packets.expected", &figures), Some(50.0));
        assert_eq!(size.divisor("video.bitrate_bps", &figures), Some(60.0));
        // Who comes and goes was not there all the time.
        let most = one.series.iter().map(|row| row.subscribers).max().unwrap() as f64;
        let comes_and_goes: [fn(&mut Options); 3] = [
            |options| options.stage = vec!["5s:9".to_owned()],
            |options| options.stay_s = Some(3.0),
            |options| options.room_sizes = Some("uniform:1-9".to_owned()),
        ];
        for change in comes_and_goes {
            let mut one = one.clone();
            change(one.run.options.as_mut().unwrap());
            let mean = Size::of(&one).subscribers;
            assert!(mean > 0.0 && mean <= most, "{mean} of {most}");
        }
    }
}
