//! Distributions: HDR histograms inside, `HIST` of design.md §5 outside.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest value told apart, in microseconds (ten minutes); longer ones count as this.
const MICROS_MAX: u64 = 600_000_000;

/// A distribution as the report shows it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Hist {
    /// Number of values.
    pub count: u64,
    /// Smallest.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

impl Hist {
    /// A histogram of microseconds, shown in milliseconds; `None` if it is empty.
    pub(crate) fn of_micros_as_ms(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        // Three decimals: the histogram's own resolution is a microsecond.
        let ms = |micros: f64| micros.round() / 1_000.0;
        let at = |quantile| ms(histogram.value_at_quantile(quantile) as f64);
        Some(Self {
            count: histogram.len(),
            min: ms(histogram.min() as f64),
            mean: ms(histogram.mean()),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(histogram.max() as f64),
        })
    }
}

/// Durations being collected.
#[derive(Debug, Clone)]
pub(crate) struct Samples(Histogram<u64>);

impl Samples {
    /// Empty; three significant digits from a microsecond to ten minutes.
    pub(crate) fn new() -> Self {
        // Both arguments are constants inside the constructor's documented bounds.
        #[allow(clippy::expect_used)]
        Self(Histogram::new_with_max(MICROS_MAX, 3).expect("constant bounds are valid"))
    }

    /// Adds one value.
    pub(crate) fn record(&mut self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    /// As the report shows it, in milliseconds; `None` if nothing was recorded.
    pub(crate) fn as_ms(&self) -> Option<Hist> {
        Hist::of_micros_as_ms(&self.0)
    }
}

impl Default for Samples {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_recorded_is_null_not_zero() {
        assert_eq!(Samples::new().as_ms(), None);
    }

    #[test]
    fn values_come_out_in_milliseconds() {
        let mut samples = Samples::new();
        for ms in 1..=1_000 {
            samples.record(Duration::from_millis(ms));
        }
        let hist = samples.as_ms().unwrap();
        assert_eq!((hist.count, hist.min), (1_000, 1.0));
        for (value, expected) in [(hist.p50, 500.0), (hist.p99, 990.0), (hist.max, 1_000.0)] {
            assert!((value - expected).abs() / expected < 0.002, "{value} for {expected}");
        }
        assert!((hist.mean - 500.5).abs() < 1.0);
    }

    #[test]
    fn absurdly_long_values_saturate() {
        let mut samples = Samples::new();
        samples.record(Duration::from_secs(u64::MAX / 4));
        assert!(samples.as_ms().unwrap().max >= 600_000.0);
    }
}
