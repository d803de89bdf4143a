//! A subscriber: datagrams of whoever can send it some, and media and messages of a server that has gone
//! mad.

use std::time::Duration;

use stampede_core::data::RpcRole;
use stampede_core::{CaptureLimits, Peer, PeerRole, PeerUpdate, StreamReport};
use str0m::Rtc;
use str0m::change::SdpAnswer;
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind};

use crate::bytes::{Bytes, pieces};
use crate::peer::{Pair, options, peer_address, server_address};

const TRACKS: [&str; 2] = ["TR_audio", "TR_video"];
/// Most things that one input makes happen.
const STEPS_MAX: usize = 256;

/// What media of a connected pair is sealed by.
struct Streams {
    audio: u32,
    video: u32,
    rtx: u32,
    payload_types: Vec<u8>,
}

fn offered(pair: &mut Pair) -> Streams {
    let now = pair.now;
    let mut changes = pair.server.sdp_api();
    let mut add = |kind, track: &str| {
        let stream = Some(format!("PA_x|{track}"));
        changes.add_media(kind, Direction::SendOnly, stream, Some(track.to_owned()), None)
    };
    let audio = add(MediaKind::Audio, TRACKS[0]);
    let video = add(MediaKind::Video, TRACKS[1]);
    changes.add_channel("_reliable".to_owned());
    let (offer, pending) = changes.apply().unwrap();
    let mids = [(video.to_string(), TRACKS[1].to_owned())];
    let answer = pair.peer.accept_offer(now, &offer.to_sdp_string(), &mids).unwrap();
    let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
    pair.server.sdp_api().accept_answer(pending, answer).unwrap();
    let params = pair.server.codec_config().params().iter();
    let mut payload_types: Vec<u8> = params
        .flat_map(|params| [Some(params.pt()), params.resend()])
        .flatten()
        .map(|pt| *pt)
        .collect();
    // The ones that are mostly meant stand in front.
    let of = |codec| {
        let params = pair.server.codec_config().params().iter();
        params.filter(|params| params.spec().codec == codec).map(|params| *params.pt()).next()
    };
    let first: Vec<u8> = [Codec::Vp8, Codec::Opus].into_iter().filter_map(of).collect();
    payload_types.retain(|pt| !first.contains(pt));
    payload_types.splice(0..0, first);
    let mut direct = pair.server.direct_api();
    let audio = *direct.stream_tx_by_mid(audio, None).unwrap().ssrc();
    let stream = direct.stream_tx_by_mid(video, None).unwrap();
    let (video, rtx) = (*stream.ssrc(), stream.rtx().map_or(0, |rtx| *rtx));
    Streams { audio, video, rtx, payload_types }
}

fn pair(recording: bool, answers_calls: bool) -> Pair {
    let call = RpcRole { tag: 1, method: "echo".into(), callee: None, calls: None };
    let rpc = answers_calls.then_some(call);
    let role = PeerRole { rpc, ..PeerRole::subscriber(recording) };
    let make = |now| Peer::with_role(now, peer_address(), &options(), role).unwrap();
    Pair::new(make, Rtc::builder())
}

/// Datagrams from the server's address and from others', before, while and after it is connected, made
/// up and made of real ones. Without the keys nobody can say anything that is believed, and nobody can
/// end a connection that stands.
pub(crate) fn datagrams(input: &[u8]) {
    let mut input = Bytes::of(input);
    let mut pair = pair(false, false);
    let streams = offered(&mut pair);
    let begins = input.below(8);
    // From the beginning, amid the handshake, or once it stands, as mostly.
    match begins {
        0 => {}
        1 | 2 => (0..begins).for_each(|_| pair.run(Duration::from_millis(5))),
        _ => pair.connect(),
    }
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let how = input.u8();
        let from = if how & 1 == 0 { server_address() } else { ([10, 0, 0, how], 9).into() };
        match how >> 1 & 3 {
            0 => {
                let datagram = input.piece();
                pair.hears(from, datagram);
            }
            // One that was said, with some changes.
            1 | 2 => {
                let back = usize::from(input.u8());
                let Some(mut datagram) = pair.said.get(back % pair.said.len().max(1)).cloned()
                else {
                    continue;
                };
                for change in input.short().chunks_exact(3) {
                    let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
                    let at = at % datagram.len().max(1);
                    if let Some(byte) = datagram.get_mut(at) {
                        *byte = change[2];
                    }
                }
                if how & 8 == 8 {
                    datagram.truncate(usize::from(input.u16()) % 1_501);
                }
                pair.hears(from, &datagram);
            }
            _ => pair.run(Duration::from_millis(input.u8().into())),
        }
    }
    if begins > 2 {
        assert!(pair.peer.is_connected() && pair.peer.is_alive(), "{:?}", pair.sink.events);
        let media = pair.peer.counters();
        let believed = media.video.packets.received + media.audio.packets.received;
        assert_eq!(believed, 0, "nothing was sealed");
        // And it hears on.
        let (rtp, _) = pair.sealers();
        let mut packet = vec![0x80, streams.payload_types[0], 0, 1, 0, 0, 0, 1];
        packet.extend(streams.video.to_be_bytes());
        packet.extend([0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0, 0, 0, 0]);
        packet.resize(packet.len() + rtp.tag_bytes(), 0);
        rtp.seal(&mut packet, 12, streams.video, 1).unwrap();
        pair.hears(server_address(), &packet);
        assert_eq!(pair.peer.counters().video.packets.received, 1, "it is heard");
    }
    pair.finish();
}

pub(crate) fn datagram_seeds() -> Vec<Vec<u8>> {
    let stun = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let dtls = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 1, 0, 4, 1, 0, 0, 0];
    let rtp =
        [0x90, 0x60, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0xbe, 0xde, 0, 1, 0x10, 0x30, 0, 0, 7, 7, 7, 7];
    let rtcp = [0x80, 200, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut seeds = Vec::new();
    for begins in [0, 1, 3] {
        let mut seed = vec![begins];
        for datagram in [&stun[..], &dtls, &rtp, &rtcp] {
            for from in [0, 1] {
                seed.push(from);
                seed.extend(pieces([datagram]));
            }
        }
        // What was said, again as it was, changed, and cut.
        seed.extend([2, 0, 0, 3, 1, 0, 2, 3, 3, 20, 0, 0xff, 10, 2, 0, 30, 0, 6, 200]);
        seeds.push(seed);
    }
    seeds
}

/// Media, RTCP and messages that the server has sealed, whatever they say.
pub(crate) fn media(input: &[u8]) {
    let mut input = Bytes::of(input);
    let how = input.u8();
    let mut pair = pair(how & 1 == 1, how & 8 == 8);
    if how & 2 == 2 {
        let (span, bytes_max) = (Duration::from_secs(2), 1 << 20);
        pair.peer.start_capture(CaptureLimits { span, bytes_max, payload: how & 4 == 4 });
    }
    let streams = offered(&mut pair);
    pair.connect();
    let (rtp, mut rtcp) = pair.sealers();
    let mut media = Media { streams, last: [(1, 1); 4], sealed: 0, payload_bytes: 0 };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0..=3 => {
                if let Some(packet) = media.packet(&mut input, &rtp) {
                    pair.hears(server_address(), &packet);
                }
            }
            4 => {
                if let Some(sealed) = compound(&mut input).and_then(|it| rtcp.seal(&it)) {
                    pair.hears(server_address(), &sealed);
                }
            }
            5 => pair.run(Duration::from_millis(input.u8().into())),
            6 => {
                let payload = input.piece();
                let channel = pair.channels.first().copied();
                if let Some(mut channel) = channel.and_then(|id| pair.server.channel(id)) {
                    let _ = channel.write(true, payload);
                }
                pair.exchange();
            }
            _ => {
                let track_id = TRACKS[usize::from(input.below(2))].to_owned();
                pair.peer.update(match input.below(4) {
                    0 => PeerUpdate::Muted { track_id, muted: input.below(2) == 1 },
                    1 => PeerUpdate::Paused { track_id, paused: input.below(2) == 1 },
                    2 => PeerUpdate::TrackGone { track_id, orderly: input.below(2) == 1 },
                    _ => {
                        let same_clock = input.below(2) == 1;
                        PeerUpdate::Track { track_id, same_clock, muted: false }
                    }
                });
            }
        }
    }
    assert!(pair.peer.is_alive(), "{:?}", pair.sink.events);
    let recorded = pair.sink.recorded_bytes;
    let report = pair.finish();
    // Start codes take the place of shorter lengths.
    assert!(recorded <= 4 * media.payload_bytes, "{recorded} of {}", media.payload_bytes);
    let arrived: u64 = report.streams.iter().map(arrived).sum();
    assert!(arrived <= media.sealed, "{arrived} packets of {}", media.sealed);
}

/// Packets that are in any count of a stream.
fn arrived(stream: &StreamReport) -> u64 {
    let packets = stream.packets;
    packets.received
        + packets.duplicate
        + packets.stale
        + packets.rtx_redundant
        + packets.padding_only
}

struct Media {
    streams: Streams,
    /// Of audio, video, RTX and any other: the latest index and timestamp.
    last: [(u64, u32); 4],
    sealed: u64,
    payload_bytes: usize,
}

impl Media {
    /// A packet in which everything is as the input wants it, and by default as it should be.
    fn packet(
        &mut self,
        input: &mut Bytes<'_>,
        rtp: &stampede_core::srtp::RtpSealer,
    ) -> Option<Vec<u8>> {
        let (what, how) = (input.u8(), input.u8());
        let slot = usize::from(what & 3);
        let ssrc = match slot {
            0 => self.streams.video,
            1 => self.streams.audio,
            2 => self.streams.rtx,
            _ => input.u32(),
        };
        let (last, timestamp) = self.last[slot];
        // The next one, one of those around it, or any.
        let index = match how & 3 {
            0 | 1 => last + 1,
            2 => (last + 128).saturating_sub(input.u8().into()),
            _ => {
                let ahead = u64::from(input.u16().wrapping_sub(last as u16));
                if ahead < 0x8000 || last + ahead < 0x1_0000 {
                    last + ahead
                } else {
                    last + ahead - 0x1_0000
                }
            }
        };
        let timestamp = match how >> 2 & 3 {
            0 => timestamp,
            1 | 2 => timestamp.wrapping_add(3_000),
            _ => input.u32(),
        };
        self.last[slot] = (index.max(last), timestamp);
        let types = &self.streams.payload_types;
        let payload_type = match how >> 4 & 3 {
            // VP8 and Opus.
            0 | 1 => types[usize::from(slot == 1)],
            2 => types[usize::from(input.u8()) % types.len()],
            _ => input.u8(),
        };
        let mut first = 0x80;
        let mut extension = Vec::new();
        if how & 0x40 == 0x40 {
            first |= 0x10;
            let profile = [[0xbe, 0xde], [0x10, 0x00], [what, how]][usize::from(input.below(3))];
            let content = input.short();
            let words = content.len().div_ceil(4);
            extension.extend(profile);
            extension.extend((words as u16).to_be_bytes());
            extension.extend(content);
            extension.resize(4 + words * 4, 0);
        }
        if how & 0x80 == 0x80 {
            first |= 0x20;
        }
        let mut packet = vec![first, payload_type & 0x7f | what & 0x80];
        packet.extend((index as u16).to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.extend(extension);
        let header = packet.len();
        let payload = input.piece();
        packet.extend(&payload[..payload.len().min(1_400)]);
        self.payload_bytes += packet.len() - header;
        packet.resize(packet.len() + rtp.tag_bytes(), 0);
        rtp.seal(&mut packet, header, ssrc, index)?;
        self.sealed += 1;
        Some(packet)
    }
}

/// Packets of RTCP behind each other, of any type and length.
pub(crate) fn compound(input: &mut Bytes<'_>) -> Option<Vec<u8>> {
    let mut compound = Vec::new();
    for _ in 0..=input.below(4) {
        let (kind, count) = (192 + input.below(32), input.below(32));
        let body = input.short();
        let words = body.len().div_ceil(4);
        // Its length is mostly right.
        let said = if input.below(4) == 0 { usize::from(input.u8()) } else { words };
        compound.extend([0x80 | count, kind]);
        compound.extend((said as u16).to_be_bytes());
        compound.extend(body);
        compound.resize(compound.len() + words * 4 - body.len(), 0);
    }
    (compound.len() >= 8).then_some(compound)
}

pub(crate) fn media_seeds() -> Vec<Vec<u8>> {
    // Step, stream, how, payload: VP8 in two packets with a gap, audio, RTX of what is missing.
    let vp8 = |start: u8, id: u8| {
        [start, 0xe0, 0x80, id, id, 0x20, 0x10, 0, 0, 0x9d, 1, 0x2a, 64, 0, 64, 0]
    };
    let packet = |what: u8, how: u8, more: &[u8], payload: &[u8]| {
        [&[0, what, how], more, &pieces([payload])].concat()
    };
    let mut seeds = Vec::new();
    for how in [0, 1, 2, 7, 9, 15] {
        let mut seed = vec![how];
        for id in 0..6 {
            seed.extend(packet(0, 4, &[], &vp8(0x90, id)));
            seed.extend(packet(0x80, 0, &[], &vp8(0x80, id)));
            seed.extend(packet(1, 4, &[], &[0xfc, 1, 2, 3]));
            // By a number further on, then what it passed over by RTX.
            seed.extend(packet(0, 2, &[126], &vp8(0x90, id)));
            seed.extend(packet(2, 0x20, &[2], &[&[0, 3][..], &vp8(0x80, id)].concat()));
            // With extensions, and with padding only.
            seed.extend(packet(
                0,
                0x40,
                &[0, 8, 0x10, 0x30, 0x22, 1, 2, 3, 0x50, 7],
                &vp8(0x90, id),
            ));
            seed.extend(packet(0, 0x80, &[], &[0, 0, 0, 4]));
            seed.extend([5, 33]);
        }
        // A sender report, a message, and what signalling says.
        seed.extend([4, 0, 8, 0, 24]);
        seed.extend([0; 24]);
        seed.extend([1, 6]);
        seed.extend(pieces([&[0x12, 0x04, 0x12, 0x02, 1, 2][..]]));
        // A call.
        seed.push(6);
        seed.extend(pieces([&b"\x22\x01a\x52\x0d\x0a\x01i\x12\x04echo\x1a\x02hi"[..]]));
        seed.extend([7, 1, 0, 1, 7, 0, 1, 1, 7, 1, 2, 1]);
        seeds.push(seed);
    }
    seeds
}
