//! Where a subscriber's SRTP and SRTCP are opened, and its RTCP is written.
//!
//! str0m keeps ICE, DTLS and data channels, and knows of no media. Once DTLS has exported the keys,
//! every SRTP and SRTCP datagram comes here: opened into the caller's buffer, entered into the
//! ledgers, answered with receiver reports, NACKs and PLIs of our own. What RTCP str0m would
//! still send is dropped (see [`SrtcpSealer`]).

use std::net::SocketAddr;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::Agreed;
use super::extension::{ExtensionBlock, captured_unix_ns};
use super::formats::Format;
use super::reports::{REPORT_INTERVAL_AUDIO, REPORT_WHILE_RECEIVED, Reception, Reporting};
use super::stream::Accepted;
use super::streams::{Route, Streams};
use crate::accounting::{Placement, Via};
use crate::peer::candidates::LocalId;
use crate::peer::outbox::Outbox;
use crate::peer::wire::RtpHeader;
use crate::rtcp;
use crate::srtp::{KeyError, Keying, RtpOpener, SrtcpOpener, SrtcpSealer, extend_index};
use crate::{Arrival, TransportCounters};

/// Up to this many SSRCs are looked for one after the other, more in a map.
const SCANNED_SSRCS_MAX: usize = 8;
/// Most SSRCs whose SRTP index is kept after their stream is gone (a sender that comes back goes
/// on counting). Above it the oldest is forgotten.
const FORMER_SSRCS_MAX: usize = 1_024;
/// Packets behind the highest of an RTX SSRC that are told from replays; older ones are dropped.
const REPLAY_PACKETS: u64 = 64;
/// CNAME of the receiver reports: a subscriber sends no media that it could tie together.
const CNAME: &str = "stampede";

/// One SSRC that the other side sends.
#[derive(Debug)]
struct Inbound {
    ssrc: u32,
    /// `None` after the stream is gone.
    route: Option<Route>,
    format: Option<Format>,
    /// Highest authentic SRTP index.
    highest: Option<u64>,
    first: u64,
    /// Bit `i`: `highest - i` was received. Kept for RTX; of media the ledger knows.
    replay: u64,
    /// Distinct authentic packets.
    received: u64,
}

impl Inbound {
    fn is_replay(&self, index: u64) -> bool {
        let Some(highest) = self.highest.filter(|&highest| index <= highest) else { return false };
        let behind = highest - index;
        behind >= REPLAY_PACKETS || self.replay >> behind & 1 == 1
    }

    fn authentic(&mut self, index: u64) {
        self.received += 1;
        let Some(highest) = self.highest else {
            (self.highest, self.first, self.replay) = (Some(index), index, 1);
            return;
        };
        if index > highest {
            let ahead = index - highest;
            self.replay = if ahead < 64 { self.replay << ahead | 1 } else { 1 };
            self.highest = Some(index);
        } else if highest - index < REPLAY_PACKETS {
            self.replay |= 1 << (highest - index);
        }
        self.first = self.first.min(index);
    }
}

/// What is not touched by each packet.
struct Control {
    opener: SrtcpOpener,
    sealer: SrtcpSealer,
    /// Our SSRC in RTCP.
    ssrc: u32,
    /// Of `inbound`, by index.
    reporting: Vec<Reporting>,
    /// Into `inbound`, once it is longer than [`SCANNED_SSRCS_MAX`].
    by_ssrc: FxHashMap<u32, usize>,
    /// Sequence numbers to ask for; kept to save allocations.
    wanted: Vec<u16>,
}

/// What a datagram is read by and what it may change.
pub(super) struct PacketContext<'a> {
    pub(super) agreed: &'a Agreed,
    pub(super) streams: &'a mut Streams,
    pub(super) transport: &'a mut TransportCounters,
    pub(super) outbox: &'a mut Outbox,
    /// Where packets are opened. Its length is that of the longest payload so far.
    pub(super) opened: &'a mut Vec<u8>,
}

/// The SRTP and SRTCP that one peer receives.
pub(super) struct SrtpReceiver {
    opener: RtpOpener,
    inbound: Vec<Inbound>,
    /// When a report or NACK may be due.
    next_due: Instant,
    /// Where authentic packets come from, and RTCP goes.
    remote: Option<SocketAddr>,
    /// The socket between.
    via: LocalId,
    control: Box<Control>,
}

impl SrtpReceiver {
    /// `ssrc` is ours in RTCP.
    pub(super) fn new(keying: &Keying, ssrc: u32, now: Instant) -> Result<Self, KeyError> {
        let control = Control {
            opener: keying.srtcp_opener()?,
            sealer: keying.srtcp_sealer()?,
            ssrc,
            reporting: Vec::new(),
            by_ssrc: FxHashMap::default(),
            wanted: Vec::new(),
        };
        Ok(Self {
            opener: keying.rtp_opener()?,
            inbound: Vec::new(),
            next_due: now,
            remote: None,
            via: LocalId::default(),
            control: Box::new(control),
        })
    }

    /// Streams came or went.
    pub(super) fn negotiated(&mut self, streams: &Streams) {
        for inbound in &mut self.inbound {
            inbound.route = streams.route(inbound.ssrc);
            // Payload types may mean other codecs now.
            inbound.format = None;
        }
    }

    /// Takes an SRTP or SRTCP datagram (RFC 7983: first byte 128 to 191).
    pub(super) fn receive(
        &mut self,
        at: Arrival,
        source: SocketAddr,
        datagram: &[u8],
        context: &mut PacketContext<'_>,
    ) {
        if let Some(header) = RtpHeader::parse(datagram) {
            self.receive_rtp(at, source, datagram, &header, context);
        } else if is_rtcp(datagram) {
            self.receive_rtcp(at, datagram, context);
        } else {
            context.transport.malformed += 1;
        }
    }

    fn receive_rtp(
        &mut self,
        at: Arrival,
        source: SocketAddr,
        datagram: &[u8],
        header: &RtpHeader,
        context: &mut PacketContext<'_>,
    ) {
        let found = self.find(header.ssrc, context.streams, at.instant);
        let found = found.or_else(|| self.adopt(at, datagram, header, context));
        let Some((slot, route)) = found else {
            context.transport.unknown_ssrc += 1;
            return;
        };
        let inbound = &mut self.inbound[slot];
        let index = extend_index(header.sequence, inbound.highest);
        let refused = match route.via {
            Via::Primary => context.streams.refuse_known(route, header.sequence),
            Via::Rtx => inbound.is_replay(index) && context.streams.refuse_rtx(route),
        };
        if refused {
            return;
        }
        if inbound.format.is_none_or(|format| format.wire != header.payload_type) {
            inbound.format = context.agreed.formats.get(header.payload_type);
        }
        let bytes = header.header_bytes;
        let payload = self.opener.open(datagram, bytes, header.ssrc, index, context.opened);
        let (Some(payload), Some(format)) =
            (payload.and_then(|p| unpad(header, p)), inbound.format)
        else {
            context.transport.rejected += 1;
            return;
        };
        inbound.authentic(index);
        if self.remote != Some(source) {
            (self.remote, self.via) = (Some(source), context.outbox.via);
            // What was due while there was nobody to send it to.
            self.next_due = self.next_due.min(at.instant);
        }
        let extensions = ExtensionBlock::of(datagram, bytes);
        let ids = context.agreed.ids;
        let descriptor = ids.dependency_descriptor.and_then(|id| extensions.get(id));
        let captured = ids.abs_capture_time.and_then(|id| extensions.get(id));
        let mut accepted = Accepted {
            sequence: header.sequence,
            timestamp: header.timestamp,
            marker: header.marker,
            format,
            payload,
            captured_unix_ns: captured.and_then(captured_unix_ns),
            dependency_descriptor: descriptor,
        };
        if route.via == Via::Rtx && !unwrap_rtx(&mut accepted, route, context.streams) {
            context.streams.refuse_rtx(route);
            return;
        }
        if context.streams.accept_and_follow(route, accepted, at, context.outbox) {
            self.next_due = self.next_due.min(at.instant);
        }
    }

    /// Where packets of this SSRC belong.
    fn find(&mut self, ssrc: u32, streams: &Streams, now: Instant) -> Option<(usize, Route)> {
        let slot = if self.inbound.len() <= SCANNED_SSRCS_MAX {
            self.inbound.iter().position(|inbound| inbound.ssrc == ssrc)
        } else {
            self.control.by_ssrc.get(&ssrc).copied()
        };
        if let Some(slot) = slot {
            return self.inbound[slot].route.map(|route| (slot, route));
        }
        let route = streams.route(ssrc)?;
        Some((self.open_slot(ssrc, Some(route), now), route))
    }

    #[cold]
    fn open_slot(&mut self, ssrc: u32, route: Option<Route>, now: Instant) -> usize {
        let former = self.inbound.iter().filter(|inbound| inbound.route.is_none()).count();
        if former >= FORMER_SSRCS_MAX
            && let Some(oldest) = self.inbound.iter().position(|inbound| inbound.route.is_none())
        {
            self.inbound.remove(oldest);
            self.control.reporting.remove(oldest);
        }
        self.inbound.push(Inbound {
            ssrc,
            route,
            format: None,
            highest: None,
            first: 0,
            replay: 0,
            received: 0,
        });
        self.control.reporting.push(Reporting::default());
        if self.inbound.len() > SCANNED_SSRCS_MAX {
            let slots = self.inbound.iter().enumerate();
            self.control.by_ssrc = slots.map(|(slot, inbound)| (inbound.ssrc, slot)).collect();
        }
        self.next_due = self.next_due.min(now);
        self.inbound.len() - 1
    }

    /// An SSRC that no offer named, by its MID extension: the sender changed it. Only an authentic
    /// packet that is no replay moves a stream.
    #[cold]
    fn adopt(
        &mut self,
        at: Arrival,
        datagram: &[u8],
        header: &RtpHeader,
        context: &mut PacketContext<'_>,
    ) -> Option<(usize, Route)> {
        let extensions = ExtensionBlock::of(datagram, header.header_bytes);
        let mid = std::str::from_utf8(extensions.get(context.agreed.ids.mid?)?).ok()?;
        let of_mid = context.streams.ssrc_of_mid(mid)?;
        let format = context.agreed.formats.get(header.payload_type)?;
        let main = if format.wire == format.media { header.ssrc } else { of_mid };
        let slot = self.inbound.iter().position(|inbound| inbound.ssrc == header.ssrc);
        let highest = slot.and_then(|slot| self.inbound[slot].highest);
        let index = extend_index(header.sequence, highest);
        if highest.is_some_and(|highest| index <= highest) {
            return None;
        }
        self.opener.open(datagram, header.header_bytes, header.ssrc, index, context.opened)?;
        let outbox = &mut *context.outbox;
        let route = context.streams.adopt(at.instant, header.ssrc, main, Some(mid), outbox)?;
        let slot = slot.unwrap_or_else(|| self.open_slot(header.ssrc, None, at.instant));
        self.negotiated(context.streams);
        Some((slot, route))
    }

    fn receive_rtcp(&mut self, at: Arrival, datagram: &[u8], context: &mut PacketContext<'_>) {
        let Some((compound, index)) = self.control.opener.open(datagram) else {
            context.transport.rejected += 1;
            return;
        };
        let sender = compound.get(4..8).and_then(|ssrc| ssrc.first_chunk());
        let sender = sender.map(|&ssrc| u32::from_be_bytes(ssrc));
        let slot = sender.and_then(|ssrc| self.find(ssrc, context.streams, at.instant));
        if let Some((slot, _)) = slot
            && !self.control.reporting[slot].is_fresh(index)
        {
            return;
        }
        for report in rtcp::sender_reports(&compound) {
            let found = self.find(report.ssrc, context.streams, at.instant);
            let Some((slot, _)) = found else { continue };
            self.control.reporting[slot].sender_report(report, at.instant);
            context.streams.set_sender_report(report.ssrc, report.packets.into(), at);
        }
    }

    /// Sends the NACKs and reports that are due; returns when to call again.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        streams: &mut Streams,
        outbox: &mut Outbox,
    ) -> Instant {
        if now < self.next_due {
            return self.next_due;
        }
        let Some(remote) = self.remote else {
            self.next_due = now + REPORT_INTERVAL_AUDIO;
            return self.next_due;
        };
        let (control, to) = (&mut *self.control, (self.via, remote));
        let (ssrc, sealer) = (control.ssrc, &mut control.sealer);
        let nacks_at = streams.poll_nacks(now, ssrc, &mut control.wanted, &mut |nack| {
            send(sealer, nack, to, outbox);
        });
        let reports_at = self.report(now, to, streams, outbox);
        self.next_due = nacks_at.map_or(reports_at, |nacks_at| nacks_at.min(reports_at));
        self.next_due
    }

    fn report(
        &mut self,
        now: Instant,
        to: (LocalId, SocketAddr),
        streams: &Streams,
        outbox: &mut Outbox,
    ) -> Instant {
        let control = &mut *self.control;
        let mut blocks = Vec::new();
        let mut next = now + REPORT_INTERVAL_AUDIO;
        for (inbound, reporting) in self.inbound.iter().zip(&mut control.reporting) {
            let Some(route) = inbound.route.filter(|route| route.via == Via::Primary) else {
                continue;
            };
            let (Some(highest_index), Some(format)) = (inbound.highest, inbound.format) else {
                continue;
            };
            let Some(stream) = streams.reported(route) else { continue };
            let (due, next_at) = reporting.poll(now, stream.kind, inbound.ssrc);
            next = next.min(next_at);
            let lately = stream.last_at.is_some_and(|last| now < last + REPORT_WHILE_RECEIVED);
            if !due || !lately {
                continue;
            }
            let jitter = stream.jitter.as_secs_f64() * f64::from(format.clock_rate);
            blocks.push(reporting.block(
                now,
                Reception {
                    ssrc: inbound.ssrc,
                    first_index: inbound.first,
                    highest_index,
                    received: inbound.received,
                    jitter: jitter as u32,
                },
            ));
        }
        for blocks in blocks.chunks(rtcp::REPORT_BLOCKS_MAX) {
            let mut compound = Vec::with_capacity(64);
            rtcp::write_receiver_report(&mut compound, control.ssrc, blocks);
            rtcp::write_cname(&mut compound, control.ssrc, CNAME);
            send(&mut control.sealer, &compound, to, outbox);
        }
        next
    }

    /// Asks for keyframes of these streams.
    pub(super) fn request_keyframes(&mut self, ssrcs: &[u32], outbox: &mut Outbox) {
        let Some(remote) = self.remote else { return };
        let mut compound = Vec::with_capacity(ssrcs.len() * 12);
        for &ssrc in ssrcs {
            rtcp::write_pli(&mut compound, self.control.ssrc, ssrc);
        }
        send(&mut self.control.sealer, &compound, (self.via, remote), outbox);
    }

    /// The socket on which authentic packets come, once they do.
    pub(super) fn via(&self) -> Option<LocalId> {
        self.remote.map(|_| self.via)
    }

    /// What follows comes on another socket: where authentic packets come from is learned anew.
    pub(super) fn switched(&mut self) {
        self.remote = None;
    }
}

fn send(
    sealer: &mut SrtcpSealer,
    compound: &[u8],
    (via, remote): (LocalId, SocketAddr),
    outbox: &mut Outbox,
) {
    if let Some(sealed) = sealer.seal(compound) {
        outbox.datagram(via, remote, sealed.into());
    }
}

/// RFC 7983 §7: SRTP and SRTCP.
pub(in crate::peer) fn is_srtp(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| (128..192).contains(first))
}

/// RFC 5761 §4: packet types 192 to 223.
pub(in crate::peer) fn is_rtcp(datagram: &[u8]) -> bool {
    is_srtp(datagram) && datagram.get(1).is_some_and(|kind| (192..224).contains(kind))
}

/// Takes the original sequence number off an RTX packet (RFC 4588 §4); false if it brings nothing:
/// without that number it is padding or a probe.
fn unwrap_rtx(packet: &mut Accepted<'_>, route: Route, streams: &Streams) -> bool {
    let Some((&original, media)) = packet.payload.split_first_chunk() else { return false };
    (packet.sequence, packet.payload) = (u16::from_be_bytes(original), media);
    let placement = streams.placement(route, packet.sequence);
    !matches!(placement, Placement::Duplicate | Placement::Stale)
}

/// The payload without padding (RFC 3550 §5.1); `None` if there is more padding than payload.
fn unpad<'a>(header: &RtpHeader, payload: &'a [u8]) -> Option<&'a [u8]> {
    match payload.last() {
        Some(&padding) if header.padding => {
            payload.get(..payload.len().checked_sub(usize::from(padding))?)
        }
        _ => Some(payload),
    }
}
