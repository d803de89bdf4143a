//! A subscriber whose media str0m receives: what our own receive path is compared with.
//!
//! It has the same streams and ledgers. Where our path knows more, the counts differ: str0m drops
//! packets more than 100 behind unread and doesn't say why it kept a packet, so here such a packet
//! has no payload for frames, and a forged RTX packet counts as redundant, not as rejected.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use stampede_media::{Codec, dependency_descriptor};
use stampede_sdp::{Description, MediaType};
use str0m::change::SdpOffer;
use str0m::media::KeyframeRequestKind;
use str0m::net::{Protocol, Receive};
use str0m::rtp::{AbsCaptureTime, Extension, ExtensionSerializer, ExtensionValues, RtpPacket};
use str0m::{Event, Input, Output, Reason, Rtc};

use super::formats::{Format, Formats};
use super::routes::Route;
use super::stream::Accepted;
use super::streams::Streams;
use crate::accounting::{MediaPacket, Placement, Via};
use crate::peer::candidates::LocalId;
use crate::peer::outbox::Outbox;
use crate::peer::wire::RtpHeader;
use crate::peer::{GAP_GRACE, STATS_INTERVAL, config};
use crate::srtp::KeySlot;
use crate::{
    Arrival, PeerEvent, PeerOptions, PeerSink, PeerUpdate, StreamReport, TransportCounters,
};

/// str0m's receive window: what is further behind is dropped before it is decrypted
/// (`MAX_MISORDER` of its `register_nack.rs`).
const STR0M_WINDOW_PACKETS: u64 = 100;

/// How far behind the highest sequence number this one is, which is known to be behind it.
fn packets_behind(highest: Option<u64>, sequence: u16) -> u64 {
    highest.map_or(0, |highest| u64::from((highest as u16).wrapping_sub(sequence)))
}

/// AES-GCM's tag (RFC 7714); the shorter HMAC-SHA1-80 makes payload lengths a little low.
const TAG_BYTES: usize = 16;

/// The subscriber.
pub(in crate::peer) struct Reference {
    rtc: Rtc,
    local: SocketAddr,
    streams: Streams,
    formats: Formats,
    outbox: Outbox,
    transport: TransportCounters,
    /// Where DTLS leaves the keys.
    pub(in crate::peer) keys: KeySlot,
    connected: bool,
    wake: Instant,
    now: Instant,
}

impl Reference {
    pub(in crate::peer) fn new(now: Instant, local: SocketAddr, options: &PeerOptions) -> Self {
        let mut config = config::common(options)
            .enable_opus(true, true)
            .enable_vp8(true)
            .enable_vp9(true)
            .enable_h264(true)
            .enable_av1(true)
            .set_extension(1, Extension::AudioLevel)
            .set_extension(2, Extension::AbsoluteSendTime)
            .set_extension(3, Extension::TransportSequenceNumber)
            .set_extension(4, Extension::RtpMid)
            .set_extension(5, Extension::AbsoluteCaptureTime)
            .set_extension(10, Extension::RtpStreamId)
            .set_extension(11, Extension::RepairedRtpStreamId)
            .set_extension(12, Extension::with_serializer(dependency_descriptor::URI, Serializer));
        // LiveKit says nothing of its profile.
        let format = str0m::format::FormatParams::default();
        let (h265, clock) = (str0m::format::Codec::H265, str0m::media::Frequency::NINETY_KHZ);
        let codecs = config.codec_config();
        codecs.add_config(49.into(), Some(50.into()), h265, clock, None, format);
        let build = || config::build(config, now, Some(local));
        let (rtc, keys) = crate::crypto::with_key_slot(build);
        Self {
            rtc: rtc.unwrap(),
            local,
            streams: Streams::new(options.playout_deadline, true),
            formats: Formats::default(),
            outbox: Outbox::default(),
            transport: TransportCounters::default(),
            keys,
            connected: false,
            wake: now,
            now,
        }
    }

    pub(in crate::peer) fn accept_offer(
        &mut self,
        now: Instant,
        sdp: &str,
        mid_to_track_id: &[(String, String)],
    ) -> String {
        let offer = Description::parse(sdp).unwrap();
        let for_str0m = SdpOffer::from_sdp_string(&only_sent(&offer)).unwrap();
        let answer = self.rtc.sdp_api().accept_offer(for_str0m).unwrap();
        self.formats = formats(&self.rtc);
        self.streams.apply_offer(now, &offer, mid_to_track_id, &mut self.outbox);
        self.handle_timeout(now);
        answer.to_sdp_string()
    }

    pub(in crate::peer) fn update(&mut self, update: PeerUpdate) {
        self.streams.update(self.now, update);
    }

    pub(in crate::peer) fn handle_datagram(
        &mut self,
        at: Arrival,
        source: SocketAddr,
        payload: &[u8],
    ) {
        self.now = self.now.max(at.instant);
        let Ok(receive) = Receive::new(Protocol::Udp, source, self.local, payload) else {
            self.transport.malformed += 1;
            return;
        };
        // Packets that it can't open are errors too; `account` tells them apart.
        let _ = self.rtc.handle_input(Input::Receive(self.now, receive));
        let packet = self.poll();
        if let Some(header) = RtpHeader::parse(payload) {
            let behind = payload.len().saturating_sub(header.header_bytes + TAG_BYTES);
            self.account(&header, behind, packet, at);
        }
    }

    pub(in crate::peer) fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.rtc.handle_input(Input::Timeout(self.now)).unwrap();
        self.poll();
    }

    pub(in crate::peer) fn drain(&mut self, now: Instant, sink: &mut dyn PeerSink) -> Instant {
        let now = self.now.max(now);
        self.streams.expire_gaps(now - GAP_GRACE, &mut self.outbox);
        let (ssrcs, next_request) = match self.connected {
            true => self.streams.keyframe_requests(now),
            false => (Vec::new(), None),
        };
        for &ssrc in &ssrcs {
            if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc.into()) {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
        if !ssrcs.is_empty() {
            self.handle_timeout(now);
        }
        self.outbox.flush(now, sink);
        let expiry = self.streams.next_deadline();
        let expiry = expiry.map(|at| at + GAP_GRACE + Duration::from_micros(1));
        let next = expiry.into_iter().chain(next_request).chain([self.wake]);
        next.min().unwrap_or(self.wake)
    }

    /// Ends everything and reports it.
    pub(in crate::peer) fn finish(
        mut self,
        now: Instant,
    ) -> (Vec<StreamReport>, TransportCounters) {
        self.handle_timeout(now);
        self.handle_timeout(now + STATS_INTERVAL);
        self.streams.finish(now, &mut self.outbox);
        (self.streams.reports(), self.transport)
    }

    /// Drains str0m; returns the RTP packet it may have had (at most one an input).
    fn poll(&mut self) -> Option<RtpPacket> {
        let mut packet = None;
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    // It asks to be woken every 33 ms for NACKs, also while nothing is missing.
                    let idle = self.rtc.last_timeout_reason() == Reason::Nack
                        && self.streams.next_deadline().is_none();
                    self.wake =
                        if idle { at.max(self.now + Duration::from_millis(200)) } else { at };
                    return packet;
                }
                Output::Transmit(transmit) => {
                    let contents = transmit.contents;
                    self.outbox.datagram(LocalId::default(), transmit.destination, contents);
                }
                Output::Event(Event::RtpPacket(received)) => packet = Some(received),
                Output::Event(Event::Connected) => {
                    self.connected = true;
                    self.outbox.event(PeerEvent::Connected);
                }
                Output::Event(_) => {}
            }
        }
    }

    /// Enters one datagram into the ledgers. `payload_bytes` is an upper bound.
    fn account(
        &mut self,
        header: &RtpHeader,
        payload_bytes: usize,
        packet: Option<RtpPacket>,
        at: Arrival,
    ) {
        let mut route = self.streams.route(header.ssrc);
        let Some(packet) = packet else {
            match route {
                _ if !self.connected => self.transport.before_connected += 1,
                None => self.transport.unknown_ssrc += 1,
                Some(route) => {
                    let is_forged = self.refuse(route, header, payload_bytes, at);
                    self.transport.rejected += u64::from(is_forged);
                }
            }
            return;
        };
        let extensions = &packet.header.ext_vals;
        if route.is_none() {
            let (mid, main) = (extensions.mid, *packet.header.ssrc);
            let outbox = &mut self.outbox;
            let (now, ssrc) = (at.instant, header.ssrc);
            route = self.streams.adopt(now, ssrc, main, mid.as_deref(), outbox);
        }
        let Some(route) = route else {
            self.transport.unknown_ssrc += 1;
            return;
        };
        let Some(format) = self.formats.get(*packet.header.payload_type) else { return };
        let descriptor = extensions.user_values.get();
        let accepted = Accepted {
            sequence: packet.header.sequence_number,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            format,
            payload: &packet.payload,
            captured_unix_ns: extensions.abs_capture_time.and_then(unix_ns),
            dependency_descriptor: descriptor.map(|Descriptor(bytes)| bytes.as_slice()),
        };
        self.streams.accept(route, accepted, at, &mut self.outbox);
    }

    /// A packet of a known stream that str0m kept to itself; true if it failed authentication, as
    /// far as can be told.
    fn refuse(
        &mut self,
        route: Route,
        header: &RtpHeader,
        payload_bytes: usize,
        at: Arrival,
    ) -> bool {
        let ledger = &mut self.streams.streams[route.index()].ledger;
        if route.via == Via::Rtx {
            ledger.sequences.rtx_redundant();
            return false;
        }
        match ledger.placement(header.sequence) {
            Placement::Duplicate => ledger.sequences.duplicate(),
            // str0m drops these unread, for being old.
            Placement::Missing | Placement::BeforeWindow
                if packets_behind(ledger.sequences.highest(), header.sequence)
                    > STR0M_WINDOW_PACKETS =>
            {
                ledger.media(MediaPacket {
                    sequence: header.sequence,
                    timestamp: header.timestamp,
                    marker: header.marker,
                    payload: None,
                    dependency_descriptor: None,
                    payload_bytes,
                    at,
                    via: Via::Primary,
                });
                self.streams.schedule(route.index(), at.instant);
            }
            Placement::Stale | Placement::BeforeWindow => ledger.sequences.stale(),
            Placement::First | Placement::Ahead | Placement::Missing | Placement::Redundant => {
                return true;
            }
        }
        false
    }
}

/// The offer with the directions that LiveKit means: it says `sendrecv` where it only sends, and
/// `recvonly` for a track that is gone.
fn only_sent(offer: &Description<'_>) -> String {
    offer.rewrite(|media, line| {
        let is_media = media.is_some_and(|media| media.media_type != MediaType::Application);
        Some(Cow::Borrowed(match line {
            "a=sendrecv" if is_media => "a=sendonly",
            "a=recvonly" if is_media => "a=inactive",
            _ => line,
        }))
    })
}

/// What str0m negotiated.
fn formats(rtc: &Rtc) -> Formats {
    let mut formats = Formats::default();
    for params in rtc.codec_config().params() {
        let codec = match params.spec().codec {
            str0m::format::Codec::Vp8 => Codec::Vp8,
            str0m::format::Codec::Vp9 => Codec::Vp9,
            str0m::format::Codec::H264 => Codec::H264,
            str0m::format::Codec::H265 => Codec::H265,
            str0m::format::Codec::Av1 => Codec::Av1,
            str0m::format::Codec::Opus => Codec::Opus,
            _ => continue,
        };
        let (media, clock_rate) = (*params.pt(), params.spec().clock_rate.get());
        for wire in [Some(media), params.resend().map(|rtx| *rtx)].into_iter().flatten() {
            formats.add(Format { wire, media, red: false, codec, clock_rate });
        }
    }
    formats
}

fn unix_ns(captured: AbsCaptureTime) -> Option<u64> {
    let since = captured.capture_time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// A dependency descriptor's bytes: they can only be read in the order of frames.
#[derive(Debug)]
struct Descriptor(Vec<u8>);

#[derive(Debug)]
struct Serializer;

impl ExtensionSerializer for Serializer {
    fn write_to(&self, _: &mut [u8], _: &ExtensionValues) -> usize {
        0
    }

    fn parse_value(&self, buf: &[u8], values: &mut ExtensionValues) -> bool {
        values.user_values.set(Descriptor(buf.to_vec()));
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }

    fn requires_two_byte_form(&self, _: &ExtensionValues) -> bool {
        false
    }
}
