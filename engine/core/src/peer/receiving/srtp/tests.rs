//! What is kept of SSRCs that are not sent any more.

use str0m::crypto::dtls::SrtpProfile;

use super::*;

#[test]
fn of_former_ssrcs_the_oldest_is_forgotten() {
    let keying = Keying::new(SrtpProfile::AEAD_AES_128_GCM, vec![7; 56], true);
    let (none, now) = (CongestionFeedback::None, Instant::now());
    let mut receiver = SrtpReceiver::new(&keying, 1, none, now).unwrap();
    let last = FORMER_SSRCS_MAX as u32 + 1;
    for ssrc in 0..=last {
        receiver.open_slot(ssrc, None);
    }
    let slots = [receiver.inbound.len(), receiver.control.reporting.len()];
    assert_eq!(slots, [FORMER_SSRCS_MAX; 2]);
    let place = |ssrc| receiver.by_ssrc.get(ssrc);
    assert_eq!([place(0), place(1), place(2)], [None, None, Some(0)]);
    assert_eq!(place(last), Some(FORMER_SSRCS_MAX - 1));
}
