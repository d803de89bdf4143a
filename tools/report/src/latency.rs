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
    /// Frames by what is known of them.
    #[serde(flatten)]
    pub counted: LatencyCounters,
    /// Why there is no latency; `null` if there is.
    pub unknown_because: Option<String>,
}

impl LatencySource {
    /// From the counts of all streams.
    pub fn of(counted: &LatencyCounters) -> Self {
        Self {
            counted: *counted,
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

/// The reason of several hosts, if none of them knows a latency.
pub fn merged_reason<'a>(mut sources: impl Iterator<Item = &'a LatencySource>) -> Option<String> {
    let reason = |source: &'a LatencySource| source.unknown_because.as_ref();
    let first = reason(sources.next()?)?;
    sources.all(|source| reason(source).is_some()).then(|| first.clone())
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
        assert_eq!(merged_reason([&none, &some].into_iter()), None);
        assert_eq!(merged_reason([&none, &none].into_iter()), none.unknown_because);
        assert_eq!(merged_reason([].into_iter()), None);
    }
}
