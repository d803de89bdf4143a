//! What a publisher is told to send.

use std::sync::Arc;
use std::time::Duration;

use stampede_media::{Codec, MediaClip, vp9};

use super::{AudioOptions, SpeakingTurns};
use crate::MediaKind;

/// Longest client track id: it becomes an msid (RFC 8830: 1 to 64 token characters).
pub const CID_CHARS_MAX: usize = 64;
/// Most simulcast layers (LiveKit has q, h and f).
pub const LAYERS_MAX: usize = 3;

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
    /// When an audio track is loud; `None` is always.
    pub speaking: Option<SpeakingTurns>,
    /// How audio is to be sent.
    pub audio: AudioOptions,
}

/// One layer of a track.
#[derive(Debug, Clone)]
pub struct PublishLayer {
    /// `q`, `h` or `f` (LiveKit's names) for simulcast, `None` for a single layer.
    pub rid: Option<&'static str>,
    /// What is sent, shared by all publishers.
    pub clip: Arc<MediaClip>,
}

/// Why a track can't be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrackError {
    /// The id can't be an msid.
    #[error("its id must be 1 to {CID_CHARS_MAX} of the characters A-Z a-z 0-9 - _ . and the like")]
    Cid,
    /// No layers, too many, or rids missing.
    #[error(
        "give one layer without rid, or 2 to {LAYERS_MAX} video layers with a rid of its own each"
    )]
    Layers,
    /// A clip of another kind, or of another codec than the track's first layer.
    #[error("{codec} can't be sent as {kind}, or not beside another codec in one track")]
    Codec {
        /// The clip's.
        codec: Codec,
        /// The track's.
        kind: MediaKind,
    },
    /// A clip without frames.
    #[error("clip {0:?} has no frames")]
    Empty(String),
    /// The first frame is not a keyframe.
    #[error("clip {0:?} does not begin with a keyframe")]
    NoKeyframe(String),
    /// A packet without the descriptor fields that a publisher rewrites.
    #[error("clip {0:?} has a packet without 15-bit picture id and TL0PICIDX")]
    Descriptor(String),
}

impl PublishTrack {
    /// Checks what can be checked before anything is sent.
    pub fn validate(&self) -> Result<(), TrackError> {
        // RFC 8866 §9 token characters.
        let token = |c: char| c.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]".contains(c);
        let chars = self.cid.chars().count();
        if !(1..=CID_CHARS_MAX).contains(&chars) || !self.cid.chars().all(token) {
            return Err(TrackError::Cid);
        }
        let with_rid = self.layers.iter().filter(|layer| layer.rid.is_some()).count();
        let simulcast = (2..=LAYERS_MAX).contains(&self.layers.len());
        match (self.layers.len(), with_rid) {
            (1, 0) => {}
            _ if self.has_twin_rids() => return Err(TrackError::Layers),
            (layers, rids) if simulcast && layers == rids && self.kind == MediaKind::Video => {}
            _ => return Err(TrackError::Layers),
        }
        self.layers.iter().try_for_each(|layer| self.validate_clip(&layer.clip))
    }

    /// The codec of a video track.
    pub fn video_codec(&self) -> Option<Codec> {
        let first = self.layers.first().map(|layer| layer.clip.codec);
        first.filter(|_| self.kind == MediaKind::Video)
    }

    fn has_twin_rids(&self) -> bool {
        let rids: Vec<_> = self.layers.iter().map(|layer| layer.rid).collect();
        (1..rids.len()).any(|index| rids[index..].contains(&rids[index - 1]))
    }

    fn validate_clip(&self, clip: &MediaClip) -> Result<(), TrackError> {
        let fits = match self.kind {
            MediaKind::Video => clip.codec.is_video() && self.video_codec() == Some(clip.codec),
            MediaKind::Audio => clip.codec == Codec::Opus,
        };
        if !fits {
            return Err(TrackError::Codec { codec: clip.codec, kind: self.kind });
        }
        let Some(first) = clip.frames.first() else {
            return Err(TrackError::Empty(clip.name.clone()));
        };
        if clip.duration_ticks == 0 || clip.clock_rate == 0 {
            return Err(TrackError::Empty(clip.name.clone()));
        }
        if !first.keyframe {
            return Err(TrackError::NoKeyframe(clip.name.clone()));
        }
        let vp8_patchable = |payload: &Arc<[u8]>| {
            str0m::rtp::Vp8Descriptor::parse(payload)
                .and_then(|d| {
                    d.patch()
                        .picture_id(0x7fff)
                        .tl0_pic_idx(0)
                        .build()
                        .map_err(|_| str0m::rtp::Vp8DescriptorError::MalformedDescriptor)
                })
                .is_ok()
        };
        let vp9_patchable = |payload: &Arc<[u8]>| {
            vp9::Descriptor::parse(payload).is_ok_and(|descriptor| {
                descriptor.picture_id_wide && descriptor.tl0_pic_idx.is_some()
            })
        };
        let mut packets = clip.frames.iter().flat_map(|frame| &frame.packets);
        let patchable = match clip.codec {
            Codec::Vp8 => packets.all(vp8_patchable),
            Codec::Vp9 => packets.all(vp9_patchable),
            _ => true,
        };
        if !patchable {
            return Err(TrackError::Descriptor(clip.name.clone()));
        }
        Ok(())
    }
}
