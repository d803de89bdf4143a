//! A publisher's packet on its way through the SFU.

use std::sync::Arc;

use str0m::format::PayloadParams;
use str0m::rtp::{AbsCaptureTime, ExtensionValues, VideoOrientation};

use super::message::TrackKey;
use super::rewrite::Numbers;
use super::scalable::frame::LayerFrame;

/// One publisher packet, read and numbered once, shared by all subscribers.
#[derive(Debug, Clone)]
pub(crate) struct MediaPacket {
    pub(crate) layer: u8,
    pub(crate) numbers: Numbers,
    pub(crate) marker: bool,
    pub(crate) starts_keyframe: bool,
    pub(crate) extensions: Extensions,
    pub(crate) payload: Arc<[u8]>,
    /// Of redundant audio: where in the payload the packet's own begins. Who knows no RED gets that
    /// alone.
    pub(crate) primary_at: Option<usize>,
    /// Of a stream of several layers: which of them it belongs to.
    pub(crate) frame: Option<Arc<LayerFrame>>,
}

impl MediaPacket {
    /// Its spatial layer.
    pub(crate) fn spatial(&self) -> u8 {
        self.frame.as_ref().map_or(self.layer, |frame| frame.layer.spatial)
    }
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
