//! Numbers as people read them.

use crate::keys::Unit;

/// `1234567` as `1,234,567`.
pub fn group(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A figure with its unit, for people.
pub fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Share => share(value),
        Unit::Nanoseconds => format!("{} ns", plain(value)),
        Unit::Milliseconds => format!("{} ms", plain(value)),
        Unit::Seconds => format!("{} s", plain(value)),
        Unit::BitsPerSecond => bits(value),
        Unit::Bytes => bytes(value.max(0.0) as u64),
        Unit::Plain => plain(value),
    }
}

/// Whole numbers grouped, others with up to three decimals.
pub fn plain(value: f64) -> String {
    if value.fract() == 0.0 && (0.0..1e15).contains(&value) {
        return group(value as u64);
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `1.9 Mbps`, `48 kbps`.
pub fn bits(bps: f64) -> String {
    match bps {
        bps if bps >= 1e9 => format!("{:.2} Gbps", bps / 1e9),
        bps if bps >= 1e6 => format!("{:.1} Mbps", bps / 1e6),
        bps => format!("{:.0} kbps", bps / 1e3),
    }
}

/// A share as a percentage that never shows a small loss as 0.
pub fn share(rate: f64) -> String {
    match rate * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent < 0.001 => "< 0.001 %".to_owned(),
        percent if percent < 1.0 => format!("{percent:.3} %"),
        // Nor all but a little as all.
        percent if (99.99..100.0).contains(&percent) => {
            format!("{:.3} %", (percent * 1_000.0).floor() / 1_000.0)
        }
        percent => format!("{percent:.2} %"),
    }
}

/// `84.2 MB`.
pub fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes >= 1e9 => format!("{:.2} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.0} kB", bytes / 1e3),
    }
}

/// Rounded to so many decimals.
pub fn round(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_shares_are_never_shown_as_zero() {
        for (rate, text) in [
            (0.0, "0 %"),
            (1e-7, "< 0.001 %"),
            (0.0001, "0.010 %"),
            (0.0226, "2.26 %"),
            (0.999_996, "99.999 %"),
        ] {
            assert_eq!(share(rate), text);
        }
    }
}
