//! The subscriber's half: streams by SSRC, their ledgers, keyframe requests and recording.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use stampede_media::{AssembledFrame, AssemblerPacket, FrameAssembler, PacketTrailer};
use stampede_sdp::{Description, Media, MediaType, StreamSsrc};

use super::fast::{ExtensionIds, NackList};
use super::formats::Formats;
use super::notes::TrackNotes;
use super::outbox::Outbox;
use super::{CLOSED_STREAMS_MAX, PLI_INTERVAL_MAX, PLI_INTERVAL_MIN, PLI_WHILE_RECEIVED};
use crate::accounting::{
    FinishedFrame, MediaPacket, Placement, Stamp, StampSource, StreamLedger, Via, WINDOW_PACKETS,
    is_server_made,
};
use crate::rtcp;
use crate::watch::StreamCover;
use crate::{
    Arrival, Capture, CapturedPacket, FeedbackCounters, MediaCounters, MediaKind, PacketCounters,
    PeerEvent, PeerNote, RecordedFrame, RecordedStream, SenderWindow, StreamReport,
    StreamsCounters,
};

/// str0m's receive window: what is further behind is dropped before it is decrypted
/// (`MAX_MISORDER` of its `register_nack.rs`).
const STR0M_WINDOW_PACKETS: u64 = 100;

/// Most frames of a recording that the assembler has put together and the ledger has not settled
/// yet, or the other way round. At the maximum the oldest is left out of the recording.
const WAITING_FRAMES_MAX: usize = 256;

/// Most closed streams of which the time that they covered waits to be taken. At the maximum that of
/// the oldest is forgotten, and reads as a gap; it is taken once a second.
const CLOSED_COVERS_MAX: usize = 256;

/// Where an SSRC belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) stream: usize,
    pub(super) via: Via,
}

/// Header and payload of a packet that str0m accepted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accepted<'a> {
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) payload_type: u8,
    pub(super) payload: &'a [u8],
    /// Its header extension abs-capture-time, in nanoseconds since the Unix epoch.
    pub(super) captured_unix_ns: Option<u64>,
    /// Value of AV1's dependency descriptor extension.
    pub(super) dependency_descriptor: Option<&'a [u8]>,
}

/// What a receiver report says of a stream beside its sequence numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported {
    pub(super) kind: MediaKind,
    pub(super) jitter: Duration,
    /// When its last packet came.
    pub(super) last_at: Option<Instant>,
}

impl Accepted<'_> {
    fn captured(&self, ssrc: u32, repaired: bool, at: Arrival, payload: bool) -> CapturedPacket {
        CapturedPacket {
            at_unix_ns: at.unix_ns,
            ssrc,
            sequence: self.sequence,
            timestamp: self.timestamp,
            marker: self.marker,
            payload_type: self.payload_type,
            repaired,
            payload_bytes: self.payload.len(),
            payload: if payload { Bytes::copy_from_slice(self.payload) } else { Bytes::new() },
        }
    }
}

/// One received stream.
#[derive(Debug)]
pub(super) struct RxStream {
    pub(super) ssrc: u32,
    rtx: Option<u32>,
    mid: Arc<str>,
    kind: MediaKind,
    track_id: Option<Arc<str>>,
    id: u32,
    payload_type: Option<u8>,
    ledger: StreamLedger,
    keyframe_requests: KeyframeRequests,
    /// Used on the fast path only.
    nacks: NackList,
    nack_sent: u64,
    nack_before_window: u64,
    sender_report: Option<(u64, Arrival)>,
    /// The sender's count and ours at the first and at the last report of the measured window.
    sender_marks: Option<[SenderMark; 2]>,
    recorder: Option<Box<Recorder>>,
}

/// Counts when a sender report came.
#[derive(Debug, Clone, Copy)]
struct SenderMark {
    sent: u64,
    packets: PacketCounters,
}

#[derive(Debug)]
struct KeyframeRequests {
    next_at: Option<Instant>,
    interval: Duration,
    sent: u64,
}

#[derive(Debug)]
struct Recorder {
    stream: Arc<RecordedStream>,
    assembler: FrameAssembler,
    /// Assembled video frames of which the ledger has not said yet whether they can be decoded.
    waiting: VecDeque<AssembledFrame>,
    /// What the ledger said of frames that are not assembled yet.
    settled: VecDeque<FinishedFrame>,
}

/// All received streams of a peer.
#[derive(Debug)]
pub(super) struct Receiving {
    deadline: Duration,
    recording: bool,
    /// The flight recorder, if this peer is tapped.
    pub(super) capture: Option<Box<Capture>>,
    /// What the latest answer agreed on.
    pub(super) formats: Formats,
    pub(super) ids: ExtensionIds,
    /// How many there were.
    pub(super) answers: u64,
    streams: Vec<RxStream>,
    routes: FxHashMap<u32, Route>,
    closed: Vec<StreamReport>,
    /// What nobody has taken yet of streams that were closed.
    closed_covers: VecDeque<StreamCover>,
    closed_video: MediaCounters,
    closed_audio: MediaCounters,
    left_out: u64,
    next_id: u32,
    first_packet: [bool; 2],
    first_keyframe: bool,
    notes: TrackNotes,
    /// When we were told to leave.
    leaving: Option<Instant>,
}

impl Receiving {
    pub(super) fn new(deadline: Duration, recording: bool) -> Self {
        Self {
            deadline,
            recording,
            capture: None,
            formats: Formats::default(),
            ids: ExtensionIds::default(),
            answers: 0,
            streams: Vec::new(),
            routes: FxHashMap::default(),
            closed: Vec::new(),
            closed_covers: VecDeque::new(),
            closed_video: MediaCounters::default(),
            closed_audio: MediaCounters::default(),
            left_out: 0,
            next_id: 0,
            first_packet: [false; 2],
            first_keyframe: false,
            notes: TrackNotes::default(),
            leaving: None,
        }
    }

    pub(super) fn route(&self, ssrc: u32) -> Option<Route> {
        self.routes.get(&ssrc).copied()
    }

    /// Brings the streams in line with an offer; returns the primary SSRCs that are gone.
    pub(super) fn apply_offer(
        &mut self,
        now: Instant,
        offer: &Description<'_>,
        mid_to_track_id: &[(String, String)],
        outbox: &mut Outbox,
    ) -> Vec<u32> {
        let announced = |stream: &RxStream| {
            sent_media(offer).any(|(_, media)| {
                let same = |offered: &StreamSsrc| {
                    let same_rtx = offered.rtx == stream.rtx || offered.rtx.is_none();
                    offered.ssrc == stream.ssrc && same_rtx
                };
                *media.mid == *stream.mid && media.ssrcs.iter().any(same)
            })
        };
        let mut gone = Vec::new();
        let mut index = 0;
        while index < self.streams.len() {
            if announced(&self.streams[index]) {
                index += 1;
                continue;
            }
            let stream = self.streams.swap_remove(index);
            gone.push(stream.ssrc);
            self.close_stream(stream, now, outbox);
        }
        for (kind, media) in sent_media(offer) {
            let mapped = mid_to_track_id.iter().find(|(mid, _)| *mid == media.mid);
            let track = mapped.map(|(_, track)| track.as_str()).or(media.track_id);
            for &StreamSsrc { ssrc, rtx } in &media.ssrcs {
                match self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
                    Some(stream) => {
                        if let (None, Some(track)) = (&stream.track_id, track) {
                            stream.track_id = Some(Arc::from(track));
                            self.notes.apply(track, &mut stream.ledger);
                        }
                    }
                    None => self.open_stream(ssrc, rtx, media.mid, kind, track),
                }
            }
        }
        self.rebuild_routes();
        gone
    }

    /// A packet str0m mapped by its MID extension to an SSRC that no offer named.
    pub(super) fn adopt(
        &mut self,
        now: Instant,
        header_ssrc: u32,
        main_ssrc: u32,
        mid: Option<&str>,
        outbox: &mut Outbox,
    ) -> Option<Route> {
        if let Some(route) = self.route(main_ssrc).filter(|_| header_ssrc != main_ssrc) {
            self.streams.get_mut(route.stream)?.rtx = Some(header_ssrc);
        } else {
            // The sender changed its SSRC.
            let mid = mid?;
            let index = self.streams.iter().position(|stream| *stream.mid == *mid)?;
            let old = self.streams.swap_remove(index);
            let (kind, track) = (old.kind, old.track_id.clone());
            self.close_stream(old, now, outbox);
            let rtx = (header_ssrc != main_ssrc).then_some(header_ssrc);
            self.open_stream(main_ssrc, rtx, mid, kind, track.as_deref());
        }
        self.rebuild_routes();
        self.route(header_ssrc)
    }

    fn open_stream(
        &mut self,
        ssrc: u32,
        rtx: Option<u32>,
        mid: &str,
        kind: MediaKind,
        track: Option<&str>,
    ) {
        let mut ledger = StreamLedger::new(self.deadline);
        if let Some(track) = track {
            self.notes.apply(track, &mut ledger);
        }
        self.streams.push(RxStream {
            ssrc,
            rtx,
            mid: Arc::from(mid),
            kind,
            track_id: track.map(Arc::from),
            id: self.next_id,
            payload_type: None,
            ledger,
            keyframe_requests: KeyframeRequests {
                next_at: None,
                interval: PLI_INTERVAL_MIN,
                sent: 0,
            },
            nacks: NackList::default(),
            nack_sent: 0,
            nack_before_window: 0,
            sender_report: None,
            sender_marks: None,
            recorder: None,
        });
        self.next_id += 1;
    }

    fn close_stream(&mut self, mut stream: RxStream, now: Instant, outbox: &mut Outbox) {
        stream.finish(now, self.leaving, outbox);
        if self.closed_covers.len() >= CLOSED_COVERS_MAX {
            self.closed_covers.pop_front();
        }
        self.closed_covers.push_back(stream.cover(true));
        let sum = match stream.kind {
            MediaKind::Video => &mut self.closed_video,
            MediaKind::Audio => &mut self.closed_audio,
        };
        sum.merge(&stream.counters());
        if self.closed.len() < CLOSED_STREAMS_MAX {
            self.closed.push(stream.report(true));
        } else {
            self.left_out += 1;
        }
    }

    fn rebuild_routes(&mut self) {
        self.routes.clear();
        for (index, stream) in self.streams.iter().enumerate() {
            self.routes.insert(stream.ssrc, Route { stream: index, via: Via::Primary });
            if let Some(rtx) = stream.rtx {
                self.routes.insert(rtx, Route { stream: index, via: Via::Rtx });
            }
        }
    }

    /// A packet that str0m decrypted and takes for new.
    pub(super) fn accept(
        &mut self,
        route: Route,
        packet: Accepted<'_>,
        at: Arrival,
        outbox: &mut Outbox,
    ) {
        let recording = self.recording;
        let Some(stream) = self.streams.get_mut(route.stream) else { return };
        stream.learn_codec(packet.payload_type, &self.formats, recording, outbox);
        if let Some(capture) = &mut self.capture {
            let repaired = route.via == Via::Rtx;
            let payload = capture.wants_payload();
            capture.push(packet.captured(stream.ssrc, repaired, at, payload));
        }
        let codec = stream.ledger.codec();
        let server_made = codec.is_some_and(|codec| is_server_made(codec, packet.payload));
        if packet.payload.is_empty() || server_made {
            let receipt = if server_made {
                stream.ledger.server_made(packet.sequence, at)
            } else {
                stream.ledger.padding(packet.sequence, at)
            };
            if receipt.usable
                && let Some(recorder) = &mut stream.recorder
            {
                recorder.assembler.skip(receipt.sequence);
            }
            stream.release_frames(outbox);
            return;
        }
        let payload = stream.read_stamps(&packet);
        let receipt = stream.ledger.media(MediaPacket {
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            marker: packet.marker,
            payload: Some(payload),
            dependency_descriptor: packet.dependency_descriptor,
            payload_bytes: payload.len(),
            at,
            via: route.via,
        });
        if receipt.usable
            && let Some(recorder) = &mut stream.recorder
        {
            recorder.assembler.push(AssemblerPacket {
                sequence: receipt.sequence,
                timestamp: packet.timestamp,
                marker: packet.marker,
                payload,
            });
        }
        stream.release_frames(outbox);
        let first = &mut self.first_packet[stream.kind as usize];
        if !std::mem::replace(first, true) {
            outbox.event(PeerEvent::FirstPacket { kind: stream.kind, at });
        }
        if !self.first_keyframe && stream.kind == MediaKind::Video {
            self.report_first_keyframe(route.stream, outbox);
        }
    }

    fn report_first_keyframe(&mut self, stream: usize, outbox: &mut Outbox) {
        let first = self.streams.get(stream).and_then(|stream| stream.ledger.first_keyframe());
        if let Some(at) = first {
            self.first_keyframe = true;
            outbox.event(PeerEvent::FirstKeyframe { at });
        }
    }

    /// A packet of a known stream that str0m kept to itself; true if it failed authentication, as
    /// far as can be told.
    pub(super) fn refuse(
        &mut self,
        route: Route,
        header: &super::wire::RtpHeader,
        at: Arrival,
    ) -> bool {
        let Some(stream) = self.streams.get_mut(route.stream) else { return false };
        let ledger = &mut stream.ledger;
        if route.via == Via::Rtx {
            ledger.sequences.rtx_redundant();
            return false;
        }
        match ledger.placement(header.sequence) {
            Placement::Duplicate => ledger.sequences.duplicate(),
            // str0m drops these unread, for being old.
            Placement::Missing | Placement::BeforeWindow
                if ledger.sequences.packets_behind(header.sequence) > STR0M_WINDOW_PACKETS =>
            {
                ledger.media(MediaPacket {
                    sequence: header.sequence,
                    timestamp: header.timestamp,
                    marker: header.marker,
                    payload: None,
                    dependency_descriptor: None,
                    payload_bytes: header.payload_bytes,
                    at,
                    via: Via::Primary,
                });
            }
            Placement::Stale | Placement::BeforeWindow => ledger.sequences.stale(),
            Placement::First | Placement::Ahead | Placement::Missing => return true,
        }
        false
    }

    /// [`Self::accept`] on the fast path; true if it passed others over that are to be asked for.
    pub(super) fn accept_and_follow(
        &mut self,
        route: Route,
        packet: Accepted<'_>,
        at: Arrival,
        outbox: &mut Outbox,
    ) -> bool {
        let highest = |receiving: &Self| {
            receiving.streams.get(route.stream).and_then(|s| s.ledger.sequences.highest())
        };
        let before = highest(self);
        self.accept(route, packet, at, outbox);
        let (Some(before), Some(after)) = (before, highest(self)) else { return false };
        // A longer jump is too much to ask for.
        if after <= before + 1 || after - before > WINDOW_PACKETS {
            return false;
        }
        let Some(stream) = self.streams.get_mut(route.stream) else { return false };
        // Without RTX it is not asked for repairs, like str0m.
        if stream.rtx.is_none() {
            return false;
        }
        stream.nacks.passed_over(before + 1..after, at.instant);
        true
    }

    /// What a sequence number of this stream would be if it arrived now.
    pub(super) fn placement(&self, route: Route, sequence: u16) -> Placement {
        let stream = self.streams.get(route.stream);
        stream.map_or(Placement::Stale, |stream| stream.ledger.placement(sequence))
    }

    /// Counts a packet of the primary SSRC that needs no opening: a duplicate, or one too far
    /// behind to be told from a replay (RFC 3711 §3.3.2). False for all others.
    pub(super) fn refuse_known(&mut self, route: Route, sequence: u16) -> bool {
        let Some(stream) = self.streams.get_mut(route.stream) else { return true };
        match stream.ledger.placement(sequence) {
            Placement::Duplicate => stream.ledger.sequences.duplicate(),
            Placement::Stale => stream.ledger.sequences.stale(),
            _ => return false,
        }
        true
    }

    /// Counts an RTX packet that brought nothing; true.
    pub(super) fn refuse_rtx(&mut self, route: Route) -> bool {
        if let Some(stream) = self.streams.get_mut(route.stream) {
            stream.ledger.sequences.rtx_redundant();
        }
        true
    }

    /// Hands a NACK of each stream that is due to `send`; returns when the next one is.
    pub(super) fn poll_nacks(
        &mut self,
        now: Instant,
        sender: u32,
        wanted: &mut Vec<u16>,
        send: &mut dyn FnMut(&[u8]),
    ) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for stream in self.streams.iter_mut().filter(|stream| !stream.nacks.is_empty()) {
            wanted.clear();
            let at = stream.nacks.poll(now, &stream.ledger.sequences, wanted);
            next = next.into_iter().chain(at).min();
            let mut rest = wanted.as_slice();
            while !rest.is_empty() {
                let mut nack = Vec::with_capacity(32);
                let taken = rtcp::write_nack(&mut nack, sender, stream.ssrc, rest);
                send(&nack);
                stream.nack_sent += 1;
                rest = &rest[taken..];
            }
        }
        next
    }

    /// What a receiver report says of a stream.
    pub(super) fn reported(&self, route: Route) -> Option<Reported> {
        let stream = self.streams.get(route.stream)?;
        Some(Reported {
            kind: stream.kind,
            jitter: stream.ledger.jitter().unwrap_or_default(),
            last_at: stream.ledger.span().map(|(_, last)| last.instant),
        })
    }

    /// Primary SSRC of the stream on this m-line.
    pub(super) fn ssrc_of_mid(&self, mid: &str) -> Option<u32> {
        self.streams.iter().find(|stream| *stream.mid == *mid).map(|stream| stream.ssrc)
    }

    /// Gives up on gaps that were due before `now`.
    pub(super) fn settle(&mut self, now: Instant, outbox: &mut Outbox) {
        for index in 0..self.streams.len() {
            let stream = &mut self.streams[index];
            if stream.ledger.sequences.next_deadline().is_some_and(|deadline| deadline < now) {
                stream.settle(now, outbox);
                if !self.first_keyframe {
                    self.report_first_keyframe(index, outbox);
                }
            }
        }
    }

    /// When the oldest open gap of all streams is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.streams.iter().filter_map(|stream| stream.ledger.sequences.next_deadline()).min()
    }

    /// SSRCs to send a PLI for now, and when to look again.
    pub(super) fn keyframe_requests(&mut self, now: Instant) -> (Vec<u32>, Option<Instant>) {
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for stream in &mut self.streams {
            let Some(at) = stream.poll_keyframe_request(now, &mut due) else { continue };
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        (due, next)
    }

    /// What signalling knows of a track.
    pub(super) fn note(&mut self, now: Instant, note: PeerNote) {
        if note == PeerNote::Leaving {
            self.leaving.get_or_insert(now);
        }
        let Some(track) = self.notes.take(note) else { return };
        let of_track = |stream: &&mut RxStream| stream.track_id.as_deref() == Some(&*track);
        for stream in self.streams.iter_mut().filter(of_track) {
            self.notes.apply(&track, &mut stream.ledger);
        }
        self.notes.forget_over(&track);
    }

    /// A datagram of this SSRC was dropped on purpose.
    pub(super) fn dropped_on_purpose(&mut self, ssrc: u32) {
        if let Some(route) = self.route(ssrc)
            && let Some(stream) = self.streams.get_mut(route.stream)
        {
            stream.ledger.dropped_on_purpose();
        }
    }

    /// Hands out what is new of the time that each stream covers, closed ones first; `last` if
    /// nothing follows.
    pub(super) fn covers(&mut self, last: bool, hand_out: &mut dyn FnMut(StreamCover)) {
        self.closed_covers.drain(..).for_each(&mut *hand_out);
        for stream in &mut self.streams {
            hand_out(stream.cover(last));
        }
    }

    pub(super) fn set_nack_sent(&mut self, mid: &str, nacks: u64) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| *stream.mid == *mid) {
            stream.nack_sent = nacks;
        }
    }

    pub(super) fn set_sender_report(&mut self, ssrc: u32, packets: u64, at: Arrival) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
            stream.sender_report = Some((packets, at));
            let mark = SenderMark { sent: packets, packets: stream.ledger.packets() };
            let first = stream.sender_marks.map_or(mark, |[first, _]| first);
            stream.sender_marks = Some([first, mark]);
        }
    }

    pub(super) fn begin_measuring(&mut self, now: Instant) {
        self.closed.clear();
        self.left_out = 0;
        self.closed_video = MediaCounters::default();
        self.closed_audio = MediaCounters::default();
        for stream in &mut self.streams {
            stream.ledger.restart_counting(now);
            stream.nack_before_window = stream.nack_sent;
            stream.sender_marks = None;
            stream.keyframe_requests.sent = 0;
        }
    }

    pub(super) fn finish(&mut self, now: Instant, outbox: &mut Outbox) {
        for stream in &mut self.streams {
            stream.finish(now, self.leaving, outbox);
        }
    }

    /// Sums of video and audio.
    pub(super) fn counters(&self) -> (MediaCounters, MediaCounters) {
        let (mut video, mut audio) = (self.closed_video, self.closed_audio);
        for stream in &self.streams {
            match stream.kind {
                MediaKind::Video => video.merge(&stream.counters()),
                MediaKind::Audio => audio.merge(&stream.counters()),
            }
        }
        (video, audio)
    }

    /// Reports of all streams, closed ones first, and how many were left out.
    pub(super) fn reports(&self) -> (Vec<StreamReport>, u64) {
        let open = self.streams.iter().map(|stream| stream.report(false));
        (self.closed.iter().cloned().chain(open).collect(), self.left_out)
    }
}

/// The m-lines of an offer on which the server sends media.
fn sent_media<'a, 'b>(
    offer: &'b Description<'a>,
) -> impl Iterator<Item = (MediaKind, &'b Media<'a>)> {
    let sent = offer.media.iter().filter(|media| media.direction.sends());
    sent.filter_map(|media| match media.media_type {
        MediaType::Audio => Some((MediaKind::Audio, media)),
        MediaType::Video => Some((MediaKind::Video, media)),
        MediaType::Application | MediaType::Other => None,
    })
}

impl RxStream {
    fn cover(&mut self, last: bool) -> StreamCover {
        let (ended, open, trouble) = self.ledger.take_cover();
        StreamCover {
            track_id: self.track_id.clone(),
            stream: self.id,
            kind: self.kind,
            received: self.ledger.received(),
            ended,
            open,
            trouble,
            last,
        }
    }

    fn learn_codec(
        &mut self,
        payload_type: u8,
        formats: &Formats,
        recording: bool,
        outbox: &mut Outbox,
    ) {
        if self.payload_type == Some(payload_type) {
            return;
        }
        self.payload_type = Some(payload_type);
        let Some(codec) = formats.get(payload_type).map(|format| format.codec) else { return };
        if self.ledger.codec() == Some(codec) {
            return;
        }
        self.ledger.set_codec(codec);
        self.end_recording(outbox);
        if !recording {
            return;
        }
        match FrameAssembler::new(codec) {
            Err(error) => {
                tracing::warn!(ssrc = self.ssrc, track = ?self.track_id, "not recorded: {error}")
            }
            Ok(assembler) => {
                let stream = RecordedStream {
                    id: self.id,
                    ssrc: self.ssrc,
                    kind: self.kind,
                    codec,
                    track_id: self.track_id.clone(),
                };
                let stream = Arc::new(stream);
                self.ledger.keep_frames();
                self.recorder = Some(Box::new(Recorder {
                    stream,
                    assembler,
                    waiting: VecDeque::new(),
                    settled: VecDeque::new(),
                }));
            }
        }
    }

    /// Takes the publisher's stamps off a packet; returns its payload without them.
    fn read_stamps<'a>(&mut self, packet: &Accepted<'a>) -> &'a [u8] {
        let mut stamp = |source, unix_ns| {
            self.ledger.stamp(packet.timestamp, Stamp { source, unix_ns });
        };
        if let Some(unix_ns) = packet.captured_unix_ns {
            stamp(StampSource::AbsCaptureTime, unix_ns);
        }
        if self.kind != MediaKind::Video || !packet.marker {
            return packet.payload;
        }
        let Some(trailer) = PacketTrailer::find(packet.payload) else { return packet.payload };
        if let Some(unix_ns) = trailer.timestamp_us.and_then(|us| us.checked_mul(1_000)) {
            stamp(StampSource::PacketTrailer, unix_ns);
        }
        &packet.payload[..packet.payload.len() - trailer.len]
    }

    /// Hands out what was measured, and recorded frames that nothing before can change any more.
    fn release_frames(&mut self, outbox: &mut Outbox) {
        for sample in self.ledger.drain_samples() {
            outbox.sample(sample);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.settled.extend(std::iter::from_fn(|| self.ledger.next_kept()));
            recorder.release(outbox);
        }
    }

    /// Hands out what is still whole, and says that nothing more comes.
    fn end_recording(&mut self, outbox: &mut Outbox) {
        let Some(mut recorder) = self.recorder.take() else { return };
        recorder.assembler.finish();
        recorder.settled.extend(std::iter::from_fn(|| self.ledger.next_kept()));
        recorder.release(outbox);
        outbox.recording_ended(&recorder.stream, *recorder.assembler.counters());
    }

    /// Gives up on gaps that were due before `now`.
    fn settle(&mut self, now: Instant, outbox: &mut Outbox) {
        self.ledger.settle(now);
        if let (Some(recorder), Some(floor)) =
            (&mut self.recorder, self.ledger.sequences.open_floor())
        {
            recorder.assembler.abandon_before(floor);
        }
        self.release_frames(outbox);
    }

    fn poll_keyframe_request(&mut self, now: Instant, due: &mut Vec<u32>) -> Option<Instant> {
        let requests = &mut self.keyframe_requests;
        if !self.ledger.keyframe_wanted() {
            requests.interval = PLI_INTERVAL_MIN;
            return None;
        }
        let receiving = self.ledger.span().is_some_and(|(_, last)| {
            now.saturating_duration_since(last.instant) < PLI_WHILE_RECEIVED
        });
        if !receiving {
            return None;
        }
        if let Some(next_at) = requests.next_at.filter(|&next_at| next_at > now) {
            return Some(next_at);
        }
        due.push(self.ssrc);
        self.ledger.asked_for_keyframe(now);
        let requests = &mut self.keyframe_requests;
        requests.sent += 1;
        let next_at = now + requests.interval;
        requests.interval = (requests.interval * 2).min(PLI_INTERVAL_MAX);
        requests.next_at = Some(next_at);
        Some(next_at)
    }

    fn finish(&mut self, now: Instant, leaving: Option<Instant>, outbox: &mut Outbox) {
        self.ledger.finish(now, leaving.map_or(now, |leaving| leaving.min(now)));
        self.release_frames(outbox);
        self.end_recording(outbox);
    }

    fn counters(&self) -> MediaCounters {
        let packets = self.ledger.packets();
        MediaCounters {
            streams: StreamsCounters { announced: 1, received: u64::from(packets.received > 0) },
            packets,
            frames: self.ledger.frames(),
            freezes: self.ledger.freezes(),
            feedback: FeedbackCounters {
                nack_sent: self.nack_sent.saturating_sub(self.nack_before_window),
                pli_sent: self.keyframe_requests.sent,
                layer_switches: self.ledger.layer_switches(),
            },
            latency: self.ledger.latency(),
        }
    }

    fn sender_window(&self) -> Option<SenderWindow> {
        let [first, last] = self.sender_marks?;
        // The field has 32 bits and wraps (RFC 3550 §6.4.1).
        let sent = u64::from((last.sent as u32).wrapping_sub(first.sent as u32));
        let grown = |part: fn(&PacketCounters) -> u64| {
            part(&last.packets).saturating_sub(part(&first.packets))
        };
        (sent > 0).then(|| SenderWindow {
            sent,
            span: grown(|packets| packets.expected + packets.padding_only),
            padding_only: grown(|packets| packets.padding_only),
            // What came after a higher number was sent, and arrived.
            missing: grown(|packets| packets.missing).saturating_sub(grown(|p| p.reordered)),
        })
    }

    fn report(&self, closed: bool) -> StreamReport {
        let counters = self.counters();
        let span = self.ledger.span();
        StreamReport {
            kind: self.kind,
            codec: self.ledger.codec(),
            ssrc: self.ssrc,
            mid: self.mid.to_string(),
            track_id: self.track_id.as_deref().map(str::to_owned),
            packets: counters.packets,
            frames: counters.frames,
            freezes: counters.freezes,
            jitter: self.ledger.jitter(),
            feedback: counters.feedback,
            latency: counters.latency,
            first_packet: span.map(|(first, _)| first),
            last_packet: span.map(|(_, last)| last),
            first_keyframe: self.ledger.first_keyframe(),
            sender_packets: self.sender_report.map(|(packets, _)| packets),
            sender_report_at: self.sender_report.map(|(_, at)| at),
            sender_window: self.sender_window(),
            bitrate_bps: self.ledger.bitrate_bps(),
            closed,
        }
    }
}

impl Recorder {
    /// Hands out what a decoder can show. A frame that refers to one that was lost would decode
    /// into a picture nobody published.
    fn release(&mut self, outbox: &mut Outbox) {
        let video = self.stream.codec.is_video();
        while let Some(frame) = self.assembler.poll() {
            if video {
                self.waiting.push_back(frame);
            } else {
                self.hand_out(frame, outbox);
            }
        }
        while let (Some(settled), Some(frame)) = (self.settled.front(), self.waiting.front()) {
            match settled.last_sequence.cmp(&frame.last_sequence) {
                // One of the two could not make sense of the frame.
                Ordering::Less => drop(self.settled.pop_front()),
                Ordering::Greater => drop(self.waiting.pop_front()),
                Ordering::Equal => {
                    let decodable = settled.decodable;
                    self.settled.pop_front();
                    if let Some(frame) = self.waiting.pop_front().filter(|_| decodable) {
                        self.hand_out(frame, outbox);
                    }
                }
            }
        }
        // One at its maximum means that the other has stopped.
        let excess = |len: usize| len.saturating_sub(WAITING_FRAMES_MAX);
        self.waiting.drain(..excess(self.waiting.len()));
        self.settled.drain(..excess(self.settled.len()));
    }

    fn hand_out(&self, frame: AssembledFrame, outbox: &mut Outbox) {
        let frame = RecordedFrame { data: frame.data, timestamp_ticks: frame.timestamp };
        outbox.recorded(&self.stream, frame);
    }
}
