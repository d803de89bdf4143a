//! How many SSRCs of a publisher's are looked at.

use std::sync::{Arc, OnceLock};

use stampede_core::srtp::Keying;
use str0m::crypto::dtls::SrtpProfile;

use super::*;

#[test]
fn the_ssrcs_that_belong_to_a_track_or_to_none_are_bounded_until_a_track_ends() {
    let mut incoming = Incoming::new(KeySlot::default());
    for ssrc in 0..PUBLISHER_SSRCS_MAX as u32 {
        assert!(!incoming.is_full());
        let place = StreamPlace { track: (ssrc % 2) as usize, stream: 0 };
        incoming.learn(ssrc, (ssrc > 9).then_some(place));
    }
    assert!(incoming.is_full());
    incoming.unbind(0);
    assert!(!incoming.is_full());
    assert_eq!((incoming.place(0), incoming.place(10)), (None, None));
    assert!(incoming.place(11).is_some());
}

/// An RTP packet of this SSRC, as the client encrypts it.
fn sealed(client: &Keying, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 96, 0, 1, 0, 0, 0, 0];
    packet.extend(ssrc.to_be_bytes());
    let header_bytes = packet.len();
    packet.extend([7; 20]);
    let sealer = client.rtp_sealer().unwrap();
    packet.resize(packet.len() + sealer.tag_bytes(), 0);
    assert!(sealer.seal(&mut packet, header_bytes, ssrc, 1).is_some());
    packet
}

#[test]
fn further_authentic_ssrcs_are_refused_and_those_that_are_known_go_on() {
    let keying = |is_client| Keying::new(SrtpProfile::AEAD_AES_128_GCM, vec![7; 56], is_client);
    let keys = Arc::new(OnceLock::new());
    assert!(keys.set(keying(false)).is_ok());
    let (mut incoming, client) = (Incoming::new(keys), keying(true));
    let last = AUTHENTIC_SSRCS_MAX as u32;
    assert!((0..last).all(|ssrc| incoming.admits(&sealed(&client, ssrc))));
    assert!(!incoming.admits(&sealed(&client, last)));
    assert!(incoming.admits(&sealed(&client, 0)) && incoming.admits(&sealed(&client, last - 1)));
}
