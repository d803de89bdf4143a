//! What a subscriber tells of the way to it, and which layers it gets for that: end to end, with
//! estimates that a test makes up.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{
    Client, Connection, DescriptorValue, Numbered, drive, grants, options, row, run_for, start, vp8,
};
use livekit_protocol as proto;
use livekit_token::VideoGrants;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use stampede_media::{Codec, ScalabilityMode, builtin};
use stampede_sfu::{Congestion, Sfu, SfuOptions};
use str0m::bwe::Bitrate;
use str0m::media::{MediaKind, Mid};
use str0m::rtp::ExtensionValues;

const ROOM: &str = "room";
/// Payload bytes of a packet of each layer; one comes every 20 ms: 48, 200 and 450 kbit/s.
const PAYLOAD_BYTES: [usize; 3] = [100, 480, 1_100];

/// Of a packet of a voice, of which there is one every 20 ms too: 200 kbit/s.
const VOICE_BYTES: usize = 500;

/// A publisher of three layers and of voices, and one who watches and listens.
struct Room {
    publisher: Client,
    viewer: Client,
    mid: Mid,
    track: String,
    voices: Vec<Mid>,
    /// Another track of one layer, of 450 kbit/s.
    screen: Option<Mid>,
    frames: u64,
}

impl Room {
    async fn new(sfu: &Sfu, query: &str) -> Self {
        Self::with_voices(sfu, query, 0).await
    }

    async fn with_voices(sfu: &Sfu, query: &str, count: usize) -> Self {
        let grants_of = |publishes| VideoGrants {
            can_publish: Some(publishes),
            can_subscribe: Some(!publishes),
            ..grants(ROOM)
        };
        let mut publisher = Client::connect(sfu, "publisher", grants_of(true)).await;
        let mid = publisher.publish("camera", MediaKind::Video, &["q", "h", "f"]).await;
        drive(&mut [&mut publisher], |c| {
            c[0].publisher.connected && c[0].published("camera").is_some()
        })
        .await;
        let track = publisher.published("camera").unwrap();
        let mut voices = Vec::new();
        for voice in (0..count).map(|voice| format!("voice {voice}")) {
            voices.push(publish(&mut publisher, &voice, MediaKind::Audio).await);
        }
        let mut viewer = Client::connect_with(sfu, "viewer", grants_of(false), query).await;
        if query.starts_with("auto_subscribe=0") {
            viewer.send(subscription(&track)).await;
        }
        drive(&mut [&mut viewer], |c| {
            c[0].subscriber.connected
                && c[0].mid_to_track.values().any(|known| *known == track)
                && c[0].mid_to_track.len() == 1 + count
        })
        .await;
        Self { publisher, viewer, mid, track, voices, screen: None, frames: 0 }
    }

    /// A packet of each layer every 20 ms, and an estimate every 200 ms, for so long.
    async fn watch(&mut self, seconds: u64, mut estimate_bps: impl FnMut(u64) -> u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut told = 0;
        while Instant::now() < end {
            let at = self.frames;
            self.frames += 1;
            for (layer, rid) in ["q", "h", "f"].iter().enumerate() {
                let requests = &mut self.publisher.keyframe_requests;
                let wanted = requests.iter().any(|r| r.as_deref() == Some(*rid));
                requests.retain(|r| r.as_deref() != Some(*rid));
                let (seq, time) = (5_000 * layer as u64 + at, 1_800 * at as u32);
                let bytes = PAYLOAD_BYTES[layer];
                let payload = vp8(at as u16, at == 0 || wanted, layer as u8, bytes);
                self.publisher.write(self.mid, Some(rid), seq, time, payload);
            }
            for &voice in &self.voices {
                self.publisher.write(voice, None, at, 960 * at as u32, vec![9; VOICE_BYTES]);
            }
            if let Some(screen) = self.screen {
                let payload = vp8(at as u16, at.is_multiple_of(25), 2, PAYLOAD_BYTES[2]);
                self.publisher.write(screen, None, at, 1_800 * at as u32, payload);
            }
            if at.is_multiple_of(10) {
                self.tell(estimate_bps(told));
                told += 1;
            }
            let mut clients = [&mut self.publisher, &mut self.viewer];
            run_for(&mut clients, Duration::from_millis(20)).await;
        }
    }

    /// The same until that is so.
    async fn watch_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_so(self) {
            assert!(Instant::now() < deadline, "it takes too long");
            self.watch(1, |_| 50_000).await;
        }
    }

    fn tell(&mut self, bps: u64) {
        let ssrcs = &self.viewer.ssrc_track;
        let primary = ssrcs.iter().find(|(_, (track, rtx))| *track == self.track && !rtx);
        let ssrc = (*primary.unwrap().0).into();
        let mut api = self.viewer.subscriber.rtc.direct_api();
        if let Some(stream) = api.stream_rx(&ssrc) {
            stream.request_remb(Bitrate::bps(bps));
        }
    }

    /// Layer of the last packet that the viewer has.
    fn layer(&self) -> Option<u8> {
        let packets = self.viewer.packets.get(&self.track)?;
        packets.iter().rev().find(|packet| packet.payload.len() > 20).map(|p| p.payload[20])
    }

    async fn subscribe(&mut self, track: &str) {
        self.viewer.send(subscription(track)).await;
    }

    async fn want(&mut self, wanted: bool) {
        let settings = proto::UpdateTrackSettings {
            track_sids: vec![self.track.clone()],
            disabled: !wanted,
            quality: proto::VideoQuality::High as i32,
            ..proto::UpdateTrackSettings::default()
        };
        self.viewer.send(Request::TrackSetting(settings)).await;
    }

    fn assert_continuous(&self) {
        let seqs: Vec<u64> = self.viewer.packets[&self.track].iter().map(|p| p.seq).collect();
        assert!(seqs.windows(2).all(|two| two[1] == two[0] + 1), "{seqs:?}");
    }

    fn states(&self) -> Vec<i32> {
        let updates = self.viewer.responses.iter().filter_map(|response| match response {
            Response::StreamStateUpdate(update) => Some(&update.stream_states),
            _ => None,
        });
        updates.flatten().map(|state| state.state).collect()
    }
}

/// Publishes a track more, of one layer.
async fn publish(publisher: &mut Client, cid: &str, kind: MediaKind) -> Mid {
    let mid = publisher.publish(cid, kind, &[]).await;
    drive(&mut [publisher], |c| {
        c[0].publisher.rtc.media(mid).is_some() && c[0].published(cid).is_some()
    })
    .await;
    mid
}

fn subscription(track: &str) -> Request {
    Request::Subscription(proto::UpdateSubscription {
        track_sids: vec![track.to_owned()],
        subscribe: true,
        ..proto::UpdateSubscription::default()
    })
}

#[tokio::test]
async fn falling_estimates_cost_layers_and_rising_ones_bring_them_back() {
    let sfu = start("", 1);
    let mut room = Room::new(&sfu, "auto_subscribe=1").await;
    room.watch(3, |_| 2_000_000).await;
    assert_eq!(room.layer(), Some(2));
    // Down to 260 kbit/s in 2 s.
    room.watch(6, |at| 1_400_000u64.saturating_sub(100_000 * at).max(260_000 - at)).await;
    assert_eq!(room.layer(), Some(1), "{:#?}", sfu.ledger().unwrap().rooms[0].subscribers);
    room.assert_continuous();
    // The way is as wide as it was: each estimate is a little higher, whatever is sent.
    room.watch(12, |at| 300_000 + 40_000 * at).await;
    assert_eq!(room.layer(), Some(2), "{:#?}", sfu.ledger().unwrap().rooms[0].subscribers);
    room.assert_continuous();
    let ledger = row(&sfu, ROOM, "viewer", &room.track);
    assert_eq!((ledger.layer, ledger.counts.pauses), (Some(2), 0));
    let ledger = sfu.ledger().unwrap();
    let viewer = ledger.rooms[0].subscribers.iter().find(|one| one.identity == "viewer").unwrap();
    let congestion = viewer.congestion.as_ref().unwrap();
    assert!(congestion.counted.congestions >= 1 && congestion.counted.probes >= 1);
    assert!(congestion.counted.padding_packets > 0, "{congestion:?}");
    assert_eq!(congestion.capacity_bps, None, "all fits again");
    assert_eq!(ledger.totals.congestion, congestion.counted);
    // Padding went where it disturbs nobody, and only there.
    let padding = room.viewer.wire_seqs(&room.track, true).len() as u64;
    assert!(padding >= congestion.counted.padding_packets, "{padding}");
}

#[tokio::test]
async fn what_was_held_and_is_wanted_again_gets_all_its_layers() {
    let sfu = start("", 1);
    let mut room = Room::new(&sfu, "auto_subscribe=1").await;
    room.watch(3, |_| 2_000_000).await;
    room.watch(6, |at| 1_400_000u64.saturating_sub(100_000 * at).max(260_000 - at)).await;
    assert_eq!(room.layer(), Some(1));
    room.want(false).await;
    room.watch(1, |_| 260_000).await;
    let before = room.viewer.packets[&room.track].len();
    room.want(true).await;
    room.watch(3, |_| 2_000_000).await;
    assert!(room.viewer.packets[&room.track].len() > before);
    assert_eq!(room.layer(), Some(2), "{:#?}", sfu.ledger().unwrap().rooms[0].subscribers);
    room.assert_continuous();
}

#[tokio::test]
async fn a_track_that_comes_later_gets_what_is_left() {
    let sfu = start("", 1);
    let mut room = Room::new(&sfu, "auto_subscribe=0&subscriber_allow_pause=1").await;
    room.screen = Some(publish(&mut room.publisher, "screen", MediaKind::Video).await);
    let track = room.publisher.published("screen").unwrap();
    room.watch(3, |_| 2_000_000).await;
    room.watch(6, |at| 1_400_000u64.saturating_sub(100_000 * at).max(260_000 - at)).await;
    assert_eq!(room.layer(), Some(1));
    room.subscribe(&track).await;
    // So low that there is no room for a probe's goal.
    room.watch(2, |_| 259_000).await;
    assert!(room.viewer.mid_to_track.values().any(|known| *known == track));
    assert_eq!(room.viewer.packets.get(&track).map_or(0, Vec::len), 0, "it does not fit");
    assert_eq!(room.states(), [proto::StreamState::Paused as i32]);
    assert_eq!(room.layer(), Some(1));
}

#[tokio::test]
async fn voices_are_no_part_of_a_probe() {
    let sfu = start("", 1);
    let mut room = Room::with_voices(&sfu, "auto_subscribe=1", 15).await;
    room.watch(3, |_| 2_000_000).await;
    room.watch(6, |at| 1_400_000u64.saturating_sub(100_000 * at).max(260_000 - at)).await;
    assert_eq!(room.layer(), Some(1));
    room.watch(6, |at| 300_000 + 2_000 * at).await;
    let ledger = sfu.ledger().unwrap();
    let viewer = ledger.rooms[0].subscribers.iter().find(|one| one.identity == "viewer").unwrap();
    let counted = viewer.congestion.as_ref().unwrap().counted;
    assert!(counted.probes >= 1 && counted.padding_packets > 0, "{counted:?}");
}

#[tokio::test]
async fn who_allows_it_is_paused_and_told() {
    let sfu = start("", 1);
    let mut room = Room::new(&sfu, "auto_subscribe=1&subscriber_allow_pause=1").await;
    room.watch(3, |_| 2_000_000).await;
    room.watch(5, |at| 500_000u64.saturating_sub(40_000 * at).max(20_000 - at)).await;
    assert_eq!(room.states(), [proto::StreamState::Paused as i32]);
    let before = room.viewer.packets[&room.track].len();
    room.watch(1, |_| 20_000).await;
    assert_eq!(room.viewer.packets[&room.track].len(), before, "nothing is sent");
    assert_eq!(row(&sfu, ROOM, "viewer", &room.track).counts.pauses, 1);
}

#[tokio::test]
async fn without_congestion_control_all_get_what_they_ask_for() {
    let sfu = Sfu::start(SfuOptions { congestion: Congestion::None, ..options() }).unwrap();
    let mut room = Room::new(&sfu, "auto_subscribe=1").await;
    room.watch(3, |_| 50_000).await;
    assert_eq!(room.layer(), Some(2));
}

/// Every packet of video has a number, whatever it is for; what arrives says what the way carries, and of
/// another way nothing.
#[tokio::test]
async fn transport_wide_numbers_have_no_gaps_and_tell_of_one_way() {
    let sfu = Sfu::start(SfuOptions { congestion: Congestion::Twcc, ..options() }).unwrap();
    let mut room = Room::new(&sfu, "auto_subscribe=1").await;
    let counted = || {
        let ledger = sfu.ledger().unwrap();
        let viewer = ledger.rooms[0].subscribers.iter().find(|one| one.identity == "viewer");
        viewer.unwrap().congestion.as_ref().map(|congestion| congestion.counted).unwrap()
    };
    let lossy =
        || -> Option<Box<dyn FnMut(u32, u16) -> bool>> { Some(Box::new(|_, seq| seq % 5 < 2)) };
    room.watch(2, |_| 50_000).await;
    assert_eq!(room.layer(), Some(2), "estimates are not asked for");
    room.viewer.subscriber.lose = lossy();
    room.watch_until(|_| counted().congestions == 1).await;
    room.watch(1, |_| 50_000).await;
    let held = room.layer();
    assert!(held < Some(2), "{:?}", counted());
    room.viewer.subscriber.lose = None;
    room.watch_until(|room| counted().padding_packets > 0 && room.layer() > held).await;
    run_for(&mut [&mut room.viewer], Duration::from_millis(100)).await;
    let numbered = room.viewer.subscriber.numbered.clone();
    let next = |two: &[Numbered]| two[1].number == two[0].number.wrapping_add(1);
    assert!(numbered.windows(2).all(next), "{numbered:?}");
    let of = |rtx: bool, padded: bool| {
        let ssrcs = &room.viewer.ssrc_track;
        let is_of = |one: &&Numbered| ssrcs[&one.ssrc].1 == rtx && one.padded == padded;
        numbered.iter().filter(is_of).count() as u64
    };
    let ledger = row(&sfu, ROOM, "viewer", &room.track).counts;
    assert_eq!(of(false, false), ledger.packets_sent);
    assert_eq!(of(true, false), ledger.retransmitted);
    assert_eq!(of(true, true), counted().padding_packets);
    assert!(ledger.retransmitted > 0 && counted().padding_packets > 0, "{ledger:?}");
    assert!(counted().arrival_reports > 50 && counted().estimates == 0, "{:?}", counted());
    // Reports of str0m's come every few seconds, and are heard once though str0m hears them too.
    assert!((1..=20).contains(&counted().reports), "{:?}", counted());
    room.viewer.subscriber.lose = lossy();
    let congestions = counted().congestions;
    room.watch_until(|_| counted().congestions > congestions).await;
    room.watch(1, |_| 50_000).await;
    let congestions = counted().congestions;
    room.watch(1, |_| 50_000).await;
    assert_eq!(counted().congestions, congestions, "it stays congested");
    room.viewer.subscriber.change_port();
    // And is found so anew by another way.
    room.watch_until(|_| counted().congestions > congestions).await;
}

/// Of a stream of temporal layers those pass that have as many pictures as are asked for.
#[tokio::test]
async fn who_needs_fewer_pictures_gets_fewer() {
    let sfu = start("", 1);
    let publishes = VideoGrants { can_subscribe: Some(false), ..grants(ROOM) };
    let mut publisher = Client::connect(&sfu, "publisher", publishes).await;
    (publisher.publisher, publisher.codec) = (Connection::describing(), str0m::format::Codec::Vp9);
    let mid = publish(&mut publisher, "camera", MediaKind::Video).await;
    drive(&mut [&mut publisher], |c| c[0].publisher.connected).await;
    let track = publisher.published("camera").unwrap();
    let watches = VideoGrants { can_publish: Some(false), ..grants(ROOM) };
    let mut viewer = Client::connect(&sfu, "viewer", watches).await;
    drive(&mut [&mut viewer], |c| c[0].subscriber.connected && c[0].mid_to_track.len() == 1).await;
    let clip = builtin::scalable_video(Codec::Vp9, ScalabilityMode::L1T3).unwrap().unwrap();
    let layers = clip.scalability.as_ref().unwrap();
    let mut seq = 0;
    let mut pictures = [0; 2];
    // 25 a second; of four one is of the lowest layer.
    for picture in 0..100 {
        if picture == 50 {
            let setting = proto::UpdateTrackSettings {
                track_sids: vec![track.clone()],
                quality: proto::VideoQuality::High as i32,
                fps: 6,
                ..proto::UpdateTrackSettings::default()
            };
            viewer.send(Request::TrackSetting(setting)).await;
        }
        for (at, packet) in clip.frames[picture].packets.iter().enumerate() {
            let value = layers.descriptor(picture, at, picture as u16).unwrap();
            let mut extensions = ExtensionValues::default();
            extensions.user_values.set(DescriptorValue(value));
            let time = 3_600 * picture as u32;
            let marker = at + 1 == clip.frames[picture].packets.len();
            let payload = (packet.to_vec(), marker);
            publisher.write_marked(mid, None, seq, time, payload, extensions);
            seq += 1;
        }
        run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(40)).await;
        let known = viewer.packets.get(&track).into_iter().flatten();
        let times: std::collections::BTreeSet<_> = known.map(|packet| packet.timestamp).collect();
        if picture == 49 || picture == 99 {
            pictures[picture / 50] = times.len() - pictures[0];
        }
    }
    assert!(pictures[0] >= 48, "{pictures:?}");
    assert!((10..=16).contains(&pictures[1]), "{pictures:?}");
    assert_eq!(row(&sfu, ROOM, "viewer", &track).temporal_layer, Some(0));
}
