//! What each layer of a track takes, measured. Pure.

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

    /// The layers that were there lately, lowest first; none before they were measured.
    pub(crate) fn steps(&self, now: Instant) -> &[Step] {
        let silent = |at| now.saturating_duration_since(at) >= SILENT_MAX;
        if self.last_at.is_none_or(silent) { &[] } else { &self.steps }
    }

    /// The temporal layer of a spatial one that has so many pictures a second, or all where they are not
    /// known to be more (LiveKit `GetTemporalLayerForSpatialFps`).
    pub(crate) fn temporal(&self, spatial: u8, pictures_per_s: u32) -> u8 {
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
            let per_s = |pictures: u32| pictures as f32 / elapsed.as_secs_f32();
            self.picture_rates = pictures.map(|(layer, sum)| (layer, per_s(sum))).collect();
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
            assert!(rates.steps(at).is_empty());
            rates.add(&packet(0, at, 105));
            rates.add(&packet(2, at, 1_230));
        }
        let second = |seconds| start + Duration::from_secs(seconds);
        let steps: Vec<_> =
            rates.steps(second(1)).iter().map(|s| (s.layer, s.bitrate_bps)).collect();
        assert_eq!(steps, [(Layer::spatial(0), 100_000), (Layer::spatial(2), 1_000_000)]);
        for ms in (1_010..=2_000).step_by(10) {
            rates.add(&packet(0, start + Duration::from_millis(ms), 105));
        }
        assert_eq!(rates.steps(second(2)).len(), 2, "the last window still had one of it");
        for ms in (2_010..=3_000).step_by(10) {
            rates.add(&packet(0, start + Duration::from_millis(ms), 105));
        }
        let layers: Vec<_> = rates.steps(second(3)).iter().map(|step| step.layer).collect();
        assert_eq!(layers, [Layer::spatial(0)], "the other is gone");
        assert!(rates.steps(second(5)).is_empty(), "so is this one");
    }
}
