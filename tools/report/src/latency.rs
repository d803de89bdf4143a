//! Latency as the report shows it: the figures, where they come from, or why there are none.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_core::accounting::LatencyCounters;

use super::hist::Hist;

/// Where the latencies come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LatencySource {
    /// Frames measured by LiveKit's packet trailer.
    pub packet_trailer: u64,
    /// Frames measured by the header extension abs-capture-time.
    pub abs_capture_time: u64,
    /// Frames whose stamp was reckoned from an earlier frame's.
    pub interpolated: u64,
    /// Frames without a stamp.
    pub unstamped: u64,
    /// Frames of publishers that are not this run's.
    pub other_clock: u64,
    /// Frames stamped after their arrival, or absurdly long before: a clock was set.
    pub implausible: u64,
    /// Why there is no latency; `null` if there is.
    pub unknown_because: Option<String>,
}

impl LatencySource {
    /// From the counts of all streams.
    pub fn of(counted: &LatencyCounters) -> Self {
        Self {
            packet_trailer: counted.packet_trailer,
            abs_capture_time: counted.abs_capture_time,
            interpolated: counted.interpolated,
            unstamped: counted.unstamped,
            other_clock: counted.other_clock,
            implausible: counted.implausible,
            unknown_because: (counted.measured() == 0).then(|| why_unknown(counted).to_owned()),
        }
    }
}

fn why_unknown(counted: &LatencyCounters) -> &'static str {
    if counted.implausible > 0 {
        "the wall clock was set during the run"
    } else if counted.unstamped > 0 {
        "no capture time arrived (packet trailer or abs-capture-time)"
    } else if counted.other_clock > 0 {
        "publishers of another host or run: clocks not comparable"
    } else {
        "no complete frame arrived"
    }
}

/// The sums of several hosts; their reason if none of them knows a latency.
pub fn merged_source<'a>(
    sources: impl Iterator<Item = &'a LatencySource> + Clone,
) -> LatencySource {
    let mut sum = LatencySource::default();
    for LatencySource {
        packet_trailer,
        abs_capture_time,
        interpolated,
        unstamped,
        other_clock,
        implausible,
        unknown_because: _,
    } in sources.clone()
    {
        sum.packet_trailer += packet_trailer;
        sum.abs_capture_time += abs_capture_time;
        sum.interpolated += interpolated;
        sum.unstamped += unstamped;
        sum.other_clock += other_clock;
        sum.implausible += implausible;
    }
    let mut reasons = sources.map(|source| source.unknown_because.as_ref());
    sum.unknown_because = reasons
        .try_fold(None, |first, reason| reason.map(|reason| first.or(Some(reason))))
        .flatten()
        .cloned();
    sum
}

/// Latencies of several hosts by height of the picture. A height of which one host's histogram
/// can't be read is left out.
pub fn merged_layers<'a>(
    hosts: impl Iterator<Item = &'a BTreeMap<String, Hist>>,
) -> BTreeMap<String, Hist> {
    let mut heights: BTreeMap<&String, Vec<&Hist>> = BTreeMap::new();
    for (height, hist) in hosts.flatten() {
        heights.entry(height).or_default().push(hist);
    }
    let merged = heights
        .into_iter()
        .filter_map(|(height, hists)| Some((height.clone(), Hist::merged(hists)?)));
    merged.collect()
}

/// Latency by height of the picture, as `720p`.
pub fn by_height(heights: &[(u16, Histogram<u64>)]) -> BTreeMap<String, Hist> {
    let shown = heights.iter().filter_map(|(height, histogram)| {
        Some((format!("{height}p"), Hist::of_micros_as_ms(histogram)?))
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_latency_comes_with_its_reason() {
        let reason = |counted| LatencySource::of(&counted).unknown_because;
        let none = LatencyCounters::default();
        assert_eq!(reason(none).as_deref(), Some("no complete frame arrived"));
        let foreign = LatencyCounters { other_clock: 9, ..none };
        assert!(reason(foreign).unwrap().contains("clocks not comparable"));
        let bare = LatencyCounters { unstamped: 1, other_clock: 9, ..none };
        assert!(reason(bare).unwrap().contains("no capture time arrived"));
        assert_eq!(reason(LatencyCounters { interpolated: 1, unstamped: 5, ..none }), None);
    }

    #[test]
    fn merged_latency_is_unknown_only_if_no_host_knows_any() {
        let none = LatencySource::of(&LatencyCounters { unstamped: 3, ..Default::default() });
        let some = LatencySource::of(&LatencyCounters { packet_trailer: 5, ..Default::default() });
        let both = merged_source([&none, &some].into_iter());
        assert_eq!((both.unstamped, both.packet_trailer, both.unknown_because), (3, 5, None));
        let unknown = merged_source([&none, &none].into_iter());
        assert_eq!((unknown.unstamped, unknown.unknown_because), (6, none.unknown_because));
    }
}
