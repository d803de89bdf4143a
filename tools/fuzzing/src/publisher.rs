//! A publisher, and a server that asks it for anything.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use stampede_core::{AudioOptions, MediaKind, Peer, PeerUpdate, PublishLayer, PublishTrack, Slots};
use stampede_media::{MediaClip, builtin};
use str0m::Rtc;
use str0m::change::SdpOffer;

use crate::bytes::Bytes;
use crate::peer::{Pair, options, peer_address, server_address};
use crate::subscriber::compound;

const STEPS_MAX: usize = 64;
/// A run of a tenth of an hour of media, and all that can be asked for again, have less.
const DATAGRAMS_MAX: u64 = 300_000;

fn clips() -> &'static [Arc<MediaClip>; 3] {
    static CLIPS: OnceLock<[Arc<MediaClip>; 3]> = OnceLock::new();
    CLIPS.get_or_init(|| {
        let [low, middle, _] = builtin::video_layers().unwrap();
        [Arc::new(low), Arc::new(middle), Arc::new(builtin::audio().unwrap())]
    })
}

fn tracks() -> Vec<PublishTrack> {
    let track =
        |cid: &str, kind, layers: Vec<(Option<&'static str>, &Arc<MediaClip>)>| PublishTrack {
            cid: cid.to_owned(),
            kind,
            layers: layers
                .into_iter()
                .map(|(rid, clip)| PublishLayer { rid, clip: Arc::clone(clip) })
                .collect(),
            start_offset: Duration::ZERO,
            speaking: None,
            audio: AudioOptions::default(),
        };
    let [low, middle, audio] = clips();
    vec![
        track("camera", MediaKind::Video, vec![(Some("q"), low), (Some("h"), middle)]),
        track("microphone", MediaKind::Audio, vec![(None, audio)]),
    ]
}

/// RTCP that the server has sealed, whatever it says, datagrams, and what signalling may say.
pub(crate) fn feedback(input: &[u8]) {
    let mut input = Bytes::of(input);
    let mut options = options();
    options.adapt = input.below(4) == 1;
    let make = |now| Peer::publisher(now, peer_address(), &options, tracks()).unwrap();
    let mut pair = Pair::new(make, Rtc::builder());
    let now = pair.now;
    let offer = pair.peer.create_offer(now, Slots::default(), true).unwrap();
    let ssrcs: Vec<u32> = offer
        .lines()
        .filter_map(|line| line.strip_prefix("a=ssrc:")?.split(' ').next()?.parse().ok())
        .collect();
    let offer = SdpOffer::from_sdp_string(&offer).unwrap();
    let answer = pair.server.sdp_api().accept_offer(offer).unwrap().to_sdp_string();
    pair.peer.accept_answer(now, &answer, &[]).unwrap();
    pair.connect();
    let (_, mut rtcp) = pair.sealers();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.below(5) {
            0 | 1 => {
                let Some(mut compound) = compound(&mut input) else { continue };
                // About a stream that there is.
                let ssrc = ssrcs.get(usize::from(input.u8()) % ssrcs.len().max(1));
                if let (Some(ssrc), Some(media)) = (ssrc, compound.get_mut(8..12)) {
                    media.copy_from_slice(&ssrc.to_be_bytes());
                }
                if let Some(sealed) = rtcp.seal(&compound) {
                    pair.hears(server_address(), &sealed);
                }
            }
            2 => {
                let datagram = input.piece();
                pair.hears(server_address(), datagram);
            }
            3 => pair.run(Duration::from_millis(input.u8().into())),
            _ => {
                let cid = ["camera", "microphone"][usize::from(input.below(2))].to_owned();
                let bits = input.u8();
                let bit = |bit: u8| bits >> bit & 1 == 1;
                pair.peer.update(match input.below(2) {
                    0 => PeerUpdate::PublishMuted { cid, muted: bit(0) },
                    _ => {
                        let (wanted, backup) = ([bit(0), bit(1), bit(2)], [bit(3), bit(4), bit(5)]);
                        PeerUpdate::LayersWanted { cid, wanted, backup, obey: bit(6) }
                    }
                });
            }
        }
    }
    assert!(pair.peer.is_alive(), "{:?}", pair.sink.events);
    assert!(pair.sink.sent < DATAGRAMS_MAX, "{} datagrams", pair.sink.sent);
    pair.finish();
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    // Of one packet: kind and count, then sender's and media's SSRC, and what it says.
    let packet = |kind: u8, count: u8, body: &[u8]| {
        [&[0, 0, kind - 192, count, body.len() as u8][..], body, &[1, 0]].concat()
    };
    let nack = packet(205, 1, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 18, 0xff, 0xff]);
    let pli = packet(206, 1, &[0, 0, 0, 1, 0, 0, 0, 0]);
    let remb = packet(206, 15, b"\0\0\0\x01\0\0\0\0REMB\x01\x04\0\0\0\0\0\x07");
    let report = packet(201, 1, &[[0, 0, 0, 1, 0, 0, 0, 0], [9; 8], [9; 8], [0; 8]].concat());
    [0_u8, 1]
        .into_iter()
        .map(|how| {
            let mut seed = vec![how, 3, 200];
            for part in [&nack, &pli, &remb, &report] {
                seed.extend(part);
                seed.extend([3, 100]);
            }
            seed.extend([4, 0, 0x41, 1, 3, 100, 4, 0, 1, 0, 2, 4, 0, 22, 0xfe, 0xfd, 0]);
            seed
        })
        .collect()
}
