//! Publishing: what is sent, and when each packet of a shared clip is due.

use std::sync::Arc;
use std::time::Duration;

use stampede_media::MediaClip;

use crate::MediaKind;

/// A packet that leaves later than this after it was due counts as late.
pub const LATE_AFTER: Duration = Duration::from_millis(10);

/// One track of a publisher.
#[derive(Debug, Clone)]
pub struct PublishTrack {
    /// Client track id, the same as in LiveKit's `AddTrackRequest`; becomes the msid's track.
    pub cid: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// One layer without rid, or simulcast layers from low to high.
    pub layers: Vec<PublishLayer>,
    /// How far into the clip the track begins: spreads publishers of the same clip. The first
    /// frame sent is a keyframe all the same.
    pub start_offset: Duration,
}

/// One layer of a track.
#[derive(Debug, Clone)]
pub struct PublishLayer {
    /// `q`, `h` or `f` (LiveKit's names) for simulcast, `None` for a single layer.
    pub rid: Option<&'static str>,
    /// What is sent, shared by all publishers.
    pub clip: Arc<MediaClip>,
}
