//! Frames that the server made itself: they fill a pause, and are no media of any publisher.
//!
//! LiveKit (pkg/sfu/downtrack.go, `writeBlankFrameRTP` and `sendSilentFrameOnMuteForAudio`) sends
//! Opus silence for a second when a track is muted (five seconds to a subscriber that comes while
//! it is muted), and VP8 and H.264 keyframes of 8×8 and 2×2 pixels for 0.2 s when a track ends.
//! They take sequence numbers of the stream, carry no capture time and are never retransmitted. A
//! publisher can't be told from the server by anything but the content.

use stampede_media::{Codec, vp8};

/// LiveKit's silence: an Opus packet of three bytes padded with zeros to this length. An encoder
/// pads nothing unless it is told to.
const OPUS_SILENCE_BYTES: usize = 80;
const OPUS_SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];
/// Side of the VP8 keyframe in pixels; no camera is that small.
const VP8_BLANK_PIXELS: (u16, u16) = (8, 8);
/// RFC 6184 §5.7.1.
const H264_STAP_A: u8 = 24;
/// Types and lengths of the units in the H.264 keyframe: SPS, PPS, IDR.
const H264_BLANK_UNITS: [(u8, usize); 3] = [(7, 24), (8, 6), (5, 10)];

/// True if this RTP payload is one of LiveKit's own blank frames. The trailer that encrypted rooms
/// append (`JoinResponse.sif_trailer`) may follow it.
pub fn is_server_made(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Opus => is_opus_silence(payload),
        Codec::Vp8 => is_blank_vp8(payload),
        Codec::H264 => is_blank_h264(payload),
        _ => false,
    }
}

fn is_opus_silence(payload: &[u8]) -> bool {
    let Some(frame) = payload.get(..OPUS_SILENCE_BYTES) else { return false };
    frame[..3] == OPUS_SILENCE && frame[3..].iter().all(|&byte| byte == 0)
}

fn is_blank_vp8(payload: &[u8]) -> bool {
    // Far below any real keyframe: the rest is not looked at for almost all packets.
    if payload.len() > 128 {
        return false;
    }
    let Ok(descriptor) = vp8::Descriptor::parse(payload) else { return false };
    let frame = payload.get(descriptor.len..).unwrap_or_default();
    descriptor.starts_frame() && vp8::keyframe_size(frame) == Some(VP8_BLANK_PIXELS)
}

fn is_blank_h264(payload: &[u8]) -> bool {
    let Some((&header, mut rest)) = payload.split_first() else { return false };
    if header & 0x1f != H264_STAP_A {
        return false;
    }
    for (unit_type, unit_bytes) in H264_BLANK_UNITS {
        let Some((size, unit)) = rest.split_first_chunk::<2>() else { return false };
        let size = usize::from(u16::from_be_bytes(*size));
        let first = unit.first().copied().unwrap_or(0);
        if size != unit_bytes || first & 0x1f != unit_type || unit.len() < size {
            return false;
        }
        rest = &unit[size..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn livekits_blank_frames_are_known() {
        let mut opus = vec![0xf8, 0xff, 0xfe];
        opus.resize(80, 0);
        assert!(is_server_made(Codec::Opus, &opus));
        opus.extend_from_slice(b"trailer");
        assert!(is_server_made(Codec::Opus, &opus));

        let descriptor = [0x90, 0xe0, 0x80, 1, 2, 0];
        let keyframe = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 8, 0, 8, 0, 0, 0x47];
        assert!(is_server_made(Codec::Vp8, &[&descriptor[..], &keyframe].concat()));

        let mut h264 = vec![0x18];
        for (first, len) in [(0x67_u8, 24_u16), (0x68, 6), (0x65, 10)] {
            h264.extend(len.to_be_bytes());
            h264.push(first);
            h264.resize(h264.len() + usize::from(len) - 1, 0x55);
        }
        assert!(is_server_made(Codec::H264, &h264));
        assert!(!is_server_made(Codec::Vp9, &h264));
    }

    #[test]
    fn what_publishers_send_is_not_taken_for_it() {
        // An encoder's own silence (libopus in DTX), and speech that begins alike.
        assert!(!is_server_made(Codec::Opus, &[0xf8, 0xff, 0xfe]));
        let mut speech = vec![0xf8, 0xff, 0xfe];
        speech.resize(80, 0);
        speech[60] = 1;
        assert!(!is_server_made(Codec::Opus, &speech));
        let small = [0x90, 0xe0, 0x80, 1, 2, 0, 0x10, 0x02, 0, 0x9d, 1, 0x2a, 16, 0, 16, 0, 0];
        assert!(!is_server_made(Codec::Vp8, &small));
        for payload in [&[][..], &[0x18], &[0x18, 0], &[0x18, 0, 24, 0x67], &[0x65; 40]] {
            for codec in [Codec::Opus, Codec::Vp8, Codec::H264, Codec::Av1] {
                assert!(!is_server_made(codec, payload), "{codec:?} {payload:?}");
            }
        }
    }
}
