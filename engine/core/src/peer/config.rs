//! How str0m is set up.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::rtp::Extension;
use str0m::{Candidate, Rtc, RtcConfig};

use super::STATS_INTERVAL;
use crate::{CreatePeerError, PeerOptions, ReceivePath};

/// What both roles share: RTP mode, no bandwidth estimation (so no pacer), one certificate.
fn common(options: &PeerOptions) -> RtcConfig {
    RtcConfig::new()
        .set_rtp_mode(true)
        .set_ice_lite(false)
        .set_crypto_provider(options.identity.crypto.clone())
        .set_dtls_cert(options.identity.certificate.clone())
        .set_stats_interval(Some(STATS_INTERVAL))
        .clear_codecs()
        .clear_extension_map()
        .enable_opus(true, false)
        .enable_vp8(true)
}

/// A subscriber. It never negotiates transport-cc (str0m's feedback names an arbitrary media SSRC,
/// and LiveKit drops it where that is audio) and never sends REMB: LiveKit then allocates full
/// quality. Reports go out like a real client's: video 1 s, audio 5 s.
pub(super) fn subscriber(options: &PeerOptions) -> RtcConfig {
    // On the fast path str0m sees no media to keep statistics of.
    let stats = (options.receive_path == ReceivePath::Str0m).then_some(STATS_INTERVAL);
    common(options)
        .set_stats_interval(stats)
        .enable_vp9(true)
        .enable_h264(true)
        .enable_av1(true)
        // It sends no media, so it keeps nothing for retransmission.
        .set_send_buffer_audio(1)
        .set_send_buffer_video(1)
        .set_extension(1, Extension::AudioLevel)
        .set_extension(4, Extension::RtpMid)
        .set_extension(5, Extension::AbsoluteCaptureTime)
        .set_extension(10, Extension::RtpStreamId)
        .set_extension(11, Extension::RepairedRtpStreamId)
}

/// A publisher: VP8 and Opus only, because LiveKit takes the first codec negotiated, and the
/// header extensions of a browser.
pub(super) fn publisher(options: &PeerOptions) -> RtcConfig {
    common(options)
        .set_send_buffer_audio(1)
        .set_send_buffer_video(options.retransmit_cache_packets_max.max(1))
        .set_extension(1, Extension::AudioLevel)
        .set_extension(2, Extension::AbsoluteSendTime)
        .set_extension(3, Extension::TransportSequenceNumber)
        .set_extension(4, Extension::RtpMid)
        .set_extension(5, Extension::AbsoluteCaptureTime)
        .set_extension(10, Extension::RtpStreamId)
        .set_extension(11, Extension::RepairedRtpStreamId)
}

/// An instance with its only host candidate.
pub(super) fn build(
    config: RtcConfig,
    now: Instant,
    local: SocketAddr,
) -> Result<Rtc, CreatePeerError> {
    let mut rtc = config.build(now);
    let refused = |reason: String| CreatePeerError::LocalAddress { address: local, reason };
    let candidate = Candidate::host(local, "udp").map_err(|error| refused(error.to_string()))?;
    if rtc.add_local_candidate(candidate).is_none() {
        return Err(refused("refused".to_owned()));
    }
    Ok(rtc)
}
