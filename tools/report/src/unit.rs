//! Units and directions of figures: those of counters as they are declared, others by the words of
//! their keys.

pub use stampede_counters::Better;
use stampede_counters::{Counter, Counters, ReportCounters, Unit as Counted};

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A share of 1.
    Share,
    /// Nanoseconds.
    Nanoseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Bits a second.
    BitsPerSecond,
    /// Bytes.
    Bytes,
    /// A count, or what has no unit of its own here.
    Plain,
}

/// The counter of a key of the report, if it is one's: cohorts have the same ones.
pub(crate) fn counter(key: &str) -> Option<&'static Counter> {
    let kind = || key.find(".video.").or_else(|| key.find(".audio."));
    let of_all = if key.starts_with("cohorts.") { &key[kind()? + 1..] } else { key };
    ReportCounters::table().iter().find(|counter| counter.key == of_all)
}

/// Units of counters are declared; those of other figures are in a key's last word.
pub fn unit(key: &str) -> Unit {
    match counter(key).map(|counter| counter.unit) {
        Some(Counted::Bytes) => return Unit::Bytes,
        Some(Counted::Seconds) => return Unit::Seconds,
        Some(_) => return Unit::Plain,
        None => {}
    }
    let (parent, last) = key.rsplit_once('.').unwrap_or(("", key));
    match last {
        // Of a distribution: its name has the unit, its count is none of it.
        "count" | "hdr" => return Unit::Plain,
        "min" | "mean" | "p50" | "p90" | "p95" | "p99" | "p999" | "max" if !parent.is_empty() => {
            return unit(parent);
        }
        "cpu_ns_per_packet" => return Unit::Nanoseconds,
        "rss_bytes_per_peer" => return Unit::Bytes,
        "drop" | "rejoin" | "watch_ratio_subscribers" => return Unit::Share,
        _ => {}
    }
    let word = last.trim_end_matches("_max").rsplit('_').next().unwrap_or(last);
    match word {
        "rate" | "ratio" => Unit::Share,
        "ns" => Unit::Nanoseconds,
        "ms" => Unit::Milliseconds,
        "s" | "seconds" => Unit::Seconds,
        "bps" => Unit::BitsPerSecond,
        "bytes" => Unit::Bytes,
        _ if parent.ends_with("_ms") => Unit::Milliseconds,
        _ => Unit::Plain,
    }
}

/// Words of keys that are better lower.
const LOWER: [&str; 21] = [
    // Of recoveries.
    "ms",
    "interruptions",
    "short_gaps_s",
    "lower_ratio",
    "lower_s",
    "loss_rate",
    "missing_rate",
    "upstream_loss_rate",
    "reordered",
    "dropped",
    "jitter_ms",
    "latency_ms",
    "ping_rtt_ms",
    "errors",
    "phases_ms",
    "cpu_s",
    "full_s",
    "cpu_cores",
    "cpu_ns_per_packet",
    "rss_bytes",
    "rss_bytes_per_peer",
];

/// Words of keys that are better higher.
const HIGHER: [&str; 5] = ["watch_ratio", "tracks_received", "fps", "bitrate_bps", "peak"];

/// Which way a key is better: of counters as declared, of other figures by its words.
pub fn better(key: &str) -> Better {
    if let Some(counter) = counter(key) {
        return counter.better;
    }
    let mut words = key.split('.');
    let last = key.rsplit('.').next().unwrap_or(key);
    // What was done on purpose is as good or bad as what was asked for.
    if words.clone().any(|word| word == "on_purpose") {
        return Better::Neither;
    }
    if last == "count" && !key.contains("interruptions") || key.starts_with("run.") {
        return Better::Neither;
    }
    if words.clone().any(|word| word == "watch_ratio_subscribers" || word == "height_px") {
        return Better::Higher;
    }
    if words.any(|word| LOWER.contains(&word)) {
        Better::Lower
    } else if HIGHER.contains(&last) {
        Better::Higher
    } else {
        Better::Neither
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_directions_come_from_the_names() {
        for (key, is, direction) in [
            ("video.loss_rate", Unit::Share, Better::Lower),
            ("video.latency_ms.p95", Unit::Milliseconds, Better::Lower),
            ("video.latency_ms.count", Unit::Plain, Better::Neither),
            ("join.phases_ms.dtls.p50", Unit::Milliseconds, Better::Lower),
            ("video.bitrate_bps", Unit::BitsPerSecond, Better::Higher),
            ("video.freezes.count", Unit::Plain, Better::Lower),
            ("video.freezes.total_s", Unit::Seconds, Better::Lower),
            ("video.watch_ratio", Unit::Share, Better::Higher),
            ("video.watch_ratio_subscribers.min", Unit::Share, Better::Higher),
            ("video.expected_s", Unit::Seconds, Better::Neither),
            ("video.short_gaps_s", Unit::Seconds, Better::Lower),
            ("video.interruptions.count", Unit::Plain, Better::Lower),
            ("video.interruptions.total_s", Unit::Seconds, Better::Lower),
            ("video.interruptions.length_s.p50", Unit::Seconds, Better::Lower),
            ("audio.interruptions.causes.loss.count", Unit::Plain, Better::Lower),
            ("audio.interruptions.causes.on_purpose.total_s", Unit::Seconds, Better::Neither),
            ("video.layers.lower_ratio", Unit::Share, Better::Lower),
            ("video.layers.height_px.p50", Unit::Plain, Better::Higher),
            ("video.layers.heights.720p.ratio", Unit::Share, Better::Neither),
            ("generator.rss_bytes_per_peer", Unit::Bytes, Better::Lower),
            ("generator.cpu_ns_per_packet", Unit::Nanoseconds, Better::Lower),
            ("video.packets.expected", Unit::Plain, Better::Neither),
            ("join.joined", Unit::Plain, Better::Higher),
            ("join.tries_failed", Unit::Plain, Better::Lower),
            ("join.errors.http_503", Unit::Plain, Better::Lower),
            ("recoveries.resume.failed", Unit::Plain, Better::Lower),
            ("recoveries.ice_restart.ms.p99", Unit::Milliseconds, Better::Lower),
            ("recoveries.ice_restart.ms.count", Unit::Plain, Better::Neither),
        ] {
            assert_eq!((unit(key), better(key)), (is, direction), "{key}");
        }
    }
}
