//! Values of a spec. Errors are the end of a sentence that begins with `key=value: `.

use std::time::Duration;

/// Longest duration: a day. Longer ones are typing errors.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// `1%`, `0.5%` as a share of 1, above 0.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').ok_or("the % sign is missing; write it like 1% or 0.5%")?;
    match number.trim().parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 100.0 => Ok(value / 100.0),
        Ok(_) => Err("it must be above 0% and at most 100%".to_owned()),
        Err(_) => Err("that is no number; write it like 1% or 0.5%".to_owned()),
    }
}

/// `50ms`, `1.5s`, `1m30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const HINT: &str = "write it like 50ms, 1.5s or 1m30s";
    let (mut rest, mut seconds) = (text, 0.0);
    if rest.is_empty() {
        return Err(format!("it is empty; {HINT}"));
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: f64 = number.parse().map_err(|_| format!("that is no duration; {HINT}"))?;
        seconds += number
            * match unit {
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3_600.0,
                "" => return Err(format!("a number has no unit; {HINT}")),
                _ => return Err(format!("'{unit}' is no unit; {HINT}")),
            };
        rest = tail;
    }
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err("it is longer than a day".to_owned()),
    }
}

/// `1Mbps`, `500kbps`, `64000bps`.
pub(crate) fn rate_bps(text: &str) -> Result<u64, String> {
    const HINT: &str = "write it like 1Mbps, 500kbps or 2.5Mbps";
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.to_ascii_lowercase().as_str() {
        "bps" => 1.0,
        "kbps" => 1e3,
        "mbps" => 1e6,
        "gbps" => 1e9,
        "" => return Err(format!("the unit is missing; {HINT}")),
        _ => return Err(format!("'{unit}' is no unit; {HINT}")),
    };
    match number.parse::<f64>() {
        Ok(number) if (1_000.0..=100e9).contains(&(number * scale)) => Ok((number * scale) as u64),
        Ok(_) => Err("it must lie between 1kbps and 100Gbps".to_owned()),
        Err(_) => Err(format!("that is no rate; {HINT}")),
    }
}
