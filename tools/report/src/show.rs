//! Numbers as people read them.

use stampede_units::show;

use crate::unit::Unit;

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
        Unit::Share => show::share(value),
        Unit::Nanoseconds => format!("{} ns", plain(value)),
        Unit::Milliseconds => format!("{} ms", plain(value)),
        Unit::Seconds => format!("{} s", plain(value)),
        Unit::BitsPerSecond => show::bits_per_second(value),
        Unit::Bytes => show::bytes(value.max(0.0) as u64),
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

/// Rounded to so many decimals.
pub fn round(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}
