//! One peer connection on a worker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use slab::Slab;
use stampede_core::crypto::with_key_slot;
use stampede_core::srtp::{KeyError, KeySlot};
use stampede_impair::{Fate, Impairment, Loss};
use str0m::channel::ChannelId;
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::format::{Codec, CodecConfig, CodecSpec, FormatParams, PayloadParams};
use str0m::media::{Frequency, Mid, Pt};
use str0m::rtp::{Extension, ExtensionMap, Ssrc};
use str0m::{Candidate, IceCreds, Rtc, RtcConfig};

use super::addresses::Addresses;
use super::egress::Srtp;
use super::egress::packet::ExtensionIds;
use super::egress::report::Sent;
use super::negotiate::Negotiation;
use super::rewrite::Rewriter;
use super::track::Track;
use super::{PeerKey, PeerLabel, Role, TrackOffer};
use crate::ledger::SubscriberTrackLedger;

/// Data channels one peer may open; more are ignored.
pub(crate) const PEER_CHANNELS_MAX: usize = 16;

/// How long a packet can be asked for again. More than twice the playout deadline of 500 ms.
pub(crate) const RETRANSMIT_CACHE_AGE: Duration = Duration::from_millis(1_500);

/// LiveKit's interval of sender reports (`pkg/sfu/downtrack.go`).
const SENDER_REPORT_INTERVAL: Duration = Duration::from_secs(3);

/// What all peers of a process share.
#[derive(Clone)]
pub(crate) struct PeerConfig {
    pub(crate) crypto: Arc<CryptoProvider>,
    pub(crate) certificate: DtlsCert,
    pub(crate) retransmit_cache_packets_max: usize,
}

/// A peer connection.
pub(crate) struct Peer {
    pub(crate) key: PeerKey,
    pub(crate) generation: u64,
    pub(crate) label: PeerLabel,
    pub(crate) rtc: Rtc,
    pub(crate) ufrag: String,
    pub(crate) addresses: Addresses,
    /// Where the datagram came from that is being handled, if that is a check that nominates.
    pub(crate) nominating: Option<SocketAddr>,
    /// Where a subscriber's SRTP keys will be found, until they were.
    keys: Option<KeySlot>,
    /// What a subscriber's media is encrypted with, once DTLS has agreed on keys.
    pub(crate) srtp: Option<Box<Srtp>>,
    pub(crate) connected: bool,
    /// It is counted in the worker's `joining`.
    pub(crate) joining: bool,
    /// The signalling thread was told that it is over.
    pub(crate) ended: bool,
    /// The earliest deadline in the timers.
    pub(crate) scheduled: Option<Instant>,
    /// Number of the last burst that was forwarded to it.
    pub(crate) burst: u64,
    pub(crate) channels: Vec<(ChannelId, String)>,
    /// What is done to its packets on purpose (subscribers).
    pub(crate) impair: Option<Box<Impairment>>,
    /// Which of its packets are dropped on arrival (publishers).
    pub(crate) upstream_loss: Option<Loss>,
    // Subscriber:
    pub(crate) subscriptions: Slab<Subscription>,
    pub(crate) by_track: FxHashMap<usize, usize>,
    pub(crate) negotiation: Negotiation,
    // Publisher:
    /// Incoming SSRC to (track, index of its stream); `None` for one that belongs to no track.
    pub(crate) streams: FxHashMap<u32, Option<(usize, usize)>>,
    pub(crate) mids: Vec<(Mid, usize)>,
}

/// Where a subscription is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not offered yet.
    New,
    /// In the offer the client has not answered.
    Offered,
    /// Answered.
    Active,
}

/// One track to one subscriber.
pub(crate) struct Subscription {
    /// Index of the track on this worker.
    pub(crate) track: usize,
    pub(crate) offer: TrackOffer,
    pub(crate) stage: Stage,
    /// To be taken out of the SDP.
    pub(crate) removed: bool,
    pub(crate) mid: Option<Mid>,
    pub(crate) ssrc: Ssrc,
    /// SSRC of retransmissions, if the client takes them.
    pub(crate) rtx_ssrc: Option<u32>,
    /// Extended sequence number of the next retransmission.
    pub(crate) rtx_index: u64,
    pub(crate) rewriter: Rewriter,
    pub(crate) layer: Option<u8>,
    /// How to send the track, for a version of its parameters.
    pub(crate) format: Option<(u32, Option<Format>)>,
    /// Clock rate of the track's RTP timestamps.
    pub(crate) clock_rate: u32,
    /// What sender reports say.
    pub(crate) sent: Sent,
    pub(crate) ledger: SubscriberTrackLedger,
    /// Dropped on purpose since the last one sent.
    pub(crate) dropped_since_sent: u64,
}

/// How a subscriber gets a track's packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) payload_type: Pt,
    pub(crate) rtx_payload_type: Option<Pt>,
    pub(crate) extensions: ExtensionIds,
}

impl Subscription {
    pub(crate) fn new(track: usize, offer: TrackOffer, first_seq: u16, first_rtx: u16) -> Self {
        let ledger = SubscriberTrackLedger {
            track_sid: offer.sid.to_string(),
            ..SubscriberTrackLedger::default()
        };
        Self {
            track,
            offer,
            stage: Stage::New,
            removed: false,
            mid: None,
            ssrc: Ssrc::from(0),
            rtx_ssrc: None,
            rtx_index: u64::from(first_rtx),
            rewriter: Rewriter::new(first_seq),
            layer: None,
            format: None,
            clock_rate: 0,
            sent: Sent::default(),
            ledger,
            dropped_since_sent: 0,
        }
    }

    /// How this subscriber gets the track, once that was looked up.
    pub(crate) fn format(&self, track: &Track) -> Option<Format> {
        let (version, format) = self.format?;
        if version == track.params_version { format } else { None }
    }

    /// Looks up how this subscriber gets the track, when the track's parameters are new.
    pub(crate) fn look_up_format(&mut self, track: &Track, rtc: &Rtc) -> Option<Format> {
        let params = track.params?;
        if self.format.is_none_or(|(version, _)| version != track.params_version) {
            self.clock_rate = params.spec().clock_rate.get();
            self.format = Some((track.params_version, self.negotiated(params, rtc)));
        }
        self.format(track)
    }

    /// What the client has accepted of the publisher's parameters.
    fn negotiated(&self, params: PayloadParams, rtc: &Rtc) -> Option<Format> {
        let matching = rtc.codec_config().match_params(params)?;
        let media = self.mid.and_then(|mid| rtc.media(mid))?;
        media.remote_pts().contains(&matching.pt()).then(|| Format {
            payload_type: matching.pt(),
            rtx_payload_type: matching.resend(),
            extensions: ExtensionIds::of(media.remote_extmap()),
        })
    }

    /// Enters what became of one of its packets.
    pub(crate) fn count(&mut self, fate: Fate, now: Instant, retransmission: bool, bytes: usize) {
        let ledger = &mut self.ledger;
        let Fate::Deliver { at, twice, reordered } = fate else {
            if retransmission {
                ledger.retransmits_dropped += 1;
            } else {
                self.dropped_since_sent += u64::from(ledger.packets_sent > 0);
                ledger.dropped += 1;
            }
            return;
        };
        if retransmission {
            ledger.retransmitted += 1;
        } else {
            ledger.packets_sent += 1;
            ledger.dropped_between += std::mem::take(&mut self.dropped_since_sent);
        }
        ledger.bytes_sent += bytes as u64;
        ledger.delayed += u64::from(at > now);
        ledger.reordered += u64::from(reordered);
        ledger.duplicated += u64::from(twice);
    }

    /// Its row of the ledger now.
    pub(crate) fn row(&self) -> SubscriberTrackLedger {
        SubscriberTrackLedger { layer: self.layer, ..self.ledger.clone() }
    }
}

impl Peer {
    /// Makes a peer that answers connectivity checks at `address`.
    pub(crate) fn new(
        key: PeerKey,
        generation: u64,
        role: Role,
        label: PeerLabel,
        config: &PeerConfig,
        address: SocketAddr,
        now: Instant,
    ) -> Result<Self, String> {
        let credentials = IceCreds::new();
        let rtc_config = rtc_config(role, config, credentials.clone());
        let (mut rtc, keys) = with_key_slot(|| rtc_config.build(now));
        let candidate = Candidate::host(address, "udp").map_err(|error| error.to_string())?;
        rtc.add_local_candidate(candidate);
        Ok(Self {
            key,
            generation,
            label,
            rtc,
            ufrag: credentials.ufrag,
            addresses: Addresses::default(),
            nominating: None,
            keys: (role == Role::Subscriber).then_some(keys),
            srtp: None,
            connected: false,
            joining: true,
            ended: false,
            scheduled: None,
            burst: 0,
            channels: Vec::new(),
            impair: None,
            upstream_loss: None,
            subscriptions: Slab::new(),
            by_track: FxHashMap::default(),
            negotiation: Negotiation::default(),
            streams: FxHashMap::default(),
            mids: Vec::new(),
        })
    }

    /// Makes an answered subscription ready to send.
    pub(crate) fn activate(&mut self, index: usize) {
        let Some(subscription) = self.subscriptions.get_mut(index) else { return };
        subscription.stage = Stage::Active;
        let Some(mid) = subscription.mid else { return };
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(mid, None) else { return };
        // str0m sends no packet that it could cache.
        stream.set_rtx_cache(0, RETRANSMIT_CACHE_AGE, None);
        subscription.ssrc = stream.ssrc();
        subscription.rtx_ssrc = stream.rtx().map(|rtx| *rtx);
    }

    /// Takes the keys that DTLS has agreed on, once it has.
    ///
    /// # Errors
    /// They are of no use, so the subscriber could never get any media.
    pub(crate) fn look_for_keys(&mut self) -> Result<(), KeyError> {
        if self.keys.as_ref().is_some_and(|keys| keys.get().is_some())
            && let Some(keying) = self.keys.take().as_ref().and_then(|keys| keys.get())
        {
            self.srtp = Some(Box::new(Srtp::new(keying)?));
        }
        Ok(())
    }

    /// Forgets a subscription; its row goes to the caller.
    pub(crate) fn remove_subscription(&mut self, index: usize) -> SubscriberTrackLedger {
        let subscription = self.subscriptions.remove(index);
        if subscription.stage == Stage::Active {
            self.rtc.direct_api().remove_stream_tx(subscription.ssrc);
        }
        subscription.row()
    }
}

fn rtc_config(role: Role, config: &PeerConfig, credentials: IceCreds) -> RtcConfig {
    let mut rtc = RtcConfig::new()
        .set_crypto_provider(config.crypto.clone())
        .set_dtls_cert(config.certificate.clone())
        .set_local_ice_credentials(credentials)
        .set_ice_lite(true)
        .set_rtp_mode(true);
    rtc = match role {
        Role::Publisher => rtc.set_extension_map(publisher_extensions()),
        Role::Subscriber => rtc
            .set_extension_map(subscriber_extensions())
            // They bring the NACKs, which are answered here and counted in the ledger.
            .enable_raw_packets(true)
            .set_rtcp_report_interval_video(SENDER_REPORT_INTERVAL)
            .set_rtcp_report_interval_audio(SENDER_REPORT_INTERVAL),
    };
    *rtc.codec_config() = codecs(role);
    rtc
}

/// As LiveKit answers a publisher: simulcast needs mid and rid, the bandwidth estimation of a
/// browser needs transport-wide feedback.
fn publisher_extensions() -> ExtensionMap {
    let mut map = ExtensionMap::empty();
    map.set(1, Extension::AudioLevel);
    map.set(2, Extension::AbsoluteCaptureTime);
    map.set(3, Extension::TransportSequenceNumber);
    map.set(4, Extension::RtpMid);
    map.set(10, Extension::RtpStreamId);
    map.set(11, Extension::RepairedRtpStreamId);
    map.set(13, Extension::VideoOrientation);
    map
}

/// As LiveKit offers a subscriber: no mid, no transport-wide sequence numbers (2,000 subscribers
/// would answer them with 40,000 reports a second).
fn subscriber_extensions() -> ExtensionMap {
    let mut map = ExtensionMap::empty();
    map.set(2, Extension::AbsoluteCaptureTime);
    map.set(13, Extension::VideoOrientation);
    map
}

/// Payload types as LiveKit numbers them (`protocol/codecs/codecs.go`).
fn codecs(role: Role) -> CodecConfig {
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
    let opus = CodecSpec {
        codec: Codec::Opus,
        clock_rate: Frequency::FORTY_EIGHT_KHZ,
        channels: Some(2),
        format: FormatParams {
            min_p_time: Some(10),
            use_inband_fec: Some(true),
            ..FormatParams::default()
        },
    };
    let vp9 = FormatParams { profile_id: Some(0), ..FormatParams::default() };
    let mut params = vec![
        PayloadParams::new(111.into(), None, opus),
        video(96, Codec::Vp8, FormatParams::default()),
        video(98, Codec::Vp9, vp9),
        h264(125, 1, 0x42_e0_1f),
        h264(108, 0, 0x42_e0_1f),
        h264(102, 1, 0x42_00_1f),
        h264(123, 1, 0x64_00_1f),
        video(35, Codec::Av1, FormatParams::default()),
    ];
    for param in &mut params {
        param.set_fb_transport_cc(role == Role::Publisher);
        param.set_fb_remb(false);
    }
    CodecConfig::new_from_payload_params(params)
}
