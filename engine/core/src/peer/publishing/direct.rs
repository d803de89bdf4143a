//! Sending beside str0m: packets are written and sealed where they are sent from, and what is asked for
//! again is made again.
//!
//! str0m keeps ICE, DTLS and SDP, and writes the sender reports, which are filled in here: of the
//! streams themselves it knows nothing. It is given no media to send, so every SSRC and RTP index has
//! one writer (see [`crate::srtp`]). Where what is sent is to obey the server's feedback
//! (`--adapt`) str0m sends, because its estimate and its pacer take nothing but its own packets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stampede_media::{Codec, MediaClip};
use str0m::media::Mid;
use str0m::rtp::ExtensionMap;

use super::kept::{Kept, SentFrame};
use super::packet::{Block, Ids, Numbers, Packet, Values};
use crate::PeerSink;
use crate::peer::candidates::LocalId;
use crate::peer::outbox::Outbox;
use crate::rtcp::{self, SenderInfo};
use crate::srtp::{KeyError, Keying, RtpSealer, SrtcpEditor, SrtcpOpener};
use crate::wire_time::{abs_send_time, ntp, ticks};

/// Where packets leave.
pub(in crate::peer) struct Way<'a> {
    /// By which socket and to where, if there is a way.
    pub(in crate::peer) to: Option<(LocalId, SocketAddr)>,
    pub(in crate::peer) sink: &'a mut dyn PeerSink,
    pub(in crate::peer) outbox: &'a mut Outbox,
}

/// Keys of a connection, and what its packets have in common.
pub(super) struct Direct {
    rtp: RtpSealer,
    reports: SrtcpEditor,
    told: SrtcpOpener,
    /// Number of the next packet in the whole transport.
    number: u16,
    /// The block of the packet that is being sent, if its stream has none for it.
    block: Block,
}

/// What retransmissions of a stream are sent with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rtx {
    pub(super) ssrc: u32,
    pub(super) payload_type: u8,
    /// Index of the next packet.
    pub(super) next: u64,
}

/// How a layer is known to the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub(super) ssrc: u32,
    pub(super) mid: Mid,
    pub(super) rid: Option<&'static str>,
}

/// A layer on the wire.
#[derive(Debug)]
pub(super) struct Stream {
    ids: Ids,
    names: Names,
    rtx: Option<Rtx>,
    /// The blocks of a picture's packets, where just times and numbers differ.
    first: Block,
    further: Block,
    /// The receiver has reported on it, so it knows whose it is.
    known: bool,
    kept: Kept,
    /// Packets and payload bytes, retransmissions included: so both str0m and libwebrtc count them in
    /// sender reports (`modules/rtp_rtcp/source/rtp_rtcp_impl2.cc`, `GetFeedbackState`).
    sent: (u32, u32),
    /// RTP timestamp and due time of the last frame.
    last: Option<(u32, Instant)>,
}

/// A frame of a clip, with its numbers.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) clip: &'a MediaClip,
    pub(super) sent: SentFrame,
    /// Which of several streams of VP9 it is part of.
    pub(super) stream: Option<u8>,
}

/// A frame on its way into packets.
pub(super) struct Outgoing<'a> {
    pub(super) frame: Frame<'a>,
    pub(super) payload_type: u8,
    pub(super) due: Instant,
    /// The payload instead of the clip's, with its voice flag and level (RFC 6464).
    pub(super) audio: Option<(&'a [u8], u8)>,
}

impl Direct {
    pub(super) fn new(keying: &Keying) -> Result<Self, KeyError> {
        Ok(Self {
            rtp: keying.rtp_sealer()?,
            reports: keying.srtcp_editor()?,
            told: keying.srtcp_opener()?,
            number: 0,
            block: Block::default(),
        })
    }

    /// An SRTCP packet of the server's in clear; `None` if it is not authentic.
    pub(super) fn open(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        self.told.open(datagram).map(|(compound, _)| compound)
    }

    /// An SRTCP packet of str0m's whose sender reports say what was sent here.
    pub(super) fn fill_in(
        &self,
        datagram: Vec<u8>,
        said: impl Fn(u32) -> Option<SenderInfo>,
    ) -> Option<Vec<u8>> {
        self.reports.edit(datagram, |compound| rtcp::fill_in_sender_reports(compound, said))
    }

    /// Sends a frame; `now` also since the Unix epoch. Returns the bytes of its payloads.
    pub(super) fn send(
        &mut self,
        stream: &mut Stream,
        outgoing: &Outgoing<'_>,
        (now, since_epoch): (Instant, Duration),
        way: &mut Way<'_>,
    ) -> u64 {
        let Frame { clip, sent, .. } = outgoing.frame;
        let is_plain = clip.codec.is_video() && clip.scalability.is_none();
        let send_time = abs_send_time(since_epoch);
        let mut scratch = std::mem::take(&mut self.block);
        let mut bytes = 0;
        for at in 0..sent.packets {
            let audio = outgoing.audio.map(|(payload, _)| payload);
            let Some(payload) = audio.or_else(|| outgoing.frame.payload(at)) else { continue };
            let block = match (is_plain, at, sent.captured) {
                (true, 0, Some(_)) => &stream.first,
                (true, 1.., _) => &stream.further,
                _ => {
                    stream.block(outgoing, at, &mut scratch);
                    &scratch
                }
            };
            let packet = Packet {
                payload_type: outgoing.payload_type,
                ssrc: stream.names.ssrc,
                send_time,
                ..outgoing.frame.packet(at, block, payload)
            };
            bytes += packet.payload_bytes();
            self.transmit(packet, way);
        }
        self.block = scratch;
        stream.count(sent.packets, bytes);
        stream.last = Some((sent.timestamp, outgoing.due));
        if stream.rtx.is_some() && clip.codec.is_video() {
            stream.kept.keep(now, sent);
        }
        bytes as u64
    }

    /// Sends a packet of a layer's clip again that the server asks for (RFC 4588); false if it is not
    /// kept. Its header says the same as the first time, but for what is of RTX.
    pub(super) fn send_again(
        &mut self,
        stream: &mut Stream,
        (clip, number): (&MediaClip, Option<u8>),
        sequence: u16,
        (now, since_epoch): (Instant, Duration),
        way: &mut Way<'_>,
    ) -> bool {
        let (Some((sent, at)), Some(rtx)) = (stream.kept.find(now, sequence), stream.rtx) else {
            return false;
        };
        let frame = Frame { clip, sent, stream: number };
        let Some(payload) = frame.payload(at) else { return false };
        let mut block = std::mem::take(&mut self.block);
        let descriptor = frame.descriptor(at);
        let values = Values {
            mid: Some(&stream.names.mid),
            repaired_rid: stream.names.rid,
            captured: at == 0 && sent.captured.is_some(),
            descriptor: descriptor.as_deref(),
            ..Values::default()
        };
        block.set(&stream.ids, &values);
        let packet = Packet {
            payload_type: rtx.payload_type,
            ssrc: rtx.ssrc,
            index: rtx.next,
            send_time: abs_send_time(since_epoch),
            original: Some(sequence),
            ..frame.packet(at, &block, payload)
        };
        stream.count(1, packet.payload_bytes());
        stream.rtx = Some(Rtx { next: rtx.next + 1, ..rtx });
        self.transmit(packet, way);
        self.block = block;
        true
    }

    /// Sends a packet, with its number.
    fn transmit(&mut self, packet: Packet<'_>, way: &mut Way<'_>) {
        let packet = Packet { number: self.number, ..packet };
        self.number = self.number.wrapping_add(u16::from(packet.block.is_numbered()));
        let Some((via, destination)) = way.to else {
            way.outbox.withheld += 1;
            return;
        };
        let rtp = &self.rtp;
        let bytes = packet.bytes() + rtp.tag_bytes();
        way.sink.transmit_with(via, destination, bytes, &mut |out| {
            packet.write(out);
            rtp.seal(out, packet.header_bytes(), packet.ssrc, packet.index).is_some()
        });
        way.outbox.sent += 1;
    }
}

impl<'a> Frame<'a> {
    fn payload(&self, at: usize) -> Option<&'a [u8]> {
        Some(self.clip.frames.get(self.sent.index)?.packets.get(at)?)
    }

    pub(super) fn descriptor(&self, at: usize) -> Option<Vec<u8>> {
        let scalability = self.clip.scalability.as_ref()?;
        scalability.descriptor(self.sent.index, at, self.sent.frame_number)
    }

    /// Its packet `at`, but for what is of its stream.
    fn packet<'b>(&self, at: usize, block: &'b Block, payload: &'b [u8]) -> Packet<'b> {
        let sent = &self.sent;
        let is_last = self.clip.codec.is_video() && at + 1 == sent.packets;
        let (picture_id, tl0_pic_idx) = (sent.picture_id, sent.tl0_pic_idx);
        Packet {
            payload_type: 0,
            marker: is_last,
            index: sent.first_sequence + at as u64,
            timestamp: sent.timestamp,
            ssrc: 0,
            block,
            send_time: [0; 3],
            number: 0,
            captured_ntp: sent.captured.filter(|_| at == 0).map_or(0, ntp),
            original: None,
            payload,
            numbers: match self.clip.codec {
                Codec::Vp8 => Numbers::Vp8 { picture_id, tl0_pic_idx },
                Codec::Vp9 => Numbers::Vp9 { picture_id, tl0_pic_idx, stream: self.stream },
                _ => Numbers::None,
            },
            trailer_us: sent
                .captured
                .filter(|_| is_last && sent.trailer)
                .map(|captured| captured.as_micros() as u64),
        }
    }
}

impl Stream {
    /// `extensions` as the answer has them.
    pub(super) fn new(
        extensions: &ExtensionMap,
        names: Names,
        rtx: Option<Rtx>,
        packets_kept_max: usize,
    ) -> Self {
        let mut new = Self {
            ids: Ids::of(extensions),
            names,
            rtx,
            first: Block::default(),
            further: Block::default(),
            known: false,
            kept: Kept::new(packets_kept_max),
            sent: (0, 0),
            last: None,
        };
        new.set_blocks();
        new
    }

    /// The receiver has reported on an SSRC. Until it has reported on the stream each packet says
    /// whose it is (RFC 8843 §9.2, RFC 8852 §3); one with RTX always, as with str0m.
    pub(super) fn reported(&mut self) {
        if self.rtx.is_none() && !self.known {
            self.known = true;
            self.set_blocks();
        }
    }

    fn values(&self) -> Values<'_> {
        Values {
            mid: (!self.known).then_some(&*self.names.mid),
            rid: self.names.rid.filter(|_| !self.known),
            ..Values::default()
        }
    }

    fn set_blocks(&mut self) {
        let further = Block::of(&self.ids, &self.values());
        let first = Block::of(&self.ids, &Values { captured: true, ..self.values() });
        (self.first, self.further) = (first, further);
    }

    /// The block of one packet.
    fn block(&self, outgoing: &Outgoing<'_>, at: usize, block: &mut Block) {
        let (frame, sent) = (&outgoing.frame, &outgoing.frame.sent);
        let descriptor = frame.descriptor(at);
        let values = Values {
            level: outgoing.audio.map(|(_, level)| level),
            captured: at == 0 && sent.captured.is_some(),
            descriptor: descriptor.as_deref(),
            ..self.values()
        };
        block.set(&self.ids, &values);
    }

    fn count(&mut self, packets: usize, bytes: usize) {
        let (all, octets) = self.sent;
        self.sent = (all.wrapping_add(packets as u32), octets.wrapping_add(bytes as u32));
    }

    /// What a sender report of `now` says of it.
    pub(super) fn info(&self, clock_rate: u32, now: Instant) -> SenderInfo {
        let rtp_time = self.last.map_or(0, |(timestamp, due)| {
            timestamp.wrapping_add(ticks(now.saturating_duration_since(due), clock_rate))
        });
        SenderInfo { rtp_time, packets: self.sent.0, octets: self.sent.1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_go_on_with_the_clock_and_count_everything() {
        let names = Names { ssrc: 1, mid: "0".into(), rid: None };
        let mut stream = Stream::new(&ExtensionMap::empty(), names, None, 8);
        let at = Instant::now();
        assert_eq!(stream.info(90_000, at), SenderInfo::default());
        stream.last = Some((u32::MAX, at));
        stream.count(7, 7_000);
        stream.count(1, 1_000);
        let info = stream.info(90_000, at + Duration::from_millis(100));
        assert_eq!(info, SenderInfo { rtp_time: 8_999, packets: 8, octets: 8_000 });
    }
}
