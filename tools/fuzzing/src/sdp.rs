//! Session descriptions and candidates.

use std::borrow::Cow;
use std::time::Instant;

use stampede_core::{Peer, Slots};
use stampede_sdp::{Candidate, Description, MEDIA_MAX, SSRCS_MAX};
use str0m::Rtc;
use str0m::change::SdpOffer;

use crate::bytes::{Bytes, pieces};
use crate::peer::{options, peer_address};

/// Those of a livekit-server, as the tests have them.
pub(crate) const OFFERS: [&str; 4] = [
    include_str!("../../../engine/core/tests/data/subscriber-offer-vp8-1.sdp"),
    include_str!("../../../engine/core/tests/data/subscriber-offer-vp8-2.sdp"),
    include_str!("../../../engine/core/tests/data/subscriber-offer-h264-1.sdp"),
    include_str!("../../../engine/core/tests/data/subscriber-offer-h264-2.sdp"),
];

/// Pieces of descriptions.
pub(crate) const WORDS: &[&[u8]] = &[
    b"m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n",
    b"m=audio 0 UDP/TLS/RTP/SAVPF 111\r\n",
    b"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
    b"a=mid:",
    b"a=ssrc:1 cname:x\r\n",
    b"a=ssrc-group:FID 1 2\r\n",
    b"a=rtpmap:96 VP8/90000\r\n",
    b"a=fmtp:97 apt=96\r\n",
    b"a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\n",
    b"a=simulcast:recv q;h;f\r\n",
    b"a=rid:q recv\r\n",
    b"a=recvonly\r\n",
    b"a=inactive\r\n",
    b"a=group:BUNDLE 0 1\r\n",
    b"a=candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host\r\n",
    b"a=max-message-size:0\r\n",
    b"\r\n",
    b"\n",
    b"\xff",
];

/// A description as it is parsed. One that is written again is the same.
pub(crate) fn description(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for line in text.lines().take(64) {
        if let Some(candidate) = Candidate::parse(line) {
            let _ = candidate.socket_address();
        }
    }
    let Ok(parsed) = Description::parse(&text) else { return };
    assert!(!parsed.media.is_empty() && parsed.media.len() <= MEDIA_MAX);
    assert!(parsed.media.iter().all(|media| media.ssrcs.len() <= SSRCS_MAX));
    let _ = parsed.transport();
    let rejected = parsed.media.iter().filter(|media| parsed.is_rejected(media)).count();
    let (kinds, candidates) = (parsed.media.len(), parsed.candidates().count());
    let again = parsed.rewrite(|_, line| Some(Cow::Borrowed(line)));
    let read = Description::parse(&again).expect("what was parsed is parsed again");
    let rejected_again = read.media.iter().filter(|media| read.is_rejected(media)).count();
    assert_eq!((kinds, candidates), (read.media.len(), read.candidates().count()));
    assert_eq!(rejected, rejected_again);
    assert_eq!(again, read.rewrite(|_, line| Some(Cow::Borrowed(line))), "and written the same");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    OFFERS.iter().map(|offer| offer.as_bytes().to_vec()).collect()
}

/// What peers make of descriptions and candidates: an offer to who receives, an answer to who offers.
/// What is refused leaves them as they were.
pub(crate) fn client(input: &[u8]) {
    let mut input = Bytes::of(input);
    let (how, now) = (input.u8(), Instant::now());
    let mut peer = Peer::subscriber(now, peer_address(), &options(), false).unwrap();
    let offers = how & 1 == 1;
    if offers {
        let slots = Slots { audio: u32::from(how >> 1 & 3), video: u32::from(how >> 3 & 3) };
        peer.create_offer(now, slots, false).unwrap();
    }
    // The first ones are of lengths of their own, the last one is all that is left.
    for _ in 0..how >> 6 {
        one(&mut peer, now, offers, input.piece());
    }
    one(&mut peer, now, offers, input.rest());
    // It can still be used, unless what it took ended it.
    if !peer.is_alive() {
        return;
    }
    if offers {
        let Ok(offer) = peer.create_offer(now, Slots { audio: 1, video: 0 }, false) else { return };
        SdpOffer::from_sdp_string(&offer).expect("an offer that str0m reads");
    } else {
        let answer = peer.accept_offer(now, OFFERS[0], &[]).map(|answer| {
            Description::parse(&answer).expect("an answer that can be parsed").media.len()
        });
        // What it took before may have other m-lines, or another transport.
        assert!(matches!(answer, Err(_) | Ok(1)));
    }
}

fn one(peer: &mut Peer, now: Instant, offers: bool, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    if text.starts_with("candidate:") {
        let _ = peer.add_remote_candidate(now, &text);
    } else if offers {
        let _ = peer.accept_answer(now, &text, &[("0".into(), "TR_1".into())]);
    } else if let Ok(answer) = peer.accept_offer(now, &text, &[("1".into(), "TR_1".into())]) {
        let offer = Description::parse(&text).expect("what is answered can be parsed");
        let answer = Description::parse(&answer).expect("an answer that can be parsed");
        let mids = |of: &Description<'_>| -> Vec<String> {
            of.media.iter().map(|media| media.mid.to_owned()).collect()
        };
        assert_eq!(mids(&offer), mids(&answer), "each m-line is answered");
        let mut media = answer.media.iter().filter(|media| media.media_type.kind().is_some());
        assert!(media.all(|media| !media.direction.sends()), "it only receives");
    }
}

pub(crate) fn client_seeds() -> Vec<Vec<u8>> {
    let candidate = b"candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host";
    let mut seeds = Vec::new();
    for offer in OFFERS {
        seeds.push([&[0][..], offer.as_bytes()].concat());
        seeds.push(
            [&[0x80], &pieces([offer.as_bytes(), candidate])[..], OFFERS[1].as_bytes()].concat(),
        );
    }
    // An answer to each kind of offer.
    for how in [0x01, 0x0b] {
        let now = Instant::now();
        let mut peer = Peer::subscriber(now, peer_address(), &options(), false).unwrap();
        let slots = Slots { audio: u32::from(how >> 1 & 3), video: u32::from(how >> 3 & 3) };
        let offer = peer.create_offer(now, slots, false).unwrap();
        let offer = SdpOffer::from_sdp_string(&offer).unwrap();
        let answer = Rtc::builder().build(now).sdp_api().accept_offer(offer).unwrap();
        seeds.push([&[how][..], answer.to_sdp_string().as_bytes()].concat());
    }
    seeds
}
