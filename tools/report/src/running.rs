//! The figures of a run that is under way, under the keys of the report; what `abort` thresholds
//! are set against. Counts begin anew with the measured window. What is known only at the end is
//! not there at all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json, to_value};
use stampede_counters::{JoinCounters, MediaCounters, PendingAt, RecoveryGroups, RunCounters};

use super::layers::LayersSection;
use super::types::WatchFigures;

/// Counters that are known only at the end of a run, by what their keys begin with, and why. All
/// others can end a run, and are told to Prometheus.
pub const AT_THE_END: [(&str, &str); 5] = [
    ("join.paths.", "by what somebody came is told with how long it took"),
    ("join.signalling.", "sessions are counted when they end"),
    ("signalling.", "whom nobody told is known once nothing can come any more"),
    ("recordings.", "files are counted when they are closed"),
    ("server.embedded.", "the embedded SFU is asked at the ends of the measured window"),
];

/// Why this counter is known only at the end; `None` if it is not.
pub fn at_the_end(key: &str) -> Option<&'static str> {
    AT_THE_END.iter().find(|(keys, _)| key.starts_with(keys)).map(|(_, why)| *why)
}

/// Watch time so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LiveWatch {
    /// Of video.
    pub video: WatchFigures,
    /// Of audio.
    pub audio: WatchFigures,
    /// Which layers were on the screen.
    pub layers: LayersSection,
    /// Subscribers with a track that is interrupted now.
    pub interrupted: u64,
}

impl LiveWatch {
    /// Of several hosts.
    pub fn merged<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        Self {
            video: WatchFigures::merged(all.clone().map(|one| &one.video)),
            audio: WatchFigures::merged(all.clone().map(|one| &one.audio)),
            layers: LayersSection::merged(all.clone().map(|one| &one.layers)),
            interrupted: all.fold(0, |sum, one| sum.saturating_add(one.interrupted)),
        }
    }
}

/// Joins so far: what [`JoinSection`](crate::types::JoinSection) has before the end, under its keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LiveJoins {
    /// Where participants stand, and what became of their tries.
    #[serde(flatten)]
    pub counted: JoinCounters,
    /// The pending ones by the step they wait for.
    pub pending_at: PendingAt,
    /// Failed and dropped tries by kind.
    pub errors: BTreeMap<String, u64>,
    /// Most participants connected at one moment.
    pub peak: u64,
}

impl LiveJoins {
    /// Adds another host's. Peaks of different moments don't add up: the sum is the most there can
    /// have been.
    pub fn merge(&mut self, other: &Self) {
        self.counted.merge(&other.counted);
        self.pending_at.merge(&other.pending_at);
        for (kind, count) in &other.errors {
            let sum = self.errors.entry(kind.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
        self.peak = self.peak.saturating_add(other.peak);
    }
}

/// The figures now; `counted` is the sum over the workers.
pub fn figures(
    join: &LiveJoins,
    recoveries: &RecoveryGroups,
    watch: &LiveWatch,
    counted: &RunCounters,
) -> Value {
    let mut figures = to_value(counted).unwrap_or_default();
    figures["join"] = to_value(join).unwrap_or_default();
    figures["recoveries"] = to_value(recoveries).unwrap_or_default();
    let kinds = [(&counted.video, &watch.video), (&counted.audio, &watch.audio)];
    for (name, (media, watch)) in ["video", "audio"].into_iter().zip(kinds) {
        add_rates(&mut figures[name], media, watch);
    }
    let layers = &watch.layers;
    figures["video"]["layers"] = json!({
        "lower_ratio": layers.lower_ratio,
        "asked_s": layers.asked_s,
        "lower_s": layers.lower_s,
        "height_px": layers.height_px.map_or_else(
            || json!({"p5": null, "p50": null, "mean": null}),
            |height| to_value(height).unwrap_or_default(),
        ),
    });
    // Audio has no freezes.
    if let Some(audio) = figures["audio"].as_object_mut() {
        audio.remove("freezes");
    }
    for (name, messages) in counted.data.named() {
        figures["data"][name]["loss_rate"] = messages.loss_rate().into();
    }
    figures["rpc"]["failure_rate"] = counted.rpc.failure_rate().into();
    figures["publish"]["upstream_loss_rate"] = counted.publish.upstream_loss_rate().into();
    figures
}

/// What is no counter.
fn add_rates(section: &mut Value, counters: &MediaCounters, watch: &WatchFigures) {
    let gaps = &watch.interruptions;
    let causes: serde_json::Map<String, Value> = gaps
        .causes
        .named()
        .map(|(name, of)| (name.to_owned(), json!({"count": of.count, "total_s": of.total_s})))
        .collect();
    section["tracks_received"] = counters.streams.received.into();
    section["loss_rate"] = counters.packets.loss_rate().into();
    section["missing_rate"] = counters.packets.missing_rate().into();
    section["watch_ratio"] = watch.watch_ratio.into();
    section["expected_s"] = watch.expected_s.into();
    section["played_s"] = watch.played_s.into();
    section["short_gaps_s"] = watch.short_gaps_s.into();
    section["short_gaps_on_purpose_s"] = watch.short_gaps_on_purpose_s.into();
    section["interruptions"] = json!({
        "count": gaps.count,
        "subscribers": gaps.subscribers,
        "total_s": gaps.total_s,
        "causes": causes,
    });
}

/// Which figures there are.
pub fn shape() -> Value {
    figures(
        &LiveJoins::default(),
        &RecoveryGroups::default(),
        &LiveWatch::default(),
        &RunCounters::default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys;

    #[test]
    fn watch_time_ends_a_run_as_soon_as_it_is_known() {
        use std::time::Duration;

        use crate::testing::watched;
        use crate::threshold::{Thresholds, crossed};

        let running = |video| {
            let watch = LiveWatch { video, ..LiveWatch::default() };
            figures(
                &LiveJoins::default(),
                &RecoveryGroups::default(),
                &watch,
                &RunCounters::default(),
            )
        };
        for (expr, value) in [
            ("video.watch_ratio>=99% abort", 0.8),
            ("video.interruptions.count==0 abort", 1.0),
            ("video.interruptions.total_s<2s abort", 4.0),
            ("video.interruptions.causes.silent.count<1 abort", 1.0),
        ] {
            let tests = expr.parse::<Thresholds>().unwrap().0;
            let looked =
                |figures| crossed(&tests, &running(figures), Duration::ZERO).map(|one| one.1);
            assert_eq!(looked(watched(&[(10, 4), (10, 0)])), Some(value), "{expr}");
            assert_eq!(looked(watched(&[(10, 0), (10, 0)])), None, "{expr}");
            assert_eq!(looked(WatchFigures::default()), None, "nothing known: {expr}");
        }
        let error = "video.interruptions.length_s.p50<2s abort".parse::<Thresholds>().unwrap_err();
        assert!(error.contains("known only at the end"), "{error}");
    }

    #[test]
    fn what_goes_on_on_several_hosts_is_added_up() {
        let joins = |joined, refused| LiveJoins {
            counted: JoinCounters { requested: 9, joined, ..JoinCounters::default() },
            errors: [("http_503".to_owned(), refused)].into(),
            peak: joined,
            ..LiveJoins::default()
        };
        let mut both = joins(3, 1);
        both.merge(&joins(4, 2));
        assert_eq!((both.counted.requested, both.counted.joined, both.peak), (18, 7, 7));
        assert_eq!(both.errors["http_503"], 3);
        let watched = |silent| LiveWatch {
            video: crate::testing::watched(&[(10, silent)]),
            interrupted: 1,
            ..LiveWatch::default()
        };
        let watch = LiveWatch::merged([watched(4), watched(0)].iter());
        assert_eq!((watch.video.watch_ratio, watch.interrupted), (Some(0.8), 2));
        assert_eq!(watch.audio.watch_ratio, None, "of audio nothing is known");
    }

    #[test]
    fn running_figures_have_the_keys_of_the_report_and_null_where_nothing_is_known() {
        fn leaves(value: &Value, name: &str, keys: &mut Vec<String>) {
            match value.as_object() {
                Some(object) => {
                    for (key, value) in object {
                        let name = format!("{name}.{key}");
                        leaves(value, name.trim_start_matches('.'), keys);
                    }
                }
                None => keys.push(name.to_owned()),
            }
        }
        let shape = shape();
        let mut all = Vec::new();
        leaves(&shape, "", &mut all);
        let known = keys::Keys::of_schema();
        assert!(all.len() > 40);
        for key in all.iter().filter(|key| *key != "join.errors") {
            assert_eq!(known.check(key), Ok(()), "{key}");
        }
        assert_eq!(keys::value(&shape, "video.loss_rate"), None);
    }
}
