//! How often a subscriber gets a packet again that it asks for again and again (LiveKit
//! `pkg/sfu/sequencer.go`). Pure.

use std::time::{Duration, Instant};

/// Packets that were sent again, remembered a subscription, by number: more than are kept to be sent
/// again (LiveKit's 500 of video).
const RESENT_MAX: usize = 512;
/// How often a packet is sent again, at most (LiveKit's `maxAck`).
const TIMES_MAX: u8 = 3;

/// The packets of one track that a subscriber was sent again.
#[derive(Debug)]
pub(crate) struct Resent {
    /// By sequence number, modulo the length.
    ring: Box<[Packet]>,
    /// Times are counted from it.
    began: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct Packet {
    sequence: u16,
    times: u8,
    last_ms: u32,
}

impl Resent {
    /// None yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { ring: vec![Packet::default(); RESENT_MAX].into(), began: now }
    }

    /// Whether to send a packet again that is asked for: not within so long of the last time, and no more
    /// often than [`TIMES_MAX`].
    pub(crate) fn allow(&mut self, sequence: u16, now: Instant, repeats_after: Duration) -> bool {
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let now_ms = ms(now.saturating_duration_since(self.began));
        let packet = &mut self.ring[usize::from(sequence) % RESENT_MAX];
        if packet.times == 0 || packet.sequence != sequence {
            *packet = Packet { sequence, times: 0, last_ms: 0 };
        } else if packet.times >= TIMES_MAX
            || now_ms.saturating_sub(packet.last_ms) <= ms(repeats_after)
        {
            return false;
        }
        packet.times += 1;
        packet.last_ms = now_ms;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_millis(20);

    #[test]
    fn a_packet_is_sent_again_three_times_and_not_at_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut resent = Resent::new(start);
        let mut allow = |ms| resent.allow(7, at(ms), AFTER);
        assert!(allow(5));
        assert!(!allow(5) && !allow(25), "it is on its way");
        assert!(allow(26));
        assert!(!allow(46) && allow(47));
        assert!(!allow(1_000), "three times");
        assert!(resent.allow(8, at(5), AFTER), "another packet");
    }

    #[test]
    fn each_number_is_one_packet_until_the_next_of_its_place() {
        let start = Instant::now();
        let mut resent = Resent::new(start);
        for sequence in 0..RESENT_MAX as u16 {
            assert!(resent.allow(sequence, start, AFTER));
        }
        for sequence in 0..RESENT_MAX as u16 {
            assert!(!resent.allow(sequence, start, AFTER));
        }
        assert!(resent.allow(RESENT_MAX as u16, start, AFTER));
        assert!(resent.allow(0, start, AFTER), "forgotten");
    }
}
