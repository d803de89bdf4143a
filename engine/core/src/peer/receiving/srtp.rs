//! Where a subscriber's SRTP and SRTCP are opened, and its RTCP is written.
//!
//! str0m keeps ICE, DTLS and data channels, and knows of no media. Once DTLS has exported the keys,
//! every SRTP and SRTCP datagram comes here: opened into the caller's buffer, entered into the
//! ledgers, answered with receiver reports, NACKs, PLIs and congestion feedback of our own. What RTCP
//! str0m would still send is dropped, but of a peer that sends media too (see [`SrtcpSealer`]).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Agreed;
use super::due::{DueQueue, make_room};
use super::extension::{Elements, ExtensionBlock, captured_unix_ns};
use super::formats::Format;
use super::reports::{REPORT_INTERVAL_AUDIO, REPORT_WHILE_RECEIVED, Reception, Reporting};
use super::routes::Route;
use super::ssrcs::SsrcTable;
use super::stream::Accepted;
use super::streams::Streams;
use crate::accounting::{Placement, Via};
use crate::feedback::{Feedback, STREAM_TIMEOUT, write_remb};
use crate::peer::candidates::LocalId;
use crate::peer::outbox::Outbox;
use crate::peer::wire::RtpHeader;
use crate::rtcp::{self, ReportBlock};
use crate::srtp::{KeyError, Keying, RtpOpener, SrtcpOpener, SrtcpSealer, extend_index};
use crate::{Arrival, CongestionFeedback, MediaKind, Sample, TransportCounters};

/// Most SSRCs whose SRTP index is kept after their stream is gone (a sender that comes back goes
/// on counting). Above it the oldest is forgotten.
const FORMER_SSRCS_MAX: usize = 1_024;
/// Packets behind the highest of an RTX SSRC that are told from replays; older ones are dropped.
const REPLAY_PACKETS: u64 = 64;
/// A longer NACK goes without the estimate, which goes out by itself in a moment: with its SSRCs, at
/// most 255, it could be more than a datagram takes.
const COMPOUND_WITH_ESTIMATE_BYTES_MAX: usize = 128;
/// CNAME of the receiver reports: a subscriber sends no media that it could tie together, and Chrome
/// sends none.
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
    /// It has a turn in [`Control::reports`].
    has_turn: bool,
    /// When the latest of them came.
    last_at: Option<Instant>,
}

impl Inbound {
    fn is_replay(&self, index: u64) -> bool {
        let Some(highest) = self.highest.filter(|&highest| index <= highest) else { return false };
        let behind = highest - index;
        behind >= REPLAY_PACKETS || self.replay >> behind & 1 == 1
    }

    fn authentic(&mut self, index: u64, at: Instant) {
        self.received += 1;
        self.last_at = Some(at);
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

    /// Something came since so long ago.
    fn is_heard(&self, now: Instant, within: Duration) -> bool {
        self.last_at.is_some_and(|last_at| now < last_at + within)
    }

    fn is_primary(&self) -> bool {
        self.route.is_some_and(|route| route.via == Via::Primary)
    }

    fn is_video(&self) -> bool {
        self.format.is_some_and(|format| format.codec.is_video())
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
    /// When a report on which of them may be due.
    reports: DueQueue,
    /// Those on which one is; kept to save allocations.
    taken: Vec<u32>,
    /// Sequence numbers to ask for; kept to save allocations.
    wanted: Vec<u16>,
    /// When a NACK may be due.
    nacks_at: Option<Instant>,
    /// RTCP may be sent without a report in front.
    reduced_size: bool,
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
    /// Into `inbound`.
    by_ssrc: SsrcTable,
    inbound: Vec<Inbound>,
    /// What is told of congestion; `None` if nothing is.
    feedback: Option<Feedback>,
    /// When a report, NACK or feedback may be due.
    next_due: Instant,
    /// Where authentic packets come from, and RTCP goes.
    remote: Option<SocketAddr>,
    /// The socket between.
    via: LocalId,
    control: Box<Control>,
}

impl SrtpReceiver {
    /// `ssrc` is ours in RTCP.
    pub(super) fn new(
        keying: &Keying,
        ssrc: u32,
        feedback: CongestionFeedback,
        now: Instant,
    ) -> Result<Self, KeyError> {
        let control = Control {
            opener: keying.srtcp_opener()?,
            sealer: keying.srtcp_sealer()?,
            ssrc,
            reporting: Vec::new(),
            reports: DueQueue::default(),
            taken: Vec::new(),
            wanted: Vec::new(),
            nacks_at: None,
            reduced_size: true,
        };
        Ok(Self {
            opener: keying.rtp_opener()?,
            by_ssrc: SsrcTable::default(),
            inbound: Vec::new(),
            feedback: (feedback == CongestionFeedback::Chrome).then(Feedback::default),
            next_due: now,
            remote: None,
            via: LocalId::default(),
            control: Box::new(control),
        })
    }

    /// Streams came or went; `reduced_size` says whether RTCP needs a report in front.
    pub(super) fn negotiated(&mut self, streams: &Streams, reduced_size: bool) {
        self.control.reduced_size = reduced_size;
        self.reroute(streams);
    }

    fn reroute(&mut self, streams: &Streams) {
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
        let found = self.find(header.ssrc, context.streams);
        let found = found.or_else(|| self.adopt(at, datagram, header, context));
        let Some((slot, route)) = found else {
            context.transport.unknown_ssrc += 1;
            return;
        };
        let inbound = &mut self.inbound[slot];
        let index = extend_index(header.sequence, inbound.highest);
        let known = match route.via {
            Via::Primary => context.streams.is_known(route, header.sequence),
            Via::Rtx => inbound.is_replay(index),
        };
        if known {
            return self.refuse_known(datagram, header, index, route, context);
        }
        if inbound.format.is_none_or(|format| format.wire != header.payload_type) {
            inbound.format = context.agreed.formats.get(header.payload_type);
        }
        let bytes = header.header_bytes;
        let opened = self.opener.open(datagram, bytes, header.ssrc, index, context.opened);
        let (Some((payload, opened_bytes)), Some(format)) =
            (opened.and_then(|p| Some((unpad(header, p)?, p.len()))), inbound.format)
        else {
            context.transport.rejected += 1;
            return;
        };
        inbound.authentic(index, at.instant);
        if !inbound.has_turn && route.via == Via::Primary {
            inbound.has_turn = true;
            let due = self.control.reporting[slot].next_at().unwrap_or(at.instant);
            self.control.reports.set(slot, due);
            self.next_due = self.next_due.min(due);
        }
        if self.remote != Some(source) {
            (self.remote, self.via) = (Some(source), context.outbox.via);
            // What was due while there was nobody to send it to.
            self.next_due = self.next_due.min(at.instant);
        }
        let extensions = ExtensionBlock::of(datagram, bytes).elements(&context.agreed.ids);
        let video = format.codec.is_video().then_some(header.ssrc);
        self.follow_congestion(at.instant, &extensions, video, opened_bytes);
        let mut accepted = Accepted {
            sequence: header.sequence,
            timestamp: header.timestamp,
            marker: header.marker,
            format,
            payload,
            captured_unix_ns: extensions.abs_capture_time.and_then(captured_unix_ns),
            dependency_descriptor: extensions.dependency_descriptor,
        };
        if route.via == Via::Rtx && !unwrap_rtx(&mut accepted, route, context.streams) {
            context.streams.refuse_rtx(route);
            return;
        }
        if context.streams.accept_and_follow(route, accepted, at, context.outbox) {
            self.control.nacks_at = Some(at.instant);
            self.next_due = self.next_due.min(at.instant);
        }
    }

    /// A packet that came before, or is too far behind to be told from a replay (RFC 3711 §3.3.2). It is
    /// opened all the same: anybody could send one that is not authentic, and it is not to be counted
    /// among the stream's.
    #[cold]
    fn refuse_known(
        &mut self,
        datagram: &[u8],
        header: &RtpHeader,
        index: u64,
        route: Route,
        context: &mut PacketContext<'_>,
    ) {
        let bytes = header.header_bytes;
        if self.opener.open(datagram, bytes, header.ssrc, index, context.opened).is_none() {
            context.transport.rejected += 1;
            return;
        }
        match route.via {
            Via::Primary => context.streams.refuse_known(route, header.sequence),
            Via::Rtx => context.streams.refuse_rtx(route),
        }
    }

    /// Tells what feedback there is of a packet. `video` is its SSRC if it is one of video.
    #[inline(always)]
    fn follow_congestion(
        &mut self,
        now: Instant,
        extensions: &Elements<'_>,
        video: Option<u32>,
        bytes: usize,
    ) {
        let Some(feedback) = &mut self.feedback else { return };
        if let Some(sequence) = extensions.transport_cc {
            if let Some(due) = feedback.sequenced(now, sequence, video) {
                self.next_due = self.next_due.min(due);
            }
        } else if video.is_some()
            && let Some(sent) = extensions.abs_send_time
            && feedback.sent_at(now, sent, bytes)
        {
            self.next_due = self.next_due.min(now);
        }
    }

    /// Where packets of this SSRC belong.
    #[inline(always)]
    fn find(&mut self, ssrc: u32, streams: &Streams) -> Option<(usize, Route)> {
        if let Some(slot) = self.by_ssrc.get(ssrc) {
            return self.inbound[slot].route.map(|route| (slot, route));
        }
        let route = streams.route(ssrc)?;
        Some((self.open_slot(ssrc, Some(route)), route))
    }

    #[cold]
    fn open_slot(&mut self, ssrc: u32, route: Option<Route>) -> usize {
        let former = self.inbound.iter().filter(|inbound| inbound.route.is_none()).count();
        if former >= FORMER_SSRCS_MAX
            && let Some(oldest) = self.inbound.iter().position(|inbound| inbound.route.is_none())
        {
            self.inbound.remove(oldest);
            self.control.reporting.remove(oldest);
            self.moved_up();
        }
        let slots = self.inbound.len() + 1;
        make_room(&mut self.inbound, slots);
        make_room(&mut self.control.reporting, slots);
        self.by_ssrc.insert(ssrc, self.inbound.len());
        self.inbound.push(Inbound {
            ssrc,
            route,
            format: None,
            highest: None,
            first: 0,
            replay: 0,
            received: 0,
            has_turn: false,
            last_at: None,
        });
        self.control.reporting.push(Reporting::default());
        self.inbound.len() - 1
    }

    /// Those behind one that was taken out have other places now.
    fn moved_up(&mut self) {
        let slots = self.inbound.iter().enumerate();
        self.by_ssrc = slots.map(|(slot, inbound)| (inbound.ssrc, slot)).collect();
        let Control { reports, reporting, .. } = &mut *self.control;
        reports.clear();
        for (slot, (inbound, reporting)) in self.inbound.iter_mut().zip(reporting).enumerate() {
            let due = reporting.next_at().filter(|_| inbound.has_turn);
            // One that was not asked yet has a turn with its next packet.
            inbound.has_turn = due.is_some();
            due.into_iter().for_each(|at| reports.set(slot, at));
        }
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
        let main = if format.is_rtx() { of_mid } else { header.ssrc };
        let slot = self.by_ssrc.get(header.ssrc);
        let highest = slot.and_then(|slot| self.inbound[slot].highest);
        let index = extend_index(header.sequence, highest);
        if highest.is_some_and(|highest| index <= highest) {
            return None;
        }
        self.opener.open(datagram, header.header_bytes, header.ssrc, index, context.opened)?;
        let outbox = &mut *context.outbox;
        let route = context.streams.adopt(at.instant, header.ssrc, main, Some(mid), outbox)?;
        let slot = slot.unwrap_or_else(|| self.open_slot(header.ssrc, None));
        self.reroute(context.streams);
        Some((slot, route))
    }

    fn receive_rtcp(&mut self, at: Arrival, datagram: &[u8], context: &mut PacketContext<'_>) {
        let Some((compound, index)) = self.control.opener.open(datagram) else {
            context.transport.rejected += 1;
            return;
        };
        let sender = compound.get(4..8).and_then(|ssrc| ssrc.first_chunk());
        let sender = sender.map(|&ssrc| u32::from_be_bytes(ssrc));
        let slot = sender.and_then(|ssrc| self.find(ssrc, context.streams));
        if let Some((slot, _)) = slot
            && !self.control.reporting[slot].is_fresh(index)
        {
            return;
        }
        for report in rtcp::sender_reports(&compound) {
            let found = self.find(report.ssrc, context.streams);
            let Some((slot, _)) = found else { continue };
            self.control.reporting[slot].sender_report(report, at.instant);
            context.streams.set_sender_report(report.ssrc, report.packets.into(), at);
        }
    }

    /// Sends the NACKs, reports and congestion feedback that are due; returns when to call again.
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
        let to = (self.via, remote);
        self.send_estimate(now, to, streams, outbox);
        let arrivals_at = self.send_arrivals(now, to, streams, outbox);
        if self.control.nacks_at.is_some_and(|at| at <= now) {
            self.send_nacks(now, to, streams, outbox);
        }
        self.report(now, to, streams, outbox);
        let due = [self.control.nacks_at, arrivals_at, self.control.reports.next()];
        self.next_due = due.into_iter().flatten().min().unwrap_or(now + REPORT_INTERVAL_AUDIO);
        self.next_due
    }

    /// A new estimate goes out in one packet with a report on the stream that carries it.
    fn send_estimate(
        &mut self,
        now: Instant,
        to: (LocalId, SocketAddr),
        streams: &mut Streams,
        outbox: &mut Outbox,
    ) {
        let Some(feedback) = &mut self.feedback else { return };
        if !feedback.has_estimate() {
            return;
        }
        let Some(slot) = carrier(&self.inbound) else { return };
        let Some(bitrate_bps) = feedback.take_estimate() else { return };
        let mut compound = Vec::with_capacity(96);
        self.put_report(&mut compound, slot, now, streams);
        self.put_remb(&mut compound, bitrate_bps, now);
        send(&mut self.control.sealer, &compound, to, outbox);
        outbox.sample(Sample::BandwidthEstimate { bitrate_bps });
        streams.feedback_sent(self.inbound[slot].ssrc, |stream| &mut stream.remb_sent);
    }

    fn send_arrivals(
        &mut self,
        now: Instant,
        to: (LocalId, SocketAddr),
        streams: &mut Streams,
        outbox: &mut Outbox,
    ) -> Option<Instant> {
        let (ssrc, sealer) = (self.control.ssrc, &mut self.control.sealer);
        self.feedback.as_mut()?.poll_arrivals(now, ssrc, &mut |media, report| {
            send(sealer, report, to, outbox);
            streams.feedback_sent(media, |stream| &mut stream.twcc_sent);
        })
    }

    /// A NACK with congestion feedback is as libwebrtc's: with a report in front unless RTCP is of
    /// reduced size, and with the last estimate behind, on the stream that carries it.
    fn send_nacks(
        &mut self,
        now: Instant,
        to: (LocalId, SocketAddr),
        streams: &mut Streams,
        outbox: &mut Outbox,
    ) {
        let (control, mut nacks) = (&mut *self.control, Vec::new());
        control.nacks_at =
            streams.poll_nacks(now, control.ssrc, &mut control.wanted, &mut |ssrc, nack| {
                nacks.push((ssrc, nack));
            });
        let carrier = if nacks.is_empty() { None } else { carrier(&self.inbound) };
        for (ssrc, nack) in nacks {
            let (Some(feedback), Some(slot)) = (&self.feedback, self.by_ssrc.get(ssrc)) else {
                send(&mut self.control.sealer, &nack, to, outbox);
                continue;
            };
            let estimate = feedback.last_estimate().filter(|_| carrier == Some(slot));
            let mut compound = Vec::with_capacity(128);
            if !self.control.reduced_size {
                self.put_report(&mut compound, slot, now, streams);
            }
            compound.extend_from_slice(&nack);
            let has_room = compound.len() <= COMPOUND_WITH_ESTIMATE_BYTES_MAX;
            if let Some(bitrate_bps) = estimate.filter(|_| has_room) {
                self.put_remb(&mut compound, bitrate_bps, now);
            }
            send(&mut self.control.sealer, &compound, to, outbox);
        }
    }

    /// Appends the report on a stream: a block for its primary SSRC, and one for its RTX once it is
    /// heard.
    fn put_report(&mut self, out: &mut Vec<u8>, slot: usize, now: Instant, streams: &Streams) {
        let Some(route) = self.inbound[slot].route else { return };
        // Another stream may have the same SSRC, by a description that is wrong.
        let is_its_rtx = |slot: &usize| {
            let of = self.inbound[*slot].route;
            of.is_some_and(|of| of.stream == route.stream && of.via == Via::Rtx)
        };
        let rtx = streams.rtx(route).and_then(|rtx| self.by_ssrc.get(rtx)).filter(is_its_rtx);
        let mut blocks = Vec::new();
        for slot in [Some(slot), rtx].into_iter().flatten() {
            if self.inbound[slot].is_heard(now, REPORT_WHILE_RECEIVED) {
                blocks.extend(self.block(slot, now, streams));
            }
        }
        rtcp::write_receiver_report(out, self.control.ssrc, &blocks);
        let kind = if self.inbound[slot].is_video() { MediaKind::Video } else { MediaKind::Audio };
        let next_at = self.control.reporting[slot].put_off(now, kind);
        self.inbound[slot].has_turn = true;
        self.control.reports.set(slot, next_at);
    }

    /// Appends an estimate, of all video that comes.
    fn put_remb(&self, out: &mut Vec<u8>, bitrate_bps: u64, now: Instant) {
        let heard =
            |inbound: &&Inbound| inbound.is_video() && inbound.is_heard(now, STREAM_TIMEOUT);
        let mut ssrcs: Vec<u32> = self.inbound.iter().filter(heard).map(|i| i.ssrc).collect();
        // As libwebrtc's map has them.
        ssrcs.sort_unstable();
        write_remb(out, self.control.ssrc, bitrate_bps, &ssrcs);
    }

    /// What a report says of an SSRC.
    fn block(&mut self, slot: usize, now: Instant, streams: &Streams) -> Option<ReportBlock> {
        let (inbound, reporting) = (&self.inbound[slot], &mut self.control.reporting[slot]);
        let (highest_index, format, route) = (inbound.highest?, inbound.format?, inbound.route?);
        let jitter_ticks = match route.via {
            Via::Primary => streams.jitter(route)?.as_secs_f64() * f64::from(format.clock_rate),
            // What is resent is of any age; nobody looks at its jitter.
            Via::Rtx => 0.0,
        };
        Some(reporting.block(
            now,
            Reception {
                ssrc: inbound.ssrc,
                first_index: inbound.first,
                highest_index,
                received: inbound.received,
                jitter: jitter_ticks as u32,
            },
        ))
    }

    /// Sends the reports that are due.
    fn report(
        &mut self,
        now: Instant,
        to: (LocalId, SocketAddr),
        streams: &Streams,
        outbox: &mut Outbox,
    ) {
        let mut taken = std::mem::take(&mut self.control.taken);
        self.control.reports.take_due(now, &mut taken);
        let mut blocks = Vec::new();
        for slot in taken.drain(..).map(|slot| slot as usize) {
            let inbound = &mut self.inbound[slot];
            let Some(format) = inbound.format.filter(|_| inbound.is_primary()) else {
                // It has a turn again with its next packet.
                inbound.has_turn = false;
                continue;
            };
            let kind = if format.codec.is_video() { MediaKind::Video } else { MediaKind::Audio };
            if !inbound.is_heard(now, REPORT_WHILE_RECEIVED) {
                self.control.reporting[slot].rest();
                inbound.has_turn = false;
                continue;
            }
            let (due, next_at) = self.control.reporting[slot].poll(now, kind, inbound.ssrc);
            self.control.reports.set(slot, next_at);
            if due {
                blocks.extend(self.block(slot, now, streams));
            }
        }
        self.control.taken = taken;
        let control = &mut *self.control;
        for blocks in blocks.chunks(rtcp::REPORT_BLOCKS_MAX) {
            let mut compound = Vec::with_capacity(64);
            rtcp::write_receiver_report(&mut compound, control.ssrc, blocks);
            if self.feedback.is_none() {
                rtcp::write_cname(&mut compound, control.ssrc, CNAME);
            }
            send(&mut control.sealer, &compound, to, outbox);
        }
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

/// Where the video stream is that estimates go out with: the first of which something came, also
/// while it pauses (libwebrtc's `PacketRouter` takes the first receiver as well).
fn carrier(inbound: &[Inbound]) -> Option<usize> {
    inbound.iter().position(|inbound| inbound.is_primary() && inbound.is_video())
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

#[cfg(test)]
mod tests;
