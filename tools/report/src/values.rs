//! Values as people write them.

use std::time::Duration;

/// Longest duration that is taken: 30 days. Longer ones are typing errors.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// `90s`, `1m30s`, `500ms`, `1.5s`, `2h`; every number needs its unit (except `0`).
pub fn duration(text: &str) -> Result<Duration, String> {
    const HINT: &str = "write it like 90s, 1m30s or 500ms";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(format!("it is empty; {HINT}"));
    }
    let mut total_s = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits =
            rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let number: f64 = rest[..digits]
            .parse()
            .map_err(|_| format!("'{rest}' does not start with a number; {HINT}"))?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let unit_s = match &rest[..letters] {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "" => return Err(format!("it has a number without a unit; {HINT}")),
            unit => return Err(format!("unknown unit '{unit}'; {HINT}")),
        };
        rest = &rest[letters..];
        total_s += number * unit_s;
    }
    match Duration::try_from_secs_f64(total_s) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err("it is longer than 30 days".to_owned()),
    }
}

/// `1%`, `0.5%`, `100%`; the result is a share of 1. The sign is needed so that `1` is never
/// taken for 100 %.
pub fn percent(text: &str) -> Result<f64, String> {
    const HINT: &str = "write it like 1% or 0.5%";
    let number = text.strip_suffix('%').ok_or_else(|| format!("the % sign is missing; {HINT}"))?;
    let value: f64 =
        number.trim().parse().map_err(|_| format!("'{number}' is not a number; {HINT}"))?;
    if !(0.0..=100.0).contains(&value) {
        return Err("it must lie between 0% and 100%".to_owned());
    }
    Ok(value / 100.0)
}
