//! One track to one subscriber: the numbers it gets, and how much of it was sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use stampede_impair::Fate;
use str0m::Rtc;
use str0m::format::PayloadParams;
use str0m::media::{Mid, Pt};
use str0m::rtp::Ssrc;

use super::codec;
use super::congestion::allocate::Demand;
use super::congestion::nacks::Asked;
use super::egress::extensions::{ExtensionBlock, ExtensionIds, OwnBlock, StampId};
use super::egress::packet::Packet;
use super::egress::report::{self, Sent, StreamReport};
use super::egress::{Egress, Outcome};
use super::layers::{Cap, Layer};
use super::message::{TrackKey, TrackOffer, Wanted};
use super::packet::MediaPacket;
use super::resent::Resent;
use super::rewrite::{Numbers, Rewriter, Rewritten};
use super::scalable::selector::Selector;
use super::track::Track;
use crate::ledger::SubscriberTrackLedger;

mod numbering;

/// Bytes of padding in a packet of nothing else: the count is a byte (RFC 3550 §5.1).
const PADDING_BYTES: u8 = 255;

/// How far a subscription is negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Negotiation {
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
    track: usize,
    /// The number of the track's packet that it gets next, if that is kept still.
    next: u64,
    /// The room it was made in.
    room: Arc<str>,
    offer: TrackOffer,
    negotiation: Negotiation,
    /// To be taken out of the SDP.
    removed: bool,
    mid: Option<Mid>,
    /// What packets and retransmissions are numbered from on a new SSRC.
    first: (u16, u16),
    ssrc: Ssrc,
    /// SSRC of retransmissions, if the client takes them.
    rtx_ssrc: Option<u32>,
    /// As its m-line has it.
    cname: Box<str>,
    /// Extended sequence number of the next retransmission.
    rtx_index: u64,
    rewriter: Rewriter,
    /// The simulcast layer of its source.
    layer: Option<u8>,
    /// What it gets of a source of several layers.
    selector: Option<Box<Selector>>,
    /// No temporal layer above this one is needed.
    temporal: u8,
    /// What the way to the subscriber has room for.
    cap: Cap,
    /// What the subscriber asked for again, once it has.
    asked: Option<Box<Asked>>,
    /// What it was sent again, once it was.
    resent: Option<Box<Resent>>,
    /// Packets that had been sent when that was last looked at.
    packets_looked_at: u64,
    /// How to send the track, for a version of its parameters.
    format: Option<(u32, Option<Format>)>,
    /// Clock rate of the track's RTP timestamps.
    clock_rate: u32,
    /// Of a track with several codecs: it was told which of them the client takes.
    codecs_told: bool,
    /// What sender reports say.
    sent: Sent,
    ledger: SubscriberTrackLedger,
    /// Dropped on purpose since the last one sent.
    dropped_since_sent: u64,
}

/// How a subscriber gets a track's packets.
#[derive(Debug, Clone, Copy)]
struct Format {
    payload_type: Pt,
    rtx_payload_type: Option<Pt>,
    /// Of redundant audio, if the client takes it.
    red_payload_type: Option<Pt>,
    extensions: ExtensionIds,
}

impl Subscription {
    /// To the track at this index, of a publisher of one room.
    #[cfg(test)]
    pub(crate) fn example(track: usize, kind: MediaKind) -> Self {
        let offer = TrackOffer {
            track: TrackKey(track as u64),
            sid: format!("TR_{track}").into(),
            publisher_sid: "PA_1".into(),
            kind,
            home: 0,
            wanted: Wanted { limit: 2, pictures_per_s: 0, paused: false },
            choice: false,
        };
        Self::new(track, "room".into(), offer, 1, 1)
    }

    /// To the track at this index, whose packets and retransmissions are numbered from here on.
    pub(crate) fn new(
        track: usize,
        room: Arc<str>,
        offer: TrackOffer,
        first_seq: u16,
        first_rtx: u16,
    ) -> Self {
        let ledger = SubscriberTrackLedger {
            track_sid: offer.sid.to_string(),
            ..SubscriberTrackLedger::default()
        };
        Self {
            track,
            next: 0,
            room,
            offer,
            negotiation: Negotiation::New,
            removed: false,
            mid: None,
            first: (first_seq, first_rtx),
            ssrc: Ssrc::from(0),
            rtx_ssrc: None,
            cname: Box::default(),
            rtx_index: u64::from(first_rtx),
            rewriter: Rewriter::new(first_seq),
            layer: None,
            selector: None,
            temporal: u8::MAX,
            cap: Cap::default(),
            asked: None,
            resent: None,
            packets_looked_at: 0,
            format: None,
            clock_rate: 0,
            codecs_told: false,
            sent: Sent::default(),
            ledger,
            dropped_since_sent: 0,
        }
    }

    /// Index of the track on this worker.
    pub(crate) fn track(&self) -> usize {
        self.track
    }

    /// The room it was made in: a participant may have been moved since.
    pub(crate) fn room(&self) -> &Arc<str> {
        &self.room
    }

    /// As LiveKit names its stream in SDP.
    pub(crate) fn stream_id(&self) -> String {
        format!("{}|{}", self.offer.publisher_sid, self.offer.sid)
    }

    /// What was offered, with the settings of now.
    pub(crate) fn offer(&self) -> &TrackOffer {
        &self.offer
    }

    /// Its m-line, once it was offered.
    pub(crate) fn mid(&self) -> Option<Mid> {
        self.mid
    }

    /// The simulcast layer it gets now.
    pub(crate) fn layer(&self) -> Option<u8> {
        self.layer
    }

    /// Whether the client has not been told of it.
    pub(crate) fn is_new(&self) -> bool {
        self.negotiation == Negotiation::New
    }

    /// Whether it is to be taken out of the SDP.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed
    }

    /// The client no longer wants it.
    pub(crate) fn set_removed(&mut self) {
        self.removed = true;
    }

    /// It is in an offer under this mid.
    pub(crate) fn set_offered(&mut self, mid: Mid) {
        self.mid = Some(mid);
        self.negotiation = Negotiation::Offered;
    }

    /// The client has answered, and what is sent has this name there: it is ready to send, unless
    /// str0m sends nothing by its m-line.
    pub(crate) fn activate(&mut self, rtc: &mut Rtc, cname: Box<str>) {
        let Some(mid) = self.mid else { return };
        let mut api = rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(mid, None) else { return };
        self.negotiation = Negotiation::Active;
        self.ssrc = stream.ssrc();
        self.rtx_ssrc = stream.rtx().map(|rtx| *rtx);
        self.cname = cname;
        // What str0m knows of a stream is for its SDP alone: see `lend`.
        api.remove_stream_tx(self.ssrc);
    }

    /// Lets str0m know its stream, so that a description that str0m writes or reads has its SSRCs.
    pub(crate) fn lend(&self, rtc: &mut Rtc) {
        if self.negotiation == Negotiation::Active
            && let Some(mid) = self.mid.filter(|&mid| rtc.media(mid).is_some())
        {
            let rtx_ssrc = self.rtx_ssrc.map(Ssrc::from);
            rtc.direct_api().declare_stream_tx(self.ssrc, rtx_ssrc, mid, None);
        }
    }

    /// It has lost its m-line, and waits for another, where it begins anew on SSRCs of its own.
    pub(crate) fn unbind(&mut self, rtc: &mut Rtc) {
        self.take_back(rtc);
        let (first_seq, first_rtx) = self.first;
        self.negotiation = Negotiation::New;
        self.mid = None;
        self.rewriter = Rewriter::new(first_seq);
        self.rtx_index = u64::from(first_rtx);
        self.layer = None;
        self.selector = None;
        // Its numbers begin anew. What it is held to stays until the way is shared out again, which
        // tells the subscriber if that pauses it no longer.
        self.asked = None;
        self.resent = None;
        self.format = None;
        self.codecs_told = false;
        self.sent = Sent::default();
    }

    /// str0m forgets its stream, and writes no RTCP of it.
    pub(crate) fn take_back(&self, rtc: &mut Rtc) {
        if self.negotiation == Negotiation::Active {
            rtc.direct_api().remove_stream_tx(self.ssrc);
        }
    }

    /// By LiveKit's names the codecs that the client takes it in, once, of a track that has several.
    pub(crate) fn take_codecs(&mut self, rtc: &Rtc) -> Option<Vec<&'static str>> {
        let due = self.negotiation == Negotiation::Active && self.offer.choice && !self.codecs_told;
        let media = self.mid.filter(|_| due).and_then(|mid| rtc.media(mid))?;
        self.codecs_told = true;
        let known = rtc.codec_config().params();
        let taken = known.iter().filter(|params| media.remote_pts().contains(&params.pt()));
        Some(taken.filter_map(|params| codec::mime_type(params.spec().codec)).collect())
    }

    /// It goes on with the packets of another track, which is the same in another codec, from a
    /// keyframe on.
    pub(crate) fn switch(&mut self, track: usize, key: TrackKey) {
        self.stop();
        self.track = track;
        self.next = 0;
        self.offer.track = key;
        self.format = None;
    }

    /// What the client wants of it from now on.
    pub(crate) fn set(&mut self, wanted: Wanted) {
        if wanted.paused && !self.offer.wanted.paused {
            self.stop();
        }
        self.offer.wanted = wanted;
    }

    /// Nothing is sent for now. Resuming needs a keyframe, and numbers that go on where they ended.
    fn stop(&mut self) {
        self.rewriter.stop();
        self.layer = None;
        self.selector = None;
    }

    /// What the way to the subscriber has room for from now on. Whether it pauses or resumes for that.
    pub(crate) fn hold_to(&mut self, cap: Cap) -> bool {
        let former = std::mem::replace(&mut self.cap, cap);
        let pauses = cap == Cap::Paused;
        if pauses == (former == Cap::Paused) {
            return false;
        }
        if pauses {
            self.stop();
            self.ledger.counts.pauses += 1;
        }
        true
    }

    /// Whether it is held to anything.
    pub(crate) fn is_held(&self) -> bool {
        self.cap != Cap::Open
    }

    /// What it is to be shared out to, of video that the subscriber wants and is sent.
    pub(crate) fn demand<'a>(&self, track: &'a Track, now: Instant) -> Option<Demand<'a>> {
        let sent =
            self.negotiation == Negotiation::Active && !self.removed && !self.offer.wanted.paused;
        let Wanted { limit, pictures_per_s, .. } = self.offer.wanted;
        let (steps, limit) = (track.steps(now, pictures_per_s), Layer::spatial(limit));
        let demand = Demand { steps, limit, cap: self.cap };
        (sent && self.offer.kind == MediaKind::Video).then_some(demand)
    }

    /// Packets sent, and how often one was asked for that was asked for before, since the last call.
    pub(crate) fn take_asked(&mut self) -> (u32, u32) {
        let sent = self.ledger.counts.packets_sent;
        let packets = sent - std::mem::replace(&mut self.packets_looked_at, sent);
        let repeated = self.asked.as_mut().map_or(0, |asked| asked.take_repeated());
        (u32::try_from(packets).unwrap_or(u32::MAX), repeated)
    }

    /// Bytes sent so far.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.ledger.counts.bytes_sent
    }

    /// The highest spatial layer that is wanted and fits.
    fn limit(&self) -> u8 {
        match self.cap {
            Cap::Upto(layer) => layer.spatial.min(self.offer.wanted.limit),
            Cap::Open | Cap::Paused => self.offer.wanted.limit,
        }
    }

    /// Whether it is the one whose packets have this SSRC.
    pub(crate) fn has_ssrc(&self, ssrc: Ssrc) -> bool {
        self.negotiation == Negotiation::Active && self.ssrc == ssrc
    }

    /// Sends what has come of the track and was not sent to it. Whether the first of its SSRC is among them.
    pub(crate) fn send(&mut self, egress: &mut Egress<'_>, rtc: &Rtc, track: &mut Track) -> bool {
        if self.negotiation != Negotiation::Active
            || self.removed
            || self.offer.wanted.paused
            || self.cap == Cap::Paused
        {
            return false;
        }
        let numbered = egress.log.is_some();
        let Some(format) = self.look_up_format(track, rtc, numbered) else { return false };
        let Some(wanted) = track.choice(self.limit()) else { return false };
        let sent_before = self.sent.packets;
        self.temporal = track.temporal(wanted, self.offer.wanted.pictures_per_s);
        let (packets, layout, next) = track.due(self.next, &format.extensions);
        self.next = next;
        for (place, packet) in packets {
            if let Some((numbers, marker)) = self.number(packet, wanted) {
                let block = layout.block(place);
                self.send_packet(egress, &format, (packet, marker), &numbers, block);
            }
        }
        if let Some(layer) = track.burst().last().and_then(|last| self.needs_keyframe(last, wanted))
        {
            track.want_keyframe(layer);
        }
        sent_before == 0 && self.sent.packets > 0
    }

    fn send_packet(
        &mut self,
        egress: &mut Egress<'_>,
        format: &Format,
        (packet, marker): (&MediaPacket, bool),
        numbers: &Rewritten,
        extensions: ExtensionBlock<'_>,
    ) {
        let (payload_type, payload) = match (packet.primary_at, format.red_payload_type) {
            (Some(_), Some(red)) => (red, &packet.payload[..]),
            // As livekit's `RedPrimaryReceiver` (`pkg/sfu/redprimaryreceiver.go`), but for what it
            // makes of redundancy itself: losses on the way up are for those who know RED to repair.
            (Some(at), None) => (format.payload_type, &packet.payload[at..]),
            (None, _) => (format.payload_type, &packet.payload[..]),
        };
        self.sent.add(payload.len());
        let packet = Packet {
            payload_type: *payload_type,
            marker,
            index: numbers.seq,
            timestamp: numbers.timestamp,
            ssrc: *self.ssrc,
            extensions,
            original: None,
            payload,
            vp8: numbers.vp8,
            padding: 0,
        };
        let outcome = egress.send(format.extensions.stamp(), packet);
        if let Some(outcome) = outcome {
            self.count(outcome, false);
        }
    }

    /// Sends again, by RTX, what is still kept of the packets that the subscriber misses.
    pub(crate) fn resend(
        &mut self,
        egress: &mut Egress<'_>,
        track: &Track,
        lost: impl Iterator<Item = u16>,
        repeats_after: Duration,
    ) {
        lost.for_each(|seq| self.resend_one(egress, track, seq, repeats_after));
    }

    /// Sends the packet that the subscriber got under `seq` again, with RTX (RFC 4588), unless it has just
    /// been, or too often.
    fn resend_one(
        &mut self,
        egress: &mut Egress<'_>,
        track: &Track,
        seq: u16,
        repeats_after: Duration,
    ) {
        let (Some(format), Some(ssrc)) = (self.format(track), self.rtx_ssrc) else { return };
        let Some(payload_type) = format.rtx_payload_type else { return };
        let Some((mapping, source_seq)) = self.rewriter.trace(seq) else { return };
        let selector = self.selector.as_ref().filter(|_| mapping.source == self.rewriter.newest());
        let (origin, marker) = match selector {
            None => (source_seq, None),
            Some(selector) => match selector.origin(source_seq) {
                Some((origin, marker)) => (origin, Some(marker)),
                None => return,
            },
        };
        let Some(packet) = track.kept(mapping.source, origin, egress.now) else { return };
        // Which packets of several layers passed is known only while they do.
        if packet.frame.is_some() != selector.is_some() {
            return;
        }
        let numbers = Numbers { seq: source_seq, ..packet.numbers };
        let Some(numbers) = mapping.apply(&numbers) else { return };
        let resent = self.resent.get_or_insert_with(|| Resent::new(egress.now).into());
        if !resent.allow(seq, egress.now, repeats_after) {
            self.ledger.counts.resends_refused += 1;
            return;
        }
        let block = OwnBlock::of_packet(packet, &format.extensions);
        let index = self.rtx_index;
        self.rtx_index += 1;
        let packet = Packet {
            payload_type: *payload_type,
            marker: marker.unwrap_or(packet.marker),
            index,
            timestamp: numbers.timestamp,
            ssrc,
            extensions: block.block(),
            original: Some(numbers.seq as u16),
            payload: &packet.payload,
            vp8: numbers.vp8,
            padding: 0,
        };
        let outcome = egress.send(format.extensions.stamp(), packet);
        if let Some(outcome) = outcome {
            self.count(outcome, true);
        }
    }

    /// Whether it can carry padding: on the SSRC of its retransmissions, whose numbers are nobody's.
    pub(crate) fn pads(&self, track: &Track) -> bool {
        let format = self.format(track);
        let carries = format.is_some_and(|format| {
            format.rtx_payload_type.is_some() && format.extensions.stamp() != StampId::None
        });
        self.rtx_ssrc.is_some() && carries && self.rewriter.last_passed().is_some()
    }

    /// Sends packets of padding of so many bytes in all, at least: how many packets, and bytes.
    pub(crate) fn pad(&mut self, egress: &mut Egress<'_>, track: &Track, bytes: u64) -> (u64, u64) {
        let (Some(format), Some(ssrc)) = (self.format(track), self.rtx_ssrc) else { return (0, 0) };
        let Some(payload_type) = format.rtx_payload_type else { return (0, 0) };
        let Some((timestamp, _)) = self.rewriter.last_passed() else { return (0, 0) };
        let block = OwnBlock::of_padding(&format.extensions);
        let (mut packets, mut sent) = (0, 0);
        while sent < bytes {
            let index = self.rtx_index;
            self.rtx_index += 1;
            let packet = Packet {
                payload_type: *payload_type,
                marker: false,
                index,
                timestamp,
                ssrc,
                extensions: block.block(),
                original: None,
                payload: &[],
                vp8: None,
                padding: PADDING_BYTES,
            };
            egress.send(format.extensions.stamp(), packet);
            packets += 1;
            sent += u64::from(PADDING_BYTES);
        }
        (packets, sent)
    }

    /// How this subscriber gets the track, once that was looked up.
    fn format(&self, track: &Track) -> Option<Format> {
        let (version, format) = self.format?;
        if version == track.params_version() { format } else { None }
    }

    /// Looks up how this subscriber gets the track, when the track's parameters are new.
    fn look_up_format(&mut self, track: &Track, rtc: &Rtc, numbered: bool) -> Option<Format> {
        let version = track.params_version();
        if self.format.is_none_or(|(known, _)| known != version) {
            let params = track.params()?;
            self.clock_rate = params.spec().clock_rate.get();
            self.format = Some((version, self.negotiated(params, rtc, numbered)));
        }
        self.format(track)
    }

    /// What the client has accepted of the publisher's parameters, and of numbers if packets have any.
    fn negotiated(&self, params: PayloadParams, rtc: &Rtc, numbered: bool) -> Option<Format> {
        let matching = rtc.codec_config().match_params(params)?;
        let media = self.mid.and_then(|mid| rtc.media(mid))?;
        media.remote_pts().contains(&matching.pt()).then(|| Format {
            payload_type: matching.pt(),
            rtx_payload_type: matching.resend(),
            red_payload_type: matching.red(),
            extensions: ExtensionIds::of(media.remote_extmap(), self.offer.kind, numbered),
        })
    }

    /// What its sender report says at this moment; `None` before the first packet.
    pub(crate) fn report(&self, at: Instant) -> Option<StreamReport<'_>> {
        let live = self.negotiation == Negotiation::Active && !self.removed;
        let (timestamp, arrived_at) = self.rewriter.last_passed().filter(|_| live)?;
        let rtp_time = report::rtp_time(timestamp, arrived_at, at, self.clock_rate);
        Some(StreamReport { ssrc: *self.ssrc, sent: self.sent, rtp_time, cname: &self.cname })
    }

    /// The subscriber has asked for a keyframe.
    pub(crate) fn count_keyframe_request(&mut self) {
        self.ledger.counts.plis_received += 1;
    }

    /// The subscriber has sent a NACK.
    pub(crate) fn count_nack(&mut self, lost: impl Iterator<Item = u16>) {
        self.ledger.counts.nacks_received += 1;
        let asked = self.asked.get_or_insert_default();
        lost.for_each(|seq| asked.ask(seq));
    }

    /// Enters what became of one of its packets.
    fn count(&mut self, outcome: Outcome, retransmission: bool) {
        let ledger = &mut self.ledger.counts;
        ledger.malformed += u64::from(outcome.malformed);
        let Fate::Deliver { twice, reordered, .. } = outcome.fate else {
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
        ledger.bytes_sent += outcome.bytes as u64;
        ledger.delayed += u64::from(outcome.delayed);
        ledger.reordered += u64::from(reordered);
        ledger.duplicated += u64::from(twice);
    }

    /// Its row of the ledger now.
    pub(crate) fn row(&self) -> SubscriberTrackLedger {
        let scalable = self.selector.as_ref().map(|selector| selector.layer());
        let (layer, temporal_layer) = match scalable {
            None => (self.layer, None),
            Some(layer) => layer.map(|layer| (layer.spatial, layer.temporal)).unzip(),
        };
        SubscriberTrackLedger { layer, temporal_layer, ..self.ledger.clone() }
    }
}
