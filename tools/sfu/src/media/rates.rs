//! What each layer of a track takes, measured. Pure.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use super::layers::{LAYERS_MAX, Layer, Step};
use super::packet::MediaPacket;

/// Over how long a rate is measured.
const WINDOW: Duration = Duration::from_secs(1);
/// A track that has sent nothing for this long takes nothing.
const SILENT_MAX: Duration = Duration::from_secs(2);
/// Decode targets of a dependency structure at most.
const TARGETS_MAX: usize = 32;
/// A rate of pictures is enough where it is this share of what is asked for (LiveKit
/// `pkg/rtc/mediatrackreceiver.go`, `layerSelectionTolerance`).
const PICTURE_RATE_SHARE: f32 = 0.9;
/// Bytes of a packet beside its payload that an estimate of the way to a subscriber covers.
const HEADER_BYTES: u64 = 20;

/// The rates of one track's layers: of simulcast layers, or of the decode targets of one stream.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    since: Option<Instant>,
    last_at: Option<Instant>,
    bytes: [u64; TARGETS_MAX],
    /// The layer of each of `bytes`.
    layers: Vec<Layer>,
    scalable: bool,
    steps: Vec<Step>,
    /// Pictures of each of `layers`, of one stream alone.
    pictures: [u32; TARGETS_MAX],
    /// How many of them come in a second.
    picture_rates: Vec<(Layer, f32)>,
}

impl Rates {
    /// Takes a packet of the publisher's.
    pub(crate) fn add(&mut self, packet: &MediaPacket) {
        let at = packet.numbers.arrived_at;
        self.last_at = Some(at);
        let since = *self.since.get_or_insert(at);
        let elapsed = at.saturating_duration_since(since);
        if elapsed >= WINDOW {
            self.close(elapsed);
            self.since = Some(at);
        }
        let bytes = packet.payload.len() as u64 + HEADER_BYTES;
        match &packet.frame {
            Some(frame) => {
                if !self.scalable || self.layers != *frame.targets {
                    self.layers = frame.targets.to_vec();
                    self.scalable = true;
                    self.forget();
                }
                for (target, layer) in self.layers.iter().enumerate().take(TARGETS_MAX) {
                    if frame.present >> target & 1 == 1 {
                        self.bytes[target] += bytes;
                        let begins = frame.starts && frame.layer.spatial == layer.spatial;
                        self.pictures[target] += u32::from(begins);
                    }
                }
            }
            None => {
                if self.scalable || self.layers.is_empty() {
                    self.layers = (0..LAYERS_MAX as u8).map(Layer::spatial).collect();
                    self.scalable = false;
                    self.forget();
                }
                if let Some(sum) = self.bytes.get_mut(usize::from(packet.layer)) {
                    *sum += bytes;
                }
            }
        }
    }

    /// The layers that were there lately, lowest first, but those that are not needed for so many pictures
    /// a second; none before they were measured.
    pub(crate) fn steps(&self, now: Instant, pictures_per_s: u32) -> Cow<'_, [Step]> {
        let silent = |at| now.saturating_duration_since(at) >= SILENT_MAX;
        if self.last_at.is_none_or(silent) {
            return Cow::default();
        }
        if pictures_per_s == 0 {
            return Cow::from(&self.steps);
        }
        let needed =
            |step: &&Step| step.layer.temporal <= self.temporal(step.layer.spatial, pictures_per_s);
        self.steps.iter().filter(needed).copied().collect()
    }

    /// The temporal layer of a spatial one that has so many pictures a second, or all where they are not
    /// known to be more, or 0 are asked for (LiveKit `GetTemporalLayerForSpatialFps`).
    pub(crate) fn temporal(&self, spatial: u8, pictures_per_s: u32) -> u8 {
        if pictures_per_s == 0 {
            return u8::MAX;
        }
        let wanted = pictures_per_s as f32 * PICTURE_RATE_SHARE;
        let enough = self
            .picture_rates
            .iter()
            .filter(|(layer, rate)| layer.spatial == spatial && *rate >= wanted);
        enough.map(|(layer, _)| layer.temporal).min().unwrap_or(u8::MAX)
    }

    /// Its layers are other ones.
    fn forget(&mut self) {
        (self.bytes, self.pictures) = ([0; TARGETS_MAX], [0; TARGETS_MAX]);
        self.steps.clear();
        self.picture_rates.clear();
    }

    fn close(&mut self, elapsed: Duration) {
        if self.scalable {
            let pictures = self.layers.iter().copied().zip(std::mem::take(&mut self.pictures));
            let known = std::mem::take(&mut self.picture_rates);
            let rate = |(layer, pictures): (Layer, u32)| {
                let measured = pictures as f32 / elapsed.as_secs_f32();
                let before = known.iter().find(|(known, _)| *known == layer);
                // A second in which a picture came late has fewer than the next.
                (layer, before.map_or(measured, |(_, before)| (before + measured) / 2.0))
            };
            self.picture_rates = pictures.map(rate).collect();
        }
        let known = std::mem::take(&mut self.steps);
        for (layer, bytes) in self.layers.iter().zip(&mut self.bytes) {
            let bytes = std::mem::take(bytes);
            if bytes == 0 {
                continue;
            }
            let measured_bps = (bytes as f64 * 8.0 / elapsed.as_secs_f64()) as u64;
            let before = known.iter().find(|step| step.layer == *layer);
            // A second with a keyframe takes more than the next.
            let bitrate_bps =
                before.map_or(measured_bps, |step| (step.bitrate_bps + measured_bps) / 2);
            self.steps.push(Step { layer: *layer, bitrate_bps });
        }
        self.steps.sort_unstable_by_key(|step| step.layer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::packet::Extensions;
    use crate::media::rewrite::{Numbers, Vp8Numbers};
    use crate::media::scalable::frame::LayerFrame;

    fn packet(layer: u8, at: Instant, payload_bytes: usize) -> MediaPacket {
        MediaPacket {
            layer,
            numbers: Numbers {
                source: 1,
                seq: 1,
                timestamp: 0,
                vp8: Vp8Numbers::default(),
                captured_at_unix_us: None,
                arrived_at: at,
            },
            marker: true,
            starts_keyframe: false,
            extensions: Extensions::default(),
            payload: vec![0; payload_bytes].into(),
            primary_at: None,
            frame: None,
        }
    }

    #[test]
    fn layers_that_are_there_have_a_rate_once_a_window_is_over() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for ms in (0..=1_000).step_by(10) {
            let at = start + Duration::from_millis(ms);
            assert!(rates.steps(at, 0).is_empty());
            rates.add(&packet(0, at, 105));
            rates.add(&packet(2, at, 1_230));
        }
        let second = |seconds| start + Duration::from_secs(seconds);
        let steps: Vec<_> =
            rates.steps(second(1), 0).iter().map(|s| (s.layer, s.bitrate_bps)).collect();
        assert_eq!(steps, [(Layer::spatial(0), 100_000), (Layer::spatial(2), 1_000_000)]);
        for ms in (1_010..=2_000).step_by(10) {
            rates.add(&packet(0, start + Duration::from_millis(ms), 105));
        }
        assert_eq!(rates.steps(second(2), 0).len(), 2, "the last window still had one of it");
        for ms in (2_010..=3_000).step_by(10) {
            rates.add(&packet(0, start + Duration::from_millis(ms), 105));
        }
        let layers: Vec<_> = rates.steps(second(3), 0).iter().map(|step| step.layer).collect();
        assert_eq!(layers, [Layer::spatial(0)], "the other is gone");
        assert!(rates.steps(second(5), 0).is_empty(), "so is this one");
    }
    /// A packet that is a whole layer frame of a stream of two spatial layers of two temporal ones.
    fn layer_frame(layer: Layer, at: Instant, payload_bytes: usize) -> MediaPacket {
        let of = |spatial, temporal| Layer { spatial, temporal };
        let targets = [of(0, 0), of(0, 1), of(1, 0), of(1, 1)];
        let is_of =
            |target: &Layer| layer.spatial <= target.spatial && layer.temporal <= target.temporal;
        let present = targets.iter().enumerate().filter(|(_, target)| is_of(target));
        let present = present.fold(0, |bits, (at, _)| bits | 1 << at);
        let frame = LayerFrame::of(layer, present, targets.into());
        MediaPacket { frame: Some(frame.into()), ..packet(0, at, payload_bytes) }
    }

    /// Seconds of pictures of two spatial layers, so many in each second, every other one of the lower
    /// temporal layer.
    fn scalable(pictures: &[u64]) -> (Rates, Instant) {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for (second, &pictures) in pictures.iter().enumerate() {
            let second = start + Duration::from_secs(second as u64);
            for picture in 0..pictures {
                let at = second + Duration::from_secs(1) * picture as u32 / pictures as u32;
                for spatial in 0..2 {
                    let layer = Layer { spatial, temporal: (picture % 2) as u8 };
                    rates.add(&layer_frame(layer, at, 105));
                }
            }
        }
        let end = start + Duration::from_secs(pictures.len() as u64);
        rates.add(&layer_frame(Layer { spatial: 0, temporal: 0 }, end, 105));
        (rates, end)
    }

    #[test]
    fn layers_of_more_pictures_than_are_needed_are_none() {
        let (rates, now) = scalable(&[20]);
        let steps = |per_s| {
            let steps = rates.steps(now, per_s);
            steps
                .iter()
                .map(|s| (s.layer.spatial, s.layer.temporal, s.bitrate_bps))
                .collect::<Vec<_>>()
        };
        assert_eq!(steps(10), [(0, 0, 10_000), (1, 0, 20_000)]);
        assert_eq!(steps(20), [(0, 0, 10_000), (0, 1, 20_000), (1, 0, 20_000), (1, 1, 40_000)]);
        assert_eq!(steps(0), steps(20));
    }

    #[test]
    fn one_second_of_fewer_pictures_asks_for_no_more_layers() {
        assert_eq!(scalable(&[20]).0.temporal(0, 10), 0);
        assert_eq!(scalable(&[22, 22, 16]).0.temporal(0, 10), 0, "9 of 10 are enough");
        assert_eq!(scalable(&[22, 22, 10, 10, 10]).0.temporal(0, 10), 1);
    }
}
