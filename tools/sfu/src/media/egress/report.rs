//! Sender reports that say what was sent here: str0m writes them when they are due, but knows
//! nothing of the packets. Pure.

use std::time::{Duration, Instant};

/// RTCP packet type of a sender report (RFC 3550 §6.4.1).
const SENDER_REPORT: u8 = 200;
/// Bytes of a sender report without reception reports.
const SENDER_REPORT_BYTES: usize = 28;

/// What a sender report says of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Packets on this SSRC since it started, wrapping.
    pub(crate) packets: u32,
    /// Their payload bytes, wrapping.
    pub(crate) octets: u32,
}

impl Sent {
    /// Counts a packet.
    pub(crate) fn add(&mut self, payload_bytes: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload_bytes as u32);
    }
}

/// A stream at the moment of its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamReport {
    pub(crate) sent: Sent,
    /// RTP time that corresponds to the report's own NTP time.
    pub(crate) rtp_time: u32,
}

/// RTP time at `now`, counted on from the packet that was sent last, or back from it: a report that
/// answers a datagram is of the moment that arrived, and a late worker has sent newer media by then.
pub(crate) fn rtp_time(last: u32, arrived_at: Instant, now: Instant, clock_rate: u32) -> u32 {
    let ticks = |span: Duration| (span.as_micros() * u128::from(clock_rate) / 1_000_000) as u32;
    let back = ticks(arrived_at.saturating_duration_since(now));
    last.wrapping_add(ticks(now.saturating_duration_since(arrived_at))).wrapping_sub(back)
}

/// Fills in the sender reports of a compound packet that `stream` knows the SSRC of. True if there
/// was one.
pub(crate) fn fill_in(
    compound: &mut [u8],
    mut stream: impl FnMut(u32) -> Option<StreamReport>,
) -> bool {
    let mut changed = false;
    let mut rest = compound;
    while rest.len() >= 4 {
        let bytes = 4 * (usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 1);
        let Some((packet, after)) = std::mem::take(&mut rest).split_at_mut_checked(bytes) else {
            break;
        };
        rest = after;
        if packet[1] != SENDER_REPORT || packet.len() < SENDER_REPORT_BYTES {
            continue;
        }
        let ssrc = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        let Some(report) = stream(ssrc) else { continue };
        packet[16..20].copy_from_slice(&report.rtp_time.to_be_bytes());
        packet[20..24].copy_from_slice(&report.sent.packets.to_be_bytes());
        packet[24..28].copy_from_slice(&report.sent.octets.to_be_bytes());
        changed = true;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sender_report(ssrc: u32) -> Vec<u8> {
        let mut report = vec![0x80, SENDER_REPORT, 0, 6];
        report.extend(ssrc.to_be_bytes());
        report.extend([7; 20]);
        report
    }

    #[test]
    fn the_reports_of_known_streams_are_filled_in() {
        let description = [0x81, 202, 0, 2, 0, 0, 0, 2, 1, 0, 0, 0];
        let mut compound = [sender_report(1), description.to_vec(), sender_report(2)].concat();
        let before = compound.clone();
        let report =
            StreamReport { sent: Sent { packets: 3, octets: 4_000 }, rtp_time: 0x0102_0304 };
        assert!(!fill_in(&mut compound, |_| None));
        assert_eq!(compound, before);
        assert!(fill_in(&mut compound, |ssrc| (ssrc == 2).then_some(report)));
        assert_eq!(compound[..56], before[..56], "another stream's, and the NTP time");
        assert_eq!(compound[56..60], [1, 2, 3, 4]);
        assert_eq!(compound[60..68], [0, 0, 0, 3, 0, 0, 0x0f, 0xa0]);
    }

    #[test]
    fn rtp_time_goes_on_with_the_clock() {
        let at = Instant::now();
        assert_eq!(rtp_time(u32::MAX, at, at + Duration::from_millis(100), 90_000), 8_999);
        assert_eq!(rtp_time(5, at + Duration::from_secs(1), at, 90_000), u32::MAX - 89_994);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let report = StreamReport { sent: Sent::default(), rtp_time: 0 };
            fill_in(&mut bytes, |_| Some(report));
        }
    }
}
