//! What the SFU reads of a payload: whether it starts a keyframe, and VP8's numbers.

use str0m::format::{
    Codec, detect_av1_keyframe, detect_h264_keyframe, detect_h264_nalu, detect_h265_keyframe,
    detect_vp8_keyframe, detect_vp9_keyframe,
};
use str0m::rtp::Vp8Descriptor;

use super::rewrite::Vp8Numbers;

/// What was read of one payload.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Inspected {
    /// The packet starts a frame that needs no other frame; always true for audio.
    pub(crate) starts_keyframe: bool,
    /// The numbers a switch has to keep continuous: none but for VP8 payloads whose descriptor is
    /// valid.
    pub(crate) vp8: Vp8Numbers,
}

/// LiveKit's name of redundant Opus (RFC 2198).
pub(crate) const AUDIO_RED: &str = "audio/red";

/// NAL unit type of a sequence parameter set (H.264 table 7-1).
const H264_SPS: u8 = 7;

/// Reads a payload. Anything malformed is simply no keyframe.
pub(crate) fn inspect(codec: Codec, payload: &[u8]) -> Inspected {
    if codec.is_audio() {
        return Inspected { starts_keyframe: true, vp8: Vp8Numbers::default() };
    }
    let starts_keyframe = match codec {
        Codec::Vp8 => detect_vp8_keyframe(payload),
        Codec::Vp9 => detect_vp9_keyframe(payload),
        // The parameter sets come first and belong to the keyframe.
        Codec::H264 => detect_h264_nalu(payload, H264_SPS) || detect_h264_keyframe(payload),
        Codec::H265 => detect_h265_keyframe(payload),
        Codec::Av1 => detect_av1_keyframe(payload),
        _ => false,
    };
    let descriptor = (codec == Codec::Vp8).then(|| Vp8Descriptor::parse(payload).ok()).flatten();
    let vp8 = descriptor.map_or_else(Vp8Numbers::default, |vp8| Vp8Numbers {
        picture_id: vp8.picture_id(),
        tl0_pic_idx: vp8.tl0_pic_idx(),
        key_idx: vp8.key_idx(),
    });
    Inspected { starts_keyframe, vp8 }
}

/// LiveKit's name of a codec (`TrackInfo.mime_type`), if it carries it.
pub(crate) fn mime_type(codec: Codec) -> Option<&'static str> {
    Some(match codec {
        Codec::Opus => "audio/opus",
        Codec::PCMU => "audio/PCMU",
        Codec::PCMA => "audio/PCMA",
        Codec::Vp8 => "video/VP8",
        Codec::Vp9 => "video/VP9",
        Codec::H264 => "video/H264",
        Codec::H265 => "video/H265",
        Codec::Av1 => "video/AV1",
        _ => return None,
    })
}
