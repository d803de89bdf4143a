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
    let videos = || all().filter(|track| track.video_codec().is_some()).filter_map(clip);
    // str0m offers the same list on each m-line. LiveKit answers with the codec in front that the
    // track was announced with (pkg/rtc/participant_sdp.go), and takes what comes for what its payload
    // type says.
    for (index, clip) in videos().enumerate() {
        if !videos().take(index).any(|before| before.codec == clip.codec) {
            add_video(&mut config, clip);
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

/// A track's best layer.
fn clip(track: &PublishTrack) -> Option<&MediaClip> {
    track.layers.last().map(|layer| &*layer.clip)
}

fn add_video(config: &mut RtcConfig, clip: &MediaClip) {
    let mut format = FormatParams::default();
    // With the numbers of their retransmissions.
    let (codec, payload_type, rtx) = match clip.codec {
        Codec::Vp9 => {
            format.profile_id = Some(0);
            (str0m::format::Codec::Vp9, 98, 99)
        }
        Codec::H264 => {
            let profile = profile_level_id(clip);
            format.level_asymmetry_allowed = Some(true);
            format.packetization_mode = Some(1);
            format.profile_level_id = Some(profile);
            let (payload_type, rtx) = match profile >> 8 {
                0x42_e0 => (109, 114),
                0x42_00 => (103, 104),
                0x64_00 => (119, 120),
                // One that is not offered to receive by.
                _ => (123, 124),
            };
            (str0m::format::Codec::H264, payload_type, rtx)
        }
        Codec::H265 => {
            // What the file takes, as its parameter sets say; Main at level 3.1 is what is meant where
            // nothing is told (RFC 7798 §7.1).
            let needs =
                parameters(clip, h265::sequence_parameters).and_then(h265::Parameters::parse);
            let (profile, tier, level) = needs.map_or((1, 0, 93), |parameters| {
                let needs = parameters.profile_tier_level;
                (needs.profile_id, u8::from(needs.high_tier), needs.level_id)
            });
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

/// The clip's profile as browsers write it: pion compares `profile_idc` and the constraint flags
/// byte by byte, and x264 sets other flags for the same Constrained Baseline. The level is at least
/// 3.1, which is what browsers and LiveKit offer.
fn profile_level_id(clip: &MediaClip) -> u32 {
    const CONSTRAINED_BASELINE_3_1: u32 = 0x42_e0_1f;
    let parameters = parameters(clip, h264::sequence_parameters);
    let Some(own) = parameters.and_then(h264::profile_level_id) else {
        return CONSTRAINED_BASELINE_3_1;
    };
    let profile = match own >> 16 {
        // constraint_set1_flag: Baseline that is also Main.
        0x42 if own & 0x4000 != 0 => 0x42_e000,
        0x42 => 0x42_0000,
        0x4d => 0x4d_0000,
        0x64 => 0x64_0000,
        _ => own & 0xff_ff00,
    };
    profile | (own & 0xff).max(0x1f)
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
