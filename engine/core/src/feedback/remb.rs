//! The receiver's estimate as RTCP (draft-alvestrand-rmcat-remb-03), and when it is sent
//! (libwebrtc `modules/congestion_controller/remb_throttler.cc`).

use std::time::{Duration, Instant};

use crate::rtcp;

/// Between two messages, unless the estimate fell (libwebrtc `kRembSendInterval`).
pub(crate) const REMB_INTERVAL: Duration = Duration::from_millis(200);
/// Most SSRCs in a message: the count has eight bits.
pub(crate) const REMB_SSRCS_MAX: usize = 255;

const APPLICATION_LAYER: u8 = 15;

/// Holds back estimates that say little new.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    sent: Option<(Instant, f64)>,
}

impl Throttle {
    /// Whether this estimate is to be sent: an interval has passed, or it is below 97 % of the last
    /// one.
    pub(super) fn passes(&mut self, now: Instant, bitrate_bps: f64) -> bool {
        let held_back = self.sent.is_some_and(|(at, sent_bps)| {
            bitrate_bps * 1.03 > sent_bps && now < at + REMB_INTERVAL
        });
        if !held_back {
            self.sent = Some((now, bitrate_bps));
        }
        !held_back
    }
}

/// Appends a REMB; of `ssrcs` the first [`REMB_SSRCS_MAX`].
pub(crate) fn write_remb(out: &mut Vec<u8>, sender: u32, bitrate_bps: u64, ssrcs: &[u32]) {
    let ssrcs = &ssrcs[..ssrcs.len().min(REMB_SSRCS_MAX)];
    rtcp::header(out, APPLICATION_LAYER, rtcp::PAYLOAD_FEEDBACK, 4 + ssrcs.len());
    out.extend_from_slice(&sender.to_be_bytes());
    // It is about no SSRC of its own.
    out.extend_from_slice(&0_u32.to_be_bytes());
    out.extend_from_slice(b"REMB");
    // Six bits of exponent, 18 of mantissa.
    let exponent = 46_u32.saturating_sub(bitrate_bps.leading_zeros());
    let mantissa = (bitrate_bps >> exponent) as u32;
    out.extend_from_slice(&((ssrcs.len() as u32) << 24 | exponent << 18 | mantissa).to_be_bytes());
    ssrcs.iter().for_each(|ssrc| out.extend_from_slice(&ssrc.to_be_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_word_for_word() {
        let mut out = Vec::new();
        write_remb(&mut out, 1, 1_372_472, &[7, 9]);
        let words: Vec<u32> =
            out.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        let (exponent, mantissa) = (3, 1_372_472 >> 3);
        assert_eq!(words[..4], [0x8fce_0006, 1, 0, u32::from_be_bytes(*b"REMB")]);
        assert_eq!(words[4..], [2 << 24 | exponent << 18 | mantissa, 7, 9]);
        for bitrate_bps in [0, 1, (1 << 18) - 1, 1 << 18, 987_654_321, u64::MAX] {
            out.clear();
            write_remb(&mut out, 1, bitrate_bps, &[]);
            let word = u32::from_be_bytes(out[16..20].try_into().unwrap());
            let read = u64::from(word & 0x3_ffff) << (word >> 18 & 0x3f);
            assert!(read <= bitrate_bps && bitrate_bps - read <= bitrate_bps >> 17);
        }
        out.clear();
        write_remb(&mut out, 1, 1, &[5; REMB_SSRCS_MAX + 45]);
        assert_eq!((out.len(), out[16]), (20 + 4 * REMB_SSRCS_MAX, 255));
    }

    #[test]
    fn a_fall_is_told_at_once_and_a_rise_in_its_time() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(throttle.passes(at(0), 1e6));
        assert!(!throttle.passes(at(50), 1.1e6) && !throttle.passes(at(60), 0.98e6));
        assert!(throttle.passes(at(70), 0.97e6));
        assert!(!throttle.passes(at(200), 0.97e6));
        assert!(throttle.passes(at(270), 1e6));
    }
}
