//! The sending half of a peer: tracks, their schedules, and what was sent of them.

mod adapt;
pub(super) mod descriptor;
mod layers;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use stampede_media::{Codec, MediaClip, packet_trailer, vp9};
use stampede_sdp::Description;
use str0m::change::SdpApi;
use str0m::media::{Direction, Mid, Pt, Rid, Rids, Simulcast, SimulcastLayer};
use str0m::rtp::{AbsCaptureTime, ExtensionValues, RtpWrite, Ssrc, Vp8Descriptor, Vp8Patch};
use str0m::stats::MediaEgressStats;
use str0m::{Rtc, media};

use super::outbox::Outbox;
use super::{PACKETS_PER_DRAIN_MAX, RETRANSMIT_AGE_MAX};
use crate::publish::{AudioFrames, DueFrame, LATE_AFTER, LayerClip, TrackSchedule};
use crate::{
    Arrival, AudioOptions, BackupTrack, MediaKind, NegotiateError, PeerEvent, PeerOptions,
    PeerUpdate, PublishCounters, PublishReport, PublishTrack, Sample, SpeakingTurns,
};
pub(super) use adapt::START_BITRATE_BPS;
use adapt::Uplink;
use layers::LayerGate;

/// Level of audio packets (RFC 6464), loud enough for LiveKit's speaker detection (−35 dBov).
const AUDIO_LEVEL_DBOV: i8 = -20;
/// Level of audio packets while another one speaks: digital silence.
const AUDIO_LEVEL_SILENT_DBOV: i8 = -127;

/// Bytes of a packet around its payload that the estimate covers: RTP header with its extensions, and
/// the tag of SRTP.
const PACKET_OVERHEAD_BYTES: f64 = 50.0;

#[derive(Debug)]
struct TxLayer {
    rid: Option<&'static str>,
    clip: LayerClip,
    ssrc: Option<Ssrc>,
    rtx: Option<Ssrc>,
    payload_type: Option<Pt>,
    first_sequence: u64,
    next_sequence: u64,
    timestamp_offset: u32,
    /// Frame number of the next layer frame (dependency descriptor).
    frame_number: u16,
    gate: LayerGate,
    /// What it takes of the way to the server.
    bitrate_bps: u64,
    counted: PublishCounters,
    /// The remote's counts when measuring began: NACKs, packets lost, packets covered.
    before_window: (u64, u64, u64),
}

#[derive(Debug)]
struct TxTrack {
    cid: Arc<str>,
    kind: MediaKind,
    mid: Option<Mid>,
    start_offset: Duration,
    speaking: Option<SpeakingTurns>,
    /// The last frame was loud, of who takes turns.
    loud: bool,
    /// How audio is to be sent, if the server agrees.
    audio: AudioOptions,
    frames: AudioFrames,
    /// Payload type of redundant audio, if it was agreed on.
    red: Option<Pt>,
    layers: Vec<TxLayer>,
    schedule: Option<TrackSchedule>,
    /// The track that this is the backup of.
    backup_of: Option<Arc<str>>,
    /// It is not wanted yet.
    held: bool,
    /// The answer to an offer of it has come.
    answered: bool,
}

/// All tracks that a peer sends.
pub(super) struct Publishing {
    tracks: Vec<TxTrack>,
    retransmit_packets_max: usize,
    /// They were offered.
    offered: bool,
    /// What the way to the server is good for, if that is obeyed.
    uplink: Option<Uplink>,
    /// Video frames carry LiveKit's packet trailer.
    packet_trailer: bool,
    /// Media may flow.
    connected: bool,
    /// When the last frame left.
    last_frame: Option<Instant>,
    /// The next frame that leaves is to be told; both clocks when that was asked.
    awaited_since: Option<Arrival>,
}

impl std::fmt::Debug for Publishing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publishing").field("tracks", &self.tracks).finish_non_exhaustive()
    }
}

impl Publishing {
    pub(super) fn new(
        tracks: Vec<PublishTrack>,
        backups: Vec<BackupTrack>,
        options: &PeerOptions,
    ) -> Self {
        let backups = backups.into_iter().map(|backup| TxTrack {
            backup_of: Some(Arc::from(backup.of)),
            held: true,
            ..TxTrack::new(backup.track)
        });
        let tracks = tracks.into_iter().map(TxTrack::new).chain(backups).collect();
        Self {
            tracks,
            retransmit_packets_max: options.retransmit_cache_packets_max,
            uplink: options.adapt.then(Uplink::default),
            offered: false,
            packet_trailer: false,
            connected: false,
            last_frame: None,
            awaited_since: None,
        }
    }

    /// True once all tracks that are wanted were offered.
    pub(super) fn is_offered(&self) -> bool {
        self.offered && !self.tracks.iter().any(|track| !track.held && track.mid.is_none())
    }

    /// True while tracks were offered and no answer has come.
    pub(super) fn is_unanswered(&self) -> bool {
        self.tracks.iter().any(|track| track.mid.is_some() && !track.answered)
    }

    /// Adds the tracks that are wanted, and that no answer has come to, to what is offered.
    pub(super) fn offer(&mut self, changes: &mut SdpApi<'_>) {
        self.offered = true;
        for track in self.tracks.iter_mut().filter(|track| !track.held && !track.answered) {
            let kind = match track.kind {
                MediaKind::Audio => media::MediaKind::Audio,
                MediaKind::Video => media::MediaKind::Video,
            };
            let rids: Vec<_> = track.layers.iter().filter_map(|layer| layer.rid).collect();
            let simulcast = (!rids.is_empty()).then(|| {
                let send = rids.into_iter().map(SimulcastLayer::new).collect();
                Simulcast { send, recv: Vec::new() }
            });
            let (stream, cid) = (Some("stampede".to_owned()), Some(track.cid.to_string()));
            track.mid = Some(changes.add_media(kind, Direction::SendOnly, stream, cid, simulcast));
        }
    }

    /// Mids of the audio tracks that were offered and are not to be redundant.
    pub(super) fn plain_audio(&self) -> Vec<String> {
        let plain = |track: &&TxTrack| track.kind == MediaKind::Audio && !track.audio.red;
        self.tracks.iter().filter(plain).filter_map(|track| Some(track.mid?.to_string())).collect()
    }

    /// Learns SSRCs and payload types from the first accepted answer to an offer of each. Tracks that
    /// were accepted are sent even if another one was refused, or their backup, which is told. Later
    /// answers, to a restart of ICE or to further m-lines to receive by, change nothing of this; setting
    /// up a layer again would empty its retransmission cache.
    pub(super) fn answered(
        &mut self,
        rtc: &mut Rtc,
        answer: &Description<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), NegotiateError> {
        let mut result = Ok(());
        let new = self.tracks.iter_mut().filter(|track| track.mid.is_some() && !track.answered);
        for track in new {
            track.answered = true;
            let learned = track.learn(rtc, self.retransmit_packets_max);
            if let (Err(reason), Some(_)) = (learned, &track.backup_of) {
                track.held = true;
                outbox.event(PeerEvent::BackupRefused { cid: Arc::clone(&track.cid), reason });
                continue;
            }
            if let Err(reason) = learned {
                let cid = track.cid.to_string();
                result = Err(NegotiateError::TrackRefused { cid, reason });
            }
            track.agree_on_audio(rtc, answer);
        }
        result
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.connected = true;
        for track in &mut self.tracks {
            track.start(now);
        }
    }

    /// When the next frame is due, once media may flow.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.tracks.iter().filter_map(TxTrack::next_due).min()
    }

    /// The next frame that leaves is to be told.
    pub(super) fn await_frame(&mut self, here: Arrival) {
        self.awaited_since = Some(here);
    }

    /// When the last frame left.
    pub(super) fn last_frame(&self) -> Option<Instant> {
        self.last_frame
    }

    fn frame_left(&mut self, now: Instant, outbox: &mut Outbox) {
        self.last_frame = Some(now);
        if let Some(asked) = self.awaited_since.take() {
            let since = now.saturating_duration_since(asked.instant);
            let unix_ns = asked.unix_ns + since.as_nanos() as u64;
            outbox.event(PeerEvent::NextFrame { at: Arrival { instant: now, unix_ns } });
        }
    }

    /// Writes the packets of all frames due, up to [`PACKETS_PER_DRAIN_MAX`] and the rest of a
    /// frame; true if anything was written. `has_way`: what is sent leaves this machine for the
    /// server.
    pub(super) fn write_due(
        &mut self,
        now: Instant,
        clock: Option<Arrival>,
        has_way: bool,
        rtc: &mut Rtc,
        outbox: &mut Outbox,
    ) -> bool {
        if !self.connected {
            return false;
        }
        let (mut packets, mut frames) = (0, 0);
        while packets < PACKETS_PER_DRAIN_MAX {
            let next = |track: &TxTrack| track.next_due().filter(|&due| due <= now);
            let earliest = self.tracks.iter_mut().filter(|track| next(track).is_some());
            let Some(track) = earliest.min_by_key(|track| track.next_due()) else { break };
            let stamping = Stamping { clock, packet_trailer: self.packet_trailer };
            let written = track.write_frame(now, stamping, rtc, outbox);
            frames += usize::from(written.is_some());
            // One that is withheld counts too, so that this ends.
            packets += written.unwrap_or(0).max(1);
        }
        if has_way && frames > 0 {
            self.frame_left(now, outbox);
        }
        packets > 0
    }

    pub(super) fn keyframe_requested(&mut self, mid: Mid, rid: Option<Rid>) {
        let Some(track) = self.tracks.iter_mut().find(|track| track.mid == Some(mid)) else {
            return;
        };
        let same = |layer: &TxLayer| match (layer.rid, rid) {
            (Some(mine), Some(theirs)) => *theirs == *mine,
            (None, None) => true,
            _ => false,
        };
        let Some(index) = track.layers.iter().position(same) else { return };
        let layer = &mut track.layers[index];
        layer.counted.pli_received += 1;
        if let Some(schedule) = &mut track.schedule {
            schedule.request_keyframe(index);
        }
    }

    /// What signalling knows of our tracks.
    pub(super) fn update(&mut self, update: &PeerUpdate) {
        match update {
            PeerUpdate::PacketTrailer => self.packet_trailer = true,
            PeerUpdate::LayersWanted { cid, wanted, backup, obey } => {
                for track in &mut self.tracks {
                    if *track.cid == **cid {
                        track.layers_wanted(*wanted, *obey);
                    } else if track.backup_of.as_deref() == Some(&**cid) {
                        track.layers_wanted(*backup, *obey);
                    }
                }
            }
            PeerUpdate::BackupWanted { cid } => {
                if let Some(track) = self.tracks.iter_mut().find(|track| *track.cid == **cid) {
                    track.held = false;
                }
            }
            PeerUpdate::PublishMuted { cid, muted } => {
                let is_it = |track: &&mut TxTrack| {
                    *track.cid == **cid || track.backup_of.as_deref() == Some(&**cid)
                };
                self.tracks.iter_mut().filter(is_it).for_each(|track| track.set_muted(*muted));
            }
            PeerUpdate::Track { .. }
            | PeerUpdate::Muted { .. }
            | PeerUpdate::Paused { .. }
            | PeerUpdate::Leaving
            | PeerUpdate::Moved
            | PeerUpdate::Met { .. }
            | PeerUpdate::Parted { .. }
            | PeerUpdate::DataTrackPublished { .. }
            | PeerUpdate::TrackGone { .. } => {}
        }
    }

    pub(super) fn set_stats(&mut self, stats: &MediaEgressStats) {
        let layers = self.tracks.iter_mut().filter(|track| track.mid == Some(stats.mid));
        let mut layers = layers.flat_map(|track| &mut track.layers);
        let Some(layer) = layers.find(|layer| layer.rid == stats.rid.as_deref()) else { return };
        let (nacks, lost, covered) = layer.before_window;
        layer.counted.nack_received = stats.nacks.saturating_sub(nacks);
        let Some(remote) = &stats.remote else { return };
        // A signed 24-bit count (RFC 3550 §6.4.1) that str0m hands on unsigned; below 0 means
        // duplicates, so nothing lost.
        let lost_now = if remote.packets_lost >= 1 << 23 { 0 } else { remote.packets_lost };
        let covered_now =
            (*remote.maximum_sequence_number + 1).saturating_sub(layer.first_sequence);
        layer.counted.upstream_lost = Some(lost_now.saturating_sub(lost));
        layer.counted.upstream_expected = Some(covered_now.saturating_sub(covered));
    }

    /// An RTP packet of this SSRC left.
    pub(super) fn sent(&mut self, ssrc: u32) {
        let mut layers = self.tracks.iter_mut().flat_map(|track| &mut track.layers);
        if let Some(layer) = layers.find(|layer| layer.rtx.is_some_and(|rtx| *rtx == ssrc)) {
            layer.counted.retransmitted += 1;
        }
    }

    pub(super) fn begin_measuring(&mut self) {
        for layer in self.tracks.iter_mut().flat_map(|track| &mut track.layers) {
            let (nacks, lost, covered) = &mut layer.before_window;
            *nacks += layer.counted.nack_received;
            *lost += layer.counted.upstream_lost.unwrap_or(0);
            *covered += layer.counted.upstream_expected.unwrap_or(0);
            layer.counted = PublishCounters::default();
        }
    }

    pub(super) fn counters(&self) -> PublishCounters {
        let mut sum = PublishCounters::default();
        let tracks = self.tracks.iter().filter(|track| !track.held);
        for layer in tracks.flat_map(|track| &track.layers) {
            sum.merge(&layer.counted);
        }
        sum.tracks = self.tracks.iter().filter(|track| !track.held).count() as u64;
        sum
    }

    pub(super) fn reports(&self) -> Vec<PublishReport> {
        let report = |track: &TxTrack, layer: &TxLayer| PublishReport {
            cid: track.cid.to_string(),
            kind: track.kind,
            rid: layer.rid,
            ssrc: layer.ssrc.map(|ssrc| *ssrc),
            counters: PublishCounters { tracks: 1, ..layer.counted },
        };
        let tracks = self.tracks.iter().filter(|track| !track.held);
        tracks
            .flat_map(|track| track.layers.iter().map(move |layer| report(track, layer)))
            .collect()
    }
}

impl TxTrack {
    fn new(track: PublishTrack) -> Self {
        let layers = track.layers.into_iter().map(|layer| {
            // RFC 3550 §5.1 wants random beginnings, and the first sequence number low enough that
            // it can't wrap before the receiver has one. The standard library's hasher keys are
            // the random source at hand that is neither a clock nor a syscall a packet.
            let random = RandomState::new().hash_one(layer.rid);
            let sequence = 1 + (random & 0x3fff);
            TxLayer {
                rid: layer.rid,
                bitrate_bps: sent_bps(&layer.clip),
                clip: LayerClip {
                    clip: layer.clip,
                    picture_id: (random >> 14) as u16 & 0x7fff,
                    tl0_pic_idx: (random >> 29) as u8,
                },
                ssrc: None,
                rtx: None,
                payload_type: None,
                first_sequence: sequence,
                next_sequence: sequence,
                timestamp_offset: (random >> 32) as u32,
                frame_number: (random >> 48) as u16,
                gate: LayerGate::default(),
                counted: PublishCounters::default(),
                before_window: (0, 0, 0),
            }
        });
        Self {
            cid: Arc::from(track.cid),
            kind: track.kind,
            mid: None,
            start_offset: track.start_offset,
            speaking: track.speaking,
            loud: false,
            audio: track.audio,
            frames: AudioFrames::default(),
            red: None,
            layers: layers.collect(),
            schedule: None,
            backup_of: None,
            held: false,
            answered: false,
        }
    }

    fn learn(&mut self, rtc: &mut Rtc, cache_packets: usize) -> Result<(), &'static str> {
        let mid = self.mid.ok_or("it was not offered")?;
        let Some(media) = rtc.media(mid) else { return Err("its m-line is missing") };
        if media.disabled() || !media.direction().is_sending() {
            return Err("its m-line is inactive");
        }
        let clip = self.layers.first().map(|layer| layer.clip.clip.codec);
        let codec = match clip.ok_or("it has no layers")? {
            Codec::Vp8 => str0m::format::Codec::Vp8,
            Codec::Vp9 => str0m::format::Codec::Vp9,
            Codec::H264 => str0m::format::Codec::H264,
            Codec::H265 => str0m::format::Codec::H265,
            Codec::Av1 => str0m::format::Codec::Av1,
            Codec::Opus => str0m::format::Codec::Opus,
        };
        let remote = media.remote_pts();
        let params = rtc.codec_config().params().iter();
        let mut matching = params.filter(|p| p.spec().codec == codec && remote.contains(&p.pt()));
        let payload_type = matching.next().map(|p| p.pt()).ok_or("its codec is not accepted")?;
        let accepted: Vec<_> = self.layers.iter().map(|l| rid_accepted(media, l.rid)).collect();
        let mut direct = rtc.direct_api();
        for (layer, _) in self.layers.iter_mut().zip(accepted).filter(|(_, accepted)| *accepted) {
            let rid = layer.rid.map(Rid::from);
            let Some(stream) = direct.stream_tx_by_mid(mid, rid) else { continue };
            // Without a ratio cap: a real client answers every NACK it can.
            stream.set_rtx_cache(cache_packets.max(1), RETRANSMIT_AGE_MAX, None);
            layer.ssrc = Some(stream.ssrc());
            layer.rtx = stream.rtx();
            layer.payload_type = Some(payload_type);
        }
        if self.layers.iter().all(|layer| layer.ssrc.is_none()) {
            return Err("none of its layers is accepted");
        }
        Ok(())
    }

    /// What the answer agrees on, of how audio is to be sent. As in libwebrtc, redundant audio is sent
    /// if it stands before Opus, and silence is left out if Opus has `usedtx=1` (RFC 7587 §6.1).
    fn agree_on_audio(&mut self, rtc: &Rtc, answer: &Description<'_>) {
        let mut media = answer.media.iter();
        let media = media.find(|media| self.mid.is_some_and(|mid| *media.mid == *mid));
        let (MediaKind::Audio, Some(media)) = (self.kind, media) else { return };
        let mut formats = media.payload_types.iter();
        let Some(opus) = formats.clone().find(|format| format.is("opus")) else { return };
        let preferred = formats.next().filter(|format| format.is("red"));
        let red = preferred.filter(|red| red.redundant() == Some(opus.number));
        let red = red.map(|red| Pt::from(red.number)).filter(|_| self.audio.red);
        let known = |red: &Pt| rtc.codec_config().params().iter().any(|it| it.red() == Some(*red));
        self.red = red.filter(known);
        if self.red.is_some() {
            // Each payload goes twice.
            for layer in &mut self.layers {
                layer.bitrate_bps += layer.clip.clip.bitrate_bps() as u64;
            }
        }
        let dtx = self.audio.dtx && opus.parameter("usedtx") == Some("1");
        let agreed = AudioOptions { red: self.red.is_some(), dtx };
        self.frames = AudioFrames::new(agreed, opus.number);
    }

    fn start(&mut self, now: Instant) {
        if self.schedule.is_none() && self.layers.iter().any(|layer| layer.ssrc.is_some()) {
            let clips = self.layers.iter().map(|layer| layer.clip.clone()).collect();
            self.schedule = Some(TrackSchedule::new(now, self.start_offset, clips));
        }
    }

    fn is_video(&self) -> bool {
        self.kind == MediaKind::Video
    }

    fn next_due(&self) -> Option<Instant> {
        self.schedule.as_ref()?.next_due()
    }

    /// Writes the next frame due; returns the number of its packets, `None` if it is withheld.
    fn write_frame(
        &mut self,
        now: Instant,
        stamping: Stamping,
        rtc: &mut Rtc,
        outbox: &mut Outbox,
    ) -> Option<usize> {
        let schedule = self.schedule.as_mut()?;
        let due = schedule.pop_due(now)?;
        let frame = schedule.frame(&due)?;
        let layer = self.layers.get_mut(due.layer)?;
        layer.counted.keyframe_jumps += u64::from(due.jumped);
        let (ssrc, mut pt) = (layer.ssrc?, layer.payload_type?);
        if !layer.gate.lets_pass(due.keyframe) {
            layer.counted.frames_withheld += 1;
            schedule.withhold(&due);
            return None;
        }
        let mut direct = rtc.direct_api();
        let stream = direct.stream_tx(&ssrc)?;
        let video = self.kind == MediaKind::Video;
        let loud = is_loud(self.speaking, now, stamping.clock);
        if let Some(clock) = stamping.clock.filter(|_| self.speaking.is_some() && loud != self.loud)
        {
            self.loud = loud;
            let at = Arrival { instant: now, unix_ns: unix(now, clock).as_nanos() as u64 };
            outbox.event(PeerEvent::Speaks { loud, at });
        }
        let timestamp = layer.timestamp_offset.wrapping_add(due.due_ticks as u32);
        let mut audio = None;
        if !video && let Some(opus) = frame.packets.first() {
            let Some(packet) = self.frames.next(timestamp, opus, !loud) else {
                layer.counted.frames_silent += 1;
                return None;
            };
            pt = self.red.filter(|_| packet.red).unwrap_or(pt);
            audio = Some(packet.payload);
        }
        let last = frame.packets.len().saturating_sub(1);
        let captured = stamping.captured(now);
        for (index, payload) in frame.packets.iter().enumerate() {
            let wallclock = due.due.min(now);
            let marker = video && index == last;
            let codec = layer.clip.clip.codec;
            let mut values = ExtensionValues {
                audio_level: (!video).then(|| audio_level(loud)),
                voice_activity: (!video).then_some(loud),
                ..extensions(captured.filter(|_| index == 0))
            };
            if let Some(scalability) = &layer.clip.clip.scalability
                && let Some(value) = scalability.descriptor(due.frame, index, layer.frame_number)
            {
                values.user_values.set(descriptor::Value(value));
            }
            let payload = match (&audio, codec) {
                (Some(audio), _) => Arc::clone(audio),
                (None, Codec::Vp9) => {
                    let scalable = layer.clip.clip.scalability.is_some();
                    let stream = layer.rid.filter(|_| !scalable).map(|_| due.layer as u8);
                    renumbered(payload, &due, stream)
                }
                (None, _) => Arc::clone(payload),
            };
            let payload = match captured.filter(|_| marker && stamping.packet_trailer) {
                Some(at) => packet_trailer::append(&payload, at.as_micros() as u64).into(),
                None => payload,
            };
            let patch = (codec == Codec::Vp8).then(|| vp8_patch(&payload, &due)).flatten();
            let sequence = layer.next_sequence.into();
            layer.counted.bytes_sent += payload.len() as u64;
            let mut rtp = RtpWrite::new(pt, sequence, timestamp, wallclock, payload)
                .marker(marker)
                .nackable(video)
                .ext_vals(values);
            if let Some(patch) = patch {
                rtp = rtp.vp8_patch(patch);
            }
            stream.write_rtp(rtp);
            layer.next_sequence += 1;
        }
        let layer_frames = layer.clip.clip.scalability.as_ref().map_or(0, |it| it.layer_frames());
        layer.frame_number = layer.frame_number.wrapping_add(layer_frames);
        outbox.sample(layer.count_frame(&due, frame.packets.len() as u64, now));
        Some(frame.packets.len())
    }
}

impl TxLayer {
    fn count_frame(&mut self, due: &DueFrame, packets: u64, now: Instant) -> Sample {
        // Every Opus packet can be decoded from; counting them would drown the video's keyframes.
        let keyframe = due.keyframe && self.clip.clip.codec.is_video();
        let counted = &mut self.counted;
        let lateness = now.saturating_duration_since(due.due);
        counted.packets_sent += packets;
        counted.frames_sent += 1;
        counted.keyframes_sent += u64::from(keyframe);
        counted.lateness_max_s.record(lateness);
        if lateness > LATE_AFTER {
            counted.late_packets += packets;
        }
        Sample::Published { lateness, packets }
    }
}

/// How frames are stamped.
#[derive(Debug, Clone, Copy)]
struct Stamping {
    /// How the two clocks relate.
    clock: Option<Arrival>,
    packet_trailer: bool,
}

impl Stamping {
    /// The stamp of a frame that is sent now: wall clock since the Unix epoch, to the microsecond,
    /// so that all its carriers say the same.
    fn captured(&self, now: Instant) -> Option<Duration> {
        let since_epoch = unix(now, self.clock?);
        Some(Duration::from_micros(since_epoch.as_micros() as u64))
    }
}

/// What a layer takes of the way, in bits a second: payload, and what every packet has around it.
fn sent_bps(clip: &MediaClip) -> u64 {
    (clip.bitrate_bps() + clip.packet_rate() * PACKET_OVERHEAD_BYTES * 8.0) as u64
}

fn rid_accepted(media: &media::Media, rid: Option<&str>) -> bool {
    match (rid, media.rids_tx()) {
        (None, _) | (_, Rids::Any) => true,
        (Some(rid), Rids::Specific(rids)) => rids.iter().any(|accepted| **accepted == *rid),
        (Some(_), Rids::None) => false,
    }
}

/// A copy with the numbers to send, of this one of several streams; str0m patches only VP8's in place.
fn renumbered(payload: &Arc<[u8]>, due: &DueFrame, stream: Option<u8>) -> Arc<[u8]> {
    let mut copy: Arc<[u8]> = Arc::from(&payload[..]);
    if let Some(bytes) = Arc::get_mut(&mut copy) {
        vp9::renumber(bytes, due.picture_id, due.tl0_pic_idx);
        if let Some(stream) = stream {
            vp9::set_spatial_id(bytes, stream);
        }
    }
    copy
}

fn vp8_patch(payload: &[u8], due: &DueFrame) -> Option<Vp8Patch> {
    let patch = Vp8Descriptor::parse(payload).ok()?.patch();
    patch.picture_id(due.picture_id).tl0_pic_idx(due.tl0_pic_idx).build().ok()
}

/// Without turns always; before the wall clock is known nobody speaks in turns.
fn is_loud(speaking: Option<SpeakingTurns>, now: Instant, clock: Option<Arrival>) -> bool {
    let Some(turns) = speaking else { return true };
    let Some(clock) = clock else { return false };
    turns.speaks(unix(now, clock).as_nanos() as u64)
}

fn audio_level(loud: bool) -> i8 {
    if loud { AUDIO_LEVEL_DBOV } else { AUDIO_LEVEL_SILENT_DBOV }
}

/// A moment since the Unix epoch.
fn unix(now: Instant, clock: Arrival) -> Duration {
    Duration::from_nanos(clock.unix_ns) + now.saturating_duration_since(clock.instant)
}

/// Capture time on a frame's first packet; str0m writes what was negotiated.
fn extensions(captured: Option<Duration>) -> ExtensionValues {
    let capture = captured.map(|since_epoch| AbsCaptureTime {
        capture_time: SystemTime::UNIX_EPOCH + since_epoch,
        clock_offset: None,
    });
    ExtensionValues { abs_capture_time: capture, ..ExtensionValues::default() }
}
