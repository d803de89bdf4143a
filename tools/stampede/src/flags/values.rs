//! Values as people write them on a command line: durations, rates, percents, core lists.
//!
//! Every parser returns one line that says what was wrong with the value and what would be right,
//! because clap puts it after `invalid value '…' for '--flag <X>': `.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use stampede_media::Codec;
use stampede_media::clip::FRAME_RATE_MAX;

/// Longest duration a flag takes: 30 days. Longer ones are typing errors.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// `90s`, `1m30s`, `500ms`, `1.5s`, `2h`; every number needs its unit (except `0`).
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
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

/// A duration that is not zero.
pub(crate) fn duration_above_zero(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// `1%`, `0.5%`, `100%`; the result is a share of 1. The sign is needed so that `1` is never
/// taken for 100 %.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    const HINT: &str = "write it like 1% or 0.5%";
    let number = text.strip_suffix('%').ok_or_else(|| format!("the % sign is missing; {HINT}"))?;
    let value: f64 =
        number.trim().parse().map_err(|_| format!("'{number}' is not a number; {HINT}"))?;
    if !(0.0..=100.0).contains(&value) {
        return Err("it must lie between 0% and 100%".to_owned());
    }
    Ok(value / 100.0)
}

/// A socket's buffer: `64kB`, `1MiB`, or bytes without a unit. Linux makes 1,152 bytes of anything
/// smaller.
pub(crate) fn buffer_bytes(text: &str) -> Result<usize, String> {
    bytes_between(text, 1 << 10, 1 << 30)
}

fn bytes_between(text: &str, least: usize, most: usize) -> Result<usize, String> {
    const HINT: &str = "write it like 256kB or 1MiB";
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: usize = text[..digits]
        .parse()
        .map_err(|_| format!("it does not start with a whole number; {HINT}"))?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        unit => return Err(format!("'{unit}' is no unit; {HINT}")),
    };
    let bytes = number.checked_mul(unit).filter(|bytes| (least..=most).contains(bytes));
    bytes.ok_or_else(|| format!("it must lie between {}KiB and {}MiB", least >> 10, most >> 20))
}

/// A size that a packet ring can have.
pub(crate) fn ring_bytes(text: &str) -> Result<usize, String> {
    bytes_between(text, 256 << 10, 1 << 30)
}

/// Joins per second: any number above 0; fractions are fine (`0.5` is one every two seconds).
pub(crate) fn joins_per_second(text: &str) -> Result<f64, String> {
    let rate: f64 =
        text.parse().map_err(|_| "it is not a number; write it like 20 or 0.5".to_owned())?;
    if !(rate.is_finite() && rate > 0.0 && rate <= 100_000.0) {
        return Err("it must be above 0 and at most 100000".to_owned());
    }
    Ok(rate)
}

/// Mean length of a burst of dropped packets, 1 or more.
pub(crate) fn burst(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(packets @ 1..=10_000) => Ok(packets),
        _ => Err("it must be a whole number of packets between 1 and 10000".to_owned()),
    }
}

/// CPU cores, in the order given and each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CoreList(pub Vec<usize>);

/// Highest core number a list may name; the kernel's own limit (`CONFIG_NR_CPUS`) is 8192.
const CORE_MAX: usize = 8191;

impl FromStr for CoreList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const HINT: &str = "write it like 0,2-5";
        let number = |text: &str| {
            text.trim()
                .parse::<usize>()
                .ok()
                .filter(|core| *core <= CORE_MAX)
                .ok_or_else(|| format!("'{text}' is not a core number; {HINT}"))
        };
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return Err(format!("the range '{part}' runs backwards; {HINT}"));
            }
            for core in first..=last {
                if cores.contains(&core) {
                    return Err(format!("core {core} is listed twice"));
                }
                cores.push(core);
            }
        }
        Ok(Self(cores))
    }
}

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&names.join(","))
    }
}

/// In what form a report goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// Everything, for scripts.
    Json,
    /// One self-contained page.
    Html,
    /// One row a stream.
    Csv,
    /// GitHub-flavoured, for a job's summary.
    Markdown,
    /// Thresholds and verdict as test cases.
    Junit,
}

/// Kinds by name.
const OUTPUT_KINDS: [(&str, OutputKind); 5] = [
    ("json", OutputKind::Json),
    ("html", OutputKind::Html),
    ("csv", OutputKind::Csv),
    ("markdown", OutputKind::Markdown),
    ("junit", OutputKind::Junit),
];

/// Where a report goes and in what form, `json=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// In what form.
    pub kind: OutputKind,
    /// The file.
    pub path: PathBuf,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = OUTPUT_KINDS.iter().find(|(_, kind)| *kind == self.kind);
        write!(f, "{}={}", name.map_or("", |(name, _)| name), self.path.display())
    }
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text
            .split_once('=')
            .ok_or_else(|| "the kind is missing; write it like json=report.json".to_owned())?;
        let kind = OUTPUT_KINDS.iter().find(|(known, _)| *known == name);
        let (_, kind) = kind.ok_or_else(|| {
            format!("unknown kind '{name}'; use json, html, csv, markdown or junit")
        })?;
        if path.is_empty() {
            return Err("the file name is missing; write it like json=report.json".to_owned());
        }
        Ok(Self { kind: *kind, path: PathBuf::from(path) })
    }
}

/// Which simulcast layer subscribers ask for. Names follow `lk perf load-test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Resolution {
    /// The highest layer.
    High,
    /// The middle layer.
    Medium,
    /// The lowest layer.
    Low,
}

impl Resolution {
    /// As written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// A codec of published video.
pub(crate) fn video_codec(text: &str) -> Result<Codec, String> {
    match text.to_ascii_lowercase().as_str() {
        "vp8" => Ok(Codec::Vp8),
        "vp9" => Ok(Codec::Vp9),
        "h264" => Ok(Codec::H264),
        "av1" => Ok(Codec::Av1),
        "h265" => Err("publishing h265 is not possible; use vp8, vp9, h264 or av1".to_owned()),
        _ => Err("unknown codec; use vp8, vp9, h264 or av1".to_owned()),
    }
}

/// Frames a second of a file without timestamps.
pub(crate) fn frame_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if rate > 0.0 && rate <= FRAME_RATE_MAX {
        Ok(rate)
    } else {
        Err(format!("it must be above 0 and at most {FRAME_RATE_MAX}"))
    }
}

/// UDP backends by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BackendFlag {
    /// io_uring where the kernel allows it, mmsg otherwise.
    Auto,
    /// Multishot receive into buffer rings; refused where the kernel refuses it.
    #[value(name = "io_uring")]
    IoUring,
    /// epoll with recvmmsg and sendmmsg.
    Mmsg,
    /// The same, with RTP and RTCP from a ring that the kernel fills (AF_PACKET); needs root.
    #[value(name = "packet_ring")]
    PacketRing,
}

impl BackendFlag {
    /// As written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Mmsg => "mmsg",
            Self::PacketRing => "packet_ring",
        }
    }

    /// What the engine calls it.
    pub(crate) fn choice(self) -> stampede_udp::BackendChoice {
        match self {
            Self::Auto => stampede_udp::BackendChoice::Auto,
            Self::IoUring => stampede_udp::BackendChoice::IoUring,
            Self::Mmsg => stampede_udp::BackendChoice::Mmsg,
            Self::PacketRing => stampede_udp::BackendChoice::PacketRing,
        }
    }
}

/// The address of a Prometheus endpoint.
pub(crate) fn metrics_url(text: &str) -> Result<reqwest::Url, String> {
    let url: reqwest::Url = text
        .parse()
        .map_err(|error| format!("{error}; give one like http://127.0.0.1:6789/metrics"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("it must begin with http:// or https://".to_owned());
    }
    let mut url = url;
    if url.path() == "/" {
        url.set_path("/metrics");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_bytes_with_a_unit_or_without() {
        for (text, bytes) in
            [("4096", 4_096), ("64kB", 64_000), ("1MiB", 1 << 20), ("2 KiB", 2_048)]
        {
            assert_eq!(buffer_bytes(text), Ok(bytes), "{text}");
        }
        for (text, why) in [
            ("", "whole number"),
            ("-1", "whole number"),
            ("1.5MiB", "'.5MiB' is no unit"),
            ("1Mb", "'Mb' is no unit"),
            ("0", "between"),
            ("2048MiB", "between"),
            ("99999999999999999999", "whole number"),
            ("18446744073709551615MiB", "between"),
        ] {
            let error = buffer_bytes(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn durations_with_units_add_up() {
        for (text, ms) in [
            ("90s", 90_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("2h", 7_200_000),
            ("1h1m1s1ms", 3_661_001),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn bad_durations_say_why() {
        for (text, why) in [
            ("", "empty"),
            ("90", "without a unit"),
            ("s", "does not start with a number"),
            ("-5s", "does not start with a number"),
            ("1x", "unknown unit 'x'"),
            ("1.2.3s", "does not start with a number"),
            ("1s 2s", "does not start with a number"),
            ("400d", "longer than 30 days"),
            ("99999999999999999999999999h", "longer than 30 days"),
            ("5µµ", "unknown unit"),
        ] {
            let error = duration(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(duration_above_zero("0s").unwrap_err().contains("longer than 0"));
    }

    #[test]
    fn percents_need_their_sign_and_range() {
        assert_eq!(percent("1%"), Ok(0.01));
        assert_eq!(percent("0.5 %"), Ok(0.005));
        assert_eq!(percent("100%"), Ok(1.0));
        for (text, why) in [
            ("1", "sign is missing"),
            ("x%", "not a number"),
            ("101%", "between"),
            ("NaN%", "between"),
        ] {
            let error = percent(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn rates_are_above_zero_and_have_no_silent_cap() {
        assert_eq!(joins_per_second("20"), Ok(20.0));
        assert_eq!(joins_per_second("0.5"), Ok(0.5));
        assert_eq!(joins_per_second("5000"), Ok(5000.0));
        for text in ["0", "-1", "NaN", "inf", "fast", "1e9"] {
            assert!(joins_per_second(text).is_err(), "{text}");
        }
    }

    #[test]
    fn core_lists_keep_order_and_refuse_nonsense() {
        assert_eq!("0,2-4".parse(), Ok(CoreList(vec![0, 2, 3, 4])));
        assert_eq!("3,1".parse(), Ok(CoreList(vec![3, 1])));
        for (text, why) in [
            ("", "not a core number"),
            ("1,1", "twice"),
            ("3-1", "backwards"),
            ("a", "not a core number"),
            ("0-99999", "not a core number"),
        ] {
            let error = text.parse::<CoreList>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn outputs_have_a_kind_and_a_file() {
        let output = Output { kind: OutputKind::Json, path: "a=b.json".into() };
        assert_eq!("json=a=b.json".parse(), Ok(output));
        for text in ["html=x", "csv=x", "markdown=x", "junit=x"] {
            assert_eq!(text.parse::<Output>().unwrap().to_string(), text);
        }
        for (text, why) in [
            ("xml=x", "unknown kind"),
            ("report.json", "kind is missing"),
            ("json=", "file name is missing"),
        ] {
            let error = text.parse::<Output>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn codecs_that_cannot_be_published_are_refused_by_name() {
        assert_eq!(video_codec("VP8"), Ok(Codec::Vp8));
        assert_eq!(video_codec("h264"), Ok(Codec::H264));
        assert!(video_codec("h265").unwrap_err().contains("not possible"));
        assert_eq!(frame_rate("29.97"), Ok(29.97));
        for bad in ["0", "-1", "inf", "nan", "2000", "fast"] {
            frame_rate(bad).unwrap_err();
        }
        assert!(video_codec("mpeg2").unwrap_err().contains("unknown codec"));
    }
}
