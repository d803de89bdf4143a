//! All received streams of a peer, by SSRC.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_media::{AssemblerPacket, Red};
use stampede_sdp::{Description, Media, StreamSsrc};

use super::due::DueQueue;
use super::routes::{Route, Routes};
use super::stream::{Accepted, Stream};
use super::tracks::TrackStates;
use crate::accounting::{
    MediaPacket, Placement, StreamLedger, Via, WINDOW_PACKETS, is_server_made,
};
use crate::peer::CLOSED_STREAMS_MAX;
use crate::peer::outbox::Outbox;
use crate::rtcp;
use crate::watch::StreamCover;
use crate::{Arrival, Capture, MediaCounters, MediaKind, PeerEvent, PeerUpdate, StreamReport};

/// Most closed streams of which the time that they covered waits to be taken. At the maximum that of
/// the oldest is forgotten, and reads as a gap; it is taken once a second.
pub(super) const CLOSED_COVERS_MAX: usize = 256;
/// Room made for streams before they are opened; an offer may name one SSRC many times.
const RESERVED_MAX: usize = 256;

/// Which stream has something to do, and when: no other is looked at.
#[derive(Debug, Default)]
struct Due {
    /// Its oldest gap is given up.
    gaps: DueQueue,
    /// It is to be asked whether a keyframe is wanted.
    keyframes: DueQueue,
    /// A NACK may be sent.
    nacks: DueQueue,
    /// Indices of those that are; kept to save allocations.
    taken: Vec<u32>,
}

/// All received streams of a peer.
#[derive(Debug)]
pub(in crate::peer) struct Streams {
    deadline: Duration,
    recording: bool,
    /// The flight recorder, if this peer is tapped.
    pub(in crate::peer) capture: Option<Box<Capture>>,
    pub(super) streams: Vec<Stream>,
    due: Due,
    routes: Routes,
    closed: Vec<StreamReport>,
    /// What nobody has taken yet of streams that were closed.
    closed_covers: VecDeque<StreamCover>,
    /// Their sums by kind, once there are any.
    closed_sums: Option<Box<[MediaCounters; 2]>>,
    left_out: u64,
    next_id: u32,
    first_packet: [bool; 2],
    first_keyframe: bool,
    /// Of which kind of media each packet is followed by [`Self::look_at`].
    looked_at: [bool; 2],
    /// A playable frame later than this is waited for.
    awaited_after: Option<Instant>,
    /// Of streams that were closed: the last playable frame, and the last packet.
    closed_last: [Option<Arrival>; 2],
    tracks: TrackStates,
    /// When signalling said that we leave.
    leaving: Option<Instant>,
}

impl Streams {
    pub(super) fn new(deadline: Duration, recording: bool) -> Self {
        Self {
            deadline,
            recording,
            capture: None,
            streams: Vec::new(),
            due: Due::default(),
            routes: Routes::default(),
            closed: Vec::new(),
            closed_covers: VecDeque::new(),
            closed_sums: None,
            left_out: 0,
            next_id: 0,
            first_packet: [false; 2],
            first_keyframe: false,
            looked_at: looked_at(false, None),
            awaited_after: None,
            closed_last: [None; 2],
            tracks: TrackStates::default(),
            leaving: None,
        }
    }

    pub(super) fn route(&self, ssrc: u32) -> Option<Route> {
        self.routes.get(ssrc)
    }

    /// The SSRC on which this stream is repaired, if there is one.
    pub(super) fn rtx(&self, route: Route) -> Option<u32> {
        self.streams.get(route.index())?.rtx
    }

    /// Brings the streams in line with an offer.
    pub(super) fn apply_offer(
        &mut self,
        now: Instant,
        offer: &Description<'_>,
        mid_to_track_id: &[(String, String)],
        outbox: &mut Outbox,
    ) {
        let announced = |stream: &Stream| {
            sent_media(offer).any(|(_, media)| {
                let same = |offered: &StreamSsrc| {
                    let same_rtx = offered.rtx == stream.rtx || offered.rtx.is_none();
                    offered.ssrc == stream.ssrc && same_rtx
                };
                *media.mid == *stream.mid && media.ssrcs.iter().any(same)
            })
        };
        let mut index = 0;
        while index < self.streams.len() {
            if announced(&self.streams[index]) {
                index += 1;
                continue;
            }
            let stream = self.streams.swap_remove(index);
            self.close_stream(stream, now, outbox);
        }
        let offered = sent_media(offer).map(|(_, media)| media.ssrcs.len()).sum::<usize>();
        // SSRCs that several m-lines name open one stream.
        let more = offered.saturating_sub(self.streams.len()).min(RESERVED_MAX);
        self.streams.reserve_exact(more);
        for (kind, media) in sent_media(offer) {
            let mapped = mid_to_track_id.iter().find(|(mid, _)| *mid == media.mid);
            let track = mapped.map(|(_, track)| track.as_str()).or(media.track_id);
            for &StreamSsrc { ssrc, rtx } in &media.ssrcs {
                match self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
                    Some(stream) => {
                        if let (None, Some(track)) = (&stream.track_id, track) {
                            stream.track_id = Some(Arc::from(track));
                            self.tracks.apply(track, &mut stream.ledger);
                        }
                    }
                    None => self.open_stream(ssrc, rtx, media.mid, kind, track),
                }
            }
        }
        self.rebuild_routes(now);
    }

    /// A packet that its MID extension maps to an SSRC that no offer named.
    pub(super) fn adopt(
        &mut self,
        now: Instant,
        header_ssrc: u32,
        main_ssrc: u32,
        mid: Option<&str>,
        outbox: &mut Outbox,
    ) -> Option<Route> {
        if let Some(route) = self.route(main_ssrc).filter(|_| header_ssrc != main_ssrc) {
            self.streams.get_mut(route.index())?.rtx = Some(header_ssrc);
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
        self.rebuild_routes(now);
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
            self.tracks.apply(track, &mut ledger);
        }
        let id = self.next_id;
        self.streams.push(Stream::new(id, (ssrc, rtx), mid, kind, track, ledger));
        self.next_id += 1;
    }

    fn close_stream(&mut self, mut stream: Stream, now: Instant, outbox: &mut Outbox) {
        stream.finish(now, self.leaving, outbox);
        let [frame, packet] = self.closed_last;
        let Stream { ledger, .. } = &stream;
        self.closed_last =
            [later(frame, ledger.last_playable()), later(packet, ledger.last_packet())];
        if self.closed_covers.len() >= CLOSED_COVERS_MAX {
            self.closed_covers.pop_front();
        }
        self.closed_covers.push_back(stream.cover(true));
        let sums = self.closed_sums.get_or_insert_default();
        sums[stream.kind as usize].merge(&stream.counters());
        if self.closed.len() < CLOSED_STREAMS_MAX {
            self.closed.push(stream.report(true));
        } else {
            self.left_out += 1;
        }
    }

    /// Streams came or went, or have other places now.
    fn rebuild_routes(&mut self, now: Instant) {
        let ssrcs = self.streams.iter().map(|stream| (stream.ssrc, stream.rtx));
        self.routes = ssrcs.collect();
        self.schedule_all(now);
    }

    /// Asks each stream when it has something to do, now or later.
    fn schedule_all(&mut self, now: Instant) {
        let Due { gaps, keyframes, nacks, .. } = &mut self.due;
        gaps.clear();
        keyframes.clear();
        nacks.clear();
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let deadline = stream.ledger.sequences.next_deadline();
            stream.waits_for_gap = deadline.is_some();
            if let Some(deadline) = deadline {
                gaps.set(index, deadline);
            }
            if stream.is_keyframe_wanted() || stream.has_keyframe_news() {
                keyframes.set(index, now);
            }
            if !stream.nacks.is_empty() {
                nacks.set(index, now);
            }
        }
    }

    /// Something came of this stream, or was given up: it may have something to do that it had not.
    #[inline]
    pub(super) fn schedule(&mut self, index: usize, at: Instant) {
        if self.streams.get(index).is_some_and(Stream::may_be_due) {
            self.schedule_due(index, at);
        }
    }

    fn schedule_due(&mut self, index: usize, at: Instant) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        let deadline = stream.ledger.sequences.next_deadline();
        if let Some(deadline) = deadline {
            self.due.gaps.set(index, deadline);
        } else if stream.waits_for_gap {
            self.due.gaps.unset(index);
        }
        stream.waits_for_gap = deadline.is_some();
        // One that waits for the time of its next request goes on waiting.
        if stream.has_keyframe_news()
            || stream.is_keyframe_wanted() && self.due.keyframes.at(index).is_none()
        {
            self.due.keyframes.set(index, at);
        }
    }

    /// An authentic packet that is no replay.
    pub(super) fn accept(
        &mut self,
        route: Route,
        packet: Accepted<'_>,
        at: Arrival,
        outbox: &mut Outbox,
    ) {
        self.enter(route, packet, at, outbox);
        self.schedule(route.index(), at.instant);
    }

    fn enter(&mut self, route: Route, mut packet: Accepted<'_>, at: Arrival, outbox: &mut Outbox) {
        let recording = self.recording;
        let Some(stream) = self.streams.get_mut(route.index()) else { return };
        stream.learn_codec(packet.format, recording, outbox);
        if let Some(capture) = &mut self.capture {
            let repaired = route.via == Via::Rtx;
            let payload = capture.wants_payload();
            capture.push(packet.captured(stream.ssrc, repaired, at, payload));
        }
        let payload_bytes = packet.payload.len();
        let mut red = None;
        if packet.format.red && payload_bytes > 0 {
            let Ok(parsed) = Red::parse(packet.payload) else {
                stream.ledger.sequences.red_malformed();
                return;
            };
            packet.payload = parsed.primary;
            red = Some(parsed);
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
                recorder.skip(receipt.sequence);
            }
            stream.release_frames(outbox);
            return;
        }
        if let Some(red) = red {
            stream.repair(&packet, red, at);
        }
        let payload = stream.read_stamps(&packet);
        // Of redundant audio the whole payload, of a stamped frame what is without the stamp.
        let payload_bytes = if red.is_some() { payload_bytes } else { payload.len() };
        let receipt = stream.ledger.media(MediaPacket {
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            marker: packet.marker,
            payload: Some(payload),
            dependency_descriptor: packet.dependency_descriptor,
            payload_bytes,
            at,
            via: route.via,
        });
        if receipt.usable
            && let Some(recorder) = &mut stream.recorder
        {
            recorder.push(AssemblerPacket {
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
        if self.looked_at[stream.kind as usize] {
            self.look_at(route.index(), outbox);
        }
    }

    /// Tells of the first keyframe, and of the frame that is waited for, if this stream has one.
    fn look_at(&mut self, stream: usize, outbox: &mut Outbox) {
        let Some(Stream { ledger, .. }) = self.streams.get(stream) else { return };
        if !self.first_keyframe
            && let Some(at) = ledger.first_keyframe()
        {
            self.first_keyframe = true;
            outbox.event(PeerEvent::FirstKeyframe { at });
        }
        if let Some(after) = self.awaited_after
            && let Some(at) = ledger.awaited_frame().filter(|at| at.instant > after)
        {
            self.awaited_after = None;
            outbox.event(PeerEvent::NextFrame { at });
        }
        self.looked_at = looked_at(self.first_keyframe, self.awaited_after);
    }

    /// The first playable frame that comes after this moment is to be told.
    pub(in crate::peer) fn await_frame(&mut self, now: Instant) {
        self.awaited_after = Some(now);
        self.streams.iter_mut().for_each(|stream| stream.ledger.await_frame(now));
        self.looked_at = looked_at(self.first_keyframe, self.awaited_after);
    }

    /// When the last playable frame came; if none ever did, the last packet.
    pub(in crate::peer) fn last_frame(&self) -> Option<Arrival> {
        let [mut frame, mut packet] = self.closed_last;
        for Stream { ledger, .. } in &self.streams {
            frame = later(frame, ledger.last_playable());
            packet = later(packet, ledger.last_packet());
        }
        frame.or(packet)
    }

    /// [`Self::accept`]; true if the packet passed others over that are to be asked for.
    pub(super) fn accept_and_follow(
        &mut self,
        route: Route,
        packet: Accepted<'_>,
        at: Arrival,
        outbox: &mut Outbox,
    ) -> bool {
        let highest = |streams: &Self| {
            streams.streams.get(route.index()).and_then(|s| s.ledger.sequences.highest())
        };
        let before = highest(self);
        self.accept(route, packet, at, outbox);
        let (Some(before), Some(after)) = (before, highest(self)) else { return false };
        // A longer jump is too much to ask for.
        if after <= before + 1 || after - before > WINDOW_PACKETS {
            return false;
        }
        let Some(stream) = self.streams.get_mut(route.index()) else { return false };
        // Without RTX there is nobody to answer.
        if stream.rtx.is_none() {
            return false;
        }
        stream.nacks.passed_over(before + 1..after, at.instant);
        self.due.nacks.set_by(route.index(), at.instant);
        true
    }

    /// What a sequence number of this stream would be if it arrived now.
    pub(super) fn placement(&self, route: Route, sequence: u16) -> Placement {
        let stream = self.streams.get(route.index());
        stream.map_or(Placement::Stale, |stream| stream.ledger.placement(sequence))
    }

    /// A packet of the primary SSRC with this number would bring nothing: it came already, or is too far
    /// behind to know.
    pub(super) fn is_known(&self, route: Route, sequence: u16) -> bool {
        matches!(self.placement(route, sequence), Placement::Duplicate | Placement::Stale)
    }

    /// Counts an authentic packet of the primary SSRC that [is known](Self::is_known).
    pub(super) fn refuse_known(&mut self, route: Route, sequence: u16) {
        let Some(stream) = self.streams.get_mut(route.index()) else { return };
        match stream.ledger.placement(sequence) {
            Placement::Duplicate => stream.ledger.sequences.duplicate(),
            Placement::Stale => stream.ledger.sequences.stale(),
            _ => {}
        }
    }

    /// Counts an RTX packet that brought nothing.
    pub(super) fn refuse_rtx(&mut self, route: Route) {
        if let Some(stream) = self.streams.get_mut(route.index()) {
            stream.ledger.sequences.rtx_redundant();
        }
    }

    /// Hands a NACK of each stream that is due to `send`, with the stream's SSRC; returns when the next
    /// one is.
    pub(super) fn poll_nacks(
        &mut self,
        now: Instant,
        sender: u32,
        wanted: &mut Vec<u16>,
        send: &mut dyn FnMut(u32, Vec<u8>),
    ) -> Option<Instant> {
        let Due { nacks, taken, .. } = &mut self.due;
        nacks.take_due(now, taken);
        for index in taken.drain(..).map(|index| index as usize) {
            let Some(stream) = self.streams.get_mut(index) else { continue };
            wanted.clear();
            if let Some(at) = stream.nacks.poll(now, &stream.ledger.sequences, wanted) {
                nacks.set(index, at);
            }
            let mut rest = wanted.as_slice();
            while !rest.is_empty() {
                let mut nack = Vec::with_capacity(32);
                let written = rtcp::write_nack(&mut nack, sender, stream.ssrc, rest);
                send(stream.ssrc, nack);
                stream.nack_sent += 1;
                rest = &rest[written..];
            }
        }
        nacks.next()
    }

    /// What a receiver report says of a stream beside its sequence numbers.
    pub(super) fn jitter(&self, route: Route) -> Option<Duration> {
        Some(self.streams.get(route.index())?.ledger.jitter().unwrap_or_default())
    }

    /// Counts feedback that went out about this SSRC, whether it is of media or of RTX.
    pub(super) fn feedback_sent(&mut self, ssrc: u32, count: fn(&mut Stream) -> &mut u64) {
        let route = self.route(ssrc);
        if let Some(stream) = route.and_then(|route| self.streams.get_mut(route.index())) {
            *count(stream) += 1;
        }
    }

    /// Primary SSRC of the stream on this m-line.
    pub(super) fn ssrc_of_mid(&self, mid: &str) -> Option<u32> {
        self.streams.iter().find(|stream| *stream.mid == *mid).map(|stream| stream.ssrc)
    }

    /// Gives up on gaps that were due before `now`.
    pub(super) fn expire_gaps(&mut self, now: Instant, outbox: &mut Outbox) {
        let mut taken = std::mem::take(&mut self.due.taken);
        self.due.gaps.take_due(now, &mut taken);
        for index in taken.drain(..).map(|index| index as usize) {
            let Some(stream) = self.streams.get_mut(index) else { continue };
            if stream.ledger.sequences.next_deadline().is_some_and(|deadline| deadline < now) {
                stream.expire_gaps(now, outbox);
                if self.looked_at[stream.kind as usize] {
                    self.look_at(index, outbox);
                }
            }
            self.schedule(index, now);
        }
        self.due.taken = taken;
    }

    /// Nothing that any stream has to do is forgotten: this looks at all of them.
    pub(super) fn is_all_scheduled(&self) -> bool {
        self.streams.iter().enumerate().all(|(index, stream)| {
            let gap = stream.ledger.sequences.next_deadline();
            let nacks = stream.nacks.is_empty() || self.due.nacks.at(index).is_some();
            gap == self.due.gaps.at(index) && nacks && !stream.has_keyframe_news()
        })
    }

    /// When the oldest open gap of all streams is due.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        self.due.gaps.next()
    }

    /// SSRCs to send a PLI for now, and when to look again.
    pub(super) fn keyframe_requests(&mut self, now: Instant) -> (Vec<u32>, Option<Instant>) {
        let mut ssrcs = Vec::new();
        let Due { keyframes, taken, .. } = &mut self.due;
        keyframes.take_due(now, taken);
        for index in taken.drain(..).map(|index| index as usize) {
            let Some(stream) = self.streams.get_mut(index) else { continue };
            if let Some(at) = stream.poll_keyframe_request(now, &mut ssrcs) {
                keyframes.set(index, at);
            }
        }
        (ssrcs, keyframes.next())
    }

    /// What signalling knows of a track.
    pub(in crate::peer) fn update(&mut self, now: Instant, update: PeerUpdate) {
        if update == PeerUpdate::Leaving {
            self.leaving.get_or_insert(now);
        }
        let Some(track) = self.tracks.take(update) else { return };
        let of_track = |stream: &&mut Stream| stream.track_id.as_deref() == Some(&*track);
        for stream in self.streams.iter_mut().filter(of_track) {
            self.tracks.apply(&track, &mut stream.ledger);
        }
        self.tracks.forget_over(&track);
    }

    /// A datagram of this SSRC was dropped on purpose.
    pub(in crate::peer) fn dropped_on_purpose(&mut self, ssrc: u32) {
        if let Some(route) = self.route(ssrc)
            && let Some(stream) = self.streams.get_mut(route.index())
        {
            stream.ledger.dropped_on_purpose();
        }
    }

    /// What is under way to us is lost on purpose, of whatever stream.
    pub(in crate::peer) fn away(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.ledger.away());
    }

    /// Hands out what is new of the time that each stream covers, closed ones first; `last` if
    /// nothing follows.
    pub(in crate::peer) fn covers(&mut self, last: bool, hand_out: &mut dyn FnMut(StreamCover)) {
        self.closed_covers.drain(..).for_each(&mut *hand_out);
        for stream in &mut self.streams {
            hand_out(stream.cover(last));
        }
    }

    pub(super) fn set_sender_report(&mut self, ssrc: u32, packets: u64, at: Arrival) {
        if let Some(route) = self.route(ssrc).filter(|route| route.via == Via::Primary)
            && let Some(stream) = self.streams.get_mut(route.index())
        {
            stream.set_sender_report(packets, at);
        }
    }

    pub(in crate::peer) fn begin_measuring(&mut self, now: Instant) {
        self.closed.clear();
        self.left_out = 0;
        self.closed_sums = None;
        for stream in &mut self.streams {
            stream.begin_measuring(now);
        }
        self.schedule_all(now);
    }

    pub(in crate::peer) fn finish(&mut self, now: Instant, outbox: &mut Outbox) {
        for stream in &mut self.streams {
            stream.finish(now, self.leaving, outbox);
        }
    }

    /// Sums of video and audio.
    pub(in crate::peer) fn counters(&self) -> (MediaCounters, MediaCounters) {
        let mut sums = self.closed_sums.as_deref().copied().unwrap_or_default();
        for stream in &self.streams {
            sums[stream.kind as usize].merge(&stream.counters());
        }
        (sums[MediaKind::Video as usize], sums[MediaKind::Audio as usize])
    }

    /// Reports of all streams, closed ones first, but for those that are left out.
    pub(in crate::peer) fn reports(&self) -> Vec<StreamReport> {
        let open = self.streams.iter().map(|stream| stream.report(false));
        self.closed.iter().cloned().chain(open).collect()
    }

    /// Closed streams without a report of their own.
    pub(in crate::peer) fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// Of which kind of media, audio and video, each packet has to be followed: of audio nothing is
/// told but the frame that is waited for.
fn looked_at(first_keyframe: bool, awaited_after: Option<Instant>) -> [bool; 2] {
    let mut looked_at = [awaited_after.is_some(); 2];
    looked_at[MediaKind::Video as usize] |= !first_keyframe;
    looked_at
}

/// The later one of two.
fn later(one: Option<Arrival>, other: Option<Arrival>) -> Option<Arrival> {
    one.into_iter().chain(other).max_by_key(|at| at.instant)
}

/// The m-lines of an offer on which the server sends media.
fn sent_media<'a, 'b>(
    offer: &'b Description<'a>,
) -> impl Iterator<Item = (MediaKind, &'b Media<'a>)> {
    let sent = offer.media.iter().filter(|media| media.direction.sends());
    sent.filter_map(|media| Some((media.media_type.kind()?, media)))
}
