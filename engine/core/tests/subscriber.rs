//! A subscriber against a plain str0m server over a deterministic network.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::*;
use stampede_core::{Codec, MediaKind, PacketCounters, PeerEvent, Scratch, StreamReport};
use stampede_media::MediaClip;
use str0m::change::SdpAnswer;
use str0m::media::{self, Direction, Mid, Pt};
use str0m::rtp::rtcp::Rtcp;
use str0m::rtp::{RtpWrite, Ssrc};

/// A connected pair: the server sends one video and one audio track.
struct Pair {
    sim: Sim,
    video: Ssrc,
    rtx: Ssrc,
    audio: Ssrc,
    video_pt: Pt,
    audio_pt: Pt,
    video_mid: Mid,
}

fn connect(recording: bool) -> Pair {
    let mut sim = Sim::subscriber(recording);
    let start = sim.start;
    let mut changes = sim.server.rtc.sdp_api();
    let mut add = |kind, track: &str| {
        let stream = Some(format!("PA_x|{track}"));
        changes.add_media(kind, Direction::SendOnly, stream, Some(track.to_owned()), None)
    };
    let audio_mid = add(media::MediaKind::Audio, "TR_audio");
    let video_mid = add(media::MediaKind::Video, "TR_video");
    let (offer, pending) = changes.apply().unwrap();
    let mids = [(video_mid.to_string(), "TR_mapped".to_owned())];
    // As LiveKit's; else each NACK would have a report in front.
    let offer = offer.to_sdp_string().replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=rtcp-rsize\r\n");
    let answer = sim.peer.accept_offer(start, &offer, &mids).unwrap();
    let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
    sim.server.rtc.sdp_api().accept_answer(pending, answer).unwrap();
    sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
    sim.run(ms(100));

    let pt = |codec| {
        let params = sim.server.rtc.codec_config().params().iter();
        params.filter(|p| p.spec().codec == codec).map(|p| p.pt()).next().unwrap()
    };
    let (video_pt, audio_pt) = (pt(str0m::format::Codec::Vp8), pt(str0m::format::Codec::Opus));
    let mut direct = sim.server.rtc.direct_api();
    let stream = direct.stream_tx_by_mid(video_mid, None).unwrap();
    stream.set_rtx_cache(2_000, Duration::from_secs(5), None);
    let (video, rtx) = (stream.ssrc(), stream.rtx().unwrap());
    let audio = direct.stream_tx_by_mid(audio_mid, None).unwrap().ssrc();
    sim.server.rtx_ssrcs = vec![*rtx];
    Pair { sim, video, rtx, audio, video_pt, audio_pt, video_mid }
}

impl Pair {
    /// Sends a clip once, in real time, from this sequence number on; returns the next one.
    fn send(&mut self, clip: &MediaClip, ssrc: Ssrc, pt: Pt, mut sequence: u64) -> u64 {
        let begin = self.sim.now;
        for frame in &clip.frames {
            let us = frame.timestamp_ticks * 1_000_000 / u64::from(clip.clock_rate);
            self.sim.run_until(begin + Duration::from_micros(us));
            let now = self.sim.now;
            let last = frame.packets.len() - 1;
            let video = clip.codec == Codec::Vp8;
            self.sim.server_writes(|rtc| {
                let mut direct = rtc.direct_api();
                let stream = direct.stream_tx(&ssrc).unwrap();
                for (index, payload) in frame.packets.iter().enumerate() {
                    let timestamp = (frame.timestamp_ticks as u32).wrapping_sub(90_000);
                    let rtp = RtpWrite::new(pt, sequence.into(), timestamp, now, payload.clone())
                        .marker(video && index == last)
                        .nackable(video);
                    stream.write_rtp(rtp);
                    sequence += 1;
                }
            });
        }
        sequence
    }
}

fn of(reports: &[StreamReport], kind: MediaKind) -> &StreamReport {
    reports.iter().find(|report| report.kind == kind && !report.closed).unwrap()
}

/// The plainest ledger there is, from everything that reached the peer.
fn replay(pair: &Pair, deadline: Duration) -> PacketCounters {
    let mut expected = PacketCounters::default();
    let mut passed: HashMap<u64, Instant> = HashMap::new();
    let mut seen: Vec<u64> = Vec::new();
    let (mut first, mut highest) = (u64::MAX, 0_u64);
    for delivered in &pair.sim.delivered {
        let Some((ssrc, own)) = rtp(&delivered.bytes) else { continue };
        let via_rtx = ssrc == *pair.rtx;
        if ssrc != *pair.video && !via_rtx {
            continue;
        }
        let original = if via_rtx { pair.sim.server.originals[&(ssrc, own)] } else { own };
        // Test streams stay within one lap of where they began.
        let base = if highest == 0 { 1 << 16 } else { highest };
        let near = (base & !0xffff) | u64::from(original);
        let sequence = [near.saturating_sub(1 << 16), near, near + (1 << 16)]
            .into_iter()
            .min_by_key(|candidate| candidate.abs_diff(base))
            .unwrap();
        if seen.contains(&sequence) {
            if via_rtx {
                expected.rtx_redundant += 1;
            } else {
                expected.duplicate += 1;
            }
            continue;
        }
        seen.push(sequence);
        expected.received += 1;
        if highest == 0 {
            (first, highest) = (sequence, sequence);
            continue;
        }
        for skipped in highest + 1..sequence {
            passed.insert(skipped, delivered.at);
            expected.missing += 1;
        }
        if sequence < highest {
            assert!(sequence > first, "the tests don't reorder the first packet");
            let in_time = delivered.at <= passed[&sequence] + deadline;
            expected.repaired += u64::from(in_time);
            expected.late += u64::from(!in_time);
            expected.reordered += u64::from(!via_rtx);
            expected.rtx_repairs += u64::from(via_rtx);
        } else if via_rtx {
            expected.missing += 1;
            expected.repaired += 1;
            expected.rtx_repairs += 1;
        }
        highest = highest.max(sequence);
    }
    expected.expected = highest + 1 - first;
    expected.unrecovered = expected.missing - expected.repaired;
    expected
}

fn without_bytes(counters: PacketCounters) -> PacketCounters {
    PacketCounters { bytes: 0, ..counters }
}

#[test]
fn connects_receives_and_counts_a_clean_run() {
    let mut pair = connect(true);
    // Video last: a picture that stands while audio comes would be a freeze.
    let audio = opus_clip(50);
    pair.send(&audio, pair.audio, pair.audio_pt, 700);
    let clip = vp8_clip(90, 30, 30, |frame| 1 + frame % 7);
    pair.send(&clip, pair.video, pair.video_pt, 65_500);
    let reports = pair.sim.finish();

    let video = of(&reports, MediaKind::Video);
    assert_eq!(video.codec, Some(Codec::Vp8));
    assert_eq!(video.track_id.as_deref(), Some("TR_mapped"));
    assert_eq!(video.packets.expected, clip.packet_count());
    assert_eq!(video.packets.received, clip.packet_count());
    assert_eq!(video.packets.bytes, clip.payload_bytes());
    assert_eq!((video.packets.missing, video.packets.duplicate), (0, 0));
    let frames = video.frames;
    assert_eq!((frames.received, frames.complete), (90, 90));
    assert_eq!((frames.decodable, frames.dropped, frames.keyframes), (Some(90), Some(0), 3));
    assert_eq!(video.freezes.count, 0);
    assert_eq!((video.feedback.nack_sent, video.feedback.pli_sent), (0, 0));
    // The test sends on whole microseconds.
    assert!(video.jitter.unwrap() < Duration::from_micros(1));

    let audio_report = of(&reports, MediaKind::Audio);
    assert_eq!(audio_report.codec, Some(Codec::Opus));
    assert_eq!(audio_report.track_id.as_deref(), Some("TR_audio"));
    assert_eq!(audio_report.packets.received, 50);
    assert_eq!(audio_report.frames.decodable, Some(50));

    let kinds: Vec<_> = pair.sim.sink.events.iter().map(std::mem::discriminant).collect();
    let expected = [
        PeerEvent::IceConnected,
        PeerEvent::Connected,
        PeerEvent::FirstPacket { kind: MediaKind::Audio, at: pair.sim.arrival() },
        PeerEvent::FirstPacket { kind: MediaKind::Video, at: pair.sim.arrival() },
        PeerEvent::FirstKeyframe { at: pair.sim.arrival() },
    ];
    assert_eq!(kinds, expected.iter().map(std::mem::discriminant).collect::<Vec<_>>());

    let recorded = &pair.sim.sink.recorded;
    let video: Vec<_> = recorded.iter().filter(|(s, _)| s.kind == MediaKind::Video).collect();
    assert_eq!(video.len(), 90);
    for (index, (_, frame)) in video.iter().enumerate() {
        let bytes = (1 + index % 7) * 100;
        assert_eq!(frame.data, frame_data(index, index % 30 == 0, bytes), "frame {index}");
    }
    assert_eq!(recorded.len(), 90 + 50);
}

#[test]
fn random_faults_are_counted_packet_for_packet() {
    for seed in 1..=6_u64 {
        let mut pair = connect(true);
        let (video, rtx) = (*pair.video, *pair.rtx);
        let mut rng = Rng::new(seed);
        let mut count = 0;
        pair.sim.fate = Box::new(move |bytes| {
            let Some((ssrc, _)) = rtp(bytes) else { return Fate::Deliver(ms(0)) };
            if ssrc == rtx {
                return if rng.chance(200) { Fate::Drop } else { Fate::Deliver(ms(rng.below(5))) };
            }
            count += 1;
            if ssrc != video || count < 10 {
                return Fate::Deliver(ms(0));
            }
            match rng.below(1_000) {
                0..50 => Fate::Drop,
                50..80 => Fate::Twice(ms(0), ms(rng.below(60))),
                80..110 => Fate::Deliver(ms(rng.below(120))),
                110..120 => Fate::Deliver(ms(490 + rng.below(400))),
                _ => Fate::Deliver(ms(0)),
            }
        });
        let clip = vp8_clip(300, 30, 60, |frame| 1 + (frame * 7) % 11);
        pair.send(&clip, pair.video, pair.video_pt, 65_000);
        let reports = pair.sim.finish();
        let report = of(&reports, MediaKind::Video);
        let expected = replay(&pair, options().playout_deadline);
        assert!(expected.missing > 50 && expected.duplicate > 20, "{expected:?}");
        assert_eq!(without_bytes(report.packets), expected, "seed {seed}");
        assert!(report.feedback.nack_sent > 0);
        assert_eq!(
            report.frames.received,
            report.frames.complete + {
                let frames = report.frames;
                frames.received - frames.complete
            }
        );
    }
}

#[test]
fn copies_that_are_not_authentic_are_rejected_and_in_no_figure_of_the_stream() {
    let mut pair = connect(false);
    let (video, rtx) = (*pair.video, *pair.rtx);
    let mut count = 0;
    pair.sim.fate = Box::new(move |bytes| {
        count += u64::from(rtp(bytes).is_some_and(|(ssrc, _)| ssrc == video));
        if count == 2_600 { Fate::Drop } else { Fate::Deliver(ms(0)) }
    });
    // More packets than are told from replays.
    let clip = vp8_clip(90, 30, 30, |_| 30);
    pair.send(&clip, pair.video, pair.video_pt, 1);
    pair.sim.run(ms(100));
    let of = |ssrc: u32, sim: &Sim| -> Vec<Vec<u8>> {
        let delivered = sim.delivered.iter().map(|delivered| delivered.bytes.clone());
        delivered.filter(|bytes| rtp(bytes).is_some_and(|(of, _)| of == ssrc)).collect()
    };
    let (media, repairs) = (of(video, &pair.sim), of(rtx, &pair.sim));
    let packets = [&media[0], &media[media.len() - 1], &repairs[0]];
    let counters = |sim: &Sim| (sim.peer.counters().transport.rejected, sim.peer.counters().video);
    let (rejected, before) = counters(&pair.sim);
    let hear = |sim: &mut Sim, bytes: &[u8]| {
        sim.peer.handle_datagram(sim.arrival(), server_addr(), bytes, &mut Scratch::default());
    };
    for packet in packets {
        let mut forged = packet.clone();
        *forged.last_mut().unwrap() ^= 1;
        (0..5).for_each(|_| hear(&mut pair.sim, &forged));
    }
    assert_eq!(counters(&pair.sim), (rejected + 15, before), "nothing of it is believed");
    packets.iter().for_each(|packet| hear(&mut pair.sim, packet));
    let (again, after) = counters(&pair.sim);
    assert_eq!(again, rejected + 15);
    let grown = |of: fn(&PacketCounters) -> u64| of(&after.packets) - of(&before.packets);
    let known = [grown(|p| p.stale), grown(|p| p.duplicate), grown(|p| p.rtx_redundant)];
    assert_eq!(known, [1, 1, 1], "the first, the last, and the repair");
    assert_eq!(grown(|p| p.received), 0);
}

#[test]
fn losses_with_rtx_are_all_repaired_and_the_recording_is_whole() {
    let mut pair = connect(true);
    let video = *pair.video;
    let mut rng = Rng::new(7);
    let mut dropped = 0;
    let total = std::rc::Rc::new(std::cell::Cell::new(0));
    let shared = total.clone();
    let mut count = 0;
    pair.sim.fate = Box::new(move |bytes| {
        let Some((ssrc, _)) = rtp(bytes) else { return Fate::Deliver(ms(0)) };
        count += u64::from(ssrc == video);
        // Not the last ones: nobody can know of a lost tail.
        if ssrc == video && (5..1_000).contains(&count) && rng.chance(100) {
            dropped += 1;
            shared.set(dropped);
            return Fate::Drop;
        }
        Fate::Deliver(ms(0))
    });
    let clip = vp8_clip(300, 30, 100, |_| 4);
    pair.send(&clip, pair.video, pair.video_pt, 1);
    let reports = pair.sim.finish();
    let packets = of(&reports, MediaKind::Video).packets;
    assert!(total.get() > 50);
    assert_eq!((packets.missing, packets.repaired), (total.get(), total.get()));
    assert_eq!((packets.rtx_repairs, packets.unrecovered), (total.get(), 0));
    let frames = of(&reports, MediaKind::Video).frames;
    assert_eq!((frames.complete, frames.decodable), (300, Some(300)));
    assert_eq!(pair.sim.sink.recorded.len(), 300);
    for (index, (_, frame)) in pair.sim.sink.recorded.iter().enumerate() {
        assert_eq!(frame.data, frame_data(index, index % 100 == 0, 400), "frame {index}");
    }
}

/// Found by the simulator: what comes behind its deadline ends its gap before anything gives up on it.
#[test]
fn a_repair_that_comes_too_late_does_not_stop_the_recording() {
    let mut pair = connect(true);
    let (video, rtx) = (*pair.video, *pair.rtx);
    pair.sim.fate = Box::new(move |bytes| match rtp(bytes) {
        Some((ssrc, 14)) if ssrc == video => Fate::Drop,
        // 10 ms each way are the link's: 530 ms after the gap was seen, and within the grace.
        Some((ssrc, _)) if ssrc == rtx => Fate::Deliver(ms(510)),
        _ => Fate::Deliver(ms(0)),
    });
    let clip = vp8_clip(90, 30, 30, |_| 4);
    pair.send(&clip, pair.video, pair.video_pt, 1);
    pair.sim.run(ms(100));
    let recorded: Vec<_> = pair.sim.sink.recorded.iter().map(|(_, frame)| &frame.data).collect();
    // The fourth frame is cut, and all that follow on it up to the keyframe.
    let whole: Vec<_> =
        (0..3).chain(30..90).map(|frame| frame_data(frame, frame % 30 == 0, 400)).collect();
    assert_eq!(recorded, whole.iter().collect::<Vec<_>>());
    let packets = of(&pair.sim.finish(), MediaKind::Video).packets;
    assert_eq!((packets.missing, packets.late, packets.unrecovered), (1, 1, 1));
}

#[test]
fn losses_without_rtx_break_the_chain_and_ask_for_keyframes() {
    let mut pair = connect(false);
    let (video, rtx) = (*pair.video, *pair.rtx);
    let mut count = 0;
    pair.sim.fate = Box::new(move |bytes| match rtp(bytes) {
        Some((ssrc, _)) if ssrc == rtx => Fate::Drop,
        Some((ssrc, _)) if ssrc == video => {
            count += 1;
            // Frame 40, second packet of four.
            if count == 40 * 4 + 2 { Fate::Drop } else { Fate::Deliver(ms(0)) }
        }
        _ => Fate::Deliver(ms(0)),
    });
    let clip = vp8_clip(150, 30, 100, |_| 4);
    pair.send(&clip, pair.video, pair.video_pt, 1);
    let reports = pair.sim.finish();
    let report = of(&reports, MediaKind::Video);
    assert_eq!((report.packets.missing, report.packets.unrecovered), (1, 1));
    let frames = report.frames;
    assert_eq!((frames.received, frames.complete), (150, 149));
    // 40..=99 can't be decoded.
    assert_eq!((frames.decodable, frames.dropped), (Some(90), Some(60)));
    assert_eq!(report.freezes.count, 1);
    let frozen = report.freezes.total_s.0.as_millis();
    assert!((2_030..=2_034).contains(&frozen), "61 frames of 33.3 ms: {frozen}");
    // The gap is given up after 500 ms, the next keyframe is due 1.5 s later.
    assert!((2..=4).contains(&report.feedback.pli_sent), "{}", report.feedback.pli_sent);
    let asked = pair.sim.server.events.iter();
    let asked = asked.filter(|event| matches!(event, str0m::Event::KeyframeRequest(_))).count();
    assert_eq!(asked as u64, report.feedback.pli_sent);
}

#[test]
fn joining_between_keyframes_asks_for_one_at_once() {
    let mut pair = connect(false);
    let mut clip = vp8_clip(60, 30, 50, |_| 2);
    clip.frames.drain(..10);
    pair.send(&clip, pair.video, pair.video_pt, 1);
    let reports = pair.sim.finish();
    let report = of(&reports, MediaKind::Video);
    assert_eq!(report.frames.decodable, Some(10));
    assert!((3..=5).contains(&report.feedback.pli_sent), "{}", report.feedback.pli_sent);
    let at = report.first_keyframe.unwrap().instant - report.first_packet.unwrap().instant;
    assert_eq!(at.as_millis(), 1_333);
}

#[test]
fn a_slot_taken_over_by_another_track_closes_its_stream() {
    let mut pair = connect(true);
    let clip = vp8_clip(30, 30, 30, |_| 2);
    pair.send(&clip, pair.video, pair.video_pt, 1);
    pair.sim.run(ms(200));
    // The server's next offer names another SSRC and track on the same mid, as LiveKit does.
    let now = pair.sim.now;
    let offer = reoffer(&mut pair, Direction::SendOnly);
    let (new, new_rtx) = (*pair.video ^ 0x0101_0101, *pair.rtx ^ 0x0101_0101);
    let offer = offer.replace(&pair.video.to_string(), &new.to_string());
    let offer = offer.replace(&pair.rtx.to_string(), &new_rtx.to_string());
    let offer = offer.replace("TR_video", "TR_other");
    pair.sim.peer.accept_offer(now, &offer, &[]).unwrap();
    pair.sim.server.rtc.direct_api().reset_stream_tx(
        pair.video_mid,
        None,
        new.into(),
        Some(new_rtx.into()),
    );
    pair.sim.server.rtx_ssrcs = vec![new_rtx];
    // str0m goes on finding the stream by its old SSRC.
    pair.send(&clip, pair.video, pair.video_pt, 9_000);
    let reports = pair.sim.finish();
    let videos: Vec<_> = reports.iter().filter(|r| r.kind == MediaKind::Video).collect();
    assert_eq!(videos.len(), 2);
    assert_eq!((videos[0].closed, videos[0].track_id.as_deref()), (true, Some("TR_mapped")));
    assert_eq!((videos[1].closed, videos[1].track_id.as_deref()), (false, Some("TR_other")));
    for video in videos {
        assert_eq!((video.packets.received, video.packets.expected), (60, 60));
        assert_eq!(video.frames.decodable, Some(30));
    }
    let ids: std::collections::BTreeSet<_> =
        pair.sim.sink.recorded.iter().map(|(stream, _)| stream.id).collect();
    assert_eq!((ids.len(), pair.sim.sink.recorded.len()), (2, 60));
}

/// A later offer of the server for the same m-lines.
fn reoffer(pair: &mut Pair, direction: Direction) -> String {
    let mid = pair.video_mid;
    let mut changes = pair.sim.server.rtc.sdp_api();
    changes.set_direction(mid, Direction::Inactive);
    changes.set_direction(mid, direction);
    changes.apply().unwrap().0.to_sdp_string()
}

#[test]
fn measuring_begins_from_nothing() {
    let mut pair = connect(false);
    let clip = vp8_clip(30, 30, 30, |_| 2);
    let next = pair.send(&clip, pair.video, pair.video_pt, 1);
    pair.sim.run(ms(500));
    let now = pair.sim.now;
    pair.sim.peer.begin_measuring(now);
    assert_eq!(pair.sim.peer.counters().video.packets, PacketCounters::default());
    pair.send(&clip, pair.video, pair.video_pt, next);
    let packets = of(&pair.sim.finish(), MediaKind::Video).packets;
    assert_eq!((packets.expected, packets.received, packets.missing), (60, 60, 0));
}

#[test]
fn an_idle_peer_sleeps() {
    let mut pair = connect(false);
    let clip = vp8_clip(10, 30, 30, |_| 2);
    pair.send(&clip, pair.video, pair.video_pt, 1);
    let mut now = pair.sim.now;
    let end = now + Duration::from_secs(1);
    let mut wakes = 0;
    while now < end {
        pair.sim.peer.handle_timeout(now);
        now = pair.sim.peer.drain(now, &mut pair.sim.sink).max(now);
        wakes += 1;
    }
    assert!(wakes < 20, "{wakes} in a second");
}

#[test]
fn reports_say_what_the_network_lost_and_no_index_is_sent_twice() {
    let mut pair = connect(false);
    let (video, audio) = (*pair.video, *pair.audio);
    let lost = std::rc::Rc::new(std::cell::Cell::new(0));
    let (shared, mut rng, mut count) = (lost.clone(), Rng::new(3), 0);
    pair.sim.fate = Box::new(move |bytes| {
        let Some((ssrc, _)) = rtp(bytes) else { return Fate::Deliver(ms(0)) };
        count += u64::from(ssrc == video);
        if ssrc == video && (5..1_190).contains(&count) && rng.chance(100) {
            shared.set(shared.get() + 1);
            return Fate::Drop;
        }
        Fate::Deliver(ms(0))
    });
    let indices = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let sent = indices.clone();
    pair.sim.fate_up = Box::new(move |bytes| {
        if (192..224).contains(&bytes[1]) && bytes[0] >> 6 == 2 {
            let trailer = bytes.last_chunk::<4>().unwrap();
            sent.borrow_mut().push(u32::from_be_bytes(*trailer) & 0x7fff_ffff);
        }
        Fate::Deliver(ms(0))
    });
    let clip = vp8_clip(300, 30, 100, |_| 4);
    pair.send(&clip, pair.video, pair.video_pt, 65_000);
    let voice = opus_clip(50);
    pair.send(&voice, pair.audio, pair.audio_pt, 9);
    let reports = pair.sim.finish();
    let packets = of(&reports, MediaKind::Video).packets;
    assert_eq!((packets.missing, packets.unrecovered), (lost.get(), 0), "all repaired by RTX");

    let blocks = pair.sim.server.rtcp.iter().filter_map(|rtcp| match rtcp {
        Rtcp::ReceiverReport(report) => Some(report.reports.iter()),
        _ => None,
    });
    let blocks: Vec<_> = blocks.flatten().collect();
    let of_video: Vec<_> = blocks.iter().filter(|block| *block.ssrc == video).collect();
    // Ten seconds of video, one of audio, three of silence.
    assert!((8..=18).contains(&of_video.len()), "{}", of_video.len());
    assert!(blocks.iter().any(|block| *block.ssrc == audio));
    let last = of_video.last().unwrap();
    // Repairs don't make up for what was lost on this SSRC.
    assert_eq!(u64::from(last.packets_lost), lost.get());
    assert_eq!(last.max_seq, 65_000 + 1_199);
    let mean = of_video.iter().map(|block| u64::from(block.fraction_lost)).max().unwrap();
    assert!((10..80).contains(&mean), "about a tenth, of 256: {mean}");
    assert!(of_video.iter().any(|block| block.last_sr_time != 0 && block.last_sr_delay != 0));

    let sent = indices.borrow();
    assert!(sent.len() > 20);
    assert!(sent.iter().enumerate().all(|(at, &index)| index as usize == at), "{sent:?}");
}
