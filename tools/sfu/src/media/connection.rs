//! How peer connections are set up: codecs and header extensions as LiveKit has them.

use std::sync::Arc;

use str0m::config::{CryptoProvider, DtlsCert};
use str0m::format::{Codec, CodecConfig, CodecSpec, FormatParams, PayloadParams};
use str0m::media::Frequency;
use str0m::rtp::{Extension, ExtensionMap};
use str0m::{IceCreds, RtcConfig};

use super::message::Role;
use super::scalable::frame;
use crate::options::Congestion;

/// What the peer connections of a process share.
#[derive(Clone)]
pub(crate) struct ConnectionConfig {
    crypto: Arc<CryptoProvider>,
    certificate: DtlsCert,
    congestion: Congestion,
}

impl ConnectionConfig {
    /// With a certificate of its own; `None` if the crypto library can't make one.
    pub(crate) fn generate(crypto: CryptoProvider) -> Option<Self> {
        let certificate = crypto.dtls_provider.generate_certificate()?;
        let congestion = Congestion::default();
        Some(Self { crypto: Arc::new(crypto), certificate, congestion })
    }

    /// By what is learnt how much fits the way to a subscriber.
    pub(crate) fn with_congestion(self, congestion: Congestion) -> Self {
        Self { congestion, ..self }
    }

    /// By what is learnt how much fits the way to a subscriber. libwebrtc sends estimates asked or not.
    pub(crate) fn congestion(&self) -> Congestion {
        self.congestion
    }

    /// Of one peer connection.
    pub(crate) fn rtc(&self, role: Role, credentials: IceCreds) -> RtcConfig {
        let rtc = RtcConfig::new()
            .set_crypto_provider(self.crypto.clone())
            .set_dtls_cert(self.certificate.clone())
            .set_local_ice_credentials(credentials)
            .set_ice_lite(true)
            .set_rtp_mode(true);
        let mut rtc = rtc.set_extension_map(extensions(role, self.congestion));
        if role.sends() {
            // They bring when packets arrived; everything else is read beside str0m.
            rtc = rtc.enable_raw_packets(self.congestion == Congestion::Twcc);
        }
        *rtc.codec_config() = codecs_with(role, self.congestion);
        rtc
    }
}

/// As LiveKit answers a client that sends: simulcast needs mid and rid, the bandwidth estimation of
/// a browser needs transport-wide feedback. And as it offers a subscriber: no mid, and when a packet
/// was sent rather than transport-wide sequence numbers unless it is asked for those (2,000 subscribers
/// would answer them with 32,000 reports a second). With them LiveKit has a client of the single
/// connection told both, here it is the numbers alone.
fn extensions(role: Role, congestion: Congestion) -> ExtensionMap {
    let mut map = ExtensionMap::empty();
    map.set(12, frame::extension());
    match congestion {
        Congestion::Remb if role.sends() => map.set(5, Extension::AbsoluteSendTime),
        Congestion::Twcc if role.sends() => map.set(3, Extension::TransportSequenceNumber),
        _ => {}
    }
    map.set(2, Extension::AbsoluteCaptureTime);
    map.set(13, Extension::VideoOrientation);
    if role.receives() {
        map.set(1, Extension::AudioLevel);
        map.set(3, Extension::TransportSequenceNumber);
        map.set(4, Extension::RtpMid);
        map.set(10, Extension::RtpStreamId);
        map.set(11, Extension::RepairedRtpStreamId);
    }
    map
}

/// URI of [`Extension::AbsoluteSendTime`].
pub(crate) const SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
/// URI of [`Extension::TransportSequenceNumber`].
pub(crate) const TRANSPORT_SEQUENCE: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// Whether this line of an m-line is of this header extension. Some are of video alone, which str0m
/// can't tell apart.
pub(crate) fn is_of_extension(line: &str, uri: &str) -> bool {
    let extension = line.strip_prefix("a=extmap:");
    extension.and_then(|it| it.split(' ').nth(1)) == Some(uri)
}

/// Payload types as LiveKit numbers them (`protocol/codecs/codecs.go`).
#[cfg(any(test, feature = "bench"))]
pub(crate) fn codecs(role: Role) -> CodecConfig {
    codecs_with(role, Congestion::default())
}

fn codecs_with(role: Role, congestion: Congestion) -> CodecConfig {
    let video = |pt: u8, codec, format| {
        let spec = CodecSpec { codec, clock_rate: Frequency::NINETY_KHZ, channels: None, format };
        PayloadParams::new(pt.into(), Some((pt + 1).into()), spec)
    };
    let h264 = |pt, mode, profile_level_id| {
        let format = FormatParams {
            level_asymmetry_allowed: Some(true),
            packetization_mode: Some(mode),
            profile_level_id: Some(profile_level_id),
            ..FormatParams::default()
        };
        video(pt, Codec::H264, format)
    };
    let vp9 = FormatParams { profile_id: Some(0), ..FormatParams::default() };
    let mut params = vec![
        video(96, Codec::Vp8, FormatParams::default()),
        video(98, Codec::Vp9, vp9),
        h264(125, 1, 0x42_e0_1f),
        h264(108, 0, 0x42_e0_1f),
        h264(102, 1, 0x42_00_1f),
        h264(123, 1, 0x64_00_1f),
        video(35, Codec::Av1, FormatParams::default()),
        video(116, Codec::H265, FormatParams::default()),
    ];
    let mut config = CodecConfig::empty();
    // 111, and 63 for its redundant form.
    config.enable_opus(true, true);
    params.splice(0..0, config.params().iter().copied());
    for param in &mut params {
        let wants = |of| role.sends() && congestion == of && param.spec().codec.is_video();
        let (arrivals, estimates) = (wants(Congestion::Twcc), wants(Congestion::Remb));
        param.set_fb_transport_cc(role.receives() || arrivals);
        param.set_fb_remb(estimates);
    }
    CodecConfig::new_from_payload_params(params)
}
