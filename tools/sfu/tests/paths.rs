//! Both ways of media to a subscriber, the direct one and the one through str0m, give it the same.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Client, Packet, drive, grants, options, row, run_for, vp8};
use livekit_protocol as proto;
use livekit_token::VideoGrants;
use proto::signal_request::Message as Request;
use stampede_sfu::{SendPath, Sfu, SfuFaults, SfuOptions, SubscriberTrackLedger};
use str0m::media::{MediaKind, Mid};

const PATHS: [SendPath; 2] = [SendPath::Direct, SendPath::Str0m];
const RIDS: [&str; 3] = ["q", "h", "f"];
/// Longer than the interval of sender reports, 3 s.
const FRAMES: u64 = 360;
/// Frames that are keyframes, and which layer alone sends them.
const SWITCHES: [(u64, Option<usize>); 3] = [(0, None), (150, Some(2)), (250, Some(1))];
const FRAME: Duration = Duration::from_millis(10);

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

/// Three layers with two packets a frame; the viewer changes from low to high to medium. Only the
/// new layer has a keyframe where it does, and it alone sends that frame: in which order layers
/// are forwarded within a burst is chance.
async fn simulcast(send_path: SendPath) -> Vec<Packet> {
    let sfu = Sfu::start(SfuOptions { send_path, ..options() }).unwrap();
    let (mut publisher, mid, track, mut viewer) = join(&sfu, MediaKind::Video, &RIDS).await;
    set_quality(&mut viewer, &track, proto::VideoQuality::Low).await;
    run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(100)).await;
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
            let base = 5_000 * (layer as u64 + 1);
            for part in 0..2 {
                let id = 100 * layer as u16 + frame as u16;
                let len = 300 + 100 * layer - 50 * part as usize;
                let mut payload = vp8(id, keyframe.is_some(), layer as u8, len);
                if part > 0 {
                    // Not the start of a partition, so no keyframe either.
                    payload[0] &= !0x10;
                }
                let time = 1_000_000 * layer as u32 + 900 * frame as u32;
                publisher.write(mid, Some(rid), base + 2 * frame + part, time, payload);
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
    assert_eq!((ledger.packets_sent, ledger.layer_switches), (2 * FRAMES, 2), "{send_path:?}");
    viewer.packets.remove(&track).unwrap()
}

/// What does not depend on chance (where numbers start) or on time (how long a switch took).
fn essence(packets: &[Packet]) -> Vec<(u64, u32, bool, Vec<u8>)> {
    let mut layer = u8::MAX;
    let mut start = 0;
    packets
        .iter()
        .map(|packet| {
            if packet.payload[20] != layer {
                layer = packet.payload[20];
                start = packet.timestamp;
            }
            let seq = packet.seq - packets[0].seq;
            let time = packet.timestamp.wrapping_sub(start);
            (seq, time, packet.marker, packet.payload.to_vec())
        })
        .collect()
}

#[tokio::test]
async fn layers_and_reports_are_the_same_on_both_paths() {
    let direct = simulcast(SendPath::Direct).await;
    let str0m = simulcast(SendPath::Str0m).await;
    let (one, two) = (essence(&direct), essence(&str0m));
    for (one, two) in one.iter().zip(&two) {
        assert_eq!(one, two);
    }
    assert_eq!(one.len(), two.len());
    for (path, packets) in [("direct", &direct), ("str0m", &str0m)] {
        let (count, octets) = packets.last().unwrap().report.unwrap();
        let reported = &packets[..count as usize];
        assert!(count > 0, "{path}: no report after 3 s");
        let bytes: usize = reported.iter().map(|packet| packet.payload.len()).sum();
        assert_eq!(octets as usize, bytes, "{path}: octets of the {count} packets reported");
    }
}

#[tokio::test]
async fn losses_are_counted_and_repaired_on_both_paths() {
    for send_path in PATHS {
        let impair = vec!["loss=10%,burst=3".parse().unwrap()];
        let sfu = Sfu::start(SfuOptions { send_path, impair, ..options() }).unwrap();
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
        assert_eq!(ledger.packets_sent + ledger.dropped, 500, "{send_path:?}");
        assert_eq!(wire.len() as u64, ledger.packets_sent, "{send_path:?}");
        assert_eq!(rtx.len() as u64, ledger.retransmitted, "{send_path:?}");
        assert!(ledger.dropped > 10 && ledger.nacks_received > 0, "{send_path:?}: {ledger:?}");
        let unique: BTreeSet<u16> = rtx.iter().copied().collect();
        assert_eq!(unique.len(), rtx.len(), "{send_path:?}: RTX numbers are used once");
        let packets = &viewer.packets[&track];
        let received: BTreeSet<u64> = packets.iter().map(|packet| packet.seq).collect();
        assert!(received.len() > wire.len(), "{send_path:?}: something was repaired");
        for packet in packets {
            let id = common::picture_id(&packet.payload);
            assert_eq!(packet.payload.as_ref(), vp8(id, id == 0, 0, 200), "{send_path:?}");
            assert_eq!(packet.timestamp, 3_000 * u32::from(id), "{send_path:?}");
        }
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
async fn what_is_held_back_and_sent_twice_is_counted_on_both_paths() {
    for send_path in PATHS {
        let spec = "loss=5%,delay=20ms,jitter=5ms,reorder=5%,duplicate=10%";
        let impair = vec![spec.parse().unwrap()];
        let (ledger, viewer, track) = impaired(SfuOptions { send_path, impair, ..options() }).await;
        let media = viewer.wire_seqs(&track, false).len() as u64;
        let rtx = viewer.wire_seqs(&track, true).len() as u64;
        let sent = ledger.packets_sent + ledger.retransmitted;
        assert_eq!(ledger.packets_sent + ledger.dropped, 500, "{send_path:?}");
        assert_eq!(media + rtx, sent + ledger.duplicated, "{send_path:?}: {ledger:?}");
        assert_eq!(ledger.delayed, sent, "{send_path:?}");
        assert!(ledger.dropped > 5 && ledger.dropped_between > 5, "{send_path:?}: {ledger:?}");
        assert!(ledger.dropped_between <= ledger.dropped, "{send_path:?}: {ledger:?}");
        assert!((5..60).contains(&ledger.reordered), "{send_path:?}: {ledger:?}");
        assert!((20..120).contains(&ledger.duplicated), "{send_path:?}: {ledger:?}");
        assert_eq!(ledger.malformed, 0, "{send_path:?}");
    }
}

#[tokio::test]
async fn broken_datagrams_replace_nothing_on_both_paths() {
    for send_path in PATHS {
        let faults = SfuFaults { malformed: 0.2, ..SfuFaults::default() };
        let (ledger, viewer, track) = impaired(SfuOptions { send_path, faults, ..options() }).await;
        assert_eq!((ledger.packets_sent, ledger.dropped), (500, 0), "{send_path:?}");
        assert!((50..160).contains(&ledger.malformed), "{send_path:?}: {ledger:?}");
        let packets = &viewer.packets[&track];
        let ids: BTreeSet<u16> =
            packets.iter().map(|packet| common::picture_id(&packet.payload)).collect();
        assert_eq!(ids.len(), 500, "{send_path:?}: everything came");
    }
}

#[tokio::test]
async fn audio_is_the_same_on_both_paths() {
    let mut seen = Vec::new();
    for send_path in PATHS {
        let sfu = Sfu::start(SfuOptions { send_path, ..options() }).unwrap();
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
        let packets = viewer.packets.remove(&track).unwrap();
        let first = packets[0].seq;
        let rows = packets.into_iter().map(|p| (p.seq - first, p.timestamp, p.payload.to_vec()));
        seen.push(rows.collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1]);
}
