//! A publisher against a plain str0m receiver over a deterministic network.

#![allow(clippy::unwrap_used)]

#[path = "publisher/bounds.rs"]
mod bounds;
mod common;
#[path = "publisher/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use common::*;
use stampede_core::{
    AudioOptions, BackupTrack, CreatePeerError, MediaKind, Peer, PeerEvent, PeerOptions, PeerRole,
    PeerUpdate, PublishLayer, PublishTrack, Sample, Slots, SpeakingTurns, TrackError,
};
use stampede_media::{
    AssemblerPacket, Codec, FrameAssembler, MediaClip, av1, builtin, h264, h265, vp9,
};
use str0m::change::SdpOffer;
use str0m::media::KeyframeRequestKind;
use str0m::rtp::RtpPacket;
use str0m::{Event, Rtc};

fn track(
    cid: &str,
    kind: MediaKind,
    layers: Vec<(Option<&'static str>, MediaClip)>,
) -> PublishTrack {
    let layer = |(rid, clip)| PublishLayer { rid, clip: Arc::new(clip) };
    PublishTrack {
        cid: cid.to_owned(),
        kind,
        layers: layers.into_iter().map(layer).collect(),
        start_offset: Duration::ZERO,
        speaking: None,
        audio: AudioOptions::default(),
    }
}

fn connect(tracks: Vec<PublishTrack>) -> (Sim, String) {
    connect_as(&options(), tracks)
}

fn connect_as(options: &PeerOptions, tracks: Vec<PublishTrack>) -> (Sim, String) {
    let start = Instant::now();
    let config = Rtc::builder()
        .set_extension(5, str0m::rtp::Extension::AbsoluteCaptureTime)
        .set_stats_interval(Some(Duration::from_secs(1)));
    let server = Server::new(start, config);
    let peer = Peer::publisher(start, peer_addr(), options, tracks).unwrap();
    let mut sim = Sim::new(start, peer, server);
    let text = sim.peer.create_offer(start, Slots::default(), true).unwrap();
    let offer = SdpOffer::from_sdp_string(&text).unwrap();
    let answer = sim.server.rtc.sdp_api().accept_offer(offer).unwrap();
    sim.peer.accept_answer(start, &answer.to_sdp_string(), &[]).unwrap();
    sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
    (sim, text)
}

fn packets(sim: &Sim) -> impl Iterator<Item = &RtpPacket> {
    sim.server.events.iter().filter_map(|event| match event {
        Event::RtpPacket(packet) => Some(packet),
        _ => None,
    })
}

/// Received packets by primary SSRC.
fn streams(sim: &Sim) -> BTreeMap<u32, Vec<&RtpPacket>> {
    let mut streams: BTreeMap<u32, Vec<&RtpPacket>> = BTreeMap::new();
    for packet in packets(sim) {
        streams.entry(*packet.header.ssrc).or_default().push(packet);
    }
    streams
}

struct Frame {
    data: Vec<u8>,
    timestamp: u64,
    picture_id: u16,
    tl0: u8,
    keyframe: bool,
}

fn frames(packets: &[&RtpPacket]) -> Vec<Frame> {
    let mut assembler = FrameAssembler::new(Codec::Vp8).unwrap();
    let mut frames = Vec::new();
    for packet in packets {
        assembler.push(AssemblerPacket {
            sequence: *packet.seq_no,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            payload: &packet.payload,
        });
        while let Some(frame) = assembler.poll() {
            frames.push(Frame {
                data: frame.data.to_vec(),
                timestamp: frame.timestamp,
                picture_id: frame.picture_id.unwrap(),
                tl0: frame.tl0_pic_idx.unwrap(),
                keyframe: frame.keyframe,
            });
        }
    }
    frames
}

fn assert_continuous(frames: &[Frame], step: u64) {
    for pair in frames.windows(2) {
        assert_eq!((pair[0].picture_id + 1) & 0x7fff, pair[1].picture_id);
        assert_eq!(pair[0].tl0.wrapping_add(1), pair[1].tl0);
        assert_eq!(pair[0].timestamp + step, pair[1].timestamp);
    }
}

/// Which frame of a [`vp8_clip`] this is.
fn index_of(frame: &Frame) -> usize {
    u32::from_be_bytes(frame.data[10..14].try_into().unwrap()) as usize
}

#[test]
fn frames_arrive_bit_identical_and_continuous_over_laps() {
    let clip = vp8_clip(45, 30, 15, |frame| 1 + frame % 5);
    let (mut sim, _) = connect(vec![track("cam", MediaKind::Video, vec![(None, clip)])]);
    sim.run(Duration::from_secs(5));
    let streams = streams(&sim);
    assert_eq!(streams.len(), 1);
    let frames = frames(streams.values().next().unwrap());
    assert!(frames.len() >= 148, "{}", frames.len());
    assert_continuous(&frames, 3_000);
    for (number, frame) in frames.iter().enumerate() {
        let index = number % 45;
        assert_eq!(frame.data, frame_data(index, index % 15 == 0, (1 + index % 5) * 100));
    }
    let publish = sim.peer.counters().publish;
    assert_eq!(publish.tracks, 1);
    assert!(publish.frames_sent >= 148 && publish.keyframes_sent >= 9);
    assert_eq!((publish.late_packets, publish.retransmitted), (0, 0));
    let capture = packets(&sim).find_map(|packet| packet.header.ext_vals.abs_capture_time).unwrap();
    let unix = capture.capture_time.duration_since(std::time::UNIX_EPOCH).unwrap();
    let since = unix.checked_sub(Duration::from_nanos(UNIX_BASE_NS)).unwrap();
    assert!(since < Duration::from_secs(2), "{since:?}");
}

#[test]
fn the_offer_is_what_livekit_wants() {
    let layers = ["q", "h", "f"].map(|rid| (Some(rid), vp8_clip(30, 15, 30, |_| 1)));
    let audio = track("mic-1", MediaKind::Audio, vec![(None, opus_clip(50))]);
    let (_, offer) = connect(vec![audio, track("cam-1", MediaKind::Video, layers.into())]);
    let has = |line: &str| offer.lines().any(|candidate| candidate.trim_end() == line);
    assert!(has("a=msid:stampede cam-1") && has("a=msid:stampede mic-1"), "{offer}");
    assert!(has("a=simulcast:send q;h;f"), "{offer}");
    assert!(has("a=rid:q send") && has("a=rid:h send") && has("a=rid:f send"));
    assert!(has("a=sendonly") && !has("a=sendrecv"));
    assert!(offer.contains("VP8/90000") && offer.contains("opus/48000/2"));
    for other in ["VP9/90000", "H264/90000", "AV1/90000", "usedtx", "red/48000"] {
        assert!(!offer.contains(other), "{other}");
    }
    assert!(offer.contains("127.0.0.1 40001 typ host"));
}

#[test]
fn simulcast_layers_are_aligned_and_a_pli_jumps_them_together() {
    let layers = ["q", "h", "f"].into_iter().zip([1, 2, 3]);
    // 10 s between keyframes: a PLI has to jump.
    let layers = layers.map(|(rid, size)| (Some(rid), vp8_clip(300, 15, 150, move |_| size)));
    let (mut sim, _) = connect(vec![track("cam", MediaKind::Video, layers.collect())]);
    sim.run(Duration::from_secs(2));
    let by_layer: Vec<_> = streams(&sim).into_iter().map(|(ssrc, p)| (ssrc, p.len())).collect();
    assert_eq!(by_layer.len(), 3);
    let (middle, _) =
        by_layer.iter().copied().find(|&(_, packets)| packets > 40 && packets < 75).unwrap();
    let asked = sim.now;
    sim.server_writes(|rtc| {
        let mut direct = rtc.direct_api();
        direct.stream_rx(&middle.into()).unwrap().request_keyframe(KeyframeRequestKind::Pli);
    });
    sim.run(Duration::from_secs(2));
    for packets in streams(&sim).values() {
        let frames = frames(packets);
        assert!(frames.len() >= 58, "{}", frames.len());
        assert_continuous(&frames, 6_000);
        let keys: Vec<_> = frames.iter().enumerate().filter(|(_, f)| f.keyframe).collect();
        assert_eq!(keys.len(), 2);
        let (at, jumped) = keys[1];
        assert_eq!((index_of(keys[0].1), index_of(jumped)), (0, 150));
        // PLI 10 ms up, at most a frame interval to wait, 10 ms down.
        let first = packets.iter().find(|p| p.header.timestamp == jumped.timestamp as u32).unwrap();
        assert!(first.timestamp - asked < ms(10 + 67 + 11), "frame {at}");
    }
    let publish = sim.peer.counters().publish;
    assert_eq!((publish.pli_received, publish.keyframe_jumps), (1, 1));
}

#[test]
fn lost_packets_are_retransmitted_and_counted() {
    let clip = vp8_clip(300, 30, 300, |_| 4);
    let (mut sim, _) = connect(vec![track("cam", MediaKind::Video, vec![(None, clip)])]);
    let mut rng = Rng::new(3);
    let mut packets_seen = 0;
    sim.run(ms(500));
    sim.fate_up = Box::new(move |bytes| {
        let is_rtp = rtp(bytes).is_some();
        packets_seen += u64::from(is_rtp);
        if is_rtp && packets_seen < 500 && rng.chance(50) {
            Fate::Drop
        } else {
            Fate::Deliver(ms(0))
        }
    });
    sim.run(Duration::from_secs(8));
    let publish = sim.peer.counters().publish;
    assert!(publish.retransmitted >= 15, "{publish:?}");
    assert!(publish.nack_received > 0);
    assert!(publish.upstream_expected.is_some_and(|expected| expected > 700), "{publish:?}");
    let streams = streams(&sim);
    let mut all = streams.values().next().unwrap().clone();
    all.sort_by_key(|packet| packet.seq_no);
    let frames = frames(&all);
    assert_continuous(&frames, 3_000);
    assert!(frames.len() >= 250);
}

#[test]
fn a_starved_publisher_sends_everything_late_in_bounded_bursts() {
    let clip = vp8_clip(300, 30, 300, |_| 4);
    let (mut sim, _) = connect(vec![track("cam", MediaKind::Video, vec![(None, clip)])]);
    sim.run(ms(100));
    let before = sim.peer.counters().publish;
    let starved = sim.now + Duration::from_secs(4);
    let wake = sim.peer.drain(starved, &mut sim.sink);
    let burst = sim.peer.counters().publish.packets_sent - before.packets_sent;
    assert!((256..260).contains(&burst), "{burst}");
    assert!(wake <= starved, "more is due at once");
    while sim.peer.drain(starved, &mut sim.sink) <= starved {}
    let after = sim.peer.counters().publish;
    assert!((470..=490).contains(&(after.packets_sent - before.packets_sent)), "{after:?}");
    assert!(after.late_packets >= 460);
    assert!(after.lateness_max_s.0 > Duration::from_millis(3_800));
    let packets = sim.sink.samples.iter().map(|sample| match sample {
        Sample::Published { packets, .. } => *packets,
        _ => 0,
    });
    assert_eq!(packets.sum::<u64>(), after.packets_sent);
}

#[test]
fn audio_carries_its_level() {
    let audio = track("mic", MediaKind::Audio, vec![(None, opus_clip(50))]);
    let (mut sim, _) = connect(vec![audio]);
    sim.run(Duration::from_secs(2));
    let received: Vec<_> = packets(&sim).collect();
    assert!(received.len() > 95);
    for (number, packet) in received.iter().enumerate() {
        assert_eq!(packet.payload[1], (number % 50) as u8);
        assert_eq!(packet.header.ext_vals.audio_level, Some(-20));
        assert_eq!(packet.header.ext_vals.voice_activity, Some(true));
    }
}

#[test]
fn tracks_that_cannot_be_sent_are_refused_before_anything_is_made() {
    let refuse =
        |tracks| Peer::publisher(Instant::now(), peer_addr(), &options(), tracks).unwrap_err();
    assert!(matches!(refuse(vec![]), CreatePeerError::NoTracks));
    let cases = [
        (track("a b", MediaKind::Video, vec![(None, vp8_clip(1, 30, 1, |_| 1))]), "Cid"),
        (track("a", MediaKind::Video, vec![]), "Layers"),
        (track("a", MediaKind::Video, vec![(Some("q"), vp8_clip(1, 30, 1, |_| 1))]), "Layers"),
        (track("a", MediaKind::Audio, vec![(None, vp8_clip(1, 30, 1, |_| 1))]), "Codec"),
        (track("a", MediaKind::Video, vec![(None, vp8_clip(0, 30, 1, |_| 1))]), "Empty"),
    ];
    for (track, wanted) in cases {
        let CreatePeerError::Track { source, .. } = refuse(vec![track]) else { panic!("{wanted}") };
        assert!(format!("{source:?}").starts_with(wanted), "{source:?}");
        let _: TrackError = source;
    }
}

#[test]
fn closing_says_good_bye() {
    let clip = vp8_clip(30, 30, 30, |_| 1);
    let (mut sim, _) = connect(vec![track("cam", MediaKind::Video, vec![(None, clip)])]);
    sim.run(Duration::from_secs(1));
    sim.peer.close(sim.now, &mut sim.sink);
    assert!(!sim.peer.is_alive());
    sim.run(Duration::from_secs(1));
    assert!(sim.server.events.iter().any(|event| matches!(event, Event::Closed)));
    let report = sim.peer.final_report(sim.now);
    assert_eq!(report.published.len(), 1);
    assert!(report.published[0].counters.packets_sent >= 29);
    assert_eq!(report.published[0].cid, "cam");
}

#[test]
fn speakers_are_loud_in_their_turns_and_silent_otherwise() {
    let levels = |speaking| {
        let mut mic = track("mic", MediaKind::Audio, vec![(None, opus_clip(50))]);
        mic.speaking = speaking;
        let (mut sim, _) = connect(vec![mic]);
        sim.run(Duration::from_secs(13));
        let levels: Vec<_> =
            packets(&sim).filter_map(|packet| packet.header.ext_vals.audio_level).collect();
        assert!(levels.len() > 600, "{}", levels.len());
        levels
    };
    assert!(levels(None).iter().all(|level| *level == -20));
    let alone = levels(Some(SpeakingTurns { speaker: 0, speakers: 1, seed: 7 }));
    // A turn of five seconds in six.
    let loud = alone.iter().filter(|level| **level == -20).count() as f64 / alone.len() as f64;
    assert!((0.70..0.95).contains(&loud), "{loud}");
    assert!(alone.iter().all(|level| [-20, -127].contains(level)));
}

/// Audio packets that a server gets which enables RED and answers as `amended`, by payload type; in
/// the last five of six seconds nobody speaks.
fn audio_sent(audio: AudioOptions, amended: fn(&str) -> String) -> (Vec<(u8, usize)>, u64) {
    let start = Instant::now();
    let mut mic = track("mic", MediaKind::Audio, vec![(None, opus_clip(50))]);
    mic.audio = audio;
    // Of so many speakers it is hardly ever this one.
    mic.speaking = Some(SpeakingTurns { speaker: 0, speakers: u32::MAX, seed: 7 });
    let config = Rtc::builder().clear_codecs().enable_opus(true, true);
    let peer = Peer::publisher(start, peer_addr(), &options(), vec![mic]).unwrap();
    let mut sim = Sim::new(start, peer, Server::new(start, config));
    let offer = sim.peer.create_offer(start, Slots::default(), true).unwrap();
    assert_eq!(offer.contains("red/48000/2"), audio.red, "{offer}");
    let offer = SdpOffer::from_sdp_string(&offer).unwrap();
    let answer = sim.server.rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string();
    sim.peer.accept_answer(start, &amended(&answer), &[]).unwrap();
    sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
    sim.run(Duration::from_secs(5));
    let sequences: Vec<u64> = packets(&sim).map(|packet| *packet.seq_no).collect();
    assert!(sequences.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no number is left out");
    let of = |packet: &RtpPacket| {
        let red = stampede_media::Red::parse(&packet.payload);
        let redundant = red.map_or(0, |red| red.redundant().count());
        (*packet.header.payload_type, redundant)
    };
    let silent = sim.peer.counters().publish.frames_silent;
    (packets(&sim).map(of).collect(), silent)
}

#[test]
fn audio_is_sent_as_the_answer_has_it() {
    let both = AudioOptions { red: true, dtx: true };
    let red_of = |packets: &[(u8, usize)]| packets.iter().filter(|(pt, _)| *pt == 63).count();
    // str0m prefers RED, and says nothing of DTX.
    let (packets, silent) = audio_sent(both, str::to_owned);
    assert!(packets.len() > 240 && red_of(&packets) == packets.len(), "{packets:?}");
    assert!(packets[1..].iter().all(|(_, redundant)| *redundant == 1));
    assert_eq!(silent, 0);
    let dtx = |answer: &str| answer.replace("useinbandfec=1", "useinbandfec=1;usedtx=1");
    let (packets, silent) = audio_sent(both, dtx);
    assert_eq!(red_of(&packets), packets.len());
    // 200 ms, and then two packets each 420 ms.
    assert!((30..40).contains(&packets.len()) && silent > 200, "{} {silent}", packets.len());
    let behind = |answer: &str| answer.replace("SAVPF 63 111", "SAVPF 111 63");
    assert_eq!(red_of(&audio_sent(both, behind).0), 0, "Opus is preferred");
    let (packets, silent) = audio_sent(AudioOptions::default(), dtx);
    assert_eq!((red_of(&packets), silent), (0, 0), "not asked for");
}

/// Frames as str0m's own depacketiser puts them together, of a publisher of this clip.
fn depacketised(clip: &MediaClip, duration: Duration) -> Vec<str0m::media::MediaData> {
    let start = Instant::now();
    let peer = Peer::publisher(
        start,
        peer_addr(),
        &options(),
        vec![track("cam", MediaKind::Video, vec![(None, clip.clone())])],
    );
    let server = Server::in_frames(start, Rtc::builder());
    let mut sim = Sim::new(start, peer.unwrap(), server);
    let offer =
        SdpOffer::from_sdp_string(&sim.peer.create_offer(start, Slots::default(), true).unwrap())
            .unwrap();
    let answer = sim.server.rtc.sdp_api().accept_offer(offer).unwrap();
    sim.peer.accept_answer(start, &answer.to_sdp_string(), &[]).unwrap();
    sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
    sim.run(duration);
    let events = sim.server.events.drain(..);
    let data = events.filter_map(|event| match event {
        Event::MediaData(data) => Some(data),
        _ => None,
    });
    data.collect()
}

/// The built-in clip of 360p.
fn middle(codec: Codec) -> MediaClip {
    builtin::video(codec).unwrap().into_iter().find(|clip| clip.height == 360).unwrap()
}

#[test]
fn another_depacketiser_gets_every_codecs_frames() {
    for codec in [Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1] {
        let clip = &middle(codec);
        // Longer than a lap: picture ids go on, timestamps too.
        let data = depacketised(clip, Duration::from_millis(5_000));
        assert!((120..=127).contains(&data.len()), "{codec}: {} frames", data.len());
        for pair in data.windows(2) {
            assert_eq!(pair[0].time.numer() + 3_600, pair[1].time.numer(), "{codec}");
            assert!(pair[1].contiguous, "{codec}");
        }
        for (number, frame) in data.iter().enumerate() {
            let source = &clip.frames[number % clip.frames.len()];
            let payloads = source.packets.iter();
            let mut expected = Vec::new();
            match codec {
                Codec::Vp9 => payloads.for_each(|payload| expected.extend(&payload[5..])),
                Codec::H264 => payloads
                    .for_each(|payload| h264::append_annex_b(payload, &mut expected).unwrap()),
                Codec::H265 => payloads
                    .for_each(|payload| h265::append_annex_b(payload, &mut expected).unwrap()),
                _ => {
                    expected = av1::assemble(payloads.map(|payload| &payload[..])).unwrap();
                    // str0m leaves the temporal delimiter out.
                    expected.drain(..2);
                }
            }
            assert!(frame.data[..] == expected, "{codec}: frame {number}");
        }
    }
}

#[test]
fn each_codec_is_the_only_one_offered() {
    for (codec, line) in [
        (Codec::Vp9, "VP9/90000"),
        (Codec::H264, "H264/90000"),
        (Codec::H265, "H265/90000"),
        (Codec::Av1, "AV1/90000"),
    ] {
        let clip = middle(codec);
        let (sim, offer) = connect(vec![track("cam", MediaKind::Video, vec![(None, clip)])]);
        assert!(offer.contains(line), "{offer}");
        let rtpmaps: Vec<_> = offer.lines().filter(|line| line.starts_with("a=rtpmap")).collect();
        assert_eq!(rtpmaps.len(), 2, "{codec} and its RTX: {rtpmaps:?}");
        assert_eq!(offer.contains("42e01f"), codec == Codec::H264, "{offer}");
        // Level 2.1, as the file says.
        let told = "profile-id=1;tier-flag=0;level-id=63";
        assert_eq!(offer.contains(told), codec == Codec::H265, "{offer}");
        assert!(!offer.contains("dependency-descriptor"), "{offer}");
        drop(sim);
    }
    let tracks = [Codec::Vp9, Codec::Av1]
        .map(|codec| track(&codec.to_string(), MediaKind::Video, vec![(None, middle(codec))]));
    // Who sends several offers all of them on each m-line, and each track has its own.
    let (mut sim, offer) = connect(tracks.into());
    for line in ["VP9/90000", "AV1/90000"] {
        assert_eq!(offer.matches(line).count(), 2, "{offer}");
    }
    sim.run(Duration::from_secs(1));
    let types: std::collections::BTreeSet<_> =
        packets(&sim).map(|packet| *packet.header.payload_type).collect();
    assert_eq!(types.into_iter().collect::<Vec<u8>>(), [45, 98]);
}

/// livekit-server goes by the first format of an m-line, whatever was announced.
#[test]
fn audio_without_redundancy_is_offered_as_opus_first() {
    let audio = |cid: &str, red| PublishTrack {
        audio: AudioOptions { red, dtx: false },
        ..track(cid, MediaKind::Audio, vec![(None, builtin::audio().unwrap())])
    };
    let (_, offer) = connect(vec![audio("voice", true), audio("sound", false)]);
    let lines: Vec<_> = offer.lines().filter(|line| line.starts_with("m=audio")).collect();
    let ends: Vec<_> = lines.iter().map(|line| line.split_once("SAVPF ").unwrap().1).collect();
    assert_eq!(ends, ["63 111", "111 63"]);
}

/// livekit-server goes by the SID, not by the stream that a packet came in.
#[test]
fn each_stream_of_simulcast_vp9_names_its_layer() {
    let clips = builtin::video(Codec::Vp9).unwrap();
    let layers = [Some("q"), Some("h"), Some("f")].into_iter().zip(clips).collect();
    let (mut sim, _) = connect(vec![track("cam", MediaKind::Video, layers)]);
    sim.run(Duration::from_secs(1));
    let mut seen = BTreeMap::new();
    for (ssrc, packets) in streams(&sim) {
        let first =
            packets.iter().filter_map(|packet| vp9::Descriptor::parse(&packet.payload).ok());
        let ids: std::collections::BTreeSet<_> = first.map(|it| it.spatial_id.unwrap()).collect();
        let keyframe = packets.iter().find_map(|packet| {
            let descriptor = vp9::Descriptor::parse(&packet.payload).ok()?;
            let frame = descriptor.starts_keyframe().then(|| &packet.payload[descriptor.len..])?;
            vp9::frame_header(frame).ok()?.size
        });
        assert_eq!(ids.len(), 1, "{ssrc}: {ids:?}");
        seen.insert(keyframe.unwrap().1, ids.into_iter().next().unwrap());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(180, 0), (360, 1), (720, 2)]);
}

/// The server answers an offer of the peer's.
fn answer(sim: &mut Sim, offer: &str) {
    let offer = SdpOffer::from_sdp_string(offer).unwrap();
    let answer = sim.server.rtc.sdp_api().accept_offer(offer).unwrap();
    sim.peer.accept_answer(sim.now, &answer.to_sdp_string(), &[]).unwrap();
}

/// A backup is no m-line before it is wanted, and then one more, beside what is sent already.
#[test]
fn a_backup_is_offered_and_sent_once_it_is_wanted() {
    let start = Instant::now();
    let server = Server::new(start, Rtc::builder());
    let backup = track("cam-backup", MediaKind::Video, vec![(None, middle(Codec::Vp8))]);
    let role = PeerRole {
        tracks: vec![track("cam", MediaKind::Video, vec![(None, middle(Codec::Vp9))])],
        backups: vec![BackupTrack { of: "cam".to_owned(), track: backup }],
        ..PeerRole::default()
    };
    let peer = Peer::with_role(start, peer_addr(), &options(), role).unwrap();
    let mut sim = Sim::new(start, peer, server);
    let first = sim.peer.create_offer(start, Slots::default(), true).unwrap();
    assert_eq!(first.matches("m=video").count(), 1, "{first}");
    answer(&mut sim, &first);
    sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
    sim.run(ms(500));
    assert_eq!((streams(&sim).len(), sim.peer.counters().publish.tracks), (1, 1));
    sim.peer.update(PeerUpdate::BackupWanted { cid: "cam-backup".to_owned() });
    let now = sim.now;
    let second = sim.peer.create_offer(now, Slots::default(), true).unwrap();
    assert_eq!(second.matches("m=video").count(), 2, "{second}");
    answer(&mut sim, &second);
    sim.run(Duration::from_secs(1));
    let sent: BTreeMap<u8, usize> = packets(&sim).fold(BTreeMap::new(), |mut sent, packet| {
        *sent.entry(*packet.header.payload_type).or_default() += 1;
        sent
    });
    let types: Vec<_> = sent.keys().copied().collect();
    assert_eq!(types, [96, 98], "{sent:?}");
    assert_eq!(sim.peer.counters().publish.tracks, 2);
    // Nobody wants the track itself any more.
    let (wanted, backup) = ([false; 3], [true; 3]);
    let cid = "cam".to_owned();
    sim.peer.update(PeerUpdate::LayersWanted { cid, wanted, backup, obey: true });
    sim.server.events.clear();
    sim.run(Duration::from_secs(1));
    let types: std::collections::BTreeSet<u8> =
        packets(&sim).map(|packet| *packet.header.payload_type).collect();
    assert_eq!(types.into_iter().collect::<Vec<_>>(), [96]);
    // A track that is muted is so in both.
    for (muted, is_sent) in [(true, false), (false, true)] {
        sim.peer.update(PeerUpdate::PublishMuted { cid: "cam".to_owned(), muted });
        sim.run(ms(200));
        sim.server.events.clear();
        sim.run(Duration::from_secs(1));
        assert_eq!(packets(&sim).next().is_some(), is_sent, "muted: {muted}");
    }
}

/// The server may say what it wants and then not take it: the track itself goes on.
#[test]
fn a_backup_that_the_answer_refuses_is_told_and_left_out() {
    let start = Instant::now();
    let server = Server::new(start, Rtc::builder());
    let backup = track("cam-backup", MediaKind::Video, vec![(None, middle(Codec::Vp8))]);
    let role = PeerRole {
        tracks: vec![track("cam", MediaKind::Video, vec![(None, middle(Codec::Vp9))])],
        backups: vec![BackupTrack { of: "cam".to_owned(), track: backup }],
        ..PeerRole::default()
    };
    let peer = Peer::with_role(start, peer_addr(), &options(), role).unwrap();
    let mut sim = Sim::new(start, peer, server);
    let first = sim.peer.create_offer(start, Slots::default(), true).unwrap();
    answer(&mut sim, &first);
    sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
    sim.peer.update(PeerUpdate::BackupWanted { cid: "cam-backup".to_owned() });
    let now = sim.now;
    let second = sim.peer.create_offer(now, Slots::default(), true).unwrap();
    let second = SdpOffer::from_sdp_string(&second).unwrap();
    let agreed = sim.server.rtc.sdp_api().accept_offer(second).unwrap().to_sdp_string();
    let last = agreed.rfind("a=recvonly").unwrap();
    let refused =
        format!("{}{}", &agreed[..last], agreed[last..].replacen("recvonly", "inactive", 1));
    sim.peer.accept_answer(now, &refused, &[]).unwrap();
    let is_told = |event: &PeerEvent| matches!(event, PeerEvent::BackupRefused { cid, .. } if **cid == *"cam-backup");
    sim.run_until_event(Duration::from_secs(1), is_told);
    sim.server.events.clear();
    sim.run(Duration::from_secs(1));
    let types: std::collections::BTreeSet<u8> =
        packets(&sim).map(|packet| *packet.header.payload_type).collect();
    assert_eq!(types.into_iter().collect::<Vec<_>>(), [98]);
    assert_eq!(sim.peer.counters().publish.tracks, 1);
}

#[test]
fn what_was_lost_before_an_ice_restart_is_retransmitted_after_it() {
    let clip = vp8_clip(300, 30, 300, |_| 4);
    let (mut sim, _) = connect(vec![track("cam", MediaKind::Video, vec![(None, clip)])]);
    sim.run(Duration::from_secs(1));
    let is_rtp = |bytes: &[u8]| rtp(bytes).is_some();
    sim.fate_up = Box::new(move |bytes| match is_rtp(bytes) {
        true => Fate::Drop,
        false => Fate::Deliver(ms(0)),
    });
    sim.run(ms(100));
    sim.fate_up = Box::new(|_| Fate::Deliver(ms(0)));
    let now = sim.now;
    let offer = sim.peer.restart_ice(now).unwrap();
    answer(&mut sim, &offer);
    sim.run(Duration::from_secs(3));
    let streams = streams(&sim);
    let mut all = streams.values().next().unwrap().clone();
    all.sort_by_key(|packet| packet.seq_no);
    let frames = frames(&all);
    assert_continuous(&frames, 3_000);
    assert!(frames.len() >= 110, "{}", frames.len());
    assert!(sim.peer.counters().publish.retransmitted >= 8);
}

#[test]
fn an_ice_restart_before_the_first_answer_offers_the_tracks_again() {
    let start = Instant::now();
    let server = Server::new(start, Rtc::builder());
    let clip = vp8_clip(30, 30, 30, |_| 1);
    let tracks = vec![track("cam", MediaKind::Video, vec![(None, clip)])];
    let peer = Peer::publisher(start, peer_addr(), &options(), tracks).unwrap();
    let mut sim = Sim::new(start, peer, server);
    sim.peer.create_offer(start, Slots::default(), true).unwrap();
    let offer = sim.peer.restart_ice(start).unwrap();
    assert_eq!(offer.matches("m=video").count(), 1, "{offer}");
    answer(&mut sim, &offer);
    sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
    sim.run(Duration::from_secs(1));
    assert!(packets(&sim).count() >= 29);
}
