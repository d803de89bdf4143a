//! How str0m is set up.

use std::net::SocketAddr;
use std::time::Instant;

use stampede_media::{Codec, MediaClip, h264, h265};
use str0m::bwe::Bitrate;
use str0m::format::FormatParams;
use str0m::media::Frequency;
use str0m::rtp::Extension;
use str0m::{Candidate, Rtc, RtcConfig};

use super::STATS_INTERVAL;
use super::publishing::{START_BITRATE_BPS, descriptor};
use crate::{BackupTrack, CreatePeerError, PeerOptions, PublishTrack};

/// What both roles share: RTP mode, no bandwidth estimation (so no pacer) unless a publisher is to
/// adapt, one certificate.
pub(super) fn common(options: &PeerOptions) -> RtcConfig {
    RtcConfig::new()
        .set_rtp_mode(true)
        .set_ice_lite(false)
        .set_crypto_provider(options.identity.crypto.clone())
        .set_dtls_cert(options.identity.certificate.clone())
        .set_stats_interval(None)
        .clear_codecs()
        .clear_extension_map()
        // What str0m does not send it need not keep for retransmission.
        .set_send_buffer_audio(1)
        .set_send_buffer_video(1)
}

/// A subscriber. str0m sees no media of it (see the `answer` module), and its congestion feedback is our
/// own (`crate::feedback`).
pub(super) fn subscriber(options: &PeerOptions) -> RtcConfig {
    common(options)
}

/// A peer that sends: Opus and the video codecs of its tracks, and the header extensions of a browser.
/// Payload types and extensions have the numbers that they have in what is offered to receive by
/// (`offer`): in one bundle a number means one thing (RFC 8843 §9.1, RFC 8285 §6).
pub(super) fn publisher(
    options: &PeerOptions,
    tracks: &[PublishTrack],
    backups: &[BackupTrack],
) -> RtcConfig {
    let red = tracks.iter().any(|track| track.audio.red);
    let mut config = common(options).enable_opus(true, red);
    if options.adapt {
        // Then str0m sends, and counts what it is told of that.
        config = config
            .enable_bwe(Some(Bitrate::from(START_BITRATE_BPS)))
            .set_stats_interval(Some(STATS_INTERVAL))
            .set_send_buffer_video(options.retransmit_cache_packets_max.max(1));
    }
    let all = || tracks.iter().chain(backups.iter().map(|backup| &backup.track));
    let videos = || all().filter(|track| track.video_codec().is_some()).flat_map(clips);
    // str0m offers the same list on each m-line. LiveKit answers with the codec in front that the
    // track was announced with (pkg/rtc/participant_sdp.go), and takes what comes for what its payload
    // type says.
    for (index, clip) in videos().enumerate() {
        let of_it = |other: &&MediaClip| other.codec == clip.codec;
        if !videos().take(index).any(|before| of_it(&before)) {
            add_video(&mut config, clip.codec, videos().filter(of_it));
        }
    }
    // For layers alone: where it was negotiated livekit-server 1.13.5 forwards no VP9 and AV1 without
    // descriptor (pkg/sfu/forwarder.go).
    if videos().any(|clip| clip.scalability.is_some()) {
        config = config.set_extension(12, descriptor::extension());
    }
    config
        .set_extension(1, Extension::AudioLevel)
        .set_extension(2, Extension::AbsoluteSendTime)
        .set_extension(3, Extension::TransportSequenceNumber)
        .set_extension(4, Extension::RtpMid)
        .set_extension(9, Extension::AbsoluteCaptureTime)
        .set_extension(10, Extension::RtpStreamId)
        .set_extension(11, Extension::RepairedRtpStreamId)
}

/// What a track sends.
fn clips(track: &PublishTrack) -> impl Iterator<Item = &MediaClip> {
    track.layers.iter().map(|layer| &*layer.clip)
}

/// Adds a codec with the profile and the level of these clips, all of it: those that decode any of
/// them.
fn add_video<'a>(config: &mut RtcConfig, codec: Codec, clips: impl Iterator<Item = &'a MediaClip>) {
    let mut format = FormatParams::default();
    // With the numbers of their retransmissions.
    let (codec, payload_type, rtx) = match codec {
        Codec::Vp9 => {
            format.profile_id = Some(0);
            (str0m::format::Codec::Vp9, 98, 99)
        }
        Codec::H264 => {
            let profile = profile_level_id(clips);
            format.level_asymmetry_allowed = Some(true);
            format.packetization_mode = Some(1);
            format.profile_level_id = Some(profile);
            let (payload_type, rtx) = match profile >> 8 {
                0x42_e0 => (109, 114),
                0x42_00 => (103, 104),
                _ => (119, 120),
            };
            (str0m::format::Codec::H264, payload_type, rtx)
        }
        Codec::H265 => {
            let (profile, tier, level) = profile_tier_level(clips);
            let (payload_type, rtx) = h265_numbers(profile, tier);
            let codecs = config.codec_config();
            codecs.add_h265(payload_type.into(), Some(rtx.into()), profile, tier, level);
            return;
        }
        Codec::Av1 => (str0m::format::Codec::Av1, 45, 46),
        Codec::Vp8 | Codec::Opus => (str0m::format::Codec::Vp8, 96, 97),
    };
    let (payload_type, rtx) = (u8::into(payload_type), Some(u8::into(rtx)));
    let codecs = config.codec_config();
    codecs.add_config(payload_type, rtx, codec, Frequency::NINETY_KHZ, None, format);
}

/// Payload types of H.265 and its retransmissions. What is offered to receive by is Main at Main tier;
/// another one is not that, and needs numbers of its own.
pub(super) const fn h265_numbers(profile: u8, tier: u8) -> (u8, u8) {
    match (profile, tier) {
        (1, 0) => (49, 50),
        _ => (47, 48),
    }
}

/// The profile that decodes all clips, as browsers write it: pion compares `profile_idc` and the
/// constraint flags byte by byte, and x264 sets other flags for the same Constrained Baseline. Who has
/// High has Main and both Baselines too (H.264 §A.2.4); of Main livekit-server knows nothing
/// (protocol/codecs/codecs.go), and all that there is else is refused when a file is read. The level is
/// at least 3.1, which is what browsers and LiveKit offer.
fn profile_level_id<'a>(clips: impl Iterator<Item = &'a MediaClip>) -> u32 {
    const CONSTRAINED_BASELINE: u32 = 0x42_e0_00;
    const BASELINE: u32 = 0x42_00_00;
    const HIGH: u32 = 0x64_00_00;
    let (mut profile, mut level) = (CONSTRAINED_BASELINE, 0x1f);
    for clip in clips {
        let parameters = parameters(clip, h264::sequence_parameters);
        let Some(own) = parameters.and_then(h264::profile_level_id) else { continue };
        profile = match own >> 16 {
            // constraint_set1_flag: Baseline that is also Main.
            0x42 if own & 0x4000 != 0 => profile,
            0x42 if profile != HIGH => BASELINE,
            0x42 => profile,
            _ => HIGH,
        };
        level = level.max(own & 0xff);
    }
    profile | level
}

/// Profile, tier and level that decode all clips, as their parameter sets say: Main 10 has Main, and
/// High tier has Main tier (H.265 §A.3.3, §A.4.1). Main at level 3.1 is what is meant where nothing is told
/// (RFC 7798 §7.1).
fn profile_tier_level<'a>(clips: impl Iterator<Item = &'a MediaClip>) -> (u8, u8, u8) {
    let needs = clips.filter_map(|clip| {
        let parameters = parameters(clip, h265::sequence_parameters)?;
        Some(h265::Parameters::parse(parameters)?.profile_tier_level)
    });
    let all = needs.fold(None, |all, needs| {
        let (profile, tier, level) = all.unwrap_or_default();
        let high_tier = u8::from(needs.high_tier);
        Some((needs.profile_id.max(profile), high_tier.max(tier), needs.level_id.max(level)))
    });
    all.unwrap_or((1, 0, 93))
}

/// The sequence parameter set of a clip, by what finds one in a payload.
fn parameters(clip: &MediaClip, find: fn(&[u8]) -> Option<&[u8]>) -> Option<&[u8]> {
    clip.frames.first()?.packets.iter().find_map(|payload| find(payload))
}

/// An instance with its first host candidate, if there is one yet.
pub(super) fn build(
    config: RtcConfig,
    now: Instant,
    local: Option<SocketAddr>,
) -> Result<Rtc, CreatePeerError> {
    let mut rtc = config.build(now);
    let Some(local) = local else { return Ok(rtc) };
    let refused = |reason: String| CreatePeerError::LocalAddress { address: local, reason };
    let candidate = Candidate::host(local, "udp").map_err(|error| refused(error.to_string()))?;
    if rtc.add_local_candidate(candidate).is_none() {
        return Err(refused("refused".to_owned()));
    }
    Ok(rtc)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x264's and x265's sequence parameter sets of 320×180 at 25 frames/s.
    const MAIN: &[u8] = &[
        0x67, 0x4d, 0x40, 0x0c, 0xd9, 0x01, 0x41, 0x9f, 0x9f, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00,
        0x10, 0x00, 0x00, 0x03, 0x03, 0x20, 0xf1, 0x42, 0xa4, 0x80,
    ];
    const MAIN_10: &[u8] = &[
        0x42, 0x01, 0x01, 0x02, 0x20, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00,
        0x03, 0x00, 0x3c, 0xa0, 0x0a, 0x08, 0x0b, 0x9f, 0x6d, 0x96, 0x4a, 0x92, 0x4c, 0xaf, 0x01,
        0x68, 0x08, 0x00, 0x00, 0x03, 0x00, 0x08, 0x00, 0x00, 0x03, 0x00, 0xc8, 0x40,
    ];

    fn clip(units: &[&[u8]]) -> MediaClip {
        let file: Vec<u8> = units.iter().flat_map(|unit| [&[0, 0, 0, 1], *unit].concat()).collect();
        MediaClip::from_bytes("test", &file).unwrap()
    }

    fn h264(set: &[u8]) -> MediaClip {
        clip(&[set, &[0x68, 0xeb, 0xc3, 0xcb, 0x20], &[0x65, 0x88, 0x84, 1]])
    }

    #[test]
    fn what_is_told_of_h264_decodes_all_that_is_sent() {
        let told =
            |clips: &[&MediaClip]| format!("{:06x}", profile_level_id(clips.iter().copied()));
        let [constrained, plain, main, high] = [
            [&[0x67, 0x42, 0xc0][..], &MAIN[3..]].concat(),
            [&[0x67, 0x42, 0x00][..], &MAIN[3..]].concat(),
            MAIN.to_vec(),
            // 4.2, which is above what is told at least; gray, which High has.
            [
                &[0x67, 0x64, 0x00, 0x2a, 0xf2, 0xc8, 0x0a, 0x0c, 0xfc, 0x6e, 0x02, 0xd9][..],
                &[0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x32, 0x0f, 0x14, 0x2a],
                &[0x48],
            ]
            .concat(),
        ]
        .map(|set| h264(&set));
        assert_eq!(told(&[&constrained]), "42e01f");
        assert_eq!(told(&[&plain]), "42001f");
        assert_eq!(told(&[&plain, &constrained]), "42001f");
        // Of Main livekit-server knows nothing.
        assert_eq!(told(&[&main]), "64001f");
        assert_eq!(told(&[&high, &plain, &constrained]), "64002a");
        assert_eq!(told(&[]), "42e01f");
    }

    #[test]
    fn what_is_told_of_h265_decodes_all_that_is_sent() {
        let ten =
            clip(&[&[0x40, 0x01, 0x0c], MAIN_10, &[0x44, 0x01, 0xc1], &[0x26, 0x01, 0xaf, 0x01]]);
        let main = stampede_media::builtin::video(Codec::H265).unwrap();
        assert_eq!(profile_tier_level([&ten].into_iter()), (2, 0, 60));
        assert_eq!(profile_tier_level(main.iter()), (1, 0, 93));
        assert_eq!(profile_tier_level(main.iter().chain([&ten])), (2, 0, 93));
        assert_eq!(profile_tier_level(std::iter::empty()), (1, 0, 93));
    }
}
