//! A track that is sent: its layers, what the server agreed on, and its frames on their way into packets.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use stampede_media::{Codec, MediaClip, packet_trailer, vp9};
use stampede_sdp::Description;
use str0m::Rtc;
use str0m::media::{Media, Mid, Pt, Rid, Rids};
use str0m::rtp::{
    AbsCaptureTime, ExtensionValues, RtpWrite, Ssrc, StreamTx, Vp8Descriptor, Vp8Patch,
};

use super::descriptor;
use super::direct::{Direct, Frame, Names, Outgoing, Rtx, Stream, Way};
use super::gate::LayerGate;
use super::kept::SentFrame;
use crate::peer::RETRANSMIT_AGE_MAX;
use crate::peer::outbox::Outbox;
use crate::publish::{AudioFrames, DueFrame, LATE_AFTER, LayerClip, TrackSchedule};
use crate::{
    Arrival, AudioOptions, MediaKind, PeerEvent, PublishCounters, PublishTrack, Sample,
    SpeakingTurns,
};

/// Level of audio packets (RFC 6464), loud enough for LiveKit's speaker detection (−35 dBov).
const AUDIO_LEVEL_DBOV: i8 = -20;
/// Level of audio packets while another one speaks: digital silence.
const AUDIO_LEVEL_SILENT_DBOV: i8 = -127;

/// Bytes of a packet around its payload that the estimate covers: RTP header with its extensions, and
/// the tag of SRTP.
const PACKET_OVERHEAD_BYTES: f64 = 50.0;

#[derive(Debug)]
pub(super) struct TxLayer {
    pub(super) rid: Option<&'static str>,
    pub(super) clip: LayerClip,
    pub(super) ssrc: Option<Ssrc>,
    pub(super) rtx: Option<Ssrc>,
    /// How it is sent beside str0m, if it is.
    pub(super) stream: Option<Box<Stream>>,
    pub(super) payload_type: Option<Pt>,
    pub(super) first_sequence: u64,
    pub(super) next_sequence: u64,
    pub(super) timestamp_offset: u32,
    /// Frame number of the next layer frame (dependency descriptor).
    pub(super) frame_number: u16,
    pub(super) gate: LayerGate,
    /// What it takes of the way to the server.
    pub(super) bitrate_bps: u64,
    pub(super) counted: PublishCounters,
    /// The remote's counts when measuring began: NACKs, packets lost, packets covered.
    pub(super) before_window: (u64, u64, u64),
}

#[derive(Debug)]
pub(super) struct TxTrack {
    pub(super) cid: Arc<str>,
    pub(super) kind: MediaKind,
    pub(super) mid: Option<Mid>,
    pub(super) start_offset: Duration,
    pub(super) speaking: Option<SpeakingTurns>,
    /// The last frame was loud, of who takes turns.
    pub(super) loud: bool,
    /// How audio is to be sent, if the server agrees.
    pub(super) audio: AudioOptions,
    pub(super) frames: AudioFrames,
    /// Payload type of redundant audio, if it was agreed on.
    pub(super) red: Option<Pt>,
    pub(super) layers: Vec<TxLayer>,
    pub(super) schedule: Option<TrackSchedule>,
    /// The track that this is the backup of.
    pub(super) backup_of: Option<Arc<str>>,
    /// It is not wanted yet.
    pub(super) held: bool,
    /// The answer to an offer of it has come.
    pub(super) answered: bool,
}

impl TxTrack {
    pub(super) fn new(track: PublishTrack) -> Self {
        let layers = track.layers.into_iter().map(|layer| {
            // RFC 3550 §5.1 wants random beginnings. The standard library's hasher keys are the random
            // source at hand that is neither a clock nor a syscall a packet.
            let random = RandomState::new().hash_one(layer.rid);
            let sequence = first_sequence(random);
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
                stream: None,
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

    /// Learns from an answer how it is to be sent: beside str0m if `is_direct`. Of each layer so many
    /// packets are kept for retransmission.
    pub(super) fn learn(
        &mut self,
        rtc: &mut Rtc,
        packets_kept_max: usize,
        is_direct: bool,
    ) -> Result<(), &'static str> {
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
        let params = matching.next().ok_or("its codec is not accepted")?;
        let (payload_type, resent_as) = (params.pt(), params.resend());
        let accepted: Vec<_> = self.layers.iter().map(|l| rid_accepted(media, l.rid)).collect();
        let extensions = media.remote_extmap().clone();
        let mut direct = rtc.direct_api();
        for (layer, _) in self.layers.iter_mut().zip(accepted).filter(|(_, accepted)| *accepted) {
            let rid = layer.rid.map(Rid::from);
            let Some(stream) = direct.stream_tx_by_mid(mid, rid) else { continue };
            layer.ssrc = Some(stream.ssrc());
            layer.rtx = stream.rtx();
            layer.payload_type = Some(payload_type);
            if !is_direct {
                // Without a ratio cap: a real client answers every NACK it can.
                stream.set_rtx_cache(packets_kept_max.max(1), RETRANSMIT_AGE_MAX, None);
                continue;
            }
            let names = Names { ssrc: *stream.ssrc(), mid, rid: layer.rid };
            let rtx = layer.rtx.zip(resent_as).map(|(ssrc, payload_type)| Rtx {
                ssrc: *ssrc,
                payload_type: *payload_type,
                next: first_sequence(RandomState::new().hash_one(mid)),
            });
            let stream = Stream::new(&extensions, names, rtx, packets_kept_max.max(1));
            layer.stream = Some(Box::new(stream));
        }
        if self.layers.iter().all(|layer| layer.ssrc.is_none()) {
            return Err("none of its layers is accepted");
        }
        Ok(())
    }

    /// What the answer agrees on, of how audio is to be sent. As in libwebrtc, redundant audio is sent
    /// if it stands before Opus, and silence is left out if Opus has `usedtx=1` (RFC 7587 §6.1).
    pub(super) fn agree_on_audio(&mut self, rtc: &Rtc, answer: &Description<'_>) {
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

    pub(super) fn start(&mut self, now: Instant) {
        if self.schedule.is_none() && self.layers.iter().any(|layer| layer.ssrc.is_some()) {
            let clips = self.layers.iter().map(|layer| layer.clip.clone()).collect();
            self.schedule = Some(TrackSchedule::new(now, self.start_offset, clips));
        }
    }

    pub(super) fn is_video(&self) -> bool {
        self.kind == MediaKind::Video
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.schedule.as_ref()?.next_due()
    }

    /// Writes the next frame due; returns the number of its packets, `None` if it is withheld.
    pub(super) fn write_frame(
        &mut self,
        now: Instant,
        stamping: Stamping,
        sender: &mut Sender<'_, '_>,
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
        let loud = is_loud(self.speaking, now, stamping.clock);
        if let Some(clock) = stamping.clock.filter(|_| self.speaking.is_some() && loud != self.loud)
        {
            self.loud = loud;
            let at = Arrival { instant: now, unix_ns: unix(now, clock).as_nanos() as u64 };
            sender.outbox().event(PeerEvent::Speaks { loud, at });
        }
        let timestamp = layer.timestamp_offset.wrapping_add(due.due_ticks as u32);
        let mut audio = None;
        if self.kind == MediaKind::Audio
            && let Some(opus) = frame.packets.first()
        {
            let Some(packet) = self.frames.next(timestamp, opus, !loud) else {
                layer.counted.frames_silent += 1;
                return None;
            };
            pt = self.red.filter(|_| packet.red).unwrap_or(pt);
            audio = Some(packet.payload);
        }
        let packets = frame.packets.len();
        let sent = SentFrame {
            first_sequence: layer.next_sequence,
            packets,
            index: due.frame,
            timestamp,
            picture_id: due.picture_id,
            tl0_pic_idx: due.tl0_pic_idx,
            frame_number: layer.frame_number,
            captured: stamping.captured(now),
            trailer: stamping.packet_trailer,
        };
        let clip = Arc::clone(&layer.clip.clip);
        let outgoing = Outgoing {
            frame: Frame { clip: &clip, sent, stream: layer.stream_number(due.layer) },
            payload_type: *pt,
            due: due.due.min(now),
            audio: audio.as_deref().map(|payload| (payload, level_octet(loud))),
        };
        let bytes = match sender {
            Sender::Paced(rtc, _) => {
                write_paced(rtc.direct_api().stream_tx(&ssrc)?, &outgoing, &due, loud)
            }
            Sender::Direct(direct, way) => {
                let since_epoch = stamping.clock.map_or(Duration::ZERO, |clock| unix(now, clock));
                let stream = layer.stream.as_deref_mut()?;
                direct.send(stream, &outgoing, (now, since_epoch), way)
            }
        };
        layer.counted.bytes_sent += bytes;
        layer.next_sequence += packets as u64;
        let layer_frames = clip.scalability.as_ref().map_or(0, |it| it.layer_frames());
        layer.frame_number = layer.frame_number.wrapping_add(layer_frames);
        sender.outbox().sample(layer.count_frame(&due, packets as u64, now));
        Some(packets)
    }

    /// Sends a packet of a layer again that the server asks for.
    pub(super) fn send_again(
        &mut self,
        layer: usize,
        sequence: u16,
        at: (Instant, Duration),
        direct: &mut Direct,
        way: &mut Way<'_>,
    ) {
        let Some(own) = self.layers.get_mut(layer) else { return };
        let number = own.stream_number(layer);
        let Some(stream) = &mut own.stream else { return };
        let clip = (&*own.clip.clip, number);
        let is_sent = direct.send_again(stream, clip, sequence, at, way);
        own.counted.retransmitted += u64::from(is_sent);
    }
}

/// By what media leaves.
pub(super) enum Sender<'a, 'b> {
    /// str0m, which paces it as the server's feedback allows.
    Paced(&'a mut Rtc, &'a mut Outbox),
    /// Our own SRTP.
    Direct(&'a mut Direct, &'a mut Way<'b>),
}

impl Sender<'_, '_> {
    pub(super) fn outbox(&mut self) -> &mut Outbox {
        match self {
            Self::Paced(_, outbox) => outbox,
            Self::Direct(_, way) => way.outbox,
        }
    }
}

/// Hands a frame to str0m; returns the bytes of its payloads.
fn write_paced(stream: &mut StreamTx, outgoing: &Outgoing<'_>, due: &DueFrame, loud: bool) -> u64 {
    let Frame { clip, sent, stream: number } = outgoing.frame;
    let Some(frame) = clip.frames.get(sent.index) else { return 0 };
    let is_video = clip.codec.is_video();
    let mut bytes = 0;
    for (at, payload) in frame.packets.iter().enumerate() {
        let marker = is_video && at + 1 == sent.packets;
        let mut values = ExtensionValues {
            audio_level: (!is_video).then(|| audio_level(loud)),
            voice_activity: (!is_video).then_some(loud),
            ..extensions(sent.captured.filter(|_| at == 0))
        };
        if let Some(value) = outgoing.frame.descriptor(at) {
            values.user_values.set(descriptor::Value(value));
        }
        let payload = match (outgoing.audio, clip.codec) {
            (Some((audio, _)), _) => Arc::from(audio),
            (None, Codec::Vp9) => renumbered(payload, due, number),
            (None, _) => Arc::clone(payload),
        };
        let payload = match sent.captured.filter(|_| marker && sent.trailer) {
            Some(captured) => packet_trailer::append(&payload, captured.as_micros() as u64).into(),
            None => payload,
        };
        let patch = (clip.codec == Codec::Vp8).then(|| vp8_patch(&payload, due)).flatten();
        let sequence = sent.first_sequence + at as u64;
        bytes += payload.len() as u64;
        let payload_type = outgoing.payload_type.into();
        let mut rtp =
            RtpWrite::new(payload_type, sequence.into(), sent.timestamp, outgoing.due, payload)
                .marker(marker)
                .nackable(is_video)
                .ext_vals(values);
        if let Some(patch) = patch {
            rtp = rtp.vp8_patch(patch);
        }
        stream.write_rtp(rtp);
    }
    bytes
}

impl TxLayer {
    /// Which of several streams of VP9 it is, for its payloads.
    fn stream_number(&self, index: usize) -> Option<u8> {
        let clip = &self.clip.clip;
        self.rid.filter(|_| clip.codec == Codec::Vp9 && clip.scalability.is_none())?;
        Some(index as u8)
    }

    /// The server has reported on it: packets lost in all, and the highest sequence number of all.
    pub(super) fn reported(&mut self, lost: u64, highest: u64) {
        let (_, lost_before, covered_before) = self.before_window;
        let covered = (highest + 1).saturating_sub(self.first_sequence);
        self.counted.upstream_lost = Some(lost.saturating_sub(lost_before));
        self.counted.upstream_expected = Some(covered.saturating_sub(covered_before));
    }

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
pub(super) struct Stamping {
    /// How the two clocks relate.
    pub(super) clock: Option<Arrival>,
    pub(super) packet_trailer: bool,
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

/// The first number of a stream from a random one: low enough that it can't wrap before the receiver
/// has one (RFC 3711 §3.3.1).
fn first_sequence(random: u64) -> u64 {
    1 + (random & 0x3fff)
}

fn rid_accepted(media: &Media, rid: Option<&str>) -> bool {
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

/// Level and voice flag in one octet (RFC 6464 §3).
fn level_octet(loud: bool) -> u8 {
    u8::from(loud) << 7 | audio_level(loud).unsigned_abs()
}

fn audio_level(loud: bool) -> i8 {
    if loud { AUDIO_LEVEL_DBOV } else { AUDIO_LEVEL_SILENT_DBOV }
}

/// A moment since the Unix epoch.
pub(super) fn unix(now: Instant, clock: Arrival) -> Duration {
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
