//! What a subscriber gets is what was published: numbers, payloads, extensions, repairs, reports.

#![allow(clippy::unwrap_used)]

mod common;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Client, Packet, drive, grants, options, row, run_for, vp8};
use livekit_protocol as proto;
use livekit_token::VideoGrants;
use proto::signal_request::Message as Request;
use stampede_sfu::{Sfu, SfuFaults, SfuOptions, SubscriberTrackLedger};
use str0m::media::{MediaKind, Mid};
use str0m::rtp::{AbsCaptureTime, ExtensionValues, VideoOrientation};

const RIDS: [&str; 3] = ["q", "h", "f"];
/// Longer than the interval of sender reports, 3 s.
const FRAMES: u64 = 360;
/// Frames that are keyframes, and which layer alone sends them.
const SWITCHES: [(u64, Option<usize>); 3] = [(0, None), (150, Some(2)), (250, Some(1))];
const FRAME: Duration = Duration::from_millis(10);
/// One packet in this many is lost at the viewer, which asks for it again.
const LOSS_INTERVAL: u64 = 7;
/// Every so many frames a layer sends a packet of padding.
const PADDING_INTERVAL: u64 = 5;
/// How far a sender report may be from the packet before it; a wrong one is off by any number.
const REPORT_ERROR_MAX: Duration = Duration::from_millis(250);

async fn join(sfu: &Sfu, kind: MediaKind, rids: &[&str]) -> (Client, Mid, String, Client) {
    let no_subscribe = VideoGrants { can_subscribe: Some(false), ..grants("room") };
    let mut publisher = Client::connect(sfu, "publisher", no_subscribe).await;
    let mid = publisher.publish("track", kind, rids).await;
    drive(&mut [&mut publisher], |c| c[0].publisher.connected).await;
    let track = publisher.published("track").unwrap();
    let no_publish = VideoGrants { can_publish: Some(false), ..grants("room") };
    let mut viewer = Client::connect(sfu, "viewer", no_publish).await;
    let known = track.clone();
    drive(&mut [&mut publisher, &mut viewer], move |c| {
        c[1].subscriber.connected && c[1].ssrc_track.values().any(|(sid, _)| *sid == known)
    })
    .await;
    (publisher, mid, track, viewer)
}

async fn set_quality(viewer: &mut Client, track: &str, quality: proto::VideoQuality) {
    let setting = proto::UpdateTrackSettings {
        track_sids: vec![track.to_owned()],
        quality: quality as i32,
        ..proto::UpdateTrackSettings::default()
    };
    viewer.send(Request::TrackSetting(setting)).await;
}

/// A layer's part of a frame, under a picture id.
fn payload(picture_id: u16, frame: u64, layer: usize, part: usize) -> Vec<u8> {
    let keyframe = SWITCHES.iter().any(|(at, _)| *at == frame);
    let mut payload = vp8(picture_id, keyframe, layer as u8, 300 + 100 * layer - 50 * part);
    if part > 0 {
        // Not the start of a partition, so no keyframe either.
        payload[0] &= !0x10;
    }
    payload
}

/// What a frame's packets say beside their payload.
fn extensions(frame: u64) -> ExtensionValues {
    let orientations = [VideoOrientation::Deg0, VideoOrientation::Deg90, VideoOrientation::Deg180];
    ExtensionValues {
        video_orientation: frame.is_multiple_of(2).then(|| orientations[frame as usize % 3]),
        abs_capture_time: (frame % 4 < 2).then(|| AbsCaptureTime {
            capture_time: UNIX_EPOCH + Duration::from_secs(1_800_000_000) + FRAME * frame as u32,
            clock_offset: frame.is_multiple_of(4).then_some(-(frame as i64) << 20),
        }),
        ..ExtensionValues::default()
    }
}

/// Has the viewer lose packets of a track's first transmissions, though none of the last frames,
/// which nothing would tell it of. What it lost is in the set that is returned.
fn lose(viewer: &mut Client, track: &str) -> Rc<RefCell<BTreeSet<u16>>> {
    let lost = Rc::new(RefCell::new(BTreeSet::new()));
    let of_track = (track.to_owned(), false);
    let known = viewer.ssrc_track.iter().find(|(_, track)| **track == of_track);
    let (media, losses) = (*known.unwrap().0, Rc::clone(&lost));
    let mut count = 0;
    viewer.subscriber.lose = Some(Box::new(move |ssrc, seq| {
        count += u64::from(ssrc == media);
        let loses =
            ssrc == media && count % LOSS_INTERVAL == 0 && count < 2 * FRAMES - 3 * LOSS_INTERVAL;
        if loses {
            losses.borrow_mut().insert(seq);
        }
        loses
    }));
    lost
}

/// Three layers with two packets a frame, and packets of padding between; the viewer changes from
/// low to high to medium, and loses packets all the while. Only the new layer has a keyframe where
/// it does, and it alone sends that frame: in which order layers are forwarded within a burst is
/// chance.
async fn simulcast() -> Vec<Packet> {
    let sfu = Sfu::start(options()).unwrap();
    let (mut publisher, mid, track, mut viewer) = join(&sfu, MediaKind::Video, &RIDS).await;
    set_quality(&mut viewer, &track, proto::VideoQuality::Low).await;
    run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(100)).await;
    let lost = lose(&mut viewer, &track);
    let mut seqs = [5_000, 10_000, 15_000];
    for frame in 0..FRAMES {
        match frame {
            110 => set_quality(&mut viewer, &track, proto::VideoQuality::High).await,
            210 => set_quality(&mut viewer, &track, proto::VideoQuality::Medium).await,
            _ => {}
        }
        let keyframe = SWITCHES.iter().find(|(at, _)| *at == frame);
        for (layer, rid) in RIDS.iter().enumerate() {
            if keyframe.is_some_and(|(_, only)| only.is_some_and(|only| only != layer)) {
                continue;
            }
            let time = 1_000_000 * layer as u32 + 900 * frame as u32;
            for part in 0..2 {
                let payload = payload(100 * layer as u16 + frame as u16, frame, layer, part);
                let values = extensions(frame);
                publisher.write_extended(mid, Some(rid), seqs[layer], time, payload, values);
                seqs[layer] += 1;
            }
            if frame % PADDING_INTERVAL == 0 {
                publisher.write(mid, Some(rid), seqs[layer], time, Vec::new());
                seqs[layer] += 1;
            }
        }
        run_for(&mut [&mut publisher, &mut viewer], FRAME).await;
    }
    let expected = 2 * FRAMES as usize;
    let known = track.clone();
    drive(&mut [&mut publisher, &mut viewer], |c| {
        c[1].packets.get(&known).is_some_and(|packets| packets.len() >= expected)
    })
    .await;
    let ledger = row(&sfu, "room", "viewer", &track);
    assert_eq!((ledger.counts.packets_sent, ledger.counts.layer_switches), (2 * FRAMES, 2));
    let lost = lost.borrow();
    assert!(lost.len() as u64 > FRAMES / LOSS_INTERVAL, "{lost:?}");
    let rtx = viewer.wire_seqs(&track, true);
    assert_eq!(rtx.len() as u64, ledger.counts.retransmitted);
    assert!(rtx.len() >= lost.len(), "{} of {}", rtx.len(), lost.len());
    // What was sent again comes late, and could come twice.
    let packets = viewer.packets.remove(&track).unwrap();
    let by_seq: BTreeMap<u64, Packet> = packets.into_iter().map(|p| (p.seq, p)).collect();
    by_seq.into_values().collect()
}

fn apart(one: SystemTime, two: SystemTime) -> Duration {
    one.duration_since(two).unwrap_or_else(|error| error.duration())
}

#[tokio::test]
async fn layers_repairs_and_reports_are_those_of_one_stream() {
    let packets = simulcast().await;
    // All of them, and each the number of the packet that it was sent again for.
    assert_eq!(packets.len() as u64, 2 * FRAMES);
    let (mut layer, mut switched_at) = (0, (0, packets[0].timestamp));
    for (place, packet) in packets.iter().enumerate() {
        let (frame, part) = (place as u64 / 2, place % 2);
        if let Some((_, Some(new))) = SWITCHES.iter().find(|(at, _)| *at == frame)
            && part == 0
        {
            (layer, switched_at) = (*new, (frame, packet.timestamp));
        }
        // Where numbers start is chance, and how long a switch took is time.
        assert_eq!(packet.seq, packets[0].seq + place as u64);
        let ticks = packet.timestamp.wrapping_sub(switched_at.1);
        assert_eq!(ticks as u64, 900 * (frame - switched_at.0), "packet {place}");
        assert!(packet.marker);
        assert_eq!(packet.payload.as_ref(), payload(frame as u16, frame, layer, part), "{place}");
        let (values, expected) = (&packet.extensions, extensions(frame));
        assert_eq!(values.video_orientation, expected.video_orientation, "packet {place}");
        match (values.abs_capture_time, expected.abs_capture_time) {
            (Some(got), Some(expected)) => {
                // The publisher's str0m rounds it.
                let error = apart(got.capture_time, expected.capture_time);
                assert!(error < Duration::from_micros(1), "packet {place}: {error:?}");
                assert_eq!(got.clock_offset, expected.clock_offset, "packet {place}");
            }
            (got, expected) => assert_eq!(got, expected, "packet {place}"),
        }
    }
    let report = packets.last().unwrap().report.unwrap();
    let count = report.packets as usize;
    assert!(count > 0, "no report after 3 s");
    let bytes: usize = packets[..count].iter().map(|packet| packet.payload.len()).sum();
    assert_eq!(report.octets as usize, bytes, "octets of the {count} packets");
    // The clocks of the report say when the last packet before it was sent.
    let before = packets.iter().filter(|packet| packet.report != Some(report));
    let last = before.max_by_key(|packet| packet.received_at).unwrap();
    let ticks = report.rtp_time.wrapping_sub(last.timestamp) as i32;
    let since = Duration::from_secs_f64(f64::from(ticks.unsigned_abs()) / 90_000.0);
    let sent_at = if ticks < 0 { report.ntp_time + since } else { report.ntp_time - since };
    let error = apart(sent_at, last.received_at);
    assert!(error < REPORT_ERROR_MAX, "{error:?} off, {ticks} ticks after the last");
}

#[tokio::test]
async fn losses_are_counted_and_repaired() {
    let impair = vec!["loss=10%,burst=3".parse().unwrap()];
    let sfu = Sfu::start(SfuOptions { impair, ..options() }).unwrap();
    let (mut publisher, mid, track, mut viewer) = join(&sfu, MediaKind::Video, &[]).await;
    for i in 0..500u64 {
        let payload = vp8(i as u16, i == 0, 0, 200);
        publisher.write(mid, None, i, 3_000 * i as u32, payload);
        run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(2)).await;
    }
    run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(600)).await;
    let ledger = row(&sfu, "room", "viewer", &track);
    let wire = viewer.wire_seqs(&track, false);
    let rtx = viewer.wire_seqs(&track, true);
    assert_eq!(ledger.counts.packets_sent + ledger.counts.dropped, 500);
    assert_eq!(wire.len() as u64, ledger.counts.packets_sent);
    assert_eq!(rtx.len() as u64, ledger.counts.retransmitted);
    assert!(ledger.counts.dropped > 10 && ledger.counts.nacks_received > 0, "{ledger:?}");
    let unique: BTreeSet<u16> = rtx.iter().copied().collect();
    assert_eq!(unique.len(), rtx.len(), "RTX numbers are used once");
    let packets = &viewer.packets[&track];
    let received: BTreeSet<u64> = packets.iter().map(|packet| packet.seq).collect();
    assert!(received.len() > wire.len(), "something was repaired");
    let first = packets[0].seq - u64::from(common::picture_id(&packets[0].payload));
    for packet in packets {
        let id = common::picture_id(&packet.payload);
        assert_eq!(packet.payload.as_ref(), vp8(id, id == 0, 0, 200));
        assert_eq!(packet.timestamp, 3_000 * u32::from(id));
        assert_eq!(packet.seq, first + u64::from(id), "sent again as another");
    }
}

/// 500 packets to one viewer of an SFU that does something to them.
async fn impaired(options: SfuOptions) -> (SubscriberTrackLedger, Client, String) {
    let sfu = Sfu::start(options).unwrap();
    let (mut publisher, mid, track, mut viewer) = join(&sfu, MediaKind::Video, &[]).await;
    for i in 0..500u64 {
        publisher.write(mid, None, i, 3_000 * i as u32, vp8(i as u16, i == 0, 0, 200));
        run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(2)).await;
    }
    run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(600)).await;
    (row(&sfu, "room", "viewer", &track), viewer, track)
}

#[tokio::test]
async fn what_is_held_back_and_sent_twice_is_counted() {
    let spec = "loss=5%,delay=20ms,jitter=5ms,reorder=5%,duplicate=10%";
    let impair = vec![spec.parse().unwrap()];
    let (ledger, viewer, track) = impaired(SfuOptions { impair, ..options() }).await;
    let media = viewer.wire_seqs(&track, false).len() as u64;
    let rtx = viewer.wire_seqs(&track, true).len() as u64;
    let sent = ledger.counts.packets_sent + ledger.counts.retransmitted;
    assert_eq!(ledger.counts.packets_sent + ledger.counts.dropped, 500);
    assert_eq!(media + rtx, sent + ledger.counts.duplicated, "{ledger:?}");
    assert_eq!(ledger.counts.delayed, sent);
    assert!(ledger.counts.dropped > 5 && ledger.counts.dropped_between > 5, "{ledger:?}");
    assert!(ledger.counts.dropped_between <= ledger.counts.dropped, "{ledger:?}");
    assert!((5..60).contains(&ledger.counts.reordered), "{ledger:?}");
    assert!((20..120).contains(&ledger.counts.duplicated), "{ledger:?}");
    assert_eq!(ledger.counts.malformed, 0);
}

#[tokio::test]
async fn broken_datagrams_replace_nothing() {
    let faults = SfuFaults { malformed: 0.2, ..SfuFaults::default() };
    let (ledger, viewer, track) = impaired(SfuOptions { faults, ..options() }).await;
    assert_eq!((ledger.counts.packets_sent, ledger.counts.dropped), (500, 0));
    assert!((50..160).contains(&ledger.counts.malformed), "{ledger:?}");
    let packets = &viewer.packets[&track];
    let ids: BTreeSet<u16> =
        packets.iter().map(|packet| common::picture_id(&packet.payload)).collect();
    assert_eq!(ids.len(), 500, "everything came");
}

#[tokio::test]
async fn audio_arrives_as_it_was_published() {
    let sfu = Sfu::start(options()).unwrap();
    let (mut publisher, mid, track, mut viewer) = join(&sfu, MediaKind::Audio, &[]).await;
    for i in 0..50u64 {
        publisher.write(mid, None, i, 960 * i as u32, vec![i as u8; 80]);
        run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(2)).await;
    }
    let known = track.clone();
    drive(&mut [&mut publisher, &mut viewer], |c| {
        c[1].packets.get(&known).is_some_and(|packets| packets.len() >= 50)
    })
    .await;
    let packets = &viewer.packets[&track];
    for (place, packet) in packets.iter().enumerate() {
        assert_eq!(packet.seq, packets[0].seq + place as u64);
        assert_eq!(packet.timestamp, 960 * place as u32);
        assert_eq!(packet.payload.as_ref(), vec![place as u8; 80]);
    }
}
