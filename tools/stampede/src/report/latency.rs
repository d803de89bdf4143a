//! Latency as the report shows it: the figures, where they come from, or why there are none.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;
use stampede_core::accounting::LatencyCounters;

use super::hist::Hist;

/// Where the latencies come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct LatencySource {
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
    pub unknown_because: Option<&'static str>,
}

impl LatencySource {
    /// From the counts of all streams.
    pub(crate) fn of(counted: &LatencyCounters) -> Self {
        Self {
            packet_trailer: counted.packet_trailer,
            abs_capture_time: counted.abs_capture_time,
            interpolated: counted.interpolated,
            unstamped: counted.unstamped,
            other_clock: counted.other_clock,
            implausible: counted.implausible,
            unknown_because: (counted.measured() == 0).then(|| why_unknown(counted)),
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

/// Latency by height of the picture, as `720p`.
pub(crate) fn by_height(heights: &[(u16, Histogram<u64>)]) -> BTreeMap<String, Hist> {
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
        assert_eq!(reason(none), Some("no complete frame arrived"));
        let foreign = LatencyCounters { other_clock: 9, ..none };
        assert!(reason(foreign).unwrap().contains("clocks not comparable"));
        let bare = LatencyCounters { unstamped: 1, other_clock: 9, ..none };
        assert!(reason(bare).unwrap().contains("no capture time arrived"));
        assert_eq!(reason(LatencyCounters { interpolated: 1, unstamped: 5, ..none }), None);
    }
}
