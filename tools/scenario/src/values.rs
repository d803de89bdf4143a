//! Values as people write them on a command line: durations, rates, percents, core lists.
//!
//! Every parser returns one line that says what was wrong with the value and what would be right,
//! because clap puts it after `invalid value '…' for '--flag <X>': `.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use stampede_core::data::{
    MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN, MESSAGES_PER_S_MAX, RPC_BYTES_MAX,
};
use stampede_media::Codec;
use stampede_media::clip::{FRAME_RATE_MAX, FRAME_RATE_MIN};
use stampede_signaling::session::flood::BYTES_BURST_MAX;
use stampede_units::parse;
use url::Url;

/// `90s`, `1m30s`, `500ms`, `1.5s`, `2h`; every number needs its unit (except `0`).
pub fn duration(text: &str) -> Result<Duration, String> {
    parse::duration(text).map_err(|error| error.to_string())
}

/// A duration that is not zero.
pub fn duration_above_zero(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// The mean of a drawn time: 100 ms or more, because less is no visit but a storm.
pub fn mean_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        mean if mean < Duration::from_millis(100) => Err("it must be 100ms or longer".to_owned()),
        mean => Ok(mean),
    }
}

/// A share of more than nothing, with its sign: `1%` to `100%`.
pub fn percent_above_zero(text: &str) -> Result<f64, String> {
    match percent(text)? {
        share if share > 0.0 => Ok(share),
        _ => Err("it must be above 0%".to_owned()),
    }
}

/// A share like `10%`, or a number from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    parse::share(text).map_err(|error| error.to_string())
}

/// `1%`, `0.5%`, `100%`; the result is a share of 1. The sign is needed so that `1` is never
/// taken for 100 %.
pub fn percent(text: &str) -> Result<f64, String> {
    parse::percent(text).map_err(|error| error.to_string())
}

/// A socket's buffer: `64kB`, `1MiB`, or bytes without a unit. Linux makes 1,152 bytes of anything
/// smaller.
pub fn buffer_bytes(text: &str) -> Result<usize, String> {
    bytes_between(text, 1 << 10, 1 << 30)
}

fn bytes_between(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let bytes = parse::bytes(text).map_err(|error| error.to_string())?;
    if (least as f64..=most as f64).contains(&bytes) {
        return Ok(bytes as usize);
    }
    Err(format!("it must lie between {}KiB and {}MiB", least >> 10, most >> 20))
}

/// How long a signalling message can be: what a session takes at once is more.
pub fn message_bytes(text: &str) -> Result<usize, String> {
    bytes_between(text, 64 << 10, BYTES_BURST_MAX as usize)
}

/// A size that a packet ring can have.
pub fn ring_bytes(text: &str) -> Result<usize, String> {
    bytes_between(text, 256 << 10, 1 << 30)
}

/// Joins per second: any number above 0; fractions are fine (`0.5` is one every two seconds).
pub fn joins_per_second(text: &str) -> Result<f64, String> {
    let rate: f64 =
        text.parse().map_err(|_| "it is not a number; write it like 20 or 0.5".to_owned())?;
    if !(rate.is_finite() && rate > 0.0 && rate <= 100_000.0) {
        return Err("it must be above 0 and at most 100000".to_owned());
    }
    Ok(rate)
}

/// Updates that a participant makes of itself in a second; fractions are fine. From one to the next
/// is a time that can be waited for.
pub fn updates_rate(text: &str) -> Result<f64, String> {
    match joins_per_second(text)? {
        rate if rate < 0.01 => Err("it must be 0.01 or more".to_owned()),
        rate => Ok(rate),
    }
}

/// Data messages in a second, of one sender and kind; fractions are fine.
pub fn data_rate(text: &str) -> Result<f64, String> {
    let rate: f64 =
        text.parse().map_err(|_| "it is not a number; write it like 10 or 0.5".to_owned())?;
    if !(0.01..=MESSAGES_PER_S_MAX).contains(&rate) {
        return Err(format!("it must lie between 0.01 and {MESSAGES_PER_S_MAX}"));
    }
    Ok(rate)
}

/// The payload of a data message.
pub fn data_bytes(text: &str) -> Result<usize, String> {
    let bytes = parse::bytes(text).map_err(|error| error.to_string())?;
    if (MESSAGE_BYTES_MIN as f64..=MESSAGE_BYTES_MAX as f64).contains(&bytes) {
        return Ok(bytes as usize);
    }
    Err(format!("it must lie between {MESSAGE_BYTES_MIN} and {MESSAGE_BYTES_MAX} bytes"))
}

/// Calls in a second, of one caller; fractions are fine.
pub fn rpc_rate(text: &str) -> Result<f64, String> {
    // As many as messages.
    data_rate(text)
}

/// The payload of a call.
pub fn rpc_bytes(text: &str) -> Result<usize, String> {
    let bytes = parse::bytes(text).map_err(|error| error.to_string())?;
    if (0.0..=RPC_BYTES_MAX as f64).contains(&bytes) {
        return Ok(bytes as usize);
    }
    Err(format!("it must lie between 0 and {RPC_BYTES_MAX} bytes"))
}

/// How long the answer to a call may take.
pub fn rpc_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse::duration(text).map_err(|error| error.to_string())?;
    match (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&timeout) {
        true => Ok(timeout),
        false => Err("it must lie between 100ms and 60s".to_owned()),
    }
}

/// A method that is called; LiveKit's SDKs take no longer ones (rust-sdks livekit/src/room/rpc).
pub fn rpc_method(text: &str) -> Result<String, String> {
    match (1..=64).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err("it must have 1 to 64 bytes".to_owned()),
    }
}

/// Mean length of a burst of dropped packets, 1 or more.
pub fn burst(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(packets @ 1..=10_000) => Ok(packets),
        _ => Err("it must be a whole number of packets between 1 and 10000".to_owned()),
    }
}

/// CPU cores, in the order given and each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreList(pub Vec<usize>);

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

/// Which simulcast layer subscribers ask for. Names follow `lk perf load-test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Resolution {
    /// The highest layer.
    High,
    /// The middle layer.
    Medium,
    /// The lowest layer.
    Low,
}

impl Resolution {
    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// Size of the built-in clips.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum PublishResolution {
    /// 360p at most.
    #[cfg_attr(feature = "clap", value(name = "360p"))]
    P360,
    /// 720p at most.
    #[default]
    #[cfg_attr(feature = "clap", value(name = "720p"))]
    P720,
    /// 1080p.
    #[cfg_attr(feature = "clap", value(name = "1080p"))]
    P1080,
}

impl PublishResolution {
    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::P360 => "360p",
            Self::P720 => "720p",
            Self::P1080 => "1080p",
        }
    }

    /// There are built-in clips of this size that have layers within a stream.
    pub fn has_layers_within_a_stream(self) -> bool {
        self == Self::P720
    }
}

/// A codec of published video.
pub fn video_codec(text: &str) -> Result<Codec, String> {
    match text.to_ascii_lowercase().as_str() {
        "vp8" => Ok(Codec::Vp8),
        "vp9" => Ok(Codec::Vp9),
        "h264" => Ok(Codec::H264),
        "h265" => Ok(Codec::H265),
        "av1" => Ok(Codec::Av1),
        _ => Err("unknown codec; use vp8, vp9, h264, h265 or av1".to_owned()),
    }
}

/// As [`video_codec`] reads it, and as LiveKit names it in `SimulcastCodec.codec`.
pub fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::Vp8 => "vp8",
        Codec::Vp9 => "vp9",
        Codec::H264 => "h264",
        Codec::H265 => "h265",
        Codec::Av1 => "av1",
        Codec::Opus => "opus",
    }
}

/// Frames a second of a file without timestamps.
pub fn frame_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (FRAME_RATE_MIN..=FRAME_RATE_MAX).contains(&rate) {
        Ok(rate)
    } else {
        Err(format!("it must be from {FRAME_RATE_MIN} to {FRAME_RATE_MAX}"))
    }
}

/// UDP backends by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Backend {
    /// The first that this machine allows: packet_ring, io_uring, mmsg.
    Auto,
    /// Multishot receive into buffer rings; refused where the kernel refuses it.
    #[cfg_attr(feature = "clap", value(name = "io_uring"))]
    IoUring,
    /// epoll with recvmmsg and sendmmsg.
    Mmsg,
    /// The same, with RTP and RTCP from a ring that the kernel fills; needs root or CAP_BPF.
    #[cfg_attr(feature = "clap", value(name = "packet_ring"))]
    PacketRing,
}

impl Backend {
    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Mmsg => "mmsg",
            Self::PacketRing => "packet_ring",
        }
    }
}

/// The address of a Prometheus endpoint.
pub fn metrics_url(text: &str) -> Result<Url, String> {
    let url: Url = text
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
            [("4096", 4_096), ("64kB", 64_000), ("1.5MiB", 3 << 19), ("2 KiB", 2_048)]
        {
            assert_eq!(buffer_bytes(text), Ok(bytes), "{text}");
        }
        for (text, why) in [
            ("", "empty"),
            ("-1", "between"),
            ("1Mb", "unknown unit 'Mb'"),
            ("0", "between"),
            ("2048MiB", "between"),
            ("99999999999999999999", "between"),
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
        assert!(mean_duration("99ms").unwrap_err().contains("100ms or longer"));
        assert_eq!(mean_duration("100ms"), Ok(Duration::from_millis(100)));
    }

    #[test]
    fn percents_need_their_sign_and_range() {
        assert_eq!(percent("1%"), Ok(0.01));
        assert_eq!(percent("0.5 %"), Ok(0.005));
        assert_eq!(percent("100%"), Ok(1.0));
        assert_eq!(percent_above_zero("100%"), Ok(1.0));
        assert!(percent_above_zero("0%").unwrap_err().contains("above 0%"));
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
    fn updates_have_a_time_between_them() {
        assert_eq!(updates_rate("0.01"), Ok(0.01));
        assert_eq!(updates_rate("500"), Ok(500.0));
        for text in ["1e-20", "0.009", "0", "-1", "NaN", "1e9"] {
            assert!(updates_rate(text).is_err(), "{text}");
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
    fn codecs_that_cannot_be_published_are_refused_by_name() {
        assert_eq!(video_codec("VP8"), Ok(Codec::Vp8));
        assert_eq!(video_codec("h264"), Ok(Codec::H264));
        assert_eq!(video_codec("H265"), Ok(Codec::H265));
        assert!(video_codec("h266").unwrap_err().contains("unknown codec"));
        assert_eq!(frame_rate("29.97"), Ok(29.97));
        for bad in ["0", "-1", "inf", "nan", "2000", "fast"] {
            frame_rate(bad).unwrap_err();
        }
        assert!(video_codec("mpeg2").unwrap_err().contains("unknown codec"));
    }
}
