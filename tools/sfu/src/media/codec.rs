//! What the SFU reads of a payload: whether it starts a keyframe, and VP8's numbers.

use stampede_media::h265;
use str0m::format::{Codec, detect_av1_keyframe, detect_h264_nalu, detect_vp8_keyframe};
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
        Codec::Vp9 => begins_vp9_keyframe(payload).unwrap_or(false),
        // The parameter sets come first and belong to the keyframe: a slice of it is behind its
        // beginning, and of no use without them.
        Codec::H264 => detect_h264_nalu(payload, H264_SPS),
        Codec::H265 => h265::Summary::of(payload).is_ok_and(|summary| summary.parameters),
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

/// The first packet of a frame that needs no other one: B, but no P and no D (RFC 9628 §4.2). The layers
/// above the lowest in a key picture have no P either, but D.
fn begins_vp9_keyframe(payload: &[u8]) -> Option<bool> {
    let (&flags, rest) = payload.split_first()?;
    let has = |mask: u8| flags & mask != 0;
    let picture_id = match rest.first() {
        Some(&first) if has(0x80) => 1 + usize::from(first >> 7),
        _ => 0,
    };
    let inter_layer = has(0x20) && rest.get(picture_id)? & 1 == 1;
    Some(!has(0x40) && has(0x08) && !inter_layer)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vp9_keyframe_begins_with_what_needs_nothing() {
        let starts = |payload: &[u8]| inspect(Codec::Vp9, payload).starts_keyframe;
        // I, L, B; a picture id of 15 bits; TID 0, SID 0; TL0PICIDX.
        assert!(starts(&[0xa8, 0x92, 0x34, 0x10, 7, 9]));
        assert!(!starts(&[0xa0, 0x92, 0x34, 0x10, 7, 9]), "not its first packet");
        assert!(!starts(&[0xa8, 0x92, 0x34, 0x13, 7, 9]), "the layer above");
        assert!(starts(&[0xa8, 0x92, 0x34, 0x12, 7, 9]), "another stream of the track");
        assert!(!starts(&[0xe8, 0x92, 0x34, 0x10, 7, 9]), "predicted");
        assert!(starts(&[0x88, 0x12, 9]) && starts(&[0x08, 9]), "one layer");
        assert!(!starts(&[]) && !starts(&[0xa8, 0x92]));
    }

    #[test]
    fn h264_and_h265_keyframes_begin_with_their_parameter_sets_alone() {
        let begin = |codec, payloads: &[&[u8]]| -> Vec<bool> {
            payloads.iter().map(|payload| inspect(codec, payload).starts_keyframe).collect()
        };
        // VPS, SPS and PPS in one packet; the first part of an IDR slice, and another; a later picture.
        let sets = &[0x60, 1, 0, 2, 0x40, 1, 0, 2, 0x42, 1, 0, 2, 0x44, 1][..];
        let h265 = [sets, &[0x62, 1, 0x93, 0x80], &[0x62, 1, 0x13, 0x80], &[0x02, 1, 0x80]];
        assert_eq!(begin(Codec::H265, &h265), [true, false, false, false]);
        // SPS and PPS in a STAP-A; the same as an FU-A, and as a whole; a later picture.
        let sets = &[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 1][..];
        let h264 = [sets, &[0x7c, 0x85, 1], &[0x7c, 0x05, 1], &[0x65, 1], &[0x41, 1]];
        assert_eq!(begin(Codec::H264, &h264), [true, false, false, false, false]);
        assert_eq!(begin(Codec::H264, &[&[0x67, 1], &[0x68, 1], &[0x65, 1]]), [true, false, false]);
    }
}
