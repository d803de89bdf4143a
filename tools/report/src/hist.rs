//! Distributions: HDR histograms inside; outside the object of docs/reports.md, "Sections of the
//! JSON".

use std::io::Read;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest value told apart, in microseconds (ten minutes); longer ones count as this.
const MICROS_MAX: u64 = 600_000_000;

/// Longest encoded histogram that is read back; ours are a few kB.
const ENCODED_BYTES_MAX: usize = 1 << 20;
/// Longest histogram that is read back, once it is inflated; of ours the largest have 200 kB.
const PLAIN_BYTES_MAX: u64 = 1 << 20;
/// Finest histogram that is read back, in significant digits; ours have no more.
const DIGITS_MAX: u32 = 3;
/// Largest value that a histogram read back may have room for: sums of ours have grown to little
/// above [`MICROS_MAX`]. With [`DIGITS_MAX`] its counts take a quarter of a megabyte.
const VALUE_MAX: u64 = 1 << 40;
/// What a V2 histogram begins with, and a compressed one: `V2EncodingCookieBase` and
/// `V2CompressedEncodingCookieBase` of HdrHistogram's `AbstractHistogram.java`, with 0x10 for the
/// size of their words.
const COOKIE: u32 = 0x1c84_9313;
const COMPRESSED_COOKIE: u32 = 0x1c84_9314;

/// A distribution as the report shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hist {
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
    /// The whole histogram in microseconds, or in bits a second: HdrHistogram's V2 compressed format in
    /// base64. Reports are merged by it, never by their percentiles; `null` if there is none.
    #[serde(default)]
    pub hdr: Option<String>,
}

impl Hist {
    /// A histogram of microseconds, shown in milliseconds; `None` if it is empty.
    pub fn of_micros_as_ms(histogram: &Histogram<u64>) -> Option<Self> {
        Self::of_micros(histogram, 1_000.0)
    }

    /// The same, shown in seconds.
    pub fn of_micros_as_s(histogram: &Histogram<u64>) -> Option<Self> {
        Self::of_micros(histogram, 1_000_000.0)
    }

    /// A histogram of bits a second.
    pub fn of_bps(histogram: &Histogram<u64>) -> Option<Self> {
        Self::of_micros(histogram, 1.0)
    }

    fn of_micros(histogram: &Histogram<u64>, unit_micros: f64) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        // The histogram's own resolution is a microsecond.
        let shown = |micros: f64| micros.round() / unit_micros;
        let at = |quantile| shown(histogram.value_at_quantile(quantile) as f64);
        Some(Self {
            count: histogram.len(),
            min: shown(histogram.min() as f64),
            mean: shown(histogram.mean()),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: shown(histogram.max() as f64),
            hdr: encode(histogram),
        })
    }

    /// The histogram it was made of, in microseconds; `None` without `hdr`, or if that can't be
    /// read.
    pub fn histogram(&self) -> Option<Histogram<u64>> {
        decode(self.hdr.as_deref()?)
    }

    /// Of several: `None` if one of them can't be read, or there is none.
    pub fn merged<'a>(hists: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        Self::of_micros_as_ms(&Self::sum(hists)?)
    }

    /// The same of distributions in seconds.
    pub fn merged_s<'a>(hists: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        Self::of_micros_as_s(&Self::sum(hists)?)
    }

    /// The same of distributions in bits a second.
    pub fn merged_bps<'a>(hists: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        Self::of_bps(&Self::sum(hists)?)
    }

    /// Of shares of 1 that were recorded as seconds: no percentile is above 1, as the upper end of
    /// its bucket may be, and the smallest is `min` itself.
    pub fn of_shares(self, min: f64) -> Self {
        let all = |value: f64| value.min(1.0);
        Self {
            count: self.count,
            min,
            mean: all(self.mean),
            p50: all(self.p50),
            p90: all(self.p90),
            p95: all(self.p95),
            p99: all(self.p99),
            p999: all(self.p999),
            max: all(self.max),
            hdr: self.hdr,
        }
    }

    fn sum<'a>(hists: impl IntoIterator<Item = &'a Self>) -> Option<Histogram<u64>> {
        let mut sum = Samples::new().0;
        sum.auto(true);
        for hist in hists {
            sum.add(hist.histogram()?).ok()?;
        }
        Some(sum)
    }
}

/// A histogram as text, as [`Hist::hdr`] has it.
pub fn encode(histogram: &Histogram<u64>) -> Option<String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).ok()?;
    Some(BASE64_STANDARD.encode(bytes))
}

/// The histogram that a text is of; `None` if it can't be read, or is finer or of larger values
/// than ours are.
pub fn decode(text: &str) -> Option<Histogram<u64>> {
    let text = Some(text).filter(|text| text.len() <= ENCODED_BYTES_MAX)?;
    let plain = inflated(&BASE64_STANDARD.decode(text).ok()?)?;
    // The library allocates what a header asks for before it reads on.
    let bounded = is_bounded(&plain)?;
    bounded.then(|| Deserializer::new().deserialize(&mut plain.as_slice()).ok()).flatten()
}

/// The histogram within a compressed one; cut off where it is too long, so that its length is not
/// the one it says. What is behind it is no part of it.
fn inflated(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let cookie = u32::from_be_bytes(field(&mut bytes)?);
    let _length: [u8; 4] = field(&mut bytes)?;
    if cookie != COMPRESSED_COOKIE {
        return None;
    }
    let mut plain = Vec::new();
    ZlibDecoder::new(bytes).take(PLAIN_BYTES_MAX).read_to_end(&mut plain).ok()?;
    Some(plain)
}

/// Whether a histogram is as long as it says and takes no more memory than one of ours; `None` if
/// it ends within its header.
fn is_bounded(mut plain: &[u8]) -> Option<bool> {
    let cookie = u32::from_be_bytes(field(&mut plain)?);
    let length = u32::from_be_bytes(field(&mut plain)?);
    let _normalizing_offset: [u8; 4] = field(&mut plain)?;
    let digits = u32::from_be_bytes(field(&mut plain)?);
    let _lowest: [u8; 8] = field(&mut plain)?;
    let highest = u64::from_be_bytes(field(&mut plain)?);
    let _ratio: [u8; 8] = field(&mut plain)?;
    let whole = cookie == COOKIE && usize::try_from(length) == Ok(plain.len());
    Some(whole && digits <= DIGITS_MAX && highest <= VALUE_MAX)
}

/// Takes so many bytes off the front.
fn field<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (field, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*field)
}

/// Durations being collected.
#[derive(Debug, Clone)]
pub struct Samples(Histogram<u64>);

impl Samples {
    /// Empty; three significant digits from a microsecond to ten minutes.
    pub fn new() -> Self {
        // Both arguments are constants inside the constructor's documented bounds.
        #[allow(clippy::expect_used)]
        Self(Histogram::new_with_max(MICROS_MAX, 3).expect("constant bounds are valid"))
    }

    /// Adds one value.
    pub fn record(&mut self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    /// Adds the same value, in microseconds, so many times.
    pub fn record_micros(&mut self, micros: u64, count: u64) {
        self.0.saturating_record_n(micros, count);
    }

    /// In microseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// As the report shows it, in seconds; `None` if nothing was recorded.
    pub fn as_s(&self) -> Option<Hist> {
        Hist::of_micros_as_s(&self.0)
    }

    /// As the report shows it, in milliseconds; `None` if nothing was recorded.
    pub fn as_ms(&self) -> Option<Hist> {
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
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

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

    fn samples(values_ms: impl IntoIterator<Item = u64>) -> Samples {
        let mut samples = Samples::new();
        values_ms.into_iter().for_each(|ms| samples.record(Duration::from_millis(ms)));
        samples
    }

    #[test]
    fn a_histogram_comes_back_from_its_text_as_it_was() {
        let samples = samples((1..=1_000).map(|value| value * value % 977));
        let hist = samples.as_ms().unwrap();
        assert_eq!(hist.histogram().unwrap(), samples.0);
        let text = serde_json::to_string(&hist).unwrap();
        assert_eq!(serde_json::from_str::<Hist>(&text).unwrap(), hist);
    }

    #[test]
    fn merging_gives_the_percentiles_of_all_values_not_their_averages() {
        // 99 % fast here, all slow there: an average of the medians would say 5,005 ms.
        let (fast, slow) = (samples([10; 990]), samples([10_000; 10]));
        let merged = [fast.as_ms().unwrap(), slow.as_ms().unwrap()];
        let merged = Hist::merged(&merged).unwrap();
        let together = samples([10; 990].into_iter().chain([10_000; 10]));
        assert_eq!(merged, together.as_ms().unwrap());
        assert!((merged.p50 - 10.0).abs() < 0.1 && merged.max > 9_990.0);
    }

    #[test]
    fn a_text_that_is_too_long_is_not_read() {
        let mut hist = samples([1, 2]).as_ms().unwrap();
        let bytes = BASE64_STANDARD.decode(hist.hdr.as_deref().unwrap()).unwrap();
        // What is behind it is no part of it.
        for (length, read) in [(ENCODED_BYTES_MAX, true), (ENCODED_BYTES_MAX + 4, false)] {
            let mut padded = bytes.clone();
            padded.resize(length / 4 * 3, 0);
            hist.hdr = Some(BASE64_STANDARD.encode(&padded));
            assert_eq!(hist.hdr.as_ref().map(String::len), Some(length));
            assert_eq!(hist.histogram().is_some(), read);
        }
    }

    /// An empty histogram whose header says this, with so many bytes of counts, all of them 0.
    fn says(length: u32, digits: u32, highest: u64, counts: usize) -> String {
        let mut plain = COOKIE.to_be_bytes().to_vec();
        plain.extend([length, 0, digits].iter().flat_map(|field| field.to_be_bytes()));
        plain.extend([1, highest].iter().flat_map(|field: &u64| field.to_be_bytes()));
        plain.extend(1.0_f64.to_be_bytes());
        plain.resize(plain.len() + counts, 0);
        compressed(&plain)
    }

    fn compressed(plain: &[u8]) -> String {
        let header = [COMPRESSED_COOKIE.to_be_bytes(), [0; 4]].concat();
        let mut deflated = ZlibEncoder::new(header, Compression::default());
        deflated.write_all(plain).unwrap();
        BASE64_STANDARD.encode(deflated.finish().unwrap())
    }

    #[test]
    fn a_histogram_takes_no_more_memory_than_one_of_ours() {
        for (length, digits, highest, counts, read) in [
            (0, 3, MICROS_MAX, 0, true),
            (1 << 10, DIGITS_MAX, VALUE_MAX, 1 << 10, true),
            (u32::MAX, 3, MICROS_MAX, 0, false),
            (1, 3, MICROS_MAX, 2, false),
            (0, DIGITS_MAX + 1, MICROS_MAX, 0, false),
            (0, u32::MAX, MICROS_MAX, 0, false),
            (0, 3, VALUE_MAX + 1, 0, false),
            (0, 3, u64::MAX, 0, false),
            // Two million counts in a few kB.
            (1 << 21, 3, MICROS_MAX, 1 << 21, false),
        ] {
            let text = says(length, digits, highest, counts);
            assert_eq!(decode(&text).is_some(), read, "{length} {digits} {highest}");
        }
        // One that is compressed once more.
        let twice = BASE64_STANDARD.decode(says(0, 3, MICROS_MAX, 0)).unwrap();
        assert_eq!(decode(&compressed(&twice)), None);
        // A sum that has grown is read back.
        let mut grown = Samples::new().0;
        grown.auto(true);
        grown.record(2 * MICROS_MAX).unwrap();
        assert_eq!(decode(&encode(&grown).unwrap()), Some(grown));
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let mut hist = samples([1, 2]).as_ms().unwrap();
        for text in [None, Some("%"), Some("AAAA"), Some("HISTFAAA")] {
            hist.hdr = text.map(str::to_owned);
            assert_eq!(hist.histogram(), None);
            assert_eq!(Hist::merged([&hist]), None);
        }
        assert_eq!(Hist::merged([]), None);
    }

    #[test]
    fn absurdly_long_values_saturate() {
        let mut samples = Samples::new();
        samples.record(Duration::from_secs(u64::MAX / 4));
        assert!(samples.as_ms().unwrap().max >= 600_000.0);
    }
}
