//! Values as people read them.

use std::fmt;
use std::time::Duration;

/// A duration as [`parse::duration`](crate::parse::duration) reads it back, exactly: a whole
/// number of the largest unit that leaves no rest (`90s`, `1500us`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExactDuration(pub Duration);

impl fmt::Display for ExactDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns")];
        let (unit_ns, unit) =
            units.into_iter().find(|(unit_ns, _)| ns.is_multiple_of(*unit_ns)).unwrap_or((1, "ns"));
        write!(f, "{}{unit}", ns / unit_ns)
    }
}

/// Bits a second, in powers of 1,000: `2.5 Mbps`.
#[must_use]
pub fn bits_per_second(rate_bps: f64) -> String {
    match rate_bps {
        rate if rate >= 1e9 => format!("{:.2} Gbps", rate / 1e9),
        rate if rate >= 1e6 => format!("{:.1} Mbps", rate / 1e6),
        rate => format!("{:.0} kbps", rate / 1e3),
    }
}

/// Bytes, in powers of 1,000: `84.2 MB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes >= 1e9 => format!("{:.2} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.0} kB", bytes / 1e3),
    }
}

/// A share of 1 as a percentage that never shows a small share as none, nor all but a little as
/// all: `0.031 %`.
#[must_use]
pub fn share(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent < 0.001 => "< 0.001 %".to_owned(),
        percent if percent < 1.0 => format!("{percent:.3} %"),
        percent if (99.99..100.0).contains(&percent) => {
            format!("{:.3} %", (percent * 1_000.0).floor() / 1_000.0)
        }
        percent => format!("{percent:.2} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use proptest::prelude::*;

    #[test]
    fn figures_have_few_digits() {
        for (rate_bps, text) in [(999.0, "1 kbps"), (2.5e6, "2.5 Mbps"), (1.25e9, "1.25 Gbps")] {
            assert_eq!(bits_per_second(rate_bps), text);
        }
        for (size, text) in [(0, "0 kB"), (84_200_000, "84.2 MB"), (1_500_000_000, "1.50 GB")] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn a_little_is_not_none_and_all_but_a_little_is_not_all() {
        for (value, text) in [
            (0.0, "0 %"),
            (0.000_000_1, "< 0.001 %"),
            (0.000_31, "0.031 %"),
            (0.4, "40.00 %"),
            (0.999_999_9, "99.999 %"),
            (1.0, "100.00 %"),
        ] {
            assert_eq!(share(value), text);
        }
    }

    proptest! {
        #[test]
        fn an_exact_duration_is_read_back(us in 0..parse::DURATION_MAX.as_micros() as u64, ns in 0..1_000_000_000_u64) {
            for duration in [Duration::from_micros(us), Duration::from_nanos(ns)] {
                let text = ExactDuration(duration).to_string();
                prop_assert_eq!(parse::duration(&text), Ok(duration), "{}", text);
            }
        }
    }
}
