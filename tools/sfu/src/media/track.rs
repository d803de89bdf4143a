//! Published tracks as a worker sees them: its own publishers', and those of other workers that
//! it has subscribers for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use str0m::format::PayloadParams;
use str0m::rtp::{AbsCaptureTime, ExtensionValues, VideoOrientation};

use super::TrackKey;
use super::egress::resend::ResendCache;
use super::layers::{LAYERS_MAX, LayerActivity};
use super::rewrite::{DenseSequence, Numbers};
use crate::ledger::PublishedTrackLedger;

/// Keyframes are asked for at most this often a layer.
pub(crate) const KEYFRAME_INTERVAL_MIN: Duration = Duration::from_millis(500);

/// One publisher packet, read and numbered once, shared by all subscribers.
#[derive(Debug, Clone)]
pub(crate) struct MediaPacket {
    pub(crate) layer: u8,
    pub(crate) numbers: Numbers,
    pub(crate) marker: bool,
    pub(crate) starts_keyframe: bool,
    pub(crate) extensions: Extensions,
    pub(crate) payload: Arc<[u8]>,
}

/// Header extensions that are passed on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extensions {
    pub(crate) audio_level: Option<i8>,
    pub(crate) voice_activity: Option<bool>,
    pub(crate) video_orientation: Option<VideoOrientation>,
    pub(crate) abs_capture_time: Option<AbsCaptureTime>,
}

impl Extensions {
    pub(crate) fn read(values: &ExtensionValues) -> Self {
        Self {
            audio_level: values.audio_level,
            voice_activity: values.voice_activity,
            video_orientation: values.video_orientation,
            abs_capture_time: values.abs_capture_time,
        }
    }
}

/// Packets of one track for another worker.
pub(crate) struct MediaBatch {
    pub(crate) track: TrackKey,
    pub(crate) params: PayloadParams,
    pub(crate) packets: Vec<MediaPacket>,
}

/// A track on one worker.
pub(crate) struct Track {
    pub(crate) key: TrackKey,
    pub(crate) kind: MediaKind,
    /// Set on the worker of the publisher only.
    pub(crate) source: Option<Source>,
    /// The worker of the publisher.
    pub(crate) home: usize,
    /// Codec of the packets, once one has arrived.
    pub(crate) params: Option<PayloadParams>,
    /// Counts changes of `params`, which are long to compare.
    pub(crate) params_version: u32,
    pub(crate) activity: LayerActivity,
    /// The layer to forward under each limit, as of this burst.
    pub(crate) choices: [Option<u8>; LAYERS_MAX],
    /// Indices of subscribed peers of this worker.
    pub(crate) subscribers: Vec<usize>,
    /// Packets that arrived and were not forwarded yet.
    pub(crate) burst: Vec<MediaPacket>,
    /// How many of them, the first ones, were passed to other workers.
    pub(crate) burst_shared: usize,
    pub(crate) keyframes: [KeyframeGate; LAYERS_MAX],
    /// Packets that subscribers may ask for again.
    pub(crate) resend: ResendCache,
}

/// The publisher's side of a track.
pub(crate) struct Source {
    /// Index of the publisher's peer.
    pub(crate) peer: usize,
    pub(crate) room: Arc<str>,
    /// Other workers that want the packets.
    pub(crate) interested: Vec<usize>,
    /// Numberings, one an SSRC seen.
    pub(crate) streams: Vec<SourceStream>,
    pub(crate) ledger: PublishedTrackLedger,
}

/// One SSRC of a publisher.
pub(crate) struct SourceStream {
    pub(crate) ssrc: u32,
    pub(crate) layer: u8,
    /// Unique number of this numbering.
    pub(crate) id: u32,
    pub(crate) sequence: DenseSequence,
    pub(crate) first_seq: u64,
    pub(crate) highest_seq: u64,
    pub(crate) received: u64,
    pub(crate) params: PayloadParams,
    pub(crate) payload_type: u8,
}

impl SourceStream {
    /// Sequence numbers that never arrived.
    pub(crate) fn lost(&self) -> u64 {
        (self.highest_seq - self.first_seq + 1).saturating_sub(self.received)
    }
}

impl Track {
    /// Keeps `resend_packets_max` packets of each of its numberings.
    pub(crate) fn new(
        key: TrackKey,
        kind: MediaKind,
        home: usize,
        resend_packets_max: usize,
    ) -> Self {
        Self {
            key,
            kind,
            source: None,
            home,
            params: None,
            params_version: 0,
            activity: LayerActivity::default(),
            choices: [None; LAYERS_MAX],
            subscribers: Vec::new(),
            burst: Vec::new(),
            burst_shared: 0,
            keyframes: [KeyframeGate::default(); LAYERS_MAX],
            resend: ResendCache::new(resend_packets_max),
        }
    }

    /// Before the first `share` packets of the burst go to everybody.
    pub(crate) fn begin_share(&mut self, share: usize) {
        self.choices = self.activity.choices();
        for packet in self.burst.iter().take(share) {
            self.resend.keep(packet);
        }
        self.find_keyframes();
    }

    /// After that. Who waits for a keyframe that is in the rest will have it.
    pub(crate) fn end_share(&mut self, share: usize) {
        self.burst.drain(..share.min(self.burst.len()));
        self.burst_shared = self.burst.len();
        self.find_keyframes();
    }

    fn find_keyframes(&mut self) {
        for packet in self.burst.iter().filter(|packet| packet.starts_keyframe) {
            if let Some(gate) = self.keyframes.get_mut(usize::from(packet.layer)) {
                gate.satisfied();
            }
        }
    }

    /// Notes the codec of a packet.
    pub(crate) fn set_params(&mut self, params: PayloadParams) {
        if self.params != Some(params) {
            self.params = Some(params);
            self.params_version += 1;
        }
    }
}

/// Merges keyframe requests: one goes at once, more within the interval become one at its end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KeyframeGate {
    wanted: bool,
    last_at: Option<Instant>,
}

impl KeyframeGate {
    /// Somebody needs a keyframe.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    /// A keyframe has come.
    pub(crate) fn satisfied(&mut self) {
        self.wanted = false;
    }

    /// Whether to send a request now.
    pub(crate) fn due(&mut self, now: Instant) -> bool {
        let open = self
            .last_at
            .is_none_or(|at| now.saturating_duration_since(at) >= KEYFRAME_INTERVAL_MIN);
        if !(self.wanted && open) {
            return false;
        }
        self.wanted = false;
        self.last_at = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyframe_requests_are_merged_but_never_lost() {
        let now = Instant::now();
        let mut gate = KeyframeGate::default();
        assert!(!gate.due(now));
        gate.want();
        assert!(gate.due(now));
        gate.want();
        gate.want();
        assert!(!gate.due(now + Duration::from_millis(499)));
        assert!(gate.due(now + KEYFRAME_INTERVAL_MIN));
        assert!(!gate.due(now + KEYFRAME_INTERVAL_MIN * 9));
        gate.want();
        gate.satisfied();
        assert!(!gate.due(now + KEYFRAME_INTERVAL_MIN * 9));
    }
}
