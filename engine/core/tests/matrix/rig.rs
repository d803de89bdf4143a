//! One cell of the matrix: a sender, a network that drops on purpose and writes down what it did,
//! and the receiving peer, in virtual time.

use std::cell::{Cell as StdCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::publish::{DueFrame, LayerClip, TrackSchedule};
use stampede_core::{Codec, Peer, PeerEvent, PeerOptions, PeerUpdate, Sample, StreamReport};
use stampede_impair::{Class, Fate as Impaired, Impairment, Spec};
use stampede_media::dependency_descriptor::{self as dd, Descriptor, Mandatory, Structure};
use stampede_media::{MediaClip, builtin, vp9};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Pt};
use str0m::rtp::{
    AbsCaptureTime, Extension, ExtensionSerializer, ExtensionValues, RtpWrite, Ssrc, Vp8Descriptor,
};
use str0m::{Event, Rtc, RtcConfig};

use super::common::*;
use super::reference::{Arrived, SentFrame, Story};

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Vp8,
    Vp9,
    H264,
    H265,
    Av1,
    /// With the dependency descriptor.
    Av1Described,
    Opus,
}

impl Media {
    pub fn codec(self) -> Codec {
        match self {
            Self::Vp8 => Codec::Vp8,
            Self::Vp9 => Codec::Vp9,
            Self::H264 => Codec::H264,
            Self::H265 => Codec::H265,
            Self::Av1 | Self::Av1Described => Codec::Av1,
            Self::Opus => Codec::Opus,
        }
    }

    /// Whether packets say which frame they are of.
    pub fn numbers_frames(self) -> bool {
        !matches!(self, Self::H264 | Self::H265 | Self::Av1)
    }

    fn clip(self) -> MediaClip {
        match self {
            Self::Opus => builtin::audio().unwrap(),
            video => {
                let clips = builtin::video(video.codec()).unwrap();
                clips.into_iter().find(|clip| clip.height == 360).unwrap()
            }
        }
    }
}

/// How lost packets come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    Never,
    /// The receiver asks for them, and they come by RTX, unless that is lost too.
    Rtx,
    /// Most of them come by themselves up to 0.9 s later, on the SSRC they were lost on.
    Resent,
}

/// What happens in one cell.
#[derive(Debug, Clone)]
pub struct Cell {
    pub media: Media,
    /// For `stampede_impair`; empty does nothing.
    pub impair: String,
    pub repair: Repair,
    /// First sequence number.
    pub first_sequence: u64,
    /// Packets without payload between frames.
    pub padding: bool,
    /// Two seconds of mute in the middle.
    pub mute: bool,
    /// The measured window begins after a quarter of the time.
    pub measured: bool,
    /// Frames at the beginning that nothing happens to.
    pub whole_frames: usize,
    pub seconds: u64,
    pub seed: u64,
}

/// A datagram of the stream as the network saw it.
struct Carried {
    ssrc: u32,
    sequence: u16,
    arrives: Vec<Instant>,
}

struct Network {
    model: Option<(Impairment, Duration)>,
    clock: Rc<StdCell<Instant>>,
    /// Until the datagram is with the peer, beside the model's delay.
    transit: Duration,
    media: u32,
    rtx: u32,
    repair: Repair,
    rng: Rng,
    /// Nothing happens to first transmissions now.
    sheltered: bool,
    carried: Vec<Carried>,
    /// First transmissions that never arrived.
    dropped: u64,
}

impl Network {
    fn decide(&mut self, bytes: &[u8]) -> Fate {
        let now = self.clock.get();
        let class = Class::of(bytes);
        let mut fate = Impaired::untouched(now);
        let mut delay = Duration::ZERO;
        if let Some((model, usual)) = &mut self.model {
            fate = model.decide(now, class, bytes.len());
            delay = *usual;
        }
        let stream = rtp(bytes).filter(|&(ssrc, _)| ssrc == self.media || ssrc == self.rtx);
        let first = stream.is_some_and(|(ssrc, _)| ssrc == self.media);
        if first && self.sheltered {
            fate = Impaired::Deliver { at: now + delay, twice: false, reordered: false };
        }
        if first && fate == Impaired::Drop && self.repair == Repair::Resent && self.rng.chance(700)
        {
            let at = now + delay + ms(30 + self.rng.below(870));
            fate = Impaired::Deliver { at, twice: false, reordered: false };
        }
        let (copies, more) = match fate {
            Impaired::Drop => (0, Duration::ZERO),
            Impaired::Deliver { at, twice, .. } => (1 + usize::from(twice), at - now),
        };
        if let Some((ssrc, sequence)) = stream {
            self.dropped += u64::from(first && copies == 0);
            let arrives = vec![now + self.transit + more; copies];
            self.carried.push(Carried { ssrc, sequence, arrives });
        }
        match copies {
            0 => Fate::Drop,
            1 => Fate::Deliver(more),
            _ => Fate::Twice(more, more),
        }
    }
}

/// A dependency descriptor's bytes, as an SFU passes them on.
#[derive(Debug)]
struct Described(Vec<u8>);

#[derive(Debug)]
struct Serializer;

impl ExtensionSerializer for Serializer {
    fn write_to(&self, buf: &mut [u8], values: &ExtensionValues) -> usize {
        let Some(Described(bytes)) = values.user_values.get() else { return 0 };
        buf[..bytes.len()].copy_from_slice(bytes);
        bytes.len()
    }

    fn parse_value(&self, _: &[u8], _: &mut ExtensionValues) -> bool {
        false
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }
}

/// What came out of a cell.
pub struct Outcome {
    pub report: StreamReport,
    pub story: Story,
    /// First transmissions that never arrived.
    pub dropped: u64,
    pub samples: Vec<Sample>,
    /// When each frame was sent.
    pub sent: Vec<Instant>,
}

/// A running cell.
struct RunningCell<'a> {
    cell: &'a Cell,
    sim: Sim,
    network: Rc<RefCell<Network>>,
    ssrc: Ssrc,
    payload_type: Pt,
    clip: Arc<MediaClip>,
    schedule: TrackSchedule,
    next_sequence: u64,
    frame_number: u16,
    keyframe_due: bool,
    /// Nothing was sent since a mute, or since one was signalled.
    back: bool,
    signalled_muted: bool,
    rng: Rng,
    story: Story,
    sent: Vec<Instant>,
    dropped_since: u64,
}

fn config(media: Media) -> RtcConfig {
    let mut config = Rtc::builder()
        .clear_codecs()
        .enable_opus(true, false)
        .set_extension(5, Extension::AbsoluteCaptureTime);
    match media {
        Media::Vp8 => config.enable_vp8(true),
        Media::Vp9 => config.enable_vp9(true),
        Media::H264 => config.enable_h264(true),
        Media::H265 => {
            config.codec_config().enable_h265(true);
            config
        }
        Media::Av1 => config.enable_av1(true),
        Media::Av1Described => config
            .enable_av1(true)
            .set_extension(12, Extension::with_serializer(dd::URI, Serializer)),
        Media::Opus => config,
    }
}

/// An offer without RTX, as to a client that can't do it.
fn without_rtx(offer: &str) -> String {
    let group = "a=ssrc-group:FID ";
    let groups = offer.lines().filter_map(|line| line.strip_prefix(group));
    let rtx: Vec<_> = groups.filter_map(|ssrcs| ssrcs.split_whitespace().nth(1)).collect();
    let kept = offer.lines().filter(|line| {
        let own = line.strip_prefix("a=ssrc:").and_then(|rest| rest.split(' ').next());
        !line.starts_with(group) && !own.is_some_and(|own| rtx.contains(&own))
    });
    kept.flat_map(|line| [line.trim_end(), "\r\n"]).collect()
}

impl<'a> RunningCell<'a> {
    fn connect(cell: &'a Cell) -> Self {
        let start = Instant::now();
        let options = PeerOptions { ..options() };
        let peer = Peer::subscriber(start, peer_addr(), &options, false).unwrap();
        let mut sim = Sim::new(start, peer, Server::new(start, config(cell.media)));
        let mut changes = sim.server.rtc.sdp_api();
        let video = cell.media != Media::Opus;
        let kind = if video { MediaKind::Video } else { MediaKind::Audio };
        let mid = changes.add_media(kind, Direction::SendOnly, None, None, None);
        let (offer, pending) = changes.apply().unwrap();
        let mut offer = offer.to_sdp_string();
        if cell.repair != Repair::Rtx {
            offer = without_rtx(&offer);
        }
        let tracks = [(mid.to_string(), "TR_cell".to_owned())];
        let answer = sim.peer.accept_offer(start, &offer, &tracks).unwrap();
        let track_id = "TR_cell".to_owned();
        sim.peer.update(PeerUpdate::Track { track_id, same_clock: true, muted: false });
        let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
        sim.server.rtc.sdp_api().accept_answer(pending, answer).unwrap();
        let mut direct = sim.server.rtc.direct_api();
        let stream = direct.stream_tx_by_mid(mid, None).unwrap();
        stream.set_rtx_cache(2_000, Duration::from_secs(5), None);
        let (ssrc, rtx) = (stream.ssrc(), stream.rtx());
        sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
        sim.run(ms(100));
        sim.server.rtx_ssrcs = rtx.iter().map(|ssrc| **ssrc).collect();
        let wanted = match cell.media.codec() {
            Codec::Vp8 => str0m::format::Codec::Vp8,
            Codec::Vp9 => str0m::format::Codec::Vp9,
            Codec::H264 => str0m::format::Codec::H264,
            Codec::H265 => str0m::format::Codec::H265,
            Codec::Av1 => str0m::format::Codec::Av1,
            Codec::Opus => str0m::format::Codec::Opus,
        };
        let mut params = sim.server.rtc.codec_config().params().iter();
        let payload_type = params.find(|p| p.spec().codec == wanted).unwrap().pt();
        let model = (!cell.impair.is_empty()).then(|| {
            let spec: Spec = cell.impair.parse().unwrap();
            (Impairment::new(&spec, cell.seed, "sub-1-0", sim.now), spec.delay)
        });
        let network = Rc::new(RefCell::new(Network {
            model,
            clock: sim.clock.clone(),
            transit: sim.delay,
            media: *ssrc,
            rtx: rtx.map_or(0, |rtx| *rtx),
            repair: cell.repair,
            rng: Rng::new(cell.seed ^ 0x5eed),
            sheltered: false,
            carried: Vec::new(),
            dropped: 0,
        }));
        let shared = network.clone();
        sim.fate = Box::new(move |bytes| shared.borrow_mut().decide(bytes));
        let clip = Arc::new(cell.media.clip());
        let mut rng = Rng::new(cell.seed);
        let layer = LayerClip {
            clip: clip.clone(),
            picture_id: rng.below(0x8000) as u16,
            tl0_pic_idx: rng.next() as u8,
        };
        let schedule = TrackSchedule::new(sim.now, Duration::ZERO, vec![layer]);
        let story = Story {
            deadline: options.playout_deadline,
            frames: Vec::new(),
            padding: BTreeSet::new(),
            server_made: BTreeSet::new(),
            arrivals: Vec::new(),
            mutes: Vec::new(),
            measured_from: None,
        };
        Self {
            cell,
            sim,
            network,
            ssrc,
            payload_type,
            clip,
            schedule,
            next_sequence: cell.first_sequence,
            frame_number: rng.next() as u16,
            keyframe_due: false,
            back: false,
            signalled_muted: false,
            rng,
            story,
            sent: Vec::new(),
            dropped_since: 0,
        }
    }

    fn packet(&mut self, timestamp: u32, payload: Arc<[u8]>) -> RtpWrite {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        RtpWrite::new(self.payload_type, sequence.into(), timestamp, self.sim.now, payload)
    }

    fn write(&mut self, packets: Vec<RtpWrite>) {
        let ssrc = self.ssrc;
        self.sim.server_writes(|rtc| {
            let mut direct = rtc.direct_api();
            let stream = direct.stream_tx(&ssrc).unwrap();
            packets.into_iter().for_each(|packet| stream.write_rtp(packet));
        });
    }

    /// Numbers a payload as a publisher does.
    fn numbered(
        &mut self,
        due: &DueFrame,
        index: usize,
        last: bool,
        payload: &Arc<[u8]>,
    ) -> RtpWrite {
        let mut values = ExtensionValues::default();
        if index == 0 {
            let unix_ns = self.sim.arrival().unix_ns;
            let capture_time = std::time::UNIX_EPOCH + Duration::from_nanos(unix_ns);
            values.abs_capture_time = Some(AbsCaptureTime { capture_time, clock_offset: None });
        }
        let mut payload = payload.clone();
        match self.cell.media {
            Media::Vp9 => {
                let mut bytes = payload.to_vec();
                vp9::renumber(&mut bytes, due.picture_id, due.tl0_pic_idx);
                payload = bytes.into();
            }
            Media::Av1Described => {
                let mandatory = Mandatory {
                    start_of_frame: index == 0,
                    end_of_frame: last,
                    template_id: u8::from(!due.keyframe),
                    frame_number: self.frame_number,
                };
                let structure = Structure::single_layer();
                let with = (due.keyframe && index == 0).then_some(&structure);
                values.user_values.set(Described(Descriptor::write(mandatory, with)));
            }
            _ => {}
        }
        let video = self.cell.media != Media::Opus;
        let patch = (self.cell.media == Media::Vp8).then(|| {
            let patch = Vp8Descriptor::parse(&payload).unwrap().patch();
            patch.picture_id(due.picture_id).tl0_pic_idx(due.tl0_pic_idx).build().unwrap()
        });
        let mut packet = self.packet(timestamp(due), payload).marker(video && last);
        packet = packet.nackable(video).ext_vals(values);
        match patch {
            Some(patch) => packet.vp8_patch(patch),
            None => packet,
        }
    }

    fn send_frame(&mut self, due: &DueFrame) {
        let clip = self.clip.clone();
        let payloads = &clip.frames[due.frame].packets;
        let first = self.next_sequence;
        let packets = payloads.iter().enumerate().map(|(index, payload)| {
            self.numbered(due, index, index + 1 == payloads.len(), payload)
        });
        let packets = packets.collect();
        self.frame_number = self.frame_number.wrapping_add(1);
        let index = self.story.frames.len();
        self.sent.push(self.sim.now);
        self.story.frames.push(SentFrame {
            sequences: first..self.next_sequence,
            keyframe: due.keyframe,
            due: Duration::from_secs_f64(due.due_ticks as f64 / f64::from(clip.clock_rate)),
            // The built-in clips are of one layer, without frames that nothing refers to.
            refers_to: index.checked_sub(1),
        });
        self.write(packets);
    }

    fn send_padding(&mut self, due: &DueFrame) {
        for _ in 0..self.rng.below(4) {
            self.story.padding.insert(self.next_sequence);
            let nackable = self.rng.chance(500);
            let packet = self.packet(timestamp(due), Arc::from([].as_slice())).nackable(nackable);
            self.write(vec![packet]);
        }
    }

    /// LiveKit's silence of a muted track: 20 ms of it.
    fn send_silence(&mut self, due: &DueFrame) {
        let mut silence = vec![0xf8, 0xff, 0xfe];
        silence.resize(80, 0);
        self.story.server_made.insert(self.next_sequence);
        let packet = self.packet(timestamp(due), silence.into());
        self.write(vec![packet]);
    }

    /// Keyframes that were asked for.
    fn serve_requests(&mut self) {
        for event in self.sim.server.events.drain(..) {
            if matches!(event, Event::KeyframeRequest(_)) {
                self.schedule.request_keyframe(0);
            }
        }
    }

    fn signal_mute(&mut self, muted: bool) {
        let track_id = "TR_cell".to_owned();
        self.sim.peer.update(PeerUpdate::Muted { track_id, muted });
        self.signalled_muted = muted;
        self.back = true;
        self.story.mutes.push((self.sim.now, muted));
    }

    /// The frame that is due is sent, or not while the publisher is muted.
    fn publish(&mut self, due: &DueFrame, muted: Option<Duration>) {
        if let Some(since) = muted {
            self.keyframe_due = true;
            self.back = true;
            self.schedule.withhold(due);
            if self.cell.media == Media::Opus && since < Duration::from_secs(1) {
                self.send_silence(due);
            }
            return;
        }
        if std::mem::take(&mut self.keyframe_due) && !due.keyframe {
            self.keyframe_due = true;
            self.schedule.withhold(due);
            self.schedule.request_keyframe(0);
            return;
        }
        let index = self.story.frames.len();
        // Nothing tells how many frames are missing beside a mute, where they have no numbers.
        let beside = std::mem::take(&mut self.back) || self.signalled_muted;
        let beside = beside && !self.cell.media.numbers_frames();
        self.network.borrow_mut().sheltered |= beside || index < self.cell.whole_frames;
        if self.cell.padding && index > 0 {
            self.send_padding(due);
        }
        self.send_frame(due);
    }

    fn finish(mut self) -> Outcome {
        self.sim.run(Duration::from_secs(3));
        // Nothing was sent since: that the last picture stood is no freeze.
        let update = PeerUpdate::Paused { track_id: "TR_cell".to_owned(), paused: true };
        self.sim.peer.update(update);
        let now = self.sim.now;
        self.sim.peer.close(now, &mut self.sim.sink);
        let mut streams = self.sim.peer.final_report(now).streams;
        assert_eq!(streams.len(), 1);
        let dropped = self.network.borrow().dropped - self.dropped_since;
        let story = self.story_so_far();
        let samples = std::mem::take(&mut self.sim.sink.samples);
        Outcome { report: streams.swap_remove(0), story, dropped, samples, sent: self.sent }
    }

    fn story_so_far(&self) -> Story {
        let sent = self.cell.first_sequence..self.next_sequence;
        let unwrapped: HashMap<u16, u64> = sent.map(|number| (number as u16, number)).collect();
        let network = self.network.borrow();
        let mut arrivals = Vec::new();
        for carried in &network.carried {
            let by_rtx = carried.ssrc == network.rtx;
            let wire = match by_rtx {
                true => self.sim.server.originals.get(&(carried.ssrc, carried.sequence)),
                false => Some(&carried.sequence),
            };
            let Some(&sequence) = wire.and_then(|wire| unwrapped.get(wire)) else { continue };
            let arrived = carried.arrives.iter().map(|&at| Arrived { sequence, by_rtx, at });
            arrivals.extend(arrived.filter(|arrived| arrived.at <= self.sim.now));
        }
        arrivals.sort_by_key(|arrived| arrived.at);
        Story { arrivals, ..self.story.clone() }
    }
}

fn timestamp(due: &DueFrame) -> u32 {
    (due.due_ticks as u32).wrapping_sub(90_000)
}

impl Cell {
    /// Runs it; `check` sees the peer's counts and the story so far once a second.
    pub fn run(&self, check: impl Fn(&stampede_core::PacketCounters, &Story)) -> Outcome {
        let mut run = RunningCell::connect(self);
        let begin = run.sim.now;
        let end = begin + Duration::from_secs(self.seconds);
        let mute_at = begin + Duration::from_secs(self.seconds) * 2 / 5;
        let mute_end = mute_at + Duration::from_secs(2);
        // Signalling is earlier or later than the media.
        let [mute, unmute] = [mute_at, mute_end].map(|at| at + ms(run.rng.below(120)) - ms(60));
        let mut signals = vec![(unmute, false), (mute, true)];
        if !self.mute {
            signals.clear();
        }
        let mut next_check = begin + Duration::from_secs(1);
        let mut measure_at = self.measured.then(|| begin + (end - begin) / 4);
        while let Some(due_at) = run.schedule.next_due().filter(|&due| due < end) {
            while let Some((at, muted)) = signals.pop_if(|&mut (at, _)| at <= due_at) {
                run.sim.run_until(at);
                run.signal_mute(muted);
            }
            if measure_at.take_if(|at| *at <= due_at).is_some() {
                run.sim.run_until(due_at);
                let now = run.sim.now;
                run.sim.peer.begin_measuring(now);
                run.story.measured_from = Some(run.sim.now);
                run.dropped_since = run.network.borrow().dropped;
            }
            run.sim.run_until(due_at);
            run.serve_requests();
            if next_check <= due_at {
                next_check += Duration::from_secs(1);
                let counters = run.sim.peer.counters();
                let media = if self.media == Media::Opus { counters.audio } else { counters.video };
                check(&media.packets, &run.story_so_far());
            }
            let Some(due) = run.schedule.pop_due(due_at) else { break };
            let muted = self.mute && (mute_at..mute_end).contains(&due_at);
            // The last frame is whole: nobody can know of a lost tail.
            let last = run.schedule.next_due().is_none_or(|next| next >= end);
            let near = self.mute && (mute_at - ms(130)..mute_at).contains(&due_at);
            run.network.borrow_mut().sheltered = last || near && !self.media.numbers_frames();
            run.publish(&due, muted.then(|| due_at - mute_at));
            run.network.borrow_mut().sheltered = false;
        }
        run.finish()
    }
}
