//! Media end to end: a str0m client publishes, others receive.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Client, drive, grants, picture_id, row, run_for, start, vp8};
use livekit_protocol as proto;
use livekit_token::VideoGrants;
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use stampede_sfu::Sfu;
use str0m::format::Codec;
use str0m::media::{MediaKind, Mid};

const ROOM: &str = "room";

fn publisher() -> VideoGrants {
    VideoGrants { can_subscribe: Some(false), ..grants(ROOM) }
}

fn subscriber() -> VideoGrants {
    VideoGrants { can_publish: Some(false), ..grants(ROOM) }
}

/// A publisher of one video track, connected.
async fn publish(sfu: &Sfu, rids: &[&str]) -> (Client, Mid, String) {
    let mut client = Client::connect(sfu, "publisher", publisher()).await;
    assert!(!client.join.as_ref().unwrap().subscriber_primary);
    let mid = client.publish("camera", MediaKind::Video, rids).await;
    drive(&mut [&mut client], |c| c[0].publisher.connected && c[0].published("camera").is_some())
        .await;
    let track = client.published("camera").unwrap();
    (client, mid, track)
}

/// A subscriber that has answered an offer with the track and is connected.
async fn subscribe(sfu: &Sfu, identity: &str, track: &str) -> Client {
    let client = common::subscribe(sfu, ROOM, identity, track).await;
    assert!(client.join.as_ref().unwrap().subscriber_primary);
    client
}

fn seqs(client: &Client, track: &str) -> Vec<u64> {
    client.packets.get(track).into_iter().flatten().map(|packet| packet.seq).collect()
}

fn assert_continuous(seqs: &[u64]) {
    for pair in seqs.windows(2) {
        assert_eq!(pair[1], pair[0] + 1, "a hole or a repetition in {seqs:?}");
    }
}

#[tokio::test]
async fn packets_arrive_unchanged_and_a_late_joiner_gets_a_keyframe() {
    let sfu = start("", 1);
    let (mut publisher, mid, track) = publish(&sfu, &[]).await;
    let mut early = subscribe(&sfu, "early", &track).await;
    for i in 0..50u64 {
        publisher.write(mid, None, 1_000 + i, 3_000 * i as u32, vp8(i as u16, i == 0, 0, 900));
        run_for(&mut [&mut publisher, &mut early], Duration::from_millis(2)).await;
    }
    drive(&mut [&mut publisher, &mut early], |c| seqs(c[1], &track).len() == 50).await;
    assert_continuous(&seqs(&early, &track));
    let first = &early.packets[&track][0];
    assert_eq!(first.payload.as_ref(), vp8(0, true, 0, 900).as_slice());
    assert!(first.marker);

    let asked = publisher.keyframe_requests.len();
    let mut late = subscribe(&sfu, "late", &track).await;
    // Deltas give a late joiner nothing, but make the SFU ask for a keyframe.
    let mut i = 50u64;
    loop {
        let keyframe = publisher.keyframe_requests.len() > asked;
        publisher.write(mid, None, 1_000 + i, 3_000 * i as u32, vp8(i as u16, keyframe, 0, 500));
        run_for(&mut [&mut publisher, &mut early, &mut late], Duration::from_millis(5)).await;
        i += 1;
        assert!(i < 1_000, "no keyframe was asked for");
        if keyframe {
            break;
        }
        assert!(seqs(&late, &track).is_empty(), "a delta before the keyframe");
    }
    drive(&mut [&mut publisher, &mut early, &mut late], |c| seqs(c[2], &track).len() == 1).await;
    assert_eq!(late.packets[&track][0].payload[6], 0, "a keyframe");
    let ledger = row(&sfu, ROOM, "late", &track);
    assert_eq!((ledger.counts.packets_sent, ledger.layer), (1, Some(0)));
    assert_eq!(row(&sfu, ROOM, "early", &track).counts.packets_sent, i);
    let counted = sfu.ledger().unwrap().rooms[0].published[0].counted;
    assert_eq!((counted.packets_received, counted.packets_lost), (i, 0));
}

#[tokio::test]
async fn losses_upstream_are_seen_downstream() {
    let sfu = start("", 1);
    let (mut publisher, mid, track) = publish(&sfu, &[]).await;
    let mut viewer = subscribe(&sfu, "viewer", &track).await;
    for seq in [10u64, 11, 14, 15] {
        publisher.write(mid, None, seq, 0, vp8(seq as u16, seq == 10, 0, 100));
        run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(5)).await;
    }
    drive(&mut [&mut publisher, &mut viewer], |c| seqs(c[1], &track).len() == 4).await;
    let seqs = seqs(&viewer, &track);
    let relative: Vec<u64> = seqs.iter().map(|seq| seq - seqs[0]).collect();
    assert_eq!(relative, [0, 1, 4, 5]);
    assert_eq!(sfu.ledger().unwrap().totals.upstream.publisher_packets_lost, 2);
}

async fn set_quality(client: &mut Client, track: &str, quality: proto::VideoQuality) {
    let setting = proto::UpdateTrackSettings {
        track_sids: vec![track.to_owned()],
        quality: quality as i32,
        ..proto::UpdateTrackSettings::default()
    };
    client.send(Request::TrackSetting(setting)).await;
}

#[tokio::test]
async fn layers_switch_at_keyframes_with_continuous_numbers() {
    let sfu = start("", 1);
    let (mut publisher, mid, track) = publish(&sfu, &["q", "h", "f"]).await;
    let mut viewer = subscribe(&sfu, "viewer", &track).await;
    set_quality(&mut viewer, &track, proto::VideoQuality::Low).await;
    run_for(&mut [&mut viewer], Duration::from_millis(30)).await;
    let rids = ["q", "h", "f"];
    for i in 0..300u64 {
        if i == 100 {
            set_quality(&mut viewer, &track, proto::VideoQuality::High).await;
        } else if i == 200 {
            set_quality(&mut viewer, &track, proto::VideoQuality::Medium).await;
        }
        for (layer, rid) in rids.iter().enumerate() {
            let wanted = publisher.keyframe_requests.iter().any(|r| r.as_deref() == Some(*rid));
            publisher.keyframe_requests.retain(|r| r.as_deref() != Some(*rid));
            let (base, id) = (5_000 * layer as u64, 100 * layer as u16 + i as u16);
            let time = 1_000_000 * layer as u32 + 3_000 * i as u32;
            let payload = vp8(id, i == 0 || wanted, layer as u8, 300);
            publisher.write(mid, Some(rid), base + i, time, payload);
        }
        run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(4)).await;
    }
    drive(&mut [&mut publisher, &mut viewer], |c| {
        c[1].packets[&track].last().is_some_and(|p| picture_id(&p.payload) > 0)
    })
    .await;
    run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(50)).await;
    let packets = &viewer.packets[&track];
    assert_continuous(&seqs(&viewer, &track));
    let layers: Vec<u8> = packets.iter().map(|packet| packet.payload[20]).collect();
    let mut runs = layers.clone();
    runs.dedup();
    // Until the SFU has read the first setting it sends what everybody gets: high.
    let as_set = if runs[0] == 2 { &runs[1..] } else { &runs[..] };
    assert_eq!(as_set, [0, 2, 1], "low, high, medium, and one switch each");
    for (pair, layer) in packets.windows(2).zip(layers.windows(2)) {
        let step = picture_id(&pair[1].payload).wrapping_sub(picture_id(&pair[0].payload));
        assert_eq!(step & 0x7fff, 1, "picture ids");
        assert!(pair[1].timestamp.wrapping_sub(pair[0].timestamp) as i32 > 0, "timestamps");
        if layer[0] != layer[1] {
            assert_eq!(pair[1].payload[6], 0, "switched at a keyframe");
        }
    }
    let ledger = row(&sfu, ROOM, "viewer", &track);
    assert_eq!((ledger.counts.layer_switches, ledger.layer), (runs.len() as u64 - 1, Some(1)));
    assert_eq!(ledger.counts.packets_sent, packets.len() as u64);
}

#[tokio::test]
async fn disabling_stops_and_enabling_goes_on_at_a_keyframe() {
    let sfu = start("", 1);
    let (mut publisher, mid, track) = publish(&sfu, &[]).await;
    let mut viewer = subscribe(&sfu, "viewer", &track).await;
    let setting = |disabled| {
        Request::TrackSetting(proto::UpdateTrackSettings {
            track_sids: vec![track.clone()],
            disabled,
            quality: proto::VideoQuality::High as i32,
            ..proto::UpdateTrackSettings::default()
        })
    };
    // What was asked for is waited for: how soon the SFU reads it is the machine's affair.
    let mut i = 0u64;
    let mut write = |publisher: &mut Client, keyframe| {
        publisher.write(mid, None, i, 3_000 * i as u32, vp8(i as u16, keyframe, 0, 100));
        i += 1;
    };
    for first in (0..20).map(|packet| packet == 0) {
        write(&mut publisher, first);
        run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(3)).await;
    }
    drive(&mut [&mut publisher, &mut viewer], |c| seqs(c[1], &track).len() == 20).await;
    viewer.send(setting(true)).await;
    drive(&mut [&mut publisher, &mut viewer], |_| {
        row(&sfu, ROOM, "viewer", &track).layer.is_none()
    })
    .await;
    for _ in 0..20 {
        write(&mut publisher, false);
        run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(3)).await;
    }
    viewer.send(setting(false)).await;
    let asked = publisher.keyframe_requests.len();
    while publisher.keyframe_requests.len() == asked {
        write(&mut publisher, false);
        run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(3)).await;
        assert!(seqs(&viewer, &track).len() == 20, "a delta before the keyframe");
    }
    for first in (0..10).map(|packet| packet == 0) {
        write(&mut publisher, first);
        run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(3)).await;
    }
    drive(&mut [&mut publisher, &mut viewer], |c| seqs(c[1], &track).len() == 30).await;
    assert_continuous(&seqs(&viewer, &track));
    assert_eq!(viewer.packets[&track][20].payload[6], 0, "resumed at the keyframe");
}

#[tokio::test]
async fn injected_drops_are_counted_exactly_and_retransmissions_repair_them() {
    let sfu = start("loss=10%,burst=3", 1);
    let (mut publisher, mid, track) = publish(&sfu, &[]).await;
    let mut viewer = subscribe(&sfu, "viewer", &track).await;
    let total = 1_000u64;
    for i in 0..total {
        publisher.write(mid, None, i, 3_000 * i as u32, vp8(i as u16, i == 0, 0, 200));
        run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(2)).await;
    }
    run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(600)).await;
    let ledger = row(&sfu, ROOM, "viewer", &track);
    let wire: BTreeSet<u16> = viewer.wire_seqs(&track, false).into_iter().collect();
    assert_eq!(ledger.counts.packets_sent + ledger.counts.dropped, total);
    assert_eq!(wire.len() as u64, ledger.counts.packets_sent, "everything sent arrived, once");
    assert_eq!(total - wire.len() as u64, ledger.counts.dropped, "everything missing was injected");
    assert!(ledger.counts.dropped > 30, "{ledger:?}");
    let rtx = viewer.wire_seqs(&track, true).len() as u64;
    assert_eq!(rtx, ledger.counts.retransmitted);
    let received: BTreeSet<u64> = seqs(&viewer, &track).into_iter().collect();
    assert!(received.len() > wire.len(), "retransmissions repaired something");
    let unrepaired = total - received.len() as u64;
    assert!(unrepaired <= ledger.counts.retransmits_dropped + 5, "{unrepaired} of {ledger:?}");
}

#[tokio::test]
async fn a_delay_holds_media_back_and_loses_nothing() {
    let sfu = start("delay=80ms", 1);
    let (mut publisher, mid, track) = publish(&sfu, &[]).await;
    let mut viewer = subscribe(&sfu, "viewer", &track).await;
    let written = std::time::Instant::now();
    for i in 0..10u64 {
        publisher.write(mid, None, i, 0, vp8(i as u16, i == 0, 0, 200));
    }
    drive(&mut [&mut publisher, &mut viewer], |c| !seqs(c[1], &track).is_empty()).await;
    assert!(written.elapsed() >= Duration::from_millis(80));
    drive(&mut [&mut publisher, &mut viewer], |c| seqs(c[1], &track).len() == 10).await;
    assert_continuous(&seqs(&viewer, &track));
}

#[tokio::test]
async fn a_long_burst_is_sent_whole_and_in_order() {
    // Several shares of a round, to a subscriber here and one of another worker. Some that
    // never connect make either worker leave a rest for the next round.
    let total = 200usize;
    let sfu = start("", 2);
    let (mut publisher, mid, track) = publish(&sfu, &[]).await;
    let mut one = subscribe(&sfu, "one", &track).await;
    let mut two = subscribe(&sfu, "two", &track).await;
    let mut joining = Vec::new();
    for name in ["three", "four", "five", "six"] {
        joining.push(Client::connect(&sfu, name, subscriber()).await);
    }
    for i in 0..total as u64 {
        publisher.write(mid, None, i, 3_000 * i as u32, vp8(i as u16, i == 0, 0, 100));
    }
    drive(&mut [&mut publisher, &mut one, &mut two], |c| {
        seqs(c[1], &track).len() == total && seqs(c[2], &track).len() == total
    })
    .await;
    for client in [&one, &two] {
        assert_continuous(&seqs(client, &track));
        let ids = client.packets[&track].iter().map(|packet| picture_id(&packet.payload));
        assert!(ids.eq(0..total as u16), "each packet under its own number");
    }
    assert_eq!(row(&sfu, ROOM, "one", &track).counts.packets_sent, total as u64);
}

#[tokio::test]
async fn subscribers_on_other_workers_receive_the_same() {
    let sfu = start("", 3);
    let (mut publisher, mid, track) = publish(&sfu, &[]).await;
    let mut a = subscribe(&sfu, "a", &track).await;
    let mut b = subscribe(&sfu, "b", &track).await;
    let mut c = subscribe(&sfu, "c", &track).await;
    // The keyframe that starts them is asked for across workers.
    let mut i = 0u64;
    while [&a, &b, &c].iter().any(|client| seqs(client, &track).len() < 50) {
        let keyframe = i == 0 || !publisher.keyframe_requests.is_empty();
        publisher.keyframe_requests.clear();
        publisher.write(mid, None, i, 3_000 * i as u32, vp8(i as u16, keyframe, 0, 400));
        let mut clients = [&mut publisher, &mut a, &mut b, &mut c];
        run_for(&mut clients, Duration::from_millis(3)).await;
        i += 1;
        assert!(i < 3_000);
    }
    for client in [&a, &b, &c] {
        assert_continuous(&seqs(client, &track));
    }
    let ledger = sfu.ledger().unwrap();
    assert!(
        ledger.workers.iter().all(|worker| worker.peers > 0 && worker.counted.mailbox_full == 0)
    );
}

#[tokio::test]
async fn audio_is_forwarded_from_the_first_packet() {
    let sfu = start("", 1);
    let mut publisher = Client::connect(&sfu, "publisher", publisher()).await;
    let mid = publisher.publish("mic", MediaKind::Audio, &[]).await;
    drive(&mut [&mut publisher], |c| c[0].publisher.connected).await;
    let track = publisher.published("mic").unwrap();
    assert!(track.starts_with("TR_AM"));
    let mut viewer = subscribe(&sfu, "viewer", &track).await;
    for i in 0..20u64 {
        publisher.write(mid, None, i, 960 * i as u32, vec![0xfc, i as u8, 3]);
        run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(3)).await;
    }
    drive(&mut [&mut publisher, &mut viewer], |c| seqs(c[1], &track).len() == 20).await;
    assert_continuous(&seqs(&viewer, &track));
    assert_eq!(viewer.packets[&track][7].payload.as_ref(), [0xfc, 7, 3]);
}

#[tokio::test]
async fn leaving_cleans_up_on_every_side() {
    let sfu = start("", 1);
    let (mut publisher, _, track) = publish(&sfu, &[]).await;
    let mut viewer = subscribe(&sfu, "viewer", &track).await;
    assert_eq!(sfu.ledger().unwrap().workers[0].peers, 2);
    viewer.send(Request::Leave(proto::LeaveRequest::default())).await;
    // The room answers before its media worker has read the command that removes the peer.
    drive(&mut [&mut viewer], |c| c[0].closed && sfu.ledger().unwrap().workers[0].peers == 1).await;
    let mut second = subscribe(&sfu, "second", &track).await;
    let mids = second.mid_to_track.len();
    assert_eq!(mids, 1);
    publisher.send(Request::Leave(proto::LeaveRequest::default())).await;
    drive(&mut [&mut publisher], |c| c[0].closed).await;
    // The track is taken out of the next offer, and the others hear of it.
    drive(&mut [&mut second], |c| {
        c[0].mid_to_track.is_empty()
            && sfu.ledger().unwrap().workers[0].peers == 1
            && c[0].responses.iter().any(|response| match response {
                Response::Update(update) => update.participants.iter().any(|p| {
                    p.identity == "publisher"
                        && p.state() == proto::participant_info::State::Disconnected
                }),
                _ => false,
            })
    })
    .await;
    let ledger = sfu.ledger().unwrap();
    let attendance = ledger.signalling.attendance;
    assert_eq!((attendance.joins, attendance.leaves), (3, 2));
    assert_eq!(ledger.rooms[0].participants, 1);
    assert_eq!(ledger.rooms[0].published.len(), 1, "the row of an ended track is kept");
    drop(second);
}

#[tokio::test]
async fn the_same_identity_evicts_the_earlier_one() {
    let sfu = start("", 1);
    let mut first = Client::connect(&sfu, "alice", grants(ROOM)).await;
    let mut second = Client::connect(&sfu, "alice", grants(ROOM)).await;
    drive(&mut [&mut first, &mut second], |c| c[0].closed).await;
    assert_eq!(first.left.unwrap().reason(), proto::DisconnectReason::DuplicateIdentity);
    assert!(second.left.is_none() && !second.closed);
    let sids: BTreeSet<_> =
        [first.join, second.join].map(|j| j.unwrap().participant.unwrap().sid).into();
    assert_eq!(sids.len(), 2);
}

#[tokio::test]
async fn resuming_is_answered_with_a_reconnect() {
    let sfu = start("", 1);
    let client = Client::connect_with(&sfu, "alice", grants(ROOM), "reconnect=1&sid=PA_x").await;
    let leave = client.left.unwrap();
    assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
    assert_eq!(sfu.ledger().unwrap().signalling.attendance.joins, 0);
}

#[tokio::test]
async fn subscriptions_can_be_made_by_hand() {
    let sfu = start("", 1);
    let (mut publisher, _, track) = publish(&sfu, &[]).await;
    let mut viewer = Client::connect_with(&sfu, "viewer", subscriber(), "auto_subscribe=0").await;
    drive(&mut [&mut publisher, &mut viewer], |c| c[1].subscriber.connected).await;
    assert!(viewer.mid_to_track.is_empty());
    let subscription = |subscribe| {
        Request::Subscription(proto::UpdateSubscription {
            track_sids: vec![track.clone()],
            subscribe,
            ..proto::UpdateSubscription::default()
        })
    };
    viewer.send(subscription(true)).await;
    drive(&mut [&mut publisher, &mut viewer], |c| c[1].mid_to_track.len() == 1).await;
    viewer.send(subscription(false)).await;
    drive(&mut [&mut publisher, &mut viewer], |c| c[1].mid_to_track.is_empty()).await;
    viewer.send(subscription(true)).await;
    drive(&mut [&mut publisher, &mut viewer], |c| c[1].mid_to_track.len() == 1).await;
    assert_eq!(viewer.offers, 4);
}

#[tokio::test]
async fn pings_mutes_and_refusals_are_answered() {
    let sfu = start("", 1);
    let (mut publisher, _, track) = publish(&sfu, &[]).await;
    let mut viewer = subscribe(&sfu, "viewer", &track).await;
    viewer.send(Request::Ping(7)).await;
    viewer.send(Request::PingReq(proto::Ping { timestamp: 9, rtt: 1 })).await;
    let add = proto::AddTrackRequest { cid: "x".into(), r#type: 1, ..Default::default() };
    viewer.send(Request::AddTrack(add)).await;
    let mute = proto::MuteTrackRequest { sid: track.clone(), muted: true };
    publisher.send(Request::Mute(mute)).await;
    let muted = |response: &Response| match response {
        Response::Update(update) => {
            update.participants.iter().flat_map(|p| &p.tracks).any(|info| info.muted)
        }
        _ => false,
    };
    drive(&mut [&mut publisher, &mut viewer], |c| {
        let seen = &c[1].responses;
        seen.iter().any(|r| matches!(r, Response::Pong(_)))
            && seen
                .iter()
                .any(|r| matches!(r, Response::PongResp(pong) if pong.last_ping_timestamp == 9))
            && seen.iter().any(|r| {
                matches!(r, Response::RequestResponse(refused)
                    if refused.reason() == proto::request_response::Reason::NotAllowed)
            })
            && seen.iter().any(muted)
    })
    .await;
    assert!(viewer.responses.iter().any(|r| matches!(r, Response::RefreshToken(_))));
    assert!(viewer.responses.iter().any(|r| matches!(r, Response::Trickle(_))));
}

#[tokio::test]
async fn every_codec_starts_at_its_keyframe() {
    // First bytes of a delta and of a keyframe: an H.264 or H.265 slice and a parameter set, AV1
    // aggregation headers without and with N, VP9 descriptors with P set and with B only.
    let codecs = [
        (Codec::H264, [0x41, 1, 2], [0x67, 1, 2]),
        (Codec::H265, [0x02, 1, 0x80], [0x42, 1, 1]),
        (Codec::Av1, [0x10, 1, 2], [0x18, 1, 2]),
        (Codec::Vp9, [0x48, 1, 2], [0x08, 1, 2]),
    ];
    for (codec, delta, keyframe) in codecs {
        let sfu = start("", 1);
        let (mut publisher, mid, track) = publish(&sfu, &[]).await;
        publisher.codec = codec;
        let mut viewer = subscribe(&sfu, "viewer", &track).await;
        for (seq, payload) in [delta, delta, keyframe, delta].into_iter().enumerate() {
            publisher.write(mid, None, seq as u64, 0, payload.to_vec());
            run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(5)).await;
        }
        drive(&mut [&mut publisher, &mut viewer], |c| seqs(c[1], &track).len() == 2).await;
        assert_eq!(viewer.packets[&track][0].payload.as_ref(), keyframe, "{codec:?}");
        assert_eq!(sfu.ledger().unwrap().rooms[0].published[0].counted.keyframes, 1, "{codec:?}");
    }
}

#[tokio::test]
async fn data_packets_reach_the_others_with_the_senders_name() {
    let sfu = start("", 2);
    let (mut publisher, _, track) = publish(&sfu, &[]).await;
    let mut viewer = subscribe(&sfu, "viewer", &track).await;
    drive(&mut [&mut publisher, &mut viewer], |c| c[0].channels.contains_key("_reliable")).await;
    let packet = proto::DataPacket {
        destination_identities: vec!["viewer".into()],
        participant_identity: "somebody else".into(),
        ..proto::DataPacket::default()
    };
    let id = publisher.channels["_reliable"];
    // The viewer's own channels open some time after its connection is up.
    while viewer.data.is_empty() {
        let mut channel = publisher.publisher.rtc.channel(id).unwrap();
        assert!(channel.write(true, &packet.encode_to_vec()).unwrap());
        run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(20)).await;
    }
    let received = proto::DataPacket::decode(viewer.data[0].as_slice()).unwrap();
    assert_eq!(received.participant_identity, "publisher");
}
