//! Distributions of what peers measure, one set a worker: a histogram for each stream would cost
//! more memory than the streams.

use std::time::Duration;

use hdrhistogram::Histogram;
use stampede_core::data::DataKind;
use stampede_core::{MediaKind, Sample, StreamReport};

/// Longest value told apart in microseconds (ten minutes); longer ones count as this. It is the
/// largest bitrate told apart too, 600 Mbit/s.
const MICROS_MAX: u64 = 600_000_000;
/// Most heights of pictures told apart. Frames of further ones are in the total only.
pub const HEIGHTS_MAX: usize = 8;

/// What a distribution is of; each is described at the field of [`Distributions`] that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say it")]
pub enum Measure {
    VideoLatency,
    /// In pixels.
    VideoLatencyOfHeight(u16),
    AudioLatency,
    VideoJitter,
    AudioJitter,
    PliToKeyframe,
    Estimate,
    UplinkEstimate,
    DataLatency(DataKind),
    RpcRoundTrip,
    PublishLateness,
}

/// Names of all but the heights.
const NAMES: [(Measure, &str); 9 + DataKind::COUNT] = [
    (Measure::VideoLatency, "video-latency"),
    (Measure::AudioLatency, "audio-latency"),
    (Measure::VideoJitter, "video-jitter"),
    (Measure::AudioJitter, "audio-jitter"),
    (Measure::PliToKeyframe, "pli-to-keyframe"),
    (Measure::Estimate, "estimate"),
    (Measure::UplinkEstimate, "uplink-estimate"),
    (Measure::RpcRoundTrip, "rpc-round-trip"),
    (Measure::PublishLateness, "publish-lateness"),
    (Measure::DataLatency(DataKind::Reliable), "data-latency-reliable"),
    (Measure::DataLatency(DataKind::Lossy), "data-latency-lossy"),
    (Measure::DataLatency(DataKind::Track), "data-latency-track"),
];
/// What names of the heights begin with.
const OF_HEIGHT: &str = "video-latency-";

impl Measure {
    /// Its name, for those that only see text.
    pub fn name(self) -> String {
        match (self, NAMES.iter().find(|(named, _)| *named == self)) {
            (Self::VideoLatencyOfHeight(height), _) => format!("{OF_HEIGHT}{height}"),
            (_, Some((_, name))) => (*name).to_owned(),
            // A test looks that each has one.
            (_, None) => String::new(),
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        let height = || name.strip_prefix(OF_HEIGHT)?.parse().ok().map(Self::VideoLatencyOfHeight);
        let found = NAMES.iter().find(|(_, known)| *known == name);
        found.map(|(measure, _)| *measure).or_else(height)
    }
}

/// What a worker's peers measured, in microseconds unless said otherwise.
#[derive(Debug, Clone)]
pub struct Distributions {
    /// Latency of video frames.
    pub video_latency_us: Histogram<u64>,
    /// The same by height of the picture in pixels, which tells simulcast layers apart: at most
    /// [`HEIGHTS_MAX`] of them, in the order they came.
    pub video_latency_by_height_us: Vec<(u16, Histogram<u64>)>,
    /// Latency of audio packets.
    pub audio_latency_us: Histogram<u64>,
    /// Interarrival jitter at the end of each video stream.
    pub video_jitter_us: Histogram<u64>,
    /// The same of audio.
    pub audio_jitter_us: Histogram<u64>,
    /// From a PLI to a complete keyframe.
    pub pli_to_keyframe_us: Histogram<u64>,
    /// Estimates that were sent as REMB, in bits a second.
    pub estimate_bps: Histogram<u64>,
    /// Estimates that publishers made of the server's feedback, in bits a second.
    pub uplink_estimate_bps: Histogram<u64>,
    /// Latency of data messages, of each of [`DataKind::ALL`].
    pub data_latency_us: [Histogram<u64>; DataKind::COUNT],
    /// Round trips of answered calls.
    pub rpc_round_trip_us: Histogram<u64>,
    /// How late published packets left.
    pub publish_lateness_us: Histogram<u64>,
}

impl Default for Distributions {
    fn default() -> Self {
        Self {
            video_latency_us: histogram(3),
            video_latency_by_height_us: Vec::new(),
            audio_latency_us: histogram(3),
            video_jitter_us: histogram(3),
            audio_jitter_us: histogram(3),
            pli_to_keyframe_us: histogram(3),
            estimate_bps: histogram(3),
            uplink_estimate_bps: histogram(3),
            data_latency_us: DataKind::ALL.map(|_| histogram(2)),
            rpc_round_trip_us: histogram(2),
            publish_lateness_us: histogram(2),
        }
    }
}

impl Distributions {
    /// Adds a value.
    pub(crate) fn record(&mut self, sample: Sample) {
        match sample {
            Sample::Latency { kind: MediaKind::Audio, latency, .. } => {
                self.audio_latency_us.saturating_record(micros(latency));
            }
            Sample::Latency { kind: MediaKind::Video, height, latency } => {
                self.video_latency_us.saturating_record(micros(latency));
                if let Some(of_height) = height.and_then(|height| self.of_height(height)) {
                    of_height.saturating_record(micros(latency));
                }
            }
            Sample::KeyframeAfterPli(after) => {
                self.pli_to_keyframe_us.saturating_record(micros(after));
            }
            Sample::BandwidthEstimate { bitrate_bps } => {
                self.estimate_bps.saturating_record(bitrate_bps);
            }
            Sample::UplinkEstimate { bitrate_bps } => {
                self.uplink_estimate_bps.saturating_record(bitrate_bps);
            }
            Sample::Data { kind, latency } => {
                self.data_latency_us[kind as usize].saturating_record(micros(latency));
            }
            Sample::Rpc { round_trip } => {
                self.rpc_round_trip_us.saturating_record(micros(round_trip));
            }
            Sample::Published { lateness, packets } => {
                self.publish_lateness_us.saturating_record_n(micros(lateness), packets);
            }
        }
    }

    /// A stream is over.
    fn ended(&mut self, stream: &StreamReport) {
        let Some(jitter) = stream.jitter else { return };
        let histogram = match stream.kind {
            MediaKind::Video => &mut self.video_jitter_us,
            MediaKind::Audio => &mut self.audio_jitter_us,
        };
        histogram.saturating_record(micros(jitter));
    }

    /// Adds another worker's values: exact, for all histograms have the same buckets.
    pub fn merge(&mut self, other: &Self) {
        for (of, histogram) in other.all() {
            if let Some(own) = self.of(of) {
                add(own, histogram);
            }
        }
    }

    /// All of them, with what they are of.
    pub fn all(&self) -> impl Iterator<Item = (Measure, &Histogram<u64>)> {
        // Field by field, so that the compiler asks for a new one.
        let Self {
            video_latency_us,
            video_latency_by_height_us,
            audio_latency_us,
            video_jitter_us,
            audio_jitter_us,
            pli_to_keyframe_us,
            estimate_bps,
            uplink_estimate_bps,
            data_latency_us,
            rpc_round_trip_us,
            publish_lateness_us,
        } = self;
        let by_height = video_latency_by_height_us.iter();
        let by_height =
            by_height.map(|(height, values)| (Measure::VideoLatencyOfHeight(*height), values));
        let data = DataKind::ALL.into_iter().zip(data_latency_us);
        let data = data.map(|(kind, values)| (Measure::DataLatency(kind), values));
        [
            (Measure::VideoLatency, video_latency_us),
            (Measure::AudioLatency, audio_latency_us),
            (Measure::VideoJitter, video_jitter_us),
            (Measure::AudioJitter, audio_jitter_us),
            (Measure::PliToKeyframe, pli_to_keyframe_us),
            (Measure::Estimate, estimate_bps),
            (Measure::UplinkEstimate, uplink_estimate_bps),
            (Measure::RpcRoundTrip, rpc_round_trip_us),
            (Measure::PublishLateness, publish_lateness_us),
        ]
        .into_iter()
        .chain(by_height)
        .chain(data)
    }

    /// The one that is of this; `None` for one height of a picture more than are told apart.
    pub fn of(&mut self, measure: Measure) -> Option<&mut Histogram<u64>> {
        Some(match measure {
            Measure::VideoLatency => &mut self.video_latency_us,
            Measure::VideoLatencyOfHeight(height) => return self.of_height(height),
            Measure::AudioLatency => &mut self.audio_latency_us,
            Measure::VideoJitter => &mut self.video_jitter_us,
            Measure::AudioJitter => &mut self.audio_jitter_us,
            Measure::PliToKeyframe => &mut self.pli_to_keyframe_us,
            Measure::Estimate => &mut self.estimate_bps,
            Measure::UplinkEstimate => &mut self.uplink_estimate_bps,
            Measure::DataLatency(kind) => &mut self.data_latency_us[kind as usize],
            Measure::RpcRoundTrip => &mut self.rpc_round_trip_us,
            Measure::PublishLateness => &mut self.publish_lateness_us,
        })
    }

    fn of_height(&mut self, height: u16) -> Option<&mut Histogram<u64>> {
        let by_height = &mut self.video_latency_by_height_us;
        let found = by_height.iter().position(|(known, _)| *known == height);
        let index = match found {
            Some(index) => index,
            None if by_height.len() < HEIGHTS_MAX => {
                by_height.push((height, histogram(3)));
                by_height.len() - 1
            }
            None => return None,
        };
        by_height.get_mut(index).map(|(_, histogram)| histogram)
    }
}

/// Where a worker's samples go: the measured window, the running second of its video latency, and,
/// if somebody is to know it before the end, what of the window nobody was told yet.
#[derive(Debug)]
pub(crate) struct Measured {
    /// One entry a cohort, made with its first sample.
    windows: Vec<Option<Box<Distributions>>>,
    second_video_latency_us: Histogram<u64>,
    tells: bool,
    /// Of all cohorts; made with its first sample.
    untold: Option<Box<Distributions>>,
}

impl Measured {
    /// For so many cohorts, at least one; `tells` if [`take_untold`](Self::take_untold) is to have
    /// anything.
    pub(crate) fn new(cohorts: usize, tells: bool) -> Self {
        Self {
            windows: vec![None; cohorts.max(1)],
            second_video_latency_us: histogram(2),
            tells,
            untold: None,
        }
    }

    /// A sample of a peer in this cohort.
    pub(crate) fn record(&mut self, cohort: u16, sample: Sample) {
        if let Sample::Latency { kind: MediaKind::Video, latency, .. } = sample {
            self.second_video_latency_us.saturating_record(micros(latency));
        }
        if self.tells {
            self.untold.get_or_insert_default().record(sample);
        }
        if let Some(window) = self.windows.get_mut(usize::from(cohort)) {
            window.get_or_insert_default().record(sample);
        }
    }

    /// A peer in this cohort had these streams.
    pub(crate) fn closed(&mut self, cohort: u16, streams: &[StreamReport]) {
        let Some(window) = self.windows.get_mut(usize::from(cohort)) else { return };
        for stream in streams.iter().filter(|stream| stream.jitter.is_some()) {
            window.get_or_insert_default().ended(stream);
            if self.tells {
                self.untold.get_or_insert_default().ended(stream);
            }
        }
    }

    /// What was measured in the window and not handed out here yet: moved out, for a copy of a
    /// worker's distributions takes longer than a packet may be late.
    pub(crate) fn take_untold(&mut self) -> Option<Box<Distributions>> {
        self.untold.take()
    }

    /// The measured window of each cohort; `None` where nothing was measured.
    pub(crate) fn into_windows(self) -> impl Iterator<Item = Option<Box<Distributions>>> {
        self.windows.into_iter()
    }

    /// Ends the running second; returns its video latencies in microseconds, to two significant
    /// digits. `None` if there were none.
    pub(crate) fn close_second(&mut self) -> Option<Histogram<u64>> {
        let second = &mut self.second_video_latency_us;
        (!second.is_empty()).then(|| std::mem::replace(second, histogram(2)))
    }

    /// Starts the measured window anew.
    pub(crate) fn begin_measuring(&mut self) {
        self.windows.fill(None);
        self.untold = None;
    }
}

fn add(sum: &mut Histogram<u64>, other: &Histogram<u64>) {
    // Fails only if `other` has values beyond `sum`'s maximum; all have the same.
    let _ = sum.add(other);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// From a microsecond up to [`MICROS_MAX`].
fn histogram(significant_digits: u8) -> Histogram<u64> {
    // Both arguments are constants inside the constructor's documented bounds.
    #[allow(clippy::expect_used)]
    Histogram::new_with_max(MICROS_MAX, significant_digits).expect("constant bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(height: u16, ms: u64) -> Sample {
        let latency = Duration::from_millis(ms);
        Sample::Latency { kind: MediaKind::Video, height: Some(height), latency }
    }

    #[test]
    fn merged_percentiles_are_those_of_all_values() {
        let (mut one, mut other) = (Distributions::default(), Distributions::default());
        (1..=900).for_each(|ms| one.record(latency(720, ms)));
        (901..=1_000).for_each(|ms| other.record(latency(180, ms)));
        other.record(Sample::KeyframeAfterPli(Duration::from_millis(70)));
        other.record(Sample::Published { lateness: Duration::from_micros(300), packets: 9 });
        one.merge(&other);
        let close = |value: u64, ms: u64| value.abs_diff(ms * 1_000) <= ms;
        assert_eq!(one.video_latency_us.len(), 1_000);
        assert!(close(one.video_latency_us.value_at_quantile(0.95), 950));
        let heights: Vec<_> =
            one.video_latency_by_height_us.iter().map(|(h, values)| (*h, values.len())).collect();
        assert_eq!(heights, [(720, 900), (180, 100)]);
        assert_eq!((one.pli_to_keyframe_us.len(), one.publish_lateness_us.len()), (1, 9));
    }

    #[test]
    fn too_many_heights_stay_in_the_total() {
        let mut all = Distributions::default();
        (1..=20).for_each(|height| all.record(latency(height, 5)));
        assert_eq!(all.video_latency_by_height_us.len(), HEIGHTS_MAX);
        assert_eq!(all.video_latency_us.len(), 20);
    }

    #[test]
    fn a_second_is_handed_out_once() {
        let mut measured = Measured::new(1, false);
        assert!(measured.close_second().is_none());
        measured.record(0, latency(720, 40));
        assert_eq!(measured.close_second().map(|second| second.len()), Some(1));
        assert!(measured.close_second().is_none());
        assert_eq!(values(measured), [1]);
        let mut measured = Measured::new(1, false);
        measured.record(0, latency(720, 40));
        measured.begin_measuring();
        assert_eq!(values(measured), [0]);
    }

    fn values(measured: Measured) -> Vec<u64> {
        let len = |window: Box<Distributions>| window.video_latency_us.len();
        measured.into_windows().map(|window| window.map_or(0, len)).collect()
    }

    #[test]
    fn cohorts_are_kept_apart_and_the_second_is_of_all() {
        let mut measured = Measured::new(3, true);
        (0..5).for_each(|_| measured.record(0, latency(720, 4)));
        (0..2).for_each(|_| measured.record(2, latency(720, 104)));
        assert_eq!(measured.close_second().map(|second| second.len()), Some(7));
        let untold =
            |measured: &mut Measured| measured.take_untold().map(|all| all.video_latency_us.len());
        assert_eq!(untold(&mut measured), Some(7));
        assert_eq!(untold(&mut measured), None);
        measured.record(1, latency(720, 4));
        assert_eq!(untold(&mut measured), Some(1));
        assert_eq!(values(measured), [5, 1, 2]);
    }

    #[test]
    fn what_is_told_begins_anew_with_the_window_and_only_where_it_is_asked_for() {
        let mut measured = Measured::new(1, true);
        measured.record(0, latency(720, 4));
        measured.begin_measuring();
        assert!(measured.take_untold().is_none());
        let mut silent = Measured::new(1, false);
        silent.record(0, latency(720, 4));
        assert!(silent.take_untold().is_none());
    }

    #[test]
    fn each_distribution_is_found_by_what_it_is_of() {
        let mut all = Distributions::default();
        all.record(latency(720, 4));
        let measures: Vec<Measure> = all.all().map(|(measure, _)| measure).collect();
        assert_eq!(measures.len(), 10 + DataKind::COUNT);
        assert!(["", "video", "video-latency-x"].iter().all(|name| Measure::named(name).is_none()));
        for (count, measure) in (1..).zip(&measures) {
            all.of(*measure).unwrap().record_n(7, 100 * count).unwrap();
        }
        let mut sum = Distributions::default();
        sum.merge(&all);
        for (count, (measure, values)) in (1..).zip(sum.all()) {
            let more = u64::from(matches!(
                measure,
                Measure::VideoLatency | Measure::VideoLatencyOfHeight(_)
            ));
            assert_eq!(values.len(), 100 * count + more, "{measure:?}");
            assert_eq!(Measure::named(&measure.name()), Some(measure));
        }
    }
}
