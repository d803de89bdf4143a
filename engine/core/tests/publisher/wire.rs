//! What a publisher sends beside str0m is on the wire what str0m sends.

use std::collections::BTreeMap;
use std::time::Duration;

use stampede_core::{AudioOptions, MediaKind, PeerOptions, PeerUpdate, PublishTrack};
use stampede_media::{Codec, ScalabilityMode, builtin, vp8, vp9};
use str0m::rtp::RtpPacket;
use str0m::rtp::rtcp::Rtcp;

use super::common::*;
use super::{connect_as, packets, track};

/// What of a packet does not differ from one connection to the next.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    sequence: u64,
    ticks: u32,
    marker: bool,
    payload_type: u8,
    mid: bool,
    rid: Option<String>,
    level: Option<(i8, bool)>,
    has_times: (bool, bool, bool),
    payload: Vec<u8>,
}

/// The packet without the random beginnings of its stream's first one.
fn seen(codec: Codec, first: &RtpPacket, packet: &RtpPacket) -> Seen {
    let values = &packet.header.ext_vals;
    let mut payload = packet.payload.to_vec();
    match codec {
        Codec::Vp8 => {
            let numbers = |payload: &[u8]| {
                let read = vp8::Descriptor::parse(payload).unwrap();
                (read.picture_id.unwrap(), read.tl0_pic_idx.unwrap())
            };
            let ((picture, tl0), own) = (numbers(&first.payload), numbers(&payload));
            let picture = own.0.wrapping_sub(picture) & 0x7fff;
            assert!(vp8::renumber(&mut payload, picture, own.1.wrapping_sub(tl0)));
        }
        Codec::Vp9 => {
            let numbers = |payload: &[u8]| {
                let read = vp9::Descriptor::parse(payload).unwrap();
                (read.picture_id.unwrap(), read.tl0_pic_idx.unwrap())
            };
            let ((picture, tl0), own) = (numbers(&first.payload), numbers(&payload));
            let picture = own.0.wrapping_sub(picture) & 0x7fff;
            assert!(vp9::renumber(&mut payload, picture, own.1.wrapping_sub(tl0)));
        }
        _ => {}
    }
    Seen {
        sequence: *packet.seq_no - *first.seq_no,
        ticks: packet.header.timestamp.wrapping_sub(first.header.timestamp),
        marker: packet.header.marker,
        payload_type: *packet.header.payload_type,
        mid: values.mid.is_some(),
        rid: values.rid.map(|rid| rid.to_string()),
        level: values.audio_level.zip(values.voice_activity),
        has_times: (
            values.abs_send_time.is_some(),
            values.abs_capture_time.is_some(),
            values.transport_cc.is_some(),
        ),
        payload,
    }
}

/// What arrives of these tracks, by what their streams are; beside str0m, or paced by it.
fn arriving(tracks: &[PublishTrack], adapt: bool) -> BTreeMap<String, Vec<Seen>> {
    let options = PeerOptions { adapt, ..options() };
    let (mut sim, _) = connect_as(&options, tracks.to_vec());
    sim.run(Duration::from_millis(900));
    let mut streams: BTreeMap<u32, Vec<&RtpPacket>> = BTreeMap::new();
    for packet in packets(&sim) {
        streams.entry(*packet.header.ssrc).or_default().push(packet);
    }
    assert!(!streams.is_empty());
    let streams = streams.into_values().map(|mut packets| {
        packets.sort_by_key(|packet| packet.seq_no);
        let first = packets[0];
        let kind = tracks.iter().find(|track| {
            (track.kind == MediaKind::Audio) == first.header.ext_vals.audio_level.is_some()
        });
        let codec = kind.unwrap().layers[0].clip.codec;
        let seen: Vec<_> = packets.iter().map(|packet| seen(codec, first, packet)).collect();
        (format!("{codec} {:?}", seen[0].rid), seen)
    });
    streams.collect()
}

fn assert_same(tracks: &[PublishTrack]) {
    let (ours, theirs) = (arriving(tracks, false), arriving(tracks, true));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, ours) in &ours {
        let theirs = &theirs[name];
        // What waits in str0m's pacer has not arrived.
        let both = ours.len().min(theirs.len());
        assert!(both >= 10, "{name}: {} and {}", ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(ours, theirs, "{name}");
        }
    }
}

#[test]
fn every_codec_is_sent_as_str0m_sends_it() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1] {
        let clip = super::middle(codec);
        assert_same(&[track("cam", MediaKind::Video, vec![(None, clip)])]);
    }
    for codec in [Codec::Vp9, Codec::Av1] {
        let clip = builtin::scalable_video(codec, ScalabilityMode::L1T3).unwrap().unwrap();
        assert_same(&[track("cam", MediaKind::Video, vec![(None, clip)])]);
    }
}

#[test]
fn simulcast_and_audio_are_sent_as_str0m_sends_them() {
    let layers = ["q", "h", "f"].map(|rid| (Some(rid), vp8_clip(30, 15, 30, |_| 3)));
    let cam = track("cam", MediaKind::Video, layers.into());
    let mut mic = track("mic", MediaKind::Audio, vec![(None, opus_clip(50))]);
    assert_same(&[mic.clone(), cam]);
    mic.audio = AudioOptions { red: true, dtx: true };
    assert_same(&[mic]);
}

#[test]
fn a_picture_leaves_as_one_segment_run() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1] {
        let clip = builtin::video(codec).unwrap().pop().unwrap();
        let (mut sim, _) =
            connect_as(&options(), vec![track("cam", MediaKind::Video, vec![(None, clip)])]);
        for trailer in [false, true] {
            if trailer {
                sim.peer.update(PeerUpdate::PacketTrailer);
            }
            let pictures = pictures(&mut sim);
            // A keyframe of H.264 and H.265 has its parameter sets in a packet of their own.
            let has_sets = matches!(codec, Codec::H264 | Codec::H265);
            let several = pictures.iter().filter(|packets| packets.len() > 1);
            for packets in several.clone() {
                let apart = usize::from(has_sets && packets[0] < packets[1]);
                let (last, whole) = packets[apart..].split_last().unwrap();
                // As UDP GSO wants it: of one length, of which the last may be shorter.
                assert!(whole.iter().all(|bytes| *bytes == whole[0]), "{codec}: {packets:?}");
                assert!(*last <= whole[0] && whole[0] <= 1_200, "{codec}: {packets:?}");
            }
            assert!(several.count() > 10, "{codec}: {pictures:?}");
        }
    }
}

/// Lengths of the datagrams of each picture of a second.
fn pictures(sim: &mut Sim) -> Vec<Vec<usize>> {
    let end = sim.now + Duration::from_secs(1);
    let mut pictures: Vec<([u8; 4], Vec<usize>)> = Vec::new();
    while sim.now < end {
        let wake = sim.peer.drain(sim.now, &mut sim.sink);
        for (_, datagram) in sim.sink.datagrams.drain(..).filter(|(_, it)| rtp(it).is_some()) {
            let timestamp = datagram[4..8].try_into().unwrap();
            match pictures.last_mut() {
                Some((of, packets)) if *of == timestamp => packets.push(datagram.len()),
                _ => pictures.push((timestamp, vec![datagram.len()])),
            }
        }
        sim.now = wake.max(sim.now);
        sim.peer.handle_timeout(sim.now);
    }
    pictures.into_iter().map(|(_, packets)| packets).collect()
}

fn sender_reports(sim: &Sim) -> impl Iterator<Item = &str0m::rtp::rtcp::SenderInfo> {
    sim.server.rtcp.iter().filter_map(|rtcp| match rtcp {
        Rtcp::SenderReport(report) => Some(&report.sender_info),
        _ => None,
    })
}

#[test]
fn sender_reports_say_what_was_sent_and_when() {
    let clip = vp8_clip(30, 30, 30, |_| 4);
    let mic = track("mic", MediaKind::Audio, vec![(None, opus_clip(50))]);
    let cam = track("cam", MediaKind::Video, vec![(None, clip)]);
    let (mut sim, _) = connect_as(&options(), vec![mic, cam]);
    sim.run(Duration::from_millis(5_500));
    let mut reports = 0;
    for info in sender_reports(&sim) {
        let of_it = packets(&sim).filter(|packet| packet.header.ssrc == info.ssrc);
        let sent: Vec<&RtpPacket> = of_it.collect();
        let Some(count) = (info.sender_packet_count as usize).checked_sub(1) else { continue };
        let octets: usize = sent[..=count].iter().map(|packet| packet.payload.len()).sum();
        assert_eq!(info.sender_octet_count as usize, octets);
        // RTP time goes on from the last packet by less than a frame.
        let rate = if sent[0].header.ext_vals.audio_level.is_some() { 48_000 } else { 90_000 };
        let behind = (info.rtp_time.numer() as u32).wrapping_sub(sent[count].header.timestamp);
        assert!(behind <= rate / 25, "{behind} ticks of {rate}");
        reports += 1;
    }
    assert!(reports >= 5, "{reports}");
}

#[test]
fn numbers_of_the_whole_transport_have_no_gaps() {
    let clip = vp8_clip(30, 30, 30, |_| 4);
    let mic = track("mic", MediaKind::Audio, vec![(None, opus_clip(50))]);
    let cam = track("cam", MediaKind::Video, vec![(None, clip)]);
    let (mut sim, _) = connect_as(&options(), vec![mic, cam]);
    sim.run(Duration::from_secs(2));
    let numbers: Vec<_> =
        packets(&sim).filter_map(|packet| packet.header.ext_vals.transport_cc).collect();
    assert!(numbers.len() > 200, "{}", numbers.len());
    assert!(numbers.iter().enumerate().all(|(at, number)| usize::from(*number) == at));
}
