//! Values from what people write.

use std::time::Duration;

use crate::error::DURATION_MAX_DAYS;
use crate::{Quantity, UnitError};

/// The longest duration: 30 days. A longer one is a typing error.
pub const DURATION_MAX: Duration = Duration::from_secs(DURATION_MAX_DAYS * 24 * 3_600);

/// Reads a duration: numbers that each have a unit (`ns`, `us` or `µs`, `ms`, `s` or `sec`, `m` or
/// `min`, `h`, `d`), added up. `90s`, `1m30s`, `1.5s`; `0` alone needs no unit.
///
/// # Errors
/// What is wrong with it, also if it is longer than [`DURATION_MAX`].
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    const QUANTITY: Quantity = Quantity::Duration;
    if text.is_empty() {
        return Err(UnitError::Empty(QUANTITY));
    }
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total_ns) = (text, 0.0);
    while !rest.is_empty() {
        let (number, tail) = split_where(rest, |c| !c.is_ascii_digit() && c != '.');
        let (unit, tail) = split_where(tail, |c| !c.is_alphabetic());
        let number: f64 =
            number.parse().map_err(|_| UnitError::NoNumberAtStart(rest.to_owned()))?;
        let unit_ns = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" | "sec" => 1e9,
            "m" | "min" => 60e9,
            "h" => 3_600e9,
            "d" => 86_400e9,
            "" => return Err(UnitError::NoUnit(QUANTITY)),
            _ => return Err(UnitError::UnknownUnit { unit: unit.to_owned(), quantity: QUANTITY }),
        };
        // Whole nanoseconds are exact in a float up to 104 days.
        total_ns += number * unit_ns;
        rest = tail;
    }
    if total_ns > DURATION_MAX.as_nanos() as f64 {
        return Err(UnitError::TooLong);
    }
    Ok(Duration::from_nanos(total_ns.round() as u64))
}

/// Reads a percentage as a share of 1: `1%` is 0.01. The sign is needed, so that `1` is never
/// taken for 100 %.
///
/// # Errors
/// What is wrong with it, also if it lies outside of 0 % to 100 %.
pub fn percent(text: &str) -> Result<f64, UnitError> {
    let number = text.strip_suffix('%').ok_or(UnitError::NoPercentSign)?;
    within_whole(number, Quantity::Percent, 100.0)
}

/// Reads a share of 1 as a percentage with its sign or as a number from 0 to 1: `10%` or `0.1`.
///
/// # Errors
/// What is wrong with it, also if it lies outside of 0 to 1.
pub fn share(text: &str) -> Result<f64, UnitError> {
    if text.ends_with('%') { percent(text) } else { within_whole(text, Quantity::Share, 1.0) }
}

fn within_whole(number: &str, quantity: Quantity, whole: f64) -> Result<f64, UnitError> {
    let not_a_number = || UnitError::NotANumber { text: number.to_owned(), quantity };
    let value: f64 = number.trim().parse().map_err(|_| not_a_number())?;
    if (0.0..=whole).contains(&value) {
        return Ok(value / whole);
    }
    Err(UnitError::OutsideWhole(quantity))
}

/// Reads a size in bytes: a number and `B`, `kB` or `KB`, `MB`, `GB` (powers of 1,000), `KiB`,
/// `MiB`, `GiB` (powers of 1,024), or no unit. The bounds are the caller's.
///
/// # Errors
/// What is wrong with it.
pub fn bytes(text: &str) -> Result<f64, UnitError> {
    const QUANTITY: Quantity = Quantity::Bytes;
    let (number, unit) = number_and_unit(text, QUANTITY)?;
    let scale = match unit.as_str() {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1_024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        _ => return Err(UnitError::UnknownUnit { unit, quantity: QUANTITY }),
    };
    finite(number * scale, text, QUANTITY)
}

/// Reads bits a second: a number and `bps`, `kbps`, `Mbps` or `Gbps` in any case. The bounds are
/// the caller's.
///
/// # Errors
/// What is wrong with it, also if the unit is missing.
pub fn bits_per_second(text: &str) -> Result<f64, UnitError> {
    const QUANTITY: Quantity = Quantity::BitsPerSecond;
    let (number, unit) = number_and_unit(text, QUANTITY)?;
    let scale = match unit.to_ascii_lowercase().as_str() {
        "bps" => 1.0,
        "kbps" => 1e3,
        "mbps" => 1e6,
        "gbps" => 1e9,
        "" => return Err(UnitError::NoUnit(QUANTITY)),
        _ => return Err(UnitError::UnknownUnit { unit, quantity: QUANTITY }),
    };
    finite(number * scale, text, QUANTITY)
}

/// A number and its unit, which begins after the last digit and may have spaces in it.
fn number_and_unit(text: &str, quantity: Quantity) -> Result<(f64, String), UnitError> {
    if text.is_empty() {
        return Err(UnitError::Empty(quantity));
    }
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map_or(0, |last| last + 1);
    let (number, unit) = text.split_at(end);
    let not_a_number = || UnitError::NotANumber {
        text: if number.is_empty() { text } else { number }.to_owned(),
        quantity,
    };
    let number = number.trim().parse().map_err(|_| not_a_number())?;
    Ok((number, unit.chars().filter(|c| !c.is_whitespace()).collect()))
}

fn finite(value: f64, text: &str, quantity: Quantity) -> Result<f64, UnitError> {
    let not_a_number = || UnitError::NotANumber { text: text.to_owned(), quantity };
    value.is_finite().then_some(value).ok_or_else(not_a_number)
}

fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: std::fmt::Debug>(
        parse: impl Fn(&str) -> Result<T, UnitError>,
        cases: &[(&str, &str)],
    ) {
        for (text, why) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn durations_with_units_add_up() {
        for (text, us) in [
            ("90s", 90_000_000),
            ("90sec", 90_000_000),
            ("1m30s", 90_000_000),
            ("1min30s", 90_000_000),
            ("500ms", 500_000),
            ("1.5s", 1_500_000),
            (".5s", 500_000),
            ("1.s", 1_000_000),
            ("0.0001h", 360_000),
            ("2h", 7_200_000_000),
            ("30d", 2_592_000_000_000),
            ("1h1m1s1ms", 3_661_001_000),
            ("7us", 7),
            ("7µs", 7),
            ("7000ns", 7),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_micros(us)), "{text}");
        }
        refused(
            duration,
            &[
                ("", "it is empty; write it like 90s, 1m30s or 500ms"),
                ("90", "a number without a unit; write it like 90s"),
                ("s", "'s' does not start with a number; write it like 90s"),
                ("-5s", "'-5s' does not start with a number"),
                ("1x", "unknown unit 'x'; write it like 90s"),
                ("1.2.3s", "does not start with a number"),
                ("1s 2s", "' 2s' does not start with a number"),
                ("400d", "longer than 30 days"),
                ("99999999999999999999999999h", "longer than 30 days"),
                ("5µµ", "unknown unit 'µµ'"),
            ],
        );
    }

    #[test]
    fn percentages_need_their_sign_and_shares_may_be_numbers() {
        for (text, share_of_1) in [("1%", 0.01), ("0.5 %", 0.005), ("0%", 0.0), ("100%", 1.0)] {
            assert_eq!((percent(text), share(text)), (Ok(share_of_1), Ok(share_of_1)), "{text}");
        }
        assert_eq!((share("0.1"), share("1"), share("0")), (Ok(0.1), Ok(1.0), Ok(0.0)));
        refused(
            percent,
            &[
                ("1", "the % sign is missing; write it like 1% or 0.5%"),
                ("", "sign is missing"),
                ("x%", "'x' is not a number; write it like 1%"),
                ("%", "not a number"),
                ("101%", "between 0% and 100%"),
                ("-1%", "between"),
                ("NaN%", "between"),
            ],
        );
        refused(
            share,
            &[
                ("10", "between 0% and 100%, like 10% or 0.1"),
                ("ten", "'ten' is not a number; write it like 10% or 0.1"),
            ],
        );
    }

    #[test]
    fn sizes_are_bytes_with_a_unit_or_without() {
        for (text, size) in [
            ("4096", 4_096.0),
            ("1B", 1.0),
            ("64kB", 64_000.0),
            ("64KB", 64_000.0),
            ("2 KiB", 2_048.0),
            ("1.5MiB", 1_572_864.0),
            ("64MB", 64e6),
            ("1.5GB", 1.5e9),
            ("1GiB", 1_073_741_824.0),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        refused(
            bytes,
            &[
                ("", "empty"),
                ("MB", "'MB' is not a number; write it like 256kB or 1MiB"),
                ("1Mb", "unknown unit 'Mb'; write it like 256kB"),
                ("1.2.3kB", "'1.2.3' is not a number"),
            ],
        );
    }

    #[test]
    fn bit_rates_need_a_unit_of_any_case() {
        for (text, rate) in [
            ("64000bps", 64e3),
            ("500kbps", 500e3),
            ("500Kbps", 500e3),
            ("2.5Mbps", 2.5e6),
            ("2 Mbps", 2e6),
            ("2 M bps", 2e6),
            ("1e3kbps", 1e6),
            ("-1bps", -1.0),
            ("1gbps", 1e9),
        ] {
            assert_eq!(bits_per_second(text), Ok(rate), "{text}");
        }
        refused(
            bits_per_second,
            &[
                ("", "empty"),
                ("1", "without a unit; write it like 2Mbps"),
                ("1MB", "unknown unit 'MB'"),
                ("infbps", "'infbps' is not a number"),
                ("1e400bps", "not a number"),
            ],
        );
    }
}
